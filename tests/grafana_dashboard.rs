//! Every expression of the dashboard is asked of a real Prometheus that reads a real recorder.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends where it fails")]

mod web_support;

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use web_support::{HandClock, busy_board, get, open_settings, serve};

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn dashboard() -> serde_json::Value {
    serde_json::from_str(&std::fs::read_to_string(root("grafana/dashboards/recorder.json")).unwrap()).unwrap()
}

/// (panel, expression), Grafana's variables filled in as Grafana would for "All".
fn expressions() -> Vec<(String, String)> {
    let dashboard = dashboard();
    let panels = dashboard["panels"].as_array().unwrap();
    let mut all = Vec::new();
    for panel in panels {
        for target in panel["targets"].as_array().unwrap() {
            let expression = target["expr"].as_str().unwrap();
            let filled =
                expression.replace("$__rate_interval", "1m").replace("$instance", ".*").replace("$job", ".*");
            assert!(!filled.contains('$'), "unknown variable in {expression}");
            all.push((panel["title"].as_str().unwrap().to_owned(), filled));
        }
    }
    all
}

#[test]
fn the_dashboard_has_at_most_eight_panels_and_each_is_explained() {
    let dashboard = dashboard();
    let panels = dashboard["panels"].as_array().unwrap();
    assert!((1..=8).contains(&panels.len()), "{} panels", panels.len());
    for panel in panels {
        assert!(
            !panel["description"].as_str().unwrap().is_empty()
                && !panel["title"].as_str().unwrap().is_empty()
        );
        assert!(!panel["targets"].as_array().unwrap().is_empty());
    }
}

#[test]
fn every_metric_named_in_the_dashboard_exists() {
    let clock = HandClock::new();
    let page = serve(open_settings(), &busy_board(&clock), &clock);
    let metrics = get(page.address, "/metrics").body;
    let known: BTreeSet<&str> = metrics
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .filter_map(|line| line.split(' ').next())
        .collect();
    let mut seen = 0;
    for (panel, expression) in expressions() {
        for word in expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_') {
            if word.starts_with("recorder_") || word.starts_with("process_") {
                assert!(known.contains(word), "{panel}: {word} is not a metric of ours");
                seen += 1;
            }
        }
    }
    assert!(seen >= expressions().len());
}

/// A Prometheus of our own, ended with the test.
struct Prometheus {
    child: Child,
    address: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Prometheus {
    fn start(target: SocketAddr) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = std::fs::read_to_string(root("grafana/prometheus.yml"))
            .unwrap()
            .replace("127.0.0.1:8080", &target.to_string())
            .replace("scrape_interval: 15s", "scrape_interval: 1s");
        assert!(config.contains(&target.to_string()) && config.contains("scrape_interval: 1s"));
        let file = folder.path().join("prometheus.yml");
        std::fs::write(&file, config).unwrap();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("prometheus is installed (Debian: prometheus)");
        Self { child, address, _folder: folder }
    }

    /// The result of an instant query; `Err` while Prometheus is not up.
    fn query(&self, expression: &str) -> Result<serde_json::Value, String> {
        let escaped: String = expression.bytes().map(|byte| format!("%{byte:02X}")).collect();
        std::net::TcpStream::connect(self.address).map_err(|error| error.to_string())?;
        let answer = get(self.address, &format!("/api/v1/query?query={escaped}"));
        if answer.status == 200 { Ok(answer.json()["data"]["result"].clone()) } else { Err(answer.body) }
    }

    /// Asks until there is a result.
    fn result(&self, expression: &str) -> Vec<serde_json::Value> {
        let deadline = Instant::now() + Duration::from_secs(40);
        loop {
            let answer = self.query(expression);
            match &answer {
                Ok(result) if result.as_array().is_some_and(|series| !series.is_empty()) => {
                    return result.as_array().unwrap().clone();
                }
                _ if Instant::now() > deadline => panic!("{expression}: {answer:?}"),
                // Another process's progress can only be asked for.
                _ => std::thread::sleep(Duration::from_millis(100)),
            }
        }
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_real_prometheus_answers_every_expression() {
    let clock = HandClock::new();
    let board = busy_board(&clock);
    let page = serve(open_settings(), &board, &clock);
    let prometheus = Prometheus::start(page.address);
    for (panel, expression) in expressions() {
        for series in prometheus.result(&expression) {
            let value = series["value"][1].as_str().unwrap();
            assert!(value.parse::<f64>().is_ok_and(f64::is_finite), "{panel}: {expression} is {value}");
        }
    }
    let value = |expression: &str| prometheus.result(expression)[0]["value"][1].as_str().unwrap().to_owned();
    let shown = |title: &str, nth: usize| {
        let of_panel: Vec<_> = expressions().into_iter().filter(|(panel, _)| panel == title).collect();
        value(&of_panel[nth].1)
    };
    assert_eq!([shown("Recording now", 0), shown("Recording now", 2)], ["3", "4"]);
    assert_eq!([shown("All right", 0), shown("All right", 1), shown("All right", 2)], ["1", "1", "1"]);
    clock.advance(Duration::from_secs(6));
    let deadline = Instant::now() + Duration::from_secs(20);
    while shown("All right", 1) != "0" {
        assert!(Instant::now() < deadline, "a hanging tree is not seen on the dashboard");
        std::thread::sleep(Duration::from_millis(100));
    }
}
