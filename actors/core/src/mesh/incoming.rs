//! To-device signals on their way to a leg: for us or not, of a member or not yet, in their order.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::compose::Address;
use super::leg::{Leg, Tell};
use super::machine::Mesh;
use super::{LegEnd, MeshAction, ToDeviceSignal};
use crate::call::SignalBody;
use crate::ids::LegId;
use crate::time::BootTime;

/// How long a signal may come before its sender's membership does.
const HOLD_LIMIT: Duration = Duration::from_secs(10);
/// Signals held, of everybody and of one user.
pub(super) const MOST_HELD: usize = 64;
const MOST_HELD_OF_A_USER: usize = 16;
/// Bytes held.
pub(super) const MOST_HELD_BYTES: usize = 4 << 20;
/// Bytes that wait for earlier signals, of everybody; beyond it gaps are not waited for.
pub(super) const MOST_WAITING_BYTES: usize = 8 << 20;
/// Rejections sent in 10 s; further invites are ignored in silence.
pub(super) const MOST_REJECTIONS: usize = 32;
const REJECTIONS_WITHIN: Duration = Duration::from_secs(10);

#[derive(Clone, Debug, Default)]
pub(super) struct Waiting {
    /// Signals of those who are not, or not with this session, in the roster; of everybody while our own membership
    /// is not published.
    pub(super) held: VecDeque<(BootTime, Arc<ToDeviceSignal>)>,
    rejections: VecDeque<BootTime>,
}

type Out = Vec<MeshAction>;

impl Mesh {
    /// The signal is of this call and of our session in it. Conference ids are their creators' and may be the same in two
    /// rooms.
    pub fn is_addressee(&self, signal: &ToDeviceSignal) -> bool {
        signal.conf_id == self.settings.conf_id
            && signal.dest_session.as_deref() == Some(self.settings.session_id.as_str())
    }

    pub(super) fn incoming(&mut self, signal: ToDeviceSignal, now: BootTime, out: &mut Out) {
        let settings = &self.settings;
        let echo = signal.sender() == settings.user && signal.device == settings.device;
        let invited = match &signal.signal.body {
            SignalBody::Invite { invitee, .. } => {
                invitee.as_ref().is_none_or(|invitee| *invitee == settings.user)
            }
            _ => true,
        };
        if echo || !invited || !self.is_addressee(&signal) {
            return self.ignore(out);
        }
        let signal = Arc::new(signal);
        if self.may_be_taken(&signal) { self.take(&signal, now, out) } else { self.hold(signal, now, out) }
    }

    fn may_be_taken(&self, signal: &Arc<ToDeviceSignal>) -> bool {
        self.membership.is_published()
            && self
                .peers
                .get(&(signal.sender().to_owned(), signal.device.clone()))
                .is_some_and(|peer| peer.is_sender_of(signal))
    }

    fn hold(&mut self, signal: Arc<ToDeviceSignal>, now: BootTime, out: &mut Out) {
        let held = &self.waiting.held;
        let same = held.iter().filter(|(_, known)| known.sender() == signal.sender()).count();
        let bytes: usize = held.iter().map(|(_, known)| known.weight()).sum();
        if held.len() >= MOST_HELD || same >= MOST_HELD_OF_A_USER || bytes + signal.weight() > MOST_HELD_BYTES
        {
            self.counts.strangers += 1;
            // A client that is refused tries again; one that is not answered waits for a minute.
            return self.reject_or_ignore(&signal, now, out);
        }
        self.waiting.held.push_back((now, signal));
    }

    /// The roster changed, or we may signal now.
    pub(super) fn release_held(&mut self, now: BootTime, out: &mut Out) {
        for (since, signal) in std::mem::take(&mut self.waiting.held) {
            if self.may_be_taken(&signal) {
                self.take(&signal, now, out);
            } else {
                self.waiting.held.push_back((since, signal));
            }
        }
    }

    pub(super) fn tick_waiting(&mut self, now: BootTime, out: &mut Out) {
        while let Some((since, _)) = self.waiting.held.front() {
            if now.saturating_since(*since) < HOLD_LIMIT {
                break;
            }
            if let Some((_, signal)) = self.waiting.held.pop_front() {
                self.counts.strangers += 1;
                self.reject_or_ignore(&signal, now, out);
            }
        }
        let overdue: Vec<_> = self
            .peers
            .iter()
            .flat_map(|(key, peer)| peer.inboxes.iter().map(move |inbox| (key, inbox)))
            .filter(|(_, inbox)| inbox.is_overdue(now))
            .map(|(key, inbox)| (key.clone(), inbox.call_id.clone()))
            .collect();
        for (key, call_id) in overdue {
            self.skip_gap(&key, &call_id, now, out);
        }
    }

    fn reject_or_ignore(&mut self, signal: &ToDeviceSignal, now: BootTime, out: &mut Out) {
        if matches!(signal.signal.body, SignalBody::Invite { .. }) {
            self.reject(signal, now, out);
        } else {
            self.ignore(out);
        }
    }

    /// Refuses a call of which we have said nothing yet.
    fn reject(&mut self, signal: &ToDeviceSignal, now: BootTime, out: &mut Out) {
        let sent = &mut self.waiting.rejections;
        while sent.front().is_some_and(|at| now.saturating_since(*at) >= REJECTIONS_WITHIN) {
            sent.pop_front();
        }
        if sent.len() >= MOST_REJECTIONS {
            return self.ignore(out);
        }
        sent.push_back(now);
        self.counts.rejected += 1;
        let session = signal.sender_session.as_deref();
        let mut address =
            Address::new(signal.sender(), &signal.device, session, &signal.signal.call_id, &self.settings);
        let reject = address.envelope.reject();
        out.push(address.send(reject, &self.settings));
    }

    /// A signal of a member: in its turn.
    fn take(&mut self, signal: &Arc<ToDeviceSignal>, now: BootTime, out: &mut Out) {
        let Some(seq) = signal.seq else { return self.handle(signal, now, out) };
        let key = (signal.sender().to_owned(), signal.device.clone());
        let call_id = signal.signal.call_id.as_str();
        let running = self.running_call(&key);
        let Some(peer) = self.peers.get_mut(&key) else { return self.ignore(out) };
        let inbox = peer.inbox(call_id, running.as_deref());
        let Some(ready) = inbox.take(seq, Arc::clone(signal), now) else { return self.ignore(out) };
        let is_full = inbox.is_full();
        for signal in ready {
            self.handle(&signal, now, out);
        }
        if is_full || self.waiting_bytes() > MOST_WAITING_BYTES {
            self.skip_gap(&key, call_id, now, out);
        }
    }

    fn running_call(&self, key: &(String, String)) -> Option<String> {
        let leg = self.peers.get(key)?.leg?;
        Some(self.legs.get(&leg)?.call_id().to_owned())
    }

    pub(super) fn waiting_bytes(&self) -> usize {
        self.peers.values().flat_map(|peer| &peer.inboxes).map(|inbox| inbox.bytes).sum()
    }

    fn skip_gap(&mut self, key: &(String, String), call_id: &str, now: BootTime, out: &mut Out) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        let Some(inbox) = peer.inboxes.iter_mut().find(|inbox| inbox.call_id == call_id) else { return };
        let ready = inbox.skip_gap(now);
        if ready.is_empty() {
            return;
        }
        self.counts.gaps += 1;
        for signal in ready {
            self.handle(&signal, now, out);
        }
        // What comes first of the other side is its answer: it is lost and will not come again.
        let unanswered = self
            .peers
            .get(key)
            .and_then(|peer| self.legs.get(&peer.leg?))
            .filter(|leg| leg.call_id() == call_id && leg.is_calling())
            .map(|leg| leg.id);
        if let Some(leg) = unanswered {
            self.close(leg, LegEnd::SignallingLost, Tell::Hangup("signalling_timeout"), now, out);
        }
    }

    /// A signal whose turn it is.
    fn handle(&mut self, signal: &Arc<ToDeviceSignal>, now: BootTime, out: &mut Out) {
        let key = (signal.sender().to_owned(), signal.device.clone());
        let call_id = signal.signal.call_id.as_str();
        let Some(peer) = self.peers.get_mut(&key) else { return self.ignore(out) };
        let leg = peer.leg.filter(|leg| self.legs.get(leg).is_some_and(|leg| leg.call_id() == call_id));
        if let Some(leg) = leg.and_then(|leg| self.legs.get_mut(&leg)) {
            let ending = leg.signal(&signal.signal, &self.settings, now, out);
            let leg = leg.id;
            return self.after(leg, ending, now, out);
        }
        if peer.is_over(call_id) {
            return self.ignore(out);
        }
        match &signal.signal.body {
            SignalBody::Invite { .. } => self.invited(key, signal, now, out),
            // An invite that comes after its hang-up is of no use.
            SignalBody::Hangup { .. } | SignalBody::Reject => {
                peer.set_over(call_id);
                self.ignore(out);
            }
            _ => {
                // The invite was lost: a caller that is refused tries again soon.
                let lost = peer.inboxes.iter().any(|inbox| inbox.call_id == call_id && inbox.gapped);
                if lost && !peer.we_call {
                    peer.set_over(call_id);
                    self.reject(signal, now, out);
                } else {
                    self.ignore(out);
                }
            }
        }
    }

    fn invited(&mut self, key: (String, String), signal: &Arc<ToDeviceSignal>, now: BootTime, out: &mut Out) {
        let SignalBody::Invite { offer, metadata, .. } = &signal.signal.body else { return };
        let call_id = &signal.signal.call_id;
        let Some(peer) = self.peers.get_mut(&key) else { return };
        if !peer.may_invite(now) {
            peer.set_over(call_id);
            return self.reject(signal, now, out);
        }
        if let Some(earlier) = peer.leg.and_then(|leg| self.legs.get(&leg)) {
            // Two invites crossed: the smaller call id wins (client-server API, "Glare").
            if earlier.is_calling() && earlier.call_id() < call_id.as_str() {
                peer.set_over(call_id);
                return self.reject(signal, now, out);
            }
            let earlier = earlier.id;
            self.close(earlier, LegEnd::Replaced, Tell::Hangup("replaced"), now, out);
        }
        let id = self.next_leg();
        let Some(peer) = self.peers.get_mut(&key) else { return };
        let session = signal.sender_session.as_ref().unwrap_or(&peer.session);
        let address = Address::new(&key.0, &key.1, Some(session), call_id, &self.settings);
        peer.leg = Some(id);
        peer.next_try = None;
        peer.awaited_until = None;
        let party = signal.signal.party.clone();
        out.push(MeshAction::LegOpened {
            leg: id,
            user: key.0,
            party: party.clone().unwrap_or_else(|| key.1.clone()),
            device: key.1,
        });
        out.push(MeshAction::Accept { leg: id, offer: offer.clone() });
        self.legs.insert(id, Leg::accept(id, address, party, metadata.clone(), now));
    }

    pub(super) fn ignore(&mut self, out: &mut Out) {
        out.push(MeshAction::Ignored);
    }

    /// The newest leg number, never used again.
    pub(super) fn next_leg(&mut self) -> LegId {
        self.last_leg = self.last_leg.saturating_add(1);
        LegId(self.last_leg)
    }

    pub(super) fn forget_waiting(&mut self) {
        self.waiting = Waiting::default();
    }
}
