//! How often something is done for one peer: a few times at once, then one in a while.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::time::BootTime;

/// So many at once, and after those one in `every`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    pub(super) burst: u32,
    pub(super) every: Duration,
}

/// Offers that are applied: one right after the other, as they come when somebody clicks about, and then two a second.
pub(super) const OFFERS: Terms = Terms { burst: 20, every: Duration::from_millis(500) };
/// Rejections that one caller is sent: they are taken from what the homeserver lets us send.
const REJECTIONS: Terms = Terms { burst: 5, every: Duration::from_secs(10) };
/// Callers whose rejections are remembered; the one that was quiet for longest goes first.
const MOST_CALLERS: usize = 256;

/// Turns that are left.
#[derive(Clone, Debug)]
pub(super) struct Pace {
    terms: Terms,
    left: u32,
    counted: BootTime,
}

impl Pace {
    pub(super) fn new(terms: Terms, now: BootTime) -> Self {
        Self { terms, left: terms.burst, counted: now }
    }

    /// Takes a turn, if there is one now.
    pub(super) fn take(&mut self, now: BootTime) -> bool {
        if self.is_rested(now) {
            self.counted = now;
        }
        let taken = self.left > 0;
        self.left -= u32::from(taken);
        taken
    }

    /// Every turn is there again.
    fn is_rested(&mut self, now: BootTime) -> bool {
        let Terms { burst, every } = self.terms;
        while self.left < burst && now.saturating_since(self.counted) >= every {
            self.left += 1;
            self.counted = self.counted + every;
        }
        self.left == burst
    }
}

/// Who was rejected how often.
#[derive(Clone, Debug, Default)]
pub(super) struct Rejections {
    callers: BTreeMap<String, Pace>,
}

impl Rejections {
    /// Whether one more rejection of this caller may be sent now.
    pub(super) fn take(&mut self, caller: &str, now: BootTime) -> bool {
        if let Some(pace) = self.callers.get_mut(caller) {
            return pace.take(now);
        }
        if self.callers.len() >= MOST_CALLERS {
            self.callers.retain(|_, pace| !pace.is_rested(now));
        }
        if self.callers.len() >= MOST_CALLERS
            && let Some(quiet) = self.callers.iter().min_by_key(|(_, pace)| pace.counted)
        {
            let quiet = quiet.0.clone();
            self.callers.remove(&quiet);
        }
        self.callers.entry(caller.to_owned()).or_insert_with(|| Pace::new(REJECTIONS, now)).take(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEGIN: BootTime = BootTime(1_000_000_000);

    #[test]
    fn a_burst_is_let_through_and_then_two_in_a_second() {
        let mut pace = Pace::new(OFFERS, BEGIN);
        let taken = (0..6_000_u64).filter(|n| pace.take(BEGIN + Duration::from_millis(10 * n))).count();
        assert!((138..=140).contains(&taken), "{taken} in a minute");
    }

    #[test]
    fn after_a_rest_there_is_no_more_than_a_burst() {
        let mut pace = Pace::new(OFFERS, BEGIN);
        assert_eq!((0..100).filter(|_| pace.take(BEGIN)).count(), 20);
        let later = BEGIN + Duration::from_secs(3600);
        assert_eq!((0..100).filter(|_| pace.take(later)).count(), 20);
    }

    #[test]
    fn one_caller_is_rejected_five_times_at_once_and_others_are_not_concerned() {
        let mut rejections = Rejections::default();
        assert_eq!((0..100).filter(|_| rejections.take("@eve:hs", BEGIN)).count(), 5);
        assert!(rejections.take("@mallory:hs", BEGIN));
        let later = BEGIN + Duration::from_secs(20);
        assert_eq!((0..100).filter(|_| rejections.take("@eve:hs", later)).count(), 2);
    }

    #[test]
    fn a_thousand_callers_leave_no_more_than_the_bound() {
        let mut rejections = Rejections::default();
        for caller in 0..1_000 {
            assert!(rejections.take(&format!("@u{caller}:hs"), BEGIN + Duration::from_millis(caller)));
        }
        assert_eq!(rejections.callers.len(), MOST_CALLERS);
    }
}
