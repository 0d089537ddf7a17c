use serde_json::json;

use super::*;
use crate::call::RoomEvent;
use crate::call::candidates::MOST_CANDIDATES;

pub(super) const NOW: BootTime = BootTime(1_000_000_000_000);

pub(super) fn event(event_type: &str, sender: &str, party: &str, content: serde_json::Value) -> CallSignal {
    let mut content = content;
    content["call_id"] = json!("c1");
    content["party_id"] = json!(party);
    content["version"] = json!("1");
    CallSignal::parse(&RoomEvent {
        room: "!r:hs".into(),
        event_id: "$e".into(),
        sender: sender.into(),
        event_type: event_type.into(),
        content,
        received: NOW,
        age: Duration::ZERO,
    })
    .unwrap()
}

pub(super) fn ada(event_type: &str, content: serde_json::Value) -> CallSignal {
    event(event_type, "@ada:hs", "ADA", content)
}

pub(super) fn ringing() -> OneToOne {
    let invite = ada(
        "m.call.invite",
        json!({"offer": {"type": "offer", "sdp": "v=0"},
            "sdp_stream_metadata": {"s1": {"purpose": "m.usermedia"}}}),
    );
    let (call, actions) = OneToOne::new(CallKey(1), &invite, "@bot:hs", "BOT");
    assert_eq!(actions, [CallAction::Open { offer: "v=0".into() }]);
    call
}

pub(super) fn connected() -> OneToOne {
    let mut call = ringing();
    call.opened(Some("v=0"), NOW);
    assert_eq!(call.connection(ConnectionLevel::Connected, NOW), [CallAction::BeginRecording]);
    call
}

pub(super) fn sent(actions: &[CallAction]) -> Vec<&'static str> {
    actions
        .iter()
        .filter_map(|action| match action {
            CallAction::Send(outgoing) => Some(outgoing.event_type),
            _ => None,
        })
        .collect()
}

#[test]
fn the_answer_goes_out_before_any_candidates() {
    let mut call = ringing();
    assert_eq!(sent(&call.opened(Some("v=0"), NOW)), ["m.call.answer", "m.call.candidates"]);
}

#[test]
fn candidates_that_came_while_the_answer_was_made_are_used_after_it() {
    let mut call = ringing();
    let list = json!({"candidates": [{"candidate": "candidate:1", "sdpMid": "0"}]});
    assert!(call.signal(ada("m.call.candidates", list), NOW).is_empty());
    let actions = call.opened(Some("v=0"), NOW);
    assert!(matches!(&actions[2], CallAction::AddCandidates(list) if list.len() == 1));
}

#[test]
fn an_offer_that_cannot_be_used_is_rejected() {
    let mut call = ringing();
    let actions = call.opened(None, NOW);
    assert_eq!(sent(&actions), ["m.call.reject"]);
    assert_eq!(actions.last(), Some(&CallAction::End(CallEnd::BadOffer)));
}

#[test]
fn an_answer_that_is_never_made_ends_the_call() {
    let mut call = ringing();
    assert!(call.tick(NOW + Duration::from_secs(59)).is_empty());
    assert_eq!(sent(&call.tick(NOW + Duration::from_secs(60))), ["m.call.hangup"]);
}

#[test]
fn a_hangup_of_the_caller_ends_the_call_without_a_reply() {
    let mut call = connected();
    assert_eq!(
        call.signal(ada("m.call.hangup", json!({"reason": "user_hangup"})), NOW),
        [CallAction::End(CallEnd::Hangup)]
    );
}

#[test]
fn a_hangup_of_another_party_of_the_caller_is_ignored() {
    let mut call = connected();
    let other = event("m.call.hangup", "@ada:hs", "OTHER", json!({}));
    assert_eq!(call.signal(other, NOW), [CallAction::Ignored]);
    assert_eq!(call.phase(), CallPhase::Connected);
}

#[test]
fn select_answer_of_another_party_ends_it_silently() {
    let mut call = connected();
    let other = ada("m.call.select_answer", json!({"selected_party_id": "ELSE"}));
    assert_eq!(call.signal(other, NOW), [CallAction::End(CallEnd::AnsweredElsewhere)]);
    let mut call = connected();
    let ours = ada("m.call.select_answer", json!({"selected_party_id": "BOT"}));
    assert!(call.signal(ours, NOW).is_empty());
}

#[test]
fn offers_are_applied_one_after_the_other_and_the_newest_of_those_waiting_counts() {
    let mut call = connected();
    let offer = |sdp: &str| ada("m.call.negotiate", json!({"description": {"type": "offer", "sdp": sdp}}));
    assert_eq!(call.signal(offer("a"), NOW), [CallAction::Renegotiate { offer: "a".into() }]);
    assert!(call.signal(offer("b"), NOW).is_empty());
    assert_eq!(call.signal(offer("c"), NOW), [CallAction::Ignored], "b is counted as ignored");
    let actions = call.renegotiated(Some("v=0"));
    assert_eq!(sent(&actions), ["m.call.negotiate"]);
    assert_eq!(actions.last(), Some(&CallAction::Renegotiate { offer: "c".into() }));
}

#[test]
fn an_answer_to_nothing_is_ignored() {
    let mut call = connected();
    let answer = ada("m.call.negotiate", json!({"description": {"type": "answer", "sdp": "v=0"}}));
    assert_eq!(call.signal(answer, NOW), [CallAction::Ignored]);
}

#[test]
fn a_silent_path_is_given_forty_seconds() {
    let mut call = connected();
    call.connection(ConnectionLevel::Disconnected, NOW);
    assert!(call.tick(NOW + Duration::from_secs(39)).is_empty());
    let actions = call.tick(NOW + Duration::from_secs(40));
    assert_eq!(sent(&actions), ["m.call.hangup"]);
    assert_eq!(call.phase(), CallPhase::Ended(CallEnd::ConnectionLost));
}

#[test]
fn a_path_that_comes_back_goes_on() {
    let mut call = connected();
    call.connection(ConnectionLevel::Disconnected, NOW);
    let later = NOW + Duration::from_secs(20);
    assert_eq!(call.connection(ConnectionLevel::Connected, later), [CallAction::Note(CallFact::Reconnected)]);
    assert!(call.tick(later + Duration::from_secs(60)).is_empty());
}

#[test]
fn a_peer_that_closed_its_connection_has_three_seconds_to_hang_up() {
    let mut call = connected();
    call.connection(ConnectionLevel::Closed, NOW);
    assert!(call.tick(NOW + Duration::from_secs(2)).is_empty());
    assert!(!call.tick(NOW + Duration::from_secs(3)).is_empty());
    assert_eq!(call.phase(), CallPhase::Ended(CallEnd::Hangup));
}

#[test]
fn a_caller_who_leaves_the_room_has_hung_up() {
    let mut call = connected();
    assert!(call.user_left("@eve:hs").is_empty());
    assert_eq!(call.user_left("@ada:hs"), [CallAction::End(CallEnd::Left)]);
}

#[test]
fn metadata_is_merged_and_never_forgotten() {
    let mut call = connected();
    let screen = json!({"sdp_stream_metadata": {"s2": {"purpose": "m.screenshare"}}});
    let actions = call.signal(ada("m.call.sdp_stream_metadata_changed", screen.clone()), NOW);
    assert_eq!(actions, [CallAction::MetadataChanged]);
    assert!(call.signal(ada("m.call.sdp_stream_metadata_changed", screen), NOW).is_empty());
    assert_eq!(source_of(MediaKind::Video, Some("s2"), call.metadata()), Source::Screen);
    assert_eq!(source_of(MediaKind::Audio, Some("s1"), call.metadata()), Source::Microphone);
    assert_eq!(source_of(MediaKind::Audio, Some("s9"), call.metadata()), Source::Unknown);
}

#[test]
fn a_flood_of_candidates_is_bounded() {
    let mut call = connected();
    let mut taken = 0;
    for _ in 0..200 {
        let list: Vec<_> = (0..100).map(|n| json!({"candidate": format!("candidate:{n}")})).collect();
        for action in call.signal(ada("m.call.candidates", json!({"candidates": list})), NOW) {
            if let CallAction::AddCandidates(list) = action {
                taken += list.len();
            }
        }
    }
    assert_eq!(taken, MOST_CANDIDATES);
}

#[test]
fn a_restart_of_ice_begins_a_new_count_of_candidates() {
    let mut call = connected();
    let mut round = |sdp: &str| {
        let offer = json!({"description": {"type": "offer", "sdp": sdp}});
        call.signal(ada("m.call.negotiate", offer), NOW);
        let list: Vec<_> = (0..100).map(|n| json!({"candidate": format!("candidate:{n}")})).collect();
        let mut taken = 0;
        for _ in 0..20 {
            for action in call.signal(ada("m.call.candidates", json!({"candidates": list.clone()})), NOW) {
                if let CallAction::AddCandidates(list) = action {
                    taken += list.len();
                }
            }
        }
        taken
    };
    assert_eq!(round("v=0\r\na=ice-ufrag:one\r\n"), MOST_CANDIDATES);
    assert_eq!(round("v=0\r\na=ice-ufrag:one\r\n"), 0, "the same session");
    assert_eq!(round("v=0\r\n"), 0, "whatever names no session restarts none");
    assert_eq!(round("v=0\r\na=ice-ufrag:two\r\n"), MOST_CANDIDATES);
}
