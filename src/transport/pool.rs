//! Connections of one kind to one server: shared by all queries, grown when full, replaced when they go away.
//! Jobs wait in one bounded queue per server; a connection *pulls* from it as many as it has room for, so a job is
//! never bound to a connection before it is written.

use super::{Exchange, Handshake, Ticket, Transport, TransportError};
use bytes::Bytes;
use std::fmt::Debug;
use std::future::Future;
use std::task::{Context, Poll};
use std::time::Instant;

/// Makes connections of one protocol to one server.
pub(crate) trait Connector: Debug + Send + Sync + 'static {
    type Connection: Connection;
    /// Dials and shakes hands, until `deadline` at the latest. Cancel safe.
    fn connect(
        &self,
        deadline: Instant,
    ) -> impl Future<Output = Result<(Self::Connection, Handshake), TransportError>> + Send;
}
/// An open connection, run as one task by the pool.
pub(crate) trait Connection: Send + 'static {
    /// Takes jobs from `outlet`, writes all it took in one go, completes them as answers arrive. Returns when the connection is over:
    /// closed by either side, broken, or drained. Jobs it leaves unanswered go back by `outlet.give_back`.
    fn run(self, outlet: Outlet) -> impl Future<Output = ()> + Send;
}
/// An exchange inside the pool.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) query: Bytes,
    pub(crate) deadline: Instant,
    pub(crate) ticket: Ticket,
    /* was on a connection that ended under it */ pub(crate) retried: bool,
}

/// What the queue had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    Jobs,
    /* take no more; finish what is in flight, then close */ Drain,
}

/// One connection's end of the pool.
#[derive(Debug)]
pub(crate) struct Outlet {/* Arc<Shared>, connection number */}
impl Outlet {
    /// Poll it until it is pending in every poll of the connection, with `room` 0 when nothing can be taken now: that is how the pool
    /// knows that a connection is full and another may be opened. Moves up to `room` waiting jobs into `jobs` (those past their deadline complete as `Timeout` instead). Pending, with the waker kept, when none wait or `room` is 0.
    pub(crate) fn poll_take(
        &self,
        _cx: &mut Context<'_>,
        _room: usize,
        _jobs: &mut Vec<Job>,
        _now: Instant,
    ) -> Poll<Taken> {
        todo!()
    }
    /// The connection ended before this job was answered: once more on a fresh connection, or `Closed`.
    pub(crate) fn give_back(&self, _job: Job) {
        todo!()
    }
    /// Call once, at the first answer: a connection that ends without one counts as a failed dial.
    pub(crate) fn answered(&self) {
        todo!()
    }
    /// No further jobs here (GOAWAY, too many retired IDs, a mismatch): the pool may open another connection now.
    pub(crate) fn retire(&self) {
        todo!()
    }
}
/// The pool of one server.
#[derive(Debug)]
pub(crate) struct Pool<C: Connector> {
    connector: std::sync::Arc<C>,
}
impl<C: Connector> Pool<C> {
    /// Makes a pool without connections; the first query (or `warm`) opens one.
    pub(crate) fn new(connector: C, _around: &super::Surroundings) -> Self {
        Self { connector: std::sync::Arc::new(connector) }
    }
}
impl<C: Connector> Transport for Pool<C> {
    fn submit(&self, _exchange: Exchange) {
        let _ = &self.connector;
        todo!()
    }
    fn warm(&self) {
        todo!()
    }
    fn drain(&self) {
        todo!()
    }
    fn connections(&self) -> usize {
        todo!()
    }
    fn last_handshake(&self) -> Option<Handshake> {
        todo!()
    }
    fn handshakes(&self) -> (u64, u64) {
        todo!()
    }
}
