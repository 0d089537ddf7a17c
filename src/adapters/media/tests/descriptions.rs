//! Offers as they come, and the answers to them.

use proptest::prelude::*;
use recorder_actors::ports::{Direction, MediaError};
use recorder_core::media::{Codec, MediaKind};

use crate::adapters::media::answer::{self, Quality};
use crate::adapters::media::offer::{self, MAX_LINES, MAX_MEDIA_LINES, Usage};

const QUALITY: Quality = Quality { opus_bitrate: 96_000, video_start_kbps: 1_800 };

fn session() -> String {
    "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1\r\na=extmap-allow-mixed\r\n"
        .to_owned()
}

fn transport(mid: &str) -> String {
    format!(
        "c=IN IP4 0.0.0.0\r\na=rtcp:9 IN IP4 0.0.0.0\r\na=ice-ufrag:abcd\r\na=ice-pwd:abcdefghijklmnopqrstuv\r\n\
         a=ice-options:trickle\r\na=fingerprint:sha-256 {}\r\na=setup:actpass\r\na=mid:{mid}\r\na=rtcp-mux\r\n",
        ["AB"; 32].join(":")
    )
}

fn audio(mid: &str, payload_type: u8, more: &str) -> String {
    format!(
        "m=audio 9 UDP/TLS/RTP/SAVPF {payload_type} 9\r\n{}a=rtpmap:{payload_type} opus/48000/2\r\n\
         a=rtcp-fb:{payload_type} transport-cc\r\na=fmtp:{payload_type} minptime=10;useinbandfec=1\r\n\
         a=rtpmap:9 G722/8000\r\n{more}",
        transport(mid)
    )
}

fn video(mid: &str, more: &str) -> String {
    format!(
        "m=video 9 UDP/TLS/RTP/SAVPF 98 99 96 97\r\n{}a=rtpmap:96 VP8/90000\r\na=rtcp-fb:96 nack\r\n\
         a=rtcp-fb:96 nack pli\r\na=rtcp-fb:96 ccm fir\r\na=rtcp-fb:96 transport-cc\r\na=rtpmap:97 rtx/90000\r\na=fmtp:97 apt=96\r\n\
         a=rtpmap:98 VP9/90000\r\na=fmtp:98 profile-id=0\r\na=rtpmap:99 rtx/90000\r\na=fmtp:99 apt=98\r\n{more}",
        transport(mid)
    )
}

/// The answer the real stack gives, edited.
fn answered(offer: &str) -> Result<answer::Written, MediaError> {
    let read = offer::read(offer)?;
    let mut rtc = str0m::Rtc::builder().set_rtp_mode(true).build(std::time::Instant::now());
    let parsed = str0m::change::SdpOffer::from_sdp_string(&read.sdp)
        .map_err(|e| MediaError::BadOffer(e.to_string()))?;
    let stack =
        rtc.sdp_api().accept_offer(parsed).map_err(|e| MediaError::BadOffer(e.to_string()))?.to_sdp_string();
    answer::write(&stack, &read, &["candidate:1 1 udp 1 192.0.2.1 9 typ host".to_owned()], QUALITY)
}

fn sections(sdp: &str) -> Vec<&str> {
    sdp.split("\r\nm=").skip(1).collect()
}

#[test]
fn opus_is_asked_for_at_the_payload_type_that_was_offered() {
    for payload_type in [111, 109, 96] {
        let offer = session() + audio("0", payload_type, "a=sendrecv\r\n").as_str();
        let sdp = answered(&offer).expect("answer").sdp;
        let fmtp = "minptime=10;useinbandfec=1;stereo=1;sprop-stereo=1;maxaveragebitrate=96000";
        assert!(sdp.contains(&format!("a=fmtp:{payload_type} {fmtp}\r\n")), "{sdp}");
        assert!(sdp.contains(&format!("a=rtcp-fb:{payload_type} nack\r\n")));
        assert!(sdp.contains(&format!("a=rtcp-fb:{payload_type} transport-cc\r\n")));
        assert_eq!(sdp.matches("a=fmtp:").count(), 1);
    }
}

#[test]
fn video_keeps_the_offerers_order_and_is_asked_to_start_fast() {
    let written = answered(&(session() + video("0", "a=sendonly\r\n").as_str())).expect("answer");
    assert!(written.sdp.contains("m=video 9 UDP/TLS/RTP/SAVPF 98 99 96 97\r\n"), "{}", written.sdp);
    assert!(written.sdp.contains("a=fmtp:98 profile-id=0;x-google-start-bitrate=1800\r\n"));
    assert!(written.sdp.contains("a=fmtp:96 x-google-start-bitrate=1800\r\n"));
    assert!(written.sdp.contains("a=fmtp:97 apt=96\r\n"), "the parameters of rtx stay");
    assert!(!written.sdp.contains("x-google-min"));
    assert_eq!(written.accepted, [[(98, Codec::Vp9), (96, Codec::Vp8)]]);
}

#[test]
fn an_m_line_that_does_not_send_is_answered_inactive_and_others_recvonly() {
    for (offered, expected) in [
        ("sendrecv", "recvonly"),
        ("sendonly", "recvonly"),
        ("recvonly", "inactive"),
        ("inactive", "inactive"),
    ] {
        let offer = session() + audio("0", 111, &format!("a={offered}\r\n")).as_str();
        let sdp = answered(&offer).expect("answer").sdp;
        assert!(sections(&sdp)[0].contains(&format!("\r\na={expected}\r\n")), "{offered}: {sdp}");
    }
}

#[test]
fn a_direction_of_the_whole_session_counts_where_an_m_line_has_none() {
    let offer =
        session() + "a=recvonly\r\n" + audio("0", 111, "").as_str() + video("1", "a=sendonly\r\n").as_str();
    let read = offer::read(&offer).expect("offer");
    assert_eq!(read.lines[0].direction, Direction::RecvOnly);
    assert_eq!(read.lines[1].direction, Direction::SendOnly);
}

#[test]
fn m_lines_without_msid_or_ssrc_or_with_equal_ones_stay_apart() {
    let same = "a=msid:stream track\r\na=ssrc:5 cname:x\r\na=ssrc:5 msid:stream track\r\n";
    let offer = session()
        + audio("a", 111, same).as_str()
        + audio("b", 111, "a=msid:stream track\r\na=ssrc:6 cname:x\r\n").as_str()
        + audio("c", 111, "").as_str()
        + audio("d", 111, "a=msid:- track\r\n").as_str();
    let read = offer::read(&offer).expect("offer");
    let ids: Vec<_> =
        read.lines.iter().map(|line| (line.mid.as_deref(), line.msid_stream.as_deref())).collect();
    assert_eq!(
        ids,
        [(Some("a"), Some("stream")), (Some("b"), Some("stream")), (Some("c"), None), (Some("d"), None)]
    );
    let written = answered(&offer).expect("answer");
    assert_eq!(written.sdp.matches("a=recvonly").count(), 4);
    assert!(written.sdp.contains("a=group:BUNDLE a b c d\r\n"));
}

#[test]
fn unknown_codecs_and_kinds_are_rejected_in_their_place() {
    let odd = "m=text 9 UDP/TLS/RTP/SAVPF 98\r\na=mid:t\r\na=rtpmap:98 t140/1000\r\n";
    let foreign = audio("x", 111, "").replace("opus", "mystery");
    let offer = session()
        + odd
        + foreign.as_str()
        + audio("0", 111, "a=sendonly\r\n").as_str()
        + video("v", "").replace("m=video 9", "m=video 0").as_str();
    let written = answered(&offer).expect("answer");
    let parts = sections(&written.sdp);
    assert!(parts[0].starts_with("text 0 UDP/TLS/RTP/SAVPF 98\r\n"));
    assert!(parts[1].starts_with("audio 0 UDP/TLS/RTP/SAVPF 111 9\r\n"));
    assert!(parts[2].starts_with("audio 9 "));
    assert!(parts[3].starts_with("video 0 "));
    assert!(written.sdp.contains("a=group:BUNDLE 0\r\n"));
    assert!(parts[2].contains("a=candidate:1"), "candidates stand where the bundle is");
    assert_eq!(written.sdp.matches("a=candidate").count(), 1);
}

#[test]
fn a_data_channel_is_accepted_and_alone_is_nothing_to_record() {
    let data =
        format!("m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\n{}a=sctp-port:5000\r\n", transport("d"));
    assert_eq!(answered(&(session() + data.as_str())), Err(MediaError::NothingToRecord));
    let written = answered(&(session() + data.as_str() + audio("0", 111, "").as_str())).expect("answer");
    assert!(sections(&written.sdp)[0].starts_with("application 9 "));
    assert!(written.sdp.contains("a=group:BUNDLE d 0\r\n"));
}

#[test]
fn three_hundred_m_lines_are_answered_one_by_one() {
    let lines: String = (0..300).map(|index| audio(&format!("m{index}"), 111, "a=sendonly\r\n")).collect();
    let written = answered(&(session() + lines.as_str())).expect("answer");
    let parts = sections(&written.sdp);
    assert_eq!(parts.len(), 300);
    assert_eq!(parts.iter().filter(|part| part.starts_with("audio 9 ")).count(), MAX_MEDIA_LINES);
    assert!(parts[MAX_MEDIA_LINES..].iter().all(|part| part.starts_with("audio 0 ")));
    let too_many: String = (0..=MAX_LINES).map(|_| "m=audio 9 RTP/AVP 0\r\n").collect();
    assert!(matches!(offer::read(&(session() + too_many.as_str())), Err(MediaError::BadOffer(_))));
}

#[test]
fn mids_that_would_mix_streams_up_are_refused() {
    let refused = |lines: String| {
        assert!(matches!(offer::read(&(session() + lines.as_str())), Err(MediaError::BadOffer(_))))
    };
    refused(audio("same", 111, "") + audio("same", 111, "").as_str());
    refused(audio("a-b", 111, "") + audio("a_b", 111, "").as_str());
    refused(audio("seventeen-letters", 111, ""));
    refused(audio("0", 111, "").replace("a=mid:0\r\n", ""));
    refused(audio("0", 111, "") + "m=video\r\n");
    refused("\0".to_owned() + audio("0", 111, "").as_str());
}

#[test]
fn a_mid_with_punctuation_comes_back_as_it_was() {
    let written = answered(&(session() + audio("mic-1", 111, "a=sendonly\r\n").as_str())).expect("answer");
    assert!(written.sdp.contains("a=mid:mic-1\r\n"));
    assert!(written.sdp.contains("a=group:BUNDLE mic-1\r\n"));
}

#[test]
fn retransmission_sources_belong_to_their_main_source() {
    let ssrcs = "a=ssrc-group:FID 1 2\r\na=ssrc:1 cname:x\r\na=ssrc:2 cname:x\r\na=ssrc:3 cname:x\r\na=ssrc:nonsense\r\n";
    let read = offer::read(&(session() + video("0", ssrcs).as_str())).expect("offer");
    assert_eq!(read.lines[0].sources, [(1, Some(2)), (3, None)]);
    assert_eq!(read.lines[0].usage, Usage::Media(MediaKind::Video));
}

#[test]
fn candidates_and_the_fragment_are_read_and_kept_from_the_stack() {
    let offer = session()
        + audio("0", 111, "a=candidate:1 1 udp 1 x.local 9 typ host\r\na=end-of-candidates\r\n").as_str();
    let read = offer::read(&offer).expect("offer");
    assert_eq!(read.candidates, ["candidate:1 1 udp 1 x.local 9 typ host"]);
    assert_eq!(read.ufrag.as_deref(), Some("abcd"));
    assert!(!read.sdp.contains("candidate"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_text_makes_reading_panic(text in "(v=0|m=(audio|video) 9 (UDP/TLS/)?RTP/SAVPF [0-9]{1,3}|a=(mid|msid|ssrc|rtpmap|fmtp|ssrc-group|candidate):?\\PC{0,20}|\\PC{0,30}|\r|\n|\r\n| ){0,40}") {
        let _ = offer::read(&text);
    }

    #[test]
    fn a_mangled_offer_is_answered_or_refused(cut in 0usize..2000, insert in "\\PC{0,12}", line in 0usize..40) {
        let whole = session() + audio("0", 111, "a=ssrc:7 cname:x\r\na=sendrecv\r\n").as_str() + video("1", "a=sendonly\r\n").as_str();
        let mut lines: Vec<String> = whole.lines().map(str::to_owned).collect();
        let at = line % lines.len();
        let text = &mut lines[at];
        let position = (cut..=cut + 4).map(|n| n % (text.len() + 1)).find(|n| text.is_char_boundary(*n)).unwrap_or(0);
        text.insert_str(position, &insert);
        let mut mangled = lines.join("\r\n") + "\r\n";
        mangled.truncate((0..=mangled.len().min(cut * 2 + 400)).rev().find(|n| mangled.is_char_boundary(*n)).unwrap_or(0));
        let _ = answered(&mangled);
    }
}
