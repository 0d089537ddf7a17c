//! A disk in memory that fails on cue.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use recorder_actors::storage::{MediaFile, Storage};
use recorder_core::mux::scan;

/// What is done to files whose path contains a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Writes wait until the fault is lifted.
    Stall,
    /// A write that would make the file longer than this puts down what fits and fails as `ErrorKind` says.
    FullAt(u64, io::ErrorKind),
    PanicAt(u64),
    SyncFails,
    SyncPanics,
    CreateFails,
}

/// Called with a file's path before its first byte is written.
type Witness = Box<dyn Fn(&Path) + Send>;

#[derive(Default)]
struct State {
    files: BTreeMap<PathBuf, Vec<u8>>,
    faults: Vec<(String, Fault)>,
    repaired: Vec<PathBuf>,
    synced: BTreeMap<PathBuf, u64>,
    witness: Option<Witness>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Clone, Default)]
pub struct Disk(Arc<Shared>);

struct File {
    disk: Disk,
    path: PathBuf,
}

impl Disk {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn fault(&self, path_contains: &str, fault: Fault) {
        self.state().faults.push((path_contains.to_owned(), fault));
    }

    pub fn mend(&self) {
        self.state().faults.clear();
        self.0.changed.notify_all();
    }

    /// Replaces all faults at once, so that what was stalled meets the new one.
    pub fn instead(&self, path_contains: &str, fault: Fault) {
        self.state().faults = vec![(path_contains.to_owned(), fault)];
        self.0.changed.notify_all();
    }

    pub fn on_first_write(&self, witness: impl Fn(&Path) + Send + 'static) {
        self.state().witness = Some(Box::new(witness));
    }

    pub fn file(&self, name: &str) -> Vec<u8> {
        let state = self.state();
        let found = state.files.iter().find(|(path, _)| path.ends_with(name));
        found.unwrap_or_else(|| panic!("no file {name}")).1.clone()
    }

    /// 0 if it is not there.
    pub fn length(&self, name: &str) -> u64 {
        let state = self.state();
        let found = state.files.iter().find(|(path, _)| path.ends_with(name));
        found.map_or(0, |(_, file)| file.len() as u64)
    }

    /// Bytes of the longest file.
    pub fn longest(&self) -> u64 {
        self.state().files.values().map(|file| file.len() as u64).max().unwrap_or(0)
    }

    pub fn names(&self) -> Vec<PathBuf> {
        self.state().files.keys().cloned().collect()
    }

    pub fn was_repaired(&self, name: &str) -> usize {
        self.state().repaired.iter().filter(|path| path.ends_with(name)).count()
    }

    /// The file was synced after its last write.
    pub fn is_synced(&self, name: &str) -> bool {
        let length = self.file(name).len() as u64;
        self.state().synced.iter().any(|(path, at)| path.ends_with(name) && *at == length)
    }
}

impl State {
    fn faults_of(&self, path: &Path) -> Vec<Fault> {
        let text = path.to_string_lossy();
        self.faults.iter().filter(|(part, _)| text.contains(part)).map(|(_, fault)| *fault).collect()
    }
}

impl Storage for Disk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn MediaFile>> {
        let mut state = self.state();
        if state.faults_of(path).contains(&Fault::CreateFails) {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        if state.files.insert(path.to_path_buf(), Vec::new()).is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        Ok(Arc::new(File { disk: self.clone(), path: path.to_path_buf() }))
    }

    fn repair(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.repaired.push(path.to_path_buf());
        let file = state.files.get_mut(path).ok_or(io::ErrorKind::NotFound)?;
        let plan = scan(&mut file.as_slice(), file.len() as u64).map_err(io::Error::other)?;
        plan.apply(file);
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        Ok(1 << 40)
    }

    fn probe_writable(&self) -> io::Result<()> {
        Ok(())
    }
}

impl MediaFile for File {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.disk.state();
        while state.faults_of(&self.path).contains(&Fault::Stall) {
            state = self.disk.0.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let mut bytes = bytes;
        let mut result = Ok(());
        for fault in state.faults_of(&self.path) {
            match fault {
                Fault::PanicAt(limit) if offset + bytes.len() as u64 > limit => panic!("told to panic"),
                Fault::FullAt(limit, kind) if offset + bytes.len() as u64 > limit => {
                    bytes = &bytes[..limit.saturating_sub(offset) as usize];
                    result = Err(kind.into());
                }
                _ => {}
            }
        }
        if let Some(witness) = state.witness.as_ref().filter(|_| offset == 0) {
            witness(&self.path);
        }
        let file = state.files.get_mut(&self.path).ok_or(io::ErrorKind::NotFound)?;
        let at = offset as usize;
        assert!(at <= file.len(), "a hole in {}", self.path.display());
        let end = at + bytes.len();
        file.resize(file.len().max(end), 0);
        file[at..end].copy_from_slice(bytes);
        result
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        let file = state.files.get_mut(&self.path).ok_or(io::ErrorKind::NotFound)?;
        file.truncate(length as usize);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        for fault in state.faults_of(&self.path) {
            assert!(fault != Fault::SyncPanics, "told to panic");
            if fault == Fault::SyncFails {
                return Err(io::Error::other("medium error"));
            }
        }
        let length = state.files.get(&self.path).map_or(0, |file| file.len() as u64);
        state.synced.insert(self.path.clone(), length);
        Ok(())
    }
}
