//! Live updates, health and the API: what they say while the recorder works, and while it hangs.

#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

mod web_support;

use std::sync::{Arc, mpsc};
use std::time::Duration;

use actix::{Actor, AsyncContext as _, Context, Handler, Message, System};
use matrix_call_recorder::web::CLIENTS;
use recorder_actors::observe::{Board, Severity};
use web_support::{HandClock, NOW, Stream, beat, busy_board, get, open_settings, serve};

#[test]
fn a_stream_begins_with_the_whole_page_and_then_tells_changes() {
    let clock = HandClock::new();
    let board = busy_board(&clock);
    let page = serve(open_settings(), &board, &clock);
    let mut stream = Stream::open(page.address);
    let first: Vec<_> = (0..4).map(|_| stream.section().unwrap().0).collect();
    assert_eq!(first, ["summary", "recordings", "actors", "happened"]);
    board.happened(NOW, Severity::Info, "Grace joined <b>");
    let (section, html) = stream.section().unwrap();
    assert_eq!(section, "happened", "only what changed is sent");
    assert!(html.contains("Grace joined &lt;b&gt;"), "{html}");
    clock.advance(Duration::from_secs(60));
    stream.until("recordings", "00:43:17");
}

#[test]
fn a_stream_too_many_is_refused_and_a_closed_one_gives_its_place_back() {
    let clock = HandClock::new();
    let page = serve(open_settings(), &busy_board(&clock), &clock);
    let mut open: Vec<_> = (0..CLIENTS).map(|_| Stream::open(page.address)).collect();
    assert!(open.iter_mut().all(|stream| stream.status == 200 && stream.section().is_some()));
    let refused = get(page.address, "/api/v1/events");
    assert_eq!(refused.status, 503);
    assert!(
        refused.header("retry-after").is_some() && refused.body.contains("already open"),
        "{}",
        refused.body
    );
    assert_eq!(get(page.address, "/").status, 200, "the page itself is still there");
    drop(open.pop());
    // The server sees the closed connection when it next writes to it: change something until it has.
    let freed = (0..200).any(|_| {
        clock.advance(Duration::from_secs(1));
        open[0].section();
        Stream::open(page.address).status == 200
    });
    assert!(freed, "the place was not given back");
}

#[test]
fn while_the_tree_hangs_the_page_answers_and_health_says_so() {
    let clock = HandClock::new();
    let board = busy_board(&clock);
    let page = serve(open_settings(), &board, &clock);
    assert_eq!(get(page.address, "/healthz").status, 200);
    clock.advance(Duration::from_millis(4_900));
    assert_eq!(get(page.address, "/healthz").status, 200);
    clock.advance(Duration::from_millis(100));
    let health = get(page.address, "/healthz");
    assert_eq!(health.status, 503);
    let problems = health.json()["problems"].as_array().unwrap().clone();
    assert_eq!(
        problems.iter().map(|problem| problem["what"].as_str().unwrap()).collect::<Vec<_>>(),
        ["tree", "media"]
    );
    let answer = get(page.address, "/");
    assert_eq!(answer.status, 200);
    assert!(answer.body.contains("The actor tree has not answered for 5 s"), "{}", answer.body);
    assert_eq!(get(page.address, "/metrics").status, 200);
    beat(&board, &clock);
    assert_eq!(get(page.address, "/healthz").status, 200);
}

#[test]
fn a_start_may_take_minutes_but_not_for_ever() {
    let clock = HandClock::new();
    let page = serve(open_settings(), &Board::new(), &clock);
    clock.advance(Duration::from_secs(299));
    assert_eq!(get(page.address, "/healthz").status, 200);
    clock.advance(Duration::from_secs(1));
    assert_eq!(get(page.address, "/healthz").status, 503);
}

/// An actor that beats, and that a message holds up until its sender lets go.
struct Beating(Arc<Board>, Arc<HandClock>);

impl Actor for Beating {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        context.run_interval(Duration::from_millis(5), |actor, _| beat(&actor.0, &actor.1));
    }
}

#[derive(Message)]
#[rtype(result = "()")]
struct HoldUp(mpsc::Receiver<()>);

impl Handler<HoldUp> for Beating {
    type Result = ();

    fn handle(&mut self, message: HoldUp, _: &mut Self::Context) {
        let _ = message.0.recv();
    }
}

#[test]
fn an_actor_that_blocks_its_thread_is_found_and_the_page_goes_on() {
    let clock = HandClock::new();
    let board = busy_board(&clock);
    let page = serve(open_settings(), &board, &clock);
    let (told, hears) = mpsc::channel();
    let (for_actor, for_actor_clock) = (Arc::clone(&board), Arc::clone(&clock));
    let tree = std::thread::spawn(move || {
        let system = System::new();
        let address = system.block_on(async { Beating(for_actor, for_actor_clock).start() });
        told.send((address, System::current())).unwrap();
        system.run().unwrap();
    });
    let (actor, system) = hears.recv().unwrap();
    let (let_go, held) = mpsc::channel();
    actor.do_send(HoldUp(held));
    // It is held up once it no longer follows the clock.
    while get(page.address, "/healthz").status == 200 {
        clock.advance(Duration::from_secs(5));
    }
    assert_eq!(get(page.address, "/").status, 200);
    assert_eq!(get(page.address, "/api/v1/actors").status, 200);
    let mut stream = Stream::open(page.address);
    stream.until("summary", "The actor tree has not answered");
    drop(let_go);
    stream.until("summary", "up ");
    while get(page.address, "/healthz").status != 200 {
        std::thread::yield_now();
    }
    system.stop();
    tree.join().unwrap();
}

#[test]
fn a_stalled_disk_is_ill_and_says_so() {
    let clock = HandClock::new();
    let board = busy_board(&clock);
    let page = serve(open_settings(), &board, &clock);
    let mut storage = board.storage.load().as_ref().clone();
    storage.lane_busy_s = 5.1;
    board.storage.store(Arc::new(storage));
    let health = get(page.address, "/healthz");
    assert_eq!((health.status, health.json()["problems"][0]["what"].as_str()), (503, Some("disk")));
}

#[test]
fn readiness_needs_a_login_a_sync_and_a_writable_folder() {
    let clock = HandClock::new();
    let board = busy_board(&clock);
    let page = serve(open_settings(), &board, &clock);
    assert_eq!(get(page.address, "/readyz").status, 200);
    let good = board.account.load_full();
    for (what, logged_in, synced) in [("login", false, true), ("sync", true, false)] {
        let mut account = good.as_ref().clone();
        (account.logged_in, account.first_sync_done) = (logged_in, synced);
        board.account.store(Arc::new(account));
        let answer = get(page.address, "/readyz");
        assert_eq!((answer.status, answer.json()["problems"][0]["what"].as_str()), (503, Some(what)));
    }
    for (age_s, status) in [(119, 200), (122, 503)] {
        let mut account = good.as_ref().clone();
        account.last_sync_utc_micros = Some(NOW - age_s * 1_000_000);
        board.account.store(Arc::new(account));
        let answer = get(page.address, "/readyz");
        assert_eq!(answer.status, status, "{}", answer.json());
    }
    assert_eq!(get(page.address, "/healthz").status, 200, "a restart brings no homeserver back");
    board.account.store(good);
    let mut storage = board.storage.load().as_ref().clone();
    storage.writable = false;
    board.storage.store(Arc::new(storage));
    let answer = get(page.address, "/readyz");
    assert_eq!((answer.status, answer.json()["problems"][0]["what"].as_str()), (503, Some("recordings")));
    assert_eq!(get(page.address, "/healthz").status, 200, "no reason to restart");
}

#[test]
fn the_api_has_the_facts_of_the_page() {
    let clock = HandClock::new();
    let page = serve(open_settings(), &busy_board(&clock), &clock);
    let status = get(page.address, "/api/v1/status").json();
    assert_eq!((status["calls"].as_u64(), status["streams"].as_u64()), (Some(3), Some(4)));
    assert_eq!(status["totals"]["packets_lost"], 2_412);
    assert_eq!(
        (&status["media"]["connections"], &status["media"]["totals"]["kernel_drops"]),
        (&3.into(), &7.into())
    );
    assert_eq!((&status["healthy"], &status["ready"]), (&true.into(), &true.into()));
    assert!(status["recorder"]["source"].as_str().unwrap().starts_with("https://"));

    let calls = get(page.address, "/api/v1/calls").json();
    let camera = &calls["calls"][0]["participants"][0]["tracks"][1];
    assert_eq!((camera["codec"].as_str(), camera["width"].as_u64()), (Some("vp8"), Some(1280)));

    let actors = get(page.address, "/api/v1/actors").json();
    let root = &actors["actors"][0];
    assert_eq!(root["kind"], "supervisor");
    assert_eq!(root["children"].as_array().unwrap().len(), 3);
    let sick = &root["children"][1]["children"][0]["children"][1];
    assert_eq!((sick["generation"].as_u64(), sick["restarts"].as_u64()), (Some(3), Some(2)));

    let newest = get(page.address, "/api/v1/happenings").json()["happenings"][0]["number"].as_u64().unwrap();
    let later = get(page.address, &format!("/api/v1/happenings?after={}", newest - 1)).json();
    assert_eq!(later["happenings"].as_array().unwrap().len(), 1);
    assert_eq!(get(page.address, "/api/v1/happenings?after=x").status, 400);
}

#[test]
fn the_api_document_names_every_field_and_every_path() {
    let clock = HandClock::new();
    let page = serve(open_settings(), &busy_board(&clock), &clock);
    let document =
        std::fs::read_to_string(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/api.md"))
            .unwrap();
    for path in ["status", "actors", "calls", "happenings", "events"] {
        assert!(document.contains(&format!("/api/v1/{path}")), "{path} is not in docs/api.md");
    }
    for path in ["status", "actors", "calls", "happenings"] {
        let mut answer = get(page.address, &format!("/api/v1/{path}")).json();
        for place in ["/totals", "/media/totals"] {
            if let Some(totals) = answer.pointer_mut(place) {
                *totals = serde_json::Value::Null;
            }
        }
        let mut names = Vec::new();
        fields(&answer, &mut names);
        for name in names {
            assert!(document.contains(&format!("`{name}`")), "field {name} of {path} is not in docs/api.md");
        }
    }
}

fn fields(value: &serde_json::Value, names: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(object) => {
            for (name, value) in object {
                names.push(name.clone());
                fields(value, names);
            }
        }
        serde_json::Value::Array(items) => items.iter().for_each(|item| fields(item, names)),
        _ => {}
    }
}
