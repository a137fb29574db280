//! The operator's order: the second server is asked only when the first is down or has failed. It spreads no load.

use super::{AttemptOrder, Candidate, Strategy};

/// See the module.
#[derive(Debug)]
pub(super) struct Failover;

impl Strategy for Failover {
    fn order(&self, candidates: &[Candidate], _random: u64, order: &mut AttemptOrder) {
        order.fill(candidates, |_as_written| {});
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn order_is_the_operators_with_the_down_ones_last() {
        let candidates =
            [false, true, true].map(|up| Candidate { up, weight: 1, latency: Duration::ZERO, in_flight: 0 });
        let mut order = AttemptOrder::default();
        Failover.order(&candidates, 3, &mut order);
        assert_eq!(order.iter().collect::<Vec<_>>(), [1, 2, 0]);
    }
}
