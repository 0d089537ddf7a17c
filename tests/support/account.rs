//! Two sides of the account's tests: the recorder's account under test, and people driving the SDK themselves.

use std::collections::HashSet;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant, SystemTime};

use matrix_call_recorder::adapters::matrix::{
    AccountError, AccountSettings, AccountState, AllowList, Delivery, Greeting, Greetings, MatrixAccount,
    RoomEvent,
};
use matrix_call_recorder::telemetry::Redactor;
use matrix_sdk::config::SyncSettings;
use matrix_sdk::reqwest;
use matrix_sdk::ruma::api::client::room::create_room::v3::Request as CreateRoom;
use matrix_sdk::ruma::events::AnyInitialStateEvent;
use matrix_sdk::ruma::serde::Raw;
use matrix_sdk::ruma::{RoomId, UserId};
use matrix_sdk::{Client, Room};
use recorder_actors::observe::Board;
use recorder_actors::ports::Clock;
use recorder_core::time::BootTime;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::synapse::Synapse;

/// Everything awaited comes well before this.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// One homeserver for all tests that do not disturb it.
pub static SYNAPSE: LazyLock<Synapse> = LazyLock::new(Synapse::start);

pub async fn synapse() -> &'static Synapse {
    tokio::task::spawn_blocking(|| &*SYNAPSE).await.expect("Synapse")
}

/// The machine's time and what a test adds to it.
pub struct TestClock {
    started: Instant,
    added: AtomicU64,
}

impl TestClock {
    pub fn advance(&self, by: Duration) {
        self.added.fetch_add(by.as_nanos() as u64, Ordering::Relaxed);
    }
}

impl Clock for TestClock {
    fn now(&self) -> BootTime {
        let passed = self.started.elapsed().as_nanos() as u64 + self.added.load(Ordering::Relaxed);
        BootTime(1_000_000_000_000 + passed)
    }

    fn utc_micros(&self) -> i64 {
        SystemTime::UNIX_EPOCH.elapsed().expect("after 1970").as_micros() as i64
    }
}

/// A registered account: `(user id, access token, device id)`, the password being `password`.
pub async fn register(url: &str, name: &str) -> (String, String, String) {
    let body = json!({ "username": name, "password": "password", "auth": { "type": "m.login.dummy" } });
    let answer = call(url, "POST", "_matrix/client/v3/register", None, body).await;
    let text = |key: &str| answer[key].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned();
    (text("user_id"), text("access_token"), text("device_id"))
}

pub async fn call(url: &str, method: &str, path: &str, token: Option<&str>, body: Value) -> Value {
    let method = method.parse().expect("a method");
    let mut request = reqwest::Client::new().request(method, format!("{url}/{path}")).body(body.to_string());
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    let answer = request.send().await.expect("an answer").bytes().await.expect("its body");
    serde_json::from_slice(&answer).expect("JSON")
}

/// Folder, settings and observation of one recorder, through its restarts.
pub struct Recorder {
    pub folder: tempfile::TempDir,
    pub settings: AccountSettings,
    pub board: Arc<Board>,
    pub clock: Arc<TestClock>,
}

impl Recorder {
    /// A registered account, with its password in a file.
    pub async fn new(url: &str, name: &str) -> Self {
        let (user, ..) = register(url, name).await;
        let mut recorder = Self::of(url, &user);
        recorder.settings.password_file = Some(recorder.secret("password", "password"));
        recorder
    }

    pub fn of(url: &str, user: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let settings = AccountSettings {
            homeserver: url.to_owned(),
            user: user.to_owned(),
            password_file: None,
            access_token_file: None,
            store: folder.path().join("store"),
            store_passphrase_file: None,
            recovery_key_file: None,
            state_dir: folder.path().join("state"),
            allow: AllowList::parse(&["@alice:localhost", "@alice2:localhost"]).expect("an allow-list"),
            called: String::new(),
            device_name: "Recorder".to_owned(),
            redactor: Redactor::default(),
        };
        let clock = Arc::new(TestClock { started: Instant::now(), added: AtomicU64::new(0) });
        Self { folder, settings, board: Board::new(), clock }
    }

    /// Somebody under a name of their own whom the recorder is allowed to listen to.
    pub async fn ally(&mut self, name: &str) -> Person {
        self.settings.allow = AllowList::parse(&[format!("@{name}:localhost")]).expect("an allow-list");
        Person::new(&self.settings.homeserver, name).await
    }

    pub fn secret(&self, name: &str, text: &str) -> std::path::PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, format!("{text}\n")).expect("a secret");
        path
    }

    pub async fn connect(&self) -> Result<Running, AccountError> {
        let two = Greeting { plain: "hello, I record".to_owned(), html: "hello, I <b>record</b>".to_owned() };
        let more = Greeting { plain: "hello everybody".to_owned(), html: String::new() };
        let greeting = Greetings { two, more };
        let clock: Arc<dyn Clock> = Arc::clone(&self.clock) as Arc<dyn Clock>;
        let connecting = MatrixAccount::connect(&self.settings, clock, Arc::clone(&self.board), greeting);
        let (account, deliveries) = Box::pin(connecting).await?;
        Ok(Running { account, deliveries, acknowledges: true, seen: HashSet::new() })
    }

    pub async fn start(&self) -> Running {
        let running = self.connect().await.expect("the recorder connects");
        running.until(|state| state.first_sync_done).await;
        running
    }

    pub async fn fails(&self) -> AccountError {
        self.connect().await.err().expect("the recorder must not connect")
    }

    pub fn session(&self) -> Value {
        let bytes = std::fs::read(self.settings.state_dir.join("session.json")).expect("a session");
        serde_json::from_slice(&bytes).expect("JSON")
    }
}

pub struct Running {
    pub account: MatrixAccount,
    pub deliveries: mpsc::Receiver<Delivery>,
    /// Whether finished batches are reported as handled.
    pub acknowledges: bool,
    seen: HashSet<String>,
}

impl Running {
    pub async fn until(&self, condition: impl FnMut(&AccountState) -> bool) -> AccountState {
        let mut state = self.account.state();
        let waiting = tokio::time::timeout(PATIENCE, state.wait_for(condition));
        waiting.await.expect("the state comes in time").expect("the account lives").clone()
    }

    /// The first delivery from here on that `pick` takes; finished batches are reported as handled meanwhile.
    pub async fn next<T>(&mut self, mut pick: impl FnMut(Delivery) -> Option<T>) -> T {
        tokio::time::timeout(PATIENCE, async {
            loop {
                let delivery = self.deliveries.recv().await.expect("the account lives");
                match delivery {
                    Delivery::BatchEnd { batch } if self.acknowledges => self.account.handled(batch),
                    _ => {}
                }
                if let Delivery::Event(event) = &delivery
                    && event.state_key.is_none()
                {
                    assert!(self.seen.insert(event.event_id.clone()), "{} came twice", event.event_id);
                }
                if let Some(picked) = pick(delivery) {
                    return picked;
                }
            }
        })
        .await
        .expect("a delivery in time")
    }

    /// The next event of a room that `wanted` accepts.
    pub async fn event(&mut self, mut wanted: impl FnMut(&RoomEvent) -> bool) -> RoomEvent {
        self.next(|delivery| match delivery {
            Delivery::Event(event) if wanted(&event) => Some(*event),
            _ => None,
        })
        .await
    }

    /// The next event of a call; fails when an event comes a second time.
    pub async fn call_event(&mut self) -> RoomEvent {
        self.event(|event| event.event_type.starts_with("m.call.")).await
    }

    /// The call events up to a hang-up, as `type call_id`.
    pub async fn call(&mut self) -> Vec<String> {
        let mut events = Vec::new();
        loop {
            let event = self.call_event().await;
            let id = event.content["call_id"].as_str().unwrap_or_default().to_owned();
            events.push(format!("{} {id}", event.event_type.trim_start_matches("m.call.")));
            if event.event_type == "m.call.hangup" {
                return events;
            }
        }
    }

    /// Takes what was delivered in the batch that is under way, its end included.
    pub async fn finish_batch(&mut self) {
        loop {
            if let Delivery::BatchEnd { batch } = self.deliveries.recv().await.expect("the account lives") {
                self.account.handled(batch);
                return;
            }
        }
    }

    /// A room of somebody's that the recorder has joined.
    pub async fn together(&self, person: &Person, encrypted: bool) -> Room {
        let user = self.account.user_id();
        let room = person.create_room(encrypted, &user).await;
        person.joined(&room, &user).await;
        // Others may see a join before it is answered.
        person.until(async |_| self.account.room_info(room.room_id().as_str()).await).await;
        room
    }

    pub async fn stop(self) {
        self.account.stop().await;
    }
}

/// Somebody else, on the SDK with a store in memory.
pub struct Person {
    pub client: Client,
}

impl Person {
    pub async fn log_in(url: &str, user: &str) -> Self {
        let client = Client::builder()
            .homeserver_url(url)
            .respect_login_well_known(false)
            .build()
            .await
            .expect("a client");
        let login = client.matrix_auth().login_username(user, "password");
        Box::pin(login.send()).await.expect("a login");
        let person = Self { client };
        person.sync().await;
        person
    }

    pub async fn new(url: &str, name: &str) -> Self {
        let (user, ..) = register(url, name).await;
        Self::log_in(url, &user).await
    }

    /// One exchange with the homeserver, without waiting for news.
    pub async fn sync(&self) {
        Box::pin(self.client.sync_once(SyncSettings::new().timeout(Duration::ZERO))).await.expect("a sync");
    }

    /// Syncs until something is so.
    pub async fn until<T>(&self, mut check: impl AsyncFnMut(&Self) -> Option<T>) -> T {
        tokio::time::timeout(PATIENCE, async {
            loop {
                if let Some(found) = check(self).await {
                    return found;
                }
                let poll = SyncSettings::new().timeout(Duration::from_millis(500));
                Box::pin(self.client.sync_once(poll)).await.expect("a sync");
            }
        })
        .await
        .expect("it becomes so in time")
    }

    pub async fn create_room(&self, encrypted: bool, invited: &str) -> Room {
        let mut request = CreateRoom::new();
        request.invite = vec![UserId::parse(invited).expect("a user id")];
        request.name = Some("The room".to_owned());
        if encrypted {
            let state = json!({
                "type": "m.room.encryption", "state_key": "", "content": { "algorithm": "m.megolm.v1.aes-sha2" },
            });
            request.initial_state =
                vec![Raw::<AnyInitialStateEvent>::from_json_string(state.to_string()).expect("JSON")];
        }
        let room = self.client.create_room(request).await.expect("a room");
        self.sync().await;
        room
    }

    /// Waits until a user is a member, and knows the user's devices.
    pub async fn joined(&self, room: &Room, user: &str) {
        let user = UserId::parse(user).expect("a user id");
        self.until(async |_| {
            let member = room.get_member(&user).await.ok().flatten()?;
            (member.membership().as_str() == "join").then_some(())
        })
        .await;
    }

    pub async fn send(&self, room: &RoomId, event_type: &str, content: Value) -> String {
        let room = self.client.get_room(room).expect("the room");
        let sent = Box::pin(room.send_raw(event_type, content).into_future()).await;
        sent.expect("the event is sent").response.event_id.to_string()
    }

    /// An invite, three candidates and a hang-up, each noted as [`Running::call`] notes them.
    pub async fn place_call(&self, room: &RoomId, call_id: &str) -> Vec<String> {
        let mut sent = Vec::new();
        for kind in ["invite", "candidates", "candidates", "candidates", "hangup"] {
            let content = json!({ "call_id": call_id, "party_id": "P", "version": "1", "lifetime": 60_000 });
            self.send(room, &format!("m.call.{kind}"), content).await;
            sent.push(format!("{kind} {call_id}"));
        }
        sent
    }
}

pub fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).expect("the file").permissions().mode() & 0o777
}
