//! What systemd is told (`Type=notify`, sd_notify(3)), and the watchdog that only a live tree feeds.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::time::Duration;

use recorder_actors::observe::Board;
use recorder_actors::ports::Clock;
use recorder_core::time::BootTime;

/// The tree's heartbeat may be this old; older, it hangs.
pub const HEARTBEAT_LIMIT: Duration = Duration::from_secs(5);

/// The service manager's socket, if one started us.
#[derive(Debug)]
pub struct Notifier {
    socket: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
}

impl Notifier {
    /// Reads `NOTIFY_SOCKET` and `WATCHDOG_USEC` (sd_watchdog_enabled(3)) out of `environment`. Without a
    /// manager every notice is a no-op.
    ///
    /// # Errors
    /// The socket was named and cannot be used.
    pub fn new(environment: &[(String, String)]) -> io::Result<Self> {
        let value =
            |name: &str| environment.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        let socket = match value("NOTIFY_SOCKET") {
            None | Some("") => None,
            Some(path) => {
                let address = match path.strip_prefix('@') {
                    Some(name) => SocketAddr::from_abstract_name(name)?,
                    None => SocketAddr::from_pathname(path)?,
                };
                Some((UnixDatagram::unbound()?, address))
            }
        };
        let for_us = value("WATCHDOG_PID").is_none_or(|pid| pid == std::process::id().to_string());
        let watchdog = value("WATCHDOG_USEC")
            .filter(|_| for_us)
            .and_then(|micros| micros.parse().ok())
            .filter(|micros: &u64| *micros > 0)
            .map(Duration::from_micros);
        Ok(Self { socket, watchdog })
    }

    /// Logged in and able to take calls.
    pub fn ready(&self, status: &str) {
        self.send(&format!("READY=1\nSTATUS={}", one_line(status)));
    }

    /// The orderly end has begun.
    pub fn stopping(&self) {
        self.send("STOPPING=1\nSTATUS=finishing recordings");
    }

    /// One line for `systemctl status`.
    pub fn status(&self, text: &str) {
        self.send(&format!("STATUS={}", one_line(text)));
    }

    fn send(&self, message: &str) {
        if let Some((socket, address)) = &self.socket
            && let Err(error) = socket.send_to_addr(message.as_bytes(), address)
        {
            tracing::warn!(%error, "service manager not told");
        }
    }

    /// Feeds the watchdog three times in each of its intervals, while the tree's heartbeat is fresh. It runs
    /// on a thread of its own, so that a hanging runtime stops the tree's heartbeat but not this check.
    ///
    /// # Errors
    /// No thread could be started.
    pub fn watch(self: &Arc<Self>, board: Arc<Board>, clock: Arc<dyn Clock>) -> io::Result<Option<Watchdog>> {
        let Some(interval) = self.watchdog.filter(|_| self.socket.is_some()) else { return Ok(None) };
        let notifier = Arc::clone(self);
        let (stop, stopped) = mpsc::channel::<()>();
        std::thread::Builder::new().name("watchdog".into()).spawn(move || {
            let began = clock.now();
            let mut fed = true;
            loop {
                let fresh = tree_is_alive(&board, clock.now(), began);
                if fresh {
                    notifier.send("WATCHDOG=1");
                } else if fed {
                    tracing::error!("tree without heartbeat, the service manager will restart this process");
                }
                fed = fresh;
                match stopped.recv_timeout(interval / 3) {
                    Err(RecvTimeoutError::Timeout) => {}
                    Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
                }
            }
        })?;
        Ok(Some(Watchdog { _stop: stop }))
    }
}

/// Runs until it is dropped; its thread ends by itself then.
#[derive(Debug)]
pub struct Watchdog {
    _stop: Sender<()>,
}

/// The heartbeat is less than [`HEARTBEAT_LIMIT`] old. A tree that has not beaten yet has that long from
/// `began`.
pub fn tree_is_alive(board: &Board, now: BootTime, began: BootTime) -> bool {
    let beat = BootTime::from_nanos(board.tree_heartbeat.load(Ordering::Relaxed)).max(began);
    now.saturating_since(beat) < HEARTBEAT_LIMIT
}

/// Fields of a notice are lines, so a text must not bring a second one.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;

    struct Hand(AtomicU64);

    impl Clock for Hand {
        fn now(&self) -> BootTime {
            BootTime::from_nanos(self.0.load(Ordering::Relaxed))
        }

        fn utc_micros(&self) -> i64 {
            0
        }
    }

    fn manager(watchdog: &str) -> (UnixDatagram, Arc<Notifier>) {
        let name = format!("recorder-test-{}-{:?}", std::process::id(), std::thread::current().id());
        let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let environment = [
            ("NOTIFY_SOCKET".to_owned(), format!("@{name}")),
            ("WATCHDOG_USEC".to_owned(), watchdog.to_owned()),
        ];
        (socket, Arc::new(Notifier::new(&environment).unwrap()))
    }

    fn heard(socket: &UnixDatagram) -> io::Result<String> {
        let mut buffer = [0; 256];
        let length = socket.recv(&mut buffer)?;
        Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
    }

    #[test]
    fn the_manager_hears_ready_and_stopping() {
        let (socket, notifier) = manager("0");
        notifier.ready("synced with example.org\nSTOPPING=1");
        notifier.stopping();
        assert_eq!(heard(&socket).unwrap(), "READY=1\nSTATUS=synced with example.org STOPPING=1");
        assert!(heard(&socket).unwrap().starts_with("STOPPING=1\n"));
    }

    #[test]
    fn the_watchdog_is_fed_while_the_tree_beats_and_starves_when_it_hangs() {
        let (socket, notifier) = manager("90000");
        let board = Board::new();
        let clock = Arc::new(Hand(AtomicU64::new(100_000_000_000)));
        board.tree_heartbeat.store(99_000_000_000, Ordering::Relaxed);
        let _watchdog = notifier.watch(Arc::clone(&board), clock.clone()).unwrap().unwrap();
        for _ in 0..3 {
            assert_eq!(heard(&socket).unwrap(), "WATCHDOG=1");
        }
        clock.0.store(104_000_000_000 + 1_000_000_000, Ordering::Relaxed);
        socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        let mut fed = 0;
        while heard(&socket).is_ok() {
            fed += 1;
        }
        assert!(fed <= 1, "fed {fed} times after the tree hung");
    }

    #[test]
    fn without_a_manager_nothing_is_sent_and_nothing_runs() {
        let notifier = Arc::new(Notifier::new(&[]).unwrap());
        notifier.ready("x");
        let clock = Arc::new(Hand(AtomicU64::new(0)));
        assert!(notifier.watch(Board::new(), clock).unwrap().is_none());
    }
}
