//! The account against a real homeserver: logins, restarts, invites, order, late keys, gaps, outages.

#![recursion_limit = "512"]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends where it fails")]

mod support {
    pub mod account;
    pub mod holding_proxy;
    pub mod synapse;
}

use std::time::Duration;

use matrix_call_recorder::adapters::matrix::{AccountError, ErrorClass, MatrixAccount, SendError};
use matrix_sdk::RoomState;
use matrix_sdk::ruma::UserId;
use serde_json::json;
use support::account::{Person, Recorder, Running, call, mode, register, synapse};
use support::holding_proxy::HoldingProxy;
use support::synapse::{Synapse, free_port};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A room of Alice's that the recorder has joined.
async fn together(alice: &Person, running: &Running, encrypted: bool) -> matrix_sdk::Room {
    let user = running.account.user_id();
    let room = alice.create_room(encrypted, &user).await;
    alice.joined(&room, &user).await;
    // Others may see a join before it is answered.
    alice.until(async |_| running.account.room_info(room.room_id().as_str()).await).await;
    room
}

/// Alice under a name of her own, allowed by the recorder.
async fn alice(recorder: &mut Recorder, url: &str, name: &str) -> Person {
    use matrix_call_recorder::adapters::matrix::AllowList;
    recorder.settings.allow = AllowList::parse(&[format!("@{name}:localhost")]).unwrap();
    Person::new(url, name).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_restores_the_same_device_and_needs_no_password() {
    let url = &synapse().await.url;
    let mut recorder = Recorder::new(url, "restored").await;
    recorder.settings.store_passphrase_file = Some(recorder.secret("passphrase", "open sesame"));
    let first = recorder.start().await;
    let device = first.account.device_id();
    let state = first.account.state().borrow().clone();
    assert!(state.logged_in && state.last_sync_utc_micros.is_some() && state.last_error.is_none());
    first.stop().await;
    assert_eq!(mode(&recorder.settings.state_dir.join("session.json")), 0o600);

    recorder.settings.password_file = None;
    let second = recorder.start().await;
    assert_eq!(second.account.device_id(), device);
    second.stop().await;

    recorder.settings.store_passphrase_file = Some(recorder.secret("passphrase", "open barley"));
    let error = recorder.fails().await;
    assert!(matches!(error, AccountError::StorePassphraseWrong { .. }), "{error:?}");
    assert_eq!(error.class(), ErrorClass::Storage);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_login_makes_an_identity_and_keeps_its_recovery_key() {
    let url = &synapse().await.url;
    let mut recorder = Recorder::new(url, "identity").await;
    let running = recorder.start().await;
    let recovery_key = recorder.settings.state_dir.join("recovery-key");
    assert_eq!(mode(&recovery_key), 0o600);
    let written = std::fs::read_to_string(&recovery_key).unwrap();

    let other = Person::new(url, "identity-watcher").await;
    let user = UserId::parse(running.account.user_id()).unwrap();
    let device = running.account.device_id();
    let room = other.create_room(true, user.as_str()).await;
    drop(room);
    other.client.encryption().request_user_identity(&user).await.unwrap().expect("an identity");
    let seen = other
        .client
        .encryption()
        .get_device(&user, device.as_str().into())
        .await
        .unwrap()
        .expect("the device");
    assert!(seen.is_cross_signed_by_owner());
    running.stop().await;

    // A lost store: a new device, which the saved recovery key verifies; the identity is the same one.
    let before = other.client.encryption().request_user_identity(&user).await.unwrap().unwrap();
    recorder.settings.store = recorder.folder.path().join("second store");
    std::fs::remove_file(recorder.settings.state_dir.join("session.json")).unwrap();
    let again = recorder.start().await;
    let device = again.account.device_id();
    let after = other.client.encryption().request_user_identity(&user).await.unwrap().unwrap();
    assert_eq!(before.master_key().get_first_key(), after.master_key().get_first_key());
    let seen = other
        .client
        .encryption()
        .get_device(&user, device.as_str().into())
        .await
        .unwrap()
        .expect("the device");
    assert!(seen.is_cross_signed_by_owner());
    assert_eq!(std::fs::read_to_string(&recovery_key).unwrap(), written);
    again.stop().await;

    // Without the key the identity stays as it is, and the recorder works all the same.
    std::fs::remove_file(&recovery_key).unwrap();
    recorder.settings.store = recorder.folder.path().join("third store");
    std::fs::remove_file(recorder.settings.state_dir.join("session.json")).unwrap();
    let unverified = recorder.start().await;
    let after = other.client.encryption().request_user_identity(&user).await.unwrap().unwrap();
    assert_eq!(before.master_key().get_first_key(), after.master_key().get_first_key());
    assert!(!recovery_key.exists());
    unverified.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_and_an_unknown_user_are_told_as_such() {
    let url = &synapse().await.url;
    let mut recorder = Recorder::new(url, "mistyped").await;
    recorder.settings.password_file = Some(recorder.secret("password", "not it"));
    let error = recorder.fails().await;
    assert!(matches!(error, AccountError::WrongPassword { .. }), "{error:?}");
    assert_eq!(error.class(), ErrorClass::Authentication);
    assert!(!error.to_string().contains("not it"));

    recorder.settings.user = "@nobody:localhost".to_owned();
    let error = recorder.fails().await;
    assert!(matches!(error, AccountError::WrongPassword { .. }), "{error:?}");

    // The right password works afterwards, on the store the failed attempts left.
    recorder.settings.user = "@mistyped:localhost".to_owned();
    recorder.settings.password_file = Some(recorder.secret("password", "password"));
    recorder.start().await.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_access_token_of_a_fresh_device_logs_in_and_is_restored() {
    let url = &synapse().await.url;
    let (user, token, device) = register(url, "tokened").await;
    let mut recorder = Recorder::of(url, &user);
    recorder.settings.access_token_file = Some(recorder.secret("token", &token));
    let first = recorder.start().await;
    assert_eq!(first.account.device_id(), device);
    first.stop().await;
    let second = recorder.start().await;
    assert_eq!(second.account.device_id(), device);
    second.stop().await;

    recorder.settings.access_token_file = Some(recorder.secret("token", "nonsense"));
    std::fs::remove_file(recorder.settings.state_dir.join("session.json")).unwrap();
    let error = recorder.fails().await;
    assert!(matches!(error, AccountError::TokenRejected), "{error:?}");

    let (_, other, _) = register(url, "tokened-other").await;
    recorder.settings.access_token_file = Some(recorder.secret("token", &other));
    let error = recorder.fails().await;
    assert!(matches!(error, AccountError::TokenOfAnotherUser { .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_access_token_of_a_device_with_keys_is_refused_when_the_store_is_empty() {
    let url = &synapse().await.url;
    let person = Person::new(url, "elsewhere").await;
    let mut recorder = Recorder::of(url, "@elsewhere:localhost");
    let token = person.client.access_token().unwrap();
    recorder.settings.access_token_file = Some(recorder.secret("token", &token));
    let error = recorder.fails().await;
    assert!(matches!(error, AccountError::DeviceHasKeys { .. }), "{error:?}");
    assert_eq!(error.class(), ErrorClass::Authentication);
    assert!(!error.to_string().contains(&token));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_homeserver_and_a_web_page_are_told_apart() {
    let mut recorder = Recorder::of(&format!("http://127.0.0.1:{}", free_port()), "@a:localhost");
    recorder.settings.password_file = Some(recorder.secret("password", "password"));
    let error = recorder.fails().await;
    assert!(matches!(error, AccountError::HomeserverUnreachable { .. }), "{error:?}");
    assert_eq!(error.class(), ErrorClass::Transient);

    for status in ["200 OK", "404 Not Found", "503 Service Unavailable"] {
        recorder.settings.homeserver = web_page(status).await;
        let error = recorder.fails().await;
        match status {
            "503 Service Unavailable" => {
                assert!(matches!(error, AccountError::HomeserverFailing { .. }), "{error:?}")
            }
            _ => assert!(matches!(error, AccountError::NotAHomeserver { .. }), "{status}: {error:?}"),
        }
    }

    for nonsense in ["", "localhost", "ftp://localhost", "http://"] {
        recorder.settings.homeserver = nonsense.to_owned();
        let error = recorder.fails().await;
        assert!(matches!(error, AccountError::BadHomeserver { .. }), "{nonsense}: {error:?}");
    }
}

/// A server that answers everything with a page.
async fn web_page(status: &'static str) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let page = "<html>It works!</html>";
            let head =
                format!("HTTP/1.1 {status}\r\nContent-Type: text/html\r\nContent-Length: {}\r\n", page.len());
            let _ = client.read(&mut [0; 8192]).await;
            let _ = client.write_all(format!("{head}Connection: close\r\n\r\n{page}").as_bytes()).await;
        }
    });
    url
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_and_a_store_that_do_not_belong_together_are_refused() {
    let url = &synapse().await.url;
    let mut recorder = Recorder::new(url, "mixed").await;
    recorder.start().await.stop().await;
    let own = std::mem::replace(&mut recorder.settings.store, recorder.folder.path().join("another store"));
    let error = recorder.fails().await;
    assert!(matches!(error, AccountError::StoreLost { .. }), "{error:?}");

    // The session of another device beside this store.
    recorder.settings.state_dir = recorder.folder.path().join("another state");
    recorder.start().await.stop().await;
    recorder.settings.store = own;
    let error = recorder.fails().await;
    assert!(matches!(error, AccountError::StoreOfAnotherDevice { .. }), "{error:?}");
    assert_eq!(error.class(), ErrorClass::Storage);

    std::fs::write(recorder.settings.state_dir.join("session.json"), "{\"access_token\": \"syt_secret\", ")
        .unwrap();
    let error = recorder.fails().await;
    assert!(matches!(error, AccountError::SessionBroken { .. }), "{error:?}");
    assert!(!error.to_string().contains("syt_secret"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_in_use_is_refused() {
    let url = &synapse().await.url;
    let recorder = Recorder::new(url, "twice").await;
    let running = recorder.start().await;
    let error = recorder.fails().await;
    assert!(matches!(error, AccountError::StoreLocked { .. }), "{error:?}");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn invites_are_accepted_from_the_allow_list_only_pending_ones_included() {
    let url = &synapse().await.url;
    let mut recorder = Recorder::new(url, "invited").await;
    let alice = alice(&mut recorder, url, "inviting").await;
    let eve = Person::new(url, "uninvited").await;
    // Both asked before the recorder was ever started.
    let welcome = alice.create_room(false, "@invited:localhost").await;
    let refused = eve.create_room(false, "@invited:localhost").await;
    let running = recorder.start().await;
    alice.joined(&welcome, "@invited:localhost").await;
    let encrypted = together(&alice, &running, true).await;

    let bot = UserId::parse("@invited:localhost").unwrap();
    let membership = eve
        .until(async |_| {
            let member = refused.get_member(&bot).await.ok().flatten()?;
            let membership = member.membership().as_str().to_owned();
            (membership != "invite").then_some(membership)
        })
        .await;
    assert_eq!(membership, "leave");
    for room in [&welcome, &encrypted] {
        let greeting = alice.until(async |_| greeting(room).await).await;
        assert_eq!(greeting["body"], "hello, I record");
        assert_eq!(greeting["formatted_body"], "hello, I <b>record</b>");
    }
    let totals = &recorder.board.totals;
    assert_eq!(totals.room_invites_accepted.load(std::sync::atomic::Ordering::Relaxed), 2);
    assert_eq!(totals.room_invites_refused.load(std::sync::atomic::Ordering::Relaxed), 1);

    let room = running.account.room_info(encrypted.room_id().as_str()).await.unwrap();
    assert_eq!((room.name.as_str(), room.encrypted, room.joined_members), ("The room", true, 2));
    let plain = running.account.room_info(welcome.room_id().as_str()).await.unwrap();
    assert!(!plain.encrypted);
    let name = running.account.member_name(welcome.room_id().as_str(), "@inviting:localhost").await;
    assert_eq!(name.as_deref(), Some("inviting"));
    assert!(running.account.turn_servers().await.is_empty());

    running.account.leave_room(welcome.room_id().as_str()).await.unwrap();
    running.stop().await;
}

/// The greeting in a room, decrypted.
async fn greeting(room: &matrix_sdk::Room) -> Option<serde_json::Value> {
    let page = room.messages(matrix_sdk::room::MessagesOptions::backward()).await.ok()?;
    page.chunk.iter().find_map(|event| {
        let event: serde_json::Value = event.raw().deserialize_as_unchecked().ok()?;
        (event["content"]["msgtype"] == "m.notice").then(|| event["content"].clone())
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invite_cannot_make_the_recorder_leave_another_room() {
    let url = &synapse().await.url;
    let mut recorder = Recorder::new(url, "steadfast").await;
    let alice = alice(&mut recorder, url, "alice-steadfast").await;
    let running = recorder.start().await;
    let good = together(&alice, &running, false).await;
    // Eve's room says that it replaces the good one.
    let (_, eve, _) = register(url, "eve-steadfast").await;
    let body = json!({
        "invite": ["@steadfast:localhost"],
        "creation_content": { "predecessor": { "room_id": good.room_id(), "event_id": "$x" } },
    });
    call(url, "POST", "_matrix/client/v3/createRoom", Some(&eve), body).await;
    let refused = || recorder.board.totals.room_invites_refused.load(std::sync::atomic::Ordering::Relaxed);
    alice.until(async |_| (refused() == 1).then_some(())).await;
    let bot = UserId::parse("@steadfast:localhost").unwrap();
    let member = good.get_member(&bot).await.unwrap().unwrap();
    assert_eq!(member.membership().as_str(), "join");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_plain_and_encrypted_rooms_arrive_once_and_in_order() {
    let url = &synapse().await.url;
    let mut recorder = Recorder::new(url, "ordered").await;
    let alice = alice(&mut recorder, url, "alice-ordered").await;
    let mut running = recorder.start().await;
    for encrypted in [false, true] {
        let room = together(&alice, &running, encrypted).await;
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
        let answer =
            running.account.send(room_id, "m.call.answer", content, Duration::from_secs(10)).await.unwrap();
        let echo = running.call_event().await;
        assert_eq!(
            (echo.event_id, echo.sender, echo.encrypted),
            (answer, running.account.user_id(), encrypted)
        );
    }
    let absent =
        running.account.send("!nowhere:localhost", "m.call.answer", json!({}), Duration::from_secs(5)).await;
    assert!(matches!(absent, Err(SendError::NotInRoom { .. })));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_room_key_delivers_the_invite_before_what_followed_it() {
    let url = &synapse().await.url;
    let mut recorder = Recorder::new(url, "patient").await;
    let alice = alice(&mut recorder, url, "alice-patient").await;
    let mut running = recorder.start().await;
    let room = together(&alice, &running, true).await;
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
    let alice = alice(&mut recorder, url, "alice-later").await;
    let running = recorder.start().await;
    let room = together(&alice, &running, true).await;
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
    let alice = alice(&mut recorder, url, "alice-away").await;
    let mut running = recorder.start().await;
    let room = together(&alice, &running, true).await;
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
async fn after_a_crash_only_what_was_not_handled_is_delivered_again() {
    let url = &synapse().await.url;
    let mut recorder = Recorder::new(url, "crashing").await;
    let alice = alice(&mut recorder, url, "alice-crashing").await;
    let mut running = recorder.start().await;
    let room = together(&alice, &running, false).await;
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
async fn an_ended_session_is_published_and_told_at_the_next_start() {
    let url = &synapse().await.url;
    let recorder = Recorder::new(url, "ended").await;
    let running = recorder.start().await;
    let token = recorder.session()["access_token"].as_str().unwrap().to_owned();
    call(url, "POST", "_matrix/client/v3/logout", Some(&token), json!({})).await;
    let state = running.until(|state| state.token_revoked).await;
    assert!(!state.logged_in && state.last_error.is_some());
    assert!(!recorder.board.account.load().logged_in);
    running.stop().await;
    let error = recorder.fails().await;
    assert!(matches!(error, AccountError::TokenRevoked { .. }), "{error:?}");
    assert_eq!(error.class(), ErrorClass::Authentication);
    assert!(!error.to_string().contains(&token));
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
    let alice = alice(&mut recorder, &url, "alice-enduring").await;
    let mut running = recorder.start().await;
    let room = together(&alice, &running, true).await;
    let token = recorder.session()["access_token"].clone();
    // More at once than the homeserver takes: each is sent in the end, in order.
    let content = json!({ "call_id": "many", "party_id": "R", "version": "1" });
    for _ in 0..10 {
        let (room_id, limit) = (room.room_id().as_str(), Duration::from_secs(30));
        let sent = running.account.send(room_id, "m.call.candidates", content.clone(), limit).await.unwrap();
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
    running.stop().await;

    let restarted = recorder.start().await;
    assert_eq!(alice.client.get_room(room.room_id()).unwrap().state(), RoomState::Joined);
    restarted.stop().await;
}

async fn send_late(account: MatrixAccount, room_id: String) -> Result<String, SendError> {
    let content = json!({ "call_id": "meanwhile", "party_id": "R", "version": "1" });
    account.send(&room_id, "m.call.candidates", content, Duration::from_secs(60)).await
}
