// Frame for frame: is what was sent in the file, byte for byte, in order and in time?

/** Block times are whole milliseconds, media time is not: half of one is rounding. */
export const TIME_TOLERANCE_MS = 1.0;

/** Frames of which a stream has more than so many do not tell where a file lies in it, if there are others. */
const SELDOM = 20;

/** Sums of votes that differ by less are the same. */
const EQUALLY = 1e-6;

const same = (packet, frame) =>
  packet.sha256 === frame.sha256 ||
  packet.sha256 === frame.avcc ||
  (packet.canonical !== null && packet.canonical === frame.canonical);

function index(stream) {
  const byHash = new Map();
  stream.frames.forEach((frame, at) => {
    for (const hash of new Set([frame.sha256, frame.avcc, frame.canonical])) {
      if (!hash) continue;
      if (!byHash.has(hash)) byHash.set(hash, []);
      byHash.get(hash).push(at);
    }
  });
  return byHash;
}

const candidates = (byHash, packet) => byHash.get(packet.sha256) ?? byHash.get(packet.canonical) ?? [];

/**
 * Lays one file over one sent stream. Times count from the file's first block. `begins`: where the session's clock has
 * the file begin, ms of the stream; of places where it fits equally well, as a silent file does, the nearest is taken.
 * Returns {matched: [frame index per packet or -1], unsent, mistimed, disordered: [packet indices]}.
 */
export function layOver(packets, stream, begins = 0) {
  const byHash = index(stream);
  // Equal frames exist (silence): the shift that most packets agree on is the true one. What is seldom says more, and
  // of what lasts for minutes every frame would vote for every other.
  const votes = new Map();
  const count = (packet) => candidates(byHash, packet).length;
  const telling = packets.filter((packet) => count(packet) > 0 && count(packet) <= SELDOM);
  for (const packet of telling.length ? telling : packets) {
    for (const at of candidates(byHash, packet)) {
      const shift = Math.round(stream.frames[at].ms - packet.ms);
      votes.set(shift, (votes.get(shift) ?? 0) + 1 / count(packet));
    }
  }
  const away = (shift) => Math.abs(shift + packets[0].ms - begins);
  let best = null;
  for (const [shift, count] of votes) {
    const near = count + (votes.get(shift - 1) ?? 0) + (votes.get(shift + 1) ?? 0);
    const more = best ? near - best.near : Infinity;
    if (more > EQUALLY || (more > -EQUALLY && away(shift) < away(best.shift))) best = { shift, near };
  }
  const result = { matched: packets.map(() => -1), unsent: [], mistimed: [], disordered: [], worstMs: 0 };
  if (!best) return { ...result, unsent: packets.map((_, at) => at) };

  const nearest = (packet, shift) => {
    let found = -1;
    for (const at of candidates(byHash, packet)) {
      const miss = Math.abs(stream.frames[at].ms - packet.ms - shift);
      if (found < 0 || miss < Math.abs(stream.frames[found].ms - packet.ms - shift)) found = at;
    }
    return found;
  };
  const first = nearest(packets[0], best.shift);
  const shift = first >= 0 ? stream.frames[first].ms - packets[0].ms : best.shift;
  let last = -1;
  packets.forEach((packet, number) => {
    const at = nearest(packet, shift);
    if (at < 0 || !same(packet, stream.frames[at])) {
      result.unsent.push(number);
      return;
    }
    const miss = Math.abs(stream.frames[at].ms - packet.ms - shift);
    if (miss > TIME_TOLERANCE_MS) result.mistimed.push(number);
    else result.worstMs = Math.max(result.worstMs, miss);
    if (at <= last) result.disordered.push(number);
    last = Math.max(last, at);
    result.matched[number] = at;
  });
  return result;
}

/** The stream, of those of the right kind, that a file's packets come from; null if none has any of them. */
export function findStream(packets, streams) {
  let best = null;
  for (const stream of streams) {
    const hashes = index(stream);
    const hits = packets.filter((packet) => candidates(hashes, packet).length > 0).length;
    if (hits > 0 && (!best || hits > best.hits)) best = { stream, hits };
  }
  return best?.stream ?? null;
}

/**
 * What of one stream is in none of its files: frames before the first written one, within, and after the last.
 * `layers` are the results of `layOver` for its files. `twice` holds frames that are in two places.
 * What was sent after `endedAt` (UTC ms) could not be recorded and is not missing at the end.
 */
export function missingOf(stream, layers, endedAt = Infinity) {
  const written = new Map();
  const twice = [];
  for (const { matched } of layers) {
    for (const at of matched) {
      if (at < 0) continue;
      if (written.has(at)) twice.push(at);
      written.set(at, true);
    }
  }
  const indices = [...written.keys()];
  const first = Math.min(...indices);
  const last = Math.max(...indices);
  const inside = [];
  for (let at = first; at <= last; at += 1) if (!written.has(at)) inside.push(at);
  const { frames } = stream;
  let end = frames.length - 1;
  while (end > last && frames[end].at > endedAt) end -= 1;
  return {
    twice,
    inside,
    leading: first,
    trailing: end - last,
    leadingMs: frames[first].ms - frames[0].ms,
    trailingMs: frames[end].ms - frames[last].ms,
  };
}
