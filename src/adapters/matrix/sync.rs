//! The sync loop: long polls, survives whatever the homeserver does, and publishes how it fares.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use matrix_sdk::Client;
use matrix_sdk::config::SyncSettings;
use matrix_sdk::ruma::UInt;
use matrix_sdk::ruma::api::client::filter::{FilterDefinition, LazyLoadOptions};
use matrix_sdk::ruma::api::client::sync::sync_events::v3::Filter;
use recorder_actors::observe::{AccountSnapshot, Board, Totals};
use recorder_actors::ports::Clock;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::AccountState;
use super::deliver::SyncDone;
use super::error::{BackOff, Fault, fault_of};
use super::follow_ups::FollowUps;

/// How long the homeserver may hold a request that has nothing to tell.
const LONG_POLL: Duration = Duration::from_secs(30);
/// Waits after a failure: the first, and the longest.
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// Events of a room in one response; what is before them is read back.
const TIMELINE: u32 = 50;

pub(super) struct SyncLoop {
    pub(super) client: Client,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) board: Arc<Board>,
    pub(super) state: watch::Sender<AccountState>,
    pub(super) done: mpsc::Sender<SyncDone>,
    pub(super) follow_ups: Arc<FollowUps>,
    pub(super) stop: CancellationToken,
}

impl SyncLoop {
    pub(super) async fn run(self) {
        // Dropping a request half-way is harmless: what was stored and not handled is read back at the next start.
        self.stop.run_until_cancelled(self.survive()).await;
    }

    /// A response that makes the SDK panic costs that response, not the account.
    async fn survive(&self) {
        while AssertUnwindSafe(Box::pin(self.sync())).catch_unwind().await.is_err() {
            Totals::count(&self.board.totals.panics_caught);
            error!("a panic while syncing was caught, going on");
            self.publish(|state, _| {
                state.last_error = Some("a response of the homeserver made us fail".to_owned())
            });
            tokio::time::sleep(LONGEST_WAIT).await;
        }
    }

    /// Returns when syncing makes no sense any more.
    async fn sync(&self) {
        let mut back_off = BackOff::new(FIRST_WAIT, LONGEST_WAIT);
        let mut failing = false;
        // The first poll, and each one after a failure, returns at once: being in step again is news.
        let mut at_once = true;
        loop {
            let poll = if at_once { Duration::ZERO } else { LONG_POLL };
            match Box::pin(self.client.sync_once(settings(poll))).await {
                Ok(response) => {
                    self.follow_ups.over();
                    self.publish(|state, now| {
                        state.logged_in = true;
                        state.last_sync_utc_micros = Some(now);
                        state.last_error = None;
                    });
                    if !self.taken(response.next_batch).await {
                        error!("events are no longer taken, so syncing ends");
                        self.publish(|state, _| {
                            state.first_sync_done = false;
                            state.last_error =
                                Some("events are no longer taken, restart the recorder".to_owned());
                        });
                        return;
                    }
                    Totals::count(&self.board.totals.syncs);
                    if std::mem::take(&mut failing) {
                        info!("syncing again");
                    }
                    back_off.reset();
                    at_once = false;
                    self.publish(|state, _| state.first_sync_done = true);
                }
                Err(error) => {
                    self.follow_ups.at_rest();
                    let fault = fault_of(&error);
                    Totals::count(&self.board.totals.sync_failures);
                    at_once = true;
                    let revoked = fault == Fault::TokenRevoked;
                    self.publish(|state, _| {
                        state.last_error = Some(fault.to_string());
                        state.token_revoked = revoked;
                        state.logged_in &= !revoked;
                    });
                    if revoked {
                        error!(
                            "the session was ended on the homeserver: running recordings go on, no new call is seen; \
                             give the recorder a new login and restart it"
                        );
                        return;
                    }
                    let asked = match fault {
                        Fault::Limited(wait) => wait,
                        _ => None,
                    };
                    let wait = back_off.next(asked);
                    if !std::mem::replace(&mut failing, true) {
                        warn!(%fault, wait_ms = wait.as_millis() as u64, "sync failed, trying again");
                    }
                    tokio::time::sleep(wait).await;
                }
            }
        }
    }

    /// Waits until the response's events are with the consumer. False when nobody takes them any more.
    async fn taken(&self, token: String) -> bool {
        let (taken, answer) = oneshot::channel();
        self.done.send(SyncDone { token, taken }).await.is_ok() && answer.await.is_ok()
    }

    /// The board first, so that who was woken by the state sees the same there.
    fn publish(&self, change: impl FnOnce(&mut AccountState, i64)) {
        let mut state = self.state.borrow().clone();
        change(&mut state, self.clock.utc_micros());
        self.board.account.store(Arc::new(state.snapshot()));
        self.state.send_replace(state);
    }
}

impl AccountState {
    /// The same for the observation board.
    pub fn snapshot(&self) -> AccountSnapshot {
        AccountSnapshot {
            user_id: Some(self.user_id.clone()),
            device_id: Some(self.device_id.clone()),
            homeserver: Some(self.homeserver.clone()),
            logged_in: self.logged_in,
            first_sync_done: self.first_sync_done,
            last_sync_utc_micros: self.last_sync_utc_micros,
            last_error: self.last_error.clone(),
        }
    }
}

/// No presence, receipts or typing; members only as they speak.
fn settings(poll: Duration) -> SyncSettings {
    let mut filter = FilterDefinition::default();
    filter.presence.not_types = vec!["*".to_owned()];
    filter.room.ephemeral.not_types = vec!["*".to_owned()];
    filter.room.timeline.limit = Some(UInt::from(TIMELINE));
    filter.room.state.lazy_load_options = LazyLoadOptions::Enabled { include_redundant_members: false };
    SyncSettings::new().timeout(poll).filter(Filter::FilterDefinition(filter))
}
