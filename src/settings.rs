//! What an operator can set: one TOML file, and environment variables over it.
//!
//! A start tells as many faults as it can at once, each with the key, the value and what to do. The secrets
//! themselves never stand here: only the paths of the files that hold them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use config::{Config, ConfigError, FileFormat};

mod check;
mod fault;
mod read;
mod values;

pub use fault::{Fault, Faults};
pub use values::{AllowPattern, ByteSize, LogFormat};

/// Where everything of the account and the recordings lies unless told otherwise.
const STATE: &str = "/var/lib/matrix-call-recorder";

/// Environment variables that begin so are settings: `RECORDER__MATRIX__HOMESERVER` sets `matrix.homeserver`.
pub const ENVIRONMENT_PREFIX: &str = "RECORDER";

/// Every key there is, in the order of `config/recorder.toml`.
pub const KEYS: [&str; 33] = [
    "matrix.homeserver",
    "matrix.user",
    "matrix.password_file",
    "matrix.access_token_file",
    "matrix.store",
    "matrix.store_passphrase_file",
    "matrix.recovery_key_file",
    "matrix.allow",
    "calls.answer",
    "calls.max",
    "group.record",
    "group.auto",
    "group.start_level",
    "group.commands_per_minute",
    "group.empty_after_seconds",
    "group.tile",
    "group.name",
    "group.contact",
    "rtc.udp_port",
    "rtc.bind",
    "rtc.advertise_ips",
    "rtc.include_loopback",
    "rtc.opus_bitrate",
    "rtc.video_start_kbps",
    "recordings.directory",
    "recordings.reserve",
    "web.listen",
    "web.token_file",
    "web.hosts",
    "web.source_url",
    "metrics.listen",
    "log.filter",
    "log.format",
];

/// The whole configuration, typed and checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    pub matrix: Matrix,
    pub calls: Calls,
    pub group: Group,
    pub rtc: Rtc,
    pub recordings: Recordings,
    pub web: Web,
    pub metrics: Metrics,
    pub log: Log,
}

/// The account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Matrix {
    /// Base URL of the homeserver's client API; required.
    pub homeserver: String,
    /// Full user id, `@recorder:example.org`; required.
    pub user: String,
    pub password_file: Option<PathBuf>,
    pub access_token_file: Option<PathBuf>,
    /// Folder of the session, the keys and the sync state.
    pub store: PathBuf,
    pub store_passphrase_file: Option<PathBuf>,
    /// The recovery key to use; without it one is made at first login and kept in
    /// [`Matrix::own_recovery_key_file`].
    pub recovery_key_file: Option<PathBuf>,
    /// Who may invite and call. Empty: nobody.
    pub allow: Vec<AllowPattern>,
}

impl Matrix {
    /// The saved login, tokens included, mode 0600. Once it exists no password or token file is needed.
    pub fn session_file(&self) -> PathBuf {
        self.store.join("session.json")
    }

    /// Where a recovery key that we made ourselves is kept, mode 0600.
    pub fn own_recovery_key_file(&self) -> PathBuf {
        self.store.join("recovery-key")
    }

    pub fn allows(&self, user_id: &str) -> bool {
        self.allow.iter().any(|pattern| pattern.matches(user_id))
    }
}

impl Default for Matrix {
    fn default() -> Self {
        Self {
            homeserver: String::new(),
            user: String::new(),
            password_file: None,
            access_token_file: None,
            store: Path::new(STATE).join("store"),
            store_passphrase_file: None,
            recovery_key_file: None,
            allow: Vec::new(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Calls {
    /// Answer and record 1:1 calls. Off: they are left alone, and ring until they time out.
    pub answer: bool,
    /// Calls recorded at the same time; a further one is refused.
    pub max: usize,
}

/// Calls of several people, recorded by command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Follow commands in rooms and record group calls.
    pub record: bool,
    /// Record every group call, in rooms where nobody said otherwise.
    pub auto: bool,
    /// Power level that starting and stopping a recording needs.
    pub start_level: i64,
    /// Commands of one user in a minute.
    pub commands_per_minute: usize,
    /// How long nobody but the recorder may be in a call.
    pub empty_after_seconds: u64,
    /// Show a picture with the recording time in the call.
    pub tile: bool,
    /// What people call the recorder; empty for the name that the room shows.
    pub name: String,
    /// Whom to ask about recordings; empty for nobody.
    pub contact: String,
}

impl Default for Group {
    fn default() -> Self {
        Self {
            record: true,
            auto: false,
            start_level: 50,
            commands_per_minute: 10,
            empty_after_seconds: 60,
            tile: true,
            name: String::new(),
            contact: String::new(),
        }
    }
}

impl Default for Calls {
    fn default() -> Self {
        Self { answer: true, max: 20 }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rtc {
    /// The one UDP port of all calls; 0 takes any free one.
    pub udp_port: u16,
    /// Local address of that port.
    pub bind: IpAddr,
    /// Public addresses to offer instead of the machine's own, for a host behind address translation.
    pub advertise_ips: Vec<IpAddr>,
    pub include_loopback: bool,
    /// What callers are asked to send, bits per second (RFC 7587 §6.1 `maxaveragebitrate`).
    pub opus_bitrate: u32,
    /// Bit rate at which callers' video is asked to start, kbit/s.
    pub video_start_kbps: u32,
}

impl Default for Rtc {
    fn default() -> Self {
        Self {
            udp_port: 50_000,
            bind: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            advertise_ips: Vec::new(),
            include_loopback: false,
            opus_bitrate: 128_000,
            video_start_kbps: 2_500,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recordings {
    pub directory: PathBuf,
    /// Free space to keep: below it video stops, below half of it audio ends too.
    pub reserve: ByteSize,
}

impl Default for Recordings {
    fn default() -> Self {
        Self { directory: Path::new(STATE).join("recordings"), reserve: ByteSize(1 << 30) }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Web {
    pub listen: SocketAddr,
    /// File with the token that a visitor needs; required for a listener that is not loopback.
    pub token_file: Option<PathBuf>,
    /// Names under which the page may be asked for, beside `localhost` and bare addresses.
    pub hosts: Vec<String>,
    /// Where the source of the running version is (AGPL-3.0 §13).
    pub source_url: String,
}

impl Default for Web {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
            token_file: None,
            hosts: Vec::new(),
            source_url: crate::cli::SOURCE.to_owned(),
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metrics {
    /// A listener of its own for `/metrics`; `None` leaves it on the page's listener.
    pub listen: Option<SocketAddr>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// Directives of `tracing_subscriber::EnvFilter`.
    pub filter: String,
    pub format: LogFormat,
}

impl Default for Log {
    fn default() -> Self {
        Self { filter: "info".into(), format: LogFormat::Text }
    }
}

/// This process's environment, variables that are not UTF-8 left out.
pub fn environment() -> Vec<(String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

impl Settings {
    /// Reads `path` (if given) and the environment over it, and checks everything that can be checked before
    /// a connection is made: types, ranges, what keys need of each other, and the files and folders they
    /// name.
    ///
    /// # Errors
    /// All faults that were found.
    pub fn load<E>(path: Option<&Path>, environment: E) -> Result<Self, Faults>
    where
        E: IntoIterator<Item = (String, String)>,
    {
        let environment: Vec<_> = environment.into_iter().collect();
        let text = match path {
            None => String::new(),
            Some(path) => {
                std::fs::read_to_string(path).map_err(|error| Faults::unreadable_file(path, &error))?
            }
        };
        let (settings, mut faults) = Self::parse(&text, &environment)?;
        faults.extend(check::cross(&settings));
        faults.extend(check::files(&settings));
        faults.into_result(settings)
    }

    /// Only the syntax, the types and the ranges: no file is touched.
    ///
    /// # Errors
    /// `text` is not TOML. Every other fault is in the list beside the settings, which hold the default
    /// there.
    pub fn parse(text: &str, environment: &[(String, String)]) -> Result<(Self, Faults), Faults> {
        let ours = environment.iter().filter(|(name, _)| name.starts_with("RECORDER__")).cloned().collect();
        let built = Config::builder()
            .add_source(config::File::from_str(text, FileFormat::Toml))
            .add_source(
                config::Environment::with_prefix(ENVIRONMENT_PREFIX)
                    .prefix_separator("__")
                    .separator("__")
                    .source(Some(ours)),
            )
            .build();
        let table = match built {
            Ok(config) => config.cache,
            Err(error) => return Err(Faults::not_toml(&syntax_error(&error))),
        };
        let credentials = environment
            .iter()
            .find(|(name, _)| name == "CREDENTIALS_DIRECTORY")
            .map(|(_, value)| value.as_str());
        let mut reader = read::Reader::new(table, &KEYS, credentials);
        let settings = Self::take(&mut reader);
        Ok((settings, reader.finish()))
    }

    fn take(reader: &mut read::Reader<'_>) -> Self {
        let default = Self::default();
        Self {
            matrix: Matrix {
                homeserver: reader.take("matrix.homeserver", default.matrix.homeserver, values::homeserver),
                user: reader.take("matrix.user", default.matrix.user, values::user_id),
                password_file: reader.secret_file("matrix.password_file"),
                access_token_file: reader.secret_file("matrix.access_token_file"),
                store: reader.take("matrix.store", default.matrix.store, values::folder),
                store_passphrase_file: reader.secret_file("matrix.store_passphrase_file"),
                recovery_key_file: reader.secret_file("matrix.recovery_key_file"),
                allow: reader.list("matrix.allow", values::allow_pattern),
            },
            calls: Calls {
                answer: reader.flag("calls.answer", default.calls.answer),
                max: reader.number("calls.max", default.calls.max, 1..=1_000),
            },
            group: Group {
                record: reader.flag("group.record", default.group.record),
                auto: reader.flag("group.auto", default.group.auto),
                start_level: reader.number("group.start_level", default.group.start_level, 0..=100),
                commands_per_minute: reader.number(
                    "group.commands_per_minute",
                    default.group.commands_per_minute,
                    1..=600,
                ),
                empty_after_seconds: reader.number(
                    "group.empty_after_seconds",
                    default.group.empty_after_seconds,
                    5..=86_400,
                ),
                tile: reader.flag("group.tile", default.group.tile),
                name: reader.take("group.name", default.group.name, values::short_text),
                contact: reader.take("group.contact", default.group.contact, values::short_text),
            },
            rtc: Rtc {
                udp_port: reader.number("rtc.udp_port", default.rtc.udp_port, 0..=65_535),
                bind: reader.take("rtc.bind", default.rtc.bind, values::address),
                advertise_ips: reader.list("rtc.advertise_ips", values::public_address),
                include_loopback: reader.flag("rtc.include_loopback", default.rtc.include_loopback),
                opus_bitrate: reader.number("rtc.opus_bitrate", default.rtc.opus_bitrate, 6_000..=510_000),
                video_start_kbps: reader.number(
                    "rtc.video_start_kbps",
                    default.rtc.video_start_kbps,
                    100..=50_000,
                ),
            },
            recordings: Recordings {
                directory: reader.take("recordings.directory", default.recordings.directory, values::folder),
                reserve: reader.size("recordings.reserve", default.recordings.reserve),
            },
            web: Web {
                listen: reader.take("web.listen", default.web.listen, values::listener),
                token_file: reader.secret_file("web.token_file"),
                hosts: reader.list("web.hosts", values::host_name),
                source_url: reader.take("web.source_url", default.web.source_url, values::page_address),
            },
            metrics: Metrics { listen: reader.take("metrics.listen", None, values::optional_listener) },
            log: Log {
                filter: reader.take("log.filter", default.log.filter, values::log_filter),
                format: reader.take("log.format", default.log.format, values::log_format),
            },
        }
    }

    /// What is allowed but worth one line at start.
    pub fn warnings(&self) -> Vec<Fault> {
        check::warnings(self)
    }
}

/// The parser's own words without the quoted line: somebody may have written a password into it.
fn syntax_error(error: &ConfigError) -> String {
    let text = match error {
        ConfigError::FileParse { cause, .. } => cause.to_string(),
        other => other.to_string(),
    };
    let mut lines = text.lines().filter(|line| !line.trim().is_empty());
    let first = lines.next().unwrap_or("not TOML").to_owned();
    match lines.next_back() {
        Some(last) if !last.contains('|') => format!("{first}: {}", last.trim()),
        _ => first,
    }
}
