//! Writer lanes: plain threads that put bytes on the disk, and one that syncs. Pumps hand bytes over and never wait.
//!
//! Bound: all files together may queue [`LaneSettings::budget`] bytes. Overflow rule: beyond the budget there is no
//! room for video (its pump drops to the next key frame); audio may use [`LaneSettings::audio_reserve`] more.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use recorder_core::media::MediaKind;

use crate::observe::{Board, Totals};
use crate::ports::Clock;
use crate::segment::Failure;
use crate::storage::{FolderPlace, MediaFile, Storage};
use crate::supervise::panic_text;

#[derive(Clone, Copy, Debug)]
pub struct LaneSettings {
    pub lanes: usize,
    /// Bytes that may wait for the disk.
    pub budget: u64,
    /// Bytes that audio may wait with beyond that.
    pub audio_reserve: u64,
    pub sync_every: Duration,
}

impl Default for LaneSettings {
    fn default() -> Self {
        Self { lanes: 2, budget: 192 << 20, audio_reserve: 64 << 20, sync_every: Duration::from_secs(1) }
    }
}

/// What has become of a file. Written by its lane, read by its pump.
#[derive(Debug, Default)]
pub struct FileState {
    written: AtomicU64,
    finished: AtomicBool,
    failed: OnceLock<Failure>,
}

impl FileState {
    /// Bytes handed to the file system.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Closed, and synced or, if it failed, repaired: nothing of it changes any more.
    pub fn is_finished(&self) -> bool {
        self.finished.load(Ordering::Acquire)
    }

    /// Why nothing more will be written.
    pub fn failure(&self) -> Option<&Failure> {
        self.failed.get()
    }
}

enum Work {
    Create,
    Append(Vec<u8>),
    /// Positioned overwrites, then close and sync.
    Finish(Vec<(u64, Vec<u8>)>),
    /// Close what there is and repair it.
    Abandon,
}

/// What follows a job.
enum Next {
    Nothing,
    Sync,
    Repair,
}

struct Job {
    file: Arc<Entry>,
    work: Work,
}

struct Entry {
    /// Known when the file is created: nothing of it is here before.
    path: OnceLock<PathBuf>,
    open: Mutex<Option<Arc<dyn MediaFile>>>,
    dirty: AtomicBool,
    state: Arc<FileState>,
}

#[derive(Default)]
struct Queue {
    jobs: Mutex<(VecDeque<Job>, bool)>,
    wake: Condvar,
    /// `BootTime` at which the present job began; 0 when idle.
    busy_since: AtomicU64,
}

struct Shared {
    storage: Arc<dyn Storage>,
    clock: Arc<dyn Clock>,
    board: Arc<Board>,
    settings: LaneSettings,
    queues: Vec<Queue>,
    queued_bytes: AtomicU64,
    open: Mutex<Vec<Arc<Entry>>>,
    to_finish: Mutex<(VecDeque<Arc<Entry>>, bool)>,
    wake_sync: Condvar,
}

/// All lanes of one file system.
pub struct LanePool {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    next: AtomicU64,
}

/// A pump's end of one file. Dropped without [`finish`](Self::finish), it abandons the file.
pub struct LaneFile {
    shared: Arc<Shared>,
    lane: usize,
    entry: Arc<Entry>,
    folder: FolderPlace,
    name: String,
    /// Work that waits for [`release`](Self::release); its bytes count as queued.
    held: Option<Vec<Work>>,
    ended: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl LanePool {
    pub fn start(
        storage: Arc<dyn Storage>,
        clock: Arc<dyn Clock>,
        board: Arc<Board>,
        settings: LaneSettings,
    ) -> io::Result<Arc<Self>> {
        let shared = Arc::new(Shared {
            storage,
            clock,
            board,
            settings,
            queues: (0..settings.lanes.max(1)).map(|_| Queue::default()).collect(),
            queued_bytes: AtomicU64::new(0),
            open: Mutex::default(),
            to_finish: Mutex::default(),
            wake_sync: Condvar::new(),
        });
        let mut threads = Vec::new();
        for lane in 0..shared.queues.len() {
            let shared = Arc::clone(&shared);
            threads.push(
                std::thread::Builder::new()
                    .name(format!("lane-{lane}"))
                    .spawn(move || shared.run_lane(lane))?,
            );
        }
        let syncing = Arc::clone(&shared);
        threads.push(std::thread::Builder::new().name("sync".into()).spawn(move || syncing.run_sync())?);
        Ok(Arc::new(Self { shared, threads: Mutex::new(threads), next: AtomicU64::new(0) }))
    }

    /// Opens a file. It is created by its lane, so that a stalled disk delays nobody; a failure shows in its state.
    /// Nothing of it reaches the lane before [`LaneFile::release`], and its folder may be made as late as that.
    pub fn create(&self, folder: FolderPlace, name: String) -> LaneFile {
        let lane = (self.next.fetch_add(1, Ordering::Relaxed) as usize) % self.shared.queues.len();
        let entry = Arc::new(Entry {
            path: OnceLock::new(),
            open: Mutex::default(),
            dirty: AtomicBool::new(false),
            state: Arc::default(),
        });
        let shared = Arc::clone(&self.shared);
        LaneFile { shared, lane, entry, folder, name, held: Some(vec![Work::Create]), ended: false }
    }

    pub fn has_room(&self, kind: MediaKind) -> bool {
        let limit = match kind {
            MediaKind::Video => self.shared.settings.budget,
            MediaKind::Audio => self.shared.settings.budget + self.shared.settings.audio_reserve,
        };
        self.queued_bytes() < limit
    }

    pub fn queued_bytes(&self) -> u64 {
        self.shared.queued_bytes.load(Ordering::Relaxed)
    }

    /// How long the slowest lane has been in its present write.
    pub fn busiest(&self) -> Duration {
        let now = self.shared.clock.now();
        self.shared
            .queues
            .iter()
            .map(|queue| match queue.busy_since.load(Ordering::Relaxed) {
                0 => Duration::ZERO,
                since => now.saturating_since(recorder_core::time::BootTime(since)),
            })
            .max()
            .unwrap_or_default()
    }

    /// Files that are open.
    pub fn open_files(&self) -> usize {
        lock(&self.shared.open).len()
    }

    pub fn storage(&self) -> &Arc<dyn Storage> {
        &self.shared.storage
    }

    /// Ends the threads once their queues are empty. Blocks as long as that takes.
    pub fn shut_down(&self) {
        for queue in &self.shared.queues {
            lock(&queue.jobs).1 = true;
            queue.wake.notify_all();
        }
        let mut threads = std::mem::take(&mut *lock(&self.threads));
        let sync = threads.pop();
        for thread in threads {
            let _ = thread.join();
        }
        lock(&self.shared.to_finish).1 = true;
        self.shared.wake_sync.notify_all();
        if let Some(sync) = sync {
            let _ = sync.join();
        }
    }
}

impl LaneFile {
    pub fn state(&self) -> &Arc<FileState> {
        &self.entry.state
    }

    /// What was asked of this file, and what will be, goes to its lane; false as long as it has no folder.
    pub fn release(&mut self) -> bool {
        let Some(folder) = self.folder.get() else { return false };
        let _ = self.entry.path.set(folder.join(&self.name));
        for work in self.held.take().into_iter().flatten() {
            self.queue(work);
        }
        true
    }

    /// There will be no folder: what was held back is thrown away.
    pub fn discard(&mut self, why: &str) {
        let Some(held) = self.held.take() else { return };
        let bytes = held.iter().map(Work::bytes).sum();
        self.shared.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.shared.fail(&self.entry, Failure::Refused(why.to_owned()));
        self.ended = true;
        self.entry.state.finished.store(true, Ordering::Release);
    }

    pub fn append(&mut self, bytes: Vec<u8>) {
        if !bytes.is_empty() {
            self.push(Work::Append(bytes));
        }
    }

    /// Overwrites at the given offsets, closes and syncs. Nothing may follow.
    pub fn finish(&mut self, patches: Vec<(u64, Vec<u8>)>) {
        self.end_with(Work::Finish(patches));
    }

    /// Its writer failed: write what is queued, close, and repair. Nothing may follow.
    pub fn abandon(&mut self) {
        self.end_with(Work::Abandon);
    }

    fn end_with(&mut self, work: Work) {
        if !std::mem::replace(&mut self.ended, true) {
            self.push(work);
        }
    }

    fn push(&mut self, work: Work) {
        if self.held.is_none() && self.entry.path.get().is_none() {
            // Discarded.
            return;
        }
        self.shared.queued_bytes.fetch_add(work.bytes(), Ordering::Relaxed);
        match &mut self.held {
            Some(held) => held.push(work),
            None => self.queue(work),
        }
    }

    fn queue(&self, work: Work) {
        let queue = &self.shared.queues[self.lane];
        lock(&queue.jobs).0.push_back(Job { file: Arc::clone(&self.entry), work });
        queue.wake.notify_one();
    }
}

impl Drop for LaneFile {
    fn drop(&mut self) {
        self.abandon();
        if !self.release() {
            self.discard("its folder was not made in time");
        }
    }
}

impl Entry {
    /// Below the recordings directory, or nothing as long as there is no folder.
    fn path(&self) -> &Path {
        self.path.get().map_or(Path::new(""), PathBuf::as_path)
    }
}

impl Work {
    fn bytes(&self) -> u64 {
        match self {
            Self::Append(bytes) => bytes.len() as u64,
            Self::Create | Self::Finish(_) | Self::Abandon => 0,
        }
    }
}

impl Shared {
    fn run_lane(&self, lane: usize) {
        let queue = &self.queues[lane];
        loop {
            let mut jobs = lock(&queue.jobs);
            let job = loop {
                if let Some(job) = jobs.0.pop_front() {
                    break job;
                }
                if jobs.1 {
                    return;
                }
                jobs = queue.wake.wait(jobs).unwrap_or_else(PoisonError::into_inner);
            };
            drop(jobs);
            queue.busy_since.store(self.clock.now().as_nanos().max(1), Ordering::Relaxed);
            let bytes = job.work.bytes();
            let next = match &job.work {
                Work::Create | Work::Append(_) => Next::Nothing,
                Work::Finish(_) => Next::Sync,
                Work::Abandon => Next::Repair,
            };
            // Of a file that failed nothing more is written; its writer's last order closes and repairs it.
            if job.file.state.failure().is_none()
                && let Err(failure) = self.guarded(|| self.perform(&job.file, job.work))
            {
                self.fail(&job.file, failure);
            }
            match next {
                Next::Nothing => {}
                Next::Sync if job.file.state.failure().is_none() => self.hand_to_sync(&job.file),
                Next::Sync | Next::Repair => self.close_broken(&job.file),
            }
            self.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
            queue.busy_since.store(0, Ordering::Relaxed);
        }
    }

    /// A panic below the storage port costs its file, never the thread.
    fn guarded(&self, call: impl FnOnce() -> Result<(), String>) -> Result<(), Failure> {
        match catch_unwind(AssertUnwindSafe(call)) {
            Ok(done) => done.map_err(Failure::Refused),
            Err(payload) => {
                Totals::count(&self.board.totals.panics_caught);
                Err(Failure::Panic(format!("panic in the storage: {}", panic_text(&*payload))))
            }
        }
    }

    fn perform(&self, file: &Arc<Entry>, work: Work) -> Result<(), String> {
        match work {
            Work::Create => {
                let open = self.storage.create(file.path());
                let open =
                    open.map_err(|error| format!("cannot create {}: {error}", file.path().display()))?;
                *lock(&file.open) = Some(open);
                lock(&self.open).push(Arc::clone(file));
            }
            Work::Append(bytes) => {
                let Some(open) = lock(&file.open).clone() else { return Ok(()) };
                let at = file.state.written();
                if let Err(error) = open.write_at(at, &bytes) {
                    // What a failed write may have left is cut off; without space even that may fail, and repair finds
                    // the end by itself.
                    let _ = open.truncate(at);
                    return Err(format!("write failed: {error}"));
                }
                file.state.written.store(at + bytes.len() as u64, Ordering::Relaxed);
                self.board.totals.bytes_written.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                file.dirty.store(true, Ordering::Release);
            }
            Work::Finish(patches) => {
                let Some(open) = lock(&file.open).clone() else { return Ok(()) };
                for (offset, bytes) in patches {
                    open.write_at(offset, &bytes).map_err(|error| format!("write failed: {error}"))?;
                }
            }
            Work::Abandon => {}
        }
        Ok(())
    }

    fn fail(&self, file: &Entry, failure: Failure) {
        let why = failure.why().to_owned();
        if file.state.failed.set(failure).is_ok() {
            Totals::count(&self.board.totals.disk_errors);
            tracing::error!(path = %file.path().display(), error = why, "a media file failed");
        }
    }

    /// The end of a file whose writer or whose disk failed.
    fn close_broken(&self, file: &Arc<Entry>) {
        if self.close(file).is_some() {
            let repair = || self.storage.repair(file.path()).map_err(|error| error.to_string());
            if let Err(failure) = self.guarded(repair) {
                let error = failure.why();
                tracing::error!(path = %file.path().display(), error, "cannot repair a file whose writer failed");
            }
        }
        file.state.finished.store(true, Ordering::Release);
    }

    fn close(&self, file: &Arc<Entry>) -> Option<Arc<dyn MediaFile>> {
        lock(&self.open).retain(|other| !Arc::ptr_eq(other, file));
        lock(&file.open).take()
    }

    fn hand_to_sync(&self, file: &Arc<Entry>) {
        lock(&self.to_finish).0.push_back(Arc::clone(file));
        self.wake_sync.notify_one();
    }

    /// Syncs every open file each `sync_every`, and files that are finished at once.
    fn run_sync(&self) {
        let mut next_round = Instant::now() + self.settings.sync_every;
        loop {
            let (finishing, ended) = {
                let guard = lock(&self.to_finish);
                let patience = next_round.saturating_duration_since(Instant::now());
                let (mut guard, _) = self
                    .wake_sync
                    .wait_timeout_while(guard, patience, |(queue, ended)| queue.is_empty() && !*ended)
                    .unwrap_or_else(PoisonError::into_inner);
                (std::mem::take(&mut guard.0), guard.1)
            };
            let last = ended && finishing.is_empty();
            for file in finishing {
                self.finish(&file);
            }
            // Files that end one after the other must not keep the others from being synced.
            if last || Instant::now() >= next_round {
                let files: Vec<_> = lock(&self.open).clone();
                for file in files {
                    if file.dirty.swap(false, Ordering::AcqRel) {
                        self.sync(&file);
                    }
                }
                next_round = Instant::now() + self.settings.sync_every;
            }
            if last {
                return;
            }
        }
    }

    /// The end of a file whose last write is done.
    fn finish(&self, file: &Arc<Entry>) {
        self.sync(file);
        if file.state.failure().is_some() {
            self.close_broken(file);
        } else {
            self.close(file);
            file.state.finished.store(true, Ordering::Release);
        }
    }

    fn sync(&self, file: &Entry) {
        let Some(open) = lock(&file.open).clone() else { return };
        let sync = || open.sync().map_err(|error| format!("sync failed: {error}"));
        if let Err(failure) = self.guarded(sync) {
            self.fail(file, failure);
        }
    }
}
