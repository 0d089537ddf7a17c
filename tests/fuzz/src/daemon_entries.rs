//! What a fuzz target of the daemon does with its bytes. Each function returns normally for every input, or there is a
//! defect.

use std::net::SocketAddr;

use matrix_call_recorder::adapters::matrix::fuzz_event;
use matrix_call_recorder::adapters::media::answer::{self, Quality};
use matrix_call_recorder::adapters::media::candidates::{self, Remote};
use matrix_call_recorder::adapters::media::demux::{Demux, binding_request_fragment, is_binding_request};
use matrix_call_recorder::adapters::media::intake::Head;
use matrix_call_recorder::adapters::media::offer::{self, MAX_LINES};
use matrix_call_recorder::adapters::media::trickle::Trickle;
use matrix_call_recorder::adapters::media::turn::udp_host;
use recorder_actors::ports::RemoteCandidate;
use recorder_core::ids::ConnectionId;

/// What a target is called with.
pub type Entry = fn(&[u8]);

/// Every target: its name, which is also its folder of `corpus/`, and its function.
pub const TARGETS: &[(&str, Entry)] = &[
    ("sdp", sdp),
    ("candidate", candidate),
    ("datagram", datagram),
    ("matrix_event", matrix_event),
    ("turn_uri", turn_uri),
];

/// A session description, read as an offer and as an answer. What we would hand on is handed on, as if the stack had
/// answered with it.
pub fn sdp(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    for read in [offer::read(&text), offer::read_answer(&text)] {
        let Ok(read) = read else { continue };
        assert!(!read.lines.is_empty() && read.lines.len() <= MAX_LINES);
        assert!(read.sdp.starts_with("v=0") && !read.sdp.contains('\0'));
        let quality = Quality { opus_bitrate: 128_000, video_start_kbps: 2_500 };
        let candidates = ["candidate:1 1 udp 1 127.0.0.1 9 typ host".to_owned()];
        if let Ok(written) = answer::write(&read.sdp, &read, &candidates, quality) {
            assert_eq!(written.accepted.len(), read.lines.len());
            assert_eq!(written.sdp.matches("\r\nm=").count(), read.lines.len());
        }
    }
}

/// A candidate line after the line that names its user fragment.
pub fn candidate(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (fragment, line) = text.split_once('\n').unwrap_or(("", &text));
    if let Remote::Usable(candidate) = candidates::remote(line) {
        assert!(candidate.addr().port() > 0 || line.contains(" 0 "));
    }
    let mut trickle = Trickle::default();
    let told = RemoteCandidate {
        candidate: line.to_owned(),
        mid: None,
        m_line: None,
        username_fragment: Some(fragment.to_owned()),
    };
    trickle.adopt(Some("first"));
    for _ in 0..100 {
        let _ = trickle.judge(&told);
    }
    assert!(trickle.adopt(Some(fragment)).len() <= 64);
}

/// A datagram as it comes to the shared port.
pub fn datagram(data: &[u8]) {
    let source = SocketAddr::from(([192, 0, 2, 1], 9));
    let id = ConnectionId(1);
    let mut demux = Demux::default();
    demux.add_fragment(id, "abcd");
    let fragment = binding_request_fragment(data);
    assert!(fragment.is_none() || is_binding_request(data));
    assert_eq!(demux.route(source, data).is_some(), fragment == Some("abcd"));
    // Who is known by its address stays known.
    assert_eq!(demux.route(source, &[0x80; 12]).is_some(), fragment == Some("abcd"));
    if let Some(head) = Head::parse(data) {
        assert!(fragment.is_none() && head.payload_type < 128);
    }
}

/// An event of a room, as the homeserver sends it.
pub fn matrix_event(data: &[u8]) {
    fuzz_event(&String::from_utf8_lossy(data));
}

/// The address of a TURN server, as the homeserver names it.
pub fn turn_uri(data: &[u8]) {
    if let Some((host, _)) = udp_host(&String::from_utf8_lossy(data)) {
        assert!(!host.is_empty());
    }
}
