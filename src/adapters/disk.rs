//! The recordings' file system: media files, free space, and the lock that keeps a second daemon out.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::Thread;
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
        Ok(stat.blocks_available() * stat.fragment_size())
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
    #[error(
        "the disk of the recordings folder {path} cannot be used now: {source}; free space on it, check it, let the \
         service write there (ReadWritePaths= in its unit), or set recordings.directory"
    )]
    Unavailable { path: PathBuf, source: io::Error },
}

/// The disk holds no more, by its size or by a quota.
fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// The disk's fault, which may pass, as opposed to a folder that was never ours to write: it is full, fails, is
/// mounted read-only (as file systems are after an error), or its server lost it.
pub(crate) fn may_pass(error: &io::Error) -> bool {
    is_full(error)
        || matches!(error.kind(), io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::StaleNetworkFileHandle)
        || error.raw_os_error() == Some(nix::libc::EIO)
}

/// Held as long as this daemon records into the folder.
#[derive(Debug)]
pub struct FolderLock(#[expect(dead_code, reason = "holds the lock until dropped")] Flock<File>);

/// Makes the folder if need be, takes its lock, and tries to write. A full disk is no reason to stay away: the
/// disk's level then stops recording until there is space.
pub fn take_folder(directory: &Path) -> Result<FolderLock, DiskError> {
    let path = || directory.to_path_buf();
    if !directory.is_dir() {
        use std::os::unix::fs::DirBuilderExt;
        let made = fs::DirBuilder::new().recursive(true).mode(0o750).create(directory);
        made.map_err(|source| {
            if may_pass(&source) {
                DiskError::Unavailable { path: path(), source }
            } else {
                DiskError::Create { path: path(), source }
            }
        })?;
    }
    let lock = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(directory.join(LOCK_FILE))
        .map_err(|source| not_writable(directory, source))?;
    let lock =
        Flock::lock(lock, FlockArg::LockExclusiveNonblock).map_err(|_| DiskError::Locked { path: path() })?;
    try_folder(directory, &FsStorage::new(directory))?;
    Ok(FolderLock(lock))
}

/// Whether `storage`, which lies at `directory`, can be recorded to, now or once there is space.
fn try_folder(directory: &Path, storage: &dyn Storage) -> Result<(), DiskError> {
    match storage.probe_writable() {
        Err(error) if is_full(&error) => {
            tracing::warn!(path = %directory.display(), %error, "the recordings folder holds no more");
            Ok(())
        }
        Err(error) => Err(not_writable(directory, error)),
        Ok(()) => Ok(()),
    }
}

fn not_writable(directory: &Path, source: io::Error) -> DiskError {
    let path = directory.to_path_buf();
    if may_pass(&source) {
        DiskError::Unavailable { path, source }
    } else {
        DiskError::NotWritable { path, source }
    }
}

/// Keeps recorders out of `directory` and the folders above it for as long as the locks are held: whoever repairs must be
/// alone there.
///
/// # Errors
/// [`DiskError::Locked`] with the folder in which a recorder records now.
pub fn keep_recorders_out(directory: &Path) -> Result<Vec<FolderLock>, DiskError> {
    let directory = directory.canonicalize().unwrap_or_else(|_| directory.to_path_buf());
    let mut locks = Vec::new();
    for folder in directory.ancestors().take(3) {
        // Where no recorder has ever been there is none to be kept out.
        let Ok(lock) = OpenOptions::new().write(true).open(folder.join(LOCK_FILE)) else { continue };
        match Flock::lock(lock, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => locks.push(FolderLock(lock)),
            Err(_) => return Err(DiskError::Locked { path: folder.to_path_buf() }),
        }
    }
    Ok(locks)
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

/// Watches free space, writability and lanes; tells tree and board, until `lanes` is gone or nobody listens.
///
/// A thread of its own looks at the disk, because a dead disk may hold a look for ever; another, which never touches
/// the disk, measures the lanes' stall and alone writes the board.
pub fn watch_disk(
    storage: Arc<dyn Storage>,
    lanes: Arc<LanePool>,
    board: Arc<Board>,
    clock: Arc<dyn Clock>,
    reserve: u64,
) -> io::Result<watch::Receiver<DiskLevel>> {
    let (told, level) = watch::channel(DiskLevel::Plenty);
    let seen = Arc::new(Mutex::new(Seen { free: 0, writable: true, level: DiskLevel::Plenty, error: None }));
    let mut disk = DiskWatch {
        storage,
        board: Arc::clone(&board),
        clock,
        reserve,
        looks: 0,
        probe_error: None,
        seen: Arc::clone(&seen),
    };
    disk.look(&told);
    let lane = LaneWatch { lanes: Arc::downgrade(&lanes), board, reserve, seen };
    lane.publish();
    let lanes = Arc::downgrade(&lanes);
    let lane = std::thread::Builder::new().name("lane-watch".into()).spawn(move || lane.run())?;
    let lane = lane.thread().clone();
    std::thread::Builder::new().name("disk-watch".into()).spawn(move || disk.run(&told, &lanes, &lane))?;
    Ok(level)
}

/// What the last look at the disk found.
struct Seen {
    free: u64,
    writable: bool,
    level: DiskLevel,
    error: Option<String>,
}

struct LaneWatch {
    lanes: Weak<LanePool>,
    board: Arc<Board>,
    reserve: u64,
    seen: Arc<Mutex<Seen>>,
}

impl LaneWatch {
    fn run(&self) {
        while self.publish() {
            std::thread::park_timeout(LOOK_EVERY);
        }
    }

    /// `false` once there are no lanes any more.
    fn publish(&self) -> bool {
        let Some(lanes) = self.lanes.upgrade() else { return false };
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        self.board.storage.store(Arc::new(StorageSnapshot {
            writable: seen.writable,
            free_bytes: seen.free,
            reserve_bytes: self.reserve,
            level: seen.level.name().to_owned(),
            lane_busy_s: lanes.busiest().as_secs_f64(),
            queued_bytes: lanes.queued_bytes(),
            last_error: seen.error.clone(),
        }));
        true
    }
}

struct DiskWatch {
    storage: Arc<dyn Storage>,
    board: Arc<Board>,
    clock: Arc<dyn Clock>,
    reserve: u64,
    looks: u32,
    probe_error: Option<String>,
    seen: Arc<Mutex<Seen>>,
}

impl DiskWatch {
    fn run(mut self, told: &watch::Sender<DiskLevel>, lanes: &Weak<LanePool>, publisher: &Thread) {
        loop {
            std::thread::park_timeout(LOOK_EVERY);
            if told.is_closed() || lanes.strong_count() == 0 {
                break;
            }
            self.look(told);
            publisher.unpark();
        }
    }

    fn look(&mut self, told: &watch::Sender<DiskLevel>) {
        let before = *told.borrow();
        // What is not known changes nothing: the last level and figure stand.
        let (free, space_error) = match self.storage.free_bytes() {
            Ok(free) => (Some(free), None),
            Err(error) => (None, Some(format!("the free space for recordings cannot be told: {error}"))),
        };
        if self.looks.is_multiple_of(TRY_EVERY) {
            let refused = self.storage.probe_writable().err();
            self.probe_error = refused.map(|error| format!("the recordings folder is not writable: {error}"));
        }
        self.looks = self.looks.wrapping_add(1);
        let level = free.map_or(before, |free| disk_level(free, self.reserve, before));
        {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.free = free.unwrap_or(seen.free);
            seen.writable = self.probe_error.is_none();
            seen.level = level;
            seen.error = self.probe_error.clone().or(space_error);
        }
        if level != before {
            self.tell(level, free.unwrap_or_default());
            told.send_replace(level);
        }
    }

    fn tell(&self, level: DiskLevel, free: u64) {
        let (severity, text) = match level {
            DiskLevel::Plenty => (Severity::Info, "There is space on the disk again: everything is recorded"),
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
    }
}

#[cfg(test)]
mod tests {
    use super::super::clock::SystemClock;
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
        assert!(keep_recorders_out(&session).unwrap().is_empty());
        let _held = take_folder(folder.path()).unwrap();
        for below in [session.as_path(), folder.path()] {
            let refused = keep_recorders_out(below);
            assert!(
                matches!(&refused, Err(DiskError::Locked { path }) if *path == folder.path().canonicalize().unwrap())
            );
        }
    }

    #[test]
    fn a_recorder_cannot_take_a_folder_while_it_is_repaired() {
        let folder = tempfile::tempdir().unwrap();
        let session = folder.path().join("room/session");
        fs::create_dir_all(&session).unwrap();
        drop(take_folder(folder.path()).unwrap());
        let repairing = keep_recorders_out(&session).unwrap();
        assert!(matches!(take_folder(folder.path()), Err(DiskError::Locked { .. })));
        drop(repairing);
        take_folder(folder.path()).unwrap();
    }

    #[test]
    fn a_media_file_is_never_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let storage = FsStorage::new(folder.path());
        storage.create(Path::new("a.webm")).unwrap();
        let again = storage.create(Path::new("a.webm")).err().unwrap();
        assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
    }

    /// A disk that answers as it is told.
    #[derive(Debug)]
    struct FakeDisk {
        free: Mutex<Result<u64, i32>>,
        probe: Option<i32>,
    }

    impl Storage for FakeDisk {
        fn create(&self, _: &Path) -> io::Result<Arc<dyn MediaFile>> {
            Err(io::ErrorKind::Unsupported.into())
        }

        fn repair(&self, _: &Path) -> io::Result<()> {
            Ok(())
        }

        fn free_bytes(&self) -> io::Result<u64> {
            self.free.lock().unwrap().map_err(io::Error::from_raw_os_error)
        }

        fn probe_writable(&self) -> io::Result<()> {
            self.probe.map_or(Ok(()), |code| Err(io::Error::from_raw_os_error(code)))
        }
    }

    #[test]
    fn a_full_disk_is_taken_and_a_failing_one_may_come_back() {
        let tried =
            |code| try_folder(Path::new("/r"), &FakeDisk { free: Mutex::new(Ok(0)), probe: Some(code) });
        for code in [nix::libc::ENOSPC, nix::libc::EDQUOT] {
            assert!(tried(code).is_ok(), "{code}");
        }
        for code in [nix::libc::EROFS, nix::libc::EIO, nix::libc::ESTALE] {
            assert!(matches!(tried(code), Err(DiskError::Unavailable { .. })), "{code}");
        }
        assert!(matches!(tried(nix::libc::EACCES), Err(DiskError::NotWritable { .. })));
    }

    #[test]
    fn a_free_space_that_cannot_be_told_changes_nothing_and_is_said() {
        let disk = Arc::new(FakeDisk { free: Mutex::new(Ok(GIB / 4)), probe: None });
        let (told, level) = watch::channel(DiskLevel::Plenty);
        let seen =
            Arc::new(Mutex::new(Seen { free: 0, writable: true, level: DiskLevel::Plenty, error: None }));
        let mut watch = DiskWatch {
            storage: Arc::clone(&disk) as _,
            board: Board::new(),
            clock: Arc::new(SystemClock),
            reserve: GIB,
            looks: 0,
            probe_error: None,
            seen: Arc::clone(&seen),
        };
        watch.look(&told);
        assert_eq!(*level.borrow(), DiskLevel::AllStopped);
        *disk.free.lock().unwrap() = Err(nix::libc::EIO);
        watch.look(&told);
        assert_eq!(*level.borrow(), DiskLevel::AllStopped);
        {
            let seen = seen.lock().unwrap();
            assert_eq!((seen.free, seen.level), (GIB / 4, DiskLevel::AllStopped));
            assert!(seen.error.as_deref().is_some_and(|text| text.contains("free space")));
        }
        *disk.free.lock().unwrap() = Ok(2 * GIB);
        watch.look(&told);
        assert_eq!((*level.borrow(), &seen.lock().unwrap().error), (DiskLevel::Plenty, &None));
    }

    #[test]
    fn the_watchers_end_with_the_lanes() {
        let storage: Arc<dyn Storage> = Arc::new(FakeDisk { free: Mutex::new(Ok(2 * GIB)), probe: None });
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let (board, settings) = (Board::new(), recorder_actors::lane::LaneSettings::default());
        let lanes =
            LanePool::start(Arc::clone(&storage), Arc::clone(&clock), Arc::clone(&board), settings).unwrap();
        let mut level = watch_disk(storage, Arc::clone(&lanes), Arc::clone(&board), clock, GIB).unwrap();
        assert_eq!((board.storage.load().free_bytes, board.storage.load().writable), (2 * GIB, true));
        lanes.shut_down();
        drop(lanes);
        // The sender lives on the watching thread; without it waiting for news ends.
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        assert!(runtime.block_on(level.changed()).is_err());
    }
}
