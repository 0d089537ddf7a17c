//! What goes into a room's machine. Remote data is bounded and checked here, once.

use std::time::Duration;

use serde_json::Value;

use super::limits;
use crate::call::{RoomEvent, Saved};
use crate::manifest::{CallKind, EndReason};
use crate::time::BootTime;

/// Users taken from one `m.mentions`.
const MOST_MENTIONS: usize = 64;
/// Bytes of the HTML in which a link to us is looked for.
const FORMATTED_BYTES: usize = 1_024;

/// A message of a person (`m.room.message`, `m.text`), as far as a command may stand in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    pub event_id: String,
    pub sender: String,
    /// The event that begins the thread it was said in.
    pub thread_root: Option<String>,
    /// First line, without a reply's quotation; at most [`limits::COMMAND_BYTES`].
    pub body: String,
    /// The beginning of the HTML.
    pub formatted: String,
    /// `m.mentions`.
    pub mentions: Vec<String>,
    pub received: BootTime,
    /// Age at receipt.
    pub age: Duration,
}

impl Said {
    /// `None` for everything that cannot be a command: other events, notices, edits, malformed content.
    pub fn read(event: &RoomEvent) -> Option<Self> {
        if event.event_type != "m.room.message" || !is_id(&event.event_id) || !is_id(&event.sender) {
            return None;
        }
        let content = &event.content;
        if content.get("msgtype").and_then(Value::as_str) != Some("m.text") {
            return None;
        }
        let relates = content.get("m.relates_to");
        let relation = relates.and_then(|relates| relates.get("rel_type")).and_then(Value::as_str);
        if relation == Some("m.replace") || content.get("m.new_content").is_some() {
            return None;
        }
        let is_reply = relates.and_then(|relates| relates.get("m.in_reply_to")).is_some();
        let body = content.get("body").and_then(Value::as_str)?;
        let body = if is_reply { without_quotation(body) } else { body };
        let line = body.trim_start().lines().next()?;
        let line = cut_bytes(line, limits::COMMAND_BYTES).trim_end();
        if line.is_empty() {
            return None;
        }
        let thread_root = relates
            .filter(|_| relation == Some("m.thread"))
            .and_then(|relates| relates.get("event_id"))
            .and_then(Value::as_str)
            .filter(|id| is_id(id))
            .map(str::to_owned);
        let mentions = content
            .get("m.mentions")
            .and_then(|mentions| mentions.get("user_ids"))
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .take(MOST_MENTIONS)
            .filter_map(Value::as_str)
            .filter(|user| is_id(user))
            .map(str::to_owned)
            .collect();
        let formatted = content.get("formatted_body").and_then(Value::as_str).unwrap_or_default();
        let formatted = without_reply(formatted);
        Some(Self {
            event_id: event.event_id.clone(),
            sender: event.sender.clone(),
            thread_root,
            body: line.to_owned(),
            formatted: cut_bytes(formatted, FORMATTED_BYTES).to_owned(),
            mentions,
            received: event.received,
            age: event.age,
        })
    }
}

/// A reaction (`m.reaction`, `m.annotation`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reaction {
    pub sender: String,
    /// What it was given to.
    pub event: String,
    pub key: String,
}

impl Reaction {
    pub fn read(event: &RoomEvent) -> Option<Self> {
        let relates = event.content.get("m.relates_to")?;
        let text = |field: &str| relates.get(field).and_then(Value::as_str);
        let (to, key) = (text("event_id")?, text("key")?);
        let fits = event.event_type == "m.reaction"
            && text("rel_type") == Some("m.annotation")
            && is_id(&event.sender)
            && is_id(to)
            && key.len() <= limits::ID_BYTES;
        fits.then(|| Self { sender: event.sender.clone(), event: to.to_owned(), key: key.to_owned() })
    }
}

/// What the sender of a command may do, and what we may, by the room's power levels of this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Authority {
    /// The sender is on the allow-list.
    pub allowed: bool,
    /// The sender's power level.
    pub level: i64,
    /// The level that start, stop and auto need.
    pub needed_start: i64,
    pub powers: Powers,
    /// The sender is in the room: neither left nor banned.
    pub joined: bool,
}

/// Our own power against what recording a call needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Powers {
    pub own: i64,
    /// The level for [`super::CALL_MEMBER_EVENT`].
    pub call_member: i64,
    /// The level for messages. Without it nobody could be told.
    pub message: i64,
}

impl Powers {
    pub const fn suffice(self) -> bool {
        self.may_join() && self.may_speak()
    }

    pub const fn may_join(self) -> bool {
        self.own >= self.call_member
    }

    pub const fn may_speak(self) -> bool {
        self.own >= self.message
    }
}

/// The room's call and who is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatheringView {
    pub call_id: String,
    pub kind: CallKind,
    /// User ids, once or once per device; our own is passed over.
    pub members: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RecordingState {
    /// Joined, no media yet.
    #[default]
    Connecting,
    Recording,
    Ending,
}

/// How the running recording fares.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Progress {
    pub state: RecordingState,
    pub duration_s: f64,
    /// Devices of which something was recorded.
    pub participants: usize,
    /// Streams that are being recorded.
    pub streams: usize,
    pub bytes: u64,
    /// For people.
    pub warnings: Vec<String>,
}

/// What a session left.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ended {
    pub saved: Saved,
    pub participants: usize,
    pub reason: EndReason,
}

/// Why no recording can go on here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Closing {
    /// The call was terminated; another may follow.
    CallTerminated,
    /// We were kicked or banned, or left.
    Removed,
    /// `m.room.tombstone`, with the room that follows.
    Upgraded { to: Option<String> },
}

fn is_id(text: &str) -> bool {
    !text.is_empty() && text.len() <= limits::ID_BYTES
}

/// At most `most` bytes, at a character's edge.
fn cut_bytes(text: &str, most: usize) -> &str {
    let mut end = text.len().min(most);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Without the quotation that older clients put before a reply (client-server API, "Fallbacks for rich replies").
/// A quotation longer than [`limits::QUOTE_BYTES`] hides what follows.
fn without_quotation(body: &str) -> &str {
    let mut rest = body;
    while rest.starts_with("> ") || rest.starts_with(">\n") {
        match rest.find('\n') {
            Some(end) if body.len() - rest.len() < limits::QUOTE_BYTES => rest = &rest[end + 1..],
            _ => return "",
        }
    }
    rest
}

/// The same in HTML.
fn without_reply(html: &str) -> &str {
    if !html.starts_with("<mx-reply>") {
        return html;
    }
    let head = cut_bytes(html, limits::QUOTE_BYTES);
    head.find("</mx-reply>").map_or("", |end| &html[end + "</mx-reply>".len()..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn event(event_type: &str, content: Value) -> RoomEvent {
        RoomEvent {
            room: "!r:hs".to_owned(),
            event_id: "$1".to_owned(),
            sender: "@ada:hs".to_owned(),
            event_type: event_type.to_owned(),
            content,
            received: BootTime(5),
            age: Duration::ZERO,
        }
    }

    fn body(content: Value) -> Option<String> {
        Said::read(&event("m.room.message", content)).map(|said| said.body)
    }

    #[test]
    fn notices_edits_and_other_events_are_not_read() {
        assert!(body(json!({ "msgtype": "m.text", "body": "hi" })).is_some());
        assert!(body(json!({ "msgtype": "m.notice", "body": "!start" })).is_none());
        assert!(
            body(json!({ "msgtype": "m.text", "body": "* !start", "m.new_content": { "body": "!start" },
                "m.relates_to": { "rel_type": "m.replace", "event_id": "$0" } }))
            .is_none()
        );
        assert!(Said::read(&event("m.sticker", json!({ "msgtype": "m.text", "body": "!start" }))).is_none());
    }

    #[test]
    fn wrong_types_in_every_field_are_no_message_or_no_relation() {
        for broken in [
            json!(null),
            json!([]),
            json!({ "msgtype": 1, "body": "x" }),
            json!({ "msgtype": "m.text", "body": { "a": 1 } }),
            json!({ "msgtype": "m.text", "body": "" }),
            json!({ "msgtype": "m.text", "body": " \n \u{a0} " }),
        ] {
            assert_eq!(body(broken.clone()), None, "{broken}");
        }
        let said = Said::read(&event(
            "m.room.message",
            json!({ "msgtype": "m.text", "body": "!start", "formatted_body": 7, "m.relates_to": "x",
                "m.mentions": { "user_ids": [1, null, "@b:hs", "x".repeat(300)] } }),
        ))
        .unwrap();
        assert_eq!((said.thread_root, said.mentions), (None, vec!["@b:hs".to_owned()]));
    }

    #[test]
    fn a_replys_quotation_is_stripped_and_a_quotation_alone_is_not_a_command() {
        let reply = |text: &str| {
            body(json!({ "msgtype": "m.text", "body": text,
                "m.relates_to": { "m.in_reply_to": { "event_id": "$0" } } }))
        };
        assert_eq!(
            reply("> <@a:hs> !record stop\n> more\n\n!record start").as_deref(),
            Some("!record start")
        );
        assert_eq!(reply("> <@a:hs> !record stop"), None);
        assert_eq!(reply("!record start").as_deref(), Some("!record start"));
        assert_eq!(reply(&"> x\n".repeat(20_000)), None);
        let html = |formatted: String| {
            let content = json!({ "msgtype": "m.text", "body": "x", "formatted_body": formatted });
            Said::read(&event("m.room.message", content)).unwrap().formatted
        };
        assert_eq!(
            html("<mx-reply><a href=\"https://matrix.to/#/@r:hs\">r</a></mx-reply>no".to_owned()),
            "no"
        );
        assert_eq!(html(format!("<mx-reply>{}", "x".repeat(60_000))), "");
    }

    #[test]
    fn a_message_of_60_kilobytes_is_cut_at_a_characters_edge() {
        let long =
            body(json!({ "msgtype": "m.text", "body": format!("!record {}", "ä".repeat(30_000)) })).unwrap();
        assert!(long.len() <= limits::COMMAND_BYTES && long.starts_with("!record ä"));
    }

    #[test]
    fn the_thread_of_a_command_is_kept() {
        let said = Said::read(&event(
            "m.room.message",
            json!({ "msgtype": "m.text", "body": "!start",
                "m.relates_to": { "rel_type": "m.thread", "event_id": "$root" } }),
        ))
        .unwrap();
        assert_eq!(said.thread_root.as_deref(), Some("$root"));
    }

    #[test]
    fn a_reaction_needs_the_relation_of_one() {
        let reaction = |content: Value| Reaction::read(&event("m.reaction", content));
        let good = json!({ "m.relates_to": { "rel_type": "m.annotation", "event_id": "$m", "key": "🚫" } });
        assert_eq!(reaction(good).unwrap().key, "🚫");
        for broken in [
            json!({}),
            json!({ "m.relates_to": { "rel_type": "m.thread", "event_id": "$m", "key": "🚫" } }),
            json!({ "m.relates_to": { "rel_type": "m.annotation", "event_id": 3, "key": "🚫" } }),
            json!({ "m.relates_to": { "rel_type": "m.annotation", "event_id": "$m", "key": "x".repeat(9_000) } }),
        ] {
            assert_eq!(reaction(broken.clone()), None, "{broken}");
        }
    }
}
