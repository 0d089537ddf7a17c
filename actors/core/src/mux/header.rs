//! Everything before the first cluster, laid out so that the end can fill in what was not known.

use super::ebml::{
    UNKNOWN_SIZE, id, put_bytes, put_float, put_id, put_size, put_size_in, put_unsigned, put_void,
};
use super::{AudioFormat, Patch, TrackHeader, VideoFormat, codec_private};
use crate::media::{Codec, MediaKind};

/// Bytes reserved for the `SeekHead`: four entries of 21 bytes, its head, and a `Void` of at least two.
pub(super) const SEEK_REGION: usize = 96;
/// Bytes of a `Duration` with its head, which a `Void` of the same length holds free.
pub(super) const DURATION_LENGTH: usize = 11;
/// Longest text of a header, bytes.
const MAX_TEXT: usize = 512;
/// Longest codec initialisation data.
const MAX_CODEC_PRIVATE: usize = 64 << 10;
/// Digits of the start tag, so that it can be replaced in place.
const START_DIGITS: usize = 20;
/// Seconds from 1970 to 2001, the zero of `DateUTC` (RFC 8794 §7.6).
const EPOCH_2001_S: i128 = 978_307_200;
/// Decoder convergence of Opus that players allow for after a seek, nanoseconds (RFC 7845 §4.6).
const OPUS_SEEK_PRE_ROLL_NS: u64 = 80_000_000;

/// Where in the file the things lie that are filled in later. Offsets count from the beginning of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// Eight bytes of the segment's size.
    pub segment_size_at: u64,
    /// First byte of the segment's body, to which positions within it refer.
    pub segment_at: u64,
    /// `SEEK_REGION` bytes.
    pub seek_at: Option<u64>,
    /// `DURATION_LENGTH` bytes.
    pub duration_at: Option<u64>,
    pub info_at: u64,
    pub tracks_at: u64,
    pub tags_at: Option<u64>,
}

impl Layout {
    /// The final size of the segment, for a file of `file_length` bytes.
    pub(super) fn segment_size(&self, file_length: u64) -> Patch {
        let mut bytes = Vec::with_capacity(8);
        put_size_in(&mut bytes, file_length.saturating_sub(self.segment_at), 8);
        Patch { offset: self.segment_size_at, bytes }
    }

    /// The duration, if it is one and there is room for it.
    pub(super) fn duration(&self, duration_s: f64) -> Option<Patch> {
        let offset = self.duration_at?;
        if !(duration_s.is_finite() && duration_s > 0.0) {
            return None;
        }
        let mut bytes = Vec::with_capacity(DURATION_LENGTH);
        put_float(&mut bytes, id::DURATION, duration_s * 1000.0);
        Some(Patch { offset, bytes })
    }

    /// The seek head, with the cues if they are known.
    pub(super) fn seek_head(&self, cues_at: Option<u64>) -> Option<Patch> {
        let offset = self.seek_at?;
        Some(Patch { offset, bytes: self.seek_region(cues_at) })
    }

    fn seek_region(&self, cues_at: Option<u64>) -> Vec<u8> {
        let mut body = Vec::with_capacity(SEEK_REGION);
        let entries = [
            (id::INFO, Some(self.info_at)),
            (id::TRACKS, Some(self.tracks_at)),
            (id::TAGS, self.tags_at),
            (id::CUES, cues_at),
        ];
        for (target, at) in entries {
            let Some(at) = at else { continue };
            let mut seek = Vec::with_capacity(18);
            put_bytes(&mut seek, id::SEEK_ID, &target.to_be_bytes());
            put_bytes(&mut seek, id::SEEK_POSITION, &at.saturating_sub(self.segment_at).to_be_bytes());
            put_bytes(&mut body, id::SEEK, &seek);
        }
        let mut region = Vec::with_capacity(SEEK_REGION);
        put_bytes(&mut region, id::SEEK_HEAD, &body);
        let rest = SEEK_REGION - region.len();
        put_void(&mut region, rest);
        region
    }
}

/// Writes the head of a file, which begins at `out`'s end. Returns the layout and where the start tag's
/// digits lie.
pub(super) fn write(header: &TrackHeader, out: &mut Vec<u8>) -> (Layout, u64) {
    let begin = out.len();
    let at = |out: &Vec<u8>| (out.len() - begin) as u64;

    let mut ebml = Vec::new();
    put_unsigned(&mut ebml, id::EBML_VERSION, 1);
    put_unsigned(&mut ebml, id::EBML_READ_VERSION, 1);
    put_unsigned(&mut ebml, id::EBML_MAX_ID_LENGTH, 4);
    put_unsigned(&mut ebml, id::EBML_MAX_SIZE_LENGTH, 8);
    let doc_type = if header.codec.extension() == "webm" { "webm" } else { "matroska" };
    put_bytes(&mut ebml, id::DOC_TYPE, doc_type.as_bytes());
    put_unsigned(&mut ebml, id::DOC_TYPE_VERSION, 4);
    put_unsigned(&mut ebml, id::DOC_TYPE_READ_VERSION, 2);
    put_bytes(out, id::EBML, &ebml);

    put_id(out, id::SEGMENT);
    let segment_size_at = at(out);
    out.extend_from_slice(&UNKNOWN_SIZE);
    let segment_at = at(out);

    let seek_from = out.len();
    out.resize(seek_from + SEEK_REGION, 0);

    let info_at = at(out);
    let mut info = Vec::new();
    put_unsigned(&mut info, id::TIMESTAMP_SCALE, 1_000_000);
    let duration_in_info = info.len();
    put_void(&mut info, DURATION_LENGTH);
    if let Some(micros) = header.epoch_utc_micros {
        let nanos = (i128::from(micros) * 1000) - EPOCH_2001_S * 1_000_000_000;
        if let Ok(nanos) = i64::try_from(nanos) {
            put_bytes(&mut info, id::DATE_UTC, &nanos.to_be_bytes());
        }
    }
    let title = clean(&header.title);
    if !title.is_empty() {
        put_bytes(&mut info, id::TITLE, title.as_bytes());
    }
    let writing_app = clean(&header.writing_app);
    put_bytes(&mut info, id::MUXING_APP, concat!("recorder-core ", env!("CARGO_PKG_VERSION")).as_bytes());
    put_bytes(&mut info, id::WRITING_APP, writing_app.as_bytes());
    put_id(out, id::INFO);
    put_size(out, info.len() as u64);
    let duration_at = at(out) + duration_in_info as u64;
    out.extend_from_slice(&info);

    let tracks_at = at(out);
    let mut tracks = Vec::new();
    put_bytes(&mut tracks, id::TRACK_ENTRY, &track_entry(header));
    put_bytes(out, id::TRACKS, &tracks);

    let tags_at = at(out);
    let mut tag = Vec::new();
    let mut targets = Vec::new();
    put_unsigned(&mut targets, id::TARGET_TYPE_VALUE, 50);
    put_bytes(&mut tag, id::TARGETS, &targets);
    simple_tag(&mut tag, "SESSION_ID", &clean(&header.session_id));
    simple_tag(&mut tag, "PARTICIPANT", &clean(&header.participant));
    simple_tag(&mut tag, "SOURCE", &clean(&header.source));
    simple_tag(&mut tag, "START_S", &start_digits(header.provisional_start_s));
    let mut tags = Vec::new();
    put_bytes(&mut tags, id::TAG, &tag);
    put_bytes(out, id::TAGS, &tags);
    // The digits are the last bytes of the last tag.
    let start_at = at(out) - START_DIGITS as u64;

    let layout = Layout {
        segment_size_at,
        segment_at,
        seek_at: Some(segment_at),
        duration_at: Some(duration_at),
        info_at,
        tracks_at,
        tags_at: Some(tags_at),
    };
    out[seek_from..seek_from + SEEK_REGION].copy_from_slice(&layout.seek_region(None));
    (layout, start_at)
}

/// Seconds with six decimals in `START_DIGITS` characters.
pub(super) fn start_digits(start_s: f64) -> String {
    // 13 digits before the point hold 300,000 years.
    let start_s = if start_s.is_finite() { start_s.clamp(0.0, 9_999_999_999.0) } else { 0.0 };
    format!("{start_s:0START_DIGITS$.6}")
}

fn simple_tag(out: &mut Vec<u8>, name: &str, value: &str) {
    let mut tag = Vec::new();
    put_bytes(&mut tag, id::TAG_NAME, name.as_bytes());
    put_bytes(&mut tag, id::TAG_STRING, value.as_bytes());
    put_bytes(out, id::SIMPLE_TAG, &tag);
}

fn track_entry(header: &TrackHeader) -> Vec<u8> {
    let mut entry = Vec::new();
    let kind = header.codec.kind();
    put_unsigned(&mut entry, id::TRACK_NUMBER, 1);
    put_unsigned(&mut entry, id::TRACK_UID, header.track_uid.max(1));
    put_unsigned(&mut entry, id::TRACK_TYPE, if kind == MediaKind::Video { 1 } else { 2 });
    put_unsigned(&mut entry, id::FLAG_LACING, 0);
    put_bytes(&mut entry, id::LANGUAGE, b"und");
    let name = clean(&header.source);
    if !name.is_empty() {
        put_bytes(&mut entry, id::NAME, name.as_bytes());
    }
    put_bytes(&mut entry, id::CODEC_ID, codec_id(header.codec).as_bytes());
    match kind {
        MediaKind::Audio => {
            let audio = header.audio.unwrap_or(AudioFormat { channels: 2, sample_rate: 48_000 });
            let private = header.codec_private.clone();
            let private =
                private.unwrap_or_else(|| codec_private::opus_head(audio.channels, audio.sample_rate));
            put_private(&mut entry, &private);
            put_unsigned(&mut entry, id::CODEC_DELAY, 0);
            put_unsigned(&mut entry, id::SEEK_PRE_ROLL, OPUS_SEEK_PRE_ROLL_NS);
            let mut body = Vec::new();
            put_float(&mut body, id::SAMPLING_FREQUENCY, f64::from(audio.sample_rate.max(1)));
            put_unsigned(&mut body, id::CHANNELS, u64::from(audio.channels.max(1)));
            put_bytes(&mut entry, id::AUDIO, &body);
        }
        MediaKind::Video => {
            if let Some(private) = &header.codec_private {
                put_private(&mut entry, private);
            }
            // The size is mandatory and not 0; a decoder takes the true one from the stream.
            let video = header.video.unwrap_or(VideoFormat { width: 640, height: 360 });
            let mut body = Vec::new();
            put_unsigned(&mut body, id::PIXEL_WIDTH, u64::from(video.width.max(1)));
            put_unsigned(&mut body, id::PIXEL_HEIGHT, u64::from(video.height.max(1)));
            put_bytes(&mut entry, id::VIDEO, &body);
        }
    }
    entry
}

fn put_private(entry: &mut Vec<u8>, private: &[u8]) {
    if !private.is_empty() && private.len() <= MAX_CODEC_PRIVATE {
        put_bytes(entry, id::CODEC_PRIVATE, private);
    }
}

/// As registered in the Matroska codec specifications.
fn codec_id(codec: Codec) -> &'static str {
    match codec {
        Codec::Opus => "A_OPUS",
        Codec::Vp8 => "V_VP8",
        Codec::Vp9 => "V_VP9",
        Codec::Av1 => "V_AV1",
        Codec::H264 => "V_MPEG4/ISO/AVC",
        Codec::H265 => "V_MPEGH/ISO/HEVC",
    }
}

/// Text without control characters, cut at `MAX_TEXT` bytes between two characters. A NUL would end it for
/// readers.
fn clean(text: &str) -> String {
    let mut clean = String::new();
    for character in text.chars().filter(|character| !character.is_control()) {
        if clean.len() + character.len_utf8() > MAX_TEXT {
            break;
        }
        clean.push(character);
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_title_is_cut_between_characters_and_has_no_controls() {
        let title = "\0\u{1b}[31m".to_owned() + &"é".repeat(10_000);
        let clean = clean(&title);
        assert!(clean.len() <= MAX_TEXT && clean.starts_with("[31mé"), "{clean}");
    }

    #[test]
    fn a_start_has_always_the_same_length() {
        for start in [0.0, 1.5, 86_400.123_456_7, -3.0, f64::NAN, f64::INFINITY, 1e300] {
            assert_eq!(start_digits(start).len(), START_DIGITS, "{start}");
        }
        assert_eq!(start_digits(12.25).parse::<f64>().unwrap(), 12.25);
    }
}
