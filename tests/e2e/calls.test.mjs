// Whole calls of real clients: signalling, media, files.

import assert from 'node:assert/strict';
import { readdir } from 'node:fs/promises';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';

import { assertRight, seconds, section, segmentsOf, sentRate } from './expect.mjs';
import { leave, until } from './processes.mjs';
import { packets } from '../oracle/probe.mjs';
import { readTruth } from '../oracle/truth.mjs';
import { World } from './world.mjs';

describe('calls', () => {
  let world;

  before(async () => {
    world = await World.start();
  });
  after(() => leave());

  test('two people call at once, one in an encrypted room, and each gets files of what was sent', async () => {
    const [ada, ben] = await Promise.all([world.caller('ada'), world.caller('ben')]);
    const [secret, plain] = await Promise.all([
      ada.roomWith(world.recorderId, { encrypted: true, name: 'Ada/Küche 🎥' }),
      ben.roomWith(world.recorderId, { name: 'ben' }),
    ]);
    const greeting = await world.notice(ada, secret, () => true);
    assert.equal(greeting.encrypted, true);

    const [first, second] = await Promise.all([ada.call(secret), ben.call(plain)]);
    const begun = await world.notice(
      ada,
      secret,
      ({ at, content }) => at >= Date.now() - 60_000 && content['m.mentions']?.user_ids?.includes(ada.userId),
    );
    assert.match(begun.content.body, /record/i);

    const calls = await until('both calls on the page', async () => {
      const running = await world.recorder.calls();
      return (
        running.length === 2 &&
        running.every(({ participants }) => participants[0]?.tracks.length === 2) &&
        running
      );
    });
    assert.deepEqual(calls.map(({ encrypted }) => encrypted).sort(), [false, true]);

    await seconds(8);
    // What arrived is on disk already, and what is on disk plays.
    for (const { callId } of [first, second]) {
      const { directory } = await world.session(callId, () => true);
      const names = (await readdir(directory)).filter((name) => /\.(webm|mkv)$/.test(name));
      assert.equal(names.length, 2, `files in mid-call: ${names}`);
      for (const name of names) {
        const { packets: blocks } = await packets(path.join(directory, name));
        assert.ok(blocks.at(-1)?.ms > 5000, `${name} holds ${blocks.at(-1)?.ms} ms in mid-call`);
      }
    }
    const ended = await Promise.all([world.hangUp(ada, first.callId), world.hangUp(ben, second.callId)]);
    for (const { directory, manifest, finalMs } of ended) {
      const { participants } = await assertRight(world, directory);
      console.log(`  final after ${finalMs} ms, ${JSON.stringify(participants[0])}`);
      assert.ok(finalMs <= 2000, `files were final ${finalMs} ms after hanging up`);
      assert.equal(manifest.end_reason, 'hangup');
      assert.equal(manifest.call_kind, 'one_to_one');
      assert.deepEqual(
        segmentsOf(manifest)
          .map(({ codec }) => codec)
          .sort(),
        ['opus', 'vp8'],
      );
      assert.equal(manifest.continues ?? null, null);
    }
    assert.equal(ended[0].manifest.room.encrypted, true);
    assert.equal(ended[0].manifest.room.name, 'Ada/Küche 🎥');
    const [camera] = segmentsOf(ended[0].manifest, 'camera');
    assert.deepEqual(camera.video.resolutions.map(({ width, height }) => [width, height]).at(-1), [320, 180]);
    await world.notice(
      ada,
      secret,
      ({ content, at }) => at >= ended[0].hungUpAt - 1000 && /sav|stream/i.test(content.body),
    );
    await until('no call left on the page', async () => (await world.recorder.calls()).length === 0);
    await Promise.all([ada.close(), ben.close()]);
  });

  const asked = ['stereo=1', 'maxaveragebitrate=128000', 'useinbandfec=1'];
  for (const [name, browser, wanted] of [
    ['cleo', 'chromium', [...asked, 'sprop-stereo=1']],
    // It shows of an answer only what it understands.
    ['lea', 'firefox', asked],
  ]) {
    test(`${browser} is asked for good sound and pictures, and sends them, also in silence`, async () => {
      const caller = await world.caller(name, { browser });
      const room = await caller.roomWith(world.recorderId);
      const { callId } = await caller.call(room);
      const answer = await caller.do('remoteDescription');
      const audio = section(answer, 'audio');
      const opus = audio.map((line) => /^a=rtpmap:(\d+) opus\/48000\/2/i.exec(line)?.[1]).find(Boolean);
      const fmtp = audio.find((line) => line.startsWith(`a=fmtp:${opus} `)) ?? '';
      for (const parameter of wanted) assert.ok(fmtp.includes(parameter), `${fmtp} lacks ${parameter}`);
      assert.ok(!fmtp.includes('usedtx=1'), fmtp);
      assert.ok(
        audio.some((line) => line.startsWith(`a=rtcp-fb:${opus} nack`)),
        'no NACK for audio',
      );
      const video = section(answer, 'video');
      assert.ok(
        video.some((line) => /^a=rtpmap:\d+ rtx\/90000/.test(line)),
        'no RTX for video',
      );
      assert.ok(
        video.some((line) => /^a=rtcp-fb:\d+ transport-cc/.test(line)),
        'no transport-wide feedback',
      );
      assert.ok(
        !video.some((line) => /^a=(sendrecv|sendonly|inactive)/.test(line)),
        'the answer is not receive-only',
      );

      await seconds(1);
      const early = await caller.do('stats');
      await seconds(3);
      const late = await caller.do('stats');
      const rate = sentRate(early, late, 'audio');
      assert.ok(rate >= 100_000, `${rate} bit/s of sound`);
      const silentFrom = Date.now();
      await caller.do('setSilent', true);
      await seconds(2);
      await caller.do('setSilent', false);
      const silentTo = Date.now();
      await seconds(1);
      const { directory } = await world.hangUp(caller, callId);
      await assertRight(world, directory, { cadence: false, content: false });

      const { frames } = await readTruth(world.truthFile);
      const silent = frames.filter(
        (frame) =>
          frame.call_id === callId &&
          frame.kind === 'audio' &&
          frame.at > silentFrom + 200 &&
          frame.at < silentTo,
      );
      assert.ok(silent.length > 60, `${silent.length} frames in silence`);
      for (let i = 1; i < silent.length; i += 1) {
        assert.equal((silent[i].rtp - silent[i - 1].rtp) | 0, 960, 'a pause in silence');
      }
      await caller.close();
    });
  }

  test('a picture is as good as its size asks for from the first second on', async () => {
    const size = { width: 1280, height: 720, framesPerSecond: 15 };
    const jana = await world.caller('jana', { media: size });
    const room = await jana.roomWith(world.recorderId);
    const { callId } = await jana.call(room);
    const stats = await until('pictures to be sent', async () => {
      const sent = (await jana.do('stats')).find(({ type, kind }) => type === 'outbound-rtp' && kind === 'video');
      return sent?.framesEncoded >= 3 && sent;
    });
    // A browser that is asked for nothing begins with 0.3 Mbit/s.
    assert.ok(stats.targetBitrate >= 1_000_000, `${stats.targetBitrate} bit/s at ${stats.framesEncoded} pictures`);
    await world.hangUp(jana, callId);
    await jana.close();
  });

  for (const [name, codec, extension] of [
    ['dora', 'vp9', 'webm'],
    ['emil', 'h264', 'mkv'],
    ['fay', 'av1', 'webm'],
  ]) {
    test(`a caller who sends ${codec} is recorded as such`, async () => {
      const caller = await world.caller(name, { codecs: { video: codec } });
      const room = await caller.roomWith(world.recorderId);
      const { callId } = await caller.call(room);
      await seconds(4);
      const { directory, manifest } = await world.hangUp(caller, callId);
      await assertRight(world, directory);
      const [camera] = segmentsOf(manifest, 'camera');
      assert.equal(camera.codec, codec);
      assert.ok(camera.file.endsWith(`.${extension}`), camera.file);
      await caller.close();
    });
  }

  test('a call without a camera is one file', async () => {
    const gus = await world.caller('gus');
    const room = await gus.roomWith(world.recorderId);
    const { callId } = await gus.call(room, { video: false });
    await seconds(3);
    const { directory, manifest } = await world.hangUp(gus, callId);
    await assertRight(world, directory);
    assert.deepEqual(
      segmentsOf(manifest).map(({ codec }) => codec),
      ['opus'],
    );
    await gus.close();
  });

  test('a call of version 0, as old clients place it, is answered in its terms and recorded', async () => {
    const ivo = await world.caller('ivo');
    const room = await ivo.roomWith(world.recorderId);
    const { callId, answer } = await ivo.do('placeOldCall', room);
    assert.deepEqual([answer.version, answer.party_id], [0, undefined]);
    await seconds(4);
    await ivo.do('hangUpOldCall');
    const { directory, manifest } = await world.session(callId);
    await ivo.appendTruth(world.truthFile);
    await assertRight(world, directory);
    assert.equal(manifest.end_reason, 'hangup');
    assert.equal(manifest.participants[0].party_id, null);
    await ivo.close();
  });

  test('Firefox calls and is recorded', async () => {
    const hana = await world.caller('hana', { browser: 'firefox' });
    const room = await hana.roomWith(world.recorderId, { encrypted: true });
    const { callId } = await hana.call(room);
    await seconds(5);
    const { directory, manifest } = await world.hangUp(hana, callId);
    // The sound card that Firefox is given here is pretended and slow: its seconds are not those of the wall.
    await assertRight(world, directory, { cadence: false });
    assert.deepEqual(
      segmentsOf(manifest)
        .map(({ codec }) => codec)
        .sort(),
      ['opus', 'vp8'],
    );
    await hana.close();
  });
});
