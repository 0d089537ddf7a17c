//! The account as the tree's port for rooms: state, to-device events, messages, names and powers.

use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use recorder_actors::ports::{Relation, RoomPowers, Rooms, SignallingError};
use recorder_core::call::Announcement;
use serde_json::Value;

use super::matrix::{MatrixAccount, SendError};

/// [`Rooms`] over a Matrix account.
#[derive(Clone)]
pub struct MatrixRooms {
    account: MatrixAccount,
}

impl MatrixRooms {
    pub fn new(account: MatrixAccount) -> Self {
        Self { account }
    }
}

impl Rooms for MatrixRooms {
    fn send_state(
        &self,
        room: String,
        event_type: String,
        state_key: String,
        content: Value,
        patience: Duration,
    ) -> BoxFuture<'static, Result<(), SignallingError>> {
        let account = self.account.clone();
        async move {
            let sent = account.send_state(&room, &event_type, &state_key, &content, patience);
            sent.await.map_err(SignallingError::from)
        }
        .boxed()
    }

    fn send_state_later(
        &self,
        room: String,
        event_type: String,
        state_key: String,
        content: Value,
        delay: Duration,
    ) -> BoxFuture<'static, Option<String>> {
        let account = self.account.clone();
        async move { account.send_state_later(&room, &event_type, &state_key, &content, delay).await }.boxed()
    }

    fn restart_delay(&self, delay_id: String) -> BoxFuture<'static, bool> {
        let account = self.account.clone();
        async move { account.restart_delay(&delay_id).await }.boxed()
    }

    fn cancel_delay(&self, delay_id: String) -> BoxFuture<'static, ()> {
        let account = self.account.clone();
        async move { account.cancel_delay(&delay_id).await }.boxed()
    }

    fn send_to_device(
        &self,
        user: String,
        device: String,
        event_type: String,
        content: Value,
        patience: Duration,
    ) -> BoxFuture<'static, Result<(), SignallingError>> {
        let account = self.account.clone();
        async move {
            let sent = account.send_to_device(&user, &device, &event_type, &content, patience);
            sent.await.map_err(SignallingError::from)
        }
        .boxed()
    }

    fn say(
        &self,
        room: String,
        message: Announcement,
        relation: Relation,
        patience: Duration,
    ) -> BoxFuture<'static, Result<String, SignallingError>> {
        let account = self.account.clone();
        async move { account.say(&room, &message, &relation, patience).await.map_err(SignallingError::from) }
            .boxed()
    }

    fn react(
        &self,
        room: String,
        event: String,
        key: String,
        patience: Duration,
    ) -> BoxFuture<'static, Result<(), SignallingError>> {
        let account = self.account.clone();
        async move {
            let sent = account.react(&room, &event, &key, patience).await;
            sent.map(drop).map_err(SignallingError::from)
        }
        .boxed()
    }

    fn set_room_name(
        &self,
        room: String,
        name: Option<String>,
        patience: Duration,
    ) -> BoxFuture<'static, Result<(), SignallingError>> {
        let account = self.account.clone();
        async move {
            let set = account.set_room_name(&room, name.as_deref(), patience).await;
            set.map_err(SignallingError::from)
        }
        .boxed()
    }

    fn powers(&self, room: String) -> BoxFuture<'static, Option<RoomPowers>> {
        let account = self.account.clone();
        async move { account.powers(&room).await }.boxed()
    }
}

impl From<SendError> for SignallingError {
    fn from(error: SendError) -> Self {
        match error {
            SendError::NotInRoom { .. } | SendError::Refused { .. } => Self::Refused(error.to_string()),
            other => Self::Unreachable(other.to_string()),
        }
    }
}
