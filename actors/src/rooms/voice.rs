//! What is said in a room about its recording: one after the other, by a task of the room's own, so that an edit never
//! overtakes what it edits. What is to be remembered goes to the disk by another task, whatever the homeserver does.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use recorder_core::call::Announcement;
use recorder_core::room::{self, MessageTag};
use tokio::sync::{mpsc, watch};

use super::{Answer, MOST_ANSWERS};
use crate::observe::Totals;
use crate::ports::{Relation, RoomRecord, SignallingError};
use crate::supervise::{Link, lock};
use crate::world::World;

/// Things that may wait to be said in one room; later ones are dropped, counted, and their machine is told.
const MOST_WAITING: usize = 128;
/// How long one thing may be tried.
const PATIENCE: Duration = Duration::from_secs(60);

enum Saying {
    Message(MessageTag, Announcement, Relation),
    Reaction { event: String, key: &'static str },
    Name(Option<String>),
}

/// A room's way out. Its tasks end with it.
pub(super) struct Voice {
    world: Arc<World>,
    link: Arc<Link>,
    queue: mpsc::Sender<Saying>,
    memory: watch::Sender<RoomRecord>,
    answers: Arc<Mutex<VecDeque<Answer>>>,
}

impl Voice {
    pub(super) fn open(
        world: &Arc<World>,
        link: &Arc<Link>,
        room: &str,
        answers: &Arc<Mutex<VecDeque<Answer>>>,
    ) -> Self {
        let (queue, waiting) = mpsc::channel(MOST_WAITING);
        let (memory, newest) = watch::channel(RoomRecord::default());
        let speaker = Speaker {
            world: Arc::clone(world),
            link: Arc::clone(link),
            room: room.to_owned(),
            answers: Arc::clone(answers),
        };
        actix::spawn(speaker.speak(waiting));
        actix::spawn(remember(Arc::clone(world), room.to_owned(), newest));
        Self { world: Arc::clone(world), link: Arc::clone(link), queue, memory, answers: Arc::clone(answers) }
    }

    pub(super) fn say(&self, tag: MessageTag, message: Announcement, relation: room::Relation) {
        let relation = match relation {
            room::Relation::None => Relation::None,
            room::Relation::Thread { root, reply_to } => Relation::Thread { root, reply_to },
            room::Relation::Edit { event } => Relation::Edit { event },
        };
        if !self.push(Saying::Message(tag, message, relation)) {
            answer(&self.answers, Answer::Failed(tag));
            self.link.nudge();
        }
    }

    pub(super) fn react(&self, event: String, key: &'static str) {
        self.push(Saying::Reaction { event, key });
    }

    pub(super) fn set_name(&self, name: Option<String>) {
        self.push(Saying::Name(name));
    }

    /// The newest of several is what stays.
    pub(super) fn keep(&self, record: RoomRecord) {
        self.memory.send_replace(record);
    }

    fn push(&self, saying: Saying) -> bool {
        let taken = self.queue.try_send(saying).is_ok();
        if !taken {
            tracing::warn!("too much waits to be said in a room, one thing is dropped");
            Totals::count(&self.world.board.totals.signals_ignored);
        }
        taken
    }
}

async fn remember(world: Arc<World>, room: String, mut newest: watch::Receiver<RoomRecord>) {
    while newest.changed().await.is_ok() {
        let record = newest.borrow_and_update().clone();
        world.memory.keep(room.clone(), record).await;
    }
}

struct Speaker {
    world: Arc<World>,
    link: Arc<Link>,
    room: String,
    answers: Arc<Mutex<VecDeque<Answer>>>,
}

impl Speaker {
    async fn speak(self, mut queue: mpsc::Receiver<Saying>) {
        while let Some(saying) = queue.recv().await {
            let room = self.room.clone();
            let rooms = &self.world.rooms;
            let refused = match saying {
                Saying::Message(tag, message, relation) => {
                    let (told, refused) = match rooms.say(room, message, relation, PATIENCE).await {
                        Ok(id) => (Answer::Said(tag, id), None),
                        Err(error @ SignallingError::Refused(_)) => (Answer::Refused(tag), Some(error)),
                        Err(error) => (Answer::Failed(tag), Some(error)),
                    };
                    answer(&self.answers, told);
                    self.link.nudge();
                    refused
                }
                Saying::Reaction { event, key } => {
                    rooms.react(room, event, key.to_owned(), PATIENCE).await.err()
                }
                Saying::Name(name) => rooms.set_room_name(room, name, PATIENCE).await.err(),
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
