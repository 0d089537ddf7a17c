// A chaos call: three people in three rooms change whatever can be changed, in any order, and in one of the calls actors panic.
// CHAOS_SEED=n repeats one. CHANGES=long goes on for ten minutes. Needs a recorder built with `fault-injection`.

import { after, before, describe, test } from 'node:test';

import { Course } from './actions.mjs';
import { Chaos, random } from './chaos.mjs';
import { leave } from './processes.mjs';
import { World } from './world.mjs';

const long = process.env.CHANGES === 'long';
const LASTS_MS = long ? 600_000 : 40_000;
const seed = Number(process.env.CHAOS_SEED ?? Date.now() % 1_000_000_000);

describe('chaos', () => {
  let world;

  before(async () => {
    world = await World.start({ paths: long });
  });
  after(() => leave());

  async function course(name, number) {
    const caller = await world.caller(name, { media: { width: 320, height: 180, framesPerSecond: 10 } });
    // In so many shares some end while a picture waits to be sent. The watch takes time from the browsers, of which two cores
    // have little.
    const path = long ? await world.pathOf(caller) : undefined;
    const course = await Course.begin(world, caller, { encrypted: number === 1, path });
    const chaos = new Chaos(course, random(seed + number), { panics: number === 2 });
    await chaos.run(LASTS_MS);
    const { figures } = await course.end();
    console.log(`  ${name}: ${JSON.stringify(figures)}\n    ${JSON.stringify(chaos.count)}`);
    await caller.close();
  }

  const sentence = `whatever three people do for ${LASTS_MS / 1000} s is recorded as the table says (CHAOS_SEED=${seed})`;
  test(sentence, { concurrency: true }, async (t) => {
    const people = ['kim', 'lea', 'max'];
    await Promise.all(people.map((name, number) => t.test(`the call of ${name}`, () => course(name, number))));
  });
});
