//! Times of which nothing is to be written although media came: the participant had opted out, or the disk was full.

use recorder_core::manifest::OpenedBecause;
use recorder_core::media::{RingItem, RtpPacket, Skipped};
use recorder_core::rtp::Reason;
use recorder_core::time::BootTime;

use super::{MOST_PER_TURN, Recording};
use crate::pump::PumpWorld;
use crate::supervise::lock;

impl Recording {
    /// Until when there was a pause that this segment comes after. What the ring kept of it is old, and was not to be
    /// written.
    pub(super) fn pause_before(&self, now: BootTime) -> Option<BootTime> {
        if self.because == OpenedBecause::DiskResumed {
            return Some(now);
        }
        // The ring itself knows how long.
        self.order.ring.has_pause().then(BootTime::default)
    }

    /// Before the first packet after a pause: whether this one is older, and to be passed over. The first that is not
    /// begins afresh, with a ledger of its own.
    pub(super) fn is_of_a_pause(&mut self, world: &PumpWorld, packet: &mut RtpPacket, now: BootTime) -> bool {
        let Some(pause_end) = self.fresh_after else { return false };
        let ring = &self.order.ring;
        let pauses = ring.pauses();
        if packet.arrival < pause_end || !ring.admits(packet.arrival) {
            ring.note_taken(packet.ingress);
            return true;
        }
        ring.end_pause(pauses);
        packet.skipped = Skipped::default();
        ring.note_taken(packet.ingress - 1);
        // From before the pause.
        drop(ring.take_carried());
        self.fresh_after = None;
        self.take_up(world, now, None);
        false
    }

    /// The participant opted out while this segment was reading.
    pub(super) fn is_opted_out(&self) -> bool {
        self.receiver.is_some() && self.order.ring.has_pause()
    }

    /// Throws away all that is queued and not yet with the lane, and ends the file before it.
    pub(super) fn discard(&mut self) {
        let Some(mut receiver) = self.receiver.take() else { return };
        if let Some(file) = &mut self.file {
            receiver.reject(file.take_back(), Reason::OptedOut);
        }
        let order = &self.order;
        // A flooded ring keeps some; the next segment passes over it.
        let items = (0..MOST_PER_TURN).map_while(|_| order.ring.pop());
        let packets = items.filter_map(|item| match item {
            RingItem::Packet(packet) => Some(packet),
            RingItem::Report(report) => {
                lock(&order.sender_clock).observe_report(&report);
                None
            }
        });
        let (ledger, last) = receiver.discard(packets);
        order.ring.note_taken(last);
        self.end_reading(ledger, |file, order, ledger| file.close(order, ledger));
    }
}
