//! One 1:1 call from its invite to its end, as its callee: receive-only, polite.

use std::time::Duration;

use super::compose::{Envelope, Outgoing};
use super::signal::{
    CallSignal, DescriptionKind, Purpose, RemoteCandidate, SignalBody, StreamMetadata, Version,
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
/// After the peer closed its connection its hang-up is on its way.
const CLOSED_LIMIT: Duration = Duration::from_secs(3);
/// Candidates taken in one call, trickled or late.
const MOST_CANDIDATES: usize = 1_000;

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
    Opening { since: BootTime },
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
    /// The caller left the room.
    Left,
    /// We were removed from the room.
    Removed,
    RoomUpgraded,
    AnsweredElsewhere,
    /// Checks or the path failed.
    ConnectionLost,
    /// The offer could not be used.
    BadOffer,
    Shutdown,
    /// A fault of ours.
    Failed,
}

impl CallEnd {
    /// As the manifest spells it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hangup => "hangup",
            Self::Left => "everyone_left",
            Self::Removed => "removed",
            Self::RoomUpgraded => "room_upgraded",
            Self::AnsweredElsewhere => "answered_elsewhere",
            Self::ConnectionLost => "connection_lost",
            Self::BadOffer => "bad_offer",
            Self::Shutdown => "shutdown",
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
    candidates: usize,
    /// Candidates that came before the connection was there.
    waiting: Vec<RemoteCandidate>,
    recording: bool,
    negotiating: bool,
    /// The newest offer that came while another was being applied.
    next_offer: Option<String>,
}

impl OneToOne {
    /// Takes an invite; the first action opens the connection.
    pub fn new(key: CallKey, invite: &CallSignal, me: &str, my_party: &str) -> (Self, Vec<CallAction>) {
        let (offer, metadata) = match &invite.body {
            SignalBody::Invite { offer, metadata, .. } => (offer.clone(), metadata.clone()),
            _ => (String::new(), None),
        };
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
            candidates: 0,
            waiting: Vec::new(),
            recording: false,
            negotiating: false,
            next_offer: None,
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
        if signal.sender == self.me {
            // Another device of ours took or refused the call before we did.
            return match (self.phase, signal.body) {
                (CallPhase::Opening { .. }, SignalBody::Answer | SignalBody::Reject) => {
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
            | SignalBody::Answer
            | SignalBody::Unused => vec![CallAction::Ignored],
        }
        .into_iter()
        .chain(self.tick(now))
        .collect()
    }

    fn take_candidates(&mut self, mut list: Vec<RemoteCandidate>) -> Vec<CallAction> {
        list.truncate(MOST_CANDIDATES.saturating_sub(self.candidates));
        self.candidates += list.len();
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
        merged.extend(newer);
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
        if self.negotiating || self.is_opening() {
            // Strictly one after the other; of those that wait the newest counts.
            self.next_offer = Some(sdp);
            return Vec::new();
        }
        self.negotiating = true;
        vec![CallAction::Renegotiate { offer: sdp }]
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
        self.negotiating = false;
        if matches!(self.phase, CallPhase::Ended(_)) {
            return Vec::new();
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

    fn next_offer(&mut self) -> Vec<CallAction> {
        match self.next_offer.take() {
            Some(sdp) => self.offer(sdp),
            None => Vec::new(),
        }
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
            self.envelope.hangup(if end == CallEnd::Shutdown { "user_hangup" } else { "unknown_error" })
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
mod tests {
    use serde_json::json;

    use super::*;
    use crate::call::RoomEvent;

    const NOW: BootTime = BootTime(1_000_000_000_000);

    fn event(event_type: &str, sender: &str, party: &str, content: serde_json::Value) -> CallSignal {
        let mut content = content;
        content["call_id"] = json!("c1");
        content["party_id"] = json!(party);
        content["version"] = json!("1");
        CallSignal::parse(&RoomEvent {
            room: "!r:hs".into(),
            event_id: "$e".into(),
            sender: sender.into(),
            event_type: event_type.into(),
            content,
            received: NOW,
            age: Duration::ZERO,
        })
        .unwrap()
    }

    fn ada(event_type: &str, content: serde_json::Value) -> CallSignal {
        event(event_type, "@ada:hs", "ADA", content)
    }

    fn ringing() -> OneToOne {
        let invite = ada(
            "m.call.invite",
            json!({"offer": {"type": "offer", "sdp": "v=0"},
                "sdp_stream_metadata": {"s1": {"purpose": "m.usermedia"}}}),
        );
        let (call, actions) = OneToOne::new(CallKey(1), &invite, "@bot:hs", "BOT");
        assert_eq!(actions, [CallAction::Open { offer: "v=0".into() }]);
        call
    }

    fn connected() -> OneToOne {
        let mut call = ringing();
        call.opened(Some("v=0"), NOW);
        assert_eq!(call.connection(ConnectionLevel::Connected, NOW), [CallAction::BeginRecording]);
        call
    }

    fn sent(actions: &[CallAction]) -> Vec<&'static str> {
        actions
            .iter()
            .filter_map(|action| match action {
                CallAction::Send(outgoing) => Some(outgoing.event_type),
                _ => None,
            })
            .collect()
    }

    #[test]
    fn the_answer_goes_out_before_any_candidates() {
        let mut call = ringing();
        assert_eq!(sent(&call.opened(Some("v=0"), NOW)), ["m.call.answer", "m.call.candidates"]);
    }

    #[test]
    fn candidates_that_came_while_the_answer_was_made_are_used_after_it() {
        let mut call = ringing();
        let list = json!({"candidates": [{"candidate": "candidate:1", "sdpMid": "0"}]});
        assert!(call.signal(ada("m.call.candidates", list), NOW).is_empty());
        let actions = call.opened(Some("v=0"), NOW);
        assert!(matches!(&actions[2], CallAction::AddCandidates(list) if list.len() == 1));
    }

    #[test]
    fn an_offer_that_cannot_be_used_is_rejected() {
        let mut call = ringing();
        let actions = call.opened(None, NOW);
        assert_eq!(sent(&actions), ["m.call.reject"]);
        assert_eq!(actions.last(), Some(&CallAction::End(CallEnd::BadOffer)));
    }

    #[test]
    fn an_answer_that_is_never_made_ends_the_call() {
        let mut call = ringing();
        assert!(call.tick(NOW + Duration::from_secs(59)).is_empty());
        assert_eq!(sent(&call.tick(NOW + Duration::from_secs(60))), ["m.call.hangup"]);
    }

    #[test]
    fn a_hangup_of_the_caller_ends_the_call_without_a_reply() {
        let mut call = connected();
        assert_eq!(
            call.signal(ada("m.call.hangup", json!({"reason": "user_hangup"})), NOW),
            [CallAction::End(CallEnd::Hangup)]
        );
    }

    #[test]
    fn a_hangup_of_another_party_of_the_caller_is_ignored() {
        let mut call = connected();
        let other = event("m.call.hangup", "@ada:hs", "OTHER", json!({}));
        assert_eq!(call.signal(other, NOW), [CallAction::Ignored]);
        assert_eq!(call.phase(), CallPhase::Connected);
    }

    #[test]
    fn select_answer_of_another_party_ends_it_silently() {
        let mut call = connected();
        let other = ada("m.call.select_answer", json!({"selected_party_id": "ELSE"}));
        assert_eq!(call.signal(other, NOW), [CallAction::End(CallEnd::AnsweredElsewhere)]);
        let mut call = connected();
        let ours = ada("m.call.select_answer", json!({"selected_party_id": "BOT"}));
        assert!(call.signal(ours, NOW).is_empty());
    }

    #[test]
    fn offers_are_applied_one_after_the_other_and_the_newest_of_those_waiting_counts() {
        let mut call = connected();
        let offer =
            |sdp: &str| ada("m.call.negotiate", json!({"description": {"type": "offer", "sdp": sdp}}));
        assert_eq!(call.signal(offer("a"), NOW), [CallAction::Renegotiate { offer: "a".into() }]);
        assert!(call.signal(offer("b"), NOW).is_empty());
        assert!(call.signal(offer("c"), NOW).is_empty());
        let actions = call.renegotiated(Some("v=0"));
        assert_eq!(sent(&actions), ["m.call.negotiate"]);
        assert_eq!(actions.last(), Some(&CallAction::Renegotiate { offer: "c".into() }));
    }

    #[test]
    fn an_answer_to_nothing_is_ignored() {
        let mut call = connected();
        let answer = ada("m.call.negotiate", json!({"description": {"type": "answer", "sdp": "v=0"}}));
        assert_eq!(call.signal(answer, NOW), [CallAction::Ignored]);
    }

    #[test]
    fn a_silent_path_is_given_forty_seconds() {
        let mut call = connected();
        call.connection(ConnectionLevel::Disconnected, NOW);
        assert!(call.tick(NOW + Duration::from_secs(39)).is_empty());
        let actions = call.tick(NOW + Duration::from_secs(40));
        assert_eq!(sent(&actions), ["m.call.hangup"]);
        assert_eq!(call.phase(), CallPhase::Ended(CallEnd::ConnectionLost));
    }

    #[test]
    fn a_path_that_comes_back_goes_on() {
        let mut call = connected();
        call.connection(ConnectionLevel::Disconnected, NOW);
        let later = NOW + Duration::from_secs(20);
        assert_eq!(
            call.connection(ConnectionLevel::Connected, later),
            [CallAction::Note(CallFact::Reconnected)]
        );
        assert!(call.tick(later + Duration::from_secs(60)).is_empty());
    }

    #[test]
    fn a_peer_that_closed_its_connection_has_three_seconds_to_hang_up() {
        let mut call = connected();
        call.connection(ConnectionLevel::Closed, NOW);
        assert!(call.tick(NOW + Duration::from_secs(2)).is_empty());
        assert!(!call.tick(NOW + Duration::from_secs(3)).is_empty());
        assert_eq!(call.phase(), CallPhase::Ended(CallEnd::Hangup));
    }

    #[test]
    fn a_caller_who_leaves_the_room_has_hung_up() {
        let mut call = connected();
        assert!(call.user_left("@eve:hs").is_empty());
        assert_eq!(call.user_left("@ada:hs"), [CallAction::End(CallEnd::Left)]);
    }

    #[test]
    fn metadata_is_merged_and_never_forgotten() {
        let mut call = connected();
        let screen = json!({"sdp_stream_metadata": {"s2": {"purpose": "m.screenshare"}}});
        let actions = call.signal(ada("m.call.sdp_stream_metadata_changed", screen.clone()), NOW);
        assert_eq!(actions, [CallAction::MetadataChanged]);
        assert!(call.signal(ada("m.call.sdp_stream_metadata_changed", screen), NOW).is_empty());
        assert_eq!(source_of(MediaKind::Video, Some("s2"), call.metadata()), Source::Screen);
        assert_eq!(source_of(MediaKind::Audio, Some("s1"), call.metadata()), Source::Microphone);
        assert_eq!(source_of(MediaKind::Audio, Some("s9"), call.metadata()), Source::Unknown);
    }

    #[test]
    fn a_flood_of_candidates_is_bounded() {
        let mut call = connected();
        let mut taken = 0;
        for _ in 0..200 {
            let list: Vec<_> = (0..100).map(|n| json!({"candidate": format!("candidate:{n}")})).collect();
            for action in call.signal(ada("m.call.candidates", json!({"candidates": list})), NOW) {
                if let CallAction::AddCandidates(list) = action {
                    taken += list.len();
                }
            }
        }
        assert_eq!(taken, MOST_CANDIDATES);
    }
}
