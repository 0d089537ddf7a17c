//! What the media plane shows of itself: written by it alone, as it happens.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use recorder_core::time::BootTime;

counters! {
    /// Counters of the whole media plane.
    MediaCounts {
        /// Datagrams taken from the media port.
        datagrams,
        /// Datagrams that belong to no connection.
        stray_datagrams,
        /// Datagrams that are neither STUN, DTLS, RTP nor RTCP.
        malformed_datagrams,
        /// Datagrams that the kernel dropped because the receive buffer was full.
        kernel_drops,
        /// Packets dropped because they came before their keys or stream were known and found no room to wait.
        held_drops,
        /// Packets kept for a stream that never became known.
        held_expired,
        /// Packets of no agreed payload type or m-line.
        foreign_packets,
        /// Packets of streams beyond those that a connection may have.
        surplus_packets,
        /// Datagrams that could not be sent.
        send_errors,
        /// Errors of the WebRTC stack.
        stack_errors,
        /// Connections that ended in a panic.
        connection_panics,
        /// Remote candidates beyond the bound, outdated or malformed.
        candidates_refused,
        /// Orders to the media loop that found no room.
        commands_dropped,
        /// Relayed addresses obtained from TURN servers.
        relays,
        /// Turns of the media loop.
        media_turns,
    }
}

/// The media plane as of now.
#[derive(Debug, Default)]
pub struct MediaView {
    pub counts: MediaCounts,
    /// Connections that are open, or being set up.
    pub connections: AtomicUsize,
    /// `BootTime` nanoseconds of the newest of each of these drops; 0 before the first.
    kernel_dropped_at: AtomicU64,
    held_dropped_at: AtomicU64,
}

impl MediaView {
    /// Media plane only.
    pub fn kernel_dropped(&self, datagrams: u64, now: BootTime) {
        self.counts.kernel_drops.fetch_add(datagrams, Ordering::Relaxed);
        self.kernel_dropped_at.store(now.as_nanos(), Ordering::Relaxed);
    }

    /// Media plane only.
    pub fn held_dropped(&self, packets: u64, now: BootTime) {
        self.counts.held_drops.fetch_add(packets, Ordering::Relaxed);
        self.held_dropped_at.store(now.as_nanos(), Ordering::Relaxed);
    }

    /// When the kernel dropped last, and when a packet without keys was.
    pub fn last_drops(&self) -> [Option<BootTime>; 2] {
        [&self.kernel_dropped_at, &self.held_dropped_at].map(|at| match at.load(Ordering::Relaxed) {
            0 => None,
            nanos => Some(BootTime::from_nanos(nanos)),
        })
    }
}
