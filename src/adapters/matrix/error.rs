//! What can go wrong with the account, by situation, each saying what to do; and what an SDK error means.

use std::error::Error as StdError;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use matrix_sdk::ruma::api::error::{ErrorBody, ErrorKind, FromHttpResponseError, RetryAfter};
use matrix_sdk::{HttpError, RefreshTokenError, RumaApiError};

/// Whose fault an [`AccountError`] is; the daemon's exit code follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorClass {
    /// Credentials or session (exit 77): starting again changes nothing.
    Authentication,
    /// The homeserver or the way to it (exit 75): starting again may help.
    Transient,
    /// A setting is wrong (exit 78).
    Configuration,
    /// The store or the state directory cannot be used (exit 78).
    Storage,
}

/// Why the account cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    #[error(
        "the homeserver refused the login of {user}: unknown user or wrong password; check matrix.user and the password file"
    )]
    WrongPassword { user: String },
    #[error(
        "the account {user} is deactivated or locked on its homeserver; ask its administrator or use another account"
    )]
    UserDeactivated { user: String },
    #[error(
        "{homeserver} has no login by password; create an access token for the recorder and set matrix.access_token_file"
    )]
    NoPasswordLogin { homeserver: String },
    #[error(
        "neither matrix.password_file nor matrix.access_token_file is set and there is no saved session; set one of them"
    )]
    NoCredentials,
    #[error(
        "the access token is not valid (any more); put a new one into the file of matrix.access_token_file"
    )]
    TokenRejected,
    #[error(
        "the session of device {device} was ended on the homeserver; remove {session} and the folder {store}, then start \
         again to log in as a new device"
    )]
    TokenRevoked { device: String, session: PathBuf, store: PathBuf },
    #[error("the access token belongs to {actual}, matrix.user says {expected}; make them agree")]
    TokenOfAnotherUser { expected: String, actual: String },
    #[error(
        "the saved session {session} belongs to {actual}, matrix.user says {expected}; make them agree, or set matrix.store \
         to an empty folder to log in as {expected}"
    )]
    SessionOfAnotherUser { expected: String, actual: String, session: PathBuf },
    #[error(
        "the access token belongs to no device, so it cannot be used with encryption; create one by a login"
    )]
    TokenWithoutDevice,
    #[error(
        "device {device} of {user} already has encryption keys on the homeserver, but the store {store} is empty: what is \
         encrypted for it could not be read; create a fresh access token (a new device) or restore the store"
    )]
    DeviceHasKeys { user: String, device: String, store: PathBuf },
    #[error(
        "the store {store} belongs to device {stored}, the session or token to {actual}; use the store of that device, or \
         set matrix.store to an empty folder to begin a new one"
    )]
    StoreOfAnotherDevice { store: PathBuf, stored: String, actual: String },
    #[error(
        "the session of device {device} is here but its store {store} is empty; restore the store, or remove {session} to \
         log in as a new device"
    )]
    StoreLost { device: String, session: PathBuf, store: PathBuf },
    #[error("another process uses the store {path}; stop it, or give this one a matrix.store of its own")]
    StoreLocked { path: PathBuf },
    #[error(
        "the passphrase of matrix.store_passphrase_file does not open the store {path}; use the one it was created with"
    )]
    StorePassphraseWrong { path: PathBuf },
    #[error(
        "the store {path} cannot be opened ({detail}); check the disk, or move the folder away to begin a new one"
    )]
    StoreBroken { path: PathBuf, detail: String },
    #[error("the saved session {path} cannot be read ({detail}); remove it to log in again")]
    SessionBroken { path: PathBuf, detail: String },
    #[error("{key}: cannot read {path} ({source}); check the path and the permissions")]
    SecretUnreadable { key: &'static str, path: PathBuf, source: std::io::Error },
    #[error("{key}: {path} is empty; write the secret into it")]
    SecretEmpty { key: &'static str, path: PathBuf },
    #[error("cannot write {path} ({source}); make it writable for the recorder's user")]
    StateUnwritable { path: PathBuf, source: std::io::Error },
    #[error(
        "matrix.homeserver {url:?} is not an http or https address; write it like https://matrix.example.org"
    )]
    BadHomeserver { url: String },
    #[error("matrix.user {user:?} is not a user id or name; write it like @recorder:example.org")]
    BadUser { user: String },
    #[error("{url} cannot be reached ({detail}); check matrix.homeserver, the network and the homeserver")]
    HomeserverUnreachable { url: String, detail: String },
    #[error("{url} answers with errors (status {status}); look at the homeserver, then start again")]
    HomeserverFailing { url: String, status: u16 },
    #[error(
        "{url} does not speak Matrix ({detail}); matrix.homeserver must name the client-server API, not a web page"
    )]
    NotAHomeserver { url: String, detail: String },
    #[error("{url} refuses logins for now, too many attempts; wait a few minutes")]
    RateLimited { url: String },
    #[error("the homeserver refused: {detail}")]
    Refused { detail: String },
}

impl AccountError {
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::WrongPassword { .. }
            | Self::UserDeactivated { .. }
            | Self::NoPasswordLogin { .. }
            | Self::TokenRejected
            | Self::TokenRevoked { .. }
            | Self::TokenOfAnotherUser { .. }
            | Self::SessionOfAnotherUser { .. }
            | Self::TokenWithoutDevice
            | Self::DeviceHasKeys { .. }
            | Self::Refused { .. } => ErrorClass::Authentication,
            Self::HomeserverUnreachable { .. }
            | Self::HomeserverFailing { .. }
            | Self::NotAHomeserver { .. }
            | Self::RateLimited { .. } => ErrorClass::Transient,
            Self::NoCredentials
            | Self::BadHomeserver { .. }
            | Self::BadUser { .. }
            | Self::SecretUnreadable { .. }
            | Self::SecretEmpty { .. } => ErrorClass::Configuration,
            Self::StoreOfAnotherDevice { .. }
            | Self::StoreLost { .. }
            | Self::StoreLocked { .. }
            | Self::StorePassphraseWrong { .. }
            | Self::StoreBroken { .. }
            | Self::SessionBroken { .. }
            | Self::StateUnwritable { .. } => ErrorClass::Storage,
        }
    }
}

/// What an error of the SDK means to us. Its texts hold no token and no URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// `M_UNKNOWN_TOKEN`, or the refresh token is gone.
    TokenRevoked,
    /// `M_LIMIT_EXCEEDED` or status 429, with the wait asked for.
    Limited(Option<Duration>),
    /// No answer at all.
    Unreachable(String),
    /// Status 5xx.
    Failing(u16),
    /// An answer that is not Matrix.
    Nonsense(String),
    /// A proper refusal: `errcode` or status.
    Refused { code: String, status: u16 },
    /// Not the homeserver's fault.
    Internal(String),
}

impl Fault {
    /// Trying the same again later may help.
    pub(super) fn passes(&self) -> bool {
        matches!(self, Self::Limited(_) | Self::Unreachable(_) | Self::Failing(_) | Self::Nonsense(_))
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TokenRevoked => write!(f, "the session was ended on the homeserver"),
            Self::Limited(_) => write!(f, "the homeserver asks us to slow down"),
            Self::Unreachable(detail) => write!(f, "the homeserver cannot be reached ({detail})"),
            Self::Failing(status) => write!(f, "the homeserver answers with status {status}"),
            Self::Nonsense(detail) => write!(f, "the homeserver's answer is not understood ({detail})"),
            Self::Refused { code, status } => {
                write!(f, "the homeserver refused with {code} (status {status})")
            }
            Self::Internal(detail) => write!(f, "{detail}"),
        }
    }
}

pub(super) fn fault_of(error: &matrix_sdk::Error) -> Fault {
    match error {
        matrix_sdk::Error::Http(error) => fault_of_http(error),
        matrix_sdk::Error::AuthenticationRequired => Fault::TokenRevoked,
        // Another task made the same request and met the fault itself.
        matrix_sdk::Error::ConcurrentRequestFailed => {
            Fault::Unreachable("a shared request failed".to_owned())
        }
        matrix_sdk::Error::UnknownError(inner) => match inner.downcast_ref::<HttpError>() {
            Some(error) => fault_of_http(error),
            None => Fault::Internal(innermost(inner.as_ref())),
        },
        other => Fault::Internal(innermost(other)),
    }
}

pub(super) fn fault_of_http(error: &HttpError) -> Fault {
    match error {
        HttpError::Reqwest(error) => Fault::Unreachable(innermost(error)),
        HttpError::Cached(error) => fault_of_http(error),
        HttpError::RefreshToken(RefreshTokenError::MatrixAuth(error)) => match fault_of_http(error) {
            // Any proper refusal of the refresh token ends the session (specification, "Refreshing access tokens").
            Fault::Refused { .. } => Fault::TokenRevoked,
            fault => fault,
        },
        HttpError::RefreshToken(_) => Fault::TokenRevoked,
        HttpError::Api(error) => match error.as_ref() {
            FromHttpResponseError::Server(RumaApiError::MatrixError(error)) => {
                let status = error.status_code.as_u16();
                match (error.error_kind(), &error.body) {
                    (Some(ErrorKind::UnknownToken(_) | ErrorKind::MissingToken), _) => Fault::TokenRevoked,
                    (Some(ErrorKind::LimitExceeded(data)), _) => {
                        Fault::Limited(data.retry_after.as_ref().map(wait))
                    }
                    _ if status == 429 => Fault::Limited(None),
                    _ if status >= 500 => Fault::Failing(status),
                    (Some(kind), _) => Fault::Refused { code: kind.errcode().to_string(), status },
                    (None, ErrorBody::Json(_)) => Fault::Refused { code: "no errcode".to_owned(), status },
                    (None, _) => Fault::Nonsense(format!("status {status} without JSON")),
                }
            }
            FromHttpResponseError::Server(_) => {
                Fault::Refused { code: "interactive authentication".to_owned(), status: 401 }
            }
            _ => Fault::Nonsense("the answer has not the shape of the specification".to_owned()),
        },
        other => Fault::Internal(innermost(other)),
    }
}

fn wait(after: &RetryAfter) -> Duration {
    match after {
        RetryAfter::Delay(wait) => *wait,
        RetryAfter::DateTime(at) => at.duration_since(SystemTime::now()).unwrap_or_default(),
    }
}

/// The text of the innermost cause: "connection refused" without the request around it.
pub(super) fn innermost(error: &(dyn StdError + 'static)) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    let text = cause.to_string();
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}

/// Waits between attempts: doubling from `first` to `longest`, each shortened by up to a half at random.
#[derive(Clone, Debug)]
pub(super) struct BackOff {
    first: Duration,
    longest: Duration,
    attempts: u32,
}

impl BackOff {
    pub(super) const fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, attempts: 0 }
    }

    pub(super) fn reset(&mut self) {
        self.attempts = 0;
    }

    /// The next wait; `asked` is a wait the server named, which is kept when longer (but 5 min at most).
    pub(super) fn next(&mut self, asked: Option<Duration>) -> Duration {
        let doubled = self.first.saturating_mul(1 << self.attempts.min(16)).min(self.longest);
        self.attempts = self.attempts.saturating_add(1);
        let wait = doubled.mul_f64(1.0 - random_fraction() / 2.0);
        asked.map_or(wait, |asked| asked.max(wait).min(Duration::from_secs(300)))
    }
}

/// In 0 ≤ f < 1, differing between processes: enough to keep clients from coming back in step.
fn random_fraction() -> f64 {
    use std::hash::{BuildHasher, Hasher};
    let hash = std::collections::hash_map::RandomState::new().build_hasher().finish();
    (hash >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use matrix_sdk::ruma::exports::http;

    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_begin_anew_after_a_success() {
        let mut back_off = BackOff::new(Duration::from_secs(1), Duration::from_secs(30));
        for expected in [1_u64, 2, 4, 8, 16, 30, 30] {
            let wait = back_off.next(None);
            let full = Duration::from_secs(expected);
            assert!(wait <= full && wait >= full / 2, "{wait:?} for {full:?}");
        }
        back_off.reset();
        assert!(back_off.next(None) <= Duration::from_secs(1));
    }

    #[test]
    fn a_wait_the_server_asks_for_is_kept_but_not_for_ever() {
        let mut back_off = BackOff::new(Duration::from_secs(1), Duration::from_secs(30));
        assert_eq!(back_off.next(Some(Duration::from_secs(60))), Duration::from_secs(60));
        assert_eq!(back_off.next(Some(Duration::from_secs(86_400))), Duration::from_secs(300));
    }

    /// The fault an answer of the homeserver stands for.
    fn answered(status: u16, headers: &[(&str, &str)], body: &str) -> Fault {
        use matrix_sdk::ruma::api::EndpointError;
        let mut answer = http::Response::builder().status(status);
        for (name, value) in headers {
            answer = answer.header(*name, *value);
        }
        let error = RumaApiError::from_http_response(answer.body(body.as_bytes()).unwrap());
        fault_of_http(&HttpError::from(FromHttpResponseError::Server(error)))
    }

    #[test]
    fn answers_of_the_homeserver_are_understood() {
        let refused = |code: &str, status| Fault::Refused { code: code.to_owned(), status };
        let slow = r#"{"errcode":"M_LIMIT_EXCEEDED","error":"x","retry_after_ms":1500}"#;
        assert_eq!(answered(429, &[], slow), Fault::Limited(Some(Duration::from_millis(1500))));
        let header = answered(429, &[("Retry-After", "7")], r#"{"errcode":"M_LIMIT_EXCEEDED","error":"x"}"#);
        assert_eq!(header, Fault::Limited(Some(Duration::from_secs(7))));
        assert_eq!(answered(429, &[], "slow down"), Fault::Limited(None));
        let ended = r#"{"errcode":"M_UNKNOWN_TOKEN","error":"x","soft_logout":true}"#;
        assert_eq!(answered(401, &[], ended), Fault::TokenRevoked);
        assert_eq!(
            answered(403, &[], r#"{"errcode":"M_FORBIDDEN","error":"x"}"#),
            refused("M_FORBIDDEN", 403)
        );
        assert_eq!(answered(400, &[], r#"{"errcode":"ORG.OWN","error":"x"}"#), refused("ORG.OWN", 400));
        assert_eq!(answered(400, &[], "{}"), refused("no errcode", 400));
        for (status, body) in [(500, "<html>"), (502, ""), (503, r#"{"errcode":"M_UNKNOWN","error":"x"}"#)] {
            assert_eq!(answered(status, &[], body), Fault::Failing(status));
        }
        assert!(matches!(answered(404, &[], "<html>"), Fault::Nonsense(_)));
    }

    #[test]
    fn only_what_may_change_by_itself_is_tried_again() {
        for (fault, passes) in [
            (Fault::Limited(None), true),
            (Fault::Unreachable(String::new()), true),
            (Fault::Failing(502), true),
            (Fault::TokenRevoked, false),
            (Fault::Refused { code: "M_FORBIDDEN".to_owned(), status: 403 }, false),
            (Fault::Internal(String::new()), false),
        ] {
            assert_eq!(fault.passes(), passes, "{fault}");
        }
    }
}
