//! What outlives a CallActor: its slot's content.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use recorder_core::call::{CallAction, CallEnd, CallSignal, OneToOne};
use recorder_core::ids::{CallKey, ConnectionId};
use tokio::sync::watch;

use super::finish::finish;
use super::outbox::Outbox;
use crate::observe::Totals;
use crate::peer::{PeerActor, PeerShared};
use crate::ports::{ConnectionFacts, MediaError, RoomFacts};
use crate::session::SessionHandle;
use crate::supervise::{Check, Link, Slot, lock};
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
    Opened(Result<String, MediaError>),
    Renegotiated(Result<String, MediaError>),
    UserLeft(String),
    RoomUpgraded,
    Stop(CallEnd),
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Ending {
    pub(super) end: CallEnd,
}

pub(super) struct PeerPlace {
    pub(super) slot: Arc<Slot<PeerActor>>,
    pub(super) shared: Arc<PeerShared>,
}

/// A call's slot content: outlives the actor, belongs to the SupervisorActor.
pub struct CallShared {
    pub world: Arc<World>,
    pub key: CallKey,
    pub room: String,
    pub caller: String,
    pub call_id: String,
    pub link: Arc<Link>,
    pub parent: Arc<Link>,
    pub started_utc_micros: i64,
    pub(super) inbox: Mutex<VecDeque<CallInput>>,
    pub(super) machine: Mutex<OneToOne>,
    /// Actions of the machine's birth, performed by the first generation.
    pub(super) first_actions: Mutex<Vec<CallAction>>,
    pub(super) connection_id: ConnectionId,
    pub(super) connection: Mutex<Option<watch::Receiver<Arc<ConnectionFacts>>>>,
    pub(super) want_session: AtomicBool,
    pub(super) opening_session: AtomicBool,
    pub(super) session: Mutex<Option<SessionHandle>>,
    pub(super) session_failed: AtomicBool,
    pub(super) peer: Mutex<Option<PeerPlace>>,
    pub(super) room_facts: Mutex<RoomFacts>,
    pub(super) caller_name: Mutex<String>,
    pub(super) outbox: Outbox,
    pub(super) ending: Mutex<Option<Ending>>,
    pub(super) finishing: AtomicBool,
    pub(super) done: AtomicBool,
}

impl CallShared {
    /// Takes an invite. Needs a tokio runtime: the outbox is a task.
    pub fn new(world: &Arc<World>, parent: &Arc<Link>, key: CallKey, invite: &CallSignal) -> Arc<Self> {
        let (machine, actions) = OneToOne::new(key, invite, &world.settings.user, &world.settings.device);
        Arc::new(Self {
            world: Arc::clone(world),
            key,
            room: invite.room.clone(),
            caller: invite.sender.clone(),
            call_id: invite.call_id.clone(),
            link: Arc::default(),
            parent: Arc::clone(parent),
            started_utc_micros: world.clock.utc_micros(),
            inbox: Mutex::default(),
            machine: Mutex::new(machine),
            first_actions: Mutex::new(actions),
            connection_id: world.numbers.connection(),
            connection: Mutex::default(),
            want_session: AtomicBool::new(false),
            opening_session: AtomicBool::new(false),
            session: Mutex::default(),
            session_failed: AtomicBool::new(false),
            peer: Mutex::default(),
            room_facts: Mutex::default(),
            caller_name: Mutex::new(invite.sender.clone()),
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
        for action in lock(&self.machine).stop(CallEnd::Failed) {
            if let CallAction::Send(event) = action {
                self.outbox.event(event);
            }
        }
        self.world.media.close(self.connection_id);
        Totals::count(&self.world.board.totals.sessions_failed);
        if !self.finishing.swap(true, Ordering::AcqRel) {
            let shared = Arc::clone(self);
            self.run_to_done(async move {
                while shared.opening_session.load(Ordering::Acquire) || !shared.files_closed() {
                    shared.stand_in_for_the_peer();
                    tokio::time::sleep(LOOK).await;
                }
                finish(shared, CallEnd::Failed).await;
            });
        }
    }

    /// Nobody starts a peer again once its call is given up, so its files are closed for it.
    fn stand_in_for_the_peer(&self) {
        let peer = lock(&self.peer).as_ref().map(|peer| (Arc::clone(&peer.slot), Arc::clone(&peer.shared)));
        if let Some((slot, peer)) = peer
            && slot.check(self.world.clock.now()) != Check::Running
        {
            peer.finalise_all();
        }
    }

    /// Tells the peer to close every file; whether all are closed.
    pub(super) fn files_closed(&self) -> bool {
        let peer = lock(&self.peer).as_ref().map(|peer| (Arc::clone(&peer.slot), Arc::clone(&peer.shared)));
        let Some((slot, peer)) = peer else { return true };
        let told = std::mem::replace(&mut lock(&peer.wanted).stop, true);
        if !told {
            slot.nudge();
        }
        if slot.check(self.world.clock.now()) == Check::GivenUp {
            peer.finalise_all();
        }
        told && peer.is_idle()
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
