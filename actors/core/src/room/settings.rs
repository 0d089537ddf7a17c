//! How a room's machine is set.

use std::time::Duration;

use crate::time::BootTime;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Our user id.
    pub user: String,
    /// What people call us; empty for what the room shows us as.
    pub name: String,
    /// When the room was looked at first.
    pub started: BootTime,
    /// Commands are followed. Without that nobody can take an opt-out back by one.
    pub commands: bool,
    /// When this process began to listen, which may be long before: commands from before that are not obeyed.
    pub listening: BootTime,
    /// Whom to ask about recordings: a user id, an address, a name.
    pub contact: Option<String>,
    /// Record whenever a call begins, in rooms where nobody said otherwise.
    pub auto: bool,
    /// How long nobody but us may be in the call.
    pub empty_after: Duration,
    /// Commands of one user in a minute.
    pub commands_per_minute: usize,
    /// Time between two edits of the status message, at least.
    pub status_every: Duration,
    /// Time after which it is edited though only the duration has changed.
    pub status_refresh: Duration,
}

impl Settings {
    /// With defaults for the rest.
    pub fn new(user: impl Into<String>, name: impl Into<String>, started: BootTime) -> Self {
        Self {
            user: user.into(),
            name: name.into(),
            started,
            commands: true,
            listening: started,
            contact: None,
            auto: false,
            empty_after: Duration::from_secs(60),
            commands_per_minute: 10,
            status_every: Duration::from_secs(5),
            status_refresh: Duration::from_secs(60),
        }
    }
}
