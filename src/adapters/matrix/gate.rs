//! The account's one way out for what counts against its message limit: homeservers let an account send a few events and
//! then one in so many seconds (Synapse: `rc_message`, 10 and then one in 5 s). What is urgent goes first, and a wait
//! that the homeserver asks for is kept by all.
//!
//! Those who want to send stand in a queue by urgency, then by arrival. Of a room only the first goes, and nobody as long
//! as a request for something more urgent is not answered: it may be the last that is granted. Who was told to slow down
//! keeps its place.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use recorder_actors::ports::Urgency;
use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::warn;

use super::follow_ups::FollowUps;

/// Requests under way at once.
const AT_ONCE: usize = 16;
/// Of these kept free for what calls hang on.
const FOR_CALLS: usize = 8;
/// After the homeserver asked us to slow down one request goes at a time, until it has not done so for so long.
const CAREFUL: Duration = Duration::from_secs(60);
/// What nobody's call hangs on may wait so many at a time; what comes on top is given up. Calls bound their own.
const MOST_WAITING: usize = 2_048;

#[derive(Debug, Default)]
pub(super) struct Gate {
    state: Mutex<State>,
    /// What is encrypted keeps clear of them.
    pub(super) follow_ups: Arc<FollowUps>,
}

#[derive(Debug, Default)]
struct State {
    queue: BTreeMap<Key, Standing>,
    arrived: u64,
    going: usize,
    closed_until: Option<Instant>,
    careful_until: Option<Instant>,
}

/// The order in the queue.
type Key = (Urgency, u64);

#[derive(Debug)]
struct Standing {
    room: String,
    turn: Turn,
    called: Arc<Notify>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    Waiting,
    Going,
    /// Its request failed and is made again later; its room waits for it, others do not.
    Resting,
}

/// A place in the queue; it is given up when dropped.
#[derive(Debug)]
pub(super) struct Place {
    gate: Arc<Gate>,
    key: Key,
    called: Arc<Notify>,
}

impl Gate {
    /// The last place among equals. `None` if too much waits already.
    pub(super) fn line_up(self: &Arc<Self>, urgency: Urgency, room: &str) -> Option<Place> {
        let mut state = self.lock();
        if urgency > Urgency::Call && state.queue.len() >= MOST_WAITING {
            return None;
        }
        let key = (urgency, state.arrived);
        state.arrived += 1;
        let called = Arc::<Notify>::default();
        let standing = Standing { room: room.to_owned(), turn: Turn::Waiting, called: Arc::clone(&called) };
        state.queue.insert(key, standing);
        state.call_next(Instant::now());
        Some(Place { gate: Arc::clone(self), key, called })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn reopen(self: Arc<Self>, at: Instant) {
        tokio::time::sleep_until(at).await;
        self.lock().call_next(Instant::now());
    }
}

impl State {
    /// Lets those go whose turn it is.
    fn call_next(&mut self, now: Instant) {
        if self.closed_until.is_some_and(|until| now < until) {
            return;
        }
        let careful = self.careful_until.is_some_and(|until| now < until);
        let mut rooms = HashSet::new();
        let mut most_urgent = None;
        for ((urgency, _), standing) in &mut self.queue {
            let is_first = rooms.insert(standing.room.as_str());
            if standing.turn == Turn::Going || is_first && standing.turn == Turn::Waiting {
                most_urgent.get_or_insert(*urgency);
            }
            if most_urgent.is_some_and(|most| *urgency > most) {
                break;
            }
            let free = match urgency {
                _ if careful => 1,
                Urgency::Call => AT_ONCE,
                _ => AT_ONCE - FOR_CALLS,
            };
            if self.going >= free {
                break;
            }
            if is_first && standing.turn == Turn::Waiting {
                standing.turn = Turn::Going;
                self.going += 1;
                standing.called.notify_one();
            }
        }
    }

    fn set(&mut self, key: Key, turn: Turn) {
        if let Some(standing) = self.queue.get_mut(&key) {
            let before = std::mem::replace(&mut standing.turn, turn);
            self.going -= usize::from(before == Turn::Going);
        }
    }
}

impl Place {
    /// Resolves when the request may be made.
    pub(super) async fn turn(&self) {
        self.called.notified().await;
    }

    /// The homeserver asks for a wait: everybody keeps it, and this place comes again in its order.
    pub(super) fn slow_down(&self, wait: Duration) {
        let now = Instant::now();
        let opens = now + wait;
        let mut state = self.gate.lock();
        if state.careful_until.is_none_or(|until| until <= now) {
            warn!(
                wait_s = wait.as_secs_f64(),
                "the homeserver limits how much the recorder may send, so messages come late; lift the limit of its \
                 account (README.md, \"Rate limits\")"
            );
        }
        state.careful_until = Some(opens + CAREFUL);
        state.closed_until = state.closed_until.max(Some(opens));
        state.set(self.key, Turn::Waiting);
        drop(state);
        tokio::spawn(Arc::clone(&self.gate).reopen(opens));
    }

    /// Steps aside for `wait`, then waits for its turn again.
    pub(super) async fn rest(&self, wait: Duration) {
        {
            let mut state = self.gate.lock();
            state.set(self.key, Turn::Resting);
            state.call_next(Instant::now());
        }
        tokio::time::sleep(wait).await;
        let mut state = self.gate.lock();
        state.set(self.key, Turn::Waiting);
        state.call_next(Instant::now());
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.gate.lock();
        state.set(self.key, Turn::Waiting);
        state.queue.remove(&self.key);
        state.call_next(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Whether a place's turn has come, without waiting for it.
    async fn may_go(place: &Place) -> bool {
        tokio::time::timeout(Duration::ZERO, place.turn()).await.is_ok()
    }

    fn line_up(gate: &Arc<Gate>, urgency: Urgency, room: usize) -> Place {
        gate.line_up(urgency, &format!("!{room}:hs")).expect("a place")
    }

    #[tokio::test(start_paused = true)]
    async fn in_a_room_events_keep_their_order_and_urgent_ones_go_first() {
        let gate = Arc::<Gate>::default();
        let answer = line_up(&gate, Urgency::Call, 1);
        let end_of_candidates = line_up(&gate, Urgency::Candidates, 1);
        let words = line_up(&gate, Urgency::Notice, 1);
        let hangup = line_up(&gate, Urgency::Call, 1);
        assert!(may_go(&answer).await && !may_go(&hangup).await && !may_go(&end_of_candidates).await);
        drop(answer);
        assert!(may_go(&hangup).await && !may_go(&end_of_candidates).await && !may_go(&words).await);
        drop(hangup);
        assert!(may_go(&end_of_candidates).await && !may_go(&words).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_that_the_homeserver_asks_for_is_kept_by_all_and_ends_by_urgency() {
        let gate = Arc::<Gate>::default();
        let notice = line_up(&gate, Urgency::Notice, 1);
        assert!(may_go(&notice).await);
        notice.slow_down(seconds(5));
        let answers: Vec<_> = (11..=13).map(|room| line_up(&gate, Urgency::Call, room)).collect();
        let stranger = line_up(&gate, Urgency::Stranger, 21);
        assert!(!may_go(&answers[0]).await, "the gate is closed");
        tokio::time::sleep(seconds(6)).await;
        assert!(may_go(&answers[0]).await);
        assert!(!may_go(&answers[1]).await, "one at a time");
        for (answer, next) in answers.into_iter().zip([12, 13, 1]) {
            drop(answer);
            let going = gate.lock().queue.values().filter(|s| s.turn == Turn::Going).count();
            assert_eq!(going, 1, "and then room {next}");
        }
        assert!(may_go(&notice).await && !may_go(&stranger).await);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_goes_before_the_answer_to_what_is_more_urgent() {
        let gate = Arc::<Gate>::default();
        let answer = line_up(&gate, Urgency::Call, 1);
        let words = line_up(&gate, Urgency::People, 2);
        assert!(may_go(&answer).await && !may_go(&words).await);
        drop(answer);
        assert!(may_go(&words).await);
    }

    #[tokio::test(start_paused = true)]
    async fn who_rests_lets_other_rooms_go_and_keeps_its_own_waiting() {
        let gate = Arc::<Gate>::default();
        let first = line_up(&gate, Urgency::Call, 1);
        let second = line_up(&gate, Urgency::Call, 1);
        assert!(may_go(&first).await);
        let resting = async {
            first.rest(seconds(3)).await;
            assert!(may_go(&first).await, "its turn comes again");
        };
        let others = async {
            tokio::time::sleep(seconds(1)).await;
            assert!(!may_go(&second).await);
            assert!(may_go(&line_up(&gate, Urgency::Notice, 2)).await);
        };
        tokio::join!(resting, others);
    }

    #[tokio::test(start_paused = true)]
    async fn words_leave_room_for_calls_and_are_bounded() {
        let gate = Arc::<Gate>::default();
        let words: Vec<_> = (0..MOST_WAITING).map(|room| line_up(&gate, Urgency::People, room)).collect();
        assert!(gate.line_up(Urgency::Notice, "!more:hs").is_none());
        assert_eq!(gate.lock().going, AT_ONCE - FOR_CALLS);
        let calls: Vec<_> = (0..20).map(|call| line_up(&gate, Urgency::Call, MOST_WAITING + call)).collect();
        assert_eq!(gate.lock().going, AT_ONCE);
        drop(calls);
        drop(words);
        let state = gate.lock();
        assert_eq!((state.going, state.queue.len()), (0, 0), "nothing stays");
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_quiet_minute_it_is_careful_no_more() {
        let gate = Arc::<Gate>::default();
        line_up(&gate, Urgency::Call, 1).slow_down(seconds(1));
        tokio::time::sleep(seconds(2)).await;
        let two = [line_up(&gate, Urgency::Call, 1), line_up(&gate, Urgency::Call, 2)];
        assert!(may_go(&two[0]).await && !may_go(&two[1]).await);
        tokio::time::sleep(CAREFUL).await;
        let third = line_up(&gate, Urgency::Call, 3);
        assert!(may_go(&two[1]).await && may_go(&third).await);
    }
}
