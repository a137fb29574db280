//! Counters: a cache-line-padded block per worker, written relaxed by one thread mostly, summed when scraped; and a block per server.

use crate::wire::header::Rcode;
use crate::wire::response::ResponseFault;
use std::sync::Arc;
use std::time::Duration;

/// One worker's counters.
#[derive(Debug, Default)]
pub struct Block {}

/// Counters of one server, found again by name over reloads.
#[derive(Debug, Default)]
pub struct UpstreamCounters {}
impl UpstreamCounters {
    /// Counts an answer (outcome label "ok", or "rcode" when it is neither NOERROR nor NXDOMAIN) and its latency.
    pub fn answered(&self, _rcode: Rcode, _latency: Duration) {}
    /// Counts a failure by its `TransportError::label` (fixed set of labels; unknown ones under "other").
    pub fn failed(&self, _label: &'static str) {}
    /// Counts an answer that was refused (outcome label "invalid") and the rule it broke.
    pub fn invalid(&self, _fault: ResponseFault) {}
    /// Counts a query that left unencrypted.
    pub fn plaintext(&self) {}
}
/// The root: owns the blocks and the query log.
#[derive(Debug, Default)]
pub struct Telemetry {}
impl Telemetry {
    /// Makes the root.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }
    /// Opens the query log of these settings in place of the present one (the same file is opened anew: rotation), or closes it.
    pub fn open_query_log(
        &self,
        _log: &crate::config::settings::QueryLog,
        _queue: usize,
    ) -> std::io::Result<()> {
        Ok(())
    }
    /// Writes out what waits and closes the query log.
    pub fn close_query_log(&self) {}
    /// Adds a block for one more thread.
    pub fn block(&self) -> Arc<Block> {
        Arc::default()
    }
    /// The counters of the server of this name; made at first use, kept for ever (bounded by the configuration).
    pub fn upstream(&self, _name: &str) -> Arc<UpstreamCounters> {
        Arc::default()
    }
}
