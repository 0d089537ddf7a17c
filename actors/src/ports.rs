//! The traits through which the tree acts on the world. The daemon implements them; tests bring fakes.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use recorder_core::call::{Announcement, Space};
pub use recorder_core::call::{RemoteCandidate, Urgency};
use recorder_core::ids::{ConnectionId, Mid, SessionId, StreamId};
use recorder_core::manifest::CallKind;
use recorder_core::media::{Codec, MediaKind};
use recorder_core::room;
use recorder_core::time::BootTime;
use tokio::sync::watch;

use crate::ring::TrackRing;
use crate::session::{SessionError, SessionHandle};

/// The monotonic clock of this machine and its relation to UTC.
pub trait Clock: Send + Sync + 'static {
    fn now(&self) -> BootTime;
    /// UTC now, microseconds since 1970.
    fn utc_micros(&self) -> i64;
}

/// How a peer connection fares. It only ever moves forward to `Failed` or `Closed`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionState {
    /// Checks are running, media cannot flow yet.
    Connecting,
    /// ICE and DTLS are up.
    Connected,
    /// It was up and the path is silent; it may come back by itself or by an ICE restart.
    Disconnected,
    /// The remote side closed it (DTLS close_notify) or we did.
    Closed,
    /// It cannot come back.
    Failed,
}

/// Direction of a remote m-line, as the *remote* description states it (RFC 8866 §6.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    SendRecv,
    SendOnly,
    RecvOnly,
    Inactive,
}

impl Direction {
    /// The remote side says that it sends.
    pub fn sends(self) -> bool {
        matches!(self, Self::SendRecv | Self::SendOnly)
    }
}

/// One m-line of the newest remote description, and the stream that arrives on it, if one has.
#[derive(Clone, Debug)]
pub struct RemoteMedia {
    pub mid: Mid,
    pub kind: MediaKind,
    pub direction: Direction,
    /// First token of `a=msid` (RFC 8830): the MediaStream id that stream metadata refers to; absent if not given.
    pub msid_stream: Option<String>,
    /// Codecs accepted in our answer, preferred first; empty for a rejected m-line.
    pub codecs: Vec<Codec>,
    /// Rings of the streams seen on this m-line, oldest first. The last one that has not ended is current.
    pub streams: Vec<Arc<TrackRing>>,
}

/// Everything the tree may know of a connection, as of now. Facts are levels, not edges.
#[derive(Clone, Debug)]
pub struct ConnectionFacts {
    pub id: ConnectionId,
    pub state: ConnectionState,
    /// Why it is `Closed` or `Failed`, for people.
    pub reason: Option<String>,
    pub media: Vec<RemoteMedia>,
    /// Round trip of the selected pair.
    pub round_trip: Option<Duration>,
    /// How often the remote description changed its ICE credentials.
    pub ice_restarts: u32,
    /// First packet of any stream.
    pub first_packet: Option<BootTime>,
    /// Packets that came before their keys or stream were known and found no room to wait.
    pub held_drops: u64,
}

/// A TURN server of the homeserver (spec: client-server API, "VoIP").
#[derive(Clone, PartialEq, Eq)]
pub struct TurnServer {
    /// `turn:host:port?transport=udp` and the like.
    pub uris: Vec<String>,
    pub username: String,
    pub password: String,
}

impl std::fmt::Debug for TurnServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TurnServer").field("uris", &self.uris).finish_non_exhaustive()
    }
}

/// What the answer says to the remote side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub sdp: String,
}

/// A video that we send: a picture that says that, and for how long, a recording runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tile {
    /// MediaStream id in our description (`a=msid`, RFC 8830); stream metadata names it.
    pub stream: String,
    /// When the recording began; `None` offers the m-line and never sends a picture.
    pub since: Option<BootTime>,
}

#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum MediaError {
    #[error("the offer cannot be used: {0}")]
    BadOffer(String),
    #[error("the recorder carries {0} connections already, which is its limit")]
    Full(usize),
    #[error("the offer has no audio or video that can be recorded")]
    NothingToRecord,
    #[error("the connection no longer exists")]
    Gone,
    #[error("the media loop does not answer")]
    Stopped,
}

/// A connection that was set up: our description, and its facts from then on.
pub type Connected = (Answer, watch::Receiver<Arc<ConnectionFacts>>);

/// The media loop as the tree sees it. No method blocks; every queue behind it is bounded.
pub trait MediaPlane: Send + Sync + 'static {
    /// Sets up a connection from a remote offer: receive-only but for `tile`, which goes to the first video m-line that
    /// wants one.
    fn accept(
        &self,
        id: ConnectionId,
        offer: String,
        turn: Vec<TurnServer>,
        tile: Option<Tile>,
    ) -> BoxFuture<'static, Result<Connected, MediaError>>;

    /// Sets up a connection that we offer: one m-line of audio and one of video, the latter with `tile`; another of
    /// video to receive a screen where `screen` says that one is being shared. The offer is the value's `sdp`.
    fn dial(
        &self,
        id: ConnectionId,
        turn: Vec<TurnServer>,
        tile: Tile,
        screen: bool,
    ) -> BoxFuture<'static, Result<Connected, MediaError>>;

    /// Applies the remote answer to [`MediaPlane::dial`]'s offer.
    fn answered(&self, id: ConnectionId, answer: String) -> BoxFuture<'static, Result<(), MediaError>>;

    /// Applies a later offer of the same peer; answers it.
    fn renegotiate(&self, id: ConnectionId, offer: String) -> BoxFuture<'static, Result<Answer, MediaError>>;

    fn add_candidates(&self, id: ConnectionId, candidates: Vec<RemoteCandidate>);

    /// Asks the sender for a key frame (PLI, RFC 4585 §6.3.1). Throttled behind this call.
    fn request_key_frame(&self, id: ConnectionId, mid: Mid, stream: StreamId);

    /// Ends the connection; its rings end, its facts become `Closed`.
    fn close(&self, id: ConnectionId);

    /// When the loop last went round; the tree's watchdog reads it.
    fn heartbeat(&self) -> BootTime;
}

/// How much room the recordings' file system has, against `recordings.reserve`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum DiskLevel {
    #[default]
    Plenty,
    /// Below the reserve: no video is written.
    VideoStopped,
    /// Below half of it: nothing is written.
    AllStopped,
}

impl DiskLevel {
    pub fn allows(self, kind: MediaKind) -> bool {
        match kind {
            MediaKind::Audio => self < Self::AllStopped,
            MediaKind::Video => self == Self::Plenty,
        }
    }

    /// As people are told.
    pub const fn space(self) -> Space {
        match self {
            Self::Plenty => Space::Everything,
            Self::VideoStopped => Space::SoundOnly,
            Self::AllStopped => Space::Nothing,
        }
    }

    /// As the API says it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plenty => "plenty",
            Self::VideoStopped => "video_stopped",
            Self::AllStopped => "all_stopped",
        }
    }
}

#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum SignallingError {
    #[error("the homeserver did not take the event in time: {0}")]
    Unreachable(String),
    #[error("the homeserver refused the event: {0}")]
    Refused(String),
}

/// What a room is called and whether its events are encrypted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoomFacts {
    pub name: String,
    pub encrypted: bool,
}

/// The Matrix account as the tree sees it.
///
/// Events of one room go out in the order in which they were given, save that what is more urgent goes first; that holds
/// for what [`Rooms`] sends too.
pub trait Signalling: Send + Sync + 'static {
    /// Sends a room event, encrypted where the room is. Tried again on transient errors until `patience` is over.
    fn send(
        &self,
        room: String,
        event_type: String,
        content: serde_json::Value,
        urgency: Urgency,
        patience: Duration,
    ) -> BoxFuture<'static, Result<(), SignallingError>>;

    /// Sends a message for people.
    fn announce(
        &self,
        room: String,
        message: Announcement,
        patience: Duration,
    ) -> BoxFuture<'static, Result<(), SignallingError>>;

    /// TURN servers of the homeserver; none where it has none or does not answer soon.
    fn turn_servers(&self) -> BoxFuture<'static, Vec<TurnServer>>;

    fn room(&self, room: String) -> BoxFuture<'static, RoomFacts>;

    fn display_name(&self, room: String, user: String) -> BoxFuture<'static, Option<String>>;
}

/// How a message stands to others (client-server API, "Threading", "Event replacements").
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Relation {
    #[default]
    None,
    /// In the thread that begins at `root`, as a reply to `reply_to`.
    Thread { root: String, reply_to: String },
    /// In the place of an earlier message of ours.
    Edit { event: String },
}

/// A room's power levels as far as a recorder needs them (client-server API, `m.room.power_levels`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoomPowers {
    /// Levels of those who have another than `default`.
    pub users: BTreeMap<String, i64>,
    pub default: i64,
    /// Our own level.
    pub own: i64,
    /// What `org.matrix.msc3401.call.member` needs.
    pub call_member: i64,
    /// What a message needs.
    pub message: i64,
}

impl RoomPowers {
    /// Ours, against what recording a call needs.
    pub fn ours(&self) -> room::Powers {
        room::Powers { own: self.own, call_member: self.call_member, message: self.message }
    }

    pub fn of(&self, user: &str) -> i64 {
        self.users.get(user).copied().unwrap_or(self.default)
    }
}

/// What group calls and commands need of the account beyond [`Signalling`]. Everything is tried again on transient
/// errors until `patience` is over.
pub trait Rooms: Send + Sync + 'static {
    /// Sends a state event.
    fn send_state(
        &self,
        room: String,
        event_type: String,
        state_key: String,
        content: serde_json::Value,
        patience: Duration,
    ) -> BoxFuture<'static, Result<(), SignallingError>>;

    /// Has the homeserver send a state event after `delay` (MSC4140); the delay's id, or `None` where it cannot.
    fn send_state_later(
        &self,
        room: String,
        event_type: String,
        state_key: String,
        content: serde_json::Value,
        delay: Duration,
    ) -> BoxFuture<'static, Option<String>>;

    /// Begins a delay anew, so that its event is not sent yet. False if there is no such delay any more.
    fn restart_delay(&self, delay_id: String) -> BoxFuture<'static, bool>;

    /// Gives a delay up; its event is never sent.
    fn cancel_delay(&self, delay_id: String) -> BoxFuture<'static, ()>;

    /// Sends a to-device event, not encrypted (what matrix-js-sdk's group calls understand).
    fn send_to_device(
        &self,
        user: String,
        device: String,
        event_type: String,
        content: serde_json::Value,
        patience: Duration,
    ) -> BoxFuture<'static, Result<(), SignallingError>>;

    /// Says something in a room; the event's id.
    fn say(
        &self,
        room: String,
        message: Announcement,
        relation: Relation,
        patience: Duration,
    ) -> BoxFuture<'static, Result<String, SignallingError>>;

    /// Reacts to an event (`m.annotation`).
    fn react(
        &self,
        room: String,
        event: String,
        key: String,
        patience: Duration,
    ) -> BoxFuture<'static, Result<(), SignallingError>>;

    /// Our display name in this room only; `None` puts the account's own back.
    fn set_room_name(
        &self,
        room: String,
        name: Option<String>,
        patience: Duration,
    ) -> BoxFuture<'static, Result<(), SignallingError>>;

    /// `None` for a room that we are not in.
    fn powers(&self, room: String) -> BoxFuture<'static, Option<RoomPowers>>;
}

/// What the next process has to know of a room.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct RoomRecord {
    #[serde(flatten)]
    pub durable: room::Durable,
    /// The session of [`room::Durable::running`], once it has a folder.
    #[serde(default)]
    pub session: Option<SessionId>,
    #[serde(default)]
    pub began_utc_micros: Option<i64>,
    /// The delayed event that takes our membership back if this process dies. The next one has it given up, because it
    /// would take its membership.
    #[serde(default)]
    pub delay: Option<String>,
}

/// What is kept of rooms from one process to the next. Small and synchronous; called off the actors' thread.
pub trait RoomMemory: Send + Sync + 'static {
    /// On disk when the future is done without an error; the newest of several is what stays.
    fn keep(&self, room: String, record: RoomRecord) -> BoxFuture<'static, std::io::Result<()>>;
}

/// A call that has been answered and not yet ended, kept on disk so that the next process can hang it up.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct LiveCall {
    pub room: String,
    pub call_id: String,
    pub caller: String,
    /// 0 or 1.
    pub version: u8,
    /// When it was last known to be live, UTC microseconds; 0 if nobody knows.
    #[serde(default)]
    pub seen_utc_micros: i64,
}

/// The list of live calls. Small and synchronous; called off the actors' thread.
pub trait LiveCalls: Send + Sync + 'static {
    /// On disk when the future is done.
    fn add(&self, call: LiveCall) -> BoxFuture<'static, ()>;
    fn remove(&self, room: String, call_id: String) -> BoxFuture<'static, ()>;
}

/// What a new session is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionOrder {
    pub room_id: String,
    pub room: RoomFacts,
    pub call_id: String,
    pub call_kind: CallKind,
    /// The session of an earlier process that goes on; a new one where it cannot be found or be read.
    pub resume: Option<SessionId>,
    /// `None` if the configuration wants every call recorded.
    pub started_by: Option<String>,
    /// Arrival of the first packet, if one came before the session was opened.
    pub first_media: Option<BootTime>,
}

/// Opens sessions: folder, journal and recorder task.
pub trait SessionFactory: Send + Sync + 'static {
    /// A new session is there at once, its folder later, or never ([`SessionHandle::opened`]). One that goes on is read
    /// first.
    fn open(&self, order: SessionOrder) -> BoxFuture<'static, Result<SessionHandle, SessionError>>;

    /// A session of an earlier process that was kept open ends after all: its call is over. Does not block.
    fn abandon(&self, session: SessionId);

    /// A session's files and manifest are final; what may be done about them in all calm is done from now on.
    fn finished(&self, folder: &Path);
}
