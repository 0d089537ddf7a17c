//! A disk that fails on cue, before any other.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::{Point, ask};
use crate::storage::{MediaFile, Storage};

struct FaultyStorage(Arc<dyn Storage>);

struct FaultyFile {
    file: Arc<dyn MediaFile>,
    path: String,
}

/// The same storage, whose media files ask at [`Point::DiskCreate`], [`Point::DiskWrite`] and [`Point::DiskSync`].
pub fn faulty(storage: Arc<dyn Storage>) -> Arc<dyn Storage> {
    Arc::new(FaultyStorage(storage))
}

impl Storage for FaultyStorage {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn MediaFile>> {
        let name = path.to_string_lossy().into_owned();
        ask(Point::DiskCreate, &name)?;
        Ok(Arc::new(FaultyFile { file: self.0.create(path)?, path: name }))
    }

    fn repair(&self, path: &Path) -> io::Result<()> {
        self.0.repair(path)
    }

    fn free_bytes(&self) -> io::Result<u64> {
        self.0.free_bytes()
    }

    fn probe_writable(&self) -> io::Result<()> {
        self.0.probe_writable()
    }
}

impl MediaFile for FaultyFile {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        ask(Point::DiskWrite, &self.path)?;
        self.file.write_at(offset, bytes)
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        self.file.truncate(length)
    }

    fn sync(&self) -> io::Result<()> {
        ask(Point::DiskSync, &self.path)?;
        self.file.sync()
    }
}
