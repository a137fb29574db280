//! How the gateway is, as one value of JSON: what `veildns status` shows and `--json` prints. It reads what others keep, and
//! keeps nothing but what was put in force when. Names of queries and clients are not in it.

use crate::app::Gateway;
use crate::app::core::Core;
use crate::config::settings::{Origin, QueryLog, Settings, StrategyKind};
use crate::control::query::protocol;
use crate::telemetry::logging::LogHandle;
use crate::telemetry::tally::Tally;
use crate::upstream::Upstream;
use crate::upstream::health::State;
use arc_swap::ArcSwap;
use serde_json::{Map, Value, json};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// What the control socket knows of the gateway.
#[derive(Debug)]
pub(in crate::control) struct Inside {
    /// Everything behind the listeners.
    pub(super) core: Arc<Core>,
    /// The log.
    pub(super) log: LogHandle,
    /// The configuration in force.
    pub(super) in_force: ArcSwap<InForce>,
    /// When the gateway started.
    started: Instant,
    /// True once it takes no more queries.
    stopping: AtomicBool,
}

/// A configuration that was put in force.
#[derive(Clone, Debug)]
pub(in crate::control) struct InForce {
    /// The configuration.
    pub(super) settings: Arc<Settings>,
    /// Where the gateway listens.
    listen: Vec<SocketAddr>,
    /// Built-in addresses that the host lacks.
    skipped: Vec<SocketAddr>,
    /// Where the metrics page is.
    metrics: Option<SocketAddr>,
    /// Since when.
    since: Instant,
    /// Why a later one was not put in force.
    refused: Option<String>,
}

impl InForce {
    /// Reads what a gateway has in force.
    pub(in crate::control) fn of(gateway: &Gateway) -> Self {
        Self {
            settings: Arc::clone(gateway.settings()),
            listen: gateway.addresses().to_vec(),
            skipped: gateway.skipped().to_vec(),
            metrics: gateway.metrics_address(),
            since: crate::clock::now(),
            refused: None,
        }
    }
}

impl Inside {
    /// Takes note of a gateway that has just started.
    pub(in crate::control) fn new(gateway: &Gateway, log: LogHandle) -> Self {
        let in_force = InForce::of(gateway);
        Self {
            core: Arc::clone(gateway.core()),
            log,
            started: in_force.since,
            in_force: ArcSwap::from_pointee(in_force),
            stopping: AtomicBool::new(false),
        }
    }

    /// Takes note of a reload.
    pub(in crate::control) fn reloaded(&self, gateway: &Gateway) {
        self.in_force.store(Arc::new(InForce::of(gateway)));
    }

    /// Takes note of a reload that failed.
    pub(in crate::control) fn refused(&self, why: &str) {
        let in_force = InForce { refused: Some(why.to_owned()), ..InForce::clone(&self.in_force.load()) };
        self.in_force.store(Arc::new(in_force));
    }

    /// Takes note that no more queries are taken.
    pub(in crate::control) fn stopping(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// Says how things are. Names of keys are part of the interface.
    pub(super) fn report(&self) -> Value {
        let now = crate::clock::now();
        let in_force = self.in_force.load();
        let tally = self.core.telemetry().tally();
        let stopping = self.stopping.load(Ordering::Relaxed);
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "commit": env!("BUILD_COMMIT"),
            "crypto": env!("BUILD_CRYPTO"),
            "pid": std::process::id(),
            "state": if stopping { "stopping" } else { "serving" },
            "uptime_seconds": secs_since(self.started, now),
            "memory_bytes": tally.resident_bytes,
            "configuration": self.configuration(&in_force, now),
            "queries": {
                "total": tally.queries,
                "waiting": self.core.resolver().permits().in_use(),
                "by_source": by_source(&tally),
            },
            "cache": self.cache(&tally, &in_force.settings),
            "query_log_dropped": tally.query_log_dropped,
            "dnstap_dropped": tally.dnstap_dropped,
            "traces_dropped": tally.traces_dropped,
            "groups": self.groups(&in_force.settings),
            "upstreams": self.core.upstreams().iter().map(|one| upstream(one, now)).collect::<Vec<_>>(),
            "warnings": self.warnings(&in_force, &tally),
        })
    }

    /// Says which configuration is in force.
    fn configuration(&self, in_force: &InForce, now: Instant) -> Value {
        let settings = &in_force.settings;
        let from = match &settings.origin {
            Origin::BuiltIn => "built-in default".to_owned(),
            Origin::File(path) => path.display().to_string(),
        };
        let query_log = match &settings.log.queries {
            QueryLog::Off => "off".to_owned(),
            QueryLog::Stdout => "stdout".to_owned(),
            QueryLog::File(path) => path.display().to_string(),
        };
        json!({
            "from": from,
            "files": settings.files.iter().map(|path| path.display().to_string()).collect::<Vec<_>>(),
            "loaded_seconds_ago": secs_since(in_force.since, now),
            "listen": texts(&in_force.listen),
            "skipped": texts(&in_force.skipped),
            "metrics": in_force.metrics.map(|address| address.to_string()),
            "query_log": query_log,
            "log_level": self.log.in_force(),
        })
    }

    /// Says how the cache is used.
    fn cache(&self, tally: &Tally, settings: &Settings) -> Value {
        let (entries, bytes) = self.core.cache().usage();
        json!({
            "hits": tally.cache_hits,
            "misses": tally.cache_misses,
            "hit_ratio": tally.hit_ratio().map(|ratio| (ratio * 10_000.0).round() / 10_000.0),
            "entries": entries,
            "bytes": bytes,
            "max_bytes": settings.cache.max_size,
        })
    }

    /// Says which servers stand in for each other.
    fn groups(&self, settings: &Settings) -> Vec<Value> {
        let snapshot = self.core.resolver().snapshot();
        let strategy =
            |name: &str| settings.groups.iter().find(|spec| spec.name == name).map(|spec| spec.strategy);
        let groups = snapshot.groups().map(|group| {
            let names: Vec<&str> = group.upstreams.iter().map(|upstream| upstream.name()).collect();
            let up = group.upstreams.iter().filter(|upstream| upstream.is_up()).count();
            json!({
                "name": group.name,
                "strategy": strategy(&group.name).map(strategy_word),
                "upstreams": names,
                "up": up,
            })
        });
        groups.collect()
    }

    /// Says what the operator should look at.
    fn warnings(&self, in_force: &InForce, tally: &Tally) -> Vec<Value> {
        let mut warnings = Vec::new();
        let mut warn = |code: &str, text: String| warnings.push(json!({ "code": code, "text": text }));
        for group in self.core.resolver().snapshot().groups().filter(|group| !group.any_up()) {
            let name = &group.name;
            warn(
                "down",
                format!(
                    "no server of group {name} is up: its names are answered from the cache or not at all"
                ),
            );
        }
        if let Some(wrong) = self.core.wrong_clock() {
            warn("clock", wrong.to_string());
        }
        for upstream in self.core.upstreams().iter().filter(|one| one.spec().endpoint.is_plaintext()) {
            warn(
                "plaintext",
                format!("{} is asked unencrypted, for the names that a route gives to it", upstream.name()),
            );
        }
        if let Some(why) = &in_force.refused {
            warn("reload", format!("the last reload failed and changed nothing: {why}"));
        }
        if tally.query_log_dropped > 0 {
            warn("query_log", format!("{} lines of the query log were lost", tally.query_log_dropped));
        }
        if tally.dnstap_dropped > 0 {
            warn("dnstap", format!("{} events did not reach the collector of dnstap", tally.dnstap_dropped));
        }
        if tally.traces_dropped > 0 {
            warn("traces", format!("{} traces were lost", tally.traces_dropped));
        }
        for notice in &in_force.settings.notices {
            warn("notice", notice.clone());
        }
        warnings
    }
}

/// Counts replies by where they came from.
fn by_source(tally: &Tally) -> Map<String, Value> {
    tally.by_source.iter().map(|(source, count)| (source.label().to_owned(), (*count).into())).collect()
}

/// Says how a server is.
fn upstream(upstream: &Upstream, now: Instant) -> Value {
    let status = upstream.snapshot(now);
    let tally = upstream.counters().tally();
    let (handshakes, resumed) = upstream.transport().handshakes();
    let (state, probe_in) = match status.state {
        State::Up => ("up", None),
        State::Down { probe_at } => ("down", Some(millis(probe_at.saturating_duration_since(now)))),
    };
    json!({
        "name": upstream.name(),
        "protocol": protocol(&upstream.spec().endpoint),
        "encrypted": !upstream.spec().endpoint.is_plaintext(),
        "state": state,
        "probe_in_ms": probe_in,
        "score_ms": millis(status.cost),
        "latency_ms": status.latency.map(millis),
        "p50_ms": status.quantiles.map(|found| millis(found.p50)),
        "p95_ms": status.quantiles.map(|found| millis(found.p95)),
        "connections": status.connections,
        "waiting": status.in_flight,
        "answered": tally.answered,
        "failed": tally.failed,
        "plaintext": tally.plaintext,
        "handshakes": handshakes,
        "handshakes_resumed": resumed,
        "last_answer_seconds_ago": status.answered_at.map(|at| secs_since(at, now)),
        "last_error": status.last_error,
        "last_error_seconds_ago": status.failed_at.map(|at| secs_since(at, now)),
    })
}

/// Returns a strategy as the file spells it.
fn strategy_word(strategy: StrategyKind) -> &'static str {
    match strategy {
        StrategyKind::Fastest => "fastest",
        StrategyKind::Failover => "failover",
        StrategyKind::Weighted => "weighted",
        StrategyKind::RoundRobin => "round-robin",
    }
}

/// Returns whole seconds between two times.
fn secs_since(then: Instant, now: Instant) -> u64 {
    now.saturating_duration_since(then).as_secs()
}

/// Returns milliseconds with one decimal place.
fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 10_000.0).round() / 10.0
}

/// Returns addresses as text.
fn texts(addresses: &[SocketAddr]) -> Vec<String> {
    addresses.iter().map(ToString::to_string).collect()
}
