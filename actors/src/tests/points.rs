//! Ports that fail or panic: what they were asked for is missing, and nothing else.

use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::json;

use super::support::*;
use crate::observe::ActorState;
use crate::ports::ConnectionState;
use crate::testing::{ANYONE, Fault, Order, Point, disarm, order, order_here};

fn fails(point: Point, who: &str, fault: Fault) {
    order_here(Order { point, who: who.into(), fault, after: 0, times: 1 }).unwrap();
}

/// A whole call, recorded and complete, with one fault on its way, which is met.
async fn recorded_in_spite_of(point: Point, who: &str, fault: Fault) -> Tree {
    fails(point, who, fault);
    let tree = Tree::recorded_call().await;
    tree.event("m.call.negotiate", CALLER, json!({"description": {"type": "offer", "sdp": "one"}})).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    tree.event("m.call.negotiate", CALLER, json!({"description": {"type": "offer", "sdp": "two"}})).await;
    until("both offers", || *tree.media.offers.lock().unwrap() == ["one", "two"]).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    tree.hang_up().await;
    assert!(disarm(), "{point:?} of {who} was not met");
    assert_eq!(serde_json::to_value(&tree.manifest().state).unwrap(), "complete", "{point:?} {who}");
    assert_eq!((tree.segments.reasons("0").len(), tree.segments.reasons("1").len()), (1, 1));
    assert!(tree.segments.running().is_empty());
    assert_eq!(tree.state_of("supervisor"), Some(ActorState::Running));
    assert_eq!(*tree.shared.running().borrow(), 0);
    tree
}

#[test]
fn an_event_that_cannot_be_sent_costs_itself_and_not_what_follows() {
    for fault in [Fault::Error, Fault::Panic] {
        on_paused_time(async move {
            let tree = recorded_in_spite_of(Point::Signalling, "m.call.negotiate", fault).await;
            assert_eq!(tree.signalling.count("m.call.negotiate"), 1, "one of two answers is missing");
            assert!(tree.board.happenings().iter().any(|what| what.text.starts_with("Not sent")));
        });
    }
}

#[test]
fn a_message_that_cannot_be_sent_costs_itself_and_not_what_follows() {
    for fault in [Fault::Error, Fault::Panic] {
        on_paused_time(async move {
            let tree = recorded_in_spite_of(Point::Signalling, "announce", fault).await;
            until("the other message", || tree.signalling.count("m.room.message") == 1).await;
        });
    }
}

#[test]
fn a_panic_over_a_rooms_or_a_persons_name_costs_the_name() {
    on_paused_time(async {
        let tree = recorded_in_spite_of(Point::Signalling, "display_name", Fault::Panic).await;
        assert_eq!(tree.manifest().participants[0].display_name.as_deref(), Some(CALLER));
        recorded_in_spite_of(Point::Signalling, "room", Fault::Panic).await;
    });
}

#[test]
fn turn_servers_that_are_not_told_cost_no_call() {
    for fault in [Fault::Error, Fault::Panic] {
        on_paused_time(async move {
            recorded_in_spite_of(Point::Turn, "turn", fault).await;
        });
    }
}

#[test]
fn a_panic_over_the_list_of_live_calls_costs_no_call() {
    on_paused_time(async {
        let tree = recorded_in_spite_of(Point::LiveCalls, "c1", Fault::Panic).await;
        assert!(tree.live_calls.live.lock().unwrap().is_empty());
    });
}

#[test]
fn a_session_that_cannot_be_opened_ends_its_call_in_order() {
    for fault in [Fault::Error, Fault::Panic] {
        on_paused_time(async move {
            let tree = Tree::start();
            fails(Point::SessionOpen, "c1", fault);
            tree.invite().await;
            until("the answer", || tree.signalling.count("m.call.answer") == 1).await;
            tree.media.change(|facts| facts.state = ConnectionState::Connected);
            until("the end", || *tree.shared.running().borrow() == 0).await;
            assert!(disarm());
            assert_eq!(tree.signalling.count("m.call.hangup"), 1);
            assert!(tree.media.all_closed() && tree.live_calls.live.lock().unwrap().is_empty());
            assert!(tree.board.happenings().iter().any(|what| what.text.contains("cannot be recorded")));
        });
    }
}

/// A call whose session's folder is told from all others by `call_id`.
async fn call_named(tree: &Tree, call_id: &str) {
    let offer = json!({"call_id": call_id, "offer": {"type": "offer", "sdp": "v=0"}, "lifetime": 60_000});
    tree.event("m.call.invite", CALLER, offer).await;
    until("the answer", || tree.signalling.count("m.call.answer") == 1).await;
    let microphone = tree.media.media("0", "user", recorder_core::media::Codec::Opus);
    tree.media.change(|facts| {
        facts.state = ConnectionState::Connected;
        facts.media = vec![microphone];
    });
    until("its segment", || tree.segments.running().len() == 1).await;
}

#[test]
fn a_journal_that_refuses_or_panics_once_tells_everything_all_the_same() {
    for (number, (what, fault)) in [
        ("append", Fault::Error),
        ("append", Fault::Panic),
        ("sync", Fault::Error),
        ("sync", Fault::Panic),
        ("snapshot", Fault::Error),
        ("snapshot", Fault::Panic),
    ]
    .into_iter()
    .enumerate()
    {
        on_paused_time(async move {
            let tree = Tree::start();
            let call_id = format!("journal{number}");
            call_named(&tree, &call_id).await;
            // The store works on threads of its own; the folder's name is like no other.
            let who = format!("{what} {call_id}");
            order(Order { point: Point::SessionStore, who: who.clone(), fault, after: 0, times: 1 }).unwrap();
            let muted = json!({"call_id": call_id, "sdp_stream_metadata":
                {"user": {"purpose": "m.usermedia", "audio_muted": true}}});
            tree.event("m.call.sdp_stream_metadata_changed", CALLER, muted).await;
            until("the fault", || crate::testing::orders().iter().all(|order| order.who != who)).await;
            tree.event("m.call.hangup", CALLER, json!({"call_id": call_id, "reason": "user_hangup"})).await;
            until("the end", || *tree.shared.running().borrow() == 0).await;
            let manifest = tree.manifest();
            assert_eq!(serde_json::to_value(&manifest.state).unwrap(), "complete", "{what} {fault:?}");
            assert_eq!(tree.events("muted"), 1, "{what} {fault:?}");
        });
    }
}

#[test]
fn a_connection_that_breaks_down_ends_its_call_with_whole_files_and_touches_no_other() {
    on_paused_time(async {
        let tree = Tree::recorded_call().await;
        let invite = json!({"call_id": "c2", "offer": {"type": "offer", "sdp": "v=0"}, "lifetime": 60_000});
        tree.event("m.call.invite", CALLER, invite).await;
        until("the second answer", || tree.signalling.count("m.call.answer") == 2).await;
        let microphone = tree.media.media("7", "user", recorder_core::media::Codec::Opus);
        tree.media.change_at(1, |facts| {
            facts.state = ConnectionState::Connected;
            facts.media = vec![microphone];
        });
        until("three segments", || tree.segments.running().len() == 3).await;
        let before = tree.generations();
        // As the media loop does for the one in whose handling it met a panic.
        tree.media.change_at(0, |facts| {
            facts.media.iter().flat_map(|media| &media.streams).for_each(|ring| ring.end());
            facts.state = ConnectionState::Failed;
            facts.reason = Some("a defect of the recorder ended this connection".into());
        });
        until("its end", || *tree.shared.running().borrow() == 1).await;
        let manifest = tree.manifest();
        assert_eq!(serde_json::to_value(&manifest.end_reason).unwrap(), "connection_lost");
        assert_eq!(serde_json::to_value(&manifest.state).unwrap(), "complete");
        let phases: Vec<_> = ["0", "1"].iter().flat_map(|mid| tree.segments.of(mid)).collect();
        assert!(phases.iter().all(|segment| segment.phase() == crate::segment::SegmentPhase::Closed));
        let hung_up = |(kind, content): &(String, serde_json::Value)| {
            kind == "m.call.hangup" && content["call_id"] == "c1"
        };
        assert!(tree.signalling.sent.lock().unwrap().iter().any(hung_up));
        // The neighbour: the very same actors, and its one file.
        let after = tree.generations();
        for (path, life) in before.iter().filter(|(path, _)| path.starts_with("supervisor/call-2")) {
            assert_eq!(after.get(path), Some(life), "{path}");
        }
        assert_eq!(tree.segments.running().len(), 1);
        assert_eq!(tree.segments.reasons("7"), ["first"]);
        tree.event("m.call.hangup", CALLER, json!({"call_id": "c2"})).await;
        until("the end", || *tree.shared.running().borrow() == 0).await;
    });
}

#[test]
fn an_order_to_end_at_which_the_supervisor_panics_is_carried_out_by_the_next_one() {
    on_paused_time(async {
        let tree = Tree::recorded_call().await;
        crate::testing::arm(Point::SupervisorStep, ANYONE, 1);
        tree.shut_down();
        until("the end", || {
            tree.mind_root();
            *tree.shared.running().borrow() == 0
        })
        .await;
        assert!(disarm());
        assert_eq!(tree.signalling.count("m.call.hangup"), 1);
        assert_eq!(serde_json::to_value(&tree.manifest().end_reason).unwrap(), "shutdown");
        assert!(tree.board.totals.actor_restarts.load(Ordering::Relaxed) >= 1);
    });
}
