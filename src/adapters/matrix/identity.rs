//! Cross-signing and recovery: set up at the first login, taken up from a recovery key, never reset.
//!
//! Nothing here keeps the recorder from working: it goes on unverified and says what an admin can do.

use std::path::Path;
use std::time::Duration;

use matrix_sdk::Client;
use matrix_sdk::encryption::recovery::RecoveryState;
use matrix_sdk::ruma::api::client::uiaa;
use tracing::{info, warn};

use super::account::AccountSettings;
use super::error::{fault_of, innermost};
use super::files;

/// For everything together; key uploads are a handful of requests.
const TIME_LIMIT: Duration = Duration::from_secs(60);

/// Name of the recovery key's file in the state directory, mode 0600.
const RECOVERY_KEY: &str = "recovery-key";
/// Beside it while a key is being made.
const BEGUN: &str = "recovery-key.begun";

pub(super) async fn secure(client: Client, settings: AccountSettings, password: Option<String>) {
    let work = Box::pin(secure_now(&client, &settings, password.as_deref()));
    if tokio::time::timeout(TIME_LIMIT, work).await.is_err() {
        warn!("setting up cross-signing took too long, it is tried again at the next start");
    }
}

async fn secure_now(client: &Client, settings: &AccountSettings, password: Option<&str>) {
    let encryption = client.encryption();
    encryption.wait_for_e2ee_initialization_tasks().await;
    if !has_identity(client).await {
        recover(client, settings).await;
    }
    if !has_identity(client).await {
        bootstrap(client, password).await;
    }
    if !has_identity(client).await {
        warn!(
            "the account has a cross-signing identity whose secrets are not here, so the recorder stays unverified; \
             write its recovery key into a file, name it in matrix.recovery_key_file and start again \
             (nothing is reset by itself)"
        );
        return;
    }
    enable_recovery(client, settings).await;
}

async fn has_identity(client: &Client) -> bool {
    client.encryption().cross_signing_status().await.is_some_and(|status| status.is_complete())
}

/// Takes the identity's secrets from the account's secret storage.
async fn recover(client: &Client, settings: &AccountSettings) {
    let own = settings.state_dir.join(RECOVERY_KEY);
    let (key, path) = match &settings.recovery_key_file {
        Some(path) => ("matrix.recovery_key_file", path.as_path()),
        None if is_saved(&own) => ("the saved recovery key", own.as_path()),
        None => return,
    };
    let recovery_key = match files::secret(key, path) {
        Ok(recovery_key) => recovery_key,
        Err(error) => return warn!(%error, "no recovery"),
    };
    settings.redactor.keep_out(&recovery_key);
    match client.encryption().recovery().recover(recovery_key.trim()).await {
        Ok(()) => info!("cross-signing identity recovered"),
        Err(error) => warn!(
            cause = innermost(&error),
            file = %path.display(),
            "the recovery key does not open the account's secrets; check that it is the newest one"
        ),
    }
}

/// Makes an identity if the account has none at all.
async fn bootstrap(client: &Client, password: Option<&str>) {
    let encryption = client.encryption();
    let Err(error) = encryption.bootstrap_cross_signing_if_needed(None).await else { return };
    let done = match (error.as_uiaa_response(), password, client.user_id()) {
        (Some(info), Some(password), Some(user)) => {
            let user = uiaa::UserIdentifier::Matrix(uiaa::MatrixUserIdentifier::new(user.to_string()));
            let mut proof = uiaa::Password::new(user, password.to_owned());
            proof.session = info.session.clone();
            encryption.bootstrap_cross_signing(Some(uiaa::AuthData::Password(proof))).await
        }
        _ => Err(error),
    };
    if let Err(error) = done {
        warn!(fault = %fault_of(&error), "cross-signing could not be set up, it is tried again at the next start");
    }
}

/// Puts a new identity's secrets into secret storage and the recovery key into the state directory, once.
///
/// The homeserver knows of the key before we can write it down. A mark beside it says that this was begun: if it is not
/// brought to its end, nobody has the key, and the next start makes another in its place.
async fn enable_recovery(client: &Client, settings: &AccountSettings) {
    let path = settings.state_dir.join(RECOVERY_KEY);
    let mark = settings.state_dir.join(BEGUN);
    if settings.recovery_key_file.is_some() || is_saved(&path) {
        return;
    }
    let recovery = client.encryption().recovery();
    let begun_before = mark.exists() || path.exists();
    let anew = match recovery.state() {
        RecoveryState::Disabled => true,
        RecoveryState::Enabled if begun_before => false,
        _ => return,
    };
    if let Err(error) = files::replace(&mark, b"", true) {
        return warn!(%error, file = %path.display(), "no recovery, its key could not be written");
    }
    let made = if anew { recovery.enable().await } else { recovery.reset_key().await };
    let key = match made {
        Ok(key) => key,
        Err(error) => {
            if recovery.state() == RecoveryState::Disabled {
                let _ = std::fs::remove_file(&mark);
            }
            return warn!(
                cause = innermost(&error),
                "recovery is not enabled, it is tried again at the next start"
            );
        }
    };
    settings.redactor.keep_out(&key);
    match files::replace(&path, format!("{key}\n").as_bytes(), true) {
        Ok(()) => {
            let _ = std::fs::remove_file(&mark);
            info!(file = %path.display(), "cross-signing set up, keep the recovery key in a safe place");
        }
        Err(error) => warn!(
            %error,
            file = %path.display(),
            "the recovery key could not be written, another is made at the next start"
        ),
    }
}

/// The file is there and holds something.
fn is_saved(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|file| file.len() > 0)
}
