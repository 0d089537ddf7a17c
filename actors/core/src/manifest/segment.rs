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
        along(&self.clock_map, media, self.start_s, |point| (point.media_s, point.session_s))
    }

    /// Moment of the file at a session time: the clock map the other way round.
    pub fn media_time(&self, session: Seconds) -> Seconds {
        if self.clock_map.is_empty() {
            return session - self.start_s;
        }
        along(&self.clock_map, session, Seconds::ZERO, |point| (point.session_s, point.media_s))
    }

    /// Takes another clock map: all that lies on the session's clock stays where it is in the file.
    pub fn place(&mut self, map: Vec<ClockPoint>, clock: ClockFit) {
        let earlier = self.clone();
        self.start_s = map.first().map_or(self.start_s, |point| point.session_s);
        self.clock_map = map;
        self.clock = clock;
        if self.clock_map == earlier.clock_map {
            return;
        }
        let (mut gaps, mut video) = (std::mem::take(&mut self.gaps), self.video.take());
        let shift = |at: &mut Seconds| *at = self.session_time(earlier.media_time(*at));
        for gap in &mut gaps {
            shift(&mut gap.from_s);
            shift(&mut gap.to_s);
        }
        if let Some(video) = &mut video {
            video.resolutions.iter_mut().for_each(|size| shift(&mut size.at_s));
            video.rotations.iter_mut().for_each(|rotation| shift(&mut rotation.at_s));
        }
        (self.gaps, self.video) = (gaps, video);
    }
}

/// The other side of `at` on a map whose points have two `sides`, both rising.
fn along(
    map: &[ClockPoint],
    at: Seconds,
    origin: Seconds,
    sides: impl Fn(&ClockPoint) -> (Seconds, Seconds),
) -> Seconds {
    let after = map.partition_point(|point| sides(point).0 <= at);
    let Some(from) = after.checked_sub(1).and_then(|index| map.get(index)) else {
        let (here, there) = map.first().map_or((Seconds::ZERO, origin), &sides);
        return there + at - here;
    };
    let (here, there) = sides(from);
    let past = at - here;
    match map.get(after) {
        None => there + past,
        Some(to) => {
            let (here_next, there_next) = sides(to);
            let share = past.as_f64() / (here_next - here).as_f64();
            there + Seconds::new((there_next - there).as_f64() * share)
        }
    }
}
