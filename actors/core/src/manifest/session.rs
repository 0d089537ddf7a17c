//! `session.json`: a session's facts, participants, tracks and events.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{JournalError, Open, Problem, Seconds, Segment, Utc, fold};
use crate::ids::{ParticipantId, SessionId, TrackId};
use crate::media::{MediaKind, Source};

/// The value of `schema`.
pub const SCHEMA: &str = "matrix-call-recorder/session/1";

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CallKind {
    OneToOne,
    Mesh,
    ElementCall,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionState {
    Recording,
    Complete,
    Failed,
}

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// The other side hung up.
    Hangup,
    /// By command.
    Stopped,
    EveryoneLeft,
    /// Nobody of those in the group call could be reached.
    Unreachable,
    /// The group call was ended for everybody (`m.terminated`).
    Terminated,
    /// The daemon was stopped in order.
    Shutdown,
    /// The daemon ended without a farewell and was started again.
    Restarted,
    DiskFull,
    ConnectionLost,
    /// The one participant of a 1:1 call does not want to be recorded.
    OptedOut,
    /// People in the call could not be told of it.
    NotAnnounced,
    /// The room's power levels keep the recorder out of its calls.
    NotPermitted,
    /// As many calls as may be were being recorded.
    TooManyCalls,
    /// The recorder was removed from the room.
    Removed,
    RoomUpgraded,
    /// A defect of the recorder.
    Failed,
}

/// Why a stay ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeaveReason {
    Left,
    Hangup,
    ConnectionLost,
    Expired,
    Removed,
    /// Gone when the recorder came back from a restart; the stay ends where the recorder last knew of it.
    Restarted,
    SessionEnded,
}

/// What a sender's signalling says of a track; media may arrive nevertheless.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MediaState {
    Muted,
    Held,
    SourceOff,
    OptedOut,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    Joined,
    Left,
    Muted,
    Unmuted,
    CameraOn,
    CameraOff,
    ScreenOn,
    ScreenOff,
    Held,
    Unheld,
    DeviceChanged,
    Renegotiated,
    IceRestarted,
    Disconnected,
    Connected,
    ChildRestarted,
    DiskLow,
    DiskResumed,
    Command,
    Consent,
    OptedOut,
    OptedIn,
    /// Nothing arrives from a participant whose connection is up and who should send, and again something does.
    Stalled,
    Flowing,
    /// What came was lost before it could be read; `detail` says how much and where.
    DatagramsDropped,
    Warning,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecorderInfo {
    pub name: String,
    pub version: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Room {
    pub id: String,
    pub name: Option<String>,
    pub encrypted: bool,
}

/// A time at which the recorder was started again and mended what it found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovery {
    pub at_s: Seconds,
    /// Upper bound of the media lost.
    pub lost_at_most_s: Seconds,
    /// Files that were changed.
    pub repaired: Vec<String>,
}

/// One stay in the call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Presence {
    pub joined_s: Seconds,
    pub left_s: Option<Seconds>,
    pub reason: Option<Open<LeaveReason>>,
}

/// An interval of a signalled state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrackState {
    pub from_s: Seconds,
    pub to_s: Option<Seconds>,
    pub state: Open<MediaState>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Track {
    pub id: TrackId,
    pub source: Open<Source>,
    pub kind: Open<MediaKind>,
    #[serde(default)]
    pub states: Vec<TrackState>,
    #[serde(default)]
    pub segments: Vec<Segment>,
}

/// One device of one user. What is not known is null.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Participant {
    pub id: ParticipantId,
    pub user_id: Option<String>,
    pub device_id: Option<String>,
    pub party_id: Option<String>,
    pub display_name: Option<String>,
    #[serde(default)]
    pub presence: Vec<Presence>,
    #[serde(default)]
    pub tracks: Vec<Track>,
}

/// Something that happened. Where more than ten of a kind and track fell into a second, `detail.count` says
/// how many.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    pub at_s: Seconds,
    pub kind: Open<EventKind>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub participant: Option<ParticipantId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub track: Option<TrackId>,
    #[serde(default)]
    pub detail: Map<String, Value>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IntegrityProblem {
    /// The file it concerns, if one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    pub problem: String,
}

/// `verified` is null until somebody looked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Integrity {
    pub verified: Option<bool>,
    pub problems: Vec<IntegrityProblem>,
}

/// The whole of `session.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    pub schema: String,
    pub recorder: RecorderInfo,
    pub session_id: SessionId,
    pub continues: Option<SessionId>,
    pub call_id: String,
    pub call_kind: Open<CallKind>,
    pub room: Room,
    pub state: Open<SessionState>,
    #[serde(default)]
    pub recoveries: Vec<Recovery>,
    /// Session time zero.
    pub epoch: Utc,
    pub ended_s: Option<Seconds>,
    pub started_by: Option<String>,
    pub stopped_by: Option<String>,
    pub end_reason: Option<Open<EndReason>>,
    #[serde(default)]
    pub participants: Vec<Participant>,
    #[serde(default)]
    pub events: Vec<Event>,
    #[serde(default)]
    pub integrity: Integrity,
}

/// A record that does not fit what went before it, or one more than [`super::limits`] allow. It changes
/// nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    #[error("no participant {0}")]
    NoParticipant(ParticipantId),
    #[error("no track {0}")]
    NoTrack(TrackId),
    #[error("no segment {0:?}")]
    NoSegment(String),
    #[error("{0} has not begun")]
    NotBegun(String),
    #[error("{0} exists already")]
    Exists(String),
    #[error("the segment {0:?} is closed")]
    Closed(String),
    #[error("the session has ended")]
    Ended,
    #[error("the session is open already")]
    OpenAlready,
    #[error("more than {limit} {what}")]
    TooMany { what: &'static str, limit: usize },
}

impl Manifest {
    /// Folds a journal: see [`fold`].
    pub fn from_journal(journal: &[u8]) -> Result<(Self, Vec<Problem>), JournalError> {
        fold(journal).map(|folded| (folded.manifest, folded.problems))
    }

    pub fn participant(&self, id: &ParticipantId) -> Option<&Participant> {
        self.participants.iter().find(|participant| participant.id == *id)
    }

    pub fn track(&self, id: &TrackId) -> Option<&Track> {
        self.tracks().find(|track| track.id == *id)
    }

    pub fn segment(&self, file: &str) -> Option<&Segment> {
        self.segments().find(|segment| segment.file == file)
    }

    pub fn tracks(&self) -> impl Iterator<Item = &Track> {
        self.participants.iter().flat_map(|participant| &participant.tracks)
    }

    pub fn segments(&self) -> impl Iterator<Item = &Segment> {
        self.tracks().flat_map(|track| &track.segments)
    }

    /// The latest session time that anything in the manifest names.
    pub fn last_s(&self) -> Seconds {
        let segments = self.segments().map(|segment| segment.start_s.max(segment.end_s));
        let events = self.events.iter().map(|event| event.at_s);
        let presence = self.participants.iter().flat_map(|p| &p.presence);
        let presence = presence.map(|stay| stay.left_s.unwrap_or(stay.joined_s));
        segments.chain(events).chain(presence).chain(self.ended_s).max().unwrap_or_default()
    }

    /// `session.json`, indented, with a newline at the end.
    pub fn to_json(&self) -> Vec<u8> {
        let mut json =
            serde_json::to_vec_pretty(self).expect("keys are strings and no value refuses to be written");
        json.push(b'\n');
        json
    }
}
