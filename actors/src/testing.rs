//! Faults on cue. With the feature `fault-injection` (tests only) an actor, pump or lane asks here at its named
//! points whether it is to fail; without it every question is compiled away.

/// Points at which a fault may be injected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Point {
    SupervisorHandler,
    CallHandler,
    PeerHandler,
    WriterHandler,
    Pump,
}

#[cfg(any(test, feature = "fault-injection"))]
mod armed {
    use std::collections::HashMap;
    use std::sync::{Mutex, PoisonError};

    use super::Point;

    static ARMED: Mutex<Option<HashMap<(Point, String), u32>>> = Mutex::new(None);

    /// The next `times` visits of `point` by `who` (a path in the tree, or a file's name) panic.
    pub fn arm(point: Point, who: &str, times: u32) {
        let mut armed = ARMED.lock().unwrap_or_else(PoisonError::into_inner);
        armed.get_or_insert_default().insert((point, who.to_owned()), times);
    }

    /// Panics if armed for this point and place.
    #[expect(clippy::panic, reason = "this is what it is for")]
    pub fn visit(point: Point, who: &str) {
        let fire = {
            let mut armed = ARMED.lock().unwrap_or_else(PoisonError::into_inner);
            match armed.as_mut().and_then(|map| map.get_mut(&(point, who.to_owned()))) {
                Some(times) if *times > 0 => {
                    *times -= 1;
                    true
                }
                _ => false,
            }
        };
        if fire {
            panic!("injected fault at {point:?} of {who}");
        }
    }
}

#[cfg(any(test, feature = "fault-injection"))]
pub use armed::{arm, visit};

/// Compiled away.
#[cfg(not(any(test, feature = "fault-injection")))]
#[inline(always)]
pub fn visit(_point: Point, _who: &str) {}
