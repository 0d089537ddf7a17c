//! Call signals that travel as to-device events (MSC3401, "to-device signalling"): `m.call.*` with a few fields more.

use serde_json::Value;

use crate::call::{CallSignal, Malformed, SignalBody, Version, identifier};
use crate::time::BootTime;

/// One to-device call event, checked and bounded like every [`CallSignal`].
///
/// Plain and Olm-encrypted ones are the same value; whoever reads them has decrypted them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToDeviceSignal {
    pub conf_id: String,
    /// The sender's device, as the content says it.
    pub device: String,
    pub sender_session: Option<String>,
    pub dest_session: Option<String>,
    /// Place in the order of one call and one side, from 0; without it the event stands outside of any order.
    pub seq: Option<u64>,
    pub signal: CallSignal,
}

impl ToDeviceSignal {
    /// Reads the content of a to-device event of `sender`.
    pub fn parse(
        sender: &str,
        event_type: &str,
        content: &Value,
        received: BootTime,
    ) -> Result<Self, Malformed> {
        let signal = CallSignal::read(sender, event_type, content, received)?;
        // Parties are what to-device signalling rests on, and version 0 has none.
        if signal.version == Version::V0 {
            return Err(Malformed::Field("version"));
        }
        let optional = |field| match content.get(field) {
            None | Some(Value::Null) => Ok(None),
            Some(_) => identifier(content, field).map(Some),
        };
        let seq = match content.get("seq") {
            None | Some(Value::Null) => None,
            Some(seq) => Some(whole_number(seq).ok_or(Malformed::Field("seq"))?),
        };
        Ok(Self {
            conf_id: identifier(content, "conf_id")?,
            device: identifier(content, "device_id")?,
            sender_session: optional("sender_session_id")?,
            dest_session: optional("dest_session_id")?,
            seq,
            signal,
        })
    }

    pub fn sender(&self) -> &str {
        &self.signal.sender
    }

    /// Bytes that it holds, roughly.
    pub(super) fn weight(&self) -> usize {
        let body = match &self.signal.body {
            SignalBody::Invite { offer, metadata, .. } => offer.len() + streams(metadata.as_ref()),
            SignalBody::Answer { sdp, metadata } => {
                sdp.as_ref().map_or(0, String::len) + streams(metadata.as_ref())
            }
            SignalBody::Candidates(list) => {
                list.iter().map(|candidate| candidate.candidate.len() + 600).sum()
            }
            SignalBody::Negotiate { sdp, metadata, .. } => sdp.len() + streams(metadata.as_ref()),
            SignalBody::MetadataChanged(map) => streams(Some(map)),
            _ => 0,
        };
        body + 2048
    }
}

fn streams(metadata: Option<&crate::call::StreamMetadata>) -> usize {
    metadata.map_or(0, |map| map.len() * 320)
}

/// Whole and not negative, also where JavaScript's habits made `3.0` of it.
fn whole_number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| {
        let number = value.as_f64()?;
        (number >= 0.0 && number.fract() == 0.0 && number < 9e15).then_some(number as u64)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::mesh::roster::tests::any_json;

    fn hangup() -> Value {
        json!({"call_id": "c", "party_id": "D", "version": "1", "reason": "user_hangup", "conf_id": "conf",
            "device_id": "D", "sender_session_id": "s", "dest_session_id": "mine", "seq": 3})
    }

    fn parse(content: &Value) -> Result<ToDeviceSignal, Malformed> {
        ToDeviceSignal::parse("@ada:hs", "m.call.hangup", content, BootTime(7))
    }

    #[test]
    fn a_signal_is_read_whole() {
        let signal = parse(&hangup()).unwrap();
        assert_eq!(
            (signal.sender(), signal.conf_id.as_str(), signal.device.as_str()),
            ("@ada:hs", "conf", "D")
        );
        assert_eq!(
            (signal.sender_session.as_deref(), signal.dest_session.as_deref()),
            (Some("s"), Some("mine"))
        );
        assert_eq!((signal.seq, signal.signal.received), (Some(3), BootTime(7)));
    }

    #[test]
    fn what_is_needed_and_absent_or_of_the_wrong_type_is_told() {
        for (field, value) in [
            ("call_id", Value::Null),
            ("party_id", json!(1)),
            ("version", json!(0)),
            ("conf_id", Value::Null),
            ("device_id", json!({})),
            ("sender_session_id", json!(4)),
            ("dest_session_id", json!(false)),
            ("seq", json!("3")),
            ("seq", json!(-1)),
            ("seq", json!(1.5)),
        ] {
            let mut content = hangup();
            content[field] = value.clone();
            assert_eq!(parse(&content), Err(Malformed::Field(field)), "{value}");
        }
        let mut content = hangup();
        content["conf_id"] = json!("x".repeat(300));
        assert_eq!(parse(&content), Err(Malformed::TooLong("conf_id")));
    }

    #[test]
    fn sessions_and_numbers_may_be_absent() {
        let mut content = hangup();
        for field in ["sender_session_id", "dest_session_id", "seq"] {
            content[field] = Value::Null;
        }
        let signal = parse(&content).unwrap();
        assert_eq!((signal.sender_session, signal.dest_session, signal.seq), (None, None, None));
        content["seq"] = json!(4.0);
        assert_eq!(parse(&content).unwrap().seq, Some(4));
    }

    const KEYS: &[&str] = &[
        "call_id",
        "party_id",
        "version",
        "conf_id",
        "device_id",
        "dest_session_id",
        "seq",
        "offer",
        "answer",
        "sdp",
        "type",
        "candidates",
        "candidate",
        "description",
        "sdp_stream_metadata",
        "selected_party_id",
    ];

    proptest! {
        #[test]
        fn no_json_makes_the_reader_panic(
            content in any_json(KEYS),
            whole: bool,
            kind in prop::sample::select(vec!["invite", "candidates", "negotiate", "hangup", "select_answer",
                "sdp_stream_metadata_changed", "answer", "reject", "replaces"]),
        ) {
            let mut content = content;
            if let (true, Some(map)) = (whole, content.as_object_mut()) {
                for (key, value) in hangup().as_object().unwrap() {
                    map.entry(key.clone()).or_insert(value.clone());
                }
            }
            let read = ToDeviceSignal::parse("@ada:hs", &format!("m.call.{kind}"), &content, BootTime(0));
            if let Ok(signal) = read {
                prop_assert!(signal.conf_id.len() <= 255 && signal.weight() < 1 << 20);
            }
        }
    }
}
