//! Each server in turn, so that each learns an even share of what is asked. It heeds neither weight nor speed.

use super::{AttemptOrder, Candidate, Strategy};
use std::sync::atomic::{AtomicUsize, Ordering};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct RoundRobin {
    /// Queries so far: whose turn it is.
    turn: AtomicUsize,
}

impl Strategy for RoundRobin {
    fn order(&self, candidates: &[Candidate], _random: u64, order: &mut AttemptOrder) {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        order.fill(candidates, |members| {
            if !members.is_empty() {
                members.rotate_left(turn % members.len());
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn firsts(ups: [bool; 3]) -> Vec<usize> {
        let candidates = ups.map(|up| Candidate { up, weight: 1, latency: Duration::ZERO, in_flight: 0 });
        let strategy = RoundRobin::default();
        let mut order = AttemptOrder::default();
        (0..6)
            .map(|_| {
                strategy.order(&candidates, 0, &mut order);
                order.get(0).unwrap()
            })
            .collect()
    }

    #[test]
    fn each_server_has_its_turn() {
        assert_eq!(firsts([true; 3]), [0, 1, 2, 0, 1, 2]);
    }

    #[test]
    fn those_that_are_up_share_the_turns_evenly() {
        assert_eq!(firsts([true, false, true]), [0, 2, 0, 2, 0, 2]);
    }

    #[test]
    fn retries_go_on_where_the_turn_is() {
        let one = Candidate { up: true, weight: 1, latency: Duration::ZERO, in_flight: 0 };
        let strategy = RoundRobin { turn: AtomicUsize::new(1) };
        let mut order = AttemptOrder::default();
        strategy.order(&[one; 3], 0, &mut order);
        assert_eq!(order.iter().collect::<Vec<_>>(), [1, 2, 0]);
    }
}
