//! A segment: one media file, where it lies on the session's clock, and what is missing in it.

use serde::{Deserialize, Serialize};

use super::{Ledger, Open, Ppm, Seconds};
use crate::media::Codec;

/// Why a file was begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OpenedBecause {
    First,
    CodecChanged,
    NewSsrc,
    ParameterSetsChanged,
    SourceOn,
    Reconnected,
    WriterRestarted,
    ProcessRestarted,
    DiskResumed,
    OptedIn,
}

/// The likeliest reason for at least a second without decodable media.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GapCause {
    Muted,
    Held,
    SourceOff,
    Silence,
    Loss,
    Reconnect,
    KeyMissing,
    Disk,
    Restart,
    OptedOut,
}

/// What the clock map stands on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClockMethod {
    SenderReports,
    Arrival,
}

/// One point of the piecewise linear, monotonic map from file time to session time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockPoint {
    pub media_s: Seconds,
    pub session_s: Seconds,
    pub error_s: Seconds,
}

/// How the clock map was found: session time ≈ `offset_s` + file time × (1 + `drift_ppm` / 10^6).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockFit {
    pub method: Open<ClockMethod>,
    /// Sender reports used.
    pub sender_reports: u64,
    /// Session time of the first block by the fitted line.
    pub offset_s: Seconds,
    pub drift_ppm: Ppm,
    /// Root mean square of the points' distances from the map.
    pub residual_s: Seconds,
    /// No point lies farther off than this, the part that cannot be known included.
    pub error_bound_s: Seconds,
}

impl Default for ClockFit {
    fn default() -> Self {
        Self {
            method: ClockMethod::Arrival.into(),
            sender_reports: 0,
            offset_s: Seconds::ZERO,
            drift_ppm: Ppm::default(),
            residual_s: Seconds::ZERO,
            error_bound_s: Seconds::ZERO,
        }
    }
}

/// An interval without decodable media in the file, session time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    pub from_s: Seconds,
    pub to_s: Seconds,
    pub cause: Open<GapCause>,
}

/// A picture size in pixels, from this session time on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolution {
    pub at_s: Seconds,
    pub width: u32,
    pub height: u32,
}

/// How far the picture is to be turned clockwise for display, from this session time on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rotation {
    pub at_s: Seconds,
    pub degrees: u16,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct VideoFormat {
    pub resolutions: Vec<Resolution>,
    pub rotations: Vec<Rotation>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AudioFormat {
    pub channels: u8,
    /// Hz.
    pub sample_rate: u32,
}

/// One media file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// Name within the session's folder; unique there.
    pub file: String,
    pub codec: Open<Codec>,
    /// Session time of the first block: the clock map at 0.
    pub start_s: Seconds,
    /// Session time at which the last block ends.
    pub end_s: Seconds,
    /// Seconds of media in the file: holes are not counted.
    #[serde(default)]
    pub media_seconds: Seconds,
    #[serde(default)]
    pub frames: u64,
    #[serde(default)]
    pub bytes: u64,
    #[serde(default)]
    pub sha256: Option<String>,
    /// The clock map has been computed from all evidence; nothing will change but `sha256`.
    #[serde(rename = "final", default)]
    pub is_final: bool,
    pub opened_because: Open<OpenedBecause>,
    #[serde(default)]
    pub clock_map: Vec<ClockPoint>,
    #[serde(default)]
    pub clock: ClockFit,
    #[serde(default)]
    pub ledger: Ledger,
    #[serde(default)]
    pub gaps: Vec<Gap>,
    #[serde(default)]
    pub dtx_s: Seconds,
    /// How far session times may be off after a reboot, where only UTC ties the boots together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_uncertain_s: Option<Seconds>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub video: Option<VideoFormat>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audio: Option<AudioFormat>,
}

impl Segment {
    /// Session time of a moment of the file: the clock map, continued beyond its ends with the slope 1.
    pub fn session_time(&self, media: Seconds) -> Seconds {
        let map = &self.clock_map;
        let after = map.partition_point(|point| point.media_s <= media);
        let Some(from) = after.checked_sub(1).and_then(|index| map.get(index)) else {
            let origin = map.first().copied();
            let (at, session) = origin.map_or((Seconds::ZERO, self.start_s), |p| (p.media_s, p.session_s));
            return session + media - at;
        };
        let past = media - from.media_s;
        match map.get(after) {
            None => from.session_s + past,
            Some(to) => {
                let share = past.as_f64() / (to.media_s - from.media_s).as_f64();
                from.session_s + Seconds::new((to.session_s - from.session_s).as_f64() * share)
            }
        }
    }
}
