//! The observation board: the only thing the page, the API and the metrics read.
//!
//! Actors and pumps put whole snapshots in `Arc`s here; a reader copies the `Arc` out and holds no lock while it
//! renders, so the page answers while an actor hangs. Totals outlive the actors that counted them.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use dashmap::DashMap;
use recorder_core::ids::{CallKey, Generation};
use recorder_core::media::{Codec, MediaKind, Source};
use recorder_core::room::Waits;
use serde::Serialize;

/// Counters of one kind. They only grow.
macro_rules! counters {
    ($(#[doc = $about:literal])* $kind:ident { $($(#[doc = $doc:literal])* $name:ident),* $(,)? }) => {
        $(#[doc = $about])*
        #[derive(Debug, Default)]
        pub struct $kind {
            $($(#[doc = $doc])* pub $name: AtomicU64,)*
        }

        impl $kind {
            /// Every counter with its name and help text, for the metrics page.
            pub fn read(&self) -> Vec<(&'static str, &'static str, u64)> {
                vec![$((
                    stringify!($name),
                    concat!($($doc),*).trim(),
                    self.$name.load(Ordering::Relaxed),
                ),)*]
            }
        }
    };
}

mod media;

pub use self::media::{MediaCounts, MediaView};

/// Happenings kept for the page; the oldest go first.
pub const HAPPENINGS: usize = 200;
/// Stays of a participant that are shown.
pub const STAYS: usize = 20;
/// Actors the board shows. More than the tree can hold at `calls.max`, and a bound all the same.
pub const ACTORS: usize = 20_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ActorKind {
    Supervisor,
    Call,
    Peer,
    TrackWriter,
}

impl ActorKind {
    /// For people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Supervisor => "supervisor",
            Self::Call => "call",
            Self::Peer => "peer",
            Self::TrackWriter => "track writer",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ActorState {
    Starting,
    Running,
    /// It ended by a fault and waits for its back-off.
    Restarting,
    Stopping,
    Stopped,
    /// Its restart budget is used up; its siblings go on.
    Failed,
}

/// One actor as the page shows it.
#[derive(Clone, Debug, Serialize)]
pub struct ActorSnapshot {
    /// Place in the tree, `/`-separated, parents first: `supervisor/call-1/p1/p1-camera-1`.
    pub path: String,
    pub kind: ActorKind,
    /// For people: a room's, a participant's or a source's name. Remote text, to be escaped by whoever shows it.
    pub name: String,
    pub state: ActorState,
    pub generation: Generation,
    /// Number of this value among all that this process ever started: another one means another actor. 0: none yet.
    pub address: u64,
    pub restarts: u64,
    pub last_error: Option<String>,
    /// When this generation began, UTC microseconds.
    pub since_utc_micros: i64,
}

#[derive(Clone, Debug, Serialize)]
pub struct TrackSnapshot {
    pub id: String,
    pub source: Source,
    pub kind: MediaKind,
    pub codec: Option<Codec>,
    pub width: Option<u32>,
    pub height: Option<u32>,
    /// Media bits per second written in the last seconds.
    pub bits_per_second: u64,
    /// Seconds of media written in all segments.
    pub media_seconds: f64,
    pub bytes: u64,
    pub frames: u64,
    pub received: u64,
    pub recovered: u64,
    pub lost: u64,
    pub dropped_by_us: u64,
    pub muted: bool,
    /// Media is arriving now.
    pub live: bool,
    /// File of the current segment, relative to the session folder.
    pub file: Option<String>,
    pub segments: u32,
}

/// One stay of a participant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct StaySnapshot {
    pub joined_utc_micros: i64,
    /// `None` while it lasts.
    pub left_utc_micros: Option<i64>,
}

#[derive(Clone, Debug, Serialize)]
pub struct ParticipantSnapshot {
    pub id: String,
    pub user_id: Option<String>,
    pub device_id: Option<String>,
    pub display_name: Option<String>,
    pub present: bool,
    /// The newest [`STAYS`], oldest first.
    pub stays: Vec<StaySnapshot>,
    /// They were told that the call is recorded.
    pub told: bool,
    /// Nothing of them is recorded, as they asked.
    pub opted_out: bool,
    /// Nothing arrives of them where something should, though their connection is up.
    pub stalled: bool,
    pub tracks: Vec<TrackSnapshot>,
}

/// One call being recorded.
#[derive(Clone, Debug, Serialize)]
pub struct CallSnapshot {
    pub key: CallKey,
    pub session_id: String,
    /// `one_to_one`, `mesh` or `element_call`.
    pub call_kind: String,
    pub room_id: String,
    pub room_name: String,
    pub encrypted: bool,
    /// For people: `connecting`, `recording`, `reconnecting`, `held`, `ending`.
    pub state: String,
    pub started_utc_micros: i64,
    /// User id; `None` if the configuration wants every call recorded, or that user has opted out.
    pub started_by: Option<String>,
    /// Session folder, relative to the recordings directory.
    pub folder: String,
    pub participants: Vec<ParticipantSnapshot>,
}

/// A room whose next call is recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RoomSnapshot {
    pub room_id: String,
    /// Empty if it was not looked up.
    pub room_name: String,
    pub waiting: Waits,
    /// Who asked for it; `None` for nobody, or somebody who has opted out.
    pub by: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    Info,
    Warning,
    Error,
}

/// Something that happened lately, in words a person says.
#[derive(Clone, Debug, Serialize)]
pub struct Happening {
    /// Counts up; a page that saw `n` asks for what is newer.
    pub number: u64,
    pub utc_micros: i64,
    pub severity: Severity,
    pub text: String,
}

/// The Matrix account's state.
#[derive(Clone, Debug, Default, Serialize)]
pub struct AccountSnapshot {
    pub user_id: Option<String>,
    pub device_id: Option<String>,
    pub homeserver: Option<String>,
    pub logged_in: bool,
    pub first_sync_done: bool,
    /// End of the last successful sync, UTC microseconds.
    pub last_sync_utc_micros: Option<i64>,
    pub last_error: Option<String>,
}

/// Where recordings go.
#[derive(Clone, Debug, Default, Serialize)]
pub struct StorageSnapshot {
    pub writable: bool,
    pub free_bytes: u64,
    pub reserve_bytes: u64,
    /// `plenty`, `video_stopped` or `all_stopped`.
    pub level: String,
    /// Longest time a writer lane has been in one write, seconds; a lane above 5 is stalled.
    pub lane_busy_s: f64,
    pub queued_bytes: u64,
    pub last_error: Option<String>,
}

counters! {
    /// Counters since the process began. Each fact is counted in one place.
    Totals {
        /// Commands and objections in rooms that were not followed.
        commands_refused,
        /// Devices in group calls that were not recorded because there were too many.
        participants_refused,
        /// Calls answered.
        calls_answered,
        /// Invites refused because their sender is not on the allow-list.
        calls_refused_not_allowed,
        /// Invites refused because `calls.max` calls were running.
        calls_refused_busy,
        /// Invites refused because their sender had opted out of being recorded in the room.
        calls_refused_opted_out,
        /// Invites refused because there was no space on the disk.
        calls_refused_disk_full,
        /// Invites left alone because they named nobody in a room of more than two.
        calls_refused_misplaced,
        /// Invites refused because their offer could not be used.
        calls_refused_bad_offer,
        /// Calls that ended.
        calls_ended,
        /// Sessions whose recording failed.
        sessions_failed,
        /// Actors started again after a fault.
        actor_restarts,
        /// Panics caught in actors, pumps and lanes.
        panics_caught,
        /// Late answers of replaced children, ignored.
        stale_messages,
        /// Actors given up after their restart budget.
        actors_given_up,
        /// Segments opened.
        segments_opened,
        /// Segments closed with everything on disk.
        segments_closed,
        /// Media frames written.
        frames_written,
        /// Bytes handed to the disk.
        bytes_written,
        /// RTP packets received.
        packets_received,
        /// RTP packets that came by retransmission.
        packets_recovered,
        /// RTP packets that never came.
        packets_lost,
        /// RTP packets that arrived and were lost by this program; 0 or a defect.
        packets_dropped_by_us,
        /// Key frames asked for.
        key_frames_requested,
        /// Disk errors.
        disk_errors,
        /// Signalling events that were malformed or out of place, and ignored.
        signals_ignored,
        /// Signalling events handled.
        signals_handled,
        /// Room invites accepted.
        room_invites_accepted,
        /// Room invites refused.
        room_invites_refused,
        /// Syncs that failed.
        sync_failures,
        /// Syncs that succeeded.
        syncs,
        /// Events that could not be decrypted when they arrived.
        undecrypted_events,
    }
}

impl Totals {
    pub fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// The board. Shared as `Arc<Board>`.
#[derive(Debug, Default)]
pub struct Board {
    actors: DashMap<String, Arc<ActorSnapshot>>,
    calls: DashMap<CallKey, Arc<CallSnapshot>>,
    rooms: DashMap<String, Arc<RoomSnapshot>>,
    happenings: Mutex<VecDeque<Arc<Happening>>>,
    happened: AtomicU64,
    addresses: AtomicU64,
    pub account: ArcSwap<AccountSnapshot>,
    pub storage: ArcSwap<StorageSnapshot>,
    pub totals: Totals,
    /// Rooms whose wishes (who is not to be recorded, what runs) the disk has not taken yet.
    pub unsaved_rooms: AtomicU64,
    /// The media plane's own, once it runs.
    pub media: ArcSwap<MediaView>,
    /// `BootTime` nanoseconds of the tree's last heartbeat.
    pub tree_heartbeat: AtomicU64,
    /// `BootTime` nanoseconds of the media loop's last turn.
    pub media_heartbeat: AtomicU64,
}

impl Board {
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// The number of a value that is about to start; see [`ActorSnapshot::address`].
    pub fn next_address(&self) -> u64 {
        self.addresses.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub fn put_actor(&self, snapshot: ActorSnapshot) {
        if self.actors.len() < ACTORS || self.actors.contains_key(&snapshot.path) {
            self.actors.insert(snapshot.path.clone(), Arc::new(snapshot));
        }
    }

    pub fn remove_actor(&self, path: &str) {
        self.actors.remove(path);
    }

    /// Removes an actor and everything below it.
    pub fn remove_subtree(&self, path: &str) {
        let below = format!("{path}/");
        self.actors.retain(|key, _| key != path && !key.starts_with(&below));
    }

    pub fn actor(&self, path: &str) -> Option<Arc<ActorSnapshot>> {
        self.actors.get(path).map(|entry| Arc::clone(entry.value()))
    }

    /// All actors, parents before children.
    pub fn actors(&self) -> Vec<Arc<ActorSnapshot>> {
        let mut all: Vec<_> = self.actors.iter().map(|entry| Arc::clone(entry.value())).collect();
        all.sort_by(|a, b| a.path.cmp(&b.path));
        all
    }

    pub fn put_call(&self, snapshot: CallSnapshot) {
        self.calls.insert(snapshot.key, Arc::new(snapshot));
    }

    pub fn remove_call(&self, key: CallKey) {
        self.calls.remove(&key);
    }

    /// All calls, oldest first.
    pub fn calls(&self) -> Vec<Arc<CallSnapshot>> {
        let mut all: Vec<_> = self.calls.iter().map(|entry| Arc::clone(entry.value())).collect();
        all.sort_by_key(|call| call.key);
        all
    }

    pub fn put_room(&self, snapshot: RoomSnapshot) {
        self.rooms.insert(snapshot.room_id.clone(), Arc::new(snapshot));
    }

    pub fn remove_room(&self, room_id: &str) {
        self.rooms.remove(room_id);
    }

    /// Rooms whose next call is recorded, by the reason and by name.
    pub fn rooms(&self) -> Vec<Arc<RoomSnapshot>> {
        let mut all: Vec<_> = self.rooms.iter().map(|entry| Arc::clone(entry.value())).collect();
        all.sort_by(|a, b| {
            let key = |room: &RoomSnapshot| (room.waiting, room.room_name.clone(), room.room_id.clone());
            key(a).cmp(&key(b))
        });
        all
    }

    pub fn happened(&self, utc_micros: i64, severity: Severity, text: impl Into<String>) {
        let number = self.happened.fetch_add(1, Ordering::Relaxed) + 1;
        let mut list = self.happenings.lock().unwrap_or_else(PoisonError::into_inner);
        if list.len() == HAPPENINGS {
            list.pop_front();
        }
        list.push_back(Arc::new(Happening { number, utc_micros, severity, text: text.into() }));
    }

    /// What happened lately, newest first.
    pub fn happenings(&self) -> Vec<Arc<Happening>> {
        let list = self.happenings.lock().unwrap_or_else(PoisonError::into_inner);
        list.iter().rev().map(Arc::clone).collect()
    }
}
