//! Matroska and WebM (RFC 9559, WebM container guidelines): one track, bytes out, never a file.
//!
//! What is written survives being cut anywhere: the segment has no size until the end, clusters are short, of
//! known size and emitted whole. `repair` brings a cut file to what a clean end would have made of it.

mod bits;
mod codec_private;
mod codec_private_h26x;
mod cues;
mod ebml;
mod header;
mod repair;
mod repair_header;
mod repair_scan;
mod writer;

use thiserror::Error;

pub use codec_private::{av1c, opus_head, vp9_codec_private};
pub use codec_private_h26x::{avcc, hvcc};
pub use repair::{HeaderFacts, ReadAt, RepairError, RepairPlan, fuzz_scan, scan};
pub use writer::{Finished, MatroskaWriter};

use crate::media::Codec;

/// Longest frame that is written, bytes. A 4K key frame has a few MiB at most.
pub const MAX_FRAME: usize = 32 << 20;
/// A cluster is ended before it holds more than this, unless a single frame is larger.
pub const MAX_CLUSTER: usize = 1 << 20;
/// Media time after which the next frame opens a new cluster, milliseconds.
pub const CLUSTER_SPAN_MS: u64 = 500;
/// Age from which a video key frame opens a new cluster, so that players seek to the head of one,
/// milliseconds.
pub const KEY_CLUSTER_MS: u64 = 250;

/// Sound as the track header states it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AudioFormat {
    pub channels: u8,
    /// Hz. For Opus the output rate, 48,000 (RFC 7845 §5.1).
    pub sample_rate: u32,
}

/// Picture size in pixels as coded; rotation is not applied and not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VideoFormat {
    pub width: u32,
    pub height: u32,
}

/// All that the file says about itself, so that it can be placed without a manifest.
#[derive(Clone, Debug, PartialEq)]
pub struct TrackHeader {
    pub codec: Codec,
    pub writing_app: String,
    /// For people, such as display name and source. Cleaned of control characters and cut at 512 bytes, as
    /// are all texts of this struct.
    pub title: String,
    pub session_id: String,
    pub participant: String,
    pub source: String,
    /// Session time of the first block, seconds, as known when the file is opened.
    pub provisional_start_s: f64,
    /// UTC of the first block in microseconds since 1970 (`DateUTC`).
    pub epoch_utc_micros: Option<i64>,
    /// Not 0; 0 is written as 1.
    pub track_uid: u64,
    pub audio: Option<AudioFormat>,
    pub video: Option<VideoFormat>,
    /// Codec initialisation data; for Opus `None` means an `OpusHead` made from `audio`. At most 64 KiB,
    /// longer is left out.
    pub codec_private: Option<Vec<u8>>,
}

/// Bytes that replace as many bytes already written, at an offset from the beginning of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Patch {
    pub offset: u64,
    pub bytes: Vec<u8>,
}

/// What is known only at the end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FinalFacts {
    /// From the first block to the end of the last one, seconds.
    pub duration_s: f64,
}

/// Why a frame was not written. Nothing of it is in the output, and the writer goes on.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum MuxError {
    #[error("a frame at {timestamp_ms} ms cannot follow one at {last_ms} ms")]
    StepBack { last_ms: u64, timestamp_ms: u64 },
    #[error("a frame of {bytes} bytes is larger than any that is written")]
    FrameTooLarge { bytes: usize },
    #[error("a frame without bytes cannot be written")]
    EmptyFrame,
}
