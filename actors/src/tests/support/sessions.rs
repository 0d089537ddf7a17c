//! Sessions in memory, and the list of live calls.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use recorder_core::ids::SessionId;
use recorder_core::manifest::{RecorderInfo, Room};

use crate::ports::{Clock, LiveCall, LiveCalls, SessionFactory, SessionOrder};
use crate::session::{self, SessionError, SessionHandle, SessionSettings, SessionStart, SessionStore};

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
}

struct MemoryStore {
    snapshots: Arc<Mutex<Vec<Vec<u8>>>>,
    refuse: bool,
}

impl SessionStore for MemoryStore {
    fn create_folder(&mut self, room: &str, session: &str) -> io::Result<PathBuf> {
        if self.refuse {
            return Err(io::Error::from(io::ErrorKind::PermissionDenied));
        }
        Ok(PathBuf::from(room).join(session))
    }

    fn append_journal(&mut self, _: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn sync_journal(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn write_snapshot(&mut self, json: &[u8]) -> io::Result<()> {
        self.snapshots.lock().unwrap().push(json.to_vec());
        Ok(())
    }
}

impl SessionFactory for FakeSessions {
    fn finished(&self, _: &std::path::Path) {}

    fn abandon(&self, session: SessionId) {
        self.abandoned.lock().unwrap().push(session);
    }

    fn open(&self, order: SessionOrder) -> BoxFuture<'static, Result<SessionHandle, SessionError>> {
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
        let store = MemoryStore {
            snapshots: Arc::clone(&self.snapshots),
            refuse: self.refuse.load(Ordering::Relaxed),
        };
        let clock = self.clock.clone().expect("the tree sets it");
        let wait = Duration::from_secs(u64::from(self.slow.load(Ordering::Relaxed)));
        let settings = self.settings.clone();
        if self.stalled.load(Ordering::Relaxed) {
            settings.lanes.forget_permits(usize::MAX);
        }
        async move {
            tokio::time::sleep(wait).await;
            Ok(session::begin(Box::new(store), clock, start, settings))
        }
        .boxed()
    }
}

#[derive(Default)]
pub struct FakeLiveCalls {
    pub live: Mutex<Vec<LiveCall>>,
}

impl LiveCalls for Arc<FakeLiveCalls> {
    fn add(&self, call: LiveCall) -> BoxFuture<'static, ()> {
        self.live.lock().unwrap().push(call);
        async {}.boxed()
    }

    fn remove(&self, room: String, call_id: String) -> BoxFuture<'static, ()> {
        self.live.lock().unwrap().retain(|call| call.room != room || call.call_id != call_id);
        async {}.boxed()
    }
}
