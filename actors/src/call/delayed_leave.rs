//! Our membership of a group call is taken back by the homeserver if this process dies (MSC4140): a state event that it
//! sends after a delay, which is begun anew as long as we live.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use recorder_core::mesh::MEMBER_EVENT;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::supervise::lock;
use crate::world::World;

/// After so long without a word from us.
const DELAY: Duration = Duration::from_secs(60);
/// How often we give word.
const EVERY: Duration = Duration::from_secs(20);

/// At most one delay is under way. Where the homeserver knows no delays, nothing is.
pub(super) struct DelayedLeave {
    world: Arc<World>,
    room: String,
    under_way: Mutex<Option<CancellationToken>>,
}

impl DelayedLeave {
    pub(super) fn new(world: &Arc<World>, room: &str) -> Self {
        Self { world: Arc::clone(world), room: room.to_owned(), under_way: Mutex::default() }
    }

    /// From now on the homeserver is to send `content` when it hears no more of us. Replaces what was wanted before.
    pub(super) fn keep(&self, content: Value) {
        let stop = CancellationToken::new();
        if let Some(before) = lock(&self.under_way).replace(stop.clone()) {
            before.cancel();
        }
        actix::spawn(keep_alive(Arc::clone(&self.world), self.room.clone(), content, stop));
    }

    /// We have left by ourselves.
    pub(super) fn end(&self) {
        if let Some(under_way) = lock(&self.under_way).take() {
            under_way.cancel();
        }
    }
}

impl Drop for DelayedLeave {
    fn drop(&mut self) {
        self.end();
    }
}

async fn keep_alive(world: Arc<World>, room: String, content: Value, stop: CancellationToken) {
    let key = world.settings.user.clone();
    let begin = || {
        let (room, key, content) = (room.clone(), key.clone(), content.clone());
        world.rooms.send_state_later(room, MEMBER_EVENT.to_owned(), key, content, DELAY)
    };
    let Some(mut id) = begin().await else { return };
    loop {
        let waited = stop.run_until_cancelled(tokio::time::sleep(EVERY)).await;
        if waited.is_none() {
            world.rooms.cancel_delay(id).await;
            return;
        }
        if !world.rooms.restart_delay(id.clone()).await {
            // Sent or forgotten by the homeserver; one more is begun.
            match begin().await {
                Some(next) => id = next,
                None => return,
            }
        }
    }
}
