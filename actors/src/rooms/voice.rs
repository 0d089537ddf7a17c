//! What is said in a room about its recording: one after the other, by a task of the room's own, so that an edit never
//! overtakes what it edits. Reactions wait for nothing of that: they tell somebody that a command was heard. What is to be
//! remembered goes to the disk by another task, whatever the homeserver does.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use recorder_core::call::Announcement;
use recorder_core::room::{self, MessageTag};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::{Answer, MOST_ANSWERS};
use crate::observe::{Severity, Totals};
use crate::ports::{Relation, RoomRecord, SignallingError};
use crate::supervise::{Link, lock};
use crate::world::World;

/// Things that may wait to be said in one room, and as many reactions; later ones are dropped, counted, and their machine is
/// told.
const MOST_WAITING: usize = 128;
/// How long one thing may be tried.
const PATIENCE: Duration = Duration::from_secs(60);
/// Waits between attempts to write down what is to be remembered.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// How long all that waits may take once the process ends.
const LAST_WORDS: Duration = Duration::from_secs(2);

enum Saying {
    Message(MessageTag, Announcement, Relation),
    Reaction {
        event: String,
        key: &'static str,
    },
    Name {
        number: u64,
        name: Option<String>,
    },
    /// Answered when all before it was said or given up.
    Flush(oneshot::Sender<()>),
}

/// A room's way out. Its tasks end with it.
pub(super) struct Voice {
    world: Arc<World>,
    link: Arc<Link>,
    queue: mpsc::Sender<Saying>,
    reactions: mpsc::Sender<Saying>,
    memory: watch::Sender<RoomRecord>,
    /// What of that is on the disk.
    saved: watch::Receiver<RoomRecord>,
    answers: Arc<Mutex<VecDeque<Answer>>>,
    given_up: CancellationToken,
}

impl Voice {
    pub(super) fn open(
        world: &Arc<World>,
        link: &Arc<Link>,
        room: &str,
        answers: &Arc<Mutex<VecDeque<Answer>>>,
    ) -> Self {
        let (queue, waiting) = mpsc::channel(MOST_WAITING);
        let (reactions, waiting_reactions) = mpsc::channel(MOST_WAITING);
        let given_up = CancellationToken::new();
        let (memory, newest) = watch::channel(RoomRecord::default());
        let (written, saved) = watch::channel(RoomRecord::default());
        let speaker = Speaker {
            world: Arc::clone(world),
            link: Arc::clone(link),
            room: room.to_owned(),
            answers: Arc::clone(answers),
            given_up: given_up.clone(),
        };
        actix::spawn(speaker.clone().speak(waiting));
        actix::spawn(speaker.speak(waiting_reactions));
        actix::spawn(remember(Arc::clone(world), room.to_owned(), newest, written));
        let (world, link, answers) = (Arc::clone(world), Arc::clone(link), Arc::clone(answers));
        Self { world, link, queue, reactions, memory, saved, answers, given_up }
    }

    pub(super) fn say(&self, tag: MessageTag, message: Announcement, relation: room::Relation) {
        let relation = match relation {
            room::Relation::None => Relation::None,
            room::Relation::Thread { root, reply_to } => Relation::Thread { root, reply_to },
            room::Relation::Edit { event } => Relation::Edit { event },
        };
        if !self.push(&self.queue, Saying::Message(tag, message, relation)) {
            answer(&self.answers, Answer::Failed(tag));
            self.link.nudge();
        }
    }

    pub(super) fn react(&self, event: String, key: &'static str) {
        self.push(&self.reactions, Saying::Reaction { event, key });
    }

    pub(super) fn set_name(&self, number: u64, name: Option<String>) {
        if !self.push(&self.queue, Saying::Name { number, name }) {
            answer(&self.answers, Answer::Named(number, false));
            self.link.nudge();
        }
    }

    /// The process ends: everything that waits gets two seconds in all.
    pub(super) fn hurry(&self) {
        let given_up = self.given_up.clone();
        actix::spawn(async move {
            tokio::time::sleep(LAST_WORDS).await;
            given_up.cancel();
        });
    }

    /// Resolves when all that was put in before is said or given up, and what is to be remembered is on the disk.
    pub(super) fn flushed(&self) -> impl Future<Output = ()> + 'static {
        let queues = [self.queue.clone(), self.reactions.clone()];
        let (newest, mut saved) = (self.memory.borrow().clone(), self.saved.clone());
        async move {
            for queue in queues {
                let (done, said) = oneshot::channel();
                if queue.send(Saying::Flush(done)).await.is_ok() {
                    let _ = said.await;
                }
            }
            let _ = saved.wait_for(|saved| *saved == newest).await;
        }
    }

    /// The newest of several is what stays.
    pub(super) fn keep(&self, record: RoomRecord) {
        self.memory.send_replace(record);
    }

    fn push(&self, queue: &mpsc::Sender<Saying>, saying: Saying) -> bool {
        let taken = queue.try_send(saying).is_ok();
        if !taken {
            tracing::warn!("too much waits to be said in a room, one thing is dropped");
            Totals::count(&self.world.board.totals.signals_ignored);
        }
        taken
    }
}

/// Writes the newest record until the disk takes it; objections stand in it.
async fn remember(
    world: Arc<World>,
    room: String,
    mut newest: watch::Receiver<RoomRecord>,
    written: watch::Sender<RoomRecord>,
) {
    let unsaved = &world.board.unsaved_rooms;
    while newest.changed().await.is_ok() {
        let mut wait = FIRST_WAIT;
        let mut failing = false;
        loop {
            let record = newest.borrow_and_update().clone();
            let Err(error) = world.memory.keep(room.clone(), record.clone()).await else {
                written.send_replace(record);
                break;
            };
            tracing::error!(%room, %error, "what a room wishes cannot be saved");
            if !std::mem::replace(&mut failing, true) && unsaved.fetch_add(1, Ordering::Relaxed) == 0 {
                let what = format!(
                    "What rooms wish (who is not to be recorded, what runs) cannot be saved: {error}. It is tried again; \
                     a restart now would not know of it"
                );
                world.board.happened(world.clock.utc_micros(), Severity::Error, what);
            }
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                // A newer one makes this one needless, and none will come any more without a sender.
                changed = newest.changed() => if changed.is_err() { break },
            }
            wait = (wait * 2).min(LONGEST_WAIT);
        }
        if failing {
            unsaved.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[derive(Clone)]
struct Speaker {
    world: Arc<World>,
    link: Arc<Link>,
    room: String,
    answers: Arc<Mutex<VecDeque<Answer>>>,
    given_up: CancellationToken,
}

impl Speaker {
    /// Resolves as `saying` does, or when the process can wait no longer.
    async fn hurried<T>(
        &self,
        saying: impl Future<Output = Result<T, SignallingError>>,
    ) -> Result<T, SignallingError> {
        tokio::select! {
            said = saying => said,
            () = self.given_up.cancelled() => {
                Err(SignallingError::Unreachable("the recorder stops".to_owned()))
            }
        }
    }

    async fn speak(self, mut queue: mpsc::Receiver<Saying>) {
        while let Some(saying) = queue.recv().await {
            let room = self.room.clone();
            let rooms = &self.world.rooms;
            let refused = match saying {
                Saying::Message(tag, message, relation) => {
                    let (told, refused) =
                        match self.hurried(rooms.say(room, message, relation, PATIENCE)).await {
                            Ok(id) => (Answer::Said(tag, id), None),
                            Err(error @ SignallingError::Refused(_)) => (Answer::Refused(tag), Some(error)),
                            Err(error) => (Answer::Failed(tag), Some(error)),
                        };
                    answer(&self.answers, told);
                    self.link.nudge();
                    refused
                }
                Saying::Reaction { event, key } => {
                    self.hurried(rooms.react(room, event, key.to_owned(), PATIENCE)).await.err()
                }
                Saying::Name { number, name } => {
                    let refused = self.hurried(rooms.set_room_name(room, name, PATIENCE)).await.err();
                    answer(&self.answers, Answer::Named(number, refused.is_none()));
                    self.link.nudge();
                    refused
                }
                Saying::Flush(done) => {
                    let _ = done.send(());
                    continue;
                }
            };
            if let Some(error) = refused {
                tracing::warn!(room = %self.room, %error, "something could not be said in a room");
            }
        }
    }
}

fn answer(answers: &Mutex<VecDeque<Answer>>, told: Answer) {
    let mut answers = lock(answers);
    if answers.len() < MOST_ANSWERS {
        answers.push_back(told);
    }
}
