//! The tile as the other side sees it.

use std::process::{Command, Stdio};

use recorder_core::rtp::vp8;
use recorder_core::time::BootTime;
use str0m::rtp::RtpPacket as StackPacket;

use super::*;
use crate::adapters::clock::boot_time;
use crate::calling::ReceivingPeer;
use crate::calling::receiver::ReceivedTotal;

/// A tile of a recording that has run for `seconds`.
fn running(seconds: u64) -> Tile {
    let since = boot_time().as_nanos().saturating_sub(seconds * 1_000_000_000);
    Tile { stream: "recorder".to_owned(), since: Some(BootTime::from_nanos(since)) }
}

fn accepted(tile: Tile, lines: &[(MediaKind, Direction)]) -> Call {
    let plane = MediaLoop::start(settings()).expect("start");
    let mut caller = Caller::new();
    let offer = caller.offer_lines(lines);
    let (answer, facts) = block(plane.accept(CALL, offer, Vec::new(), Some(tile))).expect("answer");
    caller.answer(&answer.sdp);
    Call { plane, caller, facts, answer: answer.sdp }
}

/// Packets by picture; the last one may not be whole.
fn pictures(received: &[StackPacket]) -> Vec<Vec<&StackPacket>> {
    let mut pictures: Vec<Vec<&StackPacket>> = Vec::new();
    for packet in received {
        match pictures.last_mut() {
            Some(last) if last[0].header.timestamp == packet.header.timestamp => last.push(packet),
            _ => pictures.push(vec![packet]),
        }
    }
    pictures
}

fn whole(call: &Call) -> usize {
    call.caller.received.iter().filter(|packet| packet.header.marker).count()
}

fn frame_of(picture: &[&StackPacket]) -> Vec<u8> {
    let frame = vp8::frame(picture.iter().map(|packet| &packet.payload[..])).expect("a VP8 frame");
    assert!(frame.key);
    assert_eq!(frame.size, Some((320, 180)));
    frame.data
}

/// Brightness of each pixel, by ffmpeg.
fn decode(frame: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut file = b"DKIF\0\0\x20\0VP80".to_vec();
    file.extend([0x40, 1, 180, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    file.extend((frame.len() as u32).to_le_bytes());
    file.extend([0; 8]);
    file.extend(frame);
    let mut ffmpeg = Command::new("ffmpeg")
        .args(["-v", "error", "-xerror", "-f", "ivf", "-i", "-", "-f", "rawvideo", "-pix_fmt", "gray", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("ffmpeg starts");
    ffmpeg.stdin.take().expect("a pipe").write_all(&file).expect("ffmpeg reads");
    let output = ffmpeg.wait_with_output().expect("ffmpeg ends");
    assert!(output.status.success());
    output.stdout
}

#[test]
fn a_tile_shows_a_picture_a_second_that_decodes() {
    let mut call = Call::dial(MediaLoop::start(settings()).expect("start"), running(3_661), false);
    assert!(call.until(LONG, |call| call.caller.connected && call.state() == ConnectionState::Connected));
    let began = std::time::Instant::now();
    assert!(call.until(LONG, |call| whole(call) >= 1));
    assert!(began.elapsed() < Duration::from_secs(1), "the first one comes at once");
    assert!(call.until(LONG, |call| {
        call.caller.send(0);
        whole(call) >= 4
    }));
    let took = began.elapsed();
    assert!(took > Duration::from_millis(1_900) && took < Duration::from_secs(6), "{took:?}");
    let all = pictures(&call.caller.received);
    let mut decoded = Vec::new();
    for picture in &all[..4] {
        assert!(picture.iter().all(|packet| packet.payload.len() <= 1_200));
        let ends: Vec<bool> = picture.iter().map(|packet| packet.header.marker).collect();
        assert!(ends[..ends.len() - 1].iter().all(|end| !end), "only the last packet ends the frame");
        decoded.push(decode(&frame_of(picture)));
    }
    for pair in all[1..4].windows(2) {
        let step = pair[1][0].header.timestamp.wrapping_sub(pair[0][0].header.timestamp);
        // Whole seconds at 90 kHz, but for when the loop woke.
        assert!((45_000..=135_000).contains(&step), "{step}");
        let id =
            |picture: &[&StackPacket]| vp8::dependencies(&picture[0].payload).picture.expect("a picture id");
        assert!(id(&pair[1]).follows(id(&pair[0])));
    }
    for pixels in &decoded {
        assert_eq!(pixels.len(), 320 * 180);
        let bright = pixels.iter().filter(|pixel| **pixel > 180).count();
        let dark = pixels.iter().filter(|pixel| **pixel < 60).count();
        assert!(bright > 3_000 && dark > 30_000, "{bright} bright and {dark} dark pixels");
    }
    assert!(decoded.windows(2).all(|pair| pair[0] != pair[1]), "the time moves");
    let numbers: Vec<u64> = call.caller.received.iter().map(|packet| *packet.seq_no).collect();
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1));
    // What is sent is not booked as received.
    let ring = call.ring(0).expect("ring");
    let mut read = Read::default();
    assert!(call.until(LONG, |call| {
        read.from(&ring);
        read.packets.len() as u64 == call.caller.sent
    }));
    read.check_balance(&ring);
    assert_eq!(call.rings().len(), 1);
}

#[test]
fn the_tile_goes_to_the_first_video_that_is_ready_to_receive() {
    use Direction::{RecvOnly, SendOnly, SendRecv};
    let lines = [
        (MediaKind::Audio, SendRecv),
        (MediaKind::Video, SendOnly),
        (MediaKind::Video, SendRecv),
        (MediaKind::Video, RecvOnly),
    ];
    let mut call = accepted(running(5), &lines);
    let directions: Vec<&str> = call
        .answer
        .lines()
        .filter(|l| l.ends_with("only") || l.ends_with("recv") || *l == "a=inactive")
        .collect();
    assert_eq!(directions, ["a=recvonly", "a=recvonly", "a=sendrecv", "a=inactive"]);
    assert_eq!(call.answer.matches("a=msid:recorder ").count(), 1);
    assert_eq!(call.answer.matches("a=msid:").count(), 1);
    assert!(call.until(LONG, |call| whole(call) >= 2));
    let mid = call.caller.senders[2].mid;
    assert!(call.caller.received.iter().all(|packet| packet.header.ext_vals.mid.is_none_or(|of| of == mid)));
    assert!(call.until(LONG, |call| {
        call.caller.send(0);
        call.caller.send(2);
        call.rings().len() == 2
    }));
    assert_eq!(call.facts.borrow().media[2].streams.len(), 1, "a camera and the tile on one m-line");
}

#[test]
fn who_only_watches_gets_the_tile_send_only() {
    let mut call = accepted(
        running(0),
        &[(MediaKind::Audio, Direction::SendOnly), (MediaKind::Video, Direction::RecvOnly)],
    );
    assert!(call.answer.contains("a=sendonly"));
    assert!(call.until(LONG, |call| whole(call) >= 1));
    frame_of(&pictures(&call.caller.received)[0]);
}

#[test]
fn a_call_that_gets_video_later_gets_the_tile_then() {
    let mut call = accepted(running(5), &[(MediaKind::Audio, Direction::SendRecv)]);
    assert!(!call.answer.contains("a=msid"));
    assert!(call.until(LONG, |call| call.state() == ConnectionState::Connected));
    let offer = call.caller.offer_lines(&[(MediaKind::Video, Direction::SendRecv)]);
    let answer = block(call.plane.renegotiate(CALL, offer)).expect("answer");
    assert!(answer.sdp.contains("a=msid:recorder "));
    call.caller.answer(&answer.sdp);
    assert!(call.until(LONG, |call| whole(call) >= 2));
}

#[test]
fn the_tile_goes_on_after_an_ice_restart_and_rests_while_nobody_receives() {
    let mut call = accepted(running(5), &[(MediaKind::Video, Direction::SendRecv)]);
    assert!(call.until(LONG, |call| whole(call) >= 2));
    let offer = call.caller.restart_ice();
    let answer = block(call.plane.renegotiate(CALL, offer)).expect("answer");
    call.caller.answer(&answer.sdp);
    let before = whole(&call);
    assert!(call.until(LONG, |call| whole(call) >= before + 2), "it goes on");
    assert_eq!(call.facts.borrow().ice_restarts, 1);

    let mid = call.caller.senders[0].mid;
    let offer = call.caller.set_direction(mid, Direction::SendOnly);
    let answer = block(call.plane.renegotiate(CALL, offer)).expect("answer");
    assert!(answer.sdp.contains("a=recvonly") && !answer.sdp.contains("a=msid"));
    call.caller.answer(&answer.sdp);
    call.caller.run_for(Duration::from_millis(300));
    let before = call.caller.received.len();
    call.caller.run_for(Duration::from_millis(1_500));
    assert_eq!(call.caller.received.len(), before, "nothing is sent to who does not listen");

    let offer = call.caller.set_direction(mid, Direction::SendRecv);
    let answer = block(call.plane.renegotiate(CALL, offer)).expect("answer");
    assert!(answer.sdp.contains("a=sendrecv") && answer.sdp.contains("a=msid:recorder "));
    call.caller.answer(&answer.sdp);
    assert!(call.until(LONG, |call| call.caller.received.len() > before));
}

#[test]
fn a_lost_packet_of_the_tile_comes_again() {
    let shim = LoseSecond(0);
    let plane = MediaLoop::start_with_shim(settings(), Box::new(shim)).expect("start");
    let mut call = Call::dial(plane, running(5), false);
    let numbers = |call: &Call| {
        let mut numbers: Vec<u64> = call.caller.received.iter().map(|packet| *packet.seq_no).collect();
        numbers.sort_unstable();
        numbers
    };
    let all_came = call.until(LONG, |call| {
        let numbers = numbers(call);
        numbers.len() >= 6 && numbers[..6].windows(2).all(|pair| pair[1] == pair[0] + 1)
    });
    assert!(all_came, "{:?}", numbers(&call));
}

/// Loses the second RTP packet that we send.
struct LoseSecond(u32);

impl crate::adapters::media::shim::Shim for LoseSecond {
    fn received(&mut self, _: std::net::SocketAddr, _: &[u8]) -> crate::adapters::media::shim::Fault {
        crate::adapters::media::shim::Fault::Pass
    }

    fn sent(&mut self, _: std::net::SocketAddr, bytes: &[u8]) -> crate::adapters::media::shim::Fault {
        use crate::adapters::media::shim::Fault;
        let is_rtp = (128..192).contains(&bytes[0]) && !(64..96).contains(&(bytes[1] & 0x7f));
        self.0 += u32::from(is_rtp);
        if is_rtp && self.0 == 2 { Fault::Drop } else { Fault::Pass }
    }
}

#[test]
fn twenty_connections_share_each_picture() {
    let plane = MediaLoop::start(settings()).expect("start");
    let tile = running(100);
    let mut callers = Vec::new();
    for id in 1..=20 {
        let mut caller = Caller::new();
        let id = ConnectionId(id);
        let (offer, facts) = block(plane.dial(id, Vec::new(), tile.clone(), false)).expect("offer");
        let answer = caller.answer_offer(&offer.sdp);
        block(plane.answered(id, answer)).expect("taken");
        callers.push((caller, facts));
    }
    let first = boot_time();
    let deadline = std::time::Instant::now() + LONG;
    let seen = |caller: &Caller| caller.received.iter().filter(|packet| packet.header.marker).count();
    while callers.iter().any(|(caller, _)| seen(caller) < 3) {
        assert!(std::time::Instant::now() < deadline, "everyone sees three pictures");
        callers.iter_mut().for_each(|(caller, _)| caller.run_for(Duration::from_millis(2)));
    }
    let seconds = boot_time().saturating_since(first).as_secs();
    let painted = plane.shared.pictures.painted();
    assert!(painted >= 3 && painted <= seconds + 4, "{painted} pictures in {seconds} s for 20 connections");
    plane.shutdown();
}

#[test]
fn another_webrtc_stack_answers_our_offer_and_gets_the_tile() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    let plane = MediaLoop::start(settings()).expect("start");
    runtime.block_on(async {
        let (packets, mut arrived) = tokio::sync::mpsc::channel(10_000);
        let (offer, facts) = plane.dial(CALL, Vec::new(), running(59), true).await.expect("offer");
        let total = Arc::new(ReceivedTotal::default());
        let address = "127.0.0.1:0".to_owned();
        let (peer, answer) =
            ReceivingPeer::answer(offer.sdp, address, total, Some(packets)).await.expect("it answers");
        let mut peer = peer;
        plane.answered(CALL, answer).await.expect("its answer is taken");
        let mut candidates = peer.take_candidates();
        let first =
            tokio::time::timeout(LONG, candidates.recv()).await.expect("in time").expect("a candidate");
        plane.add_candidates(CALL, vec![first]);
        let mut picture = Vec::new();
        loop {
            let packet =
                tokio::time::timeout(LONG, arrived.recv()).await.expect("in time").expect("a packet");
            let ends = packet.header.marker;
            picture.push(packet.payload.to_vec());
            if ends {
                break;
            }
        }
        let frame = vp8::frame(picture.iter().map(Vec::as_slice)).expect("a VP8 frame");
        assert_eq!((frame.key, frame.size), (true, Some((320, 180))));
        assert_eq!(facts.borrow().state, ConnectionState::Connected);
        assert_eq!(facts.borrow().media.len(), 3);
    });
    plane.shutdown();
}
