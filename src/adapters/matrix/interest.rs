//! Which messages of a room reach the tree: those that may be commands. Chat stays here, however much there is of it.

use std::sync::{Arc, OnceLock};

use serde_json::Value;

/// How much of a message is searched for our name: a command to us begins with it.
const SEARCHED: usize = 512;

/// By what we are spoken to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Us {
    pub(super) user_id: String,
    /// By configuration; empty for nothing.
    pub(super) called: String,
    /// The account's display name, once it is known; empty for none.
    pub(super) name: Arc<OnceLock<String>>,
}

/// Whether the content of an `m.room.message` may concern us: its text begins with `!`, or it mentions us
/// (`m.mentions`, our user id, our name). Notices never do (specification, "m.notice"), nor do edits: what was said
/// once is not said again.
pub(super) fn interesting(content: &Value, us: &Us) -> bool {
    let text_of = |key: &str| content.get(key).and_then(Value::as_str);
    let relation = content.get("m.relates_to");
    let is_edit = relation.and_then(|to| to.get("rel_type")).is_some_and(|kind| kind == "m.replace");
    if text_of("msgtype") == Some("m.notice") || is_edit {
        return false;
    }
    let mentioned = content.get("m.mentions").and_then(|mentions| mentions.get("user_ids"));
    if mentioned.and_then(Value::as_array).is_some_and(|users| users.iter().any(|user| *user == us.user_id)) {
        return true;
    }
    let Some(body) = text_of("body") else { return false };
    let is_reply = relation.is_some_and(|to| to.get("m.in_reply_to").is_some());
    let body = if is_reply { without_quote(body) } else { body }.trim_start();
    if body.starts_with('!') {
        return true;
    }
    let head: String = body.chars().take(SEARCHED).flat_map(char::to_lowercase).collect();
    let named = |name: &str| !name.trim().is_empty() && head.contains(&name.to_lowercase());
    named(&us.user_id) || named(&us.called) || us.name.get().is_some_and(|name| named(name))
}

/// Older clients put what they reply to before their text, in lines that begin with `>` (specification until 1.12,
/// "Fallbacks for rich replies").
fn without_quote(body: &str) -> &str {
    let mut rest = body;
    while rest.starts_with('>') {
        rest = rest.split_once('\n').map_or("", |(_, rest)| rest);
    }
    rest
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn us_as(name: &str) -> Us {
        let us = Us { user_id: "@recorder:x".to_owned(), ..Us::default() };
        us.name.set(name.to_owned()).unwrap();
        us
    }

    #[test]
    fn commands_and_mentions_are_of_interest_and_chat_is_not() {
        let reply = json!({ "m.in_reply_to": { "event_id": "$1" } });
        let edit = json!({ "rel_type": "m.replace", "event_id": "$1" });
        for (content, expected) in [
            (json!({ "msgtype": "m.text", "body": "!record start" }), true),
            (json!({ "msgtype": "m.text", "body": "  !STOP" }), true),
            (json!({ "msgtype": "m.text", "body": format!("!{}", "x".repeat(60_000)) }), true),
            (json!({ "msgtype": "m.emote", "body": "!start" }), true),
            (json!({ "body": "!start" }), true),
            (json!({ "msgtype": "m.notice", "body": "!start" }), false),
            (json!({ "msgtype": "m.text", "body": "nothing!" }), false),
            (json!({ "msgtype": "m.text", "body": "the recorder: stop" }), true),
            (json!({ "msgtype": "m.text", "body": "@RECORDER:x stop" }), true),
            (json!({ "msgtype": "m.text", "body": format!("{} the recorder", "x".repeat(1000)) }), false),
            (
                json!({ "msgtype": "m.text", "body": "hi", "m.mentions": { "user_ids": ["@recorder:x"] } }),
                true,
            ),
            (json!({ "msgtype": "m.text", "body": "hi", "m.mentions": { "user_ids": ["@a:x"] } }), false),
            (json!({ "msgtype": "m.text", "body": "hi", "m.mentions": { "room": true } }), false),
            (json!({ "body": "> <@a:x> hi\n> there\n\n!stop", "m.relates_to": reply }), true),
            (json!({ "body": "> !start\n\nno", "m.relates_to": reply }), false),
            (json!({ "body": "> all quote", "m.relates_to": reply }), false),
            (json!({ "body": "> !start" }), false),
            (json!({ "body": "!start", "m.relates_to": edit }), false),
            (json!({ "body": 5, "m.mentions": [] }), false),
            (json!({ "body": "hi", "m.mentions": { "user_ids": "@recorder:x" }, "m.relates_to": 5 }), false),
            (json!({}), false),
            (json!(null), false),
            (json!([1]), false),
        ] {
            assert_eq!(interesting(&content, &us_as("The Recorder")), expected, "{content}");
        }
    }

    #[test]
    fn what_the_configuration_calls_us_is_of_interest_too() {
        let us = Us { called: "Scribe".to_owned(), ..us_as("The Recorder") };
        assert!(interesting(&json!({ "msgtype": "m.text", "body": "scribe: start" }), &us));
        assert!(interesting(&json!({ "msgtype": "m.text", "body": "the recorder: start" }), &us));
    }

    #[test]
    fn an_account_without_a_name_is_not_meant_by_everything() {
        let chat = json!({ "msgtype": "m.text", "body": "good morning all" });
        assert!(!interesting(&chat, &us_as(" ")));
        assert!(!interesting(&chat, &Us::default()));
    }
}
