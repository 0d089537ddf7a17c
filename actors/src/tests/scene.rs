//! A room with a call in it, and the people who take part.

use recorder_core::media::Codec;
use recorder_core::mesh::{CALL_EVENT, MEMBER_EVENT};
use serde_json::{Value, json};

use super::support::*;
use crate::ports::{ConnectionState, RoomRecord};

pub const CONF: &str = "conf";
/// Below the bot's id, so that both call it.
pub const ADA: &str = CALLER;
pub const ALF: &str = "@alf:hs";
pub const EVA: &str = "@ava:hs";

pub fn call() -> Value {
    json!({"m.intent": "m.room", "m.type": "m.video"})
}

/// A tree, and how many connections were made in it.
pub struct Scene {
    pub tree: Tree,
    pub made: usize,
}

impl Scene {
    pub async fn start() -> Self {
        let tree = Tree::start();
        tree.event_of(CALL_EVENT, ADA, Some(CONF), call()).await;
        Self { tree, made: 0 }
    }

    /// Nothing was heard yet; an earlier process left this.
    pub fn after(record: RoomRecord) -> Self {
        Self { tree: Tree::remembering(record), made: 0 }
    }

    pub async fn say(&self, user: &str, text: &str) -> bool {
        self.tree.event("m.room.message", user, json!({"msgtype": "m.text", "body": text})).await
    }

    /// The user's device is in the call, in the session named.
    pub async fn member(&self, user: &str, session: &str) {
        self.members(user, &[self.device("D", session)]).await;
    }

    pub fn device(&self, device: &str, session: &str) -> Value {
        json!({"device_id": device, "session_id": session, "feeds": [{"purpose": "m.usermedia"}],
            "expires_ts": self.tree.utc_ms() + 3_600_000})
    }

    /// The recorder is stopped in order and started again; Ada is in the call all the time, whose event says `call` then.
    pub async fn restarted(self, call: Value) -> Self {
        self.tree.shut_down();
        until("the end", || *self.tree.shared.running().borrow() == 0).await;
        let next = Self { tree: self.tree.next_process(), made: 0 };
        let member = json!({"m.calls": [{"m.call_id": CONF, "m.devices": [next.device("D", "s1")]}]});
        next.tree.state_at_once(vec![(CALL_EVENT, ADA, CONF, call), (MEMBER_EVENT, ADA, ADA, member)]).await;
        next
    }

    pub async fn members(&self, user: &str, devices: &[Value]) {
        let content = json!({"m.calls": [{"m.call_id": CONF, "m.devices": devices}]});
        self.tree.event_of(MEMBER_EVENT, user, Some(user), content).await;
    }

    pub fn membership(&self, session: &str) -> Value {
        json!({"m.calls": [{"m.call_id": CONF, "m.devices": [self.device("D", session)]}]})
    }

    pub async fn leaves(&self, user: &str) {
        self.tree.event_of(MEMBER_EVENT, user, Some(user), json!({"m.calls": []})).await;
    }

    /// The user's membership of the room.
    pub async fn is(&self, user: &str, membership: &str) {
        let content = json!({ "membership": membership });
        self.tree.event_of("m.room.member", user, Some(user), content).await;
    }

    /// What we last published of ourselves.
    pub fn own_devices(&self) -> Vec<Value> {
        let published = self.tree.rooms.of(MEMBER_EVENT);
        let calls = published.last().and_then(|content| content["m.calls"].as_array());
        calls.into_iter().flatten().flat_map(|call| call["m.devices"].as_array().unwrap()).cloned().collect()
    }

    /// The user's device calls us and sends a voice and a picture.
    pub async fn connect(&mut self, user: &str, session: &str) {
        until("our membership", || self.own_devices().len() == 1).await;
        let ours = self.own_devices()[0]["session_id"].clone();
        let content = json!({"conf_id": CONF, "call_id": format!("{user}-{session}"), "version": "1",
            "party_id": "D", "device_id": "D", "sender_session_id": session, "dest_session_id": ours, "seq": 0,
            "lifetime": 60_000, "offer": {"type": "offer", "sdp": "v=0"},
            "sdp_stream_metadata": {"user": {"purpose": "m.usermedia"}}});
        let answers = self.answers();
        self.tree.to_device("m.call.invite", user, content).await;
        until("the answer", || self.answers() == answers + 1).await;
        let media = &self.tree.media;
        let (voice, picture) = (media.media("0", "user", Codec::Opus), media.media("1", "user", Codec::Vp8));
        media.change_at(self.made, |facts| {
            facts.state = ConnectionState::Connected;
            facts.media = vec![voice, picture];
        });
        self.made += 1;
    }

    /// What the status message says now.
    pub fn status(&self) -> String {
        let edits = self.tree.rooms.of("say");
        let last = edits.iter().rfind(|said| said["edit"] == json!(true)).map(|said| said["body"].clone());
        last.and_then(|body| body.as_str().map(str::to_owned)).unwrap_or_default()
    }

    pub fn answers(&self) -> usize {
        self.tree.rooms.of("m.call.answer").len()
    }

    pub async fn running(&self, segments: usize) {
        until("the segments", || self.tree.segments.running().len() == segments).await;
    }

    /// Ada asks for a recording and sends.
    pub async fn recorded() -> Self {
        let mut scene = Self::start().await;
        scene.member(ADA, "s1").await;
        scene.say(ADA, "!record start").await;
        scene.connect(ADA, "s1").await;
        scene.running(2).await;
        scene
    }

    pub async fn ended(&self, reason: &str) -> Value {
        until("the end", || *self.tree.shared.running().borrow() == 0).await;
        let manifest = serde_json::to_value(self.tree.manifest()).unwrap();
        assert_eq!((&manifest["state"], &manifest["end_reason"]), (&json!("complete"), &json!(reason)));
        until("the message", || self.tree.rooms.said("The recording has ended")).await;
        until("our leave", || self.own_devices().is_empty()).await;
        manifest
    }
}
