//! What happens in rooms reaches the calls: once, in order, decrypted late if need be, past gaps, crashes and outages.

use std::sync::Arc;
use std::time::Duration;

use matrix_call_recorder::adapters::legacy_call::say_farewell;
use matrix_call_recorder::adapters::live_calls::LiveCallFile;
use matrix_call_recorder::adapters::matrix::{MatrixAccount, SendError};
use matrix_sdk::RoomState;
use matrix_sdk::deserialized_responses::TimelineEvent;
use matrix_sdk::room::MessagesOptions;
use recorder_actors::ports::{Clock, LiveCall, Urgency};
use serde_json::{Value, json};

use crate::account::{Person, Recorder, synapse};
use crate::holding_proxy::HoldingProxy;
use crate::synapse::Synapse;

#[tokio::test(flavor = "multi_thread")]
async fn events_of_plain_and_encrypted_rooms_arrive_once_and_in_order() {
    let url = &synapse().await.url;
    let mut recorder = Recorder::new(url, "ordered").await;
    let alice = recorder.ally("alice-ordered").await;
    let mut running = recorder.start().await;
    for encrypted in [false, true] {
        let room = running.together(&alice, encrypted).await;
        let sent = alice.place_call(room.room_id(), "c1").await;
        let first = running.call_event().await;
        assert_eq!((first.encrypted, first.sender.as_str()), (encrypted, "@alice-ordered:localhost"));
        assert!(first.age_at_receipt < Duration::from_secs(30), "{:?}", first.age_at_receipt);
        assert_eq!(first.room_id, room.room_id().as_str());
        let mut received = vec!["invite c1".to_owned()];
        received.extend(running.call().await);
        assert_eq!(received, sent);

        let content = json!({ "call_id": "c1", "party_id": "R", "version": "1", "answer": {} });
        let room_id = room.room_id().as_str();
        let answer = running
            .account
            .send(room_id, "m.call.answer", content, Urgency::Call, Duration::from_secs(10))
            .await
            .unwrap();
        let echo = running.call_event().await;
        assert_eq!(
            (echo.event_id, echo.sender, echo.encrypted),
            (answer, running.account.user_id(), encrypted)
        );
    }
    let absent = running
        .account
        .send("!nowhere:localhost", "m.call.answer", json!({}), Urgency::Call, Duration::from_secs(5))
        .await;
    assert!(matches!(absent, Err(SendError::NotInRoom { .. })));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_what_is_sent_nor_what_comes_is_held_up_by_the_devices_of_who_has_just_come() {
    let url = &synapse().await.url;
    let mut recorder = Recorder::new(url, "swift").await;
    let alice = recorder.ally("alice-swift").await;
    let proxy = HoldingProxy::start(url).await;
    recorder.settings.homeserver.clone_from(&proxy.url);
    let mut running = recorder.start().await;
    let mut rooms = Vec::new();
    for _ in 0..4 {
        rooms.push(running.together(&alice, true).await);
    }
    for round in 0..3 {
        proxy.hold_back("/sync");
        let chat = json!({ "msgtype": "m.text", "body": "before" });
        alice.send(rooms[0].room_id(), "m.room.message", chat).await;
        proxy.has_held_back(1).await;
        let name = format!("guest{round}-swift");
        let guest = Person::new(url, &name).await;
        let guest_id = guest.client.user_id().unwrap().to_owned();
        for room in &rooms {
            room.invite_user_by_id(&guest_id).await.unwrap();
            guest.client.join_room_by_id(room.room_id()).await.unwrap();
        }
        alice.joined(&rooms[3], guest_id.as_str()).await;
        // The recorder sends all the time, also while it learns of a guest whose devices it must ask for.
        let told = tokio_util::sync::CancellationToken::new();
        let sending = rooms.iter().map(async |room| {
            let (id, limit) = (room.room_id().as_str(), Duration::from_secs(10));
            let mut slowest = Duration::ZERO;
            while !told.is_cancelled() {
                let content = json!({ "call_id": "ours", "party_id": "R", "version": "1" });
                let asked = std::time::Instant::now();
                running.account.send(id, "m.call.candidates", content, Urgency::Call, limit).await.unwrap();
                slowest = slowest.max(asked.elapsed());
            }
            slowest
        });
        let telling = async {
            proxy.let_go("/sync");
            alice.place_call(rooms[round].room_id(), "theirs").await;
            told.cancel();
        };
        let (slowest, ()) = tokio::join!(futures_util::future::join_all(sending), telling);
        let slowest = slowest.into_iter().max().unwrap();
        // The SDK alone waits for 5 s, and nothing comes meanwhile.
        assert!(slowest < Duration::from_secs(3), "{slowest:?}");
        let waiting = std::time::Instant::now();
        running.event(|event| event.content["call_id"] == "theirs").await;
        assert!(waiting.elapsed() < Duration::from_secs(3), "{:?}", waiting.elapsed());
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_room_key_delivers_the_invite_before_what_followed_it() {
    let url = &synapse().await.url;
    let mut recorder = Recorder::new(url, "patient").await;
    let alice = recorder.ally("alice-patient").await;
    let mut running = recorder.start().await;
    let room = running.together(&alice, true).await;
    drop(alice);

    let proxy = HoldingProxy::start(url).await;
    let late = Person::log_in(&proxy.url, "@alice-patient:localhost").await;
    late.joined(&late.client.get_room(room.room_id()).unwrap(), "@patient:localhost").await;
    let sent = late.place_call(room.room_id(), "late").await;
    assert!(proxy.held().await > 0);
    // The recorder has them all and can read none.
    let undecrypted = || recorder.board.totals.undecrypted_events.load(std::sync::atomic::Ordering::Relaxed);
    late.until(async |_| (undecrypted() >= 5).then_some(())).await;
    proxy.release().await;
    let released = std::time::Instant::now();
    let invite = running.call_event().await;
    assert!(released.elapsed() < Duration::from_secs(5), "{:?}", released.elapsed());
    assert!(invite.encrypted);
    let mut received = vec!["invite late".to_owned()];
    received.extend(running.call().await);
    assert_eq!(received, sent);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_room_key_that_comes_after_a_restart_still_delivers() {
    let url = &synapse().await.url;
    let mut recorder = Recorder::new(url, "later").await;
    let alice = recorder.ally("alice-later").await;
    let running = recorder.start().await;
    let room = running.together(&alice, true).await;
    drop(alice);
    let proxy = HoldingProxy::start(url).await;
    let late = Person::log_in(&proxy.url, "@alice-later:localhost").await;
    late.joined(&late.client.get_room(room.room_id()).unwrap(), "@later:localhost").await;
    let sent = late.place_call(room.room_id(), "late").await;
    let undecrypted = || recorder.board.totals.undecrypted_events.load(std::sync::atomic::Ordering::Relaxed);
    late.until(async |_| (undecrypted() >= 5).then_some(())).await;
    running.stop().await;

    let mut running = recorder.start().await;
    proxy.release().await;
    assert_eq!(running.call().await, sent);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_while_the_recorder_was_down_is_delivered_even_past_a_limited_sync() {
    let url = &synapse().await.url;
    let mut recorder = Recorder::new(url, "away").await;
    let alice = recorder.ally("alice-away").await;
    let mut running = recorder.start().await;
    let room = running.together(&alice, true).await;
    // One event through the room, so that its key is there.
    alice.place_call(room.room_id(), "before").await;
    running.call().await;
    running.finish_batch().await;
    running.stop().await;

    let mut sent = alice.place_call(room.room_id(), "first").await;
    for n in 0..120 {
        alice
            .send(room.room_id(), "m.room.message", json!({ "msgtype": "m.text", "body": format!("{n}") }))
            .await;
    }
    sent.extend(alice.place_call(room.room_id(), "second").await);
    let mut running = recorder.start().await;
    let mut received = running.call().await;
    received.extend(running.call().await);
    assert_eq!(received, sent);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_objection_does_not_wait_for_what_another_room_left_out() {
    let url = &synapse().await.url;
    let mut recorder = Recorder::new(url, "prompt").await;
    let alice = recorder.ally("alice-prompt").await;
    let proxy = HoldingProxy::start(url).await;
    recorder.settings.homeserver.clone_from(&proxy.url);
    let mut running = recorder.start().await;
    let (busy, calm) = (running.together(&alice, false).await, running.together(&alice, false).await);
    alice.place_call(busy.room_id(), "before").await;
    running.call().await;

    // Everything that follows comes in one response, and in one room it is more than that holds.
    proxy.hold_back("/sync");
    let chat = |n: usize| json!({ "msgtype": "m.text", "body": format!("{n}") });
    alice.send(busy.room_id(), "m.room.message", chat(0)).await;
    proxy.has_held_back(1).await;
    let mut sent = alice.place_call(busy.room_id(), "first").await;
    for n in 0..60 {
        alice.send(busy.room_id(), "m.room.message", chat(n)).await;
    }
    sent.extend(alice.place_call(busy.room_id(), "second").await);
    let objection = json!({ "msgtype": "m.text", "body": "!record optout" });
    let objection = alice.send(calm.room_id(), "m.room.message", objection).await;
    proxy.hold_back("/messages");
    proxy.let_go("/sync");
    let first = running.event(|event| event.state_key.is_none()).await;
    assert_eq!((first.event_id.as_str(), first.room_id.as_str()), (&*objection, calm.room_id().as_str()));
    // Decided as well: its batch is over before the other room is read.
    running.finish_batch().await;
    proxy.let_go("/messages");
    let mut received = running.call().await;
    received.extend(running.call().await);
    assert_eq!(received, sent);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_a_restart_cut_off_is_hung_up_before_rooms_are_read_back() {
    let url = &synapse().await.url;
    let mut recorder = Recorder::new(url, "parting").await;
    let alice = recorder.ally("alice-parting").await;
    let mut running = recorder.start().await;
    let room = running.together(&alice, false).await;
    running.acknowledges = false;
    alice.place_call(room.room_id(), "unhandled").await;
    running.call().await;
    drop(running);

    let proxy = HoldingProxy::start(url).await;
    proxy.hold_back("/messages");
    recorder.settings.homeserver.clone_from(&proxy.url);
    let running = recorder.connect().await.unwrap();
    let (live_calls, _) = LiveCallFile::open(&recorder.settings.state_dir);
    let left = LiveCall {
        room: room.room_id().to_string(),
        call_id: "cut off".to_owned(),
        caller: "@alice-parting:localhost".to_owned(),
        version: 1,
        seen_utc_micros: recorder.clock.utc_micros(),
    };
    let clock = Arc::clone(&recorder.clock) as _;
    let farewell = tokio::spawn(say_farewell(running.account.clone(), live_calls, vec![left], clock));
    proxy.has_held_back(1).await;
    farewell.await.unwrap();
    assert!(!running.account.state().borrow().first_sync_done, "the room has not been read back yet");
    let newest = alice
        .until(async |_| {
            let newest = room.messages(MessagesOptions::backward()).await.ok()?;
            let hangup = |event: &&TimelineEvent| {
                event
                    .raw()
                    .get_field::<String>("type")
                    .is_ok_and(|kind| kind.as_deref() == Some("m.call.hangup"))
            };
            newest
                .chunk
                .iter()
                .find(hangup)
                .map(|event| event.raw().get_field::<Value>("content").unwrap().unwrap())
        })
        .await;
    assert_eq!(newest["call_id"], "cut off");
    proxy.let_go("/messages");
    running.until(|state| state.first_sync_done).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_crash_only_what_was_not_handled_is_delivered_again() {
    let url = &synapse().await.url;
    let mut recorder = Recorder::new(url, "crashing").await;
    let alice = recorder.ally("alice-crashing").await;
    let mut running = recorder.start().await;
    let room = running.together(&alice, false).await;
    alice.place_call(room.room_id(), "handled").await;
    let last = loop {
        let event = running.call_event().await;
        if event.event_type == "m.call.hangup" {
            break event.event_id;
        }
    };
    running.finish_batch().await;
    let saved = recorder.settings.state_dir.join("inbox.json");
    alice
        .until(async |_| {
            let text = std::fs::read_to_string(&saved).unwrap_or_default();
            text.contains(&last).then_some(())
        })
        .await;
    running.acknowledges = false;
    let sent = alice.place_call(room.room_id(), "unhandled").await;
    assert_eq!(running.call().await, sent);
    // No orderly end: the account is dropped with its tasks.
    drop(running);

    let mut running = recorder.start().await;
    assert_eq!(running.call().await, sent);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_the_homeserver_and_expiring_tokens_are_survived() {
    let extra = json!({
        "refreshable_access_token_lifetime": "4s",
        "refresh_token_lifetime": "1h",
        "rc_message": { "per_second": 4, "burst_count": 4 },
    });
    let mut synapse = tokio::task::spawn_blocking(|| Synapse::start_with(extra)).await.unwrap();
    let url = synapse.url.clone();
    let mut recorder = Recorder::new(&url, "enduring").await;
    let alice = recorder.ally("alice-enduring").await;
    let mut running = recorder.start().await;
    let room = running.together(&alice, true).await;
    let token = recorder.session()["access_token"].clone();
    // More at once than the homeserver takes: each is sent in the end, in order.
    let content = json!({ "call_id": "many", "party_id": "R", "version": "1" });
    for _ in 0..10 {
        let (room_id, limit) = (room.room_id().as_str(), Duration::from_secs(30));
        let sent = running
            .account
            .send(room_id, "m.call.candidates", content.clone(), Urgency::Call, limit)
            .await
            .unwrap();
        assert_eq!(running.call_event().await.event_id, sent);
    }

    synapse = tokio::task::spawn_blocking(move || {
        synapse.kill();
        synapse
    })
    .await
    .unwrap();
    let state = running.until(|state| state.last_error.is_some()).await;
    assert!(state.logged_in);
    // A send meanwhile waits for the homeserver.
    let (account, room_id) = (running.account.clone(), room.room_id().to_string());
    let waiting = tokio::spawn(send_late(account, room_id));
    let _synapse = tokio::task::spawn_blocking(move || {
        synapse.run();
        synapse
    })
    .await
    .unwrap();
    running.until(|state| state.last_error.is_none()).await;
    waiting.await.unwrap().unwrap();
    let sent = alice.place_call(room.room_id(), "after").await;
    loop {
        let event = running.call_event().await;
        if event.content["call_id"] == "after" {
            break;
        }
    }
    assert_eq!(running.call().await, sent[1..]);
    assert_ne!(recorder.session()["access_token"], token, "the token was refreshed and saved");
    for key in ["access_token", "refresh_token"] {
        let refreshed = recorder.session()[key].as_str().unwrap().to_owned();
        assert_eq!(recorder.settings.redactor.clean(&format!("x{refreshed}")), "x[redacted]");
    }
    running.stop().await;

    let restarted = recorder.start().await;
    assert_eq!(alice.client.get_room(room.room_id()).unwrap().state(), RoomState::Joined);
    restarted.stop().await;
}

async fn send_late(account: MatrixAccount, room_id: String) -> Result<String, SendError> {
    let content = json!({ "call_id": "meanwhile", "party_id": "R", "version": "1" });
    account.send(&room_id, "m.call.candidates", content, Urgency::Call, Duration::from_secs(60)).await
}
