// What the change table (ARCHITECTURE.md, "What restarts when") says of a list of actions: which segments, states and
// events a call's manifest must hold, exactly. Written from the table and from what matrix-js-sdk does on the wire.

const SOURCES = ['microphone', 'camera', 'screen', 'screen-audio'];

/** A pause is listed as a gap from this length on. */
export const GAP_MS = 1000;

class Track {
  segments = [];
  states = { muted: 0, source_off: 0, held: 0 };
  events = {};
  /** Its m-line says that it sends. */
  sends = false;
  /** Its m-line sends, and the sender has not said that it is off. */
  on = false;
  /** Why the next media opens a segment; null while one is open. */
  next = 'first';

  event(kind) {
    this.events[kind] = (this.events[kind] ?? 0) + 1;
  }

  /** Media comes: the segment that was waited for begins. */
  media() {
    if (this.next) this.segments.push(this.next);
    this.next = null;
  }
}

export class Prediction {
  tracks = new Map();
  /** Events of the participant, not of a track. */
  events = { joined: 1, left: 1 };
  /** The client holds; its last offer said so. */
  holding = false;
  held = false;

  /** `sendsBlack`: a picture's line that is said to send does so, also without a track (Firefox). */
  constructor({ audio = true, video = true, sendsBlack = false } = {}) {
    this.sendsBlack = sendsBlack;
    if (audio) this.#lineOn('microphone');
    if (video) this.#lineOn('camera');
    for (const track of this.tracks.values()) track.media();
  }

  track(source) {
    if (!this.tracks.has(source)) this.tracks.set(source, new Track());
    return this.tracks.get(source);
  }

  has = (source) => this.tracks.has(source);

  /** Takes an action into account; how many offers of the client it takes. */
  apply(name) {
    return this[name]() ?? 0;
  }

  // No SDP: the sender says that it is mute, silence flows on.
  mute() {
    const microphone = this.track('microphone');
    microphone.states.muted += 1;
    microphone.event('muted');
  }

  unmute() {
    this.track('microphone').event('unmuted');
  }

  // No SDP: the sender says so, RTP stops; the same stream goes on later in the same segment.
  cameraOff() {
    this.#off('camera');
  }

  cameraOn() {
    if (this.has('camera')) {
      this.#on('camera');
      return 0;
    }
    // The first time in a voice call: a new m-line.
    this.#lineOn('camera');
    this.track('camera').media();
    return this.#offer();
  }

  addMicrophone() {
    this.#lineOn('microphone');
    this.track('microphone').media();
    return this.#offer();
  }

  // Behind the same sender, without a word: nothing is told, nothing begins.
  headset() {}
  microphone() {}
  otherCamera() {}
  camera() {}

  screenOn() {
    return this.#share(['screen']);
  }

  screenWithAudioOn() {
    return this.#share(['screen', 'screen-audio']);
  }

  screenOff() {
    for (const source of ['screen', 'screen-audio']) {
      // A line without a track is left as it is.
      if (!this.has(source) || this.track(source).next) continue;
      this.#off(source);
      Object.assign(this.track(source), { sends: false, next: 'source_on' });
    }
    return this.#offer();
  }

  // Each line becomes `sendonly`. Our answers are `recvonly`, so a line that sends is that already, and the client finds
  // nothing to offer: a hold goes unsaid until an offer is made for something else.
  hold() {
    this.holding = true;
    const stopped = [...this.tracks.values()].some(({ sends }) => !sends);
    return stopped ? this.#offer() : 0;
  }

  unhold() {
    this.holding = false;
    return this.held ? this.#offer() : 0;
  }

  restartIce() {
    this.#event('ice_restarted');
    return this.#offer();
  }

  // The client restarts ICE when the path is silent; media pauses, and goes on in the same files.
  networkGone() {
    return this.restartIce();
  }

  // Control actors end no file; a panic in the pump costs its track the next segment.
  panic(point, source) {
    if (point === 'peer') this.#event('child_restarted');
    if (point === 'writer' || point === 'pump') this.track(source).event('child_restarted');
    if (point === 'pump') this.track(source).segments.push('writer_restarted');
  }

  /** Everything as comparable values: {source: {segments, states, events}} and the participant's events. */
  tell() {
    const tracks = {};
    for (const source of SOURCES) {
      const track = this.tracks.get(source);
      if (track) tracks[source] = { segments: track.segments, states: track.states, events: track.events };
    }
    return { tracks, events: this.events };
  }

  #event(kind) {
    this.events[kind] = (this.events[kind] ?? 0) + 1;
  }

  #offer() {
    this.#event('renegotiated');
    if (this.holding && !this.held) {
      this.held = true;
      for (const [source, track] of this.tracks) {
        track.states.held += 1;
        // Also one that has nothing to send.
        this.#lineAgain(source);
        if (this.sendsBlack && source === 'screen') track.media();
      }
      this.#event('held');
    } else if (!this.holding && this.held) {
      this.held = false;
      this.#event('unheld');
    }
    return 1;
  }

  #share(sources) {
    let offers = 0;
    for (const source of sources) {
      // A hold has every line send, also one that has nothing to send: then no further offer is needed.
      if (!this.has(source) || !this.track(source).sends) offers = 1;
      this.#lineAgain(source);
      this.track(source).media();
    }
    return offers ? this.#offer() : 0;
  }

  #lineAgain(source) {
    if (!this.has(source) || !this.track(source).sends) this.#lineOn(source);
  }

  #lineOn(source) {
    const first = !this.has(source);
    const track = this.track(source);
    track.sends = true;
    if (first) {
      // The table has no event for a microphone that comes.
      track.on = true;
      this.#sourceEvent(source, 'on');
    } else {
      this.#on(source);
    }
  }

  #on(source) {
    this.track(source).on = true;
    this.#sourceEvent(source, 'on');
  }

  #off(source) {
    this.track(source).on = false;
    this.track(source).states.source_off += 1;
    this.#sourceEvent(source, 'off');
  }

  #sourceEvent(source, what) {
    if (source === 'camera' || source === 'screen') this.track(source).event(`${source}_${what}`);
  }
}

/** What a manifest says, in the same form; events that stand for several count as many. */
export function told({ participants, events }) {
  const tracks = {};
  for (const track of participants.flatMap((participant) => participant.tracks)) {
    const states = { muted: 0, source_off: 0, held: 0 };
    for (const { state } of track.states) states[state] += 1;
    const mine = {};
    for (const { kind, track: id, detail } of events) {
      if (id === track.id) mine[kind] = (mine[kind] ?? 0) + (detail?.count ?? 1);
    }
    const segments = track.segments.map(({ opened_because }) => opened_because);
    if (tracks[track.source]) throw new Error(`two tracks are a ${track.source}`);
    tracks[track.source] = { segments, states, events: mine };
  }
  const common = {};
  for (const { kind, track, detail } of events) {
    if (!track) common[kind] = (common[kind] ?? 0) + (detail?.count ?? 1);
  }
  // How long a path must be silent to be called disconnected is the stack's matter; it must be so as often as it is connected
  // again.
  if (common.disconnected === common.connected) {
    delete common.disconnected;
    delete common.connected;
  }
  // So is whether it was silent for long before.
  if (common.stalled === common.flowing) {
    delete common.stalled;
    delete common.flowing;
  }
  return { tracks, events: common };
}
