//! What a call sends into its room: one after the other, so that an answer never overtakes another.

use std::sync::Arc;
use std::time::Duration;

use recorder_core::call::{Announcement, Outgoing};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::observe::{Severity, Totals};
use crate::ports::SignallingError;
use crate::world::World;

/// Events that may wait to be sent into the room; later ones are dropped and counted.
const MOST_OUTGOING: usize = 64;
/// How long an event may be tried.
const PATIENCE: Duration = Duration::from_secs(60);
/// Once the call is in a hurry.
const SHORT_PATIENCE: Duration = Duration::from_secs(2);

enum Outbound {
    Event(Outgoing),
    Message(Announcement),
    /// Answered when all before it was sent or given up: whether a hang-up among it was not sent.
    Flush(oneshot::Sender<bool>),
}

/// A call's way into its room. Its task ends with the last clone.
#[derive(Clone)]
pub(super) struct Outbox {
    world: Arc<World>,
    queue: mpsc::Sender<Outbound>,
    hurry: CancellationToken,
}

impl Outbox {
    pub(super) fn open(world: &Arc<World>, room: &str) -> Self {
        let (queue, waiting) = mpsc::channel(MOST_OUTGOING);
        let hurry = CancellationToken::new();
        actix::spawn(send_in_order(Arc::clone(world), room.to_owned(), waiting, hurry.clone()));
        Self { world: Arc::clone(world), queue, hurry }
    }

    pub(super) fn event(&self, event: Outgoing) {
        self.push(Outbound::Event(event));
    }

    pub(super) fn message(&self, message: Announcement) {
        self.push(Outbound::Message(message));
    }

    /// The process ends: everything that waits gets two seconds, and no more.
    pub(super) fn hurry(&self) {
        self.hurry.cancel();
    }

    /// Resolves when all that was put in before is sent or given up. False if a hang-up is among what was not sent.
    pub(super) async fn flushed(&self) -> bool {
        let (done, flushed) = oneshot::channel();
        if self.queue.send(Outbound::Flush(done)).await.is_err() {
            return false;
        }
        flushed.await.is_ok_and(|hangup_failed| !hangup_failed)
    }

    fn push(&self, outbound: Outbound) {
        if self.queue.try_send(outbound).is_err() {
            tracing::warn!("too many events wait for the homeserver, one is dropped");
            Totals::count(&self.world.board.totals.signals_ignored);
        }
    }
}

async fn send_in_order(
    world: Arc<World>,
    room: String,
    mut queue: mpsc::Receiver<Outbound>,
    hurry: CancellationToken,
) {
    let mut hangup_failed = false;
    while let Some(outbound) = queue.recv().await {
        let patience = if hurry.is_cancelled() { SHORT_PATIENCE } else { PATIENCE };
        let (sending, is_hangup) = match outbound {
            Outbound::Event(event) => {
                let is_hangup = event.event_type == "m.call.hangup";
                let event_type = event.event_type.to_owned();
                (world.signalling.send(room.clone(), event_type, event.content, patience), is_hangup)
            }
            Outbound::Message(message) => (world.signalling.announce(room.clone(), message, patience), false),
            Outbound::Flush(done) => {
                let _ = done.send(hangup_failed);
                continue;
            }
        };
        let hurried = async {
            hurry.cancelled().await;
            tokio::time::sleep(SHORT_PATIENCE).await;
        };
        let sent = tokio::select! {
            sent = sending => sent,
            () = hurried => Err(SignallingError::Unreachable("the recorder stops".to_owned())),
        };
        if let Err(error) = sent {
            hangup_failed |= is_hangup;
            tracing::warn!(%room, %error, "an event could not be sent");
            world.board.happened(world.clock.utc_micros(), Severity::Warning, format!("Not sent: {error}"));
        }
    }
}
