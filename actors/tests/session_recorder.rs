//! The session recorder against stores that fail, with paused time.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use recorder_actors::ports::Clock;
use recorder_actors::session::{
    PENDING_BYTES, SessionEnd, SessionHandle, SessionSettings, SessionStart, SessionStore, begin,
};
use recorder_core::ids::{ParticipantId, SessionId, TrackId};
use recorder_core::manifest::{
    CallKind, EndReason, Event, EventKind, Manifest, OpenedBecause, Record, RecorderInfo, Room, Seconds,
    SegmentOpened, SegmentProgress, fold, limits,
};
use recorder_core::media::{Codec, MediaKind, Source};
use recorder_core::time::BootTime;
use tokio::sync::Semaphore;

/// What a disk holds, and what it is to do with the next calls.
#[derive(Default)]
struct Disk {
    folders: Vec<String>,
    journal: Vec<u8>,
    synced: usize,
    snapshots: Vec<Manifest>,
    full: bool,
    sync_fails: bool,
    panics: bool,
    appends: usize,
    syncs: usize,
    folder_results: VecDeque<io::ErrorKind>,
}

#[derive(Clone, Default)]
struct FakeStore(Arc<Mutex<Disk>>);

impl FakeStore {
    fn with<T>(&self, look: impl FnOnce(&mut Disk) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    fn folded(&self) -> Manifest {
        self.with(|disk| {
            let folded = fold(&disk.journal).expect("the journal opens a session");
            assert_eq!(folded.problems, [], "the journal has no faulty line");
            folded.manifest
        })
    }
}

fn full() -> io::Error {
    io::Error::from(io::ErrorKind::StorageFull)
}

impl SessionStore for FakeStore {
    fn create_folder(&mut self, room: &str, session: &str) -> io::Result<PathBuf> {
        self.with(|disk| match disk.folder_results.pop_front() {
            Some(kind) => Err(kind.into()),
            None => {
                disk.folders.push(format!("{room}/{session}"));
                Ok(PathBuf::from(room).join(session))
            }
        })
    }

    fn append_journal(&mut self, lines: &[u8]) -> io::Result<()> {
        self.with(|disk| {
            disk.appends += 1;
            assert!(!disk.panics, "told to panic");
            if disk.full {
                return Err(full());
            }
            disk.journal.extend_from_slice(lines);
            Ok(())
        })
    }

    fn sync_journal(&mut self) -> io::Result<()> {
        self.with(|disk| {
            disk.syncs += 1;
            if disk.sync_fails {
                return Err(io::Error::other("medium error"));
            }
            disk.synced = disk.journal.len();
            Ok(())
        })
    }

    fn write_snapshot(&mut self, json: &[u8]) -> io::Result<()> {
        self.with(|disk| {
            if disk.full {
                return Err(full());
            }
            disk.snapshots.push(serde_json::from_slice(json).map_err(io::Error::other)?);
            Ok(())
        })
    }
}

/// Follows the paused clock of tokio.
struct VirtualClock(tokio::time::Instant);

impl Clock for VirtualClock {
    fn now(&self) -> BootTime {
        BootTime(100_000_000_000) + self.0.elapsed()
    }

    fn utc_micros(&self) -> i64 {
        1_795_359_845_123_456 + self.0.elapsed().as_micros() as i64
    }
}

fn start() -> SessionStart {
    SessionStart {
        session_id: SessionId::from("s1"),
        call_id: "call/../1".to_owned(),
        call_kind: CallKind::OneToOne,
        room: Room { id: "!room:example.org".to_owned(), name: Some("Team".to_owned()), encrypted: true },
        started_by: None,
        continues: None,
        recorder: RecorderInfo { name: "matrix-call-recorder".to_owned(), version: "0.1.0".to_owned() },
        boot_id: "b".to_owned(),
        earliest_media: None,
    }
}

async fn opened(store: &FakeStore) -> SessionHandle {
    let clock = Arc::new(VirtualClock(tokio::time::Instant::now()));
    let session = begin(Box::new(store.clone()), clock, start(), SessionSettings::default());
    session.opened().await.expect("the folder is made");
    session
}

fn participant(number: usize) -> Record {
    Record::ParticipantAdded {
        participant: ParticipantId(format!("p{number}")),
        user_id: Some(format!("@user{number}:example.org")),
        device_id: None,
        party_id: None,
        display_name: Some("Ada Lovelace".to_owned()),
    }
}

fn begin_segment(session: &SessionHandle) -> String {
    session.tell(participant(1));
    let track = TrackId::from("p1-microphone-1");
    session.tell(Record::TrackAdded {
        participant: "p1".into(),
        track: track.clone(),
        source: Source::Microphone.into(),
        kind: MediaKind::Audio.into(),
    });
    let file = session.name_segment(&"p1".into(), Source::Microphone, Codec::Opus);
    session.tell(Record::SegmentOpened(SegmentOpened {
        track,
        file: file.clone(),
        codec: Codec::Opus.into(),
        start_s: session.now_s(),
        opened_because: OpenedBecause::First.into(),
        clock_uncertain_s: None,
        video: None,
        audio: None,
    }));
    file
}

fn progress(file: &str, frames: u64) -> Record {
    Record::SegmentProgress(SegmentProgress {
        file: file.to_owned(),
        end_s: Seconds::new(2.0 + frames as f64 / 50.0),
        frames,
        ..Default::default()
    })
}

fn end() -> SessionEnd {
    SessionEnd::because(EndReason::Hangup)
}

#[tokio::test(start_paused = true)]
async fn what_was_told_is_in_journal_and_snapshot_after_finish() {
    let store = FakeStore::default();
    let session = opened(&store).await;
    let file = begin_segment(&session);
    session.tell(progress(&file, 10));
    let manifest = session.finish(end()).await.expect("the disk works");
    assert_eq!(file, "Ada-Lovelace-p1_microphone_0001.webm");
    assert_eq!(store.folded(), manifest);
    assert_eq!(manifest.segment(&file).map(|segment| segment.frames), Some(10));
    store.with(|disk| {
        assert_eq!(disk.snapshots.last(), Some(&manifest));
        assert_eq!(disk.synced, disk.journal.len());
        assert!(disk.folders[0].starts_with("Team-"), "{}", disk.folders[0]);
        assert!(!disk.folders[0].contains(".."), "{}", disk.folders[0]);
    });
    assert!(manifest.end_reason.is_some_and(|reason| reason.is(EndReason::Hangup)));
}

#[tokio::test(start_paused = true)]
async fn the_first_arrival_lies_at_least_a_second_after_the_epoch() {
    let store = FakeStore::default();
    let clock = Arc::new(VirtualClock(tokio::time::Instant::now()));
    let earliest = clock.now() - Duration::from_millis(700);
    let start = SessionStart { earliest_media: Some(earliest), ..start() };
    let session = begin(Box::new(store), clock, start, SessionSettings::default());
    assert!(session.session_s(earliest) >= Seconds::new(1.0));
}

#[tokio::test(start_paused = true)]
async fn an_opening_is_written_at_once_and_progress_each_second() {
    let store = FakeStore::default();
    let session = opened(&store).await;
    let file = begin_segment(&session);
    session.written().await.expect("the disk works");
    assert!(store.folded().segment(&file).is_some());
    let appends = store.with(|disk| disk.appends);
    for frames in 1..=500 {
        session.tell(progress(&file, frames));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let appended = store.with(|disk| disk.appends) - appends;
    assert!((9..=12).contains(&appended), "ten seconds of progress were {appended} appends");
    let syncs = store.with(|disk| disk.syncs);
    assert!((9..=14).contains(&syncs), "{syncs} syncs");
    let snapshots = store.with(|disk| disk.snapshots.len());
    assert!(snapshots <= 4, "{snapshots} snapshots although only progress was new");
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_loses_nothing_once_it_has_room_again() {
    let store = FakeStore::default();
    let session = opened(&store).await;
    session.written().await.expect("the disk works");
    store.with(|disk| disk.full = true);
    let file = begin_segment(&session);
    let mut status = session.status();
    let failing =
        status.wait_for(|status| status.last_error.is_some()).await.expect("the task lives").clone();
    assert!(failing.last_error.is_some_and(|error| !error.is_empty()));
    for frames in 1..100 {
        session.tell(progress(&file, frames));
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    store.with(|disk| disk.full = false);
    let manifest = session.finish(end()).await.expect("the disk works again");
    assert_eq!(store.folded(), manifest);
    assert_eq!(manifest.segment(&file).map(|segment| segment.frames), Some(99));
    assert_eq!(session.status().borrow().last_error, None);
}

#[tokio::test(start_paused = true)]
async fn retries_back_off_to_five_seconds() {
    let store = FakeStore::default();
    let session = opened(&store).await;
    session.written().await.expect("the disk works");
    store.with(|disk| disk.full = true);
    session.tell(participant(1));
    tokio::time::sleep(Duration::from_secs(600)).await;
    let appends = store.with(|disk| disk.appends);
    assert!((115..=130).contains(&appends), "{appends} tries in ten minutes");
}

#[tokio::test(start_paused = true)]
async fn more_than_memory_may_hold_becomes_one_checkpoint() {
    let store = FakeStore::default();
    let session = opened(&store).await;
    session.written().await.expect("the disk works");
    store.with(|disk| disk.full = true);
    let padding = "x".repeat(4_000);
    let count = 2 * PENDING_BYTES / 4_000;
    for number in 0..count {
        let detail = [("text".to_owned(), padding.as_str().into())].into_iter().collect();
        let at_s = Seconds::new(2.0 + number as f64);
        let kind = EventKind::Command.into();
        session.tell(Record::Event(Event { at_s, kind, participant: None, track: None, detail }));
    }
    session.tell(participant(1));
    tokio::time::sleep(Duration::from_secs(20)).await;
    store.with(|disk| disk.full = false);
    let manifest = session.finish(end()).await.expect("the disk works again");
    assert_eq!(manifest.events.len(), count);
    assert!(session.status().borrow().checkpoints >= 1);
    assert_eq!(store.folded(), manifest);
}

#[tokio::test(start_paused = true)]
async fn after_a_failed_sync_everything_is_said_again() {
    let store = FakeStore::default();
    let session = opened(&store).await;
    session.written().await.expect("the disk works");
    store.with(|disk| disk.sync_fails = true);
    session.tell(participant(1));
    let mut status = session.status();
    status.wait_for(|status| status.errors > 0).await.expect("the task lives");
    // The kernel may have thrown away what it could not write.
    store.with(|disk| {
        let synced = disk.synced;
        disk.journal.truncate(synced);
        disk.sync_fails = false;
    });
    let manifest = session.finish(end()).await.expect("the disk works again");
    assert_eq!(store.folded(), manifest);
    assert_eq!(manifest.participants.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_panics_is_one_that_failed() {
    let store = FakeStore::default();
    let session = opened(&store).await;
    session.written().await.expect("the disk works");
    store.with(|disk| disk.panics = true);
    session.tell(participant(1));
    session.status().wait_for(|status| status.last_error.is_some()).await.expect("the task lives");
    store.with(|disk| disk.panics = false);
    let manifest = session.finish(end()).await.expect("the store works again");
    assert_eq!(store.folded(), manifest);
}

#[tokio::test(start_paused = true)]
async fn an_existing_folder_is_never_taken_over() {
    let store = FakeStore::default();
    store.with(|disk| disk.folder_results = [io::ErrorKind::AlreadyExists; 2].into());
    let session = opened(&store).await;
    let folder = session.folder().expect("it is made");
    assert!(folder.to_string_lossy().ends_with("-2"), "{folder:?}");
}

#[tokio::test(start_paused = true)]
async fn a_folder_that_cannot_be_made_is_an_error() {
    let store = FakeStore::default();
    store.with(|disk| disk.folder_results = [io::ErrorKind::PermissionDenied].into());
    let clock = Arc::new(VirtualClock(tokio::time::Instant::now()));
    let session = begin(Box::new(store), clock, start(), SessionSettings::default());
    let message = session.opened().await.expect_err("the folder is refused").to_string();
    assert!(message.contains("cannot be made") && message.contains("permission denied"), "{message}");
    assert!(session.finish(end()).await.is_err(), "nobody waits for ever");
}

#[tokio::test(start_paused = true)]
async fn what_is_told_before_there_is_a_folder_is_in_the_journal_once_there_is_one() {
    let store = FakeStore::default();
    let clock = Arc::new(VirtualClock(tokio::time::Instant::now()));
    let stalled = SessionSettings { lanes: Arc::new(Semaphore::new(0)), ..SessionSettings::default() };
    let session = begin(Box::new(store.clone()), clock, start(), stalled.clone());
    let file = begin_segment(&session);
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert!(session.folder().is_none() && store.with(|disk| disk.folders.is_empty()));
    stalled.lanes.add_permits(1);
    session.opened().await.expect("the folder is made");
    session.written().await.expect("the disk works");
    assert!(store.folded().segment(&file).is_some());
    assert_eq!(store.folded(), session.manifest());
}

#[tokio::test(start_paused = true)]
async fn facts_that_do_not_fit_are_counted_and_change_nothing() {
    let store = FakeStore::default();
    let session = opened(&store).await;
    let before = session.manifest();
    session.tell(progress("../../etc/passwd", 1));
    session.tell(Record::PresenceBegan { participant: "p9".into(), at_s: Seconds::ZERO });
    assert_eq!(session.rejected(), 2);
    assert_eq!(session.manifest(), before);
    session.finish(end()).await.expect("the disk works");
    session.tell(participant(1));
    assert_eq!(session.rejected(), 3);
}

#[tokio::test(start_paused = true)]
async fn participants_beyond_what_a_session_takes_are_refused_and_no_id_is_given_twice() {
    let store = FakeStore::default();
    let session = opened(&store).await;
    session.tell(participant(2));
    let add = |n: usize| session.add_participant(Some(format!("@{n}:hs")), None, None, None);
    let ids: Vec<_> = (0..limits::PARTICIPANTS + 5).filter_map(add).collect();
    assert_eq!(ids.len(), limits::PARTICIPANTS - 1);
    let manifest = session.manifest();
    let given: std::collections::BTreeSet<_> = manifest.participants.iter().map(|known| &known.id).collect();
    assert_eq!((given.len(), session.rejected()), (limits::PARTICIPANTS, 6));
    assert_eq!(session.participant("@7:hs", None).map(|known| known.participant), Some(ids[7].clone()));
    assert!(session.participant("@7:hs", Some("D")).is_none());
}

#[tokio::test(start_paused = true)]
async fn an_abandoned_recorder_writes_what_it_was_told_and_ends() {
    let store = FakeStore::default();
    let session = opened(&store).await;
    begin_segment(&session);
    let told = session.manifest();
    let mut status = session.status();
    drop(session);
    while status.changed().await.is_ok() {}
    assert_eq!(store.folded(), told);
    assert!(!status.borrow().finished, "nobody said that the session ended");
    store.with(|disk| assert_eq!(disk.synced, disk.journal.len()));
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_events_is_one_with_a_count() {
    let store = FakeStore::default();
    let session = opened(&store).await;
    for _ in 0..10_000 {
        let at_s = session.now_s();
        let kind = EventKind::Muted.into();
        session.tell(Record::Event(Event {
            at_s,
            kind,
            participant: None,
            track: None,
            detail: Default::default(),
        }));
    }
    let manifest = session.finish(end()).await.expect("the disk works");
    assert_eq!(manifest.events.len(), 1);
    assert_eq!(manifest.events[0].detail["count"], 10_000);
    assert_eq!(store.folded(), manifest);
}

#[tokio::test(start_paused = true)]
async fn two_screens_of_one_participant_never_share_a_file_name() {
    let session = opened(&FakeStore::default()).await;
    let names: Vec<_> =
        (0..3).map(|_| session.name_segment(&"p1".into(), Source::Screen, Codec::Vp8)).collect();
    assert_eq!(names[0], "participant-p1_screen_0001.webm");
    assert_eq!(names[2], "participant-p1_screen_0003.webm");
}
