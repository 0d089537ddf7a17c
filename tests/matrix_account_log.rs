//! What the account and the SDK write into a log. Alone in its program: tests beside it would silence each other's logs.

#![recursion_limit = "512"]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends where it fails")]

mod support {
    #[expect(dead_code, reason = "one test uses a part of it")]
    pub mod account;
    pub mod synapse;
}

use std::sync::{Arc, Mutex};
use std::time::Duration;

use matrix_call_recorder::telemetry::Redactor;
use recorder_actors::ports::Urgency;
use serde_json::json;
use support::account::{Recorder, synapse};

#[tokio::test]
async fn no_secret_is_logged_at_any_level() {
    let url = &synapse().await.url;
    let mut recorder = Recorder::new(url, "discreet").await;
    let log = Arc::new(Mutex::new(Vec::<u8>::new()));
    // The runtime has one thread, so that everything but the database's threads is heard.
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(Written(Arc::clone(&log)))
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    recorder.settings.store_passphrase_file = Some(recorder.secret("passphrase", "open sesame"));
    let alice = recorder.ally("alice-discreet").await;
    let mut running = recorder.start().await;
    let room = alice.create_room(true, "@discreet:localhost").await;
    alice.joined(&room, "@discreet:localhost").await;
    let content = json!({ "call_id": "c", "offer": { "type": "offer", "sdp": "v=0 of a secret session" } });
    alice.send(room.room_id(), "m.call.invite", content.clone()).await;
    running.call_event().await;
    let room_id = room.room_id().as_str();
    running
        .account
        .send(room_id, "m.call.answer", content, Urgency::Call, Duration::from_secs(30))
        .await
        .unwrap();
    running.stop().await;

    let log = String::from_utf8_lossy(&log.lock().unwrap()).into_owned();
    assert!(log.contains("logged in with a password"), "{} bytes of log", log.len());
    let session = recorder.session();
    let recovery_key = std::fs::read_to_string(recorder.settings.state_dir.join("recovery-key")).unwrap();
    let secrets =
        ["access_token", "refresh_token"].map(|key| session[key].as_str().unwrap_or("?absent?").to_owned());
    for secret in
        secrets.iter().map(String::as_str).chain([recovery_key.trim(), "open sesame", "v=0 of a secret"])
    {
        assert!(!log.contains(secret), "{secret}");
    }
    // A token or key that no mark gives away is known to whoever writes the log.
    let kept_out = &recorder.settings.redactor;
    for secret in secrets.iter().map(String::as_str).chain([recovery_key.trim()]) {
        assert_eq!(kept_out.clean(&format!("x{secret}")), "x[redacted]");
    }
    // So it is after a restart, which finds the tokens in the saved session.
    recorder.settings.redactor = Redactor::default();
    recorder.start().await.stop().await;
    for key in ["access_token", "refresh_token"] {
        let token = recorder.session()[key].as_str().unwrap().to_owned();
        assert_eq!(recorder.settings.redactor.clean(&format!("x{token}")), "x[redacted]");
    }
}

#[derive(Clone)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Written {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl tracing_subscriber::fmt::MakeWriter<'_> for Written {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}
