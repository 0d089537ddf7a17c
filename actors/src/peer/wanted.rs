//! What should be written of a participant, by everything that is known: the connection's facts, the signalling, the disk.

use std::sync::Arc;

use recorder_core::call::{Purpose, StreamMetadata, StreamNote, source_of};
use recorder_core::ids::Mid;
use recorder_core::media::{MediaKind, Source};
use recorder_core::plan::{Pause, Plan, StreamPlan, TrackPlan};

use super::{MOST_TRACKS, PeerActor, Wanted};
use crate::ports::{ConnectionFacts, RemoteMedia};
use crate::ring::TrackRing;
use crate::supervise::{Check, lock};

impl PeerActor {
    /// What should be written, by everything known now.
    pub(super) fn wanted_plan(&self, current: &Plan, facts: &ConnectionFacts, wanted: &Wanted) -> Plan {
        let disk = *self.shared.world.disk.borrow();
        let mut plan = Plan::new();
        let mut tracks = current.len();
        for media in &facts.media {
            let known = current.get(&media.mid);
            let unread = self.unread_stream(media, wanted.stop);
            let stream = unread.or(media.streams.last());
            if known.is_none() && (media.codecs.is_empty() || stream.is_none()) {
                continue;
            }
            // Of who does not want to be recorded nothing becomes known but that they are there.
            if known.is_none() && (tracks >= MOST_TRACKS || wanted.opted_out) {
                continue;
            }
            tracks += usize::from(known.is_none());
            let said = source_of(media.kind, media.msid_stream.as_deref(), wanted.metadata.as_ref());
            // A file's name cannot follow a change of mind, so the first known purpose stays.
            let source =
                known.map(|track| track.source).filter(|source| *source != Source::Unknown).unwrap_or(said);
            let wanted_now = unread.is_some() || (is_sending(media) && !wanted.stop);
            let (run, pause) = match stream {
                _ if wanted.opted_out => (None, Some(Pause::OptedOut)),
                Some(_) if wanted_now && !disk.allows(media.kind) => (None, Some(Pause::Disk)),
                Some(ring) if wanted_now => {
                    (Some(StreamPlan { stream: ring.info.id, codec: ring.info.codec }), None)
                }
                _ => (None, Some(Pause::SourceOff)),
            };
            let muted = is_muted(media, wanted.metadata.as_ref());
            plan.insert(media.mid.clone(), TrackPlan { kind: media.kind, source, run, pause, muted });
        }
        // An m-line that vanished (a broken renegotiation) keeps its track, without a stream.
        let gone = if wanted.opted_out { Pause::OptedOut } else { Pause::SourceOff };
        for (mid, track) in current {
            plan.entry(mid.clone()).or_insert_with(|| TrackPlan {
                run: None,
                pause: Some(gone),
                ..track.clone()
            });
        }
        plan
    }

    /// The oldest stream of an m-line that is over, or about to be, before any segment was opened for it, and that left
    /// media in its ring: it is read to its end before anything else is looked at.
    fn unread_stream<'a>(&self, media: &'a RemoteMedia, stop: bool) -> Option<&'a Arc<TrackRing>> {
        let opened = match self.track(&media.mid) {
            Some(track) if track.slot.check(self.shared.world.clock.now()) == Check::GivenUp => return None,
            Some(track) => *lock(&track.shared.opened),
            None => None,
        };
        // A stream that is no longer told of is older than those that are.
        let first = opened
            .and_then(|id| media.streams.iter().position(|ring| ring.info.id == id))
            .map_or(0, |place| place + 1);
        media.streams.iter().skip(first).find(|ring| !ring.is_empty() && (ring.has_ended() || stop))
    }
}

pub(super) fn find_ring(facts: &ConnectionFacts, mid: &Mid, run: &StreamPlan) -> Option<Arc<TrackRing>> {
    let media = facts.media.iter().find(|media| media.mid == *mid)?;
    media.streams.iter().find(|ring| ring.info.id == run.stream).map(Arc::clone)
}

/// The m-line says that it sends, and its newest stream has not ended.
pub(super) fn is_sending(media: &RemoteMedia) -> bool {
    media.direction.sends() && media.streams.last().is_some_and(|ring| !ring.has_ended())
}

/// What is said of an m-line's stream. The flags of a screen share without an entry are not ours to guess.
fn note_of<'a>(media: &RemoteMedia, metadata: Option<&'a StreamMetadata>) -> Option<&'a StreamNote> {
    let note = metadata.zip(media.msid_stream.as_ref()).and_then(|(map, stream)| map.get(stream));
    note.filter(|note| note.purpose != Purpose::Other)
}

/// As signalled (MSC3291).
pub(super) fn is_muted(media: &RemoteMedia, metadata: Option<&StreamMetadata>) -> bool {
    note_of(media, metadata).is_some_and(|note| match media.kind {
        MediaKind::Audio => note.audio_muted,
        MediaKind::Video => note.video_muted,
    })
}

pub(super) fn mute_changes(media: &RemoteMedia, metadata: Option<&StreamMetadata>) -> u32 {
    note_of(media, metadata).map_or(0, |note| match media.kind {
        MediaKind::Audio => note.audio_changes,
        MediaKind::Video => note.video_changes,
    })
}
