//! Files that were never finished, torn or damaged, and what repair makes of them.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod mux_support;

use std::io;
use std::path::{Path, PathBuf};

use mux_support::{Frame, demux, header, mux, mux_unfinished};
use proptest::prelude::*;
use recorder_core::media::Codec;
use recorder_core::mux::{ReadAt, RepairError, RepairPlan, fuzz_scan, scan};

fn plan(file: &[u8]) -> Result<RepairPlan, RepairError> {
    scan(&mut &file[..], file.len() as u64)
}

/// The file after its plan, which is final.
fn repaired(file: &[u8]) -> Vec<u8> {
    let plan = plan(file).unwrap();
    let mut file = file.to_vec();
    plan.apply(&mut file);
    assert_eq!(file.len() as u64, plan.length());
    let again = scan(&mut &file[..], file.len() as u64).unwrap();
    assert!(again.already_final, "{again:?}");
    assert_eq!((again.clusters, again.last_timestamp_ms), (plan.clusters, plan.last_timestamp_ms));
    assert!((again.duration_s - plan.duration_s).abs() < 1e-6);
    file
}

fn frames(count: u64) -> Vec<Frame> {
    (0..count).map(|n| (n * 20, n % 50 == 0, vec![0xFC, n as u8 | 1, 0x55, 0x66, 0x77])).collect()
}

#[test]
fn a_finished_file_is_left_as_it_is() {
    for codec in [Codec::Opus, Codec::Vp8, Codec::H264] {
        let file = mux(&header(codec), &frames(500), 0);
        let plan = plan(&file).unwrap();
        assert!(plan.already_final && plan.patches.is_empty() && plan.append.is_empty());
        assert_eq!(plan.truncate_to, file.len() as u64);
        assert_eq!(plan.last_timestamp_ms, Some(499 * 20));
    }
}

#[test]
fn an_unfinished_file_becomes_what_a_clean_end_would_have_made() {
    let frames = frames(500);
    assert_eq!(
        repaired(&mux_unfinished(&header(Codec::Opus), &frames)),
        mux(&header(Codec::Opus), &frames, 0)
    );
}

#[test]
fn a_file_without_a_frame_is_finished_too() {
    let file = repaired(&mux_unfinished(&header(Codec::Vp8), &[]));
    assert_eq!(demux(&file).1, []);
}

#[test]
fn a_torn_last_cluster_keeps_its_whole_blocks() {
    let frames = frames(120);
    let file = mux_unfinished(&header(Codec::Opus), &frames);
    let torn = repaired(&file[..file.len() - 7]);
    let (_, kept) = demux(&torn);
    assert_eq!(kept, frames[..frames.len() - 1]);
}

#[test]
fn pages_of_zeros_after_a_power_cut_are_cut_off() {
    let frames = frames(200);
    let mut file = mux_unfinished(&header(Codec::Opus), &frames);
    let sound = file.len();
    file.resize(sound + 70_000, 0);
    let plan = plan(&file).unwrap();
    assert_eq!((plan.truncate_to, plan.holes), (sound as u64, 0));
    assert_eq!(demux(&repaired(&file)).1, frames);
}

#[test]
fn a_last_cluster_whose_pages_were_never_written_is_cut_where_they_begin() {
    let frames: Vec<Frame> = (0..100).map(|n| (n * 20, true, vec![0xAA; 300])).collect();
    let mut file = mux_unfinished(&header(Codec::Opus), &frames);
    let from = file.len() - 4_100;
    file[from..].fill(0);
    let (_, kept) = demux(&repaired(&file));
    assert!(kept.len() >= 100 - 15 && kept.len() < 100, "{}", kept.len());
    assert_eq!(kept, frames[..kept.len()]);
}

#[test]
fn damage_in_the_middle_costs_only_what_it_hit() {
    let frames: Vec<Frame> = (0..500).map(|n| (n * 20, true, vec![n as u8 | 1; 200])).collect();
    let sound = mux_unfinished(&header(Codec::Opus), &frames);
    let mut file = sound.clone();
    // The head of the third cluster and some of it.
    let heads: Vec<_> = sound
        .windows(5)
        .enumerate()
        .filter(|(_, five)| five[..4] == [0x1F, 0x43, 0xB6, 0x75])
        .map(|(at, _)| at)
        .collect();
    file[heads[2] - 100..heads[2] + 400].fill(0);
    let plan = plan(&file).unwrap();
    assert_eq!(plan.holes, 1);
    let (_, kept) = demux(&repaired(&file));
    assert_eq!(frames.len() - kept.len(), 25 + 1);
    assert!(kept.iter().all(|frame| frames.contains(frame)));
}

#[test]
fn a_repair_that_was_stopped_is_done_again_with_the_same_result() {
    let frames = frames(300);
    let whole = mux_unfinished(&header(Codec::Vp8), &frames);
    let torn = &whole[..whole.len() - 3];
    let plan = plan(torn).unwrap();
    let wanted = repaired(torn);
    for step in 0..=plan.patches.len() + 1 {
        let mut file = torn.to_vec();
        let mut part = plan.clone();
        part.patches.truncate(step.saturating_sub(1));
        if step == 0 {
            part.append.clear();
        } else if step == 1 {
            part.append.truncate(plan.append.len() / 2);
        }
        part.apply(&mut file);
        assert_eq!(repaired(&file), wanted, "stopped at step {step}");
    }
}

#[test]
fn what_cannot_be_saved_has_a_name() {
    assert!(matches!(plan(&[]), Err(RepairError::Empty)));
    assert!(matches!(plan(&[0; 8192]), Err(RepairError::NotMatroska)));
    assert!(matches!(plan(b"OggS, perhaps"), Err(RepairError::NotMatroska)));
    let file = mux_unfinished(&header(Codec::Opus), &[]);
    assert!(matches!(plan(&file[..60]), Err(RepairError::TornHeader { .. })));
    struct Broken;
    impl ReadAt for Broken {
        fn read_at(&mut self, _: u64, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::from_raw_os_error(5))
        }
    }
    assert!(matches!(scan(&mut Broken, 100), Err(RepairError::Io { offset: 0, .. })));
}

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fuzz/corpus/mux_repair")
}

#[test]
fn the_fuzz_corpus_is_replayed() {
    let mut count = 0;
    for entry in std::fs::read_dir(corpus()).unwrap() {
        fuzz_scan(&std::fs::read(entry.unwrap().path()).unwrap());
        count += 1;
    }
    assert!(count >= 8, "the corpus is gone");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_cut_is_repaired_to_whole_blocks(count in 1_u64..80, cut in 0.0_f64..1.0, video: bool) {
        let codec = if video { Codec::Vp9 } else { Codec::Opus };
        let frames = frames(count);
        let file = mux_unfinished(&header(codec), &frames);
        let head = mux_unfinished(&header(codec), &[]).len();
        let length = head + ((file.len() - head) as f64 * cut) as usize;
        let (_, kept) = demux(&repaired(&file[..length]));
        prop_assert_eq!(&kept[..], &frames[..kept.len()]);
        let lost: usize = frames[kept.len()..].iter().map(|frame| frame.2.len()).sum();
        prop_assert!(lost <= file.len() - length + 5);
    }

    #[test]
    fn random_damage_never_panics_and_its_repair_is_final(
        count in 0_u64..80,
        finished: bool,
        damage in prop::collection::vec((0.0_f64..1.0, prop::collection::vec(any::<u8>(), 1..60)), 0..6),
        cut in 0.3_f64..1.0,
    ) {
        let frames = frames(count);
        let header = header(Codec::Vp8);
        let mut file = if finished { mux(&header, &frames, 7) } else { mux_unfinished(&header, &frames) };
        for (at, bytes) in damage {
            let at = (at * file.len() as f64) as usize;
            for (place, byte) in file[at..].iter_mut().zip(bytes) {
                *place = byte;
            }
        }
        file.truncate((file.len() as f64 * cut) as usize);
        fuzz_scan(&file);
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..4000)) {
        fuzz_scan(&bytes);
        let mut file = mux_unfinished(&header(Codec::Opus), &[]);
        file.extend(bytes);
        fuzz_scan(&file);
    }
}
