// Runs beside the page: one transform for each sender. A frame is copied and passed on at once; hashing comes after.

import { frameHashes } from './frame_hashes.js';

let log = [];
let keepBytes = false;
let pending = 0;
const waiting = [];

async function record(sender, frame, bytes, metadata, at) {
  pending += 1;
  const codec = metadata.mimeType?.split('/')[1]?.toLowerCase() ?? null;
  const hashes = await frameHashes(codec, bytes);
  log[frame] = {
    sender,
    codec,
    ssrc: metadata.synchronizationSource,
    rtp: metadata.rtpTimestamp,
    payload_type: metadata.payloadType,
    ...(metadata.type && { type: metadata.type }),
    ...(metadata.width && { width: metadata.width, height: metadata.height }),
    ...(metadata.spatialIndex !== undefined && {
      spatial: metadata.spatialIndex,
      temporal: metadata.temporalIndex,
    }),
    bytes: bytes.length,
    at,
    ...hashes,
    ...(keepBytes && { data: btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join('')) }),
  };
  pending -= 1;
  if (pending === 0) flush();
}

function flush() {
  if (log.length) self.postMessage(log);
  log = [];
  for (const port of waiting.splice(0)) port.postMessage('flushed');
}

let order = 0;

self.onrtctransform = ({ transformer }) => {
  const { id } = transformer.options;
  const look = new TransformStream({
    transform(frame, controller) {
      const bytes = new Uint8Array(frame.data).slice();
      const metadata = { ...frame.getMetadata(), type: frame.type };
      metadata.rtpTimestamp ??= frame.timestamp;
      const at = Date.now();
      controller.enqueue(frame);
      if (pending === 0) order = 0;
      record(id, order++, bytes, metadata, at);
    },
  });
  transformer.readable
    .pipeThrough(look)
    .pipeTo(transformer.writable)
    .catch(() => {});
};

self.onmessage = ({ data }) => {
  if ('keepBytes' in data) {
    keepBytes = data.keepBytes;
    return;
  }
  waiting.push(data.flush);
  if (pending === 0) flush();
};
