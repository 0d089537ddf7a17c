//! Logins, sessions, stores, and what is told when they are of no use.

use matrix_call_recorder::adapters::matrix::{AccountError, ErrorClass};
use matrix_sdk::ruma::UserId;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::account::{Person, Recorder, call, mode, register, synapse};
use crate::synapse::free_port;

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_restores_the_same_device_and_needs_no_password() {
    let url = &synapse().await.url;
    let mut recorder = Recorder::new(url, "restored").await;
    recorder.settings.store_passphrase_file = Some(recorder.secret("passphrase", "open sesame"));
    let first = recorder.start().await;
    let device = first.account.device_id();
    let state = first.account.state().borrow().clone();
    assert!(state.logged_in && state.last_sync_utc_micros.is_some() && state.last_error.is_none());
    first.stop().await;
    assert_eq!(mode(&recorder.settings.state_dir.join("session.json")), 0o600);

    recorder.settings.password_file = None;
    let second = recorder.start().await;
    assert_eq!(second.account.device_id(), device);
    second.stop().await;

    recorder.settings.store_passphrase_file = Some(recorder.secret("passphrase", "open barley"));
    let error = recorder.fails().await;
    assert!(matches!(error, AccountError::StorePassphraseWrong { .. }), "{error:?}");
    assert_eq!(error.class(), ErrorClass::Storage);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_login_makes_an_identity_and_keeps_its_recovery_key() {
    let url = &synapse().await.url;
    let mut recorder = Recorder::new(url, "identity").await;
    let running = recorder.start().await;
    let recovery_key = recorder.settings.state_dir.join("recovery-key");
    assert_eq!(mode(&recovery_key), 0o600);
    let written = std::fs::read_to_string(&recovery_key).unwrap();

    let other = Person::new(url, "identity-watcher").await;
    let user = UserId::parse(running.account.user_id()).unwrap();
    let device = running.account.device_id();
    let room = other.create_room(true, user.as_str()).await;
    drop(room);
    other.client.encryption().request_user_identity(&user).await.unwrap().expect("an identity");
    let seen = other
        .client
        .encryption()
        .get_device(&user, device.as_str().into())
        .await
        .unwrap()
        .expect("the device");
    assert!(seen.is_cross_signed_by_owner());
    running.stop().await;

    // A lost store: a new device, which the saved recovery key verifies; the identity is the same one.
    let before = other.client.encryption().request_user_identity(&user).await.unwrap().unwrap();
    recorder.settings.store = recorder.folder.path().join("second store");
    std::fs::remove_file(recorder.settings.state_dir.join("session.json")).unwrap();
    let again = recorder.start().await;
    let device = again.account.device_id();
    let after = other.client.encryption().request_user_identity(&user).await.unwrap().unwrap();
    assert_eq!(before.master_key().get_first_key(), after.master_key().get_first_key());
    let seen = other
        .client
        .encryption()
        .get_device(&user, device.as_str().into())
        .await
        .unwrap()
        .expect("the device");
    assert!(seen.is_cross_signed_by_owner());
    assert_eq!(std::fs::read_to_string(&recovery_key).unwrap(), written);
    again.stop().await;

    // Without the key the identity stays as it is, and the recorder works all the same.
    std::fs::remove_file(&recovery_key).unwrap();
    recorder.settings.store = recorder.folder.path().join("third store");
    std::fs::remove_file(recorder.settings.state_dir.join("session.json")).unwrap();
    let unverified = recorder.start().await;
    let after = other.client.encryption().request_user_identity(&user).await.unwrap().unwrap();
    assert_eq!(before.master_key().get_first_key(), after.master_key().get_first_key());
    assert!(!recovery_key.exists());
    unverified.stop().await;
}

/// What a process leaves that ends while the key is being made: nothing, an empty file, or the mark of its having begun.
#[tokio::test(flavor = "multi_thread")]
async fn a_recovery_key_that_was_never_written_down_is_made_again() {
    let url = &synapse().await.url;
    let recorder = Recorder::new(url, "forgetful").await;
    recorder.start().await.stop().await;
    let path = recorder.settings.state_dir.join("recovery-key");
    let mut keys = vec![std::fs::read_to_string(&path).unwrap()];
    for left in ["recovery-key", "recovery-key.begun"] {
        std::fs::remove_file(&path).unwrap();
        std::fs::write(recorder.settings.state_dir.join(left), "").unwrap();
        recorder.start().await.stop().await;
        keys.push(std::fs::read_to_string(&path).unwrap());
        assert_eq!(mode(&path), 0o600);
        assert!(!recorder.settings.state_dir.join("recovery-key.begun").exists());
    }
    assert!(keys.iter().all(|key| key.len() > 40), "{} keys", keys.len());
    assert!(keys[0] != keys[1] && keys[1] != keys[2], "nobody has the earlier ones");

    // Without either the key may be somebody else's, and stays as it is.
    std::fs::remove_file(&path).unwrap();
    recorder.start().await.stop().await;
    assert!(!path.exists());

    // The newest one opens the identity on a new device.
    let mut again = Recorder::of(url, &recorder.settings.user);
    again.settings.password_file = Some(again.secret("password", "password"));
    again.settings.recovery_key_file = Some(again.secret("key", keys[2].trim()));
    let running = again.start().await;
    let watcher = Person::new(url, "forgetful-watcher").await;
    let user = UserId::parse(running.account.user_id()).unwrap();
    drop(watcher.create_room(true, user.as_str()).await);
    watcher.client.encryption().request_user_identity(&user).await.unwrap().expect("an identity");
    let device = running.account.device_id();
    let device = watcher.client.encryption().get_device(&user, device.as_str().into()).await.unwrap();
    assert!(device.expect("the device").is_cross_signed_by_owner());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_and_an_unknown_user_are_told_as_such() {
    let url = &synapse().await.url;
    let mut recorder = Recorder::new(url, "mistyped").await;
    recorder.settings.password_file = Some(recorder.secret("password", "not it"));
    let error = recorder.fails().await;
    assert!(matches!(error, AccountError::WrongPassword { .. }), "{error:?}");
    assert_eq!(error.class(), ErrorClass::Authentication);
    assert!(!error.to_string().contains("not it"));

    recorder.settings.user = "@nobody:localhost".to_owned();
    let error = recorder.fails().await;
    assert!(matches!(error, AccountError::WrongPassword { .. }), "{error:?}");

    // The right password works afterwards, on the store the failed attempts left.
    recorder.settings.user = "@mistyped:localhost".to_owned();
    recorder.settings.password_file = Some(recorder.secret("password", "password"));
    recorder.start().await.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_access_token_of_a_fresh_device_logs_in_and_is_restored() {
    let url = &synapse().await.url;
    let (user, token, device) = register(url, "tokened").await;
    let mut recorder = Recorder::of(url, &user);
    recorder.settings.access_token_file = Some(recorder.secret("token", &token));
    let first = recorder.start().await;
    assert_eq!(first.account.device_id(), device);
    first.stop().await;
    let second = recorder.start().await;
    assert_eq!(second.account.device_id(), device);
    second.stop().await;

    recorder.settings.access_token_file = Some(recorder.secret("token", "nonsense"));
    std::fs::remove_file(recorder.settings.state_dir.join("session.json")).unwrap();
    let error = recorder.fails().await;
    assert!(matches!(error, AccountError::TokenRejected), "{error:?}");

    let (_, other, _) = register(url, "tokened-other").await;
    recorder.settings.access_token_file = Some(recorder.secret("token", &other));
    let error = recorder.fails().await;
    assert!(matches!(error, AccountError::TokenOfAnotherUser { .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_access_token_of_a_device_with_keys_is_refused_when_the_store_is_empty() {
    let url = &synapse().await.url;
    let person = Person::new(url, "elsewhere").await;
    let mut recorder = Recorder::of(url, "@elsewhere:localhost");
    let token = person.client.access_token().unwrap();
    recorder.settings.access_token_file = Some(recorder.secret("token", &token));
    let error = recorder.fails().await;
    assert!(matches!(error, AccountError::DeviceHasKeys { .. }), "{error:?}");
    assert_eq!(error.class(), ErrorClass::Authentication);
    assert!(!error.to_string().contains(&token));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_homeserver_and_a_web_page_are_told_apart() {
    let mut recorder = Recorder::of(&format!("http://127.0.0.1:{}", free_port()), "@a:localhost");
    recorder.settings.password_file = Some(recorder.secret("password", "password"));
    let error = recorder.fails().await;
    assert!(matches!(error, AccountError::HomeserverUnreachable { .. }), "{error:?}");
    assert_eq!(error.class(), ErrorClass::Transient);

    for status in ["200 OK", "404 Not Found", "503 Service Unavailable"] {
        recorder.settings.homeserver = web_page(status).await;
        let error = recorder.fails().await;
        match status {
            "503 Service Unavailable" => {
                assert!(matches!(error, AccountError::HomeserverFailing { .. }), "{error:?}")
            }
            _ => assert!(matches!(error, AccountError::NotAHomeserver { .. }), "{status}: {error:?}"),
        }
    }

    for nonsense in ["", "localhost", "ftp://localhost", "http://"] {
        recorder.settings.homeserver = nonsense.to_owned();
        let error = recorder.fails().await;
        assert!(matches!(error, AccountError::BadHomeserver { .. }), "{nonsense}: {error:?}");
    }
}

/// A server that answers everything with a page.
async fn web_page(status: &'static str) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let page = "<html>It works!</html>";
            let head =
                format!("HTTP/1.1 {status}\r\nContent-Type: text/html\r\nContent-Length: {}\r\n", page.len());
            let _ = client.read(&mut [0; 8192]).await;
            let _ = client.write_all(format!("{head}Connection: close\r\n\r\n{page}").as_bytes()).await;
        }
    });
    url
}

#[tokio::test(flavor = "multi_thread")]
async fn a_saved_session_of_another_account_is_refused() {
    let url = &synapse().await.url;
    let mut recorder = Recorder::new(url, "before").await;
    recorder.start().await.stop().await;
    // Its local part names the same account.
    recorder.settings.user = "before".to_owned();
    recorder.start().await.stop().await;
    recorder.settings.user = "@after:localhost".to_owned();
    let error = recorder.fails().await;
    assert!(matches!(error, AccountError::SessionOfAnotherUser { .. }), "{error:?}");
    assert_eq!(error.class(), ErrorClass::Authentication);
    let text = error.to_string();
    assert!(text.contains("@before:localhost") && text.contains("@after:localhost"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_and_a_store_that_do_not_belong_together_are_refused() {
    let url = &synapse().await.url;
    let mut recorder = Recorder::new(url, "mixed").await;
    recorder.start().await.stop().await;
    let own = std::mem::replace(&mut recorder.settings.store, recorder.folder.path().join("another store"));
    let error = recorder.fails().await;
    assert!(matches!(error, AccountError::StoreLost { .. }), "{error:?}");

    // The session of another device beside this store.
    recorder.settings.state_dir = recorder.folder.path().join("another state");
    recorder.start().await.stop().await;
    recorder.settings.store = own;
    let error = recorder.fails().await;
    assert!(matches!(error, AccountError::StoreOfAnotherDevice { .. }), "{error:?}");
    assert_eq!(error.class(), ErrorClass::Storage);

    std::fs::write(recorder.settings.state_dir.join("session.json"), "{\"access_token\": \"syt_secret\", ")
        .unwrap();
    let error = recorder.fails().await;
    assert!(matches!(error, AccountError::SessionBroken { .. }), "{error:?}");
    assert!(!error.to_string().contains("syt_secret"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_in_use_is_refused() {
    let url = &synapse().await.url;
    let recorder = Recorder::new(url, "twice").await;
    let running = recorder.start().await;
    let error = recorder.fails().await;
    assert!(matches!(error, AccountError::StoreLocked { .. }), "{error:?}");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ended_session_is_published_and_told_at_the_next_start() {
    let url = &synapse().await.url;
    let recorder = Recorder::new(url, "ended").await;
    let running = recorder.start().await;
    let token = recorder.session()["access_token"].as_str().unwrap().to_owned();
    call(url, "POST", "_matrix/client/v3/logout", Some(&token), json!({})).await;
    let state = running.until(|state| state.token_revoked).await;
    assert!(!state.logged_in && state.last_error.is_some());
    assert!(!recorder.board.account.load().logged_in);
    running.stop().await;
    let error = recorder.fails().await;
    assert!(matches!(error, AccountError::TokenRevoked { .. }), "{error:?}");
    assert_eq!(error.class(), ErrorClass::Authentication);
    assert!(!error.to_string().contains(&token));
}
