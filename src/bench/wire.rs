//! What `bench` and its helper processes say to each other, one JSON object a line.

use std::time::Duration;

use recorder_actors::ports::RemoteCandidate;
use serde::{Deserialize, Serialize};

use super::Sample;
use crate::calling::{SentStream, VideoLoad};

/// To a helper process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "snake_case")]
pub enum Order {
    /// Callers: start a call; [`Told::Offer`] follows.
    Call { call: usize, audio: bool, video: Option<VideoLoad>, tile: bool },
    /// Callers: the answer to a call's offer; [`Told::Connected`] follows.
    Answer { call: usize, sdp: String },
    /// Receiver: answer this; [`Told::Answer`] follows.
    Offer { call: usize, sdp: String },
    /// Both: a candidate of the other side.
    Candidate { call: usize, candidate: Candidate },
    /// Callers: send media in every call; [`Told::Sent`] follows for each.
    Send { duration: Duration },
    /// Both: [`Told::Sample`] follows.
    Sample,
    /// Both: end every call; [`Told::Ended`] follows.
    HangUp,
}

/// From a helper process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "told", rename_all = "snake_case")]
pub enum Told {
    Offer {
        call: usize,
        sdp: String,
    },
    Answer {
        call: usize,
        sdp: String,
    },
    Candidate {
        call: usize,
        candidate: Candidate,
    },
    Connected {
        call: usize,
    },
    Failed {
        call: usize,
        reason: String,
    },
    /// `received`: RTP packets of the other side since the start.
    Sent {
        call: usize,
        streams: Vec<SentStream>,
        received: u64,
    },
    Sample {
        sample: Sample,
    },
    Ended,
}

/// [`RemoteCandidate`] as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    pub candidate: String,
    pub mid: Option<String>,
    pub m_line: Option<u32>,
    pub username_fragment: Option<String>,
}

impl From<RemoteCandidate> for Candidate {
    fn from(it: RemoteCandidate) -> Self {
        Self {
            candidate: it.candidate,
            mid: it.mid,
            m_line: it.m_line,
            username_fragment: it.username_fragment,
        }
    }
}

impl From<Candidate> for RemoteCandidate {
    fn from(it: Candidate) -> Self {
        Self {
            candidate: it.candidate,
            mid: it.mid,
            m_line: it.m_line,
            username_fragment: it.username_fragment,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_one_line_and_comes_back_as_it_was() {
        let order = Order::Answer { call: 3, sdp: "v=0\r\ns=-\r\n".to_owned() };
        let line = serde_json::to_string(&order).unwrap();
        assert!(!line.contains('\n'));
        assert_eq!(serde_json::from_str::<Order>(&line).unwrap(), order);
    }
}
