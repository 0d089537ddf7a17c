//! Signals that nobody should send: refused or absorbed, counted, and the call goes on.

use proptest::prelude::*;
use serde_json::json;

use super::tests::{NOW, ada, connected, event, ringing, sent};
use super::*;

fn offer(sdp: &str) -> CallSignal {
    ada("m.call.negotiate", json!({"description": {"type": "offer", "sdp": sdp}}))
}

#[test]
fn an_offer_every_ten_milliseconds_for_a_minute_is_applied_a_few_times_and_the_newest_at_last() {
    let mut call = connected();
    let (mut applied, mut ignored) = (Vec::new(), 0);
    let mut take = |actions: Vec<CallAction>| {
        let mut answer = false;
        for action in actions {
            match action {
                CallAction::Renegotiate { offer } => {
                    applied.push(offer);
                    answer = true;
                }
                CallAction::Ignored => ignored += 1,
                _ => {}
            }
        }
        answer
    };
    for n in 0..6_000_u64 {
        let now = NOW + Duration::from_millis(10 * n);
        let mut actions = call.signal(offer(&n.to_string()), now);
        while take(actions) {
            actions = call.renegotiated(Some("v=0"));
        }
    }
    let mut actions = call.tick(NOW + Duration::from_secs(61));
    while take(actions) {
        actions = call.renegotiated(Some("v=0"));
    }
    assert!((130..=150).contains(&applied.len()), "{} were applied", applied.len());
    assert_eq!(applied.last().map(String::as_str), Some("5999"));
    assert_eq!(applied.len() + ignored, 6_000, "every other one is counted");
    assert_eq!(call.phase(), CallPhase::Connected);
}

#[test]
fn an_offer_that_is_never_answered_by_the_media_loop_keeps_the_others_waiting_and_the_call_alive() {
    let mut call = connected();
    assert_eq!(call.signal(offer("a"), NOW).len(), 1);
    for n in 0..1_000 {
        let actions = call.signal(offer(&n.to_string()), NOW);
        assert!(actions.iter().all(|action| *action == CallAction::Ignored), "{actions:?}");
    }
    assert_eq!(call.phase(), CallPhase::Connected);
    assert_eq!(call.renegotiated(None).last(), Some(&CallAction::Renegotiate { offer: "999".into() }));
}

#[test]
fn an_offer_whose_answer_was_lost_is_applied_again() {
    let mut call = connected();
    call.signal(offer("a"), NOW);
    assert!(call.tick(NOW + Duration::from_secs(4)).is_empty());
    let again = [CallAction::Renegotiate { offer: "a".into() }];
    assert_eq!(call.tick(NOW + Duration::from_secs(5)), again);
    assert!(call.tick(NOW + Duration::from_secs(6)).is_empty());
    assert_eq!(sent(&call.renegotiated(Some("v=0"))), ["m.call.negotiate"]);
    assert!(call.tick(NOW + Duration::from_secs(60)).is_empty());
}

#[test]
fn a_refused_offer_is_counted_and_gets_no_answer() {
    let mut call = connected();
    call.signal(offer("bad"), NOW);
    assert_eq!(call.renegotiated(None), [CallAction::Ignored]);
    assert_eq!(call.signal(offer("good"), NOW), [CallAction::Renegotiate { offer: "good".into() }]);
}

#[test]
fn every_signal_of_another_party_of_the_caller_is_ignored() {
    let bodies = [
        ("m.call.negotiate", json!({"description": {"type": "offer", "sdp": "v=0"}})),
        ("m.call.candidates", json!({"candidates": [{"candidate": "candidate:1", "sdpMid": "0"}]})),
        (
            "m.call.sdp_stream_metadata_changed",
            json!({"sdp_stream_metadata": {"x": {"purpose": "m.usermedia"}}}),
        ),
        ("m.call.select_answer", json!({"selected_party_id": "ELSE"})),
        ("m.call.hangup", json!({"reason": "user_hangup"})),
        ("m.call.reject", json!({})),
    ];
    let mut call = connected();
    let metadata = call.metadata().cloned();
    for (event_type, content) in bodies {
        let other = event(event_type, "@ada:hs", "OTHER", content);
        assert_eq!(call.signal(other, NOW), [CallAction::Ignored], "{event_type}");
    }
    assert_eq!((call.phase(), call.metadata().cloned()), (CallPhase::Connected, metadata));
}

#[test]
fn our_own_other_devices_cannot_end_a_call_that_we_answered() {
    let mut call = connected();
    for event_type in ["m.call.answer", "m.call.reject", "m.call.hangup"] {
        let ours = event(event_type, "@bot:hs", "OTHER", json!({"answer": {"type": "answer", "sdp": "v=0"}}));
        assert_eq!(call.signal(ours, NOW), [CallAction::Ignored], "{event_type}");
    }
    assert_eq!(call.phase(), CallPhase::Connected);
}

#[test]
fn transfers_and_identities_are_counted_and_change_nothing() {
    let mut call = connected();
    for event_type in ["m.call.replaces", "org.matrix.call.asserted_identity", "m.call.unheard_of"] {
        assert_eq!(call.signal(ada(event_type, json!({"replacement_id": "r"})), NOW), [CallAction::Ignored]);
    }
    assert_eq!(call.phase(), CallPhase::Connected);
}

#[test]
fn whatever_the_reason_a_hangup_is_one() {
    for reason in [
        "ice_failed",
        "invite_timeout",
        "ice_timeout",
        "user_hangup",
        "user_media_failed",
        "user_busy",
        "unknown_error",
        "replaced",
        "",
        "nobody knows",
    ] {
        let mut call = connected();
        let actions = call.signal(ada("m.call.hangup", json!({"reason": reason})), NOW);
        assert_eq!(actions, [CallAction::End(CallEnd::Hangup)], "{reason}");
        let again = call.signal(ada("m.call.hangup", json!({"reason": reason})), NOW);
        assert_eq!(again, [CallAction::Ignored], "the second one");
    }
    let mut call = connected();
    for reason in [json!(null), json!(7), json!({}), json!("x".repeat(10_000))] {
        if !matches!(call.phase(), CallPhase::Ended(_)) {
            let actions = call.signal(ada("m.call.hangup", json!({"reason": reason})), NOW);
            assert_eq!(actions, [CallAction::End(CallEnd::Hangup)]);
        }
    }
}

#[test]
fn unknown_purposes_and_streams_nobody_sends_are_taken_down_and_no_more() {
    let mut call = connected();
    let odd = json!({"sdp_stream_metadata": {
        "s1": {"purpose": "m.hologram"},
        "nowhere": {"purpose": "m.screenshare", "video_muted": true},
        "mad": 7,
    }});
    assert_eq!(
        call.signal(ada("m.call.sdp_stream_metadata_changed", odd), NOW),
        [CallAction::MetadataChanged]
    );
    assert_eq!(source_of(MediaKind::Video, Some("s1"), call.metadata()), Source::Unknown);
    assert_eq!(source_of(MediaKind::Audio, Some("mad"), call.metadata()), Source::Unknown);
    assert_eq!(source_of(MediaKind::Video, Some("neither"), call.metadata()), Source::Unknown);
}

#[test]
fn a_peer_that_names_new_streams_for_ever_is_bounded() {
    let mut call = connected();
    for n in 0..10_000 {
        let one = json!({"sdp_stream_metadata": {format!("z{n}"): {"purpose": "m.usermedia"}}});
        call.signal(ada("m.call.sdp_stream_metadata_changed", one), NOW);
    }
    assert!(call.metadata().is_some_and(|map| map.len() <= 256));
}

/// What a peer may send, in any order and as often as it likes; `None` for what the media loop and time do.
fn any_input() -> impl Strategy<Value = Option<CallSignal>> {
    prop_oneof![
        Just(None),
        Just(Some(offer("v=0"))),
        Just(Some(ada("m.call.negotiate", json!({"description": {"type": "answer", "sdp": "v=0"}})))),
        Just(Some(ada("m.call.candidates", json!({"candidates": [{"candidate": "candidate:1"}]})))),
        Just(Some(ada("m.call.select_answer", json!({"selected_party_id": "BOT"})))),
        Just(Some(ada("m.call.answer", json!({"answer": {"type": "answer", "sdp": "v=0"}})))),
        Just(Some(ada("m.call.invite", json!({"offer": {"type": "offer", "sdp": "v=0"}})))),
        Just(Some(ada("m.call.sdp_stream_metadata_changed", json!({"sdp_stream_metadata": {}})))),
        Just(Some(event("m.call.hangup", "@ada:hs", "OTHER", json!({})))),
        Just(Some(ada("m.call.hangup", json!({"reason": "user_hangup"})))),
    ]
}

proptest! {
    /// Signals in any order, each as often as it likes: one answer, one end, one offer at a time.
    #[test]
    fn no_order_of_signals_answers_twice_or_ends_twice(
        inputs in prop::collection::vec((any_input(), any::<bool>()), 0..60)
    ) {
        let mut call = ringing();
        let (mut answers, mut ends, mut open) = (0, 0, 0_i32);
        let mut now = NOW;
        for (input, good) in inputs {
            now = now + Duration::from_millis(100);
            let answer = good.then_some("v=0");
            let actions = match input {
                Some(signal) => call.signal(signal, now),
                None if open > 0 => {
                    open -= 1;
                    call.renegotiated(answer)
                }
                None if matches!(call.phase(), CallPhase::Opening { .. }) => call.opened(answer, now),
                None if good => call.connection(ConnectionLevel::Connected, now),
                None => call.connection(ConnectionLevel::Disconnected, now),
            };
            answers += sent(&actions).iter().filter(|kind| **kind == "m.call.answer").count();
            let begun = actions.iter().filter(|action| matches!(action, CallAction::Renegotiate { .. }));
            open += i32::try_from(begun.count()).unwrap();
            ends += actions.iter().filter(|action| matches!(action, CallAction::End(_))).count();
            prop_assert!(open <= 1, "two offers at a time");
            prop_assert_eq!(ends, usize::from(matches!(call.phase(), CallPhase::Ended(_))));
        }
        prop_assert!(answers <= 1 && ends <= 1);
    }
}
