//! From slots and manifests to what the board shows and the room is told.

use std::collections::BTreeSet;

use recorder_core::call::Saved;
use recorder_core::manifest::{CallKind, Manifest, Track};

use crate::call::{CallShared, Participant, PeerKey};
use crate::observe::{CallSnapshot, ParticipantSnapshot, TrackSnapshot};
use crate::peer::{PeerShared, TrackPlace};
use crate::ports::RoomFacts;
use crate::supervise::lock;
use crate::writer::Finished;

impl CallShared {
    /// The call for the page.
    pub(crate) fn snapshot(&self, state: &str, room: &RoomFacts) -> CallSnapshot {
        let session = lock(&self.session).clone();
        let opted_out = lock(&self.opted_out).clone();
        let folder = session.as_ref().map(|session| session.folder().display().to_string());
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
            participants: self.each_person(|key, person| participant(key, person, &opted_out)),
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

fn participant(
    key: &PeerKey,
    person: &Participant,
    opted_out: &BTreeSet<String>,
) -> Option<ParticipantSnapshot> {
    let place = person.place.as_ref()?;
    // Of who opted out from the start nobody learns more than that they are there.
    let said = |text: &str| (!place.hidden).then(|| text.to_owned());
    let tracks = person.peer().map(|peer| {
        let plan = lock(&peer.plan).clone();
        let muted = |track: &TrackPlace| plan.get(&track.shared.mid).is_some_and(|track| track.muted);
        peer.tracks().iter().map(|place| track(place, muted(place), &peer)).collect()
    });
    Some(ParticipantSnapshot {
        id: place.id.to_string(),
        user_id: said(&key.user),
        device_id: key.device.as_deref().and_then(said),
        display_name: said(&place.name),
        present: person.present,
        opted_out: place.hidden || opted_out.contains(&key.user),
        stalled: person.peer().is_some_and(|peer| peer.is_stalled()),
        tracks: tracks.unwrap_or_default(),
    })
}

/// What a track has written so far.
fn sum(place: &TrackPlace) -> Finished {
    let mut sum = lock(&place.shared.finished).clone();
    let current = lock(&place.shared.current).clone();
    let closing = lock(&place.shared.closing).clone();
    for segment in closing.iter().chain(current.iter()) {
        sum.add(&segment.now());
    }
    sum
}

fn track(place: &TrackPlace, muted: bool, peer: &PeerShared) -> TrackSnapshot {
    let sum = sum(place);
    let current = lock(&place.shared.current).clone();
    let facts = current.as_ref().map(|segment| segment.now());
    let now = peer.world.clock.now();
    let live = facts
        .as_ref()
        .and_then(|facts| facts.last_frame)
        .is_some_and(|last| now.saturating_since(last).as_secs() < 2);
    TrackSnapshot {
        id: place.names.track.to_string(),
        source: place.names.source,
        kind: place.kind,
        codec: current.as_ref().map(|segment| segment.ring.info.codec),
        width: facts.as_ref().and_then(|facts| facts.width),
        height: facts.as_ref().and_then(|facts| facts.height),
        bits_per_second: facts.as_ref().map_or(0, |facts| facts.bits_per_second),
        media_seconds: sum.media_seconds,
        bytes: sum.bytes,
        frames: sum.frames,
        received: sum.received,
        recovered: sum.recovered,
        lost: sum.lost,
        dropped_by_us: sum.dropped_by_us,
        muted,
        live,
        file: facts.and_then(|facts| facts.file.clone()),
        segments: sum.segments,
    }
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
