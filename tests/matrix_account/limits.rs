//! A homeserver that lets an account send ten events and then one in five seconds, as Synapse does where nobody changed
//! it.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use recorder_actors::ports::Urgency;
use serde_json::{Value, json};

use crate::account::{Recorder, call, register};
use crate::synapse::Synapse;

/// Two in each room.
const CALLS: usize = 12;

/// Rooms of somebody's, with the account in them. Making and joining them is taken from the same limits.
async fn rooms(url: &str, token: &str) -> Vec<String> {
    let (_, theirs, _) = register(url, "caller").await;
    let mut rooms = Vec::new();
    for _ in 0..CALLS / 2 {
        let path = "_matrix/client/v3/createRoom";
        let made = call(url, "POST", path, Some(&theirs), json!({ "preset": "public_chat" })).await;
        let room = made["room_id"].as_str().unwrap_or_else(|| panic!("{made}")).to_owned();
        let path = format!("_matrix/client/v3/join/{room}");
        let joined = call(url, "POST", &path, Some(token), json!({})).await;
        assert_eq!(joined["room_id"], *room, "{joined}");
        rooms.push(room);
    }
    rooms
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_of_many_calls_at_once_go_out_before_everything_else() {
    let fast = json!({ "per_second": 10_000, "burst_count": 10_000 });
    let usual = json!({ "per_second": 0.2, "burst_count": 10 });
    let synapse = tokio::task::spawn_blocking(move || {
        Synapse::start_with(json!({ "rc_message": usual, "rc_room_creation": fast }))
    });
    let mut synapse = synapse.await.unwrap();
    let (user, token, _) = register(&synapse.url, "bot").await;
    let rooms = rooms(&synapse.url, &token).await;
    // What was spent so far is forgotten.
    let synapse = tokio::task::spawn_blocking(move || {
        synapse.kill();
        synapse.run();
        synapse
    });
    let synapse = synapse.await.unwrap();
    let mut recorder = Recorder::of(&synapse.url, &user);
    recorder.settings.access_token_file = Some(recorder.secret("token", &token));
    let running = recorder.start().await;

    let (account, began) = (&running.account, Instant::now());
    let send = async |room: String, kind: &str, content: Value, urgency| {
        account.send(&room, kind, content, urgency, Duration::from_secs(120)).await.unwrap();
        urgency
    };
    let send = &send;
    // Each room as a call sends: the answer, the end of candidates, and that it is being recorded.
    let calls = rooms.iter().chain(&rooms).cloned().flat_map(|room| {
        let about = json!({ "call_id": "c", "party_id": "P", "version": "1" });
        let words = json!({ "msgtype": "m.text", "body": "you are being recorded" });
        [
            send(room.clone(), "m.call.answer", about.clone(), Urgency::Call),
            send(room.clone(), "m.call.candidates", about, Urgency::Candidates),
            send(room, "m.room.message", words, Urgency::People),
        ]
    });
    let calls: FuturesUnordered<_> = calls.collect();
    let sent: Vec<_> = calls.take(CALLS + 1).collect().await;
    assert_eq!(sent[..CALLS], [Urgency::Call; CALLS]);
    assert_eq!(sent[CALLS], Urgency::People, "then people are told");
    assert!(began.elapsed() >= Duration::from_secs(9), "the limit was felt: {:?}", began.elapsed());
    running.stop().await;
}
