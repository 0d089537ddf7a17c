//! Time as values. Nothing in this crate asks a clock: instants come in from the adapters.

use std::ops::{Add, Sub};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// An instant of the machine's monotonic clock that also counts suspend (`CLOCK_BOOTTIME`), in nanoseconds since boot.
///
/// Only differences within one boot mean anything; the journal ties it to UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BootTime(pub u64);

impl BootTime {
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Seconds from `earlier` to `self`, negative if `self` lies before it.
    pub fn seconds_since(self, earlier: Self) -> f64 {
        let apart = self.0.abs_diff(earlier.0) as f64 / 1e9;
        if self < earlier { -apart } else { apart }
    }

    /// Time from `earlier` to `self`, zero if `self` lies before it.
    pub fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for BootTime {
    type Output = Self;

    fn add(self, rhs: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(rhs.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl Sub<Duration> for BootTime {
    type Output = Self;

    fn sub(self, rhs: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(rhs.as_nanos()).unwrap_or(u64::MAX)))
    }
}
