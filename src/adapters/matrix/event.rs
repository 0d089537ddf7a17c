//! Reading room events: which are wanted, how old they are.

use std::time::Duration;

use recorder_core::time::BootTime;
use serde::Deserialize;
use serde_json::Value;

use super::RoomEvent;

/// The longest event that is looked at. The specification allows 65,536 bytes; decrypted ones are a little longer.
const LONGEST_EVENT: usize = 256 << 10;
/// The longest event id that is looked at (specification: 255 bytes).
const LONGEST_ID: usize = 512;

/// State of group calls (MSC3401).
pub(super) const CALL: &str = "org.matrix.msc3401.call";
pub(super) const CALL_MEMBER: &str = "org.matrix.msc3401.call.member";
pub(super) const MEMBER: &str = "m.room.member";

/// Events that 1:1 calls are made of: of these each waits for its sender's earlier ones.
pub(super) fn is_call_event(event_type: &str) -> bool {
    event_type.starts_with("m.call.") || event_type.starts_with("org.matrix.call.")
}

/// What people say. A command in it counts only from our start on and while it is young.
pub(super) fn is_said(event_type: &str) -> bool {
    matches!(event_type, "m.room.message" | "m.reaction")
}

/// Event types that the calls, the commands and the room's description need. Everything else is dropped unread.
pub(super) fn is_wanted(event_type: &str) -> bool {
    is_call_event(event_type)
        || matches!(
            event_type,
            "m.room.message"
                | "m.reaction"
                | "m.room.redaction"
                | CALL
                | CALL_MEMBER
                | MEMBER
                | "m.room.name"
                | "m.room.canonical_alias"
                | "m.room.tombstone"
                | "m.room.encryption"
                | "m.room.power_levels"
        )
}

/// As much of an event as its place in time needs.
#[derive(Deserialize)]
pub(super) struct Stamp {
    pub(super) event_id: String,
    #[serde(default)]
    origin_server_ts: i64,
    #[serde(default)]
    unsigned: Unsigned,
}

/// An event as it came; every field is remote data.
#[derive(Deserialize)]
pub(super) struct Head {
    pub(super) event_id: String,
    pub(super) sender: String,
    #[serde(rename = "type")]
    pub(super) event_type: String,
    #[serde(default)]
    pub(super) state_key: Option<String>,
    #[serde(default)]
    origin_server_ts: i64,
    #[serde(default)]
    unsigned: Unsigned,
    #[serde(default)]
    pub(super) content: Value,
    /// Of `m.room.redaction`, in rooms before version 11.
    #[serde(default)]
    redacts: Option<Value>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Unsigned {
    age: Option<Value>,
    /// Our own membership when the event was sent (specification, "Membership of the user in unsigned").
    membership: Option<Value>,
}

impl Unsigned {
    /// `unsigned.age` as the homeserver counts it, else by the clocks of two machines (specification, "Call event
    /// liveness", prefers the former). Never negative.
    fn age(&self, origin_server_ts: i64, utc_millis: i64) -> Duration {
        let told = self.age.as_ref().and_then(Value::as_i64);
        let millis = told.unwrap_or_else(|| utc_millis.saturating_sub(origin_server_ts));
        Duration::from_millis(u64::try_from(millis).unwrap_or(0))
    }
}

impl Stamp {
    pub(super) fn age(&self, utc_millis: i64) -> Duration {
        self.unsigned.age(self.origin_server_ts, utc_millis)
    }
}

impl Head {
    /// `None` for what is malformed or too long to be looked at.
    pub(super) fn read(json: &str) -> Option<Self> {
        let fits = |head: &Self| head.event_id.len() <= LONGEST_ID && head.sender.len() <= LONGEST_ID;
        (json.len() <= LONGEST_EVENT).then(|| serde_json::from_str(json).ok()).flatten().filter(fits)
    }

    pub(super) fn age(&self, utc_millis: i64) -> Duration {
        self.unsigned.age(self.origin_server_ts, utc_millis)
    }

    /// Its age by the clocks of two machines: of a stored event the homeserver's count is as old as the store.
    pub(super) fn age_by_clock(&self, utc_millis: i64) -> Duration {
        Unsigned::default().age(self.origin_server_ts, utc_millis)
    }

    /// It was sent before we joined, as far as the homeserver says.
    pub(super) fn before_our_join(&self) -> bool {
        self.unsigned.membership.as_ref().is_some_and(|membership| membership != "join")
    }

    pub(super) fn into_event(
        mut self,
        room_id: String,
        age: Duration,
        received: BootTime,
        encrypted: bool,
    ) -> RoomEvent {
        if let (Some(redacts), Some(content)) = (self.redacts, self.content.as_object_mut()) {
            content.entry("redacts").or_insert(redacts);
        }
        RoomEvent {
            room_id,
            event_id: self.event_id,
            sender: self.sender,
            event_type: self.event_type,
            state_key: self.state_key,
            origin_server_ts: self.origin_server_ts,
            content: self.content,
            age_at_receipt: age,
            received_at: received,
            encrypted,
            // Set when it is delivered.
            batch: 0,
        }
    }
}

/// Reads an event as the homeserver may send it, for fuzzing.
#[doc(hidden)]
pub fn fuzz_event(json: &str) {
    if let Ok(stamp) = serde_json::from_str::<Stamp>(json) {
        let _ = stamp.age(0);
    }
    let Some(head) = Head::read(json) else { return };
    assert!(head.event_id.len() <= LONGEST_ID && head.sender.len() <= LONGEST_ID);
    let _ = (head.age_by_clock(i64::MIN), head.before_our_join(), is_wanted(&head.event_type));
    let age = head.age(i64::MAX);
    let read = head.into_event("!room:example.org".to_owned(), age, BootTime(1), false);
    assert!(read.age(BootTime(u64::MAX)) >= age);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_age_is_the_homeservers_or_else_counted_and_never_negative() {
        for (json, expected) in [
            (r#"{"event_id":"$1","origin_server_ts":1000,"unsigned":{"age":700}}"#, 700),
            (r#"{"event_id":"$1","origin_server_ts":1000,"unsigned":{"age":-5}}"#, 0),
            (r#"{"event_id":"$1","origin_server_ts":1000,"unsigned":{"age":"x"}}"#, 4000),
            (r#"{"event_id":"$1","origin_server_ts":1000}"#, 4000),
            (r#"{"event_id":"$1","origin_server_ts":9000}"#, 0),
            (r#"{"event_id":"$1","origin_server_ts":-9223372036854775808}"#, i64::MAX as u64),
        ] {
            let stamp: Stamp = serde_json::from_str(json).unwrap();
            assert_eq!(stamp.age(5000), Duration::from_millis(expected), "{json}");
        }
    }

    #[test]
    fn call_events_of_both_names_are_wanted_and_receipts_are_not() {
        assert!(is_wanted("m.call.invite"));
        assert!(is_wanted("org.matrix.call.sdp_stream_metadata_changed"));
        assert!(is_wanted("m.room.member"));
        assert!(is_wanted("org.matrix.msc3401.call") && is_wanted("org.matrix.msc3401.call.member"));
        assert!(!is_wanted("m.room.encrypted"));
        assert!(!is_wanted("m.sticker"));
    }

    #[test]
    fn a_redaction_names_its_event_in_its_content_whatever_the_room_version() {
        for json in [
            r#"{"event_id":"$2","sender":"@a:x","type":"m.room.redaction","redacts":"$1","content":{"reason":"x"}}"#,
            r#"{"event_id":"$2","sender":"@a:x","type":"m.room.redaction","content":{"reason":"x","redacts":"$1"}}"#,
        ] {
            let head = Head::read(json).unwrap();
            let event = head.into_event("!r:x".to_owned(), Duration::ZERO, BootTime(0), false);
            assert_eq!(event.content, serde_json::json!({ "reason": "x", "redacts": "$1" }));
        }
    }

    #[test]
    fn an_event_from_before_our_join_is_known_as_such_if_the_homeserver_says_so() {
        for (unsigned, expected) in
            [(r#"{"membership":"invite"}"#, true), (r#"{"membership":"join"}"#, false), ("{}", false)]
        {
            let json = format!(r#"{{"event_id":"$1","sender":"@a:x","type":"m.x","unsigned":{unsigned}}}"#);
            assert_eq!(Head::read(&json).unwrap().before_our_join(), expected, "{unsigned}");
        }
    }

    #[test]
    fn what_is_malformed_or_too_long_is_not_looked_at() {
        let event = |id: &str, body: &str| {
            serde_json::json!({ "event_id": id, "sender": "@a:x", "type": "m.call.invite", "content": { "b": body } })
                .to_string()
        };
        assert!(Head::read(&event("$1", "hi")).is_some());
        assert!(Head::read(&event("$\u{0}/../\u{1f600}", "hi")).is_some());
        assert!(Head::read(&event(&"x".repeat(10_000), "hi")).is_none());
        assert!(Head::read(&event("$1", &"x".repeat(300_000))).is_none());
        for broken in ["", "{}", "[]", "null", r#"{"event_id":1,"sender":"@a:x","type":"m.call.invite"}"#] {
            assert!(Head::read(broken).is_none(), "{broken}");
        }
        let nested = format!("{}{}", "[".repeat(50_000), "]".repeat(50_000));
        assert!(
            Head::read(&format!(r#"{{"event_id":"$1","sender":"@a:x","type":"m.x","content":{nested}}}"#))
                .is_none()
        );
    }
}
