//! The media loop against a peer over loopback sockets.

mod books;
mod caller;
mod descriptions;
mod dial;
mod faults;
mod later_offers;
#[cfg(feature = "fault-injection")]
mod points;
mod recovery;
mod relay;
mod streams;
mod tile;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use recorder_actors::ports::{
    ConnectionFacts, ConnectionState, MediaError, MediaPlane, RemoteCandidate, Tile,
};
use recorder_actors::ring::TrackRing;
use recorder_core::ids::{ConnectionId, Mid};
use recorder_core::media::{Codec, RingItem, RtpPacket, SenderReport};
use str0m::media::{Direction, MediaKind};
use tokio::sync::watch;

use super::{MediaLoop, MediaSettings};
use caller::Caller;

const CALL: ConnectionId = ConnectionId(7);
const LONG: Duration = Duration::from_secs(15);

fn settings() -> MediaSettings {
    MediaSettings { include_loopback: true, bind: [127, 0, 0, 1].into(), ..MediaSettings::default() }
}

fn block<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
    runtime.block_on(future)
}

/// A call of the given m-lines, connected.
struct Call {
    plane: MediaLoop,
    caller: Caller,
    facts: watch::Receiver<Arc<ConnectionFacts>>,
    answer: String,
}

impl Call {
    fn connect(kinds: &[MediaKind]) -> Self {
        let mut call = Self::place(MediaLoop::start(settings()).expect("start"), kinds);
        assert!(call.until(LONG, |call| call.caller.connected && call.state() == ConnectionState::Connected));
        call
    }

    fn place(plane: MediaLoop, kinds: &[MediaKind]) -> Self {
        Self::place_with(plane, kinds, |offer| offer)
    }

    /// A call in which the recorder begins the handshake, so that the caller is the first to have its keys.
    fn place_passive(plane: MediaLoop, kinds: &[MediaKind]) -> Self {
        Self::place_with(plane, kinds, |offer| offer.replace("a=setup:actpass", "a=setup:passive"))
    }

    fn place_with(plane: MediaLoop, kinds: &[MediaKind], edit: impl FnOnce(String) -> String) -> Self {
        let mut caller = Caller::new();
        let offer = edit(caller.offer(kinds));
        let (answer, facts) = block(plane.accept(CALL, offer, Vec::new(), None)).expect("answer");
        caller.answer(&answer.sdp);
        Self { plane, caller, facts, answer: answer.sdp }
    }

    /// A call that the recorder places; the other side answers.
    fn dial(plane: MediaLoop, tile: Tile, screen: bool) -> Self {
        let mut caller = Caller::new();
        let (offer, facts) = block(plane.dial(CALL, Vec::new(), tile, screen)).expect("offer");
        let answer = caller.answer_offer(&offer.sdp);
        block(plane.answered(CALL, answer)).expect("the answer is taken");
        Self { plane, caller, facts, answer: offer.sdp }
    }

    fn state(&self) -> ConnectionState {
        self.facts.borrow().state
    }

    fn until(&mut self, limit: Duration, mut done: impl FnMut(&mut Self) -> bool) -> bool {
        let deadline = std::time::Instant::now() + limit;
        while std::time::Instant::now() < deadline {
            if done(self) {
                return true;
            }
            self.caller.run_for(Duration::from_millis(10));
        }
        done(self)
    }

    /// Streams of all m-lines, oldest first.
    fn rings(&self) -> Vec<Arc<TrackRing>> {
        self.facts.borrow().media.iter().flat_map(|media| media.streams.clone()).collect()
    }

    fn ring(&self, index: usize) -> Option<Arc<TrackRing>> {
        self.rings().get(index).cloned()
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.plane.shutdown();
    }
}

#[derive(Default)]
struct Read {
    packets: Vec<RtpPacket>,
    reports: Vec<SenderReport>,
}

impl Read {
    fn from(&mut self, ring: &TrackRing) {
        while let Some(item) = ring.pop() {
            match item {
                RingItem::Packet(packet) => self.packets.push(packet),
                RingItem::Report(report) => self.reports.push(report),
            }
        }
    }

    /// The books balance at every packet, and at the end with what the ring counted.
    fn check_balance(&self, ring: &TrackRing) {
        let mut entered = 0;
        for packet in &self.packets {
            entered += 1 + packet.skipped.total();
            assert_eq!(packet.ingress, entered, "packet {}", packet.sequence);
        }
        entered += ring.take_tail().total();
        assert_eq!(ring.counters.received.load(Ordering::Relaxed), entered);
    }
}

#[test]
fn packets_of_a_call_arrive_in_order_with_their_payload_and_time() {
    let mut call = Call::connect(&[MediaKind::Audio, MediaKind::Video]);
    for _ in 0..100 {
        call.caller.send(0);
        call.caller.send(1);
        call.caller.run_for(Duration::from_millis(2));
    }
    let received = |call: &Call| -> u64 {
        call.rings().iter().map(|r| r.counters.received.load(Ordering::Relaxed)).sum()
    };
    assert!(call.until(LONG, |call| received(call) == call.caller.sent && call.caller.sent >= 200));
    let rings = call.rings();
    assert_eq!(rings.iter().map(|ring| ring.info.codec).collect::<Vec<_>>(), [Codec::Opus, Codec::Vp8]);
    for ring in rings {
        let mut read = Read::default();
        read.from(&ring);
        read.check_balance(&ring);
        assert_eq!(read.packets.len(), 100);
        for (index, packet) in read.packets.iter().enumerate() {
            // The numbers roll over from 65535 to 65536 on the way.
            assert_eq!(packet.payload[..8], (65_500 + index as u64).to_be_bytes());
            assert_eq!(packet.sequence, 65_500 + index as u64);
            assert_eq!(packet.timestamp, 1_000 + 960 * index as u32);
        }
        assert!(read.packets.windows(2).all(|pair| pair[0].arrival <= pair[1].arrival));
    }
    assert!(call.facts.borrow().first_packet.is_some());
}

#[test]
fn the_answer_is_receive_only_and_asks_for_quality() {
    let call =
        Call::place(MediaLoop::start(settings()).expect("start"), &[MediaKind::Audio, MediaKind::Video]);
    assert_eq!(call.answer.matches("a=recvonly").count(), 2);
    for forbidden in
        ["a=sendrecv", "a=sendonly", "a=inactive", "usedtx", "a=ssrc:", "a=msid:", "abs-capture-time"]
    {
        assert!(!call.answer.contains(forbidden), "{forbidden}");
    }
    for wanted in [
        "maxaveragebitrate=128000",
        "stereo=1;sprop-stereo=1",
        "x-google-start-bitrate=2500",
        "urn:3gpp:video-orientation",
        "a=candidate:",
    ] {
        assert!(call.answer.contains(wanted), "{wanted}");
    }
}

#[test]
fn lost_audio_is_asked_for_and_comes_again() {
    let mut call = Call::connect(&[MediaKind::Audio]);
    let mut count = 0;
    call.caller.lose = Box::new(move |bytes| {
        let is_rtp = (128..192).contains(&bytes[0]) && bytes[1] & 0x7f >= 96;
        count += u32::from(is_rtp);
        is_rtp && count % 10 == 5
    });
    for _ in 0..60 {
        call.caller.send(0);
        call.caller.run_for(Duration::from_millis(5));
    }
    call.caller.lose = Box::new(|_| false);
    let mut read = Read::default();
    assert!(call.until(LONG, |call| {
        if let Some(ring) = call.ring(0) {
            read.from(&ring);
        }
        read.packets.len() == 60
    }));
    let ring = call.ring(0).expect("ring");
    assert!(ring.counters.nacks_sent.load(Ordering::Relaxed) >= 5);
    let recovered = read.packets.iter().filter(|packet| packet.recovered).count();
    assert!(recovered >= 5, "{recovered} marked as recovered");
    assert_eq!(ring.counters.recovered.load(Ordering::Relaxed), recovered as u64);
    read.check_balance(&ring);
}

#[test]
fn sender_reports_come_with_the_clock_of_the_sender() {
    let mut call = Call::connect(&[MediaKind::Audio]);
    let mut read = Read::default();
    assert!(call.until(LONG, |call| {
        call.caller.send(0);
        if let Some(ring) = call.ring(0) {
            read.from(&ring);
        }
        read.reports.len() >= 3
    }));
    let utc =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs();
    for report in &read.reports {
        assert!((report.ntp >> 32).abs_diff(utc + 2_208_988_800) <= 20);
        assert_eq!(report.ssrc, read.packets[0].ssrc);
    }
    let (first, last) = (&read.reports[0], &read.reports[2]);
    assert!(last.ntp > first.ntp && last.arrival > first.arrival, "no report is told twice");
    let ring = call.ring(0).expect("ring");
    assert_eq!(ring.counters.sender_reports.load(Ordering::Relaxed), read.reports.len() as u64);
}

#[test]
fn a_key_frame_is_asked_for_once_in_half_a_second() {
    let mut call = Call::connect(&[MediaKind::Video]);
    assert!(call.until(LONG, |call| {
        call.caller.send(0);
        call.ring(0).is_some()
    }));
    let ring = call.ring(0).expect("ring");
    for _ in 0..20 {
        call.plane.request_key_frame(CALL, Mid::new("0"), ring.info.id);
    }
    assert!(call.until(LONG, |call| call.caller.key_frames_asked >= 1));
    call.caller.run_for(Duration::from_millis(100));
    assert_eq!(call.caller.key_frames_asked, 1);
    assert_eq!(ring.counters.key_frames_requested.load(Ordering::Relaxed), 1);
}

#[test]
fn closing_ends_the_rings_and_tells_the_peer() {
    let mut call = Call::connect(&[MediaKind::Audio]);
    assert!(call.until(LONG, |call| {
        call.caller.send(0);
        call.ring(0).is_some()
    }));
    let ring = call.ring(0).expect("ring");
    call.plane.close(CALL);
    assert!(call.until(LONG, |call| call.caller.closed && call.state() == ConnectionState::Closed));
    assert!(ring.has_ended());
    assert_eq!(call.plane.connections(), 0);
}

#[test]
fn the_peers_goodbye_closes_the_connection() {
    let mut call = Call::connect(&[MediaKind::Audio]);
    call.caller.rtc.close().expect("close");
    assert!(call.until(LONG, |call| call.state() == ConnectionState::Closed));
    assert_eq!(call.facts.borrow().reason.as_deref(), Some("closed by the remote side"));
}

#[test]
fn shutdown_says_goodbye_to_everyone() {
    let mut call = Call::connect(&[MediaKind::Audio]);
    call.plane.shutdown();
    assert_eq!(call.state(), ConnectionState::Closed);
    assert!(call.until(LONG, |call| call.caller.closed));
    assert_eq!(
        block(call.plane.renegotiate(CALL, String::new())),
        Err(MediaError::BadOffer("no session description".into()))
    );
}

#[test]
fn an_ice_restart_keeps_the_ring_and_loses_nothing() {
    let mut call = Call::connect(&[MediaKind::Audio]);
    let send = |call: &mut Call, times: usize| {
        for _ in 0..times {
            call.caller.send(0);
            call.caller.run_for(Duration::from_millis(5));
        }
    };
    send(&mut call, 50);
    let offer = call.caller.restart_ice();
    let answer = block(call.plane.renegotiate(CALL, offer)).expect("answer");
    call.caller.answer(&answer.sdp);
    send(&mut call, 200);
    let ring = call.ring(0).expect("ring");
    let mut read = Read::default();
    assert!(
        call.until(LONG, |_| {
            read.from(&ring);
            read.packets.len() == 250
        }),
        "{} of 250",
        read.packets.len()
    );
    assert_eq!(call.facts.borrow().ice_restarts, 1);
    assert_eq!(call.rings().len(), 1);
    assert_eq!(call.state(), ConnectionState::Connected);
}

#[test]
fn a_later_offer_adds_and_stops_media() {
    let mut call = Call::connect(&[MediaKind::Audio]);
    let offer = call.caller.offer(&[MediaKind::Video]);
    let answer = block(call.plane.renegotiate(CALL, offer)).expect("answer");
    call.caller.answer(&answer.sdp);
    assert!(call.until(LONG, |call| {
        call.caller.send(1);
        call.ring(0).is_some()
    }));
    assert_eq!(call.ring(0).expect("ring").info.codec, Codec::Vp8);
    assert_eq!(call.facts.borrow().media.len(), 2);
    let mid = call.caller.senders[1].mid;
    let offer = call.caller.set_direction(mid, Direction::Inactive);
    let answer = block(call.plane.renegotiate(CALL, offer)).expect("answer");
    assert_eq!(answer.sdp.matches("a=inactive").count(), 1);
    call.caller.answer(&answer.sdp);
    assert!(!call.facts.borrow().media[1].direction.sends());
    assert!(call.facts.borrow().media[0].direction.sends());
}

#[test]
fn offers_that_cannot_be_used_are_refused() {
    let plane = MediaLoop::start(settings()).expect("start");
    let mut caller = Caller::new();
    let good = caller.offer(&[MediaKind::Audio]);
    let refused =
        |offer: String| block(plane.accept(CALL, offer, Vec::new(), None)).map(|_| ()).expect_err("refused");
    assert!(matches!(refused(String::new()), MediaError::BadOffer(_)));
    assert!(matches!(refused("v=0\r\ngarbage".into()), MediaError::NothingToRecord));
    assert!(matches!(refused(good.replace("opus", "speex")), MediaError::NothingToRecord));
    assert!(matches!(refused(good.replace("a=fingerprint", "a=fingerprant")), MediaError::BadOffer(_)));
    assert!(matches!(refused(good.replace("a=ice-", "a=ace-")), MediaError::BadOffer(_)));
    assert!(matches!(refused("v=0\r\n".repeat(1 << 20)), MediaError::BadOffer(_)));
    assert_eq!(plane.connections(), 0, "a refused offer takes no place");
    plane.shutdown();
}

#[test]
fn an_offer_beyond_the_limit_is_refused() {
    let plane = MediaLoop::start(MediaSettings { max_connections: 1, ..settings() }).expect("start");
    let offer = |kinds: &[MediaKind]| Caller::new().offer(kinds);
    assert!(block(plane.accept(ConnectionId(1), offer(&[MediaKind::Audio]), Vec::new(), None)).is_ok());
    let one_too_many = block(plane.accept(ConnectionId(2), offer(&[MediaKind::Audio]), Vec::new(), None));
    assert_eq!(one_too_many.err(), Some(MediaError::Full(1)));
    plane.close(ConnectionId(1));
    plane.shutdown();
    assert_eq!(plane.connections(), 0);
}

#[test]
fn a_port_that_is_taken_is_named() {
    let plane = MediaLoop::start(settings()).expect("start");
    let taken = plane.bound()[0];
    let error = MediaLoop::start(MediaSettings { udp_port: taken.port(), ..settings() }).expect_err("taken");
    assert!(error.to_string().contains(&taken.to_string()), "{error}");
    plane.shutdown();
}

#[test]
fn the_heartbeat_goes_on_without_traffic() {
    let plane = MediaLoop::start(settings()).expect("start");
    let first = plane.heartbeat();
    let deadline = std::time::Instant::now() + LONG;
    while plane.heartbeat() == first {
        assert!(std::time::Instant::now() < deadline, "the loop stands still");
        std::thread::yield_now();
    }
    plane.shutdown();
    let refused = block(plane.accept(CALL, Caller::new().offer(&[MediaKind::Audio]), Vec::new(), None));
    assert_eq!(refused.map(|_| ()), Err(MediaError::Stopped));
}

#[test]
fn candidates_that_overtake_the_answer_and_ten_thousand_of_them_do_no_harm() {
    let plane = MediaLoop::start(settings()).expect("start");
    let mut caller = Caller::new();
    let text = format!("candidate:1 1 udp 2113937151 127.0.0.1 {} typ host", caller.port());
    let candidate = |candidate: String| RemoteCandidate {
        candidate,
        mid: None,
        m_line: Some(0),
        username_fragment: None,
    };
    plane.add_candidates(CALL, vec![candidate(text), candidate(String::new())]);
    let without: String = caller
        .offer(&[MediaKind::Audio])
        .lines()
        .filter(|l| !l.contains("candidate"))
        .map(|l| format!("{l}\r\n"))
        .collect();
    let (answer, facts) = block(plane.accept(CALL, without, Vec::new(), None)).expect("answer");
    caller.answer(&answer.sdp);
    let mut call = Call { plane, caller, facts, answer: answer.sdp };
    for port in 1..=10_000 {
        let text = format!("candidate:{port} 1 udp 1 192.0.2.1 {port} typ host");
        call.plane.add_candidates(CALL, vec![candidate(text)]);
    }
    assert!(call.until(LONG, |call| call.state() == ConnectionState::Connected));
    assert!(call.until(LONG, |call| {
        let stats = call.plane.stats();
        let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        count(&stats.candidates_refused) + count(&stats.commands_dropped) >= 9_700
    }));
}
