//! Connections that are up and bring nothing.

use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::json;

use super::support::*;
use crate::ports::{ConnectionState, Direction};

fn told(tree: &Tree) -> (usize, usize) {
    (tree.events("stalled"), tree.events("flowing"))
}

/// A packet arrives now on the newest stream of these lines.
fn arrive(tree: &Tree, lines: &[usize]) {
    let now = tree.now().as_nanos();
    tree.media.change(|facts| {
        for line in lines {
            let ring = facts.media[*line].streams.last().unwrap();
            ring.counters.last_arrival.store(now, Ordering::Relaxed);
        }
    });
}

async fn flows_for(tree: &Tree, seconds: u64, lines: &[usize]) {
    for _ in 0..seconds {
        arrive(tree, lines);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

fn is_stalled(tree: &Tree) -> bool {
    tree.board.calls()[0].participants[0].stalled
}

#[test]
fn a_connection_that_is_up_and_brings_nothing_is_told_once_and_the_call_goes_on() {
    on_paused_time(async {
        let tree = Tree::recorded_call().await;
        let before = tree.generations();
        flows_for(&tree, 20, &[0, 1]).await;
        assert!(!is_stalled(&tree));
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(is_stalled(&tree));
        let warnings = tree.board.happenings();
        assert_eq!(warnings.iter().filter(|what| what.text.contains("Nothing arrives from Ada")).count(), 1);
        flows_for(&tree, 20, &[0]).await;
        assert!(!is_stalled(&tree), "one line that flows is enough");
        assert_eq!(tree.generations(), before);
        assert_eq!(tree.segments.all.lock().unwrap().len(), 2);
        tree.hang_up().await;
        assert_eq!(told(&tree), (1, 1));
    });
}

#[test]
fn a_connection_that_never_brought_anything_is_told_as_well() {
    on_paused_time(async {
        let tree = Tree::start();
        tree.invite().await;
        until("the answer", || tree.signalling.count("m.call.answer") == 1).await;
        let mut microphone = tree.media.media("0", "user", recorder_core::media::Codec::Opus);
        microphone.streams.clear();
        tree.media.change(|facts| {
            facts.state = ConnectionState::Connected;
            facts.media = vec![microphone];
        });
        tokio::time::sleep(Duration::from_secs(15)).await;
        assert!(is_stalled(&tree));
        tree.hang_up().await;
        assert_eq!(told(&tree), (1, 0));
    });
}

#[test]
fn silence_of_who_is_muted_held_off_or_disconnected_is_nothing_to_tell() {
    on_paused_time(async {
        let tree = Tree::recorded_call().await;
        let metadata = |muted| {
            json!({"sdp_stream_metadata": {"user":
                {"purpose": "m.usermedia", "audio_muted": muted, "video_muted": muted}}})
        };
        let minute = Duration::from_secs(60);
        flows_for(&tree, 2, &[0, 1]).await;
        tree.event("m.call.sdp_stream_metadata_changed", CALLER, metadata(true)).await;
        tokio::time::sleep(minute).await;
        tree.event("m.call.sdp_stream_metadata_changed", CALLER, metadata(false)).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        flows_for(&tree, 2, &[0, 1]).await;
        let set = |direction| {
            tree.media.change(|facts| facts.media.iter_mut().for_each(|media| media.direction = direction));
        };
        for direction in [Direction::SendOnly, Direction::RecvOnly] {
            set(direction);
            tokio::time::sleep(minute).await;
            set(Direction::SendRecv);
            flows_for(&tree, 2, &[0, 1]).await;
        }
        tree.media.change(|facts| facts.state = ConnectionState::Disconnected);
        tokio::time::sleep(Duration::from_secs(30)).await;
        tree.media.change(|facts| facts.state = ConnectionState::Connected);
        flows_for(&tree, 2, &[0, 1]).await;
        tree.hang_up().await;
        assert_eq!(told(&tree), (0, 0));
    });
}

#[test]
fn a_screen_that_stands_still_is_nothing_to_tell() {
    on_paused_time(async {
        let tree = Tree::recorded_call().await;
        let screen = tree.media.media("2", "screen", recorder_core::media::Codec::Vp8);
        tree.media.change(|facts| {
            facts.media.push(screen);
            facts.media[0].direction = Direction::RecvOnly;
            facts.media[1].direction = Direction::RecvOnly;
        });
        tokio::time::sleep(Duration::from_secs(60)).await;
        tree.hang_up().await;
        assert_eq!(told(&tree), (0, 0));
    });
}
