//! Remote `m.call.*` events as values. Everything is bounded and checked here, once; later code trusts it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use crate::time::BootTime;

/// Longest `call_id` or `party_id` taken; the specification's opaque identifiers have at most 255 bytes.
const LONGEST_ID: usize = 255;
/// Longest SDP taken, bytes. A Matrix event holds 64 KiB at most.
const LONGEST_SDP: usize = 64 * 1024;
/// Candidates taken from one event.
const MOST_CANDIDATES: usize = 100;
/// Streams taken from one metadata map.
const MOST_STREAMS: usize = 64;
/// `lifetime` where an invite names none, as matrix-js-sdk sends it.
const DEFAULT_LIFETIME: Duration = Duration::from_secs(60);
/// No invite lives longer, whatever it says.
const LONGEST_LIFETIME: Duration = Duration::from_secs(600);

/// A room event as the account's sync delivered it, decrypted.
#[derive(Clone, Debug, PartialEq)]
pub struct RoomEvent {
    pub room: String,
    pub event_id: String,
    pub sender: String,
    pub event_type: String,
    pub content: Value,
    pub received: BootTime,
    /// How old the event was when it was received (`unsigned.age`).
    pub age: Duration,
}

/// `version` of a call (client-server API, "Call Event Versioning").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// The integer 0: no parties, no `select_answer`, no `negotiate`, no `reject`.
    V0,
    /// The string "1", and every version not known.
    V1,
}

/// One trickled candidate (W3C `RTCIceCandidateInit`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteCandidate {
    /// `candidate:…`; empty for end-of-candidates.
    pub candidate: String,
    pub mid: Option<String>,
    pub m_line: Option<u32>,
    pub username_fragment: Option<String>,
}

/// What a stream is for (MSC3077).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    UserMedia,
    ScreenShare,
    /// A purpose that this version does not know.
    Other,
}

/// What the sender says of one of its streams (MSC3077, MSC3291).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamNote {
    pub purpose: Purpose,
    pub audio_muted: bool,
    pub video_muted: bool,
    /// How often the flag has changed since the stream was first told of: what is said and taken back between two looks
    /// was said all the same.
    pub audio_changes: u32,
    pub video_changes: u32,
}

/// `sdp_stream_metadata`: MediaStream id → note.
pub type StreamMetadata = BTreeMap<String, StreamNote>;

/// Takes what the sender says now into what is known. Nothing is ever taken out: see [`super::OneToOne::metadata`].
pub fn merge_metadata(known: &mut StreamMetadata, newer: StreamMetadata) {
    for (stream, mut note) in newer {
        if let Some(before) = known.get(&stream) {
            let changed = |now, then, times: u32| times.wrapping_add(u32::from(now != then));
            note.audio_changes = changed(note.audio_muted, before.audio_muted, before.audio_changes);
            note.video_changes = changed(note.video_muted, before.video_muted, before.video_changes);
        }
        known.insert(stream, note);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DescriptionKind {
    Offer,
    Answer,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SignalBody {
    Invite {
        lifetime: Duration,
        offer: String,
        invitee: Option<String>,
        metadata: Option<StreamMetadata>,
    },
    Answer {
        /// Absent where the answer has no usable one; whose answer it is says enough to other devices.
        sdp: Option<String>,
        metadata: Option<StreamMetadata>,
    },
    Candidates(Vec<RemoteCandidate>),
    SelectAnswer {
        selected_party: String,
    },
    Negotiate {
        kind: DescriptionKind,
        sdp: String,
        metadata: Option<StreamMetadata>,
    },
    MetadataChanged(StreamMetadata),
    Reject,
    Hangup {
        reason: String,
    },
    /// Call transfer and asserted identities: known, and of no use to a recorder.
    Unused,
}

/// One call event, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallSignal {
    pub room: String,
    pub event_id: String,
    pub sender: String,
    pub call_id: String,
    /// Absent in version 0.
    pub party: Option<String>,
    pub version: Version,
    pub received: BootTime,
    pub age: Duration,
    pub body: SignalBody,
}

/// Why an event is no call signal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("not a call event")]
    NotACall,
    #[error("field `{0}` is missing or has the wrong type")]
    Field(&'static str),
    #[error("field `{0}` is too long")]
    TooLong(&'static str),
}

/// Whether an event type belongs to 1:1 call signalling.
pub fn is_call_event(event_type: &str) -> bool {
    event_type.starts_with("m.call.") || event_type.starts_with("org.matrix.call.")
}

impl CallSignal {
    /// Reads a room event. Unknown fields are ignored; what is needed and absent is an error.
    pub fn parse(event: &RoomEvent) -> Result<Self, Malformed> {
        let signal = Self::read(&event.sender, &event.event_type, &event.content, event.received)?;
        Ok(Self { room: event.room.clone(), event_id: event.event_id.clone(), age: event.age, ..signal })
    }

    /// Whoever sent it waits for an answer to it.
    pub fn is_offer(&self) -> bool {
        matches!(self.body, SignalBody::Negotiate { kind: DescriptionKind::Offer, .. })
    }

    /// Reads an event that names neither a room nor an event id, as to-device events do.
    pub(crate) fn read(
        sender: &str,
        event_type: &str,
        content: &Value,
        received: BootTime,
    ) -> Result<Self, Malformed> {
        if !is_call_event(event_type) {
            return Err(Malformed::NotACall);
        }
        let version = match content.get("version") {
            Some(Value::Number(number)) if number.as_i64() == Some(0) => Version::V0,
            Some(Value::String(text)) if text == "0" => Version::V0,
            Some(_) => Version::V1,
            None => return Err(Malformed::Field("version")),
        };
        let call_id = identifier(content, "call_id")?;
        let party = match version {
            Version::V0 => None,
            Version::V1 => Some(identifier(content, "party_id")?),
        };
        let body = match event_type.trim_start_matches("org.matrix.call.").trim_start_matches("m.call.") {
            "invite" => SignalBody::Invite {
                lifetime: lifetime(content),
                offer: description(content, "offer")?,
                invitee: content.get("invitee").and_then(Value::as_str).map(str::to_owned),
                metadata: metadata(content),
            },
            "answer" => {
                SignalBody::Answer { sdp: description(content, "answer").ok(), metadata: metadata(content) }
            }
            "candidates" => SignalBody::Candidates(candidates(content)?),
            "select_answer" => {
                SignalBody::SelectAnswer { selected_party: identifier(content, "selected_party_id")? }
            }
            "negotiate" => {
                let kind = match content.pointer("/description/type").and_then(Value::as_str) {
                    Some("offer") => DescriptionKind::Offer,
                    Some("answer" | "pranswer") => DescriptionKind::Answer,
                    _ => return Err(Malformed::Field("description.type")),
                };
                SignalBody::Negotiate {
                    kind,
                    sdp: description(content, "description")?,
                    metadata: metadata(content),
                }
            }
            "sdp_stream_metadata_changed" => {
                SignalBody::MetadataChanged(metadata(content).ok_or(Malformed::Field("sdp_stream_metadata"))?)
            }
            "reject" => SignalBody::Reject,
            "hangup" => SignalBody::Hangup {
                reason: content
                    .get("reason")
                    .and_then(Value::as_str)
                    .filter(|reason| reason.len() <= LONGEST_ID)
                    .unwrap_or("user_hangup")
                    .to_owned(),
            },
            _ => SignalBody::Unused,
        };
        Ok(Self {
            room: String::new(),
            event_id: String::new(),
            sender: sender.to_owned(),
            call_id,
            party,
            version,
            received,
            age: Duration::ZERO,
            body,
        })
    }
}

pub(crate) fn identifier(content: &Value, field: &'static str) -> Result<String, Malformed> {
    let text = content.get(field).and_then(Value::as_str).ok_or(Malformed::Field(field))?;
    if text.is_empty() {
        return Err(Malformed::Field(field));
    }
    if text.len() > LONGEST_ID {
        return Err(Malformed::TooLong(field));
    }
    Ok(text.to_owned())
}

fn description(content: &Value, field: &'static str) -> Result<String, Malformed> {
    let kind = content.get(field).and_then(|description| description.get("type"));
    if field == "offer" && kind.is_some_and(|kind| kind != "offer") {
        return Err(Malformed::Field("offer.type"));
    }
    let sdp = content
        .get(field)
        .and_then(|description| description.get("sdp"))
        .and_then(Value::as_str)
        .ok_or(Malformed::Field(field))?;
    if sdp.len() > LONGEST_SDP {
        return Err(Malformed::TooLong(field));
    }
    Ok(sdp.to_owned())
}

fn lifetime(content: &Value) -> Duration {
    content
        .get("lifetime")
        .and_then(Value::as_u64)
        .map_or(DEFAULT_LIFETIME, Duration::from_millis)
        .min(LONGEST_LIFETIME)
}

fn candidates(content: &Value) -> Result<Vec<RemoteCandidate>, Malformed> {
    let list = content.get("candidates").and_then(Value::as_array).ok_or(Malformed::Field("candidates"))?;
    Ok(list
        .iter()
        .filter_map(|entry| {
            let candidate = entry.get("candidate")?.as_str()?;
            let text = |field: &str| {
                entry
                    .get(field)
                    .and_then(Value::as_str)
                    .filter(|text| text.len() <= LONGEST_ID)
                    .map(str::to_owned)
            };
            (candidate.len() <= 1024).then(|| RemoteCandidate {
                candidate: candidate.to_owned(),
                mid: text("sdpMid"),
                m_line: entry
                    .get("sdpMLineIndex")
                    .and_then(Value::as_u64)
                    .and_then(|n| u32::try_from(n).ok()),
                username_fragment: text("usernameFragment"),
            })
        })
        .take(MOST_CANDIDATES)
        .collect())
}

/// Reads the stable and the unstable name (MSC3077); `None` when the peer has no stream metadata at all.
fn metadata(content: &Value) -> Option<StreamMetadata> {
    let map = content
        .get("sdp_stream_metadata")
        .or_else(|| content.get("org.matrix.msc3077.sdp_stream_metadata"))?
        .as_object()?;
    Some(
        map.iter()
            .filter(|(stream, _)| stream.len() <= LONGEST_ID)
            .take(MOST_STREAMS)
            .map(|(stream, note)| {
                let muted = |field: &str| note.get(field).and_then(Value::as_bool).unwrap_or(false);
                let purpose = match note.get("purpose").and_then(Value::as_str) {
                    Some("m.usermedia") => Purpose::UserMedia,
                    Some("m.screenshare") => Purpose::ScreenShare,
                    _ => Purpose::Other,
                };
                let note = StreamNote {
                    purpose,
                    audio_muted: muted("audio_muted"),
                    video_muted: muted("video_muted"),
                    audio_changes: 0,
                    video_changes: 0,
                };
                (stream.clone(), note)
            })
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn event(event_type: &str, content: Value) -> RoomEvent {
        RoomEvent {
            room: "!room:hs".into(),
            event_id: "$1".into(),
            sender: "@ada:hs".into(),
            event_type: event_type.into(),
            content,
            received: BootTime(5),
            age: Duration::ZERO,
        }
    }

    #[test]
    fn an_invite_of_version_1_is_read_whole() {
        let signal = CallSignal::parse(&event(
            "m.call.invite",
            json!({"call_id": "c", "party_id": "DEV", "version": "1", "lifetime": 60000, "invitee": "@bot:hs",
                "offer": {"type": "offer", "sdp": "v=0"},
                "sdp_stream_metadata": {"s1": {"purpose": "m.usermedia", "video_muted": true}}}),
        ))
        .unwrap();
        let SignalBody::Invite { lifetime, offer, invitee, metadata } = signal.body else {
            panic!("no invite")
        };
        assert_eq!((lifetime.as_secs(), offer.as_str(), invitee.as_deref()), (60, "v=0", Some("@bot:hs")));
        let note = metadata.unwrap()["s1"];
        assert_eq!((note.purpose, note.audio_muted, note.video_muted), (Purpose::UserMedia, false, true));
    }

    #[test]
    fn version_0_needs_no_party() {
        let signal = CallSignal::parse(&event(
            "m.call.invite",
            json!({"call_id": "c", "version": 0, "offer": {"sdp": "v=0"}}),
        ))
        .unwrap();
        assert_eq!((signal.version, signal.party), (Version::V0, None));
    }

    #[test]
    fn an_unknown_version_counts_as_1_and_a_missing_one_is_told() {
        let content = json!({"call_id": "c", "party_id": "P", "version": "7"});
        assert_eq!(CallSignal::parse(&event("m.call.hangup", content)).unwrap().version, Version::V1);
        let content = json!({"call_id": "c", "party_id": "P"});
        assert_eq!(CallSignal::parse(&event("m.call.hangup", content)), Err(Malformed::Field("version")));
    }

    #[test]
    fn the_unstable_metadata_names_are_read_as_well() {
        let signal = CallSignal::parse(&event(
            "org.matrix.call.sdp_stream_metadata_changed",
            json!({"call_id": "c", "party_id": "P", "version": "1",
                "org.matrix.msc3077.sdp_stream_metadata": {"s": {"purpose": "m.screenshare"}}}),
        ))
        .unwrap();
        let SignalBody::MetadataChanged(metadata) = signal.body else { panic!("no metadata") };
        assert_eq!(metadata["s"].purpose, Purpose::ScreenShare);
    }

    #[test]
    fn ten_thousand_candidates_are_cut() {
        let list: Vec<_> = (0..10_000).map(|n| json!({"candidate": format!("candidate:{n}")})).collect();
        let signal = CallSignal::parse(&event(
            "m.call.candidates",
            json!({"call_id": "c", "party_id": "P", "version": "1", "candidates": list}),
        ))
        .unwrap();
        let SignalBody::Candidates(list) = signal.body else { panic!("no candidates") };
        assert_eq!(list.len(), MOST_CANDIDATES);
    }

    #[test]
    fn ids_of_ten_kilobytes_are_refused() {
        let content = json!({"call_id": "x".repeat(10_000), "party_id": "P", "version": "1"});
        assert_eq!(CallSignal::parse(&event("m.call.hangup", content)), Err(Malformed::TooLong("call_id")));
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            ".{0,12}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 6, |inner| {
            let key = prop::sample::select(vec![
                "call_id",
                "party_id",
                "version",
                "offer",
                "sdp",
                "type",
                "candidates",
                "candidate",
                "lifetime",
                "description",
                "sdp_stream_metadata",
                "purpose",
                "selected_party_id",
            ]);
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(key.prop_map(str::to_owned), inner, 0..8)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn no_json_makes_the_reader_panic(
            content in any_json(),
            kind in prop::sample::select(vec!["invite", "candidates", "negotiate", "hangup", "select_answer",
                "sdp_stream_metadata_changed", "answer", "reject", "whatever"]),
        ) {
            let _ = CallSignal::parse(&event(&format!("m.call.{kind}"), content));
        }
    }
}
