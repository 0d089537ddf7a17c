//! The one status message of a session: sent once, then edited in place, seldom enough.

use std::time::Duration;

use super::action::{MessageKind, MessageTag, Relation};
use super::input::Progress;
use super::limits;
use super::settings::Settings;
use super::texts::{Words, why};
use crate::call::Announcement;
use crate::manifest::EndReason;
use crate::time::BootTime;
use crate::words::{count, cut_to, duration};

/// For how long a message counts as under way, where nobody says what became of it.
const UNDER_WAY: Duration = Duration::from_secs(120);
/// How often the last edit is tried.
const LAST_TRIES: u8 = 3;
/// Characters of one warning.
const WARNING_LENGTH: usize = 160;

/// What the message says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Connecting,
    Recording,
    /// Nobody but us is in the call.
    Alone,
    /// The process is ending; the next may go on.
    Paused,
    Stopping,
    Over(EndReason),
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Shown {
    pub(super) phase: Phase,
    pub(super) duration_s: f64,
    participants: usize,
    streams: usize,
    warnings: Vec<String>,
    restored: bool,
}

impl Shown {
    /// `first` is a warning that goes before those of the call.
    pub(super) fn of(progress: &Progress, first: Option<String>, phase: Phase, restored: bool) -> Self {
        Self {
            phase,
            duration_s: progress.duration_s,
            participants: progress.participants,
            streams: progress.streams,
            warnings: first
                .iter()
                .chain(&progress.warnings)
                .take(limits::WARNINGS)
                .map(|warning| cut_to(warning, WARNING_LENGTH))
                .collect(),
            restored,
        }
    }

    fn differs(&self, other: &Self) -> bool {
        Self { duration_s: 0.0, ..self.clone() } != Self { duration_s: 0.0, ..other.clone() }
    }

    pub(super) fn words(&self) -> Words {
        let state = match self.phase {
            Phase::Connecting => "○ Joining the call",
            Phase::Recording => "● Recording",
            Phase::Alone => "● Recording, nobody is in the call",
            Phase::Paused => "○ Paused",
            Phase::Stopping => "○ Ending the recording",
            Phase::Over(_) => "■ Recorded",
        };
        let mut words = Words::default().bold(state);
        // Nothing is known of what a process before this one recorded.
        if self.phase != Phase::Over(EndReason::Restarted) || self.streams > 0 {
            words = words
                .text(&format!(" · {} · ", duration(self.duration_s)))
                .text(&count(self.participants, "participant", "participants"))
                .text(" · ")
                .text(&count(self.streams, "stream", "streams"));
        }
        if let Phase::Over(reason) = self.phase {
            words = words.text(" · ").text(why(reason));
        }
        if self.phase == Phase::Paused {
            return words.line().text(
                "The recorder is being stopped, and nothing is recorded while it is away. If it is back while this call \
                 lasts, the recording goes on.",
            );
        }
        if self.restored && !matches!(self.phase, Phase::Over(EndReason::Restarted)) {
            words = words.line().text("The recorder was restarted in this session and went on.");
        }
        for warning in &self.warnings {
            words = words.line().text("⚠ ").remote(warning, WARNING_LENGTH);
        }
        words
    }
}

/// A status message and what has become of it.
#[derive(Clone, Debug)]
pub(super) struct Status {
    /// Its event, once known.
    event: Option<String>,
    /// What is under way.
    under_way: Option<MessageTag>,
    /// When it was last sent or edited.
    sent: Option<BootTime>,
    /// What it says; `None` if that is not known.
    shown: Option<Shown>,
    wanted: Shown,
    tries_left: u8,
}

impl Status {
    pub(super) fn new(event: Option<String>, wanted: Shown) -> Self {
        Self { event, under_way: None, sent: None, shown: None, wanted, tries_left: LAST_TRIES }
    }

    pub(super) fn want(&mut self, wanted: Shown) {
        self.wanted = wanted;
    }

    /// What to send now, if anything; `tag` makes its name.
    pub(super) fn step(
        &mut self,
        settings: &Settings,
        now: BootTime,
        tag: impl FnOnce(MessageKind) -> MessageTag,
    ) -> Option<(MessageTag, Announcement, Relation)> {
        // Nobody is there to say it a moment later.
        let at_once = self.wanted.phase == Phase::Paused && self.event.is_some();
        let since = self.sent.map(|at| now.saturating_since(at)).filter(|_| !at_once);
        if since.is_some_and(|since| since < settings.status_every) {
            return None;
        }
        if self.under_way.is_some() && since.is_some_and(|since| since < UNDER_WAY) {
            return None;
        }
        let due = self.shown.as_ref().is_none_or(|shown| {
            let older = (self.wanted.duration_s - shown.duration_s).abs();
            self.wanted.differs(shown) || older >= settings.status_refresh.as_secs_f64()
        });
        if !due || (self.is_last() && self.tries_left == 0) {
            return None;
        }
        let (kind, relation) = match &self.event {
            Some(event) => (MessageKind::StatusEdit, Relation::Edit { event: event.clone() }),
            None => (MessageKind::Status, Relation::None),
        };
        if self.is_last() {
            self.tries_left -= 1;
        }
        let tag = tag(kind);
        self.under_way = Some(tag);
        self.sent = Some(now);
        self.shown = Some(self.wanted.clone());
        Some((tag, self.wanted.words().notice(), relation))
    }

    /// Whether the message was ours.
    pub(super) fn said(&mut self, tag: MessageTag, event: &str) -> bool {
        let ours = self.under_way == Some(tag);
        if ours {
            self.under_way = None;
            if tag.kind == MessageKind::Status {
                self.event = Some(event.to_owned());
            }
        }
        ours
    }

    pub(super) fn failed(&mut self, tag: MessageTag) -> bool {
        let ours = self.under_way == Some(tag);
        if ours {
            self.under_way = None;
            self.shown = None;
        }
        ours
    }

    pub(super) fn event(&self) -> Option<&str> {
        self.event.as_deref()
    }

    fn is_last(&self) -> bool {
        matches!(self.wanted.phase, Phase::Over(_))
    }

    /// Nothing remains to be said.
    pub(super) fn is_done(&self) -> bool {
        let said = self.under_way.is_none() && self.shown.as_ref() == Some(&self.wanted);
        let given_up = self.tries_left == 0 && self.under_way.is_none();
        self.is_last() && (said || given_up)
    }
}
