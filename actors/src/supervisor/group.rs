//! What the supervisor does for rooms: their machines hear what happens, and what they order is done in the tree.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use recorder_core::call::{CallEnd, Saved};
use recorder_core::ids::CallKey;
use recorder_core::manifest::{CallKind, EndReason};
use recorder_core::mesh::ToDeviceSignal;

use super::{CallPlace, DeviceDelivery, SupervisorActor, start_call};
use crate::call::{CallInput, CallShared, Ending};
use crate::observe::{ActorKind, Severity, Totals};
use crate::rooms::RoomPlace;
use crate::supervise::{Slot, lock};
use crate::testing::{Point, visit};

/// Rooms that are kept; of further ones nothing is recorded. The recorder joins by invitation of allowed users only.
const MOST_ROOMS: usize = 10_000;

impl SupervisorActor {
    pub(super) fn room(&self, id: &str) -> Option<Arc<RoomPlace>> {
        lock(&self.shared.rooms).get(id).map(Arc::clone)
    }

    pub(super) fn room_or_new(&self, id: &str) -> Option<Arc<RoomPlace>> {
        let mut rooms = lock(&self.shared.rooms);
        if let Some(room) = rooms.get(id) {
            return Some(Arc::clone(room));
        }
        if rooms.len() >= MOST_ROOMS {
            Totals::count(&self.shared.world.board.totals.signals_ignored);
            return None;
        }
        let record = lock(&self.shared.remembered).remove(id);
        let room = RoomPlace::new(&self.shared.world, &self.shared.link, id, record);
        rooms.insert(id.to_owned(), Arc::clone(&room));
        Some(room)
    }

    /// A call event from device to device goes to the call of its conference in which we have the session it is for.
    pub(super) fn device_event(&self, delivery: &DeviceDelivery) {
        let totals = &self.shared.world.board.totals;
        let DeviceDelivery { sender, event_type, content, received } = delivery;
        let signal = match ToDeviceSignal::parse(sender, event_type, content, *received) {
            Ok(signal) => signal,
            Err(error) => {
                tracing::debug!(%sender, %error, "a call event to this device cannot be read");
                return Totals::count(&totals.signals_ignored);
            }
        };
        let call =
            lock(&self.shared.calls).values().find(|place| place.shared.is_addressee(&signal)).cloned();
        match call {
            Some(place) => {
                Totals::count(&totals.signals_handled);
                place.shared.tell(CallInput::Device(Box::new(signal)));
            }
            None => Totals::count(&totals.signals_ignored),
        }
    }

    /// Shows every room what there is, and does what it orders.
    pub(super) fn keep_rooms(&self) {
        if !self.shared.rooms_known.load(Ordering::Acquire) {
            return;
        }
        let forgotten: Vec<_> = lock(&self.shared.remembered).keys().cloned().collect();
        for id in forgotten {
            // Nothing was heard of it, but what the last process left there is to be settled.
            self.room_or_new(&id);
        }
        let mut calls: BTreeMap<String, Vec<CallPlace>> = BTreeMap::new();
        for place in lock(&self.shared.calls).values() {
            calls.entry(place.shared.room.clone()).or_default().push(place.clone());
        }
        for room in self.rooms() {
            room.settle();
            let call = self.call_of(&room);
            let progress = call.as_ref().map(|place| place.shared.progress());
            if let Some(place) = &call {
                let (began, delay) = (place.shared.started_utc_micros, place.shared.delay());
                room.running_is(place.shared.session_id(), began, delay);
                self.show_members(&room, place);
                room.learn_attendance(|known| place.shared.attendance(known));
                room.show_told(&place.shared.told);
            }
            room.full(self.full());
            room.look(progress);
            self.do_for(&room, &calls.remove(&room.id).unwrap_or_default());
            room.show();
        }
    }

    /// A batch is over: what the rooms that we came into say of calls is known.
    pub(super) fn clear_stale_memberships(&self) {
        for room in self.rooms() {
            room.clear_stale_membership();
        }
    }

    /// How many calls may be recorded at once, if so many are.
    pub(super) fn full(&self) -> Option<usize> {
        self.full_without(None)
    }

    /// The same when one of them is over.
    pub(super) fn full_without(&self, over: Option<CallKey>) -> Option<usize> {
        let most = self.shared.world.settings.group.max_calls;
        let running = lock(&self.shared.calls).keys().filter(|key| Some(**key) != over).count();
        (running >= most).then_some(most)
    }

    /// After something was heard in a room: at once, so that the next thing finds it done.
    pub(super) fn do_now(&self, room: &Arc<RoomPlace>) {
        if !self.shared.rooms_known.load(Ordering::Acquire) {
            return;
        }
        let here = |place: &&CallPlace| place.shared.room == room.id;
        let calls: Vec<_> = lock(&self.shared.calls).values().filter(here).cloned().collect();
        self.do_for(room, &calls);
    }

    /// Brings the tree in line with what a room wants. `calls` are all that are recorded there, whatever their kind.
    fn do_for(&self, room: &Arc<RoomPlace>, calls: &[CallPlace]) {
        visit(Point::Room, &room.id);
        calls.iter().for_each(|place| room.show_consent(&place.shared));
        visit(Point::Room, &room.id);
        match (self.call_of(room), room.wants()) {
            (Some(place), Some(Some((reason, by)))) => {
                place.shared.stop(Ending { end: call_end(reason), by })
            }
            // What is suspended is the next process's.
            (None, _) if self.shared.shutting_down.load(Ordering::Acquire) => {}
            (None, Some(None)) => self.record(room),
            // It was over before it began.
            (None, Some(Some((reason, _)))) => room.ended(Saved::default(), 0, reason),
            _ => {}
        }
        while let Some(fact) = room.next_fact() {
            visit(Point::Room, &room.id);
            for place in self.call_of(room).iter().chain(&self.call_by(room, fact.user.as_deref())) {
                place.shared.tell_event(fact.kind, fact.user.as_deref(), fact.detail.clone());
            }
        }
    }

    pub(super) fn rooms(&self) -> Vec<Arc<RoomPlace>> {
        lock(&self.shared.rooms).values().map(Arc::clone).collect()
    }

    fn call_of(&self, room: &RoomPlace) -> Option<CallPlace> {
        let key = (*lock(&room.call))?;
        lock(&self.shared.calls).get(&key).cloned()
    }

    /// A running call hears who is in it, whenever that has changed.
    fn show_members(&self, room: &RoomPlace, place: &CallPlace) {
        let gathering = room.gathering_of(&place.shared.call_id);
        let members = gathering.map(|gathering| gathering.members).unwrap_or_default();
        place.shared.show_members(members, room.own_content());
    }

    /// The 1:1 call that this user placed in the room.
    fn call_by(&self, room: &RoomPlace, user: Option<&str>) -> Option<CallPlace> {
        let user = user?;
        let calls = lock(&self.shared.calls);
        let theirs = calls.values().find(|place| {
            let call = &place.shared;
            call.kind == CallKind::OneToOne
                && call.room == room.id
                && call.started_by.as_deref() == Some(user)
        });
        theirs.cloned()
    }

    /// Who does not want to be recorded in a room, whether or not anything was heard of it in this process.
    pub(super) fn opted_out(&self, room: &str) -> BTreeSet<String> {
        match self.room(room) {
            Some(room) => room.opted_out(),
            None => lock(&self.shared.remembered)
                .get(room)
                .map(|record| record.durable.opted_out.clone())
                .unwrap_or_default(),
        }
    }

    /// Joins a call and records it.
    fn record(&self, room: &Arc<RoomPlace>) {
        let Some(order) = room.order() else { return };
        let world = &self.shared.world;
        let running = lock(&self.shared.calls).len();
        // A room is told beforehand; but what an earlier process recorded may be more than may be now.
        if running >= world.settings.group.max_calls {
            tracing::warn!(room = %order.room, running, "a group call is not recorded: calls.max are running");
            let what = "A group call was not recorded: calls.max are running";
            world.board.happened(world.clock.utc_micros(), Severity::Warning, what);
            if let Some(session) = order.resume {
                world.sessions.abandon(session);
            }
            return room.ended(Saved::default(), 0, EndReason::TooManyCalls);
        }
        let key = self.shared.next_key();
        tracing::info!(call = %key, room = %order.room, by = ?order.started_by, "a group call is joined");
        let path = format!("{}/{key}", self.slot.path());
        let slot = Slot::new(world, &self.shared.link, path, ActorKind::Call, order.room.clone());
        let shared = CallShared::joining(world, &self.shared.link, key, order);
        *lock(&room.call) = Some(key);
        let place = CallPlace { slot, shared };
        lock(&self.shared.calls).insert(key, place.clone());
        self.count_running();
        self.show_members(room, &place);
        start_call(&place);
    }
}

const fn call_end(reason: EndReason) -> CallEnd {
    match reason {
        EndReason::EveryoneLeft => CallEnd::Left,
        EndReason::Unreachable => CallEnd::Unreachable,
        EndReason::Hangup | EndReason::Terminated => CallEnd::Terminated,
        EndReason::Removed => CallEnd::Removed,
        EndReason::RoomUpgraded => CallEnd::RoomUpgraded,
        EndReason::Shutdown => CallEnd::Shutdown,
        EndReason::OptedOut => CallEnd::OptedOut,
        EndReason::NotAnnounced => CallEnd::NotAnnounced,
        EndReason::NotPermitted => CallEnd::NotPermitted,
        EndReason::ConnectionLost => CallEnd::ConnectionLost,
        EndReason::Failed | EndReason::TooManyCalls => CallEnd::Failed,
        EndReason::DiskFull => CallEnd::DiskFull,
        EndReason::Stopped | EndReason::Restarted => CallEnd::Stopped,
    }
}
