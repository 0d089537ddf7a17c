//! Commands and permissions.

use super::*;

#[test]
fn a_command_is_acknowledged_first_and_answered_in_its_thread_as_a_notice() {
    let mut scene = Scene::new();
    let out = scene.ada("!record help", 1.0);
    assert_eq!(out[0], RoomAction::React { event: "$command".to_owned(), key: "✅" });
    let (message, relation) = messages(&out, MessageKind::Reply).remove(0);
    assert!(message.notice && message.mentions.is_empty() && message.html.contains("<code>"));
    assert!(message.plain.contains("matrix.allow") && message.plain.contains("power level 50 or more"));
    let thread = |root: &str| Relation::Thread { root: root.to_owned(), reply_to: "$command".to_owned() };
    assert_eq!(relation, thread("$command"));

    let inside = Said { thread_root: Some("$root".to_owned()), ..said(ADA, "!record status", 2.0) };
    let out = scene.room.command(&inside, &trusted(), at(2.0));
    assert_eq!(messages(&out, MessageKind::Reply)[0].1, thread("$root"));
}

#[test]
fn start_before_anybody_is_in_the_call_waits_for_it_and_says_so() {
    let mut scene = Scene::new();
    let out = scene.ada("!start", 1.0);
    assert!(begun(&out).is_none() && reply(&out).contains("I wait"), "{out:?}");
    assert_eq!(scene.room.activity(), Activity::Armed);
    assert_eq!(scene.room.durable().armed_by.as_deref(), Some(ADA));
    assert!(reply(&scene.ada("!start", 2.0)).contains("waiting for the call already"));
    let out = scene.here(&[BOB], 600.0);
    assert_eq!(begun(&out), Some((Some(ADA.to_owned()), false)));
    assert_eq!(scene.room.durable().armed_by, None);
}

#[test]
fn start_during_a_call_begins_at_once_and_twice_says_that_it_runs() {
    let mut scene = Scene::new();
    scene.here(&[ADA], 0.0);
    let out = scene.ada("!record start", 1.0);
    assert_eq!(begun(&out), Some((Some(ADA.to_owned()), false)));
    assert!(reply(&out).contains("Recording begins"));
    let out = scene.type_as(BOB, "!start", trusted(), 2.0);
    assert!(begun(&out).is_none() && reply(&out).contains("recording already"), "{out:?}");
}

#[test]
fn stop_of_a_room_that_waits_disarms_it_and_of_an_idle_one_says_so() {
    let mut scene = Scene::new();
    scene.ada("!start", 1.0);
    assert!(reply(&scene.ada("!stop", 2.0)).contains("no longer wait"));
    assert!(begun(&scene.here(&[BOB], 3.0)).is_none());
    let out = scene.ada("!stop", 4.0);
    assert!(reply(&out).contains("Nothing is being recorded") && stopped(&out).is_none());
}

#[test]
fn start_while_the_last_recording_is_being_ended_begins_the_next_after_it() {
    let mut scene = Scene::recording();
    assert_eq!(stopped(&scene.ada("!stop", 2.0)), Some(EndReason::Stopped));
    assert!(stopped(&scene.ada("!stop", 2.5)).is_none());
    let out = scene.ada("!start", 3.0);
    assert!(begun(&out).is_none() && reply(&out).contains("next one begins"));
    assert!(begun(&scene.ended(EndReason::Stopped, 4.0)).is_some());
}

#[test]
fn starting_and_stopping_need_the_allow_list_and_the_rooms_power_level() {
    for command in ["!start", "!stop", "!record auto on", "!record auto off"] {
        let mut scene = Scene::recording();
        let out = scene.type_as(EVE, command, Authority { allowed: false, ..trusted() }, 2.0);
        assert_eq!(counted(&out), [Refusal::NotAllowed], "{command}");
        assert!(reply(&out).contains("not on the list"));
        let out = scene.type_as(EVE, command, Authority { level: 49, ..trusted() }, 3.0);
        assert_eq!(counted(&out), [Refusal::LowPower], "{command}");
        assert!(reply(&out).contains("power level 50") && reply(&out).contains("yours is 49"));
        assert_eq!(reacted(&out), Some("❌"), "not 🚫, by which people opt out");
        assert_eq!((stopped(&out), scene.room.activity()), (None, Activity::Recording));
    }
}

#[test]
fn a_refusal_is_told_once_and_counted_each_time() {
    let mut scene = Scene::new();
    assert!(!messages(&scene.type_as(EVE, "!stop", guest(), 1.0), MessageKind::Reply).is_empty());
    let again = scene.type_as(EVE, "!start", guest(), 2.0);
    assert!(messages(&again, MessageKind::Reply).is_empty(), "{again:?}");
    assert_eq!((counted(&again), reacted(&again)), (vec![Refusal::NotAllowed], Some("❌")));
}

#[test]
fn everybody_may_ask_and_choose_for_themselves() {
    let mut scene = Scene::recording();
    for command in ["!record status", "!record help", "!record optout", "!record optin"] {
        let out = scene.type_as(EVE, command, guest(), 2.0);
        assert_eq!((reacted(&out), counted(&out)), (Some("✅"), Vec::new()), "{command}");
    }
}

#[test]
fn without_our_own_power_level_start_names_what_is_missing_and_waits_for_nothing() {
    let mut scene = Scene::new();
    scene.here(&[ADA], 0.0);
    let weak = Authority { powers: Powers { own: 0, call_member: 50, message: 0 }, ..trusted() };
    let out = scene.type_as(ADA, "!start", weak, 1.0);
    assert_eq!(counted(&out), [Refusal::OwnPower]);
    assert_eq!(reply(&out), permission_notice(BOT, weak.powers).plain);
    assert!(begun(&out).is_none() && scene.room.durable().armed_by.is_none());
    assert!(begun(&scene.ada("!start", 2.0)).is_some(), "as soon as it was given");
}

#[test]
fn where_we_may_not_speak_nothing_begins_and_whoever_runs_us_hears_which_level_is_missing() {
    let mute = Powers { own: 50, call_member: 50, message: 60 };
    let mut scene = Scene::new();
    scene.here(&[ADA], 0.0);
    let out = scene.type_as(ADA, "!start", Authority { powers: mute, ..trusted() }, 1.0);
    assert_eq!((counted(&out), reacted(&out)), (vec![Refusal::OwnPower], Some("❌")));
    assert!(begun(&out).is_none() && scene.room.durable().armed_by.is_none());
    assert!(reported(&out)[0].contains("sending messages needs power level 60"), "{out:?}");
    assert!(!out.iter().any(|action| matches!(action, RoomAction::Say { .. })), "nobody would hear it");
    let again = scene.type_as(ADA, "!start", Authority { powers: mute, ..trusted() }, 2.0);
    assert!(reported(&again).is_empty(), "once an hour");
    assert!(begun(&scene.ada("!start", 3.0)).is_some(), "as soon as it was given");

    assert!(reported(&Scene::new().room.arrived(mute, at(1.0)))[0].contains("needs power level 60"));
    let mut scene = Scene::with(Settings { auto: true, ..settings() }, Durable::default());
    scene.room.powers(mute, at(0.0));
    let out = scene.here(&[ADA], 1.0);
    assert!(begun(&out).is_none() && reported(&out).len() == 1, "{out:?}");
}

#[test]
fn the_eleventh_command_of_a_minute_is_refused_once_in_words_and_then_in_silence() {
    let mut scene = Scene::new();
    for second in 0..10 {
        assert!(reply(&scene.ada("!record status", f64::from(second))).contains("Nothing"));
    }
    let out = scene.ada("!record status", 10.0);
    assert!(reply(&out).contains("more than 10 commands in a minute"));
    assert_eq!(scene.ada("!record status", 11.0), [RoomAction::Count(Refusal::TooMany)]);
    assert_eq!(scene.ada("!record nonsense", 12.0), [RoomAction::Count(Refusal::TooMany)]);
    assert!(reply(&scene.type_as(BOB, "!record status", guest(), 12.0)).contains("Nothing"));
    assert!(reply(&scene.ada("!record status", 60.0)).contains("Nothing"));
}

#[test]
fn an_opt_out_is_in_force_whatever_the_pace() {
    let mut scene = Scene::recording();
    for _ in 0..20 {
        scene.type_as(BOB, "!record status", guest(), 2.0);
    }
    let out = scene.type_as(BOB, "!record optout", guest(), 2.0);
    assert_eq!(out[0], RoomAction::OptOut { user: BOB.to_owned() });
    assert!(scene.room.is_opted_out(BOB));
    assert_eq!(
        scene.type_as(BOB, "!record optin", guest(), 2.0)[0],
        RoomAction::OptIn { user: BOB.to_owned() }
    );
}

#[test]
fn we_ourselves_those_not_in_the_room_and_those_of_before_our_start_are_not_obeyed() {
    let mut scene = Scene::new();
    scene.here(&[ADA], 0.0);
    assert_eq!(scene.type_as(BOT, "!start", trusted(), 1.0), []);
    let banned = Authority { joined: false, ..trusted() };
    assert_eq!(scene.type_as(EVE, "!start", banned, 1.0), [RoomAction::Count(Refusal::NotJoined)]);
    assert_eq!(scene.type_as(EVE, "!record optin", banned, 1.0), [RoomAction::Count(Refusal::NotJoined)]);
    let out = scene.type_as(EVE, "!record optout", banned, 1.0);
    assert_eq!(
        out[0],
        RoomAction::OptOut { user: EVE.to_owned() },
        "an objection holds for when they come back"
    );
    assert!(messages(&out, MessageKind::Reply).is_empty(), "and nobody is there to be answered");
    for command in ["!start", "!record status", "!record optin"] {
        let old = Said { age: Duration::from_secs(10), ..said(ADA, command, 5.0) };
        assert_eq!(scene.room.command(&old, &trusted(), at(5.0)), [], "{command}");
    }
    let young = Said { age: Duration::from_secs(4), ..said(ADA, "!start", 5.0) };
    assert!(begun(&scene.room.command(&young, &trusted(), at(5.0))).is_some());
}

#[test]
fn an_unknown_command_is_answered_with_the_nearest_one() {
    let mut scene = Scene::new();
    let out = scene.type_as(EVE, "!record strat", guest(), 1.0);
    assert_eq!((reacted(&out), counted(&out)), (Some("❌"), vec![Refusal::NotUnderstood]));
    assert!(reply(&out).contains("Did you mean `!record start`?") && reply(&out).contains("!record help"));
    let out = scene.ada(&format!("!record {}", "9".repeat(500)), 2.0);
    assert!(reply(&out).len() < 200, "what is endless is repeated in part");
    assert_eq!(scene.ada("I would record this", 3.0), []);
}

#[test]
fn the_status_says_who_asked_who_is_there_and_who_has_opted_out() {
    let mut scene = Scene::new();
    assert!(reply(&scene.ada("!record status", 0.0)).contains("nobody is in a call"));
    scene.here(&[ADA, BOB], 0.5);
    assert!(reply(&scene.ada("!record status", 0.6)).contains("2 people are in the call"));
    let mut scene = Scene::recording();
    scene.type_as(BOB, "!record optout", guest(), 1.5);
    let told = reply(&scene.ada("!record status", 2.0));
    assert!(
        told.contains("Asked for by @ada:hs") && told.contains("1 person in the call has opted out"),
        "{told}"
    );
}

#[test]
fn a_message_that_cannot_be_decrypted_gets_one_notice_of_its_sender() {
    let mut scene = Scene::new();
    let out = scene.room.undecryptable("$sealed", ADA, at(1.0));
    assert!(reply(&out).contains("could not decrypt"));
    assert_eq!(scene.room.undecryptable("$sealed2", ADA, at(2.0)), []);
    assert_eq!(scene.room.undecryptable("$sealed3", BOT, at(2.0)), []);
}

#[test]
fn a_room_that_gives_us_too_little_power_is_told_at_our_arrival_and_once() {
    let mut scene = Scene::new();
    let weak = Powers { own: 0, call_member: 50, message: 0 };
    let out = scene.room.arrived(weak, at(1.0));
    let told =
        |out: &[RoomAction]| out.iter().filter(|action| matches!(action, RoomAction::Say { .. })).count();
    assert_eq!(told(&out), 1);
    assert_eq!(told(&scene.room.arrived(weak, at(2.0))), 0);
    let enough = Powers { own: 50, call_member: 50, message: 0 };
    assert_eq!(told(&Scene::new().room.arrived(enough, at(1.0))), 0);
}

#[test]
fn what_was_said_after_our_joining_counts_though_we_heard_of_the_room_later() {
    let mut scene = Scene::new();
    let mut early = said(ADA, "!start", 0.0);
    early.received = at(0.0);
    early.age = std::time::Duration::from_secs(2);
    assert_eq!(scene.room.command(&early, &trusted(), at(0.0)), []);
    scene.room.joined(at(0.0) - std::time::Duration::from_secs(3));
    assert_ne!(scene.room.command(&early, &trusted(), at(0.0)), []);
}
