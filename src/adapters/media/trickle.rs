//! Which candidates belong to the description in force (RFC 8838 §13, RFC 8840 §4.4): those of an earlier ICE session
//! are refused, those of a later one wait for its offer, which they may overtake.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;

use recorder_actors::ports::RemoteCandidate;
use str0m::Candidate;
use str0m::net::Protocol;

use super::candidates::{self, Remote};
use super::connection::{Connection, MAX_REMOTE_CANDIDATES};

/// Earlier user fragments that are known as such.
const PAST: usize = 16;
/// Candidates that wait for an offer; the oldest goes first.
const WAITING: usize = 64;

/// What is to be done with a candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Add,
    /// Kept for an offer to come; `dropped` of those that waited had to make room.
    Kept {
        dropped: bool,
    },
    /// Of an ICE session that is over.
    Stale,
}

/// The user fragments of one connection's remote side.
#[derive(Debug, Default)]
pub struct Trickle {
    current: Option<String>,
    past: VecDeque<String>,
    waiting: VecDeque<(String, String)>,
}

impl Trickle {
    /// A description is in force: its fragment, if it names one, is the current one. Returns what waited for it.
    pub fn adopt(&mut self, fragment: Option<&str>) -> Vec<String> {
        let Some(fragment) = fragment.filter(|fragment| self.current.as_deref() != Some(*fragment)) else {
            return Vec::new();
        };
        if let Some(before) = self.current.replace(fragment.to_owned()) {
            if self.past.len() == PAST {
                self.past.pop_front();
            }
            self.past.push_back(before);
        }
        let waiting = std::mem::take(&mut self.waiting);
        let (ours, others): (VecDeque<_>, _) =
            waiting.into_iter().partition(|(of, _): &(String, String)| of == fragment);
        self.waiting = others;
        ours.into_iter().map(|(_, text)| text).collect()
    }

    pub fn judge(&mut self, candidate: &RemoteCandidate) -> Verdict {
        let Some(current) = &self.current else { return Verdict::Add };
        match fragment_of(candidate) {
            // What does not say whose it is belongs to the present.
            None => Verdict::Add,
            Some(of) if of == current.as_str() => Verdict::Add,
            Some(of) if self.past.iter().any(|past| past == of) => Verdict::Stale,
            Some(of) => {
                let dropped = self.waiting.len() == WAITING;
                if dropped {
                    self.waiting.pop_front();
                }
                self.waiting.push_back((of.to_owned(), candidate.candidate.clone()));
                Verdict::Kept { dropped }
            }
        }
    }
}

impl Connection {
    /// One trickled candidate.
    pub fn add_trickled(&mut self, candidate: &RemoteCandidate) {
        match self.trickle.judge(candidate) {
            Verdict::Add => return self.add_candidate(&candidate.candidate),
            Verdict::Kept { dropped: false } => return,
            Verdict::Kept { dropped: true } | Verdict::Stale => {}
        }
        self.shared.view.counts.candidates_refused.fetch_add(1, Ordering::Relaxed);
    }

    /// One candidate of the description in force.
    pub(super) fn add_candidate(&mut self, text: &str) {
        if self.remote_candidates >= MAX_REMOTE_CANDIDATES {
            self.shared.view.counts.candidates_refused.fetch_add(1, Ordering::Relaxed);
            return;
        }
        match candidates::remote(text) {
            Remote::Usable(candidate) => {
                self.remote_candidates += 1;
                self.rtc.add_remote_candidate(candidate);
            }
            Remote::Skipped => {}
            Remote::Malformed => {
                self.remote_candidates += 1;
                self.shared.view.counts.candidates_refused.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// A relayed address of ours; its candidate line for an answer.
    pub fn add_relay(&mut self, relayed: SocketAddr, local: SocketAddr) -> Option<String> {
        let candidate = Candidate::relayed(relayed, local, Protocol::Udp).ok()?;
        let added = self.rtc.add_local_candidate(candidate)?.clone();
        let text = added.to_sdp_string();
        self.local.push(added);
        Some(text)
    }
}

/// `usernameFragment` of the event, or the `ufrag` extension in the candidate's own text.
fn fragment_of(candidate: &RemoteCandidate) -> Option<&str> {
    let told = candidate.username_fragment.as_deref().filter(|fragment| !fragment.is_empty());
    told.or_else(|| {
        let mut words = candidate.candidate.split_ascii_whitespace();
        words.find(|word| *word == "ufrag").and_then(|_| words.next())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(text: &str, fragment: Option<&str>) -> RemoteCandidate {
        RemoteCandidate {
            candidate: text.to_owned(),
            mid: None,
            m_line: Some(0),
            username_fragment: fragment.map(str::to_owned),
        }
    }

    #[test]
    fn candidates_of_an_ice_session_that_is_over_are_refused() {
        let mut trickle = Trickle::default();
        trickle.adopt(Some("first"));
        assert_eq!(trickle.judge(&candidate("candidate:1", Some("first"))), Verdict::Add);
        trickle.adopt(Some("second"));
        assert_eq!(trickle.judge(&candidate("candidate:1", Some("first"))), Verdict::Stale);
        assert_eq!(
            trickle.judge(&candidate("candidate:1 typ host ufrag first network-id 1", None)),
            Verdict::Stale
        );
        assert_eq!(trickle.judge(&candidate("candidate:1 typ host ufrag second", None)), Verdict::Add);
    }

    #[test]
    fn candidates_that_do_not_say_whose_they_are_are_taken() {
        let mut trickle = Trickle::default();
        trickle.adopt(Some("first"));
        assert_eq!(trickle.judge(&candidate("candidate:1 typ host", None)), Verdict::Add);
        assert_eq!(trickle.judge(&candidate("candidate:1 typ host", Some(""))), Verdict::Add);
        assert_eq!(trickle.judge(&candidate("", Some(""))), Verdict::Add);
    }

    #[test]
    fn candidates_that_overtake_their_offer_wait_for_it() {
        let mut trickle = Trickle::default();
        trickle.adopt(Some("first"));
        let kept = Verdict::Kept { dropped: false };
        assert_eq!(trickle.judge(&candidate("a", Some("second"))), kept);
        assert_eq!(trickle.judge(&candidate("b", Some("third"))), kept);
        assert_eq!(trickle.adopt(Some("first")), [""; 0], "the same description again");
        assert_eq!(trickle.adopt(Some("second")), ["a"]);
        assert_eq!(trickle.adopt(Some("third")), ["b"]);
    }

    #[test]
    fn a_flood_of_candidates_of_fragments_nobody_offered_is_bounded() {
        let mut trickle = Trickle::default();
        trickle.adopt(Some("first"));
        let mut dropped = 0;
        for n in 0..10_000 {
            let verdict = trickle.judge(&candidate("candidate", Some(&n.to_string())));
            dropped += usize::from(verdict == Verdict::Kept { dropped: true });
        }
        assert_eq!((trickle.waiting.len(), dropped), (WAITING, 10_000 - WAITING));
        for n in 0..100 {
            trickle.adopt(Some(&format!("f{n}")));
        }
        assert_eq!(trickle.past.len(), PAST);
    }
}
