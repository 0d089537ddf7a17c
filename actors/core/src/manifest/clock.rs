//! Session time, and how it survives a restart.

use std::time::Duration;

use super::{Folded, Seconds, Utc};
use crate::time::BootTime;

/// Media may have arrived a little before the session was opened, and its clock map may place it earlier
/// still: by half a round trip and by what a slow first path hid.
const LEAD: Duration = Duration::from_secs(2);
/// After a reboot UTC alone ties the boots together: how far the machine's clock may have been off until it
/// was set.
const REBOOT_UNCERTAINTY: Seconds = Seconds::from_micros(1_000_000);

/// Session time within one process: zero is the epoch, and it runs on the monotonic clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionClock {
    /// The epoch on this boot's clock, in nanoseconds; negative if the session is older than the boot.
    zero_ns: i128,
    epoch: Utc,
    uncertain: Option<Seconds>,
}

impl SessionClock {
    /// A new session's clock. The epoch lies 2 s before `earliest`, the first arrival that may be recorded,
    /// or before `now`, where nothing has arrived yet. `utc` is the same instant as `now`.
    pub fn begin(now: BootTime, utc: Utc, earliest: Option<BootTime>) -> Self {
        let first = earliest.map_or(now, |earliest| earliest.min(now));
        let back = now.saturating_since(first) + LEAD;
        let zero_ns = i128::from(now.as_nanos()) - back.as_nanos() as i128;
        // Whole microseconds, so that what the journal says and what is computed here agree to the last
        // digit.
        Self { zero_ns: zero_ns.div_euclid(1000) * 1000, epoch: utc.before(back), uncertain: None }
    }

    /// The clock of a session that an earlier process opened: exact within the same boot, by UTC after a
    /// reboot.
    pub fn resume(journal: &Folded, boot_id: &str, now: BootTime, utc: Utc) -> Self {
        let opened = &journal.opened;
        let same_boot = |id: &str| !id.is_empty() && id == boot_id;
        let began_here = same_boot(&opened.boot_id);
        let zero_ns = match &journal.process {
            // A process's line is true to the microsecond, the opening to the last digit.
            _ if began_here && opened.boot_time_ns > 0 => Some(i128::from(opened.boot_time_ns)),
            Some(process) if same_boot(&process.boot_id) => {
                Some(i128::from(process.boot_time_ns) - i128::from(process.at_s.as_micros()) * 1000)
            }
            _ => None,
        };
        let zero_ns = zero_ns.unwrap_or_else(|| {
            // A clock that was set back must not turn session time back.
            let passed = Seconds::new(utc.seconds_since(opened.epoch)).max(journal.manifest.last_s());
            i128::from(now.as_nanos()) - i128::from(passed.as_micros()) * 1000
        });
        // What UTC has tied together once stays as uncertain as it was then.
        Self { zero_ns, epoch: opened.epoch, uncertain: (!began_here).then_some(REBOOT_UNCERTAINTY) }
    }

    /// Session time of an instant; 0 for what lies before the epoch.
    pub fn at(&self, instant: BootTime) -> Seconds {
        let nanos = (i128::from(instant.as_nanos()) - self.zero_ns).max(0);
        Seconds::from_micros(u64::try_from(nanos / 1000).unwrap_or(u64::MAX))
    }

    pub const fn epoch(&self) -> Utc {
        self.epoch
    }

    /// The epoch on this boot's clock, 0 if the session is older than the boot.
    pub fn epoch_boot_time(&self) -> BootTime {
        BootTime::from_nanos(u64::try_from(self.zero_ns.max(0)).unwrap_or(u64::MAX))
    }

    /// `clock_uncertain_s` of segments of this process.
    pub const fn uncertain(&self) -> Option<Seconds> {
        self.uncertain
    }
}
