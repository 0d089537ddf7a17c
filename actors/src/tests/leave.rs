//! The event by which the homeserver takes our membership back if we die.

use std::sync::atomic::Ordering;
use std::time::Duration;

use recorder_core::mesh::MEMBER_EVENT;
use serde_json::{Value, json};

use super::scene::*;
use super::support::*;

async fn passes(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

#[test]
fn the_leave_waits_from_our_first_membership_on_and_is_given_up_when_we_have_left() {
    on_paused_time(async {
        let scene = Scene::recorded().await;
        let rooms = &scene.tree.rooms;
        until("the delay", || rooms.of("delay") == [json!({"m.calls": []})]).await;
        passes(61).await;
        assert_eq!(rooms.of("restart"), [json!("delay-1"), json!("delay-1"), json!("delay-1")]);
        assert_eq!(rooms.of("cancel"), [Value::Null; 0]);
        scene.say(ADA, "!stop").await;
        scene.ended("stopped").await;
        until("the end of the delay", || rooms.of("cancel") == [json!("delay-1")]).await;
        passes(60).await;
        assert_eq!((rooms.of("restart").len(), rooms.of("delay").len()), (3, 1));
    });
}

#[test]
fn a_delay_that_is_lost_or_could_not_be_begun_is_begun_again_and_again() {
    on_paused_time(async {
        let scene = Scene::recorded().await;
        let rooms = &scene.tree.rooms;
        until("the delay", || rooms.of("delay").len() == 1).await;
        rooms.no_delays.store(true, Ordering::Relaxed);
        passes(101).await;
        assert_eq!((rooms.of("restart").len(), rooms.of("delay").len()), (1, 6), "each 20 s");
        rooms.no_delays.store(false, Ordering::Relaxed);
        passes(41).await;
        assert_eq!(rooms.of("restart").last(), Some(&json!("delay-2")));
        // Ours is refreshed; what waits says what it said before, and is left alone.
        passes(2_800).await;
        assert_eq!((rooms.of("delay").len(), rooms.of("cancel").len()), (7, 0));
        scene.say(ADA, "!stop").await;
        scene.ended("stopped").await;
        until("the end of the delay", || rooms.of("cancel") == [json!("delay-2")]).await;
    });
}

#[test]
fn a_membership_that_could_not_be_taken_back_is_left_to_the_homeserver() {
    on_paused_time(async {
        let scene = Scene::recorded().await;
        let rooms = &scene.tree.rooms;
        until("the delay", || rooms.of("delay").len() == 1).await;
        rooms.refuse_state.store(true, Ordering::Relaxed);
        scene.say(ADA, "!stop").await;
        scene.ended("stopped").await;
        let restarted = rooms.of("restart").len();
        passes(120).await;
        assert_eq!((rooms.of("cancel").len(), rooms.of("restart").len()), (0, restarted));
    });
}

#[test]
fn what_a_removal_left_of_our_membership_is_taken_back_when_we_are_in_the_room_again() {
    on_paused_time(async {
        let bot = "@bot:hs";
        let scene = Scene::recorded().await;
        scene.is(bot, "join").await;
        let ours = scene.tree.rooms.of(MEMBER_EVENT).pop().unwrap();
        scene.tree.event_of(MEMBER_EVENT, bot, Some(bot), ours).await;
        scene.is(bot, "leave").await;
        until("the end", || *scene.tree.shared.running().borrow() == 0).await;
        assert_eq!((scene.tree.manifest().ended_s.is_some(), scene.own_devices().len()), (true, 1));
        scene.is(bot, "join").await;
        until("our leave", || scene.own_devices().is_empty()).await;
        assert_eq!(scene.tree.rooms.of(MEMBER_EVENT).len(), 2, "once");
    });
}
