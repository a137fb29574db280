//! The dials of a pool that are under way, when a further one may begin, and the pause after one that failed. Pure: `now` is handed in. It knows neither
//! connections nor what waits for them.

use super::super::TransportError;
use super::{FIRST_PAUSE, LONGEST_PAUSE, SWEEP_INTERVAL};
use std::time::Instant;

/// The dials under way.
#[derive(Debug, Default)]
pub(super) struct Dials {
    /// How many.
    under_way: usize,
    /// When the latest of all began.
    latest: Option<Instant>,
}

impl Dials {
    /// Returns how many are under way.
    pub(super) fn under_way(&self) -> usize {
        self.under_way
    }

    /// Notes that one begins.
    pub(super) fn begin(&mut self, now: Instant) {
        self.under_way += 1;
        self.latest = Some(now);
    }

    /// Notes that one has ended. Returns when the latest began; None when there was none under way.
    pub(super) fn end(&mut self) -> Option<Instant> {
        let begun = self.latest;
        self.under_way = self.under_way.saturating_sub(1);
        if self.under_way == 0 {
            self.latest = None;
        }
        begun
    }

    /// Gives all of them up.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }

    /// Returns true when those under way take so long that what waits for them would have another one.
    pub(super) fn are_slow(&self, now: Instant) -> bool {
        let is_slow = |begun| now.saturating_duration_since(begun) >= SWEEP_INTERVAL;
        self.under_way > 0 && self.latest.is_some_and(is_slow)
    }

    /// Returns true when one may begin: the first at once, a further one beside slow ones, within the bound.
    pub(super) fn may_begin(&self, bound: usize, now: Instant) -> bool {
        self.under_way == 0 || (self.under_way < bound && self.are_slow(now))
    }
}

/// How much of a pool there may be at once.
#[derive(Clone, Copy, Debug)]
pub(in crate::transport) struct Room {
    /// `limits.max_connections`.
    pub(in crate::transport) connections: usize,
    /// `limits.dials`.
    pub(in crate::transport) dials: usize,
}

/// The time after a failure in which nothing is dialled.
#[derive(Debug)]
pub(super) struct Pause {
    /// When it ends.
    pub(super) until: Instant,
    /// What jobs are told meanwhile.
    pub(super) error: TransportError,
}

impl Pause {
    /// Makes the pause after so many failures in a row, the last of a dial that began at `begun`.
    pub(super) fn after(failures: u32, begun: Instant, now: Instant, error: &TransportError) -> Self {
        let doublings = failures.saturating_sub(1).min(16);
        let pause = FIRST_PAUSE.saturating_mul(1 << doublings).min(LONGEST_PAUSE);
        let jittered = pause.mul_f64(0.75 + fastrand::f64() / 4.0);
        // A dial into a black hole has been a pause itself.
        let until = (begun + jittered).max(now + FIRST_PAUSE.mul_f64(0.75));
        Self { until, error: error.clone() }
    }
}
