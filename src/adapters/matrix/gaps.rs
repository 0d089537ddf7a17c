//! What a sync response left out: the events before a limited timeline, and what an earlier life had not handled.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;
use matrix_sdk::Room;
use matrix_sdk::deserialized_responses::TimelineEvent;
use matrix_sdk::room::MessagesOptions;
use matrix_sdk::ruma::{OwnedRoomId, UInt};
use matrix_sdk::sync::RoomUpdates;
use tracing::{debug, warn};

use super::deliver::Courier;
use super::error::fault_of;
use super::event::Stamp;

/// Events per page and pages per room when a gap is read backward.
const PAGE: u32 = 50;
const PAGES: usize = 10;
/// Rooms whose gaps are read at the same time, and the time all of them together may take.
const GAPS_AT_ONCE: usize = 8;
const GAP_TIME: Duration = Duration::from_secs(15);

/// A room whose history is to be read, from a token on or from its end; `all` of it, whatever is known.
pub(super) struct Gap {
    pub(super) room: Room,
    from: Option<String>,
    all: bool,
}

impl Courier {
    /// Where this response leaves something out: before limited timelines, and after an unclean end in every room.
    pub(super) fn gaps(&mut self, update: &RoomUpdates, utc: i64) -> Vec<Gap> {
        if std::mem::take(&mut self.unclean) {
            let rooms = self.client.joined_rooms().into_iter();
            return rooms.map(|room| Gap { room, from: None, all: true }).collect();
        }
        let limited = update.joined.iter().filter(|(_, joined)| {
            let timeline = &joined.timeline;
            timeline.limited && !timeline.events.iter().any(|event| self.is_boundary(event, utc, false))
        });
        let gaps = limited.filter_map(|(id, joined)| {
            let from = joined.timeline.prev_batch.clone();
            Some(Gap { room: self.client.get_room(id)?, from, all: false })
        });
        gaps.collect()
    }

    /// The events of each gap, oldest first, as far back as a call lives or to one we know.
    pub(super) async fn read_gaps(
        &self,
        gaps: Vec<Gap>,
        utc: i64,
    ) -> BTreeMap<OwnedRoomId, Vec<TimelineEvent>> {
        if gaps.is_empty() {
            return BTreeMap::new();
        }
        let ends = tokio::time::Instant::now() + GAP_TIME;
        let read: Vec<_> = stream::iter(gaps)
            .map(|Gap { room, from, all }| async move {
                let (events, complete) = Box::pin(self.read_back(&room, from, all, utc, ends)).await;
                (room.room_id().to_owned(), events, complete)
            })
            .buffer_unordered(GAPS_AT_ONCE)
            .collect()
            .await;
        let unread = read.iter().filter(|(_, _, complete)| !complete).count();
        if unread > 0 {
            warn!(
                rooms = unread,
                "not all of what was missed could be read, a call may have been overlooked"
            );
        }
        read.into_iter().map(|(room, events, _)| (room, events)).collect()
    }

    async fn read_back(
        &self,
        room: &Room,
        mut from: Option<String>,
        all: bool,
        utc: i64,
        ends: tokio::time::Instant,
    ) -> (Vec<TimelineEvent>, bool) {
        let mut newest_first = Vec::new();
        let mut complete = false;
        for _ in 0..PAGES {
            let mut options = MessagesOptions::backward();
            options.limit = UInt::from(PAGE);
            options.from = from.take();
            let page = match tokio::time::timeout_at(ends, room.messages(options)).await {
                Ok(Ok(page)) => page,
                Ok(Err(error)) => {
                    debug!(room = %room.room_id(), fault = %fault_of(&error), "the room's history cannot be read");
                    break;
                }
                Err(_) => break,
            };
            complete = page.end.is_none() || page.chunk.iter().any(|event| self.is_boundary(event, utc, all));
            newest_first.extend(page.chunk);
            from = page.end;
            if complete {
                break;
            }
        }
        newest_first.reverse();
        (newest_first, complete)
    }

    /// Nothing before this event is wanted: it is older than a call lives or, unless `all` are, already known.
    fn is_boundary(&self, event: &TimelineEvent, utc: i64, all: bool) -> bool {
        let Ok(head) = serde_json::from_str::<Stamp>(event.raw().json().get()) else { return false };
        (!all && self.inbox.knows(&head.event_id)) || head.age(utc) >= self.lifetime
    }
}
