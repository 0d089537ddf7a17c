//! The board in Prometheus' text format.
//!
//! Names are `recorder_<noun>_<unit>[_total]`; labels come from closed sets, never from rooms, users or
//! tracks, so the number of series has a bound that no caller can move.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use actix_web::{HttpResponse, web};
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Counter, Gauge, GaugeVec, IntCounter, IntCounterVec, Opts, TextEncoder};
use recorder_actors::observe::{ActorKind, ActorState, Board};
use recorder_actors::ports::Clock;
use recorder_core::media::{Codec, MediaKind};
use recorder_core::time::BootTime;

use super::Shared;
use super::health::heartbeat_age;
use crate::cli;

const ACTOR_KINDS: [(ActorKind, &str); 4] = [
    (ActorKind::Supervisor, "supervisor"),
    (ActorKind::Call, "call"),
    (ActorKind::Peer, "peer"),
    (ActorKind::TrackWriter, "track_writer"),
];
const ACTOR_STATES: [(ActorState, &str); 6] = [
    (ActorState::Starting, "starting"),
    (ActorState::Running, "running"),
    (ActorState::Restarting, "restarting"),
    (ActorState::Stopping, "stopping"),
    (ActorState::Stopped, "stopped"),
    (ActorState::Failed, "failed"),
];
const KINDS: [(MediaKind, &str); 2] = [(MediaKind::Audio, "audio"), (MediaKind::Video, "video")];
const LEVELS: [&str; 3] = ["plenty", "video_stopped", "all_stopped"];

/// Totals that are one metric with a label, by the beginning of their names.
const REFUSED: &str = "calls_refused_";

pub(super) fn configure(config: &mut web::ServiceConfig) {
    config.route("/metrics", web::get().to(metrics));
}

async fn metrics(shared: web::Data<Shared>) -> HttpResponse {
    match TextEncoder::new().encode_to_string(&shared.metrics.gather()) {
        Ok(text) => HttpResponse::Ok().content_type("text/plain; version=0.0.4; charset=utf-8").body(text),
        Err(error) => {
            tracing::error!(%error, "metrics not encoded");
            HttpResponse::InternalServerError().finish()
        }
    }
}

/// What `/metrics` answers, for tests and for `bench`.
///
/// # Errors
/// A family has no series, which the collector never makes.
pub fn metrics_text(board: Arc<Board>, clock: Arc<dyn Clock>) -> Result<String, prometheus::Error> {
    TextEncoder::new().encode_to_string(&registry(board, clock).gather())
}

pub(super) fn registry(board: Arc<Board>, clock: Arc<dyn Clock>) -> prometheus::Registry {
    let registry = prometheus::Registry::new();
    let began = clock.now();
    let began_utc = clock.utc_micros();
    let collector = BoardCollector { board, clock, began, began_utc };
    registry
        .register(Box::new(collector))
        .expect("the only collector of a new registry has nothing to collide with");
    registry
}

/// Reads the board at each scrape. It owns no numbers: a fact is counted where it happens.
struct BoardCollector {
    board: Arc<Board>,
    clock: Arc<dyn Clock>,
    began: BootTime,
    began_utc: i64,
}

impl Collector for BoardCollector {
    fn desc(&self) -> Vec<&Desc> {
        // An unchecked collector in Prometheus' words: its descriptions are made anew with the values.
        Vec::new()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut families = Families::default();
        self.totals(&mut families);
        self.calls(&mut families);
        self.actors(&mut families);
        self.media(&mut families);
        self.account_and_disk(&mut families);
        self.process(&mut families);
        families.0
    }
}

impl BoardCollector {
    fn totals(&self, families: &mut Families) {
        let mut refused = Vec::new();
        for (name, help, value) in self.board.totals.read() {
            if let Some(reason) = name.strip_prefix(REFUSED) {
                refused.push((reason, value));
                continue;
            }
            // The unit comes before `_total`, and `us` would read as one.
            let name = match name.strip_prefix("bytes_") {
                Some(rest) => format!("recorder_{rest}_bytes_total"),
                None => format!("recorder_{}_total", name.trim_end_matches("_by_us")),
            };
            families.counter(&name, help.trim_end_matches('.'), value);
        }
        let help = "Calls refused, by reason";
        families.counters("recorder_calls_refused_total", help, "reason", &refused);
    }

    fn calls(&self, families: &mut Families) {
        let calls = self.board.calls();
        let participants = calls.iter().flat_map(|call| &call.participants);
        let mut streams: BTreeMap<(&str, &str), u64> = BTreeMap::new();
        let mut bits = BTreeMap::from(KINDS.map(|(_, name)| (name, 0_u64)));
        for (kind, name) in KINDS {
            for codec in CODECS.into_iter().filter(|codec| codec.kind() == kind) {
                streams.insert((name, codec.name()), 0);
            }
        }
        for track in participants.clone().flat_map(|one| &one.tracks).filter(|track| track.live) {
            let kind = if track.kind == MediaKind::Audio { "audio" } else { "video" };
            *bits.entry(kind).or_default() += track.bits_per_second;
            if let Some(codec) = track.codec {
                *streams.entry((kind, codec.name())).or_default() += 1;
            }
        }
        families.gauge("recorder_calls", "Calls being recorded", calls.len() as f64);
        let present = participants.filter(|one| one.present).count();
        families.gauge("recorder_participants", "Participants of the calls being recorded", present as f64);
        let streams: Vec<_> = streams.iter().map(|((kind, codec), n)| ([*kind, *codec], *n as f64)).collect();
        families.gauges(
            "recorder_streams",
            "Streams that media is arriving on",
            &["kind", "codec"],
            &streams,
        );
        let rates: Vec<_> = bits.iter().map(|(kind, bits)| ([*kind], *bits as f64 / 8.0)).collect();
        families.gauges(
            "recorder_media_bytes_per_second",
            "Media written, lately, bytes per second",
            &["kind"],
            &rates,
        );
    }

    fn actors(&self, families: &mut Families) {
        let actors = self.board.actors();
        let mut series = Vec::new();
        for (kind, kind_name) in ACTOR_KINDS {
            for (state, state_name) in ACTOR_STATES {
                let number = actors.iter().filter(|actor| actor.kind == kind && actor.state == state).count();
                series.push(([kind_name, state_name], number as f64));
            }
        }
        families.gauges("recorder_actors", "Actors in the tree", &["kind", "state"], &series);
        let now = self.clock.now();
        let age = |beat: u64| heartbeat_age(beat, now, self.began);
        families.gauges(
            "recorder_heartbeat_age_seconds",
            "Time since the last sign of life",
            &["part"],
            &[
                (["tree"], age(self.board.tree_heartbeat.load(Ordering::Relaxed))),
                (["media"], age(self.board.media_heartbeat.load(Ordering::Relaxed))),
            ],
        );
    }

    fn media(&self, families: &mut Families) {
        let view = self.board.media.load();
        for (name, help, value) in view.counts.read() {
            families.counter(&format!("recorder_{name}_total"), help.trim_end_matches('.'), value);
        }
        let connections = view.connections.load(Ordering::Relaxed);
        families.gauge("recorder_connections", "Peer connections that are open", connections as f64);
    }

    fn account_and_disk(&self, families: &mut Families) {
        let account = self.board.account.load();
        families.gauge("recorder_logged_in", "1 while the account is logged in", flag(account.logged_in));
        families.gauge("recorder_synced", "1 after the first sync", flag(account.first_sync_done));
        let last = account.last_sync_utc_micros.map_or(0.0, |micros| micros as f64 / 1e6);
        families.gauge("recorder_last_sync_timestamp_seconds", "End of the last good sync, Unix time", last);

        let storage = self.board.storage.load();
        families.gauge(
            "recorder_storage_writable",
            "1 while recordings can be written",
            flag(storage.writable),
        );
        families.gauge("recorder_storage_free_bytes", "Free space for recordings", storage.free_bytes as f64);
        families.gauge("recorder_storage_reserve_bytes", "Free space to keep", storage.reserve_bytes as f64);
        families.gauge(
            "recorder_storage_queued_bytes",
            "Media waiting for the disk",
            storage.queued_bytes as f64,
        );
        families.gauge(
            "recorder_storage_lane_busy_seconds",
            "Longest time that a write has been under way",
            storage.lane_busy_s,
        );
        let levels = LEVELS.map(|level| ([level], flag(level == storage.level)));
        families.gauges("recorder_storage_level", "1 for what the disk allows", &["level"], &levels);
    }

    fn process(&self, families: &mut Families) {
        families.gauges(
            "recorder_build_info",
            "Version of the recorder",
            &["version"],
            &[([cli::VERSION], 1.0)],
        );
        let start = self.began_utc as f64 / 1e6;
        families.gauge("process_start_time_seconds", "Start of the process, Unix time", start);
        if let Some(own) = super::process::read() {
            families.gauge("process_resident_memory_bytes", "Resident memory", own.resident_bytes as f64);
            families.gauge("process_open_fds", "Open file descriptors", own.open_files as f64);
            families.counter_seconds("process_cpu_seconds_total", "Processor time used", own.cpu_seconds);
            families.gauge("process_threads", "Threads", own.threads as f64);
            if let Some(bytes) = own.heap_bytes {
                families.gauge("recorder_heap_bytes", "Bytes that are allocated now", bytes as f64);
            }
        }
    }
}

const CODECS: [Codec; 6] = [Codec::Opus, Codec::Vp8, Codec::Vp9, Codec::Av1, Codec::H264, Codec::H265];

fn flag(on: bool) -> f64 {
    if on { 1.0 } else { 0.0 }
}

/// Metrics made for one scrape. A name that Prometheus would not take is left out; a test shows that none is.
#[derive(Default)]
struct Families(Vec<MetricFamily>);

impl Families {
    fn add(&mut self, collector: prometheus::Result<impl Collector>) {
        match collector {
            Ok(collector) => self.0.extend(collector.collect()),
            Err(error) => tracing::error!(%error, "metric not made"),
        }
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.add(IntCounter::new(name, help).inspect(|counter| counter.inc_by(value)));
    }

    fn counter_seconds(&mut self, name: &str, help: &str, value: f64) {
        self.add(Counter::new(name, help).inspect(|counter| counter.inc_by(value)));
    }

    fn counters(&mut self, name: &str, help: &str, label: &str, series: &[(&str, u64)]) {
        self.add(IntCounterVec::new(Opts::new(name, help), &[label]).inspect(|counters| {
            for (value, number) in series {
                counters.with_label_values(&[*value]).inc_by(*number);
            }
        }));
    }

    fn gauge(&mut self, name: &str, help: &str, value: f64) {
        self.add(Gauge::new(name, help).inspect(|gauge| gauge.set(value)));
    }

    fn gauges<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        labels: &[&str; N],
        series: &[([&str; N], f64)],
    ) {
        self.add(GaugeVec::new(Opts::new(name, help), labels).inspect(|gauges| {
            for (values, number) in series {
                gauges.with_label_values(values).set(*number);
            }
        }));
    }
}
