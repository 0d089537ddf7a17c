//! What outlives a CallActor: its slot's content.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use recorder_core::call::{Announcement, CallAction, CallEnd, CallSignal, OneToOne, Outgoing};
use recorder_core::ids::{CallKey, ConnectionId};
use recorder_core::manifest::{EndReason, SessionState};
use recorder_core::time::BootTime;
use tokio::sync::{mpsc, watch};

use super::finish::FINISH_LIMIT;
use crate::observe::{Severity, Totals};
use crate::peer::{PeerActor, PeerShared};
use crate::ports::{ConnectionFacts, MediaError, RoomFacts};
use crate::session::{SessionEnd, SessionHandle};
use crate::supervise::{Link, Slot, lock};
use crate::world::World;

/// Inputs that may wait for a CallActor; later ones are dropped and counted.
const MOST_INPUTS: usize = 256;
/// Events that may wait to be sent into the room; later ones are dropped and counted.
const MOST_OUTGOING: usize = 64;

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
    pub(super) since: BootTime,
}

pub(super) struct PeerPlace {
    pub(super) slot: Arc<Slot<PeerActor>>,
    pub(super) shared: Arc<PeerShared>,
}

/// For the room, in order.
pub(super) enum Outbound {
    Event(Outgoing, Duration),
    Message(Announcement, Duration),
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
    pub(super) outbox: mpsc::Sender<Outbound>,
    pub(super) ending: Mutex<Option<Ending>>,
    pub(super) finishing: AtomicBool,
    pub(super) done: AtomicBool,
}

impl CallShared {
    /// Takes an invite. Needs a tokio runtime: the outbox is a task.
    pub fn new(world: &Arc<World>, parent: &Arc<Link>, key: CallKey, invite: &CallSignal) -> Arc<Self> {
        let (machine, actions) = OneToOne::new(key, invite, &world.settings.user, &world.settings.device);
        let (outbox, queue) = mpsc::channel(MOST_OUTGOING);
        actix::spawn(send_in_order(Arc::clone(world), invite.room.clone(), queue));
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
            outbox,
            ending: Mutex::default(),
            finishing: AtomicBool::new(false),
            done: AtomicBool::new(false),
        })
    }

    /// Puts an input in the inbox and wakes the actor, whichever value it is by then.
    pub fn tell(&self, input: CallInput) {
        {
            let mut inbox = lock(&self.inbox);
            if inbox.len() == MOST_INPUTS {
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

    /// The actor was given up: end what it held, without it.
    pub fn abandon(&self) {
        self.world.media.close(self.connection_id);
        if let Some(peer) = lock(&self.peer).take() {
            lock(&peer.shared.wanted).stop = true;
            peer.slot.nudge();
        }
        let session = lock(&self.session).take();
        if let Some(session) = session {
            actix::spawn(async move {
                let end =
                    SessionEnd { reason: EndReason::Failed, stopped_by: None, state: SessionState::Failed };
                let _ = tokio::time::timeout(FINISH_LIMIT, session.finish(end)).await;
            });
        }
        Totals::count(&self.world.board.totals.sessions_failed);
        self.done.store(true, Ordering::Release);
    }

    pub(super) fn send(&self, outbound: Outbound) {
        if self.outbox.try_send(outbound).is_err() {
            tracing::warn!(call = %self.key, "too many events wait for the homeserver, one is dropped");
            Totals::count(&self.world.board.totals.signals_ignored);
        }
    }
}

/// Sends a call's events one after the other: an answer never overtakes another.
async fn send_in_order(world: Arc<World>, room: String, mut queue: mpsc::Receiver<Outbound>) {
    while let Some(outbound) = queue.recv().await {
        let sent = match outbound {
            Outbound::Event(event, patience) => {
                world
                    .signalling
                    .send(room.clone(), event.event_type.to_owned(), event.content, patience)
                    .await
            }
            Outbound::Message(message, patience) => {
                world.signalling.announce(room.clone(), message, patience).await
            }
        };
        if let Err(error) = sent {
            tracing::warn!(%room, %error, "an event could not be sent");
            world.board.happened(world.clock.utc_micros(), Severity::Warning, format!("Not sent: {error}"));
        }
    }
}
