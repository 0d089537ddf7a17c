//! The current state of calls in a room, from the store: who shares in which call, and who of them is a member.
//!
//! Delivered as a whole at the first sync of a process and when a room is joined; from then on by its changes.

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;
use matrix_sdk::Room;
use matrix_sdk::RoomState;
use matrix_sdk::deserialized_responses::RawAnySyncOrStrippedState;
use matrix_sdk::ruma::events::StateEventType;
use matrix_sdk::ruma::{OwnedRoomId, RoomId};
use matrix_sdk::sync::RoomUpdates;
use serde_json::Value;
use serde_json::value::RawValue;
use tracing::{debug, warn};

use super::deliver::Courier;
use super::error::fault_of;
use super::event::{CALL, CALL_MEMBER, Head, MEMBER};

/// Events of a type and room that are delivered; of more, the newest.
const MOST: usize = 2048;
/// Rooms that are read at the same time, and the time all of them may take.
const ROOMS_AT_ONCE: usize = 8;
const TIME: Duration = Duration::from_secs(10);

/// State that is delivered in the batch.
#[derive(Default)]
pub(super) struct Current {
    pub(super) events: Vec<(OwnedRoomId, Box<RawValue>)>,
    rooms: HashSet<OwnedRoomId>,
    /// Whose membership is among it.
    members: HashSet<(OwnedRoomId, String)>,
}

impl Current {
    /// Whether the event is a change of a state that is delivered as a whole, and so no news.
    pub(super) fn covers(&self, room: &RoomId, head: &Head) -> bool {
        let Some(key) = head.state_key.as_deref().filter(|_| self.rooms.contains(room)) else { return false };
        match head.event_type.as_str() {
            CALL | CALL_MEMBER => true,
            MEMBER => self.members.contains(&(room.to_owned(), key.to_owned())),
            _ => false,
        }
    }
}

impl Courier {
    /// The rooms that are new to us with this response; at first, all.
    pub(super) fn new_rooms(&mut self, update: &RoomUpdates) -> Vec<Room> {
        if self.first {
            return self.client.joined_rooms();
        }
        let new = update.joined.keys().filter(|room| !self.known.contains(*room));
        let new: Vec<Room> = new.filter_map(|room| self.client.get_room(room)).collect();
        self.known.extend(new.iter().map(|room| room.room_id().to_owned()));
        new
    }

    /// The state of calls in these rooms.
    pub(super) async fn current_states(&mut self, new: Vec<Room>) -> Current {
        let mut current = Current::default();
        let ends = tokio::time::Instant::now() + TIME;
        let mut reading = stream::iter(new)
            .map(|room| async move {
                let state = Box::pin(state_of(&room, ends)).await;
                (room, state)
            })
            .buffer_unordered(ROOMS_AT_ONCE);
        while let Some((room, state)) = reading.next().await {
            // A room that was just joined has no state before the sync that tells of it.
            let Some((members, events)) = state else { continue };
            let id = room.room_id();
            self.known.insert(id.to_owned());
            current.rooms.insert(id.to_owned());
            current.members.extend(members.into_iter().map(|user| (id.to_owned(), user)));
            current.events.extend(events.into_iter().map(|event| (id.to_owned(), event)));
        }
        current
    }
}

/// The members it tells of, and the events: members first. `None` for a room without our own membership as joined.
async fn state_of(room: &Room, ends: tokio::time::Instant) -> Option<(Vec<String>, Vec<Box<RawValue>>)> {
    if room.state() != RoomState::Joined {
        return None;
    }
    let own = room.own_user_id().to_string();
    let calls = stored(room, CALL).await;
    let shares = stored(room, CALL_MEMBER).await;
    let mut named: BTreeSet<String> = shares.iter().filter_map(|event| owner(event)).collect();
    named.insert(own.clone());
    let mut members = members(room, &named).await;
    if members.len() < named.len() {
        // Members come as they speak; of somebody silent the homeserver must be asked.
        match tokio::time::timeout_at(ends, Box::pin(room.sync_members())).await {
            Ok(Ok(())) => members = self::members(room, &named).await,
            Ok(Err(error)) => {
                warn!(room = %room.room_id(), fault = %fault_of(&error), "members of a call are not known");
            }
            Err(_) => {
                warn!(room = %room.room_id(), "members of a call are not known, the homeserver is slow")
            }
        }
    }
    let keys: Vec<String> = members.iter().filter_map(|event| state_key(event)).collect();
    let joined = members.iter().any(|event| {
        #[derive(serde::Deserialize)]
        struct Member {
            state_key: String,
            content: Value,
        }
        serde_json::from_str::<Member>(event.get())
            .is_ok_and(|member| member.state_key == own && member.content["membership"] == "join")
    });
    if !joined {
        return None;
    }
    Some((keys, members.into_iter().chain(calls).chain(shares).collect()))
}

/// All state events of a type, the newest if there are too many.
async fn stored(room: &Room, event_type: &str) -> Vec<Box<RawValue>> {
    let mut events = raw(room.get_state_events(event_type.into()).await, room);
    if events.len() > MOST {
        #[derive(serde::Deserialize)]
        struct Sent {
            origin_server_ts: i64,
        }
        let sent = |event: &RawValue| {
            serde_json::from_str::<Sent>(event.get()).map_or(0, |sent| sent.origin_server_ts)
        };
        events.sort_by_cached_key(|event| std::cmp::Reverse(sent(event)));
        events.truncate(MOST);
    }
    events
}

async fn members(room: &Room, named: &BTreeSet<String>) -> Vec<Box<RawValue>> {
    let keys: Vec<&str> = named.iter().map(String::as_str).collect();
    raw(room.get_state_events_for_keys(StateEventType::RoomMember, &keys).await, room)
}

fn raw(read: Result<Vec<RawAnySyncOrStrippedState>, matrix_sdk::Error>, room: &Room) -> Vec<Box<RawValue>> {
    let events = read.unwrap_or_else(|error| {
        debug!(room = %room.room_id(), fault = %fault_of(&error), "the stored state cannot be read");
        Vec::new()
    });
    let json = events.into_iter().filter_map(|event| match event {
        RawAnySyncOrStrippedState::Sync(event) => Some(event.into_json()),
        RawAnySyncOrStrippedState::Stripped(_) => None,
    });
    json.collect()
}

/// Who wrote a call membership that says anything: only its sender can have.
fn owner(event: &RawValue) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Share {
        sender: String,
        content: Value,
    }
    let share: Share = serde_json::from_str(event.get()).ok()?;
    let says_something = share.content.as_object().is_some_and(|content| !content.is_empty());
    says_something.then_some(share.sender)
}

fn state_key(event: &RawValue) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Keyed {
        state_key: String,
    }
    serde_json::from_str::<Keyed>(event.get()).ok().map(|keyed| keyed.state_key)
}
