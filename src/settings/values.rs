//! The kinds of values that settings have, each with its parser.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use crate::adapters::matrix::AllowList;

/// Why a value does not fit, and what would.
#[derive(Debug)]
pub(super) struct Wrong {
    pub(super) problem: String,
    pub(super) advice: String,
}

impl Wrong {
    pub(super) fn new(problem: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { problem: problem.into(), advice: advice.into() }
    }
}

/// An amount of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, shift) in [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)] {
            let size = 1_u64 << shift;
            if self.0 >= size && self.0.is_multiple_of(size) {
                return write!(f, "{} {unit}", self.0 / size);
            }
        }
        write!(f, "{} B", self.0)
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

/// One entry of `matrix.allow`: a user id, or `*:server` for everybody of one server. [`AllowList`] says what
/// fits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowPattern {
    text: String,
    list: AllowList,
}

impl AllowPattern {
    pub fn as_str(&self) -> &str {
        &self.text
    }

    pub fn matches(&self, user_id: &str) -> bool {
        self.list.allows(user_id)
    }
}

impl fmt::Display for AllowPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A name or an address that people read.
pub(super) fn short_text(text: &str) -> Result<String, Wrong> {
    if text.chars().count() > 100 || text.chars().any(char::is_control) {
        let advice = "write at most 100 letters, without line breaks";
        return Err(Wrong::new("too long, or not plain text", advice));
    }
    Ok(text.to_owned())
}

pub(super) fn homeserver(text: &str) -> Result<String, Wrong> {
    let advice = "write the base URL of the homeserver's client API, such as \"https://matrix.example.org\"";
    let rest = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"))
        .ok_or_else(|| Wrong::new("not a URL that begins with https:// or http://", advice))?;
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let host_end = rest.find('/').unwrap_or(rest.len());
    let host = &rest[..host_end];
    if host.contains('@') {
        return Err(Wrong::new("a URL with a user or password in it", advice));
    }
    if host.is_empty()
        || text.chars().any(|c| c.is_whitespace() || c.is_control())
        || text.contains(['?', '#'])
    {
        return Err(Wrong::new("not the base URL of a server", advice));
    }
    if rest[host_end..].starts_with("/_matrix") {
        return Err(Wrong::new("a path below the base URL", "leave out everything from /_matrix on"));
    }
    Ok(text.trim_end_matches('/').to_owned())
}

pub(super) fn user_id(text: &str) -> Result<String, Wrong> {
    let fits = text.strip_prefix('@').and_then(|rest| rest.split_once(':')).is_some_and(|(local, server)| {
        !local.is_empty() && !server.is_empty() && text.len() <= 255 && !text.contains(char::is_whitespace)
    });
    if fits {
        Ok(text.to_owned())
    } else {
        Err(Wrong::new("not a full user id", "write it as \"@recorder:example.org\""))
    }
}

pub(super) fn allow_pattern(text: &str) -> Result<AllowPattern, Wrong> {
    let advice = "write \"@ada:example.org\" for one person or \"*:example.org\" for a server";
    match AllowList::parse(&[text]) {
        Ok(list) => Ok(AllowPattern { text: text.to_owned(), list }),
        Err(_) => Err(Wrong::new("neither a user id nor a server", advice)),
    }
}

pub(super) fn folder(text: &str) -> Result<PathBuf, Wrong> {
    let path = Path::new(text);
    if text.is_empty() || text.contains('\0') {
        Err(Wrong::new("not a path", "write the folder's path"))
    } else {
        Ok(path.to_owned())
    }
}

pub(super) fn address(text: &str) -> Result<IpAddr, Wrong> {
    text.trim_matches(['[', ']']).parse().map_err(|_| {
        Wrong::new("not an IP address", "write an address such as \"192.0.2.1\" or \"2001:db8::1\"")
    })
}

pub(super) fn public_address(text: &str) -> Result<IpAddr, Wrong> {
    let ip = address(text)?;
    if ip.is_unspecified() || ip.is_multicast() {
        return Err(Wrong::new("nobody can send to that address", "write the address that callers reach"));
    }
    Ok(ip)
}

pub(super) fn listener(text: &str) -> Result<SocketAddr, Wrong> {
    text.parse().map_err(|_| {
        Wrong::new("not an address with a port", "write it as \"127.0.0.1:8080\" or \"[::1]:8080\"")
    })
}

pub(super) fn optional_listener(text: &str) -> Result<Option<SocketAddr>, Wrong> {
    if text.is_empty() { Ok(None) } else { listener(text).map(Some) }
}

/// An address for people's browsers.
pub(super) fn page_address(text: &str) -> Result<String, Wrong> {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let fits = rest.is_some_and(|rest| rest.starts_with(|c: char| c.is_alphanumeric() || c == '['))
        && text.len() <= 2_048
        && !text.contains(|c: char| c.is_whitespace() || c.is_control());
    if fits {
        Ok(text.to_owned())
    } else {
        Err(Wrong::new("not the address of a page", "write it as \"https://code.example.org/recorder\""))
    }
}

pub(super) fn host_name(text: &str) -> Result<String, Wrong> {
    let fits = !text.is_empty()
        && text.len() <= 253
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.');
    if fits {
        Ok(text.trim_end_matches('.').to_lowercase())
    } else {
        Err(Wrong::new("not a host name", "write only the name, without https:// and port"))
    }
}

pub(super) fn log_filter(text: &str) -> Result<String, Wrong> {
    match tracing_subscriber::EnvFilter::builder().parse(text) {
        Ok(_) if !text.trim().is_empty() => Ok(text.to_owned()),
        _ => Err(Wrong::new("not a log filter", "write \"info\", or \"info,recorder_actors=debug\"")),
    }
}

pub(super) fn log_format(text: &str) -> Result<LogFormat, Wrong> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err(Wrong::new("no such format", "write \"text\" or \"json\"")),
    }
}

pub(super) fn byte_size(text: &str) -> Result<ByteSize, Wrong> {
    let advice = "write a whole number with a unit, such as \"1 GiB\" or \"500 MB\"";
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let number: u64 = text[..digits].parse().map_err(|_| Wrong::new("not an amount of bytes", advice))?;
    let unit: u64 = match text[digits..].trim() {
        "" | "B" => 1,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return Err(Wrong::new("a unit that is not known", advice)),
    };
    number.checked_mul(unit).map(ByteSize).ok_or_else(|| Wrong::new("more than any disk holds", advice))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_server_glob_matches_only_its_server() {
        let pattern = allow_pattern("*:example.org").unwrap();
        assert!(pattern.matches("@ada:example.org"));
        assert!(pattern.matches("@ada:EXAMPLE.org"));
        assert!(!pattern.matches("@ada:evil-example.org"));
        assert!(!pattern.matches("@ada:example.org.evil.net"));
        assert!(!pattern.matches("ada:example.org"));
    }

    #[test]
    fn a_user_id_matches_only_itself() {
        let pattern = allow_pattern("@ada:example.org").unwrap();
        assert!(pattern.matches("@ada:example.org"));
        assert!(!pattern.matches("@adam:example.org"));
        assert!(!pattern.matches("@Ada:example.org"));
    }

    #[test]
    fn a_star_elsewhere_has_no_meaning_and_is_refused() {
        for wrong in ["*:*", "*:*.example.org", "@*:example.org", "*", "everyone", "@ada:", ""] {
            assert!(allow_pattern(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_address_of_a_page_is_one_that_a_link_may_lead_to() {
        for right in ["https://example.org/a?b#c", "http://localhost:3000", "https://[::1]/"] {
            assert_eq!(page_address(right).unwrap(), right);
        }
        for wrong in
            ["", "example.org", "javascript:alert(1)", "https://", "https:///x", "https://a b", "ftp://a"]
        {
            assert!(page_address(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sizes_are_read_with_both_kinds_of_units() {
        assert_eq!(byte_size("1 GiB").unwrap(), ByteSize(1 << 30));
        assert_eq!(byte_size("500MB").unwrap(), ByteSize(500_000_000));
        assert_eq!(byte_size("0").unwrap(), ByteSize(0));
        for wrong in ["", "GiB", "-1", "1.5 GiB", "1 GiBs", "99999999999 TiB"] {
            assert!(byte_size(wrong).is_err(), "{wrong}");
        }
        assert_eq!(ByteSize(1 << 30).to_string(), "1 GiB");
    }

    proptest! {
        #[test]
        fn no_text_makes_a_parser_panic(text in "\\PC{0,64}") {
            let _ = homeserver(&text);
            let _ = user_id(&text);
            let _ = allow_pattern(&text).map(|pattern| pattern.matches(&text));
            let _ = byte_size(&text);
            let _ = host_name(&text);
            let _ = page_address(&text);
            let _ = listener(&text);
        }
    }
}
