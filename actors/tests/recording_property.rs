//! Whatever happens between ring and disk, every packet is accounted for once and no frame is out of order.
#![cfg(feature = "fault-injection")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use recorder_actors::lane::LaneSettings;
use recorder_actors::ring::TrackRing;
use recorder_actors::segment::{SegmentHandle, SegmentPhase, TrackNames};
use recorder_actors::testing::{Point, arm_everywhere};
use recorder_core::manifest::OpenedBecause;
use recorder_core::media::{Codec, RtpPacket};
use support::{Fault, Rig, Sender, settings, until};

/// What may befall a recording.
#[derive(Clone, Debug)]
enum Step {
    Frames {
        count: usize,
        key_every: usize,
    },
    /// A frame of which a packet does not arrive.
    Lose,
    /// A packet that arrives with the next [`Step::Deliver`].
    Delay,
    Deliver,
    /// Packets that enter and are not delivered.
    Duplicates(u32),
    Stall,
    /// The files hold so many bytes more than now.
    Full(u64),
    Mend,
    SyncFails,
    PumpPanics,
    MediaPanics,
    Next,
}

struct Run {
    rig: Rig,
    ring: Arc<TrackRing>,
    names: Arc<TrackNames>,
    sender: Sender,
    segments: Vec<SegmentHandle>,
    delayed: Vec<RtpPacket>,
}

impl Run {
    fn new(codec: Codec, track: &str) -> Self {
        let rig = Rig::with(LaneSettings { budget: 300_000, audio_reserve: 50_000, ..settings() });
        let ring = rig.ring(codec, Some(256));
        let names = rig.names(track, codec.kind());
        let sender = Sender::new(&ring, &rig.clock);
        let segments = vec![rig.start(&ring, &names, OpenedBecause::First)];
        Self { rig, ring, names, sender, segments, delayed: Vec::new() }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Frames { count, key_every } => {
                for index in 0..*count {
                    self.sender.frame(index % key_every == 0, 1500);
                    self.sender.tick();
                }
            }
            Step::Lose => drop(self.lack_one()),
            Step::Delay => {
                let packet = self.lack_one();
                self.delayed.extend(packet);
            }
            Step::Deliver => {
                let packets = std::mem::take(&mut self.delayed);
                self.sender.push(packets);
            }
            Step::Duplicates(count) => self.sender.skip_duplicates(*count),
            Step::Stall => self.rig.disk.instead("", Fault::Stall),
            Step::Full(more) => {
                let longest = self.rig.disk.longest();
                self.rig.disk.instead("", Fault::FullAt(longest + more, ErrorKind::StorageFull));
            }
            Step::Mend => self.rig.disk.mend(),
            Step::SyncFails => self.rig.disk.instead("", Fault::SyncFails),
            Step::PumpPanics => arm_everywhere(Point::Pump, self.names.track.as_str(), 1),
            Step::MediaPanics => self.rig.media.panics.store(1, Ordering::SeqCst),
            Step::Next => {
                let current = self.segments.last().unwrap();
                self.rig.ask_to_finish(current);
                self.start(OpenedBecause::SourceOn);
            }
        }
        // A writer would look each second, or when nudged.
        if matches!(self.segments.last().unwrap().now().phase, SegmentPhase::Failed(_)) {
            self.start(OpenedBecause::WriterRestarted);
        }
    }

    fn start(&mut self, because: OpenedBecause) {
        self.segments.push(self.rig.start(&self.ring, &self.names, because));
    }

    /// Sends a frame without its last packet.
    fn lack_one(&mut self) -> Option<RtpPacket> {
        let sent = self.sender.next(false, 1500);
        let mut packets = self.sender.make(sent);
        let lacking = packets.pop();
        self.sender.push(packets);
        self.sender.tick();
        lacking
    }

    /// Ends all and judges.
    fn judge(mut self) {
        self.rig.disk.mend();
        self.ring.end();
        loop {
            let last = self.segments.last().unwrap().clone();
            match self.rig.wait_over(&last).phase {
                SegmentPhase::Closed => break,
                _ => self.start(OpenedBecause::WriterRestarted),
            }
        }
        let mut received = 0;
        for segment in &self.segments {
            let facts = self.rig.wait_over(segment);
            assert!(facts.ledger.balances(), "{:?}", facts.ledger);
            received += facts.ledger.received;
        }
        assert_eq!(received, self.sender.entered());
        let totals = &self.rig.board.totals;
        assert_eq!(totals.packets_received.load(Ordering::SeqCst), received);
        assert_eq!(self.rig.session.rejected(), 0);
        let mut sent = self.sender.sent.iter();
        for segment in self.rig.segments() {
            assert!(segment.is_final && segment.ledger.balances(), "{segment:?}");
            let data = if segment.frames == 0 { Vec::new() } else { self.rig.data(&segment.file) };
            assert_eq!(data.len() as u64, segment.frames);
            let mut written = 0;
            for frame in data {
                let found = sent.find(|(other, _)| *other == frame);
                written += found.expect("a frame that was sent, after the one before").1;
            }
            assert_eq!(segment.ledger.written, written, "{}", segment.file);
        }
        until("nothing waits for the disk", || self.rig.lanes.queued_bytes() == 0);
        self.rig.pumps.shut_down();
        self.rig.lanes.shut_down();
    }
}

/// Steps drawn from a seed (xorshift), so that a failure can be told and repeated.
fn steps(seed: u64, count: usize) -> Vec<Step> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut draw = move |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 16) % below
    };
    (0..count)
        .map(|_| match draw(24) {
            0 | 1 => Step::Lose,
            2 => Step::Delay,
            3 => Step::Deliver,
            4 => Step::Duplicates(draw(5) as u32),
            5 => Step::Stall,
            6 => Step::Full(draw(20_000)),
            7 | 8 => Step::Mend,
            9 => Step::SyncFails,
            10 => Step::PumpPanics,
            11 => Step::MediaPanics,
            12 => Step::Next,
            _ => Step::Frames { count: 1 + draw(40) as usize, key_every: 1 + draw(40) as usize },
        })
        .collect()
}

#[expect(clippy::print_stdout, reason = "tells of the seed that failed")]
fn whatever_happens(codec: Codec) {
    for seed in 1..=12 {
        let mut run = Run::new(codec, &format!("property-{}-{seed}", codec.name()));
        let steps = steps(seed, 60);
        for (index, step) in steps.iter().enumerate() {
            run.step(step);
            if index % 4 == 0 {
                let (ring, last) = (Arc::clone(&run.ring), run.segments.last().unwrap().clone());
                // A segment that failed reads no more, and one that waits for it does not yet.
                until("the ring is read", || {
                    let phase = &last.now().phase;
                    ring.is_empty() || phase.is_over() || *phase == SegmentPhase::Finishing
                });
            }
        }
        println!("seed {seed}: {} segments of {steps:?}", run.segments.len());
        run.judge();
    }
}

#[test]
fn whatever_happens_every_packet_of_sound_is_accounted_for_once() {
    whatever_happens(Codec::Opus);
}

#[test]
fn whatever_happens_every_packet_of_video_is_accounted_for_once() {
    whatever_happens(Codec::Vp8);
}

#[test]
fn whatever_happens_every_packet_of_video_with_parameter_sets_is_accounted_for_once() {
    whatever_happens(Codec::H264);
}
