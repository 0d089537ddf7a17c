// A small Matroska writer for sessions made by hand. Written apart from the recorder's own, so that neither vouches for itself.

const size8 = (length) => {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64BE(BigInt(length) | (1n << 56n));
  return bytes;
};
const idBytes = (id) =>
  Buffer.from(
    id.toString(16).padStart(id > 0xffff ? (id > 0xffffff ? 8 : 6) : id > 0xff ? 4 : 2, '0'),
    'hex',
  );
const element = (id, ...parts) => {
  const body = Buffer.concat(parts);
  return Buffer.concat([idBytes(id), size8(body.length), body]);
};
const unsigned = (id, value) => {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64BE(BigInt(value));
  return element(id, bytes);
};
const float = (id, value) => {
  const bytes = Buffer.alloc(8);
  bytes.writeDoubleBE(value);
  return element(id, bytes);
};
const text = (id, value) => element(id, Buffer.from(value));

const codecIds = { opus: 'A_OPUS', vp8: 'V_VP8', vp9: 'V_VP9', av1: 'V_AV1', h264: 'V_MPEG4/ISO/AVC' };

function opusHead(channels) {
  const head = Buffer.alloc(19);
  head.write('OpusHead');
  head[8] = 1;
  head[9] = channels;
  head.writeUInt32LE(48_000, 12);
  return head;
}

/**
 * A file of one track. `blocks`: [{ms, key, data}]. `cues: false` and `sized: false` make what a killed writer leaves.
 */
export function matroska({
  codec,
  blocks,
  width = 320,
  height = 180,
  privateData,
  cues = true,
  sized = true,
}) {
  const audio = codec === 'opus';
  const entry = element(
    0xae,
    unsigned(0xd7, 1),
    unsigned(0x73c5, 1),
    unsigned(0x83, audio ? 2 : 1),
    text(0x86, codecIds[codec]),
    ...(audio ? [element(0x63a2, opusHead(2))] : privateData ? [element(0x63a2, privateData)] : []),
    audio
      ? element(0xe1, float(0xb5, 48_000), unsigned(0x9f, 2))
      : element(0xe0, unsigned(0xb0, width), unsigned(0xba, height)),
  );
  const duration = (blocks.at(-1)?.ms ?? 0) + (audio ? 20 : 67);
  const info = element(
    0x1549a966,
    unsigned(0x2ad7b1, 1_000_000),
    ...(cues ? [float(0x4489, duration)] : []),
    text(0x4d80, 'oracle'),
    text(0x5741, 'oracle'),
  );
  const parts = [info, element(0x1654ae6b, entry)];
  const points = [];
  let at = parts.reduce((sum, part) => sum + part.length, 0);
  const clusters = new Map();
  for (const block of blocks) {
    const start = Math.floor(block.ms / 1000) * 1000;
    if (!clusters.has(start)) clusters.set(start, []);
    clusters.get(start).push(block);
  }
  for (const [start, held] of clusters) {
    const simple = held.map(({ ms, key, data }) => {
      const head = Buffer.from([0x81, 0, 0, key ? 0x80 : 0]);
      head.writeInt16BE(Math.round(ms) - start, 1);
      return element(0xa3, head, data);
    });
    const cluster = element(0x1f43b675, unsigned(0xe7, start), ...simple);
    points.push(element(0xbb, unsigned(0xb3, start), element(0xb7, unsigned(0xf7, 1), unsigned(0xf1, at))));
    parts.push(cluster);
    at += cluster.length;
  }
  if (cues) parts.push(element(0x1c53bb6b, ...points));
  const body = Buffer.concat(parts);
  const header = element(
    0x1a45dfa3,
    unsigned(0x4286, 1),
    unsigned(0x42f7, 1),
    unsigned(0x42f2, 4),
    unsigned(0x42f3, 8),
    text(0x4282, codec === 'h264' ? 'matroska' : 'webm'),
    unsigned(0x4287, 4),
    unsigned(0x4285, 2),
  );
  const open = Buffer.concat([idBytes(0x18538067), Buffer.from('01ffffffffffffff', 'hex')]);
  return Buffer.concat([
    header,
    sized ? Buffer.concat([idBytes(0x18538067), size8(body.length)]) : open,
    body,
  ]);
}
