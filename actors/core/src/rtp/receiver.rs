//! The receive pipeline of one stream: packets in arrival order in, frames in decoding order out.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::media::{Codec, RtpPacket, Skipped};
use crate::rtp::clock::{TimestampLine, Unwrapped};
use crate::rtp::continuity::Continuity;
use crate::rtp::depacketise::{Depacketiser, ParameterSets};
use crate::rtp::ledger::{Ledger, Reason};
use crate::rtp::opus;
use crate::rtp::output::{EncodedFrame, FormatChange, OpusFacts, ReceiverOutput, VideoFacts};
use crate::rtp::reorder::{Arrival, Released, ReorderBuffer};
use crate::time::BootTime;

/// Bounds and patience of a [`TrackReceiver`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceiverSettings {
    /// How long a missing packet is waited for after the first packet beyond it arrived.
    pub reorder_wait: Duration,
    /// Between two wishes for a key frame.
    pub key_frame_retry: Duration,
    /// Payload bytes of one frame; a larger one counts as `incomplete_frame`.
    pub max_frame_bytes: usize,
    /// Packets held, each for itself: for reordering (when full, the oldest hole is given up), in the frame under
    /// construction (when full, the frame is given up); and twice as many in frames not yet polled, so that a filled
    /// hole can empty the buffer at once (when full, a new frame is `dropped_by_us`).
    pub max_buffered_packets: usize,
}

impl Default for ReceiverSettings {
    fn default() -> Self {
        Self {
            reorder_wait: Duration::from_millis(1500),
            key_frame_retry: Duration::from_secs(1),
            max_frame_bytes: 4 << 20,
            max_buffered_packets: 4096,
        }
    }
}

/// A hole after so long a silence is an outage: what it took will not be sent again, so that a picture needs a key frame.
const OUTAGE: Duration = Duration::from_secs(1);
/// So many packets at least; fewer may have been lost on their own, and are asked for again.
const OUTAGE_PACKETS: u64 = 16;

/// See the module. Pure: arrivals and `now` are arguments.
#[derive(Clone, Debug)]
pub struct TrackReceiver {
    settings: ReceiverSettings,
    reorder: ReorderBuffer,
    depacketiser: Option<Depacketiser>,
    continuity: Continuity,
    line: TimestampLine,
    ledger: Ledger,
    ingress_base: u64,
    last_ingress: u64,
    /// Lost by our own ring, so sequence numbers missing for that are not the network's.
    dropped_before: u64,
    frame: Building,
    /// Packets missing since the last packet that left the reorder buffer.
    hole: u64,
    out: VecDeque<ReceiverOutput>,
    out_packets: u64,
    last_time: Option<i64>,
    /// End of the Opus packet before, if nothing is missing after it.
    last_sound_end: Option<i64>,
    discontinuity: bool,
    new_clock: bool,
    parameter_sets: Option<Arc<ParameterSets>>,
    key_frame_missed: bool,
    key_frame_asked: Option<BootTime>,
    last_arrival: Option<BootTime>,
}

/// The frame under construction: packets of one timestamp.
#[derive(Clone, Debug, Default)]
struct Building {
    packets: Vec<RtpPacket>,
    bytes: usize,
    /// Packets that were counted but not kept, because the frame cannot become whole.
    discarded: u64,
    broken: bool,
    /// Packets missing before the first one.
    gap: u64,
}

impl Building {
    fn count(&self) -> u64 {
        self.packets.len() as u64 + self.discarded
    }

    fn clear(&mut self) {
        self.packets.clear();
        self.bytes = 0;
        self.discarded = 0;
        self.broken = false;
        self.gap = 0;
    }
}

impl TrackReceiver {
    /// `ingress_base`: [`RtpPacket::ingress`] of the last packet that belonged to an earlier segment, 0 for the first.
    pub fn new(codec: Codec, clock_rate: u32, settings: ReceiverSettings, ingress_base: u64) -> Self {
        let packets = settings.max_buffered_packets;
        Self {
            reorder: ReorderBuffer::new(settings.reorder_wait, clock_rate, packets),
            settings,
            depacketiser: Depacketiser::new(codec),
            continuity: Continuity::default(),
            line: TimestampLine::new(clock_rate),
            ledger: Ledger::default(),
            ingress_base,
            last_ingress: ingress_base,
            dropped_before: 0,
            frame: Building::default(),
            hole: 0,
            out: VecDeque::new(),
            out_packets: 0,
            last_time: None,
            last_sound_end: None,
            discontinuity: false,
            new_clock: false,
            parameter_sets: None,
            key_frame_missed: false,
            key_frame_asked: None,
            last_arrival: None,
        }
    }

    /// Takes a packet in arrival order. Holes whose wait ended before its arrival are given up first.
    ///
    /// Padding that has a sequence number of this stream must come through here as an empty payload: what is only told
    /// in [`Skipped::padding`] leaves a hole that counts as lost.
    pub fn push(&mut self, packet: RtpPacket) {
        self.last_ingress = self.last_ingress.max(packet.ingress);
        self.ledger.received = self.last_ingress - self.ingress_base;
        self.ledger.skip(packet.skipped);
        self.dropped_before += u64::from(packet.skipped.dropped_by_us);
        let arrival = packet.arrival;
        self.release(arrival);
        if self.reorder.pass_in_sequence(&packet) {
            self.take(packet);
            return;
        }
        let (fate, stray_is_late) = self.reorder.insert(packet);
        match fate {
            Arrival::Taken => {}
            Arrival::Duplicate => self.ledger.duplicate += 1,
            Arrival::Late => self.ledger.late += 1,
        }
        self.ledger.late += u64::from(stray_is_late);
        let before = self.last_arrival.replace(arrival);
        if before.is_some_and(|before| arrival.saturating_since(before) >= OUTAGE)
            && self.depacketiser.is_some()
            && self.reorder.waits_for() >= OUTAGE_PACKETS
        {
            // Asked for while the hole is still waited for, so that there is a key frame when it is given up.
            self.key_frame_missed = true;
        }
        self.release(arrival);
    }

    /// The next output. Call until `None`.
    ///
    /// `now` gives up holes whose wait is over, so every packet that arrived before it must have been pushed: read the
    /// clock *before* emptying the ring, or pass the arrival of the packet just pushed while the ring is not empty.
    pub fn poll(&mut self, now: BootTime) -> Option<ReceiverOutput> {
        if self.out.is_empty() {
            self.release(now);
        }
        if self.key_frame_missed
            && self.key_frame_asked.is_none_or(|at| now.saturating_since(at) >= self.settings.key_frame_retry)
        {
            self.key_frame_missed = false;
            self.key_frame_asked = Some(now);
            return Some(ReceiverOutput::KeyFrameWanted);
        }
        let output = self.out.pop_front()?;
        if let ReceiverOutput::Frame(frame) = &output {
            self.out_packets -= u64::from(frame.packets);
            self.ledger.written += u64::from(frame.packets);
        }
        Some(output)
    }

    /// When `poll` may have something new although nothing is pushed.
    pub fn deadline(&self) -> Option<BootTime> {
        self.reorder.deadline()
    }

    /// Gives up waiting: everything that can still become a frame is ready for `poll`.
    pub fn drain(&mut self) {
        if self.reorder.take_stray().is_some() {
            self.ledger.late += 1;
        }
        self.release(BootTime(u64::MAX));
        if !self.frame.packets.is_empty() {
            // Without its marker the frame may lack packets that were never seen.
            self.frame.broken = true;
            self.close_frame();
        }
    }

    /// Counts so far. `received` equals the fates plus [`Self::in_flight`].
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Packets that were pushed and whose fate is open.
    pub fn in_flight(&self) -> u64 {
        self.reorder.len() as u64 + self.frame.count() + self.out_packets
    }

    /// Packets that lie in memory: bounded by `max_buffered_packets` + 1 for reordering, as many in the frame under
    /// construction, and twice as many in frames not yet polled.
    pub fn held(&self) -> u64 {
        self.reorder.len() as u64 + self.frame.packets.len() as u64 + self.out_packets
    }

    /// Ingress number of the last packet pushed.
    pub fn last_ingress(&self) -> u64 {
        self.last_ingress
    }

    /// A frame that was polled could not be written after all.
    pub fn reject(&mut self, packets: u64, reason: Reason) {
        self.ledger.reject(packets, reason);
    }

    /// Closes the ledger of a segment and goes on in the next one; packets whose fate is open belong to that.
    pub fn split(&mut self) -> Ledger {
        let mut closed = std::mem::take(&mut self.ledger);
        let open = self.in_flight();
        closed.received = closed.received.saturating_sub(open);
        self.ingress_base += closed.received;
        self.ledger.received = self.last_ingress - self.ingress_base;
        closed
    }

    /// The last call. Drains; frames not polled by then are `dropped_by_us`. `tail`: what entered after the last packet
    /// pushed; `received_total`: the stream's count of packets that entered since it began.
    pub fn finish(&mut self, tail: Skipped, received_total: u64) -> Ledger {
        self.drain();
        self.ledger.dropped_by_us += std::mem::take(&mut self.out_packets);
        self.out.clear();
        self.ledger.skip(tail);
        self.ledger.received = received_total.saturating_sub(self.ingress_base);
        self.ledger.clone()
    }

    /// The last call where the sender does not want to be recorded any more: what has no fate yet, and `rest`, the packets
    /// that were not pushed, is thrown away and counted as `opted_out`. The ledger is that of these and all before,
    /// the number beside it the ingress of the last.
    pub fn discard(mut self, rest: impl IntoIterator<Item = RtpPacket>) -> (Ledger, u64) {
        self.ledger.opted_out += self.in_flight();
        self.ledger.received = self.last_ingress - self.ingress_base;
        for packet in rest {
            // Between two of these may lie others that nobody kept, so their numbers do not tell how many there were.
            self.ledger.received += 1 + packet.skipped.total();
            self.ledger.skip(packet.skipped);
            self.ledger.opted_out += 1;
            self.last_ingress = self.last_ingress.max(packet.ingress);
        }
        (self.ledger, self.last_ingress)
    }

    fn release(&mut self, now: BootTime) {
        if !self.reorder.has_any() {
            return;
        }
        while let Some(released) = self.reorder.release(now) {
            match released {
                Released::Packet(packet) => self.take(packet),
                Released::Hole(count) => {
                    let ours = count.min(self.dropped_before);
                    self.dropped_before -= ours;
                    self.ledger.lost += count - ours;
                    self.hole += count;
                }
                Released::Restart => {
                    if !self.frame.packets.is_empty() {
                        self.frame.broken = true;
                        self.close_frame();
                    }
                    self.hole = 0;
                    self.discontinuity = true;
                    self.last_sound_end = None;
                    self.continuity.reset();
                }
            }
        }
    }

    /// A packet in sequence.
    fn take(&mut self, packet: RtpPacket) {
        if packet.recovered {
            self.ledger.recovered += 1;
        }
        if packet.payload.is_empty() {
            self.ledger.padding += 1;
            return;
        }
        if self.depacketiser.is_none() {
            self.take_audio(packet);
            return;
        }
        let hole = std::mem::take(&mut self.hole);
        match self.frame.packets.first() {
            Some(first) if first.timestamp != packet.timestamp => {
                self.frame.broken |= hole > 0;
                self.close_frame();
                self.frame.gap = hole;
            }
            Some(_) => self.frame.broken |= hole > 0,
            None => self.frame.gap = hole,
        }
        let marker = packet.marker;
        let bytes = self.frame.bytes + packet.payload.len();
        let too_large = bytes > self.settings.max_frame_bytes
            || self.frame.packets.len() >= self.settings.max_buffered_packets;
        self.frame.broken |= too_large;
        if self.frame.broken && !self.frame.packets.is_empty() {
            // One packet is enough to tell what was lost.
            self.frame.discarded += self.frame.packets.len() as u64;
            self.frame.packets.truncate(1);
        } else {
            self.frame.bytes = bytes;
            self.frame.packets.push(packet);
        }
        if marker {
            self.close_frame();
        }
    }

    fn close_frame(&mut self) {
        let mut frame = std::mem::take(&mut self.frame);
        self.judge(&frame);
        // The list keeps its room for the next frame.
        frame.clear();
        self.frame = frame;
    }

    fn judge(&mut self, frame: &Building) {
        let Some(depacketiser) = &mut self.depacketiser else { return };
        let Some(first) = frame.packets.first() else { return };
        let whole = if frame.broken { None } else { depacketiser.frame(&frame.packets).ok() };
        let certain = whole.filter(|whole| {
            frame.gap == 0 || (whole.start_is_certain || !whole.key) && !whole.leans_on_earlier_sets
        });
        let Some(whole) = certain else {
            let told = depacketiser.dependencies(&first.payload);
            self.continuity.miss(&told, frame.gap);
            self.ledger.incomplete_frame += frame.count();
            self.withhold();
            return;
        };
        let arrivals = frame.packets.iter().map(|packet| packet.arrival);
        let first_arrival = arrivals.clone().min().unwrap_or(first.arrival);
        let last_arrival = arrivals.max().unwrap_or(first.arrival);
        let rtp_time = self.unwrap(first.timestamp, first_arrival);
        if self.last_time.is_some_and(|last| rtp_time <= last) {
            self.continuity.miss(&whole.dependencies, frame.gap);
            self.ledger.late += frame.count();
            self.withhold();
            return;
        }
        if !self.continuity.admit(&whole.dependencies, whole.key, frame.gap) {
            self.ledger.before_key_frame += frame.count();
            self.withhold();
            return;
        }
        let video = whole.key.then(|| VideoFacts {
            width: whole.size.map_or(0, |size| size.0),
            height: whole.size.map_or(0, |size| size.1),
            parameter_sets: whole.parameter_sets,
        });
        self.emit(EncodedFrame {
            rtp_time,
            first_arrival,
            last_arrival,
            key: whole.key,
            data: whole.data,
            packets: frame.packets.len() as u32,
            video,
            rotation: frame.packets.iter().rev().find_map(|packet| packet.rotation),
            audio: None,
            discontinuity: self.discontinuity || frame.gap > 0,
        });
    }

    fn take_audio(&mut self, packet: RtpPacket) {
        let hole = std::mem::take(&mut self.hole);
        if hole > 0 {
            self.discontinuity = true;
            self.last_sound_end = None;
        }
        let rtp_time = self.unwrap(packet.timestamp, packet.arrival);
        if self.last_time.is_some_and(|last| rtp_time <= last) {
            self.ledger.late += 1;
            self.discontinuity = true;
            return;
        }
        let duration = opus::duration(&packet.payload);
        let silence = self.last_sound_end.map_or(0, |end| u64::try_from(rtp_time - end).unwrap_or(0));
        self.last_sound_end = duration.map(|duration| rtp_time + i64::from(duration));
        let audio = OpusFacts {
            channels: opus::channels(&packet.payload).unwrap_or(1),
            duration_samples: duration.unwrap_or(0),
            dtx: opus::is_dtx(&packet.payload),
            silence_samples: silence,
        };
        self.emit(EncodedFrame {
            rtp_time,
            first_arrival: packet.arrival,
            last_arrival: packet.arrival,
            key: true,
            data: packet.payload,
            packets: 1,
            video: None,
            rotation: packet.rotation,
            audio: Some(audio),
            discontinuity: self.discontinuity,
        });
    }

    fn unwrap(&mut self, timestamp: u32, arrival: BootTime) -> i64 {
        match self.line.unwrap(timestamp, arrival) {
            Unwrapped::Time(time) => time,
            Unwrapped::Restarted(time) => {
                self.new_clock = self.new_clock || self.last_time.is_some();
                self.last_time = None;
                self.last_sound_end = None;
                // A file begins with a key frame.
                self.continuity.reset();
                time
            }
        }
    }

    fn withhold(&mut self) {
        self.discontinuity = true;
        self.key_frame_missed |= self.continuity.needs_key_frame();
    }

    fn emit(&mut self, frame: EncodedFrame) {
        let room = 2 * (self.settings.max_buffered_packets as u64 + 1);
        if self.out_packets + u64::from(frame.packets) > room {
            self.ledger.dropped_by_us += u64::from(frame.packets);
            self.discontinuity = true;
            self.continuity.reset();
            return;
        }
        if frame.key {
            self.key_frame_missed = false;
            self.key_frame_asked = None;
        }
        let mut change = std::mem::take(&mut self.new_clock).then_some(FormatChange::RtpClock);
        if let Some(sets) = frame.video.as_ref().and_then(|video| video.parameter_sets.as_ref())
            && !matches!(**sets, ParameterSets::Av1 { .. })
        {
            let known = self.parameter_sets.replace(Arc::clone(sets));
            if known.is_some_and(|known| known != *sets) && change.is_none() {
                change = Some(FormatChange::ParameterSets);
            }
        }
        if let Some(change) = change {
            self.out.push_back(ReceiverOutput::FormatChanged(change));
        }
        self.discontinuity = false;
        self.last_time = Some(frame.rtp_time);
        self.out_packets += u64::from(frame.packets);
        self.out.push_back(ReceiverOutput::Frame(frame));
    }
}
