//! A participant who does not want to be recorded, and one who wants to again.

use std::sync::Arc;

use recorder_core::manifest::{Event, EventKind, Record};

use super::{PeerActor, PeerShared};
use crate::ring::TrackRing;
use crate::supervise::lock;

impl PeerShared {
    /// In force when this returns, whatever the actor is doing: nothing that arrives from now on is kept, and of what has
    /// arrived nothing is written that is not on its way to the disk. Files are closed, tracks and events told, when the
    /// actor looks. An opt-in begins the next segments with what arrives after it.
    pub fn set_opted_out(&self, opted_out: bool) {
        if std::mem::replace(&mut lock(&self.wanted).opted_out, opted_out) == opted_out {
            return;
        }
        if opted_out {
            self.withhold();
        } else {
            let now = self.world.clock.now();
            self.rings().iter().for_each(|ring| ring.admit(now));
        }
        self.link.nudge();
    }

    pub fn is_opted_out(&self) -> bool {
        lock(&self.wanted).opted_out
    }

    pub(super) fn withhold(&self) {
        self.rings().iter().for_each(|ring| ring.withhold());
    }

    /// Every ring of the participant that somebody may still read.
    fn rings(&self) -> Vec<Arc<TrackRing>> {
        let facts = Arc::clone(&self.connection.borrow());
        let mut rings: Vec<_> = facts.media.iter().flat_map(|media| media.streams.iter().cloned()).collect();
        for track in self.tracks() {
            let (current, closing) = (lock(&track.shared.current), lock(&track.shared.closing));
            rings.extend(current.iter().chain(closing.iter()).map(|segment| Arc::clone(&segment.ring)));
        }
        rings
    }
}

impl PeerActor {
    /// Tells what became of the participant's consent, once.
    pub(super) fn tell_consent(&self, opted_out: bool) {
        let shared = &self.shared;
        if std::mem::replace(&mut lock(&shared.counters).opted_out, opted_out) == opted_out {
            return;
        }
        let state = if opted_out { "opted_out" } else { "opted_in" };
        shared.session.tell(Record::Event(Event {
            at_s: shared.session.now_s(),
            kind: EventKind::Consent.into(),
            participant: Some(shared.participant.clone()),
            track: None,
            detail: serde_json::Map::from_iter([("state".to_owned(), state.into())]),
        }));
    }
}
