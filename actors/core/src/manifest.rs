//! The session manifest: the types of `session.json`, the journal it is folded from, and the names of its
//! files.
//!
//! The journal is the truth while a session is being recorded: each [`Record`] is one JSON line, and applying
//! all of them in order gives the [`Manifest`]. Every value that a remote party can make grow has a limit in
//! [`limits`]. The published schema is `docs/session.schema.json`.

mod apply;
mod clock;
mod coalesce;
mod fold;
mod names;
mod open;
mod record;
mod segment;
mod session;
mod units;

pub use clock::SessionClock;
pub use coalesce::EventCoalescer;
pub use fold::{Folded, Folder, JournalError, Problem, fold};
pub use names::{media_file_name, parse_media_file_name, participant_slug, room_folder, session_folder};
pub use open::Open;
pub use record::{ProcessStarted, Record, SegmentOpened, SegmentProgress, SessionOpened};
pub use segment::{
    AudioFormat, ClockFit, ClockMethod, ClockPoint, Gap, GapCause, OpenedBecause, Resolution, Rotation,
    Segment, VideoFormat,
};
pub use session::{
    ApplyError, CallKind, EndReason, Event, EventKind, Integrity, IntegrityProblem, LeaveReason, Manifest,
    MediaState, Participant, Presence, RecorderInfo, Recovery, Room, SCHEMA, SessionState, Track, TrackState,
};
pub use units::{Ppm, Seconds, Utc};

pub use crate::rtp::Ledger;

/// Bounds on what a manifest holds. What comes on top is refused with an [`ApplyError`], counted, and never
/// an end.
pub mod limits {
    /// Participants of a session.
    pub const PARTICIPANTS: usize = 2_000;
    /// Stays of one participant.
    pub const PRESENCES: usize = 1_000;
    /// Tracks of one participant.
    pub const TRACKS: usize = 200;
    /// Signalled states of one track.
    pub const STATES: usize = 5_000;
    /// Segments of one track: what four digits can count.
    pub const SEGMENTS: usize = 9_999;
    /// Gaps of one segment.
    pub const GAPS: usize = 10_000;
    /// Clock points of one segment.
    pub const CLOCK_POINTS: usize = 4_096;
    /// Resolutions or rotations of one segment.
    pub const FORMATS: usize = 1_000;
    /// Events of a session.
    pub const EVENTS: usize = 20_000;
    /// Of these, so many are for commands and consent alone.
    pub const EVENTS_OF_CONSENT: usize = 2_000;
    /// Recoveries of a session, and problems listed by `integrity`.
    pub const PROBLEMS: usize = 1_000;
    /// Bytes of one name, id or reason that a remote party chose.
    pub const TEXT_BYTES: usize = 1_024;
    /// Bytes of one journal line; a longer one is skipped when read.
    pub const LINE_BYTES: usize = 64 << 20;
}
