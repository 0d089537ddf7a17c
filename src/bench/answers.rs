//! Answers to the invites of a bench, which are taken where they would be sent.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::BenchError;

/// How long an answer may take.
pub(super) const ANSWER_LIMIT: Duration = Duration::from_secs(30);

type Waiting = oneshot::Sender<Result<String, String>>;

/// Who waits for an answer, by what the answer will be known by: a room, or the id of a call.
#[derive(Default)]
pub(super) struct Answers(Mutex<HashMap<String, Waiting>>);

impl Answers {
    /// To be called before the invite is told: an answer to what nobody expects is dropped.
    pub(super) fn expect(&self, key: String) -> ExpectedAnswer {
        let (waiting, answer) = oneshot::channel();
        self.waiting().insert(key, waiting);
        ExpectedAnswer(answer)
    }

    /// Takes an event of ours, if it answers or refuses a call.
    pub(super) fn take(&self, key: &str, event_type: &str, content: &Value) {
        let answered = match event_type {
            "m.call.answer" => {
                Ok(content.pointer("/answer/sdp").and_then(Value::as_str).unwrap_or_default().to_owned())
            }
            "m.call.reject" | "m.call.hangup" => Err(event_type.to_owned()),
            _ => return,
        };
        if let Some(waiting) = self.waiting().remove(key) {
            let _ = waiting.send(answered);
        }
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<String, Waiting>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An answer that is on its way.
pub(super) struct ExpectedAnswer(oneshot::Receiver<Result<String, String>>);

impl ExpectedAnswer {
    /// The SDP that answers `call`.
    ///
    /// # Errors
    /// [`BenchError::CallFailed`] if it is refused, or not answered within [`ANSWER_LIMIT`].
    pub(super) async fn sdp(self, call: usize) -> Result<String, BenchError> {
        let failed = |reason: String| BenchError::CallFailed { call, reason };
        match tokio::time::timeout(ANSWER_LIMIT, self.0).await {
            Ok(Ok(answered)) => answered.map_err(failed),
            Ok(Err(_)) | Err(_) => Err(failed("no answer came".to_owned())),
        }
    }
}

/// Content of an `m.call.invite` that offers `sdp`, as far as every kind of call has it.
pub(super) fn invite(sdp: &str) -> Value {
    json!({"offer": {"type": "offer", "sdp": sdp}, "lifetime": 60_000})
}
