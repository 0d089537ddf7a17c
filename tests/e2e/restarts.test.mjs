// What happens to a call when the recorder or the homeserver goes away under it.

import assert from 'node:assert/strict';
import { readdir } from 'node:fs/promises';
import path from 'node:path';
import { after, before, beforeEach, describe, test } from 'node:test';

import { decodeErrors, packets } from '../oracle/probe.mjs';
import { assertRight, seconds, segmentsOf } from './expect.mjs';
import { offerOf } from './invites.mjs';
import { leave, until } from './processes.mjs';
import { World } from './world.mjs';

describe('restarts', () => {
  let world;

  before(async () => {
    world = await World.start({ passphrase: 'only for this test' });
  });
  beforeEach(() => world.recorder.ensure());
  after(() => leave());

  test('a recorder that ends in order finishes its files within five seconds and hangs up', async () => {
    const ada = await world.caller('ada');
    const room = await ada.roomWith(world.recorderId);
    const { callId } = await ada.call(room);
    await seconds(4);
    const stoppedAt = Date.now();
    const { code, ms } = await world.recorder.stop();
    assert.equal(code, 0);
    assert.ok(ms <= 5000, `it took ${ms} ms`);
    await ada.do('waitForState', 'ended', 5000);
    const { directory, manifest } = await world.session(callId);
    assert.equal(manifest.end_reason, 'shutdown');
    await ada.appendTruth(world.truthFile);
    await assertRight(world, directory, { endedAt: stoppedAt });
    await ada.close();
    await world.recorder.start();
  });

  test('a killed recorder leaves files that play, repairs them, hangs the old call up, and the next call continues it', async () => {
    const ben = await world.caller('ben');
    const room = await ben.roomWith(world.recorderId, { encrypted: true });
    const { callId } = await ben.call(room);
    await seconds(6);
    const killedAt = Date.now();
    await world.recorder.kill();

    const { directory } = await world.session(callId, () => true);
    const names = (await readdir(directory)).filter((name) => /\.(webm|mkv)$/.test(name));
    assert.equal(names.length, 2);
    for (const name of names) {
      const file = path.join(directory, name);
      const { packets: blocks } = await packets(file);
      assert.ok(blocks.at(-1).ms > 3500, `${name} holds ${blocks.at(-1)?.ms} ms`);
      assert.equal(await decodeErrors(file), '', name);
    }

    const began = Date.now();
    await world.recorder.start();
    const readyAt = Date.now();
    const endedAt = await ben.do('waitForState', 'ended', 10_000).then(() => Date.now());
    assert.ok(endedAt - readyAt <= 2000, `hung up ${endedAt - readyAt} ms after the first sync`);
    const repaired = await world.session(
      callId,
      ({ recoveries, state }) => recoveries.length > 0 && state === 'complete',
    );
    assert.ok(Date.now() - began <= 10_000 + (readyAt - began), 'the repair took longer than ten seconds');
    // A second; where packets were missing, what waited 1.5 s for one as well.
    const missing = segmentsOf(repaired.manifest).some(({ ledger }) => ledger.lost + ledger.recovered > 0);
    assert.equal(repaired.manifest.recoveries[0].lost_at_most_s, missing ? 2.5 : 1);
    assert.equal(repaired.manifest.end_reason, 'restarted');
    await ben.appendTruth(world.truthFile);
    // Without loss at most one second of media is missing.
    await assertRight(world, directory, { endedAt: killedAt, trailingMs: 1000 });
    await world.notice(
      ben,
      room,
      ({ at, content }) => at >= began && /restart|interrupt/i.test(content.body),
    );

    const next = await ben.call(room);
    await seconds(2);
    const { manifest } = await world.hangUp(ben, next.callId);
    assert.equal(manifest.continues, repaired.manifest.session_id);
    await ben.close();
  });

  test('a homeserver that is away in mid-call does not harm the recording', async () => {
    const cleo = await world.caller('cleo');
    const room = await cleo.roomWith(world.recorderId);
    const { callId } = await cleo.call(room);
    await seconds(2);
    await world.synapse.kill();
    await seconds(3);
    assert.equal((await world.recorder.calls()).length, 1, 'the call went on');
    await world.synapse.run();
    // The caller's client is back when it can send.
    await until('the homeserver to take messages again', () => cleo.do('send', room, 'back'), {
      timeoutMs: 20_000,
    });
    await cleo.do('hangup');
    const { directory, manifest } = await world.session(callId, undefined, 30_000);
    await cleo.appendTruth(world.truthFile);
    assert.equal(manifest.end_reason, 'hangup');
    await assertRight(world, directory);
    assert.equal(segmentsOf(manifest).length, 2, 'no file was cut');
    await cleo.close();
  });

  test('after a restart only the call that is still alive is answered', async () => {
    const [dora, emil] = await Promise.all([world.caller('dora'), world.caller('emil')]);
    const room = await dora.roomWith(world.recorderId, { encrypted: true });
    const other = await emil.roomWith(world.recorderId);
    const raw = await world.synapse.login(await world.user('emil'), 'raw');
    const elsewhere = await world.synapse.login(world.account, 'another device');
    const offer = await offerOf(emil);
    await world.recorder.stop();

    const content = (call_id, more) => ({ call_id, party_id: raw.deviceId, version: '1', ...more });
    const invite = (call_id, lifetime = 60_000) =>
      raw.send(other, 'm.call.invite', content(call_id, { lifetime, invitee: world.recorderId, offer }));
    await invite('expired', 500);
    await invite('hung-up');
    await raw.send(other, 'm.call.hangup', content('hung-up', { reason: 'user_hangup' }));
    await invite('answered-elsewhere');
    await elsewhere.send(other, 'm.call.answer', {
      call_id: 'answered-elsewhere',
      party_id: 'ELSEWHERE',
      version: '1',
      answer: { type: 'answer', sdp: 'v=0' },
    });
    const callId = await dora.do('placeCall', room, {});
    await dora.do('waitForState', 'invite_sent', 5000);
    await seconds(0.6);

    await world.recorder.start();
    await dora.do('waitForState', 'connected', 15_000);
    await seconds(2);
    const { directory } = await world.hangUp(dora, callId);
    await assertRight(world, directory, { content: false });
    const answers = (await raw.recent(other)).filter(
      ({ type, sender }) => type === 'm.call.answer' && sender === world.recorderId,
    );
    assert.deepEqual(
      answers.map(({ content: { call_id, party_id } }) => `${call_id} ${party_id}`),
      ['answered-elsewhere ELSEWHERE'],
    );
    await Promise.all([dora.close(), emil.close()]);
  });
});
