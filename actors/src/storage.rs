//! The disk as the tree sees it: blocking calls, made by lanes and the sync thread only.

use std::io;
use std::path::Path;
use std::sync::{Arc, OnceLock};

/// One open media file.
pub trait MediaFile: Send + Sync {
    /// Writes all of `bytes` at `offset`, or fails.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Cuts the file after `length` bytes.
    fn truncate(&self, length: u64) -> io::Result<()>;
    /// What was written is on the medium when this returns (`fdatasync`).
    fn sync(&self) -> io::Result<()>;
}

/// Where a session's files go: known once its folder is made, which a stalled disk may hold up for long.
#[derive(Clone, Debug, Default)]
pub struct FolderPlace(Arc<OnceLock<Arc<Path>>>);

impl FolderPlace {
    pub fn get(&self) -> Option<&Arc<Path>> {
        self.0.get()
    }

    /// Once; the first stays.
    pub fn set(&self, folder: &Path) {
        let _ = self.0.set(folder.into());
    }
}

/// The file system that holds the recordings. Paths are relative to the recordings directory.
pub trait Storage: Send + Sync + 'static {
    /// Creates a new file; one that exists is an error.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn MediaFile>>;
    /// Makes a file whose writer failed playable to its end: whole clusters, duration, cues.
    fn repair(&self, path: &Path) -> io::Result<()>;
    /// Bytes an unprivileged process may still write.
    fn free_bytes(&self) -> io::Result<u64>;
    /// Creates and removes a file.
    fn probe_writable(&self) -> io::Result<()>;
}
