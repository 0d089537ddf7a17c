//! The recorder's task: when to write, sync and snapshot, and what to do when the disk refuses.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use recorder_core::manifest::{
    Manifest, Record, SessionClock, SessionOpened, Utc, room_folder, session_folder,
};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::handle::{Inner, SessionHandle};
use super::state::{Lines, Shared, Staleness};
use super::{SessionError, SessionResume, SessionSettings, SessionStart, SessionStatus, SessionStore};
use crate::ports::Clock;
use crate::storage::FolderPlace;
use crate::testing::faulty_store;

/// A replayed call id within one second gets so many folders.
const FOLDERS_TRIED: u32 = 100;

/// Begins a session: it can be told facts and files at once, whatever the disk does. The recorder, started on the current
/// runtime, makes the folder; [`SessionHandle::opened`] says when it is there, or why it cannot be.
pub fn begin(
    store: Box<dyn SessionStore>,
    clock: Arc<dyn Clock>,
    start: SessionStart,
    settings: SessionSettings,
) -> SessionHandle {
    let store = faulty_store(store);
    let utc = Utc::from_micros(clock.utc_micros());
    let session_clock = SessionClock::begin(clock.now(), utc, start.earliest_media);
    let folder = Folder::New {
        room: room_folder(start.room.name.as_deref(), &start.room.id),
        call_id: start.call_id.clone(),
        began: utc,
    };
    let opened = SessionOpened {
        session_id: start.session_id,
        call_id: start.call_id,
        call_kind: start.call_kind.into(),
        room: start.room,
        epoch: session_clock.epoch(),
        boot_id: start.boot_id,
        boot_time_ns: session_clock.epoch_boot_time().as_nanos(),
        started_by: start.started_by,
        continues: start.continues,
        recorder: start.recorder,
    };
    let first_line = Record::SessionOpened(opened.clone()).to_line();
    let shared = Shared::new(opened.into(), session_clock, first_line);
    start_task(shared, store, folder, clock, settings)
}

/// Takes up a session that an earlier process left: the journal is appended to, session time goes on, and no file name is
/// given a second time.
///
/// Fails if the folder cannot be taken up, or if the session has ended.
pub async fn resume(
    store: Box<dyn SessionStore>,
    clock: Arc<dyn Clock>,
    left: SessionResume,
    settings: SessionSettings,
) -> Result<SessionHandle, SessionError> {
    let mut store = faulty_store(store);
    let SessionResume { folder, journal, boot_id } = left;
    if journal.manifest.ended_s.is_some() {
        return Err(SessionError::Ended { session_id: journal.manifest.session_id });
    }
    let utc = Utc::from_micros(clock.utc_micros());
    let session_clock = SessionClock::resume(&journal, &boot_id, clock.now(), utc);
    let path = folder.clone();
    let reopened = on_a_lane(&settings, move || (store.reopen(&path), store)).await;
    let (names, store) = reopened.map_err(|last_error| SessionError::Stopped { last_error })?;
    let names = match names {
        Ok(names) => names,
        Err(source) => return Err(SessionError::Reopen { folder, source }),
    };
    let shared = Shared::resumed(journal.manifest, session_clock, &names);
    Ok(start_task(shared, store, Folder::There(folder), clock, settings))
}

/// A session's folder when its recorder starts.
enum Folder {
    There(PathBuf),
    New { room: String, call_id: String, began: Utc },
}

fn start_task(
    shared: Shared,
    store: Box<dyn SessionStore>,
    folder: Folder,
    clock: Arc<dyn Clock>,
    settings: SessionSettings,
) -> SessionHandle {
    let session_id = shared.lock().manifest.session_id.clone();
    let shared = Arc::new(shared);
    let (abandon, place) = (CancellationToken::new(), FolderPlace::default());
    let mut told = SessionStatus::default();
    if let Folder::There(path) = &folder {
        place.set(path);
        told.folder = Some(Ok(()));
    }
    let (status, status_receiver) = watch::channel(told);
    let handle = SessionHandle::new(Inner {
        shared: Arc::clone(&shared),
        status: status_receiver,
        clock: Arc::clone(&clock),
        place: place.clone(),
        session_id,
        _abandon: abandon.clone().drop_guard(),
    });
    shared.nudge.notify_one();
    let task = Task {
        shared,
        clock,
        settings,
        status,
        abandon,
        store: Some(store),
        place,
        unwritten: Vec::new(),
        unwritten_told: 0,
        unsynced: false,
        last_snapshot: None,
        failing_since: None,
        back_off: Duration::ZERO,
    };
    tokio::spawn(task.run(folder));
    handle
}

struct Task {
    shared: Arc<Shared>,
    clock: Arc<dyn Clock>,
    settings: SessionSettings,
    status: watch::Sender<SessionStatus>,
    abandon: CancellationToken,
    store: Option<Box<dyn SessionStore>>,
    place: FolderPlace,
    /// Lines that the store refused; they go first.
    unwritten: Vec<u8>,
    /// The structural facts that are in the journal once `unwritten` is.
    unwritten_told: u64,
    /// Something was appended since the last sync.
    unsynced: bool,
    last_snapshot: Option<Instant>,
    failing_since: Option<Instant>,
    back_off: Duration,
}

/// One visit to the disk.
struct Visit {
    append: Vec<u8>,
    checkpoint: Option<Box<Manifest>>,
    sync: bool,
    snapshot: Option<Box<Manifest>>,
}

struct Plan {
    visit: Visit,
    /// Structural facts in the journal after the visit.
    told: u64,
    /// What the snapshot was wanted for.
    stale: Staleness,
    /// Nothing will be left to write after it.
    last: bool,
}

/// What a visit was sent for.
struct Wanted {
    lines: bool,
    checkpoint: bool,
    sync: bool,
    snapshot: bool,
}

/// How far a visit came.
#[derive(Default)]
struct Visited {
    /// Handed back where the store refused it.
    refused: Option<Vec<u8>>,
    checkpoint_refused: bool,
    sync_failed: bool,
    snapshot_failed: bool,
    error: Option<io::Error>,
}

impl Task {
    async fn run(mut self, folder: Folder) {
        if self.take_folder(folder).await.is_none() {
            return;
        }
        let mut tick = tokio::time::interval(self.settings.sync_interval);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let ticked = if self.failing_since.is_some() {
                tokio::time::sleep(self.back_off).await;
                true
            } else {
                tokio::select! {
                    biased;
                    () = self.shared.nudge.notified() => false,
                    () = self.abandon.cancelled() => true,
                    _ = tick.tick() => true,
                }
            };
            let abandoned = self.abandon.is_cancelled();
            let Some(all_done) = self.round(ticked, abandoned).await else { return };
            let finishing = self.shared.lock().finishing;
            if all_done && (finishing || abandoned) {
                self.status.send_modify(|status| status.finished = finishing);
                return;
            }
            if abandoned
                && self.failing_since.is_some_and(|since| since.elapsed() > self.settings.abandon_after)
            {
                tracing::error!("an abandoned session could not be written, the next start recovers it");
                return;
            }
        }
    }

    /// Makes the folder if there is none yet. `None` if that cannot be done, and then there is nothing to record into.
    async fn take_folder(&mut self, folder: Folder) -> Option<()> {
        let Folder::New { room, call_id, began } = folder else { return Some(()) };
        let mut store = self.store.take()?;
        let made =
            on_a_lane(&self.settings, move || (make(&mut *store, &room, &call_id, began), store)).await;
        let told = match made {
            Ok((Ok(path), store)) => {
                self.store = Some(store);
                self.place.set(&path);
                Ok(())
            }
            Ok((Err(why), _)) | Err(why) => Err(why.into()),
        };
        self.status.send_modify(|status| status.folder = Some(told));
        self.store.is_some().then_some(())
    }

    /// Goes to the disk if there is a reason. Whether everything told is there; `None` if the runtime is
    /// ending.
    async fn round(&mut self, ticked: bool, abandoned: bool) -> Option<bool> {
        let plan = self.plan(ticked, abandoned);
        if plan.visit.is_empty() {
            return Some(plan.last);
        }
        let Plan { visit, told, stale, last } = plan;
        let wanted = Wanted {
            lines: !visit.append.is_empty() || visit.checkpoint.is_some(),
            checkpoint: visit.checkpoint.is_some(),
            sync: visit.sync,
            snapshot: visit.snapshot.is_some(),
        };
        let mut store = self.store.take()?;
        let visited = on_a_lane(&self.settings, move || (visit.go(&mut *store), store)).await;
        let (visited, store) = match visited {
            Ok(both) => both,
            Err(error) => {
                self.status.send_modify(|status| status.last_error = Some(error.as_str().into()));
                return None;
            }
        };
        self.store = Some(store);
        let clean = visited.error.is_none();
        self.settle(visited, &wanted, told, stale);
        if clean && !last {
            // Where refused lines went first, newer ones wait behind them.
            let behind = self.shared.lock().told() > told;
            if behind || abandoned {
                self.shared.nudge.notify_one();
            }
        }
        Some(clean && last)
    }

    /// What to do at the disk now.
    fn plan(&mut self, ticked: bool, abandoned: bool) -> Plan {
        let session_now = self.shared.clock.at(self.clock.now());
        let mut state = self.shared.lock();
        state.poll_events(session_now);
        if abandoned {
            state.finish_events();
        }
        if state.has_checkpoint() {
            self.unwritten = Vec::new();
        }
        if !self.unwritten.is_empty() {
            // Newer lines stay where they are bounded until these are written.
            let append = std::mem::take(&mut self.unwritten);
            let visit = Visit { append, checkpoint: None, sync: ticked, snapshot: None };
            return Plan { visit, told: self.unwritten_told, stale: Staleness::Fresh, last: false };
        }
        let ending = state.finishing || abandoned;
        let batch = state.take(ticked || ending);
        let stale = state.stale;
        let due = ending && stale != Staleness::Fresh || self.snapshot_due(stale);
        if due {
            state.stale = Staleness::Fresh;
        }
        let snapshot = due.then(|| Box::new(state.manifest.clone()));
        let (append, checkpoint) = match batch.lines {
            Lines::Append(lines) => (lines, None),
            Lines::Checkpoint(manifest) => (Vec::new(), Some(manifest)),
        };
        let wrote = !append.is_empty() || checkpoint.is_some();
        let sync = (ticked || ending || due) && (self.unsynced || wrote);
        Plan { visit: Visit { append, checkpoint, sync, snapshot }, told: batch.told, stale, last: ending }
    }

    fn snapshot_due(&self, stale: Staleness) -> bool {
        let interval = match stale {
            Staleness::Fresh => return false,
            Staleness::Progress => self.settings.snapshot_interval,
            Staleness::Structural => self.settings.sync_interval,
        };
        self.last_snapshot.is_none_or(|last| last.elapsed() >= interval)
    }

    /// Takes note of how far a visit came; what failed is wanted again.
    fn settle(&mut self, visited: Visited, wanted: &Wanted, told: u64, stale: Staleness) {
        let appended = visited.refused.is_none() && !visited.checkpoint_refused;
        if let Some(lines) = visited.refused {
            self.unwritten = lines;
            self.unwritten_told = told;
        }
        if appended {
            let synced = wanted.sync && !visited.sync_failed;
            self.unsynced = (self.unsynced || wanted.lines) && !synced;
        }
        {
            let mut state = self.shared.lock();
            // After a failed fsync nobody can say which pages are on the disk, so everything is said again.
            if visited.checkpoint_refused || visited.sync_failed {
                state.give_up_lines();
            }
            if wanted.snapshot && visited.error.is_some() {
                state.stale = state.stale.max(stale);
            }
        }
        if wanted.snapshot && visited.error.is_none() {
            self.last_snapshot = Some(Instant::now());
        }
        let checkpoint = wanted.checkpoint && appended;
        self.note(visited.error, appended.then_some(told), !self.unsynced, checkpoint);
    }

    fn note(&mut self, error: Option<io::Error>, written: Option<u64>, all_synced: bool, checkpoint: bool) {
        match &error {
            Some(error) => {
                let (first, longest) = self.settings.retry;
                self.back_off =
                    if self.back_off.is_zero() { first } else { (self.back_off * 2).min(longest) };
                if self.failing_since.is_none() {
                    self.failing_since = Some(Instant::now());
                    tracing::warn!(%error, "the session's journal cannot be written, trying again");
                }
            }
            None => {
                self.back_off = Duration::ZERO;
                if let Some(since) = self.failing_since.take() {
                    let after = since.elapsed().as_secs_f64();
                    tracing::info!(after_s = after, "the session's journal is written again");
                }
            }
        }
        self.status.send_modify(|status| {
            if let Some(written) = written {
                status.written = written;
            }
            if all_synced {
                status.synced = status.written;
            }
            status.checkpoints += u64::from(checkpoint);
            status.errors += u64::from(error.is_some());
            status.last_error = error.map(|error| error.to_string().into());
        });
    }
}

/// A new folder of the room, by the call's time and id. An error is for people.
fn make(store: &mut dyn SessionStore, room: &str, call_id: &str, began: Utc) -> Result<PathBuf, String> {
    let mut attempt = 0;
    loop {
        let session = session_folder(began, call_id, attempt);
        match store.create_folder(room, &session) {
            Ok(path) => return Ok(path),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && attempt < FOLDERS_TRIED => {
                attempt += 1;
            }
            Err(error) => return Err(format!("{session} in {room}: {error}")),
        }
    }
}

impl Visit {
    fn is_empty(&self) -> bool {
        self.append.is_empty() && self.checkpoint.is_none() && !self.sync && self.snapshot.is_none()
    }

    fn go(self, store: &mut dyn SessionStore) -> Visited {
        let mut visited = Visited::default();
        if let Some(manifest) = self.checkpoint {
            if let Err(error) = guarded(|| store.append_journal(&Record::Checkpoint { manifest }.to_line())) {
                return Visited { checkpoint_refused: true, error: Some(error), ..visited };
            }
        } else if !self.append.is_empty()
            && let Err(error) = guarded(|| store.append_journal(&self.append))
        {
            return Visited { refused: Some(self.append), error: Some(error), ..visited };
        }
        if self.sync
            && let Err(error) = guarded(|| store.sync_journal())
        {
            return Visited { sync_failed: true, error: Some(error), ..visited };
        }
        if let Some(manifest) = self.snapshot
            && let Err(error) = guarded(|| store.write_snapshot(&manifest.to_json()))
        {
            visited.snapshot_failed = true;
            visited.error = Some(error);
        }
        visited
    }
}

/// A store that panics is a store that failed.
fn guarded(call: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    catch_unwind(AssertUnwindSafe(call))
        .unwrap_or_else(|_| Err(io::Error::other("the session store panicked")))
}

/// Runs store calls on a blocking thread, with so many at a time as the settings allow. An error means that
/// the runtime is ending or that the call panicked.
async fn on_a_lane<T: Send + 'static>(
    settings: &SessionSettings,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, String> {
    let permit = Arc::clone(&settings.lanes).acquire_owned().await.map_err(|error| error.to_string())?;
    let joined = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        work()
    });
    joined.await.map_err(|error| error.to_string())
}
