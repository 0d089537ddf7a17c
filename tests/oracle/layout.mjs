// Names, modes and places of a session's files, as the public contract has them.

import { createHash } from 'node:crypto';
import { readdir, readFile, stat } from 'node:fs/promises';
import path from 'node:path';

const extensionOf = { opus: 'webm', vp8: 'webm', vp9: 'webm', av1: 'webm', h264: 'mkv', h265: 'mkv' };
const slug = /^[\p{L}\p{N}](?:[\p{L}\p{N}-]*[\p{L}\p{N}])?$/u;

const isSlug = (text) => slug.test(text) && Buffer.byteLength(text) <= 60 && text === text.normalize('NFC');

/** Complaints about one media file's name. */
export function nameProblems(file, participant, source, codec) {
  const match = /^(.+)_(microphone|camera|screen|screen-audio|unknown)_(\d{4})\.(webm|mkv)$/.exec(file);
  if (!match) return [`${file} is not named <participant>_<source>_<n>.<extension>`];
  const problems = [];
  const [, who, what, , extension] = match;
  if (!isSlug(who)) problems.push(`${file}: ${who} is not a slug`);
  if (who !== participant && !who.endsWith(`-${participant}`))
    problems.push(`${file} does not end in ${participant}`);
  if (what !== source) problems.push(`${file} says ${what}, the manifest ${source}`);
  if (extensionOf[codec] !== extension) problems.push(`${file} holds ${codec}`);
  return problems;
}

/** Complaints about the names of the session's folder and its room's. */
export function folderProblems(directory, roomId) {
  const session = path.basename(directory);
  const room = path.basename(path.dirname(directory));
  const problems = [];
  if (!/^\d{8}T\d{6}Z_.+$/.test(session)) problems.push(`folder ${session} is not named <start>_<call>`);
  const hash = createHash('sha256').update(roomId).digest('hex').slice(0, 8);
  if (!isSlug(room) || !room.endsWith(hash)) problems.push(`folder ${room} is not a slug ending in ${hash}`);
  return problems;
}

/** Complaints about access rights, and about files that the manifest does not know. */
export async function diskProblems(directory, known) {
  const problems = [];
  const mode = async (place, wanted) => {
    const { mode } = await stat(place);
    if ((mode & 0o777) !== wanted)
      problems.push(`${path.basename(place)} has mode ${(mode & 0o777).toString(8)}`);
  };
  await mode(directory, 0o750);
  await mode(path.dirname(directory), 0o750);
  const names = await readdir(directory);
  for (const name of names) {
    await mode(path.join(directory, name), 0o640);
    if (name !== 'session.json' && name !== 'journal.jsonl' && !known.includes(name)) {
      problems.push(`${name} is not in the manifest`);
    }
  }
  if (new Set(names.map((name) => name.toLowerCase())).size !== names.length)
    problems.push('names differ by case only');
  if (names.includes('journal.jsonl')) {
    const lines = (await readFile(path.join(directory, 'journal.jsonl'), 'utf8')).split('\n').filter(Boolean);
    lines.forEach((line, number) => {
      try {
        JSON.parse(line);
      } catch {
        problems.push(`line ${number + 1} of the journal is not JSON`);
      }
    });
  } else {
    problems.push('there is no journal');
  }
  return problems;
}
