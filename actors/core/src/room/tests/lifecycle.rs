//! When sessions begin and end.

use super::*;

fn auto() -> Settings {
    Settings { auto: true, ..settings() }
}

#[test]
fn the_session_ends_when_nobody_but_us_was_in_the_call_for_a_minute() {
    let mut scene = Scene::recording();
    scene.here(&[BOT], 10.0);
    assert!(stopped(&scene.tick(69.9)).is_none());
    scene.here(&[BOB], 69.9);
    scene.room.gathering(None, at(70.0));
    assert!(stopped(&scene.tick(129.9)).is_none(), "somebody came back in time");
    assert_eq!(stopped(&scene.tick(130.0)), Some(EndReason::EveryoneLeft));
    assert!(stopped(&scene.tick(200.0)).is_none(), "asked once");
    let out = scene.ended(EndReason::EveryoneLeft, 201.0);
    assert_eq!(named(&out), Some(None));
    assert!(text(&out, MessageKind::Saved).contains("everybody has left"));
}

#[test]
fn stop_is_announced_with_who_stopped_it_and_what_was_recorded() {
    let mut scene = Scene::recording();
    assert_eq!(stopped(&scene.type_as(BOB, "!stop", trusted(), 60.0)), Some(EndReason::Stopped));
    let out = scene.ended(EndReason::Stopped, 61.0);
    assert_eq!(
        text(&out, MessageKind::Saved),
        "The recording has ended: stopped by @bob:hs. I recorded 2 participants, 4 streams, 00:01:01, 2.0 MB."
    );
    assert_eq!(scene.room.activity(), Activity::Idle);
    assert!(scene.room.durable().running.is_none());
}

#[test]
fn the_manifest_is_told_who_stopped_it_unless_they_opted_out() {
    let by = |out: &[RoomAction]| {
        out.iter().find_map(|action| match action {
            RoomAction::Stop { by, .. } => Some(by.clone()),
            _ => None,
        })
    };
    let mut scene = Scene::recording();
    assert_eq!(by(&scene.type_as(BOB, "!stop", trusted(), 60.0)), Some(Some(BOB.to_owned())));
    let mut scene = Scene::recording();
    scene.type_as(BOB, "!record optout", guest(), 50.0);
    assert_eq!(by(&scene.type_as(BOB, "!stop", trusted(), 60.0)), Some(None));
    let out = scene.ended(EndReason::Stopped, 61.0);
    assert!(text(&out, MessageKind::Saved).contains("stopped by @bob:hs"), "those in the room saw it");
}

#[test]
fn a_start_holds_for_one_gathering_only() {
    let mut scene = Scene::recording();
    scene.room.gathering(None, at(10.0));
    scene.tick(70.0);
    scene.ended(EndReason::EveryoneLeft, 71.0);
    assert!(begun(&scene.here(&[ADA], 80.0)).is_none());
    assert!(begun(&scene.ada("!start", 81.0)).is_some());
}

#[test]
fn with_auto_each_new_gathering_of_the_same_call_begins_a_recording() {
    let mut scene = Scene::with(auto(), Durable::default());
    assert_eq!(begun(&scene.here(&[ADA], 1.0)), Some((None, true)));
    scene.room.gathering(None, at(10.0));
    assert_eq!(stopped(&scene.tick(70.0)), Some(EndReason::EveryoneLeft));
    assert!(begun(&scene.here(&[BOB], 70.5)).is_none(), "the last one is still being ended");
    assert!(begun(&scene.ended(EndReason::EveryoneLeft, 71.0)).is_some());
}

#[test]
fn after_stop_auto_leaves_the_gathering_alone_also_across_a_restart_and_takes_the_next() {
    let mut scene = Scene::with(auto(), Durable::default());
    scene.here(&[ADA, BOB], 1.0);
    scene.ada("!stop", 2.0);
    assert!(begun(&scene.ended(EndReason::Stopped, 3.0)).is_none());
    scene.room.gathering(None, at(4.0));
    assert!(begun(&scene.here(&[ADA], 10.0)).is_none(), "a reload of the page is no new gathering");

    let durable = scene.room.durable().clone();
    let mut scene = Scene::with(Settings { started: at(20.0), listening: at(20.0), ..auto() }, durable);
    assert!(begun(&scene.here(&[ADA], 21.0)).is_none());
    scene.room.gathering(None, at(30.0));
    scene.tick(90.0);
    assert!(begun(&scene.here(&[ADA], 91.0)).is_some());
}

#[test]
fn a_gathering_that_ended_while_no_process_looked_does_not_hold_auto_off() {
    let durable = Durable { held_off: Some("call".to_owned()), ..Durable::default() };
    let mut scene = Scene::with(auto(), durable);
    scene.tick(60.0);
    assert!(begun(&scene.here(&[ADA], 61.0)).is_some());
}

#[test]
fn auto_by_command_wins_over_the_configuration_and_holds_for_the_next_call() {
    let mut scene = Scene::new();
    scene.here(&[ADA], 0.0);
    let out = scene.ada("!record auto on", 1.0);
    assert!(begun(&out).is_none() && reply(&out).contains("`!record start`"), "{out:?}");
    scene.room.gathering(None, at(2.0));
    scene.tick(62.0);
    assert_eq!(begun(&scene.here(&[BOB], 63.0)), Some((Some(ADA.to_owned()), true)));
    let mut scene = Scene::with(auto(), Durable::default());
    scene.ada("!record auto off", 1.0);
    assert!(begun(&scene.here(&[ADA], 2.0)).is_none());
}

#[test]
fn a_recording_that_cannot_be_begun_is_not_begun_again_by_itself() {
    let mut scene = Scene::with(auto(), Durable::default());
    scene.here(&[ADA], 1.0);
    assert!(begun(&scene.ended(EndReason::Failed, 2.0)).is_none());
    assert!(begun(&scene.here(&[ADA, BOB], 3.0)).is_none());
    assert!(begun(&scene.ada("!start", 4.0)).is_some());
}

#[test]
fn the_calls_termination_ends_the_session_at_once() {
    let mut scene = Scene::recording();
    let out = scene.room.close(Closing::CallTerminated, at(10.0));
    assert_eq!(stopped(&out), Some(EndReason::Terminated));
    assert_eq!(scene.room.activity(), Activity::Stopping);
    scene.ended(EndReason::Terminated, 11.0);
    assert!(begun(&scene.ada("!start", 12.0)).is_none(), "nobody is in a call");
    assert!(begun(&scene.here(&[ADA], 13.0)).is_some());
}

#[test]
fn a_call_that_begins_right_after_a_termination_is_a_new_gathering() {
    let mut scene = Scene::with(auto(), Durable::default());
    assert!(begun(&scene.here(&[ADA], 1.0)).is_some());
    assert!(begun(&scene.ended(EndReason::Terminated, 5.0)).is_none());
    assert!(begun(&scene.here(&[ADA], 6.0)).is_some());
}

#[test]
fn another_call_of_the_room_does_not_become_part_of_the_session() {
    let mut scene = Scene::recording();
    scene.room.gathering(view("other", &[EVE]), at(10.0));
    assert!(stopped(&scene.tick(69.0)).is_none());
    assert_eq!(stopped(&scene.tick(70.0)), Some(EndReason::EveryoneLeft));
    assert!(begun(&scene.ended(EndReason::EveryoneLeft, 71.0)).is_none());
    let out = scene.ada("!start", 72.0);
    assert!(
        out.iter().any(|action| matches!(action, RoomAction::Begin { call_id, .. } if call_id == "other"))
    );
}

#[test]
fn a_recorder_removed_from_the_room_ends_in_silence_and_forgets_to_wait_but_not_who_opted_out() {
    let mut scene = Scene::recording();
    scene.ada("!record auto on", 2.0);
    scene.type_as(BOB, "!record optout", guest(), 2.0);
    assert_eq!(stopped(&scene.room.close(Closing::Removed, at(3.0))), Some(EndReason::Removed));
    let out = scene.ended(EndReason::Removed, 4.0);
    assert_eq!(out, [RoomAction::Persist], "nothing can be said any more");
    assert_eq!(scene.room.activity(), Activity::Closed);
    assert_eq!(scene.ada("!start", 5.0), []);
    assert!(begun(&scene.here(&[ADA], 6.0)).is_none());
    scene.room.rejoined();
    assert!(scene.room.is_opted_out(BOB) && !scene.room.auto());
    scene.here(&[ADA], 7.0);
    assert!(begun(&scene.ada("!start", 8.0)).is_some());
}

#[test]
fn a_replaced_room_ends_the_session_and_says_where_to_go() {
    let mut scene = Scene::recording();
    let out = scene.room.close(Closing::Upgraded { to: Some("!new:hs".to_owned()) }, at(3.0));
    assert_eq!(stopped(&out), Some(EndReason::RoomUpgraded));
    assert!(text(&out, MessageKind::Notice).contains("!new:hs"));
    scene.ended(EndReason::RoomUpgraded, 4.0);
    scene.room.rejoined();
    let out = scene.ada("!start", 5.0);
    assert!(begun(&out).is_none() && counted(&out) == [Refusal::RoomReplaced]);
}

#[test]
fn auto_without_the_power_to_join_says_what_is_missing_once_and_begins_when_it_was_given() {
    let mut scene = Scene::with(auto(), Durable::default());
    scene.room.powers(Powers { own: 0, call_member: 50, message: 0 }, at(0.0));
    let out = scene.here(&[ADA], 1.0);
    assert!(begun(&out).is_none());
    assert!(text(&out, MessageKind::Notice).contains("power level 50"));
    assert_eq!(scene.here(&[ADA, BOB], 2.0), []);
    assert!(begun(&scene.room.powers(Powers { own: 50, call_member: 50, message: 0 }, at(3.0))).is_some());
}

#[test]
fn nothing_is_announced_while_as_many_calls_as_may_be_are_recorded_and_it_begins_when_one_ends() {
    let mut scene = Scene::new();
    scene.room.full(Some(2));
    scene.here(&[ADA, BOB], 0.0);
    let out = scene.ada("!start", 1.0);
    assert!(begun(&out).is_none() && messages(&out, MessageKind::Announcement).is_empty());
    let told = reply(&out);
    assert!(told.contains("2 calls at once") && told.contains("`calls.max`"), "{told}");
    assert_eq!(scene.tick(2.0), [], "once");
    scene.room.full(None);
    assert_eq!(begun(&scene.tick(3.0)), Some((Some(ADA.to_owned()), false)));

    let mut scene = Scene::with(auto(), Durable::default());
    scene.room.full(Some(1));
    assert!(text(&scene.here(&[ADA], 1.0), MessageKind::Notice).contains("`calls.max`"));
    assert_eq!(scene.here(&[ADA, BOB], 2.0), []);
    scene.room.full(None);
    assert!(begun(&scene.tick(3.0)).is_some());
}

#[test]
fn after_a_restart_the_session_goes_on_and_nobody_is_told_twice() {
    let scene = Scene::recording();
    let kept = serde_json::to_vec(scene.room.durable()).unwrap();
    let restarted = Settings { started: at(30.0), listening: at(30.0), ..settings() };
    let mut scene = Scene::with(restarted, serde_json::from_slice(&kept).unwrap());
    assert_eq!(scene.room.activity(), Activity::Recording);
    let out = scene.room.start_restored(at(31.0));
    let out = scene.sent(out, 31.0);
    assert_eq!(named(&out), Some(Some("● REC Recorder".to_owned())));
    assert!(
        matches!(messages(&out, MessageKind::StatusEdit)[0].1, Relation::Edit { .. }),
        "the same message"
    );
    assert!(begun(&out).is_none());
    scene.here(&[ADA, BOB, EVE], 32.0);
    let out = scene.tick(33.0);
    assert_eq!(messages(&out, MessageKind::LateJoiners)[0].0.mentions, [EVE]);
    assert_eq!(stopped(&scene.ada("!stop", 34.0)), Some(EndReason::Stopped));
}

#[test]
fn an_orderly_stop_leaves_a_paused_status_and_our_own_name_and_the_next_process_sets_both_again() {
    let mut scene = Scene::recording();
    let out = scene.room.shut_down(at(2.0));
    let out = scene.sent(out, 2.0);
    assert_eq!(named(&out), Some(None));
    let paused = text(&out, MessageKind::StatusEdit);
    assert!(
        paused.starts_with("○ Paused") && paused.contains("If it is back while this call lasts"),
        "{paused}"
    );
    assert!(stopped(&out).is_none() && scene.room.durable().running.is_some());
    assert_eq!(scene.room.shut_down(at(2.1)), []);
    // Whatever is seen meanwhile: nobody is recorded, so nobody is told, and the status stays.
    assert_eq!(scene.here(&[ADA, BOB, EVE], 3.0), []);
    let ending = Progress { state: RecordingState::Ending, ..Progress::default() };
    assert_eq!(scene.room.recording(ending, at(4.0)), []);
    assert_eq!(scene.tick(5.0), []);

    let restarted = Settings { started: at(30.0), listening: at(30.0), ..settings() };
    let mut scene = Scene::with(restarted, scene.room.durable().clone());
    let out = scene.room.start_restored(at(31.0));
    assert_eq!(named(&out), Some(Some("● REC Recorder".to_owned())));
    assert!(!text(&out, MessageKind::StatusEdit).contains("Paused"));
}

#[test]
fn what_was_asked_to_end_does_not_go_on_in_the_next_process() {
    let mut scene = Scene::recording();
    assert!(!scene.room.durable().running.as_ref().unwrap().stopping);
    let out = scene.ada("!stop", 2.0);
    assert!(out.contains(&RoomAction::Persist));
    assert!(scene.room.durable().running.as_ref().unwrap().stopping);
    let out = scene.room.shut_down(at(2.1));
    assert!(messages(&out, MessageKind::StatusEdit).is_empty(), "its end is at hand: {out:?}");
}

#[test]
fn of_an_earlier_processs_session_nothing_is_said_before_it_is_known_whether_it_goes_on() {
    let scene = Scene::recording();
    let mut scene = Scene::with(
        Settings { started: at(30.0), listening: at(30.0), ..settings() },
        scene.room.durable().clone(),
    );
    assert_eq!(
        scene.room.called(Some("Recorder"), at(30.1)),
        [RoomAction::Persist],
        "which name was ours before"
    );
    assert_eq!(scene.room.powers(Powers { own: 0, call_member: 50, message: 0 }, at(30.2)), []);
    let out = scene.room.start_restored(at(31.0));
    assert_eq!(named(&out), Some(Some("● REC Recorder".to_owned())));
    assert_eq!(messages(&out, MessageKind::StatusEdit).len(), 1);
    let out = scene.room.powers(Powers { own: 0, call_member: 50, message: 0 }, at(32.0));
    assert_eq!(messages(&out, MessageKind::Notice).len(), 1);
}

#[test]
fn a_session_that_does_not_go_on_after_a_restart_is_closed_in_the_room() {
    let scene = Scene::recording();
    let mut scene = Scene::with(
        Settings { started: at(30.0), listening: at(30.0), ..settings() },
        scene.room.durable().clone(),
    );
    let nothing = Ended { saved: Saved::default(), participants: 0, reason: EndReason::Restarted };
    let out = scene.room.ended(nothing, at(31.0));
    assert!(text(&out, MessageKind::Saved).contains("What was recorded before is kept"), "{out:?}");
    assert_eq!(text(&out, MessageKind::StatusEdit), "■ Recorded · the recorder was restarted");
    assert_eq!(named(&out), Some(None));
    assert_eq!(messages(&out, MessageKind::Saved).len(), 1);
    assert_eq!(messages(&out, MessageKind::StatusEdit).len(), 1);
    assert_eq!(scene.room.activity(), Activity::Idle);
}

#[test]
fn a_restored_session_in_which_nobody_is_found_ends_after_a_minute() {
    let scene = Scene::recording();
    let mut scene = Scene::with(
        Settings { started: at(30.0), listening: at(30.0), ..settings() },
        scene.room.durable().clone(),
    );
    scene.room.start_restored(at(30.0));
    assert!(stopped(&scene.tick(89.0)).is_none());
    assert_eq!(stopped(&scene.tick(90.0)), Some(EndReason::EveryoneLeft));
}

#[test]
fn after_a_shutdown_nothing_begins_in_this_process_and_auto_may_in_the_next() {
    let mut scene = Scene::with(auto(), Durable::default());
    scene.here(&[ADA], 1.0);
    assert!(begun(&scene.ended(EndReason::Shutdown, 2.0)).is_none());
    let durable = scene.room.durable().clone();
    let mut scene = Scene::with(Settings { started: at(5.0), listening: at(5.0), ..auto() }, durable);
    assert!(begun(&scene.here(&[ADA], 6.0)).is_some());
}

#[test]
fn a_thousand_members_and_hostile_names_are_bounded() {
    let mut scene = Scene::new();
    let members: Vec<String> =
        (0..5_000).map(|user| format!("@{user}:hs")).chain(["x".repeat(9_000), String::new()]).collect();
    let members: Vec<&str> = members.iter().map(String::as_str).collect();
    scene.here(&members, 0.0);
    let mut out = scene.ada("!start", 1.0);
    for second in 2..400 {
        out.extend(scene.tick(f64::from(second)));
    }
    let told = scene.room.durable().running.as_ref().unwrap().told.len();
    assert_eq!(told, limits::TOLD);
    assert!(begun(&scene.room.gathering(view(&"c".repeat(300), &[ADA]), at(500.0))).is_none());
}
