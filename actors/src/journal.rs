//! Short ways to write common journal records.

use recorder_core::ids::{ParticipantId, TrackId};
use recorder_core::manifest::{Event, EventKind, Record, Seconds};

pub fn event(
    at_s: Seconds,
    kind: EventKind,
    participant: Option<&ParticipantId>,
    track: Option<&TrackId>,
) -> Record {
    Record::Event(Event {
        at_s,
        kind: kind.into(),
        participant: participant.cloned(),
        track: track.cloned(),
        detail: serde_json::Map::new(),
    })
}
