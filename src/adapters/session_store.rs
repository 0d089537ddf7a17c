//! Session folders on a real file system.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use recorder_actors::session::SessionStore;

pub const JOURNAL: &str = "journal.jsonl";
pub const SNAPSHOT: &str = "session.json";
const TEMPORARY: &str = ".session.json.tmp";

const FILE_MODE: u32 = 0o640;
const FOLDER_MODE: u32 = 0o750;

/// The folder of one session below the recordings directory.
#[derive(Debug)]
pub struct FsSessionStore {
    recordings: PathBuf,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    folder: PathBuf,
    journal: File,
    /// Length of what was appended whole.
    length: u64,
}

impl FsSessionStore {
    /// `recordings` has to exist.
    pub fn new(recordings: impl Into<PathBuf>) -> Self {
        Self { recordings: recordings.into(), open: None }
    }

    fn open(&mut self) -> io::Result<&mut Open> {
        self.open.as_mut().ok_or_else(|| io::Error::other("the session's folder has not been created"))
    }
}

impl SessionStore for FsSessionStore {
    fn create_folder(&mut self, room: &str, session: &str) -> io::Result<PathBuf> {
        let mut builder = DirBuilder::new();
        builder.mode(FOLDER_MODE);
        let room = self.recordings.join(room);
        match builder.create(&room) {
            Ok(()) => sync_folder(&self.recordings)?,
            // A link would lead out of the recordings.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                if !fs::symlink_metadata(&room)?.is_dir() {
                    return Err(io::Error::from(io::ErrorKind::NotADirectory));
                }
            }
            Err(error) => return Err(error),
        }
        let folder = room.join(session);
        builder.create(&folder)?;
        sync_folder(&room)?;
        let journal =
            OpenOptions::new().append(true).create_new(true).mode(FILE_MODE).open(folder.join(JOURNAL))?;
        sync_folder(&folder)?;
        self.open = Some(Open { folder: folder.clone(), journal, length: 0 });
        Ok(folder)
    }

    fn reopen(&mut self, folder: &Path) -> io::Result<Vec<String>> {
        let mut options = OpenOptions::new();
        let journal = options.append(true).custom_flags(libc::O_NOFOLLOW).open(folder.join(JOURNAL))?;
        let length = journal.metadata()?.len();
        let names = fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        let names = names.collect::<io::Result<Vec<_>>>()?;
        self.open = Some(Open { folder: folder.to_owned(), journal, length });
        Ok(names)
    }

    fn append_journal(&mut self, lines: &[u8]) -> io::Result<()> {
        let open = self.open()?;
        match open.journal.write_all(lines) {
            Ok(()) => {
                open.length += lines.len() as u64;
                Ok(())
            }
            Err(error) => {
                // Half a line must not stand before the next try.
                open.journal.set_len(open.length)?;
                Err(error)
            }
        }
    }

    fn sync_journal(&mut self) -> io::Result<()> {
        self.open()?.journal.sync_data()
    }

    fn write_snapshot(&mut self, json: &[u8]) -> io::Result<()> {
        write_snapshot(&self.open()?.folder, json)
    }
}

/// Replaces `session.json` of a folder: written beside it, synced, renamed, the folder synced.
pub fn write_snapshot(folder: &Path, json: &[u8]) -> io::Result<()> {
    let temporary = folder.join(TEMPORARY);
    // What a process that died left behind; also a link, which must not be followed.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(&temporary)?;
    let written = file.write_all(json).and_then(|()| file.sync_all());
    let replaced = written.and_then(|()| fs::rename(&temporary, folder.join(SNAPSHOT)));
    if let Err(error) = replaced {
        // It holds room that a full disk needs; the next try removes it if this fails.
        let _ = fs::remove_file(&temporary);
        return Err(error);
    }
    sync_folder(folder)
}

/// Makes the names in a folder durable.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Appends lines to an existing journal and syncs it.
pub(super) fn append_synced(folder: &Path, lines: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let mut journal = options.append(true).custom_flags(libc::O_NOFOLLOW).open(folder.join(JOURNAL))?;
    journal.write_all(lines)?;
    journal.sync_data()
}
