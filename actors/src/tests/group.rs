//! A room whose call is recorded by command: people come, go, come back and object.

use std::time::Duration;

use recorder_core::mesh::CALL_EVENT;
use recorder_core::room::Waits;
use serde_json::{Value, json};

use super::scene::*;
use super::support::*;
use crate::testing::{Point, arm};

#[test]
fn a_command_is_acknowledged_whatever_else_waits_to_be_said() {
    on_paused_time(async {
        let scene = Scene::start().await;
        scene.member(ADA, "s1").await;
        scene.tree.rooms.silent.store(true, std::sync::atomic::Ordering::Relaxed);
        scene.say(ADA, "!record help").await;
        scene.say(ADA, "!record start").await;
        until("both reactions", || scene.tree.rooms.of("react") == [json!("✅"), json!("✅")]).await;
    });
}

#[test]
fn a_command_joins_the_call_tells_everybody_and_another_one_ends_it() {
    on_paused_time(async {
        let scene = Scene::recorded().await;
        let rooms = &scene.tree.rooms;
        until("the announcement", || rooms.said("recording has begun")).await;
        assert_eq!(rooms.of("react"), [json!("✅")]);
        assert_eq!(rooms.of("name"), [json!("● REC bot")]);
        scene.say(ADA, "!stop").await;
        let manifest = scene.ended("stopped").await;
        assert_eq!(manifest["call_kind"], "mesh");
        assert_eq!((&manifest["started_by"], &manifest["stopped_by"]), (&json!(ADA), &json!(ADA)));
        assert_eq!(manifest["participants"][0]["user_id"], ADA);
        until("the name", || rooms.of("name").last() == Some(&Value::Null)).await;
        assert!(scene.tree.media.all_closed());
    });
}

#[test]
fn a_name_that_the_homeserver_does_not_take_back_at_first_is_put_right_later() {
    on_paused_time(async {
        let scene = Scene::recorded().await;
        let called = json!({"membership": "join", "displayname": "House Scribe"});
        scene.tree.event_of("m.room.member", "@bot:hs", Some("@bot:hs"), called).await;
        until("the name", || scene.tree.rooms.of("name").last() == Some(&json!("● REC House Scribe"))).await;
        scene.tree.rooms.refuse_names.store(true, std::sync::atomic::Ordering::Relaxed);
        scene.say(ADA, "!stop").await;
        scene.ended("stopped").await;
        let tries =
            || scene.tree.rooms.of("name").iter().filter(|name| **name == json!("House Scribe")).count();
        until("some tries", || tries() == 3).await;
        scene.tree.rooms.refuse_names.store(false, std::sync::atomic::Ordering::Relaxed);
        until("the last", || tries() == 4).await;
        tokio::time::sleep(Duration::from_secs(600)).await;
        assert_eq!(tries(), 4, "once it was taken");
        assert_eq!(scene.tree.rooms.records.lock().unwrap().last().unwrap().1.durable.renamed, None);
    });
}

#[test]
fn a_mention_is_understood_by_whatever_name_the_room_shows_us() {
    on_paused_time(async {
        let scene = Scene::start().await;
        scene.member(ADA, "s1").await;
        let mention = async |name: &str, text: &str| {
            let content = json!({"msgtype": "m.text", "body": format!("{name} {text}"),
                "formatted_body": format!("<a href=\"https://matrix.to/#/@bot:hs\">{name}</a> {text}"),
                "m.mentions": {"user_ids": ["@bot:hs"]}});
            scene.tree.event("m.room.message", ADA, content).await
        };
        let called = json!({"membership": "join", "displayname": "Scribe of the House"});
        scene.tree.event_of("m.room.member", "@bot:hs", Some("@bot:hs"), called).await;
        mention("Scribe of the House", "start").await;
        until("the name", || scene.tree.rooms.of("name") == [json!("● REC Scribe of the House")]).await;
        let recording = json!({"membership": "join", "displayname": "● REC Scribe of the House"});
        scene.tree.event_of("m.room.member", "@bot:hs", Some("@bot:hs"), recording).await;
        mention("● REC Scribe of the House", "stop").await;
        until("the end", || *scene.tree.shared.running().borrow() == 0).await;
        assert_eq!(scene.tree.rooms.of("react"), [json!("✅"), json!("✅")]);
    });
}

#[test]
fn a_room_that_refuses_the_announcement_is_not_recorded_on() {
    on_paused_time(async {
        let scene = Scene::start().await;
        scene.member(ADA, "s1").await;
        scene.tree.rooms.refuse_messages.store(true, std::sync::atomic::Ordering::Relaxed);
        scene.say(ADA, "!start").await;
        until("the end", || *scene.tree.shared.running().borrow() == 0).await;
        let manifest = serde_json::to_value(scene.tree.manifest()).unwrap();
        assert_eq!(
            (&manifest["state"], &manifest["end_reason"]),
            (&json!("complete"), &json!("not_announced"))
        );
        assert!(scene.tree.happened("the homeserver refused the message that tells people of it"));
        assert!(scene.own_devices().is_empty());
    });
}

#[test]
fn a_membership_that_is_refused_ends_in_words_that_name_the_permission() {
    on_paused_time(async {
        let scene = Scene::start().await;
        scene.member(ADA, "s1").await;
        scene.tree.rooms.refuse_state.store(true, std::sync::atomic::Ordering::Relaxed);
        scene.say(ADA, "!start").await;
        until("the end", || scene.tree.rooms.said("The recording has ended: the homeserver does not let me"))
            .await;
        assert!(scene.tree.rooms.said("power level that `org.matrix.msc3401.call.member` needs"));
        assert_eq!(serde_json::to_value(scene.tree.manifest()).unwrap()["end_reason"], "not_permitted");
    });
}

#[test]
fn as_many_calls_as_may_be_are_recorded_and_a_room_that_has_to_wait_is_told_nothing_else() {
    on_paused_time(async {
        let mut scene = Scene { tree: Tree::with_calls(1), made: 0 };
        let content = json!({"m.intent": "m.room", "m.type": "m.video"});
        scene.tree.event_of(CALL_EVENT, ADA, Some(CONF), content).await;
        scene.tree.invite().await;
        until("the answer", || scene.tree.signalling.count("m.call.answer") == 1).await;
        scene.made += 1;
        scene.member(ADA, "s1").await;
        scene.say(ADA, "!start").await;
        let rooms = scene.tree.rooms.clone();
        until("the reason", || rooms.said("records 1 call at once") && rooms.said("`calls.max`")).await;
        assert_eq!((rooms.of("say").len(), rooms.of("name").len()), (1, 0));
        scene.tree.event("m.call.hangup", CALLER, json!({"reason": "user_hangup"})).await;
        scene.connect(ADA, "s1").await;
        scene.running(2).await;
        let offer = json!({"offer": {"type": "offer", "sdp": "v=0"}, "call_id": "c2", "lifetime": 60_000});
        scene.tree.event("m.call.invite", CALLER, offer).await;
        until("the rejection", || scene.tree.signalling.count("m.call.reject") == 1).await;
        scene.say(ADA, "!stop").await;
        scene.ended("stopped").await;
    });
}

#[test]
fn the_next_recording_of_a_room_takes_the_place_of_the_last_where_there_is_but_one() {
    on_paused_time(async {
        let mut scene = Scene { tree: Tree::with_calls(1), made: 0 };
        let content = json!({"m.intent": "m.room", "m.type": "m.video"});
        scene.tree.event_of(CALL_EVENT, ADA, Some(CONF), content).await;
        scene.member(ADA, "s1").await;
        scene.say(ADA, "!start").await;
        scene.connect(ADA, "s1").await;
        scene.running(2).await;
        let both = ["!stop", "!start"].map(|text| json!({"msgtype": "m.text", "body": text}));
        scene.tree.events_at_once("m.room.message", both.to_vec()).await;
        until("the next", || scene.tree.rooms.of("react").len() == 3 && scene.own_devices().len() == 1).await;
        until("both announcements", || {
            let said = scene.tree.rooms.of("say");
            said.iter().filter(|said| said["body"].as_str().unwrap().contains("recording has begun")).count()
                == 2
        })
        .await;
        assert!(!scene.tree.rooms.said("call at once"));
    });
}

#[test]
fn nothing_begins_in_a_room_where_we_may_not_speak() {
    on_paused_time(async {
        let scene = Scene::start().await;
        scene.member(ADA, "s1").await;
        scene.tree.powers.lock().unwrap().message = 60;
        scene.say(ADA, "!start").await;
        until("the report", || scene.tree.happened("sending messages needs power level 60")).await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_eq!(*scene.tree.shared.running().borrow(), 0);
        assert_eq!((scene.tree.rooms.of("name").len(), scene.own_devices().len()), (0, 0));
        assert_eq!(scene.tree.rooms.of("react"), [json!("❌")]);
    });
}

#[test]
fn a_late_command_of_somebody_who_was_banned_meanwhile_is_not_obeyed() {
    on_paused_time(async {
        let scene = Scene::recorded().await;
        scene.tree.gone.store(true, std::sync::atomic::Ordering::Relaxed);
        scene.say(ADA, "!stop").await;
        let refused = &scene.tree.board.totals.commands_refused;
        until("the refusal", || refused.load(std::sync::atomic::Ordering::Relaxed) == 1).await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_eq!(scene.tree.segments.running().len(), 2);
    });
}

#[test]
fn start_waits_for_somebody_to_be_there() {
    on_paused_time(async {
        let mut scene = Scene::start().await;
        scene.say(ADA, "!start").await;
        until("the answer", || scene.tree.rooms.said("Nobody is in a call here yet")).await;
        assert_eq!(scene.own_devices().len(), 0);
        let rooms = || scene.tree.board.rooms();
        until("the room to be shown", || rooms().len() == 1).await;
        let room = rooms().remove(0);
        assert_eq!((room.waiting, room.by.as_deref()), (Waits::Start, Some(ADA)));
        assert_eq!((room.room_id.as_str(), room.room_name.as_str()), (ROOM, "Podcast"));
        scene.member(ALF, "s1").await;
        scene.connect(ALF, "s1").await;
        scene.running(2).await;
        assert!(scene.tree.board.rooms().is_empty());
        scene.say(ADA, "!record auto on").await;
        scene.say(ADA, "!stop").await;
        scene.ended("stopped").await;
        until("the room to be shown again", || scene.tree.board.rooms().len() == 1).await;
        assert_eq!(scene.tree.board.rooms()[0].waiting, Waits::Auto);
    });
}

#[test]
fn who_comes_late_is_told_and_who_comes_back_goes_on_in_the_same_tracks() {
    on_paused_time(async {
        let mut scene = Scene::recorded().await;
        scene.member(ALF, "s1").await;
        scene.connect(ALF, "s1").await;
        scene.running(4).await;
        until("the late one to be told", || scene.tree.rooms.said("@alf:hs: this call is being recorded"))
            .await;
        scene.leaves(ALF).await;
        scene.running(2).await;
        scene.member(ALF, "s2").await;
        scene.connect(ALF, "s2").await;
        scene.running(4).await;
        let people = scene.tree.board.calls()[0].participants.clone();
        let stays: Vec<_> = people.iter().map(|one| one.stays.len()).collect();
        assert_eq!((stays, people[1].stays[1].left_utc_micros), (vec![1, 2], None));
        assert!(
            people[1].stays[0]
                .left_utc_micros
                .is_some_and(|left| left <= people[1].stays[1].joined_utc_micros)
        );
        assert!(people.iter().all(|one| one.told && one.present));
        scene.say(ADA, "!stop").await;
        let manifest = scene.ended("stopped").await;
        let people = manifest["participants"].as_array().unwrap();
        assert_eq!(people.len(), 2);
        let stays = |at: usize| people[at]["presence"].as_array().unwrap().len();
        assert_eq!((stays(0), stays(1)), (1, 2));
        let begun = scene.tree.segments.all.lock().unwrap();
        let of_alf: Vec<_> = begun.iter().filter(|segment| segment.track.starts_with("p2")).collect();
        let because: Vec<_> = of_alf.iter().map(|segment| segment.because.as_str()).collect();
        assert_eq!(because, ["first", "first", "reconnected", "reconnected"]);
        assert_eq!(of_alf[0].track, of_alf[2].track);
    });
}

#[test]
fn an_objection_ends_the_files_of_that_user_and_of_nobody_else() {
    on_paused_time(async {
        let mut scene = Scene::recorded().await;
        scene.member(ALF, "s1").await;
        scene.connect(ALF, "s1").await;
        scene.running(4).await;
        scene.say(ALF, "!record optout").await;
        scene.running(2).await;
        assert!(scene.tree.segments.running().iter().all(|segment| segment.track.starts_with("p1")));
        assert!(scene.tree.rooms.records.lock().unwrap().last().unwrap().1.durable.opted_out.contains(ALF));
        scene.say(ADA, "!stop").await;
        let manifest = scene.ended("stopped").await;
        let kinds =
            manifest["events"].as_array().unwrap().iter().map(|event| event["kind"].as_str().unwrap());
        assert!(kinds.collect::<Vec<_>>().contains(&"opted_out"));
    });
}

#[test]
fn an_end_that_nobody_asked_for_and_one_by_somebody_who_opted_out_name_nobody() {
    on_paused_time(async {
        let scene = Scene::recorded().await;
        scene.leaves(ADA).await;
        tokio::time::sleep(Duration::from_secs(50)).await;
        assert_eq!(scene.ended("everyone_left").await["stopped_by"], Value::Null);
    });
    on_paused_time(async {
        let scene = Scene::recorded().await;
        scene.say(ADA, "!record optout").await;
        scene.say(ADA, "!stop").await;
        assert_eq!(scene.ended("stopped").await["stopped_by"], Value::Null);
    });
}

#[test]
fn a_panic_of_the_supervisor_costs_one_batch_and_the_recording_goes_on() {
    on_paused_time(async {
        let mut scene = Scene::recorded().await;
        arm(Point::SupervisorHandler, "supervisor", 1);
        assert!(!scene.say(ADA, "!stop").await, "the supervisor failed while it read this");
        scene.tree.mind_root();
        until("the next supervisor", || {
            scene.tree.mind_root();
            scene.tree.slot.addr().is_some()
        })
        .await;
        assert_eq!(scene.tree.segments.running().len(), 2);
        scene.member(ALF, "s1").await;
        scene.connect(ALF, "s1").await;
        scene.running(4).await;
        scene.say(ADA, "!stop").await;
        scene.ended("stopped").await;
        assert_eq!(scene.tree.segments.all.lock().unwrap().len(), 4, "no file was cut");
    });
}

#[test]
fn a_recording_ends_with_its_call_and_not_with_a_newer_one_in_the_room() {
    on_paused_time(async {
        let scene = Scene::recorded().await;
        let call = json!({"m.intent": "m.room", "m.type": "m.video"});
        tokio::time::sleep(Duration::from_secs(1)).await;
        scene.tree.event_of(CALL_EVENT, ALF, Some("newer"), call).await;
        tokio::time::sleep(Duration::from_secs(120)).await;
        assert_eq!(scene.tree.segments.running().len(), 2, "its people are still in the older one");
        let over = json!({"m.intent": "m.room", "m.type": "m.video", "m.terminated": "call_ended"});
        scene.tree.event_of(CALL_EVENT, ADA, Some(CONF), over).await;
        scene.ended("terminated").await;
    });
}

#[test]
fn an_orderly_stop_says_so_in_the_room_and_gives_the_name_back_before_it_is_over() {
    on_paused_time(async {
        let scene = Scene::recorded().await;
        scene.tree.shut_down();
        until("the end", || *scene.tree.shared.running().borrow() == 0).await;
        scene.tree.shared.rooms_told().await;
        let rooms = &scene.tree.rooms;
        assert_eq!(rooms.of("name"), [json!("● REC bot"), Value::Null]);
        let last = rooms.of("say").pop().unwrap();
        assert!(
            last["body"].as_str().unwrap().starts_with("○ Paused") && last["edit"] == json!(true),
            "{last}"
        );
        assert_eq!(serde_json::to_value(scene.tree.manifest()).unwrap()["state"], "recording");
    });
}

#[test]
fn a_homeserver_that_does_not_answer_holds_an_orderly_stop_up_for_two_seconds() {
    on_paused_time(async {
        let scene = Scene::recorded().await;
        scene.tree.rooms.silent.store(true, std::sync::atomic::Ordering::Relaxed);
        let began = tokio::time::Instant::now();
        scene.tree.shut_down();
        until("the end", || *scene.tree.shared.running().borrow() == 0).await;
        scene.tree.shared.rooms_told().await;
        assert!(began.elapsed() < Duration::from_millis(2_500), "{:?}", began.elapsed());
    });
}

#[test]
fn the_next_gathering_of_the_same_call_needs_another_word() {
    on_paused_time(async {
        let mut scene = Scene::recorded().await;
        scene.leaves(ADA).await;
        tokio::time::sleep(Duration::from_secs(50)).await;
        assert_eq!(*scene.tree.shared.running().borrow(), 1, "somebody may come back");
        scene.ended("everyone_left").await;
        scene.member(ADA, "s2").await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_eq!(*scene.tree.shared.running().borrow(), 0);
        scene.say(ADA, "!start").await;
        scene.connect(ADA, "s2").await;
        scene.running(2).await;
        assert_eq!(scene.tree.segments.all.lock().unwrap()[2].because, "first", "another session");
        scene.say(ADA, "!stop").await;
        scene.ended("stopped").await;
    });
}

#[test]
fn a_command_is_obeyed_that_was_said_while_the_first_sync_was_slow() {
    on_paused_time(async {
        let tree = Tree::start();
        tokio::time::sleep(Duration::from_secs(40)).await;
        tree.said_ago(Duration::from_secs(50), ADA, "!record help").await;
        tree.said_ago(Duration::from_secs(30), ADA, "!start").await;
        until("the answer", || tree.rooms.said("Nobody is in a call here yet")).await;
        assert!(!tree.rooms.said("What I understand"), "that was said to nobody");
    });
}
