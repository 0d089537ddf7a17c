//! From journal to manifest, whatever happened to the journal.

mod manifest_support;

use manifest_support::{applied, ended, event, journal, opened, record, session};
use proptest::prelude::*;
use recorder_core::ids::{ParticipantId, TrackId};
use recorder_core::manifest::{
    Event, EventCoalescer, EventKind, GapCause, JournalError, Manifest, MediaState, OpenedBecause, Ppm,
    Problem, ProcessStarted, Record, Seconds, SegmentOpened, SessionClock, Utc, fold, limits,
};
use recorder_core::media::{Codec, MediaKind, Source};
use recorder_core::time::BootTime;
use std::time::Duration;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn folding_a_journal_is_applying_its_records(records in session()) {
        let folded = fold(&journal(&records)).expect("a session");
        prop_assert_eq!(&folded.manifest, &applied(&records));
        prop_assert!(folded.ends_with_newline);
        let only_misplaced = folded.problems.iter().all(|p| matches!(p, Problem::Misplaced { .. }));
        prop_assert!(only_misplaced, "{:?}", folded.problems);
    }

    #[test]
    fn a_journal_cut_at_any_byte_still_folds(records in session(), cut in any::<prop::sample::Index>()) {
        let journal = journal(&records);
        let end = cut.index(journal.len() + 1);
        match fold(&journal[..end]) {
            Err(JournalError::NotOpened) => prop_assert!(end < records[0].to_line().len()),
            Ok(folded) => {
                // Whole lines count, the torn one does not, unless only its newline is missing.
                let mut whole = journal[..end].iter().filter(|&&byte| byte == b'\n').count();
                if end < journal.len() && journal[end] == b'\n' {
                    whole += 1;
                }
                prop_assert_eq!(folded.manifest, applied(&records[..whole]));
                prop_assert_eq!(folded.ends_with_newline, journal[..end].ends_with(b"\n"));
            }
        }
    }

    #[test]
    fn any_bytes_fold_or_are_refused(
        bytes in prop::collection::vec(any::<u8>(), 0..400),
        before in any::<bool>(),
    ) {
        let mut journal = if before { journal(&[Record::SessionOpened(opened())]) } else { Vec::new() };
        journal.extend(bytes);
        prop_assert_eq!(fold(&journal).is_ok(), before);
    }

    #[test]
    fn what_is_written_is_what_is_read(records in session()) {
        let manifest = applied(&records);
        let read: Manifest = serde_json::from_slice(&manifest.to_json()).expect("a manifest");
        prop_assert_eq!(read, manifest);
        for record in records {
            let read: Record = serde_json::from_slice(&record.to_line()).expect("a record");
            prop_assert_eq!(read, record);
        }
    }

    #[test]
    fn a_checkpoint_stands_for_all_before_it(
        records in session(),
        after in prop::collection::vec(record(), 0..10),
    ) {
        let before = applied(&records);
        let opened = records[0].clone();
        let short: Vec<_> = [opened, Record::Checkpoint { manifest: Box::new(before) }]
            .into_iter().chain(after.clone()).collect();
        let long: Vec<_> = records.into_iter().chain(after).collect();
        prop_assert_eq!(fold(&journal(&short)).expect("a session").manifest, applied(&long));
    }

    #[test]
    fn progress_without_what_is_known_leads_to_the_same(records in session()) {
        let mut manifest: Manifest = opened().into();
        for record in &records[1..] {
            let mut record = record.clone();
            if let Record::SegmentProgress(progress) = &mut record
                && let Some(segment) = manifest.segment(&progress.file)
            {
                progress.strip_unchanged(&segment.clone());
            }
            let _ = manifest.apply(&record);
        }
        prop_assert_eq!(manifest, applied(&records));
    }

    #[test]
    fn seconds_survive_json_and_are_never_negative(value in any::<f64>()) {
        let seconds = Seconds::new(value);
        let json = serde_json::to_string(&seconds).expect("a number");
        prop_assert!(!json.starts_with('-'), "{}", json);
        prop_assert_eq!(serde_json::from_str::<Seconds>(&json).expect("a number"), seconds);
        let ppm = Ppm::new(value);
        let json = serde_json::to_string(&ppm).expect("a number");
        prop_assert_eq!(serde_json::from_str::<Ppm>(&json).expect("a number"), ppm);
    }

    #[test]
    fn utc_survives_its_text(micros in -62_000_000_000_000_000_i64..253_000_000_000_000_000) {
        let utc = Utc::from_micros(micros);
        prop_assert_eq!(utc.to_string().parse::<Utc>(), Ok(utc));
    }

    #[test]
    fn any_text_is_utc_or_refused(text in ".{0,40}") {
        if let Ok(utc) = text.parse::<Utc>() {
            prop_assert!(utc.to_string().parse::<Utc>().is_ok());
        }
    }
}

#[test]
fn seconds_have_at_most_six_decimals() {
    for (value, json) in [(1.0 / 3.0, "0.333333"), (0.1 + 0.2, "0.3"), (86_400.123_456_7, "86400.123457")] {
        assert_eq!(serde_json::to_string(&Seconds::new(value)).expect("a number"), json);
    }
    assert_eq!(serde_json::from_str::<Seconds>("7").expect("a whole number is one too"), Seconds::new(7.0));
}

#[test]
fn utc_is_written_as_the_contract_shows_it() {
    let utc: Utc = "2026-11-22T15:04:05.123456Z".parse().expect("UTC");
    assert_eq!(utc.as_micros(), 1_795_359_845_123_456);
    assert_eq!(utc.to_string(), "2026-11-22T15:04:05.123456Z");
    assert_eq!(utc.basic(), "20261122T150405Z");
    assert_eq!("2000-02-29T00:00:00Z".parse::<Utc>().expect("a leap day").basic(), "20000229T000000Z");
    for wrong in
        ["", "2026-11-22", "2026-13-22T15:04:05Z", "2026-11-22T15:04:05+01:00", "2026-11-22T15:04:05.Z"]
    {
        assert!(wrong.parse::<Utc>().is_err(), "{wrong}");
    }
}

#[test]
fn garbage_and_unknown_records_between_lines_lose_nothing() {
    let mut bytes = journal(&[Record::SessionOpened(opened())]);
    bytes.extend(b"\0\0\0\0\n{\"record\":\"hologram_opened\",\"x\":1}\n{\"record\":\"gap\"}\n\n");
    bytes.extend(ended(Seconds::new(9.0)).to_line());
    bytes.extend(b"{\"record\":\"sha2");
    let folded = fold(&bytes).expect("a session");
    assert_eq!(folded.manifest.ended_s, Some(Seconds::new(9.0)));
    assert_eq!(
        folded.problems,
        [
            Problem::Garbage { line: 2 },
            Problem::UnknownRecord { line: 3, kind: "hologram_opened".to_owned() },
            Problem::Garbage { line: 4 },
            Problem::Torn { bytes: 15 },
        ]
    );
    assert!(!folded.ends_with_newline);
}

#[test]
fn fields_and_values_of_a_newer_version_are_no_error() {
    let line = String::from_utf8(Record::SessionOpened(opened()).to_line()).expect("JSON is UTF-8");
    let line = line.replacen("one_to_one", "hologram", 1).replacen('{', "{\"mood\":{\"good\":true},", 1);
    let manifest = fold(line.as_bytes()).expect("a session").manifest;
    assert_eq!(manifest.call_kind.known(), None);
    assert!(String::from_utf8_lossy(&manifest.to_json()).contains("\"call_kind\": \"hologram\""));
}

#[test]
fn problems_are_listed_to_a_limit() {
    let mut bytes = journal(&[Record::SessionOpened(opened())]);
    bytes.extend(b"x\n".repeat(10_000));
    let folded = fold(&bytes).expect("a session");
    assert_eq!(folded.problems.len(), 101);
    assert_eq!(folded.problems.last(), Some(&Problem::More { count: 9_900 }));
}

#[test]
fn lists_that_a_remote_party_can_grow_have_a_limit() {
    let mut manifest: Manifest = opened().into();
    let mut told = |kind: EventKind| {
        let event = |n| Event { kind: kind.into(), ..event(Seconds::new(n as f64), None) };
        (0..limits::EVENTS + 500).filter(|n| manifest.apply(&Record::Event(event(*n))).is_ok()).count()
    };
    // Whatever filled the list, what people said of being recorded finds room in it.
    assert_eq!(told(EventKind::Joined), limits::EVENTS - limits::EVENTS_OF_CONSENT);
    assert_eq!(told(EventKind::OptedOut), limits::EVENTS_OF_CONSENT);
    assert_eq!((told(EventKind::Command), told(EventKind::Joined)), (0, 0));
}

#[test]
fn what_a_remote_party_wrote_is_kept_to_a_limit() {
    let mut manifest: Manifest = opened().into();
    let huge = "é".repeat(100_000);
    manifest.apply(&Record::Event(event(Seconds::ZERO, Some(huge.clone())))).expect("it fits");
    let added = Record::ParticipantAdded {
        participant: "p1".into(),
        user_id: Some(huge.clone()),
        device_id: None,
        party_id: None,
        display_name: Some(huge),
    };
    manifest.apply(&added).expect("it fits");
    assert!(manifest.to_json().len() < 10_000, "{}", manifest.to_json().len());
}

#[test]
fn nothing_but_what_mends_follows_the_end() {
    let mut manifest = applied(&[Record::SessionOpened(opened()), ended(Seconds::new(5.0))]);
    let before = manifest.clone();
    assert!(manifest.apply(&Record::Event(event(Seconds::new(6.0), None))).is_err());
    assert!(manifest.apply(&ended(Seconds::new(6.0))).is_err());
    assert_eq!(manifest, before);
    assert!(manifest.apply(&Record::Verified { verified: Some(true), problems: Vec::new() }).is_ok());
}

#[test]
fn the_end_of_a_session_ends_stays_and_states() {
    let participant = "p1";
    let records = [
        Record::SessionOpened(opened()),
        Record::ParticipantAdded {
            participant: participant.into(),
            user_id: None,
            device_id: None,
            party_id: None,
            display_name: None,
        },
        Record::PresenceBegan { participant: participant.into(), at_s: Seconds::new(2.0) },
        ended(Seconds::new(5.0)),
    ];
    let stay = &applied(&records).participants[0].presence[0];
    assert_eq!(stay.left_s, Some(Seconds::new(5.0)));
    assert!(stay.reason.is_some());
}

#[test]
fn an_opt_out_is_a_gap_of_the_segment_that_it_ended_until_the_opt_in_or_the_end() {
    let (participant, track) = (ParticipantId::from("p1"), TrackId::from("p1-camera-1"));
    let file = "a_camera_0001.webm";
    let state = |at: f64, began: bool| {
        let (track, at_s, state) = (track.clone(), Seconds::new(at), MediaState::OptedOut.into());
        if began {
            Record::StateBegan { track, at_s, state }
        } else {
            Record::StateEnded { track, at_s, state }
        }
    };
    let before = [
        Record::SessionOpened(opened()),
        Record::ParticipantAdded {
            participant: participant.clone(),
            user_id: None,
            device_id: None,
            party_id: None,
            display_name: None,
        },
        Record::TrackAdded {
            participant,
            track: track.clone(),
            source: Source::Camera.into(),
            kind: MediaKind::Video.into(),
        },
        Record::SegmentOpened(SegmentOpened {
            track: track.clone(),
            file: file.to_owned(),
            codec: Codec::Vp8.into(),
            start_s: Seconds::new(3.0),
            opened_because: OpenedBecause::First.into(),
            clock_uncertain_s: None,
            video: None,
            audio: None,
        }),
        state(6.0, true),
    ];
    let closed = Record::SegmentClosed { file: file.to_owned(), segment: Box::new(segment()) };
    // However soon the file is closed.
    for after in [
        vec![closed.clone(), state(9.5, false)],
        vec![state(9.5, false), closed.clone()],
        vec![closed.clone(), state(9.5, false), closed.clone()],
        vec![closed.clone(), ended(Seconds::new(9.5))],
    ] {
        let records: Vec<_> = before.iter().cloned().chain(after).collect();
        let manifest = applied(&records);
        let gaps = &manifest.segment(file).expect("it was opened").gaps;
        let told: Vec<_> = gaps.iter().map(|gap| (gap.from_s.as_f64(), gap.to_s.as_f64())).collect();
        assert_eq!(told, [(6.0, 9.5)]);
        assert!(gaps[0].cause.is(GapCause::OptedOut));
    }
    let short: Vec<_> = before.iter().cloned().chain([closed, state(6.9, false)]).collect();
    assert_eq!(applied(&short).segment(file).expect("it was opened").gaps, []);
}

#[test]
fn ten_events_of_a_second_stand_alone_and_eleven_become_one() {
    for (count, wanted) in [(10, 10), (11, 1), (5_000, 1)] {
        let mut coalescer = EventCoalescer::default();
        let mut manifest: Manifest = opened().into();
        let mut lines = 0;
        let at = |n: u32| Seconds::new(3.0 + f64::from(n) * 0.9 / f64::from(count));
        let mut records: Vec<_> = (0..count).flat_map(|n| coalescer.push(event(at(n), None))).collect();
        assert_eq!(records.len(), count.min(10) as usize, "the first ten are told at once");
        records.extend(coalescer.poll(Seconds::new(4.5)));
        for record in &records {
            manifest.apply(record).expect("it fits");
            lines += 1;
        }
        assert_eq!(manifest.events.len(), wanted);
        assert!(lines <= 11);
        if wanted == 1 {
            assert_eq!(manifest.events[0].detail["count"], count);
            assert_eq!(manifest.events[0].at_s, Seconds::new(3.0));
        }
    }
}

#[test]
fn the_session_clock_goes_on_in_the_same_boot_and_by_utc_after_another() {
    let (begin, utc) = (BootTime(50_000_000_000), Utc::from_micros(1_795_359_845_123_456));
    let clock = SessionClock::begin(begin, utc, None);
    assert_eq!(clock.at(begin), Seconds::new(2.0));
    assert_eq!(clock.at(BootTime(0)), Seconds::ZERO, "nothing lies before the epoch");
    let mut opening = opened();
    (opening.epoch, opening.boot_time_ns) = (clock.epoch(), clock.epoch_boot_time().as_nanos());
    let folded = fold(&journal(&[Record::SessionOpened(opening)])).expect("a session");

    let later = begin + Duration::from_secs(100);
    // UTC was set back meanwhile, which says nothing within a boot.
    let same = SessionClock::resume(&folded, "b", later, Utc::from_micros(0));
    assert_eq!((same.at(later), same.uncertain()), (Seconds::new(102.0), None));

    let utc = Utc::from_micros(utc.as_micros() + 100_000_000);
    let other = SessionClock::resume(&folded, "another", BootTime(7_000_000_000), utc);
    assert_eq!(other.at(BootTime(8_000_000_000)), Seconds::new(103.0));
    assert!(other.uncertain().is_some());

    // A second restart in that boot goes on exactly, and is as uncertain as the first.
    let started = Record::ProcessStarted(ProcessStarted {
        boot_id: "another".to_owned(),
        boot_time_ns: 8_000_000_000,
        utc,
        at_s: Seconds::new(103.0),
    });
    let folded = fold(&journal(&[Record::SessionOpened(folded.opened), started])).expect("a session");
    assert_eq!(folded.last_boot_id(), "another");
    let third = SessionClock::resume(&folded, "another", BootTime(9_000_000_000), Utc::from_micros(0));
    assert_eq!(
        (third.at(BootTime(9_000_000_000)), third.uncertain()),
        (Seconds::new(104.0), other.uncertain())
    );
}

#[test]
fn a_clock_map_is_linear_between_points_and_goes_on_beyond_them() {
    let mut segment = segment();
    assert_eq!(
        segment.session_time(Seconds::new(1.0)),
        Seconds::new(4.0),
        "without points from the start on"
    );
    let point = |media: f64, session: f64| recorder_core::manifest::ClockPoint {
        media_s: Seconds::new(media),
        session_s: Seconds::new(session),
        error_s: Seconds::ZERO,
    };
    segment.clock_map = vec![point(0.0, 3.0), point(10.0, 14.0), point(10.0, 14.0)];
    for (media, session) in [(0.0, 3.0), (5.0, 8.5), (10.0, 14.0), (12.0, 16.0)] {
        assert_eq!(segment.session_time(Seconds::new(media)), Seconds::new(session));
    }
}

#[test]
fn what_lies_in_a_file_stays_there_when_its_clock_map_is_bent() {
    let point = |media: f64, session: f64| recorder_core::manifest::ClockPoint {
        media_s: Seconds::new(media),
        session_s: Seconds::new(session),
        error_s: Seconds::ZERO,
    };
    let mut segment = segment();
    let clock = segment.clock.clone();
    segment.place(vec![point(0.0, 3.0), point(10.0, 13.0)], clock.clone());
    segment.gaps = vec![recorder_core::manifest::Gap {
        from_s: Seconds::new(4.0),
        to_s: Seconds::new(11.0),
        cause: recorder_core::manifest::GapCause::Silence.into(),
    }];
    // The sender lost a tenth of a second at media second 5.
    let bent = vec![point(0.0, 2.5), point(5.0, 7.5), point(5.2, 7.8), point(10.0, 12.6)];
    segment.place(bent, clock);
    assert_eq!(segment.start_s, Seconds::new(2.5));
    assert_eq!((segment.gaps[0].from_s, segment.gaps[0].to_s), (Seconds::new(3.5), Seconds::new(10.6)));
    for media in [0.0, 2.0, 5.1, 9.0, 12.0] {
        let media = Seconds::new(media);
        assert_eq!(segment.media_time(segment.session_time(media)), media);
    }
}

fn segment() -> recorder_core::manifest::Segment {
    let json =
        r#"{"file":"a_camera_0001.webm","codec":"vp8","start_s":3.0,"end_s":4.0,"opened_because":"first"}"#;
    serde_json::from_str(json).expect("what is left out has a default")
}
