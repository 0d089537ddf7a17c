// Sessions made by hand from media that ffmpeg encoded: right in every respect, to be broken one respect at a time.

import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { chmod, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';

import { annexBUnits, frameHashes } from '../../e2e/page/frame_hashes.js';
import { FATES } from '../ledger.mjs';
import { unhex } from '../probe.mjs';
import { matroska } from './matroska.mjs';

const run = promisify(execFile);
const big = { maxBuffer: 1 << 28 };
const SECONDS = 5;
const EPOCH = '2026-11-22T15:04:05.000000Z';
/** Where the media lies on the session's clock. */
const BEGINS_S = 1.5;
const room = '!room:localhost';
const user = '@ada:localhost';

const tone = (hertz) => `0.05*sin(2*PI*${hertz}*t)+0.5*lt(mod(t+0.4,1),0.1)*sin(2*PI*2000*t)`;
const encoders = {
  opus: [
    '-f',
    'lavfi',
    '-i',
    `aevalsrc='${tone(440)}|${tone(550)}':s=48000:d=${SECONDS}`,
    '-c:a',
    'libopus',
    '-b:a',
    '128k',
  ],
  vp8: ['libvpx', '-deadline', 'realtime'],
  vp9: ['libvpx-vp9', '-deadline', 'realtime', '-cpu-used', '8'],
  h264: ['libx264', '-preset', 'ultrafast', '-tune', 'zerolatency', '-x264-params', 'repeat-headers=1'],
};
const picture = [
  '-f',
  'lavfi',
  '-i',
  `color=c=0x001122:s=320x180:r=15:d=${SECONDS},drawbox=c=white:t=fill:enable='lt(mod(t+0.401,1),0.13)'`,
];

// Beeps and flashes begin at 0.6 s, on a frame at 15 frames/s.

/** Encoded frames: [{data, key, ms}] as an encoder hands them to RTP. */
async function encode(codec) {
  const folder = await mkdtemp(path.join(tmpdir(), 'oracle-media-'));
  try {
    const input = codec === 'opus' ? encoders.opus : [...picture, '-c:v', ...encoders[codec]];
    const file = path.join(folder, codec === 'h264' ? 'media.h264' : 'media.webm');
    await run('ffmpeg', ['-v', 'error', ...input, file]);
    const { stdout } = await run(
      'ffprobe',
      ['-v', 'error', '-show_packets', '-show_data', '-of', 'json', file],
      big,
    );
    return JSON.parse(stdout).packets.map(({ data, flags }, number) => ({
      data: unhex(data),
      key: codec === 'opus' || flags.startsWith('K'),
      ms: codec === 'opus' ? number * 20 : (number * 1000) / 15,
    }));
  } finally {
    await rm(folder, { recursive: true });
  }
}

const encoded = new Map();
const media = (codec) => {
  if (!encoded.has(codec)) encoded.set(codec, encode(codec));
  return encoded.get(codec);
};

/** A frame as a Matroska block: H264 with lengths for start codes. */
function block(codec, { data, key, ms }) {
  if (codec !== 'h264') return { data, key, ms };
  const parts = annexBUnits(data).flatMap((unit) => {
    const length = Buffer.alloc(4);
    length.writeUInt32BE(unit.length);
    return [length, unit];
  });
  return { data: Buffer.concat(parts), key, ms };
}

/** AVCDecoderConfigurationRecord (ISO/IEC 14496-15 §5.3.3.1) of a key frame's parameter sets. */
function decoderConfiguration(frame) {
  const units = annexBUnits(frame.data);
  const sps = units.find((unit) => (unit[0] & 0x1f) === 7);
  const pps = units.find((unit) => (unit[0] & 0x1f) === 8);
  const length = (unit) => Buffer.from([unit.length >> 8, unit.length & 0xff]);
  return Buffer.concat([
    Buffer.from([1, sps[1], sps[2], sps[3], 0xff, 0xe1]),
    length(sps),
    sps,
    Buffer.from([1]),
    length(pps),
    pps,
  ]);
}

const modeled = async (file, data, mode = 0o640) => {
  await writeFile(file, data);
  await chmod(file, mode);
};

/**
 * Makes a session with a microphone and a camera. `edit` may change anything before it is written:
 * {manifest, truth: {voices, frames}, files: [{name, codec, blocks, options, mode}], extra: [names]}.
 * Returns {directory, truth, remove}.
 */
export async function makeSession({ video = 'vp8', edit = () => {} } = {}) {
  const root = await mkdtemp(path.join(tmpdir(), 'oracle-session-'));
  const hash = createHash('sha256').update(room).digest('hex').slice(0, 8);
  const directory = path.join(root, `room-${hash}`, '20261122T150405Z_c1');

  const frames = [];
  const tracks = [];
  const files = [];
  for (const [source, codec, kind, rate, ssrc] of [
    ['microphone', 'opus', 'audio', 48_000, 1],
    ['camera', video, 'video', 90_000, 2],
  ]) {
    const sent = await media(codec);
    for (const { data, ms, key } of sent) {
      frames.push({
        call_id: 'c1',
        user_id: user,
        mid: String(ssrc - 1),
        kind,
        codec,
        ssrc,
        type: key ? 'key' : 'delta',
        // Near the top, so that it rolls over.
        rtp: (4_294_900_000 + Math.round((ms * rate) / 1000)) >>> 0,
        bytes: data.length,
        // When it came from the encoder: sound when its last sample was taken.
        at: Date.parse(EPOCH) + BEGINS_S * 1000 + ms + (kind === 'audio' ? 20 : 0),
        ...(await frameHashes(codec, data)),
      });
    }
    const name = `ada-p1_${source}_0001.${codec === 'h264' ? 'mkv' : 'webm'}`;
    const span = sent.at(-1).ms / 1000;
    const blocks = sent.map((frame) => block(codec, frame));
    files.push({
      name,
      codec,
      blocks,
      options: codec === 'h264' ? { privateData: decoderConfiguration(sent[0]) } : {},
    });
    tracks.push({
      id: `p1-${source}-1`,
      source,
      kind,
      states: [],
      segments: [
        {
          file: name,
          codec,
          start_s: BEGINS_S,
          end_s: BEGINS_S + span,
          media_seconds: span,
          frames: sent.length,
          bytes: 0,
          sha256: null,
          final: true,
          opened_because: 'first',
          clock_map: [
            { media_s: 0, session_s: BEGINS_S, error_s: 0.01 },
            { media_s: span, session_s: BEGINS_S + span, error_s: 0.01 },
          ],
          clock: {
            method: 'arrival',
            sender_reports: 0,
            offset_s: 0,
            drift_ppm: 0,
            residual_s: 0,
            error_bound_s: 0.01,
          },
          gaps: [],
          dtx_s: 0,
          ledger: {
            ...Object.fromEntries(['recovered', 'lost', ...FATES].map((name) => [name, 0])),
            received: sent.length,
            written: sent.length,
          },
        },
      ],
    });
  }
  const manifest = {
    schema: 'matrix-call-recorder/session/1',
    recorder: { name: 'fixture', version: '0' },
    session_id: 's1',
    continues: null,
    started_by: user,
    stopped_by: user,
    call_id: 'c1',
    call_kind: 'one_to_one',
    room: { id: room, name: 'room', encrypted: false },
    state: 'complete',
    recoveries: [],
    epoch: EPOCH,
    ended_s: 8,
    end_reason: 'hangup',
    events: [],
    participants: [
      {
        id: 'p1',
        user_id: user,
        device_id: null,
        party_id: null,
        display_name: null,
        presence: [{ joined_s: 1, left_s: 8, reason: 'hangup' }],
        tracks,
      },
    ],
    integrity: { verified: null, problems: [] },
  };
  const truth = {
    voices: new Map([
      [user, { left: 440, right: 550 }],
      ['@bob:localhost', { left: 660, right: 770 }],
    ]),
    frames,
  };
  const session = { manifest, truth, files, extra: [], directoryMode: 0o750 };
  edit(session);

  await mkdir(directory, { recursive: true });
  for (const { name, codec, blocks, options, mode, cut } of files) {
    const bytes = matroska({ codec, blocks, ...options });
    await modeled(
      path.join(directory, name),
      cut ? bytes.subarray(0, Math.floor(bytes.length * cut)) : bytes,
      mode,
    );
  }
  for (const name of session.extra) await modeled(path.join(directory, name), 'x');
  await modeled(path.join(directory, 'session.json'), JSON.stringify(manifest));
  await modeled(path.join(directory, 'journal.jsonl'), '{"event":"opened"}\n');
  await chmod(directory, session.directoryMode);
  await chmod(path.dirname(directory), 0o750);
  return { directory, truth, remove: () => rm(root, { recursive: true }) };
}
