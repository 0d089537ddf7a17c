//! Relayed addresses from the homeserver's TURN servers (RFC 8656), over UDP.
//!
//! Each relay has a socket of its own: a TURN server tells allocations apart by the address that asks. It only sends
//! outwards, so an admin has no port to open for it.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use recorder_actors::ports::TurnServer;
use recorder_core::ids::ConnectionId;
use recorder_core::time::BootTime;
use turn_client_proto::api::{DelayedMessageOrChannelSend, TurnConfig, TurnEvent, TurnPollRet, TurnRecvRet};
use turn_client_proto::prelude::*;
use turn_client_proto::stun::agent::Transmit;
use turn_client_proto::types::{TransportType, TurnCredentials};
use turn_client_proto::udp::TurnClientUdp;

use super::net::Moment;
use super::socket::{Batch, Datagram, Socket};

/// Relays of one connection; the first servers that can be used are taken.
pub const MAX_RELAYS: usize = 2;
/// Datagrams that wait for the server's permission; the oldest are dropped, ICE sends its checks again.
const MAX_WAITING: usize = 32;
/// Peers a relay asks permission for.
const MAX_PEERS: usize = 64;
/// How long an answer waits for relayed addresses. Later ones are used as well, but the peer is not told.
pub const GATHER_FOR: Duration = Duration::from_millis(250);
/// How long the name of a TURN server may take to resolve.
const RESOLVE_FOR: Duration = Duration::from_millis(500);

/// A TURN server that can be used.
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    pub server: SocketAddr,
    pub username: String,
    pub password: String,
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Target").field("server", &self.server).finish_non_exhaustive()
    }
}

/// Host and port of a TURN URI (RFC 7065) that is reached over UDP without TLS; None for the others.
pub fn udp_host(uri: &str) -> Option<(String, u16)> {
    let rest = uri.strip_prefix("turn:")?;
    let (address, query) = rest.split_once('?').unwrap_or((rest, ""));
    let transport = query.split('&').find_map(|pair| pair.strip_prefix("transport="));
    if transport.is_some_and(|transport| !transport.eq_ignore_ascii_case("udp")) {
        return None;
    }
    let (host, port) = match address.strip_prefix('[') {
        Some(bracketed) => {
            let (host, rest) = bracketed.split_once(']')?;
            (host, rest.strip_prefix(':'))
        }
        None => address.split_once(':').map_or((address, None), |(host, port)| (host, Some(port))),
    };
    let port = port.map_or(Ok(3478), str::parse).ok()?;
    (!host.is_empty()).then(|| (host.to_owned(), port))
}

/// The servers that can be used, their names resolved.
pub async fn resolve(servers: &[TurnServer]) -> Vec<Target> {
    let mut targets: Vec<Target> = Vec::new();
    for server in servers {
        for uri in &server.uris {
            if targets.len() >= MAX_RELAYS {
                return targets;
            }
            let Some((host, port)) = udp_host(uri) else {
                tracing::debug!(%uri, "turn server skipped, only udp without tls is used");
                continue;
            };
            let address = match host.parse::<IpAddr>() {
                Ok(ip) => Some(SocketAddr::new(ip, port)),
                Err(_) => lookup(&host, port).await,
            };
            let Some(address) = address else {
                tracing::warn!(%uri, "the name of this turn server does not resolve");
                continue;
            };
            if !targets.iter().any(|target| target.server == address) {
                targets.push(Target {
                    server: address,
                    username: server.username.clone(),
                    password: server.password.clone(),
                });
            }
        }
    }
    targets
}

async fn lookup(host: &str, port: u16) -> Option<SocketAddr> {
    let found = tokio::time::timeout(RESOLVE_FOR, tokio::net::lookup_host((host, port))).await.ok()?.ok()?;
    let addresses: Vec<SocketAddr> = found.collect();
    addresses.iter().find(|address| address.is_ipv4()).or(addresses.first()).copied()
}

/// What a relay has for its connection.
#[derive(Debug)]
pub enum RelayEvent {
    /// A relayed address is ours; the local address it was asked from.
    Allocated {
        relayed: SocketAddr,
        local: SocketAddr,
    },
    Failed,
}

/// A datagram that came through a relay.
#[derive(Debug)]
pub struct Relayed {
    pub id: ConnectionId,
    pub bytes: Vec<u8>,
    pub peer: SocketAddr,
    pub relayed: SocketAddr,
    pub arrival: BootTime,
    pub instant: Instant,
}

impl Relayed {
    pub fn datagram(&self) -> Datagram<'_> {
        Datagram {
            bytes: &self.bytes,
            source: self.peer,
            destination: self.relayed,
            arrival: self.arrival,
            instant: self.instant,
        }
    }
}

/// One allocation on one server.
#[derive(Debug)]
struct Relay {
    id: ConnectionId,
    client: TurnClientUdp,
    socket: Socket,
    local: SocketAddr,
    server: SocketAddr,
    relayed: Option<SocketAddr>,
    asked: HashSet<IpAddr>,
    waiting: VecDeque<(SocketAddr, Vec<u8>)>,
    next: Instant,
    told: bool,
}

fn stun_time(boot: BootTime) -> turn_client_proto::stun::Instant {
    turn_client_proto::stun::Instant::from_nanos(boot.as_nanos().try_into().unwrap_or(i64::MAX))
}

impl Relay {
    fn new(id: ConnectionId, target: &Target, now: Moment) -> std::io::Result<Self> {
        // The kernel knows from which address the server is reached.
        let any: IpAddr = match target.server.ip() {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
        };
        let probe = std::net::UdpSocket::bind(SocketAddr::new(any, 0))?;
        probe.connect(target.server)?;
        let socket = Socket::bind(SocketAddr::new(probe.local_addr()?.ip(), 0))?;
        let local = socket.local();
        let credentials = TurnCredentials::new(&target.username, &target.password);
        let client = TurnClientUdp::allocate(local, target.server, TurnConfig::new(credentials));
        Ok(Self {
            id,
            client,
            socket,
            local,
            server: target.server,
            relayed: None,
            asked: HashSet::new(),
            waiting: VecDeque::new(),
            next: now.instant,
            told: false,
        })
    }

    fn send(&mut self, peer: SocketAddr, bytes: &[u8], now: Moment) {
        if self.client.have_permission(TransportType::Udp, peer.ip()) {
            self.send_permitted(peer, bytes, now);
            return;
        }
        if self.asked.len() < MAX_PEERS && self.asked.insert(peer.ip()) {
            // A refusal shows as PermissionCreateFailed, and then nothing is sent.
            let _ = self.client.create_permission(TransportType::Udp, peer.ip(), stun_time(now.boot));
        }
        if self.waiting.len() >= MAX_WAITING {
            self.waiting.pop_front();
        }
        self.waiting.push_back((peer, bytes.to_vec()));
        self.flush(now);
    }

    fn send_permitted(&mut self, peer: SocketAddr, bytes: &[u8], now: Moment) {
        let built = self.client.send_to(TransportType::Udp, peer, bytes, stun_time(now.boot));
        if let Ok(Some(transmit)) = built {
            let data: DelayedMessageOrChannelSend<&[u8]> = transmit.data;
            let _ = self.socket.send(self.local, self.server, &data.build());
        }
    }

    fn flush(&mut self, now: Moment) {
        while let Some(transmit) = self.client.poll_transmit(stun_time(now.boot)) {
            let _ = self.socket.send(self.local, self.server, transmit.data.as_ref());
        }
    }

    /// Timers and events; what the connection must know.
    fn drive(&mut self, now: Moment) -> Option<RelayEvent> {
        let mut told = None;
        self.next = now.instant + Duration::from_secs(60);
        match self.client.poll(stun_time(now.boot)) {
            TurnPollRet::WaitUntil(at) => {
                let wait = at.saturating_duration_since(stun_time(now.boot));
                self.next = now.instant + wait.clamp(Duration::from_millis(2), Duration::from_secs(60));
            }
            TurnPollRet::Closed if !self.told => {
                self.told = true;
                told = Some(RelayEvent::Failed);
            }
            _ => {}
        }
        self.flush(now);
        while let Some(event) = self.client.poll_event() {
            match event {
                TurnEvent::AllocationCreated(TransportType::Udp, relayed) if !self.told => {
                    self.told = true;
                    self.relayed = Some(relayed);
                    told = Some(RelayEvent::Allocated { relayed, local: self.local });
                }
                TurnEvent::AllocationCreateFailed(_) if !self.told => {
                    self.told = true;
                    told = Some(RelayEvent::Failed);
                }
                TurnEvent::PermissionCreated(_, ip) => {
                    let (ready, waiting) = self.waiting.drain(..).partition(|(peer, _)| peer.ip() == ip);
                    self.waiting = waiting;
                    let ready: VecDeque<(SocketAddr, Vec<u8>)> = ready;
                    for (peer, bytes) in ready {
                        self.send_permitted(peer, &bytes, now);
                    }
                }
                _ => {}
            }
        }
        self.flush(now);
        told
    }

    fn receive(&mut self, batch: &mut Batch, now: Moment, out: &mut Vec<Relayed>) {
        while batch.receive(&self.socket) > 0 {
            for (datagram, _) in batch.iter().filter(|(datagram, _)| datagram.source == self.server) {
                let transmit = Transmit::new(datagram.bytes, TransportType::Udp, datagram.source, self.local);
                if let TurnRecvRet::PeerData(data) = self.client.recv(transmit, stun_time(now.boot))
                    && let Some(relayed) = self.relayed
                {
                    out.push(Relayed {
                        id: self.id,
                        bytes: data.data().to_vec(),
                        peer: data.peer,
                        relayed,
                        arrival: datagram.arrival,
                        instant: datagram.instant,
                    });
                }
            }
        }
        self.next = now.instant;
    }
}

/// All relays of the media loop, by their epoll token.
#[derive(Debug, Default)]
pub struct Relays {
    relays: HashMap<u64, Relay>,
    by_address: HashMap<SocketAddr, u64>,
    next_token: u64,
}

/// First epoll token of a relay; smaller ones are the main sockets.
pub const FIRST_TOKEN: u64 = 1 << 32;

impl Relays {
    /// Begins an allocation; `watch` gets the socket and its token.
    ///
    /// # Errors
    /// No socket can be opened towards the server.
    pub fn open(
        &mut self,
        id: ConnectionId,
        target: &Target,
        now: Moment,
        watch: impl FnOnce(&Socket, u64) -> std::io::Result<()>,
    ) -> std::io::Result<()> {
        let relay = Relay::new(id, target, now)?;
        let token = FIRST_TOKEN + self.next_token;
        self.next_token += 1;
        watch(&relay.socket, token)?;
        self.relays.insert(token, relay);
        Ok(())
    }

    /// Sends through the relay that owns `source`; false if none does.
    pub fn send(&mut self, source: SocketAddr, peer: SocketAddr, bytes: &[u8], now: Moment) -> bool {
        let Some(relay) = self.by_address.get(&source).and_then(|token| self.relays.get_mut(token)) else {
            return false;
        };
        relay.send(peer, bytes, now);
        true
    }

    pub fn receive(&mut self, token: u64, batch: &mut Batch, now: Moment) -> Vec<Relayed> {
        let mut out = Vec::new();
        if let Some(relay) = self.relays.get_mut(&token) {
            relay.receive(batch, now, &mut out);
        }
        out
    }

    /// Runs what is due.
    pub fn drive(&mut self, now: Moment) -> Vec<(ConnectionId, RelayEvent)> {
        let mut events = Vec::new();
        for (token, relay) in self.relays.iter_mut().filter(|(_, relay)| relay.next <= now.instant) {
            if let Some(event) = relay.drive(now) {
                if let RelayEvent::Allocated { relayed, .. } = event {
                    self.by_address.insert(relayed, *token);
                }
                events.push((relay.id, event));
            }
        }
        events
    }

    pub fn next(&self) -> Option<Instant> {
        self.relays.values().map(|relay| relay.next).min()
    }

    /// Gives the connection's allocations back.
    pub fn close(&mut self, id: ConnectionId, now: Moment) {
        self.by_address.retain(|_, token| self.relays.get(token).is_some_and(|relay| relay.id != id));
        self.relays.retain(|_, relay| {
            if relay.id == id && relay.client.delete(stun_time(now.boot)).is_ok() {
                relay.flush(now);
            }
            relay.id != id
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_udp_uris_without_tls_are_used() {
        let host = |host: &str, port| Some((host.to_owned(), port));
        assert_eq!(udp_host("turn:turn.example.org"), host("turn.example.org", 3478));
        assert_eq!(udp_host("turn:turn.example.org:80?transport=udp"), host("turn.example.org", 80));
        assert_eq!(udp_host("turn:[2001:db8::1]:99?transport=UDP"), host("2001:db8::1", 99));
        for other in [
            "turns:turn.example.org",
            "turn:a?transport=tcp",
            "turn:",
            "turn:a:x",
            "stun:a",
            "turn:[::1",
            "",
            "turn:a:99999",
        ] {
            assert_eq!(udp_host(other), None, "{other}");
        }
    }
}
