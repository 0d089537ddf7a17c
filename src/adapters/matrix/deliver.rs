//! From sync responses to the calls: reads, orders, waits for late keys, fills gaps, and remembers what was handled.
//!
//! One task ([`Courier`]) owns the inbox. It hears of each sync response before the SDK sends its own follow-up
//! requests, so an invite does not wait for them. Encrypted events it keeps itself and tries again when a room key of
//! theirs arrives; the SDK's event cache would do the same by way of the disk.

use std::collections::{HashSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;
use matrix_sdk::Client;
use matrix_sdk::deserialized_responses::{
    TimelineEvent, TimelineEventKind, VerificationLevel, VerificationState,
};
use matrix_sdk::ruma::events::room::encrypted::OriginalSyncRoomEncryptedEvent;
use matrix_sdk::ruma::serde::Raw;
use matrix_sdk::ruma::{OwnedRoomId, RoomId};
use matrix_sdk::sync::{RoomUpdates, State};
use recorder_actors::observe::{Board, Totals};
use recorder_actors::ports::Clock;
use recorder_core::time::BootTime;
use serde_json::value::RawValue;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tracing::{debug, info};

use super::current::Current;
use super::event::{Head, is_call_event, is_said, is_wanted};
use super::follow_ups::FollowUps;
use super::handled::Handled;
use super::inbox::{Inbox, Lane, Limits, Taken};
use super::interest::{Us, interesting};
use super::invites::News;
use super::to_device::Mailbox;
use super::{Delivery, RoomEvent};

/// How old a message or reaction may be that reaches the tree at all.
const OBJECTIONS: Duration = Duration::from_secs(3600);

/// A sync was taken in; answered when its events are with the consumer.
pub(super) struct SyncDone {
    pub(super) token: String,
    pub(super) taken: oneshot::Sender<()>,
}

/// An event whose key is not here, with what must be known of it when it is.
pub(super) struct Sealed {
    raw: Raw<OriginalSyncRoomEncryptedEvent>,
    session: Option<String>,
    age: Duration,
    received: BootTime,
    /// Its sender may expect that we can read it.
    for_us: bool,
}

pub(super) struct Courier {
    pub(super) client: Client,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) board: Arc<Board>,
    pub(super) out: mpsc::Sender<Delivery>,
    pub(super) invites: Arc<News>,
    pub(super) inbox: Inbox<RoomEvent, Sealed>,
    pub(super) lifetime: Duration,
    handled: Handled,
    mailbox: Arc<Mailbox>,
    us: Us,
    /// When we began to listen.
    started: BootTime,
    /// Rooms whose current state was delivered.
    pub(super) known: HashSet<OwnedRoomId>,
    batch: u64,
    /// Reading every room back is still due, because an earlier life ended before it had handled everything.
    pub(super) unclean: bool,
    pub(super) first: bool,
    follow_ups: Arc<FollowUps>,
}

/// What the courier works with.
pub(super) struct Parts {
    pub(super) client: Client,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) board: Arc<Board>,
    pub(super) out: mpsc::Sender<Delivery>,
    pub(super) invites: Arc<News>,
    pub(super) mailbox: Arc<Mailbox>,
    pub(super) us: Us,
    /// When we began to listen.
    pub(super) started: BootTime,
    pub(super) follow_ups: Arc<FollowUps>,
}

pub(super) struct Inputs {
    pub(super) updates: broadcast::Receiver<RoomUpdates>,
    pub(super) done: mpsc::Receiver<SyncDone>,
    pub(super) acknowledged: watch::Receiver<u64>,
}

impl Courier {
    /// `progress` is the file of what was handled.
    pub(super) async fn new(parts: Parts, progress: PathBuf) -> Self {
        let Parts { client, clock, board, out, invites, mailbox, us, started, follow_ups } = parts;
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
        Self {
            client,
            clock,
            board,
            out,
            invites,
            inbox,
            lifetime,
            handled,
            mailbox,
            us,
            started,
            known: HashSet::new(),
            batch: 0,
            unclean,
            first: true,
            follow_ups,
        }
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
                () = tokio::time::sleep(wait) => self.expire().await,
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
        self.follow_ups.at_rest();
        self.handled.synced(self.batch, done.token);
        // The sync loop may be gone, which is no fault of the events.
        let _ = done.taken.send(());
        Ok(())
    }

    /// One sync response, as one batch or as two: rooms of which more must be read first hold no others up.
    async fn take(&mut self, mut update: RoomUpdates) -> Result<(), Gone> {
        self.follow_ups.heard();
        let (now, utc) = (self.clock.now(), self.clock.utc_micros() / 1000);
        if !update.invited.is_empty() || self.first {
            self.invites.tell(update.invited.keys());
        }
        let (new, gaps) = (self.new_rooms(&update), self.gaps(&update, utc));
        // A process begins with all that is known of every room.
        if !std::mem::take(&mut self.first) {
            let reading: HashSet<&RoomId> =
                new.iter().chain(gaps.iter().map(|gap| &gap.room)).map(|room| room.room_id()).collect();
            let later;
            (later, update.joined) =
                update.joined.into_iter().partition(|(room, _)| reading.contains(&**room));
            self.receive_rooms(&update, &Current::default(), now, utc);
            self.finish_batch().await?;
            if reading.is_empty() {
                return Ok(());
            }
            update = RoomUpdates { joined: later, ..RoomUpdates::default() };
        }
        let current = Box::pin(self.current_states(new)).await;
        for (room, state) in &current.events {
            self.receive_current(room, state, now, utc);
        }
        for (room, events) in Box::pin(self.read_gaps(gaps, utc)).await {
            self.receive_room(&room, None, &events, &current, now, utc);
        }
        self.receive_rooms(&update, &current, now, utc);
        self.finish_batch().await
    }

    fn receive_rooms(&mut self, update: &RoomUpdates, current: &Current, now: BootTime, utc: i64) {
        for (room, joined) in &update.joined {
            self.receive_room(room, Some(&joined.state), &joined.timeline.events, current, now, utc);
        }
        for (room, left) in &update.left {
            self.receive_room(room, Some(&left.state), &left.timeline.events, current, now, utc);
            self.known.remove(room);
        }
    }

    /// Hands over what was received, as one batch.
    async fn finish_batch(&mut self) -> Result<(), Gone> {
        self.batch += 1;
        // A key may have come between the attempt to decrypt and the placeholder.
        if self.inbox.is_waiting() {
            self.decrypt_waiting(|_| true).await;
        }
        self.deliver().await?;
        let mailbox = Arc::clone(&self.mailbox);
        for letter in mailbox.drain(self.batch) {
            self.out.send(letter).await.map_err(|_| Gone)?;
        }
        self.out.send(Delivery::BatchEnd { batch: self.batch }).await.map_err(|_| Gone)
    }

    /// A room's events in order. Changes of a state that was delivered as a whole are in it already.
    fn receive_room(
        &mut self,
        room: &RoomId,
        state: Option<&State>,
        timeline: &[TimelineEvent],
        current: &Current,
        now: BootTime,
        utc: i64,
    ) {
        let (before, after) = match state {
            Some(State::Before(events)) => (events.as_slice(), [].as_slice()),
            Some(State::After(events)) => ([].as_slice(), events.as_slice()),
            None => ([].as_slice(), [].as_slice()),
        };
        for event in before {
            self.receive_readable(room, event.json(), current, false, now, utc);
        }
        for event in timeline {
            self.receive(room, event, current, now, utc);
        }
        for event in after {
            self.receive_readable(room, event.json(), current, false, now, utc);
        }
    }

    /// One event of a timeline.
    fn receive(&mut self, room: &RoomId, event: &TimelineEvent, current: &Current, now: BootTime, utc: i64) {
        match &event.kind {
            TimelineEventKind::PlainText { event } => {
                self.receive_readable(room, event.json(), current, false, now, utc)
            }
            TimelineEventKind::Decrypted(event) => {
                let impostor = VerificationState::Unverified(VerificationLevel::MismatchedSender);
                if event.encryption_info.verification_state == impostor {
                    // The key belongs to somebody other than the sender the homeserver names.
                    Totals::count(&self.board.totals.signals_ignored);
                    debug!(%room, "event ignored, its sender does not own its key");
                    return;
                }
                self.receive_readable(room, event.event.json(), current, true, now, utc);
            }
            TimelineEventKind::UnableToDecrypt { event, utd_info } => {
                self.receive_sealed(room, event.json(), utd_info.session_id.clone(), now, utc);
            }
        }
    }

    fn receive_readable(
        &mut self,
        room: &RoomId,
        raw: &RawValue,
        current: &Current,
        encrypted: bool,
        now: BootTime,
        utc: i64,
    ) {
        let Some(head) = self.head(raw) else { return };
        let age = head.age(utc);
        if !self.wants(&head, age) || current.covers(room, &head) {
            return;
        }
        let lane = Lane { room: room.to_string(), sender: head.sender.clone() };
        let id = head.event_id.clone();
        let in_order = is_call_event(&head.event_type);
        let event = head.into_event(lane.room.clone(), age, now, encrypted);
        if in_order {
            self.inbox.push(&lane, &id, raw.get().len(), event);
        } else {
            // State is nobody's to hold up, and an objection must not wait for the key of an earlier message.
            self.inbox.push_past(&id, event);
        }
    }

    /// Whether the tree needs to see it.
    fn wants(&self, head: &Head, age: Duration) -> bool {
        if !is_wanted(&head.event_type) {
            return false;
        }
        let own = head.sender == self.us.user_id;
        let is_message = head.event_type == "m.room.message";
        !is_said(&head.event_type)
            || (!own && age < OBJECTIONS && (!is_message || interesting(&head.content, &self.us)))
    }

    /// Part of a room's state as it is now. Told again whatever was told of it before.
    fn receive_current(&mut self, room: &RoomId, raw: &RawValue, now: BootTime, utc: i64) {
        let Some(head) = self.head(raw) else { return };
        // Its id is not remembered: that would look as if the timeline had been read up to it.
        let age = head.age_by_clock(utc);
        self.inbox.release(head.into_event(room.to_string(), age, now, false));
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
        let for_us = !head.before_our_join() && head.sender != self.us.user_id;
        let lane = Lane { room: room.to_string(), sender: head.sender };
        let sealed = Sealed { raw: Raw::from_json(raw.to_owned()), session, age, received: now, for_us };
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
        let Some(head) = self.head(raw).filter(|head| self.wants(head, age)) else {
            return self.inbox.fill(id, None);
        };
        let in_order = is_call_event(&head.event_type);
        let event = head.into_event(room.to_string(), age, received, true);
        if in_order {
            self.inbox.fill(id, Some(event));
        } else {
            self.inbox.fill_past(id, event);
        }
    }

    /// Gives up what waited too long for its key, and says so.
    async fn expire(&mut self) -> Result<(), Gone> {
        let given_up = self.inbox.expire(self.clock.now());
        for (lane, event_id, _) in given_up.into_iter().filter(|(_, _, sealed)| sealed.for_us) {
            let given_up = Delivery::Undecryptable { room: lane.room, sender: lane.sender, event_id };
            self.out.send(given_up).await.map_err(|_| Gone)?;
        }
        self.flush().await
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
            // State may be told twice.
            if event.state_key.is_none() {
                self.handled.delivered(self.batch, event.event_id.clone(), self.clock.utc_micros());
            }
            let listened = event.received_at.saturating_since(self.started);
            let missed = is_said(&event.event_type) && event.age_at_receipt > listened.min(self.lifetime);
            let event = Box::new(event);
            let delivery = if missed { Delivery::Missed(event) } else { Delivery::Event(event) };
            self.out.send(delivery).await.map_err(|_| Gone)?;
        }
        Ok(())
    }
}

/// The consumer is gone.
struct Gone;
