//! Everything that is said in rooms about group calls, in plain text and HTML. Names come from others: they are cut,
//! cleaned and escaped here, and nowhere else.

mod power;

pub use self::power::permission_notice;
pub(super) use self::power::{cannot_speak, not_announced, power_lost, power_missing, voice_lost};
use super::action::Refusal;
use super::commands::{self, Row, code};
use super::input::{Closing, Ended};
use super::limits;
use crate::call::Announcement;
use crate::manifest::EndReason;
use crate::words::{count, cut, cut_to, duration, escape, pill, size};

/// Characters of what a person typed that an answer repeats.
const REPEATED: usize = 40;

/// A sentence in both forms.
#[derive(Clone, Debug, Default)]
pub(super) struct Words {
    plain: String,
    html: String,
}

impl Words {
    /// Our own text; what stands in backticks is code. Never a remote name.
    pub(super) fn of(text: &str) -> Self {
        Self::default().text(text)
    }

    pub(super) fn text(mut self, text: &str) -> Self {
        self.plain.push_str(text);
        self.html.push_str(&code(text));
        self
    }

    pub(super) fn bold(mut self, text: &str) -> Self {
        self.plain.push_str(text);
        self.html.push_str(&format!("<b>{}</b>", escape(text)));
        self
    }

    /// Something to be typed, which may hold a name.
    fn typed(mut self, text: &str) -> Self {
        self.html.push_str(&format!("<code>{}</code>", escape(text)));
        self.plain.push_str(&format!("`{text}`"));
        self
    }

    /// A text of others.
    pub(super) fn remote(mut self, text: &str, most: usize) -> Self {
        let text = cut_to(text, most);
        self.html.push_str(&escape(&text));
        self.plain.push_str(&text);
        self
    }

    pub(super) fn user(mut self, user: &str) -> Self {
        self.plain.push_str(&cut(user));
        self.html.push_str(&pill(user));
        self
    }

    fn users(mut self, users: &[String]) -> Self {
        for (at, user) in users.iter().enumerate() {
            self = if at == 0 { self.user(user) } else { self.text(", ").user(user) };
        }
        self
    }

    /// A user, or an address or name in words.
    fn contact(self, contact: &str) -> Self {
        if contact.starts_with('@') && contact.contains(':') {
            self.user(contact)
        } else {
            self.remote(contact, 200)
        }
    }

    pub(super) fn line(mut self) -> Self {
        self.plain.push('\n');
        self.html.push_str("<br>");
        self
    }

    /// For whoever looks: notifies nobody.
    pub(super) fn notice(self) -> Announcement {
        Announcement { plain: self.plain, html: self.html, mentions: Vec::new(), notice: true }
    }

    fn to(self, mentions: &[String]) -> Announcement {
        Announcement { plain: self.plain, html: self.html, mentions: mentions.to_vec(), notice: false }
    }
}

/// Bytes that naming this user takes in a consent message.
pub(super) fn mention_cost(user: &str) -> usize {
    // Once in each form and in `m.mentions`; those who opted out are named a second time.
    2 * (cut(user).len() + pill(user).len() + 4) + user.len() + 3
}

/// Our display name while a recording runs.
pub fn recording_name(name: &str) -> String {
    format!("● REC {}", cut(name))
}

/// On accepting an invite to a room of more than two, where group calls are recorded.
pub fn room_greeting(bot: &str, needed: i64) -> Announcement {
    Words::of("Hello, I am a call recorder (")
        .remote(bot, limits::ID_BYTES)
        .text("). `!record start` records the call of this room: each microphone, camera and screen to a file of its own. ")
        .text(&who_may(needed))
        .text(" I say so when recording begins. `!record optout` keeps you out of it, `!record help` lists what else I understand.")
        .notice()
}

fn who_may(needed: i64) -> String {
    format!(
        "Those may record who are on this recorder's list (`matrix.allow`) and have power level {needed} or more in this \
         room."
    )
}

/// As many calls as may be are being recorded.
pub(super) fn full(most: usize) -> Words {
    Words::of(&format!(
        "This recorder records {} at once and no more, and does so now. I begin here as soon as one of them ends; \
         `!record stop` calls it off. Whoever runs it can raise the number (`calls.max`).",
        count(most, "call", "calls")
    ))
}

/// Recording has begun, or goes on with these people too.
pub(super) fn consent(
    whom: &[String],
    opted_out: &[String],
    by: Option<&str>,
    auto: bool,
    late: bool,
) -> Announcement {
    let mut words = Words::default().users(whom).text(": ");
    words = words.bold(if late { "this call is being recorded" } else { "recording has begun" });
    words = match (by, auto) {
        (Some(by), false) => words.text(", started by ").user(by),
        (Some(by), true) => words.text(", because ").user(by).text(" set this room to record every call"),
        (None, _) => words.text(", because every call of this room is recorded"),
    };
    words = words.text(
        ". Each microphone, camera and screen goes to a file of its own. If you do not want to be recorded, react to \
         this message with 🚫 or write `!record optout`.",
    );
    if !opted_out.is_empty() {
        words = words.text(" Not recorded, as they asked: ").users(opted_out).text(".");
    }
    words.to(whom)
}

/// A session is over.
pub(super) fn saved(ended: &Ended, by: Option<&str>) -> Announcement {
    let mut words = Words::default().bold("The recording has ended").text(": ");
    words = match (ended.reason, by) {
        (EndReason::Stopped, Some(by)) => words.text("stopped by ").user(by),
        (reason, _) => words.text(why(reason)),
    };
    if ended.saved.streams == 0 && ended.reason == EndReason::Restarted {
        // What the process before wrote is not counted here.
        return words.text(". What was recorded before is kept.").notice();
    }
    if ended.saved.streams == 0 {
        return words.text(". I recorded nothing: no media arrived.").notice();
    }
    words
        .text(". I recorded ")
        .text(&count(ended.participants, "participant", "participants"))
        .text(", ")
        .text(&count(ended.saved.streams, "stream", "streams"))
        .text(&format!(", {}, {}.", duration(ended.saved.duration_s), size(ended.saved.bytes)))
        .notice()
}

pub(super) const fn why(reason: EndReason) -> &'static str {
    match reason {
        EndReason::Hangup | EndReason::Terminated => "the call was ended",
        EndReason::Stopped => "it was stopped",
        EndReason::EveryoneLeft => "everybody has left the call",
        EndReason::Unreachable => {
            "nobody in the call could be reached. Who is in it can leave and join again; whoever runs this recorder can \
             look whether its UDP port is open"
        }
        EndReason::Shutdown => "the recorder was shut down",
        EndReason::Restarted => "the recorder was restarted",
        EndReason::DiskFull => "the recorder's disk is full",
        EndReason::ConnectionLost => "the connection to the call was lost",
        EndReason::OptedOut => "the person recorded has opted out",
        EndReason::Removed => "I was removed from the room",
        EndReason::RoomUpgraded => "the room was replaced by a new one",
        EndReason::NotPermitted => {
            "the homeserver does not let me take part in the call, so somebody has to give me the power level that \
             `org.matrix.msc3401.call.member` needs in this room"
        }
        EndReason::TooManyCalls => {
            "as many calls as this recorder may record at once (`calls.max`) are being recorded, so another has to end \
             first"
        }
        EndReason::NotAnnounced => "people in the call could not be told of it",
        EndReason::Failed => "a fault in the recorder, which its log describes",
    }
}

pub(super) fn help(needed: i64) -> Announcement {
    let (plain, html) = commands::listed();
    let first = "I record the group calls of this room. What I understand:";
    let last = format!(
        "{} Writing my name before the word does as well. While a recording runs, 🚫 on the message that announced it is \
         `!record optout`.",
        who_may(needed)
    );
    Announcement {
        plain: format!("{first}{plain}\n{}", last.replace('`', "")),
        html: format!("<p>{first}</p>{html}<p>{}</p>", code(&last)),
        mentions: Vec::new(),
        notice: true,
    }
}

pub(super) fn wrong(said: &str, nearest: Option<&Row>) -> Announcement {
    let words = if said.is_empty() {
        Words::of("`!record` needs a word after it, such as `!record start`.")
    } else {
        let words = Words::of("I do not understand \"").remote(said, REPEATED).text("\".");
        match nearest {
            Some(row) => words.text(&format!(" Did you mean `{}`?", row.typed())),
            None => words,
        }
    };
    words.text(" `!record help` lists what I understand.").notice()
}

/// Why this person may not, and what to do.
pub(super) fn refused(refusal: Refusal, level: i64, needed: i64, contact: Option<&str>) -> Announcement {
    let words = match refusal {
        Refusal::NotAllowed => Words::of("You are not on the list of those who may use this recorder.")
            .text(" Whoever runs it can add you (`matrix.allow`)"),
        Refusal::LowPower => Words::of(&format!(
            "Starting and stopping needs power level {needed} in this room, and yours is {level}. Ask a moderator to \
             do it, or to give you that level"
        )),
        _ => Words::of("That cannot be done"),
    };
    match contact {
        Some(contact) if refusal == Refusal::NotAllowed => {
            words.text(": ask ").contact(contact).text(".").notice()
        }
        _ => words.text(".").notice(),
    }
}

pub(super) fn too_many(most: usize) -> Announcement {
    Words::of(&format!(
        "That is more than {} in a minute: I do not listen to you for a while. `!record optout` and 🚫 always work.",
        count(most, "command", "commands")
    ))
    .notice()
}

pub(super) fn replaced(closing: &Closing) -> Announcement {
    let words = Words::of("This room was replaced by a new one, and I no longer record here. Invite me to ");
    match closing {
        Closing::Upgraded { to: Some(to) } => words.remote(to, limits::ID_BYTES).text("."),
        _ => words.text("the new room."),
    }
    .notice()
}

/// The answer to an opt-out.
pub(super) fn opted_out(user: &str, already: bool, recording: bool, contact: Option<&str>) -> Announcement {
    let words = Words::default().user(user);
    let words = match (already, recording) {
        (true, _) => words.text(" has opted out already and is not recorded in this room."),
        (false, true) => words.text(" is no longer recorded, on any device, in this room's calls."),
        (false, false) => {
            words.text(" will not be recorded in this room's calls, and I take no call of theirs here.")
        }
    };
    let words = words.text(" What was recorded before stays; ");
    match contact {
        Some(contact) => words.text("ask ").contact(contact),
        None => words.text("ask whoever runs this recorder"),
    }
    .text(" about it. `!record optin` takes this back.")
    .notice()
}

pub(super) fn opted_in(user: &str, already: bool) -> Announcement {
    let words = Words::default().user(user);
    if already {
        words.text(" had not opted out. `!record optout` does.").notice()
    } else {
        words.text(" may be recorded again in this room's calls. `!record optout` takes this back.").notice()
    }
}

/// Why the call of somebody who opted out was not taken.
pub(super) fn call_rejected(caller: &str, commands: bool, contact: Option<&str>) -> Announcement {
    let words = Words::default().user(caller).text(
        ": I did not take your call. I would record you, and you opted out of being recorded in this room. ",
    );
    let words = match (commands, contact) {
        (true, _) => words.text("`!record optin` takes that back; then call again"),
        (false, Some(contact)) => words.text("Ask ").contact(contact).text(" to take that back"),
        (false, None) => words.text("Ask whoever runs this recorder to take that back"),
    };
    words.text(".").notice()
}

pub(super) fn opt_outs_full(contact: Option<&str>) -> Announcement {
    let words =
        Words::of("More people have opted out here than I can remember, so I could not note it. Ask ");
    match contact {
        Some(contact) => words.contact(contact),
        None => words.text("whoever runs this recorder"),
    }
    .text(", and leave the call if you do not want to be recorded.")
    .notice()
}

pub(super) fn undecryptable() -> Announcement {
    Words::of(
        "I could not decrypt this message. If it was a command, please send it again; if that does not help, verify \
         my device or use `/discardsession` in Element first.",
    )
    .notice()
}

#[cfg(test)]
mod tests {
    use super::super::CALL_MEMBER_EVENT;
    use super::super::input::Powers;
    use super::*;
    use crate::call::Saved;

    const HOSTILE: &str = "@<img src=x onerror=alert(1)>\"\u{202e}'&:hs";

    fn all(user: &str) -> Vec<Announcement> {
        let whom = [user.to_owned()];
        let ended = Ended { saved: Saved::default(), participants: 1, reason: EndReason::Stopped };
        vec![
            room_greeting(user, 50),
            permission_notice(user, Powers { own: 0, call_member: 50, message: 0 }),
            consent(&whom, &whom, Some(user), false, false),
            consent(&whom, &whom, Some(user), true, true),
            saved(&ended, Some(user)),
            wrong(user, None),
            refused(Refusal::NotAllowed, 0, 50, Some(user)),
            replaced(&Closing::Upgraded { to: Some(user.to_owned()) }),
            opted_out(user, false, true, Some(user)),
            opted_in(user, false),
            call_rejected(user, false, Some(user)),
            opt_outs_full(Some(user)),
        ]
    }

    #[test]
    fn hostile_names_cannot_become_markup_or_turn_a_sentence_round() {
        for told in all(HOSTILE) {
            assert!(!told.html.contains("<img"), "{}", told.html);
            assert!(!told.html.contains('\u{202e}') && !told.plain.contains('\u{202e}'), "{}", told.plain);
            let quotes =
                told.html.matches('"').count() - told.html.matches("\"https://matrix.to/").count() * 2;
            let own = told.html.matches("&quot;").count();
            assert!(quotes == 0 && own > 0, "only links hold bare quotation marks: {}", told.html);
        }
    }

    #[test]
    fn names_that_hold_backticks_or_lines_stay_text() {
        for told in all("@`a`\nb\u{2028}:hs") {
            assert!(!told.html.contains("<code>a</code>"), "{}", told.html);
            assert!(!told.plain.contains('\n') && !told.plain.contains('\u{2028}'), "{}", told.plain);
        }
    }

    #[test]
    fn endless_names_are_cut() {
        for told in all(&format!("@{}:hs", "x".repeat(60_000))) {
            assert!(told.plain.len() < 1_500, "{}", told.plain.len());
        }
    }

    #[test]
    fn the_end_of_what_was_not_permitted_names_the_permission_and_the_event_that_needs_it() {
        let ended = Ended { saved: Saved::default(), participants: 0, reason: EndReason::NotPermitted };
        let told = saved(&ended, None);
        assert!(
            told.plain.contains(CALL_MEMBER_EVENT) && told.plain.contains("power level"),
            "{}",
            told.plain
        );
        let ended = Ended { reason: EndReason::TooManyCalls, ..ended };
        assert!(saved(&ended, None).html.contains("<code>calls.max</code>"));
    }

    #[test]
    fn what_was_recorded_is_told_with_participants_streams_duration_and_size() {
        let saved_all = Saved { streams: 5, duration_s: 61.0, bytes: 12_345_678 };
        let ended = Ended { saved: saved_all, participants: 3, reason: EndReason::Stopped };
        assert_eq!(
            saved(&ended, Some("@ada:hs")).plain,
            "The recording has ended: stopped by @ada:hs. I recorded 3 participants, 5 streams, 00:01:01, 12.3 MB."
        );
    }
}
