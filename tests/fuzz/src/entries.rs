//! What a fuzz target does with its bytes. Each function returns normally for every input, or there is a defect.
//!
//! Payload targets read their input as packets: two bytes of length, big endian, before each.

use std::time::Duration;

use recorder_core::call::{CallSignal, RoomEvent, SignalBody};
use recorder_core::media::{Codec, RtpPacket, Skipped};
use recorder_core::mesh::{CALL_EVENT, MEMBER_EVENT, Roster, ToDeviceSignal, without_device};
use recorder_core::room::{self, Authority, Durable, Powers, Reaction, Room, Said};
use recorder_core::rtp::{
    ReceiverOutput, ReceiverSettings, TrackReceiver, av1, h264, h265, nal, opus as toc, vp8 as v8, vp9 as v9,
};
use recorder_core::time::BootTime;
use serde_json::Value;

/// What a target is called with.
pub type Entry = fn(&[u8]);

/// Every target: its name, which is also its folder of `corpus/`, and its function.
pub const TARGETS: &[(&str, Entry)] = &[
    ("vp8", vp8),
    ("vp9", vp9),
    ("av1", av1),
    ("h264", h264),
    ("h265", h265),
    ("opus", opus),
    ("receiver", receiver),
    ("mux_repair", recorder_core::mux::fuzz_scan),
    ("call_signal", call_signal),
    ("mesh_signal", mesh_signal),
    ("mesh_state", mesh_state),
    ("room_event", room_event),
];

/// The content of a room event as JSON, read as every kind of call event in turn. What is taken is bounded.
pub fn call_signal(data: &[u8]) {
    const KINDS: [&str; 12] = [
        "m.call.invite",
        "m.call.answer",
        "m.call.candidates",
        "m.call.select_answer",
        "m.call.negotiate",
        "m.call.sdp_stream_metadata_changed",
        "org.matrix.call.sdp_stream_metadata_changed",
        "m.call.reject",
        "m.call.hangup",
        "m.call.replaces",
        "m.call.",
        "m.room.message",
    ];
    let Ok(content) = serde_json::from_slice::<Value>(data) else { return };
    for kind in KINDS {
        let event = RoomEvent {
            room: "!room:example.org".to_owned(),
            event_id: "$event".to_owned(),
            sender: "@ada:example.org".to_owned(),
            event_type: kind.to_owned(),
            content: content.clone(),
            received: BootTime(1),
            age: Duration::ZERO,
        };
        let Ok(signal) = CallSignal::parse(&event) else { continue };
        assert!(kind != "m.room.message");
        assert!(signal.call_id.len() <= 255 && signal.party.is_none_or(|party| party.len() <= 255));
        match signal.body {
            SignalBody::Invite { lifetime, offer, .. } => {
                assert!(lifetime <= Duration::from_secs(600) && offer.len() <= 64 * 1024);
            }
            SignalBody::Negotiate { sdp, .. } => assert!(sdp.len() <= 64 * 1024),
            SignalBody::Candidates(candidates) => assert!(candidates.len() <= 100),
            SignalBody::MetadataChanged(streams) => assert!(streams.len() <= 64),
            _ => {}
        }
    }
}

/// The content of a to-device event as JSON, read as every kind of call event in turn.
pub fn mesh_signal(data: &[u8]) {
    let Ok(content) = serde_json::from_slice::<Value>(data) else { return };
    for kind in
        ["invite", "answer", "candidates", "select_answer", "negotiate", "reject", "hangup", "replaces"]
    {
        let read = ToDeviceSignal::parse("@ada:hs", &format!("m.call.{kind}"), &content, BootTime(1));
        let Ok(told) = read else { continue };
        let ids = [
            Some(&told.conf_id),
            Some(&told.device),
            told.sender_session.as_ref(),
            told.dest_session.as_ref(),
        ];
        assert!(ids.into_iter().flatten().all(|id| id.len() <= 255));
        assert_eq!(told.sender(), "@ada:hs");
    }
}

/// The content of a room's state as JSON: a call's event and its members', each of several users, read into one roster.
pub fn mesh_state(data: &[u8]) {
    let Ok(content) = serde_json::from_slice::<Value>(data) else { return };
    let mut roster = Roster::new("@bot:hs");
    for (at, user) in ["@ada:hs", "@ben:hs", "@bot:hs", "no user", ""].into_iter().enumerate() {
        for (kind, key) in [(CALL_EVENT, "conf"), (MEMBER_EVENT, user), ("m.room.member", user)] {
            roster.state_event(kind, key, user, &content, 1_000 * at as i64);
        }
    }
    for now in [0, 5_000, i64::MAX] {
        let gathering = roster.gathering(now);
        assert!(gathering.is_none_or(|gathering| gathering.members.len() <= 3 * 8));
        let _ = (roster.gathering_of("conf", now), roster.next_expiry(now));
    }
    let _ = without_device(roster.own_content(), "BOT", 1);
}

/// The content of a message or a reaction as JSON, said to a room's machine by who may command and by who may not.
pub fn room_event(data: &[u8]) {
    let Ok(content) = serde_json::from_slice::<Value>(data) else { return };
    let event = |kind: &str| RoomEvent {
        room: "!room:example.org".to_owned(),
        event_id: "$event".to_owned(),
        sender: "@ada:example.org".to_owned(),
        event_type: kind.to_owned(),
        content: content.clone(),
        received: BootTime(2_000_000_000),
        age: Duration::ZERO,
    };
    let settings = room::Settings::new("@bot:example.org", "recorder", BootTime(1_000_000_000));
    let mut machine = Room::new(settings, Durable::default());
    for allowed in [true, false] {
        let powers = Powers { own: 50, call_member: 50, message: 0 };
        let authority = Authority { allowed, level: 100, needed_start: 50, powers, joined: true };
        let mut actions = Vec::new();
        if let Some(said) = Said::read(&event("m.room.message")) {
            assert!(said.body.len() <= 4_096 && !said.body.contains('\n'));
            actions.extend(machine.command(&said, &authority, BootTime(2_000_000_000)));
        }
        if let Some(reaction) = Reaction::read(&event("m.reaction")) {
            actions.extend(machine.reaction(&reaction, &authority, BootTime(2_000_000_000)));
        }
        assert!(actions.len() < 16, "{actions:?}");
    }
}

fn packets(mut data: &[u8]) -> Vec<&[u8]> {
    let mut packets = Vec::new();
    while let Some((length, rest)) = data.split_first_chunk::<2>() {
        let length = usize::from(u16::from_be_bytes(*length)).min(rest.len());
        let (packet, rest) = rest.split_at(length);
        packets.push(packet);
        data = rest;
    }
    packets
}

pub fn vp8(data: &[u8]) {
    let packets = packets(data);
    let _ = v8::key_frame_size(data);
    if let Ok(frame) = v8::frame(packets.iter().copied()) {
        let media: usize = packets.iter().map(|packet| packet.len()).sum();
        assert!(!frame.data.is_empty() && frame.data.len() < media);
        assert_eq!(frame.key, frame.size.is_some());
    }
}

pub fn vp9(data: &[u8]) {
    let packets = packets(data);
    let _ = v9::key_frame_size(data);
    if let Ok(frame) = v9::frame(packets.iter().copied()) {
        assert!(!frame.data.is_empty());
        assert_eq!(frame.key, frame.size.is_some());
    }
}

pub fn av1(data: &[u8]) {
    let packets = packets(data);
    let _ = av1::sequence_header_size(data);
    if let Ok(frame) = av1::frame(packets.iter().copied()) {
        assert!(!frame.data.is_empty());
        assert_eq!(frame.key, frame.parameter_sets.is_some());
    }
}

pub fn h264(data: &[u8]) {
    let _ = h264::sps_size(data);
    let mut memory = h264::Memory::default();
    for _ in 0..2 {
        if let Ok(frame) = h264::frame(packets(data).into_iter(), &mut memory) {
            assert_eq!(nal::units(&frame.data).map(|unit| unit.len() + 4).sum::<usize>(), frame.data.len());
            assert_eq!(frame.key, frame.parameter_sets.is_some());
        }
    }
}

pub fn h265(data: &[u8]) {
    let _ = h265::sps_size(data);
    let mut memory = h265::Memory::default();
    for _ in 0..2 {
        if let Ok(frame) = h265::frame(packets(data).into_iter(), &mut memory) {
            assert_eq!(nal::units(&frame.data).map(|unit| unit.len() + 4).sum::<usize>(), frame.data.len());
            assert_eq!(frame.key, frame.parameter_sets.is_some());
        }
    }
}

pub fn opus(data: &[u8]) {
    let _ = toc::channels(data);
    let _ = toc::is_dtx(data);
    assert!(toc::duration(data).is_none_or(|duration| (120..=toc::MAX_DURATION).contains(&duration)));
}

/// A stream: one byte of codec, then packets of eight bytes head (sequence step, timestamp step, arrival step, flags,
/// length) and payload. The ledger has to balance and time has to go forward.
pub fn receiver(data: &[u8]) {
    const CODECS: [Codec; 6] = [Codec::Opus, Codec::Vp8, Codec::Vp9, Codec::Av1, Codec::H264, Codec::H265];
    let Some((&first, mut rest)) = data.split_first() else { return };
    let codec = CODECS[usize::from(first) % CODECS.len()];
    let settings = ReceiverSettings { max_frame_bytes: 4096, max_buffered_packets: 32, ..Default::default() };
    let mut receiver = TrackReceiver::new(codec, codec.clock_rate(), settings, 0);
    let (mut sequence, mut timestamp, mut now, mut ingress) = (1u64 << 32, 0u32, 1_000_000_000u64, 0);
    let mut last = None;
    while let Some((head, after)) = rest.split_first_chunk::<8>() {
        let step = i64::from(i16::from_be_bytes([head[0], head[1]]));
        sequence = sequence.saturating_add_signed(if head[5] & 4 == 0 { step } else { step << 16 });
        timestamp =
            timestamp.wrapping_add(u32::from(u16::from_be_bytes([head[2], head[3]])) << (head[5] >> 4));
        now += u64::from(head[4]) * 10_000_000;
        let skipped = Skipped {
            padding: u32::from(head[6] & 1),
            dropped_by_us: u32::from(head[6] >> 6),
            ..Default::default()
        };
        ingress += 1 + skipped.total();
        let (payload, after) = after.split_at(usize::from(head[7]).min(after.len()));
        rest = after;
        receiver.push(RtpPacket {
            arrival: BootTime(now),
            ingress,
            skipped,
            ssrc: 1,
            payload_type: 96,
            sequence,
            timestamp,
            marker: head[5] & 1 != 0,
            recovered: head[5] & 2 != 0,
            rotation: None,
            payload: payload.to_vec(),
        });
        sequence = sequence.saturating_add(1);
        assert!(receiver.held() <= 4 * 33 + 4);
        drain(&mut receiver, now, &mut last);
        assert_eq!(receiver.ledger().received, receiver.ledger().accounted() + receiver.in_flight());
    }
    receiver.drain();
    drain(&mut receiver, now, &mut last);
    assert!(receiver.finish(Skipped::default(), ingress).balances());
}

fn drain(receiver: &mut TrackReceiver, now: u64, last: &mut Option<i64>) {
    while let Some(output) = receiver.poll(BootTime(now)) {
        match output {
            ReceiverOutput::Frame(frame) => {
                assert!(last.is_none_or(|last| last < frame.rtp_time));
                assert!(!frame.data.is_empty() && frame.packets > 0);
                *last = Some(frame.rtp_time);
            }
            ReceiverOutput::FormatChanged(_) => {
                assert!(receiver.split().balances());
                *last = None;
            }
            ReceiverOutput::KeyFrameWanted => {}
        }
    }
}
