//! Who is told that a recording runs, and who is not to be recorded.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Map, json};

use super::action::{MessageKind, MessageTag, Relation, RoomAction};
use super::input::{Authority, Reaction};
use super::lifecycle::Session;
use super::machine::Room;
use super::pace::Topic;
use super::{Refusal, limits, texts};
use crate::call::Announcement;
use crate::manifest::{EndReason, EventKind};
use crate::time::BootTime;

/// The reaction that objects.
const OBJECTION: &str = "🚫";
/// How long somebody who came is waited with, so that those who come together are told together.
const COME_TOGETHER: Duration = Duration::from_secs(1);
/// Time between two messages to those who came late.
const BETWEEN_LATE: Duration = Duration::from_secs(5);
/// Consent messages of one session that may fail before any was said. With a homeserver that is away later nobody can join
/// the call either: what flows is recorded, and they are tried on.
const MOST_FAILURES: u8 = 10;
/// Objections remembered until it is known to which message they were.
const MOST_EARLY: usize = 64;

impl Room {
    /// Tells those in the call that recording has begun. Those who do not fit into one message get the next.
    pub(super) fn announce(&mut self, now: BootTime, out: &mut Vec<RoomAction>) {
        let Some(session) = &mut self.session else { return };
        let Some(gathering) = &self.gathering else { return };
        session.untold.clone_from(&gathering.members);
        self.tell(MessageKind::Announcement, now, out);
    }

    /// Marks those who came since as to be told.
    pub(super) fn notice_late(&mut self, now: BootTime) {
        let (Some(session), Some(running), Some(gathering)) =
            (&mut self.session, &self.durable.running, &self.gathering)
        else {
            return;
        };
        if session.is_stopping() || self.shut_down || gathering.call_id != running.call_id {
            return;
        }
        let being_told = session.under_way.iter().map(|(_, whom)| whom.len()).sum::<usize>();
        for user in &gathering.members {
            if running.told.len() + being_told + session.untold.len() >= limits::TOLD {
                break;
            }
            if !running.told.contains(user) && !session.is_being_told(user) {
                session.untold.insert(user.clone());
            }
        }
        if !session.untold.is_empty() && session.late_due.is_none() {
            let earliest = session.last_told.map_or(now, |last| last + BETWEEN_LATE);
            session.late_due = Some(earliest.max(now + COME_TOGETHER));
        }
    }

    pub(super) fn tell_late(&mut self, now: BootTime, out: &mut Vec<RoomAction>) {
        let Some(session) = &self.session else { return };
        if !session.is_stopping() && !self.shut_down && session.late_due.is_some_and(|due| now >= due) {
            self.tell(MessageKind::LateJoiners, now, out);
        }
    }

    fn tell(&mut self, kind: MessageKind, now: BootTime, out: &mut Vec<RoomAction>) {
        let tag = self.next_tag(kind);
        let (Some(session), Some(running)) = (&mut self.session, &mut self.durable.running) else { return };
        session.late_due = None;
        let mut room = limits::MENTION_BYTES;
        let mut whom = Vec::new();
        while whom.len() < limits::MENTIONS
            && let Some(user) = session.untold.first()
            && let Some(left) = room.checked_sub(texts::mention_cost(user))
        {
            room = left;
            whom.extend(session.untold.pop_first());
        }
        if whom.is_empty() {
            return;
        }
        session.last_told = Some(now);
        let opted_out: Vec<String> =
            whom.iter().filter(|user| self.durable.opted_out.contains(*user)).cloned().collect();
        let message = texts::consent(
            &whom,
            &opted_out,
            running.by.as_deref(),
            running.auto,
            kind == MessageKind::LateJoiners,
        );
        session.under_way.push_back((tag, whom));
        let forgotten = (session.under_way.len() > limits::MESSAGES_UNDER_WAY)
            .then(|| session.under_way.pop_front())
            .flatten();
        out.push(RoomAction::Say { tag, message, relation: Relation::None });
        if let Some((tag, whom)) = forgotten {
            self.have_been_told(tag, whom, out);
        }
    }

    /// These people know. Before that a restart would leave them untold.
    fn have_been_told(&mut self, tag: MessageTag, whom: Vec<String>, out: &mut Vec<RoomAction>) {
        let Some(running) = &mut self.durable.running else { return };
        running.told.extend(whom.iter().cloned());
        let (opted_out, willing): (Vec<String>, Vec<String>) =
            whom.into_iter().partition(|user| self.durable.opted_out.contains(user));
        let what = if tag.kind == MessageKind::LateJoiners { "late_joiners_told" } else { "announced" };
        let mut detail = Map::new();
        detail.insert("what".to_owned(), json!(what));
        detail.insert("told".to_owned(), json!(willing));
        if !opted_out.is_empty() {
            detail.insert("opted_out".to_owned(), json!(opted_out.len()));
        }
        out.push(RoomAction::ConsentEvent { kind: EventKind::Consent, user: None, detail });
        self.keep();
    }

    pub(super) fn was_said(
        &mut self,
        tag: MessageTag,
        event: &str,
        now: BootTime,
        out: &mut Vec<RoomAction>,
    ) {
        if event.is_empty() || event.len() > limits::ID_BYTES {
            return self.was_not_said(tag, false, now, out);
        }
        match tag.kind {
            MessageKind::Announcement | MessageKind::LateJoiners => self.consent_said(tag, event, out),
            MessageKind::Status | MessageKind::StatusEdit => {
                self.closing_status.iter_mut().for_each(|status| _ = status.said(tag, event));
                if let (Some(session), Some(running)) = (&mut self.session, &mut self.durable.running)
                    && session.status.said(tag, event)
                    && running.status.as_deref() != session.status.event()
                {
                    running.status = session.status.event().map(str::to_owned);
                    self.keep();
                }
                self.closing_status.retain(|status| !status.is_done());
            }
            MessageKind::Saved | MessageKind::Reply | MessageKind::Notice => {}
        }
    }

    fn consent_said(&mut self, tag: MessageTag, event: &str, out: &mut Vec<RoomAction>) {
        let ours = |session: &Session| session.under_way.iter().position(|(other, _)| *other == tag);
        let (Some(session), Some(running)) = (&mut self.session, &mut self.durable.running) else {
            return self.remember_past(event.to_owned());
        };
        let Some(at) = ours(session) else { return self.remember_past(event.to_owned()) };
        let whom = session.under_way.remove(at).map(|(_, whom)| whom);
        if running.consent.len() == limits::CONSENT_MESSAGES {
            running.consent.remove(1);
        }
        running.consent.push(event.to_owned());
        let objected: Vec<String> =
            session.early.iter().filter(|(to, _)| to == event).map(|(_, sender)| sender.clone()).collect();
        session.early.retain(|(to, _)| to != event);
        if session.under_way.is_empty() {
            session.early.clear();
        }
        for sender in objected {
            self.objected(&sender, event, true, out);
        }
        self.have_been_told(tag, whom.unwrap_or_default(), out);
    }

    /// A message of a session that has ended: what is said under it counts all the same.
    pub(super) fn remember_past(&mut self, event: String) {
        let past = &mut self.durable.past_consent;
        if past.len() >= limits::CONSENT_MESSAGES {
            past.drain(..=past.len() - limits::CONSENT_MESSAGES);
        }
        past.push(event);
        self.keep();
    }

    pub(super) fn was_not_said(
        &mut self,
        tag: MessageTag,
        refused: bool,
        now: BootTime,
        out: &mut Vec<RoomAction>,
    ) {
        self.closing_status.iter_mut().for_each(|status| _ = status.failed(tag));
        self.closing_status.retain(|status| !status.is_done());
        let (Some(session), Some(running)) = (&mut self.session, &mut self.durable.running) else { return };
        session.status.failed(tag);
        let Some(at) = session.under_way.iter().position(|(other, _)| *other == tag) else { return };
        let Some((_, whom)) = session.under_way.remove(at) else { return };
        session.failures = session.failures.saturating_add(1);
        if session.is_stopping() {
            return;
        }
        let nobody_knows = running.consent.is_empty() && session.failures > MOST_FAILURES;
        if refused || nobody_knows {
            // Nobody is recorded who cannot be told.
            out.push(RoomAction::Report { text: texts::not_announced(refused) });
            self.stop(None, EndReason::NotAnnounced, out);
            return self.show(now, out);
        }
        session.untold.extend(whom);
        session.late_due = Some(now + BETWEEN_LATE);
    }

    pub(super) fn reacted(
        &mut self,
        reaction: &Reaction,
        authority: &Authority,
        now: BootTime,
        out: &mut Vec<RoomAction>,
    ) {
        let key: String = reaction.key.chars().filter(|letter| *letter != '\u{fe0f}').collect();
        if key != OBJECTION || reaction.sender == self.settings.user {
            return;
        }
        let running = self.durable.running.iter().flat_map(|running| &running.consent);
        if running.chain(&self.durable.past_consent).any(|event| *event == reaction.event) {
            self.objected(&reaction.sender, &reaction.event, authority.joined, out);
        } else if let Some(session) = self.session.as_mut().filter(|session| !session.under_way.is_empty()) {
            if session.early.len() == MOST_EARLY {
                session.early.pop_front();
            }
            session.early.push_back((reaction.event.clone(), reaction.sender.clone()));
        }
        self.show(now, out);
    }

    /// 🚫 on a message that told of the recording. It holds whoever left since; only there is nobody to be answered.
    fn objected(&mut self, user: &str, event: &str, joined: bool, out: &mut Vec<RoomAction>) {
        let already = self.is_opted_out(user);
        let message = self.opt_out(user, "reaction", out);
        if already || !joined {
            return;
        }
        let relation = Relation::Thread { root: event.to_owned(), reply_to: event.to_owned() };
        self.say(MessageKind::Reply, message, relation, out);
    }

    /// In force with the first action. The answer to it.
    pub(super) fn opt_out(&mut self, user: &str, way: &str, out: &mut Vec<RoomAction>) -> Announcement {
        let contact = self.settings.contact.clone();
        let already = self.is_opted_out(user);
        if !already && self.durable.opted_out.len() >= limits::OPTED_OUT {
            out.push(RoomAction::Count(Refusal::Full));
            return texts::opt_outs_full(contact.as_deref());
        }
        out.push(RoomAction::OptOut { user: user.to_owned() });
        if !already {
            // What was told of the person before stands; from here on the manifest is told no name.
            self.durable.opted_out.insert(user.to_owned());
            self.told.forget(user);
            self.note_choice(EventKind::OptedOut, user, way, out);
            self.keep();
        }
        texts::opted_out(user, already, self.session.is_some(), contact.as_deref())
    }

    pub(super) fn opt_in(&mut self, user: &str, out: &mut Vec<RoomAction>) -> Announcement {
        let was = self.durable.opted_out.remove(user);
        if was {
            out.push(RoomAction::OptIn { user: user.to_owned() });
            self.note_choice(EventKind::OptedIn, user, "command", out);
            self.keep();
        }
        texts::opted_in(user, !was)
    }

    /// For every call that the room knows to be recorded, and for a 1:1 call of the person, of which it knows nothing.
    fn note_choice(&self, kind: EventKind, user: &str, way: &str, out: &mut Vec<RoomAction>) {
        let detail = Map::from_iter([("way".to_owned(), json!(way))]);
        out.push(RoomAction::ConsentEvent { kind, user: Some(user.to_owned()), detail });
    }

    /// A call that somebody who opted out placed to us was rejected. Whoever calls in vain is told why, but not at each
    /// try of a hurry.
    pub(super) fn was_rejected(&mut self, caller: &str, now: BootTime, out: &mut Vec<RoomAction>) {
        if self.told.first(caller, Topic::CallRejected, now) {
            let contact = self.settings.contact.as_deref();
            let message = texts::call_rejected(caller, self.settings.commands, contact);
            self.say(MessageKind::Notice, message, Relation::None, out);
        }
    }

    /// How many of those in the call are not recorded.
    pub(super) fn opted_out_here(&self) -> usize {
        let members = self.gathering.as_ref().map(|gathering| &gathering.members);
        members.map_or(0, |members: &BTreeSet<String>| members.intersection(&self.durable.opted_out).count())
    }
}
