//! To-device events: call signalling that goes from device to device, outside of rooms.
//!
//! The SDK hands them over before the rooms of the same sync response, so they wait in the [`Mailbox`] until the courier
//! has delivered those: a caller's membership goes before its signalling.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use matrix_sdk::Client;
use matrix_sdk::deserialized_responses::EncryptionInfo;
use matrix_sdk::ruma::api::client::to_device::send_event_to_device::v3::Request;
use matrix_sdk::ruma::events::{AnyToDeviceEvent, AnyToDeviceEventContent};
use matrix_sdk::ruma::serde::Raw;
use matrix_sdk::ruma::to_device::DeviceIdOrAllDevices;
use matrix_sdk::ruma::{DeviceId, TransactionId, UserId};
use recorder_actors::observe::{Board, Totals};
use recorder_actors::ports::Clock;
use recorder_core::time::BootTime;
use serde::Deserialize;
use serde_json::Value;
use tracing::debug;

use super::send::{SendError, persist};
use super::{Delivery, MatrixAccount};

/// The longest event that is looked at: a session description and its envelope fit many times.
const LONGEST: usize = 256 << 10;
/// The longest sender that is looked at (specification: 255 bytes).
const LONGEST_USER: usize = 512;
/// Events of one sender: this many at once, and in each second.
const PER_SENDER: u32 = 256;
/// Events that wait for the courier, and their bytes. A sync response brings a hundred.
const WAITING: usize = 4096;
const WAITING_BYTES: usize = 16 << 20;
/// Senders whose rate is remembered.
const SENDERS: usize = 1024;

/// One event, as the homeserver or Olm says.
#[derive(Clone, Debug, PartialEq)]
struct Letter {
    sender: String,
    event_type: String,
    content: Value,
    encrypted: bool,
    received_at: BootTime,
    bytes: usize,
}

#[derive(Deserialize)]
struct Head {
    sender: String,
    #[serde(rename = "type")]
    event_type: String,
    #[serde(default)]
    content: Value,
}

/// What one sender may still send.
#[derive(Clone, Copy)]
struct Allowance {
    left: f64,
    at: BootTime,
}

/// Bounded in all: what is too much is dropped, a sender's own excess first.
#[derive(Default)]
struct Letters {
    waiting: VecDeque<Letter>,
    bytes: usize,
    senders: HashMap<String, Allowance>,
}

impl Letters {
    /// False for what is dropped.
    fn push(&mut self, letter: Letter) -> bool {
        let fits = self.waiting.len() < WAITING && self.bytes + letter.bytes <= WAITING_BYTES;
        if !self.allows(&letter.sender, letter.received_at) || !fits {
            return false;
        }
        self.bytes += letter.bytes;
        self.waiting.push_back(letter);
        true
    }

    /// A token bucket for each sender.
    fn allows(&mut self, sender: &str, now: BootTime) -> bool {
        let full = f64::from(PER_SENDER);
        let left_now = |allowance: &Allowance| {
            let passed = now.saturating_since(allowance.at).as_secs_f64();
            (allowance.left + passed * full).min(full)
        };
        if !self.senders.contains_key(sender) && self.senders.len() >= SENDERS {
            self.senders.retain(|_, allowance| left_now(allowance) < full);
            let longest_ago = self.senders.iter().min_by_key(|(_, allowance)| allowance.at);
            if self.senders.len() >= SENDERS
                && let Some(longest_ago) = longest_ago.map(|(sender, _)| sender.clone())
            {
                self.senders.remove(&longest_ago);
            }
        }
        let left = self.senders.get(sender).map_or(full, left_now);
        let allowed = left >= 1.0;
        let left = if allowed { left - 1.0 } else { left };
        self.senders.insert(sender.to_owned(), Allowance { left, at: now });
        allowed
    }

    fn drain(&mut self) -> VecDeque<Letter> {
        self.bytes = 0;
        std::mem::take(&mut self.waiting)
    }
}

/// Where to-device events wait for the courier.
pub(super) struct Mailbox {
    letters: Mutex<Letters>,
    clock: Arc<dyn Clock>,
    board: Arc<Board>,
}

impl Mailbox {
    /// Listens from the first sync on.
    pub(super) fn listen(client: &Client, clock: Arc<dyn Clock>, board: Arc<Board>) -> Arc<Self> {
        let this = Arc::new(Self { letters: Mutex::default(), clock, board });
        let mailbox = Arc::clone(&this);
        client.add_event_handler(move |event: Raw<AnyToDeviceEvent>, info: Option<EncryptionInfo>| {
            let device = info.as_ref().map(|info| info.sender_device.as_ref().map(|id| id.as_str()));
            mailbox.take(event.json().get(), device);
            std::future::ready(())
        });
        this
    }

    /// `device`: absent for an event that was not encrypted, else the device whose key it was encrypted with, if known.
    fn take(&self, json: &str, device: Option<Option<&str>>) {
        let kept = match read(json, device, self.clock.now()) {
            Ok(Some(letter)) => self.letters().push(letter),
            Ok(None) => true,
            Err(Unusable) => false,
        };
        if !kept {
            Totals::count(&self.board.totals.signals_ignored);
        }
    }

    /// What came since the last time, in order.
    pub(super) fn drain(&self, batch: u64) -> impl Iterator<Item = Delivery> + use<> {
        let letters = self.letters().drain();
        letters.into_iter().map(move |letter| Delivery::ToDevice {
            sender: letter.sender,
            event_type: letter.event_type,
            content: letter.content,
            encrypted: letter.encrypted,
            received_at: letter.received_at,
            batch,
        })
    }

    fn letters(&self) -> MutexGuard<'_, Letters> {
        self.letters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call event that is too long, malformed, or says to be from another device than encrypted it.
struct Unusable;

/// `None` for what is no call event.
fn read(json: &str, device: Option<Option<&str>>, now: BootTime) -> Result<Option<Letter>, Unusable> {
    if json.len() > LONGEST {
        return Err(Unusable);
    }
    let head: Head = serde_json::from_str(json).map_err(|_| Unusable)?;
    if !head.event_type.starts_with("m.call.") && !head.event_type.starts_with("org.matrix.call.") {
        return Ok(None);
    }
    let claimed = head.content.get("device_id").and_then(Value::as_str);
    let impostor = matches!((device, claimed), (Some(Some(device)), Some(claimed)) if device != claimed);
    if impostor || head.sender.len() > LONGEST_USER {
        debug!(
            sender = head.sender.chars().take(255).collect::<String>(),
            impostor, "to-device event ignored"
        );
        return Err(Unusable);
    }
    Ok(Some(Letter {
        sender: head.sender,
        event_type: head.event_type,
        content: head.content,
        encrypted: device.is_some(),
        received_at: now,
        bytes: json.len(),
    }))
}

impl MatrixAccount {
    /// Sends an event to one device, not encrypted. Tried again under the same transaction id until `limit` has passed.
    pub async fn send_to_device(
        &self,
        user: &str,
        device: &str,
        event_type: &str,
        content: &Value,
        limit: Duration,
    ) -> Result<(), SendError> {
        let refused = |code: &str| SendError::Refused { code: code.to_owned() };
        let user_id = UserId::parse(user).map_err(|_| refused("not a user id"))?;
        // `*` stands for all of a user's devices.
        if device.is_empty() || device == "*" {
            return Err(refused("not a device id"));
        }
        let content = Raw::new(content).map_err(|error| SendError::Internal { detail: error.to_string() })?;
        let device = DeviceIdOrAllDevices::DeviceId(<&DeviceId>::from(device).to_owned());
        let to = BTreeMap::from([(device, content.cast_unchecked::<AnyToDeviceEventContent>())]);
        let request =
            Request::new_raw(event_type.into(), TransactionId::new(), BTreeMap::from([(user_id, to)]));
        let client = &self.shared.client;
        persist("", limit, || client.send(request.clone()).into_future()).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const START: BootTime = BootTime(1_000_000_000_000);

    fn letter(sender: &str, at: BootTime, bytes: usize) -> Letter {
        Letter {
            sender: sender.to_owned(),
            event_type: "m.call.invite".to_owned(),
            content: Value::Null,
            encrypted: false,
            received_at: at,
            bytes,
        }
    }

    #[test]
    fn a_flood_of_one_sender_is_cut_to_its_rate_and_leaves_others_alone() {
        let mut letters = Letters::default();
        let taken = (0..10_000).filter(|_| letters.push(letter("@eve:x", START, 100))).count();
        assert_eq!(taken, PER_SENDER as usize);
        assert!(letters.push(letter("@alice:x", START, 100)));
        let half = START + Duration::from_millis(500);
        let taken = (0..10_000).filter(|_| letters.push(letter("@eve:x", half, 100))).count();
        assert_eq!(taken, PER_SENDER as usize / 2);
        let order: Vec<_> = letters.drain().into_iter().map(|letter| letter.sender).collect();
        assert_eq!(order.len(), 256 + 1 + 128);
        assert_eq!(order[256], "@alice:x");
        assert_eq!(letters.bytes, 0);
    }

    #[test]
    fn many_senders_and_long_events_cost_bounded_memory() {
        let mut letters = Letters::default();
        for n in 0..10_000_u64 {
            letters.push(letter(&format!("@{n}:x"), START + Duration::from_micros(n), 100_000));
        }
        assert!(letters.bytes <= WAITING_BYTES);
        assert!(letters.waiting.len() <= WAITING);
        assert!(letters.senders.len() <= SENDERS);
        letters.drain();
        assert!(letters.push(letter("@late:x", START + Duration::from_secs(1), 100)));
    }

    fn event(sender: &str, event_type: &str, device: &str) -> String {
        json!({ "sender": sender, "type": event_type, "content": { "device_id": device, "seq": 3 } })
            .to_string()
    }

    #[test]
    fn call_events_are_taken_plain_and_encrypted_and_others_are_not() {
        for (event_type, wanted) in [
            ("m.call.invite", true),
            ("org.matrix.call.sdp_stream_metadata_changed", true),
            ("m.room_key_request", false),
            ("m.room.encrypted", false),
            ("m.callous", false),
        ] {
            let read = read(&event("@a:x", event_type, "DEV"), None, START).ok().unwrap();
            assert_eq!(read.is_some(), wanted, "{event_type}");
        }
        let plain = read(&event("@a:x", "m.call.invite", "DEV"), None, START).ok().flatten().unwrap();
        assert_eq!(
            (plain.sender.as_str(), plain.encrypted, &plain.content["seq"]),
            ("@a:x", false, &json!(3))
        );
        let sealed = read(&event("@a:x", "m.call.invite", "DEV"), Some(Some("DEV")), START);
        assert!(sealed.ok().flatten().unwrap().encrypted);
    }

    #[test]
    fn a_device_that_says_to_be_another_and_malformed_events_are_refused() {
        assert!(read(&event("@a:x", "m.call.invite", "DEV"), Some(Some("OTHER")), START).is_err());
        assert!(read(&event(&"x".repeat(10_000), "m.call.invite", "DEV"), None, START).is_err());
        let long =
            format!("{{\"sender\":\"@a:x\",\"type\":\"m.call.invite\",\"x\":\"{}\"}}", "x".repeat(LONGEST));
        for broken in ["", "[]", "{}", r#"{"sender":1,"type":"m.call.invite"}"#, &long] {
            assert!(read(broken, None, START).is_err(), "{}", &broken[..broken.len().min(50)]);
        }
        let without_content = read(r#"{"sender":"@a:x","type":"m.call.invite"}"#, None, START);
        assert!(without_content.is_ok_and(|letter| letter.is_some()));
    }
}
