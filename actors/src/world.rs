//! Everything an actor may reach: ports, board, settings. One value, shared by all.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use recorder_core::ids::{ConnectionId, SegmentId};
use recorder_core::restart::RestartTerms;
use recorder_core::time::BootTime;
use tokio::sync::watch;

use crate::observe::Board;
use crate::ports::{Clock, DiskLevel, LiveCalls, MediaPlane, RoomMemory, Rooms, SessionFactory, Signalling};
use crate::segment::SegmentPlane;

#[derive(Clone, Debug)]
pub struct TreeSettings {
    /// Our user id.
    pub user: String,
    /// Our device id, which is our party in calls.
    pub device: String,
    pub restart: RestartTerms,
    pub group: GroupSettings,
}

/// How group calls are recorded.
#[derive(Clone, Debug)]
pub struct GroupSettings {
    /// Commands are obeyed and group calls recorded.
    pub enabled: bool,
    /// What people call us; empty for what each room shows us as.
    pub name: String,
    /// Whom to ask about recordings.
    pub contact: Option<String>,
    /// Record every call of every room.
    pub auto: bool,
    /// How long nobody but us may be in a call.
    pub empty_after: Duration,
    /// Power level that starting and stopping needs.
    pub start_level: i64,
    /// Commands of one user in a minute.
    pub commands_per_minute: usize,
    /// Show the recording time in the call.
    pub tile: bool,
    /// Calls recorded at once, of all kinds.
    pub max_calls: usize,
    pub leave: LeaveTerms,
}

/// When the homeserver takes our membership of a call back because it hears no more of us.
#[derive(Clone, Copy, Debug)]
pub struct LeaveTerms {
    pub after: Duration,
    /// How often we give word.
    pub every: Duration,
}

impl Default for LeaveTerms {
    fn default() -> Self {
        Self { after: Duration::from_secs(60), every: Duration::from_secs(20) }
    }
}

impl Default for GroupSettings {
    fn default() -> Self {
        Self {
            enabled: true,
            name: String::new(),
            contact: None,
            auto: false,
            empty_after: Duration::from_secs(60),
            start_level: 50,
            commands_per_minute: 10,
            tile: true,
            max_calls: 100,
            leave: LeaveTerms::default(),
        }
    }
}

pub struct World {
    pub settings: TreeSettings,
    pub clock: Arc<dyn Clock>,
    /// When this process began to listen: what is said in rooms from then on is said to it.
    pub listening: BootTime,
    pub media: Arc<dyn MediaPlane>,
    pub segments: Arc<dyn SegmentPlane>,
    pub signalling: Arc<dyn Signalling>,
    pub rooms: Arc<dyn Rooms>,
    pub memory: Arc<dyn RoomMemory>,
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

    /// Letters and digits that nobody can guess and no other process will use.
    pub fn random(&self) -> String {
        let mut hasher = RandomState::new().build_hasher();
        hasher.write_u64(self.connections.fetch_add(1, Ordering::Relaxed));
        let first = hasher.finish();
        hasher.write_u32(std::process::id());
        format!("{first:016x}{:016x}", hasher.finish())
    }

    pub fn segment(&self) -> SegmentId {
        SegmentId(self.segments.fetch_add(1, Ordering::Relaxed) + 1)
    }
}
