//! Logs: levels by consequence, text or JSON, and nothing secret in them.
//!
//! Three walls keep tokens, keys and session descriptions out: our own lines name values as fields and never
//! those; lines of libraries are let through from warnings up only, whatever the filter says; and the writer
//! drops any line that holds a mark of a secret and blanks out the secrets that [`Redactor::keep_out`] was
//! told.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, filter};

use crate::settings::{Log, LogFormat};

/// Targets whose lines follow `log.filter`.
const OURS: [&str; 3] = ["matrix_call_recorder", "recorder_actors", "recorder_core"];

/// Targets that put packets or descriptions into warnings or errors too.
const SILENT: [&str; 3] = ["webrtc::peer_connection", "rtc::peer_connection", "str0m::change::sdp"];

/// Targets that call every failed request an error, an ordinary 404 or the `{}` of a homeserver without TURN too;
/// who asked tells what matters of it.
const ALARMISTS: [&str; 1] = ["matrix_sdk::http_client"];

/// Marks of what must not be in a log: SDP secrets and candidates (RFC 8839, RFC 8122, RFC 4568), HTTP
/// credentials, private keys.
const MARKS: [&str; 9] = [
    "a=ice-pwd",
    "a=ice-ufrag",
    "a=fingerprint",
    "a=crypto",
    "a=candidate",
    "candidate:",
    "Bearer ",
    "access_token=",
    "BEGIN PRIVATE KEY",
];

/// How access and refresh tokens of homeservers begin; marks only at the start of a word (not in `format_`).
const TOKENS: [&str; 6] = ["syt_", "syr_", "mat_", "mar_", "mct_", "mcr_"];

/// Stands in place of a secret.
pub const REDACTED: &str = "[redacted]";
/// Longest line that is written; the rest of a longer one is cut.
pub const LINE: usize = 16 * 1024;
/// Secrets kept out for good; there are five secret files and a recovery key.
const SECRETS: usize = 32;
/// Tokens kept out, the newest: they are replaced every few minutes, two at a time.
const TOKENS_KEPT: usize = 32;
/// A shorter "secret" would blank out ordinary words.
const SHORTEST_SECRET: usize = 6;

#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    #[error("log.filter {filter:?} cannot be used: {reason}")]
    BadFilter { filter: String, reason: String },
    #[error("logging was already set up in this process")]
    AlreadySetUp,
}

/// Keeps known secrets out of every line.
#[derive(Clone, Debug, Default)]
pub struct Redactor {
    secrets: Arc<RwLock<Secrets>>,
}

#[derive(Default)]
struct Secrets {
    lasting: VecDeque<String>,
    tokens: VecDeque<String>,
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} secrets", self.all().count())
    }
}

impl Secrets {
    fn all(&self) -> impl Iterator<Item = &String> {
        self.lasting.iter().chain(&self.tokens)
    }
}

/// The oldest go first.
fn remember(secrets: &mut VecDeque<String>, secret: &str, most: usize) {
    let secret = secret.trim();
    if secret.len() >= SHORTEST_SECRET && !secrets.iter().any(|known| known == secret) {
        if secrets.len() == most {
            secrets.pop_front();
        }
        secrets.push_back(secret.to_owned());
    }
}

impl Redactor {
    /// From now on `secret` is blanked out wherever it would be written.
    pub fn keep_out(&self, secret: &str) {
        let mut secrets = self.secrets.write().unwrap_or_else(PoisonError::into_inner);
        remember(&mut secrets.lasting, secret, SECRETS);
    }

    /// As [`Self::keep_out`], for a token that will be replaced; it pushes out older tokens only.
    pub fn keep_out_token(&self, token: &str) {
        let mut secrets = self.secrets.write().unwrap_or_else(PoisonError::into_inner);
        remember(&mut secrets.tokens, token, TOKENS_KEPT);
    }

    /// One event as it may be written: without secrets, on one line, of bounded length.
    pub fn clean(&self, event: &str) -> String {
        self.shorten(event).0
    }

    /// The cleaned text, and whether anything was cut off its end.
    fn shorten(&self, event: &str) -> (String, bool) {
        // A line break out of remote text would forge a line.
        let mut line = event.trim_end_matches('\n').replace('\n', "\\n").replace('\r', "\\r");
        let mut cut = false;
        for secret in self.secrets.read().unwrap_or_else(PoisonError::into_inner).all() {
            if line.contains(secret) {
                line = line.replace(secret, REDACTED);
            }
        }
        if let Some(place) = marks(&line).map(|(place, _)| place).min() {
            // What stands before the first mark tells where the line came from; what follows may be anything.
            line.truncate(place);
            line.push_str(REDACTED);
            cut = true;
        }
        if line.len() > LINE {
            line.truncate(line.floor_char_boundary(LINE));
            line.push('…');
            cut = true;
        }
        (line, cut)
    }
}

/// Places of marks in `text`.
fn marks(text: &str) -> impl Iterator<Item = (usize, &'static str)> {
    let plain = MARKS.into_iter().filter_map(|mark| text.find(mark).map(|place| (place, mark)));
    let tokens = TOKENS.into_iter().filter_map(|mark| {
        text.match_indices(mark)
            .find(|(place, _)| !text[..*place].ends_with(|c: char| c.is_alphanumeric() || c == '_'))
            .map(|(place, _)| (place, mark))
    });
    plain.chain(tokens)
}

/// Writes whole events, cleaned.
#[derive(Clone, Debug)]
struct Clean<M> {
    redactor: Redactor,
    json: bool,
    inner: M,
}

/// One event on its way out.
struct Line<W: Write> {
    redactor: Redactor,
    json: bool,
    buffer: Vec<u8>,
    inner: W,
}

impl<'a, M: MakeWriter<'a>> MakeWriter<'a> for Clean<M> {
    type Writer = Line<M::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        Line {
            redactor: self.redactor.clone(),
            json: self.json,
            buffer: Vec::new(),
            inner: self.inner.make_writer(),
        }
    }
}

impl<W: Write> Write for Line<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let (mut line, cut) = self.redactor.shorten(&String::from_utf8_lossy(&self.buffer));
        if cut && self.json {
            // What is left of an object is none, so it becomes the text of one.
            line = serde_json::json!({ "message": REDACTED, "began": line }).to_string();
        }
        line.push('\n');
        self.buffer.clear();
        self.inner.write_all(line.as_bytes())?;
        self.inner.flush()
    }
}

impl<W: Write> Drop for Line<W> {
    fn drop(&mut self) {
        if !self.buffer.is_empty() {
            // A log that cannot be written has nowhere to say so.
            let _ = self.flush();
        }
    }
}

/// Sets up the process's log, on standard error.
///
/// # Errors
/// The filter is not one, or a log was set up before.
pub fn init(log: &Log) -> Result<Redactor, TelemetryError> {
    let redactor = Redactor::default();
    let layer = layer(log, redactor.clone(), io::stderr)?;
    tracing_subscriber::registry().with(layer).try_init().map_err(|_| TelemetryError::AlreadySetUp)?;
    Ok(redactor)
}

/// The layer of [`init`], writing to `writer`: tests capture with it what the daemon would log.
///
/// # Errors
/// The filter is not one.
pub fn layer<S, M>(
    log: &Log,
    redactor: Redactor,
    writer: M,
) -> Result<Box<dyn Layer<S> + Send + Sync>, TelemetryError>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    M: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let wanted = EnvFilter::builder().parse(&log.filter).map_err(|error| TelemetryError::BadFilter {
        filter: log.filter.clone(),
        reason: error.to_string(),
    })?;
    let quiet = filter::filter_fn(may_be_logged);
    let writer = Clean { redactor, json: log.format == LogFormat::Json, inner: writer };
    let layer = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(false);
    let layer = match log.format {
        LogFormat::Text => layer.boxed(),
        LogFormat::Json => layer.json().flatten_event(true).with_current_span(false).boxed(),
    };
    Ok(layer.with_filter(wanted).with_filter(quiet).boxed())
}

/// Libraries only from warnings up, and some not at all: their finer lines hold descriptions, packets and
/// requests.
fn may_be_logged(metadata: &Metadata<'_>) -> bool {
    let target = metadata.target();
    let within = |prefix: &str| {
        target.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    };
    if OURS.iter().any(|ours| within(ours)) {
        return true;
    }
    *metadata.level() <= Level::WARN && !SILENT.iter().chain(&ALARMISTS).any(|silent| within(silent))
}

/// Collects what the daemon would log, for tests that prove what is not in it.
#[derive(Clone, Debug, Default)]
pub struct Capture(Arc<Mutex<Vec<u8>>>);

impl Capture {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }
}

impl Write for Capture {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Capture {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// The marks of secrets that `text` holds; empty for a log that is clean. For tests over whole logs.
pub fn marks_in(text: &str) -> Vec<&'static str> {
    marks(text).map(|(_, mark)| mark).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SDP: &str =
        "v=0\r\na=ice-ufrag:x1y2\r\na=ice-pwd:abcdefghijklmnopqrstuv\r\na=fingerprint:sha-256 AA:BB\r\n";

    fn logged(filter: &str, format: LogFormat, redactor: &Redactor, act: impl FnOnce()) -> String {
        let capture = Capture::default();
        let log = Log { filter: filter.into(), format };
        let layer = layer(&log, redactor.clone(), capture.clone()).unwrap();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), act);
        capture.text()
    }

    #[test]
    fn our_lines_follow_the_filter_and_libraries_only_warn() {
        let act = || {
            tracing::debug!(target: "recorder_actors::call", call = 1, "call opened");
            tracing::info!(target: "str0m::rtc", "library info");
            tracing::trace!(target: "matrix_sdk::client", "library trace");
            tracing::warn!(target: "matrix_sdk::client", "library warning");
            tracing::error!(target: "matrix_sdk::http_client", "error while sending request: 404");
        };
        let text = logged("trace", LogFormat::Text, &Redactor::default(), act);
        assert!(text.contains("call opened") && text.contains("library warning"), "{text}");
        assert!(!text.contains("library info") && !text.contains("library trace"), "{text}");
        assert!(!text.contains("404"), "{text}");
        let text = logged("info", LogFormat::Text, &Redactor::default(), act);
        assert!(!text.contains("call opened"), "{text}");
    }

    #[test]
    fn no_description_reaches_the_log_even_at_trace() {
        for format in [LogFormat::Text, LogFormat::Json] {
            let text = logged("trace", format, &Redactor::default(), || {
                tracing::debug!(target: "str0m::change", sdp = SDP, "offer");
                tracing::warn!(target: "str0m::change", sdp = SDP, "bad offer");
                tracing::error!(target: "matrix_call_recorder::adapters", ?SDP, "mistake of our own");
                tracing::error!(target: "webrtc::peer_connection::driver", "dropped packet 80 60 12");
            });
            assert_eq!(marks_in(&text), Vec::<&str>::new(), "{text}");
            assert!(!text.contains("abcdefghijklmnopqrstuv") && !text.contains("80 60 12"), "{text}");
            assert!(text.contains(REDACTED), "{text}");
            if format == LogFormat::Json {
                assert!(
                    text.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()),
                    "{text}"
                );
            }
        }
    }

    #[test]
    fn remote_text_cannot_forge_a_line() {
        let name = "Ada\n2026-11-22T00:00:00Z ERROR disk on fire";
        let text = logged("info", LogFormat::Text, &Redactor::default(), || {
            tracing::info!(target: "recorder_actors", format_version = 1, %name, "participant joined");
        });
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.contains("format_version=1"), "{text}");
    }

    #[test]
    fn a_known_secret_is_blanked_out_and_the_rest_of_the_line_stays() {
        let redactor = Redactor::default();
        redactor.keep_out("correct horse battery\n");
        let text = logged("info", LogFormat::Json, &redactor, || {
            tracing::warn!(target: "matrix_sdk", "login with correct horse battery failed");
        });
        assert!(text.contains("login with [redacted] failed"), "{text}");
        let token = logged("info", LogFormat::Text, &redactor, || {
            tracing::warn!(target: "hyper", "GET /sync?access_token=syt_cmVj_AbCd_1234");
        });
        assert!(token.contains("GET /sync?[redacted]") && !token.contains("AbCd"), "{token}");
    }

    #[test]
    fn tokens_that_are_replaced_push_out_no_password() {
        let redactor = Redactor::default();
        redactor.keep_out("correct horse battery");
        for n in 0..1_000 {
            redactor.keep_out_token(&format!("opaque-token-{n:04}"));
        }
        assert_eq!(redactor.clean("correct horse battery, opaque-token-0999"), "[redacted], [redacted]");
        assert_eq!(
            format!("{redactor:?}"),
            "Redactor { secrets: RwLock { data: 33 secrets, poisoned: false, .. } }"
        );
    }

    #[test]
    fn a_text_of_ten_megabytes_is_one_short_line() {
        let huge = "x".repeat(10_000_000);
        let text = logged("info", LogFormat::Text, &Redactor::default(), || {
            tracing::warn!(target: "matrix_sdk", "{huge}");
        });
        assert!(text.len() < LINE + 16, "{}", text.len());
    }

    #[test]
    fn a_filter_that_is_none_is_refused_with_its_text() {
        let log = Log { filter: "info,=".into(), format: LogFormat::Text };
        let error = layer::<tracing_subscriber::Registry, _>(&log, Redactor::default(), Capture::default())
            .err()
            .map(|error| error.to_string());
        assert!(error.is_some_and(|text| text.contains("info,=")));
    }

    #[test]
    fn json_lines_are_json() {
        let text = logged("info", LogFormat::Json, &Redactor::default(), || {
            tracing::info!(target: "recorder_actors", calls = 2, "tree started");
        });
        let line: serde_json::Value = serde_json::from_str(text.trim()).unwrap();
        assert_eq!((line["calls"].as_u64(), line["message"].as_str()), (Some(2), Some("tree started")));
    }
}
