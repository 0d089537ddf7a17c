//! Whether the process should be restarted, and whether it can take calls. Nothing in it names people or
//! places.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use actix_web::{HttpResponse, web};
use recorder_actors::observe::Board;
use recorder_core::time::BootTime;
use serde::Serialize;

use super::Shared;
use crate::service::HEARTBEAT_LIMIT;

/// A writer lane that has been in one write for longer is stalled, seconds.
pub(super) const LANE_LIMIT: f64 = 5.0;

/// A sync long-polls for half a minute; an account without one for longer than this hears of no call.
const SYNC_LIMIT: Duration = Duration::from_mins(2);

/// What has not begun to beat is being started: repairs and a login at a slow homeserver come first. As long
/// as the service manager waits (`TimeoutStartSec=`).
const START_LIMIT: Duration = Duration::from_mins(5);

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Problem {
    /// From a closed set, for programs.
    pub(super) what: &'static str,
    /// For people.
    pub(super) text: String,
}

#[derive(Serialize)]
struct Verdict {
    ok: bool,
    problems: Vec<Problem>,
}

pub(super) fn configure(config: &mut web::ServiceConfig) {
    config.route("/healthz", web::get().to(healthz)).route("/readyz", web::get().to(readyz));
}

/// Reasons to restart the process.
pub(super) fn illnesses(board: &Board, now: BootTime, began: BootTime) -> Vec<Problem> {
    let mut problems = Vec::new();
    if let Some(age) = overdue(&board.tree_heartbeat, now, began) {
        problems
            .push(Problem { what: "tree", text: format!("the actor tree has not answered for {age:.0} s") });
    }
    if let Some(age) = overdue(&board.media_heartbeat, now, began) {
        problems.push(Problem {
            what: "media",
            text: format!("the media loop has not gone round for {age:.0} s"),
        });
    }
    let busy = board.storage.load().lane_busy_s;
    if busy > LANE_LIMIT {
        problems.push(Problem {
            what: "disk",
            text: format!("the disk has not finished a write for {busy:.0} s"),
        });
    }
    problems
}

/// The age of a heartbeat that is too old, seconds.
fn overdue(heartbeat: &AtomicU64, now: BootTime, began: BootTime) -> Option<f64> {
    let beat = heartbeat.load(Ordering::Relaxed);
    let limit = if beat == 0 { START_LIMIT } else { HEARTBEAT_LIMIT };
    Some(heartbeat_age(beat, now, began)).filter(|age| *age >= limit.as_secs_f64())
}

/// Reasons why no call can be taken now. `utc` in microseconds since 1970.
pub(super) fn hindrances(board: &Board, utc: i64) -> Vec<Problem> {
    let mut problems = Vec::new();
    let account = board.account.load();
    if !account.logged_in {
        problems.push(Problem { what: "login", text: "not logged in".into() });
    } else if !account.first_sync_done {
        problems.push(Problem { what: "sync", text: "the first sync is not done".into() });
    } else if let Some(age) = sync_overdue(account.last_sync_utc_micros, utc) {
        problems.push(Problem { what: "sync", text: format!("no sync with the homeserver for {age} s") });
    }
    if board.unsaved_rooms.load(Ordering::Relaxed) > 0 {
        problems.push(Problem {
            what: "rooms",
            text: "what rooms wish, as who is not to be recorded, cannot be saved".into(),
        });
    }
    if !board.storage.load().writable {
        problems.push(Problem { what: "recordings", text: "the recordings folder cannot be written".into() });
    }
    problems
}

/// The age of a last sync that is too old, seconds.
fn sync_overdue(last: Option<i64>, utc: i64) -> Option<u64> {
    let age = u64::try_from(utc.saturating_sub(last?)).ok()? / 1_000_000;
    (age > SYNC_LIMIT.as_secs()).then_some(age)
}

/// Seconds since a heartbeat; one that never came counts from `began`.
pub(super) fn heartbeat_age(beat: u64, now: BootTime, began: BootTime) -> f64 {
    now.saturating_since(BootTime::from_nanos(beat).max(began)).as_secs_f64()
}

async fn healthz(shared: web::Data<Shared>) -> HttpResponse {
    answer(illnesses(&shared.board, shared.clock.now(), shared.began))
}

async fn readyz(shared: web::Data<Shared>) -> HttpResponse {
    answer(hindrances(&shared.board, shared.clock.utc_micros()))
}

fn answer(problems: Vec<Problem>) -> HttpResponse {
    let mut builder =
        if problems.is_empty() { HttpResponse::Ok() } else { HttpResponse::ServiceUnavailable() };
    builder.json(Verdict { ok: problems.is_empty(), problems })
}
