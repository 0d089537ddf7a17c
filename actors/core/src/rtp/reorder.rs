//! Puts packets back into sequence, waits for retransmissions, and tells duplicates, late packets and losses apart.
//!
//! Holes expire by time (RFC 3550 gives no rule; the recorder is in no hurry). A packet in sequence passes straight
//! through ([`ReorderBuffer::pass_in_sequence`]) and touches no map.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::media::RtpPacket;
use crate::time::BootTime;

/// A step of the sequence number beyond this, either way, may be a restarted sender instead of loss (cf. RFC 3550
/// appendix A.1, MAX_DROPOUT 3000).
pub const MAX_JUMP: u64 = 3000;
/// How far back arrivals are remembered, to tell duplicates from late packets. At least `MAX_JUMP`.
const HISTORY: u64 = 4096;
/// Time in which the first packets of a stream may arrive in another order without any being taken for late.
const START_WINDOW: Duration = Duration::from_millis(50);
/// A large forward step is loss, not a restart, if the timestamp kept pace with the arrival to within this.
const PACE_TOLERANCE_S: f64 = 2.0;
/// No outage counted as loss skips more than half a roll-over of sequence numbers.
const MAX_OUTAGE: u64 = 1 << 15;

/// What leaves the buffer, in sequence order.
#[derive(Clone, Debug)]
pub enum Released {
    Packet(RtpPacket),
    /// This many sequence numbers were given up.
    Hole(u64),
    /// The sender went on at an unrelated sequence number; how much is missing cannot be known and is not counted.
    Restart,
}

/// Fates decided on arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    Taken,
    Duplicate,
    Late,
}

/// Reorders one stream by extended sequence number. Holds at most `max_packets`; when full, the oldest hole is given up.
#[derive(Clone, Debug)]
pub struct ReorderBuffer {
    wait: Duration,
    clock_rate: u32,
    max_packets: usize,
    /// The next sequence number to leave; `None` while the start window is open.
    next: Option<u64>,
    held: BTreeMap<u64, RtpPacket>,
    /// Sequence numbers missing below `.0` (and above the mark before) were first missed at `.1`.
    marks: VecDeque<(u64, BootTime)>,
    highest: u64,
    started: Option<BootTime>,
    seen: Box<[u64]>,
    /// First packet after a large step: the next one decides whether the sender restarted (RFC 3550 appendix A.1).
    stray: Option<RtpPacket>,
    /// Timestamp and arrival of the packet released last, to judge large steps.
    last: Option<(u32, BootTime)>,
    /// Leaves before anything in `held`: packets in sequence, and the rest of a run that a restart cut off.
    ready: VecDeque<Released>,
}

impl ReorderBuffer {
    pub fn new(wait: Duration, clock_rate: u32, max_packets: usize) -> Self {
        Self {
            wait,
            clock_rate: clock_rate.max(1),
            max_packets: max_packets.max(1),
            next: None,
            held: BTreeMap::new(),
            marks: VecDeque::new(),
            highest: 0,
            started: None,
            seen: vec![0; (HISTORY / 64) as usize].into_boxed_slice(),
            stray: None,
            last: None,
            ready: VecDeque::new(),
        }
    }

    /// Whether `packet` is the one awaited while nothing else is in here: it need not be inserted, and has left already.
    pub fn pass_in_sequence(&mut self, packet: &RtpPacket) -> bool {
        let passes = self.next == Some(packet.sequence)
            && packet.sequence >= self.highest
            && self.stray.is_none()
            && !self.has_any();
        if passes {
            self.highest = packet.sequence;
            self.pass(packet);
        }
        passes
    }

    /// Takes a packet in arrival order. Two fates may fall: that of this packet, and `Late` for a stray one before it.
    pub fn insert(&mut self, packet: RtpPacket) -> (Arrival, bool) {
        let mut stray_is_late = false;
        let sequence = packet.sequence;
        if let Some(reference) = self.reference() {
            if self.is_far(sequence, reference) && !self.kept_pace(&packet, reference) {
                match self.stray.take() {
                    Some(first) if first.sequence == sequence => {
                        self.stray = Some(first);
                        return (Arrival::Duplicate, false);
                    }
                    Some(first) if !self.is_far(sequence, first.sequence) => {
                        self.restart_at(first, packet);
                        return (Arrival::Taken, false);
                    }
                    other => {
                        stray_is_late = other.is_some();
                        self.stray = Some(packet);
                        return (Arrival::Taken, stray_is_late);
                    }
                }
            }
            if let Some(next) = self.next
                && sequence < next
            {
                let known = next - sequence <= HISTORY && self.was_seen(sequence);
                return (if known { Arrival::Duplicate } else { Arrival::Late }, false);
            }
            stray_is_late = self.stray.take().is_some();
        }
        if self.next == Some(sequence) && self.held.is_empty() {
            self.highest = self.highest.max(sequence);
            self.pass(&packet);
            self.ready.push_back(Released::Packet(packet));
            return (Arrival::Taken, stray_is_late);
        }
        if self.held.contains_key(&sequence) {
            return (Arrival::Duplicate, stray_is_late);
        }
        self.place(packet);
        (Arrival::Taken, stray_is_late)
    }

    /// How many packets are missing before the first of those that are held.
    pub fn waits_for(&self) -> u64 {
        let first = self.held.first_key_value().map(|(first, _)| *first);
        self.next.zip(first).map_or(0, |(next, first)| first.saturating_sub(next))
    }

    /// The next packet, hole or restart that may leave at `now`. Call until `None`.
    pub fn release(&mut self, now: BootTime) -> Option<Released> {
        if let Some(ready) = self.ready.pop_front() {
            return Some(ready);
        }
        if self.next.is_none() {
            let started = self.started?;
            if now.saturating_since(started) < START_WINDOW && self.held.len() <= self.max_packets {
                return None;
            }
            self.next = self.held.keys().next().copied();
        }
        let next = self.next?;
        let (&first, _) = self.held.first_key_value()?;
        if first == next {
            let (_, packet) = self.held.pop_first()?;
            self.pass(&packet);
            return Some(Released::Packet(packet));
        }
        while self.marks.front().is_some_and(|mark| mark.0 <= next) {
            self.marks.pop_front();
        }
        let missed_at = self.marks.front().map_or(BootTime(0), |mark| mark.1);
        let expired = now.saturating_since(missed_at) >= self.wait;
        if !expired && self.held.len() <= self.max_packets {
            return None;
        }
        // Only what was missed by the same packet expires with it; the rest of a wider hole has a mark of its own.
        let until = self.marks.front().map_or(first, |mark| mark.0).min(first);
        let count = until - next;
        self.advance(next, count, false);
        Some(Released::Hole(count))
    }

    /// Something is held that may leave now or later.
    pub fn has_any(&self) -> bool {
        !self.held.is_empty() || !self.ready.is_empty()
    }

    /// The packet whose successor never told whether the sender restarted.
    pub fn take_stray(&mut self) -> Option<RtpPacket> {
        self.stray.take()
    }

    /// When `release` may have something that it does not have now.
    pub fn deadline(&self) -> Option<BootTime> {
        if self.next.is_none() {
            return self.started.map(|started| started + START_WINDOW);
        }
        let next = self.next?;
        self.held.first_key_value()?;
        self.marks.iter().find(|mark| mark.0 > next).map(|mark| mark.1 + self.wait)
    }

    pub fn len(&self) -> usize {
        self.held.len() + usize::from(self.stray.is_some())
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn reference(&self) -> Option<u64> {
        self.started.map(|_| self.next.map_or(self.highest, |next| self.highest.max(next)))
    }

    /// Beyond what loss and reordering explain, seen from the highest sequence number.
    fn is_far(&self, sequence: u64, reference: u64) -> bool {
        sequence.abs_diff(reference) > MAX_JUMP
    }

    /// A long outage: the sequence ran on and the timestamp advanced with the clock on the wall.
    fn kept_pace(&self, packet: &RtpPacket, reference: u64) -> bool {
        let Some((timestamp, arrival)) = self.last else { return false };
        let step = packet.sequence.checked_sub(reference);
        if step.is_none_or(|step| step > MAX_OUTAGE) || !self.held.is_empty() {
            return false;
        }
        let media_s = f64::from(packet.timestamp.wrapping_sub(timestamp)) / f64::from(self.clock_rate);
        (media_s - packet.arrival.seconds_since(arrival)).abs() < PACE_TOLERANCE_S
    }

    fn place(&mut self, packet: RtpPacket) {
        let sequence = packet.sequence;
        if self.started.is_none() {
            self.started = Some(packet.arrival);
            self.highest = sequence;
        } else if sequence > self.highest {
            if sequence > self.highest.saturating_add(1) {
                self.marks.push_back((sequence, packet.arrival));
            }
            self.highest = sequence;
        } else if self.next.is_none()
            && self.held.keys().next().is_some_and(|first| sequence.saturating_add(1) < *first)
        {
            // The start window showed an earlier beginning: what lies between is missed since the first packet of all.
            let first = self.held.keys().next().copied().unwrap_or(sequence);
            self.marks.push_front((first, self.started.unwrap_or(packet.arrival)));
        }
        self.held.insert(sequence, packet);
    }

    fn pass(&mut self, packet: &RtpPacket) {
        self.advance(packet.sequence, 1, true);
        self.last = Some((packet.timestamp, packet.arrival));
    }

    /// Everything of the old run goes out before the new one begins.
    fn restart_at(&mut self, first: RtpPacket, second: RtpPacket) {
        let mut next = self.next;
        for (sequence, packet) in std::mem::take(&mut self.held) {
            let missing = next.map_or(0, |next| sequence.saturating_sub(next));
            if missing > 0 {
                self.ready.push_back(Released::Hole(missing));
            }
            next = Some(sequence.saturating_add(1));
            self.ready.push_back(Released::Packet(packet));
        }
        self.ready.push_back(Released::Restart);
        self.marks.clear();
        self.seen.fill(0);
        self.last = None;
        let lower = first.sequence.min(second.sequence);
        self.next = Some(lower);
        self.highest = lower;
        self.place(first);
        self.place(second);
    }

    fn advance(&mut self, from: u64, count: u64, seen: bool) {
        for sequence in from..from.saturating_add(count.min(HISTORY)) {
            self.set_seen(sequence, seen);
        }
        if count > HISTORY {
            self.seen.fill(0);
        }
        self.next = Some(from.saturating_add(count));
    }

    fn set_seen(&mut self, sequence: u64, seen: bool) {
        let bit = sequence % HISTORY;
        let word = &mut self.seen[(bit / 64) as usize];
        if seen {
            *word |= 1 << (bit % 64);
        } else {
            *word &= !(1 << (bit % 64));
        }
    }

    fn was_seen(&self, sequence: u64) -> bool {
        let bit = sequence % HISTORY;
        self.seen[(bit / 64) as usize] >> (bit % 64) & 1 == 1
    }
}
