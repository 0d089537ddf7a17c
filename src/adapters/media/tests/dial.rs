//! Calls that the recorder places.

use recorder_actors::ports::Direction as Towards;

use super::*;

fn silent() -> Tile {
    Tile { stream: "recorder".to_owned(), since: None }
}

fn dialled(screen: bool) -> Call {
    Call::dial(MediaLoop::start(settings()).expect("start"), silent(), screen)
}

fn sections(sdp: &str) -> Vec<&str> {
    sdp.split("\r\nm=").skip(1).collect()
}

/// The codecs of an m-line in its order, without what repeats them.
fn codecs(section: &str) -> Vec<&str> {
    let head = section.lines().next().expect("an m-line");
    let name = |number: &str| {
        let map = section.lines().find_map(|line| line.strip_prefix(&format!("a=rtpmap:{number} ")));
        map.and_then(|map| map.split('/').next()).filter(|name| *name != "rtx")
    };
    let mut names: Vec<&str> = head.split(' ').skip(3).filter_map(name).collect();
    names.dedup();
    names
}

#[test]
fn our_offer_asks_for_quality_and_names_the_tile() {
    let plane = MediaLoop::start(settings()).expect("start");
    let (offer, facts) = block(plane.dial(CALL, Vec::new(), silent(), true)).expect("offer");
    let parts = sections(&offer.sdp);
    assert_eq!(parts.len(), 3);
    let (audio, tile, screen) = (parts[0], parts[1], parts[2]);
    assert!(audio.starts_with("audio 9 ") && audio.contains("\r\na=recvonly\r\n"), "{audio}");
    let fmtp = "minptime=10;useinbandfec=1;stereo=1;sprop-stereo=1;maxaveragebitrate=128000";
    assert!(audio.contains(fmtp), "{audio}");
    assert!(audio.contains("a=rtcp-fb:111 nack\r\n") && audio.contains("a=rtcp-fb:111 transport-cc\r\n"));
    assert_eq!(codecs(audio), ["opus"]);
    assert!(tile.starts_with("video 9 ") && tile.contains("\r\na=sendrecv\r\n"), "{tile}");
    assert_eq!(tile.matches("a=msid:recorder ").count(), 1);
    assert_eq!(tile.matches("a=ssrc-group:FID ").count(), 1);
    assert_eq!(tile.matches(" cname:").count(), 2);
    assert!(screen.starts_with("video 9 ") && screen.contains("\r\na=recvonly\r\n"), "{screen}");
    for video in [tile, screen] {
        assert_eq!(codecs(video), ["VP8", "VP9", "H264", "AV1", "H265"]);
        assert!(video.starts_with("video 9 UDP/TLS/RTP/SAVPF 96 97 98 99 "), "{video}");
        assert!(video.contains("a=fmtp:96 x-google-start-bitrate=2500\r\n"));
        assert!(video.contains("a=fmtp:97 apt=96\r\n"), "the parameters of rtx stay");
        assert!(
            video.contains("a=rtcp-fb:96 nack pli\r\n") && video.contains("a=rtcp-fb:96 transport-cc\r\n")
        );
    }
    assert!(offer.sdp.contains("a=setup:actpass"));
    assert_eq!(offer.sdp.matches("a=ssrc:").count(), 2, "only what is sent is named");
    assert_eq!(offer.sdp.matches("a=msid:").count(), 1);
    assert!(audio.contains("a=candidate:") && !tile.contains("a=candidate:"));
    assert!(!offer.sdp.contains("usedtx"));
    let facts = facts.borrow().clone();
    assert_eq!(facts.state, ConnectionState::Connecting);
    assert!(facts.media.is_empty(), "the remote side has said nothing yet");
    plane.shutdown();
}

#[test]
fn media_of_who_answers_our_offer_arrives_in_rings() {
    let mut call = dialled(true);
    assert!(call.until(LONG, |call| call.caller.connected && call.state() == ConnectionState::Connected));
    assert_eq!(call.caller.senders.len(), 3, "microphone, camera and screen");
    for _ in 0..50 {
        (0..3).for_each(|index| call.caller.send(index));
        call.caller.run_for(Duration::from_millis(2));
    }
    assert!(call.until(LONG, |call| {
        let received = call.rings().iter().map(|r| r.counters.received.load(Ordering::Relaxed)).sum::<u64>();
        call.caller.sent >= 150 && received == call.caller.sent
    }));
    let facts = call.facts.borrow().clone();
    assert_eq!(facts.media.len(), 3);
    for (media, codec) in facts.media.iter().zip([Codec::Opus, Codec::Vp8, Codec::Vp8]) {
        assert!(media.direction.sends());
        assert!(media.msid_stream.is_some());
        assert_eq!(media.streams.len(), 1);
        assert_eq!(media.streams[0].info.codec, codec);
        assert_eq!(media.streams[0].info.mid, media.mid);
        let mut read = Read::default();
        read.from(&media.streams[0]);
        read.check_balance(&media.streams[0]);
        assert_eq!(read.packets.len(), 50);
    }
    assert_eq!(facts.media[1].direction, Towards::SendRecv, "it is ready to see the tile");
    assert_eq!(facts.media[2].direction, Towards::SendOnly);
    assert!(facts.first_packet.is_some());
    assert!(call.caller.received.is_empty(), "a tile without a beginning sends nothing");
}

#[test]
fn an_answerer_that_begins_before_its_answer_is_read_connects() {
    let plane = MediaLoop::start(settings()).expect("start");
    let mut caller = Caller::new();
    let (offer, facts) = block(plane.dial(CALL, Vec::new(), silent(), false)).expect("offer");
    let answer = caller.answer_offer(&offer.sdp);
    let mut call = Call { plane, caller, facts, answer: offer.sdp };
    call.caller.run_for(Duration::from_millis(1500));
    assert_eq!(call.state(), ConnectionState::Connecting);
    // The stack answers receive-only lines with setup:active when it is offered both, as browsers do.
    block(call.plane.answered(CALL, answer)).expect("taken");
    assert!(call.until(LONG, |call| {
        if call.caller.connected {
            call.caller.send(0);
        }
        call.state() == ConnectionState::Connected && call.ring(0).is_some()
    }));
}

#[test]
fn an_answerer_without_a_camera_or_with_rejected_lines_is_heard() {
    for rejected in [false, true] {
        let plane = MediaLoop::start(settings()).expect("start");
        let mut caller = Caller::new();
        let (offer, facts) = block(plane.dial(CALL, Vec::new(), silent(), true)).expect("offer");
        let answer = caller.answer_offer(&offer.sdp);
        let parts = sections(&answer);
        let mids: Vec<&str> = parts.iter().filter_map(|p| p.split("a=mid:").nth(1)?.lines().next()).collect();
        let answer = if rejected {
            // As browsers write them: the mid, nothing of the transport.
            let gone = |index: usize| {
                format!(
                    "m=video 0 UDP/TLS/RTP/SAVPF 96\r\nc=IN IP4 0.0.0.0\r\na=mid:{}\r\na=inactive\r\n",
                    mids[index]
                )
            };
            let (head, _) = answer.split_once("m=video").expect("video");
            let head = head.replace(&format!("BUNDLE {}", mids.join(" ")), &format!("BUNDLE {}", mids[0]));
            head + gone(1).as_str() + gone(2).as_str()
        } else {
            let (head, video) = answer.split_once("m=video").expect("video");
            let video = video.replace("a=sendrecv", "a=recvonly").replace("a=sendonly", "a=inactive");
            let kept =
                video.lines().filter(|line| !line.starts_with("a=ssrc") && !line.starts_with("a=msid"));
            format!("{head}m=video{}\r\n", kept.collect::<Vec<_>>().join("\r\n"))
        };
        block(plane.answered(CALL, answer)).expect("taken");
        let mut call = Call { plane, caller, facts, answer: offer.sdp };
        assert!(call.until(LONG, |call| {
            if call.caller.connected {
                call.caller.send(0);
            }
            call.ring(0).is_some()
        }));
        let facts = call.facts.borrow().clone();
        let directions: Vec<_> = facts.media.iter().map(|media| media.direction).collect();
        if rejected {
            assert!(facts.media[1].codecs.is_empty() && facts.media[2].codecs.is_empty());
        } else {
            assert_eq!(directions, [Towards::SendOnly, Towards::RecvOnly, Towards::Inactive]);
            assert!([Codec::Vp8, Codec::Vp9].iter().all(|codec| facts.media[1].codecs.contains(codec)));
            assert_eq!(facts.media[1].msid_stream, None);
        }
    }
}

#[test]
fn answers_that_do_not_fit_are_refused() {
    let plane = MediaLoop::start(settings()).expect("start");
    let mut caller = Caller::new();
    let (offer, _facts) = block(plane.dial(CALL, Vec::new(), silent(), false)).expect("offer");
    let good = caller.answer_offer(&offer.sdp);
    let answered = |answer: &str| block(plane.answered(CALL, answer.to_owned()));
    assert!(matches!(answered(""), Err(MediaError::BadOffer(_))));
    assert!(matches!(answered("v=0\r\nnonsense"), Err(MediaError::NothingToRecord)));
    assert_eq!(block(plane.answered(ConnectionId(99), good.clone())), Err(MediaError::Gone));
    // An offer that crosses ours is ignored: who called is impolite.
    let crossing = Caller::new().offer(&[MediaKind::Audio]);
    assert!(matches!(block(plane.renegotiate(CALL, crossing)), Err(MediaError::BadOffer(_))));
    assert_eq!(answered(&good), Ok(()));
    assert!(matches!(answered(&good), Err(MediaError::BadOffer(_))), "one offer has one answer");
    let (offer, _facts) = block(plane.dial(ConnectionId(8), Vec::new(), silent(), true)).expect("offer");
    let other = Caller::new().answer_offer(&offer.sdp);
    let one_less = other.rsplit_once("m=video").expect("video").0.to_owned();
    let other_mids = good.clone();
    for (id, misfit) in [(9, one_less), (10, other_mids)] {
        let id = ConnectionId(id);
        let (_, _facts) = block(plane.dial(id, Vec::new(), silent(), true)).expect("offer");
        assert!(matches!(block(plane.answered(id, misfit)), Err(MediaError::BadOffer(_))));
    }
    plane.shutdown();
    assert_eq!(plane.connections(), 0);
}

#[test]
fn the_answerer_may_offer_later_and_restart_ice() {
    let mut call = dialled(false);
    assert!(call.until(LONG, |call| call.caller.connected && call.state() == ConnectionState::Connected));
    let offer = call.caller.offer(&[MediaKind::Video]);
    let answer = block(call.plane.renegotiate(CALL, offer)).expect("answer");
    assert_eq!(answer.sdp.matches("a=msid:recorder ").count(), 1, "the tile stays on its m-line");
    assert_eq!(answer.sdp.matches("a=sendrecv").count(), 1);
    assert_eq!(answer.sdp.matches("a=recvonly").count(), 2);
    call.caller.answer(&answer.sdp);
    let offer = call.caller.restart_ice();
    let answer = block(call.plane.renegotiate(CALL, offer)).expect("answer");
    call.caller.answer(&answer.sdp);
    assert!(call.until(LONG, |call| {
        (0..3).for_each(|index| call.caller.send(index));
        call.rings().len() == 3
    }));
    let facts = call.facts.borrow().clone();
    assert_eq!(facts.media.len(), 3);
    assert_eq!(facts.ice_restarts, 1);
    assert_eq!(facts.state, ConnectionState::Connected);
    assert_eq!(facts.media[2].msid_stream.as_deref(), Some("stream"));
}
