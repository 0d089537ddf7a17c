// Synthetic devices: two microphones of `sound.js`, two cameras and a screen, which are white at every whole second.

import { audioTrack, setSilent } from './sound.js';

export const FLASH_MS = 133;

let voice = { left: 440, right: 550, carrier: 0.05, beep: 0.5, noise: 0.01 };
let picture = { width: 320, height: 180, framesPerSecond: 15 };

export function configureMedia({ left, right, width, height, framesPerSecond } = {}) {
  voice = { ...voice, ...(left && { left }), ...(right && { right }) };
  picture = {
    width: width ?? picture.width,
    height: height ?? picture.height,
    framesPerSecond: framesPerSecond ?? picture.framesPerSecond,
  };
}

let microphonePlugged = true;
const microphones = [
  { deviceId: 'microphone', sampleRate: 48_000, channels: 2 },
  // A headset's: mono, at the rate of a telephone.
  { deviceId: 'headset', sampleRate: 16_000, channels: 1 },
];
const cameras = [
  { deviceId: 'camera', scale: 1 },
  { deviceId: 'other-camera', scale: 1.5 },
];

/** Whether there is any microphone at all. */
export function plugMicrophone(plugged) {
  microphonePlugged = plugged;
}

function pictureTrack({ label, scale }) {
  const canvas = document.createElement('canvas');
  canvas.width = picture.width * scale;
  canvas.height = picture.height * scale;
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
  tick();
  const stop = track.stop.bind(track);
  track.stop = () => {
    clearTimeout(timer.id);
    canvas.remove();
    stop();
  };
  return track;
}

/** Has a track say what device it is of, as one of a real device does. */
function labelled(track, deviceId) {
  const settings = track.getSettings.bind(track);
  // A device that was let go cannot be taken over from an old stream.
  track.getSettings = () => ({
    ...settings(),
    deviceId: track.readyState === 'live' ? deviceId : undefined,
  });
  return track;
}

/** The device that the constraints ask for, else the first. */
function chosen(devices, { deviceId } = {}) {
  const wanted = deviceId?.exact ?? deviceId?.ideal ?? deviceId;
  const device = devices.find((one) => one.deviceId === wanted);
  if (deviceId?.exact && !device) throw new DOMException('no such device', 'OverconstrainedError');
  return device ?? devices[0];
}

/** Puts the synthetic devices in the place of the machine's. */
export function installDevices() {
  const devices = navigator.mediaDevices;
  devices.enumerateDevices = async () =>
    [
      [microphonePlugged ? microphones : [], 'audioinput'],
      [cameras, 'videoinput'],
    ].flatMap(([list, kind]) =>
      list.map(({ deviceId }) => ({ kind, deviceId, groupId: '', label: deviceId })),
    );
  devices.getUserMedia = async ({ audio, video }) => {
    const tracks = [];
    if (audio) {
      const device = chosen(microphones, audio);
      tracks.push(labelled(await audioTrack(device, voice), device.deviceId));
    }
    if (video) {
      const device = chosen(cameras, video);
      tracks.push(labelled(pictureTrack({ label: 'camera', scale: device.scale }), device.deviceId));
    }
    return new MediaStream(tracks);
  };
  devices.getDisplayMedia = async ({ audio }) => {
    const tracks = [pictureTrack({ label: 'screen', scale: 2 })];
    if (audio) tracks.push(await audioTrack(microphones[0], voice));
    return new MediaStream(tracks);
  };
}

export { setSilent };
