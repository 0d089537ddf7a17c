//! Pieces of the sentences that people read. Remote names are cleaned in plain text and escaped in HTML.

/// Characters of one name.
const LONGEST_NAME: usize = 80;

/// Bidirectional controls could turn the sentence round; the rest has no place in a line.
fn is_unseemly(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}' | '\u{2028}' | '\u{2029}')
}

/// For HTML text and quoted attributes.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars().filter(|letter| !is_unseemly(*letter)) {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}

/// A name of at most 80 characters, in plain text.
pub(crate) fn cut(name: &str) -> String {
    cut_to(name, LONGEST_NAME)
}

/// Plain text of at most `most` characters, an ellipsis where something was left off.
pub(crate) fn cut_to(text: &str, most: usize) -> String {
    let mut letters = text.chars().filter(|letter| !is_unseemly(*letter));
    let mut out: String = letters.by_ref().take(most).collect();
    if letters.next().is_some() {
        out.pop();
        out.push('…');
    }
    out
}

/// A link to a user: clients show it as their pill (appendices, "matrix.to navigation").
pub(crate) fn pill(user: &str) -> String {
    let mut target = String::with_capacity(user.len());
    for byte in user.bytes() {
        if byte.is_ascii_alphanumeric() || b"@:._=~-".contains(&byte) {
            target.push(char::from(byte));
        } else {
            target.push_str(&format!("%{byte:02X}"));
        }
    }
    format!("<a href=\"https://matrix.to/#/{target}\">{}</a>", escape(&cut(user)))
}

/// `hh:mm:ss`.
pub(crate) fn duration(seconds: f64) -> String {
    let seconds = seconds.max(0.0).round() as u64;
    format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

pub(crate) fn size(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} bytes"),
        1_000..1_000_000 => format!("{:.0} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.2} GB", bytes as f64 / 1e9),
    }
}

/// `1 stream`, `3 streams`.
pub(crate) fn count(number: usize, one: &str, many: &str) -> String {
    if number == 1 { format!("1 {one}") } else { format!("{number} {many}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_name_is_neither_markup_nor_turned_round_nor_endless() {
        assert_eq!(escape("<b>\u{202e}&\"'\n"), "&lt;b&gt;&amp;&quot;&#39;");
        assert_eq!(cut("a\u{2067}b\u{200f}c"), "abc");
        assert_eq!(cut(&"x".repeat(9_000)).chars().count(), 80);
        assert_eq!(
            pill("@\"><script>:hs"),
            "<a href=\"https://matrix.to/#/@%22%3E%3Cscript%3E:hs\">@&quot;&gt;&lt;script&gt;:hs</a>"
        );
    }

    #[test]
    fn durations_and_sizes_are_said_in_words() {
        assert_eq!(duration(3_725.4), "01:02:05");
        assert_eq!(duration(f64::NAN), "00:00:00");
        assert_eq!(duration(f64::INFINITY.min(4e5)), "111:06:40");
        assert_eq!((size(999), size(12_345_678)), ("999 bytes".to_owned(), "12.3 MB".to_owned()));
    }
}
