//! When to stop: a signal from outside, or a fault inside that only a fresh process can mend.

use std::io;

use tokio::signal::unix::{SignalKind, signal};

/// Why the daemon stops.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StopCause {
    /// SIGTERM or SIGINT.
    Signal(&'static str),
    /// Something inside cannot go on; the service manager is to start a fresh process.
    Fault(String),
}

/// Resolves at the first SIGTERM or SIGINT.
///
/// # Errors
/// The handlers cannot be set.
pub async fn asked_to_stop() -> io::Result<StopCause> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(tokio::select! {
        _ = terminate.recv() => StopCause::Signal("SIGTERM"),
        _ = interrupt.recv() => StopCause::Signal("SIGINT"),
    })
}
