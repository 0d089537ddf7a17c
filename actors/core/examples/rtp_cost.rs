//! What the receive pipeline costs per packet: `cargo run --release -p recorder-core --example rtp_cost`.
//!
//! Payloads are made beforehand, so the figure is that of push and poll alone, the copy into the frame included.

use std::io::Write;
use std::time::{Duration, Instant};

use recorder_core::media::{Codec, RtpPacket, Skipped};
use recorder_core::rtp::{ReceiverOutput, ReceiverSettings, TrackReceiver};
use recorder_core::time::BootTime;

const PACKETS: u64 = 200_000;
const LOT: u64 = 100;

fn payload(codec: Codec, first: bool, last: bool, key: bool) -> Vec<u8> {
    let mut media = vec![0x55; if codec == Codec::Opus { 160 } else { 1180 }];
    let descriptor: Vec<u8> = match codec {
        Codec::Opus => Vec::new(),
        Codec::Vp8 => vec![if first { 0x90 } else { 0x80 }, 0x80, 0x80, 1],
        Codec::Vp9 => vec![0x80 | u8::from(!key) << 6 | u8::from(first) << 3 | u8::from(last) << 2, 0x80, 1],
        Codec::Av1 => vec![u8::from(!first) << 7 | u8::from(!last) << 6 | 0x10 | u8::from(key && first) << 3],
        Codec::H264 => vec![0x7c, u8::from(first) << 7 | u8::from(last) << 6 | if key { 5 } else { 1 }],
        Codec::H265 => vec![0x62, 1, u8::from(first) << 7 | u8::from(last) << 6 | if key { 19 } else { 1 }],
    };
    if first {
        let head: &[u8] = match (codec, key) {
            (Codec::Opus, _) => &[0xfc],
            (Codec::Vp8, true) => &[0x10, 2, 0, 0x9d, 1, 0x2a, 0x80, 2, 0xe0, 1],
            (Codec::Vp8, false) => &[0x11],
            (Codec::Vp9, true) => &[0x82, 0x49, 0x83, 0x42, 0x20, 0x27, 0xf0, 0x1d, 0xf0],
            (Codec::Vp9, false) => &[0x86],
            (Codec::Av1, _) => &[0x30, 0x30],
            (Codec::H264 | Codec::H265, _) => &[0x88],
        };
        media[..head.len()].copy_from_slice(head);
    }
    [descriptor, media].concat()
}

/// A key frame in one packet.
fn opening(codec: Codec) -> Vec<u8> {
    match codec {
        Codec::Av1 => {
            vec![0x28, 10, 0x08, 0x00, 0x00, 0x00, 0x24, 0xc4, 0xff, 0xdf, 0x7e, 0x10, 0x30, 0x10, 1, 1]
        }
        Codec::H264 => [
            &[0x78, 0, 9, 0x67, 0x42, 0xc0, 0x1f, 0xda, 0x02, 0x80, 0xf6, 0x84, 0, 4, 0x68, 0xce, 0x3c, 0x80]
                [..],
            &[0, 3, 0x65, 0x88, 1],
        ]
        .concat(),
        Codec::Opus | Codec::Vp8 | Codec::Vp9 | Codec::H265 => payload(codec, true, true, true),
    }
}

fn packet(codec: Codec, n: u64, packets_per_frame: u64) -> RtpPacket {
    // Packet 0 is a frame of its own.
    let (frame, index) = (n.div_ceil(packets_per_frame), (n + packets_per_frame - 1) % packets_per_frame);
    let last = n == 0 || index + 1 == packets_per_frame;
    let payload = if n == 0 { opening(codec) } else { payload(codec, index == 0, last, false) };
    RtpPacket {
        arrival: BootTime(1_000_000_000 + n * 1_000_000),
        ingress: n + 1,
        skipped: Skipped::default(),
        ssrc: 1,
        payload_type: 96,
        sequence: n,
        timestamp: (frame * 960) as u32,
        marker: last,
        recovered: false,
        rotation: None,
        payload,
    }
}

/// Nanoseconds per packet and the share of packets that left in frames. Packets are made in small lots, so that they
/// lie in the cache as they do after decryption.
fn measure(codec: Codec, packets_per_frame: u64) -> (f64, f64) {
    let mut receiver = TrackReceiver::new(codec, codec.clock_rate(), ReceiverSettings::default(), 0);
    let (mut taken, mut bytes) = (0, 0);
    let mut spent = Duration::ZERO;
    for lot in 0..PACKETS / LOT {
        let packets: Vec<_> =
            (lot * LOT..(lot + 1) * LOT).map(|n| packet(codec, n, packets_per_frame)).collect();
        let begin = Instant::now();
        for packet in packets {
            let now = packet.arrival;
            receiver.push(packet);
            while let Some(output) = receiver.poll(now) {
                if let ReceiverOutput::Frame(frame) = output {
                    taken += u64::from(frame.packets);
                    bytes += frame.data.len();
                }
            }
        }
        spent += begin.elapsed();
    }
    std::hint::black_box(bytes);
    (spent.as_nanos() as f64 / PACKETS as f64, taken as f64 / PACKETS as f64)
}

fn main() -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    for (codec, packets_per_frame) in [
        (Codec::Opus, 1),
        (Codec::Vp8, 1),
        (Codec::Vp8, 8),
        (Codec::Vp9, 8),
        (Codec::Av1, 8),
        (Codec::H264, 8),
    ] {
        let (nanoseconds, share) = measure(codec, packets_per_frame);
        let name = codec.name();
        writeln!(
            out,
            "{name:5} {packets_per_frame} packets a frame: {nanoseconds:5.0} ns a packet, {:3.0} % in frames",
            share * 100.0
        )?;
    }
    Ok(())
}
