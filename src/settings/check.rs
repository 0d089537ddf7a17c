//! What keys need of each other, of files and of folders.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::{Fault, Settings};
use crate::adapters::disk::may_pass;

/// Shortest token of the page that is accepted, bytes: 16 random hex digits and more.
const TOKEN_LENGTH: usize = 16;

/// Rules between keys.
pub(super) fn cross(settings: &Settings) -> Vec<Fault> {
    let mut faults = Vec::new();
    let matrix = &settings.matrix;
    if matrix.homeserver.is_empty() {
        let advice = "set the base URL of the homeserver, such as \"https://matrix.example.org\"";
        faults.push(Fault::new("matrix.homeserver", "missing", advice));
    }
    if matrix.user.is_empty() {
        faults.push(Fault::new("matrix.user", "missing", "set the account's id, \"@recorder:example.org\""));
    }
    match (&matrix.password_file, &matrix.access_token_file) {
        (Some(_), Some(_)) => faults.push(Fault::new(
            "matrix.access_token_file",
            "set together with matrix.password_file",
            "keep one of the two",
        )),
        (None, None) if !matrix.session_file().exists() => faults.push(Fault::new(
            "matrix.password_file",
            "missing, and no saved login in matrix.store",
            "set matrix.password_file or matrix.access_token_file for the first login",
        )),
        _ => {}
    }
    let elsewhere = |key: &str, listen: std::net::SocketAddr| {
        Fault::new(
            key,
            "a listener that is not loopback, without web.token_file",
            "set web.token_file, or listen on 127.0.0.1",
        )
        .with_value(listen)
    };
    if settings.web.token_file.is_none() {
        if !settings.web.listen.ip().is_loopback() {
            faults.push(elsewhere("web.listen", settings.web.listen));
        }
        if let Some(listen) = settings.metrics.listen.filter(|listen| !listen.ip().is_loopback()) {
            faults.push(elsewhere("metrics.listen", listen));
        }
    }
    if settings.metrics.listen.is_some_and(|listen| listen == settings.web.listen && listen.port() != 0) {
        faults.push(
            Fault::new(
                "metrics.listen",
                "the same address as web.listen",
                "leave it empty: the metrics are then on that listener",
            )
            .with_value(settings.web.listen),
        );
    }
    if !settings.rtc.bind.is_unspecified() {
        let family = settings.rtc.bind.is_ipv4();
        for ip in settings.rtc.advertise_ips.iter().filter(|ip| ip.is_ipv4() != family) {
            faults.push(
                Fault::new("rtc.advertise_ips", "not of the address family of rtc.bind", "take it out")
                    .with_value(ip),
            );
        }
    }
    faults
}

/// Files are to be readable and not empty, folders writable or able to be made.
pub(super) fn files(settings: &Settings) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (key, path) in secret_files(settings) {
        match fs::read(path) {
            Ok(content) if content.iter().all(u8::is_ascii_whitespace) => faults.push(
                Fault::new(key, "the file is empty", "write the secret into it").with_value(path.display()),
            ),
            Ok(content) if key == "web.token_file" && content.trim_ascii().len() < TOKEN_LENGTH => faults
                .push(
                    Fault::new(
                        key,
                        format!("the token in it has fewer than {TOKEN_LENGTH} characters"),
                        "write a random one: openssl rand -hex 32",
                    )
                    .with_value(path.display()),
                ),
            Ok(_) => {}
            Err(error) => faults.push(
                Fault::new(
                    key,
                    format!("the file cannot be read ({error})"),
                    "check the path, and that the recorder's user may read it",
                )
                .with_value(path.display()),
            ),
        }
    }
    let told = |key: &str, path: &Path, fault: FolderFault| {
        Fault::new(key, fault.problem, fault.advice).with_value(path.display())
    };
    if let Some(fault) = folder_fault(&settings.matrix.store) {
        faults.push(told("matrix.store", &settings.matrix.store, fault));
    }
    // A disk that fails may be back at the next start, and whoever takes the folder says so.
    let recordings = &settings.recordings.directory;
    if let Some(fault) = folder_fault(recordings).filter(|fault| !fault.may_pass()) {
        faults.push(told("recordings.directory", recordings, fault));
    }
    faults
}

pub(super) fn warnings(settings: &Settings) -> Vec<Fault> {
    let mut warnings = Vec::new();
    for (key, path) in secret_files(settings) {
        let mode = fs::metadata(path).map(|metadata| metadata.permissions().mode());
        if mode.is_ok_and(|mode| mode & 0o007 != 0) {
            warnings.push(
                Fault::new(
                    key,
                    "everybody on this machine can read the file",
                    "chmod 600 it, or use LoadCredential=",
                )
                .with_value(path.display()),
            );
        }
    }
    if settings.matrix.allow.is_empty() {
        warnings.push(Fault::new(
            "matrix.allow",
            "empty, so every invite and every call is refused",
            "set it to the people or servers who may call, [\"@ada:example.org\", \"*:example.org\"]",
        ));
    }
    if let Some(host) = settings.matrix.homeserver.strip_prefix("http://")
        && !["localhost", "127.", "[::1]"].iter().any(|local| host.starts_with(local))
    {
        warnings.push(
            Fault::new("matrix.homeserver", "password and token travel in the clear", "use https://")
                .with_value(&settings.matrix.homeserver),
        );
    }
    if settings.rtc.udp_port == 0 {
        warnings.push(
            Fault::new(
                "rtc.udp_port",
                "a different port at each start",
                "set one port and open it in the firewall",
            )
            .with_value(0),
        );
    }
    let recordings = &settings.recordings.directory;
    if let Some(fault) = folder_fault(recordings).filter(FolderFault::may_pass) {
        let cause = fault.cause.map(|cause| cause.to_string()).unwrap_or_default();
        let problem = format!("{} now ({cause})", fault.problem);
        warnings.push(
            Fault::new("recordings.directory", problem, "check the disk").with_value(recordings.display()),
        );
    }
    warnings
}

fn secret_files(settings: &Settings) -> Vec<(&'static str, &PathBuf)> {
    [
        ("matrix.password_file", &settings.matrix.password_file),
        ("matrix.access_token_file", &settings.matrix.access_token_file),
        ("matrix.store_passphrase_file", &settings.matrix.store_passphrase_file),
        ("matrix.recovery_key_file", &settings.matrix.recovery_key_file),
        ("web.token_file", &settings.web.token_file),
    ]
    .into_iter()
    .filter_map(|(key, path)| path.as_ref().map(|path| (key, path)))
    .collect()
}

/// Why `path` cannot be a folder that we write in; `None` if it can, or can be made.
fn folder_fault(path: &Path) -> Option<FolderFault> {
    let fault =
        |problem: String, advice, cause: Option<io::Error>| Some(FolderFault { problem, advice, cause });
    match fs::metadata(path) {
        Ok(metadata) if !metadata.is_dir() => fault("not a folder".into(), "name a folder", None),
        Ok(_) => {
            let refused = writable(path).err()?;
            fault(
                "the folder cannot be written".into(),
                "give it to the recorder's user, and check that the file system is not read-only",
                Some(refused),
            )
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let parent = path.ancestors().skip(1).find(|parent| parent.exists());
            let parent = parent.or(path.is_relative().then_some(Path::new(".")));
            let advice = "make it and give it to the recorder's user";
            match parent {
                Some(parent) if parent.is_dir() => {
                    let refused = writable(parent).err()?;
                    let problem = format!("does not exist and cannot be made in {}", parent.display());
                    fault(problem, advice, Some(refused))
                }
                Some(parent) => {
                    fault(format!("does not exist and cannot be made in {}", parent.display()), advice, None)
                }
                None => fault("does not exist".into(), advice, None),
            }
        }
        Err(error) => {
            let problem = format!("cannot be looked at ({error})");
            fault(problem, "check the rights of the folders above it", Some(error))
        }
    }
}

struct FolderFault {
    problem: String,
    advice: &'static str,
    /// What the system said.
    cause: Option<io::Error>,
}

impl FolderFault {
    /// The disk's fault and not the settings': starting again may help.
    fn may_pass(&self) -> bool {
        self.cause.as_ref().is_some_and(may_pass)
    }
}

/// `access(2)` with the rights this process has, a read-only file system included.
fn writable(path: &Path) -> io::Result<()> {
    let path = std::ffi::CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: the pointer is to a string that ends in NUL and outlives the call.
    let answer =
        unsafe { libc::faccessat(libc::AT_FDCWD, path.as_ptr(), libc::W_OK | libc::X_OK, libc::AT_EACCESS) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_disk_is_no_fault_of_the_settings() {
        let fault = |code| FolderFault {
            problem: String::new(),
            advice: "",
            cause: Some(io::Error::from_raw_os_error(code)),
        };
        for code in [libc::EROFS, libc::EIO, libc::ENOSPC, libc::EDQUOT, libc::ESTALE] {
            assert!(fault(code).may_pass(), "{code}");
        }
        for code in [libc::EACCES, libc::EPERM, libc::ENOTDIR, libc::ELOOP] {
            assert!(!fault(code).may_pass(), "{code}");
        }
        assert!(!FolderFault { cause: None, ..fault(0) }.may_pass());
    }

    #[test]
    fn folders_that_can_never_be_written_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        for (path, part) in [(file.clone(), "not a folder"), (file.join("below"), "looked at")] {
            let fault = folder_fault(&path).expect("a fault");
            assert!(fault.problem.contains(part) && !fault.may_pass(), "{}", fault.problem);
        }
        assert!(folder_fault(&folder.path().join("can/be/made")).is_none());
        assert!(folder_fault(folder.path()).is_none());
    }
}
