//! What came and was lost before anybody could read it: told once in a while, with how much it was.

use std::time::Duration;

use recorder_core::ids::ParticipantId;
use recorder_core::manifest::{Event, EventKind, Record, Seconds};
use recorder_core::time::BootTime;

/// A session's events tell of drops this often.
pub(crate) const IN_A_SESSION: Duration = Duration::from_secs(10);
/// The log and the page do.
pub(crate) const FOR_PEOPLE: Duration = Duration::from_secs(60);

/// A count that grows, as far as it was told.
#[derive(Debug, Default)]
pub(crate) struct Growing {
    told: u64,
    at: Option<BootTime>,
}

impl Growing {
    /// What was counted before is not told.
    pub(crate) fn since(count: u64) -> Self {
        Self { told: count, at: None }
    }

    /// By how much it has grown since it was told, if that is so long ago.
    pub(crate) fn grown(&mut self, count: u64, now: BootTime, every: Duration) -> Option<u64> {
        if count <= self.told || self.at.is_some_and(|at| now.saturating_since(at) < every) {
            return None;
        }
        self.at = Some(now);
        Some(count - std::mem::replace(&mut self.told, count))
    }
}

/// Where something was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// By the kernel, of whatever came to the media port.
    ReceiveBuffer,
    /// Packets of one connection that came before their keys or stream were known.
    BeforeKeys,
}

pub(crate) fn dropped(
    at_s: Seconds,
    count: u64,
    place: Place,
    participant: Option<&ParticipantId>,
) -> Record {
    let place = match place {
        Place::ReceiveBuffer => "receive_buffer",
        Place::BeforeKeys => "before_keys",
    };
    Record::Event(Event {
        at_s,
        kind: EventKind::DatagramsDropped.into(),
        participant: participant.cloned(),
        track: None,
        detail: serde_json::Map::from_iter([
            ("count".to_owned(), count.into()),
            ("where".to_owned(), place.into()),
        ]),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_growing_count_is_told_whole_and_not_too_often() {
        let mut drops = Growing::since(5);
        let begin = BootTime(1_000_000_000);
        let mut told = Vec::new();
        for second in 0..=30 {
            let count = 5 + second * 2;
            let now = begin + Duration::from_secs(second);
            told.extend(drops.grown(count, now, IN_A_SESSION).map(|grown| (second, grown)));
        }
        assert_eq!(told, [(1, 2), (11, 20), (21, 20)]);
        assert_eq!(drops.grown(65, begin + Duration::from_secs(30), Duration::ZERO), Some(18));
        assert_eq!(drops.grown(65, begin + Duration::from_secs(99), Duration::ZERO), None);
    }
}
