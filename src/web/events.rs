//! Server-sent events: the sections of the page, each time one has changed, at most once a second.
//!
//! One painter serves all clients and works only while there are any. A client that reads slowly gets the
//! newest state and skips what lay between; a client too many is refused.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use actix_web::http::header;
use actix_web::web::Bytes;
use actix_web::{HttpResponse, rt, web};
use futures_util::stream;
use tokio::sync::watch;

use super::Shared;
use super::page::{self, SECTIONS};

/// Event streams at once.
pub const CLIENTS: usize = 32;
/// Shortest time between two states.
const PERIOD: Duration = Duration::from_secs(1);
/// After this much silence a comment keeps proxies from closing the connection.
const SILENCE: Duration = Duration::from_secs(15);

/// One state of the page. A section that did not change is the same `Arc` as in the state before.
#[derive(Clone, Default)]
struct Frame {
    sections: Vec<Arc<Section>>,
    over: bool,
}

struct Section {
    html: String,
    event: Bytes,
}

pub(crate) struct Events {
    newest: watch::Sender<Frame>,
    clients: AtomicUsize,
    painting: AtomicBool,
}

impl Default for Events {
    fn default() -> Self {
        Self {
            newest: watch::Sender::new(Frame::default()),
            clients: AtomicUsize::new(0),
            painting: AtomicBool::new(false),
        }
    }
}

impl Events {
    /// Ends all streams.
    pub(super) fn close(&self) {
        self.newest.send_modify(|frame| frame.over = true);
    }
}

/// A client's place; gives it back when the connection ends.
struct Place(web::Data<Shared>);

impl Place {
    fn take(shared: &web::Data<Shared>) -> Option<Self> {
        shared
            .events
            .clients
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |taken| (taken < CLIENTS).then_some(taken + 1))
            .ok()
            .map(|_| Self(shared.clone()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.events.clients.fetch_sub(1, Ordering::AcqRel);
    }
}

pub(super) fn configure(config: &mut web::ServiceConfig) {
    config.route("/api/v1/events", web::get().to(events));
}

async fn events(shared: web::Data<Shared>) -> HttpResponse {
    let Some(place) = Place::take(&shared) else {
        return HttpResponse::ServiceUnavailable().insert_header((header::RETRY_AFTER, "30")).json(
            serde_json::json!({
                "error": format!("{CLIENTS} pages are already open; close one, or reload by hand")
            }),
        );
    };
    if !shared.events.painting.swap(true, Ordering::AcqRel) {
        rt::spawn(paint(shared.clone()));
    }
    let mut newest = shared.events.newest.subscribe();
    newest.mark_changed();
    let client = Client { newest, sent: Vec::new(), greeted: false, _place: place };
    HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, "text/event-stream"))
        .insert_header(("X-Accel-Buffering", "no"))
        .streaming(stream::unfold(client, next))
}

struct Client {
    newest: watch::Receiver<Frame>,
    sent: Vec<Arc<Section>>,
    greeted: bool,
    _place: Place,
}

async fn next(mut client: Client) -> Option<(Result<Bytes, Infallible>, Client)> {
    if !client.greeted {
        client.greeted = true;
        return Some((Ok(Bytes::from_static(b"retry: 3000\n\n")), client));
    }
    loop {
        match tokio::time::timeout(SILENCE, client.newest.changed()).await {
            Err(_) => return Some((Ok(Bytes::from_static(b": still here\n\n")), client)),
            Ok(Err(_)) => return None,
            Ok(Ok(())) => {}
        }
        let frame = client.newest.borrow_and_update().clone();
        if frame.over {
            return None;
        }
        let mut bytes = Vec::new();
        for (index, section) in frame.sections.iter().enumerate() {
            if !client.sent.get(index).is_some_and(|sent| Arc::ptr_eq(sent, section)) {
                bytes.extend_from_slice(&section.event);
            }
        }
        client.sent = frame.sections;
        if !bytes.is_empty() {
            return Some((Ok(bytes.into()), client));
        }
    }
}

/// Draws the sections each second until the last client is gone.
async fn paint(shared: web::Data<Shared>) {
    let mut tick = tokio::time::interval(PERIOD);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let events = &shared.events;
    loop {
        tick.tick().await;
        let before = events.newest.borrow().clone();
        if before.over {
            return;
        }
        if events.clients.load(Ordering::Acquire) == 0 {
            events.painting.store(false, Ordering::Release);
            // A client that came in between saw a painter; it must still have one.
            let came = events.clients.load(Ordering::Acquire) > 0;
            if !came || events.painting.swap(true, Ordering::AcqRel) {
                return;
            }
        }
        let drawn = page::sections(&shared);
        let sections: Vec<_> = SECTIONS
            .iter()
            .zip(drawn)
            .enumerate()
            .map(|(index, (id, html))| match before.sections.get(index) {
                Some(same) if same.html == html => Arc::clone(same),
                _ => Arc::new(Section { event: event(id, &html), html }),
            })
            .collect();
        let changed = sections.len() != before.sections.len()
            || sections.iter().zip(&before.sections).any(|(new, old)| !Arc::ptr_eq(new, old));
        if changed {
            events.newest.send_modify(|frame| frame.sections = sections);
        }
    }
}

/// One event (HTML standard, "Server-sent events"); JSON has no raw line breaks, so it is one data line.
fn event(id: &str, html: &str) -> Bytes {
    Bytes::from(format!("event: section\ndata: {}\n\n", serde_json::json!({ "id": id, "html": html })))
}
