//! Newtyped identifiers. An id of one kind can never be passed where another is meant.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }
    };
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub String);

        impl $name {
            pub fn new(text: impl Into<String>) -> Self {
                Self(text.into())
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.to_owned())
            }
        }
    };
}

number_id!(
    /// A call in the tree, counted within this process. Remote `call_id`s are data, never keys.
    CallKey,
    "call-"
);
number_id!(
    /// A peer connection of the media plane, counted within this process.
    ConnectionId,
    "conn-"
);
number_id!(
    /// One run of one incoming RTP stream: a new SSRC on the same m-line is a new `StreamId` with a ring of its own.
    StreamId,
    "stream-"
);
number_id!(
    /// One open media file, counted within this process.
    SegmentId,
    "segment-"
);
number_id!(
    /// How often an actor has been started afresh in its place; the first is 1.
    Generation,
    "g"
);

text_id!(
    /// A recorded session, unique across processes and machines.
    SessionId
);
text_id!(
    /// A participant within a session: `p1`, `p2`, …
    ParticipantId
);
text_id!(
    /// A track within a session: `p1-camera-1`.
    TrackId
);
text_id!(
    /// The media identification of an m-line (RFC 9143 `a=mid`).
    Mid
);

/// One connection to one participant device of a mesh call, counted within that call and never used again in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LegId(pub u32);

impl fmt::Display for LegId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "leg-{}", self.0)
    }
}

impl Generation {
    pub const FIRST: Self = Self(1);

    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}
