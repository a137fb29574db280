//! How much a server is used: written with each query, so without the lock on what was seen of it.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What is in flight, and when it was last asked. In a line of its own: it is written with each query.
#[derive(Debug)]
#[repr(align(64))]
pub(super) struct Usage {
    /// Since when times are counted.
    since: Instant,
    /// Submitted and not yet finished.
    in_flight: AtomicU32,
    /// When a user's query last went to it: nanoseconds since `since` and one more, 0 before the first.
    last: AtomicU64,
}

impl Usage {
    /// Makes that of a server which was never asked.
    pub(super) fn new() -> Self {
        Self { since: crate::clock::now(), in_flight: AtomicU32::new(0), last: AtomicU64::new(0) }
    }

    /// Counts a query as in flight.
    pub(super) fn begins(&self) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    /// Ends what [`Self::begins`] began. Never below zero: one call too many must not make the server look endlessly busy.
    pub(super) fn ends(&self) {
        let _ = self.in_flight.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
    }

    /// Returns how many are in flight.
    pub(super) fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Notes that a user's query goes to it.
    pub(super) fn used(&self, now: Instant) {
        let nanos = now.saturating_duration_since(self.since).as_nanos();
        // 584 years fit.
        let place = u64::try_from(nanos).unwrap_or(u64::MAX).saturating_add(1);
        self.last.store(place, Ordering::Relaxed);
    }

    /// Returns when a user's query last went to it.
    pub(super) fn last(&self) -> Option<Instant> {
        let nanos = self.last.load(Ordering::Relaxed).checked_sub(1)?;
        Some(self.since + Duration::from_nanos(nanos))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_use_is_known_to_the_nanosecond() {
        let usage = Usage::new();
        assert_eq!(usage.last(), None);
        for later in [Duration::ZERO, Duration::from_nanos(1), Duration::from_secs(3600)] {
            usage.used(usage.since + later);
            assert_eq!(usage.last(), Some(usage.since + later));
        }
    }

    #[test]
    fn one_end_too_many_leaves_nothing_in_flight() {
        let usage = Usage::new();
        usage.begins();
        usage.ends();
        usage.ends();
        assert_eq!(usage.in_flight(), 0);
    }
}
