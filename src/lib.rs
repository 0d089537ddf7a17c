//! matrix-call-recorder: the daemon. The only crate that knows vendors; see ARCHITECTURE.md for the map.

// The futures of the Matrix SDK nest deeper than the default limit follows.
#![recursion_limit = "512"]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic, reason = "a test that fails may panic"))]

pub mod adapters;
pub mod bench;
pub mod calling;
pub mod cli;
pub mod daemon;
pub mod recording;
pub mod service;
pub mod settings;
pub mod shutdown;
pub mod telemetry;
pub mod web;
