//! Who may see the page.

#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

mod web_support;

use matrix_call_recorder::web::{WebHandle, WebSettings};
use web_support::{Answer, HandClock, anywhere, busy_board, get, open_settings, request, serve};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

fn guarded() -> WebHandle {
    let clock = HandClock::new();
    let settings = WebSettings { token: Some(TOKEN.into()), ..open_settings() };
    serve(settings, &busy_board(&clock), &clock)
}

fn with(page: &WebHandle, path: &str, header: &str) -> Answer {
    request(page.address, "GET", path, &[header], "")
}

#[test]
fn only_known_names_are_answered() {
    let clock = HandClock::new();
    let settings = WebSettings { hosts: vec!["Recorder.example.org".into()], ..open_settings() };
    let page = serve(settings, &busy_board(&clock), &clock);
    for host in [
        "localhost",
        "localhost:8080",
        "127.0.0.1:1",
        "[::1]:8080",
        "recorder.EXAMPLE.org",
        "recorder.example.org.",
    ] {
        assert_eq!(with(&page, "/", &format!("Host: {host}")).status, 200, "{host}");
    }
    for host in [
        "evil.example.net",
        "localhost.evil.net",
        "127.0.0.1.evil.net",
        "",
        "example.org",
        "[::1",
        "a\u{e9}b",
    ] {
        for path in ["/", "/api/v1/status", "/metrics", "/healthz", "/api/v1/events"] {
            let status = with(&page, path, &format!("Host: {host}")).status;
            assert!(status == 421 || status == 400, "{host:?} {path}: {status}");
        }
    }
}

#[test]
fn without_the_token_nothing_about_calls_is_told() {
    let page = guarded();
    for path in [
        "/",
        "/api/v1/status",
        "/api/v1/calls",
        "/api/v1/actors",
        "/api/v1/happenings",
        "/api/v1/events",
        "/metrics",
    ] {
        let answer = get(page.address, path);
        assert_eq!(answer.status, 401, "{path}");
        assert!(!answer.body.contains("Podcast") && !answer.body.contains("recorder_calls"), "{path}");
    }
    assert!(get(page.address, "/api/v1/calls").header("www-authenticate").is_some());
    assert!(get(page.address, "/").body.contains("type=\"password\""));
    assert_eq!(get(page.address, "/healthz").status, 200);
    assert_eq!(get(page.address, "/readyz").status, 200);
}

#[test]
fn a_program_brings_the_token_in_a_header() {
    let page = guarded();
    assert_eq!(with(&page, "/metrics", &format!("Authorization: Bearer {TOKEN}")).status, 200);
    assert_eq!(with(&page, "/api/v1/calls", &format!("Authorization: bearer {TOKEN}")).status, 200);
    for wrong in [&TOKEN[1..], "", "x", &format!("{TOKEN}0"), &TOKEN.to_uppercase()] {
        assert_eq!(with(&page, "/metrics", &format!("Authorization: Bearer {wrong}")).status, 401, "{wrong}");
    }
    assert_eq!(with(&page, "/metrics", &format!("Authorization: Basic {TOKEN}")).status, 401);
}

#[test]
fn a_browser_gives_the_token_once() {
    let page = guarded();
    let form = |token: &str| {
        let body = format!("token={token}");
        request(page.address, "POST", "/login", &["Content-Type: application/x-www-form-urlencoded"], &body)
    };
    let by_form = form(TOKEN);
    let by_address = get(page.address, &format!("/?token={TOKEN}"));
    for answer in [by_form, by_address] {
        assert_eq!((answer.status, answer.header("location")), (303, Some("/")));
        let cookie = answer.header("set-cookie").unwrap();
        assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{cookie}");
        assert!(!cookie.contains(TOKEN), "the cookie is not the token");
        let pair = cookie.split(';').next().unwrap();
        assert_eq!(with(&page, "/", &format!("Cookie: a=b; {pair}")).status, 200);
        assert_eq!(with(&page, "/api/v1/calls", &format!("Cookie: {pair}x")).status, 401);
    }
    let wrong = form("guess");
    assert!(
        wrong.status == 401 && wrong.header("set-cookie").is_none() && wrong.body.contains("not the token")
    );
    assert_eq!(get(page.address, "/?token=guess").status, 401);
    assert_eq!(form(&"x".repeat(100_000)).status, 401);
}

#[test]
fn the_separate_metrics_listener_has_nothing_else() {
    let clock = HandClock::new();
    let settings = WebSettings { metrics_listen: Some(anywhere()), ..open_settings() };
    let page = serve(settings, &busy_board(&clock), &clock);
    let metrics = page.metrics_address.unwrap();
    assert!(get(metrics, "/metrics").body.contains("recorder_calls 3"));
    for path in ["/", "/api/v1/calls", "/healthz"] {
        assert_eq!(get(metrics, path).status, 404, "{path}");
    }
    assert_eq!(get(page.address, "/metrics").status, 404);
    assert_eq!(request(metrics, "GET", "/metrics", &["Host: evil.example.net"], "").status, 421);
}

#[test]
fn nothing_can_be_changed_through_the_page() {
    let clock = HandClock::new();
    let page = serve(open_settings(), &busy_board(&clock), &clock);
    for method in ["POST", "PUT", "DELETE", "PATCH"] {
        for path in ["/", "/api/v1/status", "/api/v1/calls", "/metrics", "/healthz"] {
            let status = request(page.address, method, path, &[], "").status;
            assert!(status == 404 || status == 405, "{method} {path}: {status}");
        }
    }
}
