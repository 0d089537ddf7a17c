//! The sockets and routes through which connections send.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use recorder_core::ids::ConnectionId;
use recorder_core::time::BootTime;

use super::demux::{Demux, is_binding_request};
use super::shared::Shared;
use super::socket::Socket;
use super::turn::Relays;
use crate::adapters::clock::boot_time;

/// Where a connection's datagrams go.
pub trait Outbox {
    fn send(&mut self, id: ConnectionId, source: SocketAddr, destination: SocketAddr, bytes: &[u8]);
}

/// The clocks at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    pub boot: BootTime,
    pub instant: Instant,
}

/// The clocks now.
pub fn moment() -> Moment {
    Moment { boot: boot_time(), instant: Instant::now() }
}

/// Sockets and routes: what a connection needs to send.
pub struct Net {
    pub shared: Arc<Shared>,
    pub sockets: Vec<Socket>,
    pub demux: Demux,
    pub relays: Relays,
    #[cfg(any(test, feature = "fault-injection"))]
    pub shim: Option<Box<dyn super::shim::Shim>>,
    #[cfg(any(test, feature = "fault-injection"))]
    pub delays: super::shim::Delays,
}

impl Net {
    pub fn new(shared: Arc<Shared>, sockets: Vec<Socket>) -> Self {
        Self {
            shared,
            sockets,
            demux: Demux::default(),
            relays: Relays::default(),
            #[cfg(any(test, feature = "fault-injection"))]
            shim: None,
            #[cfg(any(test, feature = "fault-injection"))]
            delays: super::shim::Delays::default(),
        }
    }

    /// Sends at once, past any fault.
    pub fn transmit(&mut self, source: SocketAddr, destination: SocketAddr, bytes: &[u8]) {
        let sent = match self.sockets.iter().find(|socket| socket.local().is_ipv4() == destination.is_ipv4())
        {
            Some(socket) => socket.send(source, destination, bytes).is_ok(),
            None => false,
        };
        if !sent {
            self.shared.view.counts.send_errors.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Outbox for Net {
    fn send(&mut self, id: ConnectionId, source: SocketAddr, destination: SocketAddr, bytes: &[u8]) {
        if self.relays.send(source, destination, bytes, moment()) {
            return;
        }
        if is_binding_request(bytes) {
            self.demux.sent(id, destination);
        }
        #[cfg(any(test, feature = "fault-injection"))]
        if let Some(shim) = &mut self.shim {
            use super::shim::Fault;
            match shim.sent(destination, bytes) {
                Fault::Pass => {}
                Fault::Drop | Fault::Panic => return,
                Fault::Duplicate => self.transmit(source, destination, bytes),
                Fault::Delay(by) => {
                    self.delays.push(Instant::now() + by, false, source, destination, bytes);
                    return;
                }
            }
        }
        self.transmit(source, destination, bytes);
    }
}
