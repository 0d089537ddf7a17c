//! What one connection of a participant leaves to the next: its tracks, under whose ids and file numbers it goes on.

use std::sync::Arc;

use recorder_core::ids::{ParticipantId, TrackId};
use recorder_core::manifest::{Manifest, Participant};
use recorder_core::media::{MediaKind, Source};

use super::PeerShared;
use crate::segment::TrackNames;
use crate::supervise::lock;

/// A track of an earlier connection of the same participant, or of an earlier process. Its next file number is not here:
/// the session counts files.
#[derive(Clone, Debug)]
pub struct Inherited {
    pub names: Arc<TrackNames>,
    pub kind: MediaKind,
}

/// A participant as its session knows it.
#[derive(Clone, Debug)]
pub struct KnownParticipant {
    pub participant: ParticipantId,
    /// Null for who opted out from the start, as are the other names.
    pub user_id: Option<String>,
    pub device_id: Option<String>,
    pub party_id: Option<String>,
    pub display_name: Option<String>,
    /// Its last stay has not ended.
    pub present: bool,
    /// Oldest first.
    pub tracks: Vec<Inherited>,
}

impl KnownParticipant {
    /// Everyone whom a manifest names, in its order.
    pub fn all(manifest: &Manifest) -> Vec<Self> {
        manifest.participants.iter().map(Self::of).collect()
    }

    pub(crate) fn of(known: &Participant) -> Self {
        let name = known.display_name.as_ref().or(known.user_id.as_ref());
        let name = name.map_or_else(|| known.id.to_string(), Clone::clone);
        let tracks = known.tracks.iter().filter_map(|track| {
            // What a newer version called otherwise is not ours to go on with.
            let (source, kind) = (*track.source.known()?, *track.kind.known()?);
            Some(Inherited::new(track.id.clone(), known.id.clone(), source, kind, &name))
        });
        Self {
            participant: known.id.clone(),
            user_id: known.user_id.clone(),
            device_id: known.device_id.clone(),
            party_id: known.party_id.clone(),
            display_name: known.display_name.clone(),
            present: known.presence.last().is_some_and(|stay| stay.left_s.is_none()),
            tracks: tracks.collect(),
        }
    }
}

impl Inherited {
    fn new(track: TrackId, participant: ParticipantId, source: Source, kind: MediaKind, name: &str) -> Self {
        let title = format!("{name} {}", source.name());
        Self { names: Arc::new(TrackNames { track, participant, source, title }), kind }
    }
}

impl PeerShared {
    /// What the participant's next connection goes on with. States that this one told of and did not end, end here, so
    /// that the next one may tell of them anew.
    pub fn heirloom(&self) -> Vec<Inherited> {
        self.end_states();
        let mut tracks: Vec<_> = self
            .tracks()
            .into_iter()
            .map(|track| Inherited { names: track.names, kind: track.kind })
            .collect();
        // By age, which m-lines do not tell.
        tracks.sort_by_key(|track| (track.names.track.as_str().len(), track.names.track.clone()));
        tracks.extend(lock(&self.inherited).iter().cloned());
        tracks
    }

    /// The oldest track of this kind that no m-line has.
    pub(super) fn claim(&self, source: Source, kind: MediaKind) -> Option<Inherited> {
        let mut inherited = lock(&self.inherited);
        let fits = |track: &Inherited| track.names.source == source && track.kind == kind;
        let index = inherited.iter().position(fits)?;
        Some(inherited.remove(index))
    }
}
