use std::collections::HashSet;
use std::fs;

use recorder_actors::ports::RoomFacts;
use recorder_actors::session::SessionEnd;
use recorder_core::ids::ParticipantId;
use recorder_core::manifest::{
    CallKind, EndReason, Manifest, OpenedBecause, Record, Segment, SegmentOpened, SessionState, Utc, fold,
};
use recorder_core::media::{Codec, MediaKind, Source};
use recorder_core::mux::{MatroskaWriter, TrackHeader, VideoFormat};

use super::super::clock::SystemClock;
use super::super::recovery::{Now, recover};
use super::*;

const ROOM: &str = "!room:example.org";

fn order(resume: Option<SessionId>) -> SessionOrder {
    SessionOrder {
        room_id: ROOM.into(),
        room: RoomFacts::default(),
        call_id: "c1".into(),
        call_kind: CallKind::Mesh,
        resume,
        started_by: Some("@ada:example.org".into()),
        first_media: None,
    }
}

fn sessions(recordings: &Path, left: LeftOver) -> Sessions {
    Sessions::new(recordings, Arc::new(SystemClock), left)
}

/// As the next process would begin: with what the recovery left.
fn restarted(recordings: &Path, keep: &SessionId) -> Sessions {
    let clock = SystemClock;
    let now = Now { boot_id: boot_id(), boot_time: clock.now(), utc: Utc::from_micros(clock.utc_micros()) };
    let report = recover(recordings, &now, &HashSet::from([keep.clone()])).unwrap();
    sessions(recordings, report.left_over())
}

fn folder_of(session: &SessionHandle) -> Arc<Path> {
    Arc::clone(session.folder().expect("its folder is made"))
}

fn tell_camera(session: &SessionHandle) -> String {
    let participant = ParticipantId::from("p1");
    session.tell(Record::ParticipantAdded {
        participant: participant.clone(),
        user_id: Some("@ada:example.org".into()),
        device_id: Some("LAPTOP".into()),
        party_id: None,
        display_name: Some("Ada".into()),
    });
    session.tell(Record::PresenceBegan { participant: participant.clone(), at_s: session.now_s() });
    let track = session.name_track(&participant, Source::Camera);
    session.tell(Record::TrackAdded {
        participant: participant.clone(),
        track: track.clone(),
        source: Source::Camera.into(),
        kind: MediaKind::Video.into(),
    });
    let file = session.name_segment(&participant, Source::Camera, Codec::Vp8);
    session.tell(Record::SegmentOpened(SegmentOpened {
        track,
        file: file.clone(),
        codec: Codec::Vp8.into(),
        start_s: session.now_s(),
        opened_because: OpenedBecause::First.into(),
        clock_uncertain_s: None,
        video: None,
        audio: None,
    }));
    file
}

#[tokio::test]
async fn a_session_that_could_not_be_opened_leaves_the_interrupted_one_to_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let in_the_way = folder.path().join("file");
    std::fs::write(&in_the_way, "no folder").unwrap();
    let cut_off = HashMap::from([(ROOM.to_owned(), SessionId::new("before"))]);
    let sessions = sessions(&in_the_way, LeftOver { cut_off: cut_off.clone(), ..LeftOver::default() });
    assert!(sessions.open(order(None)).await.unwrap().opened().await.is_err());
    while lock(&sessions.left).cut_off != cut_off {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_session_goes_on_after_a_restart_with_the_next_numbers_on_the_same_clock() {
    let recordings = tempfile::tempdir().unwrap();
    let before = sessions(recordings.path(), LeftOver::default()).open(order(None)).await.unwrap();
    let first = tell_camera(&before);
    before.written().await.unwrap();
    let (id, folder, clock) = (before.session_id().clone(), folder_of(&before), *before.clock());
    drop(before);
    // A file that the journal never heard of.
    fs::write(folder.join("Ada-p1_camera_0002.mkv"), "torn").unwrap();

    let sessions = restarted(recordings.path(), &id);
    let session = sessions.open(order(Some(id.clone()))).await.unwrap();
    assert_eq!((session.session_id(), &folder_of(&session)), (&id, &folder));
    assert_eq!(*session.clock(), clock, "to the nanosecond");
    let known = session.participants();
    assert_eq!((known.len(), known[0].present), (1, true));
    assert_eq!(
        (known[0].user_id.as_deref(), known[0].device_id.as_deref()),
        (Some("@ada:example.org"), Some("LAPTOP"))
    );
    assert_eq!(known[0].tracks[0].names.track.as_str(), "p1-camera-1");
    let ada = ParticipantId::from("p1");
    session.tell(Record::ParticipantRenamed {
        participant: ada.clone(),
        user_id: None,
        device_id: None,
        party_id: None,
        display_name: Some("Countess".into()),
    });
    let next = session.name_segment(&ada, Source::Camera, Codec::Vp8);
    assert_eq!((first.as_str(), next.as_str()), ("Ada-p1_camera_0001.webm", "Ada-p1_camera_0003.webm"));
    assert_eq!(session.name_track(&ada, Source::Camera).as_str(), "p1-camera-2");
    session.end_stays_of_the_gone(std::slice::from_ref(&ada));
    assert!(session.participants()[0].present);
    session.end_stays_of_the_gone(&[]);
    assert!(!session.participants()[0].present);
    let end =
        SessionEnd { stopped_by: Some("@ada:example.org".into()), ..SessionEnd::because(EndReason::Stopped) };
    let manifest = session.finish(end).await.unwrap();
    assert!(manifest.state.is(SessionState::Complete));
    assert_eq!((manifest.recoveries.len(), manifest.continues.clone()), (1, None));
    let folded = fold(&fs::read(folder.join("journal.jsonl")).unwrap()).unwrap();
    assert_eq!((folded.problems, folded.manifest), (Vec::new(), manifest));
}

#[tokio::test]
async fn a_suspended_session_is_whole_on_the_disk_and_goes_on() {
    let recordings = tempfile::tempdir().unwrap();
    let before = sessions(recordings.path(), LeftOver::default()).open(order(None)).await.unwrap();
    before.suspend().await.unwrap();
    let id = before.session_id().clone();
    let sessions = restarted(recordings.path(), &id);
    let session = sessions.open(order(Some(id))).await.unwrap();
    assert_eq!(session.manifest().recoveries[0].repaired, Vec::<String>::new());
    assert!(session.manifest().state.is(SessionState::Recording));
}

#[tokio::test]
async fn a_session_that_cannot_go_on_is_continued_by_a_new_one() {
    let recordings = tempfile::tempdir().unwrap();
    let before = sessions(recordings.path(), LeftOver::default()).open(order(None)).await.unwrap();
    before.suspend().await.unwrap();
    let id = before.session_id().clone();
    let sessions = restarted(recordings.path(), &id);
    fs::remove_dir_all(folder_of(&before)).unwrap();
    let session = sessions.open(order(Some(id.clone()))).await.unwrap();
    assert_ne!(*session.session_id(), id);
    assert_eq!(session.manifest().continues, Some(id));
}

#[tokio::test]
async fn a_session_kept_open_in_vain_ends_and_the_next_of_its_room_continues_it() {
    let recordings = tempfile::tempdir().unwrap();
    let before = sessions(recordings.path(), LeftOver::default()).open(order(None)).await.unwrap();
    before.suspend().await.unwrap();
    let id = before.session_id().clone();
    let sessions = restarted(recordings.path(), &id);
    sessions.abandon_kept();
    let left = Arc::clone(&sessions.left);
    while lock(&left).cut_off.is_empty() {
        tokio::task::yield_now().await;
    }
    let snapshot: serde_json::Value =
        serde_json::from_slice(&fs::read(folder_of(&before).join("session.json")).unwrap()).unwrap();
    assert_eq!((&snapshot["state"], &snapshot["end_reason"]), (&"complete".into(), &"restarted".into()));
    // It is no longer kept, so nobody can go on with it.
    let session = sessions.open(order(None)).await.unwrap();
    assert_eq!(session.manifest().continues, Some(id));
}

/// A file of one picture, without an end.
fn picture() -> Vec<u8> {
    let header = TrackHeader {
        codec: Codec::Vp8,
        writing_app: "test".to_owned(),
        title: "Ada".to_owned(),
        session_id: "s1".to_owned(),
        participant: "p1".to_owned(),
        source: "camera".to_owned(),
        provisional_start_s: 1.0,
        epoch_utc_micros: None,
        track_uid: 1,
        audio: None,
        video: Some(VideoFormat { width: 320, height: 180 }),
        codec_private: None,
    };
    let mut out = Vec::new();
    let mut writer = MatroskaWriter::new(&header, &mut out);
    writer.write_frame(0, true, &[0; 80], &mut out).unwrap();
    writer.flush(&mut out);
    out
}

#[tokio::test]
async fn sessions_that_earlier_processes_left_without_checksums_get_them() {
    let recordings = tempfile::tempdir().unwrap();
    let mut folders = Vec::new();
    for end in [Some(EndReason::Shutdown), None] {
        let before = sessions(recordings.path(), LeftOver::default()).open(order(None)).await.unwrap();
        let file = tell_camera(&before);
        before.written().await.unwrap();
        let folder = folder_of(&before);
        fs::write(folder.join(&file), picture()).unwrap();
        if let Some(reason) = end {
            let segment = before.manifest().segment(&file).unwrap().clone();
            let segment = Box::new(Segment { is_final: true, ..segment });
            before.tell(Record::SegmentClosed { file: file.clone(), segment });
            before.finish(SessionEnd::because(reason)).await.unwrap();
        }
        folders.push((folder, file));
    }
    // The second one was cut off: the next process repairs it first.
    let _next = restarted(recordings.path(), &SessionId::new("another"));
    for (folder, file) in folders {
        let manifest = || -> Manifest {
            serde_json::from_slice(&fs::read(folder.join("session.json")).unwrap()).unwrap()
        };
        let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
        while manifest().segment(&file).unwrap().sha256.is_none() {
            assert!(tokio::time::Instant::now() < deadline, "no checksum of {}", folder.display());
            tokio::task::yield_now().await;
        }
    }
}
