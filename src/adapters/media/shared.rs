//! What the handle, the loop and the connections have in common: settings that do not change, and what is counted.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use recorder_actors::observe::MediaView;
use str0m::Candidate;

use super::answer::Quality;
use super::candidates;
use super::picture::Pictures;

/// How the media plane is to behave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MediaSettings {
    /// The one UDP port of all connections; 0 takes any free one.
    pub udp_port: u16,
    /// Local address; `0.0.0.0` is all of IPv4, `::` all of IPv4 and IPv6.
    pub bind: IpAddr,
    /// Public addresses that forward the port to this machine.
    pub advertise_ips: Vec<IpAddr>,
    /// Offer loopback addresses as well: for tests, and for callers on this machine.
    pub include_loopback: bool,
    /// Opus bitrate asked of senders, bit/s.
    pub opus_bitrate: u32,
    /// Bitrate at which video is asked to start, kbit/s.
    pub video_start_kbps: u32,
    /// Connections at once; an offer beyond is refused.
    pub max_connections: usize,
}

impl Default for MediaSettings {
    fn default() -> Self {
        Self {
            udp_port: 0,
            bind: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            advertise_ips: Vec::new(),
            include_loopback: false,
            opus_bitrate: 128_000,
            video_start_kbps: 2_500,
            max_connections: 1_000,
        }
    }
}

/// Shared by the handle, the loop and its connections.
#[derive(Debug)]
pub struct Shared {
    pub settings: MediaSettings,
    pub quality: Quality,
    /// What everybody may see.
    pub view: Arc<MediaView>,
    pub next_stream: Arc<AtomicU64>,
    /// What tiles show.
    pub pictures: Pictures,
    /// Addresses the sockets are bound to.
    pub bound: Vec<SocketAddr>,
}

impl Shared {
    pub fn new(settings: MediaSettings, bound: Vec<SocketAddr>) -> Self {
        let quality =
            Quality { opus_bitrate: settings.opus_bitrate, video_start_kbps: settings.video_start_kbps };
        Self {
            settings,
            quality,
            view: Arc::default(),
            next_stream: Arc::new(AtomicU64::new(1)),
            pictures: Pictures::default(),
            bound,
        }
    }

    /// Candidates of this machine as it is now: addresses come and go.
    pub fn local_candidates(&self) -> Vec<Candidate> {
        candidates::local(&self.bound, self.settings.include_loopback, &self.settings.advertise_ips)
    }
}
