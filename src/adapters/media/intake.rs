//! From decrypted packets to rings: which stream a datagram belongs to, and what became of it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use recorder_actors::ring::{StreamInfo, TrackRing};
use recorder_core::ids::{ConnectionId, Mid, StreamId};
use recorder_core::media::{Codec, MediaKind, RtpPacket, SenderReport};
use recorder_core::time::BootTime;
use str0m::Rtc;
use str0m::rtp::rtcp::Rtcp;
use str0m::rtp::{RtpHeader, RtpPacket as StackPacket};

use super::ledger::{Fate, Pending, Place, Stream};

/// Rings of one connection: those that fill, of two streams for each track that a participant may have, and those that
/// have ended and are still told. Streams beyond are refused.
pub const MAX_RINGS: usize = 128;
/// Rings told of each m-line, the newest; older ones have ended long ago.
const RINGS_TOLD: usize = 8;
/// SSRCs without a ring of which skipped packets or a report are remembered.
const MAX_PENDING: usize = 32;
/// Retransmission SSRCs remembered.
const MAX_REPAIRS: usize = 1024;

/// The fixed RTP header fields that are readable before decryption (RFC 3550 §5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    pub ssrc: u32,
    pub sequence: u16,
    pub payload_type: u8,
}

impl Head {
    /// None if the datagram is not RTP (RFC 7983 §7, RFC 5761 §4).
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let [first, second, s0, s1, _, _, _, _, a, b, c, d, ..] = *bytes else { return None };
        let payload_type = second & 0x7f;
        let is_rtcp = (64..96).contains(&payload_type);
        ((128..192).contains(&first) && !is_rtcp).then_some(Self {
            ssrc: u32::from_be_bytes([a, b, c, d]),
            sequence: u16::from_be_bytes([s0, s1]),
            payload_type,
        })
    }
}

/// What one RTP datagram came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    Delivered,
    /// Delivered, and it opened a ring: the facts have changed.
    Opened,
    Skipped,
    /// The stack knows no stream for it, yet.
    Unknown,
    /// Of no payload type that was agreed upon.
    Foreign,
    /// Of a stream that is one too many.
    TooMany,
}

/// What the stack made of one RTP datagram: the packet it delivered, and what it authenticated.
#[derive(Debug, Default)]
pub struct Outcome {
    pub delivered: Option<StackPacket>,
    pub authentic: Option<(RtpHeader, Vec<u8>)>,
}

/// An m-line as far as packets are concerned.
#[derive(Clone, Debug)]
pub struct Agreed {
    pub mid: Mid,
    /// The mid as the stack writes it.
    pub stack_mid: String,
    pub codecs: Vec<(u8, Codec)>,
}

/// The streams of one connection.
#[derive(Debug)]
pub struct Intake {
    connection: ConnectionId,
    next_id: Arc<AtomicU64>,
    agreed: Vec<Agreed>,
    streams: HashMap<u32, Stream>,
    repairs: HashMap<u32, u32>,
    pending: HashMap<u32, Pending>,
    reports: HashMap<u32, SenderReport>,
    rings: Vec<Arc<TrackRing>>,
}

impl Intake {
    pub fn new(connection: ConnectionId, next_id: Arc<AtomicU64>) -> Self {
        Self {
            connection,
            next_id,
            agreed: Vec::new(),
            streams: HashMap::new(),
            repairs: HashMap::new(),
            pending: HashMap::new(),
            reports: HashMap::new(),
            rings: Vec::new(),
        }
    }

    /// Takes over what a description agreed upon; streams of m-lines that are gone end.
    pub fn agree(&mut self, agreed: Vec<Agreed>, repairs: impl Iterator<Item = (u32, u32)>) {
        let open = |mid: &Mid| agreed.iter().any(|line| line.mid == *mid && !line.codecs.is_empty());
        self.streams.retain(|_, stream| {
            let stays = open(&stream.mid);
            if !stays {
                stream.end();
            }
            stays
        });
        // What was on an m-line that is gone is told no more.
        self.rings.retain(|ring| agreed.iter().any(|line| line.mid == ring.info.mid));
        for (main, repair) in repairs {
            self.note_repair(repair, main);
        }
        self.agreed = agreed;
    }

    /// Rings of an m-line that are told, oldest first.
    pub fn rings_of(&self, mid: &Mid) -> Vec<Arc<TrackRing>> {
        let all: Vec<_> = self.rings.iter().filter(|ring| ring.info.mid == *mid).cloned().collect();
        all[all.len().saturating_sub(RINGS_TOLD)..].to_vec()
    }

    pub fn stream_ssrc(&self, id: StreamId) -> Option<u32> {
        self.streams.values().find(|stream| stream.ring().info.id == id).map(|stream| stream.ssrc)
    }

    pub fn stream(&mut self, ssrc: u32) -> Option<&mut Stream> {
        self.streams.get_mut(&ssrc)
    }

    pub fn end_all(&mut self) {
        for stream in self.streams.values_mut() {
            stream.end();
        }
        self.streams.clear();
    }

    /// Ends what was replaced; true if a ring ended.
    pub fn tick(&mut self, now: BootTime) -> bool {
        let before = self.streams.len();
        self.streams.retain(|_, stream| !stream.tick(now));
        self.streams.len() != before
    }

    /// Books one RTP datagram of `bytes` bytes that went through the stack.
    pub fn settle(
        &mut self,
        rtc: &mut Rtc,
        head: Head,
        bytes: usize,
        arrival: BootTime,
        outcome: Outcome,
    ) -> Settled {
        match (outcome.delivered, outcome.authentic) {
            (Some(packet), authentic) => self.deliver(rtc, head, bytes, arrival, packet, authentic),
            (None, authentic) if head.ssrc == 0 => {
                // SSRC 0 carries bandwidth probes of the whole connection, not a stream's packets.
                if authentic.is_some() { Settled::Skipped } else { Settled::Foreign }
            }
            (None, Some((header, data))) => {
                let main = self.main_of(rtc, head.ssrc);
                if main == Some(head.ssrc) {
                    return self.skip(main, head, Fate::Duplicate, bytes, arrival);
                }
                match self.unwrap_repair(rtc, main, &header, data, arrival) {
                    Ok((packet, place)) => self.hand_over(head, packet, place, bytes),
                    Err(fate) => self.skip(main, head, fate, bytes, arrival),
                }
            }
            (None, None) => match self.main_of(rtc, head.ssrc) {
                None => Settled::Unknown,
                Some(main) => {
                    let refused = self.streams.get(&main).and_then(|stream| {
                        let seen = if main == head.ssrc { &stream.seen } else { &stream.seen_repair };
                        seen.refuses(head.sequence)
                    });
                    if let Some(fate) = refused {
                        self.skip(Some(main), head, fate, bytes, arrival)
                    } else if is_agreed(rtc, head.payload_type) {
                        self.skip(Some(main), head, Fate::Undecryptable, bytes, arrival)
                    } else {
                        Settled::Foreign
                    }
                }
            },
        }
    }

    fn deliver(
        &mut self,
        rtc: &mut Rtc,
        head: Head,
        bytes: usize,
        arrival: BootTime,
        packet: StackPacket,
        authentic: Option<(RtpHeader, Vec<u8>)>,
    ) -> Settled {
        let main = *packet.header.ssrc;
        let payload_type = *packet.header.payload_type;
        let sequence = *packet.seq_no;
        let is_repair = main != head.ssrc;
        if is_repair {
            self.note_repair(head.ssrc, main);
        }
        let mut opened = false;
        let place = match self.streams.get(&main) {
            Some(stream) => stream.place(payload_type, sequence),
            None => Place::New,
        };
        if place == Place::New {
            match self.open(rtc, main, payload_type, sequence, arrival) {
                Ok(()) => opened = true,
                Err(settled) => return settled,
            }
        }
        let was_nacked =
            self.streams.get(&main).is_some_and(|stream| stream.was_nacked(packet.header.sequence_number));
        let payload = match authentic {
            // The stack's copy for observers is a vector already; a repaired one begins with the original number.
            Some((_, mut data)) if data.len() >= packet.payload.len() => {
                data.drain(..data.len() - packet.payload.len());
                data
            }
            _ => packet.payload.to_vec(),
        };
        let packet = RtpPacket {
            recovered: is_repair || was_nacked,
            ..plain_packet(&packet.header, main, payload_type, sequence, arrival, payload)
        };
        match self.hand_over(head, packet, if opened { Place::Current } else { place }, bytes) {
            Settled::Delivered if opened => Settled::Opened,
            settled => settled,
        }
    }

    fn hand_over(&mut self, head: Head, packet: RtpPacket, place: Place, bytes: usize) -> Settled {
        let Some(stream) = self.streams.get_mut(&packet.ssrc) else { return Settled::Foreign };
        if packet.ssrc != head.ssrc {
            stream.seen_repair.insert(head.sequence);
        }
        stream.seen.insert(packet.sequence as u16);
        stream.deliver(packet, place, bytes);
        Settled::Delivered
    }

    /// What a retransmission repeats, if it is still of use. The stack authenticates it and hands it out only within its
    /// window of 100 numbers, which at the rates of video is a fraction of what a receiver waits; the payload begins with
    /// the original number (RFC 4588 §4).
    fn unwrap_repair(
        &self,
        rtc: &Rtc,
        main: Option<u32>,
        header: &RtpHeader,
        mut data: Vec<u8>,
        arrival: BootTime,
    ) -> Result<(RtpPacket, Place), Fate> {
        let [first, second, ..] = data[..] else { return Err(Fate::Padding) };
        let (main, stream) =
            main.and_then(|main| Some((main, self.streams.get(&main)?))).ok_or(Fate::Late)?;
        let number = u16::from_be_bytes([first, second]);
        if let Some(fate) = stream.seen.spares(number) {
            return Err(fate);
        }
        let sequence = stream.extend(number).ok_or(Fate::Late)?;
        let payload_type = repaired(rtc, *header.payload_type).ok_or(Fate::Late)?;
        let place = stream.place(payload_type, sequence);
        if place == Place::New {
            return Err(Fate::Late);
        }
        data.drain(..2);
        let packet = plain_packet(header, main, payload_type, sequence, arrival, data);
        Ok((RtpPacket { recovered: true, ..packet }, place))
    }

    /// Opens a ring for `ssrc`: a new stream, or a new run of a known one that changed its payload type.
    fn open(
        &mut self,
        rtc: &mut Rtc,
        ssrc: u32,
        payload_type: u8,
        sequence: u64,
        now: BootTime,
    ) -> Result<(), Settled> {
        let mut api = rtc.direct_api();
        let Some(receiver) = api.stream_rx(&ssrc.into()) else { return Err(Settled::Foreign) };
        // The stack leaves NACK off without RTX; browsers retransmit audio on the same SSRC when asked.
        receiver.suppress_nack(false);
        let repair = receiver.rtx().map(|repair| *repair);
        let stack_mid = receiver.mid().to_string();
        let Some(line) = self.agreed.iter().find(|line| line.stack_mid == stack_mid) else {
            return Err(Settled::Foreign);
        };
        let Some(codec) =
            line.codecs.iter().find(|(number, _)| *number == payload_type).map(|(_, codec)| *codec)
        else {
            return Err(Settled::Foreign);
        };
        let mid = line.mid.clone();
        if !self.make_room() {
            return Err(Settled::TooMany);
        }
        let info = StreamInfo {
            id: StreamId(self.next_id.fetch_add(1, Ordering::Relaxed)),
            connection: self.connection,
            mid: mid.clone(),
            ssrc,
            kind: codec.kind(),
            codec,
            clock_rate: codec.clock_rate(),
            channels: if codec.kind() == MediaKind::Audio { 2 } else { 0 },
        };
        let ring = TrackRing::new(info);
        if let Some(repair) = repair {
            self.note_repair(repair, ssrc);
        }
        if let Some(report) = self.reports.remove(&ssrc) {
            ring.push_report(report);
        }
        if let Some(stream) = self.streams.get_mut(&ssrc) {
            stream.replace_run(ring.clone(), payload_type, sequence, now);
        } else {
            for other in self.streams.values_mut().filter(|stream| stream.mid == mid) {
                other.superseded = true;
            }
            let mut pending = self.pending.remove(&ssrc).unwrap_or_default();
            let waiting: Vec<u32> =
                self.pending.keys().copied().filter(|key| self.repairs.get(key) == Some(&ssrc)).collect();
            for key in waiting {
                let of_repair = self.pending.remove(&key).unwrap_or_default();
                pending.skipped.add(of_repair.skipped);
                pending.bytes += of_repair.bytes;
            }
            self.streams.insert(ssrc, Stream::new(mid, ring.clone(), payload_type, sequence, pending));
        }
        self.rings.push(ring);
        self.forget_old_rings();
        Ok(())
    }

    /// Whether one more ring may be kept; the oldest that has ended goes for it.
    fn make_room(&mut self) -> bool {
        if self.rings.len() < MAX_RINGS {
            return true;
        }
        let ended = self.rings.iter().position(|ring| ring.has_ended());
        ended.is_some_and(|place| {
            self.rings.remove(place);
            true
        })
    }

    fn forget_old_rings(&mut self) {
        let Some(mid) = self.rings.last().map(|ring| ring.info.mid.clone()) else { return };
        let count = self.rings.iter().filter(|ring| ring.info.mid == mid).count();
        let mut surplus = count.saturating_sub(RINGS_TOLD);
        self.rings.retain(|ring| {
            let goes = surplus > 0 && ring.info.mid == mid && ring.has_ended();
            surplus -= usize::from(goes);
            !goes
        });
    }

    fn skip(
        &mut self,
        main: Option<u32>,
        head: Head,
        fate: Fate,
        bytes: usize,
        arrival: BootTime,
    ) -> Settled {
        if let Some(stream) = main.and_then(|main| self.streams.get_mut(&main)) {
            if fate != Fate::Undecryptable {
                let seen = if main == Some(head.ssrc) { &mut stream.seen } else { &mut stream.seen_repair };
                seen.insert(head.sequence);
            }
            stream.skip(fate, bytes, arrival);
            return Settled::Skipped;
        }
        // Only what was authenticated is remembered, so that a stranger cannot fill the table.
        if fate != Fate::Undecryptable
            && (self.pending.len() < MAX_PENDING || self.pending.contains_key(&head.ssrc))
        {
            let pending = self.pending.entry(head.ssrc).or_default();
            pending.skipped.add(fate.skipped());
            pending.bytes += bytes as u64;
        }
        Settled::Skipped
    }

    fn main_of(&mut self, rtc: &mut Rtc, ssrc: u32) -> Option<u32> {
        if self.streams.contains_key(&ssrc) {
            return Some(ssrc);
        }
        if let Some(main) = self.repairs.get(&ssrc) {
            return Some(*main);
        }
        let mut api = rtc.direct_api();
        let repaired =
            |main: &u32| api.stream_rx(&(*main).into()).is_some_and(|r| r.rtx() == Some(ssrc.into()));
        let main = self.streams.keys().copied().find(repaired);
        if let Some(main) = main {
            self.note_repair(ssrc, main);
        } else if api.stream_rx(&ssrc.into()).is_some() {
            return Some(ssrc);
        }
        main
    }

    fn note_repair(&mut self, repair: u32, main: u32) {
        if self.repairs.len() < MAX_REPAIRS || self.repairs.contains_key(&repair) {
            self.repairs.insert(repair, main);
        }
    }

    /// Counts what we ask of the sender: one for each packet asked for again, one for each key frame.
    pub fn note_feedback(&mut self, rtcp: &Rtcp) {
        match rtcp {
            Rtcp::Nack(nack) => {
                let Some(stream) = self.stream(*nack.ssrc) else { return };
                for entry in nack.reports.iter() {
                    stream.note_nack(entry.pid);
                    for bit in (0..16).filter(|bit| entry.blp & (1 << bit) != 0) {
                        stream.note_nack(entry.pid.wrapping_add(bit + 1));
                    }
                }
            }
            Rtcp::Pli(pli) => {
                if let Some(stream) = self.stream(*pli.ssrc) {
                    stream.ring().counters.key_frames_requested.fetch_add(1, Ordering::Relaxed);
                }
            }
            _ => {}
        }
    }

    /// Books a sender report, before or after its stream's first packet.
    pub fn report(&mut self, report: SenderReport) {
        if let Some(stream) = self.streams.get(&report.ssrc) {
            stream.ring().push_report(report);
        } else if self.reports.len() < MAX_PENDING || self.reports.contains_key(&report.ssrc) {
            self.reports.insert(report.ssrc, report);
        }
    }
}

fn plain_packet(
    header: &RtpHeader,
    ssrc: u32,
    payload_type: u8,
    sequence: u64,
    arrival: BootTime,
    payload: Vec<u8>,
) -> RtpPacket {
    RtpPacket {
        arrival,
        ingress: 0,
        skipped: Default::default(),
        ssrc,
        payload_type,
        sequence,
        timestamp: header.timestamp,
        marker: header.marker,
        recovered: false,
        // The extension's two low bits count quarter turns (3GPP TS 26.114 §7.4.5), as the stack's values do.
        rotation: header.ext_vals.video_orientation.map(|turn| turn as u16 * 90),
        payload,
    }
}

/// The payload type that a retransmission's one repeats.
fn repaired(rtc: &Rtc, payload_type: u8) -> Option<u8> {
    let number = payload_type.into();
    let params = rtc.codec_config().params().iter();
    let mut repeats = params.filter(|params| params.resend() == Some(number) || params.pt() == number);
    repeats.next().map(|params| *params.pt())
}

fn is_agreed(rtc: &Rtc, payload_type: u8) -> bool {
    let number = payload_type.into();
    rtc.codec_config().params().iter().any(|params| params.pt() == number || params.resend() == Some(number))
}
