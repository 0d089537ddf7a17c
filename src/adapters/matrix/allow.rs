//! Who may invite the recorder and be recorded: exact user ids and whole servers. Nobody is allowed by default.

use std::collections::HashSet;
use std::fmt;

/// The longest user id (Matrix specification, appendices, "User identifiers"), in bytes.
const LONGEST_USER_ID: usize = 255;

/// Parsed `matrix.allow`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowList {
    users: HashSet<String>,
    servers: HashSet<String>,
}

/// An entry of `matrix.allow` that cannot be meant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AllowError {
    #[error("an entry is empty; write a user id like @alice:example.org or a server like *:example.org")]
    Empty,
    #[error("{entry:?} has no server part; write a user id like @alice:example.org")]
    NoServer { entry: String },
    #[error(
        "{entry:?} uses * in a place where it has no meaning; only *:server is understood, for everybody of one server"
    )]
    Glob { entry: String },
    #[error("{entry:?} is neither a user id (@alice:example.org) nor a server (*:example.org)")]
    NotAUser { entry: String },
    #[error("{entry:?} is longer than {LONGEST_USER_ID} bytes, no user id is")]
    TooLong { entry: String },
    #[error("{entry:?} names the server {server:?}, which is not a server name; write host or host:port")]
    BadServer { entry: String, server: String },
}

impl AllowList {
    /// Parses every entry; on failure all faults are told, in the order of the entries.
    pub fn parse<S: AsRef<str>>(entries: &[S]) -> Result<Self, Vec<AllowError>> {
        let mut list = Self::default();
        let mut faults = Vec::new();
        for entry in entries {
            if let Err(fault) = list.add(entry.as_ref()) {
                faults.push(fault);
            }
        }
        if faults.is_empty() { Ok(list) } else { Err(faults) }
    }

    fn add(&mut self, text: &str) -> Result<(), AllowError> {
        let text = text.trim();
        let entry = || text.to_owned();
        if text.is_empty() {
            return Err(AllowError::Empty);
        }
        if text.len() > LONGEST_USER_ID {
            return Err(AllowError::TooLong { entry: text.chars().take(40).collect() });
        }
        let Some((name, server)) = text.split_once(':') else {
            return Err(AllowError::NoServer { entry: entry() });
        };
        if server.contains('*') || (name != "*" && name.contains('*')) {
            return Err(AllowError::Glob { entry: entry() });
        }
        if !is_server_name(server) {
            return Err(AllowError::BadServer { entry: entry(), server: server.to_owned() });
        }
        if name == "*" {
            self.servers.insert(server.to_ascii_lowercase());
        } else if name.len() > 1 && name.starts_with('@') && !name.contains(char::is_whitespace) {
            self.users.insert(format!("{name}:{}", server.to_ascii_lowercase()));
        } else {
            return Err(AllowError::NotAUser { entry: entry() });
        }
        Ok(())
    }

    /// Nobody may use the recorder; worth one warning at start.
    pub fn is_empty(&self) -> bool {
        self.users.is_empty() && self.servers.is_empty()
    }

    /// Whether `user_id` may invite us and be recorded. Local parts are compared byte for byte, servers without case.
    pub fn allows(&self, user_id: &str) -> bool {
        let Some((name, server)) = user_id.split_once(':') else { return false };
        if !name.starts_with('@') || user_id.len() > LONGEST_USER_ID {
            return false;
        }
        let server = server.to_ascii_lowercase();
        self.servers.contains(&server) || self.users.contains(&format!("{name}:{server}"))
    }
}

impl fmt::Display for AllowList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} users, {} servers", self.users.len(), self.servers.len())
    }
}

/// Grammar of a server name: host name, IPv4 or bracketed IPv6, with an optional port (specification, appendices).
fn is_server_name(server: &str) -> bool {
    let (host, port) = match server.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, "")) => return address.parse::<std::net::Ipv6Addr>().is_ok(),
            Some((address, port)) if address.parse::<std::net::Ipv6Addr>().is_ok() => {
                ("ipv6", port.strip_prefix(':'))
            }
            _ => return false,
        },
        None => match server.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (server, Some("")),
        },
    };
    let Some(port) = port else { return false };
    let port_fits = port.is_empty() && !server.ends_with(':') || port.parse::<u16>().is_ok();
    port_fits
        && !host.is_empty()
        && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_list_allows_nobody() {
        let list = AllowList::parse::<&str>(&[]).unwrap();
        assert!(list.is_empty());
        assert!(!list.allows("@alice:example.org"));
    }

    #[test]
    fn users_and_servers_are_matched_and_nothing_else() {
        let list =
            AllowList::parse(&["@alice:example.org", "*:friends.net", "*:[::1]:8448", "*:localhost:8448"])
                .unwrap();
        for (user, allowed) in [
            ("@alice:example.org", true),
            ("@alice:EXAMPLE.org", true),
            ("@Alice:example.org", false),
            ("@alice:example.org.evil.net", false),
            ("@bob:example.org", false),
            ("@anybody:friends.net", true),
            ("@anybody:sub.friends.net", false),
            ("@anybody:friends.net:8448", false),
            ("@x:[::1]:8448", true),
            ("@x:localhost:8448", true),
            ("@x:localhost", false),
            ("anybody:friends.net", false),
            ("friends.net", false),
            ("", false),
        ] {
            assert_eq!(list.allows(user), allowed, "{user}");
        }
    }

    #[test]
    fn every_fault_is_told_at_once() {
        let faults = AllowList::parse(&[
            "",
            "alice",
            "*",
            "*:*",
            "@al*ce:example.org",
            "alice:example.org",
            "@a:exa mple",
        ])
        .unwrap_err();
        assert_eq!(
            faults,
            [
                AllowError::Empty,
                AllowError::NoServer { entry: "alice".into() },
                AllowError::NoServer { entry: "*".into() },
                AllowError::Glob { entry: "*:*".into() },
                AllowError::Glob { entry: "@al*ce:example.org".into() },
                AllowError::NotAUser { entry: "alice:example.org".into() },
                AllowError::BadServer { entry: "@a:exa mple".into(), server: "exa mple".into() },
            ]
        );
    }

    #[test]
    fn a_server_with_an_unusable_port_is_refused() {
        for entry in ["*:example.org:", "*:example.org:99999", "*:[::1", "*:[zz]", "*:"] {
            assert!(AllowList::parse(&[entry]).is_err(), "{entry}");
        }
    }

    #[test]
    fn a_huge_id_is_not_allowed_even_from_an_allowed_server() {
        let list = AllowList::parse(&["*:example.org"]).unwrap();
        assert!(!list.allows(&format!("@{}:example.org", "a".repeat(10_000))));
    }
}
