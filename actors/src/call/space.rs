//! What the caller of a 1:1 call hears of the disk: that there is no space, at first, when that changes, and at the end.
//! A group call's room has its status message.

use std::sync::atomic::Ordering;
use std::time::Duration;

use recorder_core::call::{CallEnd, Shortfall, Space, no_space, space_changed};
use recorder_core::manifest::CallKind;
use recorder_core::time::BootTime;

use super::input::{CallInput, Ending};
use super::people::Participant;
use super::slot::CallShared;
use crate::supervise::lock;

/// That there is more space again is told no sooner after the last word: it may go as it came.
const CALM: Duration = Duration::from_secs(30);

/// What was seen and told of the disk, since the caller knows of the recording.
#[derive(Debug)]
pub(super) struct SpaceTold {
    /// What the caller knows.
    told: Space,
    at: Option<BootTime>,
    /// The least that there was.
    least: Space,
}

impl CallShared {
    fn space(&self) -> Space {
        self.world.disk.borrow().space()
    }

    /// A call that cannot be recorded is not kept either: the caller is told why, and hung up on.
    pub(super) fn refuses_for_space(&self) -> bool {
        let caller = self.started_by.as_deref().filter(|_| self.kind == CallKind::OneToOne);
        let Some(caller) = caller.filter(|_| self.space() == Space::Nothing) else { return false };
        self.want_session.store(false, Ordering::Release);
        self.outbox.message(no_space(caller));
        self.tell(CallInput::Stop(Ending::because(CallEnd::DiskFull)));
        true
    }

    /// The recording begins; what the caller is told of it says this.
    pub(super) fn space_at_first(&self) -> Space {
        let space = self.space();
        *lock(&self.space_told) = Some(SpaceTold { told: space, at: None, least: space });
        space
    }

    /// The caller hears of what has changed: at once if it is less, in its time if it is more.
    pub(super) fn keep_space(&self) {
        let (space, now) = (self.space(), self.world.clock.now());
        if lock(&self.ending).is_some() {
            return;
        }
        let mut seen = lock(&self.space_told);
        let (Some(seen), Some(caller)) = (&mut *seen, self.started_by.as_deref()) else { return };
        seen.least = seen.least.max(space);
        if space == seen.told {
            return;
        }
        if space < seen.told && seen.at.is_some_and(|at| now.saturating_since(at) < CALM) {
            return;
        }
        (seen.told, seen.at) = (space, Some(now));
        self.outbox.message(space_changed(caller, space));
    }

    /// Why something of the call is not on the disk, if that is so.
    pub(super) fn shortfall(&self) -> Option<Shortfall> {
        let tracks: Vec<_> =
            lock(&self.people).values().flat_map(Participant::peers).flat_map(|peer| peer.tracks()).collect();
        let filed = lock(&self.session).as_ref().is_some_and(|session| {
            session.look(|manifest| manifest.segments().any(|segment| segment.ledger.dropped_by_us > 0))
        });
        let dropped =
            filed || tracks.iter().any(|track| track.shared.dropped_unfiled.load(Ordering::Relaxed));
        let for_space = match lock(&self.space_told).as_ref().map(|seen| seen.least) {
            None | Some(Space::Everything) => None,
            Some(Space::SoundOnly) => Some(Shortfall::SoundOnly),
            Some(Space::Nothing) => Some(Shortfall::DiskFull),
        };
        for_space.max(dropped.then_some(Shortfall::NotWritten))
    }
}
