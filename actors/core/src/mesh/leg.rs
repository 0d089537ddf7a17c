//! One connection to one session of a participant device, in either role, from its first description to its last.

use std::sync::Arc;
use std::time::Duration;

use super::compose::Address;
use super::{LegEnd, MeshAction, MeshSettings};
use crate::call::{
    CallFact, CallSignal, CandidateCount, ConnectionLevel, DescriptionKind, RemoteCandidate, SignalBody,
    StreamMetadata,
};
use crate::ids::LegId;
use crate::time::BootTime;

/// How long the media plane may take for a description.
const OPENING_LIMIT: Duration = Duration::from_secs(60);
/// `lifetime` of our invites.
const INVITE_LIFETIME: Duration = Duration::from_secs(60);
/// How long an answer may take. Clients answer by themselves, and a lost event is never sent again.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);
/// As in a 1:1 call: connecting, silence until an ICE restart has surely failed, the way of a hang-up.
const CONNECT_LIMIT: Duration = Duration::from_secs(40);
const SILENCE_LIMIT: Duration = Duration::from_secs(40);
const CLOSED_LIMIT: Duration = Duration::from_secs(3);
/// Candidates taken before the connection can take them.
const MOST_WAITING: usize = 200;
/// Streams remembered of one peer.
const MOST_STREAMS: usize = 256;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LegPhase {
    /// The media plane makes our offer.
    Dialling,
    /// The invite is sent.
    Inviting,
    /// The media plane applies the answer.
    Applying,
    /// The media plane answers the peer's offer.
    Accepting,
    /// Both descriptions are there, checks run.
    Connecting,
    Connected,
    /// It was connected and the path is silent.
    Disconnected,
    /// The peer closed its connection and has not hung up yet.
    Closed,
}

/// What the peer is told of an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tell {
    Nothing,
    /// A hang-up once there is an invite or answer of ours, a rejection before; nothing where the peer knows of no call.
    Hangup(&'static str),
}

pub(super) type Ending = (LegEnd, Tell);

#[derive(Clone, Debug)]
pub(super) struct Leg {
    pub(super) id: LegId,
    pub(super) address: Address,
    /// The peer's party; of an outgoing call the answer's.
    party: Option<String>,
    incoming: bool,
    pub(super) phase: LegPhase,
    since: BootTime,
    level: ConnectionLevel,
    /// It was connected at some time.
    pub(super) was_connected: bool,
    pub(super) metadata: Option<StreamMetadata>,
    candidates: CandidateCount,
    waiting: Vec<RemoteCandidate>,
    negotiating: bool,
    /// The newest offer that came while another was being applied.
    next_offer: Option<Arc<str>>,
}

impl Leg {
    pub(super) fn new(id: LegId, address: Address, now: BootTime) -> Self {
        Self {
            id,
            address,
            party: None,
            incoming: false,
            phase: LegPhase::Dialling,
            since: now,
            level: ConnectionLevel::Connecting,
            was_connected: false,
            metadata: None,
            candidates: CandidateCount::default(),
            waiting: Vec::new(),
            negotiating: false,
            next_offer: None,
        }
    }

    /// From the peer's invite.
    pub(super) fn accept(
        id: LegId,
        address: Address,
        party: Option<String>,
        metadata: Option<StreamMetadata>,
        now: BootTime,
    ) -> Self {
        Self { incoming: true, phase: LegPhase::Accepting, party, metadata, ..Self::new(id, address, now) }
    }

    pub(super) fn call_id(&self) -> &str {
        &self.address.envelope.call_id
    }

    /// We offered, and the peer has not answered: its own invite would cross ours.
    pub(super) fn is_calling(&self) -> bool {
        matches!(self.phase, LegPhase::Dialling | LegPhase::Inviting)
    }

    fn enter(&mut self, phase: LegPhase, now: BootTime) {
        self.phase = phase;
        self.since = now;
    }

    pub(super) fn signal(
        &mut self,
        signal: &CallSignal,
        settings: &MeshSettings,
        now: BootTime,
        out: &mut Vec<MeshAction>,
    ) -> Option<Ending> {
        if self.party.is_some() && signal.party != self.party {
            out.push(MeshAction::Ignored);
            return None;
        }
        match &signal.body {
            SignalBody::Candidates(list) => self.take_candidates(list, out),
            SignalBody::Answer { sdp, metadata } if self.phase == LegPhase::Inviting => {
                let Some(sdp) = sdp else {
                    return Some((LegEnd::BadDescription, Tell::Hangup("set_remote_description")));
                };
                self.party.clone_from(&signal.party);
                self.merge(metadata.as_ref(), out);
                self.enter(LegPhase::Applying, now);
                out.push(MeshAction::ApplyAnswer { leg: self.id, sdp: sdp.clone() });
            }
            SignalBody::SelectAnswer { selected_party } if self.incoming => {
                if *selected_party != settings.device {
                    return Some((LegEnd::AnsweredElsewhere, Tell::Nothing));
                }
            }
            // The caller is impolite (client-server API, "Politeness"): our offer stands.
            SignalBody::Negotiate { kind: DescriptionKind::Offer, .. } if self.is_calling() => {
                out.push(MeshAction::Ignored);
            }
            SignalBody::Negotiate { kind: DescriptionKind::Offer, sdp, metadata } => {
                self.merge(metadata.as_ref(), out);
                self.offer(sdp, out);
            }
            SignalBody::MetadataChanged(metadata) => self.merge(Some(metadata), out),
            SignalBody::Hangup { .. } => return Some((LegEnd::Hangup, Tell::Nothing)),
            SignalBody::Reject if self.phase == LegPhase::Inviting => {
                return Some((LegEnd::Rejected, Tell::Nothing));
            }
            SignalBody::Reject => return Some((LegEnd::Hangup, Tell::Nothing)),
            // A second answer, answers to offers that we never make, and what a recorder has no use for.
            SignalBody::Answer { .. }
            | SignalBody::SelectAnswer { .. }
            | SignalBody::Negotiate { kind: DescriptionKind::Answer, .. }
            | SignalBody::Invite { .. }
            | SignalBody::Unused => out.push(MeshAction::Ignored),
        }
        None
    }

    fn take_candidates(&mut self, list: &[RemoteCandidate], out: &mut Vec<MeshAction>) {
        let early = !self.takes_candidates();
        let mut room = self.candidates.room();
        if early {
            room = room.min(MOST_WAITING.saturating_sub(self.waiting.len()));
        }
        let list: Vec<_> = list.iter().take(room).cloned().collect();
        self.candidates.take(list.len());
        if list.is_empty() {
            out.push(MeshAction::Ignored);
        } else if early {
            self.waiting.extend(list);
        } else {
            out.push(MeshAction::AddCandidates { leg: self.id, list });
        }
    }

    /// Both descriptions are there.
    fn takes_candidates(&self) -> bool {
        matches!(
            self.phase,
            LegPhase::Connecting | LegPhase::Connected | LegPhase::Disconnected | LegPhase::Closed
        )
    }

    /// Never forgets: a screen share that starts again keeps its first stream id in the SDP, while the metadata names a
    /// new one.
    fn merge(&mut self, metadata: Option<&StreamMetadata>, out: &mut Vec<MeshAction>) {
        let Some(newer) = metadata else { return };
        let merged = self.metadata.get_or_insert_default();
        let before = merged.clone();
        merged.extend(newer.iter().map(|(stream, note)| (stream.clone(), *note)));
        while merged.len() > MOST_STREAMS {
            merged.pop_first();
        }
        if *merged != before {
            out.push(MeshAction::MetadataChanged { leg: self.id });
        }
    }

    fn offer(&mut self, sdp: &str, out: &mut Vec<MeshAction>) {
        self.candidates.describe(sdp);
        if self.negotiating || !self.takes_candidates() {
            // Strictly one after the other; of those that wait the newest counts.
            self.next_offer = Some(sdp.into());
            return;
        }
        self.negotiating = true;
        out.push(MeshAction::Renegotiate { leg: self.id, offer: sdp.to_owned() });
    }

    fn next_offer(&mut self, out: &mut Vec<MeshAction>) {
        if let Some(sdp) = self.next_offer.take() {
            self.offer(&sdp, out);
        }
    }

    pub(super) fn dialled(
        &mut self,
        offer: Option<&str>,
        settings: &MeshSettings,
        now: BootTime,
        out: &mut Vec<MeshAction>,
    ) -> Option<Ending> {
        if self.phase != LegPhase::Dialling {
            out.push(MeshAction::Ignored);
            return None;
        }
        let Some(sdp) = offer else { return Some((LegEnd::Failed, Tell::Nothing)) };
        self.enter(LegPhase::Inviting, now);
        let invite = self.address.envelope.invite(&self.address.user, INVITE_LIFETIME, sdp);
        out.push(self.address.send(invite, settings));
        None
    }

    pub(super) fn accepted(
        &mut self,
        answer: Option<&str>,
        settings: &MeshSettings,
        now: BootTime,
        out: &mut Vec<MeshAction>,
    ) -> Option<Ending> {
        if self.phase != LegPhase::Accepting {
            out.push(MeshAction::Ignored);
            return None;
        }
        let Some(sdp) = answer else { return Some((LegEnd::BadDescription, Tell::Hangup("user_hangup"))) };
        let answer = self.address.envelope.answer(sdp);
        out.push(self.address.send(answer, settings));
        self.connecting(settings, now, out)
    }

    pub(super) fn applied(
        &mut self,
        ok: bool,
        settings: &MeshSettings,
        now: BootTime,
        out: &mut Vec<MeshAction>,
    ) -> Option<Ending> {
        if self.phase != LegPhase::Applying {
            out.push(MeshAction::Ignored);
            return None;
        }
        if !ok {
            return Some((LegEnd::BadDescription, Tell::Hangup("set_remote_description")));
        }
        if let Some(party) = &self.party {
            let select = self.address.envelope.select_answer(party);
            out.push(self.address.send(select, settings));
        }
        self.connecting(settings, now, out)
    }

    fn connecting(
        &mut self,
        settings: &MeshSettings,
        now: BootTime,
        out: &mut Vec<MeshAction>,
    ) -> Option<Ending> {
        self.enter(LegPhase::Connecting, now);
        let end = self.address.envelope.end_of_candidates();
        out.push(self.address.send(end, settings));
        let list = std::mem::take(&mut self.waiting);
        if !list.is_empty() {
            out.push(MeshAction::AddCandidates { leg: self.id, list });
        }
        self.next_offer(out);
        // The path may have been there before both descriptions were.
        self.connection(self.level, now, out)
    }

    pub(super) fn renegotiated(
        &mut self,
        answer: Option<&str>,
        settings: &MeshSettings,
        out: &mut Vec<MeshAction>,
    ) {
        if !std::mem::take(&mut self.negotiating) {
            out.push(MeshAction::Ignored);
            return;
        }
        match answer {
            Some(sdp) => {
                let answer = self.address.envelope.negotiate_answer(sdp);
                out.push(self.address.send(answer, settings));
                out.push(MeshAction::Note { leg: self.id, fact: CallFact::Renegotiated });
            }
            None => out.push(MeshAction::Ignored),
        }
        self.next_offer(out);
    }

    pub(super) fn connection(
        &mut self,
        level: ConnectionLevel,
        now: BootTime,
        out: &mut Vec<MeshAction>,
    ) -> Option<Ending> {
        self.level = level;
        match (self.phase, level) {
            (_, ConnectionLevel::Failed) => {
                return Some((LegEnd::ConnectionLost, Tell::Hangup("ice_failed")));
            }
            (LegPhase::Connecting, ConnectionLevel::Connected) => {
                self.enter(LegPhase::Connected, now);
                out.push(MeshAction::LegConnected { leg: self.id });
            }
            (LegPhase::Disconnected | LegPhase::Closed, ConnectionLevel::Connected) => {
                self.enter(LegPhase::Connected, now);
                out.push(MeshAction::Note { leg: self.id, fact: CallFact::Reconnected });
            }
            (LegPhase::Connected, ConnectionLevel::Disconnected) => {
                self.enter(LegPhase::Disconnected, now);
                out.push(MeshAction::Note { leg: self.id, fact: CallFact::Disconnected });
            }
            (
                LegPhase::Connecting | LegPhase::Connected | LegPhase::Disconnected,
                ConnectionLevel::Closed,
            ) => {
                self.enter(LegPhase::Closed, now);
            }
            _ => {}
        }
        self.tick(now)
    }

    pub(super) fn tick(&self, now: BootTime) -> Option<Ending> {
        let (limit, end, reason) = match self.phase {
            LegPhase::Dialling | LegPhase::Accepting | LegPhase::Applying => {
                (OPENING_LIMIT, LegEnd::Failed, "unknown_error")
            }
            LegPhase::Inviting => (ANSWER_LIMIT, LegEnd::NoAnswer, "invite_timeout"),
            LegPhase::Connecting => (CONNECT_LIMIT, LegEnd::ConnectionLost, "ice_timeout"),
            LegPhase::Disconnected => (SILENCE_LIMIT, LegEnd::ConnectionLost, "ice_failed"),
            LegPhase::Closed => (CLOSED_LIMIT, LegEnd::Hangup, "user_hangup"),
            LegPhase::Connected => return None,
        };
        (now.saturating_since(self.since) >= limit).then_some((end, Tell::Hangup(reason)))
    }

    /// Tells the peer of the end. Before our answer that has to be a rejection: a caller takes hang-ups only from the
    /// party whose answer it chose.
    pub(super) fn tell(&mut self, tell: Tell, settings: &MeshSettings, out: &mut Vec<MeshAction>) {
        let Tell::Hangup(reason) = tell else { return };
        let last = match self.phase {
            LegPhase::Dialling => return,
            LegPhase::Accepting => self.address.envelope.reject(),
            _ => self.address.envelope.hangup(reason),
        };
        out.push(self.address.send(last, settings));
    }
}
