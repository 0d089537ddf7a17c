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

/// How much of a call there is space for on the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Space {
    #[default]
    Everything,
    SoundOnly,
    Nothing,
}

/// Why something of what came was not recorded, or all of it; the worst last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shortfall {
    /// The disk was nearly full, and then only sound is recorded.
    SoundOnly,
    /// Something was lost between network and disk.
    NotWritten,
    DiskFull,
    /// The recording's folder could not be made.
    NoFolder,
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
pub fn recording_begun(caller: &str, caller_name: &str, bot: &str, space: Space) -> Announcement {
    let name = cut(caller_name);
    let but = match space {
        Space::Everything => "",
        Space::SoundOnly => " The disk is nearly full, so only sound is recorded.",
        Space::Nothing => " The disk is full, so nothing is recorded until there is space.",
    };
    Announcement {
        plain: format!("{name}: this call is being recorded by {bot}. Hang up to stop the recording.{but}"),
        html: format!(
            "<a href=\"https://matrix.to/#/{}\">{}</a>: <b>this call is being recorded</b> by {}. Hang up to stop \
             the recording.{but}",
            escape(caller),
            escape(&name),
            escape(bot)
        ),
        mentions: vec![caller.to_owned()],
        notice: false,
    }
}

/// In a call, when the disk's space has changed what is recorded of it.
pub fn space_changed(caller: &str, space: Space) -> Announcement {
    let text = match space {
        Space::Everything => "There is space on the disk again: everything is recorded.",
        Space::SoundOnly => {
            "The disk is nearly full: from now on only sound is recorded, until there is space again."
        }
        Space::Nothing => "The disk is full: from now on nothing is recorded, until there is space again.",
    };
    told(text, caller)
}

/// Where a call was placed that names nobody, among more people than its caller and us.
pub fn call_misplaced() -> Announcement {
    let plain = "In a room of more than two a call can be meant for anybody, so I left this one alone. To be recorded, call \
                 me in a room of the two of us; or start a group call here and write `!record start`.";
    let html = "In a room of more than two a call can be meant for anybody, so I left this one alone. To be recorded, call \
                me in a room of the two of us; or start a group call here and write <code>!record start</code>.";
    Announcement { plain: plain.to_owned(), html: html.to_owned(), mentions: Vec::new(), notice: true }
}

/// To somebody who calls while nothing can be recorded.
pub fn no_space(caller: &str) -> Announcement {
    let text = "I cannot record now, because my disk is full, so I do not take the call. Please tell whoever runs me, and \
                call again later.";
    told(text, caller)
}

fn told(text: &str, caller: &str) -> Announcement {
    let mentions = vec![caller.to_owned()];
    Announcement { html: escape(text), plain: text.to_owned(), mentions, notice: false }
}

/// At the end of a session.
pub fn recording_saved(saved: Saved, shortfall: Option<Shortfall>) -> Announcement {
    let plain = if saved.streams == 0 {
        let why = match shortfall {
            None => "no media arrived.",
            Some(Shortfall::SoundOnly) => "the disk was nearly full, and no sound arrived.",
            Some(Shortfall::NotWritten) => "it could not be written. Please tell whoever runs me.",
            Some(Shortfall::DiskFull) => "the disk was full. Please tell whoever runs me.",
            Some(Shortfall::NoFolder) => {
                "the recording's folder could not be made. Please tell whoever runs me."
            }
        };
        format!("The call has ended. I recorded nothing: {why}")
    } else {
        let but = match shortfall {
            None => "",
            Some(Shortfall::SoundOnly) => " Some video is missing: the disk was nearly full.",
            Some(Shortfall::NotWritten | Shortfall::NoFolder) => {
                " Some of it is missing: it could not be written."
            }
            Some(Shortfall::DiskFull) => " Some of it is missing: the disk was full.",
        };
        format!(
            "The call has ended. I recorded {}, {}, {}.{but}",
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
        let told = recording_begun("@a:hs", "<img src=x>\u{202e}evil", "@bot:hs", Space::Everything);
        assert!(told.html.contains("&lt;img src=x&gt;evil"));
        assert_eq!(told.mentions, ["@a:hs"]);
        assert!(!told.notice, "people are to be notified of a recording");
    }

    #[test]
    fn what_was_saved_is_said_in_words() {
        let saved = Saved { streams: 2, duration_s: 3_725.4, bytes: 12_345_678 };
        let whole = "The call has ended. I recorded 2 streams, 01:02:05, 12.3 MB.";
        assert_eq!(recording_saved(saved, None).plain, whole);
        let full = recording_saved(saved, Some(Shortfall::DiskFull)).plain;
        assert_eq!(full, format!("{whole} Some of it is missing: the disk was full."));
    }

    #[test]
    fn a_recording_of_nothing_names_its_cause() {
        let said = |shortfall| recording_saved(Saved::default(), shortfall).plain;
        assert!(said(None).contains("no media arrived"));
        for shortfall in
            [Shortfall::SoundOnly, Shortfall::NotWritten, Shortfall::DiskFull, Shortfall::NoFolder]
        {
            let text = said(Some(shortfall));
            assert!(text.contains("recorded nothing: ") && !text.contains("no media"), "{text}");
        }
    }

    #[test]
    fn who_is_recorded_hears_of_it_when_that_is_not_all_of_it() {
        let begun = |space| recording_begun("@a:hs", "Ada", "@bot:hs", space).plain;
        assert!(begun(Space::SoundOnly).ends_with("only sound is recorded."));
        assert!(!begun(Space::Everything).contains("disk"));
        assert_eq!(space_changed("@a:hs", Space::Nothing).mentions, ["@a:hs"]);
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
