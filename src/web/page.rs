//! The status page: whole without JavaScript, kept fresh by server-sent events with it.
//!
//! It copies snapshots off the board and draws them; no lock is held while it does. All remote text goes
//! through [`words::tame`] for its shape and through maud's escaping for its characters.

use std::sync::Arc;
use std::time::Duration;

use actix_web::http::header;
use actix_web::{HttpResponse, web};
use maud::{DOCTYPE, Markup, PreEscaped, html};
use recorder_actors::observe::{
    CallSnapshot, Happening, ParticipantSnapshot, RoomSnapshot, Severity, TrackSnapshot,
};
use recorder_core::room::Waits;
use recorder_core::time::BootTime;

use super::api::live_streams;
use super::{Shared, health, words};
use crate::cli;

mod actors;

/// The parts of the page that change, in the order of [`sections`].
pub(super) const SECTIONS: [&str; 4] = ["summary", "recordings", "actors", "happened"];

/// Bounds on what is drawn, whatever the board holds; what is beyond is counted in one line.
const CALLS: usize = 100;
const PARTICIPANTS: usize = 50;
const TRACKS: usize = 20;
const HAPPENINGS: usize = 40;
const WAITING: usize = 10;
const STAYS: usize = 3;

/// A sync long-polls for half a minute; without one for this long something is wrong, seconds.
const SYNC_LATE: f64 = 90.0;
/// How long the page warns of what was dropped before it could be read.
const DROPS_SEEN: Duration = Duration::from_mins(10);
/// Share of lost packets from which a stream is marked.
const LOSS_SEEN: f64 = 0.01;

const STYLE: &str = include_str!("assets/status.css");
const SCRIPT: &str = include_str!("assets/status.js");
const ICON: &str = include_str!("assets/icon.svg");

pub(super) fn configure(config: &mut web::ServiceConfig) {
    config
        .route("/", web::get().to(page))
        .route("/assets/status.css", web::get().to(|| asset("text/css; charset=utf-8", STYLE)))
        .route("/assets/status.js", web::get().to(|| asset("text/javascript; charset=utf-8", SCRIPT)))
        .route("/assets/icon.svg", web::get().to(|| asset("image/svg+xml", ICON)));
}

async fn asset(kind: &'static str, body: &'static str) -> HttpResponse {
    HttpResponse::Ok().content_type(kind).insert_header((header::CACHE_CONTROL, "no-cache")).body(body)
}

async fn page(shared: web::Data<Shared>) -> HttpResponse {
    let [summary, recordings, actors, happened] = sections(&shared).map(PreEscaped);
    let body = html! {
        header.top {
            h1 { "matrix-call-recorder" }
            div #summary { (summary) }
        }
        p #stale.notice hidden { "The connection to the recorder is lost. This is how things stood before." }
        main {
            div {
                h2 { "Active recordings" }
                div #recordings { (recordings) }
            }
            div {
                h2 { "Actor tree" }
                div #actors { (actors) }
                h2 { "What happened" }
                div #happened { (happened) }
            }
        }
        footer {
            span { "matrix-call-recorder " (cli::VERSION) ", free software under " (cli::LICENCE) }
            a href=(shared.source_url) rel="noreferrer" { "Source" }
            a href="/api/v1/status" { "Status as JSON" }
            span { "Times are " span #zone { "UTC" } }
        }
    };
    HttpResponse::Ok()
        .content_type("text/html; charset=utf-8")
        .body(frame("Recorder · status", &body, true).into_string())
}

/// A whole document around `body`; `live` ones keep themselves fresh.
pub(super) fn frame(title: &str, body: &Markup, live: bool) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) }
                link rel="stylesheet" href="/assets/status.css";
                link rel="icon" href="/assets/icon.svg" type="image/svg+xml";
                @if live {
                    script src="/assets/status.js" defer {}
                    noscript { meta http-equiv="refresh" content="10"; }
                }
            }
            body { (body) }
        }
    }
}

/// One look at everything.
struct View<'a> {
    shared: &'a Shared,
    calls: Vec<Arc<CallSnapshot>>,
    now: BootTime,
    utc: i64,
}

/// The HTML of each of [`SECTIONS`].
pub(super) fn sections(shared: &Shared) -> [String; 4] {
    let view =
        View { shared, calls: shared.board.calls(), now: shared.clock.now(), utc: shared.clock.utc_micros() };
    [
        summary(&view).into_string(),
        recordings(&view).into_string(),
        actors::draw(shared.board.actors(), view.utc).into_string(),
        happened(&shared.board.happenings(), view.utc).into_string(),
    ]
}

/// A dot whose colour is also said, for those who do not see it.
fn dot(colour: &str, meaning: &str) -> Markup {
    html! { span class={ "dot " (colour) } title=(meaning) role="img" aria-label=(meaning) {} }
}

fn summary(view: &View<'_>) -> Markup {
    let streams = live_streams(&view.calls);
    let up = view.now.saturating_since(view.shared.began).as_secs_f64();
    let ill = health::illnesses(&view.shared.board, view.now, view.shared.began);
    let storage = view.shared.board.storage.load();
    html! {
        span.fact { (sync_state(view)) }
        span.fact {
            @if view.calls.is_empty() {
                (dot("idle", "nothing is being recorded")) "No calls"
            } @else {
                (dot("rec", "recording"))
                (words::count(view.calls.len(), "call")) ", " (words::count(streams, "stream"))
            }
        }
        span.fact {
            @if !storage.writable { (dot("bad", "fault")) "Recordings folder cannot be written" }
            @else if storage.level == "all_stopped" { (dot("bad", "fault")) "Disk full: recording stopped" }
            @else if storage.level == "video_stopped" {
                (dot("warn", "warning")) "Disk nearly full: video stopped"
            }
            @else { (words::bytes(storage.free_bytes)) " free on disk" }
        }
        span.fact.dim { "up " (words::age(up)) }
        @for warning in drops(view) { span.fact.warn { (dot("warn", "warning")) (warning) } }
        @for problem in &ill { span.fact.bad { (dot("bad", "fault")) (sentence(&problem.text)) } }
        @if let Some(error) = &storage.last_error {
            @if !storage.writable || storage.level != "plenty" {
                span.fact.dim { (words::tame(error, words::SENTENCE)) }
            }
        }
    }
}

/// What was dropped lately before it could be read.
fn drops(view: &View<'_>) -> Vec<&'static str> {
    let words =
        ["The kernel drops packets: see net.core.rmem_max", "Packets come before their keys and are dropped"];
    let last = view.shared.board.media.load().last_drops();
    let lately = |at: Option<BootTime>| at.is_some_and(|at| view.now.saturating_since(at) < DROPS_SEEN);
    words.into_iter().zip(last).filter(|(_, at)| lately(*at)).map(|(words, _)| words).collect()
}

fn sentence(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map(|first| first.to_uppercase().chain(characters).collect()).unwrap_or_default()
}

fn sync_state(view: &View<'_>) -> Markup {
    let account = view.shared.board.account.load();
    let server = words::name_or(
        account.homeserver.as_deref().map(|url| url.rsplit("://").next().unwrap_or(url)),
        "the homeserver",
    );
    let error = account.last_error.as_deref().map(|error| words::tame(error, words::SENTENCE));
    let age = account.last_sync_utc_micros.map(|last| (view.utc - last) as f64 / 1e6);
    let (colour, meaning, text) = match age {
        _ if !account.logged_in => ("bad", "fault", format!("Not logged in at {server}")),
        _ if !account.first_sync_done => {
            ("warn", "not ready", format!("First sync with {server} is under way"))
        }
        Some(age) if age <= SYNC_LATE => {
            ("good", "all right", format!("Synced with {server}, {} ago", words::age(age)))
        }
        Some(age) => ("bad", "fault", format!("No sync with {server} for {}", words::age(age))),
        None => ("warn", "not ready", format!("Not yet synced with {server}")),
    };
    html! {
        (dot(colour, meaning)) bdi { (text) }
        @if colour != "good" { @if let Some(error) = error { span.dim { " · " bdi { (error) } } } }
    }
}

fn recordings(view: &View<'_>) -> Markup {
    html! {
        @if view.calls.is_empty() {
            div.card.empty {
                "Nothing is being recorded. "
                "A call to this account from somebody on the allow-list starts a recording; in a group call, "
                "\"!record start\" in its room does."
            }
        }
        @for call in view.calls.iter().take(CALLS) { (call_card(call, view.utc)) }
        (more(view.calls.len(), CALLS, "call"))
        (waiting(&view.shared.board.rooms()))
    }
}

/// Rooms whose next call is recorded; those of which only the configuration says so are counted.
fn waiting(rooms: &[Arc<RoomSnapshot>]) -> Markup {
    let named = rooms.iter().filter(|room| room.waiting != Waits::Configured).count();
    html! {
        @if !rooms.is_empty() {
            section.card.waiting {
                h3 { (dot("idle", "waiting")) "Waiting for a call" }
                @for room in rooms.iter().take(named.min(WAITING)) {
                    p {
                        bdi { (words::name_or(Some(&room.room_name), "a room without a name")) }
                        small {
                            @if room.waiting == Waits::Start { "the next one" } @else { "every one" }
                            @if let Some(by) = &room.by {
                                ", at the wish of " bdi { (words::tame(by, words::NAME)) }
                            }
                        }
                    }
                }
                (more(named, WAITING, "room"))
                @if rooms.len() > named {
                    p.more { "Every call of " (words::count(rooms.len() - named, "room")) ", as configured." }
                }
            }
        }
    }
}

fn more(number: usize, drawn: usize, what: &str) -> Markup {
    html! { @if number > drawn { p.more { "and " (words::count(number - drawn, what)) " more" } } }
}

fn call_card(call: &CallSnapshot, utc: i64) -> Markup {
    let (today, now) = words::date_and_time(utc);
    let (colour, meaning) = match call.state.as_str() {
        "recording" => ("rec", "recording"),
        "held" => ("idle", "held"),
        _ => ("warn", "not recording now"),
    };
    html! {
        article.card.call data-now={ (today) "T" (now) "Z" } {
            div.title {
                (dot(colour, meaning))
                h3 { bdi { (words::name_or(Some(&call.room_name), "a room without a name")) } }
                span.tag { (words::call_kind(&words::tame(&call.call_kind, 20))) }
                @if call.encrypted { span.tag { "encrypted room" } }
                @if call.state != "recording" { span.tag.state { (words::tame(&call.state, 20)) } }
                span.clock { (words::clock((utc - call.started_utc_micros) as f64 / 1e6)) }
            }
            @if call.call_kind != "one_to_one" {
                p.more {
                    "Recorded "
                    @match &call.started_by {
                        Some(user) => { "at the wish of " bdi { (words::tame(user, words::NAME)) } }
                        None => "because every call is to be recorded"
                    }
                }
            }
            @for one in call.participants.iter().take(PARTICIPANTS) { (participant(one, &today)) }
            @if call.participants.is_empty() { p.more { "Nobody has joined yet." } }
            (more(call.participants.len(), PARTICIPANTS, "participant"))
        }
    }
}

fn participant(one: &ParticipantSnapshot, today: &str) -> Markup {
    let user = one.user_id.as_deref().map(|user| words::tame(user, words::NAME));
    let name = words::name_or(one.display_name.as_deref().or(one.user_id.as_deref()), "somebody");
    html! {
        section.who {
            h4 {
                bdi { (name) }
                @if let Some(user) = user { @if user != name { small { bdi { (user) } } } }
                @if one.opted_out { small { "opted out" } }
                @if !one.told && one.present { small { "not told yet" } }
                (stays(one, today))
            }
            @if one.stalled {
                p.fault { (dot("warn", "warning")) "Nothing arrives, though the connection is up." }
            }
            @for track in one.tracks.iter().take(TRACKS) { (track_row(track)) }
            @if one.tracks.is_empty() {
                p.more { @if one.opted_out { "Not recorded, as they asked." } @else { "No stream yet." } }
            }
            (more(one.tracks.len(), TRACKS, "stream"))
        }
    }
}

/// When somebody was there: the newest stays.
fn stays(one: &ParticipantSnapshot, today: &str) -> Markup {
    let instant = |utc_micros| {
        let (date, time) = words::date_and_time(utc_micros);
        html! { time datetime={ (date) "T" (time) "Z" } { @if date != today { (date) " " } (time) } }
    };
    let newest = one.stays.len().saturating_sub(STAYS);
    html! {
        @for (at, stay) in one.stays.iter().enumerate().skip(newest) {
            small {
                @match stay.left_utc_micros {
                    Some(left) => {
                        @if at == newest && newest > 0 { "… " }
                        (instant(stay.joined_utc_micros)) "–" (instant(left))
                    }
                    None => { "since " (instant(stay.joined_utc_micros)) }
                }
            }
        }
        @if !one.present { small { "left" } }
    }
}

fn track_row(track: &TrackSnapshot) -> Markup {
    let mut facts: Vec<String> =
        track.codec.map(|codec| words::codec(codec).to_owned()).into_iter().collect();
    if let (Some(width), Some(height)) = (track.width, track.height) {
        facts.push(format!("{width}×{height}"));
    }
    if track.muted {
        facts.push("muted".into());
    } else if !track.live {
        facts.push("nothing coming".into());
    } else {
        facts.push(words::bit_rate(track.bits_per_second));
    }
    let sent = track.received.saturating_add(track.lost);
    let share = if sent == 0 { 0.0 } else { track.lost as f64 / sent as f64 };
    let percent = if share >= 0.000_5 { format!(" ({:.1} %)", share * 100.0) } else { String::new() };
    let loss = if share >= LOSS_SEEN { "bad" } else { "" };
    html! {
        div class={ "track" @if !track.live { " quiet" } } {
            span.source { (words::source(track.source)) }
            span.what { (facts.join(" · ")) }
            span.length title="media written" { (words::clock(track.media_seconds)) }
            span class={ "loss " (loss) } title="packets that never came" { "lost " (track.lost) (percent) }
            span.size { (words::bytes(track.bytes)) }
            @if track.dropped_by_us > 0 {
                span.fault { (track.dropped_by_us) " packets arrived and were lost by the recorder" }
            }
        }
    }
}

fn happened(happenings: &[Arc<Happening>], utc: i64) -> Markup {
    let (today, now) = words::date_and_time(utc);
    html! {
        div.card.log data-now={ (today) "T" (now) "Z" } {
            @if happenings.is_empty() { p.more { "Nothing yet." } }
            @for happening in happenings.iter().take(HAPPENINGS) {
                @let (date, time) = words::date_and_time(happening.utc_micros);
                div {
                    time datetime={ (date) "T" (time) "Z" } { @if date != today { (date) " " } (time) }
                    span {
                        @match happening.severity {
                            Severity::Info => {}
                            Severity::Warning => (dot("warn", "warning")),
                            Severity::Error => (dot("bad", "error")),
                        }
                        bdi { (words::tame(&happening.text, words::SENTENCE)) }
                    }
                }
            }
        }
    }
}
