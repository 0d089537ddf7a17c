//! VP9 out of RTP (RFC 9628 §4) and its uncompressed header (VP9 bitstream specification §6.2).

use crate::rtp::bits::Bits;
use crate::rtp::depacketise::{
    Depacketised, Dependencies, Malformed, PictureId, References, TemporalLayer, plausible,
};

/// A superframe index counts at most eight frames (VP9 specification, annex B).
const MAX_LAYER_FRAMES: usize = 8;

/// The payload descriptor (RFC 9628 §4.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Descriptor {
    pub inter_picture: bool,
    pub flexible: bool,
    pub start_of_frame: bool,
    pub end_of_frame: bool,
    pub spatial_layer: u8,
    pub inter_layer: bool,
    /// Size of the highest spatial layer, if the scalability structure is present and says it.
    pub size: Option<(u32, u32)>,
    pub dependencies: Dependencies,
    /// Bytes of the descriptor.
    pub length: usize,
}

struct Reader<'a> {
    data: &'a [u8],
    position: usize,
}

impl Reader<'_> {
    fn byte(&mut self) -> Option<u8> {
        let byte = self.data.get(self.position).copied()?;
        self.position += 1;
        Some(byte)
    }

    fn word(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes([self.byte()?, self.byte()?]))
    }
}

/// Reads the descriptor; `None` if it is cut off.
pub fn descriptor(payload: &[u8]) -> Option<Descriptor> {
    let mut reader = Reader { data: payload, position: 0 };
    let flags = reader.byte()?;
    let mut out = Descriptor {
        inter_picture: flags & 0x40 != 0,
        flexible: flags & 0x10 != 0,
        start_of_frame: flags & 0x08 != 0,
        end_of_frame: flags & 0x04 != 0,
        ..Default::default()
    };
    if flags & 0x80 != 0 {
        let high = reader.byte()?;
        out.dependencies.picture = Some(if high & 0x80 != 0 {
            PictureId { value: u16::from(high & 0x7f) << 8 | u16::from(reader.byte()?), mask: 0x7fff }
        } else {
            PictureId { value: u16::from(high), mask: 0x7f }
        });
    }
    if flags & 0x20 != 0 {
        let byte = reader.byte()?;
        out.spatial_layer = byte >> 1 & 0x07;
        out.inter_layer = byte & 1 != 0;
        if !out.flexible {
            out.dependencies.layer = Some(TemporalLayer {
                id: byte >> 5,
                base: reader.byte()?,
                needs_base_only: false,
                switching_up: byte & 0x10 != 0,
            });
        }
    }
    if out.flexible {
        let mut references = References::default();
        if out.inter_picture {
            // Up to three, each but the last with N = 1.
            for _ in 0..3 {
                let byte = reader.byte()?;
                references.push(byte >> 1);
                if byte & 1 == 0 {
                    break;
                }
            }
        }
        out.dependencies.references = Some(references);
    }
    if flags & 0x02 != 0 {
        out.size = scalability_structure(&mut reader)?;
    }
    out.length = reader.position;
    Some(out)
}

/// Passes over the scalability structure; the size of its last layer.
fn scalability_structure(reader: &mut Reader<'_>) -> Option<Option<(u32, u32)>> {
    let head = reader.byte()?;
    let mut size = None;
    if head & 0x10 != 0 {
        for _ in 0..=(head >> 5) {
            size = plausible(u32::from(reader.word()?), u32::from(reader.word()?));
        }
    }
    if head & 0x08 != 0 {
        for _ in 0..reader.byte()? {
            let picture = reader.byte()?;
            for _ in 0..(picture >> 2 & 0x03) {
                reader.byte()?;
            }
        }
    }
    Some(size)
}

/// What one packet tells of its picture.
pub fn dependencies(payload: &[u8]) -> Dependencies {
    descriptor(payload).map(|descriptor| descriptor.dependencies).unwrap_or_default()
}

/// Joins the packets of one picture. Spatial layers lie one after the other, and if there is more than one, a
/// superframe index is added, without which decoders see only the first (VP9 specification, annex B). A picture of
/// one layer is untouched.
pub fn frame<'a>(packets: impl Iterator<Item = &'a [u8]> + Clone) -> Result<Depacketised, Malformed> {
    let mut data = Vec::with_capacity(packets.clone().map(<[u8]>::len).sum());
    let mut starts = [0usize; MAX_LAYER_FRAMES];
    let mut layers = 0usize;
    let mut inside = false;
    let mut told: Option<Descriptor> = None;
    for payload in packets {
        let descriptor = descriptor(payload).ok_or(Malformed::CutOff)?;
        match (inside, descriptor.start_of_frame) {
            (false, false) => {
                return Err(if layers == 0 { Malformed::NotAtStart } else { Malformed::Fragment });
            }
            (true, true) => return Err(Malformed::Fragment),
            (false, true) => {
                *starts.get_mut(layers).ok_or(Malformed::SecondStart)? = data.len();
                layers += 1;
                merge(&mut told, &descriptor)?;
            }
            (true, false) => {}
        }
        let media = payload.get(descriptor.length..).filter(|media| !media.is_empty());
        data.extend_from_slice(media.ok_or(Malformed::CutOff)?);
        inside = !descriptor.end_of_frame;
    }
    let told = told.ok_or(Malformed::Empty)?;
    if inside {
        return Err(Malformed::NotAtEnd);
    }
    let (key, coded_size) = match key_frame(&data) {
        KeyFrame::Yes(size) => (true, Some(size)),
        KeyFrame::No => (false, None),
        KeyFrame::Broken => return Err(Malformed::KeyFrameHeader),
    };
    let size = if key { told.size.filter(|_| layers > 1).or(coded_size) } else { None };
    if layers > 1 {
        put_superframe_index(&mut data, &starts[..layers]);
    }
    let mut dependencies = told.dependencies;
    // Some senders never set P. A shown frame that is no key frame always refers to others, so they prove nothing.
    if !key && !told.inter_picture {
        dependencies.references = None;
    }
    let start_is_certain = told.spatial_layer == 0;
    Ok(Depacketised { data, key, size, dependencies, start_is_certain, ..Default::default() })
}

/// Adds a further layer frame of the same picture to what the first one told.
fn merge(told: &mut Option<Descriptor>, next: &Descriptor) -> Result<(), Malformed> {
    let Some(first) = told else {
        if next.spatial_layer > 0 && next.inter_layer {
            return Err(Malformed::NotAtStart);
        }
        *told = Some(*next);
        return Ok(());
    };
    if next.dependencies.picture != first.dependencies.picture || next.spatial_layer <= first.spatial_layer {
        return Err(Malformed::SecondStart);
    }
    if let (Some(all), Some(more)) = (&mut first.dependencies.references, next.dependencies.references) {
        more.iter().for_each(|distance| all.push(distance));
    }
    first.size = next.size.or(first.size);
    Ok(())
}

enum KeyFrame {
    Yes((u32, u32)),
    No,
    Broken,
}

fn key_frame(frame: &[u8]) -> KeyFrame {
    let mut bits = Bits::new(frame);
    let read = (|| {
        if bits.take(2)? != 2 {
            return None;
        }
        let profile = bits.take(1)? | bits.take(1)? << 1;
        if profile == 3 && bits.bit()? {
            return None;
        }
        if bits.bit()? {
            return Some(KeyFrame::No);
        }
        if bits.bit()? {
            return Some(KeyFrame::No);
        }
        bits.skip(2)?;
        if bits.take(24)? != 0x49_8342 {
            return None;
        }
        if profile >= 2 {
            bits.skip(1)?;
        }
        let srgb = bits.take(3)? == 7;
        match (srgb, profile & 1 == 1) {
            (false, subsampling) => bits.skip(if subsampling { 4 } else { 1 })?,
            (true, true) => bits.skip(1)?,
            (true, false) => return None,
        }
        let width = bits.take(16)? + 1;
        let height = bits.take(16)? + 1;
        plausible(width, height).map(KeyFrame::Yes)
    })();
    read.unwrap_or(KeyFrame::Broken)
}

/// Width and height of a key frame's uncompressed header, profiles 0 to 3; `None` for any other frame.
pub fn key_frame_size(frame: &[u8]) -> Option<(u32, u32)> {
    match key_frame(frame) {
        KeyFrame::Yes(size) => Some(size),
        KeyFrame::No | KeyFrame::Broken => None,
    }
}

fn put_superframe_index(data: &mut Vec<u8>, starts: &[usize]) {
    let end = data.len();
    let marker = 0xc0 | 3 << 3 | (starts.len() as u8 - 1);
    data.push(marker);
    for (index, start) in starts.iter().enumerate() {
        let length = starts.get(index + 1).unwrap_or(&end) - start;
        data.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
    }
    data.push(marker);
}
