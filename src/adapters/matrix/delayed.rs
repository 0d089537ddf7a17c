//! State events that the homeserver sends by itself when we no longer restart their delay (MSC4140).
//!
//! A homeserver that does not know the delay would send the event *at once*, so none is asked before it has said that it
//! does: in its capabilities, or as an unstable feature.

use std::time::Duration;

use matrix_sdk::Client;
use matrix_sdk::ruma::api::client::delayed_events::{
    DelayParameters, delayed_state_event, update_delayed_event,
};
use matrix_sdk::ruma::api::client::discovery::{get_capabilities, get_supported_versions};
use matrix_sdk::ruma::events::AnyStateEventContent;
use matrix_sdk::ruma::serde::Raw;
use recorder_actors::ports::Urgency;
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tracing::{debug, info};

use super::error::fault_of_http;
use super::send::{SendError, persist, persist_in_turn};
use super::{MatrixAccount, SendError as Error};

/// The capability that tells the longest delay (MSC4140).
const CAPABILITY: &str = "org.matrix.msc4140.delayed_events";
const FEATURE: &str = "org.matrix.msc4140";
/// For each request about a delay, its repeats included.
const LIMIT: Duration = Duration::from_secs(10);
/// When it could not be found out what the homeserver offers, this passes before the next attempt.
const PROBE_AGAIN: Duration = Duration::from_secs(60);

/// What is known of the homeserver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Offer {
    No,
    /// Up to this long, where it says.
    Yes {
        longest: Option<Duration>,
    },
}

/// Whether the homeserver delays events; asked once.
#[derive(Default)]
pub(super) struct Delays {
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    offer: Option<Offer>,
    failed: Option<Instant>,
}

impl Delays {
    async fn offer(&self, client: &Client) -> Option<Offer> {
        let mut known = self.known.lock().await;
        if known.offer.is_none() && known.failed.is_none_or(|at| at.elapsed() >= PROBE_AGAIN) {
            known.offer = tokio::time::timeout(LIMIT, Box::pin(probe(client))).await.ok().flatten();
            known.failed = known.offer.is_none().then(Instant::now);
            match known.offer {
                Some(Offer::No) => {
                    info!("the homeserver delays no events, so memberships end by expiry after a crash")
                }
                offer => debug!(?offer, "asked whether the homeserver delays events"),
            }
        }
        known.offer
    }
}

/// `None` if it cannot be found out now.
async fn probe(client: &Client) -> Option<Offer> {
    let capabilities = client.send(get_capabilities::v3::Request::new()).await;
    match capabilities {
        Ok(answer) => {
            if let Some(capability) = answer.capabilities.get(CAPABILITY) {
                return Some(offered(&capability));
            }
        }
        Err(error) if fault_of_http(&error).passes() => return None,
        Err(_) => {}
    }
    match client.send(get_supported_versions::Request::new()).await {
        Ok(answer) if answer.unstable_features.get(FEATURE) == Some(&true) => {
            Some(Offer::Yes { longest: None })
        }
        Ok(_) => Some(Offer::No),
        Err(error) if fault_of_http(&error).passes() => None,
        Err(_) => Some(Offer::No),
    }
}

/// A longest delay of 0 says that there is none, and so does a number of delays of 0.
fn offered(capability: &Value) -> Offer {
    let number = |key: &str| capability.get(key).and_then(Value::as_u64);
    match (number("max_delay_ms"), number("max_scheduled")) {
        (Some(0), _) | (_, Some(0)) => Offer::No,
        (longest, _) => Offer::Yes { longest: longest.map(Duration::from_millis) },
    }
}

impl MatrixAccount {
    /// Has the homeserver send a state event after `delay`, or after its longest delay if that is shorter. The delay's
    /// id; `None` where the homeserver does not do that, or not now.
    pub async fn send_state_later(
        &self,
        room_id: &str,
        event_type: &str,
        state_key: &str,
        content: &Value,
        delay: Duration,
    ) -> Option<String> {
        let room = self.room(room_id).ok()?;
        let client = &self.shared.client;
        let Offer::Yes { longest } = self.shared.delays.offer(client).await? else { return None };
        let timeout = longest.map_or(delay, |longest| delay.min(longest));
        let body = Raw::new(content).ok()?.cast_unchecked::<AnyStateEventContent>();
        let request = delayed_state_event::unstable::Request::new_raw(
            room.room_id().to_owned(),
            state_key.to_owned(),
            event_type.into(),
            DelayParameters::Timeout { timeout },
            body,
        );
        let sent = persist_in_turn(&self.shared.gate, Urgency::Change, room_id, LIMIT, || {
            client.send(request.clone()).into_future()
        });
        let sent = sent.await;
        match sent {
            Ok(answer) => Some(answer.delay_id),
            Err(error) => {
                debug!(room = room_id, %error, "the homeserver took no delayed event");
                None
            }
        }
    }

    /// Gives a delay up. One that cannot be reached sends its event in time, which then finds us gone.
    pub async fn cancel_delay(&self, delay_id: &str) {
        use update_delayed_event::unstable::{Request, UpdateAction};
        let request = Request::new(delay_id.to_owned(), UpdateAction::Cancel);
        let client = &self.shared.client;
        if let Err(error) = persist("", LIMIT, || client.send(request.clone()).into_future()).await {
            debug!(%error, "a delay could not be given up");
        }
    }

    /// Begins a delay anew. False if the homeserver knows no such delay (any more); true also when it does not answer,
    /// because then nothing says that it is gone.
    pub async fn restart_delay(&self, delay_id: &str) -> bool {
        use update_delayed_event::unstable::{Request, UpdateAction};
        let request = Request::new(delay_id.to_owned(), UpdateAction::Restart);
        let client = &self.shared.client;
        let sent = persist("", LIMIT, || client.send(request.clone()).into_future()).await;
        match sent {
            Ok(_) | Err(SendError::TooLate { .. }) => true,
            Err(error) => {
                debug!(%error, "a delay could not be restarted");
                !matches!(error, Error::Refused { .. })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_capability_tells_the_longest_delay_and_a_zero_that_there_is_none() {
        let yes = |millis| Offer::Yes { longest: Some(Duration::from_millis(millis)) };
        for (capability, expected) in [
            (json!({ "max_delay_ms": 86_400_000, "max_scheduled": 100 }), yes(86_400_000)),
            (json!({ "max_delay_ms": 18_000 }), yes(18_000)),
            (json!({ "max_delay_ms": 0, "max_scheduled": 100 }), Offer::No),
            (json!({ "max_delay_ms": 18_000, "max_scheduled": 0 }), Offer::No),
            (json!({ "max_delay_ms": "long" }), Offer::Yes { longest: None }),
            (json!({}), Offer::Yes { longest: None }),
        ] {
            assert_eq!(offered(&capability), expected, "{capability}");
        }
    }
}
