//! What a caller hears when the disk has no space.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use serde_json::json;

use super::support::*;
use crate::ports::{ConnectionState, DiskLevel};

/// What was said in the room, in order.
fn said(tree: &Tree) -> Vec<String> {
    let sent = tree.signalling.sent.lock().unwrap();
    let messages = sent.iter().filter(|(kind, _)| kind == "m.room.message");
    messages.map(|(_, content)| content["body"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_call_while_the_disk_is_full_is_rejected_and_its_caller_told_why_once() {
    on_paused_time(async {
        let tree = Tree::start();
        tree.disk.send_replace(DiskLevel::AllStopped);
        for call in ["c1", "c2"] {
            let offer = json!({"offer": {"type": "offer", "sdp": "v=0"}, "call_id": call});
            tree.event("m.call.invite", CALLER, offer).await;
        }
        until("the rejections", || tree.signalling.count("m.call.reject") == 2).await;
        assert_eq!(tree.signalling.count("m.call.answer"), 0);
        assert_eq!(tree.board.totals.calls_refused_disk_full.load(Relaxed), 2);
        until("the reason", || said(&tree).len() == 1).await;
        assert!(said(&tree)[0].contains("my disk is full"), "{:?}", said(&tree));
        tree.disk.send_replace(DiskLevel::Plenty);
        let offer = json!({"offer": {"type": "offer", "sdp": "v=0"}, "call_id": "c3"});
        tree.event("m.call.invite", CALLER, offer).await;
        until("the answer", || tree.signalling.count("m.call.answer") == 1).await;
    });
}

#[test]
fn a_call_that_connects_when_the_disk_is_full_is_hung_up_and_nobody_is_told_of_a_recording() {
    on_paused_time(async {
        let tree = Tree::start();
        tree.invite().await;
        until("the answer", || tree.signalling.count("m.call.answer") == 1).await;
        tree.disk.send_replace(DiskLevel::AllStopped);
        tree.media.change(|facts| facts.state = ConnectionState::Connected);
        until("the end", || *tree.shared.running().borrow() == 0).await;
        assert_eq!(tree.signalling.count("m.call.hangup"), 1);
        assert!(matches!(&said(&tree)[..], [why] if why.contains("my disk is full")), "{:?}", said(&tree));
        assert!(tree.sessions.snapshots.lock().unwrap().is_empty(), "no session was opened");
        assert!(tree.live_calls.live.lock().unwrap().is_empty());
    });
}

#[test]
fn a_caller_hears_of_each_change_of_the_disk_less_at_once_and_more_in_its_time() {
    on_paused_time(async {
        let tree = Tree::recorded_call().await;
        until("the announcement", || said(&tree).len() == 1).await;
        tree.disk.send_replace(DiskLevel::VideoStopped);
        until("the first change", || said(&tree).len() == 2).await;
        tree.disk.send_replace(DiskLevel::AllStopped);
        until("the second change", || said(&tree).len() == 3).await;
        // It comes and goes: that is one word, when it has stayed.
        for _ in 0..5 {
            tree.disk.send_replace(DiskLevel::Plenty);
            tokio::time::sleep(Duration::from_secs(2)).await;
            tree.disk.send_replace(DiskLevel::AllStopped);
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
        assert_eq!(said(&tree).len(), 3, "{:?}", said(&tree));
        tree.disk.send_replace(DiskLevel::Plenty);
        until("the third change", || said(&tree).len() == 4).await;
        tree.hang_up().await;
        let said = said(&tree);
        for (text, part) in
            said[1..].iter().zip(["only sound", "nothing is recorded", "everything is", "disk was full"])
        {
            assert!(text.contains(part), "{text}");
        }
        assert_eq!(said.len(), 5);
    });
}

#[test]
fn who_is_recorded_with_sound_only_hears_so_from_the_beginning() {
    on_paused_time(async {
        let tree = Tree::start();
        tree.disk.send_replace(DiskLevel::VideoStopped);
        tree.invite().await;
        until("the answer", || tree.signalling.count("m.call.answer") == 1).await;
        tree.media.change(|facts| facts.state = ConnectionState::Connected);
        until("the announcement", || said(&tree).len() == 1).await;
        assert!(said(&tree)[0].contains("being recorded") && said(&tree)[0].contains("only sound"));
        tree.hang_up().await;
        assert!(said(&tree)[1].contains("nearly full, and no sound arrived"), "{:?}", said(&tree));
    });
}

#[test]
fn a_folder_that_cannot_be_made_ends_the_call_and_says_why() {
    on_paused_time(async {
        let tree = Tree::start();
        tree.sessions.refuse.store(true, Relaxed);
        tree.invite().await;
        until("the answer", || tree.signalling.count("m.call.answer") == 1).await;
        tree.media.change(|facts| facts.state = ConnectionState::Connected);
        until("the end", || *tree.shared.running().borrow() == 0).await;
        assert_eq!(tree.signalling.count("m.call.hangup"), 1);
        assert!(tree.board.happenings().iter().any(|what| what.text.contains("cannot be recorded")));
        assert!(said(&tree).last().unwrap().contains("folder could not be made"), "{:?}", said(&tree));
    });
}
