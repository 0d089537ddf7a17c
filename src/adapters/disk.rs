//! The recordings' file system: media files, free space, and the lock that keeps a second daemon out.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use recorder_actors::lane::LanePool;
use recorder_actors::observe::{Board, Severity, StorageSnapshot};
use recorder_actors::ports::{Clock, DiskLevel};
use recorder_actors::storage::{MediaFile, Storage};
use tokio::sync::watch;

use super::recovery;

/// Media files: the owner writes, the group reads.
const FILE_MODE: u32 = 0o640;
/// In the recordings directory.
const LOCK_FILE: &str = ".matrix-call-recorder.lock";
/// Free space is looked at this often.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Whether the folder is writable is tried this often.
const TRY_EVERY: u32 = 10;
/// Space must be back by this share of the reserve before what was stopped goes on.
const COME_BACK: f64 = 1.05;

/// `std::fs` below one directory.
#[derive(Clone, Debug)]
pub struct FsStorage {
    directory: PathBuf,
}

impl FsStorage {
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into() }
    }
}

struct FsFile(File);

impl MediaFile for FsFile {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        self.0.set_len(length)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}

impl Storage for FsStorage {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn MediaFile>> {
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(FILE_MODE)
            .open(self.directory.join(path))?;
        Ok(Arc::new(FsFile(file)))
    }

    fn repair(&self, path: &Path) -> io::Result<()> {
        recovery::repair_media_file(&self.directory.join(path)).map(drop).map_err(io::Error::other)
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let stat = nix::sys::statvfs::statvfs(&self.directory)?;
        Ok(u64::from(stat.blocks_available()) * u64::from(stat.fragment_size()))
    }

    fn probe_writable(&self) -> io::Result<()> {
        let probe = self.directory.join(".writable");
        let _ = fs::remove_file(&probe);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(&probe)?;
        file.write_all(b"ok")?;
        drop(file);
        fs::remove_file(&probe)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    #[error("the recordings folder {path} cannot be made: {source}; make it, or set recordings.directory")]
    Create { path: PathBuf, source: io::Error },
    #[error(
        "the recordings folder {path} is not writable: {source}; give it to the recorder's user, or set \
         recordings.directory"
    )]
    NotWritable { path: PathBuf, source: io::Error },
    #[error(
        "the recordings folder {path} is in use by another recorder; stop it, or set recordings.directory"
    )]
    Locked { path: PathBuf },
}

/// Held as long as this daemon records into the folder.
#[derive(Debug)]
pub struct FolderLock(#[expect(dead_code, reason = "holds the lock until dropped")] Flock<File>);

/// Makes the folder if need be, takes its lock, and tries to write.
pub fn take_folder(directory: &Path) -> Result<FolderLock, DiskError> {
    let path = || directory.to_path_buf();
    if !directory.is_dir() {
        use std::os::unix::fs::DirBuilderExt;
        let made = fs::DirBuilder::new().recursive(true).mode(0o750).create(directory);
        made.map_err(|source| DiskError::Create { path: path(), source })?;
    }
    let lock = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(directory.join(LOCK_FILE))
        .map_err(|source| DiskError::NotWritable { path: path(), source })?;
    let lock =
        Flock::lock(lock, FlockArg::LockExclusiveNonblock).map_err(|_| DiskError::Locked { path: path() })?;
    FsStorage::new(directory)
        .probe_writable()
        .map_err(|source| DiskError::NotWritable { path: path(), source })?;
    Ok(FolderLock(lock))
}

/// A folder in which a recorder records now, `directory` itself or one above it; whoever repairs must keep off.
pub fn in_use(directory: &Path) -> Option<PathBuf> {
    let directory = directory.canonicalize().ok()?;
    directory
        .ancestors()
        .take(3)
        .find(|folder| {
            let lock = OpenOptions::new().write(true).open(folder.join(LOCK_FILE));
            lock.is_ok_and(|lock| Flock::lock(lock, FlockArg::LockExclusiveNonblock).is_err())
        })
        .map(Path::to_path_buf)
}

/// What the free space allows, with a little more asked for coming back than for going on.
pub fn disk_level(free: u64, reserve: u64, before: DiskLevel) -> DiskLevel {
    let level_at = |free: f64| {
        if free < reserve as f64 / 2.0 {
            DiskLevel::AllStopped
        } else if free < reserve as f64 {
            DiskLevel::VideoStopped
        } else {
            DiskLevel::Plenty
        }
    };
    let plain = level_at(free as f64);
    if plain >= before { plain } else { level_at(free as f64 / COME_BACK).min(before) }
}

/// Watches free space, writability and lanes; tells tree and board. A thread of its own, because a dead disk may hold
/// a look for ever: the board's figures then stand still, and the lanes' stall is told by the health page.
pub fn watch_disk(
    storage: Arc<dyn Storage>,
    lanes: Arc<LanePool>,
    board: Arc<Board>,
    clock: Arc<dyn Clock>,
    reserve: u64,
) -> io::Result<watch::Receiver<DiskLevel>> {
    let (told, level) = watch::channel(DiskLevel::Plenty);
    let mut state = DiskState { storage, board, clock, reserve, writable: true, looks: 0, error: None };
    state.look(&told, &lanes);
    // The lanes' stall is measured by whoever still runs: a second thread, which never touches the disk.
    let (lanes_too, board_too) = (Arc::clone(&lanes), Arc::clone(&state.board));
    let alive = told.subscribe();
    std::thread::Builder::new().name("disk-watch".into()).spawn(move || {
        while !told.is_closed() {
            std::thread::park_timeout(LOOK_EVERY);
            state.look(&told, &lanes);
        }
    })?;
    std::thread::Builder::new().name("lane-watch".into()).spawn(move || {
        while alive.has_changed().is_ok() {
            std::thread::park_timeout(LOOK_EVERY);
            let mut snapshot = StorageSnapshot::clone(&board_too.storage.load());
            snapshot.lane_busy_s = lanes_too.busiest().as_secs_f64();
            snapshot.queued_bytes = lanes_too.queued_bytes();
            board_too.storage.store(Arc::new(snapshot));
        }
    })?;
    Ok(level)
}

struct DiskState {
    storage: Arc<dyn Storage>,
    board: Arc<Board>,
    clock: Arc<dyn Clock>,
    reserve: u64,
    writable: bool,
    looks: u32,
    error: Option<String>,
}

impl DiskState {
    fn look(&mut self, told: &watch::Sender<DiskLevel>, lanes: &LanePool) {
        let before = *told.borrow();
        let free = self.storage.free_bytes();
        if self.looks.is_multiple_of(TRY_EVERY) {
            match self.storage.probe_writable() {
                Ok(()) => {
                    self.writable = true;
                    self.error = None;
                }
                Err(error) => {
                    self.writable = false;
                    self.error = Some(format!("the recordings folder is not writable: {error}"));
                }
            }
        }
        self.looks = self.looks.wrapping_add(1);
        let free = free.unwrap_or(u64::MAX);
        let level = disk_level(free, self.reserve, before);
        if level != before {
            let (severity, text) = match level {
                DiskLevel::Plenty => {
                    (Severity::Info, "There is space on the disk again: everything is recorded")
                }
                DiskLevel::VideoStopped => {
                    (Severity::Warning, "The disk is nearly full: video is not recorded until space is freed")
                }
                DiskLevel::AllStopped => {
                    (Severity::Error, "The disk is full: nothing is recorded until space is freed")
                }
            };
            match severity {
                Severity::Info => tracing::info!(free, reserve = self.reserve, "{text}"),
                Severity::Warning => tracing::warn!(free, reserve = self.reserve, "{text}"),
                Severity::Error => tracing::error!(free, reserve = self.reserve, "{text}"),
            }
            self.board.happened(self.clock.utc_micros(), severity, text);
            told.send_replace(level);
        }
        self.board.storage.store(Arc::new(StorageSnapshot {
            writable: self.writable,
            free_bytes: free,
            reserve_bytes: self.reserve,
            level: level.name().to_owned(),
            lane_busy_s: lanes.busiest().as_secs_f64(),
            queued_bytes: lanes.queued_bytes(),
            last_error: self.error.clone(),
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn below_the_reserve_video_stops_and_below_half_of_it_everything() {
        assert_eq!(disk_level(2 * GIB, GIB, DiskLevel::Plenty), DiskLevel::Plenty);
        assert_eq!(disk_level(GIB - 1, GIB, DiskLevel::Plenty), DiskLevel::VideoStopped);
        assert_eq!(disk_level(GIB / 2 - 1, GIB, DiskLevel::Plenty), DiskLevel::AllStopped);
    }

    #[test]
    fn a_few_bytes_more_do_not_bring_it_back() {
        assert_eq!(disk_level(GIB + 1, GIB, DiskLevel::VideoStopped), DiskLevel::VideoStopped);
        assert_eq!(disk_level(GIB + GIB / 10, GIB, DiskLevel::VideoStopped), DiskLevel::Plenty);
        assert_eq!(disk_level(GIB / 2 + 1, GIB, DiskLevel::AllStopped), DiskLevel::AllStopped);
        assert_eq!(disk_level(GIB, GIB, DiskLevel::AllStopped), DiskLevel::VideoStopped);
    }

    #[test]
    fn a_second_recorder_cannot_take_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let _held = take_folder(folder.path()).unwrap();
        assert!(matches!(take_folder(folder.path()), Err(DiskError::Locked { .. })));
    }

    #[test]
    fn a_folder_being_recorded_into_is_known_from_below_as_well() {
        let folder = tempfile::tempdir().unwrap();
        let session = folder.path().join("room/session");
        fs::create_dir_all(&session).unwrap();
        assert_eq!(in_use(&session), None);
        let _held = take_folder(folder.path()).unwrap();
        assert_eq!(in_use(&session), folder.path().canonicalize().ok());
        assert_eq!(in_use(folder.path()), folder.path().canonicalize().ok());
    }

    #[test]
    fn a_media_file_is_never_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let storage = FsStorage::new(folder.path());
        storage.create(Path::new("a.webm")).unwrap();
        let again = storage.create(Path::new("a.webm")).err().unwrap();
        assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
    }
}
