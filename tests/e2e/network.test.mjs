// Keys that come late, servers that refuse for a while, and callers behind a relay.

import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, test } from 'node:test';

import { assertRight, seconds, segmentsOf } from './expect.mjs';
import { leave, until } from './processes.mjs';
import { World } from './world.mjs';

/** Pictures begin so long after the first was sent, at most, if the beginning of their first key frame was lost. */
const RESUME_MS = 1000;
/** More packets than this in a row a path that loses one in twenty does not lose at the beginning of sound. */
const LEADING = 3;

describe('the way to the recorder', () => {
  let world;

  before(async () => {
    world = await World.start({ proxied: true, turn: true, paths: true });
  });
  beforeEach(() => world.recorder.ensure());
  after(() => leave());

  test('an invite whose room key comes late is answered when the key is there', async () => {
    const ada = await world.caller('ada');
    const room = await ada.roomWith(world.recorderId, { encrypted: true });
    // Who is greeted by a device for the first time hands it the room's key once more with the next message, from there on. If
    // both keys came in one answer, the Matrix library would keep the later one alone.
    await world.notice(ada, room, () => true);
    world.proxy.holdKeys = true;
    const callId = await ada.do('placeCall', room, {});
    await until('the key to be held back', () => world.proxy.held.length > 0);
    await seconds(1.5);
    assert.equal(await ada.do('state'), 'invite_sent');
    world.proxy.holdKeys = false;
    // The next answer of the homeserver takes the keys along.
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

  for (const [browser, name] of [
    ['chromium', 'dora'],
    ['firefox', 'emil'],
  ]) {
    test(`what a path loses is sent again by ${browser}, sound and pictures, and is in the files`, async () => {
      const caller = await world.caller(name, { browser });
      const path = await world.pathOf(caller);
      const room = await caller.roomWith(world.recorderId);
      // From the first datagram on: also of the handshake some are lost.
      path.loss = 0.05;
      const { callId } = await caller.call(room);
      await seconds(8);
      path.loss = 0;
      await seconds(1);
      const stats = await caller.do('stats');
      for (const kind of ['audio', 'video']) {
        const sent = stats.find((entry) => entry.type === 'outbound-rtp' && entry.kind === kind);
        assert.ok(sent.retransmittedPacketsSent > 0, `no ${kind} was sent again: ${JSON.stringify(sent)}`);
      }
      const { directory, manifest } = await world.hangUp(caller, callId);
      // What is lost before the first packet that comes nobody can ask for: of pictures all until the key frame asked for then.
      const verdict = await assertRight(world, directory, { content: false, leadingMs: RESUME_MS });
      const voice = verdict.streams.find(({ codec }) => codec === 'opus');
      assert.ok(voice.leading <= LEADING, `${voice.leading} packets of sound are missing at its beginning`);
      const missing = verdict.streams.reduce((sum, row) => sum + row.missing, 0);
      console.log(`  ${path.dropped} datagrams lost, ${missing} frames missing, ${JSON.stringify(segmentsOf(manifest).map(({ ledger }) => ledger))}`);
      assert.equal(missing, 0, 'frames that were sent are missing');
      await caller.close();
    });
  }
});
