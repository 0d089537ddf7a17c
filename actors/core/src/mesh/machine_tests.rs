//! Membership, who calls whom and when, and how calls end.

use serde_json::json;

use super::test_support::*;
use super::*;
use crate::call::ConnectionLevel;

#[test]
fn nothing_is_signalled_before_our_membership_is_published() {
    let mut mesh = new_mesh();
    assert!(mesh.tick(NOW, UTC).is_empty());
    let actions = mesh.members(&[member(EVE, "s1")], None, NOW, UTC);
    let [MeshAction::Publish { content }, MeshAction::MemberJoined { .. }] = actions.as_slice() else {
        panic!("{actions:?}")
    };
    let ours = json!([{"device_id": "BOT", "session_id": "mine", "expires_ts": UTC + 3_600_000,
        "feeds": [{"purpose": "m.usermedia"}]}]);
    assert_eq!(content["m.calls"], json!([{"m.call_id": "conf", "m.devices": ours}]));
    assert!(mesh.tick(NOW, UTC).is_empty());
    let opened = MeshAction::LegOpened { leg: ONE, user: EVE.into(), device: "D".into(), party: "D".into() };
    assert_eq!(mesh.published(true, NOW), [opened, MeshAction::Dial { leg: ONE, screen: false }]);
}

#[test]
fn an_invite_that_comes_before_we_are_published_is_answered_after() {
    let mut mesh = new_mesh();
    mesh.members(&[member(ADA, "s1")], None, NOW, UTC);
    assert!(invite(&mut mesh, "c").is_empty());
    assert_eq!(accepts(&mesh.published(true, NOW)), 1);
}

#[test]
fn a_membership_that_is_refused_three_times_ends_it() {
    let mut mesh = new_mesh();
    mesh.members(&[], None, NOW, UTC);
    let mut at = 0;
    for pause in [5, 10] {
        assert!(mesh.published(false, seconds(at)).is_empty());
        assert!(mesh.tick(seconds(at + pause - 1), UTC).is_empty());
        at += pause;
        assert!(matches!(mesh.tick(seconds(at), UTC)[..], [MeshAction::Publish { .. }]));
    }
    assert_eq!(mesh.published(false, seconds(at)), [MeshAction::End(MeshEnd::NotAllowed)]);
    assert!(ignored(&mesh.tick(seconds(at + 100), UTC)));
}

#[test]
fn it_is_published_anew_after_45_minutes_and_a_refusal_then_ends_nothing() {
    let (mut mesh, _) = joined(&[]);
    let mut at = 45 * 60;
    assert!(mesh.tick(seconds(at - 1), UTC).is_empty());
    for _ in 0..20 {
        assert!(matches!(mesh.tick(seconds(at), UTC)[..], [MeshAction::Publish { .. }]), "{at}");
        assert!(mesh.published(false, seconds(at)).is_empty());
        at += 60;
    }
    assert!(mesh.published(true, seconds(at)).contains(&MeshAction::Ignored), "nothing was asked");
    assert_eq!(mesh.ended(), None);
}

#[test]
fn a_membership_that_somebody_took_out_is_put_back() {
    let (mut mesh, _) = joined(&[]);
    let ours = json!({"m.calls": [{"m.call_id": "conf", "m.devices": [{"device_id": "BOT",
        "session_id": "mine", "expires_ts": UTC + 3_600_000, "feeds": []}]}]});
    assert!(mesh.members(&[], None, seconds(1), UTC).is_empty(), "its echo has not come yet");
    assert!(mesh.members(&[], Some(&ours), seconds(2), UTC).is_empty());
    assert!(mesh.members(&[], Some(&json!({})), seconds(3), UTC).is_empty());
    assert!(matches!(mesh.tick(seconds(8), UTC)[..], [MeshAction::Publish { .. }]));
}

#[test]
fn the_lower_id_calls() {
    for (user, device, we) in [
        ("@ada:hs", "D", false),
        ("@bota:hs", "D", true),
        ("@bot:hs", "BOS", false),
        ("@bot:hs", "BOU", true),
        ("@BOT:hs", "Z", false),
    ] {
        let (mesh, actions) = joined(&[Member { device: device.into(), ..member(user, "s1") }]);
        assert_eq!(dials(&actions) == 1, we, "{user} {device}");
        assert_eq!(present(&mesh), 1);
    }
    let (mesh, actions) = joined(&[Member { device: "BOT".into(), ..member("@bot:hs", "mine") }]);
    assert_eq!((actions.len(), present(&mesh)), (0, 0), "we are no peer of ours");
}

#[test]
fn a_screen_that_is_shared_is_asked_for() {
    let (_, actions) = joined(&[Member { screen: true, ..member(EVE, "s1") }]);
    assert!(actions.contains(&MeshAction::Dial { leg: ONE, screen: true }));
}

#[test]
fn another_session_of_a_device_is_another_participant() {
    let mut mesh = calling();
    let actions = mesh.members(&[member(EVE, "s2")], None, seconds(1), UTC);
    assert_eq!((closed(&actions), reason(&actions)), (vec![(1, LegEnd::NewSession)], Some("new_session")));
    assert_eq!(dials(&actions), 1);
    let gone = |action: &MeshAction| {
        matches!(action, MeshAction::MemberLeft { reason: LeaveReason::NewSession, .. })
    };
    let left = actions.iter().position(gone).unwrap();
    let back = actions.iter().position(|action| matches!(action, MeshAction::MemberJoined { .. })).unwrap();
    assert!(left < back);
    let actions = mesh.dialled(LegId(2), Some("ours"), NOW);
    let MeshAction::SendToDevice { content, .. } = &actions[0] else { panic!() };
    assert_eq!((&content["dest_session_id"], &content["call_id"]), (&json!("s2"), &json!("mine.2")));
}

#[test]
fn who_leaves_the_call_is_hung_up() {
    let mut mesh = called();
    let actions = mesh.members(&[], None, seconds(1), UTC);
    assert_eq!((closed(&actions), reason(&actions)), (vec![(1, LegEnd::Left)], Some("user_hangup")));
    let left = MeshAction::MemberLeft { user: ADA.into(), device: "D".into(), reason: LeaveReason::Left };
    assert_eq!(actions.last(), Some(&left));
    assert_eq!(present(&mesh), 0);
}

#[test]
fn whose_membership_could_not_be_refreshed_stays_while_media_flows() {
    let mut mesh = called();
    let late = UTC + 3_600_000;
    assert!(matches!(mesh.members(&[], None, seconds(3_600), late)[..], [MeshAction::Publish { .. }]));
    assert_eq!((present(&mesh), mesh.overdue()), (1, vec![member(ADA, "s1")]));
    mesh.connection(ONE, ConnectionLevel::Disconnected, seconds(3_700));
    let actions = mesh.tick(seconds(3_740), late);
    assert_eq!(closed(&actions), [(1, LegEnd::ConnectionLost)]);
    let left = MeshAction::MemberLeft { user: ADA.into(), device: "D".into(), reason: LeaveReason::Expired };
    assert_eq!(actions.last(), Some(&left));
    // Without a connection it is gone at once.
    let (mut mesh, _) = joined(&[member(ADA, "s1")]);
    assert_eq!(mesh.members(&[], None, seconds(3_600), late).last(), Some(&left));
}

#[test]
fn a_call_that_fails_is_tried_again_each_5_seconds_three_times() {
    let (mut mesh, _) = joined(&[member(EVE, "s1")]);
    let mut at = 0;
    for leg in 1..=4 {
        assert!(!mesh.dialled(LegId(leg), Some("ours"), seconds(at)).is_empty());
        let call_id = format!("mine.{leg}");
        let actions = mesh.signal(signal(EVE, &call_id, 0, "reject", json!({})), seconds(at));
        assert_eq!(actions, [MeshAction::CloseLeg { leg: LegId(leg), why: LegEnd::Rejected }]);
        assert_eq!(present(&mesh), usize::from(leg < 4), "given up after the last");
        assert_eq!(dials(&mesh.tick(seconds(at + 4), UTC)), 0);
        at += 5;
        assert_eq!(dials(&mesh.tick(seconds(at), UTC)), usize::from(leg < 4));
    }
    // A membership that is refreshed is a sign of life.
    let alive = Member { expires_ts_ms: UTC + 7_200_000, ..member(EVE, "s1") };
    assert_eq!(dials(&mesh.members(std::slice::from_ref(&alive), None, seconds(at), UTC)), 1);
    assert_eq!(dials(&mesh.members(&[alive], None, seconds(at), UTC)), 0);
}

#[test]
fn who_does_not_answer_in_20_seconds_is_hung_up_and_called_again() {
    let (mut mesh, _) = joined(&[member(EVE, "s1")]);
    mesh.dialled(ONE, Some("ours"), NOW);
    assert!(mesh.tick(seconds(19), UTC).is_empty());
    let actions = mesh.tick(seconds(20), UTC);
    assert_eq!((closed(&actions), reason(&actions)), (vec![(1, LegEnd::NoAnswer)], Some("invite_timeout")));
    assert_eq!(dials(&mesh.tick(seconds(25), UTC)), 1);
}

#[test]
fn who_was_not_reached_before_counts_as_there_when_connected_or_heard_of_anew() {
    let ghost = member(ADA, "s1");
    let known = std::slice::from_ref(&ghost);
    let (mut mesh, _) = joined(known);
    assert_eq!((mesh.unreachable(&[]), mesh.unreachable(known)), (vec![], vec![ghost.clone()]));
    assert_eq!(mesh.unreachable(&[member(ADA, "s0")]), [], "that was another session");
    let later = Member { expires_ts_ms: ghost.expires_ts_ms + 1, ..ghost.clone() };
    mesh.members(std::slice::from_ref(&later), None, NOW, UTC);
    assert_eq!(mesh.unreachable(known), [], "its event has changed");
    let mut mesh = called();
    assert_eq!(mesh.unreachable(known), [], "it is connected");
    mesh.connection(ONE, ConnectionLevel::Failed, seconds(1));
    assert_eq!(mesh.unreachable(known), [], "it is expected back");
    mesh.tick(seconds(62), UTC);
    assert_eq!(mesh.unreachable(&[]), [ghost]);
}

#[test]
fn a_user_who_cycles_devices_has_no_place_for_more_than_64_and_takes_none_from_others() {
    let (mut mesh, _) = joined(&[]);
    let (mut came, mut beyond) = (0, 0);
    for round in 0..20 {
        let mut members: Vec<Member> = (0..8)
            .map(|device| Member { device: format!("{}", round * 8 + device), ..member(ADA, "s1") })
            .collect();
        members.push(member(EVE, "s1"));
        for _ in 0..2 {
            let actions = mesh.members(&members, None, NOW, UTC);
            let count =
                |wanted: fn(&MeshAction) -> bool| actions.iter().filter(|action| wanted(action)).count();
            came += count(|action| matches!(action, MeshAction::MemberJoined { .. }));
            beyond += count(|action| matches!(action, MeshAction::Beyond { .. }));
        }
    }
    assert_eq!((came, beyond, mesh.counts().beyond), (64 + 1, 160 - 64, 160 - 64));
    assert_eq!(mesh.unreachable(&[]).len(), 8, "nobody waits for those without a place");
    let again = Member { device: "0".into(), ..member(ADA, "s2") };
    let actions = mesh.members(&[again, member(EVE, "s1")], None, NOW, UTC);
    assert!(actions.contains(&MeshAction::MemberJoined { user: ADA.into(), device: "0".into() }));
    assert_eq!(mesh.unreachable(&[]), []);
}

#[test]
fn a_session_has_places_for_2000_devices_and_every_one_of_them_may_come_back() {
    let (mut mesh, _) = joined(&[]);
    let of = |user: usize| member(&format!("@{user:04}:hs"), "s1");
    let comes = |mesh: &mut Mesh, user| {
        let actions = mesh.members(&[of(user)], None, NOW, UTC);
        actions.iter().any(|action| matches!(action, MeshAction::MemberJoined { .. }))
    };
    assert_eq!((0..2_100).filter(|user| comes(&mut mesh, *user)).count(), 2_000);
    assert!(comes(&mut mesh, 1_999) && comes(&mut mesh, 0) && !comes(&mut mesh, 2_000));
}

#[test]
fn a_call_in_which_nobody_was_ever_connected_did_not_end_because_everybody_left() {
    let end = |mut mesh: Mesh| mesh.stop(MeshEnd::Empty, seconds(200), UTC).pop();
    assert_eq!(end(joined(&[member(ADA, "s1")]).0), Some(MeshAction::End(MeshEnd::Unreachable)));
    assert_eq!(end(joined(&[]).0), Some(MeshAction::End(MeshEnd::Empty)));
    assert_eq!(end(called()), Some(MeshAction::End(MeshEnd::Empty)));
}

#[test]
fn who_ought_to_call_and_does_not_is_there_for_a_minute() {
    let (mut mesh, _) = joined(&[member(ADA, "s1")]);
    mesh.tick(seconds(59), UTC);
    assert_eq!(present(&mesh), 1);
    mesh.tick(seconds(60), UTC);
    assert_eq!(present(&mesh), 0);
    assert_eq!(accepts(&mesh.signal(signal(ADA, "c", 0, "invite", offer()), seconds(70))), 1);
    assert_eq!(present(&mesh), 1);
}

#[test]
fn a_silent_path_is_given_40_seconds_and_then_the_call_begins_anew() {
    let mut mesh = calling();
    let actions = mesh.connection(ONE, ConnectionLevel::Disconnected, NOW);
    assert_eq!(actions, [MeshAction::Note { leg: ONE, fact: CallFact::Disconnected }]);
    assert!(mesh.tick(seconds(39), UTC).is_empty());
    let back = mesh.connection(ONE, ConnectionLevel::Connected, seconds(39));
    assert_eq!(back, [MeshAction::Note { leg: ONE, fact: CallFact::Reconnected }]);
    mesh.connection(ONE, ConnectionLevel::Disconnected, seconds(50));
    let actions = mesh.tick(seconds(90), UTC);
    assert_eq!((closed(&actions), reason(&actions)), (vec![(1, LegEnd::ConnectionLost)], Some("ice_failed")));
    assert_eq!(dials(&actions), 1);
    let two = LegId(2);
    mesh.dialled(two, Some("ours"), seconds(90));
    mesh.signal(signal(EVE, "mine.2", 0, "answer", answer()), seconds(90));
    mesh.applied(two, true, seconds(90));
    let actions = mesh.connection(two, ConnectionLevel::Connected, seconds(91));
    let again = MeshAction::Note { leg: two, fact: CallFact::Reconnected };
    assert_eq!(actions, [MeshAction::LegConnected { leg: two }, again]);
}

#[test]
fn a_connection_that_fails_again_at_once_is_tried_with_pauses() {
    let mut mesh = calling();
    let mut legs = 1;
    for at in 0..600 {
        let failed: Vec<LegId> = mesh.legs.keys().copied().collect();
        for leg in failed {
            legs += dials(&mesh.connection(leg, ConnectionLevel::Failed, seconds(at)));
        }
        legs += dials(&mesh.tick(seconds(at), UTC));
    }
    assert_eq!(legs, 1 + 1 + 3);
}

#[test]
fn a_hangup_closes_the_leg_without_a_reply() {
    let mut mesh = called();
    let hangup = signal(ADA, "c", 1, "hangup", json!({"reason": "user_hangup"}));
    assert_eq!(mesh.signal(hangup, NOW), [MeshAction::CloseLeg { leg: ONE, why: LegEnd::Hangup }]);
    let mut mesh = calling();
    let hangup = signal(EVE, "mine.1", 1, "hangup", json!({"reason": "user_hangup"}));
    assert_eq!(mesh.signal(hangup, NOW), [MeshAction::CloseLeg { leg: ONE, why: LegEnd::Hangup }]);
    assert_eq!(dials(&mesh.tick(seconds(4), UTC)), 0);
    assert_eq!(dials(&mesh.tick(seconds(5), UTC)), 1, "still a member");
}

#[test]
fn a_peer_that_closed_its_connection_has_three_seconds_to_hang_up() {
    let mut mesh = called();
    assert!(mesh.connection(ONE, ConnectionLevel::Closed, NOW).is_empty());
    assert!(mesh.tick(seconds(2), UTC).is_empty());
    assert_eq!(closed(&mesh.tick(seconds(3), UTC)), [(1, LegEnd::Hangup)]);
}

#[test]
fn stopping_hangs_up_everybody_and_takes_our_membership_back() {
    let (mut mesh, _) = joined(&[member(ADA, "s1"), member(EVE, "s1"), member("@fay:hs", "s1")]);
    invite(&mut mesh, "c");
    mesh.dialled(ONE, Some("ours"), NOW);
    let other = json!({"m.calls": [{"m.call_id": "conf", "m.devices": [
        {"device_id": "X", "expires_ts": UTC + 5_000}, {"device_id": "BOT", "expires_ts": UTC + 5_000}]}]});
    mesh.members(&[member(ADA, "s1"), member(EVE, "s1"), member("@fay:hs", "s1")], Some(&other), NOW, UTC);
    let actions = mesh.stop(MeshEnd::Stopped, NOW, UTC);
    assert_eq!(sent(&actions), ["@ada:hs reject c 0", "@eve:hs hangup mine.1 1"]);
    assert_eq!(closed(&actions).len(), 3, "the one that was not invited yet as well");
    let [.., MeshAction::Unpublish { content }, MeshAction::End(MeshEnd::Stopped)] = actions.as_slice()
    else {
        panic!("{actions:?}")
    };
    assert_eq!(content["m.calls"][0]["m.devices"], json!([{"device_id": "X", "expires_ts": UTC + 5_000}]));
    assert!(ignored(&mesh.stop(MeshEnd::Stopped, NOW, UTC)));
    assert_eq!(mesh.ended(), Some(MeshEnd::Stopped));
}

#[test]
fn who_was_removed_from_the_room_takes_nothing_back_there() {
    let (mut mesh, _) = joined(&[]);
    assert_eq!(mesh.stop(MeshEnd::Removed, NOW, UTC), [MeshAction::End(MeshEnd::Removed)]);
}
