// Synthetic microphones. Each caller has a tone of its own, another one on the right; at every whole second of the wall
// clock there is a beep on both sides, so that a recording tells who it is, which side, and when.

export const BEEP_HZ = 2000;
export const BEEP_SECONDS = 0.1;
// Sound takes longer to the encoder than a picture drawn at the same instant, by the buffers in between: about this
// much by the sender's own reports, in Chromium. A microphone's path is compensated for by the browser, this one is not.
const SOUND_LEAD_SECONDS = 0.01;

const sources = new Map();
let silent = false;

/** One device: a graph on an audio clock of its own. */
class Source {
  constructor({ sampleRate, channels }, voice) {
    this.voice = voice;
    this.context = new AudioContext({ sampleRate });
    this.destination = new MediaStreamAudioDestinationNode(this.context, { channelCount: channels });
    const { context } = this;
    const merger = new ChannelMergerNode(context, { numberOfInputs: channels });
    [voice.left, voice.right].slice(0, channels).forEach((frequency, side) => {
      const tone = new OscillatorNode(context, { frequency });
      const level = new GainNode(context, { gain: voice.carrier });
      tone.connect(level).connect(merger, 0, side);
      tone.start();
    });
    const beep = new OscillatorNode(context, { frequency: BEEP_HZ });
    this.beepGain = new GainNode(context, { gain: 0 });
    beep.connect(this.beepGain);
    for (let side = 0; side < channels; side += 1) this.beepGain.connect(merger, 0, side);
    beep.start();
    // Without something broad an encoder has little to do for two tones.
    const hiss = new AudioBuffer({ numberOfChannels: channels, length: sampleRate, sampleRate });
    for (let side = 0; side < channels; side += 1) {
      const samples = hiss.getChannelData(side);
      for (let i = 0; i < samples.length; i += 1) samples[i] = (Math.random() * 2 - 1) * voice.noise;
    }
    const noise = new AudioBufferSourceNode(context, { buffer: hiss, loop: true });
    noise.start();
    this.master = new GainNode(context, { gain: silent ? 0 : 1 });
    merger.connect(this.master);
    noise.connect(this.master);
    this.master.connect(this.destination);
    this.#scheduleBeeps();
  }

  // The audio clock is read late, never early: the greatest (audio − wall) of the last seconds is the closest.
  #scheduleBeeps() {
    const seen = [];
    let nextSecond = Math.ceil(Date.now() / 1000 + 0.3);
    setInterval(() => {
      const wall = Date.now() / 1000;
      seen.push(this.context.currentTime - wall);
      if (seen.length > 100) seen.shift();
      if (nextSecond < wall) nextSecond = Math.ceil(wall + 0.1);
      if (nextSecond - wall > 0.25) return;
      const at = nextSecond - SOUND_LEAD_SECONDS + Math.max(...seen);
      this.beepGain.gain.setValueAtTime(this.voice.beep, at);
      this.beepGain.gain.setValueAtTime(0, at + BEEP_SECONDS);
      nextSecond += 1;
    }, 20);
  }
}

/** A fresh track of the device `{deviceId, sampleRate, channels}`. */
export async function audioTrack(device, voice) {
  let source = sources.get(device.deviceId);
  if (!source) sources.set(device.deviceId, (source = new Source(device, voice)));
  await source.context.resume();
  return source.destination.stream.getAudioTracks()[0].clone();
}

/** Digital silence instead of tone and beep, without the tracks noticing. */
export function setSilent(on) {
  silent = on;
  for (const { master } of sources.values()) master.gain.value = on ? 0 : 1;
}
