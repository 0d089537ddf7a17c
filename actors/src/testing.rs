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
    use std::cell::RefCell;
    use std::collections::HashMap;
    use std::sync::{Mutex, PoisonError};

    use super::Point;

    type Armed = HashMap<(Point, String), u32>;

    thread_local! {
        static HERE: RefCell<Armed> = RefCell::default();
    }
    static EVERYWHERE: Mutex<Option<Armed>> = Mutex::new(None);

    /// The next `times` visits of `point` by `who` (a path in the tree, or a track's id) on this thread panic. A tree
    /// under test lives on its test's thread, so tests do not meet.
    pub fn arm(point: Point, who: &str, times: u32) {
        HERE.with_borrow_mut(|armed| armed.insert((point, who.to_owned()), times));
    }

    /// As [`arm`], for visits on any thread.
    pub fn arm_everywhere(point: Point, who: &str, times: u32) {
        let mut armed = EVERYWHERE.lock().unwrap_or_else(PoisonError::into_inner);
        armed.get_or_insert_default().insert((point, who.to_owned()), times);
    }

    /// Panics if armed for this point and place.
    #[expect(clippy::panic, reason = "this is what it is for")]
    pub fn visit(point: Point, who: &str) {
        let key = (point, who.to_owned());
        let here = HERE.with_borrow_mut(|armed| take(armed, &key));
        let everywhere = || {
            let mut armed = EVERYWHERE.lock().unwrap_or_else(PoisonError::into_inner);
            armed.as_mut().is_some_and(|armed| take(armed, &key))
        };
        if here || everywhere() {
            panic!("injected fault at {point:?} of {who}");
        }
    }

    fn take(armed: &mut Armed, key: &(Point, String)) -> bool {
        match armed.get_mut(key) {
            Some(times) if *times > 0 => {
                *times -= 1;
                true
            }
            _ => false,
        }
    }
}

#[cfg(any(test, feature = "fault-injection"))]
pub use armed::{arm, arm_everywhere, visit};

/// Compiled away.
#[cfg(not(any(test, feature = "fault-injection")))]
#[inline(always)]
pub fn visit(_point: Point, _who: &str) {}
