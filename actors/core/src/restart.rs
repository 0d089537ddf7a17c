//! How often a child may be started again before it is given up.

use std::collections::VecDeque;
use std::time::Duration;

use crate::time::BootTime;

/// The terms of a budget: at most `limit` restarts within `window`, each later one waiting twice as long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RestartTerms {
    pub limit: usize,
    pub window: Duration,
    /// Wait before the second restart within the window; the first is immediate.
    pub first_back_off: Duration,
    pub longest_back_off: Duration,
}

impl Default for RestartTerms {
    fn default() -> Self {
        Self {
            limit: 8,
            window: Duration::from_secs(60),
            first_back_off: Duration::from_millis(50),
            longest_back_off: Duration::from_secs(5),
        }
    }
}

/// What is to become of a child that ended by a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestartVerdict {
    RestartAfter(Duration),
    /// The budget is used up: mark the child failed, let its siblings be.
    GiveUp,
}

/// Counts the faults of one child.
#[derive(Clone, Debug)]
pub struct RestartBudget {
    terms: RestartTerms,
    faults: VecDeque<BootTime>,
}

impl RestartBudget {
    pub fn new(terms: RestartTerms) -> Self {
        Self { terms, faults: VecDeque::with_capacity(terms.limit + 1) }
    }

    /// A fault at `now`: says whether and when to start again.
    pub fn fault(&mut self, now: BootTime) -> RestartVerdict {
        while self.faults.front().is_some_and(|first| now.saturating_since(*first) > self.terms.window) {
            self.faults.pop_front();
        }
        if self.faults.len() >= self.terms.limit {
            return RestartVerdict::GiveUp;
        }
        let earlier = self.faults.len() as u32;
        self.faults.push_back(now);
        let wait = match earlier {
            0 => Duration::ZERO,
            n => self
                .terms
                .first_back_off
                .saturating_mul(1_u32.checked_shl(n - 1).unwrap_or(u32::MAX))
                .min(self.terms.longest_back_off),
        };
        RestartVerdict::RestartAfter(wait)
    }

    /// A fault whose cause lies outside the child, a disk that refuses say: how long to wait before the next try. It is
    /// never given up, because the cause may go away; once the budget is used up the wait is the longest one.
    pub fn outage(&mut self, now: BootTime) -> Duration {
        match self.fault(now) {
            RestartVerdict::RestartAfter(wait) => wait,
            RestartVerdict::GiveUp => {
                // The window slides along, so that an outage that lasts has no second run of short waits.
                self.faults.pop_front();
                self.faults.push_back(now);
                self.terms.longest_back_off
            }
        }
    }
}

impl Default for RestartBudget {
    fn default() -> Self {
        Self::new(RestartTerms::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: BootTime = BootTime(1_000_000_000);

    #[test]
    fn the_first_restart_is_immediate_and_later_ones_wait_longer() {
        let mut budget = RestartBudget::default();
        let waits: Vec<_> = (0..4).map(|_| budget.fault(START)).collect();
        assert_eq!(
            waits,
            [0, 50, 100, 200].map(|ms| RestartVerdict::RestartAfter(Duration::from_millis(ms)))
        );
    }

    #[test]
    fn a_storm_of_faults_uses_the_budget_up() {
        let mut budget = RestartBudget::default();
        for _ in 0..8 {
            assert!(matches!(budget.fault(START), RestartVerdict::RestartAfter(_)));
        }
        assert_eq!(budget.fault(START), RestartVerdict::GiveUp);
    }

    #[test]
    fn an_outage_is_tried_again_for_ever_and_slowly_once_the_short_waits_are_used() {
        let mut budget = RestartBudget::default();
        let mut now = START;
        let mut waits = Vec::new();
        for _ in 0..200 {
            let wait = budget.outage(now);
            waits.push(wait);
            now = now + wait;
        }
        assert_eq!(waits[..3], [0, 50, 100].map(Duration::from_millis));
        assert!(waits[8..].iter().all(|wait| *wait == Duration::from_secs(5)), "{waits:?}");
        let calm = now + Duration::from_secs(120);
        assert_eq!(budget.outage(calm), Duration::ZERO, "a new outage after a calm begins anew");
    }

    #[test]
    fn faults_far_apart_never_use_it_up() {
        let mut budget = RestartBudget::default();
        for minute in 0..100 {
            let now = START + Duration::from_secs(61 * minute);
            assert_eq!(budget.fault(now), RestartVerdict::RestartAfter(Duration::ZERO));
        }
    }
}
