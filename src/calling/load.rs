//! What a synthetic caller sends and when: a schedule as a value, fed with time, and the record of what it
//! sent.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use recorder_core::media::MediaKind;
use serde::{Deserialize, Serialize};

use super::media::{Clips, VP8_DESCRIPTOR, is_key_frame, vp8_payloads};
use std::sync::Arc;

/// One Opus packet of 20 ms (RFC 7587 §4.2).
const AUDIO_INTERVAL: Duration = Duration::from_millis(20);
const AUDIO_TICKS: u32 = 960;
const VIDEO_CLOCK: u64 = 90_000;
/// Frames a second at which video is sent, if that many packets a second are asked for.
const FRAME_RATE: u32 = 30;

/// How much video a caller sends. Frames of the clip are padded with zero bytes, which a VP8 decoder does not
/// read, to reach the rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VideoLoad {
    /// RTP packets a second, without retransmissions; at least 1, and a few more where key frames are large.
    pub packets_per_second: u32,
    /// RTP payload of each packet in bytes, payload descriptor included; 200 to 1,200.
    pub packet_bytes: usize,
    /// Frames from one key frame to the next, if nobody asks for one earlier.
    pub key_frame_every: u32,
}

impl Default for VideoLoad {
    fn default() -> Self {
        Self { packets_per_second: 300, packet_bytes: 1_100, key_frame_every: 90 }
    }
}

impl VideoLoad {
    /// A load of that many packets a second, everything else as usual.
    pub fn packets_per_second(packets_per_second: u32) -> Self {
        Self { packets_per_second, ..Self::default() }
    }

    fn frame_rate(&self) -> u32 {
        self.packets_per_second.clamp(1, FRAME_RATE)
    }

    fn picture_bytes(&self) -> usize {
        self.packet_bytes.clamp(200, 1_200) - VP8_DESCRIPTOR
    }
}

/// One encoded frame as it was sent, to be found again in a recording.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrameRecord {
    pub timestamp: u32,
    pub bytes: usize,
    /// CRC-32 (ISO-HDLC) of the frame.
    pub crc32: u32,
    pub key_frame: bool,
}

/// What was sent of one RTP stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentStream {
    pub kind: MediaKind,
    pub ssrc: u32,
    /// RTP packets without retransmissions.
    pub packets: u64,
    /// RTP payload bytes of those.
    pub bytes: u64,
    pub frames: u64,
    pub key_frames: u64,
    /// Key frame requests (PLI or FIR) that arrived.
    pub key_frame_requests: u64,
    /// Packets that were reported missing (RFC 4585 §6.2.1), each time they were.
    pub packets_nacked: u64,
    /// Empty unless asked for.
    pub log: Vec<FrameRecord>,
}

/// One packet that is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DuePacket {
    pub sequence: u16,
    pub timestamp: u32,
    pub marker: bool,
    pub payload: Bytes,
}

/// The schedule of one stream: which frame is due when, and as which packets.
#[derive(Debug)]
pub struct StreamSchedule {
    clips: Arc<Clips>,
    video: Option<VideoLoad>,
    sequence: u16,
    first_timestamp: u32,
    /// Frames sent so far.
    frames: u64,
    /// Place in the clip of the next video frame.
    place: usize,
    since_key_frame: u32,
    /// Video packets sent so far, against which the wanted rate is kept.
    packets: u64,
    padded: BytesMut,
    keep_log: bool,
    pub sent: SentStream,
}

impl StreamSchedule {
    /// Audio without `video`, else video. `seed` sets the first sequence number and timestamp (RFC 3550 §5.1:
    /// random).
    pub fn new(clips: Arc<Clips>, video: Option<VideoLoad>, ssrc: u32, seed: u64, keep_log: bool) -> Self {
        let kind = if video.is_some() { MediaKind::Video } else { MediaKind::Audio };
        Self {
            clips,
            video,
            sequence: seed as u16,
            first_timestamp: (seed >> 16) as u32,
            frames: 0,
            place: 0,
            since_key_frame: 0,
            packets: 0,
            padded: BytesMut::new(),
            keep_log,
            sent: SentStream {
                kind,
                ssrc,
                packets: 0,
                bytes: 0,
                frames: 0,
                key_frames: 0,
                key_frame_requests: 0,
                packets_nacked: 0,
                log: Vec::new(),
            },
        }
    }

    /// When the next frame is due, counted from the first.
    pub fn next_due(&self) -> Duration {
        match self.video {
            None => AUDIO_INTERVAL * u32::try_from(self.frames).unwrap_or(u32::MAX),
            Some(load) => {
                Duration::from_nanos(self.frames.saturating_mul(1_000_000_000) / u64::from(load.frame_rate()))
            }
        }
    }

    /// The packets of the next frame. `key_frame` asks for a key frame now; audio ignores it.
    pub fn next_frame(&mut self, key_frame: bool) -> Vec<DuePacket> {
        match self.video {
            None => self.next_audio(),
            Some(load) => self.next_video(load, key_frame),
        }
    }

    fn next_audio(&mut self) -> Vec<DuePacket> {
        let place = (self.frames % self.clips.opus.len() as u64) as usize;
        let timestamp = self.first_timestamp.wrapping_add((self.frames as u32).wrapping_mul(AUDIO_TICKS));
        let payload = self.clips.opus[place].clone();
        self.record(timestamp, &payload.clone(), false);
        let sequence = self.take_sequence();
        self.sent.packets += 1;
        self.sent.bytes += payload.len() as u64;
        // RFC 7587 §4.2: the marker begins a talk spurt.
        vec![DuePacket { sequence, timestamp, marker: self.frames == 1, payload }]
    }

    fn next_video(&mut self, load: VideoLoad, key_frame: bool) -> Vec<DuePacket> {
        if key_frame || self.frames == 0 || self.since_key_frame >= load.key_frame_every.max(1) {
            self.place = 0;
            self.since_key_frame = 0;
        }
        let frame = self.clips.vp8[self.place].clone();
        // Behind the clip's end come its delta frames again: pictures drift, yet every frame decodes.
        self.place = if self.place + 1 < self.clips.vp8.len() { self.place + 1 } else { 1 };
        self.since_key_frame += 1;

        let rate = u64::from(load.frame_rate());
        let wanted = (self.frames + 1) * u64::from(load.packets_per_second.max(1)) / rate;
        let picture_bytes = load.picture_bytes();
        let packets = usize::try_from(wanted.saturating_sub(self.packets)).unwrap_or(1).max(1);
        let frame =
            self.pad(frame, (packets - 1) * picture_bytes + picture_bytes.min(64), packets * picture_bytes);

        let timestamp = self.first_timestamp.wrapping_add((self.frames * VIDEO_CLOCK / rate) as u32);
        let picture_id = self.frames as u16;
        self.record(timestamp, &frame, is_key_frame(&frame));
        let count = frame.len().div_ceil(picture_bytes);
        let mut due = Vec::with_capacity(count);
        for (n, payload) in vp8_payloads(&frame, picture_bytes, picture_id).enumerate() {
            self.sent.bytes += payload.len() as u64;
            due.push(DuePacket { sequence: self.sequence, timestamp, marker: n + 1 == count, payload });
            self.sequence = self.sequence.wrapping_add(1);
        }
        self.packets += count as u64;
        self.sent.packets += count as u64;
        due
    }

    /// Pads a frame shorter than `at_least` to `full`.
    fn pad(&mut self, frame: Bytes, at_least: usize, full: usize) -> Bytes {
        if frame.len() >= at_least {
            return frame;
        }
        self.padded.reserve(full);
        self.padded.extend_from_slice(&frame);
        self.padded.resize(full, 0);
        self.padded.split().freeze()
    }

    fn take_sequence(&mut self) -> u16 {
        let sequence = self.sequence;
        self.sequence = sequence.wrapping_add(1);
        sequence
    }

    fn record(&mut self, timestamp: u32, frame: &[u8], key_frame: bool) {
        self.frames += 1;
        self.sent.frames += 1;
        self.sent.key_frames += u64::from(key_frame);
        if self.keep_log {
            self.sent.log.push(FrameRecord { timestamp, bytes: frame.len(), crc32: crc32(frame), key_frame });
        }
    }
}

/// CRC-32 as in ISO-HDLC (reflected polynomial 0xEDB88320), bit by bit: it only runs when frames are logged.
pub fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0xEDB8_8320 & 0u32.wrapping_sub(crc & 1)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(load: Option<VideoLoad>) -> StreamSchedule {
        StreamSchedule::new(Clips::embedded().unwrap(), load, 7, 0xffff_fffe_fffe, true)
    }

    #[test]
    fn a_second_of_video_is_the_wanted_number_of_packets() {
        for wanted in [1, 7, 30, 50, 299, 300, 1000] {
            let mut video = schedule(Some(VideoLoad::packets_per_second(wanted)));
            let mut packets = 0;
            while video.next_due() < Duration::from_secs(10) {
                packets += video.next_frame(false).len();
            }
            let expected = wanted as usize * 10;
            // Key frames of more packets than the rate leaves room for make it a few more.
            assert!(packets.abs_diff(expected) <= expected / 20 + 8, "{packets} packets for {expected}");
        }
    }

    #[test]
    fn audio_is_fifty_packets_a_second_and_counts_in_960_ticks() {
        let mut audio = schedule(None);
        let mut last: Option<DuePacket> = None;
        while audio.next_due() < Duration::from_secs(3) {
            let packet = audio.next_frame(false).pop().unwrap();
            if let Some(last) = last {
                assert_eq!(packet.timestamp.wrapping_sub(last.timestamp), 960);
                assert_eq!(packet.sequence.wrapping_sub(last.sequence), 1);
            }
            last = Some(packet);
        }
        assert_eq!(audio.sent.packets, 150);
    }

    #[test]
    fn a_wanted_key_frame_comes_next_and_keeps_sequence_and_time_going() {
        let mut video = schedule(Some(VideoLoad::default()));
        let first = video.next_frame(false);
        let second = video.next_frame(false);
        let third = video.next_frame(true);
        let keys = video.sent.log.iter().map(|frame| frame.key_frame).collect::<Vec<_>>();
        assert_eq!(keys, [true, false, true]);
        assert_eq!(third[0].sequence.wrapping_sub(second.last().unwrap().sequence), 1);
        assert_eq!(third[0].timestamp.wrapping_sub(first[0].timestamp), 6_000);
        assert!(third.last().unwrap().marker);
    }

    #[test]
    fn the_checksum_is_the_common_one() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
    }
}
