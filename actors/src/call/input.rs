//! What a CallActor is told, and what becomes of an input at which it panicked.

use recorder_core::call::{CallEnd, CallSignal};
use recorder_core::ids::LegId;
use recorder_core::mesh::{Member, ToDeviceSignal};
use serde_json::Value;

use crate::ports::MediaError;

/// What a CallActor is told.
#[derive(Clone, Debug)]
pub enum CallInput {
    Signal(Box<CallSignal>),
    /// The answer to a leg's first offer.
    Opened {
        leg: LegId,
        answer: Result<String, MediaError>,
    },
    /// The answer to a later offer, which was the leg's `number`th to be applied.
    Renegotiated {
        leg: LegId,
        number: u64,
        answer: Result<String, MediaError>,
    },
    /// The answer to [`crate::ports::MediaPlane::dial`]: our offer.
    Dialled {
        leg: LegId,
        offer: Result<String, MediaError>,
    },
    /// The remote answer was applied, or could not be.
    Applied {
        leg: LegId,
        ok: bool,
    },
    /// The homeserver took our membership, or did not.
    Published(bool),
    /// Who is in the group call now, and the content of our own membership event.
    Members {
        members: Vec<Member>,
        own: Option<Value>,
    },
    /// A call event from device to device.
    Device(Box<ToDeviceSignal>),
    UserLeft(String),
    RoomUpgraded,
    Stop(Ending),
}

impl CallInput {
    /// What outlives the first panic over it: what the tree itself says, once; and offers, because who made one can do nothing
    /// until it is answered. For the rest a remote side says again what it misses, or hangs up.
    pub(super) fn is_tried_again(&self) -> bool {
        match self {
            Self::Signal(signal) => signal.is_offer(),
            Self::Device(device) => device.signal.is_offer(),
            _ => true,
        }
    }

    pub(super) fn ending(&self) -> Option<Ending> {
        match self {
            Self::Stop(ending) => Some(ending.clone()),
            _ => None,
        }
    }
}

/// The input that is being handled.
pub(super) struct InHand {
    pub(super) input: CallInput,
    /// It has outlived a panic before.
    pub(super) again: bool,
}

/// Why a call ends, and whose wish that was.
#[derive(Clone, Debug)]
pub struct Ending {
    pub end: CallEnd,
    /// `None` where nobody asked for it, or nobody whom the manifest may name.
    pub by: Option<String>,
}

impl Ending {
    pub fn because(end: CallEnd) -> Self {
        Self { end, by: None }
    }
}
