//! Sending events: encrypted where the room is, tried again under the same transaction id until a limit.

use std::time::Duration;

use matrix_sdk::Room;
use matrix_sdk::ruma::TransactionId;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::error::{BackOff, Fault, fault_of};

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
    #[error("the session was ended on the homeserver")]
    TokenRevoked,
    #[error("the event could not be encrypted or made: {detail}")]
    Internal { detail: String },
}

/// Sends `content`; gives up when `limit` has passed. The transaction id stays the same, so an event whose answer was
/// lost is not sent twice (specification, "Transaction identifiers").
pub(super) async fn send(
    room: &Room,
    event_type: &str,
    content: Value,
    limit: Duration,
) -> Result<String, SendError> {
    let transaction = TransactionId::new();
    let sent = persist(room.room_id().as_str(), limit, || {
        let attempt = room.send_raw(event_type, content.clone()).with_transaction_id(&transaction);
        Box::pin(attempt.into_future())
    });
    sent.await.map(|sent| sent.response.event_id.to_string())
}

/// Makes the same request until it is answered for good or `limit` has passed: after 429, 5xx and silence it is made
/// again, with growing waits between. `room` is for the error of a room that we are not in.
pub(super) async fn persist<T, E, F>(
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
        let asked = match tokio::time::timeout_at(ends, request()).await {
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
                    fault => {
                        last = fault.to_string();
                        if let Fault::Limited(asked) = fault { asked } else { None }
                    }
                },
            },
        };
        let wait = back_off.next(asked);
        if Instant::now() + wait >= ends {
            return Err(SendError::TooLate { limit, last });
        }
        tokio::time::sleep(wait).await;
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
