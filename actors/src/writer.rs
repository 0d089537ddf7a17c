//! TrackWriterActor: one per stream of a participant. Orders segments from the pumps, watches them, opens the next.
//!
//! It owns no file and no reader: the running segment lies in its slot, so a panic here leaves file and pump as they
//! are, and the next generation adopts them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use actix::{Actor, ActorContext, AsyncContext, Context, Handler};
use recorder_core::ids::{Mid, StreamId};
use recorder_core::manifest::{GapCause, OpenedBecause};
use recorder_core::timeline::SenderClock;

use crate::ring::TrackRing;
use crate::segment::{ClosedFile, Failure, SegmentHandle, SegmentOrder, SegmentPhase, TrackNames};
use crate::session::SessionHandle;
use crate::supervise::{Link, Nudge, Slot, lock, tick_every_second};
use crate::testing::{Point, visit};
use crate::world::World;

/// Segments that may still be closing while the newest runs. More mean a disk that does not keep up; then the next one
/// waits for the oldest.
const MOST_CLOSING: usize = 64;

/// What the parent wants of a writer.
#[derive(Clone, Debug, Default)]
pub enum Desired {
    /// Close what runs, then end.
    #[default]
    Finalise,
    /// Write this stream.
    Run { ring: Arc<TrackRing>, because: OpenedBecause },
}

/// A writer's slot content: outlives the actor, belongs to the PeerActor.
pub struct WriterShared {
    pub world: Arc<World>,
    pub mid: Mid,
    pub names: Arc<TrackNames>,
    pub session: SessionHandle,
    pub sender_clock: Arc<Mutex<SenderClock>>,
    pub link: Arc<Link>,
    /// Nudged when something the page or the parent cares for changed.
    pub parent: Arc<Link>,
    pub desired: Mutex<Desired>,
    pub pause_cause: Mutex<Option<GapCause>>,
    pub current: Mutex<Option<SegmentHandle>>,
    pub closing: Mutex<Vec<SegmentHandle>>,
    /// Files of segments that are over, for the last computation of their clock maps.
    pub finished: Mutex<Vec<ClosedFile>>,
    /// Packets were dropped by us that no file's ledger tells of, since there was no file.
    pub dropped_unfiled: AtomicBool,
    /// The last segment failed: the next one says so.
    pub after_fault: AtomicBool,
    /// The newest stream that a segment was opened for.
    pub opened: Mutex<Option<StreamId>>,
}

impl WriterShared {
    /// Nothing is being written or closed, and nothing is to be.
    pub fn is_idle(&self) -> bool {
        lock(&self.current).is_none()
            && lock(&self.closing).is_empty()
            && matches!(*lock(&self.desired), Desired::Finalise)
    }

    /// Why the stream that is to be written now is written, if that has brought nothing yet.
    pub(crate) fn came_to_nothing(&self) -> Option<OpenedBecause> {
        let Desired::Run { ring, because } = lock(&self.desired).clone() else { return None };
        if !ring.is_empty() || self.after_fault.load(Ordering::Acquire) {
            return None;
        }
        match &*lock(&self.current) {
            Some(segment) if segment.ring.info.id == ring.info.id => {
                (segment.now().files == 0).then_some(segment.opened_because)
            }
            // It is not begun.
            _ => Some(because),
        }
    }

    /// Has the running segment take what is in its ring and close its file.
    pub(crate) fn close_current(&self) {
        if let Some(segment) = lock(&self.current).take() {
            segment.control.finish(self.world.clock.now());
            lock(&self.closing).push(segment);
        }
    }

    /// Counts the segments that are over and lets go of them.
    pub(crate) fn collect_closed(&self) {
        let mut over = Vec::new();
        lock(&self.closing).retain(|segment| {
            let done = segment.now().phase.is_over();
            if done {
                over.push(segment.clone());
            }
            !done
        });
        for segment in &over {
            self.count_finished(segment);
        }
        if !over.is_empty() {
            self.parent.nudge();
        }
    }

    fn count_finished(&self, segment: &SegmentHandle) {
        let facts = segment.now();
        if facts.files == 0 && facts.ledger.dropped_by_us > 0 {
            self.dropped_unfiled.store(true, Ordering::Relaxed);
        }
        lock(&self.finished).extend(facts.closed.iter().cloned());
    }
}

pub struct TrackWriterActor {
    shared: Arc<WriterShared>,
    slot: Arc<Slot<Self>>,
}

impl TrackWriterActor {
    pub fn new(shared: Arc<WriterShared>, slot: Arc<Slot<Self>>) -> Self {
        Self { shared, slot }
    }

    fn reconcile(&mut self, context: &mut Context<Self>) {
        visit(Point::WriterHandler, self.slot.path());
        self.shared.collect_closed();
        let desired = lock(&self.shared.desired).clone();
        match desired {
            Desired::Finalise => {
                self.shared.close_current();
                // A segment that was over already has no watcher left to tell of its end.
                self.shared.collect_closed();
                if self.shared.is_idle() {
                    context.stop();
                }
            }
            Desired::Run { ring, because } => self.run(&ring, because, context),
        }
    }

    /// Brings the running segment in line with the wanted stream.
    fn run(&mut self, ring: &Arc<TrackRing>, because: OpenedBecause, context: &mut Context<Self>) {
        let current = lock(&self.shared.current).clone();
        if let Some(segment) = current {
            if segment.ring.info.id == ring.info.id {
                match segment.now().phase.clone() {
                    SegmentPhase::Failed(failure) => {
                        self.shared.count_finished(&segment);
                        *lock(&self.shared.current) = None;
                        self.shared.after_fault.store(true, Ordering::Release);
                        // A fresh value goes on from the ring, after a while if the fault stays.
                        match failure {
                            Failure::Refused(why) => self.slot.fault(why),
                            Failure::Panic(why) => self.slot.defect(why),
                        }
                        context.stop();
                    }
                    // What it had not written was thrown away for an opt-out that is over already.
                    SegmentPhase::Closed if ring.has_pause() && !ring.is_withheld() => {
                        self.shared.count_finished(&segment);
                        *lock(&self.shared.current) = None;
                        self.open(ring, OpenedBecause::OptedIn, context);
                    }
                    // The stream ended and its file is closed; the parent's plan will say so too.
                    SegmentPhase::Closed => {}
                    SegmentPhase::Waiting | SegmentPhase::Writing | SegmentPhase::Finishing => {
                        segment.control.set_pause_cause(*lock(&self.shared.pause_cause));
                    }
                }
                return;
            }
            self.shared.close_current();
        }
        if lock(&self.shared.closing).len() >= MOST_CLOSING {
            return;
        }
        let because = match self.shared.after_fault.swap(false, Ordering::AcqRel) {
            true => OpenedBecause::WriterRestarted,
            false => because,
        };
        self.open(ring, because, context);
    }

    fn open(&mut self, ring: &Arc<TrackRing>, because: OpenedBecause, context: &mut Context<Self>) {
        let shared = &self.shared;
        let segment = shared.world.segments.start(SegmentOrder {
            writer: self.slot.path().to_owned(),
            id: shared.world.numbers.segment(),
            ring: Arc::clone(ring),
            names: Arc::clone(&shared.names),
            opened_because: because,
            connection: ring.info.connection,
            mid: shared.mid.clone(),
            sender_clock: Arc::clone(&shared.sender_clock),
            session: shared.session.clone(),
        });
        segment.control.set_pause_cause(*lock(&shared.pause_cause));
        *lock(&shared.current) = Some(segment.clone());
        self.watch(&segment, context);
        *lock(&shared.opened) = Some(ring.info.id);
        shared.parent.nudge();
    }

    /// Turns a segment's facts into nudges, for this value's life.
    fn watch(&self, segment: &SegmentHandle, context: &mut Context<Self>) {
        let mut facts = segment.facts.clone();
        let link = Arc::clone(&self.shared.link);
        context.spawn(actix::fut::wrap_future(async move {
            let mut phase = facts.borrow_and_update().phase.clone();
            while !phase.is_over() && facts.changed().await.is_ok() {
                let newer = facts.borrow_and_update().phase.clone();
                if newer != phase {
                    phase = newer;
                    link.nudge();
                }
            }
        }));
    }
}

impl Actor for TrackWriterActor {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        self.shared.link.connect(context.address().recipient());
        // Adopt what an earlier generation left running.
        let left: Vec<_> =
            lock(&self.shared.current).iter().chain(lock(&self.shared.closing).iter()).cloned().collect();
        for segment in left {
            self.watch(&segment, context);
        }
        tick_every_second(context);
        context.notify(Nudge);
    }
}

impl Handler<Nudge> for TrackWriterActor {
    type Result = ();

    fn handle(&mut self, _: Nudge, context: &mut Self::Context) {
        self.reconcile(context);
    }
}
