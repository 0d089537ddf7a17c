//! A synthetic caller: offers audio and video, connects, sends pre-encoded media on schedule and says what it
//! sent.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use recorder_actors::ports::RemoteCandidate;
use recorder_core::media::MediaKind;
use rtc::interceptor::{
    NackGeneratorBuilder, NackResponderBuilder, ReceiverReportBuilder, SenderReportBuilder,
};
use rtc::media_stream::MediaStreamTrack;
use rtc::peer_connection::configuration::interceptor_registry::{configure_twcc, configure_twcc_sender_only};
use rtc::rtp;
use rtc::rtp_transceiver::rtp_sender::{
    RTCRtpCodingParameters, RTCRtpEncodingParameters, RTCRtpRtxParameters, RtpCodecKind,
};
use rtc::rtp_transceiver::{RTCRtpTransceiverDirection, RTCRtpTransceiverInit};
use tokio::sync::mpsc;
use tokio::time::Instant;
use webrtc::media_stream::track_local::TrackLocal;
use webrtc::media_stream::track_local::static_rtp::TrackLocalStaticRTP;
use webrtc::peer_connection::{RTCSessionDescription, Registry, Slot};

use super::feedback::{FeedbackWatch, StreamFeedback};
use super::load::{SentStream, StreamSchedule, VideoLoad};
use super::media::Clips;
use super::peer::{OPUS_PAYLOAD_TYPE, Peer, VP8_PAYLOAD_TYPE, connected, media_engine, opus, vp8};
use super::receiver::{ReceivedTotal, read_all};
use super::{CallingError, refused};

/// Packets of each stream kept for retransmission: about 3 s at 300 packets/s.
const RETRANSMISSION_HISTORY: u16 = 1024;

/// What a caller offers and sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallerSettings {
    /// Opus, 50 packets/s.
    pub audio: bool,
    /// VP8 at this load.
    pub video: Option<VideoLoad>,
    /// Where its socket binds; port 0 takes a free one.
    pub address: String,
    /// Takes the video of the other side as well, on the m-line of its own.
    pub receives: bool,
    /// Keeps a record of every frame sent, 24 bytes each.
    pub log_frames: bool,
}

impl Default for CallerSettings {
    fn default() -> Self {
        Self {
            audio: true,
            video: Some(VideoLoad::default()),
            address: "127.0.0.1:0".to_owned(),
            receives: false,
            log_frames: false,
        }
    }
}

/// A peer that calls and sends.
pub struct SyntheticCaller {
    peer: Peer,
    streams: Vec<OutgoingStream>,
    received: Arc<ReceivedTotal>,
}

struct OutgoingStream {
    track: Arc<TrackLocalStaticRTP>,
    schedule: StreamSchedule,
    feedback: Arc<StreamFeedback>,
    payload_type: u8,
}

impl SyntheticCaller {
    /// Starts a caller and makes its offer. The offer holds no candidates; they come one by one from
    /// [`take_candidates`](Self::take_candidates), or use [`complete_offer`](Self::complete_offer).
    pub async fn start(settings: CallerSettings) -> Result<(Self, String), CallingError> {
        let clips = Clips::embedded()?;
        let mut streams = Vec::new();
        if settings.audio {
            streams.push(OutgoingStream::new(&clips, None, settings.log_frames));
        }
        if let Some(load) = settings.video {
            streams.push(OutgoingStream::new(&clips, Some(load), settings.log_frames));
        }
        if streams.is_empty() {
            return Err(CallingError::NothingToSend);
        }

        let mut engine = media_engine()?;
        let watched =
            streams.iter().map(|s| (s.schedule.sent.ssrc, s.feedback.clone())).collect::<HashMap<_, _>>();
        let feedback = if settings.receives { configure_twcc } else { configure_twcc_sender_only };
        let mut registry = feedback(Registry::new(), &mut engine)
            .map_err(refused("register transport feedback"))?
            .with(Slot::NackResponder, NackResponderBuilder::new().with_size(RETRANSMISSION_HISTORY).build())
            .with(Slot::SenderReport, SenderReportBuilder::new().build())
            .with(Slot::from(500), FeedbackWatch::new(watched));
        if settings.receives {
            registry = registry
                .with(Slot::NackGenerator, NackGeneratorBuilder::new().build())
                .with(Slot::ReceiverReport, ReceiverReportBuilder::new().build());
        }
        let mut peer = Peer::new(engine, registry, settings.address).await?;
        let received = Arc::<ReceivedTotal>::default();
        if settings.receives {
            tokio::spawn(read_all(peer.take_tracks(), Arc::clone(&received), None));
        }
        for stream in &streams {
            let both = settings.receives && stream.schedule.sent.kind == MediaKind::Video;
            let direction = match both {
                true => RTCRtpTransceiverDirection::Sendrecv,
                false => RTCRtpTransceiverDirection::Sendonly,
            };
            let init = RTCRtpTransceiverInit { direction, ..Default::default() };
            peer.connection
                .add_transceiver_from_track(stream.track.clone(), Some(init))
                .await
                .map_err(refused("add a track"))?;
        }
        let offer = peer.connection.create_offer(None).await.map_err(refused("make an offer"))?;
        let sdp = offer.sdp.clone();
        peer.connection.set_local_description(offer).await.map_err(refused("take its own offer"))?;
        Ok((Self { peer, streams, received }, sdp))
    }

    /// The offer with all candidates in it, for signalling that does not trickle.
    pub async fn complete_offer(&self) -> Result<String, CallingError> {
        self.peer.complete_description().await
    }

    /// Local candidates as they are gathered; an empty one ends them. The first call gets them, a later one
    /// nothing.
    pub fn take_candidates(&mut self) -> mpsc::Receiver<RemoteCandidate> {
        std::mem::replace(&mut self.peer.candidates, mpsc::channel(1).1)
    }

    pub async fn accept_answer(&self, sdp: String) -> Result<(), CallingError> {
        let answer = RTCSessionDescription::answer(sdp).map_err(refused("read the answer"))?;
        self.peer.remote.set_description(answer).await
    }

    /// Adds a remote candidate, before or after the answer.
    pub async fn add_candidate(&self, candidate: RemoteCandidate) -> Result<(), CallingError> {
        self.peer.remote.add_candidate(candidate).await
    }

    /// Waits until media can flow.
    pub async fn connected(&self, within: Duration) -> Result<(), CallingError> {
        connected(&self.peer.state, within).await
    }

    /// Sends media on schedule for that long and says what has been sent since the start. When the machine
    /// cannot keep up, packets go out late, none is left out.
    pub async fn run(&mut self, duration: Duration) -> Result<Vec<SentStream>, CallingError> {
        let begin = Instant::now();
        let bases = self.streams.iter().map(|stream| stream.schedule.next_due()).collect::<Vec<_>>();
        loop {
            let next =
                self.streams.iter().zip(&bases).map(|(stream, base)| stream.schedule.next_due() - *base);
            let Some((index, due)) = next.enumerate().min_by_key(|(_, due)| *due) else { break };
            if due >= duration {
                break;
            }
            tokio::time::sleep_until(begin + due).await;
            if let Some(stream) = self.streams.get_mut(index) {
                stream.send_frame().await?;
            }
        }
        // The last frame lasts until the end, so that runs one after the other keep the rate.
        tokio::time::sleep_until(begin + duration).await;
        Ok(self.sent())
    }

    /// What has been sent so far, audio first.
    pub fn sent(&self) -> Vec<SentStream> {
        self.streams.iter().map(OutgoingStream::sent).collect()
    }

    /// RTP packets of the other side that have come so far.
    pub fn received(&self) -> u64 {
        self.received.packets.load(Ordering::Relaxed)
    }

    /// Closes the connection; the remote side gets a DTLS close.
    pub async fn hang_up(self) -> Result<Vec<SentStream>, CallingError> {
        let sent = self.sent();
        self.peer.connection.close().await.map_err(refused("close"))?;
        Ok(sent)
    }
}

impl OutgoingStream {
    fn new(clips: &Arc<Clips>, video: Option<VideoLoad>, log_frames: bool) -> Self {
        let ssrc = random() as u32 | 1;
        let (kind, name, codec, payload_type) = match video {
            None => (RtpCodecKind::Audio, "microphone", opus(), OPUS_PAYLOAD_TYPE),
            Some(_) => (RtpCodecKind::Video, "camera", vp8(), VP8_PAYLOAD_TYPE),
        };
        let rtx = video.map(|_| RTCRtpRtxParameters { ssrc: ssrc.wrapping_add(1) });
        let coding = RTCRtpEncodingParameters {
            rtp_coding_parameters: RTCRtpCodingParameters { ssrc: Some(ssrc), rtx, ..Default::default() },
            active: true,
            codec,
            ..Default::default()
        };
        let id = format!("{name}-{ssrc:08x}");
        let track = MediaStreamTrack::new("synthetic".to_owned(), id, name.to_owned(), kind, vec![coding]);
        Self {
            track: Arc::new(TrackLocalStaticRTP::new(track)),
            schedule: StreamSchedule::new(clips.clone(), video, ssrc, random(), log_frames),
            feedback: Arc::default(),
            payload_type,
        }
    }

    async fn send_frame(&mut self) -> Result<(), CallingError> {
        let key_frame = self.feedback.take_key_frame_wanted();
        for packet in self.schedule.next_frame(key_frame) {
            let header = rtp::header::Header {
                version: 2,
                marker: packet.marker,
                payload_type: self.payload_type,
                sequence_number: packet.sequence,
                timestamp: packet.timestamp,
                ssrc: self.schedule.sent.ssrc,
                ..Default::default()
            };
            let packet = rtp::Packet { header, payload: packet.payload };
            self.track.write_rtp(packet).await.map_err(refused("send"))?;
        }
        Ok(())
    }

    fn sent(&self) -> SentStream {
        let mut sent = self.schedule.sent.clone();
        sent.key_frame_requests = self.feedback.key_frame_requests();
        sent.packets_nacked = self.feedback.packets_nacked();
        sent
    }
}

/// 64 bits that differ from call to call and process to process; no secret hangs on them.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}
