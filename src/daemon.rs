//! The daemon: everything wired, from settings to a clean end.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use recorder_actors::observe::{ActorKind, Board, Severity};
use recorder_actors::ports::{Clock, LiveCall, RoomRecord};
use recorder_actors::supervise::{Check, Link, Slot};
use recorder_actors::supervisor::{ShutDown, SupervisorActor, SupervisorShared};
use recorder_actors::testing::faulty_world;
use recorder_actors::world::{GroupSettings, LeaveTerms, Numbers, TreeSettings, World};
use recorder_core::call::{Announcement, CallDesk, DeskSettings, greeting};
use recorder_core::ids::SessionId;
use recorder_core::manifest::Utc;
use recorder_core::room::room_greeting;
use recorder_core::time::BootTime;

use crate::adapters::clock::SystemClock;
use crate::adapters::disk::{self, DiskError};
use crate::adapters::feed;
use crate::adapters::legacy_call::{self, MatrixSignalling};
use crate::adapters::live_calls::LiveCallFile;
use crate::adapters::matrix::{
    AccountError, AccountSettings, AllowList, ErrorClass, Greeting, Greetings, MatrixAccount,
};
use crate::adapters::media::MediaSettings;
use crate::adapters::recovery;
use crate::adapters::room_memory::{RoomFile, RoomMemoryError};
use crate::adapters::rooms::MatrixRooms;
use crate::adapters::sessions::{KEPT_FOR, LeftOver, boot_id};
use crate::cli::exit;
use crate::recording::{RecordingError, RecordingPath};
use crate::service::Notifier;
use crate::settings::Settings;
use crate::shutdown::StopCause;
use crate::telemetry::Redactor;
use crate::web::{self, WebError, WebSettings};

/// How long calls may take to end in order when the daemon stops.
const CALLS_LIMIT: Duration = Duration::from_secs(4);
/// How long the account's last requests may take then.
const ACCOUNT_LIMIT: Duration = Duration::from_secs(1);
/// After this the process ends whatever is open; the next start repairs it.
const HARD_LIMIT: Duration = Duration::from_secs(5);
/// A media loop or a pump that has not gone round for so long is dead.
const MEDIA_LIMIT: Duration = Duration::from_secs(10);
/// The tree's root is looked after this often.
const ROOT_TICK: Duration = Duration::from_millis(250);

#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error(transparent)]
    Account(#[from] AccountError),
    #[error(transparent)]
    Web(#[from] WebError),
    #[error(transparent)]
    Recording(#[from] RecordingError),
    #[error(transparent)]
    Rooms(#[from] RoomMemoryError),
    #[error("matrix.allow: {0}")]
    Allow(String),
    #[error("the service manager's socket cannot be used: {0}")]
    Service(std::io::Error),
    #[error("{0}")]
    Fault(String),
}

impl DaemonError {
    /// For the service manager: 77 and 78 are not worth starting again for.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Account(error) => match error.class() {
                ErrorClass::Authentication => exit::EX_NOPERM,
                ErrorClass::Transient => exit::EX_TEMPFAIL,
                ErrorClass::Configuration => exit::EX_CONFIG,
                // A store in use by another process may be free a moment later.
                ErrorClass::Storage if matches!(error, AccountError::StoreLocked { .. }) => exit::EX_TEMPFAIL,
                ErrorClass::Storage => exit::EX_CONFIG,
            },
            Self::Disk(DiskError::Locked { .. } | DiskError::Unavailable { .. })
            | Self::Web(WebError::Listen { .. }) => exit::EX_TEMPFAIL,
            Self::Disk(_) | Self::Rooms(_) | Self::Allow(_) | Self::Web(WebError::Token { .. }) => {
                exit::EX_CONFIG
            }
            Self::Recording(RecordingError::Media(_)) => exit::EX_TEMPFAIL,
            Self::Recording(RecordingError::Disk(_)) => exit::EX_CONFIG,
            Self::Recording(RecordingError::Thread(_)) | Self::Web(WebError::Thread(_)) => exit::EX_TEMPFAIL,
            Self::Service(_) | Self::Fault(_) => exit::EX_SOFTWARE,
        }
    }
}

/// Runs until `stop` resolves or something inside cannot go on. Call it on an actix system whose tokio runtime has
/// several threads: the tree stays on this thread, everything else goes to the others.
///
/// Returns within seconds of the stop, whatever hangs; threads that hang are left behind, so the caller is to end the
/// process and not to wait for them.
pub async fn run(
    settings: Settings,
    redactor: Redactor,
    stop: impl Future<Output = StopCause>,
    environment: &[(String, String)],
) -> Result<(), DaemonError> {
    let notifier = Arc::new(Notifier::new(environment).map_err(DaemonError::Service)?);
    let mut stop = std::pin::pin!(stop);
    // A repair or a login that takes long can be stopped as well; nothing is recorded yet.
    let running = tokio::select! {
        cause = &mut stop => return ended(cause),
        running = Box::pin(Running::start(&settings, redactor)) => running?,
    };
    let (board, clock) = (Arc::clone(&running.path.board), Arc::clone(&running.path.clock));
    let watchdog = notifier.watch(board, clock).map_err(DaemonError::Service)?;
    let notified = actix::spawn(tell_ready(Arc::clone(&notifier), running.account.clone()));

    let cause = tokio::select! {
        cause = &mut stop => cause,
        cause = running.tree.mind(&running.path) => cause,
    };
    match &cause {
        StopCause::Signal(name) => tracing::info!(signal = name, "stopping"),
        StopCause::Fault(why) => tracing::error!(%why, "stopping, so that a fresh process can go on"),
    }
    notifier.stopping();
    notified.abort();
    if tokio::time::timeout(HARD_LIMIT, running.shut_down()).await.is_err() {
        tracing::error!("not everything was finished in time; the next start repairs the rest");
    }
    drop(watchdog);
    ended(cause)
}

fn ended(cause: StopCause) -> Result<(), DaemonError> {
    match cause {
        StopCause::Signal(_) => Ok(()),
        StopCause::Fault(why) => Err(DaemonError::Fault(why)),
    }
}

/// Everything that runs.
struct Running {
    path: RecordingPath,
    account: MatrixAccount,
    tree: Tree,
    page: web::WebHandle,
}

impl Running {
    async fn start(settings: &Settings, redactor: Redactor) -> Result<Self, DaemonError> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let board = Board::new();
        let directory = settings.recordings.directory.clone();
        let lock = disk::take_folder(&directory)?;
        let page = web::serve(WebSettings::from_settings(settings)?, Arc::clone(&board), Arc::clone(&clock))?;
        tracing::info!(address = %page.address, "status page");
        let account_settings = account_settings(settings, redactor)?;
        let rooms = RoomFile::open(&account_settings.state_dir)?;
        let left = recover(&directory, &clock, &board, running_sessions(&rooms.1)).await;
        let reserve = settings.recordings.reserve.0;
        let media = media_settings(settings);
        let path = RecordingPath::start(&directory, reserve, media, Arc::clone(&board), lock, left)?;
        for address in path.media.bound() {
            tracing::info!(%address, "media port");
        }
        let hello = greetings(settings);
        let connecting =
            MatrixAccount::connect(&account_settings, Arc::clone(&clock), Arc::clone(&board), hello);
        let (account, deliveries) = Box::pin(connecting).await?;
        tracing::info!(user = %account.user_id(), device = %account.device_id(), "logged in");
        let (live_calls, left) = LiveCallFile::open(&account_settings.state_dir);
        let sessions = Arc::clone(&path.sessions);
        actix::spawn(async move {
            actix::clock::sleep(KEPT_FOR).await;
            sessions.abandon_kept();
        });
        let tree = Tree::start(settings, &path, &account, live_calls, &left, rooms, deliveries);
        Ok(Self { path, account, tree, page })
    }

    /// Calls, then what is on its way to the disk and the account at the same time, then the page.
    async fn shut_down(self) {
        let Self { path, account, tree, page } = self;
        tree.shut_down().await;
        let files = tokio::task::spawn_blocking(move || path.shut_down());
        let (files, account) = tokio::join!(files, tokio::time::timeout(ACCOUNT_LIMIT, account.stop()));
        if files.is_err() {
            tracing::error!("the recording threads did not end in order");
        }
        if account.is_err() {
            tracing::warn!("the account's last requests were given up");
        }
        page.stop().await;
    }
}

/// The actor tree with what keeps its root alive.
struct Tree {
    shared: Arc<SupervisorShared>,
    slot: Arc<Slot<SupervisorActor>>,
}

impl Tree {
    fn start(
        settings: &Settings,
        path: &RecordingPath,
        account: &MatrixAccount,
        live_calls: LiveCallFile,
        left: &[LiveCall],
        (memory, remembered): (RoomFile, HashMap<String, RoomRecord>),
        deliveries: tokio::sync::mpsc::Receiver<crate::adapters::matrix::Delivery>,
    ) -> Self {
        let world = Arc::new(faulty_world(World {
            settings: TreeSettings {
                user: account.user_id(),
                device: account.device_id(),
                restart: recorder_core::restart::RestartTerms::default(),
                group: group_settings(settings),
            },
            clock: Arc::clone(&path.clock),
            listening: account.listening_since(),
            media: Arc::clone(&path.media) as _,
            segments: Arc::clone(&path.pumps) as _,
            signalling: Arc::new(MatrixSignalling::new(account.clone())),
            rooms: Arc::new(MatrixRooms::new(account.clone())),
            memory: Arc::new(memory),
            sessions: Arc::clone(&path.sessions) as _,
            live_calls: Arc::new(live_calls.clone()),
            disk: path.disk.clone(),
            board: Arc::clone(&path.board),
            numbers: Numbers::default(),
        }));
        let desk = CallDesk::new(DeskSettings {
            user: account.user_id(),
            party: account.device_id(),
            answer: settings.calls.answer,
            max_calls: settings.calls.max,
        });
        let shared = SupervisorShared::new(&world, desk, remembered);
        for call in left {
            shared.mark_ended(&call.room, &call.call_id);
        }
        let root = Arc::<Link>::default();
        let slot =
            Slot::new(&world, &root, "supervisor".to_owned(), ActorKind::Supervisor, account.user_id());
        start_supervisor(&slot, &shared);
        actix::spawn(feed::feed(
            account.clone(),
            deliveries,
            Arc::clone(&slot),
            settings.matrix.clone(),
            Arc::clone(&path.clock),
        ));
        if !left.is_empty() {
            let clock = Arc::clone(&path.clock);
            let farewell =
                legacy_call::say_farewell(account.clone(), live_calls.clone(), left.to_vec(), clock);
            actix::spawn(farewell);
        }
        actix::spawn(live_calls.keep_seen(Arc::clone(&path.clock)));
        Self { shared, slot }
    }

    /// Watches over root and media loop; resolves when only a fresh process can help.
    async fn mind(&self, path: &RecordingPath) -> StopCause {
        let mut rebuilt = false;
        let mut tick = actix::clock::interval(ROOT_TICK);
        loop {
            tick.tick().await;
            let now = path.clock.now();
            match self.slot.check(now) {
                // Once; its slots hold all the calls, and they go on meanwhile.
                Check::RestartNow if !rebuilt => {
                    rebuilt = true;
                    start_supervisor(&self.slot, &self.shared);
                }
                Check::RestartNow | Check::GivenUp | Check::Empty => {
                    return StopCause::Fault("the supervisor failed twice".to_owned());
                }
                Check::Running | Check::Waiting => {}
            }
            let beat = recorder_actors::ports::MediaPlane::heartbeat(&*path.media);
            path.board.media_heartbeat.store(beat.as_nanos(), Ordering::Relaxed);
            if beat != BootTime::default() && now.saturating_since(beat) > MEDIA_LIMIT {
                return StopCause::Fault("the media loop stands still".to_owned());
            }
            if path.pumps.busy_for(now) > MEDIA_LIMIT {
                return StopCause::Fault("the pump stands still".to_owned());
            }
        }
    }

    /// Refuses new calls, hangs up, and waits until every session is complete.
    async fn shut_down(&self) {
        self.shared.refuse_new_calls();
        if self.slot.addr().is_none() {
            // It failed, but the calls are in its slots, and somebody has to end them.
            start_supervisor(&self.slot, &self.shared);
        }
        if let Some(supervisor) = self.slot.addr() {
            supervisor.do_send(ShutDown);
        }
        let mut running = self.shared.running();
        let ended = async {
            let mut tick = actix::clock::interval(ROOT_TICK);
            loop {
                tokio::select! {
                    _ = running.wait_for(|calls| *calls == 0) => break,
                    _ = tick.tick() => {}
                }
                // One that failed over the end is followed by another, which goes on with it.
                if self.slot.check(self.shared.world.clock.now()) == Check::RestartNow {
                    start_supervisor(&self.slot, &self.shared);
                }
            }
            self.shared.rooms_told().await;
        };
        if tokio::time::timeout(CALLS_LIMIT, ended).await.is_err() {
            tracing::warn!("some calls did not end in time, or their rooms could not be told");
        }
    }
}

fn start_supervisor(slot: &Arc<Slot<SupervisorActor>>, shared: &Arc<SupervisorShared>) {
    let (inner, shared) = (Arc::clone(slot), Arc::clone(shared));
    slot.start(move |_| SupervisorActor::new(shared, inner));
}

/// `READY=1` once the account has synced: from then on a call is answered.
async fn tell_ready(notifier: Arc<Notifier>, account: MatrixAccount) {
    let mut state = account.state();
    if state.wait_for(|state| state.first_sync_done).await.is_ok() {
        tracing::info!("ready: first sync done");
        notifier.ready("waiting for calls");
    }
}

/// The sessions of group calls that the last process was recording: they go on if their calls do.
fn running_sessions(rooms: &HashMap<String, RoomRecord>) -> HashSet<SessionId> {
    let running = rooms.values().filter(|record| record.durable.running.is_some());
    running.filter_map(|record| record.session.clone()).collect()
}

/// Repairs what earlier processes left, and leaves the sessions of `keep` open.
async fn recover(
    directory: &Path,
    clock: &Arc<dyn Clock>,
    board: &Arc<Board>,
    keep: HashSet<SessionId>,
) -> LeftOver {
    let now = recovery::Now {
        boot_id: boot_id(),
        boot_time: clock.now(),
        utc: Utc::from_micros(clock.utc_micros()),
    };
    let recordings = directory.to_path_buf();
    let report = tokio::task::spawn_blocking(move || recovery::recover(&recordings, &now, &keep)).await;
    let report = match report {
        Ok(Ok(report)) => report,
        Ok(Err(error)) => {
            tracing::error!(%error, "unfinished sessions cannot be looked for");
            return LeftOver::default();
        }
        Err(error) => {
            tracing::error!(%error, "the repair of unfinished sessions failed");
            return LeftOver::default();
        }
    };
    for session in &report.sessions {
        tracing::warn!(folder = %session.folder.display(), repaired = session.repaired().count(), "a session was recovered");
        let what = format!("Recovered an unfinished session, {} files repaired", session.repaired().count());
        board.happened(clock.utc_micros(), Severity::Warning, what);
    }
    report.left_over()
}

fn media_settings(settings: &Settings) -> MediaSettings {
    MediaSettings {
        udp_port: settings.rtc.udp_port,
        bind: settings.rtc.bind,
        advertise_ips: settings.rtc.advertise_ips.clone(),
        include_loopback: settings.rtc.include_loopback,
        opus_bitrate: settings.rtc.opus_bitrate,
        video_start_kbps: settings.rtc.video_start_kbps,
        // Calls that end keep their connection for a moment.
        max_connections: settings.calls.max.saturating_mul(2).max(16),
    }
}

fn group_settings(settings: &Settings) -> GroupSettings {
    let group = &settings.group;
    GroupSettings {
        enabled: group.record,
        name: group.name.clone(),
        contact: (!group.contact.is_empty()).then(|| group.contact.clone()),
        auto: group.auto,
        empty_after: Duration::from_secs(group.empty_after_seconds),
        start_level: group.start_level,
        commands_per_minute: group.commands_per_minute,
        tile: group.tile,
        max_calls: settings.calls.max,
        leave: LeaveTerms::default(),
    }
}

/// What we offer to the rooms that we join, as far as the settings let us do it.
fn greetings(settings: &Settings) -> Greetings {
    let (user, group) = (&settings.matrix.user, &settings.group);
    let two = settings.calls.answer.then(|| greeting(user, group.record));
    let more = group.record.then(|| room_greeting(user, group.start_level));
    let said = |first: &Option<Announcement>, second: &Option<Announcement>| {
        let said = first.as_ref().or(second.as_ref());
        said.map_or_else(Greeting::default, |said| Greeting {
            plain: said.plain.clone(),
            html: said.html.clone(),
        })
    };
    Greetings { two: said(&two, &more), more: said(&more, &two) }
}

fn account_settings(settings: &Settings, redactor: Redactor) -> Result<AccountSettings, DaemonError> {
    let matrix = &settings.matrix;
    let patterns: Vec<_> = matrix.allow.iter().map(ToString::to_string).collect();
    let allow = AllowList::parse(&patterns).map_err(|faults| {
        DaemonError::Allow(faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
    })?;
    Ok(AccountSettings {
        homeserver: matrix.homeserver.clone(),
        user: matrix.user.clone(),
        password_file: matrix.password_file.clone(),
        access_token_file: matrix.access_token_file.clone(),
        store: matrix.store.join("sdk"),
        store_passphrase_file: matrix.store_passphrase_file.clone(),
        recovery_key_file: matrix.recovery_key_file.clone(),
        state_dir: matrix.store.clone(),
        allow,
        called: settings.group.name.clone(),
        device_name: "Call recorder".to_owned(),
        redactor,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_room_is_offered_what_the_settings_allow_and_nothing_else() {
        let told = |answer: bool, record: bool| {
            let mut settings = Settings::default();
            settings.calls.answer = answer;
            settings.group.record = record;
            let Greetings { two, more } = greetings(&settings);
            [two, more].map(|greeting| {
                (greeting.plain.contains("Call me in this room"), greeting.plain.contains("!record"))
            })
        };
        assert_eq!(told(true, true), [(true, true), (false, true)]);
        assert_eq!(told(true, false), [(true, false), (true, false)]);
        assert_eq!(told(false, true), [(false, true), (false, true)]);
        assert_eq!(told(false, false), [(false, false), (false, false)]);
    }
}
