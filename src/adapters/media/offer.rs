//! Reading a remote offer before the WebRTC stack sees it.
//!
//! The stack refuses a whole description for one line it does not know, so an offer is first read leniently: what the
//! recorder can use is handed on, what it cannot use becomes a rejected m-line at the same index, and what the tree must
//! know of each m-line (direction, MediaStream id, announced sources) is taken from the text. Pure: text in, values out.

use recorder_actors::ports::{Direction, MediaError};
use recorder_core::media::{Codec, MediaKind};

/// Bytes of an offer that are looked at; a longer one is refused.
pub const MAX_OFFER_BYTES: usize = 1 << 20;
/// m-lines of an offer; one with more is refused.
pub const MAX_LINES: usize = 1024;
/// m-lines that may carry media; those beyond are rejected one by one (port 0).
pub const MAX_MEDIA_LINES: usize = 128;
/// Announced sources (`a=ssrc`) kept of one m-line.
pub const MAX_SOURCES: usize = 8;

/// An offer (or an answer to an offer of ours) as the recorder understands it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offer {
    /// What the WebRTC stack gets: unsupported m-lines disabled, receive-only turned round, candidates taken out.
    pub sdp: String,
    pub lines: Vec<Line>,
    /// Values of `a=candidate` in order, without `a=`.
    pub candidates: Vec<String>,
    /// First `a=ice-ufrag`: another one in a later offer is an ICE restart (RFC 8839 §4.4.1.1.1).
    pub ufrag: Option<String>,
    /// The m-line on which we send.
    pub sent: Option<Sent>,
}

/// The m-line that carries our own video.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Index of the m-line.
    pub index: usize,
    /// MediaStream id to name in our description (RFC 8830).
    pub stream: String,
}

impl Offer {
    /// Has the stack see an m-line's direction as it is, so that it sends there where it may.
    pub fn send_on(&mut self, index: usize, stream: &str) {
        let Some(line) = self.lines.get(index) else { return };
        let direction = match line.direction {
            Direction::SendRecv => "a=sendrecv",
            Direction::SendOnly => "a=sendonly",
            Direction::RecvOnly => "a=recvonly",
            Direction::Inactive => "a=inactive",
        };
        let mut sections = 0;
        let mut sdp = String::with_capacity(self.sdp.len());
        for text in self.sdp.lines() {
            sections += usize::from(text.starts_with("m="));
            let replaced = sections == index + 1 && direction_of(text).is_some();
            sdp.push_str(if replaced { direction } else { text });
            sdp.push_str("\r\n");
        }
        self.sdp = sdp;
        self.sent = Some(Sent { index, stream: stream.to_owned() });
    }
}

/// One m-line of the offer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// `audio`, `video`, `application` or whatever the offer says.
    pub media: String,
    pub proto: String,
    /// Payload types (or other formats), in the offerer's order of preference.
    pub formats: Vec<String>,
    pub mid: Option<String>,
    pub direction: Direction,
    /// First token of `a=msid` (RFC 8830), or of the older `a=ssrc:… msid:`; absent for `-`.
    pub msid_stream: Option<String>,
    pub usage: Usage,
    /// Announced main SSRCs with the SSRC that repeats them (`a=ssrc-group:FID`, RFC 5576 §4.2).
    pub sources: Vec<(u32, Option<u32>)>,
    /// `a=rtpmap` of the payload types that name a codec that can be recorded.
    pub codecs: Vec<(u8, Codec)>,
}

/// What becomes of an m-line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    Media(MediaKind),
    /// A data channel: accepted and never used.
    Data,
    /// Port 0 in the answer.
    Rejected,
}

impl Line {
    pub fn kind(&self) -> Option<MediaKind> {
        match self.usage {
            Usage::Media(kind) => Some(kind),
            Usage::Data | Usage::Rejected => None,
        }
    }

    /// The m-line may bring media now.
    pub fn sends(&self) -> bool {
        self.kind().is_some() && self.direction.sends()
    }

    /// The remote side is ready to receive on it.
    pub fn receives(&self) -> bool {
        self.kind().is_some() && matches!(self.direction, Direction::SendRecv | Direction::RecvOnly)
    }
}

/// Codec named by an `a=rtpmap` encoding name, compared without case (RFC 8866 §6.6).
pub fn codec_of(name: &str) -> Option<Codec> {
    Some(match name.to_ascii_lowercase().as_str() {
        "opus" => Codec::Opus,
        "vp8" => Codec::Vp8,
        "vp9" => Codec::Vp9,
        "av1" => Codec::Av1,
        "h264" => Codec::H264,
        "h265" => Codec::H265,
        _ => return None,
    })
}

fn direction_of(line: &str) -> Option<Direction> {
    Some(match line {
        "a=sendrecv" => Direction::SendRecv,
        "a=sendonly" => Direction::SendOnly,
        "a=recvonly" => Direction::RecvOnly,
        "a=inactive" => Direction::Inactive,
        _ => return None,
    })
}

/// Reads an offer.
///
/// # Errors
/// [`MediaError::BadOffer`] when the text is no session description or breaks a bound of this module;
/// [`MediaError::NothingToRecord`] when no m-line is audio or video with a codec that can be recorded.
pub fn read(text: &str) -> Result<Offer, MediaError> {
    read_as(text, true)
}

/// Reads an answer to an offer of ours.
///
/// # Errors
/// As [`read`]; an answer that sends nothing is none, one that rejects everything is.
pub fn read_answer(text: &str) -> Result<Offer, MediaError> {
    read_as(text, false)
}

fn read_as(text: &str, is_offer: bool) -> Result<Offer, MediaError> {
    if text.len() > MAX_OFFER_BYTES {
        return Err(bad(format!("{} bytes, more than {MAX_OFFER_BYTES}", text.len())));
    }
    if text.contains('\0') {
        return Err(bad("it contains a NUL"));
    }
    let mut sections = split_sections(text);
    if !sections.first().is_some_and(|session| session.first().is_some_and(|line| line.starts_with("v=0"))) {
        return Err(bad("no session description"));
    }
    let session = sections.remove(0);
    if sections.is_empty() {
        return Err(MediaError::NothingToRecord);
    }
    if sections.len() > MAX_LINES {
        return Err(bad(format!("{} m-lines, more than {MAX_LINES}", sections.len())));
    }
    let session_direction = session.iter().find_map(|line| direction_of(line)).unwrap_or(Direction::SendRecv);
    let mut media_lines = 0;
    let mut lines = Vec::with_capacity(sections.len());
    for section in &sections {
        let mut line = read_section(section, session_direction)?;
        if line.usage != Usage::Rejected {
            media_lines += 1;
            if media_lines > MAX_MEDIA_LINES {
                line.usage = Usage::Rejected;
            }
        }
        lines.push(line);
    }
    check_mids(&lines)?;
    if !lines.iter().any(|line| line.kind().is_some()) {
        return Err(MediaError::NothingToRecord);
    }
    let attributes = || std::iter::once(&session).chain(&sections).flatten();
    let candidates =
        attributes().filter_map(|line| line.strip_prefix("a=")).filter(|line| line.starts_with("candidate:"));
    let ufrag = attributes().find_map(|line| line.strip_prefix("a=ice-ufrag:")).map(str::to_owned);
    Ok(Offer {
        sdp: write_for_stack(&session, &sections, &lines, is_offer),
        candidates: candidates.map(str::to_owned).collect(),
        lines,
        ufrag,
        sent: None,
    })
}

fn bad(why: impl Into<String>) -> MediaError {
    MediaError::BadOffer(why.into())
}

/// The session part first, then one part for each m-line.
fn split_sections(text: &str) -> Vec<Vec<&str>> {
    let mut sections: Vec<Vec<&str>> = vec![Vec::new()];
    for line in text.lines().map(str::trim_end).filter(|line| !line.is_empty()) {
        if line.starts_with("m=") {
            sections.push(Vec::new());
        }
        if let Some(section) = sections.last_mut() {
            section.push(line);
        }
    }
    sections
}

fn read_section(section: &[&str], session_direction: Direction) -> Result<Line, MediaError> {
    let mut head = section.first().and_then(|line| line.strip_prefix("m=")).unwrap_or_default().split(' ');
    let (Some(media), Some(port), Some(proto)) = (head.next(), head.next(), head.next()) else {
        return Err(bad("an m-line without port or protocol"));
    };
    let formats: Vec<String> = head.filter(|token| !token.is_empty()).map(str::to_owned).collect();
    let mut line = Line {
        media: media.to_owned(),
        proto: proto.to_owned(),
        formats,
        mid: None,
        direction: session_direction,
        msid_stream: None,
        usage: Usage::Rejected,
        sources: Vec::new(),
        codecs: Vec::new(),
    };
    let mut bundle_only = false;
    let mut repairs: Vec<(u32, u32)> = Vec::new();
    for attribute in section {
        if let Some(direction) = direction_of(attribute) {
            line.direction = direction;
        } else if let Some(mid) = attribute.strip_prefix("a=mid:") {
            line.mid = Some(mid.to_owned());
        } else if let Some(msid) = attribute.strip_prefix("a=msid:") {
            line.msid_stream = stream_id(msid);
        } else if let Some(map) = attribute.strip_prefix("a=rtpmap:") {
            if let Some(entry) = read_rtpmap(map) {
                line.codecs.push(entry);
            }
        } else if let Some(group) = attribute.strip_prefix("a=ssrc-group:FID ") {
            let mut ssrcs = group.split(' ').filter_map(|ssrc| ssrc.parse().ok());
            if let (Some(main), Some(repair)) = (ssrcs.next(), ssrcs.next())
                && repairs.len() < MAX_SOURCES
            {
                repairs.push((main, repair));
            }
        } else if let Some(source) = attribute.strip_prefix("a=ssrc:") {
            read_source(source, &mut line);
        } else if *attribute == "a=bundle-only" {
            bundle_only = true;
        }
    }
    let repeating = |ssrc: u32| repairs.iter().any(|(_, repair)| *repair == ssrc);
    line.sources.retain(|(ssrc, _)| !repeating(*ssrc));
    for (ssrc, repair) in &mut line.sources {
        *repair = repairs.iter().find(|(main, _)| main == ssrc).map(|(_, repair)| *repair);
    }
    let open = port != "0" || bundle_only;
    let kind = match media {
        "audio" => Some(MediaKind::Audio),
        "video" => Some(MediaKind::Video),
        _ => None,
    };
    line.codecs.retain(|(_, codec)| Some(codec.kind()) == kind);
    line.usage = match (kind, media) {
        _ if !open => Usage::Rejected,
        (Some(kind), _) if !line.codecs.is_empty() && proto.contains("RTP/SAVP") => Usage::Media(kind),
        (None, "application") if proto.contains("DTLS/SCTP") => Usage::Data,
        _ => Usage::Rejected,
    };
    Ok(line)
}

fn stream_id(msid: &str) -> Option<String> {
    msid.split(' ').next().filter(|id| !id.is_empty() && *id != "-").map(str::to_owned)
}

fn read_rtpmap(map: &str) -> Option<(u8, Codec)> {
    let (payload_type, encoding) = map.split_once(' ')?;
    let codec = codec_of(encoding.split('/').next()?)?;
    Some((payload_type.parse().ok().filter(|number| *number < 128)?, codec))
}

fn read_source(source: &str, line: &mut Line) {
    let (ssrc, attribute) = source.split_once(' ').unwrap_or((source, ""));
    let Ok(ssrc) = ssrc.parse() else { return };
    if line.sources.len() < 2 * MAX_SOURCES && !line.sources.iter().any(|(known, _)| *known == ssrc) {
        line.sources.push((ssrc, None));
    }
    if line.msid_stream.is_none() {
        line.msid_stream = attribute.strip_prefix("msid:").and_then(stream_id);
    }
}

/// Streams are told apart by mid, so that each must have one, and as the RTP header extension carries it.
fn check_mids(lines: &[Line]) -> Result<(), MediaError> {
    let mut seen = std::collections::HashSet::new();
    for line in lines {
        match &line.mid {
            None if line.usage == Usage::Rejected => {}
            None => return Err(bad("an m-line without a=mid")),
            Some(mid) if mid.is_empty() || mid.len() > 16 => {
                return Err(bad("an a=mid not of 1 to 16 characters"));
            }
            Some(mid) => {
                if !seen.insert(stack_mid(mid)) {
                    return Err(bad("two m-lines with the same a=mid"));
                }
            }
        }
    }
    Ok(())
}

/// A mid as the stack writes it: what is neither letter nor digit becomes an underscore.
pub fn stack_mid(mid: &str) -> String {
    mid.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
}

fn write_for_stack(session: &[&str], sections: &[Vec<&str>], lines: &[Line], is_offer: bool) -> String {
    let mut out = String::new();
    let mut push = |line: &str| {
        out.push_str(line);
        out.push_str("\r\n");
    };
    let keep = |line: &str| {
        direction_of(line).is_none()
            && !line.starts_with("a=candidate:")
            && !line.starts_with("a=end-of-candidates")
            && !line.starts_with("a=group:")
            && !line.starts_with("a=msid")
    };
    for line in session.iter().filter(|line| keep(line)) {
        push(line);
    }
    let mids: Vec<String> = lines
        .iter()
        .filter(|line| line.usage != Usage::Rejected)
        .filter_map(|line| line.mid.as_deref().map(stack_mid))
        .collect();
    push(&format!("a=group:BUNDLE {}", mids.join(" ")));
    for (index, (section, line)) in sections.iter().zip(lines).enumerate() {
        let mid = line.mid.as_deref().map_or_else(|| format!("rejected{index}"), stack_mid);
        if line.usage == Usage::Rejected {
            // A disabled line keeps the index; its real kind and formats come back in the answer.
            push("m=audio 0 UDP/TLS/RTP/SAVPF 0");
            push("c=IN IP4 0.0.0.0");
            push(&format!("a=mid:{mid}"));
            push("a=inactive");
            for attribute in
                section.iter().filter(|a| a.starts_with("a=ice-") || a.starts_with("a=fingerprint:"))
            {
                push(attribute);
            }
            // Of an answer the stack takes the DTLS role from the first m-line that tells one, which this is not to be.
            if is_offer {
                push("a=setup:actpass");
            }
            push("a=rtcp-mux");
            continue;
        }
        let head = format!("m={} 9 {} {}", line.media, line.proto, line.formats.join(" "));
        push(&head);
        for attribute in section.iter().skip(1).filter(|attribute| keep(attribute)) {
            if let Some(source) = attribute.strip_prefix("a=ssrc:") {
                let ssrc = source.split(' ').next().and_then(|ssrc| ssrc.parse::<u32>().ok());
                let known =
                    |ssrc| line.sources.iter().any(|(main, repair)| *main == ssrc || *repair == Some(ssrc));
                // One attribute of each source is enough; a source without cname would be refused.
                if !ssrc.is_some_and(known) || !source.contains(" cname:") {
                    continue;
                }
            }
            if attribute.starts_with("a=mid:") {
                push(&format!("a=mid:{mid}"));
            } else {
                push(attribute);
            }
        }
        if line.usage != Usage::Data {
            // The stack answers what it is asked: who may send is to be answered with "receive only".
            push(if line.direction.sends() { "a=sendonly" } else { "a=inactive" });
        }
    }
    out
}
