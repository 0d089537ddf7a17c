//! Segments: what a track writer orders from the pumps, and what it may know of one.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use recorder_core::ids::{ConnectionId, Mid, ParticipantId, SegmentId, TrackId};
use recorder_core::manifest::{GapCause, Ledger, OpenedBecause};
use recorder_core::media::Source;
use recorder_core::time::BootTime;
use recorder_core::timeline::SenderClock;
use tokio::sync::watch;

pub use crate::clock_fit::ClosedFile;
use crate::ring::TrackRing;
use crate::session::SessionHandle;

/// What a track's files are named after. The session gives the names themselves.
#[derive(Debug)]
pub struct TrackNames {
    pub track: TrackId,
    pub participant: ParticipantId,
    pub source: Source,
    /// For people, in the file's title.
    pub title: String,
}

/// How a segment fares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum SegmentPhase {
    /// No frame has been written; there is no file yet.
    #[default]
    Waiting,
    Writing,
    /// What is queued goes to the disk.
    Finishing,
    /// On disk, synced, in the journal.
    Closed,
    /// The file was closed as it was and repaired; a next segment may go on.
    Failed(Failure),
}

/// Why a segment cannot go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// What is outside of us refused: it may take later what it does not take now.
    Refused(String),
    /// A panic, in the pump or below the storage: a defect, that will be there again.
    Panic(String),
}

impl Failure {
    pub fn why(&self) -> &str {
        match self {
            Self::Refused(why) | Self::Panic(why) => why,
        }
    }
}

impl SegmentPhase {
    pub fn is_over(&self) -> bool {
        matches!(self, Self::Closed | Self::Failed(_))
    }
}

/// All that may be known of a segment, as of now.
#[derive(Clone, Debug, Default)]
pub struct SegmentFacts {
    pub phase: SegmentPhase,
    /// The file that is, or was last, written.
    pub file: Option<String>,
    /// Files this order has opened: more than one where parameter sets changed.
    pub files: u32,
    pub width: Option<u32>,
    pub height: Option<u32>,
    /// On the disk, as are `bytes` and `media_seconds`.
    pub frames: u64,
    pub bytes: u64,
    pub media_seconds: f64,
    /// Fates decided so far: it always balances. Of its figures only `written` can fall, where `dropped_by_us` grows by
    /// what a failed disk did not take.
    pub ledger: Ledger,
    pub bits_per_second: u64,
    pub last_frame: Option<BootTime>,
    /// Files of this order that are closed.
    pub closed: Vec<ClosedFile>,
}

/// What the writer tells the pump while it runs. Levels, not edges.
#[derive(Debug, Default)]
pub struct SegmentControl {
    finish: AtomicBool,
    muted: AtomicBool,
    /// Index into [`GapCause`] of what a pause would be put down to; 0 = unknown.
    cause: AtomicU8,
    reconnected: AtomicBool,
    /// `BootTime` nanoseconds of the newest request to finish.
    finish_at: AtomicU64,
}

impl SegmentControl {
    /// Take what is in the ring, then close the file.
    pub fn finish(&self, now: BootTime) {
        self.finish_at.store(now.as_nanos(), Ordering::Relaxed);
        self.finish.store(true, Ordering::Release);
    }

    pub fn is_finishing(&self) -> bool {
        self.finish.load(Ordering::Acquire)
    }

    /// When it was asked to finish, if it was.
    pub fn finish_requested(&self) -> Option<BootTime> {
        self.is_finishing().then(|| BootTime(self.finish_at.load(Ordering::Relaxed)))
    }

    /// What a pause that begins now would be put down to.
    pub fn set_pause_cause(&self, cause: Option<GapCause>) {
        let code = match cause {
            Some(GapCause::Muted) => 1,
            Some(GapCause::SourceOff) => 2,
            Some(GapCause::Held) => 3,
            Some(GapCause::Reconnect) => 4,
            _ => 0,
        };
        // A pause is judged when it ends, by the strongest cause there was during it.
        if code == 0 {
            self.muted.store(false, Ordering::Relaxed);
        } else {
            self.muted.store(true, Ordering::Relaxed);
            self.cause.store(code, Ordering::Relaxed);
        }
    }

    /// The path was made anew: if packets are missing before the next frame, that is why.
    pub fn note_reconnect(&self) {
        self.reconnected.store(true, Ordering::Relaxed);
    }

    /// Pump only, when media came back: whether [`Self::note_reconnect`] was called since.
    pub fn take_reconnect(&self) -> bool {
        self.reconnected.swap(false, Ordering::Relaxed)
    }

    /// Pump only, when media came back: the cause noted since the last call.
    pub fn take_pause_cause(&self) -> Option<GapCause> {
        let code = self.cause.load(Ordering::Relaxed);
        if !self.muted.load(Ordering::Relaxed) {
            self.cause.store(0, Ordering::Relaxed);
        }
        match code {
            1 => Some(GapCause::Muted),
            2 => Some(GapCause::SourceOff),
            3 => Some(GapCause::Held),
            4 => Some(GapCause::Reconnect),
            _ => None,
        }
    }
}

/// An order for one segment.
pub struct SegmentOrder {
    /// Path in the tree of the writer that orders it.
    pub writer: String,
    pub id: SegmentId,
    pub ring: Arc<TrackRing>,
    pub names: Arc<TrackNames>,
    pub opened_because: OpenedBecause,
    pub connection: ConnectionId,
    pub mid: Mid,
    /// One clock for all tracks of a participant's connection.
    pub sender_clock: Arc<Mutex<SenderClock>>,
    pub session: SessionHandle,
}

/// A running segment.
#[derive(Clone)]
pub struct SegmentHandle {
    pub id: SegmentId,
    pub ring: Arc<TrackRing>,
    pub opened_because: OpenedBecause,
    pub facts: watch::Receiver<Arc<SegmentFacts>>,
    pub control: Arc<SegmentControl>,
}

impl SegmentHandle {
    pub fn now(&self) -> Arc<SegmentFacts> {
        Arc::clone(&self.facts.borrow())
    }
}

/// The pumps as the tree sees them.
pub trait SegmentPlane: Send + Sync + 'static {
    fn start(&self, order: SegmentOrder) -> SegmentHandle;
}
