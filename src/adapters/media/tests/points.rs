//! Faults on cue in the media loop: each costs what it says and nothing else.

use std::time::Instant;

use recorder_actors::testing::{Fault, Order, Point, let_go, order, orders};

use super::*;

fn fails(point: Point, who: &str, fault: Fault, times: u32) {
    order(Order { point, who: who.to_owned(), fault, after: 0, times }).expect("the point takes it");
}

fn is_met(who: &str) -> bool {
    orders().iter().all(|order| order.who != who)
}

/// A call under an id that no other test uses.
fn call_of(plane: &MediaLoop, id: u64) -> Call {
    let mut caller = Caller::new();
    let offer = caller.offer(&[MediaKind::Audio]);
    let (answer, facts) = block(plane.accept(ConnectionId(id), offer, Vec::new(), None)).expect("answer");
    caller.answer(&answer.sdp);
    let mut call = Call { plane: plane.clone(), caller, facts, answer: answer.sdp };
    assert!(call.until(LONG, |call| {
        if call.caller.connected {
            call.caller.send(0);
        }
        call.ring(0).is_some()
    }));
    call
}

#[test]
fn a_connection_that_panics_fails_alone_and_what_came_before_is_there_to_be_written() {
    let plane = MediaLoop::start(settings()).expect("start");
    let (mut first, mut second) = (call_of(&plane, 4711), call_of(&plane, 4712));
    let ring = first.ring(0).expect("ring");
    let received = ring.counters.received.load(Ordering::Relaxed);
    fails(Point::Connection, &ConnectionId(4711).to_string(), Fault::Panic, 1);
    assert!(first.until(LONG, |call| {
        call.caller.send(0);
        call.state() == ConnectionState::Failed
    }));
    assert!(is_met(&ConnectionId(4711).to_string()));
    assert!(first.facts.borrow().reason.as_deref().is_some_and(|reason| reason.contains("defect")));
    assert!(ring.has_ended() && ring.len() as u64 >= received, "its reader takes what is there");
    assert_eq!(plane.stats().connection_panics.load(Ordering::Relaxed), 1);
    let going_on = second.ring(0).expect("ring");
    let before = going_on.counters.received.load(Ordering::Relaxed);
    assert!(second.until(LONG, |call| {
        call.caller.send(0);
        going_on.counters.received.load(Ordering::Relaxed) >= before + 5
    }));
    assert_eq!((second.state(), plane.connections()), (ConnectionState::Connected, 1));
}

#[test]
fn datagrams_that_are_lost_on_cue_are_asked_for_again() {
    let plane = MediaLoop::start(settings()).expect("start");
    let mut call = call_of(&plane, 4713);
    let source = format!("127.0.0.1:{}", call.caller.port());
    for _ in 0..10 {
        call.caller.send(0);
        call.caller.run_for(Duration::from_millis(5));
    }
    fails(Point::Datagram, &source, Fault::Error, 3);
    assert!(call.until(LONG, |call| {
        call.caller.send(0);
        is_met(&source)
    }));
    let ring = call.ring(0).expect("ring");
    let mut read = Read::default();
    assert!(call.until(LONG, |call| {
        call.caller.send(0);
        read.from(&ring);
        let numbers: std::collections::BTreeSet<u64> =
            read.packets.iter().map(|packet| packet.sequence).collect();
        let missing =
            numbers.last().map_or(0, |last| (65_500..=*last).filter(|n| !numbers.contains(n)).count());
        numbers.len() > 30 && missing == 0
    }));
    read.check_balance(&ring);
}

#[test]
fn a_loop_that_stands_still_has_no_heartbeat_and_loses_nothing_that_its_buffer_holds() {
    let plane = MediaLoop::start(settings()).expect("start");
    let mut call = call_of(&plane, 4714);
    let who = format!("media:{}", plane.bound()[0].port());
    fails(Point::MediaLoop, &who, Fault::Stall, 1);
    assert!(call.until(LONG, |_| is_met(&who)));
    let beat = plane.heartbeat();
    let stalled = Instant::now();
    let ring = call.ring(0).expect("ring");
    let received = || ring.counters.received.load(Ordering::Relaxed);
    let before = received();
    for _ in 0..20 {
        call.caller.send(0);
    }
    assert!(call.until(LONG, |_| stalled.elapsed() >= Duration::from_millis(600)));
    assert_eq!((plane.heartbeat(), received()), (beat, before), "it stands still");
    let_go();
    assert!(call.until(LONG, |_| received() >= before + 20));
    assert!(call.until(LONG, |_| plane.heartbeat() > beat));
}
