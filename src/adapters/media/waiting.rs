//! Datagrams that came before their keys or their stream were known.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use recorder_core::time::BootTime;

use super::socket::Datagram;

/// Datagrams kept of one connection; the newest are dropped when it is full.
pub const MAX_HELD: usize = 256;
/// How long a datagram without a stream is kept.
const HOLD_FOR: Duration = Duration::from_secs(5);

/// A datagram kept for later.
#[derive(Debug)]
pub struct Held {
    pub bytes: Vec<u8>,
    source: SocketAddr,
    destination: SocketAddr,
    arrival: BootTime,
    instant: Instant,
}

impl Held {
    fn new(datagram: &Datagram<'_>) -> Self {
        Self {
            bytes: datagram.bytes.to_vec(),
            source: datagram.source,
            destination: datagram.destination,
            arrival: datagram.arrival,
            instant: datagram.instant,
        }
    }

    pub fn datagram(&self) -> Datagram<'_> {
        Datagram {
            bytes: &self.bytes,
            source: self.source,
            destination: self.destination,
            arrival: self.arrival,
            instant: self.instant,
        }
    }
}

/// Datagrams kept, in order of arrival.
#[derive(Debug, Default)]
pub struct Waiting(VecDeque<Held>);

impl Waiting {
    /// Keeps a copy; false if there is no room.
    pub fn keep(&mut self, datagram: &Datagram<'_>) -> bool {
        let room = self.0.len() < MAX_HELD;
        if room {
            self.0.push_back(Held::new(datagram));
        }
        room
    }

    pub fn keep_again(&mut self, held: Held) {
        self.0.push_back(held);
    }

    pub fn take(&mut self) -> VecDeque<Held> {
        std::mem::take(&mut self.0)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Drops what has waited too long; how many.
    pub fn expire(&mut self, now: BootTime) -> usize {
        let before = self.0.len();
        self.0.retain(|held| now.saturating_since(held.arrival) < HOLD_FOR);
        before - self.0.len()
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }
}
