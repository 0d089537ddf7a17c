//! What outlives a CallActor: its slot's content.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use recorder_core::call::{CallEnd, CallSignal};
use recorder_core::ids::{CallKey, ConnectionId, LegId};
use recorder_core::manifest::CallKind;
use tokio::sync::watch;

use super::finish::finish;
use super::kind::{Effect, Machine, PeerKey};
use super::outbox::Outbox;
use super::people::Participant;
use crate::observe::Totals;
use crate::ports::{ConnectionFacts, MediaError, RoomFacts};
use crate::session::SessionHandle;
use crate::supervise::{Link, lock};
use crate::world::World;

/// How often an end without an actor looks whether files are closed.
const LOOK: Duration = Duration::from_millis(100);
/// Signals that may wait for a CallActor; later ones are dropped and counted. What we tell it ourselves is bounded by
/// what it asked for, and always finds room.
const MOST_INPUTS: usize = 256;

/// What a CallActor is told.
#[derive(Debug)]
pub enum CallInput {
    Signal(Box<CallSignal>),
    /// The answer to a leg's first offer.
    Opened {
        leg: LegId,
        answer: Result<String, MediaError>,
    },
    /// The answer to a later offer.
    Renegotiated {
        leg: LegId,
        answer: Result<String, MediaError>,
    },
    UserLeft(String),
    RoomUpgraded,
    Stop(CallEnd),
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Ending {
    pub(super) end: CallEnd,
}

/// One connection of a call.
pub(super) struct Leg {
    pub(super) connection: ConnectionId,
    /// Once the media plane has set it up.
    pub(super) facts: Option<watch::Receiver<Arc<ConnectionFacts>>>,
}

/// A call's slot content: outlives the actor, belongs to the SupervisorActor.
pub struct CallShared {
    pub world: Arc<World>,
    pub key: CallKey,
    pub room: String,
    pub kind: CallKind,
    /// Who began it: the caller, or who gave the command.
    pub started_by: String,
    pub call_id: String,
    pub link: Arc<Link>,
    pub parent: Arc<Link>,
    pub started_utc_micros: i64,
    pub(super) inbox: Mutex<VecDeque<CallInput>>,
    pub(super) machine: Mutex<Machine>,
    /// Effects of the machine's birth, brought about by the first generation.
    pub(super) first_effects: Mutex<Vec<Effect>>,
    pub(super) legs: Mutex<BTreeMap<LegId, Leg>>,
    pub(super) people: Mutex<BTreeMap<PeerKey, Participant>>,
    pub(super) want_session: AtomicBool,
    pub(super) opening_session: AtomicBool,
    pub(crate) session: Mutex<Option<SessionHandle>>,
    pub(super) session_failed: AtomicBool,
    /// Display names by user; `None` while one is looked up.
    pub(super) names: Mutex<BTreeMap<String, Option<String>>>,
    pub(super) room_facts: Mutex<RoomFacts>,
    pub(super) outbox: Outbox,
    pub(super) ending: Mutex<Option<Ending>>,
    pub(super) finishing: AtomicBool,
    pub(super) done: AtomicBool,
}

impl CallShared {
    /// A 1:1 call by its invite. Needs a tokio runtime: the outbox is a task.
    pub fn answering(world: &Arc<World>, parent: &Arc<Link>, key: CallKey, invite: &CallSignal) -> Arc<Self> {
        let (machine, first_effects) = Machine::one_to_one(world, key, invite);
        Arc::new(Self {
            world: Arc::clone(world),
            key,
            room: invite.room.clone(),
            kind: machine.kind(),
            started_by: invite.sender.clone(),
            call_id: invite.call_id.clone(),
            link: Arc::default(),
            parent: Arc::clone(parent),
            started_utc_micros: world.clock.utc_micros(),
            inbox: Mutex::default(),
            machine: Mutex::new(machine),
            first_effects: Mutex::new(first_effects),
            legs: Mutex::default(),
            people: Mutex::default(),
            want_session: AtomicBool::new(false),
            opening_session: AtomicBool::new(false),
            session: Mutex::default(),
            session_failed: AtomicBool::new(false),
            names: Mutex::default(),
            room_facts: Mutex::default(),
            outbox: Outbox::open(world, &invite.room),
            ending: Mutex::default(),
            finishing: AtomicBool::new(false),
            done: AtomicBool::new(false),
        })
    }

    /// Puts an input in the inbox and wakes the actor, whichever value it is by then.
    pub fn tell(&self, input: CallInput) {
        {
            let mut inbox = lock(&self.inbox);
            if inbox.len() >= MOST_INPUTS && matches!(input, CallInput::Signal(_)) {
                Totals::count(&self.world.board.totals.signals_ignored);
                return;
            }
            inbox.push_back(input);
        }
        self.link.nudge();
    }

    /// Nothing is left to do.
    pub fn is_done(&self) -> bool {
        self.done.load(Ordering::Acquire)
    }

    /// The actor was given up: end what it held, without it, as it would have.
    pub fn abandon(self: &Arc<Self>) {
        {
            lock(&self.ending).get_or_insert(Ending { end: CallEnd::Failed });
            tracing::error!(call = %self.key, "a call is ended because its actor failed too often");
        }
        for effect in lock(&self.machine).stop(CallEnd::Failed, self.world.clock.now()) {
            if let Effect::Send(event) = effect {
                self.outbox.event(event);
            }
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
                finish(shared, CallEnd::Failed).await;
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
