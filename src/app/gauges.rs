//! What the metrics page shows of other layers at the moment it is asked for.

use super::core::Core;
use crate::listener::worker::TcpUsage;
use crate::telemetry::bounds::{Bound, BoundReading};
use crate::telemetry::export::{Gauges, Readings, UpstreamReading};
use crate::transport::Transport;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Reads cache, permits and servers.
#[derive(Debug)]
pub(super) struct GaugeReader {
    /// What is read.
    core: Arc<Core>,
    /// Connections of clients.
    clients: TcpUsage,
    /// True while clients are served.
    ready: Arc<AtomicBool>,
}

impl GaugeReader {
    /// Makes a reader.
    pub(super) fn new(core: Arc<Core>, clients: TcpUsage, ready: Arc<AtomicBool>) -> Self {
        Self { core, clients, ready }
    }

    /// Reads how full the bounds are.
    fn bounds(&self) -> Vec<BoundReading> {
        let snapshot = self.core.resolver().snapshot();
        let limits = snapshot.limits();
        let upstreams = self.core.upstreams();
        let most = |count: fn(&dyn Transport) -> usize| {
            upstreams.iter().map(|upstream| count(upstream.transport())).max().unwrap_or_default()
        };
        let servers = [
            (Bound::MaxConnections, most(|transport| transport.connections()), limits.max_connections),
            (Bound::PoolQueue, most(|transport| transport.waiting()), limits.pool_queue),
        ];
        let servers = servers.map(|(bound, in_use, limit)| BoundReading { bound, in_use, limit });
        let permits = self.core.resolver().permits().readings();
        permits.into_iter().chain(self.clients.readings()).chain(servers).collect()
    }
}

impl Gauges for GaugeReader {
    fn read(&self) -> Readings {
        let (cache_entries, cache_bytes) = self.core.cache().usage();
        let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        let upstreams = self.core.upstreams().into_iter().map(|upstream| {
            let (handshakes_full, handshakes_resumed) = upstream.transport().handshakes();
            UpstreamReading {
                name: upstream.name().to_owned(),
                up: upstream.is_up(),
                connections: count(upstream.transport().connections()),
                handshakes_full,
                handshakes_resumed,
            }
        });
        Readings {
            cache_bytes,
            cache_entries,
            inflight: count(self.core.resolver().permits().in_use()),
            bounds: self.bounds(),
            upstreams: upstreams.collect(),
            ready: self.ready.load(Ordering::Acquire),
        }
    }
}
