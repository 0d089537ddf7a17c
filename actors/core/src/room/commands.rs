//! The commands: one table, from which the parser, the help and the README's section are made.

use super::address::{Names, Spoken, tidy};
use super::input::Said;
use super::near;
use crate::words::escape;

/// The word that all commands begin with, after `!`.
const PREFIX: &str = "record";
/// Words of a message that speaks to us and is no command: with more than these it is conversation.
const WORDS_OF_A_COMMAND: usize = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Command {
    Start,
    Stop,
    Status,
    Help,
    OptOut,
    OptIn,
    AutoOn,
    AutoOff,
}

/// Who may give a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// Those on the allow-list whose power level in the room suffices.
    Trusted,
    Everybody,
}

/// One command, for the parser and for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    pub command: Command,
    /// What follows `!record`.
    pub form: &'static str,
    /// Other spellings that are taken.
    pub also: &'static [&'static str],
    /// A command of its own, without `!record`.
    pub alias: Option<&'static str>,
    pub who: Who,
    /// What it does, as a sentence.
    pub does: &'static str,
}

pub const TABLE: [Row; 8] = [
    Row {
        command: Command::Start,
        form: "start",
        also: &[],
        alias: Some("!start"),
        who: Who::Trusted,
        does: "Record the call of this room: at once, or when it begins.",
    },
    Row {
        command: Command::Stop,
        form: "stop",
        also: &[],
        alias: Some("!stop"),
        who: Who::Trusted,
        does: "End the recording, or no longer wait for a call.",
    },
    Row {
        command: Command::Status,
        form: "status",
        also: &[],
        alias: None,
        who: Who::Everybody,
        does: "Say whether something is being recorded, for how long, and whom.",
    },
    Row {
        command: Command::Help,
        form: "help",
        also: &["?"],
        alias: None,
        who: Who::Everybody,
        does: "List the commands.",
    },
    Row {
        command: Command::OptOut,
        form: "optout",
        also: &["opt-out", "opt out"],
        alias: Some("!optout"),
        who: Who::Everybody,
        does: "Do not record me in this room, now and later. What was recorded before stays.",
    },
    Row {
        command: Command::OptIn,
        form: "optin",
        also: &["opt-in", "opt in"],
        alias: Some("!optin"),
        who: Who::Everybody,
        does: "Record me again.",
    },
    Row {
        command: Command::AutoOn,
        form: "auto on",
        also: &[],
        alias: None,
        who: Who::Trusted,
        does: "Record every call of this room from its beginning.",
    },
    Row {
        command: Command::AutoOff,
        form: "auto off",
        also: &[],
        alias: None,
        who: Who::Trusted,
        does: "Record only after `!record start`.",
    },
];

impl Row {
    /// As it is typed.
    pub fn typed(&self) -> String {
        format!("!{PREFIX} {}", self.form)
    }

    fn forms(&self) -> impl Iterator<Item = &'static str> {
        std::iter::once(self.form).chain(self.also.iter().copied())
    }
}

impl Command {
    pub fn row(self) -> &'static Row {
        TABLE.iter().find(|row| row.command == self).expect("a test finds each command in the table")
    }
}

/// What a message says to us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed {
    Command(Command),
    /// It begins like a command and is none. `said` is empty where nothing follows `!record`.
    Wrong {
        said: String,
        nearest: Option<&'static Row>,
    },
}

/// Reads a message; `None` if it is not for us.
pub(super) fn parse(said: &Said, names: &Names) -> Option<Parsed> {
    let line = tidy(&said.body);
    if let Some(rest) = line.strip_prefix('!') {
        let (head, rest) = rest.split_once(' ').unwrap_or((rest, ""));
        return marked(bare(head), rest);
    }
    let (text, spoken) = names.heard(&line, said)?;
    let text = text.strip_prefix('!').unwrap_or(&text);
    let text = text.strip_prefix(PREFIX).filter(|rest| rest.starts_with(' ')).unwrap_or(text);
    let words: Vec<&str> = text.split(' ').filter(|word| !word.is_empty()).collect();
    match read(&words) {
        // A reply to a message of ours mentions us too: only an exact command is one there.
        Parsed::Wrong { .. } if spoken == Spoken::InPassing || words.len() > WORDS_OF_A_COMMAND => None,
        parsed => Some(parsed),
    }
}

/// `!head rest`.
fn marked(head: &str, rest: &str) -> Option<Parsed> {
    let words: Vec<&str> = rest.split(' ').filter(|word| !word.is_empty()).collect();
    if head == PREFIX {
        return Some(read(&words));
    }
    let typed = || [&[head], words.as_slice()].concat().join(" ");
    for row in &TABLE {
        let Some(alias) = row.alias.and_then(|alias| alias.strip_prefix('!')) else { continue };
        if head == alias && words.is_empty() {
            return Some(Parsed::Command(row.command));
        }
        if head == alias || is_slip(head, alias) {
            return Some(Parsed::Wrong { said: format!("!{}", typed()), nearest: Some(row) });
        }
    }
    let longer = head.starts_with(PREFIX) && head.len() <= "recording".len();
    let nearly = longer || is_begun(head, PREFIX) || near::distance(head, PREFIX) == Some(1);
    nearly.then(|| {
        let nearest = match read(&words) {
            Parsed::Command(command) => Some(command.row()),
            Parsed::Wrong { nearest, .. } => nearest,
        };
        Parsed::Wrong { said: format!("!{}", typed()), nearest }
    })
}

/// The words after `!record`.
fn read(words: &[&str]) -> Parsed {
    let text = words.iter().map(|word| bare(word)).collect::<Vec<_>>().join(" ");
    match TABLE.iter().find(|row| row.forms().any(|form| form == text)) {
        Some(row) => Parsed::Command(row.command),
        None => Parsed::Wrong { nearest: nearest(&text), said: text },
    }
}

/// The row that may have been meant: with fewest slips, or whose beginning was typed.
fn nearest(text: &str) -> Option<&'static Row> {
    let first = text.split(' ').next().filter(|word| !word.is_empty())?;
    let slips = |form: &'static str| {
        let begun = if is_begun(text, form) { Some(0) } else { is_begun(first, form).then_some(1) };
        let slips = [near::distance(text, form), near::distance(first, form), begun].into_iter().flatten();
        slips.min().filter(|slips| *slips <= 2 && slips * 2 <= form.len())
    };
    TABLE
        .iter()
        .filter_map(|row| Some((row.forms().filter_map(slips).min()?, row)))
        .min_by_key(|(slips, _)| *slips)
        .map(|(_, row)| row)
}

/// Half typed.
fn is_begun(typed: &str, word: &str) -> bool {
    typed.chars().count() >= 3 && typed.len() < word.len() && word.starts_with(typed)
}

/// Half typed, two letters in the wrong order, or one too many. Less than for `!record`: other bots' commands are near
/// (`!stat`, `!shop`, `!point`).
fn is_slip(typed: &str, word: &str) -> bool {
    let sorted = |text: &str| {
        let mut letters: Vec<char> = text.chars().take(16).collect();
        letters.sort_unstable();
        letters
    };
    is_begun(typed, word)
        || (near::distance(typed, word) == Some(1) && sorted(typed) == sorted(word))
        || (typed.starts_with(word) && typed.chars().count() == word.chars().count() + 1)
}

/// A word without the punctuation around it.
fn bare(word: &str) -> &str {
    if word == "?" { word } else { word.trim_matches(['.', ',', '!', '?', ';', ':', '"', '\'', '`']) }
}

const fn who(who: Who) -> &'static str {
    match who {
        Who::Trusted => "those allowed to record",
        Who::Everybody => "everybody",
    }
}

/// The section "Commands" of the README.
pub fn markdown() -> String {
    let mut out = "| Command | Who | What it does |\n|---|---|---|\n".to_owned();
    for row in &TABLE {
        let alias = row.alias.map(|alias| format!(", `{alias}`")).unwrap_or_default();
        out.push_str(&format!("| `{}`{alias} | {} | {} |\n", row.typed(), who(row.who), row.does));
    }
    out
}

/// The list of commands in plain text and HTML.
pub(super) fn listed() -> (String, String) {
    let (mut plain, mut html) = (String::new(), "<ul>".to_owned());
    for row in &TABLE {
        let alias = row.alias.map(|alias| format!(" or {alias}")).unwrap_or_default();
        plain.push_str(&format!(
            "\n{}{alias} ({}): {}",
            row.typed(),
            who(row.who),
            row.does.replace('`', "")
        ));
        let alias = row.alias.map(|alias| format!(" or <code>{alias}</code>")).unwrap_or_default();
        html.push_str(&format!(
            "<li><code>{}</code>{alias} ({}): {}</li>",
            row.typed(),
            who(row.who),
            code(row.does)
        ));
    }
    html.push_str("</ul>");
    (plain, html)
}

/// Text with `code` in it, as HTML.
pub(super) fn code(text: &str) -> String {
    let mut out = String::new();
    for (at, part) in text.split('`').enumerate() {
        if at % 2 == 1 {
            out.push_str(&format!("<code>{}</code>", escape(part)));
        } else {
            out.push_str(&escape(part));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::time::BootTime;

    fn said(body: &str, mentions: &[&str]) -> Said {
        Said {
            event_id: "$1".to_owned(),
            sender: "@ada:hs".to_owned(),
            thread_root: None,
            body: body.to_owned(),
            formatted: String::new(),
            mentions: mentions.iter().map(|&user| user.to_owned()).collect(),
            received: BootTime(0),
            age: Duration::ZERO,
        }
    }

    fn names() -> Names {
        Names::new("@recorder:hs", "Call Recorder")
    }

    fn heard(body: &str) -> Option<Parsed> {
        parse(&said(body, &[]), &names())
    }

    fn meant(body: &str) -> Option<Command> {
        match heard(body) {
            Some(Parsed::Command(command)) => Some(command),
            _ => None,
        }
    }

    /// The nearest command of a message that is wrong.
    fn nearest_of(body: &str) -> Option<&'static str> {
        match heard(body) {
            Some(Parsed::Wrong { nearest, .. }) => Some(nearest.map_or("", |row| row.form)),
            _ => None,
        }
    }

    #[test]
    fn every_command_of_the_table_is_understood_in_every_spelling() {
        for row in &TABLE {
            assert_eq!(row.command.row(), row);
            assert_eq!(meant(&row.typed()), Some(row.command));
            for also in row.also {
                assert_eq!(meant(&format!("!record {also}")), Some(row.command), "{also}");
            }
            if let Some(alias) = row.alias {
                assert_eq!(meant(alias), Some(row.command), "{alias}");
            }
        }
    }

    #[test]
    fn case_space_width_and_punctuation_do_not_matter() {
        for body in [
            "  !RECORD   Start  ",
            "!Record\u{a0}START!",
            "!record\tstart.",
            "!record `start`",
            "\u{feff}!record st\u{200b}art",
            "！ｒｅｃｏｒｄ ｓｔａｒｔ",
            "!START",
            "!start.",
        ] {
            assert_eq!(meant(body), Some(Command::Start), "{body:?}");
        }
        assert_eq!(meant("!record Auto\tON"), Some(Command::AutoOn));
    }

    #[test]
    fn the_recorder_is_spoken_to_by_its_id_its_name_and_a_pill() {
        for body in [
            "@recorder:hs start",
            "@recorder:hs: start",
            "@recorder start",
            "@recorder: Start",
            "Call Recorder: start",
            "call recorder, START",
            "Call Recorder:start",
            "@Call Recorder start",
            "● REC Call Recorder: start",
            "Call Recorder: !record start",
            "@recorder:hs record start",
            "start @recorder:hs",
            "[Call Recorder](https://matrix.to/#/@recorder:hs) start",
            "[x](https://matrix.to/#/%40recorder%3Ahs): start",
        ] {
            assert_eq!(meant(body), Some(Command::Start), "{body}");
        }
    }

    #[test]
    fn a_mention_makes_a_command_of_what_is_exactly_one() {
        let mentioned = |body: &str| parse(&said(body, &["@bob:hs", "@recorder:hs"]), &names());
        assert_eq!(mentioned("start"), Some(Parsed::Command(Command::Start)));
        assert_eq!(mentioned("Call Recorder start"), Some(Parsed::Command(Command::Start)));
        assert_eq!(mentioned("thank you"), None);
        assert_eq!(mentioned("let us start tomorrow"), None);
        let pill = Said {
            formatted: "<a href=\"https://matrix.to/#/@recorder:hs\">Call Recorder</a> stop".to_owned(),
            ..said("Call Recorder stop", &[])
        };
        assert_eq!(parse(&pill, &names()), Some(Parsed::Command(Command::Stop)));
    }

    #[test]
    fn conversation_and_other_bots_commands_are_left_alone() {
        for body in [
            "start",
            "record start",
            "we should !record start later",
            "Call Recorder start",
            "Call Recorder: I think that you are a fine machine",
            "@recorder:other.hs start",
            "@recorder:hs.org start",
            "@recorder:hs:8448 start",
            "@recorders start",
            "thanks @recorder:hs",
            "!",
            "! record start",
            "!help",
            "!status",
            "!stat",
            "!shop",
            "!point",
            "!option",
            "!restart",
            "!rec0rding start it",
            "/record start",
            "`!record start`",
            "> !record start",
        ] {
            assert_eq!(heard(body), None, "{body}");
        }
    }

    #[test]
    fn what_is_half_typed_or_mistyped_names_the_nearest_command() {
        for (body, form) in [
            ("!record sta", "start"),
            ("!record strat", "start"),
            ("!record start now please", "start"),
            ("!record 5tart", "start"),
            ("!record start1", "start"),
            ("!record sotp", "stop"),
            ("!record stat", "status"),
            ("!record statsu", "status"),
            ("!record hlep", "help"),
            ("!record opt", "optout"),
            ("!record optuot", "optout"),
            ("!record auto", "auto on"),
            ("!record auto of", "auto off"),
            ("!rec start", "start"),
            ("!recrod stop", "stop"),
            ("!recorder stop", "stop"),
            ("!sta", "start"),
            ("!strat", "start"),
            ("!stopp", "stop"),
            ("!optuot", "optout"),
            ("!optin please", "optin"),
            ("!start recording", "start"),
            ("@recorder:hs strat", "start"),
            ("!record", ""),
            ("!record make coffee", ""),
            ("!record 12345", ""),
            ("!record ٣", ""),
        ] {
            assert_eq!(nearest_of(body), Some(form), "{body}");
        }
    }

    #[test]
    fn the_readme_shows_the_table_of_commands() {
        let readme = include_str!("../../../../README.md");
        let section =
            readme.split("\n## ").find(|section| section.starts_with("Commands\n")).unwrap_or_default();
        assert!(section.contains(&markdown()), "the section \"Commands\" has to hold:\n{}", markdown());
    }

    #[test]
    fn help_names_every_command_in_text_and_html() {
        let (plain, html) = listed();
        for row in &TABLE {
            assert!(plain.contains(&row.typed()) && html.contains(&row.typed()));
        }
    }
}
