//! One peer connection: a str0m `Rtc`, its streams and its facts. No sockets and no clock: time and datagrams come in,
//! datagrams go out through [`Outbox`].

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, UNIX_EPOCH};

use recorder_actors::ports::{ConnectionFacts, ConnectionState, MediaError, Tile};
use recorder_core::ids::{ConnectionId, StreamId};
use recorder_core::media::{Codec, MediaKind, SenderReport};
use str0m::change::SdpPendingOffer;
use str0m::media::KeyframeRequestKind;
use str0m::net::{Protocol, Receive};
use str0m::rtp::RawPacket;
use str0m::rtp::rtcp::Rtcp;
use str0m::{Candidate, Event, IceConnectionState, Input, Output, Rtc, RtcError};
use tokio::sync::watch;

use super::answer;
use super::facts::Facts;
use super::intake::{Head, Intake, Outcome, Settled};
use super::net::{Moment, Outbox};
use super::offer::Offer;
use super::renegotiation;
use super::shared::Shared;
use super::socket::Datagram;
use super::tile::TileSender;
use super::trickle::Trickle;
use super::waiting::Waiting;

/// Remote candidates taken in a connection's life; those beyond are counted and ignored.
pub const MAX_REMOTE_CANDIDATES: u32 = 200;
/// Requests for a key frame are passed on at most this often for each stream.
pub const KEY_FRAME_INTERVAL: Duration = Duration::from_millis(500);
/// How often what was replaced is looked at.
const TICK: Duration = Duration::from_millis(500);
/// Outputs taken from the stack in one go; a stack that wants more must wait for the next turn.
const MAX_OUTPUTS: usize = 4096;
/// Timers due at the same instant that run in one go.
const MAX_TIMERS: usize = 16;
/// When a stack that was cut short is asked again.
const RETRY: Duration = Duration::from_millis(2);
/// Seconds from 1900 to 1970 (RFC 868).
const NTP_OFFSET: u64 = 2_208_988_800;

/// A peer connection that receives everything and sends a tile at most.
pub struct Connection {
    pub(super) id: ConnectionId,
    pub(super) rtc: Rtc,
    pub(super) offer: Offer,
    pub(super) intake: Intake,
    pub(super) shared: Arc<Shared>,
    pub(super) local: Vec<Candidate>,
    pub(super) accepted: Vec<Vec<(u8, Codec)>>,
    pub(super) facts: Facts,
    pub(super) over: bool,
    /// Our own offer, as long as it has no answer.
    pub(super) pending: Option<SdpPendingOffer>,
    pub(super) tile: Option<TileSender>,
    pub(super) remote_candidates: u32,
    pub(super) trickle: Trickle,
    /// Keys are there: packets can be decrypted.
    ready: bool,
    waiting: Waiting,
    /// Packets that found no room there.
    held_drops: u64,
    last_instant: Instant,
    next_timeout: Instant,
    next_tick: Instant,
    outcome: Outcome,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("id", &self.id)
            .field("state", &self.facts.state())
            .finish_non_exhaustive()
    }
}

/// A connection just made, and what its answer is written from.
#[derive(Debug)]
pub struct Made {
    pub connection: Connection,
    pub facts: watch::Receiver<Arc<ConnectionFacts>>,
    pub offer: Offer,
    pub stack_answer: String,
    pub candidates: Vec<String>,
}

impl Connection {
    /// Sets a connection up from a remote offer; nothing is sent before the loop drives it. `tile` goes to the first video
    /// m-line on which the remote side is ready to receive.
    ///
    /// # Errors
    /// [`MediaError::BadOffer`] or [`MediaError::NothingToRecord`].
    pub fn make(
        id: ConnectionId,
        mut offer: Offer,
        tile: Option<Tile>,
        local: Vec<Candidate>,
        shared: Arc<Shared>,
        now: Moment,
    ) -> Result<Made, MediaError> {
        let (mut connection, texts, facts) = Self::prepare(id, tile, local, shared, now);
        connection.place_tile(&mut offer);
        let stack_answer = renegotiation::accept(&mut connection.rtc, &offer)?;
        let written = answer::write(&stack_answer, &offer, &texts, connection.shared.quality)?;
        connection.adopt(offer.clone(), &written);
        connection.settle_state();
        Ok(Made { connection, facts, offer, stack_answer, candidates: texts })
    }

    /// A connection without any description yet, the texts of its candidates, and its facts.
    pub(super) fn prepare(
        id: ConnectionId,
        tile: Option<Tile>,
        local: Vec<Candidate>,
        shared: Arc<Shared>,
        now: Moment,
    ) -> (Self, Vec<String>, watch::Receiver<Arc<ConnectionFacts>>) {
        let mut rtc = renegotiation::stack(now.instant);
        let local: Vec<Candidate> =
            local.into_iter().filter_map(|candidate| rtc.add_local_candidate(candidate).cloned()).collect();
        let texts: Vec<String> = local.iter().map(Candidate::to_sdp_string).collect();
        let (facts, receiver) = Facts::new(id);
        let connection = Self {
            id,
            rtc,
            intake: Intake::new(id, shared.next_stream.clone()),
            local,
            accepted: Vec::new(),
            facts,
            over: false,
            remote_candidates: 0,
            trickle: Trickle::default(),
            ready: false,
            waiting: Waiting::default(),
            held_drops: 0,
            last_instant: now.instant,
            next_timeout: now.instant,
            next_tick: now.instant + TICK,
            outcome: Outcome::default(),
            offer: Offer::default(),
            shared,
            pending: None,
            tile: tile.map(|tile| TileSender::new(tile, now.instant)),
        };
        (connection, texts, receiver)
    }

    pub fn id(&self) -> ConnectionId {
        self.id
    }

    /// Nothing more will come of it; it may be dropped.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// Its handshake is over and its path is not being looked for.
    pub fn is_established(&self) -> bool {
        self.facts.state() == ConnectionState::Connected
    }

    /// When [`Connection::timeout`] is due.
    pub fn next_timeout(&self) -> Instant {
        let tile = self.tile.as_ref().filter(|_| self.facts.state() == ConnectionState::Connected);
        let due = self.next_timeout.min(self.next_tick);
        tile.and_then(TileSender::due).map_or(due, |tile| due.min(tile))
    }

    /// The user fragment that the remote side addresses us by now.
    pub fn local_fragment(&mut self) -> String {
        self.rtc.direct_api().local_ice_credentials().ufrag
    }

    /// Takes one datagram of this connection.
    pub fn receive(&mut self, datagram: &Datagram<'_>, out: &mut dyn Outbox) {
        if self.over {
            return;
        }
        match Head::parse(datagram.bytes) {
            Some(_) if !self.ready => self.hold(datagram),
            Some(head) => {
                if self.take(head, datagram, out) == Settled::Unknown {
                    self.hold(datagram);
                }
            }
            None => {
                self.feed(datagram, out);
                if self.ready && !self.waiting.is_empty() {
                    self.retry_held(out);
                }
            }
        }
        self.settle_state();
    }

    fn hold(&mut self, datagram: &Datagram<'_>) {
        if !self.waiting.keep(datagram) {
            self.shared.view.held_dropped(1, datagram.arrival);
            self.held_drops += 1;
        }
    }

    /// Gives what was kept to the stack again, in order of arrival.
    pub(super) fn retry_held(&mut self, out: &mut dyn Outbox) {
        if !self.ready {
            return;
        }
        for held in self.waiting.take() {
            let Some(head) = Head::parse(&held.bytes) else { continue };
            if self.take(head, &held.datagram(), out) == Settled::Unknown {
                self.waiting.keep_again(held);
            }
        }
    }

    fn take(&mut self, head: Head, datagram: &Datagram<'_>, out: &mut dyn Outbox) -> Settled {
        self.outcome = Outcome::default();
        self.feed(datagram, out);
        let outcome = std::mem::take(&mut self.outcome);
        let bytes = datagram.bytes.len();
        let settled = self.intake.settle(&mut self.rtc, head, bytes, datagram.arrival, outcome);
        match settled {
            Settled::Opened => self.facts.changed = true,
            Settled::Foreign => {
                self.shared.view.counts.foreign_packets.fetch_add(1, Ordering::Relaxed);
            }
            Settled::TooMany => {
                self.shared.view.counts.surplus_packets.fetch_add(1, Ordering::Relaxed);
            }
            Settled::Delivered | Settled::Skipped | Settled::Unknown => {}
        }
        if self.facts.first_packet.is_none() && matches!(settled, Settled::Opened | Settled::Delivered) {
            self.facts.first_packet = Some(datagram.arrival);
            self.facts.changed = true;
        }
        settled
    }

    fn feed(&mut self, datagram: &Datagram<'_>, out: &mut dyn Outbox) {
        let Ok(receive) = Receive::new(Protocol::Udp, datagram.source, datagram.destination, datagram.bytes)
        else {
            self.shared.view.counts.malformed_datagrams.fetch_add(1, Ordering::Relaxed);
            return;
        };
        // Kernel stamps of several sockets may interleave; the stack wants time that never runs back.
        self.last_instant = self.last_instant.max(datagram.instant);
        let moment = Moment { boot: datagram.arrival, instant: self.last_instant };
        if let Err(error) = self.rtc.handle_input(Input::Receive(moment.instant, receive)) {
            self.note_error(&error);
        }
        self.drain(moment, out);
    }

    /// Something is due: the stack's timers, what waits for its end.
    pub fn timeout(&mut self, now: Moment, out: &mut dyn Outbox) {
        if self.over {
            return;
        }
        if let Some(tile) = &mut self.tile
            && self.facts.state() == ConnectionState::Connected
        {
            tile.show(&mut self.rtc, &self.shared.pictures, now);
        }
        self.drive(now, out);
        if now.instant >= self.next_tick {
            self.next_tick = now.instant + TICK;
            self.facts.changed |= self.intake.tick(now.boot);
            if self.ready {
                let expired = self.waiting.expire(now.boot) as u64;
                self.shared.view.counts.held_expired.fetch_add(expired, Ordering::Relaxed);
            }
            let told = std::mem::replace(&mut self.facts.held_drops, self.held_drops);
            self.facts.changed |= told != self.held_drops;
        }
        self.settle_state();
    }

    pub(super) fn drive(&mut self, now: Moment, out: &mut dyn Outbox) {
        self.last_instant = self.last_instant.max(now.instant);
        let moment = Moment { boot: now.boot, instant: self.last_instant };
        if let Err(error) = self.rtc.handle_input(Input::Timeout(moment.instant)) {
            self.note_error(&error);
        }
        self.drain(moment, out);
    }

    fn note_error(&mut self, error: &RtcError) {
        // Remote bytes can cause errors that the stack survives; one it does not survive shows in is_alive().
        self.shared.view.counts.stack_errors.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(connection = %self.id, %error, "the webrtc stack reports an error");
        if !self.rtc.is_alive() {
            self.facts.set_reason(&error.to_string());
        }
    }

    fn drain(&mut self, moment: Moment, out: &mut dyn Outbox) {
        let mut timers = MAX_TIMERS;
        for _ in 0..MAX_OUTPUTS {
            match self.rtc.poll_output() {
                Ok(Output::Transmit(transmit)) => {
                    out.send(self.id, transmit.source, transmit.destination, &transmit.contents);
                }
                Ok(Output::Event(event)) => self.event(event, moment),
                Ok(Output::Timeout(at)) if at > moment.instant => {
                    self.next_timeout = at;
                    return;
                }
                Ok(Output::Timeout(_)) if timers > 0 => {
                    timers -= 1;
                    if let Err(error) = self.rtc.handle_input(Input::Timeout(moment.instant)) {
                        self.note_error(&error);
                    }
                }
                Ok(Output::Timeout(_)) => break,
                Err(error) => {
                    self.note_error(&error);
                    break;
                }
            }
        }
        self.next_timeout = moment.instant + RETRY;
    }

    fn event(&mut self, event: Event, moment: Moment) {
        match event {
            Event::RtpPacket(packet) => self.outcome.delivered = Some(packet),
            Event::RawPacket(raw) => match *raw {
                RawPacket::RtpRx(header, data) => self.outcome.authentic = Some((header, data)),
                RawPacket::RtcpRx(Rtcp::SenderReport(report)) => {
                    let info = report.sender_info;
                    let since = info.ntp_time.duration_since(UNIX_EPOCH).unwrap_or_default();
                    let fraction = (u64::from(since.subsec_nanos()) << 32) / 1_000_000_000;
                    self.intake.report(SenderReport {
                        arrival: moment.boot,
                        ssrc: *info.ssrc,
                        ntp: ((since.as_secs() + NTP_OFFSET) << 32) | fraction,
                        rtp: info.rtp_time.numer() as u32,
                        round_trip_ns: self
                            .facts
                            .round_trip
                            .map(|rtt| rtt.as_nanos().try_into().unwrap_or(u64::MAX)),
                    });
                }
                RawPacket::RtcpTx(rtcp) => self.intake.note_feedback(&rtcp),
                RawPacket::RtcpRx(_) | RawPacket::RtpTx(..) => {}
            },
            Event::PeerStats(stats) => {
                let pair = stats.selected_candidate_pair;
                let round_trip = pair.and_then(|pair| pair.current_round_trip_time);
                if round_trip.is_some() && round_trip != self.facts.round_trip {
                    self.facts.round_trip = round_trip;
                    self.facts.changed = true;
                }
            }
            Event::Connected => {
                self.ready = true;
                self.facts.set_state(ConnectionState::Connected);
            }
            Event::IceConnectionStateChange(IceConnectionState::Disconnected) if self.ready => {
                self.facts.set_state(ConnectionState::Disconnected);
            }
            Event::IceConnectionStateChange(
                IceConnectionState::Connected | IceConnectionState::Completed,
            ) if self.ready => {
                self.facts.set_state(ConnectionState::Connected);
            }
            Event::Closed => {
                self.facts.set_reason("closed by the remote side");
                self.facts.set_state(ConnectionState::Closed);
            }
            _ => {}
        }
    }

    /// Passes a request for a key frame on, unless one went out for this stream less than [`KEY_FRAME_INTERVAL`] ago.
    pub fn request_key_frame(&mut self, id: StreamId, now: Moment, out: &mut dyn Outbox) {
        let Some(ssrc) = self.intake.stream_ssrc(id) else { return };
        let Some(stream) = self.intake.stream(ssrc) else { return };
        if stream.ring().info.kind != MediaKind::Video {
            return;
        }
        if stream.key_frame_asked.is_some_and(|asked| now.boot.saturating_since(asked) < KEY_FRAME_INTERVAL) {
            return;
        }
        stream.key_frame_asked = Some(now.boot);
        if let Some(receiver) = self.rtc.direct_api().stream_rx(&ssrc.into()) {
            receiver.request_keyframe(KeyframeRequestKind::Pli);
        }
        self.drive(now, out);
        self.settle_state();
    }

    /// Says goodbye (DTLS close_notify) and ends.
    pub fn close(&mut self, now: Moment, out: &mut dyn Outbox) {
        if self.over {
            return;
        }
        if let Err(error) = self.rtc.close() {
            self.note_error(&error);
        }
        self.drive(now, out);
        self.end(ConnectionState::Closed, "closed by the recorder");
    }

    /// Ends without a word, as after a panic.
    pub fn fail(&mut self, reason: &str) {
        self.end(ConnectionState::Failed, reason);
    }

    fn end(&mut self, state: ConnectionState, reason: &str) {
        if self.over {
            return;
        }
        self.facts.set_state(state);
        self.facts.set_reason(reason);
        self.over = true;
        // Who sees that a stream has ended can see why: else it would be taken for one that was switched off.
        self.facts.publish(&self.offer.lines, &self.accepted, &self.intake);
        self.intake.end_all();
        self.waiting.clear();
        self.facts.publish(&self.offer.lines, &self.accepted, &self.intake);
    }

    pub(super) fn settle_state(&mut self) {
        if self.over {
            return;
        }
        if !self.rtc.is_alive() {
            self.end(ConnectionState::Failed, "the connection broke down");
        } else if self.facts.state() == ConnectionState::Closed {
            self.end(ConnectionState::Closed, "closed by the remote side");
        } else if self.facts.changed {
            self.facts.publish(&self.offer.lines, &self.accepted, &self.intake);
        }
    }
}
