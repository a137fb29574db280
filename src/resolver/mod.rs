//! The pipeline: what happens to a query.

use crate::telemetry::outcome::{Outcome, Source};
use crate::wire::query::{ClientTransport, QueryRef};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

/// What became of a query at once.
#[derive(Debug)]
pub enum Step {
    /// Octets written to `out`.
    Reply(usize),
    Drop,
    /// Not answerable from memory: make a `Waiter` and `enqueue` it.
    Wait(Pending),
}
/// A query on its way to a flight. Opaque outside the resolver.
#[derive(Debug)]
pub struct Pending {
    _private: (),
}

/// Who gets a reply: opaque to the resolver, handed back to the sink.
#[derive(Clone, Copy, Debug)]
pub struct ClientToken {
    pub peer: SocketAddr,
    /* wildcard binds: the address the query came to */ pub local: Option<IpAddr>,
    pub interface: u32,
}

/// Where replies go. The UDP socket, a TCP connection, the `query` command and tests implement it.
pub trait ReplySink: Send + Sync + std::fmt::Debug {
    /// Sends all replies of `batch`; must not block. What cannot be sent now is dropped (clients ask again).
    fn send(&self, batch: &ReplyBatch);
}
/// Replies for one sink: rendered messages in one buffer.
#[derive(Debug, Default)]
pub struct ReplyBatch {
    buffer: Vec<u8>,
    replies: Vec<(ClientToken, std::ops::Range<usize>)>,
}
impl ReplyBatch {
    pub fn len(&self) -> usize {
        self.replies.len()
    }
    pub fn is_empty(&self) -> bool {
        self.replies.is_empty()
    }
    pub fn iter(&self) -> impl Iterator<Item = (&ClientToken, &[u8])> {
        self.replies.iter().filter_map(|(client, range)| Some((client, self.buffer.get(range.clone())?)))
    }
}

/// Held while a query waits on upstreams; dropping it frees the place. Made by `listener::admission`.
pub type Permit = Box<dyn std::any::Any + Send>; // replaced below by a concrete type: admission::Permit lives in `resolver::admission`

/// One client's wait.
#[derive(Debug)]
pub struct Waiter {
    pub sink: Arc<dyn ReplySink>,
    pub client: ClientToken,
    pub transport: ClientTransport,
    /// The query as the client sent it.
    pub query: Box<[u8]>,
    pub received: Instant,
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
