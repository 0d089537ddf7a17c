//! What becomes of every datagram of a stream: its number at the entry and, if it is not delivered, the reason.
//!
//! The WebRTC stack drops repeats, probes and what it cannot authenticate without a word, so the books are kept here:
//! for every ring `ingress of the last packet = packets delivered + packets skipped before it`.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use recorder_actors::ring::TrackRing;
use recorder_core::ids::Mid;
use recorder_core::media::{RtpPacket, Skipped};
use recorder_core::rtp::reorder::MAX_JUMP;
use recorder_core::time::BootTime;

/// Sequence numbers remembered of each SSRC: more than any receiver waits for.
const WINDOW: u16 = 4096;
/// A packet that is repeated after so many others is late for every receiver, which would take it for a sender that
/// began anew.
const WAITED_FOR: u16 = MAX_JUMP as u16;
/// Sequence numbers behind the highest of a main SSRC that the stack still takes; what is older it refuses unseen.
const STACK_WINDOW: u16 = 100;
/// The same for the SSRC of retransmissions.
const STACK_REPAIR_WINDOW: u16 = 127;
/// Requests for retransmission remembered of each stream.
const NACKED: usize = 256;

/// Why a datagram of a stream was not delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It repeats what had come.
    Duplicate,
    /// A probe on the retransmission SSRC, without media.
    Padding,
    /// It came when nobody waited for it, or too late for the stack's replay window, which it cannot be decrypted behind.
    Late,
    /// It failed authentication.
    Undecryptable,
}

impl Fate {
    pub fn skipped(self) -> Skipped {
        let mut skipped = Skipped::default();
        match self {
            Self::Duplicate => skipped.duplicate = 1,
            Self::Padding => skipped.padding = 1,
            Self::Late => skipped.late = 1,
            Self::Undecryptable => skipped.undecryptable = 1,
        }
        skipped
    }
}

/// Sequence numbers of one SSRC that were authenticated lately.
#[derive(Clone, Debug)]
pub struct Seen {
    highest: Option<u16>,
    bits: [u64; WINDOW as usize / 64],
    /// So far behind the highest the stack looks at a packet; never more than `limit`.
    reach: u16,
    limit: u16,
}

impl Seen {
    /// Of a main SSRC, of which the stack takes nothing before its first packet.
    pub fn of_main() -> Self {
        Self { highest: None, bits: [0; WINDOW as usize / 64], reach: 0, limit: STACK_WINDOW }
    }

    pub fn of_repair() -> Self {
        Self { reach: STACK_REPAIR_WINDOW, limit: STACK_REPAIR_WINDOW, ..Self::of_main() }
    }

    fn bit(sequence: u16) -> (usize, u64) {
        let slot = sequence % WINDOW;
        (usize::from(slot / 64), 1 << (slot % 64))
    }

    pub fn insert(&mut self, sequence: u16) {
        match self.highest {
            None => self.highest = Some(sequence),
            Some(highest) => {
                let ahead = sequence.wrapping_sub(highest);
                if ahead < 0x8000 {
                    for step in 1..=ahead.min(WINDOW) {
                        let (word, mask) = Self::bit(highest.wrapping_add(ahead - ahead.min(WINDOW) + step));
                        self.bits[word] &= !mask;
                    }
                    self.highest = Some(sequence);
                    self.reach = self.reach.saturating_add(ahead).min(self.limit);
                } else if highest.wrapping_sub(sequence) >= WINDOW {
                    return;
                }
            }
        }
        let (word, mask) = Self::bit(sequence);
        self.bits[word] |= mask;
    }

    /// What the stack refuses unseen: a number that was authenticated before, or lies so far back that it does not look.
    pub fn refuses(&self, sequence: u16) -> Option<Fate> {
        let behind = self.behind(sequence)?;
        if self.has(sequence, behind) {
            return Some(Fate::Duplicate);
        }
        (behind > self.reach).then_some(Fate::Late)
    }

    /// Why a retransmission of this number is of no use, if it is not.
    pub fn spares(&self, sequence: u16) -> Option<Fate> {
        match self.behind(sequence) {
            Some(behind) if self.has(sequence, behind) => Some(Fate::Duplicate),
            Some(behind) if behind <= WAITED_FOR => None,
            _ => Some(Fate::Late),
        }
    }

    /// How far behind the highest; none for what is ahead.
    fn behind(&self, sequence: u16) -> Option<u16> {
        Some(self.highest?.wrapping_sub(sequence)).filter(|behind| *behind < 0x8000)
    }

    fn has(&self, sequence: u16, behind: u16) -> bool {
        let (word, mask) = Self::bit(sequence);
        behind < WINDOW && self.bits[word] & mask != 0
    }
}

/// Numbers asked for again; a fixed ring, the oldest forgotten first.
#[derive(Clone, Debug)]
struct Nacked {
    numbers: [u16; NACKED],
    next: usize,
    len: usize,
}

impl Nacked {
    fn insert(&mut self, sequence: u16) {
        if !self.contains(sequence) {
            self.numbers[self.next] = sequence;
            self.next = (self.next + 1) % NACKED;
            self.len = (self.len + 1).min(NACKED);
        }
    }

    fn contains(&self, sequence: u16) -> bool {
        self.numbers[..self.len].contains(&sequence)
    }
}

/// One ring and its count at the entry.
#[derive(Debug)]
struct Run {
    ring: Arc<TrackRing>,
    payload_type: u8,
    first_sequence: u64,
    ingress: u64,
}

impl Run {
    fn enter(&mut self, bytes: usize, arrival: BootTime) {
        let counters = &self.ring.counters;
        self.ingress += 1;
        counters.received.fetch_add(1, Ordering::Relaxed);
        counters.received_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        counters.last_arrival.store(arrival.as_nanos(), Ordering::Relaxed);
    }

    fn push(&mut self, mut packet: RtpPacket, bytes: usize) {
        self.enter(bytes, packet.arrival);
        packet.ingress = self.ingress;
        if packet.recovered {
            self.ring.counters.recovered.fetch_add(1, Ordering::Relaxed);
        }
        self.ring.push_packet(packet);
    }
}

/// Entered before its stream had a ring.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pending {
    pub skipped: Skipped,
    pub bytes: u64,
}

/// One incoming SSRC, with the SSRC that repeats it.
#[derive(Debug)]
pub struct Stream {
    pub mid: Mid,
    pub ssrc: u32,
    pub seen: Seen,
    pub seen_repair: Seen,
    /// Last request for a key frame that was passed on.
    pub key_frame_asked: Option<BootTime>,
    /// Another SSRC took this m-line; the ring ends when this one has been silent since.
    pub superseded: bool,
    nacked: Nacked,
    /// The highest sequence number delivered, extended.
    highest: u64,
    run: Run,
    /// The run before a change of payload type, open a little longer for what comes late.
    retiring: Option<(Run, BootTime)>,
}

/// How long a run that was replaced stays open for late packets.
pub const RETIRE_AFTER: std::time::Duration = std::time::Duration::from_secs(2);

/// What a packet of an unknown payload type needs: a run of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Current,
    Retiring,
    /// The payload type changed: a new ring is due.
    New,
    /// Older than the run, of a payload type whose run has ended.
    TooLate,
}

impl Stream {
    pub fn new(
        mid: Mid,
        ring: Arc<TrackRing>,
        payload_type: u8,
        first_sequence: u64,
        pending: Pending,
    ) -> Self {
        let run = Run { ring, payload_type, first_sequence, ingress: 0 };
        let mut stream = Self {
            mid,
            ssrc: run.ring.info.ssrc,
            seen: Seen::of_main(),
            seen_repair: Seen::of_repair(),
            key_frame_asked: None,
            superseded: false,
            nacked: Nacked { numbers: [0; NACKED], next: 0, len: 0 },
            highest: first_sequence,
            run,
            retiring: None,
        };
        let skipped = pending.skipped.total();
        if skipped > 0 {
            stream.run.ingress = skipped;
            stream.run.ring.counters.received.fetch_add(skipped, Ordering::Relaxed);
            stream.run.ring.counters.received_bytes.fetch_add(pending.bytes, Ordering::Relaxed);
            stream.run.ring.skip(pending.skipped);
        }
        stream
    }

    pub fn ring(&self) -> &Arc<TrackRing> {
        &self.run.ring
    }

    pub fn place(&self, payload_type: u8, sequence: u64) -> Place {
        if payload_type == self.run.payload_type {
            return Place::Current;
        }
        if sequence >= self.run.first_sequence {
            return Place::New;
        }
        match &self.retiring {
            Some((run, _)) if run.payload_type == payload_type => Place::Retiring,
            _ => Place::TooLate,
        }
    }

    /// The extended number of one that is behind the highest delivered; none if the stream had not begun then.
    pub fn extend(&self, sequence: u16) -> Option<u64> {
        self.highest.checked_sub(u64::from((self.highest as u16).wrapping_sub(sequence)))
    }

    /// Starts a new run on `ring`; the run before stays open until `now` + [`RETIRE_AFTER`].
    pub fn replace_run(
        &mut self,
        ring: Arc<TrackRing>,
        payload_type: u8,
        first_sequence: u64,
        now: BootTime,
    ) {
        let run = Run { ring, payload_type, first_sequence, ingress: 0 };
        let before = std::mem::replace(&mut self.run, run);
        if let Some((older, _)) = self.retiring.replace((before, now + RETIRE_AFTER)) {
            older.ring.end();
        }
    }

    /// A packet for the reader; `bytes` is the datagram's size.
    pub fn deliver(&mut self, packet: RtpPacket, place: Place, bytes: usize) {
        self.highest = self.highest.max(packet.sequence);
        match (place, &mut self.retiring) {
            (Place::Retiring, Some((run, _))) => run.push(packet, bytes),
            (Place::TooLate, _) => self.skip(Fate::Late, bytes, packet.arrival),
            _ => self.run.push(packet, bytes),
        }
    }

    /// A datagram that entered and is not delivered.
    pub fn skip(&mut self, fate: Fate, bytes: usize, arrival: BootTime) {
        self.run.enter(bytes, arrival);
        self.run.ring.skip(fate.skipped());
    }

    pub fn note_nack(&mut self, sequence: u16) {
        self.run.ring.counters.nacks_sent.fetch_add(1, Ordering::Relaxed);
        self.nacked.insert(sequence);
    }

    pub fn was_nacked(&self, sequence: u16) -> bool {
        self.nacked.contains(sequence)
    }

    /// Ends what has been replaced long enough; true if the whole stream has ended.
    pub fn tick(&mut self, now: BootTime) -> bool {
        if let Some((run, _)) = self.retiring.take_if(|(_, deadline)| now >= *deadline) {
            run.ring.end();
        }
        let last = BootTime::from_nanos(self.run.ring.counters.last_arrival.load(Ordering::Relaxed));
        if self.superseded && now.saturating_since(last) >= RETIRE_AFTER {
            self.end();
            return true;
        }
        false
    }

    pub fn end(&mut self) {
        if let Some((run, _)) = self.retiring.take() {
            run.ring.end();
        }
        self.run.ring.end();
    }
}
