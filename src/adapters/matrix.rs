//! The Matrix account: session, encryption, sync, invites, and what the calls send and hear.
//!
//! ```text
//! homeserver ⇄ sync loop ─ room updates ─▶ courier (order, late keys, gaps) ─ Delivery ─▶ the calls
//!                                             │ new invites                                  │ handled(batch)
//!                                             ▼                                              ▼
//!                                          invites (allow-list, greeting)              state directory
//! ```
//! The deliveries' queue is bounded ([`DELIVERIES`]); a slow consumer stops the sync, so the homeserver keeps the rest.

mod account;
pub mod allow;
mod content;
mod current;
mod delayed;
mod deliver;
mod error;
mod event;
pub(super) mod files;
mod follow_ups;
mod gaps;
mod gate;
mod handled;
mod identity;
pub mod inbox;
mod interest;
mod invites;
mod powers;
mod send;
mod state;
mod sync;
mod to_device;
mod turn;

use std::sync::Arc;
use std::time::Duration;

use matrix_sdk::ruma::{RoomId, UserId};
use matrix_sdk::{Client, Room, RoomState};
use recorder_actors::observe::Board;
use recorder_actors::ports::{Clock, TurnServer, Urgency};
use recorder_core::time::BootTime;
use serde_json::Value;
use tokio::sync::{Mutex, mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use self::account::AccountSettings;
pub use self::allow::{AllowError, AllowList};
pub use self::error::{AccountError, ErrorClass};
#[doc(hidden)]
pub use self::event::fuzz_event;
pub use self::send::SendError;

/// Deliveries waiting for the consumer.
pub const DELIVERIES: usize = 1024;

/// For how long the account's display name is asked for.
const NAME_TIME: Duration = Duration::from_secs(3600);

/// What rooms are told when the recorder joins them, by their kind.
#[derive(Clone, Debug, Default)]
pub struct Greetings {
    /// Nobody else is there or invited but one person.
    pub two: Greeting,
    pub more: Greeting,
}

#[derive(Clone, Debug, Default)]
pub struct Greeting {
    /// Empty: nothing is said.
    pub plain: String,
    /// The same as HTML; empty for none.
    pub html: String,
}

/// How the account fares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccountState {
    pub user_id: String,
    pub device_id: String,
    pub homeserver: String,
    /// The session is good as far as is known.
    pub logged_in: bool,
    /// `M_UNKNOWN_TOKEN` was answered; it does not come back without a new login.
    pub token_revoked: bool,
    /// A sync succeeded and its events are with the consumer.
    pub first_sync_done: bool,
    /// When the homeserver last answered a sync, UTC microseconds; what it told may still have to be read.
    pub last_sync_utc_micros: Option<i64>,
    pub last_error: Option<String>,
}

/// An event of a room, decrypted.
#[derive(Clone, Debug, PartialEq)]
pub struct RoomEvent {
    pub room_id: String,
    pub event_id: String,
    pub sender: String,
    /// `m.call.invite`, …
    pub event_type: String,
    /// Present on state events.
    pub state_key: Option<String>,
    /// At most 256 kB of JSON; remote data, nothing about it is checked. That of an `m.room.redaction` has `redacts` in
    /// every room version.
    pub content: Value,
    /// When it was sent, as its homeserver says: UTC milliseconds, never to be trusted further than that.
    pub origin_server_ts: i64,
    /// How old it was when it came (`unsigned.age`).
    pub age_at_receipt: Duration,
    /// When it came. An event that waited for its key keeps the time of its first arrival.
    pub received_at: BootTime,
    pub encrypted: bool,
    /// The batch it was delivered in; decide after the batch's end (specification, "Voice over IP": a sync response is
    /// taken in as a whole, because a hang-up may follow its invite).
    pub batch: u64,
}

impl RoomEvent {
    /// Its age at `now`.
    pub fn age(&self, now: BootTime) -> Duration {
        self.age_at_receipt.saturating_add(now.saturating_since(self.received_at))
    }
}

/// What the consumer hears, in order. Of one batch: rooms' current state where it is due, then their events, then
/// to-device events. A response whose rooms have left something out makes two batches: the other rooms and the to-device
/// events first, then those rooms.
#[derive(Clone, Debug, PartialEq)]
pub enum Delivery {
    /// An event of a room. At the first sync of a process, and when a room is joined, that room's first are its current
    /// `m.room.member` (our own, and those of who is named by a call), `org.matrix.msc3401.call` and
    /// `org.matrix.msc3401.call.member`; such a state comes again with the id it had before. Who sends a state event
    /// was a member then, so nobody's membership is fetched for it.
    Event(Box<RoomEvent>),
    /// A message or reaction that may concern us and was sent before we started or more than 90 s ago, at most an hour.
    /// No command to be followed any more; an objection in it can still be heeded.
    Missed(Box<RoomEvent>),
    /// An event of a room that could not be decrypted for 90 s. Told once.
    Undecryptable { room: String, sender: String, event_id: String },
    /// Call signalling from device to device (`m.call.*`), plain or decrypted from Olm.
    ToDevice {
        sender: String,
        event_type: String,
        /// Remote data; nothing about it is checked, but that the `device_id` of an encrypted one is that of the device
        /// that encrypted it.
        content: Value,
        encrypted: bool,
        received_at: BootTime,
        batch: u64,
    },
    /// All events of the batch were delivered; it may have been empty. Say [`MatrixAccount::handled`] when done.
    BatchEnd { batch: u64 },
}

/// A room as people know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoomDescription {
    /// Name, alias or members, computed as clients do (specification, "Calculating the display name for a room").
    pub name: String,
    pub encrypted: bool,
    pub joined_members: u64,
}

/// A running account. Cheap to clone; all clones are the same account.
#[derive(Clone)]
pub struct MatrixAccount {
    shared: Arc<Shared>,
}

struct Shared {
    client: Client,
    state: watch::Receiver<AccountState>,
    handled: watch::Sender<u64>,
    turn: Arc<turn::TurnCache>,
    delays: delayed::Delays,
    gate: Arc<gate::Gate>,
    stop: CancellationToken,
    tasks: Mutex<JoinSet<()>>,
    listening_since: BootTime,
    _lock: files::StoreLock,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl MatrixAccount {
    /// Logs in or restores the session, sets encryption up, and begins to sync.
    ///
    /// The receiver hears events from the first sync on, those missed since the last run included.
    pub async fn connect(
        settings: &AccountSettings,
        clock: Arc<dyn Clock>,
        board: Arc<Board>,
        greetings: Greetings,
    ) -> Result<(Self, mpsc::Receiver<Delivery>), AccountError> {
        let account::LoggedIn { client, lock, fresh, password } = Box::pin(account::log_in(settings)).await?;
        let securing = Box::pin(identity::secure(client.clone(), settings.clone(), password));
        let mut tasks = JoinSet::new();
        if fresh {
            // A new device is signed before anybody sees it.
            securing.await;
        } else {
            tasks.spawn(securing);
        }

        let (out, deliveries) = mpsc::channel(DELIVERIES);
        let (done, taken) = mpsc::channel(1);
        let (handled, acknowledged) = watch::channel(0);
        let news = Arc::<invites::News>::default();
        let stop = CancellationToken::new();
        let listening_since = clock.now();
        let (state, state_seen) = watch::channel(initial_state(&client));
        board.account.store(Arc::new(state.borrow().snapshot()));

        // Subscribed before the first sync, so that no response is missed.
        let mailbox = to_device::Mailbox::listen(&client, Arc::clone(&clock), Arc::clone(&board));
        let updates = client.subscribe_to_all_room_updates();
        let progress = settings.state_dir.join("inbox.json");
        let us = interest::Us {
            user_id: initial_state(&client).user_id,
            called: settings.called.clone(),
            ..interest::Us::default()
        };
        let gate = Arc::<gate::Gate>::default();
        let follow_ups = Arc::clone(&gate.follow_ups);
        let parts = deliver::Parts {
            client: client.clone(),
            follow_ups: Arc::clone(&follow_ups),
            clock: Arc::clone(&clock),
            board: Arc::clone(&board),
            out,
            invites: Arc::clone(&news),
            mailbox,
            us: us.clone(),
            started: listening_since,
        };
        let courier = Box::pin(deliver::Courier::new(parts, progress)).await;
        let inputs = deliver::Inputs { updates, done: taken, acknowledged };
        let invites = invites::Invites {
            client: client.clone(),
            board: Arc::clone(&board),
            allow: settings.allow.clone(),
            greetings,
            gate: Arc::clone(&gate),
            news,
            stop: stop.clone(),
        };
        let syncing = sync::SyncLoop {
            client: client.clone(),
            clock,
            board,
            state,
            done,
            follow_ups,
            stop: stop.clone(),
        };
        tasks.spawn(Box::pin(courier.run(inputs)));
        tasks.spawn(Box::pin(invites.run()));
        tasks.spawn(Box::pin(syncing.run()));

        let (asking, until) = (client.clone(), stop.clone());
        tasks.spawn(async move {
            until.run_until_cancelled(Box::pin(learn_own_name(asking, us))).await;
        });
        let turn = Arc::new(turn::TurnCache::new());
        let (kept, asking, until) = (Arc::clone(&turn), client.clone(), stop.clone());
        tasks.spawn(async move {
            until.run_until_cancelled(Box::pin(kept.keep(asking))).await;
        });
        let tasks = Mutex::new(tasks);
        let delays = delayed::Delays::default();
        let shared = Shared {
            client,
            state: state_seen,
            handled,
            turn,
            delays,
            gate,
            stop,
            tasks,
            listening_since,
            _lock: lock,
        };
        Ok((Self { shared: Arc::new(shared) }, deliveries))
    }

    pub fn user_id(&self) -> String {
        self.shared.client.user_id().map(ToString::to_string).unwrap_or_default()
    }

    pub fn device_id(&self) -> String {
        self.shared.client.device_id().map(ToString::to_string).unwrap_or_default()
    }

    /// When it began to listen: what was said in rooms before is told as [`Delivery::Missed`].
    pub fn listening_since(&self) -> BootTime {
        self.shared.listening_since
    }

    pub fn state(&self) -> watch::Receiver<AccountState> {
        self.shared.state.clone()
    }

    /// Everything up to and including `batch` is dealt with and need not be delivered again after a restart.
    pub fn handled(&self, batch: u64) {
        self.shared.handled.send_if_modified(|last| {
            let later = batch > *last;
            *last = batch.max(*last);
            later
        });
    }

    /// Sends an event, encrypted in an encrypted room, when its turn comes. Tried again after 429, 5xx and silence until
    /// `limit` has passed. Returns the event id.
    pub async fn send(
        &self,
        room_id: &str,
        event_type: &str,
        content: Value,
        urgency: Urgency,
        limit: Duration,
    ) -> Result<String, SendError> {
        send::send(&self.shared.gate, &self.room(room_id)?, event_type, content, urgency, limit).await
    }

    /// The homeserver's TURN servers, none if it has none or has not answered yet. Kept ready; waits 250 ms at most.
    pub async fn turn_servers(&self) -> Vec<TurnServer> {
        self.shared.turn.servers().await
    }

    pub async fn room_info(&self, room_id: &str) -> Option<RoomDescription> {
        let room = self.room(room_id).ok()?;
        let name =
            room.display_name().await.map(|name| name.to_string()).unwrap_or_else(|_| room_id.to_owned());
        let encrypted = room.latest_encryption_state().await.is_ok_and(|state| state.is_encrypted());
        Some(RoomDescription { name, encrypted, joined_members: room.joined_members_count() })
    }

    /// How many have joined a room, as the last sync says; `None` as long as none has.
    pub fn joined_members(&self, room_id: &str) -> Option<u64> {
        let members = self.room(room_id).ok()?.joined_members_count();
        (members > 0).then_some(members)
    }

    /// The name a user has in a room, if they chose one. Remote text.
    pub async fn member_name(&self, room_id: &str, user_id: &str) -> Option<String> {
        let room = self.room(room_id).ok()?;
        let user = UserId::parse(user_id).ok()?;
        let member = room.get_member_no_sync(&user).await.ok()??;
        member.display_name().map(str::to_owned)
    }

    /// Leaves a room, and only this one.
    pub async fn leave_room(&self, room_id: &str) -> Result<(), SendError> {
        use matrix_sdk::ruma::api::client::membership::leave_room;
        let room = self.room(room_id)?;
        let request = leave_room::v3::Request::new(room.room_id().to_owned());
        let left = self.shared.client.send(request).await;
        left.map(drop).map_err(|error| match error::fault_of_http(&error) {
            error::Fault::TokenRevoked => SendError::TokenRevoked,
            error::Fault::Refused { code, .. } => SendError::Refused { code },
            fault => SendError::Internal { detail: fault.to_string() },
        })
    }

    /// Stops syncing and saves what was handled. Sending goes on working.
    pub async fn stop(&self) {
        self.shared.stop.cancel();
        let mut tasks = self.shared.tasks.lock().await;
        while tasks.join_next().await.is_some() {}
    }

    fn room(&self, room_id: &str) -> Result<Room, SendError> {
        let absent = || SendError::NotInRoom { room: room_id.chars().take(255).collect() };
        let id = <&RoomId>::try_from(room_id).map_err(|_| absent())?;
        let room = self.shared.client.get_room(id).ok_or_else(absent)?;
        if room.state() == RoomState::Joined { Ok(room) } else { Err(absent()) }
    }
}

fn initial_state(client: &Client) -> AccountState {
    AccountState {
        user_id: client.user_id().map(ToString::to_string).unwrap_or_default(),
        device_id: client.device_id().map(ToString::to_string).unwrap_or_default(),
        homeserver: client.homeserver().to_string(),
        logged_in: true,
        ..AccountState::default()
    }
}

/// The account's display name, for messages that call us by it. It is asked for until the homeserver answers.
async fn learn_own_name(client: Client, us: interest::Us) {
    if let Ok(name) = state::profile_name(&client, NAME_TIME).await {
        us.name.get_or_init(|| name.unwrap_or_default());
    }
}

/// The sync token the SDK would go on from.
async fn stored_sync_token(client: &Client) -> Option<String> {
    let value = client.state_store().get_kv_data(matrix_sdk::store::StateStoreDataKey::SyncToken).await;
    value.ok().flatten().and_then(|value| value.into_sync_token())
}
