//! This machine's clocks.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};
use recorder_actors::ports::Clock;
use recorder_core::time::BootTime;

/// `CLOCK_BOOTTIME` (monotonic, counts suspend) and the system's UTC.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

/// Nanoseconds of one of the kernel's clocks; 0 if this kernel lacks it.
fn nanos(clock: ClockId) -> u64 {
    clock_gettime(clock).map_or(0, |time| Duration::from(time).as_nanos().try_into().unwrap_or(u64::MAX))
}

/// The boot clock now.
pub fn boot_time() -> BootTime {
    BootTime::from_nanos(nanos(ClockId::CLOCK_BOOTTIME))
}

impl Clock for SystemClock {
    fn now(&self) -> BootTime {
        boot_time()
    }

    fn utc_micros(&self) -> i64 {
        match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_micros()).unwrap_or(i64::MAX),
            Err(before) => i64::try_from(before.duration().as_micros()).map_or(i64::MIN, |micros| -micros),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boot_clock_never_runs_backwards() {
        let first = SystemClock.now();
        assert!(first.as_nanos() > 0);
        assert!(SystemClock.now() >= first);
    }

    #[test]
    fn utc_lies_after_the_year_2024() {
        assert!(SystemClock.utc_micros() > 1_704_067_200_000_000);
    }
}
