//! AV1 out of RTP (RTP Payload Format for AV1 v1.0, §4) into a temporal unit for Matroska (AV1-in-Matroska mapping):
//! low-overhead OBUs, each with its size, no temporal delimiters, no tile lists.

use std::sync::Arc;

use crate::rtp::bits::{Bits, leb128, put_leb128};
use crate::rtp::depacketise::{Depacketised, Malformed, ParameterSets, plausible};

const SEQUENCE_HEADER: u8 = 1;
const TEMPORAL_DELIMITER: u8 = 2;
const FRAME_HEADER: u8 = 3;
const FRAME: u8 = 6;
const TILE_LIST: u8 = 8;

/// Joins the packets of one temporal unit.
pub fn frame<'a>(packets: impl Iterator<Item = &'a [u8]> + Clone) -> Result<Depacketised, Malformed> {
    let room: usize = packets.clone().map(|payload| payload.len() + 4).sum();
    let mut unit = Unit { data: Vec::with_capacity(room), ..Default::default() };
    // An OBU that goes on in the next packet.
    let mut open: Option<Vec<u8>> = None;
    let mut first = true;
    let mut begins_sequence = false;
    for payload in packets {
        let (&aggregation, mut rest) = payload.split_first().ok_or(Malformed::CutOff)?;
        let continues = aggregation & 0x80 != 0;
        let goes_on = aggregation & 0x40 != 0;
        let count = usize::from(aggregation >> 4 & 0x03);
        if first {
            if continues {
                return Err(Malformed::NotAtStart);
            }
            begins_sequence = aggregation & 0x08 != 0;
            first = false;
        } else if continues != open.is_some() {
            return Err(Malformed::Fragment);
        }
        if rest.is_empty() {
            return Err(Malformed::CutOff);
        }
        let mut index = 0;
        while !rest.is_empty() {
            index += 1;
            let length = if count != 0 && index == count {
                rest.len()
            } else {
                let (length, used) = leb128(rest).ok_or(Malformed::CutOff)?;
                rest = &rest[used..];
                length
            };
            if length > rest.len() {
                return Err(Malformed::CutOff);
            }
            let (element, after) = rest.split_at(length);
            rest = after;
            let unfinished = rest.is_empty() && goes_on;
            match (open.take(), unfinished) {
                (None, false) => unit.put(element)?,
                (None, true) => {
                    let mut obu = Vec::with_capacity(room);
                    obu.extend_from_slice(element);
                    open = Some(obu);
                }
                (Some(mut obu), unfinished) => {
                    obu.extend_from_slice(element);
                    if unfinished {
                        open = Some(obu);
                    } else {
                        unit.put(&obu)?;
                    }
                }
            }
        }
        if count != 0 && index != count {
            return Err(Malformed::CutOff);
        }
    }
    if open.is_some() {
        return Err(Malformed::NotAtEnd);
    }
    if unit.data.is_empty() {
        return Err(Malformed::Empty);
    }
    let key = unit.first_frame_is_key && unit.sequence_header.is_some();
    let size = unit.sequence_header.as_deref().filter(|_| key).and_then(sequence_header_size);
    let parameter_sets = unit
        .sequence_header
        .filter(|_| key)
        .map(|sequence_header| Arc::new(ParameterSets::Av1 { sequence_header }));
    Ok(Depacketised {
        data: unit.data,
        key,
        size,
        parameter_sets,
        // N = 1: the first packet of a coded video sequence.
        start_is_certain: begins_sequence,
        ..Default::default()
    })
}

#[derive(Default)]
struct Unit {
    data: Vec<u8>,
    sequence_header: Option<Vec<u8>>,
    seen_frame: bool,
    first_frame_is_key: bool,
}

impl Unit {
    /// Appends one OBU with a size field of its own.
    fn put(&mut self, obu: &[u8]) -> Result<(), Malformed> {
        let Some((&header, mut body)) = obu.split_first() else { return Ok(()) };
        if header & 0x80 != 0 {
            return Err(Malformed::Unsupported);
        }
        let mut extension = None;
        if header & 0x04 != 0 {
            let (&byte, rest) = body.split_first().ok_or(Malformed::CutOff)?;
            extension = Some(byte);
            body = rest;
        }
        if header & 0x02 != 0 {
            let (length, used) = leb128(body).ok_or(Malformed::CutOff)?;
            body = body.get(used..).and_then(|body| body.get(..length)).ok_or(Malformed::CutOff)?;
        }
        let kind = header >> 3 & 0x0f;
        if kind == TEMPORAL_DELIMITER || kind == TILE_LIST {
            return Ok(());
        }
        let start = self.data.len();
        self.data.push(header | 0x02);
        self.data.extend(extension);
        put_leb128(&mut self.data, body.len());
        self.data.extend_from_slice(body);
        match kind {
            SEQUENCE_HEADER if self.sequence_header.is_none() => {
                self.sequence_header = Some(self.data[start..].to_vec());
            }
            FRAME | FRAME_HEADER if !self.seen_frame => {
                self.seen_frame = true;
                // show_existing_frame = 0, frame_type = KEY_FRAME, show_frame = 1 (AV1 §5.9.2); a still picture has none.
                let head = body.first().copied().unwrap_or(0xff);
                let still = self.sequence_header.as_deref().is_some_and(is_reduced_still_picture);
                self.first_frame_is_key = still || head & 0xf0 == 0x10;
            }
            _ => {}
        }
        Ok(())
    }
}

fn sequence_header_body(obu: &[u8]) -> Option<&[u8]> {
    let (&header, mut body) = obu.split_first()?;
    if header & 0x04 != 0 {
        body = body.get(1..)?;
    }
    if header & 0x02 != 0 {
        let (length, used) = leb128(body)?;
        body = body.get(used..)?.get(..length)?;
    }
    Some(body)
}

fn is_reduced_still_picture(obu: &[u8]) -> bool {
    sequence_header_body(obu).and_then(|body| body.first()).is_some_and(|byte| byte & 0x08 != 0)
}

/// Largest width and height of a sequence header OBU (AV1 specification §5.5).
pub fn sequence_header_size(obu: &[u8]) -> Option<(u32, u32)> {
    let mut bits = Bits::new(sequence_header_body(obu)?);
    bits.skip(4)?;
    if bits.bit()? {
        bits.skip(5)?;
    } else {
        let mut delay_length = None;
        if bits.bit()? {
            bits.skip(64)?;
            if bits.bit()? {
                bits.uvlc()?;
            }
            if bits.bit()? {
                delay_length = Some(bits.take(5)? + 1);
                bits.skip(32 + 5 + 5)?;
            }
        }
        let display_delay = bits.bit()?;
        for _ in 0..=bits.take(5)? {
            bits.skip(12)?;
            if bits.take(5)? > 7 {
                bits.skip(1)?;
            }
            if let Some(length) = delay_length
                && bits.bit()?
            {
                bits.skip(2 * length + 1)?;
            }
            if display_delay && bits.bit()? {
                bits.skip(4)?;
            }
        }
    }
    let width_bits = bits.take(4)? + 1;
    let height_bits = bits.take(4)? + 1;
    plausible(bits.take(width_bits)? + 1, bits.take(height_bits)? + 1)
}
