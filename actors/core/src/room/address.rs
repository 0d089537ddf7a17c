//! Whether a message speaks to us by name: "@recorder:hs start", "Recorder: start", a pill.

use unicode_normalization::UnicodeNormalization;

use super::input::Said;
use super::recording_name;

/// Our names, as messages may write them.
#[derive(Clone, Debug)]
pub(super) struct Names {
    user: String,
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
    pub(super) fn new(user: &str, name: &str) -> Self {
        let (user, name) = (tidy(user), tidy(name));
        let mut spoken = vec![(user.clone(), false)];
        if let Some((local, _)) = user.split_once(':') {
            spoken.push((local.to_owned(), false));
        }
        if !name.is_empty() {
            // What we are called while a recording runs comes first: it is the longer one.
            for name in [tidy(&recording_name(&name)), name] {
                spoken.push((format!("@{name}"), false));
                spoken.push((name, true));
            }
        }
        Self { user, spoken }
    }

    /// What is said to us, tidied, without our name; `None` if it is not for us.
    pub(super) fn heard(&self, line: &str, said: &Said) -> Option<(String, Spoken)> {
        let mentioned = said.mentions.iter().any(|user| tidy(user) == self.user)
            || links_to(&tidy(&said.formatted), &self.user);
        if let Some(rest) = self.without_link(line) {
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

    /// `[Recorder](https://matrix.to/#/@recorder:hs) start`: how some clients write a pill in the plain body.
    fn without_link(&self, line: &str) -> Option<String> {
        let (_, rest) = line.strip_prefix('[')?.split_once("](https://matrix.to/#/")?;
        let (target, rest) = rest.split_once(')')?;
        (decoded(target) == self.user).then(|| rest.trim_start_matches([':', ',']).trim().to_owned())
    }
}

fn decoded(target: &str) -> String {
    target.replace("%40", "@").replace("%3a", ":")
}

fn links_to(html: &str, user: &str) -> bool {
    html.split("matrix.to/#/").skip(1).any(|target| {
        let end = target.find(['"', '\'', ' ', '?', '>']).unwrap_or(target.len());
        decoded(&target[..end]) == user
    })
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
