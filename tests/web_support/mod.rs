//! A clock held in the hand, a board full of made-up calls, and a client that says exactly what it is told
//! to.

#![allow(dead_code, clippy::unwrap_used, reason = "each test binary uses a part, and ends where it fails")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use matrix_call_recorder::web::{self, WebHandle, WebSettings};
use recorder_actors::observe::{
    AccountSnapshot, ActorKind, ActorSnapshot, ActorState, Board, CallSnapshot, ParticipantSnapshot,
    RoomSnapshot, Severity, StaySnapshot, StorageSnapshot, TrackSnapshot,
};
use recorder_actors::ports::Clock;
use recorder_core::ids::{CallKey, Generation};
use recorder_core::media::{Codec, Source};
use recorder_core::room::Waits;
use recorder_core::time::BootTime;

/// 2026-11-22T14:42:17Z.
pub const NOW: i64 = 1_795_358_537_000_000;
/// The hand clock's monotonic time at [`NOW`], nanoseconds.
pub const BOOT: i64 = 10_000_000_000_000_000;

/// Time that goes on only when told.
pub struct HandClock(AtomicI64);

impl HandClock {
    pub fn new() -> Arc<Self> {
        Self::before(Duration::ZERO)
    }

    /// Set to `by` before [`NOW`].
    pub fn before(by: Duration) -> Arc<Self> {
        Arc::new(Self(AtomicI64::new(-(by.as_nanos() as i64))))
    }

    pub fn advance(&self, by: Duration) {
        self.0.fetch_add(by.as_nanos() as i64, Ordering::Relaxed);
    }
}

impl Clock for HandClock {
    fn now(&self) -> BootTime {
        BootTime::from_nanos((BOOT + self.0.load(Ordering::Relaxed)) as u64)
    }

    fn utc_micros(&self) -> i64 {
        NOW + self.0.load(Ordering::Relaxed) / 1_000
    }
}

/// An address of our own that nobody else uses.
pub fn anywhere() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

pub fn open_settings() -> WebSettings {
    WebSettings {
        listen: anywhere(),
        metrics_listen: None,
        token: None,
        hosts: vec![],
        source_url: matrix_call_recorder::cli::SOURCE.to_owned(),
    }
}

pub fn serve(settings: WebSettings, board: &Arc<Board>, clock: &Arc<HandClock>) -> WebHandle {
    web::serve(settings, Arc::clone(board), clock.clone()).unwrap()
}

pub fn beat(board: &Board, clock: &HandClock) {
    let now = clock.now().as_nanos();
    board.tree_heartbeat.store(now, Ordering::Relaxed);
    board.media_heartbeat.store(now, Ordering::Relaxed);
}

pub struct Answer {
    pub status: u16,
    pub headers: String,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .lines()
            .filter_map(|line| line.split_once(": "))
            .find_map(|(key, value)| key.eq_ignore_ascii_case(name).then_some(value))
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

/// One request on a connection of its own; `extra` holds whole header lines.
pub fn request(address: SocketAddr, method: &str, path: &str, extra: &[&str], body: &str) -> Answer {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let host = format!("Host: {address}");
    let mut lines = vec![format!("{method} {path} HTTP/1.1"), "Connection: close".into()];
    if !extra.iter().any(|line| line.to_lowercase().starts_with("host:")) {
        lines.push(host);
    }
    lines.extend(extra.iter().map(|line| (*line).to_owned()));
    lines.push(format!("Content-Length: {}\r\n\r\n{body}", body.len()));
    stream.write_all(lines.join("\r\n").as_bytes()).unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, headers: head.to_owned(), body: body.to_owned() }
}

pub fn get(address: SocketAddr, path: &str) -> Answer {
    request(address, "GET", path, &[], "")
}

/// An open event stream.
pub struct Stream {
    pub status: u16,
    reader: BufReader<TcpStream>,
}

impl Stream {
    pub fn open(address: SocketAddr) -> Self {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        write!(stream, "GET /api/v1/events HTTP/1.1\r\nHost: {address}\r\n\r\n").unwrap();
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let status = line.split(' ').nth(1).unwrap().parse().unwrap();
        Self { status, reader }
    }

    /// The next section: its id and its HTML. `None` at the stream's end.
    pub fn section(&mut self) -> Option<(String, String)> {
        loop {
            let mut line = String::new();
            if self.reader.read_line(&mut line).unwrap() == 0 {
                return None;
            }
            if let Some(data) = line.strip_prefix("data: ") {
                let data: serde_json::Value = serde_json::from_str(data).unwrap();
                return Some((data["id"].as_str()?.to_owned(), data["html"].as_str()?.to_owned()));
            }
        }
    }

    /// Reads until a section `id` holds `text`.
    pub fn until(&mut self, id: &str, text: &str) -> String {
        loop {
            let (seen, html) = self.section().expect("the stream goes on");
            if seen == id && html.contains(text) {
                return html;
            }
        }
    }
}

fn actor(board: &Board, path: &str, kind: ActorKind, name: &str, minutes: i64) -> ActorSnapshot {
    let snapshot = ActorSnapshot {
        path: path.into(),
        kind,
        name: name.into(),
        state: ActorState::Running,
        generation: Generation::FIRST,
        address: 0,
        restarts: 0,
        last_error: None,
        since_utc_micros: NOW - minutes * 60_000_000,
    };
    board.put_actor(snapshot.clone());
    snapshot
}

pub fn track(
    id: &str,
    source: Source,
    codec: Codec,
    size: Option<(u32, u32)>,
    bits: u64,
    bytes: u64,
) -> TrackSnapshot {
    TrackSnapshot {
        id: id.into(),
        source,
        kind: codec.kind(),
        codec: Some(codec),
        width: size.map(|(width, _)| width),
        height: size.map(|(_, height)| height),
        bits_per_second: bits,
        media_seconds: 2_531.0,
        bytes,
        frames: 126_550,
        received: 126_600,
        recovered: 41,
        lost: 0,
        dropped_by_us: 0,
        muted: false,
        live: true,
        file: Some(format!("{id}_0001.webm")),
        segments: 1,
    }
}

pub fn participant(id: &str, name: &str, user: &str, tracks: Vec<TrackSnapshot>) -> ParticipantSnapshot {
    ParticipantSnapshot {
        id: id.into(),
        user_id: Some(user.into()),
        device_id: None,
        display_name: Some(name.into()),
        present: true,
        stays: vec![StaySnapshot { joined_utc_micros: NOW - 2_537_000_000, left_utc_micros: None }],
        told: true,
        opted_out: false,
        stalled: false,
        tracks,
    }
}

pub fn call(key: u64, room: &str, minutes: i64, participants: Vec<ParticipantSnapshot>) -> CallSnapshot {
    CallSnapshot {
        key: CallKey(key),
        session_id: format!("session-{key}"),
        call_kind: "one_to_one".into(),
        room_id: "!abc:example.org".into(),
        room_name: room.into(),
        encrypted: true,
        state: "recording".into(),
        started_utc_micros: NOW - minutes * 60_000_000 - 17_000_000,
        started_by: Some("@ada:example.org".into()),
        folder: "podcast-1a2b3c4d/20261122T140000Z_1".into(),
        participants,
    }
}

/// A recorder at work: three calls, one trouble, a few words.
pub fn busy_board(clock: &HandClock) -> Arc<Board> {
    let board = Board::new();
    fill(&board, clock);
    board
}

pub fn fill(board: &Board, clock: &HandClock) {
    beat(board, clock);
    let media = board.media.load();
    media.connections.store(3, Ordering::Relaxed);
    media.counts.datagrams.store(1_000_000, Ordering::Relaxed);
    media.counts.kernel_drops.store(7, Ordering::Relaxed);
    media.counts.send_errors.store(2, Ordering::Relaxed);
    board.account.store(Arc::new(AccountSnapshot {
        user_id: Some("@recorder:example.org".into()),
        device_id: Some("RECORDER".into()),
        homeserver: Some("https://example.org".into()),
        logged_in: true,
        first_sync_done: true,
        last_sync_utc_micros: Some(NOW - 4_000_000),
        last_error: None,
    }));
    board.storage.store(Arc::new(StorageSnapshot {
        writable: true,
        free_bytes: 412_000_000_000,
        reserve_bytes: 1 << 30,
        level: "plenty".into(),
        lane_busy_s: 0.01,
        queued_bytes: 40_000,
        last_error: None,
    }));

    let mut screen = track("p1-screen-1", Source::Screen, Codec::Vp8, Some((1920, 1080)), 310_000, 3_100_000);
    screen.media_seconds = 78.0;
    let ada = vec![
        track("p1-microphone-1", Source::Microphone, Codec::Opus, None, 128_300, 40_600_000),
        track("p1-camera-1", Source::Camera, Codec::Vp8, Some((1280, 720)), 1_400_000, 431_000_000),
        screen,
    ];
    board.put_call(call(
        1,
        "Podcast, episode 41",
        42,
        vec![participant("p1", "Ada Lovelace", "@ada:example.org", ada)],
    ));

    let mut lossy = track("p1-microphone-1", Source::Microphone, Codec::Opus, None, 31_000, 16_200_000);
    lossy.lost = 2_412;
    let mut muted = track("p1-camera-1", Source::Camera, Codec::H264, Some((640, 360)), 0, 88_000_000);
    (muted.muted, muted.live) = (true, false);
    let mut hearing = call(
        2,
        "Hearing 2026-118",
        68,
        vec![participant("p1", "Alan Turing", "@alan:example.org", vec![lossy, muted])],
    );
    hearing.encrypted = false;
    board.put_call(hearing);
    let mut waiting = call(
        3,
        "Interview with Grace",
        0,
        vec![participant("p1", "Grace Hopper", "@grace:example.net", vec![])],
    );
    waiting.state = "connecting".into();
    board.put_call(waiting);

    use ActorKind::{Call, Peer, Supervisor, TrackWriter};
    actor(board, "supervisor", Supervisor, "", 13_200);
    actor(board, "supervisor/call-1", Call, "Podcast, episode 41", 42);
    actor(board, "supervisor/call-1/p1", Peer, "Ada Lovelace", 42);
    actor(board, "supervisor/call-1/p1/p1-microphone-1", TrackWriter, "microphone", 42);
    actor(board, "supervisor/call-1/p1/p1-camera-1", TrackWriter, "camera", 42);
    let mut again = actor(board, "supervisor/call-1/p1/p1-screen-1", TrackWriter, "screen", 31);
    again.generation = Generation(2);
    again.restarts = 1;
    board.put_actor(again);
    actor(board, "supervisor/call-2", Call, "Hearing 2026-118", 68);
    actor(board, "supervisor/call-2/p1", Peer, "Alan Turing", 68);
    let mut sick = actor(board, "supervisor/call-2/p1/p1-microphone-1", TrackWriter, "microphone", 4);
    sick.generation = Generation(3);
    sick.restarts = 2;
    sick.last_error = Some("write failed, input/output error".into());
    board.put_actor(sick);
    actor(board, "supervisor/call-2/p1/p1-camera-1", TrackWriter, "camera", 68);
    actor(board, "supervisor/call-3", Call, "Interview with Grace", 0);
    actor(board, "supervisor/call-3/p1", Peer, "Grace Hopper", 0);

    for (minutes, severity, text) in [
        (68, Severity::Info, "Alan Turing called from Hearing 2026-118: recording started"),
        (42, Severity::Info, "Ada Lovelace called from Podcast, episode 41: recording started"),
        (31, Severity::Warning, "Ada's screen writer restarted (generation 2): gap 0.2 s"),
        (12, Severity::Info, "Ada changed her camera to 1280×720: writer updated, nothing else touched"),
        (
            4,
            Severity::Warning,
            "Alan's microphone writer restarted (generation 3): write failed, input/output error",
        ),
        (1, Severity::Info, "Ada started her screen: one writer started, nothing else touched"),
        (0, Severity::Info, "A call from @eve:example.net was refused: not on the allow-list"),
    ] {
        board.happened(NOW - minutes * 60_000_000 - 6_000_000, severity, text);
    }
    for (room, waiting, by) in [
        ("Board meeting", Waits::Auto, Some("@ada:example.org")),
        ("Choir", Waits::Start, Some("@grace:example.net")),
        ("", Waits::Configured, None),
    ] {
        board.put_room(RoomSnapshot {
            room_id: format!("!{room}:example.org"),
            room_name: room.into(),
            waiting,
            by: by.map(str::to_owned),
        });
    }
    let totals = &board.totals;
    for (counter, value) in [
        (&totals.calls_answered, 14),
        (&totals.packets_received, 9_120_331),
        (&totals.packets_recovered, 3_104),
        (&totals.packets_lost, 2_412),
        (&totals.actor_restarts, 3),
        (&totals.bytes_written, 579_000_000),
        (&totals.syncs, 26_400),
    ] {
        counter.store(value, Ordering::Relaxed);
    }
}
