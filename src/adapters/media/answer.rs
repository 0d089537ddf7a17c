//! The text of our answers and offers, edited in one place.
//!
//! The WebRTC stack writes a correct description but has no field for some of what the recorder asks of a sender: the bitrate of
//! Opus, negative acknowledgements for audio, the bitrate at which video starts, the offerer's order of codecs. Pure: text
//! and values in, text out.

use recorder_actors::ports::MediaError;
use recorder_core::media::{Codec, MediaKind};

use super::offer::{Line, Offer, Usage, codec_of, stack_mid};

/// What the answer asks of the sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quality {
    /// `maxaveragebitrate` of Opus in bit/s (RFC 7587 §6.1).
    pub opus_bitrate: u32,
    /// `x-google-start-bitrate` of video in kbit/s, understood by Chromium and ignored by others.
    pub video_start_kbps: u32,
}

/// The answer, and which payload types it accepted on each m-line of the offer (none for a rejected one).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    pub sdp: String,
    /// By index of the m-line, in the offerer's order of preference.
    pub accepted: Vec<Vec<(u8, Codec)>>,
}

/// Turns the stack's answer into ours; so does it with an offer of the stack, `offer` being the same offer as read back.
///
/// `candidates` are candidate attributes without `a=`; they go into the first accepted m-line, which carries the bundle.
///
/// # Errors
/// [`MediaError::BadOffer`] if the stack's answer does not have the offer's m-lines; [`MediaError::NothingToRecord`] if it
/// accepted no audio and no video.
pub fn write(
    stack: &str,
    offer: &Offer,
    candidates: &[String],
    quality: Quality,
) -> Result<Written, MediaError> {
    let mut sections: Vec<Vec<&str>> = vec![Vec::new()];
    for line in stack.lines().map(str::trim_end).filter(|line| !line.is_empty()) {
        if line.starts_with("m=") {
            sections.push(Vec::new());
        }
        if let Some(section) = sections.last_mut() {
            section.push(line);
        }
    }
    let session = sections.remove(0);
    if sections.len() != offer.lines.len() {
        return Err(MediaError::BadOffer("its m-lines cannot be answered one by one".to_owned()));
    }
    let accepted: Vec<Vec<(u8, Codec)>> =
        sections.iter().zip(&offer.lines).map(|(section, line)| accepted_codecs(section, line)).collect();
    if accepted.iter().all(Vec::is_empty) {
        return Err(MediaError::NothingToRecord);
    }
    let is_open = |index: usize| !accepted[index].is_empty() || offer.lines[index].usage == Usage::Data;

    let mut out = String::with_capacity(stack.len() + 1024);
    let mut push = |line: &str| {
        out.push_str(line);
        out.push_str("\r\n");
    };
    for line in
        session.iter().filter(|line| !line.starts_with("a=group:") && !line.starts_with("a=msid-semantic"))
    {
        push(line);
    }
    let open_mids: Vec<&str> = (0..sections.len())
        .filter(|&index| is_open(index))
        .filter_map(|index| offer.lines[index].mid.as_deref())
        .collect();
    push(&format!("a=group:BUNDLE {}", open_mids.join(" ")));

    let mut candidates = Some(candidates);
    for (index, (section, line)) in sections.iter().zip(&offer.lines).enumerate() {
        if !is_open(index) {
            for text in rejected(line) {
                push(&text);
            }
            continue;
        }
        let sent = offer.sent.as_ref().filter(|sent| sent.index == index).map(|sent| sent.stream.as_str());
        for text in open(section, line, &accepted[index], quality, sent) {
            push(&text);
        }
        for candidate in candidates.take().unwrap_or_default() {
            push(&format!("a={candidate}"));
        }
    }
    Ok(Written { sdp: out, accepted })
}

/// `pt` of `a=<name>:<pt> …`.
fn payload_type(line: &str, name: &str) -> Option<u8> {
    line.strip_prefix("a=")?.strip_prefix(name)?.strip_prefix(':')?.split(' ').next()?.parse().ok()
}

fn rank(line: &Line, payload_type: &str) -> usize {
    line.formats.iter().position(|format| format == payload_type).unwrap_or(usize::MAX)
}

fn accepted_codecs(section: &[&str], line: &Line) -> Vec<(u8, Codec)> {
    let Some(kind) = line.kind() else { return Vec::new() };
    if section.first().is_none_or(|head| head.split(' ').nth(1) == Some("0")) {
        return Vec::new();
    }
    let mut codecs: Vec<(u8, Codec)> = section
        .iter()
        .filter_map(|text| {
            let number = payload_type(text, "rtpmap")?;
            let codec = codec_of(text.split_once(' ')?.1.split('/').next()?)?;
            (codec.kind() == kind).then_some((number, codec))
        })
        .collect();
    codecs.sort_by_key(|(number, _)| rank(line, &number.to_string()));
    codecs
}

/// An m-line refused as RFC 3264 §6 asks: the same kind, protocol and formats with port 0.
fn rejected(line: &Line) -> Vec<String> {
    let formats = if line.formats.is_empty() { "0".to_owned() } else { line.formats.join(" ") };
    let mut texts =
        vec![format!("m={} 0 {} {formats}", line.media, line.proto), "c=IN IP4 0.0.0.0".to_owned()];
    texts.extend(line.mid.as_ref().map(|mid| format!("a=mid:{mid}")));
    texts.push("a=inactive".to_owned());
    texts
}

/// `sent` is the MediaStream id of what we send there, if the m-line is ours to send on.
fn open(
    section: &[&str],
    line: &Line,
    codecs: &[(u8, Codec)],
    quality: Quality,
    sent: Option<&str>,
) -> Vec<String> {
    let sent = sent.filter(|_| section.iter().any(|text| matches!(*text, "a=sendrecv" | "a=sendonly")));
    let codec_for = |number: u8| codecs.iter().find(|(known, _)| *known == number).map(|(_, codec)| *codec);
    let mid = line.mid.clone().unwrap_or_default();
    let mut has_fmtp = Vec::new();
    let mut texts = Vec::with_capacity(section.len() + 8);
    for (index, text) in section.iter().enumerate() {
        if index == 0 && line.kind().is_some() {
            texts.push(ordered_head(text, line));
        } else if text.strip_prefix("a=mid:").is_some_and(|written| written == stack_mid(&mid)) {
            texts.push(format!("a=mid:{mid}"));
        } else if let Some(text) = sent.and_then(|stream| source_of(text, stream)) {
            texts.push(text);
        } else if ["a=msid", "a=ssrc", "a=candidate:", "a=end-of-candidates"]
            .iter()
            .any(|drop| text.starts_with(drop))
        {
            // A receiver has no stream of its own to name, and the candidates come once, from us.
        } else if let Some((number, codec)) =
            payload_type(text, "fmtp").and_then(|number| Some((number, codec_for(number)?)))
        {
            has_fmtp.push(number);
            let given = text.split_once(' ').map_or("", |(_, parameters)| parameters);
            texts.push(format!("a=fmtp:{number} {}", parameters(codec, given, quality)));
        } else {
            texts.push((*text).to_owned());
        }
    }
    for &(number, codec) in codecs {
        if !has_fmtp.contains(&number) {
            texts.push(format!("a=fmtp:{number} {}", parameters(codec, "", quality)));
        }
        let nack = format!("a=rtcp-fb:{number} nack");
        if codec.kind() == MediaKind::Audio && !texts.contains(&nack) {
            // Same SSRC, no RTX: Chromium and Firefox retransmit audio when the answer asks for it.
            texts.push(nack);
        }
    }
    texts
}

/// What tells of our own stream: its ids (RFC 8830) and sources (RFC 5576), without the old form of the ids in each source.
fn source_of(text: &str, stream: &str) -> Option<String> {
    if let Some(msid) = text.strip_prefix("a=msid:") {
        let track = msid.split(' ').nth(1).unwrap_or("tile");
        return Some(format!("a=msid:{stream} {track}"));
    }
    let named = text.starts_with("a=ssrc:") && text.contains(" cname:");
    (named || text.starts_with("a=ssrc-group:")).then(|| text.to_owned())
}

/// The m-line with its payload types in the offerer's order, each followed by what belongs to it there.
fn ordered_head(head: &str, line: &Line) -> String {
    let mut tokens: Vec<&str> = head.split(' ').collect();
    if tokens.len() > 3 {
        tokens[3..].sort_by_key(|number| rank(line, number));
    }
    tokens.join(" ")
}

fn parameters(codec: Codec, given: &str, quality: Quality) -> String {
    match codec {
        // No usedtx: silence is to be sent like sound, so that a recording has no holes (RFC 7587 §7.1).
        Codec::Opus => format!(
            "minptime=10;useinbandfec=1;stereo=1;sprop-stereo=1;maxaveragebitrate={}",
            quality.opus_bitrate.clamp(6_000, 510_000)
        ),
        Codec::Vp8 | Codec::Vp9 | Codec::Av1 | Codec::H264 | Codec::H265 => {
            let start = format!("x-google-start-bitrate={}", quality.video_start_kbps);
            if given.is_empty() { start } else { format!("{given};{start}") }
        }
    }
}
