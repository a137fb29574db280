//! What was counted since the start, as plain numbers for `veildns status`. The same counters as on the metrics page; how
//! they look is not its matter.

use super::counters::{Telemetry, UpstreamCounters};
use super::outcome::Source;
use super::process;

/// The gateway's counters at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tally {
    /// Queries that were answered.
    pub queries: u64,
    /// Of those, how many the cache answered at once.
    pub cache_hits: u64,
    /// Of those, how many the cache could not answer at once.
    pub cache_misses: u64,
    /// Replies by where they came from, in the order of `Source::ALL`.
    pub by_source: [(Source, u64); Source::ALL.len()],
    /// Lines that the query log lost.
    pub query_log_dropped: u64,
    /// Events that the collector of dnstap did not get.
    pub dnstap_dropped: u64,
    /// Traces that were lost.
    pub traces_dropped: u64,
    /// Memory that the process holds, in octets, where the system tells.
    pub resident_bytes: Option<u64>,
}

impl Tally {
    /// Returns the share of queries that the cache answered, of those it was asked for; None when it was asked for none.
    pub fn hit_ratio(&self) -> Option<f64> {
        let asked = self.cache_hits + self.cache_misses;
        #[expect(clippy::cast_precision_loss, reason = "a share for people")]
        let ratio = || self.cache_hits as f64 / asked as f64;
        (asked > 0).then(ratio)
    }
}

/// One server's counters at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpstreamTally {
    /// Queries that it answered.
    pub answered: u64,
    /// Queries that ended otherwise.
    pub failed: u64,
    /// Queries that left unencrypted.
    pub plaintext: u64,
}

impl Telemetry {
    /// Returns the number of queries that were answered.
    pub fn queries(&self) -> u64 {
        self.totals().all_queries()
    }

    /// Returns the counters as they are now.
    pub fn tally(&self) -> Tally {
        let totals = self.totals();
        Tally {
            queries: totals.all_queries(),
            cache_hits: totals.hits(),
            cache_misses: totals.misses(),
            by_source: Source::ALL.map(|source| (source, totals.durations(source).count())),
            query_log_dropped: self.query_log().dropped(),
            dnstap_dropped: self.dnstap().dropped(),
            traces_dropped: self.traces().dropped(),
            resident_bytes: process::resident_memory(),
        }
    }
}

impl UpstreamCounters {
    /// Returns the counters as they are now.
    pub fn tally(&self) -> UpstreamTally {
        let mut tally = UpstreamTally { plaintext: self.plaintext_queries(), ..UpstreamTally::default() };
        for (outcome, count) in self.outcomes() {
            match outcome {
                "ok" | "rcode" => tally.answered += count,
                _ => tally.failed += count,
            }
        }
        tally
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::outcome::{Outcome, QueryDetail, record};
    use crate::wire::header::Rcode;
    use crate::wire::query::ClientTransport;
    use std::time::Duration;

    #[test]
    fn a_tally_says_what_the_counters_say() {
        let telemetry = Telemetry::new();
        assert_eq!(telemetry.tally().hit_ratio(), None);
        let block = telemetry.block();
        for (source, duration) in [
            (Source::Cache, None),
            (Source::Cache, None),
            (Source::Local, None),
            (Source::Cache, None),
            (Source::Upstream, Some(Duration::from_millis(9))),
        ] {
            let outcome = Outcome {
                source,
                rcode: Rcode::NOERROR,
                ede: None,
                transport: ClientTransport::Udp,
                duration,
            };
            let detail = QueryDetail { client: [192, 0, 2, 1].into(), question: None, upstream: None };
            record(&telemetry, &block, &outcome, &detail);
        }
        let tally = telemetry.tally();
        assert_eq!((tally.queries, tally.cache_hits, tally.cache_misses), (5, 3, 1));
        assert_eq!(tally.hit_ratio(), Some(0.75), "what the cache was never asked for does not count");
        let sum: u64 = tally.by_source.iter().map(|(_, count)| count).sum();
        assert_eq!((tally.by_source[0], sum), ((Source::Cache, 3), 5));
    }

    #[test]
    fn a_servers_answers_and_failures_are_told_apart() {
        let telemetry = Telemetry::new();
        let counters = telemetry.upstream("quad9");
        counters.answered(Rcode::NOERROR, Duration::from_millis(1));
        counters.answered(Rcode::REFUSED, Duration::from_millis(1));
        counters.failed("timeout");
        counters.plaintext();
        assert_eq!(counters.tally(), UpstreamTally { answered: 2, failed: 1, plaintext: 1 });
    }
}
