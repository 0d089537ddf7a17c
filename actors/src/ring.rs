//! A track's ring: bounded, filled by the media loop from a stream's first packet to its end, whoever reads it.
//!
//! One writer (the media loop) and one reader at a time (a pump). The writer never waits: when the ring is full the
//! packet is dropped and counted as `dropped_by_us`, so a stalled reader shows in the ledger instead of stalling the
//! network thread.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crossbeam_queue::ArrayQueue;
use recorder_core::ids::{ConnectionId, Mid, SegmentId, StreamId};
use recorder_core::media::{Codec, MediaKind, RingItem, RtpPacket, SenderReport, Skipped};
use recorder_core::rtp::TrackReceiver;
use recorder_core::time::BootTime;

/// Packets an audio ring holds: 2 s at one packet each 10 ms, and twice that in reserve.
pub const AUDIO_RING: usize = 512;
/// Packets a video ring holds: 2 s at 10 Mbit/s in packets of 1,200 bytes.
pub const VIDEO_RING: usize = 2048;

/// What a stream is, fixed for its life: another codec or SSRC is another stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamInfo {
    pub id: StreamId,
    pub connection: ConnectionId,
    pub mid: Mid,
    pub ssrc: u32,
    pub kind: MediaKind,
    pub codec: Codec,
    pub clock_rate: u32,
    /// Audio channels of the RTP payload format (2 for Opus, RFC 7587 §4.1).
    pub channels: u8,
}

/// Counts of one stream, written by the media loop alone and read by anyone.
#[derive(Debug, Default)]
pub struct StreamCounters {
    /// RTP packets of this stream, retransmissions included, counted where datagrams enter.
    pub received: AtomicU64,
    /// Bytes of those datagrams.
    pub received_bytes: AtomicU64,
    pub recovered: AtomicU64,
    pub duplicate: AtomicU64,
    pub padding: AtomicU64,
    pub late: AtomicU64,
    pub undecryptable: AtomicU64,
    pub dropped_by_us: AtomicU64,
    pub nacks_sent: AtomicU64,
    pub key_frames_requested: AtomicU64,
    pub sender_reports: AtomicU64,
    /// `BootTime` of the newest packet, nanoseconds; 0 before the first.
    pub last_arrival: AtomicU64,
}

/// The ring and counters of one stream. Shared as `Arc`; the media loop fills it, one pump empties it.
#[derive(Debug)]
pub struct TrackRing {
    pub info: StreamInfo,
    pub counters: StreamCounters,
    queue: ArrayQueue<RingItem>,
    /// Dropped since the last packet that found room; told with the next one that does.
    pending_drops: AtomicU32,
    /// What entered and was not delivered since the last packet: duplicate, padding, late, undecryptable.
    tail: [AtomicU32; 4],
    ended: AtomicBool,
    /// `ingress` of the last packet that a segment took.
    taken: AtomicU64,
    /// The segment that reads; 0 = none.
    reader: AtomicU64,
    /// The receiver of the segment before, with what it had taken and not yet written: the next one goes on with it.
    carried: Mutex<Option<TrackReceiver>>,
    /// `BootTime` nanoseconds: what arrived earlier is nobody's to write. [`WITHHELD`] while that holds for all there is.
    fresh_from: AtomicU64,
    /// How often the sender opted out, and how many of these pauses a reader has left behind.
    pauses: [AtomicU64; 2],
}

/// No packet arrives so late.
const WITHHELD: u64 = u64::MAX;

impl TrackRing {
    pub fn new(info: StreamInfo) -> Arc<Self> {
        let capacity = match info.kind {
            MediaKind::Audio => AUDIO_RING,
            MediaKind::Video => VIDEO_RING,
        };
        Self::with_capacity(info, capacity)
    }

    pub fn with_capacity(info: StreamInfo, capacity: usize) -> Arc<Self> {
        Arc::new(Self {
            info,
            counters: StreamCounters::default(),
            queue: ArrayQueue::new(capacity),
            pending_drops: AtomicU32::new(0),
            tail: Default::default(),
            ended: AtomicBool::new(false),
            taken: AtomicU64::new(0),
            reader: AtomicU64::new(0),
            carried: Mutex::default(),
            fresh_from: AtomicU64::new(0),
            pauses: Default::default(),
        })
    }

    /// Media loop only. Puts a packet in, or counts it as dropped by us.
    pub fn push_packet(&self, mut packet: RtpPacket) {
        if self.is_withheld() {
            return;
        }
        let drops = self.pending_drops.load(Ordering::Relaxed);
        packet.skipped.dropped_by_us = packet.skipped.dropped_by_us.saturating_add(drops);
        packet.skipped.add(self.swap_tail());
        match self.queue.push(RingItem::Packet(packet)) {
            Ok(()) => self.pending_drops.store(0, Ordering::Relaxed),
            Err(RingItem::Packet(packet)) => {
                // What this packet would have told goes to the next one that finds room.
                self.add_tail(packet.skipped);
                self.pending_drops.store(packet.skipped.dropped_by_us.saturating_add(1), Ordering::Relaxed);
                self.counters.dropped_by_us.fetch_add(1, Ordering::Relaxed);
            }
            Err(RingItem::Report(_)) => {}
        }
    }

    /// Media loop only. Counts packets that entered and are not to be delivered.
    pub fn skip(&self, skipped: Skipped) {
        self.add_tail(skipped);
        self.counters.duplicate.fetch_add(skipped.duplicate.into(), Ordering::Relaxed);
        self.counters.padding.fetch_add(skipped.padding.into(), Ordering::Relaxed);
        self.counters.late.fetch_add(skipped.late.into(), Ordering::Relaxed);
        self.counters.undecryptable.fetch_add(skipped.undecryptable.into(), Ordering::Relaxed);
    }

    /// Media loop only. A report that finds no room is lost: the next one says the same.
    pub fn push_report(&self, report: SenderReport) {
        self.counters.sender_reports.fetch_add(1, Ordering::Relaxed);
        if self.is_withheld() {
            return;
        }
        let _ = self.queue.push(RingItem::Report(report));
    }

    /// Media loop only. Nothing will be pushed any more.
    pub fn end(&self) {
        self.ended.store(true, Ordering::Release);
    }

    /// Of the newest packet; 0 before the first.
    pub fn last_arrival(&self) -> BootTime {
        BootTime::from_nanos(self.counters.last_arrival.load(Ordering::Relaxed))
    }

    /// Reader only.
    pub fn pop(&self) -> Option<RingItem> {
        self.queue.pop()
    }

    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// The stream has ended; what is still in the ring may be read.
    pub fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// `ingress` of the last packet that a segment took: where the next segment on this ring begins.
    pub fn taken(&self) -> u64 {
        self.taken.load(Ordering::Acquire)
    }

    /// Reader only.
    pub fn note_taken(&self, ingress: u64) {
        self.taken.fetch_max(ingress, Ordering::AcqRel);
    }

    /// Makes `segment` the ring's one reader, if nobody else is.
    pub fn claim(&self, segment: SegmentId) -> bool {
        match self.reader.compare_exchange(0, segment.0, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => true,
            Err(reader) => reader == segment.0,
        }
    }

    /// `segment` reads no more.
    pub fn release(&self, segment: SegmentId) {
        let _ = self.reader.compare_exchange(segment.0, 0, Ordering::AcqRel, Ordering::Relaxed);
    }

    /// The sender does not want to be recorded: from now on nothing is kept, and what lies here is nobody's to write.
    pub fn withhold(&self) {
        if self.fresh_from.swap(WITHHELD, Ordering::AcqRel) != WITHHELD {
            self.pauses[0].fetch_add(1, Ordering::AcqRel);
        }
    }

    /// The sender may be recorded again: what arrives from `now` on.
    pub fn admit(&self, now: BootTime) {
        self.withhold();
        self.fresh_from.store(now.as_nanos(), Ordering::Release);
    }

    pub fn is_withheld(&self) -> bool {
        self.fresh_from.load(Ordering::Acquire) == WITHHELD
    }

    /// The sender opted out, and nothing has been read since that arrived after an opt-in.
    pub fn has_pause(&self) -> bool {
        self.pauses() != self.pauses[1].load(Ordering::Relaxed)
    }

    /// Reader only: how often the sender has opted out. To be asked before [`Self::admits`].
    pub fn pauses(&self) -> u64 {
        self.pauses[0].load(Ordering::Acquire)
    }

    /// Reader only: whether a packet that arrived then may be written.
    pub fn admits(&self, arrival: BootTime) -> bool {
        arrival.as_nanos() >= self.fresh_from.load(Ordering::Acquire)
    }

    /// Reader only: a packet was read that is [admitted](Self::admits) after so many pauses.
    pub fn end_pause(&self, pauses: u64) {
        self.pauses[1].store(pauses, Ordering::Relaxed);
    }

    /// Reader only: leaves a receiver to the next reader.
    pub fn carry(&self, receiver: TrackReceiver) {
        *self.carried.lock().unwrap_or_else(PoisonError::into_inner) = Some(receiver);
    }

    /// Reader only.
    pub fn take_carried(&self) -> Option<TrackReceiver> {
        self.carried.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Reader only, after the ring has ended and is empty: what entered after the last packet delivered.
    pub fn take_tail(&self) -> Skipped {
        Skipped { dropped_by_us: self.pending_drops.swap(0, Ordering::Relaxed), ..self.swap_tail() }
    }

    fn add_tail(&self, skipped: Skipped) {
        let counts = [skipped.duplicate, skipped.padding, skipped.late, skipped.undecryptable];
        for (tail, count) in self.tail.iter().zip(counts) {
            tail.fetch_add(count, Ordering::Relaxed);
        }
    }

    fn swap_tail(&self) -> Skipped {
        let [duplicate, padding, late, undecryptable] =
            self.tail.each_ref().map(|tail| tail.swap(0, Ordering::Relaxed));
        Skipped { duplicate, padding, late, undecryptable, dropped_by_us: 0 }
    }
}
