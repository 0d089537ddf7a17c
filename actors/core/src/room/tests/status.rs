//! The status message.

use super::*;
use crate::manifest::EventKind;

fn progress(duration_s: f64, streams: usize) -> Progress {
    Progress { state: RecordingState::Recording, duration_s, participants: 2, streams, ..Progress::default() }
}

impl Scene {
    fn progress(&mut self, progress: Progress, now: f64) -> Vec<RoomAction> {
        let out = self.room.recording(progress, at(now));
        self.sent(out, now)
    }
}

#[test]
fn one_status_message_is_sent_at_the_beginning_and_edited_from_then_on() {
    let mut scene = Scene::new();
    scene.here(&[ADA], 0.0);
    let out = scene.ada("!start", 1.0);
    assert_eq!(messages(&out, MessageKind::Status)[0].1, Relation::None);
    let out = scene.progress(progress(5.0, 3), 6.0);
    let (message, relation) = messages(&out, MessageKind::StatusEdit).remove(0);
    assert_eq!(message.plain, "● Recording · 00:00:05 · 2 participants · 3 streams");
    assert!(message.notice && matches!(relation, Relation::Edit { event } if event.starts_with("$Status-")));
}

#[test]
fn it_is_edited_at_most_every_5_seconds_and_not_for_the_duration_alone() {
    let mut scene = Scene::recording();
    let mut edits = Vec::new();
    for second in 2..60 {
        let streams = 2 + (second % 2) * usize::from(second < 30);
        let out = scene.progress(progress(second as f64, streams), second as f64);
        edits.extend(messages(&out, MessageKind::StatusEdit).iter().map(|_| second));
    }
    assert!(edits.windows(2).all(|pair| pair[1] - pair[0] >= 5), "{edits:?}");
    assert!(edits.len() >= 4 && *edits.last().unwrap() <= 35, "{edits:?}");
}

#[test]
fn a_long_recording_shows_its_duration_anew_each_minute() {
    let mut scene = Scene::recording();
    let edits = (2..=302)
        .filter(|second| {
            let out = scene.progress(progress(f64::from(*second), 2), f64::from(*second));
            !messages(&out, MessageKind::StatusEdit).is_empty()
        })
        .count();
    assert!((5..=7).contains(&edits), "{edits}");
}

#[test]
fn warnings_are_shown_cut_and_few() {
    let mut scene = Scene::recording();
    let warnings = (0..9).map(|at| format!("<b>{at}{}", "w".repeat(900))).collect();
    let out = scene.progress(Progress { warnings, ..progress(9.0, 2) }, 10.0);
    let (message, _) = messages(&out, MessageKind::StatusEdit).remove(0);
    assert_eq!(message.plain.lines().count(), 1 + limits::WARNINGS);
    assert!(message.plain.len() < 1_200 && message.html.contains("⚠ &lt;b&gt;0"));
}

#[test]
fn the_last_edit_says_that_it_is_over_and_waits_for_its_time() {
    let mut scene = Scene::recording();
    scene.progress(progress(5.0, 4), 6.0);
    scene.ada("!stop", 7.0);
    let out = scene.ended(EndReason::Stopped, 8.0);
    assert!(messages(&out, MessageKind::StatusEdit).is_empty());
    assert!(messages(&scene.tick(10.9), MessageKind::StatusEdit).is_empty());
    let last = text(&scene.tick(11.0), MessageKind::StatusEdit);
    assert_eq!(last, "■ Recorded · 00:01:01 · 2 participants · 4 streams · it was stopped");
    assert_eq!(scene.tick(60.0), []);
}

#[test]
fn a_message_that_failed_is_sent_again_and_an_edit_waits_for_the_one_under_way() {
    let mut scene = Scene::new();
    scene.answers = false;
    scene.here(&[ADA], 0.0);
    let first = status_tag(&scene.ada("!start", 1.0)).unwrap();
    assert_eq!(status_tag(&scene.progress(progress(5.0, 3), 7.0)), None, "its event is not known yet");
    scene.room.failed(first, at(8.0));
    let second = status_tag(&scene.tick(8.0)).unwrap();
    assert_eq!(second.kind, MessageKind::Status);
    scene.room.said(second, "$status", at(9.0));
    assert_eq!(scene.room.durable().running.as_ref().unwrap().status.as_deref(), Some("$status"));
    let edit = status_tag(&scene.progress(progress(20.0, 5), 20.0)).unwrap();
    assert_eq!(edit.kind, MessageKind::StatusEdit);
}

#[test]
fn power_that_is_taken_away_while_recording_is_told_once_and_shown_until_it_is_back() {
    let mut scene = Scene::recording();
    let levels = |own| Powers { own, call_member: 50, message: 0 };
    let out = scene.room.powers(levels(0), at(10.0));
    let out = scene.sent(out, 10.0);
    let notice = text(&out, MessageKind::Notice);
    for part in
        ["is 0 now", "needs 50", "org.matrix.msc3401.call.member", "within an hour", "/op @recorder:hs 50"]
    {
        assert!(notice.contains(part), "{part}: {notice}");
    }
    assert!(text(&out, MessageKind::StatusEdit).contains("⚠ My power level is 0 now"), "{out:?}");
    assert!(out.iter().any(|action| {
        matches!(action, RoomAction::ConsentEvent { kind: EventKind::Warning, detail, .. } if detail["what"] == "power_lost")
    }));
    assert!(stopped(&out).is_none());
    assert_eq!(scene.room.powers(levels(0), at(11.0)), []);
    let asked = scene.type_as(ADA, "!record status", Authority { powers: levels(0), ..trusted() }, 12.0);
    assert!(reply(&asked).contains("My power level is 0 now"));
    let out = scene.room.powers(levels(50), at(20.0));
    assert!(!text(&out, MessageKind::StatusEdit).contains('⚠'), "{out:?}");
    let again = scene.room.powers(levels(0), at(30.0));
    assert!(messages(&again, MessageKind::Notice).is_empty(), "not at each turn of a quarrel");

    let mut scene = Scene::recording();
    let mute = scene.room.powers(Powers { own: 50, call_member: 50, message: 60 }, at(10.0));
    assert!(reported(&mute)[0].contains("may no longer send messages (60 is needed"), "{mute:?}");
    assert!(!mute.iter().any(|action| matches!(action, RoomAction::Say { .. })));
}

#[test]
fn nothing_is_edited_where_we_may_not_speak_until_we_may_again() {
    let mut scene = Scene::recording();
    scene.room.powers(Powers { own: 50, call_member: 50, message: 60 }, at(2.0));
    assert!(status_tag(&scene.progress(progress(9.0, 3), 10.0)).is_none());
    let out = scene.room.powers(Powers { own: 60, call_member: 50, message: 60 }, at(11.0));
    assert!(status_tag(&out).is_some());
}

fn status_tag(out: &[RoomAction]) -> Option<MessageTag> {
    out.iter().find_map(|action| match action {
        RoomAction::Say { tag, .. } if matches!(tag.kind, MessageKind::Status | MessageKind::StatusEdit) => {
            Some(*tag)
        }
        _ => None,
    })
}
