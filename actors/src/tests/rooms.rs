//! Rooms as a test hears them: everything that is said in them or sent to devices, in order.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use recorder_core::call::Announcement;
use serde_json::{Value, json};

use crate::ports::{Relation, RoomMemory, RoomPowers, RoomRecord, Rooms, SignallingError};

/// What was sent, as (what, to whom or where, content).
#[derive(Default)]
pub struct FakeRooms {
    pub sent: Mutex<Vec<(String, String, Value)>>,
    pub records: Mutex<Vec<(String, RoomRecord)>>,
    /// The homeserver refuses every state event.
    pub refuse_state: AtomicBool,
    /// It refuses every message.
    pub refuse_messages: AtomicBool,
    /// The homeserver takes no name of ours.
    pub refuse_names: AtomicBool,
    /// The disk refuses what is to be remembered.
    pub refuse_records: AtomicBool,
    /// It takes whatever is said and never answers.
    pub silent: AtomicBool,
    /// It does not answer what is asked of delays.
    pub no_delays: AtomicBool,
    delays: AtomicUsize,
}

impl FakeRooms {
    fn push(&self, what: &str, to: &str, content: Value) -> usize {
        let mut sent = self.sent.lock().unwrap();
        sent.push((what.to_owned(), to.to_owned(), content));
        sent.len()
    }

    /// The contents of everything of one kind.
    pub fn of(&self, what: &str) -> Vec<Value> {
        let sent = self.sent.lock().unwrap();
        sent.iter().filter(|(kind, ..)| kind == what).map(|(.., content)| content.clone()).collect()
    }

    /// Something that was said has this in it.
    pub fn said(&self, text: &str) -> bool {
        self.of("say").iter().any(|said| said["body"].as_str().is_some_and(|body| body.contains(text)))
    }
}

impl Rooms for Arc<FakeRooms> {
    fn send_state(
        &self,
        room: String,
        event_type: String,
        _: String,
        content: Value,
        _: Duration,
    ) -> BoxFuture<'static, Result<(), SignallingError>> {
        self.push(&event_type, &room, content);
        let refused = self.refuse_state.load(Ordering::Relaxed);
        let answer = if refused { Err(SignallingError::Refused("403".into())) } else { Ok(()) };
        async move { answer }.boxed()
    }

    fn send_state_later(
        &self,
        room: String,
        _: String,
        _: String,
        content: Value,
        _: Duration,
    ) -> BoxFuture<'static, Option<String>> {
        self.push("delay", &room, content);
        let began = (!self.no_delays.load(Ordering::Relaxed))
            .then(|| format!("delay-{}", self.delays.fetch_add(1, Ordering::Relaxed) + 1));
        async move { began }.boxed()
    }

    fn restart_delay(&self, id: String) -> BoxFuture<'static, bool> {
        self.push("restart", "", json!(id));
        let alive = !self.no_delays.load(Ordering::Relaxed);
        async move { alive }.boxed()
    }

    fn cancel_delay(&self, id: String) -> BoxFuture<'static, ()> {
        self.push("cancel", "", json!(id));
        async {}.boxed()
    }

    fn send_to_device(
        &self,
        user: String,
        device: String,
        event_type: String,
        content: Value,
        _: Duration,
    ) -> BoxFuture<'static, Result<(), SignallingError>> {
        self.push(&event_type, &format!("{user}/{device}"), content);
        async { Ok(()) }.boxed()
    }

    fn say(
        &self,
        room: String,
        message: Announcement,
        relation: Relation,
        _: Duration,
    ) -> BoxFuture<'static, Result<String, SignallingError>> {
        if self.silent.load(Ordering::Relaxed) {
            return futures_util::future::pending().boxed();
        }
        let edits = matches!(relation, Relation::Edit { .. });
        let content = json!({"body": message.plain, "mentions": message.mentions, "edit": edits});
        if self.refuse_messages.load(Ordering::Relaxed) {
            return async { Err(SignallingError::Refused("403".into())) }.boxed();
        }
        let number = self.push("say", &room, content);
        async move { Ok(format!("$said-{number}")) }.boxed()
    }

    fn react(
        &self,
        _: String,
        event: String,
        key: String,
        _: Duration,
    ) -> BoxFuture<'static, Result<(), SignallingError>> {
        self.push("react", &event, json!(key));
        async { Ok(()) }.boxed()
    }

    fn set_room_name(
        &self,
        room: String,
        name: Option<String>,
        _: Duration,
    ) -> BoxFuture<'static, Result<(), SignallingError>> {
        self.push("name", &room, json!(name));
        let refused = self.refuse_names.load(Ordering::Relaxed);
        let answer = if refused { Err(SignallingError::Refused("403".into())) } else { Ok(()) };
        async move { answer }.boxed()
    }

    fn powers(&self, _: String) -> BoxFuture<'static, Option<RoomPowers>> {
        async { None }.boxed()
    }
}

impl RoomMemory for Arc<FakeRooms> {
    fn keep(&self, room: String, record: RoomRecord) -> BoxFuture<'static, std::io::Result<()>> {
        if self.refuse_records.load(Ordering::Relaxed) {
            return async { Err(std::io::Error::from(std::io::ErrorKind::StorageFull)) }.boxed();
        }
        self.records.lock().unwrap().push((room, record));
        async { Ok(()) }.boxed()
    }
}
