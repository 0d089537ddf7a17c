//! The journal's lines.

use serde::{Deserialize, Serialize};

use super::{
    AudioFormat, CallKind, ClockFit, ClockPoint, EndReason, Event, GapCause, IntegrityProblem, LeaveReason,
    Ledger, Manifest, MediaState, Open, OpenedBecause, RecorderInfo, Recovery, Resolution, Room, Rotation,
    Seconds, Segment, SessionState, Utc, VideoFormat,
};
use crate::ids::{ParticipantId, SessionId, TrackId};
use crate::media::{Codec, MediaKind, Source};

/// One line of `journal.jsonl`. Applying all lines in order gives the manifest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "snake_case")]
pub enum Record {
    /// Always the first line.
    SessionOpened(SessionOpened),
    /// A process took the session up; ties session time to its clocks.
    ProcessStarted(ProcessStarted),
    ParticipantAdded {
        participant: ParticipantId,
        user_id: Option<String>,
        device_id: Option<String>,
        party_id: Option<String>,
        display_name: Option<String>,
    },
    /// What became known later; null leaves what was known.
    ParticipantRenamed {
        participant: ParticipantId,
        #[serde(default)]
        user_id: Option<String>,
        #[serde(default)]
        device_id: Option<String>,
        #[serde(default)]
        party_id: Option<String>,
        #[serde(default)]
        display_name: Option<String>,
    },
    PresenceBegan {
        participant: ParticipantId,
        at_s: Seconds,
    },
    PresenceEnded {
        participant: ParticipantId,
        at_s: Seconds,
        reason: Option<Open<LeaveReason>>,
    },
    TrackAdded {
        participant: ParticipantId,
        track: TrackId,
        source: Open<Source>,
        kind: Open<MediaKind>,
    },
    StateBegan {
        track: TrackId,
        at_s: Seconds,
        state: Open<MediaState>,
    },
    StateEnded {
        track: TrackId,
        at_s: Seconds,
        state: Open<MediaState>,
    },
    SegmentOpened(SegmentOpened),
    /// How far a segment has come; each replaces the one before.
    SegmentProgress(SegmentProgress),
    Gap {
        file: String,
        from_s: Seconds,
        to_s: Seconds,
        cause: Open<GapCause>,
    },
    /// The segment's final form; `file` and `segment.file` are the same.
    SegmentClosed {
        file: String,
        segment: Box<Segment>,
    },
    Event(Event),
    /// Takes the place of the last `replaces` events of the same kind, participant and track.
    EventsMerged {
        replaces: u32,
        event: Event,
    },
    RecoveryDone(Recovery),
    SessionEnded {
        ended_s: Seconds,
        end_reason: Open<EndReason>,
        stopped_by: Option<String>,
        state: Open<SessionState>,
    },
    Sha256 {
        file: String,
        sha256: String,
    },
    Verified {
        verified: Option<bool>,
        problems: Vec<IntegrityProblem>,
    },
    /// Everything told so far in one line: written where lines before it could not be, so that none is
    /// missed.
    Checkpoint {
        manifest: Box<Manifest>,
    },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SessionOpened {
    pub session_id: SessionId,
    pub call_id: String,
    pub call_kind: Open<CallKind>,
    pub room: Room,
    /// Session time zero, UTC.
    pub epoch: Utc,
    /// `/proc/sys/kernel/random/boot_id` of that time, empty if there is none.
    pub boot_id: String,
    /// `epoch` on the monotonic clock of that boot, nanoseconds.
    pub boot_time_ns: u64,
    pub started_by: Option<String>,
    pub continues: Option<SessionId>,
    pub recorder: RecorderInfo,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProcessStarted {
    pub boot_id: String,
    pub boot_time_ns: u64,
    pub utc: Utc,
    /// Session time of that instant.
    pub at_s: Seconds,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SegmentOpened {
    pub track: TrackId,
    pub file: String,
    pub codec: Open<Codec>,
    /// Provisional.
    pub start_s: Seconds,
    pub opened_because: Open<OpenedBecause>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_uncertain_s: Option<Seconds>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub video: Option<VideoFormat>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audio: Option<AudioFormat>,
}

/// Totals since the segment was opened. What is `None` has not changed since the last line that said it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SegmentProgress {
    pub file: String,
    pub end_s: Seconds,
    pub media_seconds: Seconds,
    pub frames: u64,
    pub bytes: u64,
    #[serde(default)]
    pub dtx_s: Seconds,
    pub ledger: Ledger,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_map: Option<Vec<ClockPoint>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock: Option<ClockFit>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolutions: Option<Vec<Resolution>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotations: Option<Vec<Rotation>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audio: Option<AudioFormat>,
}

impl SegmentProgress {
    /// Leaves out what `segment` has already; false if nothing at all is new.
    pub fn strip_unchanged(&mut self, segment: &Segment) -> bool {
        fn keep_new<T: PartialEq>(value: &mut Option<T>, known: Option<&T>) -> bool {
            if value.as_ref() == known {
                *value = None;
            }
            value.is_some()
        }
        let video = segment.video.as_ref();
        let parts = [
            keep_new(&mut self.clock_map, Some(&segment.clock_map)),
            keep_new(&mut self.clock, Some(&segment.clock)),
            keep_new(&mut self.resolutions, video.map(|video| &video.resolutions)),
            keep_new(&mut self.rotations, video.map(|video| &video.rotations)),
            keep_new(&mut self.audio, segment.audio.as_ref()),
        ];
        let totals = (self.end_s, self.media_seconds, self.frames, self.bytes, self.dtx_s, &self.ledger);
        let known = (
            segment.end_s,
            segment.media_seconds,
            segment.frames,
            segment.bytes,
            segment.dtx_s,
            &segment.ledger,
        );
        parts.contains(&true) || totals != known
    }

    /// Takes what `earlier` said and this one does not, so that `earlier` need not be written.
    pub fn absorb(&mut self, earlier: Self) {
        self.clock_map = self.clock_map.take().or(earlier.clock_map);
        self.clock = self.clock.take().or(earlier.clock);
        self.resolutions = self.resolutions.take().or(earlier.resolutions);
        self.rotations = self.rotations.take().or(earlier.rotations);
        self.audio = self.audio.take().or(earlier.audio);
    }
}

impl Record {
    /// The journal's line: JSON and a newline.
    pub fn to_line(&self) -> Vec<u8> {
        let mut line = serde_json::to_vec(self).expect("keys are strings and no value refuses to be written");
        line.push(b'\n');
        line
    }

    /// Worth writing at once: openings, closings, ends. The rest may wait for the next second.
    pub fn is_structural(&self) -> bool {
        !matches!(self, Self::SegmentProgress(_) | Self::Event(_) | Self::EventsMerged { .. })
    }
}

impl From<SessionOpened> for Manifest {
    fn from(opened: SessionOpened) -> Self {
        Self {
            schema: super::SCHEMA.to_owned(),
            recorder: opened.recorder,
            session_id: opened.session_id,
            continues: opened.continues,
            call_id: opened.call_id,
            call_kind: opened.call_kind,
            room: opened.room,
            state: SessionState::Recording.into(),
            recoveries: Vec::new(),
            epoch: opened.epoch,
            ended_s: None,
            started_by: opened.started_by,
            stopped_by: None,
            end_reason: None,
            participants: Vec::new(),
            events: Vec::new(),
            integrity: super::Integrity::default(),
        }
    }
}
