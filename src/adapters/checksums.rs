//! Checksums of ended sessions, computed slowly on a thread of its own: of those that end now, and, between them, of
//! those that earlier processes left without.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError};

use super::recovery::{Pace, hash_session, without_checksums};

/// Sessions that may wait; one that finds no room waits for the next start.
const MOST_WAITING: usize = 1024;
/// Bytes of recordings read in a second.
const RATE: u64 = 32 << 20;

/// The job. It ends with this value; what it has not done the next start does.
pub(super) struct Checksums {
    queue: ChecksumQueue,
    pace: Arc<Pace>,
}

/// Where sessions wait for it.
#[derive(Clone)]
pub(super) struct ChecksumQueue(SyncSender<PathBuf>);

impl Checksums {
    /// What earlier processes left is looked for below `recordings`.
    pub(super) fn start(recordings: &Path) -> Self {
        let (queue, waiting) = std::sync::mpsc::sync_channel(MOST_WAITING);
        let pace = Arc::new(Pace::new(RATE));
        let (kept, recordings) = (Arc::clone(&pace), recordings.to_path_buf());
        let spawned = std::thread::Builder::new()
            .name("checksums".into())
            .spawn(move || work(&recordings, &waiting, &kept));
        if let Err(error) = spawned {
            tracing::warn!(%error, "sessions will have no checksums");
        }
        Self { queue: ChecksumQueue(queue), pace }
    }

    pub(super) fn queue(&self) -> ChecksumQueue {
        self.queue.clone()
    }
}

impl Drop for Checksums {
    fn drop(&mut self) {
        self.pace.stop();
    }
}

impl ChecksumQueue {
    pub(super) fn push(&self, folder: PathBuf) {
        if let Err(TrySendError::Full(folder) | TrySendError::Disconnected(folder)) = self.0.try_send(folder)
        {
            tracing::warn!(folder = %folder.display(), "too many sessions wait for their checksums");
        }
    }
}

fn work(recordings: &Path, waiting: &Receiver<PathBuf>, pace: &Pace) {
    let mut left = match without_checksums(recordings) {
        Ok(left) => Some(left),
        Err(error) => {
            tracing::warn!(%error, "sessions without checksums cannot be looked for");
            None
        }
    };
    while !pace.is_stopped() {
        // What ends now goes first.
        let next = match waiting.try_recv() {
            Ok(folder) => Some(folder),
            Err(TryRecvError::Disconnected) => None,
            Err(TryRecvError::Empty) => match left.as_mut().and_then(Iterator::next) {
                Some(folder) => Some(folder),
                None => {
                    left = None;
                    waiting.recv().ok()
                }
            },
        };
        let Some(folder) = next else { return };
        if let Err(error) = hash_session(&folder, pace) {
            tracing::warn!(folder = %folder.display(), %error, "a session has no checksums");
        }
    }
}
