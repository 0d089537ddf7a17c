// The path between one caller and the recorder: a relay of datagrams that can go silent, as a network that is away, and lose
// some of them.

import { createSocket } from 'node:dgram';

import { random } from './chaos.mjs';
import { onExit } from './processes.mjs';

const HOST = '127.0.0.1';

const bound = async () => {
  const socket = createSocket({ type: 'udp4', recvBufferSize: 1 << 20, sendBufferSize: 1 << 20 });
  await new Promise((resolve) => socket.bind(0, HOST, resolve));
  return socket;
};

export class UdpPath {
  /** To `target`, the recorder's port. Callers are told to use `port` in its place. */
  static async start(target, { seed = 1 } = {}) {
    const path = new UdpPath();
    /** Nothing passes while set, in either direction. */
    path.gone = false;
    /** The share of datagrams that is lost, in either direction. */
    path.loss = 0;
    path.dropped = 0;
    const next = random(seed);
    const loses = () => path.gone || (path.loss > 0 && next() < path.loss);
    path.near = await bound();
    path.port = path.near.address().port;
    // Who is behind which socket of ours: the recorder tells callers apart by their address.
    const far = new Map();
    path.near.on('message', async (bytes, { port }) => {
      if (loses()) return void (path.dropped += 1);
      if (!far.has(port)) {
        const opening = bound();
        far.set(port, opening);
        const socket = await opening;
        path.sockets.push(socket);
        socket.on('message', (answer) => {
          if (loses()) path.dropped += 1;
          else path.near.send(answer, port, HOST);
        });
      }
      (await far.get(port)).send(bytes, target, HOST);
    });
    path.sockets = [path.near];
    onExit(() => path.stop());
    return path;
  }

  async stop() {
    for (const socket of this.sockets.splice(0)) socket.close();
  }
}
