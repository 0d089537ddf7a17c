//! The supervised tree: SupervisorActor ⟶ CallActor ⟶ PeerActor ⟶ TrackWriterActor, and what carries media beside it.
//!
//! Knows nothing of Matrix, WebRTC or HTTP libraries; the daemon implements the traits of [`ports`].

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic, reason = "a test that fails may panic"))]

pub mod call;
mod clock_fit;
mod drops;
mod journal;
pub mod lane;
pub mod observe;
mod open_file;
pub mod peer;
pub mod ports;
pub mod pump;
pub mod ring;
mod rooms;
pub mod segment;
pub mod session;
mod snapshot;
pub mod storage;
pub mod supervise;
pub mod supervisor;
pub mod testing;
mod track_file;
pub mod world;
pub mod writer;

#[cfg(test)]
mod tests;
