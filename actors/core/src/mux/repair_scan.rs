//! The walk through a file: header, then from cluster to cluster, blocks only where it matters.

use std::collections::VecDeque;
use std::ops::Range;

use super::cues::CueList;
use super::ebml::{CLUSTER_HEAD, Head, id, read_head, read_unsigned};
use super::header::Layout;
use super::repair::{HeaderFacts, ReadAt, RepairError};
use super::repair_header;
use super::{MAX_CLUSTER, MAX_FRAME};

/// Bytes read at the head of each cluster: its head, timestamp, and the first block's head.
const PEEK: usize = 64;
/// Bytes read at once where a cluster is walked or a lost one searched.
const WINDOW: usize = 64 << 10;
/// Largest body of a cluster that is believed.
const LARGEST_CLUSTER: u64 = (MAX_CLUSTER + MAX_FRAME + 64) as u64;
/// Clusters after which a scan gives up: 115 days of audio.
const MOST_CLUSTERS: u64 = 20_000_000;
/// Bytes searched for lost clusters in all.
const SEARCH_BUDGET: u64 = 256 << 20;
/// Damaged stretches after which a scan gives up.
const MOST_HOLES: usize = 4096;
/// Whole clusters remembered, to go back to when the ones after them turn out to be hollow.
const REMEMBERED: usize = 64;
/// Zero bytes at the end of a block before more zeros, from which it is taken for a page that was never
/// written.
const HOLLOW: u64 = 16;

/// A header as read.
pub(super) struct Header {
    pub layout: Layout,
    pub segment_size: Option<u64>,
    pub duration_s: Option<f64>,
    pub facts: HeaderFacts,
    /// Where the first cluster is expected.
    pub end: u64,
}

/// A cluster whose size is to become smaller.
pub(super) struct CutCluster {
    pub at: u64,
    pub size: u64,
}

/// What a walk found.
pub(super) struct Found {
    pub clusters: u64,
    pub cues: CueList,
    /// Cues that end the file, whole.
    pub cues_at: Option<u64>,
    /// End of what is to stay, the cues of the file included.
    pub end: u64,
    pub holes: Vec<Range<u64>>,
    pub cut_clusters: Vec<CutCluster>,
    pub last_timestamp_ms: Option<u64>,
    /// How long the last block lasts.
    pub last_lasts_ms: u64,
}

impl Found {
    pub(super) fn end_ms(&self) -> u64 {
        self.last_timestamp_ms.map_or(0, |last| last.saturating_add(self.last_lasts_ms))
    }

    pub(super) fn is_sound(&self) -> bool {
        self.holes.is_empty() && self.cut_clusters.is_empty()
    }
}

#[derive(Clone, Copy)]
struct Cluster {
    at: u64,
    end: u64,
    timestamp_ms: u64,
    /// Decoding can begin at its first block.
    key: bool,
}

/// What a cluster holds when its blocks are walked.
struct Blocks {
    /// End of the last whole block.
    end: u64,
    last_ms: Option<u64>,
    lasts_ms: u64,
}

pub(super) struct Scanner<'a> {
    file: &'a mut dyn ReadAt,
    length: u64,
    window: Vec<u8>,
    window_at: u64,
    search_left: u64,
}

impl<'a> Scanner<'a> {
    pub(super) fn new(file: &'a mut dyn ReadAt, length: u64) -> Self {
        Self { file, length, window: Vec::new(), window_at: 0, search_left: SEARCH_BUDGET }
    }

    pub(super) fn header(&mut self) -> Result<Header, RepairError> {
        repair_header::read(self)
    }

    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Fills `buf` as far as the file goes.
    pub(super) fn read(&mut self, offset: u64, buf: &mut [u8]) -> Result<usize, RepairError> {
        let room = usize::try_from(self.length.saturating_sub(offset)).unwrap_or(usize::MAX).min(buf.len());
        let mut done = 0;
        while done < room {
            let at = offset + done as u64;
            match self.file.read_at(at, &mut buf[done..room]) {
                Ok(0) => break,
                Ok(count) => done += count.min(room - done),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(source) => return Err(RepairError::Io { offset: at, source }),
            }
        }
        Ok(done)
    }

    /// At least `count` bytes from `offset`, or what there is of them.
    fn peek(&mut self, offset: u64, count: usize) -> Result<&[u8], RepairError> {
        let wanted = offset.saturating_add(count as u64).min(self.length);
        let held = self.window_at..self.window_at + self.window.len() as u64;
        if offset < held.start || wanted > held.end {
            let mut window = std::mem::take(&mut self.window);
            window.resize(WINDOW, 0);
            let count = self.read(offset, &mut window)?;
            window.truncate(count);
            self.window = window;
            self.window_at = offset;
        }
        let from = usize::try_from(offset - self.window_at).unwrap_or(usize::MAX);
        Ok(self.window.get(from..).unwrap_or_default())
    }

    /// Goes from cluster to cluster to the end of the file.
    pub(super) fn clusters(&mut self, header: &Header) -> Result<Found, RepairError> {
        let audio = header.facts.codec_id.starts_with("A_");
        let opus = header.facts.codec_id == "A_OPUS";
        let segment_at = header.layout.segment_at;
        let mut found = Found {
            clusters: 0,
            cues: CueList::new(),
            cues_at: None,
            end: header.end,
            holes: Vec::new(),
            cut_clusters: Vec::new(),
            last_timestamp_ms: None,
            last_lasts_ms: 0,
        };
        let mut recent: VecDeque<Cluster> = VecDeque::with_capacity(REMEMBERED + 1);
        let mut bytes = [0; PEEK];
        let mut at = header.end;
        loop {
            let at_end = at == self.length;
            let damaged = if at_end {
                // The end. The last cluster is looked through; if it is hollow, that is damage at the end.
                match recent.back() {
                    Some(last) => self.blocks(last, opus)?.end < last.end,
                    None => false,
                }
            } else {
                let count = self.read(at, &mut bytes)?;
                match self.element(at, &bytes[..count], recent.back(), audio) {
                    Some(Element::Cluster(cluster)) => {
                        if let Some(stale) = found.cues_at.take() {
                            found.holes.push(stale..at);
                        }
                        recent.push_back(cluster);
                        found.clusters += 1;
                        if cluster.key {
                            found.cues.offer(cluster.timestamp_ms, at - segment_at);
                        }
                        if recent.len() > REMEMBERED {
                            recent.pop_front();
                        }
                        at = cluster.end.min(self.length);
                        cluster.end > self.length
                    }
                    Some(Element::Cues { end }) => {
                        if let Some(stale) = found.cues_at.replace(at) {
                            found.holes.push(stale..at);
                        }
                        at = end;
                        false
                    }
                    Some(Element::Void { end }) => {
                        at = end;
                        false
                    }
                    None => true,
                }
            };
            if found.clusters > MOST_CLUSTERS || found.holes.len() > MOST_HOLES {
                return Err(RepairError::TooDamaged { at });
            }
            if damaged {
                let from = self.sound_end(at, &mut recent, &mut found, segment_at, opus)?;
                let after = recent.back().map_or(0, |last| last.timestamp_ms);
                match self.next_cluster(from, after, audio)? {
                    Some(next) => {
                        // Cues that are not the last thing in the file lead astray: the hole takes them in.
                        let from = found.cues_at.take().filter(|cues| *cues < from).unwrap_or(from);
                        found.holes.push(from..next);
                        at = next;
                        continue;
                    }
                    None => {
                        found.end = from;
                        found.cues_at = found.cues_at.filter(|cues| *cues < from);
                    }
                }
            } else if !at_end {
                continue;
            } else {
                found.end = at;
            }
            if let Some(last) = recent.back() {
                let blocks = self.blocks(last, opus)?;
                found.last_timestamp_ms = blocks.last_ms;
                found.last_lasts_ms = blocks.lasts_ms;
            }
            return Ok(found);
        }
    }

    /// Damage was met at `at`: goes back over clusters without a whole block, cuts the last one that has
    /// some, and returns where what is sound ends.
    fn sound_end(
        &mut self,
        at: u64,
        recent: &mut VecDeque<Cluster>,
        found: &mut Found,
        segment_at: u64,
        opus: bool,
    ) -> Result<u64, RepairError> {
        let mut from = at;
        while let Some(last) = recent.back_mut() {
            let blocks = self.blocks(last, opus)?;
            if blocks.last_ms.is_some() {
                if blocks.end < last.end {
                    last.end = blocks.end;
                    from = blocks.end;
                    found
                        .cut_clusters
                        .push(CutCluster { at: last.at, size: blocks.end - last.at - CLUSTER_HEAD });
                }
                break;
            }
            from = last.at;
            found.clusters -= 1;
            found.cues.forget_from(last.at - segment_at);
            recent.pop_back();
        }
        // A hole or a cut that begins behind the sound end is part of what follows.
        found.holes.retain(|hole| hole.start < from);
        found.cut_clusters.retain(|cut| cut.at < from);
        Ok(from)
    }

    /// What begins at `at`, if it is one of the things that follow a header. A cluster may reach past the end
    /// of the file; anything else is whole.
    fn element(&self, at: u64, bytes: &[u8], last: Option<&Cluster>, audio: bool) -> Option<Element> {
        let head = read_head(bytes)?;
        let size = head.size?;
        let end = at.checked_add(head.length)?.checked_add(size)?;
        match head.id {
            id::CLUSTER => {
                let cluster = cluster_head(at, head, bytes, audio)?;
                let follows = last.is_none_or(|last| cluster.timestamp_ms >= last.timestamp_ms);
                follows.then_some(Element::Cluster(cluster))
            }
            id::CUES if end <= self.length => Some(Element::Cues { end }),
            id::VOID if end <= self.length => Some(Element::Void { end }),
            _ => None,
        }
    }

    /// Walks a cluster's blocks up to the last whole one.
    fn blocks(&mut self, cluster: &Cluster, opus: bool) -> Result<Blocks, RepairError> {
        let limit = cluster.end.min(self.length);
        let mut at = cluster.at + CLUSTER_HEAD;
        let mut blocks = Blocks { end: at, last_ms: None, lasts_ms: 0 };
        let mut before = blocks.end;
        let mut before_ms = None;
        loop {
            let bytes = self.peek(at, PEEK)?;
            let zero = bytes.first() == Some(&0);
            let whole = read_head(bytes).and_then(|head| {
                let end = at.checked_add(head.length)?.checked_add(head.size?)?;
                let body = bytes.get(head.length as usize..)?;
                (end <= limit).then_some((head.id, end, body))
            });
            let Some((kind, end, body)) = whole else {
                // Zeros where an element should begin: the block before may end in the same unwritten page.
                if zero && blocks.last_ms.is_some() && self.ends_hollow(blocks.end)? {
                    blocks.end = before;
                    blocks.last_ms = before_ms;
                    blocks.lasts_ms = 0;
                }
                break;
            };
            match (kind, body) {
                (id::SIMPLE_BLOCK, [0x81, high, low, _, payload @ ..]) if end > at + 6 => {
                    let relative = i64::from(i16::from_be_bytes([*high, *low]));
                    let time = cluster.timestamp_ms.saturating_add_signed(relative);
                    let step = blocks.last_ms.map_or(0, |last| time.saturating_sub(last));
                    blocks.lasts_ms = if opus { opus_packet_ms(payload) } else { step.min(1_000) };
                    (before, before_ms) = (blocks.end, blocks.last_ms);
                    blocks.last_ms = Some(time);
                }
                (id::TIMESTAMP | id::VOID | id::POSITION | id::PREV_SIZE | id::CRC_32, _) => {}
                _ => break,
            }
            at = end;
            blocks.end = end;
        }
        Ok(blocks)
    }

    fn ends_hollow(&mut self, end: u64) -> Result<bool, RepairError> {
        let mut tail = [1; HOLLOW as usize];
        let count = self.read(end.saturating_sub(HOLLOW), &mut tail)?;
        Ok(count == tail.len() && tail.iter().all(|byte| *byte == 0))
    }

    /// Searches for the next believable cluster, at least two bytes after `from` so that a void fits between.
    fn next_cluster(&mut self, from: u64, after_ms: u64, audio: bool) -> Result<Option<u64>, RepairError> {
        let mut at = from.saturating_add(2);
        while at < self.length {
            let bytes = self.peek(at, PEEK)?;
            let held = bytes.len();
            let hit = bytes.windows(4).position(|four| four == [0x1F, 0x43, 0xB6, 0x75]);
            let step = match hit {
                Some(offset) if offset > 0 => offset,
                Some(_) => {
                    let head = read_head(bytes);
                    let cluster = head.and_then(|head| cluster_head(at, head, bytes, audio));
                    if let Some(cluster) = cluster
                        && cluster.timestamp_ms >= after_ms
                        && (cluster.end > self.length || self.blocks(&cluster, false)?.last_ms.is_some())
                    {
                        return Ok(Some(at));
                    }
                    4
                }
                // The last three bytes may begin an identifier that goes on behind them.
                None => held.saturating_sub(3).max(1),
            };
            at += step as u64;
            self.search_left =
                self.search_left.checked_sub(step as u64).ok_or(RepairError::TooDamaged { at: from })?;
        }
        Ok(None)
    }
}

enum Element {
    Cluster(Cluster),
    Cues { end: u64 },
    Void { end: u64 },
}

/// A cluster as this writer makes it: eight bytes of head, then the timestamp, then a block of track 1.
fn cluster_head(at: u64, head: Head, bytes: &[u8], audio: bool) -> Option<Cluster> {
    let size = head.size?;
    if head.length != CLUSTER_HEAD || size > LARGEST_CLUSTER {
        return None;
    }
    let body = bytes.get(CLUSTER_HEAD as usize..)?;
    let timestamp = read_head(body)?;
    if timestamp.id != id::TIMESTAMP {
        return None;
    }
    let value_at = timestamp.length as usize;
    let value_end = value_at.checked_add(usize::try_from(timestamp.size?).ok()?)?;
    let timestamp_ms = read_unsigned(body.get(value_at..value_end)?)?;
    let block = body.get(value_end..).unwrap_or_default();
    let flags = read_head(block)
        .filter(|head| head.id == id::SIMPLE_BLOCK)
        .and_then(|head| block.get(head.length as usize + 3).copied());
    let key = audio || flags.is_some_and(|flags| flags & 0x80 != 0);
    Some(Cluster { at, end: at.checked_add(CLUSTER_HEAD)?.checked_add(size)?, timestamp_ms, key })
}

/// Length of an Opus packet from its first bytes (RFC 6716 §3.1, §3.2), milliseconds rounded up, 120 at most.
fn opus_packet_ms(packet: &[u8]) -> u64 {
    let Some(&toc) = packet.first() else { return 0 };
    let quarter_ms = match toc >> 3 {
        config @ 0..=11 => [40, 80, 160, 240][usize::from(config & 3)],
        config @ 12..=15 => [40, 80][usize::from(config & 1)],
        config => [10, 20, 40, 80][usize::from(config & 3)],
    };
    let frames = match toc & 3 {
        0 => 1,
        1 | 2 => 2,
        _ => packet.get(1).map_or(1, |count| u64::from(count & 0x3F)),
    };
    (quarter_ms * frames).div_ceil(4).min(120)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_opus_packet_says_how_long_it_is() {
        assert_eq!(opus_packet_ms(&[0xFC]), 20);
        assert_eq!(opus_packet_ms(&[0xFB, 3]), 60);
        assert_eq!(opus_packet_ms(&[0x80]), 3);
        assert_eq!(opus_packet_ms(&[0x18]), 60);
        assert_eq!(opus_packet_ms(&[]), 0);
    }
}
