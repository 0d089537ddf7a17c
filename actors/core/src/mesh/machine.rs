//! One mesh call from our first membership to our last: all pairs at once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;

use super::compose::Address;
use super::incoming::Waiting;
use super::leg::{Ending, Leg, LegPhase, Tell};
use super::peer::Peer;
use super::publish::Membership;
use super::{
    LeaveReason, LegEnd, MOST_DEVICES, MOST_DEVICES_IN_ALL, MOST_DEVICES_OF_A_USER, Member, MeshAction,
    MeshCounts, MeshEnd, MeshSettings, ToDeviceSignal,
};
use crate::call::{CallFact, ConnectionLevel, StreamMetadata};
use crate::ids::LegId;
use crate::time::BootTime;

/// User and device.
type Key = (String, String);

/// The machine of one recorded mesh call.
#[derive(Clone, Debug)]
pub struct Mesh {
    pub(super) settings: MeshSettings,
    pub(super) membership: Membership,
    pub(super) peers: BTreeMap<Key, Peer>,
    /// Devices that are or were in the call, by user.
    seen: Arc<BTreeMap<String, BTreeSet<String>>>,
    /// Members for whom there is no place.
    beyond: Arc<Vec<Member>>,
    pub(super) legs: BTreeMap<LegId, Leg>,
    pub(super) waiting: Waiting,
    pub(super) counts: MeshCounts,
    pub(super) last_leg: u32,
    last_call: u32,
    /// Somebody has been connected.
    reached: bool,
    ended: Option<MeshEnd>,
}

impl Mesh {
    /// Does nothing yet: the first [`Mesh::members`] publishes our membership.
    pub fn new(settings: MeshSettings) -> Self {
        Self {
            settings,
            membership: Membership::new(),
            peers: BTreeMap::new(),
            seen: Arc::default(),
            beyond: Arc::default(),
            legs: BTreeMap::new(),
            waiting: Waiting::default(),
            counts: MeshCounts::default(),
            last_leg: 0,
            last_call: 0,
            reached: false,
            ended: None,
        }
    }

    /// Runs one input, unless all is over.
    fn input(&mut self, run: impl FnOnce(&mut Self, &mut Vec<MeshAction>)) -> Vec<MeshAction> {
        let mut out = Vec::new();
        if self.ended.is_some() {
            self.ignore(&mut out);
        } else {
            run(self, &mut out);
        }
        self.counts.ignored += out.iter().filter(|action| **action == MeshAction::Ignored).count() as u64;
        out
    }

    /// Who is in the call now, by the room's state ([`super::Gathering::members`]), and the newest content of our own
    /// member event ([`super::Roster::own_content`]). To be told at the beginning, after every change, and when a
    /// membership has expired ([`super::Roster::next_expiry`]).
    pub fn members(
        &mut self,
        members: &[Member],
        own_content: Option<&Value>,
        now: BootTime,
        utc_ms: i64,
    ) -> Vec<MeshAction> {
        self.input(|mesh, out| {
            mesh.membership.set_own(own_content, &mesh.settings, now);
            mesh.membership.tick(&mesh.settings, now, utc_ms, out);
            mesh.drop_members(members, now, utc_ms, out);
            mesh.take_members(members, now, out);
            mesh.release_held(now, out);
            mesh.call_due(now, out);
        })
    }

    fn drop_members(&mut self, members: &[Member], now: BootTime, utc_ms: i64, out: &mut Vec<MeshAction>) {
        let there: BTreeSet<(&str, &str)> =
            members.iter().map(|member| (member.user.as_str(), member.device.as_str())).collect();
        let gone: Vec<Key> = self
            .peers
            .keys()
            .filter(|(user, device)| !there.contains(&(user.as_str(), device.as_str())))
            .cloned()
            .collect();
        for key in gone {
            let Some(peer) = self.peers.get_mut(&key) else { continue };
            let expired = peer.expires_ts_ms <= utc_ms;
            let leg = peer.leg.and_then(|leg| self.legs.get(&leg));
            // What could not be refreshed, by an outage of the homeserver, is not what is over: media still flows.
            if expired && leg.is_some_and(|leg| leg.phase == LegPhase::Connected) {
                peer.overdue = true;
                continue;
            }
            let reason = if expired { LeaveReason::Expired } else { LeaveReason::Left };
            self.leave(&key, LegEnd::Left, "user_hangup", reason, now, out);
        }
    }

    fn take_members(&mut self, members: &[Member], now: BootTime, out: &mut Vec<MeshAction>) {
        let mut beyond = Vec::new();
        for member in members {
            if member.user == self.settings.user && member.device == self.settings.device {
                continue;
            }
            let key = (member.user.clone(), member.device.clone());
            if let Some(peer) = self.peers.get_mut(&key) {
                if peer.session == member.session_id {
                    peer.refresh(member, now);
                    continue;
                }
                let reason = LeaveReason::NewSession;
                self.leave(&key, LegEnd::NewSession, "new_session", reason, now, out);
            } else if self.peers.len() >= MOST_DEVICES || !self.admit(member) {
                beyond.push(member.clone());
                continue;
            }
            self.peers.insert(key, Peer::new(member, &self.settings, now));
            out.push(MeshAction::MemberJoined { user: member.user.clone(), device: member.device.clone() });
        }
        let device = |member: &Member| (member.user.clone(), member.device.clone());
        let before: BTreeSet<Key> = self.beyond.iter().map(device).collect();
        for (user, device) in beyond.iter().map(device).filter(|key| !before.contains(key)) {
            self.counts.beyond += 1;
            out.push(MeshAction::Beyond { user, device });
        }
        if *self.beyond != beyond {
            self.beyond = Arc::new(beyond);
        }
    }

    /// Whether one more device has a place in the session. One that had it keeps it.
    fn admit(&mut self, member: &Member) -> bool {
        let of_user = self.seen.get(&member.user);
        if of_user.is_some_and(|devices| devices.contains(&member.device)) {
            return true;
        }
        let in_all: usize = self.seen.values().map(BTreeSet::len).sum();
        let admitted =
            of_user.map_or(0, BTreeSet::len) < MOST_DEVICES_OF_A_USER && in_all < MOST_DEVICES_IN_ALL;
        if admitted {
            let seen = Arc::make_mut(&mut self.seen);
            seen.entry(member.user.clone()).or_default().insert(member.device.clone());
        }
        admitted
    }

    fn leave(
        &mut self,
        key: &Key,
        why: LegEnd,
        hangup: &'static str,
        reason: LeaveReason,
        now: BootTime,
        out: &mut Vec<MeshAction>,
    ) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        peer.overdue = false;
        if let Some(leg) = peer.leg {
            self.close(leg, why, Tell::Hangup(hangup), now, out);
        }
        self.peers.remove(key);
        out.push(MeshAction::MemberLeft { user: key.0.clone(), device: key.1.clone(), reason });
    }

    /// The homeserver's answer to [`MeshAction::Publish`].
    pub fn published(&mut self, ok: bool, now: BootTime) -> Vec<MeshAction> {
        self.input(|mesh, out| {
            if !mesh.membership.answer(ok, &mesh.settings, now) {
                return mesh.ignore(out);
            }
            if mesh.membership.is_hopeless() {
                return mesh.finish(MeshEnd::NotAllowed, now, None, out);
            }
            mesh.release_held(now, out);
            mesh.call_due(now, out);
        })
    }

    /// A to-device event came, whosever call it is about.
    pub fn signal(&mut self, signal: ToDeviceSignal, now: BootTime) -> Vec<MeshAction> {
        self.input(|mesh, out| {
            mesh.incoming(signal, now, out);
            mesh.call_due(now, out);
        })
    }

    /// Calls whom it is for us to call and whose time has come.
    fn call_due(&mut self, now: BootTime, out: &mut Vec<MeshAction>) {
        if !self.membership.is_published() {
            return;
        }
        let due: Vec<Key> = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.leg.is_none() && peer.next_try.is_some_and(|at| at <= now))
            .map(|(key, _)| key.clone())
            .collect();
        for key in due {
            let leg = self.next_leg();
            self.last_call = self.last_call.saturating_add(1);
            let Some(peer) = self.peers.get_mut(&key) else { continue };
            peer.next_try = None;
            peer.leg = Some(leg);
            peer.calls_made();
            let call_id = format!("{}.{}", self.settings.session_id, self.last_call);
            let address = Address::new(&key.0, &key.1, Some(&peer.session), &call_id, &self.settings);
            let screen = peer.screen;
            self.legs.insert(leg, Leg::new(leg, address, now));
            let (user, device) = key;
            out.push(MeshAction::LegOpened { leg, user, party: device.clone(), device });
            out.push(MeshAction::Dial { leg, screen });
        }
    }

    /// Runs one input of a leg.
    fn leg_input(
        &mut self,
        leg: LegId,
        now: BootTime,
        run: impl FnOnce(&mut Leg, &MeshSettings, &mut Vec<MeshAction>) -> Option<Ending>,
    ) -> Vec<MeshAction> {
        self.input(|mesh, out| {
            let Some(found) = mesh.legs.get_mut(&leg) else { return mesh.ignore(out) };
            let ending = run(found, &mesh.settings, out);
            mesh.after(leg, ending, now, out);
            mesh.call_due(now, out);
        })
    }

    /// After every input of a leg.
    pub(super) fn after(
        &mut self,
        leg: LegId,
        ending: Option<Ending>,
        now: BootTime,
        out: &mut Vec<MeshAction>,
    ) {
        if let Some((why, tell)) = ending {
            return self.close(leg, why, tell, now, out);
        }
        let Some(found) = self.legs.get_mut(&leg) else { return };
        if found.phase == LegPhase::Connected && !std::mem::replace(&mut found.was_connected, true) {
            let key = (found.address.user.clone(), found.address.device.clone());
            self.reached = true;
            if let Some(peer) = self.peers.get_mut(&key) {
                peer.tries = 0;
                peer.attempted = false;
                if std::mem::replace(&mut peer.was_connected, true) {
                    out.push(MeshAction::Note { leg, fact: CallFact::Reconnected });
                }
            }
        }
    }

    pub(super) fn close(
        &mut self,
        leg: LegId,
        why: LegEnd,
        tell: Tell,
        now: BootTime,
        out: &mut Vec<MeshAction>,
    ) {
        let Some(mut closed) = self.legs.remove(&leg) else { return };
        closed.tell(tell, &self.settings, out);
        out.push(MeshAction::CloseLeg { leg, why });
        let key = (closed.address.user.clone(), closed.address.device.clone());
        let Some(peer) = self.peers.get_mut(&key) else { return };
        peer.set_over(closed.call_id());
        peer.lost(why, &self.settings, now);
        if peer.overdue && why != LegEnd::Replaced {
            self.peers.remove(&key);
            let (user, device) = key;
            out.push(MeshAction::MemberLeft { user, device, reason: LeaveReason::Expired });
        }
    }

    /// The media plane's answer to [`MeshAction::Dial`]: our offer, with all candidates in it; `None` for a fault.
    pub fn dialled(&mut self, leg: LegId, offer: Option<&str>, now: BootTime) -> Vec<MeshAction> {
        self.leg_input(leg, now, |leg, settings, out| leg.dialled(offer, settings, now, out))
    }

    /// The media plane's answer to [`MeshAction::Accept`]: our answer; `None` if the offer cannot be used.
    pub fn accepted(&mut self, leg: LegId, answer: Option<&str>, now: BootTime) -> Vec<MeshAction> {
        self.leg_input(leg, now, |leg, settings, out| leg.accepted(answer, settings, now, out))
    }

    /// The media plane's answer to [`MeshAction::ApplyAnswer`].
    pub fn applied(&mut self, leg: LegId, ok: bool, now: BootTime) -> Vec<MeshAction> {
        self.leg_input(leg, now, |leg, settings, out| leg.applied(ok, settings, now, out))
    }

    /// The media plane's answer to [`MeshAction::Renegotiate`]; `None` if the offer was refused, and the leg goes on as
    /// it was.
    pub fn renegotiated(&mut self, leg: LegId, answer: Option<&str>, now: BootTime) -> Vec<MeshAction> {
        self.leg_input(leg, now, |leg, settings, out| {
            leg.renegotiated(answer, settings, out);
            None
        })
    }

    /// The connection's level, told at every change and at will.
    pub fn connection(&mut self, leg: LegId, level: ConnectionLevel, now: BootTime) -> Vec<MeshAction> {
        self.leg_input(leg, now, |leg, _, out| leg.connection(level, now, out))
    }

    /// Time passed; once a second will do.
    pub fn tick(&mut self, now: BootTime, utc_ms: i64) -> Vec<MeshAction> {
        self.input(|mesh, out| {
            mesh.membership.tick(&mesh.settings, now, utc_ms, out);
            if mesh.membership.is_hopeless() {
                return mesh.finish(MeshEnd::NotAllowed, now, None, out);
            }
            mesh.tick_waiting(now, out);
            let endings: Vec<_> =
                mesh.legs.values().filter_map(|leg| Some((leg.id, leg.tick(now)?))).collect();
            for (leg, ending) in endings {
                mesh.after(leg, Some(ending), now, out);
            }
            for peer in mesh.peers.values_mut() {
                peer.awaited_until = peer.awaited_until.filter(|until| now < *until);
            }
            mesh.call_due(now, out);
        })
    }

    /// We end it: peers are told, our membership is taken back.
    pub fn stop(&mut self, end: MeshEnd, now: BootTime, utc_ms: i64) -> Vec<MeshAction> {
        self.input(|mesh, out| {
            mesh.finish(end, now, Some(utc_ms), out);
        })
    }

    fn finish(&mut self, end: MeshEnd, now: BootTime, utc_ms: Option<i64>, out: &mut Vec<MeshAction>) {
        let left_alone = end == MeshEnd::Empty && !self.reached && !self.peers.is_empty();
        let end = if left_alone { MeshEnd::Unreachable } else { end };
        let keys: Vec<Key> = self.peers.keys().cloned().collect();
        for key in keys {
            self.leave(&key, LegEnd::Stopped, "user_hangup", LeaveReason::Stopped, now, out);
        }
        if let Some(utc_ms) = utc_ms.filter(|_| self.membership.was_asked_for() && end != MeshEnd::Removed) {
            out.push(MeshAction::Unpublish { content: self.leave_content(utc_ms) });
        }
        self.ended = Some(end);
        self.forget_waiting();
        out.push(MeshAction::End(end));
    }

    pub fn settings(&self) -> &MeshSettings {
        &self.settings
    }

    /// Why it ended, once it has.
    pub fn ended(&self) -> Option<MeshEnd> {
        self.ended
    }

    /// What the peer says of its streams, merged over the leg's life ([`crate::call::source_of`]).
    pub fn metadata(&self, leg: LegId) -> Option<&StreamMetadata> {
        self.legs.get(&leg)?.metadata.as_ref()
    }

    /// User and device at the other end of a leg.
    pub fn peer(&self, leg: LegId) -> Option<(&str, &str)> {
        let address = &self.legs.get(&leg)?.address;
        Some((&address.user, &address.device))
    }

    /// Who is connected although their memberships have run out, as when the homeserver is away.
    pub fn overdue(&self) -> Vec<Member> {
        let overdue = self.peers.iter().filter(|(_, peer)| peer.overdue);
        overdue.map(|((user, device), peer)| peer.member(user, device)).collect()
    }

    /// Members who cannot be taken to be there: given up, among `known` for that and not connected since, or without a
    /// place. Someone whose browser was killed stands in the room's state for up to an hour.
    pub fn unreachable(&self, known: &[Member]) -> Vec<Member> {
        let members = self.peers.iter().map(|((user, device), peer)| (peer, peer.member(user, device)));
        let unreachable = members
            .filter(|(peer, member)| !peer.is_present() || (!peer.was_connected && known.contains(member)));
        unreachable.map(|(_, member)| member).chain(self.beyond.iter().cloned()).collect()
    }

    /// Content of our member event without our device, for a delayed event (MSC4140) that takes us out if we die.
    pub fn leave_content(&self, utc_ms: i64) -> Value {
        self.membership.without_us(&self.settings, utc_ms)
    }

    pub fn counts(&self) -> MeshCounts {
        self.counts
    }
}
