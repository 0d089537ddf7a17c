//! What a room's machine remembers from one process to the next.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::name::Renamed;
use crate::manifest::CallKind;

/// Kept per room on disk. Unknown and missing fields are no error, so that versions can follow each other.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Durable {
    /// Users who are not to be recorded in this room.
    pub opted_out: BTreeSet<String>,
    /// `auto` by command; the configuration decides where nobody said anything.
    pub auto: Option<AutoSetting>,
    /// Who asked for the next call to be recorded.
    pub armed_by: Option<String>,
    /// The call whose present gathering `auto` leaves alone, because its recording was ended.
    pub held_off: Option<String>,
    /// Our name in the room may say that we record.
    pub renamed: Option<Renamed>,
    /// Event ids of the messages that told of earlier sessions, newest last: a reaction there is an opt-out for ever.
    pub past_consent: Vec<String>,
    /// The session that runs.
    pub running: Option<Running>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AutoSetting {
    pub on: bool,
    pub by: String,
}

/// A session under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    pub call_id: String,
    pub kind: CallKind,
    pub by: Option<String>,
    pub auto: bool,
    /// It was asked to end: it does not go on in another process.
    #[serde(default)]
    pub stopping: bool,
    /// Who has been told that this session is recorded, as far as the homeserver has said that it took the message.
    #[serde(default)]
    pub told: BTreeSet<String>,
    /// Event ids of the messages on which a reaction is an opt-out.
    #[serde(default)]
    pub consent: Vec<String>,
    /// Event id of the status message.
    #[serde(default)]
    pub status: Option<String>,
}
