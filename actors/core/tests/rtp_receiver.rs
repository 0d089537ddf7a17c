//! Scenes of one stream: what the receiver says, asks for and counts.

mod rtp_support;

use recorder_core::media::{Codec, RtpPacket, Skipped};
use recorder_core::rtp::{
    EncodedFrame, FormatChange, Ledger, ParameterSets, Reason, ReceiverOutput, ReceiverSettings,
    TrackReceiver,
};
use recorder_core::time::BootTime;
use rtp_support::{MILLI, h264_units, packet, send, vp8};

/// A receiver, the clock beside it, and what it said.
struct Bench {
    receiver: TrackReceiver,
    now_ms: u64,
    ingress: u64,
    frames: Vec<EncodedFrame>,
    wishes: Vec<u64>,
    changes: Vec<FormatChange>,
    closed: Vec<Ledger>,
}

impl Bench {
    fn new(codec: Codec) -> Self {
        Self::with(codec, ReceiverSettings::default())
    }

    fn with(codec: Codec, settings: ReceiverSettings) -> Self {
        Self {
            receiver: TrackReceiver::new(codec, codec.clock_rate(), settings, 0),
            now_ms: 1000,
            ingress: 0,
            frames: Vec::new(),
            wishes: Vec::new(),
            changes: Vec::new(),
            closed: Vec::new(),
        }
    }

    fn wait(&mut self, milliseconds: u64) {
        self.now_ms += milliseconds;
        while let Some(output) = self.receiver.poll(BootTime(self.now_ms * MILLI)) {
            match output {
                ReceiverOutput::Frame(frame) => self.frames.push(frame),
                ReceiverOutput::KeyFrameWanted => self.wishes.push(self.now_ms),
                ReceiverOutput::FormatChanged(change) => {
                    self.changes.push(change);
                    self.closed.push(self.receiver.split());
                }
            }
        }
    }

    fn push(&mut self, mut packet: RtpPacket) {
        self.ingress += 1 + packet.skipped.total();
        packet.ingress = self.ingress;
        packet.arrival = BootTime(self.now_ms * MILLI);
        self.receiver.push(packet);
        self.wait(0);
    }

    fn push_all(&mut self, sequence: u64, timestamp: u32, payloads: &[Vec<u8>]) -> u64 {
        for (index, payload) in payloads.iter().enumerate() {
            let marker = index + 1 == payloads.len();
            self.push(packet(sequence + index as u64, timestamp, marker, payload.clone()));
        }
        sequence + payloads.len() as u64
    }

    fn times(&self) -> Vec<i64> {
        self.frames.iter().map(|frame| frame.rtp_time).collect()
    }

    fn finish(&mut self) -> Ledger {
        self.receiver.drain();
        self.wait(0);
        let ledger = self.receiver.finish(Skipped::default(), self.ingress);
        assert!(ledger.balances(), "{ledger:?}");
        ledger
    }
}

fn opus(bench: &mut Bench, sequence: u64, timestamp: u32) {
    bench.push(packet(sequence, timestamp, false, vec![0xfc, 1, 2, 3]));
}

#[test]
fn the_very_first_packets_may_come_in_another_order() {
    let mut bench = Bench::new(Codec::Opus);
    for sequence in [12, 10, 11, 13] {
        opus(&mut bench, sequence, 960 * sequence as u32);
    }
    bench.wait(60);
    assert_eq!(bench.times(), [9600, 10_560, 11_520, 12_480]);
    let ledger = bench.finish();
    assert_eq!((ledger.written, ledger.lost, ledger.late), (4, 0, 0));
}

#[test]
fn what_precedes_the_first_packet_is_not_lost() {
    let mut bench = Bench::new(Codec::Opus);
    opus(&mut bench, 40_000, 0);
    assert_eq!(bench.finish().lost, 0);
}

#[test]
fn a_retransmission_within_the_wait_fills_its_hole_and_after_it_is_late() {
    let mut bench = Bench::new(Codec::Opus);
    opus(&mut bench, 1, 960);
    bench.wait(100);
    opus(&mut bench, 3, 2880);
    bench.wait(1400);
    assert_eq!(bench.frames.len(), 1);
    bench.push(RtpPacket { recovered: true, ..packet(2, 1920, false, vec![0xfc, 9]) });
    assert_eq!(bench.times(), [960, 1920, 2880]);
    opus(&mut bench, 5, 4800);
    bench.wait(1499);
    assert_eq!(bench.frames.len(), 3);
    bench.wait(1);
    assert_eq!(bench.times(), [960, 1920, 2880, 4800]);
    assert!(bench.frames[3].discontinuity && !bench.frames[2].discontinuity);
    opus(&mut bench, 4, 3840);
    let ledger = bench.finish();
    assert_eq!((ledger.recovered, ledger.lost, ledger.late, ledger.written), (1, 1, 1, 4));
}

#[test]
fn two_holes_expire_each_at_its_own_time() {
    let mut bench = Bench::new(Codec::Opus);
    opus(&mut bench, 1, 960);
    bench.wait(100);
    opus(&mut bench, 3, 2880);
    bench.wait(500);
    opus(&mut bench, 5, 4800);
    bench.wait(1000);
    assert_eq!(bench.times(), [960, 2880]);
    assert_eq!(bench.receiver.deadline(), Some(BootTime((bench.now_ms + 500) * MILLI)));
    bench.wait(500);
    assert_eq!(bench.times(), [960, 2880, 4800]);
}

#[test]
fn padding_is_neither_media_nor_a_gap() {
    let mut bench = Bench::new(Codec::Opus);
    opus(&mut bench, 1, 960);
    for sequence in 2..50 {
        bench.push(packet(sequence, 960, false, Vec::new()));
    }
    opus(&mut bench, 50, 1920);
    let ledger = bench.finish();
    assert_eq!((ledger.padding, ledger.lost, ledger.written), (48, 0, 2));
    assert!(!bench.frames[1].discontinuity);
}

#[test]
fn a_pause_of_the_sender_is_told_as_silence_and_a_loss_is_not() {
    let mut bench = Bench::new(Codec::Opus);
    opus(&mut bench, 1, 0);
    bench.wait(400);
    opus(&mut bench, 2, 19_200);
    bench.wait(400);
    opus(&mut bench, 4, 38_400);
    bench.wait(1500);
    let silence: Vec<_> =
        bench.frames.iter().filter_map(|frame| frame.audio).map(|audio| audio.silence_samples).collect();
    assert_eq!(silence, [0, 19_200 - 960, 0]);
}

#[test]
fn a_sender_that_restarts_at_another_sequence_number_loses_nothing() {
    for jump in [5_000u64, 60_000, 1 << 33] {
        let mut bench = Bench::new(Codec::Opus);
        for n in 0..10 {
            opus(&mut bench, 70_000 + n, 960 * n as u32);
            bench.wait(20);
        }
        for n in 10..20 {
            opus(&mut bench, 70_000 + jump + n, 48_000 * 100 + 960 * n as u32);
            bench.wait(20);
        }
        for n in 20..30 {
            opus(&mut bench, 100 + n, 48_000 * 100 + 960 * n as u32);
            bench.wait(20);
        }
        bench.wait(100);
        let ledger = bench.finish();
        assert_eq!((ledger.written, ledger.lost), (20, 0), "those after the new clock");
        assert_eq!((bench.closed[0].written, bench.closed[0].lost), (10, 0));
        assert_eq!(bench.frames.len(), 30, "jump of {jump}");
    }
}

#[test]
fn one_stray_sequence_number_changes_nothing() {
    let mut bench = Bench::new(Codec::Opus);
    for n in 0..10 {
        opus(&mut bench, 100 + n, 960 * n as u32);
        bench.wait(20);
    }
    opus(&mut bench, 50_000, 3_000_000_000);
    for n in 10..20 {
        opus(&mut bench, 100 + n, 960 * n as u32);
        bench.wait(20);
    }
    bench.wait(60);
    let ledger = bench.finish();
    assert_eq!((ledger.written, ledger.late, ledger.lost), (20, 1, 0));
}

#[test]
fn an_outage_of_20_s_is_counted_as_lost_however_many_packets_it_took() {
    let mut bench = Bench::new(Codec::Opus);
    opus(&mut bench, 1, 0);
    bench.wait(20_000);
    opus(&mut bench, 8001, 48_000 * 20);
    bench.wait(1500);
    let ledger = bench.finish();
    assert_eq!((ledger.written, ledger.lost), (2, 7999));
}

#[test]
fn another_rtp_clock_opens_another_segment_and_both_ledgers_balance() {
    let mut bench = Bench::new(Codec::Vp8);
    let next = bench.push_all(1, 1000, &send(Codec::Vp8, 1, true, 500, 100).payloads);
    bench.wait(60);
    let next = bench.push_all(next, 2_000_000_000, &send(Codec::Vp8, 2, false, 500, 100).payloads);
    assert_eq!((bench.frames.len(), bench.wishes.len()), (1, 1));
    bench.push_all(next, 2_000_003_000, &send(Codec::Vp8, 3, true, 500, 100).payloads);
    assert_eq!(bench.changes, [FormatChange::RtpClock]);
    assert_eq!((bench.closed[0].written, bench.closed[0].before_key_frame), (5, 5));
    assert!(bench.closed[0].balances());
    let ledger = bench.finish();
    assert_eq!((ledger.received, ledger.written), (5, 5));
}

#[test]
fn a_stream_that_begins_without_a_key_frame_asks_for_one_each_second_until_it_comes() {
    let mut bench = Bench::new(Codec::Vp8);
    let mut sequence = 1;
    for n in 0..60 {
        sequence = bench.push_all(sequence, 3000 * n, &send(Codec::Vp8, n, n == 50, 300, 100).payloads);
        bench.wait(50);
    }
    assert_eq!(bench.wishes.len(), 3);
    assert!(bench.wishes.windows(2).all(|pair| pair[1] - pair[0] >= 1000));
    assert_eq!(bench.frames.len(), 10);
    let ledger = bench.finish();
    assert_eq!((ledger.written, ledger.before_key_frame), (30, 150));
}

#[test]
fn a_silent_camera_is_not_asked_for_key_frames() {
    let mut bench = Bench::new(Codec::Vp8);
    bench.push_all(1, 3000, &send(Codec::Vp8, 1, false, 300, 100).payloads);
    for _ in 0..100 {
        bench.wait(100);
    }
    assert_eq!(bench.wishes.len(), 1);
}

#[test]
fn a_lost_packet_asks_for_a_key_frame() {
    let mut bench = Bench::new(Codec::Vp8);
    let mut sequence = bench.push_all(1, 3000, &send(Codec::Vp8, 1, true, 300, 100).payloads);
    bench.wait(60);
    let damaged = send(Codec::Vp8, 2, false, 300, 100).payloads;
    bench.push(packet(sequence, 6000, false, damaged[0].clone()));
    bench.push(packet(sequence + 2, 6000, true, damaged[2].clone()));
    sequence = bench.push_all(sequence + 3, 9000, &send(Codec::Vp8, 3, false, 300, 100).payloads);
    assert_eq!((bench.frames.len(), bench.wishes.len()), (1, 0));
    bench.wait(1500);
    assert_eq!(bench.wishes.len(), 1);
    bench.push_all(sequence, 12_000, &send(Codec::Vp8, 4, true, 300, 100).payloads);
    assert_eq!(bench.times(), [3000, 12_000]);
    let ledger = bench.finish();
    assert_eq!((ledger.incomplete_frame, ledger.before_key_frame, ledger.lost), (2, 3, 1));
}

#[test]
fn a_picture_that_comes_back_from_an_outage_asks_for_its_key_frame_at_once() {
    let mut bench = Bench::new(Codec::Vp8);
    let sequence = bench.push_all(1, 3000, &send(Codec::Vp8, 1, true, 300, 100).payloads) + 40;
    bench.wait(4000);
    let sequence = bench.push_all(sequence, 363_000, &send(Codec::Vp8, 40, false, 300, 100).payloads);
    assert_eq!(bench.wishes.len(), 1, "the hole is still waited for");
    bench.wait(100);
    bench.push_all(sequence, 372_000, &send(Codec::Vp8, 41, true, 300, 100).payloads);
    bench.wait(1500);
    assert_eq!(bench.times(), [3000, 372_000]);
    assert_eq!(bench.wishes.len(), 1);
    assert_eq!(bench.finish().lost, 40);
}

#[test]
fn a_lost_upper_layer_costs_only_that_layer_until_it_is_in_step_again() {
    let mut bench = Bench::new(Codec::Vp8);
    // (layer, TL0PICIDX, Y, delivered, written): the lost one is of layer 1.
    let plan = [
        (0, 0, false, true, true),
        (1, 0, true, true, true),
        (0, 1, false, true, true),
        (1, 1, false, false, false),
        (0, 2, false, true, true),
        (1, 2, false, true, false),
        (0, 3, false, true, true),
        (1, 3, true, true, true),
        (0, 4, false, true, true),
        (1, 4, false, true, true),
    ];
    for (n, (layer, base, sync, delivered, _)) in plan.into_iter().enumerate() {
        let sent = vp8(n as u32, n == 0, 100, 100, Some((layer, base, sync)));
        if delivered {
            bench.push_all(1 + n as u64, 3000 * n as u32, &sent.payloads);
        }
        bench.wait(2000);
    }
    let written: Vec<i64> =
        plan.iter().zip(0..).filter(|(frame, _)| frame.4).map(|(_, n)| 3000 * n).collect();
    assert_eq!(bench.times(), written);
    assert!(bench.wishes.is_empty());
    let ledger = bench.finish();
    assert_eq!((ledger.lost, ledger.before_key_frame), (1, 1));
}

#[test]
fn a_lost_base_layer_frame_stops_everything_until_a_key_frame() {
    let mut bench = Bench::new(Codec::Vp8);
    for (n, (layer, base, sync)) in
        [(0, 0, false), (1, 0, true), (0, 1, false), (1, 1, true), (0, 2, false)].into_iter().enumerate()
    {
        if n != 2 {
            let sent = vp8(n as u32, n == 0, 100, 100, Some((layer, base, sync)));
            bench.push_all(1 + n as u64, 3000 * n as u32, &sent.payloads);
        }
        bench.wait(2000);
    }
    assert_eq!(bench.times(), [0, 3000]);
    assert!(!bench.wishes.is_empty());
}

#[test]
fn a_frame_that_no_other_needs_may_be_lost_in_part() {
    let mut bench = Bench::new(Codec::H264);
    let mut sequence = bench.push_all(1, 0, &send(Codec::H264, 0, true, 300, 100).payloads);
    let mut slice = rtp_support::noise(7, 400);
    slice[..2].copy_from_slice(&[0x01, 0x88]);
    let sent = h264_units(vec![slice], false, 100);
    for (index, payload) in sent.payloads.iter().enumerate() {
        if index != 2 {
            let marker = index + 1 == sent.payloads.len();
            bench.push(packet(sequence + index as u64, 3000, marker, payload.clone()));
        }
    }
    sequence += sent.payloads.len() as u64;
    bench.push_all(sequence, 6000, &send(Codec::H264, 2, false, 300, 100).payloads);
    bench.wait(1500);
    assert_eq!(bench.times(), [0, 6000]);
    assert!(bench.wishes.is_empty());
}

#[test]
fn other_parameter_sets_open_another_segment_and_equal_ones_do_not() {
    let mut bench = Bench::new(Codec::H264);
    let mut other_pps = rtp_support::PPS.to_vec();
    other_pps[3] = 0xc0;
    let mut sequence = 1;
    for (n, pps) in
        [rtp_support::PPS.to_vec(), rtp_support::PPS.to_vec(), other_pps.clone()].into_iter().enumerate()
    {
        let slice = [&[0x65, 0x88][..], &rtp_support::noise(n as u32, 300)].concat();
        let sent = h264_units(vec![rtp_support::SPS.to_vec(), pps, slice], true, 100);
        sequence = bench.push_all(sequence, 3000 * n as u32, &sent.payloads);
        bench.wait(60);
    }
    assert_eq!(bench.changes, [FormatChange::ParameterSets]);
    assert!(bench.closed[0].balances());
    assert_eq!(bench.closed[0].written, 10);
    let sets = bench.frames[2].video.as_ref().and_then(|video| video.parameter_sets.clone());
    let Some(ParameterSets::H264 { sps, pps }) = sets.as_deref() else { unreachable!("{sets:?}") };
    assert_eq!((sps.as_slice(), pps.as_slice()), (&[rtp_support::SPS.to_vec()][..], &[other_pps][..]));
}

#[test]
fn a_second_frame_of_the_same_time_and_one_that_goes_back_are_late() {
    let mut bench = Bench::new(Codec::Vp8);
    let mut sequence = 1;
    for (n, timestamp) in [3000, 6000, 6000, 3000, 9000].into_iter().enumerate() {
        let sent = send(Codec::Vp8, n as u32, n == 0 || n == 4, 200, 100);
        sequence = bench.push_all(sequence, timestamp, &sent.payloads);
        bench.wait(60);
    }
    assert_eq!(bench.times(), [3000, 6000, 9000]);
    assert_eq!(bench.finish().late, 4);
}

#[test]
fn a_frame_without_marker_ends_where_the_next_one_begins() {
    let mut bench = Bench::new(Codec::Vp8);
    let first = send(Codec::Vp8, 1, true, 200, 100);
    for (index, payload) in first.payloads.iter().enumerate() {
        bench.push(packet(1 + index as u64, 3000, false, payload.clone()));
    }
    bench.push_all(3, 6000, &send(Codec::Vp8, 2, false, 200, 100).payloads);
    bench.wait(60);
    assert_eq!(bench.times(), [3000, 6000]);
    assert_eq!(bench.frames[0].data, first.frame);
}

#[test]
fn ten_thousand_packets_of_one_timestamp_stay_bounded_and_end_as_an_incomplete_frame() {
    let settings = ReceiverSettings { max_frame_bytes: 1 << 20, ..ReceiverSettings::default() };
    let mut bench = Bench::with(Codec::Vp8, settings);
    bench.push(packet(1, 3000, false, vec![0x10; 1200]));
    for sequence in 2..10_001 {
        bench.push(packet(sequence, 3000, false, vec![0; 1200]));
    }
    bench.wait(60);
    assert_eq!((bench.receiver.in_flight(), bench.receiver.held()), (10_000, 1));
    bench.push_all(10_001, 6000, &send(Codec::Vp8, 2, true, 200, 100).payloads);
    assert_eq!(bench.times(), [6000]);
    assert_eq!(bench.finish().incomplete_frame, 10_000);
}

#[test]
fn a_hole_is_given_up_when_too_much_waits_behind_it() {
    let settings = ReceiverSettings { max_buffered_packets: 50, ..ReceiverSettings::default() };
    let mut bench = Bench::with(Codec::Opus, settings);
    opus(&mut bench, 1, 960);
    bench.wait(60);
    for n in 3..60 {
        opus(&mut bench, n, 960 * n as u32);
    }
    assert_eq!(bench.frames.len(), 58);
    assert_eq!(bench.finish().lost, 1);
}

#[test]
fn frames_that_nobody_fetches_are_dropped_by_us() {
    let settings = ReceiverSettings { max_buffered_packets: 10, ..ReceiverSettings::default() };
    let mut receiver = TrackReceiver::new(Codec::Opus, 48_000, settings, 0);
    for n in 1..=100u64 {
        let mut packet = packet(n, 960 * n as u32, false, vec![0xfc, 1, 2]);
        packet.arrival = BootTime(n * 20 * MILLI);
        packet.ingress = n;
        receiver.push(packet);
    }
    assert_eq!(receiver.ledger().dropped_by_us, 78);
    let ledger = receiver.finish(Skipped::default(), 100);
    assert_eq!((ledger.dropped_by_us, ledger.written), (100, 0));
    assert!(ledger.balances());
}

#[test]
fn what_our_ring_dropped_is_not_counted_as_lost_by_the_network() {
    let mut bench = Bench::new(Codec::Opus);
    opus(&mut bench, 1, 960);
    bench.wait(60);
    let skipped = Skipped { dropped_by_us: 30, ..Skipped::default() };
    bench.push(RtpPacket { skipped, ..packet(33, 960 * 33, false, vec![0xfc, 1]) });
    bench.wait(1500);
    let ledger = bench.finish();
    assert_eq!((ledger.received, ledger.dropped_by_us, ledger.lost), (32, 30, 1));
}

#[test]
fn a_segment_that_begins_later_counts_from_its_own_first_packet() {
    let mut receiver = TrackReceiver::new(Codec::Opus, 48_000, ReceiverSettings::default(), 500);
    let mut first = packet(900, 0, false, vec![0xfc, 1]);
    first.ingress = 503;
    first.skipped = Skipped { padding: 2, ..Skipped::default() };
    receiver.push(first);
    receiver.drain();
    while receiver.poll(BootTime(0)).is_some() {}
    receiver.reject(1, Reason::DroppedByUs);
    let ledger = receiver.finish(Skipped { undecryptable: 1, ..Skipped::default() }, 504);
    assert_eq!((ledger.received, ledger.padding, ledger.dropped_by_us, ledger.undecryptable), (4, 2, 1, 1));
    assert!(ledger.balances());
    assert!(!Ledger { received: 5, ..ledger }.balances());
}

#[test]
fn rotation_comes_with_the_frame_whose_packet_told_it() {
    let mut bench = Bench::new(Codec::Vp8);
    let sent = send(Codec::Vp8, 1, true, 200, 100);
    bench.push(packet(1, 3000, false, sent.payloads[0].clone()));
    bench.push(RtpPacket { rotation: Some(90), ..packet(2, 3000, true, sent.payloads[1].clone()) });
    bench.wait(60);
    assert_eq!(bench.frames[0].rotation, Some(90));
}
