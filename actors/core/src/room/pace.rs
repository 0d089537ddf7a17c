//! How often one user may command, and what users have been told already.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::action::Refusal;
use super::limits;
use crate::time::BootTime;

const MINUTE: Duration = Duration::from_secs(60);

/// Commands of each user in the last minute.
#[derive(Clone, Debug)]
pub(super) struct Pace {
    most: usize,
    users: BTreeMap<String, VecDeque<BootTime>>,
}

impl Pace {
    pub(super) fn new(most: usize) -> Self {
        Self { most: most.max(1), users: BTreeMap::new() }
    }

    /// Counts one command; false if it is one too many. A refused one does not count.
    pub(super) fn take(&mut self, user: &str, now: BootTime) -> bool {
        if !self.users.contains_key(user) && self.users.len() >= limits::PACED_USERS {
            self.forget_one(now);
        }
        let times = self.users.entry(user.to_owned()).or_default();
        while times.front().is_some_and(|at| now.saturating_since(*at) >= MINUTE) {
            times.pop_front();
        }
        if times.len() >= self.most {
            return false;
        }
        times.push_back(now);
        true
    }

    fn forget_one(&mut self, now: BootTime) {
        self.users.retain(|_, times| times.back().is_some_and(|at| now.saturating_since(*at) < MINUTE));
        if self.users.len() >= limits::PACED_USERS {
            let silent = self.users.iter().min_by_key(|(_, times)| times.back().copied());
            if let Some(user) = silent.map(|(user, _)| user.clone()) {
                self.users.remove(&user);
            }
        }
    }
}

/// What may be told once in a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Topic {
    Refused(Refusal),
    Undecryptable,
    /// A call to us was rejected, because who called has opted out.
    CallRejected,
    /// As many calls as may be are being recorded.
    Full,
    /// A recording runs for which our power does not suffice any more.
    PowerLost,
}

impl Topic {
    /// For how long it counts as told.
    const fn holds(self) -> Duration {
        match self {
            Self::CallRejected => MINUTE,
            Self::Refused(_) | Self::Undecryptable | Self::Full | Self::PowerLost => {
                Duration::from_secs(3_600)
            }
        }
    }
}

/// Which users were told what.
#[derive(Clone, Debug, Default)]
pub(super) struct Told {
    when: BTreeMap<(String, Topic), BootTime>,
}

impl Told {
    /// Whether it has to be told now; it then counts as told for a while.
    pub(super) fn first(&mut self, user: &str, topic: Topic, now: BootTime) -> bool {
        let key = (user.to_owned(), topic);
        if self.when.get(&key).is_some_and(|at| now.saturating_since(*at) < topic.holds()) {
            return false;
        }
        if self.when.len() >= limits::TOLD_REFUSALS && !self.when.contains_key(&key) {
            let oldest = self.when.iter().min_by_key(|(_, at)| **at).map(|(key, _)| key.clone());
            if let Some(oldest) = oldest {
                self.when.remove(&oldest);
            }
        }
        self.when.insert(key, now);
        true
    }

    /// A command of the user was obeyed, or they chose: the next refusal is told again.
    pub(super) fn forget(&mut self, user: &str) {
        self.when.retain(|(told, topic), _| told != user || *topic == Topic::Undecryptable);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> BootTime {
        BootTime(seconds * 1_000_000_000)
    }

    #[test]
    fn a_user_gets_ten_commands_a_minute_and_others_are_not_concerned() {
        let mut pace = Pace::new(10);
        for _ in 0..10 {
            assert!(pace.take("@ada:hs", at(100)));
        }
        assert!(!pace.take("@ada:hs", at(101)));
        assert!(pace.take("@bob:hs", at(101)));
        assert!(!pace.take("@ada:hs", at(159)));
        assert!(pace.take("@ada:hs", at(160)), "a minute after the first ones");
    }

    #[test]
    fn a_thousand_users_leave_no_more_than_the_bound() {
        let (mut pace, mut told) = (Pace::new(10), Told::default());
        for user in 0..1_000 {
            assert!(pace.take(&format!("@u{user}:hs"), at(100 + user)));
            assert!(told.first(&format!("@u{user}:hs"), Topic::Undecryptable, at(user)));
        }
        assert!(pace.users.len() <= limits::PACED_USERS);
        assert_eq!(told.when.len(), limits::TOLD_REFUSALS);
    }

    #[test]
    fn a_refusal_is_told_once_until_a_command_was_obeyed_or_an_hour_has_passed() {
        let mut told = Told::default();
        let topic = Topic::Refused(Refusal::LowPower);
        assert!(told.first("@ada:hs", topic, at(0)));
        assert!(!told.first("@ada:hs", topic, at(10)));
        assert!(told.first("@ada:hs", Topic::Refused(Refusal::NotAllowed), at(10)));
        told.forget("@ada:hs");
        assert!(told.first("@ada:hs", topic, at(20)));
        assert!(told.first("@ada:hs", topic, at(3_620)));
    }
}
