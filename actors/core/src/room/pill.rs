//! A mention in a message's HTML: clients write whom they mention as a link (appendices, "matrix.to navigation") with the
//! name that they happen to show. Only the link says whom it means, so the words around it are taken from the HTML.

const LINK: &str = "matrix.to/#/";

/// What stands before and after the first link to `user`, as plain text, the latter as far as its line goes. `html` is
/// tidied, and may have been cut anywhere.
pub(super) fn around(html: &str, user: &str) -> Option<(String, String)> {
    let at = html.match_indices(LINK).find(|(at, _)| leads_to(&html[at + LINK.len()..], user))?.0;
    let before = &html[..html[..at].rfind('<')?];
    let (_, after) = html[at..].split_once("</a>")?;
    let line = ["<br", "</p", "<p", "</div", "</li"].iter().filter_map(|end| after.find(end)).min();
    Some((text(before), text(&after[..line.unwrap_or(after.len())])))
}

/// Whether any link leads to `user`, whole or not.
pub(super) fn links_to(html: &str, user: &str) -> bool {
    html.match_indices(LINK).any(|(at, _)| leads_to(&html[at + LINK.len()..], user))
}

fn leads_to(target: &str, user: &str) -> bool {
    let end = target.find(['"', '\'', ' ', '?', '>']).unwrap_or(target.len());
    decoded(&target[..end]) == user
}

/// Of a link's target: `%40` is `@` (RFC 3986 §2.1). What is not ASCII stays as it is; no user id holds it.
pub(super) fn decoded(target: &str) -> String {
    let mut parts = target.split('%');
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let byte = part.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match byte.filter(u8::is_ascii) {
            Some(byte) => {
                out.push(char::from(byte));
                out.push_str(&part[2..]);
            }
            None => {
                out.push('%');
                out.push_str(part);
            }
        }
    }
    out
}

/// Without tags, and with the few entities that may stand in a command. A tag that was cut ends the text.
fn text(html: &str) -> String {
    let mut out = String::with_capacity(html.len());
    let mut rest = html;
    while let Some((plain, tag)) = rest.split_once('<') {
        out.push_str(plain);
        rest = tag.split_once('>').map_or("", |(_, rest)| rest);
    }
    out.push_str(rest);
    for (entity, letter) in
        [("&nbsp;", " "), ("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#39;", "'"), ("&amp;", "&")]
    {
        out = out.replace(entity, letter);
    }
    out.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(html: &str) -> Option<(String, String)> {
        around(html, "@recorder:hs")
    }

    #[test]
    fn what_stands_around_the_link_is_plain_text_of_its_line() {
        let around = |before: &str, after: &str| Some((before.to_owned(), after.to_owned()));
        for (html, expected) in [
            ("<a href=\"https://matrix.to/#/@recorder:hs\">anybody</a>: start", around("", ": start")),
            (
                "<p><a href='https://matrix.to/#/%40recorder%3ahs?via=hs'>x</a> stop</p><p>now</p>",
                around("", "stop"),
            ),
            (
                "<a href=\"https://matrix.to/#/@recorder:hs\">a<b>b</b></a> <b>auto</b>&nbsp;on<br>x",
                around("", "auto on"),
            ),
            ("please <a href=\"https://matrix.to/#/@recorder:hs\">x</a> start", around("please", "start")),
            ("a &lt;b&gt; <a href=\"https://matrix.to/#/@recorder:hs\">x</a>", around("a <b>", "")),
            (
                "<a href=\"https://matrix.to/#/@ada:hs\">ada</a> <a href=\"https://matrix.to/#/@recorder:hs\">x</a> hi",
                around("ada", "hi"),
            ),
        ] {
            assert_eq!(of(html), expected, "{html}");
        }
    }

    #[test]
    fn what_is_no_whole_link_to_the_user_gives_nothing_and_nothing_panics() {
        for html in [
            "",
            "matrix.to/#/",
            "matrix.to/#/@recorder:hs",
            "matrix.to/#/@recorder:hs\">x</a> start",
            "<a href=\"https://matrix.to/#/@recorder:hs\">x",
            "<a href=\"https://matrix.to/#/@recorder:hs.org\">x</a> start",
            "<a href=\"https://matrix.to/#/@ada:hs\">@recorder:hs</a> start",
        ] {
            assert_eq!(of(html), None, "{html}");
        }
        for html in [
            "<a href=\"matrix.to/#/@recorder:hs\">x</a> <b sta",
            "<a matrix.to/#/%4%zz%ä%40recorder:hs>x</a>",
        ] {
            let whole: Vec<_> = html.char_indices().map(|(at, _)| of(&html[..at])).collect();
            assert_eq!(whole.len(), html.chars().count());
        }
        assert_eq!(
            of("<a href=\"matrix.to/#/@recorder:hs\">x</a> go <b sta"),
            Some((String::new(), "go".to_owned()))
        );
        assert_eq!(decoded("%40a%3Ab%2f%ff%"), "@a:b/%ff%");
    }
}
