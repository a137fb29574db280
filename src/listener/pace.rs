//! How a UDP socket's queries come: many and answered from memory, or not. It decides who waits in the socket, see
//! [`attendant`](super::attendant). Pure: time comes in.

use std::time::{Duration, Instant};

/// Queries that are judged together.
const WINDOW: u32 = 256;

/// Windows in a row before a socket gets an attendant: what is over at once is not worth a thread.
const WINDOWS: u32 = 4;

/// A window may take so long then: 512 queries a second.
const BRISK: Duration = Duration::from_millis(500);

/// A window takes so long when an attendant is no longer worth it: 256 queries a second.
const SLACK: Duration = Duration::from_secs(1);

/// Of so many queries one may be a miss before a socket gets an attendant.
const SELDOM: u32 = 32;

/// Of so many queries one may be a miss while it has one.
const OFTEN: u32 = 16;

/// The pace of one socket.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// When the window began; None before the first query.
    since: Option<Instant>,
    /// Queries of this window.
    queries: u32,
    /// Of these, what memory had no answer to.
    misses: u32,
    /// Windows in a row that were brisk, with few misses.
    brisk: u32,
    /// The last window was slack, or had many misses.
    is_slack: bool,
}

impl Pace {
    /// Counts queries that came together at `now`.
    pub(super) fn count(&mut self, queries: usize, misses: usize, now: Instant) {
        let count = |number| u32::try_from(number).unwrap_or(u32::MAX);
        self.since.get_or_insert(now);
        self.queries = self.queries.saturating_add(count(queries));
        self.misses = self.misses.saturating_add(count(misses));
        if self.queries >= WINDOW || self.misses > WINDOW / OFTEN || self.took(now) > SLACK {
            self.judge(now);
        }
    }

    /// Takes note that nothing came until `now`.
    pub(super) fn nothing_came(&mut self, now: Instant) {
        self.count(0, 0, now);
    }

    /// Returns how long the window has taken.
    fn took(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.since.unwrap_or(now))
    }

    /// Judges the window and begins the next.
    fn judge(&mut self, now: Instant) {
        let Self { queries, misses, brisk, .. } = *self;
        let took = self.took(now);
        let misses_in = |number| misses.saturating_mul(number) > queries.max(WINDOW);
        let is_brisk = took <= BRISK && !misses_in(SELDOM);
        *self = Self {
            since: Some(now),
            brisk: if is_brisk { brisk.saturating_add(1) } else { 0 },
            is_slack: took > SLACK || misses_in(OFTEN),
            ..Self::default()
        };
    }

    /// True when many queries come and nearly all are answered from memory.
    pub(super) fn is_brisk(&self) -> bool {
        self.brisk >= WINDOWS
    }

    /// True when they are few, or many are not answered from memory.
    pub(super) fn is_slack(&self) -> bool {
        self.is_slack
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Queries one by one, so many a second for so long, one of `misses_in` a miss (0: none). Returns the time after them.
    fn come(pace: &mut Pace, mut now: Instant, a_second: u32, count: u32, misses_in: u32) -> Instant {
        for number in 1..=count {
            now += Duration::from_secs(1) / a_second;
            pace.count(1, usize::from(misses_in > 0 && number % misses_in == 0), now);
        }
        now
    }

    #[test]
    fn many_queries_answered_from_memory_are_brisk_from_the_fourth_window_on() {
        let mut pace = Pace::default();
        let now = come(&mut pace, crate::clock::now(), 5000, 4 * WINDOW - 1, 0);
        assert!(!pace.is_brisk());
        come(&mut pace, now, 5000, 1, 0);
        assert!(pace.is_brisk() && !pace.is_slack());
    }

    #[test]
    fn few_queries_are_not_and_neither_are_many_misses() {
        for (a_second, misses_in) in [(400, 0), (5000, 31), (5000, 1), (1_000_000, 20)] {
            let mut pace = Pace::default();
            come(&mut pace, crate::clock::now(), a_second, 10_000, misses_in);
            assert!(!pace.is_brisk(), "{a_second} {misses_in}");
        }
        let mut pace = Pace::default();
        let now = come(&mut pace, crate::clock::now(), 5000, 3 * WINDOW, 0);
        let now = come(&mut pace, now, 300, WINDOW, 0);
        come(&mut pace, now, 5000, WINDOW, 0);
        assert!(!pace.is_brisk(), "not in a row");
    }

    #[test]
    fn what_is_brisk_becomes_slack_by_half_as_many_queries_or_twice_as_many_misses() {
        let now = crate::clock::now();
        for (a_second, misses_in, is_slack) in
            [(300, 0, false), (200, 0, true), (5000, 20, false), (5000, 15, true), (5000, 1, true)]
        {
            let mut pace = Pace::default();
            come(&mut pace, now, a_second, 10 * WINDOW, misses_in);
            assert_eq!(pace.is_slack(), is_slack, "{a_second} {misses_in}");
        }
    }

    #[test]
    fn misses_are_seen_before_the_window_is_full() {
        let mut pace = Pace::default();
        pace.count(17, 17, crate::clock::now());
        assert!(pace.is_slack());
    }

    #[test]
    fn few_queries_are_seen_before_the_window_is_full() {
        let mut pace = Pace::default();
        come(&mut pace, crate::clock::now(), 20, 22, 0);
        assert!(pace.is_slack());
    }

    #[test]
    fn it_is_slack_when_nothing_comes_for_a_second() {
        let mut pace = Pace::default();
        let begun = crate::clock::now();
        pace.nothing_came(begun);
        pace.nothing_came(begun + SLACK);
        assert!(!pace.is_slack());
        pace.nothing_came(begun + SLACK + Duration::from_millis(1));
        assert!(pace.is_slack());
    }
}
