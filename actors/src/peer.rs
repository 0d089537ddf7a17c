//! PeerActor: one per participant device. Compares what the connection and the signalling say with what is being
//! written, and starts, stops or replaces writers as `plan::diff` names them: no more.

mod consent;
mod flow;
mod heirloom;
mod tell;
mod wanted;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use actix::{Actor, ActorContext, AsyncContext, Context, Handler};
use recorder_core::call::StreamMetadata;
use recorder_core::ids::{Mid, ParticipantId};
use recorder_core::manifest::{EventKind, OpenedBecause, Record};
use recorder_core::media::MediaKind;
use recorder_core::plan::{Change, Pause, Plan, StreamPlan, TrackPlan, diff};
use recorder_core::timeline::SenderClock;
use tokio::sync::watch;

use self::flow::Flow;
pub use self::heirloom::{Inherited, KnownParticipant};
use self::tell::Said;
use self::wanted::find_ring;
use crate::drops::Growing;
use crate::journal::event;
use crate::observe::ActorKind;
use crate::ports::{ConnectionFacts, ConnectionState};
use crate::segment::TrackNames;
use crate::session::SessionHandle;
use crate::supervise::{Check, Link, Nudge, Slot, lock, tick_every_second};
use crate::testing::{Point, visit};
use crate::world::World;
use crate::writer::{Desired, TrackWriterActor, WriterShared};

/// Tracks one participant may have; m-lines beyond are not recorded, and counted.
const MOST_TRACKS: usize = 32;

/// What the call wants of a peer.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    pub metadata: Option<StreamMetadata>,
    /// Close every file and end.
    pub stop: bool,
    /// Write nothing. While the peer runs it is set by [`PeerShared::set_opted_out`] alone.
    pub opted_out: bool,
}

/// One track in its slot.
#[derive(Clone)]
pub struct TrackPlace {
    pub names: Arc<TrackNames>,
    pub kind: MediaKind,
    pub slot: Arc<Slot<TrackWriterActor>>,
    pub shared: Arc<WriterShared>,
    /// Why its first segment begins.
    because: OpenedBecause,
    /// What the journal says of it.
    said: Arc<Mutex<Said>>,
}

/// What a peer has counted and seen; like its tracks it outlives the actor.
#[derive(Debug, Default)]
pub struct Counters {
    /// It was told to stop and has seen what there was to be written until then.
    stop_seen: bool,
    /// An m-line of the remote description was `sendrecv` once, so that it can put us on hold.
    two_way: bool,
    held: bool,
    /// What the journal says of the participant's consent.
    opted_out: bool,
    held_drops: Growing,
    flow: Flow,
}

/// A peer's slot content: outlives the actor, belongs to the CallActor.
pub struct PeerShared {
    pub world: Arc<World>,
    pub participant: ParticipantId,
    pub display_name: String,
    pub session: SessionHandle,
    pub connection: watch::Receiver<Arc<ConnectionFacts>>,
    pub wanted: Mutex<Wanted>,
    pub link: Arc<Link>,
    pub parent: Arc<Link>,
    /// The plan that is in force.
    pub plan: Mutex<Plan>,
    pub tracks: Mutex<BTreeMap<Mid, TrackPlace>>,
    pub sender_clock: Arc<Mutex<SenderClock>>,
    pub counters: Mutex<Counters>,
    /// ICE restarts that stand in the journal.
    pub ice_restarts: AtomicU32,
    /// Tracks of an earlier connection or process that no m-line has taken up yet.
    pub inherited: Mutex<Vec<Inherited>>,
    /// Why the next segment of such a track begins.
    pub inherited_because: OpenedBecause,
}

impl PeerShared {
    /// The participant was told to stop, has seen that, and no file of it is open or to be opened.
    pub fn is_idle(&self) -> bool {
        lock(&self.counters).stop_seen && lock(&self.tracks).values().all(|track| track.shared.is_idle())
    }

    /// Closes every file without the PeerActor, which was given up. To be called until the participant is idle: writers
    /// that run close their own, the files of others are closed and counted here.
    pub fn finalise_all(&self) {
        lock(&self.counters).stop_seen = true;
        let now = self.world.clock.now();
        for track in self.tracks() {
            *lock(&track.shared.desired) = Desired::Finalise;
            if track.slot.check(now) == Check::Running {
                track.slot.nudge();
            } else {
                track.shared.close_current();
                track.shared.collect_closed();
            }
        }
    }

    /// Nothing arrives where something should, though the connection is up.
    pub fn is_stalled(&self) -> bool {
        lock(&self.counters).flow.stalled
    }

    pub fn tracks(&self) -> Vec<TrackPlace> {
        lock(&self.tracks).values().cloned().collect()
    }
}

pub struct PeerActor {
    shared: Arc<PeerShared>,
    slot: Arc<Slot<Self>>,
}

impl PeerActor {
    pub fn new(shared: Arc<PeerShared>, slot: Arc<Slot<Self>>) -> Self {
        Self { shared, slot }
    }

    fn reconcile(&mut self, context: &mut Context<Self>) {
        visit(Point::PeerHandler, self.slot.path());
        let shared = Arc::clone(&self.shared);
        let facts = Arc::clone(&shared.connection.borrow());
        let wanted = lock(&shared.wanted).clone();
        if wanted.opted_out {
            // Streams that are new since.
            shared.withhold();
        }
        self.tell_consent(wanted.opted_out);
        let current = lock(&shared.plan).clone();
        let next = self.wanted_plan(&current, &facts, &wanted);
        for change in diff(&current, &next) {
            self.apply(&change, &next, &facts);
            // One by one, so that what was done is not done again by the value after a panic.
            change.note_in(&mut lock(&shared.plan), &next);
            visit(Point::PeerChange, self.slot.path());
        }
        let held = self.look_for_hold(&facts, &wanted);
        self.tell_causes(&next, &facts, held);
        // At the end everything goes off, and the end says so; what was said until then counts. A client that hangs up closes its
        // connection before its word has come. Streams may have ended since the facts above were read.
        let state = shared.connection.borrow().state;
        let over = wanted.stop || matches!(state, ConnectionState::Closed | ConnectionState::Failed);
        self.tell_levels(&next, &facts, &wanted, (!over).then_some(held));
        if let Some(round_trip) = facts.round_trip {
            lock(&shared.sender_clock).observe_round_trip(round_trip.as_nanos() as u64);
        }
        if shared.ice_restarts.swap(facts.ice_restarts, Ordering::Relaxed) < facts.ice_restarts
            && !wanted.opted_out
        {
            let at_s = shared.session.now_s();
            shared.session.tell(event(at_s, EventKind::IceRestarted, Some(&shared.participant), None));
            for track in shared.tracks() {
                if let Some(segment) = &*lock(&track.shared.current) {
                    segment.control.note_reconnect();
                }
            }
        }
        self.look_at_flow(&facts, &wanted, held);
        if !wanted.opted_out {
            self.tell_drops(&facts, wanted.stop);
        }
        self.keep_writers_running();
        if wanted.stop {
            lock(&shared.counters).stop_seen = true;
            shared.end_states();
        }
        if wanted.stop && shared.is_idle() {
            context.stop();
        }
        shared.parent.nudge();
    }

    fn apply(&self, change: &Change, next: &Plan, facts: &ConnectionFacts) {
        match change {
            Change::Add { mid } => self.add(mid, &next[mid]),
            Change::Start { mid, run, because } => {
                let first = self.track(mid).filter(|_| *because == OpenedBecause::First);
                let opted_in = find_ring(facts, mid, run).is_some_and(|ring| ring.has_pause());
                let because = match first {
                    Some(_) if opted_in => OpenedBecause::OptedIn,
                    Some(track) => track.because,
                    None => *because,
                };
                self.run_writer(mid, run, because, facts);
            }
            Change::Replace { mid, run, because } => {
                // What has come to nothing is begun again, for the same reason: an m-line that comes back is known before its
                // first packet tells of which stream.
                let now = self.shared.world.clock.now();
                let alive = self.track(mid).filter(|track| track.slot.check(now) != Check::GivenUp);
                if let Some(because) = alive.and_then(|track| track.shared.came_to_nothing()) {
                    self.run_writer(mid, run, because, facts);
                } else {
                    self.run_writer(mid, run, *because, facts);
                    if *because == OpenedBecause::NewSsrc {
                        self.tell(mid, EventKind::DeviceChanged);
                    }
                }
            }
            Change::Stop { mid, pause } => {
                self.stop_writer(mid);
                if *pause == Pause::Disk {
                    self.tell_disk(mid, next[mid].source);
                }
            }
            Change::Update { .. } => {}
            Change::Remove { mid } => self.stop_writer(mid),
        }
    }

    /// Gives a track its id, its names and its writer's slot. No writer runs yet. An earlier value that failed before its
    /// plan was done may have given them already.
    fn add(&self, mid: &Mid, plan: &TrackPlan) {
        if self.track(mid).is_some() {
            return;
        }
        let shared = &self.shared;
        let (names, because) = match shared.claim(plan.source, plan.kind) {
            Some(inherited) => (inherited.names, shared.inherited_because),
            None => (self.new_names(plan), OpenedBecause::First),
        };
        let path = format!("{}/{}", self.slot.path(), names.track);
        let slot = Slot::new(
            &shared.world,
            &shared.link,
            path,
            ActorKind::TrackWriter,
            plan.source.name().to_owned(),
        );
        let writer = Arc::new(WriterShared {
            world: Arc::clone(&shared.world),
            mid: mid.clone(),
            names: Arc::clone(&names),
            session: shared.session.clone(),
            sender_clock: Arc::clone(&shared.sender_clock),
            link: Arc::default(),
            parent: Arc::clone(&shared.link),
            desired: Mutex::default(),
            pause_cause: Mutex::default(),
            current: Mutex::default(),
            closing: Mutex::default(),
            finished: Mutex::default(),
            dropped_unfiled: std::sync::atomic::AtomicBool::new(false),
            after_fault: std::sync::atomic::AtomicBool::new(false),
            opened: Mutex::default(),
        });
        lock(&shared.tracks).insert(
            mid.clone(),
            TrackPlace { names, kind: plan.kind, slot, shared: writer, because, said: Arc::default() },
        );
    }

    /// A track that the session does not know yet.
    fn new_names(&self, plan: &TrackPlan) -> Arc<TrackNames> {
        let shared = &self.shared;
        let track = shared.session.name_track(&shared.participant, plan.source);
        shared.session.tell(Record::TrackAdded {
            participant: shared.participant.clone(),
            track: track.clone(),
            source: plan.source.into(),
            kind: plan.kind.into(),
        });
        Arc::new(TrackNames {
            track,
            participant: shared.participant.clone(),
            source: plan.source,
            title: format!("{} {}", shared.display_name, plan.source.name()),
        })
    }

    /// A copy, so that no lock is held by whoever looks at it.
    fn track(&self, mid: &Mid) -> Option<TrackPlace> {
        lock(&self.shared.tracks).get(mid).cloned()
    }

    fn run_writer(&self, mid: &Mid, run: &StreamPlan, because: OpenedBecause, facts: &ConnectionFacts) {
        let Some(track) = self.track(mid) else { return };
        let Some(ring) = find_ring(facts, mid, run) else { return };
        *lock(&track.shared.desired) = Desired::Run { ring, because };
        // Something new to write is worth a new try, whatever went wrong before.
        track.slot.revive();
        if track.slot.check(self.shared.world.clock.now()) == Check::Empty {
            start_writer(&track);
        } else {
            track.slot.nudge();
        }
    }

    fn stop_writer(&self, mid: &Mid) {
        let Some(track) = self.track(mid) else { return };
        *lock(&track.shared.desired) = Desired::Finalise;
        // What comes after this pause does not come because of a fault before it.
        track.shared.after_fault.store(false, Ordering::Release);
        track.slot.nudge();
    }

    /// Restarts writers that failed, and those that ended while they were wanted again.
    fn keep_writers_running(&self) {
        let now = self.shared.world.clock.now();
        for track in self.shared.tracks() {
            match track.slot.check(now) {
                Check::RestartNow => {
                    self.tell_track(&track, EventKind::ChildRestarted);
                    start_writer(&track);
                }
                Check::Empty => {
                    let wanted = matches!(*lock(&track.shared.desired), Desired::Run { .. });
                    if wanted || !track.shared.is_idle() {
                        start_writer(&track);
                    }
                }
                // Its files are closed without it; what it would have written is lost, and the page says so.
                Check::GivenUp => {
                    track.shared.close_current();
                    track.shared.collect_closed();
                }
                Check::Running | Check::Waiting => {}
            }
        }
    }
}

fn start_writer(track: &TrackPlace) {
    let shared = Arc::clone(&track.shared);
    let slot = Arc::clone(&track.slot);
    track.slot.start(move |_| TrackWriterActor::new(shared, slot));
}

impl Actor for PeerActor {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        self.shared.link.connect(context.address().recipient());
        // Facts are levels: any change means one look.
        let mut connection = self.shared.connection.clone();
        let link = Arc::clone(&self.shared.link);
        context.spawn(actix::fut::wrap_future(async move {
            while connection.changed().await.is_ok() {
                link.nudge();
            }
        }));
        let mut disk = self.shared.world.disk.clone();
        let link = Arc::clone(&self.shared.link);
        context.spawn(actix::fut::wrap_future(async move {
            while disk.changed().await.is_ok() {
                link.nudge();
            }
        }));
        tick_every_second(context);
        context.notify(Nudge);
    }
}

impl Handler<Nudge> for PeerActor {
    type Result = ();

    fn handle(&mut self, _: Nudge, context: &mut Self::Context) {
        self.reconcile(context);
    }
}
