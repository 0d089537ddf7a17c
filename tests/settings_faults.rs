//! Bad configuration: every fault is told at once, with its key and what to do, and no secret is shown.

#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use matrix_call_recorder::settings::{ByteSize, Faults, Settings};

fn good(folder: &Path) -> String {
    fs::write(folder.join("password"), "correct horse").unwrap();
    format!(
        "[matrix]\nhomeserver = \"https://matrix.example.org\"\nuser = \"@recorder:example.org\"\n\
         password_file = \"{0}/password\"\nstore = \"{0}/store\"\nallow = [\"*:example.org\"]\n\
         [recordings]\ndirectory = \"{0}/recordings\"\n",
        folder.display()
    )
}

fn load(folder: &Path, text: &str, environment: &[(&str, &str)]) -> Result<Settings, Faults> {
    let path = folder.join("recorder.toml");
    fs::write(&path, text).unwrap();
    Settings::load(Some(&path), environment.iter().map(|(name, value)| ((*name).into(), (*value).into())))
}

fn faults(text: &str, environment: &[(&str, &str)]) -> Faults {
    let folder = tempfile::tempdir().unwrap();
    let whole = format!("{}{text}", good(folder.path()));
    load(folder.path(), &whole, environment).expect_err("the configuration is bad")
}

fn the_one(faults: &Faults) -> String {
    assert_eq!(faults.0.len(), 1, "{faults}");
    faults.0[0].to_string()
}

#[test]
fn a_good_file_loads() {
    let folder = tempfile::tempdir().unwrap();
    let settings = load(folder.path(), &good(folder.path()), &[]).unwrap();
    assert_eq!(settings.matrix.user, "@recorder:example.org");
    assert!(settings.matrix.allows("@ada:example.org"));
    assert!(!settings.matrix.allows("@eve:example.net"));
}

#[test]
fn all_faults_of_a_file_are_told_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let text = "[matrix]\nhomeserver = \"example.org\"\nuser = 7\npassword_fiel = \"x\"\nallow = [\"everyone\", \"@:\"]\n\
                [calls]\nmax = 0\nanswer = \"yes\"\n[rtc]\nudp_port = 70000\nopus_bitrate = 5999\nbind = \"home\"\n\
                [recordings]\nreserve = \"1 gig\"\n[web]\nlisten = \"8080\"\n[log]\nformat = \"xml\"\n[wbe]\nx = 1\n";
    let faults = load(folder.path(), text, &[]).unwrap_err();
    for key in [
        "matrix.homeserver",
        "matrix.user",
        "matrix.password_fiel",
        "matrix.allow",
        "calls.max",
        "calls.answer",
        "rtc.udp_port",
        "rtc.opus_bitrate",
        "rtc.bind",
        "recordings.reserve",
        "web.listen",
        "log.format",
        "wbe.x",
    ] {
        assert!(faults.0.iter().any(|fault| fault.key == key), "{key} is missing in:\n{faults}");
    }
    assert!(faults.0.iter().all(|fault| !fault.advice.is_empty() && !fault.problem.is_empty()));
    assert!(faults.to_string().starts_with("the configuration has "));
}

#[test]
fn a_misspelt_key_is_met_with_the_right_one() {
    let text = the_one(&faults("reservee = \"2 GiB\"\n", &[]));
    assert_eq!(text, "recordings.reservee: no such setting; did you mean recordings.reserve?");
    let text = the_one(&faults("[call]\nmax = 3\n", &[]));
    assert!(text.ends_with("did you mean calls.max?"), "{text}");
    let text = the_one(&faults("[nonsense]\nqqqq = 3\n", &[]));
    assert!(text.contains("remove it"), "{text}");
}

#[test]
fn a_misspelt_variable_is_named() {
    let text = the_one(&faults("", &[("RECORDER__CALLS__MAXX", "3")]));
    assert_eq!(text, "calls.maxx: no such setting (from RECORDER__CALLS__MAXX); did you mean calls.max?");
}

#[test]
fn a_password_in_the_wrong_place_is_not_repeated() {
    let faults =
        faults("[matrix.login]\npassword = \"hunter2\"\n", &[("RECORDER__MATRIX__PASSWORD", "hunter3")]);
    assert!(!format!("{faults} {faults:?}").contains("hunter"), "{faults}");
    assert!(faults.to_string().contains("did you mean matrix.password_file?"), "{faults}");
}

#[test]
fn a_line_that_is_not_toml_is_pointed_at_without_quoting_it() {
    let folder = tempfile::tempdir().unwrap();
    let faults = load(folder.path(), "[matrix]\npassword = hunter2 hunter3\n", &[]).unwrap_err();
    let text = the_one(&faults);
    assert!(text.contains("line 2"), "{text}");
    assert!(!text.contains("hunter"), "{text}");
}

#[test]
fn a_file_that_is_not_there_is_a_fault_with_its_path() {
    let faults = Settings::load(Some(Path::new("/nonexistent/recorder.toml")), []).unwrap_err();
    assert!(the_one(&faults).starts_with("/nonexistent/recorder.toml: "), "{faults}");
}

#[test]
fn nothing_at_all_tells_what_is_required() {
    let keys: Vec<_> = Settings::parse("", &[]).unwrap().1.0;
    assert!(keys.is_empty());
    let faults = Settings::load(None, []).unwrap_err();
    for key in ["matrix.homeserver", "matrix.user", "matrix.password_file"] {
        assert!(faults.0.iter().any(|fault| fault.key == key), "{faults}");
    }
}

#[test]
fn the_environment_wins_and_its_lists_have_commas() {
    let folder = tempfile::tempdir().unwrap();
    let settings = load(
        folder.path(),
        &good(folder.path()),
        &[
            ("RECORDER__MATRIX__ALLOW", "@ada:example.net, *:example.com"),
            ("RECORDER__CALLS__MAX", "7"),
            ("RECORDER__CALLS__ANSWER", "false"),
            ("RECORDER__RTC__ADVERTISE_IPS", "192.0.2.7"),
            ("RECORDER__RECORDINGS__RESERVE", "2 GiB"),
            ("RECORDER__MATRIX__USER", "@other:example.org"),
            ("RECORDER_SERVICE_HOST", "10.0.0.1"),
            ("HOME", "/root"),
        ],
    )
    .unwrap();
    assert_eq!(settings.calls.max, 7);
    assert!(!settings.calls.answer);
    assert!(settings.matrix.allows("@bob:example.com") && !settings.matrix.allows("@bob:example.org"));
    assert_eq!(settings.rtc.advertise_ips, ["192.0.2.7".parse::<std::net::IpAddr>().unwrap()]);
    assert_eq!(settings.recordings.reserve, ByteSize(2 << 30));
    assert_eq!(settings.matrix.user, "@other:example.org");
}

#[test]
fn both_kinds_of_login_are_one_too_many_and_none_needs_a_saved_login() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    fs::write(root.join("token"), "syt_secret").unwrap();
    let both =
        good(root).replace("store =", &format!("access_token_file = \"{}/token\"\nstore =", root.display()));
    let text = the_one(&load(root, &both, &[]).unwrap_err());
    assert!(text.starts_with("matrix.access_token_file: set together"), "{text}");

    let none = good(root).replace("password_file", "recovery_key_file");
    assert!(the_one(&load(root, &none, &[]).unwrap_err()).contains("first login"));
    fs::create_dir(root.join("store")).unwrap();
    fs::write(root.join("store/session.json"), "{}").unwrap();
    load(root, &none, &[]).expect("a saved login is enough");
}

#[test]
fn a_listener_elsewhere_needs_a_token() {
    let text = the_one(&faults("[web]\nlisten = \"0.0.0.0:8080\"\n", &[]));
    assert!(text.contains("web.listen = \"0.0.0.0:8080\"") && text.contains("set web.token_file"), "{text}");
    let text = the_one(&faults("[metrics]\nlisten = \"[::]:9464\"\n", &[]));
    assert!(text.contains("metrics.listen"), "{text}");

    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("token"), "0123456789abcdef0123456789abcdef\n").unwrap();
    let text = format!(
        "{}[web]\nlisten = \"0.0.0.0:8080\"\ntoken_file = \"{}/token\"\n",
        good(folder.path()),
        folder.path().display()
    );
    load(folder.path(), &text, &[]).unwrap();
    fs::write(folder.path().join("token"), "short\n").unwrap();
    assert!(the_one(&load(folder.path(), &text, &[]).unwrap_err()).contains("openssl rand"));
}

#[test]
fn files_and_folders_are_looked_at_before_anything_starts() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    fs::write(root.join("file"), "x").unwrap();
    let text = good(root)
        .replace("/password\"", "/missing\"")
        .replace("/recordings\"", "/file\"")
        .replace("/store\"", "/file/below\"");
    let faults = load(root, &text, &[]).unwrap_err();
    let text = faults.to_string();
    assert!(text.contains("/missing\": the file cannot be read (No such file"), "{text}");
    assert!(text.contains("recordings.directory") && text.contains("not a folder"), "{text}");
    assert!(text.contains("matrix.store"), "{text}");
}

#[test]
fn credentials_of_systemd_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let text =
        good(root).replace(&format!("{}/password", root.display()), "${CREDENTIALS_DIRECTORY}/password");
    let settings = load(root, &text, &[("CREDENTIALS_DIRECTORY", root.to_str().unwrap())]).unwrap();
    assert_eq!(settings.matrix.password_file, Some(root.join("password")));
    let faults = load(root, &text, &[]).unwrap_err();
    assert!(faults.to_string().contains("LoadCredential="), "{faults}");
}

#[test]
fn a_secret_that_everybody_can_read_is_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    let password = folder.path().join("password");
    let text = good(folder.path());
    for (mode, expected) in [(0o644, 1), (0o600, 0)] {
        fs::set_permissions(&password, fs::Permissions::from_mode(mode)).unwrap();
        let warnings = load(folder.path(), &text, &[]).unwrap().warnings();
        assert_eq!(warnings.iter().filter(|warning| warning.key == "matrix.password_file").count(), expected);
    }
}

#[test]
fn an_empty_allow_list_is_one_warning_that_names_the_key() {
    let folder = tempfile::tempdir().unwrap();
    let text = good(folder.path()).replace("allow = [\"*:example.org\"]", "");
    let warnings = load(folder.path(), &text, &[]).unwrap().warnings();
    assert_eq!(warnings.iter().filter(|warning| warning.key == "matrix.allow").count(), 1);
}
