//! What the tests of the muxer share: headers, and reading back with a reader that is not ours.
#![allow(dead_code, reason = "each test program uses a part")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use mkv_element::io::blocking_impl::ReadFrom;
use mkv_element::prelude::*;
use recorder_core::media::{Codec, MediaKind};
use recorder_core::mux::{AudioFormat, FinalFacts, MatroskaWriter, TrackHeader, VideoFormat};

/// A frame as given and as read back: milliseconds, key, bytes.
pub type Frame = (u64, bool, Vec<u8>);

pub fn header(codec: Codec) -> TrackHeader {
    let video = codec.kind() == MediaKind::Video;
    TrackHeader {
        codec,
        writing_app: "test".to_owned(),
        title: "Ada Lovelace – camera".to_owned(),
        session_id: "s-1".to_owned(),
        participant: "p1".to_owned(),
        source: "camera".to_owned(),
        provisional_start_s: 12.5,
        epoch_utc_micros: Some(1_795_359_845_123_456),
        track_uid: 77,
        audio: (!video).then_some(AudioFormat { channels: 2, sample_rate: 48_000 }),
        video: video.then_some(VideoFormat { width: 320, height: 180 }),
        codec_private: None,
    }
}

/// The whole file of these frames, flushed after every `flush_each`-th one (0: never), patches applied.
pub fn mux(header: &TrackHeader, frames: &[Frame], flush_each: usize) -> Vec<u8> {
    let mut file = Vec::new();
    let mut writer = MatroskaWriter::new(header, &mut file);
    for (index, (time, key, data)) in frames.iter().enumerate() {
        writer.write_frame(*time, *key, data, &mut file).unwrap();
        if flush_each > 0 && index % flush_each == 0 {
            writer.flush(&mut file);
        }
    }
    let duration_s = frames.last().map_or(0.0, |last| last.0 as f64 / 1000.0 + 0.02);
    let finished = writer.finish(&mut file, FinalFacts { duration_s });
    assert_eq!(finished.length, file.len() as u64);
    for patch in finished.patches {
        let at = patch.offset as usize;
        file[at..at + patch.bytes.len()].copy_from_slice(&patch.bytes);
    }
    file
}

/// A file cut before its end: no patches, no cues.
pub fn mux_unfinished(header: &TrackHeader, frames: &[Frame]) -> Vec<u8> {
    let mut file = Vec::new();
    let mut writer = MatroskaWriter::new(header, &mut file);
    for (time, key, data) in frames {
        writer.write_frame(*time, *key, data, &mut file).unwrap();
    }
    writer.flush(&mut file);
    file
}

/// A finished file as mkv-element reads it.
pub fn demux(file: &[u8]) -> (Segment, Vec<Frame>) {
    let mut rest = file;
    Ebml::read_from(&mut rest).unwrap();
    let segment = Segment::read_from(&mut rest).unwrap();
    assert!(rest.is_empty(), "{} bytes behind the segment", rest.len());
    let frames = segment.cluster.iter().flat_map(cluster_frames).collect();
    (segment, frames)
}

pub fn cluster_frames(cluster: &Cluster) -> Vec<Frame> {
    cluster
        .frames()
        .map(|frame| {
            let frame = frame.unwrap();
            assert_eq!(frame.track_number, 1);
            let mkv_element::FrameData::Single(data) = frame.data else { panic!("laced") };
            (u64::try_from(frame.timestamp).unwrap(), frame.is_keyframe, data.to_vec())
        })
        .collect()
}
