//! Connections that we offer, and the answers to them.
//!
//! The offer asks the same of the remote side as our answers do ([`super::answer::write`]), so it is written by the same hand: the
//! stack's offer is read back and then treated as if it were the stack's answer to itself.

use std::sync::Arc;

use recorder_actors::ports::{MediaError, Tile};
use recorder_core::ids::ConnectionId;
use recorder_core::media::{Codec, MediaKind as Kind};
use str0m::Candidate;
use str0m::change::SdpAnswer;
use str0m::media::{Direction, MediaKind};

use super::answer::Written;
use super::connection::{Connection, Made};
use super::net::{Moment, Outbox};
use super::offer::{self, Line, Offer};
use super::shared::Shared;

/// Index of the m-line that carries the tile.
const TILE_LINE: usize = 1;
/// Video codecs, preferred first: what every browser encodes well, then what is rarer or heavier.
const PREFERRED: [Codec; 5] = [Codec::Vp8, Codec::Vp9, Codec::H264, Codec::Av1, Codec::H265];

impl Connection {
    /// Sets up a connection that we offer: audio to receive, video to receive and for the tile, and another video to
    /// receive where `screen` says so. Nothing is sent before the loop drives it.
    ///
    /// # Errors
    /// [`MediaError::BadOffer`] if the stack writes no usable offer, which would be a defect.
    pub fn dial(
        id: ConnectionId,
        tile: Tile,
        screen: bool,
        local: Vec<Candidate>,
        shared: Arc<Shared>,
        now: Moment,
    ) -> Result<Made, MediaError> {
        let stream = tile.stream.clone();
        let (mut connection, candidates, facts) = Self::prepare(id, Some(tile), local, shared, now);
        let mut api = connection.rtc.sdp_api();
        api.add_media(MediaKind::Audio, Direction::RecvOnly, None, None, None);
        api.add_media(MediaKind::Video, Direction::SendRecv, Some(stream.clone()), None, None);
        if screen {
            api.add_media(MediaKind::Video, Direction::RecvOnly, None, None, None);
        }
        let (stack, pending) =
            api.apply().ok_or_else(|| MediaError::BadOffer("the stack offers nothing".to_owned()))?;
        let stack = stack.to_sdp_string();
        let mut own = offer::read(&stack)?;
        own.send_on(TILE_LINE, &stream);
        own.sdp = String::new();
        own.lines.iter_mut().for_each(prefer);
        // As nothing is agreed upon yet, only the tile's m-line is remembered.
        if let Some(tile) = &mut connection.tile {
            tile.offered(&own);
        }
        connection.pending = Some(pending);
        connection.settle_state();
        Ok(Made { connection, facts, offer: own, stack_answer: stack, candidates })
    }

    /// Applies the answer to our offer.
    ///
    /// # Errors
    /// [`MediaError::BadOffer`] if no offer of ours is open or the answer does not fit it;
    /// [`MediaError::Gone`] after the connection's end.
    pub fn answered(
        &mut self,
        mut answer: Offer,
        now: Moment,
        out: &mut dyn Outbox,
    ) -> Result<(), MediaError> {
        if self.over {
            return Err(MediaError::Gone);
        }
        if self.pending.is_none() {
            return Err(MediaError::BadOffer("it answers no offer of ours".to_owned()));
        }
        self.place_tile(&mut answer);
        let refused = |why: &str| MediaError::BadOffer(why.to_owned());
        let parsed = SdpAnswer::from_sdp_string(&answer.sdp)
            .map_err(|_| refused("its session description cannot be read"))?;
        let pending = self.pending.take().ok_or(MediaError::Gone)?;
        // The stack's words may quote the description, which is not to be logged.
        self.rtc
            .sdp_api()
            .accept_answer(pending, parsed)
            .map_err(|_| refused("it does not fit our offer or lacks what a secure connection needs"))?;
        let accepted = answer.lines.iter().map(|line| self.agreed_codecs(line)).collect();
        self.adopt(answer, &Written { sdp: String::new(), accepted });
        self.facts.changed = true;
        self.drive(now, out);
        self.retry_held(out);
        self.settle_state();
        Ok(())
    }

    /// Payload types of an answered m-line that the stack took over, in the answer's order.
    fn agreed_codecs(&self, line: &Line) -> Vec<(u8, Codec)> {
        if line.kind().is_none() {
            return Vec::new();
        }
        let params = self.rtc.codec_config().params();
        let known = |number: u8| params.iter().any(|params| params.pt() == number.into());
        let mut codecs: Vec<(u8, Codec)> =
            line.codecs.iter().copied().filter(|(number, _)| known(*number)).collect();
        codecs
            .sort_by_key(|(number, _)| line.formats.iter().position(|format| *format == number.to_string()));
        codecs
    }

    /// Marks the m-line that carries the tile, if there is a tile and a place for it.
    pub(super) fn place_tile(&self, offer: &mut Offer) {
        if let Some(tile) = &self.tile
            && let Some(index) = tile.place_in(offer)
        {
            offer.send_on(index, tile.stream());
        }
    }
}

/// Puts the payload types of a video line in our order; one that repeats another stands behind it.
fn prefer(line: &mut Line) {
    if line.kind() != Some(Kind::Video) {
        return;
    }
    let rank = |format: &String| {
        let codec = line.codecs.iter().find(|(number, _)| number.to_string() == *format)?.1;
        PREFERRED.iter().position(|preferred| *preferred == codec)
    };
    // A repeating payload type follows the one that it repeats in the stack's m-line.
    let mut ranked: Vec<(usize, String)> = Vec::with_capacity(line.formats.len());
    let mut last = PREFERRED.len();
    for format in &line.formats {
        last = rank(format).unwrap_or(last);
        ranked.push((last, format.clone()));
    }
    ranked.sort_by_key(|(rank, _)| *rank);
    line.formats = ranked.into_iter().map(|(_, format)| format).collect();
}
