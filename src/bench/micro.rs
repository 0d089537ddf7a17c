//! `bench --micro`: what our own work on a packet costs beside decrypting it.
//!
//! Ours: a packet as the media loop hands it over → reordered, depacketised, counted → Matroska bytes. Beside
//! it: the same packet encrypted (SRTP, RFC 3711 and RFC 7714) → plain, with the ciphers of the library that
//! the media loop uses, and with those of the `webrtc` crate. Neither is given its allocation of the packet.

use std::fmt;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use recorder_core::media::{Codec, MediaKind, RtpPacket, Skipped};
use recorder_core::mux::{AudioFormat, MatroskaWriter, TrackHeader, VideoFormat};
use recorder_core::rtp::{ReceiverOutput, ReceiverSettings, TrackReceiver};
use recorder_core::time::BootTime;
use serde::Serialize;

use super::compare::median;
use super::srtp::{self, Cipher, Encrypted};
use crate::calling::load::StreamSchedule;
use crate::calling::media::{Clips, PICTURE};
use crate::calling::{CallingError, VideoLoad};

/// Packets of one timed batch.
const BATCH: usize = 2_000;
/// Batches of each kind, taking turns.
const BATCHES: usize = 60;
/// Milliseconds of media after which a cluster is handed over, as the recording path does it.
const HAND_OVER_MS: u64 = 250;
/// Recording a packet may cost as much as decrypting it.
const LIMIT: f64 = 1.0;
/// Arrival of the first packet.
const BEGIN: BootTime = BootTime::from_nanos(1_000_000_000);

/// Nanoseconds a packet, medians of the batches.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MicroReport {
    pub streams: Vec<MicroStream>,
}

/// One kind of stream.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MicroStream {
    pub kind: MediaKind,
    /// Mean RTP payload.
    pub payload_bytes: usize,
    /// Packet → frame → Matroska bytes.
    pub recording_ns: f64,
    pub decrypting: Vec<Decrypting>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Decrypting {
    /// Profile and whose cipher it is.
    pub name: String,
    pub ns: f64,
    /// Recording / decrypting.
    pub ratio: f64,
    /// What the ratio may be, of the ciphers that the media loop uses.
    pub limit: Option<f64>,
}

impl Decrypting {
    fn is_good(&self) -> bool {
        self.limit.is_none_or(|limit| self.ratio <= limit)
    }
}

impl MicroReport {
    /// Recording a packet costs no more than decrypting it.
    pub fn is_good(&self) -> bool {
        self.streams.iter().flat_map(|stream| &stream.decrypting).all(Decrypting::is_good)
    }
}

/// Why nothing could be measured.
#[derive(Debug, thiserror::Error)]
pub enum MicroError {
    #[error(transparent)]
    Media(#[from] CallingError),
    #[error("the cipher {name} failed: {reason}")]
    Cipher { name: &'static str, reason: String },
    #[error("{written} of {packets} packets were written")]
    NotAllWritten { written: u64, packets: u64 },
}

/// Measures for some seconds, on one thread.
pub fn run() -> Result<MicroReport, MicroError> {
    let streams = [None, Some(VideoLoad::default())].map(|load| measure(load, BATCHES));
    Ok(MicroReport { streams: streams.into_iter().collect::<Result<_, _>>()? })
}

fn measure(load: Option<VideoLoad>, batches: usize) -> Result<MicroStream, MicroError> {
    let clips = Clips::embedded()?;
    let mut source = PacketSource::new(clips, load);
    let mut recording = Recording::new(source.kind());
    let mut ciphers = srtp::ciphers()?;
    let mut recording_ns = Vec::new();
    let mut cipher_ns = vec![Vec::new(); ciphers.len()];
    let (mut bytes, mut packets) = (0, 0);
    for _ in 0..batches {
        let batch = source.batch(BATCH);
        bytes += batch.iter().map(|packet| packet.payload.len()).sum::<usize>();
        packets += batch.len();
        for (cipher, took) in ciphers.iter_mut().zip(&mut cipher_ns) {
            let encrypted =
                batch.iter().map(|packet| cipher.encrypt(packet)).collect::<Result<Vec<_>, _>>()?;
            let time = time_decrypting(cipher.as_mut(), &encrypted)?;
            took.push(time.as_nanos() as f64 / batch.len() as f64);
        }
        let count = batch.len();
        let began = Instant::now();
        recording.take(batch);
        recording_ns.push(began.elapsed().as_nanos() as f64 / count as f64);
    }
    let written = recording.finish();
    if written + BATCH as u64 / 4 < packets as u64 {
        return Err(MicroError::NotAllWritten { written, packets: packets as u64 });
    }
    let recording_ns = median(&recording_ns);
    let decrypting = ciphers.iter().zip(&cipher_ns).map(|(cipher, took)| {
        let ns = median(took);
        let limit = cipher.is_of_the_media_loop().then_some(LIMIT);
        Decrypting { name: cipher.name().to_owned(), ns, ratio: recording_ns / ns, limit }
    });
    Ok(MicroStream {
        kind: source.kind(),
        payload_bytes: bytes / packets.max(1),
        recording_ns,
        decrypting: decrypting.collect(),
    })
}

fn time_decrypting(cipher: &mut dyn Cipher, packets: &[Encrypted]) -> Result<Duration, MicroError> {
    let began = Instant::now();
    for packet in packets {
        black_box(cipher.decrypt(black_box(packet))?);
    }
    Ok(began.elapsed())
}

/// Packets as they come out of the media loop.
struct PacketSource {
    schedule: StreamSchedule,
    ingress: u64,
}

impl PacketSource {
    fn new(clips: Arc<Clips>, load: Option<VideoLoad>) -> Self {
        Self { schedule: StreamSchedule::new(clips, load, 0x5eed, 0, false), ingress: 0 }
    }

    fn kind(&self) -> MediaKind {
        self.schedule.sent.kind
    }

    /// At least that many packets, whole frames.
    fn batch(&mut self, at_least: usize) -> Vec<RtpPacket> {
        let mut batch = Vec::with_capacity(at_least + 64);
        while batch.len() < at_least {
            let arrival = BEGIN + self.schedule.next_due();
            for packet in self.schedule.next_frame(false) {
                self.ingress += 1;
                batch.push(RtpPacket {
                    arrival,
                    ingress: self.ingress,
                    skipped: Skipped::default(),
                    ssrc: self.schedule.sent.ssrc,
                    payload_type: 96,
                    sequence: self.ingress - 1,
                    timestamp: packet.timestamp,
                    marker: packet.marker,
                    recovered: false,
                    rotation: None,
                    payload: packet.payload.to_vec(),
                });
            }
        }
        batch
    }
}

/// The recording path without ring, threads and disk.
struct Recording {
    receiver: TrackReceiver,
    writer: MatroskaWriter,
    clock_rate: i64,
    first: Option<i64>,
    handed_over_ms: u64,
    out: Vec<u8>,
}

impl Recording {
    fn new(kind: MediaKind) -> Self {
        let codec = match kind {
            MediaKind::Audio => Codec::Opus,
            MediaKind::Video => Codec::Vp8,
        };
        let video = VideoFormat { width: PICTURE.0.into(), height: PICTURE.1.into() };
        let header = TrackHeader {
            codec,
            writing_app: "bench".to_owned(),
            title: String::new(),
            session_id: "bench".to_owned(),
            participant: "p1".to_owned(),
            source: "unknown".to_owned(),
            provisional_start_s: 1.0,
            epoch_utc_micros: None,
            track_uid: 1,
            audio: (kind == MediaKind::Audio).then_some(AudioFormat { channels: 2, sample_rate: 48_000 }),
            video: (kind == MediaKind::Video).then_some(video),
            codec_private: None,
        };
        let mut out = Vec::new();
        let writer = MatroskaWriter::new(&header, &mut out);
        let receiver = TrackReceiver::new(codec, codec.clock_rate(), ReceiverSettings::default(), 0);
        Self { receiver, writer, clock_rate: codec.clock_rate().into(), first: None, handed_over_ms: 0, out }
    }

    fn take(&mut self, batch: Vec<RtpPacket>) {
        for packet in batch {
            let now = packet.arrival;
            self.receiver.push(packet);
            while let Some(output) = self.receiver.poll(now) {
                self.put(output);
            }
        }
    }

    fn put(&mut self, output: ReceiverOutput) {
        let ReceiverOutput::Frame(frame) = output else { return };
        let first = *self.first.get_or_insert(frame.rtp_time);
        let timestamp_ms = u64::try_from((frame.rtp_time - first) * 1_000 / self.clock_rate).unwrap_or(0);
        // A frame that cannot be written is missing from the count at the end.
        let _ = self.writer.write_frame(timestamp_ms, frame.key, &frame.data, &mut self.out);
        if timestamp_ms >= self.handed_over_ms + HAND_OVER_MS {
            self.handed_over_ms = timestamp_ms;
            self.writer.flush(&mut self.out);
            // As if given to a lane, which frees it.
            drop(black_box(std::mem::take(&mut self.out)));
        }
    }

    /// Packets written.
    fn finish(self) -> u64 {
        self.receiver.ledger().written
    }
}

impl fmt::Display for MicroReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for stream in &self.streams {
            let kind = match stream.kind {
                MediaKind::Audio => "Opus",
                MediaKind::Video => "VP8",
            };
            writeln!(f, "{kind}, {} bytes a packet, nanoseconds a packet:", stream.payload_bytes)?;
            writeln!(f, "  packet → frame → Matroska bytes            {:>7.0}", stream.recording_ns)?;
            for other in &stream.decrypting {
                let missed = if other.is_good() { "" } else { ", at most 1 is wanted: MISSED" };
                writeln!(f, "  {:<42} {:>7.0}  ratio {:.2}{missed}", other.name, other.ns, other.ratio)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_that_costs_more_than_its_decryption_is_no_good_end() {
        let report = |ratio, limit| MicroReport {
            streams: vec![MicroStream {
                kind: MediaKind::Audio,
                payload_bytes: 100,
                recording_ns: ratio,
                decrypting: vec![Decrypting { name: "cipher".to_owned(), ns: 1.0, ratio, limit }],
            }],
        };
        assert!(report(1.0, Some(1.0)).is_good() && report(9.0, None).is_good());
        let missed = report(1.01, Some(1.0));
        assert!(!missed.is_good() && missed.to_string().contains("MISSED"));
    }

    #[test]
    fn both_kinds_of_stream_are_measured_against_every_cipher() {
        for load in [None, Some(VideoLoad::default())] {
            let stream = measure(load, 2).unwrap();
            assert_eq!(stream.decrypting.len(), 5);
            assert!(stream.recording_ns > 0.0);
            assert!(stream.decrypting.iter().all(|other| other.ns > 0.0 && other.ratio > 0.0));
        }
    }
}
