// A caller as people have them: matrix-js-sdk with its Rust cryptography, in a browser. Driven through `window.caller`.

import * as sdk from 'matrix-js-sdk';
import { logger } from 'matrix-js-sdk/lib/logger';

import { groupMethods } from './group.js';
import { configureMedia, installDevices, plugMicrophone, setSilent } from './media.js';
import { redirect } from './path.js';
import { connections, installTruth, keepBytes, negotiations, preferCodecs, takeTruth } from './truth.js';

installDevices();
installTruth();
logger.setLevel?.('warn', false);

let client;
let call;
/** The call of version 0: {connection, stream, about, roomId}. */
let oldCall;
/** Every call whose log of frames was not taken yet. */
let calls = [];
const incoming = [];
const timeline = [];

const mark = (what, detail = {}) => timeline.push({ at: Date.now(), what, ...detail });

function watch(newCall) {
  call = newCall;
  calls.push(call);
  mark('state', { state: call.state });
  call.on(sdk.CallEvent.State ?? 'state', (state) => mark('state', { state }));
  call.on('error', (error) => mark('error', { code: error.code, message: String(error.message) }));
  call.on('hangup', () => mark('hangup', { reason: call.hangupReason, party: call.hangupParty }));
}

async function eventually(what, probe, timeoutMs = 20_000) {
  const end = Date.now() + timeoutMs;
  for (;;) {
    const value = await probe();
    if (value) return value;
    if (Date.now() > end) throw new Error(`waited ${timeoutMs} ms for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** Events that we sent into the call's room and the homeserver has not given back yet. */
const unreturned = () => {
  const events = client.getRoom(call.roomId).getLiveTimeline().getEvents();
  return events.filter((event) => event.status !== null).length;
};

const plainStats = async () => {
  const report = await call.peerConn.getStats();
  return [...report.values()].map((entry) => JSON.parse(JSON.stringify(entry)));
};

window.caller = {
  ...groupMethods({ client: () => client, eventually, mark }),

  /** media: {left, right, width, height, framesPerSecond}; codecs: {audio, video}; encryption on by default. */
  async login({
    url,
    userId,
    password,
    // One that logged in before: a browser that was started again.
    deviceId,
    media = {},
    codecs = {},
    relayOnly = false,
    answerCalls = false,
    encryption = true,
  }) {
    configureMedia(media);
    preferCodecs(codecs);
    const login = await sdk.createClient({ baseUrl: url }).loginRequest({
      type: 'm.login.password',
      identifier: { type: 'm.id.user', user: userId },
      password,
      ...(deviceId && { device_id: deviceId }),
      initial_device_display_name: 'test caller',
    });
    client = sdk.createClient({
      baseUrl: url,
      userId: login.user_id,
      deviceId: login.device_id,
      accessToken: login.access_token,
      useE2eForGroupCall: false,
      forceTURN: relayOnly,
      // Callers in one browser share its databases.
      cryptoStore: new sdk.MemoryCryptoStore(),
    });
    if (encryption) await client.initRustCrypto({ useIndexedDB: false });
    client.on('Call.incoming', (offered) => {
      incoming.push(offered);
      mark('incoming', { call_id: offered.callId });
      if (answerCalls) {
        watch(offered);
        offered.answer(true, true);
      }
    });
    await client.startClient({ initialSyncLimit: 20 });
    await eventually('the first sync', () => client.isInitialSyncComplete());
    return { userId: login.user_id, deviceId: login.device_id };
  },

  async createRoom({ invite = [], encrypted = false, name }) {
    const { room_id } = await client.createRoom({
      name,
      invite,
      preset: 'trusted_private_chat',
      initial_state: encrypted
        ? [{ type: 'm.room.encryption', state_key: '', content: { algorithm: 'm.megolm.v1.aes-sha2' } }]
        : [],
    });
    await eventually('the new room in the sync', () => client.getRoom(room_id));
    return room_id;
  },

  async joinRoom(roomId) {
    await client.joinRoom(roomId);
    await eventually('the joined room', () => client.getRoom(roomId)?.getMyMembership() === 'join');
  },

  async invite(roomId, userId) {
    await client.invite(roomId, userId);
  },

  async waitForJoin(roomId, userId, timeoutMs) {
    await eventually(
      `${userId} in the room`,
      () => client.getRoom(roomId)?.getMember(userId)?.membership === 'join',
      timeoutMs,
    );
    // Keys are handed to the devices in the store when the call begins; a download does not put them there.
    if (client.isRoomEncrypted(roomId) || client.getRoom(roomId).hasEncryptionStateEvent()) {
      await eventually(`a device of ${userId}`, async () => {
        const devices = await client.getCrypto().getUserDeviceInfo([userId], false);
        return (devices.get(userId)?.size ?? 0) > 0;
      });
    }
  },

  /** `invitee`: whom it is meant for, in a room of more than two. */
  async placeCall(roomId, { audio = true, video = true, invitee } = {}) {
    watch(client.createCall(roomId));
    call.invitee = invitee;
    mark('placing', { call_id: call.callId });
    await call.placeCall(audio, video);
    return call.callId;
  },

  async waitForState(state, timeoutMs) {
    try {
      return await eventually(
        `the call to be ${state}`,
        () => call?.state === state && Date.now(),
        timeoutMs,
      );
    } catch (error) {
      error.message += `; it went ${timeline
        .slice(-8)
        .map((entry) => entry.state ?? JSON.stringify(entry))
        .join(', ')}`;
      throw error;
    }
  },

  state: () => call?.state ?? null,
  callId: () => call?.callId ?? null,
  timeline: () => timeline,
  hangupReason: () => call?.hangupReason ?? null,

  async hangup() {
    const at = Date.now();
    call.hangup('user_hangup', false);
    mark('hung up');
    return at;
  },

  muteMicrophone: (muted) => call.setMicrophoneMuted(muted),
  muteCamera: (muted) => call.setLocalVideoMuted(muted),
  shareScreen: (on, audio = false) => call.setScreensharingEnabled(on, { audio }),
  hold: (on) => call.setRemoteOnHold(on),
  repeatMetadata: () => call.sendMetadataUpdate(),
  restartIce: () => call.peerConn.restartIce(),
  setMicrophone: (deviceId) => client.getMediaHandler().setAudioInput(deviceId),
  setCamera: (deviceId) => client.getMediaHandler().setVideoInput(deviceId),
  connection: () => call.peerConn.connectionState,
  negotiations: () => negotiations(call.peerConn),

  /**
   * Calls `window.caller[method]` and waits until the change has come through: `offers` more offers of ours are answered, the
   * connection stands, and the homeserver has given back to us all that we sent into the room. Wall-clock times of its
   * beginning and end.
   */
  async act(method, args, offers = 0) {
    const wanted = negotiations(call.peerConn) + offers;
    const from = Date.now();
    await window.caller[method](...args);
    await eventually(
      `${offers} offers of ${method} to be answered`,
      () =>
        negotiations(call.peerConn) >= wanted &&
        call.peerConn.signalingState === 'stable' &&
        call.peerConn.connectionState === 'connected' &&
        unreturned() === 0,
    );
    return { from, to: Date.now() };
  },

  redirect,
  setSilent,
  plugMicrophone,
  keepBytes,
  stats: plainStats,
  remoteDescription: () => call.peerConn.remoteDescription?.sdp ?? null,
  localDescription: () => call.peerConn.localDescription?.sdp ?? null,
  senders: () =>
    call.peerConn.getTransceivers().map(({ mid, currentDirection, sender }) => ({
      mid,
      direction: currentDirection,
      kind: sender.track?.kind ?? null,
    })),

  /** JSON lines of everything that calls sent since the last call of this. */
  async truth() {
    const lines = [];
    for (const { callId: call_id, peerConn } of calls.length ? calls : [{ callId: oldCall?.about.call_id ?? null }]) {
      const taken = await takeTruth(peerConn ?? connections.at(-1));
      for (const frame of taken) lines.push(JSON.stringify({ call_id, user_id: client.getUserId(), ...frame }));
    }
    calls = calls.filter((one) => one === call);
    return lines.join('\n');
  },

  /** Nothing more is sent; the call stands. */
  async stopSending() {
    await Promise.all(call.peerConn.getSenders().map((sender) => sender.replaceTrack(null)));
  },

  /** Hangs up and calls again in the same turn of the page. */
  async callAgain(roomId) {
    call.hangup('user_hangup', false);
    return window.caller.placeCall(roomId);
  },

  /** Ends the call as a client does that has a reason of its own. */
  hangUpBecause: (reason) => call.hangup(reason, false),

  /** An offer of real audio and video whose connection is not used, for invites sent by hand. */
  async makeOffer() {
    const connection = new RTCPeerConnection();
    connection.addTransceiver('audio');
    connection.addTransceiver('video');
    const { sdp } = await connection.createOffer();
    await connection.setLocalDescription({ type: 'offer', sdp });
    await eventually('its candidates', () => connection.iceGatheringState === 'complete');
    const whole = connection.localDescription.sdp;
    connection.close();
    return whole;
  },

  /**
   * A call of version 0 by hand, as old clients place it: without parties, and nobody selects an answer. {callId, answer} once
   * it is connected.
   */
  async placeOldCall(roomId) {
    const connection = new RTCPeerConnection();
    const stream = await navigator.mediaDevices.getUserMedia({ audio: true, video: true });
    for (const track of stream.getTracks()) connection.addTrack(track, stream);
    await connection.setLocalDescription(await connection.createOffer());
    await eventually('its candidates', () => connection.iceGatheringState === 'complete');
    const about = { call_id: `old-${Date.now()}`, version: 0 };
    oldCall = { connection, stream, about, roomId };
    const offer = { type: 'offer', sdp: connection.localDescription.sdp };
    await client.sendEvent(roomId, 'm.call.invite', { ...about, lifetime: 60_000, offer });
    const isAnswer = ({ type, content }) => type === 'm.call.answer' && content.call_id === about.call_id;
    const { content } = await eventually(
      'the answer',
      async () => (await this.messages(roomId)).find(isAnswer),
      20_000,
    );
    await connection.setRemoteDescription(content.answer);
    await eventually('the connection', () => connection.connectionState === 'connected', 20_000);
    return { callId: about.call_id, answer: content };
  },

  async hangUpOldCall() {
    const { connection, stream, about, roomId } = oldCall;
    await client.sendEvent(roomId, 'm.call.hangup', about);
    connection.close();
    for (const track of stream.getTracks()) track.stop();
  },

  async send(roomId, text) {
    return (await client.sendTextMessage(roomId, text)).event_id;
  },

  /** An unencrypted change to the room: wakes everyone's sync without any key. */
  async setTopic(roomId, topic) {
    await client.setRoomTopic(roomId, topic);
  },

  /** What was said in a room, decrypted, oldest first. */
  async messages(roomId) {
    const events = client.getRoom(roomId)?.getLiveTimeline().getEvents() ?? [];
    for (const event of events) await client.decryptEventIfNeeded(event);
    return events.map((event) => ({
      id: event.getId(),
      sender: event.getSender(),
      type: event.getType(),
      encrypted: event.isEncrypted(),
      content: event.getContent(),
      at: event.getTs(),
    }));
  },

  async sendRaw(roomId, type, content) {
    return (await client.sendEvent(roomId, type, content)).event_id;
  },

  async logout() {
    client?.stopClient();
  },
};
window.callerReady = true;
