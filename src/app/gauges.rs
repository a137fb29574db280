//! What the metrics page shows of other layers at the moment it is asked for.

use super::core::Core;
use crate::telemetry::export::{Gauges, Readings, UpstreamReading};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Reads cache, permits and servers.
#[derive(Debug)]
pub(super) struct GaugeReader {
    /// What is read.
    core: Arc<Core>,
    /// True while clients are served.
    ready: Arc<AtomicBool>,
}

impl GaugeReader {
    /// Makes a reader.
    pub(super) fn new(core: Arc<Core>, ready: Arc<AtomicBool>) -> Self {
        Self { core, ready }
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
            cache_max_bytes: self.core.cache().bound(),
            cache_entries,
            clock_wrong: self.core.certificate_clock().is_wrong(),
            inflight: count(self.core.resolver().permits().in_use()),
            upstreams: upstreams.collect(),
            ready: self.ready.load(Ordering::Acquire),
        }
    }
}
