//! Sending events: encrypted where the room is, tried again under the same transaction id until a limit.

use std::sync::Arc;
use std::time::Duration;

use matrix_sdk::ruma::TransactionId;
use matrix_sdk::{EncryptionState, Room};
use recorder_actors::ports::Urgency;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::error::{BackOff, Fault, fault_of};
use super::gate::{Gate, Place};

const FIRST_WAIT: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// Why an event was not sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    #[error("the recorder is not in room {room}")]
    NotInRoom { room: String },
    /// The room's rules or the homeserver forbid it; trying again changes nothing.
    #[error("the homeserver refused the event ({code})")]
    Refused { code: String },
    #[error("not sent within {} s: {last}", limit.as_secs())]
    TooLate { limit: Duration, last: String },
    #[error("too much waits to be sent")]
    Crowded,
    #[error("the session was ended on the homeserver")]
    TokenRevoked,
    #[error("the event could not be encrypted or made: {detail}")]
    Internal { detail: String },
}

/// Sends `content` when its turn comes; gives up when `limit` has passed. The transaction id stays the same, so an event
/// whose answer was lost is not sent twice (specification, "Transaction identifiers").
pub(super) async fn send(
    gate: &Arc<Gate>,
    room: &Room,
    event_type: &str,
    content: Value,
    urgency: Urgency,
    limit: Duration,
) -> Result<String, SendError> {
    let transaction = TransactionId::new();
    let attempt = || {
        let attempt = room.send_raw(event_type, content.clone()).with_transaction_id(&transaction);
        Box::pin(attempt.into_future())
    };
    let sent = persist_in_turn(gate, urgency, room.room_id().as_str(), limit, async || {
        if may_be_encrypted(&room.encryption_state()) {
            gate.follow_ups.around(attempt).await
        } else {
            attempt().await
        }
    });
    sent.await.map(|sent| sent.response.event_id.to_string())
}

/// Of a room that we have just joined, and greet, no sync has told yet.
fn may_be_encrypted(state: &EncryptionState) -> bool {
    !matches!(state, EncryptionState::NotEncrypted)
}

/// As [`persist`], for requests that count against the account's message limit: each when its turn comes.
pub(super) async fn persist_in_turn<T, E, F>(
    gate: &Arc<Gate>,
    urgency: Urgency,
    room: &str,
    limit: Duration,
    request: impl FnMut() -> F,
) -> Result<T, SendError>
where
    F: Future<Output = Result<T, E>>,
    E: Into<matrix_sdk::Error>,
{
    let place = gate.line_up(urgency, room).ok_or(SendError::Crowded)?;
    try_until(Some(place), room, limit, request).await
}

/// Makes the same request until it is answered for good or `limit` has passed: after 429, 5xx and silence it is made
/// again, with growing waits between. `room` is for the error of a room that we are not in.
pub(super) async fn persist<T, E, F>(
    room: &str,
    limit: Duration,
    request: impl FnMut() -> F,
) -> Result<T, SendError>
where
    F: Future<Output = Result<T, E>>,
    E: Into<matrix_sdk::Error>,
{
    try_until(None, room, limit, request).await
}

async fn try_until<T, E, F>(
    place: Option<Place>,
    room: &str,
    limit: Duration,
    mut request: impl FnMut() -> F,
) -> Result<T, SendError>
where
    F: Future<Output = Result<T, E>>,
    E: Into<matrix_sdk::Error>,
{
    let ends = Instant::now() + limit;
    let mut back_off = BackOff::new(FIRST_WAIT, LONGEST_WAIT);
    let mut last = "no answer".to_owned();
    loop {
        if let Some(place) = &place
            && tokio::time::timeout_at(ends, place.turn()).await.is_err()
        {
            return Err(SendError::TooLate { limit, last: "what is more urgent went first".to_owned() });
        }
        let fault = match tokio::time::timeout_at(ends, request()).await {
            Err(_) => return Err(SendError::TooLate { limit, last }),
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => match error.into() {
                matrix_sdk::Error::WrongRoomState(_) => {
                    return Err(SendError::NotInRoom { room: room.to_owned() });
                }
                error => match fault_of(&error) {
                    Fault::TokenRevoked => return Err(SendError::TokenRevoked),
                    Fault::Refused { code, .. } => return Err(SendError::Refused { code }),
                    Fault::Internal(detail) => return Err(SendError::Internal { detail }),
                    fault => fault,
                },
            },
        };
        last = fault.to_string();
        let asked = if let Fault::Limited(asked) = fault { asked } else { None };
        let wait = back_off.next(asked);
        let limited = matches!(fault, Fault::Limited(_));
        if let Some(place) = place.as_ref().filter(|_| limited) {
            // Also when it is too late for this one: the others are to know.
            place.slow_down(wait);
        }
        if Instant::now() + wait >= ends {
            return Err(SendError::TooLate { limit, last });
        }
        match &place {
            Some(_) if limited => {}
            Some(place) => place.rest(wait).await,
            None => tokio::time::sleep(wait).await,
        }
    }
}

/// Content of an `m.notice` (specification, "m.notice", "User and room mentions"): plain text, HTML, and who is named.
pub(super) fn notice(plain: &str, html: &str, mentions: &[&str]) -> Value {
    let mut content = json!({ "msgtype": "m.notice", "body": plain });
    if !html.is_empty() {
        content["format"] = "org.matrix.custom.html".into();
        content["formatted_body"] = html.into();
    }
    // An empty object says that nobody is, which keeps clients from searching the text for names.
    content["m.mentions"] = if mentions.is_empty() { json!({}) } else { json!({ "user_ids": mentions }) };
    content
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_room_of_which_nothing_is_known_yet_is_taken_for_encrypted() {
        assert!(may_be_encrypted(&EncryptionState::Unknown));
        assert!(may_be_encrypted(&EncryptionState::Encrypted));
        assert!(!may_be_encrypted(&EncryptionState::NotEncrypted));
    }

    #[test]
    fn a_notice_names_whom_it_mentions() {
        assert_eq!(
            notice("hi", "<b>hi</b>", &["@a:x"]),
            json!({
                "msgtype": "m.notice",
                "body": "hi",
                "format": "org.matrix.custom.html",
                "formatted_body": "<b>hi</b>",
                "m.mentions": { "user_ids": ["@a:x"] },
            })
        );
        assert_eq!(notice("hi", "", &[]), json!({ "msgtype": "m.notice", "body": "hi", "m.mentions": {} }));
    }
}
