//! From sync responses to the calls: reads, orders, waits for late keys, fills gaps, and remembers what was handled.
//!
//! One task ([`Courier`]) owns the inbox. It hears of each sync response before the SDK sends its own follow-up
//! requests, so an invite does not wait for them. Encrypted events it keeps itself and tries again when a room key of
//! theirs arrives; the SDK's event cache would do the same by way of the disk.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;
use matrix_sdk::deserialized_responses::{
    TimelineEvent, TimelineEventKind, VerificationLevel, VerificationState,
};
use matrix_sdk::room::MessagesOptions;
use matrix_sdk::ruma::events::room::encrypted::OriginalSyncRoomEncryptedEvent;
use matrix_sdk::ruma::serde::Raw;
use matrix_sdk::ruma::{OwnedRoomId, RoomId, UInt};
use matrix_sdk::sync::{RoomUpdates, State};
use matrix_sdk::{Client, Room};
use recorder_actors::observe::{Board, Totals};
use recorder_actors::ports::Clock;
use recorder_core::time::BootTime;
use serde_json::value::RawValue;
use tokio::sync::{Notify, broadcast, mpsc, oneshot, watch};
use tracing::{debug, info, warn};

use super::error::fault_of;
use super::event::{Head, Stamp, is_wanted};
use super::handled::Handled;
use super::inbox::{Inbox, Lane, Limits, Taken};
use super::{Delivery, RoomEvent};

/// Events per page and pages per room when a gap is read backward.
const PAGE: u32 = 50;
const PAGES: usize = 10;
/// Rooms whose gaps are read at the same time, and the time all of them together may take.
const GAPS_AT_ONCE: usize = 8;
const GAP_TIME: Duration = Duration::from_secs(15);

/// A sync was taken in; answered when its events are with the consumer.
pub(super) struct SyncDone {
    pub(super) token: String,
    pub(super) taken: oneshot::Sender<()>,
}

/// An event whose key is not here, with what must be known of it when it is.
struct Sealed {
    raw: Raw<OriginalSyncRoomEncryptedEvent>,
    session: Option<String>,
    age: Duration,
    received: BootTime,
}

pub(super) struct Courier {
    pub(super) client: Client,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) board: Arc<Board>,
    pub(super) out: mpsc::Sender<Delivery>,
    pub(super) invites: Arc<Notify>,
    inbox: Inbox<RoomEvent, Sealed>,
    lifetime: Duration,
    handled: Handled,
    batch: u64,
    /// Reading every room back is still due, because an earlier life ended before it had handled everything.
    unclean: bool,
    first: bool,
}

pub(super) struct Inputs {
    pub(super) updates: broadcast::Receiver<RoomUpdates>,
    pub(super) done: mpsc::Receiver<SyncDone>,
    pub(super) acknowledged: watch::Receiver<u64>,
}

impl Courier {
    pub(super) async fn new(
        client: Client,
        clock: Arc<dyn Clock>,
        board: Arc<Board>,
        out: mpsc::Sender<Delivery>,
        invites: Arc<Notify>,
        progress: PathBuf,
    ) -> Self {
        let limits = Limits::default();
        let mut inbox = Inbox::new(limits);
        let (handled, earlier) = Handled::load(progress, limits.lifetime, clock.utc_micros());
        for id in &earlier.ids {
            inbox.remember(id);
        }
        let stored = super::stored_sync_token(&client).await;
        let unclean = stored.is_some() && stored != earlier.token;
        if unclean {
            info!("the last run ended before everything was handled, reading back");
        }
        let lifetime = limits.lifetime;
        Self { client, clock, board, out, invites, inbox, lifetime, handled, batch: 0, unclean, first: true }
    }

    /// Runs until the consumer or the sync loop is gone.
    pub(super) async fn run(mut self, mut inputs: Inputs) {
        let mut keys = self.key_stream().await;
        loop {
            let deadline = self.inbox.next_deadline().map(|at| at.saturating_since(self.clock.now()));
            let wait =
                deadline.unwrap_or(Duration::from_secs(3600)).min(self.handled.next_write(self.clock.now()));
            let delivered = tokio::select! {
                biased;
                update = inputs.updates.recv() => match update {
                    Ok(update) => self.take(update).await,
                    // Cannot happen while the sync loop waits for us; if it does, every room may have a gap.
                    Err(broadcast::error::RecvError::Lagged(_)) => { self.unclean = true; Ok(()) }
                    Err(broadcast::error::RecvError::Closed) => break,
                },
                done = inputs.done.recv() => match done {
                    Some(done) => self.sync_done(done, &mut inputs.updates).await,
                    None => break,
                },
                news = keys.next() => match news {
                    Some(sessions) => self.try_keys(sessions.as_deref()).await,
                    None => { keys = stream::pending().boxed(); Ok(()) }
                },
                Ok(()) = inputs.acknowledged.changed() => {
                    let batch = *inputs.acknowledged.borrow_and_update();
                    self.handled.acknowledge(batch);
                    Ok(())
                }
                () = tokio::time::sleep(wait) => {
                    self.inbox.expire(self.clock.now());
                    self.flush().await
                }
            };
            if delivered.is_err() {
                break;
            }
            self.handled
                .write_if_due(self.clock.now(), self.clock.utc_micros(), self.inbox.is_waiting())
                .await;
        }
        self.handled.acknowledge(*inputs.acknowledged.borrow());
        self.handled.write(self.clock.now(), self.clock.utc_micros(), self.inbox.is_waiting()).await;
    }

    /// Megolm sessions as their keys arrive; `None` stands for keys that were missed.
    async fn key_stream(&self) -> stream::BoxStream<'static, Option<Vec<String>>> {
        match self.client.encryption().room_keys_received_stream().await {
            Some(keys) => keys
                .map(|news| news.ok().map(|keys| keys.into_iter().map(|key| key.session_id).collect()))
                .boxed(),
            None => stream::pending().boxed(),
        }
    }

    async fn sync_done(
        &mut self,
        done: SyncDone,
        updates: &mut broadcast::Receiver<RoomUpdates>,
    ) -> Result<(), Gone> {
        while let Ok(update) = updates.try_recv() {
            self.take(update).await?;
        }
        self.handled.synced(self.batch, done.token);
        // The sync loop may be gone, which is no fault of the events.
        let _ = done.taken.send(());
        Ok(())
    }

    /// One sync response.
    async fn take(&mut self, mut update: RoomUpdates) -> Result<(), Gone> {
        self.batch += 1;
        let (now, utc) = (self.clock.now(), self.clock.utc_micros() / 1000);
        if !update.invited.is_empty() || self.first {
            self.invites.notify_one();
        }
        let mut older = self.read_gaps(&update, utc).await;
        for (room, events) in std::mem::take(&mut older) {
            for event in events {
                self.receive(&room, &event, now, utc);
            }
            if let Some(joined) = update.joined.remove(&room) {
                self.receive_room(&room, &joined.timeline.events, now, utc);
                let (State::Before(state) | State::After(state)) = &joined.state;
                if !self.first {
                    for event in state {
                        self.receive_readable(&room, event.json(), false, now, utc);
                    }
                }
            }
        }
        for (room, joined) in &update.joined {
            self.receive_room(room, &joined.timeline.events, now, utc);
        }
        for (room, left) in &update.left {
            self.receive_room(room, &left.timeline.events, now, utc);
        }
        self.first = false;
        // A key may have come between the attempt to decrypt and the placeholder.
        if self.inbox.is_waiting() {
            self.decrypt_waiting(|_| true).await;
        }
        self.deliver().await?;
        self.out.send(Delivery::BatchEnd { batch: self.batch }).await.map_err(|_| Gone)
    }

    fn receive_room(&mut self, room: &RoomId, events: &[TimelineEvent], now: BootTime, utc: i64) {
        for event in events {
            self.receive(room, event, now, utc);
        }
    }

    /// One event of a timeline.
    fn receive(&mut self, room: &RoomId, event: &TimelineEvent, now: BootTime, utc: i64) {
        match &event.kind {
            TimelineEventKind::PlainText { event } => {
                self.receive_readable(room, event.json(), false, now, utc)
            }
            TimelineEventKind::Decrypted(event) => {
                let impostor = VerificationState::Unverified(VerificationLevel::MismatchedSender);
                if event.encryption_info.verification_state == impostor {
                    // The key belongs to somebody other than the sender the homeserver names.
                    Totals::count(&self.board.totals.signals_ignored);
                    debug!(%room, "event ignored, its sender does not own its key");
                    return;
                }
                self.receive_readable(room, event.event.json(), true, now, utc);
            }
            TimelineEventKind::UnableToDecrypt { event, utd_info } => {
                self.receive_sealed(room, event.json(), utd_info.session_id.clone(), now, utc);
            }
        }
    }

    fn receive_readable(&mut self, room: &RoomId, raw: &RawValue, encrypted: bool, now: BootTime, utc: i64) {
        let Some(head) = self.head(raw) else { return };
        if !is_wanted(&head.event_type) {
            return;
        }
        let age = head.age(utc);
        let lane = Lane { room: room.to_string(), sender: head.sender.clone() };
        let id = head.event_id.clone();
        let event = head.into_event(lane.room.clone(), age, now, encrypted);
        self.inbox.push(&lane, &id, raw.get().len(), event);
    }

    fn receive_sealed(
        &mut self,
        room: &RoomId,
        raw: &RawValue,
        session: Option<String>,
        now: BootTime,
        utc: i64,
    ) {
        let Some(head) = self.head(raw) else { return };
        let age = head.age(utc);
        let lane = Lane { room: room.to_string(), sender: head.sender };
        let sealed = Sealed { raw: Raw::from_json(raw.to_owned()), session, age, received: now };
        let taken = self.inbox.push_sealed(now, &lane, &head.event_id, raw.get().len(), age, sealed);
        if matches!(taken, Taken::Waiting | Taken::TooOld) {
            Totals::count(&self.board.totals.undecrypted_events);
        }
    }

    /// Reads an event; what is malformed or too long is ignored and counted.
    fn head(&self, raw: &RawValue) -> Option<Head> {
        let head = Head::read(raw.get());
        if head.is_none() {
            Totals::count(&self.board.totals.signals_ignored);
        }
        head
    }

    async fn try_keys(&mut self, news: Option<&[String]>) -> Result<(), Gone> {
        if !self.inbox.is_waiting() {
            return Ok(());
        }
        self.decrypt_waiting(|session| match (news, session) {
            (Some(news), Some(session)) => news.iter().any(|key| key == session),
            _ => true,
        })
        .await;
        self.flush().await
    }

    /// Tries the placeholders of the Megolm sessions that `concerns` names.
    async fn decrypt_waiting(&mut self, concerns: impl Fn(Option<&str>) -> bool) {
        let candidates: Vec<_> = self
            .inbox
            .waiting()
            .filter(|(_, _, sealed)| concerns(sealed.session.as_deref()))
            .map(|(lane, id, sealed)| (lane.room.clone(), id.to_owned(), sealed.raw.clone()))
            .collect();
        for (room, id, raw) in candidates {
            let Some(room) = RoomId::parse(&room).ok().and_then(|room| self.client.get_room(&room)) else {
                continue;
            };
            let Ok(event) = Box::pin(room.decrypt_event(&raw, None)).await else { continue };
            if let TimelineEventKind::Decrypted(event) = event.kind {
                self.fill(room.room_id(), &id, event.event.json());
            }
        }
    }

    /// A placeholder's event, with the age and time of its first arrival.
    fn fill(&mut self, room: &RoomId, id: &str, raw: &RawValue) {
        let Some((age, received)) = self
            .inbox
            .waiting()
            .find(|(_, waiting, _)| *waiting == id)
            .map(|(_, _, sealed)| (sealed.age, sealed.received))
        else {
            return;
        };
        let event = self
            .head(raw)
            .filter(|head| is_wanted(&head.event_type))
            .map(|head| head.into_event(room.to_string(), age, received, true));
        self.inbox.fill(id, event);
    }

    /// Hands over what an expiry or a key set free, as a batch of its own.
    async fn flush(&mut self) -> Result<(), Gone> {
        if self.inbox.has_output() {
            self.batch += 1;
            self.deliver().await?;
            self.out.send(Delivery::BatchEnd { batch: self.batch }).await.map_err(|_| Gone)?;
        }
        Ok(())
    }

    /// Waits for the consumer when it is slow: that stops the sync, and the homeserver keeps what comes.
    async fn deliver(&mut self) -> Result<(), Gone> {
        let events: VecDeque<RoomEvent> = self.inbox.drain().collect();
        for mut event in events {
            event.batch = self.batch;
            self.handled.delivered(self.batch, event.event_id.clone(), self.clock.utc_micros());
            self.out.send(Delivery::Event(Box::new(event))).await.map_err(|_| Gone)?;
        }
        Ok(())
    }

    /// Events before those of a limited timeline, oldest first, as far back as a call lives or to one we know.
    /// After an unclean end, those of every room.
    async fn read_gaps(
        &mut self,
        update: &RoomUpdates,
        utc: i64,
    ) -> BTreeMap<OwnedRoomId, Vec<TimelineEvent>> {
        let mut gaps: Vec<(Room, Option<String>, bool)> = Vec::new();
        if std::mem::take(&mut self.unclean) {
            gaps.extend(self.client.joined_rooms().into_iter().map(|room| (room, None, true)));
        } else {
            for (id, joined) in &update.joined {
                let timeline = &joined.timeline;
                let reaches_back = timeline.events.iter().any(|event| self.is_boundary(event, utc, false));
                if timeline.limited
                    && !reaches_back
                    && let Some(room) = self.client.get_room(id)
                {
                    gaps.push((room, timeline.prev_batch.clone(), false));
                }
            }
        }
        if gaps.is_empty() {
            return BTreeMap::new();
        }
        let ends = tokio::time::Instant::now() + GAP_TIME;
        let this = &*self;
        let read: Vec<_> = stream::iter(gaps)
            .map(|(room, from, all)| async move {
                let (events, complete) = Box::pin(this.read_back(&room, from, all, utc, ends)).await;
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

/// The consumer is gone.
struct Gone;
