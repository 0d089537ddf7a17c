//! What the recorder knows, without doing anything: machines that turn input and time into actions, formats, clocks.
//!
//! No I/O, no clock, no tasks, no async crate: `Cargo.toml` proves it. Time is always an argument.

pub mod call;
pub mod ids;
pub mod manifest;
pub mod media;
pub mod mesh;
pub mod mux;
pub mod plan;
pub mod restart;
pub mod room;
pub mod rtp;
pub mod time;
pub mod timeline;
mod words;
