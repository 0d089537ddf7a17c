//! The recording side of one room, for every kind of group call: commands, permissions, consent, the status message,
//! and when a session begins and ends. What people and the tree say goes in together with the time, actions come out.
//!
//! One [`Room`] per room lives as long as the recorder is in it; sessions come and go. It asks for a session by
//! [`RoomAction::Begin`] and for its end by [`RoomAction::Stop`]; the tree answers each session with one
//! [`Room::ended`], whoever ended it. [`Room::tick`] is due once a second.

mod action;
mod address;
pub mod commands;
mod consent;
mod durable;
mod input;
mod lifecycle;
mod machine;
mod name;
mod near;
mod orders;
mod pace;
mod pill;
mod power;
mod settings;
mod status;
#[cfg(test)]
mod tests;
mod texts;

pub use action::{MessageKind, MessageTag, Refusal, Relation, RoomAction};
pub use durable::{AutoSetting, Durable, Running};
pub use input::{Authority, Closing, Ended, GatheringView, Powers, Progress, Reaction, RecordingState, Said};
pub use machine::{Activity, Room, Waits};
pub use name::Renamed;
pub use settings::Settings;
pub use texts::{permission_notice, recording_name, room_greeting};

/// The state event by which a device takes part in a group call (MSC3401).
pub const CALL_MEMBER_EVENT: &str = "org.matrix.msc3401.call.member";

/// Bounds on what a room's machine keeps of what others say.
pub mod limits {
    /// Longest user id, event id or call id that is taken, bytes (Matrix: 255).
    pub const ID_BYTES: usize = 255;
    /// People of a call that are looked at.
    pub const MEMBERS: usize = 2_000;
    /// People who have opted out of one room. Beyond it an opt-out is refused, and the answer says so.
    pub const OPTED_OUT: usize = 20_000;
    /// People told of one session.
    pub const TOLD: usize = 2_000;
    /// People that one message mentions; the rest get the next.
    pub const MENTIONS: usize = 50;
    /// Bytes of plain text, HTML and mentions that naming people may take in one message. An event holds 64 KiB.
    pub const MENTION_BYTES: usize = 24 << 10;
    /// Messages of the session that runs, and of those before it, on which a reaction counts as an opt-out. Of the former
    /// the oldest after the first goes, of the latter the oldest.
    pub const CONSENT_MESSAGES: usize = 100;
    /// Bytes of a message's first line that are read as a command.
    pub const COMMAND_BYTES: usize = 512;
    /// Bytes of a message in which the quotation of a reply is looked for.
    pub const QUOTE_BYTES: usize = 16 << 10;
    /// Users whose pace is remembered; the one longest silent is forgotten.
    pub const PACED_USERS: usize = 256;
    /// Refusals remembered as told; the oldest is forgotten.
    pub const TOLD_REFUSALS: usize = 256;
    /// Warnings shown in the status message.
    pub const WARNINGS: usize = 5;
    /// Status messages of ended sessions that wait for their last edit; the oldest goes.
    pub const CLOSING_STATUS: usize = 4;
    /// Consent messages whose sending is under way; the oldest counts as sent.
    pub const MESSAGES_UNDER_WAY: usize = 8;
}
