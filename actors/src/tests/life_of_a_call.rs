use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use recorder_core::media::Codec;
use serde_json::json;

use super::support::*;
use crate::ports::{ConnectionState, DiskLevel};

#[test]
fn a_call_is_answered_recorded_and_finished() {
    on_paused_time(async {
        let tree = Tree::recorded_call().await;
        assert_eq!(tree.live_calls.live.lock().unwrap().len(), 1, "it is on the list of live calls");
        assert_eq!(tree.segments.reasons("0"), ["first"]);
        tree.hang_up().await;
        let manifest = tree.manifest();
        assert_eq!(serde_json::to_value(&manifest.state).unwrap(), "complete");
        assert_eq!(serde_json::to_value(&manifest.end_reason).unwrap(), "hangup");
        assert_eq!(manifest.participants.len(), 1);
        assert_eq!(manifest.participants[0].user_id.as_deref(), Some(CALLER));
        assert_eq!(manifest.participants[0].tracks.len(), 2);
        assert!(tree.live_calls.live.lock().unwrap().is_empty());
        until("an empty tree", || tree.board.actors().len() == 1).await;
        assert!(tree.board.calls().is_empty());
    });
}

#[test]
fn a_whole_call_of_version_0_is_answered_in_its_terms_and_recorded() {
    on_paused_time(async {
        let tree = Tree::start();
        let offer = json!({"version": 0, "offer": {"type": "offer", "sdp": "v=0"}, "lifetime": 60_000});
        tree.event("m.call.invite", CALLER, offer).await;
        let candidates = json!({"version": 0, "candidates": [{"candidate": "candidate:1 1 udp 1 127.0.0.1 9 typ host",
            "sdpMid": "0"}]});
        tree.event("m.call.candidates", CALLER, candidates).await;
        until("the answer", || tree.signalling.count("m.call.answer") == 1).await;
        assert_eq!(
            tree.live_calls.live.lock().unwrap()[0].version,
            0,
            "a restart would hang it up in its terms"
        );
        let microphone = tree.media.media("0", "user", Codec::Opus);
        // Nobody selects an answer in version 0.
        tree.media.change(|facts| {
            facts.state = ConnectionState::Connected;
            facts.media = vec![microphone];
        });
        until("a segment", || tree.segments.running().len() == 1).await;
        assert_eq!(tree.media.candidates.load(Relaxed), 1);
        tree.event("m.call.hangup", CALLER, json!({"version": 0})).await;
        until("the end", || *tree.shared.running().borrow() == 0).await;
        for (kind, content) in tree.signalling.sent.lock().unwrap().iter() {
            if kind.starts_with("m.call.") {
                assert_eq!((&content["version"], content.get("party_id")), (&json!(0), None), "{kind}");
            }
        }
        let manifest = tree.manifest();
        assert_eq!(serde_json::to_value(&manifest.end_reason).unwrap(), "hangup");
        assert_eq!((manifest.participants.len(), &manifest.participants[0].party_id), (1, &None));
        assert_eq!(tree.segments.reasons("0"), ["first"]);
    });
}

#[test]
fn the_room_is_told_when_recording_begins_and_what_was_saved() {
    on_paused_time(async {
        let tree = Tree::recorded_call().await;
        tree.hang_up().await;
        until("both messages", || tree.signalling.count("m.room.message") == 2).await;
        let sent = tree.signalling.sent.lock().unwrap();
        let messages: Vec<_> = sent.iter().filter(|(kind, _)| kind == "m.room.message").collect();
        assert_eq!(messages[0].1["mentions"], json!([CALLER]));
        assert!(messages[0].1["body"].as_str().unwrap().contains("being recorded by @bot:hs"));
        assert!(messages[1].1["body"].as_str().unwrap().contains("ended"));
    });
}

#[test]
fn a_call_from_someone_who_is_not_allowed_is_rejected_and_counted() {
    on_paused_time(async {
        let tree = Tree::start();
        let offer = json!({"offer": {"type": "offer", "sdp": "v=0"}});
        tree.event("m.call.invite", "@eve:hs", offer).await;
        until("the rejection", || tree.signalling.count("m.call.reject") == 1).await;
        assert_eq!(tree.board.totals.calls_refused_not_allowed.load(Relaxed), 1);
        assert_eq!(*tree.shared.running().borrow(), 0);
    });
}

#[test]
fn who_is_not_allowed_and_calls_again_and_again_is_counted_and_told_a_few_times_and_logged_once() {
    on_paused_time(async {
        let tree = Tree::start();
        for n in 0..20 {
            let offer = json!({"offer": {"type": "offer", "sdp": "v=0"}, "call_id": format!("x{n}")});
            tree.event("m.call.invite", "@eve:hs", offer).await;
        }
        assert_eq!(tree.board.totals.calls_refused_not_allowed.load(Relaxed), 20);
        until("the rejections", || tree.signalling.count("m.call.reject") == 5).await;
        let said = tree.board.happenings();
        assert_eq!(said.iter().filter(|what| what.text.contains("@eve:hs")).count(), 1, "{said:?}");
    });
}

#[test]
fn a_call_that_names_nobody_among_three_is_left_alone_and_the_room_told_once_how_to_call() {
    on_paused_time(async {
        let tree = Tree::start();
        *tree.members.lock().unwrap() = Some(3);
        for n in 0..3 {
            let offer = json!({"offer": {"type": "offer", "sdp": "v=0"}, "call_id": format!("x{n}")});
            tree.event("m.call.invite", CALLER, offer).await;
        }
        until("the word", || tree.signalling.count("m.room.message") == 1).await;
        assert_eq!(tree.signalling.types(), ["m.room.message"], "no answer and no rejection");
        assert_eq!(tree.board.totals.calls_refused_misplaced.load(Relaxed), 3);
        let offer =
            json!({"offer": {"type": "offer", "sdp": "v=0"}, "call_id": "named", "invitee": "@bot:hs"});
        tree.event("m.call.invite", CALLER, offer).await;
        until("the answer", || tree.signalling.count("m.call.answer") == 1).await;
    });
}

#[test]
fn an_offer_that_is_no_offer_is_rejected_and_leaves_nothing() {
    on_paused_time(async {
        let tree = Tree::start();
        tree.event("m.call.invite", CALLER, json!({"offer": {"type": "offer", "sdp": "broken"}})).await;
        until("the rejection", || tree.signalling.count("m.call.reject") == 1).await;
        until("no call", || *tree.shared.running().borrow() == 0).await;
        assert!(tree.sessions.snapshots.lock().unwrap().is_empty(), "no session was opened");
    });
}

#[test]
fn more_calls_than_allowed_at_once_are_refused_and_the_running_one_goes_on() {
    on_paused_time(async {
        let tree = Tree::with_calls(1);
        tree.invite().await;
        until("the answer", || tree.signalling.count("m.call.answer") == 1).await;
        for n in 0..50 {
            let offer = json!({"offer": {"type": "offer", "sdp": "v=0"}, "call_id": format!("x{n}")});
            tree.event("m.call.invite", CALLER, offer).await;
        }
        assert_eq!(tree.board.totals.calls_refused_busy.load(Relaxed), 50);
        // One caller is told a few times; what one is told is taken from what all can be.
        until("the rejections", || tree.signalling.count("m.call.reject") == 5).await;
        let said = tree.board.happenings();
        assert_eq!(said.iter().filter(|what| what.text.contains("calls.max")).count(), 1, "{said:?}");
        assert_eq!(*tree.shared.running().borrow(), 1);
    });
}

#[test]
fn messages_that_are_held_back_hold_up_neither_a_hangup_nor_the_end_of_a_call() {
    on_paused_time(async {
        let tree = Tree::start();
        tree.signalling.hold_messages.store(true, Relaxed);
        tree.invite().await;
        until("the answer", || tree.signalling.count("m.call.answer") == 1).await;
        tree.media.change(|facts| facts.state = ConnectionState::Connected);
        until("the recording", || !tree.sessions.snapshots.lock().unwrap().is_empty()).await;
        tree.media.change(|facts| facts.state = ConnectionState::Failed);
        let began = tokio::time::Instant::now();
        until("the end", || *tree.shared.running().borrow() == 0).await;
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        assert_eq!((tree.signalling.count("m.call.hangup"), tree.signalling.count("m.room.message")), (1, 0));
        assert!(tree.live_calls.live.lock().unwrap().is_empty(), "the next start has nothing to hang up");
    });
}

#[test]
fn a_call_for_which_no_connection_is_left_is_refused_as_busy() {
    on_paused_time(async {
        let tree = Tree::start();
        tree.event("m.call.invite", CALLER, json!({"offer": {"type": "offer", "sdp": "one too many"}})).await;
        until("the rejection", || tree.signalling.count("m.call.reject") == 1).await;
        let totals = &tree.board.totals;
        assert_eq!(
            (totals.calls_refused_busy.load(Relaxed), totals.calls_refused_bad_offer.load(Relaxed)),
            (1, 0)
        );
        until("no call", || *tree.shared.running().borrow() == 0).await;
    });
}

#[test]
fn a_caller_who_leaves_the_room_ends_the_call() {
    on_paused_time(async {
        let tree = Tree::recorded_call().await;
        tree.event_of("m.room.member", CALLER, Some(CALLER), json!({"membership": "leave"})).await;
        until("the end", || *tree.shared.running().borrow() == 0).await;
        assert_eq!(serde_json::to_value(&tree.manifest().end_reason).unwrap(), "everyone_left");
    });
}

#[test]
fn a_recorder_that_is_removed_from_the_room_ends_the_call_as_such() {
    for membership in ["leave", "ban"] {
        on_paused_time(async {
            let tree = Tree::recorded_call().await;
            tree.event_of("m.room.member", CALLER, Some("@bot:hs"), json!({"membership": membership})).await;
            until("the end", || *tree.shared.running().borrow() == 0).await;
            assert_eq!(serde_json::to_value(&tree.manifest().end_reason).unwrap(), "removed");
            assert_eq!(tree.signalling.count("m.call.hangup"), 0, "nobody would hear it");
            assert!(tree.live_calls.live.lock().unwrap().is_empty());
        });
    }
}

#[test]
fn a_room_that_is_upgraded_ends_the_call_as_such_and_hangs_up() {
    on_paused_time(async {
        let tree = Tree::recorded_call().await;
        tree.event_of("m.room.tombstone", CALLER, Some(""), json!({"replacement_room": "!next:hs"})).await;
        until("the end", || *tree.shared.running().borrow() == 0).await;
        assert_eq!(serde_json::to_value(&tree.manifest().end_reason).unwrap(), "room_upgraded");
        assert_eq!(tree.signalling.count("m.call.hangup"), 1);
    });
}

#[test]
fn somebody_else_who_leaves_the_room_ends_nothing() {
    on_paused_time(async {
        let tree = Tree::recorded_call().await;
        tree.event_of("m.room.member", "@eve:hs", Some("@eve:hs"), json!({"membership": "leave"})).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(tree.segments.running().len(), 2);
        tree.hang_up().await;
    });
}

#[test]
fn a_call_of_an_earlier_process_is_not_answered_again_and_the_next_one_is() {
    on_paused_time(async {
        let tree = Tree::start();
        tree.shared.mark_ended(ROOM, "c1");
        tree.invite().await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(tree.signalling.count("m.call.answer"), 0);
        let next = json!({"call_id": "c2", "offer": {"type": "offer", "sdp": "v=0"}, "lifetime": 60_000});
        tree.event("m.call.invite", CALLER, next).await;
        until("the answer", || tree.signalling.count("m.call.answer") == 1).await;
    });
}

#[test]
fn a_path_that_stays_silent_for_forty_seconds_ends_the_call_with_a_hangup() {
    on_paused_time(async {
        let tree = Tree::recorded_call().await;
        tree.media.change(|facts| facts.state = ConnectionState::Disconnected);
        until("the end", || *tree.shared.running().borrow() == 0).await;
        assert_eq!(tree.signalling.count("m.call.hangup"), 1);
        assert_eq!(serde_json::to_value(&tree.manifest().end_reason).unwrap(), "connection_lost");
    });
}

#[test]
fn a_shutdown_hangs_up_and_completes_every_session() {
    on_paused_time(async {
        let tree = Tree::recorded_call().await;
        tree.shut_down();
        until("the end", || *tree.shared.running().borrow() == 0).await;
        assert_eq!(tree.signalling.count("m.call.hangup"), 1);
        let manifest = tree.manifest();
        assert_eq!(serde_json::to_value(&manifest.end_reason).unwrap(), "shutdown");
        assert_eq!(serde_json::to_value(&manifest.state).unwrap(), "complete");
    });
}

#[test]
fn a_room_that_refuses_to_be_told_of_the_recording_ends_the_call() {
    on_paused_time(async {
        let tree = Tree::start();
        tree.signalling.refuse_messages.store(true, Relaxed);
        tree.invite().await;
        until("the answer", || tree.signalling.count("m.call.answer") == 1).await;
        tree.media.change(|facts| facts.state = ConnectionState::Connected);
        until("the end", || *tree.shared.running().borrow() == 0).await;
        assert_eq!(tree.signalling.count("m.call.hangup"), 1);
        let manifest = serde_json::to_value(tree.manifest()).unwrap();
        assert_eq!(
            (&manifest["state"], &manifest["end_reason"]),
            (&json!("complete"), &json!("not_announced"))
        );
        assert!(tree.happened("refused the message that tells of the recording"));
    });
}

#[test]
fn a_disk_that_stalls_while_a_call_begins_keeps_no_writer_from_starting() {
    on_paused_time(async {
        let tree = Tree::start();
        tree.sessions.stalled.store(true, Relaxed);
        tree.invite().await;
        until("the answer", || tree.signalling.count("m.call.answer") == 1).await;
        let (microphone, camera) =
            (tree.media.media("0", "user", Codec::Opus), tree.media.media("1", "user", Codec::Vp8));
        tree.media.change(|facts| {
            facts.state = ConnectionState::Connected;
            facts.media = vec![microphone, camera];
        });
        let began = tokio::time::Instant::now();
        until("both segments", || tree.segments.running().len() == 2).await;
        assert!(
            began.elapsed() < Duration::from_secs(5),
            "the rings hold ten seconds: {:?}",
            began.elapsed()
        );
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert!(tree.sessions.snapshots.lock().unwrap().is_empty(), "nothing is on the disk");
        tree.sessions.settings.lanes.add_permits(4);
        tree.hang_up().await;
        assert_eq!(serde_json::to_value(&tree.manifest().state).unwrap(), "complete");
        assert_eq!(
            (tree.segments.reasons("0"), tree.segments.reasons("1")),
            (vec!["first".into()], vec!["first".into()])
        );
    });
}

#[test]
fn a_full_disk_stops_video_then_audio_and_space_brings_them_back() {
    on_paused_time(async {
        let tree = Tree::recorded_call().await;
        tree.disk.send_replace(DiskLevel::VideoStopped);
        until("video to stop", || tree.segments.running().len() == 1).await;
        assert_eq!(tree.segments.running()[0].mid.as_str(), "0", "audio goes on");
        tree.disk.send_replace(DiskLevel::AllStopped);
        until("audio to stop", || tree.segments.running().is_empty()).await;
        tree.disk.send_replace(DiskLevel::Plenty);
        until("both to come back", || tree.segments.running().len() == 2).await;
        assert_eq!(tree.segments.reasons("0"), ["first", "disk_resumed"]);
        assert_eq!(tree.segments.reasons("1"), ["first", "disk_resumed"]);
        tree.hang_up().await;
        assert_eq!(tree.events("camera_on"), 1, "the camera was on all the time");
        assert_eq!(tree.states("camera"), []);
    });
}

#[test]
fn what_was_dropped_before_it_could_be_read_is_told_in_the_session_and_to_people() {
    on_paused_time(async {
        let tree = Tree::start();
        let view = std::sync::Arc::new(crate::observe::MediaView::default());
        tree.board.media.store(std::sync::Arc::clone(&view));
        let now = recorder_core::time::BootTime(1);
        view.kernel_dropped(100, now);
        let tree = tree.recorded().await;
        for _ in 0..5 {
            view.kernel_dropped(2, now);
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        }
        tokio::time::sleep(std::time::Duration::from_secs(10)).await;
        tree.media.change(|facts| facts.held_drops = 3);
        tokio::time::sleep(std::time::Duration::from_secs(2)).await;
        view.kernel_dropped(1, now);
        tree.hang_up().await;
        let told = tree.drops();
        let by =
            |place: &str| told.iter().filter(|(_, of)| of == place).map(|(count, _)| *count).sum::<u64>();
        assert_eq!(
            (by("receive_buffer"), by("before_keys")),
            (11, 3),
            "those of before the call are not told"
        );
        assert!(told.len() <= 4, "once in ten seconds and at the end: {told:?}");
        let happenings = tree.board.happenings();
        assert!(happenings.iter().any(|what| what.text.contains("The kernel dropped 100 datagrams")));
    });
}

#[test]
fn ten_identical_calls_leave_nothing_in_the_tree() {
    on_paused_time(async {
        let tree = Tree::start();
        for n in 0..10 {
            let offer = json!({"offer": {"type": "offer", "sdp": "v=0"}, "call_id": format!("n{n}")});
            tree.event("m.call.invite", CALLER, offer).await;
            until("the answer", || tree.signalling.count("m.call.answer") == n + 1).await;
            tree.event("m.call.hangup", CALLER, json!({"call_id": format!("n{n}")})).await;
            until("the end", || *tree.shared.running().borrow() == 0).await;
        }
        until("an empty tree", || tree.board.actors().len() == 1).await;
        assert_eq!(tree.media.closed.lock().unwrap().len(), 10, "every connection was closed");
        assert!(tree.live_calls.live.lock().unwrap().is_empty());
    });
}

#[test]
fn streams_that_ended_before_the_session_was_open_are_recorded() {
    on_paused_time(async {
        let tree = Tree::start();
        tree.sessions.slow.store(true, Relaxed);
        tree.invite().await;
        until("the answer", || tree.signalling.count("m.call.answer") == 1).await;
        let mut microphone = tree.media.media("0", "user", Codec::Opus);
        microphone.streams = vec![
            tree.media.stream_with_media("0", Codec::Opus),
            tree.media.stream_with_media("0", Codec::Opus),
        ];
        let camera = tree.media.media("1", "user", Codec::Vp8);
        tree.media.change(|facts| {
            facts.state = ConnectionState::Connected;
            facts.media = vec![microphone, camera];
        });
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(tree.segments.all.lock().unwrap().is_empty(), "the session is not open yet");
        tree.hang_up().await;
        assert_eq!(tree.segments.reasons("0"), ["first", "new_ssrc"]);
        assert!(tree.segments.of("1").is_empty(), "a stream without media needs no segment");
        assert!(tree.segments.running().is_empty());
        assert_eq!(serde_json::to_value(&tree.manifest().state).unwrap(), "complete");
    });
}
