//! The page in a real Chromium: at phone width and wide, light and dark, with and without JavaScript, with
//! names that mean harm. Needs Chromium, Node and what `tests/e2e/setup.sh` installs.

#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

mod web_support;

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};

use recorder_actors::observe::{ActorState, Severity};
use recorder_core::media::{Codec, Source};
use web_support::{HandClock, NOW, busy_board, call, open_settings, participant, serve, track};

#[test]
fn a_browser_shows_even_a_hostile_call_without_a_fault_and_updates_by_itself() {
    let clock = HandClock::new();
    let board = busy_board(&clock);
    let names = [
        "W".repeat(10_000),
        "\u{202e}\u{5e9}\u{5dc}\u{5d5}\u{5dd} <script>alert(1)</script> \u{645}\u{631}".to_owned(),
        "<img src=x onerror=\"document.title='taken'\"><style>*{display:none}</style>".to_owned(),
    ];
    for (key, name) in (10..).zip(&names) {
        let mut stream = track(
            "p1-screen-audio-1",
            Source::ScreenAudio,
            Codec::H265,
            Some((16_384, 16_384)),
            u64::MAX,
            u64::MAX,
        );
        (stream.lost, stream.received, stream.dropped_by_us) = (1_000_000_000, 3_000_000_000, u64::MAX);
        stream.media_seconds = f64::MAX;
        let mut call = call(key, name, 60_000, vec![participant("p1", name, name, vec![stream])]);
        call.state.clone_from(name);
        board.put_call(call);
        let mut actor = board.actor("supervisor").unwrap().as_ref().clone();
        actor.path = format!("supervisor/call-{key}");
        actor.name.clone_from(name);
        actor.state = ActorState::Restarting;
        actor.restarts = u64::MAX;
        actor.last_error = Some(name.clone());
        board.put_actor(actor);
        board.happened(NOW, Severity::Error, name.as_str());
    }
    let page = serve(open_settings(), &board, &clock);

    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/web_support/look.mjs");
    let mut browser = Command::new("node")
        .arg(script)
        .arg(format!("http://{}/", page.address))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("node is installed");
    let mut said = String::new();
    BufReader::new(browser.stdout.take().unwrap()).read_line(&mut said).unwrap();
    board.happened(NOW, Severity::Info, "tick tock");
    let mut faults = String::new();
    browser.stderr.take().unwrap().read_to_string(&mut faults).unwrap();
    assert!(browser.wait().unwrap().success() && faults.is_empty(), "{said}{faults}");
}
