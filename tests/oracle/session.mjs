// The judgement of one session folder: every claim of the manifest against the files and against what was sent.

import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { readFile, stat } from 'node:fs/promises';
import path from 'node:path';

import { captureTimes, momentOff } from './captured.mjs';
import { clockProblems, sessionTime } from './clock.mjs';
import { gapProblems, inFile, lastLength } from './gaps.mjs';
import { findStream, layOver, missingOf } from './frames.mjs';
import { diskProblems, folderProblems, nameProblems } from './layout.mjs';
import { explainedByLedger, ledgerProblems } from './ledger.mjs';
import * as probe from './probe.mjs';
import { schemaProblems } from './schema.mjs';
import { beeps, flashes, missedSeconds, offsets, offWholeSecond, percentile, toneShare } from './signal.mjs';
import { streamsOf } from './truth.mjs';

export const defaults = {
  /** Parsed schema, null to read the published one, false to leave it out. */
  schema: null,
  /** The state the session is to be in. */
  state: 'complete',
  /** Frames that may be missing beside what ledgers explain, per stream (a kill, a restart). */
  unexplainedMs: 0,
  /** What was sent first is there: browsers encode nothing before the connection stands. */
  leadingMs: 0,
  /** What was encoded while the call was hung up may not have been sent: one frame, however seldom they come, or so much. */
  trailingMs: 100,
  /** When the recorder ended, UTC ms, if before the sender did. */
  endedAt: Infinity,
  /** Judge tone, beeps and flashes. */
  content: true,
  /** The sender's seconds are true (not so where a browser has only a pretended sound card); 'offsets': with pauses between. */
  cadence: true,
  /** Beeps against flashes, in seconds. */
  offsetMedian: 0.02,
  offsetP95: 0.05,
  /** Every stream of the log with at least this many frames has a file. */
  expectStreamsOf: 10,
  /** A test that stalls us may see drops. */
  mayDrop: false,
  /** Modes and folder names; off for copies. */
  disk: true,
};

async function sha256Of(file) {
  const hash = createHash('sha256');
  for await (const chunk of createReadStream(file)) hash.update(chunk);
  return hash.digest('hex');
}

async function judgeFile(directory, track, segment, repaired, options) {
  const file = path.join(directory, segment.file);
  const problems = [];
  const said = await probe.packets(file);
  if (said.codec !== segment.codec) problems.push(`holds ${said.codec}, the manifest says ${segment.codec}`);
  if (said.streams.length !== 1) problems.push(`${said.streams.length} streams in one file`);
  if (said.packets.length === 0) return { said, problems: [...problems, 'no frames'] };
  // A repair reads no more than cluster headers: what the last seconds before a kill held is in the file, not counted.
  const counted = repaired ? said.packets.length >= segment.frames : said.packets.length === segment.frames;
  if (!counted) problems.push(`${said.packets.length} frames, the manifest says ${segment.frames}`);
  if (said.packets[0].ms !== 0) problems.push(`the first block is at ${said.packets[0].ms} ms`);
  if (track.kind === 'video' && !said.packets[0].key) problems.push('does not begin with a key frame');
  const span = said.packets.at(-1).ms / 1000;
  const pauses = inFile(segment).reduce((sum, { from_s, to_s }) => sum + to_s - from_s, segment.dtx_s);
  // The last frame counts with its length, of which the file does not tell.
  const length = span + lastLength(said.packets, track.kind);
  const misses = (seconds) => Math.max(span - seconds, seconds - length);
  if (misses(segment.media_seconds + pauses) > 0.2)
    problems.push(
      `media_seconds ${segment.media_seconds}, blocks span ${span} with pauses of ${pauses.toFixed(3)}`,
    );
  const errors = await probe.decodeErrors(file);
  if (errors) problems.push(`does not decode: ${errors.split('\n').slice(0, 3).join('; ')}`);
  const clock = clockProblems(segment);
  problems.push(...clock);
  if (clock.length === 0) {
    const [last, end] = [span, length].map((at) => sessionTime(segment.clock_map, at));
    if (Math.max(last - segment.end_s, segment.end_s - end) > 0.2)
      problems.push(`end_s ${segment.end_s}, the clock map has the last frame from ${last} to ${end}`);
  }
  if (clock.length === 0) problems.push(...gapProblems(said.packets, track.kind, segment));
  problems.push(...ledgerProblems(segment.ledger, options));
  if (segment.sha256 && segment.sha256 !== (await sha256Of(file))) problems.push('sha256 is another');
  if (options.state === 'complete') {
    if (!segment.final) problems.push('is not final');
    const elements = await probe.topElements(file);
    if (!elements.some(({ name }) => name === 'Cues')) problems.push('has no cues');
    if (elements.some(({ size }) => size === null)) problems.push('has an element of unknown size');
    if (said.durationS === null || misses(said.durationS) > 0.2) {
      problems.push(`duration ${said.durationS}, blocks span ${span}`);
    }
  }
  return { said, problems, bytes: (await stat(file)).size };
}

/** Beeps of the microphone and flashes of the pictures of one participant, in session time as `moment` has it. */
function meaning(participant, found, voice, voices, options) {
  const problems = [];
  const measures = {};
  const all = [...new Set([...voices.values()].flatMap(({ left, right }) => [left, right]))];
  if (found.sound.length) {
    for (const { file, sound } of found.sound) {
      const share = toneShare(sound, voice, all);
      measures.tone = Math.min(measures.tone ?? 1, share.tone);
      measures.stereo = Math.min(measures.stereo ?? 1, share.stereo);
      if (share.looked === 0 || share.tone < 0.95)
        problems.push(`${file}: not the caller's tone (${share.tone})`);
      if (share.looked === 0 || share.stereo < 0.95)
        problems.push(`${file}: sides are not apart (${share.stereo})`);
    }
  }
  measures.beeps = found.beeps.length;
  measures.flashes = found.flashes.length;
  if (!options.cadence) return { problems, measures };
  for (const [what, times, span] of [
    ['beeps', found.beeps, found.soundSpan],
    ['flashes', found.flashes, found.pictureSpan],
  ]) {
    if (span === 0 || options.cadence === 'offsets') continue;
    const missed = missedSeconds(times);
    if (missed.length) problems.push(`${participant.id}: no ${what} in second ${missed.join(', ')}`);
    if (times.length < Math.floor(span) - 1)
      problems.push(`${participant.id}: ${times.length} ${what} in ${span.toFixed(1)} s`);
  }
  const apart = offsets(found.beeps, found.flashes);
  measures.offset_median_ms = apart.length ? percentile(apart, 0.5) * 1000 : null;
  measures.offset_p95_ms = apart.length ? percentile(apart, 0.95) * 1000 : null;
  measures.offset_mean_ms = apart.length ? (apart.reduce((a, b) => a + b, 0) / apart.length) * 1000 : null;
  if (apart.length && percentile(apart, 0.5) > options.offsetMedian) {
    problems.push(
      `${participant.id}: beeps and flashes ${measures.offset_median_ms.toFixed(1)} ms apart (median)`,
    );
  }
  if (apart.length && percentile(apart, 0.95) > options.offsetP95) {
    problems.push(`${participant.id}: beeps and flashes ${measures.offset_p95_ms.toFixed(1)} ms apart (p95)`);
  }
  return { problems, measures };
}

/**
 * Judges the session in `directory` against `truth` ({voices, frames} of truth.mjs, or null to judge the files alone).
 * Returns {manifest, problems: [text], streams: [measures per track], participants: [measures], used: sent stream -> what
 * was made of it, file by file}; no problems = right.
 */
export async function judgeSession(directory, truth, given = {}) {
  const options = { ...defaults, ...given };
  const problems = [];
  const manifest = JSON.parse(await readFile(path.join(directory, 'session.json'), 'utf8'));
  if (options.schema !== false)
    problems.push(...(await schemaProblems(manifest, options.schema ?? undefined)));
  if (manifest.state !== options.state)
    problems.push(`the session is ${manifest.state}, not ${options.state}`);
  if (manifest.state === 'complete' && typeof manifest.ended_s !== 'number')
    problems.push('ended_s is missing');
  if (manifest.integrity?.verified === false)
    problems.push(`integrity: ${manifest.integrity.problems.join('; ')}`);

  const files = manifest.participants.flatMap(({ tracks }) =>
    tracks.flatMap(({ segments }) => segments.map(({ file }) => file)),
  );
  if (options.disk) {
    problems.push(...folderProblems(directory, manifest.room.id), ...(await diskProblems(directory, files)));
  }
  if (new Set(files.map((file) => file.toLowerCase())).size !== files.length)
    problems.push('a file is listed twice');

  const streams = truth ? streamsOf(truth.frames, manifest.call_id) : [];
  const epoch = Date.parse(manifest.epoch.replace(/(\.\d{3})\d*/, '$1')) / 1000;
  const repaired = new Set(manifest.recoveries.flatMap(({ repaired: names }) => names));
  const used = new Map();
  const captured = new Map();
  const capturedOf = (stream) => {
    if (!captured.has(stream)) captured.set(stream, captureTimes(stream));
    return captured.get(stream);
  };
  /** Where the session's clock has a file begin in its stream, ms: as it lies to the file before, which is known best. */
  const beginsAt = (segment, stream) => {
    const before = used.get(stream)?.findLast(({ layer }) => layer.matched[0] >= 0);
    if (before) {
      return stream.frames[before.layer.matched[0]].ms + (segment.start_s - before.segment.start_s) * 1000;
    }
    const times = capturedOf(stream);
    const off = (at) => Math.abs(times[at] - (epoch + segment.start_s) * 1000);
    return stream.frames.reduce((nearest, { ms }, at) => (off(at) < nearest.off ? { ms, off: off(at) } : nearest), {
      off: Infinity,
    }).ms;
  };
  /** Session time of a moment in a file, less what its sender's log says that it was made late. */
  const moment = (file, at) => {
    const session = sessionTime(file.segment.clock_map, at);
    const told = momentOff(file, at, epoch * 1000, capturedOf(file.stream));
    return told ? session - offWholeSecond(told.captured / 1000) : session;
  };
  const rows = [];
  const people = [];

  for (const participant of manifest.participants) {
    const found = { sound: [], beeps: [], flashes: [], soundSpan: 0, pictureSpan: 0 };
    for (const stay of participant.presence) {
      if (stay.left_s !== null && stay.left_s < stay.joined_s)
        problems.push(`${participant.id} left before joining`);
    }
    if (participant.presence.length === 0) problems.push(`${participant.id} has no presence`);
    for (const track of participant.tracks) {
      for (const segment of track.segments) {
        const add = (list) => problems.push(...list.map((text) => `${segment.file}: ${text}`));
        problems.push(...nameProblems(segment.file, participant.id, track.source, segment.codec));
        let judged;
        try {
          judged = await judgeFile(directory, track, segment, repaired.has(segment.file), options);
        } catch (error) {
          add([`cannot be read: ${error.message.split('\n')[0]}`]);
          continue;
        }
        add(judged.problems);
        const row = {
          participant: participant.user_id ?? participant.id,
          track: track.id,
          source: track.source,
          codec: segment.codec,
          seconds: segment.media_seconds,
          frames: segment.frames,
          size: judged.bytes,
          lost: segment.ledger?.lost ?? 0,
          file: segment.file,
        };
        rows.push(row);
        const { packets } = judged.said;
        if (packets.length === 0) continue;

        let laid;
        if (truth) {
          const mine = streams.filter(
            ({ kind, user_id }) =>
              kind === track.kind && (!participant.user_id || user_id === participant.user_id),
          );
          const stream = findStream(packets, mine);
          if (!stream) {
            add(['none of its frames was sent']);
            continue;
          }
          const layer = layOver(packets, stream, beginsAt(segment, stream));
          if (layer.unsent.length)
            add([`${layer.unsent.length} frames were not sent so, the first is ${layer.unsent[0]}`]);
          if (layer.mistimed.length)
            add([`${layer.mistimed.length} frames are off their time, the first is ${layer.mistimed[0]}`]);
          if (layer.disordered.length) add([`${layer.disordered.length} frames out of order`]);
          row.worst_ms = layer.worstMs;
          if (!used.has(stream)) used.set(stream, []);
          laid = { stream, layer, row, ledger: segment.ledger, segment, track, packets };
          used.get(stream).push(laid);
        }

        const voice = truth?.voices.get(participant.user_id);
        if (!options.content || !voice) continue;
        if (track.source === 'microphone') {
          const sound = await probe.sound(path.join(directory, segment.file));
          found.sound.push({ file: segment.file, sound });
          found.beeps.push(...beeps(sound).map((at) => moment(laid, at)));
          found.soundSpan += packets.at(-1).ms / 1000;
        } else if (track.source === 'camera') {
          const pictures = await probe.brightness(path.join(directory, segment.file));
          found.flashes.push(...flashes(pictures).map((at) => moment(laid, at)));
          found.pictureSpan += packets.at(-1).ms / 1000;
        }
      }
    }
    const voice = truth?.voices.get(participant.user_id);
    if (options.content && voice) {
      const { problems: wrong, measures } = meaning(participant, found, voice, truth.voices, options);
      problems.push(...wrong);
      const off = [...found.beeps, ...found.flashes].map((at) => offWholeSecond(epoch + at));
      people.push({
        participant: participant.user_id,
        ...measures,
        off_utc_median_ms: off.length ? percentile(off, 0.5) * 1000 : null,
      });
    }
  }

  for (const [stream, layers] of used) {
    const missing = missingOf(
      stream,
      layers.map(({ layer }) => layer),
      options.endedAt,
    );
    const explained = layers.reduce((sum, { ledger }) => sum + explainedByLedger(ledger), 0);
    const name = `${stream.user_id} ${stream.codec} ${stream.ssrc}`;
    const rate = stream.kind === 'audio' ? 50 : 15;
    const tolerated = Math.ceil((options.unexplainedMs / 1000) * rate);
    layers[0].row.sent = stream.frames.length;
    layers[0].row.missing = missing.inside.length;
    layers[0].row.leading = missing.leading;
    layers[0].row.trailing = missing.trailing;
    if (missing.twice.length) problems.push(`${name}: ${missing.twice.length} frames are in two places`);
    if (missing.inside.length > explained + tolerated) {
      problems.push(
        `${name}: ${missing.inside.length} sent frames are missing, ledgers explain ${explained}`,
      );
    }
    if (missing.leadingMs > options.leadingMs) problems.push(`${name}: begins ${missing.leadingMs} ms late`);
    if (missing.trailing > 1 && missing.trailingMs > options.trailingMs)
      problems.push(`${name}: ends ${missing.trailingMs} ms early`);
  }
  for (const stream of streams) {
    if (!used.has(stream) && stream.frames.length >= options.expectStreamsOf) {
      problems.push(
        `${stream.user_id}: a stream of ${stream.frames.length} ${stream.codec} frames has no file`,
      );
    }
  }
  return { manifest, problems, streams: rows, participants: people, used };
}
