// Calls that end in every way there is, and callers who come back. Never a lost file, never a ghost, always the right session.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { after, before, beforeEach, describe, test } from 'node:test';

import { assertRight, countsAfter, seconds, segmentsOf } from './expect.mjs';
import { leave, until } from './processes.mjs';
import { readTruth } from '../oracle/truth.mjs';
import { World } from './world.mjs';

describe('coming back', () => {
  let world;
  let vanished;

  before(async () => {
    world = await World.start();
    // Judged at the end: it takes as long as the recorder waits for a caller whose path is silent.
    vanished = Promise.all([
      vanish('ada', async ({ page }) => {
        const session = await page.createCDPSession();
        session.send('Page.crash').catch(() => {});
      }),
      vanish('dora', ({ page }) => page.close()),
    ]);
    vanished.catch(() => {});
  });
  beforeEach(() => world.recorder.ensure());
  after(() => leave());

  /** A caller in a recorded call: {caller, room, callId}. */
  async function inCall(name) {
    const caller = await world.caller(name);
    const room = await caller.roomWith(world.recorderId);
    const { callId } = await caller.call(room);
    return { caller, room, callId };
  }

  /**
   * The complete session of a call, which is right and ended so: every stream that was sent has its file, with every frame. A
   * call of two seconds has too few beeps for more.
   */
  async function ended(callId, reason, options) {
    const { directory, manifest } = await world.session(callId);
    assert.equal(manifest.end_reason, reason, callId);
    await assertRight(world, directory, { content: false, ...options });
    const reasons = segmentsOf(manifest).map(({ opened_because }) => opened_because);
    assert.ok(
      reasons.every((because) => because === 'first'),
      `no file was cut: ${reasons}`,
    );
    return manifest;
  }
  const callsIn = async (room) => (await world.recorder.calls()).filter(({ room_id }) => room_id === room);
  const gone = (room) =>
    until('no call in the room', async () => (await callsIn(room)).length === 0, { timeoutMs: 10_000 });

  /** The caller's page goes away in the call without a word, and its user calls again at once. */
  async function vanish(name, how) {
    const { caller, room, callId } = await inCall(name);
    await seconds(2);
    // What is sent from here on would be in no log.
    await caller.do('stopSending');
    await seconds(0.5);
    await caller.appendTruth(world.truthFile);
    const at = Date.now();
    await how(caller);
    const again = await world.caller(name);
    await again.do('waitForJoin', room, world.recorderId, 20_000);
    const next = await again.call(room);
    const { length: calls } = await callsIn(room);
    await seconds(2);
    await world.hangUp(again, next.callId);
    // A page that is gone answers no more.
    await Promise.all([caller.context.close(), again.close()]);
    return { name, at, calls, old: callId, next: next.callId };
  }

  test('who hangs up and calls again in the same moment has two sessions', async () => {
    const { caller, room, callId } = await inCall('ben');
    await seconds(2);
    const second = await caller.do('callAgain', room);
    await caller.do('waitForState', 'connected', 20_000);
    const third = await caller.do('callAgain', room);
    await caller.do('waitForState', 'connected', 20_000);
    await seconds(2);
    await world.hangUp(caller, third);
    await ended(callId, 'hangup');
    await ended(third, 'hangup');
    await gone(room);
    // It was hung up the moment the client called it connected: perhaps before it was so at our end, and anything came.
    const short = (await world.sessions()).find(({ manifest }) => manifest.call_id === second);
    if (short) await ended(second, 'hangup');
    const { frames } = await readTruth(world.truthFile);
    assert.ok(short || !frames.some(({ call_id }) => call_id === second), 'what was sent is in no session');
    await caller.close();
  });

  test('a call that comes while the one before is still being written is recorded from its beginning', async () => {
    const { caller, room, callId } = await inCall('cleo');
    await seconds(2);
    await world.recorder.fault({ point: 'disk_sync', who: 'cleo', fault: 'stall' });
    await until('the disk to stall', async () => (await world.recorder.faults()).length === 0);
    const next = await caller.do('callAgain', room);
    await caller.do('waitForState', 'connected', 20_000);
    try {
      // The caller's end may be connected a moment before the recorder's.
      await until('one call to end while the other is recorded', async () => {
        const states = (await callsIn(room)).map(({ state }) => state).sort();
        if (`${states}` !== 'ending,recording') throw new Error(`${states}`);
        return true;
      });
      await seconds(2);
    } finally {
      await world.recorder.liftFaults();
    }
    await world.hangUp(caller, next);
    await ended(callId, 'hangup');
    await ended(next, 'hangup');
    await gone(room);
    await caller.close();
  });

  test('two devices of one user calling in turn are two sessions, each of its own party', async () => {
    const { caller: first, room, callId } = await inCall('emil');
    const second = await world.caller('emil');
    await seconds(1);
    await world.hangUp(first, callId);
    const next = await second.call(room);
    await seconds(2);
    await world.hangUp(second, next.callId);
    const parties = [];
    for (const id of [callId, next.callId]) {
      const { participants } = await ended(id, 'hangup');
      assert.equal(participants.length, 1);
      parties.push(participants[0].party_id);
    }
    assert.deepEqual(parties, [first.deviceId, second.deviceId]);
    await Promise.all([first.close(), second.close()]);
  });

  test('a caller who leaves the room has left the call', async () => {
    const { caller, room, callId } = await inCall('fay');
    await seconds(2);
    const raw = await world.synapse.login(await world.user('fay'), 'raw');
    const endedAt = Date.now();
    await raw.leaveRoom(room);
    await gone(room);
    await caller.appendTruth(world.truthFile);
    await ended(callId, 'everyone_left', { endedAt });
    await caller.close();
  });

  for (const [name, action] of [
    ['gus', 'kick'],
    ['hana', 'ban'],
  ]) {
    test(`a recorder that meets a ${action} in the call ends the session as removed`, async () => {
      const caller = await world.caller(name);
      const raw = await world.synapse.login(await world.user(name), 'raw');
      // A preset that leaves the recorder without power over the room.
      const room = await raw.createRoom({ preset: 'private_chat', invite: [world.recorderId] });
      await caller.do('waitForJoin', room, world.recorderId, 20_000);
      const { callId } = await caller.call(room);
      await seconds(2);
      const endedAt = Date.now();
      await raw.request('POST', `/rooms/${encodeURIComponent(room)}/${action}`, {
        user_id: world.recorderId,
      });
      await gone(room);
      await caller.appendTruth(world.truthFile);
      await ended(callId, 'removed', { endedAt });
      await caller.close();
    });
  }

  test('a room that is upgraded in the call ends the session as such', async () => {
    const { caller, room, callId } = await inCall('ivo');
    await seconds(2);
    const raw = await world.synapse.login(await world.user('ivo'), 'raw');
    const endedAt = Date.now();
    await raw.request('POST', `/rooms/${encodeURIComponent(room)}/upgrade`, { new_version: '10' });
    await gone(room);
    await caller.appendTruth(world.truthFile);
    await ended(callId, 'room_upgraded', { endedAt });
    await caller.close();
  });

  test('a call transfer is ignored, and a hang-up for whatever reason is one', async () => {
    const { caller, room, callId } = await inCall('jana');
    await seconds(1);
    const content = { call_id: callId, party_id: caller.deviceId, version: '1' };
    await countsAfter(
      world.recorder,
      () =>
        caller.do('sendRaw', room, 'm.call.replaces', {
          ...content,
          replacement_id: 'r',
          target_user: { id: '@somebody:localhost' },
          create_call: 'elsewhere',
          lifetime: 60_000,
        }),
      ({ signals_ignored }) => signals_ignored >= 1,
    );
    const log = await readFile(world.recorder.log, 'utf8');
    assert.match(log, /a call transfer is ignored/);
    await seconds(1);
    assert.deepEqual(await callsIn(room).then(([one]) => one.state), 'recording');
    await caller.do('hangUpBecause', 'a_reason_that_nobody_knows');
    await gone(room);
    await caller.appendTruth(world.truthFile);
    await ended(callId, 'hangup');
    await caller.close();
  });

  test('a client that vanished in the call is waited for, and its user is recorded meanwhile', async () => {
    for (const { name, at, calls, old, next } of await vanished) {
      assert.equal(calls, 2, `${name}: the old call was still there when the new one was recorded`);
      await ended(next, 'hangup');
      await world.session(old, undefined, 75_000);
      const { epoch, ended_s } = await ended(old, 'connection_lost');
      const waited = Date.parse(epoch) / 1000 + ended_s - at / 1000;
      assert.ok(waited > 40 && waited < 75, `${name}: it was given up after ${waited} s`);
    }
    await until('no ghost', async () => (await world.recorder.calls()).length === 0);
    const sessions = await world.sessions();
    assert.ok(sessions.every(({ manifest }) => manifest.state === 'complete'));
  });
});
