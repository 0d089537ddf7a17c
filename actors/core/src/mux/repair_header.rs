//! The header of a file that is to be repaired.

use super::ebml::{Head, id, read_head, read_unsigned};
use super::header::{DURATION_LENGTH, Layout, SEEK_REGION};
use super::repair::{HeaderFacts, RepairError};
use super::repair_scan::{Header, Scanner};

/// Largest element of a header that is read.
const LARGEST: u64 = 256 << 10;
/// Elements looked at before the first cluster.
const MOST_ELEMENTS: usize = 32;

pub(super) fn read(scanner: &mut Scanner<'_>) -> Result<Header, RepairError> {
    let (ebml, _) = head_at(scanner, 0)?.ok_or(RepairError::NotMatroska)?;
    if ebml.id != id::EBML {
        return Err(RepairError::NotMatroska);
    }
    let segment_head_at =
        ebml.length + ebml.size.filter(|size| *size <= 4096).ok_or(RepairError::NotMatroska)?;
    let Some((segment, _)) = head_at(scanner, segment_head_at)? else {
        return Err(RepairError::TornHeader { at: segment_head_at });
    };
    if segment.id != id::SEGMENT {
        return Err(RepairError::TornHeader { at: segment_head_at });
    }
    if segment.length != 12 {
        return Err(RepairError::Foreign { what: "the segment's size is not eight bytes long" });
    }
    let segment_at = segment_head_at + segment.length;
    let mut layout = Layout {
        segment_size_at: segment_at - 8,
        segment_at,
        seek_at: None,
        duration_at: None,
        info_at: 0,
        tracks_at: 0,
        tags_at: None,
    };
    let mut facts = HeaderFacts::default();
    let mut duration_s = None;
    let mut seek_head = None;
    let mut at = segment_at;
    for _ in 0..MOST_ELEMENTS {
        let Some((head, _)) = head_at(scanner, at)? else { break };
        let Some(size) = head.size else { break };
        let end = at.saturating_add(head.length).saturating_add(size);
        let known = matches!(head.id, id::SEEK_HEAD | id::VOID | id::INFO | id::TRACKS | id::TAGS);
        if !known || size > LARGEST || end > scanner.length() {
            break;
        }
        match head.id {
            id::SEEK_HEAD => seek_head = Some(at),
            id::VOID => {}
            _ => {
                let mut body = vec![0; size as usize];
                if scanner.read(at + head.length, &mut body)? < body.len() {
                    break;
                }
                match head.id {
                    id::INFO => {
                        layout.info_at = at;
                        let found = duration(&body);
                        layout.duration_at = found.map(|(offset, _)| at + head.length + offset);
                        duration_s = found.and_then(|(_, seconds)| seconds);
                    }
                    id::TRACKS => {
                        layout.tracks_at = at;
                        facts.codec_id = codec_id(&body).unwrap_or_default();
                    }
                    _ => {
                        layout.tags_at = Some(at);
                        tags(&body, &mut facts);
                    }
                }
            }
        }
        at = end;
        if seek_head.is_some_and(|from| at - from == SEEK_REGION as u64) {
            layout.seek_at = seek_head;
        }
    }
    if layout.info_at == 0 || layout.tracks_at == 0 {
        return Err(RepairError::TornHeader { at });
    }
    if facts.codec_id.is_empty() {
        return Err(RepairError::Foreign { what: "no codec is named" });
    }
    Ok(Header { layout, segment_size: segment.size, duration_s, facts, end: at })
}

fn head_at(scanner: &mut Scanner<'_>, at: u64) -> Result<Option<(Head, usize)>, RepairError> {
    let mut bytes = [0; 12];
    let count = scanner.read(at, &mut bytes)?;
    Ok(read_head(&bytes[..count]).map(|head| (head, count)))
}

/// The whole children of a master element, with their offsets; stops at what is not one.
fn children(body: &[u8]) -> impl Iterator<Item = (u64, Head, &[u8])> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let head = read_head(body.get(at..)?)?;
        let from = at.checked_add(head.length as usize)?;
        let to = from.checked_add(usize::try_from(head.size?).ok()?)?;
        let child = (at as u64, head, body.get(from..to)?);
        at = to;
        Some(child)
    })
}

fn child(body: &[u8], wanted: u32) -> Option<&[u8]> {
    children(body).find(|(_, head, _)| head.id == wanted).map(|(_, _, body)| body)
}

/// Offset of the duration or of the room kept for it, and its value in seconds.
fn duration(info: &[u8]) -> Option<(u64, Option<f64>)> {
    let scale = child(info, id::TIMESTAMP_SCALE).and_then(read_unsigned);
    if scale != Some(1_000_000) {
        return None;
    }
    children(info).find_map(|(offset, head, body)| {
        if head.length as usize + body.len() != DURATION_LENGTH {
            return None;
        }
        match head.id {
            id::VOID => Some((offset, None)),
            id::DURATION => {
                let bytes: [u8; 8] = body.try_into().ok()?;
                let seconds = f64::from_be_bytes(bytes) / 1000.0;
                Some((offset, (seconds.is_finite() && seconds > 0.0).then_some(seconds)))
            }
            _ => None,
        }
    })
}

fn codec_id(tracks: &[u8]) -> Option<String> {
    text(child(child(tracks, id::TRACK_ENTRY)?, id::CODEC_ID)?)
}

fn tags(body: &[u8], facts: &mut HeaderFacts) {
    let Some(tag) = child(body, id::TAG) else { return };
    for (_, head, simple) in children(tag).take(64) {
        if head.id != id::SIMPLE_TAG {
            continue;
        }
        let value = child(simple, id::TAG_STRING).and_then(text);
        match child(simple, id::TAG_NAME) {
            Some(b"SESSION_ID") => facts.session_id = value,
            Some(b"PARTICIPANT") => facts.participant = value,
            Some(b"SOURCE") => facts.source = value,
            Some(b"START_S") => facts.start_s = value.and_then(|value| value.parse().ok()),
            _ => {}
        }
    }
}

fn text(bytes: &[u8]) -> Option<String> {
    (bytes.len() <= 1024).then(|| String::from_utf8_lossy(bytes).into_owned())
}
