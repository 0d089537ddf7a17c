//! SessionRecorder: a task beside each CallActor that owns a session's folder, journal and manifest.
//!
//! Actors [`tell`](SessionHandle::tell) it facts. A fact is applied to the manifest at once, under a short
//! lock, so there is no queue between teller and recorder that could overflow: the manifest is bounded by
//! [`recorder_core::manifest::limits`], and lines that the disk has not taken are bounded by
//! [`PENDING_BYTES`]. Beyond that they are given up and one checkpoint line with the whole manifest takes
//! their place when the disk is back: nothing told is lost, whatever the disk does. Progress of a segment
//! waits for the next second, the latest wins.
//!
//! Every store call runs on a blocking thread, at most [`SessionSettings::lanes`] at a time in the process.

mod handle;
mod state;
mod task;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use recorder_core::ids::SessionId;
use recorder_core::manifest::{CallKind, EndReason, Folded, RecorderInfo, Room, SessionState};
use recorder_core::time::BootTime;
use tokio::sync::Semaphore;

pub use handle::SessionHandle;
pub use task::{begin, resume};

/// Journal lines kept in memory while the disk does not take them. What comes on top makes them one
/// checkpoint.
pub const PENDING_BYTES: usize = 1 << 20;

/// A session's folder as its recorder sees it. Every method may block; one thread at a time calls them.
pub trait SessionStore: Send + 'static {
    /// Creates `room` if it is not there, and `session` in it. [`io::ErrorKind::AlreadyExists`] if `session`
    /// is: it is somebody else's.
    fn create_folder(&mut self, room: &str, session: &str) -> io::Result<PathBuf>;

    /// Appends whole lines. On an error none of them may stay behind.
    fn append_journal(&mut self, lines: &[u8]) -> io::Result<()>;

    /// Returns when all that was appended is on the disk.
    fn sync_journal(&mut self) -> io::Result<()>;

    /// Takes up the folder of a session that an earlier process left; the names of all that is in it. The journal's last
    /// line is whole.
    fn reopen(&mut self, _folder: &Path) -> io::Result<Vec<String>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Replaces `session.json`: a reader sees the old one or the new one, also after a power cut.
    fn write_snapshot(&mut self, json: &[u8]) -> io::Result<()>;
}

/// How often a recorder goes to the disk.
#[derive(Clone, Debug)]
pub struct SessionSettings {
    /// The journal is synced this often while something is being told.
    pub sync_interval: Duration,
    /// `session.json` is this old at most when only the progress of segments is new; structural news take
    /// [`Self::sync_interval`].
    pub snapshot_interval: Duration,
    /// First and longest wait after an error.
    pub retry: (Duration, Duration),
    /// An abandoned recorder (no handle is left, nobody called finish) gives up on a failing disk after this.
    pub abandon_after: Duration,
    /// Store calls at a time; clones share it.
    pub lanes: Arc<Semaphore>,
}

impl Default for SessionSettings {
    fn default() -> Self {
        Self {
            sync_interval: Duration::from_secs(1),
            snapshot_interval: Duration::from_secs(10),
            retry: (Duration::from_millis(250), Duration::from_secs(5)),
            abandon_after: Duration::from_secs(30),
            lanes: Arc::new(Semaphore::new(4)),
        }
    }
}

/// What is known of a session when it begins.
#[derive(Clone, Debug)]
pub struct SessionStart {
    pub session_id: SessionId,
    pub call_id: String,
    pub call_kind: CallKind,
    pub room: Room,
    pub started_by: Option<String>,
    /// The session of this call that a restart cut off.
    pub continues: Option<SessionId>,
    pub recorder: RecorderInfo,
    /// `/proc/sys/kernel/random/boot_id`, empty if there is none.
    pub boot_id: String,
    /// The first packet's arrival, if one came before the session was opened.
    pub earliest_media: Option<BootTime>,
}

/// A session that an earlier process left unfinished, its files mended.
#[derive(Clone, Debug)]
pub struct SessionResume {
    pub folder: PathBuf,
    pub journal: Folded,
    pub boot_id: String,
}

/// Why and by whom a session is ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionEnd {
    pub reason: EndReason,
    pub stopped_by: Option<String>,
    pub state: SessionState,
}

impl SessionEnd {
    /// A complete session that nobody stopped by command.
    pub fn because(reason: EndReason) -> Self {
        Self { reason, stopped_by: None, state: SessionState::Complete }
    }
}

/// How a recorder fares. A level, not an edge.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionStatus {
    /// The folder is there, or cannot be made, and why.
    pub folder: Option<Result<(), Arc<str>>>,
    /// Structural facts told so far that are in the journal file.
    pub written: u64,
    /// Of those, synced.
    pub synced: u64,
    /// The disk's last refusal; `None` once it has taken everything.
    pub last_error: Option<Arc<str>>,
    /// Store calls that failed.
    pub errors: u64,
    /// Checkpoints written in the place of lines.
    pub checkpoints: u64,
    /// Everything is on the disk, the manifest says how the session ended unless it was suspended, and nothing
    /// will be written any more.
    pub finished: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    #[error("the session's folder cannot be made: {why}")]
    Folder { why: Arc<str> },
    #[error("the folder {folder:?} cannot be taken up")]
    Reopen { folder: PathBuf, source: io::Error },
    #[error("the session {session_id} has ended")]
    Ended { session_id: SessionId },
    #[error("the session recorder ended before everything was written: {last_error}")]
    Stopped { last_error: String },
}
