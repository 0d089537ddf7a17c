// People in a group call that the recorder is asked to record.

import assert from 'node:assert/strict';

import { middle, offCapture } from '../oracle/captured.mjs';
import { seconds } from './expect.mjs';
import { epochMs } from './judgement.mjs';
import { until } from './processes.mjs';

/** Small pictures: every pair of people encodes its own. */
const media = { width: 160, height: 90, framesPerSecond: 15 };

export class Gathering {
  /** A room of `host` with everybody and the recorder in it, and a call that nobody is in. `invite`: people without a page. */
  static async open(world, host, guests, { name = 'A gathering', invite: others = [], encrypted } = {}) {
    const gathering = new Gathering();
    Object.assign(gathering, { world, host, people: [host, ...guests] });
    const invite = [...[...guests, ...others].map(({ userId }) => userId), world.recorderId];
    gathering.room = await host.do('createGroupRoom', { name, invite, encrypted });
    await Promise.all(guests.map((guest) => guest.do('joinRoom', gathering.room)));
    await host.do('waitForJoin', gathering.room, world.recorderId, 20_000);
    gathering.conf = await host.do('createGroupCall', gathering.room);
    return gathering;
  }

  join(...people) {
    return Promise.all(people.map((person) => person.do('joinGroupCall', this.room)));
  }

  async leave(...people) {
    return Promise.all(people.map((person) => person.do('leaveGroupCall')));
  }

  /** Sends a command: {id, at}. */
  async say(person, text) {
    const at = Date.now();
    return { id: await person.do('send', this.room, text), at };
  }

  /** What the recorder said since `after`, in the eyes of `person`, once `test(content, event)` holds. */
  answer(person, test, after = 0, timeoutMs = 20_000) {
    const fits = (event) => event.at >= after && test(event.content, event);
    return this.world.notice(person, this.room, fits, timeoutMs);
  }

  /** The recorder's reaction to an event. */
  reaction(person, id, key, timeoutMs = 10_000) {
    return until(
      `the reaction ${key}`,
      async () => {
        const events = await person.do('messages', this.room);
        const ours = events.filter(({ sender, type }) => sender === this.world.recorderId && type === 'm.reaction');
        return ours.find(
          ({ content }) =>
            content['m.relates_to']?.event_id === id && content['m.relates_to'].key.startsWith(key),
        );
      },
      { timeoutMs, everyMs: 50 },
    );
  }

  /** Sessions of this gathering's call, oldest first. */
  async sessions() {
    const all = await this.world.sessions();
    return all
      .filter(({ manifest }) => manifest.call_id === this.conf && manifest.room.id === this.room)
      .sort((a, b) => a.manifest.epoch.localeCompare(b.manifest.epoch));
  }

  /** The newest session, once its manifest passes `test`. */
  async session(test = ({ state }) => state === 'complete', timeoutMs = 15_000) {
    return until(
      `the session of room ${this.room}`,
      async () => {
        const newest = (await this.sessions()).at(-1);
        if (newest && !test(newest.manifest)) throw new Error(JSON.stringify(newest.manifest).slice(0, 2_000));
        return newest;
      },
      { timeoutMs, everyMs: 50 },
    );
  }

  /** A recording that runs: `!record start` was answered and media is there. */
  async start(person = this.host) {
    const command = await this.say(person, '!record start');
    await this.reaction(person, command.id, '✅');
    return command;
  }

  /** `!record stop`, and the complete session with its judgement's options. */
  async stop(person = this.host) {
    const command = await this.say(person, '!record stop');
    const stopped = await this.session(({ state, end_reason }) => state === 'complete' && end_reason);
    return { ...stopped, command };
  }

  /** Logs of what was sent to the recorder. */
  async takeTruth(...people) {
    const { world } = this;
    for (const person of people.length ? people : this.people)
      await person.appendGroupTruth(world.truthFile, world.recorderId);
  }

  /** Judges a session by what was sent to the recorder while it ran; `only`: of these frames. */
  async judge({ directory, manifest }, { only = () => true, ...options } = {}) {
    const epoch = Date.parse(manifest.epoch);
    const came = manifest.participants.flatMap(({ presence }) => presence.map(({ joined_s }) => joined_s));
    const from = epoch + Math.min(...came) * 1000;
    const to = epoch + manifest.ended_s * 1000;
    return this.world.judge(directory, {
      of: (frame) =>
        frame.call_id === this.conf && frame.at > from && frame.at < to + 300 && only(frame),
      endedAt: to - 300,
      ...options,
    });
  }

  async assertRight(session, options) {
    const verdict = await this.judge(session, options);
    assert.deepEqual(verdict.problems, [], JSON.stringify(verdict.streams, null, 1));
    return verdict;
  }
}

/** People in pages of their own, who need no encryption. */
export const open = (world, ...names) => Promise.all(names.map((name) => person(world, name)));

/** Somebody in a page, other `options` as for World.caller. */
export const person = (world, name, options = {}) =>
  world.caller(name, { media, encryption: false, ...options });

/** user id -> sources of the tracks that hold something. */
export function sources(manifest) {
  return Object.fromEntries(
    manifest.participants.map(({ user_id, id, tracks }) => [
      user_id ?? id,
      tracks.filter(({ segments }) => segments.length).map(({ source }) => source).sort(),
    ]),
  );
}

/**
 * Where each person's files lie on the session's clock, against the time at which that person's own log has them captured:
 * user id -> median off, ms.
 */
export function aligned({ used, manifest }) {
  const epoch = epochMs(manifest.epoch);
  const places = new Map();
  for (const [stream, files] of used) {
    const list = places.get(stream.user_id) ?? [];
    list.push(...files.map((file) => middle(offCapture(stream, file, epoch))));
    places.set(stream.user_id, list);
  }
  return Object.fromEntries([...places].map(([user, list]) => [user, middle(list)]));
}

/** When a session's first segment of `kind` of a participant began, UTC ms. */
export function firstMedia(manifest, participant, kind) {
  const starts = participant.tracks
    .filter((track) => track.kind === kind)
    .flatMap(({ segments }) => segments.map(({ start_s }) => start_s));
  return Date.parse(manifest.epoch) + Math.min(...starts) * 1000;
}

export const median = (numbers) => [...numbers].sort((a, b) => a - b)[Math.floor(numbers.length / 2)];

export { seconds };
