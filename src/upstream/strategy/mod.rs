//! In which order the servers of a group are asked. A strategy sees plain numbers and a random one, and is pure but for the
//! turn that `round_robin` keeps. It does not count attempts (`group`) nor judge health (`health`).
//!
//! To add one: a file here, a line in [`build`], a variant of `StrategyKind`.

mod failover;
mod fastest;
mod round_robin;
mod weighted;

pub use crate::config::settings::MAX_MEMBERS;
use crate::config::settings::StrategyKind;
use std::fmt::Debug;
use std::time::Duration;

/// What a strategy may know of a server.
#[derive(Clone, Copy, Debug)]
pub struct Candidate {
    /// Whether it is believed to be well.
    pub up: bool,
    /// The operator's weight.
    pub weight: u32,
    /// What an answer takes, with the penalty for failures; zero if it was never asked.
    pub latency: Duration,
    /// Queries waiting for it.
    pub in_flight: u32,
}

/// Chooses among servers.
pub trait Strategy: Debug + Send + Sync {
    /// Fills `order` with the candidates' positions, best first: each once, those that are down after all others, never out.
    /// What is beyond [`MAX_MEMBERS`] is left out.
    fn order(&self, candidates: &[Candidate], random: u64, order: &mut AttemptOrder);
}

/// Makes a strategy: the one registry of them.
pub fn build(kind: StrategyKind) -> Box<dyn Strategy> {
    match kind {
        StrategyKind::Fastest => Box::new(fastest::Fastest),
        StrategyKind::Failover => Box::new(failover::Failover),
        StrategyKind::Weighted => Box::new(weighted::Weighted),
        StrategyKind::RoundRobin => Box::new(round_robin::RoundRobin::default()),
    }
}

/// Positions of candidates, best first. Small and on the stack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AttemptOrder {
    /// Only the first `len` count.
    members: [u8; MAX_MEMBERS],
    /// Members in all.
    len: u8,
    /// How many of them were up.
    up: u8,
}

impl AttemptOrder {
    /// Returns the position of the `n`th server to ask.
    pub fn get(&self, n: usize) -> Option<usize> {
        self.iter().nth(n)
    }

    /// Returns the positions, best first.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.members.iter().take(usize::from(self.len)).map(|member| usize::from(*member))
    }

    /// Returns how many servers are in it.
    pub fn len(&self) -> usize {
        usize::from(self.len)
    }

    /// Returns true for an order of none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns how many of its servers, the first ones, were up.
    pub fn up(&self) -> usize {
        usize::from(self.up)
    }

    /// Fills it with all candidates: those that are up, arranged, then those that are down, arranged likewise.
    fn fill(&mut self, candidates: &[Candidate], mut arrange: impl FnMut(&mut [u8])) {
        *self = Self::default();
        self.append(candidates, true, &mut arrange);
        self.up = self.len;
        self.append(candidates, false, &mut arrange);
    }

    /// Appends the candidates of one state.
    fn append(&mut self, candidates: &[Candidate], up: bool, arrange: &mut impl FnMut(&mut [u8])) {
        let first = usize::from(self.len);
        for (position, candidate) in (0u8..).zip(candidates).take(MAX_MEMBERS) {
            if candidate.up != up {
                continue;
            }
            if let Some(slot) = self.members.get_mut(usize::from(self.len)) {
                *slot = position;
                self.len += 1;
            }
        }
        if let Some(added) = self.members.get_mut(first..usize::from(self.len)) {
            arrange(added);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proptest::strategy::Strategy as _;

    /// All strategies, by kind.
    const KINDS: [StrategyKind; 4] =
        [StrategyKind::Fastest, StrategyKind::Failover, StrategyKind::Weighted, StrategyKind::RoundRobin];

    fn candidate() -> impl proptest::strategy::Strategy<Value = Candidate> {
        (any::<bool>(), 0u32..5, 0u64..3000, 0u32..500).prop_map(|(up, weight, millis, in_flight)| {
            Candidate { up, weight, latency: Duration::from_millis(millis), in_flight }
        })
    }

    proptest! {
        #[test]
        fn every_order_is_a_permutation_with_the_down_ones_last(
            candidates in proptest::collection::vec(candidate(), 0..=MAX_MEMBERS),
            random: u64,
        ) {
            for kind in KINDS {
                let mut order = AttemptOrder::default();
                build(kind).order(&candidates, random, &mut order);
                let mut members: Vec<usize> = order.iter().collect();
                let states: Vec<bool> = members.iter().map(|member| candidates[*member].up).collect();
                prop_assert!(states.is_sorted_by_key(|up| !up), "{kind:?}: {states:?}");
                prop_assert_eq!(order.up(), states.iter().filter(|up| **up).count());
                members.sort_unstable();
                prop_assert_eq!(members, (0..candidates.len()).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn an_order_used_before_is_filled_anew() {
        let one = Candidate { up: true, weight: 1, latency: Duration::ZERO, in_flight: 0 };
        for kind in KINDS {
            let mut order = AttemptOrder::default();
            build(kind).order(&[one; 5], 7, &mut order);
            build(kind).order(&[one; 2], 7, &mut order);
            assert_eq!(order.len(), 2);
            assert!(order.get(2).is_none());
        }
    }

    #[test]
    fn members_beyond_the_bound_are_left_out() {
        let one = Candidate { up: true, weight: 1, latency: Duration::ZERO, in_flight: 0 };
        for kind in KINDS {
            let mut order = AttemptOrder::default();
            build(kind).order(&[one; 300], 7, &mut order);
            assert_eq!(order.len(), MAX_MEMBERS);
        }
    }
}
