use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::mesh::content::with_device;
use crate::mesh::without_device;

const HOUR: i64 = 3_600_000;
/// 2026-11-23.
const NOW: i64 = 1_795_400_000_000;

fn call() -> Value {
    json!({"m.intent": "m.room", "m.type": "m.video", "io.element.ptt": false})
}

fn device(device: &str, session: &str, expires: i64) -> Value {
    json!({"device_id": device, "session_id": session, "expires_ts": expires,
        "feeds": [{"purpose": "m.usermedia"}]})
}

fn content(conf_id: &str, devices: &[Value]) -> Value {
    json!({"m.calls": [{"m.call_id": conf_id, "m.devices": devices}]})
}

fn roster() -> Roster {
    let mut roster = Roster::new("@bot:hs");
    roster.state_event(CALL_EVENT, "conf", "@ada:hs", &call(), NOW - HOUR);
    roster
}

fn enter(roster: &mut Roster, user: &str, entry: Value) {
    roster.state_event(MEMBER_EVENT, user, user, &content("conf", &[entry]), NOW);
}

fn there(roster: &Roster, utc_ms: i64) -> Vec<String> {
    let members = roster.gathering(utc_ms).map_or(Vec::new(), |gathering| gathering.members);
    members.into_iter().map(|member| format!("{}/{}", member.user, member.device)).collect()
}

#[test]
fn a_member_is_read_whole() {
    let mut roster = roster();
    let mut entry = device("PHONE", "s1", NOW + HOUR);
    entry["feeds"] = json!([{"purpose": "m.usermedia"}, {"purpose": "m.screenshare"}]);
    enter(&mut roster, "@bob:hs", entry);
    let gathering = roster.gathering(NOW).unwrap();
    assert_eq!((gathering.conf_id.as_str(), gathering.created_by.as_str()), ("conf", "@ada:hs"));
    assert_eq!((gathering.created_ts_ms, gathering.livekit, gathering.terminated), (NOW - HOUR, false, None));
    let bob = Member {
        user: "@bob:hs".into(),
        device: "PHONE".into(),
        session_id: "s1".into(),
        screen: true,
        expires_ts_ms: NOW + HOUR,
    };
    assert_eq!(gathering.members, [bob]);
}

#[test]
fn a_field_of_the_wrong_type_makes_no_member_and_spoils_none() {
    let good = device("GOOD", "s", NOW + HOUR);
    for (field, value) in [
        ("device_id", json!(7)),
        ("device_id", json!("")),
        ("device_id", json!("x".repeat(256))),
        ("device_id", Value::Null),
        ("session_id", json!(["s"])),
        ("session_id", json!("")),
        ("expires_ts", json!("soon")),
        ("expires_ts", Value::Null),
        ("feeds", json!({})),
        ("feeds", Value::Null),
    ] {
        let mut bad = device("BAD", "s", NOW + HOUR);
        bad[field] = value.clone();
        let mut roster = roster();
        let both = content("conf", &[bad, good.clone()]);
        roster.state_event(MEMBER_EVENT, "@bob:hs", "@bob:hs", &both, NOW);
        assert_eq!(there(&roster, NOW), ["@bob:hs/GOOD"], "{field}: {value}");
    }
}

#[test]
fn contents_of_the_wrong_shape_take_the_user_out() {
    for content in [
        json!({}),
        json!(null),
        json!([]),
        json!({"m.calls": {}}),
        json!({"m.calls": [7, null, {"m.call_id": 3, "m.devices": []}]}),
        json!({"m.calls": [{"m.call_id": "conf", "m.devices": "all"}]}),
        json!({"application": "m.call", "call_id": "", "device_id": "D", "expires": 14_400_000}),
    ] {
        let mut roster = roster();
        enter(&mut roster, "@bob:hs", device("D", "s", NOW + HOUR));
        roster.state_event(MEMBER_EVENT, "@bob:hs", "@bob:hs", &content, NOW);
        assert!(there(&roster, NOW).is_empty(), "{content}");
    }
}

#[test]
fn an_empty_list_of_feeds_is_a_member_without_media() {
    let mut roster = roster();
    let mut entry = device("D", "s", NOW + HOUR);
    entry["feeds"] = json!([]);
    enter(&mut roster, "@bob:hs", entry);
    assert_eq!(there(&roster, NOW), ["@bob:hs/D"]);
}

#[test]
fn a_membership_that_ran_out_counts_no_more() {
    let mut roster = roster();
    enter(&mut roster, "@bob:hs", device("D", "s", NOW + HOUR));
    enter(&mut roster, "@cyd:hs", device("D", "s", NOW - 1));
    assert_eq!(there(&roster, NOW), ["@bob:hs/D"]);
    assert_eq!(roster.next_expiry(NOW), Some(NOW + HOUR));
    assert!(there(&roster, NOW + HOUR).is_empty());
    assert_eq!(roster.next_expiry(NOW + HOUR), None);
}

#[test]
fn a_membership_until_the_year_9999_holds_for_a_day() {
    for expires in [json!(253_402_300_799_000_i64), json!(1e300), json!(u64::MAX)] {
        let mut roster = roster();
        let mut entry = device("D", "s", 0);
        entry["expires_ts"] = expires;
        enter(&mut roster, "@bob:hs", entry);
        assert_eq!(roster.next_expiry(NOW), Some(NOW + 24 * HOUR));
    }
}

#[test]
fn an_event_of_the_far_future_makes_no_member_before_that_time() {
    let mut roster = roster();
    let far = content("conf", &[device("D", "s", 253_402_300_799_000)]);
    roster.state_event(MEMBER_EVENT, "@bob:hs", "@bob:hs", &far, 253_402_200_000_000);
    assert!(there(&roster, NOW).is_empty());
}

#[test]
fn who_is_not_in_the_room_is_not_in_the_call() {
    for membership in ["leave", "ban", "invite", "knock"] {
        let mut roster = roster();
        enter(&mut roster, "@bob:hs", device("D", "s", NOW + HOUR));
        let left = json!({"membership": membership});
        roster.state_event("m.room.member", "@bob:hs", "@bob:hs", &left, NOW);
        assert!(there(&roster, NOW).is_empty(), "{membership}");
        roster.joined("@bob:hs", true);
        assert_eq!(there(&roster, NOW).len(), 1);
    }
    // In the state at first sight the order is any.
    let mut roster = roster();
    roster.joined("@bob:hs", false);
    enter(&mut roster, "@bob:hs", device("D", "s", NOW + HOUR));
    assert!(there(&roster, NOW).is_empty());
}

#[test]
fn nobody_speaks_for_another() {
    let mut roster = roster();
    let entry = content("conf", &[device("D", "s", NOW + HOUR)]);
    roster.state_event(MEMBER_EVENT, "@bob:hs", "@eve:hs", &entry, NOW);
    roster.state_event(MEMBER_EVENT, "_@bob:hs_D_m.call", "@bob:hs", &entry, NOW);
    assert!(there(&roster, NOW).is_empty());
    assert_eq!(roster.refused(), 2);
}

#[test]
fn devices_of_one_user_are_members_of_their_own_and_the_last_word_on_one_counts() {
    let mut roster = roster();
    let list = [device("A", "old", NOW + HOUR), device("B", "s", NOW + HOUR), device("A", "new", NOW + HOUR)];
    roster.state_event(MEMBER_EVENT, "@bob:hs", "@bob:hs", &content("conf", &list), NOW);
    let members = roster.gathering(NOW).unwrap().members;
    let read: Vec<_> = members.iter().map(|m| (m.device.as_str(), m.session_id.as_str())).collect();
    assert_eq!(read, [("A", "new"), ("B", "s")]);
}

#[test]
fn what_killed_clients_left_behind_hides_no_device_that_lives() {
    let mut roster = roster();
    let ghosts = |prefix: &str, expires: i64| -> Vec<Value> {
        (0..10).map(|n| device(&format!("{prefix}{n}"), "s", expires)).collect()
    };
    let list = [&ghosts("long ago", NOW - 1)[..], &ghosts("lately", NOW + HOUR / 2)].concat();
    let older = json!({"m.call_id": "older", "m.devices": list.clone()});
    let devices = [&list[..], &[device("HERE", "s", NOW + HOUR)]].concat();
    let entry = json!({"m.calls": [older, {"m.call_id": "conf", "m.devices": devices}]});
    roster.state_event(MEMBER_EVENT, "@bob:hs", "@bob:hs", &entry, NOW);
    assert!(there(&roster, NOW).contains(&"@bob:hs/HERE".to_owned()));
    assert_eq!(there(&roster, NOW + HOUR / 2), ["@bob:hs/HERE"]);
}

#[test]
fn the_newest_call_that_is_not_over_is_the_call() {
    let mut roster = roster();
    roster.state_event(CALL_EVENT, "older", "@ada:hs", &call(), NOW - 2 * HOUR);
    assert_eq!(roster.gathering(NOW).unwrap().conf_id, "conf");
    roster.state_event(CALL_EVENT, "newer", "@bob:hs", &call(), NOW);
    assert_eq!(roster.gathering(NOW).unwrap().conf_id, "newer");
    // Who takes part in an older one stays there.
    assert_eq!(roster.gathering_of("conf", NOW).unwrap().terminated, None);
    let mut over = call();
    over["m.terminated"] = json!("call_ended");
    roster.state_event(CALL_EVENT, "newer", "@eve:hs", &over, NOW + 5);
    assert_eq!(roster.gathering(NOW).unwrap().conf_id, "conf");
    let ended = Terminated { why: "call_ended".into(), by: "@eve:hs".into(), at_ms: NOW + 5 };
    let newer = roster.gathering_of("newer", NOW).unwrap();
    assert_eq!((newer.terminated, newer.created_by.as_str()), (Some(ended), "@bob:hs"));
}

#[test]
fn who_is_in_a_call_whose_event_was_deleted_stays_there_and_nobody_else_finds_it() {
    // While it was known, or before anything was: its event is all that is left of it.
    for mut roster in [roster(), Roster::new("@bot:hs")] {
        enter(&mut roster, "@bob:hs", device("D", "s", NOW + HOUR));
        roster.state_event(CALL_EVENT, "conf", "@ada:hs", &json!({}), NOW - HOUR);
        assert_eq!(roster.gathering(NOW), None);
        let known = roster.gathering_of("conf", NOW).unwrap();
        assert_eq!((known.terminated, known.members.len()), (None, 1));
        roster.state_event(CALL_EVENT, "conf", "@ada:hs", &call(), NOW);
        assert_eq!(roster.gathering(NOW).unwrap().members.len(), 1, "it was made a call again");
        let mut over = call();
        over["m.terminated"] = json!("call_ended");
        roster.state_event(CALL_EVENT, "conf", "@ada:hs", &over, NOW);
        roster.state_event(CALL_EVENT, "conf", "@ada:hs", &json!({}), NOW);
        assert!(roster.gathering_of("conf", NOW).unwrap().terminated.is_some());
    }
}

#[test]
fn an_event_without_known_type_and_intent_is_no_call() {
    for (field, value) in [("m.type", json!("m.smell")), ("m.type", json!(1)), ("m.intent", Value::Null)] {
        let mut roster = Roster::new("@bot:hs");
        let mut bad = call();
        bad[field] = value;
        roster.state_event(CALL_EVENT, "conf", "@ada:hs", &bad, NOW);
        assert_eq!(roster.gathering(NOW), None);
    }
}

#[test]
fn a_call_that_was_over_can_begin_anew() {
    let mut roster = roster();
    roster.state_event(CALL_EVENT, "conf", "@ada:hs", &json!({"m.terminated": true}), NOW);
    assert_eq!(roster.gathering(NOW), None);
    roster.state_event(CALL_EVENT, "conf", "@bob:hs", &call(), NOW + 1);
    let gathering = roster.gathering(NOW).unwrap();
    assert_eq!((gathering.created_by.as_str(), gathering.created_ts_ms), ("@bob:hs", NOW + 1));
}

#[test]
fn a_call_over_livekit_is_told_apart() {
    let mut roster = roster();
    let mut content = call();
    content["io.element.livekit_service_url"] = json!("https://jwt.example.org");
    roster.state_event(CALL_EVENT, "conf", "@ada:hs", &content, NOW);
    assert!(roster.gathering(NOW).unwrap().livekit);
}

#[test]
fn of_a_thousand_members_the_first_256_are_listed_and_the_others_counted() {
    let mut roster = roster();
    for n in 0..1_000_i64 {
        let user = format!("@u{:04}:hs", 999 - n);
        let entry = content("conf", &[device("D", "s", NOW + HOUR)]);
        roster.state_event(MEMBER_EVENT, &user, &user, &entry, NOW - 1_000 + n);
    }
    let gathering = roster.gathering(NOW).unwrap();
    assert_eq!((gathering.members.len(), gathering.beyond), (MOST_DEVICES, 1_000 - MOST_DEVICES));
    assert_eq!(gathering.members.last().unwrap().user, "@u0999:hs");
    assert!(gathering.members.windows(2).all(|pair| pair[0].user < pair[1].user));
}

#[test]
fn ten_thousand_users_and_calls_are_bounded_and_stale_ones_go_first() {
    let mut roster = roster();
    enter(&mut roster, "@bob:hs", device("D", "s", NOW + HOUR));
    for n in 0..10_000 {
        let user = format!("@u{n}:hs");
        let list: Vec<_> = (0..20).map(|d| device(&format!("D{d}"), "s", NOW - HOUR)).collect();
        roster.state_event(MEMBER_EVENT, &user, &user, &content("conf", &list), NOW - 2 * HOUR);
        roster.state_event(CALL_EVENT, &format!("c{n}"), &user, &call(), NOW - 10 * HOUR);
        roster.joined(&format!("@gone{n}:hs"), false);
        roster.joined(&format!("@gone{n}:other"), false);
    }
    assert!(roster.entries <= MOST_ENTRIES);
    assert_eq!(roster.entries, roster.members.values().map(Vec::len).sum::<usize>());
    assert_eq!((roster.calls.len(), roster.absent.len()), (MOST_CALLS, MOST_ABSENT));
    assert_eq!(there(&roster, NOW), ["@bob:hs/D"]);
}

#[test]
fn our_own_event_is_kept_whole_and_makes_no_member() {
    let mut roster = roster();
    let ours = json!({"m.calls": [], "of_another_client": 7});
    roster.state_event(MEMBER_EVENT, "@bot:hs", "@bot:hs", &ours, NOW);
    assert_eq!(roster.own_content(), Some(&ours));
    enter(&mut roster, "@bot:hs", device("D", "s", NOW + HOUR));
    assert!(there(&roster, NOW).is_empty());
}

#[test]
fn our_entry_takes_the_place_of_our_stale_ones_and_of_nobody_elses() {
    let before = json!({"m.calls": [
        {"m.call_id": "conf", "m.foci": ["f"], "m.devices": [
            device("OTHER", "x", NOW + HOUR), device("BOT", "stale", NOW + HOUR), device("DEAD", "y", NOW - 1)]},
        {"m.call_id": "earlier", "m.devices": [device("BOT", "stale", NOW + HOUR)]},
        {"m.call_id": "elsewhere", "m.devices": [device("OTHER", "x", NOW + HOUR)]},
    ]});
    let written = with_device(Some(&before), "conf", "BOT", "now", NOW + HOUR, NOW);
    let expected = json!({"m.calls": [
        {"m.call_id": "conf", "m.foci": ["f"], "m.devices": [
            device("OTHER", "x", NOW + HOUR), device("BOT", "now", NOW + HOUR)]},
        {"m.call_id": "elsewhere", "m.devices": [device("OTHER", "x", NOW + HOUR)]},
    ]});
    assert_eq!(written, expected);
    let left = without_device(Some(&written), "BOT", NOW).unwrap();
    assert_eq!(left["m.calls"][0]["m.devices"], json!([device("OTHER", "x", NOW + HOUR)]));
    assert_eq!(without_device(Some(&left), "BOT", NOW), None);
    assert_eq!(without_device(None, "BOT", NOW), None);
    assert_eq!(with_device(None, "conf", "BOT", "now", 5, NOW), content("conf", &[device("BOT", "now", 5)]));
}

/// JSON that often has the names that are looked for.
pub(crate) fn any_json(keys: &'static [&'static str]) -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        prop::sample::select(vec!["conf", "m.video", "m.room", "@bot:hs", "D", "1", "offer", "mine"])
            .prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 6, move |inner| {
        let key = prop::sample::select(keys);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(key.prop_map(str::to_owned), inner, 0..8)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

const KEYS: &[&str] = &[
    "m.calls",
    "m.call_id",
    "m.devices",
    "device_id",
    "session_id",
    "expires_ts",
    "feeds",
    "purpose",
    "m.terminated",
    "m.type",
    "m.intent",
    "membership",
    "io.element.livekit_service_url",
];

proptest! {
    #[test]
    fn no_state_makes_the_roster_panic(
        events in prop::collection::vec(
            (prop::sample::select(vec![CALL_EVENT, MEMBER_EVENT, "m.room.member", "m.room.name"]),
             prop::sample::select(vec!["@bot:hs", "@ada:hs", "conf", ""]),
             any_json(KEYS), any::<i64>()),
            0..12,
        ),
        utc_ms: i64,
    ) {
        let mut roster = roster();
        for (event_type, key, content, at) in events {
            roster.state_event(event_type, key, key, &content, at);
            roster.state_event(MEMBER_EVENT, "@ada:hs", "@ada:hs", &json!({"m.calls": [content]}), at);
        }
        let _ = (roster.gathering(utc_ms), roster.gathering_of("conf", utc_ms), roster.next_expiry(utc_ms));
        let written = with_device(roster.own_content(), "conf", "BOT", "s", utc_ms, utc_ms);
        prop_assert!(without_device(Some(&written), "BOT", utc_ms).is_some());
    }
}
