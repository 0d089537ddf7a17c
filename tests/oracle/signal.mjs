// What a recording means: whose tone, on which side, beeps and flashes at each whole second.

export const RATE = 48_000;
export const BEEP_HZ = 2000;

/** Amplitude of one frequency in samples[from .. from + count) (Goertzel). */
export function amplitude(samples, from, count, hertz, rate = RATE) {
  const twoCos = 2 * Math.cos((2 * Math.PI * hertz) / rate);
  let s1 = 0;
  let s2 = 0;
  for (let i = from; i < from + count; i += 1) {
    const s0 = samples[i] + twoCos * s1 - s2;
    s2 = s1;
    s1 = s0;
  }
  return (2 / count) * Math.sqrt(Math.max(0, s1 * s1 + s2 * s2 - twoCos * s1 * s2));
}

/** Media time of a sample, by the blocks that `probe.sound` gives; holes in the file stay holes. */
export function sampleTime(blocks, sample) {
  let low = 0;
  let high = blocks.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (blocks[middle].first <= sample) low = middle;
    else high = middle - 1;
  }
  return blocks[low].at_s + (sample - blocks[low].first) / RATE;
}

// Samples at the beginning of a file in which the onset of a beep cannot be told: a beep's length and a packet more.
const EDGE = RATE * 0.12;

/** Media times at which beeps begin. */
export function beeps({ left, right, blocks }) {
  const window = 240;
  const step = 48;
  const levels = [];
  for (let at = 0; at + window <= left.length; at += step) {
    levels.push((amplitude(left, at, window, BEEP_HZ) + amplitude(right, at, window, BEEP_HZ)) / 2);
  }
  const peak = levels.reduce((most, level) => Math.max(most, level), 0);
  if (peak < 0.1) return [];
  const found = [];
  let on = levels[0] > peak / 2;
  levels.forEach((level, number) => {
    if (!on && level > peak / 2) {
      on = true;
      // A beep this early may have begun before the file, while its decoder was still settling.
      if (number * step < EDGE) return;
      // At half the level the window lies half within the beep.
      found.push(sampleTime(blocks, number * step + window / 2));
    } else if (on && level < peak / 4) {
      on = false;
    }
  });
  return found;
}

/** Media times of first white pictures after dark ones. */
export function flashes(pictures) {
  const found = [];
  for (let i = 1; i < pictures.length; i += 1) {
    if (pictures[i].luma > 128 && pictures[i - 1].luma <= 128) found.push(pictures[i].at_s);
  }
  return found;
}

/**
 * Which tone each side carries: the share of quarter seconds (beeps left out) in which `left` and `right` are the strongest of
 * `all` on their own side and at most a quarter as strong on the other.
 */
export function toneShare({ left, right }, voice, all) {
  const window = RATE / 4;
  let good = 0;
  let looked = 0;
  let stereo = 0;
  for (let at = 0; at + window <= left.length; at += window) {
    if (amplitude(left, at, window, BEEP_HZ) > 0.02) continue;
    looked += 1;
    const strongest = (samples) =>
      all.reduce(
        (best, hertz) => {
          const level = amplitude(samples, at, window, hertz);
          return level > best.level ? { hertz, level } : best;
        },
        { hertz: 0, level: 0.005 },
      );
    if (strongest(left).hertz === voice.left && strongest(right).hertz === voice.right) good += 1;
    if (
      amplitude(right, at, window, voice.left) < amplitude(left, at, window, voice.left) / 4 &&
      amplitude(left, at, window, voice.right) < amplitude(right, at, window, voice.right) / 4
    ) {
      stereo += 1;
    }
  }
  return { looked, tone: looked ? good / looked : 0, stereo: looked ? stereo / looked : 0 };
}

/** Seconds between an event and the next or last whole second. */
export function offWholeSecond(utcSeconds) {
  return utcSeconds - Math.round(utcSeconds);
}

/** For each time in `a` the difference to the nearest of `b`, if it is within half a second. */
export function offsets(a, b) {
  return a.flatMap((at) => {
    const nearest = b.reduce(
      (best, other) => (Math.abs(other - at) < Math.abs(best - at) ? other : best),
      Infinity,
    );
    return Math.abs(nearest - at) < 0.5 ? [at - nearest] : [];
  });
}

/** The value below which the share `p` of |values| lies; null without values. */
export function percentile(values, p) {
  if (values.length === 0) return null;
  const sorted = values.map(Math.abs).sort((x, y) => x - y);
  return sorted[Math.min(sorted.length - 1, Math.ceil(p * sorted.length) - 1)];
}

/** Whole seconds between the first and the last event that have none, within `tolerance` seconds. */
export function missedSeconds(times, tolerance = 0.08) {
  if (times.length < 2) return [];
  const missed = [];
  for (let second = 0; times[0] + second < times.at(-1); second += 1) {
    if (!times.some((at) => Math.abs(at - times[0] - second) <= tolerance)) missed.push(second);
  }
  return missed;
}
