// What independent programs say of a media file: ffprobe and ffmpeg demux and decode, mkvmerge reads the container.

import { execFile } from 'node:child_process';
import { open } from 'node:fs/promises';
import { promisify } from 'node:util';

import { frameHashes } from '../e2e/page/frame_hashes.js';

const run = promisify(execFile);
const big = { maxBuffer: 1 << 30 };
const binary = { ...big, encoding: 'buffer' };

/** Bytes of a dump as ffprobe prints it. */
export const unhex = (dump) =>
  Buffer.from(
    dump
      .split('\n')
      // "00000010: 8f3a 1b..  ascii": address, at most eight groups of two bytes, text.
      .map((line) => line.slice(10, 50).replaceAll(' ', ''))
      .join(''),
    'hex',
  );

/** Every packet of the only stream: {ms, key, bytes, sha256, canonical}, and what the container says of the stream. */
export async function packets(file) {
  const { stdout } = await run(
    'ffprobe',
    ['-v', 'error', '-show_data', '-show_packets', '-show_streams', '-show_format', '-of', 'json', file],
    big,
  );
  const { packets = [], streams = [], format = {} } = JSON.parse(stdout);
  const codec = streams[0]?.codec_name;
  const list = [];
  for (const packet of packets) {
    const data = unhex(packet.data ?? '');
    list.push({
      ms: Number(packet.pts_time) * 1000,
      key: packet.flags.includes('K'),
      bytes: data.length,
      ...(await frameHashes(codec, data, 'length')),
    });
  }
  return {
    codec,
    streams,
    packets: list,
    durationS: format.duration === undefined ? null : Number(format.duration),
  };
}

/** Decodes everything; the decoder's complaints, empty if there are none. */
export async function decodeErrors(file) {
  try {
    // Times as they are: by default pictures are counted, and two within 1/15 s are an error of the output.
    const asTheyAre = ['-fps_mode', 'passthrough', '-enc_time_base', '-1'];
    const { stderr } = await run(
      'ffmpeg',
      ['-v', 'error', '-xerror', '-i', file, ...asTheyAre, '-f', 'null', '-'],
      big,
    );
    return stderr.trim();
  } catch (error) {
    return (error.stderr || error.message).trim();
  }
}

async function frameTimes(file, fields) {
  const { stdout } = await run(
    'ffprobe',
    ['-v', 'error', '-show_frames', '-show_entries', `frame=pts_time,${fields}`, '-of', 'json', file],
    big,
  );
  return JSON.parse(stdout).frames ?? [];
}

/** Decoded sound at 48 kHz: {left, right: Float32Array, blocks: [{at_s, first, count}]} with the time of each block of samples. */
export async function sound(file) {
  const { stdout } = await run(
    'ffmpeg',
    ['-v', 'error', '-i', file, '-f', 'f32le', '-ac', '2', '-ar', '48000', '-'],
    binary,
  );
  const both = new Float32Array(
    stdout.buffer.slice(stdout.byteOffset, stdout.byteOffset + (stdout.length & ~7)),
  );
  const left = new Float32Array(both.length / 2);
  const right = new Float32Array(both.length / 2);
  for (let i = 0; i < left.length; i += 1) {
    left[i] = both[2 * i];
    right[i] = both[2 * i + 1];
  }
  let first = 0;
  const blocks = (await frameTimes(file, 'nb_samples')).map(({ pts_time, nb_samples }) => {
    const block = { at_s: Number(pts_time), first, count: nb_samples };
    first += nb_samples;
    return block;
  });
  return { left, right, blocks };
}

/** Mean brightness of each decoded picture, 0 to 255: [{at_s, luma}]. */
export async function brightness(file) {
  const { stdout } = await run(
    'ffmpeg',
    [
      '-v',
      'error',
      '-i',
      file,
      '-vf',
      'scale=16:9,format=gray',
      '-fps_mode',
      'passthrough',
      '-f',
      'rawvideo',
      '-',
    ],
    binary,
  );
  const size = 16 * 9;
  const times = await frameTimes(file, 'pict_type');
  return times.slice(0, Math.floor(stdout.length / size)).map(({ pts_time }, index) => {
    let sum = 0;
    for (let i = 0; i < size; i += 1) sum += stdout[index * size + i];
    return { at_s: Number(pts_time), luma: sum / size };
  });
}

/** An EBML number of variable length (RFC 8794 §4): {value, length}, value null for "unknown". */
function vint(bytes, at, keepMarker) {
  const first = bytes[at];
  let length = 1;
  while (length <= 8 && !(first & (0x80 >> (length - 1)))) length += 1;
  if (length > 8 || at + length > bytes.length) return null;
  let value = keepMarker ? first : first & (0xff >> length);
  let ones = !keepMarker && value === 0xff >> length;
  for (let i = 1; i < length; i += 1) {
    value = value * 256 + bytes[at + i];
    ones &&= bytes[at + i] === 0xff;
  }
  return { value: ones ? null : value, length };
}

const SEGMENT = 0x18538067;
const CLUSTER = 0x1f43b675;
const names = new Map([
  [SEGMENT, 'Segment'],
  [CLUSTER, 'Cluster'],
  [0x1c53bb6b, 'Cues'],
  [0x114d9b74, 'SeekHead'],
  [0x1549a966, 'Info'],
  [0x1654ae6b, 'Tracks'],
  [0x1254c367, 'Tags'],
  [0xec, 'Void'],
  [0x1a45dfa3, 'EBML'],
]);

/** The elements at the top of a Matroska file and directly within its segment, each {name, size}; size null = unknown. */
export async function topElements(file) {
  const handle = await open(file);
  try {
    const { size: end } = await handle.stat();
    const found = [];
    const head = Buffer.alloc(16);
    let at = 0;
    while (at < end) {
      const { bytesRead } = await handle.read(head, 0, 16, at);
      const bytes = head.subarray(0, bytesRead);
      const id = vint(bytes, 0, true);
      const size = id && vint(bytes, id.length, false);
      if (!size) break;
      const name = names.get(id.value) ?? id.value.toString(16);
      found.push({ name, size: size.value, at });
      // Descend where the size is open, and into the segment.
      at += id.length + size.length + (id.value === SEGMENT || size.value === null ? 0 : size.value);
    }
    return found;
  } finally {
    await handle.close();
  }
}
