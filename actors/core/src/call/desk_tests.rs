use super::super::signal::Version;
use super::*;

const NOW: BootTime = BootTime(1_000_000_000_000);

fn desk() -> CallDesk {
    CallDesk::new(DeskSettings { user: "@bot:hs".into(), party: "BOT".into(), answer: true, max_calls: 2 })
}

fn signal(call_id: &str, sender: &str, body: SignalBody) -> CallSignal {
    CallSignal {
        room: "!r:hs".into(),
        event_id: format!("${call_id}"),
        sender: sender.into(),
        call_id: call_id.into(),
        party: Some("DEV".into()),
        version: Version::V1,
        received: NOW,
        age: Duration::ZERO,
        body,
    }
}

fn invite(call_id: &str) -> CallSignal {
    let body = SignalBody::Invite {
        lifetime: Duration::from_secs(60),
        offer: "v=0".into(),
        invitee: None,
        metadata: None,
    };
    signal(call_id, "@ada:hs", body)
}

fn hangup(call_id: &str) -> CallSignal {
    signal(call_id, "@ada:hs", SignalBody::Hangup { reason: "user_hangup".into() })
}

#[test]
fn a_live_invite_is_answered_once_its_batch_is_over() {
    let mut desk = desk();
    assert!(desk.signal(invite("a"), true, None, NOW).is_empty());
    assert!(matches!(desk.batch_end(NOW)[..], [DeskAction::Start { key: CallKey(1), .. }]));
    assert!(matches!(
        desk.signal(invite("a"), true, None, NOW)[..],
        [DeskAction::Ignore { why: IgnoreReason::Replay, .. }]
    ));
}

#[test]
fn an_invite_whose_hangup_is_in_the_same_batch_never_rings() {
    let mut desk = desk();
    desk.signal(invite("a"), true, None, NOW);
    desk.signal(hangup("a"), true, None, NOW);
    assert!(desk.batch_end(NOW).is_empty());
}

#[test]
fn a_hangup_that_overtook_its_invite_ends_it() {
    let mut desk = desk();
    desk.signal(hangup("a"), true, None, NOW);
    desk.batch_end(NOW);
    desk.signal(invite("a"), true, None, NOW);
    assert!(desk.batch_end(NOW).is_empty());
}

#[test]
fn a_call_that_another_device_of_ours_answered_is_left_to_it() {
    let mut desk = desk();
    desk.signal(invite("a"), true, None, NOW);
    desk.signal(signal("a", "@bot:hs", SignalBody::Answer { sdp: None, metadata: None }), true, None, NOW);
    assert!(desk.batch_end(NOW).is_empty());
}

#[test]
fn an_expired_invite_is_not_answered_and_age_counts_what_passed_since() {
    let mut desk = desk();
    let mut old = invite("a");
    old.age = Duration::from_secs(58);
    assert!(matches!(
        desk.signal(old, true, None, NOW)[..],
        [DeskAction::Ignore { why: IgnoreReason::Expired, .. }]
    ));
    desk.signal(invite("b"), true, None, NOW);
    let late = NOW + Duration::from_secs(58);
    assert!(matches!(desk.batch_end(late)[..], [DeskAction::Ignore { why: IgnoreReason::Expired, .. }]));
}

#[test]
fn an_invite_for_somebody_else_is_none_of_ours() {
    let mut desk = desk();
    let mut other = invite("a");
    if let SignalBody::Invite { invitee, .. } = &mut other.body {
        *invitee = Some("@eve:hs".into());
    }
    assert!(matches!(
        desk.signal(other, true, None, NOW)[..],
        [DeskAction::Ignore { why: IgnoreReason::NotForUs, .. }]
    ));
}

#[test]
fn an_invite_that_names_nobody_is_answered_only_where_nobody_else_could_be_meant() {
    let named = |call: &str| {
        let mut invite = invite(call);
        if let SignalBody::Invite { invitee, .. } = &mut invite.body {
            *invitee = Some("@bot:hs".into());
        }
        invite
    };
    for (invite, members, answered) in [
        (invite("two"), Some(2), true),
        (invite("not known"), None, true),
        (invite("three"), Some(3), false),
        (invite("one"), Some(1), false),
        (named("named"), Some(3), true),
    ] {
        let (mut desk, call) = (desk(), invite.call_id.clone());
        desk.signal(invite.clone(), true, members, NOW);
        let actions = desk.batch_end(NOW);
        assert_eq!(matches!(actions[..], [DeskAction::Start { .. }]), answered, "{call}: {actions:?}");
        assert_eq!(matches!(actions[..], [DeskAction::Misplaced { .. }]), !answered, "{call}: {actions:?}");
        desk.signal(invite, true, members, NOW);
        assert!(desk.batch_end(NOW).is_empty(), "{call} was decided");
    }
    // Who may not call hears nothing either: a rejection would end the call for whom it is meant.
    let mut desk = desk();
    desk.signal(invite("stranger"), false, Some(3), NOW);
    assert!(matches!(desk.batch_end(NOW)[..], [DeskAction::Ignore { why: IgnoreReason::NotForUs, .. }]));
}

#[test]
fn candidates_before_the_invite_are_kept_for_it() {
    let mut desk = desk();
    assert!(desk.signal(signal("a", "@ada:hs", SignalBody::Candidates(vec![])), true, None, NOW).is_empty());
    desk.batch_end(NOW);
    desk.signal(invite("a"), true, None, NOW);
    let started = desk.batch_end(NOW);
    assert!(matches!(&started[..], [DeskAction::Start { early, .. }] if early.len() == 1));
}

#[test]
fn a_sender_who_is_not_allowed_and_one_call_too_many_are_refused() {
    let mut desk = desk();
    for call in ["a", "b", "c"] {
        desk.signal(invite(call), true, None, NOW);
    }
    desk.signal(invite("d"), false, None, NOW);
    let actions = desk.batch_end(NOW);
    assert!(matches!(actions[2], DeskAction::Refuse { why: Refusal::Busy, tell: true, .. }));
    assert!(matches!(actions[3], DeskAction::Refuse { why: Refusal::NotAllowed, tell: true, .. }));
}

#[test]
fn who_calls_again_and_again_is_refused_each_time_and_told_a_few_times() {
    let mut desk = desk();
    for call in 0..20 {
        desk.signal(invite(&call.to_string()), false, None, NOW);
    }
    let refused: Vec<_> = desk.batch_end(NOW);
    let told = |action: &&DeskAction| matches!(action, DeskAction::Refuse { tell: true, .. });
    assert_eq!((refused.len(), refused.iter().filter(told).count()), (20, 5));
}

#[test]
fn a_third_party_cannot_speak_into_a_call() {
    let mut desk = desk();
    desk.signal(invite("a"), true, None, NOW);
    desk.batch_end(NOW);
    let body = SignalBody::Hangup { reason: "user_hangup".into() };
    assert!(matches!(
        desk.signal(signal("a", "@eve:hs", body), true, None, NOW)[..],
        [DeskAction::Ignore { why: IgnoreReason::ThirdParty, .. }]
    ));
}

#[test]
fn a_flood_of_candidates_for_unknown_calls_stays_bounded() {
    let mut desk = desk();
    for n in 0..10_000_u64 {
        let now = NOW + Duration::from_millis(n);
        desk.signal(signal(&n.to_string(), "@ada:hs", SignalBody::Candidates(vec![])), true, None, now);
    }
    assert!(desk.early.len() <= MOST_EARLY_CALLS);
}

#[test]
fn an_ended_call_makes_room_for_the_next() {
    let mut desk = desk();
    for call in ["a", "b"] {
        desk.signal(invite(call), true, None, NOW);
    }
    desk.batch_end(NOW);
    desk.ended(CallKey(1));
    desk.signal(invite("c"), true, None, NOW);
    assert!(matches!(desk.batch_end(NOW)[..], [DeskAction::Start { key: CallKey(3), .. }]));
}
