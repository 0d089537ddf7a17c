//! Call kinds behind one port: a kind is a machine of recorder-core, and what it wants done is said in one vocabulary.

use recorder_core::call::{
    CallAction, CallEnd, CallFact, CallPhase, CallSignal, ConnectionLevel, OneToOne, Outgoing,
    RemoteCandidate, StreamMetadata, Version,
};
use recorder_core::ids::{CallKey, LegId};
use recorder_core::manifest::{CallKind, LeaveReason};
use recorder_core::time::BootTime;

use super::slot::CallInput;
use crate::world::World;

/// Whom a connection leads to: one device of one user. In 1:1 calls the device is not said.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PeerKey {
    pub user: String,
    pub device: Option<String>,
}

/// What a machine wants done.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Effect {
    /// Set up a leg's connection from a remote offer; the machine is told [`CallInput::Opened`].
    Accept {
        leg: LegId,
        peer: PeerKey,
        offer: String,
    },
    /// Apply a later offer; the machine is told [`CallInput::Renegotiated`].
    Renegotiate {
        leg: LegId,
        offer: String,
    },
    AddCandidates {
        leg: LegId,
        list: Vec<RemoteCandidate>,
    },
    /// Send an event into the room.
    Send(Outgoing),
    /// The session begins, if it has not.
    BeginRecording,
    /// A participant is in the call; what arrives on `leg` is recorded as theirs.
    Present {
        peer: PeerKey,
        party: Option<String>,
        leg: Option<LegId>,
    },
    Note {
        leg: LegId,
        fact: CallFact,
    },
    End(CallEnd),
    /// A signal out of place; counted.
    Ignored,
}

/// The only leg of a 1:1 call.
pub(super) const ONLY_LEG: LegId = LegId(0);

/// A call's machine, whatever its kind.
#[derive(Clone, Debug)]
pub(super) enum Machine {
    OneToOne(Box<OneToOne>),
}

impl Machine {
    pub(super) fn one_to_one(world: &World, key: CallKey, invite: &CallSignal) -> (Self, Vec<Effect>) {
        let (machine, actions) = OneToOne::new(key, invite, &world.settings.user, &world.settings.device);
        let effects = one_to_one(&machine, actions);
        (Self::OneToOne(Box::new(machine)), effects)
    }

    pub(super) fn kind(&self) -> CallKind {
        match self {
            Self::OneToOne(_) => CallKind::OneToOne,
        }
    }

    pub(super) fn input(&mut self, input: CallInput, now: BootTime) -> Vec<Effect> {
        match self {
            Self::OneToOne(machine) => {
                let actions = match input {
                    CallInput::Signal(signal) => machine.signal(*signal, now),
                    CallInput::Opened { answer, .. } => machine.opened(answer.as_deref().ok(), now),
                    CallInput::Renegotiated { answer, .. } => machine.renegotiated(answer.as_deref().ok()),
                    CallInput::UserLeft(user) => machine.user_left(&user),
                    CallInput::RoomUpgraded => machine.stop(CallEnd::RoomUpgraded),
                    CallInput::Stop(end) => machine.stop(end),
                };
                one_to_one(machine, actions)
            }
        }
    }

    /// A leg's connection is as said; told at every change and at will.
    pub(super) fn connection(&mut self, _leg: LegId, level: ConnectionLevel, now: BootTime) -> Vec<Effect> {
        match self {
            Self::OneToOne(machine) => {
                let actions = machine.connection(level, now);
                one_to_one(machine, actions)
            }
        }
    }

    pub(super) fn tick(&mut self, now: BootTime) -> Vec<Effect> {
        match self {
            Self::OneToOne(machine) => {
                let actions = machine.tick(now);
                one_to_one(machine, actions)
            }
        }
    }

    pub(super) fn stop(&mut self, end: CallEnd, now: BootTime) -> Vec<Effect> {
        self.input(CallInput::Stop(end), now)
    }

    /// What the sender says of the streams of a leg.
    pub(super) fn metadata(&self, _leg: LegId) -> Option<&StreamMetadata> {
        match self {
            Self::OneToOne(machine) => machine.metadata(),
        }
    }

    /// For people.
    pub(super) fn state(&self) -> &'static str {
        match self {
            Self::OneToOne(machine) => match machine.phase() {
                CallPhase::Opening { .. } | CallPhase::Connecting { .. } => "connecting",
                CallPhase::Connected => "recording",
                CallPhase::Disconnected { .. } | CallPhase::Closed { .. } => "reconnecting",
                CallPhase::Ended(_) => "ending",
            },
        }
    }

    /// Version of the signalling, as [`crate::ports::LiveCall`] keeps it.
    pub(super) fn version(&self) -> u8 {
        match self {
            Self::OneToOne(machine) => u8::from(machine.version() == Version::V1),
        }
    }
}

fn one_to_one(machine: &OneToOne, actions: Vec<CallAction>) -> Vec<Effect> {
    let caller = || PeerKey { user: machine.caller.clone(), device: None };
    let leg = ONLY_LEG;
    actions
        .into_iter()
        .flat_map(|action| match action {
            CallAction::Open { offer } => vec![Effect::Accept { leg, peer: caller(), offer }],
            CallAction::Renegotiate { offer } => vec![Effect::Renegotiate { leg, offer }],
            CallAction::AddCandidates(list) => vec![Effect::AddCandidates { leg, list }],
            CallAction::Send(event) => vec![Effect::Send(event)],
            CallAction::BeginRecording => {
                let party = machine.caller_party.clone();
                vec![Effect::BeginRecording, Effect::Present { peer: caller(), party, leg: Some(leg) }]
            }
            // The peer was given the newer map with the input.
            CallAction::MetadataChanged => Vec::new(),
            CallAction::Note(fact) => vec![Effect::Note { leg, fact }],
            CallAction::End(end) => vec![Effect::End(end)],
            CallAction::Ignored => vec![Effect::Ignored],
        })
        .collect()
}

/// Why a participant's stay ends when the call does.
pub(super) fn leave_reason(end: CallEnd) -> LeaveReason {
    match end {
        CallEnd::Hangup | CallEnd::AnsweredElsewhere => LeaveReason::Hangup,
        CallEnd::Left => LeaveReason::Left,
        CallEnd::ConnectionLost => LeaveReason::ConnectionLost,
        CallEnd::Removed
        | CallEnd::RoomUpgraded
        | CallEnd::Shutdown
        | CallEnd::BadOffer
        | CallEnd::Failed => LeaveReason::SessionEnded,
    }
}
