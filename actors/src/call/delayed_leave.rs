//! Our membership of a group call is taken back by the homeserver if this process dies (MSC4140): a state event that it
//! sends after a delay, which is begun anew as long as we live.

use std::sync::{Arc, Mutex};

use recorder_core::mesh::MEMBER_EVENT;
use serde_json::Value;
use tokio::sync::watch;

use crate::supervise::lock;
use crate::world::World;

/// At most one delay is under way. Where the homeserver knows no delays, nothing is. Dropped without [`Self::end`], as
/// when our membership could not be taken back, it is no longer begun anew, and the homeserver does what we could not.
pub(super) struct DelayedLeave {
    world: Arc<World>,
    room: String,
    /// What the homeserver is to send; nothing once we have left by ourselves.
    wanted: Mutex<Option<watch::Sender<Option<Value>>>>,
    delay: Arc<Mutex<Option<String>>>,
}

impl DelayedLeave {
    pub(super) fn new(world: &Arc<World>, room: &str) -> Self {
        let (wanted, delay) = (Mutex::default(), Arc::default());
        Self { world: Arc::clone(world), room: room.to_owned(), wanted, delay }
    }

    /// From now on the homeserver is to send `content` when it hears no more of us. Replaces what was wanted before.
    pub(super) fn keep(&self, content: Value) {
        let content = Some(content);
        match &mut *lock(&self.wanted) {
            Some(wanted) => {
                wanted.send_if_modified(|before| {
                    let other = *before != content;
                    *before = content;
                    other
                });
            }
            none => {
                let (sender, receiver) = watch::channel(content);
                *none = Some(sender);
                let (world, delay) = (Arc::clone(&self.world), Arc::clone(&self.delay));
                actix::spawn(keep_alive(world, self.room.clone(), receiver, delay));
            }
        }
    }

    /// We have left by ourselves.
    pub(super) fn end(&self) {
        if let Some(wanted) = lock(&self.wanted).take() {
            wanted.send_replace(None);
        }
    }

    /// The delay that is under way, by the homeserver's name for it.
    pub(super) fn delay(&self) -> Option<String> {
        lock(&self.delay).clone()
    }
}

async fn keep_alive(
    world: Arc<World>,
    room: String,
    mut wanted: watch::Receiver<Option<Value>>,
    delay: Arc<Mutex<Option<String>>>,
) {
    let terms = world.settings.group.leave;
    let key = world.settings.user.clone();
    let begin = |content: &Value| {
        let (room, key, content) = (room.clone(), key.clone(), content.clone());
        world.rooms.send_state_later(room, MEMBER_EVENT.to_owned(), key, content, terms.after)
    };
    loop {
        let content = wanted.borrow_and_update().clone();
        let next = match &content {
            Some(content) => begin(content).await,
            None => None,
        };
        let before = std::mem::replace(&mut *lock(&delay), next);
        if let Some(before) = before {
            world.rooms.cancel_delay(before).await;
        }
        let Some(content) = content else { return };
        loop {
            tokio::select! {
                changed = wanted.changed() => match changed {
                    Ok(()) => break,
                    Err(_) => return,
                },
                () = tokio::time::sleep(terms.every) => {}
            }
            let id = lock(&delay).clone();
            let alive = match id {
                Some(id) => world.rooms.restart_delay(id).await,
                None => false,
            };
            if !alive {
                // Sent or forgotten by the homeserver, or never begun.
                let next = begin(&content).await;
                *lock(&delay) = next;
            }
        }
    }
}
