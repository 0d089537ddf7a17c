//! What was handled, on disk: the sync token up to which everything was, and the events of the last minutes.
//!
//! The SDK stores its sync token before anybody has seen the response. After a crash the two tokens differ, rooms are
//! read back, and the ids here keep what was handled from being delivered again.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::Duration;

use recorder_core::time::BootTime;
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::files;

/// Writes are at least this far apart, so a crash forgets at most what was handled in this time.
const PACE: Duration = Duration::from_millis(250);
/// Ids kept; at more than 40 wanted events a second the oldest go before their time.
const IDS: usize = 4096;
/// Batches that wait for the consumer's acknowledgement; the oldest then counts as handled.
const BATCHES: usize = 1024;

#[derive(Default, Serialize, Deserialize)]
struct Stored {
    token: Option<String>,
    /// Event id and when it was delivered, UTC milliseconds.
    ids: VecDeque<(String, i64)>,
}

/// What an earlier life left.
pub(super) struct Earlier {
    /// Everything up to this sync token was handled.
    pub(super) token: Option<String>,
    pub(super) ids: Vec<String>,
}

#[derive(Default)]
struct Batch {
    number: u64,
    ids: Vec<(String, i64)>,
    token: Option<String>,
}

pub(super) struct Handled {
    path: PathBuf,
    keep: Duration,
    stored: Stored,
    pending: VecDeque<Batch>,
    dirty: bool,
    failing: bool,
    last_write: Option<BootTime>,
}

impl Handled {
    /// Reads the file; one that cannot be read is as good as none.
    pub(super) fn load(path: PathBuf, lifetime: Duration, utc_micros: i64) -> (Self, Earlier) {
        let keep = lifetime + Duration::from_secs(60);
        let bytes = files::read_if_there(&path).unwrap_or_else(|error| {
            warn!(file = %path.display(), %error, "what was handled earlier cannot be read");
            None
        });
        let mut stored: Stored =
            bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        forget(&mut stored, keep, utc_micros);
        let earlier = Earlier {
            token: stored.token.clone(),
            ids: stored.ids.iter().map(|(id, _)| id.clone()).collect(),
        };
        let this = Self {
            path,
            keep,
            stored,
            pending: VecDeque::new(),
            dirty: false,
            failing: false,
            last_write: None,
        };
        (this, earlier)
    }

    pub(super) fn delivered(&mut self, batch: u64, id: String, utc_micros: i64) {
        self.batch(batch).ids.push((id, utc_micros / 1000));
    }

    /// All events up to `token` are in batches up to `batch`.
    pub(super) fn synced(&mut self, batch: u64, token: String) {
        self.batch(batch).token = Some(token);
    }

    fn batch(&mut self, number: u64) -> &mut Batch {
        if self.pending.len() >= BATCHES
            && let Some(oldest) = self.pending.front()
        {
            self.acknowledge(oldest.number);
        }
        if self.pending.back().is_none_or(|last| last.number != number) {
            self.pending.push_back(Batch { number, ..Batch::default() });
        }
        let last = self.pending.len() - 1;
        &mut self.pending[last]
    }

    /// The consumer is done with every batch up to this one.
    pub(super) fn acknowledge(&mut self, batch: u64) {
        while self.pending.front().is_some_and(|first| first.number <= batch) {
            let Some(done) = self.pending.pop_front() else { break };
            self.stored.ids.extend(done.ids);
            if done.token.is_some() {
                self.stored.token = done.token;
            }
            self.dirty = true;
        }
    }

    /// How long until a write is due.
    pub(super) fn next_write(&self, now: BootTime) -> Duration {
        match (self.dirty, self.last_write) {
            (false, _) => Duration::MAX,
            (true, None) => Duration::ZERO,
            (true, Some(last)) => PACE.saturating_sub(now.saturating_since(last)),
        }
    }

    pub(super) async fn write_if_due(&mut self, now: BootTime, utc_micros: i64, waiting: bool) {
        if self.next_write(now).is_zero() {
            self.write(now, utc_micros, waiting).await;
        }
    }

    /// Writes now. While a placeholder waits, not everything is handled and no token is claimed.
    pub(super) async fn write(&mut self, now: BootTime, utc_micros: i64, waiting: bool) {
        if !self.dirty {
            return;
        }
        (self.dirty, self.last_write) = (false, Some(now));
        forget(&mut self.stored, self.keep, utc_micros);
        let token = self.stored.token.as_ref().filter(|_| !waiting);
        let Ok(bytes) = serde_json::to_vec(&serde_json::json!({ "token": token, "ids": self.stored.ids }))
        else {
            return;
        };
        let path = self.path.clone();
        let written = tokio::task::spawn_blocking(move || files::replace(&path, &bytes, false)).await;
        let failing = !matches!(written, Ok(Ok(())));
        if failing && !self.failing {
            warn!(file = %self.path.display(), "progress cannot be saved; after a crash an event may be handled twice");
        }
        self.failing = failing;
    }
}

fn forget(stored: &mut Stored, keep: Duration, utc_micros: i64) {
    let oldest = utc_micros / 1000 - i64::try_from(keep.as_millis()).unwrap_or(i64::MAX);
    while stored.ids.len() > IDS || stored.ids.front().is_some_and(|(_, at)| *at < oldest) {
        stored.ids.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFETIME: Duration = Duration::from_secs(90);
    const NOW: i64 = 1_800_000_000_000_000;

    async fn stored_after(work: impl FnOnce(&mut Handled), waiting: bool, later_micros: i64) -> Earlier {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("inbox.json");
        let (mut handled, _) = Handled::load(path.clone(), LIFETIME, NOW);
        work(&mut handled);
        handled.write(BootTime(1), NOW, waiting).await;
        Handled::load(path, LIFETIME, NOW + later_micros).1
    }

    #[tokio::test]
    async fn only_acknowledged_batches_count_as_handled() {
        let work = |handled: &mut Handled| {
            handled.delivered(1, "$1".into(), NOW);
            handled.synced(1, "t1".into());
            handled.delivered(2, "$2".into(), NOW);
            handled.synced(2, "t2".into());
            handled.acknowledge(1);
        };
        let earlier = stored_after(work, false, 0).await;
        assert_eq!((earlier.token.as_deref(), earlier.ids), (Some("t1"), vec!["$1".to_owned()]));
    }

    #[tokio::test]
    async fn no_token_is_claimed_while_an_event_waits_for_its_key() {
        let work = |handled: &mut Handled| {
            handled.delivered(1, "$1".into(), NOW);
            handled.synced(1, "t1".into());
            handled.acknowledge(1);
        };
        let earlier = stored_after(work, true, 0).await;
        assert_eq!((earlier.token, earlier.ids), (None, vec!["$1".to_owned()]));
    }

    #[tokio::test]
    async fn ids_are_forgotten_when_no_call_can_live_that_long() {
        let work = |handled: &mut Handled| {
            handled.delivered(1, "$1".into(), NOW);
            handled.acknowledge(1);
        };
        assert!(stored_after(work, false, 151_000_000).await.ids.is_empty());
    }

    #[tokio::test]
    async fn a_consumer_that_never_acknowledges_costs_bounded_memory() {
        let (mut handled, _) = Handled::load("/nonexistent/inbox.json".into(), LIFETIME, NOW);
        for batch in 0..10_000 {
            handled.delivered(batch, format!("${batch}"), NOW);
        }
        assert!(handled.pending.len() <= BATCHES);
        handled.write(BootTime(1), NOW, false).await;
        assert!(handled.stored.ids.len() <= IDS);
    }

    #[test]
    fn a_broken_file_is_as_good_as_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("inbox.json");
        std::fs::write(&path, b"{\"token\": 5, ").unwrap();
        let (_, earlier) = Handled::load(path, LIFETIME, NOW);
        assert!(earlier.token.is_none() && earlier.ids.is_empty());
    }
}
