//! How much a server is used: written with each query, so without the lock on what was seen of it.

use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Stands for a time that there is not.
const NEVER: i64 = i64::MIN;

/// What is in flight, and when it was last asked. In a line of its own: it is written with each query.
#[derive(Debug)]
#[repr(align(64))]
pub(super) struct Usage {
    /// Since when times are counted.
    since: Instant,
    /// Submitted and not yet finished.
    in_flight: AtomicU32,
    /// When a user's query last went to it: nanoseconds since `since`; `NEVER` before the first.
    last: AtomicI64,
}

impl Usage {
    /// Makes that of a server which was never asked.
    pub(super) fn new() -> Self {
        Self { since: crate::clock::now(), in_flight: AtomicU32::new(0), last: AtomicI64::new(NEVER) }
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
        let before = || -nanos(self.since.saturating_duration_since(now));
        let place = now.checked_duration_since(self.since).map_or_else(before, nanos);
        self.last.store(place, Ordering::Relaxed);
    }

    /// Returns when a user's query last went to it.
    pub(super) fn last(&self) -> Option<Instant> {
        let place = self.last.load(Ordering::Relaxed);
        let distance = Duration::from_nanos(place.unsigned_abs());
        match place {
            NEVER => None,
            0.. => Some(self.since + distance),
            _ => self.since.checked_sub(distance),
        }
    }
}

/// Returns nanoseconds; 292 years fit, and what is longer is as long.
fn nanos(time: Duration) -> i64 {
    i64::try_from(time.as_nanos()).unwrap_or(i64::MAX)
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
        let before = usage.since - Duration::from_nanos(1);
        usage.used(before);
        assert_eq!(usage.last(), Some(before));
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
