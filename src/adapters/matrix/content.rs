//! Contents of what we say: messages, their relations to others, reactions.

use recorder_actors::ports::Relation;
use recorder_core::call::Announcement;
use serde_json::{Value, json};

/// Content of an `m.room.message` (specification, "m.room.message msgtypes", "User and room mentions", "Threading",
/// "Event replacements").
pub(super) fn message(message: &Announcement, relation: &Relation) -> Value {
    let mut content = json!({
        "msgtype": if message.notice { "m.notice" } else { "m.text" },
        "body": message.plain,
        // An empty object says that nobody is, which keeps clients from searching the text for names.
        "m.mentions": if message.mentions.is_empty() { json!({}) } else { json!({ "user_ids": message.mentions }) },
    });
    if !message.html.is_empty() {
        content["format"] = "org.matrix.custom.html".into();
        content["formatted_body"] = message.html.as_str().into();
    }
    match relation {
        Relation::None => content,
        Relation::Thread { root, reply_to } => {
            content["m.relates_to"] = json!({
                "rel_type": "m.thread",
                "event_id": root,
                // A reply to the thread's root is one only for clients that do not know threads.
                "is_falling_back": root == reply_to,
                "m.in_reply_to": { "event_id": reply_to },
            });
            content
        }
        Relation::Edit { event } => edit(content, event),
    }
}

/// The whole of an edit is for clients that do not know edits; who was mentioned is not told again.
fn edit(new: Value, event: &str) -> Value {
    let mut content = new.clone();
    for key in ["body", "formatted_body"] {
        if let Some(text) = new.get(key).and_then(Value::as_str) {
            content[key] = format!("* {text}").into();
        }
    }
    content["m.mentions"] = json!({});
    content["m.relates_to"] = json!({ "rel_type": "m.replace", "event_id": event });
    content["m.new_content"] = new;
    content
}

/// Content of an `m.reaction` (specification, "Event annotations and reactions").
pub(super) fn reaction(event: &str, key: &str) -> Value {
    json!({ "m.relates_to": { "rel_type": "m.annotation", "event_id": event, "key": key } })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hi(html: &str, mentions: &[&str]) -> Announcement {
        Announcement {
            plain: "hi".to_owned(),
            html: html.to_owned(),
            mentions: mentions.iter().map(|&user| user.to_owned()).collect(),
            notice: true,
        }
    }

    #[test]
    fn a_message_names_whom_it_mentions_and_has_html_where_there_is_some() {
        assert_eq!(
            message(&hi("<b>hi</b>", &["@a:x"]), &Relation::None),
            json!({
                "msgtype": "m.notice",
                "body": "hi",
                "format": "org.matrix.custom.html",
                "formatted_body": "<b>hi</b>",
                "m.mentions": { "user_ids": ["@a:x"] },
            })
        );
        assert_eq!(
            message(&hi("", &[]), &Relation::None),
            json!({ "msgtype": "m.notice", "body": "hi", "m.mentions": {} })
        );
    }

    #[test]
    fn an_answer_in_a_thread_is_a_reply_for_clients_without_threads() {
        for (reply_to, falls_back) in [("$root", true), ("$later", false)] {
            let relation = Relation::Thread { root: "$root".to_owned(), reply_to: reply_to.to_owned() };
            assert_eq!(
                message(&hi("", &[]), &relation)["m.relates_to"],
                json!({
                    "rel_type": "m.thread",
                    "event_id": "$root",
                    "is_falling_back": falls_back,
                    "m.in_reply_to": { "event_id": reply_to },
                })
            );
        }
    }

    #[test]
    fn an_edit_carries_the_whole_message_anew_and_notifies_nobody() {
        let content = message(&hi("<b>hi</b>", &["@a:x"]), &Relation::Edit { event: "$old".to_owned() });
        assert_eq!(content["body"], "* hi");
        assert_eq!(content["formatted_body"], "* <b>hi</b>");
        assert_eq!(content["m.mentions"], json!({}));
        assert_eq!(content["m.relates_to"], json!({ "rel_type": "m.replace", "event_id": "$old" }));
        assert_eq!(content["m.new_content"], message(&hi("<b>hi</b>", &["@a:x"]), &Relation::None));
    }
}
