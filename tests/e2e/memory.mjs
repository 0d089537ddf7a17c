#!/usr/bin/env node
// How much memory the recorder holds: idle after its login, and more for each stream of real calls.
// `node tests/e2e/memory.mjs [--calls 4] [--seconds 20] [--json]`; exit code 1 if a figure is missed.

import { parseArgs } from 'node:util';

import { seconds } from './expect.mjs';
import { leave, until } from './processes.mjs';
import { friends, World } from './world.mjs';

const { values } = parseArgs({
  options: {
    calls: { type: 'string', default: '4' },
    seconds: { type: 'string', default: '20' },
    json: { type: 'boolean', default: false },
  },
});
const LIMIT_IDLE = 80;
const LIMIT_STREAM = 4;

try {
  const world = await World.start({ passphrase: 'open sesame', log: (text) => console.error(text) });

  /** Resident memory, in MB (10⁶ bytes). */
  async function resident() {
    const text = await (await fetch(`${world.recorder.url}/metrics`)).text();
    return Number(/^process_resident_memory_bytes (\S+)/m.exec(text)[1]) / 1e6;
  }

  /** The same once it has stopped growing: by less than 0.5 MB in three seconds. */
  async function settled() {
    let last = Number.NaN;
    return until(
      'the memory to settle',
      async () => {
        const now = await resident();
        const still = Math.abs(now - last) < 0.5;
        last = now;
        return still && now;
      },
      { timeoutMs: 120_000, everyMs: 3_000 },
    );
  }

  const idle = await settled();
  console.error(`idle: ${idle.toFixed(1)} MB`);
  const callers = [];
  for (const name of friends.slice(0, Number(values.calls))) {
    const caller = await world.caller(name);
    callers.push({ caller, ...(await caller.call(await caller.roomWith(world.recorderId))) });
    console.error(`${callers.length} calls`);
  }
  await seconds(Number(values.seconds));
  const calls = await world.recorder.calls();
  const streams = calls
    .flatMap(({ participants }) => participants)
    .flatMap(({ tracks }) => tracks)
    .filter(({ live }) => live).length;
  const busy = await resident();
  for (const { caller, callId } of callers) await world.hangUp(caller, callId);
  const figures = {
    idle_mb: Number(idle.toFixed(1)),
    limit_idle_mb: LIMIT_IDLE,
    streams,
    in_calls_mb: Number(busy.toFixed(1)),
    stream_mb: Number(((busy - idle) / streams).toFixed(2)),
    limit_stream_mb: LIMIT_STREAM,
  };
  const right =
    streams === 2 * callers.length && figures.idle_mb <= LIMIT_IDLE && figures.stream_mb <= LIMIT_STREAM;
  if (values.json) {
    console.log(JSON.stringify({ ...figures, right }));
  } else {
    console.log(`idle after login  ${figures.idle_mb} MB (limit ${LIMIT_IDLE})`);
    console.log(
      `per stream        ${figures.stream_mb} MB (limit ${LIMIT_STREAM}), ${streams} streams in ` +
        `${callers.length} calls: ${figures.in_calls_mb} MB`,
    );
  }
  process.exitCode = right ? 0 : 1;
} catch (error) {
  console.error(error);
  process.exitCode = 1;
} finally {
  await leave();
}
