//! Network faults for tests, between the socket and the connections.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// What is to happen to a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Pass,
    Drop,
    Duplicate,
    /// Its handling panics.
    Panic,
    /// It arrives this much later.
    Delay(Duration),
}

/// Decides the fate of each datagram.
pub trait Shim: Send + 'static {
    fn received(&mut self, source: SocketAddr, bytes: &[u8]) -> Fault;
    fn sent(&mut self, destination: SocketAddr, bytes: &[u8]) -> Fault;
}

/// A datagram that waits: received ones carry `true`.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Delayed {
    pub due: Instant,
    order: u64,
    pub incoming: bool,
    pub local: SocketAddr,
    pub remote: SocketAddr,
    pub bytes: Vec<u8>,
}

/// Datagrams delayed by a shim, the earliest first.
#[derive(Debug, Default)]
pub struct Delays {
    heap: BinaryHeap<Reverse<Delayed>>,
    order: u64,
}

impl Delays {
    pub fn push(
        &mut self,
        due: Instant,
        incoming: bool,
        local: SocketAddr,
        remote: SocketAddr,
        bytes: &[u8],
    ) {
        self.order += 1;
        let delayed = Delayed { due, order: self.order, incoming, local, remote, bytes: bytes.to_vec() };
        self.heap.push(Reverse(delayed));
    }

    pub fn pop_due(&mut self, now: Instant) -> Option<Delayed> {
        if self.next().is_some_and(|due| due <= now) {
            self.heap.pop().map(|Reverse(delayed)| delayed)
        } else {
            None
        }
    }

    pub fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse(delayed)| delayed.due)
    }
}
