//! The supervised tree: SupervisorActor ⟶ CallActor ⟶ PeerActor ⟶ TrackWriterActor, and what carries media beside it.
//!
//! Knows nothing of Matrix, WebRTC or HTTP libraries; the daemon implements the traits of [`ports`].

pub mod observe;
pub mod ports;
pub mod ring;
pub mod session;
