//! stub
use super::Powers;
use crate::call::Announcement;

pub fn permission_notice(_bot: &str, _powers: Powers) -> Announcement {
    unimplemented!()
}
pub fn recording_name(_name: &str) -> String {
    unimplemented!()
}
pub fn room_greeting(_bot: &str) -> Announcement {
    unimplemented!()
}
