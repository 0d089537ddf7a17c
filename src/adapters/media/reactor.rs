//! The media loop: one thread that owns the sockets and every connection.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_queue::ArrayQueue;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::EventFd;
use recorder_actors::ports::{MediaError, RemoteCandidate};
use recorder_actors::testing::{Point, ask, is_armed, visit};
use recorder_core::ids::{ConnectionId, StreamId};
use tokio::sync::oneshot;

use super::connection::Connection;
use super::net::{Net, moment};
use super::offer::Offer;
use super::shared::Shared;
use super::socket::{BATCH, Batch, Datagram, Socket};
use super::turn::{FIRST_TOKEN, GATHER_FOR, RelayEvent, Target};
use crate::adapters::clock::boot_time;

/// Commands that may wait for the loop.
pub const COMMANDS: usize = 4096;
/// The loop goes round at most this often while all connections are established: kernel stamps keep arrivals exact,
/// and a wake-up costs as much as some packets do.
const MIN_TURN: Duration = Duration::from_millis(5);
/// The same while a connection is being established: handshakes are a dozen datagrams that wait for each other.
const EAGER_TURN: Duration = Duration::from_millis(2);
/// The loop wakes at least this often, so that its heartbeat can be trusted.
const MAX_WAIT: Duration = Duration::from_millis(250);
/// Lists of candidates kept for connections that are not open yet; the oldest is dropped first.
const EARLY_CANDIDATES: usize = 64;
/// Batches taken from one socket before timers and commands get their turn.
const BATCHES_PER_TURN: usize = 32;

/// What the handle asks of the loop.
pub enum Command {
    /// Takes a connection over; the reply lists the relayed candidates that could be had in time.
    Open {
        connection: Box<Connection>,
        relays: Vec<Target>,
        reply: oneshot::Sender<Vec<String>>,
    },
    Renegotiate {
        id: ConnectionId,
        offer: Box<Offer>,
        reply: oneshot::Sender<Result<String, MediaError>>,
    },
    /// The answer to our own offer.
    Answered {
        id: ConnectionId,
        answer: Box<Offer>,
        reply: oneshot::Sender<Result<(), MediaError>>,
    },
    Candidates {
        id: ConnectionId,
        candidates: Vec<RemoteCandidate>,
    },
    KeyFrame {
        id: ConnectionId,
        stream: StreamId,
    },
}

/// The way into the loop from any thread.
pub struct Inlet {
    pub commands: ArrayQueue<Command>,
    pub wake: EventFd,
    /// Connections to close: never refused, one entry each, emptied at every turn.
    closing: Mutex<BTreeSet<ConnectionId>>,
    has_closing: AtomicBool,
    pub stop: AtomicBool,
    /// Nanoseconds of the boot clock at the last turn.
    pub heartbeat: AtomicU64,
}

impl Inlet {
    /// # Errors
    /// The kernel grants no event counter.
    pub fn new() -> std::io::Result<Self> {
        use nix::sys::eventfd::EfdFlags;
        let wake = EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?;
        let heartbeat = AtomicU64::new(boot_time().as_nanos());
        Ok(Self {
            commands: ArrayQueue::new(COMMANDS),
            wake,
            closing: Mutex::default(),
            has_closing: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            heartbeat,
        })
    }

    /// Hands a command over; gives it back when the queue is full.
    pub fn push(&self, command: Command) -> Result<(), Command> {
        let pushed = self.commands.push(command);
        self.rouse();
        pushed
    }

    /// Asks for the end of a connection.
    pub fn close(&self, id: ConnectionId) {
        self.closing.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
        self.has_closing.store(true, Ordering::Release);
        self.rouse();
    }

    fn take_closing(&self) -> BTreeSet<ConnectionId> {
        if !self.has_closing.swap(false, Ordering::AcqRel) {
            return BTreeSet::new();
        }
        std::mem::take(&mut *self.closing.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn rouse(&self) {
        // A full counter means that the loop is being woken anyway.
        let _ = self.wake.write(1);
    }
}

const WAKE_TOKEN: u64 = u64::MAX;

/// The loop's own state.
pub struct Reactor {
    shared: Arc<Shared>,
    inlet: Arc<Inlet>,
    epoll: Epoll,
    connections: HashMap<ConnectionId, Connection>,
    timers: BinaryHeap<Reverse<(Instant, ConnectionId)>>,
    scheduled: HashMap<ConnectionId, Instant>,
    kernel_drops: Vec<u32>,
    gathering: HashMap<ConnectionId, Gathering>,
    early_candidates: VecDeque<(ConnectionId, Vec<RemoteCandidate>)>,
    net: Net,
}

/// An answer that waits for relayed addresses.
struct Gathering {
    reply: oneshot::Sender<Vec<String>>,
    candidates: Vec<String>,
    left: usize,
    deadline: Instant,
}

impl Reactor {
    /// # Errors
    /// The kernel grants no epoll instance.
    pub fn new(shared: Arc<Shared>, inlet: Arc<Inlet>, sockets: Vec<Socket>) -> std::io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(&inlet.wake, EpollEvent::new(EpollFlags::EPOLLIN, WAKE_TOKEN))?;
        for (index, socket) in sockets.iter().enumerate() {
            epoll.add(socket, EpollEvent::new(EpollFlags::EPOLLIN, index as u64))?;
        }
        Ok(Self {
            kernel_drops: vec![0; sockets.len()],
            net: Net::new(shared.clone(), sockets),
            shared,
            inlet,
            epoll,
            connections: HashMap::new(),
            timers: BinaryHeap::new(),
            scheduled: HashMap::new(),
            gathering: HashMap::new(),
            early_candidates: VecDeque::new(),
        })
    }

    #[cfg(any(test, feature = "fault-injection"))]
    pub fn set_shim(&mut self, shim: Box<dyn super::shim::Shim>) {
        self.net.shim = Some(shim);
    }

    /// Goes round until told to stop; then every connection says goodbye.
    pub fn run(mut self) {
        let mut batch = Batch::new();
        let mut events = [EpollEvent::empty(); 16];
        let mut last_turn = Instant::now();
        while !self.inlet.stop.load(Ordering::Acquire) {
            // Rest first and wait then: what came meanwhile needs no second wake-up.
            let turn = if self.is_settled() { MIN_TURN } else { EAGER_TURN };
            if let Some(early) = turn.checked_sub(last_turn.elapsed()) {
                std::thread::sleep(early);
            }
            let wait = self.next_wake().saturating_duration_since(Instant::now()).min(MAX_WAIT);
            let millis = u16::try_from(wait.as_micros().div_ceil(1000)).unwrap_or(u16::MAX);
            // An interrupted wait is a turn like any other.
            let ready = self.epoll.wait(&mut events, EpollTimeout::from(millis)).unwrap_or(0);
            last_turn = Instant::now();
            self.inlet.heartbeat.store(boot_time().as_nanos(), Ordering::Release);
            self.shared.view.counts.media_turns.fetch_add(1, Ordering::Relaxed);
            if is_armed(Point::MediaLoop) {
                visit(Point::MediaLoop, &format!("media:{}", self.net.sockets[0].local().port()));
            }
            self.receive_all(&mut batch);
            for event in &events[..ready] {
                if (FIRST_TOKEN..WAKE_TOKEN).contains(&event.data()) {
                    self.receive_relayed(event.data(), &mut batch);
                }
            }
            self.commands();
            self.drive_relays();
            self.run_timers();
            #[cfg(any(test, feature = "fault-injection"))]
            self.release_delayed();
        }
        let ids: Vec<ConnectionId> = self.connections.keys().copied().collect();
        for id in ids {
            self.with(id, |connection, net| connection.close(moment(), net));
        }
    }

    /// Nobody waits for a handshake.
    fn is_settled(&self) -> bool {
        self.gathering.is_empty() && self.connections.values().all(Connection::is_established)
    }

    fn next_wake(&self) -> Instant {
        let timer = self.timers.peek().map(|Reverse((at, _))| *at);
        #[cfg(any(test, feature = "fault-injection"))]
        let timer = timer.into_iter().chain(self.net.delays.next()).min();
        let gathering = self.gathering.values().map(|gathering| gathering.deadline).min();
        let next = timer.into_iter().chain(self.net.relays.next()).chain(gathering).min();
        next.unwrap_or_else(|| Instant::now() + MAX_WAIT)
    }

    fn receive_all(&mut self, batch: &mut Batch) {
        for index in 0..self.net.sockets.len() {
            for _ in 0..BATCHES_PER_TURN {
                let received = batch.receive(&self.net.sockets[index]);
                self.shared.view.counts.datagrams.fetch_add(received as u64, Ordering::Relaxed);
                for (datagram, dropped) in batch.iter() {
                    if let Some(count) = dropped {
                        let new = count.wrapping_sub(std::mem::replace(&mut self.kernel_drops[index], count));
                        self.shared.view.kernel_dropped(new.into(), datagram.arrival);
                    }
                    self.enter(&datagram);
                }
                if received < BATCH {
                    break;
                }
            }
        }
    }

    fn receive_relayed(&mut self, token: u64, batch: &mut Batch) {
        for relayed in self.net.relays.receive(token, batch, moment()) {
            self.with(relayed.id, |connection, net| connection.receive(&relayed.datagram(), net));
        }
    }

    fn drive_relays(&mut self) {
        let now = moment();
        for (id, event) in self.net.relays.drive(now) {
            let mut candidate = None;
            if let RelayEvent::Allocated { relayed, local } = event {
                self.shared.view.counts.relays.fetch_add(1, Ordering::Relaxed);
                self.with(id, |connection, net| {
                    candidate = connection.add_relay(relayed, local);
                    connection.timeout(now, net);
                });
            } else {
                tracing::warn!(connection = %id, "a turn server gave no relayed address");
            }
            if let Some(gathering) = self.gathering.get_mut(&id) {
                gathering.candidates.extend(candidate);
                gathering.left = gathering.left.saturating_sub(1);
            }
        }
        let done = |gathering: &Gathering| gathering.left == 0 || gathering.deadline <= now.instant;
        let ids: Vec<ConnectionId> =
            self.gathering.iter().filter(|(_, gathering)| done(gathering)).map(|(id, _)| *id).collect();
        for id in ids {
            if let Some(gathering) = self.gathering.remove(&id) {
                self.opened(id, gathering.reply, gathering.candidates);
            }
        }
    }

    /// Tells that a connection is ours. Nobody listening means that nobody would ever close it.
    fn opened(&mut self, id: ConnectionId, reply: oneshot::Sender<Vec<String>>, candidates: Vec<String>) {
        if reply.send(candidates).is_err() {
            self.with(id, |connection, net| connection.close(moment(), net));
        }
    }

    fn open(&mut self, mut connection: Connection, relays: &[Target], reply: oneshot::Sender<Vec<String>>) {
        let id = connection.id();
        if self.connections.contains_key(&id) {
            // The reply is dropped, which the caller sees; the connection it has goes on.
            tracing::error!(connection = %id, "a connection id is used twice");
            self.shared.view.connections.fetch_sub(1, Ordering::AcqRel);
            return;
        }
        self.net.demux.add_fragment(id, &connection.local_fragment());
        self.connections.insert(id, connection);
        let (early, others) =
            std::mem::take(&mut self.early_candidates).into_iter().partition(|(of, _)| *of == id);
        self.early_candidates = others;
        let early: VecDeque<(ConnectionId, Vec<RemoteCandidate>)> = early;
        for (_, candidates) in early {
            self.add_candidates(id, &candidates);
        }
        self.with(id, |connection, net| connection.timeout(moment(), net));
        let epoll = &self.epoll;
        let mut left = 0;
        for target in relays {
            let watch = |socket: &Socket, token: u64| {
                Ok(epoll.add(socket, EpollEvent::new(EpollFlags::EPOLLIN, token))?)
            };
            match self.net.relays.open(id, target, moment(), watch) {
                Ok(()) => left += 1,
                Err(error) => tracing::warn!(connection = %id, ?target, %error, "turn server out of reach"),
            }
        }
        if left == 0 {
            self.opened(id, reply, Vec::new());
        } else {
            let deadline = Instant::now() + GATHER_FOR;
            self.gathering.insert(id, Gathering { reply, candidates: Vec::new(), left, deadline });
        }
    }

    fn enter(&mut self, datagram: &Datagram<'_>) {
        if is_armed(Point::Datagram) && ask(Point::Datagram, &datagram.source.to_string()).is_err() {
            return;
        }
        #[cfg(any(test, feature = "fault-injection"))]
        if let Some(shim) = &mut self.net.shim {
            use super::shim::Fault;
            match shim.received(datagram.source, datagram.bytes) {
                Fault::Pass => {}
                Fault::Drop => return,
                Fault::Duplicate => self.dispatch(datagram),
                Fault::Panic => {
                    let id = self.net.demux.route(datagram.source, datagram.bytes);
                    return id.map_or((), |id| {
                        self.with(id, |_, _| std::panic::resume_unwind(Box::new("injected")))
                    });
                }
                Fault::Delay(by) => {
                    let due = Instant::now() + by;
                    self.net.delays.push(due, true, datagram.destination, datagram.source, datagram.bytes);
                    return;
                }
            }
        }
        self.dispatch(datagram);
    }

    fn dispatch(&mut self, datagram: &Datagram<'_>) {
        match self.net.demux.route(datagram.source, datagram.bytes) {
            Some(id) => self.with(id, |connection, net| connection.receive(datagram, net)),
            None => {
                self.shared.view.counts.stray_datagrams.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    #[cfg(any(test, feature = "fault-injection"))]
    fn release_delayed(&mut self) {
        let now = moment();
        while let Some(delayed) = self.net.delays.pop_due(now.instant) {
            if delayed.incoming {
                self.dispatch(&Datagram {
                    bytes: &delayed.bytes,
                    source: delayed.remote,
                    destination: delayed.local,
                    arrival: now.boot,
                    instant: now.instant,
                });
            } else {
                self.net.transmit(delayed.local, delayed.remote, &delayed.bytes);
            }
        }
    }

    fn commands(&mut self) {
        // Read the counter first: a command pushed from here on wakes the next turn.
        let _ = self.inlet.wake.read();
        for _ in 0..COMMANDS {
            let Some(command) = self.inlet.commands.pop() else { break };
            self.command(command);
        }
        // After the commands, so that a close asked for after an open finds its connection.
        for id in self.inlet.take_closing() {
            self.with(id, |connection, net| connection.close(moment(), net));
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Open { connection, relays, reply } => self.open(*connection, &relays, reply),
            Command::Renegotiate { id, offer, reply } => {
                let mut result = Err(MediaError::Gone);
                self.with(id, |connection, net| {
                    result = connection.renegotiate(*offer, moment(), net);
                    net.demux.add_fragment(id, &connection.local_fragment());
                });
                let _ = reply.send(result);
            }
            Command::Answered { id, answer, reply } => {
                let mut result = Err(MediaError::Gone);
                self.with(id, |connection, net| result = connection.answered(*answer, moment(), net));
                let _ = reply.send(result);
            }
            Command::Candidates { id, candidates } if self.connections.contains_key(&id) => {
                self.add_candidates(id, &candidates);
            }
            Command::Candidates { id, candidates } => {
                // They may overtake the offer that is still being answered.
                if self.early_candidates.len() >= EARLY_CANDIDATES {
                    self.early_candidates.pop_front();
                    self.shared.view.counts.commands_dropped.fetch_add(1, Ordering::Relaxed);
                }
                self.early_candidates.push_back((id, candidates));
            }
            Command::KeyFrame { id, stream } => {
                self.with(id, |connection, net| connection.request_key_frame(stream, moment(), net));
            }
        }
    }

    fn add_candidates(&mut self, id: ConnectionId, candidates: &[RemoteCandidate]) {
        self.with(id, |connection, net| {
            for candidate in candidates {
                connection.add_trickled(candidate);
            }
            connection.timeout(moment(), net);
        });
    }

    fn run_timers(&mut self) {
        let now = moment();
        while let Some(&Reverse((at, id))) = self.timers.peek() {
            if at > now.instant {
                return;
            }
            self.timers.pop();
            if self.scheduled.get(&id) != Some(&at) {
                continue;
            }
            self.scheduled.remove(&id);
            self.with(id, |connection, net| {
                if connection.next_timeout() <= now.instant {
                    connection.timeout(now, net);
                }
            });
        }
    }

    /// Does something with one connection; a panic in it ends that connection alone.
    fn with(&mut self, id: ConnectionId, action: impl FnOnce(&mut Connection, &mut Net)) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let net = &mut self.net;
        let guarded = || {
            if is_armed(Point::Connection) {
                visit(Point::Connection, &id.to_string());
            }
            action(connection, net);
        };
        if catch_unwind(AssertUnwindSafe(guarded)).is_err() {
            self.shared.view.counts.connection_panics.fetch_add(1, Ordering::Relaxed);
            tracing::error!(connection = %id, "a connection panicked and is closed");
            connection.fail("a defect of the recorder ended this connection");
        }
        if connection.is_over() {
            self.net.demux.forget(id);
            self.net.relays.close(id, moment());
            self.gathering.remove(&id);
            self.scheduled.remove(&id);
            self.connections.remove(&id);
            self.shared.view.connections.fetch_sub(1, Ordering::AcqRel);
            return;
        }
        let due = connection.next_timeout();
        if self.scheduled.get(&id).is_none_or(|scheduled| due < *scheduled) {
            self.scheduled.insert(id, due);
            self.timers.push(Reverse((due, id)));
        }
    }
}
