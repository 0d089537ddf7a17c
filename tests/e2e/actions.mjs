// A call in which things are changed, and the judgement of what was made of it.

import assert from 'node:assert/strict';
import path from 'node:path';

import { sessionTime } from '../oracle/clock.mjs';
import * as probe from '../oracle/probe.mjs';
import { beeps, flashes, offWholeSecond, percentile } from '../oracle/signal.mjs';
import { readTruth } from '../oracle/truth.mjs';
import { judgeSession } from '../oracle/session.mjs';
import { until } from './processes.mjs';
import { GAP_MS, Prediction, told } from './prediction.mjs';
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
    Object.assign(course, { world, caller, log: [], restarts: new Map() });
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
    return to - from - ms;
  }

  /** Hangs up, judges everything; figures for the report. */
  async end({ content = true } = {}) {
    const after = await this.actors();
    const { world, caller, callId } = this;
    const log = path.join(world.directory, `truth-${caller.user.userId.slice(1, 4)}-${Date.now()}.jsonl`);
    const { directory, manifest, finalMs } = await world.hangUp(caller, callId, log);
    await until('the call to be off the tree', async () => (await this.actors()).size === 0);
    const truth = await readTruth(log);
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
    this.#judgeHoles(verdict);
    Object.assign(figures, this.#judgeResumes(verdict), this.#judgeGaps(manifest), judgeClock(verdict, content));
    if (content) Object.assign(figures, await judgeSeconds(directory, manifest));
    return { directory, manifest, verdict, figures };
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
    this.prediction.panic(point, source);
    this.restarts.set(who, (this.restarts.get(who) ?? 0) + 1);
    await this.world.recorder.fault({ point, who });
    // A call meets it with the next signal, which is lost to it: one that says nothing new.
    if (point === 'call') await this.caller.do('repeatMetadata');
    await until(`the successor of ${who}`, async () => {
      const now = (await this.actors()).get(who);
      if (!(now.generation > generation && now.state === 'running')) throw new Error(JSON.stringify(now));
      return true;
    });
  }

  /** A track is back with the first frame that can be decoded of what its client sends again. */
  #judgeResumes({ used }) {
    const sent = new Map();
    for (const [stream, files] of used) {
      const written = new Set(files.flatMap(({ layer }) => layer.matched));
      const list = sent.get(files[0].track.source) ?? [];
      list.push(...stream.frames.map(({ at }, number) => ({ at, written: written.has(number) })));
      sent.set(files[0].track.source, list);
    }
    for (const list of sent.values()) list.sort((a, b) => a.at - b.at);
    let worst = 0;
    let count = 0;
    for (const { name, back, from } of this.log) {
      for (const source of back) {
        const list = sent.get(source) ?? [];
        const first = list.findIndex(({ at }) => at >= from);
        const there = list.findIndex(({ written }, number) => first >= 0 && number >= first && written);
        assert.ok(there >= 0, `nothing of the ${source} after ${name}`);
        const took = list[there].at - list[first].at;
        assert.ok(took <= RESUME_MS, `the ${source} is back ${took} ms after it was sent again by ${name}`);
        worst = Math.max(worst, took);
        count += 1;
      }
    }
    return { resumes: count, worstResumeMs: worst };
  }

  /** A file has a hole only where its sender's own log has it: nothing was sent in it, unless the network was gone. */
  #judgeHoles({ used }) {
    for (const [{ frames }, files] of used) {
      for (const { layer, packets, segment, track } of files) {
        packets.forEach(({ ms }, number) => {
          if (number === 0 || ms - packets[number - 1].ms < GAP_MS) return;
          const [before, after] = [layer.matched[number - 1], layer.matched[number]];
          const sent = after - before - 1;
          if (sent > 0 && this.#wasGone(frames[before].at, frames[after].at)) return;
          const where = `${segment.file} from ${packets[number - 1].ms} to ${ms} ms`;
          assert.equal(sent, 0, `a hole in ${where}, in which the ${track.source} sent ${sent} frames`);
        });
      }
    }
  }

  /** Gaps are named after what the client said in them: one without a word is a client that did not come to send. */
  #judgeGaps({ participants, epoch }) {
    const start = epochMs(epoch);
    let gaps = 0;
    let silences = 0;
    for (const { source, segments } of participants[0].tracks) {
      for (const gap of segments.flatMap((segment) => segment.gaps)) {
        const causes = this.#causes(source, start + gap.from_s * 1000, start + gap.to_s * 1000);
        assert.ok(causes.includes(gap.cause), `a gap of the ${source} by ${gap.cause}, not ${causes}`);
        gaps += 1;
        silences += gap.cause === 'silence' ? 1 : 0;
      }
    }
    return { gaps, silences };
  }

  /** Whether the network was away at some time between two (UTC ms). */
  #wasGone(from, to) {
    return Boolean(this.outage && this.outage.from < to && this.outage.to > from);
  }

  /** What a pause of `source` between two times (UTC ms) may be put down to. */
  #causes(source, from, to) {
    const during = (begin, end) =>
      this.log.some((entry, number) => {
        if (entry.name !== begin) return false;
        const over = this.log.slice(number).find(({ name }) => name === end);
        return entry.from < to && (over?.to ?? Infinity) > from;
      });
    if (this.#wasGone(from, to)) return ['reconnect'];
    if (source === 'camera' && during('cameraOff', 'cameraOn')) return ['source_off'];
    if (source === 'microphone' && during('mute', 'unmute')) return ['muted'];
    return during('hold', 'unhold') ? ['held', 'silence'] : ['silence'];
  }
}

const epochMs = (epoch) => Date.parse(epoch.replace(/(\.\d{3})\d*/, '$1'));

/**
 * Segments of one stream lie as far apart on the session's clock as on the sender's. Of pictures that is RTP time. RTP time of
 * sound counts samples, of which a busy browser loses some: there it is the wall clock at which its frames came from the
 * encoder, most of them without much delay.
 */
function judgeClock({ used }, content) {
  let worst = 0;
  for (const [stream, files] of used) {
    // A sound card whose seconds are not those of the wall says nothing about the wall's.
    if (!content && stream.kind !== 'video') continue;
    const sender = ({ ms, at }) => (stream.kind === 'video' ? ms : at);
    const places = files.map(({ layer, segment, packets }) => {
      const all = packets.map(({ ms }, number) => {
        const session = sessionTime(segment.clock_map, ms / 1000) * 1000;
        return sender(stream.frames[layer.matched[number]]) - session;
      });
      return all.sort((a, b) => a - b)[Math.floor(all.length / 4)];
    });
    const middle = places.toSorted((a, b) => a - b)[places.length >> 1];
    const distances = places.map((place) => Math.abs(place - middle));
    const off = Math.max(...distances);
    const offsets = places.map((place) => Math.round(place - middle));
    // The median is what is promised; one file whose sound was known by few arrivals may lie three times as far.
    const most = stream.kind === 'video' ? SESSION_TIME_MS : 3 * SESSION_TIME_MS;
    assert.ok(
      off <= most && percentile(distances, 0.5) <= SESSION_TIME_MS,
      `segments of ${files[0].segment.file} and later lie ${offsets} ms off on the session's clock`,
    );
    worst = Math.max(worst, off);
  }
  return { worstBetweenSegmentsMs: Math.round(worst * 10) / 10 };
}

/** Beeps and flashes of all files are at whole seconds of the wall clock, which is the sender's too. */
async function judgeSeconds(directory, manifest) {
  const epoch = epochMs(manifest.epoch) / 1000;
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
