//! The better of two drawn at random, by latency times load; the others follow by the same measure. Taking always the best
//! would send every gateway's every query to one server until it is no longer the best ("the power of two choices");
//! with two servers it *is* always the better one. It does not heed weights.

use super::{AttemptOrder, Candidate, Strategy};
use std::time::Duration;

/// What a server never asked counts as, so that its load counts: not zero.
const LEAST_LATENCY: Duration = Duration::from_micros(1);

/// See the module.
#[derive(Debug)]
pub(super) struct Fastest;

impl Strategy for Fastest {
    fn order(&self, candidates: &[Candidate], random: u64, order: &mut AttemptOrder) {
        let mut dice = fastrand::Rng::with_seed(random);
        let cost = |member: u8| candidates.get(usize::from(member)).map_or(u128::MAX, cost);
        order.fill(candidates, |members| {
            // Shuffled first, so that equal costs come in any order.
            dice.shuffle(members);
            members.sort_unstable_by_key(|member| cost(*member));
            let winner = better_of_two(members.len(), &mut dice);
            if let Some(head) = members.get_mut(..=winner) {
                head.rotate_right(1);
            }
        });
    }
}

/// Returns the cost of asking: its latency, once for each query it has to answer and for ours.
fn cost(candidate: &Candidate) -> u128 {
    candidate.latency.max(LEAST_LATENCY).as_micros() * (u128::from(candidate.in_flight) + 1)
}

/// Draws two different places of a sorted list and returns the better, that is the lower one.
fn better_of_two(len: usize, dice: &mut fastrand::Rng) -> usize {
    if len < 2 {
        return 0;
    }
    let one = dice.usize(..len);
    let other = dice.usize(..len - 1);
    one.min(if other >= one { other + 1 } else { other })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64, in_flight: u32) -> Candidate {
        Candidate { up: true, weight: 1, latency: Duration::from_millis(millis), in_flight }
    }
    fn firsts(candidates: &[Candidate]) -> Vec<usize> {
        let mut counts = vec![0; candidates.len()];
        let mut order = AttemptOrder::default();
        for random in 0..6000 {
            Fastest.order(candidates, random, &mut order);
            counts[order.get(0).unwrap()] += 1;
        }
        counts
    }

    #[test]
    fn of_two_the_quicker_is_always_first() {
        assert_eq!(firsts(&[at(30, 0), at(10, 0)]), [0, 6000]);
    }

    #[test]
    fn load_counts_as_latency() {
        assert_eq!(firsts(&[at(10, 9), at(30, 0)]), [0, 6000]);
    }

    #[test]
    fn a_server_never_asked_is_tried() {
        assert_eq!(firsts(&[at(10, 0), at(0, 0)]), [0, 6000]);
    }

    #[test]
    fn of_four_the_slowest_is_never_first_and_the_rest_by_rank() {
        let counts = firsts(&[at(40, 0), at(10, 0), at(20, 0), at(30, 0)]);
        assert_eq!(counts[0], 0);
        // Exactly 1/2, 1/3, 1/6 of 6000 on average.
        for (member, expected) in [(1, 3000), (2, 2000), (3, 1000)] {
            assert!(counts[member].abs_diff(expected) < 200, "{counts:?}");
        }
    }

    #[test]
    fn equal_servers_share_the_first_place() {
        let counts = firsts(&[at(10, 0); 3]);
        assert!(counts.iter().all(|count| count.abs_diff(2000) < 200), "{counts:?}");
    }

    #[test]
    fn what_follows_the_winner_is_in_order_of_cost() {
        let candidates = [at(40, 0), at(10, 0), at(20, 0), at(30, 0)];
        let mut order = AttemptOrder::default();
        for random in 0..100 {
            Fastest.order(&candidates, random, &mut order);
            let rest: Vec<_> = order.iter().skip(1).map(|member| candidates[member].latency).collect();
            assert!(rest.is_sorted(), "{order:?}");
        }
    }
}
