// The gaps that a manifest lists against the holes that a file has.

import { sessionTime } from './clock.mjs';

/** A pause counts from this length on. */
export const GAP_S = 1;
/** Block times are whole milliseconds, and the map may bend a little between a gap's ends. */
const TOLERANCE_S = 0.03;
/** What browsers put into an Opus packet. */
const SOUND_S = 0.02;

/** Pauses of at least `atLeast` seconds, on the media clock: [{from_s, to_s}]. A picture lasts as long as the one before. */
export function holes(packets, kind, atLeast = GAP_S) {
  const found = [];
  let last = kind === 'audio' ? SOUND_S : 0;
  for (let i = 1; i < packets.length; i += 1) {
    const [before, to_s] = [packets[i - 1].ms / 1000, packets[i].ms / 1000];
    const from_s = before + last;
    if (to_s - from_s >= atLeast) found.push({ from_s, to_s });
    else if (kind === 'video' && to_s - from_s < GAP_S) last = to_s - before;
  }
  return found;
}

/** Length of the last frame, by the same rule. */
export function lastLength(packets, kind) {
  if (kind === 'audio') return SOUND_S;
  for (let i = packets.length - 1; i > 0; i -= 1) {
    const step = (packets[i].ms - packets[i - 1].ms) / 1000;
    if (step < GAP_S) return step;
  }
  return 0;
}

/** Gaps that lie in the file. What is withheld of who opted out follows the file's end. */
export const inFile = ({ gaps, end_s }) =>
  gaps.filter(({ cause, from_s }) => cause !== 'opted_out' || from_s < end_s - TOLERANCE_S);

/** Complaints about a segment's gaps: one that is not in the file, and a hole that is not listed. */
export function gapProblems(packets, kind, segment) {
  const problems = [];
  const [gaps, map] = [inFile(segment), segment.clock_map];
  const all = holes(packets, kind, GAP_S - TOLERANCE_S);
  const near = (a, b) => Math.abs(a - sessionTime(map, b)) < TOLERANCE_S;
  const is = (gap, hole) => near(gap.from_s, hole.from_s) && near(gap.to_s, hole.to_s);
  for (const gap of gaps) {
    if (!all.some((hole) => is(gap, hole)))
      problems.push(`a gap from ${gap.from_s} to ${gap.to_s} is not in the file`);
  }
  for (const hole of all) {
    if (hole.to_s - hole.from_s >= GAP_S + TOLERANCE_S && !gaps.some((gap) => is(gap, hole))) {
      problems.push(`a pause from media second ${hole.from_s} to ${hole.to_s} is not listed`);
    }
  }
  return problems;
}
