//! Senders for tests: frames of each codec with headers that are true, cut into packets as the payload formats say.
//! Written from the RFCs, not from the depacketisers.
#![allow(dead_code, reason = "each test program uses its part")]

use recorder_core::media::{Codec, RtpPacket, Skipped};
use recorder_core::time::BootTime;

pub const MILLI: u64 = 1_000_000;

/// What the far side encoded and sent.
#[derive(Clone, Debug)]
pub struct Sent {
    pub payloads: Vec<Vec<u8>>,
    /// What has to come out, byte for byte.
    pub frame: Vec<u8>,
    pub key: bool,
}

pub fn packet(sequence: u64, timestamp: u32, marker: bool, payload: Vec<u8>) -> RtpPacket {
    RtpPacket {
        arrival: BootTime(0),
        ingress: 0,
        skipped: Skipped::default(),
        ssrc: 1,
        payload_type: 96,
        sequence,
        timestamp,
        marker,
        recovered: false,
        rotation: None,
        payload,
    }
}

/// Bytes that differ from frame to frame and hold no start code.
pub fn noise(seed: u32, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(12_345) | 1;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            (state >> 8) as u8 | 1
        })
        .collect()
}

fn chunks(data: &[u8], mtu: usize) -> Vec<&[u8]> {
    data.chunks(mtu.max(1)).collect()
}

/// Frame number `n`, about `size` bytes, in packets of about `mtu` bytes of media.
pub fn send(codec: Codec, n: u32, key: bool, size: usize, mtu: usize) -> Sent {
    match codec {
        Codec::Opus => {
            let mut frame = noise(n, size.clamp(1, 1200));
            frame[0] = 0xfc;
            Sent { payloads: vec![frame.clone()], frame, key: true }
        }
        Codec::Vp8 => vp8(n, key, size, mtu, None),
        Codec::Vp9 => vp9(n, key, size, mtu),
        Codec::Av1 => av1(n, key, size, mtu),
        Codec::H264 => h264(n, key, size, mtu),
        Codec::H265 => h265(n, key, size, mtu),
    }
}

/// Temporal layer: id, TL0PICIDX, Y.
pub type Vp8Layer = (u8, u8, bool);

pub fn vp8_frame(n: u32, key: bool, size: usize) -> Vec<u8> {
    let mut frame = noise(n, size.max(10));
    if key {
        frame[..10].copy_from_slice(&[0x10, 2, 0, 0x9d, 1, 0x2a, 0x80, 0x02, 0xe0, 0x01]);
    } else {
        frame[0] = 0x11;
    }
    frame
}

pub fn vp8(n: u32, key: bool, size: usize, mtu: usize, layer: Option<Vp8Layer>) -> Sent {
    let frame = vp8_frame(n, key, size);
    let picture = n as u16 & 0x7fff;
    let payloads = chunks(&frame, mtu)
        .iter()
        .enumerate()
        .map(|(index, media)| {
            let start = if index == 0 { 0x10 } else { 0 };
            let mut out = vec![0x80 | start, 0x80, 0x80 | (picture >> 8) as u8, picture as u8];
            if let Some((id, base, sync)) = layer {
                out[1] |= 0x60;
                out.extend([base, id << 6 | u8::from(sync) << 5]);
            }
            out.extend_from_slice(media);
            out
        })
        .collect();
    Sent { payloads, frame, key }
}

pub fn vp9_frame(n: u32, key: bool, size: usize) -> Vec<u8> {
    let mut frame = noise(n, size.max(12));
    if key {
        // Profile 0, key, shown, sync code, colour space 1, 640 × 480.
        frame[..9].copy_from_slice(&[0x82, 0x49, 0x83, 0x42, 0x20, 0x27, 0xf0, 0x1d, 0xf0]);
    } else {
        frame[0] = 0x86;
    }
    frame
}

fn vp9(n: u32, key: bool, size: usize, mtu: usize) -> Sent {
    let frame = vp9_frame(n, key, size);
    let picture = n as u16 & 0x7fff;
    let parts = chunks(&frame, mtu);
    let payloads = parts
        .iter()
        .enumerate()
        .map(|(index, media)| {
            let mut flags = 0x80 | if key { 0 } else { 0x40 };
            flags |= if index == 0 { 0x08 } else { 0 };
            flags |= if index + 1 == parts.len() { 0x04 } else { 0 };
            let mut out = vec![flags, 0x80 | (picture >> 8) as u8, picture as u8];
            out.extend_from_slice(media);
            out
        })
        .collect();
    Sent { payloads, frame, key }
}

pub fn leb128(mut value: usize) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

/// A sequence header body of profile 0, level 3.0, 640 × 480.
pub const AV1_SEQUENCE: [u8; 9] = [0x00, 0x00, 0x00, 0x24, 0xc4, 0xff, 0xdf, 0x7e, 0x10];

fn av1(n: u32, key: bool, size: usize, mtu: usize) -> Sent {
    let mut body = noise(n, size.max(4));
    body[0] = if key { 0x10 } else { 0x30 };
    let mut obus = Vec::new();
    if key {
        obus.push((0x08, AV1_SEQUENCE.to_vec()));
    }
    obus.push((0x30, body));
    let mut frame = Vec::new();
    for (header, body) in &obus {
        frame.push(header | 0x02);
        frame.extend(leb128(body.len()));
        frame.extend_from_slice(body);
    }
    let elements: Vec<Vec<u8>> =
        obus.into_iter().map(|(header, body)| [vec![header], body].concat()).collect();
    Sent { payloads: av1_payloads(&elements, key, mtu), frame, key }
}

/// W = 0 throughout: each element has its length. An element is cut where the packet is full.
pub fn av1_payloads(elements: &[Vec<u8>], key: bool, mtu: usize) -> Vec<Vec<u8>> {
    let mut packets: Vec<Vec<u8>> = Vec::new();
    let mut current = vec![if key { 0x08 } else { 0 }];
    for element in elements {
        let mut rest = element.as_slice();
        while !rest.is_empty() {
            let room = (mtu.max(4) + 1).saturating_sub(current.len()).max(1);
            let (part, after) = rest.split_at(room.min(rest.len()));
            current.extend(leb128(part.len()));
            current.extend_from_slice(part);
            rest = after;
            if current.len() > mtu {
                let goes_on = !rest.is_empty();
                current[0] |= if goes_on { 0x40 } else { 0 };
                packets.push(std::mem::replace(&mut current, vec![if goes_on { 0x80 } else { 0 }]));
            }
        }
    }
    if current.len() > 1 {
        packets.push(current);
    }
    packets
}

/// Baseline, level 3.1, 640 × 480.
pub const SPS: [u8; 9] = [0x67, 0x42, 0xc0, 0x1f, 0xda, 0x02, 0x80, 0xf6, 0x84];
pub const PPS: [u8; 4] = [0x68, 0xce, 0x3c, 0x80];

fn h264(n: u32, key: bool, size: usize, mtu: usize) -> Sent {
    let mut slice = noise(n, size.max(8));
    slice[0] = if key { 0x65 } else { 0x61 };
    slice[1] = 0x88;
    h264_units(if key { vec![SPS.to_vec(), PPS.to_vec(), slice] } else { vec![slice] }, key, mtu)
}

pub fn avcc(units: &[Vec<u8>]) -> Vec<u8> {
    units.iter().flat_map(|unit| [&(unit.len() as u32).to_be_bytes()[..], unit].concat()).collect()
}

/// Parameter sets together in a STAP-A, the rest alone or in FU-As.
pub fn h264_units(units: Vec<Vec<u8>>, key: bool, mtu: usize) -> Sent {
    let mut payloads = Vec::new();
    let (sets, rest): (Vec<_>, Vec<_>) = units.iter().partition(|unit| matches!(unit[0] & 0x1f, 7 | 8));
    if !sets.is_empty() {
        let mut stap = vec![0x78];
        for set in sets {
            stap.extend((set.len() as u16).to_be_bytes());
            stap.extend_from_slice(set);
        }
        payloads.push(stap);
    }
    for unit in rest {
        if unit.len() <= mtu.max(2) {
            payloads.push(unit.clone());
            continue;
        }
        let parts = chunks(&unit[1..], mtu.max(2));
        for (index, part) in parts.iter().enumerate() {
            let start = if index == 0 { 0x80 } else { 0 };
            let end = if index + 1 == parts.len() { 0x40 } else { 0 };
            payloads.push([&[unit[0] & 0xe0 | 28, start | end | unit[0] & 0x1f][..], part].concat());
        }
    }
    Sent { payloads, frame: avcc(&units), key }
}

pub const H265_VPS: [u8; 8] = [0x40, 0x01, 0x0c, 0x01, 0xff, 0xff, 0x01, 0x60];
/// Main profile, 640 × 480.
pub const H265_SPS: [u8; 24] = [
    0x42, 0x01, 0x01, 0x01, 0x60, 0x00, 0x00, 0x03, 0x00, 0x90, 0x00, 0x00, 0x03, 0x00, 0x00, 0x03, 0x00,
    0x5d, 0xa0, 0x05, 0x02, 0x01, 0xe1, 0x65,
];
pub const H265_PPS: [u8; 6] = [0x44, 0x01, 0xc1, 0x72, 0xb4, 0x62];

fn h265(n: u32, key: bool, size: usize, mtu: usize) -> Sent {
    let mut slice = noise(n, size.max(8));
    slice[0] = if key { 19 << 1 } else { 1 << 1 };
    slice[1] = 1;
    slice[2] = 0x80;
    let units =
        if key { vec![H265_VPS.to_vec(), H265_SPS.to_vec(), H265_PPS.to_vec(), slice] } else { vec![slice] };
    let mut payloads = Vec::new();
    if key {
        let mut together = vec![48 << 1, 1];
        for set in &units[..3] {
            together.extend((set.len() as u16).to_be_bytes());
            together.extend_from_slice(set);
        }
        payloads.push(together);
    }
    let slice = &units[units.len() - 1];
    if slice.len() <= mtu.max(3) {
        payloads.push(slice.clone());
    } else {
        let parts = chunks(&slice[2..], mtu.max(3));
        for (index, part) in parts.iter().enumerate() {
            let start = if index == 0 { 0x80 } else { 0 };
            let end = if index + 1 == parts.len() { 0x40 } else { 0 };
            let header = [49 << 1, 1, start | end | slice[0] >> 1];
            payloads.push([&header[..], part].concat());
        }
    }
    Sent { payloads, frame: avcc(&units), key }
}
