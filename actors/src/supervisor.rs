//! SupervisorActor: one. Decides which invites are answered, routes signals, owns the calls' slots, beats the heart.

mod drops;
mod group;
mod refusals;
mod seldom;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use actix::{Actor, ActorContext, AsyncContext, Context, Handler, Message};
use recorder_core::call::{CallDesk, CallEnd, CallSignal, DeskAction, Refusal, RoomEvent, is_call_event};
use recorder_core::ids::CallKey;
use recorder_core::manifest::EndReason;
use recorder_core::time::BootTime;
use tokio::sync::watch;

use self::refusals::Refusals;
use crate::call::{CallActor, CallInput, CallShared, Ending};
use crate::drops::Growing;
use crate::observe::{ActorKind, Severity, Totals};
use crate::ports::{DiskLevel, RoomPowers, RoomRecord};
use crate::rooms::{RoomPlaces, Speaker};
use crate::supervise::{Check, Link, Nudge, Slot, lock, tick_every_second};
use crate::testing::{Point, visit};
use crate::world::World;

/// Room events of one sync batch, in order. The sender awaits the answer, so that at most one batch is in the mailbox.
#[derive(Debug, Default, Message)]
#[rtype(result = "()")]
pub struct Deliver {
    pub events: Vec<Delivery>,
    pub devices: Vec<DeviceDelivery>,
    /// Room, event and sender of what could not be decrypted.
    pub undecryptable: Vec<(String, String, String)>,
    /// The batch is over: pending invites are decided.
    pub batch_over: bool,
}

#[derive(Clone, Debug)]
pub struct Delivery {
    pub event: RoomEvent,
    /// Present on state events.
    pub state_key: Option<String>,
    /// The sender is on the allow-list.
    pub allowed: bool,
    /// The sender is not known to have left the room, or to have been banned.
    pub joined: bool,
    /// How many have joined the room, with calls' invites where it is known.
    pub members: Option<u64>,
    /// When its homeserver took it, UTC milliseconds.
    pub origin_ts_ms: i64,
    /// The room's power levels, with what may be a command and with every change of them.
    pub powers: Option<RoomPowers>,
}

/// A call event from device to device.
#[derive(Clone, Debug)]
pub struct DeviceDelivery {
    pub sender: String,
    pub event_type: String,
    pub content: serde_json::Value,
    pub received: BootTime,
}

/// Refuse new calls and end those that run.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct ShutDown;

#[derive(Clone)]
enum Waiting {
    Event(Box<Delivery>),
    Device(DeviceDelivery),
    Undecryptable((String, String, String)),
    BatchOver,
}

impl Waiting {
    /// What outlives the first panic over it: the end of a batch, which decides about invites, and offers, because who made
    /// one can do nothing until it is answered.
    fn is_tried_again(&self) -> bool {
        match self {
            Self::Event(delivery) => is_offer(&delivery.event.event_type),
            Self::Device(delivery) => is_offer(&delivery.event_type),
            Self::Undecryptable(_) => false,
            Self::BatchOver => true,
        }
    }
}

fn is_offer(event_type: &str) -> bool {
    is_call_event(event_type) && event_type.ends_with(".negotiate")
}

#[derive(Clone)]
struct CallPlace {
    slot: Arc<Slot<CallActor>>,
    shared: Arc<CallShared>,
}

/// What the tree holds at its root: outlives the SupervisorActor, belongs to whoever runs the tree.
pub struct SupervisorShared {
    pub world: Arc<World>,
    pub link: Arc<Link>,
    desk: Mutex<CallDesk>,
    calls: Mutex<BTreeMap<CallKey, CallPlace>>,
    rooms: Mutex<RoomPlaces>,
    /// Rooms as the last process left them, until something is heard of them.
    remembered: Mutex<HashMap<String, RoomRecord>>,
    /// The first batch of this process is over: the rooms' state is known.
    rooms_known: AtomicBool,
    /// Delivered and not yet handled: one message of the feed, as long as supervisors fail.
    waiting: Mutex<VecDeque<Waiting>>,
    /// The first of them was in hand already when a supervisor failed, or is so now.
    tried: AtomicBool,
    shutting_down: AtomicBool,
    running: watch::Sender<usize>,
    refusals: Refusals,
    /// Drops of the kernel, and for want of keys, as far as they were told.
    drops: Mutex<[Growing; 2]>,
}

impl SupervisorShared {
    /// `remembered`: the rooms as the last process left them.
    pub fn new(world: &Arc<World>, desk: CallDesk, remembered: HashMap<String, RoomRecord>) -> Arc<Self> {
        Arc::new(Self {
            world: Arc::clone(world),
            link: Arc::default(),
            desk: Mutex::new(desk),
            calls: Mutex::default(),
            rooms: Mutex::default(),
            remembered: Mutex::new(remembered),
            rooms_known: AtomicBool::new(false),
            waiting: Mutex::default(),
            tried: AtomicBool::new(false),
            shutting_down: AtomicBool::new(false),
            running: watch::Sender::new(0),
            refusals: Refusals::default(),
            drops: Mutex::default(),
        })
    }

    /// How many calls the tree holds.
    pub fn running(&self) -> watch::Receiver<usize> {
        self.running.subscribe()
    }

    /// Resolves when every room was told what it is to know, or will not be.
    pub async fn rooms_told(&self) {
        let telling: Vec<_> = lock(&self.rooms).values().map(|room| room.told()).collect();
        futures_util::future::join_all(telling).await;
    }

    /// From now on invites are refused, whether or not a supervisor lives.
    pub fn refuse_new_calls(&self) {
        self.shutting_down.store(true, Ordering::Release);
    }

    fn next_key(&self) -> CallKey {
        lock(&self.desk).take_key()
    }

    /// A call of an earlier process was hung up: its invite is not to be answered.
    pub fn mark_ended(&self, room: &str, call_id: &str) {
        lock(&self.desk).mark_ended(room, call_id);
    }
}

pub struct SupervisorActor {
    shared: Arc<SupervisorShared>,
    slot: Arc<Slot<Self>>,
}

impl SupervisorActor {
    pub fn new(shared: Arc<SupervisorShared>, slot: Arc<Slot<Self>>) -> Self {
        Self { shared, slot }
    }

    fn reconcile(&mut self) {
        let shared = Arc::clone(&self.shared);
        let now = shared.world.clock.now();
        shared.world.board.tree_heartbeat.store(now.as_nanos(), Ordering::Relaxed);
        self.handle_waiting();
        self.end_on_shutdown();
        let places: Vec<_> = lock(&shared.calls).iter().map(|(key, place)| (*key, place.clone())).collect();
        for (key, place) in places {
            visit(Point::SupervisorStep, self.slot.path());
            if place.shared.is_done() {
                if place.slot.check(now) != Check::Running {
                    self.forget(key, &place);
                }
                continue;
            }
            match place.slot.check(now) {
                Check::RestartNow | Check::Empty => start_call(&place),
                Check::GivenUp => {
                    let what = "A call was given up: its actor failed too often";
                    shared.world.board.happened(shared.world.clock.utc_micros(), Severity::Error, what);
                    place.shared.abandon();
                }
                Check::Running | Check::Waiting => {}
            }
        }
        visit(Point::SupervisorStep, self.slot.path());
        self.keep_rooms();
        visit(Point::SupervisorStep, self.slot.path());
        self.watch_drops();
    }

    /// Once the process is to end, every call is, and rooms are told what becomes of their recordings: a level, each told once.
    fn end_on_shutdown(&self) {
        if !self.shared.shutting_down.load(Ordering::Acquire) {
            return;
        }
        for room in self.rooms() {
            visit(Point::SupervisorStep, self.slot.path());
            room.shut_down();
        }
        let calls = lock(&self.shared.calls).clone();
        for place in calls.values() {
            visit(Point::SupervisorStep, self.slot.path());
            place.shared.stop(Ending::because(CallEnd::Shutdown));
        }
    }

    fn forget(&self, key: CallKey, place: &CallPlace) {
        if let Some(room) = self.room(&place.shared.room).filter(|room| *lock(&room.call) == Some(key)) {
            let (saved, participants, reason) = place.shared.outcome();
            // A session that the next process may go on with has not ended for its room.
            if reason != EndReason::Shutdown {
                // What may begin now takes its place.
                room.full(self.full_without(Some(key)));
                room.ended(saved, participants, reason);
            }
        }
        lock(&self.shared.calls).remove(&key);
        lock(&self.shared.desk).ended(key);
        place.slot.remove();
        self.shared.world.board.remove_call(key);
        self.count_running();
    }

    fn count_running(&self) {
        self.shared.running.send_replace(lock(&self.shared.calls).len());
    }

    fn event(&self, delivery: Delivery) {
        let Delivery { event, state_key, allowed, joined, members, origin_ts_ms, powers } = delivery;
        let board = &self.shared.world.board;
        if is_call_event(&event.event_type) {
            match CallSignal::parse(&event) {
                Ok(signal) => {
                    Totals::count(&board.totals.signals_handled);
                    let now = self.shared.world.clock.now();
                    let actions = lock(&self.shared.desk).signal(signal, allowed, members, now);
                    self.perform(actions);
                }
                Err(error) => {
                    tracing::debug!(event_id = %event.event_id, %error, "a call event cannot be read");
                    Totals::count(&board.totals.signals_ignored);
                }
            }
            return;
        }
        match event.event_type.as_str() {
            "m.room.member" => {
                let membership = event.content.get("membership").and_then(serde_json::Value::as_str);
                if let (Some("leave" | "ban"), Some(user)) = (membership, state_key.as_deref()) {
                    self.tell_room(&event.room, || CallInput::UserLeft(user.to_owned()));
                }
            }
            // Anybody may send a message of this type; only as state it closes the room (Matrix, m.room.tombstone).
            "m.room.tombstone" if state_key.as_deref() == Some("") => {
                self.tell_room(&event.room, || CallInput::RoomUpgraded);
            }
            _ => {}
        }
        if self.shared.world.settings.group.enabled {
            let speaker = Speaker { allowed, joined, powers: powers.as_ref() };
            if let Some(room) = self.room_or_new(&event.room) {
                room.full(self.full());
                room.event(&event, state_key.as_deref(), &speaker, origin_ts_ms);
                self.do_now(&room);
            }
        }
    }

    /// What was delivered, one after the other. What a panic leaves is handled by the next value; only the one thing it
    /// was at is dropped, if it is not one to be tried again.
    fn handle_waiting(&self) {
        while let Some((next, stays)) = self.next_waiting() {
            visit(Point::SupervisorHandler, self.slot.path());
            self.handle_one(next);
            if stays {
                lock(&self.shared.waiting).pop_front();
                self.shared.tried.store(false, Ordering::Release);
            }
        }
    }

    /// What is to be handled next, and whether it stays in the queue until it is.
    fn next_waiting(&self) -> Option<(Waiting, bool)> {
        let mut waiting = lock(&self.shared.waiting);
        let again = self.shared.tried.swap(false, Ordering::AcqRel);
        if let Some(first) = waiting.front().filter(|first| !again && first.is_tried_again()) {
            self.shared.tried.store(true, Ordering::Release);
            return Some((first.clone(), true));
        }
        Some((waiting.pop_front()?, false))
    }

    fn handle_one(&self, next: Waiting) {
        match next {
            Waiting::Event(delivery) => self.event(*delivery),
            Waiting::Device(delivery) => self.device_event(&delivery),
            Waiting::Undecryptable((room, event_id, sender)) => {
                if let Some(room) = self.room(&room) {
                    room.undecryptable(&event_id, &sender);
                }
            }
            Waiting::BatchOver => {
                self.shared.rooms_known.store(true, Ordering::Release);
                self.keep_rooms();
                self.clear_stale_memberships();
                let now = self.shared.world.clock.now();
                let actions = lock(&self.shared.desk).batch_end(now);
                self.perform(actions);
            }
        }
    }

    fn tell_room(&self, room: &str, input: impl Fn() -> CallInput) {
        let keys = lock(&self.shared.desk).calls_in(room);
        let calls = lock(&self.shared.calls).clone();
        for place in keys.iter().filter_map(|key| calls.get(key)) {
            place.shared.tell(input());
        }
    }

    fn perform(&self, actions: Vec<DeskAction>) {
        for action in actions {
            match action {
                DeskAction::Start { key, invite, early } => self.start(key, &invite, early),
                DeskAction::Forward { key, signal } => {
                    let place = lock(&self.shared.calls).get(&key).cloned();
                    if let Some(place) = place {
                        place.shared.tell(CallInput::Signal(signal));
                    }
                }
                DeskAction::Misplaced { invite } => self.misplaced(&invite),
                DeskAction::Refuse { invite, why, tell } => self.refuse(&invite, why, tell),
                DeskAction::Ignore { event_id, why } => {
                    tracing::debug!(%event_id, ?why, "a call event is ignored");
                    Totals::count(&self.shared.world.board.totals.signals_ignored);
                }
            }
        }
    }

    fn start(&self, key: CallKey, invite: &CallSignal, early: Vec<CallSignal>) {
        let opted_out = self.opted_out(&invite.room);
        let refusal = if self.shared.shutting_down.load(Ordering::Acquire) {
            Some(Refusal::Busy)
        } else if opted_out.contains(&invite.sender) {
            Some(Refusal::OptedOut)
        } else if *self.shared.world.disk.borrow() == DiskLevel::AllStopped {
            Some(Refusal::DiskFull)
        } else {
            // The desk knows of 1:1 calls only.
            self.full().map(|_| Refusal::Busy)
        };
        if let Some(refusal) = refusal {
            let tell = {
                let mut desk = lock(&self.shared.desk);
                desk.ended(key);
                desk.may_reject(&invite.sender, self.shared.world.clock.now())
            };
            return self.refuse(invite, refusal, tell);
        }
        tracing::info!(call = %key, caller = %invite.sender, room = %invite.room, "a call is answered");
        let shared = CallShared::answering(&self.shared.world, &self.shared.link, key, invite, opted_out);
        let path = format!("{}/{key}", self.slot.path());
        let slot =
            Slot::new(&self.shared.world, &self.shared.link, path, ActorKind::Call, invite.room.clone());
        let place = CallPlace { slot, shared };
        lock(&self.shared.calls).insert(key, place.clone());
        self.count_running();
        start_call(&place);
        for signal in early {
            place.shared.tell(CallInput::Signal(Box::new(signal)));
        }
    }
}

fn start_call(place: &CallPlace) {
    let (shared, slot) = (Arc::clone(&place.shared), Arc::clone(&place.slot));
    place.slot.start(move |_| CallActor::new(shared, slot));
}

impl Actor for SupervisorActor {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        self.shared.link.connect(context.address().recipient());
        tick_every_second(context);
        context.notify(Nudge);
    }
}

impl Handler<Nudge> for SupervisorActor {
    type Result = ();

    fn handle(&mut self, _: Nudge, context: &mut Self::Context) {
        self.reconcile();
        if self.shared.shutting_down.load(Ordering::Acquire) && lock(&self.shared.calls).is_empty() {
            context.stop();
        }
    }
}

impl Handler<Deliver> for SupervisorActor {
    type Result = ();

    fn handle(&mut self, batch: Deliver, _: &mut Self::Context) {
        {
            let mut waiting = lock(&self.shared.waiting);
            waiting.extend(batch.events.into_iter().map(|event| Waiting::Event(Box::new(event))));
            waiting.extend(batch.devices.into_iter().map(Waiting::Device));
            waiting.extend(batch.undecryptable.into_iter().map(Waiting::Undecryptable));
            waiting.extend(batch.batch_over.then_some(Waiting::BatchOver));
        }
        self.handle_waiting();
    }
}

impl Handler<ShutDown> for SupervisorActor {
    type Result = ();

    fn handle(&mut self, _: ShutDown, context: &mut Self::Context) {
        self.shared.shutting_down.store(true, Ordering::Release);
        self.end_on_shutdown();
        context.notify(Nudge);
    }
}
