//! Calls that are answered and not yet ended, on disk, so that the next process can hang them up.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use recorder_actors::ports::{LiveCall, LiveCalls};

use super::matrix::files;

type Calls = BTreeMap<(String, String), LiveCall>;

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
        let calls =
            left.iter().map(|call| ((call.room.clone(), call.call_id.clone()), call.clone())).collect();
        (Self { path, calls: Arc::new(Mutex::new(calls)) }, left)
    }

    fn change(&self, change: impl FnOnce(&mut Calls) + Send + 'static) -> BoxFuture<'static, ()> {
        let this = self.clone();
        async move {
            let saved = tokio::task::spawn_blocking(move || {
                // Written under the lock, so that the file always holds the newest list.
                let mut calls = this.calls.lock().unwrap_or_else(PoisonError::into_inner);
                change(&mut calls);
                let list: Vec<_> = calls.values().cloned().collect();
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

impl LiveCalls for LiveCallFile {
    fn add(&self, call: LiveCall) -> BoxFuture<'static, ()> {
        self.change(move |calls| {
            calls.insert((call.room.clone(), call.call_id.clone()), call);
        })
    }

    fn remove(&self, room: String, call_id: String) -> BoxFuture<'static, ()> {
        self.change(move |calls| {
            calls.remove(&(room, call_id));
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

    #[test]
    fn a_broken_list_counts_as_empty() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("live-calls.json"), b"{not json").unwrap();
        assert!(LiveCallFile::open(folder.path()).1.is_empty());
    }
}
