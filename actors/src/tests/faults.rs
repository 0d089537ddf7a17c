//! A panic or a fault anywhere costs at most what the table says.

use std::sync::atomic::Ordering;
use std::time::Duration;

use recorder_core::media::Codec;
use serde_json::json;

use super::support::*;
use crate::observe::ActorState;
use crate::ports::Direction;
use crate::segment::{Failure, SegmentPhase};
use crate::testing::{Point, arm, disarm};

async fn only_this_one_restarted(tree: &Tree, path: &str, point: Point) {
    let before = tree.generations();
    arm(point, path, 1);
    until("the restart", || {
        tree.board.actor(path).is_some_and(|actor| actor.generation.0 == before[path].generation.0 + 1)
    })
    .await;
    for (other, life) in tree.generations() {
        if other != path {
            assert_eq!(life, before[&other], "{other} is not concerned");
        }
    }
    let actor = tree.board.actor(path).unwrap();
    assert_eq!((actor.state, actor.restarts), (ActorState::Running, 1));
    assert!(actor.last_error.as_deref().unwrap().contains("injected fault"));
}

#[test]
fn a_panic_in_a_writer_leaves_its_file_and_its_siblings_as_they_are() {
    on_paused_time(async {
        let tree = Tree::recorded_call().await;
        only_this_one_restarted(&tree, CAMERA, Point::WriterHandler).await;
        assert_eq!(tree.segments.reasons("1"), ["first"], "the new generation adopted the running segment");
        tree.hang_up().await;
        assert_eq!(serde_json::to_value(&tree.manifest().state).unwrap(), "complete");
    });
}

#[test]
fn a_panic_in_a_peer_ends_no_segment() {
    on_paused_time(async {
        let tree = Tree::recorded_call().await;
        only_this_one_restarted(&tree, PEER, Point::PeerHandler).await;
        assert_eq!(tree.segments.all.lock().unwrap().len(), 2);
        tree.hang_up().await;
        assert_eq!(serde_json::to_value(&tree.manifest().state).unwrap(), "complete");
    });
}

#[test]
fn a_panic_in_a_call_drops_one_signal_and_ends_no_segment() {
    on_paused_time(async {
        let tree = Tree::recorded_call().await;
        let before = tree.generations();
        let muted = |muted| json!({"sdp_stream_metadata": {"user": {"purpose": "m.usermedia", "audio_muted": muted}}});
        arm(Point::CallHandler, CALL, 1);
        tree.event("m.call.sdp_stream_metadata_changed", CALLER, muted(true)).await;
        until("the restart", || tree.board.actor(CALL).is_some_and(|call| call.generation.0 == 2)).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(tree.board.calls()[0].participants[0].tracks.iter().all(|track| !track.muted));
        assert_eq!(tree.generations()[PEER], before[PEER]);
        assert_eq!(tree.generations()[CAMERA], before[CAMERA]);
        tree.event("m.call.sdp_stream_metadata_changed", CALLER, muted(true)).await;
        until("the next signal", || {
            tree.board.calls()[0].participants[0].tracks.iter().any(|track| track.muted)
        })
        .await;
        assert_eq!(tree.segments.all.lock().unwrap().len(), 2);
        tree.hang_up().await;
        assert_eq!(serde_json::to_value(&tree.manifest().state).unwrap(), "complete");
    });
}

#[test]
fn an_offer_at_which_an_actor_panics_is_answered_by_the_next_value() {
    for (point, who) in [(Point::CallHandler, CALL), (Point::SupervisorHandler, "supervisor")] {
        on_paused_time(async {
            let tree = Tree::recorded_call().await;
            arm(point, who, 1);
            tree.event("m.call.negotiate", CALLER, json!({"description": {"type": "offer", "sdp": "x"}}))
                .await;
            until("the restart", || {
                tree.mind_root();
                tree.board.actor(who).is_some_and(|actor| actor.generation.0 == 2)
            })
            .await;
            until("the answer", || tree.signalling.count("m.call.negotiate") == 1).await;
            assert_eq!(*tree.media.offers.lock().unwrap(), ["x"]);
            tree.hang_up().await;
            assert_eq!(tree.events("renegotiated"), 1);
        });
    }
}

#[test]
fn an_offer_at_which_a_call_panics_twice_is_dropped() {
    on_paused_time(async {
        let tree = Tree::recorded_call().await;
        arm(Point::CallHandler, CALL, 2);
        let offer = |sdp: &str| json!({"description": {"type": "offer", "sdp": sdp}});
        tree.event("m.call.negotiate", CALLER, offer("poisoned")).await;
        until("both restarts", || tree.board.actor(CALL).is_some_and(|call| call.generation.0 == 3)).await;
        tree.event("m.call.negotiate", CALLER, offer("good")).await;
        until("the next offer", || *tree.media.offers.lock().unwrap() == ["good"]).await;
        assert_eq!(tree.segments.all.lock().unwrap().len(), 2);
        tree.hang_up().await;
    });
}

#[test]
fn an_offer_that_had_to_be_applied_again_is_answered_once_and_by_the_later_answer() {
    on_paused_time(async {
        let tree = Tree::recorded_call().await;
        tree.media.slow.store(true, Ordering::Relaxed);
        tree.event("m.call.negotiate", CALLER, json!({"description": {"type": "offer", "sdp": "x"}})).await;
        until("another try", || *tree.media.offers.lock().unwrap() == ["x", "x"]).await;
        tree.media.let_go.notify_waiters();
        until("an answer", || tree.signalling.count("m.call.negotiate") > 0).await;
        tokio::time::sleep(Duration::from_secs(20)).await;
        let sent = tree.signalling.sent.lock().unwrap().clone();
        let answers: Vec<_> = sent.iter().filter(|(kind, _)| kind == "m.call.negotiate").collect();
        assert_eq!(answers.len(), 1, "{answers:?}");
        assert_eq!(answers[0].1["description"]["sdp"], "later answer 2");
        tree.media.slow.store(false, Ordering::Relaxed);
        tree.hang_up().await;
        assert_eq!(tree.events("renegotiated"), 1);
    });
}

#[test]
fn a_panic_in_the_supervisor_leaves_every_call_running() {
    on_paused_time(async {
        let tree = Tree::recorded_call().await;
        let before = tree.generations();
        arm(Point::SupervisorHandler, "supervisor", 1);
        let survived = tree.event("m.call.invite", CALLER, json!({})).await;
        assert!(!survived);
        until("the supervisor's end", || tree.state_of("supervisor") == Some(ActorState::Restarting)).await;
        tree.mind_root();
        assert_eq!(tree.generations()["supervisor"].generation.0, 2);
        assert_eq!(tree.generations()[CALL], before[CALL]);
        assert_eq!(tree.segments.running().len(), 2);
        tree.hang_up().await;
        assert_eq!(serde_json::to_value(&tree.manifest().state).unwrap(), "complete");
    });
}

#[test]
fn a_segment_that_fails_is_followed_by_the_next_of_a_fresh_writer() {
    on_paused_time(async {
        let tree = Tree::recorded_call().await;
        let before = tree.generations();
        tree.segments.of("1")[0].set(SegmentPhase::Failed(Failure::Refused("no space".into())));
        until("the next segment", || tree.segments.reasons("1") == ["first", "writer_restarted"]).await;
        assert_eq!(tree.generations()[CAMERA].generation.0, before[CAMERA].generation.0 + 1);
        assert_eq!(tree.generations()[MICROPHONE], before[MICROPHONE]);
        assert_eq!(tree.segments.reasons("0"), ["first"]);
    });
}

#[test]
fn a_disk_that_refuses_is_tried_again_for_ever_and_the_siblings_record_on() {
    on_paused_time(async {
        let tree = Tree::recorded_call().await;
        let before = tree.generations();
        tree.segments.fail_all.store(true, Ordering::Relaxed);
        tree.segments.of("1")[0].set(SegmentPhase::Failed(Failure::Refused("input/output error".into())));
        tokio::time::sleep(Duration::from_secs(120)).await;
        let tries = tree.segments.of("1").len();
        assert!((20..=40).contains(&tries), "one each five seconds, not {tries}");
        assert_eq!(tree.board.totals.actors_given_up.load(Ordering::Relaxed), 0);
        assert_eq!(tree.generations()[MICROPHONE], before[MICROPHONE]);
        assert_eq!(tree.segments.running().len(), 1);
        tree.segments.fail_all.store(false, Ordering::Relaxed);
        until("the camera to be recorded again", || tree.segments.running().len() == 2).await;
        assert_eq!(tree.segments.reasons("1").last().unwrap(), "writer_restarted");
        tree.hang_up().await;
        assert_eq!(serde_json::to_value(&tree.manifest().state).unwrap(), "complete");
    });
}

#[test]
fn a_line_that_stops_while_its_disk_refuses_comes_back_as_such() {
    on_paused_time(async {
        let tree = Tree::recorded_call().await;
        tree.segments.fail_all.store(true, Ordering::Relaxed);
        tree.segments.of("1")[0].set(SegmentPhase::Failed(Failure::Refused("input/output error".into())));
        tokio::time::sleep(Duration::from_secs(30)).await;
        tree.media.change(|facts| facts.media[1].direction = Direction::RecvOnly);
        tree.segments.fail_all.store(false, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_secs(10)).await;
        tree.media.change(|facts| facts.media[1].direction = Direction::SendRecv);
        until("the camera to be recorded again", || tree.segments.running().len() == 2).await;
        assert_eq!(tree.segments.reasons("1").last().unwrap(), "source_on");
        tree.hang_up().await;
    });
}

#[test]
fn a_writer_that_panics_again_and_again_is_given_up_and_its_siblings_record_on() {
    on_paused_time(async {
        let tree = Tree::recorded_call().await;
        let before = tree.generations();
        arm(Point::WriterHandler, CAMERA, 100);
        until("the end of patience", || tree.state_of(CAMERA) == Some(ActorState::Failed)).await;
        assert_eq!(tree.board.totals.actors_given_up.load(Ordering::Relaxed), 1);
        until("its file to be closed without it", || tree.segments.running().len() == 1).await;
        assert_eq!(tree.generations()[MICROPHONE], before[MICROPHONE]);
        until("its segment to be counted", || {
            tree.board.calls()[0].participants[0].tracks.iter().all(|track| track.segments == 1)
        })
        .await;
        tree.hang_up().await;
        assert_eq!(serde_json::to_value(&tree.manifest().state).unwrap(), "complete");
    });
}

#[test]
fn a_panic_in_the_pump_is_followed_by_the_next_segment_of_a_fresh_writer() {
    on_paused_time(async {
        let tree = Tree::recorded_call().await;
        only_this_one_restarted(&tree, CAMERA, Point::Pump).await;
        until("the next segment", || tree.segments.reasons("1") == ["first", "writer_restarted"]).await;
        assert_eq!(tree.segments.reasons("0"), ["first"]);
        tree.hang_up().await;
        assert_eq!(tree.events("child_restarted"), 1);
    });
}

#[test]
fn a_pump_that_panics_again_and_again_for_one_track_is_given_up_there_and_its_siblings_record_on() {
    on_paused_time(async {
        let tree = Tree::recorded_call().await;
        let before = tree.generations();
        arm(Point::Pump, CAMERA, 1_000);
        until("the end of patience", || tree.state_of(CAMERA) == Some(ActorState::Failed)).await;
        let tries = tree.segments.of("1").len();
        assert!((8..=10).contains(&tries), "{tries} segments within the budget");
        assert_eq!(tree.board.totals.actors_given_up.load(Ordering::Relaxed), 1);
        tokio::time::sleep(Duration::from_secs(120)).await;
        assert_eq!(tree.segments.of("1").len(), tries, "it is not tried again by itself");
        assert_eq!(tree.generations()[MICROPHONE], before[MICROPHONE]);
        assert_eq!(tree.segments.running().len(), 1);
        disarm();
        let stream = tree.media.stream("1", Codec::Vp8);
        tree.media.change(|facts| facts.media[1].streams.push(stream));
        until("the next stream to be recorded", || tree.segments.running().len() == 2).await;
        tree.hang_up().await;
        assert_eq!(serde_json::to_value(&tree.manifest().state).unwrap(), "complete");
    });
}

#[test]
fn a_writer_that_was_given_up_gets_another_try_with_the_next_stream() {
    on_paused_time(async {
        let tree = Tree::recorded_call().await;
        arm(Point::WriterHandler, CAMERA, 100);
        until("the end of patience", || tree.state_of(CAMERA) == Some(ActorState::Failed)).await;
        arm(Point::WriterHandler, CAMERA, 1);
        let stream = tree.media.stream("1", Codec::Vp8);
        tree.media.change(|facts| facts.media[1].streams.push(stream));
        until("the camera to be recorded again", || tree.segments.running().len() == 2).await;
        assert_eq!(tree.segments.reasons("1"), ["first", "new_ssrc"]);
        assert_eq!(tree.state_of(CAMERA), Some(ActorState::Running), "with a budget of its own");
    });
}

#[test]
fn a_peer_that_was_given_up_keeps_no_file_open_at_the_end() {
    on_paused_time(async {
        let tree = Tree::recorded_call().await;
        arm(Point::PeerHandler, PEER, 100);
        until("the end of patience", || tree.state_of(PEER) == Some(ActorState::Failed)).await;
        assert_eq!(tree.segments.running().len(), 2, "what runs goes on");
        tree.hang_up().await;
        assert!(tree.segments.running().is_empty());
        assert_eq!(serde_json::to_value(&tree.manifest().state).unwrap(), "complete");
    });
}

#[test]
fn a_call_that_panics_again_and_again_is_given_up_without_harm_to_others() {
    on_paused_time(async {
        let tree = Tree::recorded_call().await;
        arm(Point::CallHandler, CALL, 100);
        for n in 0..40 {
            let offer = json!({"description": {"type": "offer", "sdp": format!("{n}")}});
            tree.event("m.call.negotiate", CALLER, offer).await;
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        until("the end of patience", || *tree.shared.running().borrow() == 0).await;
        assert!(!tree.media.closed.lock().unwrap().is_empty(), "its connection is closed");
        assert_eq!(tree.state_of("supervisor"), Some(ActorState::Running));
    });
}

#[test]
fn a_connection_that_is_never_set_up_ends_its_call_in_order_and_no_other() {
    on_paused_time(async {
        let tree = Tree::recorded_call().await;
        let before = tree.generations();
        tree.media.stuck.store(true, Ordering::Relaxed);
        let invite = json!({"call_id": "c2", "offer": {"type": "offer", "sdp": "v=0"}, "lifetime": 60_000});
        tree.event("m.call.invite", CALLER, invite).await;
        until("the second call", || tree.board.calls().len() == 2).await;
        tokio::time::sleep(Duration::from_secs(30)).await;
        until("its end", || *tree.shared.running().borrow() == 1).await;
        let hung_up = |(kind, content): &(String, serde_json::Value)| {
            kind == "m.call.hangup" && content["call_id"] == "c2"
        };
        assert!(tree.signalling.sent.lock().unwrap().iter().any(hung_up));
        assert_eq!(tree.generations(), before);
        assert_eq!(tree.segments.running().len(), 2);
        assert_eq!(tree.live_calls.live.lock().unwrap().len(), 1);
        tree.media.stuck.store(false, Ordering::Relaxed);
        tree.hang_up().await;
    });
}

#[test]
fn a_connection_that_answers_no_offer_goes_on_recording_and_takes_the_newest_when_it_can() {
    on_paused_time(async {
        let tree = Tree::recorded_call().await;
        let before = tree.generations();
        tree.media.stuck.store(true, Ordering::Relaxed);
        for sdp in ["a", "b", "c"] {
            tree.event("m.call.negotiate", CALLER, json!({"description": {"type": "offer", "sdp": sdp}}))
                .await;
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(*tree.media.offers.lock().unwrap(), ["a"]);
        tree.media.stuck.store(false, Ordering::Relaxed);
        until("the answer", || tree.signalling.count("m.call.negotiate") == 1).await;
        assert_eq!(*tree.media.offers.lock().unwrap(), ["a", "c"]);
        assert_eq!(tree.generations(), before);
        assert_eq!(tree.segments.all.lock().unwrap().len(), 2);
        tree.hang_up().await;
    });
}

#[test]
fn a_homeserver_that_takes_nothing_costs_no_file_and_leaves_the_hangup_to_the_next_start() {
    on_paused_time(async {
        let tree = Tree::recorded_call().await;
        let before = tree.generations();
        tree.signalling.refuse.store(true, Ordering::Relaxed);
        tree.event("m.call.negotiate", CALLER, json!({"description": {"type": "offer", "sdp": "x"}})).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(tree.generations(), before);
        assert_eq!(tree.segments.running().len(), 2);
        tree.shut_down();
        until("the end", || *tree.shared.running().borrow() == 0).await;
        assert_eq!(serde_json::to_value(&tree.manifest().state).unwrap(), "complete");
        assert_eq!(tree.live_calls.live.lock().unwrap().len(), 1, "somebody still has to hang it up");
    });
}
