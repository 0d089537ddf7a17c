//! The page as a browser gets it, without JavaScript.

#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

mod web_support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_web::rt::System;
use matrix_call_recorder::web::WebSettings;
use recorder_actors::observe::{Board, Severity, StaySnapshot};
use recorder_actors::ports::Clock;
use recorder_core::media::{Codec, Source};
use web_support::{HandClock, NOW, busy_board, call, get, open_settings, participant, serve, track};

#[test]
fn one_look_tells_what_is_recorded_and_how_well() {
    let clock = HandClock::new();
    let page = serve(open_settings(), &busy_board(&clock), &clock);
    let body = get(page.address, "/").body;
    for text in [
        "Synced with example.org, 4 s ago",
        "3 calls, 4 streams",
        "412 GB free on disk",
        "Podcast, episode 41",
        "encrypted room",
        "00:42:17",
        "VP8 · 1280×720 · 1.4 Mbit/s",
        "431 MB",
        "lost 2412 (1.9 %)",
        "muted",
        "generation 3, restarted 2×",
        "write failed, input/output error",
        "not on the allow-list",
        "AGPL-3.0-or-later",
        env!("CARGO_PKG_VERSION"),
        concat!("href=\"", env!("CARGO_PKG_REPOSITORY"), "\""),
    ] {
        assert!(body.contains(text), "{text:?} is not on the page");
    }
}

#[test]
fn drops_before_reading_are_warned_of_as_long_as_they_are_new() {
    let clock = HandClock::new();
    let board = busy_board(&clock);
    let page = serve(open_settings(), &board, &clock);
    let body = || get(page.address, "/").body;
    let (kernel, held) = ("The kernel drops packets", "Packets come before their keys");
    assert!(!body().contains(kernel) && !body().contains(held), "counts alone are no news");
    board.media.load().kernel_dropped(5, clock.now());
    assert!(body().contains(kernel) && !body().contains(held));
    clock.advance(Duration::from_mins(9));
    board.media.load().held_dropped(1, clock.now());
    assert!(body().contains(kernel) && body().contains(held));
    clock.advance(Duration::from_mins(2));
    assert!(!body().contains(kernel) && body().contains(held));
}

#[test]
fn a_connection_that_brings_nothing_is_warned_of() {
    let clock = HandClock::new();
    let board = busy_board(&clock);
    let page = serve(open_settings(), &board, &clock);
    let warning = "Nothing arrives, though the connection is up.";
    assert!(!get(page.address, "/").body.contains(warning));
    let mut stuck = participant("p1", "Ada", "@ada:example.org", vec![]);
    stuck.stalled = true;
    board.put_call(call(9, "a stuck room", 1, vec![stuck]));
    assert!(get(page.address, "/").body.contains(warning));
}

#[test]
fn the_page_and_the_api_lead_to_the_source_that_the_operator_names() {
    let clock = HandClock::new();
    let source_url = "https://code.example.org/recorder?branch=\"ours\"".to_owned();
    let page =
        serve(WebSettings { source_url: source_url.clone(), ..open_settings() }, &Board::new(), &clock);
    let body = get(page.address, "/").body;
    assert!(body.contains("href=\"https://code.example.org/recorder?branch=&quot;ours&quot;\""), "{body}");
    let status: serde_json::Value = serde_json::from_str(&get(page.address, "/api/v1/status").body).unwrap();
    assert_eq!(status["recorder"]["source"], *source_url);
}

#[test]
fn one_look_tells_who_was_there_when_and_which_rooms_wait_for_a_call() {
    let clock = HandClock::new();
    let board = busy_board(&clock);
    let minute = |minutes: i64| NOW - minutes * 60_000_000;
    let stay = |joined, left| StaySnapshot { joined_utc_micros: minute(joined), left_utc_micros: left };
    let mut back = participant("p1", "Ada", "@ada:example.org", vec![]);
    back.stays = vec![stay(42, Some(minute(30))), stay(12, None)];
    let mut gone = participant("p2", "Grace", "@grace:example.net", vec![]);
    gone.stays = (0..5).map(|n| stay(40 - n, Some(minute(39 - n)))).collect();
    (gone.present, gone.told) = (false, false);
    let mut new = participant("p3", "Alan", "@alan:example.org", vec![]);
    new.told = false;
    let mut group = call(9, "Seminar", 42, vec![back, gone, new]);
    group.call_kind = "mesh".into();
    board.put_call(group);
    let page = serve(open_settings(), &board, &clock);
    // Times and their machine-readable forms aside.
    let body = get(page.address, "/").body.replace("</time>", "");
    let mut text = String::new();
    for piece in body.split("<time ") {
        text.push_str(if text.is_empty() { piece } else { piece.split_once('>').unwrap().1 });
    }
    let seminar = &text[text.find("Seminar").unwrap()..];
    for shown in [
        "<small>14:00:17–14:12:17</small><small>since 14:30:17</small>",
        "<small>… 14:04:17–14:05:17</small>",
        "<small>14:06:17–14:07:17</small><small>left</small>",
        "not told yet",
        "Waiting for a call",
        "<bdi>Board meeting</bdi><small>every one, at the wish of <bdi>@ada:example.org</bdi></small>",
        "<bdi>Choir</bdi><small>the next one, at the wish of <bdi>@grace:example.net</bdi></small>",
        "Every call of 1 room, as configured.",
    ] {
        assert!(seminar.contains(shown), "{shown:?} is not on the page: {seminar}");
    }
    assert_eq!(seminar.matches("not told yet").count(), 1, "who has left need not be told");
    let rooms = get(page.address, "/api/v1/rooms").json();
    let expected = ["Choir", "Board meeting", ""].map(|name| name.to_owned());
    let names =
        rooms["rooms"].as_array().unwrap().iter().map(|room| room["room_name"].as_str().unwrap().to_owned());
    assert_eq!(names.collect::<Vec<_>>(), expected);
    let choir = &rooms["rooms"][0];
    assert_eq!((&choir["waiting"], &choir["by"]), (&"start".into(), &"@grace:example.net".into()));
    let calls = get(page.address, "/api/v1/calls").json();
    let ada = &calls["calls"].as_array().unwrap().last().unwrap()["participants"][0];
    assert_eq!(ada["stays"][1]["left_utc_micros"], serde_json::Value::Null);
    assert_eq!(ada["told"], true);
}

#[test]
fn an_idle_recorder_says_what_to_do() {
    let clock = HandClock::new();
    let page = serve(open_settings(), &Board::new(), &clock);
    let body = get(page.address, "/").body;
    assert!(body.contains("Nothing is being recorded") && body.contains("Not logged in"), "{body}");
}

#[test]
fn nothing_is_loaded_from_elsewhere_and_nothing_stands_inline() {
    let clock = HandClock::new();
    let page = serve(open_settings(), &busy_board(&clock), &clock);
    let answer = get(page.address, "/");
    for pattern in ["src=\"http", "src=\"//", "<style", "style=\"", "onclick", "<script>", "@import"] {
        assert!(!answer.body.contains(pattern), "{pattern}");
    }
    let css = get(page.address, "/assets/status.css");
    assert_eq!(css.header("content-type"), Some("text/css; charset=utf-8"));
    assert!(!css.body.contains("url(") && !css.body.contains("@import"));
    assert_eq!(get(page.address, "/assets/status.js").status, 200);
    assert_eq!(get(page.address, "/assets/icon.svg").status, 200);
}

#[test]
fn every_answer_carries_the_headers_that_fence_a_browser_in() {
    let clock = HandClock::new();
    let page = serve(open_settings(), &busy_board(&clock), &clock);
    for path in ["/", "/api/v1/status", "/metrics", "/healthz", "/assets/status.js", "/nowhere"] {
        let answer = get(page.address, path);
        let policy = answer.header("content-security-policy").unwrap_or_default();
        assert!(policy.contains("default-src 'self'") && policy.contains("frame-ancestors 'none'"), "{path}");
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{path}");
        assert_eq!(answer.header("referrer-policy"), Some("no-referrer"), "{path}");
    }
}

#[test]
fn hostile_names_are_escaped_tamed_and_cut() {
    let clock = HandClock::new();
    let board = busy_board(&clock);
    let script = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&";
    let long = "A".repeat(10_000);
    let turned = "evil\u{202e}txt.exe\u{2066}\0\n\r<b>";
    let tracks = vec![track("p1-camera-1", Source::Camera, Codec::Vp8, None, 1, 1)];
    for (key, name) in [(10, script), (11, long.as_str()), (12, turned)] {
        let mut call = call(key, name, 1, vec![participant("p1", name, name, tracks.clone())]);
        call.call_kind = name.into();
        call.state = name.into();
        board.put_call(call);
        let mut actor = board.actor("supervisor").unwrap().as_ref().clone();
        actor.path = format!("supervisor/call-{key}");
        actor.name = name.into();
        actor.last_error = Some(name.into());
        board.put_actor(actor);
        board.happened(NOW, Severity::Error, name);
    }
    let mut account = board.account.load().as_ref().clone();
    account.logged_in = false;
    account.last_error = Some(script.into());
    account.homeserver = Some(script.into());
    board.account.store(Arc::new(account));

    let page = serve(open_settings(), &board, &clock);
    let body = get(page.address, "/").body;
    assert!(!body.contains("<script>") && !body.contains("<img") && !body.contains("<b>"), "unescaped");
    assert!(body.contains("&lt;script&gt;"), "the name is not shown at all");
    assert!(!body.contains(&"A".repeat(201)), "not cut");
    assert!(!body.contains(['\u{202e}', '\u{2066}', '\0']), "not tamed");
    assert!(body.len() < 60_000, "{} bytes", body.len());
    let json = get(page.address, "/api/v1/calls").json();
    assert!(
        json["calls"].as_array().unwrap().iter().any(|call| call["room_name"] == script),
        "the API keeps names whole"
    );
}

#[test]
fn a_flood_of_participants_and_actors_makes_a_page_of_bounded_size() {
    let clock = HandClock::new();
    let board = busy_board(&clock);
    let tracks: Vec<_> =
        (0..100).map(|n| track(&format!("t{n}"), Source::Camera, Codec::Vp8, None, 1, 1)).collect();
    for key in 0..300 {
        let participants = vec![participant("p1", "x", "@x:y", tracks.clone()); 60];
        board.put_call(call(key, "r", 1, participants));
        for peer in 0..20 {
            let mut actor = board.actor("supervisor").unwrap().as_ref().clone();
            actor.path = format!("supervisor/call-{key}/p{peer}");
            board.put_actor(actor);
        }
    }
    let page = serve(open_settings(), &board, &clock);
    let began = Instant::now();
    let body = get(page.address, "/").body;
    assert!(body.contains("and 200 calls more") && body.contains("and 10 participants more"), "not counted");
    assert!(body.contains("and 80 streams more"), "not counted");
    assert!(body.len() < 40_000_000, "{} bytes", body.len());
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

#[test]
fn a_taken_port_is_a_clear_fault() {
    let clock = HandClock::new();
    let first = serve(open_settings(), &Board::new(), &clock);
    let mut settings = open_settings();
    settings.listen = first.address;
    let fault =
        matrix_call_recorder::web::serve(settings, Board::new(), clock.clone()).err().unwrap().to_string();
    assert!(fault.contains("web.listen") && fault.contains("set another one"), "{fault}");
}

#[test]
fn after_the_end_the_port_is_free_again_and_streams_are_over() {
    let clock = HandClock::new();
    let page = serve(open_settings(), &busy_board(&clock), &clock);
    let address = page.address;
    let mut stream = web_support::Stream::open(address);
    assert!(stream.section().is_some());
    System::new().block_on(page.stop());
    while stream.section().is_some() {}
    let mut settings = open_settings();
    settings.listen = address;
    let again = serve(settings, &Board::new(), &clock);
    assert_eq!(get(again.address, "/").status, 200);
}
