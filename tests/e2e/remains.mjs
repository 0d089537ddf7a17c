// What a recorder's process holds, to be compared with what it held before.

import { readdir, readFile, readlink } from 'node:fs/promises';

export async function metrics(recorder) {
  const text = await (await fetch(`${recorder.url}/metrics`)).text();
  return (name) => Number(new RegExp(`^${name} (\\S+)$`, 'm').exec(text)?.[1] ?? NaN);
}

/** Inodes of the sockets that a table of the kernel lists. */
async function inodes(table) {
  const text = await readFile(table, 'utf8').catch(() => '');
  return new Set(text.split('\n').slice(1).map((line) => line.trim().split(/\s+/)[9]));
}

/** Media files and sockets that the recorder's process holds open, its threads and its heap. */
export async function holdings(recorder) {
  const directory = `/proc/${recorder.child.pid}/fd`;
  const targets = await Promise.all(
    (await readdir(directory)).map((fd) => readlink(`${directory}/${fd}`).catch(() => '')),
  );
  const value = await metrics(recorder);
  const udp = await inodes(`/proc/${recorder.child.pid}/net/udp`);
  return {
    files: targets.filter((target) => /\.(webm|mkv|jsonl)$/.test(target)),
    sockets: targets.filter((target) => target.startsWith('socket:')).length,
    // Media's; the others are those of HTTP, which are kept for the next request.
    mediaSockets: targets.filter((target) => udp.has(/^socket:\[(\d+)\]$/.exec(target)?.[1])).length,
    threads: value('process_threads'),
    heap: value('recorder_heap_bytes'),
  };
}

/** Every actor of the tree in a list, parents first. */
export function flat(actors) {
  return actors.flatMap((actor) => [actor, ...flat(actor.children)]);
}
