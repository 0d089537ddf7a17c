// Nothing of a call may stay behind when it is over.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { seconds } from './expect.mjs';
import { leave, until } from './processes.mjs';
import { assertNothingOpen, assertSameSockets, holdings } from './remains.mjs';
import { World } from './world.mjs';

const MEBIBYTE = 1 << 20;

describe('what a call leaves behind', () => {
  let world;
  let caller;

  before(async () => {
    world = await World.start();
    caller = await world.caller('ada');
  });
  after(() => leave());

  test('after the tenth identical call no actor, file, thread or socket is left, and the heap is as after the fifth', async () => {
    const room = await caller.roomWith(world.recorderId);
    const marks = [];
    for (let call = 1; call <= 10; call += 1) {
      const { callId } = await caller.call(room);
      await seconds(3);
      await caller.do('hangup');
      await world.session(callId);
      await until('an empty tree', async () => {
        const actors = await world.recorder.actors();
        if (JSON.stringify(actors).includes('call-')) throw new Error('a call is still there');
        return true;
      });
      // Threads of the blocking pool rest for ten seconds before they end; the page's and the sync's connections stay.
      if (call === 5 || call === 10) {
        await seconds(12);
        marks.push(await holdings(world.recorder));
      }
    }
    const [fifth, tenth] = marks;
    console.log(`heap after the fifth ${fifth.heap}, after the tenth ${tenth.heap} bytes`);
    assertNothingOpen(tenth);
    assertSameSockets(tenth.sockets, fifth.sockets, 1);
    assert.ok(tenth.threads <= fifth.threads + 1, `${fifth.threads} threads became ${tenth.threads}`);
    assert.ok(tenth.heap - fifth.heap <= MEBIBYTE, `the heap grew by ${tenth.heap - fifth.heap} bytes`);
  });
});
