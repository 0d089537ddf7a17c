//! What the room is told. Plain text and HTML say the same; remote names are escaped in the HTML.

use super::compose::Urgency;
use crate::words::{count, cut, cut_to, duration, escape, size};

/// A message for the room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    pub plain: String,
    pub html: String,
    /// Users to be notified (`m.mentions`).
    pub mentions: Vec<String>,
    /// `m.text` where people are to be notified, `m.notice` for the rest.
    pub notice: bool,
}

impl Announcement {
    pub fn urgency(&self) -> Urgency {
        if self.notice { Urgency::Notice } else { Urgency::People }
    }
}

/// What a session left on the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Saved {
    pub streams: usize,
    pub duration_s: f64,
    pub bytes: u64,
}

/// On accepting an invite to a room where we are called. `group`: commands are followed and group calls recorded, too.
pub fn greeting(bot: &str, group: bool) -> Announcement {
    let first = format!("Hello, I am a call recorder ({}). ", cut_to(bot, 255));
    let offer = "Call me in this room and I record you";
    let how = ": each microphone, camera and screen to a file of its own. I say so when recording begins; hang up to stop.";
    let whom = "A 1:1 call with me records the caller only.";
    let (plain, html) = if group {
        let both = "Two people who want to be recorded together use a group call: ";
        (format!(" {both}`!record help` says how."), format!(" {both}<code>!record help</code> says how."))
    } else {
        (String::new(), String::new())
    };
    Announcement {
        plain: format!("{first}{offer}{how} {whom}{plain}"),
        html: format!("<p>{}<b>{offer}</b>{how}</p><p>{whom}{html}</p>", escape(&first)),
        mentions: Vec::new(),
        notice: true,
    }
}

/// When the caller is connected.
pub fn recording_begun(caller: &str, caller_name: &str, bot: &str) -> Announcement {
    let name = cut(caller_name);
    Announcement {
        plain: format!("{name}: this call is being recorded by {bot}. Hang up to stop the recording."),
        html: format!(
            "<a href=\"https://matrix.to/#/{}\">{}</a>: <b>this call is being recorded</b> by {}. Hang up to stop \
             the recording.",
            escape(caller),
            escape(&name),
            escape(bot)
        ),
        mentions: vec![caller.to_owned()],
        notice: false,
    }
}

/// At the end of a session.
pub fn recording_saved(saved: Saved) -> Announcement {
    let plain = if saved.streams == 0 {
        "The call has ended. I recorded nothing: no media arrived.".to_owned()
    } else {
        format!(
            "The call has ended. I recorded {}, {}, {}.",
            count(saved.streams, "stream", "streams"),
            duration(saved.duration_s),
            size(saved.bytes)
        )
    };
    Announcement { html: escape(&plain), plain, mentions: Vec::new(), notice: true }
}

/// After a restart of ours in the middle of a call.
pub fn recording_interrupted(caller: Option<&str>) -> Announcement {
    let plain = "The recorder was restarted in the middle of your call, so I had to hang up. What was recorded before \
                 is kept. Please call again: the next recording continues it."
        .to_owned();
    Announcement {
        html: escape(&plain),
        plain,
        mentions: caller.map(str::to_owned).into_iter().collect(),
        notice: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_name_cannot_become_markup() {
        let told = recording_begun("@a:hs", "<img src=x>\u{202e}evil", "@bot:hs");
        assert!(told.html.contains("&lt;img src=x&gt;evil"));
        assert_eq!(told.mentions, ["@a:hs"]);
        assert!(!told.notice, "people are to be notified of a recording");
    }

    #[test]
    fn what_was_saved_is_said_in_words() {
        let told = recording_saved(Saved { streams: 2, duration_s: 3_725.4, bytes: 12_345_678 });
        assert_eq!(told.plain, "The call has ended. I recorded 2 streams, 01:02:05, 12.3 MB.");
    }

    #[test]
    fn the_greeting_says_whom_a_1_to_1_call_records_and_promises_no_command_that_nobody_follows() {
        let told = greeting("@bot:hs", true);
        for text in [&told.plain, &told.html] {
            assert!(text.contains("records the caller only") && text.contains("!record help"), "{text}");
        }
        let told = greeting("@<b>:hs", false);
        assert!(
            told.plain.ends_with("records the caller only.") && !told.html.contains("!record"),
            "{}",
            told.html
        );
        assert!(!told.html.contains("@<b>"), "{}", told.html);
    }
}
