//! Invites: whose are accepted, and what they cannot do.

use matrix_sdk::ruma::UserId;
use serde_json::json;

use crate::account::{Person, Recorder, call, register, synapse};

#[tokio::test(flavor = "multi_thread")]
async fn invites_are_accepted_from_the_allow_list_only_pending_ones_included() {
    let url = &synapse().await.url;
    let mut recorder = Recorder::new(url, "invited").await;
    let alice = recorder.ally("inviting").await;
    let eve = Person::new(url, "uninvited").await;
    // Both asked before the recorder was ever started.
    let welcome = alice.create_room(false, "@invited:localhost").await;
    let refused = eve.create_room(false, "@invited:localhost").await;
    let running = recorder.start().await;
    alice.joined(&welcome, "@invited:localhost").await;
    let encrypted = running.together(&alice, true).await;

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

#[tokio::test(flavor = "multi_thread")]
async fn how_many_have_joined_a_room_is_known_without_asking() {
    let url = &synapse().await.url;
    let mut recorder = Recorder::new(url, "counting").await;
    let alice = recorder.ally("alice-counting").await;
    let running = recorder.start().await;
    let room = running.together(&alice, false).await;
    let id = room.room_id().as_str();
    let joined = async |members| {
        alice.until(async |_| (running.account.joined_members(id) == Some(members)).then_some(())).await;
    };
    joined(2).await;
    let bob = Person::new(url, "bob-counting").await;
    let user = bob.client.user_id().unwrap();
    room.invite_user_by_id(user).await.unwrap();
    bob.sync().await;
    bob.client.join_room_by_id(room.room_id()).await.unwrap();
    joined(3).await;
    assert_eq!(running.account.joined_members("!nowhere:localhost"), None);
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
async fn a_room_of_more_than_two_is_greeted_as_such_whether_or_not_all_have_come() {
    let url = &synapse().await.url;
    let mut recorder = Recorder::new(url, "polite").await;
    let alice = recorder.ally("alice-polite").await;
    let (carol, token, _) = register(url, "carol-polite").await;
    let running = recorder.start().await;
    let carol_id = UserId::parse(&carol).unwrap();
    for has_come in [false, true] {
        let room = alice.create_room(false, &carol).await;
        if has_come {
            let path = format!("_matrix/client/v3/join/{}", room.room_id());
            call(url, "POST", &path, Some(&token), json!({})).await;
            alice.joined(&room, carol_id.as_str()).await;
        }
        room.invite_user_by_id(&UserId::parse("@polite:localhost").unwrap()).await.unwrap();
        let greeting = alice.until(async |_| greeting(&room).await).await;
        assert_eq!(greeting["body"], "hello everybody", "{has_come}");
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invite_cannot_make_the_recorder_leave_another_room() {
    let url = &synapse().await.url;
    let mut recorder = Recorder::new(url, "steadfast").await;
    let alice = recorder.ally("alice-steadfast").await;
    let running = recorder.start().await;
    let good = running.together(&alice, false).await;
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
