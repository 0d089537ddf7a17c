//! Who does not want to be recorded in a room calls the recorder there.

use recorder_core::media::Codec;
use serde_json::json;

use super::scene::{ALF, Scene};
use super::support::*;
use crate::ports::ConnectionState;

impl Tree {
    async fn say(&self, user: &str, text: &str) {
        self.event("m.room.message", user, json!({"msgtype": "m.text", "body": text})).await;
    }

    async fn call(&self, call_id: &str) {
        let offer = json!({"call_id": call_id, "offer": {"type": "offer", "sdp": "v=0"}, "lifetime": 60_000});
        self.event("m.call.invite", CALLER, offer).await;
    }

    fn said(&self, text: &str) -> usize {
        self.rooms.of("say").iter().filter(|said| said["body"].as_str().unwrap().contains(text)).count()
    }

    /// The details of the manifest's events of one kind, with the participant they name.
    fn details(&self, kind: &str) -> Vec<(serde_json::Value, serde_json::Value)> {
        let manifest = serde_json::to_value(self.manifest()).unwrap();
        let events = manifest["events"].as_array().unwrap();
        let of_kind = events.iter().filter(|event| event["kind"] == kind);
        of_kind.map(|event| (event["participant"].clone(), event["detail"].clone())).collect()
    }
}

#[test]
fn who_opts_out_in_a_call_with_the_recorder_ends_it_and_is_answered_again_after_an_opt_in_only() {
    on_paused_time(async {
        let tree = Tree::recorded_call().await;
        tree.say(CALLER, "!record optout").await;
        assert!(tree.media.rings().iter().all(|ring| ring.is_withheld()), "what is queued is not written");
        until("the end", || *tree.shared.running().borrow() == 0).await;
        let manifest = serde_json::to_value(tree.manifest()).unwrap();
        assert_eq!((&manifest["state"], &manifest["end_reason"]), (&json!("complete"), &json!("opted_out")));
        assert_eq!(manifest["stopped_by"], CALLER);
        assert_eq!(tree.details("opted_out"), [(json!("p1"), json!({"way": "command"}))]);
        assert_eq!(tree.signalling.count("m.call.hangup"), 1);

        for call in ["c2", "c3"] {
            tree.call(call).await;
        }
        until("the rejections", || tree.signalling.count("m.call.reject") == 2).await;
        until("the reason", || tree.said("I did not take your call") == 1).await;
        tree.say(CALLER, "!record optout").await;
        until("the answer", || tree.said("has opted out already") == 1).await;
        assert_eq!(*tree.shared.running().borrow(), 0);
        assert_eq!(tree.said("I did not take your call"), 1, "once in a hurry");
        assert_eq!(tree.board.totals.calls_refused_opted_out.load(std::sync::atomic::Ordering::Relaxed), 2);

        tree.say(CALLER, "!record optin").await;
        tree.call("c4").await;
        until("the answer", || tree.signalling.count("m.call.answer") == 2).await;
        let voice = tree.media.media("0", "user", Codec::Opus);
        tree.media.change_at(1, |facts| {
            facts.state = ConnectionState::Connected;
            facts.media = vec![voice];
        });
        until("the recording", || tree.segments.running().len() == 1).await;
    });
}

#[test]
fn an_objection_of_somebody_else_ends_no_call_with_the_recorder() {
    on_paused_time(async {
        let tree = Tree::recorded_call().await;
        tree.say("@eve:hs", "!record optout").await;
        until("the answer", || tree.said("@eve:hs will not be recorded") == 1).await;
        tokio::time::sleep(std::time::Duration::from_secs(3)).await;
        assert_eq!(tree.segments.running().len(), 2);
        assert_eq!(tree.details("opted_out"), []);
        tree.hang_up().await;
    });
}

#[test]
fn of_who_opted_out_from_the_start_neither_manifest_nor_page_know_a_name_though_they_started_it() {
    on_paused_time(async {
        let mut scene = Scene::start().await;
        scene.say(CALLER, "!optout").await;
        scene.member(CALLER, "s1").await;
        scene.say(CALLER, "!start").await;
        scene.connect(CALLER, "s1").await;
        let calls = || scene.tree.board.calls();
        until("the participant", || calls().iter().any(|call| call.participants.len() == 1)).await;
        let call = calls().pop().unwrap();
        assert_eq!((&call.started_by, call.participants[0].opted_out), (&None, true));
        scene.leaves(CALLER).await;
        until("the leave", || !calls()[0].participants[0].present).await;
        assert!(calls()[0].participants[0].opted_out, "also without a connection");
        tokio::time::sleep(std::time::Duration::from_secs(50)).await;
        let manifest = scene.ended("everyone_left").await.to_string();
        let told: Vec<_> = scene.tree.board.happenings().iter().map(|what| what.text.clone()).collect();
        for name in ["Ada", CALLER] {
            assert!(!manifest.contains(name), "{manifest}");
            assert!(!told.iter().any(|text| text.contains(name)), "{told:?}");
        }
        assert!(told.iter().any(|text| text.starts_with("The call in Podcast ended")), "{told:?}");
    });
}

#[test]
fn whoever_opts_out_is_shown_as_such_while_no_connection_of_theirs_is_there() {
    on_paused_time(async {
        let mut scene = Scene::recorded().await;
        scene.member(ALF, "s1").await;
        scene.connect(ALF, "s1").await;
        scene.running(4).await;
        scene.leaves(ALF).await;
        scene.say(ALF, "!optout").await;
        let of_alf = || {
            let call = scene.tree.board.calls().pop().unwrap();
            let shown = call.participants.iter().find(|one| one.user_id.as_deref() == Some(ALF)).cloned();
            shown.unwrap()
        };
        until("it to be shown", || of_alf().opted_out).await;
    });
}

#[test]
fn an_objection_that_an_earlier_process_kept_holds_before_anything_is_heard_of_the_room() {
    on_paused_time(async {
        let opted_out =
            recorder_core::room::Durable { opted_out: [CALLER.to_owned()].into(), ..Default::default() };
        let record = crate::ports::RoomRecord { durable: opted_out, ..Default::default() };
        let tree = Tree::remembering(record);
        tree.call("c1").await;
        until("the rejection", || tree.signalling.count("m.call.reject") == 1).await;
        until("the reason", || tree.said("I did not take your call") == 1).await;
        assert_eq!(tree.signalling.count("m.call.answer"), 0);
    });
}
