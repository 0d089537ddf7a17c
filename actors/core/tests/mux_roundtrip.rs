//! What goes into the Matroska writer is what an independent reader gets out, wherever the file was cut.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod mux_support;

use mkv_element::io::blocking_impl::ReadFrom;
use mkv_element::prelude::*;
use mux_support::{Frame, cluster_frames, demux, header, mux};
use proptest::prelude::*;
use recorder_core::media::Codec;
use recorder_core::mux::{MatroskaWriter, MuxError};

const CODECS: [Codec; 6] = [Codec::Opus, Codec::Vp8, Codec::Vp9, Codec::Av1, Codec::H264, Codec::H265];

fn any_frames(most: usize) -> impl Strategy<Value = Vec<Frame>> {
    let step = prop_oneof![
        6 => Just(20_u64),
        4 => 0_u64..70,
        2 => 200_u64..700,
        1 => 30_000_u64..40_000,
        1 => 3_600_000_u64..90_000_000,
    ];
    let data = prop_oneof![
        8 => prop::collection::vec(any::<u8>(), 1..40),
        2 => prop::collection::vec(any::<u8>(), 100..300),
        1 => (1_usize..20_000, any::<u8>()).prop_map(|(count, byte)| vec![byte; count]),
    ];
    prop::collection::vec((step, any::<bool>(), data), 0..most).prop_map(|steps| {
        let mut now = 0;
        let mut first = true;
        steps
            .into_iter()
            .map(|(step, key, data)| {
                now += if first { 0 } else { step };
                first = false;
                (now, key, data)
            })
            .collect()
    })
}

fn any_codec() -> impl Strategy<Value = Codec> {
    prop::sample::select(CODECS.to_vec())
}

/// Whole clusters and whole blocks of a cut file, by the independent reader.
fn read_prefix(file: &[u8]) -> Option<Vec<Frame>> {
    let mut rest = file;
    Ebml::read_from(&mut rest).ok()?;
    Header::read_from(&mut rest).ok()?;
    let mut frames = Vec::new();
    loop {
        let mut after = rest;
        let Ok(head) = Header::read_from(&mut after) else { return Some(frames) };
        let size = usize::try_from(*head.size).unwrap();
        if after.len() < size {
            if head.id != Cluster::ID {
                return Some(frames);
            }
            frames.extend(read_torn(after));
            return Some(frames);
        }
        if head.id == Cluster::ID {
            frames.extend(cluster_frames(&Cluster::read_from(&mut rest).unwrap()));
        }
        rest = &after[size..];
    }
}

fn read_torn(mut body: &[u8]) -> Vec<Frame> {
    let mut whole = Vec::new();
    loop {
        let mut after = body;
        let Ok(head) = Header::read_from(&mut after) else { break };
        let size = usize::try_from(*head.size).unwrap();
        if after.len() < size {
            break;
        }
        whole.extend_from_slice(&body[..body.len() - after.len() + size]);
        body = &after[size..];
    }
    if whole.is_empty() {
        return Vec::new();
    }
    cluster_frames(&Cluster::decode_body(&mut &whole[..]).unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn mux_then_independent_demux_is_identity(
        codec in any_codec(),
        frames in any_frames(120),
        flush_each in 0_usize..20,
    ) {
        let file = mux(&header(codec), &frames, flush_each);
        let (segment, read) = demux(&file);
        prop_assert_eq!(&read, &frames);
        let track = &segment.tracks.as_ref().unwrap().track_entry[0];
        let names = ["A_OPUS", "V_VP8", "V_VP9", "V_AV1", "V_MPEG4/ISO/AVC", "V_MPEGH/ISO/HEVC"];
        let index = CODECS.iter().position(|known| *known == codec).unwrap();
        prop_assert_eq!(&track.codec_id.0, names[index]);
        if !frames.is_empty() {
            let duration_ms = frames.last().unwrap().0 as f64 + 20.0;
            prop_assert!((*segment.info.duration.unwrap() - duration_ms).abs() < 0.01);
        }
        for cluster in &segment.cluster {
            let times: Vec<_> = cluster_frames(cluster).iter().map(|frame| frame.0).collect();
            prop_assert!(times.last().unwrap() - times[0] < 500);
        }
    }

    #[test]
    fn cues_lead_to_clusters_that_hold_their_time(codec in any_codec(), frames in any_frames(120)) {
        let file = mux(&header(codec), &frames, 0);
        let (segment, _) = demux(&file);
        let body_at = file.windows(4).position(|four| four == [0x18, 0x53, 0x80, 0x67]).unwrap() + 12;
        let video = codec != Codec::Opus;
        let first_key = frames.iter().find(|frame| frame.1 || !video);
        prop_assert_eq!(segment.cues.is_some(), first_key.is_some());
        for cue in segment.cues.iter().flat_map(|cues| &cues.cue_point) {
            let position = *cue.cue_track_positions[0].cue_cluster_position;
            let mut at = &file[body_at + position as usize..];
            let cluster = Cluster::read_from(&mut at).unwrap();
            let found = cluster_frames(&cluster).into_iter().any(|(time, key, _)| time == *cue.cue_time && (key || !video));
            prop_assert!(found, "no frame at {}", *cue.cue_time);
        }
    }

    #[test]
    fn every_prefix_has_exactly_the_whole_blocks(codec in any_codec(), frames in any_frames(12)) {
        let mut file = Vec::new();
        let mut writer = MatroskaWriter::new(&header(codec), &mut file);
        let head = file.len();
        for (time, key, data) in &frames {
            writer.write_frame(*time, *key, data, &mut file).unwrap();
        }
        writer.flush(&mut file);
        prop_assert_eq!(writer.position(), file.len() as u64);
        let mut count = 0;
        for length in (head..=file.len()).rev().step_by(1 + file.len() / 600) {
            let read = read_prefix(&file[..length]).unwrap();
            prop_assert_eq!(&read[..], &frames[..read.len()]);
            // What is missing is less than two frames longer than what was cut.
            let missing: usize = frames[read.len()..].iter().map(|frame| frame.2.len()).sum();
            let cut = file.len() - length;
            let torn = frames.get(read.len()).map_or(0, |frame| frame.2.len());
            prop_assert!(missing <= cut + torn, "{missing} bytes missing, {cut} cut");
            count += 1;
        }
        prop_assert!(count > 0);
    }
}

#[test]
fn a_step_back_is_refused_and_the_writer_goes_on() {
    let mut out = Vec::new();
    let mut writer = MatroskaWriter::new(&header(Codec::Opus), &mut out);
    writer.write_frame(0, true, &[1], &mut out).unwrap();
    writer.write_frame(40, true, &[2], &mut out).unwrap();
    let refused = writer.write_frame(20, true, &[3], &mut out);
    assert_eq!(refused, Err(MuxError::StepBack { last_ms: 40, timestamp_ms: 20 }));
    assert_eq!(writer.write_frame(41, true, &[], &mut out), Err(MuxError::EmptyFrame));
    writer.write_frame(40, true, &[4], &mut out).unwrap();
    assert_eq!(writer.frames(), 3);
}

#[test]
fn a_key_frame_opens_a_cluster_unless_the_open_one_is_young() {
    let frames: Vec<Frame> = [(0, true), (100, true), (360, true), (400, false)]
        .into_iter()
        .map(|(time, key)| (time, key, vec![0xAB; 10]))
        .collect();
    let (segment, _) = demux(&mux(&header(Codec::Vp8), &frames, 0));
    let begins: Vec<_> = segment.cluster.iter().map(|cluster| *cluster.timestamp).collect();
    assert_eq!(begins, [0, 360]);
}

#[test]
fn a_better_start_replaces_the_tag_in_place() {
    let mut file = Vec::new();
    let mut writer = MatroskaWriter::new(&header(Codec::Opus), &mut file);
    let patch = writer.start_patch(1_234.567_891);
    let at = patch.offset as usize;
    assert_eq!(&file[at..at + patch.bytes.len()], b"0000000000012.500000");
    file[at..at + patch.bytes.len()].copy_from_slice(&patch.bytes);
    writer.write_frame(0, true, &[1], &mut file).unwrap();
    writer.flush(&mut file);
    let plan = recorder_core::mux::scan(&mut &file[..], file.len() as u64).unwrap();
    assert_eq!(plan.header.start_s, Some(1_234.567_891));
    assert_eq!(plan.header.session_id.as_deref(), Some("s-1"));
    assert_eq!(
        (plan.header.participant.as_deref(), plan.header.source.as_deref()),
        (Some("p1"), Some("camera"))
    );
}

#[test]
fn a_frame_of_many_mebibytes_has_a_cluster_of_its_own() {
    let frames: Vec<Frame> =
        vec![(0, true, vec![7; 10]), (10, false, vec![8; 5 << 20]), (20, false, vec![9; 10])];
    let (segment, read) = demux(&mux(&header(Codec::H264), &frames, 0));
    assert_eq!(read, frames);
    assert_eq!(segment.cluster.len(), 3);
}
