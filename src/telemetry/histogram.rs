//! Durations counted by bucket: relaxed atomics that any thread may add to. It keeps no samples and works out no
//! quantiles; who reads the metrics page does.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the buckets but the last, which has none. From a cached answer (the first) over a near server and a
/// far one to the longest that a client is kept waiting.
pub(super) const BOUNDS: [Duration; 15] = [
    Duration::from_micros(100),
    Duration::from_micros(250),
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_micros(2_500),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_millis(2_500),
    Duration::from_secs(5),
];

/// Buckets, with the one above every bound.
const BUCKETS: usize = BOUNDS.len() + 1;

/// A histogram that is written.
#[derive(Debug, Default)]
pub(super) struct Histogram {
    /// Samples by bucket.
    buckets: [AtomicU64; BUCKETS],
    /// All samples together. Microseconds, not nanoseconds: those would overflow within weeks of load.
    sum_micros: AtomicU64,
}

/// A histogram that is read.
#[derive(Clone, Debug, Default)]
pub(super) struct Reading {
    /// Samples by bucket, each counted once.
    buckets: [u64; BUCKETS],
    /// All samples together.
    sum_micros: u64,
}

impl Histogram {
    /// Counts one sample.
    pub(super) fn observe(&self, sample: Duration) {
        let place = BOUNDS.partition_point(|bound| *bound < sample);
        if let Some(bucket) = self.buckets.get(place) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        let micros = u64::try_from(sample.as_micros()).unwrap_or(u64::MAX);
        self.sum_micros.fetch_add(micros, Ordering::Relaxed);
    }

    /// Counts samples, each place once.
    pub(super) fn observe_all(&self, samples: &[Duration]) {
        if let [only] = samples {
            return self.observe(*only);
        }
        let mut counts = [0u64; BUCKETS];
        let mut sum = 0u64;
        for sample in samples {
            if let Some(count) = counts.get_mut(BOUNDS.partition_point(|bound| bound < sample)) {
                *count += 1;
            }
            sum = sum.saturating_add(u64::try_from(sample.as_micros()).unwrap_or(u64::MAX));
        }
        for (bucket, count) in self.buckets.iter().zip(counts).filter(|(_, count)| *count > 0) {
            bucket.fetch_add(count, Ordering::Relaxed);
        }
        self.sum_micros.fetch_add(sum, Ordering::Relaxed);
    }

    /// Adds what was counted to `reading`.
    pub(super) fn add_to(&self, reading: &mut Reading) {
        for (sum, bucket) in reading.buckets.iter_mut().zip(&self.buckets) {
            *sum = sum.wrapping_add(bucket.load(Ordering::Relaxed));
        }
        reading.sum_micros = reading.sum_micros.wrapping_add(self.sum_micros.load(Ordering::Relaxed));
    }
}

impl Reading {
    /// Adds samples too short to have been timed.
    pub(super) fn add_untimed(&mut self, samples: u64) {
        if let Some(lowest) = self.buckets.first_mut() {
            *lowest = lowest.wrapping_add(samples);
        }
    }

    /// Returns the number of samples. It is the sum of the buckets, so that a page never contradicts itself.
    pub(super) fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// Returns all samples together, in seconds.
    pub(super) fn sum_seconds(&self) -> f64 {
        Duration::from_micros(self.sum_micros).as_secs_f64()
    }

    /// Returns the buckets: upper bound in seconds, samples. The last bound is infinite.
    pub(super) fn buckets(&self) -> [(f64, u64); BUCKETS] {
        let mut bounds = BOUNDS.iter().map(Duration::as_secs_f64);
        self.buckets.map(|samples| (bounds.next().unwrap_or(f64::INFINITY), samples))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_rise() {
        assert!(BOUNDS.is_sorted_by(|a, b| a < b));
    }

    #[test]
    fn a_sample_on_a_bound_belongs_below_it_and_a_huge_one_above_all() {
        let histogram = Histogram::default();
        for sample in
            [Duration::ZERO, Duration::from_micros(100), Duration::from_micros(101), Duration::from_secs(9)]
        {
            histogram.observe(sample);
        }
        let mut reading = Reading::default();
        histogram.add_to(&mut reading);
        let buckets = reading.buckets();
        assert_eq!((buckets[0], buckets[1].1, buckets[15]), ((0.0001, 2), 1, (f64::INFINITY, 1)));
        assert_eq!(reading.count(), 4);
        assert!((reading.sum_seconds() - 9.000_201).abs() < 1e-9);
    }

    #[test]
    fn readings_of_several_histograms_add_up() {
        let histograms: [Histogram; 3] = Default::default();
        let mut reading = Reading::default();
        for histogram in &histograms {
            histogram.observe(Duration::from_millis(3));
            histogram.add_to(&mut reading);
        }
        reading.add_untimed(4);
        assert_eq!((reading.count(), reading.buckets()[0].1, reading.buckets()[5].1), (7, 4, 3));
    }
}
