// The harness by itself: real callers reach each other, and the log of what they sent is whole.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { seconds } from './expect.mjs';
import { leave } from './processes.mjs';
import { readTruth, streamsOf } from '../oracle/truth.mjs';
import { World } from './world.mjs';

describe('the harness', () => {
  let world;
  let listener;

  before(async () => {
    world = await World.start({ recorder: false, turn: true });
    listener = await world.caller('listener', { answerCalls: true });
  });
  after(() => leave());

  async function callListener(name, options) {
    const caller = await world.caller(name, options);
    const room = await caller.do('createRoom', { invite: [listener.userId], encrypted: true });
    await listener.do('joinRoom', room);
    await caller.do('waitForJoin', room, listener.userId);
    const { callId } = await caller.call(room);
    await seconds(2);
    const stats = await caller.do('stats');
    await caller.do('hangup');
    await caller.appendTruth(world.truthFile);
    const { frames } = await readTruth(world.truthFile);
    await caller.close();
    return { stats, streams: streamsOf(frames, callId) };
  }

  for (const browser of ['chromium', 'firefox']) {
    test(`a call from ${browser} is logged frame by frame`, async () => {
      const { streams } = await callListener(`from-${browser}`, { browser });
      assert.deepEqual(streams.map(({ codec }) => codec).sort(), ['opus', 'vp8']);
      for (const { kind, frames } of streams) {
        assert.ok(frames.length >= (kind === 'audio' ? 60 : 20), `${frames.length} frames of ${kind}`);
        assert.ok(
          frames.every(({ ms }, at) => at === 0 || ms > frames[at - 1].ms),
          `${kind} out of order`,
        );
        if (kind === 'video') assert.equal(frames[0].type, 'key');
        else
          assert.ok(
            frames.every(({ ms }, at) => at === 0 || ms - frames[at - 1].ms === 20),
            'sound has holes',
          );
      }
    });
  }

  test('a caller who may only relay does so', async () => {
    const { stats } = await callListener('relayed', { relayOnly: true });
    const pair = stats.find(
      ({ type, nominated, state }) => type === 'candidate-pair' && nominated && state === 'succeeded',
    );
    const local = stats.find(({ id }) => id === pair.localCandidateId);
    assert.equal(local.candidateType, 'relay');
  });
});
