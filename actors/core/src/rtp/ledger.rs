//! The fate of every packet of a stream, counted so that the sum can be checked.

use serde::{Deserialize, Serialize};

use crate::media::Skipped;

/// Fates of a segment's packets, all counted in packets (session-manifest "ledger").
///
/// `received` is counted where packets enter, independently of the fates, so [`Ledger::balances`] is a real check.
/// `recovered` and `lost` stand beside the balance.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ledger {
    pub received: u64,
    /// In frames that were handed out for writing.
    pub written: u64,
    /// Same sequence number as an earlier packet.
    pub duplicate: u64,
    /// Without media: probes and keep-alives (empty payload).
    pub padding: u64,
    /// Came after its place was given up, or belongs to a frame whose time does not lie after the frame before.
    pub late: u64,
    /// In whole frames that could not be decoded for want of a frame before them.
    pub before_key_frame: u64,
    /// In frames of which another packet was lost, that were malformed, or that exceeded the size limit.
    pub incomplete_frame: u64,
    /// Of a simulcast layer that is not recorded.
    pub other_layer: u64,
    pub undecryptable: u64,
    pub opted_out: u64,
    /// Put in by the server, not by the participant.
    pub injected: u64,
    /// Lost by this recorder: zero, or a defect.
    pub dropped_by_us: u64,
    /// Arrived as a retransmission and filled a place.
    pub recovered: u64,
    /// Never arrived in time, by sequence number.
    pub lost: u64,
}

/// Why a frame that was handed out could not be written after all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    DroppedByUs,
    Undecryptable,
    OptedOut,
    /// The file it would have been in cannot begin with it.
    BeforeKeyFrame,
    Injected,
    OtherLayer,
}

impl Ledger {
    /// Sum of all fates; equals `received` once a segment is finished.
    pub fn accounted(&self) -> u64 {
        self.written
            + self.duplicate
            + self.padding
            + self.late
            + self.before_key_frame
            + self.incomplete_frame
            + self.other_layer
            + self.undecryptable
            + self.opted_out
            + self.injected
            + self.dropped_by_us
    }

    pub fn balances(&self) -> bool {
        self.received == self.accounted()
    }

    /// Adds what the media loop did not deliver.
    pub fn skip(&mut self, skipped: Skipped) {
        self.duplicate += u64::from(skipped.duplicate);
        self.padding += u64::from(skipped.padding);
        self.late += u64::from(skipped.late);
        self.undecryptable += u64::from(skipped.undecryptable);
        self.dropped_by_us += u64::from(skipped.dropped_by_us);
    }

    /// Adds another segment's counts.
    pub fn add(&mut self, other: &Self) {
        self.received += other.received;
        self.written += other.written;
        self.duplicate += other.duplicate;
        self.padding += other.padding;
        self.late += other.late;
        self.before_key_frame += other.before_key_frame;
        self.incomplete_frame += other.incomplete_frame;
        self.other_layer += other.other_layer;
        self.undecryptable += other.undecryptable;
        self.opted_out += other.opted_out;
        self.injected += other.injected;
        self.dropped_by_us += other.dropped_by_us;
        self.recovered += other.recovered;
        self.lost += other.lost;
    }

    /// Moves packets that were counted as written to what really became of them.
    pub fn reject(&mut self, packets: u64, reason: Reason) {
        let packets = packets.min(self.written);
        self.written -= packets;
        *match reason {
            Reason::DroppedByUs => &mut self.dropped_by_us,
            Reason::Undecryptable => &mut self.undecryptable,
            Reason::BeforeKeyFrame => &mut self.before_key_frame,
            Reason::OptedOut => &mut self.opted_out,
            Reason::Injected => &mut self.injected,
            Reason::OtherLayer => &mut self.other_layer,
        } += packets;
    }
}
