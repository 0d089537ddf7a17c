//! What each record does to the manifest.

use serde_json::Value;

use super::{
    ApplyError, EndReason, Event, EventKind, Gap, GapCause, LeaveReason, Manifest, MediaState, Open,
    Participant, Presence, Record, Seconds, Segment, SegmentOpened, SegmentProgress, SessionState, Track,
    TrackState, VideoFormat, limits,
};
use crate::ids::{ParticipantId, TrackId};

/// Bytes of an event's `detail` that are kept; a bigger one is replaced by a note.
const DETAIL_BYTES: usize = 8 * limits::TEXT_BYTES;
/// The shortest interval without media that is listed.
const GAP: Seconds = Seconds::from_micros(1_000_000);

impl Manifest {
    /// Applies one record. What is refused has changed nothing; the same records give the same manifest.
    pub fn apply(&mut self, record: &Record) -> Result<(), ApplyError> {
        let after_the_end = matches!(
            record,
            Record::Sha256 { .. }
                | Record::Verified { .. }
                | Record::RecoveryDone(_)
                | Record::Checkpoint { .. }
                | Record::ProcessStarted(_)
                // Recovery closes what the end left open.
                | Record::SegmentClosed { .. }
        );
        if self.ended_s.is_some() && !after_the_end {
            return Err(ApplyError::Ended);
        }
        match record {
            Record::SessionOpened(_) => Err(ApplyError::OpenAlready),
            Record::ProcessStarted(_) => Ok(()),
            Record::ParticipantAdded { participant, user_id, device_id, party_id, display_name } => {
                if self.participant(participant).is_some() {
                    return Err(ApplyError::Exists(participant.to_string()));
                }
                let added = Participant {
                    id: participant.clone(),
                    user_id: cut_option(user_id),
                    device_id: cut_option(device_id),
                    party_id: cut_option(party_id),
                    display_name: cut_option(display_name),
                    presence: Vec::new(),
                    tracks: Vec::new(),
                };
                push(&mut self.participants, added, "participants", limits::PARTICIPANTS)
            }
            Record::ParticipantRenamed { participant, user_id, device_id, party_id, display_name } => {
                let known = self.participant_mut(participant)?;
                for (field, new) in [
                    (&mut known.user_id, user_id),
                    (&mut known.device_id, device_id),
                    (&mut known.party_id, party_id),
                    (&mut known.display_name, display_name),
                ] {
                    if new.is_some() {
                        *field = cut_option(new);
                    }
                }
                Ok(())
            }
            Record::PresenceBegan { participant, at_s } => {
                let stays = &mut self.participant_mut(participant)?.presence;
                if stays.last().is_some_and(|stay| stay.left_s.is_none()) {
                    return Err(ApplyError::Exists(format!("a stay of {participant}")));
                }
                let stay = Presence { joined_s: *at_s, left_s: None, reason: None };
                push(stays, stay, "stays of a participant", limits::PRESENCES)
            }
            Record::PresenceEnded { participant, at_s, reason } => {
                let stay = self.participant_mut(participant)?.presence.last_mut();
                let stay = stay.filter(|stay| stay.left_s.is_none());
                let stay = stay.ok_or_else(|| ApplyError::NotBegun(format!("a stay of {participant}")))?;
                stay.left_s = Some((*at_s).max(stay.joined_s));
                stay.reason.clone_from(reason);
                Ok(())
            }
            Record::TrackAdded { participant, track, source, kind } => {
                if self.track(track).is_some() {
                    return Err(ApplyError::Exists(track.to_string()));
                }
                let tracks = &mut self.participant_mut(participant)?.tracks;
                let added = Track {
                    id: track.clone(),
                    source: source.clone(),
                    kind: kind.clone(),
                    states: Vec::new(),
                    segments: Vec::new(),
                };
                push(tracks, added, "tracks of a participant", limits::TRACKS)
            }
            Record::StateBegan { track, at_s, state } => self.begin_state(track, *at_s, state),
            Record::StateEnded { track, at_s, state } => self.end_state(track, *at_s, state),
            Record::SegmentOpened(opened) => self.open_segment(opened),
            Record::SegmentProgress(progress) => self.progress(progress),
            Record::Gap { file, from_s, to_s, cause } => {
                let gap = Gap { from_s: *from_s, to_s: (*to_s).max(*from_s), cause: cause.clone() };
                push(&mut self.open_segment_mut(file)?.gaps, gap, "gaps of a segment", limits::GAPS)
            }
            Record::SegmentClosed { file, segment } => self.close_segment(file, segment),
            Record::Event(event) => self.add_event(event),
            Record::EventsMerged { replaces, event } => self.merge_events(*replaces, event),
            Record::RecoveryDone(recovery) => {
                push(&mut self.recoveries, recovery.clone(), "recoveries", limits::PROBLEMS)
            }
            Record::SessionEnded { ended_s, end_reason, stopped_by, state } => {
                self.end(*ended_s, end_reason, stopped_by, state);
                Ok(())
            }
            Record::Sha256 { file, sha256 } => {
                self.segment_mut(file)?.sha256 = Some(cut(sha256).to_owned());
                Ok(())
            }
            Record::Verified { verified, problems } => {
                self.integrity.verified = *verified;
                self.integrity.problems = problems.iter().take(limits::PROBLEMS).cloned().collect();
                Ok(())
            }
            Record::Checkpoint { manifest } => {
                self.clone_from(manifest);
                Ok(())
            }
        }
    }

    fn participant_mut(&mut self, id: &ParticipantId) -> Result<&mut Participant, ApplyError> {
        let found = self.participants.iter_mut().find(|participant| participant.id == *id);
        found.ok_or_else(|| ApplyError::NoParticipant(id.clone()))
    }

    fn track_mut(&mut self, id: &TrackId) -> Result<&mut Track, ApplyError> {
        let mut tracks = self.participants.iter_mut().flat_map(|participant| &mut participant.tracks);
        tracks.find(|track| track.id == *id).ok_or_else(|| ApplyError::NoTrack(id.clone()))
    }

    fn segment_mut(&mut self, file: &str) -> Result<&mut Segment, ApplyError> {
        let tracks = self.participants.iter_mut().flat_map(|participant| &mut participant.tracks);
        let mut segments = tracks.flat_map(|track| &mut track.segments);
        segments
            .find(|segment| segment.file == file)
            .ok_or_else(|| ApplyError::NoSegment(cut(file).to_owned()))
    }

    fn open_segment_mut(&mut self, file: &str) -> Result<&mut Segment, ApplyError> {
        let segment = self.segment_mut(file)?;
        if segment.is_final { Err(ApplyError::Closed(segment.file.clone())) } else { Ok(segment) }
    }

    fn begin_state(&mut self, id: &TrackId, at: Seconds, state: &Open<MediaState>) -> Result<(), ApplyError> {
        let states = &mut self.track_mut(id)?.states;
        if states.iter().any(|known| known.state == *state && known.to_s.is_none()) {
            return Err(ApplyError::Exists(format!("{state} of {id}")));
        }
        let begun = TrackState { from_s: at, to_s: None, state: state.clone() };
        push(states, begun, "states of a track", limits::STATES)
    }

    fn end_state(&mut self, id: &TrackId, at: Seconds, state: &Open<MediaState>) -> Result<(), ApplyError> {
        let track = self.track_mut(id)?;
        let open = track.states.iter_mut().rev().find(|known| known.state == *state && known.to_s.is_none());
        let open = open.ok_or_else(|| ApplyError::NotBegun(format!("{state} of {id}")))?;
        let ended = (open.from_s, at.max(open.from_s));
        open.to_s = Some(ended.1);
        if state.is(MediaState::OptedOut) {
            note_opt_out(track, ended);
        }
        Ok(())
    }

    fn open_segment(&mut self, opened: &SegmentOpened) -> Result<(), ApplyError> {
        if self.segment(&opened.file).is_some() {
            return Err(ApplyError::Exists(cut(&opened.file).to_owned()));
        }
        let segment = Segment {
            file: opened.file.clone(),
            codec: opened.codec.clone(),
            start_s: opened.start_s,
            end_s: opened.start_s,
            media_seconds: Seconds::ZERO,
            frames: 0,
            bytes: 0,
            sha256: None,
            is_final: false,
            opened_because: opened.opened_because.clone(),
            clock_map: Vec::new(),
            clock: super::ClockFit { offset_s: opened.start_s, ..Default::default() },
            ledger: super::Ledger::default(),
            gaps: Vec::new(),
            dtx_s: Seconds::ZERO,
            clock_uncertain_s: opened.clock_uncertain_s,
            video: opened.video.clone(),
            audio: opened.audio,
        };
        let segments = &mut self.track_mut(&opened.track)?.segments;
        push(segments, segment, "segments of a track", limits::SEGMENTS)
    }

    fn progress(&mut self, progress: &SegmentProgress) -> Result<(), ApplyError> {
        let segment = self.open_segment_mut(&progress.file)?;
        segment.end_s = progress.end_s.max(segment.start_s);
        segment.media_seconds = progress.media_seconds;
        segment.frames = progress.frames;
        segment.bytes = progress.bytes;
        segment.dtx_s = progress.dtx_s;
        segment.ledger.clone_from(&progress.ledger);
        if let Some(map) = &progress.clock_map {
            segment.clock_map = map.iter().take(limits::CLOCK_POINTS).copied().collect();
            if !segment.clock_map.is_empty() {
                segment.start_s = segment.session_time(Seconds::ZERO);
                segment.end_s = segment.end_s.max(segment.start_s);
            }
        }
        if let Some(clock) = &progress.clock {
            segment.clock = clock.clone();
        }
        if progress.audio.is_some() {
            segment.audio = progress.audio;
        }
        if let Some(resolutions) = &progress.resolutions {
            let video = segment.video.get_or_insert_with(VideoFormat::default);
            video.resolutions = resolutions.iter().take(limits::FORMATS).copied().collect();
        }
        if let Some(rotations) = &progress.rotations {
            let video = segment.video.get_or_insert_with(VideoFormat::default);
            video.rotations = rotations.iter().take(limits::FORMATS).copied().collect();
        }
        Ok(())
    }

    fn close_segment(&mut self, file: &str, closed: &Segment) -> Result<(), ApplyError> {
        // A second time is a correction: the clock map is computed again when the whole session's evidence is there.
        let segment = self.segment_mut(file)?;
        let mut closed = closed.clone();
        closed.file.clone_from(&segment.file);
        closed.sha256 = closed.sha256.or_else(|| segment.sha256.take());
        closed.is_final = true;
        closed.end_s = closed.end_s.max(closed.start_s);
        // Whoever closes a file knows what is in it, not what came after it.
        let opted_out = |gap: &&Gap| gap.cause.is(GapCause::OptedOut);
        if closed.gaps.iter().all(|gap| !opted_out(&gap)) {
            closed.gaps.extend(segment.gaps.iter().filter(opted_out).cloned());
        }
        closed.clock_map.truncate(limits::CLOCK_POINTS);
        closed.gaps.truncate(limits::GAPS);
        if let Some(video) = &mut closed.video {
            video.resolutions.truncate(limits::FORMATS);
            video.rotations.truncate(limits::FORMATS);
        }
        *segment = closed;
        Ok(())
    }

    fn merge_events(&mut self, replaces: u32, event: &Event) -> Result<(), ApplyError> {
        for _ in 0..replaces {
            let same = |old: &Event| {
                old.kind == event.kind && old.track == event.track && old.participant == event.participant
            };
            match self.events.iter().rposition(same) {
                Some(index) => drop(self.events.remove(index)),
                None => break,
            }
        }
        self.add_event(event)
    }

    /// What people said of being recorded finds room, whatever else has happened.
    fn add_event(&mut self, event: &Event) -> Result<(), ApplyError> {
        let is_consent = matches!(
            event.kind.known(),
            Some(EventKind::Command | EventKind::Consent | EventKind::OptedOut | EventKind::OptedIn)
        );
        let limit = if is_consent { limits::EVENTS } else { limits::EVENTS - limits::EVENTS_OF_CONSENT };
        push(&mut self.events, bounded(event), "events", limit)
    }

    /// Ends the session; whoever is still there leaves with it, and signalled states end.
    fn end(
        &mut self,
        at: Seconds,
        reason: &Open<EndReason>,
        stopped_by: &Option<String>,
        state: &Open<SessionState>,
    ) {
        self.ended_s = Some(at);
        self.end_reason = Some(reason.clone());
        self.stopped_by = cut_option(stopped_by);
        self.state = state.clone();
        for participant in &mut self.participants {
            for stay in participant.presence.iter_mut().filter(|stay| stay.left_s.is_none()) {
                stay.left_s = Some(at.max(stay.joined_s));
                stay.reason = Some(LeaveReason::SessionEnded.into());
            }
            for track in &mut participant.tracks {
                let mut opted_out = None;
                for state in track.states.iter_mut().filter(|state| state.to_s.is_none()) {
                    let to_s = at.max(state.from_s);
                    state.to_s = Some(to_s);
                    if state.state.is(MediaState::OptedOut) {
                        opted_out = Some((state.from_s, to_s));
                    }
                }
                if let Some(interval) = opted_out {
                    note_opt_out(track, interval);
                }
            }
        }
    }
}

/// The gap that an opt-out left, with the segment that it ended.
fn note_opt_out(track: &mut Track, (from_s, to_s): (Seconds, Seconds)) {
    if to_s - from_s < GAP {
        return;
    }
    let ended = track.segments.iter_mut().rev().find(|segment| segment.start_s <= from_s);
    if let Some(segment) = ended.filter(|segment| segment.gaps.len() < limits::GAPS) {
        segment.gaps.push(Gap { from_s, to_s, cause: GapCause::OptedOut.into() });
    }
}

fn push<T>(list: &mut Vec<T>, item: T, what: &'static str, limit: usize) -> Result<(), ApplyError> {
    if list.len() >= limit {
        return Err(ApplyError::TooMany { what, limit });
    }
    list.push(item);
    Ok(())
}

/// The longest beginning of a text that the limit allows.
pub(super) fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(limits::TEXT_BYTES)]
}

fn cut_option(text: &Option<String>) -> Option<String> {
    text.as_deref().map(|text| cut(text).to_owned())
}

fn bounded(event: &Event) -> Event {
    let mut event = event.clone();
    let size = serde_json::to_vec(&event.detail).map_or(usize::MAX, |json| json.len());
    if size > DETAIL_BYTES {
        event.detail.clear();
        event.detail.insert("left_out_bytes".to_owned(), Value::from(size));
    }
    event
}
