//! How long one server's answers take: a moving average that jumps up at once and comes down slowly (peak-EWMA), with a
//! penalty for failures beside it. Pure. It knows neither time-outs of attempts nor who is chosen.
//!
//! A failure never enters as its own time: a server that refuses in a millisecond must not look like the fastest. And the
//! penalty is kept apart from the estimate, so that a server's failures do not lengthen the time it is waited for.

use super::Sample;
use super::health::TOGETHER;
use std::time::{Duration, Instant};

/// An outlier, and a failure, has lost two thirds of its weight after this time (Finagle and its kin use the same).
const DECAY: Duration = Duration::from_secs(10);

/// Share of a new sample in the average, as TCP's smoothed round-trip time has it (RFC 6298 §2).
const GAIN: f64 = 1.0 / 8.0;

/// What a failure adds to the cost of asking this server.
const FAILURE_PENALTY: f64 = 1.0;

/// Where penalties end: it must be possible to live them down.
const MOST_PENALTY: f64 = 5.0;

/// A time-out doubles the average within these bounds (as RFC 6298 §5.5): a quarter of the shortest and longest wait for an
/// answer. Without it a path that has become slower than the wait would never show how slow it is.
const AFTER_TIMEOUT: (f64, f64) = (0.125, 0.5);

/// The latency of one server; all in seconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Latency {
    /// None before the first answer.
    measured: Option<Measured>,
    /// What failures have added.
    penalty: Option<Penalty>,
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
    /// Enters what became of a query.
    pub fn observe(&mut self, sample: &Sample, now: Instant) {
        match sample {
            Sample::Answered { latency } => self.enter(latency.as_secs_f64(), now),
            Sample::TimedOut => {
                self.punish(now);
                self.lengthen(now);
            }
            Sample::Failed { .. } | Sample::Certificate { .. } | Sample::Busy { .. } => self.punish(now),
            Sample::Neutral => {}
        }
    }

    /// Returns what an answer takes now, failures apart.
    pub fn estimate(&self, now: Instant) -> Option<Duration> {
        self.measured.map(|measured| seconds(measured.estimate(now)))
    }

    /// Returns what answers usually take: for those who wait for one. Not the estimate: one slow name must not make everybody
    /// wait long for a server that has fallen silent.
    pub fn typical(&self) -> Option<Duration> {
        self.measured.map(|measured| seconds(measured.typical))
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

    /// Raises the average after a time-out; once for those that come together, as RFC 6298 §5.5 does, or a burst that meets
    /// a silent server would wait the longest time at once.
    fn lengthen(&mut self, now: Instant) {
        let (least, most) = AFTER_TIMEOUT;
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
            latency.observe(sample, now);
        }
        latency
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
        assert_eq!(latency.typical(), Some(Duration::from_millis(80)));
        let later = latency.estimate(now + Duration::from_secs(60)).unwrap();
        assert!(later < Duration::from_millis(90), "{later:?}");
    }

    #[test]
    fn quick_answers_bring_the_estimate_down_in_time() {
        let mut now = crate::clock::now();
        let mut latency = after(&[answered(500)], now);
        for _ in 0..100 {
            now += Duration::from_millis(500);
            latency.observe(&answered(20), now);
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
            latency.observe(&refused(), now);
        }
        assert!(latency.cost(now) <= Duration::from_millis(5021));
        assert!(latency.cost(now + Duration::from_secs(100)) < Duration::from_millis(21));
        assert_eq!(latency.typical(), Some(Duration::from_millis(20)));
    }

    #[test]
    fn time_outs_lengthen_the_wait_until_an_answer_fits() {
        let now = crate::clock::now();
        let mut latency = after(&[answered(10)], now);
        let mut waits = Vec::new();
        for round in 0..4 {
            latency.observe(&Sample::TimedOut, now + TOGETHER * round);
            waits.push(latency.typical().unwrap().as_millis());
        }
        assert_eq!(waits, [125, 250, 500, 500]);
    }

    #[test]
    fn time_outs_of_one_burst_lengthen_the_wait_once() {
        let now = crate::clock::now();
        let mut latency = after(&[answered(10)], now);
        for millis in 0..50 {
            latency.observe(&Sample::TimedOut, now + Duration::from_millis(millis));
        }
        assert_eq!(latency.typical(), Some(Duration::from_millis(125)));
    }

    #[test]
    fn neutral_samples_change_nothing() {
        let now = crate::clock::now();
        let latency = after(&[answered(10), Sample::Neutral], now);
        assert_eq!(latency.cost(now), Duration::from_millis(10));
    }
}
