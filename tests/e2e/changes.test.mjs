// A change touches one child: in one call each, one thing is changed again and again, and everything else stays as it is.
// CHANGES=long runs as many changes as a long meeting has; otherwise a short form of each.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { Course } from './actions.mjs';
import { seconds } from './expect.mjs';
import { leave, until } from './processes.mjs';
import { assertNothingOpen, assertSameSockets, flat, holdings } from './remains.mjs';
import { World } from './world.mjs';

const long = process.env.CHANGES === 'long';
const times = (short, many) => (long ? many : short);
/** Calls at the same time. */
const AT_ONCE = 5;
/** So long the recorder's client keeps a connection to the homeserver that nothing uses, and a bit longer. */
const KEPT_MS = 100_000;
const MEBIBYTE = 1 << 20;
const small = { width: 320, height: 180, framesPerSecond: 10 };

/** Does the first and the second in turns, `count` of each. */
const turns = (first, second, short, many, ms) => async (course) => {
  for (let n = 0; n < times(short, many); n += 1) await course.steps([first, second], ms);
};

/** name of the caller, what is proved, how the call begins, what to do */
const proofs = [
  { name: 'ada', sentence: 'muting touches nobody', run: turns('mute', 'unmute', 10, 100, 300) },
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
  {
    name: 'dora',
    sentence: 'another microphone, mono and of another rate, is heard in the same file',
    run: turns('headset', 'microphone', 2, 10, 1200),
  },
  {
    name: 'emil',
    sentence: 'another camera, of another size, is seen in the same file',
    run: turns('otherCamera', 'camera', 2, 10, 1200),
  },
  {
    name: 'fay',
    sentence: 'a hold ends no file, whether it is said or not',
    async run(course) {
      for (let n = 0; n < times(3, 10); n += 1) {
        await course.steps(n % 3 === 0 ? ['hold', 'unhold'] : ['hold', 'restartIce', 'unhold'], 700);
      }
    },
  },
  {
    name: 'gus',
    sentence: 'an ICE restart loses nothing',
    async run(course) {
      for (let n = 0; n < times(3, 10); n += 1) await course.step('restartIce', 1000);
    },
  },
  {
    name: 'ivo',
    sentence: 'the first camera of a voice call is a file beside the voice',
    media: { video: false },
    starts: { video: false },
    run: (course) => course.steps(['cameraOn', 'cameraOff', 'cameraOn'], 1500),
  },
  {
    name: 'jana',
    sentence: 'a microphone that is plugged in later is a file beside the camera',
    starts: { audio: false },
    prepare: (caller) => caller.do('plugMicrophone', false),
    async run(course) {
      await course.caller.do('plugMicrophone', true);
      await course.steps(['addMicrophone', 'mute', 'unmute'], 1500);
    },
  },
  {
    name: 'kim',
    sentence: 'a network that goes away and comes back is a gap in files that go on',
    async prepare(caller, world) {
      this.path = await world.pathOf(caller);
    },
    async run(course) {
      const took = await course.networkGone(12_000);
      console.log(`  connected again after ${took} ms, ${this.path.dropped} datagrams were lost`);
      await seconds(3);
    },
  },
];

const firefox = {
  name: 'hana',
  browser: 'firefox',
  // A line that has nothing to send sends black all the same.
  starts: { sendsBlack: true },
  sentence: 'a caller with Firefox changes everything',
  // The sound card that Firefox is given here is pretended and slow: its seconds are not those of the wall.
  judge: { sound: false },
  async run(course) {
    for (let n = 0; n < times(1, 5); n += 1) {
      await course.steps(['mute', 'unmute', 'cameraOff', 'cameraOn'], 700);
      await course.steps(['headset', 'microphone', 'otherCamera', 'camera'], 700);
      await course.steps(['screenWithAudioOn', 'screenOff', 'screenWithAudioOn', 'restartIce', 'screenOff'], 1000);
      await course.steps(['hold', 'unhold', 'restartIce'], 700);
    }
  },
};

describe('a change touches one child', () => {
  let world;
  let idle;
  let rooms;

  before(async () => {
    world = await World.start({ paths: true });
    // A room that the recorder is in is kept, call or not: all are there before the heap is looked at.
    const names = [...proofs, firefox].map(({ name }) => name);
    rooms = new Map(await Promise.all(names.map(async (name) => [name, await roomOf(name)])));
    // What is made at the first call stays: a heap is compared with that after one.
    const first = await world.caller('otto', { media: small });
    const course = await Course.begin(world, first);
    await course.steps(['screenWithAudioOn', 'screenOff'], 500);
    await course.end({ content: false });
    await first.close();
    idle = await rest();
  });
  after(() => leave());

  /** A room of the user `name` with the recorder in it. */
  async function roomOf(name) {
    const user = await world.synapse.login(await world.user(name), 'host');
    const roomId = await user.createRoom({ invite: [world.recorderId] });
    const isJoined = async () => (await user.members(roomId)).get(world.recorderId) === 'join';
    await until('the recorder in the room', isJoined);
    return roomId;
  }

  /** What the recorder holds when it has come to rest: threads of the blocking pool live on for ten seconds. */
  async function rest() {
    await until('an empty tree', async () => (await world.recorder.calls()).length === 0);
    await seconds(12);
    return { actors: flat(await world.recorder.actors()), ...(await holdings(world.recorder)) };
  }

  async function prove(proof) {
    const { name, sentence, media, starts, browser, judge } = proof;
    const caller = await world.caller(name, { media: small, browser });
    await proof.prepare?.(caller, world);
    const course = await Course.begin(world, caller, { media, starts, room: rooms.get(name), path: proof.path });
    await seconds(1.5);
    await proof.run(course);
    await seconds(1);
    const { figures } = await course.end(judge);
    console.log(`  ${sentence}: ${JSON.stringify(figures)}`);
    await caller.close();
  }

  // Each in a room of its own, several at a time.
  const only = process.env.ONLY?.split(',');
  const chosen = proofs.filter(({ name }) => !only || only.includes(name));
  for (let at = 0; at < chosen.length; at += AT_ONCE) {
    const batch = chosen.slice(at, at + AT_ONCE);
    test(`changes of ${batch.length} kinds at once`, { concurrency: true }, async (t) => {
      await Promise.all(batch.map((proof) => t.test(proof.sentence, () => prove(proof))));
    });
  }

  if (!only || only.includes(firefox.name)) test(firefox.sentence, () => prove(firefox));

  test('nothing of any of these calls is left', async () => {
    const { actors, ...left } = await rest();
    assert.equal(actors.length, 1, `left in the tree: ${actors.map(({ path }) => path)}`);
    assertNothingOpen(left);
    assert.ok(left.threads <= idle.threads + 1, `${idle.threads} threads became ${left.threads}`);
    console.log(`  heap when idle ${idle.heap}, in the end ${left.heap} bytes`);
    assert.ok(left.heap - idle.heap <= MEBIBYTE, `the heap grew by ${left.heap - idle.heap} bytes`);
    const { homeserver } = await until(
      'unused connections to the homeserver to be given up',
      async () => {
        const { sockets } = await holdings(world.recorder);
        return sockets.homeserver <= idle.sockets.homeserver + 1 && sockets;
      },
      { timeoutMs: KEPT_MS, everyMs: 1000 },
    );
    assertSameSockets({ ...left.sockets, homeserver }, idle.sockets, 1);
  });
});
