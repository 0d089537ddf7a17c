//! From the packets of one stream to the frames of a file: reordering, loss, depacketising, the ledger.
//!
//! [`TrackReceiver`] is the whole of it. The codecs' files hold what the payload formats say.
//!
//! The depacketisers are our own. Those of `rtc-rtp` 0.21.1 were looked at: H.264 and AV1 panic on malformed payloads,
//! H.264 joins stale fragments after a loss; VP8 refuses payloads below four bytes (the legal last fragment of a frame)
//! and keeps flags of the packet before; VP9 refuses a third reference and reads reserved bits as the G flag; Opus is
//! the identity; and the crate brings 70 others into this one.

pub mod av1;
pub mod bits;
pub mod clock;
pub mod continuity;
pub mod depacketise;
pub mod h264;
pub mod h265;
pub mod ledger;
pub mod nal;
pub mod opus;
pub mod output;
pub mod receiver;
pub mod reorder;
pub mod vp8;
pub mod vp9;

pub use depacketise::{Malformed, ParameterSets};
pub use ledger::{Ledger, Reason};
pub use output::{EncodedFrame, FormatChange, OpusFacts, ReceiverOutput, VideoFacts};
pub use receiver::{ReceiverSettings, TrackReceiver};
