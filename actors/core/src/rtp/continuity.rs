//! Whether a frame can be decoded from what was written before it.
//!
//! Without loss everything can. After a loss only what the payload itself proves: picture ids that show that nothing
//! is missing, frames that no other needs, temporal layers (RFC 7741 §4.2, RFC 9628 §4.2), lists of references
//! (RFC 9628 flexible mode). Everything else waits for a key frame.

use crate::rtp::depacketise::{Dependencies, PictureId};

const ALL_LAYERS: u8 = 0xff;
const NO_PICTURE: u16 = u16::MAX;

/// What has been decoded so far, as far as later frames may lean on it.
#[derive(Clone, Debug)]
pub struct Continuity {
    /// A key frame was written and the base layer is whole since.
    base: bool,
    /// A key frame was written, ever.
    started: bool,
    /// Bit n: temporal layer n is whole.
    layers: u8,
    last_base: Option<u8>,
    last_picture: Option<PictureId>,
    /// Ids of written pictures by their low seven bits (reference distances reach 127 back).
    written: [u16; 128],
}

impl Default for Continuity {
    fn default() -> Self {
        Self {
            base: false,
            started: false,
            layers: 0,
            last_base: None,
            last_picture: None,
            written: [NO_PICTURE; 128],
        }
    }
}

impl Continuity {
    /// Judges a whole frame. `gap`: as many packets before it are missing, and nothing says of which frame.
    pub fn admit(&mut self, told: &Dependencies, key: bool, gap: u64) -> bool {
        if key {
            self.begin(told);
            return true;
        }
        self.cross_gap(told, gap);
        let decodable = self.is_decodable(told);
        self.note(told);
        if decodable {
            self.remember(told);
        } else if told.references.is_some() {
            self.base = false;
        }
        decodable
    }

    /// A frame that was seen in part or whole is not written.
    pub fn miss(&mut self, told: &Dependencies, gap: u64) {
        self.cross_gap(told, gap);
        self.note(told);
        if told.discardable {
            return;
        }
        match told.layer {
            Some(layer) if layer.id > 0 => self.break_layers_from(layer.id),
            _ => self.base = false,
        }
    }

    /// Nothing before matters any more; only a key frame helps.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// Nothing can be written without a key frame (or, in flexible mode, without luck).
    pub fn needs_key_frame(&self) -> bool {
        !self.base
    }

    fn begin(&mut self, told: &Dependencies) {
        self.base = true;
        self.started = true;
        self.layers = ALL_LAYERS;
        self.last_base = told.layer.map(|layer| layer.base);
        self.written = [NO_PICTURE; 128];
        self.note(told);
        self.remember(told);
    }

    /// Every picture takes at least one packet, so a running number proves something while fewer packets are missing
    /// than it has values.
    fn cross_gap(&mut self, told: &Dependencies, gap: u64) {
        if gap == 0 {
            return;
        }
        if let (Some(picture), Some(last)) = (told.picture, self.last_picture)
            && gap < u64::from(picture.mask & last.mask)
            && picture.follows(last)
        {
            return;
        }
        let base_is_whole = match (told.layer, self.last_base) {
            _ if gap >= 256 => false,
            (Some(layer), Some(last)) if layer.id == 0 => layer.base == last.wrapping_add(1),
            (Some(layer), Some(last)) => layer.base == last,
            (None, _) | (_, None) => false,
        };
        self.base &= base_is_whole;
        self.layers = 1;
    }

    fn is_decodable(&self, told: &Dependencies) -> bool {
        if let (Some(references), Some(picture)) = (told.references, told.picture) {
            return self.started
                && !references.overflow
                && references.iter().all(|distance| self.has_written(picture, distance));
        }
        if !self.base {
            return false;
        }
        let Some(layer) = told.layer.filter(|layer| layer.id > 0) else { return true };
        let all_below = ((1u16 << (layer.id + 1)) - 1) as u8;
        (layer.needs_base_only && Some(layer.base) == self.last_base) || self.layers & all_below == all_below
    }

    fn has_written(&self, picture: PictureId, distance: u8) -> bool {
        let id = picture.value.wrapping_sub(u16::from(distance)) & picture.mask;
        distance > 0 && self.written[usize::from(id & 0x7f)] == id
    }

    fn remember(&mut self, told: &Dependencies) {
        if let Some(picture) = told.picture {
            self.written[usize::from(picture.value & 0x7f)] = picture.value;
        }
        let Some(layer) = told.layer else { return };
        if layer.id == 0 {
            self.last_base = Some(layer.base);
        } else if layer.needs_base_only {
            self.layers |= 1 << layer.id;
        }
        if layer.switching_up {
            self.layers |= ALL_LAYERS << layer.id;
        }
    }

    fn note(&mut self, told: &Dependencies) {
        if told.picture.is_some() {
            self.last_picture = told.picture;
        }
    }

    fn break_layers_from(&mut self, layer: u8) {
        self.layers &= !(ALL_LAYERS << layer.min(7));
    }
}
