//! The recording path from ring to disk, with everything around it made of values.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use recorder_actors::lane::{LanePool, LaneSettings};
use recorder_actors::observe::Board;
use recorder_actors::ports::{
    Answer, Clock, Connected, MediaError, MediaPlane, RemoteCandidate, Tile, TurnServer,
};
use recorder_actors::pump::PumpPool;
use recorder_actors::ring::{StreamInfo, TrackRing};
use recorder_actors::segment::{
    SegmentFacts, SegmentHandle, SegmentOrder, SegmentPhase, SegmentPlane, TrackNames,
};
use recorder_actors::session::{SessionHandle, SessionSettings, SessionStart, SessionStore, begin};
use recorder_actors::storage::Storage;
use recorder_core::ids::{ConnectionId, Mid, SegmentId, SessionId, StreamId, TrackId};
use recorder_core::manifest::{CallKind, OpenedBecause, Record, RecorderInfo, Room, Segment};
use recorder_core::media::{Codec, MediaKind, Source};
use recorder_core::mux::scan;
use recorder_core::time::BootTime;
use recorder_core::timeline::SenderClock;

use super::disk::Disk;
use super::mux_support::demux;

/// Beyond this a test has failed.
const PATIENCE: Duration = Duration::from_secs(30);

/// A clock that stands still until it is told to go on.
pub struct TestClock(AtomicU64);

impl TestClock {
    pub fn advance(&self, by: Duration) {
        self.0.fetch_add(by.as_nanos() as u64, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now(&self) -> BootTime {
        BootTime(self.0.load(Ordering::SeqCst))
    }

    fn utc_micros(&self) -> i64 {
        1_795_359_845_000_000 + (self.0.load(Ordering::SeqCst) / 1000) as i64
    }
}

#[derive(Default)]
pub struct Media {
    pub key_frames_asked: AtomicU64,
    /// So many requests panic.
    pub panics: AtomicU64,
}

impl MediaPlane for Media {
    fn accept(
        &self,
        _: ConnectionId,
        _: String,
        _: Vec<TurnServer>,
        _: Option<Tile>,
    ) -> BoxFuture<'static, Result<Connected, MediaError>> {
        Box::pin(async { Err(MediaError::Stopped) })
    }

    fn dial(
        &self,
        _: ConnectionId,
        _: Vec<TurnServer>,
        _: Tile,
        _: bool,
    ) -> BoxFuture<'static, Result<Connected, MediaError>> {
        Box::pin(async { Err(MediaError::Stopped) })
    }

    fn answered(&self, _: ConnectionId, _: String) -> BoxFuture<'static, Result<(), MediaError>> {
        Box::pin(async { Err(MediaError::Stopped) })
    }

    fn renegotiate(&self, _: ConnectionId, _: String) -> BoxFuture<'static, Result<Answer, MediaError>> {
        Box::pin(async { Err(MediaError::Stopped) })
    }

    fn add_candidates(&self, _: ConnectionId, _: Vec<RemoteCandidate>) {}

    fn request_key_frame(&self, _: ConnectionId, _: Mid, _: StreamId) {
        self.key_frames_asked.fetch_add(1, Ordering::SeqCst);
        let told = self.panics.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        assert!(told.is_err(), "told to panic");
    }

    fn close(&self, _: ConnectionId) {}

    fn heartbeat(&self) -> BootTime {
        BootTime(0)
    }
}

/// A journal in memory; it can be told to refuse, and its folder to wait or to be refused.
#[derive(Clone, Default)]
pub struct Journal(Arc<Mutex<(Vec<u8>, bool)>>, Arc<(Mutex<Folder>, Condvar)>);

/// What becomes of the session's folder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Folder {
    #[default]
    Made,
    Waits,
    Refused,
}

impl Journal {
    pub fn folder(&self, folder: Folder) {
        *self.1.0.lock().unwrap_or_else(PoisonError::into_inner) = folder;
        self.1.1.notify_all();
    }

    pub fn has(&self, text: &str) -> bool {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&state.0).contains(text)
    }

    pub fn refuse(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).1 = true;
    }
}

impl SessionStore for Journal {
    fn create_folder(&mut self, room: &str, session: &str) -> io::Result<PathBuf> {
        let folder = self.1.0.lock().unwrap_or_else(PoisonError::into_inner);
        let wait = |folder: &mut Folder| *folder == Folder::Waits;
        match *self.1.1.wait_while(folder, wait).unwrap_or_else(PoisonError::into_inner) {
            Folder::Refused => Err(io::ErrorKind::ReadOnlyFilesystem.into()),
            Folder::Made | Folder::Waits => Ok(PathBuf::from(room).join(session)),
        }
    }

    fn append_journal(&mut self, lines: &[u8]) -> io::Result<()> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.1 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        state.0.extend_from_slice(lines);
        Ok(())
    }

    fn sync_journal(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn write_snapshot(&mut self, _: &[u8]) -> io::Result<()> {
        Ok(())
    }
}

pub struct Rig {
    pub clock: Arc<TestClock>,
    pub media: Arc<Media>,
    pub board: Arc<Board>,
    pub disk: Disk,
    pub journal: Journal,
    pub lanes: Arc<LanePool>,
    pub pumps: Arc<PumpPool>,
    pub session: SessionHandle,
    runtime: tokio::runtime::Runtime,
    next_id: AtomicU64,
}

/// One lane that syncs often.
pub fn settings() -> LaneSettings {
    LaneSettings { lanes: 1, sync_every: Duration::from_millis(20), ..LaneSettings::default() }
}

impl Rig {
    pub fn new() -> Self {
        Self::with(settings())
    }

    pub fn with(settings: LaneSettings) -> Self {
        Self::in_folder(settings, Folder::Made)
    }

    /// Whose session has a folder, will have one, or none.
    pub fn in_folder(settings: LaneSettings, folder: Folder) -> Self {
        Self::build(settings, "c1", folder, |disk| disk)
    }

    /// On a disk that asks at its points for faults. `call_id` is part of its files' paths.
    #[cfg(feature = "fault-injection")]
    pub fn on_a_faulty_disk(call_id: &str) -> Self {
        Self::build(settings(), call_id, Folder::Made, recorder_actors::testing::faulty)
    }

    fn build(
        settings: LaneSettings,
        call_id: &str,
        folder: Folder,
        edit: impl FnOnce(Arc<dyn Storage>) -> Arc<dyn Storage>,
    ) -> Self {
        let clock = Arc::new(TestClock(AtomicU64::new(100_000_000_000)));
        let (media, board, disk, journal) =
            (Arc::new(Media::default()), Board::new(), Disk::default(), Journal::default());
        journal.folder(folder);
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build().unwrap();
        let start = SessionStart {
            session_id: SessionId::from("s1"),
            call_id: call_id.to_owned(),
            call_kind: CallKind::OneToOne,
            room: Room { id: "!room:example.org".to_owned(), name: None, encrypted: true },
            started_by: None,
            continues: None,
            recorder: RecorderInfo { name: "test".to_owned(), version: "0".to_owned() },
            boot_id: "b".to_owned(),
            earliest_media: None,
        };
        let ticking: Arc<dyn Clock> = clock.clone();
        let store = Box::new(journal.clone());
        let session = {
            let _in_runtime = runtime.enter();
            begin(store, ticking.clone(), start, SessionSettings::default())
        };
        if folder == Folder::Made {
            runtime.block_on(session.opened()).unwrap();
        }
        session.tell(Record::ParticipantAdded {
            participant: "p1".into(),
            user_id: Some("@ada:example.org".to_owned()),
            device_id: None,
            party_id: None,
            display_name: Some("Ada".to_owned()),
        });
        let storage = edit(Arc::new(disk.clone()));
        let lanes = LanePool::start(storage, ticking.clone(), board.clone(), settings).unwrap();
        let pumps =
            PumpPool::start(ticking, media.clone(), lanes.clone(), board.clone(), "test".into()).unwrap();
        Self {
            clock,
            media,
            board,
            disk,
            journal,
            lanes,
            pumps,
            session,
            runtime,
            next_id: AtomicU64::new(1),
        }
    }

    /// A ring of its own and an order for it. `track` is unique in the process, so that faults do not meet.
    pub fn ring(&self, codec: Codec, capacity: Option<usize>) -> Arc<TrackRing> {
        let info = StreamInfo {
            id: StreamId(1),
            connection: ConnectionId(1),
            mid: Mid::from("0"),
            ssrc: 77,
            kind: codec.kind(),
            codec,
            clock_rate: codec.clock_rate(),
            channels: 2,
        };
        match capacity {
            Some(capacity) => TrackRing::with_capacity(info, capacity),
            None => TrackRing::new(info),
        }
    }

    pub fn names(&self, track: &str, kind: MediaKind) -> Arc<TrackNames> {
        let source = match kind {
            MediaKind::Audio => Source::Microphone,
            MediaKind::Video => Source::Camera,
        };
        self.session.tell(Record::TrackAdded {
            participant: "p1".into(),
            track: TrackId::from(track),
            source: source.into(),
            kind: kind.into(),
        });
        let title = format!("Ada – {}", source.name());
        Arc::new(TrackNames { track: TrackId::from(track), participant: "p1".into(), source, title })
    }

    pub fn start(
        &self,
        ring: &Arc<TrackRing>,
        names: &Arc<TrackNames>,
        because: OpenedBecause,
    ) -> SegmentHandle {
        self.pumps.start(SegmentOrder {
            writer: names.track.to_string(),
            id: SegmentId(self.next_id.fetch_add(1, Ordering::SeqCst)),
            ring: Arc::clone(ring),
            names: Arc::clone(names),
            opened_because: because,
            connection: ConnectionId(1),
            mid: Mid::from("0"),
            sender_clock: Arc::new(Mutex::new(SenderClock::new())),
            session: self.session.clone(),
        })
    }

    pub fn advance_ms(&self, ms: u64) {
        self.clock.advance(Duration::from_millis(ms));
    }

    /// Waits for a segment to say so.
    pub fn wait(&self, segment: &SegmentHandle, until: impl Fn(&SegmentFacts) -> bool) -> Arc<SegmentFacts> {
        let mut facts = segment.facts.clone();
        let result = self.runtime.block_on(async {
            tokio::time::timeout(PATIENCE, facts.wait_for(|facts| until(facts)))
                .await
                .map(|facts| facts.is_ok())
        });
        assert_eq!(result, Ok(true), "in vain: {:?}", segment.now());
        segment.now()
    }

    pub fn wait_over(&self, segment: &SegmentHandle) -> Arc<SegmentFacts> {
        self.wait(segment, |facts| facts.phase.is_over())
    }

    pub fn wait_closed(&self, segment: &SegmentHandle) -> Arc<SegmentFacts> {
        let facts = self.wait_over(segment);
        assert_eq!(facts.phase, SegmentPhase::Closed);
        facts
    }

    /// The name of a segment's file, when the disk has a part of it.
    pub fn name_on_disk(&self, segment: &SegmentHandle) -> String {
        let name = self.wait(segment, |facts| facts.file.is_some()).file.clone().unwrap();
        until("the disk has a part", || self.disk.length(&name) > 0);
        name
    }

    pub fn ask_to_finish(&self, segment: &SegmentHandle) {
        segment.control.finish(self.clock.now());
    }

    /// Asks to finish and waits.
    pub fn finish(&self, segment: &SegmentHandle) -> Arc<SegmentFacts> {
        self.ask_to_finish(segment);
        self.wait_closed(segment)
    }

    pub fn segments(&self) -> Vec<Segment> {
        self.session.manifest().segments().cloned().collect()
    }

    /// A file's frames, as a reader that is not ours finds them; and it is one that needs no repair.
    pub fn frames(&self, name: &str) -> VecDeque<(u64, bool, Vec<u8>)> {
        let file = self.disk.file(name);
        let plan = scan(&mut file.as_slice(), file.len() as u64).unwrap();
        assert!(plan.already_final, "{name} needs a repair");
        demux(&file).1.into()
    }

    pub fn data(&self, name: &str) -> Vec<Vec<u8>> {
        self.frames(name).into_iter().map(|frame| frame.2).collect()
    }

    pub fn keys_asked(&self) -> u64 {
        self.media.key_frames_asked.load(Ordering::SeqCst)
    }

    pub fn panics(&self) -> u64 {
        self.board.totals.panics_caught.load(Ordering::SeqCst)
    }
}

/// Waits for what no channel tells.
pub fn until(what: &str, condition: impl Fn() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < PATIENCE, "in vain: {what}");
        std::thread::park_timeout(Duration::from_millis(1));
    }
}

/// The pump has taken all that the ring held.
pub fn until_taken(ring: &TrackRing) {
    until("the ring is read", || ring.is_empty());
}
