//! The one thing we send: a picture that says that, and for how long, a recording runs.
//!
//! Each picture is a key frame and there is one a second, so nothing is done about requests for key frames, and who comes
//! late sees it with the next one.

use std::time::{Duration, Instant};

use recorder_actors::ports::Tile;
use recorder_core::media::{Codec, MediaKind};
use str0m::Rtc;
use str0m::rtp::{RtpWrite, SeqNo};

use super::net::Moment;
use super::offer::{Line, Offer, stack_mid};
use super::picture::{Found, Pictures};

/// When a picture that is not there yet is asked for again.
const ASK_AGAIN: Duration = Duration::from_millis(5);

/// The tile of one connection.
#[derive(Debug)]
pub struct TileSender {
    tile: Tile,
    /// Its m-line: the same one as long as that can carry video.
    mid: Option<String>,
    /// Where pictures may go now: the stack's mid and the payload type of VP8.
    place: Option<(str0m::media::Mid, u8)>,
    /// When there is something to do, once pictures may go.
    next: Instant,
    /// The second shown last.
    shown: Option<u64>,
    /// Number of the next packet, and the timestamp of the recording's beginning (RFC 3550 §5.1).
    sequence: u64,
    epoch: u32,
}

impl TileSender {
    pub fn new(tile: Tile, now: Instant) -> Self {
        Self { tile, mid: None, place: None, next: now, shown: None, sequence: 0, epoch: 0 }
    }

    /// MediaStream id in our description.
    pub fn stream(&self) -> &str {
        &self.tile.stream
    }

    /// Index of the m-line of a remote description that is the tile's: the one it has been on, else the first that wants video.
    pub fn place_in(&self, remote: &Offer) -> Option<usize> {
        let carries = |line: &&Line| line.kind() == Some(MediaKind::Video) && vp8(&line.codecs).is_some();
        let find = |wanted: &dyn Fn(&Line) -> bool| {
            remote.lines.iter().position(|line| carries(&line) && wanted(line))
        };
        find(&|line| self.mid.is_some() && line.mid == self.mid).or_else(|| find(&Line::receives))
    }

    /// Remembers the m-line of our own offer.
    pub fn offered(&mut self, own: &Offer) {
        self.mid = own.sent.as_ref().and_then(|sent| own.lines.get(sent.index)?.mid.clone());
    }

    /// Takes over what a remote description and our answer (or the other way round) agreed upon.
    pub fn settle(&mut self, remote: &Offer, accepted: &[Vec<(u8, Codec)>]) {
        let before = self.place.take();
        let Some(index) = remote.sent.as_ref().map(|sent| sent.index) else { return };
        let (Some(line), Some(codecs)) = (remote.lines.get(index), accepted.get(index)) else { return };
        let Some(mid) = &line.mid else { return };
        self.mid = Some(mid.clone());
        if line.receives() {
            self.place = vp8(codecs).map(|number| (stack_mid(mid).as_str().into(), number));
        }
        if self.place != before {
            self.shown = None;
        }
    }

    /// When [`TileSender::show`] is due, were the connection up.
    pub fn due(&self) -> Option<Instant> {
        (self.tile.since.is_some() && self.place.is_some()).then_some(self.next)
    }

    /// Gives the stack the picture of this second, unless it has it; the stack sends it when it is driven next.
    pub fn show(&mut self, rtc: &mut Rtc, pictures: &Pictures, now: Moment) {
        let (Some(since), Some((mid, payload_type))) = (self.tile.since, self.place) else { return };
        if now.instant < self.next {
            return;
        }
        let elapsed = now.boot.saturating_since(since);
        let second = elapsed.as_secs();
        let turn = now.instant + (Duration::from_secs(second + 1).saturating_sub(elapsed)).max(ASK_AGAIN);
        self.next = turn;
        if self.shown == Some(second) {
            return;
        }
        let picture = match pictures.get(second) {
            Found::Ready(picture) => picture,
            Found::Later => {
                self.next = turn.min(now.instant + ASK_AGAIN);
                return;
            }
            Found::Never => return,
        };
        let mut api = rtc.direct_api();
        let Some(stream) = api.stream_tx_by_mid(mid, None) else { return };
        if self.sequence == 0 {
            // Numbers are to begin anywhere, the SSRC is random already; the sequence number without a first rollover.
            let random = (*stream.ssrc()).wrapping_mul(0x9e37_79b9);
            (self.sequence, self.epoch) = (u64::from(random >> 17).max(1), random);
        }
        let timestamp = self.epoch.wrapping_add((elapsed.as_nanos() * 9 / 100_000) as u32);
        for (index, payload) in picture.payloads.iter().enumerate() {
            let number = SeqNo::from(self.sequence);
            let write = RtpWrite::new(payload_type.into(), number, timestamp, now.instant, payload.clone());
            let is_last = index + 1 == picture.payloads.len();
            stream.write_rtp(write.marker(is_last).nackable(true));
            self.sequence += 1;
        }
        self.shown = Some(second);
        // The next one is to be there when its second begins.
        let _ = pictures.get(second + 1);
    }
}

fn vp8(codecs: &[(u8, Codec)]) -> Option<u8> {
    codecs.iter().find(|(_, codec)| *codec == Codec::Vp8).map(|(number, _)| *number)
}
