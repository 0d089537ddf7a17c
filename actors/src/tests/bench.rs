//! Peers without a call: the test plays the CallActor's part.

use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex};

use recorder_core::call::{Purpose, StreamMetadata, StreamNote};
use recorder_core::ids::{ConnectionId, ParticipantId};
use recorder_core::manifest::{CallKind, Manifest, OpenedBecause, Record};
use recorder_core::media::Codec;
use recorder_core::restart::RestartTerms;
use recorder_core::timeline::SenderClock;
use tokio::sync::watch;

use super::rooms::FakeRooms;
use super::support::*;
use crate::observe::{ActorKind, Board};
use crate::peer::{Inherited, PeerActor, PeerShared, Wanted};
use crate::ports::*;
use crate::session::SessionHandle;
use crate::supervise::{Link, Slot};
use crate::testing::faulty_world;
use crate::world::{GroupSettings, Numbers, TreeSettings, World};

pub struct Bench {
    pub world: Arc<World>,
    pub media: Arc<FakeMedia>,
    pub segments: Arc<FakeSegments>,
    pub session: SessionHandle,
    pub disk: watch::Sender<DiskLevel>,
}

/// A participant's connection and the actor that records it.
pub struct Leg {
    pub shared: Arc<PeerShared>,
    pub slot: Arc<Slot<PeerActor>>,
    facts: watch::Sender<Arc<ConnectionFacts>>,
}

impl Bench {
    pub async fn start() -> Self {
        let clock: Arc<dyn Clock> = Arc::new(TestClock(tokio::time::Instant::now()));
        let media = Arc::new(FakeMedia::default());
        let segments = Arc::new(FakeSegments::default());
        let sessions = FakeSessions { clock: Some(Arc::clone(&clock)), ..FakeSessions::default() };
        let (disk, level) = watch::channel(DiskLevel::Plenty);
        let order = SessionOrder {
            room_id: ROOM.into(),
            room: RoomFacts::default(),
            call_id: "c1".into(),
            call_kind: CallKind::Mesh,
            resume: None,
            started_by: Some(CALLER.into()),
            first_media: None,
        };
        let session = sessions.open(order).await.unwrap();
        let world = Arc::new(faulty_world(World {
            settings: TreeSettings {
                user: "@bot:hs".into(),
                device: "BOT".into(),
                restart: RestartTerms::default(),
                group: GroupSettings::default(),
            },
            listening: clock.now(),
            clock,
            media: Arc::clone(&media) as _,
            segments: Arc::clone(&segments) as _,
            signalling: Arc::new(Arc::new(FakeSignalling::default())),
            rooms: Arc::new(Arc::new(FakeRooms::default())),
            memory: Arc::new(Arc::new(FakeRooms::default())),
            sessions: Arc::new(sessions),
            live_calls: Arc::new(Arc::new(FakeLiveCalls::default())),
            disk: level,
            board: Board::new(),
            numbers: Numbers::default(),
        }));
        Self { world, media, segments, session, disk }
    }

    /// Somebody new in the call.
    pub fn join(&self, id: &str) -> ParticipantId {
        let participant = ParticipantId::new(id);
        self.session.tell(Record::ParticipantAdded {
            participant: participant.clone(),
            user_id: Some(format!("@{id}:hs")),
            device_id: Some("LAPTOP".into()),
            party_id: None,
            display_name: Some(id.into()),
        });
        self.session
            .tell(Record::PresenceBegan { participant: participant.clone(), at_s: self.session.now_s() });
        participant
    }

    /// As [`Self::join`], of whom nothing may be known.
    pub fn join_unnamed(&self, id: &str) -> ParticipantId {
        let participant = ParticipantId::new(id);
        self.session.tell(Record::ParticipantAdded {
            participant: participant.clone(),
            user_id: None,
            device_id: None,
            party_id: None,
            display_name: None,
        });
        self.session
            .tell(Record::PresenceBegan { participant: participant.clone(), at_s: self.session.now_s() });
        participant
    }

    /// What is known of somebody who opted in.
    pub fn name(&self, id: &str) {
        self.session.tell(Record::ParticipantRenamed {
            participant: ParticipantId::new(id),
            user_id: Some(format!("@{id}:hs")),
            device_id: Some("LAPTOP".into()),
            party_id: None,
            display_name: Some(id.into()),
        });
    }

    /// A connection of a participant with microphone (mid 0) and camera (mid 1).
    pub fn connect(
        &self,
        participant: &ParticipantId,
        inherited: Vec<Inherited>,
        because: OpenedBecause,
        wanted: Wanted,
    ) -> Leg {
        let (facts, connection) = watch::channel(Arc::new(ConnectionFacts {
            id: ConnectionId(1),
            state: ConnectionState::Connected,
            reason: None,
            media: vec![
                self.media.media("0", "user", Codec::Opus),
                self.media.media("1", "user", Codec::Vp8),
            ],
            round_trip: None,
            ice_restarts: 0,
            first_packet: None,
            held_drops: 0,
        }));
        let parent = Arc::<Link>::default();
        let path = format!("call/{participant}/{}", self.world.numbers.connection());
        let slot = Slot::new(&self.world, &parent, path, ActorKind::Peer, participant.to_string());
        let shared = Arc::new(PeerShared {
            world: Arc::clone(&self.world),
            participant: participant.clone(),
            display_name: participant.to_string(),
            session: self.session.clone(),
            connection,
            wanted: Mutex::new(wanted),
            link: Arc::default(),
            parent,
            plan: Mutex::default(),
            tracks: Mutex::default(),
            sender_clock: Arc::new(Mutex::new(SenderClock::new())),
            counters: Mutex::default(),
            ice_restarts: AtomicU32::new(0),
            inherited: Mutex::new(inherited),
            inherited_because: because,
        });
        let (inner, inner_slot) = (Arc::clone(&shared), Arc::clone(&slot));
        slot.start(move |_| PeerActor::new(inner, inner_slot));
        Leg { shared, slot, facts }
    }

    /// Which track each segment was for, and why it was begun.
    pub fn begun(&self) -> Vec<(String, String)> {
        let all = self.segments.all.lock().unwrap();
        all.iter().map(|segment| (segment.track.clone(), segment.because.clone())).collect()
    }

    pub fn manifest(&self) -> Manifest {
        self.session.manifest()
    }

    /// The `state` of each event of a kind.
    pub fn events(&self, kind: &str) -> Vec<String> {
        let manifest = self.manifest();
        let events = manifest.events.iter().filter(|event| event.kind.to_string() == kind);
        events.map(|event| event.detail["state"].as_str().unwrap().to_owned()).collect()
    }

    /// The states of a track, and whether each has ended.
    pub fn states(&self, track: &str) -> Vec<(String, bool)> {
        let manifest = self.manifest();
        let track = manifest.tracks().find(|known| known.id.as_str() == track).unwrap();
        track.states.iter().map(|state| (state.state.to_string(), state.to_s.is_some())).collect()
    }
}

impl Leg {
    pub fn change(&self, change: impl FnOnce(&mut ConnectionFacts)) {
        let mut facts = ConnectionFacts::clone(&self.facts.borrow());
        change(&mut facts);
        self.facts.send_replace(Arc::new(facts));
    }

    pub fn want(&self, change: impl FnOnce(&mut Wanted)) {
        change(&mut self.shared.wanted.lock().unwrap());
        self.slot.nudge();
    }

    /// The participant left: everything is closed.
    pub async fn end(&self) {
        self.want(|wanted| wanted.stop = true);
        self.change(|facts| {
            facts.state = ConnectionState::Closed;
            facts.media.iter().flat_map(|media| &media.streams).for_each(|ring| ring.end());
        });
        until("every file to be closed", || self.shared.is_idle()).await;
    }
}

/// Stream metadata that says of microphone and camera whether they are muted.
pub fn muted(audio: bool, video: bool) -> StreamMetadata {
    let note = StreamNote {
        purpose: Purpose::UserMedia,
        audio_muted: audio,
        video_muted: video,
        audio_changes: 0,
        video_changes: 0,
    };
    StreamMetadata::from([("user".to_owned(), note)])
}
