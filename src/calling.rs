//! The calling side: synthetic peers on the `webrtc` crate, for `bench` and for tests against our own media
//! loop.
//!
//! The recording side runs on another stack, so no stack is tested against itself. Nothing here ever records.

pub mod caller;
pub mod feedback;
pub mod load;
pub mod media;
pub mod peer;
pub mod receiver;
#[cfg(test)]
mod tests;

use std::time::Duration;

pub use caller::{CallerSettings, SyntheticCaller};
pub use load::{FrameRecord, SentStream, VideoLoad};
pub use receiver::{ReceivedStream, ReceivingPeer};

/// Log targets of the `webrtc` crate that say, for each packet of a late reader or a repeated retransmission,
/// what is harmless here. The daemon's log filter should hold each of them at `off`.
pub const NOISY_LOG_TARGETS: [&str; 5] =
    ["webrtc::peer_connection::driver", "rtc_srtp", "rtc_ice", "rtc_dtls", "rtc_interceptor"];

/// Why a synthetic peer could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum CallingError {
    #[error("the embedded media clip {name} cannot be read: {reason}")]
    BadClip { name: &'static str, reason: &'static str },
    #[error("the peer connection refused to {doing}: {reason}")]
    Refused { doing: &'static str, reason: String },
    #[error("not connected within {after:?}; last state: {state}")]
    NotConnected { after: Duration, state: String },
    #[error("the caller sends neither audio nor video")]
    NothingToSend,
}

/// Turns an error of the `webrtc` crate into one of ours.
fn refused(doing: &'static str) -> impl FnOnce(webrtc::error::Error) -> CallingError {
    move |error| CallingError::Refused { doing, reason: error.to_string() }
}
