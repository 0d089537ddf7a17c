//! A peer that answers, receives and counts, writing nothing: what the `webrtc` crate's own wrapper costs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use recorder_actors::ports::RemoteCandidate;
use rtc::rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
use rtc::rtp;
use rtc::rtp_transceiver::rtp_sender::RtpCodecKind;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use webrtc::media_stream::track_remote::{TrackRemote, TrackRemoteEvent};
use webrtc::peer_connection::{RTCSessionDescription, Registry, register_default_interceptors};

use super::peer::{Peer, connected, media_engine};
use super::{CallingError, refused};

/// What one stream has brought.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceivedStream {
    pub video: bool,
    /// RTP packets read, repeated ones included.
    pub packets: u64,
    /// RTP payload bytes of those.
    pub bytes: u64,
}

/// Counts across all peers of a process, for progress.
#[derive(Debug, Default)]
pub struct ReceivedTotal {
    pub packets: AtomicU64,
    pub video_packets: AtomicU64,
    pub bytes: AtomicU64,
    pub streams: AtomicU64,
}

/// A peer that answers and reads. Dropping it without [`close`](Self::close) leaves its tasks to end by
/// themselves.
pub struct ReceivingPeer {
    peer: Peer,
    reader: JoinHandle<()>,
}

impl ReceivingPeer {
    /// Answers an offer. Counts go to `total`; with `packets`, each packet read goes there too, and is
    /// dropped when nobody takes it in time.
    pub async fn answer(
        offer: String,
        address: String,
        total: Arc<ReceivedTotal>,
        packets: Option<mpsc::Sender<rtp::Packet>>,
    ) -> Result<(Self, String), CallingError> {
        let mut engine = media_engine()?;
        let registry = register_default_interceptors(Registry::new(), &mut engine)
            .map_err(refused("register interceptors"))?;
        let mut peer = Peer::new(engine, registry, address).await?;
        let offer = RTCSessionDescription::offer(offer).map_err(refused("read the offer"))?;
        peer.remote.set_description(offer).await?;
        let answer = peer.connection.create_answer(None).await.map_err(refused("make an answer"))?;
        let sdp = answer.sdp.clone();
        peer.connection.set_local_description(answer).await.map_err(refused("take its own answer"))?;
        let reader = tokio::spawn(read_all(peer.take_tracks(), total, packets));
        Ok((Self { peer, reader }, sdp))
    }

    /// The answer with all candidates in it, for signalling that does not trickle.
    pub async fn complete_answer(&self) -> Result<String, CallingError> {
        self.peer.complete_description().await
    }

    /// Local candidates as they are gathered; an empty one ends them. The first call gets them, a later one
    /// nothing.
    pub fn take_candidates(&mut self) -> mpsc::Receiver<RemoteCandidate> {
        std::mem::replace(&mut self.peer.candidates, mpsc::channel(1).1)
    }

    pub async fn add_candidate(&self, candidate: RemoteCandidate) -> Result<(), CallingError> {
        self.peer.remote.add_candidate(candidate).await
    }

    pub async fn connected(&self, within: Duration) -> Result<(), CallingError> {
        connected(&self.peer.state, within).await
    }

    /// Asks for a key frame of each video stream that has appeared (PLI, RFC 4585 §6.3.1).
    pub async fn request_key_frames(&self) -> Result<(), CallingError> {
        for receiver in self.peer.connection.get_receivers().await {
            let track = receiver.track();
            if track.kind().await != RtpCodecKind::Video {
                continue;
            }
            for media_ssrc in track.ssrcs().await {
                let pli = PictureLossIndication { sender_ssrc: 0, media_ssrc };
                track.write_rtcp(vec![Box::new(pli)]).await.map_err(refused("ask for a key frame"))?;
            }
        }
        Ok(())
    }

    /// The connection's state as it changes.
    pub fn state(&self) -> watch::Receiver<webrtc::peer_connection::RTCPeerConnectionState> {
        self.peer.state.clone()
    }

    pub async fn close(self) -> Result<(), CallingError> {
        self.reader.abort();
        self.peer.connection.close().await.map_err(refused("close"))
    }
}

/// Reads every track that appears, until the connection is gone.
pub(super) async fn read_all(
    mut tracks: mpsc::Receiver<Arc<dyn TrackRemote>>,
    total: Arc<ReceivedTotal>,
    packets: Option<mpsc::Sender<rtp::Packet>>,
) {
    // One task a track: a reader that lags 256 events loses packets.
    while let Some(track) = tracks.recv().await {
        tokio::spawn(read(track, total.clone(), packets.clone()));
    }
}

async fn read(
    track: Arc<dyn TrackRemote>,
    total: Arc<ReceivedTotal>,
    packets: Option<mpsc::Sender<rtp::Packet>>,
) {
    let video = track.kind().await == RtpCodecKind::Video;
    total.streams.fetch_add(1, Ordering::Relaxed);
    while let Some(event) = track.poll().await {
        match event {
            TrackRemoteEvent::OnRtpPacket(packet) => {
                total.packets.fetch_add(1, Ordering::Relaxed);
                total.video_packets.fetch_add(u64::from(video), Ordering::Relaxed);
                total.bytes.fetch_add(packet.payload.len() as u64, Ordering::Relaxed);
                if let Some(packets) = &packets {
                    let _ = packets.try_send(packet);
                }
            }
            TrackRemoteEvent::OnEnded => break,
            _ => {}
        }
    }
}
