// Group calls of a caller: matrix-js-sdk's GroupCall, every pair of devices with a connection of its own.

import { negotiations, takeTruth } from './truth.js';

/** Methods for `window.caller`; `page` gives what the page keeps: client(), eventually, mark. */
export function groupMethods({ client, eventually, mark }) {
  let group;
  let enteredAt;
  /** Connections that were ever made in a group call: {conf, user, device, call, enteredAt, since, connected}. */
  const legs = [];

  function watch(entered) {
    const look = () => {
      for (const [user, devices] of entered.calls) {
        for (const [device, call] of devices) {
          if (legs.some((leg) => leg.call === call)) continue;
          const since = Date.now();
          const leg = { conf: entered.groupCallId, user, device, call, enteredAt, since, connected: null };
          legs.push(leg);
          mark('leg', { user, call_id: call.callId });
          call.on('state', (state) => {
            mark('leg state', { user, state });
            if (state !== 'connected') return;
            leg.connected ??= Date.now();
            if (user === awaited) noteFirstPicture(leg);
          });
          call.on('hangup', () => mark('leg hangup', { user, reason: call.hangupReason }));
        }
      }
    };
    entered.on('calls_changed', look);
    look();
  }

  const legTo = (user) => legs.findLast((leg) => leg.user === user && leg.conf === group.groupCallId);

  const recorderFeed = (user) => group?.userMediaFeeds.find((feed) => feed.userId === user);

  /** Whose first picture is waited for as soon as there is a connection. */
  let awaited;
  async function noteFirstPicture(leg) {
    const video = await tileVideo(leg.user);
    if (leg.pictureAt) return;
    // One may be there already that no callback tells of.
    await new Promise((resolve) => {
      video.requestVideoFrameCallback?.(resolve);
      if (video.readyState >= 2) resolve();
    });
    leg.pictureAt ??= Date.now();
  }

  let screenOf;
  async function tileVideo(user) {
    const { stream } = await eventually(`a picture of ${user}`, () => recorderFeed(user));
    if (screenOf?.srcObject !== stream) {
      screenOf?.remove();
      screenOf = document.createElement('video');
      screenOf.muted = true;
      screenOf.playsInline = true;
      screenOf.srcObject = stream;
      document.body.append(screenOf);
      await screenOf.play().catch(() => {});
    }
    await eventually('a picture to paint', () => screenOf.videoWidth > 2 && screenOf.readyState >= 2);
    return screenOf;
  }

  return {
    async createGroupRoom({ name, invite, encrypted = false }) {
      const { room_id } = await client().createRoom({
        name,
        invite,
        preset: 'private_chat',
        power_level_content_override: {
          events: { 'org.matrix.msc3401.call.member': 0, 'org.matrix.msc3401.call': 0 },
        },
        initial_state: encrypted
          ? [{ type: 'm.room.encryption', state_key: '', content: { algorithm: 'm.megolm.v1.aes-sha2' } }]
          : [],
      });
      await eventually('the new room in the sync', () => client().getRoom(room_id));
      return room_id;
    },

    /** A call in the room that nobody is in yet; its conference id. */
    async createGroupCall(roomId) {
      const made = await client().createGroupCall(roomId, 'm.video', false, 'm.room');
      await eventually('the group call in the sync', () => client().getGroupCallForRoom(roomId));
      return made.groupCallId;
    },

    /** Enters the room's call: the time of the click and when our membership was on the homeserver. */
    async joinGroupCall(roomId) {
      group = await eventually('a group call in the room', () => client().getGroupCallForRoom(roomId));
      enteredAt = Date.now();
      mark('entering', { conf_id: group.groupCallId });
      watch(group);
      await group.enter();
      const own = () => group.hasLocalParticipant();
      await eventually('our own membership', own);
      return { at: enteredAt, memberAt: Date.now(), confId: group.groupCallId };
    },

    leaveGroupCall() {
      const at = Date.now();
      mark('leaving');
      group.leave();
      return at;
    },

    terminateGroupCall: () => group.terminate(),

    muteInGroup: (muted) => group.setMicrophoneMuted(muted),
    muteCameraInGroup: (muted) => group.setLocalVideoMuted(muted),
    /** Shares the screen or ends that, and waits until `user` has agreed. */
    async shareScreenInGroup(on, user) {
      const { peerConn } = legTo(user).call;
      const wanted = negotiations(peerConn) + 1;
      await group.setScreensharingEnabled(on);
      const agreed = () => negotiations(peerConn) >= wanted && peerConn.signalingState === 'stable';
      await eventually('the screen to be agreed on', agreed);
    },

    /** Milliseconds from our click (or, if later, from when they were seen) until media could flow, by user. */
    legs: () =>
      legs.map(({ conf, user, device, call, enteredAt, since, connected }) => ({
        conf,
        user,
        device,
        call_id: call.callId,
        state: call.state,
        since,
        connected,
        enteredAt,
        hangup: call.hangupReason ?? null,
      })),

    /** When a connection to `user` stood that was made after the time given. */
    async connectedTo(user, after = 0) {
      return eventually(`a connection to ${user}`, () => {
        const leg = legTo(user);
        return leg?.since >= after && leg.call.state === 'connected' && leg.connected;
      });
    },

    /** From now on, note when the first picture of `user` is there. */
    awaitPictureOf(user) {
      awaited = user;
    },
    /** Milliseconds from the connection to `user` to its first picture. */
    async firstPictureOf(user) {
      const leg = await eventually(`a picture of ${user}`, () => legTo(user)?.pictureAt && legTo(user));
      return leg.pictureAt - leg.connected;
    },

    /** What the page shows of `user`: frames decoded so far, size, mean brightness and the picture's own bytes. */
    async tile(user) {
      const video = await tileVideo(user);
      const canvas = document.createElement('canvas');
      canvas.width = video.videoWidth;
      canvas.height = video.videoHeight;
      const pen = canvas.getContext('2d');
      pen.drawImage(video, 0, 0);
      const { data } = pen.getImageData(0, 0, canvas.width, canvas.height);
      let sum = 0;
      let hash = 0;
      for (let at = 0; at < data.length; at += 4) {
        sum += data[at] + data[at + 1] + data[at + 2];
        hash = (hash * 31 + data[at] + data[at + 1] * 7 + data[at + 2] * 13) | 0;
      }
      const report = await legTo(user).call.peerConn.getStats();
      const inbound = [...report.values()].filter(({ type }) => type === 'inbound-rtp');
      const picture = inbound.find(({ kind }) => kind === 'video');
      return {
        width: canvas.width,
        height: canvas.height,
        brightness: sum / (data.length / 4) / 3,
        hash,
        framesDecoded: picture?.framesDecoded ?? 0,
        packetsOfSound: inbound.find(({ kind }) => kind === 'audio')?.packetsReceived ?? 0,
        png: canvas.toDataURL('image/png').split(',')[1],
      };
    },

    groupRemoteDescription: (user) => legTo(user).call.peerConn.remoteDescription?.sdp ?? null,
    groupLocalDescription: (user) => legTo(user).call.peerConn.localDescription?.sdp ?? null,

    /** Nothing more is sent to `user`; the connection stands. */
    async stopSendingTo(user) {
      await Promise.all(legTo(user).call.peerConn.getSenders().map((sender) => sender.replaceTrack(null)));
    },

    /** JSON lines of everything that was sent to `user` in group calls since the last call of this. */
    async groupTruth(user) {
      const lines = [];
      for (const leg of legs) {
        if (!leg.call.peerConn) continue;
        const taken = await takeTruth(leg.call.peerConn);
        if (leg.user !== user) continue;
        for (const frame of taken)
          lines.push(JSON.stringify({ call_id: leg.conf, user_id: client().getUserId(), ...frame }));
      }
      return lines.join('\n');
    },

    async react(roomId, eventId, key) {
      const content = { 'm.relates_to': { rel_type: 'm.annotation', event_id: eventId, key } };
      return (await client().sendEvent(roomId, 'm.reaction', content)).event_id;
    },

    async sendState(roomId, type, stateKey, content) {
      return (await client().sendStateEvent(roomId, type, content, stateKey)).event_id;
    },

    stateOf(roomId, type, stateKey) {
      return client().getRoom(roomId)?.currentState.getStateEvents(type, stateKey)?.getContent() ?? null;
    },

    async kick(roomId, user) {
      await client().kick(roomId, user);
    },

    async redactState(roomId, type, stateKey) {
      const event = client().getRoom(roomId).currentState.getStateEvents(type, stateKey);
      await client().redactEvent(roomId, event.getId());
    },

    callIn: (roomId) => client().getGroupCallForRoom(roomId)?.groupCallId ?? null,

    nameOf: (roomId, user) => client().getRoom(roomId)?.getMember(user)?.rawDisplayName ?? null,
    deviceId: () => client().getDeviceId(),
  };
}
