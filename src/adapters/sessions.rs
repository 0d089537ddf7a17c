//! Opens sessions in the recordings folder.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use recorder_actors::ports::{Clock, SessionFactory, SessionOrder};
use recorder_actors::session::{
    self, SessionError, SessionHandle, SessionResume, SessionSettings, SessionStart,
};
use recorder_core::ids::SessionId;
use recorder_core::manifest::{RecorderInfo, Room};
use sha2::{Digest, Sha256};

use super::checksums::{ChecksumQueue, Checksums};
use super::recovery;
use super::session_store::FsSessionStore;

/// What earlier processes left unfinished.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeftOver {
    /// Sessions that a restart cut off, by room: the next call there continues them.
    pub cut_off: HashMap<String, SessionId>,
    /// Folders of sessions that are still open, because their calls may go on.
    pub kept: HashMap<SessionId, PathBuf>,
}

/// How long a session is kept open for a call that does not go on.
pub const KEPT_FOR: Duration = Duration::from_secs(600);

/// Sessions, each in a folder of its own.
pub struct Sessions {
    recordings: PathBuf,
    clock: Arc<dyn Clock>,
    settings: SessionSettings,
    boot_id: String,
    left: Arc<Mutex<LeftOver>>,
    checksums: Checksums,
}

impl Sessions {
    pub fn new(recordings: &Path, clock: Arc<dyn Clock>, left: LeftOver) -> Self {
        Self {
            recordings: recordings.to_path_buf(),
            clock,
            settings: SessionSettings::default(),
            boot_id: boot_id(),
            left: Arc::new(Mutex::new(left)),
            checksums: Checksums::start(recordings),
        }
    }

    /// Ends the sessions that were kept open for calls that have not gone on.
    pub fn abandon_kept(&self) {
        let kept: Vec<_> = lock(&self.left).kept.keys().cloned().collect();
        kept.into_iter().for_each(|session| self.abandon(session));
    }
}

/// `/proc/sys/kernel/random/boot_id`, empty where there is none.
pub fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// How this program calls itself in manifests.
pub fn recorder_info() -> RecorderInfo {
    RecorderInfo { name: env!("CARGO_PKG_NAME").to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() }
}

impl SessionFactory for Sessions {
    fn abandon(&self, session: SessionId) {
        let Some(folder) = lock(&self.left).kept.remove(&session) else { return };
        let (left, checksums) = (Arc::clone(&self.left), self.checksums.queue());
        tokio::task::spawn_blocking(move || give_up(&left, &checksums, session, folder));
    }

    fn finished(&self, folder: &Path) {
        self.checksums.queue().push(self.recordings.join(folder));
    }

    fn open(&self, order: SessionOrder) -> BoxFuture<'static, Result<SessionHandle, SessionError>> {
        let resumed = order.resume.clone();
        let kept = resumed.as_ref().and_then(|session| lock(&self.left).kept.remove(session));
        let room_id = order.room_id.clone();
        let mut start = SessionStart {
            session_id: session_id(&order, self.clock.utc_micros(), self.clock.now().as_nanos()),
            call_id: order.call_id,
            call_kind: order.call_kind,
            room: Room { id: order.room_id, name: Some(order.room.name), encrypted: order.room.encrypted },
            started_by: order.started_by,
            continues: resumed.clone(),
            recorder: recorder_info(),
            boot_id: self.boot_id.clone(),
            earliest_media: order.first_media,
        };
        let recordings = self.recordings.clone();
        let (clock, settings) = (Arc::clone(&self.clock), self.settings.clone());
        let (left, checksums) = (Arc::clone(&self.left), self.checksums.queue());
        async move {
            if let Some(session) = resumed {
                match resume(&recordings, &session, kept.clone(), &clock, &start.boot_id, &settings).await {
                    Ok(handle) => return Ok(handle),
                    Err(why) => {
                        tracing::warn!(%session, %why, "a session cannot go on, a new one continues it");
                    }
                }
                if let Some(folder) = kept {
                    let left = Arc::clone(&left);
                    tokio::task::spawn_blocking(move || give_up(&left, &checksums, session, folder));
                }
            }
            let cut_off = lock(&left).cut_off.remove(&room_id);
            start.continues = start.continues.or_else(|| cut_off.clone());
            let store = Box::new(FsSessionStore::new(recordings));
            let begun = session::begin(store, clock, start, settings);
            if let Some(session) = cut_off {
                let opened = begun.opened();
                tokio::spawn(async move {
                    if opened.await.is_err() {
                        // The next session of the room continues it then.
                        lock(&left).cut_off.entry(room_id).or_insert(session);
                    }
                });
            }
            Ok(begun)
        }
        .boxed()
    }
}

/// Goes on with a session that was kept open. An error is for people.
async fn resume(
    recordings: &Path,
    session: &SessionId,
    kept: Option<PathBuf>,
    clock: &Arc<dyn Clock>,
    boot_id: &str,
    settings: &SessionSettings,
) -> Result<SessionHandle, String> {
    let folder = kept.ok_or("it was not kept open")?;
    let (path, id) = (folder.clone(), session.clone());
    let journal = tokio::task::spawn_blocking(move || recovery::read_left(&path, &id)).await;
    let journal = journal.map_err(|error| error.to_string())??;
    let left = SessionResume { folder, journal, boot_id: boot_id.to_owned() };
    let store = Box::new(FsSessionStore::new(recordings));
    let resumed = session::resume(store, Arc::clone(clock), left, settings.clone()).await;
    resumed.map_err(|error| error.to_string())
}

/// Ends a session that was kept open. The next session of its room continues it.
fn give_up(left: &Mutex<LeftOver>, checksums: &ChecksumQueue, session: SessionId, folder: PathBuf) {
    match recovery::end_kept(&folder, &session) {
        Ok(room) => {
            tracing::info!(%session, "a session was kept open in vain, and has ended");
            lock(left).cut_off.insert(room, session);
            checksums.push(folder);
        }
        Err(why) => tracing::warn!(%session, %why, "a session that was kept open cannot be ended"),
    }
}

fn lock(left: &Mutex<LeftOver>) -> MutexGuard<'_, LeftOver> {
    left.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Unique by room, call and the instant; remote text only ever enters as a hash.
fn session_id(order: &SessionOrder, utc_micros: i64, nanos: u64) -> SessionId {
    let mut hash = Sha256::new();
    hash.update(order.room_id.as_bytes());
    hash.update([0]);
    hash.update(order.call_id.as_bytes());
    hash.update(utc_micros.to_be_bytes());
    hash.update(nanos.to_be_bytes());
    SessionId::new(hex::encode(&hash.finalize()[..16]))
}

#[cfg(test)]
#[path = "sessions_tests.rs"]
mod tests;
