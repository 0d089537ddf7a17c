//! A participant device as the call's machine knows it, and when it is called.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::inbox::Inbox;
use super::{LegEnd, Member, MeshSettings, ToDeviceSignal};
use crate::ids::LegId;
use crate::time::BootTime;

/// Calls of one device whose signals are kept in order at the same time.
const MOST_INBOXES: usize = 4;
/// Calls of one device that are known to be over.
const MOST_OVER: usize = 16;
/// Invites of one device that are taken in 10 s; clients try again after 5 s.
const MOST_INVITES: usize = 6;
const INVITES_WITHIN: Duration = Duration::from_secs(10);
/// How long someone who ought to call us is taken to be there without doing it.
const CALL_PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub(super) session: String,
    pub(super) screen: bool,
    pub(super) expires_ts_ms: i64,
    /// It is for us to call.
    pub(super) we_call: bool,
    pub(super) leg: Option<LegId>,
    /// Calls of ours after the first one, since the last that connected.
    pub(super) tries: u32,
    /// The first one was made.
    pub(super) attempted: bool,
    pub(super) next_try: Option<BootTime>,
    /// Until when a call of the other side is expected.
    pub(super) awaited_until: Option<BootTime>,
    /// A leg of this session was connected before.
    pub(super) was_connected: bool,
    /// Its membership has run out while its connection lives.
    pub(super) overdue: bool,
    pub(super) inboxes: Vec<Inbox>,
    over: VecDeque<String>,
    invites: VecDeque<BootTime>,
}

impl Peer {
    pub(super) fn new(member: &Member, settings: &MeshSettings, now: BootTime) -> Self {
        let mut peer = Self {
            session: member.session_id.clone(),
            screen: member.screen,
            expires_ts_ms: member.expires_ts_ms,
            we_call: we_call(settings, &member.user, &member.device),
            leg: None,
            tries: 0,
            attempted: false,
            next_try: None,
            awaited_until: None,
            was_connected: false,
            overdue: false,
            inboxes: Vec::new(),
            over: VecDeque::new(),
            invites: VecDeque::new(),
        };
        peer.expect(now);
        peer
    }

    /// Somebody is to begin anew, from now on.
    pub(super) fn expect(&mut self, now: BootTime) {
        self.tries = 0;
        self.attempted = false;
        if self.we_call {
            self.next_try = Some(now);
        } else {
            self.awaited_until = Some(now + CALL_PATIENCE);
        }
    }

    /// We call now.
    pub(super) fn calls_made(&mut self) {
        if std::mem::replace(&mut self.attempted, true) {
            self.tries += 1;
        }
    }

    /// Its leg is over.
    pub(super) fn lost(&mut self, why: LegEnd, settings: &MeshSettings, now: BootTime) {
        self.leg = None;
        if why == LegEnd::Replaced {
            return;
        }
        if !self.we_call {
            self.awaited_until = Some(now + CALL_PATIENCE);
        } else if why == LegEnd::ConnectionLost && self.was_connected && !self.attempted {
            self.next_try = Some(now);
        } else if self.tries < settings.most_tries {
            self.next_try = Some(now + settings.retry);
        } else {
            self.next_try = None;
        }
    }

    /// The room's state says something newer of the same session.
    pub(super) fn refresh(&mut self, member: &Member, now: BootTime) {
        let newer = member.expires_ts_ms > self.expires_ts_ms;
        self.screen = member.screen;
        self.expires_ts_ms = member.expires_ts_ms;
        self.overdue = false;
        // Given up, and yet it lives.
        if newer && !self.is_present() {
            self.expect(now);
        }
    }

    /// As the room's state has it.
    pub(super) fn member(&self, user: &str, device: &str) -> Member {
        Member {
            user: user.to_owned(),
            device: device.to_owned(),
            session_id: self.session.clone(),
            screen: self.screen,
            expires_ts_ms: self.expires_ts_ms,
        }
    }

    pub(super) fn is_present(&self) -> bool {
        self.leg.is_some() || self.next_try.is_some() || self.awaited_until.is_some()
    }

    /// Whether one more invite may set up a connection.
    pub(super) fn may_invite(&mut self, now: BootTime) -> bool {
        while self.invites.front().is_some_and(|at| now.saturating_since(*at) >= INVITES_WITHIN) {
            self.invites.pop_front();
        }
        let may = self.invites.len() < MOST_INVITES;
        if may {
            self.invites.push_back(now);
        }
        may
    }

    pub(super) fn is_over(&self, call_id: &str) -> bool {
        self.over.iter().any(|over| over == call_id)
    }

    pub(super) fn set_over(&mut self, call_id: &str) {
        if !self.is_over(call_id) {
            self.over.push_back(call_id.to_owned());
            if self.over.len() > MOST_OVER {
                self.over.pop_front();
            }
        }
    }

    /// The inbox of a call; for a new one the oldest goes that is not the `running` call's.
    pub(super) fn inbox(&mut self, call_id: &str, running: Option<&str>) -> &mut Inbox {
        let place = self.inboxes.iter().position(|inbox| inbox.call_id == call_id).unwrap_or_else(|| {
            if self.inboxes.len() >= MOST_INBOXES {
                let oldest = self.inboxes.iter().position(|inbox| Some(inbox.call_id.as_str()) != running);
                self.inboxes.remove(oldest.unwrap_or(0));
            }
            self.inboxes.push(Inbox::new(call_id));
            self.inboxes.len() - 1
        });
        &mut self.inboxes[place]
    }

    /// Whether this signal is of the session that the room's state names.
    pub(super) fn is_sender_of(&self, signal: &Arc<ToDeviceSignal>) -> bool {
        signal.sender_session.as_ref().is_none_or(|session| *session == self.session)
    }
}

/// Who calls whom: the lower user id calls, and of one user's devices the lower device id (plain comparison; as
/// matrix-js-sdk's `wantsOutgoingCall`).
pub(super) fn we_call(settings: &MeshSettings, user: &str, device: &str) -> bool {
    (user, device) > (settings.user.as_str(), settings.device.as_str())
}
