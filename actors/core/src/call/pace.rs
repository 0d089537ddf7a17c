//! How many offers of one peer are applied in a time.

use std::time::Duration;

use crate::time::BootTime;

/// Offers that are applied one right after the other, as they come when somebody clicks about.
const BURST: u32 = 20;
/// After those, one in this time.
const EVERY: Duration = Duration::from_millis(500);

/// Turns that are left.
#[derive(Clone, Debug)]
pub(super) struct Pace {
    left: u32,
    counted: BootTime,
}

impl Pace {
    pub(super) fn new(now: BootTime) -> Self {
        Self { left: BURST, counted: now }
    }

    /// Takes a turn, if there is one now.
    pub(super) fn take(&mut self, now: BootTime) -> bool {
        while self.left < BURST && now.saturating_since(self.counted) >= EVERY {
            self.left += 1;
            self.counted = self.counted + EVERY;
        }
        if self.left == BURST {
            self.counted = now;
        }
        let taken = self.left > 0;
        self.left -= u32::from(taken);
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_let_through_and_then_two_in_a_second() {
        let begin = BootTime(1_000_000_000);
        let mut pace = Pace::new(begin);
        let taken = (0..6_000_u64).filter(|n| pace.take(begin + Duration::from_millis(10 * n))).count();
        assert!((138..=140).contains(&taken), "{taken} in a minute");
    }

    #[test]
    fn after_a_rest_there_is_no_more_than_a_burst() {
        let begin = BootTime(1_000_000_000);
        let mut pace = Pace::new(begin);
        assert_eq!((0..100).filter(|_| pace.take(begin)).count(), 20);
        let later = begin + Duration::from_secs(3600);
        assert_eq!((0..100).filter(|_| pace.take(later)).count(), 20);
    }
}
