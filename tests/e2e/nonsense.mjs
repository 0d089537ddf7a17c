// What no client should send in a room with a group call.

const CALL = 'org.matrix.msc3401.call';
const MEMBER = 'org.matrix.msc3401.call.member';
const HOUR = 3_600_000;

/** One device as a member event lists it. */
export const device = (device_id, more = {}) => ({
  device_id,
  session_id: `session-of-${device_id}`,
  expires_ts: Date.now() + HOUR,
  feeds: [{ purpose: 'm.usermedia' }],
  ...more,
});

export const memberOf = (conf, devices) => ({ 'm.calls': [{ 'm.call_id': conf, 'm.devices': devices }] });

// Not null: in a list it stops the sync of every matrix-js-sdk in the room (43.0.0, GroupCall.updateParticipants).
const values = [7, 'seven', [], {}];

/** Copies of `content`, each with another type in one of its fields, down to the last. */
export function wrongTypes(content) {
  const copies = [];
  const walk = (value, replace) => {
    for (const other of values) copies.push(replace(other));
    if (!value || typeof value !== 'object') return;
    for (const key of Object.keys(value)) {
      walk(value[key], (other) => {
        const copy = structuredClone(value);
        copy[key] = other;
        return replace(copy);
      });
    }
  };
  for (const key of Object.keys(content)) walk(content[key], (other) => ({ ...structuredClone(content), [key]: other }));
  return copies;
}

/** Member events of a user for the call `conf`: wrong types, very many devices, impossible times. */
export function members(conf) {
  const many = Array.from({ length: 400 }, (_, at) => device(`D${at}`));
  return [
    ...wrongTypes(memberOf(conf, [device('RAW')])),
    memberOf(conf, many),
    memberOf(conf, [device('PAST', { expires_ts: 1 }), device('FAR', { expires_ts: 253_402_300_799_000 })]),
    { 'm.calls': Array.from({ length: 300 }, (_, at) => ({ 'm.call_id': `c${at}`, 'm.devices': [device('R')] })) },
    memberOf(conf, [device('x'.repeat(20_000))]),
  ];
}

/** Call events, none of which is a call. */
export const calls = () =>
  wrongTypes({ 'm.intent': 'm.room', 'm.type': 'm.video' }).filter(
    (content) => typeof content['m.intent'] !== 'string' || !['m.video', 'm.voice'].includes(content['m.type']),
  );

/** Sets states as `api`, in the order given; what the homeserver itself refuses is passed over. */
export async function setStates(api, room, type, key, contents) {
  let taken = 0;
  const place = `/rooms/${encodeURIComponent(room)}/state/${type}/${encodeURIComponent(key)}`;
  for (const content of contents) {
    try {
      await api.request('PUT', place, content);
      taken += 1;
    } catch (error) {
      if (![400, 413].includes(error.status)) throw error;
    }
  }
  return taken;
}

/** One event to one device. */
export const toDevice = (api, type, user, deviceId, content) =>
  api.request('PUT', `/sendToDevice/${type}/${crypto.randomUUID()}`, {
    messages: { [user]: { [deviceId]: content } },
  });

/** Signals of a device `RAW` of `conf`: none in its place. */
export function signals(conf, session, offer) {
  const base = {
    conf_id: conf,
    call_id: 'raw-call',
    version: '1',
    party_id: 'RAW',
    device_id: 'RAW',
    sender_session_id: 'session-of-RAW',
    dest_session_id: session,
  };
  const invite = { ...base, lifetime: 60_000, offer: { type: 'offer', sdp: offer }, seq: 0 };
  const candidates = { ...base, candidates: [{ candidate: 'nonsense', sdpMid: '0', sdpMLineIndex: 0 }] };
  return [
    ['m.call.invite', { ...invite, conf_id: 'no-such-call' }],
    ['m.call.invite', { ...invite, dest_session_id: 'of-yesterday' }],
    ['m.call.candidates', { ...candidates, seq: 5 }],
    ['m.call.hangup', { ...base, call_id: 'another', seq: 9_000_000, reason: 'user_hangup' }],
    ['m.call.invite', { ...invite, call_id: 'empty', offer: {} }],
    ['m.call.invite', invite],
    ['m.call.invite', invite],
    ['m.call.candidates', { ...candidates, seq: 1 }],
    ['m.call.candidates', { ...candidates, seq: 1 }],
    ['m.call.candidates', { ...candidates, seq: 3 }],
    ['m.call.answer', { ...base, answer: { type: 'answer', sdp: 'v=0' }, seq: 0 }],
    ['m.call.negotiate', { ...base, description: { type: 'offer', sdp: 7 }, seq: 2 }],
    ...values.map((seq) => ['m.call.candidates', { ...candidates, seq }]),
    ...values.map((conf_id) => ['m.call.invite', { ...invite, conf_id }]),
    ['m.call.nonsense', { ...base, seq: 4 }],
    ['m.call.hangup', { ...base, seq: 0, reason: 'user_hangup' }],
  ];
}

export { CALL, MEMBER };
