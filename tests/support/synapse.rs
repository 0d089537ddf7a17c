//! A Synapse of our own on loopback, for tests of the account: SQLite, no federation, no rate limits in the way.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// Ends with the test process, however that ends: the shell waits for its standard input to close.
const UNTIL_WE_END: &str = r#""$@" & pid=$!; cat >/dev/null; kill -9 "$pid"; wait "$pid""#;

pub struct Synapse {
    pub url: String,
    port: u16,
    folder: tempfile::TempDir,
    process: Option<Child>,
}

impl Synapse {
    /// Starts one and waits until it answers.
    pub fn start() -> Self {
        Self::start_with(json!({}))
    }

    /// `extra` is merged into the configuration.
    pub fn start_with(extra: Value) -> Self {
        let port = free_port();
        let folder = tempfile::tempdir().expect("a folder for Synapse");
        let mut synapse = Self { url: format!("http://127.0.0.1:{port}"), port, folder, process: None };
        synapse.configure(extra);
        synapse.run();
        synapse
    }

    /// Kills the process; its data and port stay.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            drop(process.stdin.take());
            process.wait().expect("Synapse to end");
        }
    }

    /// Starts the process over the same data and port.
    pub fn run(&mut self) {
        let python = virtual_environment().join("bin/python");
        let log = File::create(self.folder.path().join("out.log")).expect("a log file");
        let process = Command::new("sh")
            .args(["-c", UNTIL_WE_END, "sh"])
            .arg(python)
            .args(["-m", "synapse.app.homeserver", "--config-path"])
            .arg(self.folder.path().join("homeserver.yaml"))
            .current_dir(self.folder.path())
            .stdin(Stdio::piped())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn()
            .expect("a shell");
        self.process = Some(process);
        let ends = Instant::now() + Duration::from_secs(120);
        while get(self.port, "/_matrix/client/versions").is_none_or(|answer| !answer.contains("200 OK")) {
            let out = || fs::read_to_string(self.folder.path().join("out.log")).unwrap_or_default();
            assert!(Instant::now() < ends, "Synapse does not answer: {}", out());
            // Nothing else tells when another process listens.
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn configure(&self, extra: Value) {
        let folder = self.folder.path();
        let fast = json!({ "per_second": 10_000, "burst_count": 10_000 });
        let mut configuration = json!({
            "server_name": "localhost",
            "public_baseurl": format!("{}/", self.url),
            "pid_file": folder.join("synapse.pid"),
            "signing_key_path": folder.join("signing.key"),
            "media_store_path": folder.join("media"),
            "log_config": folder.join("log.yaml"),
            "listeners": [{
                "port": self.port, "bind_addresses": ["127.0.0.1"], "type": "http", "tls": false,
                "resources": [{ "names": ["client"] }],
            }],
            "database": { "name": "sqlite3", "args": { "database": folder.join("homeserver.db") } },
            "enable_registration": true,
            "enable_registration_without_verification": true,
            "macaroon_secret_key": "for tests only",
            "form_secret": "for tests only",
            "report_stats": false,
            "suppress_key_server_warning": true,
            "trusted_key_servers": [],
            "federation_domain_whitelist": [],
            "presence": { "enabled": false },
            "bcrypt_rounds": 4,
            "rc_message": fast,
            "rc_registration": fast,
            "rc_login": { "address": fast, "account": fast, "failed_attempts": fast },
            "rc_joins": { "local": fast, "remote": fast },
            "rc_joins_per_room": fast,
            "rc_invites": { "per_room": fast, "per_user": fast, "per_issuer": fast },
        });
        for (key, value) in extra.as_object().into_iter().flatten() {
            configuration[key] = value.clone();
        }
        let log = json!({
            "version": 1,
            "handlers": { "file": { "class": "logging.FileHandler", "filename": folder.join("synapse.log") } },
            "root": { "level": "WARNING", "handlers": ["file"] },
        });
        // JSON is YAML. The key is one of 32 zero bytes; nothing outside this machine ever sees it used.
        let files = [
            ("homeserver.yaml", configuration.to_string()),
            ("log.yaml", log.to_string()),
            ("signing.key", format!("ed25519 a_test {}\n", "A".repeat(43))),
        ];
        for (name, text) in files {
            fs::write(folder.join(name), text).expect("a configuration file");
        }
    }
}

impl Drop for Synapse {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The environment that the end-to-end tests use too; made when it is not there, and marked as their set-up marks it.
fn virtual_environment() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let requirements = root.join("tests/e2e/requirements.txt");
    let environment = root.join(".cache/synapse-venv");
    let installed = environment.join("installed.txt");
    fs::create_dir_all(root.join(".cache")).expect("the cache folder");
    let lock = File::create(root.join(".cache/synapse-venv.lock")).expect("a lock file");
    lock.lock().expect("the lock on the virtual environment");
    let wanted = fs::read(&requirements).expect("tests/e2e/requirements.txt");
    if fs::read(&installed).ok().as_deref() != Some(&wanted[..]) {
        succeed(Command::new("python3").args(["-m", "venv"]).arg(&environment));
        let mut install = Command::new(environment.join("bin/pip"));
        succeed(install.args(["install", "--quiet", "--disable-pip-version-check", "-r"]).arg(&requirements));
        fs::write(&installed, wanted).expect("a mark in the virtual environment");
    }
    environment
}

fn succeed(command: &mut Command) {
    let status = command.status().expect("the command to start");
    assert!(status.success(), "{command:?} failed");
}

pub fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    listener.local_addr().expect("its address").port()
}

fn get(port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}
