//! How long the latest answers of one server took, for people: the last 128 of them, and what half and most of them stayed
//! within. Pure and of fixed size. Nobody is chosen by it (`latency` serves that).

use std::time::Duration;

/// Answers that are remembered: enough for a 95th percentile that one odd answer does not make, and 512 octets.
const ANSWERS: usize = 128;

/// The latest answers' times.
#[derive(Clone, Debug)]
pub(super) struct Recent {
    /// In microseconds; the oldest gives way.
    micros: [u32; ANSWERS],
    /// Answers entered so far.
    entered: usize,
}

impl Default for Recent {
    fn default() -> Self {
        Self { micros: [0; ANSWERS], entered: 0 }
    }
}

/// What answers stay within.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quantiles {
    /// Half of them.
    pub p50: Duration,
    /// 19 of 20.
    pub p95: Duration,
}

impl Recent {
    /// Enters an answer's time; over an hour is an hour.
    pub(super) fn enter(&mut self, latency: Duration) {
        if let Some(place) = self.micros.get_mut(self.entered % ANSWERS) {
            *place = u32::try_from(latency.as_micros()).unwrap_or(u32::MAX);
        }
        self.entered = self.entered.saturating_add(1);
    }

    /// Returns what the remembered answers stay within; None before the first.
    pub(super) fn quantiles(mut self) -> Option<Quantiles> {
        let known = self.micros.get_mut(..self.entered.min(ANSWERS))?;
        known.sort_unstable();
        let last = known.len().checked_sub(1)?;
        // Nearest rank: a time that some answer took.
        let at = |percent: usize| known.get((last * percent).div_ceil(100)).copied().unwrap_or_default();
        let time = |percent| Duration::from_micros(u64::from(at(percent)));
        Some(Quantiles { p50: time(50), p95: time(95) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(millis: impl IntoIterator<Item = u64>) -> Option<(u128, u128)> {
        let mut recent = Recent::default();
        for millis in millis {
            recent.enter(Duration::from_millis(millis));
        }
        recent.quantiles().map(|found| (found.p50.as_millis(), found.p95.as_millis()))
    }

    #[test]
    fn half_and_most_of_the_answers_stay_within() {
        assert_eq!(of([]), None);
        assert_eq!(of([7]), Some((7, 7)));
        assert_eq!(of(1..=101), Some((51, 96)));
        assert_eq!(of((1..=101).rev()), Some((51, 96)), "in any order");
        assert_eq!(of([5, 5, 5, 5, 5, 5, 5, 5, 5, 900]), Some((5, 900)));
    }

    #[test]
    fn the_oldest_answers_are_forgotten() {
        let answers = u64::try_from(ANSWERS).unwrap();
        assert_eq!(of(std::iter::repeat_n(900, 1000).chain(std::iter::repeat_n(3, ANSWERS))), Some((3, 3)));
        assert_eq!(of(1..=answers * 10 + 1), Some((1218, 1275)));
    }

    #[test]
    fn an_endless_answer_does_not_overflow() {
        let mut recent = Recent::default();
        recent.enter(Duration::MAX);
        assert_eq!(recent.quantiles().unwrap().p50, Duration::from_micros(u64::from(u32::MAX)));
    }
}
