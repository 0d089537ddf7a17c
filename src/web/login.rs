//! The token, given once: by a form or by `/?token=…`, kept afterwards in a cookie.

use actix_web::http::{StatusCode, header};
use actix_web::{HttpRequest, HttpResponse, web};
use maud::{Markup, html};
use serde::Deserialize;

use super::guard::Guard;
use super::{Shared, page};

pub(super) fn configure(config: &mut web::ServiceConfig) {
    config.service(web::resource("/login").route(web::get().to(form)).route(web::post().to(log_in)));
}

#[derive(Deserialize)]
struct Given {
    token: String,
}

async fn form() -> HttpResponse {
    draw(StatusCode::OK, false)
}

async fn log_in(
    request: HttpRequest,
    shared: web::Data<Shared>,
    given: Result<web::Form<Given>, actix_web::Error>,
) -> HttpResponse {
    match given {
        Ok(given) if shared.guard.token_fits(&given.token) => welcome(&request, &shared.guard),
        _ => draw(StatusCode::UNAUTHORIZED, true),
    }
}

/// The answer to somebody without the token: a form for a browser, words for a program. A right `?token=` is
/// taken out of the address bar and into the cookie.
pub(super) fn refusal(request: &HttpRequest, guard: &Guard) -> HttpResponse {
    if request.path() != "/" {
        return HttpResponse::Unauthorized()
            .insert_header((header::WWW_AUTHENTICATE, "Bearer realm=\"recorder\""))
            .json(serde_json::json!({ "error": "send the token as Authorization: Bearer" }));
    }
    match web::Query::<Given>::from_query(request.query_string()) {
        Ok(given) if guard.token_fits(&given.token) => welcome(request, guard),
        Ok(_) => draw(StatusCode::UNAUTHORIZED, true),
        Err(_) => draw(StatusCode::UNAUTHORIZED, false),
    }
}

fn welcome(request: &HttpRequest, guard: &Guard) -> HttpResponse {
    HttpResponse::SeeOther()
        .insert_header((header::LOCATION, "/"))
        .insert_header((header::SET_COOKIE, guard.set_cookie(request)))
        .finish()
}

fn draw(status: StatusCode, wrong: bool) -> HttpResponse {
    let body: Markup = html! {
        main.login {
            form.card method="post" action="/login" {
                h1 { "matrix-call-recorder" }
                label for="token" { "Token" }
                input #token name="token" type="password" autocomplete="current-password" required autofocus;
                @if wrong {
                    p.bad role="alert" { "That is not the token. It stands in the file that web.token_file names." }
                }
                button { "Open the page" }
            }
        }
    };
    HttpResponse::build(status)
        .content_type("text/html; charset=utf-8")
        .body(page::frame("Recorder · log in", &body, false).into_string())
}
