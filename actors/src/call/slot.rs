//! What outlives a CallActor: its slot's content.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use recorder_core::call::{CallEnd, CallSignal, Saved};
use recorder_core::ids::{CallKey, ConnectionId, LegId, SessionId};
use recorder_core::manifest::{CallKind, EndReason};
use recorder_core::mesh::MeshSettings;
use recorder_core::time::BootTime;
use tokio::sync::watch;

use super::delayed_leave::DelayedLeave;
use super::finish::finish;
use super::input::{CallInput, Ending, InHand};
use super::kind::{Effect, Machine, Now, PeerKey};
use super::outbox::Outbox;
use super::people::Participant;
use super::room_side::{RoomFact, Shown};
use super::space::SpaceTold;
use crate::drops::{Growing, Place, dropped};
use crate::observe::Totals;
use crate::ports::{ConnectionFacts, RoomFacts, SignallingError, Tile};
use crate::session::SessionHandle;
use crate::supervise::{Link, lock};
use crate::world::World;

/// How often an end without an actor looks whether files are closed.
const LOOK: Duration = Duration::from_millis(100);
/// Signals that may wait for a CallActor; later ones are dropped and counted. What we tell it ourselves is bounded by
/// what it asked for, and always finds room.
const MOST_INPUTS: usize = 256;

/// A call that is to be recorded.
#[derive(Clone, Debug, Default)]
pub struct RecordingOrder {
    pub room: String,
    pub call_id: String,
    /// `None` if the configuration wants every call recorded.
    pub started_by: Option<String>,
    /// The session of an earlier process to go on with, and when that began.
    pub resume: Option<SessionId>,
    pub began_utc_micros: Option<i64>,
    pub opted_out: BTreeSet<String>,
}

/// What the homeserver last said to our membership of a group call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Membership {
    #[default]
    Unknown,
    Taken,
    Refused,
    /// It could not be reached.
    Unanswered,
}

impl From<Result<(), SignallingError>> for Membership {
    fn from(sent: Result<(), SignallingError>) -> Self {
        match sent {
            Ok(()) => Self::Taken,
            Err(SignallingError::Refused(_)) => Self::Refused,
            Err(SignallingError::Unreachable(_)) => Self::Unanswered,
        }
    }
}

/// One connection of a call.
pub(super) struct Leg {
    pub(super) connection: ConnectionId,
    /// Once the media plane has set it up.
    pub(super) facts: Option<watch::Receiver<Arc<ConnectionFacts>>>,
    /// How often an offer was given to it to be applied.
    pub(super) applied: u64,
}

impl Leg {
    pub(super) fn new(connection: ConnectionId) -> Self {
        Self { connection, facts: None, applied: 0 }
    }
}

/// A call's slot content: outlives the actor, belongs to the SupervisorActor.
pub struct CallShared {
    pub world: Arc<World>,
    pub key: CallKey,
    pub room: String,
    pub kind: CallKind,
    /// Who began it: the caller, or who gave the command.
    pub started_by: Option<String>,
    pub call_id: String,
    pub link: Arc<Link>,
    pub parent: Arc<Link>,
    pub started_utc_micros: i64,
    pub(super) inbox: Mutex<VecDeque<CallInput>>,
    pub(super) in_hand: Mutex<Option<InHand>>,
    pub(super) machine: Mutex<Machine>,
    /// What the machine wants done and nobody has begun to do.
    pub(super) effects: Mutex<VecDeque<Effect>>,
    pub(super) legs: Mutex<BTreeMap<LegId, Leg>>,
    pub(super) people: Mutex<BTreeMap<PeerKey, Participant>>,
    /// Participants for whom there was no place.
    pub(super) beyond: AtomicU64,
    pub(super) want_session: AtomicBool,
    pub(super) opening_session: AtomicBool,
    pub(crate) session: Mutex<Option<SessionHandle>>,
    pub(super) session_failed: AtomicBool,
    /// Display names by user; `None` while one is looked up.
    pub(super) names: Mutex<BTreeMap<String, Option<String>>>,
    pub(super) room_facts: Mutex<RoomFacts>,
    pub(super) outbox: Outbox,
    /// What we show in a group call.
    pub(super) tile: Option<Tile>,
    /// Stays that an earlier process left open were looked at.
    pub(super) stays_settled: AtomicBool,
    /// The session of an earlier process that this call goes on with.
    pub(super) resume: Option<SessionId>,
    /// Users of the room who are not to be recorded.
    pub(crate) opted_out: Mutex<BTreeSet<String>>,
    /// Consent and commands, for the session once it is there.
    pub(super) to_tell: Mutex<VecDeque<RoomFact>>,
    /// Datagrams that the kernel dropped, as far as the session was told.
    pub(super) kernel_drops: Mutex<Growing>,
    /// Users who were told that the call is recorded, for the page.
    pub(crate) told: Mutex<Arc<BTreeSet<String>>>,
    /// Who was in the call when the machine was last told.
    pub(super) shown: Mutex<Shown>,
    pub(super) membership: Mutex<Membership>,
    /// It was taken once: we are in the call.
    pub(super) joined: AtomicBool,
    /// Somebody there was connected to us.
    pub(super) connected: AtomicBool,
    /// Who is in the call without a connection, and since when.
    pub(super) missing: Mutex<BTreeMap<PeerKey, BootTime>>,
    /// The homeserver takes our membership back if this process dies.
    pub(super) delayed_leave: DelayedLeave,
    pub(super) space_told: Mutex<Option<SpaceTold>>,
    /// What was recorded, and of how many participants, once the session is over.
    pub(super) saved: Mutex<Option<(Saved, usize, EndReason)>>,
    pub(super) ending: Mutex<Option<Ending>>,
    pub(super) finishing: AtomicBool,
    pub(super) done: AtomicBool,
}

impl CallShared {
    /// A 1:1 call by its invite; `opted_out` are those of its room. Needs a tokio runtime: the outbox is a task.
    pub fn answering(
        world: &Arc<World>,
        parent: &Arc<Link>,
        key: CallKey,
        invite: &CallSignal,
        opted_out: BTreeSet<String>,
    ) -> Arc<Self> {
        let (machine, effects) = Machine::one_to_one(world, key, invite);
        let order = RecordingOrder {
            room: invite.room.clone(),
            call_id: invite.call_id.clone(),
            started_by: Some(invite.sender.clone()),
            opted_out,
            ..RecordingOrder::default()
        };
        Self::with(world, parent, key, order, machine, effects, None)
    }

    /// A full-mesh call that we join.
    pub fn joining(world: &Arc<World>, parent: &Arc<Link>, key: CallKey, order: RecordingOrder) -> Arc<Self> {
        let settings = &world.settings;
        let session = world.numbers.random();
        let stream = format!("recorder-{session}");
        let terms = MeshSettings::new(
            &settings.user,
            &settings.device,
            &session,
            &order.call_id,
            &order.room,
            &stream,
        );
        let (machine, effects) = Machine::mesh(terms);
        let now = Now::of(world);
        let age = Duration::from_micros(
            order.began_utc_micros.map_or(0, |began| world.clock.utc_micros().saturating_sub(began)).max(0)
                as u64,
        );
        let began = BootTime::from_nanos(now.boot.as_nanos().saturating_sub(age.as_nanos() as u64));
        let tile = Tile { stream, since: settings.group.tile.then_some(began) };
        Self::with(world, parent, key, order, machine, effects, Some(tile))
    }

    fn with(
        world: &Arc<World>,
        parent: &Arc<Link>,
        key: CallKey,
        order: RecordingOrder,
        machine: Machine,
        effects: Vec<Effect>,
        tile: Option<Tile>,
    ) -> Arc<Self> {
        Arc::new(Self {
            world: Arc::clone(world),
            key,
            outbox: Outbox::open(world, &order.room),
            delayed_leave: DelayedLeave::new(world, &order.room),
            room: order.room,
            kind: machine.kind(),
            started_by: order.started_by,
            call_id: order.call_id,
            link: Arc::default(),
            parent: Arc::clone(parent),
            started_utc_micros: order.began_utc_micros.unwrap_or_else(|| world.clock.utc_micros()),
            inbox: Mutex::default(),
            in_hand: Mutex::default(),
            machine: Mutex::new(machine),
            effects: Mutex::new(effects.into()),
            legs: Mutex::default(),
            people: Mutex::default(),
            beyond: AtomicU64::new(0),
            want_session: AtomicBool::new(false),
            opening_session: AtomicBool::new(false),
            session: Mutex::default(),
            session_failed: AtomicBool::new(false),
            names: Mutex::default(),
            room_facts: Mutex::default(),
            tile,
            stays_settled: AtomicBool::new(false),
            resume: order.resume,
            opted_out: Mutex::new(order.opted_out),
            to_tell: Mutex::default(),
            kernel_drops: Mutex::new(Growing::since(kernel_drops(world))),
            told: Mutex::default(),
            shown: Mutex::default(),
            membership: Mutex::default(),
            joined: AtomicBool::new(false),
            connected: AtomicBool::new(false),
            missing: Mutex::default(),
            space_told: Mutex::default(),
            saved: Mutex::default(),
            ending: Mutex::default(),
            finishing: AtomicBool::new(false),
            done: AtomicBool::new(false),
        })
    }

    /// Puts an input in the inbox and wakes the actor, whichever value it is by then.
    pub fn tell(&self, input: CallInput) {
        {
            let mut inbox = lock(&self.inbox);
            if inbox.len() >= MOST_INPUTS && matches!(input, CallInput::Signal(_) | CallInput::Device(_)) {
                Totals::count(&self.world.board.totals.signals_ignored);
                return;
            }
            inbox.push_back(input);
        }
        self.link.nudge();
    }

    /// Asks for the end, unless that was done: a level.
    pub(crate) fn stop(&self, ending: Ending) {
        let over = lock(&self.ending).is_some();
        if !over && !lock(&self.inbox).iter().any(|input| matches!(input, CallInput::Stop(_))) {
            self.tell(CallInput::Stop(ending));
        }
    }

    /// The next input. One that was in hand when the actor failed is dropped if it came from afar, because it may be what
    /// it failed of; offers and our own are tried once more.
    pub(super) fn next_input(&self) -> Option<CallInput> {
        let mut hand = lock(&self.in_hand);
        if let Some(InHand { input, again: false }) = hand.take()
            && input.is_tried_again()
        {
            *hand = Some(InHand { input: input.clone(), again: true });
            return Some(input);
        }
        let input = lock(&self.inbox).pop_front()?;
        *hand = Some(InHand { input: input.clone(), again: false });
        Some(input)
    }

    /// The input in hand was handled.
    pub(super) fn input_done(&self) {
        *lock(&self.in_hand) = None;
    }

    /// It answers an offer that was given to the connection once more since: the later answer counts.
    pub(super) fn is_outdated(&self, input: &CallInput) -> bool {
        match input {
            CallInput::Renegotiated { leg, number, .. } => {
                lock(&self.legs).get(leg).is_some_and(|leg| leg.applied != *number)
            }
            _ => false,
        }
    }

    /// Tells the session of datagrams that the kernel dropped since it was last told, if that is so long ago. Whose they
    /// were nobody knows: every session is told of all of them.
    pub(super) fn tell_drops(&self, every: Duration) {
        let Some(session) = lock(&self.session).clone() else { return };
        let grown = lock(&self.kernel_drops).grown(kernel_drops(&self.world), self.world.clock.now(), every);
        if let Some(count) = grown {
            session.tell(dropped(session.now_s(), count, Place::ReceiveBuffer, None));
        }
    }

    /// Nothing is left to do.
    pub fn is_done(&self) -> bool {
        self.done.load(Ordering::Acquire)
    }

    /// The actor was given up: end what it held, without it, as it would have.
    pub fn abandon(self: &Arc<Self>) {
        {
            lock(&self.ending).get_or_insert(Ending::because(CallEnd::Failed));
            tracing::error!(call = %self.key, "a call is ended because its actor failed too often");
        }
        let failed = Ending::because(CallEnd::Failed);
        let stop = CallInput::Stop(failed.clone());
        let effects = lock(&self.machine).input(stop, Now::of(&self.world));
        for effect in effects {
            self.send(effect);
        }
        self.close_legs();
        Totals::count(&self.world.board.totals.sessions_failed);
        if !self.finishing.swap(true, Ordering::AcqRel) {
            let shared = Arc::clone(self);
            self.run_to_done(async move {
                while shared.opening_session.load(Ordering::Acquire) || !shared.files_closed() {
                    shared.stand_in_for_the_peers();
                    tokio::time::sleep(LOOK).await;
                }
                finish(shared, failed).await;
            });
        }
    }

    /// The media plane has set a leg's connection up. False if nobody wants it any more, and then it is closed.
    pub(super) fn connected(&self, leg: LegId, facts: watch::Receiver<Arc<ConnectionFacts>>) -> bool {
        let connection = facts.borrow().id;
        let wanted = match lock(&self.legs).get_mut(&leg) {
            Some(place) => {
                place.facts = Some(facts);
                lock(&self.ending).is_none()
            }
            None => false,
        };
        if !wanted {
            self.world.media.close(connection);
        }
        wanted
    }

    /// One connection is over; its participant's files end when its rings are read.
    pub(super) fn close_leg(&self, leg: LegId) {
        if let Some(leg) = lock(&self.legs).remove(&leg) {
            self.world.media.close(leg.connection);
        }
        for person in lock(&self.people).values_mut() {
            if person.leg == Some(leg) {
                person.leg = None;
            }
        }
    }

    /// Puts on its way what an effect wants sent.
    pub(super) fn send(self: &Arc<Self>, effect: Effect) {
        match effect {
            Effect::Send(event) => {
                if event.event_type == "m.call.answer" {
                    Totals::count(&self.world.board.totals.calls_answered);
                }
                self.outbox.event(event);
            }
            Effect::SendToDevice { user, device, event_type, content } => {
                if event_type == "m.call.answer" {
                    Totals::count(&self.world.board.totals.calls_answered);
                }
                self.outbox.to_device(user, device, event_type, content);
            }
            Effect::Publish { content } => {
                let sent = self.outbox.membership(content);
                let shared = Arc::clone(self);
                actix::spawn(async move {
                    let sent = sent.await;
                    let ok = sent.is_ok();
                    *lock(&shared.membership) = sent.into();
                    shared.joined.fetch_or(ok, Ordering::AcqRel);
                    if ok && let Some(leave) = lock(&shared.machine).leave_content(Now::of(&shared.world)) {
                        shared.delayed_leave.keep(leave);
                    }
                    shared.tell(CallInput::Published(ok));
                });
            }
            Effect::Unpublish { content } => {
                let sent = self.outbox.membership(content);
                let shared = Arc::clone(self);
                actix::spawn(async move {
                    if sent.await.is_ok() {
                        shared.delayed_leave.end();
                    }
                });
            }
            _ => {}
        }
    }

    /// Ends every connection; their rings end, and what they hold is still written.
    pub(super) fn close_legs(&self) {
        for leg in lock(&self.legs).values() {
            self.world.media.close(leg.connection);
        }
    }

    /// Runs the end of the call. If that fails itself, the call is done all the same.
    pub(super) fn run_to_done(self: &Arc<Self>, end: impl Future<Output = ()> + 'static) {
        let running = actix::spawn(end);
        let shared = Arc::clone(self);
        actix::spawn(async move {
            if running.await.is_err() {
                tracing::error!(call = %shared.key, "the end of a call failed; the next start repairs its session");
                Totals::count(&shared.world.board.totals.panics_caught);
                shared.world.board.remove_call(shared.key);
                shared.done.store(true, Ordering::Release);
                shared.link.nudge();
                shared.parent.nudge();
            }
        });
    }
}

fn kernel_drops(world: &World) -> u64 {
    world.board.media.load().counts.kernel_drops.load(Ordering::Relaxed)
}
