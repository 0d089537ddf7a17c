//! From the Matrix account to the tree: what rooms and devices say, batch by batch.

use std::sync::Arc;
use std::time::Duration;

use actix::MailboxError;
use recorder_actors::ports::Clock;
use recorder_actors::supervise::Slot;
use recorder_actors::supervisor::{self, Deliver, DeviceDelivery, SupervisorActor};
use recorder_core::call;
use tokio::sync::mpsc;

use super::matrix::{Delivery, MatrixAccount, RoomEvent};
use crate::settings::Matrix as MatrixSettings;

/// What is older when it comes waited for its key or in a gap.
const LATE: Duration = Duration::from_secs(10);
/// For how long the late messages of a batch together wait for the memberships of their senders: an objection may stand
/// behind them.
const MEMBERS_TIME: Duration = Duration::from_millis(500);

/// Events handed to the tree in one message.
const MOST_AT_ONCE: usize = 256;

/// Carries deliveries to the supervisor, in order, and acknowledges each batch that it has handled. Ends with the
/// account.
pub async fn feed(
    account: MatrixAccount,
    mut deliveries: mpsc::Receiver<Delivery>,
    supervisor: Arc<Slot<SupervisorActor>>,
    settings: MatrixSettings,
    clock: Arc<dyn Clock>,
) {
    let mut message = Deliver::default();
    let mut patience = MEMBERS_TIME;
    while let Some(delivery) = deliveries.recv().await {
        let mut batch_over = None;
        match delivery {
            Delivery::Event(event) | Delivery::Missed(event) => {
                message.events.push(to_tree(&account, *event, &settings, &*clock, &mut patience).await);
            }
            Delivery::ToDevice { sender, event_type, content, received_at, .. } => {
                message.devices.push(DeviceDelivery { sender, event_type, content, received: received_at });
            }
            Delivery::Undecryptable { room, sender, event_id } => {
                message.undecryptable.push((room, event_id, sender));
            }
            Delivery::BatchEnd { batch } => batch_over = Some(batch),
        }
        let waiting = message.events.len() + message.devices.len() + message.undecryptable.len();
        if batch_over.is_none() && waiting < MOST_AT_ONCE {
            continue;
        }
        message.batch_over = batch_over.is_some();
        deliver(&supervisor, std::mem::take(&mut message)).await;
        if let Some(batch) = batch_over {
            account.handled(batch);
            patience = MEMBERS_TIME;
        }
    }
}

async fn to_tree(
    account: &MatrixAccount,
    event: RoomEvent,
    settings: &MatrixSettings,
    clock: &dyn Clock,
    patience: &mut Duration,
) -> supervisor::Delivery {
    let allowed = settings.allows(&event.sender);
    if is_transfer(&event.event_type) {
        note_transfer(event.room_id.as_str(), event.sender.as_str(), allowed);
    }
    // Only what may be a command is delivered of messages, so this is asked seldom.
    let of_us = event.state_key.as_deref() == Some(account.user_id().as_str());
    let powers = match event.event_type.as_str() {
        "m.room.message" | "m.reaction" | "m.room.power_levels" => account.powers(&event.room_id).await,
        "m.room.member" if of_us => account.powers(&event.room_id).await,
        _ => None,
    };
    // Who is not in a room cannot send into it; but what comes late was sent by somebody who was there.
    let by_person = matches!(event.event_type.as_str(), "m.room.message" | "m.reaction");
    let asking = tokio::time::Instant::now();
    let may_take = if event.age(clock.now()) > LATE { *patience } else { Duration::ZERO };
    let left = by_person && account.has_left(&event.room_id, &event.sender, may_take).await;
    if !may_take.is_zero() {
        *patience = patience.saturating_sub(asking.elapsed());
    }
    let members = match event.event_type.as_str() {
        "m.call.invite" => account.joined_members(&event.room_id),
        _ => None,
    };
    supervisor::Delivery {
        joined: !left,
        members,
        allowed,
        origin_ts_ms: event.origin_server_ts,
        powers,
        state_key: event.state_key,
        event: call::RoomEvent {
            room: event.room_id,
            event_id: event.event_id,
            sender: event.sender,
            event_type: event.event_type,
            content: event.content,
            received: event.received_at,
            age: event.age_at_receipt,
        },
    }
}

/// MSC2747. We do not say that we can be transferred, so nobody should ask.
fn is_transfer(event_type: &str) -> bool {
    matches!(event_type, "m.call.replaces" | "org.matrix.call.replaces")
}

/// Who may not be recorded may not fill the log either.
fn note_transfer(room: &str, sender: &str, allowed: bool) {
    if allowed {
        tracing::info!(room, sender, "a call transfer is ignored");
    } else {
        tracing::debug!(room, sender, "a call transfer by somebody who is not in matrix.allow is ignored");
    }
}

/// Waits for a supervisor where one is being started again; a message that kills it is lost, the next one is not.
async fn deliver(supervisor: &Slot<SupervisorActor>, message: Deliver) {
    let addr = loop {
        match supervisor.addr() {
            Some(addr) => break addr,
            None => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    };
    if let Err(MailboxError::Closed | MailboxError::Timeout) = addr.send(message).await {
        tracing::error!("the supervisor failed while it handled room events");
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;
    use crate::settings::Log;
    use crate::telemetry::{Capture, Redactor, layer};

    #[test]
    fn a_call_transfer_of_an_allowed_user_is_told_at_the_default_filter() {
        let capture = Capture::default();
        let layer = layer(&Log::default(), Redactor::default(), capture.clone()).expect("the default filter");
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            note_transfer("!r:hs", "@ada:hs", true);
            note_transfer("!r:hs", "@eve:hs", false);
        });
        let text = capture.text();
        assert!(text.contains("a call transfer is ignored") && text.contains("@ada:hs"), "{text}");
        assert!(!text.contains("@eve:hs"), "{text}");
        assert!(is_transfer("m.call.replaces") && is_transfer("org.matrix.call.replaces"));
        assert!(!is_transfer("m.call.invite"));
    }
}
