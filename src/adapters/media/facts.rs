//! What the tree may know of a connection, told through a watch whenever it changes.

use std::sync::Arc;
use std::time::Duration;

use recorder_actors::ports::{ConnectionFacts, ConnectionState, RemoteMedia};
use recorder_core::ids::{ConnectionId, Mid};
use recorder_core::media::{Codec, MediaKind};
use recorder_core::time::BootTime;
use tokio::sync::watch;

use super::intake::Intake;
use super::offer::Line;

/// The present facts and their watch.
#[derive(Debug)]
pub struct Facts {
    id: ConnectionId,
    sender: watch::Sender<Arc<ConnectionFacts>>,
    state: ConnectionState,
    reason: Option<String>,
    pub round_trip: Option<Duration>,
    pub ice_restarts: u32,
    pub first_packet: Option<BootTime>,
    pub held_drops: u64,
    /// Something is to be told.
    pub changed: bool,
}

impl Facts {
    pub fn new(id: ConnectionId) -> (Self, watch::Receiver<Arc<ConnectionFacts>>) {
        let state = ConnectionState::Connecting;
        let (sender, receiver) = watch::channel(Arc::new(ConnectionFacts {
            id,
            state,
            reason: None,
            media: Vec::new(),
            round_trip: None,
            ice_restarts: 0,
            first_packet: None,
            held_drops: 0,
        }));
        let facts = Self {
            id,
            sender,
            state,
            reason: None,
            round_trip: None,
            ice_restarts: 0,
            first_packet: None,
            held_drops: 0,
            changed: true,
        };
        (facts, receiver)
    }

    pub fn state(&self) -> ConnectionState {
        self.state
    }

    /// Moves to `state`, unless the connection has come to its end.
    pub fn set_state(&mut self, state: ConnectionState) {
        let is_final = matches!(self.state, ConnectionState::Closed | ConnectionState::Failed);
        if !is_final && self.state != state {
            self.state = state;
            self.changed = true;
        }
    }

    /// The first reason given stays.
    pub fn set_reason(&mut self, reason: &str) {
        self.reason.get_or_insert_with(|| reason.to_owned());
    }

    /// Tells the present facts.
    pub fn publish(&mut self, lines: &[Line], accepted: &[Vec<(u8, Codec)>], intake: &Intake) {
        self.changed = false;
        let media = lines.iter().zip(accepted).filter_map(|(line, codecs)| describe(line, codecs, intake));
        self.sender.send_replace(Arc::new(ConnectionFacts {
            id: self.id,
            state: self.state,
            reason: self.reason.clone(),
            media: media.collect(),
            round_trip: self.round_trip,
            ice_restarts: self.ice_restarts,
            first_packet: self.first_packet,
            held_drops: self.held_drops,
        }));
    }
}

fn describe(line: &Line, accepted: &[(u8, Codec)], intake: &Intake) -> Option<RemoteMedia> {
    let kind = match line.media.as_str() {
        "audio" => MediaKind::Audio,
        "video" => MediaKind::Video,
        _ => return None,
    };
    let mid = Mid::new(line.mid.as_deref()?);
    let mut codecs = Vec::new();
    for (_, codec) in accepted {
        if !codecs.contains(codec) {
            codecs.push(*codec);
        }
    }
    Some(RemoteMedia {
        streams: intake.rings_of(&mid),
        mid,
        kind,
        direction: line.direction,
        msid_stream: line.msid_stream.clone(),
        codecs,
    })
}
