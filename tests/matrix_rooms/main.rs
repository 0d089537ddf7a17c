//! Rooms against a real homeserver: state both ways, delayed events, to-device events, messages, names, powers.

#![recursion_limit = "512"]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends where it fails")]

#[path = "../support/account.rs"]
#[expect(dead_code, reason = "these tests use a part of it")]
mod account;
#[path = "../support/holding_proxy.rs"]
#[expect(dead_code, reason = "these tests use a part of it")]
mod holding_proxy;
#[path = "../support/synapse.rs"]
mod synapse;

mod devices;
mod leaving;
mod messages;
mod state;

use std::sync::LazyLock;
use std::time::Duration;

use account::{Person, Recorder, Running};
use matrix_call_recorder::adapters::rooms::MatrixRooms;
use matrix_sdk::Room;
use serde_json::{Value, json};
use synapse::Synapse;

const PATIENCE: Duration = Duration::from_secs(30);
const CALL: &str = "org.matrix.msc3401.call";
const CALL_MEMBER: &str = "org.matrix.msc3401.call.member";

/// A homeserver that delays events.
static DELAYING: LazyLock<Synapse> =
    LazyLock::new(|| Synapse::start_with(json!({ "max_event_delay_duration": "1h" })));

/// Alice and a room of hers that the recorder is in, both named for the test.
struct Scene {
    recorder: Recorder,
    alice: Person,
    room: Room,
    id: String,
    bot: String,
}

/// The scene while the recorder runs.
struct Meeting {
    scene: Scene,
    running: Running,
    rooms: MatrixRooms,
}

impl std::ops::Deref for Meeting {
    type Target = Scene;

    fn deref(&self) -> &Scene {
        &self.scene
    }
}

impl Meeting {
    async fn new(name: &str, encrypted: bool) -> Self {
        let url = tokio::task::spawn_blocking(|| DELAYING.url.clone()).await.unwrap();
        Self::at(&url, name, encrypted).await
    }

    async fn at(url: &str, name: &str, encrypted: bool) -> Self {
        Self::by_way_of(url, url, name, encrypted).await
    }

    /// The recorder reaches the homeserver by another way than people do.
    async fn by_way_of(url: &str, way: &str, name: &str, encrypted: bool) -> Self {
        let mut recorder = Recorder::new(url, name).await;
        let alice = recorder.ally(&format!("alice-{name}")).await;
        recorder.settings.homeserver = way.to_owned();
        let running = recorder.start().await;
        let room = running.together(&alice, encrypted).await;
        let rooms = MatrixRooms::new(running.account.clone());
        let id = room.room_id().to_string();
        let bot = running.account.user_id();
        Self { scene: Scene { recorder, alice, room, id, bot }, running, rooms }
    }

    /// Stops the recorder when it has handled what it heard.
    async fn end(mut self) -> Scene {
        self.running.finish_batch().await;
        self.running.stop().await;
        self.scene
    }
}

impl Scene {
    /// Lets everybody share in calls.
    async fn open_calls(&self) {
        let levels = json!({ "events": { CALL_MEMBER: 0 }, "users": self.admins() });
        self.set("m.room.power_levels", "", levels).await;
    }

    /// Who stands in the power levels: from room version 12 on a room's creator may not.
    fn admins(&self) -> Value {
        let version = self.room.version().unwrap();
        let creators_privileged = version.rules().unwrap().authorization.explicitly_privilege_room_creators;
        if creators_privileged { json!({}) } else { json!({ self.alice_id(): 100 }) }
    }

    fn alice_id(&self) -> String {
        self.alice.client.user_id().unwrap().to_string()
    }

    /// Alice sets a state.
    async fn set(&self, event_type: &str, state_key: &str, content: Value) -> String {
        set(&self.room, event_type, state_key, content).await
    }

    /// A state of the room as Alice's store has it.
    async fn seen(&self, event_type: &str, state_key: &str) -> Value {
        let event = self.room.get_state_event(event_type.into(), state_key).await.unwrap();
        let Some(matrix_sdk::deserialized_responses::RawAnySyncOrStrippedState::Sync(event)) = event else {
            return Value::Null;
        };
        event.get_field("content").unwrap().unwrap_or_default()
    }

    /// Waits until Alice sees a state.
    async fn until_seen(&self, event_type: &str, state_key: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        self.alice
            .until(async |_| Some(self.seen(event_type, state_key).await).filter(|content| wanted(content)))
            .await
    }
}

async fn set(room: &Room, event_type: &str, state_key: &str, content: Value) -> String {
    let sent = Box::pin(room.send_state_event_raw(event_type, state_key, content).into_future()).await;
    sent.unwrap().event_id.to_string()
}

/// A membership of a call, of one device.
fn share(session: &str) -> Value {
    json!({ "m.calls": [{
        "m.call_id": "conf",
        "m.devices": [{ "device_id": "A", "session_id": session, "expires_ts": 9_999_999_999_999_u64, "feeds": [] }],
    }] })
}
