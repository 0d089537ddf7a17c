//! The one thing we send: a picture that says that, and for how long, a recording runs.

use recorder_actors::ports::Tile;
use recorder_core::media::{Codec, MediaKind};

use super::offer::{Line, Offer, stack_mid};

/// The tile of one connection.
#[derive(Debug)]
pub struct TileSender {
    tile: Tile,
    /// Its m-line: the same one as long as that can carry video.
    mid: Option<String>,
    /// Where pictures may go now: the stack's mid and the payload type of VP8.
    place: Option<(str0m::media::Mid, u8)>,
}

impl TileSender {
    pub fn new(tile: Tile) -> Self {
        Self { tile, mid: None, place: None }
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
        self.place = None;
        let Some(index) = remote.sent.as_ref().map(|sent| sent.index) else { return };
        let (Some(line), Some(codecs)) = (remote.lines.get(index), accepted.get(index)) else { return };
        let Some(mid) = &line.mid else { return };
        self.mid = Some(mid.clone());
        if line.receives() {
            self.place = vp8(codecs).map(|number| (stack_mid(mid).as_str().into(), number));
        }
    }
}

fn vp8(codecs: &[(u8, Codec)]) -> Option<u8> {
    codecs.iter().find(|(_, codec)| *codec == Codec::Vp8).map(|(number, _)| *number)
}
