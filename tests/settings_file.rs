//! The configuration file in the repository is the documentation: these tests keep it true.

#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

use std::path::Path;

use matrix_call_recorder::settings::{KEYS, Settings};

fn documented() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/recorder.toml");
    std::fs::read_to_string(path).unwrap()
}

/// A commented key is `#key = value`; prose has a space after the sign.
fn uncommented(text: &str) -> String {
    text.lines()
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if rest.starts_with(|c: char| c.is_ascii_lowercase()) => rest,
            _ => line,
        })
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn the_documented_file_with_every_key_in_force_is_the_default() {
    let (settings, faults) = Settings::parse(&uncommented(&documented()), &[]).unwrap();
    assert_eq!(faults.0, []);
    let mut expected = Settings::default();
    expected.matrix.homeserver = "https://matrix.example.org".into();
    expected.matrix.user = "@recorder:example.org".into();
    assert_eq!(settings, expected);
}

#[test]
fn the_documented_file_holds_every_key_once_and_in_order() {
    let mut section = String::new();
    let mut found = Vec::new();
    for line in uncommented(&documented()).lines() {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']').to_owned();
        } else if let Some((key, _)) = line.split_once(" = ").filter(|_| !line.starts_with('#')) {
            found.push(format!("{section}.{key}"));
        }
    }
    assert_eq!(found, KEYS);
}

#[test]
fn the_documented_file_as_it_stands_sets_nothing() {
    let (settings, faults) = Settings::parse(&documented(), &[]).unwrap();
    assert_eq!((settings, faults.0), (Settings::default(), vec![]));
}
