//! When a session begins and ends: gatherings, `start` and `auto`, everybody gone, the room lost.

use std::collections::{BTreeSet, VecDeque};

use serde_json::{Map, json};

use super::action::{MessageKind, MessageTag, Relation, RoomAction};
use super::durable::Running;
use super::input::{Closing, Ended, GatheringView, Progress, RecordingState};
use super::machine::Room;
use super::pace::Topic;
use super::status::{Phase, Shown, Status};
use super::{limits, texts};
use crate::manifest::{CallKind, EndReason, EventKind};
use crate::time::BootTime;

/// People in a call, from the first to come until nobody has been there for `empty_after`.
#[derive(Clone, Debug)]
pub(super) struct Gathering {
    pub(super) call_id: String,
    pub(super) kind: CallKind,
    pub(super) members: BTreeSet<String>,
    empty_since: Option<BootTime>,
}

/// The session that runs, as far as it need not outlive the process.
#[derive(Clone, Debug)]
pub(super) struct Session {
    /// Why it is to end, once it is, and whom the manifest may name for it.
    pub(super) ending: Option<(EndReason, Option<String>)>,
    /// The process is ending; the next may go on with it.
    paused: bool,
    /// Our power does not suffice any more.
    pub(super) power_lost: bool,
    pub(super) stopped_by: Option<String>,
    /// Its gathering is over: the next one is another.
    gathering_over: bool,
    restored: bool,
    /// Of an earlier process, and it is not known yet whether it goes on.
    pub(super) unsettled: bool,
    pub(super) progress: Progress,
    pub(super) status: Status,
    /// Who has still to be told, and when.
    pub(super) untold: BTreeSet<String>,
    pub(super) late_due: Option<BootTime>,
    /// When people were last told.
    pub(super) last_told: Option<BootTime>,
    /// Consent messages whose event ids are not yet known, with whom they tell.
    pub(super) under_way: VecDeque<(MessageTag, Vec<String>)>,
    pub(super) failures: u8,
    /// Objections to messages whose event ids are not yet known: (event, sender).
    pub(super) early: VecDeque<(String, String)>,
}

impl Session {
    fn new(status_event: Option<String>, restored: bool) -> Self {
        let progress = Progress::default();
        let status = Status::new(status_event, Shown::of(&progress, None, Phase::Connecting, restored));
        Self {
            ending: None,
            paused: false,
            power_lost: false,
            stopped_by: None,
            gathering_over: false,
            restored,
            unsettled: restored,
            progress,
            status,
            untold: BTreeSet::new(),
            late_due: None,
            last_told: None,
            under_way: VecDeque::new(),
            failures: 0,
            early: VecDeque::new(),
        }
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.ending.is_some()
    }

    /// A message that tells this user is under way.
    pub(super) fn is_being_told(&self, user: &str) -> bool {
        self.under_way.iter().any(|(_, whom)| whom.iter().any(|other| other == user))
    }

    /// `alone`: nobody but us is in the call.
    pub(super) fn phase(&self, alone: bool) -> Phase {
        match self.progress.state {
            _ if self.is_stopping() => Phase::Stopping,
            _ if self.paused => Phase::Paused,
            RecordingState::Ending => Phase::Stopping,
            _ if alone => Phase::Alone,
            RecordingState::Connecting => Phase::Connecting,
            RecordingState::Recording => Phase::Recording,
        }
    }
}

impl Room {
    /// What an earlier process left running. Its gathering counts as empty until somebody is seen.
    pub(super) fn restore(&mut self) {
        let Some(running) = &self.durable.running else { return };
        self.session = Some(Session::new(running.status.clone(), true));
        self.gathering = Some(Gathering {
            call_id: running.call_id.clone(),
            kind: running.kind,
            members: BTreeSet::new(),
            empty_since: Some(self.settings.started),
        });
    }

    pub(super) fn restored(&mut self, now: BootTime, out: &mut Vec<RoomAction>) {
        if let Some(session) = self.session.as_mut().filter(|session| session.unsettled) {
            session.unsettled = false;
            self.keep_name(now, out);
            self.look(now, out);
            self.show(now, out);
        }
    }

    /// The process is ending: nothing begins, and what runs is shown as it will be for as long as no process looks.
    pub(super) fn suspend(&mut self, now: BootTime, out: &mut Vec<RoomAction>) {
        if std::mem::replace(&mut self.shut_down, true) {
            return;
        }
        let Some(session) = self.session.as_mut().filter(|session| !session.is_stopping()) else { return };
        session.paused = true;
        session.untold.clear();
        self.keep_name(now, out);
        self.show(now, out);
    }

    pub(super) fn seen(&mut self, view: Option<GatheringView>, now: BootTime, out: &mut Vec<RoomAction>) {
        let own = &self.settings.user;
        self.view = view.filter(|view| view.call_id.len() <= limits::ID_BYTES).and_then(|view| {
            let members: BTreeSet<String> = view
                .members
                .into_iter()
                .filter(|user| user != own && !user.is_empty() && user.len() <= limits::ID_BYTES)
                .take(limits::MEMBERS)
                .collect();
            let (call_id, kind) = (view.call_id, view.kind);
            (!members.is_empty()).then_some(Gathering { call_id, kind, members, empty_since: None })
        });
        self.look(now, out);
    }

    /// Brings everything up to what was seen last and to the time.
    pub(super) fn look(&mut self, now: BootTime, out: &mut Vec<RoomAction>) {
        match (&mut self.gathering, &self.view) {
            (Some(gathering), Some(view)) if gathering.call_id == view.call_id => gathering.clone_from(view),
            (Some(gathering), _) => {
                gathering.members.clear();
                gathering.empty_since.get_or_insert(now);
            }
            (None, Some(view)) if self.closed.is_none() => self.gathering = Some(view.clone()),
            (None, _) => {}
        }
        let empty = self.gathering.as_ref().and_then(|gathering| gathering.empty_since);
        if empty.is_some_and(|since| now.saturating_since(since) >= self.settings.empty_after) {
            self.gathering_over(EndReason::EveryoneLeft, out);
            self.gathering.clone_from(&self.view);
        }
        if self.gathering.is_none()
            && self.durable.held_off.is_some()
            && now.saturating_since(self.settings.started) >= self.settings.empty_after
        {
            // That gathering ended while no process looked.
            self.durable.held_off = None;
            self.keep();
        }
        self.notice_late(now);
        self.tell_late(now, out);
        self.consider_begin(now, out);
    }

    fn gathering_over(&mut self, reason: EndReason, out: &mut Vec<RoomAction>) {
        self.gathering = None;
        if self.durable.held_off.take().is_some() {
            self.keep();
        }
        if let Some(session) = &mut self.session {
            session.gathering_over = true;
        }
        self.stop(None, reason, out);
    }

    pub(super) fn pass(&mut self, now: BootTime, out: &mut Vec<RoomAction>) {
        self.look(now, out);
        self.keep_name(now, out);
        self.show(now, out);
    }

    /// Somebody but us is in the room's call.
    pub(super) fn is_attended(&self) -> bool {
        self.gathering.as_ref().is_some_and(|gathering| gathering.empty_since.is_none())
    }

    /// Begins a session if one is wanted and there is somebody to record.
    pub(super) fn consider_begin(&mut self, now: BootTime, out: &mut Vec<RoomAction>) {
        if self.session.is_some() || self.closed.is_some() || self.shut_down || !self.is_attended() {
            return;
        }
        let Some(gathering) = &self.gathering else { return };
        let armed = self.durable.armed_by.is_some();
        let auto = self.auto() && self.durable.held_off.as_ref() != Some(&gathering.call_id);
        if !armed && !auto {
            return;
        }
        if let Some(powers) = self.powers.filter(|powers| !powers.suffice()) {
            return self.lacks_power(powers, now, out);
        }
        if let Some(most) = self.full {
            let own = self.settings.user.clone();
            if self.told.first(&own, Topic::Full, now) {
                self.say(MessageKind::Notice, texts::full(most).notice(), Relation::None, out);
            }
            return;
        }
        let by = if armed {
            self.durable.armed_by.take()
        } else {
            self.durable.auto.as_ref().map(|auto| auto.by.clone())
        };
        let running = Running {
            call_id: gathering.call_id.clone(),
            kind: gathering.kind,
            by,
            auto: !armed,
            stopping: false,
            told: BTreeSet::new(),
            consent: Vec::new(),
            status: None,
        };
        self.begin(running, now, out);
    }

    fn begin(&mut self, running: Running, now: BootTime, out: &mut Vec<RoomAction>) {
        out.push(RoomAction::Begin {
            call_id: running.call_id.clone(),
            kind: running.kind,
            by: running.by.clone(),
            auto: running.auto,
        });
        self.durable.running = Some(running);
        self.durable.held_off = None;
        self.session = Some(Session::new(None, false));
        self.keep();
        self.keep_name(now, out);
        self.announce(now, out);
        self.show(now, out);
    }

    /// Asks for the end of the session, once.
    pub(super) fn stop(&mut self, by: Option<&str>, reason: EndReason, out: &mut Vec<RoomAction>) {
        let named = by.filter(|user| !self.is_opted_out(user)).map(str::to_owned);
        let Some(session) = self.session.as_mut().filter(|session| !session.is_stopping()) else { return };
        session.ending = Some((reason, named.clone()));
        session.stopped_by = by.map(str::to_owned);
        session.untold.clear();
        if let Some(running) = &mut self.durable.running {
            running.stopping = true;
        }
        self.keep();
        out.push(RoomAction::Stop { by: named, reason });
    }

    pub(super) fn progressed(&mut self, progress: Progress, now: BootTime, out: &mut Vec<RoomAction>) {
        let Some(session) = &mut self.session else { return };
        let mut progress = progress;
        progress.warnings.truncate(limits::WARNINGS);
        session.progress = progress;
        self.show(now, out);
    }

    pub(super) fn session_ended(&mut self, ended: Ended, now: BootTime, out: &mut Vec<RoomAction>) {
        let (Some(mut session), Some(running)) = (self.session.take(), self.durable.running.take()) else {
            return;
        };
        self.keep();
        if ended.reason == EndReason::Terminated {
            // Whoever is seen next is in another call, though its id may be the same.
            (self.view, self.gathering) = (None, None);
        }
        self.shut_down |= ended.reason == EndReason::Shutdown;
        // Who ended it does not want this gathering recorded, or it cannot be. After a shutdown the next process may.
        if !session.gathering_over && self.gathering.is_some() && !self.shut_down {
            self.durable.held_off = Some(running.call_id.clone());
        }
        running.consent.into_iter().for_each(|event| self.remember_past(event));
        session.progress.participants = ended.participants;
        session.progress.streams = ended.saved.streams;
        session.progress.duration_s = ended.saved.duration_s;
        let over = Shown::of(&session.progress, None, Phase::Over(ended.reason), session.restored);
        session.status.want(over);
        if self.closed != Some(Closing::Removed) {
            let saved = texts::saved(&ended, session.stopped_by.as_deref());
            self.say(MessageKind::Saved, saved, Relation::None, out);
            if self.closing_status.len() == limits::CLOSING_STATUS {
                self.closing_status.pop_front();
            }
            self.closing_status.push_back(session.status);
        }
        self.consider_begin(now, out);
        self.keep_name(now, out);
        self.show(now, out);
    }

    pub(super) fn closing(&mut self, why: Closing, now: BootTime, out: &mut Vec<RoomAction>) {
        match why {
            Closing::CallTerminated => {
                self.view = None;
                self.gathering_over(EndReason::Terminated, out);
                self.show(now, out);
            }
            Closing::Removed => {
                self.durable.armed_by = None;
                self.durable.auto = None;
                self.keep();
                self.closed = Some(why);
                self.closing_status.clear();
                self.forget_name();
                self.view = None;
                self.gathering_over(EndReason::Removed, out);
            }
            Closing::Upgraded { .. } if self.closed.is_none() => {
                if self.durable.armed_by.take().is_some() {
                    self.keep();
                }
                self.say(MessageKind::Notice, texts::replaced(&why), Relation::None, out);
                self.closed = Some(why);
                self.stop(None, EndReason::RoomUpgraded, out);
                self.show(now, out);
            }
            Closing::Upgraded { .. } => {}
        }
    }

    /// Brings the status messages up to date, as far as the time allows.
    pub(super) fn show(&mut self, now: BootTime, out: &mut Vec<RoomAction>) {
        let mute = self.powers.is_some_and(|powers| !powers.may_speak());
        if mute || self.session.as_ref().is_some_and(|session| session.unsettled) {
            return;
        }
        let alone = !self.is_attended();
        let warning = self.power_warning();
        let mut next = self.next_message;
        let mut tag = |kind| {
            next += 1;
            MessageTag { kind, number: next - 1 }
        };
        let mut due = Vec::new();
        if let Some(session) = &mut self.session {
            let phase = session.phase(alone);
            session.status.want(Shown::of(&session.progress, warning, phase, session.restored));
            due.extend(session.status.step(&self.settings, now, &mut tag));
        }
        for status in &mut self.closing_status {
            due.extend(status.step(&self.settings, now, &mut tag));
        }
        self.next_message = next;
        self.closing_status.retain(|status| !status.is_done());
        if self.closed == Some(Closing::Removed) {
            return;
        }
        out.extend(due.into_iter().map(|(tag, message, relation)| RoomAction::Say {
            tag,
            message,
            relation,
        }));
    }

    /// For the manifest: a command that changed something. Names nobody who has opted out.
    pub(super) fn note_command(&self, form: &str, by: &str, out: &mut Vec<RoomAction>) {
        if self.session.is_none() {
            return;
        }
        let mut detail = Map::new();
        detail.insert("command".to_owned(), json!(form));
        if !self.is_opted_out(by) {
            detail.insert("by".to_owned(), json!(by));
        }
        out.push(RoomAction::ConsentEvent { kind: EventKind::Command, user: None, detail });
    }
}
