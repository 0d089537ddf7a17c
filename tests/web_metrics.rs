//! The metrics keep Prometheus' rules, and no caller can add a series.

#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

mod web_support;

use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Arc;

use matrix_call_recorder::web::metrics_text;
use recorder_actors::observe::Board;
use recorder_core::media::{Codec, Source};
use web_support::{HandClock, busy_board, call, participant, track};

fn text(board: &Arc<Board>) -> String {
    metrics_text(Arc::clone(board), HandClock::new()).unwrap()
}

#[test]
fn promtool_has_nothing_to_say() {
    let clock = HandClock::new();
    let child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.expect("promtool is installed (Debian: prometheus)");
    child.stdin.take().unwrap().write_all(text(&busy_board(&clock)).as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.trim().is_empty(), "{said}");
}

#[test]
fn every_total_of_the_board_is_a_metric_with_help() {
    let clock = HandClock::new();
    let board = busy_board(&clock);
    let text = text(&board);
    for (name, _, value) in board.totals.read() {
        let metric = match name {
            "bytes_written" => "recorder_written_bytes_total".to_owned(),
            "packets_dropped_by_us" => "recorder_packets_dropped_total".to_owned(),
            _ => match name.strip_prefix("calls_refused_") {
                Some(reason) => format!("recorder_calls_refused_total{{reason=\"{reason}\"}}"),
                None => format!("recorder_{name}_total"),
            },
        };
        assert!(
            text.lines().any(|line| line == format!("{metric} {value}")),
            "{metric} {value} is missing in\n{text}"
        );
    }
    let media = board.media.load().counts.read();
    assert!(media.iter().any(|(name, _, value)| (*name, *value) == ("kernel_drops", 7)));
    for (name, _, value) in media {
        let line = format!("recorder_{name}_total {value}");
        assert!(text.lines().any(|seen| seen == line), "{line} is missing in\n{text}");
    }
    let families = text.lines().filter(|line| line.starts_with("# TYPE")).count();
    assert_eq!(text.lines().filter(|line| line.starts_with("# HELP")).count(), families);
}

#[test]
fn gauges_follow_the_board() {
    let clock = HandClock::new();
    let text = text(&busy_board(&clock));
    for line in [
        "recorder_calls 3",
        "recorder_connections 3",
        "recorder_participants 3",
        "recorder_streams{codec=\"vp8\",kind=\"video\"} 2",
        "recorder_streams{codec=\"opus\",kind=\"audio\"} 2",
        "recorder_streams{codec=\"h264\",kind=\"video\"} 0",
        "recorder_media_bytes_per_second{kind=\"video\"} 213750",
        "recorder_actors{kind=\"track_writer\",state=\"running\"} 5",
        "recorder_storage_free_bytes 412000000000",
        "recorder_storage_level{level=\"plenty\"} 1",
        "recorder_logged_in 1",
        "recorder_heartbeat_age_seconds{part=\"tree\"} 0",
    ] {
        assert!(text.lines().any(|seen| seen == line), "{line} is missing in\n{text}");
    }
}

#[test]
fn no_call_room_or_person_can_add_a_series() {
    let clock = HandClock::new();
    let series = |text: String| -> BTreeSet<String> {
        text.lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.rsplit_once(' ').map(|(name, _)| name.to_owned()))
            .collect()
    };
    let board = busy_board(&clock);
    let before = series(text(&board));
    for key in 10..30 {
        let tracks = vec![track("p1-camera-1", Source::Screen, Codec::Av1, None, 5, 5)];
        let mut call = call(key, "a room\"} 1\nforged 1", 1, vec![participant("p1", "x", "@x:y", tracks)]);
        call.call_kind = format!("kind-{key}");
        board.put_call(call);
    }
    let mut storage = board.storage.load().as_ref().clone();
    storage.level = "made up".into();
    board.storage.store(Arc::new(storage));
    assert_eq!(series(text(&board)), before);
    let empty = series(text(&Board::new()));
    assert_eq!(empty, before, "an idle recorder has the same series");
}
