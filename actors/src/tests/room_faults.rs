//! One panic at anything that is done for a room: what people asked for is done all the same.

use std::sync::atomic::Ordering;
use std::time::Duration;

use recorder_core::ids::SessionId;
use recorder_core::manifest::CallKind;
use recorder_core::mesh::{CALL_EVENT, MEMBER_EVENT};
use recorder_core::room::{Durable, Renamed, Running};
use serde_json::{Value, json};

use super::scene::{ADA, ALF, CONF, Scene, call};
use super::support::*;
use crate::ports::RoomRecord;
use crate::testing::{Point, arm_after, disarm};

impl Scene {
    async fn tell(&self, user: &str, text: &str) {
        self.tree.supervisor().await;
        self.say(user, text).await;
    }

    async fn enters(&mut self, user: &str) {
        self.tree.supervisor().await;
        self.member(user, "s1").await;
        self.connect(user, "s1").await;
    }
}

#[test]
fn a_panic_at_anything_that_is_done_for_a_room_loses_no_beginning_no_objection_and_no_end() {
    for after in 0.. {
        let mut met = false;
        on_paused_time(async {
            let mut scene = Scene::start().await;
            scene.tree.mind_on();
            scene.tell(ADA, "!start").await;
            arm_after(Point::Room, ROOM, after);
            scene.enters(ADA).await;
            scene.enters(ALF).await;
            scene.running(4).await;
            scene.tell(ALF, "!optout").await;
            scene.running(2).await;
            let rest = scene.tree.segments.running();
            assert!(rest.iter().all(|segment| segment.track.starts_with("p1")), "{after}");
            scene.tell(ADA, "!stop").await;
            let manifest = scene.ended("stopped").await;
            met = disarm();
            assert_eq!(manifest["stopped_by"], ADA, "{after}");
            assert_eq!(scene.tree.segments.all.lock().unwrap().len(), 4, "{after}: no file was cut");
            assert_eq!(scene.tree.board.totals.sessions_failed.load(Ordering::Relaxed), 0, "{after}");
        });
        if !met {
            assert!(after > 10, "{after}");
            return;
        }
    }
}

/// What a process left that was recording the call of the room.
fn left(stopping: bool) -> RoomRecord {
    let running = Running {
        call_id: CONF.to_owned(),
        kind: CallKind::Mesh,
        by: Some(ADA.to_owned()),
        auto: false,
        stopping,
        told: [ADA.to_owned()].into(),
        consent: vec!["$announced".to_owned()],
        status: Some("$status".to_owned()),
    };
    let durable = Durable { running: Some(running), renamed: Some(Renamed::default()), ..Durable::default() };
    RoomRecord {
        durable,
        session: Some(SessionId::new("s0")),
        began_utc_micros: Some(1_700_000_000_000_000),
        ..RoomRecord::default()
    }
}

#[test]
fn a_session_that_an_earlier_process_left_goes_on_with_its_call_and_is_over_without_it_or_if_it_was_stopped()
{
    for (attended, stopping) in [(true, false), (false, false), (true, true)] {
        on_paused_time(async {
            let mut scene = Scene::after(left(stopping));
            let own = json!({"membership": "join", "displayname": "● REC bot"});
            // In one batch, as at the first sync.
            let mut state =
                vec![("m.room.member", "@bot:hs", "@bot:hs", own), (CALL_EVENT, ADA, CONF, call())];
            if attended {
                state.push((MEMBER_EVENT, ADA, ADA, scene.membership("s1")));
            }
            scene.tree.state_events(state).await;
            let rooms = scene.tree.rooms.clone();
            if attended && !stopping {
                scene.connect(ADA, "s1").await;
                scene.running(2).await;
                assert!(
                    rooms.of("say").iter().all(|said| said["edit"] == json!(true)),
                    "nobody is told twice"
                );
                assert!(rooms.of("name").is_empty(), "it is as it should be");
                scene.say(ADA, "!stop").await;
                scene.ended("stopped").await;
                until("the name", || rooms.of("name") == [Value::Null]).await;
            } else {
                until("its end", || rooms.said("The recording has ended: the recorder was restarted")).await;
                assert_eq!(*scene.tree.sessions.abandoned.lock().unwrap(), [SessionId::new("s0")]);
                until("the name", || rooms.of("name") == [Value::Null]).await;
                assert_eq!(*scene.tree.shared.running().borrow(), 0);
            }
        });
    }
}

#[test]
fn what_rooms_wish_is_written_again_until_the_disk_takes_it_and_somebody_hears_of_it() {
    on_paused_time(async {
        let tree = Tree::start();
        tree.rooms.refuse_records.store(true, Ordering::Relaxed);
        let wish = json!({"msgtype": "m.text", "body": "!optout"});
        tree.event("m.room.message", ALF, wish).await;
        until("the report", || tree.happened("cannot be saved")).await;
        assert_eq!(tree.board.unsaved_rooms.load(Ordering::Relaxed), 1);
        tokio::time::sleep(Duration::from_secs(600)).await;
        tree.rooms.refuse_records.store(false, Ordering::Relaxed);
        until("the wish on the disk", || !tree.rooms.records.lock().unwrap().is_empty()).await;
        assert!(tree.rooms.records.lock().unwrap()[0].1.durable.opted_out.contains(ALF));
        until("no problem", || tree.board.unsaved_rooms.load(Ordering::Relaxed) == 0).await;
        let told =
            tree.board.happenings().iter().filter(|what| what.text.contains("cannot be saved")).count();
        assert_eq!(told, 1, "once");
    });
}
