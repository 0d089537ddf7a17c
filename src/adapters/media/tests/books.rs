//! The small machines: routes, windows, candidates.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;

use proptest::prelude::*;
use recorder_actors::ring::{StreamInfo, TrackRing};
use recorder_core::ids::{ConnectionId, Mid, StreamId};
use recorder_core::media::{Codec, MediaKind, RingItem, RtpPacket, Skipped};
use recorder_core::time::BootTime;

use crate::adapters::media::candidates::{Remote, local, remote};
use crate::adapters::media::demux::{Demux, binding_request_fragment};
use crate::adapters::media::intake::Head;
use crate::adapters::media::ledger::{Fate, Pending, Place, RETIRE_AFTER, Seen, Stream};

fn address(port: u16) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], port))
}

fn binding_request(username: &str) -> Vec<u8> {
    let mut attributes = vec![0x80, 0x22, 0, 3, b'a', b'b', b'c', 0];
    attributes.extend([0, 6]);
    attributes.extend((username.len() as u16).to_be_bytes());
    attributes.extend(username.bytes());
    attributes.resize(attributes.len().next_multiple_of(4), 0);
    let mut message = vec![0, 1];
    message.extend((attributes.len() as u16).to_be_bytes());
    message.extend([0x21, 0x12, 0xa4, 0x42]);
    message.extend([9; 12]);
    message.extend(attributes);
    message
}

#[test]
fn a_request_finds_its_connection_by_fragment_and_the_rest_by_address() {
    let mut demux = Demux::default();
    demux.add_fragment(ConnectionId(1), "one");
    demux.add_fragment(ConnectionId(2), "two");
    assert_eq!(demux.route(address(1), b"media"), None);
    assert_eq!(demux.route(address(1), &binding_request("one:them")), Some(ConnectionId(1)));
    assert_eq!(demux.route(address(1), b"media"), Some(ConnectionId(1)));
    assert_eq!(demux.route(address(2), &binding_request("nobody:them")), None);
    // Our own checks do not take an address away; the owner's request does.
    demux.sent(ConnectionId(2), address(1));
    assert_eq!(demux.route(address(1), b"media"), Some(ConnectionId(1)));
    assert_eq!(demux.route(address(1), &binding_request("two:them")), Some(ConnectionId(2)));
    assert_eq!(demux.route(address(1), b"media"), Some(ConnectionId(2)));
    demux.forget(ConnectionId(2));
    assert_eq!(demux.route(address(1), b"media"), None);
    assert_eq!(demux.route(address(1), &binding_request("two:them")), None);
}

#[test]
fn the_fragment_before_an_ice_restart_is_still_answered() {
    let mut demux = Demux::default();
    demux.add_fragment(ConnectionId(1), "old");
    demux.add_fragment(ConnectionId(1), "new");
    assert_eq!(demux.route(address(1), &binding_request("old:them")), Some(ConnectionId(1)));
    for round in 0..10 {
        demux.add_fragment(ConnectionId(1), &format!("r{round}"));
    }
    assert_eq!(demux.route(address(1), &binding_request("old:them")), None);
}

#[test]
fn a_connection_keeps_only_its_newest_addresses() {
    let mut demux = Demux::default();
    demux.add_fragment(ConnectionId(1), "one");
    for port in 1..=1000 {
        demux.route(address(port), &binding_request("one:them"));
    }
    let known = (1..=1000).filter(|port| demux.route(address(*port), b"media").is_some()).count();
    assert_eq!(known, 32);
    assert!(demux.route(address(1000), b"media").is_some());
}

#[test]
fn candidates_that_cannot_be_used_are_told_from_broken_ones() {
    let usable = |text| matches!(remote(text), Remote::Usable(_));
    let skipped = |text| matches!(remote(text), Remote::Skipped);
    let malformed = |text| matches!(remote(text), Remote::Malformed);
    assert!(usable(
        "candidate:1 1 udp 2113937151 192.0.2.7 50000 typ host generation 0 ufrag abcd network-cost 999"
    ));
    assert!(usable("a=candidate:1 1 UDP 2113937151 2001:db8::7 50000 typ host"));
    assert!(skipped(""));
    assert!(skipped("candidate:1 1 udp 2113937151 8ab0c7d2-1234.local 50000 typ host"));
    assert!(skipped("candidate:1 1 tcp 1518280447 192.0.2.7 9 typ host tcptype active"));
    assert!(malformed("candidate:1 1 udp x y z typ host"));
    assert!(malformed(&"candidate:".repeat(1000)));
}

#[test]
fn rtp_is_told_from_what_shares_its_port() {
    let mut packet = vec![0x80, 111, 0x12, 0x34, 0, 0, 0, 1, 0xde, 0xad, 0xbe, 0xef];
    let head = Head { ssrc: 0xdead_beef, sequence: 0x1234, payload_type: 111 };
    assert_eq!(Head::parse(&packet), Some(head));
    packet[1] = 200; // an RTCP sender report
    assert_eq!(Head::parse(&packet), None);
    packet[..2].copy_from_slice(&[22, 254]); // DTLS
    assert_eq!(Head::parse(&packet), None);
    assert_eq!(Head::parse(&[0x80; 11]), None);
}

proptest! {
    #[test]
    fn any_bytes_can_be_looked_at(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Head::parse(&bytes);
        let _ = binding_request_fragment(&bytes);
        let mut stun = binding_request("abc:def");
        let length = stun.len();
        for (index, byte) in bytes.iter().enumerate().skip(8) {
            stun[index % length] = *byte;
        }
        let _ = binding_request_fragment(&stun);
        let _ = remote(&String::from_utf8_lossy(&bytes));
    }

    /// Against a set that remembers everything: what came is told from what the stack does not look at, and from the rest.
    #[test]
    fn the_window_remembers_what_came(start in any::<u16>(), steps in prop::collection::vec(-300i32..200, 1..400)) {
        let mut seen = Seen::of_main();
        let mut all = HashSet::new();
        let first = i64::from(start) + 65_536 + i64::from(steps[0]);
        let mut highest = i64::from(start) + 65_536;
        for step in steps {
            let number = highest + i64::from(step);
            let behind = highest - number;
            let came = all.contains(&number).then_some(Fate::Duplicate);
            let unseen = !all.is_empty() && behind > 100.min(highest - first);
            prop_assert_eq!(seen.refuses(number as u16), came.or(unseen.then_some(Fate::Late)));
            let ahead = all.is_empty() || behind < 0;
            prop_assert_eq!(seen.spares(number as u16), came.or(ahead.then_some(Fate::Late)));
            seen.insert(number as u16);
            all.insert(number);
            highest = if all.len() == 1 { number } else { highest.max(number) };
        }
    }
}

#[test]
fn a_retransmission_is_of_use_as_long_as_a_receiver_may_wait_for_it() {
    let mut seen = Seen::of_main();
    for number in (0u16..10_000).filter(|number| number % 2 == 0) {
        seen.insert(number.wrapping_add(60_000));
    }
    let highest = 9_998u16.wrapping_add(60_000);
    for behind in 1..=3_000 {
        let expected = (behind % 2 == 0).then_some(Fate::Duplicate);
        assert_eq!(seen.spares(highest.wrapping_sub(behind)), expected, "{behind} behind");
    }
    assert_eq!(seen.spares(highest.wrapping_sub(3_001)), Some(Fate::Late));
    assert_eq!(seen.spares(highest.wrapping_sub(20_000)), Some(Fate::Late));
    assert_eq!(Seen::of_repair().refuses(5), None, "nothing came yet");
}

fn ring() -> std::sync::Arc<TrackRing> {
    TrackRing::new(StreamInfo {
        id: StreamId(1),
        connection: ConnectionId(1),
        mid: Mid::new("0"),
        ssrc: 5,
        kind: MediaKind::Video,
        codec: Codec::Vp8,
        clock_rate: 90_000,
        channels: 0,
    })
}

fn packet(payload_type: u8, sequence: u64) -> RtpPacket {
    RtpPacket {
        arrival: BootTime::from_nanos(sequence),
        ingress: 0,
        skipped: Skipped::default(),
        ssrc: 5,
        payload_type,
        sequence,
        timestamp: 0,
        marker: false,
        recovered: false,
        rotation: None,
        payload: vec![1],
    }
}

fn packets(ring: &TrackRing) -> Vec<RtpPacket> {
    std::iter::from_fn(|| ring.pop())
        .filter_map(|item| match item {
            RingItem::Packet(packet) => Some(packet),
            RingItem::Report(_) => None,
        })
        .collect()
}

#[test]
fn what_entered_before_the_ring_is_told_with_its_first_packet() {
    let ring = ring();
    let skipped = Skipped { padding: 2, duplicate: 1, ..Skipped::default() };
    let mut stream = Stream::new(Mid::new("0"), ring.clone(), 96, 10, Pending { skipped, bytes: 300 });
    stream.deliver(packet(96, 10), Place::Current, 100);
    stream.skip(Fate::Undecryptable, 50, BootTime::from_nanos(11));
    stream.deliver(packet(96, 11), Place::Current, 100);
    let read = packets(&ring);
    assert_eq!((read[0].ingress, read[0].skipped), (4, skipped));
    assert_eq!((read[1].ingress, read[1].skipped.undecryptable), (6, 1));
    assert_eq!(ring.counters.received.load(Ordering::Relaxed), 6);
    assert_eq!(ring.counters.received_bytes.load(Ordering::Relaxed), 550);
}

#[test]
fn a_late_packet_of_the_old_payload_type_goes_to_the_old_ring_until_that_ends() {
    let (old, new) = (ring(), ring());
    let mut stream = Stream::new(Mid::new("0"), old.clone(), 96, 10, Pending::default());
    stream.deliver(packet(96, 10), Place::Current, 100);
    assert_eq!(stream.place(98, 12), Place::New);
    stream.replace_run(new.clone(), 98, 12, BootTime::from_nanos(0));
    stream.deliver(packet(98, 12), Place::Current, 100);
    let late = stream.place(96, 11);
    assert_eq!(late, Place::Retiring);
    stream.deliver(packet(96, 11), late, 100);
    assert_eq!(packets(&old).iter().map(|packet| packet.ingress).collect::<Vec<_>>(), [1, 2]);
    assert!(!stream.tick(BootTime::from_nanos(0) + RETIRE_AFTER) && old.has_ended() && !new.has_ended());
    let later = stream.place(96, 9);
    assert_eq!(later, Place::TooLate);
    stream.deliver(packet(96, 9), later, 100);
    assert_eq!(packets(&new).len(), 1);
    assert_eq!(new.take_tail(), Skipped { late: 1, ..Skipped::default() }, "it is booked, not lost silently");
}

#[test]
fn an_advertised_address_is_told_as_server_reflexive() {
    let wildcard = SocketAddr::from(([0, 0, 0, 0], 40_000));
    let found = local(&[wildcard], true, &[[203, 0, 113, 5].into(), [127, 0, 0, 1].into()]);
    let texts: Vec<String> = found.iter().map(str0m::Candidate::to_sdp_string).collect();
    let public: Vec<&String> = texts.iter().filter(|text| text.contains("typ srflx")).collect();
    assert_eq!(public.len(), 1, "a host's own address is not told twice");
    assert!(public[0].contains(" 203.0.113.5 40000 "));
    assert!(texts.iter().any(|text| text.contains(" 127.0.0.1 40000 typ host")));
    let specific = local(&[SocketAddr::from(([127, 0, 0, 1], 5))], false, &[]);
    assert_eq!(specific.len(), 1, "an address that was asked for by name is offered");
}
