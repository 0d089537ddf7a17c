// Ground truth: every sender gets a transform that passes frames through untouched and logs what they were.

let worker;
let senderCount = 0;
const connections = [];
const answered = new WeakMap();
const senders = [];
let frames = [];
let preferences = {};

/** Codecs that transceivers are to offer, by kind; others are left out of the offer. */
export function preferCodecs(wanted) {
  preferences = wanted;
}

export function installTruth() {
  worker = new Worker('truth_worker.js');
  worker.onmessage = ({ data }) => frames.push(...data);
  const Native = window.RTCPeerConnection;

  window.RTCPeerConnection = class extends Native {
    constructor(...args) {
      super(...args);
      connections.push(this);
      let before = this.signalingState;
      this.addEventListener('signalingstatechange', () => {
        if (before === 'have-local-offer' && this.signalingState === 'stable') {
          answered.set(this, negotiations(this) + 1);
        }
        before = this.signalingState;
      });
    }
  };
  // Not through the subclass: libraries may hold on to the prototype's methods.
  const { addTrack, addTransceiver } = Native.prototype;
  Native.prototype.addTrack = function (...args) {
    const sender = addTrack.apply(this, args);
    attach(
      this,
      sender,
      this.getTransceivers().find((transceiver) => transceiver.sender === sender),
    );
    return sender;
  };
  Native.prototype.addTransceiver = function (...args) {
    const transceiver = addTransceiver.apply(this, args);
    attach(this, transceiver.sender, transceiver);
    return transceiver;
  };
}

/** How many offers of a connection have been answered. */
export const negotiations = (connection) => answered.get(connection) ?? 0;

function attach(connection, sender, transceiver) {
  if (senders.some((known) => known.sender === sender)) return;
  const id = senderCount++;
  const kind = sender.track?.kind ?? transceiver?.receiver.track.kind;
  const entry = { id, sender, transceiver, connection, kind, mid: null };
  senders.push(entry);
  // A stopped transceiver has forgotten its mid.
  connection.addEventListener('signalingstatechange', () => {
    entry.mid = transceiver?.mid ?? entry.mid;
  });
  sender.transform = new RTCRtpScriptTransform(worker, { id });
  const wanted = preferences[kind];
  if (!wanted || !transceiver?.setCodecPreferences) return;
  const helpers = ['rtx', 'red', 'ulpfec'];
  const codecs = RTCRtpReceiver.getCapabilities(kind).codecs.filter(({ mimeType }) => {
    const name = mimeType.split('/')[1].toLowerCase();
    return name === wanted.toLowerCase() || helpers.includes(name);
  });
  if (!codecs.some(({ mimeType }) => mimeType.toLowerCase().endsWith(`/${wanted.toLowerCase()}`))) {
    throw new Error(`this browser has no ${wanted}`);
  }
  transceiver.setCodecPreferences(codecs);
}

/** Whether the log holds the frames themselves (base64) and not only their hashes. */
export function keepBytes(keep) {
  worker.postMessage({ keepBytes: keep });
}

/** What was logged since the last call, for one connection or all; frames of other connections stay. */
export async function takeTruth(connection) {
  await new Promise((resolve) => {
    const channel = new MessageChannel();
    channel.port1.onmessage = resolve;
    worker.postMessage({ flush: channel.port2 }, [channel.port2]);
  });
  const known = new Map(senders.map((entry) => [entry.id, entry]));
  const mine = (frame) => !connection || known.get(frame.sender).connection === connection;
  const taken = frames.filter(mine);
  frames = frames.filter((frame) => !mine(frame));
  return taken.map((frame) => {
    const { mid, kind } = known.get(frame.sender);
    return { mid, kind, ...frame };
  });
}

export { connections };
