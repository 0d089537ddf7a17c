//! Pumps: plain threads that turn rings into files. Ring → `core::rtp` → `core::mux` → lane.
//!
//! A pump goes round each [`TICK`], takes all that its segments' rings hold and never waits for the disk. A panic in one
//! segment's turn closes that segment's file and is told as its failure; the others go on.

use std::collections::HashMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use recorder_core::ids::SegmentId;
use recorder_core::time::BootTime;
use tokio::sync::watch;

use crate::lane::LanePool;
use crate::observe::{Board, Totals};
use crate::ports::{Clock, MediaPlane};
use crate::segment::{Failure, SegmentControl, SegmentFacts, SegmentHandle, SegmentOrder, SegmentPlane};
use crate::supervise::{lock, panic_text};
use crate::track_file::Recording;

/// Between two rounds of a pump with segments. A ring holds at least 2 s.
const TICK: Duration = Duration::from_millis(50);

/// What a segment's turn needs besides itself.
pub(crate) struct PumpWorld {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) media: Arc<dyn MediaPlane>,
    pub(crate) lanes: Arc<LanePool>,
    pub(crate) board: Arc<Board>,
    /// As files name their writer.
    pub(crate) writing_app: String,
}

#[derive(Default)]
struct Inbox {
    orders: Vec<Recording>,
    ending: bool,
    /// Nobody takes orders any more.
    ended: bool,
}

struct Shared {
    world: PumpWorld,
    inbox: Mutex<Inbox>,
    wake: Condvar,
    /// When the present round began; 0 between rounds.
    round_since: AtomicU64,
}

/// The pump thread and its segments.
pub struct PumpPool {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl PumpPool {
    pub fn start(
        clock: Arc<dyn Clock>,
        media: Arc<dyn MediaPlane>,
        lanes: Arc<LanePool>,
        board: Arc<Board>,
        writing_app: String,
    ) -> io::Result<Arc<Self>> {
        let world = PumpWorld { clock, media, lanes, board, writing_app };
        let shared = Arc::new(Shared {
            world,
            inbox: Mutex::default(),
            wake: Condvar::new(),
            round_since: AtomicU64::new(0),
        });
        let inner = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("pump".into()).spawn(move || run(&inner))?;
        Ok(Arc::new(Self { shared, thread: Mutex::new(Some(thread)) }))
    }

    /// How long the pump has been in its present round. One takes milliseconds; a pump that stands still records nothing.
    pub fn busy_for(&self, now: BootTime) -> Duration {
        match self.shared.round_since.load(Ordering::Acquire) {
            0 => Duration::ZERO,
            since => now.saturating_since(BootTime::from_nanos(since)),
        }
    }

    /// Finishes every segment, whoever ordered it, and ends the thread when all are over. Blocks as long as that takes.
    pub fn shut_down(&self) {
        lock(&self.shared.inbox).ending = true;
        self.shared.wake.notify_all();
        if let Some(thread) = lock(&self.thread).take() {
            let _ = thread.join();
        }
    }
}

impl SegmentPlane for PumpPool {
    fn start(&self, order: SegmentOrder) -> SegmentHandle {
        let (told, facts) = watch::channel(Arc::new(SegmentFacts::default()));
        let control = Arc::new(SegmentControl::default());
        let handle = SegmentHandle {
            id: order.id,
            ring: Arc::clone(&order.ring),
            opened_because: order.opened_because,
            facts,
            control: Arc::clone(&control),
        };
        let mut recording = Recording::new(order, control, told);
        let mut inbox = lock(&self.shared.inbox);
        if inbox.ended {
            recording.give_up(Failure::Refused("the pumps have ended".into()));
        } else {
            inbox.orders.push(recording);
            self.shared.wake.notify_all();
        }
        handle
    }
}

fn run(shared: &Shared) {
    let mut segments: HashMap<SegmentId, Recording> = HashMap::new();
    loop {
        {
            let mut inbox = lock(&shared.inbox);
            if segments.is_empty() {
                while inbox.orders.is_empty() && !inbox.ending {
                    inbox = shared.wake.wait(inbox).unwrap_or_else(PoisonError::into_inner);
                }
                if inbox.orders.is_empty() {
                    inbox.ended = true;
                    return;
                }
            } else if inbox.orders.is_empty() {
                inbox = shared.wake.wait_timeout(inbox, TICK).unwrap_or_else(PoisonError::into_inner).0;
            }
            for recording in inbox.orders.drain(..) {
                segments.insert(recording.id(), recording);
            }
        }
        shared.round_since.store(shared.world.clock.now().as_nanos().max(1), Ordering::Release);
        if lock(&shared.inbox).ending {
            let now = shared.world.clock.now();
            segments.values().for_each(|recording| recording.finish_now(now));
        }
        // In the order of their making, so that the earlier of two segments on one ring reads it to its end first.
        let mut ids: Vec<_> = segments.keys().copied().collect();
        ids.sort_unstable();
        for id in ids {
            let Some(recording) = segments.get_mut(&id) else { continue };
            let turn = catch_unwind(AssertUnwindSafe(|| recording.turn(&shared.world)));
            if let Err(payload) = turn {
                Totals::count(&shared.world.board.totals.panics_caught);
                let failure = Failure::Panic(panic_text(&*payload));
                let reading = recording.is_reading();
                let failed = catch_unwind(AssertUnwindSafe(|| recording.fail(failure.clone())));
                if !reading || failed.is_err() {
                    recording.give_up(failure);
                }
            }
            if recording.is_over() {
                segments.remove(&id);
            }
        }
        shared.round_since.store(0, Ordering::Release);
    }
}
