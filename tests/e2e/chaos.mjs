// Random changes, as people might make them: each is possible in the state the call is in.

/** Numbers in [0, 1) that a seed decides (mulberry32). */
export function random(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

// No more than a restart budget of eight a minute forgives.
const PANIC_EVERY_MS = 9_000;

export class Chaos {
  muted = false;
  camera = true;
  sharing = false;
  holding = false;
  headset = false;
  otherCamera = false;
  /** How often each thing was done. */
  count = {};

  constructor(course, next, { panics = false } = {}) {
    Object.assign(this, { course, next, panics });
  }

  #pick = (list) => list[Math.floor(this.next() * list.length)];

  /** What a person could do now. */
  #possible() {
    const list = [this.muted ? 'unmute' : 'mute', 'restartIce'];
    if (this.holding) return [...list, 'unhold', 'unhold'];
    list.push(this.camera ? 'cameraOff' : 'cameraOn', this.headset ? 'microphone' : 'headset', 'hold');
    if (this.camera) list.push(this.otherCamera ? 'camera' : 'otherCamera');
    list.push(...(this.sharing ? ['screenOff', 'screenOff'] : ['screenOn', 'screenWithAudioOn']));
    return list;
  }

  #note(name) {
    const set = {
      mute: { muted: true },
      unmute: { muted: false },
      cameraOff: { camera: false },
      cameraOn: { camera: true },
      headset: { headset: true },
      microphone: { headset: false },
      otherCamera: { otherCamera: true },
      camera: { otherCamera: false },
      screenOn: { sharing: true },
      screenWithAudioOn: { sharing: true },
      screenOff: { sharing: false },
      hold: { holding: true },
      unhold: { holding: false },
    }[name];
    Object.assign(this, set);
    this.count[name] = (this.count[name] ?? 0) + 1;
  }

  async #panic() {
    const point = this.#pick(['call', 'peer', 'writer', 'pump']);
    // A camera that is off has nothing to go on with.
    const source = this.#pick(this.camera ? ['microphone', 'camera'] : ['microphone']);
    await this.course.panic(point, source);
    this.#note(`panic in ${point}`);
  }

  async run(ms) {
    const end = Date.now() + ms;
    let panicAt = Date.now() + PANIC_EVERY_MS / 2;
    while (Date.now() < end) {
      if (this.panics && Date.now() >= panicAt) {
        panicAt = Date.now() + PANIC_EVERY_MS;
        await this.#panic();
      }
      const name = this.#pick(this.#possible());
      await this.course.step(name, 200 + 1300 * this.next());
      this.#note(name);
    }
  }
}
