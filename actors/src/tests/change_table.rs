//! What a change touches (the table in ARCHITECTURE.md, "What restarts when").

use std::sync::atomic::Ordering;
use std::time::Duration;

use recorder_core::manifest::GapCause;
use recorder_core::media::Codec;
use serde_json::json;

use super::support::*;
use crate::ports::{ConnectionState, Direction};

#[test]
fn a_mute_touches_nobody() {
    on_paused_time(async {
        let tree = Tree::recorded_call().await;
        let before = tree.generations();
        let muted = json!({"sdp_stream_metadata": {"user": {"purpose": "m.usermedia", "audio_muted": true}}});
        tree.event("m.call.sdp_stream_metadata_changed", CALLER, muted).await;
        until("the page to say muted", || {
            tree.board.calls()[0].participants[0].tracks.iter().any(|track| track.muted)
        })
        .await;
        let causes = || ["0", "1"].map(|mid| tree.segments.of(mid)[0].control.take_pause_cause());
        assert_eq!(causes(), [Some(GapCause::Muted), None], "a pause of sound would be put down to it");
        let unmuted =
            json!({"sdp_stream_metadata": {"user": {"purpose": "m.usermedia", "audio_muted": false}}});
        tree.event("m.call.sdp_stream_metadata_changed", CALLER, unmuted).await;
        until("the page to say otherwise", || {
            tree.board.calls()[0].participants[0].tracks.iter().all(|track| !track.muted)
        })
        .await;
        let _ = causes();
        assert_eq!(causes(), [None, None]);
        assert_eq!(tree.generations(), before);
        assert_eq!(tree.segments.all.lock().unwrap().len(), 2, "no segment began or ended");
        tree.hang_up().await;
        assert_eq!(tree.states("microphone"), [("muted".to_owned(), true)]);
        assert_eq!(tree.states("camera"), []);
        assert_eq!((tree.events("muted"), tree.events("unmuted")), (1, 1));
    });
}

#[test]
fn a_new_ssrc_begins_the_next_segment_of_that_track_alone() {
    on_paused_time(async {
        let tree = Tree::recorded_call().await;
        let before = tree.generations();
        let stream = tree.media.stream("1", Codec::Vp8);
        tree.media.change(|facts| {
            facts.media[1].streams[0].end();
            facts.media[1].streams.push(stream);
        });
        until("the next segment", || tree.segments.reasons("1") == ["first", "new_ssrc"]).await;
        assert_eq!(tree.segments.reasons("0"), ["first"]);
        assert_eq!(tree.generations(), before);
        tree.hang_up().await;
        assert_eq!(tree.events("device_changed"), 1);
    });
}

#[test]
fn a_stream_that_never_brought_a_frame_leaves_its_reason_to_the_next_one() {
    on_paused_time(async {
        let tree = Tree::recorded_call().await;
        tree.segments.silent.store(true, Ordering::Relaxed);
        let screen = tree.media.media("2", "screen", Codec::Vp8);
        tree.media.change(|facts| facts.media.push(screen));
        until("the screen", || tree.segments.reasons("2") == ["first"]).await;
        for (codec, count) in [(Codec::Vp8, 2), (Codec::H264, 3)] {
            let next = tree.media.stream("2", codec);
            tree.media.change(|facts| facts.media[2].streams.push(next));
            until("the next", || tree.segments.reasons("2") == vec!["first"; count]).await;
        }
        tree.segments.of("2")[2].write();
        let last = tree.media.stream("2", Codec::H264);
        tree.media.change(|facts| facts.media[2].streams.push(last));
        until("another device", || tree.segments.reasons("2").last().is_some_and(|why| why == "new_ssrc"))
            .await;
        tree.hang_up().await;
        assert_eq!(tree.events("device_changed"), 1);
    });
}

#[test]
fn another_codec_begins_the_next_segment_of_that_track_alone() {
    on_paused_time(async {
        let tree = Tree::recorded_call().await;
        let before = tree.generations();
        let stream = tree.media.stream("1", Codec::H264);
        tree.media.change(|facts| {
            facts.media[1].codecs = vec![Codec::H264, Codec::Vp8];
            facts.media[1].streams.push(stream);
        });
        until("the next segment", || tree.segments.reasons("1") == ["first", "codec_changed"]).await;
        until("the end of the first", || tree.segments.running().len() == 2).await;
        assert_eq!(tree.segments.reasons("0"), ["first"]);
        assert_eq!(tree.generations(), before, "the same writer goes on");
        tree.hang_up().await;
        assert_eq!(tree.events("device_changed"), 0, "another codec is no other device");
    });
}

#[test]
fn a_screen_that_stops_and_comes_back_is_the_next_segment_of_its_own_track() {
    on_paused_time(async {
        let tree = Tree::recorded_call().await;
        let screen = tree.media.media("2", "screen", Codec::Vp8);
        tree.media.change(|facts| facts.media.push(screen));
        until("the screen", || tree.segments.reasons("2") == ["first"]).await;
        tree.media.change(|facts| facts.media[2].direction = Direction::Inactive);
        until("its end", || tree.segments.running().len() == 2).await;
        // The offer is applied before the first packet tells of another stream.
        tree.segments.silent.store(true, Ordering::Relaxed);
        tree.media.change(|facts| facts.media[2].direction = Direction::SendRecv);
        until("its return", || tree.segments.reasons("2") == ["first", "source_on"]).await;
        tree.segments.silent.store(false, Ordering::Relaxed);
        let again = tree.media.stream("2", Codec::Vp8);
        tree.media.change(|facts| facts.media[2].streams.push(again));
        until("its stream", || tree.segments.reasons("2") == ["first", "source_on", "source_on"]).await;
        let written: Vec<_> = tree.segments.of("2").iter().map(|segment| segment.files()).collect();
        assert_eq!(written, [1, 0, 1], "of one return there is one file");
        assert_eq!(tree.segments.reasons("0"), ["first"]);
        assert_eq!(tree.segments.reasons("1"), ["first"]);
        let paths: Vec<_> = tree.board.actors().iter().map(|actor| actor.path.clone()).collect();
        assert!(paths.contains(&format!("{PEER}/p1-screen-1")), "{paths:?}");
        assert!(!paths.contains(&format!("{PEER}/p1-screen-2")), "it is the same track");
        tree.hang_up().await;
        assert_eq!(tree.events("device_changed"), 0);
    });
}

#[test]
fn a_renegotiation_with_the_same_media_restarts_nobody() {
    on_paused_time(async {
        let tree = Tree::recorded_call().await;
        let before = tree.generations();
        let offer = json!({"description": {"type": "offer", "sdp": "v=0 again"}});
        tree.event("m.call.negotiate", CALLER, offer).await;
        until("the answer", || tree.signalling.count("m.call.negotiate") == 1).await;
        tree.media.change(|facts| facts.ice_restarts += 1);
        until("a look", || !tree.media.offers.lock().unwrap().is_empty()).await;
        assert_eq!(tree.generations(), before);
        assert_eq!(tree.segments.all.lock().unwrap().len(), 2);
    });
}

#[test]
fn a_lost_path_that_comes_back_restarts_nobody() {
    on_paused_time(async {
        let tree = Tree::recorded_call().await;
        let before = tree.generations();
        tree.media.change(|facts| facts.state = ConnectionState::Disconnected);
        until("the page to say so", || tree.board.calls()[0].state == "reconnecting").await;
        tree.media.change(|facts| facts.state = ConnectionState::Connected);
        until("the page to say so", || tree.board.calls()[0].state == "recording").await;
        assert_eq!(tree.generations(), before);
        assert_eq!(tree.segments.all.lock().unwrap().len(), 2);
    });
}

#[test]
fn an_ice_restart_touches_nobody_and_is_told_once() {
    on_paused_time(async {
        let tree = Tree::recorded_call().await;
        let before = tree.generations();
        for _ in 0..3 {
            tree.media.change(|facts| facts.ice_restarts = 1);
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
        assert_eq!(tree.generations(), before);
        assert_eq!(tree.segments.all.lock().unwrap().len(), 2);
        tree.hang_up().await;
        assert_eq!(tree.events("ice_restarted"), 1);
    });
}

#[test]
fn a_silent_path_gives_gaps_their_cause_and_touches_nobody() {
    on_paused_time(async {
        let tree = Tree::recorded_call().await;
        let before = tree.generations();
        tree.media.change(|facts| facts.state = ConnectionState::Disconnected);
        tokio::time::sleep(Duration::from_secs(2)).await;
        for segment in tree.segments.running() {
            assert_eq!(segment.control.take_pause_cause(), Some(GapCause::Reconnect));
        }
        tokio::time::sleep(Duration::from_secs(30)).await;
        tree.media.change(|facts| facts.state = ConnectionState::Connected);
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(tree.generations(), before);
        assert_eq!(tree.segments.all.lock().unwrap().len(), 2, "thirty seconds without a packet end no file");
        tree.hang_up().await;
        assert_eq!((tree.events("disconnected"), tree.events("connected")), (1, 1));
    });
}

#[test]
fn a_device_switched_behind_the_same_sender_touches_nobody() {
    on_paused_time(async {
        let tree = Tree::recorded_call().await;
        let before = tree.generations();
        let streams = ["0", "1"].map(|mid| tree.segments.of(mid)[0].stream);
        // Another camera: the same SSRC brings pictures of another size, and nothing is said.
        tree.segments.of("1")[0].resize(1280, 720);
        let size = || {
            let calls = tree.board.calls();
            let camera = calls[0].participants[0].tracks.iter().find(|track| track.width.is_some())?;
            camera.width.zip(camera.height)
        };
        until("the page to show the new size", || size() == Some((1280, 720))).await;
        tree.segments.of("1")[0].resize(320, 240);
        until("and the next", || size() == Some((320, 240))).await;
        assert_eq!(tree.generations(), before);
        assert_eq!(tree.segments.all.lock().unwrap().len(), 2);
        let running: Vec<_> = tree.segments.running().iter().map(|segment| segment.stream).collect();
        assert_eq!(running, streams, "the streams that ran run on");
        tree.hang_up().await;
        assert_eq!((tree.events("device_changed"), tree.events("camera_off")), (0, 0));
    });
}

#[test]
fn a_camera_that_goes_off_and_on_on_its_m_line_touches_nobody() {
    on_paused_time(async {
        let tree = Tree::recorded_call().await;
        let before = tree.generations();
        let note = |muted| json!({"sdp_stream_metadata": {"user": {"purpose": "m.usermedia", "video_muted": muted}}});
        tree.event("m.call.sdp_stream_metadata_changed", CALLER, note(true)).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(tree.segments.of("1")[0].control.take_pause_cause(), Some(GapCause::SourceOff));
        assert_eq!(tree.segments.of("0")[0].control.take_pause_cause(), None);
        let shown =
            || tree.board.calls()[0].participants[0].tracks.iter().filter(|track| track.muted).count();
        assert_eq!(shown(), 1, "the page says that the camera is off");
        tree.event("m.call.sdp_stream_metadata_changed", CALLER, note(false)).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        let _ = tree.segments.of("1")[0].control.take_pause_cause();
        assert_eq!(
            tree.segments.of("1")[0].control.take_pause_cause(),
            None,
            "a later pause is another matter"
        );
        assert_eq!(shown(), 0);
        assert_eq!(tree.generations(), before);
        assert_eq!(tree.segments.all.lock().unwrap().len(), 2);
        tree.hang_up().await;
        assert_eq!(tree.states("camera"), [("source_off".to_owned(), true)]);
        assert_eq!(tree.states("microphone"), []);
        assert_eq!((tree.events("camera_off"), tree.events("camera_on")), (1, 2));
    });
}

#[test]
fn a_first_camera_in_a_voice_call_adds_its_track_alone() {
    on_paused_time(async {
        let tree = Tree::start();
        tree.invite().await;
        until("the answer", || tree.signalling.count("m.call.answer") == 1).await;
        let microphone = tree.media.media("0", "user", Codec::Opus);
        tree.media.change(|facts| {
            facts.state = ConnectionState::Connected;
            facts.media = vec![microphone];
        });
        until("its segment", || tree.segments.running().len() == 1).await;
        let before = tree.generations();
        let camera = tree.media.media("1", "user", Codec::Vp8);
        tree.media.change(|facts| facts.media.push(camera));
        until("the camera", || tree.segments.reasons("1") == ["first"]).await;
        let mut after = tree.generations();
        assert!(after.remove(CAMERA).is_some());
        assert_eq!(after, before);
        assert_eq!(tree.segments.reasons("0"), ["first"]);
    });
}

#[test]
fn a_camera_that_is_removed_ends_its_writer_alone_and_comes_back_as_the_next_segment() {
    on_paused_time(async {
        let tree = Tree::recorded_call().await;
        let before = tree.generations()[MICROPHONE];
        tree.media.change(|facts| facts.media[1].direction = Direction::RecvOnly);
        until("its end", || tree.segments.running().len() == 1).await;
        // The same SSRC comes back on the same m-line.
        tree.media.change(|facts| facts.media[1].direction = Direction::SendRecv);
        until("its return", || tree.segments.reasons("1") == ["first", "source_on"]).await;
        assert_eq!(
            (tree.segments.reasons("0"), tree.generations()[MICROPHONE]),
            (vec!["first".to_owned()], before)
        );
        tree.hang_up().await;
        assert_eq!(tree.states("camera"), [("source_off".to_owned(), true)]);
    });
}

#[test]
fn a_track_that_begins_muted_is_told_muted_once() {
    on_paused_time(async {
        let tree = Tree::start();
        let metadata = json!({"user": {"purpose": "m.usermedia", "audio_muted": true, "video_muted": true}});
        let content = json!({"offer": {"type": "offer", "sdp": "v=0"}, "lifetime": 60_000,
            "sdp_stream_metadata": metadata});
        tree.event("m.call.invite", CALLER, content).await;
        until("the answer", || tree.signalling.count("m.call.answer") == 1).await;
        let (microphone, camera) =
            (tree.media.media("0", "user", Codec::Opus), tree.media.media("1", "user", Codec::Vp8));
        tree.media.change(|facts| {
            facts.state = ConnectionState::Connected;
            facts.media = vec![microphone, camera];
        });
        until("both segments", || tree.segments.running().len() == 2).await;
        tree.hang_up().await;
        assert_eq!(tree.states("microphone").len(), 1);
        assert_eq!(tree.states("microphone")[0].0, "muted");
        assert_eq!(tree.states("camera").len(), 1);
        assert_eq!((tree.events("muted"), tree.events("camera_off"), tree.events("camera_on")), (1, 1, 0));
    });
}

#[test]
fn mutes_that_are_taken_back_between_two_looks_are_told_all_the_same() {
    on_paused_time(async {
        let tree = Tree::recorded_call().await;
        let note = |audio, video| {
            json!({"sdp_stream_metadata": {"user":
                {"purpose": "m.usermedia", "audio_muted": audio, "video_muted": video}}})
        };
        let batch =
            [(true, false), (false, false), (true, true), (true, false), (false, false), (true, false)];
        tree.events_at_once(
            "m.call.sdp_stream_metadata_changed",
            batch.map(|(audio, video)| note(audio, video)).into(),
        )
        .await;
        until("the page to say muted", || {
            tree.board.calls()[0].participants[0].tracks.iter().any(|track| track.muted)
        })
        .await;
        tree.hang_up().await;
        assert_eq!((tree.events("muted"), tree.events("unmuted")), (3, 2));
        assert_eq!(tree.states("microphone").len(), 3);
        assert_eq!((tree.events("camera_off"), tree.events("camera_on")), (1, 2));
        assert_eq!(tree.states("camera").len(), 1);
    });
}

#[test]
fn a_mute_that_comes_together_with_the_hang_up_is_told() {
    on_paused_time(async {
        let tree = Tree::recorded_call().await;
        let note = |audio, video| {
            json!({"sdp_stream_metadata": {"user":
                {"purpose": "m.usermedia", "audio_muted": audio, "video_muted": video}}})
        };
        let hang_up = json!({"reason": "user_hangup"});
        let batch = [
            ("m.call.sdp_stream_metadata_changed", note(true, false)),
            ("m.call.sdp_stream_metadata_changed", note(false, false)),
            ("m.call.sdp_stream_metadata_changed", note(true, true)),
            ("m.call.hangup", hang_up),
        ];
        tree.batch(batch.into()).await;
        until("the call's end", || *tree.shared.running().borrow() == 0).await;
        assert_eq!((tree.events("muted"), tree.events("unmuted")), (2, 1));
        assert_eq!(tree.states("microphone").len(), 2);
        assert!(tree.states("microphone").iter().all(|(_, ended)| *ended), "{:?}", tree.states("microphone"));
        assert_eq!((tree.events("camera_off"), tree.events("camera_on")), (1, 1));
        assert_eq!(tree.states("camera"), [("source_off".to_owned(), true)]);
    });
}

#[test]
fn a_muted_camera_whose_m_line_stops_is_off_once_until_it_is_back() {
    on_paused_time(async {
        let tree = Tree::recorded_call().await;
        let note = |muted| json!({"sdp_stream_metadata": {"user": {"purpose": "m.usermedia", "video_muted": muted}}});
        tree.event("m.call.sdp_stream_metadata_changed", CALLER, note(true)).await;
        tree.media.change(|facts| facts.media[1].direction = Direction::RecvOnly);
        until("its end", || tree.segments.running().len() == 1).await;
        tree.media.change(|facts| facts.media[1].direction = Direction::SendRecv);
        until("its return", || tree.segments.running().len() == 2).await;
        tree.event("m.call.sdp_stream_metadata_changed", CALLER, note(false)).await;
        tree.hang_up().await;
        assert_eq!(tree.states("camera"), [("source_off".to_owned(), true)]);
        assert_eq!((tree.events("camera_off"), tree.events("camera_on")), (1, 2));
        assert_eq!(tree.events("device_changed"), 0);
    });
}

#[test]
fn a_hold_is_told_once_and_keeps_the_segments_of_what_still_plays() {
    on_paused_time(async {
        let tree = Tree::recorded_call().await;
        let before = tree.generations();
        let set = |direction| {
            tree.media.change(|facts| facts.media.iter_mut().for_each(|media| media.direction = direction));
        };
        set(Direction::SendOnly);
        tokio::time::sleep(Duration::from_secs(2)).await;
        set(Direction::SendRecv);
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(tree.generations(), before);
        assert_eq!(tree.segments.all.lock().unwrap().len(), 2);
        tree.hang_up().await;
        assert_eq!((tree.events("held"), tree.events("unheld")), (1, 1));
        assert_eq!(tree.states("microphone"), [("held".to_owned(), true)]);
        assert_eq!(tree.states("camera"), [("held".to_owned(), true)]);
    });
}

#[test]
fn a_connection_that_its_client_closes_before_the_hangup_comes_turns_nothing_off() {
    on_paused_time(async {
        let tree = Tree::recorded_call().await;
        tree.media.change(|facts| {
            facts.media.iter().flat_map(|media| &media.streams).for_each(|ring| ring.end());
            facts.state = ConnectionState::Closed;
        });
        until("the end of the files", || tree.segments.running().is_empty()).await;
        tree.hang_up().await;
        assert_eq!((tree.events("camera_on"), tree.events("camera_off")), (1, 0));
        assert_eq!(tree.states("microphone"), []);
        assert_eq!(tree.states("camera"), []);
    });
}

#[test]
fn a_participant_has_at_most_thirty_two_tracks_however_they_come() {
    on_paused_time(async {
        let tree = Tree::recorded_call().await;
        for batch in [2..20, 20..40] {
            let more: Vec<_> =
                batch.map(|mid| tree.media.media(&mid.to_string(), "user", Codec::Opus)).collect();
            tree.media.change(|facts| facts.media.extend(more));
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        assert_eq!(tree.segments.running().len(), 32);
    });
}
