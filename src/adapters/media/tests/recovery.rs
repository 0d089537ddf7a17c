//! What is lost on a long way at the rates of video: all that the sender sends again is used.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use recorder_core::media::Skipped;
use recorder_core::rtp::{ReceiverOutput, ReceiverSettings, TrackReceiver};
use recorder_core::time::BootTime;

use super::*;
use crate::adapters::media::intake::Head;
use crate::adapters::media::shim::{Fault, Shim};

/// There and back 300 ms, with one RTP packet of twenty lost and outages on cue.
#[derive(Clone, Default)]
struct LongWay {
    dark: Arc<AtomicBool>,
    /// SSRC and number of the RTP packets that got through.
    through: Arc<Mutex<HashSet<(u32, u16)>>>,
    count: u32,
}

const ONE_WAY: Duration = Duration::from_millis(150);

impl Shim for LongWay {
    fn received(&mut self, _: SocketAddr, bytes: &[u8]) -> Fault {
        if self.dark.load(Ordering::Relaxed) {
            return Fault::Drop;
        }
        if let Some(head) = Head::parse(bytes) {
            self.count += 1;
            if self.count % 20 == 7 {
                return Fault::Drop;
            }
            self.through.lock().expect("lock").insert((head.ssrc, head.sequence));
        }
        Fault::Delay(ONE_WAY)
    }

    fn sent(&mut self, _: SocketAddr, _: &[u8]) -> Fault {
        if self.dark.load(Ordering::Relaxed) { Fault::Drop } else { Fault::Delay(ONE_WAY) }
    }
}

/// A VP8 key frame in one packet (RFC 7741 §4.2, RFC 6386 §9.1), so that each packet is a frame of its own.
fn key_frame() -> Vec<u8> {
    let mut payload = vec![0x10, 0x10, 2, 0, 0x9d, 1, 0x2a, 0x40, 1, 0xb4, 0];
    payload.resize(300, 7);
    payload
}

/// Sends 500 packets a second for so long.
fn send_video(call: &mut Call, time: Duration) {
    let pt = call.caller.payload_type(MediaKind::Video);
    let (start, mut sent) = (Instant::now(), 0);
    while start.elapsed() < time {
        while sent < start.elapsed().as_millis() / 2 {
            call.caller.send_payload(0, pt, &key_frame());
            sent += 1;
        }
        call.caller.run_for(Duration::from_millis(1));
    }
}

/// What was sent again and got through.
fn sent_again(call: &Call, way: &LongWay) -> Vec<u16> {
    let through = way.through.lock().expect("lock");
    let again = call.caller.sent_again.iter().filter(|(ssrc, number, _)| through.contains(&(*ssrc, *number)));
    let mut again: Vec<u16> = again.map(|(_, _, repeats)| *repeats).collect();
    again.sort_unstable();
    again.dedup();
    again
}

#[test]
fn all_that_is_sent_again_on_a_long_way_is_in_the_file() {
    let way = LongWay::default();
    let plane = MediaLoop::start_with_shim(settings(), Box::new(way.clone())).expect("start");
    let mut call = Call::place(plane, &[MediaKind::Video]);
    assert!(call.until(LONG, |call| call.caller.connected && call.state() == ConnectionState::Connected));
    send_video(&mut call, Duration::from_secs(2));
    way.dark.store(true, Ordering::Relaxed);
    send_video(&mut call, Duration::from_secs(1));
    way.dark.store(false, Ordering::Relaxed);
    send_video(&mut call, Duration::from_secs(2));

    let ring = call.ring(0).expect("ring");
    let mut read = Read::default();
    let mut missing = Vec::new();
    let settled = call.until(LONG, |call| {
        read.from(&ring);
        missing = sent_again(call, &way);
        missing.retain(|repeats| !read.packets.iter().any(|packet| packet.sequence as u16 == *repeats));
        call.caller.quiet_for(Duration::from_secs(1)) && missing.is_empty()
    });
    assert!(settled, "{missing:?} came again and are not there: {:?}", ring.counters);
    assert!(sent_again(&call, &way).len() >= 100, "{}", sent_again(&call, &way).len());
    let numbers: HashSet<u64> = read.packets.iter().map(|packet| packet.sequence).collect();
    assert_eq!(numbers.len(), read.packets.len(), "nothing is delivered twice");
    let known = numbers.iter().max().zip(numbers.iter().min()).map_or(0, |(last, first)| last - first + 1);
    let mut highest = 0;
    let far_behind = read.packets.iter().filter(|packet| {
        highest = highest.max(packet.sequence);
        packet.recovered && highest - packet.sequence > 100
    });
    assert!(far_behind.count() >= 50, "the way was not long enough to tell anything");

    let received = ring.counters.received.load(Ordering::Relaxed);
    let mut receiver = TrackReceiver::new(Codec::Vp8, 90_000, ReceiverSettings::default(), 0);
    let mut frames = 0;
    let mut count = |receiver: &mut TrackReceiver, now: BootTime| {
        while let Some(output) = receiver.poll(now) {
            frames += usize::from(matches!(output, ReceiverOutput::Frame(_)));
        }
    };
    for packet in read.packets {
        let arrival = packet.arrival;
        receiver.push(packet);
        count(&mut receiver, arrival);
    }
    receiver.drain();
    count(&mut receiver, BootTime(u64::MAX));
    let tail: Skipped = ring.take_tail();
    let ledger = receiver.finish(tail, received);
    assert!(ledger.balances(), "{ledger:?}");
    assert_eq!((frames, ledger.late, ledger.written), (numbers.len(), 0, numbers.len() as u64), "{ledger:?}");
    // Of what was lost after the last packet that came nobody knows.
    assert_eq!(ledger.lost + ledger.written, known, "{ledger:?}");
}
