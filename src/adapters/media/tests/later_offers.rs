//! Later offers and candidates as no well-behaved peer sends them: what can be refused is, and media goes on.

use std::net::SocketAddr;

use super::*;
use crate::adapters::media::connection::Connection;
use crate::adapters::media::net::{Outbox, moment};
use crate::adapters::media::offer;
use crate::adapters::media::shared::Shared;

/// Sends nothing.
struct Nowhere;

impl Outbox for Nowhere {
    fn send(&mut self, _: ConnectionId, _: SocketAddr, _: SocketAddr, _: &[u8]) {}
}

/// The parts of a description: session first, then each m-line.
fn parts(sdp: &str) -> Vec<String> {
    let mut parts: Vec<String> = vec![String::new()];
    for line in sdp.lines() {
        if line.starts_with("m=") {
            parts.push(String::new());
        }
        let part = parts.last_mut().expect("there is one");
        part.push_str(line);
        part.push_str("\r\n");
    }
    parts
}

/// Sends on every m-line that did, and sees all of it arrive on the rings that were there.
fn media_goes_on(call: &mut Call, streams: usize) {
    let count = |call: &Call| -> Vec<u64> {
        call.rings().iter().map(|ring| ring.counters.received.load(Ordering::Relaxed)).collect()
    };
    let before = count(call);
    assert_eq!(before.len(), streams, "no stream came or went");
    assert!(
        call.until(LONG, |call| {
            for index in 0..streams {
                call.caller.send(index);
            }
            count(call).iter().zip(&before).all(|(now, before)| *now >= before + 20)
        }),
        "{before:?}, then {:?}",
        count(call)
    );
    assert_eq!(call.state(), ConnectionState::Connected);
    assert_eq!(call.plane.stats().connection_panics.load(Ordering::Relaxed), 0);
}

/// A call of audio and video that both flow, and the offer it began with.
fn both() -> (Call, String) {
    let plane = MediaLoop::start(settings()).expect("start");
    let mut caller = Caller::new();
    let offer = caller.offer(&[MediaKind::Audio, MediaKind::Video]);
    let (answer, facts) = block(plane.accept(CALL, offer.clone(), Vec::new(), None)).expect("answer");
    caller.answer(&answer.sdp);
    let mut call = Call { plane, caller, facts, answer: answer.sdp };
    assert!(call.until(LONG, |call| {
        if call.caller.connected {
            call.caller.send(0);
            call.caller.send(1);
        }
        call.rings().len() == 2
    }));
    (call, offer)
}

/// `spoil` makes an offer out of the caller's last one, which is refused and changes nothing; the next good one is taken.
fn refused(spoil: impl FnOnce(Vec<String>) -> Vec<String>) {
    let (mut call, offer) = both();
    let spoilt = spoil(parts(&offer)).concat();
    let answer = block(call.plane.renegotiate(CALL, spoilt));
    assert!(matches!(answer, Err(MediaError::BadOffer(_))), "{answer:?}");
    media_goes_on(&mut call, 2);
    let good = call.caller.restart_ice();
    let answer = block(call.plane.renegotiate(CALL, good)).expect("a good offer after a bad one");
    call.caller.answer(&answer.sdp);
    media_goes_on(&mut call, 2);
}

#[test]
fn a_later_offer_with_fewer_m_lines_is_refused_and_media_goes_on() {
    refused(|mut parts| {
        parts.truncate(2);
        parts
    });
}

#[test]
fn a_later_offer_with_its_m_lines_in_another_order_is_refused_and_media_goes_on() {
    refused(|mut parts| {
        parts.swap(1, 2);
        parts
    });
}

#[test]
fn a_later_offer_with_other_mids_is_refused_and_media_goes_on() {
    refused(|mut parts| {
        for part in &mut parts {
            *part = part.replace("a=mid:", "a=mid:x");
        }
        parts
    });
}

#[test]
fn an_m_line_that_turns_from_audio_into_video_is_refused_and_media_goes_on() {
    refused(|mut parts| {
        let mid = |part: &str| {
            let line = part.lines().find(|line| line.starts_with("a=mid:")).expect("mid");
            line.to_owned()
        };
        let (audio, video) = (mid(&parts[1]), mid(&parts[2]));
        parts[1] = parts[2].replace(&video, &audio);
        parts
    });
}

#[test]
fn later_offers_that_are_no_offers_are_refused_and_media_goes_on() {
    let (mut call, good) = both();
    let no_codec = good.replace("a=rtpmap:", "a=nothing:");
    let no_mid = good.replace("a=mid:", "a=nothing:");
    let half = good[..good.find("m=audio").expect("audio")].to_owned();
    for bad in
        ["", "v=0", "no description", no_codec.as_str(), no_mid.as_str(), half.as_str(), "v=0\r\nm=\r\n"]
    {
        let answer = block(call.plane.renegotiate(CALL, bad.to_owned()));
        assert!(answer.is_err(), "{bad:?} was answered");
    }
    media_goes_on(&mut call, 2);
}

#[test]
fn a_clock_rate_that_a_codec_does_not_have_is_no_change() {
    let (mut call, offer) = both();
    let other = offer.replace("opus/48000", "opus/44100").replace("/90000", "/8000");
    let answer = block(call.plane.renegotiate(CALL, other)).expect("answer");
    // RFC 7587 §4.1, RFC 7741 §5: what is answered is what is.
    assert!(answer.sdp.contains("opus/48000/2") && answer.sdp.contains("VP8/90000"));
    media_goes_on(&mut call, 2);
    assert!(call.rings().iter().all(|ring| ring.info.clock_rate == ring.info.codec.clock_rate()));
}

#[test]
fn the_same_offer_a_hundred_times_is_answered_each_time_and_media_goes_on() {
    let (mut call, same) = both();
    for _ in 0..100 {
        block(call.plane.renegotiate(CALL, same.clone())).expect("answer");
    }
    assert_eq!(call.facts.borrow().ice_restarts, 0);
    media_goes_on(&mut call, 2);
}

#[test]
fn a_renegotiation_of_a_connection_that_is_not_there_is_refused() {
    let (call, offer) = both();
    assert_eq!(block(call.plane.renegotiate(ConnectionId(99), offer)).map(|_| ()), Err(MediaError::Gone));
}

#[test]
fn candidates_of_an_ice_session_that_is_over_are_counted_and_media_goes_on() {
    let (mut call, first) = both();
    let fragment =
        first.lines().find_map(|line| line.strip_prefix("a=ice-ufrag:")).expect("fragment").to_owned();
    let offer = call.caller.restart_ice();
    let answer = block(call.plane.renegotiate(CALL, offer)).expect("answer");
    call.caller.answer(&answer.sdp);
    let refused = |call: &Call| call.plane.stats().candidates_refused.load(Ordering::Relaxed);
    let before = refused(&call);
    let stale = RemoteCandidate {
        candidate: format!("candidate:1 1 udp 2113937151 127.0.0.1 {} typ host", call.caller.port()),
        mid: None,
        m_line: Some(0),
        username_fragment: Some(fragment),
    };
    call.plane.add_candidates(CALL, vec![stale; 5]);
    assert!(call.until(LONG, |call| refused(call) == before + 5));
    media_goes_on(&mut call, 2);
}

fn data_channel(mid: &str, port: u16) -> String {
    let head = format!("m=application {port} UDP/DTLS/SCTP webrtc-datachannel\r\nc=IN IP4 0.0.0.0\r\n");
    format!("{head}a=mid:{mid}\r\na=setup:actpass\r\na=sctp-port:5000\r\n")
}

/// Offers that restart ICE and that the stack refuses, some only after it has begun to restart.
fn spoilt_restarts(offer: &str) -> Vec<(&'static str, String)> {
    let without_map = offer.replacen("UDP/TLS/RTP/SAVPF ", "UDP/TLS/RTP/SAVPF 77 ", 1);
    let two_channels = format!("{}\r\n{}{}", offer.trim_end(), data_channel("d1", 9), data_channel("d2", 9));
    vec![
        ("a payload type without rtpmap", without_map),
        (
            "two roles in one handshake",
            offer.replacen("a=setup:actpass", "a=setup:actpass\r\na=setup:active", 1),
        ),
        ("two data channels", two_channels),
    ]
}

/// `first` is in force, and all `spoilt` offers are refused before anything of the ICE session is touched.
fn refused_untouched(first: &str, spoilt: Vec<(&'static str, String)>) {
    let shared = Arc::new(Shared::new(settings(), vec![([127, 0, 0, 1], 4000).into()]));
    let read = |sdp: &str| offer::read(sdp).expect("it can be read");
    let local = shared.local_candidates();
    let mut connection =
        Connection::make(CALL, read(first), None, local, shared, moment()).expect("made").connection;
    let fragment = connection.local_fragment();
    for (what, spoilt) in spoilt {
        let answer = connection.renegotiate(read(&spoilt), moment(), &mut Nowhere);
        assert!(answer.is_err(), "{what}: answered");
        assert_eq!(connection.local_fragment(), fragment, "{what}: ICE was restarted");
    }
    let good = with_new_fragment(first);
    connection.renegotiate(read(&good), moment(), &mut Nowhere).expect("a good one after all the bad ones");
    assert_ne!(connection.local_fragment(), fragment);
}

fn with_new_fragment(offer: &str) -> String {
    offer.replace("a=ice-ufrag:", "a=ice-ufrag:new")
}

#[test]
fn a_restart_of_ice_that_is_refused_restarts_nothing() {
    let first = Caller::new().offer(&[MediaKind::Audio, MediaKind::Video]);
    refused_untouched(&first, spoilt_restarts(&with_new_fragment(&first)));
}

#[test]
fn what_the_stack_cannot_take_after_the_offer_before_is_refused_untouched() {
    let media = Caller::new().offer(&[MediaKind::Audio]);
    let with_channel = |port| format!("{}\r\n{}", media.trim_end(), data_channel("d1", port));
    let without = ("a data channel that goes", with_new_fragment(&with_channel(0)));
    refused_untouched(&with_channel(9), vec![without]);
}

#[test]
fn media_goes_on_after_restarts_of_ice_that_were_refused() {
    let (mut call, _) = both();
    let restart = call.caller.restart_ice();
    for (what, spoilt) in spoilt_restarts(&restart) {
        let answer = block(call.plane.renegotiate(CALL, spoilt));
        assert!(answer.is_err(), "{what}: {answer:?}");
    }
    assert_eq!(call.facts.borrow().ice_restarts, 0);
    media_goes_on(&mut call, 2);
    let answer = block(call.plane.renegotiate(CALL, restart)).expect("a good one after all the bad ones");
    call.caller.answer(&answer.sdp);
    media_goes_on(&mut call, 2);
    assert_eq!(call.facts.borrow().ice_restarts, 1);
}
