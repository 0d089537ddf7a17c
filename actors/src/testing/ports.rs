//! Ports that fail on cue, before any other: the account, sessions and their folders, the list of live calls.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use recorder_core::call::Announcement;
use recorder_core::ids::SessionId;
use serde_json::Value;

use super::{Point, ask, visit};
use crate::ports::{
    LiveCall, LiveCalls, RoomFacts, SessionFactory, SessionOrder, Signalling, SignallingError, TurnServer,
    Urgency,
};
use crate::session::{SessionError, SessionHandle, SessionStore};
use crate::world::World;

/// The same world, whose ports ask at their points.
pub fn faulty_world(world: World) -> World {
    World {
        signalling: Arc::new(Faulty(world.signalling)),
        sessions: Arc::new(Faulty(world.sessions)),
        live_calls: Arc::new(Faulty(world.live_calls)),
        ..world
    }
}

/// The same folder, which asks at [`Point::SessionStore`].
pub fn faulty_store(store: Box<dyn SessionStore>) -> Box<dyn SessionStore> {
    Box::new(FaultyStore { store, folder: String::new() })
}

struct Faulty<T: ?Sized>(Arc<T>);

fn refused(error: io::Error) -> SignallingError {
    SignallingError::Unreachable(error.to_string())
}

impl Signalling for Faulty<dyn Signalling> {
    fn send(
        &self,
        room: String,
        event_type: String,
        content: Value,
        urgency: Urgency,
        patience: Duration,
    ) -> BoxFuture<'static, Result<(), SignallingError>> {
        let port = Arc::clone(&self.0);
        async move {
            ask(Point::Signalling, &event_type).map_err(refused)?;
            port.send(room, event_type, content, urgency, patience).await
        }
        .boxed()
    }

    fn announce(
        &self,
        room: String,
        message: Announcement,
        patience: Duration,
    ) -> BoxFuture<'static, Result<(), SignallingError>> {
        let port = Arc::clone(&self.0);
        async move {
            ask(Point::Signalling, "announce").map_err(refused)?;
            port.announce(room, message, patience).await
        }
        .boxed()
    }

    fn turn_servers(&self) -> BoxFuture<'static, Vec<TurnServer>> {
        let port = Arc::clone(&self.0);
        async move {
            match ask(Point::Turn, "turn") {
                Ok(()) => port.turn_servers().await,
                Err(_) => Vec::new(),
            }
        }
        .boxed()
    }

    fn room(&self, room: String) -> BoxFuture<'static, RoomFacts> {
        let port = Arc::clone(&self.0);
        async move {
            visit(Point::Signalling, "room");
            port.room(room).await
        }
        .boxed()
    }

    fn display_name(&self, room: String, user: String) -> BoxFuture<'static, Option<String>> {
        let port = Arc::clone(&self.0);
        async move {
            visit(Point::Signalling, "display_name");
            port.display_name(room, user).await
        }
        .boxed()
    }
}

impl SessionFactory for Faulty<dyn SessionFactory> {
    fn open(&self, order: SessionOrder) -> BoxFuture<'static, Result<SessionHandle, SessionError>> {
        let port = Arc::clone(&self.0);
        async move {
            let asked = ask(Point::SessionOpen, &order.call_id);
            asked.map_err(|error| SessionError::Stopped { last_error: error.to_string() })?;
            port.open(order).await
        }
        .boxed()
    }

    fn abandon(&self, session: SessionId) {
        self.0.abandon(session);
    }

    fn finished(&self, folder: &Path) {
        self.0.finished(folder);
    }
}

impl LiveCalls for Faulty<dyn LiveCalls> {
    fn add(&self, call: LiveCall) -> BoxFuture<'static, ()> {
        let port = Arc::clone(&self.0);
        async move {
            visit(Point::LiveCalls, &call.call_id);
            port.add(call).await;
        }
        .boxed()
    }

    fn remove(&self, room: String, call_id: String) -> BoxFuture<'static, ()> {
        let port = Arc::clone(&self.0);
        async move {
            visit(Point::LiveCalls, &call_id);
            port.remove(room, call_id).await;
        }
        .boxed()
    }
}

struct FaultyStore {
    store: Box<dyn SessionStore>,
    folder: String,
}

impl FaultyStore {
    fn ask(&self, what: &str) -> io::Result<()> {
        ask(Point::SessionStore, &format!("{}/{what}", self.folder))
    }
}

impl SessionStore for FaultyStore {
    fn create_folder(&mut self, room: &str, session: &str) -> io::Result<PathBuf> {
        self.folder = format!("{room}/{session}");
        self.ask("create")?;
        self.store.create_folder(room, session)
    }

    fn append_journal(&mut self, lines: &[u8]) -> io::Result<()> {
        self.ask("append")?;
        self.store.append_journal(lines)
    }

    fn sync_journal(&mut self) -> io::Result<()> {
        self.ask("sync")?;
        self.store.sync_journal()
    }

    fn reopen(&mut self, folder: &Path) -> io::Result<Vec<String>> {
        self.folder = folder.display().to_string();
        self.ask("reopen")?;
        self.store.reopen(folder)
    }

    fn write_snapshot(&mut self, json: &[u8]) -> io::Result<()> {
        self.ask("snapshot")?;
        self.store.write_snapshot(json)
    }
}
