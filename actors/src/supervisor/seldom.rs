//! What is said in a room once in a while.

use std::collections::HashMap;
use std::time::Duration;

use recorder_core::time::BootTime;

/// Rooms that are remembered; then the one that was told longest ago is forgotten.
const MOST_ROOMS: usize = 1_024;

pub(super) struct Seldom {
    every: Duration,
    told: HashMap<String, BootTime>,
}

impl Seldom {
    pub(super) fn new(every: Duration) -> Self {
        Self { every, told: HashMap::new() }
    }

    /// Whether a room may be told now; it then counts as told.
    pub(super) fn take(&mut self, room: &str, now: BootTime) -> bool {
        if self.told.get(room).is_some_and(|at| now.saturating_since(*at) < self.every) {
            return false;
        }
        if self.told.len() >= MOST_ROOMS
            && let Some(oldest) = self.told.iter().min_by_key(|(_, at)| **at).map(|(room, _)| room.clone())
        {
            self.told.remove(&oldest);
        }
        self.told.insert(room.to_owned(), now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_room_is_told_once_in_a_while_and_rooms_are_bounded() {
        let mut seldom = Seldom::new(Duration::from_secs(60));
        let at = |seconds: u64| BootTime(seconds * 1_000_000_000);
        assert!(seldom.take("!a:hs", at(0)) && !seldom.take("!a:hs", at(59)) && seldom.take("!a:hs", at(60)));
        assert!((0..10_000).all(|n| seldom.take(&format!("!{n}:hs"), at(100 + n))));
        assert_eq!(seldom.told.len(), MOST_ROOMS);
    }
}
