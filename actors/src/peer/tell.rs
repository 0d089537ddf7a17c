//! What a peer tells of its tracks: states that began and ended, events, and what writers put a pause down to.
//!
//! Everything is a level that is compared with what was last said, so that nothing is said twice and nothing ends that
//! never began.

use std::time::Duration;

use recorder_core::ids::Mid;
use recorder_core::manifest::{EventKind, GapCause, MediaState, Record};
use recorder_core::media::{MediaKind, Source};
use recorder_core::plan::Plan;

use super::wanted::{is_sending, mute_changes};
use super::{PeerActor, PeerShared, TrackPlace, Wanted};
use crate::drops::{IN_A_SESSION, Place, dropped};
use crate::journal::event;
use crate::observe::Severity;
use crate::ports::{ConnectionFacts, ConnectionState, Direction};
use crate::supervise::lock;

/// Mutes taken back between two looks that are told one by one.
const MOST_PAIRS: u32 = 64;

/// What the journal was last told of a track.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Said {
    muted: bool,
    /// Unknown before the first look.
    off: Option<bool>,
    held: bool,
    opted_out: bool,
    /// The sender's flag, and how often it had changed.
    flag: bool,
    changes: u32,
}

impl Said {
    /// Whether its m-line sent when it was last looked at, as far as it was not the flag that had a camera be off.
    fn was_sending(self, kind: MediaKind) -> bool {
        self.off == Some(false) || (kind == MediaKind::Video && self.flag)
    }

    /// How often the flag went there and back since, unseen.
    fn unseen_pairs(self, changes: u32) -> u32 {
        let times = changes.wrapping_sub(self.changes);
        // Another stream on the same m-line counts for itself.
        if self.off.is_none() || times > 2 * MOST_PAIRS { 0 } else { times / 2 }
    }
}

impl PeerShared {
    /// Ends the states that were told of, with the stay that they belong to.
    pub(super) fn end_states(&self) {
        for track in self.tracks() {
            let said = std::mem::take(&mut *lock(&track.said));
            for (state, began) in [
                (MediaState::Muted, said.muted),
                (MediaState::SourceOff, said.off == Some(true)),
                (MediaState::Held, said.held),
                (MediaState::OptedOut, said.opted_out),
            ] {
                if began {
                    self.tell_state(&track, state, false);
                }
            }
        }
    }

    fn tell_state(&self, track: &TrackPlace, state: MediaState, began: bool) {
        let at_s = self.session.now_s();
        let id = track.names.track.clone();
        self.session.tell(if began {
            Record::StateBegan { track: id, at_s, state: state.into() }
        } else {
            Record::StateEnded { track: id, at_s, state: state.into() }
        });
    }
}

impl PeerActor {
    /// A remote side puts us on hold by no longer wanting our media (`sendonly`, or `inactive` for music that stopped;
    /// RFC 3264 §8.4) where it did before. Told once per participant.
    pub(super) fn look_for_hold(&self, facts: &ConnectionFacts, wanted: &Wanted) -> bool {
        let is = |direction| facts.media.iter().any(|media| media.direction == direction);
        let two_way = is(Direction::SendRecv);
        let (was_held, held) = {
            let mut counters = lock(&self.shared.counters);
            counters.two_way |= two_way;
            if wanted.opted_out {
                return counters.held;
            }
            let one_way = is(Direction::SendOnly) || is(Direction::Inactive);
            let held = counters.two_way && one_way && !two_way && !is(Direction::RecvOnly);
            (std::mem::replace(&mut counters.held, held), held)
        };
        if held != was_held && !wanted.stop {
            let kind = if held { EventKind::Held } else { EventKind::Unheld };
            let at_s = self.shared.session.now_s();
            self.shared.session.tell(event(at_s, kind, Some(&self.shared.participant), None));
        }
        held
    }

    /// Tells each writer what a pause that begins now would be put down to.
    pub(super) fn tell_causes(&self, plan: &Plan, facts: &ConnectionFacts, held: bool) {
        for (mid, track) in lock(&self.shared.tracks).iter() {
            let Some(planned) = plan.get(mid) else { continue };
            let cause = match (facts.state, planned.muted, planned.kind) {
                (ConnectionState::Disconnected, _, _) => Some(GapCause::Reconnect),
                (_, true, MediaKind::Audio) => Some(GapCause::Muted),
                (_, true, MediaKind::Video) => Some(GapCause::SourceOff),
                (_, false, _) => held.then_some(GapCause::Held),
            };
            let changed = std::mem::replace(&mut *lock(&track.shared.pause_cause), cause) != cause;
            if changed {
                track.slot.nudge();
            }
        }
    }

    /// Says of each track what is not as it was last said; of an opted-out participant's that it is, and no more. A muted
    /// camera is off, as is one whose m-line does not send; a muted microphone is muted. `held` is `None` at the end, when
    /// only what the metadata says still counts: a mute may come together with the hang-up.
    pub(super) fn tell_levels(
        &self,
        plan: &Plan,
        facts: &ConnectionFacts,
        wanted: &Wanted,
        held: Option<bool>,
    ) {
        let opted_out = wanted.opted_out;
        for (mid, track) in lock(&self.shared.tracks).iter() {
            let said = *lock(&track.said);
            if held.is_none() && said.off.is_none() {
                continue;
            }
            if said.opted_out != opted_out {
                lock(&track.said).opted_out = opted_out;
                self.tell_state(track, MediaState::OptedOut, opted_out);
            }
            let Some(planned) = plan.get(mid).filter(|_| !opted_out) else { continue };
            let media = facts.media.iter().find(|media| media.mid == *mid);
            let sending = match held {
                Some(_) => media.is_some_and(is_sending),
                None => said.was_sending(track.kind),
            };
            let held = held.unwrap_or(said.held);
            let muted = planned.muted && track.kind == MediaKind::Audio;
            let off = !sending || (planned.muted && track.kind == MediaKind::Video);
            let changes = media.map_or(0, |media| mute_changes(media, wanted.metadata.as_ref()));
            let now = Said { muted, off: Some(off), held, opted_out, flag: planned.muted, changes };
            let before = std::mem::replace(&mut *lock(&track.said), now);
            for _ in 0..before.unseen_pairs(changes) {
                for flag in [!before.flag, before.flag] {
                    match track.kind {
                        MediaKind::Audio => self.tell_muted(track, flag),
                        MediaKind::Video if sending && before.off == Some(before.flag) => {
                            self.tell_off(track, planned.source, flag);
                        }
                        MediaKind::Video => {}
                    }
                }
            }
            if before.muted != muted {
                self.tell_muted(track, muted);
            }
            match before.off {
                Some(before) if before != off => self.tell_off(track, planned.source, off),
                // On is what a track is without a word in its states.
                None if off => self.tell_off(track, planned.source, true),
                None => self.tell_source(track, planned.source, false),
                Some(_) => {}
            }
            if before.held != held {
                self.tell_state(track, MediaState::Held, held);
            }
        }
    }

    fn tell_muted(&self, track: &TrackPlace, muted: bool) {
        self.tell_state(track, MediaState::Muted, muted);
        self.tell_track(track, if muted { EventKind::Muted } else { EventKind::Unmuted });
    }

    fn tell_off(&self, track: &TrackPlace, source: Source, off: bool) {
        self.tell_state(track, MediaState::SourceOff, off);
        self.tell_source(track, source, off);
    }

    fn tell_source(&self, track: &TrackPlace, source: Source, off: bool) {
        if let Some(kind) = source_event(source, off) {
            self.tell_track(track, kind);
        }
    }

    fn tell_state(&self, track: &TrackPlace, state: MediaState, began: bool) {
        self.shared.tell_state(track, state, began);
    }

    /// What came over the participant's connection and was dropped before it could be read.
    pub(super) fn tell_drops(&self, facts: &ConnectionFacts, at_once: bool) {
        let shared = &self.shared;
        let every = if at_once { Duration::ZERO } else { IN_A_SESSION };
        let now = shared.world.clock.now();
        let Some(count) = lock(&shared.counters).held_drops.grown(facts.held_drops, now, every) else {
            return;
        };
        let at_s = shared.session.now_s();
        shared.session.tell(dropped(at_s, count, Place::BeforeKeys, Some(&shared.participant)));
    }

    pub(super) fn tell_disk(&self, mid: &Mid, source: Source) {
        self.tell(mid, EventKind::DiskLow);
        let what =
            format!("{}'s {} stopped: the disk is nearly full", self.shared.display_name, source.name());
        let now = self.shared.world.clock.utc_micros();
        self.shared.world.board.happened(now, Severity::Warning, what);
    }

    pub(super) fn tell(&self, mid: &Mid, kind: EventKind) {
        if let Some(track) = self.track(mid) {
            self.tell_track(&track, kind);
        }
    }

    pub(super) fn tell_track(&self, track: &TrackPlace, kind: EventKind) {
        let at_s = self.shared.session.now_s();
        self.shared.session.tell(event(at_s, kind, Some(&self.shared.participant), Some(&track.names.track)));
    }
}

fn source_event(source: Source, off: bool) -> Option<EventKind> {
    match (source, off) {
        (Source::Camera, false) => Some(EventKind::CameraOn),
        (Source::Camera, true) => Some(EventKind::CameraOff),
        (Source::Screen, false) => Some(EventKind::ScreenOn),
        (Source::Screen, true) => Some(EventKind::ScreenOff),
        (Source::Microphone | Source::ScreenAudio | Source::Unknown, _) => None,
    }
}
