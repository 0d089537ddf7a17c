// How a frame is compared with a block of a file. Browser and oracle share this file.
//
// A container may not hold a frame's bytes as the encoder gave them: H264 changes start codes for lengths, AV1 leaves out
// temporal delimiters and may or may not carry OBU sizes. `canonical` is a form that both sides can be brought to.

const hex = (buffer) =>
  Array.from(new Uint8Array(buffer), (byte) => byte.toString(16).padStart(2, '0')).join('');

async function sha256(bytes) {
  return hex(await crypto.subtle.digest('SHA-256', bytes));
}

function concat(parts) {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

const lengthPrefixed = (units) =>
  concat(units.flatMap((unit) => [new Uint8Array(new Uint32Array([unit.length]).buffer).reverse(), unit]));

/** NAL units of an Annex B byte stream (ITU-T H.264 annex B): 3- or 4-byte start codes, trailing zeros dropped. */
export function annexBUnits(bytes) {
  const starts = [];
  for (let i = 0; i + 2 < bytes.length; i += 1) {
    if (bytes[i] === 0 && bytes[i + 1] === 0 && bytes[i + 2] === 1) {
      starts.push(i);
      i += 2;
    }
  }
  return starts.map((start, index) => {
    let end = index + 1 < starts.length ? starts[index + 1] : bytes.length;
    while (end > start + 3 && bytes[end - 1] === 0) end -= 1;
    return bytes.subarray(start + 3, end);
  });
}

/** NAL units of a block with 4-byte lengths (ISO/IEC 14496-15). Null if the lengths do not fit. */
export function lengthPrefixedUnits(bytes) {
  const units = [];
  let at = 0;
  while (at < bytes.length) {
    if (at + 4 > bytes.length) return null;
    const length = ((bytes[at] << 24) | (bytes[at + 1] << 16) | (bytes[at + 2] << 8) | bytes[at + 3]) >>> 0;
    if (length === 0 || at + 4 + length > bytes.length) return null;
    units.push(bytes.subarray(at + 4, at + 4 + length));
    at += 4 + length;
  }
  return units;
}

/** OBUs of a low-overhead stream (AV1 specification 5.3), as header without size flag + payload. Null if malformed. */
export function obuUnits(bytes) {
  const units = [];
  let at = 0;
  while (at < bytes.length) {
    const header = bytes[at];
    const headerLength = header & 0x04 ? 2 : 1;
    let payloadAt = at + headerLength;
    let length = bytes.length - payloadAt;
    if (header & 0x02) {
      let shift = 0;
      length = 0;
      for (;;) {
        if (payloadAt >= bytes.length || shift > 49) return null;
        const byte = bytes[payloadAt++];
        length += (byte & 0x7f) * 2 ** shift;
        shift += 7;
        if (!(byte & 0x80)) break;
      }
    }
    if (payloadAt + length > bytes.length) return null;
    const first = bytes.slice(at, at + headerLength);
    first[0] &= ~0x02;
    units.push(concat([first, bytes.subarray(payloadAt, payloadAt + length)]));
    at = payloadAt + length;
  }
  return units;
}

const isParameterSet = (unit) => [7, 8, 9].includes(unit[0] & 0x1f);
// Temporal delimiters, tile lists and padding never travel in RTP (AV1 RTP specification, section 5).
const travels = (unit) => ![2, 8, 15].includes((unit[0] >> 3) & 0x0f);

/**
 * Hashes of one frame. `sha256`: the bytes as they are. `canonical`: H264 without parameter sets and delimiters, AV1 without
 * temporal delimiters and sizes; equal to `sha256` for other codecs; null if malformed. `framing` tells how H264 is cut:
 * `annexb` as browsers hand it over, `length` as Matroska holds it.
 */
export async function frameHashes(codec, bytes, framing = 'annexb') {
  const whole = await sha256(bytes);
  if (codec === 'h264') {
    const units = framing === 'annexb' ? annexBUnits(bytes) : lengthPrefixedUnits(bytes);
    if (!units) return { sha256: whole, canonical: null };
    return {
      sha256: whole,
      avcc: await sha256(lengthPrefixed(units)),
      canonical: await sha256(lengthPrefixed(units.filter((unit) => !isParameterSet(unit)))),
    };
  }
  if (codec === 'av1') {
    const units = obuUnits(bytes);
    return { sha256: whole, canonical: units && (await sha256(lengthPrefixed(units.filter(travels)))) };
  }
  return { sha256: whole, canonical: whole };
}
