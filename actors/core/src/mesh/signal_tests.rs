//! To-device signals: for whom they are, their order, and what they do to a leg.

use serde_json::{Value, json};

use super::test_support::*;
use super::*;
use crate::call::ConnectionLevel;

#[test]
fn an_invite_says_who_calls_whom_and_what_we_send() {
    let (mut mesh, _) = joined(&[member(EVE, "s1")]);
    let actions = mesh.dialled(ONE, Some("ours"), NOW);
    let [MeshAction::SendToDevice { user, device, event_type: "m.call.invite", content }] =
        actions.as_slice()
    else {
        panic!("{actions:?}")
    };
    assert_eq!((user.as_str(), device.as_str()), (EVE, "D"));
    let mut content = content.clone();
    let id = content["org.matrix.msgid"].take();
    assert_eq!(id.as_str().map(|id| (id.len(), id.as_bytes()[14])), Some((36, b'8')));
    assert_eq!(
        content,
        json!({"call_id": "mine.1", "party_id": "BOT", "version": "1", "conf_id": "conf", "device_id": "BOT",
            "sender_session_id": "mine", "dest_session_id": "s1", "seq": 0, "lifetime": 60_000,
            "invitee": EVE, "offer": {"type": "offer", "sdp": "ours"}, "org.matrix.msgid": null,
            "capabilities": {"m.call.transferee": false, "m.call.dtmf": false},
            "sdp_stream_metadata":
                {"tile": {"purpose": "m.usermedia", "audio_muted": true, "video_muted": false}}})
    );
}

#[test]
fn the_first_answer_wins_and_is_selected() {
    let (mut mesh, _) = joined(&[member(EVE, "s1")]);
    mesh.dialled(ONE, Some("ours"), NOW);
    let early = mesh.signal(signal(EVE, "mine.1", 1, "candidates", candidates(2)), NOW);
    assert!(early.is_empty());
    let actions = mesh.signal(signal(EVE, "mine.1", 0, "answer", answer()), NOW);
    assert!(actions.contains(&MeshAction::ApplyAnswer { leg: ONE, sdp: "theirs".into() }));
    assert_eq!(mesh.metadata(ONE).unwrap().len(), 1);
    assert!(ignored(&mesh.signal(signal(EVE, "mine.1", 2, "answer", answer()), NOW)));
    let actions = mesh.applied(ONE, true, NOW);
    assert_eq!(sent(&actions), ["@eve:hs select_answer mine.1 1", "@eve:hs candidates mine.1 2"]);
    let MeshAction::SendToDevice { content, .. } = &actions[0] else { panic!() };
    assert_eq!(content["selected_party_id"], "D");
    assert!(matches!(&actions[2], MeshAction::AddCandidates { list, .. } if list.len() == 2));
}

#[test]
fn a_path_that_was_there_before_the_answer_was_applied_counts_then() {
    let (mut mesh, _) = joined(&[member(EVE, "s1")]);
    mesh.dialled(ONE, Some("ours"), NOW);
    mesh.signal(signal(EVE, "mine.1", 0, "answer", answer()), NOW);
    assert!(mesh.connection(ONE, ConnectionLevel::Connected, NOW).is_empty());
    assert!(mesh.applied(ONE, true, NOW).contains(&MeshAction::LegConnected { leg: ONE }));
}

#[test]
fn an_answer_goes_out_before_candidates_and_names_what_we_send() {
    let (mut mesh, _) = joined(&[member(ADA, "s1")]);
    let actions = invite(&mut mesh, "c");
    let opened = MeshAction::LegOpened { leg: ONE, user: ADA.into(), device: "D".into(), party: "D".into() };
    assert_eq!(actions, [opened, MeshAction::Accept { leg: ONE, offer: "theirs".into() }]);
    assert!(mesh.signal(signal(ADA, "c", 1, "candidates", candidates(1)), NOW).is_empty());
    let actions = mesh.accepted(ONE, Some("ours"), NOW);
    assert_eq!(sent(&actions), ["@ada:hs answer c 0", "@ada:hs candidates c 1"]);
    let MeshAction::SendToDevice { content, .. } = &actions[0] else { panic!() };
    assert_eq!(content["sdp_stream_metadata"]["tile"]["purpose"], "m.usermedia");
    assert!(matches!(&actions[2], MeshAction::AddCandidates { .. }));
    assert_eq!(mesh.peer(ONE), Some((ADA, "D")));
}

#[test]
fn an_answer_of_another_device_that_the_caller_chose_ends_ours_in_silence() {
    let mut mesh = called();
    let ours = signal(ADA, "c", 1, "select_answer", json!({"selected_party_id": "BOT"}));
    assert!(mesh.signal(ours, NOW).is_empty());
    let other = signal(ADA, "c", 2, "select_answer", json!({"selected_party_id": "ELSE"}));
    assert_eq!(mesh.signal(other, NOW), [MeshAction::CloseLeg { leg: ONE, why: LegEnd::AnsweredElsewhere }]);
}

#[test]
fn an_offer_that_cannot_be_used_is_rejected() {
    let (mut mesh, _) = joined(&[member(ADA, "s1")]);
    invite(&mut mesh, "c");
    let actions = mesh.accepted(ONE, None, NOW);
    assert_eq!(sent(&actions), ["@ada:hs reject c 0"]);
    assert_eq!(closed(&actions), [(1, LegEnd::BadDescription)]);
}

#[test]
fn an_invite_that_is_not_for_us_is_not_answered() {
    for (field, value) in [
        ("conf_id", json!("other")),
        ("dest_session_id", json!("earlier")),
        ("dest_session_id", Value::Null),
        ("invitee", json!("@zoe:hs")),
    ] {
        let (mut mesh, _) = joined(&[member(ADA, "s1")]);
        let mut invite = offer();
        invite[field] = value;
        let content = content("c", "s1", 0, invite);
        let signal = ToDeviceSignal::parse(ADA, "m.call.invite", &content, NOW).unwrap();
        assert_eq!(mesh.signal(signal, NOW), [MeshAction::Ignored]);
    }
}

#[test]
fn an_invite_may_come_ten_seconds_before_its_senders_membership() {
    let (mut mesh, _) = joined(&[]);
    assert!(invite(&mut mesh, "c").is_empty());
    assert!(mesh.tick(seconds(9), UTC).is_empty());
    let actions = mesh.members(&[member(ADA, "s1")], None, seconds(9), UTC);
    assert_eq!(accepts(&actions), 1);

    let (mut mesh, _) = joined(&[]);
    invite(&mut mesh, "c");
    assert_eq!(sent(&mesh.tick(seconds(10), UTC)), ["@ada:hs reject c 0"]);
}

#[test]
fn an_invite_of_a_session_that_the_roster_does_not_know_yet_waits_for_it() {
    let (mut mesh, _) = joined(&[member(ADA, "s0")]);
    assert!(invite(&mut mesh, "c").is_empty());
    let actions = mesh.members(&[member(ADA, "s1")], None, seconds(1), UTC);
    assert_eq!(accepts(&actions), 1);
}

#[test]
fn a_new_invite_of_a_device_takes_the_place_of_its_earlier_call() {
    let mut mesh = called();
    let actions = invite(&mut mesh, "d");
    assert_eq!((closed(&actions), reason(&actions)), (vec![(1, LegEnd::Replaced)], Some("replaced")));
    assert!(actions.contains(&MeshAction::Accept { leg: LegId(2), offer: "theirs".into() }));
    // What is still said of the earlier one has no effect.
    assert!(ignored(&mesh.signal(signal(ADA, "c", 1, "hangup", json!({})), NOW)));
    assert!(ignored(&invite(&mut mesh, "c")));
    assert_eq!(mesh.legs.len(), 1);
}

#[test]
fn a_device_that_invites_over_and_over_is_refused_for_a_while() {
    let (mut mesh, _) = joined(&[member(ADA, "s1")]);
    let taken: usize = (0..100).map(|n| accepts(&invite(&mut mesh, &format!("c{n}")))).sum();
    assert_eq!((taken, mesh.legs.len()), (6, 1));
    let later = mesh.signal(signal(ADA, "later", 0, "invite", offer()), seconds(10));
    assert_eq!(accepts(&later), 1);
}

#[test]
fn of_two_invites_that_cross_the_one_with_the_smaller_call_id_wins() {
    let (mut mesh, _) = joined(&[member(EVE, "s1")]);
    mesh.dialled(ONE, Some("ours"), NOW);
    let actions = mesh.signal(signal(EVE, "zzz", 0, "invite", offer()), NOW);
    assert_eq!((sent(&actions), closed(&actions)), (vec!["@eve:hs reject zzz 0".to_owned()], vec![]));
    let actions = mesh.signal(signal(EVE, "aaa", 0, "invite", offer()), NOW);
    assert_eq!((closed(&actions), accepts(&actions)), (vec![(1, LegEnd::Replaced)], 1));
    assert_eq!(dials(&mesh.tick(seconds(10), UTC)), 0);
}

#[test]
fn a_hangup_that_overtook_its_invite_withdraws_it() {
    let (mut mesh, _) = joined(&[member(ADA, "s1")]);
    let mut hangup = signal(ADA, "c", 0, "hangup", json!({}));
    hangup.seq = None;
    assert!(ignored(&mesh.signal(hangup, NOW)));
    assert!(ignored(&invite(&mut mesh, "c")));
}

#[test]
fn later_offers_are_applied_one_after_the_other_and_the_newest_of_those_waiting_counts() {
    for mut mesh in [called(), calling()] {
        let (user, device) =
            mesh.peer(ONE).map(|(user, device)| (user.to_owned(), device.to_owned())).unwrap();
        assert_eq!(device, "D");
        let call_id = if user == ADA { "c" } else { "mine.1" };
        let mut next = 1;
        let mut negotiate = |mesh: &mut Mesh, sdp: &str| {
            let signal = signal(&user, call_id, next, "negotiate", later_offer(sdp));
            next += 1;
            mesh.signal(signal, NOW)
        };
        assert_eq!(negotiate(&mut mesh, "a"), [MeshAction::Renegotiate { leg: ONE, offer: "a".into() }]);
        assert!(negotiate(&mut mesh, "b").is_empty());
        assert!(negotiate(&mut mesh, "c").is_empty());
        let actions = mesh.renegotiated(ONE, Some("ours"), NOW);
        assert!(sent(&actions)[0].contains(" negotiate "));
        assert!(actions.contains(&MeshAction::Note { leg: ONE, fact: CallFact::Renegotiated }));
        assert_eq!(actions.last(), Some(&MeshAction::Renegotiate { leg: ONE, offer: "c".into() }));
        assert_eq!(mesh.renegotiated(ONE, None, NOW), [MeshAction::Ignored]);
    }
}

#[test]
fn an_offer_that_crosses_our_invite_is_ignored_because_the_caller_is_impolite() {
    let (mut mesh, _) = joined(&[member(EVE, "s1")]);
    mesh.dialled(ONE, Some("ours"), NOW);
    assert!(ignored(&mesh.signal(signal(EVE, "mine.1", 0, "negotiate", later_offer("x")), NOW)));
}

#[test]
fn an_offer_that_comes_while_its_invite_is_being_answered_is_applied_after() {
    let (mut mesh, _) = joined(&[member(ADA, "s1")]);
    invite(&mut mesh, "c");
    assert!(mesh.signal(signal(ADA, "c", 1, "negotiate", later_offer("x")), NOW).is_empty());
    let actions = mesh.accepted(ONE, Some("ours"), NOW);
    assert_eq!(actions.last(), Some(&MeshAction::Renegotiate { leg: ONE, offer: "x".into() }));
}

#[test]
fn signals_are_handled_in_their_order_and_repeats_are_ignored() {
    let mut mesh = called();
    let screen = |seq, name: &str| {
        let mut map = json!({"sdp_stream_metadata": {}});
        map["sdp_stream_metadata"][name] = json!({"purpose": "m.screenshare"});
        signal(ADA, "c", seq, "sdp_stream_metadata_changed", map)
    };
    assert!(mesh.signal(screen(3, "three"), NOW).is_empty());
    assert!(mesh.signal(screen(2, "two"), NOW).is_empty());
    assert!(ignored(&mesh.signal(screen(3, "three"), NOW)));
    assert_eq!(mesh.signal(screen(1, "one"), NOW).len(), 3);
    assert!(ignored(&mesh.signal(screen(1, "again"), NOW)));
    assert_eq!(mesh.metadata(ONE).unwrap().len(), 4);
}

#[test]
fn a_signal_that_never_comes_is_waited_for_5_seconds() {
    let mut mesh = called();
    mesh.signal(signal(ADA, "c", 2, "negotiate", later_offer("x")), NOW);
    assert!(mesh.tick(seconds(4), UTC).is_empty());
    assert_eq!(mesh.tick(seconds(5), UTC), [MeshAction::Renegotiate { leg: ONE, offer: "x".into() }]);
    assert_eq!(mesh.counts().gaps, 1);
    assert!(ignored(&mesh.signal(signal(ADA, "c", 1, "hangup", json!({})), seconds(6))), "too late");
}

#[test]
fn a_lost_invite_is_made_known_to_its_sender_by_a_rejection() {
    let (mut mesh, _) = joined(&[member(ADA, "s1")]);
    mesh.signal(signal(ADA, "c", 1, "candidates", candidates(1)), NOW);
    mesh.signal(signal(ADA, "c", 2, "candidates", candidates(1)), NOW);
    assert_eq!(sent(&mesh.tick(seconds(5), UTC)), ["@ada:hs reject c 0"]);
    assert!(ignored(&mesh.signal(signal(ADA, "c", 0, "invite", offer()), seconds(6))));
}

#[test]
fn a_lost_answer_ends_our_call_and_begins_another() {
    let (mut mesh, _) = joined(&[member(EVE, "s1")]);
    mesh.dialled(ONE, Some("ours"), NOW);
    mesh.signal(signal(EVE, "mine.1", 1, "candidates", candidates(1)), NOW);
    let actions = mesh.tick(seconds(5), UTC);
    assert_eq!(closed(&actions), [(1, LegEnd::SignallingLost)]);
    assert_eq!(reason(&actions), Some("signalling_timeout"));
    assert_eq!(dials(&mesh.tick(seconds(10), UTC)), 1);
}

#[test]
fn nobody_speaks_in_the_call_of_another() {
    let (mut mesh, _) = joined(&[member(EVE, "s1"), member("@fay:hs", "s1")]);
    mesh.dialled(ONE, Some("ours"), NOW);
    for (seq, kind) in [(0, "answer"), (1, "reject"), (2, "hangup"), (9, "candidates")] {
        let body = if kind == "answer" { answer() } else { candidates(1) };
        mesh.signal(signal("@fay:hs", "mine.1", seq, kind, body), NOW);
    }
    assert!(closed(&mesh.tick(seconds(6), UTC)).is_empty());
    let actions = mesh.signal(signal(EVE, "mine.1", 0, "answer", answer()), seconds(6));
    assert!(actions.contains(&MeshAction::ApplyAnswer { leg: ONE, sdp: "theirs".into() }));
}

#[test]
fn candidates_of_one_leg_are_bounded_while_it_waits_and_later() {
    let (mut mesh, _) = joined(&[member(ADA, "s1")]);
    invite(&mut mesh, "c");
    let mut taken = 0;
    let mut count = |actions: &[MeshAction]| {
        for action in actions {
            if let MeshAction::AddCandidates { list, .. } = action {
                taken += list.len();
            }
        }
        taken
    };
    for seq in 1..20 {
        count(&mesh.signal(signal(ADA, "c", seq, "candidates", candidates(100)), NOW));
    }
    assert_eq!(count(&mesh.accepted(ONE, Some("ours"), NOW)), 200);
    for seq in 20..60 {
        count(&mesh.signal(signal(ADA, "c", seq, "candidates", candidates(100)), NOW));
    }
    assert_eq!(count(&[]), 1_000);
}

#[test]
fn results_of_legs_that_are_over_have_no_effect() {
    let mut mesh = called();
    mesh.signal(signal(ADA, "c", 1, "hangup", json!({})), NOW);
    assert!(ignored(&mesh.accepted(ONE, Some("x"), NOW)));
    assert!(ignored(&mesh.dialled(ONE, Some("x"), NOW)));
    assert!(ignored(&mesh.applied(ONE, true, NOW)));
    assert!(ignored(&mesh.renegotiated(ONE, Some("x"), NOW)));
    assert!(ignored(&mesh.connection(ONE, ConnectionLevel::Connected, NOW)));
}
