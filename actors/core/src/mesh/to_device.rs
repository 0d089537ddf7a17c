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
