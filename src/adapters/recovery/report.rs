//! What a recovery found and did.

use std::fmt;
use std::path::PathBuf;

use recorder_core::ids::SessionId;
use recorder_core::manifest::{CallKind, Open, Seconds, Utc};

use super::media::{FileOutcome, MediaFileError};
use crate::adapters::sessions::LeftOver;

/// A session that a process left unfinished. The next call of its room `continues` it, and the room can be
/// told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfinished {
    pub session_id: SessionId,
    pub room_id: String,
    pub call_id: String,
    pub call_kind: Open<CallKind>,
    /// End of its last media, UTC.
    pub ended: Utc,
    pub lost_at_most_s: Seconds,
}

#[derive(Debug)]
pub enum SessionOutcome {
    /// It had not ended; now it has.
    Recovered(Unfinished),
    /// It has not ended, and this process may go on with it.
    Kept(Unfinished),
    /// It had ended; perhaps files of it were mended.
    Ended,
    /// No session can be made of the journal; its media files were mended.
    NoJournal { why: String },
    /// The files were looked at, but the result could not be written.
    NotWritten { why: String },
}

#[derive(Debug)]
pub struct FileReport {
    pub file: String,
    pub outcome: Result<FileOutcome, MediaFileError>,
    /// The journal does not know it.
    pub orphan: bool,
}

#[derive(Debug)]
pub struct SessionReport {
    pub folder: PathBuf,
    pub outcome: SessionOutcome,
    pub files: Vec<FileReport>,
    /// What of the journal was passed over.
    pub journal_problems: Vec<String>,
}

impl SessionReport {
    /// Names of the files that were changed.
    pub fn repaired(&self) -> impl Iterator<Item = &str> {
        let repaired = |file: &&FileReport| file.outcome.as_ref().is_ok_and(|outcome| outcome.repaired);
        self.files.iter().filter(repaired).map(|file| file.file.as_str())
    }

    fn is_faulty(&self) -> bool {
        let unwritten =
            matches!(self.outcome, SessionOutcome::NoJournal { .. } | SessionOutcome::NotWritten { .. });
        unwritten || self.files.iter().any(|file| file.outcome.is_err())
    }
}

/// Of every session that was opened.
#[derive(Debug, Default)]
pub struct RepairReport {
    pub sessions: Vec<SessionReport>,
}

impl RepairReport {
    /// The sessions that this recovery ended.
    pub fn unfinished(&self) -> impl Iterator<Item = &Unfinished> {
        self.sessions.iter().filter_map(|session| match &session.outcome {
            SessionOutcome::Recovered(unfinished) => Some(unfinished),
            _ => None,
        })
    }

    /// What those who open sessions are to know.
    pub fn left_over(&self) -> LeftOver {
        let cut_off = self.unfinished().map(|session| (session.room_id.clone(), session.session_id.clone()));
        let kept = self.sessions.iter().filter_map(|session| match &session.outcome {
            SessionOutcome::Kept(unfinished) => Some((unfinished.session_id.clone(), session.folder.clone())),
            _ => None,
        });
        LeftOver { cut_off: cut_off.collect(), kept: kept.collect() }
    }

    /// Something could not be mended.
    pub fn is_faulty(&self) -> bool {
        self.sessions.iter().any(SessionReport::is_faulty)
    }
}

/// A table for the terminal: a line per session, and one per file below it.
impl fmt::Display for RepairReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.sessions.is_empty() {
            return writeln!(f, "nothing to repair");
        }
        for session in &self.sessions {
            let folder = session.folder.display();
            match &session.outcome {
                SessionOutcome::Recovered(unfinished) => writeln!(
                    f,
                    "{folder}: recovered, ends {}, at most {} s lost",
                    unfinished.ended, unfinished.lost_at_most_s
                )?,
                SessionOutcome::Kept(unfinished) => {
                    writeln!(f, "{folder}: kept open, at most {} s lost", unfinished.lost_at_most_s)?
                }
                SessionOutcome::Ended => writeln!(f, "{folder}: had ended")?,
                SessionOutcome::NoJournal { why } => writeln!(f, "{folder}: no manifest can be made: {why}")?,
                SessionOutcome::NotWritten { why } => writeln!(f, "{folder}: cannot be written: {why}")?,
            }
            for problem in &session.journal_problems {
                writeln!(f, "  journal: {problem}")?;
            }
            let width = session.files.iter().map(|file| file.file.chars().count()).max().unwrap_or(0);
            for file in &session.files {
                write!(f, "  {:width$}  ", file.file)?;
                match &file.outcome {
                    Ok(outcome) => {
                        let verb = if outcome.repaired { "repaired" } else { "whole" };
                        write!(f, "{verb:8}  {:>10.3} s  {:>12} bytes", outcome.duration_s, outcome.bytes)?;
                        if outcome.holes > 0 {
                            write!(f, "  {} unreadable places", outcome.holes)?;
                        }
                    }
                    Err(error) => write!(f, "left as it is: {error}")?,
                }
                writeln!(f, "{}", if file.orphan { "  (not in the journal)" } else { "" })?;
            }
        }
        let files = self.sessions.iter().map(|session| session.files.len()).sum::<usize>();
        let repaired = self.sessions.iter().map(|session| session.repaired().count()).sum::<usize>();
        writeln!(f, "{} sessions, {files} files, {repaired} repaired", self.sessions.len())
    }
}
