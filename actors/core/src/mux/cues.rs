//! The index at the end of a file (RFC 9559 §5.1.5), in bounded memory.

use super::ebml::{id, put_bytes, put_id, put_size, put_unsigned};

/// Entries kept; past it every second one goes and the spacing doubles.
const MOST: usize = 2048;
/// Least media time between two entries at first, milliseconds.
const FIRST_SPACING_MS: u64 = 2_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cue {
    time_ms: u64,
    /// Offset of the cluster from the beginning of the segment's body.
    cluster: u64,
}

/// Seek points, thinned evenly as a recording grows: 34 h at most 64 s apart.
#[derive(Clone, Debug)]
pub(super) struct CueList {
    cues: Vec<Cue>,
    spacing_ms: u64,
}

impl CueList {
    pub(super) fn new() -> Self {
        Self { cues: Vec::new(), spacing_ms: FIRST_SPACING_MS }
    }

    /// Offers a point where decoding can begin; kept if it is far enough from the one before.
    pub(super) fn offer(&mut self, time_ms: u64, cluster: u64) {
        let near =
            self.cues.last().is_some_and(|last| time_ms.saturating_sub(last.time_ms) < self.spacing_ms);
        if near {
            return;
        }
        if self.cues.len() >= MOST {
            let mut index = 0;
            self.cues.retain(|_| {
                index += 1;
                index % 2 == 1
            });
            self.spacing_ms = self.spacing_ms.saturating_mul(2);
        }
        self.cues.push(Cue { time_ms, cluster });
    }

    /// Drops the entries whose cluster begins at `cluster` or later.
    pub(super) fn forget_from(&mut self, cluster: u64) {
        self.cues.retain(|cue| cue.cluster < cluster);
    }

    pub(super) fn len(&self) -> usize {
        self.cues.len()
    }

    /// The `Cues` element; nothing if there is no entry, since an empty one is not allowed.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        if self.cues.is_empty() {
            return;
        }
        let mut body = Vec::with_capacity(self.cues.len() * 24);
        let mut positions = Vec::new();
        let mut point = Vec::new();
        for cue in &self.cues {
            positions.clear();
            put_unsigned(&mut positions, id::CUE_TRACK, 1);
            put_unsigned(&mut positions, id::CUE_CLUSTER_POSITION, cue.cluster);
            point.clear();
            put_unsigned(&mut point, id::CUE_TIME, cue.time_ms);
            put_bytes(&mut point, id::CUE_TRACK_POSITIONS, &positions);
            put_bytes(&mut body, id::CUE_POINT, &point);
        }
        put_id(out, id::CUES);
        put_size(out, body.len() as u64);
        out.extend_from_slice(&body);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_of_audio_keeps_a_bounded_index_that_reaches_its_end() {
        let mut cues = CueList::new();
        let day_ms = 24 * 3_600_000;
        for time_ms in (0..day_ms).step_by(500) {
            cues.offer(time_ms, time_ms * 16);
        }
        assert!(cues.len() <= MOST && cues.len() >= MOST / 2, "{}", cues.len());
        assert_eq!(cues.cues[0].time_ms, 0);
        assert!(day_ms - cues.cues.last().unwrap().time_ms <= cues.spacing_ms);
        assert!(cues.cues.windows(2).all(|pair| pair[1].time_ms - pair[0].time_ms <= 2 * cues.spacing_ms));
    }
}
