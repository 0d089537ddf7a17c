//! CallActor: one per call, whatever its kind. Runs the call's machine, owns the legs' connections, the session and the
//! participants' slots.
//!
//! Everything that must outlive it lies in [`CallShared`], which the supervisor's slot keeps: a fresh CallActor goes on
//! with the machine's last good snapshot, the same connections, the same session and the same running peers. What it is
//! told lies in a bounded inbox there; a panic drops the one input that was being handled, unless it is an offer or the tree
//! itself said it.

mod delayed_leave;
mod finish;
mod input;
mod kind;
mod outbox;
mod people;
mod room_side;
mod slot;
mod space;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use actix::{Actor, ActorContext, AsyncContext, Context, Handler};
use recorder_core::call::{CallEnd, CallFact, ConnectionLevel};
use recorder_core::ids::{LegId, ParticipantId};
use recorder_core::manifest::{CallKind, EventKind};
use recorder_core::time::BootTime;

use self::finish::finish;
pub use self::input::{CallInput, Ending};
pub use self::kind::PeerKey;
use self::kind::{Effect, Machine, Now};
pub(crate) use self::people::Participant;
pub use self::slot::{CallShared, RecordingOrder};
use self::slot::{Leg, Membership};
use crate::drops::IN_A_SESSION;
use crate::journal::event;
use crate::observe::{Severity, Totals};
use crate::ports::{ConnectionState, LiveCall, MediaError, SessionOrder};
use crate::session::SessionError;
use crate::supervise::{Nudge, Slot, guarded, lock, tick_every_second};
use crate::testing::{Point, visit};

/// How long the homeserver's store may take to say what the room is called.
const ROOM_LIMIT: Duration = Duration::from_secs(2);

pub struct CallActor {
    shared: Arc<CallShared>,
    slot: Arc<Slot<Self>>,
    watching: HashSet<LegId>,
}

impl CallActor {
    pub fn new(shared: Arc<CallShared>, slot: Arc<Slot<Self>>) -> Self {
        Self { shared, slot, watching: HashSet::new() }
    }

    fn reconcile(&mut self, context: &mut Context<Self>) {
        let shared = Arc::clone(&self.shared);
        self.perform();
        while let Some(input) = shared.next_input() {
            visit(Point::CallHandler, self.slot.path());
            if shared.is_outdated(&input) {
                shared.input_done();
            } else {
                self.input(input);
            }
        }
        self.watch_legs(context);
        visit(Point::CallStep, self.slot.path());
        // In one step: each copies the machine, which in a mesh knows of every leg.
        let levels = levels(&shared);
        self.step(None, |machine, now| {
            let told = levels.into_iter().flat_map(|(leg, level)| machine.connection(leg, level, now));
            let mut effects: Vec<_> = told.collect();
            effects.extend(machine.tick(now));
            effects
        });
        visit(Point::CallStep, self.slot.path());
        self.keep_announced();
        visit(Point::CallStep, self.slot.path());
        self.keep_session();
        shared.tell_drops(IN_A_SESSION);
        visit(Point::CallStep, self.slot.path());
        shared.keep_space();
        visit(Point::CallStep, self.slot.path());
        shared.keep_people(self.slot.path());
        visit(Point::CallStep, self.slot.path());
        self.keep_ending(context);
        visit(Point::CallStep, self.slot.path());
        self.publish();
    }

    fn input(&mut self, input: CallInput) {
        let asked = input.ending();
        self.step(asked, |machine, now| machine.input(input, now));
    }

    /// One input through a copy of the machine. The copy becomes the snapshot together with what it wants done: a panic before
    /// that leaves nothing of the input, one after that costs at most the effect in hand. `asked`: the end that the input
    /// asks for, because a kind's machine knows fewer reasons than whoever does.
    fn step(&mut self, asked: Option<Ending>, input: impl FnOnce(&mut Machine, Now) -> Vec<Effect>) {
        let shared = &self.shared;
        let mut machine = lock(&shared.machine).clone();
        let effects = input(&mut machine, Now::of(&shared.world));
        shared.pass_metadata(&machine);
        if effects.contains(&Effect::End(CallEnd::Shutdown)) {
            // What waits to be sent gets the time that a shutdown has, and no more.
            shared.outbox.hurry();
        }
        let end = effects.iter().find_map(|effect| match effect {
            Effect::End(end) => Some(*end),
            _ => None,
        });
        if let (Some(asked), Some(end)) = (asked, end) {
            // Whether anybody was there is what the machine knows better.
            let end = if end == CallEnd::Unreachable { end } else { asked.end };
            lock(&shared.ending).get_or_insert(Ending { end, ..asked });
        }
        *lock(&shared.machine) = machine;
        lock(&shared.effects).extend(effects);
        shared.input_done();
        self.perform();
    }

    /// Does what the machine wants done, one after the other.
    fn perform(&self) {
        let shared = &self.shared;
        loop {
            if lock(&shared.effects).is_empty() {
                return;
            }
            visit(Point::CallEffect, self.slot.path());
            let Some(effect) = lock(&shared.effects).pop_front() else { return };
            match effect {
                Effect::Accept { leg, peer, offer } => self.accept(leg, &peer, offer),
                Effect::Dial { leg, peer, screen } => self.dial(leg, &peer, screen),
                Effect::ApplyAnswer { leg, sdp } => self.apply_answer(leg, sdp),
                Effect::Renegotiate { leg, offer } => self.renegotiate(leg, offer),
                Effect::AddCandidates { leg, list } => {
                    if let Some(leg) = lock(&shared.legs).get(&leg) {
                        shared.world.media.add_candidates(leg.connection, list);
                    }
                }
                Effect::CloseLeg { leg } => shared.close_leg(leg),
                Effect::BeginRecording => shared.want_session.store(true, Ordering::Release),
                Effect::Present { peer, party, leg } => shared.present(peer, party, leg),
                Effect::Gone { peer, reason } => shared.gone(&peer, reason),
                Effect::Beyond { peer } => shared.beyond(&peer),
                Effect::Note { leg, fact } => self.note(leg, fact),
                Effect::End(end) => {
                    let unanswered = *lock(&shared.membership) == Membership::Unanswered;
                    let end = match end {
                        CallEnd::NotPermitted if unanswered => CallEnd::ConnectionLost,
                        end => end,
                    };
                    tracing::info!(call = %shared.key, reason = end.name(), "call ended");
                    lock(&shared.ending).get_or_insert(Ending::because(end));
                }
                Effect::Ignored => Totals::count(&shared.world.board.totals.signals_ignored),
                sent @ (Effect::Send(_)
                | Effect::SendToDevice { .. }
                | Effect::Publish { .. }
                | Effect::Unpublish { .. }) => shared.send(sent),
            }
        }
    }

    /// Has the answer made. A 1:1 call is on the list of live calls before the answer leaves us.
    fn accept(&self, leg: LegId, peer: &PeerKey, offer: String) {
        let shared = Arc::clone(&self.shared);
        let connection = shared.world.numbers.connection();
        lock(&shared.legs).insert(leg, Leg::new(connection));
        shared.learn_name(&peer.user);
        let caller = peer.user.clone();
        actix::spawn(async move {
            let world = &shared.world;
            let listed = guarded(world, shared.list_live(&caller));
            let (turn, _) = tokio::join!(guarded(world, world.signalling.turn_servers()), listed);
            let accepting = async {
                world.media.accept(connection, offer, turn.unwrap_or_default(), shared.tile.clone()).await
            };
            let answer = match guarded(world, accepting).await.unwrap_or(Err(MediaError::Stopped)) {
                Ok((answer, facts)) => {
                    if !shared.connected(leg, facts) {
                        return;
                    }
                    Ok(answer.sdp)
                }
                Err(error) => {
                    tracing::warn!(call = %shared.key, %caller, %error, "an invite cannot be answered");
                    let totals = &world.board.totals;
                    Totals::count(match error {
                        MediaError::Full(_) => &totals.calls_refused_busy,
                        _ => &totals.calls_refused_bad_offer,
                    });
                    Err(error)
                }
            };
            shared.tell(CallInput::Opened { leg, answer });
            shared.learn_room().await;
            shared.link.nudge();
        });
    }

    fn dial(&self, leg: LegId, peer: &PeerKey, screen: bool) {
        let shared = Arc::clone(&self.shared);
        let connection = shared.world.numbers.connection();
        lock(&shared.legs).insert(leg, Leg::new(connection));
        let callee = peer.user.clone();
        actix::spawn(async move {
            let world = &shared.world;
            let turn = guarded(world, world.signalling.turn_servers()).await.unwrap_or_default();
            let tile = shared.tile.clone().unwrap_or_default();
            let dialling = async { world.media.dial(connection, turn, tile, screen).await };
            let offer = match guarded(world, dialling).await.unwrap_or(Err(MediaError::Stopped)) {
                Ok((offer, facts)) => {
                    if !shared.connected(leg, facts) {
                        return;
                    }
                    Ok(offer.sdp)
                }
                Err(error) => {
                    tracing::warn!(call = %shared.key, %callee, %error, "an offer cannot be made");
                    Err(error)
                }
            };
            shared.tell(CallInput::Dialled { leg, offer });
        });
    }

    fn apply_answer(&self, leg: LegId, answer: String) {
        let Some(connection) = lock(&self.shared.legs).get(&leg).map(|leg| leg.connection) else { return };
        let applied = self.shared.world.media.answered(connection, answer);
        let shared = Arc::clone(&self.shared);
        actix::spawn(async move {
            let applied = guarded(&shared.world, applied).await.unwrap_or(Err(MediaError::Stopped));
            if let Err(error) = &applied {
                tracing::warn!(call = %shared.key, %error, "an answer cannot be used");
            }
            shared.tell(CallInput::Applied { leg, ok: applied.is_ok() });
        });
    }

    fn renegotiate(&self, leg: LegId, offer: String) {
        let given = lock(&self.shared.legs).get_mut(&leg).map(|leg| {
            leg.applied += 1;
            (leg.connection, leg.applied)
        });
        let Some((connection, number)) = given else { return };
        let answer = self.shared.world.media.renegotiate(connection, offer);
        let shared = Arc::clone(&self.shared);
        actix::spawn(async move {
            let answer = guarded(&shared.world, answer).await.unwrap_or(Err(MediaError::Stopped));
            let answer = answer.map(|answer| answer.sdp);
            if let Err(error) = &answer {
                tracing::warn!(call = %shared.key, %error, "a later offer cannot be used");
            }
            shared.tell(CallInput::Renegotiated { leg, number, answer });
        });
    }

    fn note(&self, leg: LegId, fact: CallFact) {
        let Some(session) = lock(&self.shared.session).clone() else { return };
        let kind = match fact {
            CallFact::Renegotiated => EventKind::Renegotiated,
            CallFact::Reconnected => EventKind::Connected,
            CallFact::Disconnected => EventKind::Disconnected,
        };
        let participant = self.shared.participant_on(leg);
        session.tell(event(session.now_s(), kind, participant.as_ref(), None));
    }

    fn watch_legs(&mut self, context: &mut Context<Self>) {
        let legs = lock(&self.shared.legs);
        self.watching.retain(|leg| legs.contains_key(leg));
        for (id, leg) in legs.iter() {
            let Some(mut facts) = leg.facts.clone() else { continue };
            if !self.watching.insert(*id) {
                continue;
            }
            let link = Arc::clone(&self.shared.link);
            context.spawn(actix::fut::wrap_future(async move {
                while facts.changed().await.is_ok() {
                    link.nudge();
                }
            }));
        }
    }

    /// Nobody is recorded who cannot be told.
    fn keep_announced(&mut self) {
        let shared = Arc::clone(&self.shared);
        if shared.outbox.consent_refused() && lock(&shared.ending).is_none() {
            let what = "A call was ended: its room refused the message that tells of the recording";
            shared.world.board.happened(shared.world.clock.utc_micros(), Severity::Warning, what);
            self.input(CallInput::Stop(Ending::because(CallEnd::NotAnnounced)));
        }
    }

    /// Opens the session once it is wanted.
    fn keep_session(&self) {
        let shared = &self.shared;
        let wanted = shared.want_session.load(Ordering::Acquire);
        let there = lock(&shared.session).is_some();
        if !wanted || there || shared.session_failed.load(Ordering::Acquire) {
            return;
        }
        if !shared.opening_session.load(Ordering::Acquire) && shared.refuses_for_space() {
            return;
        }
        if shared.opening_session.swap(true, Ordering::AcqRel) {
            return;
        }
        let shared = Arc::clone(shared);
        actix::spawn(async move {
            let world = &shared.world;
            // Of the disk too, which may stand still: media waits in its rings for as long.
            let room = tokio::time::timeout(ROOM_LIMIT, guarded(world, shared.learn_room())).await;
            let room = room.ok().and_then(Result::ok).unwrap_or_else(|| lock(&shared.room_facts).clone());
            let order = SessionOrder {
                room_id: shared.room.clone(),
                room,
                call_id: shared.call_id.clone(),
                call_kind: shared.kind,
                resume: shared.resume.clone(),
                started_by: shared.starter(),
                first_media: shared.first_media(),
            };
            let begun = guarded(world, async { world.sessions.open(order).await }).await;
            let begun = begun.unwrap_or_else(|last_error| Err(SessionError::Stopped { last_error }));
            let opened = begun.map(|session| {
                let opened = session.opened();
                *lock(&shared.session) = Some(session);
                opened
            });
            shared.opening_session.store(false, Ordering::Release);
            shared.link.nudge();
            let failed = match opened {
                Ok(opened) => opened.await.err(),
                Err(error) => Some(error),
            };
            if let Some(error) = failed {
                shared.cannot_record(&error);
            }
        });
    }

    /// Connections closed → files closed → session finished → room told → done.
    fn keep_ending(&self, context: &mut Context<Self>) {
        let shared = &self.shared;
        let Some(ending) = lock(&shared.ending).clone() else { return };
        if shared.is_done() {
            context.stop();
            return;
        }
        shared.close_legs();
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
            shared.run_to_done(finish(Arc::clone(shared), ending));
        }
    }

    /// The session that was wanted is there with its peers, or will never be.
    fn session_settled(&self) -> bool {
        let session = lock(&self.shared.session).clone();
        self.shared.session_failed.load(Ordering::Acquire)
            || session.is_some_and(|session| self.shared.everyone_has_a_place(&session))
    }

    fn publish(&self) {
        let shared = &self.shared;
        if shared.is_done() {
            return;
        }
        let state = lock(&shared.machine).state();
        let room = lock(&shared.room_facts).clone();
        self.slot.rename(if room.name.is_empty() { &shared.room } else { &room.name });
        shared.world.board.put_call(shared.snapshot(state, &room));
    }
}

impl CallShared {
    /// There is no folder to record into.
    fn cannot_record(&self, error: &SessionError) {
        tracing::error!(call = %self.key, %error, "a call cannot be recorded");
        let what = format!("A call cannot be recorded: {error}");
        self.world.board.happened(self.world.clock.utc_micros(), Severity::Error, what);
        Totals::count(&self.world.board.totals.sessions_failed);
        self.session_failed.store(true, Ordering::Release);
        self.tell(CallInput::Stop(Ending::because(CallEnd::Failed)));
    }

    /// A 1:1 call is on the disk's list of live calls, so that the next process can hang it up.
    async fn list_live(&self, caller: &str) {
        if self.kind != CallKind::OneToOne {
            return;
        }
        let version = lock(&self.machine).version();
        let call = LiveCall {
            room: self.room.clone(),
            call_id: self.call_id.clone(),
            caller: caller.to_owned(),
            version,
            seen_utc_micros: self.world.clock.utc_micros(),
        };
        self.world.live_calls.add(call).await;
    }

    async fn learn_room(&self) -> crate::ports::RoomFacts {
        let room = self.world.signalling.room(self.room.clone()).await;
        *lock(&self.room_facts) = room.clone();
        room
    }

    /// Arrival of the first packet on any leg.
    fn first_media(&self) -> Option<BootTime> {
        let legs = lock(&self.legs);
        legs.values().filter_map(|leg| leg.facts.as_ref()?.borrow().first_packet).min()
    }

    fn participant_on(&self, leg: LegId) -> Option<ParticipantId> {
        lock(&self.people)
            .values()
            .find(|person| person.leg == Some(leg))
            .and_then(|person| Some(person.place.as_ref()?.id.clone()))
    }
}

/// How each leg's connection fares now.
fn levels(shared: &CallShared) -> Vec<(LegId, ConnectionLevel)> {
    let legs = lock(&shared.legs);
    legs.iter().filter_map(|(id, leg)| Some((*id, level(leg.facts.as_ref()?.borrow().state)))).collect()
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
