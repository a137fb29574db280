//! What each query wants to know of a server, to be read without the lock on all that was seen of it: with several lanes that lock
//! would go from processor to processor with every query.

use super::latency::{Latency, Seen};
use crate::config::settings::timeouts::AttemptTime;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long a cost is good for, in nanoseconds: it changes by itself, but over seconds.
const COST_LASTS: u64 = 1_000_000;

/// Stands for a time that there is not.
const NONE: u64 = u64::MAX;

/// The latest view of a server, written under the lock on what was seen of it. Each value is whole; two of them may be of two
/// views that followed one another, which is no worse than having asked a moment sooner. In a line of its own: it is read much
/// more often than written.
#[derive(Debug)]
#[repr(align(64))]
pub(super) struct Glance {
    /// Since when times are counted.
    since: Instant,
    /// When it was written: nanoseconds since then and one more; 0 when there is none.
    at: AtomicU64,
    /// What asking costs, in nanoseconds, as all that follows.
    cost: AtomicU64,
    /// What answers usually take; `NONE` before the first.
    typical: AtomicU64,
    /// Within what nearly all come; `NONE` when that is unknown.
    nearly_all: AtomicU64,
    /// The least time for an attempt.
    least: AtomicU64,
    /// The most.
    most: AtomicU64,
    /// Whether it is up.
    up: AtomicBool,
}

impl Glance {
    /// Makes one without a view.
    pub(super) fn new() -> Self {
        let empty = || AtomicU64::new(NONE);
        Self {
            since: crate::clock::now(),
            at: AtomicU64::new(0),
            cost: empty(),
            typical: empty(),
            nearly_all: empty(),
            least: empty(),
            most: empty(),
            up: AtomicBool::new(false),
        }
    }

    /// Writes a view; only under the lock, so that a later one is not overtaken.
    pub(super) fn write(&self, up: bool, latency: &Latency, bounds: AttemptTime, now: Instant) {
        let seen = latency.seen();
        let put = |place: &AtomicU64, time: Option<Duration>| {
            place.store(time.map_or(NONE, nanos), Ordering::Relaxed);
        };
        put(&self.cost, Some(latency.cost(now)));
        put(&self.typical, seen.map(|seen| seen.typical));
        put(&self.nearly_all, seen.and_then(|seen| seen.nearly_all));
        put(&self.least, Some(bounds.least));
        put(&self.most, Some(bounds.most));
        self.up.store(up, Ordering::Relaxed);
        self.at.store(self.place(now), Ordering::Release);
    }

    /// Takes the view away: something has changed that is not in it.
    pub(super) fn forget(&self) {
        self.at.store(0, Ordering::Release);
    }

    /// Returns whether the server is up and what asking it costs; None when that has to be looked up, and written here.
    pub(super) fn cost(&self, now: Instant) -> Option<(bool, Duration)> {
        let at = self.at.load(Ordering::Acquire);
        let is_good = at != 0 && self.place(now).saturating_sub(at) < COST_LASTS;
        is_good.then(|| {
            (self.up.load(Ordering::Relaxed), Duration::from_nanos(self.cost.load(Ordering::Relaxed)))
        })
    }

    /// Returns what those go by who wait for an answer; None when that has to be looked up.
    pub(super) fn seen(&self) -> Option<(Option<Seen>, AttemptTime)> {
        if self.at.load(Ordering::Acquire) == 0 {
            return None;
        }
        let get = |place: &AtomicU64| Some(place.load(Ordering::Relaxed)).filter(|nanos| *nanos != NONE);
        let time = |place| get(place).map(Duration::from_nanos);
        let seen = time(&self.typical).map(|typical| Seen { typical, nearly_all: time(&self.nearly_all) });
        Some((seen, AttemptTime { least: time(&self.least)?, most: time(&self.most)? }))
    }

    /// Returns a time as it is written.
    fn place(&self, now: Instant) -> u64 {
        nanos(now.saturating_duration_since(self.since)).saturating_add(1)
    }
}

/// Returns nanoseconds; 584 years fit, and what is longer is as long.
fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(NONE - 1)
}
