//! Replays the corpora of the daemon's fuzz targets, whole and damaged, and cheap random bytes.

#[path = "fuzz/src/daemon_entries.rs"]
mod entries;

use std::path::{Path, PathBuf};

use matrix_call_recorder::adapters::media::candidates::{self, Remote};
use matrix_call_recorder::adapters::media::demux::binding_request_fragment;
use matrix_call_recorder::adapters::media::offer;
use matrix_call_recorder::adapters::media::turn::udp_host;

fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(target);
    let entries = std::fs::read_dir(&folder).expect("a corpus");
    let mut files: Vec<_> = entries.map(|entry| entry.expect("its entry").path()).collect();
    files.sort();
    files.into_iter().map(|path| (path.clone(), std::fs::read(path).expect("a file of a corpus"))).collect()
}

/// The same on every run.
fn random(seed: u64) -> impl Iterator<Item = u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    std::iter::repeat_with(move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u8
    })
}

#[test]
fn no_file_of_a_corpus_makes_its_target_panic() {
    for (name, target) in entries::TARGETS {
        let files = corpus(name);
        assert!(files.len() >= 3, "the corpus of {name} is missing");
        for (path, data) in files {
            assert!(std::panic::catch_unwind(|| target(&data)).is_ok(), "{}", path.display());
        }
    }
}

/// Else the others prove nothing.
#[test]
fn what_is_right_in_a_corpus_is_read_to_its_end() {
    let file = |target: &str, name: &str| {
        let found = corpus(target).into_iter().find(|(path, _)| path.ends_with(name));
        String::from_utf8(found.expect("the file").1).expect("text")
    };
    assert_eq!(offer::read(&file("sdp", "audio_and_video")).expect("an offer").lines.len(), 2);
    let candidate = file("candidate", "reflexive");
    assert!(matches!(candidates::remote(candidate.lines().nth(1).expect("its line")), Remote::Usable(_)));
    assert_eq!(udp_host(&file("turn_uri", "v6")), Some(("2001:db8::1".to_owned(), 99)));
    let (_, request) =
        corpus("datagram").into_iter().find(|(path, _)| path.ends_with("request")).expect("it");
    assert_eq!(binding_request_fragment(&request), Some("abcd"));
}

#[test]
fn damaged_files_of_a_corpus_make_no_target_panic() {
    for (name, target) in entries::TARGETS {
        for (path, whole) in corpus(name).into_iter().filter(|(_, data)| !data.is_empty()) {
            for seed in 0..200 {
                let mut data = whole.clone();
                let mut bytes = random(seed).map(usize::from);
                let mut next = || bytes.next().unwrap_or_default();
                for _ in 0..1 + seed % 4 {
                    let at = (next() << 8 | next()) % data.len();
                    data[at] = next() as u8;
                }
                data.truncate(if seed % 3 == 0 { (next() << 8 | next()) % data.len() } else { data.len() });
                let outcome = std::panic::catch_unwind(|| target(&data));
                assert!(outcome.is_ok(), "{name}, {}, seed {seed}: {data:?}", path.display());
            }
        }
    }
}

#[test]
fn random_bytes_make_no_target_panic() {
    for (name, target) in entries::TARGETS {
        for seed in 0..2_000 {
            let data: Vec<u8> = random(seed).take(seed as usize % 200).collect();
            let outcome = std::panic::catch_unwind(|| target(&data));
            assert!(outcome.is_ok(), "{name}, seed {seed}: {data:?}");
        }
    }
}
