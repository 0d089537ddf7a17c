//! `rooms.json` in the state directory: who does not want to be recorded, what is armed, which session runs.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use recorder_actors::ports::{RoomMemory, RoomRecord};

use super::matrix::files;

type Records = BTreeMap<String, RoomRecord>;

/// Why the file of an earlier process cannot be used. Objections to being recorded stand in it, so nothing begins
/// without it.
#[derive(Debug, thiserror::Error)]
pub enum RoomMemoryError {
    #[error("{path} cannot be read: {source}; make it readable for this user")]
    Read { path: PathBuf, source: io::Error },
    #[error(
        "{path} is damaged ({why}); it holds who does not want to be recorded: restore it from a backup, or move it \
         away to begin without it"
    )]
    Damaged { path: PathBuf, why: String },
}

/// The file and what stands in it.
#[derive(Clone, Debug)]
pub struct RoomFile {
    path: PathBuf,
    records: Arc<Mutex<Records>>,
}

impl RoomFile {
    /// Reads what an earlier process left.
    pub fn open(state_directory: &Path) -> Result<(Self, HashMap<String, RoomRecord>), RoomMemoryError> {
        let path = state_directory.join("rooms.json");
        let records: Records = match files::read_if_there(&path) {
            Ok(Some(bytes)) => serde_json::from_slice(&bytes)
                .map_err(|error| RoomMemoryError::Damaged { path: path.clone(), why: error.to_string() })?,
            Ok(None) => Records::new(),
            Err(source) => return Err(RoomMemoryError::Read { path, source }),
        };
        let left = records.clone().into_iter().collect();
        Ok((Self { path, records: Arc::new(Mutex::new(records)) }, left))
    }
}

impl RoomMemory for RoomFile {
    fn keep(&self, room: String, record: RoomRecord) -> BoxFuture<'static, io::Result<()>> {
        let this = self.clone();
        async move {
            let saved = tokio::task::spawn_blocking(move || {
                // Written under the lock, so that the file always holds the newest of each room.
                let mut records = this.records.lock().unwrap_or_else(PoisonError::into_inner);
                if record == RoomRecord::default() {
                    records.remove(&room);
                } else {
                    records.insert(room, record);
                }
                let bytes = serde_json::to_vec_pretty(&*records).map_err(io::Error::other)?;
                files::replace(&this.path, &bytes, true)
            })
            .await;
            saved.unwrap_or_else(|error| Err(io::Error::other(error)))
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use recorder_core::room::Durable;

    use super::*;

    fn objecting(user: &str) -> RoomRecord {
        let durable = Durable { opted_out: [user.to_owned()].into(), ..Durable::default() };
        RoomRecord { durable, ..RoomRecord::default() }
    }

    #[tokio::test]
    async fn an_objection_is_known_to_the_next_process_until_it_is_taken_back() {
        let folder = tempfile::tempdir().unwrap();
        let (file, left) = RoomFile::open(folder.path()).unwrap();
        assert!(left.is_empty());
        file.keep("!a:hs".into(), objecting("@ada:hs")).await.unwrap();
        file.keep("!b:hs".into(), objecting("@ben:hs")).await.unwrap();
        let (file, left) = RoomFile::open(folder.path()).unwrap();
        assert_eq!(left["!a:hs"], objecting("@ada:hs"));
        file.keep("!a:hs".into(), RoomRecord::default()).await.unwrap();
        let (_, left) = RoomFile::open(folder.path()).unwrap();
        assert_eq!(left.into_keys().collect::<Vec<_>>(), ["!b:hs"]);
    }

    #[tokio::test]
    async fn a_disk_that_refuses_is_told_and_what_it_refused_comes_with_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let (file, _) = RoomFile::open(folder.path()).unwrap();
        // A folder in its place takes no file, whoever writes.
        let blocked = folder.path().join("rooms.json");
        std::fs::create_dir_all(blocked.join("x")).unwrap();
        file.keep("!a:hs".into(), objecting("@ada:hs")).await.unwrap_err();
        std::fs::remove_dir_all(&blocked).unwrap();
        file.keep("!b:hs".into(), objecting("@ben:hs")).await.unwrap();
        let (_, left) = RoomFile::open(folder.path()).unwrap();
        assert_eq!(left["!a:hs"], objecting("@ada:hs"));
    }

    #[test]
    fn a_damaged_file_is_not_taken_for_nobody_objecting() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("rooms.json"), b"{").unwrap();
        let error = RoomFile::open(folder.path()).unwrap_err();
        assert!(error.to_string().contains("restore it from a backup"), "{error}");
    }
}
