//! Who may ask: the Host names, the token, and the headers that keep a browser from doing more than we meant.

use std::net::IpAddr;

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::{StatusCode, header};
use actix_web::middleware::{DefaultHeaders, Next};
use actix_web::{Error, HttpRequest, HttpResponse, web};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::{Shared, login};

/// The cookie that a login leaves.
pub(super) const COOKIE: &str = "recorder_session";

/// Open without a token: what orchestrators probe, and what the login page is drawn with. They tell nothing
/// of people.
const OPEN: [&str; 6] =
    ["/healthz", "/readyz", "/login", "/assets/status.css", "/assets/status.js", "/assets/icon.svg"];

/// Allowed hosts and the token, the latter as digests of equal length so that comparing tells nothing of it.
pub(crate) struct Guard {
    token: Option<[u8; 32]>,
    cookie: Option<String>,
    hosts: Vec<String>,
}

impl Guard {
    pub(crate) fn new(token: Option<&str>, hosts: &[String]) -> Self {
        Self {
            token: token.map(digest),
            // Not the token itself: who reads a browser's cookies gets the page, not the API's credential.
            cookie: token.map(|token| hex::encode(digest(&format!("cookie of the status page\0{token}")))),
            hosts: hosts.iter().map(|host| host.to_lowercase()).collect(),
        }
    }

    /// Names that an attacker's page could be served under are refused (DNS rebinding): only configured ones,
    /// `localhost`, and bare addresses, which no DNS answer can point elsewhere.
    fn host_allowed(&self, host: &str) -> bool {
        let name = match host.strip_prefix('[') {
            Some(rest) => rest.split_once(']').map_or("", |(name, _)| name),
            None => host.split(':').next().unwrap_or(host),
        };
        let name = name.trim_end_matches('.').to_lowercase();
        name == "localhost" || name.parse::<IpAddr>().is_ok() || self.hosts.contains(&name)
    }

    pub(super) fn token_fits(&self, given: &str) -> bool {
        self.token.is_some_and(|token| bool::from(token.ct_eq(&digest(given.trim()))))
    }

    fn admitted(&self, request: &HttpRequest) -> bool {
        let Some(cookie) = &self.cookie else { return true };
        let headers = request.headers();
        let bearer = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .is_some_and(|(_, token)| self.token_fits(token));
        bearer
            || headers
                .get_all(header::COOKIE)
                .filter_map(|value| value.to_str().ok())
                .flat_map(|value| value.split(';'))
                .filter_map(|pair| pair.trim().split_once('='))
                .any(|(name, value)| name == COOKIE && bool::from(value.as_bytes().ct_eq(cookie.as_bytes())))
    }

    /// `Set-Cookie` for a visitor who brought the token. Not readable by scripts, not sent from other sites.
    pub(super) fn set_cookie(&self, request: &HttpRequest) -> String {
        let value = self.cookie.as_deref().unwrap_or_default();
        let tls = request.headers().get("x-forwarded-proto").is_some_and(|value| value == "https");
        let secure = if tls { "; Secure" } else { "" };
        format!("{COOKIE}={value}; Path=/; Max-Age=2592000; HttpOnly; SameSite=Strict{secure}")
    }
}

fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

/// Headers of every answer. No script or style but our own files, no frame around the page, no address passed
/// on.
pub(super) fn headers() -> DefaultHeaders {
    DefaultHeaders::new()
        .add((
            "Content-Security-Policy",
            "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'",
        ))
        .add(("X-Content-Type-Options", "nosniff"))
        .add(("Referrer-Policy", "no-referrer"))
        .add(("X-Frame-Options", "DENY"))
        .add(("Cross-Origin-Opener-Policy", "same-origin"))
        .add(("Cross-Origin-Resource-Policy", "same-origin"))
        .add(("Cache-Control", "no-store"))
}

/// Runs before every route.
pub(super) async fn check(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let shared = request.app_data::<web::Data<Shared>>().cloned();
    let Some(shared) = shared else {
        return Ok(request.into_response(HttpResponse::InternalServerError()));
    };
    let host = request
        .headers()
        .get(header::HOST)
        .and_then(|value| value.to_str().ok())
        .map(str::to_owned)
        .or_else(|| request.uri().host().map(str::to_owned));
    if !host.is_some_and(|host| shared.guard.host_allowed(&host)) {
        let answer = HttpResponse::build(StatusCode::MISDIRECTED_REQUEST)
            .content_type("text/plain; charset=utf-8")
            .body(
                "This recorder does not answer under that name. Add it to web.hosts in the configuration.\n",
            );
        return Ok(request.into_response(answer));
    }
    if OPEN.contains(&request.path()) || shared.guard.admitted(request.request()) {
        return next.call(request).await.map(ServiceResponse::map_into_boxed_body);
    }
    let answer = login::refusal(request.request(), &shared.guard);
    Ok(request.into_response(answer))
}
