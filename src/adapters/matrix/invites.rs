//! Room invites: joined when the inviter is allowed, rejected otherwise.
//!
//! Level-triggered: each turn looks at all rooms the account is invited to, so those from before the start count too,
//! and a flood of them needs no queue.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use matrix_sdk::ruma::OwnedRoomId;
use matrix_sdk::ruma::api::client::membership::{get_member_events, joined_members, leave_room};
use matrix_sdk::ruma::events::room::member::MembershipState;
use matrix_sdk::{Client, Room};
use recorder_actors::observe::{Board, Totals};
use recorder_actors::ports::Urgency;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::allow::AllowList;
use super::error::{BackOff, fault_of, fault_of_http};
use super::gate::Gate;
use super::{Greeting, Greetings, send};

/// Waits between attempts to join or reject.
const FIRST_WAIT: Duration = Duration::from_secs(2);
const LONGEST_WAIT: Duration = Duration::from_secs(120);
/// Attempts before an invite is left as it is, until the next start or a new invite.
const ATTEMPTS: u32 = 8;
/// A greeting that cannot be sent in this time is not sent.
const GREETING_TIME: Duration = Duration::from_secs(30);
/// Refused inviters that were logged; another one from them is only counted.
const LOGGED: usize = 1000;

/// Tells that there are invites, and which of them are new: of a room that we were invited to before, too.
#[derive(Default)]
pub(super) struct News {
    fresh: Mutex<HashSet<OwnedRoomId>>,
    told: Notify,
}

impl News {
    pub(super) fn tell<'a>(&self, invited: impl Iterator<Item = &'a OwnedRoomId>) {
        self.fresh().extend(invited.cloned());
        self.told.notify_one();
    }

    /// A set cannot be left half-way changed by a panic.
    fn fresh(&self) -> MutexGuard<'_, HashSet<OwnedRoomId>> {
        self.fresh.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) struct Invites {
    pub(super) client: Client,
    pub(super) board: Arc<Board>,
    pub(super) allow: AllowList,
    pub(super) greetings: Greetings,
    pub(super) gate: Arc<Gate>,
    pub(super) news: Arc<News>,
    pub(super) stop: CancellationToken,
}

/// What is known of an invite that was tried.
enum Progress {
    /// Done; the next sync takes it from the list.
    Settled,
    Retry {
        at: Instant,
        back_off: BackOff,
        attempts: u32,
    },
}

enum Outcome {
    Settled,
    TryAgain,
}

impl Invites {
    pub(super) async fn run(self) {
        let stop = self.stop.clone();
        stop.run_until_cancelled(self.turns()).await;
    }

    async fn turns(self) {
        let mut progress: HashMap<OwnedRoomId, Progress> = HashMap::new();
        let mut logged: HashSet<String> = HashSet::new();
        loop {
            let next = progress.values().filter_map(Progress::due).min();
            tokio::select! {
                () = self.news.told.notified() => {}
                () = sleep_until(next) => {}
            }
            let fresh = std::mem::take(&mut *self.news.fresh());
            let invited = self.client.invited_rooms();
            progress.retain(|room, _| {
                !fresh.contains(room) && invited.iter().any(|invited| invited.room_id() == room)
            });
            for room in invited {
                let id = room.room_id().to_owned();
                if progress.get(&id).is_some_and(|known| !known.is_due()) {
                    continue;
                }
                let outcome = Box::pin(self.decide(&room, &mut logged)).await;
                let earlier = progress.remove(&id);
                progress.insert(id, Progress::after(outcome, earlier));
            }
        }
    }

    async fn decide(&self, room: &Room, logged: &mut HashSet<String>) -> Outcome {
        // Who invited is the sender of our own membership event; without one nobody is known to be allowed.
        let inviter = room.invite_details().await.ok().map(|invite| invite.inviter_id);
        match inviter {
            Some(inviter) if self.allow.allows(inviter.as_str()) => self.accept(room, inviter.as_str()).await,
            inviter => {
                let inviter = inviter.map_or_else(|| "unknown".to_owned(), |id| id.to_string());
                self.refuse(room, inviter, logged).await
            }
        }
    }

    async fn accept(&self, room: &Room, inviter: &str) -> Outcome {
        let id = room.room_id();
        match self.client.join_room_by_id(id).await {
            Ok(joined) => {
                Totals::count(&self.board.totals.room_invites_accepted);
                info!(room = %id, inviter, "invite accepted");
                self.greet(&joined).await;
                Outcome::Settled
            }
            Err(error) => {
                let fault = fault_of(&error);
                warn!(room = %id, inviter, %fault, "the room could not be joined");
                if fault.passes() { Outcome::TryAgain } else { self.reject(room).await }
            }
        }
    }

    async fn greet(&self, room: &Room) {
        let greetings = &self.greetings;
        let Greeting { plain, html } =
            if self.is_of_two(room).await { &greetings.two } else { &greetings.more };
        if plain.is_empty() {
            return;
        }
        let content = send::notice(plain, html, &[]);
        let (gate, kind) = (&self.gate, "m.room.message");
        let sent = send::send(gate, room, kind, content, Urgency::Notice, GREETING_TIME).await;
        if let Err(error) = sent {
            warn!(room = %room.room_id(), %error, "no greeting");
        }
    }

    /// Whether at most one other is there or invited. The homeserver is asked: no sync has told of the room yet.
    async fn is_of_two(&self, room: &Room) -> bool {
        let id = room.room_id().to_owned();
        let there = self.client.send(joined_members::v3::Request::new(id.clone())).await;
        let Ok(there) = there.map(|answer| answer.joined.len()) else {
            return room.is_direct().await.unwrap_or(false);
        };
        if there > 2 {
            return false;
        }
        let mut invited = get_member_events::v3::Request::new(id);
        invited.membership = Some(MembershipState::Invite);
        let invited = self.client.send(invited).await.map_or(0, |answer| answer.chunk.len());
        there + invited <= 2
    }

    async fn refuse(&self, room: &Room, inviter: String, logged: &mut HashSet<String>) -> Outcome {
        let outcome = self.reject(room).await;
        if matches!(outcome, Outcome::Settled) {
            Totals::count(&self.board.totals.room_invites_refused);
        }
        if logged.len() < LOGGED && !logged.contains(&inviter) {
            warn!(room = %room.room_id(), inviter, "invite refused, add the inviter to matrix.allow to accept");
            logged.insert(inviter);
        }
        outcome
    }

    /// Leaves this one room. The SDK's own method also leaves the rooms that the invite *names as predecessors*, so an
    /// invite could make us leave any room.
    async fn reject(&self, room: &Room) -> Outcome {
        let request = leave_room::v3::Request::new(room.room_id().to_owned());
        match self.client.send(request).await.map_err(|error| fault_of_http(&error)) {
            Ok(_) => Outcome::Settled,
            Err(fault) if fault.passes() => Outcome::TryAgain,
            Err(fault) => {
                debug!(room = %room.room_id(), %fault, "invite could not be rejected");
                Outcome::Settled
            }
        }
    }
}

impl Progress {
    fn after(outcome: Outcome, earlier: Option<Self>) -> Self {
        let (mut back_off, attempts) = match earlier {
            Some(Self::Retry { back_off, attempts, .. }) => (back_off, attempts + 1),
            _ => (BackOff::new(FIRST_WAIT, LONGEST_WAIT), 1),
        };
        match outcome {
            Outcome::TryAgain if attempts < ATTEMPTS => {
                Self::Retry { at: Instant::now() + back_off.next(None), back_off, attempts }
            }
            _ => Self::Settled,
        }
    }

    fn due(&self) -> Option<Instant> {
        match self {
            Self::Settled => None,
            Self::Retry { at, .. } => Some(*at),
        }
    }

    fn is_due(&self) -> bool {
        self.due().is_some_and(|at| at <= Instant::now())
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
