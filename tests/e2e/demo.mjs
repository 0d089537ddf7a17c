#!/usr/bin/env node
// The main job, shown: a homeserver and the recorder on this machine, two people who call it and two in a group call, all at
// once, files that are right.
// Goes on until Ctrl-C; with --once it ends after the calls, exit code 0 only if every file was decoded and is right.

import { mkdir } from 'node:fs/promises';
import path from 'node:path';
import { parseArgs } from 'node:util';

import { table } from '../oracle/table.mjs';
import { Gathering, open } from './gathering.mjs';
import { leave, onExit } from './processes.mjs';
import { binary } from './recorder.mjs';
import { World } from './world.mjs';

const { values } = parseArgs({
  options: {
    once: { type: 'boolean', default: false },
    seconds: { type: 'string', default: '12' },
    help: { type: 'boolean' },
  },
});
if (values.help) {
  console.log(
    'usage: ./demo [--once] [--seconds N]\n  --once     end after N seconds of calls and judge what was recorded',
  );
  process.exit(0);
}

const begun = Date.now();
const say = (text) => console.log(`${((Date.now() - begun) / 1000).toFixed(1).padStart(6)} s  ${text}`);
const second = () => new Promise((resolve) => setTimeout(resolve, 1000));

const size = (bytes) => (bytes < 1e6 ? `${Math.round(bytes / 1000)} kB` : `${(bytes / 1e6).toFixed(1)} MB`);
const brief = (call) =>
  `${call.room_name}: ` +
  call.participants
    .flatMap(({ tracks }) => tracks)
    .map(
      (track) =>
        `${track.source} ${track.codec ?? '…'} ${track.media_seconds.toFixed(0)} s ${size(track.bytes)}`,
    )
    .join(', ');

try {
  say('building the recorder');
  await binary();
  const stamp = new Date().toISOString().replace(/[-:]|\.\d+/g, '');
  const folder = path.resolve(import.meta.dirname, '../../.cache/demo', stamp);
  await mkdir(folder, { recursive: true });
  const world = await World.start({
    directory: folder,
    log: say,
    changes: { recordings: { directory: path.join(folder, 'recordings') } },
  });
  say(`the recorder's page: ${world.recorder.url}/`);

  say('four people open their clients');
  const [[ada, ben], [cleo, tess]] = await Promise.all([
    Promise.all([world.caller('ada'), world.caller('ben')]),
    open(world, 'cleo', 'tess'),
  ]);
  say('they invite the recorder, Ada into an encrypted room, Cleo into one of a group call');
  const [adas, bens, group] = await Promise.all([
    ada.roomWith(world.recorderId, { encrypted: true, name: 'Kitchen table' }),
    ben.roomWith(world.recorderId, { name: 'Workshop' }),
    Gathering.open(world, cleo, [tess], { name: 'Round table' }),
  ]);
  const calls = await Promise.all([ada.call(adas), ben.call(bens)]);
  calls.forEach(({ connectedMs }, at) =>
    say(`${['Ada', 'Ben'][at]} is connected after ${Math.round(connectedMs)} ms`),
  );
  const notice = await world.notice(ada, adas, ({ content }) =>
    content['m.mentions']?.user_ids?.includes(ada.userId),
  );
  say(`in Ada's room the recorder says: ${notice.content.body.split('\n')[0]}`);
  await group.join(cleo, tess);
  await group.start();
  say('Cleo and Tess are in a call, and Cleo has said !record start');
  const announced = await group.answer(tess, ({ body }) => /recording has begun/.test(body));
  say(`in their room the recorder says: ${announced.content.body.split('\n')[0]}`);
  await Promise.all([cleo, tess].map((one) => one.do('connectedTo', world.recorderId)));

  if (!values.once) {
    say('recording until Ctrl-C');
    // What is being recorded ends in order before everything else does.
    onExit(async () => {
      const [{ directory }] = await Promise.all([group.stop(), ada.do('hangup'), ben.do('hangup')]);
      for (const { callId } of calls) say(`recorded: ${(await world.session(callId)).directory}`);
      say(`recorded: ${directory}`);
    });
    for (;;) {
      for (let rest = 10; rest > 0; rest -= 1) await second();
      for (const call of await world.recorder.calls()) say(brief(call));
    }
  }

  for (let passed = 0; passed < Number(values.seconds); passed += 1) {
    await second();
    if (passed % 4 === 3) for (const call of await world.recorder.calls()) say(brief(call));
  }
  say('they hang up, and Cleo says !record stop');
  const [together, ...sessions] = await Promise.all([
    group.stop(),
    world.hangUp(ada, calls[0].callId),
    world.hangUp(ben, calls[1].callId),
  ]);
  await group.takeTruth();
  say(`the files of the calls were final after ${sessions.map(({ finalMs }) => `${finalMs} ms`).join(' and ')}`);
  say('decoding everything and comparing it with what the clients sent');
  let right = true;
  const rows = [];
  for (const session of [...sessions, together]) {
    const { directory } = session;
    const verdict = await (session === together ? group.judge(session) : world.judge(directory));
    right &&= verdict.problems.length === 0;
    rows.push(...verdict.streams);
    console.log(`\n${directory}`);
    for (const { participant, beeps, flashes, offset_median_ms } of verdict.participants) {
      const apart = offset_median_ms === null ? 'unknown' : `${offset_median_ms.toFixed(1)} ms`;
      console.log(
        `  ${participant}: ${beeps} beeps and ${flashes} flashes, sound and picture ${apart} apart`,
      );
    }
    for (const problem of verdict.problems) console.log(`  WRONG: ${problem}`);
  }
  console.log(`\n${table(rows)}\n`);
  console.log(
    right ? 'Every frame that was sent is in the files, byte for byte.' : 'The files are not right.',
  );
  const { code } = await world.recorder.stop();
  if (code !== 0)
    console.log(`The recorder did not end in order: exit code ${code}, see ${world.recorder.log}`);
  process.exitCode = right && code === 0 ? 0 : 1;
} catch (error) {
  console.error(error.message);
  process.exitCode = 1;
} finally {
  await leave();
}
