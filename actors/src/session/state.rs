//! What tellers and the task share.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use recorder_core::ids::{ParticipantId, TrackId};
use recorder_core::manifest::{
    ApplyError, EventCoalescer, Manifest, Record, Seconds, SegmentProgress, SessionClock, media_file_name,
    parse_media_file_name, participant_slug,
};
use recorder_core::media::{Codec, Source};
use tokio::sync::Notify;

use super::PENDING_BYTES;

pub(super) struct Shared {
    state: Mutex<State>,
    pub(super) clock: SessionClock,
    /// How far the process knew that had the session before.
    pub(super) cut_s: Option<Seconds>,
    /// Something structural was told, or the end.
    pub(super) nudge: Notify,
}

/// Lines to write, in order, and the manifest that they lead to.
pub(super) struct Batch {
    pub(super) lines: Lines,
    /// Structural facts told when the batch was taken.
    pub(super) told: u64,
}

pub(super) enum Lines {
    Append(Vec<u8>),
    /// In the place of all lines not yet written.
    Checkpoint(Box<Manifest>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Staleness {
    Fresh,
    Progress,
    Structural,
}

pub(super) struct State {
    pub(super) manifest: Manifest,
    pending: Vec<u8>,
    progress: BTreeMap<String, SegmentProgress>,
    checkpoint: bool,
    events: EventCoalescer,
    told: u64,
    pub(super) rejected: u64,
    pub(super) finishing: bool,
    pub(super) stale: Staleness,
    slugs: HashMap<ParticipantId, String>,
    numbers: HashMap<(ParticipantId, Source), u32>,
    /// File names that an earlier process gave, without their extension and in lower case: a name must not differ in
    /// case alone.
    taken: HashSet<String>,
    /// Tracks named so far.
    tracks: HashMap<(ParticipantId, Source), u32>,
}

impl Shared {
    pub(super) fn new(manifest: Manifest, clock: SessionClock, first_line: Vec<u8>) -> Self {
        let state = State {
            manifest,
            pending: first_line,
            progress: BTreeMap::new(),
            checkpoint: false,
            events: EventCoalescer::default(),
            told: 1,
            rejected: 0,
            finishing: false,
            stale: Staleness::Structural,
            slugs: HashMap::new(),
            numbers: HashMap::new(),
            taken: HashSet::new(),
            tracks: HashMap::new(),
        };
        Self { state: Mutex::new(state), clock, cut_s: None, nudge: Notify::new() }
    }

    /// Of a session that an earlier process left, with all of which its journal has been folded. `names` is what lies in
    /// its folder.
    pub(super) fn resumed(manifest: Manifest, clock: SessionClock, names: &[String]) -> Self {
        let cut_s = Some(manifest.last_s());
        let shared = Self { cut_s, ..Self::new(manifest, clock, Vec::new()) };
        let mut state = shared.lock();
        state.told = 0;
        state.take_names(names);
        drop(state);
        shared
    }

    /// A teller that panicked with the lock held had not begun to change anything that matters: each change
    /// is one `apply`, which refuses before it changes.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Applies a fact and keeps its line. `Ok(true)` if it is worth writing at once.
    pub(super) fn tell(&mut self, record: Record) -> Result<bool, ApplyError> {
        match record {
            Record::SegmentProgress(progress) => self.tell_progress(progress).map(|()| false),
            Record::Event(event) => {
                for record in self.events.push(event) {
                    self.append(&record)?;
                }
                Ok(false)
            }
            record => {
                self.append(&record)?;
                if let Record::SegmentClosed { file, .. } = &record {
                    self.progress.remove(file);
                }
                Ok(record.is_structural())
            }
        }
    }

    fn tell_progress(&mut self, mut progress: SegmentProgress) -> Result<(), ApplyError> {
        let segment = self.manifest.segment(&progress.file);
        let segment = segment.ok_or_else(|| ApplyError::NoSegment(progress.file.clone()))?;
        if !progress.strip_unchanged(segment) {
            return Ok(());
        }
        let record = Record::SegmentProgress(progress);
        self.manifest.apply(&record)?;
        let Record::SegmentProgress(mut progress) = record else { return Ok(()) };
        if !self.checkpoint {
            if let Some(earlier) = self.progress.remove(&progress.file) {
                progress.absorb(earlier);
            }
            self.progress.insert(progress.file.clone(), progress);
        }
        self.stale = self.stale.max(Staleness::Progress);
        Ok(())
    }

    fn append(&mut self, record: &Record) -> Result<(), ApplyError> {
        self.manifest.apply(record)?;
        if record.is_structural() {
            self.told += 1;
            self.stale = Staleness::Structural;
        } else {
            self.stale = self.stale.max(Staleness::Progress);
        }
        if !self.checkpoint {
            let mut line = Vec::new();
            if matches!(record, Record::SessionEnded { .. }) {
                // Nothing but checksums may stand behind the end.
                line = self.progress_lines();
            }
            line.extend_from_slice(&record.to_line());
            if self.pending.len() + line.len() > PENDING_BYTES {
                self.give_up_lines();
            } else {
                self.pending.extend_from_slice(&line);
            }
        }
        Ok(())
    }

    /// Instead of the lines the whole manifest will be written.
    pub(super) fn give_up_lines(&mut self) {
        self.checkpoint = true;
        self.pending = Vec::new();
        self.progress.clear();
    }

    /// Seconds that are over let go of the events they held back.
    pub(super) fn poll_events(&mut self, now: Seconds) {
        let merged = self.events.poll(now);
        self.append_events(merged);
    }

    /// Before the end of the session nothing may be held back.
    pub(super) fn finish_events(&mut self) {
        let merged = self.events.finish();
        self.append_events(merged);
    }

    fn append_events(&mut self, records: Vec<Record>) {
        for record in records {
            if self.append(&record).is_err() {
                self.rejected += 1;
            }
        }
    }

    /// Takes what is to be written; progress only if `with_progress`, so that it is written once a second.
    pub(super) fn take(&mut self, with_progress: bool) -> Batch {
        let lines = if std::mem::take(&mut self.checkpoint) {
            Lines::Checkpoint(Box::new(self.manifest.clone()))
        } else {
            let mut lines = std::mem::take(&mut self.pending);
            if with_progress {
                lines.extend_from_slice(&self.progress_lines());
            }
            Lines::Append(lines)
        };
        Batch { lines, told: self.told }
    }

    fn progress_lines(&mut self) -> Vec<u8> {
        let progress = std::mem::take(&mut self.progress).into_values();
        progress.flat_map(|progress| Record::SegmentProgress(progress).to_line()).collect()
    }

    pub(super) fn has_checkpoint(&self) -> bool {
        self.checkpoint
    }

    pub(super) fn told(&self) -> u64 {
        self.told
    }

    /// The id of the next participant.
    pub(super) fn next_participant(&self) -> ParticipantId {
        let mut number = self.manifest.participants.len();
        loop {
            number += 1;
            let id = ParticipantId::new(format!("p{number}"));
            if self.manifest.participant(&id).is_none() {
                return id;
            }
        }
    }

    /// The id of the next track of this participant and source.
    pub(super) fn name_track(&mut self, participant: &ParticipantId, source: Source) -> TrackId {
        let number = self.tracks.entry((participant.clone(), source)).or_insert(0);
        loop {
            *number = number.saturating_add(1);
            let id = TrackId::new(format!("{participant}-{}-{number}", source.name()));
            if self.manifest.track(&id).is_none() || *number == u32::MAX {
                return id;
            }
        }
    }

    /// The next file name of this participant and source. A participant's slug is fixed when its first file
    /// is named.
    pub(super) fn name_segment(
        &mut self,
        participant: &ParticipantId,
        source: Source,
        codec: Codec,
    ) -> String {
        let slug = match (self.slugs.get(participant), self.manifest.participant(participant)) {
            (Some(slug), _) => slug.clone(),
            (None, known) => {
                let name = known.and_then(|p| p.display_name.as_deref());
                let user = known.and_then(|p| p.user_id.as_deref());
                let slug = participant_slug(name, user, participant);
                self.slugs.insert(participant.clone(), slug.clone());
                slug
            }
        };
        let number = self.numbers.entry((participant.clone(), source)).or_insert(0);
        loop {
            *number = number.saturating_add(1);
            let name = media_file_name(&slug, source, *number, codec);
            if !self.taken.contains(&stem(&name)) || *number == u32::MAX {
                return name;
            }
        }
    }

    /// Goes on where an earlier process stopped to give names: participants keep their slugs, files are counted on.
    fn take_names(&mut self, names: &[String]) {
        let known = self.manifest.segments().map(|segment| segment.file.as_str());
        self.taken = known.chain(names.iter().map(String::as_str)).map(stem).collect();
        for participant in &self.manifest.participants {
            for track in &participant.tracks {
                let Some(source) = track.source.known() else { continue };
                for segment in &track.segments {
                    let Some((slug, _, number)) = parse_media_file_name(&segment.file) else { continue };
                    self.slugs.insert(participant.id.clone(), slug.to_owned());
                    let last = self.numbers.entry((participant.id.clone(), *source)).or_insert(0);
                    *last = number.max(*last);
                }
            }
        }
    }
}

fn stem(name: &str) -> String {
    name.rsplit_once('.').map_or(name, |(stem, _)| stem).to_lowercase()
}
