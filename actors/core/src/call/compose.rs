//! The events we send. Raw JSON on purpose: a typed answer leaves an empty `sdp_stream_metadata` out, and without that
//! key callers lose camera upgrades and screen shares.

use std::time::Duration;

use serde_json::{Value, json};

use super::signal::Version;

/// What goes first where a homeserver lets an account send only so many events in a minute; the most urgent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// A call hangs on it: answers, hang-ups, rejections, memberships.
    Call,
    /// Answers to later offers.
    Change,
    /// Messages that notify people, of a recording above all.
    People,
    /// Candidates; of ours only their end is told, which no client waits for.
    Candidates,
    /// What may be read later.
    Notice,
    /// Rejections of those who may not call.
    Stranger,
}

/// An event to be sent into the call's room.
#[derive(Clone, Debug, PartialEq)]
pub struct Outgoing {
    pub event_type: &'static str,
    pub content: Value,
}

impl Outgoing {
    pub fn urgency(&self) -> Urgency {
        match self.event_type {
            "m.call.negotiate" => Urgency::Change,
            "m.call.candidates" => Urgency::Candidates,
            _ => Urgency::Call,
        }
    }
}

/// Which call an outgoing event belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Envelope {
    pub(crate) call_id: String,
    pub(crate) my_party: String,
    pub(crate) version: Version,
}

impl Envelope {
    fn event(&self, event_type: &'static str, mut content: Value) -> Outgoing {
        content["call_id"] = json!(self.call_id);
        match self.version {
            Version::V0 => content["version"] = json!(0),
            Version::V1 => {
                content["version"] = json!("1");
                content["party_id"] = json!(self.my_party);
            }
        }
        Outgoing { event_type, content }
    }

    pub(crate) fn answer(&self, sdp: &str) -> Outgoing {
        self.event(
            "m.call.answer",
            json!({
                "answer": {"type": "answer", "sdp": sdp},
                "capabilities": {"m.call.transferee": false, "m.call.dtmf": false},
                "sdp_stream_metadata": {},
            }),
        )
    }

    /// `invitee` is whom the invite is meant for (client-server API, "Invitees").
    pub(crate) fn invite(&self, invitee: &str, lifetime: Duration, sdp: &str) -> Outgoing {
        self.event(
            "m.call.invite",
            json!({
                "invitee": invitee,
                "lifetime": u64::try_from(lifetime.as_millis()).unwrap_or(u64::MAX),
                "offer": {"type": "offer", "sdp": sdp},
                "capabilities": {"m.call.transferee": false, "m.call.dtmf": false},
                "sdp_stream_metadata": {},
            }),
        )
    }

    pub(crate) fn select_answer(&self, party: &str) -> Outgoing {
        self.event("m.call.select_answer", json!({"selected_party_id": party}))
    }

    /// All our candidates stand in the description, so the only one to tell is the end (client-server API,
    /// "End-of-candidates").
    pub(crate) fn end_of_candidates(&self) -> Outgoing {
        self.event("m.call.candidates", json!({"candidates": [{"candidate": ""}]}))
    }

    pub(crate) fn negotiate_answer(&self, sdp: &str) -> Outgoing {
        self.event(
            "m.call.negotiate",
            json!({
                "lifetime": 60_000,
                "description": {"type": "answer", "sdp": sdp},
                "sdp_stream_metadata": {},
            }),
        )
    }

    pub(crate) fn hangup(&self, reason: &str) -> Outgoing {
        self.event("m.call.hangup", json!({"reason": reason}))
    }

    /// Version 0 has no reject; there a hang-up says the same.
    pub(crate) fn reject(&self) -> Outgoing {
        match self.version {
            Version::V0 => self.hangup("user_hangup"),
            Version::V1 => self.event("m.call.reject", json!({})),
        }
    }
}

/// The hang-up of a call that an earlier process of ours had answered.
pub fn hangup_for(call_id: &str, my_party: &str, version: Version) -> Outgoing {
    Envelope { call_id: call_id.to_owned(), my_party: my_party.to_owned(), version }.hangup("unknown_error")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_names_empty_stream_metadata() {
        let envelope = Envelope { call_id: "c".into(), my_party: "BOT".into(), version: Version::V1 };
        let answer = envelope.answer("v=0");
        assert_eq!(answer.content["sdp_stream_metadata"], json!({}));
        assert_eq!(answer.content["version"], "1");
        assert_eq!(answer.content["party_id"], "BOT");
    }

    #[test]
    fn what_a_call_hangs_on_is_more_urgent_than_what_only_changes_it() {
        let envelope = Envelope { call_id: "c".into(), my_party: "BOT".into(), version: Version::V1 };
        for event in [envelope.answer("v=0"), envelope.hangup("user_hangup"), envelope.reject()] {
            assert_eq!(event.urgency(), Urgency::Call, "{}", event.event_type);
        }
        let later = envelope.negotiate_answer("v=0").urgency();
        assert!(Urgency::Call < later && later < envelope.end_of_candidates().urgency());
    }

    #[test]
    fn version_0_says_the_integer_and_no_party() {
        let envelope = Envelope { call_id: "c".into(), my_party: "BOT".into(), version: Version::V0 };
        let reject = envelope.reject();
        assert_eq!(reject.event_type, "m.call.hangup");
        assert_eq!(reject.content["version"], 0);
        assert!(reject.content.get("party_id").is_none());
    }
}
