//! Whatever the network does to a stream, what comes out is right and every packet has its place in the ledger.

mod rtp_support;

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use recorder_core::media::{Codec, RtpPacket, Skipped};
use recorder_core::rtp::{EncodedFrame, Ledger, ReceiverOutput, ReceiverSettings, TrackReceiver};
use recorder_core::time::BootTime;
use rtp_support::{MILLI, packet, send};

const WAIT: u64 = 1500 * MILLI;
const START_WINDOW: u64 = 50 * MILLI;

/// What the network does with one packet.
#[derive(Clone, Debug)]
enum Fate {
    Delivered { delay_ms: u64 },
    Twice { delay_ms: u64, again_ms: u64 },
    Recovered { delay_ms: u64 },
    Lost,
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        12 => (0..4u64).prop_map(|delay_ms| Fate::Delivered { delay_ms }),
        2 => (0..60u64).prop_map(|delay_ms| Fate::Delivered { delay_ms }),
        1 => (0..30u64, 1..4000u64).prop_map(|(delay_ms, again)| Fate::Twice { delay_ms, again_ms: delay_ms + again }),
        1 => (20..4000u64).prop_map(|delay_ms| Fate::Recovered { delay_ms }),
        1 => Just(Fate::Lost),
    ]
}

#[derive(Clone, Debug)]
struct Shape {
    key: bool,
    size: usize,
    mtu: usize,
    padding_after: bool,
}

fn shape() -> impl Strategy<Value = Shape> {
    (prop::bool::weighted(0.2), 1..400usize, 20..200usize, prop::bool::weighted(0.1))
        .prop_map(|(key, size, mtu, padding_after)| Shape { key, size, mtu, padding_after })
}

fn codec() -> impl Strategy<Value = Codec> {
    prop::sample::select(vec![Codec::Opus, Codec::Vp8, Codec::Vp9, Codec::Av1, Codec::H264, Codec::H265])
}

struct SentFrame {
    sequences: Vec<u64>,
    bytes: Vec<u8>,
    key: bool,
}

struct Scene {
    codec: Codec,
    arrivals: Vec<RtpPacket>,
    frames: Vec<SentFrame>,
    paddings: BTreeSet<u64>,
}

fn scene(codec: Codec, shapes: &[Shape], fates: &[Fate], first: u64, first_timestamp: u32) -> Scene {
    let mut scene = Scene { codec, arrivals: Vec::new(), frames: Vec::new(), paddings: BTreeSet::new() };
    let mut sequence = first;
    let mut clock_ms = 1000u64;
    let deliver = |packet: RtpPacket, clock_ms: u64, arrivals: &mut Vec<RtpPacket>| {
        let at = |delay: u64, recovered: bool| RtpPacket {
            arrival: BootTime((clock_ms + delay) * MILLI),
            recovered,
            ..packet.clone()
        };
        match fates[(packet.sequence - first) as usize % fates.len()] {
            Fate::Delivered { delay_ms } => arrivals.push(at(delay_ms, false)),
            Fate::Recovered { delay_ms } => arrivals.push(at(delay_ms, true)),
            Fate::Twice { delay_ms, again_ms } => {
                arrivals.extend([at(delay_ms, false), at(again_ms, true)]);
            }
            Fate::Lost => {}
        }
    };
    for (n, shape) in shapes.iter().enumerate() {
        let n = n as u32;
        let timestamp = first_timestamp.wrapping_add(n * 960);
        let sent = send(codec, n, shape.key || n == 0, shape.size, shape.mtu);
        let mut sequences = Vec::new();
        let last = sent.payloads.len() - 1;
        for (index, payload) in sent.payloads.into_iter().enumerate() {
            sequences.push(sequence);
            deliver(packet(sequence, timestamp, index == last, payload), clock_ms, &mut scene.arrivals);
            sequence += 1;
            clock_ms += 1;
        }
        scene.frames.push(SentFrame { sequences, bytes: sent.frame, key: sent.key });
        if shape.padding_after {
            scene.paddings.insert(sequence);
            deliver(packet(sequence, timestamp, false, Vec::new()), clock_ms, &mut scene.arrivals);
            sequence += 1;
        }
        clock_ms += 20;
    }
    scene.arrivals.sort_by_key(|packet| packet.arrival);
    for (index, packet) in scene.arrivals.iter_mut().enumerate() {
        packet.ingress = index as u64 + 1;
    }
    scene
}

/// What has to come out, found without a buffer: by looking at all arrivals at once.
struct Expected {
    frames: Vec<Vec<u8>>,
    ledger: Ledger,
    /// Packets of a frame whose first packets lie before the first that counts. Where packets do not say that they
    /// begin a frame, its rest may be taken for a frame that needs a key frame.
    beheaded: u64,
}

fn expected(scene: &Scene) -> Expected {
    let mut ledger = Ledger { received: scene.arrivals.len() as u64, ..Ledger::default() };
    let Some(first) = scene.arrivals.first() else {
        return Expected { frames: Vec::new(), ledger, beheaded: 0 };
    };
    let window_end = first.arrival.0 + START_WINDOW;
    let in_window = scene.arrivals.iter().filter(|packet| packet.arrival.0 < window_end);
    let base = in_window.map(|packet| packet.sequence).min().unwrap_or(0);
    let mut accepted: BTreeMap<u64, &RtpPacket> = BTreeMap::new();
    // When a packet beyond each sequence number first arrived.
    let mut missed_from: BTreeMap<u64, u64> = BTreeMap::new();
    let mut earliest = u64::MAX - WAIT;
    let mut by_sequence: Vec<_> = scene.arrivals.iter().collect();
    by_sequence.sort_by_key(|packet| std::cmp::Reverse(packet.sequence));
    for packets in by_sequence.chunk_by(|a, b| a.sequence == b.sequence) {
        missed_from.insert(packets[0].sequence, earliest);
        earliest = packets.iter().map(|packet| packet.arrival.0).fold(earliest, u64::min);
    }
    for packet in &scene.arrivals {
        let missed_at = missed_from[&packet.sequence];
        if accepted.contains_key(&packet.sequence) {
            ledger.duplicate += 1;
        } else if packet.sequence < base || packet.arrival.0 >= missed_at + WAIT {
            ledger.late += 1;
        } else {
            ledger.recovered += u64::from(packet.recovered);
            accepted.entry(packet.sequence).or_insert(packet);
        }
    }
    let last = accepted.keys().next_back().copied().unwrap_or(0);
    ledger.lost = (base..=last).filter(|sequence| !accepted.contains_key(sequence)).count() as u64;
    ledger.padding = scene.paddings.iter().filter(|sequence| accepted.contains_key(sequence)).count() as u64;
    let numbered = matches!(scene.codec, Codec::Vp8 | Codec::Vp9);
    let mut whole_so_far = false;
    let mut frames = Vec::new();
    let mut beheaded = 0;
    for frame in &scene.frames {
        let arrived = frame.sequences.iter().filter(|sequence| accepted.contains_key(sequence)).count();
        let packets = arrived as u64;
        if arrived < frame.sequences.len() {
            ledger.incomplete_frame += packets;
            whole_so_far = false;
            beheaded += if frame.sequences[0] < base { packets } else { 0 };
        } else if scene.codec == Codec::Opus || frame.key || whole_so_far {
            ledger.written += packets;
            whole_so_far = true;
            frames.push(frame.bytes.clone());
        } else {
            ledger.before_key_frame += packets;
        }
        // A missing packet between frames may have been a frame, unless pictures are numbered.
        let after = frame.sequences[frame.sequences.len() - 1] + 1;
        if scene.paddings.contains(&after) && !accepted.contains_key(&after) && !numbered {
            whole_so_far = false;
        }
    }
    Expected { frames, ledger, beheaded }
}

fn run(scene: &Scene, settings: ReceiverSettings) -> (Vec<EncodedFrame>, Ledger) {
    let mut receiver = TrackReceiver::new(scene.codec, scene.codec.clock_rate(), settings, 0);
    let mut frames = Vec::new();
    let mut collect = |receiver: &mut TrackReceiver, now: BootTime| {
        while let Some(output) = receiver.poll(now) {
            match output {
                ReceiverOutput::Frame(frame) => frames.push(frame),
                ReceiverOutput::KeyFrameWanted => {}
                ReceiverOutput::FormatChanged(change) => unreachable!("nothing changed, but {change:?}"),
            }
        }
    };
    for packet in &scene.arrivals {
        let now = packet.arrival;
        receiver.push(packet.clone());
        assert_eq!(receiver.ledger().received, receiver.ledger().accounted() + receiver.in_flight());
        collect(&mut receiver, now);
    }
    receiver.drain();
    collect(&mut receiver, BootTime(u64::MAX));
    let ledger = receiver.finish(Skipped::default(), scene.arrivals.len() as u64);
    (frames, ledger)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_frame_that_arrived_and_can_be_decoded_is_written_and_the_ledger_balances(
        codec in codec(),
        shapes in prop::collection::vec(shape(), 1..60),
        fates in prop::collection::vec(fate(), 1..300),
        first in prop_oneof![Just(0u64), Just(1), Just(65_500), 0..1u64 << 40],
        first_timestamp in prop_oneof![Just(u32::MAX - 5000), any::<u32>()],
    ) {
        let scene = scene(codec, &shapes, &fates, first, first_timestamp);
        let expected = expected(&scene);
        let (frames, ledger) = run(&scene, ReceiverSettings::default());
        prop_assert!(ledger.balances(), "{ledger:?}");
        let mut like_expected = ledger.clone();
        if ledger.before_key_frame == expected.ledger.before_key_frame + expected.beheaded {
            like_expected.before_key_frame -= expected.beheaded;
            like_expected.incomplete_frame += expected.beheaded;
        }
        prop_assert_eq!(&like_expected, &expected.ledger);
        prop_assert!(frames.windows(2).all(|pair| pair[0].rtp_time < pair[1].rtp_time));
        let written: Vec<_> = frames.into_iter().map(|frame| frame.data).collect();
        prop_assert_eq!(written, expected.frames);
    }

    #[test]
    fn a_stream_without_loss_comes_out_as_it_went_in(
        codec in codec(),
        shapes in prop::collection::vec(shape(), 1..40),
    ) {
        let scene = scene(codec, &shapes, &[Fate::Delivered { delay_ms: 0 }], 65_530, 7);
        let (frames, ledger) = run(&scene, ReceiverSettings::default());
        prop_assert_eq!(ledger.written + ledger.padding, ledger.received);
        prop_assert_eq!(frames.len(), scene.frames.len());
        for (n, (frame, sent)) in frames.iter().zip(&scene.frames).enumerate() {
            prop_assert_eq!(&frame.data, &sent.bytes);
            prop_assert_eq!(frame.rtp_time, 7 + n as i64 * 960);
            prop_assert!(!frame.discontinuity);
            if frame.key && codec != Codec::Opus {
                let video = frame.video.clone();
                prop_assert_eq!(video.map(|video| (video.width, video.height)), Some((640, 480)));
            }
        }
    }

    #[test]
    fn arbitrary_packets_never_break_the_balance(
        codec in codec(),
        packets in prop::collection::vec(
            (any::<u16>(), any::<u16>(), any::<bool>(), prop::collection::vec(any::<u8>(), 0..40), 0..400u64),
            0..300,
        ),
    ) {
        let settings = ReceiverSettings { max_buffered_packets: 16, max_frame_bytes: 200, ..Default::default() };
        let mut receiver = TrackReceiver::new(codec, codec.clock_rate(), settings, 10);
        let mut now = 0;
        let mut last = None;
        let count = packets.len() as u64;
        for (index, (sequence, timestamp, marker, payload, step)) in packets.into_iter().enumerate() {
            now += step * MILLI;
            let mut packet = packet(sequence.into(), u32::from(timestamp) << 8, marker, payload);
            packet.arrival = BootTime(now);
            packet.ingress = 11 + index as u64;
            receiver.push(packet);
            prop_assert!(receiver.held() <= 16 * 4 + 4);
            while let Some(output) = receiver.poll(BootTime(now)) {
                match output {
                    ReceiverOutput::Frame(frame) => {
                        prop_assert!(last.is_none_or(|last| last < frame.rtp_time));
                        last = Some(frame.rtp_time);
                    }
                    ReceiverOutput::FormatChanged(_) => {
                        last = None;
                        prop_assert!(receiver.split().balances());
                    }
                    ReceiverOutput::KeyFrameWanted => {}
                }
            }
        }
        let ledger = receiver.finish(Skipped { padding: 3, ..Skipped::default() }, 10 + count + 3);
        prop_assert!(ledger.balances(), "{ledger:?}");
    }
}
