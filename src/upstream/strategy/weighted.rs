//! At random by weight: a server of weight 3 is asked first three times as often as one of weight 1. A server of weight 0 is
//! asked only after all others. It does not heed speed.

use super::{AttemptOrder, Candidate, Strategy};

/// See the module.
#[derive(Debug)]
pub(super) struct Weighted;

impl Strategy for Weighted {
    fn order(&self, candidates: &[Candidate], random: u64, order: &mut AttemptOrder) {
        let mut dice = fastrand::Rng::with_seed(random);
        let weight = |member: u8| candidates.get(usize::from(member)).map_or(0, |it| u64::from(it.weight));
        order.fill(candidates, |members| draw_all(members, weight, &mut dice));
    }
}

/// Draws without putting back: each next place goes to one of those left, by weight.
fn draw_all(members: &mut [u8], weight: impl Fn(u8) -> u64, dice: &mut fastrand::Rng) {
    let mut left = members;
    while left.len() > 1 {
        let total: u64 = left.iter().map(|member| weight(*member)).sum();
        let drawn = if total == 0 { 0 } else { at_point(left, &weight, dice.u64(..total)) };
        // A rotation and not a swap: the others stay in the operator's order, which counts among weights of zero.
        if let Some(head) = left.get_mut(..=drawn) {
            head.rotate_right(1);
        }
        left = left.get_mut(1..).unwrap_or_default();
    }
}

/// Returns the position of the member in whose stretch of the line of weights `point` lies.
fn at_point(members: &[u8], weight: impl Fn(u8) -> u64, point: u64) -> usize {
    let mut end = 0;
    let ends = members.iter().map(|member| {
        end += weight(*member);
        end
    });
    ends.take_while(|end| *end <= point).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn firsts(weights: &[u32], draws: u64) -> Vec<u64> {
        let candidates: Vec<_> = weights
            .iter()
            .map(|weight| Candidate { up: true, weight: *weight, latency: Duration::ZERO, in_flight: 0 })
            .collect();
        let mut counts = vec![0; weights.len()];
        let mut order = AttemptOrder::default();
        let mut dice = fastrand::Rng::with_seed(7858);
        for _ in 0..draws {
            Weighted.order(&candidates, dice.u64(..), &mut order);
            counts[order.get(0).unwrap()] += 1;
        }
        counts
    }

    #[test]
    fn first_places_follow_the_weights() {
        let (weights, draws) = ([1, 2, 3, 10], 64_000);
        let counts = firsts(&weights, draws);
        let square_sum: f64 = weights
            .iter()
            .zip(&counts)
            .map(|(weight, count)| {
                let expected = f64::from(*weight) / 16.0 * draws as f64;
                (*count as f64 - expected).powi(2) / expected
            })
            .sum();
        // Chi square of three degrees of freedom passes 16.3 once in a thousand seeds; this seed is fixed.
        assert!(square_sum < 16.3, "{counts:?}: {square_sum}");
    }

    #[test]
    fn a_weight_of_zero_comes_last() {
        assert_eq!(firsts(&[0, 1, 0], 1000), [0, 1000, 0]);
    }

    #[test]
    fn without_any_weight_the_order_is_the_operators() {
        assert_eq!(firsts(&[0, 0, 0], 10), [10, 0, 0]);
    }

    #[test]
    fn the_largest_weights_do_not_overflow() {
        assert_eq!(firsts(&[u32::MAX; 16], 1600).iter().sum::<u64>(), 1600);
    }
}
