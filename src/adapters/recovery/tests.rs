use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use recorder_actors::session::SessionStore;
use recorder_core::ids::SessionId;
use recorder_core::manifest::{
    CallKind, ClockPoint, EndReason, Manifest, MediaState, OpenedBecause, Record, RecorderInfo, Room,
    Seconds, SegmentOpened, SegmentProgress, SessionOpened, SessionState, Utc, fold,
};
use recorder_core::media::{Codec, MediaKind, Source};
use recorder_core::mux::{AudioFormat, FinalFacts, MatroskaWriter, TrackHeader};
use recorder_core::rtp::Ledger;
use recorder_core::time::BootTime;

use super::*;
use crate::adapters::session_store::{FsSessionStore, SNAPSHOT};

const FILE: &str = "ada-p1_microphone_0001.webm";
const EPOCH: i64 = 1_795_359_845_123_456;

fn none() -> HashSet<SessionId> {
    HashSet::new()
}

fn now() -> Now {
    let utc = Utc::from_micros(EPOCH + 60_000_000);
    Now { boot_id: "boot".to_owned(), boot_time: BootTime(160_000_000_000), utc }
}

fn opened() -> Record {
    Record::SessionOpened(SessionOpened {
        session_id: SessionId::from("s1"),
        call_id: "c1".to_owned(),
        call_kind: CallKind::OneToOne.into(),
        room: Room { id: "!r:example.org".to_owned(), name: None, encrypted: false },
        epoch: Utc::from_micros(EPOCH),
        boot_id: "boot".to_owned(),
        boot_time_ns: 100_000_000_000,
        started_by: None,
        continues: None,
        recorder: RecorderInfo { name: "matrix-call-recorder".to_owned(), version: "0.1.0".to_owned() },
    })
}

fn participant() -> Vec<Record> {
    let participant = Record::ParticipantAdded {
        participant: "p1".into(),
        user_id: Some("@ada:example.org".to_owned()),
        device_id: None,
        party_id: None,
        display_name: None,
    };
    vec![participant, Record::PresenceBegan { participant: "p1".into(), at_s: Seconds::new(2.0) }]
}

fn segment(file: &str) -> Vec<Record> {
    let track = Record::TrackAdded {
        participant: "p1".into(),
        track: "p1-microphone-1".into(),
        source: Source::Microphone.into(),
        kind: MediaKind::Audio.into(),
    };
    let opened = Record::SegmentOpened(SegmentOpened {
        track: "p1-microphone-1".into(),
        file: file.to_owned(),
        codec: Codec::Opus.into(),
        start_s: Seconds::new(2.5),
        opened_because: OpenedBecause::First.into(),
        clock_uncertain_s: None,
        video: None,
        audio: None,
    });
    let point = |s: f64| ClockPoint {
        media_s: Seconds::new(s),
        session_s: Seconds::new(2.5 + s),
        error_s: Seconds::new(0.01),
    };
    let progress = Record::SegmentProgress(SegmentProgress {
        file: file.to_owned(),
        end_s: Seconds::new(6.5),
        media_seconds: Seconds::new(4.0),
        frames: 200,
        clock_map: Some(vec![point(0.0), point(4.0)]),
        // Three packets were on their way when the journal was written.
        ledger: Ledger { received: 203, written: 200, ..Default::default() },
        ..Default::default()
    });
    vec![track, opened, progress]
}

fn journal() -> Vec<u8> {
    let records = [vec![opened()], participant(), segment(FILE)].concat();
    records.iter().flat_map(Record::to_line).collect()
}

fn header() -> TrackHeader {
    TrackHeader {
        codec: Codec::Opus,
        writing_app: "matrix-call-recorder".to_owned(),
        title: "ada".to_owned(),
        session_id: "s1".to_owned(),
        participant: "p1".to_owned(),
        source: "microphone".to_owned(),
        provisional_start_s: 2.5,
        epoch_utc_micros: None,
        track_uid: 1,
        audio: Some(AudioFormat { channels: 2, sample_rate: 48_000 }),
        video: None,
        codec_private: None,
    }
}

/// Five seconds of sound in packets of 20 ms, without an end.
fn sound() -> Vec<u8> {
    let mut out = Vec::new();
    let mut writer = MatroskaWriter::new(&header(), &mut out);
    for packet in 0..250_u64 {
        writer.write_frame(packet * 20, true, &[0x78; 80], &mut out).expect("time goes forward");
    }
    writer.flush(&mut out);
    out
}

fn session_in(recordings: &Path, journal: &[u8], media: &[u8]) -> PathBuf {
    let folder = recordings.join("room-12345678").join("20261122T150405Z_c1-12345678");
    fs::create_dir_all(&folder).expect("a folder");
    fs::write(folder.join(JOURNAL), journal).expect("a journal");
    fs::write(folder.join(FILE), media).expect("a media file");
    folder
}

fn snapshot(folder: &Path) -> Manifest {
    serde_json::from_slice(&fs::read(folder.join(SNAPSHOT)).expect("a snapshot")).expect("a manifest")
}

#[test]
fn a_killed_session_is_repaired_ended_and_told() {
    let recordings = tempfile::tempdir().expect("a folder");
    let media = sound();
    let folder = session_in(recordings.path(), &journal(), &media[..media.len() - 50]);
    let report = recover(recordings.path(), &now(), &none()).expect("readable");
    assert!(!report.is_faulty(), "{report}");

    let manifest = snapshot(&folder);
    assert!(manifest.state.is(SessionState::Complete));
    assert!(manifest.end_reason.as_ref().is_some_and(|reason| reason.is(EndReason::Restarted)));
    assert_eq!(manifest.integrity.verified, Some(true));
    assert_eq!(manifest.recoveries[0].repaired, [FILE]);
    assert_eq!(manifest.recoveries[0].lost_at_most_s, Seconds::new(1.0));
    assert_eq!(manifest.recoveries[0].at_s, Seconds::new(60.0));
    let segment = manifest.segment(FILE).expect("the segment");
    assert!(segment.is_final && segment.ledger.balances(), "{segment:?}");
    assert!(segment.end_s > Seconds::new(7.0) && segment.end_s <= Seconds::new(7.5), "{}", segment.end_s);
    assert_eq!(manifest.ended_s, Some(segment.end_s));
    assert_eq!(segment.bytes, fs::metadata(folder.join(FILE)).expect("the file").len());
    let stay = &manifest.participants[0].presence[0];
    assert_eq!(stay.left_s, manifest.ended_s);

    let folded = fold(&fs::read(folder.join(JOURNAL)).expect("the journal")).expect("a session");
    assert_eq!(folded.problems, []);
    assert_eq!(folded.manifest, manifest);

    let unfinished: Vec<_> = report.unfinished().collect();
    assert_eq!(unfinished[0].room_id, "!r:example.org");
    assert_eq!(unfinished[0].ended.as_micros(), EPOCH + segment.end_s.as_micros() as i64);
    assert!(report.to_string().contains("repaired"), "{report}");
}

#[test]
fn a_session_that_is_to_go_on_is_repaired_and_stays_open() {
    let recordings = tempfile::tempdir().expect("a folder");
    let media = sound();
    let muted = Record::StateBegan {
        track: "p1-microphone-1".into(),
        at_s: Seconds::new(3.0),
        state: MediaState::Muted.into(),
    };
    let journal = [journal(), muted.to_line()].concat();
    let folder = session_in(recordings.path(), &journal, &media[..media.len() - 50]);
    let keep = HashSet::from([SessionId::from("s1")]);
    let report = recover(recordings.path(), &now(), &keep).expect("readable");
    let left = report.left_over();
    assert_eq!(left.kept.get(&SessionId::from("s1")), Some(&folder));
    assert!(left.cut_off.is_empty());

    let manifest = snapshot(&folder);
    assert!(manifest.state.is(SessionState::Recording));
    assert_eq!((manifest.ended_s, manifest.end_reason.clone()), (None, None));
    assert_eq!(manifest.recoveries[0].repaired, [FILE]);
    assert_eq!(manifest.integrity.verified, None, "what is to come is not known");
    let segment = manifest.segment(FILE).expect("the segment");
    assert!(segment.is_final && segment.ledger.balances(), "{segment:?}");
    assert_eq!(manifest.participants[0].presence[0].left_s, None, "a restart of ours ends nobody's stay");
    let state = &manifest.participants[0].tracks[0].states[0];
    assert_eq!(state.to_s, Some(segment.end_s), "it is signalled again to whoever goes on");

    // Nobody goes on with it.
    assert_eq!(end_kept(&folder, &SessionId::from("s1")), Ok("!r:example.org".to_owned()));
    let manifest = snapshot(&folder);
    assert!(manifest.state.is(SessionState::Complete));
    assert!(manifest.end_reason.as_ref().is_some_and(|reason| reason.is(EndReason::Restarted)));
    assert_eq!(manifest.ended_s, Some(manifest.segment(FILE).expect("the segment").end_s));
    assert_eq!(manifest.recoveries.len(), 1);
    let folded = fold(&fs::read(folder.join(JOURNAL)).expect("the journal")).expect("a session");
    assert_eq!((folded.problems, folded.manifest), (Vec::new(), manifest));
    assert_eq!(end_kept(&folder, &SessionId::from("s1")), Ok("!r:example.org".to_owned()), "a second time");
    assert!(end_kept(&folder, &SessionId::from("s2")).is_err(), "another session's folder");
}

#[test]
fn a_second_recovery_changes_nothing() {
    let recordings = tempfile::tempdir().expect("a folder");
    let folder = session_in(recordings.path(), &journal(), &sound());
    recover(recordings.path(), &now(), &none()).expect("readable");
    let read = |name| fs::read(folder.join(name)).expect("readable");
    let before = (read(JOURNAL), read(SNAPSHOT), read(FILE));
    let again = recover(recordings.path(), &now(), &none()).expect("readable");
    assert!(again.sessions.is_empty());
    assert_eq!(again.to_string(), "nothing to repair\n");
    let repaired = repair_directory(recordings.path(), &now()).expect("readable");
    assert_eq!(repaired.sessions.len(), 1);
    assert_eq!(repaired.sessions[0].repaired().count(), 0);
    assert_eq!((read(JOURNAL), read(SNAPSHOT), read(FILE)), before);
}

#[test]
fn a_journal_torn_at_any_byte_still_gives_a_whole_session() {
    let journal = journal();
    let first_line = opened().to_line().len();
    let media = sound();
    for end in (first_line - 1..=journal.len()).step_by(29) {
        let recordings = tempfile::tempdir().expect("a folder");
        let folder = session_in(recordings.path(), &journal[..end], &media);
        let report = recover(recordings.path(), &now(), &none()).expect("readable");
        assert!(!report.sessions[0].files.is_empty());
        let manifest = snapshot(&folder);
        assert!(manifest.state.is(SessionState::Complete), "torn at {end}");
        let folded = fold(&fs::read(folder.join(JOURNAL)).expect("the journal")).expect("a session");
        assert_eq!(folded.manifest, manifest, "torn at {end}");
        // Who is in the journal has the file, also where its opening was lost.
        if !manifest.participants.is_empty() {
            assert!(manifest.segment(FILE).is_some_and(|segment| segment.is_final), "torn at {end}");
        }
    }
}

#[test]
fn media_cut_at_any_byte_is_repaired_or_left_untouched_and_listed() {
    let media = sound();
    for end in (0..media.len()).step_by(1_009) {
        let recordings = tempfile::tempdir().expect("a folder");
        let folder = session_in(recordings.path(), &journal(), &media[..end]);
        recover(recordings.path(), &now(), &none()).expect("readable");
        let manifest = snapshot(&folder);
        let segment = manifest.segment(FILE).expect("the segment");
        if segment.is_final {
            assert_eq!(manifest.integrity.verified, Some(true));
        } else {
            assert_eq!(manifest.integrity.verified, Some(false));
            assert_eq!(manifest.integrity.problems[0].file.as_deref(), Some(FILE));
            assert_eq!(fs::read(folder.join(FILE)).expect("readable"), &media[..end]);
        }
    }
}

#[test]
fn a_foreign_or_missing_file_is_listed_and_left_untouched() {
    let recordings = tempfile::tempdir().expect("a folder");
    let folder = session_in(recordings.path(), &journal(), b"RIFF no Matroska at all");
    let report = recover(recordings.path(), &now(), &none()).expect("readable");
    assert!(report.is_faulty());
    assert_eq!(fs::read(folder.join(FILE)).expect("readable"), b"RIFF no Matroska at all");
    assert!(snapshot(&folder).integrity.problems[0].problem.contains("Matroska"));

    let recordings = tempfile::tempdir().expect("a folder");
    let folder = session_in(recordings.path(), &journal(), &[]);
    fs::remove_file(folder.join(FILE)).expect("removed");
    recover(recordings.path(), &now(), &none()).expect("readable");
    assert_eq!(snapshot(&folder).integrity.problems[0].problem, "the file is missing");
}

#[test]
fn a_name_in_the_journal_never_leads_out_of_the_folder() {
    let recordings = tempfile::tempdir().expect("a folder");
    let outside = recordings.path().join("outside.webm");
    let torn = &sound()[..3_000];
    fs::write(&outside, torn).expect("a file");
    let records = [vec![opened()], participant(), segment("../../outside.webm")].concat();
    let journal: Vec<u8> = records.iter().flat_map(Record::to_line).collect();
    let folder = session_in(recordings.path(), &journal, &sound());
    fs::remove_file(folder.join(FILE)).expect("removed");
    symlink(&outside, folder.join(FILE)).expect("a link");
    recover(recordings.path(), &now(), &none()).expect("readable");
    assert_eq!(fs::read(&outside).expect("readable"), torn);
    assert_eq!(snapshot(&folder).integrity.verified, Some(false));
}

#[test]
fn folders_behind_links_are_not_entered() {
    let elsewhere = tempfile::tempdir().expect("a folder");
    let folder = session_in(elsewhere.path(), &journal(), &sound());
    let recordings = tempfile::tempdir().expect("a folder");
    symlink(elsewhere.path().join("room-12345678"), recordings.path().join("room")).expect("a link");
    assert!(recover(recordings.path(), &now(), &none()).expect("readable").sessions.is_empty());
    assert!(!folder.join(SNAPSHOT).exists());
}

#[test]
fn after_a_reboot_up_to_five_seconds_and_what_the_journal_knew_may_be_lost() {
    let recordings = tempfile::tempdir().expect("a folder");
    let media = sound();
    // Two seconds of sound are on the medium, the journal knew of four.
    let folder = session_in(recordings.path(), &journal(), &media[..media.len() * 2 / 5]);
    let now = Now { boot_id: "another".to_owned(), boot_time: BootTime(5_000_000_000), ..now() };
    recover(recordings.path(), &now, &none()).expect("readable");
    let recovery = &snapshot(&folder).recoveries[0];
    let lost = recovery.lost_at_most_s;
    assert!(lost > Seconds::new(6.5) && lost < Seconds::new(8.0), "{lost}");
    assert_eq!(recovery.at_s, Seconds::new(60.0), "by UTC");
}

#[test]
fn where_packets_were_lost_what_waited_for_one_may_be_lost_too() {
    for (ledger, lost_at_most_s) in [
        (Ledger { received: 200, written: 200, lost: 1, ..Default::default() }, 2.5),
        (Ledger { received: 200, written: 200, recovered: 1, ..Default::default() }, 2.5),
        (Ledger { received: 200, written: 200, ..Default::default() }, 1.0),
    ] {
        let recordings = tempfile::tempdir().expect("a folder");
        let progress = Record::SegmentProgress(SegmentProgress {
            file: FILE.to_owned(),
            end_s: Seconds::new(6.5),
            ledger,
            ..Default::default()
        });
        let journal = [journal(), progress.to_line()].concat();
        let folder = session_in(recordings.path(), &journal, &sound());
        recover(recordings.path(), &now(), &none()).expect("readable");
        assert_eq!(snapshot(&folder).recoveries[0].lost_at_most_s, Seconds::new(lost_at_most_s));
    }
}

#[test]
fn a_folder_without_a_usable_journal_still_gets_whole_files() {
    let recordings = tempfile::tempdir().expect("a folder");
    let folder = session_in(recordings.path(), b"garbage\n", &sound());
    let report = recover(recordings.path(), &now(), &none()).expect("readable");
    assert!(matches!(report.sessions[0].outcome, SessionOutcome::NoJournal { .. }));
    assert_eq!(report.sessions[0].repaired().count(), 1);
    assert!(!folder.join(SNAPSHOT).exists());
}

#[test]
fn checksums_are_filled_once_the_session_has_ended() {
    let recordings = tempfile::tempdir().expect("a folder");
    let folder = session_in(recordings.path(), &journal(), &sound());
    let pace = Pace::new(Pace::DEFAULT_BYTES_PER_SECOND);
    assert!(matches!(hash_session(&folder, &pace), Err(HashError::NotEnded)));
    recover(recordings.path(), &now(), &none()).expect("readable");
    assert_eq!(hash_session(&folder, &pace).expect("readable"), 1);
    let manifest = snapshot(&folder);
    let sha256 = manifest.segment(FILE).and_then(|segment| segment.sha256.clone()).expect("a checksum");
    assert_eq!(sha256.len(), 64);
    assert_eq!(
        fold(&fs::read(folder.join(JOURNAL)).expect("the journal")).expect("a session").manifest,
        manifest
    );
    assert_eq!(hash_session(&folder, &pace).expect("readable"), 0, "nothing is hashed twice");
}

#[test]
fn a_checksum_job_ends_when_told_and_keeps_its_pace() {
    let recordings = tempfile::tempdir().expect("a folder");
    let folder = session_in(recordings.path(), &journal(), &sound());
    recover(recordings.path(), &now(), &none()).expect("readable");
    let began = Instant::now();
    let size = fs::metadata(folder.join(FILE)).expect("the file").len();
    assert_eq!(hash_session(&folder, &Pace::new(size * 5)).expect("readable"), 1);
    assert!(began.elapsed() >= Duration::from_millis(200), "{:?}", began.elapsed());

    let recordings = tempfile::tempdir().expect("a folder");
    let folder = session_in(recordings.path(), &journal(), &sound());
    recover(recordings.path(), &now(), &none()).expect("readable");
    let pace = Pace::new(1);
    pace.stop();
    assert_eq!(hash_session(&folder, &pace).expect("readable"), 0);
}

#[test]
fn folders_and_files_have_their_modes_and_are_never_taken_over() {
    let recordings = tempfile::tempdir().expect("a folder");
    let mut store = FsSessionStore::new(recordings.path());
    let folder = store.create_folder("room", "session").expect("created");
    store.append_journal(b"{}\n").expect("appended");
    store.sync_journal().expect("synced");
    store.write_snapshot(b"{}").expect("written");
    store.write_snapshot(b"{\"a\":1}").expect("replaced");
    let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!(mode(&folder), 0o750);
    assert_eq!(mode(&folder.join(JOURNAL)), 0o640);
    assert_eq!(mode(&folder.join(SNAPSHOT)), 0o640);
    assert_eq!(fs::read_dir(&folder).expect("readable").count(), 2, "no temporary file is left");
    let again = FsSessionStore::new(recordings.path()).create_folder("room", "session");
    assert_eq!(again.expect_err("taken").kind(), io::ErrorKind::AlreadyExists);
}

#[test]
fn a_room_folder_that_is_a_link_is_refused() {
    let recordings = tempfile::tempdir().expect("a folder");
    let elsewhere = tempfile::tempdir().expect("a folder");
    symlink(elsewhere.path(), recordings.path().join("room")).expect("a link");
    assert!(FsSessionStore::new(recordings.path()).create_folder("room", "session").is_err());
    assert_eq!(fs::read_dir(elsewhere.path()).expect("readable").count(), 0);
}

/// 10 GB of sound in sparse clusters: only the heads of clusters are on the disk.
fn sparse(path: &Path) -> u64 {
    let file = File::create(path).expect("a file");
    let mut bytes = Vec::new();
    let mut writer = MatroskaWriter::new(&header(), &mut bytes);
    writer.write_frame(0, true, &vec![0x78; 10_000_000], &mut bytes).expect("fits");
    writer.flush(&mut bytes);
    file.write_all_at(&bytes, 0).expect("written");
    let mut at = writer.position();
    // Cluster: id, size in four bytes, timestamp in four bytes, one SimpleBlock of 10 MB (RFC 9559 §5.1.3).
    let block = 10_000_004_u32;
    let body = 6 + 1 + 4 + block;
    for cluster in 1..1_000_u32 {
        let mut head = vec![0x1F, 0x43, 0xB6, 0x75];
        head.extend((body | 0x1000_0000).to_be_bytes());
        head.extend([0xE7, 0x84]);
        head.extend((cluster * 1_000).to_be_bytes());
        head.push(0xA3);
        head.extend((block | 0x1000_0000).to_be_bytes());
        head.extend([0x81, 0, 0, 0x80, 0x78]);
        file.write_all_at(&head, at).expect("written");
        at += 8 + u64::from(body);
        // The last byte of a frame says that its pages were written.
        file.write_all_at(&[0x78; 32], at - 32).expect("written");
    }
    file.set_len(at - 500).expect("torn");
    at
}

#[test]
fn ten_gigabytes_are_repaired_within_ten_seconds() {
    let recordings = tempfile::tempdir().expect("a folder");
    let folder = session_in(recordings.path(), &journal(), &[]);
    let size = sparse(&folder.join(FILE));
    assert!(size > 10_000_000_000, "{size}");
    let began = Instant::now();
    let report = recover(recordings.path(), &now(), &none()).expect("readable");
    let took = began.elapsed();
    assert!(!report.is_faulty(), "{report}");
    assert!(took < Duration::from_secs(10), "{took:?}");
    let kept = fs::metadata(folder.join(FILE)).expect("the file").len();
    assert!(kept > 9_900_000_000, "{kept}");
    let outcome = report.sessions[0].files[0].outcome.as_ref().expect("repaired");
    assert!(outcome.duration_s > 990.0, "{outcome:?}");
}

#[test]
fn an_ended_file_is_not_written_to() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut out = Vec::new();
    let mut writer = MatroskaWriter::new(&header(), &mut out);
    writer.write_frame(0, true, &[1; 10], &mut out).expect("fits");
    let finished = writer.finish(&mut out, FinalFacts { duration_s: 0.02 });
    for patch in finished.patches {
        let at = patch.offset as usize;
        out[at..at + patch.bytes.len()].copy_from_slice(&patch.bytes);
    }
    let path = folder.path().join("a.webm");
    fs::write(&path, &out).expect("a file");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o440)).expect("read only");
    let outcome = repair_media_file(&path).expect("whole");
    assert!(!outcome.repaired);
    assert_eq!(fs::read(&path).expect("readable"), out);
}
