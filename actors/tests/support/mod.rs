//! A recording path without network and disk, for tests of what lies between ring and file.
#![allow(dead_code, unused_imports, reason = "each test program uses its part")]

pub mod disk;
pub mod rig;
pub mod sender;

#[path = "../../core/tests/mux_support/mod.rs"]
pub mod mux_support;
#[path = "../../core/tests/rtp_support/mod.rs"]
pub mod rtp_support;

pub use disk::{Disk, Fault};
pub use rig::{Folder, Rig, settings, until, until_taken};
pub use sender::Sender;
