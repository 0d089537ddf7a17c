//! What a call sends: into its room, where the account keeps the order and lets what is urgent go first; to devices a few
//! at a time, because their events are numbered.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::stream::FuturesUnordered;
use futures_util::{StreamExt, stream};
use recorder_core::call::{Announcement, Outgoing};
use recorder_core::mesh::MEMBER_EVENT;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::observe::{Severity, Totals};
use crate::ports::{SignallingError, Urgency};
use crate::supervise::guarded;
use crate::world::World;

/// Events for the room that may wait to be taken up, and as many under way; later ones are dropped and counted.
const MOST_OUTGOING: usize = 64;
/// Events to devices that may wait; later ones are dropped and counted, and the calls that miss them are tried again.
const MOST_TO_DEVICES: usize = 2_048;
/// Events to devices under way at once.
const AT_ONCE: usize = 8;
/// How long an event may be tried.
const PATIENCE: Duration = Duration::from_secs(60);
/// That there are no more candidates: clients do not wait for it, so it is not worth an event when they are scarce.
const CANDIDATES_PATIENCE: Duration = Duration::from_secs(10);
/// A message is worth reading minutes later.
const WORDS_PATIENCE: Duration = Duration::from_secs(300);
/// Once the call is in a hurry.
const SHORT_PATIENCE: Duration = Duration::from_secs(2);

enum Outbound {
    Event(Outgoing),
    Message(Announcement),
    /// Tells people that they are recorded.
    Consent(Announcement),
    /// Our membership; answered with what became of it.
    Membership(Value, oneshot::Sender<Result<(), SignallingError>>),
}

enum ToDevice {
    Event { user: String, device: String, event_type: &'static str, content: Value },
    Flush(oneshot::Sender<()>),
}

/// What is not sent yet.
#[derive(Clone, Copy, Debug, Default)]
struct Pending {
    signals: usize,
    messages: usize,
    hangup_failed: bool,
}

/// Counts one thing as pending, until it is dropped.
struct Ticket {
    pending: Arc<watch::Sender<Pending>>,
    is_message: bool,
    is_hangup: bool,
    sent: bool,
}

impl Ticket {
    fn new(pending: &Arc<watch::Sender<Pending>>, outbound: &Outbound) -> Self {
        let is_message = matches!(outbound, Outbound::Message(_) | Outbound::Consent(_));
        let is_hangup = matches!(outbound, Outbound::Event(event) if event.event_type == "m.call.hangup");
        pending.send_modify(|pending| *pending.count(is_message) += 1);
        Self { pending: Arc::clone(pending), is_message, is_hangup, sent: false }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.pending.send_modify(|pending| {
            *pending.count(self.is_message) -= 1;
            pending.hangup_failed |= self.is_hangup && !self.sent;
        });
    }
}

impl Pending {
    fn count(&mut self, is_message: bool) -> &mut usize {
        if is_message { &mut self.messages } else { &mut self.signals }
    }
}

/// A call's way to its room and to its participants' devices. Its tasks end with the last clone, when all is sent or given
/// up.
#[derive(Clone)]
pub(super) struct Outbox {
    world: Arc<World>,
    queue: mpsc::Sender<(Outbound, Ticket)>,
    pending: Arc<watch::Sender<Pending>>,
    devices: mpsc::Sender<ToDevice>,
    hurry: CancellationToken,
    consent_refused: Arc<AtomicBool>,
}

impl Outbox {
    pub(super) fn open(world: &Arc<World>, room: &str) -> Self {
        let (queue, waiting) = mpsc::channel(MOST_OUTGOING);
        let (devices, for_devices) = mpsc::channel(MOST_TO_DEVICES);
        let hurry = CancellationToken::new();
        let consent_refused = Arc::<AtomicBool>::default();
        let sender = Sender {
            world: Arc::clone(world),
            room: room.to_owned(),
            hurry: hurry.clone(),
            consent_refused: Arc::clone(&consent_refused),
        };
        actix::spawn(sender.clone().send_to_room(waiting));
        actix::spawn(sender.send_to_devices(for_devices));
        let pending = Arc::new(watch::Sender::default());
        Self { world: Arc::clone(world), queue, pending, devices, hurry, consent_refused }
    }

    pub(super) fn event(&self, event: Outgoing) {
        self.push(Outbound::Event(event));
    }

    pub(super) fn message(&self, message: Announcement) {
        self.push(Outbound::Message(message));
    }

    /// Tells people that they are recorded.
    pub(super) fn consent(&self, message: Announcement) {
        self.push(Outbound::Consent(message));
    }

    /// The homeserver refused for good what [`Self::consent`] was to tell.
    pub(super) fn consent_refused(&self) -> bool {
        self.consent_refused.load(Ordering::Acquire)
    }

    /// Sends the content of our membership event. Resolves when it was sent or given up.
    pub(super) fn membership(
        &self,
        content: Value,
    ) -> impl Future<Output = Result<(), SignallingError>> + 'static {
        let (done, sent) = oneshot::channel();
        self.push(Outbound::Membership(content, done));
        async move {
            sent.await.unwrap_or_else(|_| Err(SignallingError::Unreachable("it was dropped".to_owned())))
        }
    }

    pub(super) fn to_device(&self, user: String, device: String, event_type: &'static str, content: Value) {
        if self.devices.try_send(ToDevice::Event { user, device, event_type, content }).is_err() {
            tracing::warn!("too many events to devices wait for the homeserver, one is dropped");
            Totals::count(&self.world.board.totals.signals_ignored);
        }
    }

    /// The process ends: everything that waits gets two seconds, and no more.
    pub(super) fn hurry(&self) {
        self.hurry.cancel();
    }

    /// Resolves when everything but messages is sent or given up. False if a hang-up is among what was not sent.
    pub(super) async fn signalled(&self) -> bool {
        let (sent, devices) = oneshot::channel();
        if self.devices.send(ToDevice::Flush(sent)).await.is_err() {
            return false;
        }
        let devices = devices.await.is_ok();
        let mut pending = self.pending.subscribe();
        let room = pending.wait_for(|pending| pending.signals == 0).await;
        room.is_ok_and(|pending| !pending.hangup_failed) && devices
    }

    /// Gives messages a moment. What is not sent then goes on by itself, for as long as the process does.
    pub(super) async fn said(&self) {
        let mut pending = self.pending.subscribe();
        let said = async { pending.wait_for(|pending| pending.messages == 0).await.is_ok() };
        let _ = tokio::time::timeout(SHORT_PATIENCE, said).await;
    }

    fn push(&self, outbound: Outbound) {
        let ticket = Ticket::new(&self.pending, &outbound);
        if self.queue.try_send((outbound, ticket)).is_err() {
            tracing::warn!("too many events wait for the homeserver, one is dropped");
            Totals::count(&self.world.board.totals.signals_ignored);
        }
    }
}

#[derive(Clone)]
struct Sender {
    world: Arc<World>,
    room: String,
    hurry: CancellationToken,
    consent_refused: Arc<AtomicBool>,
}

impl Sender {
    fn patience(&self, usual: Duration) -> Duration {
        if self.hurry.is_cancelled() { SHORT_PATIENCE } else { usual }
    }

    /// Resolves as `sending` does, or soon after the call is in a hurry.
    async fn hurried(
        &self,
        sending: impl Future<Output = Result<(), SignallingError>>,
    ) -> Result<(), SignallingError> {
        let hurried = async {
            self.hurry.cancelled().await;
            tokio::time::sleep(SHORT_PATIENCE).await;
        };
        tokio::select! {
            sent = guarded(&self.world, sending) => {
                sent.unwrap_or_else(|why| Err(SignallingError::Unreachable(format!("the recorder failed: {why}"))))
            }
            () = hurried => Err(SignallingError::Unreachable("the recorder stops".to_owned())),
        }
    }

    /// Everything at once: which of it goes first is for the account to say, which knows what other calls send.
    async fn send_to_room(self, mut queue: mpsc::Receiver<(Outbound, Ticket)>) {
        let mut under_way = FuturesUnordered::new();
        let mut open = true;
        while open || !under_way.is_empty() {
            tokio::select! {
                next = queue.recv(), if open && under_way.len() < MOST_OUTGOING => match next {
                    Some((outbound, ticket)) => under_way.push(self.send_one(outbound, ticket)),
                    None => open = false,
                },
                Some(()) = under_way.next() => {}
            }
        }
    }

    async fn send_one(&self, outbound: Outbound, mut ticket: Ticket) {
        let (world, room) = (&self.world, self.room.clone());
        let is_consent = matches!(outbound, Outbound::Consent(_));
        let courtesy = matches!(&outbound, Outbound::Event(event) if event.urgency() == Urgency::Candidates);
        let patience = self.patience(match &outbound {
            Outbound::Event(_) if courtesy => CANDIDATES_PATIENCE,
            Outbound::Event(_) | Outbound::Membership(..) => PATIENCE,
            Outbound::Message(_) | Outbound::Consent(_) => WORDS_PATIENCE,
        });
        let mut done = None;
        let sending = async {
            match outbound {
                Outbound::Event(event) => {
                    let (urgency, kind) = (event.urgency(), event.event_type.to_owned());
                    world.signalling.send(room, kind, event.content, urgency, patience).await
                }
                Outbound::Message(message) | Outbound::Consent(message) => {
                    world.signalling.announce(room, message, patience).await
                }
                Outbound::Membership(content, told) => {
                    done = Some(told);
                    let (kind, key) = (MEMBER_EVENT.to_owned(), world.settings.user.clone());
                    world.rooms.send_state(room, kind, key, content, patience).await
                }
            }
        };
        let sent = self.hurried(sending).await;
        ticket.sent = sent.is_ok();
        if let Some(done) = done {
            let _ = done.send(sent.clone());
        }
        match sent {
            Ok(()) => {}
            Err(error) if courtesy => {
                tracing::debug!(room = %self.room, %error, "the end of candidates was not told");
            }
            Err(error) => {
                if is_consent && matches!(error, SignallingError::Refused(_)) {
                    self.consent_refused.store(true, Ordering::Release);
                }
                tracing::warn!(room = %self.room, %error, "an event could not be sent");
                let what = format!("Not sent: {error}");
                world.board.happened(world.clock.utc_micros(), Severity::Warning, what);
            }
        }
    }

    async fn send_to_devices(self, mut queue: mpsc::Receiver<ToDevice>) {
        let sending = stream::poll_fn(move |context| queue.poll_recv(context)).map(|outbound| {
            let this = self.clone();
            async move {
                match outbound {
                    ToDevice::Event { user, device, event_type, content } => {
                        let sending = this.world.rooms.send_to_device(
                            user,
                            device,
                            event_type.to_owned(),
                            content,
                            this.patience(PATIENCE),
                        );
                        if let Err(error) = this.hurried(sending).await {
                            tracing::warn!(%error, "an event to a device could not be sent");
                        }
                        None
                    }
                    ToDevice::Flush(done) => Some(done),
                }
            }
        });
        // In their order: what is flushed waits for all before it.
        let mut finished = std::pin::pin!(sending.buffered(AT_ONCE));
        while let Some(flush) = finished.next().await {
            if let Some(done) = flush {
                let _ = done.send(());
            }
        }
    }
}
