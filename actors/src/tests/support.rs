//! The fakes a tree's world is made of.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use recorder_core::call::Announcement;
use recorder_core::ids::{ConnectionId, Mid, StreamId};
use recorder_core::manifest::{Record, SegmentOpened, SegmentProgress};
use recorder_core::media::{Codec, MediaKind, RtpPacket, Skipped};
use recorder_core::time::BootTime;
use serde_json::{Value, json};
use tokio::sync::watch;

pub use super::sessions::FakeSessions;
pub use super::tree::*;
use crate::ports::*;
use crate::ring::{StreamInfo, TrackRing};
use crate::segment::{
    Failure, SegmentControl, SegmentFacts, SegmentHandle, SegmentOrder, SegmentPhase, SegmentPlane,
};
use crate::supervise::panic_text;
use crate::testing::{Point, visit};

pub const ROOM: &str = "!room:hs";
pub const CALLER: &str = "@ada:hs";

/// Runs a test on an actix system whose time is paused: it jumps to the next timer when nothing is left to do.
pub fn on_paused_time(test: impl Future<Output = ()>) {
    let system = actix::System::with_tokio_rt(|| {
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap()
    });
    system.block_on(test);
}

/// Waits until `what` holds, in the tree's own time; fails after a minute of it.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..6_000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never came to be: {what}");
}

/// The tree's own time.
pub struct TestClock(pub tokio::time::Instant);

impl Clock for TestClock {
    fn now(&self) -> BootTime {
        BootTime(1_000_000_000_000) + self.0.elapsed()
    }

    fn utc_micros(&self) -> i64 {
        1_700_000_000_000_000 + self.0.elapsed().as_micros() as i64
    }
}

/// Connections whose facts the test sets.
#[derive(Default)]
pub struct FakeMedia {
    connections: Mutex<HashMap<ConnectionId, watch::Sender<Arc<ConnectionFacts>>>>,
    pub closed: Mutex<Vec<ConnectionId>>,
    pub offers: Mutex<Vec<String>>,
    pub candidates: AtomicU64,
    /// Offers are never answered.
    pub stuck: std::sync::atomic::AtomicBool,
    /// Later offers are answered when they are let go, all at once.
    pub slow: std::sync::atomic::AtomicBool,
    pub let_go: Arc<tokio::sync::Notify>,
    streams: AtomicU64,
}

impl FakeMedia {
    /// A connection was accepted and is not closed.
    pub fn is_open(&self) -> bool {
        !self.connections.lock().unwrap().is_empty() && !self.all_closed()
    }

    pub fn all_closed(&self) -> bool {
        let closed = self.closed.lock().unwrap();
        self.connections.lock().unwrap().keys().all(|id| closed.contains(id))
    }

    /// Of all connections.
    pub fn rings(&self) -> Vec<Arc<TrackRing>> {
        let connections = self.connections.lock().unwrap();
        let media = connections.values().flat_map(|facts| facts.borrow().media.clone());
        media.flat_map(|media| media.streams).collect()
    }

    /// Changes the facts of the only connection.
    pub fn change(&self, change: impl FnOnce(&mut ConnectionFacts)) {
        let connections = self.connections.lock().unwrap();
        let sender = connections.values().last().expect("a connection was accepted");
        let mut facts = ConnectionFacts::clone(&sender.borrow());
        change(&mut facts);
        sender.send_replace(Arc::new(facts));
    }

    /// Changes the facts of the connection that was made as the `number`th, from 0.
    pub fn change_at(&self, number: usize, change: impl FnOnce(&mut ConnectionFacts)) {
        let connections = self.connections.lock().unwrap();
        let mut ids: Vec<_> = connections.keys().copied().collect();
        ids.sort();
        let sender = &connections[&ids[number]];
        let mut facts = ConnectionFacts::clone(&sender.borrow());
        change(&mut facts);
        sender.send_replace(Arc::new(facts));
    }

    pub fn stream(&self, mid: &str, codec: Codec) -> Arc<TrackRing> {
        let id = self.streams.fetch_add(1, Ordering::Relaxed) + 1;
        TrackRing::new(StreamInfo {
            id: StreamId(id),
            connection: ConnectionId(1),
            mid: mid.into(),
            ssrc: id as u32,
            kind: codec.kind(),
            codec,
            clock_rate: codec.clock_rate(),
            channels: 2,
        })
    }

    /// A stream with one packet in its ring.
    pub fn stream_with_media(&self, mid: &str, codec: Codec) -> Arc<TrackRing> {
        let ring = self.stream(mid, codec);
        ring.push_packet(RtpPacket {
            arrival: BootTime(1_000_000_000_000),
            ingress: 1,
            skipped: Skipped::default(),
            ssrc: ring.info.ssrc,
            payload_type: 111,
            sequence: 1,
            timestamp: 0,
            marker: false,
            recovered: false,
            rotation: None,
            payload: vec![1, 2, 3],
        });
        ring
    }

    pub fn media(&self, mid: &str, msid: &str, codec: Codec) -> RemoteMedia {
        RemoteMedia {
            mid: mid.into(),
            kind: codec.kind(),
            direction: Direction::SendRecv,
            msid_stream: Some(msid.into()),
            codecs: vec![codec],
            streams: vec![self.stream(mid, codec)],
        }
    }
}

impl MediaPlane for FakeMedia {
    fn accept(
        &self,
        id: ConnectionId,
        offer: String,
        _turn: Vec<TurnServer>,
        _tile: Option<Tile>,
    ) -> BoxFuture<'static, Result<Connected, MediaError>> {
        if self.stuck.load(Ordering::Relaxed) {
            return futures_util::future::pending().boxed();
        }
        if offer == "one too many" {
            return async { Err(MediaError::Full(2)) }.boxed();
        }
        if offer == "broken" {
            return async { Err(MediaError::BadOffer("not SDP".into())) }.boxed();
        }
        let facts = ConnectionFacts {
            id,
            state: ConnectionState::Connecting,
            reason: None,
            media: Vec::new(),
            round_trip: None,
            ice_restarts: 0,
            first_packet: None,
            held_drops: 0,
        };
        let (sender, receiver) = watch::channel(Arc::new(facts));
        self.connections.lock().unwrap().insert(id, sender);
        async move { Ok((Answer { sdp: "answer".into() }, receiver)) }.boxed()
    }

    fn dial(
        &self,
        _: ConnectionId,
        _: Vec<TurnServer>,
        _: Tile,
        _: bool,
    ) -> BoxFuture<'static, Result<Connected, MediaError>> {
        Box::pin(async { Err(MediaError::Stopped) })
    }

    fn answered(&self, _: ConnectionId, _: String) -> BoxFuture<'static, Result<(), MediaError>> {
        Box::pin(async { Err(MediaError::Stopped) })
    }

    fn renegotiate(&self, _: ConnectionId, offer: String) -> BoxFuture<'static, Result<Answer, MediaError>> {
        self.offers.lock().unwrap().push(offer);
        if self.stuck.load(Ordering::Relaxed) {
            return futures_util::future::pending().boxed();
        }
        let number = self.offers.lock().unwrap().len();
        let answer = Ok(Answer { sdp: format!("later answer {number}") });
        if self.slow.load(Ordering::Relaxed) {
            let mut let_go = Box::pin(self.let_go.clone().notified_owned());
            let_go.as_mut().enable();
            return async move {
                let_go.await;
                answer
            }
            .boxed();
        }
        async { answer }.boxed()
    }

    fn add_candidates(&self, _: ConnectionId, list: Vec<RemoteCandidate>) {
        self.candidates.fetch_add(list.len() as u64, Ordering::Relaxed);
    }

    fn request_key_frame(&self, _: ConnectionId, _: Mid, _: StreamId) {}

    fn close(&self, id: ConnectionId) {
        let mut closed = self.closed.lock().unwrap();
        if !closed.contains(&id) {
            closed.push(id);
            if let Some(sender) = self.connections.lock().unwrap().get(&id) {
                let mut facts = ConnectionFacts::clone(&sender.borrow());
                facts.state = ConnectionState::Closed;
                for media in &facts.media {
                    media.streams.iter().for_each(|ring| ring.end());
                }
                sender.send_replace(Arc::new(facts));
            }
        }
    }

    fn heartbeat(&self) -> BootTime {
        BootTime(1)
    }
}

pub struct FakeSegment {
    pub mid: Mid,
    pub track: String,
    pub because: String,
    pub control: Arc<SegmentControl>,
    pub stream: StreamId,
    told: watch::Sender<Arc<SegmentFacts>>,
}

impl FakeSegment {
    pub fn set(&self, phase: SegmentPhase) {
        let mut facts = SegmentFacts::clone(&self.told.borrow());
        facts.phase = phase;
        self.told.send_replace(Arc::new(facts));
    }

    /// Pictures of another size come.
    pub fn resize(&self, width: u32, height: u32) {
        let mut facts = SegmentFacts::clone(&self.told.borrow());
        (facts.width, facts.height) = (Some(width), Some(height));
        self.told.send_replace(Arc::new(facts));
    }

    /// Its first frame has come.
    pub fn write(&self) {
        let mut facts = SegmentFacts::clone(&self.told.borrow());
        facts.phase = SegmentPhase::Writing;
        facts.files = 1;
        self.told.send_replace(Arc::new(facts));
    }

    pub fn files(&self) -> u32 {
        self.told.borrow().files
    }

    pub fn phase(&self) -> SegmentPhase {
        self.told.borrow().phase.clone()
    }
}

/// Segments that close when they are told to.
#[derive(Default)]
pub struct FakeSegments {
    pub all: Mutex<Vec<Arc<FakeSegment>>>,
    pub fail_all: std::sync::atomic::AtomicBool,
    /// No frame comes: segments that begin write no file.
    pub silent: std::sync::atomic::AtomicBool,
}

impl FakeSegments {
    pub fn running(&self) -> Vec<Arc<FakeSegment>> {
        self.all.lock().unwrap().iter().filter(|segment| !segment.phase().is_over()).cloned().collect()
    }

    pub fn of(&self, mid: &str) -> Vec<Arc<FakeSegment>> {
        self.all.lock().unwrap().iter().filter(|segment| segment.mid.as_str() == mid).cloned().collect()
    }

    pub fn reasons(&self, mid: &str) -> Vec<String> {
        self.of(mid).iter().map(|segment| segment.because.clone()).collect()
    }
}

/// Tells the session of a file of 10 frames and 1,000 bytes.
fn write(order: &SegmentOrder) {
    let (names, codec) = (&order.names, order.ring.info.codec);
    let file = order.session.name_segment(&names.participant, names.source, codec);
    let start_s = order.session.now_s();
    order.session.tell(Record::SegmentOpened(SegmentOpened {
        track: names.track.clone(),
        file: file.clone(),
        codec: codec.into(),
        start_s,
        opened_because: order.opened_because.into(),
        clock_uncertain_s: None,
        video: None,
        audio: None,
    }));
    order.session.tell(Record::SegmentProgress(SegmentProgress {
        file,
        end_s: start_s,
        frames: 10,
        bytes: 1_000,
        ..SegmentProgress::default()
    }));
}

impl SegmentPlane for FakeSegments {
    fn start(&self, order: SegmentOrder) -> SegmentHandle {
        write(&order);
        let (told, facts) = watch::channel(Arc::new(SegmentFacts::default()));
        let control = Arc::new(SegmentControl::default());
        let segment = Arc::new(FakeSegment {
            mid: order.mid.clone(),
            track: order.names.track.to_string(),
            because: serde_json::to_value(order.opened_because).unwrap().as_str().unwrap().to_owned(),
            control: Arc::clone(&control),
            stream: order.ring.info.id,
            told,
        });
        let failing = self.fail_all.load(Ordering::Relaxed) && order.ring.info.kind == MediaKind::Video;
        if failing {
            segment.set(SegmentPhase::Failed(Failure::Refused("input/output error".into())));
        } else if !self.silent.load(Ordering::Relaxed) {
            segment.write();
        }
        self.all.lock().unwrap().push(Arc::clone(&segment));
        let (ring, watched, writer) = (Arc::clone(&order.ring), Arc::clone(&segment), order.writer);
        actix::spawn(async move {
            while !watched.phase().is_over() {
                if let Err(payload) = std::panic::catch_unwind(|| visit(Point::Pump, &writer)) {
                    watched.set(SegmentPhase::Failed(Failure::Panic(panic_text(&*payload))));
                    return;
                }
                if watched.control.is_finishing() || ring.has_ended() {
                    watched.set(SegmentPhase::Closed);
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        SegmentHandle { id: order.id, ring: order.ring, opened_because: order.opened_because, facts, control }
    }
}

#[derive(Default)]
pub struct FakeSignalling {
    pub sent: Mutex<Vec<(String, Value)>>,
    /// Nothing is taken any more.
    pub refuse: std::sync::atomic::AtomicBool,
    /// Messages for people are forbidden.
    pub refuse_messages: std::sync::atomic::AtomicBool,
    /// Messages wait for ever, as they may where the homeserver limits what an account sends.
    pub hold_messages: std::sync::atomic::AtomicBool,
}

impl FakeSignalling {
    pub fn types(&self) -> Vec<String> {
        self.sent.lock().unwrap().iter().map(|(kind, _)| kind.clone()).collect()
    }

    pub fn count(&self, event_type: &str) -> usize {
        self.types().iter().filter(|kind| *kind == event_type).count()
    }
}

impl Signalling for Arc<FakeSignalling> {
    fn send(
        &self,
        _: String,
        event_type: String,
        content: Value,
        _: Urgency,
        _: Duration,
    ) -> BoxFuture<'static, Result<(), SignallingError>> {
        if self.refuse.load(Ordering::Relaxed) {
            return async { Err(SignallingError::Unreachable("no route".into())) }.boxed();
        }
        self.sent.lock().unwrap().push((event_type, content));
        async { Ok(()) }.boxed()
    }

    fn announce(
        &self,
        _: String,
        message: Announcement,
        _: Duration,
    ) -> BoxFuture<'static, Result<(), SignallingError>> {
        if self.refuse_messages.load(Ordering::Relaxed) {
            return async { Err(SignallingError::Refused("403".into())) }.boxed();
        }
        let content = json!({"body": message.plain, "mentions": message.mentions});
        if self.hold_messages.load(Ordering::Relaxed) {
            return futures_util::future::pending().boxed();
        }
        self.sent.lock().unwrap().push(("m.room.message".into(), content));
        async { Ok(()) }.boxed()
    }

    fn turn_servers(&self) -> BoxFuture<'static, Vec<TurnServer>> {
        async { Vec::new() }.boxed()
    }

    fn room(&self, _: String) -> BoxFuture<'static, RoomFacts> {
        async { RoomFacts { name: "Podcast".into(), encrypted: true } }.boxed()
    }

    fn display_name(&self, _: String, _: String) -> BoxFuture<'static, Option<String>> {
        async { Some("Ada".to_owned()) }.boxed()
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
