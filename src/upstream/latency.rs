//! How long one server's answers take: a moving average that jumps up at once and comes down slowly (peak-EWMA), with a
//! penalty for failures beside it, and the time within which nearly all of them come. Pure. It knows neither time-outs of
//! attempts nor who is chosen.
//!
//! A failure never enters as its own time: a server that refuses in a millisecond must not look like the fastest. And the
//! penalty is kept apart from the estimate, so that a server's failures do not lengthen the time it is waited for.

use super::Sample;
use super::health::TOGETHER;
use crate::config::settings::timeouts::AttemptTime;
use std::time::{Duration, Instant};

/// An outlier, and a failure, has lost two thirds of its weight after this time (Finagle and its kin use the same).
const DECAY: Duration = Duration::from_secs(10);

/// Share of a new sample in the average, as TCP's smoothed round-trip time has it (RFC 6298 §2).
const GAIN: f64 = 1.0 / 8.0;

/// What a failure adds to the cost of asking this server.
const FAILURE_PENALTY: f64 = 1.0;

/// Where penalties end: it must be possible to live them down.
const MOST_PENALTY: f64 = 5.0;

/// The wait for an answer is this many times the average (`waits`).
const WAIT: u32 = 4;

/// The latency of one server; all in seconds.
#[derive(Clone, Debug, Default)]
pub struct Latency {
    /// None before the first answer.
    measured: Option<Measured>,
    /// What failures have added.
    penalty: Option<Penalty>,
    /// The slowest answers.
    tail: Tail,
}

/// What was seen of a server's answers, for those who wait for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// What they usually take. Not the estimate: one slow name must not make everybody wait long for a server that has fallen
    /// silent.
    pub typical: Duration,
    /// The time within which 95 of 100 come; None before there were enough of them to tell.
    pub nearly_all: Option<Duration>,
}

/// What answers showed.
#[derive(Clone, Copy, Debug)]
struct Measured {
    /// The average.
    typical: f64,
    /// The latest peak, at least `typical`.
    peak: f64,
    /// When `peak` was true.
    at: Instant,
    /// When a time-out last raised the average.
    lengthened_at: Option<Instant>,
}

/// What failures add.
#[derive(Clone, Copy, Debug)]
struct Penalty {
    /// Seconds added.
    value: f64,
    /// When that was true.
    at: Instant,
}

impl Latency {
    /// Enters what became of a query, which was given time within these bounds.
    pub fn observe(&mut self, sample: &Sample, bounds: AttemptTime, now: Instant) {
        match sample {
            Sample::Answered { latency } => {
                self.enter(latency.as_secs_f64(), now);
                self.tail.enter(*latency);
            }
            Sample::TimedOut => {
                self.punish(now);
                self.lengthen(bounds, now);
            }
            Sample::Failed { .. } | Sample::Certificate { .. } | Sample::Busy { .. } => self.punish(now),
            Sample::Neutral => {}
        }
    }

    /// Returns what an answer takes now, failures apart.
    pub fn estimate(&self, now: Instant) -> Option<Duration> {
        self.measured.map(|measured| seconds(measured.estimate(now)))
    }

    /// Returns what those go by who wait for an answer; None before the first.
    pub fn seen(&self) -> Option<Seen> {
        let measured = self.measured?;
        Some(Seen { typical: seconds(measured.typical), nearly_all: self.tail.limit() })
    }

    /// Returns the cost of asking: the estimate and the penalty. A server never asked costs nothing, so that it is tried.
    pub fn cost(&self, now: Instant) -> Duration {
        let estimate = self.measured.map_or(0.0, |measured| measured.estimate(now));
        seconds(estimate + self.penalty(now))
    }

    /// Enters an answer's time.
    fn enter(&mut self, sample: f64, now: Instant) {
        self.measured = Some(match self.measured {
            None => Measured { typical: sample, peak: sample, at: now, lengthened_at: None },
            Some(measured) => Measured {
                typical: measured.typical + (sample - measured.typical) * GAIN,
                peak: measured.estimate(now).max(sample),
                at: now,
                lengthened_at: measured.lengthened_at,
            },
        });
    }

    /// Adds a failure.
    fn punish(&mut self, now: Instant) {
        let value = (self.penalty(now) + FAILURE_PENALTY).min(MOST_PENALTY);
        self.penalty = Some(Penalty { value, at: now });
    }

    /// Doubles the average after a time-out, as RFC 6298 §5.5 does: without it a path that has become slower than the wait would
    /// never show how slow it is. The wait is then at least twice the shortest, and not above the longest. Once for those that
    /// come together, or a burst that meets a silent server would wait the longest time at once.
    fn lengthen(&mut self, AttemptTime { least, most }: AttemptTime, now: Instant) {
        let most = (most / WAIT).as_secs_f64();
        let least = (least * 2 / WAIT).as_secs_f64().min(most);
        let is_new = |at: Option<Instant>| at.is_none_or(|at| now.saturating_duration_since(at) >= TOGETHER);
        if let Some(measured) = self.measured.as_mut().filter(|measured| is_new(measured.lengthened_at)) {
            measured.lengthened_at = Some(now);
            let estimate = measured.estimate(now);
            measured.typical = (measured.typical * 2.0).clamp(least, most).max(measured.typical);
            measured.peak = estimate.max(measured.typical);
            measured.at = now;
        }
    }

    /// Returns what is left of the penalty.
    fn penalty(&self, now: Instant) -> f64 {
        self.penalty.map_or(0.0, |penalty| penalty.value * remains(penalty.at, now))
    }
}

impl Measured {
    /// Returns the average and what is left of the peak.
    fn estimate(&self, now: Instant) -> f64 {
        self.typical + (self.peak - self.typical) * remains(self.at, now)
    }
}

/// One answer of so many is slower than what [`Tail::limit`] says: its 95th percentile.
const TAIL_SHARE: u32 = 20;

/// Fewer answers than this say nothing about the slowest twentieth.
const TAIL_SAMPLES: u32 = 20;

/// With so many answers all counts are halved, so that what was long ago wears off.
const TAIL_MEMORY: u32 = 400;

/// The finest difference between two latencies, and the width of the lowest buckets, in microseconds.
const TAIL_UNIT: u32 = 125;

/// Buckets for each doubling of the latency, as a power of two: an eighth is precise enough to wait by.
const TAIL_BITS: u32 = 3;

/// Buckets up to 8 s, which no answer takes.
const TAIL_BUCKETS: usize = 112;

/// Counts of recent answers by how long they took, and the bucket at which the slowest twentieth begins. That place is
/// moved with each answer, by a step or two, and never searched for.
#[derive(Clone, Debug)]
struct Tail {
    /// Answers in each bucket.
    counts: [u16; TAIL_BUCKETS],
    /// Answers in all of them.
    total: u32,
    /// Answers in buckets above `place`.
    slower: u32,
    /// The lowest bucket above which there is no more than the share.
    place: usize,
}

impl Default for Tail {
    fn default() -> Self {
        Self { counts: [0; TAIL_BUCKETS], total: 0, slower: 0, place: 0 }
    }
}

impl Tail {
    /// Enters an answer's time.
    fn enter(&mut self, latency: Duration) {
        let bucket = bucket_of(latency);
        let Some(count) = self.counts.get_mut(bucket) else { return };
        *count = count.saturating_add(1);
        self.total += 1;
        self.slower += u32::from(bucket > self.place);
        if self.total >= TAIL_MEMORY {
            self.halve();
        }
        self.settle();
    }

    /// Returns the upper edge of the place.
    fn limit(&self) -> Option<Duration> {
        (self.total >= TAIL_SAMPLES).then(|| upper_edge(self.place))
    }

    /// Moves the place to where it belongs.
    fn settle(&mut self) {
        let share = self.total / TAIL_SHARE;
        while self.slower > share {
            self.place += 1;
            self.slower = self.slower.saturating_sub(self.count(self.place));
        }
        while self.place > 0 && self.slower + self.count(self.place) <= share {
            self.slower += self.count(self.place);
            self.place -= 1;
        }
    }

    /// Halves all counts.
    fn halve(&mut self) {
        self.counts.iter_mut().for_each(|count| *count /= 2);
        let sum = |counts: &[u16]| counts.iter().map(|count| u32::from(*count)).sum();
        self.total = sum(&self.counts);
        self.slower = sum(self.counts.get(self.place + 1..).unwrap_or_default());
    }

    /// Returns the answers in a bucket.
    fn count(&self, bucket: usize) -> u32 {
        self.counts.get(bucket).copied().map_or(0, u32::from)
    }
}

/// Returns the bucket of a latency: the number of its highest bit, and the bits below that.
fn bucket_of(latency: Duration) -> usize {
    let secs = u32::try_from(latency.as_secs()).unwrap_or(u32::MAX);
    let units =
        secs.saturating_mul(1_000_000 / TAIL_UNIT).saturating_add(latency.subsec_micros() / TAIL_UNIT);
    let doublings = (units >> TAIL_BITS).checked_ilog2().map_or(0, |log| log + 1);
    let within = units >> doublings.saturating_sub(1) & ((1 << TAIL_BITS) - 1);
    let bucket = (doublings << TAIL_BITS) + within;
    usize::try_from(bucket).unwrap_or(usize::MAX).min(TAIL_BUCKETS - 1)
}

/// Returns where the bucket ends.
fn upper_edge(bucket: usize) -> Duration {
    let next = u32::try_from(bucket + 1).unwrap_or(u32::MAX);
    let (doublings, within) = (next >> TAIL_BITS, next & ((1 << TAIL_BITS) - 1));
    let units = match doublings {
        0 => within,
        _ => (1 << TAIL_BITS | within) << (doublings - 1),
    };
    Duration::from_micros(u64::from(TAIL_UNIT) * u64::from(units))
}

/// Returns the weight that something of `at` has left: e^-x as (e^-x/8)^8, near enough and without the 300 kB of the
/// mathematics library.
fn remains(at: Instant, now: Instant) -> f64 {
    let x = now.saturating_duration_since(at).as_secs_f64() / DECAY.as_secs_f64() / 8.0;
    let eighth = 1.0 / (1.0 + x * (1.0 + x / 2.0 * (1.0 + x / 3.0)));
    let quarter = eighth * eighth;
    let half = quarter * quarter;
    half * half
}

/// Returns seconds as a duration; what is no number is zero.
fn seconds(value: f64) -> Duration {
    Duration::try_from_secs_f64(value).unwrap_or(Duration::ZERO)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::TransportError;
    use crate::upstream::Failure;

    fn answered(millis: u64) -> Sample {
        Sample::Answered { latency: Duration::from_millis(millis) }
    }
    fn refused() -> Sample {
        Sample::Failed { error: Failure::from(&TransportError::Closed) }
    }
    fn after(samples: &[Sample], now: Instant) -> Latency {
        let mut latency = Latency::default();
        for sample in samples {
            latency.observe(sample, AttemptTime::default(), now);
        }
        latency
    }

    fn typical(latency: &Latency) -> Option<Duration> {
        latency.seen().map(|seen| seen.typical)
    }

    #[test]
    fn first_answer_is_the_estimate() {
        let now = crate::clock::now();
        assert_eq!(after(&[], now).estimate(now), None);
        assert_eq!(after(&[answered(20)], now).estimate(now), Some(Duration::from_millis(20)));
    }

    #[test]
    fn a_slow_answer_counts_at_once_and_wears_off() {
        let now = crate::clock::now();
        let latency = after(&[answered(20), answered(20), answered(500)], now);
        assert_eq!(latency.estimate(now), Some(Duration::from_millis(500)));
        assert_eq!(typical(&latency), Some(Duration::from_millis(80)));
        let later = latency.estimate(now + Duration::from_secs(60)).unwrap();
        assert!(later < Duration::from_millis(90), "{later:?}");
    }

    #[test]
    fn quick_answers_bring_the_estimate_down_in_time() {
        let mut now = crate::clock::now();
        let mut latency = after(&[answered(500)], now);
        for _ in 0..100 {
            now += Duration::from_millis(500);
            latency.observe(&answered(20), AttemptTime::default(), now);
        }
        let estimate = latency.estimate(now).unwrap();
        assert!(estimate < Duration::from_millis(30), "{estimate:?}");
    }

    #[test]
    fn a_quick_refusal_makes_a_server_look_slow_not_fast() {
        let now = crate::clock::now();
        let healthy = after(&[answered(20)], now);
        let refusing = after(&[refused()], now);
        assert!(refusing.cost(now) > healthy.cost(now) * 10);
        assert_eq!(refusing.estimate(now), None);
    }

    #[test]
    fn penalties_add_up_to_a_bound_and_decay() {
        let now = crate::clock::now();
        let mut latency = after(&[answered(20)], now);
        for _ in 0..100 {
            latency.observe(&refused(), AttemptTime::default(), now);
        }
        assert!(latency.cost(now) <= Duration::from_millis(5021));
        assert!(latency.cost(now + Duration::from_secs(100)) < Duration::from_millis(21));
        assert_eq!(typical(&latency), Some(Duration::from_millis(20)));
    }

    #[test]
    fn time_outs_lengthen_the_wait_until_an_answer_fits() {
        let now = crate::clock::now();
        let mut latency = after(&[answered(10)], now);
        let mut waits = Vec::new();
        for round in 0..4 {
            latency.observe(&Sample::TimedOut, AttemptTime::default(), now + TOGETHER * round);
            waits.push(typical(&latency).unwrap().as_millis());
        }
        assert_eq!(waits, [125, 250, 500, 500]);
    }

    #[test]
    fn time_outs_of_one_burst_lengthen_the_wait_once() {
        let now = crate::clock::now();
        let mut latency = after(&[answered(10)], now);
        for millis in 0..50 {
            latency.observe(&Sample::TimedOut, AttemptTime::default(), now + Duration::from_millis(millis));
        }
        assert_eq!(typical(&latency), Some(Duration::from_millis(125)));
    }

    #[test]
    fn the_time_of_nearly_all_answers_is_known_after_twenty_and_at_most_an_eighth_too_long() {
        for millis in [1, 3, 12, 40, 77, 250, 1_900] {
            let mut tail = Tail::default();
            for _ in 0..19 {
                tail.enter(Duration::from_millis(millis));
            }
            assert_eq!(tail.limit(), None);
            tail.enter(Duration::from_millis(millis));
            let limit = tail.limit().unwrap();
            assert!(limit > Duration::from_millis(millis), "{limit:?}");
            assert!(limit <= Duration::from_millis(millis).mul_f64(1.126), "{limit:?}");
        }
    }

    #[test]
    fn one_answer_in_twenty_may_be_as_slow_as_it_likes() {
        let mut tail = Tail::default();
        for number in 0..200 {
            tail.enter(Duration::from_millis(if number % 20 == 7 { 9_000 } else { 10 + number % 5 }));
        }
        assert!(tail.limit().unwrap() < Duration::from_millis(17), "{:?}", tail.limit());
        for number in 0..200 {
            tail.enter(Duration::from_millis(if number % 10 == 7 { 400 } else { 10 }));
        }
        assert!(tail.limit().unwrap() >= Duration::from_millis(400), "{:?}", tail.limit());
    }

    #[test]
    fn a_server_that_has_become_faster_is_known_as_such_after_a_while() {
        let mut tail = Tail::default();
        for _ in 0..10_000 {
            tail.enter(Duration::from_millis(300));
        }
        for _ in 0..2_000 {
            tail.enter(Duration::from_millis(10));
        }
        assert!(tail.limit().unwrap() < Duration::from_millis(12));
    }

    proptest::proptest! {
        #[test]
        fn the_place_is_where_a_search_would_find_it(times in proptest::collection::vec(0u64..9_000_000, 0..900)) {
            let mut tail = Tail::default();
            for micros in times {
                tail.enter(Duration::from_micros(micros));
                let slower = |place: usize| tail.counts[place + 1..].iter().map(|n| u32::from(*n)).sum::<u32>();
                let found = (0..TAIL_BUCKETS).find(|place| slower(*place) <= tail.total / TAIL_SHARE);
                proptest::prop_assert_eq!(found, Some(tail.place));
                proptest::prop_assert_eq!(slower(tail.place), tail.slower);
                proptest::prop_assert!(tail.total < TAIL_MEMORY);
            }
        }
    }

    #[test]
    fn neutral_samples_change_nothing() {
        let now = crate::clock::now();
        let latency = after(&[answered(10), Sample::Neutral], now);
        assert_eq!(latency.cost(now), Duration::from_millis(10));
    }
}
