//! What is said of calls that an earlier process left.

use std::sync::Arc;

use matrix_call_recorder::adapters::legacy_call::say_farewell;
use matrix_call_recorder::adapters::live_calls::LiveCallFile;
use matrix_sdk::Room;
use matrix_sdk::room::MessagesOptions;
use recorder_actors::ports::{Clock, LiveCall, LiveCalls};

use crate::account::{Person, Recorder, synapse};

/// Types of what the recorder sent into a room, in the order of their names.
async fn heard(room: &Room, recorder: &str) -> Vec<String> {
    let messages = room.messages(MessagesOptions::backward()).await.unwrap();
    let theirs = messages.chunk.iter().filter_map(|event| {
        let event: serde_json::Value = event.raw().deserialize_as_unchecked().ok()?;
        (event["sender"] == recorder && event.get("state_key").is_none())
            .then(|| event["type"].as_str().unwrap().to_owned())
    });
    let mut theirs: Vec<_> = theirs.collect();
    theirs.sort();
    theirs
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_was_just_cut_off_is_hung_up_with_a_word_and_one_of_last_week_without() {
    let url = &synapse().await.url;
    let mut recorder = Recorder::new(url, "departing").await;
    let ada = recorder.ally("departing-ada").await;
    let running = recorder.start().await;
    let now = recorder.clock.utc_micros();
    let folder = tempfile::tempdir().unwrap();
    let (list, _) = LiveCallFile::open(folder.path());
    let mut rooms = Vec::new();
    for seen_utc_micros in [now - 90_000_000, now - 7 * 86_400_000_000] {
        let room = running.together(&ada, false).await;
        let call = LiveCall {
            room: room.room_id().to_string(),
            call_id: "c".into(),
            caller: ada.client.user_id().unwrap().to_string(),
            version: 1,
            seen_utc_micros,
        };
        list.add(call).await;
        rooms.push(room);
    }
    let me = running.account.user_id();
    for room in &rooms {
        let greeted = async |_: &Person| (!heard(room, &me).await.is_empty()).then_some(());
        ada.until(greeted).await;
    }
    let (list, left) = LiveCallFile::open(folder.path());
    say_farewell(running.account.clone(), list, left, Arc::clone(&recorder.clock) as _).await;
    // Each has its greeting.
    assert_eq!(heard(&rooms[0], &me).await, ["m.call.hangup", "m.room.message", "m.room.message"]);
    assert_eq!(heard(&rooms[1], &me).await, ["m.call.hangup", "m.room.message"]);
    assert!(LiveCallFile::open(folder.path()).1.is_empty());
    running.stop().await;
}
