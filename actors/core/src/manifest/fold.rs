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

const PROBLEMS_LISTED: usize = 100;

/// Applies every line of a journal. A torn last line, garbage, unknown and misplaced records are passed over and told;
/// nothing after them is lost.
pub fn fold(journal: &[u8]) -> Result<Folded, JournalError> {
    let mut opened: Option<SessionOpened> = None;
    let mut manifest: Option<Manifest> = None;
    let mut process = None;
    let mut problems = Problems::default();
    let ends_with_newline = journal.last().is_none_or(|&byte| byte == b'\n');
    let mut lines = journal.split(|&byte| byte == b'\n').enumerate().peekable();
    while let Some((index, bytes)) = lines.next() {
        let line = index + 1;
        if bytes.is_empty() {
            continue;
        }
        let is_last = lines.peek().is_none();
        let record = match parse(line, bytes, is_last) {
            Ok(record) => record,
            Err(problem) => {
                problems.add(problem);
                continue;
            }
        };
        match (record, manifest.as_mut()) {
            (Record::SessionOpened(first), None) => {
                manifest = Some(first.clone().into());
                opened = Some(first);
            }
            // Without the opening there is no session to apply it to.
            (_, None) => problems.add(Problem::Garbage { line }),
            (record, Some(manifest)) => match manifest.apply(&record) {
                Ok(()) => {
                    if let Record::ProcessStarted(started) = record {
                        process = Some(started);
                    }
                }
                Err(error) => problems.add(Problem::Misplaced { line, error }),
            },
        }
    }
    match (manifest, opened) {
        (Some(manifest), Some(opened)) => {
            Ok(Folded { manifest, opened, process, problems: problems.finish(), ends_with_newline })
        }
        _ => Err(JournalError::NotOpened),
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

#[derive(Default)]
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
