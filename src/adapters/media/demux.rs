//! Which connection a datagram on the shared port belongs to.
//!
//! A STUN request names its connection by the ICE user fragment (RFC 8445 §7.2.2); everything else is told apart by the
//! remote address, learnt from such requests and from our own checks. Addresses move with ICE: the newest request wins.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;

use recorder_core::ids::ConnectionId;

/// Remote addresses remembered of one connection; the oldest is forgotten first.
const ADDRESSES: usize = 32;
/// Local user fragments of one connection that are still answered: the newest, and those before ICE restarts.
const FRAGMENTS: usize = 4;

/// Addresses and user fragments of all connections.
#[derive(Debug, Default)]
pub struct Demux {
    by_address: HashMap<SocketAddr, ConnectionId>,
    by_fragment: HashMap<String, ConnectionId>,
    of: HashMap<ConnectionId, Known>,
}

#[derive(Debug, Default)]
struct Known {
    addresses: VecDeque<SocketAddr>,
    fragments: VecDeque<String>,
}

impl Demux {
    /// The connection a datagram is for.
    pub fn route(&mut self, source: SocketAddr, datagram: &[u8]) -> Option<ConnectionId> {
        if let Some(fragment) = binding_request_fragment(datagram) {
            let id = *self.by_fragment.get(fragment)?;
            self.learn(id, source, true);
            return Some(id);
        }
        self.by_address.get(&source).copied()
    }

    /// Notes that we send checks to `address`; its answers carry no user fragment.
    pub fn sent(&mut self, id: ConnectionId, address: SocketAddr) {
        self.learn(id, address, false);
    }

    /// The connection answers to this local user fragment from now on.
    pub fn add_fragment(&mut self, id: ConnectionId, fragment: &str) {
        let known = self.of.entry(id).or_default();
        if known.fragments.iter().any(|old| old == fragment) {
            return;
        }
        known.fragments.push_back(fragment.to_owned());
        self.by_fragment.insert(fragment.to_owned(), id);
        while known.fragments.len() > FRAGMENTS {
            if let Some(old) = known.fragments.pop_front() {
                self.by_fragment.remove(&old);
            }
        }
    }

    pub fn forget(&mut self, id: ConnectionId) {
        let Some(known) = self.of.remove(&id) else { return };
        for fragment in known.fragments {
            self.by_fragment.remove(&fragment);
        }
        for address in known.addresses {
            if self.by_address.get(&address) == Some(&id) {
                self.by_address.remove(&address);
            }
        }
    }

    fn learn(&mut self, id: ConnectionId, address: SocketAddr, takes_over: bool) {
        match self.by_address.get(&address) {
            Some(owner) if *owner == id || !takes_over => return,
            _ => {}
        }
        // Only connections with a user fragment are known, so the table is bounded by their number.
        let Some(known) = self.of.get_mut(&id) else { return };
        self.by_address.insert(address, id);
        known.addresses.push_back(address);
        while known.addresses.len() > ADDRESSES {
            if let Some(old) = known.addresses.pop_front()
                && self.by_address.get(&old) == Some(&id)
            {
                self.by_address.remove(&old);
            }
        }
    }
}

const BINDING_REQUEST: [u8; 2] = [0x00, 0x01];
const MAGIC_COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
const USERNAME: u16 = 0x0006;

/// The receiver's half of USERNAME in a STUN binding request (RFC 8445 §7.1.2: `receiver:sender`).
pub fn binding_request_fragment(datagram: &[u8]) -> Option<&str> {
    if datagram.get(..2)? != BINDING_REQUEST || datagram.get(4..8)? != MAGIC_COOKIE {
        return None;
    }
    let mut rest = datagram.get(20..)?;
    while let [t0, t1, l0, l1, value @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*l0, *l1]));
        let content = value.get(..length)?;
        if u16::from_be_bytes([*t0, *t1]) == USERNAME {
            return std::str::from_utf8(content).ok()?.split(':').next();
        }
        rest = value.get(length.next_multiple_of(4)..)?;
    }
    None
}

/// A STUN binding request of ours, to be matched by address when it is answered.
pub fn is_binding_request(datagram: &[u8]) -> bool {
    datagram.len() >= 20 && datagram[..2] == BINDING_REQUEST && datagram[4..8] == MAGIC_COOKIE
}
