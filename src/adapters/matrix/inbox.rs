//! The order in which room events reach the calls: per sender as sent, each once, late keys waited for a while.
//!
//! Pure: time is an argument, decryption happens elsewhere. An event that cannot be decrypted yet is a *placeholder*
//! that holds back later call events of the same sender in the same room, so that a hang-up never overtakes the invite it
//! ends. Other senders and other events are not held. Everything here is bounded by [`Limits`]; when a bound is reached, the oldest
//! placeholder gives way (it is forgotten, what it held back is released).

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use recorder_core::time::BootTime;

/// Bounds of the inbox.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How old an event may be before nobody wants it, and so how long a placeholder waits: a call's lifetime.
    pub lifetime: Duration,
    /// Open placeholders of one sender in one room.
    pub open_per_sender: usize,
    /// Open placeholders of all.
    pub open: usize,
    /// Bytes of events held, placeholders included.
    pub held_bytes: usize,
    /// Event ids remembered against repeats.
    pub remembered: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            lifetime: Duration::from_secs(90),
            open_per_sender: 32,
            open: 1024,
            held_bytes: 16 << 20,
            remembered: 16_384,
        }
    }
}

/// Where an event belongs: its order is kept within one sender in one room.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Lane {
    pub room: String,
    pub sender: String,
}

/// What became of a pushed event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It is in the outbox now.
    Released,
    /// It waits behind an earlier event of its sender.
    Held,
    /// It is a placeholder and waits for its key.
    Waiting,
    /// Seen before.
    Repeated,
    /// Undecryptable and already older than a call lives.
    TooOld,
}

enum Body<T, U> {
    Ready(T),
    Open { sealed: U, deadline: BootTime },
}

struct Entry<T, U> {
    id: String,
    bytes: usize,
    body: Body<T, U>,
}

/// `T` is an event that can be read, `U` one that cannot be yet (kept so that decryption can be tried again).
pub struct Inbox<T, U> {
    limits: Limits,
    lanes: HashMap<Lane, VecDeque<Entry<T, U>>>,
    /// Open placeholders: id → lane.
    open: HashMap<String, Lane>,
    /// Open placeholders in order of arrival; entries whose id is no longer open are skipped.
    opened: VecDeque<String>,
    held_bytes: usize,
    seen: HashSet<String>,
    seen_order: VecDeque<String>,
    outbox: VecDeque<T>,
    given_up: u64,
}

impl<T, U> Inbox<T, U> {
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            lanes: HashMap::new(),
            open: HashMap::new(),
            opened: VecDeque::new(),
            held_bytes: 0,
            seen: HashSet::new(),
            seen_order: VecDeque::new(),
            outbox: VecDeque::new(),
            given_up: 0,
        }
    }

    /// Marks an event as handled in an earlier life, so that it is not delivered again.
    pub fn remember(&mut self, id: &str) -> bool {
        if !self.seen.insert(id.to_owned()) {
            return false;
        }
        self.seen_order.push_back(id.to_owned());
        if self.seen_order.len() > self.limits.remembered
            && let Some(oldest) = self.seen_order.pop_front()
        {
            self.seen.remove(&oldest);
        }
        true
    }

    pub fn knows(&self, id: &str) -> bool {
        self.seen.contains(id)
    }

    /// A readable event, `bytes` long.
    pub fn push(&mut self, lane: &Lane, id: &str, bytes: usize, event: T) -> Taken {
        if !self.remember(id) {
            return Taken::Repeated;
        }
        let Some(queue) = self.lanes.get_mut(lane) else {
            self.outbox.push_back(event);
            return Taken::Released;
        };
        queue.push_back(Entry { id: id.to_owned(), bytes, body: Body::Ready(event) });
        self.held_bytes += bytes;
        self.give_way(lane);
        Taken::Held
    }

    /// An event whose place among its sender's others is of no matter: it waits for none of them.
    pub fn push_past(&mut self, id: &str, event: T) -> Taken {
        if !self.remember(id) {
            return Taken::Repeated;
        }
        self.release(event);
        Taken::Released
    }

    /// An event that is told whether it was seen before or not.
    pub fn release(&mut self, event: T) {
        self.outbox.push_back(event);
    }

    /// An event whose key is not here, `bytes` long, sent `age` ago.
    pub fn push_sealed(
        &mut self,
        now: BootTime,
        lane: &Lane,
        id: &str,
        bytes: usize,
        age: Duration,
        sealed: U,
    ) -> Taken {
        if !self.remember(id) {
            return Taken::Repeated;
        }
        let Some(left) = self.limits.lifetime.checked_sub(age).filter(|left| !left.is_zero()) else {
            return Taken::TooOld;
        };
        let body = Body::Open { sealed, deadline: now + left };
        self.lanes.entry(lane.clone()).or_default().push_back(Entry { id: id.to_owned(), bytes, body });
        self.held_bytes += bytes;
        self.open.insert(id.to_owned(), lane.clone());
        self.opened.push_back(id.to_owned());
        self.give_way(lane);
        Taken::Waiting
    }

    /// The placeholder `id` can be read now; `None` if it turned out to be of no interest.
    pub fn fill(&mut self, id: &str, event: Option<T>) {
        let Some(lane) = self.open.remove(id) else { return };
        if let Some(entry) = self.entry_mut(&lane, id) {
            match event {
                Some(event) => entry.body = Body::Ready(event),
                None => drop(self.remove_entry(&lane, id)),
            }
        }
        self.settle(&lane);
        self.tidy();
    }

    /// The same for an event whose place among its sender's others is of no matter: it waits for none of them.
    pub fn fill_past(&mut self, id: &str, event: T) {
        if self.open.contains_key(id) {
            self.release(event);
            self.fill(id, None);
        }
    }

    /// Gives up the placeholders whose time is over, and returns them.
    pub fn expire(&mut self, now: BootTime) -> Vec<(Lane, String, U)> {
        let over: Vec<String> = self
            .lanes
            .values()
            .flatten()
            .filter(|entry| matches!(entry.body, Body::Open { deadline, .. } if deadline <= now))
            .map(|entry| entry.id.clone())
            .collect();
        let given_up = over.into_iter().filter_map(|id| {
            let (lane, sealed) = self.give_up(&id)?;
            Some((lane, id, sealed))
        });
        let given_up = given_up.collect();
        self.tidy();
        given_up
    }

    /// Everything that may be delivered, in order.
    pub fn drain(&mut self) -> impl Iterator<Item = T> + '_ {
        self.outbox.drain(..)
    }

    /// When the next placeholder's time is over.
    pub fn next_deadline(&self) -> Option<BootTime> {
        self.lanes
            .values()
            .flatten()
            .filter_map(|entry| match entry.body {
                Body::Open { deadline, .. } => Some(deadline),
                Body::Ready(_) => None,
            })
            .min()
    }

    /// Placeholders that wait for a key: where they belong, their id, and what is to be decrypted.
    pub fn waiting(&self) -> impl Iterator<Item = (&Lane, &str, &U)> {
        self.lanes.iter().flat_map(|(lane, queue)| {
            queue.iter().filter_map(move |entry| match &entry.body {
                Body::Open { sealed, .. } => Some((lane, entry.id.as_str(), sealed)),
                Body::Ready(_) => None,
            })
        })
    }

    /// Whether a placeholder waits for its key.
    pub fn is_waiting(&self) -> bool {
        !self.open.is_empty()
    }

    pub fn has_output(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// Placeholders whose key never came, since the start.
    pub fn given_up(&self) -> u64 {
        self.given_up
    }

    pub fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    fn entry_mut(&mut self, lane: &Lane, id: &str) -> Option<&mut Entry<T, U>> {
        self.lanes.get_mut(lane)?.iter_mut().find(|entry| entry.id == id)
    }

    fn remove_entry(&mut self, lane: &Lane, id: &str) -> Option<Body<T, U>> {
        let queue = self.lanes.get_mut(lane)?;
        let place = queue.iter().position(|entry| entry.id == id)?;
        let entry = queue.remove(place)?;
        self.held_bytes -= entry.bytes;
        Some(entry.body)
    }

    fn give_up(&mut self, id: &str) -> Option<(Lane, U)> {
        let lane = self.open.remove(id)?;
        self.given_up += 1;
        let body = self.remove_entry(&lane, id);
        self.settle(&lane);
        match body {
            Some(Body::Open { sealed, .. }) => Some((lane, sealed)),
            _ => None,
        }
    }

    /// Releases what stands before the first placeholder of a lane.
    fn settle(&mut self, lane: &Lane) {
        let Some(queue) = self.lanes.get_mut(lane) else { return };
        while matches!(queue.front(), Some(Entry { body: Body::Ready(_), .. })) {
            if let Some(Entry { body: Body::Ready(event), bytes, .. }) = queue.pop_front() {
                self.held_bytes -= bytes;
                self.outbox.push_back(event);
            }
        }
        if queue.is_empty() {
            self.lanes.remove(lane);
        }
    }

    /// Makes room when a bound is passed: a sender's own oldest placeholder first, then the oldest of all.
    fn give_way(&mut self, lane: &Lane) {
        if let Some(queue) = self.lanes.get(lane) {
            let mut open = queue.iter().filter(|entry| matches!(entry.body, Body::Open { .. }));
            // One push adds one placeholder, so a lane is at most one above its bound.
            let oldest = open.next().map(|entry| entry.id.clone());
            if let Some(oldest) = oldest.filter(|_| open.count() >= self.limits.open_per_sender) {
                self.give_up(&oldest);
            }
        }
        while self.open.len() > self.limits.open || self.held_bytes > self.limits.held_bytes {
            let Some(oldest) = self.opened.pop_front() else { break };
            self.give_up(&oldest);
        }
        self.tidy();
    }

    /// Keeps the order list from growing by placeholders that are gone.
    fn tidy(&mut self) {
        while self.opened.front().is_some_and(|id| !self.open.contains_key(id)) {
            self.opened.pop_front();
        }
        if self.opened.len() > 2 * self.limits.open {
            let open = &self.open;
            self.opened.retain(|id| open.contains_key(id));
        }
    }
}

#[cfg(test)]
#[path = "inbox_tests.rs"]
mod tests;
