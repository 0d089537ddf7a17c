//! Faults on cue, the one place for them. With the feature `fault-injection` (tests only) actors, pumps, lanes, ports, the
//! media loop and its connections ask here at their named points whether they are to fail; without it every question is
//! compiled away.
//!
//! A fault is armed for a point, for one place (`who`, or [`ANYONE`]) and for a number of visits: on this thread
//! ([`arm`]), on all threads ([`arm_everywhere`], [`order`]), or in a daemon that runs (`POST /faults`).

#[cfg(any(test, feature = "fault-injection"))]
mod armed;
#[cfg(any(test, feature = "fault-injection"))]
mod ports;
#[cfg(any(test, feature = "fault-injection"))]
mod storage;

#[cfg(any(test, feature = "fault-injection"))]
pub use armed::{
    ANYONE, Fault, Order, Refused, arm, arm_after, arm_everywhere, ask, disarm, is_armed, let_go, lift,
    order, order_here, orders, visit,
};
#[cfg(any(test, feature = "fault-injection"))]
pub use ports::{faulty_store, faulty_world};
#[cfg(any(test, feature = "fault-injection"))]
pub use storage::faulty;

/// Points at which a fault may be injected, and what `who` is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Point {
    /// With each event. A path in the tree, as for the other actors.
    SupervisorHandler,
    /// Each thing that the supervisor does for a room: the room's id.
    Room,
    /// Between the steps of each look, and of a shutdown.
    SupervisorStep,
    /// With each input.
    CallHandler,
    /// Between the steps of each look.
    CallStep,
    /// Before each effect of the call's machine.
    CallEffect,
    PeerHandler,
    /// After each change of a peer's plan that was carried out.
    PeerChange,
    WriterHandler,
    /// The path of the writer whose segment it is, or the track's id.
    Pump,
    /// Part of the file's path, as for the other two.
    DiskCreate,
    DiskWrite,
    DiskSync,
    /// The media loop's turn: `media`, or `media:` with its port.
    MediaLoop,
    /// What is asked of the account for a call: the event's type, `announce`, `room` or `display_name`.
    Signalling,
    /// TURN servers are asked for: `turn`. An error is none.
    Turn,
    /// A session is opened: the call's id.
    SessionOpen,
    /// What is done (`create`, `reopen`, `append`, `sync`, `snapshot`), part of the session's folder, or both with a space.
    SessionStore,
    /// A call is put on the list of live calls or taken from it: its id.
    LiveCalls,
    /// What the media loop does with one connection: its id (`conn-1`).
    Connection,
    /// A datagram that came in: the sender's address (`127.0.0.1:40000`).
    Datagram,
}

/// Compiled away.
#[cfg(not(any(test, feature = "fault-injection")))]
#[inline(always)]
pub fn visit(_point: Point, _who: &str) {}

/// Compiled away.
#[cfg(not(any(test, feature = "fault-injection")))]
#[inline(always)]
pub fn ask(_point: Point, _who: &str) -> std::io::Result<()> {
    Ok(())
}

/// Compiled away.
#[cfg(not(any(test, feature = "fault-injection")))]
#[inline(always)]
pub fn is_armed(_point: Point) -> bool {
    false
}

/// Compiled away.
#[cfg(not(any(test, feature = "fault-injection")))]
#[inline(always)]
pub fn faulty_world(world: crate::world::World) -> crate::world::World {
    world
}

/// Compiled away.
#[cfg(not(any(test, feature = "fault-injection")))]
#[inline(always)]
pub fn faulty_store(store: Box<dyn crate::session::SessionStore>) -> Box<dyn crate::session::SessionStore> {
    store
}

/// Compiled away.
#[cfg(not(any(test, feature = "fault-injection")))]
#[inline(always)]
pub fn faulty(
    storage: std::sync::Arc<dyn crate::storage::Storage>,
) -> std::sync::Arc<dyn crate::storage::Storage> {
    storage
}
