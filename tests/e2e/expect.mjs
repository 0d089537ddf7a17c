// What tests ask again and again.

import assert from 'node:assert/strict';

import { until } from './processes.mjs';

/** Lets media flow. Nothing can be awaited here: the recording's length itself is the matter. */
export const seconds = (count) => new Promise((resolve) => setTimeout(resolve, count * 1000));

/** Judges a finished call's session and fails with everything that is wrong with it. */
export async function assertRight(world, directory, options = {}) {
  const verdict = await world.judge(directory, options);
  assert.deepEqual(verdict.problems, [], JSON.stringify(verdict.streams, null, 1));
  return verdict;
}

export const segmentsOf = (manifest, source) =>
  manifest.participants
    .flatMap(({ tracks }) => tracks)
    .filter((track) => !source || track.source === source)
    .flatMap(({ segments }) => segments);

/** The counters that changed while `work` ran: {name: difference}; polls until `test(differences)` holds. */
export async function countsAfter(recorder, work, test, timeoutMs = 10_000) {
  const before = await recorder.totals();
  await work();
  return until(
    'the counters to move',
    async () => {
      const after = await recorder.totals();
      const moved = Object.fromEntries(
        Object.entries(after)
          .map(([name, value]) => [name, value - (before[name] ?? 0)])
          .filter(([, value]) => value !== 0),
      );
      if (!test(moved)) throw new Error(JSON.stringify(moved));
      return moved;
    },
    { timeoutMs },
  );
}

/** Bits per second of a kind sent between two `stats()` of a caller. */
export function sentRate(before, after, kind) {
  const of = (stats) => stats.find((entry) => entry.type === 'outbound-rtp' && entry.kind === kind);
  const [a, b] = [of(before), of(after)];
  return ((b.bytesSent - a.bytesSent) * 8 * 1000) / (b.timestamp - a.timestamp);
}

/** Lines of one media section of a description. */
export function section(sdp, kind) {
  return (
    sdp
      .split(/\r?\n(?=m=)/)
      .find((part) => part.startsWith(`m=${kind} `))
      ?.split(/\r?\n/) ?? []
  );
}
