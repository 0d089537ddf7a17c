//! State of rooms: what is told of it and when, what we set, and what needs a power.

use std::time::{Duration, Instant};

use matrix_call_recorder::adapters::matrix::{Delivery, RoomEvent};
use matrix_sdk::ruma::UserId;
use recorder_actors::ports::{Rooms, SignallingError};
use serde_json::json;

use crate::account::{Person, Recorder, Running, synapse};
use crate::{CALL, CALL_MEMBER, DELAYING, Meeting, PATIENCE, set, share};

/// `type state_key session` of a state event of a room.
fn told(event: &RoomEvent) -> String {
    let session = event.content["m.calls"][0]["m.devices"][0]["session_id"].as_str().unwrap_or_default();
    format!("{} {} {session}", event.event_type, event.state_key.as_deref().unwrap_or_default())
}

/// The first events of a room, in order.
async fn first_events(running: &mut Running, room: &str, count: usize) -> Vec<RoomEvent> {
    let mut events = Vec::new();
    while events.len() < count {
        events.push(running.event(|event| event.room_id == room).await);
    }
    events
}

#[tokio::test(flavor = "multi_thread")]
async fn the_state_of_calls_is_told_first_when_a_room_is_joined_and_at_each_start() {
    let url = tokio::task::spawn_blocking(|| DELAYING.url.clone()).await.unwrap();
    let mut recorder = Recorder::new(&url, "stateful").await;
    let alice = recorder.ally("alice-stateful").await;
    let (bot, alice_id) = ("@stateful:localhost", "@alice-stateful:localhost");
    let room = alice.create_room(false, "@nobody:localhost").await;
    let id = room.room_id().to_string();
    let conference = json!({ "m.intent": "m.room", "m.type": "m.video" });
    set(&room, CALL, "conf", conference.clone()).await;
    set(&room, CALL_MEMBER, alice_id, share("s0")).await;
    let newest = set(&room, CALL_MEMBER, alice_id, share("s1")).await;
    for n in 0..60 {
        // The timeline of the first sync does not reach back to them.
        alice
            .send(room.room_id(), "m.room.message", json!({ "msgtype": "m.text", "body": format!("{n}") }))
            .await;
    }

    let mut running = recorder.start().await;
    room.invite_user_by_id(&UserId::parse(bot).unwrap()).await.unwrap();
    let state = [
        format!("m.room.member {alice_id} "),
        format!("m.room.member {bot} "),
        format!("{CALL} conf "),
        format!("{CALL_MEMBER} {alice_id} s1"),
    ];
    let mut first = first_events(&mut running, &id, 4).await;
    let share_event = first[3].clone();
    assert_eq!((share_event.event_id.as_str(), share_event.sender.as_str()), (newest.as_str(), alice_id));
    assert!(share_event.origin_server_ts > 1_600_000_000_000);
    assert!(share_event.age_at_receipt < Duration::from_secs(60), "{:?}", share_event.age_at_receipt);
    assert_eq!(first[2].content, conference);
    first[..2].sort_by_key(told);
    assert_eq!(first.iter().map(told).collect::<Vec<_>>(), state);

    // From then on each change.
    alice.joined(&room, bot).await;
    for session in ["s2", "s3"] {
        set(&room, CALL_MEMBER, alice_id, share(session)).await;
        let event = running.event(|event| event.event_type == CALL_MEMBER).await;
        assert_eq!(told(&event), format!("{CALL_MEMBER} {alice_id} {session}"));
    }
    running.finish_batch().await;
    running.stop().await;

    // What changed meanwhile is told as it is now, and not how it came to be.
    set(&room, CALL_MEMBER, alice_id, share("s4")).await;
    set(&room, CALL_MEMBER, alice_id, share("s5")).await;
    let mut running = recorder.start().await;
    let mut first = first_events(&mut running, &id, 4).await;
    first[..2].sort_by_key(told);
    let state = [&state[..3], &[format!("{CALL_MEMBER} {alice_id} s5")]].concat();
    assert_eq!(first.iter().map(told).collect::<Vec<_>>(), state);
    set(&room, CALL_MEMBER, alice_id, json!({})).await;
    let next = running.event(|event| event.event_type == CALL_MEMBER).await;
    assert_eq!(next.content, json!({}));

    // Who shares in no call any more is not looked up.
    running.finish_batch().await;
    running.stop().await;
    let mut running = recorder.start().await;
    let first = first_events(&mut running, &id, 3).await;
    let of_members = first.iter().map(told).filter(|event| event.starts_with("m.room.member")).count();
    assert_eq!(of_members, 1);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn we_share_in_a_call_where_the_powers_allow_it() {
    let mut meeting = Meeting::new("sharing", false).await;
    let bot = meeting.bot.clone();
    let before = meeting.rooms.powers(meeting.id.clone()).await.unwrap();
    assert_eq!((before.own, before.call_member, before.message, before.default), (0, 50, 0, 0));
    assert!(before.of(&meeting.alice_id()) >= 100);
    let (rooms, id) = (meeting.rooms.clone(), meeting.id.clone());
    let send = |content| rooms.send_state(id.clone(), CALL_MEMBER.to_owned(), bot.clone(), content, PATIENCE);
    let refused = send(share("r1")).await;
    assert!(
        matches!(&refused, Err(SignallingError::Refused(why)) if why.contains("M_FORBIDDEN")),
        "{refused:?}"
    );

    meeting.open_calls().await;
    let opened = |event: &RoomEvent| {
        event.event_type == "m.room.power_levels" && event.content["events"][CALL_MEMBER] == 0
    };
    meeting.running.event(opened).await;
    let after = meeting.rooms.powers(meeting.id.clone()).await.unwrap();
    assert_eq!((after.own, after.call_member), (0, 0));
    send(share("r2")).await.unwrap();
    meeting.until_seen(CALL_MEMBER, &bot, |content| *content == share("r2")).await;
    let echo = meeting.running.event(|event| event.event_type == CALL_MEMBER).await;
    assert_eq!((told(&echo), echo.sender), (format!("{CALL_MEMBER} {bot} r2"), bot));

    let nowhere = meeting.rooms.powers("!nowhere:localhost".to_owned()).await;
    assert!(nowhere.is_none());
    meeting.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delayed_leave_is_sent_when_it_is_no_longer_restarted() {
    let meeting = Meeting::new("delaying", false).await;
    meeting.open_calls().await;
    let bot = meeting.bot.clone();
    meeting.alice.sync().await;
    meeting
        .rooms
        .send_state(meeting.id.clone(), CALL_MEMBER.into(), bot.clone(), share("d"), PATIENCE)
        .await
        .unwrap();
    meeting.until_seen(CALL_MEMBER, &bot, |content| *content == share("d")).await;
    let delay = Duration::from_secs(3);
    let started = Instant::now();
    let leave = |delay| {
        meeting.rooms.send_state_later(meeting.id.clone(), CALL_MEMBER.into(), bot.clone(), json!({}), delay)
    };
    let delay_id = leave(delay).await.expect("a delay");
    let restarted = loop {
        assert!(meeting.rooms.restart_delay(delay_id.clone()).await);
        let restarted = Instant::now();
        // Twice as long as it would have taken.
        if started.elapsed() > delay * 2 {
            break restarted;
        }
        assert_eq!(meeting.seen(CALL_MEMBER, &bot).await, share("d"));
        meeting.alice.sync().await;
    };
    meeting.until_seen(CALL_MEMBER, &bot, |content| *content == json!({})).await;
    assert!(restarted.elapsed() >= delay - Duration::from_millis(500), "{:?}", restarted.elapsed());
    assert!(!meeting.rooms.restart_delay(delay_id).await);
    assert!(!meeting.rooms.restart_delay("nonsense/../x".to_owned()).await);

    // A longer delay than the homeserver allows becomes its longest.
    assert!(leave(Duration::from_secs(1_000_000)).await.is_some());
    meeting.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_homeserver_without_delays_is_never_sent_the_event() {
    let meeting = Meeting::at(&synapse().await.url, "undelayed", false).await;
    meeting.open_calls().await;
    meeting.alice.sync().await;
    let bot = meeting.bot.clone();
    meeting
        .rooms
        .send_state(meeting.id.clone(), CALL_MEMBER.into(), bot.clone(), share("u"), PATIENCE)
        .await
        .unwrap();
    for _ in 0..2 {
        let delay = Duration::from_secs(1);
        let later = meeting.rooms.send_state_later(
            meeting.id.clone(),
            CALL_MEMBER.into(),
            bot.clone(),
            json!({}),
            delay,
        );
        assert_eq!(later.await, None);
    }
    meeting.until_seen(CALL_MEMBER, &bot, |content| *content == share("u")).await;
    meeting.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn our_name_in_a_room_is_ours_there_only_and_comes_back() {
    let meeting = Meeting::new("named", false).await;
    let other = meeting.running.together(&meeting.alice, false).await;
    let bot = meeting.bot.clone();
    // A picture of our own stays.
    let client = &DELAYING.url;
    let token = meeting.recorder.session()["access_token"].as_str().unwrap().to_owned();
    let path = format!("_matrix/client/v3/profile/{bot}/avatar_url");
    crate::account::call(client, "PUT", &path, Some(&token), json!({ "avatar_url": "mxc://localhost/a" }))
        .await;
    meeting.until_seen("m.room.member", &bot, |member| member["avatar_url"] == "mxc://localhost/a").await;

    let name = |name: Option<&str>| {
        meeting.rooms.set_room_name(meeting.id.clone(), name.map(str::to_owned), PATIENCE)
    };
    name(Some("● REC recorder")).await.unwrap();
    let member = meeting.until_seen("m.room.member", &bot, |member| member["displayname"] != "named").await;
    let expected =
        json!({ "membership": "join", "displayname": "● REC recorder", "avatar_url": "mxc://localhost/a" });
    assert_eq!(member, expected);
    let elsewhere = other.get_member_no_sync(&UserId::parse(&bot).unwrap()).await.unwrap().unwrap();
    assert_eq!(elsewhere.display_name(), Some("named"));

    name(None).await.unwrap();
    let member = meeting.until_seen("m.room.member", &bot, |member| member["displayname"] == "named").await;
    assert_eq!(member["avatar_url"], "mxc://localhost/a");
    meeting.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn being_kicked_or_banned_is_told_and_an_upgrade_and_a_deleted_call_too() {
    let mut meeting = Meeting::new("kicked", false).await;
    let (alice, bot) = (meeting.alice_id(), UserId::parse(&meeting.bot).unwrap());
    let call = meeting.set(CALL, "conf", json!({ "m.intent": "m.room", "m.type": "m.video" })).await;
    let call = matrix_sdk::ruma::EventId::parse(call).unwrap();
    meeting.room.redact(&call, None, None).await.unwrap();
    let deleted = meeting.running.event(|event| event.event_type == "m.room.redaction").await;
    assert_eq!(deleted.content["redacts"], call.as_str());
    meeting
        .set("m.room.tombstone", "", json!({ "body": "moved", "replacement_room": "!new:localhost" }))
        .await;
    meeting.running.event(|event| event.event_type == "m.room.tombstone").await;

    for (membership, again) in [("leave", true), ("ban", false)] {
        match membership {
            "leave" => meeting.room.kick_user(&bot, Some("enough")).await.unwrap(),
            _ => meeting.room.ban_user(&bot, None).await.unwrap(),
        }
        let id = meeting.id.clone();
        let own = bot.to_string();
        let gone = meeting
            .running
            .event(|event| {
                event.room_id == id
                    && event.state_key.as_deref() == Some(&own)
                    && event.content["membership"] == membership
            })
            .await;
        assert_eq!(gone.sender, alice);
        assert!(meeting.rooms.powers(id.clone()).await.is_none());
        if again {
            // Joined anew, everything is told anew.
            meeting.room.invite_user_by_id(&bot).await.unwrap();
            let back = meeting.running.event(|event| event.room_id == id).await;
            assert_eq!(
                (back.state_key.as_deref(), &back.content["membership"]),
                (Some(own.as_str()), &json!("join"))
            );
        }
    }
    meeting.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_silent_and_left_is_told_as_gone_at_the_start() {
    let mut meeting = Meeting::new("absent", false).await;
    meeting.open_calls().await;
    let carol = Person::new(&DELAYING.url, "carol-absent").await;
    let carol_id = carol.client.user_id().unwrap().to_owned();
    meeting.room.invite_user_by_id(&carol_id).await.unwrap();
    let joined = carol.client.join_room_by_id(meeting.room.room_id()).await.unwrap();
    set(&joined, CALL_MEMBER, carol_id.as_str(), share("c")).await;
    meeting.running.event(|event| event.event_type == CALL_MEMBER).await;
    let scene = meeting.end().await;
    joined.leave().await.unwrap();
    let mut running = scene.recorder.start().await;
    let id = scene.id.clone();
    let mut gone = false;
    running
        .next(|delivery| match delivery {
            Delivery::Event(event)
                if event.room_id == id && event.state_key.as_deref() == Some(carol_id.as_str()) =>
            {
                gone |= event.event_type == "m.room.member" && event.content["membership"] == "leave";
                (event.event_type == CALL_MEMBER).then_some(())
            }
            _ => None,
        })
        .await;
    assert!(gone, "her membership is told before her share in the call");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_left_or_was_banned_is_known_to_have_also_where_the_sync_did_not_say_so() {
    let meeting = Meeting::new("absentees", false).await;
    let id = meeting.id.clone();
    let account = meeting.running.account.clone();
    assert!(!account.has_left(&id, &meeting.alice_id(), PATIENCE).await);
    assert!(!account.has_left(&id, "@nobody:localhost", PATIENCE).await, "nothing is known of them");
    assert!(account.has_left("!nowhere:localhost", &meeting.alice_id(), PATIENCE).await);

    let carol = Person::new(&DELAYING.url, "carol-absentees").await;
    let carol_id = carol.client.user_id().unwrap().to_owned();
    meeting.room.invite_user_by_id(&carol_id).await.unwrap();
    carol.client.join_room_by_id(meeting.room.room_id()).await.unwrap();
    meeting
        .alice
        .until(async |_| (!account.has_left(&id, carol_id.as_str(), PATIENCE).await).then_some(()))
        .await;
    meeting.room.ban_user(&carol_id, None).await.unwrap();
    meeting
        .alice
        .until(async |_| account.has_left(&id, carol_id.as_str(), PATIENCE).await.then_some(()))
        .await;

    // The same where the ban lies in a gap that no sync tells of.
    drop(account);
    let scene = meeting.end().await;
    let dan = Person::new(&DELAYING.url, "dan-absentees").await;
    let dan_id = dan.client.user_id().unwrap().to_owned();
    scene.room.invite_user_by_id(&dan_id).await.unwrap();
    dan.client.join_room_by_id(scene.room.room_id()).await.unwrap();
    scene.room.ban_user(&dan_id, None).await.unwrap();
    for n in 0..60 {
        let content = json!({ "msgtype": "m.text", "body": format!("{n}") });
        scene.alice.send(scene.room.room_id(), "m.room.message", content).await;
    }
    let running = scene.recorder.start().await;
    assert!(running.account.has_left(&id, dan_id.as_str(), PATIENCE).await);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_deleted_call_the_next_start_is_told_who_is_in_it() {
    let mut meeting = Meeting::new("deleted", false).await;
    meeting.open_calls().await;
    let call = meeting.set(CALL, "conf", json!({ "m.intent": "m.room", "m.type": "m.video" })).await;
    meeting.set(CALL_MEMBER, &meeting.alice_id(), share("s1")).await;
    meeting.room.redact(&matrix_sdk::ruma::EventId::parse(call).unwrap(), None, None).await.unwrap();
    let state = |event: &RoomEvent| matches!(event.event_type.as_str(), CALL | "m.room.redaction");
    assert_eq!(meeting.running.event(state).await.content["m.type"], "m.video");
    assert_eq!(
        meeting.running.event(state).await.event_type,
        "m.room.redaction",
        "its state is not told anew"
    );
    let scene = meeting.end().await;
    let mut running = scene.recorder.start().await;
    let of_calls = |event: &RoomEvent| event.room_id == scene.id && event.event_type.starts_with(CALL);
    let (call, member) = (running.event(of_calls).await, running.event(of_calls).await);
    assert_eq!((told(&call), call.content), (format!("{CALL} conf "), json!({})));
    assert_eq!(told(&member), format!("{CALL_MEMBER} {} s1", scene.alice_id()));
    running.stop().await;
}
