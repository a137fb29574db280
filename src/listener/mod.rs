//! Clients' sockets: UDP in batches, TCP with pipelining, and who may ask. A query is read, checked and
//! answered at once from memory when the resolver can; the others of a batch are handed over together
//! and their replies come back through a [`ReplySink`](crate::resolver::waiter::ReplySink).
//!
//! Nothing here decides what the answer is, and nothing here knows that servers exist.
//!
//! `udp` (with `desk`; `pace` and `attendant`: who waits in a socket) and `tcp` are the two loops, `intake` is what they share, `batch` is the system calls of UDP, `bind`
//! makes sockets (`holder`: who is in the way; `handover`: those of another process), and `worker` runs it all.

pub mod admission;
pub mod attendant;
mod batch;
pub mod bind;
mod desk;
mod foreground;
pub mod handover;
pub mod holder;
mod intake;
mod pace;
mod tcp;
#[cfg(test)]
mod tests;
mod udp;
pub mod worker;

use crate::config::settings::Limits;
use crate::listener::admission::AccessList;
use crate::resolver::waiter::Waiter;
use crate::resolver::{Pending, Resolver, Round, Step};
use crate::telemetry::counters::Telemetry;
use crate::telemetry::outcome::Outcome;
use crate::wire::query::{ClientTransport, QueryRef};
use arc_swap::ArcSwap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Instant;

/// What the listener needs of the resolver. Static dispatch: it is called for every query.
pub trait Answer: Debug + Send + Sync + 'static {
    /// A query that could not be answered at once.
    type Pending: Send + 'static;

    /// What is the same for all queries that came together.
    type Round: Debug;

    /// Begins on queries that came together, at `now`.
    fn round(&self, now: Instant) -> Self::Round;

    /// Writes a reply into `out`, which is as long as the reply may be, or says that it must wait.
    fn answer_now(
        &self,
        round: &Self::Round,
        query: &QueryRef<'_>,
        transport: ClientTransport,
        out: &mut [u8],
    ) -> (Step<Self::Pending>, Outcome);

    /// Takes all of `misses`; each waiter's sink gets exactly one reply later, from any thread.
    fn enqueue(&self, misses: &mut Vec<(Self::Pending, Waiter)>);
}

impl Answer for Resolver {
    type Pending = Pending;
    type Round = Round;

    fn round(&self, now: Instant) -> Round {
        Self::round(self, now)
    }

    fn answer_now(
        &self,
        round: &Round,
        query: &QueryRef<'_>,
        transport: ClientTransport,
        out: &mut [u8],
    ) -> (Step, Outcome) {
        Self::answer_now(self, round, query, transport, out)
    }

    fn enqueue(&self, misses: &mut Vec<(Pending, Waiter)>) {
        Self::enqueue(self, misses);
    }
}

/// What every worker shares. A clone shares it too.
#[derive(Debug)]
pub struct Context<A = Resolver> {
    /// Who answers.
    pub resolver: Arc<A>,
    /// Where finished queries are counted.
    pub telemetry: Arc<Telemetry>,
    /// Who may ask; swapped on reload.
    pub access: Arc<ArcSwap<AccessList>>,
    /// Bounds of what clients send; fixed at start.
    pub limits: Arc<Limits>,
}

impl<A> Clone for Context<A> {
    fn clone(&self) -> Self {
        let Self { resolver, telemetry, access, limits } = self;
        Self {
            resolver: Arc::clone(resolver),
            telemetry: Arc::clone(telemetry),
            access: Arc::clone(access),
            limits: Arc::clone(limits),
        }
    }
}
