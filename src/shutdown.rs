//! When to stop: a signal from outside, or a fault inside that only a fresh process can mend.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Why the daemon stops.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StopCause {
    /// SIGTERM or SIGINT.
    Signal(&'static str),
    /// Something inside cannot go on; the service manager is to start a fresh process.
    Fault(String),
}

/// SIGTERM and SIGINT, heard from the moment this exists.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// # Errors
    /// The handlers cannot be set.
    pub fn hear() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Resolves at the first of them.
    pub async fn asked_to_stop(mut self) -> StopCause {
        tokio::select! {
            _ = self.terminate.recv() => StopCause::Signal("SIGTERM"),
            _ = self.interrupt.recv() => StopCause::Signal("SIGINT"),
        }
    }
}
