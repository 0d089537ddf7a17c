//! A process that ends in a group call, and the next one.

use std::time::Duration;

use recorder_core::mesh::CALL_EVENT;
use serde_json::json;

use super::scene::*;
use super::support::*;

#[test]
fn the_next_process_gives_up_what_waits_to_take_its_membership() {
    on_paused_time(async {
        let scene = Scene::recorded().await;
        let remembered = || {
            let records = scene.tree.rooms.records.lock().unwrap();
            records.last().and_then(|(_, record)| record.delay.clone())
        };
        until("the delay to be kept", || remembered().is_some()).await;
        // This one is killed: the homeserver waits for a word of it that will not come.
        let next = scene.tree.next_process();
        next.event("m.room.message", ADA, json!({"msgtype": "m.text", "body": "hello"})).await;
        until("the end of the delay", || next.rooms.of("cancel") == [json!("delay-1")]).await;
    });
}

/// Bytes and files of each track of the call's first participant, as the page has them.
fn figures(scene: &Scene) -> Vec<(String, u64, u32)> {
    let calls = scene.tree.board.calls();
    let tracks = calls.first().and_then(|call| call.participants.first()).map(|person| &person.tracks);
    tracks.into_iter().flatten().map(|track| (track.id.clone(), track.bytes, track.segments)).collect()
}

fn each(bytes: u64, files: u32) -> Vec<(String, u64, u32)> {
    ["p1-microphone-1", "p1-camera-1"].map(|track| (track.to_owned(), bytes, files)).to_vec()
}

#[test]
fn figures_are_of_all_connections_and_processes_that_had_the_session() {
    on_paused_time(async {
        let mut scene = Scene::recorded().await;
        until("the first files", || figures(&scene) == each(1_000, 1)).await;
        scene.leaves(ADA).await;
        scene.running(0).await;
        scene.member(ADA, "s1").await;
        scene.connect(ADA, "s1").await;
        until("the rejoiner's files", || figures(&scene) == each(2_000, 2)).await;

        let mut scene = scene.restarted(json!({"m.intent": "m.room", "m.type": "m.video"})).await;
        until("what the process before wrote", || figures(&scene) == each(2_000, 2)).await;
        let status = || scene.tree.rooms.said("Joining the call") && scene.tree.rooms.said("1 participant");
        until("the status", status).await;
        scene.connect(ADA, "s1").await;
        until("the files of this one", || figures(&scene) == each(3_000, 3)).await;
        scene.say(ADA, "!stop").await;
        let manifest = scene.ended("stopped").await;
        assert_eq!(manifest["participants"].as_array().unwrap().len(), 1);
        assert!(scene.tree.rooms.said("I recorded 1 participant, 2 streams"));
    });
}

#[test]
fn a_call_whose_event_was_deleted_is_recorded_on_also_by_the_next_process() {
    on_paused_time(async {
        let scene = Scene::recorded().await;
        scene.tree.event("m.room.redaction", ALF, json!({"redacts": "$org.matrix.msc3401.call"})).await;
        // It is told again, as when a room's state is read anew.
        scene.tree.event_of(CALL_EVENT, ADA, Some(CONF), json!({})).await;
        tokio::time::sleep(Duration::from_secs(120)).await;
        assert_eq!(scene.tree.segments.running().len(), 2);

        let mut scene = scene.restarted(json!({})).await;
        scene.connect(ADA, "s1").await;
        scene.running(2).await;
        let because = scene.tree.segments.all.lock().unwrap()[0].because.clone();
        assert_eq!(
            (because.as_str(), scene.tree.sessions.abandoned.lock().unwrap().len()),
            ("process_restarted", 0)
        );
        scene.leaves(ADA).await;
        tokio::time::sleep(Duration::from_secs(50)).await;
        scene.ended("everyone_left").await;
    });
}
