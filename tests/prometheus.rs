//! What is in `config/monitoring/`: every metric that the alerts and the dashboard name is on the page, each alert is tested
//! in both directions, and a real Prometheus reads the page, the alerts and every expression of the dashboard.
//!
//! Without Prometheus what needs it is skipped, and said so; with `VEILDNS_REQUIRE_PEERS=1` that is a failure.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::excessive_nesting,
    clippy::missing_docs_in_private_items,
    reason = "a broken assumption must end a test, and its table is its documentation"
)]

mod support;

use serde_json::Value;
use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use support::authority::Certificate;
use support::gateway::{Gateway, setup};
use support::installed::peer;
use support::message::{query, rtype};
use support::process::{Process, read};
use support::script::Script;
use support::server::{Protocol, Server};
use support::{PATIENCE, comes_true, eventually, trap::Trap};

/// Where the files are.
fn monitoring() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config/monitoring")
}

/// Fetches a path: status line and head, body.
fn get(address: SocketAddr, path: &str) -> Option<(String, String)> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\nConnection: close\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    Some((head.to_owned(), body.to_owned()))
}

/// A gateway with a server that answers and one with a wrong certificate, after some queries.
fn gateway() -> (Gateway, [Server; 2]) {
    let good = Server::start(Protocol::Dot, Script::good());
    let impostor = Server::with_certificate(Protocol::Dot, Script::good(), Certificate::Expired);
    let gateway = setup()
        .server("impostor", &impostor)
        .server("good", &good)
        .table("[metrics]\nlisten = \"127.0.0.1:0\"")
        .start();
    ask(&gateway, 0);
    (gateway, [good, impostor])
}

/// Asks for a name that was not asked for before, and once more.
fn ask(gateway: &Gateway, number: usize) {
    for _ in 0..2 {
        gateway.client().udp(&query(&format!("host-{number}.lab.example"), rtype::A));
    }
}

/// Names in a text that look like metrics of ours, or of every process.
fn metrics_named(text: &str) -> BTreeSet<&str> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = text.split(|c| !is_part(c));
    words.filter(|word| word.starts_with("veildns_") || word.starts_with("process_")).collect()
}

/// Expressions of the dashboard, with its variables put in.
fn dashboard() -> Vec<String> {
    fn collect(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                found.extend(map.get("expr").and_then(Value::as_str).map(str::to_owned));
                map.values().for_each(|value| collect(value, found));
            }
            Value::Array(list) => list.iter().for_each(|value| collect(value, found)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    let text = read(&monitoring().join("grafana.json"));
    let mut found = Vec::new();
    collect(&serde_json::from_str(&text).unwrap(), &mut found);
    let put = |text: String| {
        text.replace("$__rate_interval", "1m").replace("$__interval", "1m").replace("$instance", ".*")
    };
    found.into_iter().map(put).collect()
}

#[test]
fn every_metric_that_an_alert_or_the_dashboard_names_is_on_the_page() {
    let (gateway, _servers) = gateway();
    let page = get(gateway.gateway().metrics_address().unwrap(), "/metrics").unwrap().1;
    let mut known = BTreeSet::new();
    for family in page.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = family.split_once(' ').unwrap();
        let endings: &[&str] = match kind {
            "counter" | "gauge" => &[""],
            "histogram" => &["_bucket", "_sum", "_count"],
            other => panic!("{other}"),
        };
        known.extend(endings.iter().map(|ending| format!("{name}{ending}")));
    }
    for file in ["grafana.json", "veildns.rules.yml", "veildns.rules.test.yml"] {
        let text = read(&monitoring().join(file));
        let named = metrics_named(&text);
        assert!(named.len() > 5, "{file} names {named:?}");
        for name in named {
            assert!(known.contains(name), "{file} names {name}, which is not on the page");
        }
    }
    // And the dashboard leaves none out.
    let shown = dashboard().join("\n");
    let shown = metrics_named(&shown);
    for name in known.iter().filter(|name| !name.ends_with("_count") && !name.ends_with("_sum")) {
        assert!(shown.contains(name.as_str()), "the dashboard does not show {name}");
    }
}

#[test]
fn every_alert_is_documented_and_tested_in_both_directions() {
    let rules = read(&monitoring().join("veildns.rules.yml"));
    let tests = read(&monitoring().join("veildns.rules.test.yml"));
    let page = read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md"));
    let alerts: Vec<&str> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() > 7, "{alerts:?}");
    for alert in alerts {
        for what in ["fires", "does not fire"] {
            assert!(tests.contains(&format!("- name: {alert} {what}\n")), "{alert}: no test that it {what}");
        }
        assert!(page.contains(&format!("| `{alert}` |")), "docs/metrics.md does not know {alert}");
    }
}

#[test]
fn promtool_finds_the_alerts_right() {
    let Some(promtool) = peer("promtool") else { return };
    for arguments in [
        ["check", "rules", "veildns.rules.yml"],
        ["test", "rules", "veildns.rules.test.yml"],
        ["check", "config", "prometheus.yml"],
    ] {
        let output = Command::new(&promtool).current_dir(monitoring()).args(arguments).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {said}");
    }
}

/// A running Prometheus, with the configuration of the repository but for the address and faster.
struct Prometheus {
    _process: Process,
    address: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Prometheus {
    fn start(program: &Path, target: SocketAddr) -> Self {
        let mut said = String::new();
        // Its port may be taken by another test in the moment before it has it.
        for _ in 0..4 {
            let folder = tempfile::tempdir().unwrap();
            let config = read(&monitoring().join("prometheus.yml"));
            assert!(config.contains("127.0.0.1:9153") && config.contains("interval: 15s"));
            let config = config.replace("127.0.0.1:9153", &target.to_string()).replace("15s", "200ms");
            std::fs::write(folder.path().join("prometheus.yml"), config).unwrap();
            std::fs::copy(monitoring().join("veildns.rules.yml"), folder.path().join("veildns.rules.yml"))
                .unwrap();
            let address = Trap::lay().address();
            let log = std::fs::File::create(folder.path().join("log")).unwrap();
            let mut command = Command::new(program);
            command
                .current_dir(folder.path())
                .args(["--config.file=prometheus.yml", "--storage.tsdb.path=data"])
                .arg(format!("--web.listen-address={address}"))
                .stdout(log.try_clone().unwrap())
                .stderr(log);
            let mut process = Process::start(&mut command);
            let is_up = comes_true(PATIENCE, || {
                process.ended().is_some()
                    || get(address, "/-/ready").is_some_and(|(head, _)| head.contains(" 200 "))
            });
            if is_up && process.ended().is_none() {
                return Self { _process: process, address, _folder: folder };
            }
            said = read(&folder.path().join("log"));
        }
        panic!("Prometheus does not start; it says:\n{said}");
    }

    /// Asks its API; what it has to say.
    fn api(&self, path: &str) -> Value {
        let (_, body) = get(self.address, &format!("/api/v1/{path}")).expect("no answer");
        // HTTP/1.0 gets no chunks.
        let value: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(value["status"], "success", "{path}: {body}");
        value["data"].clone()
    }

    /// Evaluates an expression; its series.
    fn evaluate(&self, expression: &str) -> Vec<Value> {
        let escaped: String = expression.bytes().map(|octet| format!("%{octet:02X}")).collect();
        self.api(&format!("query?query={escaped}"))["result"].as_array().unwrap().clone()
    }
}

#[test]
fn a_real_prometheus_reads_the_page_the_alerts_and_the_dashboard() {
    let Some(program) = peer("prometheus") else { return };
    let (gateway, _servers) = gateway();
    let prometheus = Prometheus::start(&program, gateway.gateway().metrics_address().unwrap());

    eventually("the page was scraped", || !prometheus.evaluate("up{job=\"veildns\"} == 1").is_empty());
    let target = &prometheus.api("targets")["activeTargets"][0];
    assert_eq!((&target["health"], &target["lastError"]), (&"up".into(), &"".into()), "{target}");

    let mut number = 0;
    eventually("rates are known", || {
        number += 1;
        ask(&gateway, number);
        !prometheus.evaluate("rate(veildns_cache_misses_total[1m]) > 0").is_empty()
    });
    let expressions = dashboard();
    assert!(expressions.len() > 25);
    for expression in expressions {
        let series = prometheus.evaluate(&expression);
        // No answer was refused, and the process did not start again.
        let may_be_empty =
            expression.contains("veildns_validation_failures_total") || expression.starts_with("changes(");
        assert!(may_be_empty || !series.is_empty(), "{expression} has no series");
    }
}

#[test]
fn a_server_with_a_wrong_certificate_and_one_that_is_down_raise_alerts() {
    let Some(program) = peer("prometheus") else { return };
    let (gateway, _servers) = gateway();
    let prometheus = Prometheus::start(&program, gateway.gateway().metrics_address().unwrap());
    let alert = |name: &str, upstream: &str| {
        let alerts = prometheus.api("alerts")["alerts"].as_array().unwrap().clone();
        let found = alerts
            .iter()
            .find(|alert| alert["labels"]["alertname"] == name && alert["labels"]["upstream"] == upstream);
        found.map(|alert| alert["state"].as_str().unwrap().to_owned())
    };
    eventually("the server is held to be down", || {
        alert("VeildnsUpstreamDown", "impostor").as_deref() == Some("pending")
    });
    eventually("the certificate is told of", || {
        alert("VeildnsCertificateErrors", "impostor").as_deref() == Some("firing")
    });
    assert_eq!(alert("VeildnsUpstreamDown", "good"), None);
    for group in prometheus.api("rules")["groups"].as_array().unwrap() {
        for rule in group["rules"].as_array().unwrap() {
            assert_eq!(rule["health"], "ok", "{rule}");
        }
    }
}
