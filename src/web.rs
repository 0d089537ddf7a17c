//! The status page, the API, the metrics and the health checks.
//!
//! They read the [`Board`] only, and run on a thread with a runtime of its own, so that they answer while the
//! tree hangs. Nothing here changes anything in the recorder; only builds for tests take orders for faults.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use actix_web::dev::ServerHandle;
use actix_web::middleware::from_fn;
use actix_web::{App, HttpServer, web as routes};
use recorder_actors::observe::Board;
use recorder_actors::ports::Clock;
use recorder_core::time::BootTime;

use crate::settings::Settings;

mod api;
mod events;
#[cfg(feature = "fault-injection")]
mod faults;
mod guard;
mod health;
mod login;
mod metrics;
mod page;
mod process;
mod tree;
mod words;

pub use events::CLIENTS;
pub use metrics::metrics_text;

/// Connections at once on a listener; a further one waits in the kernel's queue.
const CONNECTIONS: usize = 256;
/// A request's head must be complete within this time.
const REQUEST_LIMIT: Duration = Duration::from_secs(5);
/// Largest request body: a login form.
const BODY: usize = 4 * 1024;
/// Seconds that open connections get at the end.
const FAREWELL: u64 = 1;

/// How the listeners are set up.
#[derive(Clone)]
pub struct WebSettings {
    pub listen: SocketAddr,
    /// A listener of its own for `/metrics`; `None`: on `listen`.
    pub metrics_listen: Option<SocketAddr>,
    /// What a visitor must bring; `None`: nothing.
    pub token: Option<String>,
    /// Host names under which the page may be asked for, lower case.
    pub hosts: Vec<String>,
    /// Where the source of the running version is.
    pub source_url: String,
}

impl std::fmt::Debug for WebSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WebSettings")
            .field("listen", &self.listen)
            .field("metrics_listen", &self.metrics_listen)
            .field("token", &self.token.as_ref().map(|_| "set"))
            .field("hosts", &self.hosts)
            .field("source_url", &self.source_url)
            .finish()
    }
}

impl WebSettings {
    /// Takes the web part out of the whole configuration and reads the token's file.
    ///
    /// # Errors
    /// The token's file cannot be read.
    pub fn from_settings(settings: &Settings) -> Result<Self, WebError> {
        let token = match &settings.web.token_file {
            None => None,
            Some(path) => Some(
                std::fs::read_to_string(path)
                    .map_err(|source| WebError::Token { path: path.display().to_string(), source })?
                    .trim()
                    .to_owned(),
            ),
        };
        Ok(Self {
            listen: settings.web.listen,
            metrics_listen: settings.metrics.listen,
            token,
            hosts: settings.web.hosts.clone(),
            source_url: settings.web.source_url.clone(),
        })
    }
}

#[derive(Debug, thiserror::Error)]
pub enum WebError {
    #[error(
        "{key} = \"{address}\": the port cannot be opened ({source}); set another one or stop what holds it"
    )]
    Listen { key: &'static str, address: SocketAddr, source: io::Error },
    #[error("web.token_file = {path:?}: cannot be read ({source})")]
    Token { path: String, source: io::Error },
    #[error("the page's thread cannot be started: {0}")]
    Thread(io::Error),
}

/// What every route sees.
pub(crate) struct Shared {
    pub(crate) board: Arc<Board>,
    pub(crate) clock: Arc<dyn Clock>,
    /// When the listeners were opened: the process's age on the page, and the start of the heartbeats' grace.
    pub(crate) began: BootTime,
    pub(crate) guard: guard::Guard,
    pub(crate) events: events::Events,
    pub(crate) metrics: prometheus::Registry,
    pub(crate) source_url: String,
}

/// Running listeners. Dropping it leaves them running; [`WebHandle::stop`] ends them.
pub struct WebHandle {
    /// Where the page is.
    pub address: SocketAddr,
    /// Where `/metrics` is, if apart.
    pub metrics_address: Option<SocketAddr>,
    servers: Vec<ServerHandle>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl WebHandle {
    /// Ends event streams at once, other connections within a second, and then the thread.
    pub async fn stop(mut self) {
        self.shared.events.close();
        for server in &self.servers {
            server.stop(true).await;
        }
        if let Some(thread) = self.thread.take() {
            // The servers are down, so the thread is at its last statement.
            let _ = thread.join();
        }
    }
}

/// Opens the listeners and serves from then on.
///
/// # Errors
/// A port is taken or may not be opened.
pub fn serve(settings: WebSettings, board: Arc<Board>, clock: Arc<dyn Clock>) -> Result<WebHandle, WebError> {
    let (page, address) = listen("web.listen", settings.listen)?;
    let apart = settings.metrics_listen.map(|listen_on| listen("metrics.listen", listen_on)).transpose()?;
    let metrics_address = apart.as_ref().map(|(_, address)| *address);
    let began = clock.now();
    let shared = Arc::new(Shared {
        metrics: metrics::registry(Arc::clone(&board), Arc::clone(&clock)),
        board,
        clock,
        began,
        guard: guard::Guard::new(settings.token.as_deref(), &settings.hosts),
        events: events::Events::default(),
        source_url: settings.source_url.clone(),
    });

    let (told, hears) = std::sync::mpsc::sync_channel(1);
    let for_thread = Arc::clone(&shared);
    let thread = std::thread::Builder::new()
        .name("web".into())
        .spawn(move || {
            actix_web::rt::System::new().block_on(async move {
                let started = start(page, apart.map(|(listener, _)| listener), for_thread);
                match started {
                    Err(error) => drop(told.send(Err(error))),
                    Ok((handles, servers)) => {
                        if told.send(Ok(handles)).is_ok() {
                            futures_util::future::join_all(servers).await;
                        }
                    }
                }
            });
        })
        .map_err(WebError::Thread)?;
    let servers = hears
        .recv()
        .unwrap_or_else(|_| Err(io::Error::other("it ended at once")))
        .map_err(WebError::Thread)?;
    tracing::info!(%address, metrics = ?metrics_address, "page open");
    Ok(WebHandle { address, metrics_address, servers, shared, thread: Some(thread) })
}

type Started = (Vec<ServerHandle>, Vec<actix_web::dev::Server>);

fn start(page: TcpListener, apart: Option<TcpListener>, shared: Arc<Shared>) -> io::Result<Started> {
    let metrics_here = apart.is_none();
    let for_page = Arc::clone(&shared);
    let mut servers = vec![
        HttpServer::new(move || {
            App::new()
                .app_data(routes::Data::from(Arc::clone(&for_page)))
                .app_data(routes::FormConfig::default().limit(BODY))
                .app_data(routes::PayloadConfig::new(BODY))
                .wrap(from_fn(guard::check))
                .wrap(guard::headers())
                .configure(page::configure)
                .configure(login::configure)
                .configure(api::configure)
                .configure(events::configure)
                .configure(health::configure)
                .configure(|config| {
                    #[cfg(feature = "fault-injection")]
                    faults::configure(config);
                    if metrics_here {
                        metrics::configure(config);
                    }
                })
        })
        .workers(1)
        .max_connections(CONNECTIONS)
        .client_request_timeout(REQUEST_LIMIT)
        .shutdown_timeout(FAREWELL)
        .disable_signals()
        .listen(page)?
        .run(),
    ];
    if let Some(apart) = apart {
        servers.push(
            HttpServer::new(move || {
                App::new()
                    .app_data(routes::Data::from(Arc::clone(&shared)))
                    .wrap(from_fn(guard::check))
                    .wrap(guard::headers())
                    .configure(metrics::configure)
            })
            .workers(1)
            .max_connections(CONNECTIONS)
            .client_request_timeout(REQUEST_LIMIT)
            .shutdown_timeout(FAREWELL)
            .disable_signals()
            .listen(apart)?
            .run(),
        );
    }
    Ok((servers.iter().map(actix_web::dev::Server::handle).collect(), servers))
}

fn listen(key: &'static str, address: SocketAddr) -> Result<(TcpListener, SocketAddr), WebError> {
    let fault = |source| WebError::Listen { key, address, source };
    let listener = TcpListener::bind(address).map_err(fault)?;
    let actual = listener.local_addr().map_err(fault)?;
    Ok((listener, actual))
}
