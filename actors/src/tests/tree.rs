//! A tree whose world is made of fakes.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix::Addr;
use recorder_core::call::{CallDesk, DeskSettings, RoomEvent};
use recorder_core::ids::Generation;
use recorder_core::manifest::Manifest;
use recorder_core::media::Codec;
use recorder_core::restart::RestartTerms;
use recorder_core::time::BootTime;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::rooms::FakeRooms;
use super::support::{
    CALLER, FakeLiveCalls, FakeMedia, FakeSegments, FakeSessions, FakeSignalling, ROOM, TestClock, until,
};
use crate::observe::{ActorKind, ActorSnapshot, ActorState, Board};
use crate::ports::{Clock, ConnectionState, DiskLevel, RoomPowers, RoomRecord};
use crate::supervise::{Check, Link, Slot};
use crate::supervisor::{Deliver, Delivery, DeviceDelivery, ShutDown, SupervisorActor, SupervisorShared};
use crate::testing::faulty_world;
use crate::world::{GroupSettings, Numbers, TreeSettings, World};

/// Which value of an actor runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    pub address: u64,
    pub generation: Generation,
}

/// Address and generation of every actor, by its path.
pub type Generations = HashMap<String, Life>;

pub fn generations(board: &Board) -> Generations {
    let life = |actor: &ActorSnapshot| Life { address: actor.address, generation: actor.generation };
    board.actors().iter().map(|actor| (actor.path.clone(), life(actor))).collect()
}

/// A whole tree.
pub struct Tree {
    pub board: Arc<Board>,
    pub media: Arc<FakeMedia>,
    pub segments: Arc<FakeSegments>,
    pub signalling: Arc<FakeSignalling>,
    pub rooms: Arc<FakeRooms>,
    pub sessions: FakeSessions,
    pub live_calls: Arc<FakeLiveCalls>,
    pub disk: watch::Sender<DiskLevel>,
    /// How many have joined the room, if that is known.
    pub members: Mutex<Option<u64>>,
    pub shared: Arc<SupervisorShared>,
    pub slot: Arc<Slot<SupervisorActor>>,
    /// What the rooms say who may do.
    pub powers: Mutex<RoomPowers>,
    /// Who speaks has left the room meanwhile.
    pub gone: AtomicBool,
    clock: Arc<dyn Clock>,
}

impl Tree {
    pub fn start() -> Self {
        Self::with_calls(20)
    }

    pub fn with_calls(max_calls: usize) -> Self {
        Self::with(max_calls, HashMap::new())
    }

    /// One that an earlier process left this of its room.
    pub fn remembering(record: RoomRecord) -> Self {
        Self::with(20, HashMap::from([(ROOM.to_owned(), record)]))
    }

    fn with(max_calls: usize, remembered: HashMap<String, RoomRecord>) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(TestClock(tokio::time::Instant::now()));
        let sessions = FakeSessions { clock: Some(Arc::clone(&clock)), ..FakeSessions::default() };
        Self::of(max_calls, clock, sessions, remembered)
    }

    /// The next process, on the same disk, once this one has ended.
    pub fn next_process(&self) -> Self {
        let records = self.rooms.records.lock().unwrap().iter().cloned().collect();
        Self::of(20, Arc::clone(&self.clock), self.sessions.clone(), records)
    }

    fn of(
        max_calls: usize,
        clock: Arc<dyn Clock>,
        sessions: FakeSessions,
        remembered: HashMap<String, RoomRecord>,
    ) -> Self {
        let board = Board::new();
        let media = Arc::new(FakeMedia::default());
        let segments = Arc::new(FakeSegments::default());
        let signalling = Arc::new(FakeSignalling::default());
        let rooms = Arc::new(FakeRooms::default());
        let live_calls = Arc::new(FakeLiveCalls::default());
        let (disk, level) = watch::channel(DiskLevel::Plenty);
        let world = Arc::new(faulty_world(World {
            settings: TreeSettings {
                user: "@bot:hs".into(),
                device: "BOT".into(),
                restart: RestartTerms::default(),
                group: GroupSettings { max_calls, ..GroupSettings::default() },
            },
            clock: Arc::clone(&clock),
            listening: clock.now(),
            media: Arc::clone(&media) as _,
            segments: Arc::clone(&segments) as _,
            signalling: Arc::new(Arc::clone(&signalling)),
            rooms: Arc::new(Arc::clone(&rooms)),
            memory: Arc::new(Arc::clone(&rooms)),
            sessions: Arc::new(sessions.clone()),
            live_calls: Arc::new(Arc::clone(&live_calls)),
            disk: level,
            board: Arc::clone(&board),
            numbers: Numbers::default(),
        }));
        let desk = CallDesk::new(DeskSettings {
            user: "@bot:hs".into(),
            party: "BOT".into(),
            answer: true,
            max_calls,
        });
        let shared = SupervisorShared::new(&world, desk, remembered);
        let root = Arc::<Link>::default();
        let slot = Slot::new(&world, &root, "supervisor".into(), ActorKind::Supervisor, "bot".into());
        let tree = Self {
            board,
            media,
            segments,
            signalling,
            rooms,
            sessions,
            live_calls,
            disk,
            members: Mutex::default(),
            shared,
            slot,
            powers: Mutex::new(RoomPowers { default: 50, own: 50, call_member: 50, ..RoomPowers::default() }),
            gone: AtomicBool::new(false),
            clock,
        };
        tree.start_supervisor();
        tree
    }

    fn start_supervisor(&self) {
        let (shared, slot) = (Arc::clone(&self.shared), Arc::clone(&self.slot));
        self.slot.start(move |_| SupervisorActor::new(shared, slot));
    }

    /// What the daemon does about its root.
    pub fn mind_root(&self) {
        if self.slot.check(self.clock.now()) == Check::RestartNow {
            self.start_supervisor();
        }
    }

    /// The same from now on, as long as the system runs.
    pub fn mind_on(&self) {
        let (shared, slot, clock) =
            (Arc::clone(&self.shared), Arc::clone(&self.slot), Arc::clone(&self.clock));
        actix::spawn(async move {
            loop {
                if slot.check(clock.now()) == Check::RestartNow {
                    let (shared, inner) = (Arc::clone(&shared), Arc::clone(&slot));
                    slot.start(move |_| SupervisorActor::new(shared, inner));
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
    }

    /// Waits for a supervisor that is being started again, as the daemon does.
    pub async fn supervisor(&self) -> Addr<SupervisorActor> {
        until("a supervisor", || self.slot.addr().is_some()).await;
        self.slot.addr().unwrap()
    }

    /// One event, as a batch of its own. Says whether the supervisor survived it.
    pub async fn event(&self, event_type: &str, sender: &str, content: Value) -> bool {
        self.event_of(event_type, sender, None, content).await
    }

    pub async fn event_of(
        &self,
        event_type: &str,
        sender: &str,
        state_key: Option<&str>,
        content: Value,
    ) -> bool {
        self.event_in(ROOM, event_type, sender, state_key, content).await
    }

    pub async fn event_in(
        &self,
        room: &str,
        event_type: &str,
        sender: &str,
        state_key: Option<&str>,
        content: Value,
    ) -> bool {
        let mut delivery = self.delivery(event_type, sender, state_key, content);
        room.clone_into(&mut delivery.event.room);
        let Some(addr) = self.slot.addr() else { return false };
        addr.send(Deliver { events: vec![delivery], batch_over: true, ..Deliver::default() }).await.is_ok()
    }

    /// A message that was sent a while ago.
    pub async fn said_ago(&self, ago: Duration, sender: &str, text: &str) {
        let content = json!({"msgtype": "m.text", "body": text});
        let mut delivery = self.delivery("m.room.message", sender, None, content);
        delivery.event.age = ago;
        let message = Deliver { events: vec![delivery], batch_over: true, ..Deliver::default() };
        self.slot.addr().expect("a supervisor").send(message).await.expect("it lives");
    }

    /// State of the room in one batch.
    pub async fn state_at_once(&self, state: Vec<(&str, &str, &str, Value)>) {
        let delivery = |(kind, sender, key, content): (&str, &str, &str, _)| {
            self.delivery(kind, sender, Some(key), content)
        };
        let events = state.into_iter().map(delivery).collect();
        let message = Deliver { events, batch_over: true, ..Deliver::default() };
        self.slot.addr().expect("a supervisor").send(message).await.expect("it lives");
    }

    /// Events of the caller in one batch.
    pub async fn events_at_once(&self, event_type: &str, contents: Vec<Value>) {
        self.batch(contents.into_iter().map(|content| (event_type, content)).collect()).await;
    }

    /// Events (type, content) of the caller in one batch.
    pub async fn batch(&self, events: Vec<(&str, Value)>) {
        let deliveries =
            events.into_iter().map(|(event_type, content)| self.delivery(event_type, CALLER, None, content));
        let message = Deliver { events: deliveries.collect(), batch_over: true, ..Deliver::default() };
        self.slot.addr().expect("a supervisor").send(message).await.expect("it lives");
    }

    /// State events (type, sender, key, content) in one batch.
    pub async fn state_events(&self, states: Vec<(&str, &str, &str, Value)>) {
        let deliveries = states
            .into_iter()
            .map(|(event_type, sender, key, content)| self.delivery(event_type, sender, Some(key), content));
        let message = Deliver { events: deliveries.collect(), batch_over: true, ..Deliver::default() };
        self.slot.addr().expect("a supervisor").send(message).await.expect("it lives");
    }

    /// A call event from a device to ours.
    pub async fn to_device(&self, event_type: &str, sender: &str, content: Value) {
        let device = DeviceDelivery {
            sender: sender.into(),
            event_type: event_type.into(),
            content,
            received: self.clock.now(),
        };
        let message = Deliver { devices: vec![device], batch_over: true, ..Deliver::default() };
        // One that fails at the end of the batch has handled the event.
        let _ = self.supervisor().await.send(message).await;
    }

    pub fn now(&self) -> BootTime {
        self.clock.now()
    }

    /// Milliseconds since 1970.
    pub fn utc_ms(&self) -> i64 {
        self.clock.utc_micros() / 1_000
    }

    fn delivery(
        &self,
        event_type: &str,
        sender: &str,
        state_key: Option<&str>,
        mut content: Value,
    ) -> Delivery {
        if event_type.starts_with("m.call") {
            if content.get("version").is_none() {
                content["version"] = json!("1");
            }
            // Version 0 knows no parties.
            if content.get("party_id").is_none() && content["version"] != 0 {
                content["party_id"] = json!("ADA");
            }
            if content.get("call_id").is_none() {
                content["call_id"] = json!("c1");
            }
        }
        let event = RoomEvent {
            room: ROOM.into(),
            event_id: format!("${event_type}"),
            sender: sender.into(),
            event_type: event_type.into(),
            content,
            received: self.clock.now(),
            age: Duration::ZERO,
        };
        Delivery {
            event,
            state_key: state_key.map(str::to_owned),
            allowed: sender == CALLER,
            joined: !self.gone.load(Ordering::Relaxed),
            members: *self.members.lock().unwrap(),
            origin_ts_ms: self.clock.utc_micros() / 1_000,
            powers: Some(self.powers.lock().unwrap().clone()),
        }
    }

    pub async fn invite(&self) {
        let metadata = json!({"user": {"purpose": "m.usermedia"}, "screen": {"purpose": "m.screenshare"}});
        let content = json!({"offer": {"type": "offer", "sdp": "v=0"}, "lifetime": 60_000,
            "sdp_stream_metadata": metadata});
        self.event("m.call.invite", CALLER, content).await;
    }

    /// A call with microphone (mid 0) and camera (mid 1) that is being recorded.
    pub async fn recorded_call() -> Self {
        Self::start().recorded().await
    }

    /// As [`Self::recorded_call`], of this tree.
    pub async fn recorded(self) -> Self {
        let tree = self;
        tree.invite().await;
        until("the answer", || tree.signalling.count("m.call.answer") == 1).await;
        let (microphone, camera) =
            (tree.media.media("0", "user", Codec::Opus), tree.media.media("1", "user", Codec::Vp8));
        tree.media.change(|facts| {
            facts.state = ConnectionState::Connected;
            facts.media = vec![microphone, camera];
        });
        until("both segments", || tree.segments.running().len() == 2).await;
        tree
    }

    pub async fn hang_up(&self) {
        self.event("m.call.hangup", CALLER, json!({"reason": "user_hangup"})).await;
        until("the call's end", || *self.shared.running().borrow() == 0).await;
    }

    pub fn shut_down(&self) {
        if let Some(addr) = self.slot.addr() {
            addr.do_send(ShutDown);
        }
    }

    pub fn generations(&self) -> Generations {
        generations(&self.board)
    }

    pub fn state_of(&self, path: &str) -> Option<ActorState> {
        self.board.actor(path).map(|actor| actor.state)
    }

    /// Whoever runs the recorder was told this.
    pub fn happened(&self, text: &str) -> bool {
        self.board.happenings().iter().any(|what| what.text.contains(text))
    }

    /// `count` and `where` of the drops that the manifest tells of.
    pub fn drops(&self) -> Vec<(u64, String)> {
        let manifest = serde_json::to_value(self.manifest()).unwrap();
        let events = manifest["events"].as_array().unwrap().iter();
        let drops = events.filter(|event| event["kind"] == "datagrams_dropped").map(|event| &event["detail"]);
        drops
            .map(|drop| (drop["count"].as_u64().unwrap(), drop["where"].as_str().unwrap().to_owned()))
            .collect()
    }

    /// How often the manifest tells of an event.
    pub fn events(&self, kind: &str) -> usize {
        let manifest = serde_json::to_value(self.manifest()).unwrap();
        manifest["events"].as_array().unwrap().iter().filter(|event| event["kind"] == kind).count()
    }

    /// The states of the track of one kind of source, and whether each has ended.
    pub fn states(&self, source: &str) -> Vec<(String, bool)> {
        let manifest = serde_json::to_value(self.manifest()).unwrap();
        let tracks = manifest["participants"][0]["tracks"].as_array().unwrap();
        let track = tracks.iter().find(|track| track["source"] == source).unwrap();
        let told = |state: &Value| (state["state"].as_str().unwrap().to_owned(), !state["to_s"].is_null());
        track["states"].as_array().unwrap().iter().map(told).collect()
    }

    /// The newest `session.json`.
    pub fn manifest(&self) -> Manifest {
        let snapshots = self.sessions.snapshots.lock().unwrap();
        serde_json::from_slice(snapshots.last().expect("a snapshot was written")).unwrap()
    }
}

pub const CALL: &str = "supervisor/call-1";
pub const PEER: &str = "supervisor/call-1/p1";
pub const MICROPHONE: &str = "supervisor/call-1/p1/p1-microphone-1";
pub const CAMERA: &str = "supervisor/call-1/p1/p1-camera-1";
