//! The order of one call's signals. To-device events may be repeated, lost or delivered out of turn; `seq` puts them right.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::ToDeviceSignal;
use crate::time::BootTime;

/// Signals that wait for an earlier one; with more the gap is given up.
pub(super) const MOST_WAITING: usize = 64;
/// How long a missing signal is waited for.
pub(super) const GAP_LIMIT: Duration = Duration::from_secs(5);

/// Signals of one call, of one peer.
#[derive(Clone, Debug)]
pub(super) struct Inbox {
    pub(super) call_id: String,
    next: u64,
    pub(super) waiting: BTreeMap<u64, Arc<ToDeviceSignal>>,
    /// Bytes that wait, roughly.
    pub(super) bytes: usize,
    /// Since when the signal that comes next is missing.
    since: BootTime,
    /// A gap was given up at some time.
    pub(super) gapped: bool,
}

impl Inbox {
    pub(super) fn new(call_id: &str) -> Self {
        Self {
            call_id: call_id.to_owned(),
            next: 0,
            waiting: BTreeMap::new(),
            bytes: 0,
            since: BootTime(0),
            gapped: false,
        }
    }

    /// Takes a signal with its number; what is in turn comes out, in order. `None` for a repeated one.
    pub(super) fn take(
        &mut self,
        seq: u64,
        signal: Arc<ToDeviceSignal>,
        now: BootTime,
    ) -> Option<Vec<Arc<ToDeviceSignal>>> {
        if seq < self.next || self.waiting.contains_key(&seq) {
            return None;
        }
        if self.waiting.is_empty() {
            self.since = now;
        }
        self.bytes += signal.weight();
        self.waiting.insert(seq, signal);
        Some(self.in_turn(now))
    }

    fn in_turn(&mut self, now: BootTime) -> Vec<Arc<ToDeviceSignal>> {
        let mut ready = Vec::new();
        while let Some(signal) = self.waiting.remove(&self.next) {
            self.next = self.next.saturating_add(1);
            self.since = now;
            self.bytes -= signal.weight();
            ready.push(signal);
        }
        ready
    }

    pub(super) fn is_full(&self) -> bool {
        self.waiting.len() > MOST_WAITING
    }

    pub(super) fn is_overdue(&self, now: BootTime) -> bool {
        !self.waiting.is_empty() && now.saturating_since(self.since) >= GAP_LIMIT
    }

    /// Goes on without what is missing.
    pub(super) fn skip_gap(&mut self, now: BootTime) -> Vec<Arc<ToDeviceSignal>> {
        let Some(first) = self.waiting.keys().next().copied() else { return Vec::new() };
        self.gapped = true;
        self.next = first;
        self.in_turn(now)
    }
}
