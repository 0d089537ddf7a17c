//! What travels from the media plane to a recording: packets, sender reports, and what they are packets of.

use serde::{Deserialize, Serialize};

use crate::time::BootTime;

/// Whether a stream is heard or seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MediaKind {
    Audio,
    Video,
}

/// A codec that this recorder can write untouched. Everything else is refused in the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Codec {
    Opus,
    Vp8,
    Vp9,
    Av1,
    H264,
    H265,
}

impl Codec {
    pub const fn kind(self) -> MediaKind {
        match self {
            Self::Opus => MediaKind::Audio,
            Self::Vp8 | Self::Vp9 | Self::Av1 | Self::H264 | Self::H265 => MediaKind::Video,
        }
    }

    /// RTP clock rate in Hz (RFC 7587 §4.1, RFC 7741, RFC 9628, RFC 6184: 48 kHz for Opus, 90 kHz for video).
    pub const fn clock_rate(self) -> u32 {
        match self.kind() {
            MediaKind::Audio => 48_000,
            MediaKind::Video => 90_000,
        }
    }

    /// The file name's extension: WebM holds what its specification allows, Matroska the rest.
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Opus | Self::Vp8 | Self::Vp9 | Self::Av1 => "webm",
            Self::H264 | Self::H265 => "mkv",
        }
    }

    /// As the manifest and the page name it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Opus => "opus",
            Self::Vp8 => "vp8",
            Self::Vp9 => "vp9",
            Self::Av1 => "av1",
            Self::H264 => "h264",
            Self::H265 => "h265",
        }
    }
}

/// What a stream shows, as the sender's signalling says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    Microphone,
    Camera,
    Screen,
    ScreenAudio,
    Unknown,
}

impl Source {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Microphone => "microphone",
            Self::Camera => "camera",
            Self::Screen => "screen",
            Self::ScreenAudio => "screen-audio",
            Self::Unknown => "unknown",
        }
    }
}

/// Packets of one stream that entered from the network and did not reach its ring, since the packet before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// Retransmissions or repeats of what had already arrived.
    pub duplicate: u32,
    /// Probes without media.
    pub padding: u32,
    /// Came when nobody could wait for it any more.
    pub late: u32,
    /// Could not be authenticated or decrypted.
    pub undecryptable: u32,
    /// Lost by us: the ring was full. A defect, unless a test stalls the reader.
    pub dropped_by_us: u32,
}

impl Skipped {
    pub fn total(&self) -> u64 {
        u64::from(self.duplicate)
            + u64::from(self.padding)
            + u64::from(self.late)
            + u64::from(self.undecryptable)
            + u64::from(self.dropped_by_us)
    }

    pub fn add(&mut self, other: Self) {
        self.duplicate = self.duplicate.saturating_add(other.duplicate);
        self.padding = self.padding.saturating_add(other.padding);
        self.late = self.late.saturating_add(other.late);
        self.undecryptable = self.undecryptable.saturating_add(other.undecryptable);
        self.dropped_by_us = self.dropped_by_us.saturating_add(other.dropped_by_us);
    }
}

/// One decrypted RTP packet (RFC 3550 §5.1) in arrival order, retransmissions unwrapped (RFC 4588).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RtpPacket {
    /// When the kernel received it.
    pub arrival: BootTime,
    /// Which packet of this stream it is since the stream began, counted where datagrams enter, 1 for the first:
    /// consecutive packets in a ring differ by `1 + skipped.total()`.
    pub ingress: u64,
    /// What entered between the packet before in the ring and this one.
    pub skipped: Skipped,
    pub ssrc: u32,
    pub payload_type: u8,
    /// Sequence number extended by the count of its roll-overs (RFC 3711 §3.3.1).
    pub sequence: u64,
    /// RTP timestamp as sent, wrapping at 2^32.
    pub timestamp: u32,
    pub marker: bool,
    /// It came as a retransmission.
    pub recovered: bool,
    /// Clockwise rotation in degrees (0, 90, 180, 270) of the CVO header extension (3GPP TS 26.114), if present.
    pub rotation: Option<u16>,
    /// Payload without padding; empty for padding-only packets.
    pub payload: Vec<u8>,
}

/// An RTCP sender report (RFC 3550 §6.4.1) about one stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SenderReport {
    pub arrival: BootTime,
    pub ssrc: u32,
    /// Sender's wall clock as 32.32 fixed point seconds since 1900.
    pub ntp: u64,
    /// RTP timestamp of the same instant.
    pub rtp: u32,
    /// Round trip of the selected candidate pair at that time, nanoseconds, if measured.
    pub round_trip_ns: Option<u64>,
}

/// What a ring carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RingItem {
    Packet(RtpPacket),
    Report(SenderReport),
}
