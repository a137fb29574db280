//! Counters: a cache-line-padded block per worker, written relaxed by one thread mostly, summed when scraped; and a table per server.

/// One worker's counters.
#[derive(Debug, Default)]
pub struct Block {/* atomics */}
/// Counters of one server; lives as long as the upstream and over reloads.
#[derive(Debug, Default)]
pub struct UpstreamCounters {/* atomics: queries by outcome label, duration histogram, validation failures by rule */}
/// The root: owns the blocks and the query log.
#[derive(Debug)]
pub struct Telemetry {/* Vec<Arc<Block>> registered, query log handle (ArcSwapOption) */}
impl Telemetry {
    /// stub
    pub fn block(&self) -> std::sync::Arc<Block> {
        std::sync::Arc::default()
    }
}
