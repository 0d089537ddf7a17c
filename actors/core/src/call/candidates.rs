//! How many candidates are taken of a remote side: so many in each ICE session, which another user fragment begins.

/// Candidates taken in one ICE session, trickled or late.
pub(crate) const MOST_CANDIDATES: usize = 1_000;

#[derive(Clone, Debug, Default)]
pub(crate) struct CandidateCount {
    fragment: Option<String>,
    taken: usize,
}

impl CandidateCount {
    /// The remote side describes itself. A new user fragment is an ICE restart (RFC 8839 §4.4.1.1.1).
    pub(crate) fn describe(&mut self, sdp: &str) {
        let Some(fragment) = sdp.lines().find_map(|line| line.trim_end().strip_prefix("a=ice-ufrag:")) else {
            return;
        };
        if self.fragment.as_deref() != Some(fragment) {
            self.fragment = Some(fragment.to_owned());
            self.taken = 0;
        }
    }

    /// How many more may be taken.
    pub(crate) fn room(&self) -> usize {
        MOST_CANDIDATES.saturating_sub(self.taken)
    }

    pub(crate) fn take(&mut self, number: usize) {
        self.taken += number;
    }
}
