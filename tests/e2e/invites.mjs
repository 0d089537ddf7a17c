// Invites as no well-behaved client sends them.

/** A real offer of a browser, for invites sent by hand. */
export async function offerOf(caller) {
  return { type: 'offer', sdp: await caller.do('makeOffer') };
}

const header = 'v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n';
const line = (kind, mid, codecs, more = '') =>
  `m=${kind} 9 UDP/TLS/RTP/SAVPF ${codecs.map((_, at) => 96 + at).join(' ')}\r\nc=IN IP4 0.0.0.0\r\na=mid:${mid}\r\n` +
  `a=sendrecv\r\na=rtcp-mux\r\n${codecs.map((codec, at) => `a=rtpmap:${96 + at} ${codec}\r\n`).join('')}${more}`;
const transport =
  'a=ice-ufrag:abcd\r\na=ice-pwd:abcdefghijklmnopqrstuvwx\r\na=setup:actpass\r\n' +
  `a=fingerprint:sha-256 ${Array(32).fill('AB').join(':')}\r\n`;

const bundle = (count) => `a=group:BUNDLE ${Array.from({ length: count }, (_, mid) => mid).join(' ')}\r\n`;

/** name -> SDP that must be refused or survived. */
export const badOffers = {
  'nothing at all': '',
  'no SDP': 'this is not SDP',
  'a truncated line': 'v=0\r\no=- 1 1 IN IP',
  'no media': header,
  'a data channel only': `${header}${bundle(1)}m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\nc=IN IP4 0.0.0.0\r\na=mid:0\r\n${transport}`,
  'unknown codecs': `${header}${bundle(1)}${line('audio', 0, ['NOSUCH/8000', 'EITHER/16000'], transport)}`,
  'no ICE credentials': `${header}${bundle(1)}${line('audio', 0, ['opus/48000/2'])}`,
  'a broken fingerprint': `${header}${bundle(1)}${line('audio', 0, ['opus/48000/2'], transport.replace(/AB:/g, 'ZZ:'))}`,
  'huge numbers': `${header}m=audio 99999999999999999999 UDP/TLS/RTP/SAVPF 4294967296 -1\r\na=rtpmap:4294967296 opus/0/99999\r\n`,
  '300 m-lines': `${header}${bundle(300)}${Array.from({ length: 300 }, (_, mid) => line('video', mid, ['VP8/90000'], mid ? '' : transport)).join('')}`,
};

/** `count` candidates in events that a homeserver takes, as arrays. */
export function candidateBatches(count, each = 250) {
  const batches = [];
  for (let sent = 0; sent < count; sent += each) {
    batches.push(
      Array.from({ length: Math.min(each, count - sent) }, (_, at) => ({
        candidate: `candidate:${sent + at} 1 udp ${2_122_260_223 - at} 127.0.0.${1 + (at % 250)} ${1024 + ((sent + at) % 60_000)} typ host`,
        sdpMid: '0',
        sdpMLineIndex: 0,
      })),
    );
  }
  return batches;
}

/** Call ids that would like to be paths, markup or a burden. */
export const hostileIds = [
  '../../../../tmp/escaped',
  '/etc/passwd',
  '..',
  '.',
  '',
  'nul\u0000byte',
  '🎥☎️',
  '-rf',
  'CON',
  'a'.repeat(10_000),
  '<script>alert(1)</script>',
  'line\nbreak',
  '\u202egnp.exe',
  ' ',
];

/** name -> a later offer made from the one in force (`sdp`) that must be refused. */
export function badLaterOffers(sdp) {
  const [session, ...media] = sdp.split(/(?=^m=)/m);
  const audio = media.find((part) => part.startsWith('m=audio'));
  const video = media.find((part) => part.startsWith('m=video'));
  const mid = (part) => /^a=mid:.*$/m.exec(part)[0];
  return {
    'fewer m-lines': session + media.slice(0, 1).join(''),
    'no m-lines': session,
    'm-lines in another order': session + [...media].reverse().join(''),
    'other mids': sdp.replace(/^a=mid:/gm, 'a=mid:other'),
    'the same mid twice': session + media.map((part) => part.replace(mid(part), mid(media[0]))).join(''),
    'audio turned into video': session + video.replace(mid(video), mid(audio)) + media.slice(1).join(''),
    'no codecs': sdp.replace(/^a=rtpmap:.*\r?\n/gm, ''),
    ...badOffers,
  };
}
