//! Frames in, clusters out.

use super::cues::CueList;
use super::ebml::{CLUSTER_HEAD, id, put_id, put_size, put_unsigned};
use super::header::{self, Layout};
use super::{
    CLUSTER_SPAN_MS, FinalFacts, KEY_CLUSTER_MS, MAX_CLUSTER, MAX_FRAME, MuxError, Patch, TrackHeader,
};
use crate::media::MediaKind;

/// Id and size of a cluster, in front of its body.
const HEAD: usize = CLUSTER_HEAD as usize;
/// Capacity that the cluster buffer keeps after a cluster of a single huge frame.
const KEPT_CAPACITY: usize = MAX_CLUSTER + (MAX_CLUSTER >> 2);

/// Writes one track. Append what it puts into `out` to the file in order; it never looks back until `finish`.
///
/// Frames are held until their cluster is full or `flush` is called, so a caller that promises to lose at
/// most so much time calls `flush` that often. Allocation free per frame but for growing buffers.
#[derive(Debug)]
pub struct MatroskaWriter {
    kind: MediaKind,
    layout: Layout,
    start_at: u64,
    /// Bytes put into `out` so far: where the next cluster will begin.
    position: u64,
    /// The open cluster with room for its head, empty if none is open.
    cluster: Vec<u8>,
    cluster_ms: u64,
    last_ms: Option<u64>,
    frames: u64,
    cues: CueList,
}

/// The end of a file: apply the patches, in order, after everything in `out` is written and synced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    pub patches: Vec<Patch>,
    /// Length of the whole file in bytes.
    pub length: u64,
    pub frames: u64,
    pub last_timestamp_ms: Option<u64>,
}

impl MatroskaWriter {
    /// Puts everything before the first cluster into `out`, which is the beginning of the file.
    pub fn new(header: &TrackHeader, out: &mut Vec<u8>) -> Self {
        let before = out.len();
        let (layout, start_at) = header::write(header, out);
        Self {
            kind: header.codec.kind(),
            layout,
            start_at,
            position: (out.len() - before) as u64,
            cluster: Vec::new(),
            cluster_ms: 0,
            last_ms: None,
            frames: 0,
            cues: CueList::new(),
        }
    }

    /// Takes one whole frame. `timestamp_ms` is media time since the first frame, which has 0; `key` says
    /// that decoding can begin here (always for audio).
    ///
    /// # Errors
    /// A step back in time, an empty frame or one larger than [`MAX_FRAME`]: the frame is left out.
    pub fn write_frame(
        &mut self,
        timestamp_ms: u64,
        key: bool,
        data: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), MuxError> {
        if let Some(last_ms) = self.last_ms
            && timestamp_ms < last_ms
        {
            return Err(MuxError::StepBack { last_ms, timestamp_ms });
        }
        if data.is_empty() {
            return Err(MuxError::EmptyFrame);
        }
        if data.len() > MAX_FRAME {
            return Err(MuxError::FrameTooLarge { bytes: data.len() });
        }
        let age = timestamp_ms - if self.is_open() { self.cluster_ms } else { timestamp_ms };
        let key_video = key && self.kind == MediaKind::Video;
        if age >= CLUSTER_SPAN_MS
            || key_video && age >= KEY_CLUSTER_MS
            || self.cluster.len() + data.len() > MAX_CLUSTER
        {
            self.flush(out);
        }
        let opens = !self.is_open();
        if opens {
            self.cluster_ms = timestamp_ms;
            self.cluster.extend_from_slice(&[0; HEAD]);
            put_unsigned(&mut self.cluster, id::TIMESTAMP, timestamp_ms);
        }
        if key_video || opens && self.kind == MediaKind::Audio {
            self.cues.offer(timestamp_ms, self.position - self.layout.segment_at);
        }
        let relative = (timestamp_ms - self.cluster_ms) as i16;
        put_id(&mut self.cluster, id::SIMPLE_BLOCK);
        put_size(&mut self.cluster, data.len() as u64 + 4);
        let [high, low] = relative.to_be_bytes();
        self.cluster.extend_from_slice(&[0x81, high, low, if key { 0x80 } else { 0 }]);
        self.cluster.extend_from_slice(data);
        self.last_ms = Some(timestamp_ms);
        self.frames += 1;
        Ok(())
    }

    /// Ends the open cluster: every frame taken so far is then in `out`.
    pub fn flush(&mut self, out: &mut Vec<u8>) {
        if !self.is_open() {
            return;
        }
        // Always four bytes, which hold any cluster of ours and let a repair shorten it in place.
        let size = (self.cluster.len() - HEAD) as u32 | 0x1000_0000;
        self.cluster[..4].copy_from_slice(&id::CLUSTER.to_be_bytes());
        self.cluster[4..HEAD].copy_from_slice(&size.to_be_bytes());
        self.position += self.cluster.len() as u64;
        if out.is_empty() {
            // Handed over, not copied; the next cluster will need about as much.
            let length = self.cluster.len().min(KEPT_CAPACITY);
            std::mem::swap(out, &mut self.cluster);
            self.cluster.clear();
            self.cluster.reserve(length);
        } else {
            out.extend_from_slice(&self.cluster);
            self.cluster.clear();
            self.cluster.shrink_to(KEPT_CAPACITY);
        }
    }

    /// Ends the file: the last cluster and the cues go to `out`, and what was not known at the beginning is
    /// patched.
    pub fn finish(mut self, out: &mut Vec<u8>, facts: FinalFacts) -> Finished {
        self.flush(out);
        let cues_at = (self.cues.len() > 0).then_some(self.position);
        let before = out.len();
        self.cues.encode(out);
        self.position += (out.len() - before) as u64;
        // The size comes last: a segment that has one is finished.
        let patches = [
            self.layout.duration(facts.duration_s),
            self.layout.seek_head(cues_at),
            Some(self.layout.segment_size(self.position)),
        ];
        Finished {
            patches: patches.into_iter().flatten().collect(),
            length: self.position,
            frames: self.frames,
            last_timestamp_ms: self.last_ms,
        }
    }

    /// Forgets everything after the `length` bytes and `frames` that have left `out`, the open cluster first. `length` is
    /// what [`Self::position`] was after a flush; what came after it must not be written.
    pub fn roll_back(&mut self, length: u64, frames: u64) {
        self.cluster.clear();
        self.cues.forget_from(length.saturating_sub(self.layout.segment_at));
        self.position = length;
        self.frames = frames;
    }

    /// Bytes put into `out` so far, the header included.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Bytes of frames taken that are not yet in `out`.
    pub fn pending(&self) -> usize {
        self.cluster.len()
    }

    pub fn frames(&self) -> u64 {
        self.frames
    }

    pub fn last_timestamp_ms(&self) -> Option<u64> {
        self.last_ms
    }

    /// Replaces the start tag in the header by a better estimate, seconds of session time.
    pub fn start_patch(&self, start_s: f64) -> Patch {
        Patch { offset: self.start_at, bytes: header::start_digits(start_s).into_bytes() }
    }

    fn is_open(&self) -> bool {
        !self.cluster.is_empty()
    }
}
