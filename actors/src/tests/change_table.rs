//! What a change touches (the table in ARCHITECTURE.md, "What restarts when").

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
        assert_eq!(tree.generations(), before);
        assert_eq!(tree.segments.all.lock().unwrap().len(), 2, "no segment began or ended");
        tree.hang_up().await;
        let states = &tree.manifest().participants[0].tracks[0].states;
        assert_eq!(serde_json::to_value(&states[0].state).unwrap(), "muted");
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
    });
}

#[test]
fn another_codec_begins_the_next_segment_of_that_track_alone() {
    on_paused_time(async {
        let tree = Tree::recorded_call().await;
        let stream = tree.media.stream("1", Codec::H264);
        tree.media.change(|facts| facts.media[1].streams.push(stream));
        until("the next segment", || tree.segments.reasons("1") == ["first", "codec_changed"]).await;
        assert_eq!(tree.segments.reasons("0"), ["first"]);
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
        let again = tree.media.stream("2", Codec::Vp8);
        tree.media.change(|facts| {
            facts.media[2].direction = Direction::SendRecv;
            facts.media[2].streams.push(again);
        });
        until("its return", || tree.segments.reasons("2") == ["first", "source_on"]).await;
        assert_eq!(tree.segments.reasons("0"), ["first"]);
        assert_eq!(tree.segments.reasons("1"), ["first"]);
        let paths: Vec<_> = tree.board.actors().iter().map(|actor| actor.path.clone()).collect();
        assert!(paths.contains(&format!("{PEER}/p1-screen-1")), "{paths:?}");
        assert!(!paths.contains(&format!("{PEER}/p1-screen-2")), "it is the same track");
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
