//! Who is in the group call of a room, by its state events.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::content::{self, Entry};
use super::{CALL_EVENT, MEMBER_EVENT, MOST_DEVICES};

/// Call events kept; terminated ones go first, then the oldest.
const MOST_CALLS: usize = 64;
/// Device entries kept over all users and calls; of those that are too many the one that expires first goes.
const MOST_ENTRIES: usize = 2_048;
/// Users known not to be in the room who are remembered without having an entry.
const MOST_ABSENT: usize = 16_384;
/// Members of the future are no members: the clock of their homeserver cannot be gone by.
const MOST_SKEW_MS: i64 = 60 * 60 * 1_000;
/// Identifiers of Matrix have at most 255 bytes.
const LONGEST_ID: usize = 255;

/// One device in a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub user: String,
    pub device: String,
    pub session_id: String,
    /// It says that it shares its screen.
    pub screen: bool,
    /// When its membership runs out, milliseconds since 1970.
    pub expires_ts_ms: i64,
}

/// That a call is over, and who says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terminated {
    /// `m.terminated`.
    pub why: String,
    pub by: String,
    pub at_ms: i64,
}

/// One call of a room with those who are in it; our own user is never among them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gathering {
    pub conf_id: String,
    pub created_by: String,
    /// Origin timestamp of the call's event: clients count the call's time from here.
    pub created_ts_ms: i64,
    pub terminated: Option<Terminated>,
    /// Its media goes over LiveKit, not from peer to peer.
    pub livekit: bool,
    /// By user and device, at most [`MOST_DEVICES`].
    pub members: Vec<Member>,
    /// Members beyond that bound.
    pub beyond: usize,
}

#[derive(Clone, Debug)]
struct Call {
    created_by: String,
    created_ts_ms: i64,
    terminated: Option<Terminated>,
    /// Its event was deleted (redacted), or says something that no client takes for a call. Who is in it does not notice,
    /// and nobody else finds it.
    deleted: bool,
    livekit: bool,
}

/// What is known of the calls of one room.
#[derive(Clone, Debug)]
pub struct Roster {
    /// Our user id.
    user: String,
    calls: BTreeMap<String, Call>,
    members: BTreeMap<String, Vec<Entry>>,
    entries: usize,
    absent: BTreeSet<String>,
    own_content: Option<Value>,
    refused: u64,
}

impl Roster {
    /// `user` is us.
    pub fn new(user: &str) -> Self {
        Self {
            user: user.to_owned(),
            calls: BTreeMap::new(),
            members: BTreeMap::new(),
            entries: 0,
            absent: BTreeSet::new(),
            own_content: None,
            refused: 0,
        }
    }

    /// A state event of the room, newer than all of the same type and key before. Types that are not about calls or
    /// members are ignored. `origin_ts_ms` is `origin_server_ts`.
    pub fn state_event(
        &mut self,
        event_type: &str,
        state_key: &str,
        sender: &str,
        content: &Value,
        origin_ts_ms: i64,
    ) {
        match event_type {
            CALL_EVENT => self.call(state_key, sender, content, origin_ts_ms),
            MEMBER_EVENT => self.member(state_key, sender, content, origin_ts_ms),
            "m.room.member" => {
                let joined = content.get("membership").and_then(Value::as_str) == Some("join");
                self.joined(state_key, joined);
            }
            _ => {}
        }
    }

    /// Whether `user` is in the room. Of whom nothing was told is taken to be there: only who is in a room can send the
    /// state that makes a member, and lazily loaded rooms do not tell everybody's membership.
    pub fn joined(&mut self, user: &str, joined: bool) {
        if joined {
            self.absent.remove(user);
        } else if user.len() <= LONGEST_ID
            && (self.absent.len() < MOST_ABSENT || self.members.contains_key(user))
        {
            self.absent.insert(user.to_owned());
        }
    }

    fn call(&mut self, conf_id: &str, sender: &str, content: &Value, origin_ts_ms: i64) {
        if conf_id.is_empty() || conf_id.len() > LONGEST_ID || sender.len() > LONGEST_ID {
            self.refused += 1;
            return;
        }
        let deleted = !content::is_call(content);
        let over = content::terminated(content);
        let over = over.map(|why| Terminated { why, by: sender.to_owned(), at_ms: origin_ts_ms });
        let livekit = content::is_livekit(content);
        match (self.calls.get_mut(conf_id), over) {
            (Some(call), Some(over)) => {
                call.terminated.get_or_insert(over);
            }
            (Some(call), None) if deleted => call.deleted = true,
            (Some(call), None) if call.terminated.is_none() => {
                (call.livekit, call.deleted) = (livekit, false)
            }
            (None, None) if deleted && content.as_object().is_none_or(|content| !content.is_empty()) => {
                self.refused += 1;
            }
            (_, terminated) => {
                let (created_by, created_ts_ms) = (sender.to_owned(), origin_ts_ms);
                let call = Call { created_by, created_ts_ms, terminated, deleted, livekit };
                self.calls.insert(conf_id.to_owned(), call);
                self.shed_calls();
            }
        }
    }

    fn shed_calls(&mut self) {
        while self.calls.len() > MOST_CALLS {
            let oldest = self
                .calls
                .iter()
                .min_by_key(|(_, call)| (call.terminated.is_none(), !call.deleted, call.created_ts_ms))
                .map(|(conf_id, _)| conf_id.clone());
            let Some(oldest) = oldest else { return };
            self.calls.remove(&oldest);
        }
    }

    fn member(&mut self, state_key: &str, sender: &str, content: &Value, origin_ts_ms: i64) {
        // The event type is MatrixRTC's as well, with other state keys; only one's own key speaks for one.
        if state_key != sender || sender.is_empty() || sender.len() > LONGEST_ID {
            self.refused += 1;
            return;
        }
        if sender == self.user {
            self.own_content = Some(content.clone());
            return;
        }
        let read = content::entries(content, origin_ts_ms);
        if let Some(before) = self.members.remove(sender) {
            self.entries -= before.len();
        }
        if !read.is_empty() {
            self.entries += read.len();
            self.members.insert(sender.to_owned(), read);
            self.shed_entries();
        }
    }

    /// Entries that long ago should have been taken out expire first, so that they never crowd out who is there.
    fn shed_entries(&mut self) {
        while self.entries > MOST_ENTRIES {
            let first = self
                .members
                .iter()
                .filter_map(|(user, entries)| {
                    Some((entries.iter().map(|entry| entry.expires_ts_ms).min()?, user))
                })
                .min()
                .map(|(earliest, user)| (earliest, user.clone()));
            let Some((earliest, user)) = first else { return };
            let Some(entries) = self.members.get_mut(&user) else { return };
            let before = entries.len();
            entries.retain(|entry| entry.expires_ts_ms != earliest);
            self.entries -= before - entries.len();
            self.refused += (before - entries.len()) as u64;
            if entries.is_empty() {
                self.members.remove(&user);
            }
        }
    }

    /// The call that clients take part in: the newest one by origin timestamp that is not over (as matrix-js-sdk
    /// chooses it). `utc_ms`: milliseconds since 1970.
    pub fn gathering(&self, utc_ms: i64) -> Option<Gathering> {
        let (conf_id, call) = self
            .calls
            .iter()
            .filter(|(_, call)| call.terminated.is_none() && !call.deleted)
            .max_by_key(|(_, call)| call.created_ts_ms)?;
        Some(self.gather(conf_id, call, utc_ms))
    }

    /// The call `conf_id`, also when it is over or when there is a newer one: who takes part in a call stays in it.
    pub fn gathering_of(&self, conf_id: &str, utc_ms: i64) -> Option<Gathering> {
        let call = self.calls.get(conf_id)?;
        Some(self.gather(conf_id, call, utc_ms))
    }

    fn gather(&self, conf_id: &str, call: &Call, utc_ms: i64) -> Gathering {
        let mut there: Vec<(i64, Member)> = Vec::new();
        if call.terminated.is_none() {
            for (user, entry) in self.present(utc_ms).filter(|(_, entry)| entry.conf_id == conf_id) {
                let member = Member {
                    user: user.clone(),
                    device: entry.device.clone(),
                    session_id: entry.session_id.clone(),
                    screen: entry.screen,
                    expires_ts_ms: entry.expires_ts_ms,
                };
                there.push((entry.origin_ts_ms, member));
            }
        }
        let beyond = there.len().saturating_sub(MOST_DEVICES);
        if beyond > 0 {
            // Who came first stays, whatever comes later.
            there.sort_by_key(|(since, _)| *since);
            there.truncate(MOST_DEVICES);
        }
        let mut members: Vec<Member> = there.into_iter().map(|(_, member)| member).collect();
        members.sort_by(|a, b| (&a.user, &a.device).cmp(&(&b.user, &b.device)));
        Gathering {
            conf_id: conf_id.to_owned(),
            created_by: call.created_by.clone(),
            created_ts_ms: call.created_ts_ms,
            terminated: call.terminated.clone(),
            livekit: call.livekit,
            members,
            beyond,
        }
    }

    fn present(&self, utc_ms: i64) -> impl Iterator<Item = (&String, &Entry)> {
        self.members
            .iter()
            .filter(|(user, _)| !self.absent.contains(*user))
            .flat_map(|(user, entries)| entries.iter().map(move |entry| (user, entry)))
            .filter(move |(_, entry)| {
                entry.expires_ts_ms > utc_ms && entry.origin_ts_ms <= utc_ms.saturating_add(MOST_SKEW_MS)
            })
    }

    /// When the next membership runs out: look at [`Roster::gathering`] again then.
    pub fn next_expiry(&self, utc_ms: i64) -> Option<i64> {
        self.present(utc_ms).map(|(_, entry)| entry.expires_ts_ms).min()
    }

    /// Content of our own user's member event, for [`super::Mesh::members`].
    pub fn own_content(&self) -> Option<&Value> {
        self.own_content.as_ref()
    }

    /// Events and entries that were not taken: malformed, of others' state keys, too many.
    pub fn refused(&self) -> u64 {
        self.refused
    }
}

#[cfg(test)]
#[path = "roster_tests.rs"]
pub(super) mod tests;
