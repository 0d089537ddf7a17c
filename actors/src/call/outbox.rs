//! What a call sends: into its room one event after the other, so that an answer never overtakes another; to devices a
//! few at a time, because their events are numbered.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use recorder_core::call::{Announcement, Outgoing};
use recorder_core::mesh::MEMBER_EVENT;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::observe::{Severity, Totals};
use crate::ports::SignallingError;
use crate::supervise::guarded;
use crate::world::World;

/// Events that may wait to be sent into the room; later ones are dropped and counted.
const MOST_OUTGOING: usize = 64;
/// Events to devices that may wait; later ones are dropped and counted, and the calls that miss them are tried again.
const MOST_TO_DEVICES: usize = 2_048;
/// Events to devices under way at once.
const AT_ONCE: usize = 8;
/// How long an event may be tried.
const PATIENCE: Duration = Duration::from_secs(60);
/// Once the call is in a hurry.
const SHORT_PATIENCE: Duration = Duration::from_secs(2);

enum Outbound {
    Event(Outgoing),
    Message(Announcement),
    /// Tells people that they are recorded.
    Consent(Announcement),
    /// Our membership; answered with what became of it.
    Membership(Value, oneshot::Sender<Result<(), SignallingError>>),
    /// Answered when all before it was sent or given up: whether a hang-up among it was not sent.
    Flush(oneshot::Sender<bool>),
}

enum ToDevice {
    Event { user: String, device: String, event_type: &'static str, content: Value },
    Flush(oneshot::Sender<()>),
}

/// A call's way to its room and to its participants' devices. Its tasks end with the last clone.
#[derive(Clone)]
pub(super) struct Outbox {
    world: Arc<World>,
    queue: mpsc::Sender<Outbound>,
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
        actix::spawn(sender.clone().send_in_order(waiting));
        actix::spawn(sender.send_to_devices(for_devices));
        Self { world: Arc::clone(world), queue, devices, hurry, consent_refused }
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

    /// Resolves when all that was put in before is sent or given up. False if a hang-up is among what was not sent.
    pub(super) async fn flushed(&self) -> bool {
        let ((done, flushed), (sent, devices)) = (oneshot::channel(), oneshot::channel());
        if self.queue.send(Outbound::Flush(done)).await.is_err()
            || self.devices.send(ToDevice::Flush(sent)).await.is_err()
        {
            return false;
        }
        let (room, devices) = tokio::join!(flushed, devices);
        room.is_ok_and(|hangup_failed| !hangup_failed) && devices.is_ok()
    }

    fn push(&self, outbound: Outbound) {
        if self.queue.try_send(outbound).is_err() {
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
    fn patience(&self) -> Duration {
        if self.hurry.is_cancelled() { SHORT_PATIENCE } else { PATIENCE }
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

    async fn send_in_order(self, mut queue: mpsc::Receiver<Outbound>) {
        let mut hangup_failed = false;
        while let Some(outbound) = queue.recv().await {
            let (world, room) = (&self.world, self.room.clone());
            let is_consent = matches!(outbound, Outbound::Consent(_));
            let (sending, is_hangup, done) = match outbound {
                Outbound::Event(event) => {
                    let is_hangup = event.event_type == "m.call.hangup";
                    let event_type = event.event_type.to_owned();
                    let sending = world.signalling.send(room, event_type, event.content, self.patience());
                    (sending, is_hangup, None)
                }
                Outbound::Message(message) | Outbound::Consent(message) => {
                    (world.signalling.announce(room, message, self.patience()), false, None)
                }
                Outbound::Membership(content, done) => {
                    let (kind, key) = (MEMBER_EVENT.to_owned(), world.settings.user.clone());
                    (world.rooms.send_state(room, kind, key, content, self.patience()), false, Some(done))
                }
                Outbound::Flush(done) => {
                    let _ = done.send(hangup_failed);
                    continue;
                }
            };
            let sent = self.hurried(sending).await;
            if let Some(done) = done {
                let _ = done.send(sent.clone());
            }
            if let Err(error) = sent {
                hangup_failed |= is_hangup;
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
                            this.patience(),
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
