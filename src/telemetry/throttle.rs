//! A bound on how often one thing is logged. Some lines tell of what strangers do, and a stranger can do it again and
//! again: the first ones of a while are written, the rest counted and named with the next. Pure: time comes in.

use std::time::{Duration, Instant};

/// Lines that may follow one another at once.
const BURST: u32 = 10;

/// After this time one more may be written.
const REFILL: Duration = Duration::from_secs(60);

/// Lets some lines pass and counts the others.
#[derive(Clone, Debug)]
pub struct Throttle {
    /// Lines that may still pass.
    left: u32,
    /// When `left` was last right; None before the first line.
    at: Option<Instant>,
    /// Lines that did not pass since the last one that did.
    unsaid: u64,
}

impl Default for Throttle {
    fn default() -> Self {
        Self { left: BURST, at: None, unsaid: 0 }
    }
}

impl Throttle {
    /// Returns, for a line that may be written, how many were not since the last one; None for one that may not.
    pub fn pass(&mut self, now: Instant) -> Option<u64> {
        self.refill(now);
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                Some(std::mem::take(&mut self.unsaid))
            }
            None => {
                self.unsaid = self.unsaid.saturating_add(1);
                None
            }
        }
    }

    /// Adds what has become free since the last time.
    fn refill(&mut self, now: Instant) {
        let Some(at) = self.at else {
            self.at = Some(now);
            return;
        };
        let earned = now.saturating_duration_since(at).as_secs() / REFILL.as_secs();
        let earned = u32::try_from(earned).unwrap_or(u32::MAX);
        self.left = self.left.saturating_add(earned).min(BURST);
        // What is left of an interval counts towards the next.
        self.at = at.checked_add(REFILL.saturating_mul(earned)).or(Some(now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_costs_a_few_lines_and_then_one_a_minute() {
        let mut throttle = Throttle::default();
        let start = crate::clock::now();
        let hour = 3600_u32;
        let passed: Vec<u64> = (0..hour * 10)
            .filter_map(|tenth| throttle.pass(start + Duration::from_millis(100) * tenth))
            .collect();
        assert_eq!(passed.len(), 10 + 59, "of 36000 events");
        assert!(passed[..10].iter().all(|unsaid| *unsaid == 0));
        assert_eq!(passed[10], 590, "the first after the burst says how many were left out");
        assert_eq!(passed[11], 599);
    }

    #[test]
    fn what_happens_seldom_is_always_said() {
        let mut throttle = Throttle::default();
        let start = crate::clock::now();
        assert!((0..100).all(|minute| throttle.pass(start + REFILL * minute) == Some(0)));
    }

    #[test]
    fn after_a_long_quiet_a_burst_passes_again_and_no_more() {
        let mut throttle = Throttle::default();
        let start = crate::clock::now();
        while throttle.pass(start).is_some() {}
        let later = start + Duration::from_secs(86_400);
        assert_eq!((0..50).filter(|_| throttle.pass(later).is_some()).count(), 10);
    }
}
