//! Real media of every codec, written anew by our writer and judged by ffmpeg, ffprobe and mkvmerge.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod mux_support;

use std::path::Path;
use std::process::Command;

use mkv_element::io::blocking_impl::ReadFrom;
use mkv_element::prelude::*;
use mux_support::{Frame, cluster_frames, header, mux, mux_unfinished};
use recorder_core::media::Codec;
use recorder_core::mux::{av1c, avcc, hvcc, scan, vp9_codec_private};

fn run(program: &str, arguments: &[&str]) -> String {
    let output =
        Command::new(program).args(arguments).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

/// Three seconds of `codec` by ffmpeg's encoder: frames from 0 ms on, and ffmpeg's codec private.
fn encode(codec: Codec, folder: &Path) -> (Vec<Frame>, Option<Vec<u8>>) {
    let path = folder.join("source.mkv");
    let picture = "testsrc=duration=3:size=320x180:rate=15";
    let (input, options): (_, &[&str]) = match codec {
        Codec::Opus => ("sine=frequency=440:duration=3", &["-c:a", "libopus", "-b:a", "64k"]),
        Codec::Vp8 => {
            (picture, &["-c:v", "libvpx", "-deadline", "realtime", "-g", "15", "-auto-alt-ref", "0"])
        }
        Codec::Vp9 => (
            picture,
            &[
                "-c:v",
                "libvpx-vp9",
                "-deadline",
                "realtime",
                "-cpu-used",
                "8",
                "-g",
                "15",
                "-lag-in-frames",
                "0",
            ],
        ),
        Codec::Av1 => (
            picture,
            &[
                "-c:v",
                "libaom-av1",
                "-usage",
                "realtime",
                "-cpu-used",
                "8",
                "-g",
                "15",
                "-lag-in-frames",
                "0",
            ],
        ),
        Codec::H264 => (picture, &["-c:v", "libx264", "-preset", "ultrafast", "-bf", "0", "-g", "15"]),
        Codec::H265 => (
            picture,
            &[
                "-c:v",
                "libx265",
                "-preset",
                "ultrafast",
                "-x265-params",
                "bframes=0:keyint=15:log-level=none",
            ],
        ),
    };
    let mut arguments = vec!["-v", "error", "-y", "-f", "lavfi", "-i", input];
    arguments.extend(options);
    if codec != Codec::Opus {
        arguments.extend(["-pix_fmt", "yuv420p"]);
    }
    arguments.push(path.to_str().unwrap());
    run("ffmpeg", &arguments);

    let file = std::fs::read(&path).unwrap();
    let mut rest = &file[..];
    Ebml::read_from(&mut rest).unwrap();
    Header::read_from(&mut rest).unwrap();
    let (mut frames, mut private) = (Vec::new(), None);
    while !rest.is_empty() {
        let mut after = rest;
        let head = Header::read_from(&mut after).unwrap();
        if head.id == Tracks::ID {
            let tracks = Tracks::read_from(&mut { rest }).unwrap();
            private = tracks.track_entry[0].codec_private.as_ref().map(|private| private.to_vec());
        } else if head.id == Cluster::ID {
            frames.extend(cluster_frames(&Cluster::read_from(&mut { rest }).unwrap()));
        }
        rest = &after[*head.size as usize..];
    }
    assert!(frames.len() >= 40, "{} frames of {codec:?}", frames.len());
    let first = frames[0].0;
    for frame in &mut frames {
        frame.0 -= first;
    }
    (frames, private)
}

/// Parameter sets of an `avcC` by their place in it.
fn avc_sets(record: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let sps_length = usize::from(u16::from_be_bytes([record[6], record[7]]));
    let sps = record[8..8 + sps_length].to_vec();
    let rest = &record[8 + sps_length + 1..];
    let pps_length = usize::from(u16::from_be_bytes([rest[0], rest[1]]));
    (sps, rest[2..2 + pps_length].to_vec())
}

/// Video, sequence and picture parameter set of an `hvcC`.
fn hevc_sets(record: &[u8]) -> [Vec<u8>; 3] {
    let mut sets = [const { Vec::new() }; 3];
    let mut at = 23;
    for _ in 0..record[22] {
        let kind = record[at] & 0x3F;
        let length = usize::from(u16::from_be_bytes([record[at + 3], record[at + 4]]));
        if (32..=34).contains(&kind) {
            sets[usize::from(kind - 32)] = record[at + 5..at + 5 + length].to_vec();
        }
        at += 5 + length;
    }
    sets
}

/// Codec private as we make it from the media.
fn private(codec: Codec, frames: &[Frame], theirs: Option<&[u8]>) -> Option<Vec<u8>> {
    match codec {
        Codec::Opus | Codec::Vp8 => None,
        Codec::Vp9 => Some(vp9_codec_private(&frames[0].2).unwrap()),
        Codec::Av1 => {
            // ffmpeg moves the sequence header to the private data; a sender repeats it in each key frame.
            let ours = av1c(&theirs.unwrap()[4..]).unwrap();
            assert_eq!(ours, theirs.unwrap());
            Some(ours)
        }
        Codec::H264 => {
            let (sps, pps) = avc_sets(theirs.unwrap());
            let ours = avcc(&[&sps], &[&pps]).unwrap();
            assert_eq!(ours, theirs.unwrap());
            Some(ours)
        }
        Codec::H265 => {
            let [vps, sps, pps] = hevc_sets(theirs.unwrap());
            let ours = hvcc(&[&vps], &[&sps], &[&pps]).unwrap();
            // The sets are the same; ffmpeg adds an array and details of its own.
            assert_eq!(ours[1..13], theirs.unwrap()[1..13]);
            assert_eq!(ours[16..19], theirs.unwrap()[16..19]);
            Some(ours)
        }
    }
}

/// Time in milliseconds and checksum of each packet, as ffprobe reads them.
fn probe(path: &Path) -> Vec<(u64, String)> {
    let arguments = ["-v", "error", "-show_packets", "-show_data_hash", "adler32", "-of", "json"];
    let said = run("ffprobe", &[&arguments[..], &[path.to_str().unwrap()]].concat());
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    let packets = said["packets"].as_array().unwrap().iter();
    packets
        .map(|packet| {
            let seconds: f64 = packet["pts_time"].as_str().unwrap().parse().unwrap();
            ((seconds * 1000.0).round() as u64, packet["data_hash"].as_str().unwrap().to_owned())
        })
        .collect()
}

fn adler32(data: &[u8]) -> String {
    // ffmpeg begins with 1, as RFC 1950 says.
    let (mut a, mut b) = (1_u32, 0_u32);
    for byte in data {
        a = (a + u32::from(*byte)) % 65_521;
        b = (b + a) % 65_521;
    }
    format!("adler32:{:08x}", b << 16 | a)
}

fn duration(path: &Path) -> Option<f64> {
    let arguments = ["-v", "error", "-show_entries", "format=duration", "-of", "csv=p=0"];
    run("ffprobe", &[&arguments[..], &[path.to_str().unwrap()]].concat()).trim().parse().ok()
}

/// Frames that ffmpeg decodes, any decoder complaint being a failure.
fn decoded(path: &Path) -> usize {
    let arguments = ["-v", "error", "-xerror", "-i", path.to_str().unwrap(), "-f", "framemd5", "-"];
    run("ffmpeg", &arguments).lines().filter(|line| !line.starts_with('#')).count()
}

fn check(codec: Codec) {
    let folder = tempfile::tempdir().unwrap();
    let (frames, theirs) = encode(codec, folder.path());
    let mut header = header(codec);
    header.codec_private = private(codec, &frames, theirs.as_deref());
    let wanted: Vec<_> = frames.iter().map(|frame| (frame.0, adler32(&frame.2))).collect();

    let path = folder.path().join(format!("whole.{}", codec.extension()));
    std::fs::write(&path, mux(&header, &frames, 0)).unwrap();
    let last_s = frames.last().unwrap().0 as f64 / 1000.0;
    assert!((duration(&path).unwrap() - last_s - 0.02).abs() < 0.0015);
    assert_eq!(probe(&path), wanted);
    let all = decoded(&path);
    assert!(all >= frames.len() - 1, "{all} of {} frames decoded", frames.len());
    let identified = run("mkvmerge", &["-J", path.to_str().unwrap()]);
    let identified: serde_json::Value = serde_json::from_str(&identified).unwrap();
    assert_eq!(identified["errors"].as_array().unwrap().len(), 0, "{identified}");
    assert_eq!(identified["warnings"].as_array().unwrap().len(), 0, "{identified}");

    // Cut anywhere: the prefix decodes as it is, and after repair with a duration.
    let unfinished = mux_unfinished(&header, &frames);
    let head = mux_unfinished(&header, &[]).len();
    for part in [5, 8, 9] {
        let mut cut = unfinished[..head + (unfinished.len() - head) * part / 10].to_vec();
        let plan = scan(&mut &cut[..], cut.len() as u64).unwrap();
        let prefix = folder.path().join(format!("prefix-{part}.{}", codec.extension()));
        std::fs::write(&prefix, &cut[..plan.truncate_to as usize]).unwrap();
        let kept = probe(&prefix);
        assert!(
            kept.len() > frames.len() * part / 20 && kept[..] == wanted[..kept.len()],
            "{part}: {}",
            kept.len()
        );
        // Torn in the middle of a frame, it plays too; whether a player shows the torn frame is its own
        // affair.
        std::fs::write(&prefix, &cut).unwrap();
        assert!(probe(&prefix)[..kept.len()] == kept);
        plan.apply(&mut cut);
        std::fs::write(&prefix, &cut).unwrap();
        assert_eq!(probe(&prefix), kept);
        assert!(decoded(&prefix) >= kept.len() - 1);
        assert!((duration(&prefix).unwrap() - plan.duration_s).abs() < 0.002);
    }
}

#[test]
fn ffmpeg_reads_opus_as_written() {
    check(Codec::Opus);
}

#[test]
fn ffmpeg_reads_vp8_as_written() {
    check(Codec::Vp8);
}

#[test]
fn ffmpeg_reads_vp9_as_written() {
    check(Codec::Vp9);
}

#[test]
fn ffmpeg_reads_av1_as_written() {
    check(Codec::Av1);
}

#[test]
fn ffmpeg_reads_h264_as_written() {
    check(Codec::H264);
}

#[test]
fn ffmpeg_reads_h265_as_written() {
    check(Codec::H265);
}

#[test]
fn ffmpeg_seeks_by_our_cues() {
    let folder = tempfile::tempdir().unwrap();
    let (frames, _) = encode(Codec::Vp8, folder.path());
    let path = folder.path().join("seek.webm");
    std::fs::write(&path, mux(&header(Codec::Vp8), &frames, 0)).unwrap();
    let arguments =
        ["-v", "error", "-read_intervals", "2.5%+#1", "-show_entries", "packet=pts_time", "-of", "csv=p=0"];
    let said = run("ffprobe", &[&arguments[..], &[path.to_str().unwrap()]].concat());
    let at: f64 = said.trim().trim_end_matches(',').parse().unwrap();
    assert!((1.9..=2.5).contains(&at), "{at}");
}
