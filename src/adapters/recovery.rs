//! Mends what a process that died left behind: at start, and by the command `repair DIR`.
//!
//! A session whose `session.json` does not say that it has ended is folded from its journal, its media files
//! get the end that a clean shutdown would have given them, and the session ends as `restarted`. Doing it
//! twice changes nothing the second time. What cannot be mended is listed in the manifest and left untouched.
//! Nobody may be recording into these folders meanwhile: the caller holds the lock of the recordings
//! directory.

mod hash;
mod media;
mod report;
mod session;

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use recorder_core::ids::SessionId;
use recorder_core::manifest::Utc;
use recorder_core::time::BootTime;

pub use hash::{HashError, Pace, hash_session, without_checksums};
pub use media::{FileOutcome, MediaFileError, repair_media_file};
pub use report::{FileReport, RepairReport, SessionOutcome, SessionReport, Unfinished};

use super::session_store::JOURNAL;
use session::{Depth, mend};
pub use session::{end_kept, read_left};

/// The moment of a recovery on all clocks.
#[derive(Clone, Debug)]
pub struct Now {
    /// `/proc/sys/kernel/random/boot_id`, empty if there is none.
    pub boot_id: String,
    pub boot_time: BootTime,
    pub utc: Utc,
}

/// Folders looked into at most; a recordings directory with more is not ours.
const FOLDERS: usize = 1_000_000;

/// Mends every session below `recordings` that has not ended. Ended ones are not opened beyond their
/// `session.json`. Those of `keep` are mended and stay open: this process is to go on with them.
///
/// # Errors
/// When `recordings` itself cannot be read; what happens to a session stands in its report.
pub fn recover(recordings: &Path, now: &Now, keep: &HashSet<SessionId>) -> io::Result<RepairReport> {
    let mut report = RepairReport::default();
    for folder in session_folders(recordings, 2)? {
        if let Some(session) = mend(&folder, now, Depth::Unfinished, keep) {
            report.sessions.push(session);
        }
    }
    Ok(report)
}

/// The command `repair DIR`: `dir` is a recordings directory, a room's folder or a session's. Ended sessions
/// are looked at as well: media files that lack their end get it.
///
/// # Errors
/// When `dir` itself cannot be read; what happens to a session stands in its report.
pub fn repair_directory(dir: &Path, now: &Now) -> io::Result<RepairReport> {
    let mut report = RepairReport::default();
    for folder in session_folders(dir, 2)? {
        report.sessions.extend(mend(&folder, now, Depth::Everything, &HashSet::new()));
    }
    Ok(report)
}

/// Folders with a journal, at most `depth` levels below `dir`, in the order of their names. Links are not
/// followed.
fn session_folders(dir: &Path, depth: usize) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut waiting = vec![(dir.to_owned(), depth)];
    let mut seen = 0;
    while let Some((folder, depth)) = waiting.pop() {
        if fs::symlink_metadata(folder.join(JOURNAL)).is_ok_and(|journal| journal.is_file()) {
            found.push(folder);
            continue;
        }
        if depth == 0 {
            continue;
        }
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if folder == dir => return Err(error),
            Err(error) => {
                tracing::warn!(folder = %folder.display(), %error, "a folder cannot be looked into");
                continue;
            }
        };
        for entry in entries.flatten() {
            seen += 1;
            // `file_type` says what the entry is itself, not what a link leads to.
            if seen < FOLDERS && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                waiting.push((entry.path(), depth - 1));
            }
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests;
