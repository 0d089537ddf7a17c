// A change touches one child: in one call each, one thing is changed again and again, and everything else stays as it is.
// CHANGES=long runs as many changes as a long meeting has; otherwise a short form of each.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { Course } from './actions.mjs';
import { seconds } from './expect.mjs';
import { leave } from './processes.mjs';
import { World } from './world.mjs';

const long = process.env.CHANGES === 'long';
const times = (short, many) => (long ? many : short);
const small = { width: 320, height: 180, framesPerSecond: 15 };

/** name of the caller, what is proved, what to do */
const proofs = [
  {
    name: 'ada',
    sentence: 'muting touches nobody',
    async run(course) {
      for (let n = 0; n < times(10, 100); n += 1) await course.steps(['mute', 'unmute'], 300);
    },
  },
  {
    name: 'ben',
    sentence: 'the camera goes off and on in the same file',
    async run(course) {
      for (let n = 0; n < times(5, 50); n += 1) {
        await course.step('cameraOff', n % 5 === 1 ? 1800 : 500);
        await course.step('cameraOn', 700);
      }
    },
  },
  {
    name: 'cleo',
    sentence: 'each share of a screen with its sound is the next segment of those two tracks',
    async run(course) {
      for (let n = 0; n < times(4, 20); n += 1) {
        await course.step('screenWithAudioOn', 1500);
        await course.step('screenOff', 600);
      }
    },
  },
];

describe('a change touches one child', () => {
  let world;

  before(async () => {
    world = await World.start();
  });
  after(() => leave());

  test(
    'changes of every kind',
    { concurrency: true },
    async (t) => {
      await Promise.all(
        proofs.map(({ name, sentence, run, media, starts }) =>
          t.test(sentence, async () => {
            const caller = await world.caller(name, { media: small });
            const course = await Course.begin(world, caller, { media, starts });
            await seconds(1.5);
            await run(course);
            await seconds(1);
            const { figures } = await course.end();
            console.log(`  ${sentence}: ${JSON.stringify(figures)}`);
            await caller.close();
          }),
        ),
      );
    },
  );
});
