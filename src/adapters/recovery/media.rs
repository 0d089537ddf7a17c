//! One media file: look at it, carry out the plan, look again.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use recorder_core::mux::{HeaderFacts, ReadAt, RepairError, RepairPlan, scan};

/// What became of a media file.
#[derive(Clone, Debug, PartialEq)]
pub struct FileOutcome {
    /// It was changed; otherwise it had its end already.
    pub repaired: bool,
    /// Bytes after the repair.
    pub bytes: u64,
    /// Bytes of a torn end that were cut.
    pub cut_bytes: u64,
    /// From the first block to the end of the last.
    pub duration_s: f64,
    /// Unreadable stretches within the file that players now skip.
    pub holes: u64,
    pub header: HeaderFacts,
}

/// Why a media file was left as it is.
#[derive(Debug, thiserror::Error)]
pub enum MediaFileError {
    #[error("the file is missing")]
    Missing,
    #[error("it is no plain file")]
    NotAFile,
    #[error("it cannot be read or written: {0}")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Refused(#[from] RepairError),
    #[error("it is still not whole after the repair")]
    StillBroken,
}

struct Reader<'a>(&'a File);

impl ReadAt for Reader<'_> {
    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        FileExt::read_at(self.0, buf, offset)
    }
}

/// Gives a media file the end that a clean shutdown would have given it. A whole one is not written to.
pub fn repair_media_file(path: &Path) -> Result<FileOutcome, MediaFileError> {
    // First for reading only: a whole file on a read-only medium is no error.
    let file = open(path, false)?;
    let before = file.metadata()?.len();
    let plan = scan(&mut Reader(&file), before)?;
    if plan.already_final {
        return Ok(outcome(plan, false, before));
    }
    let file = open(path, true)?;
    carry_out(&file, &plan)?;
    let after = scan(&mut Reader(&file), file.metadata()?.len())?;
    if !after.already_final {
        return Err(MediaFileError::StillBroken);
    }
    // What was found wrong is in the first plan.
    Ok(FileOutcome { holes: plan.holes, ..outcome(plan, true, before) })
}

fn open(path: &Path, write: bool) -> Result<File, MediaFileError> {
    // Neither a link nor a pipe may be followed or waited for.
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let file = OpenOptions::new().read(true).write(write).custom_flags(flags).open(path);
    let file = file.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => MediaFileError::Missing,
        _ if error.raw_os_error() == Some(libc::ELOOP) => MediaFileError::NotAFile,
        _ => MediaFileError::Io(error),
    })?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(MediaFileError::NotAFile) }
}

/// In the plan's order: stopped anywhere in between, the next look gives a plan with the same result.
fn carry_out(file: &File, plan: &RepairPlan) -> io::Result<()> {
    file.set_len(plan.truncate_to)?;
    file.write_all_at(&plan.append, plan.truncate_to)?;
    file.sync_data()?;
    for patch in &plan.patches {
        file.write_all_at(&patch.bytes, patch.offset)?;
    }
    file.sync_data()
}

fn outcome(plan: RepairPlan, repaired: bool, before: u64) -> FileOutcome {
    FileOutcome {
        repaired,
        bytes: plan.length(),
        cut_bytes: before.saturating_sub(plan.truncate_to),
        duration_s: plan.duration_s,
        holes: plan.holes,
        header: plan.header,
    }
}
