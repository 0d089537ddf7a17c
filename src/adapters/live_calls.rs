//! Calls that are answered and not yet ended, on disk, so that the next process can hang them up.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use recorder_actors::ports::{Clock, LiveCall, LiveCalls};

use super::matrix::files;

/// How often calls that run are noted as seen.
const SEEN_EVERY: Duration = Duration::from_secs(30);

#[derive(Debug, Default)]
struct Calls {
    all: BTreeMap<Name, LiveCall>,
    /// Those of this process.
    ours: BTreeSet<Name>,
}

/// Room and call id.
type Name = (String, String);

/// `live-calls.json` in the state directory.
#[derive(Clone, Debug)]
pub struct LiveCallFile {
    path: PathBuf,
    calls: Arc<Mutex<Calls>>,
}

impl LiveCallFile {
    /// Reads what an earlier process left. It stays on the list until it is removed like any other call: when its
    /// hang-up is sent. A file that cannot be read counts as empty: those callers then hang up by themselves.
    pub fn open(state_directory: &Path) -> (Self, Vec<LiveCall>) {
        let path = state_directory.join("live-calls.json");
        let left: Vec<LiveCall> =
            fs::read(&path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        let all = left.iter().map(|call| (name(call), call.clone())).collect();
        (Self { path, calls: Arc::new(Mutex::new(Calls { all, ..Calls::default() })) }, left)
    }

    /// Notes for as long as it runs that calls of this process are still there, so that the next one can tell a call that was
    /// cut off from one that nobody remembers.
    pub async fn keep_seen(self, clock: Arc<dyn Clock>) {
        loop {
            tokio::time::sleep(SEEN_EVERY).await;
            self.note_seen(clock.utc_micros()).await;
        }
    }

    async fn note_seen(&self, utc_micros: i64) {
        if self.calls.lock().unwrap_or_else(PoisonError::into_inner).ours.is_empty() {
            return;
        }
        self.change(move |calls| {
            for name in &calls.ours {
                if let Some(call) = calls.all.get_mut(name) {
                    call.seen_utc_micros = utc_micros;
                }
            }
        })
        .await;
    }

    fn change(&self, change: impl FnOnce(&mut Calls) + Send + 'static) -> BoxFuture<'static, ()> {
        let this = self.clone();
        async move {
            let saved = tokio::task::spawn_blocking(move || {
                // Written under the lock, so that the file always holds the newest list.
                let mut calls = this.calls.lock().unwrap_or_else(PoisonError::into_inner);
                change(&mut calls);
                let list: Vec<_> = calls.all.values().cloned().collect();
                let bytes = serde_json::to_vec(&list).map_err(io::Error::other)?;
                files::replace(&this.path, &bytes, true)
            })
            .await;
            if let Ok(Err(error)) = saved {
                tracing::warn!(%error, "the list of live calls cannot be saved; a restart will not hang them up");
            }
        }
        .boxed()
    }
}

fn name(call: &LiveCall) -> Name {
    (call.room.clone(), call.call_id.clone())
}

impl LiveCalls for LiveCallFile {
    fn add(&self, call: LiveCall) -> BoxFuture<'static, ()> {
        self.change(move |calls| {
            calls.ours.insert(name(&call));
            calls.all.insert(name(&call), call);
        })
    }

    fn remove(&self, room: String, call_id: String) -> BoxFuture<'static, ()> {
        self.change(move |calls| {
            let name = (room, call_id);
            calls.ours.remove(&name);
            calls.all.remove(&name);
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_next_process_finds_the_calls_that_were_live() {
        let folder = tempfile::tempdir().unwrap();
        let call = |id: &str| LiveCall {
            room: "!r:hs".into(),
            call_id: id.into(),
            caller: "@ada:hs".into(),
            version: 1,
            seen_utc_micros: 7,
        };
        let (first, left) = LiveCallFile::open(folder.path());
        assert!(left.is_empty());
        first.add(call("a")).await;
        first.add(call("b")).await;
        first.remove("!r:hs".into(), "a".into()).await;
        let (second, left) = LiveCallFile::open(folder.path());
        assert_eq!(left, [call("b")]);
        second.add(call("c")).await;
        let (third, left) = LiveCallFile::open(folder.path());
        assert_eq!(left, [call("b"), call("c")], "b has not been hung up yet");
        third.remove("!r:hs".into(), "b".into()).await;
        assert_eq!(LiveCallFile::open(folder.path()).1, [call("c")]);
    }

    #[tokio::test]
    async fn only_calls_of_this_process_are_seen_again() {
        let folder = tempfile::tempdir().unwrap();
        let call = |id: &str, seen_utc_micros| LiveCall {
            room: "!r:hs".into(),
            call_id: id.into(),
            caller: "@ada:hs".into(),
            version: 1,
            seen_utc_micros,
        };
        LiveCallFile::open(folder.path()).0.add(call("left", 1)).await;
        let (ours, _) = LiveCallFile::open(folder.path());
        ours.add(call("new", 2)).await;
        ours.note_seen(9).await;
        assert_eq!(LiveCallFile::open(folder.path()).1, [call("left", 1), call("new", 9)]);
    }

    #[test]
    fn a_list_of_an_earlier_version_has_calls_that_nobody_saw() {
        let folder = tempfile::tempdir().unwrap();
        let list = r#"[{"room":"!r:hs","call_id":"c","caller":"@ada:hs","version":1}]"#;
        fs::write(folder.path().join("live-calls.json"), list).unwrap();
        assert_eq!(LiveCallFile::open(folder.path()).1[0].seen_utc_micros, 0);
    }

    #[test]
    fn a_broken_list_counts_as_empty() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("live-calls.json"), b"{not json").unwrap();
        assert!(LiveCallFile::open(folder.path()).1.is_empty());
    }
}
