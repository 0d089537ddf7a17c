//! Our name in the room.

use super::*;

const REC: &str = "● REC Scribe";

fn scribe() -> Settings {
    Settings { name: String::new(), ..settings() }
}

fn number(out: &[RoomAction]) -> Option<u64> {
    out.iter().find_map(|action| match action {
        RoomAction::SetName { number, .. } => Some(*number),
        _ => None,
    })
}

/// Recording in a room that called us Scribe.
fn recording(scene: &mut Scene) -> u64 {
    scene.here(&[ADA], 0.5);
    let out = scene.ada("!start", 1.0);
    assert_eq!(named(&out), Some(Some(REC.to_owned())));
    number(&out).unwrap()
}

#[test]
fn what_we_were_called_in_the_room_before_comes_back() {
    let mut scene = Scene::with(scribe(), Durable::default());
    scene.room.called(Some("Scribe"), at(0.1));
    let set = recording(&mut scene);
    assert_eq!(scene.room.durable().renamed, Some(Renamed { before: Some("Scribe".to_owned()) }));
    scene.room.named(set, true, at(1.1));
    scene.room.called(Some(REC), at(1.2));
    scene.ada("!stop", 2.0);
    let out = scene.ended(EndReason::Stopped, 3.0);
    assert_eq!(named(&out), Some(Some("Scribe".to_owned())));
    let out = scene.room.named(number(&out).unwrap(), true, at(3.1));
    assert_eq!((&out[..], &scene.room.durable().renamed), (&[RoomAction::Persist][..], &None));
    assert_eq!(scene.room.called(Some("Scribe"), at(3.2)), []);
}

#[test]
fn a_name_that_was_not_taken_is_tried_again_with_pauses_that_grow_whichever_it_is() {
    let mut scene = Scene::with(scribe(), Durable::default());
    scene.room.called(Some("Scribe"), at(0.1));
    let mut set = Some(recording(&mut scene));
    for wanted in [Some(REC.to_owned()), Some("Scribe".to_owned())] {
        let began = if wanted.as_deref() == Some(REC) { 2 } else { 3_000 };
        let mut tries = Vec::new();
        for second in began..began + 1_000 {
            if let Some(number) = set.take() {
                scene.room.named(number, false, at(f64::from(second)));
                tries.push(second - began);
            }
            let out = scene.tick(f64::from(second));
            assert!(named(&out).is_none_or(|name| name == wanted), "{out:?}");
            set = number(&out);
        }
        let apart: Vec<_> = tries.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(tries.len() > 5 && apart.windows(2).all(|pair| pair[0] <= pair[1] + 1), "{tries:?}");
        assert!(apart.last().is_some_and(|last| *last <= 301), "{tries:?}");
        scene.ada("!stop", 2_999.0);
        set = number(&scene.ended(EndReason::Stopped, 2_999.5)).or(set);
    }
}

#[test]
fn a_name_that_somebody_changes_while_we_record_is_set_again_and_theirs_comes_back_after() {
    let mut scene = Scene::with(scribe(), Durable::default());
    scene.room.called(Some("Scribe"), at(0.1));
    let set = recording(&mut scene);
    scene.room.named(set, true, at(1.1));
    assert_eq!(named(&scene.room.called(Some("Writer"), at(20.0))), Some(Some("● REC Writer".to_owned())));
    assert_eq!(named(&scene.room.called(Some("Scribe"), at(20.1))), Some(Some(REC.to_owned())));
    assert_eq!(scene.room.called(Some("Scribe"), at(21.0)), [], "not at each turn of a quarrel");
    scene.ada("!stop", 30.0);
    assert_eq!(named(&scene.ended(EndReason::Stopped, 31.0)), Some(Some("Scribe".to_owned())));
}

#[test]
fn a_name_that_an_earlier_process_left_is_put_right_at_the_start() {
    let mut scene = Scene::with(scribe(), Durable::default());
    scene.room.called(Some("Scribe"), at(0.1));
    recording(&mut scene);
    scene.ada("!stop", 2.0);
    scene.ended(EndReason::Stopped, 3.0);
    // Killed before the homeserver answered.
    let kept = serde_json::to_string(scene.room.durable()).unwrap();
    let restarted = Settings { started: at(10.0), listening: at(10.0), ..scribe() };
    let mut scene = Scene::with(restarted.clone(), serde_json::from_str(&kept).unwrap());
    assert_eq!(named(&scene.tick(11.0)), Some(Some("Scribe".to_owned())));
    // One whose memory was lost sees it.
    let mut scene = Scene::with(restarted, Durable::default());
    assert_eq!(scene.tick(11.0), []);
    assert_eq!(named(&scene.room.called(Some(REC), at(12.0))), Some(None), "to the account's own");
}

#[test]
fn who_is_removed_from_the_room_has_no_name_there_to_put_right() {
    let mut scene = Scene::with(scribe(), Durable::default());
    scene.room.called(Some("Scribe"), at(0.1));
    recording(&mut scene);
    scene.room.close(Closing::Removed, at(2.0));
    scene.ended(EndReason::Removed, 3.0);
    assert_eq!(scene.room.durable().renamed, None);
    assert_eq!(scene.tick(60.0), []);
}
