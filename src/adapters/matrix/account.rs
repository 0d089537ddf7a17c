//! Logging in, restoring the session, and keeping it on disk.
//!
//! The store holds the device's keys, the state directory its session. `device.json` in the store says which device it
//! belongs to, so that a session never meets the keys of another device.

use std::path::{Path, PathBuf};
use std::time::Duration;

use matrix_sdk::authentication::matrix::MatrixSession;
use matrix_sdk::config::RequestConfig;
use matrix_sdk::cross_process_lock::CrossProcessLockConfig;
use matrix_sdk::encryption::EncryptionSettings;
use matrix_sdk::reqwest::{self, Url};
use matrix_sdk::ruma::api::client::session::get_login_types::v3::LoginType;
use matrix_sdk::ruma::{DeviceId, UserId};
use matrix_sdk::{Client, ClientBuildError, SessionMeta, SessionTokens, SqliteStoreConfig};
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use super::allow::AllowList;
use super::error::{AccountError, Fault, fault_of, fault_of_http, innermost};
use super::files::{self, StoreLock};
use crate::telemetry::Redactor;

/// One attempt of one request; retries are ours, so that each caller has its own limit.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// What the account needs to know.
#[derive(Clone, Debug)]
pub struct AccountSettings {
    /// Address of the client-server API. Used as it is: what a login answer's well-known names is not followed.
    pub homeserver: String,
    /// `@recorder:example.org`, or the local part alone.
    pub user: String,
    pub password_file: Option<PathBuf>,
    pub access_token_file: Option<PathBuf>,
    /// Folder of the SQLite stores.
    pub store: PathBuf,
    pub store_passphrase_file: Option<PathBuf>,
    /// Recovery key of an identity that exists already.
    pub recovery_key_file: Option<PathBuf>,
    /// Folder of `session.json`, `recovery-key` and `inbox.json`.
    pub state_dir: PathBuf,
    pub allow: AllowList,
    /// What people call the recorder beside its display name; empty for nothing.
    pub called: String,
    /// Name of a newly created device, as other users see it.
    pub device_name: String,
    /// Keeps out of the log what the account comes to know.
    pub redactor: Redactor,
}

/// A client with a session, not yet syncing.
pub(super) struct LoggedIn {
    pub(super) client: Client,
    pub(super) lock: StoreLock,
    /// The device was not used before.
    pub(super) fresh: bool,
    /// For interactive authentication of the first cross-signing upload.
    pub(super) password: Option<String>,
}

/// Which device a store belongs to.
#[derive(Debug, Serialize, Deserialize)]
struct StoreOwner {
    user_id: String,
    device_id: String,
}

#[derive(Debug, Deserialize)]
struct Whoami {
    user_id: String,
    device_id: Option<String>,
}

pub(super) async fn log_in(settings: &AccountSettings) -> Result<LoggedIn, AccountError> {
    let homeserver = homeserver(settings)?;
    files::private_folder(&settings.store)?;
    files::private_folder(&settings.state_dir)?;
    let lock = StoreLock::take(&settings.store)?;
    let secret =
        |key, path: &Option<PathBuf>| path.as_deref().map(|path| files::secret(key, path)).transpose();
    let password = secret("matrix.password_file", &settings.password_file)?;
    let token = secret("matrix.access_token_file", &settings.access_token_file)?;
    let passphrase = secret("matrix.store_passphrase_file", &settings.store_passphrase_file)?;
    let session = load_session(&settings.state_dir)?;
    if let Some(session) = &session {
        keep_out(&settings.redactor, &session.tokens);
    }
    let owner = load_owner(&settings.store)?;
    if session.is_none() && password.is_none() && token.is_none() {
        return Err(AccountError::NoCredentials);
    }

    let client = open(settings, &homeserver, passphrase.as_deref()).await?;
    keep_refreshed_tokens(&client, settings);
    let entry = Entry { settings, client: &client, homeserver: &homeserver, owner: owner.as_ref() };
    let fresh = session.is_none();
    match (session, &token, &password) {
        (Some(session), token, _) => entry.restore(session, token.as_deref()).await?,
        (None, Some(token), _) => entry.with_token(token).await?,
        (None, None, Some(password)) => entry.with_password(password).await?,
        (None, None, None) => return Err(AccountError::NoCredentials),
    }
    Ok(LoggedIn { client, lock, fresh, password })
}

fn homeserver(settings: &AccountSettings) -> Result<Url, AccountError> {
    let bad = || AccountError::BadHomeserver { url: settings.homeserver.clone() };
    let url = Url::parse(&settings.homeserver).map_err(|_| bad())?;
    let usable = matches!(url.scheme(), "http" | "https") && url.has_host();
    if usable { Ok(url) } else { Err(bad()) }
}

async fn open(
    settings: &AccountSettings,
    url: &Url,
    passphrase: Option<&str>,
) -> Result<Client, AccountError> {
    let path = settings.store.clone();
    let store = SqliteStoreConfig::with_low_memory_config(&settings.store).passphrase(passphrase);
    // Cross-signing is set up by ourselves, where its failures can be told; history is of no use to a recorder.
    let encryption = EncryptionSettings { auto_enable_cross_signing: false, ..EncryptionSettings::default() };
    let built = Client::builder()
        .homeserver_url(url)
        .respect_login_well_known(false)
        .handle_refresh_tokens()
        .sqlite_store_with_config_and_cache_path(store, None::<&Path>)
        // The lock file keeps a second process out.
        .cross_process_store_config(CrossProcessLockConfig::SingleProcess)
        .with_encryption_settings(encryption)
        .request_config(RequestConfig::new().disable_retry().timeout(REQUEST_TIMEOUT))
        .user_agent(concat!("matrix-call-recorder/", env!("CARGO_PKG_VERSION")))
        .build();
    Box::pin(built).await.map_err(|error| match error {
        ClientBuildError::SqliteStore(error) => {
            let detail = innermost(&error);
            // The cipher of a store is kept encrypted by the passphrase; it fails to open with another.
            if format!("{error:?}").starts_with("InitCipher") {
                AccountError::StorePassphraseWrong { path }
            } else {
                AccountError::StoreBroken { path, detail }
            }
        }
        ClientBuildError::Http(error) => situation(url, fault_of_http(&error)),
        other => AccountError::StoreBroken { path, detail: innermost(&other) },
    })
}

/// The ways to a session.
struct Entry<'a> {
    settings: &'a AccountSettings,
    client: &'a Client,
    homeserver: &'a Url,
    owner: Option<&'a StoreOwner>,
}

impl Entry<'_> {
    fn session_path(&self) -> PathBuf {
        session_path(&self.settings.state_dir)
    }

    /// Goes on with the saved session. An unreachable homeserver is no obstacle, the sync loop waits for it.
    async fn restore(&self, mut session: MatrixSession, token: Option<&str>) -> Result<(), AccountError> {
        let device = session.meta.device_id.to_string();
        if !is_user(session.meta.user_id.as_str(), &self.settings.user) {
            return Err(AccountError::SessionOfAnotherUser {
                expected: self.settings.user.clone(),
                actual: session.meta.user_id.to_string(),
                session: self.session_path(),
            });
        }
        match self.owner {
            None => {
                let (session, store) = (self.session_path(), self.settings.store.clone());
                return Err(AccountError::StoreLost { device, session, store });
            }
            Some(owner) => self.check_owner(owner, session.meta.user_id.as_str(), &device)?,
        }
        if let Some(token) = token.filter(|token| *token != session.tokens.access_token) {
            self.adopt_newer_token(&mut session, token).await?;
        }
        self.use_session(session).await?;
        match self.client.whoami().await.map_err(|error| fault_of_http(&error)) {
            Ok(_) => info!(device, "session restored"),
            Err(Fault::TokenRevoked) => {
                let (session, store) = (self.session_path(), self.settings.store.clone());
                return Err(AccountError::TokenRevoked { device, session, store });
            }
            Err(fault) => warn!(device, %fault, "session restored, waiting for the homeserver"),
        }
        Ok(())
    }

    /// A token file that changed since the session was saved holds a newer token of the same device, or an error.
    async fn adopt_newer_token(&self, session: &mut MatrixSession, token: &str) -> Result<(), AccountError> {
        let device = session.meta.device_id.as_str();
        match whoami(self.client.http_client(), self.homeserver, token).await {
            Ok(found) if found.device_id.as_deref() == Some(device) => {
                session.tokens = SessionTokens { access_token: token.to_owned(), refresh_token: None };
                Ok(())
            }
            Ok(found) => Err(AccountError::StoreOfAnotherDevice {
                store: self.settings.store.clone(),
                stored: device.to_owned(),
                actual: found.device_id.unwrap_or_else(|| "no device".to_owned()),
            }),
            // The saved session may be the newer one, its tokens were refreshed since.
            Err(AccountError::TokenRejected) => Ok(()),
            Err(error) if error.class() == super::ErrorClass::Transient => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn with_token(&self, token: &str) -> Result<(), AccountError> {
        let http = self.client.http_client();
        let found = whoami(http, self.homeserver, token).await?;
        let expected = &self.settings.user;
        if !is_user(&found.user_id, expected) {
            return Err(AccountError::TokenOfAnotherUser {
                expected: expected.clone(),
                actual: found.user_id,
            });
        }
        let Some(device) = found.device_id else { return Err(AccountError::TokenWithoutDevice) };
        match self.owner {
            Some(owner) => self.check_owner(owner, &found.user_id, &device)?,
            None if device_has_keys(http, self.homeserver, token, &found.user_id, &device).await? => {
                let store = self.settings.store.clone();
                return Err(AccountError::DeviceHasKeys { user: found.user_id, device, store });
            }
            None => {}
        }
        let user_id = UserId::parse(&found.user_id)
            .map_err(|_| AccountError::BadUser { user: found.user_id.clone() })?;
        let meta = SessionMeta { user_id, device_id: <&DeviceId>::from(device.as_str()).to_owned() };
        let tokens = SessionTokens { access_token: token.to_owned(), refresh_token: None };
        self.use_session(MatrixSession { meta, tokens }).await?;
        info!(device, "logged in with an access token");
        self.keep()
    }

    async fn with_password(&self, password: &str) -> Result<(), AccountError> {
        let auth = self.client.matrix_auth();
        let user = &self.settings.user;
        let types = auth
            .get_login_types()
            .await
            .map_err(|error| situation(self.homeserver, fault_of_http(&error)))?;
        if !types.flows.iter().any(|flow| matches!(flow, LoginType::Password(_))) {
            return Err(AccountError::NoPasswordLogin { homeserver: self.homeserver.to_string() });
        }
        let mut login = auth.login_username(user, password).request_refresh_token();
        match self.owner {
            // The session was lost but not the keys: the same device comes back.
            Some(owner) => login = login.device_id(&owner.device_id),
            None => login = login.initial_device_display_name(&self.settings.device_name),
        }
        let sent = Box::pin(login.send()).await;
        let answer = sent.map_err(|error| match fault_of(&error) {
            Fault::Refused { code, .. } if code == "M_USER_DEACTIVATED" || code == "M_USER_LOCKED" => {
                AccountError::UserDeactivated { user: user.clone() }
            }
            Fault::Refused { code, .. } if code == "M_FORBIDDEN" || code == "M_INVALID_USERNAME" => {
                AccountError::WrongPassword { user: user.clone() }
            }
            fault => self.opened(situation(self.homeserver, fault)),
        })?;
        if let Some(tokens) = self.client.session_tokens() {
            keep_out(&self.settings.redactor, &tokens);
        }
        if let Some(owner) = self.owner {
            let http = self.client.http_client();
            let user = answer.user_id.as_str();
            if !device_has_keys(http, self.homeserver, &answer.access_token, user, &owner.device_id).await? {
                // The homeserver forgot the device's keys and the store believes they are published.
                let _ = auth.logout().await;
                let (session, store) = (self.session_path(), self.settings.store.clone());
                return Err(AccountError::TokenRevoked { device: owner.device_id.clone(), session, store });
            }
        }
        info!(device = answer.device_id.as_str(), "logged in with a password");
        self.keep()
    }

    async fn use_session(&self, session: MatrixSession) -> Result<(), AccountError> {
        let restored = Box::pin(self.client.restore_session(session)).await;
        restored.map_err(|error| self.opened(situation(self.homeserver, fault_of(&error))))
    }

    /// An inner error while keys are loaded is the store's.
    fn opened(&self, error: AccountError) -> AccountError {
        match error {
            AccountError::Refused { detail } if !detail.starts_with("M_") => {
                AccountError::StoreBroken { path: self.settings.store.clone(), detail }
            }
            error => error,
        }
    }

    fn check_owner(&self, owner: &StoreOwner, user: &str, device: &str) -> Result<(), AccountError> {
        if owner.user_id == user && owner.device_id == device {
            return Ok(());
        }
        Err(AccountError::StoreOfAnotherDevice {
            store: self.settings.store.clone(),
            stored: format!("{} of {}", owner.device_id, owner.user_id),
            actual: format!("{device} of {user}"),
        })
    }

    /// Saves whose store this is, then the session.
    fn keep(&self) -> Result<(), AccountError> {
        let Some(meta) = self.client.session_meta() else { return Ok(()) };
        let owner = StoreOwner { user_id: meta.user_id.to_string(), device_id: meta.device_id.to_string() };
        let path = owner_path(&self.settings.store);
        let written = serde_json::to_vec(&owner).map_err(std::io::Error::from);
        written
            .and_then(|bytes| files::replace(&path, &bytes, true))
            .map_err(|source| AccountError::StateUnwritable { path, source })?;
        save_session(self.client, &self.settings.state_dir)
            .map_err(|source| AccountError::StateUnwritable { path: self.session_path(), source })
    }
}

/// Whether `matrix.user`, a user id or its local part, names this user.
fn is_user(user_id: &str, setting: &str) -> bool {
    let local_part = user_id.trim_start_matches('@').split(':').next().unwrap_or_default();
    user_id == setting || local_part == setting.trim_start_matches('@')
}

fn session_path(state_dir: &Path) -> PathBuf {
    state_dir.join("session.json")
}

fn owner_path(store: &Path) -> PathBuf {
    store.join("device.json")
}

fn load_session(state_dir: &Path) -> Result<Option<MatrixSession>, AccountError> {
    load(session_path(state_dir))
}

fn load_owner(store: &Path) -> Result<Option<StoreOwner>, AccountError> {
    load(owner_path(store))
}

fn load<T: serde::de::DeserializeOwned>(path: PathBuf) -> Result<Option<T>, AccountError> {
    let bytes = files::read_if_there(&path)
        .map_err(|error| AccountError::SessionBroken { path: path.clone(), detail: error.to_string() })?;
    let Some(bytes) = bytes else { return Ok(None) };
    // The parser's own text could quote the token, its kind and place cannot.
    serde_json::from_slice(&bytes).map(Some).map_err(|error| AccountError::SessionBroken {
        path,
        detail: format!("{:?} error at line {}, column {}", error.classify(), error.line(), error.column()),
    })
}

fn save_session(client: &Client, state_dir: &Path) -> std::io::Result<()> {
    let Some(session) = client.matrix_auth().session() else { return Ok(()) };
    files::replace(&session_path(state_dir), &serde_json::to_vec(&session)?, true)
}

fn keep_out(redactor: &Redactor, tokens: &SessionTokens) {
    redactor.keep_out_token(&tokens.access_token);
    if let Some(token) = &tokens.refresh_token {
        redactor.keep_out_token(token);
    }
}

/// A refreshed token is on disk before it is used, else a crash would end the session.
fn keep_refreshed_tokens(client: &Client, settings: &AccountSettings) {
    let (load_from, save_to) = (settings.state_dir.clone(), settings.state_dir.clone());
    let redactor = settings.redactor.clone();
    let reload = move |_: Client| match load_session(&load_from) {
        Ok(Some(session)) => Ok(session.tokens),
        Ok(None) => Err("the session file is gone".into()),
        Err(error) => Err(error.into()),
    };
    let save = move |client: Client| {
        if let Some(tokens) = client.session_tokens() {
            keep_out(&redactor, &tokens);
        }
        save_session(&client, &save_to).map_err(Into::into)
    };
    if client.set_session_callbacks(Box::new(reload), Box::new(save)).is_err() {
        warn!("refreshed tokens cannot be saved");
    }
}

/// `GET /account/whoami`, outside the client because it has no session yet.
async fn whoami(http: &reqwest::Client, homeserver: &Url, token: &str) -> Result<Whoami, AccountError> {
    let request = http.get(api(homeserver, "_matrix/client/v3/account/whoami"));
    ask(request, homeserver, token).await
}

/// Whether device keys are published for a device (`POST /keys/query`).
async fn device_has_keys(
    http: &reqwest::Client,
    homeserver: &Url,
    token: &str,
    user: &str,
    device: &str,
) -> Result<bool, AccountError> {
    #[derive(Deserialize)]
    struct Answer {
        #[serde(default)]
        device_keys:
            std::collections::HashMap<String, std::collections::HashMap<String, serde::de::IgnoredAny>>,
    }
    let body = serde_json::json!({ "device_keys": { user: [device] } });
    let request = http
        .post(api(homeserver, "_matrix/client/v3/keys/query"))
        .header("content-type", "application/json")
        .body(body.to_string());
    let answer: Answer = ask(request, homeserver, token).await?;
    Ok(answer.device_keys.get(user).is_some_and(|devices| devices.contains_key(device)))
}

fn api(homeserver: &Url, path: &str) -> Url {
    let mut url = homeserver.clone();
    url.set_path(&format!("{}/{path}", homeserver.path().trim_end_matches('/')));
    url
}

async fn ask<T: serde::de::DeserializeOwned>(
    request: reqwest::RequestBuilder,
    homeserver: &Url,
    token: &str,
) -> Result<T, AccountError> {
    let unreachable = |error: reqwest::Error| AccountError::HomeserverUnreachable {
        url: homeserver.to_string(),
        detail: innermost(&error),
    };
    let answer = request.bearer_auth(token).timeout(REQUEST_TIMEOUT).send().await.map_err(unreachable)?;
    let status = answer.status().as_u16();
    let body = answer.bytes().await.map_err(unreachable)?;
    if status == 200
        && let Ok(answer) = serde_json::from_slice(&body)
    {
        return Ok(answer);
    }
    let errcode = serde_json::from_slice::<serde_json::Value>(&body)
        .ok()
        .and_then(|body| body.get("errcode").and_then(|code| code.as_str().map(str::to_owned)));
    Err(match errcode {
        Some(code) if code == "M_UNKNOWN_TOKEN" || code == "M_MISSING_TOKEN" => AccountError::TokenRejected,
        _ if status == 429 => AccountError::RateLimited { url: homeserver.to_string() },
        _ if status >= 500 => AccountError::HomeserverFailing { url: homeserver.to_string(), status },
        Some(code) => AccountError::Refused { detail: format!("{code} (status {status})") },
        None => {
            AccountError::NotAHomeserver { url: homeserver.to_string(), detail: format!("status {status}") }
        }
    })
}

/// A fault while logging in, as the admin meets it.
fn situation(homeserver: &Url, fault: Fault) -> AccountError {
    let url = homeserver.to_string();
    match fault {
        Fault::TokenRevoked => AccountError::TokenRejected,
        Fault::Limited(_) => AccountError::RateLimited { url },
        Fault::Unreachable(detail) => AccountError::HomeserverUnreachable { url, detail },
        Fault::Failing(status) => AccountError::HomeserverFailing { url, status },
        Fault::Nonsense(detail) => AccountError::NotAHomeserver { url, detail },
        // A 404 on a path every homeserver has.
        Fault::Refused { code, status: 404 } => {
            AccountError::NotAHomeserver { url, detail: format!("{code} (status 404)") }
        }
        Fault::Refused { code, status } => {
            AccountError::Refused { detail: format!("{code} (status {status})") }
        }
        Fault::Internal(detail) => AccountError::Refused { detail },
    }
}
