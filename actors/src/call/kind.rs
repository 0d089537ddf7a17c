//! Call kinds behind one port: a kind is a machine of recorder-core, and what it wants done is said in one vocabulary.

use recorder_core::call::{
    CallAction, CallEnd, CallFact, CallPhase, CallSignal, ConnectionLevel, OneToOne, Outgoing,
    RemoteCandidate, StreamMetadata, Version,
};
use recorder_core::ids::{CallKey, LegId};
use recorder_core::manifest::{CallKind, LeaveReason};
use recorder_core::mesh::{self, Member, Mesh, MeshAction, MeshEnd, MeshSettings, ToDeviceSignal};
use recorder_core::time::BootTime;
use serde_json::Value;

use super::input::CallInput;
use crate::ports::MediaError;
use crate::world::World;

/// This instant on both clocks that machines know.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    pub(super) boot: BootTime,
    /// Milliseconds since 1970.
    pub(super) utc_ms: i64,
}

impl Now {
    pub(super) fn of(world: &World) -> Self {
        Self { boot: world.clock.now(), utc_ms: world.clock.utc_micros() / 1_000 }
    }
}

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
    /// Set up a connection that we offer; the machine is told [`CallInput::Dialled`].
    Dial {
        leg: LegId,
        peer: PeerKey,
        screen: bool,
    },
    /// Apply the answer to our offer; the machine is told [`CallInput::Applied`].
    ApplyAnswer {
        leg: LegId,
        sdp: String,
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
    /// Send an event to one device.
    SendToDevice {
        user: String,
        device: String,
        event_type: &'static str,
        content: Value,
    },
    /// Send our membership of the call; the machine is told [`CallInput::Published`].
    Publish {
        content: Value,
    },
    /// Take it back.
    Unpublish {
        content: Value,
    },
    /// The session begins, if it has not.
    BeginRecording,
    /// A participant is in the call; what arrives on `leg` is recorded as theirs.
    Present {
        peer: PeerKey,
        party: Option<String>,
        leg: Option<LegId>,
    },
    /// A participant is in the call no more.
    Gone {
        peer: PeerKey,
        reason: LeaveReason,
    },
    /// A participant is in the call for whom there is no place.
    Beyond {
        peer: PeerKey,
    },
    /// The leg is over.
    CloseLeg {
        leg: LegId,
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
    Mesh(Box<Mesh>),
}

impl Machine {
    pub(super) fn one_to_one(world: &World, key: CallKey, invite: &CallSignal) -> (Self, Vec<Effect>) {
        let (machine, actions) = OneToOne::new(key, invite, &world.settings.user, &world.settings.device);
        let effects = one_to_one(&machine, actions);
        (Self::OneToOne(Box::new(machine)), effects)
    }

    /// A group call that is recorded from its beginning on.
    pub(super) fn mesh(settings: MeshSettings) -> (Self, Vec<Effect>) {
        (Self::Mesh(Box::new(Mesh::new(settings))), vec![Effect::BeginRecording])
    }

    pub(super) fn kind(&self) -> CallKind {
        match self {
            Self::OneToOne(_) => CallKind::OneToOne,
            Self::Mesh(_) => CallKind::Mesh,
        }
    }

    pub(super) fn input(&mut self, input: CallInput, now: Now) -> Vec<Effect> {
        match self {
            Self::OneToOne(machine) => {
                let actions = one_to_one_input(machine, input, now.boot);
                one_to_one(machine, actions)
            }
            Self::Mesh(machine) => {
                let actions = mesh_input(machine, input, now);
                full_mesh(machine, actions)
            }
        }
    }

    /// A leg's connection is as said; told at every change and at will.
    pub(super) fn connection(&mut self, leg: LegId, level: ConnectionLevel, now: Now) -> Vec<Effect> {
        match self {
            Self::OneToOne(machine) => {
                let actions = machine.connection(level, now.boot);
                one_to_one(machine, actions)
            }
            Self::Mesh(machine) => {
                let actions = machine.connection(leg, level, now.boot);
                full_mesh(machine, actions)
            }
        }
    }

    pub(super) fn tick(&mut self, now: Now) -> Vec<Effect> {
        match self {
            Self::OneToOne(machine) => {
                let actions = machine.tick(now.boot);
                one_to_one(machine, actions)
            }
            Self::Mesh(machine) => {
                let actions = machine.tick(now.boot, now.utc_ms);
                full_mesh(machine, actions)
            }
        }
    }

    /// What the sender says of the streams of a leg.
    pub(super) fn metadata(&self, leg: LegId) -> Option<&StreamMetadata> {
        match self {
            Self::OneToOne(machine) => machine.metadata(),
            Self::Mesh(machine) => machine.metadata(leg),
        }
    }

    /// The signal is for this device in this call.
    pub(super) fn is_addressee(&self, signal: &ToDeviceSignal) -> bool {
        match self {
            Self::OneToOne(_) => false,
            Self::Mesh(machine) => machine.is_addressee(signal),
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
            Self::Mesh(machine) if machine.ended().is_some() => "ending",
            Self::Mesh(_) => "recording",
        }
    }

    /// Version of the signalling, as [`crate::ports::LiveCall`] keeps it.
    pub(super) fn version(&self) -> u8 {
        match self {
            Self::OneToOne(machine) => u8::from(machine.version() == Version::V1),
            Self::Mesh(_) => 1,
        }
    }

    /// Who is said to be in a group call that runs and cannot be reached, `known` being those of whom that was so before
    /// it; and who is in it and not said to be.
    pub(super) fn attendance(&self, known: &[Member]) -> Option<(Vec<Member>, Vec<Member>)> {
        match self {
            Self::Mesh(machine) if machine.ended().is_none() => {
                Some((machine.unreachable(known), machine.overdue()))
            }
            Self::OneToOne(_) | Self::Mesh(_) => None,
        }
    }

    /// Content of our membership event without this device, for the homeserver to send if we die.
    pub(super) fn leave_content(&self, now: Now) -> Option<Value> {
        match self {
            Self::OneToOne(_) => None,
            Self::Mesh(machine) => Some(machine.leave_content(now.utc_ms)),
        }
    }
}

fn one_to_one_input(machine: &mut OneToOne, input: CallInput, now: BootTime) -> Vec<CallAction> {
    match input {
        CallInput::Signal(signal) => machine.signal(*signal, now),
        // Not the offer's fault.
        CallInput::Opened { answer: Err(MediaError::Full(_)), .. } => machine.stop(CallEnd::Busy),
        CallInput::Opened { answer, .. } => machine.opened(answer.as_deref().ok(), now),
        CallInput::Renegotiated { answer, .. } => machine.renegotiated(answer.as_deref().ok()),
        CallInput::UserLeft(user) => machine.user_left(&user),
        CallInput::RoomUpgraded => machine.stop(CallEnd::RoomUpgraded),
        CallInput::Stop(ending) => machine.stop(ending.end),
        CallInput::Members { .. }
        | CallInput::Device(_)
        | CallInput::Dialled { .. }
        | CallInput::Applied { .. }
        | CallInput::Published(_) => vec![CallAction::Ignored],
    }
}

fn mesh_input(machine: &mut Mesh, input: CallInput, now: Now) -> Vec<MeshAction> {
    match input {
        CallInput::Members { members, own } => machine.members(&members, own.as_ref(), now.boot, now.utc_ms),
        CallInput::Device(signal) => machine.signal(*signal, now.boot),
        CallInput::Dialled { leg, offer } => machine.dialled(leg, offer.as_deref().ok(), now.boot),
        CallInput::Opened { leg, answer } => machine.accepted(leg, answer.as_deref().ok(), now.boot),
        CallInput::Applied { leg, ok } => machine.applied(leg, ok, now.boot),
        CallInput::Renegotiated { leg, answer, .. } => {
            machine.renegotiated(leg, answer.as_deref().ok(), now.boot)
        }
        CallInput::Published(ok) => machine.published(ok, now.boot),
        CallInput::Stop(ending) => machine.stop(mesh_end(ending.end), now.boot, now.utc_ms),
        // Its room's machine hears of both and says when to stop.
        CallInput::UserLeft(_) | CallInput::RoomUpgraded => Vec::new(),
        CallInput::Signal(_) => vec![MeshAction::Ignored],
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

fn full_mesh(machine: &Mesh, actions: Vec<MeshAction>) -> Vec<Effect> {
    let key = |user: String, device: String| PeerKey { user, device: Some(device) };
    let peer = |leg| machine.peer(leg).map(|(user, device)| key(user.to_owned(), device.to_owned()));
    actions
        .into_iter()
        .filter_map(|action| {
            Some(match action {
                MeshAction::Publish { content } => Effect::Publish { content },
                MeshAction::Unpublish { content } => Effect::Unpublish { content },
                MeshAction::SendToDevice { user, device, event_type, content } => {
                    Effect::SendToDevice { user, device, event_type, content }
                }
                MeshAction::MemberJoined { user, device } => {
                    Effect::Present { party: Some(device.clone()), peer: key(user, device), leg: None }
                }
                MeshAction::LegOpened { leg, user, device, party } => {
                    Effect::Present { peer: key(user, device), party: Some(party), leg: Some(leg) }
                }
                MeshAction::MemberLeft { user, device, reason } => {
                    Effect::Gone { peer: key(user, device), reason: stay_reason(reason) }
                }
                MeshAction::Beyond { user, device } => Effect::Beyond { peer: key(user, device) },
                MeshAction::Dial { leg, screen } => Effect::Dial { leg, peer: peer(leg)?, screen },
                MeshAction::Accept { leg, offer } => Effect::Accept { leg, peer: peer(leg)?, offer },
                MeshAction::ApplyAnswer { leg, sdp } => Effect::ApplyAnswer { leg, sdp },
                MeshAction::Renegotiate { leg, offer } => Effect::Renegotiate { leg, offer },
                MeshAction::AddCandidates { leg, list } => Effect::AddCandidates { leg, list },
                MeshAction::Note { leg, fact } => Effect::Note { leg, fact },
                MeshAction::CloseLeg { leg, why } => {
                    tracing::info!(%leg, reason = why.name(), "a connection of a group call is over");
                    Effect::CloseLeg { leg }
                }
                MeshAction::End(end) => Effect::End(call_end(end)),
                MeshAction::Ignored => Effect::Ignored,
                // The peer is given the newer map with the input; its facts say that it is connected.
                MeshAction::MetadataChanged { .. } | MeshAction::LegConnected { .. } => return None,
            })
        })
        .collect()
}

const fn stay_reason(reason: mesh::LeaveReason) -> LeaveReason {
    match reason {
        mesh::LeaveReason::Left => LeaveReason::Left,
        mesh::LeaveReason::Expired => LeaveReason::Expired,
        mesh::LeaveReason::NewSession => LeaveReason::ConnectionLost,
        mesh::LeaveReason::Stopped => LeaveReason::SessionEnded,
    }
}

const fn mesh_end(end: CallEnd) -> MeshEnd {
    match end {
        CallEnd::Stopped | CallEnd::OptedOut | CallEnd::NotAnnounced | CallEnd::AnsweredElsewhere => {
            MeshEnd::Stopped
        }
        CallEnd::NotPermitted => MeshEnd::NotAllowed,
        CallEnd::Hangup | CallEnd::Terminated => MeshEnd::Terminated,
        CallEnd::Left => MeshEnd::Empty,
        CallEnd::Unreachable => MeshEnd::Unreachable,
        CallEnd::Removed => MeshEnd::Removed,
        CallEnd::RoomUpgraded => MeshEnd::RoomUpgraded,
        CallEnd::Shutdown => MeshEnd::Shutdown,
        CallEnd::ConnectionLost | CallEnd::BadOffer | CallEnd::Busy | CallEnd::DiskFull | CallEnd::Failed => {
            MeshEnd::Failed
        }
    }
}

const fn call_end(end: MeshEnd) -> CallEnd {
    match end {
        MeshEnd::Stopped => CallEnd::Stopped,
        MeshEnd::Terminated => CallEnd::Terminated,
        MeshEnd::Empty => CallEnd::Left,
        MeshEnd::Unreachable => CallEnd::Unreachable,
        MeshEnd::Removed => CallEnd::Removed,
        MeshEnd::RoomUpgraded => CallEnd::RoomUpgraded,
        MeshEnd::Shutdown => CallEnd::Shutdown,
        MeshEnd::NotAllowed => CallEnd::NotPermitted,
        MeshEnd::Failed => CallEnd::Failed,
    }
}

/// Why a participant's stay ends when the call does.
pub(super) fn leave_reason(end: CallEnd) -> LeaveReason {
    match end {
        CallEnd::Hangup | CallEnd::AnsweredElsewhere => LeaveReason::Hangup,
        CallEnd::Left | CallEnd::Unreachable => LeaveReason::Left,
        CallEnd::ConnectionLost => LeaveReason::ConnectionLost,
        CallEnd::Removed
        | CallEnd::RoomUpgraded
        | CallEnd::Shutdown
        | CallEnd::Stopped
        | CallEnd::Terminated
        | CallEnd::OptedOut
        | CallEnd::NotAnnounced
        | CallEnd::NotPermitted
        | CallEnd::DiskFull
        | CallEnd::Busy
        | CallEnd::BadOffer
        | CallEnd::Failed => LeaveReason::SessionEnded,
    }
}
