// The path between one caller and the recorder: a relay of datagrams that can go silent, as a network that is away, and lose
// some of them, and that knows which frames went by.

import { once } from 'node:events';
import { Worker } from 'node:worker_threads';

import { onExit } from './processes.mjs';

/** Places in the memory that is shared with the relay. */
const at = { GONE: 0, LOSS: 1, DROPPED: 2 };
/** `LOSS` is in parts of a million. */
const MILLION = 1_000_000;

export class UdpPath {
  /** To `target`, the recorder's port. Callers are told to use `port` in its place. */
  static async start(target, { seed = 1 } = {}) {
    const path = new UdpPath();
    path.shared = new Int32Array(new SharedArrayBuffer(12));
    // A thread of its own: what is judged meanwhile must not hold media back.
    path.worker = new Worker(new URL('udp_relay.mjs', import.meta.url), {
      workerData: { target, seed, shared: path.shared, at, million: MILLION },
    });
    onExit(() => path.stop());
    [path.port] = await once(path.worker, 'message');
    return path;
  }

  /** Nothing passes while set, in either direction. */
  set gone(gone) {
    Atomics.store(this.shared, at.GONE, gone ? 1 : 0);
  }

  /** The share of datagrams that is lost, in either direction. */
  set loss(share) {
    Atomics.store(this.shared, at.LOSS, Math.round(share * MILLION));
  }

  get dropped() {
    return Atomics.load(this.shared, at.DROPPED);
  }

  /** Whether the whole of a frame of the sender's log came from the caller, lost here or not: a function. */
  async sent() {
    this.worker.postMessage('sent');
    const [sent] = await once(this.worker, 'message');
    return ({ ssrc, rtp, kind }) => {
      const ended = sent.get(ssrc)?.get(rtp);
      return kind === 'video' ? ended === true : ended !== undefined;
    };
  }

  async stop() {
    await this.worker.terminate();
  }
}
