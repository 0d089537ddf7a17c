// The gaps that a manifest lists against the holes that a file has.

import { sessionTime } from './clock.mjs';

/** A pause counts from this length on. */
export const GAP_S = 1;
// A frame's own length is not known exactly, so a pause of about a second may be listed or not.
const MARGIN_S = 0.2;

/** Pauses between frames, on the media clock: [{from_s, to_s}]. */
export function holes(packets, atLeast = GAP_S) {
  const found = [];
  for (let i = 1; i < packets.length; i += 1) {
    const [from_s, to_s] = [packets[i - 1].ms / 1000, packets[i].ms / 1000];
    if (to_s - from_s >= atLeast) found.push({ from_s, to_s });
  }
  return found;
}

/** Complaints about a segment's gaps: one that is not in the file, and a hole that is not listed. */
export function gapProblems(packets, { gaps, clock_map: map }) {
  const problems = [];
  const all = holes(packets, GAP_S - MARGIN_S);
  const is = (gap, hole) =>
    Math.abs(gap.from_s - sessionTime(map, hole.from_s)) < MARGIN_S &&
    Math.abs(gap.to_s - sessionTime(map, hole.to_s)) < MARGIN_S / 4;
  for (const gap of gaps) {
    if (!all.some((hole) => is(gap, hole)))
      problems.push(`a gap from ${gap.from_s} to ${gap.to_s} is not in the file`);
  }
  for (const hole of all) {
    if (hole.to_s - hole.from_s >= GAP_S + MARGIN_S && !gaps.some((gap) => is(gap, hole))) {
      problems.push(`a pause from media second ${hole.from_s} to ${hole.to_s} is not listed`);
    }
  }
  return problems;
}
