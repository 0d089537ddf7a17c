//! Random sessions: sequences of records as a recorder may tell them, in order and out of it.
#![allow(dead_code, reason = "each test file uses a part")]

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use recorder_core::ids::{ParticipantId, SessionId, TrackId};
use recorder_core::manifest::{
    AudioFormat, CallKind, ClockFit, ClockMethod, ClockPoint, EndReason, Event, EventKind, GapCause,
    LeaveReason, Ledger, Manifest, MediaState, OpenedBecause, Ppm, Record, RecorderInfo, Recovery,
    Resolution, Room, Rotation, Seconds, Segment, SegmentOpened, SegmentProgress, SessionOpened,
    SessionState, Utc, VideoFormat, media_file_name,
};
use recorder_core::media::{Codec, MediaKind, Source};

pub fn opened() -> SessionOpened {
    SessionOpened {
        session_id: SessionId::from("01K"),
        call_id: "c/../1".to_owned(),
        call_kind: CallKind::OneToOne.into(),
        room: Room { id: "!r:example.org".to_owned(), name: Some("Team".to_owned()), encrypted: true },
        epoch: Utc::from_micros(1_795_359_845_123_456),
        boot_id: "b".to_owned(),
        boot_time_ns: 1 << 60,
        started_by: Some("@ada:example.org".to_owned()),
        continues: None,
        recorder: RecorderInfo { name: "matrix-call-recorder".to_owned(), version: "0.1.0".to_owned() },
    }
}

pub fn seconds() -> impl Strategy<Value = Seconds> {
    (0..100_000_000_000_u64).prop_map(Seconds::from_micros)
}

fn participant() -> impl Strategy<Value = ParticipantId> {
    (1..4_u8).prop_map(|n| ParticipantId(format!("p{n}")))
}

fn source() -> impl Strategy<Value = Source> {
    prop_oneof![
        Just(Source::Microphone),
        Just(Source::Camera),
        Just(Source::Screen),
        Just(Source::ScreenAudio),
        Just(Source::Unknown)
    ]
}

fn track() -> impl Strategy<Value = (ParticipantId, TrackId, Source)> {
    (participant(), source(), 1..3_u8).prop_map(|(participant, source, n)| {
        let track = TrackId(format!("{participant}-{}-{n}", source.name()));
        (participant, track, source)
    })
}

fn file() -> impl Strategy<Value = (TrackId, String)> {
    (track(), 1..3_u32).prop_map(|((participant, track, source), n)| {
        let name = media_file_name(&format!("ada-{participant}"), source, n, Codec::Vp8);
        (track, name)
    })
}

fn text() -> impl Strategy<Value = Option<String>> {
    option::of(prop_oneof![".{0,20}", Just("\u{202e}\0/../\n".to_owned()), Just("x".repeat(3_000))])
}

fn points() -> impl Strategy<Value = Vec<ClockPoint>> {
    vec((seconds(), seconds(), seconds()), 1..5).prop_map(|mut points| {
        points.sort();
        points
            .into_iter()
            .map(|(media_s, session_s, error_s)| ClockPoint { media_s, session_s, error_s })
            .collect()
    })
}

fn clock() -> impl Strategy<Value = ClockFit> {
    (any::<u64>(), seconds(), any::<f64>(), seconds(), seconds()).prop_map(
        |(sender_reports, offset_s, drift, residual_s, error_bound_s)| ClockFit {
            method: ClockMethod::SenderReports.into(),
            sender_reports,
            offset_s,
            drift_ppm: Ppm::new(drift),
            residual_s,
            error_bound_s,
        },
    )
}

fn ledger() -> impl Strategy<Value = Ledger> {
    (0..1_000_000_u64, 0..100_u64, 0..100_u64).prop_map(|(written, late, lost)| Ledger {
        received: written + late,
        written,
        late,
        lost,
        ..Default::default()
    })
}

fn video() -> impl Strategy<Value = (Vec<Resolution>, Vec<Rotation>)> {
    let resolution = (seconds(), any::<u32>(), any::<u32>());
    let resolution = resolution.prop_map(|(at_s, width, height)| Resolution { at_s, width, height });
    let rotation = (seconds(), 0..4_u16).prop_map(|(at_s, n)| Rotation { at_s, degrees: n * 90 });
    (vec(resolution, 0..3), vec(rotation, 0..3))
}

fn segment() -> impl Strategy<Value = (String, Segment)> {
    (file(), seconds(), seconds(), points(), clock(), ledger(), video()).prop_map(
        |((_, file), start_s, end_s, clock_map, clock, ledger, (resolutions, rotations))| {
            let segment = Segment {
                file: file.clone(),
                codec: Codec::Vp8.into(),
                start_s,
                end_s,
                media_seconds: end_s,
                frames: ledger.written,
                bytes: 1 << 40,
                sha256: None,
                is_final: true,
                opened_because: OpenedBecause::NewSsrc.into(),
                clock_map,
                clock,
                ledger,
                gaps: Vec::new(),
                dtx_s: Seconds::ZERO,
                clock_uncertain_s: None,
                video: Some(VideoFormat { resolutions, rotations }),
                audio: None,
            };
            (file, segment)
        },
    )
}

fn progress() -> impl Strategy<Value = Record> {
    (
        file(),
        seconds(),
        0..1_000_000_u64,
        ledger(),
        option::of(points()),
        option::of(clock()),
        option::of(video()),
    )
        .prop_map(|((_, file), end_s, frames, ledger, clock_map, clock, video)| {
            let (resolutions, rotations) = video.unzip();
            Record::SegmentProgress(SegmentProgress {
                file,
                end_s,
                media_seconds: end_s,
                frames,
                bytes: frames,
                dtx_s: Seconds::ZERO,
                ledger,
                clock_map,
                clock,
                resolutions,
                rotations,
                audio: None,
            })
        })
}

/// Any record but the first and the last.
pub fn record() -> impl Strategy<Value = Record> {
    let state = prop_oneof![Just(MediaState::Muted), Just(MediaState::Held), Just(MediaState::SourceOff)];
    prop_oneof![
        1 => (participant(), text(), text()).prop_map(|(participant, user_id, display_name)|
        Record::ParticipantAdded {
            participant,
            user_id,
            device_id: None,
            party_id: None,
            display_name
        }),
        1 => (participant(), text()).prop_map(|(participant, display_name)| Record::ParticipantRenamed {
            participant,
            user_id: None,
            device_id: None,
            party_id: None,
            display_name
        }),
        1 => (participant(), seconds())
            .prop_map(|(participant, at_s)| Record::PresenceBegan { participant, at_s }),
        1 => (participant(), seconds()).prop_map(|(participant, at_s)| Record::PresenceEnded {
            participant,
            at_s,
            reason: Some(LeaveReason::Left.into())
        }),
        4 => track().prop_map(|(participant, track, source)| Record::TrackAdded {
            participant,
            track,
            source: source.into(),
            kind: MediaKind::Video.into()
        }),
        1 => (track(), seconds(), state.clone()).prop_map(|((_, track, _), at_s, state)| Record::StateBegan {
            track,
            at_s,
            state: state.into()
        }),
        1 => (track(), seconds(), state).prop_map(|((_, track, _), at_s, state)| Record::StateEnded {
            track,
            at_s,
            state: state.into()
        }),
        8 => (file(), seconds()).prop_map(|((track, file), start_s)| Record::SegmentOpened(SegmentOpened {
            track,
            file,
            codec: Codec::Vp8.into(),
            start_s,
            opened_because: OpenedBecause::First.into(),
            clock_uncertain_s: None,
            video: None,
            audio: Some(AudioFormat { channels: 2, sample_rate: 48_000 }),
        })),
        8 => progress(),
        2 => (file(), seconds(), seconds()).prop_map(|((_, file), from_s, to_s)| Record::Gap {
            file,
            from_s,
            to_s,
            cause: GapCause::Loss.into()
        }),
        4 => segment().prop_map(|(file, segment)| Record::SegmentClosed { file, segment: Box::new(segment) }),
        1 => (seconds(), text()).prop_map(|(at_s, text)| Record::Event(event(at_s, text))),
        1 => (seconds(), 0..20_u32)
            .prop_map(|(at_s, replaces)| Record::EventsMerged { replaces, event: event(at_s, None) }),
        1 => (seconds(), seconds()).prop_map(|(at_s, lost_at_most_s)| Record::RecoveryDone(Recovery {
            at_s,
            lost_at_most_s,
            repaired: vec![media_file_name("ada-p1", Source::Camera, 1, Codec::Vp8)]
        })),
        1 => file().prop_map(|(_, file)| Record::Sha256 { file, sha256: "0f".repeat(32) }),
        1 => any::<Option<bool>>().prop_map(|verified| Record::Verified { verified, problems: Vec::new() }),
    ]
}

pub fn event(at_s: Seconds, text: Option<String>) -> Event {
    let detail = text.map(|text| ("text".to_owned(), text.into())).into_iter().collect();
    Event { at_s, kind: EventKind::Muted.into(), participant: None, track: None, detail }
}

pub fn ended(at: Seconds) -> Record {
    Record::SessionEnded {
        ended_s: at,
        end_reason: EndReason::Hangup.into(),
        stopped_by: None,
        state: SessionState::Complete.into(),
    }
}

/// A session: opened, anything, ended or not.
pub fn session() -> impl Strategy<Value = Vec<Record>> {
    let end = option::of(seconds().prop_map(ended));
    (vec(record(), 0..40), end).prop_map(|(records, end)| {
        let opened = Record::SessionOpened(opened());
        [opened].into_iter().chain(records).chain(end).collect()
    })
}

pub fn journal(records: &[Record]) -> Vec<u8> {
    records.iter().flat_map(Record::to_line).collect()
}

/// Applied one by one, without writing or reading anything.
pub fn applied(records: &[Record]) -> Manifest {
    let mut manifest: Option<Manifest> = None;
    for record in records {
        match (&mut manifest, record) {
            (None, Record::SessionOpened(opened)) => manifest = Some(opened.clone().into()),
            (Some(manifest), record) => drop(manifest.apply(record)),
            (None, _) => {}
        }
    }
    manifest.expect("the records open a session")
}
