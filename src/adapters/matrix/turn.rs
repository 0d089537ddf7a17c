//! TURN servers of the homeserver, kept for most of their time (client-server API, "VoIP": `/voip/turnServer`).

use std::time::Duration;

use matrix_sdk::Client;
use matrix_sdk::ruma::api::client::voip::get_turn_server_info;
use recorder_actors::ports::TurnServer;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tracing::warn;

use super::error::{Fault, fault_of_http};

/// A call's setup waits no longer than this; it goes on without TURN.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long "there are none" and a failure are believed.
const NONE_TTL: Duration = Duration::from_secs(600);
const FAILURE_TTL: Duration = Duration::from_secs(10);
/// However long the homeserver says they last.
const LONGEST_TTL: Duration = Duration::from_secs(86_400);
/// Servers and bytes of an address that are passed on; a homeserver lists a handful.
const MOST_URIS: usize = 16;
const LONGEST_URI: usize = 512;

#[derive(Debug, Default)]
pub(super) struct TurnCache {
    known: Mutex<Option<(Instant, Vec<TurnServer>)>>,
}

impl TurnCache {
    /// The servers; empty when the homeserver has none or does not answer in time.
    pub(super) async fn servers(&self, client: &Client) -> Vec<TurnServer> {
        let mut known = self.known.lock().await;
        if let Some((until, servers)) = known.as_ref()
            && Instant::now() < *until
        {
            return servers.clone();
        }
        let (servers, ttl) = ask(client).await;
        *known = Some((Instant::now() + ttl, servers.clone()));
        servers
    }
}

async fn ask(client: &Client) -> (Vec<TurnServer>, Duration) {
    let request = client.send(get_turn_server_info::v3::Request::new());
    match tokio::time::timeout(PATIENCE, request).await {
        Ok(Ok(answer)) => {
            let mut uris = answer.uris;
            uris.retain(|uri| uri.len() <= LONGEST_URI);
            uris.truncate(MOST_URIS);
            // Credentials must outlive the call's setup, so they are renewed early.
            let ttl = answer.ttl.min(LONGEST_TTL).mul_f64(0.8);
            if uris.is_empty() {
                return (Vec::new(), NONE_TTL);
            }
            (vec![TurnServer { uris, username: answer.username, password: answer.password }], ttl)
        }
        Ok(Err(error)) => match fault_of_http(&error) {
            // Synapse answers `{}` when none is configured; others with M_NOT_FOUND.
            Fault::Nonsense(_) | Fault::Refused { .. } => (Vec::new(), NONE_TTL),
            fault => {
                warn!(%fault, "no TURN servers, a call from behind a strict firewall may fail");
                (Vec::new(), FAILURE_TTL)
            }
        },
        Err(_) => {
            warn!("no TURN servers in time, a call from behind a strict firewall may fail");
            (Vec::new(), FAILURE_TTL)
        }
    }
}
