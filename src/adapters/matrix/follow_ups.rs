//! The SDK's own requests after each sync response, and why what is sent encrypted goes around them.
//!
//! Before an event goes into an encrypted room, the SDK makes sure of a session with every device of its members. Of a
//! member without a known device it waits up to 5 s for the device list, if that is due; and our own user, who has no
//! other device, is such a member whenever we come into a room. As it waits it holds the lock that the requests after a
//! sync need first, and it is those that ask for device lists. So neither gets on: the event is late, and no room is
//! heard meanwhile (matrix-sdk 0.18: `Client::claim_one_time_keys`, `IdentityManager::get_user_devices_for_encryption`).

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;
use tracing::debug;

/// In so long the requests that follow have got hold of the lock, unless it is kept from them.
const SHORT: Duration = Duration::from_millis(300);
/// On a homeserver that is slow with everything, what is sent gets more time from turn to turn, up to so much.
const LONGEST: Duration = Duration::from_millis(2_400);

/// Whether requests after a sync response are under way.
#[derive(Debug, Default)]
pub(super) struct FollowUps(watch::Sender<Count>);

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    /// Responses taken in.
    heard: u64,
    /// Responses whose requests are done.
    over: u64,
}

impl Count {
    fn under_way(&self) -> bool {
        self.heard > self.over
    }
}

impl FollowUps {
    /// A response was taken in; its requests begin.
    pub(super) fn heard(&self) {
        self.0.send_modify(|count| count.heard += 1);
    }

    /// The requests of a response are done, heard of or not yet.
    pub(super) fn over(&self) {
        self.0.send_modify(|count| count.over += 1);
    }

    /// Nothing is under way, and every response was heard of.
    pub(super) fn at_rest(&self) {
        self.0.send_modify(|count| count.over = count.heard);
    }

    /// Makes a request for which the SDK may want device lists: not while it is about to ask for them, and again whenever it
    /// turns out to stand in their way. It must do no harm to drop it and to make it again.
    pub(super) async fn around<T, F: Future<Output = T>>(&self, mut request: impl FnMut() -> F) -> T {
        let mut count = self.0.subscribe();
        // Of this response the requests have got hold of the lock, however long they take now.
        let mut passed = 0;
        let mut patience = SHORT;
        loop {
            let clear = count.wait_for(|count| !count.under_way() || count.heard == passed);
            let _ = timeout(SHORT, clear).await;
            tokio::select! {
                biased;
                answer = request() => return answer,
                heard = held_up(count.clone(), passed, patience) => passed = heard,
            }
            debug!("an encrypted event stands in the way of device lists and is sent again");
            patience = (patience * 2).min(LONGEST);
        }
    }
}

/// Resolves when the requests of one response, other than the one `passed`, have been under way for so long. That response.
async fn held_up(mut count: watch::Receiver<Count>, passed: u64, patience: Duration) -> u64 {
    let begun = |count: &Count| count.under_way() && count.heard != passed;
    while let Ok(heard) = count.wait_for(begun).await.map(|count| count.heard) {
        let gets_on = count.wait_for(|count| !count.under_way() || count.heard != heard);
        if timeout(patience, gets_on).await.is_err() {
            return heard;
        }
    }
    std::future::pending().await
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use tokio::time::Instant;

    use super::*;

    const LONG: Duration = Duration::from_secs(5);

    /// Makes a request that takes `takes`, the first time; how often it was made and how long all took.
    async fn request(follow_ups: &FollowUps, takes: Duration) -> (u32, Duration) {
        let (began, made) = (Instant::now(), Cell::new(0));
        let attempt = async || {
            made.set(made.get() + 1);
            let takes = if made.get() == 1 { takes } else { Duration::ZERO };
            tokio::time::sleep(takes).await;
        };
        follow_ups.around(attempt).await;
        (made.get(), began.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_sent_waits_for_the_requests_after_a_sync_but_not_for_long() {
        let follow_ups = FollowUps::default();
        follow_ups.heard();
        let later = async {
            tokio::time::sleep(Duration::from_millis(40)).await;
            follow_ups.over();
        };
        let (sent, ()) = tokio::join!(request(&follow_ups, Duration::ZERO), later);
        assert_eq!(sent, (1, Duration::from_millis(40)));
        follow_ups.heard();
        assert_eq!(request(&follow_ups, Duration::ZERO).await, (1, SHORT));
    }

    #[tokio::test(start_paused = true)]
    async fn what_stands_in_the_way_of_the_requests_after_a_sync_is_made_again() {
        let follow_ups = FollowUps::default();
        let later = async {
            tokio::time::sleep(Duration::from_millis(10)).await;
            follow_ups.heard();
        };
        let (sent, ()) = tokio::join!(request(&follow_ups, LONG), later);
        assert_eq!(sent, (2, SHORT + Duration::from_millis(10)));
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_let_the_requests_after_a_sync_pass_does_so_again_for_the_next_ones_only() {
        let follow_ups = FollowUps::default();
        let made = Cell::new(0);
        let attempt = async || {
            made.set(made.get() + 1);
            tokio::time::sleep(LONG).await;
        };
        let responses = async {
            // The first takes long, when the lock is free again too.
            follow_ups.heard();
            tokio::time::sleep(LONG / 2).await;
            assert_eq!(made.get(), 2);
            follow_ups.over();
            follow_ups.heard();
            tokio::time::sleep(LONG).await;
            assert_eq!(made.get(), 3);
            follow_ups.over();
        };
        tokio::join!(follow_ups.around(attempt), responses);
        assert_eq!(made.get(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_homeserver_is_slow_with_is_waited_for() {
        let follow_ups = FollowUps::default();
        let busy = async {
            for _ in 0..20 {
                follow_ups.heard();
                tokio::time::sleep(SHORT / 2).await;
                follow_ups.over();
            }
        };
        let (sent, ()) = tokio::join!(request(&follow_ups, LONG), busy);
        assert_eq!(sent.0, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_response_that_is_heard_of_late_or_never_leaves_nothing_under_way() {
        let follow_ups = FollowUps::default();
        follow_ups.over();
        follow_ups.heard();
        assert_eq!(request(&follow_ups, LONG).await, (1, LONG));
        follow_ups.heard();
        follow_ups.at_rest();
        assert_eq!(request(&follow_ups, LONG).await, (1, LONG));
    }
}
