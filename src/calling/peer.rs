//! What callers and receivers share: codecs, settings for loopback, events, trickled candidates in both
//! directions.

use std::sync::Arc;
use std::time::Duration;

use recorder_actors::ports::RemoteCandidate;
use rtc::ice::mdns::MulticastDnsMode;
use rtc::peer_connection::configuration::media_engine::{
    MIME_TYPE_OPUS, MIME_TYPE_RTX, MIME_TYPE_VP8, MediaEngine,
};
use rtc::rtp_transceiver::rtp_sender::{RTCPFeedback, RTCRtpCodec, RTCRtpCodecParameters, RtpCodecKind};
use tokio::sync::{Mutex, mpsc, watch};
use webrtc::media_stream::track_remote::TrackRemote;
use webrtc::peer_connection::{
    PeerConnection, PeerConnectionBuilder, PeerConnectionEventHandler, RTCConfigurationBuilder,
    RTCIceCandidateInit, RTCIceGatheringState, RTCPeerConnectionIceEvent, RTCPeerConnectionState,
    RTCSessionDescription, Registry, SettingEngineBuilder,
};

use super::{CallingError, refused};

pub(super) const OPUS_PAYLOAD_TYPE: u8 = 111;
pub(super) const VP8_PAYLOAD_TYPE: u8 = 96;
const VP8_RTX_PAYLOAD_TYPE: u8 = 97;

/// Local candidates waiting to be trickled. A peer on loopback has one; what finds no room is left out.
const CANDIDATES: usize = 64;
/// Tracks that have appeared and wait for a reader. What finds no room is not read.
const TRACKS: usize = 64;

pub(super) fn opus() -> RTCRtpCodec {
    RTCRtpCodec {
        mime_type: MIME_TYPE_OPUS.to_owned(),
        clock_rate: 48_000,
        channels: 2,
        sdp_fmtp_line: "minptime=10;useinbandfec=1;stereo=1;sprop-stereo=1".to_owned(),
        rtcp_feedback: feedback(&["nack", "transport-cc"]),
    }
}

pub(super) fn vp8() -> RTCRtpCodec {
    RTCRtpCodec {
        mime_type: MIME_TYPE_VP8.to_owned(),
        clock_rate: 90_000,
        channels: 0,
        sdp_fmtp_line: String::new(),
        rtcp_feedback: feedback(&["transport-cc", "ccm fir", "nack", "nack pli"]),
    }
}

/// `nack pli` and the like (RFC 4585 §4.2).
fn feedback(kinds: &[&str]) -> Vec<RTCPFeedback> {
    let split = |kind: &&str| {
        let (typ, parameter) = kind.split_once(' ').unwrap_or((kind, ""));
        RTCPFeedback { typ: typ.to_owned(), parameter: parameter.to_owned() }
    };
    kinds.iter().map(split).collect()
}

/// Opus, VP8 and VP8's retransmissions (RFC 4588), nothing else.
pub(super) fn media_engine() -> Result<MediaEngine, CallingError> {
    let rtx = RTCRtpCodec {
        mime_type: MIME_TYPE_RTX.to_owned(),
        clock_rate: 90_000,
        channels: 0,
        sdp_fmtp_line: format!("apt={VP8_PAYLOAD_TYPE}"),
        rtcp_feedback: Vec::new(),
    };
    let mut engine = MediaEngine::default();
    for (rtp_codec, payload_type, kind) in [
        (opus(), OPUS_PAYLOAD_TYPE, RtpCodecKind::Audio),
        (vp8(), VP8_PAYLOAD_TYPE, RtpCodecKind::Video),
        (rtx, VP8_RTX_PAYLOAD_TYPE, RtpCodecKind::Video),
    ] {
        engine
            .register_codec(RTCRtpCodecParameters { rtp_codec, payload_type }, kind)
            .map_err(refused("register a codec"))?;
    }
    Ok(engine)
}

/// A peer connection on a loopback socket of its own, with what it tells.
pub(super) struct Peer {
    pub connection: Arc<dyn PeerConnection>,
    pub state: watch::Receiver<RTCPeerConnectionState>,
    pub gathered: watch::Receiver<bool>,
    pub candidates: mpsc::Receiver<RemoteCandidate>,
    pub tracks: mpsc::Receiver<Arc<dyn TrackRemote>>,
    pub remote: RemoteSide,
}

impl Peer {
    /// `address` is where it binds, such as `127.0.0.1:0`.
    pub async fn new(engine: MediaEngine, registry: Registry, address: String) -> Result<Self, CallingError> {
        let (state, state_told) = watch::channel(RTCPeerConnectionState::New);
        let (gathered, gathered_told) = watch::channel(false);
        let (candidate, candidates) = mpsc::channel(CANDIDATES);
        let (track, tracks) = mpsc::channel(TRACKS);
        let settings = SettingEngineBuilder::new()
            .with_include_loopback_candidate(true)
            .with_multicast_dns_mode(MulticastDnsMode::Disabled)
            .build();
        let builder = PeerConnectionBuilder::new()
            .with_configuration(RTCConfigurationBuilder::new().build())
            .with_media_engine(engine)
            .with_setting_engine(settings)
            .with_interceptor_registry(registry)
            .with_handler(Arc::new(Events { state, gathered, candidate, track }))
            .with_udp_addrs(vec![address]);
        let connection = Box::pin(builder.build()).await.map_err(refused("start"))?;
        let connection: Arc<dyn PeerConnection> = Arc::new(connection);
        let remote = RemoteSide { connection: connection.clone(), waiting: Arc::default() };
        Ok(Self { connection, state: state_told, gathered: gathered_told, candidates, tracks, remote })
    }

    /// Tracks of the remote side as they appear. The first call gets them, a later one nothing.
    pub fn take_tracks(&mut self) -> mpsc::Receiver<Arc<dyn TrackRemote>> {
        std::mem::replace(&mut self.tracks, mpsc::channel(1).1)
    }

    /// The local description with all candidates in it.
    pub async fn complete_description(&self) -> Result<String, CallingError> {
        let mut gathered = self.gathered.clone();
        // An error means that the connection is gone; the description then says so.
        let _ = gathered.wait_for(|done| *done).await;
        match self.connection.local_description().await {
            Some(description) => Ok(description.sdp),
            None => {
                Err(CallingError::Refused { doing: "describe itself", reason: "no description".to_owned() })
            }
        }
    }
}

/// Waits until ICE and DTLS are up.
pub(super) async fn connected(
    state: &watch::Receiver<RTCPeerConnectionState>,
    after: Duration,
) -> Result<(), CallingError> {
    let mut told = state.clone();
    let settled = |state: &RTCPeerConnectionState| {
        use RTCPeerConnectionState::{Closed, Connected, Failed};
        matches!(state, Connected | Failed | Closed)
    };
    let up = match tokio::time::timeout(after, told.wait_for(settled)).await {
        Ok(Ok(state)) => *state == RTCPeerConnectionState::Connected,
        Ok(Err(_)) | Err(_) => false,
    };
    if up { Ok(()) } else { Err(CallingError::NotConnected { after, state: state.borrow().to_string() }) }
}

/// Remote description and candidates in whatever order they come: the crate refuses candidates before a
/// description.
#[derive(Clone)]
pub(super) struct RemoteSide {
    connection: Arc<dyn PeerConnection>,
    waiting: Arc<Mutex<Waiting>>,
}

/// Remote candidates that came before the description.
#[derive(Default)]
struct Waiting {
    described: bool,
    candidates: Vec<RemoteCandidate>,
}

impl RemoteSide {
    pub async fn set_description(&self, description: RTCSessionDescription) -> Result<(), CallingError> {
        let mut waiting = self.waiting.lock().await;
        self.connection
            .set_remote_description(description)
            .await
            .map_err(refused("take the remote description"))?;
        waiting.described = true;
        for candidate in std::mem::take(&mut waiting.candidates) {
            self.add_now(candidate).await?;
        }
        Ok(())
    }

    pub async fn add_candidate(&self, candidate: RemoteCandidate) -> Result<(), CallingError> {
        let mut waiting = self.waiting.lock().await;
        if waiting.described {
            return self.add_now(candidate).await;
        }
        if waiting.candidates.len() < CANDIDATES {
            waiting.candidates.push(candidate);
        }
        Ok(())
    }

    async fn add_now(&self, candidate: RemoteCandidate) -> Result<(), CallingError> {
        if candidate.candidate.is_empty() {
            return Ok(());
        }
        let init = RTCIceCandidateInit {
            candidate: candidate.candidate,
            sdp_mid: candidate.mid,
            sdp_mline_index: candidate.m_line.and_then(|line| u16::try_from(line).ok()),
            username_fragment: candidate.username_fragment,
            url: None,
        };
        self.connection.add_ice_candidate(init).await.map_err(refused("take a candidate"))
    }
}

/// Passes on what the connection tells. These callbacks run inside the connection's driver and never wait.
struct Events {
    state: watch::Sender<RTCPeerConnectionState>,
    gathered: watch::Sender<bool>,
    candidate: mpsc::Sender<RemoteCandidate>,
    track: mpsc::Sender<Arc<dyn TrackRemote>>,
}

#[async_trait::async_trait]
impl PeerConnectionEventHandler for Events {
    async fn on_ice_candidate(&self, event: RTCPeerConnectionIceEvent) {
        if let Ok(init) = event.candidate.to_json() {
            let _ = self.candidate.try_send(RemoteCandidate {
                candidate: init.candidate,
                // The crate names no m-line; everything is bundled on the first.
                mid: init.sdp_mid.filter(|mid| !mid.is_empty()),
                m_line: init.sdp_mline_index.map(u32::from),
                username_fragment: init.username_fragment,
            });
        }
    }

    async fn on_ice_gathering_state_change(&self, state: RTCIceGatheringState) {
        if state == RTCIceGatheringState::Complete {
            let end = RemoteCandidate {
                candidate: String::new(),
                mid: None,
                m_line: None,
                username_fragment: None,
            };
            let _ = self.candidate.try_send(end);
            self.gathered.send_replace(true);
        }
    }

    async fn on_connection_state_change(&self, state: RTCPeerConnectionState) {
        self.state.send_replace(state);
    }

    async fn on_track(&self, track: Arc<dyn TrackRemote>) {
        let _ = self.track.try_send(track);
    }
}
