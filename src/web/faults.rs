//! Faults on cue in a daemon that runs. Compiled into builds for tests only.
//!
//! `POST /faults` with `{"point", "who", "fault", "after", "times"}` arms one; see [`recorder_actors::testing`] for the points and
//! what `who` is there. `who` is `*` where it is absent, `fault` is `panic`, `times` is 1, `after` (visits that pass
//! first) is 0. `GET /faults` tells what is
//! armed and not used up, `DELETE /faults` takes all of it back and lets go on what stands still.

use actix_web::{HttpResponse, web};
use recorder_actors::testing::{ANYONE, Fault, Order, Point, lift, order, orders};
use serde::Deserialize;
use serde_json::json;

pub(super) fn configure(config: &mut web::ServiceConfig) {
    config.service(
        web::resource("/faults")
            .route(web::get().to(list))
            .route(web::post().to(arm))
            .route(web::delete().to(lift_all)),
    );
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    point: String,
    #[serde(default = "anyone")]
    who: String,
    #[serde(default = "panic")]
    fault: String,
    #[serde(default)]
    after: u32,
    #[serde(default = "once")]
    times: u32,
}

fn anyone() -> String {
    ANYONE.to_owned()
}

fn panic() -> String {
    Fault::Panic.name().to_owned()
}

fn once() -> u32 {
    1
}

async fn arm(wish: Result<web::Json<Wish>, actix_web::Error>) -> HttpResponse {
    let wish = match wish {
        Ok(wish) => wish.into_inner(),
        Err(error) => return refused(&error.to_string()),
    };
    let Some(point) = Point::named(&wish.point) else { return refused("there is no such point") };
    let Some(fault) = Fault::named(&wish.fault) else { return refused("there is no such fault") };
    match order(Order { point, who: wish.who, fault, after: wish.after, times: wish.times }) {
        Ok(()) => HttpResponse::NoContent().finish(),
        Err(error) => refused(&error.to_string()),
    }
}

fn refused(why: &str) -> HttpResponse {
    let points: Vec<_> = Point::ALL.into_iter().map(Point::name).collect();
    HttpResponse::BadRequest().json(json!({
        "error": why,
        "points": points,
        "faults": ["panic", "error", "stall"],
    }))
}

async fn list() -> HttpResponse {
    let armed: Vec<_> = orders()
        .iter()
        .map(|order| {
            json!({
                "point": order.point.name(),
                "who": order.who,
                "fault": order.fault.name(),
                "after": order.after,
                "times": order.times,
            })
        })
        .collect();
    HttpResponse::Ok().json(json!({ "faults": armed }))
}

async fn lift_all() -> HttpResponse {
    lift();
    HttpResponse::NoContent().finish()
}
