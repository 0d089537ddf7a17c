// Callers who must not, and invites that nobody should send. A good call goes on beside all of it.

import assert from 'node:assert/strict';
import { readdir, readFile } from 'node:fs/promises';
import path from 'node:path';
import { after, before, beforeEach, describe, test } from 'node:test';

import { assertRight, countsAfter, seconds, segmentsOf } from './expect.mjs';
import { badLaterOffers, badOffers, candidateBatches, hostileIds, offerOf } from './invites.mjs';
import { leave, until } from './processes.mjs';
import { World } from './world.mjs';

describe('bad input', () => {
  let world;
  let good;
  let goodCall;
  let raw;
  let room;

  before(async () => {
    world = await World.start();
    good = await world.caller('ada');
    goodCall = await good.call(await good.roomWith(world.recorderId, { encrypted: true }));
    raw = await world.synapse.login(await world.user('ben'), 'raw');
    room = await raw.createRoom({ invite: [world.recorderId] });
    await until(
      'the recorder in the room',
      async () => (await raw.members(room)).get(world.recorderId) === 'join',
    );
  });
  beforeEach(() => world.recorder.ensure());
  after(() => leave());

  const invite = (call_id, offer, more = {}) =>
    raw.send(room, 'm.call.invite', {
      call_id,
      party_id: raw.deviceId,
      version: '1',
      lifetime: 60_000,
      invitee: world.recorderId,
      offer,
      ...more,
    });
  const hangup = (call_id) =>
    raw.send(room, 'm.call.hangup', { call_id, party_id: raw.deviceId, version: '1', reason: 'user_hangup' });
  const said = async (type, call_id) =>
    (await raw.recent(room, 200)).filter(
      (event) =>
        event.sender === world.recorderId && event.type === type && event.content.call_id === call_id,
    );
  const answered = (call_id) =>
    until(
      `an answer to ${call_id.slice(0, 40)}`,
      async () => (await said('m.call.answer', call_id)).length > 0,
    );

  /** It takes calls, and the good one is still running. */
  async function wellAfter() {
    assert.ok(world.recorder.child.alive, 'the recorder is gone');
    const offer = await offerOf(good);
    const id = `after-${Math.random()}`;
    await invite(id, offer);
    await answered(id);
    await hangup(id);
    await until(
      'only the good call',
      async () => {
        const calls = await world.recorder.calls();
        if (calls.length !== 1) throw new Error(`${calls.length} calls`);
        return true;
      },
      { timeoutMs: 20_000 },
    );
    const health = await fetch(`${world.recorder.url}/healthz`);
    assert.equal(health.status, 200, await health.text());
    assert.equal(await good.do('state'), 'connected');
  }

  test('a call from someone who is not allowed is rejected and counted', async () => {
    const mallory = await world.caller('mallory');
    const shared = await good.do('createRoom', { invite: [world.recorderId, mallory.userId] });
    await mallory.do('joinRoom', shared);
    await mallory.do('waitForJoin', shared, world.recorderId);
    await countsAfter(
      world.recorder,
      async () => {
        for (let time = 0; time < 2; time += 1) {
          await mallory.do('placeCall', shared, { invitee: world.recorderId });
          await mallory.do('waitForState', 'ended', 10_000);
        }
      },
      ({ calls_refused_not_allowed }) => calls_refused_not_allowed === 2,
    );
    const log = await readFile(world.recorder.log, 'utf8');
    const lines = log.split('\n').filter((line) => line.includes(mallory.userId) && line.includes('rejected'));
    assert.equal(lines.length, 1, lines.join('\n'));
    assert.equal((await world.recorder.calls()).length, 1);
    await mallory.close();
  });

  test('a call among three that names nobody is left alone, and the room is told once how to call', async () => {
    const shared = await raw.createRoom({ invite: [world.recorderId] });
    const third = await world.synapse.login(await world.user('third'), 'raw');
    await raw.request('POST', `/rooms/${encodeURIComponent(shared)}/invite`, { user_id: third.userId });
    await third.join(shared);
    await until(
      'the recorder in the room',
      async () => (await raw.members(shared)).get(world.recorderId) === 'join',
    );
    const offer = await offerOf(good);
    const call = (call_id, more = {}) =>
      raw.send(shared, 'm.call.invite', {
        call_id,
        party_id: raw.deviceId,
        version: '1',
        lifetime: 60_000,
        offer,
        ...more,
      });
    await countsAfter(
      world.recorder,
      async () => {
        await call('for-anybody');
        await call('for-anybody-again');
      },
      ({ calls_refused_misplaced }) => calls_refused_misplaced === 2,
    );
    await call('for-us', { invitee: world.recorderId });
    const heard = async () => (await raw.recent(shared, 50)).filter(({ sender }) => sender === world.recorderId);
    await until('the answer', async () =>
      (await heard()).some(({ type, content }) => type === 'm.call.answer' && content.call_id === 'for-us'),
    );
    const told = (await heard()).filter(({ content }) => /call me in a room of the two/.test(content.body ?? ''));
    assert.equal(told.length, 1);
    assert.ok(!(await heard()).some(({ content }) => `${content.call_id}`.startsWith('for-anybody')));
    await raw.send(shared, 'm.call.hangup', {
      call_id: 'for-us',
      party_id: raw.deviceId,
      version: '1',
      reason: 'user_hangup',
    });
    await wellAfter();
  });

  test('a room invite from someone who is not allowed is not accepted', async () => {
    const mallory = await world.synapse.login(await world.user('mallory'), 'raw');
    await countsAfter(
      world.recorder,
      () => mallory.createRoom({ invite: [world.recorderId] }),
      ({ room_invites_refused }) => room_invites_refused >= 1,
    );
  });

  test('an invite sent twice is answered once', async () => {
    const offer = await offerOf(good);
    await invite('replayed', offer);
    await answered('replayed');
    await invite('replayed', offer);
    await hangup('replayed');
    await wellAfter();
    await invite('replayed', offer);
    await wellAfter();
    assert.equal((await said('m.call.answer', 'replayed')).length, 1);
  });

  test('an invite for someone else is left alone', async () => {
    await invite('for-another', await offerOf(good), { invitee: '@somebody:localhost' });
    await wellAfter();
    assert.equal((await said('m.call.answer', 'for-another')).length, 0);
  });

  test('offers that cannot be used are refused and harm nothing', async () => {
    for (const [name, sdp] of Object.entries(badOffers)) {
      await invite(`bad ${name}`, { type: 'offer', sdp });
    }
    await invite('no offer', undefined);
    await invite('offer is text', 'offer');
    await invite('offer is a list', []);
    await invite('type is wrong', { type: 'answer', sdp: (await offerOf(good)).sdp });
    await invite('lifetime is text', await offerOf(good), { lifetime: 'long' });
    await invite('version is a list', { type: 'offer', sdp: '' }, { version: [] });
    for (const [name] of Object.entries(badOffers)) await hangup(`bad ${name}`);
    for (const id of ['type is wrong', 'lifetime is text', 'version is a list']) await hangup(id);
    await wellAfter();
    for (const name of ['nothing at all', 'no SDP', 'no media', 'a data channel only', 'unknown codecs']) {
      assert.equal((await said('m.call.answer', `bad ${name}`)).length, 0, `${name} was answered`);
    }
  });

  test('ten thousand candidates harm nothing', async () => {
    await invite('many-candidates', await offerOf(good));
    await answered('many-candidates');
    for (const candidates of candidateBatches(10_000)) {
      await raw.send(room, 'm.call.candidates', {
        call_id: 'many-candidates',
        party_id: raw.deviceId,
        version: '1',
        candidates,
      });
    }
    await raw.send(room, 'm.call.candidates', {
      call_id: 'many-candidates',
      party_id: raw.deviceId,
      version: '1',
      candidates: [
        { candidate: '' },
        {},
        null,
        7,
        { candidate: 7 },
        { candidate: 'candidate:broken' },
        { candidate: 'x'.repeat(10_000) },
      ],
    });
    await hangup('many-candidates');
    await wellAfter();
  });

  test('ids with slashes, dots, NUL, emoji and ten thousand bytes choose no path', async () => {
    const offer = await offerOf(good);
    for (const id of hostileIds) await invite(id, offer, { party_id: id || 'x' });
    for (const id of hostileIds) {
      await raw.send(room, 'm.call.hangup', {
        call_id: id,
        party_id: id || 'x',
        version: '1',
        reason: 'user_hangup',
      });
    }
    await wellAfter();
    const outside = (await readdir(world.recorder.directory)).sort();
    assert.deepEqual(
      outside.filter(
        (name) =>
          !['recordings', 'store', 'password', 'passphrase', 'recorder.toml', 'recorder.log'].includes(name),
      ),
      [],
    );
    for (const { directory } of await world.sessions()) {
      assert.ok(path.relative(world.recorder.recordings, directory).split(path.sep).length === 2, directory);
    }
  });

  test('a flood of invites is refused beyond the limit and ebbs away', async () => {
    const offer = await offerOf(good);
    const ids = Array.from({ length: 200 }, (_, at) => `flood-${at}`);
    await countsAfter(
      world.recorder,
      async () => {
        for (let at = 0; at < ids.length; at += 20)
          await Promise.all(ids.slice(at, at + 20).map((id) => invite(id, offer)));
      },
      // One of calls.max is the good one.
      ({ calls_answered, calls_refused_busy }) => calls_answered === 19 && calls_refused_busy === 181,
      30_000,
    );
    await until('those answered to be on the page', async () => (await world.recorder.calls()).length === 20);
    const sent = async (type) =>
      (await raw.recent(room, 1_000)).filter(
        (event) => event.type === type && `${event.content.call_id}`.startsWith('flood-'),
      ).length;
    await until('every answer', async () => (await sent('m.call.answer')) === 19);
    // One caller is told a few times and no more: it is taken from what all callers can be told.
    await until('the rejections', async () => (await sent('m.call.reject')) >= 5);
    const rejections = await sent('m.call.reject');
    assert.ok(rejections <= 10, `${rejections} rejections`);
    for (let at = 0; at < ids.length; at += 20) await Promise.all(ids.slice(at, at + 20).map(hangup));
    await wellAfter();
  });

  test('whatever is sent into a running call in its name or beside it, the recording goes on', async () => {
    const cleo = await world.caller('cleo');
    const place = await cleo.roomWith(world.recorderId);
    await cleo.do('invite', place, raw.userId);
    await raw.join(place);
    const forged = await world.synapse.login(await world.user('cleo'), 'forged');
    const { callId } = await cleo.call(place, { invitee: world.recorderId });
    const own = { call_id: callId, version: '1', party_id: cleo.deviceId };
    await seconds(1);
    const offers = Object.values(badLaterOffers(await cleo.do('localDescription')));
    const negotiate = (sdp, type = 'offer') => ({ description: { type, sdp }, lifetime: 60_000 });
    const streams = {
      sdp_stream_metadata: {
        nowhere: { purpose: 'm.screenshare', audio_muted: true },
        odd: { purpose: 'm.hologram' },
      },
    };
    const candidates = {
      candidates: [
        { candidate: 'candidate:1 1 udp 1 127.0.0.1 9 typ host', sdpMid: '0', usernameFragment: 'gone' },
      ],
    };
    // In the name of the caller's own device: refused one by one, or taken down and no more.
    const inItsName = [
      ...offers.map((sdp) => ['m.call.negotiate', negotiate(sdp)]),
      ['m.call.negotiate', negotiate('v=0', 'answer')],
      ['m.call.negotiate', {}],
      ['m.call.sdp_stream_metadata_changed', streams],
      ['m.call.candidates', candidates],
      ['m.call.answer', { answer: { type: 'answer', sdp: 'v=0' } }],
      ['m.call.replaces', { replacement_id: 'r', create_call: 'x', lifetime: 60_000 }],
    ];
    // By somebody else in the room who pretends to be the caller, and by another device of the caller.
    const beside = [
      ['m.call.negotiate', negotiate(offers[0])],
      ['m.call.candidates', candidates],
      ['m.call.select_answer', { selected_party_id: 'ELSEWHERE' }],
      ['m.call.reject', {}],
      ['m.call.hangup', { reason: 'user_hangup' }],
    ];
    const sent = 2 * (inItsName.length + 2 * beside.length);
    await countsAfter(
      world.recorder,
      async () => {
        // Each of them twice.
        for (const [type, content] of [...inItsName, ...inItsName])
          await forged.send(place, type, { ...own, ...content });
        for (const [type, content] of [...beside, ...beside]) {
          await raw.send(place, type, { ...own, ...content });
          await forged.send(place, type, { ...own, party_id: forged.deviceId, ...content });
        }
      },
      // Metadata and candidates in the caller's own name are taken.
      ({ signals_ignored }) => signals_ignored >= sent - 6,
      30_000,
    );
    // A hundred offers as fast as they can be sent.
    for (let at = 0; at < 100; at += 10) {
      await Promise.all(
        offers.slice(0, 10).map((sdp) => forged.send(place, 'm.call.negotiate', { ...own, ...negotiate(sdp) })),
      );
    }
    await seconds(2);
    const { directory, manifest } = await world.hangUp(cleo, callId);
    assert.equal(manifest.end_reason, 'hangup');
    assert.deepEqual(
      segmentsOf(manifest).map(({ opened_because }) => opened_because),
      ['first', 'first'],
      'no file was cut',
    );
    assert.ok(manifest.events.length < 100, `${manifest.events.length} events`);
    await assertRight(world, directory, { content: false });
    await cleo.close();
  });

  test('the good call was recorded whole', async () => {
    await seconds(1);
    const { directory } = await world.hangUp(good, goodCall.callId);
    await assertRight(world, directory);
  });
});
