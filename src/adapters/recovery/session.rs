//! One session: from journal and media files to an ended manifest.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use recorder_core::ids::{ParticipantId, SessionId, TrackId};
use recorder_core::manifest::{
    ClockPoint, EndReason, Folded, Folder, IntegrityProblem, Manifest, Open, ProcessStarted, Record,
    Recovery, Seconds, Segment, SegmentOpened, SessionClock, SessionState, limits,
};
use recorder_core::media::{Codec, Source};
use recorder_core::mux::HeaderFacts;
use recorder_core::rtp::ReceiverSettings;
use serde::Deserialize;

use super::Now;
use super::media::{FileOutcome, MediaFileError, repair_media_file};
use super::report::{FileReport, SessionOutcome, SessionReport, Unfinished};
use crate::adapters::session_store::{JOURNAL, SNAPSHOT, append_synced, write_snapshot};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Depth {
    /// Sessions that say they have ended are passed by.
    Unfinished,
    Everything,
}

/// Media that was not yet in the page cache when the process died: clusters are flushed at least each second.
const LOST_WITH_PROCESS: Seconds = Seconds::from_micros(1_000_000);
/// Media that was not yet on the medium when the power went: synced each second, plus what the medium takes
/// its time for.
const LOST_WITH_POWER: Seconds = Seconds::from_micros(5_000_000);
/// How far off a start may be of which nothing but the file's provisional one is known.
const PROVISIONAL_ERROR: Seconds = Seconds::from_micros(1_000_000);
/// Media files of a folder that are looked at without the journal naming them.
const ORPHANS: usize = 10_000;

/// Mends the session of a folder; `None` if it has ended and only unfinished ones are wanted. One of `keep` stays open.
pub(super) fn mend(
    folder: &Path,
    now: &Now,
    depth: Depth,
    keep: &HashSet<SessionId>,
) -> Option<SessionReport> {
    let snapshot_ended = snapshot_says_ended(folder);
    if snapshot_ended && depth == Depth::Unfinished {
        return None;
    }
    let folded = match read_journal(folder) {
        Ok(folded) => folded,
        Err(why) => {
            let files = media_files(folder).into_iter().map(|file| look(folder, file, true)).collect();
            let outcome = SessionOutcome::NoJournal { why };
            return Some(SessionReport {
                folder: folder.to_owned(),
                outcome,
                files,
                journal_problems: Vec::new(),
            });
        }
    };
    let journal_problems = folded.problems.iter().map(ToString::to_string).collect();
    let known: Vec<String> = folded.manifest.segments().map(|segment| segment.file.clone()).collect();
    let named: HashSet<&str> = known.iter().map(String::as_str).collect();
    let orphans: Vec<String> =
        media_files(folder).into_iter().filter(|file| !named.contains(file.as_str())).collect();
    let mut files: Vec<FileReport> = known.into_iter().map(|file| look(folder, file, false)).collect();
    files.extend(orphans.into_iter().map(|file| look(folder, file, true)));
    let mut report =
        SessionReport { folder: folder.to_owned(), outcome: SessionOutcome::Ended, files, journal_problems };
    let keep = keep.contains(&folded.manifest.session_id);
    if let Err(error) = conclude(folder, folded, now, snapshot_ended, keep, &mut report) {
        report.outcome = SessionOutcome::NotWritten { why: error.to_string() };
    }
    Some(report)
}

fn look(folder: &Path, file: String, orphan: bool) -> FileReport {
    // The journal is a file like any other: a name in it must not lead out of the folder.
    let is_name = !file.is_empty() && !file.contains(['/', '\0']) && file != "." && file != "..";
    let outcome =
        if is_name { repair_media_file(&folder.join(&file)) } else { Err(MediaFileError::NotAFile) };
    FileReport { file, outcome, orphan }
}

/// Writes what was found: new lines in the journal, then the snapshot.
fn conclude(
    folder: &Path,
    folded: Folded,
    now: &Now,
    snapshot_ended: bool,
    keep: bool,
    report: &mut SessionReport,
) -> io::Result<()> {
    let clock = SessionClock::resume(&folded, &now.boot_id, now.boot_time, now.utc);
    let rebooted = folded.last_boot_id().is_empty() || folded.last_boot_id() != now.boot_id;
    let mut ending = Ending { manifest: folded.manifest, lines: Vec::new() };
    let had_ended = ending.manifest.ended_s.is_some();
    if !folded.ends_with_newline {
        ending.lines.push(b'\n');
    }
    if !had_ended {
        ending.add(Record::ProcessStarted(ProcessStarted {
            boot_id: now.boot_id.clone(),
            boot_time_ns: now.boot_time.as_nanos(),
            utc: now.utc,
            at_s: clock.at(now.boot_time),
        }));
    }
    let lost_at_most_s = ending.close_segments(report, rebooted);
    let ended_s = ending.manifest.ended_s.unwrap_or_else(|| ending.manifest.last_s());
    let repaired: Vec<String> = report.repaired().map(str::to_owned).collect();
    if !had_ended || !repaired.is_empty() {
        let at_s = clock.at(now.boot_time).max(ended_s);
        ending.add(Record::RecoveryDone(Recovery { at_s, lost_at_most_s, repaired }));
        let problems = problems(report);
        // Of what is yet to come nobody knows whether it is whole.
        if !keep || !problems.is_empty() {
            ending.add(Record::Verified { verified: Some(problems.is_empty()), problems });
        }
    }
    if !had_ended && keep {
        ending.end_states(ended_s);
    } else if !had_ended {
        ending.end();
    }
    let has_news = ending.lines.len() > 1;
    if has_news {
        append_synced(folder, &ending.lines)?;
    }
    if has_news || !snapshot_ended {
        write_snapshot(folder, &ending.manifest.to_json())?;
    }
    if !had_ended {
        let manifest = &ending.manifest;
        let ended =
            manifest.epoch.as_micros().saturating_add(i64::try_from(ended_s.as_micros()).unwrap_or(i64::MAX));
        let unfinished = Unfinished {
            session_id: manifest.session_id.clone(),
            room_id: manifest.room.id.clone(),
            call_id: manifest.call_id.clone(),
            call_kind: manifest.call_kind.clone(),
            ended: recorder_core::manifest::Utc::from_micros(ended),
            lost_at_most_s,
        };
        report.outcome =
            if keep { SessionOutcome::Kept(unfinished) } else { SessionOutcome::Recovered(unfinished) };
    }
    Ok(())
}

/// What a kept session's journal says.
///
/// # Errors
/// When there is no journal, or when it is no session's, or another's: for people.
pub fn read_left(folder: &Path, session: &SessionId) -> Result<Folded, String> {
    let journal = read_journal(folder)?;
    if journal.manifest.session_id != *session {
        return Err("it is another session's folder".to_owned());
    }
    Ok(journal)
}

/// Ends a session that was kept open and that nobody goes on with, where the recorder last knew of it. The room that it
/// was in.
///
/// # Errors
/// When its journal cannot be read or written: for people.
pub fn end_kept(folder: &Path, session: &SessionId) -> Result<String, String> {
    let journal = read_left(folder, session)?;
    let mut ending = Ending { manifest: journal.manifest, lines: Vec::new() };
    if ending.manifest.ended_s.is_none() {
        if !journal.ends_with_newline {
            ending.lines.push(b'\n');
        }
        ending.end();
        append_synced(folder, &ending.lines).map_err(|error| error.to_string())?;
        write_snapshot(folder, &ending.manifest.to_json()).map_err(|error| error.to_string())?;
    }
    Ok(ending.manifest.room.id)
}

/// The manifest and the lines that lead to it.
struct Ending {
    manifest: Manifest,
    lines: Vec<u8>,
}

impl Ending {
    /// What the manifest refuses is not written either.
    fn add(&mut self, record: Record) -> bool {
        match self.manifest.apply(&record) {
            Ok(()) => {
                self.lines.extend_from_slice(&record.to_line());
                true
            }
            Err(error) => {
                tracing::warn!(%error, "a record of the recovery does not fit the session");
                false
            }
        }
    }

    /// The session ends where the recorder last knew of it.
    fn end(&mut self) {
        let ended_s = self.manifest.last_s();
        self.add(Record::SessionEnded {
            ended_s,
            end_reason: EndReason::Restarted.into(),
            stopped_by: None,
            state: SessionState::Complete.into(),
        });
    }

    /// Signalled states end where the recorder last knew of them; they are signalled again to whoever goes on. A stay does
    /// not end with a process of ours.
    fn end_states(&mut self, at_s: Seconds) {
        let open: Vec<_> = self
            .manifest
            .tracks()
            .flat_map(|track| track.states.iter().map(|state| (track.id.clone(), state)))
            .filter(|(_, state)| state.to_s.is_none())
            .map(|(track, state)| Record::StateEnded { track, at_s, state: state.state.clone() })
            .collect();
        for record in open {
            self.add(record);
        }
    }

    /// Closes every segment whose file is whole now. Returns how much media may be missing.
    fn close_segments(&mut self, report: &SessionReport, rebooted: bool) -> Seconds {
        let mut lost = Seconds::ZERO;
        for file in &report.files {
            let Ok(outcome) = &file.outcome else { continue };
            if file.orphan && !self.adopt(&file.file, &outcome.header) {
                continue;
            }
            let Some(segment) = self.manifest.segment(&file.file).filter(|segment| !segment.is_final) else {
                continue;
            };
            let closed = closed(segment, outcome);
            // What the journal knew of and the file lost again.
            let missing = segment.end_s - closed.end_s;
            let base = if rebooted { LOST_WITH_POWER } else { LOST_WITH_PROCESS };
            // On a path that loses packets what came after a hole may have waited for it.
            let gaps = segment.ledger.lost + segment.ledger.recovered > 0;
            let waiting = if gaps { ReceiverSettings::default().reorder_wait.into() } else { Seconds::ZERO };
            lost = lost.max(base + waiting + missing);
            self.add(Record::SegmentClosed { file: file.file.clone(), segment: Box::new(closed) });
        }
        lost
    }

    /// Takes a file up that the journal lost the opening of, by what its own header says.
    fn adopt(&mut self, file: &str, header: &HeaderFacts) -> bool {
        let manifest = &self.manifest;
        if header.session_id.as_deref() != Some(manifest.session_id.as_str()) {
            return false;
        }
        let Some(codec) = codec(&header.codec_id) else { return false };
        let id = ParticipantId::new(header.participant.clone().unwrap_or_default());
        let Some(participant) = manifest.participant(&id) else { return false };
        let source = header.source.as_deref().map_or(Open::Known(Source::Unknown), source);
        let track = participant.tracks.iter().find(|t| t.source == source && t.kind.is(codec.kind()));
        let track = match track {
            Some(track) => track.id.clone(),
            None => {
                let track = TrackId::new(format!("{id}-{source}-{}", participant.tracks.len() + 1));
                let kind = codec.kind().into();
                let added = Record::TrackAdded { participant: id, track: track.clone(), source, kind };
                if !self.add(added) {
                    return false;
                }
                track
            }
        };
        self.add(Record::SegmentOpened(SegmentOpened {
            track,
            file: file.to_owned(),
            codec: codec.into(),
            start_s: Seconds::new(header.start_s.unwrap_or_default()),
            opened_because: Open::Unknown("unknown".to_owned()),
            clock_uncertain_s: None,
            video: None,
            audio: None,
        }))
    }
}

/// A segment as its repaired file and its last progress line show it. What was counted after that line died
/// with the process, so `received` is what has a fate.
fn closed(segment: &Segment, outcome: &FileOutcome) -> Segment {
    let mut closed = segment.clone();
    let duration = Seconds::new(outcome.duration_s);
    closed.end_s = segment.session_time(duration).max(segment.start_s);
    closed.media_seconds = (segment.media_seconds + (closed.end_s - segment.end_s)).min(duration);
    closed.bytes = outcome.bytes;
    closed.ledger.received = closed.ledger.accounted();
    closed.gaps.retain(|gap| gap.from_s < closed.end_s);
    if closed.clock_map.is_empty() {
        closed.clock_map.push(ClockPoint {
            media_s: Seconds::ZERO,
            session_s: segment.start_s,
            error_s: PROVISIONAL_ERROR,
        });
        closed.clock.error_bound_s = PROVISIONAL_ERROR;
    }
    closed
}

fn problems(report: &SessionReport) -> Vec<IntegrityProblem> {
    let faulty = report.files.iter().filter_map(|file| {
        let problem = match &file.outcome {
            Err(error) => error.to_string(),
            Ok(outcome) if outcome.holes > 0 => format!("{} unreadable places are skipped", outcome.holes),
            Ok(_) => return None,
        };
        Some(IntegrityProblem { file: Some(file.file.clone()), problem })
    });
    faulty.take(limits::PROBLEMS).collect()
}

fn codec(matroska: &str) -> Option<Codec> {
    Some(match matroska {
        "A_OPUS" => Codec::Opus,
        "V_VP8" => Codec::Vp8,
        "V_VP9" => Codec::Vp9,
        "V_AV1" => Codec::Av1,
        "V_MPEG4/ISO/AVC" => Codec::H264,
        "V_MPEGH/ISO/HEVC" => Codec::H265,
        _ => return None,
    })
}

fn source(name: &str) -> Open<Source> {
    let known = [Source::Microphone, Source::Camera, Source::Screen, Source::ScreenAudio, Source::Unknown];
    known.into_iter().find(|source| source.name() == name).unwrap_or(Source::Unknown).into()
}

/// Names of plain files that look like media, sorted.
fn media_files(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let plain = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()));
    let names = plain.filter_map(|entry| entry.file_name().into_string().ok());
    let is_media = |name: &String| name.ends_with(".webm") || name.ends_with(".mkv");
    let mut names: Vec<String> = names.filter(is_media).take(ORPHANS).collect();
    names.sort();
    names
}

/// Folds a folder's journal line by line.
pub(super) fn read_journal(folder: &Path) -> Result<Folded, String> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(folder.join(JOURNAL));
    let file = file.map_err(|error| format!("the journal cannot be read: {error}"))?;
    fold_lines(BufReader::with_capacity(64 << 10, file)).map_err(|error| match error {
        Unfoldable::Io(error) => format!("the journal cannot be read: {error}"),
        Unfoldable::Journal(error) => error.to_string(),
    })
}

#[derive(Debug, thiserror::Error)]
enum Unfoldable {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Journal(#[from] recorder_core::manifest::JournalError),
}

fn fold_lines(mut journal: BufReader<File>) -> Result<Folded, Unfoldable> {
    let mut folder = Folder::default();
    let mut line = Vec::new();
    loop {
        line.clear();
        let limit = limits::LINE_BYTES as u64 + 1;
        if journal.by_ref().take(limit).read_until(b'\n', &mut line)? == 0 {
            return Ok(folder.finish()?);
        }
        if line.len() as u64 == limit && !line.ends_with(b"\n") {
            folder.skip_line();
            journal.skip_until(b'\n')?;
        } else {
            folder.line(&line);
        }
    }
}

#[derive(Deserialize)]
struct Snapshot {
    state: Open<SessionState>,
}

fn snapshot_says_ended(folder: &Path) -> bool {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(folder.join(SNAPSHOT));
    let state = file.ok().and_then(|file| serde_json::from_reader::<_, Snapshot>(BufReader::new(file)).ok());
    state.is_some_and(|snapshot| {
        snapshot.state.is(SessionState::Complete) || snapshot.state.is(SessionState::Failed)
    })
}
