//! Whether a message speaks to us by name: "@recorder:hs start", "Recorder: start", a pill.

use unicode_normalization::UnicodeNormalization;

use super::input::Said;
use super::{pill, recording_name};
use crate::words::cut;

/// Our names, as messages may write them.
#[derive(Clone, Debug)]
pub(super) struct Names {
    user: String,
    /// By configuration; empty for none.
    configured: String,
    /// What the room's people see, without what a recording adds; empty while that is not known.
    shown: String,
    /// With whether a colon or comma has to follow. Not after those that begin with `@`, where a colon without a gap
    /// begins the name of a server.
    spoken: Vec<(String, bool)>,
}

/// How sure it is that a message is meant for us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spoken {
    /// It begins with our name.
    ByName,
    /// It ends with it, or only mentions us, as every reply to a message of ours does.
    InPassing,
}

impl Names {
    pub(super) fn new(user: &str, configured: &str) -> Self {
        let mut names = Self {
            user: user.to_owned(),
            configured: configured.to_owned(),
            shown: String::new(),
            spoken: Vec::new(),
        };
        names.renew();
        names
    }

    /// The room shows us by this name.
    pub(super) fn show(&mut self, name: &str) {
        let name = cut(name.strip_prefix(recording_name("").as_str()).unwrap_or(name));
        if !name.trim().is_empty() && name != self.shown {
            self.shown = name;
            self.renew();
        }
    }

    /// What we are called: by configuration, or as the room shows us, or by the user id.
    pub(super) fn own(&self) -> &str {
        let local = self.user.trim_start_matches('@').split(':').next().unwrap_or_default();
        [self.configured.as_str(), &self.shown].into_iter().find(|name| !name.is_empty()).unwrap_or(local)
    }

    fn renew(&mut self) {
        let user = tidy(&self.user);
        let mut spoken = vec![(user.clone(), false)];
        if let Some((local, _)) = user.split_once(':') {
            spoken.push((local.to_owned(), false));
        }
        let known = [self.configured.as_str(), &self.shown, self.own()];
        for name in known.into_iter().filter(|name| !name.is_empty()) {
            // What we are called while a recording runs comes first: it is the longer one.
            for name in [tidy(&recording_name(name)), tidy(name)] {
                if !spoken.iter().any(|(known, _)| *known == name) {
                    spoken.push((format!("@{name}"), false));
                    spoken.push((name, true));
                }
            }
        }
        self.spoken = spoken;
    }

    /// What is said to us, tidied, without our name; `None` if it is not for us.
    pub(super) fn heard(&self, line: &str, said: &Said) -> Option<(String, Spoken)> {
        let user = tidy(&self.user);
        let html = tidy(&said.formatted);
        // Whatever the client calls us in the text.
        match pill::around(&html, &user) {
            Some((before, after)) if before.is_empty() => {
                let after = after.trim_start_matches([':', ',', ' ']);
                return Some((after.to_owned(), Spoken::ByName));
            }
            Some((before, after)) if after.is_empty() => {
                return Some((before.trim_end_matches([',', ' ']).to_owned(), Spoken::InPassing));
            }
            _ => {}
        }
        let mentioned =
            said.mentions.iter().any(|mention| tidy(mention) == user) || pill::links_to(&html, &user);
        if let Some(rest) = without_link(line, &user) {
            return Some((rest, Spoken::ByName));
        }
        for (name, needs_mark) in &self.spoken {
            if let Some(rest) = line.strip_prefix(name.as_str()) {
                let after = rest.trim_start_matches([':', ',']);
                let apart = after.is_empty() || after.starts_with(' ');
                let marked = after.len() < rest.len() && (*needs_mark || apart);
                if marked || (apart && (mentioned || !needs_mark)) {
                    return Some((after.trim().to_owned(), Spoken::ByName));
                }
            }
            if let Some(rest) = line.strip_suffix(name.as_str())
                && rest.ends_with(' ')
                && (mentioned || !needs_mark)
            {
                return Some((rest.trim().trim_end_matches(',').to_owned(), Spoken::InPassing));
            }
        }
        mentioned.then(|| (line.to_owned(), Spoken::InPassing))
    }
}

/// `[Recorder](https://matrix.to/#/@recorder:hs) start`: how some clients write a pill in the plain body.
fn without_link(line: &str, user: &str) -> Option<String> {
    let (_, rest) = line.strip_prefix('[')?.split_once("](https://matrix.to/#/")?;
    let (target, rest) = rest.split_once(')')?;
    (pill::decoded(target) == user).then(|| rest.trim_start_matches([':', ',']).trim().to_owned())
}

/// One spelling for what looks the same: compatible forms, small letters, nothing invisible, single spaces.
pub(super) fn tidy(text: &str) -> String {
    let plain: String = text
        .nfkc()
        .filter(|letter| !is_invisible(*letter))
        .flat_map(char::to_lowercase)
        .map(|letter| if letter.is_control() { ' ' } else { letter })
        .collect();
    plain.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn is_invisible(letter: char) -> bool {
    matches!(letter, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}'
        | '\u{fe00}'..='\u{fe0f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::time::BootTime;

    const BOT: &str = "@recorder:hs";

    fn said(body: &str, formatted: &str, mentions: &[&str]) -> Said {
        Said {
            event_id: "$1".to_owned(),
            sender: "@ada:hs".to_owned(),
            thread_root: None,
            body: body.to_owned(),
            formatted: formatted.to_owned(),
            mentions: mentions.iter().map(|&user| user.to_owned()).collect(),
            received: BootTime(0),
            age: Duration::ZERO,
        }
    }

    fn pill(name: &str) -> String {
        format!("<a href=\"https://matrix.to/#/@recorder:hs\">{name}</a>")
    }

    fn by_name(text: &str) -> Option<(String, Spoken)> {
        Some((text.to_owned(), Spoken::ByName))
    }

    #[test]
    fn a_pill_is_understood_whatever_name_the_client_shows() {
        let names = Names::new(BOT, "");
        for name in ["Scribe of the House", "● REC Scribe", "recorder", "", "&lt;img&gt;"] {
            for (gap, body) in [(" ", format!("{name} start")), (": ", format!("{name}: start"))] {
                let pilled = said(&body, &format!("{}{gap}start", pill(name)), &[BOT]);
                assert_eq!(names.heard(&tidy(&pilled.body), &pilled), by_name("start"), "{body}");
            }
        }
        let last = said("start, Scribe", &format!("start, {}", pill("Scribe")), &[BOT]);
        assert_eq!(names.heard("start, scribe", &last), Some(("start".to_owned(), Spoken::InPassing)));
        let between = said("let Scribe start", &format!("let {} start", pill("Scribe")), &[BOT]);
        assert_eq!(names.heard("let scribe start", &between).map(|(_, how)| how), Some(Spoken::InPassing));
    }

    #[test]
    fn without_a_pill_a_mention_by_the_rooms_name_for_us_is_understood_also_while_it_says_rec() {
        let mut names = Names::new(BOT, "");
        assert_eq!(names.own(), "recorder");
        let scribe = said("Scribe start", "", &[BOT]);
        assert_eq!(names.heard("scribe start", &scribe).map(|(_, how)| how), Some(Spoken::InPassing));
        for shown in ["Scribe", "● REC Scribe"] {
            names.show(shown);
            assert_eq!(names.own(), "Scribe");
            for line in ["scribe start", "● rec scribe start"] {
                assert_eq!(names.heard(line, &said(line, "", &[BOT])), by_name("start"), "{line}");
            }
            assert_eq!(names.heard("scribe: start", &said("", "", &[])), by_name("start"));
        }
        names.show(" ");
        assert_eq!(names.own(), "Scribe", "nothing is no name");
        assert_eq!(Names::new(BOT, "Writer").own(), "Writer");
    }
}
