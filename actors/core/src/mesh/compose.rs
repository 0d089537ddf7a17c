//! The to-device events we send: `m.call.*` as in a 1:1 call, addressed to one session of one device and numbered.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{MeshAction, MeshSettings};
use crate::call::{Envelope, Outgoing, Version};

/// Our side of one call: to whom its events go, and the number of the next one.
#[derive(Clone, Debug)]
pub(super) struct Address {
    pub(super) user: String,
    pub(super) device: String,
    /// The peer's session; absent only for refusals of invites that name none.
    session: Option<String>,
    pub(super) envelope: Envelope,
    seq: u64,
}

impl Address {
    pub(super) fn new(
        user: &str,
        device: &str,
        session: Option<&str>,
        call_id: &str,
        settings: &MeshSettings,
    ) -> Self {
        Self {
            user: user.to_owned(),
            device: device.to_owned(),
            session: session.map(str::to_owned),
            envelope: Envelope {
                call_id: call_id.to_owned(),
                my_party: settings.device.clone(),
                version: Version::V1,
            },
            seq: 0,
        }
    }

    /// The event with its address and the next number.
    pub(super) fn send(&mut self, outgoing: Outgoing, settings: &MeshSettings) -> MeshAction {
        let mut content = outgoing.content;
        if content.get("sdp_stream_metadata").is_some() {
            // Every stream in our description has to be named: matrix-js-sdk throws at one that is not.
            let tile = json!({"purpose": "m.usermedia", "audio_muted": true, "video_muted": false});
            content["sdp_stream_metadata"] = json!({});
            content["sdp_stream_metadata"][&settings.tile_stream] = tile;
        }
        content["conf_id"] = json!(settings.conf_id);
        content["device_id"] = json!(settings.device);
        content["sender_session_id"] = json!(settings.session_id);
        if let Some(session) = &self.session {
            content["dest_session_id"] = json!(session);
        }
        content["seq"] = json!(self.seq);
        content["org.matrix.msgid"] = self.message_id(&settings.session_id);
        self.seq += 1;
        MeshAction::SendToDevice {
            user: self.user.clone(),
            device: self.device.clone(),
            event_type: outgoing.event_type,
            content,
        }
    }

    /// Unique to this event, in the form of a UUID (RFC 9562 version 8: made of a hash).
    fn message_id(&self, session_id: &str) -> Value {
        let mut hash = Sha256::new();
        for part in [session_id, &self.user, &self.device, &self.envelope.call_id] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        hash.update(self.seq.to_be_bytes());
        let mut bytes = [0; 16];
        for (byte, hashed) in bytes.iter_mut().zip(hash.finalize()) {
            *byte = hashed;
        }
        let number = u128::from_be_bytes(bytes);
        let number = (number & !(0xf << 76) & !(0b11 << 62)) | (8 << 76) | (0b10 << 62);
        let text = format!("{number:032x}");
        let [a, b, c, d, e] = [&text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..]];
        json!(format!("{a}-{b}-{c}-{d}-{e}"))
    }
}
