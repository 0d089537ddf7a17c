//! Commands: who may give them, and what they do.

use super::action::{MessageKind, Refusal, Relation, RoomAction};
use super::commands::{Command, Parsed, Who, parse};
use super::durable::AutoSetting;
use super::input::{Authority, Closing, Said};
use super::machine::Room;
use super::pace::Topic;
use super::status::Shown;
use super::texts::{self, Words};
use crate::call::Announcement;
use crate::manifest::EndReason;
use crate::time::BootTime;
use crate::words::{count, duration};

/// The command was understood and done.
const DONE: &str = "✅";
/// It was not. 🚫 is no refusal here: it is how people opt out.
const NOT_DONE: &str = "❌";

type Out = Vec<RoomAction>;

impl Room {
    pub(super) fn obey(&mut self, said: &Said, authority: &Authority, now: BootTime, out: &mut Out) {
        if said.sender == self.settings.user || self.closed == Some(Closing::Removed) {
            return;
        }
        let Some(parsed) = parse(said, &self.names) else { return };
        let before_us = said.received - said.age < self.settings.listening;
        // What was said while no process listened is no order to this one; but nobody is recorded who said that they do
        // not want to be.
        if before_us && parsed != Parsed::Command(Command::OptOut) {
            return;
        }
        if !authority.joined {
            // An objection holds whoever left since, for when they come back; there is nobody to be answered.
            match parsed {
                Parsed::Command(Command::OptOut) => drop(self.opt_out(&said.sender, "command", out)),
                _ => out.push(RoomAction::Count(Refusal::NotJoined)),
            }
            return;
        }
        self.powers = Some(authority.powers);
        let in_pace = self.pace.take(&said.sender, now);
        match parsed {
            Parsed::Command(Command::OptOut) => {
                let already = self.is_opted_out(&said.sender);
                let message = self.opt_out(&said.sender, "command", out);
                let done = self.is_opted_out(&said.sender);
                self.answer_choice(said, message, done, in_pace, !already, out);
            }
            Parsed::Command(Command::OptIn) => {
                let was = self.is_opted_out(&said.sender);
                let message = self.opt_in(&said.sender, out);
                self.answer_choice(said, message, true, in_pace, was, out);
            }
            _ if !in_pace => self.too_many(said, now, out),
            Parsed::Wrong { said: text, nearest } => {
                out.push(RoomAction::Count(Refusal::NotUnderstood));
                self.answer(said, NOT_DONE, texts::wrong(&text, nearest), out);
            }
            Parsed::Command(command) if command.row().who == Who::Trusted => {
                self.trusted(command, said, authority, now, out);
            }
            Parsed::Command(Command::Status) => {
                let message = self.status_words().notice();
                self.answer(said, DONE, message, out);
            }
            Parsed::Command(_) => self.answer(said, DONE, texts::help(authority.needed_start), out),
        }
    }

    fn trusted(
        &mut self,
        command: Command,
        said: &Said,
        authority: &Authority,
        now: BootTime,
        out: &mut Out,
    ) {
        let refusal = if !authority.allowed {
            Some(Refusal::NotAllowed)
        } else if authority.level < authority.needed_start {
            Some(Refusal::LowPower)
        } else {
            None
        };
        if let Some(refusal) = refusal {
            let contact = self.settings.contact.as_deref();
            let message = texts::refused(refusal, authority.level, authority.needed_start, contact);
            return self.refuse(said, refusal, message, now, out);
        }
        self.told.forget(&said.sender);
        let begins = matches!(command, Command::Start | Command::AutoOn);
        if begins && let Some(closed) = &self.closed {
            let message = texts::replaced(closed);
            out.push(RoomAction::Count(Refusal::RoomReplaced));
            return self.answer(said, NOT_DONE, message, out);
        }
        if command == Command::Start && !authority.powers.suffice() {
            out.push(RoomAction::Count(Refusal::OwnPower));
            if !authority.powers.may_speak() {
                // A reaction may need less.
                out.push(RoomAction::React { event: said.event_id.clone(), key: NOT_DONE });
                return self.lacks_power(authority.powers, now, out);
            }
            // Told each time: whoever mends it wants to know whether it is mended.
            let message = texts::permission_notice(&self.settings.user, authority.powers);
            return self.answer(said, NOT_DONE, message, out);
        }
        out.push(RoomAction::React { event: said.event_id.clone(), key: DONE });
        let by = said.sender.as_str();
        let words = match command {
            Command::Start => self.start(by, now, out),
            Command::Stop => self.stop_or_disarm(by, now, out),
            _ => self.set_auto(command == Command::AutoOn, by),
        };
        self.note_command(command.row().form, by, out);
        self.reply(said, words.notice(), out);
    }

    fn start(&mut self, by: &str, now: BootTime, out: &mut Out) -> Words {
        if let Some(session) = &self.session {
            if !session.is_stopping() {
                let words = Words::of("I am recording already").text(&self.for_how_long());
                return match self.durable.running.as_ref().and_then(|running| running.by.as_deref()) {
                    Some(first) => words.text(", since ").user(first).text(" asked. `!record stop` ends it."),
                    None => words.text(". `!record stop` ends it."),
                };
            }
            self.durable.armed_by = Some(by.to_owned());
            self.keep();
            return Words::of("The last recording is just being ended. The next one begins right after it.");
        }
        if let Some(first) = &self.durable.armed_by {
            return Words::of("I am waiting for the call already, since ")
                .user(first)
                .text(" asked. I join when somebody is in it; `!record stop` calls it off.");
        }
        self.durable.armed_by = Some(by.to_owned());
        self.keep();
        if !self.is_attended() {
            return Words::of(
                "Nobody is in a call here yet. I wait, and record as soon as somebody joins one; `!record stop` calls \
                 it off.",
            );
        }
        if let Some(most) = self.full {
            // Said here, and not once more.
            self.told.first(&self.settings.user, Topic::Full, now);
            return texts::full(most);
        }
        self.consider_begin(now, out);
        if self.session.is_none() {
            return Words::of("I am just being shut down, and begin when I am back.");
        }
        Words::of("Recording begins. `!record stop` ends it.")
    }

    fn stop_or_disarm(&mut self, by: &str, now: BootTime, out: &mut Out) -> Words {
        let disarmed = self.durable.armed_by.take().is_some();
        if disarmed {
            self.keep();
        }
        let running = self.session.as_ref().map(|session| session.is_stopping());
        if running == Some(false) {
            self.stop(Some(by), EndReason::Stopped, out);
            self.show(now, out);
            return Words::of("I end the recording, and say in a moment what was recorded.");
        }
        let words = match (running, disarmed) {
            (Some(_), true) => Words::of("The recording is being ended, and no other follows it."),
            (Some(_), false) => Words::of("The recording is being ended already."),
            (None, true) => Words::of("I no longer wait for a call."),
            (None, false) => Words::of("Nothing is being recorded."),
        };
        if self.auto() {
            words.text(" Later calls are recorded all the same: `!record auto off` ends that.")
        } else {
            words
        }
    }

    fn set_auto(&mut self, on: bool, by: &str) -> Words {
        self.durable.auto = Some(AutoSetting { on, by: by.to_owned() });
        self.keep();
        if !on {
            let words = Words::of("From now on I record only after `!record start`.");
            return match &self.session {
                Some(_) => words.text(" The recording that runs goes on until `!record stop`."),
                None => words,
            };
        }
        let words = Words::of("From now on I record every call of this room from its beginning.");
        if self.session.is_none() && self.gathering.is_some() {
            // Those who are talking came to a call that nobody recorded.
            self.durable.held_off = self.gathering.as_ref().map(|gathering| gathering.call_id.clone());
            return words.text(" For the one that is going on, `!record start`.");
        }
        words
    }

    fn for_how_long(&self) -> String {
        self.session.as_ref().map_or_else(String::new, |session| {
            format!(", for {} now", duration(session.progress.duration_s))
        })
    }

    fn status_words(&self) -> Words {
        let words = match (&self.session, &self.durable.running) {
            (Some(session), Some(running)) => {
                let phase = session.phase(!self.is_attended());
                let words = Shown::of(&session.progress, self.power_warning(), phase, false).words();
                match &running.by {
                    Some(by) => words.line().text("Asked for by ").user(by).text("."),
                    None => words,
                }
            }
            _ => match (&self.durable.armed_by, &self.gathering) {
                (Some(by), _) => {
                    Words::of("I am waiting for a call to record, since ").user(by).text(" asked.")
                }
                (None, Some(gathering)) if !gathering.members.is_empty() => Words::of(&format!(
                    "Nothing is being recorded. {} in the call.",
                    count(gathering.members.len(), "person is", "people are")
                )),
                (None, _) => Words::of("Nothing is being recorded, and nobody is in a call."),
            },
        };
        let words = match self.opted_out_here() {
            0 => words,
            here => words.line().text(&format!(
                "{} opted out and not recorded.",
                count(here, "person in the call has", "people in the call have")
            )),
        };
        if self.auto() {
            words.line().text("Every call of this room is recorded (`auto on`).")
        } else {
            words
        }
    }

    /// The choice itself was made whatever the pace; only the words about it are limited.
    fn answer_choice(
        &mut self,
        said: &Said,
        message: Announcement,
        done: bool,
        in_pace: bool,
        changed: bool,
        out: &mut Out,
    ) {
        let key = if done { DONE } else { NOT_DONE };
        if in_pace {
            self.answer(said, key, message, out);
        } else if changed && done {
            out.push(RoomAction::React { event: said.event_id.clone(), key });
        }
    }

    fn too_many(&mut self, said: &Said, now: BootTime, out: &mut Out) {
        out.push(RoomAction::Count(Refusal::TooMany));
        if self.told.first(&said.sender, Topic::Refused(Refusal::TooMany), now) {
            let message = texts::too_many(self.settings.commands_per_minute);
            self.answer(said, NOT_DONE, message, out);
        }
    }

    /// Told once, counted always.
    fn refuse(&mut self, said: &Said, refusal: Refusal, message: Announcement, now: BootTime, out: &mut Out) {
        out.push(RoomAction::Count(refusal));
        if self.told.first(&said.sender, Topic::Refused(refusal), now) {
            self.answer(said, NOT_DONE, message, out);
        } else {
            out.push(RoomAction::React { event: said.event_id.clone(), key: NOT_DONE });
        }
    }

    fn answer(&mut self, said: &Said, key: &'static str, message: Announcement, out: &mut Out) {
        out.push(RoomAction::React { event: said.event_id.clone(), key });
        self.reply(said, message, out);
    }

    fn reply(&mut self, said: &Said, message: Announcement, out: &mut Out) {
        let root = said.thread_root.clone().unwrap_or_else(|| said.event_id.clone());
        let relation = Relation::Thread { root, reply_to: said.event_id.clone() };
        self.say(MessageKind::Reply, message, relation, out);
    }

    pub(super) fn not_decrypted(&mut self, event_id: &str, sender: &str, now: BootTime, out: &mut Out) {
        let fits = |id: &str| !id.is_empty() && id.len() <= super::limits::ID_BYTES;
        if self.closed.is_some() || sender == self.settings.user || !fits(event_id) || !fits(sender) {
            return;
        }
        if self.told.first(sender, Topic::Undecryptable, now) {
            let relation = Relation::Thread { root: event_id.to_owned(), reply_to: event_id.to_owned() };
            self.say(MessageKind::Reply, texts::undecryptable(), relation, out);
        }
    }
}
