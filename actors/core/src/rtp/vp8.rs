//! VP8 out of RTP (RFC 7741 §4) and the head of its key frames (RFC 6386 §9.1).

use crate::rtp::depacketise::{Depacketised, Dependencies, Malformed, PictureId, TemporalLayer, plausible};

/// The payload descriptor (RFC 7741 §4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptor {
    pub start_of_partition: bool,
    pub partition: u8,
    pub dependencies: Dependencies,
    /// Bytes of the descriptor.
    pub length: usize,
}

/// Reads the descriptor; `None` if it is cut off.
pub fn descriptor(payload: &[u8]) -> Option<Descriptor> {
    let first = *payload.first()?;
    let mut length = 1;
    let mut next = || {
        let byte = payload.get(length).copied();
        length += 1;
        byte
    };
    let mut picture = None;
    let mut layer = None;
    if first & 0x80 != 0 {
        let flags = next()?;
        if flags & 0x80 != 0 {
            let high = next()?;
            picture = Some(if high & 0x80 != 0 {
                PictureId { value: u16::from(high & 0x7f) << 8 | u16::from(next()?), mask: 0x7fff }
            } else {
                PictureId { value: u16::from(high), mask: 0x7f }
            });
        }
        let base = if flags & 0x40 != 0 { Some(next()?) } else { None };
        if flags & 0x30 != 0 {
            let byte = next()?;
            // RFC 7741: TL0PICIDX has meaning only together with TID.
            if let Some(base) = base
                && flags & 0x20 != 0
            {
                layer = Some(TemporalLayer {
                    id: byte >> 6,
                    base,
                    needs_base_only: byte & 0x20 != 0,
                    switching_up: false,
                });
            }
        }
    }
    let dependencies = Dependencies { picture, layer, discardable: first & 0x20 != 0, references: None };
    Some(Descriptor { start_of_partition: first & 0x10 != 0, partition: first & 0x07, dependencies, length })
}

/// What one packet tells of its frame.
pub fn dependencies(payload: &[u8]) -> Dependencies {
    descriptor(payload).map(|descriptor| descriptor.dependencies).unwrap_or_default()
}

/// Joins the packets of one frame.
pub fn frame<'a>(packets: impl Iterator<Item = &'a [u8]> + Clone) -> Result<Depacketised, Malformed> {
    let mut data = Vec::with_capacity(packets.clone().map(<[u8]>::len).sum());
    let mut told = None;
    for payload in packets {
        let descriptor = descriptor(payload).ok_or(Malformed::CutOff)?;
        let starts = descriptor.start_of_partition && descriptor.partition == 0;
        match (told.is_none(), starts) {
            (true, false) => return Err(Malformed::NotAtStart),
            (false, true) => return Err(Malformed::SecondStart),
            (true, true) => told = Some(descriptor.dependencies),
            (false, false) => {}
        }
        let media = payload.get(descriptor.length..).filter(|media| !media.is_empty());
        data.extend_from_slice(media.ok_or(Malformed::CutOff)?);
    }
    let key = data.first().ok_or(Malformed::Empty)? & 1 == 0;
    let size = if key { Some(key_frame_size(&data).ok_or(Malformed::KeyFrameHeader)?) } else { None };
    let dependencies = told.unwrap_or_default();
    Ok(Depacketised { data, key, size, dependencies, start_is_certain: true, ..Default::default() })
}

/// Width and height of a key frame, without the scaling hints (RFC 6386 §9.1).
pub fn key_frame_size(frame: &[u8]) -> Option<(u32, u32)> {
    let head = frame.get(..10)?;
    if head[0] & 1 != 0 || head[3..6] != [0x9d, 0x01, 0x2a] {
        return None;
    }
    let side = |low: u8, high: u8| u32::from(u16::from_le_bytes([low, high]) & 0x3fff);
    plausible(side(head[6], head[7]), side(head[8], head[9]))
}
