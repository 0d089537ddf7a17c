//! What to do with a file whose writer did not get to its end, decided from its bytes alone.

use std::io;

use thiserror::Error;

use super::Patch;
use super::ebml::{put_size_in, put_void};
use super::repair_scan::{Found, Scanner};

/// Random access to a file's bytes.
pub trait ReadAt {
    /// Reads into `buf` from `offset` bytes after the beginning; returns how many bytes, 0 at the end of the
    /// file.
    ///
    /// # Errors
    /// As the medium fails.
    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<usize>;
}

impl ReadAt for &[u8] {
    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let rest = usize::try_from(offset).ok().and_then(|offset| self.get(offset..)).unwrap_or_default();
        let count = rest.len().min(buf.len());
        buf[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }
}

/// Why there is no plan. The file is to be left as it is.
#[derive(Debug, Error)]
pub enum RepairError {
    #[error("the file is empty")]
    Empty,
    #[error("the file does not begin as Matroska")]
    NotMatroska,
    #[error("the header ends at byte {at}, before the first frame: there is nothing to save")]
    TornHeader { at: u64 },
    #[error("the file was not written by this recorder: {what}")]
    Foreign { what: &'static str },
    #[error("too much damage from byte {at} on to go further")]
    TooDamaged { at: u64 },
    #[error("cannot read at byte {offset}")]
    Io { offset: u64, source: io::Error },
}

/// What the header says, for placing a file without its manifest.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HeaderFacts {
    /// As Matroska registers it: `A_OPUS`, `V_VP8`, ….
    pub codec_id: String,
    pub session_id: Option<String>,
    pub participant: Option<String>,
    pub source: Option<String>,
    /// Provisional start, seconds of session time.
    pub start_s: Option<f64>,
}

/// How to make a file what a clean end would have made of it. In this order: truncate, append, sync, patch,
/// sync. Stopped anywhere in between, the next scan gives a plan with the same result.
#[derive(Clone, Debug, PartialEq)]
pub struct RepairPlan {
    pub truncate_to: u64,
    pub append: Vec<u8>,
    pub patches: Vec<Patch>,
    /// From the first block to the end of the last whole one.
    pub duration_s: f64,
    pub last_timestamp_ms: Option<u64>,
    /// Clusters that stay.
    pub clusters: u64,
    /// Stretches of unreadable bytes between clusters that are made skippable; what cannot be read at the end
    /// is cut.
    pub holes: u64,
    /// The file is complete: nothing to truncate, append or patch.
    pub already_final: bool,
    pub header: HeaderFacts,
}

impl RepairPlan {
    /// Bytes of the file after the plan.
    pub fn length(&self) -> u64 {
        self.truncate_to + self.append.len() as u64
    }

    /// The plan carried out on a file in memory.
    pub fn apply(&self, file: &mut Vec<u8>) {
        file.truncate(usize::try_from(self.truncate_to).unwrap_or(usize::MAX));
        file.extend_from_slice(&self.append);
        for patch in &self.patches {
            let range = usize::try_from(patch.offset)
                .ok()
                .and_then(|at| at.checked_add(patch.bytes.len()).map(|end| at..end));
            if let Some(bytes) = range.and_then(|range| file.get_mut(range)) {
                bytes.copy_from_slice(&patch.bytes);
            }
        }
    }
}

/// Looks through a file of `length` bytes and plans its repair. Reads the heads of clusters, and the blocks'
/// heads of the last cluster and of those next to damage; memory is bounded by 64 KiB and the cues.
///
/// # Errors
/// When the file is to be left alone, see [`RepairError`].
pub fn scan(file: &mut dyn ReadAt, length: u64) -> Result<RepairPlan, RepairError> {
    if length == 0 {
        return Err(RepairError::Empty);
    }
    let mut scanner = Scanner::new(file, length);
    let header = scanner.header()?;
    let layout = header.layout;
    let found = scanner.clusters(&header)?;
    let duration_s = found.end_ms() as f64 / 1000.0;
    let known_duration = header.duration_s.is_some() || layout.duration_at.is_none() || duration_s <= 0.0;
    let already_final = header.segment_size == Some(length - layout.segment_at)
        && known_duration
        && found.end == length
        && found.is_sound()
        && (found.cues_at.is_some() || found.cues.len() == 0);
    if already_final {
        return Ok(RepairPlan {
            truncate_to: length,
            append: Vec::new(),
            patches: Vec::new(),
            duration_s: header.duration_s.unwrap_or(duration_s),
            last_timestamp_ms: found.last_timestamp_ms,
            clusters: found.clusters,
            holes: 0,
            already_final,
            header: header.facts,
        });
    }
    let truncate_to = found.cues_at.unwrap_or(found.end);
    let mut append = Vec::new();
    found.cues.encode(&mut append);
    let cues_at = (!append.is_empty()).then_some(truncate_to);
    let mut patches = damage_patches(&found);
    patches.extend(layout.duration(duration_s));
    patches.extend(layout.seek_head(cues_at));
    patches.push(layout.segment_size(truncate_to + append.len() as u64));
    Ok(RepairPlan {
        truncate_to,
        append,
        patches,
        duration_s,
        last_timestamp_ms: found.last_timestamp_ms,
        clusters: found.clusters,
        holes: found.holes.len() as u64,
        already_final,
        header: header.facts,
    })
}

fn damage_patches(found: &Found) -> Vec<Patch> {
    let mut patches = Vec::new();
    for cut in &found.cut_clusters {
        let mut bytes = Vec::with_capacity(4);
        put_size_in(&mut bytes, cut.size, 4);
        patches.push(Patch { offset: cut.at + 4, bytes });
    }
    for hole in &found.holes {
        let total = usize::try_from(hole.end - hole.start).unwrap_or(usize::MAX);
        let mut bytes = Vec::new();
        // Only the head of the void is written: what it covers may be anything.
        put_void(&mut bytes, total.min(127));
        if total > 127 {
            bytes = vec![0xEC];
            put_size_in(&mut bytes, hole.end - hole.start - 9, 8);
        } else {
            bytes.truncate(2);
        }
        patches.push(Patch { offset: hole.start, bytes });
    }
    patches
}

/// Entry for fuzzing: any bytes are scanned; where there is a plan, carrying it out must leave a final file.
///
/// # Panics
/// When a plan does not do what it promises, which is what fuzzing looks for.
#[expect(clippy::panic, reason = "a fuzz target reports by panicking")]
pub fn fuzz_scan(data: &[u8]) {
    let Ok(plan) = scan(&mut &data[..], data.len() as u64) else { return };
    assert!(plan.truncate_to <= data.len() as u64, "a plan lengthens the file by truncating it");
    let mut file = data.to_vec();
    plan.apply(&mut file);
    match scan(&mut &file[..], file.len() as u64) {
        Ok(again) => assert!(again.already_final, "{plan:?} left a file that needs {again:?}"),
        Err(error) => panic!("{plan:?} left a file that cannot be read: {error}"),
    }
}
