//! From ring to disk where nothing fails: what was sent is what is in the files, and every packet is accounted for.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use recorder_actors::ports::Clock;
use recorder_core::manifest::{GapCause, OpenedBecause, Seconds};
use recorder_core::media::{Codec, MediaKind};
use recorder_core::mux::scan;
use support::rtp_support::{PPS, SPS, h264_units, noise};
use support::{Rig, Sender, until, until_taken};

#[test]
fn what_was_sent_is_what_is_in_the_files() {
    let rig = Rig::new();
    let mut senders = Vec::new();
    for (codec, track) in
        [(Codec::Opus, "path-1-audio"), (Codec::Vp8, "path-1-video"), (Codec::H264, "path-1-h264")]
    {
        let ring = rig.ring(codec, None);
        let segment = rig.start(&ring, &rig.names(track, codec.kind()), OpenedBecause::First);
        senders.push((Sender::new(&ring, &rig.clock), segment));
    }
    for _ in 0..4 {
        for (sender, _) in &mut senders {
            sender.frames(40, 40, 3000);
        }
    }
    for (sender, segment) in &senders {
        let facts = rig.finish(segment);
        let name = facts.file.clone().unwrap();
        assert_eq!(rig.data(&name), sender.data());
        let manifest = rig.session.manifest();
        let record = manifest.segment(&name).unwrap();
        assert!(record.is_final && record.ledger.balances(), "{:?}", record.ledger);
        assert_eq!(record.ledger.received, sender.entered());
        assert_eq!(record.ledger.written, sender.entered(), "every packet was one of a frame");
        assert_eq!(record.frames, 160);
        assert_eq!((facts.frames, facts.bytes, &facts.ledger), (160, record.bytes, &record.ledger));
        assert_eq!(record.bytes, rig.disk.file(&name).len() as u64);
        assert!(rig.disk.is_synced(&name));
    }
    assert_eq!(rig.session.rejected(), 0);
}

#[test]
fn a_segments_opening_is_in_the_journal_before_its_media_is_on_the_disk() {
    let rig = Rig::new();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (journal, told) = (rig.journal.clone(), Arc::clone(&seen));
    rig.disk.on_first_write(move |path: &Path| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let line = format!("{{\"record\":\"segment_opened\",\"track\":\"path-2\",\"file\":\"{name}\"");
        told.lock().unwrap().push(journal.has(&line));
    });
    let ring = rig.ring(Codec::H264, None);
    let segment = rig.start(&ring, &rig.names("path-2", MediaKind::Video), OpenedBecause::First);
    let mut sender = Sender::new(&ring, &rig.clock);
    for level in 0..20 {
        h264_key(&mut sender, level);
    }
    rig.finish(&segment);
    assert_eq!(*seen.lock().unwrap(), [true; 20]);
}

#[test]
fn a_journal_that_refuses_holds_media_back_for_a_second_only() {
    let rig = Rig::new();
    rig.journal.refuse();
    let ring = rig.ring(Codec::Opus, None);
    let segment = rig.start(&ring, &rig.names("path-3", MediaKind::Audio), OpenedBecause::First);
    let mut sender = Sender::new(&ring, &rig.clock);
    sender.frames(20, 1, 80);
    rig.wait(&segment, |facts| facts.files == 1);
    assert!(rig.disk.names().is_empty());
    sender.frames(60, 1, 80);
    until("the file is there", || !rig.disk.names().is_empty());
    let facts = rig.finish(&segment);
    assert_eq!(rig.data(&facts.file.clone().unwrap()), sender.data());
}

/// A key frame of H.264 whose parameter sets say this level.
fn h264_key(sender: &mut Sender, level: u8) {
    let mut sps = SPS.to_vec();
    sps[3] = level;
    let mut slice = noise(level.into(), 300);
    slice[..2].copy_from_slice(&[0x65, 0x88]);
    let packets = sender.make(h264_units(vec![sps, PPS.to_vec(), slice], true, 1100));
    sender.push(packets);
    sender.tick();
}

#[test]
fn other_parameter_sets_begin_another_file_and_lose_no_frame() {
    let rig = Rig::new();
    let ring = rig.ring(Codec::H264, None);
    let segment = rig.start(&ring, &rig.names("path-4", MediaKind::Video), OpenedBecause::First);
    let mut sender = Sender::new(&ring, &rig.clock);
    h264_key(&mut sender, 30);
    sender.frames(30, 0, 2000);
    h264_key(&mut sender, 31);
    sender.frames(30, 0, 2000);
    let facts = rig.finish(&segment);
    let segments = rig.segments();
    assert_eq!((segments.len(), facts.files, facts.closed.len()), (2, 2, 2));
    assert_eq!(segments[0].opened_because, OpenedBecause::First.into());
    assert_eq!(segments[1].opened_because, OpenedBecause::ParameterSetsChanged.into());
    let (first, second) = (rig.data(&segments[0].file), rig.data(&segments[1].file));
    assert_eq!((first.len(), second.len()), (31, 31));
    assert_eq!([first, second].concat(), sender.data());
    assert!(segments.iter().all(|segment| segment.ledger.balances() && segment.is_final));
    assert_eq!(segments.iter().map(|segment| segment.ledger.received).sum::<u64>(), sender.entered());
}

#[test]
fn one_order_opens_a_thousand_files_and_no_more() {
    let rig = Rig::new();
    let ring = rig.ring(Codec::H264, None);
    let segment = rig.start(&ring, &rig.names("path-5", MediaKind::Video), OpenedBecause::First);
    let mut sender = Sender::new(&ring, &rig.clock);
    for number in 0..1010_u32 {
        h264_key(&mut sender, 30 + (number % 2) as u8);
        if number % 200 == 0 {
            until_taken(&ring);
        }
    }
    let facts = rig.finish(&segment);
    assert_eq!((facts.files, rig.segments().len(), facts.frames), (1000, 1000, 1000));
    assert!(facts.ledger.balances(), "{:?}", facts.ledger);
    assert_eq!((facts.ledger.received, facts.ledger.other_layer), (sender.entered(), 20));
}

#[test]
fn another_size_of_vp8_stays_in_the_file_and_is_listed() {
    let rig = Rig::new();
    let ring = rig.ring(Codec::Vp8, None);
    let segment = rig.start(&ring, &rig.names("path-6", MediaKind::Video), OpenedBecause::First);
    let mut sender = Sender::new(&ring, &rig.clock);
    sender.frames(30, 30, 2000);
    let mut sent = sender.next(true, 2000);
    // 320 × 240 (RFC 6386 §9.1), behind four bytes of payload descriptor.
    let size = [0x40, 0x01, 0xf0, 0x00];
    sent.frame[6..10].copy_from_slice(&size);
    sent.payloads[0][10..14].copy_from_slice(&size);
    let packets = sender.make(sent);
    sender.push(packets);
    sender.frames(29, 0, 2000);
    let facts = rig.finish(&segment);
    assert_eq!((facts.files, facts.width, facts.height), (1, Some(320), Some(240)));
    let segment = &rig.segments()[0];
    let video = segment.video.as_ref().unwrap();
    let sizes: Vec<_> = video.resolutions.iter().map(|size| (size.width, size.height)).collect();
    assert_eq!(sizes, [(640, 480), (320, 240)]);
    assert_eq!(video.resolutions[0].at_s, segment.start_s);
    let change_s = video.resolutions[1].at_s.as_f64() - segment.start_s.as_f64();
    assert!((change_s - 0.99).abs() < 0.01, "{change_s}");
    assert_eq!(rig.data(&segment.file), sender.data());
}

#[test]
fn another_microphone_of_one_channel_goes_on_in_the_file() {
    let rig = Rig::new();
    let ring = rig.ring(Codec::Opus, None);
    let segment = rig.start(&ring, &rig.names("path-15", MediaKind::Audio), OpenedBecause::First);
    let mut sender = Sender::new(&ring, &rig.clock);
    sender.frames(50, 1, 80);
    for _ in 0..50 {
        let mut sent = sender.next(true, 80);
        // The bit that tells mono from stereo (RFC 6716 §3.1).
        sent.frame[0] ^= 0x04;
        sent.payloads[0][0] ^= 0x04;
        let packets = sender.make(sent);
        sender.push(packets);
        sender.tick();
    }
    let facts = rig.finish(&segment);
    assert_eq!(facts.files, 1);
    let segment = &rig.segments()[0];
    assert!(segment.gaps.is_empty() && segment.ledger.balances());
    assert_eq!(rig.data(&segment.file), sender.data());
}

#[test]
fn a_mute_that_sends_on_is_no_gap_and_a_camera_that_is_off_is_one_in_the_same_file() {
    let rig = Rig::new();
    let (sound, picture) = (rig.ring(Codec::Opus, None), rig.ring(Codec::Vp8, None));
    let hears = rig.start(&sound, &rig.names("path-16-a", MediaKind::Audio), OpenedBecause::First);
    let sees = rig.start(&picture, &rig.names("path-16-v", MediaKind::Video), OpenedBecause::First);
    let (mut audio, mut video) = (Sender::new(&sound, &rig.clock), Sender::new(&picture, &rig.clock));
    video.frames(30, 30, 2000);
    sees.control.set_pause_cause(Some(GapCause::SourceOff));
    // Three seconds without a picture, in which the muted microphone sends silence.
    audio.frames(50, 1, 80);
    hears.control.set_pause_cause(Some(GapCause::Muted));
    audio.frames(100, 1, 3);
    video.pause_ms(3000);
    hears.control.set_pause_cause(None);
    sees.control.set_pause_cause(None);
    video.frames(30, 30, 2000);
    let (heard, seen) = (rig.finish(&hears), rig.finish(&sees));
    assert_eq!((heard.files, seen.files), (1, 1));
    let segments = rig.segments();
    let of = |sound: bool| segments.iter().find(|segment| segment.audio.is_some() == sound).unwrap();
    assert!(of(true).gaps.is_empty());
    let causes: Vec<_> = of(false).gaps.iter().map(|gap| gap.cause.clone()).collect();
    assert_eq!(causes, [GapCause::SourceOff.into()]);
    assert_eq!(rig.data(&of(true).file), audio.data());
    assert_eq!(rig.data(&of(false).file), video.data());
}

#[test]
fn pauses_of_a_second_are_gaps_and_shorter_ones_are_dtx() {
    let rig = Rig::new();
    let ring = rig.ring(Codec::Opus, None);
    let segment = rig.start(&ring, &rig.names("path-7", MediaKind::Audio), OpenedBecause::First);
    let mut sender = Sender::new(&ring, &rig.clock);
    let pause = |sender: &mut Sender, ms: u32| {
        sender.pause_ms(ms);
        rig.advance_ms(ms.into());
    };
    sender.frames(50, 1, 80);
    for _ in 0..5 {
        pause(&mut sender, 380);
        sender.frames(1, 1, 1);
    }
    pause(&mut sender, 3000);
    sender.frames(50, 1, 80);
    segment.control.set_pause_cause(Some(GapCause::Muted));
    pause(&mut sender, 2000);
    segment.control.set_pause_cause(None);
    sender.frames(50, 1, 80);
    rig.finish(&segment);
    let segment = &rig.segments()[0];
    let gaps: Vec<_> = segment
        .gaps
        .iter()
        .map(|gap| ((gap.to_s.as_f64() - gap.from_s.as_f64()).round(), gap.cause.clone()))
        .collect();
    assert_eq!(gaps, [(3.0, GapCause::Silence.into()), (2.0, GapCause::Muted.into())]);
    assert_eq!(segment.dtx_s, Seconds::new(5.0 * 0.38));
    assert_eq!(segment.media_seconds, Seconds::new(155.0 * 0.02));
    assert!((segment.end_s.as_f64() - segment.start_s.as_f64() - (155.0 * 0.02 + 1.9 + 5.0)).abs() < 0.01);
}

#[test]
fn a_pause_in_which_packets_were_lost_is_put_down_to_loss() {
    let rig = Rig::new();
    let ring = rig.ring(Codec::Opus, None);
    let segment = rig.start(&ring, &rig.names("path-8", MediaKind::Audio), OpenedBecause::First);
    let mut sender = Sender::new(&ring, &rig.clock);
    sender.frames(10, 1, 80);
    for _ in 0..100 {
        let lost = sender.next(true, 80);
        drop(sender.make(lost));
        rig.advance_ms(20);
    }
    sender.frames(100, 1, 80);
    rig.finish(&segment);
    let segment = &rig.segments()[0];
    assert_eq!(segment.gaps.len(), 1, "{:?}", segment.gaps);
    assert_eq!(segment.gaps[0].cause, GapCause::Loss.into());
    assert_eq!((segment.ledger.lost, segment.ledger.received), (100, 110));
    assert!(segment.ledger.balances());
}

#[test]
fn of_two_segments_on_one_ring_the_second_goes_on_where_the_first_ended() {
    let rig = Rig::new();
    let ring = rig.ring(Codec::Opus, None);
    let names = rig.names("path-9", MediaKind::Audio);
    let first = rig.start(&ring, &names, OpenedBecause::First);
    let mut sender = Sender::new(&ring, &rig.clock);
    sender.frames(77, 1, 80);
    // Ordered before the first has ended: it waits for it.
    let second = rig.start(&ring, &names, OpenedBecause::SourceOn);
    rig.finish(&first);
    sender.frames(33, 1, 80);
    ring.end();
    rig.wait_closed(&second);
    let segments = rig.segments();
    let received: Vec<_> = segments.iter().map(|segment| segment.ledger.received).collect();
    assert_eq!(received, [77, 33]);
    assert!(segments.iter().all(|segment| segment.ledger.balances()));
    let data = segments.iter().flat_map(|segment| rig.data(&segment.file)).collect::<Vec<_>>();
    assert_eq!(data, sender.data());
    let totals = &rig.board.totals;
    assert_eq!(totals.packets_received.load(Ordering::SeqCst), 110);
}

#[test]
fn a_segment_on_a_ring_that_was_read_to_its_end_counts_nothing_twice() {
    let rig = Rig::new();
    let ring = rig.ring(Codec::Opus, None);
    let names = rig.names("path-10", MediaKind::Audio);
    let first = rig.start(&ring, &names, OpenedBecause::First);
    let mut sender = Sender::new(&ring, &rig.clock);
    sender.frames(10, 1, 80);
    // Packets that entered after the last one delivered.
    ring.counters.received.fetch_add(3, Ordering::Relaxed);
    ring.skip(recorder_core::media::Skipped { duplicate: 3, ..Default::default() });
    ring.end();
    let facts = rig.wait_closed(&first);
    assert_eq!((facts.ledger.received, facts.ledger.duplicate), (13, 3));
    assert!(facts.ledger.balances());
    let facts = rig.wait_closed(&rig.start(&ring, &names, OpenedBecause::WriterRestarted));
    assert_eq!((facts.ledger.received, facts.files), (0, 0));
    assert!(facts.ledger.balances());
}

#[test]
fn shutting_down_returns_when_every_file_is_whole() {
    let rig = Rig::new();
    let ring = rig.ring(Codec::Vp8, None);
    let segment = rig.start(&ring, &rig.names("path-11", MediaKind::Video), OpenedBecause::First);
    let mut sender = Sender::new(&ring, &rig.clock);
    sender.frames(150, 75, 4000);
    ring.end();
    rig.pumps.shut_down();
    rig.lanes.shut_down();
    let facts = segment.now();
    assert!(facts.phase.is_over());
    let name = facts.file.clone().unwrap();
    let file = rig.disk.file(&name);
    let plan = scan(&mut file.as_slice(), file.len() as u64).unwrap();
    assert!(plan.already_final && rig.disk.is_synced(&name));
    assert!((plan.duration_s - 150.0 * 0.033).abs() < 0.002, "{}", plan.duration_s);
    let (matroska, frames) = support::mux_support::demux(&file);
    assert_eq!(frames.len(), 150);
    assert_eq!(matroska.cues.unwrap().cue_point.len(), 2, "a cue for each key frame");
}

/// Ten packets of which the sixth is missing, handed back.
fn with_a_hole(sender: &mut Sender) -> Vec<recorder_core::media::RtpPacket> {
    sender.frames(5, 1, 80);
    let sent = sender.next(true, 80);
    let missing = sender.make(sent);
    sender.frames(4, 1, 80);
    missing
}

#[test]
fn finishing_waits_for_a_retransmission_that_is_awaited() {
    let rig = Rig::new();
    let ring = rig.ring(Codec::Opus, None);
    let segment = rig.start(&ring, &rig.names("path-12", MediaKind::Audio), OpenedBecause::First);
    let mut sender = Sender::new(&ring, &rig.clock);
    let missing = with_a_hole(&mut sender);
    rig.ask_to_finish(&segment);
    rig.advance_ms(1000);
    // Each round of the pump could have ended the segment; the next figures show that there were some.
    rig.wait(&segment, |facts| facts.ledger.written == 5);
    assert!(!segment.now().phase.is_over());
    sender.push(missing);
    let facts = rig.wait_closed(&segment);
    assert_eq!(rig.data(&facts.file.clone().unwrap()), sender.data());
    assert_eq!(facts.ledger.lost, 0);
}

#[test]
fn when_the_ring_has_ended_no_retransmission_is_awaited() {
    let rig = Rig::new();
    let ring = rig.ring(Codec::Opus, None);
    let segment = rig.start(&ring, &rig.names("path-13", MediaKind::Audio), OpenedBecause::First);
    let mut sender = Sender::new(&ring, &rig.clock);
    with_a_hole(&mut sender);
    ring.end();
    let facts = rig.wait_closed(&segment);
    assert_eq!((facts.ledger.lost, facts.frames), (1, 9));
    assert!(facts.ledger.balances());
}

#[test]
fn finishing_on_a_path_that_loses_packets_all_the_time_comes_to_an_end() {
    let rig = Rig::new();
    let ring = rig.ring(Codec::Opus, None);
    let segment = rig.start(&ring, &rig.names("path-14", MediaKind::Audio), OpenedBecause::First);
    let mut sender = Sender::new(&ring, &rig.clock);
    sender.frames(10, 1, 80);
    rig.ask_to_finish(&segment);
    // Each time one packet is lost before the wait for the one before is over: at no instant nothing is awaited.
    let begun = rig.clock.now();
    while !segment.now().phase.is_over() {
        let lost = sender.next(true, 80);
        drop(sender.make(lost));
        for _ in 0..4 {
            sender.frame(true, 80);
            sender.tick();
        }
        until("the ring is read", || ring.is_empty() || segment.now().phase.is_over());
    }
    let waited_s = rig.clock.now().seconds_since(begun);
    assert!((2.0..3.0).contains(&waited_s), "{waited_s} s");
    let facts = rig.wait_closed(&segment);
    assert!(facts.ledger.balances() && facts.ledger.lost > 10, "{:?}", facts.ledger);
}
