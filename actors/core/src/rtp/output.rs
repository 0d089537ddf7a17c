//! What a receiver hands out: frames with all that the container and the manifest want to know.

use std::sync::Arc;

use crate::rtp::depacketise::ParameterSets;
use crate::time::BootTime;

/// What a receiver has to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReceiverOutput {
    Frame(EncodedFrame),
    /// A frame was just withheld that only a key frame can cure. Repeated each `key_frame_retry` while frames are
    /// being withheld; silent while nothing arrives.
    KeyFrameWanted,
    /// The next frame belongs to a new segment; call [`TrackReceiver::split`](crate::rtp::TrackReceiver::split) before the next `poll`.
    FormatChanged(FormatChange),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FormatChange {
    /// H.264 or H.265 parameter sets differ from those of the segment so far.
    ParameterSets,
    /// The sender's RTP clock began anew: the times of the next frames have nothing to do with those before.
    RtpClock,
}

/// One frame as the encoder made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedFrame {
    /// RTP time unwrapped to 64 bits, in units of the clock rate; strictly increasing until a `FormatChange::RtpClock`.
    pub rtp_time: i64,
    /// Earliest and latest arrival of its packets.
    pub first_arrival: BootTime,
    pub last_arrival: BootTime,
    /// Decoding can begin here; true for every audio frame.
    pub key: bool,
    /// Opus packet; VP8 frame; VP9 picture with all spatial layers; AV1 temporal unit of OBUs with sizes and without
    /// temporal delimiters; H.264 and H.265 access unit with four-byte lengths, parameter sets in place.
    pub data: Vec<u8>,
    /// Packets it came in, for the ledger.
    pub packets: u32,
    /// On key frames of video.
    pub video: Option<VideoFacts>,
    /// Clockwise degrees, if one of its packets told.
    pub rotation: Option<u16>,
    pub audio: Option<OpusFacts>,
    /// Something between the frame before and this one was lost or withheld.
    pub discontinuity: bool,
}

/// What a key frame says of the pictures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VideoFacts {
    /// Pixels; 0 if the header could not be read.
    pub width: u32,
    pub height: u32,
    /// H.264, H.265 and AV1.
    pub parameter_sets: Option<Arc<ParameterSets>>,
}

/// What an Opus packet says of its sound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpusFacts {
    pub channels: u8,
    /// Samples at 48 kHz; 0 if the packet is malformed.
    pub duration_samples: u32,
    /// The packet codes no sound.
    pub dtx: bool,
    /// Samples at 48 kHz that the sender left out before this packet (DTX): no packet is missing in between.
    pub silence_samples: u64,
}
