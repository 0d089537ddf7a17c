//! Signalling from device to device, plain and encrypted.

use std::time::Duration;

use matrix_call_recorder::adapters::matrix::Delivery;
use matrix_sdk::config::SyncSettings;
use matrix_sdk::ruma::api::client::keys::upload_keys;
use matrix_sdk::ruma::{DeviceId, TransactionId, UserId};
use matrix_sdk_crypto::types::requests::AnyOutgoingRequest;
use matrix_sdk_crypto::{CollectStrategy, OlmMachine};
use recorder_actors::ports::{Rooms, SignallingError};
use serde_json::{Value, json};

use crate::account::{Person, Running, call, register};
use crate::{CALL_MEMBER, DELAYING, Meeting, PATIENCE, share};

struct Signal {
    sender: String,
    event_type: String,
    content: Value,
    encrypted: bool,
    batch: u64,
}

async fn signal(running: &mut Running) -> Signal {
    running
        .next(|delivery| match delivery {
            Delivery::ToDevice { sender, event_type, content, encrypted, batch, .. } => {
                Some(Signal { sender, event_type, content, encrypted, batch })
            }
            _ => None,
        })
        .await
}

/// Sends to one device, past the SDK.
async fn send(person: &Person, to: (&str, &str), event_type: &str, content: &Value) {
    let path = format!("_matrix/client/v3/sendToDevice/{event_type}/{}", TransactionId::new());
    let token = person.client.access_token().unwrap();
    let body = json!({ "messages": { to.0: { to.1: content } } });
    assert_eq!(call(&DELAYING.url, "PUT", &path, Some(&token), body).await, json!({}));
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_signalling_goes_both_ways_in_order() {
    let mut meeting = Meeting::new("signalling", false).await;
    let (bot, device) = (meeting.bot.clone(), meeting.running.account.device_id());
    for seq in 0..20 {
        let event_type = if seq == 0 { "m.call.invite" } else { "m.call.candidates" };
        send(&meeting.alice, (&bot, &device), event_type, &json!({ "conf_id": "conf", "seq": seq })).await;
        send(&meeting.alice, (&bot, &device), "m.other", &json!({})).await;
    }
    let mut last = 0;
    for seq in 0..20 {
        let heard = signal(&mut meeting.running).await;
        assert_eq!((heard.content["seq"].as_i64(), heard.encrypted), (Some(seq), false));
        assert_eq!(heard.sender, meeting.alice_id());
        assert_eq!(heard.event_type == "m.call.invite", seq == 0);
        assert!(heard.batch >= last);
        last = heard.batch;
    }

    let alice_device = meeting.alice.client.device_id().unwrap().to_string();
    let answer = json!({ "conf_id": "conf", "seq": 0, "answer": { "type": "answer", "sdp": "v=0" } });
    let to = |user: &str, device: &str| {
        let (user, device) = (user.to_owned(), device.to_owned());
        meeting.rooms.send_to_device(user, device, "m.call.answer".to_owned(), answer.clone(), PATIENCE)
    };
    to(&meeting.alice_id(), &alice_device).await.unwrap();
    let heard = tokio::time::timeout(PATIENCE, async {
        loop {
            let poll = SyncSettings::new().timeout(Duration::from_millis(500));
            let response = Box::pin(meeting.alice.client.sync_once(poll)).await.unwrap();
            let events = response.to_device.iter().map(|event| event.to_raw());
            let mut events = events.map(|event| event.deserialize_as_unchecked::<Value>().unwrap());
            if let Some(event) = events.find(|event| event["type"] == "m.call.answer") {
                return event;
            }
        }
    });
    let heard = heard.await.unwrap();
    assert_eq!((heard["sender"].as_str(), &heard["content"]), (Some(bot.as_str()), &answer));
    for (user, device) in [("@alice:localhost", "*"), ("@alice:localhost", ""), ("nobody", "DEVICE")] {
        let refused = to(user, device).await;
        assert!(matches!(refused, Err(SignallingError::Refused(_))), "{user} {device}: {refused:?}");
    }
    meeting.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_membership_comes_before_the_signalling_of_the_same_sync() {
    let meeting = Meeting::new("sorted", false).await;
    let device = meeting.running.account.device_id();
    let scene = meeting.end().await;
    let alice = scene.alice_id();
    let content = json!({ "conf_id": "conf", "sender_session_id": "s" });
    send(&scene.alice, (&scene.bot, &device), "m.call.invite", &content).await;
    scene.set(CALL_MEMBER, &alice, share("s")).await;
    let mut running = scene.recorder.start().await;
    let first = running
        .next(|delivery| match delivery {
            Delivery::Event(event) if event.event_type == CALL_MEMBER => Some(event.event_type),
            Delivery::ToDevice { event_type, .. } => Some(event_type),
            _ => None,
        })
        .await;
    assert_eq!(first, CALL_MEMBER);
    assert_eq!(signal(&mut running).await.content, content);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn olm_encrypted_signalling_is_decrypted_and_said_to_be_encrypted() {
    let mut meeting = Meeting::new("sealed", true).await;
    let (bot, device) = (meeting.bot.clone(), meeting.running.account.device_id());
    let url = &DELAYING.url;
    let (user, token, own_device) = register(url, "bob-sealed").await;
    let sealing = Sealing { url: url.clone(), token, user, device: own_device };
    let machine = sealing.machine(&bot).await;
    for (claimed, heard) in
        [(sealing.device.as_str(), true), ("ANOTHER", false), (sealing.device.as_str(), true)]
    {
        let content = json!({ "conf_id": "conf", "device_id": claimed, "seq": 0 });
        sealing.send(&machine, (&bot, &device), "m.call.invite", &content).await;
        if heard {
            let signal = signal(&mut meeting.running).await;
            assert!(signal.encrypted);
            assert_eq!((signal.sender, signal.event_type.as_str()), (sealing.user.clone(), "m.call.invite"));
            assert_eq!(signal.content, content);
        }
    }
    let ignored = meeting.recorder.board.totals.signals_ignored.load(std::sync::atomic::Ordering::Relaxed);
    assert!(ignored >= 1, "a device that says to be another is not heard");
    meeting.running.stop().await;
}

/// A device that encrypts for others by itself: the SDK's client sends no events of one's own making.
struct Sealing {
    url: String,
    token: String,
    user: String,
    device: String,
}

impl Sealing {
    async fn machine(&self, other: &str) -> OlmMachine {
        let (user, other) = (UserId::parse(&self.user).unwrap(), UserId::parse(other).unwrap());
        let machine = OlmMachine::new(&user, <&DeviceId>::from(self.device.as_str())).await;
        machine.update_tracked_users([&*other]).await.unwrap();
        for outgoing in machine.outgoing_requests().await.unwrap() {
            match outgoing.request() {
                AnyOutgoingRequest::KeysUpload(request) => {
                    let upload_keys::v3::Request { device_keys, one_time_keys, .. } = request;
                    let body = json!({ "device_keys": device_keys, "one_time_keys": one_time_keys });
                    let answer = self.ask("keys/upload", body).await;
                    let mut response = upload_keys::v3::Response::new(Default::default());
                    response.one_time_key_counts =
                        serde_json::from_value(answer["one_time_key_counts"].clone()).unwrap();
                    machine.mark_request_as_sent(outgoing.request_id(), &response).await.unwrap();
                }
                AnyOutgoingRequest::KeysQuery(request) => {
                    let answer = self.ask("keys/query", json!({ "device_keys": request.device_keys })).await;
                    let mut response = matrix_sdk::ruma::api::client::keys::get_keys::v3::Response::new();
                    response.device_keys = serde_json::from_value(answer["device_keys"].clone()).unwrap();
                    machine.mark_request_as_sent(outgoing.request_id(), &response).await.unwrap();
                }
                _ => {}
            }
        }
        let (id, claim) =
            machine.get_missing_sessions([&*other].into_iter()).await.unwrap().expect("a claim");
        let answer = self.ask("keys/claim", json!({ "one_time_keys": claim.one_time_keys })).await;
        let keys = serde_json::from_value(answer["one_time_keys"].clone()).unwrap();
        let response = matrix_sdk::ruma::api::client::keys::claim_keys::v3::Response::new(keys);
        machine.mark_request_as_sent(&id, &response).await.unwrap();
        machine
    }

    async fn send(&self, machine: &OlmMachine, to: (&str, &str), event_type: &str, content: &Value) {
        let user = UserId::parse(to.0).unwrap();
        let device = machine.get_device(&user, to.1.into(), None).await.unwrap().expect("the device");
        let sealed =
            device.encrypt_event_raw(event_type, content, CollectStrategy::AllDevices).await.unwrap();
        let body = json!({ "messages": { to.0: { to.1: sealed } } });
        self.ask_with("PUT", &format!("sendToDevice/m.room.encrypted/{}", TransactionId::new()), body).await;
    }

    async fn ask(&self, path: &str, body: Value) -> Value {
        self.ask_with("POST", path, body).await
    }

    async fn ask_with(&self, method: &str, path: &str, body: Value) -> Value {
        call(&self.url, method, &format!("_matrix/client/v3/{path}"), Some(&self.token), body).await
    }
}
