//! How many retries a group may make: a share of its queries over the last 10 s. In an outage every query fails, and without
//! a bound every gateway would ask three times as much of servers that are in trouble. And how many queries may be asked of
//! a second server only because the first is slow (hedges): a smaller share, saved up in small numbers.
//! Pure: `now` is handed in. It does not count a query's own attempts (`group::Attempts`).

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Instant;

/// Retries over 10 s that are always allowed: a page's burst of queries must be able to change over to another server when one
/// falls silent, and ten a second harm no server.
const RETRIES_ALWAYS: u64 = 100;

/// Seconds the share is taken over, one slot each.
const SECONDS: usize = 10;

/// The retries and queries of the last ten seconds. Lock free: two threads at once may pass the bound by one, which does no harm.
#[derive(Debug)]
pub struct RetryBudget {
    /// Retries as a share of queries.
    percent: u64,
    /// Seconds are numbered from here.
    start: Instant,
    /// Queries begun.
    queries: Tally,
    /// Retries made.
    retries: Tally,
    /// Attempts that no server heard of.
    unheard: Tally,
}

impl RetryBudget {
    /// Makes an unused one.
    pub fn new(percent: u32, start: Instant) -> Self {
        Self {
            percent: u64::from(percent),
            start,
            queries: Tally::default(),
            retries: Tally::default(),
            unheard: Tally::default(),
        }
    }

    /// Counts a query.
    pub fn deposit(&self, now: Instant) {
        self.queries.count(self.second(now));
    }

    /// Counts a retry that is made in any case: a query sent again on another connection to the same server.
    pub fn charge(&self, now: Instant) {
        self.retries.count(self.second(now));
    }

    /// Counts an attempt that no server heard of, because no connection could be opened in time: the retry in its place is no
    /// more than the server was to have.
    pub fn unheard(&self, now: Instant) {
        self.unheard.count(self.second(now));
    }

    /// Counts a retry if there may be one; false if not.
    pub fn withdraw(&self, now: Instant) -> bool {
        let second = self.second(now);
        let share = (self.queries.sum(second) * self.percent / 100).max(RETRIES_ALWAYS);
        let allowed = share + self.unheard.sum(second);
        if self.retries.sum(second) >= allowed {
            return false;
        }
        self.retries.count(second);
        true
    }

    /// Returns the number of the second of `now`. It wraps after 136 years.
    fn second(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.start).as_secs() & u64::from(u32::MAX)
    }
}

/// Hundredths of a hedge that can be saved up: five of them, so that a burst after a quiet time is not doubled.
const SAVED_HEDGES: u32 = 5 * WHOLE_HEDGE;

/// Hundredths in one.
const WHOLE_HEDGE: u32 = 100;

/// What may be asked twice: each query adds its share of a hedge, each hedge takes a whole one. It begins empty, so that at no
/// time more than the share of all queries was asked twice. Lock free.
#[derive(Debug)]
pub struct HedgeBudget {
    /// What one query adds, in hundredths of a hedge: the share in percent.
    percent: u32,
    /// Saved up, in hundredths of a hedge.
    saved: AtomicU32,
}

impl HedgeBudget {
    /// Makes an empty one. With 0 percent it stays empty.
    pub fn new(percent: u32) -> Self {
        Self { percent, saved: AtomicU32::new(0) }
    }

    /// Adds what a query brings. Nearly always it is full, which costs a glance.
    pub fn deposit(&self) {
        if self.saved.load(Ordering::Relaxed) < SAVED_HEDGES {
            self.change(|saved| Some(saved.saturating_add(self.percent).min(SAVED_HEDGES)));
        }
    }

    /// Returns false when there are to be no hedges at all.
    pub fn is_on(&self) -> bool {
        self.percent > 0
    }

    /// Pays for one hedge; false when there is not enough.
    pub fn withdraw(&self) -> bool {
        self.change(|saved| saved.checked_sub(WHOLE_HEDGE))
    }

    /// Changes what is saved; false when `change` had nothing to say.
    fn change(&self, change: impl FnMut(u32) -> Option<u32>) -> bool {
        self.saved.fetch_update(Ordering::Relaxed, Ordering::Relaxed, change).is_ok()
    }
}

/// Events of the last ten seconds: a ring of slots, each the number of its second (upper half) and a count (lower half).
#[derive(Debug, Default)]
struct Tally([AtomicU64; SECONDS]);

impl Tally {
    /// Counts one event.
    fn count(&self, second: u64) {
        let index = usize::try_from(second).unwrap_or(0) % SECONDS;
        let Some(slot) = self.0.get(index) else { return };
        let _ = slot.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |value| {
            let (of, count) = unpack(value);
            Some(if of == second { pack(second, count.saturating_add(1)) } else { pack(second, 1) })
        });
    }

    /// Returns the events of the ten seconds that end with this one.
    fn sum(&self, second: u64) -> u64 {
        let slots = self.0.iter().map(|slot| unpack(slot.load(Ordering::Relaxed)));
        slots.filter(|(of, _)| second.wrapping_sub(*of) < SECONDS as u64).map(|(_, count)| count).sum()
    }
}

/// Puts a second and its count together; the count stops at its end.
fn pack(second: u64, count: u64) -> u64 {
    second << 32 | count.min(u64::from(u32::MAX))
}

/// Takes them apart.
fn unpack(value: u64) -> (u64, u64) {
    (value >> 32, value & u64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn retries(budget: &RetryBudget, now: Instant) -> u64 {
        (0..100_000).take_while(|_| budget.withdraw(now)).count() as u64
    }

    #[test]
    fn an_attempt_that_nobody_heard_costs_no_retry() {
        let start = crate::clock::now();
        let budget = RetryBudget::new(20, start);
        (0..100).for_each(|_| assert!(budget.withdraw(start)));
        assert!(!budget.withdraw(start));
        budget.unheard(start);
        assert!(budget.withdraw(start) && !budget.withdraw(start));
    }

    #[test]
    fn a_quiet_laptop_can_always_fail_over() {
        let now = crate::clock::now();
        let budget = RetryBudget::new(20, now);
        budget.deposit(now);
        assert_eq!(retries(&budget, now), RETRIES_ALWAYS);
    }

    #[test]
    fn retries_stay_within_their_share_of_queries() {
        let start = crate::clock::now();
        let budget = RetryBudget::new(20, start);
        for i in 0..10_000u64 {
            budget.deposit(start + Duration::from_millis(i));
        }
        let now = start + Duration::from_millis(9_999);
        assert_eq!(retries(&budget, now), 2_000);
        assert!(!budget.withdraw(now));
    }

    #[test]
    fn what_is_older_than_ten_seconds_does_not_count() {
        let start = crate::clock::now();
        let budget = RetryBudget::new(20, start);
        for _ in 0..10_000 {
            budget.deposit(start);
        }
        assert_eq!(retries(&budget, start), 2_000);
        let later = start + Duration::from_secs(10);
        assert_eq!(retries(&budget, later), RETRIES_ALWAYS);
        assert_eq!(retries(&budget, later + Duration::from_secs(9)), 0);
    }

    fn hedges(budget: &HedgeBudget) -> usize {
        (0..1000).take_while(|_| budget.withdraw()).count()
    }

    #[test]
    fn one_query_in_twenty_may_be_hedged_and_never_more() {
        let budget = HedgeBudget::new(5);
        assert_eq!(hedges(&budget), 0);
        let mut made = 0;
        for queries in 1..=1000 {
            budget.deposit();
            made += hedges(&budget);
            assert_eq!(made, queries / 20);
        }
    }

    #[test]
    fn a_long_time_without_hedges_saves_up_five() {
        let budget = HedgeBudget::new(5);
        (0..100_000).for_each(|_| budget.deposit());
        assert_eq!(hedges(&budget), 5);
    }

    #[test]
    fn with_no_share_there_are_no_hedges() {
        let budget = HedgeBudget::new(0);
        (0..1000).for_each(|_| budget.deposit());
        assert!(!budget.is_on() && !budget.withdraw());
    }

    #[test]
    fn what_is_charged_counts_as_retries() {
        let now = crate::clock::now();
        let budget = RetryBudget::new(20, now);
        (0..RETRIES_ALWAYS - 1).for_each(|_| budget.charge(now));
        assert_eq!(retries(&budget, now), 1);
    }

    #[test]
    fn a_time_before_the_start_is_taken_for_the_start() {
        let start = crate::clock::now() + Duration::from_secs(5);
        let budget = RetryBudget::new(20, start);
        budget.deposit(start - Duration::from_secs(3));
        assert!(budget.withdraw(start - Duration::from_secs(3)));
    }
}
