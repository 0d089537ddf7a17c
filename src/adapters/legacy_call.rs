//! 1:1 calls between the Matrix account and the tree: events in, signals out, farewells after a restart.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use recorder_actors::ports::{
    Clock, LiveCall, LiveCalls as _, Relation, RoomFacts, Signalling, SignallingError, TurnServer, Urgency,
};
use recorder_core::call::{Announcement, Version, hangup_for, recording_interrupted};
use serde_json::Value;

use super::live_calls::LiveCallFile;
use super::matrix::{MatrixAccount, SendError};

/// How long a farewell may be tried.
const FAREWELL: Duration = Duration::from_secs(60);
/// A call that was last seen longer ago is hung up in silence: nobody waits for word of it any more.
const REMEMBERED: Duration = Duration::from_secs(120);

/// The account as the tree's signalling port.
#[derive(Clone)]
pub struct MatrixSignalling {
    account: MatrixAccount,
}

impl MatrixSignalling {
    pub fn new(account: MatrixAccount) -> Self {
        Self { account }
    }
}

impl Signalling for MatrixSignalling {
    fn send(
        &self,
        room: String,
        event_type: String,
        content: Value,
        urgency: Urgency,
        patience: Duration,
    ) -> BoxFuture<'static, Result<(), SignallingError>> {
        let account = self.account.clone();
        async move {
            let sent = account.send(&room, &event_type, content, urgency, patience).await;
            sent.map(drop).map_err(SignallingError::from)
        }
        .boxed()
    }

    fn announce(
        &self,
        room: String,
        message: Announcement,
        patience: Duration,
    ) -> BoxFuture<'static, Result<(), SignallingError>> {
        let account = self.account.clone();
        async move {
            let said = account.say(&room, &message, &Relation::None, patience).await;
            said.map(drop).map_err(SignallingError::from)
        }
        .boxed()
    }

    fn turn_servers(&self) -> BoxFuture<'static, Vec<TurnServer>> {
        let account = self.account.clone();
        async move { account.turn_servers().await }.boxed()
    }

    fn room(&self, room: String) -> BoxFuture<'static, RoomFacts> {
        let account = self.account.clone();
        async move {
            match account.room_info(&room).await {
                Some(info) => RoomFacts { name: info.name, encrypted: info.encrypted },
                None => RoomFacts { name: room, encrypted: false },
            }
        }
        .boxed()
    }

    fn display_name(&self, room: String, user: String) -> BoxFuture<'static, Option<String>> {
        let account = self.account.clone();
        async move { account.member_name(&room, &user).await }.boxed()
    }
}

/// Hangs up the calls that an earlier process had answered, as soon as the homeserver has answered a sync, and tells the
/// rooms. Their keys died with that process, so nothing else can be done for them.
pub async fn say_farewell(
    account: MatrixAccount,
    live_calls: LiveCallFile,
    left: Vec<LiveCall>,
    clock: Arc<dyn Clock>,
) {
    let mut state = account.state();
    if state.wait_for(|state| state.last_sync_utc_micros.is_some()).await.is_err() {
        return;
    }
    let device = account.device_id();
    let longest_ago = clock.utc_micros() - REMEMBERED.as_micros() as i64;
    let farewells = left.into_iter().map(|call| {
        let (account, device, live_calls) = (account.clone(), device.clone(), live_calls.clone());
        async move {
            let version = if call.version == 0 { Version::V0 } else { Version::V1 };
            let hangup = hangup_for(&call.call_id, &device, version);
            let (kind, content) = (hangup.event_type, hangup.content);
            let sent = account.send(&call.room, kind, content, Urgency::Call, FAREWELL).await;
            match sent {
                Ok(_) => {}
                Err(SendError::NotInRoom { .. } | SendError::Refused { .. }) => {
                    // For good: there is nobody to be told.
                    live_calls.remove(call.room, call.call_id).await;
                    return;
                }
                Err(error) => {
                    tracing::warn!(room = %call.room, %error, "a call cut off by a restart could not be hung up");
                    return;
                }
            }
            live_calls.remove(call.room.clone(), call.call_id.clone()).await;
            tracing::info!(room = %call.room, "a call cut off by a restart was hung up");
            if call.seen_utc_micros < longest_ago {
                return;
            }
            let told = recording_interrupted(Some(&call.caller));
            if let Err(error) = account.say(&call.room, &told, &Relation::None, FAREWELL).await {
                tracing::warn!(room = %call.room, %error, "the room could not be told of a restart");
            }
        }
    });
    futures_util::future::join_all(farewells).await;
}
