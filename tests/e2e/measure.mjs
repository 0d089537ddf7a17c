#!/usr/bin/env node
// How long it takes to be connected: our share (invite in the sync's answer → answer sent, seen from a proxy before the
// homeserver), and the whole against two matrix-js-sdk clients that call each other in the same run.
// `node tests/e2e/measure.mjs [--calls 20] [--json]`; exit code 1 if a figure is missed.

import { parseArgs } from 'node:util';

import { percentile } from '../oracle/signal.mjs';
import { leave, until } from './processes.mjs';
import { World } from './world.mjs';

const { values } = parseArgs({
  options: { calls: { type: 'string', default: '20' }, json: { type: 'boolean', default: false } },
});
const count = Number(values.calls);
const round = (value) => Math.round(value);

try {
  const world = await World.start({ proxied: true, log: (text) => console.error(text) });
  const caller = await world.caller('ada');
  const listener = await world.caller('ben', { answerCalls: true });
  const ours = await caller.roomWith(world.recorderId);
  const theirs = await caller.do('createRoom', { invite: [listener.userId] });
  await listener.do('joinRoom', theirs);
  await caller.do('waitForJoin', theirs, listener.userId);

  const connected = { recorder: [], client: [] };
  const answers = [];
  for (let number = 0; number < count; number += 1) {
    for (const [who, room] of [
      ['recorder', ours],
      ['client', theirs],
    ]) {
      const { callId, connectedMs } = await caller.call(room);
      connected[who].push(connectedMs);
      if (who === 'recorder') {
        const at = (what) =>
          world.proxy.log.find((entry) => entry.callId === callId && entry.what === what)?.at;
        answers.push(at('m.call.answer') - at('invite'));
      }
      await caller.do('hangup');
      if (who === 'recorder')
        await until('the call to be over', async () => (await world.recorder.calls()).length === 0);
      else await listener.do('waitForState', 'ended', 5000);
    }
    console.error(`call ${number + 1} of ${count}: answered after ${round(answers.at(-1))} ms`);
  }
  const figures = {
    calls: count,
    answer_ms: {
      median: round(percentile(answers, 0.5)),
      p95: round(percentile(answers, 0.95)),
      limit_p95: 300,
    },
    connected_ms: {
      recorder_median: round(percentile(connected.recorder, 0.5)),
      client_median: round(percentile(connected.client, 0.5)),
      limit: round(percentile(connected.client, 0.5) + 500),
    },
  };
  const right =
    figures.answer_ms.p95 <= figures.answer_ms.limit_p95 &&
    figures.connected_ms.recorder_median <= figures.connected_ms.limit;
  if (values.json) {
    console.log(JSON.stringify({ ...figures, right }));
  } else {
    console.log(
      `invite → answer    median ${figures.answer_ms.median} ms, p95 ${figures.answer_ms.p95} ms (limit 300)`,
    );
    console.log(
      `click → connected  median ${figures.connected_ms.recorder_median} ms, between two clients ` +
        `${figures.connected_ms.client_median} ms (limit ${figures.connected_ms.limit})`,
    );
  }
  process.exitCode = right ? 0 : 1;
} catch (error) {
  console.error(error);
  process.exitCode = 1;
} finally {
  await leave();
}
