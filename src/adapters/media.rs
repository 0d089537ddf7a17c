//! The media plane: one thread, one UDP port, one str0m `Rtc` for each connection.
//!
//! Packets go kernel → [`socket`] → [`demux`] → [`connection`] (decryption, feedback) → [`intake`] (which stream, what became
//! of it) → the stream's ring. Nothing on that path waits for anybody: rings drop and count when nobody reads them.

pub mod answer;
pub mod candidates;
pub mod connection;
pub mod continuity;
pub mod demux;
pub mod dial;
pub mod facts;
pub mod intake;
pub mod ledger;
pub mod net;
pub mod offer;
pub mod picture;
pub mod reactor;
pub mod renegotiation;
pub mod shared;
#[cfg(any(test, feature = "fault-injection"))]
pub mod shim;
pub mod socket;
#[cfg(test)]
mod tests;
pub mod tile;
pub mod trickle;
pub mod turn;
pub mod waiting;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use futures_util::future::BoxFuture;
use recorder_actors::observe::{MediaCounts, MediaView};
use recorder_actors::ports::{Answer, Connected, MediaError, MediaPlane, RemoteCandidate, Tile, TurnServer};
use recorder_core::ids::{ConnectionId, Mid, StreamId};
use recorder_core::time::BootTime;
use tokio::sync::oneshot;

use connection::Connection;
use net::moment;
use reactor::{Command, Inlet, Reactor};
pub use shared::MediaSettings;
use shared::Shared;
use socket::Socket;

/// Candidates of one command that are looked at; the rest cannot be taken by the connection anyway.
const CANDIDATES_PER_COMMAND: usize = connection::MAX_REMOTE_CANDIDATES as usize + 1;

/// Why the media plane could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("UDP {address} cannot be opened: {source}")]
    Bind { address: SocketAddr, source: io::Error },
    #[error("the media thread cannot be started: {0}")]
    Thread(io::Error),
}

/// Handle to the media loop. Cheap to clone; the loop ends with [`MediaLoop::shutdown`].
#[derive(Clone)]
pub struct MediaLoop {
    shared: Arc<Shared>,
    inlet: Arc<Inlet>,
    thread: Arc<Mutex<Option<JoinHandle<()>>>>,
}

impl std::fmt::Debug for MediaLoop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MediaLoop").field("bound", &self.shared.bound).finish_non_exhaustive()
    }
}

impl MediaLoop {
    /// Opens the port and starts the thread.
    ///
    /// # Errors
    /// [`StartError`], for instance when the port is taken.
    pub fn start(settings: MediaSettings) -> Result<Self, StartError> {
        Self::start_with(settings, |_| {})
    }

    /// As [`MediaLoop::start`], with network faults.
    ///
    /// # Errors
    /// As [`MediaLoop::start`].
    #[cfg(any(test, feature = "fault-injection"))]
    pub fn start_with_shim(settings: MediaSettings, shim: Box<dyn shim::Shim>) -> Result<Self, StartError> {
        Self::start_with(settings, |reactor| reactor.set_shim(shim))
    }

    fn start_with(settings: MediaSettings, prepare: impl FnOnce(&mut Reactor)) -> Result<Self, StartError> {
        let mut sockets = Vec::new();
        let first =
            if settings.bind.is_unspecified() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { settings.bind };
        let bind = |ip: IpAddr, port: u16| {
            let address = SocketAddr::new(ip, port);
            Socket::bind(address).map_err(|source| StartError::Bind { address, source })
        };
        sockets.push(bind(first, settings.udp_port)?);
        if settings.bind.is_unspecified() && settings.bind.is_ipv6() {
            let port = sockets[0].local().port();
            match bind(settings.bind, port) {
                Ok(socket) => sockets.push(socket),
                Err(error) => tracing::warn!(%error, "going on without IPv6"),
            }
        }
        let bound: Vec<SocketAddr> = sockets.iter().map(Socket::local).collect();
        let receive_buffer = sockets[0].receive_buffer();
        if receive_buffer < socket::RECEIVE_BUFFER {
            tracing::warn!(
                granted = receive_buffer,
                wanted = socket::RECEIVE_BUFFER,
                "the kernel grants a small UDP receive buffer, raise net.core.rmem_max"
            );
        }
        tracing::info!(?bound, receive_buffer, "media port open");
        let shared = Arc::new(Shared::new(settings, bound));
        let inlet = Arc::new(Inlet::new().map_err(StartError::Thread)?);
        let mut reactor = Reactor::new(shared.clone(), inlet.clone(), sockets).map_err(StartError::Thread)?;
        prepare(&mut reactor);
        let thread = std::thread::Builder::new().name("media".to_owned()).spawn(move || reactor.run());
        let thread = Arc::new(Mutex::new(Some(thread.map_err(StartError::Thread)?)));
        Ok(Self { shared, inlet, thread })
    }

    /// Addresses the sockets are bound to; the port is the one to open in a firewall.
    pub fn bound(&self) -> &[SocketAddr] {
        &self.shared.bound
    }

    pub fn stats(&self) -> &MediaCounts {
        &self.shared.view.counts
    }

    /// What the board shows of this media plane.
    pub fn view(&self) -> Arc<MediaView> {
        Arc::clone(&self.shared.view)
    }

    /// Connections that are open now.
    pub fn connections(&self) -> usize {
        self.shared.view.connections.load(Ordering::Acquire)
    }

    /// Closes every connection and waits for the thread. Blocks for one turn of the loop; call it off the runtime.
    pub fn shutdown(&self) {
        self.inlet.stop.store(true, Ordering::Release);
        self.inlet.rouse();
        let thread =
            self.thread.lock().map_or_else(|poisoned| poisoned.into_inner().take(), |mut held| held.take());
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the media thread ended in a panic");
        }
    }

    fn push(&self, command: Command) -> Result<(), MediaError> {
        if self.inlet.stop.load(Ordering::Acquire) {
            return Err(MediaError::Stopped);
        }
        self.inlet.push(command).map_err(|_| {
            self.shared.view.counts.commands_dropped.fetch_add(1, Ordering::Relaxed);
            MediaError::Stopped
        })
    }

    fn make(
        &self,
        id: ConnectionId,
        offer: &str,
        tile: Option<Tile>,
    ) -> Result<connection::Made, MediaError> {
        let read = offer::read(offer)?;
        let local = self.shared.local_candidates();
        Connection::make(id, read, tile, local, self.shared.clone(), moment())
    }

    async fn open(
        self,
        turn: Vec<TurnServer>,
        make: impl FnOnce(&Self) -> Result<connection::Made, MediaError>,
    ) -> Result<Connected, MediaError> {
        let limit = self.shared.settings.max_connections;
        let slot = Slot::take(&self.shared, limit).ok_or(MediaError::Full(limit))?;
        let made = guarded(|| make(&self))?;
        let relays = turn::resolve(&turn).await;
        let (reply, replied) = oneshot::channel();
        let connection = Box::new(made.connection);
        self.push(Command::Open { connection, relays, reply })?;
        slot.keep();
        let relays = replied.await.map_err(|_| MediaError::Stopped)?;
        let mut candidates = made.candidates;
        candidates.extend(relays);
        let written = answer::write(&made.stack_answer, &made.offer, &candidates, self.shared.quality)?;
        Ok((Answer { sdp: written.sdp }, made.facts))
    }
}

/// A place among the connections; given back unless the loop has taken the connection over.
struct Slot<'a> {
    shared: &'a Shared,
    kept: bool,
}

impl<'a> Slot<'a> {
    fn take(shared: &'a Shared, limit: usize) -> Option<Self> {
        let counter = &shared.view.connections;
        let more = |open: usize| (open < limit).then_some(open + 1);
        counter.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).ok()?;
        Some(Self { shared, kept: false })
    }

    fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        if !self.kept {
            self.shared.view.connections.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

/// Remote text goes through parsers that are not ours: a panic in them is a bad offer, not our end.
fn guarded<T>(work: impl FnOnce() -> Result<T, MediaError>) -> Result<T, MediaError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        Err(MediaError::BadOffer("it makes the session description parser panic".to_owned()))
    })
}

impl MediaPlane for MediaLoop {
    fn accept(
        &self,
        id: ConnectionId,
        offer: String,
        turn: Vec<TurnServer>,
        tile: Option<Tile>,
    ) -> BoxFuture<'static, Result<Connected, MediaError>> {
        Box::pin(self.clone().open(turn, move |plane| plane.make(id, &offer, tile)))
    }

    fn dial(
        &self,
        id: ConnectionId,
        turn: Vec<TurnServer>,
        tile: Tile,
        screen: bool,
    ) -> BoxFuture<'static, Result<Connected, MediaError>> {
        Box::pin(self.clone().open(turn, move |plane| {
            let local = plane.shared.local_candidates();
            Connection::dial(id, tile, screen, local, plane.shared.clone(), moment())
        }))
    }

    fn answered(&self, id: ConnectionId, answer: String) -> BoxFuture<'static, Result<(), MediaError>> {
        let handle = self.clone();
        Box::pin(async move {
            let answer = Box::new(guarded(|| offer::read_answer(&answer))?);
            let (reply, replied) = oneshot::channel();
            handle.push(Command::Answered { id, answer, reply })?;
            replied.await.map_err(|_| MediaError::Stopped)?
        })
    }

    fn renegotiate(&self, id: ConnectionId, offer: String) -> BoxFuture<'static, Result<Answer, MediaError>> {
        let handle = self.clone();
        Box::pin(async move {
            let offer = Box::new(guarded(|| offer::read(&offer))?);
            let (reply, replied) = oneshot::channel();
            handle.push(Command::Renegotiate { id, offer, reply })?;
            let sdp = replied.await.map_err(|_| MediaError::Stopped)??;
            Ok(Answer { sdp })
        })
    }

    fn add_candidates(&self, id: ConnectionId, mut candidates: Vec<RemoteCandidate>) {
        candidates.truncate(CANDIDATES_PER_COMMAND);
        // A lost command is counted; the peer's own checks make up for lost candidates.
        let _ = self.push(Command::Candidates { id, candidates });
    }

    fn request_key_frame(&self, id: ConnectionId, _mid: Mid, stream: StreamId) {
        let _ = self.push(Command::KeyFrame { id, stream });
    }

    fn close(&self, id: ConnectionId) {
        self.inlet.close(id);
    }

    fn heartbeat(&self) -> BootTime {
        BootTime::from_nanos(self.inlet.heartbeat.load(Ordering::Acquire))
    }
}
