// The judgement of a call in which things were changed: what `actions.mjs` did against the manifest, the files and the
// sender's log.

import assert from 'node:assert/strict';

import { captureTimes, middle, momentOff, offCapture } from '../oracle/captured.mjs';
import { missingOf } from '../oracle/frames.mjs';
import * as probe from '../oracle/probe.mjs';
import { beeps, flashes, offWholeSecond, percentile } from '../oracle/signal.mjs';
import { GAP_MS } from './prediction.mjs';

/** Media is back this long after the client sends again, at most (a key frame was asked for at once). */
const RESUME_MS = 1000;
/** Session time is right to this (median). */
const SESSION_TIME_MS = 20;
/** One file whose sound was known by few arrivals may lie so far. */
const ONE_FILE_MS = 3 * SESSION_TIME_MS;
/** A browser that is so late with its beeps and pictures (median) has no seconds to be judged by. */
const SECONDS_MS = 150;
/** Seconds of a source that must have been looked at, if it gave twice as many. */
const LEAST_SECONDS = 3;
/** So long after a whole second its beep or flash is over, in a browser that is not too late to be judged. */
const SECOND_TOLD_MS = 300;
/** By then the recorder too knows of what the homeserver has given back to the client that said it. */
const HEARD_MS = 2000;
/** A browser throws away what still waits to be sent when a picture's source is switched off: no more than this of it, ms. */
const UNSENT_MS = 300;
/** Around an outage: what is on its way when it begins, and until the sender has noticed its end. */
const AROUND_OUTAGE_MS = 1000;

/** By which action a source of pictures is switched off. */
const ENDS = {
  cameraOff: ['camera'],
  camera: ['camera'],
  otherCamera: ['camera'],
  screenOff: ['screen'],
};

export const epochMs = (epoch) => Date.parse(epoch.replace(/(\.\d{3})\d*/, '$1'));

/**
 * What was done in a call: `log` of actions {name, back, from, to}, `outage` {from, to}, `cuts` {source, from, to} by faults; `way`
 * if the oracle was told what left the browser.
 */
export class Judgement {
  constructor({ log, outage, cuts, way }, { manifest, verdict, directory }) {
    Object.assign(this, { log, outage, cuts, way, manifest, verdict, directory });
    this.epoch = epochMs(manifest.epoch);
    this.captured = new Map([...verdict.used.keys()].map((stream) => [stream, captureTimes(stream)]));
    this.waited = new Map([...verdict.used].map(([stream, files]) => [stream, this.#waited(stream, files)]));
  }

  /** Every frame that was sent is there, unless the network was away or a fault had cut its track. */
  losses() {
    let missing = 0;
    let unsent = 0;
    for (const [stream, files] of this.verdict.used) {
      const { source } = files[0].track;
      const { inside } = missingOf(stream, files.map(({ layer }) => layer));
      const waited = this.waited.get(stream);
      const sent = inside.filter((at) => !waited.has(at));
      const unexcused = sent.filter((at) => !this.#isExcused(source, stream.frames[at].at));
      assert.deepEqual(unexcused, [], `frames of the ${source} are missing: ${unexcused} of ${stream.frames.length}`);
      missing += sent.length;
      unsent += inside.length - sent.length;
      const lost = files.reduce((sum, { segment }) => sum + segment.ledger.lost, 0);
      if (!this.outage) assert.equal(lost, 0, `packets of the ${source} were lost on loopback`);
    }
    const lost = this.verdict.streams.reduce((sum, row) => sum + row.lost, 0);
    return { missing, lost, unsent };
  }

  /**
   * Frames that, where nobody saw what left the browser, must be taken for thrown away by it: in no file, encoded just before
   * their source was switched off, and none after them in any file until it was.
   */
  #waited(stream, files) {
    const waited = new Set();
    if (this.way || stream.kind === 'audio') return waited;
    const { source } = files[0].track;
    const written = new Set(files.flatMap(({ layer }) => layer.matched));
    const ends = this.log.filter(({ name }) => name === 'hold' || (ENDS[name] ?? []).includes(source));
    for (const { from, to } of ends) {
      for (let at = stream.frames.findLastIndex((frame) => frame.at <= to); at >= 0 && !written.has(at); at -= 1) {
        if (stream.frames[at].at < from - UNSENT_MS) break;
        waited.add(at);
      }
    }
    return waited;
  }

  #isExcused(source, at) {
    const within = ({ from, to }) => at >= from - AROUND_OUTAGE_MS && at <= to + AROUND_OUTAGE_MS;
    if (this.outage && within(this.outage)) return true;
    return this.cuts.some((cut) => cut.source === source && at >= cut.from && at <= cut.to);
  }

  /** A track is back with the first frame that can be decoded of what its client sends again. */
  resumes() {
    const sent = new Map();
    for (const [stream, files] of this.verdict.used) {
      const written = new Set(files.flatMap(({ layer }) => layer.matched));
      const list = sent.get(files[0].track.source) ?? [];
      list.push(...stream.frames.map(({ at, type }, number) => ({ at, type, written: written.has(number) })));
      sent.set(files[0].track.source, list);
    }
    for (const list of sent.values()) list.sort((a, b) => a.at - b.at);
    let worst = 0;
    let count = 0;
    for (const { name, back, from } of this.log) {
      for (const source of back) {
        const list = (sent.get(source) ?? []).filter(({ at }) => at >= from);
        const there = list.findIndex(({ written }) => written);
        assert.ok(there >= 0, `nothing of the ${source} after ${name}`);
        const passed = list.slice(0, there).filter(({ type, at }) => type === 'key' && !this.#isExcused(source, at));
        assert.equal(passed.length, 0, `the ${source} is not back with the first key frame after ${name}`);
        const took = list[there].at - list[0].at;
        assert.ok(took <= RESUME_MS, `the ${source} is back ${took} ms after it was sent again by ${name}`);
        worst = Math.max(worst, took);
        count += 1;
      }
    }
    return { resumes: count, worstResumeMs: worst };
  }

  /** A file has a hole only where its sender's own log has it: nothing was sent in it, unless the network was gone. */
  holes() {
    for (const [stream, files] of this.verdict.used) {
      const { frames } = stream;
      const waited = this.waited.get(stream);
      for (const { layer, packets, segment, track } of files) {
        packets.forEach(({ ms }, number) => {
          if (number === 0 || ms - packets[number - 1].ms < GAP_MS) return;
          const [before, after] = [layer.matched[number - 1], layer.matched[number]];
          const sent = frames.slice(before + 1, after).filter((_, at) => !waited.has(before + 1 + at)).length;
          if (sent > 0 && this.#wasGone(frames[before].at, frames[after].at)) return;
          const where = `${segment.file} from ${packets[number - 1].ms} to ${ms} ms`;
          assert.equal(sent, 0, `a hole in ${where}, in which the ${track.source} sent ${sent} frames`);
        });
      }
    }
  }

  /** Gaps are named after what the client said in them: one without a word is a client that did not come to send. */
  gaps() {
    let gaps = 0;
    let silences = 0;
    for (const { source, segments } of this.manifest.participants[0].tracks) {
      for (const gap of segments.flatMap((segment) => segment.gaps)) {
        const causes = this.#causes(source, this.epoch + gap.from_s * 1000, this.epoch + gap.to_s * 1000);
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
    if (this.#wasGone(from, to)) return ['reconnect'];
    // A browser that stood still just before or after it was told to stop sending has a pause of two causes.
    const during = (begin, end, cause) => {
      const shares = this.#spans(begin, end).map((span) => {
        const [a, b] = [Math.max(span.from, from), Math.min(span.to, to)];
        return Math.max(0, b - a) / (to - from);
      });
      const most = Math.max(0, ...shares);
      if (most === 0) return null;
      return most < 0.5 ? [cause, 'silence'] : [cause];
    };
    const off = source === 'camera' && during('cameraOff', 'cameraOn', 'source_off');
    const muted = source === 'microphone' && during('mute', 'unmute', 'muted');
    return off || muted || during('hold', 'unhold', 'held')?.concat('silence') || ['silence'];
  }

  /** How many whole seconds of `source` its client sent with their beep or flash: neither on hold nor switched off. */
  #secondsGiven(source) {
    const switched = { microphone: ['mute', 'unmute'], camera: ['cameraOff', 'cameraOn'] }[source];
    const without = [...this.#spans('hold', 'unhold'), ...(switched ? this.#spans(...switched) : [])];
    const seconds = new Set();
    for (const [{ frames }, files] of this.verdict.used) {
      if (files[0].track.source !== source) continue;
      for (const { at } of frames) {
        const second = Math.floor(at / 1000) * 1000;
        const off = without.some(({ from, to }) => from < second + SECOND_TOLD_MS && to > second);
        if (!off && at - second < SECOND_TOLD_MS) seconds.add(second);
      }
    }
    return seconds.size;
  }

  /** When `begin` held until `end`, UTC ms: from the beginning of the one to the end of the other. */
  #spans(begin, end) {
    return this.log.flatMap((entry, number) => {
      if (entry.name !== begin) return [];
      const over = this.log.slice(number).find(({ name }) => name === end);
      return [{ from: entry.from, to: over?.to ?? Infinity, began: entry, ended: over }];
    });
  }

  /** States begin and end when the client says so, and events are told then. */
  times() {
    let looked = 0;
    let latest = 0;
    const isSaid = (what, at_s, entry) => {
      const after = Math.round(this.epoch + at_s * 1000 - entry.from);
      const took = entry.to - entry.from;
      const inTime = after >= -SESSION_TIME_MS && after <= took + HEARD_MS;
      assert.ok(inTime, `${what} ${at_s} s, ${after} ms after the client began to say so, which took ${took} ms`);
      latest = Math.max(latest, after - took);
    };
    for (const { source, states, id } of this.manifest.participants[0].tracks) {
      for (const { state, from_s, to_s } of states) {
        assert.ok(to_s === null || to_s > from_s, `${id} was ${state} from ${from_s} to ${to_s}`);
      }
      for (const [state, of, begin, end] of [
        ['muted', 'microphone', 'mute', 'unmute'],
        ['source_off', 'camera', 'cameraOff', 'cameraOn'],
      ]) {
        if (of !== source) continue;
        const told = states.filter((one) => one.state === state);
        this.#spans(begin, end).forEach(({ began, ended }, number) => {
          const { from_s, to_s } = told[number];
          isSaid(`${id} was ${state} from`, from_s, began);
          if (ended) isSaid(`${id} was ${state} until`, to_s, ended);
          looked += 1;
        });
      }
      for (const [kind, of, name] of [
        ['muted', 'microphone', 'mute'],
        ['unmuted', 'microphone', 'unmute'],
        ['camera_off', 'camera', 'cameraOff'],
      ]) {
        if (of !== source) continue;
        const told = this.manifest.events.filter((event) => event.kind === kind && event.track === id);
        // More than ten in a second are told as one.
        if (told.some(({ detail }) => detail?.count)) continue;
        const done = this.log.filter((entry) => entry.name === name);
        done.forEach((entry, number) => isSaid(`${kind} of ${id} at`, told[number].at_s, entry));
      }
    }
    return { statesInTime: looked, latestStateMs: latest };
  }

  /**
   * Files lie on the session's clock where the sender's log says that they were captured. `sound`: whether the sender's
   * sound card keeps the time of the wall.
   */
  clock({ sound = true } = {}) {
    let worst = 0;
    for (const [stream, files] of this.verdict.used) {
      if (!sound && stream.kind === 'audio') continue;
      const times = this.captured.get(stream);
      const places = files.map((file) => middle(offCapture(stream, file, this.epoch, times)));
      const off = Math.max(...places.map(Math.abs));
      const most = stream.kind === 'video' ? SESSION_TIME_MS : ONE_FILE_MS;
      assert.ok(
        off <= most && Math.abs(middle(places.map(Math.abs))) <= SESSION_TIME_MS,
        `${files[0].segment.file} and later lie ${places.map(Math.round)} ms off on the session's clock`,
      );
      worst = Math.max(worst, off);
    }
    return { worstFileMs: Math.round(worst * 10) / 10 };
  }

  /** Beeps and flashes, made at whole seconds, lie where the sender's log says that they were captured. */
  async seconds({ sound = true } = {}) {
    const found = new Map();
    for (const [stream, files] of this.verdict.used) {
      if (!sound && stream.kind === 'audio') continue;
      const { source } = files[0].track;
      const list = found.get(source) ?? [];
      for (const file of files) {
        const name = `${this.directory}/${file.segment.file}`;
        const moments =
          stream.kind === 'audio' ? beeps(await probe.sound(name)) : flashes(await probe.brightness(name));
        const times = this.captured.get(stream);
        list.push(...moments.map((at) => momentOff(file, at, this.epoch, times)).filter(Boolean));
      }
      found.set(source, list);
    }
    const figures = {};
    for (const [source, list] of found) {
      const screen = source.startsWith('screen');
      const given = this.#secondsGiven(source);
      const enough = screen || list.length >= Math.min(LEAST_SECONDS, Math.floor(given / 2));
      assert.ok(enough, `only ${list.length} of ${given} seconds of the ${source} can be told`);
      if (list.length === 0) continue;
      const made = percentile(list.map(({ captured }) => offWholeSecond(captured / 1000)), 0.5) * 1000;
      assert.ok(made <= SECONDS_MS, `the ${source} of the browser is ${made} ms late (median of ${list.length})`);
      const median = percentile(list.map(({ off }) => off), 0.5);
      assert.ok(median <= SESSION_TIME_MS, `the ${source}'s seconds are ${median} ms off (median of ${list.length})`);
      const told = `${list.length} of ${given} seconds`;
      figures[source] = `${told}, ${median.toFixed(1)} ms off, made ${made.toFixed(1)} ms off`;
    }
    return { seconds: figures };
  }
}
