//! TURN servers of the homeserver, kept for most of their time (client-server API, "VoIP": `/voip/turnServer`).
//!
//! One task asks and writes down, ahead of need: a slow homeserver costs a call [`PATIENCE`] at most, and its answer
//! is there for the next one.

use std::future::Future;
use std::time::Duration;

use matrix_sdk::Client;
use matrix_sdk::ruma::api::client::voip::get_turn_server_info;
use recorder_actors::ports::TurnServer;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tracing::warn;

use super::error::{Fault, fault_of_http};
use crate::adapters::media::turn::udp_host;

/// A call's setup waits no longer than this; it goes on without TURN.
const PATIENCE: Duration = Duration::from_millis(250);
/// One request to the homeserver.
const REQUEST_LIMIT: Duration = Duration::from_secs(30);
/// How long "there are none" is believed.
const NONE_TTL: Duration = Duration::from_secs(600);
/// How long a failure is believed, and how rarely a homeserver that goes on failing is asked.
const FAILURE_TTL: Duration = Duration::from_secs(10);
const LONGEST_FAILURE: Duration = Duration::from_secs(600);
/// However long or short the homeserver says they last.
const LONGEST_TTL: Duration = Duration::from_secs(86_400);
const SHORTEST_TTL: Duration = Duration::from_secs(10);
/// Shares of their time after which they are asked for again, and after which they are not given out any more:
/// credentials must outlive the call's setup.
const REFRESH: f64 = 0.8;
const USABLE: f64 = 0.9;
/// Servers and bytes of an address that are passed on; a homeserver lists a handful.
const MOST_URIS: usize = 16;
const LONGEST_URI: usize = 512;

/// What the homeserver said.
#[derive(Clone, Debug)]
enum Answer {
    Servers { servers: Vec<TurnServer>, ttl: Duration },
    None,
    Failure(String),
}

#[derive(Clone, Debug)]
struct Known {
    servers: Vec<TurnServer>,
    until: Instant,
}

#[derive(Debug)]
pub(super) struct TurnCache {
    known: watch::Sender<Option<Known>>,
    /// Somebody found nothing that is still good.
    wanted: Notify,
}

impl TurnCache {
    pub(super) fn new() -> Self {
        Self { known: watch::Sender::new(None), wanted: Notify::new() }
    }

    /// The servers; empty when the homeserver has none or does not answer in time.
    pub(super) async fn servers(&self) -> Vec<TurnServer> {
        let mut known = self.known.subscribe();
        if good(known.borrow().as_ref()).is_none() {
            self.wanted.notify_one();
        }
        let fresh = known.wait_for(|known| good(known.as_ref()).is_some());
        match tokio::time::timeout(PATIENCE, fresh).await {
            Ok(Ok(known)) => good(known.as_ref()).unwrap_or_default(),
            Ok(Err(_)) | Err(_) => Vec::new(),
        }
    }

    /// Asks at once, before they run out, and when they are wanted and not there; for ever.
    pub(super) async fn keep(&self, client: Client) {
        self.keep_asking(|| ask(client.clone())).await;
    }

    async fn keep_asking<F: Future<Output = Answer>>(&self, mut ask: impl FnMut() -> F) {
        let mut back_off = FAILURE_TTL;
        let mut warned = false;
        loop {
            let asked = Instant::now();
            let answer = tokio::time::timeout(REQUEST_LIMIT, ask()).await;
            match answer.unwrap_or_else(|_| Answer::Failure("no answer".to_owned())) {
                Answer::Servers { servers, ttl } => {
                    back_off = FAILURE_TTL;
                    if none_by_udp(&servers) && !std::mem::replace(&mut warned, true) {
                        warn!(
                            "the homeserver's TURN servers take TLS or TCP only and the recorder speaks UDP to them, so a \
                             call from behind a strict firewall may fail; have it list turn:…?transport=udp as well"
                        );
                    }
                    let ttl = ttl.clamp(SHORTEST_TTL, LONGEST_TTL);
                    self.known.send_replace(Some(Known { servers, until: asked + ttl.mul_f64(USABLE) }));
                    tokio::time::sleep_until(asked + ttl.mul_f64(REFRESH)).await;
                }
                Answer::None => {
                    back_off = FAILURE_TTL;
                    // Believed until the next answer has had its time to come.
                    let until = Instant::now() + NONE_TTL + REQUEST_LIMIT;
                    self.known.send_replace(Some(Known { servers: Vec::new(), until }));
                    tokio::time::sleep(NONE_TTL).await;
                }
                Answer::Failure(reason) => {
                    if back_off == FAILURE_TTL {
                        warn!(reason, "no TURN servers, a call from behind a strict firewall may fail");
                    }
                    let again = Instant::now() + FAILURE_TTL;
                    self.known.send_if_modified(|known| {
                        // Those of before are used up first.
                        let stale = good(known.as_ref()).is_none();
                        if stale {
                            *known = Some(Known { servers: Vec::new(), until: again });
                        }
                        stale
                    });
                    tokio::time::sleep_until(again).await;
                    let _ = tokio::time::timeout(back_off - FAILURE_TTL, self.wanted.notified()).await;
                    back_off = (back_off * 2).min(LONGEST_FAILURE);
                }
            }
        }
    }
}

/// There are servers, and none that we can use.
fn none_by_udp(servers: &[TurnServer]) -> bool {
    let mut uris = servers.iter().flat_map(|server| &server.uris).peekable();
    uris.peek().is_some() && uris.all(|uri| udp_host(uri).is_none())
}

fn good(known: Option<&Known>) -> Option<Vec<TurnServer>> {
    known.filter(|known| Instant::now() < known.until).map(|known| known.servers.clone())
}

async fn ask(client: Client) -> Answer {
    match client.send(get_turn_server_info::v3::Request::new()).await {
        Ok(answer) => {
            let mut uris = answer.uris;
            uris.retain(|uri| uri.len() <= LONGEST_URI);
            uris.truncate(MOST_URIS);
            if uris.is_empty() {
                return Answer::None;
            }
            let server = TurnServer { uris, username: answer.username, password: answer.password };
            Answer::Servers { servers: vec![server], ttl: answer.ttl }
        }
        Err(error) => match fault_of_http(&error) {
            // Synapse answers `{}` when none is configured; others with M_NOT_FOUND.
            Fault::Nonsense(_) | Fault::Refused { .. } => Answer::None,
            fault => Answer::Failure(fault.to_string()),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn server(ttl: u64) -> Answer {
        let uris = vec!["turn:turn.example.org".to_owned()];
        let server = TurnServer { uris, username: "u".into(), password: "p".into() };
        Answer::Servers { servers: vec![server], ttl: Duration::from_secs(ttl) }
    }

    /// A homeserver that takes `delay` for each of `answers`; the last one is its answer ever after.
    fn homeserver(delay: Duration, answers: Vec<Answer>) -> (Arc<TurnCache>, Arc<AtomicUsize>) {
        let (cache, asked) = (Arc::new(TurnCache::new()), Arc::new(AtomicUsize::new(0)));
        let (kept, count) = (Arc::clone(&cache), Arc::clone(&asked));
        tokio::spawn(async move {
            kept.keep_asking(|| {
                let turn = count.fetch_add(1, Ordering::Relaxed).min(answers.len() - 1);
                let answer = answers[turn].clone();
                async move {
                    tokio::time::sleep(delay).await;
                    answer
                }
            })
            .await;
        });
        (cache, asked)
    }

    #[test]
    fn servers_that_take_tls_or_tcp_only_are_none_to_us() {
        let server = |uris: &[&str]| TurnServer {
            uris: uris.iter().map(|uri| (*uri).to_owned()).collect(),
            username: "u".into(),
            password: "p".into(),
        };
        assert!(none_by_udp(&[server(&["turns:t.example.org", "turn:t.example.org?transport=tcp"])]));
        assert!(!none_by_udp(&[
            server(&["turns:t.example.org"]),
            server(&["turn:t.example.org?transport=udp"])
        ]));
        assert!(!none_by_udp(&[server(&["turn:t.example.org"])]) && !none_by_udp(&[]));
    }

    /// The log's writer of this thread, and what was written there.
    fn listening() -> (tracing::subscriber::DefaultGuard, crate::telemetry::Capture) {
        use tracing_subscriber::layer::SubscriberExt;
        let capture = crate::telemetry::Capture::default();
        let log = crate::settings::Log { filter: "warn".into(), format: crate::settings::LogFormat::Text };
        let layer = crate::telemetry::layer(&log, crate::telemetry::Redactor::default(), capture.clone());
        let guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(layer.unwrap()));
        (guard, capture)
    }

    #[tokio::test(start_paused = true)]
    async fn that_none_can_be_used_is_said_once() {
        let (_guard, log) = listening();
        let uris = vec!["turns:turn.example.org".to_owned()];
        let server = TurnServer { uris, username: "u".into(), password: "p".into() };
        let answer = Answer::Servers { servers: vec![server], ttl: Duration::from_secs(60) };
        let (_cache, asked) = homeserver(Duration::ZERO, vec![answer]);
        tokio::time::sleep(Duration::from_secs(600)).await;
        assert!(asked.load(Ordering::Relaxed) > 5);
        assert_eq!(log.text().matches("TLS or TCP only").count(), 1, "{}", log.text());
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_homeserver_holds_no_call_up_and_serves_the_next() {
        let (cache, asked) = homeserver(Duration::from_secs(2), vec![server(3600)]);
        let begun = Instant::now();
        let (one, other) = tokio::join!(cache.servers(), cache.servers());
        assert!(one.is_empty() && other.is_empty());
        assert!(begun.elapsed() < Duration::from_millis(300), "{:?}", begun.elapsed());
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(cache.servers().await.len(), 1);
        assert_eq!(asked.load(Ordering::Relaxed), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn they_are_asked_for_again_before_they_run_out() {
        let (cache, asked) = homeserver(Duration::from_secs(2), vec![server(1000)]);
        for minute in 0..60 {
            tokio::time::sleep(Duration::from_secs(60)).await;
            assert_eq!(cache.servers().await.len(), 1, "minute {minute}");
        }
        assert_eq!(asked.load(Ordering::Relaxed), 1 + 3600 / 800);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failing_homeserver_is_asked_ever_more_seldom_but_for_a_call() {
        let delay = Duration::from_millis(20);
        let mut answers = vec![Answer::Failure("away".into()); 8];
        answers.push(server(3600));
        let (cache, asked) = homeserver(delay, answers);
        // 0, 10, 30, 70, 150, 310, 630, 1230 s, and then not before 1830 s.
        tokio::time::sleep(Duration::from_secs(1300)).await;
        assert_eq!(asked.load(Ordering::Relaxed), 8);
        assert_eq!(cache.servers().await.len(), 1, "it is back, and the call did not wait for its turn");
    }

    #[tokio::test(start_paused = true)]
    async fn good_servers_outlive_a_failure_and_no_longer_than_they_last() {
        let (cache, _) = homeserver(Duration::ZERO, vec![server(1000), Answer::Failure("away".into())]);
        tokio::time::sleep(Duration::from_secs(850)).await;
        assert_eq!(cache.servers().await.len(), 1);
        tokio::time::sleep(Duration::from_secs(100)).await;
        assert!(cache.servers().await.is_empty());
    }
}
