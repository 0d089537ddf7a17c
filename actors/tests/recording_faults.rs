//! From ring to disk where the disk stalls, fails or is too slow, and where a pump panics.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::io::ErrorKind;
use std::sync::atomic::Ordering;

use recorder_actors::lane::LaneSettings;
use recorder_actors::segment::{Failure, SegmentFacts, SegmentPhase};
use recorder_core::manifest::{GapCause, OpenedBecause, Segment};
use recorder_core::media::{Codec, MediaKind};
use support::{Fault, Folder, Rig, Sender, settings, until};

fn failure(facts: &SegmentFacts) -> &Failure {
    match &facts.phase {
        SegmentPhase::Failed(failure) => failure,
        phase => panic!("not failed but {phase:?}"),
    }
}

fn why_failed(facts: &SegmentFacts) -> &str {
    failure(facts).why()
}

/// It is a defect of ours, that spends a budget, and not a disk that refuses.
fn is_panic(facts: &SegmentFacts) -> bool {
    matches!(failure(facts), Failure::Panic(_))
}

fn received(segments: &[Segment]) -> u64 {
    segments.iter().map(|segment| segment.ledger.received).sum()
}

/// Packets of these frames.
fn packets(frames: &[(Vec<u8>, u64)]) -> u64 {
    frames.iter().map(|frame| frame.1).sum()
}

#[test]
fn a_disk_that_stalls_for_half_a_minute_loses_neither_sound_nor_picture() {
    let rig = Rig::new();
    let (sound, picture) = (rig.ring(Codec::Opus, None), rig.ring(Codec::Vp8, None));
    let hears = rig.start(&sound, &rig.names("fault-1-a", MediaKind::Audio), OpenedBecause::First);
    let sees = rig.start(&picture, &rig.names("fault-1-v", MediaKind::Video), OpenedBecause::First);
    let (mut audio, mut video) = (Sender::new(&sound, &rig.clock), Sender::new(&picture, &rig.clock));
    audio.frames(50, 1, 80);
    video.frames(30, 30, 10_000);
    rig.disk.fault("", Fault::Stall);
    let begun = rig.lanes.queued_bytes();
    for _ in 0..20 {
        // 2.65 s of the clock each.
        audio.frames(50, 1, 80);
        video.frames(50, 50, 10_000);
    }
    assert!(rig.lanes.queued_bytes() > begun + 9_000_000, "the disk took {}", rig.lanes.queued_bytes());
    rig.disk.mend();
    for (sender, segment) in [(&audio, &hears), (&video, &sees)] {
        let facts = rig.finish(segment);
        assert_eq!(facts.ledger.dropped_by_us, 0);
        assert!(facts.ledger.balances());
        assert!(rig.data(&facts.file.clone().unwrap()) == sender.data(), "another order or content");
    }
    assert_eq!(rig.lanes.queued_bytes(), 0);
}

#[test]
fn a_disk_that_stalls_for_half_a_minute_while_a_session_begins_loses_nothing() {
    let rig = Rig::in_folder(settings(), Folder::Waits);
    let ring = rig.ring(Codec::Opus, None);
    let hears = rig.start(&ring, &rig.names("fault-13", MediaKind::Audio), OpenedBecause::First);
    let mut sender = Sender::new(&ring, &rig.clock);
    for _ in 0..30 {
        // A second of the clock each.
        sender.frames(50, 1, 80);
    }
    let name = rig.wait(&hears, |facts| facts.file.is_some()).file.clone().unwrap();
    assert_eq!(rig.disk.length(&name), 0, "there is nowhere to write to");
    assert!(rig.lanes.queued_bytes() > 100_000, "it waits in memory: {}", rig.lanes.queued_bytes());
    rig.journal.folder(Folder::Made);
    let facts = rig.finish(&hears);
    assert_eq!((facts.ledger.written, facts.ledger.dropped_by_us), (1_500, 0));
    assert!(rig.data(&name) == sender.data(), "another order or content");
    assert_eq!(rig.lanes.queued_bytes(), 0);
    assert!(rig.journal.has(&name), "the journal knows the file");
}

#[test]
fn a_session_whose_folder_cannot_be_made_keeps_nothing_in_memory() {
    let rig = Rig::in_folder(settings(), Folder::Waits);
    let ring = rig.ring(Codec::Opus, None);
    let hears = rig.start(&ring, &rig.names("fault-14", MediaKind::Audio), OpenedBecause::First);
    Sender::new(&ring, &rig.clock).frames(50, 1, 80);
    rig.wait(&hears, |facts| facts.file.is_some());
    rig.journal.folder(Folder::Refused);
    let facts = rig.wait_over(&hears);
    assert!(why_failed(&facts).contains("read-only"), "{:?}", facts.phase);
    assert!(facts.ledger.balances() && facts.ledger.dropped_by_us == 50, "{:?}", facts.ledger);
    assert_eq!(rig.lanes.queued_bytes(), 0);
}

#[test]
fn beyond_the_budget_pictures_go_first_and_sound_last() {
    let small = LaneSettings { budget: 200_000, audio_reserve: 100_000, ..settings() };
    let rig = Rig::with(small);
    let (sound, picture) = (rig.ring(Codec::Opus, None), rig.ring(Codec::Vp8, None));
    let hears = rig.start(&sound, &rig.names("fault-2-a", MediaKind::Audio), OpenedBecause::First);
    let sees = rig.start(&picture, &rig.names("fault-2-v", MediaKind::Video), OpenedBecause::First);
    let (mut audio, mut video) = (Sender::new(&sound, &rig.clock), Sender::new(&picture, &rig.clock));
    let whole = |audio: &mut Sender, video: &mut Sender, times: usize| {
        for _ in 0..times {
            audio.frames(10, 1, 200);
            video.frames(10, 0, 8000);
        }
    };
    video.frames(1, 1, 8000);
    whole(&mut audio, &mut video, 1);
    rig.disk.fault("", Fault::Stall);
    whole(&mut audio, &mut video, 10);
    let facts = rig.wait(&sees, |facts| facts.ledger.dropped_by_us > 0);
    assert!(facts.ledger.balances(), "{:?}", facts.ledger);
    assert_eq!(hears.now().ledger.dropped_by_us, 0, "sound has room of its own");
    until("a key frame is asked for", || rig.keys_asked() > 1);
    // Sound until its reserve is used up as well.
    audio.frames(1000, 1, 200);
    rig.wait(&hears, |facts| facts.ledger.dropped_by_us > 0);
    assert!(rig.lanes.queued_bytes() < 400_000, "{} bytes wait", rig.lanes.queued_bytes());
    rig.disk.mend();
    until("the disk has it all", || rig.lanes.queued_bytes() == 0);
    let (asked, before) = (rig.keys_asked(), video.sent.len());
    video.frames(60, 0, 8000);
    until("the key frame is asked for again", || rig.keys_asked() > asked);
    video.frames(20, 20, 8000);
    let (heard, seen) = (rig.finish(&hears), rig.finish(&sees));
    for facts in [&heard, &seen] {
        assert!(facts.ledger.balances() && facts.ledger.dropped_by_us > 0, "{:?}", facts.ledger);
        assert_eq!(facts.ledger.lost, 0);
        assert_eq!(facts.files, 1);
    }
    let frames = rig.data(&seen.file.clone().unwrap());
    let stopped = frames.len() - 20;
    assert!((11..=before).contains(&stopped), "{stopped} frames before the disk was full");
    assert!(frames[..stopped] == video.data()[..stopped], "no picture without the one before");
    assert!(frames[stopped..] == video.data()[before + 60..], "from the key frame on");
    assert_eq!(seen.ledger.written, packets(&video.sent[..stopped]) + packets(&video.sent[before + 60..]));
    let segments = rig.segments();
    let gaps: Vec<_> = segments.iter().flat_map(|segment| &segment.gaps).map(|gap| &gap.cause).collect();
    assert!(!gaps.is_empty() && gaps.iter().all(|cause| **cause == GapCause::Disk.into()), "{gaps:?}");
}

#[test]
fn when_the_disk_is_full_what_it_has_is_kept_and_the_next_segment_goes_on_with_what_waits() {
    let rig = Rig::new();
    let ring = rig.ring(Codec::Vp8, None);
    let names = rig.names("fault-4", MediaKind::Video);
    let first = rig.start(&ring, &names, OpenedBecause::First);
    let mut sender = Sender::new(&ring, &rig.clock);
    sender.frames(60, 60, 3000);
    let name = rig.name_on_disk(&first);
    until("the disk has it", || rig.lanes.queued_bytes() == 0);
    rig.disk.fault("", Fault::Stall);
    sender.frames(20, 0, 3000);
    // A packet of the next key frame is missing, and what comes after it waits.
    let sent = sender.next(true, 3000);
    let mut key = sender.make(sent);
    let missing = key.split_off(1);
    sender.push(key);
    sender.frames(10, 0, 3000);
    let asked = rig.keys_asked();
    let before = rig.disk.length(&name);
    rig.disk.instead("", Fault::FullAt(before + 5000, ErrorKind::StorageFull));
    let facts = rig.wait_over(&first);
    assert!(why_failed(&facts).contains("write failed"), "{:?}", facts.phase);
    assert!(facts.ledger.balances() && facts.ledger.dropped_by_us > 0, "{:?}", facts.ledger);
    assert_eq!(rig.disk.was_repaired(&name), 1);

    rig.disk.mend();
    let second = rig.start(&ring, &names, OpenedBecause::WriterRestarted);
    until("a key frame is asked for", || rig.keys_asked() > asked);
    sender.push(missing);
    sender.frames(30, 0, 3000);
    rig.finish(&second);
    let segments = rig.segments();
    assert_eq!(segments.len(), 2);
    assert_eq!(segments[1].opened_because, OpenedBecause::WriterRestarted.into());
    let (kept, after) = (rig.data(&segments[0].file), rig.data(&segments[1].file));
    let sent = sender.data();
    assert!((1..80).contains(&kept.len()) && kept == sent[..kept.len()], "{} frames kept", kept.len());
    assert!(after == sent[80..], "the second begins with the key frame that waited");
    let (ledger, next) = (&segments[0].ledger, &segments[1].ledger);
    assert_eq!(segments[0].frames, kept.len() as u64);
    assert_eq!(ledger.written, packets(&sender.sent[..kept.len()]));
    assert_eq!(ledger.dropped_by_us, packets(&sender.sent[kept.len()..80]));
    assert_eq!((next.written, next.dropped_by_us), (packets(&sender.sent[80..]), 0));
    assert!(ledger.balances() && next.balances() && segments.iter().all(|segment| segment.is_final));
    assert_eq!(received(&segments), sender.entered());
    let totals = &rig.board.totals;
    assert_eq!(totals.packets_received.load(Ordering::SeqCst), sender.entered(), "nothing is counted twice");
    assert_eq!(totals.packets_dropped_by_us.load(Ordering::SeqCst), ledger.dropped_by_us);
}

#[test]
fn a_disk_that_fails_when_the_file_is_already_closed_by_its_writer_is_told_as_it_is() {
    let rig = Rig::new();
    let ring = rig.ring(Codec::Opus, None);
    let segment = rig.start(&ring, &rig.names("fault-5", MediaKind::Audio), OpenedBecause::First);
    let mut sender = Sender::new(&ring, &rig.clock);
    sender.frames(100, 1, 80);
    let name = rig.name_on_disk(&segment);
    rig.disk.fault("", Fault::Stall);
    sender.frames(100, 1, 80);
    rig.ask_to_finish(&segment);
    rig.wait(&segment, |facts| facts.phase == SegmentPhase::Finishing);
    let length = rig.disk.length(&name);
    rig.disk.instead("", Fault::FullAt(length, ErrorKind::Other));
    let facts = rig.wait_over(&segment);
    assert!(why_failed(&facts).contains("write failed"));
    let record = &rig.segments()[0];
    let kept = rig.data(&name);
    assert!(!kept.is_empty() && kept == sender.data()[..kept.len()]);
    assert_eq!((record.ledger.written, record.frames), (kept.len() as u64, kept.len() as u64));
    assert_eq!(record.ledger.dropped_by_us, 200 - kept.len() as u64);
    assert!(record.ledger.balances() && record.is_final);
    assert_eq!((facts.frames, facts.bytes, &facts.ledger), (record.frames, record.bytes, &record.ledger));
    assert_eq!(record.media_seconds.as_f64(), kept.len() as f64 * 0.02);
}

#[test]
fn a_file_that_cannot_be_created_costs_what_was_for_it_and_nothing_else() {
    let rig = Rig::new();
    let ring = rig.ring(Codec::Opus, None);
    let names = rig.names("fault-6", MediaKind::Audio);
    rig.disk.fault("microphone", Fault::CreateFails);
    let first = rig.start(&ring, &names, OpenedBecause::First);
    let mut sender = Sender::new(&ring, &rig.clock);
    sender.frames(10, 1, 80);
    let facts = rig.wait_over(&first);
    assert!(why_failed(&facts).contains("cannot create"), "{:?}", facts.phase);
    assert_eq!((facts.frames, facts.bytes, facts.ledger.written), (0, 0, 0));
    assert!(facts.ledger.balances());
    rig.disk.mend();
    let second = rig.start(&ring, &names, OpenedBecause::WriterRestarted);
    sender.frames(10, 1, 80);
    rig.finish(&second);
    let segments = rig.segments();
    assert!(
        segments.len() == 2 && segments.iter().all(|segment| segment.is_final && segment.ledger.balances())
    );
    assert_eq!(received(&segments), 20);
    let dropped = segments[0].ledger.dropped_by_us as usize;
    assert_eq!(rig.data(&segments[1].file), sender.data()[dropped..]);
}

#[test]
fn a_sync_that_fails_or_panics_costs_its_file_and_not_the_syncing() {
    for (fault, panics) in [(Fault::SyncFails, false), (Fault::SyncPanics, true)] {
        let rig = Rig::new();
        let (bad, good) = (rig.ring(Codec::Opus, None), rig.ring(Codec::Vp8, None));
        let fails = rig.start(&bad, &rig.names("fault-7-a", MediaKind::Audio), OpenedBecause::First);
        let lasts = rig.start(&good, &rig.names("fault-7-v", MediaKind::Video), OpenedBecause::First);
        let (mut audio, mut video) = (Sender::new(&bad, &rig.clock), Sender::new(&good, &rig.clock));
        rig.disk.fault("microphone", fault);
        audio.frames(50, 1, 80);
        video.frames(50, 50, 3000);
        let facts = rig.wait_over(&fails);
        let name = facts.file.clone().unwrap();
        assert!(!why_failed(&facts).is_empty() && facts.ledger.balances());
        assert_eq!(is_panic(&facts), panics, "{:?}", facts.phase);
        assert_eq!(facts.ledger.written as usize, rig.data(&name).len());
        assert_eq!(rig.disk.was_repaired(&name), 1);
        let facts = rig.finish(&lasts);
        assert_eq!(rig.data(&facts.file.clone().unwrap()), video.data());
        assert!(rig.disk.is_synced(facts.file.as_ref().unwrap()));
    }
}

#[test]
fn a_panic_in_the_storage_costs_its_file_and_not_the_lane() {
    let rig = Rig::new();
    let (bad, good) = (rig.ring(Codec::Opus, None), rig.ring(Codec::Vp8, None));
    let fails = rig.start(&bad, &rig.names("fault-8-a", MediaKind::Audio), OpenedBecause::First);
    let lasts = rig.start(&good, &rig.names("fault-8-v", MediaKind::Video), OpenedBecause::First);
    let (mut audio, mut video) = (Sender::new(&bad, &rig.clock), Sender::new(&good, &rig.clock));
    audio.frames(50, 1, 80);
    let name = rig.name_on_disk(&fails);
    rig.disk.fault("microphone", Fault::PanicAt(rig.disk.length(&name)));
    audio.frames(50, 1, 80);
    video.frames(50, 50, 3000);
    let facts = rig.wait_over(&fails);
    assert!(why_failed(&facts).contains("told to panic") && is_panic(&facts), "{:?}", facts.phase);
    assert!(facts.ledger.balances());
    let kept = rig.data(&facts.file.clone().unwrap());
    assert!(!kept.is_empty() && kept == audio.data()[..kept.len()]);
    assert_eq!(facts.ledger.written, kept.len() as u64);
    assert!(rig.panics() > 0);
    let facts = rig.finish(&lasts);
    assert_eq!(rig.data(&facts.file.clone().unwrap()), video.data());
}

#[cfg(feature = "fault-injection")]
#[test]
fn a_panic_in_the_pump_ends_one_segment_and_loses_nothing() {
    let rig = Rig::new();
    let (bad, good) = (rig.ring(Codec::Opus, None), rig.ring(Codec::Vp8, None));
    let names = rig.names("fault-9-a", MediaKind::Audio);
    let fails = rig.start(&bad, &names, OpenedBecause::First);
    let lasts = rig.start(&good, &rig.names("fault-9-v", MediaKind::Video), OpenedBecause::First);
    let (mut audio, mut video) = (Sender::new(&bad, &rig.clock), Sender::new(&good, &rig.clock));
    audio.frames(50, 1, 80);
    video.frames(50, 50, 3000);
    recorder_actors::testing::arm_everywhere(recorder_actors::testing::Point::Pump, "fault-9-a", 1);
    let facts = rig.wait_over(&fails);
    assert!(why_failed(&facts).contains("injected fault") && is_panic(&facts));
    assert_eq!(rig.panics(), 1);
    let again = rig.start(&bad, &names, OpenedBecause::WriterRestarted);
    audio.frames(50, 1, 80);
    video.frames(50, 0, 3000);
    rig.finish(&again);
    let facts = rig.finish(&lasts);
    assert_eq!(rig.data(&facts.file.clone().unwrap()), video.data());
    let segments: Vec<_> = rig.segments().into_iter().filter(|segment| segment.audio.is_some()).collect();
    assert_eq!(segments.len(), 2);
    let data: Vec<_> = segments.iter().flat_map(|segment| rig.data(&segment.file)).collect();
    assert_eq!(data, audio.data());
    for segment in &segments {
        assert!(segment.is_final && segment.ledger.balances());
        assert_eq!(segment.ledger.dropped_by_us, 0);
    }
    assert_eq!(received(&segments), 100);
    assert_eq!(rig.disk.was_repaired(&segments[0].file), 1);
    assert_eq!(rig.session.rejected(), 0, "each end is told once");
}

#[cfg(feature = "fault-injection")]
#[test]
fn a_disk_that_fails_or_panics_at_any_of_its_points_costs_one_segment() {
    use recorder_actors::testing::{Fault as Failing, Order, Point, order, orders};
    let mut number = 0;
    for point in [Point::DiskCreate, Point::DiskWrite, Point::DiskSync] {
        for fault in [Failing::Error, Failing::Panic] {
            number += 1;
            let who = format!("point-{number}");
            let rig = Rig::on_a_faulty_disk(&who);
            let ring = rig.ring(Codec::Opus, None);
            let names = rig.names(&who, MediaKind::Audio);
            order(Order { point, who: who.clone(), fault, after: 0, times: 1 }).unwrap();
            let first = rig.start(&ring, &names, OpenedBecause::First);
            let mut sender = Sender::new(&ring, &rig.clock);
            sender.frames(50, 1, 80);
            let facts = rig.wait_over(&first);
            assert_eq!(is_panic(&facts), fault == Failing::Panic, "{point:?}: {:?}", facts.phase);
            assert!(orders().iter().all(|order| order.who != who), "{point:?} was not met");
            assert!(facts.ledger.balances());
            let second = rig.start(&ring, &names, OpenedBecause::WriterRestarted);
            let before = sender.data().len();
            sender.frames(50, 1, 80);
            let facts = rig.finish(&second);
            assert!(facts.ledger.balances());
            let kept = rig.data(&facts.file.clone().unwrap());
            assert_eq!(
                kept[kept.len() - 50..],
                sender.data()[before..],
                "{point:?}: what came after is there"
            );
        }
    }
}

#[test]
fn a_panic_in_the_middle_of_a_frames_way_still_accounts_for_its_packets() {
    let rig = Rig::new();
    let ring = rig.ring(Codec::Vp8, None);
    let names = rig.names("fault-10", MediaKind::Video);
    let first = rig.start(&ring, &names, OpenedBecause::First);
    let mut sender = Sender::new(&ring, &rig.clock);
    sender.frames(30, 30, 3000);
    rig.wait(&first, |facts| facts.files == 1);
    rig.media.panics.store(1, Ordering::SeqCst);
    // A picture is lost, and a key frame asked for, which panics.
    let lost = sender.next(false, 3000);
    drop(sender.make(lost));
    let asked = rig.keys_asked();
    for _ in 0..100 {
        sender.frame(false, 3000);
        sender.tick();
    }
    let facts = rig.wait_over(&first);
    assert!(why_failed(&facts).contains("told to panic") && rig.keys_asked() > asked);
    assert!(facts.ledger.balances(), "{:?}", facts.ledger);
    let second = rig.start(&ring, &names, OpenedBecause::WriterRestarted);
    sender.frames(30, 30, 3000);
    ring.end();
    let facts = rig.wait_closed(&second);
    assert!(facts.ledger.balances(), "{:?}", facts.ledger);
    let segments = rig.segments();
    assert_eq!(received(&segments), sender.entered());
    let sent = sender.data();
    assert_eq!(rig.data(&segments[0].file), sent[..30]);
    assert_eq!(rig.data(&segments[1].file), sent[131..]);
}

#[test]
fn pumps_that_have_ended_refuse_orders() {
    let rig = Rig::new();
    rig.pumps.shut_down();
    let ring = rig.ring(Codec::Opus, None);
    let segment = rig.start(&ring, &rig.names("fault-11", MediaKind::Audio), OpenedBecause::First);
    assert_eq!(why_failed(&segment.now()), "the pumps have ended");
}
