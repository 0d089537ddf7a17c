// The judgement of changes must itself be able to fail.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import { Judgement } from './judgement.mjs';

const EPOCH = Date.parse('2026-01-01T00:00:00.000Z');

/** A screen of ten pictures a second for two seconds, of which those in `missing` are in no file; switched off at its end. */
function share(missing, { way, offAt = 2000 } = {}) {
  const frames = Array.from({ length: 20 }, (_, number) => ({
    at: EPOCH + 100 * number,
    ms: 100 * number,
    type: number % 10 ? 'delta' : 'key',
  }));
  const matched = frames.map((_, number) => number).filter((number) => !missing.includes(number));
  const packets = matched.map((number) => ({ ms: 100 * number }));
  // What comes after the switch is in a file again.
  const again = { at: EPOCH + 5000, ms: 5000, type: 'key' };
  frames.push(again);
  const track = { source: 'screen' };
  const file = (matched, packets, name) => ({
    layer: { matched },
    packets,
    segment: { file: name, ledger: { lost: 0 }, clock_map: [{ media_s: 0, session_s: 0 }] },
    track,
  });
  const stream = { kind: 'video', frames };
  const used = new Map([[stream, [file(matched, packets, 'a.webm'), file([20], [{ ms: 0 }], 'b.webm')]]]);
  const log = [
    { name: 'screenOff', back: [], from: EPOCH + offAt, to: EPOCH + offAt + 80 },
    { name: 'screenOn', back: ['screen'], from: EPOCH + 4900, to: EPOCH + 4990 },
  ];
  const manifest = { epoch: '2026-01-01T00:00:00.000000Z', participants: [{ tracks: [] }] };
  return new Judgement({ log, cuts: [], way }, { manifest, verdict: { used, streams: [] }, directory: '' });
}

describe('the judgement of changes', () => {
  test('what waited to be sent when its source was switched off is unsent', () => {
    assert.deepEqual(share([18, 19]).losses(), { missing: 0, lost: 0, unsent: 2 });
    share([18, 19]).holes();
  });

  test('a frame before others of the same share is missing', () => {
    assert.throws(() => share([18]).losses(), /missing: 18 of 21/);
    assert.throws(() => share([4]).losses(), /missing: 4 of 21/);
    assert.throws(() => share([3, 4, 5, 6, 7, 8, 9, 10, 11, 12]).holes(), /sent 10 frames/);
  });

  test('a frame that was sent long before the switch is missing', () => {
    assert.throws(() => share([16, 17, 18, 19]).losses(), /missing: 16 of 21/);
    assert.throws(() => share([19], { offAt: 2600 }).losses(), /missing: 19 of 21/);
  });

  test('where it was watched what left the browser, nothing is taken for unsent', () => {
    assert.throws(() => share([19], { way: {} }).losses(), /missing: 19 of 21/);
  });
});
