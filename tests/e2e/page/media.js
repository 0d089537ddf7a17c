// Synthetic devices. Each caller has a tone of its own, another one on the right; at every whole second of the wall clock
// there is a beep on both sides and a white frame, so that a recording tells who it is, which side, and when.

export const BEEP_HZ = 2000;
export const BEEP_SECONDS = 0.1;
export const FLASH_MS = 133;
// Sound takes longer to the encoder than a picture drawn at the same instant, by the buffers in between: about this
// much by the sender's own reports, in Chromium. A microphone's path is compensated for by the browser, this one is not.
const SOUND_LEAD_SECONDS = 0.01;

let context;
let destination;
let beepGain;
let master;
let voice = { left: 440, right: 550, carrier: 0.05, beep: 0.5, noise: 0.01 };
let picture = { width: 320, height: 180, framesPerSecond: 15 };
const videoTimers = new Set();

export function configureMedia({ left, right, width, height, framesPerSecond } = {}) {
  voice = { ...voice, ...(left && { left }), ...(right && { right }) };
  picture = {
    width: width ?? picture.width,
    height: height ?? picture.height,
    framesPerSecond: framesPerSecond ?? picture.framesPerSecond,
  };
}

async function startAudio() {
  if (context) return;
  context = new AudioContext({ sampleRate: 48_000 });
  await context.resume();
  destination = new MediaStreamAudioDestinationNode(context, { channelCount: 2 });
  const merger = new ChannelMergerNode(context, { numberOfInputs: 2 });
  [voice.left, voice.right].forEach((frequency, side) => {
    const tone = new OscillatorNode(context, { frequency });
    const level = new GainNode(context, { gain: voice.carrier });
    tone.connect(level).connect(merger, 0, side);
    tone.start();
  });
  const beep = new OscillatorNode(context, { frequency: BEEP_HZ });
  beepGain = new GainNode(context, { gain: 0 });
  beep.connect(beepGain);
  beepGain.connect(merger, 0, 0);
  beepGain.connect(merger, 0, 1);
  beep.start();
  // Without something broad an encoder has little to do for two tones.
  const hiss = new AudioBuffer({ numberOfChannels: 2, length: 48_000, sampleRate: 48_000 });
  for (const side of [0, 1]) {
    const samples = hiss.getChannelData(side);
    for (let i = 0; i < samples.length; i += 1) samples[i] = (Math.random() * 2 - 1) * voice.noise;
  }
  const noise = new AudioBufferSourceNode(context, { buffer: hiss, loop: true });
  noise.start();
  master = new GainNode(context);
  merger.connect(master);
  noise.connect(master);
  master.connect(destination);
  scheduleBeeps();
}

// The audio clock is read late, never early: the greatest (audio − wall) of the last seconds is the closest.
function scheduleBeeps() {
  const seen = [];
  let nextSecond = Math.ceil(Date.now() / 1000 + 0.3);
  setInterval(() => {
    const wall = Date.now() / 1000;
    seen.push(context.currentTime - wall);
    if (seen.length > 100) seen.shift();
    if (nextSecond < wall) nextSecond = Math.ceil(wall + 0.1);
    if (nextSecond - wall > 0.25) return;
    const at = nextSecond - SOUND_LEAD_SECONDS + Math.max(...seen);
    beepGain.gain.setValueAtTime(voice.beep, at);
    beepGain.gain.setValueAtTime(0, at + BEEP_SECONDS);
    nextSecond += 1;
  }, 20);
}

/** Digital silence instead of tone and beep, without the track noticing. */
export function setSilent(silent) {
  if (master) master.gain.value = silent ? 0 : 1;
}

function audioTrack() {
  return destination.stream.getAudioTracks()[0].clone();
}

function videoTrack({ label, width, height }) {
  const canvas = document.createElement('canvas');
  canvas.width = width ?? picture.width;
  canvas.height = height ?? picture.height;
  document.body.append(canvas);
  const pen = canvas.getContext('2d', { alpha: false });
  const period = 1000 / picture.framesPerSecond;
  const stream = canvas.captureStream(0);
  const track = stream.getVideoTracks()[0];
  // Firefox keeps requestFrame on the track, as the standard has it, and needs a frame drawn first.
  const capture = () => (track.requestFrame ? track.requestFrame() : stream.requestFrame());
  let number = 0;
  const draw = () => {
    const wall = Date.now();
    const flash = (wall + 2) % 1000 < FLASH_MS - 2;
    pen.fillStyle = flash ? '#fff' : label === 'screen' ? '#034' : '#012';
    pen.fillRect(0, 0, canvas.width, canvas.height);
    pen.fillStyle = flash ? '#ccc' : '#345';
    // Something moves, so that every frame differs and codecs have work.
    pen.fillRect((number * 7) % canvas.width, canvas.height / 2, 24, canvas.height / 3);
    pen.font = '20px monospace';
    pen.fillText(`${label} ${number}`, 10, 30);
    number += 1;
    capture();
  };
  const timer = { id: 0 };
  const tick = () => {
    draw();
    // Aligned to the wall clock: one frame falls on each whole second.
    const now = Date.now();
    const next = (Math.floor(now / period + 0.05) + 1) * period;
    timer.id = setTimeout(tick, Math.max(1, next - now));
  };
  videoTimers.add(timer);
  tick();
  const stop = track.stop.bind(track);
  track.stop = () => {
    clearTimeout(timer.id);
    videoTimers.delete(timer);
    canvas.remove();
    stop();
  };
  return track;
}

/** Puts the synthetic devices in the place of the machine's. */
export function installDevices() {
  const devices = navigator.mediaDevices;
  devices.enumerateDevices = async () =>
    ['audioinput', 'videoinput'].map((kind) => ({
      kind,
      deviceId: `synthetic-${kind}`,
      groupId: '',
      label: kind,
    }));
  devices.getUserMedia = async ({ audio, video }) => {
    const tracks = [];
    if (audio) {
      await startAudio();
      tracks.push(audioTrack());
    }
    if (video) tracks.push(videoTrack({ label: 'camera' }));
    return new MediaStream(tracks);
  };
  devices.getDisplayMedia = async ({ audio }) => {
    const tracks = [videoTrack({ label: 'screen', width: picture.width * 2, height: picture.height * 2 })];
    if (audio) {
      await startAudio();
      tracks.push(audioTrack());
    }
    return new MediaStream(tracks);
  };
}
