//! What comes out of a room's machine.

use serde_json::{Map, Value};

use crate::call::Announcement;
use crate::manifest::{CallKind, EndReason, EventKind};

/// What a message of ours is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MessageKind {
    /// Recording has begun: mentions those in the call.
    Announcement,
    /// The same for those who came later.
    LateJoiners,
    /// The one status message of a session.
    Status,
    /// An edit of it.
    StatusEdit,
    /// What was recorded.
    Saved,
    /// The answer to a command or a reaction.
    Reply,
    /// Anything else.
    Notice,
}

/// Names a message until its event id is known. Unique within a machine's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageTag {
    pub kind: MessageKind,
    pub number: u64,
}

/// How a message stands to others (client-server API, "Threading", "Event replacements").
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Relation {
    #[default]
    None,
    /// In the thread that begins at `root`, as a reply to `reply_to`.
    Thread { root: String, reply_to: String },
    /// In the place of an earlier message of ours.
    Edit { event: String },
}

/// Why a command was not done, as metrics count it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Refusal {
    /// Not on the allow-list.
    NotAllowed,
    /// The sender's power level is too low.
    LowPower,
    /// Our own power level is too low to take part in a call.
    OwnPower,
    /// Too many commands.
    TooMany,
    /// Not a command that there is.
    NotUnderstood,
    /// The sender is not in the room.
    NotJoined,
    /// The room was replaced by another.
    RoomReplaced,
    /// More people have opted out than are kept.
    Full,
}

impl Refusal {
    pub const ALL: [Self; 8] = [
        Self::NotAllowed,
        Self::LowPower,
        Self::OwnPower,
        Self::TooMany,
        Self::NotUnderstood,
        Self::NotJoined,
        Self::RoomReplaced,
        Self::Full,
    ];

    /// As metrics name it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotAllowed => "not_allowed",
            Self::LowPower => "low_power",
            Self::OwnPower => "own_power",
            Self::TooMany => "too_many",
            Self::NotUnderstood => "not_understood",
            Self::NotJoined => "not_joined",
            Self::RoomReplaced => "room_replaced",
            Self::Full => "full",
        }
    }
}

/// One thing to do, in order.
#[derive(Clone, Debug, PartialEq)]
pub enum RoomAction {
    React {
        event: String,
        key: &'static str,
    },
    /// Say it and report [`super::Room::said`] or [`super::Room::failed`] with the tag.
    Say {
        tag: MessageTag,
        message: Announcement,
        relation: Relation,
    },
    /// Join the call and record. Answered by one [`super::Room::ended`], also if it could not be begun.
    Begin {
        call_id: String,
        kind: CallKind,
        /// Who asked for it; by `auto`, who turned that on, and nobody if the configuration did.
        by: Option<String>,
        auto: bool,
    },
    /// End the session that runs. Comes at most once after each [`RoomAction::Begin`].
    Stop {
        /// Who said so, for the manifest: nobody who has opted out.
        by: Option<String>,
        reason: EndReason,
    },
    /// Our display name in this room; `None` puts the account's own back.
    /// Answered by one [`super::Room::named`].
    SetName {
        number: u64,
        name: Option<String>,
    },
    /// From now on nothing of this user is recorded, in any call of the room. Comes again with each objection of theirs.
    OptOut {
        user: String,
    },
    OptIn {
        user: String,
    },
    /// For the manifest's `events` of the session that runs (or was begun by an action before this one), and of the 1:1
    /// call of `user`. That is whom it concerns, to be found among the participants; the detail names nobody who has
    /// opted out.
    ConsentEvent {
        kind: EventKind,
        user: Option<String>,
        detail: Map<String, Value>,
    },
    /// [`super::Room::durable`] has changed.
    Persist,
    Count(Refusal),
    /// For whoever runs the recorder, where the room cannot be told.
    Report {
        text: String,
    },
}
