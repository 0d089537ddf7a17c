//! Everything an actor may reach: ports, board, settings. One value, shared by all.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use recorder_core::ids::{ConnectionId, SegmentId};
use recorder_core::restart::RestartTerms;
use tokio::sync::watch;

use crate::observe::Board;
use crate::ports::{Clock, DiskLevel, LiveCalls, MediaPlane, SessionFactory, Signalling};
use crate::segment::SegmentPlane;

#[derive(Clone, Debug)]
pub struct TreeSettings {
    /// Our user id.
    pub user: String,
    /// Our device id, which is our party in calls.
    pub device: String,
    pub restart: RestartTerms,
}

pub struct World {
    pub settings: TreeSettings,
    pub clock: Arc<dyn Clock>,
    pub media: Arc<dyn MediaPlane>,
    pub segments: Arc<dyn SegmentPlane>,
    pub signalling: Arc<dyn Signalling>,
    pub sessions: Arc<dyn SessionFactory>,
    pub live_calls: Arc<dyn LiveCalls>,
    pub disk: watch::Receiver<DiskLevel>,
    pub board: Arc<Board>,
    pub numbers: Numbers,
}

/// Process-wide counters of ids.
#[derive(Debug, Default)]
pub struct Numbers {
    connections: AtomicU64,
    segments: AtomicU64,
}

impl Numbers {
    pub fn connection(&self) -> ConnectionId {
        ConnectionId(self.connections.fetch_add(1, Ordering::Relaxed) + 1)
    }

    pub fn segment(&self) -> SegmentId {
        SegmentId(self.segments.fetch_add(1, Ordering::Relaxed) + 1)
    }
}
