//! Opens sessions in the recordings folder.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use recorder_actors::ports::{Clock, SessionFactory, SessionOrder};
use recorder_actors::session::{self, SessionError, SessionHandle, SessionSettings, SessionStart};
use recorder_core::ids::SessionId;
use recorder_core::manifest::{RecorderInfo, Room};
use sha2::{Digest, Sha256};

use super::recovery::{Pace, hash_session};
use super::session_store::FsSessionStore;

/// Sessions of 1:1 calls, each in a folder of its own.
pub struct Sessions {
    recordings: PathBuf,
    clock: Arc<dyn Clock>,
    settings: SessionSettings,
    boot_id: String,
    /// Sessions that a restart cut off, by room: the next call there continues them.
    cut_off: Arc<Mutex<HashMap<String, SessionId>>>,
    hasher: Hasher,
}

impl Sessions {
    pub fn new(recordings: &Path, clock: Arc<dyn Clock>, cut_off: HashMap<String, SessionId>) -> Self {
        Self {
            recordings: recordings.to_path_buf(),
            clock,
            settings: SessionSettings::default(),
            boot_id: boot_id(),
            cut_off: Arc::new(Mutex::new(cut_off)),
            hasher: Hasher::start(),
        }
    }
}

/// Computes checksums of finished sessions, slowly, on a thread of its own. Bound: [`MOST_TO_HASH`] sessions; one that
/// finds no room gets no checksums.
struct Hasher {
    folders: std::sync::mpsc::SyncSender<PathBuf>,
    pace: Arc<Pace>,
}

/// Sessions that may wait for their checksums.
const MOST_TO_HASH: usize = 1024;
/// Bytes of recordings read in a second for checksums.
const HASH_RATE: u64 = 32 << 20;

impl Hasher {
    fn start() -> Self {
        let (folders, waiting) = std::sync::mpsc::sync_channel::<PathBuf>(MOST_TO_HASH);
        let pace = Arc::new(Pace::new(HASH_RATE));
        let kept = Arc::clone(&pace);
        let spawned = std::thread::Builder::new().name("checksums".into()).spawn(move || {
            for folder in waiting {
                if let Err(error) = hash_session(&folder, &kept) {
                    tracing::warn!(folder = %folder.display(), %error, "a session has no checksums");
                }
            }
        });
        if let Err(error) = spawned {
            tracing::warn!(%error, "sessions will have no checksums");
        }
        Self { folders, pace }
    }
}

impl Drop for Hasher {
    fn drop(&mut self) {
        self.pace.stop();
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
        tracing::warn!(%session, "a session cannot go on");
    }

    fn finished(&self, folder: &Path) {
        if self.hasher.folders.try_send(self.recordings.join(folder)).is_err() {
            tracing::warn!(folder = %folder.display(), "too many sessions wait for their checksums");
        }
    }

    fn open(&self, order: SessionOrder) -> BoxFuture<'static, Result<SessionHandle, SessionError>> {
        let continues = self.cut_off.lock().unwrap_or_else(PoisonError::into_inner).remove(&order.room_id);
        let (room_id, unused) = (order.room_id.clone(), continues.clone());
        let start = SessionStart {
            session_id: session_id(&order, self.clock.utc_micros(), self.clock.now().as_nanos()),
            call_id: order.call_id,
            call_kind: order.call_kind,
            room: Room { id: order.room_id, name: Some(order.room.name), encrypted: order.room.encrypted },
            started_by: order.started_by,
            continues,
            recorder: recorder_info(),
            boot_id: self.boot_id.clone(),
            earliest_media: order.first_media,
        };
        let store = Box::new(FsSessionStore::new(&self.recordings));
        let (clock, settings) = (Arc::clone(&self.clock), self.settings.clone());
        let cut_off = Arc::clone(&self.cut_off);
        async move {
            let opened = session::open(store, clock, start, settings).await;
            if let (Err(_), Some(session)) = (&opened, unused) {
                // The next session of the room continues it then.
                cut_off.lock().unwrap_or_else(PoisonError::into_inner).entry(room_id).or_insert(session);
            }
            opened
        }
        .boxed()
    }
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
mod tests {
    use recorder_actors::ports::RoomFacts;
    use recorder_core::manifest::CallKind;

    use super::super::clock::SystemClock;
    use super::*;

    #[tokio::test]
    async fn a_session_that_could_not_be_opened_leaves_the_interrupted_one_to_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let in_the_way = folder.path().join("file");
        std::fs::write(&in_the_way, "no folder").unwrap();
        let room_id = "!room:example.org".to_owned();
        let cut_off = HashMap::from([(room_id.clone(), SessionId::new("before"))]);
        let sessions = Sessions::new(&in_the_way, Arc::new(SystemClock), cut_off.clone());
        let order = SessionOrder {
            room_id,
            room: RoomFacts::default(),
            call_id: "c1".into(),
            call_kind: CallKind::OneToOne,
            resume: None,
            started_by: Some("@ada:example.org".into()),
            first_media: None,
        };
        assert!(sessions.open(order).await.is_err());
        assert_eq!(*sessions.cut_off.lock().unwrap(), cut_off);
    }
}
