//! Where vendors stop: each module implements a port of the tree over one library or one part of the system.

mod checksums;
pub mod clock;
pub mod disk;
pub mod feed;
pub mod legacy_call;
pub mod live_calls;
pub mod matrix;
pub mod media;
pub mod recovery;
pub mod room_memory;
pub mod rooms;
pub mod session_store;
pub mod sessions;
