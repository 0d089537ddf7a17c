//! The unit file, as systemd reads it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends where it fails")]

use std::path::Path;
use std::process::Command;

/// Keys that a systemd before 254 does not know and passes over.
const NEWER: [&str; 2] = ["RestartSteps", "RestartMaxDelaySec"];

fn unit() -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("config/matrix-call-recorder.service"))
        .unwrap()
}

/// Values of a key, as they stand in the unit.
fn values<'a>(unit: &'a str, key: &str) -> Vec<&'a str> {
    unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('=')).collect()
}

#[test]
fn systemd_has_nothing_to_say_about_the_unit() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("matrix-call-recorder.service");
    // The program need not be installed here.
    std::fs::write(&path, unit().replace("/usr/local/bin/matrix-call-recorder", "/bin/true")).unwrap();
    let said = Command::new("systemd-analyze").arg("verify").arg(&path).output();
    let said = said.expect("systemd-analyze is installed (Debian: systemd)");
    let text = String::from_utf8_lossy(&said.stderr).into_owned();
    let about_us = text.lines().filter(|line| line.contains("matrix-call-recorder.service"));
    let complaints: Vec<_> = about_us.filter(|line| !NEWER.iter().any(|key| line.contains(key))).collect();
    assert!(complaints.is_empty(), "{text}");
    assert!(said.status.success(), "{text}");
}

#[test]
fn what_passes_is_tried_again_for_ever_and_what_needs_a_person_is_not() {
    let unit = unit();
    assert_eq!(values(&unit, "StartLimitIntervalSec"), ["0"], "no limit of starts");
    assert_eq!(values(&unit, "Restart"), ["on-failure"]);
    assert_eq!(values(&unit, "RestartPreventExitStatus"), ["77 78"]);
    assert_eq!(values(&unit, "RestartMaxDelaySec"), ["1min"]);
}
