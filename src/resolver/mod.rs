//! The pipeline: what happens to a query.

pub mod waiter;

use self::waiter::Waiter;
use crate::telemetry::outcome::{Outcome, Source};
use crate::wire::query::{ClientTransport, QueryRef};
use std::time::Instant;

/// What became of a query at once.
#[derive(Debug)]
pub enum Step<P = Pending> {
    /// Octets written to `out`.
    Reply(usize),
    Drop,
    /// Not answerable from memory: make a `Waiter` and `enqueue` it.
    Wait(P),
}
/// A query on its way to a flight. Opaque outside the resolver.
#[derive(Debug)]
pub struct Pending {
    _private: (),
}

/// The pipeline's entry. One per gateway, shared by the workers.
#[derive(Debug)]
pub struct Resolver {}
impl Resolver {
    /// Stages 4-6: policy, route, cache. Writes a reply into `out` (as long as the reply may be) or says that it must wait. Sync, no allocation on a hit.
    pub fn answer_now(
        &self,
        _query: &QueryRef<'_>,
        _client: ClientTransport,
        _now: Instant,
        _out: &mut [u8],
    ) -> (Step, Outcome) {
        let _ = Source::Cache;
        todo!()
    }
    /// Joins each waiter to its flight, starting those that are missing. Returns at once; drains `misses`.
    pub fn enqueue(&self, _misses: &mut Vec<(Pending, Waiter)>) {
        todo!()
    }
}
