//! What became of every packet that entered.

use serde::{Deserialize, Serialize};

/// Packets of one segment by fate. `received` is counted where packets enter, before any queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ledger {
    pub received: u64,
    pub written: u64,
    pub duplicate: u64,
    pub padding: u64,
    pub late: u64,
    pub before_key_frame: u64,
    pub incomplete_frame: u64,
    pub other_layer: u64,
    pub undecryptable: u64,
    pub opted_out: u64,
    pub injected: u64,
    pub dropped_by_us: u64,
    /// Of those received: came by retransmission or redundancy.
    pub recovered: u64,
    /// Never came; no part of `received`.
    pub lost: u64,
}

impl Ledger {
    /// Every received packet has exactly one fate.
    pub fn balances(&self) -> bool {
        let fates = [
            self.written,
            self.duplicate,
            self.padding,
            self.late,
            self.before_key_frame,
            self.incomplete_frame,
            self.other_layer,
            self.undecryptable,
            self.opted_out,
            self.injected,
            self.dropped_by_us,
        ];
        u128::from(self.received) == fates.iter().map(|&n| u128::from(n)).sum::<u128>()
    }
}
