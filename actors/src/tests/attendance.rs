//! Who is in a call: who cannot be reached, who comes and goes, who stays beyond their membership.

use std::time::Duration;

use recorder_core::mesh::{CALL_EVENT, MEMBER_EVENT};
use serde_json::{Value, json};

use super::scene::*;
use super::support::*;
use crate::ports::ConnectionState;

#[test]
fn whom_no_call_can_reach_makes_one_session_until_their_event_changes() {
    on_paused_time(async {
        let mut scene = Scene::start().await;
        scene.say(ADA, "!record auto on").await;
        scene.member(ADA, "killed").await;
        until("the session", || *scene.tree.shared.running().borrow() == 1).await;
        tokio::time::sleep(Duration::from_secs(70)).await;
        let manifest = scene.ended("unreachable").await;
        assert_eq!(manifest["participants"], json!([]), "who was never connected is nobody in the session");
        assert!(scene.tree.rooms.said("nobody in the call could be reached"));
        tokio::time::sleep(Duration::from_secs(1_200)).await;
        let begun = || scene.tree.rooms.of("name").iter().filter(|name| name.is_string()).count();
        assert_eq!(begun(), 1, "it stands in the room's state for an hour");

        // What waits for a call does not take her for one.
        scene.say(ADA, "!record auto off").await;
        scene.say(ADA, "!start").await;
        until("the answer", || scene.tree.rooms.said("Nobody is in a call here yet")).await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(begun(), 1);
        scene.member(ADA, "back").await;
        scene.connect(ADA, "back").await;
        scene.running(2).await;
        scene.say(ADA, "!stop").await;
        scene.ended("stopped").await;
    });
}

#[test]
fn whom_a_call_loses_and_no_longer_reaches_holds_up_neither_its_end_nor_the_next_one() {
    on_paused_time(async {
        let mut scene = Scene::recorded().await;
        scene.say(ADA, "!record auto on").await;
        scene.member(ALF, "killed").await;
        tokio::time::sleep(Duration::from_secs(70)).await;
        scene.leaves(ADA).await;
        tokio::time::sleep(Duration::from_secs(50)).await;
        scene.ended("everyone_left").await;
        tokio::time::sleep(Duration::from_secs(600)).await;
        assert_eq!(*scene.tree.shared.running().borrow(), 0);
        scene.member(ADA, "s2").await;
        scene.connect(ADA, "s2").await;
        scene.running(2).await;
        scene.say(ADA, "!stop").await;
        scene.ended("stopped").await;
        // Who has stopped it wants no other one, but for a gathering that is new.
        scene.leaves(ADA).await;
        tokio::time::sleep(Duration::from_secs(70)).await;
        scene.member(ADA, "s3").await;
        scene.connect(ADA, "s3").await;
        scene.running(2).await;
    });
}

#[test]
fn devices_that_come_and_go_without_being_connected_leave_nothing_behind() {
    on_paused_time(async {
        let mut scene = Scene::recorded().await;
        for round in 0..50 {
            let devices: Vec<_> = (0..8).map(|n| scene.device(&format!("{round}-{n}"), "s1")).collect();
            scene.members(ALF, &devices).await;
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        let shown = || scene.tree.board.calls()[0].participants.len();
        assert_eq!(shown(), 1);
        let totals = &scene.tree.board.totals;
        let refused = || totals.participants_refused.load(std::sync::atomic::Ordering::Relaxed);
        assert_eq!(refused(), 400 - 64, "beyond their bound they are counted");
        let warned =
            |warning: &str| scene.tree.board.happenings().iter().any(|said| said.text.contains(warning));
        assert!(warned("A device of @alf:hs is not recorded"));
        // Others have their places.
        scene.member(EVA, "s1").await;
        scene.connect(EVA, "s1").await;
        scene.running(4).await;
        scene.say(ADA, "!stop").await;
        let manifest = scene.ended("stopped").await;
        let people = manifest["participants"].as_array().unwrap();
        let ids: Vec<_> = people.iter().map(|person| (&person["id"], &person["user_id"])).collect();
        assert_eq!(ids, [(&json!("p1"), &json!(ADA)), (&json!("p2"), &json!(EVA))]);
    });
}

#[test]
fn who_comes_back_with_a_new_session_before_the_old_one_has_run_out_has_two_stays() {
    on_paused_time(async {
        let mut scene = Scene::recorded().await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        scene.member(ADA, "after a crash").await;
        scene.connect(ADA, "after a crash").await;
        until("the second stay", || scene.tree.board.calls()[0].participants[0].stays.len() == 2).await;
        scene.running(2).await;
        scene.say(ADA, "!stop").await;
        let manifest = scene.ended("stopped").await;
        let stays = manifest["participants"][0]["presence"].as_array().unwrap();
        let reasons: Vec<_> = stays.iter().map(|stay| &stay["reason"]).collect();
        assert_eq!(reasons, ["connection_lost", "session_ended"], "{stays:?}");
        assert_eq!(stays[0]["left_s"], stays[1]["joined_s"]);
    });
}

#[test]
fn who_opted_out_from_the_start_has_a_stay_without_a_name_and_without_being_connected() {
    on_paused_time(async {
        let scene = Scene::recorded().await;
        scene.say(ALF, "!record optout").await;
        scene.member(ALF, "s1").await;
        until("the stay", || scene.tree.board.calls()[0].participants.len() == 2).await;
        scene.say(ADA, "!stop").await;
        let manifest = scene.ended("stopped").await;
        let alf = &manifest["participants"][1];
        assert_eq!((&alf["user_id"], &alf["tracks"]), (&Value::Null, &json!([])));
        assert_eq!(alf["presence"].as_array().unwrap().len(), 1);
    });
}

#[test]
fn whose_membership_could_not_be_refreshed_is_recorded_for_as_long_as_media_flows() {
    on_paused_time(async {
        let scene = Scene::recorded().await;
        tokio::time::sleep(Duration::from_secs(5_000)).await;
        assert_eq!(scene.tree.segments.running().len(), 2, "an outage of the homeserver is no farewell");
        scene.tree.media.change_at(0, |facts| facts.state = ConnectionState::Failed);
        scene.running(0).await;
        tokio::time::sleep(Duration::from_secs(50)).await;
        scene.ended("everyone_left").await;
    });
}

#[test]
fn a_conference_id_that_two_rooms_have_does_not_lead_signals_to_the_wrong_one() {
    on_paused_time(async {
        let mut scene = Scene::recorded().await;
        let other = "!other:hs";
        let say = |kind, key, content| scene.tree.event_in(other, kind, ADA, key, content);
        say(CALL_EVENT, Some(CONF), json!({"m.intent": "m.room", "m.type": "m.video"})).await;
        let device = scene.device("D", "elsewhere");
        let member = json!({"m.calls": [{"m.call_id": CONF, "m.devices": [device]}]});
        say(MEMBER_EVENT, Some(ADA), member).await;
        say("m.room.message", None, json!({"msgtype": "m.text", "body": "!start"})).await;
        until("our second membership", || scene.tree.rooms.of(MEMBER_EVENT).len() == 2).await;
        // The scene takes what we published last for ours.
        scene.connect(ADA, "elsewhere").await;
        scene.running(4).await;
        let rooms: Vec<_> = scene.tree.board.calls().iter().map(|call| call.room_id.clone()).collect();
        assert_eq!(rooms, [ROOM, other]);
        let streams: Vec<_> =
            scene.tree.board.calls().iter().map(|call| call.participants[0].tracks.len()).collect();
        assert_eq!(streams, [2, 2]);
    });
}
