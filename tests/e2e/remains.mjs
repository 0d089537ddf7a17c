// What a recorder's process holds, to be compared with what it held before.

import assert from 'node:assert/strict';
import { readdir, readFile, readlink } from 'node:fs/promises';

export async function metrics(recorder) {
  const text = await (await fetch(`${recorder.url}/metrics`)).text();
  return (name) => Number(new RegExp(`^${name} (\\S+)$`, 'm').exec(text)?.[1] ?? NaN);
}

const port = (address) => parseInt(address.split(':').at(-1), 16);

/** Sockets of the recorder's process by what they are for, each counted: no other than these kinds may be there. */
async function sockets(recorder, inodes) {
  const rows = async (table) => {
    const text = await readFile(`/proc/${recorder.child.pid}/net/${table}`, 'utf8').catch(() => '');
    return text.trim().split('\n').slice(1).map((line) => line.trim().split(/\s+/));
  };
  const kinds = new Map();
  const homeserver = Number(new URL(recorder.homeserver).port);
  for (const table of ['udp', 'udp6']) {
    for (const row of await rows(table)) kinds.set(row[9], 'media');
  }
  for (const table of ['tcp', 'tcp6']) {
    for (const [, local, remote, state, , , , , , inode] of await rows(table)) {
      // 0A is LISTEN.
      if (state === '0A') kinds.set(inode, 'listening');
      else if (port(local) === recorder.webPort) kinds.set(inode, 'page');
      else if (port(remote) === homeserver) kinds.set(inode, 'homeserver');
    }
  }
  for (const row of await rows('unix')) kinds.set(row[6], 'local');
  const count = { media: 0, listening: 0, page: 0, homeserver: 0, local: 0, other: 0 };
  for (const inode of inodes) count[kinds.get(inode) ?? 'other'] += 1;
  return count;
}

/** Media files, sockets and peer connections that the recorder's process holds open, its threads and its heap. */
export async function holdings(recorder) {
  const directory = `/proc/${recorder.child.pid}/fd`;
  const targets = await Promise.all(
    (await readdir(directory)).map((fd) => readlink(`${directory}/${fd}`).catch(() => '')),
  );
  const inodes = targets.flatMap((target) => /^socket:\[(\d+)\]$/.exec(target)?.[1] ?? []);
  const value = await metrics(recorder);
  return {
    files: targets.filter((target) => /\.(webm|mkv|jsonl)$/.test(target)),
    sockets: await sockets(recorder, inodes),
    connections: value('recorder_connections'),
    threads: value('process_threads'),
    heap: value('recorder_heap_bytes'),
  };
}

/** No media file is open, and no peer connection. */
export function assertNothingOpen({ files, connections }) {
  assert.deepEqual(files, [], 'files are open');
  assert.equal(connections, 0, 'peer connections are open');
}

/**
 * Sockets are as before, but for those of our own questions to the page, and for connections to the homeserver: its client
 * opens as many as there are requests at the same time, and keeps them for a minute and a half. `more` of them may be there.
 */
export function assertSameSockets(now, before, more) {
  const rest = ({ page: _page, homeserver: _homeserver, ...others }) => others;
  assert.deepEqual(rest(now), rest(before), 'sockets are left');
  const most = before.homeserver + more;
  assert.ok(now.homeserver <= most, `${now.homeserver} connections to the homeserver, at most ${most}`);
}

/** Every actor of the tree in a list, parents first. */
export function flat(actors) {
  return actors.flatMap((actor) => [actor, ...flat(actor.children)]);
}
