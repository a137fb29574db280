//! Servers that answer for the same names, and the attempts of one query among them. Pure but for the counting: an
//! [`Attempts`] says whom to ask next; the asking and the waiting are `resolver::flight`'s.

use super::Upstream;
use super::budget::{HedgeBudget, RetryBudget};
use super::strategy::{self, AttemptOrder, Candidate, MAX_MEMBERS, Strategy};
use crate::config::settings::{GroupSpec, Limits};
use crate::telemetry::bounds::{Bound, Bounds};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A group of servers, made at load and never changed.
#[derive(Debug)]
pub struct Group {
    /// The operator's name for it.
    pub name: String,
    /// In the operator's order; at most [`MAX_MEMBERS`].
    pub upstreams: Vec<Arc<Upstream>>,
    /// How to choose.
    strategy: Box<dyn Strategy>,
    /// The operator's own servers, whose names may have private addresses.
    pub own: bool,
    /// Attempts of one query.
    attempts: u8,
    /// Bounds the retries of all queries.
    budget: RetryBudget,
    /// Bounds those that are made only because a server is slow.
    hedges: HedgeBudget,
    /// Where it is counted that attempts or budget were used up.
    bounds: Arc<Bounds>,
}

impl Group {
    /// Makes a group of servers that were built before. What is beyond [`MAX_MEMBERS`] is left out.
    pub fn new(
        spec: &GroupSpec,
        mut upstreams: Vec<Arc<Upstream>>,
        limits: &Limits,
        bounds: Arc<Bounds>,
    ) -> Self {
        upstreams.truncate(MAX_MEMBERS);
        Self {
            name: spec.name.clone(),
            upstreams,
            strategy: strategy::build(spec.strategy),
            own: spec.own,
            attempts: u8::try_from(limits.attempts).unwrap_or(u8::MAX),
            budget: RetryBudget::new(limits.retry_percent, crate::clock::now()),
            hedges: HedgeBudget::new(limits.hedge_percent),
            bounds,
        }
    }

    /// Returns true when some server is up.
    pub fn any_up(&self) -> bool {
        self.upstreams.iter().any(|upstream| upstream.is_up())
    }

    /// Returns the servers' positions in the order to ask them.
    fn order(&self, random: u64, now: Instant) -> AttemptOrder {
        let mut candidates =
            [Candidate { up: false, weight: 0, latency: Duration::ZERO, in_flight: 0 }; MAX_MEMBERS];
        for (slot, upstream) in candidates.iter_mut().zip(&self.upstreams) {
            *slot = upstream.candidate(now);
        }
        let mut order = AttemptOrder::default();
        let candidates = candidates.get(..self.upstreams.len()).unwrap_or_default();
        self.strategy.order(candidates, random, &mut order);
        order
    }
}

/// The attempts of one query: whom to ask first, and whom after a failure. Small and without heap.
#[derive(Clone, Copy, Debug)]
pub struct Attempts {
    /// The servers as they were when the query began.
    order: AttemptOrder,
    /// Attempts made, which is also the place of the next in `order`.
    made: u8,
    /// An rcode was the reason of a retry: once is enough.
    soft: bool,
}

impl Attempts {
    /// Orders the group's servers for one query and counts it.
    pub fn start(group: &Group, random: u64, now: Instant) -> Self {
        group.budget.deposit(now);
        group.hedges.deposit();
        Self { order: group.order(random, now), made: 0, soft: false }
    }

    /// Returns the position of the server to ask next: the first one always (the least bad if all are down), a further one only
    /// within the attempts of a query and the group's budget. None: wait for what is under way, then give up.
    pub fn next(&mut self, group: &Group, now: Instant) -> Option<usize> {
        let member = self.order.get(usize::from(self.made))?;
        if self.made >= group.attempts.max(1) {
            group.bounds.reached(Bound::Attempts);
            return None;
        }
        if self.made > 0 && !group.budget.withdraw(now) {
            group.bounds.reached(Bound::RetryPercent);
            return None;
        }
        self.made += 1;
        Some(member)
    }

    /// Returns true when another server may be asked before the first has had its time: there is one that is up. Whether it is
    /// asked, and can be paid for, is decided when that time comes ([`Self::next_for_hedge`]): most queries are answered by then.
    pub fn may_hedge(&self, group: &Group) -> bool {
        self.order.up() > usize::from(self.made) && group.hedges.is_on()
    }

    /// Returns the server to ask because the one that was asked is slower than usual: only one that is up, and within both the
    /// budget of hedges and that of retries.
    pub fn next_for_hedge(&mut self, group: &Group, now: Instant) -> Option<usize> {
        let member = self.order.get(usize::from(self.made))?;
        let is_up = group.upstreams.get(member).is_some_and(|upstream| upstream.is_up());
        if self.made >= group.attempts || !is_up {
            return None;
        }
        if !group.hedges.withdraw() {
            group.bounds.reached(Bound::HedgePercent);
            return None;
        }
        self.next(group, now)
    }

    /// Counts that the query was sent once more to a server that had it, on another connection.
    pub fn repeated(&self, group: &Group, now: Instant) {
        group.budget.charge(now);
    }

    /// Returns the server to ask after an answer whose rcode is no result (`retry::after_rcode`): once a query, and only one that
    /// is up, for there is an answer already and nobody should wait long for a better one.
    pub fn next_after_rcode(&mut self, group: &Group, now: Instant) -> Option<usize> {
        if self.soft || usize::from(self.made) >= self.order.up() {
            return None;
        }
        self.soft = true;
        self.next(group, now)
    }

    /// Counts that no server heard of an attempt of the query.
    pub fn unheard(&self, group: &Group, now: Instant) {
        group.budget.unheard(now);
    }

    /// Returns true when a server that was asked may be asked once more because the path lost the connections: one that is up,
    /// within the attempts of a query.
    pub fn may_ask_again(&self, group: &Group) -> bool {
        self.made < group.attempts && group.any_up()
    }

    /// Returns the server to ask once more: one with a connection, else one that is up. Within the budget of retries.
    pub fn next_again(&mut self, group: &Group, now: Instant) -> Option<usize> {
        let find =
            |wanted: fn(&Upstream) -> bool| group.upstreams.iter().position(|upstream| wanted(upstream));
        let member = find(|upstream| upstream.is_up() && upstream.transport().connections() > 0)
            .or_else(|| find(Upstream::is_up))?;
        if !self.may_ask_again(group) {
            return None;
        }
        if !group.budget.withdraw(now) {
            group.bounds.reached(Bound::RetryPercent);
            return None;
        }
        self.made += 1;
        Some(member)
    }

    /// Returns how many servers were asked.
    pub fn made(&self) -> usize {
        usize::from(self.made)
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake;
    use super::*;
    use crate::config::settings::StrategyKind;
    use crate::transport::TransportError;
    use crate::upstream::retry::after_transport;

    fn group(members: usize) -> Group {
        let upstreams = (0..members).map(|i| fake::upstream(&format!("s{i}"), fake::silent()).0).collect();
        group_of(upstreams)
    }
    fn group_of(upstreams: Vec<Arc<Upstream>>) -> Group {
        fake::group(upstreams, StrategyKind::Failover)
    }
    fn take_down(upstream: &Upstream, now: Instant) {
        upstream.observe(after_transport(&TransportError::Pin).sample, now);
        assert!(!upstream.is_up());
    }
    fn all(attempts: &mut Attempts, group: &Group, now: Instant) -> Vec<usize> {
        std::iter::from_fn(|| attempts.next(group, now)).collect()
    }

    #[test]
    fn a_query_asks_each_server_once_within_its_attempts() {
        let now = crate::clock::now();
        for (members, expected) in [(1, vec![0]), (2, vec![0, 1]), (5, vec![0, 1, 2])] {
            let group = group(members);
            let mut attempts = Attempts::start(&group, 1, now);
            assert_eq!(all(&mut attempts, &group, now), expected);
            assert_eq!(attempts.made(), expected.len());
            assert_eq!(group.bounds.count(Bound::Attempts), u64::from(members > 3));
        }
    }

    #[test]
    fn a_downed_server_is_asked_last_but_asked() {
        let now = crate::clock::now();
        let group = group(3);
        take_down(&group.upstreams[0], now);
        let mut attempts = Attempts::start(&group, 1, now);
        assert_eq!(all(&mut attempts, &group, now), [1, 2, 0]);
    }

    #[test]
    fn with_every_server_down_the_first_attempt_is_still_made_within_the_budget() {
        let now = crate::clock::now();
        let group = group(2);
        group.upstreams.iter().for_each(|upstream| take_down(upstream, now));
        assert!(!group.any_up());
        let made: usize = (0..400)
            .map(|random| {
                let mut attempts = Attempts::start(&group, random, now);
                all(&mut attempts, &group, now).len()
            })
            .inspect(|made| assert!(*made >= 1))
            .sum();
        assert_eq!(made, 400 + 100);
        assert_eq!(group.bounds.count(Bound::RetryPercent), 300);
    }

    #[test]
    fn a_hedge_goes_to_the_next_server_that_is_up_while_both_budgets_last() {
        let now = crate::clock::now();
        let group = group(3);
        let hedged = |group: &Group| {
            let mut attempts = Attempts::start(group, 1, now);
            attempts.next(group, now);
            (attempts.may_hedge(group), attempts.next_for_hedge(group, now))
        };
        assert_eq!(hedged(&group), (true, None), "nothing is saved up yet");
        assert_eq!(group.bounds.count(Bound::HedgePercent), 1);
        (0..40).for_each(|_| assert_eq!(Attempts::start(&group, 1, now).made(), 0));
        take_down(&group.upstreams[1], now);
        assert_eq!(hedged(&group), (true, Some(2)));
        take_down(&group.upstreams[2], now);
        assert_eq!(hedged(&group), (false, None), "nobody else is up");
        group.upstreams[1].observe(crate::upstream::Sample::Answered { latency: Duration::ZERO }, now);
        (0..100).for_each(|_| group.budget.charge(now));
        assert_eq!(hedged(&group), (true, None), "no retry is left");
        let withheld = [Bound::HedgePercent, Bound::RetryPercent].map(|bound| group.bounds.count(bound));
        assert_eq!(withheld, [1, 1], "each by the bound that withheld it");
    }

    #[test]
    fn an_rcode_is_asked_elsewhere_once_and_only_where_all_is_well() {
        let now = crate::clock::now();
        let group = group(3);
        take_down(&group.upstreams[2], now);
        let mut attempts = Attempts::start(&group, 1, now);
        assert_eq!(attempts.next(&group, now), Some(0));
        assert_eq!(attempts.next_after_rcode(&group, now), Some(1));
        assert_eq!(attempts.next_after_rcode(&group, now), None);
        let mut attempts = Attempts::start(&group, 1, now);
        assert_eq!(attempts.next(&group, now), Some(0));
        assert_eq!(attempts.next(&group, now), Some(1));
        assert_eq!(attempts.next_after_rcode(&group, now), None);
        assert_eq!(attempts.next(&group, now), Some(2));
    }

    #[test]
    fn a_server_that_is_up_is_asked_again_within_attempts_and_budget() {
        let now = crate::clock::now();
        let group = group(2);
        let mut attempts = Attempts::start(&group, 1, now);
        assert_eq!(all(&mut attempts, &group, now), [0, 1]);
        take_down(&group.upstreams[0], now);
        assert!(attempts.may_ask_again(&group));
        (0..99).for_each(|_| group.budget.charge(now));
        assert_eq!(attempts.next_again(&group, now), None, "no retry is left");
        attempts.unheard(&group, now);
        assert_eq!(attempts.next_again(&group, now), Some(1), "the other is down");
        assert_eq!((attempts.made(), attempts.may_ask_again(&group)), (3, false));
        let mut attempts = Attempts::start(&group, 1, now);
        take_down(&group.upstreams[1], now);
        assert!(!attempts.may_ask_again(&group) && attempts.next_again(&group, now).is_none());
    }

    #[test]
    fn a_group_of_too_many_uses_the_first_sixteen() {
        let now = crate::clock::now();
        let group = group(20);
        assert_eq!(group.upstreams.len(), MAX_MEMBERS);
        assert_eq!(Attempts::start(&group, 1, now).next(&group, now), Some(0));
    }
}
