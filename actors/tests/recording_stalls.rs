//! A pump that stands still: what that costs, with the rings as they are, and how it is seen.
#![cfg(feature = "fault-injection")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::time::Duration;

use recorder_actors::ports::Clock as _;
use recorder_actors::ring::VIDEO_RING;
use recorder_actors::testing::{Fault, Order, Point, let_go, order, orders};
use recorder_core::manifest::OpenedBecause;
use recorder_core::media::{Codec, MediaKind};
use support::{Rig, Sender, until, until_taken};

/// Whoever lifts a stall lifts all, so these tests take turns.
static STALLS: Mutex<()> = Mutex::new(());

/// 1,500 packets a second are more than a ring of pictures holds of two seconds; sound fills a tenth of its own.
#[test]
fn a_reader_that_stands_still_for_two_seconds_shows_as_packets_dropped_by_us() {
    let _alone = STALLS.lock();
    let rig = Rig::new();
    let (sound, picture) = (rig.ring(Codec::Opus, None), rig.ring(Codec::Vp8, None));
    let hears = rig.start(&sound, &rig.names("stall-1-a", MediaKind::Audio), OpenedBecause::First);
    let sees = rig.start(&picture, &rig.names("stall-1-v", MediaKind::Video), OpenedBecause::First);
    let (mut audio, mut video) = (Sender::new(&sound, &rig.clock), Sender::new(&picture, &rig.clock));
    let frame = |audio: &mut Sender, video: &mut Sender, key: bool| {
        video.frame(key, 54_000);
        audio.frame(true, 80);
        video.tick();
    };
    frame(&mut audio, &mut video, true);
    until_taken(&picture);
    order(Order { point: Point::Pump, who: "stall-1-v".into(), fault: Fault::Stall, after: 0, times: 1 })
        .unwrap();
    until("the pump stands still", || orders().iter().all(|order| order.who != "stall-1-v"));
    let began = video.entered();
    for _ in 0..60 {
        frame(&mut audio, &mut video, false);
    }
    let sent = video.entered() - began;
    assert!((2_900..3_100).contains(&sent), "{sent} packets in two seconds");
    let_go();
    until_taken(&picture);
    let before = video.sent.len();
    // What is missing is waited for, for a second and a half.
    for number in 0..60 {
        frame(&mut audio, &mut video, number == 50);
        until_taken(&picture);
    }
    let (heard, seen) = (rig.finish(&hears), rig.finish(&sees));
    for facts in [&heard, &seen] {
        assert!(facts.ledger.balances(), "{:?}", facts.ledger);
        assert_eq!((facts.ledger.lost, facts.files), (0, 1));
    }
    assert_eq!(heard.ledger.dropped_by_us, 0);
    assert!(rig.data(&heard.file.clone().unwrap()) == audio.data(), "every packet of sound is there");
    let in_the_ring = picture.counters.dropped_by_us.load(Ordering::Relaxed);
    assert_eq!(in_the_ring, sent - VIDEO_RING as u64, "what the ring could not hold");
    assert!(seen.ledger.dropped_by_us >= in_the_ring, "{:?}", seen.ledger);
    let frames = rig.data(&seen.file.clone().unwrap());
    let stopped = frames.len() - 10;
    assert!(
        (1 + VIDEO_RING / 50 - 2..before).contains(&stopped),
        "{stopped} frames before the ring was full"
    );
    assert!(frames[..stopped] == video.data()[..stopped], "no picture without the one before");
    assert!(frames[stopped..] == video.data()[before + 50..], "from the key frame on");
    until("a key frame is asked for", || rig.keys_asked() > 1);
}

#[test]
fn a_pump_that_stands_still_can_be_told_from_one_that_has_nothing_to_do() {
    let _alone = STALLS.lock();
    let rig = Rig::new();
    let ring = rig.ring(Codec::Opus, None);
    let segment = rig.start(&ring, &rig.names("stall-2", MediaKind::Audio), OpenedBecause::First);
    let mut sender = Sender::new(&ring, &rig.clock);
    sender.frames(20, 1, 80);
    let stall = Order { point: Point::Pump, who: "stall-2".into(), fault: Fault::Stall, after: 0, times: 1 };
    order(stall).unwrap();
    until("it stands still", || orders().iter().all(|order| order.who != "stall-2"));
    for _ in 0..20 {
        sender.frame(true, 80);
        sender.tick();
    }
    rig.advance_ms(15_000);
    assert!(rig.pumps.busy_for(rig.clock.now()) >= Duration::from_secs(15));
    let_go();
    let facts = rig.finish(&segment);
    assert_eq!(rig.data(&facts.file.clone().unwrap()), sender.data(), "what waited is written");
    assert_eq!(facts.ledger.dropped_by_us, 0);
    until("it is at rest", || rig.pumps.busy_for(rig.clock.now()).is_zero());
}
