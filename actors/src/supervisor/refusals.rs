//! Invites that are not answered: counted, logged with restraint, and the caller is told.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use recorder_core::call::{Announcement, CallSignal, OneToOne, Refusal, call_misplaced, no_space};
use recorder_core::time::BootTime;
use tokio::sync::Semaphore;

use super::SupervisorActor;
use super::seldom::Seldom;
use crate::observe::{Severity, Totals};
use crate::ports::Urgency;
use crate::supervise::lock;

/// Refused senders that are logged by name; later ones are only counted.
const MOST_REFUSED: usize = 1024;
/// Rejections that may be under way at once.
const MOST_REJECTIONS: usize = 16;
/// How long a rejection may be tried.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a message to a caller who is not recorded may be tried.
const SAY_PATIENCE: Duration = Duration::from_secs(60);
/// That all calls are taken is logged once in this time.
const BUSY_LOGGED: Duration = Duration::from_secs(60);
/// That the disk is full is said once in this time in one room.
const SPACE_TOLD: Duration = Duration::from_secs(600);
/// Where to call is said once in this time in one room.
const PLACE_TOLD: Duration = Duration::from_secs(3_600);

pub(super) struct Refusals {
    /// Senders who are not allowed and stand in the log.
    named: Mutex<HashSet<String>>,
    busy: Mutex<Busy>,
    /// Rooms that were told that the disk is full.
    no_space: Mutex<Seldom>,
    /// Rooms that were told where to call.
    misplaced: Mutex<Seldom>,
    /// Rejections under way; beyond the bound an invite is refused in silence, and counted.
    turns: Arc<Semaphore>,
}

#[derive(Default)]
struct Busy {
    logged: Option<BootTime>,
    /// Refused since then.
    unsaid: u64,
}

impl Default for Refusals {
    fn default() -> Self {
        let turns = Arc::new(Semaphore::new(MOST_REJECTIONS));
        let no_space = Mutex::new(Seldom::new(SPACE_TOLD));
        let misplaced = Mutex::new(Seldom::new(PLACE_TOLD));
        Self { named: Mutex::default(), busy: Mutex::default(), no_space, misplaced, turns }
    }
}

impl SupervisorActor {
    pub(super) fn refuse(&self, invite: &CallSignal, why: Refusal, tell: bool) {
        let urgency = match why {
            Refusal::NotAllowed => {
                self.refused_stranger(&invite.sender);
                Urgency::Stranger
            }
            Refusal::Busy => {
                self.refused_busy(&invite.sender);
                Urgency::Call
            }
            Refusal::OptedOut => {
                self.refused_opted_out(invite);
                Urgency::Call
            }
            Refusal::DiskFull => {
                self.refused_for_space(invite);
                Urgency::Call
            }
        };
        if !tell {
            return;
        }
        let Ok(turn) = Arc::clone(&self.shared.refusals.turns).try_acquire_owned() else { return };
        let world = &self.shared.world;
        let event = OneToOne::refuse(invite, &world.settings.device);
        let (room, kind) = (invite.room.clone(), event.event_type.to_owned());
        let sending = world.signalling.send(room, kind, event.content, urgency, PATIENCE);
        actix::spawn(async move {
            if let Err(error) = sending.await {
                tracing::debug!(%error, "a rejection could not be sent");
            }
            drop(turn);
        });
    }

    fn refused_stranger(&self, caller: &str) {
        let world = &self.shared.world;
        Totals::count(&world.board.totals.calls_refused_not_allowed);
        let mut named = lock(&self.shared.refusals.named);
        if named.len() < MOST_REFUSED && named.insert(caller.to_owned()) {
            tracing::warn!(%caller, "a call was rejected because its sender is not in matrix.allow");
            let what = format!("A call of {caller} was rejected: not in matrix.allow");
            world.board.happened(world.clock.utc_micros(), Severity::Warning, what);
        }
    }

    fn refused_opted_out(&self, invite: &CallSignal) {
        Totals::count(&self.shared.world.board.totals.calls_refused_opted_out);
        tracing::info!(room = %invite.room, "a call was rejected because its sender has opted out there");
        if let Some(room) = self.room_or_new(&invite.room) {
            room.call_rejected(&invite.sender);
        }
    }

    pub(super) fn misplaced(&self, invite: &CallSignal) {
        let world = &self.shared.world;
        Totals::count(&world.board.totals.calls_refused_misplaced);
        if lock(&self.shared.refusals.misplaced).take(&invite.room, world.clock.now()) {
            tracing::info!(
                caller = %invite.sender,
                room = %invite.room,
                "a call was left alone: it names nobody, and its room has more than two people"
            );
            self.say(&invite.room, call_misplaced());
        }
    }

    fn refused_for_space(&self, invite: &CallSignal) {
        let world = &self.shared.world;
        Totals::count(&world.board.totals.calls_refused_disk_full);
        if !lock(&self.shared.refusals.no_space).take(&invite.room, world.clock.now()) {
            return;
        }
        tracing::warn!(caller = %invite.sender, room = %invite.room, "a call was rejected because the disk is full");
        let what = format!("A call of {} was rejected: the disk is full", invite.sender);
        world.board.happened(world.clock.utc_micros(), Severity::Warning, what);
        self.say(&invite.room, no_space(&invite.sender));
    }

    /// Says something in a room to whoever called in vain.
    fn say(&self, room: &str, message: Announcement) {
        let saying = self.shared.world.signalling.announce(room.to_owned(), message, SAY_PATIENCE);
        actix::spawn(async move {
            if let Err(error) = saying.await {
                tracing::debug!(%error, "a caller could not be told why the call is not recorded");
            }
        });
    }

    fn refused_busy(&self, caller: &str) {
        let world = &self.shared.world;
        Totals::count(&world.board.totals.calls_refused_busy);
        let now = world.clock.now();
        let mut busy = lock(&self.shared.refusals.busy);
        if busy.logged.is_some_and(|logged| now.saturating_since(logged) < BUSY_LOGGED) {
            busy.unsaid += 1;
            return;
        }
        let unsaid = std::mem::take(&mut busy.unsaid);
        busy.logged = Some(now);
        tracing::warn!(%caller, unsaid, "a call was rejected because calls.max are running");
        let what = format!("A call of {caller} was rejected: calls.max are running");
        world.board.happened(world.clock.utc_micros(), Severity::Warning, what);
    }
}
