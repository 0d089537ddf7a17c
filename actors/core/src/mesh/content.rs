//! Contents of the two state events: read with every field in doubt, and written with all that others put there.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// No membership holds longer after its event was sent, whatever it says.
const LONGEST_MEMBERSHIP_MS: i64 = 24 * 60 * 60 * 1_000;
/// Devices taken from one user's event, over all its calls; of more those that expire last.
const MOST_DEVICES_OF_A_USER: usize = 8;
/// Identifiers longer than this are nobody's.
const LONGEST_ID: usize = 255;

/// One device of one call, as a member event lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) conf_id: String,
    pub(super) device: String,
    pub(super) session_id: String,
    pub(super) screen: bool,
    pub(super) expires_ts_ms: i64,
    /// `origin_server_ts` of the event.
    pub(super) origin_ts_ms: i64,
}

/// Devices of a member event that clients would count. A device that stands twice in a call counts as it stands last; a
/// call that stands twice counts as it stands first (as matrix-js-sdk reads them). What had expired when the event was
/// sent is left out: killed clients leave entries behind, and the one that lives is the last to expire.
pub(super) fn entries(content: &Value, origin_ts_ms: i64) -> Vec<Entry> {
    let mut read: BTreeMap<(&str, String), Entry> = BTreeMap::new();
    let mut seen: Vec<&str> = Vec::new();
    for call in list(content, "m.calls").iter().take(64) {
        let Some(conf_id) = id(call, "m.call_id").filter(|conf_id| !seen.contains(conf_id)) else { continue };
        seen.push(conf_id);
        for device in list(call, "m.devices") {
            if let Some(entry) = entry(conf_id, device, origin_ts_ms) {
                read.insert((conf_id, entry.device.clone()), entry);
            }
        }
    }
    let mut read: Vec<Entry> =
        read.into_values().filter(|entry| entry.expires_ts_ms > origin_ts_ms).collect();
    read.sort_by_key(|entry| std::cmp::Reverse(entry.expires_ts_ms));
    read.truncate(MOST_DEVICES_OF_A_USER);
    read
}

fn entry(conf_id: &str, device: &Value, origin_ts_ms: i64) -> Option<Entry> {
    let feeds = device.get("feeds")?.as_array()?;
    let screen =
        feeds.iter().any(|feed| feed.get("purpose").and_then(Value::as_str) == Some("m.screenshare"));
    let expires = milliseconds(device.get("expires_ts")?)?;
    Some(Entry {
        conf_id: conf_id.to_owned(),
        device: id(device, "device_id")?.to_owned(),
        session_id: id(device, "session_id")?.to_owned(),
        screen,
        expires_ts_ms: expires.min(origin_ts_ms.saturating_add(LONGEST_MEMBERSHIP_MS)),
        origin_ts_ms,
    })
}

/// Numbers beyond 64 bits, as JavaScript has them, saturate.
fn milliseconds(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_f64().filter(|number| !number.is_nan()).map(|number| number as i64))
}

fn list<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value.get(field).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn id<'a>(value: &'a Value, field: &str) -> Option<&'a str> {
    value.get(field)?.as_str().filter(|text| !text.is_empty() && text.len() <= LONGEST_ID)
}

/// Why a call is over: any `m.terminated` that JavaScript would take for true.
pub(super) fn terminated(content: &Value) -> Option<String> {
    match content.get("m.terminated")? {
        Value::Null | Value::Bool(false) => None,
        Value::Number(number) if number.as_f64() == Some(0.0) => None,
        Value::String(text) if text.is_empty() => None,
        Value::String(text) => Some(text.chars().take(LONGEST_ID).collect()),
        _ => Some("call_ended".to_owned()),
    }
}

/// Whether clients take it for a call: known type and intent.
pub(super) fn is_call(content: &Value) -> bool {
    let text = |field| content.get(field).and_then(Value::as_str);
    matches!(text("m.type"), Some("m.video" | "m.voice"))
        && matches!(text("m.intent"), Some("m.ring" | "m.prompt" | "m.room"))
}

pub(super) fn is_livekit(content: &Value) -> bool {
    content
        .get("io.element.livekit_service_url")
        .is_some_and(|url| url.as_str().is_some_and(|url| !url.is_empty()))
}

/// Whether our device stands in `conf_id` with this session.
pub(super) fn holds(content: Option<&Value>, conf_id: &str, device: &str, session_id: &str) -> bool {
    content.is_some_and(|content| {
        list(content, "m.calls").iter().filter(|call| id(call, "m.call_id") == Some(conf_id)).any(|call| {
            list(call, "m.devices").iter().any(|entry| {
                id(entry, "device_id") == Some(device) && id(entry, "session_id") == Some(session_id)
            })
        })
    })
}

/// `content` without any entry of `device`, and without what has expired; everything else of our user's other devices
/// stays as it is. `None` if `device` is not in it: nothing needs to be sent.
///
/// At start-up this takes out what an earlier process left behind.
pub fn without_device(content: Option<&Value>, device: &str, utc_ms: i64) -> Option<Value> {
    let is_there = content.is_some_and(|content| {
        list(content, "m.calls")
            .iter()
            .flat_map(|call| list(call, "m.devices"))
            .any(|entry| entry.get("device_id").and_then(Value::as_str) == Some(device))
    });
    is_there.then(|| rest(content, device, utc_ms))
}

/// `content` with our device in `conf_id` and in no other call.
pub(super) fn with_device(
    content: Option<&Value>,
    conf_id: &str,
    device: &str,
    session_id: &str,
    expires_ts_ms: i64,
    utc_ms: i64,
) -> Value {
    let mut written = rest(content, device, utc_ms);
    let ours = json!({
        "device_id": device,
        "session_id": session_id,
        "expires_ts": expires_ts_ms,
        "feeds": [{"purpose": "m.usermedia"}],
    });
    if let Some(calls) = written.get_mut("m.calls").and_then(Value::as_array_mut) {
        let call = calls.iter_mut().find(|call| id(call, "m.call_id") == Some(conf_id));
        match call.and_then(|call| call.get_mut("m.devices")).and_then(Value::as_array_mut) {
            Some(devices) => devices.push(ours),
            None => calls.push(json!({"m.call_id": conf_id, "m.devices": [ours]})),
        }
    }
    written
}

/// The calls of other devices. A call that nobody is in any more is taken out (as matrix-js-sdk does).
pub(super) fn rest(content: Option<&Value>, device: &str, utc_ms: i64) -> Value {
    let calls = content.map_or(&[][..], |content| list(content, "m.calls"));
    let kept: Vec<Value> = calls
        .iter()
        .filter_map(|call| {
            let mut call: Map<String, Value> = call.as_object()?.clone();
            let devices: Vec<Value> = list(&Value::Object(call.clone()), "m.devices")
                .iter()
                .filter(|entry| id(entry, "device_id").is_some_and(|known| known != device))
                .filter(|entry| {
                    entry.get("expires_ts").and_then(milliseconds).is_some_and(|expires| expires > utc_ms)
                })
                .cloned()
                .collect();
            if devices.is_empty() {
                return None;
            }
            call.insert("m.devices".to_owned(), Value::Array(devices));
            Some(Value::Object(call))
        })
        .collect();
    json!({"m.calls": kept})
}
