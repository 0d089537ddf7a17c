//! The facts of the page as JSON, documented in docs/api.md.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use actix_web::{HttpResponse, web};
use recorder_actors::observe::{AccountSnapshot, CallSnapshot, Happening, RoomSnapshot, StorageSnapshot};
use serde::{Deserialize, Serialize};

use super::health::{self, Problem};
use super::{Shared, tree};
use crate::cli;

pub(super) fn configure(config: &mut web::ServiceConfig) {
    config
        .route("/api/v1/status", web::get().to(status))
        .route("/api/v1/actors", web::get().to(actors))
        .route("/api/v1/calls", web::get().to(calls))
        .route("/api/v1/rooms", web::get().to(rooms))
        .route("/api/v1/happenings", web::get().to(happenings));
}

#[derive(Serialize)]
struct Recorder<'a> {
    name: &'static str,
    version: &'static str,
    licence: &'static str,
    source: &'a str,
}

#[derive(Serialize)]
struct Status<'a> {
    recorder: Recorder<'a>,
    utc_micros: i64,
    up_s: f64,
    healthy: bool,
    ready: bool,
    problems: Vec<Problem>,
    account: Arc<AccountSnapshot>,
    storage: Arc<StorageSnapshot>,
    calls: usize,
    participants: usize,
    streams: usize,
    totals: serde_json::Map<String, serde_json::Value>,
    media: Media,
}

#[derive(Serialize)]
struct Media {
    connections: usize,
    totals: serde_json::Map<String, serde_json::Value>,
}

#[derive(Serialize)]
struct Actors {
    actors: Vec<tree::Node>,
}

#[derive(Serialize)]
struct Calls {
    calls: Vec<Arc<CallSnapshot>>,
}

#[derive(Serialize)]
struct Rooms {
    rooms: Vec<Arc<RoomSnapshot>>,
}

#[derive(Serialize)]
struct Happenings {
    happenings: Vec<Arc<Happening>>,
}

#[derive(Deserialize)]
struct After {
    /// Only happenings with a higher number.
    #[serde(default)]
    after: u64,
}

async fn status(shared: web::Data<Shared>) -> HttpResponse {
    let now = shared.clock.now();
    let calls = shared.board.calls();
    let mut problems = health::illnesses(&shared.board, now, shared.began);
    let healthy = problems.is_empty();
    let hindrances = health::hindrances(&shared.board, shared.clock.utc_micros());
    let ready = hindrances.is_empty();
    problems.extend(hindrances);
    let media = shared.board.media.load();
    HttpResponse::Ok().json(Status {
        recorder: Recorder {
            name: "matrix-call-recorder",
            version: cli::VERSION,
            licence: cli::LICENCE,
            source: &shared.source_url,
        },
        utc_micros: shared.clock.utc_micros(),
        up_s: now.saturating_since(shared.began).as_secs_f64(),
        healthy,
        ready,
        problems,
        account: shared.board.account.load_full(),
        storage: shared.board.storage.load_full(),
        participants: calls.iter().flat_map(|call| &call.participants).filter(|one| one.present).count(),
        streams: live_streams(&calls),
        calls: calls.len(),
        totals: named(shared.board.totals.read()),
        media: Media {
            connections: media.connections.load(Ordering::Relaxed),
            totals: named(media.counts.read()),
        },
    })
}

fn named(counters: Vec<(&'static str, &'static str, u64)>) -> serde_json::Map<String, serde_json::Value> {
    counters.into_iter().map(|(name, _, value)| (name.to_owned(), value.into())).collect()
}

/// Streams that media is arriving on.
pub(super) fn live_streams(calls: &[Arc<CallSnapshot>]) -> usize {
    calls
        .iter()
        .flat_map(|call| &call.participants)
        .flat_map(|one| &one.tracks)
        .filter(|track| track.live)
        .count()
}

async fn actors(shared: web::Data<Shared>) -> HttpResponse {
    HttpResponse::Ok().json(Actors { actors: tree::grow(shared.board.actors()) })
}

async fn calls(shared: web::Data<Shared>) -> HttpResponse {
    HttpResponse::Ok().json(Calls { calls: shared.board.calls() })
}

async fn rooms(shared: web::Data<Shared>) -> HttpResponse {
    HttpResponse::Ok().json(Rooms { rooms: shared.board.rooms() })
}

async fn happenings(shared: web::Data<Shared>, query: Option<web::Query<After>>) -> HttpResponse {
    let Some(query) = query else {
        return HttpResponse::BadRequest().json(
            serde_json::json!({ "error": "after is a happening's number, /api/v1/happenings?after=41" }),
        );
    };
    let mut happenings = shared.board.happenings();
    happenings.retain(|happening| happening.number > query.after);
    HttpResponse::Ok().json(Happenings { happenings })
}
