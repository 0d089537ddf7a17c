// Keys that come late, servers that refuse for a while, and callers behind a relay.

import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, test } from 'node:test';

import { assertRight, seconds } from './expect.mjs';
import { leave, until } from './processes.mjs';
import { World } from './world.mjs';

describe('the way to the recorder', () => {
  let world;

  before(async () => {
    world = await World.start({ proxied: true, turn: true });
  });
  beforeEach(() => world.recorder.ensure());
  after(() => leave());

  test('an invite whose room key comes late is answered when the key is there', async () => {
    const ada = await world.caller('ada');
    const room = await ada.roomWith(world.recorderId, { encrypted: true });
    world.proxy.holdKeys = true;
    const callId = await ada.do('placeCall', room, {});
    await until('the key to be held back', () => world.proxy.held.length > 0);
    await seconds(1.5);
    assert.equal(await ada.do('state'), 'invite_sent');
    world.proxy.holdKeys = false;
    // The next answer of the homeserver takes the keys along. Nothing encrypted may cause it: that could bring a second,
    // later key of the same session in the same answer.
    await ada.do('setTopic', room, 'now');
    await ada.do('waitForState', 'connected', 10_000);
    await seconds(2);
    const { directory } = await world.hangUp(ada, callId);
    await assertRight(world, directory, { content: false });
    await ada.close();
  });

  test('a homeserver that answers 429, 500 and nonsense for a while is survived', async () => {
    const ben = await world.caller('ben');
    const room = await ben.roomWith(world.recorderId);
    for (const fault of [
      {
        status: 429,
        body: '{"errcode":"M_LIMIT_EXCEEDED","error":"slow","retry_after_ms":300}',
        headers: { 'retry-after': '1' },
      },
      { status: 500, body: '{"errcode":"M_UNKNOWN","error":"internal"}' },
      { status: 200, body: '<html>not the homeserver</html>' },
      { status: 502, body: '' },
    ]) {
      world.proxy.fault = fault;
      await ben.do('send', room, `under ${fault.status}`);
      await seconds(1.2);
    }
    world.proxy.fault = null;
    assert.ok(world.recorder.child.alive);
    const callId = await ben.do('placeCall', room, {});
    await ben.do('waitForState', 'connected', 30_000);
    await seconds(1);
    const { directory } = await world.hangUp(ben, callId);
    await assertRight(world, directory, { content: false });
    await ben.close();
  });

  test('a caller who may only relay is recorded', async () => {
    const cleo = await world.caller('cleo', { relayOnly: true });
    const room = await cleo.roomWith(world.recorderId);
    const { callId } = await cleo.call(room);
    await seconds(2);
    const stats = await cleo.do('stats');
    const pair = stats.find(
      ({ type, nominated, state }) => type === 'candidate-pair' && nominated && state === 'succeeded',
    );
    assert.equal(stats.find(({ id }) => id === pair.localCandidateId).candidateType, 'relay');
    const { directory } = await world.hangUp(cleo, callId);
    await assertRight(world, directory, { content: false });
    await cleo.close();
  });
});
