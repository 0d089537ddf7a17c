//! Orders for faults: taken by builds for tests, unknown to all others.

#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

mod web_support;

use web_support::{Answer, HandClock, busy_board, open_settings, request, serve};

fn asked(method: &str, body: &str) -> Answer {
    let clock = HandClock::new();
    let page = serve(open_settings(), &busy_board(&clock), &clock);
    request(page.address, method, "/faults", &["Content-Type: application/json"], body)
}

#[cfg(not(feature = "fault-injection"))]
#[test]
fn an_ordinary_build_takes_no_orders_for_faults() {
    for method in ["GET", "POST", "DELETE"] {
        assert_eq!(asked(method, r#"{"point": "pump"}"#).status, 404);
    }
}

#[cfg(feature = "fault-injection")]
#[test]
fn an_order_is_armed_and_told_of_until_it_is_taken_back() {
    let order = r#"{"point": "disk_write", "who": "p1-camera", "fault": "error", "after": 2, "times": 3}"#;
    assert_eq!(asked("POST", order).status, 204);
    let armed = asked("GET", "").json()["faults"].clone();
    assert_eq!(armed[0], serde_json::from_str::<serde_json::Value>(order).unwrap());
    assert_eq!(asked("DELETE", "").status, 204);
    assert_eq!(asked("GET", "").json()["faults"], serde_json::json!([]));
}

#[cfg(feature = "fault-injection")]
#[test]
fn an_order_that_cannot_be_carried_out_is_told_with_what_there_is() {
    for order in [
        r#"{"point": "nowhere"}"#,
        r#"{"point": "pump", "fault": "error"}"#,
        r#"{"point": "pump", "fault": "explosion"}"#,
        r#"{"point": "pump", "when": "now"}"#,
        "not JSON",
    ] {
        let answer = asked("POST", order);
        assert_eq!(answer.status, 400, "{order}");
        let points = answer.json()["points"].as_array().unwrap().clone();
        assert!(points.iter().any(|point| point == "supervisor"), "{order}");
    }
}
