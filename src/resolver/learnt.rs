//! Answers that came in one turn: their server learns of them together. Lanes share what is known of a server, and each look at it
//! that another lane has changed meanwhile costs as much as all the rest of counting.

use crate::telemetry::counters::is_usual;
use crate::upstream::Upstream;
use crate::wire::header::Rcode;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The answers of one server that it has not learnt of yet.
#[derive(Debug, Default)]
pub(super) struct Answers {
    /// The server; None without answers.
    of: Option<Arc<Upstream>>,
    /// How long each took.
    latencies: Vec<Duration>,
    /// How many were neither NOERROR nor NXDOMAIN.
    unusual: u64,
}

impl Answers {
    /// Adds an answer. Those of another server are entered first.
    pub(super) fn add(&mut self, server: &Arc<Upstream>, rcode: Rcode, latency: Duration, now: Instant) {
        if !self.of.as_ref().is_some_and(|of| Arc::ptr_eq(of, server)) {
            self.enter(now);
            self.of = Some(Arc::clone(server));
        }
        self.latencies.push(latency);
        self.unusual += u64::from(!is_usual(rcode));
    }

    /// Tells the server of its answers.
    pub(super) fn enter(&mut self, now: Instant) {
        if let Some(server) = self.of.take() {
            server.answered(&self.latencies, now);
            server.counters().answers(std::mem::take(&mut self.unusual), &self.latencies);
            self.latencies.clear();
        }
    }
}
