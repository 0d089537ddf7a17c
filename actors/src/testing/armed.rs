//! What is armed, and what becomes of those who ask.

use std::cell::RefCell;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::Point;

/// Matches every place.
pub const ANYONE: &str = "*";

/// What happens to who is met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Panic,
    /// The operation fails; a datagram is lost. Only where the point has errors.
    Error,
    /// The thread stands still until [`let_go`].
    Stall,
}

/// A fault that waits for its visits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    pub point: Point,
    pub who: String,
    pub fault: Fault,
    /// Visits that pass before the first that is met.
    pub after: u32,
    /// Visits that it is still good for.
    pub times: u32,
}

impl Order {
    fn check(&self) -> Result<(), Refused> {
        if self.fault == Fault::Error && !self.point.has_errors() { Err(Refused(self.point)) } else { Ok(()) }
    }
}

/// The point has nothing that could fail in this way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} has no errors, only panics and stalls")]
pub struct Refused(pub Point);

thread_local! {
    static HERE: RefCell<Vec<Order>> = RefCell::default();
}
static EVERYWHERE: Mutex<Vec<Order>> = Mutex::new(Vec::new());
/// Orders for all threads that are not used up: most visits find none and take no lock.
static WAITING: AtomicUsize = AtomicUsize::new(0);
/// Counts up when stalls are lifted.
static LIFTED: Mutex<u64> = Mutex::new(0);
static WAKE: Condvar = Condvar::new();

impl Point {
    pub const ALL: [Self; 21] = [
        Self::SupervisorHandler,
        Self::SupervisorStep,
        Self::Room,
        Self::CallHandler,
        Self::CallStep,
        Self::CallEffect,
        Self::PeerHandler,
        Self::PeerChange,
        Self::WriterHandler,
        Self::Pump,
        Self::DiskCreate,
        Self::DiskWrite,
        Self::DiskSync,
        Self::Signalling,
        Self::Turn,
        Self::SessionOpen,
        Self::SessionStore,
        Self::LiveCalls,
        Self::MediaLoop,
        Self::Connection,
        Self::Datagram,
    ];

    /// As orders from outside spell it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::SupervisorHandler => "supervisor",
            Self::Room => "room",
            Self::SupervisorStep => "supervisor_step",
            Self::CallHandler => "call",
            Self::CallStep => "call_step",
            Self::CallEffect => "call_effect",
            Self::PeerHandler => "peer",
            Self::PeerChange => "peer_change",
            Self::WriterHandler => "writer",
            Self::Pump => "pump",
            Self::DiskCreate => "disk_create",
            Self::DiskWrite => "disk_write",
            Self::DiskSync => "disk_sync",
            Self::Signalling => "signalling",
            Self::Turn => "turn",
            Self::SessionOpen => "session_open",
            Self::SessionStore => "session_store",
            Self::LiveCalls => "live_calls",
            Self::MediaLoop => "media_loop",
            Self::Connection => "connection",
            Self::Datagram => "datagram",
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|point| point.name() == name)
    }

    fn has_errors(self) -> bool {
        matches!(
            self,
            Self::DiskCreate
                | Self::DiskWrite
                | Self::DiskSync
                | Self::Datagram
                | Self::Signalling
                | Self::Turn
                | Self::SessionOpen
                | Self::SessionStore
        )
    }

    fn is_at(self, armed: &str, who: &str) -> bool {
        armed == ANYONE
            || match self {
                Self::DiskCreate | Self::DiskWrite | Self::DiskSync => who.contains(armed),
                Self::SessionStore => armed.split(' ').all(|part| who.contains(part)),
                // `media:40000`, or any.
                Self::MediaLoop => who == armed || who.split(':').next() == Some(armed),
                // `supervisor/call-1/p1/p1-camera-1`, and the track at its end.
                Self::Pump => who == armed || who.rsplit('/').next() == Some(armed),
                _ => who == armed,
            }
    }
}

impl Fault {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Panic => "panic",
            Self::Error => "error",
            Self::Stall => "stall",
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        [Self::Panic, Self::Error, Self::Stall].into_iter().find(|fault| fault.name() == name)
    }
}

fn everywhere() -> MutexGuard<'static, Vec<Order>> {
    EVERYWHERE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Instead of an earlier order for the same point and place; 0 times takes it back.
fn put(orders: &mut Vec<Order>, order: Order) {
    orders.retain(|other| (other.point, &other.who) != (order.point, &order.who));
    if order.times > 0 {
        orders.push(order);
    }
}

/// The next `times` visits of `point` by `who` on this thread panic. A tree under test lives on its test's thread, so
/// tests do not meet.
pub fn arm(point: Point, who: &str, times: u32) {
    let order = Order { point, who: who.to_owned(), fault: Fault::Panic, after: 0, times };
    HERE.with_borrow_mut(|orders| put(orders, order));
}

/// The one visit after the next `after` ones on this thread panics.
pub fn arm_after(point: Point, who: &str, after: u32) {
    let order = Order { point, who: who.to_owned(), fault: Fault::Panic, after, times: 1 };
    HERE.with_borrow_mut(|orders| put(orders, order));
}

/// As [`order`], for visits on this thread alone.
///
/// # Errors
/// The point has no errors that could be made to happen.
pub fn order_here(order: Order) -> Result<(), Refused> {
    order.check()?;
    HERE.with_borrow_mut(|orders| put(orders, order));
    Ok(())
}

/// Whether what was armed on this thread has been used up. What is left is taken back.
pub fn disarm() -> bool {
    HERE.take().is_empty()
}

/// As [`arm`], for visits on any thread.
pub fn arm_everywhere(point: Point, who: &str, times: u32) {
    place(Order { point, who: who.to_owned(), fault: Fault::Panic, after: 0, times });
}

/// Arms any fault for visits on any thread.
///
/// # Errors
/// The point has no errors that could be made to happen.
pub fn order(order: Order) -> Result<(), Refused> {
    order.check()?;
    place(order);
    Ok(())
}

fn place(order: Order) {
    let mut orders = everywhere();
    put(&mut orders, order);
    WAITING.store(orders.len(), Ordering::Release);
}

/// Orders for all threads that are not used up.
pub fn orders() -> Vec<Order> {
    everywhere().clone()
}

/// Whether anything is armed for this point, so that who would have to be made up need not be.
pub fn is_armed(point: Point) -> bool {
    WAITING.load(Ordering::Acquire) > 0 && everywhere().iter().any(|order| order.point == point)
}

/// Takes all orders for all threads back; who stands still goes on.
pub fn lift() {
    everywhere().clear();
    WAITING.store(0, Ordering::Release);
    let_go();
}

/// Who stands still goes on; what is armed stays.
pub fn let_go() {
    *LIFTED.lock().unwrap_or_else(PoisonError::into_inner) += 1;
    WAKE.notify_all();
}

/// Panics or stands still if armed for this point and place.
pub fn visit(point: Point, who: &str) {
    // Nothing but these two can be armed where no error can be told.
    let _ = ask(point, who);
}

/// As [`visit`], where an operation can fail.
///
/// # Errors
/// One was ordered.
#[expect(clippy::panic, reason = "this is what it is for")]
pub fn ask(point: Point, who: &str) -> io::Result<()> {
    let here = HERE.with_borrow_mut(|orders| take(orders, point, who));
    match here.or_else(|| take_everywhere(point, who)) {
        None => Ok(()),
        Some(Fault::Panic) => panic!("injected fault at {point:?} of {who}"),
        Some(Fault::Error) => Err(io::Error::other(format!("injected error at {point:?} of {who}"))),
        Some(Fault::Stall) => {
            tracing::warn!(?point, who, "stands still as ordered");
            let lifted = LIFTED.lock().unwrap_or_else(PoisonError::into_inner);
            let before = *lifted;
            drop(WAKE.wait_while(lifted, |now| *now == before).unwrap_or_else(PoisonError::into_inner));
            Ok(())
        }
    }
}

fn take_everywhere(point: Point, who: &str) -> Option<Fault> {
    if WAITING.load(Ordering::Acquire) == 0 {
        return None;
    }
    let mut orders = everywhere();
    let fault = take(&mut orders, point, who);
    WAITING.store(orders.len(), Ordering::Release);
    fault
}

fn take(orders: &mut Vec<Order>, point: Point, who: &str) -> Option<Fault> {
    let at = orders.iter().position(|order| order.point == point && point.is_at(&order.who, who))?;
    let order = &mut orders[at];
    if order.after > 0 {
        order.after -= 1;
        return None;
    }
    order.times -= 1;
    let fault = order.fault;
    if order.times == 0 {
        orders.remove(at);
    }
    Some(fault)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ordered(point: Point, who: &str, fault: Fault, times: u32) -> Order {
        Order { point, who: who.to_owned(), fault, after: 0, times }
    }

    #[test]
    fn every_point_is_found_by_its_name() {
        for point in Point::ALL {
            assert_eq!(Point::named(point.name()), Some(point));
        }
        assert_eq!(Point::named("nowhere"), None);
    }

    /// Text of all tests of the tree and of the media loop.
    fn tests() -> String {
        let here = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut text = String::new();
        for folder in ["src/tests", "tests", "../src/adapters/media/tests"] {
            for entry in std::fs::read_dir(here.join(folder)).unwrap() {
                let path = entry.unwrap().path();
                if path.extension().is_some_and(|extension| extension == "rs") {
                    text.push_str(&std::fs::read_to_string(path).unwrap());
                }
            }
        }
        text
    }

    #[test]
    fn every_point_is_met_by_a_test() {
        let tests = tests();
        for point in Point::ALL {
            assert!(tests.contains(&format!("Point::{point:?}")), "no test has anything fail at {point:?}");
        }
    }

    #[test]
    fn an_order_is_good_for_its_number_of_visits_and_for_its_place_alone() {
        order(ordered(Point::DiskWrite, "p9-camera", Fault::Error, 2)).unwrap();
        assert!(ask(Point::DiskWrite, "room/session/p9-microphone-1.webm").is_ok());
        assert!(ask(Point::DiskSync, "room/session/p9-camera-1.webm").is_ok());
        assert!(ask(Point::DiskWrite, "room/session/p9-camera-1.webm").is_err());
        assert!(ask(Point::DiskWrite, "room/session/p9-camera-1.webm").is_err());
        assert!(ask(Point::DiskWrite, "room/session/p9-camera-1.webm").is_ok());
    }

    #[test]
    fn a_point_without_errors_takes_no_order_for_one() {
        let refused = order(ordered(Point::Pump, ANYONE, Fault::Error, 1));
        assert_eq!(refused, Err(Refused(Point::Pump)));
    }

    #[test]
    fn a_pump_is_met_by_its_writers_path_and_by_its_tracks_id() {
        let who = "supervisor/call-7/p1/p1-camera-1";
        assert!(Point::Pump.is_at("p1-camera-1", who) && Point::Pump.is_at(who, who));
        assert!(!Point::Pump.is_at("supervisor/call-8/p1/p1-camera-1", who));
        assert!(!Point::Pump.is_at("camera-1", who));
    }
}
