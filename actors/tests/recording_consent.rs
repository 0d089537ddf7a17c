//! An opt-out: what is queued is thrown away and accounted for, and nothing that arrives while it holds is in any file.
#![cfg(feature = "fault-injection")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::collections::HashSet;
use std::sync::Arc;

use recorder_actors::ports::Clock as _;
use recorder_actors::ring::TrackRing;
use recorder_actors::segment::{SegmentHandle, SegmentPhase, TrackNames};
use recorder_actors::testing::{Point, arm_everywhere};
use recorder_core::manifest::OpenedBecause;
use recorder_core::media::{Codec, MediaKind, RtpPacket};
use support::{Rig, Sender, until, until_taken};

#[test]
fn an_opt_out_throws_away_what_is_queued_and_keeps_what_was_recorded_before() {
    for (codec, kind) in [(Codec::Opus, MediaKind::Audio), (Codec::Vp8, MediaKind::Video)] {
        let rig = Rig::new();
        let ring = rig.ring(codec, None);
        let names = rig.names(&format!("consent-1-{}", codec.name()), kind);
        let segment = rig.start(&ring, &names, OpenedBecause::First);
        let mut sender = Sender::new(&ring, &rig.clock);
        sender.frames(30, 30, 1500);
        until("all is on the disk", || {
            rig.advance_ms(100);
            segment.now().frames == 30
        });
        // These are in the file's open cluster.
        for _ in 0..5 {
            sender.frame(false, 1500);
        }
        until_taken(&ring);
        let before = sender.sent.len();
        // The first of these has a hole before it, so that all wait for a retransmission.
        let lost = sender.next(false, 1500);
        drop(sender.make(lost));
        for _ in 0..20 {
            sender.frame(false, 1500);
        }
        let queued = sender.sent[30..before].iter().chain(&sender.sent[before + 1..]);
        let queued: u64 = queued.map(|sent| sent.1).sum();
        ring.withhold();
        let entered = sender.entered();
        sender.frame(true, 1500);
        let facts = rig.wait_closed(&segment);
        assert!(facts.ledger.balances(), "{:?}", facts.ledger);
        assert_eq!(facts.ledger.received, entered, "what came later belongs to no segment");
        assert_eq!((facts.ledger.opted_out, facts.ledger.dropped_by_us), (queued, 0));
        let file = facts.file.clone().unwrap();
        assert_eq!(rig.data(&file), sender.data()[..30]);
        assert_eq!(rig.segments()[0].frames, 30);
        assert!(ring.is_empty(), "nothing is kept");
    }
}

#[test]
fn an_opt_in_begins_the_next_file_with_a_key_frame_that_arrived_after_it() {
    let rig = Rig::new();
    let ring = rig.ring(Codec::Vp8, None);
    let names = rig.names("consent-2", MediaKind::Video);
    let first = rig.start(&ring, &names, OpenedBecause::First);
    let mut sender = Sender::new(&ring, &rig.clock);
    sender.frames(30, 30, 1500);
    ring.withhold();
    rig.wait_closed(&first);
    for _ in 0..3000 {
        sender.frame(true, 1500);
    }
    rig.advance_ms(1000);
    ring.admit(rig.clock.now());
    let keys = rig.keys_asked();
    let second = rig.start(&ring, &names, OpenedBecause::OptedIn);
    let after = sender.sent.len();
    sender.skip_duplicates(3);
    sender.frames(5, 0, 1500);
    until("a key frame is asked for", || rig.keys_asked() > keys);
    sender.frames(30, 30, 1500);
    let facts = rig.finish(&second);
    let segments = rig.segments();
    assert_eq!(segments.len(), 2);
    assert!(segments[1].opened_because.is(OpenedBecause::OptedIn));
    assert_eq!(rig.data(&segments[1].file), sender.data()[after + 5..]);
    assert!(facts.ledger.balances(), "{:?}", facts.ledger);
    assert!(facts.ledger.before_key_frame > 0);
    assert_eq!((facts.ledger.dropped_by_us, facts.ledger.opted_out, facts.ledger.lost), (0, 0, 0));
}

#[test]
fn an_opt_out_that_is_undone_before_anyone_looks_ends_the_file_all_the_same() {
    let rig = Rig::new();
    let ring = rig.ring(Codec::Opus, None);
    let names = rig.names("consent-3", MediaKind::Audio);
    let first = rig.start(&ring, &names, OpenedBecause::First);
    let mut sender = Sender::new(&ring, &rig.clock);
    sender.frames(50, 1, 80);
    ring.withhold();
    ring.admit(rig.clock.now());
    let facts = rig.wait_closed(&first);
    assert!(facts.ledger.balances(), "{:?}", facts.ledger);
    rig.advance_ms(10);
    let second = rig.start(&ring, &names, OpenedBecause::OptedIn);
    sender.frames(50, 1, 80);
    rig.finish(&second);
    assert_eq!(rig.data(&rig.segments()[1].file), sender.data()[50..]);
}

#[test]
fn a_sibling_that_did_not_opt_out_loses_nothing() {
    let rig = Rig::new();
    let (mine, theirs) = (rig.ring(Codec::Opus, None), rig.ring(Codec::Opus, None));
    let (a, b) = (rig.names("consent-4a", MediaKind::Audio), rig.names("consent-4b", MediaKind::Audio));
    let out = rig.start(&mine, &a, OpenedBecause::First);
    let stays = rig.start(&theirs, &b, OpenedBecause::First);
    let (mut one, mut two) = (Sender::new(&mine, &rig.clock), Sender::new(&theirs, &rig.clock));
    for index in 0..100 {
        if index == 50 {
            mine.withhold();
        }
        one.frame(true, 80);
        two.frame(true, 80);
        one.tick();
    }
    rig.finish(&out);
    let facts = rig.finish(&stays);
    assert_eq!(rig.data(&facts.file.clone().unwrap()), two.data());
    assert_eq!((facts.ledger.received, facts.ledger.written), (100, 100));
}

/// What may befall a recording with an opt-out or two.
#[derive(Clone, Debug)]
enum Step {
    Frames(usize),
    Lose,
    /// A packet that arrives with the next [`Step::Deliver`].
    Delay,
    Deliver,
    Wait(u64),
    Panic,
    Next,
    OptOut,
    OptIn,
}

struct Run {
    rig: Rig,
    ring: Arc<TrackRing>,
    names: Arc<TrackNames>,
    sender: Sender,
    segments: Vec<SegmentHandle>,
    delayed: Vec<(usize, RtpPacket)>,
    out: bool,
    /// Frames of which a packet arrived during an opt-out.
    forbidden: HashSet<Vec<u8>>,
}

impl Run {
    fn step(&mut self, step: &Step) {
        match step {
            Step::Frames(count) => {
                for index in 0..*count {
                    let sent = self.sender.next(index % 10 == 0, 1500);
                    let packets = self.sender.make(sent);
                    self.arrive(self.sender.sent.len() - 1, packets);
                    self.sender.tick();
                }
            }
            Step::Lose | Step::Delay => {
                let sent = self.sender.next(false, 1500);
                let mut packets = self.sender.make(sent);
                let place = self.sender.sent.len() - 1;
                let lacking = packets.pop().filter(|_| matches!(step, Step::Delay));
                self.delayed.extend(lacking.map(|packet| (place, packet)));
                self.arrive(place, packets);
                self.sender.tick();
            }
            Step::Deliver => {
                for (place, packet) in std::mem::take(&mut self.delayed) {
                    self.arrive(place, vec![packet]);
                }
            }
            Step::Wait(ms) => self.rig.advance_ms(*ms),
            Step::Panic => arm_everywhere(Point::Pump, self.names.track.as_str(), 1),
            Step::Next if !self.out => {
                self.finish_current();
                self.start(OpenedBecause::SourceOn);
            }
            Step::OptOut => {
                self.out = true;
                self.ring.withhold();
                self.finish_current();
            }
            Step::OptIn if self.out => {
                self.out = false;
                self.rig.advance_ms(1);
                self.ring.admit(self.rig.clock.now());
                self.start(OpenedBecause::OptedIn);
            }
            Step::Next | Step::OptIn => {}
        }
        // A writer would look each second, or when nudged.
        if !self.out && matches!(self.segments.last().unwrap().now().phase, SegmentPhase::Failed(_)) {
            self.start(OpenedBecause::WriterRestarted);
        }
    }

    fn arrive(&mut self, place: usize, packets: Vec<RtpPacket>) {
        if self.out && !packets.is_empty() {
            self.forbidden.insert(self.sender.sent[place].0.clone());
        }
        self.sender.push(packets);
    }

    fn start(&mut self, because: OpenedBecause) {
        self.segments.push(self.rig.start(&self.ring, &self.names, because));
    }

    fn finish_current(&self) {
        self.rig.ask_to_finish(self.segments.last().unwrap());
    }

    fn judge(self) {
        self.ring.end();
        self.finish_current();
        for segment in &self.segments {
            // Time goes on, so that nothing is waited for in vain.
            until("the segment is over", || {
                self.rig.advance_ms(100);
                segment.now().phase.is_over()
            });
            let ledger = &segment.now().ledger;
            assert!(ledger.balances(), "{ledger:?}");
        }
        let mut sent = self.sender.sent.iter();
        for segment in self.rig.segments() {
            assert!(segment.is_final && segment.ledger.balances(), "{segment:?}");
            let data = if segment.frames == 0 { Vec::new() } else { self.rig.data(&segment.file) };
            assert_eq!(data.len() as u64, segment.frames);
            let mut written = 0;
            for frame in data {
                assert!(!self.forbidden.contains(&frame), "{} holds what arrived opted out", segment.file);
                let found = sent.find(|(other, _)| *other == frame);
                written += found.expect("a frame that was sent, after the one before").1;
            }
            assert_eq!(segment.ledger.written, written, "{}", segment.file);
        }
        assert_eq!(self.rig.session.rejected(), 0);
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
        .map(|_| match draw(20) {
            0 => Step::Lose,
            1 => Step::Delay,
            2 => Step::Deliver,
            3 | 4 => Step::Wait(draw(2500)),
            5 => Step::Panic,
            6 => Step::Next,
            7 | 8 => Step::OptOut,
            9..=11 => Step::OptIn,
            _ => Step::Frames(1 + draw(30) as usize),
        })
        .collect()
}

#[test]
fn whatever_happens_nothing_that_arrived_during_an_opt_out_is_in_a_file() {
    for (codec, seed) in
        [Codec::Opus, Codec::Vp8, Codec::H264].into_iter().flat_map(|c| (1..=10).map(move |s| (c, s)))
    {
        let rig = Rig::new();
        let ring = rig.ring(codec, None);
        let names = rig.names(&format!("consent-5-{}-{seed}", codec.name()), codec.kind());
        let sender = Sender::new(&ring, &rig.clock);
        let segments = vec![rig.start(&ring, &names, OpenedBecause::First)];
        let steps = steps(seed, 60);
        println!("{codec:?}, seed {seed}: {steps:?}");
        let mut run = Run {
            rig,
            ring,
            names,
            sender,
            segments,
            delayed: Vec::new(),
            out: false,
            forbidden: HashSet::new(),
        };
        for step in &steps {
            run.step(step);
        }
        run.judge();
    }
}
