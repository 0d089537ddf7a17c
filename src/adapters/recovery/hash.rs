//! The low-priority job that fills `sha256` once a session is complete.

use std::fs::OpenOptions;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use recorder_core::manifest::{Manifest, Record};
use sha2::{Digest, Sha256};

use super::session::read_journal;
use super::session_folders;
use crate::adapters::session_store::{SNAPSHOT, append_synced, write_snapshot};

/// Bytes read at a time.
const CHUNK: usize = 256 << 10;

/// How fast files may be read, and whether to go on. Shared by the jobs of a process.
#[derive(Debug)]
pub struct Pace {
    bytes_per_second: u64,
    stopped: Mutex<bool>,
    stop: Condvar,
}

impl Pace {
    /// Recording comes first: this much of a disk's throughput does not hurt it.
    pub const DEFAULT_BYTES_PER_SECOND: u64 = 32 << 20;

    pub fn new(bytes_per_second: u64) -> Self {
        Self { bytes_per_second: bytes_per_second.max(1), stopped: Mutex::new(false), stop: Condvar::new() }
    }

    /// Jobs end before their next chunk. What they have not hashed stays `null`.
    pub fn stop(&self) {
        *self.lock() = true;
        self.stop.notify_all();
    }

    pub fn is_stopped(&self) -> bool {
        *self.lock()
    }

    fn lock(&self) -> MutexGuard<'_, bool> {
        self.stopped.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `bytes` may have been read since `since`. False when told to stop.
    fn allow(&self, bytes: u64, since: Instant) -> bool {
        let due = since + Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64);
        let rest = due.saturating_duration_since(Instant::now());
        let (stopped, _) = self
            .stop
            .wait_timeout_while(self.lock(), rest, |stopped| !*stopped)
            .unwrap_or_else(PoisonError::into_inner);
        !*stopped
    }
}

#[derive(Debug, thiserror::Error)]
pub enum HashError {
    #[error("{0}")]
    Journal(String),
    #[error("the session has not ended")]
    NotEnded,
    #[error("the checksums cannot be written: {0}")]
    Write(io::Error),
}

/// The sessions below `recordings` that have ended with files that have no `sha256`: those that ended with their process,
/// or in a recovery, or whose job was cut off. Each is looked at when its turn comes.
///
/// # Errors
/// When `recordings` itself cannot be read.
pub fn without_checksums(recordings: &Path) -> io::Result<impl Iterator<Item = PathBuf>> {
    Ok(session_folders(recordings, 2)?.into_iter().filter(|folder| wants_checksums(folder)))
}

/// By its `session.json`. A file that is not there any more wants nothing.
fn wants_checksums(folder: &Path) -> bool {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(folder.join(SNAPSHOT));
    let manifest =
        file.ok().and_then(|file| serde_json::from_reader::<_, Manifest>(BufReader::new(file)).ok());
    let is_there = |file: &str| !file.contains(['/', '\0']) && folder.join(file).exists();
    manifest.filter(|manifest| manifest.ended_s.is_some()).is_some_and(|manifest| {
        let mut segments = manifest.segments().filter(|segment| segment.is_final && segment.sha256.is_none());
        segments.any(|segment| is_there(&segment.file))
    })
}

/// Hashes every closed media file of an ended session that has no `sha256` yet, and writes journal and
/// `session.json`. Blocks; returns how many files it hashed. A file that cannot be read is logged and left
/// without.
pub fn hash_session(folder: &Path, pace: &Pace) -> Result<usize, HashError> {
    let folded = read_journal(folder).map_err(HashError::Journal)?;
    let mut manifest = folded.manifest;
    if manifest.ended_s.is_none() {
        return Err(HashError::NotEnded);
    }
    let wanting = manifest.segments().filter(|segment| segment.is_final && segment.sha256.is_none());
    let files: Vec<String> = wanting.map(|segment| segment.file.clone()).collect();
    let mut hashed = 0;
    for file in files {
        if file.contains(['/', '\0']) {
            continue;
        }
        let sha256 = match sha256_of(&folder.join(&file), pace) {
            Ok(Some(sha256)) => sha256,
            Ok(None) => break,
            Err(error) => {
                tracing::warn!(file, %error, "a recorded file cannot be hashed");
                continue;
            }
        };
        let record = Record::Sha256 { file, sha256 };
        if manifest.apply(&record).is_ok() {
            let mut line = record.to_line();
            if hashed == 0 && !folded.ends_with_newline {
                line.insert(0, b'\n');
            }
            append_synced(folder, &line).map_err(HashError::Write)?;
            hashed += 1;
        }
    }
    if hashed > 0 {
        write_snapshot(folder, &manifest.to_json()).map_err(HashError::Write)?;
    }
    Ok(hashed)
}

/// `None` when told to stop.
fn sha256_of(path: &Path, pace: &Pace) -> io::Result<Option<String>> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let mut file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let mut chunk = vec![0; CHUNK];
    let mut digest = Sha256::new();
    let (began, mut total) = (Instant::now(), 0);
    loop {
        let count = file.read(&mut chunk)?;
        if count == 0 {
            return Ok(Some(digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()));
        }
        digest.update(&chunk[..count]);
        total += count as u64;
        if !pace.allow(total, began) {
            return Ok(None);
        }
    }
}
