//! The tree on a real account: our membership of a call, when nothing is heard of us any more.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use matrix_call_recorder::adapters::legacy_call::MatrixSignalling;
use matrix_call_recorder::adapters::live_calls::LiveCallFile;
use matrix_call_recorder::adapters::media::MediaSettings;
use matrix_call_recorder::adapters::room_memory::RoomFile;
use matrix_call_recorder::adapters::rooms::MatrixRooms;
use matrix_call_recorder::adapters::sessions::LeftOver;
use matrix_call_recorder::adapters::{disk, feed};
use matrix_call_recorder::recording::RecordingPath;
use matrix_call_recorder::settings::Settings;
use recorder_actors::observe::{ActorKind, Board};
use recorder_actors::supervise::{Link, Slot};
use recorder_actors::supervisor::{SupervisorActor, SupervisorShared};
use recorder_actors::world::{GroupSettings, LeaveTerms, Numbers, TreeSettings, World};
use recorder_core::call::{CallDesk, DeskSettings};
use serde_json::{Value, json};

use crate::account::Running;
use crate::holding_proxy::HoldingProxy;
use crate::{CALL, CALL_MEMBER, DELAYING, Meeting, share};

/// As the daemon's, but for shorter times.
const LEAVE: LeaveTerms = LeaveTerms { after: Duration::from_secs(4), every: Duration::from_secs(1) };

/// Has the account's rooms kept by a tree; the recording path is to be kept for as long.
fn tree(running: Running, recordings: &Path, allowed: &str) -> RecordingPath {
    let Running { account, deliveries, .. } = running;
    let folder = disk::take_folder(recordings).unwrap();
    let media = MediaSettings {
        bind: std::net::Ipv4Addr::LOCALHOST.into(),
        include_loopback: true,
        ..MediaSettings::default()
    };
    let path = RecordingPath::start(recordings, 0, media, Board::new(), folder, LeftOver::default()).unwrap();
    let (user, party) = (account.user_id(), account.device_id());
    let world = Arc::new(World {
        settings: TreeSettings {
            user: user.clone(),
            device: party.clone(),
            restart: recorder_core::restart::RestartTerms::default(),
            group: GroupSettings { leave: LEAVE, ..GroupSettings::default() },
        },
        clock: Arc::clone(&path.clock),
        listening: recorder_core::time::BootTime(0),
        media: Arc::clone(&path.media) as _,
        segments: Arc::clone(&path.pumps) as _,
        signalling: Arc::new(MatrixSignalling::new(account.clone())),
        rooms: Arc::new(MatrixRooms::new(account.clone())),
        memory: Arc::new(RoomFile::open(recordings).unwrap().0),
        sessions: Arc::clone(&path.sessions) as _,
        live_calls: Arc::new(LiveCallFile::open(recordings).0),
        disk: path.disk.clone(),
        board: Arc::clone(&path.board),
        numbers: Numbers::default(),
    });
    let desk = CallDesk::new(DeskSettings { user: user.clone(), party, answer: true, max_calls: 1 });
    let shared = SupervisorShared::new(&world, desk, HashMap::new());
    let slot =
        Slot::new(&world, &Arc::<Link>::default(), "supervisor".to_owned(), ActorKind::Supervisor, user);
    let (inner, supervised) = (Arc::clone(&slot), shared);
    slot.start(move |_| SupervisorActor::new(supervised, inner));
    let settings = format!("[matrix]\nhomeserver = \"x\"\nuser = \"@x:x\"\nallow = [\"{allowed}\"]\n");
    let (settings, _) = Settings::parse(&settings, &[]).unwrap();
    let clock = Arc::clone(&path.clock);
    actix::spawn(feed::feed(account, deliveries, slot, settings.matrix, clock));
    path
}

fn devices(content: &Value) -> usize {
    content.pointer("/m.calls/0/m.devices").and_then(Value::as_array).map_or(0, Vec::len)
}

#[test]
fn our_membership_goes_by_itself_when_nothing_is_heard_of_us_any_more() {
    let system = actix::System::with_tokio_rt(|| {
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
    });
    system.block_on(async {
        let homeserver = tokio::task::spawn_blocking(|| DELAYING.url.clone()).await.unwrap();
        let proxy = HoldingProxy::start(&homeserver).await;
        let Meeting { scene, running, .. } =
            Meeting::by_way_of(&homeserver, &proxy.url, "leaving", false).await;
        let (bot, recordings) = (scene.bot.clone(), tempfile::tempdir().unwrap());
        scene.open_calls().await;
        let path = tree(running, recordings.path(), &scene.alice_id());
        scene.set(CALL, "conf", json!({ "m.intent": "m.room", "m.type": "m.video" })).await;
        scene.set(CALL_MEMBER, &scene.alice_id(), share("a")).await;
        let start = json!({ "msgtype": "m.text", "body": "!record start" });
        scene.alice.send(scene.room.room_id(), "m.room.message", start).await;
        scene.until_seen(CALL_MEMBER, &bot, |content| devices(content) == 1).await;
        let joined = std::time::Instant::now();
        while joined.elapsed() < LEAVE.after * 2 {
            scene.alice.sync().await;
            assert_eq!(devices(&scene.seen(CALL_MEMBER, &bot).await), 1, "we live");
        }

        proxy.hold_back("/_matrix");
        let cut = std::time::Instant::now();
        scene.until_seen(CALL_MEMBER, &bot, |content| devices(content) == 0).await;
        assert!(cut.elapsed() >= LEAVE.after - LEAVE.every * 2, "{:?}", cut.elapsed());
        path.shut_down();
    });
}
