//! The daemon's own recording path as a target: tree, media loop, pumps, lanes, sessions, disk. Only the homeserver is
//! left out: invites are handed to the supervisor, and answers are taken where they would be sent.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use recorder_actors::observe::{ActorKind, Board};
use recorder_actors::ports::{
    LiveCall, LiveCalls, RemoteCandidate, RoomFacts, Rooms, Signalling, SignallingError, TurnServer, Urgency,
};
use recorder_actors::supervise::{Link, Slot};
use recorder_actors::supervisor::{Deliver, Delivery, SupervisorActor, SupervisorShared};
use recorder_actors::world::{GroupSettings, Numbers, TreeSettings, World};
use recorder_core::call::{Announcement, CallDesk, DeskSettings, RoomEvent};
use recorder_core::manifest::Manifest;
use recorder_core::time::BootTime;
use serde_json::{Value, json};

use super::answers::{Answers, invite};
use super::nowhere::Nowhere;
use super::{BenchError, BenchTarget, Sample, TargetSummary, Usage};
use crate::adapters::disk;
use crate::adapters::media::MediaSettings;
use crate::adapters::sessions::LeftOver;
use crate::recording::RecordingPath;

pub(super) const CALLER: &str = "@caller:bench";
const RECORDER: &str = "@recorder:bench";
const DEVICE: &str = "BENCH";
/// How long files may take to be final.
const FINISH_LIMIT: Duration = Duration::from_secs(120);

/// Takes what would go to a homeserver.
struct Loopback {
    answers: Arc<Answers>,
}

impl Signalling for Loopback {
    fn send(
        &self,
        room: String,
        event_type: String,
        content: Value,
        _: Urgency,
        _: Duration,
    ) -> BoxFuture<'static, Result<(), SignallingError>> {
        self.answers.take(&room, &event_type, &content);
        async { Ok(()) }.boxed()
    }

    fn announce(
        &self,
        _: String,
        _: Announcement,
        _: Duration,
    ) -> BoxFuture<'static, Result<(), SignallingError>> {
        async { Ok(()) }.boxed()
    }

    fn turn_servers(&self) -> BoxFuture<'static, Vec<TurnServer>> {
        async { Vec::new() }.boxed()
    }

    fn room(&self, room: String) -> BoxFuture<'static, RoomFacts> {
        async { RoomFacts { name: room, encrypted: false } }.boxed()
    }

    fn display_name(&self, _: String, _: String) -> BoxFuture<'static, Option<String>> {
        async { None }.boxed()
    }
}

/// Nothing outlives a bench.
struct Forgotten;

impl LiveCalls for Forgotten {
    fn add(&self, _: LiveCall) -> BoxFuture<'static, ()> {
        async {}.boxed()
    }

    fn remove(&self, _: String, _: String) -> BoxFuture<'static, ()> {
        async {}.boxed()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// See the module. Make it on an actix system; the tree lives on that thread.
pub struct RecordingTarget {
    path: RecordingPath,
    directory: PathBuf,
    shared: Arc<SupervisorShared>,
    slot: Arc<Slot<SupervisorActor>>,
    answers: Arc<Answers>,
    running: Mutex<Vec<usize>>,
    told: Mutex<HashSet<PathBuf>>,
}

impl RecordingTarget {
    /// Records into `directory`, on a free port of the loopback address. What is sent into rooms and to devices goes to
    /// `rooms`.
    pub fn start(directory: &Path, rooms: Arc<dyn Rooms>) -> Result<Arc<Self>, BenchError> {
        let target = |error: &dyn std::fmt::Display| BenchError::Target(error.to_string());
        let folder = disk::take_folder(directory).map_err(|error| target(&error))?;
        let media = MediaSettings {
            bind: std::net::Ipv4Addr::LOCALHOST.into(),
            include_loopback: true,
            max_connections: 10_000,
            ..MediaSettings::default()
        };
        let path = RecordingPath::start(directory, 0, media, Board::new(), folder, LeftOver::default())
            .map_err(|error| target(&error))?;
        let answers = Arc::<Answers>::default();
        let world = Arc::new(World {
            settings: TreeSettings {
                user: RECORDER.to_owned(),
                device: DEVICE.to_owned(),
                restart: recorder_core::restart::RestartTerms::default(),
                group: GroupSettings { max_calls: 10_000, ..GroupSettings::default() },
            },
            clock: Arc::clone(&path.clock),
            listening: path.clock.now(),
            media: Arc::clone(&path.media) as _,
            segments: Arc::clone(&path.pumps) as _,
            signalling: Arc::new(Loopback { answers: Arc::clone(&answers) }),
            rooms,
            memory: Arc::new(Nowhere),
            sessions: Arc::clone(&path.sessions) as _,
            live_calls: Arc::new(Forgotten),
            disk: path.disk.clone(),
            board: Arc::clone(&path.board),
            numbers: Numbers::default(),
        });
        let desk = CallDesk::new(DeskSettings {
            user: RECORDER.to_owned(),
            party: DEVICE.to_owned(),
            answer: true,
            max_calls: 10_000,
        });
        let shared = SupervisorShared::new(&world, desk, HashMap::new());
        let root = Arc::<Link>::default();
        let slot =
            Slot::new(&world, &root, "supervisor".to_owned(), ActorKind::Supervisor, RECORDER.to_owned());
        let (inner, supervised) = (Arc::clone(&slot), Arc::clone(&shared));
        slot.start(move |_| SupervisorActor::new(supervised, inner));
        Ok(Arc::new(Self {
            path,
            directory: directory.to_path_buf(),
            shared,
            slot,
            answers,
            running: Mutex::default(),
            told: Mutex::default(),
        }))
    }

    /// Ends the recording threads. Blocks.
    pub fn shut_down(&self) {
        self.path.shut_down();
    }

    fn tell(&self, call: usize, event_type: &str, mut content: Value) -> BoxFuture<'static, bool> {
        content["call_id"] = json!(format!("bench{call}"));
        content["party_id"] = json!("CALLER");
        content["version"] = json!("1");
        let event = self.event(&room(call), event_type, CALLER, content);
        let events = vec![Delivery {
            event,
            state_key: None,
            allowed: true,
            joined: true,
            members: None,
            origin_ts_ms: 0,
            powers: None,
        }];
        self.deliver(Deliver { events, batch_over: true, ..Deliver::default() })
    }

    pub(super) fn event(&self, room: &str, event_type: &str, sender: &str, content: Value) -> RoomEvent {
        RoomEvent {
            room: room.to_owned(),
            event_id: format!("${room}{event_type}"),
            sender: sender.to_owned(),
            event_type: event_type.to_owned(),
            content,
            received: self.now(),
            age: Duration::ZERO,
        }
    }

    /// False if there is no supervisor to take it.
    pub(super) fn deliver(&self, message: Deliver) -> BoxFuture<'static, bool> {
        let addr = self.slot.addr();
        async move {
            match addr {
                Some(addr) => addr.send(message).await.is_ok(),
                None => false,
            }
        }
        .boxed()
    }

    pub(super) fn now(&self) -> BootTime {
        self.path.clock.now()
    }

    pub(super) fn utc_ms(&self) -> i64 {
        self.path.clock.utc_micros() / 1_000
    }

    pub(super) fn sample(&self) -> BoxFuture<'static, Result<Sample, BenchError>> {
        let packets = self.path.board.totals.packets_received.load(Ordering::Relaxed);
        async move { Ok(Sample { usage: Usage::own()?, packets }) }.boxed()
    }

    /// Waits until all calls have ended, and says what became of them.
    pub(super) async fn summary(&self) -> Result<TargetSummary, BenchError> {
        let mut running = self.shared.running();
        let ended = tokio::time::timeout(FINISH_LIMIT, running.wait_for(|calls| *calls == 0)).await.is_ok();
        let mut summary = TargetSummary { ledgers_balance: Some(true), ..TargetSummary::default() };
        if !ended {
            summary.problems.push("some calls did not end".to_owned());
        }
        for (folder, manifest) in self.new_sessions() {
            match manifest {
                Some(manifest) => summarise(&manifest, &mut summary),
                None => summary.problems.push(format!("{} has no session.json", folder.display())),
            }
            summary.sessions.push(folder);
        }
        Ok(summary)
    }

    /// Sessions not told of yet.
    fn new_sessions(&self) -> Vec<(PathBuf, Option<Manifest>)> {
        let mut told = lock(&self.told);
        let rooms = std::fs::read_dir(&self.directory).into_iter().flatten().flatten();
        let folders = rooms.flat_map(|room| std::fs::read_dir(room.path()).into_iter().flatten().flatten());
        folders
            .map(|folder| folder.path())
            .filter(|folder| told.insert(folder.clone()))
            .map(|folder| {
                let manifest = std::fs::read(folder.join("session.json"))
                    .ok()
                    .and_then(|json| serde_json::from_slice(&json).ok());
                (folder, manifest)
            })
            .collect()
    }
}

fn room(call: usize) -> String {
    format!("!bench{call}:bench")
}

impl BenchTarget for Arc<RecordingTarget> {
    fn name(&self) -> String {
        "the recorder".to_owned()
    }

    fn answer(&self, call: usize, offer: String) -> BoxFuture<'static, Result<String, BenchError>> {
        let answer = self.answers.expect(room(call));
        lock(&self.running).push(call);
        let delivered = self.tell(call, "m.call.invite", invite(&offer));
        async move {
            delivered.await;
            answer.sdp(call).await
        }
        .boxed()
    }

    fn add_candidate(&self, call: usize, candidate: RemoteCandidate) {
        tokio::spawn(self.tell(call, "m.call.candidates", candidates(candidate)));
    }

    fn sample(&self) -> BoxFuture<'static, Result<Sample, BenchError>> {
        RecordingTarget::sample(self)
    }

    fn finish(&self) -> BoxFuture<'static, Result<TargetSummary, BenchError>> {
        let target = Arc::clone(self);
        async move {
            let calls = std::mem::take(&mut *lock(&target.running));
            for call in calls {
                target.tell(call, "m.call.hangup", json!({"reason": "user_hangup"})).await;
            }
            target.summary().await
        }
        .boxed()
    }
}

/// Content of an `m.call.candidates`.
pub(super) fn candidates(candidate: RemoteCandidate) -> Value {
    json!({"candidates": [{"candidate": candidate.candidate, "sdpMid": candidate.mid,
        "sdpMLineIndex": candidate.m_line}]})
}

fn summarise(manifest: &Manifest, summary: &mut TargetSummary) {
    if !manifest.state.is(recorder_core::manifest::SessionState::Complete) {
        summary.problems.push(format!("session {} is not complete", manifest.session_id));
    }
    for track in manifest.participants.iter().flat_map(|participant| &participant.tracks) {
        summary.streams += 1;
        for segment in &track.segments {
            let ledger = &segment.ledger;
            summary.received += ledger.received;
            summary.recovered += ledger.recovered;
            summary.lost += ledger.lost;
            summary.dropped_by_us += ledger.dropped_by_us;
            if !ledger.balances() {
                summary.ledgers_balance = Some(false);
                summary.problems.push(format!("the ledger of {} does not balance", segment.file));
            }
        }
    }
}
