//! What people say to us and we to them: commands past the chat, threads, edits, reactions.

use std::sync::atomic::Ordering;
use std::time::Duration;

use matrix_call_recorder::adapters::matrix::Delivery;
use matrix_sdk::ruma::EventId;
use recorder_actors::ports::{Relation, Rooms};
use recorder_core::call::Announcement;
use serde_json::{Value, json};

use crate::account::Person;
use crate::holding_proxy::HoldingProxy;
use crate::{DELAYING, Meeting, PATIENCE, Scene, set};

fn text(body: &str) -> Value {
    json!({ "msgtype": "m.text", "body": body })
}

fn notice(text: &str) -> Announcement {
    Announcement {
        plain: text.to_owned(),
        html: format!("<b>{text}</b>"),
        mentions: vec!["@alice:localhost".to_owned()],
        notice: true,
    }
}

impl Scene {
    /// An event as Alice reads it: type, content, and whether it was encrypted.
    async fn read(&self, event_id: &str) -> (String, Value, bool) {
        let event_id = EventId::parse(event_id).unwrap();
        self.alice
            .until(async |_| {
                let event = self.room.event(&event_id, None).await.ok()?;
                let json: Value = event.raw().deserialize_as_unchecked().ok()?;
                let kind = json["type"].as_str()?.to_owned();
                let encrypted = event.encryption_info().is_some();
                (kind != "m.room.encrypted").then(|| (kind, json["content"].clone(), encrypted))
            })
            .await
    }

    async fn says(&self, body: &str) -> String {
        self.alice.send(self.room.room_id(), "m.room.message", text(body)).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_in_threads_edits_and_reactions_arrive_in_plain_and_encrypted_rooms() {
    for (name, encrypted) in [("talking", false), ("whispering", true)] {
        let mut meeting = Meeting::new(name, encrypted).await;
        let command = meeting.says("!record status").await;
        let heard = meeting.running.event(|event| event.event_type == "m.room.message").await;
        assert_eq!((heard.event_id.as_str(), heard.encrypted), (command.as_str(), encrypted));
        let thread = Relation::Thread { root: command.clone(), reply_to: command.clone() };
        let answer =
            meeting.rooms.say(meeting.id.clone(), notice("waiting"), thread, PATIENCE).await.unwrap();
        let (kind, content, sealed) = meeting.read(&answer).await;
        assert_eq!((kind.as_str(), sealed), ("m.room.message", encrypted));
        assert_eq!(content["formatted_body"], "<b>waiting</b>");
        assert_eq!(content["m.mentions"]["user_ids"], json!(["@alice:localhost"]));
        let in_reply_to = json!({ "event_id": command });
        assert_eq!(
            content["m.relates_to"],
            json!({
                "rel_type": "m.thread", "event_id": command, "is_falling_back": true, "m.in_reply_to": in_reply_to,
            })
        );

        let edit = Relation::Edit { event: answer.clone() };
        let edited =
            meeting.rooms.say(meeting.id.clone(), notice("recording"), edit, PATIENCE).await.unwrap();
        let (_, content, sealed) = meeting.read(&edited).await;
        assert_eq!((sealed, &content["m.new_content"]["body"]), (encrypted, &json!("recording")));
        assert_eq!(content["m.relates_to"], json!({ "rel_type": "m.replace", "event_id": answer }));

        meeting.rooms.react(meeting.id.clone(), command.clone(), "🔴".to_owned(), PATIENCE).await.unwrap();
        let reactions = meeting
            .alice
            .until(async |_| {
                let page = meeting.room.messages(matrix_sdk::room::MessagesOptions::backward()).await.ok()?;
                page.chunk.iter().find_map(|event| {
                    let event: Value = event.raw().deserialize_as_unchecked().ok()?;
                    (event["type"] == "m.reaction").then(|| event["content"].clone())
                })
            })
            .await;
        let annotation = json!({ "rel_type": "m.annotation", "event_id": command, "key": "🔴" });
        assert_eq!(reactions["m.relates_to"], annotation);

        // And one of hers to us; what we said ourselves does not come back.
        let objection =
            json!({ "m.relates_to": { "rel_type": "m.annotation", "event_id": answer, "key": "🚫" } });
        meeting.alice.send(meeting.room.room_id(), "m.reaction", objection.clone()).await;
        let heard = meeting
            .running
            .event(|event| matches!(event.event_type.as_str(), "m.room.message" | "m.reaction"))
            .await;
        assert_eq!((heard.content, heard.sender), (objection, meeting.alice_id()));
        meeting.running.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_and_mentions_come_through_and_chat_does_not() {
    for (name, encrypted) in [("listening", false), ("eavesdropping", true)] {
        let mut meeting = Meeting::new(name, encrypted).await;
        let wanted = ["!start", &format!("{name}: stop"), &format!("hello @{name}:localhost")];
        for body in wanted {
            meeting.says("How are you?").await;
            meeting.says(body).await;
        }
        let pill = json!({ "msgtype": "m.text", "body": "you", "m.mentions": { "user_ids": [meeting.bot] } });
        meeting.alice.send(meeting.room.room_id(), "m.room.message", pill).await;
        let notice = json!({ "msgtype": "m.notice", "body": "!start" });
        meeting.alice.send(meeting.room.room_id(), "m.room.message", notice).await;
        meeting.says("!end").await;
        for expected in wanted.into_iter().chain(["you", "!end"]) {
            let heard = meeting.running.event(|event| event.event_type == "m.room.message").await;
            assert_eq!(heard.content["body"], expected);
            assert!(heard.age_at_receipt < Duration::from_secs(60));
        }
        meeting.running.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_from_before_the_start_is_only_told_as_missed() {
    let mut meeting = Meeting::new("started", false).await;
    meeting.says("!first").await;
    meeting.running.event(|event| event.event_type == "m.room.message").await;
    let scene = meeting.end().await;
    scene.says("!optout").await;
    scene.says("chat").await;
    let mut running = scene.recorder.start().await;
    let said = |delivery: Delivery| match delivery {
        Delivery::Missed(event) => Some((true, event.content["body"].clone())),
        Delivery::Event(event) if event.event_type == "m.room.message" => {
            Some((false, event.content["body"].clone()))
        }
        _ => None,
    };
    assert_eq!(running.next(said).await, (true, json!("!optout")));
    scene.says("!second").await;
    assert_eq!(running.next(said).await, (false, json!("!second")));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_decrypted_is_told_once_and_holds_up_neither_commands_nor_state() {
    let mut meeting = Meeting::new("puzzled", true).await;
    let proxy = HoldingProxy::start(&DELAYING.url).await;
    let late = Person::log_in(&proxy.url, &meeting.alice_id()).await;
    let there = late.client.get_room(meeting.room.room_id()).unwrap();
    late.joined(&there, &meeting.bot).await;
    let sealed = late.send(meeting.room.room_id(), "m.room.message", text("!record start")).await;
    assert!(proxy.held().await > 0);
    let undecrypted = || meeting.recorder.board.totals.undecrypted_events.load(Ordering::Relaxed);
    late.until(async |_| (undecrypted() >= 1).then_some(())).await;

    // Another device of hers, whose key is there.
    let said = meeting.says("!record optout").await;
    let heard = meeting.running.event(|event| event.event_type == "m.room.message").await;
    assert_eq!(heard.event_id, said);
    set(&meeting.room, crate::CALL, "conf", json!({})).await;
    meeting.running.event(|event| event.event_type == crate::CALL).await;

    // Any news wakes the account, whose clock stands beyond the wait then.
    meeting.recorder.clock.advance(Duration::from_secs(91));
    set(&meeting.room, crate::CALL, "conf", json!({ "m.type": "m.voice" })).await;
    let id = meeting.id.clone();
    let mut told = Vec::new();
    let given_up = |delivery: Delivery| match delivery {
        Delivery::Undecryptable { room, sender, event_id } => Some((room, sender, event_id)),
        _ => None,
    };
    told.push(meeting.running.next(given_up).await);
    assert_eq!(told, [(id, meeting.alice_id(), sealed)]);

    // Its key is of no use any more.
    proxy.release().await;
    meeting.says("!end").await;
    let next = meeting
        .running
        .next(|delivery| match delivery {
            Delivery::Undecryptable { .. } => Some("told again".to_owned()),
            Delivery::Event(event) if event.event_type == "m.room.message" => {
                event.content["body"].as_str().map(str::to_owned)
            }
            _ => None,
        })
        .await;
    assert_eq!(next, "!end");
    meeting.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_key_delivers_a_command_though_an_older_message_of_its_sender_stays_sealed() {
    let mut meeting = Meeting::new("impatient", true).await;
    let (room, alice) = (meeting.room.room_id().to_owned(), meeting.alice_id());
    let (mut proxies, mut sent) = (Vec::new(), Vec::new());
    for body in ["!record start", "!record optout"] {
        let proxy = HoldingProxy::start(&DELAYING.url).await;
        let device = Person::log_in(&proxy.url, &alice).await;
        device.joined(&device.client.get_room(&room).unwrap(), &meeting.bot).await;
        sent.push(device.send(&room, "m.room.message", text(body)).await);
        let undecrypted = || meeting.recorder.board.totals.undecrypted_events.load(Ordering::Relaxed);
        device.until(async |_| (undecrypted() >= sent.len() as u64).then_some(())).await;
        proxies.push(proxy);
    }
    for (proxy, sent) in proxies.iter().zip(&sent).rev() {
        proxy.release().await;
        let heard = meeting.running.event(|event| event.event_type == "m.room.message").await;
        assert_eq!(heard.event_id, *sent);
    }
    meeting.running.stop().await;
}
