//! One full-mesh call with many participants through the same tree, our tile shown to each of them. The homeserver is
//! left out: state and to-device events are handed to the supervisor, and what would go out is taken here.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use recorder_actors::ports::{RemoteCandidate, RoomPowers, Rooms, SignallingError};
use recorder_actors::supervisor::{Deliver, Delivery, DeviceDelivery};
use recorder_core::mesh::{CALL_EVENT, MEMBER_EVENT, MOST_DEVICES};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::answers::{ANSWER_LIMIT, Answers, invite};
use super::nowhere::Nowhere;
use super::recording_target::{CALLER, RecordingTarget, candidates};
use super::{BenchError, BenchTarget, Sample, TargetSummary};

/// Everybody has one device, whose session is this.
const DEVICE: &str = "D";
const SESSION: &str = "s";

/// Takes what we send into rooms and to devices.
#[derive(Default)]
pub struct Meeting {
    /// Our session in the call that we said last that we are in.
    session: watch::Sender<Option<String>>,
    /// Calls whose answers are awaited.
    answers: Answers,
}

impl Meeting {
    fn took_state(&self, content: &Value) {
        let device = content.pointer("/m.calls/0/m.devices/0/session_id").and_then(Value::as_str);
        self.session.send_replace(device.map(str::to_owned));
    }

    fn took_signal(&self, event_type: &str, content: &Value) {
        let call_id = content.get("call_id").and_then(Value::as_str).unwrap_or_default();
        self.answers.take(call_id, event_type, content);
    }
}

/// [`Rooms`] that lead to a [`Meeting`]; what is said in them is said to nobody.
pub struct MeetingRooms(pub Arc<Meeting>);

impl Rooms for MeetingRooms {
    fn send_state(
        &self,
        _: String,
        _: String,
        _: String,
        content: Value,
        _: Duration,
    ) -> BoxFuture<'static, Result<(), SignallingError>> {
        self.0.took_state(&content);
        async { Ok(()) }.boxed()
    }

    fn send_state_later(
        &self,
        room: String,
        event_type: String,
        state_key: String,
        content: Value,
        delay: Duration,
    ) -> BoxFuture<'static, Option<String>> {
        Nowhere.send_state_later(room, event_type, state_key, content, delay)
    }

    fn restart_delay(&self, delay_id: String) -> BoxFuture<'static, bool> {
        Nowhere.restart_delay(delay_id)
    }

    fn cancel_delay(&self, delay_id: String) -> BoxFuture<'static, ()> {
        Nowhere.cancel_delay(delay_id)
    }

    fn send_to_device(
        &self,
        _: String,
        _: String,
        event_type: String,
        content: Value,
        _: Duration,
    ) -> BoxFuture<'static, Result<(), SignallingError>> {
        self.0.took_signal(&event_type, &content);
        async { Ok(()) }.boxed()
    }

    fn say(
        &self,
        _: String,
        _: recorder_core::call::Announcement,
        _: recorder_actors::ports::Relation,
        _: Duration,
    ) -> BoxFuture<'static, Result<String, SignallingError>> {
        async { Ok("$said".to_owned()) }.boxed()
    }

    fn react(
        &self,
        _: String,
        _: String,
        _: String,
        _: Duration,
    ) -> BoxFuture<'static, Result<(), SignallingError>> {
        async { Ok(()) }.boxed()
    }

    fn set_room_name(
        &self,
        _: String,
        _: Option<String>,
        _: Duration,
    ) -> BoxFuture<'static, Result<(), SignallingError>> {
        async { Ok(()) }.boxed()
    }

    fn powers(&self, room: String) -> BoxFuture<'static, Option<RoomPowers>> {
        Nowhere.powers(room)
    }
}

/// See the module. Each round is a call in a room of its own.
pub struct MeshTarget {
    tree: Arc<RecordingTarget>,
    meeting: Arc<Meeting>,
    /// The round that runs.
    round: tokio::sync::Mutex<Option<Round>>,
}

#[derive(Clone)]
struct Round {
    room: String,
    conf_id: String,
    members: usize,
}

impl MeshTarget {
    /// `meeting` takes what the tree sends into rooms.
    pub fn new(tree: Arc<RecordingTarget>, meeting: Arc<Meeting>) -> Arc<Self> {
        Arc::new(Self { tree, meeting, round: tokio::sync::Mutex::default() })
    }

    fn event(
        &self,
        room: &str,
        event_type: &str,
        sender: &str,
        state_key: Option<&str>,
        content: Value,
    ) -> Delivery {
        let powers = RoomPowers { default: 100, own: 100, ..RoomPowers::default() };
        Delivery {
            event: self.tree.event(room, event_type, sender, content),
            state_key: state_key.map(str::to_owned),
            allowed: true,
            joined: true,
            members: None,
            origin_ts_ms: self.tree.utc_ms(),
            powers: Some(powers),
        }
    }

    /// One more participant is in the round's call, which begins with the first. Our session in it.
    async fn join(&self, call: usize) -> Result<(Round, String), BenchError> {
        let mut running = self.round.lock().await;
        let first = running.is_none();
        let round = running.get_or_insert_with(|| {
            self.meeting.session.send_replace(None);
            Round { room: format!("!mesh{call}:bench"), conf_id: format!("mesh{call}"), members: 0 }
        });
        round.members += 1;
        if round.members > MOST_DEVICES {
            return Err(BenchError::Target(format!("a mesh call has at most {MOST_DEVICES} participants")));
        }
        let (room, conf_id, who) = (&round.room, &round.conf_id, user(call));
        let mut events = Vec::new();
        if first {
            let content = json!({"m.intent": "m.room", "m.type": "m.video"});
            events.push(self.event(room, CALL_EVENT, &who, Some(conf_id), content));
        }
        let device = json!({"device_id": DEVICE, "session_id": SESSION, "feeds": [{"purpose": "m.usermedia"}],
            "expires_ts": self.tree.utc_ms() + 24 * 3_600_000});
        let member = json!({"m.calls": [{"m.call_id": conf_id, "m.devices": [device]}]});
        events.push(self.event(room, MEMBER_EVENT, &who, Some(&who), member));
        if first {
            let start = json!({"msgtype": "m.text", "body": "!start"});
            events.push(self.event(room, "m.room.message", CALLER, None, start));
        }
        self.tree.deliver(Deliver { events, batch_over: true, ..Deliver::default() }).await;
        let mut session = self.meeting.session.subscribe();
        let published = tokio::time::timeout(ANSWER_LIMIT, session.wait_for(Option::is_some)).await;
        match published {
            Ok(Ok(session)) => Ok((round.clone(), session.clone().unwrap_or_default())),
            Ok(Err(_)) | Err(_) => Err(BenchError::CallFailed { call, reason: "we did not join".to_owned() }),
        }
    }

    /// A signal of a participant. Without a number it stands outside of any order.
    async fn signal(&self, call: usize, round: &Round, session: &str, event_type: &str, mut content: Value) {
        let envelope = json!({"call_id": call_id(call), "party_id": DEVICE, "version": "1",
            "conf_id": round.conf_id, "device_id": DEVICE, "sender_session_id": SESSION,
            "dest_session_id": session});
        if let (Some(content), Some(envelope)) = (content.as_object_mut(), envelope.as_object()) {
            content.extend(envelope.clone());
        }
        let received = self.tree.now();
        let device =
            DeviceDelivery { sender: user(call), event_type: event_type.to_owned(), content, received };
        self.tree.deliver(Deliver { devices: vec![device], batch_over: true, ..Deliver::default() }).await;
    }
}

/// Below our own, so that they call us.
fn user(call: usize) -> String {
    format!("@p{call:06}:bench")
}

fn call_id(call: usize) -> String {
    format!("mesh-call-{call}")
}

impl BenchTarget for Arc<MeshTarget> {
    fn name(&self) -> String {
        "the recorder, one mesh call with its tile".to_owned()
    }

    fn shows_tile(&self) -> bool {
        true
    }

    fn answer(&self, call: usize, offer: String) -> BoxFuture<'static, Result<String, BenchError>> {
        let target = Arc::clone(self);
        async move {
            let (round, session) = target.join(call).await?;
            let answer = target.meeting.answers.expect(call_id(call));
            target.signal(call, &round, &session, "m.call.invite", invite(&offer)).await;
            answer.sdp(call).await
        }
        .boxed()
    }

    fn add_candidate(&self, call: usize, candidate: RemoteCandidate) {
        let target = Arc::clone(self);
        tokio::spawn(async move {
            let round = target.round.lock().await.clone();
            let session = target.meeting.session.borrow().clone();
            if let (Some(round), Some(session)) = (round, session) {
                target.signal(call, &round, &session, "m.call.candidates", candidates(candidate)).await;
            }
        });
    }

    fn sample(&self) -> BoxFuture<'static, Result<Sample, BenchError>> {
        self.tree.sample()
    }

    fn finish(&self) -> BoxFuture<'static, Result<TargetSummary, BenchError>> {
        let target = Arc::clone(self);
        async move {
            if let Some(round) = target.round.lock().await.take() {
                let stop = json!({"msgtype": "m.text", "body": "!stop"});
                let events = vec![target.event(&round.room, "m.room.message", CALLER, None, stop)];
                target.tree.deliver(Deliver { events, batch_over: true, ..Deliver::default() }).await;
            }
            target.tree.summary().await
        }
        .boxed()
    }
}
