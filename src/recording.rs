//! The recording path, wired: media loop, lanes, pumps, disk watch, sessions. The daemon runs it under the account's
//! calls; `bench` runs the same one under synthetic ones.

use std::io;
use std::path::Path;
use std::sync::Arc;

use recorder_actors::lane::{LanePool, LaneSettings};
use recorder_actors::observe::Board;
use recorder_actors::ports::{Clock, DiskLevel};
use recorder_actors::pump::PumpPool;
use recorder_actors::storage::Storage;
use recorder_actors::testing::faulty;
use tokio::sync::watch;

use crate::adapters::clock::SystemClock;
use crate::adapters::disk::{self, DiskError, FolderLock, FsStorage};
use crate::adapters::media::{MediaLoop, MediaSettings, StartError};
use crate::adapters::sessions::{LeftOver, Sessions};

#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error(transparent)]
    Media(#[from] StartError),
    #[error("a thread cannot be started: {0}")]
    Thread(io::Error),
}

/// Everything between the network and the disk, running.
pub struct RecordingPath {
    pub clock: Arc<dyn Clock>,
    pub board: Arc<Board>,
    pub media: Arc<MediaLoop>,
    pub lanes: Arc<LanePool>,
    pub pumps: Arc<PumpPool>,
    pub sessions: Arc<Sessions>,
    pub disk: watch::Receiver<DiskLevel>,
    _lock: FolderLock,
}

impl RecordingPath {
    /// Takes the folder's lock and starts every thread. `left`: what earlier processes left unfinished.
    pub fn start(
        directory: &Path,
        reserve: u64,
        media: MediaSettings,
        board: Arc<Board>,
        lock: FolderLock,
        left: LeftOver,
    ) -> Result<Self, RecordingError> {
        let storage: Arc<dyn Storage> = faulty(Arc::new(FsStorage::new(directory)));
        Self::start_on(directory, storage, reserve, media, board, lock, left)
    }

    /// As [`Self::start`], with another disk below the media files: for fault injection.
    pub fn start_on(
        directory: &Path,
        storage: Arc<dyn Storage>,
        reserve: u64,
        media: MediaSettings,
        board: Arc<Board>,
        lock: FolderLock,
        left: LeftOver,
    ) -> Result<Self, RecordingError> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let media = Arc::new(MediaLoop::start(media)?);
        board.media.store(media.view());
        let lanes = LanePool::start(
            Arc::clone(&storage),
            Arc::clone(&clock),
            Arc::clone(&board),
            LaneSettings::default(),
        )
        .map_err(RecordingError::Thread)?;
        let pumps = PumpPool::start(
            Arc::clone(&clock),
            Arc::clone(&media) as _,
            Arc::clone(&lanes),
            Arc::clone(&board),
            concat!("matrix-call-recorder ", env!("CARGO_PKG_VERSION")).to_owned(),
        )
        .map_err(RecordingError::Thread)?;
        let disk =
            disk::watch_disk(storage, Arc::clone(&lanes), Arc::clone(&board), Arc::clone(&clock), reserve)
                .map_err(RecordingError::Thread)?;
        let sessions = Arc::new(Sessions::new(directory, Arc::clone(&clock), left));
        Ok(Self { clock, board, media, lanes, pumps, sessions, disk, _lock: lock })
    }

    /// Ends every thread in the order of the data: pumps, lanes, media loop. Blocks until all that was taken is on the
    /// disk, so put a limit around it.
    pub fn shut_down(&self) {
        self.pumps.shut_down();
        self.lanes.shut_down();
        self.media.shutdown();
    }
}
