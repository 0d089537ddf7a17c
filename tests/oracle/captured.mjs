// When media was captured, by its sender's own log: what session time is held against.
//
// The log says at which wall-clock time each frame came from its encoder. Most come without much delay, so the least of
// neighbouring ones tells what lies between the sender's media clock and its wall clock. A busy browser makes its beeps and
// pictures late, and loses sound; the log has that, a ruler of whole seconds has not.

import { sessionTime } from './clock.mjs';

/** What browsers put into an Opus packet, ms: it leaves when its last sample was taken, RTP time is that of the first. */
const SOUND_MS = 20;
/** How far neighbours of a packet of sound are looked at, ms. */
const NEAR_MS = 1000;

/** For each frame of a stream of truth.mjs when it was captured, UTC ms. */
export function captureTimes({ frames, kind }) {
  const late = frames.map(({ at, ms }) => at - ms);
  if (kind === 'video') {
    // RTP time of pictures is read from a clock and loses nothing: all of them tell of each.
    const least = late.reduce((found, one) => Math.min(found, one), Infinity);
    return frames.map(({ ms }) => ms + least);
  }
  // Where the clock that counts samples lost some, all that follows is late by as much: neighbours on the other side of that
  // must not tell. The least on either side alone is right on one of both, and never too late by more than encoders take.
  const least = (from, step) => {
    let found = late[from];
    for (let at = from; at >= 0 && at < frames.length; at += step) {
      if (Math.abs(frames[at].ms - frames[from].ms) > NEAR_MS) break;
      found = Math.min(found, late[at]);
    }
    return found;
  };
  return frames.map(({ ms }, at) => ms + Math.max(least(at, -1), least(at, 1)) - SOUND_MS);
}

/**
 * How far a file's session time lies off what its sender's log says, in ms, for each of its packets. `file` is one of those
 * that `judgeSession` has for a stream; `epoch` UTC ms.
 */
export function offCapture(stream, { layer, packets, segment }, epoch, times = captureTimes(stream)) {
  return packets.flatMap(({ ms }, number) => {
    const frame = layer.matched[number];
    if (frame < 0) return [];
    return [epoch + sessionTime(segment.clock_map, ms / 1000) * 1000 - times[frame]];
  });
}

/**
 * How far a moment in a file (media seconds) lies off its sender's log: {off, captured} in ms, `captured` UTC; null if
 * the frame that holds it is not in the log.
 */
export function momentOff({ layer, packets, segment }, at, epoch, times) {
  const ms = at * 1000;
  const number = packets.findLastIndex((packet) => packet.ms <= ms);
  if (number < 0 || layer.matched[number] < 0) return null;
  const captured = times[layer.matched[number]] + ms - packets[number].ms;
  return { off: epoch + sessionTime(segment.clock_map, at) * 1000 - captured, captured };
}

/** The middle of signed values, of two the one further from 0. */
export function middle(values) {
  const sorted = values.toSorted((a, b) => a - b);
  const [low, high] = [sorted[(sorted.length - 1) >> 1], sorted[sorted.length >> 1]];
  return Math.abs(low) > Math.abs(high) ? low : high;
}
