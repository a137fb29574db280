//! SIGUSR1: how things are, to the log.

use crate::app::Gateway;
use tracing::info;

/// Logs the state of cache, servers and waiting queries: no name of a query, no client.
pub(super) fn log(gateway: &Gateway) {
    let core = gateway.core();
    let (entries, octets) = core.cache().usage();
    let waiting = core.resolver().permits().in_use();
    info!(cache_entries = entries, cache_octets = octets, waiting, "summary");
    let now = crate::clock::now();
    for upstream in core.upstreams() {
        let status = upstream.snapshot(now);
        let latency_ms = status.latency.map(|latency| u64::try_from(latency.as_millis()).unwrap_or(u64::MAX));
        info!(
            upstream = upstream.name(),
            up = upstream.is_up(),
            latency_ms,
            in_flight = status.in_flight,
            connections = status.connections,
            last_error = status.last_error.as_deref(),
            "summary of a server"
        );
    }
}
