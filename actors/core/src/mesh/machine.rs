//! One mesh call from our first membership to our last: all pairs at once.

use serde_json::Value;

use super::{Member, MeshAction, MeshCounts, MeshEnd, MeshSettings, ToDeviceSignal};
use crate::call::{CallFact, ConnectionLevel, StreamMetadata};
use crate::ids::LegId;
use crate::time::BootTime;

/// The machine of one recorded mesh call.
#[derive(Clone, Debug)]
pub struct Mesh {
    settings: MeshSettings,
    counts: MeshCounts,
}

impl Mesh {
    /// Does nothing yet: the first [`Mesh::members`] publishes our membership.
    pub fn new(settings: MeshSettings) -> Self {
        Self { settings, counts: MeshCounts::default() }
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
        Vec::new()
    }

    /// The homeserver's answer to [`MeshAction::Publish`].
    pub fn published(&mut self, ok: bool, now: BootTime) -> Vec<MeshAction> {
        Vec::new()
    }

    /// A to-device event came, whosever call it is about.
    pub fn signal(&mut self, signal: ToDeviceSignal, now: BootTime) -> Vec<MeshAction> {
        Vec::new()
    }

    /// The media plane's answer to [`MeshAction::Dial`]: our offer, with all candidates in it; `None` for a fault.
    pub fn dialled(&mut self, leg: LegId, offer: Option<&str>, now: BootTime) -> Vec<MeshAction> {
        Vec::new()
    }

    /// The media plane's answer to [`MeshAction::Accept`]: our answer; `None` if the offer cannot be used.
    pub fn accepted(&mut self, leg: LegId, answer: Option<&str>, now: BootTime) -> Vec<MeshAction> {
        Vec::new()
    }

    /// The media plane's answer to [`MeshAction::ApplyAnswer`].
    pub fn applied(&mut self, leg: LegId, ok: bool, now: BootTime) -> Vec<MeshAction> {
        Vec::new()
    }

    /// The media plane's answer to [`MeshAction::Renegotiate`]; `None` if the offer was refused, and the leg goes on as
    /// it was.
    pub fn renegotiated(&mut self, leg: LegId, answer: Option<&str>) -> Vec<MeshAction> {
        Vec::new()
    }

    /// The connection's level, told at every change and at will.
    pub fn connection(&mut self, leg: LegId, level: ConnectionLevel, now: BootTime) -> Vec<MeshAction> {
        Vec::new()
    }

    /// Time passed; once a second will do.
    pub fn tick(&mut self, now: BootTime, utc_ms: i64) -> Vec<MeshAction> {
        Vec::new()
    }

    /// We end it: peers are told, our membership is taken back.
    pub fn stop(&mut self, end: MeshEnd, utc_ms: i64) -> Vec<MeshAction> {
        Vec::new()
    }

    pub fn settings(&self) -> &MeshSettings {
        &self.settings
    }

    /// Why it ended, once it has.
    pub fn ended(&self) -> Option<MeshEnd> {
        None
    }

    /// What the peer says of its streams, merged over the leg's life ([`crate::call::source_of`]).
    pub fn metadata(&self, leg: LegId) -> Option<&StreamMetadata> {
        None
    }

    /// User and device at the other end of a leg.
    pub fn peer(&self, leg: LegId) -> Option<(&str, &str)> {
        None
    }

    /// Participants that can be taken to be there: connected, being connected, or not yet given up. Someone whose
    /// browser was killed stands in the room's state for up to an hour and does not count for that long.
    pub fn present(&self) -> usize {
        0
    }

    /// Content of our member event without our device, for a delayed event (MSC4140) that takes us out if we die.
    pub fn leave_content(&self, utc_ms: i64) -> Value {
        Value::Null
    }

    pub fn counts(&self) -> MeshCounts {
        self.counts
    }
}
