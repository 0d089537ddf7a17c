//! 1:1 calls (client-server API, "Voice over IP", `m.call.*` versions 1 and 0): which invites are answered, and how
//! one call runs from its invite to its end. Signals and time go in, actions come out.

mod announce;
mod candidates;
mod compose;
mod desk;
mod one_to_one;
mod pace;
mod signal;

pub(crate) use candidates::CandidateCount;
pub(crate) use compose::Envelope;
pub(crate) use signal::identifier;

pub use announce::{
    Announcement, Saved, Shortfall, Space, call_misplaced, greeting, no_space, recording_begun,
    recording_interrupted, recording_saved, space_changed,
};
pub use compose::{Outgoing, Urgency, hangup_for};
pub use desk::{CallDesk, DeskAction, DeskSettings, IgnoreReason, Refusal};
pub use one_to_one::{CallAction, CallEnd, CallFact, CallPhase, ConnectionLevel, OneToOne, source_of};
pub use signal::{
    CallSignal, DescriptionKind, Malformed, Purpose, RemoteCandidate, RoomEvent, SignalBody, StreamMetadata,
    StreamNote, Version, is_call_event, merge_metadata,
};
