//! From journal to manifest.

use super::apply::cut;
use super::{ApplyError, Manifest, ProcessStarted, Record, SessionOpened, limits};

/// A journal that no session can be made of.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JournalError {
    #[error("the journal has no line that opens a session")]
    NotOpened,
}

/// Something in a journal that was passed over. Lines count from 1.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    #[error("line {line} is no record")]
    Garbage { line: usize },
    #[error("line {line} is longer than a record can be")]
    TooLong { line: usize },
    #[error("line {line} is a record of the unknown kind {kind:?}")]
    UnknownRecord { line: usize, kind: String },
    #[error("the last line is torn after {bytes} bytes")]
    Torn { bytes: usize },
    #[error("line {line} does not fit: {error}")]
    Misplaced { line: usize, error: ApplyError },
    #[error("{count} more lines have problems")]
    More { count: usize },
}

/// What a journal says.
#[derive(Clone, Debug, PartialEq)]
pub struct Folded {
    pub manifest: Manifest,
    pub opened: SessionOpened,
    /// The last process that took the session up after the one that opened it.
    pub process: Option<ProcessStarted>,
    /// At most 100, the rest counted.
    pub problems: Vec<Problem>,
    /// Whether the journal ends with a newline: if not, the next writer has to begin with one.
    pub ends_with_newline: bool,
}

impl Folded {
    /// The boot in which the last process had the session.
    pub fn last_boot_id(&self) -> &str {
        self.process.as_ref().map_or(&self.opened.boot_id, |process| &process.boot_id)
    }
}

const PROBLEMS_LISTED: usize = 100;

/// Applies every line of a journal. A torn last line, garbage, unknown and misplaced records are passed over
/// and told; nothing after them is lost.
pub fn fold(journal: &[u8]) -> Result<Folded, JournalError> {
    let mut folder = Folder::default();
    for line in journal.split_inclusive(|&byte| byte == b'\n') {
        folder.line(line);
    }
    folder.finish()
}

/// Folds a journal line by line, for those too big to hold.
#[derive(Debug, Default)]
pub struct Folder {
    lines: usize,
    opened: Option<(SessionOpened, Manifest)>,
    process: Option<ProcessStarted>,
    problems: Problems,
    torn: bool,
}

impl Folder {
    /// Takes the next line with its newline; only the last may be without.
    pub fn line(&mut self, line: &[u8]) {
        self.lines += 1;
        let bytes = line.strip_suffix(b"\n");
        self.torn = bytes.is_none();
        let bytes = bytes.unwrap_or(line);
        if bytes.is_empty() {
            return;
        }
        if let Err(problem) = parse(self.lines, bytes, self.torn).and_then(|record| self.apply(record)) {
            self.problems.add(problem);
        }
    }

    /// A line that was too long to be read.
    pub fn skip_line(&mut self) {
        self.lines += 1;
        self.problems.add(Problem::TooLong { line: self.lines });
    }

    fn apply(&mut self, record: Record) -> Result<(), Problem> {
        let line = self.lines;
        let Some((_, manifest)) = &mut self.opened else {
            // Without the opening there is no session to apply it to.
            let Record::SessionOpened(opened) = record else { return Err(Problem::Garbage { line }) };
            self.opened = Some((opened.clone(), opened.into()));
            return Ok(());
        };
        manifest.apply(&record).map_err(|error| Problem::Misplaced { line, error })?;
        if let Record::ProcessStarted(started) = record {
            self.process = Some(started);
        }
        Ok(())
    }

    pub fn finish(self) -> Result<Folded, JournalError> {
        let (opened, manifest) = self.opened.ok_or(JournalError::NotOpened)?;
        let problems = self.problems.finish();
        Ok(Folded { manifest, opened, process: self.process, problems, ends_with_newline: !self.torn })
    }
}

fn parse(line: usize, bytes: &[u8], is_last: bool) -> Result<Record, Problem> {
    if bytes.len() > limits::LINE_BYTES {
        return Err(Problem::TooLong { line });
    }
    match serde_json::from_slice(bytes) {
        Ok(record) => Ok(record),
        Err(_) if is_last => Err(Problem::Torn { bytes: bytes.len() }),
        Err(_) => match serde_json::from_slice::<Tag>(bytes) {
            Ok(Tag { record: kind }) if !KNOWN.contains(&kind.as_str()) => {
                Err(Problem::UnknownRecord { line, kind: cut(&kind).to_owned() })
            }
            _ => Err(Problem::Garbage { line }),
        },
    }
}

#[derive(serde::Deserialize)]
struct Tag {
    record: String,
}

/// Every tag of [`Record`]; a test holds the two together.
pub(super) const KNOWN: [&str; 20] = [
    "session_opened",
    "process_started",
    "participant_added",
    "participant_renamed",
    "presence_began",
    "presence_ended",
    "track_added",
    "state_began",
    "state_ended",
    "segment_opened",
    "segment_progress",
    "gap",
    "segment_closed",
    "event",
    "events_merged",
    "recovery_done",
    "session_ended",
    "sha256",
    "verified",
    "checkpoint",
];

#[derive(Debug, Default)]
struct Problems {
    listed: Vec<Problem>,
    more: usize,
}

impl Problems {
    fn add(&mut self, problem: Problem) {
        if self.listed.len() < PROBLEMS_LISTED { self.listed.push(problem) } else { self.more += 1 }
    }

    fn finish(mut self) -> Vec<Problem> {
        if self.more > 0 {
            self.listed.push(Problem::More { count: self.more });
        }
        self.listed
    }
}
