//! The other side of a call for tests: a str0m peer on a socket of its own, driven by the test's thread.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use str0m::change::{SdpAnswer, SdpOffer, SdpPendingOffer};
use str0m::media::{Direction, MediaKind, Mid, Pt};
use str0m::net::{Protocol, Receive};
use str0m::rtp::{RawPacket, RtpHeader, RtpPacket, RtpWrite, SeqNo};
use str0m::{Candidate, Event, Input, Output, Rtc};

/// What one m-line sends.
#[derive(Clone, Debug)]
pub struct Sender {
    pub mid: Mid,
    pub kind: MediaKind,
    pub sequence: u64,
    pub timestamp: u32,
}

/// Says of each datagram whether it gets lost.
pub type Lossy = Box<dyn FnMut(&[u8]) -> bool>;

pub struct Caller {
    pub rtc: Rtc,
    socket: UdpSocket,
    local: SocketAddr,
    pending: Option<SdpPendingOffer>,
    pub senders: Vec<Sender>,
    pub connected: bool,
    pub closed: bool,
    /// RTP datagrams put on the wire, of main and retransmission SSRCs.
    pub sent: u64,
    /// Whose datagrams get lost before they are sent.
    pub lose: Lossy,
    /// Negative acknowledgements and key frame requests that came.
    pub nacked: u64,
    pub key_frames_asked: u64,
    /// Retransmissions on an SSRC of their own: that SSRC, their number, and the number that they repeat.
    pub sent_again: Vec<(u32, u16, u16)>,
    last_repeat: Option<Instant>,
    /// What came in.
    pub received: Vec<RtpPacket>,
    /// Audio to send again on the same SSRC, as browsers do without RTX.
    resend: Vec<(u32, u16)>,
    audio_sent: std::collections::HashMap<u16, (u64, u32)>,
}

impl Caller {
    pub fn new() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("bind");
        let local = socket.local_addr().expect("address");
        let mut rtc = Rtc::builder()
            .set_rtp_mode(true)
            .enable_raw_packets(true)
            .set_rtcp_report_interval_audio(Duration::from_millis(300))
            .set_rtcp_report_interval_video(Duration::from_millis(300))
            .build(Instant::now());
        rtc.add_local_candidate(Candidate::host(local, Protocol::Udp).expect("candidate"));
        Self {
            rtc,
            socket,
            local,
            pending: None,
            senders: Vec::new(),
            connected: false,
            closed: false,
            sent: 0,
            lose: Box::new(|_| false),
            nacked: 0,
            key_frames_asked: 0,
            sent_again: Vec::new(),
            last_repeat: None,
            received: Vec::new(),
            resend: Vec::new(),
            audio_sent: std::collections::HashMap::new(),
        }
    }

    /// Nothing was sent again for so long.
    pub fn quiet_for(&self, time: Duration) -> bool {
        self.last_repeat.is_none_or(|last| last.elapsed() >= time)
    }

    pub fn port(&self) -> u16 {
        self.local.port()
    }

    /// Adds m-lines and offers.
    pub fn offer(&mut self, kinds: &[MediaKind]) -> String {
        let lines: Vec<_> = kinds.iter().map(|kind| (*kind, Direction::SendOnly)).collect();
        self.offer_lines(&lines)
    }

    /// Adds m-lines of these directions and offers.
    pub fn offer_lines(&mut self, lines: &[(MediaKind, Direction)]) -> String {
        let mut api = self.rtc.sdp_api();
        let mut added = Vec::new();
        for (kind, direction) in lines {
            let mid = api.add_media(*kind, *direction, Some("stream".to_owned()), None, None);
            added.push(Sender { mid, kind: *kind, sequence: 65_500, timestamp: 1_000 });
        }
        let (offer, pending) = api.apply().expect("something to negotiate");
        self.pending = Some(pending);
        self.senders.extend(added);
        offer.to_sdp_string()
    }

    pub fn restart_ice(&mut self) -> String {
        let mut api = self.rtc.sdp_api();
        api.ice_restart(true);
        let (offer, pending) = api.apply().expect("a restart is negotiated");
        self.pending = Some(pending);
        offer.to_sdp_string()
    }

    pub fn set_direction(&mut self, mid: Mid, direction: Direction) -> String {
        let mut api = self.rtc.sdp_api();
        api.set_direction(mid, direction);
        let (offer, pending) = api.apply().expect("a direction is negotiated");
        self.pending = Some(pending);
        offer.to_sdp_string()
    }

    pub fn answer(&mut self, sdp: &str) {
        let answer = SdpAnswer::from_sdp_string(sdp).expect("our answer parses");
        let pending = self.pending.take().expect("an offer is open");
        self.rtc.sdp_api().accept_answer(pending, answer).expect("our answer is accepted");
    }

    /// Answers an offer; the m-lines on which it may send become senders, in their order.
    pub fn answer_offer(&mut self, sdp: &str) -> String {
        let offer = SdpOffer::from_sdp_string(sdp).expect("our offer parses");
        let answer = self.rtc.sdp_api().accept_offer(offer).expect("our offer is accepted").to_sdp_string();
        for line in sdp.lines() {
            if let Some(mid) = line.strip_prefix("a=mid:") {
                let mid: Mid = mid.into();
                let media = self.rtc.media(mid).expect("the m-line was accepted");
                if media.direction().is_sending() {
                    let kind = media.kind();
                    self.senders.push(Sender { mid, kind, sequence: 65_500, timestamp: 1_000 });
                }
            }
        }
        answer
    }

    pub fn payload_type(&self, kind: MediaKind) -> Pt {
        let params = self.rtc.codec_config().params().iter();
        let wanted = |p: &&str0m::format::PayloadParams| match kind {
            MediaKind::Audio => p.spec().codec == str0m::format::Codec::Opus,
            MediaKind::Video => p.spec().codec == str0m::format::Codec::Vp8,
        };
        params.filter(wanted).map(|p| p.pt()).next().expect("codec")
    }

    /// One packet on the n-th m-line; its payload begins with the sequence number.
    pub fn send(&mut self, index: usize) {
        let sender = self.senders[index].clone();
        let pt = self.payload_type(sender.kind);
        if sender.kind == MediaKind::Audio {
            self.audio_sent.insert(sender.sequence as u16, (sender.sequence, sender.timestamp));
        }
        self.send_payload(index, pt, &payload_of(sender.sequence));
    }

    fn resend_audio(&mut self) {
        let Some(mid) = self.senders.iter().find(|s| s.kind == MediaKind::Audio).map(|s| s.mid) else {
            return;
        };
        let pt = self.payload_type(MediaKind::Audio);
        for (ssrc, number) in std::mem::take(&mut self.resend) {
            let Some((sequence, timestamp)) = self.audio_sent.get(&number).copied() else { continue };
            let mut api = self.rtc.direct_api();
            let Some(stream) = api.stream_tx_by_mid(mid, None).filter(|stream| *stream.ssrc() == ssrc) else {
                continue;
            };
            let payload = payload_of(sequence);
            stream.write_rtp(
                RtpWrite::new(pt, SeqNo::from(sequence), timestamp, Instant::now(), payload).marker(true),
            );
            self.poll(Instant::now());
        }
    }

    pub fn send_payload(&mut self, index: usize, pt: Pt, payload: &[u8]) {
        let now = Instant::now();
        let sender = &mut self.senders[index];
        let (mid, sequence, timestamp) = (sender.mid, sender.sequence, sender.timestamp);
        sender.sequence += 1;
        sender.timestamp = timestamp.wrapping_add(960);
        let mut api = self.rtc.direct_api();
        let stream = api.stream_tx_by_mid(mid, None).expect("a sending stream");
        let write =
            RtpWrite::new(pt, SeqNo::from(sequence), timestamp, now, payload).marker(true).nackable(true);
        stream.write_rtp(write);
        self.poll(now);
    }

    fn poll(&mut self, now: Instant) -> Instant {
        loop {
            match self.rtc.poll_output().expect("caller polls") {
                Output::Timeout(at) if at > now => return at,
                Output::Timeout(_) => self.rtc.handle_input(Input::Timeout(now)).expect("caller time"),
                Output::Transmit(transmit) => {
                    let first = transmit.contents[0];
                    let is_rtp =
                        (128..192).contains(&first) && !(64..96).contains(&(transmit.contents[1] & 0x7f));
                    if (self.lose)(&transmit.contents) {
                        continue;
                    }
                    self.sent += u64::from(is_rtp);
                    let _ = self.socket.send_to(&transmit.contents, transmit.destination);
                }
                Output::Event(Event::Connected) => self.connected = true,
                Output::Event(Event::Closed) => self.closed = true,
                Output::Event(Event::RawPacket(raw)) => {
                    if let RawPacket::RtpTx(header, bytes) = &*raw {
                        self.note_sent(header, bytes);
                    }
                    if let RawPacket::RtcpRx(rtcp) = *raw {
                        use str0m::rtp::rtcp::Rtcp;
                        match rtcp {
                            Rtcp::Nack(nack) => {
                                self.nacked += 1;
                                for entry in nack.reports.iter() {
                                    self.resend.push((*nack.ssrc, entry.pid));
                                    let more = (0..16).filter(|bit| entry.blp & (1 << bit) != 0);
                                    self.resend.extend(
                                        more.map(|bit| (*nack.ssrc, entry.pid.wrapping_add(bit + 1))),
                                    );
                                }
                            }
                            Rtcp::Pli(_) => self.key_frames_asked += 1,
                            _ => {}
                        }
                    }
                }
                Output::Event(Event::RtpPacket(packet)) => self.received.push(packet),
                Output::Event(_) => {}
            }
        }
    }

    fn note_sent(&mut self, header: &RtpHeader, bytes: &[u8]) {
        let mut api = self.rtc.direct_api();
        let repeating = self.senders.iter().any(|sender| {
            let stream = api.stream_tx_by_mid(sender.mid, None);
            stream.and_then(|stream| stream.rtx()) == Some(header.ssrc)
        });
        if repeating && let Some([first, second, ..]) = bytes.get(header.header_len..) {
            let repeats = u16::from_be_bytes([*first, *second]);
            self.last_repeat = Some(Instant::now());
            self.sent_again.push((*header.ssrc, header.sequence_number, repeats));
        }
    }

    /// Sends raw bytes to the recorder from the caller's address.
    pub fn send_raw(&self, to: SocketAddr, bytes: &[u8]) {
        self.socket.send_to(bytes, to).expect("send");
    }

    /// Goes on until `done` or the deadline; true if done.
    pub fn run_until(&mut self, limit: Duration, mut done: impl FnMut(&mut Self) -> bool) -> bool {
        let deadline = Instant::now() + limit;
        let mut buffer = [0; 2048];
        loop {
            if done(self) {
                return true;
            }
            let now = Instant::now();
            if now >= deadline {
                return false;
            }
            let next = self.poll(now);
            self.resend_audio();
            let wait = next.min(deadline).min(now + Duration::from_millis(5)).saturating_duration_since(now);
            self.socket.set_read_timeout(Some(wait.max(Duration::from_micros(100)))).expect("timeout");
            if let Ok((length, source)) = self.socket.recv_from(&mut buffer) {
                if let Ok(receive) = Receive::new(Protocol::Udp, source, self.local, &buffer[..length]) {
                    let _ = self.rtc.handle_input(Input::Receive(Instant::now(), receive));
                }
            } else if self.rtc.is_alive() {
                let _ = self.rtc.handle_input(Input::Timeout(Instant::now()));
            }
        }
    }

    pub fn run_for(&mut self, time: Duration) {
        self.run_until(time, |_| false);
    }
}

fn payload_of(sequence: u64) -> Vec<u8> {
    let mut payload = sequence.to_be_bytes().to_vec();
    payload.extend([0x5a; 100]);
    payload
}
