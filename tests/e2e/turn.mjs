// A TURN server on loopback (Debian's coturn), for callers that may only relay.

import path from 'node:path';

import { Child, freePort, until } from './processes.mjs';
import net from 'node:net';

export async function startTurn(directory) {
  const port = await freePort();
  const sharedSecret = 'loopback-test';
  const child = new Child(
    'turnserver',
    'turnserver',
    [
      '-n',
      '--no-cli',
      '--no-tls',
      '--no-dtls',
      '--allow-loopback-peers',
      '--fingerprint',
      '--listening-ip=127.0.0.1',
      '--relay-ip=127.0.0.1',
      `--listening-port=${port}`,
      '--use-auth-secret',
      `--static-auth-secret=${sharedSecret}`,
      '--realm=localhost',
      `--userdb=${path.join(directory, 'turn.db')}`,
      `--pidfile=${path.join(directory, 'turn.pid')}`,
      '--log-file=stdout',
      '--simple-log',
      '--verbose',
    ],
    { log: path.join(directory, 'turn.log') },
  );
  await until(
    'the TURN server to listen',
    () =>
      new Promise((resolve, reject) => {
        const socket = net.connect(port, '127.0.0.1', () => {
          socket.destroy();
          resolve(true);
        });
        socket.once('error', reject);
      }),
  );
  return {
    child,
    turn: { uris: [`turn:127.0.0.1:${port}?transport=udp`], sharedSecret },
    stop: () => child.stop(),
  };
}
