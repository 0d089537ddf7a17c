//! A far side that numbers its packets as the media loop would.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use recorder_actors::ports::Clock;
use recorder_actors::ring::TrackRing;
use recorder_core::media::{Codec, RtpPacket, Skipped};

use super::rig::{TestClock, until_taken};
use super::rtp_support::{Sent, packet, send};

const MTU: usize = 1100;

pub struct Sender {
    ring: Arc<TrackRing>,
    clock: Arc<TestClock>,
    sequence: u64,
    timestamp: u32,
    ingress: u64,
    number: u32,
    /// Every frame sent, byte for byte, with the count of its packets.
    pub sent: Vec<(Vec<u8>, u64)>,
}

impl Sender {
    pub fn new(ring: &Arc<TrackRing>, clock: &Arc<TestClock>) -> Self {
        Self {
            ring: Arc::clone(ring),
            clock: Arc::clone(clock),
            sequence: 100,
            timestamp: 5000,
            ingress: 0,
            number: 0,
            sent: Vec::new(),
        }
    }

    /// Packets that entered so far.
    pub fn entered(&self) -> u64 {
        self.ingress
    }

    pub fn data(&self) -> Vec<Vec<u8>> {
        self.sent.iter().map(|sent| sent.0.clone()).collect()
    }

    /// The far side's clock goes on without a frame.
    pub fn pause_ms(&mut self, ms: u32) {
        self.timestamp = self.timestamp.wrapping_add(self.ring.info.clock_rate / 1000 * ms);
    }

    /// Packets of the next frame, neither numbered as arrived nor pushed.
    pub fn make(&mut self, sent: Sent) -> Vec<RtpPacket> {
        let last = sent.payloads.len() - 1;
        let count = sent.payloads.len() as u64;
        let packets = sent
            .payloads
            .into_iter()
            .enumerate()
            .map(|(index, payload)| {
                self.sequence += 1;
                packet(self.sequence, self.timestamp, index == last, payload)
            })
            .collect();
        self.sent.push((sent.frame, count));
        self.pause_ms(self.frame_ms());
        packets
    }

    fn frame_ms(&self) -> u32 {
        if self.ring.info.codec == Codec::Opus { 20 } else { 33 }
    }

    /// The recorder's clock goes on by one frame.
    pub fn tick(&self) {
        self.clock.advance(Duration::from_millis(self.frame_ms().into()));
    }

    pub fn next(&mut self, key: bool, size: usize) -> Sent {
        self.number += 1;
        send(self.ring.info.codec, self.number, key, size, MTU)
    }

    /// Now they arrive.
    pub fn push(&mut self, packets: Vec<RtpPacket>) {
        for mut packet in packets {
            self.ingress += 1;
            packet.ingress = self.ingress;
            packet.arrival = self.clock.now();
            self.ring.counters.received.fetch_add(1, Ordering::Relaxed);
            self.ring.push_packet(packet);
        }
    }

    /// Repeats that enter and are not delivered.
    pub fn skip_duplicates(&mut self, count: u32) {
        self.ingress += u64::from(count);
        self.ring.counters.received.fetch_add(count.into(), Ordering::Relaxed);
        self.ring.skip(Skipped { duplicate: count, ..Skipped::default() });
    }

    pub fn frame(&mut self, key: bool, size: usize) {
        let sent = self.next(key, size);
        let packets = self.make(sent);
        self.push(packets);
    }

    /// Frames one after the other, the clock going on and the ring being read.
    pub fn frames(&mut self, count: usize, key_every: usize, size: usize) {
        for index in 0..count {
            self.frame(key_every > 0 && index % key_every == 0, size);
            self.tick();
            if index % 50 == 49 {
                until_taken(&self.ring);
            }
        }
        until_taken(&self.ring);
    }
}
