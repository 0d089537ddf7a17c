//! Streams of a connection that come, change and are too many.

use str0m::media::Pt;

use super::*;
use crate::adapters::media::intake::MAX_RINGS;

#[test]
fn a_change_of_codec_is_a_new_ring() {
    let mut call = Call::connect(&[MediaKind::Video]);
    assert!(call.until(LONG, |call| {
        call.caller.send(0);
        call.ring(0).is_some()
    }));
    let vp9 =
        call.caller.rtc.codec_config().params().iter().find(|p| p.spec().codec == str0m::format::Codec::Vp9);
    let vp9 = vp9.expect("vp9").pt();
    assert!(call.until(LONG, |call| {
        call.caller.send_payload(0, vp9, &[1; 50]);
        call.ring(1).is_some()
    }));
    let rings = call.rings();
    assert_eq!((rings[0].info.codec, rings[1].info.codec), (Codec::Vp8, Codec::Vp9));
    assert_ne!(rings[0].info.id, rings[1].info.id);
    assert!(call.until(LONG, |call| call.rings()[0].has_ended()));
    assert!(!call.rings()[1].has_ended());
}

/// Payload types of VP8 and VP9.
fn two_codecs(call: &Call) -> [Pt; 2] {
    ["VP8", "VP9"].map(|name| {
        let params = call.caller.rtc.codec_config().params();
        params.iter().find(|params| params.spec().codec.to_string() == name).expect(name).pt()
    })
}

#[test]
fn a_stream_may_change_for_ever_and_no_more_rings_are_kept_than_are_told() {
    let mut call = Call::connect(&[MediaKind::Video]);
    let numbers = two_codecs(&call);
    let sent = 3 * MAX_RINGS;
    for n in 0..sent {
        call.caller.send_payload(0, numbers[n % 2], &[1; 50]);
        call.caller.run_for(Duration::from_millis(1));
    }
    let newest = |call: &Call| call.rings().last().map(|ring| (ring.info.codec, ring.info.id.0));
    assert!(call.until(LONG, |call| newest(call) == Some((Codec::Vp9, sent as u64))), "{:?}", newest(&call));
    assert_eq!(call.state(), ConnectionState::Connected);
    assert!(call.rings().len() <= 8);
    assert_eq!(call.plane.stats().surplus_packets.load(Ordering::Relaxed), 0);
}

#[test]
fn streams_beyond_those_a_connection_may_have_are_refused_and_the_others_go_on() {
    let lines = MAX_RINGS / 2 + 2;
    let mut call = Call::connect(&vec![MediaKind::Video; lines]);
    let [first, second] = two_codecs(&call);
    let surplus = |call: &Call| call.plane.stats().surplus_packets.load(Ordering::Relaxed);
    // Each line changes its codec, and the stream before is still open for what comes late.
    for number in [first, second] {
        for line in 0..lines {
            call.caller.send_payload(line, number, &[1; 50]);
        }
    }
    let expected = (2 * lines - MAX_RINGS) as u64;
    assert!(call.until(LONG, |call| surplus(call) == expected), "{} of {expected}", surplus(&call));
    assert_eq!(call.state(), ConnectionState::Connected);
    // When those have ended there is room again.
    let of_last = |call: &Call| call.facts.borrow().media[lines - 1].streams.len();
    assert_eq!(of_last(&call), 1, "the last line's second stream was one too many");
    assert!(call.until(LONG, |call| {
        call.caller.send_payload(0, second, &[1; 50]);
        call.caller.send_payload(lines - 1, second, &[1; 50]);
        of_last(call) == 2
    }));
}

#[test]
fn who_sees_a_stream_end_with_its_connection_can_see_why() {
    for _ in 0..20 {
        let mut call = Call::connect(&[MediaKind::Audio]);
        assert!(call.until(LONG, |call| {
            call.caller.send(0);
            call.ring(0).is_some()
        }));
        let (ring, facts) = (call.ring(0).expect("a ring"), call.facts.clone());
        let watching = std::thread::spawn(move || {
            while !ring.has_ended() {
                std::hint::spin_loop();
            }
            facts.borrow().state
        });
        call.plane.close(CALL);
        assert_eq!(watching.join().expect("no panic"), ConnectionState::Closed);
    }
}
