//! What the depacketisers of all video codecs share: their result, their errors, the dependency information.

use std::sync::Arc;

use crate::media::{Codec, RtpPacket};
use crate::rtp::{av1, h264, h265, vp8, vp9};

/// Why packets do not make a frame. Broken media is data: it ends in the ledger, not in a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("payload descriptor or unit is cut off")]
    CutOff,
    #[error("first packet does not begin a frame")]
    NotAtStart,
    #[error("last packet does not end a frame")]
    NotAtEnd,
    #[error("a fragment has no beginning, or a second one")]
    Fragment,
    #[error("more than one frame under one timestamp")]
    SecondStart,
    #[error("a packet type that was not negotiated")]
    Unsupported,
    #[error("key frame header is broken")]
    KeyFrameHeader,
    #[error("nothing in it")]
    Empty,
}

/// What a decoder has to know before the first frame, as received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ParameterSets {
    /// NAL units without length or start code, in order of their ids.
    H264 {
        sps: Vec<Vec<u8>>,
        pps: Vec<Vec<u8>>,
    },
    H265 {
        vps: Vec<Vec<u8>>,
        sps: Vec<Vec<u8>>,
        pps: Vec<Vec<u8>>,
    },
    /// The sequence header OBU with its size field, as `av1C` wants it.
    Av1 {
        sequence_header: Vec<u8>,
    },
}

/// One frame out of its packets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Depacketised {
    pub data: Vec<u8>,
    /// Decoding can begin here.
    pub key: bool,
    /// Width and height in pixels; on key frames whose header could be read.
    pub size: Option<(u32, u32)>,
    pub parameter_sets: Option<Arc<ParameterSets>>,
    pub dependencies: Dependencies,
    /// An entry point without parameter sets of its own: a loss before it may have taken them.
    pub leans_on_earlier_sets: bool,
    /// The beginning is certain even if packets before it are missing.
    pub start_is_certain: bool,
}

/// What the payload tells about the frames a frame needs (RFC 7741 §4.2, RFC 9628 §4.2, RFC 6184 §1.3 nal_ref_idc).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dependencies {
    pub picture: Option<PictureId>,
    pub layer: Option<TemporalLayer>,
    /// No other frame needs this one.
    pub discardable: bool,
    /// The pictures it needs, by distance of picture id; `None` where the codec does not list them.
    pub references: Option<References>,
}

/// A picture id of 7 or 15 bits, one more for each picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PictureId {
    pub value: u16,
    pub mask: u16,
}

impl PictureId {
    /// `self` comes directly after `earlier`, which may have been sent with another width.
    pub fn follows(self, earlier: Self) -> bool {
        let mask = self.mask & earlier.mask;
        earlier.value.wrapping_add(1) & mask == self.value & mask
    }
}

/// Place in a temporal layer structure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TemporalLayer {
    pub id: u8,
    /// Running number of the base layer picture that it builds on (TL0PICIDX).
    pub base: u8,
    /// VP8 Y: needs nothing but that base layer picture.
    pub needs_base_only: bool,
    /// VP9 U: later pictures of higher layers need nothing before it above its own layer.
    pub switching_up: bool,
}

/// Distances to reference pictures, of all spatial layers together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct References {
    pub distances: [u8; 16],
    pub count: u8,
    /// There were more than fit; nothing can be concluded.
    pub overflow: bool,
}

impl References {
    pub fn push(&mut self, distance: u8) {
        match self.distances.get_mut(usize::from(self.count)) {
            Some(slot) => {
                *slot = distance;
                self.count += 1;
            }
            None => self.overflow = true,
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = u8> {
        self.distances.iter().take(usize::from(self.count)).copied()
    }
}

/// A depacketiser with what it remembers between frames.
#[derive(Clone, Debug)]
pub enum Depacketiser {
    Vp8,
    Vp9,
    Av1,
    H264(h264::Memory),
    H265(h265::Memory),
}

impl Depacketiser {
    /// `None` for audio, where a packet is a frame.
    pub fn new(codec: Codec) -> Option<Self> {
        match codec {
            Codec::Opus => None,
            Codec::Vp8 => Some(Self::Vp8),
            Codec::Vp9 => Some(Self::Vp9),
            Codec::Av1 => Some(Self::Av1),
            Codec::H264 => Some(Self::H264(h264::Memory::default())),
            Codec::H265 => Some(Self::H265(h265::Memory::default())),
        }
    }

    /// Builds a frame from its packets: all of one timestamp, in sequence, none missing between them.
    pub fn frame(&mut self, packets: &[RtpPacket]) -> Result<Depacketised, Malformed> {
        let payloads = packets.iter().map(|packet| packet.payload.as_slice());
        match self {
            Self::Vp8 => vp8::frame(payloads),
            Self::Vp9 => vp9::frame(payloads),
            Self::Av1 => av1::frame(payloads),
            Self::H264(memory) => h264::frame(payloads, memory),
            Self::H265(memory) => h265::frame(payloads, memory),
        }
    }

    /// What one packet of a frame that is not whole still tells.
    pub fn dependencies(&self, payload: &[u8]) -> Dependencies {
        match self {
            Self::Vp8 => vp8::dependencies(payload),
            Self::Vp9 => vp9::dependencies(payload),
            Self::H264(_) => h264::dependencies(payload),
            Self::Av1 | Self::H265(_) => Dependencies::default(),
        }
    }
}

/// Sizes beyond this are no picture.
pub const MAX_SIDE: u32 = 65_536;

/// A size that can be true.
pub fn plausible(width: u32, height: u32) -> Option<(u32, u32)> {
    ((1..=MAX_SIDE).contains(&width) && (1..=MAX_SIDE).contains(&height)).then_some((width, height))
}
