//! Replays every file of the fuzz corpora, and cheap random bytes, through the entry functions of the fuzz targets.

#[path = "../../../tests/fuzz/src/entries.rs"]
mod entries;
mod rtp_support;

use std::path::PathBuf;

use recorder_core::media::Codec;

fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/fuzz/corpus").join(target);
    let entries =
        std::fs::read_dir(&folder).unwrap_or_else(|error| unreachable!("{}: {error}", folder.display()));
    let mut files: Vec<_> = entries.filter_map(Result::ok).map(|entry| entry.path()).collect();
    files.sort();
    files.into_iter().map(|path| (path.clone(), std::fs::read(path).unwrap_or_default())).collect()
}

#[test]
fn no_file_of_a_corpus_makes_its_target_panic() {
    for (name, target) in entries::TARGETS {
        let files = corpus(name);
        assert!(files.len() >= 3, "the corpus of {name} is missing");
        for (path, data) in files {
            let outcome = std::panic::catch_unwind(|| target(&data));
            assert!(outcome.is_ok(), "{}", path.display());
        }
    }
}

#[test]
fn random_bytes_make_no_target_panic() {
    for (name, target) in entries::TARGETS {
        for seed in 0..4000u32 {
            let data: Vec<u8> = random(seed).collect();
            let outcome = std::panic::catch_unwind(|| target(&data));
            assert!(outcome.is_ok(), "{name}, seed {seed}: {data:?}");
        }
    }
}

/// Random bytes seldom get past a length field, so true packets with a few wrong bytes come beside them.
#[test]
fn damaged_frames_make_no_target_panic() {
    let codecs = [Codec::Vp8, Codec::Vp9, Codec::Av1, Codec::H264, Codec::H265];
    for codec in codecs {
        let target = entries::TARGETS.iter().find(|target| target.0 == codec.name()).map(|target| target.1);
        let target = target.unwrap_or_else(|| unreachable!("no target for {codec:?}"));
        for seed in 0..3000u32 {
            let sent = rtp_support::send(
                codec,
                seed,
                seed % 2 == 0,
                20 + (seed % 90) as usize,
                10 + (seed % 50) as usize,
            );
            let mut data = framed(&sent.payloads);
            let mut bytes = random(seed).map(usize::from);
            for _ in 0..seed % 5 {
                let (high, low, value) = (bytes.next(), bytes.next(), bytes.next());
                let at = high.unwrap_or(0) << 8 | low.unwrap_or(0);
                let length = data.len();
                data[at % length] = value.unwrap_or(0) as u8;
            }
            let outcome = std::panic::catch_unwind(|| target(&data));
            assert!(outcome.is_ok(), "{codec:?}, seed {seed}: {data:?}");
        }
    }
}

fn framed(payloads: &[Vec<u8>]) -> Vec<u8> {
    payloads
        .iter()
        .flat_map(|payload| [&(payload.len() as u16).to_be_bytes()[..], payload].concat())
        .collect()
}

/// Up to 255 bytes by a linear congruential generator, the same on every run.
fn random(seed: u32) -> impl Iterator<Item = u8> {
    let mut state = u64::from(seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u8
    };
    let length = usize::from(next());
    (0..length).map(move |index| {
        let byte = next();
        // Small lengths at the front, so that several packets are cut out of it.
        if index % 17 == 0 { 0 } else { byte }
    })
}
