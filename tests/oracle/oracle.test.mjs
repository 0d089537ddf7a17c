// The oracle is only worth something if it can say no: each of its checks is shown a session that is wrong in one respect.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { captureTimes, middle, momentOff, offCapture } from './captured.mjs';
import { layOver } from './frames.mjs';
import { judgeSession } from './session.mjs';
import { beeps, RATE } from './signal.mjs';
import { makeSession } from './testing/fixture.mjs';

async function judge(edit, { video, ...options } = {}) {
  const session = await makeSession({ edit, video });
  try {
    return await judgeSession(session.directory, session.truth, options);
  } finally {
    await session.remove();
  }
}

for (const video of ['vp8', 'vp9', 'h264']) {
  test(`a right session with ${video} is found right`, async () => {
    const { problems, streams, participants } = await judge(undefined, { video });
    assert.deepEqual(problems, []);
    assert.equal(streams.length, 2);
    assert.ok(
      streams.every(({ missing, worst_ms }) => missing === 0 && worst_ms <= 1),
      JSON.stringify(streams),
    );
    assert.ok(participants[0].beeps >= 4 && participants[0].flashes >= 4, JSON.stringify(participants));
    assert.ok(participants[0].tone >= 0.95 && participants[0].stereo >= 0.95);
  });
}

const track = (session, source) =>
  session.manifest.participants[0].tracks.find((found) => found.source === source);
const segment = (session, source) => track(session, source).segments[0];
const file = (session, source) => session.files.find(({ name }) => name.includes(source));

/** sentence, what is broken, what the oracle must say, options */
const broken = [
  [
    'a changed byte is found',
    (s) => {
      const block = file(s, 'microphone').blocks[40];
      block.data = Buffer.from(block.data);
      block.data[block.data.length - 1] ^= 1;
    },
    /frames were not sent so, the first is 40/,
  ],
  [
    'a frame that nobody sent is found',
    (s) => {
      const { blocks } = file(s, 'microphone');
      blocks.push({ ...blocks.at(-1), data: Buffer.from([0xfc, 0xff, 0xfe]), ms: blocks.at(-1).ms + 20 });
      segment(s, 'microphone').frames += 1;
    },
    /1 frames were not sent so/,
  ],
  [
    'a frame left out is found',
    (s) => {
      file(s, 'microphone').blocks.splice(100, 1);
      segment(s, 'microphone').frames -= 1;
    },
    /1 sent frames are missing, ledgers explain 0/,
  ],
  [
    'more frames left out than the ledger explains are found',
    (s) => {
      file(s, 'microphone').blocks.splice(100, 3);
      segment(s, 'microphone').frames -= 3;
      segment(s, 'microphone').ledger.lost = 2;
    },
    /3 sent frames are missing, ledgers explain 2/,
  ],
  [
    "two frames in each other's place are found",
    (s) => {
      const { blocks } = file(s, 'microphone');
      [blocks[50].data, blocks[51].data] = [blocks[51].data, blocks[50].data];
    },
    /frames are off their time, the first is 50/,
  ],
  [
    'a frame three milliseconds off its time is found',
    (s) => {
      file(s, 'camera').blocks[20].ms += 3;
    },
    /1 frames are off their time, the first is 20/,
  ],
  [
    'a first block that is not at zero is found',
    (s) => {
      for (const block of file(s, 'camera').blocks) block.ms += 100;
    },
    /the first block is at 100 ms/,
  ],
  [
    'media that begins late is found',
    (s) => {
      const held = file(s, 'microphone');
      held.blocks = held.blocks.slice(50).map((block) => ({ ...block, ms: block.ms - 1000 }));
      const it = segment(s, 'microphone');
      Object.assign(it, { frames: it.frames - 50, media_seconds: it.media_seconds - 1, start_s: 2.5 });
      it.clock_map = [{ media_s: 0, session_s: 2.5, error_s: 0 }];
    },
    /begins 1000 ms late/,
  ],
  [
    'media that ends early is found',
    (s) => {
      const held = file(s, 'microphone');
      held.blocks = held.blocks.slice(0, -50);
      const it = segment(s, 'microphone');
      Object.assign(it, { frames: it.frames - 50, media_seconds: it.media_seconds - 1, end_s: it.end_s - 1 });
    },
    /ends 1000 ms early/,
  ],
  [
    'a gap that the file does not have is found',
    (s) => {
      segment(s, 'camera').gaps.push({ from_s: 3, to_s: 4.5, cause: 'silence' });
    },
    /a gap from 3 to 4.5 is not in the file/,
  ],
  [
    'a pause that is not listed is found',
    (s) => {
      const held = file(s, 'microphone');
      held.blocks.splice(60, 80);
      Object.assign(segment(s, 'microphone'), { frames: held.blocks.length });
      segment(s, 'microphone').ledger.lost = 80;
    },
    /a pause from media second [\d.]+ to [\d.]+ is not listed/,
  ],
  [
    'a stream without a file is found',
    (s) => {
      s.manifest.participants[0].tracks.pop();
      s.files.pop();
    },
    /a stream of \d+ vp8 frames has no file/,
  ],
  [
    'a frame that does not decode is found, though it was sent so',
    (s) => {
      const block = file(s, 'camera').blocks[30];
      block.data = Buffer.alloc(2, 0xff);
    },
    /does not decode|were not sent so/,
  ],
  [
    'a ledger that does not balance is found',
    (s) => {
      segment(s, 'camera').ledger.received += 1;
    },
    /received \d+ but fates add up to/,
  ],
  [
    'packets dropped by us are found',
    (s) => {
      const { ledger } = segment(s, 'camera');
      ledger.received += 1;
      ledger.dropped_by_us = 1;
    },
    /1 packets dropped by us/,
  ],
  [
    'a wrong count of frames is found',
    (s) => {
      segment(s, 'camera').frames += 1;
    },
    /75 frames, the manifest says 76/,
  ],
  [
    'a file without cues is found',
    (s) => {
      file(s, 'camera').options.cues = false;
    },
    /has no cues/,
  ],
  [
    'a file whose size was never written is found',
    (s) => {
      file(s, 'camera').options.sized = false;
    },
    /unknown size/,
  ],
  [
    'a file cut off is found',
    (s) => {
      file(s, 'camera').cut = 0.7;
    },
    /has no cues|frames, the manifest says/,
  ],
  [
    'a file open to others is found',
    (s) => {
      file(s, 'camera').mode = 0o644;
    },
    /has mode 644/,
  ],
  [
    'a folder open to others is found',
    (s) => {
      s.directoryMode = 0o755;
    },
    /has mode 755/,
  ],
  [
    'a file that the manifest does not know is found',
    (s) => {
      s.extra.push('stray.webm');
    },
    /stray.webm is not in the manifest/,
  ],
  [
    'a name against the rules is found',
    (s) => {
      for (const name of [segment(s, 'camera')]) name.file = 'ada_camera_1.webm';
      file(s, 'camera').name = 'ada_camera_1.webm';
    },
    /is not named <participant>_<source>_<n>/,
  ],
  [
    'a clock map that falls is found',
    (s) => {
      segment(s, 'camera').clock_map[1].session_s = 1;
    },
    /clock_map does not rise/,
  ],
  [
    'an end that is not on the clock map is found',
    (s) => {
      segment(s, 'camera').end_s += 0.5;
    },
    /the clock map has the last frame/,
  ],
  [
    'a start that is not on the clock map is found',
    (s) => {
      segment(s, 'camera').start_s = 1.51;
    },
    /is not the map at 0/,
  ],
  [
    'sound 80 ms late against the picture is found',
    (s) => {
      const it = segment(s, 'microphone');
      it.start_s += 0.08;
      it.end_s += 0.08;
      for (const point of it.clock_map) point.session_s += 0.08;
    },
    /beeps and flashes \d+\.\d ms apart/,
    { content: true },
  ],
  [
    "another caller's voice is found",
    (s) => {
      s.truth.voices.set('@ada:localhost', { left: 660, right: 770 });
      s.truth.voices.set('@bob:localhost', { left: 440, right: 550 });
    },
    /not the caller's tone/,
    { content: true },
  ],
  [
    'sides changed over are found',
    (s) => {
      s.truth.voices.set('@ada:localhost', { left: 550, right: 440 });
    },
    /not the caller's tone/,
    { content: true },
  ],
  [
    'a wrong checksum is found',
    (s) => {
      segment(s, 'camera').sha256 = '0'.repeat(64);
    },
    /sha256 is another/,
  ],
  [
    'an unfinished session is found',
    (s) => {
      s.manifest.state = 'recording';
    },
    /the session is recording, not complete/,
  ],
  [
    'a segment that is not final is found',
    (s) => {
      segment(s, 'camera').final = false;
    },
    /is not final/,
  ],
  [
    'integrity refused by the recorder itself is told',
    (s) => {
      s.manifest.integrity = { verified: false, problems: ['disk'] };
    },
    /integrity: disk/,
  ],
];

for (const [sentence, edit, said, options] of broken) {
  test(sentence, async () => {
    const { problems } = await judge(edit, { content: false, ...options });
    assert.ok(
      problems.some((problem) => said.test(problem)),
      `said only: ${JSON.stringify(problems)}`,
    );
  });
}

test('a missing frame that the ledger calls lost is no fault', async () => {
  const { problems } = await judge((s) => {
    file(s, 'microphone').blocks.splice(100, 1);
    segment(s, 'microphone').frames -= 1;
    segment(s, 'microphone').ledger.lost = 1;
  });
  assert.deepEqual(problems, []);
});

test('a manifest against its schema is told', async () => {
  const { problems } = await judge(
    (s) => {
      delete s.manifest.call_kind;
    },
    { content: false },
  );
  assert.ok(
    problems.some((problem) => /required property 'call_kind'/.test(problem)),
    JSON.stringify(problems),
  );
});

test('a beep that had begun before the file is not taken for one that begins late', () => {
  const sound = new Float32Array(RATE * 3);
  const beep = (from, seconds) => {
    for (let n = 0; n < seconds * RATE; n += 1) {
      sound[from + n] = 0.5 * Math.sin((2 * Math.PI * 2000 * n) / RATE);
    }
  };
  // The last 60 ms of a beep, of which the decoder's first 40 ms are silent; then two whole ones.
  beep(RATE * 0.04, 0.02);
  beep(RATE * 0.96, 0.1);
  beep(RATE * 1.96, 0.1);
  const found = beeps({ left: sound, right: sound, blocks: [{ first: 0, at_s: 0 }] });
  assert.equal(found.length, 2, JSON.stringify(found));
  assert.ok(Math.abs(found[0] - 0.96) < 0.01 && Math.abs(found[1] - 1.96) < 0.01);
});

test('a file that begins in the middle of a long silence is found where it belongs', () => {
  const at = (number) => (number < 500 || number % 10 ? 'silence' : `sound ${number}`);
  const frames = Array.from({ length: 700 }, (_, number) => ({ sha256: at(number), canonical: null, ms: number * 20 }));
  const packets = frames.slice(400).map(({ sha256, ms }) => ({ sha256, canonical: null, ms: ms - 8000 }));
  const { matched, mistimed, disordered } = layOver(packets, { frames });
  assert.deepEqual([matched[0], matched.at(-1), mistimed, disordered], [400, 699, [], []]);
});

test('a file that is silent all along is found where the session has it begin', () => {
  const frames = Array.from({ length: 700 }, (_, number) => ({ sha256: 'silence', canonical: null, ms: number * 20 }));
  const packets = frames.slice(400, 500).map(({ sha256, ms }) => ({ sha256, canonical: null, ms: ms - 8000 }));
  for (const begins of [7995, 8009]) {
    const { matched, disordered } = layOver(packets, { frames }, begins);
    assert.deepEqual([matched[0], matched.at(-1), disordered], [400, 499, []]);
  }
});

/** Sound of 10 s whose clock of samples loses 30 ms at 4 s, from an encoder that takes 2 ms and now and then 25. */
function busySound() {
  const frames = [];
  for (let number = 0; number < 500; number += 1) {
    const begins = 1000 + number * 20;
    const lost = number >= 200 ? 30 : 0;
    frames.push({ ms: number * 20, at: begins + lost + 20 + (number % 7 === 5 ? 25 : 2), begins: begins + lost });
  }
  return { kind: 'audio', frames };
}

test('when sound was captured is told by what its encoder gave out at once, also after a loss of samples', () => {
  const stream = busySound();
  captureTimes(stream).forEach((time, number) => {
    const off = time - stream.frames[number].begins;
    assert.ok(Math.abs(off - 2) < 1e-6, `frame ${number} is ${off} ms off`);
  });
});

test('a clock map that does not know of lost samples is off by as much', () => {
  const stream = busySound();
  const segment = { clock_map: [{ media_s: 0, session_s: 1 }] };
  const packets = stream.frames.map(({ ms }) => ({ ms }));
  const file = { segment, packets, layer: { matched: packets.map((_, number) => number) } };
  const off = offCapture(stream, file, 2);
  assert.ok(Math.abs(off[10]) < 1e-6 && Math.abs(off[300] + 30) < 1e-6, `${off[10]}, ${off[300]}`);
  const moment = momentOff(file, 6.005, 2, captureTimes(stream));
  assert.ok(Math.abs(moment.off + 30) < 1e-6 && Math.abs(moment.captured - 7037) < 1e-6, JSON.stringify(moment));
});

test('of an even number of values the one further off is the middle', () => {
  assert.deepEqual([middle([0, 50]), middle([-50, 0]), middle([1, 2, 90]), middle([3])], [50, -50, 2, 3]);
});
