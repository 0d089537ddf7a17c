//! Whether anything arrives over a connection that is up: one that is stuck records nothing, and nothing else says so.

use std::collections::BTreeMap;
use std::time::Duration;

use recorder_core::call::{StreamMetadata, source_of};
use recorder_core::ids::Mid;
use recorder_core::manifest::EventKind;
use recorder_core::media::Source;
use recorder_core::time::BootTime;

use super::wanted::is_muted;
use super::{PeerActor, Wanted};
use crate::journal::event;
use crate::observe::Severity;
use crate::ports::{ConnectionFacts, ConnectionState, RemoteMedia};
use crate::ring::TrackRing;
use crate::supervise::lock;

/// How long every line that should bring media may be silent.
pub(crate) const STALLED_AFTER: Duration = Duration::from_secs(10);

/// What is known of a connection's flow.
#[derive(Debug, Default)]
pub(super) struct Flow {
    /// Lines that should bring media, and since when.
    expected: BTreeMap<Mid, BootTime>,
    /// When it was told to be stalled, until it is told to flow again.
    told: Option<BootTime>,
    pub(super) stalled: bool,
}

impl Flow {
    /// `lines`: those that should bring media now, each with its newest arrival; `newest`: that of all lines there are. What
    /// is to be told, if anything.
    fn look(&mut self, lines: &[(Mid, BootTime)], newest: BootTime, now: BootTime) -> Option<EventKind> {
        self.expected.retain(|mid, _| lines.iter().any(|(line, _)| line == mid));
        let mut silent = !lines.is_empty();
        for (mid, arrival) in lines {
            let since = *self.expected.entry(mid.clone()).or_insert(now);
            silent &= now.saturating_since(since.max(*arrival)) >= STALLED_AFTER;
        }
        self.stalled = silent;
        match self.told {
            None if silent => {
                self.told = Some(now);
                Some(EventKind::Stalled)
            }
            Some(at) if newest > at => {
                self.told = None;
                Some(EventKind::Flowing)
            }
            _ => None,
        }
    }
}

impl PeerActor {
    /// Tells when nothing arrives any more where something should, and when something does again. The call goes on: its
    /// client may mend it, and its end is the client's to say.
    pub(super) fn look_at_flow(&self, facts: &ConnectionFacts, wanted: &Wanted, held: bool) {
        let up = facts.state == ConnectionState::Connected && !wanted.stop && !wanted.opted_out && !held;
        let lines = if up { expected_lines(facts, wanted.metadata.as_ref()) } else { Vec::new() };
        let newest = facts.media.iter().map(last_arrival).max().unwrap_or_default();
        let shared = &self.shared;
        let told = lock(&shared.counters).flow.look(&lines, newest, shared.world.clock.now());
        let Some(kind) = told.filter(|_| !wanted.opted_out) else { return };
        let at_s = shared.session.now_s();
        shared.session.tell(event(at_s, kind, Some(&shared.participant), None));
        let name = &shared.display_name;
        let utc = shared.world.clock.utc_micros();
        if kind == EventKind::Stalled {
            tracing::warn!(peer = self.slot.path(), "the connection is up and brings nothing");
            let what = format!(
                "Nothing arrives from {name} for {} s, though the connection is up",
                STALLED_AFTER.as_secs()
            );
            shared.world.board.happened(utc, Severity::Warning, what);
        } else {
            tracing::info!(peer = self.slot.path(), "media arrives again");
            shared.world.board.happened(utc, Severity::Info, format!("Media of {name} arrives again"));
        }
    }
}

/// Lines that should bring media now, each with its newest arrival. Sound is sent without pauses, because no DTX is
/// agreed upon, and a camera's pictures are; of who is muted nothing need come, and a screen that stands still may be
/// silent for long.
fn expected_lines(facts: &ConnectionFacts, metadata: Option<&StreamMetadata>) -> Vec<(Mid, BootTime)> {
    // A line is known to be used by its first packet; where no line has brought any, each may be the one that should.
    let known = facts.media.iter().any(|media| !media.streams.is_empty());
    let runs =
        |media: &RemoteMedia| media.streams.last().map_or(!known, |ring: &_| !TrackRing::has_ended(ring));
    let moves = |media: &RemoteMedia| {
        let source = source_of(media.kind, media.msid_stream.as_deref(), metadata);
        !matches!(source, Source::Screen | Source::ScreenAudio)
    };
    let lines = facts.media.iter().filter(|media| {
        media.direction.sends()
            && !media.codecs.is_empty()
            && runs(media)
            && moves(media)
            && !is_muted(media, metadata)
    });
    lines.map(|media| (media.mid.clone(), last_arrival(media))).collect()
}

fn last_arrival(media: &RemoteMedia) -> BootTime {
    let arrivals = media.streams.iter().map(|ring| ring.last_arrival());
    arrivals.max().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> BootTime {
        BootTime(1_000_000_000_000) + Duration::from_secs(seconds)
    }

    #[test]
    fn a_line_is_silent_from_when_it_should_have_begun_to_send() {
        let mut flow = Flow::default();
        // It was muted for a minute, and is not any more.
        let line = [(Mid::from("0"), at(0))];
        assert_eq!(flow.look(&[], at(0), at(60)), None);
        assert_eq!(flow.look(&line, at(0), at(61)), None);
        assert_eq!(flow.look(&line, at(0), at(70)), None);
        assert_eq!(flow.look(&line, at(0), at(71)), Some(EventKind::Stalled));
        assert_eq!(flow.look(&line, at(0), at(90)), None, "it is told once");
        assert!(flow.stalled);
        assert_eq!(flow.look(&[], at(0), at(91)), None, "a mute is no flow");
        assert!(!flow.stalled);
        assert_eq!(flow.look(&[], at(92), at(93)), Some(EventKind::Flowing));
    }

    #[test]
    fn one_line_that_flows_is_enough() {
        let mut flow = Flow::default();
        for second in 0..60 {
            let lines = [(Mid::from("0"), at(0)), (Mid::from("1"), at(second))];
            assert_eq!(flow.look(&lines, at(second), at(second)), None);
        }
    }
}
