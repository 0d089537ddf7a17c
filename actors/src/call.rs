//! CallActor: one per call. Runs the call's machine, owns the connection's handle, the session and the peers' slots.
//!
//! Everything that must outlive it lies in [`CallShared`], which the supervisor's slot keeps: a fresh CallActor goes on
//! with the machine's last good snapshot, the same connection, the same session and the same running peers. What it is
//! told lies in a bounded inbox there; a panic drops the one input that was being handled.

mod finish;
mod outbox;
mod slot;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use actix::{Actor, ActorContext, AsyncContext, Context, Handler};
use recorder_core::call::{
    CallAction, CallEnd, CallFact, CallPhase, ConnectionLevel, OneToOne, Version, recording_begun,
};
use recorder_core::ids::ParticipantId;
use recorder_core::manifest::{CallKind, EventKind, Record};
use recorder_core::time::BootTime;
use recorder_core::timeline::SenderClock;
use tokio::sync::watch;

use self::finish::finish;
pub use self::slot::{CallInput, CallShared};
use self::slot::{Ending, PeerPlace};
use crate::journal::event;
use crate::observe::{ActorKind, Severity, Totals};
use crate::peer::{PeerActor, PeerShared, Wanted};
use crate::ports::{ConnectionFacts, ConnectionState, LiveCall, SessionOrder};
use crate::session::SessionHandle;
use crate::supervise::{Check, Nudge, Slot, lock, tick_every_second};
use crate::testing::{Point, visit};

pub struct CallActor {
    shared: Arc<CallShared>,
    slot: Arc<Slot<Self>>,
    watching: bool,
}

impl CallActor {
    pub fn new(shared: Arc<CallShared>, slot: Arc<Slot<Self>>) -> Self {
        Self { shared, slot, watching: false }
    }

    fn reconcile(&mut self, context: &mut Context<Self>) {
        let shared = Arc::clone(&self.shared);
        let born = std::mem::take(&mut *lock(&shared.first_actions));
        self.perform(born);
        loop {
            let Some(input) = lock(&shared.inbox).pop_front() else { break };
            visit(Point::CallHandler, self.slot.path());
            self.step(|machine, now| match input {
                CallInput::Signal(signal) => machine.signal(*signal, now),
                CallInput::Opened(answer) => machine.opened(answer.as_deref().ok(), now),
                CallInput::Renegotiated(answer) => machine.renegotiated(answer.as_deref().ok()),
                CallInput::UserLeft(user) => machine.user_left(&user),
                CallInput::RoomUpgraded => machine.stop(CallEnd::RoomUpgraded),
                CallInput::Stop(end) => machine.stop(end),
            });
        }
        self.watch_connection(context);
        let facts = lock(&shared.connection).as_ref().map(|facts| Arc::clone(&facts.borrow()));
        match facts {
            Some(facts) => self.step(|machine, now| machine.connection(level(facts.state), now)),
            None => self.step(|machine, now| machine.tick(now)),
        }
        self.keep_session();
        self.keep_peer();
        self.keep_ending(context);
        self.publish();
    }

    /// One input through a copy of the machine; the copy becomes the snapshot when its actions are done.
    fn step(&mut self, input: impl FnOnce(&mut OneToOne, BootTime) -> Vec<CallAction>) {
        let mut machine = lock(&self.shared.machine).clone();
        let actions = input(&mut machine, self.shared.world.clock.now());
        if let Some(peer) = &*lock(&self.shared.peer) {
            let mut wanted = lock(&peer.shared.wanted);
            if wanted.metadata.as_ref() != machine.metadata() {
                wanted.metadata = machine.metadata().cloned();
                drop(wanted);
                peer.slot.nudge();
            }
        }
        self.perform(actions);
        *lock(&self.shared.machine) = machine;
    }

    fn perform(&self, actions: Vec<CallAction>) {
        let shared = &self.shared;
        if actions.contains(&CallAction::End(CallEnd::Shutdown)) {
            // What waits to be sent gets the time that a shutdown has, and no more.
            shared.outbox.hurry();
        }
        for action in actions {
            match action {
                CallAction::Open { offer } => self.open(offer),
                CallAction::Renegotiate { offer } => {
                    let answer = shared.world.media.renegotiate(shared.connection_id, offer);
                    let shared = Arc::clone(shared);
                    actix::spawn(async move {
                        let answer = answer.await.map(|answer| answer.sdp);
                        if let Err(error) = &answer {
                            tracing::warn!(call = %shared.key, %error, "a later offer cannot be used");
                        }
                        shared.tell(CallInput::Renegotiated(answer));
                    });
                }
                CallAction::AddCandidates(list) => {
                    shared.world.media.add_candidates(shared.connection_id, list)
                }
                CallAction::Send(event) => {
                    if event.event_type == "m.call.answer" {
                        Totals::count(&shared.world.board.totals.calls_answered);
                    }
                    shared.outbox.event(event);
                }
                CallAction::BeginRecording => shared.want_session.store(true, Ordering::Release),
                // The peer was given the newer map before these actions.
                CallAction::MetadataChanged => {}
                CallAction::Note(fact) => self.note(fact),
                CallAction::End(end) => {
                    tracing::info!(call = %shared.key, reason = end.name(), "call ended");
                    lock(&shared.ending).get_or_insert(Ending { end });
                }
                CallAction::Ignored => Totals::count(&shared.world.board.totals.signals_ignored),
            }
        }
    }

    /// Has the answer made. The call is on the list of live calls before the answer leaves us.
    fn open(&self, offer: String) {
        let shared = Arc::clone(&self.shared);
        let version = u8::from(lock(&shared.machine).version() == Version::V1);
        actix::spawn(async move {
            let world = &shared.world;
            let listed = world.live_calls.add(LiveCall {
                room: shared.room.clone(),
                call_id: shared.call_id.clone(),
                caller: shared.caller.clone(),
                version,
            });
            let (turn, ()) = tokio::join!(world.signalling.turn_servers(), listed);
            let answer = match world.media.accept(shared.connection_id, offer, turn, None).await {
                Ok((answer, facts)) => {
                    *lock(&shared.connection) = Some(facts);
                    if lock(&shared.ending).is_some() {
                        // The call ended while its answer was being made, so nobody else will close this.
                        world.media.close(shared.connection_id);
                        return;
                    }
                    Ok(answer.sdp)
                }
                Err(error) => {
                    tracing::warn!(call = %shared.key, caller = %shared.caller, %error, "an invite cannot be answered");
                    Totals::count(&world.board.totals.calls_refused_bad_offer);
                    Err(error)
                }
            };
            shared.tell(CallInput::Opened(answer));
            // While the caller's client connects: what the session will want to know.
            let room = world.signalling.room(shared.room.clone()).await;
            *lock(&shared.room_facts) = room;
            if let Some(name) =
                world.signalling.display_name(shared.room.clone(), shared.caller.clone()).await
            {
                *lock(&shared.caller_name) = name;
            }
            shared.link.nudge();
        });
    }

    fn note(&self, fact: CallFact) {
        let Some(session) = lock(&self.shared.session).clone() else { return };
        let kind = match fact {
            CallFact::Renegotiated => EventKind::Renegotiated,
            CallFact::Reconnected => EventKind::Connected,
            CallFact::Disconnected => EventKind::Disconnected,
        };
        session.tell(event(session.now_s(), kind, Some(&caller_id()), None));
    }

    fn watch_connection(&mut self, context: &mut Context<Self>) {
        if self.watching {
            return;
        }
        let Some(mut facts) = lock(&self.shared.connection).clone() else { return };
        self.watching = true;
        let link = Arc::clone(&self.shared.link);
        context.spawn(actix::fut::wrap_future(async move {
            while facts.changed().await.is_ok() {
                link.nudge();
            }
        }));
    }

    /// Opens the session once it is wanted.
    fn keep_session(&self) {
        let shared = &self.shared;
        let wanted = shared.want_session.load(Ordering::Acquire);
        let there = lock(&shared.session).is_some();
        if !wanted || there || shared.session_failed.load(Ordering::Acquire) {
            return;
        }
        if shared.opening_session.swap(true, Ordering::AcqRel) {
            return;
        }
        let shared = Arc::clone(shared);
        actix::spawn(async move {
            let room = shared.world.signalling.room(shared.room.clone()).await;
            *lock(&shared.room_facts) = room.clone();
            let first_media = lock(&shared.connection).as_ref().and_then(|facts| facts.borrow().first_packet);
            let order = SessionOrder {
                room_id: shared.room.clone(),
                room,
                call_id: shared.call_id.clone(),
                call_kind: CallKind::OneToOne,
                resume: None,
                started_by: shared.caller.clone(),
                first_media,
            };
            match shared.world.sessions.open(order).await {
                Ok(session) => *lock(&shared.session) = Some(session),
                Err(error) => {
                    tracing::error!(call = %shared.key, %error, "the session's folder cannot be made");
                    let what = format!("A call cannot be recorded: {error}");
                    shared.world.board.happened(shared.world.clock.utc_micros(), Severity::Error, what);
                    Totals::count(&shared.world.board.totals.sessions_failed);
                    shared.session_failed.store(true, Ordering::Release);
                    shared.tell(CallInput::Stop(CallEnd::Failed));
                }
            }
            shared.opening_session.store(false, Ordering::Release);
            shared.link.nudge();
        });
    }

    /// Starts the peer when there is a session, and starts it again when it failed.
    fn keep_peer(&self) {
        let shared = &self.shared;
        let session = lock(&shared.session).clone();
        let connection = lock(&shared.connection).clone();
        let (Some(session), Some(connection)) = (session, connection) else { return };
        if lock(&shared.peer).is_none() {
            self.welcome(session, connection);
        }
        let place =
            lock(&shared.peer).as_ref().map(|peer| (Arc::clone(&peer.slot), Arc::clone(&peer.shared)));
        let Some((slot, peer)) = place else { return };
        match slot.check(shared.world.clock.now()) {
            Check::RestartNow => {
                peer.session.tell(event(
                    peer.session.now_s(),
                    EventKind::ChildRestarted,
                    Some(&peer.participant),
                    None,
                ));
                start_peer(&slot, &peer);
            }
            // It ended although files are open, or was never started.
            Check::Empty if !(lock(&peer.wanted).stop && peer.is_idle()) => start_peer(&slot, &peer),
            Check::Empty | Check::Running | Check::Waiting | Check::GivenUp => {}
        }
    }

    /// The caller is in: participant, presence, the message to the room.
    fn welcome(&self, session: SessionHandle, connection: watch::Receiver<Arc<ConnectionFacts>>) {
        let shared = &self.shared;
        let machine = lock(&shared.machine).clone();
        let name = lock(&shared.caller_name).clone();
        let participant = caller_id();
        session.tell(Record::ParticipantAdded {
            participant: participant.clone(),
            user_id: Some(shared.caller.clone()),
            // In 1:1 calls a client's party is its device as a rule, but only its party is said.
            device_id: None,
            party_id: machine.caller_party.clone(),
            display_name: Some(name.clone()),
        });
        session.tell(Record::PresenceBegan { participant: participant.clone(), at_s: session.now_s() });
        session.tell(event(session.now_s(), EventKind::Joined, Some(&participant), None));
        let path = format!("{}/{participant}", self.slot.path());
        let slot = Slot::new(&shared.world, &shared.link, path, ActorKind::Peer, name.clone());
        let mut sender_clock = SenderClock::new();
        sender_clock.set_utc(shared.world.clock.now(), shared.world.clock.utc_micros());
        let peer = Arc::new(PeerShared {
            world: Arc::clone(&shared.world),
            participant,
            display_name: name.clone(),
            session,
            connection,
            wanted: Mutex::new(Wanted { metadata: machine.metadata().cloned(), stop: false }),
            link: Arc::default(),
            parent: Arc::clone(&shared.link),
            plan: Mutex::default(),
            tracks: Mutex::default(),
            sender_clock: Arc::new(Mutex::new(sender_clock)),
            counters: Mutex::default(),
            ice_restarts: AtomicU32::new(0),
        });
        *lock(&shared.peer) = Some(PeerPlace { slot, shared: peer });
        if lock(&shared.ending).is_none() {
            shared.outbox.message(recording_begun(&shared.caller, &name, &shared.world.settings.user));
        }
        let what = format!("{name} is being recorded");
        shared.world.board.happened(shared.world.clock.utc_micros(), Severity::Info, what);
    }

    /// Connection closed → files closed → session finished → room told → done.
    fn keep_ending(&self, context: &mut Context<Self>) {
        let shared = &self.shared;
        let Some(ending) = *lock(&shared.ending) else { return };
        if shared.is_done() {
            context.stop();
            return;
        }
        shared.world.media.close(shared.connection_id);
        if shared.opening_session.load(Ordering::Acquire) {
            return;
        }
        if shared.want_session.load(Ordering::Acquire) && !self.session_settled() {
            return;
        }
        // However long the disk takes: a session is told ended when its files are closed, or not at all.
        if !shared.files_closed() {
            return;
        }
        if !shared.finishing.swap(true, Ordering::AcqRel) {
            shared.run_to_done(finish(Arc::clone(shared), ending.end));
        }
    }

    /// The session that was wanted is there with its peer, or will never be.
    fn session_settled(&self) -> bool {
        self.shared.session_failed.load(Ordering::Acquire) || lock(&self.shared.peer).is_some()
    }

    fn publish(&self) {
        let shared = &self.shared;
        if shared.is_done() {
            return;
        }
        let machine = lock(&shared.machine);
        let state = match machine.phase() {
            CallPhase::Opening { .. } | CallPhase::Connecting { .. } => "connecting",
            CallPhase::Connected => "recording",
            CallPhase::Disconnected { .. } | CallPhase::Closed { .. } => "reconnecting",
            CallPhase::Ended(_) => "ending",
        };
        drop(machine);
        let peer = lock(&shared.peer).as_ref().map(|peer| Arc::clone(&peer.shared));
        let session = lock(&shared.session).clone();
        let room = lock(&shared.room_facts).clone();
        self.slot.rename(if room.name.is_empty() { &shared.room } else { &room.name });
        shared.world.board.put_call(crate::snapshot::call(
            shared,
            state,
            &room,
            session.as_ref(),
            peer.as_deref(),
        ));
    }
}

/// The one participant of a 1:1 call.
fn caller_id() -> ParticipantId {
    ParticipantId::new("p1")
}

fn start_peer(slot: &Arc<Slot<PeerActor>>, peer: &Arc<PeerShared>) {
    let (inner, shared) = (Arc::clone(slot), Arc::clone(peer));
    slot.start(move |_| PeerActor::new(shared, inner));
}

fn level(state: ConnectionState) -> ConnectionLevel {
    match state {
        ConnectionState::Connecting => ConnectionLevel::Connecting,
        ConnectionState::Connected => ConnectionLevel::Connected,
        ConnectionState::Disconnected => ConnectionLevel::Disconnected,
        ConnectionState::Closed => ConnectionLevel::Closed,
        ConnectionState::Failed => ConnectionLevel::Failed,
    }
}

impl Actor for CallActor {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        self.shared.link.connect(context.address().recipient());
        tick_every_second(context);
        context.notify(Nudge);
    }
}

impl Handler<Nudge> for CallActor {
    type Result = ();

    fn handle(&mut self, _: Nudge, context: &mut Self::Context) {
        self.reconcile(context);
    }
}
