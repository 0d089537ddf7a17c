//! A room's power levels as its state says, with the specification's defaults for what is missing or of another type.

use std::collections::BTreeMap;

use recorder_actors::ports::RoomPowers;
use serde_json::Value;

const CALL_MEMBER: &str = "org.matrix.msc3401.call.member";

/// Who created the room, and what that means.
pub(super) struct Creation<'a> {
    pub(super) creators: &'a [String],
    /// From room version 12 on creators stand above all levels (MSC4289).
    pub(super) privileged: bool,
}

/// `content` is that of `m.room.power_levels`; `None` for a room without.
pub(super) fn powers(
    content: Option<&Value>,
    creation: &Creation<'_>,
    own: &str,
    encrypted: bool,
) -> RoomPowers {
    let level = |key: &str| content.and_then(|content| content.get(key)).and_then(integer);
    let needed = |event_type: &str| {
        content.and_then(|content| content.get("events")?.get(event_type)).and_then(integer)
    };
    let listed = content.and_then(|content| content.get("users")).and_then(Value::as_object);
    let mut users: BTreeMap<String, i64> = listed
        .into_iter()
        .flatten()
        .filter_map(|(user, level)| Some((user.clone(), integer(level)?)))
        .collect();
    let creators_level = match (creation.privileged, content) {
        (true, _) => Some(i64::MAX),
        // Without the event the creator has 100 and all others none.
        (false, None) => Some(100),
        (false, Some(_)) => None,
    };
    if let Some(level) = creators_level {
        users.extend(creation.creators.iter().map(|creator| (creator.clone(), level)));
    }
    let mut powers = RoomPowers {
        users,
        default: level("users_default").unwrap_or(0),
        own: 0,
        call_member: needed(CALL_MEMBER).or_else(|| level("state_default")).unwrap_or(50),
        message: needed(if encrypted { "m.room.encrypted" } else { "m.room.message" })
            .or_else(|| level("events_default"))
            .unwrap_or(0),
    };
    powers.own = powers.of(own);
    powers
}

/// Rooms before version 10 may have levels as text.
fn integer(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => number.as_i64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const OLD: Creation<'static> = Creation { creators: &[], privileged: false };

    #[test]
    fn levels_are_as_the_event_says() {
        let content = json!({
            "users": { "@me:x": 50, "@admin:x": 100 }, "users_default": 10,
            "events": { CALL_MEMBER: 0, "m.room.encrypted": 7, "m.room.message": 8 },
            "state_default": 60, "events_default": 5,
        });
        let powers = powers(Some(&content), &OLD, "@me:x", false);
        assert_eq!((powers.own, powers.default, powers.call_member, powers.message), (50, 10, 0, 8));
        assert_eq!((powers.of("@admin:x"), powers.of("@other:x")), (100, 10));
        assert_eq!(super::powers(Some(&content), &OLD, "@me:x", true).message, 7);
    }

    #[test]
    fn what_is_missing_or_of_another_type_has_the_specifications_default() {
        let ill_typed = json!({
            "users": [1], "users_default": {}, "events": { CALL_MEMBER: "high" }, "state_default": null,
            "events_default": 1.5,
        });
        for content in [json!({}), json!(null), json!([]), ill_typed] {
            let powers = powers(Some(&content), &OLD, "@me:x", false);
            let expected = RoomPowers { call_member: 50, ..RoomPowers::default() };
            assert_eq!(powers, expected, "{content}");
        }
        let as_text = json!({ "users": { "@me:x": " 50 ", "@b:x": "?" }, "events": { CALL_MEMBER: 10 } });
        let powers = powers(Some(&as_text), &OLD, "@me:x", false);
        assert_eq!((powers.own, powers.of("@b:x"), powers.call_member), (50, 0, 10));
    }

    #[test]
    fn creators_have_a_hundred_without_the_event_and_stand_above_all_in_newer_rooms() {
        let creators = ["@a:x".to_owned(), "@b:x".to_owned()];
        let old = Creation { creators: &creators, privileged: false };
        assert_eq!(powers(None, &old, "@a:x", false).own, 100);
        assert_eq!(powers(Some(&json!({})), &old, "@a:x", false).own, 0);
        let new = Creation { creators: &creators, privileged: true };
        let powers = powers(Some(&json!({ "users": { "@c:x": 100 } })), &new, "@b:x", false);
        assert_eq!((powers.own, powers.of("@a:x"), powers.of("@c:x")), (i64::MAX, i64::MAX, 100));
    }
}
