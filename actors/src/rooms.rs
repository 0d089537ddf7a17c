//! The room side of group calls below the supervisor: per room the machine of commands and consent, the roster of its
//! calls, and what is said there. Everything here outlives the SupervisorActor, which runs it.

mod attendance;
mod show;
mod voice;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use recorder_core::call::{RoomEvent, Saved};
use recorder_core::ids::{CallKey, SessionId};
use recorder_core::manifest::{CallKind, EndReason, EventKind};
use recorder_core::mesh::{CALL_EVENT, Gathering, MEMBER_EVENT, Member, Roster};
use recorder_core::room::{
    self, Authority, Closing, Ended, GatheringView, MessageTag, Progress, Reaction, Room, RoomAction, Said,
};
use serde_json::{Map, Value};

use self::voice::Voice;
use crate::call::{CallShared, RecordingOrder};
use crate::observe::{Severity, Totals};
use crate::ports::{RoomPowers, RoomRecord};
use crate::supervise::{Link, lock};
use crate::world::World;

/// Answers about messages of ours that may wait to be looked at; they are bounded by what was said.
const MOST_ANSWERS: usize = 1_024;

/// Facts for manifests that wait to be looked at: those of one batch. Later ones are in no manifest.
const MOST_FACTS: usize = 256;

/// A membership of ours that is younger is new.
const NEW: Duration = Duration::from_secs(60);

/// What happened to something that a room's machine wanted said.
#[derive(Debug)]
pub(crate) enum Answer {
    Said(MessageTag, String),
    Failed(MessageTag),
    /// For good.
    Refused(MessageTag),
    /// Whether our name was taken.
    Named(u64, bool),
}

/// A fact for the manifest of the calls that it concerns.
#[derive(Debug)]
pub(crate) struct Fact {
    pub(crate) kind: EventKind,
    pub(crate) user: Option<String>,
    pub(crate) detail: Map<String, Value>,
}

/// One room.
pub(crate) struct RoomPlace {
    pub(crate) id: String,
    world: Arc<World>,
    machine: Mutex<Room>,
    roster: Mutex<Roster>,
    /// Members whom a call could not reach, as their events had them then: nobody is there for us until they change.
    unreachable: Mutex<Vec<Member>>,
    /// Members whom the call that runs has, although their memberships have run out.
    overdue: Mutex<Vec<Member>>,
    /// Our own membership was seen.
    joined: AtomicBool,
    /// We came into the room and have not looked yet whether a membership of a call was left behind.
    arrived: AtomicBool,
    answers: Arc<Mutex<VecDeque<Answer>>>,
    voice: Voice,
    /// Taken one by one, so that a fault costs one.
    facts: Mutex<VecDeque<Fact>>,
    /// The call that is being recorded here.
    pub(crate) call: Mutex<Option<CallKey>>,
    /// A session of the last process that may go on.
    unfinished: Mutex<Option<RoomRecord>>,
    /// What the last process left was looked at.
    settled: AtomicBool,
    /// What the memory was last told of the session.
    kept: Mutex<RoomRecord>,
    /// The room was told that the process ends.
    over: AtomicBool,
    /// As the board has it.
    shown: show::Shown,
}

/// Who speaks, as far as a command of theirs is concerned.
pub(crate) struct Speaker<'a> {
    pub(crate) allowed: bool,
    pub(crate) joined: bool,
    pub(crate) powers: Option<&'a RoomPowers>,
}

impl RoomPlace {
    pub(crate) fn new(
        world: &Arc<World>,
        link: &Arc<Link>,
        id: &str,
        record: Option<RoomRecord>,
    ) -> Arc<Self> {
        let group = &world.settings.group;
        let settings = room::Settings {
            commands: group.enabled,
            contact: group.contact.clone(),
            auto: group.auto,
            empty_after: group.empty_after,
            commands_per_minute: group.commands_per_minute,
            listening: world.listening,
            ..room::Settings::new(&world.settings.user, &group.name, world.clock.now())
        };
        let record = record.unwrap_or_default();
        let machine = Room::new(settings, record.durable.clone());
        let unfinished = record.durable.running.is_some().then(|| record.clone());
        let answers = Arc::<Mutex<VecDeque<Answer>>>::default();
        Arc::new(Self {
            id: id.to_owned(),
            world: Arc::clone(world),
            machine: Mutex::new(machine),
            roster: Mutex::new(Roster::new(&world.settings.user)),
            unreachable: Mutex::default(),
            overdue: Mutex::default(),
            joined: AtomicBool::new(false),
            arrived: AtomicBool::new(false),
            voice: Voice::open(world, link, id, &answers),
            answers,
            facts: Mutex::default(),
            settled: AtomicBool::new(false),
            call: Mutex::default(),
            unfinished: Mutex::new(unfinished),
            kept: Mutex::new(record),
            over: AtomicBool::new(false),
            shown: show::Shown::default(),
        })
    }

    /// A message, reaction or state event of the room.
    pub(crate) fn event(
        &self,
        event: &RoomEvent,
        state_key: Option<&str>,
        speaker: &Speaker<'_>,
        origin_ts_ms: i64,
    ) {
        let now = self.world.clock.now();
        match (event.event_type.as_str(), state_key) {
            ("m.room.message", None) => {
                if let Some(said) = Said::read(event)
                    && let Some(authority) = self.authority(&event.sender, speaker)
                {
                    self.step(|machine| machine.command(&said, &authority, now));
                }
            }
            ("m.reaction", None) => {
                if let Some(reaction) = Reaction::read(event)
                    && let Some(authority) = self.authority(&event.sender, speaker)
                {
                    self.step(|machine| machine.reaction(&reaction, &authority, now));
                }
            }
            ("m.room.tombstone", Some("")) => {
                let to = event.content.get("replacement_room").and_then(Value::as_str).map(str::to_owned);
                self.step(|machine| machine.close(Closing::Upgraded { to }, now));
            }
            ("m.room.member" | CALL_EVENT | MEMBER_EVENT, Some(key)) => {
                lock(&self.roster).state_event(
                    &event.event_type,
                    key,
                    &event.sender,
                    &event.content,
                    origin_ts_ms,
                );
                if event.event_type == "m.room.member" && key == self.world.settings.user {
                    match event.content.get("membership").and_then(Value::as_str) {
                        Some("leave" | "ban") => {
                            self.joined.store(false, Ordering::Relaxed);
                            self.step(|machine| machine.close(Closing::Removed, now));
                        }
                        Some("join") => {
                            lock(&self.machine).rejoined();
                            let name = event.content.get("displayname").and_then(Value::as_str);
                            self.step(|machine| machine.called(name, now));
                            self.arrive(speaker.powers, event);
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
        if let Some(powers) = speaker.powers {
            self.step(|machine| machine.powers(powers.ours(), now));
        }
    }

    /// Our own membership was seen. Where it is new, the room hears of powers that we lack.
    fn arrive(&self, powers: Option<&RoomPowers>, event: &RoomEvent) {
        let new = event.age < NEW;
        let known = self.joined.swap(true, Ordering::Relaxed);
        if !known {
            self.arrived.store(true, Ordering::Relaxed);
        }
        if new && !known {
            // Somebody may have given a command before we first heard of the room.
            lock(&self.machine).joined(event.received - event.age);
        }
        if let Some(powers) = powers.filter(|_| !known && new) {
            let now = self.world.clock.now();
            self.step(|machine| machine.arrived(powers.ours(), now));
        }
    }

    pub(crate) fn undecryptable(&self, event_id: &str, sender: &str) {
        let now = self.world.clock.now();
        self.step(|machine| machine.undecryptable(event_id, sender, now));
    }

    /// Lets the machine see who is there, what became of its messages, and that time passes.
    pub(crate) fn look(&self, progress: Option<Progress>) {
        let now = self.world.clock.now();
        let answers = std::mem::take(&mut *lock(&self.answers));
        for answer in answers {
            self.step(|machine| match &answer {
                Answer::Said(tag, id) => machine.said(*tag, id, now),
                Answer::Failed(tag) => machine.failed(*tag, now),
                Answer::Refused(tag) => machine.refused(*tag, now),
                Answer::Named(number, taken) => machine.named(*number, *taken, now),
            });
        }
        if lock(&self.unfinished).is_some() {
            // First it is settled whether that session goes on.
            return;
        }
        if self.is_terminated() {
            self.step(|machine| machine.close(Closing::CallTerminated, now));
        }
        let view = self.attended().map(|gathering| GatheringView {
            members: gathering.members.into_iter().map(|member| member.user).collect(),
            call_id: gathering.conf_id,
            kind: CallKind::Mesh,
        });
        self.step(|machine| machine.gathering(view, now));
        if let Some(progress) = progress {
            self.step(|machine| machine.recording(progress, now));
        }
        self.step(|machine| machine.tick(now));
    }

    /// What the last process left: its session goes on if its call does. Once, when the room's state is known.
    pub(crate) fn settle(&self) {
        if self.settled.load(Ordering::Relaxed) {
            return;
        }
        self.go_on();
        self.settled.store(true, Ordering::Relaxed);
    }

    fn go_on(&self) {
        let Some(record) = lock(&self.unfinished).clone() else { return };
        if let Some(delay) = record.delay {
            actix::spawn(self.world.rooms.cancel_delay(delay));
        }
        let now = self.world.clock.now();
        let there = record.durable.running.as_ref().is_some_and(|running| {
            let gathering = self.gathering_of(&running.call_id);
            let attended =
                |gathering: &Gathering| gathering.terminated.is_none() && !gathering.members.is_empty();
            !running.stopping && gathering.is_some_and(|gathering| attended(&gathering))
        });
        if there {
            self.step(|machine| machine.start_restored(now));
        } else {
            if let Some(session) = record.session {
                self.world.sessions.abandon(session);
            }
            self.ended(Saved::default(), 0, EndReason::Restarted);
        }
        *lock(&self.unfinished) = None;
    }

    /// Why what is being recorded here is to end, if it is; `None` where nothing is to be recorded. Levels: the tree compares
    /// them with what it has, so that nothing is lost with a message.
    pub(crate) fn wants(&self) -> Option<Option<(EndReason, Option<String>)>> {
        if lock(&self.unfinished).is_some() {
            return None;
        }
        let machine = lock(&self.machine);
        machine.durable().running.as_ref()?;
        Some(machine.ending().map(|(reason, by)| (reason, by.map(str::to_owned))))
    }

    /// How to record what is wanted here; goes on with a session that has a folder already.
    pub(crate) fn order(&self) -> Option<RecordingOrder> {
        let machine = lock(&self.machine);
        let running = machine.durable().running.as_ref()?;
        debug_assert_eq!(running.kind, CallKind::Mesh, "rooms are shown mesh calls only");
        let kept = lock(&self.kept);
        Some(RecordingOrder {
            room: self.id.clone(),
            call_id: running.call_id.clone(),
            started_by: running.by.clone(),
            resume: kept.session.clone(),
            began_utc_micros: kept.began_utc_micros,
            opted_out: machine.opted_out().clone(),
        })
    }

    /// The process is ending in order: the room is told what becomes of its recording, soon or not at all.
    pub(crate) fn shut_down(&self) {
        if self.over.load(Ordering::Acquire) {
            return;
        }
        let now = self.world.clock.now();
        self.step(|machine| machine.shut_down(now));
        self.voice.hurry();
        self.over.store(true, Ordering::Release);
    }

    /// Resolves when everything that the room is told by now was said or given up.
    pub(crate) fn told(&self) -> impl Future<Output = ()> + 'static {
        self.voice.flushed()
    }

    /// The session that the machine asked for is over.
    pub(crate) fn ended(&self, saved: Saved, participants: usize, reason: EndReason) {
        let now = self.world.clock.now();
        *lock(&self.call) = None;
        {
            // The next session may begin with this step, and is another.
            let mut kept = lock(&self.kept);
            *kept = RoomRecord { durable: std::mem::take(&mut kept.durable), ..RoomRecord::default() };
        }
        lock(&self.overdue).clear();
        self.step(|machine| machine.ended(Ended { saved, participants, reason }, now));
    }

    pub(crate) fn opted_out(&self) -> BTreeSet<String> {
        lock(&self.machine).opted_out().clone()
    }

    /// `Some`: so many calls may be recorded at once, and are.
    pub(crate) fn full(&self, most: Option<usize>) {
        lock(&self.machine).full(most);
    }

    /// Brings a call of this room in line with who wants to be recorded.
    pub(crate) fn show_consent(&self, call: &CallShared) {
        call.keep_consent(lock(&self.machine).opted_out());
    }

    /// A call to us was rejected, because who called has opted out here.
    pub(crate) fn call_rejected(&self, caller: &str) {
        let now = self.world.clock.now();
        self.step(|machine| machine.call_rejected(caller, now));
    }

    /// What a next process goes on with: the session, once it is on the disk, and what waits to take our membership back.
    pub(crate) fn running_is(
        &self,
        session: Option<SessionId>,
        began_utc_micros: i64,
        delay: Option<String>,
    ) {
        {
            let mut kept = lock(&self.kept);
            // One that goes on is known before it is opened.
            let session = session.or(kept.session.clone());
            if (&kept.session, &kept.delay) == (&session, &delay) {
                return;
            }
            (kept.session, kept.delay) = (session, delay);
            kept.began_utc_micros = Some(began_utc_micros);
        }
        self.persist();
    }

    /// The next thing that the manifest is to tell of.
    pub(crate) fn next_fact(&self) -> Option<Fact> {
        lock(&self.facts).pop_front()
    }

    /// `None` for rooms that we are not in (any more): nothing can be said there.
    fn authority(&self, sender: &str, speaker: &Speaker<'_>) -> Option<Authority> {
        let powers = speaker.powers?;
        Some(Authority {
            allowed: speaker.allowed,
            level: powers.of(sender),
            needed_start: self.world.settings.group.start_level,
            powers: powers.ours(),
            joined: speaker.joined,
        })
    }

    /// One input through a copy of the machine, which is kept when its actions are done.
    fn step(&self, input: impl FnOnce(&mut Room) -> Vec<RoomAction>) {
        let mut machine = lock(&self.machine).clone();
        let actions = input(&mut machine);
        let persist = actions.contains(&RoomAction::Persist);
        for action in actions {
            self.perform(action);
        }
        *lock(&self.machine) = machine;
        if persist {
            self.persist();
        }
    }

    fn perform(&self, action: RoomAction) {
        match action {
            RoomAction::React { event, key } => self.voice.react(event, key),
            RoomAction::Say { tag, message, relation } => self.voice.say(tag, message, relation),
            RoomAction::SetName { number, name } => self.voice.set_name(number, name),
            // Levels, which the tree looks at after each step.
            RoomAction::Begin { .. }
            | RoomAction::Stop { .. }
            | RoomAction::OptOut { .. }
            | RoomAction::OptIn { .. }
            | RoomAction::Persist => {}
            RoomAction::Count(refusal) => {
                tracing::info!(room = %self.id, why = refusal.name(), "a command was refused");
                Totals::count(&self.world.board.totals.commands_refused);
            }
            RoomAction::Report { text } => {
                tracing::warn!(room = %self.id, "{text}");
                let text = format!("In {}: {text}", self.id);
                self.world.board.happened(self.world.clock.utc_micros(), Severity::Warning, text);
            }
            RoomAction::ConsentEvent { kind, user, detail } => {
                let mut facts = lock(&self.facts);
                if facts.len() < MOST_FACTS {
                    facts.push_back(Fact { kind, user, detail });
                }
            }
        }
    }

    fn persist(&self) {
        let durable = lock(&self.machine).durable().clone();
        let record = {
            let mut kept = lock(&self.kept);
            if durable.running.is_none() {
                *kept = RoomRecord::default();
            }
            kept.durable = durable;
            kept.clone()
        };
        self.voice.keep(record);
    }
}

/// All rooms, by id.
pub(crate) type RoomPlaces = BTreeMap<String, Arc<RoomPlace>>;
