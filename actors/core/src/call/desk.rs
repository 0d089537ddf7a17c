//! The desk: which invites are answered, and which call a signal belongs to.
//!
//! An invite is decided only when the whole sync batch has been seen (client-server API, "Call Event Liveness"), so
//! that one whose hang-up came in the same batch never rings.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use super::pace::Rejections;
use super::signal::{CallSignal, SignalBody};
use crate::ids::CallKey;
use crate::time::BootTime;

/// Nothing is answered that has less than this left to live: the caller would be gone before our answer came.
const RING_GRACE: Duration = Duration::from_secs(3);
/// Calls whose signals are kept before their invite came; the oldest goes first.
const MOST_EARLY_CALLS: usize = 64;
/// Signals kept for one of them; later ones are ignored.
const MOST_EARLY_SIGNALS: usize = 32;
/// How long they are kept.
const EARLY_LIFE: Duration = Duration::from_secs(90);
/// Invites that one batch may hold; later ones are refused as busy.
const MOST_PENDING: usize = 256;
/// Ended calls remembered, so that a replayed invite is known.
const MOST_ENDED: usize = 4096;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeskSettings {
    /// Our user id.
    pub user: String,
    /// Our party: the device id.
    pub party: String,
    /// Whether 1:1 calls are answered at all.
    pub answer: bool,
    pub max_calls: usize,
}

/// Why a live invite is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    NotAllowed,
    Busy,
    /// The caller does not want to be recorded in that room. The desk does not know; whoever starts calls does.
    OptedOut,
    /// Nothing can be recorded. The desk does not know; whoever starts calls does.
    DiskFull,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IgnoreReason {
    Echo,
    Replay,
    Expired,
    NotForUs,
    NotAnswering,
    /// Neither the caller nor we sent it.
    ThirdParty,
    /// The call has ended, or never was.
    NoSuchCall,
    /// The caller hung up, or another of our devices took it, before it was decided.
    Withdrawn,
    TooMany,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeskAction {
    /// Answer it. `early` came before and is to be handled right after the invite.
    Start {
        key: CallKey,
        invite: Box<CallSignal>,
        early: Vec<CallSignal>,
    },
    Forward {
        key: CallKey,
        signal: Box<CallSignal>,
    },
    /// It names nobody and its room has other people than the caller and us: leave it alone. The caller may call, but not
    /// like this.
    Misplaced {
        invite: Box<CallSignal>,
    },
    Refuse {
        invite: Box<CallSignal>,
        why: Refusal,
        /// The caller is to be told; not if that was done too often lately.
        tell: bool,
    },
    Ignore {
        event_id: String,
        why: IgnoreReason,
    },
}

type Name = (String, String);

#[derive(Clone, Debug)]
struct Pending {
    invite: CallSignal,
    allowed: bool,
    misplaced: bool,
    early: Vec<CallSignal>,
}

#[derive(Clone, Debug)]
struct Early {
    since: BootTime,
    signals: Vec<CallSignal>,
}

#[derive(Clone, Debug)]
struct Running {
    key: CallKey,
    caller: String,
}

/// Routes call signals. One for the whole process.
#[derive(Clone, Debug)]
pub struct CallDesk {
    settings: DeskSettings,
    next_key: u64,
    pending: Vec<Pending>,
    early: BTreeMap<Name, Early>,
    running: HashMap<Name, Running>,
    ended: HashMap<Name, ()>,
    ended_order: VecDeque<Name>,
    rejections: Rejections,
}

impl CallDesk {
    pub fn new(settings: DeskSettings) -> Self {
        Self {
            settings,
            next_key: 1,
            pending: Vec::new(),
            early: BTreeMap::new(),
            running: HashMap::new(),
            ended: HashMap::new(),
            ended_order: VecDeque::new(),
            rejections: Rejections::default(),
        }
    }

    pub fn settings(&self) -> &DeskSettings {
        &self.settings
    }

    /// A signal as it came. `allowed` says whether its sender is on the allow-list; `members` how many have joined the
    /// room, where that is known.
    pub fn signal(
        &mut self,
        signal: CallSignal,
        allowed: bool,
        members: Option<u64>,
        now: BootTime,
    ) -> Vec<DeskAction> {
        let name = (signal.room.clone(), signal.call_id.clone());
        let ours = signal.sender == self.settings.user;
        if ours && signal.party.as_deref() == Some(&self.settings.party) {
            return ignore(&signal, IgnoreReason::Echo);
        }
        if let SignalBody::Invite { .. } = signal.body {
            return self.invite(signal, name, ours, (allowed, members), now);
        }
        if let Some(running) = self.running.get(&name) {
            if !ours && signal.sender != running.caller {
                return ignore(&signal, IgnoreReason::ThirdParty);
            }
            return vec![DeskAction::Forward { key: running.key, signal: Box::new(signal) }];
        }
        if let Some(at) =
            self.pending.iter().position(|p| p.invite.room == name.0 && p.invite.call_id == name.1)
        {
            if !ours && signal.sender != self.pending[at].invite.sender {
                return ignore(&signal, IgnoreReason::ThirdParty);
            }
            if ends_ringing(&signal.body, ours) {
                self.pending.remove(at);
                self.remember_ended(name);
                return ignore(&signal, IgnoreReason::Withdrawn);
            }
            let early = &mut self.pending[at].early;
            if early.len() == MOST_EARLY_SIGNALS {
                return ignore(&signal, IgnoreReason::TooMany);
            }
            early.push(signal);
            return Vec::new();
        }
        if self.ended.contains_key(&name) {
            return ignore(&signal, IgnoreReason::NoSuchCall);
        }
        if ends_ringing(&signal.body, ours) {
            // Its invite may still come, late or replayed: it is over all the same.
            self.remember_ended(name);
            return ignore(&signal, IgnoreReason::NoSuchCall);
        }
        self.keep_early(name, signal, now)
    }

    fn invite(
        &mut self,
        signal: CallSignal,
        name: Name,
        ours: bool,
        (allowed, members): (bool, Option<u64>),
        now: BootTime,
    ) -> Vec<DeskAction> {
        let SignalBody::Invite { lifetime, ref invitee, .. } = signal.body else { return Vec::new() };
        // Calls that name nobody belong in rooms with one other user (client-server API, "Invitees").
        let misplaced = invitee.is_none() && members.is_some_and(|members| members != 2);
        if ours || invitee.as_deref().is_some_and(|user| user != self.settings.user) {
            return ignore(&signal, IgnoreReason::NotForUs);
        }
        let known = self.running.contains_key(&name)
            || self.ended.contains_key(&name)
            || self.pending.iter().any(|p| p.invite.room == name.0 && p.invite.call_id == name.1);
        if known {
            return ignore(&signal, IgnoreReason::Replay);
        }
        if !self.settings.answer {
            return ignore(&signal, IgnoreReason::NotAnswering);
        }
        if !is_live(&signal, lifetime, now) {
            self.remember_ended(name);
            return ignore(&signal, IgnoreReason::Expired);
        }
        if self.pending.len() == MOST_PENDING {
            return vec![self.refuse(signal, Refusal::Busy, now)];
        }
        let early = self
            .early
            .remove(&name)
            .map(|early| early.signals.into_iter().filter(|other| other.sender == signal.sender).collect())
            .unwrap_or_default();
        self.pending.push(Pending { invite: signal, allowed, misplaced, early });
        Vec::new()
    }

    /// The batch is over: decide what is pending, in the order of arrival.
    pub fn batch_end(&mut self, now: BootTime) -> Vec<DeskAction> {
        self.early.retain(|_, early| now.saturating_since(early.since) < EARLY_LIFE);
        std::mem::take(&mut self.pending)
            .into_iter()
            .map(|pending| {
                let name = (pending.invite.room.clone(), pending.invite.call_id.clone());
                let SignalBody::Invite { lifetime, .. } = pending.invite.body else {
                    return DeskAction::Ignore {
                        event_id: pending.invite.event_id,
                        why: IgnoreReason::NoSuchCall,
                    };
                };
                let why = if !is_live(&pending.invite, lifetime, now) {
                    self.remember_ended(name);
                    return DeskAction::Ignore {
                        event_id: pending.invite.event_id,
                        why: IgnoreReason::Expired,
                    };
                } else if pending.misplaced {
                    self.remember_ended(name);
                    return if pending.allowed {
                        DeskAction::Misplaced { invite: Box::new(pending.invite) }
                    } else {
                        DeskAction::Ignore { event_id: pending.invite.event_id, why: IgnoreReason::NotForUs }
                    };
                } else if !pending.allowed {
                    Some(Refusal::NotAllowed)
                } else if self.running.len() >= self.settings.max_calls {
                    Some(Refusal::Busy)
                } else {
                    None
                };
                if let Some(why) = why {
                    self.remember_ended(name);
                    return self.refuse(pending.invite, why, now);
                }
                let key = self.take_key();
                self.running.insert(name, Running { key, caller: pending.invite.sender.clone() });
                DeskAction::Start { key, invite: Box::new(pending.invite), early: pending.early }
            })
            .collect()
    }

    /// Whether one more rejection may be sent to this caller now.
    pub fn may_reject(&mut self, caller: &str, now: BootTime) -> bool {
        self.rejections.take(caller, now)
    }

    fn refuse(&mut self, invite: CallSignal, why: Refusal, now: BootTime) -> DeskAction {
        let tell = self.may_reject(&invite.sender, now);
        DeskAction::Refuse { invite: Box::new(invite), why, tell }
    }

    /// A key for a call that this desk does not know.
    pub fn take_key(&mut self) -> CallKey {
        let key = CallKey(self.next_key);
        self.next_key += 1;
        key
    }

    /// A call is over: its name is remembered, so that a replay starts nothing.
    pub fn ended(&mut self, key: CallKey) {
        let name = self.running.iter().find(|(_, running)| running.key == key).map(|(name, _)| name.clone());
        if let Some(name) = name {
            self.running.remove(&name);
            self.remember_ended(name);
        }
    }

    /// Calls of earlier processes that were hung up at start: their invites are not to be answered again.
    pub fn mark_ended(&mut self, room: &str, call_id: &str) {
        self.remember_ended((room.to_owned(), call_id.to_owned()));
    }

    /// Running calls of a room.
    pub fn calls_in(&self, room: &str) -> Vec<CallKey> {
        let mut keys: Vec<_> = self
            .running
            .iter()
            .filter(|((in_room, _), _)| in_room == room)
            .map(|(_, call)| call.key)
            .collect();
        keys.sort_unstable();
        keys
    }

    fn keep_early(&mut self, name: Name, signal: CallSignal, now: BootTime) -> Vec<DeskAction> {
        if !self.early.contains_key(&name) && self.early.len() == MOST_EARLY_CALLS {
            let oldest = self.early.iter().min_by_key(|(_, early)| early.since).map(|(name, _)| name.clone());
            if let Some(oldest) = oldest {
                self.early.remove(&oldest);
            }
        }
        let early = self.early.entry(name).or_insert_with(|| Early { since: now, signals: Vec::new() });
        if early.signals.len() == MOST_EARLY_SIGNALS {
            return ignore(&signal, IgnoreReason::TooMany);
        }
        early.signals.push(signal);
        Vec::new()
    }

    fn remember_ended(&mut self, name: Name) {
        self.early.remove(&name);
        if self.ended.insert(name.clone(), ()).is_none() {
            self.ended_order.push_back(name);
            if self.ended_order.len() > MOST_ENDED
                && let Some(oldest) = self.ended_order.pop_front()
            {
                self.ended.remove(&oldest);
            }
        }
    }
}

fn ignore(signal: &CallSignal, why: IgnoreReason) -> Vec<DeskAction> {
    vec![DeskAction::Ignore { event_id: signal.event_id.clone(), why }]
}

/// The caller withdrew it, or another device of ours answered or refused it.
fn ends_ringing(body: &SignalBody, ours: bool) -> bool {
    match body {
        SignalBody::Hangup { .. } | SignalBody::Reject => true,
        SignalBody::Answer { .. } => ours,
        SignalBody::Invite { .. }
        | SignalBody::Candidates(_)
        | SignalBody::SelectAnswer { .. }
        | SignalBody::Negotiate { .. }
        | SignalBody::MetadataChanged(_)
        | SignalBody::Unused => false,
    }
}

/// By age at receipt plus the time since, never by the sender's clock (client-server API, "Call Event Liveness").
fn is_live(signal: &CallSignal, lifetime: Duration, now: BootTime) -> bool {
    signal.age + now.saturating_since(signal.received) + RING_GRACE < lifetime
}

#[cfg(test)]
#[path = "desk_tests.rs"]
mod tests;
