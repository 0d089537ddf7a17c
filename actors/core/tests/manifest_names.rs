//! Names of folders and files, whatever a remote party calls itself.

use std::collections::HashMap;

use proptest::prelude::*;
use recorder_core::ids::ParticipantId;
use recorder_core::manifest::{Utc, media_file_name, participant_slug, room_folder, session_folder};
use recorder_core::media::{Codec, Source};

/// Names that have broken other programs.
const HOSTILE: [&str; 18] = [
    "",
    "/",
    "..",
    "../../etc/passwd",
    "\0",
    "a\0b",
    "CON",
    "nul",
    "COM1",
    "-rf",
    "--",
    "🎉🎉",
    "\u{202e}gnp.exe",
    "שלום עולם",
    "a\u{300}\u{301}",
    "ﬁ ﬂ Ⓐ",
    "..\\..\\windows",
    "trailing. ",
];

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        ".{0,80}",
        "[a-cA-C/._ -]{0,6}",
        prop::sample::select(&HOSTILE[..]).prop_map(str::to_owned),
        Just("é".repeat(10_000)),
        Just("e\u{301}".repeat(5_000)),
    ]
}

fn assert_slug(slug: &str) {
    use unicode_normalization::is_nfc;
    assert!(!slug.is_empty() && slug.len() <= 60, "{} bytes: {slug:?}", slug.len());
    assert!(!slug.starts_with('-') && !slug.ends_with('-'), "{slug:?}");
    assert!(slug.chars().all(|c| c.is_alphanumeric() || c == '-'), "{slug:?}");
    assert!(is_nfc(slug), "{slug:?}");
    let device = ["con", "prn", "aux", "nul"].contains(&slug.to_lowercase().as_str());
    assert!(!device, "{slug:?}");
}

proptest! {
    #[test]
    fn every_room_gets_a_safe_folder(name in name(), id in name()) {
        let folder = room_folder(Some(&name), &id);
        assert_slug(&folder);
        let hash = &folder[folder.len() - 8..];
        prop_assert!(hash.bytes().all(|b| b.is_ascii_hexdigit()));
    }

    #[test]
    fn every_participant_gets_a_safe_slug_that_ends_in_its_id(
        name in name(),
        user in name(),
        n in 1..5_000_u32,
    ) {
        let id = ParticipantId(format!("p{n}"));
        let slug = participant_slug(Some(&name), Some(&user), &id);
        assert_slug(&slug);
        prop_assert!(slug.ends_with(&format!("-p{n}")), "{}", slug);
    }

    #[test]
    fn foreign_participant_ids_are_as_safe(name in name(), id in name()) {
        assert_slug(&participant_slug(Some(&name), None, &ParticipantId(id)));
    }

    #[test]
    fn every_call_gets_a_safe_folder(call in name(), attempt in 0..100_u32) {
        let folder = session_folder(Utc::from_micros(1_795_359_845_123_456), &call, attempt);
        let call = folder.strip_prefix("20261122T150405Z_").expect("it begins with its start");
        assert_slug(call);
    }

    #[test]
    fn two_never_collide_without_regard_to_case(names in prop::collection::vec((name(), name()), 2..30)) {
        let start = Utc::from_micros(0);
        let mut rooms = HashMap::new();
        let mut calls = HashMap::new();
        let mut people = HashMap::new();
        for (index, (name, id)) in names.iter().enumerate() {
            if let Some(other) = rooms.insert(room_folder(Some(name), id).to_lowercase(), id) {
                prop_assert_eq!(other, id, "two rooms share a folder");
            }
            if let Some(other) = calls.insert(session_folder(start, id, 0).to_lowercase(), id) {
                prop_assert_eq!(other, id, "two calls share a folder");
            }
            let participant = ParticipantId(format!("p{}", index + 1));
            let slug = participant_slug(Some(name), None, &participant).to_lowercase();
            prop_assert!(people.insert(slug, index).is_none(), "two participants share a slug");
        }
    }
}

#[test]
fn names_are_what_the_contract_shows() {
    let p1 = ParticipantId::from("p1");
    let slug = participant_slug(Some("Ada Lovelace"), Some("@ada:example.org"), &p1);
    assert_eq!(slug, "Ada-Lovelace-p1");
    assert_eq!(
        media_file_name(&slug, Source::ScreenAudio, 3, Codec::Opus),
        "Ada-Lovelace-p1_screen-audio_0003.webm"
    );
    assert_eq!(media_file_name(&slug, Source::Camera, 1, Codec::H264), "Ada-Lovelace-p1_camera_0001.mkv");
    assert_eq!(participant_slug(None, Some("@grace.hopper:example.org"), &p1), "grace-hopper-p1");
    assert_eq!(participant_slug(Some("🎉"), Some("@ada:example.org"), &p1), "ada-p1");
    assert_eq!(participant_slug(None, None, &p1), "participant-p1");
    assert_eq!(room_folder(Some("Équipe A/B"), "!r:example.org"), "Équipe-A-B-7802310a");
    assert_eq!(room_folder(None, "!r:example.org"), "room-7802310a");
}

#[test]
fn another_attempt_is_another_folder() {
    let start = Utc::from_micros(0);
    assert_ne!(session_folder(start, "c", 0), session_folder(start, "c", 1));
}
