//! What the remote side asks of our streams: an interceptor that notes key frame requests and reported
//! losses.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use rtc::interceptor::{Interceptor, Packet, StreamInfo, TaggedPacket};
use rtc::rtcp::payload_feedbacks::full_intra_request::FullIntraRequest;
use rtc::rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
use rtc::rtcp::transport_feedbacks::transport_layer_nack::TransportLayerNack;
use rtc::sansio::Protocol;
use rtc::shared::error::Error;

/// Requests about one stream of ours, written by the connection's driver and read by its sender.
#[derive(Debug, Default)]
pub struct StreamFeedback {
    key_frame_wanted: AtomicBool,
    key_frame_requests: AtomicU64,
    packets_nacked: AtomicU64,
}

impl StreamFeedback {
    /// True once after each request.
    pub fn take_key_frame_wanted(&self) -> bool {
        self.key_frame_wanted.swap(false, Ordering::Relaxed)
    }

    pub fn key_frame_requests(&self) -> u64 {
        self.key_frame_requests.load(Ordering::Relaxed)
    }

    pub fn packets_nacked(&self) -> u64 {
        self.packets_nacked.load(Ordering::Relaxed)
    }

    fn want_key_frame(&self) {
        self.key_frame_requests.fetch_add(1, Ordering::Relaxed);
        self.key_frame_wanted.store(true, Ordering::Relaxed);
    }
}

/// Reads incoming RTCP and lets it pass. The crate's own responder answers NACKs; key frames only we can
/// make.
pub struct FeedbackWatch {
    streams: HashMap<u32, Arc<StreamFeedback>>,
    incoming: VecDeque<TaggedPacket>,
    outgoing: VecDeque<TaggedPacket>,
}

impl FeedbackWatch {
    /// Watches the streams with these SSRCs.
    pub fn new(streams: HashMap<u32, Arc<StreamFeedback>>) -> Self {
        Self { streams, incoming: VecDeque::new(), outgoing: VecDeque::new() }
    }

    fn note(&self, packet: &dyn rtc::rtcp::Packet) {
        let packet = packet.as_any();
        if let Some(pli) = packet.downcast_ref::<PictureLossIndication>() {
            if let Some(stream) = self.streams.get(&pli.media_ssrc) {
                stream.want_key_frame();
            }
        } else if let Some(fir) = packet.downcast_ref::<FullIntraRequest>() {
            for entry in &fir.fir {
                if let Some(stream) = self.streams.get(&entry.ssrc) {
                    stream.want_key_frame();
                }
            }
        } else if let Some(nack) = packet.downcast_ref::<TransportLayerNack>()
            && let Some(stream) = self.streams.get(&nack.media_ssrc)
        {
            let missing = nack.nacks.iter().map(|pair| 1 + u64::from(pair.lost_packets.count_ones())).sum();
            stream.packets_nacked.fetch_add(missing, Ordering::Relaxed);
        }
    }
}

impl Protocol<TaggedPacket, TaggedPacket, ()> for FeedbackWatch {
    type Rout = TaggedPacket;
    type Wout = TaggedPacket;
    type Eout = ();
    type Error = Error;
    type Time = Instant;

    fn handle_read(&mut self, message: TaggedPacket) -> Result<(), Self::Error> {
        if let Packet::Rtcp(packets) = &message.message.packet {
            for packet in packets {
                self.note(packet.as_ref());
            }
        }
        self.incoming.push_back(message);
        Ok(())
    }

    fn poll_read(&mut self) -> Option<Self::Rout> {
        self.incoming.pop_front()
    }

    fn handle_write(&mut self, message: TaggedPacket) -> Result<(), Self::Error> {
        self.outgoing.push_back(message);
        Ok(())
    }

    fn poll_write(&mut self) -> Option<Self::Wout> {
        self.outgoing.pop_front()
    }
}

impl Interceptor for FeedbackWatch {
    fn bind_local_stream(&mut self, _info: &StreamInfo) {}
    fn unbind_local_stream(&mut self, _info: &StreamInfo) {}
    fn bind_remote_stream(&mut self, _info: &StreamInfo) {}
    fn unbind_remote_stream(&mut self, _info: &StreamInfo) {}
}
