//! Full-mesh group calls (MSC3401): who is in the call of a room, who calls whom, and the to-device signalling of every
//! pair. State events, to-device events and time go in, actions come out.
//!
//! [`Roster`] is kept per room and reads its state; [`Mesh`] runs one call that is being recorded. A [`Mesh`] owns *legs*:
//! connections to one session of one device of one user.

mod compose;
mod content;
mod inbox;
mod incoming;
mod leg;
mod machine;
mod peer;
mod publish;
mod roster;
mod to_device;

#[cfg(test)]
mod machine_tests;
#[cfg(test)]
mod signal_tests;
#[cfg(test)]
mod sim_tests;
#[cfg(test)]
mod test_support;

use std::time::Duration;

use serde_json::Value;

pub use content::without_device;
pub use machine::Mesh;
pub use roster::{Gathering, Member, Roster, Terminated};
pub use to_device::ToDeviceSignal;

use crate::call::{CallFact, RemoteCandidate};
use crate::ids::LegId;
use crate::manifest::limits;

/// State event of a call; its state key is the conference id.
pub const CALL_EVENT: &str = "org.matrix.msc3401.call";
/// State event of a participant; its state key is the user id, and it speaks for all devices of that user.
pub const MEMBER_EVENT: &str = "org.matrix.msc3401.call.member";
/// Participant devices of one call that are recorded at a time; further ones are counted.
pub const MOST_DEVICES: usize = 256;
/// Devices of one user that are recorded over the life of a session; further ones are counted.
pub const MOST_DEVICES_OF_A_USER: usize = 64;
/// Devices of all that are recorded over the life of a session: as many as its manifest takes.
pub const MOST_DEVICES_IN_ALL: usize = limits::PARTICIPANTS;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeshSettings {
    /// Our user id.
    pub user: String,
    /// Our device id, which is our party id as well.
    pub device: String,
    /// Random, fresh for every session: by a changed one peers see that an earlier connection is of no use any more.
    /// Letters, digits and `._~-` only, because call ids begin with it.
    pub session_id: String,
    pub conf_id: String,
    pub room: String,
    /// MediaStream id of what we send.
    pub tile_stream: String,
    /// How long a published membership holds (`expires_ts`).
    pub expires: Duration,
    /// When it is published anew.
    pub refresh: Duration,
    /// From a failed outgoing call to the next one.
    pub retry: Duration,
    /// Outgoing calls to one session of a device after the first, until one connects.
    pub most_tries: u32,
}

impl MeshSettings {
    /// The times of matrix-js-sdk: 1 h, 45 min, 5 s, 3 tries.
    pub fn new(
        user: &str,
        device: &str,
        session_id: &str,
        conf_id: &str,
        room: &str,
        tile_stream: &str,
    ) -> Self {
        Self {
            user: user.to_owned(),
            device: device.to_owned(),
            session_id: session_id.to_owned(),
            conf_id: conf_id.to_owned(),
            room: room.to_owned(),
            tile_stream: tile_stream.to_owned(),
            expires: Duration::from_secs(60 * 60),
            refresh: Duration::from_secs(45 * 60),
            retry: Duration::from_secs(5),
            most_tries: 3,
        }
    }
}

/// Why the recording of a mesh call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MeshEnd {
    /// Somebody told us to stop.
    Stopped,
    /// The call's event says that it is over.
    Terminated,
    /// Nobody but us was there.
    Empty,
    /// Nobody of those who were said to be there could be reached.
    Unreachable,
    /// We were removed from the room.
    Removed,
    RoomUpgraded,
    /// The homeserver does not take our membership.
    NotAllowed,
    Shutdown,
    /// A fault of ours.
    Failed,
}

impl MeshEnd {
    /// As the manifest spells it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Terminated => "call_terminated",
            Self::Empty => "everyone_left",
            Self::Unreachable => "unreachable",
            Self::Removed => "removed",
            Self::RoomUpgraded => "room_upgraded",
            Self::NotAllowed => "not_allowed",
            Self::Shutdown => "shutdown",
            Self::Failed => "failed",
        }
    }
}

/// Why a leg is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LegEnd {
    /// The peer hung up or closed its connection.
    Hangup,
    /// The peer refused our call.
    Rejected,
    /// The peer did not answer our call in time.
    NoAnswer,
    /// The answer, or what had to come with it, was lost on its way.
    SignallingLost,
    /// The peer took the answer of another device.
    AnsweredElsewhere,
    /// A newer call between the same devices took its place.
    Replaced,
    /// The peer's device began a new session.
    NewSession,
    /// The peer left the call or its membership expired.
    Left,
    /// Checks or the path failed.
    ConnectionLost,
    /// The peer's description could not be used.
    BadDescription,
    /// A fault of ours.
    Failed,
    /// The whole recording of the call ended.
    Stopped,
}

impl LegEnd {
    /// As the manifest spells it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hangup => "hangup",
            Self::Rejected => "rejected",
            Self::NoAnswer => "no_answer",
            Self::SignallingLost => "signalling_lost",
            Self::AnsweredElsewhere => "answered_elsewhere",
            Self::Replaced => "replaced",
            Self::NewSession => "new_session",
            Self::Left => "left",
            Self::ConnectionLost => "connection_lost",
            Self::BadDescription => "bad_description",
            Self::Failed => "failed",
            Self::Stopped => "stopped",
        }
    }
}

/// Why a device is no longer a participant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaveReason {
    /// Its membership was taken back, or its user is no longer in the room.
    Left,
    /// Its membership ran out.
    Expired,
    /// It comes back at once with another session.
    NewSession,
    /// The recording of the call ended.
    Stopped,
}

#[derive(Clone, Debug, PartialEq)]
pub enum MeshAction {
    /// Send this as [`MEMBER_EVENT`] with our user id as its state key; tell [`Mesh::published`].
    Publish {
        content: Value,
    },
    /// Send this likewise: our device is no longer in it. Nothing needs to be told.
    Unpublish {
        content: Value,
    },
    SendToDevice {
        user: String,
        device: String,
        event_type: &'static str,
        content: Value,
    },
    /// A device is in the call. It has a leg from [`MeshAction::LegOpened`] on.
    MemberJoined {
        user: String,
        device: String,
    },
    MemberLeft {
        user: String,
        device: String,
        reason: LeaveReason,
    },
    /// A device is in the call and has no place any more: there are, or were, too many.
    Beyond {
        user: String,
        device: String,
    },
    /// A connection to this device begins to be made. Each leg's last action is [`MeshAction::CloseLeg`].
    LegOpened {
        leg: LegId,
        user: String,
        device: String,
        /// The peer's party id, which is its device id where it has not told another.
        party: String,
    },
    /// Make an offer; tell [`Mesh::dialled`]. `screen`: the peer shares its screen, so ask for one more video.
    Dial {
        leg: LegId,
        screen: bool,
    },
    /// Set up the connection from the peer's offer; tell [`Mesh::accepted`].
    Accept {
        leg: LegId,
        offer: String,
    },
    /// Apply the peer's answer to our offer; tell [`Mesh::applied`].
    ApplyAnswer {
        leg: LegId,
        sdp: String,
    },
    /// Apply a later offer of the peer; tell [`Mesh::renegotiated`].
    Renegotiate {
        leg: LegId,
        offer: String,
    },
    AddCandidates {
        leg: LegId,
        list: Vec<RemoteCandidate>,
    },
    /// What the peer says of its streams changed ([`Mesh::metadata`]): reconsider the plan.
    MetadataChanged {
        leg: LegId,
    },
    /// Media may flow, for the first time on this leg.
    LegConnected {
        leg: LegId,
    },
    Note {
        leg: LegId,
        fact: CallFact,
    },
    /// The leg is over: close its connection, end its tracks. Nothing follows for it.
    CloseLeg {
        leg: LegId,
        why: LegEnd,
    },
    /// Everything is said; the last action of a mesh.
    End(MeshEnd),
    /// An input out of place; counted.
    Ignored,
}

/// What a mesh has not made use of, since its beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MeshCounts {
    /// Signals out of place: for another session, repeated, of calls that are over.
    pub ignored: u64,
    /// Signals that never came, and were no longer waited for.
    pub gaps: u64,
    /// Signals of devices that are not in the call, dropped.
    pub strangers: u64,
    /// Invites refused.
    pub rejected: u64,
    /// Devices without a place, each time that they came.
    pub beyond: u64,
}
