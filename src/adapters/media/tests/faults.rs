//! Loss, repeats, reordering and forgeries: the call connects and the books balance.

use std::net::SocketAddr;

use super::*;
use crate::adapters::media::shim::{Fault, Shim};

/// Drops the n-th datagram of one direction.
struct DropNth {
    received: Option<usize>,
    sent: Option<usize>,
}

fn counts_down(left: &mut Option<usize>) -> bool {
    match left {
        Some(0) => {
            *left = None;
            true
        }
        Some(count) => {
            *count -= 1;
            false
        }
        None => false,
    }
}

impl Shim for DropNth {
    fn received(&mut self, _: SocketAddr, _: &[u8]) -> Fault {
        if counts_down(&mut self.received) { Fault::Drop } else { Fault::Pass }
    }

    fn sent(&mut self, _: SocketAddr, _: &[u8]) -> Fault {
        if counts_down(&mut self.sent) { Fault::Drop } else { Fault::Pass }
    }
}

fn connects_with(shim: DropNth) -> bool {
    let plane = MediaLoop::start_with_shim(settings(), Box::new(shim)).expect("start");
    let mut call = Call::place(plane, &[MediaKind::Audio]);
    call.until(LONG, |call| {
        if call.caller.connected {
            call.caller.send(0);
        }
        call.state() == ConnectionState::Connected && call.ring(0).is_some()
    })
}

/// All of these calls at once: each waits for timers, not for the processor.
fn all_connect(shim: impl Fn(usize) -> DropNth + Copy + Send + 'static) {
    let calls: Vec<_> = (0..=30).map(|n| (n, std::thread::spawn(move || connects_with(shim(n))))).collect();
    for (n, call) in calls {
        assert!(call.join().expect("no panic"), "without datagram {n} the call does not connect");
    }
}

#[test]
fn no_single_datagram_lost_on_the_way_in_hangs_a_call() {
    all_connect(|n| DropNth { received: Some(n), sent: None });
}

#[test]
fn no_single_datagram_lost_on_the_way_out_hangs_a_call() {
    all_connect(|n| DropNth { received: None, sent: Some(n) });
}

/// Loses, repeats and delays RTP by a fixed pattern.
struct Rough(u32);

impl Shim for Rough {
    fn received(&mut self, _: SocketAddr, bytes: &[u8]) -> Fault {
        if bytes.len() < 60 || !(128..192).contains(&bytes[0]) || (64..96).contains(&(bytes[1] & 0x7f)) {
            return Fault::Pass;
        }
        self.0 += 1;
        match self.0 % 23 {
            4 | 11 => Fault::Drop,
            7 => Fault::Duplicate,
            13 => Fault::Delay(Duration::from_millis(40)),
            19 => Fault::Delay(Duration::from_millis(9)),
            _ => Fault::Pass,
        }
    }

    fn sent(&mut self, _: SocketAddr, _: &[u8]) -> Fault {
        Fault::Pass
    }
}

#[test]
fn the_books_balance_under_loss_repeats_and_reordering() {
    let plane = MediaLoop::start_with_shim(settings(), Box::new(Rough(0))).expect("start");
    let mut call = Call::place(plane, &[MediaKind::Audio, MediaKind::Video]);
    assert!(call.until(LONG, |call| call.caller.connected));
    for _ in 0..400 {
        call.caller.send(0);
        call.caller.send(1);
        call.caller.run_for(Duration::from_millis(4));
    }
    call.caller.run_for(Duration::from_millis(800));
    let rings = call.rings();
    assert_eq!(rings.len(), 2);
    for ring in rings {
        let mut read = Read::default();
        read.from(&ring);
        let mut numbers: Vec<u64> = read.packets.iter().map(|packet| packet.sequence).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), read.packets.len(), "nothing is delivered twice");
        assert!(numbers.len() >= 396, "{} of 400 came, the rest by asking again", numbers.len());
        assert!(ring.counters.duplicate.load(Ordering::Relaxed) > 0);
        assert_eq!(ring.counters.undecryptable.load(Ordering::Relaxed), 0);
        read.check_balance(&ring);
    }
}

#[test]
fn a_forged_packet_is_booked_as_undecryptable_and_harms_nothing() {
    let mut call = Call::connect(&[MediaKind::Audio]);
    assert!(call.until(LONG, |call| {
        call.caller.send(0);
        call.ring(0).is_some()
    }));
    let ring = call.ring(0).expect("ring");
    let pt = *call.caller.payload_type(MediaKind::Audio);
    let mut forged = vec![0x80, pt, 0x10, 0x00, 0, 0, 0, 1];
    // A number ahead of the stream's, so that only authentication can refuse it.
    let ahead = (call.caller.senders[0].sequence as u16).wrapping_add(5);
    forged[2..4].copy_from_slice(&ahead.to_be_bytes());
    forged.extend(ring.info.ssrc.to_be_bytes());
    forged.extend([7; 60]);
    let to = call.plane.bound()[0];
    call.caller.send_raw(to, &forged);
    assert!(call.until(LONG, |_| ring.counters.undecryptable.load(Ordering::Relaxed) == 1));
    for _ in 0..10 {
        call.caller.send(0);
        call.caller.run_for(Duration::from_millis(2));
    }
    let mut read = Read::default();
    assert!(call.until(LONG, |call| {
        read.from(&ring);
        read.packets.len() as u64 == call.caller.sent
    }));
    read.check_balance(&ring);
}

#[test]
fn garbage_from_the_callers_address_and_from_strangers_is_survived() {
    let mut call = Call::connect(&[MediaKind::Audio]);
    let to = call.plane.bound()[0];
    let stranger = std::net::UdpSocket::bind("127.0.0.1:0").expect("bind");
    for length in 0..200usize {
        for first in [0u8, 1, 2, 20, 22, 23, 63, 64, 127, 128, 144, 191, 192, 255] {
            let mut bytes: Vec<u8> = (0..length).map(|i| (i * 31 + length) as u8).collect();
            if let Some(byte) = bytes.first_mut() {
                *byte = first;
            }
            call.caller.send_raw(to, &bytes);
            if length % 16 == 0 {
                stranger.send_to(&bytes, to).expect("send");
            }
        }
        call.caller.run_for(Duration::from_micros(300));
    }
    assert!(call.until(LONG, |call| {
        call.caller.send(0);
        call.ring(0).is_some()
    }));
    assert_eq!(call.state(), ConnectionState::Connected);
    assert_eq!(call.plane.stats().connection_panics.load(Ordering::Relaxed), 0);
    assert!(call.plane.stats().stray_datagrams.load(Ordering::Relaxed) > 0);
}

/// Silence in both directions while the switch is on.
struct Blackout(Arc<std::sync::atomic::AtomicBool>);

impl Shim for Blackout {
    fn received(&mut self, _: SocketAddr, _: &[u8]) -> Fault {
        if self.0.load(Ordering::Relaxed) { Fault::Drop } else { Fault::Pass }
    }

    fn sent(&mut self, _: SocketAddr, _: &[u8]) -> Fault {
        if self.0.load(Ordering::Relaxed) { Fault::Drop } else { Fault::Pass }
    }
}

#[test]
fn a_silent_path_is_disconnected_and_an_ice_restart_brings_it_back_on_the_same_ring() {
    let dark = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let plane = MediaLoop::start_with_shim(settings(), Box::new(Blackout(dark.clone()))).expect("start");
    let mut call = Call::place(plane, &[MediaKind::Audio]);
    assert!(call.until(LONG, |call| {
        if call.caller.connected {
            call.caller.send(0);
        }
        call.ring(0).is_some()
    }));
    dark.store(true, Ordering::Relaxed);
    let minute = Duration::from_secs(60);
    assert!(call.until(minute, |call| call.state() == ConnectionState::Disconnected), "{:?}", call.state());
    dark.store(false, Ordering::Relaxed);
    let offer = call.caller.restart_ice();
    let answer = block(call.plane.renegotiate(CALL, offer)).expect("answer");
    call.caller.answer(&answer.sdp);
    assert!(call.until(minute, |call| call.state() == ConnectionState::Connected), "{:?}", call.state());
    let before = call.ring(0).expect("ring").counters.received.load(Ordering::Relaxed);
    assert!(call.until(LONG, |call| {
        call.caller.send(0);
        call.ring(0).expect("ring").counters.received.load(Ordering::Relaxed) > before
    }));
    assert_eq!(call.rings().len(), 1);
}

/// Panics where a connection's datagram is handled.
struct PanicOn(Arc<std::sync::atomic::AtomicBool>, u16);

impl Shim for PanicOn {
    fn received(&mut self, source: SocketAddr, _: &[u8]) -> Fault {
        if self.0.load(Ordering::Relaxed) && source.port() == self.1 { Fault::Panic } else { Fault::Pass }
    }

    fn sent(&mut self, _: SocketAddr, _: &[u8]) -> Fault {
        Fault::Pass
    }
}

#[test]
fn a_panic_in_one_connection_ends_that_one_alone() {
    let mut first = Caller::new();
    let mut second = Caller::new();
    let armed = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let shim = PanicOn(armed.clone(), first.port());
    let plane = MediaLoop::start_with_shim(settings(), Box::new(shim)).expect("start");
    let mut watches = Vec::new();
    for (id, caller) in [(1, &mut first), (2, &mut second)] {
        let offer = caller.offer(&[MediaKind::Audio]);
        let (answer, facts) = block(plane.accept(ConnectionId(id), offer, Vec::new(), None)).expect("answer");
        caller.answer(&answer.sdp);
        watches.push(facts);
        assert!(caller.run_until(LONG, |caller| caller.connected));
    }
    armed.store(true, Ordering::Relaxed);
    let state = |index: usize| watches[index].borrow().state;
    assert!(first.run_until(LONG, |first| {
        first.send(0);
        state(0) == ConnectionState::Failed
    }));
    assert_eq!(plane.stats().connection_panics.load(Ordering::Relaxed), 1);
    assert!(second.run_until(LONG, |second| {
        second.send(0);
        !watches[1].borrow().media[0].streams.is_empty()
    }));
    assert_eq!(state(1), ConnectionState::Connected);
    assert_eq!(plane.connections(), 1);
    plane.shutdown();
}

/// Holds the caller's last handshake flight back, so that media overtakes it: for a moment, or as long as the switch is on.
struct LateHandshake(Option<Arc<std::sync::atomic::AtomicBool>>);

impl Shim for LateHandshake {
    fn received(&mut self, _: SocketAddr, bytes: &[u8]) -> Fault {
        // Records of DTLS that are encrypted: the flight with which the caller thinks itself connected.
        let encrypted = matches!(bytes, [22, _, _, epoch0, epoch1, ..] if (*epoch0, *epoch1) != (0, 0));
        let unified = bytes.first().is_some_and(|first| (32..64).contains(first));
        if encrypted || unified || bytes.first() == Some(&20) {
            match &self.0 {
                None => Fault::Delay(Duration::from_millis(150)),
                Some(on) if on.load(Ordering::Relaxed) => Fault::Drop,
                Some(_) => Fault::Pass,
            }
        } else {
            Fault::Pass
        }
    }

    fn sent(&mut self, _: SocketAddr, _: &[u8]) -> Fault {
        Fault::Pass
    }
}

#[test]
fn packets_that_overtake_the_handshake_are_not_lost() {
    let plane = MediaLoop::start_with_shim(settings(), Box::new(LateHandshake(None))).expect("start");
    let mut call = Call::place_passive(plane, &[MediaKind::Audio]);
    let mut sent_early = 0;
    let mut read = Read::default();
    assert!(call.until(LONG, |call| {
        if call.caller.connected && sent_early < 30 {
            call.caller.send(0);
            sent_early += 1;
        }
        if let Some(ring) = call.ring(0) {
            read.from(&ring);
        }
        read.packets.len() >= 30
    }));
    assert_eq!(read.packets[0].sequence, 65_500, "the first packet is there");
    read.check_balance(&call.ring(0).expect("ring"));
}

#[test]
fn packets_that_overtake_the_handshake_beyond_their_room_are_counted_and_told() {
    let late = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let shim = LateHandshake(Some(late.clone()));
    let plane = MediaLoop::start_with_shim(settings(), Box::new(shim)).expect("start");
    let mut call = Call::place_passive(plane, &[MediaKind::Audio]);
    assert!(call.until(LONG, |call| call.caller.connected));
    for _ in 0..400 {
        call.caller.send(0);
    }
    let dropped = |call: &Call| call.plane.stats().held_drops.load(Ordering::Relaxed);
    assert!(call.until(LONG, |call| dropped(call) == 144), "{} of 400 with room for 256", dropped(&call));
    late.store(false, Ordering::Relaxed);
    assert!(call.until(LONG, |call| call.facts.borrow().held_drops == 144));
    assert!(call.plane.view().last_drops()[1].is_some());
}
