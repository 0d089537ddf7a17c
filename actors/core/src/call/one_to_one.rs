//! One 1:1 call from its invite to its end, as its callee: receive-only, polite.

use std::time::Duration;

use super::candidates::CandidateCount;
use super::compose::{Envelope, Outgoing};
use super::pace::{OFFERS, Pace};
use super::signal::{
    CallSignal, DescriptionKind, Purpose, RemoteCandidate, SignalBody, StreamMetadata, Version,
    merge_metadata,
};
use crate::ids::CallKey;
use crate::media::{MediaKind, Source};
use crate::time::BootTime;

/// How long the answer may take to be made; the caller's client rings that long at most.
const OPENING_LIMIT: Duration = Duration::from_secs(60);
/// How long an answered call may take to connect.
const CONNECT_LIMIT: Duration = Duration::from_secs(40);
/// How long a connected call may be silent before it is given up: the caller's client restarts ICE after 2 s and
/// hangs up after 30 s, and its hang-up may travel as long.
const SILENCE_LIMIT: Duration = Duration::from_secs(40);
/// How long an offer may take to be applied; then it is tried again. A fault of ours may have lost the answer, and without
/// one the peer waits for ever.
const APPLY_LIMIT: Duration = Duration::from_secs(5);
/// After the peer closed its connection its hang-up is on its way.
const CLOSED_LIMIT: Duration = Duration::from_secs(3);

/// How the peer connection fares, as far as the call is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionLevel {
    Connecting,
    Connected,
    Disconnected,
    Closed,
    Failed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallPhase {
    /// The media plane works out the answer.
    Opening {
        since: BootTime,
    },
    /// The answer is sent, checks run.
    Connecting {
        since: BootTime,
    },
    Connected,
    /// It was connected and the path is silent.
    Disconnected {
        since: BootTime,
    },
    /// The peer closed its connection and has not hung up yet.
    Closed {
        since: BootTime,
    },
    Ended(CallEnd),
}

/// Why a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallEnd {
    /// The caller hung up.
    Hangup,
    /// The caller left the room; everybody left the group call.
    Left,
    /// Nobody of those in the group call could be reached.
    Unreachable,
    /// We were removed from the room.
    Removed,
    RoomUpgraded,
    AnsweredElsewhere,
    /// Checks or the path failed.
    ConnectionLost,
    /// The offer could not be used.
    BadOffer,
    Shutdown,
    /// By command.
    Stopped,
    /// The group call's event says that it is over.
    Terminated,
    /// The one who called does not want to be recorded.
    OptedOut,
    /// People could not be told that they are recorded.
    NotAnnounced,
    /// We may not take part in the group call.
    NotPermitted,
    /// As many connections are open as there may be.
    Busy,
    /// There is no space to record anything.
    DiskFull,
    /// A fault of ours.
    Failed,
}

impl CallEnd {
    /// As the manifest spells it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hangup => "hangup",
            Self::Left => "everyone_left",
            Self::Unreachable => "unreachable",
            Self::Removed => "removed",
            Self::RoomUpgraded => "room_upgraded",
            Self::AnsweredElsewhere => "answered_elsewhere",
            Self::ConnectionLost => "connection_lost",
            Self::BadOffer => "bad_offer",
            Self::Shutdown => "shutdown",
            Self::Stopped => "stopped",
            Self::Terminated => "terminated",
            Self::OptedOut => "opted_out",
            Self::NotAnnounced => "not_announced",
            Self::NotPermitted => "not_permitted",
            Self::Busy => "busy",
            Self::DiskFull => "disk_full",
            Self::Failed => "failed",
        }
    }
}

/// Something worth an entry in the session's events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallFact {
    Renegotiated,
    Reconnected,
    Disconnected,
}

#[derive(Clone, Debug, PartialEq)]
pub enum CallAction {
    /// Set up the connection; tell [`OneToOne::opened`].
    Open {
        offer: String,
    },
    /// Apply a later offer; tell [`OneToOne::renegotiated`].
    Renegotiate {
        offer: String,
    },
    AddCandidates(Vec<RemoteCandidate>),
    Send(Outgoing),
    /// Media may flow: open the session, start the peer, tell the room.
    BeginRecording,
    /// What the sender says of its streams changed: the peer reconsiders its plan.
    MetadataChanged,
    Note(CallFact),
    /// Close the connection, finish the session, stop.
    End(CallEnd),
    /// A signal out of place; counted.
    Ignored,
}

/// The machine of one call.
#[derive(Clone, Debug)]
pub struct OneToOne {
    pub key: CallKey,
    pub room: String,
    pub call_id: String,
    pub caller: String,
    /// The caller's party; `None` in version 0.
    pub caller_party: Option<String>,
    envelope: Envelope,
    me: String,
    phase: CallPhase,
    metadata: Option<StreamMetadata>,
    candidates: CandidateCount,
    /// Candidates that came before the connection was there.
    waiting: Vec<RemoteCandidate>,
    recording: bool,
    /// The offer that is being applied, and since when.
    negotiating: Option<(String, BootTime)>,
    /// The newest offer that came while another was being applied, or before its turn.
    next_offer: Option<String>,
    pace: Pace,
    /// The last time it was told.
    now: BootTime,
}

impl OneToOne {
    /// Takes an invite; the first action opens the connection.
    pub fn new(key: CallKey, invite: &CallSignal, me: &str, my_party: &str) -> (Self, Vec<CallAction>) {
        let (offer, metadata) = match &invite.body {
            SignalBody::Invite { offer, metadata, .. } => (offer.clone(), metadata.clone()),
            _ => (String::new(), None),
        };
        let mut candidates = CandidateCount::default();
        candidates.describe(&offer);
        let call = Self {
            key,
            room: invite.room.clone(),
            call_id: invite.call_id.clone(),
            caller: invite.sender.clone(),
            caller_party: invite.party.clone(),
            envelope: Envelope {
                call_id: invite.call_id.clone(),
                my_party: my_party.to_owned(),
                version: invite.version,
            },
            me: me.to_owned(),
            phase: CallPhase::Opening { since: invite.received },
            metadata,
            candidates,
            waiting: Vec::new(),
            recording: false,
            negotiating: None,
            next_offer: None,
            pace: Pace::new(OFFERS, invite.received),
            now: invite.received,
        };
        (call, vec![CallAction::Open { offer }])
    }

    pub fn phase(&self) -> CallPhase {
        self.phase
    }

    fn is_opening(&self) -> bool {
        matches!(self.phase, CallPhase::Opening { .. })
    }

    pub fn version(&self) -> Version {
        self.envelope.version
    }

    /// The refusal of an invite, without a call.
    pub fn refuse(invite: &CallSignal, my_party: &str) -> Outgoing {
        Envelope { call_id: invite.call_id.clone(), my_party: my_party.to_owned(), version: invite.version }
            .reject()
    }

    /// What is known of the caller's streams, merged over the call: a screen share that starts again keeps its first
    /// stream id in the SDP while the metadata names a new one, so nothing is ever taken out.
    pub fn metadata(&self) -> Option<&StreamMetadata> {
        self.metadata.as_ref()
    }

    pub fn signal(&mut self, signal: CallSignal, now: BootTime) -> Vec<CallAction> {
        if matches!(self.phase, CallPhase::Ended(_)) {
            return vec![CallAction::Ignored];
        }
        self.now = self.now.max(now);
        if signal.sender == self.me {
            // Another device of ours took or refused the call before we did.
            return match (self.phase, signal.body) {
                (CallPhase::Opening { .. }, SignalBody::Answer { .. } | SignalBody::Reject) => {
                    self.end(CallEnd::AnsweredElsewhere, None)
                }
                _ => vec![CallAction::Ignored],
            };
        }
        // Version 0 has no parties; version 1 speaks for the caller's party only.
        if self.caller_party.is_some() && signal.party != self.caller_party {
            return vec![CallAction::Ignored];
        }
        match signal.body {
            SignalBody::Candidates(list) => self.take_candidates(list),
            SignalBody::SelectAnswer { selected_party } => {
                if selected_party == self.envelope.my_party {
                    Vec::new()
                } else {
                    self.end(CallEnd::AnsweredElsewhere, None)
                }
            }
            SignalBody::Negotiate { kind: DescriptionKind::Offer, sdp, metadata } => {
                let mut actions = self.merge(metadata);
                actions.extend(self.offer(sdp));
                actions
            }
            SignalBody::MetadataChanged(metadata) => self.merge(Some(metadata)),
            SignalBody::Hangup { .. } | SignalBody::Reject => self.end(CallEnd::Hangup, None),
            // We never offer, so there is nothing to answer.
            SignalBody::Negotiate { kind: DescriptionKind::Answer, .. }
            | SignalBody::Invite { .. }
            | SignalBody::Answer { .. }
            | SignalBody::Unused => vec![CallAction::Ignored],
        }
        .into_iter()
        .chain(self.tick(now))
        .collect()
    }

    fn take_candidates(&mut self, mut list: Vec<RemoteCandidate>) -> Vec<CallAction> {
        list.truncate(self.candidates.room());
        self.candidates.take(list.len());
        if list.is_empty() {
            return vec![CallAction::Ignored];
        }
        if self.is_opening() {
            self.waiting.extend(list);
            return Vec::new();
        }
        vec![CallAction::AddCandidates(list)]
    }

    fn merge(&mut self, metadata: Option<StreamMetadata>) -> Vec<CallAction> {
        let Some(newer) = metadata else { return Vec::new() };
        let merged = self.metadata.get_or_insert_default();
        let before = merged.clone();
        merge_metadata(merged, newer);
        // A peer that renames its streams for ever must not grow this map for ever.
        while merged.len() > 256 {
            merged.pop_first();
        }
        if *merged == before { Vec::new() } else { vec![CallAction::MetadataChanged] }
    }

    fn offer(&mut self, sdp: String) -> Vec<CallAction> {
        if self.envelope.version == Version::V0 {
            return vec![CallAction::Ignored];
        }
        self.candidates.describe(&sdp);
        // Strictly one after the other, and no more than can be answered; of those that wait the newest counts.
        let replaced = self.next_offer.replace(sdp).is_some();
        let mut actions = self.next_offer();
        if replaced {
            actions.push(CallAction::Ignored);
        }
        actions
    }

    /// The media plane's answer to [`CallAction::Open`]: `None` if the offer cannot be used.
    pub fn opened(&mut self, answer: Option<&str>, now: BootTime) -> Vec<CallAction> {
        if !self.is_opening() {
            return vec![CallAction::Ignored];
        }
        let Some(sdp) = answer else {
            return self.end(CallEnd::BadOffer, Some(self.envelope.reject()));
        };
        self.phase = CallPhase::Connecting { since: now };
        let mut actions = vec![
            CallAction::Send(self.envelope.answer(sdp)),
            CallAction::Send(self.envelope.end_of_candidates()),
        ];
        let waiting = std::mem::take(&mut self.waiting);
        if !waiting.is_empty() {
            actions.push(CallAction::AddCandidates(waiting));
        }
        actions.extend(self.next_offer());
        actions
    }

    /// The media plane's answer to [`CallAction::Renegotiate`]: `None` if the offer was refused; the call goes on as
    /// it was.
    pub fn renegotiated(&mut self, answer: Option<&str>) -> Vec<CallAction> {
        if matches!(self.phase, CallPhase::Ended(_)) {
            return Vec::new();
        }
        if self.negotiating.take().is_none() {
            return vec![CallAction::Ignored];
        }
        let mut actions = match answer {
            Some(sdp) => vec![
                CallAction::Send(self.envelope.negotiate_answer(sdp)),
                CallAction::Note(CallFact::Renegotiated),
            ],
            None => vec![CallAction::Ignored],
        };
        actions.extend(self.next_offer());
        actions
    }

    /// The offer that waits, if it is its turn, or the one that was being applied for too long.
    fn next_offer(&mut self) -> Vec<CallAction> {
        if self.is_opening() || matches!(self.phase, CallPhase::Ended(_)) {
            return Vec::new();
        }
        match &self.negotiating {
            Some((_, since)) if self.now.saturating_since(*since) < APPLY_LIMIT => return Vec::new(),
            Some((stuck, _)) => {
                self.next_offer.get_or_insert_with(|| stuck.clone());
            }
            None => {}
        }
        if self.next_offer.is_none() || !self.pace.take(self.now) {
            return Vec::new();
        }
        let Some(offer) = self.next_offer.take() else { return Vec::new() };
        self.negotiating = Some((offer.clone(), self.now));
        vec![CallAction::Renegotiate { offer }]
    }

    /// The connection's level, told at every change and at will.
    pub fn connection(&mut self, level: ConnectionLevel, now: BootTime) -> Vec<CallAction> {
        match (self.phase, level) {
            (CallPhase::Ended(_), _) => Vec::new(),
            (CallPhase::Opening { .. }, _) => self.tick(now),
            (CallPhase::Connecting { .. }, ConnectionLevel::Connected) => {
                self.phase = CallPhase::Connected;
                self.recording = true;
                vec![CallAction::BeginRecording]
            }
            (CallPhase::Disconnected { .. } | CallPhase::Closed { .. }, ConnectionLevel::Connected) => {
                self.phase = CallPhase::Connected;
                vec![CallAction::Note(CallFact::Reconnected)]
            }
            (CallPhase::Connected, ConnectionLevel::Disconnected) => {
                self.phase = CallPhase::Disconnected { since: now };
                vec![CallAction::Note(CallFact::Disconnected)]
            }
            (
                CallPhase::Connecting { .. } | CallPhase::Connected | CallPhase::Disconnected { .. },
                ConnectionLevel::Closed,
            ) => {
                self.phase = CallPhase::Closed { since: now };
                Vec::new()
            }
            (_, ConnectionLevel::Failed) => {
                self.end(CallEnd::ConnectionLost, Some(self.envelope.hangup("ice_failed")))
            }
            _ => self.tick(now),
        }
    }

    /// Time passed.
    pub fn tick(&mut self, now: BootTime) -> Vec<CallAction> {
        self.now = self.now.max(now);
        let late = self.look_at_limits(now);
        if late.is_empty() { self.next_offer() } else { late }
    }

    fn look_at_limits(&mut self, now: BootTime) -> Vec<CallAction> {
        let (since, limit, end, reason) = match self.phase {
            CallPhase::Connecting { since } => (since, CONNECT_LIMIT, CallEnd::ConnectionLost, "ice_timeout"),
            CallPhase::Disconnected { since } => {
                (since, SILENCE_LIMIT, CallEnd::ConnectionLost, "ice_failed")
            }
            CallPhase::Closed { since } => (since, CLOSED_LIMIT, CallEnd::Hangup, "user_hangup"),
            CallPhase::Opening { since } => (since, OPENING_LIMIT, CallEnd::Failed, "unknown_error"),
            CallPhase::Connected | CallPhase::Ended(_) => return Vec::new(),
        };
        if now.saturating_since(since) < limit {
            return Vec::new();
        }
        self.end(end, Some(self.envelope.hangup(reason)))
    }

    /// A membership of the room changed: `user` is no longer in it.
    pub fn user_left(&mut self, user: &str) -> Vec<CallAction> {
        if user == self.caller {
            self.end(CallEnd::Left, None)
        } else if user == self.me {
            self.end(CallEnd::Removed, None)
        } else {
            Vec::new()
        }
    }

    /// We end it: the caller is told.
    pub fn stop(&mut self, end: CallEnd) -> Vec<CallAction> {
        let told = if self.is_opening() {
            self.envelope.reject()
        } else {
            self.envelope.hangup(match end {
                CallEnd::Shutdown | CallEnd::Stopped | CallEnd::OptedOut => "user_hangup",
                _ => "unknown_error",
            })
        };
        self.end(end, Some(told))
    }

    fn end(&mut self, end: CallEnd, tell: Option<Outgoing>) -> Vec<CallAction> {
        if matches!(self.phase, CallPhase::Ended(_)) {
            return Vec::new();
        }
        self.phase = CallPhase::Ended(end);
        tell.map(CallAction::Send).into_iter().chain([CallAction::End(end)]).collect()
    }
}

/// What an m-line shows, by the sender's metadata (MSC3077). A peer without metadata has one stream, its user's.
pub fn source_of(kind: MediaKind, msid_stream: Option<&str>, metadata: Option<&StreamMetadata>) -> Source {
    let purpose = match (metadata, msid_stream) {
        (None, _) | (_, None) => Purpose::UserMedia,
        (Some(map), Some(stream)) if map.is_empty() || stream == "-" => Purpose::UserMedia,
        (Some(map), Some(stream)) => map.get(stream).map_or(Purpose::Other, |note| note.purpose),
    };
    match (purpose, kind) {
        (Purpose::UserMedia, MediaKind::Audio) => Source::Microphone,
        (Purpose::UserMedia, MediaKind::Video) => Source::Camera,
        (Purpose::ScreenShare, MediaKind::Audio) => Source::ScreenAudio,
        (Purpose::ScreenShare, MediaKind::Video) => Source::Screen,
        (Purpose::Other, _) => Source::Unknown,
    }
}

#[cfg(test)]
#[path = "one_to_one_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "one_to_one_bad_input.rs"]
mod bad_input;
