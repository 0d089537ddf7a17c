// The thread of a path (udp_path.mjs). Tells its port, and when asked what was sent: SSRC -> RTP time -> whether a packet
// with the marker was among it, which is a picture's last.

import { createSocket } from 'node:dgram';
import { parentPort, workerData } from 'node:worker_threads';

import { random } from './chaos.mjs';

const HOST = '127.0.0.1';
const BUFFER = 1 << 20;

const { target, seed, shared, at, million } = workerData;
const next = random(seed);
const sent = new Map();

const bound = async () => {
  const socket = createSocket({ type: 'udp4', recvBufferSize: BUFFER, sendBufferSize: BUFFER });
  await new Promise((resolve) => socket.bind(0, HOST, resolve));
  return socket;
};

/** Whether this datagram is lost; counts it. */
function loses() {
  const loss = Atomics.load(shared, at.LOSS) / million;
  const lost = Atomics.load(shared, at.GONE) === 1 || (loss > 0 && next() < loss);
  if (lost) Atomics.add(shared, at.DROPPED, 1);
  return lost;
}

/** Heads of RTP packets are not encrypted (RFC 3711); RTP is told from RTCP by RFC 5761, from all else by RFC 7983. */
function note(bytes) {
  const isRtp = bytes.length > 12 && bytes[0] >> 6 === 2 && !(bytes[1] >= 192 && bytes[1] <= 223);
  if (!isRtp) return;
  const [rtp, ssrc, marker] = [bytes.readUInt32BE(4), bytes.readUInt32BE(8), bytes[1] >> 7 === 1];
  if (!sent.has(ssrc)) sent.set(ssrc, new Map());
  const frames = sent.get(ssrc);
  frames.set(rtp, marker || frames.get(rtp) === true);
}

const near = await bound();
// Who is behind which socket of ours: the recorder tells callers apart by their address.
const far = new Map();
near.on('message', async (bytes, { port }) => {
  note(bytes);
  if (loses()) return;
  if (!far.has(port)) {
    const opening = bound();
    far.set(port, opening);
    const socket = await opening;
    socket.on('message', (answer) => {
      if (!loses()) near.send(answer, port, HOST);
    });
  }
  (await far.get(port)).send(bytes, target, HOST);
});

parentPort.on('message', () => parentPort.postMessage(sent));
parentPort.postMessage(near.address().port);
