//! What a call hears from its room's machine, and what that hears of the call.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use recorder_core::call::{CallEnd, Saved};
use recorder_core::ids::SessionId;
use recorder_core::manifest::{CallKind, EndReason, Event, EventKind, Record};
use recorder_core::mesh::{Member, ToDeviceSignal};
use recorder_core::room::{Progress, RecordingState};
use recorder_core::time::BootTime;
use serde_json::{Map, Value};

use super::input::{CallInput, Ending};
use super::people::Participant;
use super::slot::{CallShared, Membership};
use crate::ports::{ConnectionState, DiskLevel};
use crate::session::SessionHandle;
use crate::supervise::lock;

/// Facts of the room that wait for the session's folder; later ones are not in the manifest.
const MOST_FACTS: usize = 256;

/// How long somebody may be in the call without a connection before the room reads of it.
const REACH: Duration = Duration::from_secs(20);
/// Of so many the names are told.
const MOST_NAMES: usize = 3;

/// A fact of the room, for the session.
pub(super) struct RoomFact {
    at: BootTime,
    kind: EventKind,
    user: Option<String>,
    detail: Map<String, Value>,
}

impl CallShared {
    /// Who is in the call now; the machine hears of it when it is another than before.
    pub(crate) fn show_members(&self, members: Vec<Member>, own: Option<Value>) {
        {
            let mut shown = lock(&self.shown);
            if shown.as_ref().is_some_and(|shown| (&shown.0, &shown.1) == (&members, &own)) {
                return;
            }
            *shown = Some((members.clone(), own.clone()));
        }
        self.tell(CallInput::Members { members, own });
    }

    /// Of these users nothing is recorded, of all others something: a level, compared with what is in force. A 1:1 call
    /// has nobody else to record, so it ends.
    pub(crate) fn keep_consent(&self, opted_out: &BTreeSet<String>) {
        let changed: Vec<(String, bool)> = {
            let in_force = lock(&self.opted_out);
            if *in_force == *opted_out {
                Vec::new()
            } else {
                let out = opted_out.difference(&in_force).map(|user| (user.clone(), true));
                out.chain(in_force.difference(opted_out).map(|user| (user.clone(), false))).collect()
            }
        };
        for (user, out) in changed {
            self.set_consent(user, out);
        }
        let caller = self.started_by.as_ref().filter(|_| self.kind == CallKind::OneToOne);
        if let Some(caller) = caller.filter(|caller| opted_out.contains(*caller)) {
            self.stop(Ending { end: CallEnd::OptedOut, by: Some(caller.clone()) });
        }
    }

    /// From now on nothing of this user is recorded, or something again.
    fn set_consent(&self, user: String, opted_out: bool) {
        // At once, and not when the CallActor looks next.
        let session = lock(&self.session).clone();
        for (key, person) in lock(&self.people).iter_mut().filter(|(key, _)| key.user == user) {
            let peer = person.peer();
            let party = person.party.clone();
            let Some(place) = &mut person.place else { continue };
            if !opted_out
                && std::mem::take(&mut place.hidden)
                && let Some(session) = &session
            {
                // Before the first file, whose name it decides.
                session.tell(Record::ParticipantRenamed {
                    participant: place.id.clone(),
                    user_id: Some(key.user.clone()),
                    device_id: key.device.clone(),
                    party_id: party,
                    display_name: Some(place.name.clone()),
                });
                place.slot.rename(&place.name);
            }
            if let Some(peer) = peer {
                peer.set_opted_out(opted_out);
                place.slot.nudge();
            }
        }
        // Last: what is not noted as in force is done again at the next look.
        let mut in_force = lock(&self.opted_out);
        if opted_out {
            in_force.insert(user);
        } else {
            in_force.remove(&user);
        }
        drop(in_force);
        self.link.nudge();
    }

    /// Who began the call, for whoever reads of it: nobody who has opted out.
    pub(crate) fn starter(&self) -> Option<String> {
        self.started_by.clone().filter(|user| !lock(&self.opted_out).contains(user))
    }

    /// A command or a consent, for the manifest's events.
    pub(crate) fn tell_event(&self, kind: EventKind, user: Option<&str>, detail: Map<String, Value>) {
        let at = self.world.clock.now();
        let mut waiting = lock(&self.to_tell);
        if waiting.len() < MOST_FACTS {
            waiting.push_back(RoomFact { at, kind, user: user.map(str::to_owned), detail });
        }
        drop(waiting);
        self.link.nudge();
    }

    /// What waited for the session, and for the participants it names.
    pub(super) fn tell_session(&self, session: &SessionHandle) {
        for fact in std::mem::take(&mut *lock(&self.to_tell)) {
            let participant = fact.user.as_ref().and_then(|user| {
                let people = lock(&self.people);
                let mut of_user = people.iter().filter(|(key, _)| key.user == *user);
                of_user.find_map(|(_, person)| Some(person.place.as_ref()?.id.clone()))
            });
            session.tell(Record::Event(Event {
                at_s: session.session_s(fact.at),
                kind: fact.kind.into(),
                participant,
                track: None,
                detail: fact.detail,
            }));
        }
    }

    /// Who is said to be in the call and cannot be reached, `known` for that from calls before; and who is in it and no
    /// longer said to be. `None` before it is known and when the call has ended.
    pub(crate) fn attendance(&self, known: &[Member]) -> Option<(Vec<Member>, Vec<Member>)> {
        let told = lock(&self.shown).is_some() && lock(&self.inbox).is_empty();
        lock(&self.machine).attendance(known).filter(|_| told)
    }

    /// The signal is for us in this call.
    pub(crate) fn is_addressee(&self, signal: &ToDeviceSignal) -> bool {
        lock(&self.machine).is_addressee(signal)
    }

    /// What waits at the homeserver to take our membership back.
    pub(crate) fn delay(&self) -> Option<String> {
        self.delayed_leave.delay()
    }

    /// Of a session that a next process can find, because it has a folder.
    pub(crate) fn session_id(&self) -> Option<SessionId> {
        let session = lock(&self.session);
        session.as_ref().filter(|session| session.folder().is_some()).map(|it| it.session_id().clone())
    }

    /// How the recording fares, for the room's status message.
    pub(crate) fn progress(&self) -> Progress {
        let mut progress = Progress {
            duration_s: self.world.clock.utc_micros().saturating_sub(self.started_utc_micros) as f64 / 1e6,
            ..Progress::default()
        };
        if let Some(session) = &*lock(&self.session) {
            let (saved, participants) = session.saved();
            (progress.participants, progress.bytes) = (participants, saved.bytes);
        }
        // Since this process has the session.
        let mut media = false;
        for track in lock(&self.people).values().flat_map(Participant::peers).flat_map(|peer| peer.tracks()) {
            media = true;
            progress.streams += usize::from(lock(&track.shared.current).is_some());
        }
        progress.state = if lock(&self.ending).is_some() {
            RecordingState::Ending
        } else if self.is_connected() || media {
            RecordingState::Recording
        } else {
            RecordingState::Connecting
        };
        match *self.world.disk.borrow() {
            DiskLevel::Plenty => {}
            DiskLevel::VideoStopped => {
                progress.warnings.push("The disk is nearly full: only sound is recorded.".to_owned());
            }
            DiskLevel::AllStopped => {
                progress.warnings.push("The disk is full: nothing is recorded.".to_owned());
            }
        }
        match *lock(&self.membership) {
            Membership::Refused if self.joined.load(Ordering::Acquire) => progress.warnings.push(
                "The homeserver refuses to renew my place in the call: when it runs out, I drop out."
                    .to_owned(),
            ),
            Membership::Unanswered if self.joined.load(Ordering::Acquire) => progress.warnings.push(
                "The homeserver does not answer, so I could not renew my place in the call yet.".to_owned(),
            ),
            _ => {}
        }
        progress.warnings.extend(self.out_of_reach());
        if self.nobody_to_record() {
            progress.warnings.push("Everybody in the call has opted out: nothing is recorded.".to_owned());
        }
        if self.session_failed.load(Ordering::Acquire) {
            progress.warnings.push("The recording's folder cannot be made: nothing is recorded.".to_owned());
        }
        if self.beyond.load(Ordering::Relaxed) > 0 {
            progress.warnings.push("Some devices are not recorded: there are, or were, too many.".to_owned());
        }
        progress
    }

    /// We are in the call, and somebody there is or was connected to us, whether or not they want to be recorded.
    fn is_connected(&self) -> bool {
        let connected = lock(&self.legs).values().any(|leg| {
            leg.facts.as_ref().is_some_and(|facts| facts.borrow().state == ConnectionState::Connected)
        });
        self.connected.fetch_or(connected, Ordering::AcqRel) || connected
    }

    fn nobody_to_record(&self) -> bool {
        let (people, opted_out) = (lock(&self.people), lock(&self.opted_out));
        let mut there = people.iter().filter(|(_, person)| person.present).peekable();
        there.peek().is_some() && there.all(|(key, _)| opted_out.contains(&key.user))
    }

    /// Those who are said to be in the call and have had no connection for a while: they cannot be reached, or are gone
    /// without a word.
    fn out_of_reach(&self) -> Option<String> {
        let now = self.world.clock.now();
        let people = lock(&self.people);
        let mut missing = lock(&self.missing);
        let is_missing = |person: &Participant| {
            let state =
                person.leg.and_then(|leg| Some(lock(&self.legs).get(&leg)?.facts.as_ref()?.borrow().state));
            person.present && state != Some(ConnectionState::Connected)
        };
        missing.retain(|key, _| people.get(key).is_some_and(is_missing));
        for (key, _) in people.iter().filter(|(_, person)| is_missing(person)) {
            missing.entry(key.clone()).or_insert(now);
        }
        let opted_out = lock(&self.opted_out);
        let mut names: Vec<String> = missing
            .iter()
            .filter(|(key, since)| now.saturating_since(**since) >= REACH && !opted_out.contains(&key.user))
            .filter_map(|(key, _)| {
                let person = people.get(key)?;
                let entered = person.place.as_ref().map(|place| place.name.clone());
                entered.or_else(|| self.name_of(&key.user, person.since))
            })
            .collect();
        let more = names.len().saturating_sub(MOST_NAMES);
        names.truncate(MOST_NAMES);
        let more = if more == 0 { String::new() } else { format!(" and {more} more") };
        (!names.is_empty())
            .then(|| format!("No connection to {}{more}: nothing of them is recorded.", names.join(", ")))
    }

    /// What the call left, once it is done.
    pub(crate) fn outcome(&self) -> (Saved, usize, EndReason) {
        lock(&self.saved).unwrap_or((Saved::default(), 0, EndReason::Failed))
    }
}

/// Shared with whoever holds the call.
pub(super) type Shown = Option<(Vec<Member>, Option<Value>)>;
