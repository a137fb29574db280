//! Connections of one kind to one server: shared by all queries, grown when full, replaced when they go away.
//! Jobs wait in one bounded queue per server; a connection *pulls* from it as many as it has room for, so a job is
//! never bound to a connection before it is written. One task per pool, the keeper, dials and lets waiting jobs time
//! out. What is *not* here: how a connection talks (`dot`, `doh`), and which server to ask after a failure.

#[cfg(test)]
mod tests;

mod held;

use self::held::Held;
use super::idle::Closer;
use super::queue::dials::Room;
use super::queue::{Nudge, Queue, Step};
use super::vigil::Pace;
use super::{Exchange, Handshake, Surroundings, Ticket, Transport, TransportError};
use crate::clock;
use crate::seldom::Seldom;
use crate::telemetry::bounds::{Bound, Bounds};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use std::fmt::Debug;
use std::future::Future;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// How long connections may take to finish once the gateway is told to stop at once.
const STOP_GRACE: Duration = Duration::from_secs(1);
/// How long a connector may overrun the dial's deadline before it is given up.
const DIAL_SLACK: Duration = Duration::from_millis(100);

/// Makes connections of one protocol to one server.
pub(crate) trait Connector: Debug + Send + Sync + 'static {
    /// What it makes.
    type Connection: Connection;
    /// Dials and shakes hands, until `deadline` at the latest. Cancel safe.
    fn connect(
        &self,
        deadline: Instant,
    ) -> impl Future<Output = Result<(Self::Connection, Handshake), TransportError>> + Send;
    /// Forgets what was learnt on a network that is gone: sessions, which addresses fail.
    fn forget_network(&self);
    /// Hears that a connection to `address` has fallen silent: the next one should go elsewhere if it can.
    fn silent(&self, address: IpAddr);
}

/// An open connection, run as one task by the pool.
pub(crate) trait Connection: Send + 'static {
    /// Takes jobs from `outlet`, writes all it took in one go, completes them as answers arrive. Returns when the
    /// connection is over: closed by either side, broken, or drained. Jobs it leaves unanswered go back by
    /// `outlet.give_back`. When it is dropped midway, its jobs complete as `ShuttingDown`.
    fn run(self, outlet: Outlet) -> impl Future<Output = ()> + Send;
}

/// An exchange inside the pool.
#[derive(Debug)]
pub(crate) struct Job {
    /// The message to send, ID 0.
    pub(crate) query: Bytes,
    /// When its answer is of no more use.
    pub(crate) deadline: Instant,
    /// Where its completion goes.
    pub(crate) ticket: Ticket,
    /// It was on a connection that ended under it or fell silent.
    pub(crate) retried: bool,
    /// When it was written.
    pub(crate) sent_at: Option<Instant>,
}

impl Job {
    /// Makes one that was not sent yet.
    fn new(exchange: Exchange) -> Self {
        let Exchange { query, deadline, ticket, .. } = exchange;
        Self { query, deadline, ticket, retried: false, sent_at: None }
    }

    /// Makes a second one, for a fresh connection; the first answer to either counts. None for one that was retried before.
    pub(super) fn again(&mut self) -> Option<Self> {
        if std::mem::replace(&mut self.retried, true) {
            return None;
        }
        let ticket = self.ticket.share();
        Some(Self {
            query: self.query.clone(),
            deadline: self.deadline,
            ticket,
            retried: true,
            sent_at: None,
        })
    }

    /// Returns how long its answer took, which comes now.
    pub(crate) fn latency(&self, now: Instant) -> Duration {
        self.sent_at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at))
    }
}

/// What the queue had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// At least one job was moved; ask again after writing it.
    Jobs,
    /// Take no more; finish what is in flight, then close.
    Drain,
}

/// The pool of one server.
#[derive(Debug)]
pub(crate) struct Pool<C: Connector> {
    /// What the keeper and the connections see too.
    shared: Arc<Shared>,
    /// The keeper owns the connector; the type says whose pool this is.
    connector: std::marker::PhantomData<fn() -> C>,
}

impl<C: Connector> Pool<C> {
    /// Makes a pool without connections; the first query (or `warm`) opens one.
    pub(crate) fn new(connector: C, around: &Surroundings) -> Self {
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            open: AtomicUsize::new(0),
            keeper: Notify::new(),
            queue_limit: around.limits.pool_queue,
            room: Room {
                connections: around.limits.max_connections.max(1),
                dials: around.limits.dials.max(1),
            },
            bounds: Arc::clone(&around.bounds),
        });
        let keeper = Keeper { shared: Arc::clone(&shared), connector, around: around.clone() };
        around.tasks.spawn_on(keeper.run(), &around.runtime);
        Self { shared, connector: std::marker::PhantomData }
    }

    /// Takes the exchange if an open connection will take it soon; gives it back otherwise.
    pub(crate) fn offer(&self, exchange: Exchange) -> Result<(), Exchange> {
        let mut queue = self.shared.lock();
        if !queue.is_taking() || queue.refusal(self.shared.queue_limit, clock::now).is_some() {
            return Err(exchange);
        }
        let nudge = queue.push(Job::new(exchange));
        drop(queue);
        self.shared.act(nudge);
        Ok(())
    }
}

impl<C: Connector> Transport for Pool<C> {
    fn submit(&self, exchange: Exchange) {
        let mut queue = self.shared.lock();
        if let Some(error) = queue.refusal(self.shared.queue_limit, clock::now) {
            drop(queue);
            if matches!(error, TransportError::Overloaded) {
                self.shared.bounds.reached(Bound::PoolQueue);
            }
            return exchange.ticket.complete(Err(error));
        }
        let nudge = queue.push(Job::new(exchange));
        drop(queue);
        self.shared.act(nudge);
    }

    fn warm(&self) {
        self.shared.lock().warm();
        self.shared.keeper.notify_one();
    }

    fn drain(&self) {
        self.shared.drain();
    }

    fn reset(&self) {
        let era = self.shared.lock().reset();
        // Without the lock: it wakes connections and the keeper.
        era.cancel();
        self.shared.keeper.notify_one();
    }

    fn connections(&self) -> usize {
        self.shared.open.load(Ordering::Relaxed)
    }

    fn waiting(&self) -> usize {
        self.shared.lock().waiting()
    }

    fn last_handshake(&self) -> Option<Handshake> {
        self.shared.lock().last_handshake().cloned()
    }

    fn handshakes(&self) -> (u64, u64) {
        self.shared.lock().handshakes()
    }
}

impl<C: Connector> Drop for Pool<C> {
    fn drop(&mut self) {
        self.shared.drain();
    }
}

/// One connection's end of the pool. Dropping it tells the pool that the connection is over.
#[derive(Debug)]
pub(crate) struct Outlet {
    /// The pool.
    shared: Arc<Shared>,
    /// Which connection this is; later ones have higher numbers.
    number: u64,
    /// Ends with the network that the connection was made on.
    era: CancellationToken,
}

impl Outlet {
    /// Moves up to `room` waiting jobs into `jobs` (those past their deadline complete as `Timeout` instead). Pending,
    /// with the waker kept, when none wait or `room` is 0.
    ///
    /// Every poll of a connection must end with this being pending (or drained), with `room` 0 when nothing can be
    /// taken now: that is how the pool learns that the connection is full and another may be opened.
    pub(crate) fn poll_take(
        &self,
        cx: &mut Context<'_>,
        room: usize,
        jobs: &mut Vec<Job>,
        now: Instant,
    ) -> Poll<Taken> {
        let before = jobs.len();
        let mut queue = self.shared.lock();
        let expired = queue.hand_out(self.number, room, jobs, now);
        let (taken, nudge) = if jobs.len() > before {
            (Poll::Ready(Taken::Jobs), Nudge::default())
        } else if queue.is_over_for(self.number) {
            (Poll::Ready(Taken::Drain), Nudge::default())
        } else {
            (Poll::Pending, queue.park(self.number, room, cx.waker()))
        };
        let lacks_room = room == 0 && queue.waiting() > 0;
        drop(queue);
        if lacks_room {
            self.shared.bounds.reached(Bound::DotStreams);
        }
        self.shared.act(nudge);
        complete_all(expired, &TransportError::Timeout);
        taken
    }

    /// Completes when the connection is to be given up at once, because the network it was made on is gone: it gives its
    /// jobs back and ends, without a farewell that would reach nobody. Cancel safe.
    pub(crate) fn abandoned(&self) -> impl Future<Output = ()> + Send + use<> {
        self.era.clone().cancelled_owned()
    }

    /// Returns how long to keep the connection without a query.
    pub(crate) fn idle_limit(&self) -> Duration {
        self.shared.lock().idle_limit()
    }

    /// Tells that the connection ended after it was quiet for so long, with nothing in flight.
    pub(crate) fn ended_quietly(&self, closer: Closer, quiet: Duration) {
        if !self.era.is_cancelled() {
            self.shared.lock().ended_quietly(self.number, closer, quiet);
        }
    }

    /// The connection ended before this job was answered: once more on a fresh connection, or `Closed`.
    pub(crate) fn give_back(&self, job: Job) {
        let outcome = self.shared.lock().push_again(self.number, job);
        match outcome {
            Ok(nudge) => self.shared.act(nudge),
            Err(job) => job.ticket.complete(Err(TransportError::Closed)),
        }
    }

    /// The server does not take this job on this connection, which goes on: once more on another one, or `error` if there can be
    /// none beside it. Then to wait would be in vain.
    pub(crate) fn give_elsewhere(&self, job: Job, error: fn() -> TransportError) {
        let has_other = self.shared.lock().has_other(self.number, self.shared.room.connections);
        if has_other { self.give_back(job) } else { job.ticket.complete(Err(error())) }
    }

    /// The connection has fallen silent: it gets no more jobs until [`Self::trust`], and those that wait on it are asked again on
    /// a fresh one besides, each once in its life. Returns how many were.
    pub(crate) fn doubt<'a>(&self, waiting: impl Iterator<Item = &'a mut Job>, pace: Pace) -> usize {
        let unrepeated = waiting.filter(|job| !job.retried).inspect(|job| job.ticket.doubt());
        let jobs: Vec<Job> = unrepeated.filter_map(Job::again).collect();
        let count = jobs.len();
        let nudge = self.shared.lock().doubt(self.number, jobs, pace);
        self.shared.act(nudge);
        count
    }

    /// The connection that was doubted shows that it is there. False when it is to finish its own and close, because another one
    /// has its place.
    pub(crate) fn trust(&self) -> bool {
        self.shared.lock().trust(self.number, self.shared.room.connections)
    }

    /// Returns how long answers took on the connections of before.
    pub(crate) fn pace(&self) -> Pace {
        self.shared.lock().pace()
    }

    /// Tells how long answers take, for the connections that follow.
    pub(crate) fn learnt(&self, pace: Pace) {
        self.shared.lock().learnt(pace);
    }

    /// Call once, at the first answer: a connection that gives jobs back without one counts as a failed dial.
    pub(crate) fn answered(&self) {
        self.shared.lock().answered(self.number);
    }

    /// No further jobs here (GOAWAY, too many retired IDs, a mismatch): the pool may open another connection now.
    pub(crate) fn retire(&self) {
        let nudge = self.shared.lock().retire(self.number);
        self.shared.act(nudge);
    }
}

impl Drop for Outlet {
    fn drop(&mut self) {
        let (doomed, nudge) = self.shared.lock().ended(self.number, clock::now());
        self.shared.act(nudge);
        complete_all(doomed, &TransportError::Closed);
        self.shared.keeper.notify_one();
    }
}

/// Completes every job with the same error.
fn complete_all(jobs: Vec<Job>, error: &TransportError) {
    for job in jobs {
        job.ticket.complete(Err(error.clone()));
    }
}

/// What the pool, its keeper and its connections share.
#[derive(Debug)]
struct Shared {
    /// Held for moments only: never while completing, waking or waiting.
    queue: Mutex<Queue>,
    /// How many connections the queue has, for those who only ask that, once a query.
    open: AtomicUsize,
    /// Wakes the keeper.
    keeper: Notify,
    /// `limits.pool_queue`.
    queue_limit: usize,
    /// Bounds of connections and dials.
    room: Room,
    /// Where it is counted that one of them was reached.
    bounds: Arc<Bounds>,
}

impl Shared {
    /// Locks the queue. A poisoned lock is taken as it is: every change of the queue is complete before anything can panic.
    fn lock(&self) -> Held<'_> {
        Held { queue: self.queue.lock().unwrap_or_else(PoisonError::into_inner), open: &self.open }
    }

    /// Wakes whom a change of the queue concerns; without the lock, because a waker may run anything.
    fn act(&self, nudge: Nudge) {
        if let Some(waker) = nudge.connection {
            waker.wake();
        }
        if nudge.keeper {
            self.keeper.notify_one();
        }
    }

    /// Decides what the keeper does; counts when it may not do what is needed.
    fn next_step(&self, now: Instant) -> (Step, CancellationToken) {
        let mut queue = self.lock();
        if let Some(bound) = queue.lacks(self.room, now) {
            self.bounds.reached(bound);
        }
        queue.next_step(self.room, now)
    }

    /// Takes no new job; tells every connection, so that idle ones close.
    fn drain(&self) {
        let wakers = self.lock().drain();
        wakers.into_iter().for_each(Waker::wake);
        self.keeper.notify_one();
    }

    /// Completes waiting jobs that are past their deadline.
    fn sweep(&self, now: Instant) {
        let expired = self.lock().expired(now);
        complete_all(expired, &TransportError::Timeout);
    }
}

/// The task that dials and sweeps.
#[derive(Debug)]
struct Keeper<C> {
    /// The pool.
    shared: Arc<Shared>,
    /// Makes connections.
    connector: C,
    /// Where connections run.
    around: Surroundings,
}

impl<C: Connector> Keeper<C> {
    /// Serves the pool until it is drained or the gateway stops.
    async fn run(self) {
        let mut dials = FuturesUnordered::new();
        loop {
            let now = clock::now();
            self.shared.sweep(now);
            let (step, era) = self.shared.next_step(now);
            match step {
                Step::StartAfresh => self.connector.forget_network(),
                Step::Dial => dials.push(self.dial(era, now + self.around.connect_timeout)),
                Step::Look(at) => self.rest(Some(at), &mut dials).await,
                Step::Wait => self.rest(None, &mut dials).await,
                Step::End => return,
            }
            if self.around.cancel.is_cancelled() {
                return;
            }
        }
    }

    /// Waits for a wake-up, the end of a dial, the time, or the end of the gateway; meanwhile the dials go on.
    async fn rest(&self, until: Option<Instant>, dials: &mut FuturesUnordered<impl Future<Output = ()>>) {
        let timer = async {
            match until {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.shared.keeper.notified() => {}
            Some(()) = dials.next(), if !dials.is_empty() => {}
            () = timer => {}
            () = self.around.cancel.cancelled() => {}
        }
    }

    /// Makes one dial. It goes on when the jobs that asked for it time out: the next ones will want it. It ends with its era.
    async fn dial(&self, era: CancellationToken, deadline: Instant) {
        if let Some(address) = self.shared.lock().take_silent() {
            self.connector.silent(address);
        }
        let connect = self.connector.connect(deadline);
        let limited = tokio::time::timeout_at((deadline + DIAL_SLACK).into(), connect);
        if let Some(outcome) = era.run_until_cancelled(limited).await {
            self.dialled(outcome.unwrap_or(Err(TransportError::Timeout)), &era);
        }
    }

    /// Starts the new connection's task, or tells the waiting jobs.
    fn dialled(&self, outcome: Result<(C::Connection, Handshake), TransportError>, era: &CancellationToken) {
        if era.is_cancelled() {
            // It came about on the network that is gone.
            return;
        }
        match outcome {
            Ok((connection, handshake)) => {
                let number = self.shared.lock().connected(handshake);
                let outlet = Outlet { shared: Arc::clone(&self.shared), number, era: era.clone() };
                let task = run_connection(connection, outlet, self.around.cancel.clone());
                self.around.tasks.spawn_on(task, &self.around.runtime);
            }
            Err(error) => {
                if matches!(error, TransportError::Exhausted { .. }) {
                    self.around.bounds.reached(Bound::OpenFiles);
                }
                let doomed = self.shared.lock().failed(&error, clock::now());
                complete_all(doomed, &error);
            }
        }
    }
}

impl<C> Drop for Keeper<C> {
    fn drop(&mut self) {
        let waiting = self.shared.lock().close();
        complete_all(waiting, &TransportError::ShuttingDown);
    }
}

/// Runs a connection to its end; when the gateway stops it may finish its own for a moment.
async fn run_connection<C: Connection>(connection: C, outlet: Outlet, cancel: CancellationToken) {
    let shared = Arc::clone(&outlet.shared);
    let mut run = pin!(connection.run(outlet));
    tokio::select! {
        () = &mut run => return,
        () = Seldom::new(cancel.cancelled()) => shared.drain(),
    }
    // Past the grace the connection is dropped as it is, and its jobs complete as `ShuttingDown`.
    let _ = tokio::time::timeout(STOP_GRACE, run).await;
}
