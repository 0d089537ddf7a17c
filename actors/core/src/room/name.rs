//! Our display name in the room, as a level: that we record while we do, and what it was before otherwise. What is not so
//! is set again, with pauses that grow; that the name is not ours to keep outlives the process.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::action::RoomAction;
use super::input::Closing;
use super::machine::Room;
use super::recording_name;
use crate::time::BootTime;

/// Between two attempts, and between two settings of the same name: somebody else may set it, too.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// An answer that has not come by then never comes.
const ANSWER_LIMIT: Duration = Duration::from_secs(120);

/// Our name in the room says, or may say, that we record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Renamed {
    /// What it was in this room before; `None` for the account's own.
    pub before: Option<String>,
}

/// The newest attempt.
#[derive(Clone, Debug)]
struct Attempt {
    number: u64,
    name: Option<String>,
    at: BootTime,
    /// The homeserver's answer.
    taken: Option<bool>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct OwnName {
    /// As the room shows us, by its state or by what the homeserver took.
    shown: Option<String>,
    attempt: Option<Attempt>,
    failures: u32,
}

fn says_recording(name: &str) -> bool {
    name.starts_with(&recording_name(""))
}

impl OwnName {
    /// Whether this name is to be set now, and not a moment later.
    fn is_due(&self, name: &Option<String>, now: BootTime) -> bool {
        let Some(attempt) = self.attempt.as_ref().filter(|attempt| attempt.name == *name) else {
            return true;
        };
        let passed = now.saturating_since(attempt.at);
        match attempt.taken {
            None => passed >= ANSWER_LIMIT,
            Some(_) => {
                passed >= (FIRST_PAUSE * 2_u32.saturating_pow(self.failures.min(8))).min(LONGEST_PAUSE)
            }
        }
    }
}

impl Room {
    pub(super) fn was_called(&mut self, name: Option<&str>, now: BootTime, out: &mut Vec<RoomAction>) {
        self.own_name.shown = name.map(str::to_owned);
        let name = name.unwrap_or_default();
        self.names.show(name);
        if !name.is_empty()
            && !says_recording(name)
            && let Some(renamed) = &mut self.durable.renamed
            && renamed.before.as_deref() != Some(name)
        {
            // The account got another name meanwhile, or somebody was before us.
            renamed.before = Some(name.to_owned());
            self.keep();
        }
        self.keep_name(now, out);
    }

    pub(super) fn was_named(&mut self, number: u64, taken: bool, now: BootTime, out: &mut Vec<RoomAction>) {
        let own = &mut self.own_name;
        let Some(attempt) = own.attempt.as_mut().filter(|attempt| attempt.number == number) else { return };
        attempt.taken = Some(taken);
        if !taken {
            own.failures = own.failures.saturating_add(1);
            return;
        }
        own.failures = 0;
        own.shown.clone_from(&attempt.name);
        if !attempt.name.as_deref().is_some_and(says_recording) {
            self.durable.renamed = None;
            self.keep();
        }
        self.keep_name(now, out);
    }

    /// Has our name set if it is not as it is to be.
    pub(super) fn keep_name(&mut self, now: BootTime, out: &mut Vec<RoomAction>) {
        let unsettled = self.session.as_ref().is_some_and(|session| session.unsettled);
        if unsettled || self.closed == Some(Closing::Removed) {
            return;
        }
        let shown = &self.own_name.shown;
        let name = if self.session.is_some() && !self.shut_down {
            let name = recording_name(self.names.own());
            // What was tried last may turn it into another.
            let last = self.own_name.attempt.as_ref().map(|attempt| attempt.name.as_ref() == Some(&name));
            if shown.as_ref() == Some(&name) && last != Some(false) && self.durable.renamed.is_some() {
                return;
            }
            if self.durable.renamed.is_none() {
                let before = shown.clone().filter(|name| !says_recording(name));
                self.durable.renamed = Some(Renamed { before });
                self.keep();
            }
            Some(name)
        } else if self.durable.renamed.is_some() || shown.as_deref().is_some_and(says_recording) {
            self.durable.renamed.as_ref().and_then(|renamed| renamed.before.clone())
        } else {
            return;
        };
        if !self.own_name.is_due(&name, now) {
            return;
        }
        let number = self.next_message;
        self.next_message += 1;
        if self.own_name.attempt.as_ref().is_some_and(|attempt| attempt.name != name) {
            self.own_name.failures = 0;
        }
        self.own_name.attempt = Some(Attempt { number, name: name.clone(), at: now, taken: None });
        out.push(RoomAction::SetName { number, name });
    }

    /// We are not in the room any more: whatever it showed, it shows the account's own name when we come back.
    pub(super) fn forget_name(&mut self) {
        self.own_name = OwnName::default();
        if self.durable.renamed.take().is_some() {
            self.keep();
        }
    }
}
