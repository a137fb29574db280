//! Counters of one server.

use super::super::histogram::{Histogram, Reading};
use crate::wire::header::Rcode;
use crate::wire::response::ResponseFault;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Counters of one server, found again by name over reloads.
#[derive(Debug, Default)]
pub struct UpstreamCounters {
    /// Attempts by how they ended, in the order of `OUTCOMES`.
    outcomes: [AtomicU64; OUTCOMES.len()],
    /// How long answers took.
    latency: Histogram,
    /// Refused answers by the rule they broke, in the order of `ResponseFault::ALL`.
    faults: [AtomicU64; ResponseFault::ALL.len()],
    /// Queries that left unencrypted.
    plaintext: AtomicU64,
    /// Queries it was asked because another server was slow.
    hedges: AtomicU64,
    /// Those that it answered first.
    hedges_won: AtomicU64,
    /// Queries it was asked again on a fresh connection.
    repeated: AtomicU64,
    /// Queries for which the dates of its certificate were overlooked.
    dates_overlooked: AtomicU64,
}

/// The `outcome` labels: "ok", "rcode" and "invalid" are ours, the others `TransportError::label`'s. The last one takes
/// what is not listed.
pub(in super::super) const OUTCOMES: [&str; 16] = [
    "ok",
    "rcode",
    "invalid",
    "connect",
    "no_address",
    "tls",
    "certificate",
    "pin",
    "closed",
    "timeout",
    "http",
    "mismatch",
    "overloaded",
    "exhausted",
    "shutting_down",
    "other",
];

/// True for the rcodes of a server that did what it is for.
pub(crate) fn is_usual(rcode: Rcode) -> bool {
    rcode == Rcode::NOERROR || rcode == Rcode::NXDOMAIN
}

impl UpstreamCounters {
    /// Counts an answer (outcome label "ok", or "rcode" when it is neither NOERROR nor NXDOMAIN) and its latency.
    pub fn answered(&self, rcode: Rcode, latency: Duration) {
        self.answers(u64::from(!is_usual(rcode)), &[latency]);
    }

    /// Counts answers, `unusual` of them neither NOERROR nor NXDOMAIN, and their latencies: several at once, because lanes of one
    /// server count in the same place.
    pub fn answers(&self, unusual: u64, latencies: &[Duration]) {
        let all = u64::try_from(latencies.len()).unwrap_or(u64::MAX);
        for (label, count) in [("ok", all.saturating_sub(unusual)), ("rcode", unusual)] {
            if count > 0 {
                self.ended(label, count);
            }
        }
        self.latency.observe_all(latencies);
    }

    /// Counts a failure by its `TransportError::label` (fixed set of labels; unknown ones under "other").
    pub fn failed(&self, label: &'static str) {
        self.ended(label, 1);
    }

    /// Counts an answer that was refused (outcome label "invalid") and the rule it broke.
    pub fn invalid(&self, fault: ResponseFault) {
        self.ended("invalid", 1);
        let place = ResponseFault::ALL.iter().position(|known| *known == fault);
        if let Some(counter) = place.and_then(|place| self.faults.get(place)) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts a query that left unencrypted.
    pub fn plaintext(&self) {
        self.plaintext.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a query that it was asked because another server was slow.
    pub fn hedged(&self) {
        self.hedges.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts one of those that it answered first.
    pub fn hedge_won(&self) {
        self.hedges_won.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a query that it was asked again on a fresh connection, because the one before fell silent.
    pub fn repeated(&self) {
        self.repeated.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a query for a time server's name, for which the dates of its certificate were overlooked.
    pub fn dates_overlooked(&self) {
        self.dates_overlooked.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts the ends of so many attempts.
    fn ended(&self, label: &str, count: u64) {
        let place = OUTCOMES.iter().position(|known| *known == label).unwrap_or(OUTCOMES.len() - 1);
        if let Some(counter) = self.outcomes.get(place) {
            counter.fetch_add(count, Ordering::Relaxed);
        }
    }

    /// Iterates over the `outcome` labels and how often each was.
    pub(in super::super) fn outcomes(&self) -> impl Iterator<Item = (&'static str, u64)> {
        OUTCOMES.into_iter().zip(&self.outcomes).map(|(label, count)| (label, count.load(Ordering::Relaxed)))
    }

    /// Iterates over the `rule` labels and how often each was broken.
    pub(in super::super) fn faults(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let faults = ResponseFault::ALL.into_iter().zip(&self.faults);
        faults.map(|(fault, count)| (fault.label(), count.load(Ordering::Relaxed)))
    }

    /// Returns how long answers took.
    pub(in super::super) fn latency(&self) -> Reading {
        let mut reading = Reading::default();
        self.latency.add_to(&mut reading);
        reading
    }

    /// Returns the number of queries it was asked because another server was slow.
    pub(crate) fn hedges(&self) -> u64 {
        self.hedges.load(Ordering::Relaxed)
    }

    /// Returns how many of those it answered first.
    pub(crate) fn hedges_won(&self) -> u64 {
        self.hedges_won.load(Ordering::Relaxed)
    }

    /// Returns the number of queries it was asked again on a fresh connection.
    pub(crate) fn repetitions(&self) -> u64 {
        self.repeated.load(Ordering::Relaxed)
    }

    /// Returns the number of queries for which the dates of its certificate were overlooked.
    pub(in super::super) fn overlooked_dates(&self) -> u64 {
        self.dates_overlooked.load(Ordering::Relaxed)
    }

    /// Returns the number of queries that left unencrypted.
    pub(in super::super) fn plaintext_queries(&self) -> u64 {
        self.plaintext.load(Ordering::Relaxed)
    }
}
