//! Events that nobody should send, at a tree that records: refused or absorbed, counted, and the recording goes on.

use std::sync::atomic::Ordering;
use std::time::Duration;

use recorder_core::media::Codec;
use serde_json::json;

use super::support::*;

const EVE: &str = "@eve:hs";

fn offer(sdp: &str) -> serde_json::Value {
    json!({"description": {"type": "offer", "sdp": sdp}})
}

fn ignored(tree: &Tree) -> u64 {
    tree.board.totals.signals_ignored.load(Ordering::Relaxed)
}

/// Both segments run on, nobody was restarted, and the session ends well.
async fn untouched(tree: &Tree, before: &Generations) {
    assert_eq!(tree.generations(), *before);
    assert_eq!((tree.segments.reasons("0"), tree.segments.reasons("1")), (first(), first()));
    assert_eq!(tree.segments.running().len(), 2);
    tree.hang_up().await;
    assert_eq!(serde_json::to_value(&tree.manifest().state).unwrap(), "complete");
    assert_eq!(serde_json::to_value(&tree.manifest().end_reason).unwrap(), "hangup");
}

fn first() -> Vec<String> {
    vec!["first".to_owned()]
}

#[test]
fn an_offer_every_ten_milliseconds_for_a_minute_is_paced_counted_and_coalesced() {
    on_paused_time(async {
        let tree = Tree::recorded_call().await;
        let before = tree.generations();
        for n in 0..6_000 {
            tree.event("m.call.negotiate", CALLER, offer(&n.to_string())).await;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        until("the newest offer", || {
            tree.media.offers.lock().unwrap().last().is_some_and(|last| last == "5999")
        })
        .await;
        let applied = tree.media.offers.lock().unwrap().len();
        assert!(applied < 200, "{applied} offers were applied");
        assert!(ignored(&tree) >= 5_800, "{} were counted", ignored(&tree));
        let answers = tree.signalling.count("m.call.negotiate");
        assert_eq!(answers, applied, "each that was applied has its answer");
        untouched(&tree, &before).await;
        assert!(
            tree.events("renegotiated") <= applied.min(150),
            "{} in the journal",
            tree.events("renegotiated")
        );
    });
}

#[test]
fn a_mute_that_changes_a_hundred_times_in_a_second_is_coalesced_in_the_journal() {
    on_paused_time(async {
        let tree = Tree::recorded_call().await;
        let before = tree.generations();
        for n in 0..1_000 {
            let muted = n % 2 == 0;
            let note =
                json!({"sdp_stream_metadata": {"user": {"purpose": "m.usermedia", "audio_muted": muted}}});
            tree.event("m.call.sdp_stream_metadata_changed", CALLER, note).await;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        untouched(&tree, &before).await;
        let told = tree.events("muted");
        assert!((10..=120).contains(&told), "{told} events of ten seconds");
        let manifest = serde_json::to_value(tree.manifest()).unwrap();
        let merged = manifest["events"].as_array().unwrap().iter();
        let counted: u64 = merged
            .filter(|event| event["kind"] == "muted")
            .map(|event| event["count"].as_u64().or(event["detail"]["count"].as_u64()).unwrap_or(1))
            .sum();
        assert_eq!(counted, 500, "every one is in a count");
    });
}

#[test]
fn a_third_party_in_the_room_cannot_speak_for_the_peer() {
    on_paused_time(async {
        let tree = Tree::recorded_call().await;
        let before = tree.generations();
        let streams =
            json!({"sdp_stream_metadata": {"user": {"purpose": "m.usermedia", "audio_muted": true}}});
        for (event_type, content) in [
            ("m.call.negotiate", offer("hers")),
            ("m.call.candidates", json!({"candidates": [{"candidate": "candidate:1", "sdpMid": "0"}]})),
            ("m.call.sdp_stream_metadata_changed", streams.clone()),
            ("org.matrix.call.sdp_stream_metadata_changed", streams),
            ("m.call.select_answer", json!({"selected_party_id": "ELSE"})),
            ("m.call.answer", json!({"answer": {"type": "answer", "sdp": "v=0"}})),
            ("m.call.reject", json!({})),
            ("m.call.hangup", json!({"reason": "user_hangup"})),
        ] {
            let counted = ignored(&tree);
            // With the caller's own party and call.
            tree.event(event_type, EVE, content).await;
            assert_eq!(ignored(&tree), counted + 1, "{event_type} is counted");
        }
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert!(tree.media.offers.lock().unwrap().is_empty());
        assert_eq!(tree.media.candidates.load(Ordering::Relaxed), 0);
        assert!(tree.board.calls()[0].participants[0].tracks.iter().all(|track| !track.muted));
        untouched(&tree, &before).await;
    });
}

#[test]
fn a_message_that_looks_like_a_tombstone_ends_no_call() {
    on_paused_time(async {
        let tree = Tree::recorded_call().await;
        let before = tree.generations();
        let content = json!({"body": "moved", "replacement_room": "!next:hs"});
        for (sender, state_key) in [(EVE, None), (CALLER, None), (EVE, Some("other"))] {
            tree.event_of("m.room.tombstone", sender, state_key, content.clone()).await;
        }
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(tree.signalling.count("m.call.hangup"), 0);
        untouched(&tree, &before).await;
    });
}

#[test]
fn another_device_of_the_caller_cannot_speak_for_the_one_in_the_call() {
    on_paused_time(async {
        let tree = Tree::recorded_call().await;
        let before = tree.generations();
        for (event_type, content) in [
            (
                "m.call.negotiate",
                json!({"party_id": "OTHER", "description": {"type": "offer", "sdp": "hers"}}),
            ),
            ("m.call.select_answer", json!({"party_id": "OTHER", "selected_party_id": "ELSE"})),
            ("m.call.hangup", json!({"party_id": "OTHER", "reason": "user_hangup"})),
        ] {
            tree.event(event_type, CALLER, content).await;
        }
        until("all to be counted", || ignored(&tree) == 3).await;
        assert!(tree.media.offers.lock().unwrap().is_empty());
        untouched(&tree, &before).await;
    });
}

#[test]
fn events_that_cannot_be_read_are_counted_and_change_nothing() {
    on_paused_time(async {
        let tree = Tree::recorded_call().await;
        let before = tree.generations();
        for content in [
            json!({}),
            json!({"description": null}),
            json!({"description": {"type": "offer"}}),
            json!({"description": {"type": "rollback", "sdp": "v=0"}}),
            json!({"description": {"type": ["offer"], "sdp": 7}}),
            json!({"description": {"type": "offer", "sdp": "x".repeat(100_000)}}),
        ] {
            tree.event("m.call.negotiate", CALLER, content).await;
        }
        tree.event("m.call.candidates", CALLER, json!({"candidates": "many"})).await;
        tree.event("m.call.sdp_stream_metadata_changed", CALLER, json!({"sdp_stream_metadata": []})).await;
        assert_eq!(ignored(&tree), 8);
        untouched(&tree, &before).await;
    });
}

#[test]
fn an_answer_to_nothing_and_whatever_comes_twice_are_absorbed() {
    on_paused_time(async {
        let tree = Tree::recorded_call().await;
        let before = tree.generations();
        for _ in 0..2 {
            tree.event("m.call.negotiate", CALLER, json!({"description": {"type": "answer", "sdp": "v=0"}}))
                .await;
            tree.event("m.call.select_answer", CALLER, json!({"selected_party_id": "BOT"})).await;
            tree.event("m.call.negotiate", CALLER, offer("the same")).await;
        }
        tree.invite().await;
        until("both offers", || tree.media.offers.lock().unwrap().len() == 2).await;
        assert_eq!(tree.signalling.count("m.call.answer"), 1, "an invite that comes again is known");
        assert_eq!(tree.board.calls().len(), 1);
        untouched(&tree, &before).await;
        tree.event("m.call.hangup", CALLER, json!({"reason": "user_hangup"})).await;
        tree.event("m.call.negotiate", CALLER, offer("after the end")).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(*tree.shared.running().borrow(), 0);
    });
}

#[test]
fn events_in_the_wrong_order_lose_no_call() {
    on_paused_time(async {
        let tree = Tree::start();
        let list =
            json!({"candidates": [{"candidate": "candidate:1 1 udp 1 127.0.0.1 9 typ host", "sdpMid": "0"}]});
        tree.event("m.call.candidates", CALLER, list).await;
        tree.event("m.call.negotiate", CALLER, offer("before its invite")).await;
        tree.invite().await;
        until("the answer", || tree.signalling.count("m.call.answer") == 1).await;
        until("what came before it", || {
            tree.media.candidates.load(Ordering::Relaxed) == 1 && tree.media.offers.lock().unwrap().len() == 1
        })
        .await;
        assert_eq!(tree.signalling.types()[0], "m.call.answer");
        // A hang-up that came before its invite ends a call that never rang.
        tree.event("m.call.hangup", CALLER, json!({"call_id": "c2"})).await;
        let invite = json!({"call_id": "c2", "offer": {"type": "offer", "sdp": "v=0"}, "lifetime": 60_000});
        tree.event("m.call.invite", CALLER, invite).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(tree.board.calls().len(), 1);
        tree.hang_up().await;
    });
}

#[test]
fn an_unknown_purpose_and_streams_that_nobody_sends_touch_no_track() {
    on_paused_time(async {
        let tree = Tree::recorded_call().await;
        let before = tree.generations();
        let notes = json!({"sdp_stream_metadata": {
            "user": {"purpose": "m.hologram"},
            "nowhere": {"purpose": "m.screenshare", "audio_muted": true, "video_muted": true},
        }});
        tree.event("m.call.sdp_stream_metadata_changed", CALLER, notes).await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_eq!(tree.board.calls()[0].participants[0].tracks.len(), 2);
        untouched(&tree, &before).await;
    });
}

#[test]
fn a_stream_of_an_unknown_purpose_is_recorded_as_unknown() {
    on_paused_time(async {
        let tree = Tree::recorded_call().await;
        let notes = json!({"sdp_stream_metadata": {"odd": {"purpose": "m.hologram"}}});
        tree.event("m.call.sdp_stream_metadata_changed", CALLER, notes).await;
        let odd = tree.media.media("2", "odd", Codec::Vp8);
        tree.media.change(|facts| facts.media.push(odd));
        until("its segment", || tree.segments.reasons("2") == ["first"]).await;
        assert!(tree.generations().contains_key(&format!("{PEER}/p1-unknown-1")));
        tree.hang_up().await;
        assert_eq!(serde_json::to_value(&tree.manifest().state).unwrap(), "complete");
    });
}
