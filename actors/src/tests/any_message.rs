//! One panic at any message of any actor of a call with everything in it: the call comes to its end, and what was
//! recorded is what it would have been.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use recorder_core::media::Codec;
use serde_json::json;

use super::support::*;
use crate::ports::{ConnectionState, Direction};
use crate::testing::{Point, arm_after, disarm};

/// Gives the tree its time; not all that is waited for need come to be where messages are lost.
async fn a_while(mut holds: impl FnMut() -> bool) {
    for _ in 0..300 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Waits for a supervisor that is being started again, as the daemon does.
async fn tell(tree: &Tree, event_type: &str, content: serde_json::Value) {
    a_while(|| tree.slot.addr().is_some()).await;
    tree.event(event_type, CALLER, content).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
}

/// A whole call: mute, a screen shared, held, shared again, another camera stream, hung up. Returns why segments were opened,
/// by m-line.
async fn whole_call(tree: &Tree) -> Vec<Vec<String>> {
    let metadata = json!({"user": {"purpose": "m.usermedia"}, "screen": {"purpose": "m.screenshare"}});
    let offer = json!({"type": "offer", "sdp": "v=0"});
    tell(tree, "m.call.invite", json!({"offer": offer, "lifetime": 60_000, "sdp_stream_metadata": metadata}))
        .await;
    a_while(|| tree.media.is_open()).await;
    if tree.media.is_open() {
        let (microphone, camera) =
            (tree.media.media("0", "user", Codec::Opus), tree.media.media("1", "user", Codec::Vp8));
        tree.media.change(|facts| {
            facts.state = ConnectionState::Connected;
            facts.media = vec![microphone, camera];
        });
        a_while(|| tree.segments.running().len() == 2).await;
        let muted = json!({"sdp_stream_metadata": {"user": {"purpose": "m.usermedia", "audio_muted": true}}});
        tell(tree, "m.call.sdp_stream_metadata_changed", muted).await;
        tell(tree, "m.call.negotiate", json!({"description": {"type": "offer", "sdp": "screen"}})).await;
        // It is there when its offer was applied, and no earlier.
        let applied = || tree.media.offers.lock().unwrap().iter().any(|offer| offer == "screen");
        a_while(applied).await;
        if applied() {
            let screen = tree.media.media("2", "screen", Codec::Vp8);
            tree.media.change(|facts| facts.media.push(screen));
        }
        a_while(|| tree.segments.running().len() == 3).await;
        tree.media.change(|facts| facts.media[2].direction = Direction::Inactive);
        a_while(|| tree.segments.running().len() == 2).await;
        assert_eq!(tree.signalling.count("m.call.negotiate"), 1, "one answer for one offer");
        let (again, other) = (tree.media.stream("2", Codec::Vp8), tree.media.stream("1", Codec::Vp8));
        tree.media.change(|facts| {
            facts.media[2].direction = Direction::SendRecv;
            facts.media[2].streams.push(again);
            facts.media[1].streams[0].end();
            facts.media[1].streams.push(other);
        });
        a_while(|| tree.segments.reasons("1").len() == 2 && tree.segments.reasons("2").len() == 2).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    tell(tree, "m.call.hangup", json!({"reason": "user_hangup"})).await;
    if tree.media.is_open() {
        // A hang-up may be what was lost: the peer's goodbye ends the call as well.
        tree.media.change(|facts| facts.state = ConnectionState::Closed);
    }
    until("the call's end", || *tree.shared.running().borrow() == 0).await;
    ["0", "1", "2"].map(|mid| tree.segments.reasons(mid)).to_vec()
}

/// Runs the call with one panic at each visit of `point` in turn, until a run does without.
fn at_each_visit(point: Point, who: &str, judge: impl Fn(u32, &Tree, Vec<Vec<String>>)) {
    for after in 0.. {
        let mut met = false;
        on_paused_time(async {
            let tree = Rc::new(Tree::start());
            let minded = Rc::clone(&tree);
            let minding = actix::spawn(async move {
                loop {
                    minded.mind_root();
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            });
            arm_after(point, who, after);
            let reasons = whole_call(&tree).await;
            met = disarm();
            assert!(tree.segments.running().is_empty(), "{point:?} {after}: a file is open");
            assert!(
                tree.live_calls.live.lock().unwrap().is_empty(),
                "{point:?} {after}: a live call is left"
            );
            assert!(tree.media.all_closed(), "{point:?} {after}: a connection is left");
            until("an empty tree", || tree.board.actors().len() == 1).await;
            if !tree.sessions.snapshots.lock().unwrap().is_empty() {
                let manifest = serde_json::to_value(tree.manifest()).unwrap();
                assert_eq!(manifest["state"], "complete", "{point:?} {after}");
            }
            judge(after, &tree, reasons);
            minding.abort();
        });
        if !met {
            assert!(after > 0, "{point:?} was never visited");
            return;
        }
        assert!(after < 1_000, "{point:?} is visited for ever");
    }
}

fn undisturbed() -> Vec<Vec<String>> {
    [vec!["first"], vec!["first", "new_ssrc"], vec!["first", "source_on"]]
        .map(|reasons| reasons.into_iter().map(str::to_owned).collect())
        .to_vec()
}

/// What the manifest's events tell, but for restarts: kind, track, and how often.
fn told(tree: &Tree) -> BTreeMap<(String, String), u64> {
    let manifest = serde_json::to_value(tree.manifest()).unwrap();
    let mut told = BTreeMap::new();
    for event in manifest["events"].as_array().unwrap() {
        let text = |field: &str| event[field].as_str().unwrap_or_default().to_owned();
        if event["kind"] != "child_restarted" {
            *told.entry((text("kind"), text("track"))).or_default() +=
                event["detail"]["count"].as_u64().unwrap_or(1);
        }
    }
    told
}

fn no_segment_knows(point: Point, who: &str) {
    let calm = RefCell::new(None);
    on_paused_time(async {
        let tree = Tree::start();
        whole_call(&tree).await;
        *calm.borrow_mut() = Some(told(&tree));
    });
    let calm = calm.take().unwrap();
    assert_eq!(calm[&("device_changed".to_owned(), "p1-camera-1".to_owned())], 1);
    at_each_visit(point, who, |after, tree, reasons| {
        assert_eq!(reasons, undisturbed(), "{point:?} {after}");
        assert_eq!(told(tree), calm, "{point:?} {after}");
        let manifest = serde_json::to_value(tree.manifest()).unwrap();
        let tracks = manifest["participants"][0]["tracks"].as_array().unwrap().len();
        assert_eq!(tracks, 3, "{point:?} {after}: {}", manifest["participants"][0]["tracks"]);
    });
}

#[test]
fn a_panic_at_any_message_of_a_writer_changes_nothing_that_is_recorded() {
    no_segment_knows(Point::WriterHandler, CAMERA);
    no_segment_knows(Point::WriterHandler, MICROPHONE);
}

#[test]
fn a_panic_at_any_message_of_a_peer_changes_nothing_that_is_recorded() {
    no_segment_knows(Point::PeerHandler, PEER);
}

#[test]
fn a_panic_between_any_two_changes_of_a_peers_plan_changes_nothing_that_is_recorded() {
    no_segment_knows(Point::PeerChange, PEER);
}

#[test]
fn a_panic_at_any_message_of_a_call_leaves_a_call_that_ends_in_order() {
    at_each_visit(Point::CallHandler, CALL, |after, _, reasons| {
        let nothing = reasons.iter().all(Vec::is_empty);
        assert!(nothing || reasons == undisturbed(), "{after}: {reasons:?}");
    });
}

#[test]
fn a_panic_between_any_two_steps_of_a_call_changes_nothing_that_is_recorded() {
    no_segment_knows(Point::CallStep, CALL);
}

#[test]
fn a_panic_between_any_two_effects_of_a_call_changes_nothing_that_is_recorded() {
    no_segment_knows(Point::CallEffect, CALL);
}

#[test]
fn a_panic_between_any_two_steps_of_the_supervisor_changes_nothing_that_is_recorded() {
    no_segment_knows(Point::SupervisorStep, "supervisor");
}

#[test]
fn a_panic_at_any_message_of_the_supervisor_leaves_calls_that_end_in_order() {
    at_each_visit(Point::SupervisorHandler, "supervisor", |after, _, reasons| {
        let nothing = reasons.iter().all(Vec::is_empty);
        // The invite comes first: who never heard of it records nothing.
        assert_eq!(nothing, after == 0, "{after}: {reasons:?}");
        assert!(nothing || reasons == undisturbed(), "{after}: {reasons:?}");
    });
}
