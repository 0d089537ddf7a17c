//! The state of rooms: sending it, our name in a room, and who may do what.

use std::time::Duration;

use matrix_sdk::deserialized_responses::RawAnySyncOrStrippedState;
use matrix_sdk::ruma::UserId;
use matrix_sdk::ruma::api::client::state::get_state_event_for_key;
use matrix_sdk::ruma::events::StateEventType;
use matrix_sdk::{Client, Room};
use recorder_actors::ports::{Relation, RoomPowers, Urgency};
use recorder_core::call::Announcement;
use serde_json::{Value, json};

use super::powers::{Creation, powers};
use super::send::{SendError, persist, persist_in_turn};
use super::{MatrixAccount, content, send};

const MEMBER: &str = "m.room.member";

impl MatrixAccount {
    /// Sends a state event when its turn comes. Tried again after 429, 5xx and silence until `limit` has passed.
    pub async fn send_state(
        &self,
        room_id: &str,
        event_type: &str,
        state_key: &str,
        content: &Value,
        limit: Duration,
    ) -> Result<(), SendError> {
        let room = self.room(room_id)?;
        // Memberships of calls, but for our name in a room.
        let urgency = if event_type == MEMBER { Urgency::Notice } else { Urgency::Call };
        let sent = persist_in_turn(&self.shared.gate, urgency, room_id, limit, || {
            Box::pin(room.send_state_event_raw(event_type, state_key, content).into_future())
        });
        sent.await.map(drop)
    }

    /// Says something; the event's id.
    pub async fn say(
        &self,
        room_id: &str,
        message: &Announcement,
        relation: &Relation,
        limit: Duration,
    ) -> Result<String, SendError> {
        let urgency = match relation {
            Relation::Edit { .. } => Urgency::Notice,
            Relation::None | Relation::Thread { .. } => message.urgency(),
        };
        self.send(room_id, "m.room.message", content::message(message, relation), urgency, limit).await
    }

    /// Reacts to an event. Reactions are not encrypted, in no client.
    pub async fn react(
        &self,
        room_id: &str,
        event: &str,
        key: &str,
        limit: Duration,
    ) -> Result<String, SendError> {
        let (gate, room) = (&self.shared.gate, self.room(room_id)?);
        let content = content::reaction(event, key);
        // What acknowledges a command.
        send::send(gate, &room, "m.reaction", content, Urgency::People, limit).await
    }

    /// Our name in this room only, everything else of our membership stays; `None` puts the account's own name back.
    pub async fn set_room_name(
        &self,
        room_id: &str,
        name: Option<&str>,
        limit: Duration,
    ) -> Result<(), SendError> {
        let room = self.room(room_id)?;
        let own = room.own_user_id().to_owned();
        let name = match name {
            Some(name) => Some(name.to_owned()),
            None => profile_name(&self.shared.client, limit).await?,
        };
        // Not from the store: it may not know yet what we sent a moment ago.
        let request = member_request(&room, own.as_str());
        let client = &self.shared.client;
        let answer = persist(room_id, limit, || client.send(request.clone()).into_future()).await?;
        let earlier = serde_json::from_str::<Value>(answer.into_content().json().get()).ok();
        let mut member = earlier.filter(Value::is_object).unwrap_or_else(|| json!({}));
        if member.get("displayname").and_then(Value::as_str) == name.as_deref() {
            return Ok(());
        }
        member["membership"] = "join".into();
        match name {
            Some(name) => member["displayname"] = name.into(),
            None => drop(member.as_object_mut().and_then(|member| member.remove("displayname"))),
        }
        self.send_state(room_id, MEMBER, own.as_str(), &member, limit).await
    }

    /// Whether a user is known to be in the room no more. Members come as they speak, so the store may not know of somebody
    /// who was silent and banned since: then the homeserver is asked, which may take `patience`.
    pub async fn has_left(&self, room_id: &str, user_id: &str, patience: Duration) -> bool {
        let Ok(room) = self.room(room_id) else { return true };
        let left = |member: &Value| member.get("membership").is_none_or(|membership| membership != "join");
        let stored = state_content(&room, StateEventType::RoomMember, user_id).await;
        if stored.as_ref().is_some_and(left) || patience.is_zero() || room.are_members_synced() {
            return stored.as_ref().is_some_and(left);
        }
        let request = member_request(&room, user_id);
        match tokio::time::timeout(patience, self.shared.client.send(request)).await {
            Ok(Ok(answer)) => {
                serde_json::from_str(answer.into_content().json().get()).is_ok_and(|member| left(&member))
            }
            // Who sent something was there; without another word they still are.
            Ok(Err(_)) | Err(_) => false,
        }
    }

    /// Who may do what, as far as the last sync says; `None` for a room that we are not in.
    pub async fn powers(&self, room_id: &str) -> Option<RoomPowers> {
        let room = self.room(room_id).ok()?;
        let levels = state_content(&room, StateEventType::RoomPowerLevels, "").await;
        let info = room.clone_info();
        let creators: Vec<String> =
            info.creators().unwrap_or_default().iter().map(ToString::to_string).collect();
        let rules = info.room_version_rules_or_default().authorization;
        let creation = Creation { creators: &creators, privileged: rules.explicitly_privilege_room_creators };
        let encrypted = room.encryption_state().is_encrypted();
        let own: &UserId = room.own_user_id();
        Some(powers(levels.as_ref(), &creation, own.as_str(), encrypted))
    }
}

/// The account's display name, as its profile says.
pub(super) async fn profile_name(client: &Client, limit: Duration) -> Result<Option<String>, SendError> {
    let account = client.account();
    let name = persist("", limit, || Box::pin(account.get_display_name())).await;
    match name {
        // An account without any profile.
        Err(SendError::Refused { code }) if code == "M_NOT_FOUND" => Ok(None),
        name => name,
    }
}

fn member_request(room: &Room, user: &str) -> get_state_event_for_key::v3::Request {
    let id = room.room_id().to_owned();
    get_state_event_for_key::v3::Request::new(id, StateEventType::RoomMember, user.to_owned())
}

/// Content of a state event of the store.
async fn state_content(room: &Room, event_type: StateEventType, state_key: &str) -> Option<Value> {
    let event = room.get_state_event(event_type, state_key).await.ok().flatten()?;
    let content = match event {
        RawAnySyncOrStrippedState::Sync(event) => event.get_field::<Value>("content"),
        RawAnySyncOrStrippedState::Stripped(event) => event.get_field::<Value>("content"),
    };
    content.ok().flatten()
}
