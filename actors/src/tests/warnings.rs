//! What may end a recording, or keep somebody out of it, stands in the room's status message while it is so.

use std::sync::atomic::Ordering;
use std::time::Duration;

use recorder_core::mesh::MEMBER_EVENT;
use serde_json::json;

use super::scene::{ADA, ALF, Scene};
use super::support::*;

#[test]
fn power_that_is_taken_away_is_told_and_shown_until_it_is_given_back_and_the_recording_goes_on() {
    on_paused_time(async {
        let scene = Scene::recorded().await;
        let levels = async |own: i64| {
            scene.tree.powers.lock().unwrap().own = own;
            scene.tree.event_of("m.room.power_levels", ADA, Some(""), json!({})).await;
        };
        levels(0).await;
        until("the notice", || scene.tree.rooms.said("I record on until my place in the call runs out"))
            .await;
        until("the warning", || scene.status().contains("⚠ My power level is 0 now")).await;
        levels(50).await;
        until("no warning", || !scene.status().contains('⚠')).await;
        assert_eq!(scene.tree.segments.running().len(), 2);
        scene.say(ADA, "!stop").await;
        let manifest = scene.ended("stopped").await;
        let events = manifest["events"].as_array().unwrap();
        let what: Vec<_> = events
            .iter()
            .filter(|event| event["kind"] == "warning")
            .map(|event| &event["detail"]["what"])
            .collect();
        assert_eq!(what, ["power_lost", "power_regained"]);
    });
}

#[test]
fn a_membership_that_is_not_renewed_is_shown_until_it_is() {
    on_paused_time(async {
        let scene = Scene::recorded().await;
        let published = || scene.tree.rooms.of(MEMBER_EVENT).len();
        let before = published();
        scene.tree.rooms.refuse_state.store(true, Ordering::Relaxed);
        // Three quarters of an hour later.
        for _ in 0..50 {
            tokio::time::sleep(Duration::from_secs(60)).await;
        }
        assert!(published() > before);
        assert!(
            scene.status().contains("⚠ The homeserver refuses to renew my place in the call"),
            "{}",
            scene.status()
        );
        assert_eq!(scene.tree.segments.running().len(), 2, "what flows is recorded");
        let tries = published();
        scene.tree.rooms.refuse_state.store(false, Ordering::Relaxed);
        until("the next try", || published() > tries).await;
        tokio::time::sleep(Duration::from_secs(70)).await;
        assert!(!scene.status().contains('⚠'), "{}", scene.status());
    });
}

#[test]
fn who_is_in_the_call_and_cannot_be_reached_is_named_unless_they_opted_out() {
    on_paused_time(async {
        let scene = Scene::recorded().await;
        scene.member(ALF, "s1").await;
        until("the warning", || scene.status().contains("No connection to Ada: nothing of them is recorded"))
            .await;
        scene.say(ALF, "!optout").await;
        until("no warning", || !scene.status().contains('⚠')).await;
    });
}

#[test]
fn a_call_whose_people_all_opted_out_is_not_shown_as_being_joined_for_ever() {
    on_paused_time(async {
        let mut scene = Scene::start().await;
        scene.say(ADA, "!optout").await;
        scene.member(ADA, "s1").await;
        scene.say(ADA, "!start").await;
        until("our joining", || scene.tree.rooms.said("○ Joining the call")).await;
        scene.connect(ADA, "s1").await;
        until("that it records", || scene.status().starts_with("● Recording")).await;
        assert!(scene.status().contains("Everybody in the call has opted out: nothing is recorded"));
        assert!(scene.tree.segments.all.lock().unwrap().is_empty());
        scene.say(ADA, "!optin").await;
        scene.running(2).await;
        until("no warning", || !scene.status().contains('⚠')).await;
    });
}
