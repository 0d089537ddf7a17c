#!/usr/bin/env node
// Judges recorded sessions: `node tests/oracle/judge.mjs --session DIR… [--truth FILE] [--json] [--files-only]`.
// Exit code 0: all of it is right; 1: something is not, told line by line; 2: bad usage.

import { parseArgs } from 'node:util';

import { judgeSession } from './session.mjs';
import { table } from './table.mjs';
import { readTruth } from './truth.mjs';

const { values } = parseArgs({
  options: {
    session: { type: 'string', multiple: true },
    truth: { type: 'string' },
    json: { type: 'boolean', default: false },
    state: { type: 'string', default: 'complete' },
    'unexplained-ms': { type: 'string', default: '0' },
    'no-content': { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
});
if (values.help || !values.session) {
  console.error(
    'usage: judge.mjs --session DIR [--session DIR] [--truth FILE] [--state STATE] [--unexplained-ms N] [--no-content] [--json]',
  );
  process.exit(2);
}

const truth = values.truth ? await readTruth(values.truth) : null;
let right = true;
for (const directory of values.session) {
  const { problems, streams, participants } = await judgeSession(directory, truth, {
    state: values.state,
    unexplainedMs: Number(values['unexplained-ms']),
    content: !values['no-content'],
  });
  right &&= problems.length === 0;
  if (values.json) {
    console.log(
      JSON.stringify({ session: directory, right: problems.length === 0, problems, streams, participants }),
    );
    continue;
  }
  console.log(`${directory}\n${table(streams)}`);
  for (const person of participants) console.log(JSON.stringify(person));
  for (const problem of problems) console.log(`WRONG  ${problem}`);
  console.log(problems.length === 0 ? 'right' : `${problems.length} problems`);
}
process.exit(right ? 0 : 1);
