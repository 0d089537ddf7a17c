//! stub: the behaviour follows
use super::*;
use crate::time::BootTime;

#[derive(Clone, Debug)]
pub(super) struct Gathering {}
#[derive(Clone, Debug)]
pub(super) struct Session {
    pub(super) stopping: bool,
}
type Out = Vec<RoomAction>;
impl Room {
    pub(super) fn restored_session(&self) -> Option<Session> {
        None
    }
    pub(super) fn obey(&mut self, _: &Said, _: &Authority, _: BootTime, _: &mut Out) {}
    pub(super) fn reacted(&mut self, _: &Reaction, _: &Authority, _: BootTime, _: &mut Out) {}
    pub(super) fn seen(&mut self, _: Option<GatheringView>, _: BootTime, _: &mut Out) {}
    pub(super) fn progressed(&mut self, _: Progress, _: BootTime, _: &mut Out) {}
    pub(super) fn session_ended(&mut self, _: Ended, _: BootTime, _: &mut Out) {}
    pub(super) fn was_said(&mut self, _: MessageTag, _: &str, _: BootTime, _: &mut Out) {}
    pub(super) fn was_not_said(&mut self, _: MessageTag, _: BootTime, _: &mut Out) {}
    pub(super) fn pass(&mut self, _: BootTime, _: &mut Out) {}
    pub(super) fn restored(&mut self, _: BootTime, _: &mut Out) {}
    pub(super) fn consider_begin(&mut self, _: BootTime, _: &mut Out) {}
    pub(super) fn closing(&mut self, _: Closing, _: BootTime, _: &mut Out) {}
    pub(super) fn not_decrypted(&mut self, _: &str, _: &str, _: BootTime, _: &mut Out) {}
}
