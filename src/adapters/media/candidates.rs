//! ICE candidates: our own from the machine's interfaces, the remote side's from text.

use std::net::{IpAddr, SocketAddr};

use nix::ifaddrs::getifaddrs;
use str0m::Candidate;
use str0m::net::Protocol;

/// Addresses of this machine that are offered.
const MAX_LOCAL: usize = 16;

/// Addresses of this machine's interfaces that a peer may reach; loopback only if asked for, and never link-local ones.
pub fn interface_addresses(include_loopback: bool) -> Vec<IpAddr> {
    let mut found: Vec<IpAddr> = Vec::new();
    for interface in getifaddrs().into_iter().flatten() {
        let Some(address) = interface.address else { continue };
        let ip = match (address.as_sockaddr_in(), address.as_sockaddr_in6()) {
            (Some(v4), _) => IpAddr::V4(v4.ip()),
            (_, Some(v6)) => IpAddr::V6(v6.ip()),
            _ => continue,
        };
        if usable(ip, include_loopback) && !found.contains(&ip) && found.len() < MAX_LOCAL {
            found.push(ip);
        }
    }
    found
}

fn usable(ip: IpAddr, include_loopback: bool) -> bool {
    let link_local = match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    !ip.is_unspecified() && !ip.is_multicast() && !link_local && (include_loopback || !ip.is_loopback())
}

/// Host candidates on `sockets` (their bound addresses), then the advertised addresses as server-reflexive ones.
pub fn local(sockets: &[SocketAddr], include_loopback: bool, advertise: &[IpAddr]) -> Vec<Candidate> {
    let interfaces = interface_addresses(include_loopback);
    let mut hosts: Vec<SocketAddr> = Vec::new();
    for socket in sockets {
        if socket.ip().is_unspecified() {
            let family = interfaces.iter().filter(|ip| ip.is_ipv4() == socket.is_ipv4());
            hosts.extend(family.map(|ip| SocketAddr::new(*ip, socket.port())));
        } else {
            hosts.push(*socket);
        }
    }
    let mut candidates: Vec<Candidate> =
        hosts.iter().filter_map(|host| Candidate::host(*host, Protocol::Udp).ok()).collect();
    for ip in advertise {
        // Whatever translates the advertised address delivers to one of the host's own.
        if hosts.iter().any(|host| host.ip() == *ip) {
            continue;
        }
        if let Some(base) = hosts.iter().find(|host| host.is_ipv4() == ip.is_ipv4()) {
            let public = SocketAddr::new(*ip, base.port());
            candidates.extend(Candidate::server_reflexive(public, *base, Protocol::Udp).ok());
        }
    }
    candidates
}

/// What a remote candidate line came to.
#[derive(Debug)]
pub enum Remote {
    Usable(Candidate),
    /// End of candidates, an mDNS name or TCP: nothing to do and nothing wrong.
    Skipped,
    Malformed,
}

/// Reads `candidate:…`, with or without `a=`. Names under `.local` (RFC 8828 mDNS hiding) cannot be resolved here.
pub fn remote(text: &str) -> Remote {
    let text = text.strip_prefix("a=").unwrap_or(text).trim();
    if text.is_empty() || text.len() > 1024 {
        return if text.is_empty() { Remote::Skipped } else { Remote::Malformed };
    }
    let mut tokens = text.split_ascii_whitespace();
    let transport = tokens.nth(2).unwrap_or_default();
    let address = tokens.nth(1).unwrap_or_default();
    if address.to_ascii_lowercase().ends_with(".local") || !transport.eq_ignore_ascii_case("udp") {
        return Remote::Skipped;
    }
    match Candidate::from_sdp_string(text) {
        Ok(candidate) => Remote::Usable(candidate),
        Err(_) => Remote::Malformed,
    }
}
