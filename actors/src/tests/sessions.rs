//! Sessions in memory, which may refuse to be opened and outlive the process.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use recorder_core::ids::SessionId;
use recorder_core::manifest::{RecorderInfo, Room, fold};

use crate::ports::{Clock, SessionFactory, SessionOrder};
use crate::session::{
    self, SessionError, SessionHandle, SessionResume, SessionSettings, SessionStart, SessionStore,
};

/// A folder in memory that may refuse to be made.
#[derive(Clone, Default)]
pub struct FakeSessions {
    pub snapshots: Arc<Mutex<Vec<Vec<u8>>>>,
    pub refuse: Arc<AtomicBool>,
    /// A session takes a second to be read.
    pub slow: Arc<AtomicBool>,
    /// The disk stands still.
    pub stalled: Arc<AtomicBool>,
    pub settings: SessionSettings,
    pub clock: Option<Arc<dyn Clock>>,
    pub abandoned: Arc<Mutex<Vec<SessionId>>>,
    /// Of the session opened last.
    pub journal: Arc<Mutex<Vec<u8>>>,
}

struct MemoryStore {
    snapshots: Arc<Mutex<Vec<Vec<u8>>>>,
    journal: Arc<Mutex<Vec<u8>>>,
    refuse: bool,
}

impl SessionStore for MemoryStore {
    fn create_folder(&mut self, room: &str, session: &str) -> io::Result<PathBuf> {
        if self.refuse {
            return Err(io::Error::from(io::ErrorKind::PermissionDenied));
        }
        self.journal.lock().unwrap().clear();
        Ok(PathBuf::from(room).join(session))
    }

    fn append_journal(&mut self, lines: &[u8]) -> io::Result<()> {
        self.journal.lock().unwrap().extend_from_slice(lines);
        Ok(())
    }

    fn sync_journal(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn reopen(&mut self, _: &Path) -> io::Result<Vec<String>> {
        Ok(Vec::new())
    }

    fn write_snapshot(&mut self, json: &[u8]) -> io::Result<()> {
        self.snapshots.lock().unwrap().push(json.to_vec());
        Ok(())
    }
}

impl SessionFactory for FakeSessions {
    fn finished(&self, _: &Path) {}

    fn abandon(&self, session: SessionId) {
        self.abandoned.lock().unwrap().push(session);
    }

    fn open(&self, order: SessionOrder) -> BoxFuture<'static, Result<SessionHandle, SessionError>> {
        let store = Box::new(MemoryStore {
            snapshots: Arc::clone(&self.snapshots),
            journal: Arc::clone(&self.journal),
            refuse: self.refuse.load(Ordering::Relaxed),
        });
        let clock = self.clock.clone().expect("the tree sets it");
        let journal = order.resume.as_ref().and_then(|_| fold(&self.journal.lock().unwrap()).ok());
        if let Some(journal) = journal {
            let left = SessionResume { folder: PathBuf::from("resumed"), journal, boot_id: String::new() };
            return session::resume(store, clock, left, self.settings.clone()).boxed();
        }
        let start = SessionStart {
            session_id: SessionId::new("s1"),
            call_id: order.call_id,
            call_kind: order.call_kind,
            room: Room { id: order.room_id, name: Some(order.room.name), encrypted: order.room.encrypted },
            started_by: order.started_by,
            continues: None,
            recorder: RecorderInfo { name: "test".into(), version: "0".into() },
            boot_id: String::new(),
            earliest_media: None,
        };
        let settings = self.settings.clone();
        if self.stalled.load(Ordering::Relaxed) {
            settings.lanes.forget_permits(usize::MAX);
        }
        let wait = Duration::from_secs(u64::from(self.slow.load(Ordering::Relaxed)));
        async move {
            tokio::time::sleep(wait).await;
            Ok(session::begin(store, clock, start, settings))
        }
        .boxed()
    }
}
