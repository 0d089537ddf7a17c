//! The machine itself: what it holds, and how its inputs are given out to its parts.

use std::collections::{BTreeSet, VecDeque};

use super::action::{MessageKind, MessageTag, Relation, RoomAction};
use super::address::Names;
use super::durable::Durable;
use super::input::{Authority, Closing, Ended, GatheringView, Powers, Progress, Reaction, Said};
use super::lifecycle::{Gathering, Session};
use super::name::OwnName;
use super::pace::{Pace, Told};
use super::settings::Settings;
use super::status::Status;
use crate::call::Announcement;
use crate::manifest::EndReason;
use crate::time::BootTime;

/// What a room's machine is at, for the page and the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activity {
    Idle,
    /// The next call is to be recorded: by `start`, or by `auto`.
    Armed,
    Recording,
    /// The session was asked to end.
    Stopping,
    /// We are no longer in the room, or it was replaced.
    Closed,
}

/// Why a room's next call is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Waits {
    /// Somebody asked for the next one.
    Start,
    /// Somebody asked for every one.
    Auto,
    /// The configuration wants every one.
    Configured,
}

/// The recording side of one room.
#[derive(Clone, Debug)]
pub struct Room {
    pub(super) settings: Settings,
    pub(super) durable: Durable,
    pub(super) names: Names,
    pub(super) own_name: OwnName,
    /// Who was in the call when it was last told; never without members.
    pub(super) view: Option<Gathering>,
    pub(super) gathering: Option<Gathering>,
    /// Set exactly while `durable.running` is.
    pub(super) session: Option<Session>,
    pub(super) closed: Option<Closing>,
    /// As last heard.
    pub(super) powers: Option<Powers>,
    /// How many calls may be recorded at once, while so many are.
    pub(super) full: Option<usize>,
    pub(super) pace: Pace,
    pub(super) told: Told,
    /// The process is ending: nothing begins any more.
    pub(super) shut_down: bool,
    /// Status messages of ended sessions that wait for their last edit.
    pub(super) closing_status: VecDeque<Status>,
    pub(super) next_message: u64,
    dirty: bool,
}

impl Room {
    /// A machine that goes on with what an earlier process left. If a session was running then, the tree says either
    /// [`Room::start_restored`] or [`Room::ended`].
    pub fn new(settings: Settings, durable: Durable) -> Self {
        let mut room = Self {
            pace: Pace::new(settings.commands_per_minute),
            names: Names::new(&settings.user, &settings.name),
            own_name: OwnName::default(),
            settings,
            durable,
            view: None,
            gathering: None,
            session: None,
            closed: None,
            powers: None,
            full: None,
            told: Told::default(),
            shut_down: false,
            closing_status: VecDeque::new(),
            next_message: 1,
            dirty: false,
        };
        room.restore();
        room
    }

    pub fn durable(&self) -> &Durable {
        &self.durable
    }

    pub fn opted_out(&self) -> &BTreeSet<String> {
        &self.durable.opted_out
    }

    pub fn is_opted_out(&self, user: &str) -> bool {
        self.durable.opted_out.contains(user)
    }

    /// Whether the next gathering is recorded without a further word.
    pub fn auto(&self) -> bool {
        self.durable.auto.as_ref().map_or(self.settings.auto, |auto| auto.on)
    }

    pub fn activity(&self) -> Activity {
        match (&self.session, &self.closed) {
            (Some(session), _) if session.is_stopping() => Activity::Stopping,
            (Some(_), _) => Activity::Recording,
            (None, Some(Closing::Removed | Closing::Upgraded { .. })) => Activity::Closed,
            (None, _) if self.durable.armed_by.is_some() || self.auto() => Activity::Armed,
            (None, _) => Activity::Idle,
        }
    }

    /// Why the session that runs is to end, if it is, and who said so: a level, as [`Durable::running`] is.
    pub fn ending(&self) -> Option<(EndReason, Option<&str>)> {
        let (reason, by) = self.session.as_ref()?.ending.as_ref()?;
        Some((*reason, by.as_deref()))
    }

    /// Why the next call is recorded, if it is, and who asked for it, unless that user has opted out.
    pub fn waits(&self) -> Option<(Waits, Option<&str>)> {
        if self.activity() != Activity::Armed {
            return None;
        }
        let (waits, by) = match (&self.durable.armed_by, &self.durable.auto) {
            (Some(by), _) => (Waits::Start, Some(by)),
            (None, Some(auto)) => (Waits::Auto, Some(&auto.by)),
            (None, None) => (Waits::Configured, None),
        };
        Some((waits, by.map(String::as_str).filter(|by| !self.is_opted_out(by))))
    }

    /// A message of the room. What is no command gives nothing.
    pub fn command(&mut self, said: &Said, authority: &Authority, now: BootTime) -> Vec<RoomAction> {
        let mut out = Vec::new();
        self.obey(said, authority, now, &mut out);
        self.done(out)
    }

    /// A reaction to any message.
    pub fn reaction(&mut self, reaction: &Reaction, authority: &Authority, now: BootTime) -> Vec<RoomAction> {
        let mut out = Vec::new();
        self.reacted(reaction, authority, now, &mut out);
        self.done(out)
    }

    /// Who is in the room's call now: a level, told as often as the tree likes. `None`: there is no call, or nobody
    /// is in it.
    pub fn gathering(&mut self, view: Option<GatheringView>, now: BootTime) -> Vec<RoomAction> {
        let mut out = Vec::new();
        self.seen(view, now, &mut out);
        self.done(out)
    }

    /// How the session fares: a level, told as often as the tree likes.
    pub fn recording(&mut self, progress: Progress, now: BootTime) -> Vec<RoomAction> {
        let mut out = Vec::new();
        self.progressed(progress, now, &mut out);
        self.done(out)
    }

    /// The session is over and its files are whole, or it could not be begun. Once for each
    /// [`RoomAction::Begin`].
    pub fn ended(&mut self, ended: Ended, now: BootTime) -> Vec<RoomAction> {
        let mut out = Vec::new();
        self.session_ended(ended, now, &mut out);
        self.done(out)
    }

    /// A message of ours was sent.
    pub fn said(&mut self, tag: MessageTag, event_id: &str, now: BootTime) -> Vec<RoomAction> {
        let mut out = Vec::new();
        self.was_said(tag, event_id, now, &mut out);
        self.done(out)
    }

    /// A message of ours was not sent, and will not be.
    pub fn failed(&mut self, tag: MessageTag, now: BootTime) -> Vec<RoomAction> {
        let mut out = Vec::new();
        self.was_not_said(tag, false, now, &mut out);
        self.done(out)
    }

    /// The homeserver refused a message of ours for good: we may not say it.
    pub fn refused(&mut self, tag: MessageTag, now: BootTime) -> Vec<RoomAction> {
        let mut out = Vec::new();
        self.was_not_said(tag, true, now, &mut out);
        self.done(out)
    }

    /// Time has passed; due each second.
    pub fn tick(&mut self, now: BootTime) -> Vec<RoomAction> {
        let mut out = Vec::new();
        self.pass(now, &mut out);
        self.done(out)
    }

    /// After a restart of the process: the session that [`Durable::running`] names goes on.
    pub fn start_restored(&mut self, now: BootTime) -> Vec<RoomAction> {
        let mut out = Vec::new();
        self.restored(now, &mut out);
        self.done(out)
    }

    /// The process is ending in order. May be said again.
    pub fn shut_down(&mut self, now: BootTime) -> Vec<RoomAction> {
        let mut out = Vec::new();
        self.suspend(now, &mut out);
        self.done(out)
    }

    /// Our power levels, whenever they may have changed.
    pub fn powers(&mut self, powers: Powers, now: BootTime) -> Vec<RoomAction> {
        let mut out = Vec::new();
        self.have_powers(powers, now, &mut out);
        self.consider_begin(now, &mut out);
        self.show(now, &mut out);
        self.done(out)
    }

    /// We have just come into the room: whoever invited us hears at once if we may not do there what they want of us.
    pub fn arrived(&mut self, powers: Powers, now: BootTime) -> Vec<RoomAction> {
        let mut out = Vec::new();
        self.lacks_power(powers, now, &mut out);
        self.done(out)
    }

    /// The call or the room is over for us.
    pub fn close(&mut self, why: Closing, now: BootTime) -> Vec<RoomAction> {
        let mut out = Vec::new();
        self.closing(why, now, &mut out);
        self.done(out)
    }

    /// We are in the room, perhaps again. A room that was replaced stays so.
    pub fn rejoined(&mut self) {
        if self.closed == Some(Closing::Removed) {
            self.closed = None;
        }
    }

    /// `Some`: so many calls may be recorded at once, and are, so none begins here. A level.
    pub fn full(&mut self, most: Option<usize>) {
        self.full = most;
    }

    /// The room shows us by this name: a level, told as often as the tree likes.
    pub fn called(&mut self, name: Option<&str>, now: BootTime) -> Vec<RoomAction> {
        let mut out = Vec::new();
        self.was_called(name, now, &mut out);
        self.done(out)
    }

    /// Whether the homeserver took a name of ours.
    pub fn named(&mut self, number: u64, taken: bool, now: BootTime) -> Vec<RoomAction> {
        let mut out = Vec::new();
        self.was_named(number, taken, now, &mut out);
        self.done(out)
    }

    /// We came into the room at this time, which may be before we heard of it: what was said since is said to us.
    pub fn joined(&mut self, at: BootTime) {
        self.settings.listening = self.settings.listening.min(at);
    }

    /// A message could not be decrypted and is given up: its sender is told once an hour, because it may have been a
    /// command.
    pub fn undecryptable(&mut self, event_id: &str, sender: &str, now: BootTime) -> Vec<RoomAction> {
        let mut out = Vec::new();
        self.not_decrypted(event_id, sender, now, &mut out);
        self.done(out)
    }

    /// A 1:1 call of somebody who opted out in this room was rejected.
    pub fn call_rejected(&mut self, caller: &str, now: BootTime) -> Vec<RoomAction> {
        let mut out = Vec::new();
        self.was_rejected(caller, now, &mut out);
        self.done(out)
    }

    /// Something of [`Durable`] has changed.
    pub(super) fn keep(&mut self) {
        self.dirty = true;
    }

    pub(super) fn next_tag(&mut self, kind: MessageKind) -> MessageTag {
        let number = self.next_message;
        self.next_message += 1;
        MessageTag { kind, number }
    }

    pub(super) fn say(
        &mut self,
        kind: MessageKind,
        message: Announcement,
        relation: Relation,
        out: &mut Vec<RoomAction>,
    ) -> MessageTag {
        let tag = self.next_tag(kind);
        out.push(RoomAction::Say { tag, message, relation });
        tag
    }

    fn done(&mut self, mut out: Vec<RoomAction>) -> Vec<RoomAction> {
        if std::mem::take(&mut self.dirty) {
            out.push(RoomAction::Persist);
        }
        out
    }
}
