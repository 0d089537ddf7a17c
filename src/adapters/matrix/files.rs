//! Small files of ours: secrets read, session and progress written atomically, the lock on the store.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::error::AccountError;

/// Makes a folder only its owner may enter, parents included.
pub(super) fn private_folder(path: &Path) -> Result<(), AccountError> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|source| AccountError::StateUnwritable { path: path.to_owned(), source })
}

/// Replaces `path` by `bytes`, mode 0600; a reader sees the old file or the new one. `durable` survives a power cut.
pub(in crate::adapters) fn replace(path: &Path, bytes: &[u8], durable: bool) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let fresh = path.with_file_name(name);
    // A left-over of a crash may have other permissions; the file is always made anew.
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
    file.write_all(bytes)?;
    if durable {
        file.sync_all()?;
    }
    fs::rename(&fresh, path)?;
    if durable && let Some(folder) = path.parent() {
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

/// The contents of a file, or `None` when there is none.
pub(in crate::adapters) fn read_if_there(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// A secret of the setting `key`: the file's text without the line break editors put at its end.
pub(super) fn secret(key: &'static str, path: &Path) -> Result<String, AccountError> {
    let text = fs::read_to_string(path).map_err(|source| AccountError::SecretUnreadable {
        key,
        path: path.to_owned(),
        source,
    })?;
    let text = text.trim_end_matches(['\r', '\n']);
    if text.is_empty() {
        return Err(AccountError::SecretEmpty { key, path: path.to_owned() });
    }
    Ok(text.to_owned())
}

/// Held for as long as the store is used; the kernel lets go of it when the process ends, however it ends.
#[derive(Debug)]
pub(super) struct StoreLock {
    _file: File,
}

impl StoreLock {
    pub(super) fn take(store: &Path) -> Result<Self, AccountError> {
        let path: PathBuf = store.join("lock");
        let unwritable = |source| AccountError::StateUnwritable { path: path.clone(), source };
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(unwritable)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(AccountError::StoreLocked { path: store.to_owned() }),
            Err(TryLockError::Error(source)) => Err(unwritable(source)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_replaced_file_is_readable_by_its_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("session.json");
        fs::write(folder.path().join("session.json.new"), "left over").unwrap();
        replace(&path, b"one", true).unwrap();
        replace(&path, b"two", false).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!folder.path().join("session.json.new").exists());
    }

    #[test]
    fn a_store_is_locked_once() {
        let folder = tempfile::tempdir().unwrap();
        let lock = StoreLock::take(folder.path()).unwrap();
        assert!(matches!(StoreLock::take(folder.path()), Err(AccountError::StoreLocked { .. })));
        drop(lock);
        StoreLock::take(folder.path()).unwrap();
    }

    #[test]
    fn a_secret_loses_its_line_break_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        fs::write(&path, " pass word \r\n").unwrap();
        assert_eq!(secret("matrix.password_file", &path).unwrap(), " pass word ");
        fs::write(&path, "\n").unwrap();
        let error = secret("matrix.password_file", &path).unwrap_err();
        assert!(matches!(error, AccountError::SecretEmpty { .. }));
        assert!(error.to_string().contains("matrix.password_file"));
    }
}
