// A call in which things are changed. `judgement.mjs` judges what was made of it.

import assert from 'node:assert/strict';
import path from 'node:path';

import { readTruth } from '../oracle/truth.mjs';
import { judgeSession } from '../oracle/session.mjs';
import { Judgement } from './judgement.mjs';
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

/** What a pump, which looks every 50 ms, may not have read yet when it panics; its successor begins with a key frame. */
const UNREAD_MS = 100;

const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

export class Course {
  /**
   * Calls the recorder; `media` as for placeCall; `starts`: what the call begins with, as for Prediction; `path`: its media
   * goes that way (of udp_path.mjs).
   */
  static async begin(world, caller, { media = {}, starts = {}, encrypted = false, room, path: way } = {}) {
    const course = new Course();
    Object.assign(course, { world, caller, way, log: [], restarts: new Map(), cuts: [] });
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

  /** The caller's path is gone for `ms`; waits until media flows again. */
  async networkGone(ms) {
    const { caller, way } = this;
    const from = Date.now();
    const before = await caller.do('negotiations');
    way.gone = true;
    await wait(ms);
    way.gone = false;
    const answered = await until(
      'the call to be connected again',
      async () => {
        const [state, answers] = [await caller.do('connection'), await caller.do('negotiations')];
        if (state !== 'connected' || answers <= before) throw new Error(`${state}, ${answers - before} answers`);
        return answers - before;
      },
      { timeoutMs: 20_000, everyMs: 20 },
    );
    const to = Date.now();
    // A client that finds the path still silent restarts ICE again.
    for (let offers = 0; offers < answered; offers += 1) this.prediction.apply('networkGone');
    this.log.push({ name: 'networkGone', back: ['microphone', 'camera'], from: to, to });
    this.outage = { from, to };
    return to - from - ms;
  }

  /** Hangs up, judges everything; figures for the report. `content`: also beeps and flashes; `sound`: see Judgement.clock. */
  async end({ content = true, sound = true } = {}) {
    const after = await this.actors();
    const { world, caller, callId } = this;
    const log = path.join(world.directory, `truth-${caller.user.userId.slice(1, 4)}-${Date.now()}.jsonl`);
    const { directory, manifest, finalMs } = await world.hangUp(caller, callId, log);
    await until('the call to be off the tree', async () => (await this.actors()).size === 0);
    const { unsent, ...truth } = await this.#sent(log);
    const verdict = await judgeSession(directory, truth, { content: false });
    assert.deepEqual(verdict.problems, [], JSON.stringify(verdict.streams, null, 1));
    assert.deepEqual(told(manifest), this.prediction.tell());
    assert.equal(manifest.end_reason, 'hangup');
    this.#judgeActors(after);
    const judgement = new Judgement(this, { manifest, verdict, directory });
    const figures = { actions: this.log.length, finalMs };
    const tracks = manifest.participants[0].tracks;
    figures.segments = Object.fromEntries(tracks.map(({ source, segments }) => [source, segments.length]));
    figures.frames = verdict.streams.reduce((sum, { frames }) => sum + frames, 0);
    Object.assign(figures, judgement.losses(), judgement.resumes());
    figures.unsent += unsent;
    figures.worstFrameMs = Math.max(...verdict.streams.map(({ worst_ms }) => worst_ms));
    judgement.holes();
    Object.assign(figures, judgement.gaps(), judgement.times(), judgement.clock({ sound }));
    if (content) Object.assign(figures, await judgement.seconds({ sound }));
    return { directory, manifest, verdict, figures };
  }

  /**
   * What was sent, by the sender's log and, if its path was watched, by what went that way: a browser throws away what still
   * waits to be sent when a source is switched off. A file with a frame that did not go that way is still wrong.
   */
  async #sent(log) {
    const { voices, frames } = await readTruth(log);
    const left = this.way ? frames.filter(await this.way.sent()) : frames;
    return { voices, frames: left, unsent: frames.length - left.length };
  }

  /** Who was not concerned is the very same actor as before; who panicked was started again, once for each panic. */
  #judgeActors(after) {
    const is = ({ address, generation }) => ({ address, generation });
    for (const [place, actor] of this.before) {
      const now = after.get(place);
      assert.ok(now, `${place} is gone`);
      const panics = this.restarts.get(place) ?? 0;
      if (panics === 0) {
        assert.deepEqual(is(now), is(actor), place);
        assert.equal(now.last_error, null, `${place}: ${now.last_error}`);
      }
      else assert.equal(now.generation, actor.generation + panics, place);
    }
    for (const { path: place, restarts } of after.values())
      assert.equal(restarts, this.restarts.get(place) ?? 0, `restarts of ${place}`);
  }

  /** Has what is at `point` (call, peer, writer or pump) of `source` panic, and waits for its successor. */
  async panic(point, source) {
    const peer = `supervisor/call-${this.call.key}/p1`;
    const who = { call: peer.slice(0, -3), peer }[point] ?? `${peer}/p1-${source}-1`;
    const { generation } = (await this.actors()).get(who);
    const file = await this.#fileOf(source);
    // A call that panics loses the signal at which it does: it must be none of those that were predicted.
    if (point === 'call') await this.#quiet();
    this.prediction.panic(point, source);
    this.restarts.set(who, (this.restarts.get(who) ?? 0) + 1);
    const from = Date.now();
    await this.world.recorder.fault({ point, who });
    // A call meets it with the next signal, which is lost to it: one that says nothing new.
    if (point === 'call') await this.caller.do('repeatMetadata');
    await until(`the successor of ${who}`, async () => {
      const now = (await this.actors()).get(who);
      if (!(now.generation > generation && now.state === 'running')) throw new Error(JSON.stringify(now));
      return true;
    });
    if (point !== 'pump') return;
    await until(`the next file of the ${source}`, async () => (await this.#fileOf(source)) !== file);
    this.cuts.push({ source, from: from - UNREAD_MS, to: Date.now() });
  }

  /** Name of the file that a source is written to. */
  async #fileOf(source) {
    const call = (await this.world.recorder.calls()).find(({ key }) => key === this.call.key);
    return call.participants[0].tracks.find((track) => track.source === source)?.file;
  }

  /** Waits until the recorder has heard what was said: nothing new comes for a while. */
  async #quiet() {
    let last;
    await until(
      'the signals to be handled',
      async () => {
        const { signals_handled } = await this.world.recorder.totals();
        const same = signals_handled === last;
        last = signals_handled;
        return same;
      },
      { everyMs: 400 },
    );
  }
}
