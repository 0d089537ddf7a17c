//! Who is told, and who is not recorded.

use super::*;
use crate::manifest::EventKind;

const MANY: usize = 130;

fn told(out: &[RoomAction], kind: MessageKind) -> Vec<String> {
    messages(out, kind).into_iter().flat_map(|(message, _)| message.mentions).collect()
}

/// Which message tells people that they are recorded.
fn consent_tag(out: &[RoomAction]) -> Option<MessageTag> {
    out.iter().find_map(|action| match action {
        RoomAction::Say { tag, .. }
            if matches!(tag.kind, MessageKind::Announcement | MessageKind::LateJoiners) =>
        {
            Some(*tag)
        }
        _ => None,
    })
}

/// The event id of the announcement.
fn announced(out: &[RoomAction]) -> String {
    out.iter()
        .find_map(|action| match action {
            RoomAction::Say { tag, .. } if tag.kind == MessageKind::Announcement => Some(event_of(*tag)),
            _ => None,
        })
        .unwrap()
}

#[test]
fn at_the_beginning_everybody_in_the_call_is_told_by_whom_and_how_to_object() {
    let mut scene = Scene::new();
    scene.here(&[ADA, BOB, BOB, BOT], 0.0);
    let out = scene.ada("!start", 1.0);
    let (message, relation) = messages(&out, MessageKind::Announcement).remove(0);
    assert_eq!(
        (message.mentions, message.notice, relation),
        (vec![ADA.into(), BOB.into()], false, Relation::None)
    );
    for part in ["recording has begun", "started by @ada:hs", "🚫", "`!record optout`"] {
        assert!(message.plain.contains(part), "{part}: {}", message.plain);
    }
    assert!(message.html.contains("https://matrix.to/#/@bob:hs"));
    assert_eq!(named(&out), Some(Some("● REC Recorder".to_owned())));
    let consent = out.iter().any(|action| {
        matches!(action, RoomAction::ConsentEvent { kind: EventKind::Consent, detail, .. }
            if detail["what"] == "announced" && detail["told"].as_array().unwrap().len() == 2)
    });
    assert!(consent, "{out:?}");
}

#[test]
fn those_who_come_late_are_told_together_once_a_session_and_not_again_when_they_rejoin() {
    let mut scene = Scene::recording();
    scene.here(&[ADA, BOB, "@c:hs"], 10.0);
    scene.here(&[ADA, BOB, "@c:hs", "@d:hs"], 10.5);
    let out = scene.tick(11.0);
    assert_eq!(told(&out, MessageKind::LateJoiners), ["@c:hs", "@d:hs"]);
    // The next comes no sooner than 5 s later, and within 5 s of who came.
    assert_eq!(told(&scene.here(&[ADA, BOB, "@e:hs"], 11.5), MessageKind::LateJoiners), [""; 0]);
    assert_eq!(told(&scene.tick(15.9), MessageKind::LateJoiners), [""; 0]);
    assert_eq!(told(&scene.tick(16.0), MessageKind::LateJoiners), ["@e:hs"]);
    for second in 17..60 {
        let there: &[&str] = if second % 2 == 0 { &[ADA] } else { &[ADA, BOB, "@c:hs", "@d:hs", "@e:hs"] };
        assert_eq!(told(&scene.here(there, f64::from(second)), MessageKind::LateJoiners), [""; 0]);
    }
}

#[test]
fn more_people_than_a_message_can_mention_get_the_next_ones() {
    let users: Vec<String> = (0..MANY).map(|user| format!("@{user}{}:hs", "x".repeat(90))).collect();
    let members: Vec<&str> = users.iter().map(String::as_str).collect();
    let mut scene = Scene::new();
    scene.here(&members, 0.0);
    let mut out = scene.ada("!start", 1.0);
    for second in 2..60 {
        out.extend(scene.tick(f64::from(second)));
    }
    let mut all = told(&out, MessageKind::Announcement);
    all.extend(told(&out, MessageKind::LateJoiners));
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), MANY);
    for kind in [MessageKind::Announcement, MessageKind::LateJoiners] {
        for (message, _) in messages(&out, kind) {
            let mentioned: usize = message.mentions.iter().map(|user| user.len() + 3).sum();
            assert!(message.plain.len() + message.html.len() + mentioned < 48 << 10);
            assert!(message.mentions.len() <= limits::MENTIONS);
        }
    }
}

#[test]
fn whom_a_message_did_not_reach_is_told_by_another() {
    let mut scene = Scene::new();
    scene.answers = false;
    scene.here(&[ADA, BOB], 0.0);
    let tag = consent_tag(&scene.ada("!start", 1.0));
    scene.room.failed(tag.unwrap(), at(2.0));
    assert_eq!(told(&scene.tick(7.0), MessageKind::LateJoiners), [ADA, BOB]);
}

#[test]
fn whom_a_message_may_not_have_reached_before_a_restart_is_told_by_the_next_process() {
    let mut scene = Scene::new();
    scene.answers = false;
    scene.here(&[ADA, BOB], 0.0);
    let out = scene.ada("!start", 1.0);
    let noted = |out: &[RoomAction]| {
        out.iter().any(|action| matches!(action, RoomAction::ConsentEvent { kind: EventKind::Consent, .. }))
    };
    assert!(!noted(&out), "nobody was told yet");
    scene.here(&[ADA, BOB], 2.0);
    assert_eq!(told(&scene.tick(9.0), MessageKind::LateJoiners), [""; 0], "that message is under way");
    let restart = |scene: &Scene| {
        let kept = serde_json::to_string(scene.room.durable()).unwrap();
        let restarted = Settings { started: at(30.0), listening: at(30.0), ..settings() };
        let mut scene = Scene::with(restarted, serde_json::from_str(&kept).unwrap());
        scene.room.start_restored(at(31.0));
        scene.here(&[ADA, BOB], 32.0);
        told(&scene.tick(34.0), MessageKind::LateJoiners)
    };
    assert_eq!(restart(&scene), [ADA, BOB]);
    let tag = consent_tag(&out).unwrap();
    assert!(noted(&scene.room.said(tag, "$announced", at(10.0))));
    assert_eq!(restart(&scene), [""; 0]);
}

#[test]
fn a_refused_announcement_ends_the_recording_and_whoever_runs_us_hears_why() {
    let mut scene = Scene::new();
    scene.answers = false;
    scene.here(&[ADA, BOB], 0.0);
    let tag = consent_tag(&scene.ada("!start", 1.0)).unwrap();
    let out = scene.room.refused(tag, at(2.0));
    assert_eq!(stopped(&out), Some(EndReason::NotAnnounced));
    assert!(reported(&out)[0].contains("power level for sending messages"), "{out:?}");
    let out = scene.room.ended(ended(EndReason::NotAnnounced), at(3.0));
    assert!(text(&out, MessageKind::Saved).contains("people in the call could not be told of it"));

    // Those who came later are told as well, or not recorded either.
    let mut scene = Scene::recording();
    scene.answers = false;
    scene.here(&[ADA, BOB, EVE], 10.0);
    let tag = consent_tag(&scene.tick(11.0)).unwrap();
    assert_eq!(stopped(&scene.room.refused(tag, at(12.0))), Some(EndReason::NotAnnounced));
}

#[test]
fn a_homeserver_that_is_away_ends_a_recording_of_which_nobody_knows_and_no_other() {
    let run = |mut scene: Scene, mut out: Vec<RoomAction>| {
        scene.answers = false;
        let mut tries = 0;
        for second in 3..200 {
            if let Some(tag) = consent_tag(&out) {
                tries += 1;
                out = scene.room.failed(tag, at(f64::from(second)));
                if stopped(&out).is_some() {
                    return (tries, stopped(&out));
                }
            }
            out = scene.tick(f64::from(second));
        }
        (tries, None)
    };
    let mut scene = Scene::new();
    scene.answers = false;
    scene.here(&[ADA, BOB], 0.0);
    let out = scene.ada("!start", 1.0);
    assert_eq!(run(scene, out), (11, Some(EndReason::NotAnnounced)));
    let mut scene = Scene::recording();
    let out = scene.here(&[ADA, BOB, EVE], 2.0);
    let (tries, end) = run(scene, out);
    assert!(tries > 20 && end.is_none(), "{tries} {end:?}");
}

#[test]
fn an_opt_out_is_in_force_first_and_the_answer_says_what_stays_and_whom_to_ask() {
    let asked = Settings { contact: Some("@admin:hs".to_owned()), ..settings() };
    let mut scene = Scene::with(asked, Durable::default());
    scene.here(&[ADA, BOB], 0.5);
    scene.ada("!start", 1.0);
    let out = scene.type_as(BOB, "!record optout", guest(), 2.0);
    assert_eq!(out[0], RoomAction::OptOut { user: BOB.to_owned() });
    assert!(out.contains(&RoomAction::Persist));
    let answer = reply(&out);
    assert!(answer.contains("no longer recorded") && answer.contains("before stays"), "{answer}");
    assert!(answer.contains("ask @admin:hs"), "{answer}");
    let noted = out.iter().any(|action| {
        matches!(action, RoomAction::ConsentEvent { kind: EventKind::OptedOut, user: Some(user), .. } if user == BOB)
    });
    assert!(noted, "{out:?}");
    let out = scene.type_as(BOB, "!record optout", guest(), 2.5);
    assert_eq!(out[0], RoomAction::OptOut { user: BOB.to_owned() }, "whatever was lost of the first");
    assert!(reply(&out).contains("opted out already"));
    let out = scene.type_as(BOB, "!record optin", guest(), 3.0);
    assert_eq!(out[0], RoomAction::OptIn { user: BOB.to_owned() });
    assert!(!scene.room.is_opted_out(BOB));
    assert!(reply(&scene.type_as(BOB, "!record optin", guest(), 4.0)).contains("had not opted out"));
}

#[test]
fn whose_call_was_rejected_hears_why_once_a_minute_and_how_to_take_the_objection_back() {
    let asked = |commands| Settings { commands, contact: Some("@admin:hs".to_owned()), ..settings() };
    let mut scene = Scene::with(asked(true), Durable::default());
    let told = text(&scene.room.call_rejected(BOB, at(1.0)), MessageKind::Notice);
    assert!(told.starts_with("@bob:hs: ") && told.contains("`!record optin`"), "{told}");
    assert_eq!(scene.room.call_rejected(BOB, at(60.0)), []);
    assert_ne!(scene.room.call_rejected(ADA, at(60.0)), []);
    assert_ne!(scene.room.call_rejected(BOB, at(61.0)), []);
    scene.type_as(BOB, "!record optout", guest(), 62.0);
    assert_ne!(scene.room.call_rejected(BOB, at(63.0)), [], "another objection");
    let told = text(
        &Scene::with(asked(false), Durable::default()).room.call_rejected(BOB, at(1.0)),
        MessageKind::Notice,
    );
    assert!(told.contains("Ask @admin:hs") && !told.contains("!record"), "nobody would obey: {told}");
}

#[test]
fn an_opt_out_outlives_the_process_and_the_machine_names_nobody_who_opted_out_before() {
    let mut scene = Scene::new();
    scene.type_as(BOB, "!record optout", guest(), 1.0);
    let kept = serde_json::to_string(scene.room.durable()).unwrap();
    let mut scene = Scene::with(settings(), serde_json::from_str(&kept).unwrap());
    assert!(scene.room.is_opted_out(BOB));
    scene.here(&[ADA, BOB], 2.0);
    let out = scene.ada("!start", 3.0);
    assert_eq!(told(&out, MessageKind::Announcement), [ADA, BOB], "they are told as well");
    assert!(text(&out, MessageKind::Announcement).contains("Not recorded, as they asked: @bob:hs"));
    for action in out {
        if let RoomAction::ConsentEvent { detail, user, .. } = action {
            assert!(
                !format!("{detail:?}{user:?}").contains(BOB),
                "the manifest holds no name of theirs: {detail:?}"
            );
        }
    }
}

#[test]
fn the_reaction_of_a_person_on_the_announcement_or_a_late_message_opts_that_person_out() {
    let mut scene = Scene::new();
    scene.here(&[ADA, BOB], 0.0);
    let announcement = announced(&scene.ada("!start", 1.0));
    let out = scene.object(BOB, &announcement, 2.0);
    assert_eq!(out[0], RoomAction::OptOut { user: BOB.to_owned() });
    let thread = Relation::Thread { root: announcement.clone(), reply_to: announcement.clone() };
    assert_eq!(messages(&out, MessageKind::Reply)[0].1, thread);
    let again = scene.object(BOB, &announcement, 3.0);
    assert_eq!(again, [RoomAction::OptOut { user: BOB.to_owned() }], "said once, in force each time");

    scene.here(&[ADA, BOB, EVE], 10.0);
    let late = scene.tick(11.0);
    let RoomAction::Say { tag, .. } = late
        .iter()
        .find(|action| {
            matches!(action, RoomAction::Say { tag, .. }
        if tag.kind == MessageKind::LateJoiners)
        })
        .unwrap()
    else {
        unreachable!()
    };
    assert_eq!(scene.object(EVE, &event_of(*tag), 12.0)[0], RoomAction::OptOut { user: EVE.to_owned() });
}

#[test]
fn another_key_and_another_message_opt_nobody_out() {
    let mut scene = Scene::new();
    scene.here(&[ADA, BOB], 0.0);
    let announcement = announced(&scene.ada("!start", 1.0));
    assert_eq!(scene.object(BOB, "$other", 2.0), []);
    let reaction = |key: &str| Reaction { sender: BOB.into(), event: announcement.clone(), key: key.into() };
    assert_eq!(scene.room.reaction(&reaction("👍"), &guest(), at(2.0)), []);
    let out = scene.room.reaction(&reaction("🚫\u{fe0f}"), &guest(), at(2.0));
    assert_eq!(out[0], RoomAction::OptOut { user: BOB.to_owned() }, "a variation selector is no other key");
}

#[test]
fn the_reaction_of_somebody_who_left_meanwhile_holds_and_is_not_answered() {
    let mut scene = Scene::new();
    scene.here(&[ADA, BOB], 0.0);
    let event = announced(&scene.ada("!start", 1.0));
    let reaction = Reaction { sender: BOB.into(), event, key: "🚫".into() };
    let out = scene.room.reaction(&reaction, &Authority { joined: false, ..guest() }, at(2.0));
    assert_eq!(out[0], RoomAction::OptOut { user: BOB.to_owned() });
    assert!(messages(&out, MessageKind::Reply).is_empty());
}

#[test]
fn an_objection_that_overtakes_the_id_of_the_announcement_counts() {
    let mut scene = Scene::new();
    scene.answers = false;
    scene.here(&[ADA, BOB], 0.0);
    let out = scene.ada("!start", 1.0);
    let event = announced(&out);
    assert_eq!(scene.object(BOB, &event, 1.1), []);
    let out = scene.room.said(consent_tag(&out).unwrap(), &event, at(1.2));
    assert_eq!(out[0], RoomAction::OptOut { user: BOB.to_owned() });
}

#[test]
fn an_objection_after_the_end_holds_for_later_recordings() {
    let mut scene = Scene::new();
    scene.here(&[ADA, BOB], 0.0);
    let announcement = announced(&scene.ada("!start", 1.0));
    scene.ada("!stop", 2.0);
    scene.ended(EndReason::Stopped, 3.0);
    scene.object(BOB, &announcement, 4.0);
    assert!(scene.room.is_opted_out(BOB));
}

#[test]
fn an_objection_to_an_announcement_counts_sessions_and_restarts_later_for_the_last_hundred() {
    let mut scene = Scene::new();
    scene.here(&[ADA, BOB], 0.0);
    let mut announcements = Vec::new();
    for session in 0..limits::CONSENT_MESSAGES + 20 {
        let now = 20.0 * session as f64;
        announcements.push(announced(&scene.ada("!start", now + 1.0)));
        scene.ada("!stop", now + 2.0);
        let out = scene.ended(EndReason::Stopped, now + 3.0);
        assert!(out.contains(&RoomAction::Persist));
    }
    let kept = serde_json::to_string(scene.room.durable()).unwrap();
    let restarted = Settings { started: at(5_000.0), listening: at(5_000.0), ..settings() };
    let mut scene = Scene::with(restarted, serde_json::from_str(&kept).unwrap());
    let [.., old, _] = announcements.as_slice() else { unreachable!() };
    assert_eq!(scene.object(BOB, old, 5_001.0)[0], RoomAction::OptOut { user: BOB.to_owned() });
    assert_eq!(
        scene.room.durable().past_consent,
        announcements[announcements.len() - limits::CONSENT_MESSAGES..]
    );
    assert_eq!(scene.object(EVE, &announcements[0], 5_002.0), [], "all things end");
}

#[test]
fn who_opted_out_while_the_recorder_was_away_is_not_recorded_by_the_session_that_goes_on() {
    let scene = Scene::recording();
    let mut scene = Scene::with(
        Settings { started: at(30.0), listening: at(30.0), ..settings() },
        scene.room.durable().clone(),
    );
    let old = Said { age: Duration::from_secs(5), ..said(BOB, "!record optout", 31.0) };
    let out = scene.room.command(&old, &guest(), at(31.0));
    assert_eq!(out[0], RoomAction::OptOut { user: BOB.to_owned() });
    let old = Said { age: Duration::from_secs(5), ..said(BOB, "!stop", 31.0) };
    assert_eq!(scene.room.command(&old, &trusted(), at(31.0)), []);
}

#[test]
fn who_opted_out_while_the_recorder_was_away_is_not_recorded_by_a_later_session_either() {
    let mut scene = Scene::new();
    let old = |body: &str| Said { age: Duration::from_secs(600), ..said(BOB, body, 1.0) };
    let out = scene.room.command(&old("!record optout"), &guest(), at(1.0));
    assert_eq!((&out[0], reacted(&out)), (&RoomAction::OptOut { user: BOB.to_owned() }, Some("✅")));
    assert!(out.contains(&RoomAction::Persist));
    assert_eq!(scene.room.command(&old("!record optin"), &guest(), at(2.0)), [], "that has to be said anew");
    assert!(scene.room.is_opted_out(BOB));
}
