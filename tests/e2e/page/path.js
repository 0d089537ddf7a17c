// Has all media go by way of another port: descriptions from the recorder name it in place of its own, and our own addresses
// are told to nobody, so that there is no other way.

const strip = (description) =>
  description && {
    type: description.type,
    sdp: description.sdp.replace(/^a=candidate:.*\r?\n/gm, ''),
    toJSON() {
      return { type: this.type, sdp: this.sdp };
    },
  };

/** From now on, for all connections. `from`: the recorder's port, `to`: the one in its place. */
export function redirect({ from, to }) {
  const { prototype } = RTCPeerConnection;
  const native = Object.getPrototypeOf(prototype);
  const whole = Object.getOwnPropertyDescriptor(native, 'localDescription').get;
  Object.defineProperty(prototype, 'localDescription', {
    get() {
      return strip(whole.call(this));
    },
  });
  prototype.setRemoteDescription = function (description) {
    const sdp = description.sdp.replaceAll(` ${from} typ `, ` ${to} typ `);
    return native.setRemoteDescription.call(this, { type: description.type, sdp });
  };
  prototype.addEventListener = function (type, ...rest) {
    if (type !== 'icecandidate') native.addEventListener.call(this, type, ...rest);
  };
}
