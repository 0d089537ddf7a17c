//! More than ten events of a kind and track in a second become one with a count.

use std::collections::HashMap;

use serde_json::Value;

use super::{Event, EventKind, Open, Record, Seconds};
use crate::ids::{ParticipantId, TrackId};

/// So many of a kind, participant and track in a second stand for themselves.
const ALONE: u32 = 10;
const WINDOW: Seconds = Seconds::from_micros(1_000_000);
/// Kinds and tracks that are counted at a time. With more, an event is counted as dropped.
const WINDOWS: usize = 1_024;

#[derive(Debug, Clone)]
struct Window {
    first: Event,
    last_s: Seconds,
    count: u32,
}

type Key = (Open<EventKind>, Option<ParticipantId>, Option<TrackId>);

/// Lets the first ten of a second through, so that they reach the journal at once, and holds the rest until
/// the second is over; then one record takes the place of all. At most 1,024 windows of one event each.
#[derive(Debug, Default, Clone)]
pub struct EventCoalescer {
    windows: HashMap<Key, Window>,
    dropped: u64,
}

impl EventCoalescer {
    /// What is to be written now that this event happened, the oldest first. Session time must not run
    /// backwards.
    pub fn push(&mut self, event: Event) -> Vec<Record> {
        let mut records = self.poll(event.at_s);
        let key = (event.kind.clone(), event.participant.clone(), event.track.clone());
        let full = self.windows.len() >= WINDOWS;
        match self.windows.get_mut(&key) {
            Some(window) => {
                window.count = window.count.saturating_add(1);
                window.last_s = event.at_s;
                if window.count <= ALONE {
                    records.push(Record::Event(event));
                }
            }
            None if full => self.dropped += 1,
            None => {
                self.windows.insert(key, Window { first: event.clone(), last_s: event.at_s, count: 1 });
                records.push(Record::Event(event));
            }
        }
        records
    }

    /// What is to be written now that it is `now`: the seconds that are over and held more than ten.
    pub fn poll(&mut self, now: Seconds) -> Vec<Record> {
        self.close(|window| now - window.first.at_s >= WINDOW)
    }

    /// At the end: what is still held.
    pub fn finish(&mut self) -> Vec<Record> {
        self.close(|_| true)
    }

    /// Events that no window was left for.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    fn close(&mut self, over: impl Fn(&Window) -> bool) -> Vec<Record> {
        let mut closed: Vec<Window> =
            self.windows.extract_if(|_, window| over(window)).map(|(_, w)| w).collect();
        closed.retain(|window| window.count > ALONE);
        closed.sort_by_key(|window| window.first.at_s);
        closed.into_iter().map(Window::merged).collect()
    }
}

impl Window {
    fn merged(self) -> Record {
        let mut event = self.first;
        event.detail.insert("count".to_owned(), Value::from(self.count));
        event.detail.insert("until_s".to_owned(), Value::from(self.last_s.as_f64()));
        Record::EventsMerged { replaces: ALONE, event }
    }
}
