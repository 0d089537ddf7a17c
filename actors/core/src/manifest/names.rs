//! Names of folders and files. What a remote party chose never picks a path: it only colours a name of ours.

use sha2::{Digest, Sha256};
use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

use super::Utc;
use crate::ids::ParticipantId;
use crate::media::{Codec, Source};

/// The longest slug, in bytes.
const SLUG_BYTES: usize = 60;

/// A room's folder: its name and 8 hexadecimal digits of its id's SHA-256.
pub fn room_folder(room_name: Option<&str>, room_id: &str) -> String {
    with_suffix(room_name.unwrap_or_default(), "room", &digest(room_id))
}

/// A session's folder within its room's: when it began, and its call. Two call ids never share a name, also
/// where they differ in case or in what a name cannot hold. A replayed id within one second does: the creator
/// then takes another `attempt`, counted from 0.
pub fn session_folder(start: Utc, call_id: &str, attempt: u32) -> String {
    let mut suffix = digest(call_id);
    if attempt > 0 {
        suffix = format!("{suffix}-{attempt}");
    }
    format!("{}_{}", start.basic(), with_suffix(call_id, "call", &suffix))
}

/// A participant's part of file names: display name, else the user id's local part, and the participant's id.
pub fn participant_slug(display_name: Option<&str>, user_id: Option<&str>, id: &ParticipantId) -> String {
    let local_part = user_id.map(|id| id.trim_start_matches('@').split(':').next().unwrap_or_default());
    let names = [display_name, local_part].into_iter().flatten().map(|name| slug(name, SLUG_BYTES));
    let name = names.into_iter().find(|slug| !slug.is_empty()).unwrap_or_default();
    // Ids are ours and short; a foreign one in a repaired journal is not trusted to be.
    let is_ours =
        id.as_str().len() <= 12 && id.as_str().bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let suffix =
        if is_ours && !id.as_str().is_empty() { id.as_str().to_owned() } else { digest(id.as_str()) };
    with_suffix(&name, "participant", &suffix)
}

/// A media file's name. `number` counts from 1 the segments of this participant and source: of all its tracks
/// of that source, since two screens of one participant differ in nothing else.
pub fn media_file_name(participant_slug: &str, source: Source, number: u32, codec: Codec) -> String {
    format!("{participant_slug}_{}_{number:04}.{}", source.name(), codec.extension())
}

/// The participant's slug, the source's name and the number of a [media file's name](media_file_name).
pub fn parse_media_file_name(name: &str) -> Option<(&str, &str, u32)> {
    let (stem, _) = name.rsplit_once('.')?;
    let (rest, number) = stem.rsplit_once('_')?;
    let (slug, source) = rest.rsplit_once('_')?;
    Some((slug, source, number.parse().ok()?))
}

fn with_suffix(name: &str, otherwise: &str, suffix: &str) -> String {
    let slug = slug(name, SLUG_BYTES - 1 - suffix.len());
    let name = if slug.is_empty() { otherwise } else { &slug };
    format!("{name}-{suffix}")
}

/// 8 hexadecimal digits of a text's SHA-256.
fn digest(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().take(4).map(|byte| format!("{byte:02x}")).collect()
}

/// Letters and digits of the NFC form; whatever lies between them becomes one `-`, none at the ends. At most
/// `limit` bytes; may be empty.
fn slug(text: &str, limit: usize) -> String {
    let mut slug = String::new();
    // A name of megabytes is not worth normalising to its end.
    let text = &text[..text.floor_char_boundary(16 * SLUG_BYTES)];
    for character in text.nfc() {
        let gap = !is_letter_or_digit(character);
        if gap {
            if !slug.is_empty() && !slug.ends_with('-') {
                slug.push('-');
            }
            continue;
        }
        if slug.len() + character.len_utf8() > limit {
            break;
        }
        slug.push(character);
    }
    let end = slug.floor_char_boundary(limit);
    slug.truncate(end);
    slug.truncate(slug.trim_end_matches('-').len());
    slug
}

/// General categories L and N; the enclosed Latin letters are symbols that Unicode also calls alphabetic.
fn is_letter_or_digit(character: char) -> bool {
    let enclosed = matches!(character, '\u{24B6}'..='\u{24E9}' | '\u{1F130}'..='\u{1F189}');
    character.is_alphanumeric() && !is_combining_mark(character) && !enclosed
}
