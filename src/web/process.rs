//! What this process uses, out of `/proc/self` (proc(5)).

use std::fs;

pub(super) struct Own {
    pub(super) resident_bytes: u64,
    pub(super) open_files: usize,
    pub(super) cpu_seconds: f64,
    pub(super) threads: usize,
    /// Bytes that are allocated now, as the C library counts them; `None` where it does not.
    pub(super) heap_bytes: Option<u64>,
}

/// `None` where there is no `/proc`.
pub(super) fn read() -> Option<Own> {
    let memory = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = memory.split_whitespace().nth(1)?.parse().ok()?;
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is the program's name in brackets and may hold anything; fields are counted after it.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let ticks: u64 = fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?;
    Some(Own {
        resident_bytes: pages * system(libc::_SC_PAGESIZE, 4_096),
        open_files: fs::read_dir("/proc/self/fd").ok()?.count(),
        cpu_seconds: ticks as f64 / system(libc::_SC_CLK_TCK, 100) as f64,
        threads: fs::read_dir("/proc/self/task").ok()?.count(),
        heap_bytes: heap_bytes(),
    })
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn heap_bytes() -> Option<u64> {
    // SAFETY: mallinfo2 only reads the allocator's own books, under its locks.
    let books = unsafe { libc::mallinfo2() };
    Some(books.uordblks as u64 + books.hblkhd as u64)
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn heap_bytes() -> Option<u64> {
    None
}

fn system(name: libc::c_int, otherwise: u64) -> u64 {
    // SAFETY: sysconf takes any number and touches no memory of ours.
    u64::try_from(unsafe { libc::sysconf(name) }).ok().filter(|value| *value > 0).unwrap_or(otherwise)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_something() {
        let own = read().unwrap();
        assert!(own.resident_bytes > 100_000 && own.open_files >= 3 && own.cpu_seconds >= 0.0);
        assert!(own.threads >= 1 && own.heap_bytes.is_none_or(|bytes| bytes > 1_000));
    }
}
