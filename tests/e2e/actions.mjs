// A call in which things are changed, and the judgement of what was made of it.

import assert from 'node:assert/strict';

import { sessionTime } from '../oracle/clock.mjs';
import * as probe from '../oracle/probe.mjs';
import { beeps, flashes, offWholeSecond, percentile } from '../oracle/signal.mjs';
import { readTruth } from '../oracle/truth.mjs';
import { judgeSession } from '../oracle/session.mjs';
import { until } from './processes.mjs';
import { Prediction, told } from './prediction.mjs';
import { flat } from './remains.mjs';

/** What a person does → what the page does, and of which source media comes (back) by it. */
export const ACTIONS = {
  mute: ['muteMicrophone', [true]],
  unmute: ['muteMicrophone', [false]],
  addMicrophone: ['muteMicrophone', [false], ['microphone']],
  cameraOff: ['muteCamera', [true]],
  cameraOn: ['muteCamera', [false], ['camera']],
  headset: ['setMicrophone', ['headset'], ['microphone']],
  microphone: ['setMicrophone', ['microphone'], ['microphone']],
  otherCamera: ['setCamera', ['other-camera'], ['camera']],
  camera: ['setCamera', ['camera'], ['camera']],
  screenOn: ['shareScreen', [true, false], ['screen']],
  screenWithAudioOn: ['shareScreen', [true, true], ['screen', 'screen-audio']],
  screenOff: ['shareScreen', [false]],
  hold: ['hold', [true]],
  unhold: ['hold', [false]],
  restartIce: ['restartIce', []],
};

/** Media is back this long after the client sends again, at most (a key frame was asked for at once). */
const RESUME_MS = 1000;
/** Session time is right to this, by beeps and flashes (median) and between segments of one stream. */
const SESSION_TIME_MS = 20;

const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

export class Course {
  /** Calls the recorder; `media` as for placeCall; `prediction` of what the call begins with. */
  static async begin(world, caller, { media = {}, starts = {}, encrypted = false, room } = {}) {
    const course = new Course();
    Object.assign(course, { world, caller, log: [], mayTouch: new Set(), mayRestart: false });
    course.prediction = new Prediction(starts);
    course.room = room ?? (await caller.roomWith(world.recorderId, { encrypted }));
    course.callId = (await caller.call(course.room, media)).callId;
    const wanted = course.prediction.tracks.size;
    course.call = await until('all tracks of the call', async () => {
      const call = (await world.recorder.calls()).find(({ room_id }) => room_id === course.room);
      const tracks = call?.participants[0]?.tracks ?? [];
      return tracks.filter(({ file }) => file).length === wanted && call;
    });
    course.before = await course.actors();
    return course;
  }

  /** This call's actors by path. */
  async actors() {
    const all = flat(await this.world.recorder.actors());
    const prefix = `supervisor/call-${this.call.key}`;
    const mine = all.filter(({ path }) => path === prefix || path.startsWith(`${prefix}/`));
    return new Map(mine.map((actor) => [actor.path, actor]));
  }

  /** Does one thing, waits until it has come through, lets media flow. */
  async step(name, ms = 300) {
    const [method, args, back = []] = ACTIONS[name];
    const offers = this.prediction.apply(name);
    const times = await this.caller.do('act', method, args, offers);
    this.log.push({ name, back, ...times });
    await wait(ms);
  }

  async steps(names, ms) {
    for (const name of names) await this.step(name, ms);
  }

  /** The caller's `path` (of udp_path.mjs) is gone for `ms`; waits until media flows again. */
  async networkGone(path, ms) {
    const { caller } = this;
    const from = Date.now();
    const wanted = (await caller.do('negotiations')) + this.prediction.apply('networkGone');
    path.gone = true;
    await wait(ms);
    path.gone = false;
    await until(
      'the call to be connected again',
      async () => {
        const [state, answered] = [await caller.do('connection'), await caller.do('negotiations')];
        if (state !== 'connected' || answered < wanted) throw new Error(`${state}, ${answered} answers`);
        return true;
      },
      { timeoutMs: 20_000, everyMs: 20 },
    );
    const to = Date.now();
    this.log.push({ name: 'networkGone', back: ['microphone', 'camera'], from: to, to });
    this.outage = { from, to };
    this.gapCauses = { microphone: 'reconnect', camera: 'reconnect' };
    return to - from - ms;
  }

  /** Hangs up, judges everything; figures for the report. */
  async end({ content = true } = {}) {
    const after = await this.actors();
    const { directory, manifest, finalMs } = await this.world.hangUp(this.caller, this.callId);
    await until('the call to be off the tree', async () => (await this.actors()).size === 0);
    const truth = await readTruth(this.world.truthFile);
    const verdict = await judgeSession(directory, truth, { content: false });
    assert.deepEqual(verdict.problems, [], JSON.stringify(verdict.streams, null, 1));
    assert.deepEqual(told(manifest), this.prediction.tell());
    assert.equal(manifest.end_reason, 'hangup');
    this.#judgeActors(after);
    const figures = { actions: this.log.length, finalMs };
    const tracks = manifest.participants[0].tracks;
    figures.segments = Object.fromEntries(tracks.map(({ source, segments }) => [source, segments.length]));
    figures.frames = verdict.streams.reduce((sum, { frames }) => sum + frames, 0);
    figures.missing = verdict.streams.reduce((sum, { missing = 0 }) => sum + missing, 0);
    figures.lost = verdict.streams.reduce((sum, { lost }) => sum + lost, 0);
    figures.worstFrameMs = Math.max(...verdict.streams.map(({ worst_ms }) => worst_ms));
    Object.assign(figures, this.#judgeResumes(verdict), this.#judgeGaps(manifest, verdict), judgeClock(verdict));
    if (content) Object.assign(figures, await judgeSeconds(directory, manifest));
    return { directory, manifest, verdict, figures };
  }

  /** Who was not concerned is the very same actor as before; nobody was started again. */
  #judgeActors(after) {
    for (const [path, { address, generation }] of this.before) {
      if (this.mayTouch.has(path)) continue;
      const now = after.get(path);
      assert.deepEqual({ address: now?.address, generation: now?.generation }, { address, generation }, path);
    }
    for (const { path, restarts, last_error } of after.values()) {
      if (!this.mayTouch.has(path)) assert.deepEqual({ restarts, last_error }, { restarts: 0, last_error: null }, path);
    }
  }

  /** A track is back with the first frame that can be decoded of what its client sends again. */
  #judgeResumes({ used }) {
    let worst = 0;
    let count = 0;
    for (const { name, back, from } of this.log) {
      for (const source of back) {
        const found = [...used].filter(([, files]) => files.some(({ track }) => track.source === source));
        const sent = found
          .flatMap(([stream, files]) => {
            const written = new Set(files.flatMap(({ layer }) => layer.matched));
            return stream.frames.map((frame, at) => ({ at: frame.at, type: frame.type, written: written.has(at) }));
          })
          .filter(({ at }) => at >= from)
          .sort((a, b) => a.at - b.at);
        const back = sent.find(({ written }) => written);
        assert.ok(sent.length > 0 && back, `nothing of ${source} after ${name}`);
        const took = back.at - sent[0].at;
        assert.ok(took <= RESUME_MS, `${source} is back ${took} ms after it was sent again by ${name}`);
        worst = Math.max(worst, took);
        count += 1;
      }
    }
    return { resumes: count, worstResumeMs: worst };
  }

  /** Gaps are where the client paused, and named after what it said. */
  #judgeGaps({ participants }, { used }) {
    let gaps = 0;
    for (const { source, segments } of participants[0].tracks) {
      for (const gap of segments.flatMap((segment) => segment.gaps)) {
        gaps += 1;
        const cause = this.gapCauses?.[source] ?? (source === 'camera' ? 'source_off' : null);
        assert.equal(gap.cause, cause, `a gap of the ${source} from ${gap.from_s} to ${gap.to_s}`);
      }
    }
    // That each pause is listed, the oracle has seen; here that nobody paused who had no reason to.
    const paused = new Set(this.log.flatMap(({ name }) => (name === 'cameraOff' ? ['camera'] : [])));
    for (const [, files] of used) {
      for (const { track, segment } of files) {
        if (!paused.has(track.source) && !this.gapCauses?.[track.source]) {
          assert.deepEqual(segment.gaps, [], `the ${track.source} has gaps`);
        }
      }
    }
    return { gaps };
  }
}

/** Segments of one stream lie as far apart on the session's clock as on the sender's. */
function judgeClock({ used }) {
  let worst = 0;
  for (const [stream, files] of used) {
    const places = files.map(({ layer, segment, packets }) => {
      const first = layer.matched.findIndex((at) => at >= 0);
      const at = sessionTime(segment.clock_map, packets[first].ms / 1000) * 1000;
      return at - stream.frames[layer.matched[first]].ms;
    });
    const middle = percentile(places, 0.5) ?? 0;
    for (const place of places) worst = Math.max(worst, Math.abs(place - middle));
  }
  assert.ok(worst <= SESSION_TIME_MS, `segments of one stream lie ${worst} ms off on the session's clock`);
  return { worstBetweenSegmentsMs: Math.round(worst * 10) / 10 };
}

/** Beeps and flashes of all files are at whole seconds of the wall clock, which is the sender's too. */
async function judgeSeconds(directory, manifest) {
  const epoch = Date.parse(manifest.epoch.replace(/(\.\d{3})\d*/, '$1')) / 1000;
  const figures = {};
  for (const { source, kind, segments } of manifest.participants[0].tracks) {
    const off = [];
    for (const segment of segments) {
      const file = `${directory}/${segment.file}`;
      const times = kind === 'audio' ? beeps(await probe.sound(file)) : flashes(await probe.brightness(file));
      off.push(...times.map((at) => offWholeSecond(epoch + sessionTime(segment.clock_map, at))));
    }
    if (off.length === 0) continue;
    const median = percentile(off, 0.5) * 1000;
    assert.ok(median <= SESSION_TIME_MS, `the ${source}'s seconds are ${median} ms off (median of ${off.length})`);
    figures[source] = `${off.length} seconds, ${median.toFixed(1)} ms off`;
  }
  return { seconds: figures };
}
