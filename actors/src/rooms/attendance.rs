//! Who is in the calls of a room, by its state and by what the call that runs knows better; and our own place in them.

use std::sync::atomic::Ordering;
use std::time::Duration;

use recorder_core::mesh::{Gathering, MEMBER_EVENT, Member, without_device};
use recorder_core::room::Activity;
use serde_json::Value;

use super::RoomPlace;
use crate::supervise::lock;

impl RoomPlace {
    /// Who is in the room's call now.
    pub(crate) fn gathering(&self) -> Option<Gathering> {
        lock(&self.roster)
            .gathering(self.world.clock.utc_micros() / 1_000)
            .filter(|gathering| !gathering.livekit)
    }

    /// Who is in one of the room's calls now.
    pub(crate) fn gathering_of(&self, call_id: &str) -> Option<Gathering> {
        lock(&self.roster).gathering_of(call_id, self.world.clock.utc_micros() / 1_000)
    }

    /// Content of our own membership event, as last seen.
    pub(crate) fn own_content(&self) -> Option<Value> {
        lock(&self.roster).own_content().cloned()
    }

    /// What the call that runs knows better of who is there. When it is over, it stays known who could not be reached.
    pub(crate) fn learn_attendance(
        &self,
        learn: impl FnOnce(&[Member]) -> Option<(Vec<Member>, Vec<Member>)>,
    ) {
        let mut unreachable = lock(&self.unreachable);
        if let Some((members, overdue)) = learn(&unreachable) {
            *unreachable = members;
            *lock(&self.overdue) = overdue;
        }
    }

    /// The call that matters here: the one that is recorded for as long as somebody is in it, else the newest one. Whom
    /// no call could reach is in none.
    pub(super) fn attended(&self) -> Option<Gathering> {
        let running = lock(&self.machine).durable().running.as_ref().map(|running| running.call_id.clone());
        let reachable = |mut gathering: Gathering| {
            let unreachable = lock(&self.unreachable);
            gathering.members.retain(|member| !unreachable.contains(member));
            gathering
        };
        let with_overdue = |mut gathering: Gathering| {
            gathering.members.extend(lock(&self.overdue).iter().cloned());
            gathering
        };
        running
            .and_then(|call_id| self.gathering_of(&call_id))
            .map(reachable)
            .map(with_overdue)
            .filter(|gathering| !gathering.members.is_empty())
            .or_else(|| self.gathering().map(reachable))
            .filter(|gathering| gathering.terminated.is_none())
    }

    /// The call that is being recorded was ended for everybody.
    pub(super) fn is_terminated(&self) -> bool {
        let machine = lock(&self.machine);
        let running =
            machine.durable().running.as_ref().filter(|_| machine.activity() == Activity::Recording);
        let gathering = running.and_then(|running| self.gathering_of(&running.call_id));
        gathering.is_some_and(|gathering| gathering.terminated.is_some())
    }

    /// Once what the room says of calls is known, and unless one is recorded: takes back what an earlier process, or we
    /// when we were removed from the room, left of our membership.
    pub(crate) fn clear_stale_membership(&self) {
        if lock(&self.call).is_some() || !self.arrived.swap(false, Ordering::Relaxed) {
            return;
        }
        let utc_ms = self.world.clock.utc_micros() / 1_000;
        let device = &self.world.settings.device;
        let Some(content) = without_device(self.own_content().as_ref(), device, utc_ms) else {
            return;
        };
        tracing::info!(room = %self.id, "a membership that was left behind is taken back");
        let (kind, key) = (MEMBER_EVENT.to_owned(), self.world.settings.user.clone());
        let sending =
            self.world.rooms.send_state(self.id.clone(), kind, key, content, Duration::from_secs(60));
        actix::spawn(async move {
            if let Err(error) = sending.await {
                tracing::warn!(%error, "a membership that was left behind could not be taken back");
            }
        });
    }
}
