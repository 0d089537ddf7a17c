// The senders' log of encoded frames, as streams.

import { readFile } from 'node:fs/promises';

const clockRate = { audio: 48_000, video: 90_000 };

/** Parses JSON lines: {voices: user id -> {left, right, …}, frames}. */
export function parseTruth(text) {
  const voices = new Map();
  const frames = [];
  for (const line of text.split('\n')) {
    if (!line) continue;
    const entry = JSON.parse(line);
    if (entry.meta === 'voice') voices.set(entry.user_id, entry);
    else frames.push(entry);
  }
  return { voices, frames };
}

export async function readTruth(file) {
  return parseTruth(await readFile(file, 'utf8'));
}

/** Groups frames into streams in order of sending, RTP times unwrapped to milliseconds since the stream's first. */
export function streamsOf(frames, callId) {
  const streams = new Map();
  for (const frame of frames) {
    if (callId && frame.call_id && frame.call_id !== callId) continue;
    const key = `${frame.user_id} ${frame.call_id} ${frame.ssrc} ${frame.codec}`;
    let stream = streams.get(key);
    if (!stream) {
      const { user_id, ssrc, kind, codec, mid } = frame;
      stream = { key, user_id, ssrc, kind, codec, mid, frames: [], rtp: frame.rtp, unwrapped: 0 };
      streams.set(key, stream);
    }
    // Signed difference modulo 2^32.
    stream.unwrapped += (frame.rtp - stream.rtp) | 0;
    stream.rtp = frame.rtp;
    stream.frames.push({ ...frame, ms: (stream.unwrapped / clockRate[frame.kind]) * 1000 });
  }
  return [...streams.values()];
}
