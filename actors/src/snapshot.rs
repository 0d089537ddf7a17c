//! From slots and manifests to what the board shows and the room is told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use recorder_core::call::Saved;
use recorder_core::ids::{ParticipantId, TrackId};
use recorder_core::manifest::{self, CallKind, Ledger, Manifest, Seconds, Track, Utc};
use recorder_core::media::Codec;
use recorder_core::time::BootTime;

use crate::call::{CallShared, Participant};
use crate::observe::{CallSnapshot, ParticipantSnapshot, STAYS, StaySnapshot, TrackSnapshot};
use crate::peer::TrackPlace;
use crate::ports::RoomFacts;
use crate::segment::{SegmentFacts, SegmentHandle};
use crate::supervise::lock;

/// A stream is silent that has brought no frame for so long.
const SILENT: Duration = Duration::from_secs(2);

impl CallShared {
    /// The call for the page.
    pub(crate) fn snapshot(&self, state: &str, room: &RoomFacts) -> CallSnapshot {
        let session = lock(&self.session).clone();
        let opted_out = lock(&self.opted_out).clone();
        let folder = session.as_ref().and_then(|session| Some(session.folder()?.display().to_string()));
        // Who calls us is told at once.
        let told = Arc::clone(&lock(&self.told));
        let is_told = |user: &str| self.kind == CallKind::OneToOne || told.contains(user);
        let live: BTreeMap<ParticipantId, Live> = self
            .each_person(|key, person| {
                Some((person.place.as_ref()?.id.clone(), live(person, is_told(&key.user))))
            })
            .into_iter()
            .collect();
        let participants = session.as_ref().map(|session| {
            let epoch = session.clock().epoch();
            session.look(|manifest| {
                let snapshot = |known: &manifest::Participant| {
                    let told = known.user_id.as_deref().is_some_and(is_told);
                    participant(known, epoch, live.get(&known.id), told, &opted_out)
                };
                manifest.participants.iter().map(snapshot).collect()
            })
        });
        CallSnapshot {
            key: self.key,
            session_id: session.map(|session| session.session_id().to_string()).unwrap_or_default(),
            call_kind: kind_name(self.kind).to_owned(),
            room_id: self.room.clone(),
            room_name: room.name.clone(),
            encrypted: room.encrypted,
            state: state.to_owned(),
            started_utc_micros: self.started_utc_micros,
            started_by: self.starter(),
            folder: folder.unwrap_or_default(),
            participants: participants.unwrap_or_default(),
        }
    }
}

/// As the manifest spells it.
pub(crate) const fn kind_name(kind: CallKind) -> &'static str {
    match kind {
        CallKind::OneToOne => "one_to_one",
        CallKind::Mesh => "mesh",
        CallKind::ElementCall => "element_call",
    }
}

/// What the manifest does not know of a participant.
struct Live {
    stalled: bool,
    told: bool,
    tracks: BTreeMap<TrackId, LiveTrack>,
}

struct LiveTrack {
    muted: bool,
    /// Media is arriving.
    live: bool,
    codec: Option<Codec>,
    facts: Option<Arc<SegmentFacts>>,
    /// What became of packets of which no file has been opened yet.
    unfiled: Ledger,
}

fn live(person: &Participant, told: bool) -> Live {
    let Some(peer) = person.peer() else { return Live { stalled: false, told, tracks: BTreeMap::new() } };
    let plan = lock(&peer.plan).clone();
    let tracks = peer.tracks().into_iter().map(|place| {
        let muted = plan.get(&place.shared.mid).is_some_and(|track| track.muted);
        (place.names.track.clone(), live_track(&place, muted, peer.world.clock.now()))
    });
    Live { stalled: peer.is_stalled(), told, tracks: tracks.collect() }
}

fn live_track(place: &TrackPlace, muted: bool, now: BootTime) -> LiveTrack {
    let current = lock(&place.shared.current).clone();
    let facts = current.as_ref().map(SegmentHandle::now);
    let last = facts.as_ref().and_then(|facts| facts.last_frame);
    let mut unfiled = Ledger::default();
    for segment in lock(&place.shared.closing).iter().chain(current.iter()).map(SegmentHandle::now) {
        if segment.files == 0 {
            unfiled.received += segment.ledger.received;
            unfiled.recovered += segment.ledger.recovered;
            unfiled.lost += segment.ledger.lost;
            unfiled.dropped_by_us += segment.ledger.dropped_by_us;
        }
    }
    LiveTrack {
        muted,
        live: last.is_some_and(|last| now.saturating_since(last) < SILENT),
        codec: current.map(|segment| segment.ring.info.codec),
        facts,
        unfiled,
    }
}

/// A participant over all connections, whichever processes recorded them.
fn participant(
    known: &manifest::Participant,
    epoch: Utc,
    live: Option<&Live>,
    told: bool,
    opted_out: &BTreeSet<String>,
) -> ParticipantSnapshot {
    let name = known.display_name.as_ref().or(known.user_id.as_ref());
    let utc = |at: Seconds| epoch.as_micros().saturating_add_unsigned(at.as_micros());
    let stays = known.presence.iter().skip(known.presence.len().saturating_sub(STAYS));
    ParticipantSnapshot {
        id: known.id.to_string(),
        user_id: known.user_id.clone(),
        device_id: known.device_id.clone(),
        display_name: name.cloned(),
        present: known.presence.last().is_some_and(|stay| stay.left_s.is_none()),
        stays: stays
            .map(|stay| StaySnapshot {
                joined_utc_micros: utc(stay.joined_s),
                left_utc_micros: stay.left_s.map(utc),
            })
            .collect(),
        told: told || live.is_some_and(|live| live.told),
        // Of who opted out from the start nobody learns more than that they are there.
        opted_out: known.user_id.as_ref().is_none_or(|user| opted_out.contains(user)),
        stalled: live.is_some_and(|live| live.stalled),
        tracks: known
            .tracks
            .iter()
            .filter_map(|known| track(known, live.and_then(|live| live.tracks.get(&known.id))))
            .collect(),
    }
}

fn track(known: &Track, live: Option<&LiveTrack>) -> Option<TrackSnapshot> {
    // What a newer version called otherwise has no name here.
    let (source, kind) = (*known.source.known()?, *known.kind.known()?);
    let facts = live.and_then(|live| live.facts.as_deref());
    let mut ledger = live.map(|live| live.unfiled.clone()).unwrap_or_default();
    for segment in &known.segments {
        ledger.received += segment.ledger.received;
        ledger.recovered += segment.ledger.recovered;
        ledger.lost += segment.ledger.lost;
        ledger.dropped_by_us += segment.ledger.dropped_by_us;
    }
    Some(TrackSnapshot {
        id: known.id.to_string(),
        source,
        kind,
        codec: live.and_then(|live| live.codec),
        width: facts.and_then(|facts| facts.width),
        height: facts.and_then(|facts| facts.height),
        bits_per_second: facts.map_or(0, |facts| facts.bits_per_second),
        media_seconds: known.segments.iter().map(|segment| segment.media_seconds.as_f64()).sum(),
        bytes: known.segments.iter().map(|segment| segment.bytes).sum(),
        frames: known.segments.iter().map(|segment| segment.frames).sum(),
        received: ledger.received,
        recovered: ledger.recovered,
        lost: ledger.lost,
        dropped_by_us: ledger.dropped_by_us,
        muted: live.is_some_and(|live| live.muted),
        live: live.is_some_and(|live| live.live),
        file: facts.and_then(|facts| facts.file.clone()),
        segments: u32::try_from(known.segments.len()).unwrap_or(u32::MAX),
    })
}

/// What a session holds, whichever processes recorded it, in the words of the message to the room, and of how many
/// participants.
pub(crate) fn saved(manifest: &Manifest) -> (Saved, usize) {
    let mut saved = Saved::default();
    let recorded = |track: &Track| track.segments.iter().any(|segment| segment.frames > 0);
    let participants = manifest.participants.iter().filter(|known| known.tracks.iter().any(recorded)).count();
    let mut first = f64::MAX;
    let mut last = 0.0_f64;
    for track in manifest.participants.iter().flat_map(|participant| &participant.tracks) {
        saved.streams += usize::from(recorded(track));
        for segment in &track.segments {
            saved.bytes += segment.bytes;
            first = first.min(segment.start_s.as_f64());
            last = last.max(segment.end_s.as_f64());
        }
    }
    saved.duration_s = if saved.streams == 0 { 0.0 } else { last - first };
    (saved, participants)
}
