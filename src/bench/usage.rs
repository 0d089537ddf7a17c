//! Processor time and memory of this process.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::BenchError;

/// What a process has used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// User and system time of all threads.
    pub cpu: Duration,
    /// Resident memory.
    pub resident_bytes: u64,
}

impl Usage {
    /// Of the calling process, now.
    pub fn own() -> Result<Self, BenchError> {
        Ok(Self { cpu: process_time()?, resident_bytes: resident_bytes()? })
    }
}

fn process_time() -> Result<Duration, BenchError> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid timespec that outlives the call.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    if result != 0 {
        return Err(BenchError::Usage(std::io::Error::last_os_error()));
    }
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u32::try_from(time.tv_nsec).unwrap_or(0);
    Ok(Duration::new(seconds, nanos))
}

/// `VmRSS` of proc_pid_status(5).
fn resident_bytes() -> Result<u64, BenchError> {
    let status = std::fs::read_to_string("/proc/self/status").map_err(BenchError::Usage)?;
    let kilobytes = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|value| value.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    kilobytes
        .map(|kilobytes| kilobytes * 1024)
        .ok_or_else(|| BenchError::Usage(std::io::Error::other("no VmRSS in /proc/self/status")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_shows_as_processor_time_and_memory() {
        let before = Usage::own().unwrap();
        let mut block = vec![0u8; 32 << 20];
        while Usage::own().unwrap().cpu < before.cpu + Duration::from_millis(5) {
            block.iter_mut().step_by(512).for_each(|byte| *byte = byte.wrapping_add(1));
        }
        assert!(Usage::own().unwrap().resident_bytes >= before.resident_bytes + (16 << 20));
    }
}
