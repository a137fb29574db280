//! Connections of one kind to one server: shared by all queries, grown when full, replaced when they go away.
//! Jobs wait in one bounded queue per server; a connection *pulls* from it as many as it has room for, so a job is
//! never bound to a connection before it is written. One task per pool, the keeper, dials and lets waiting jobs time
//! out. What is *not* here: how a connection talks (`dot`, `doh`), and which server to ask after a failure.

use super::{Exchange, Handshake, Surroundings, Ticket, Transport, TransportError};
use crate::clock;
use bytes::Bytes;
use std::collections::VecDeque;
use std::fmt::Debug;
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// How coarsely deadlines are kept: the flight that asked has an exact timer of its own and cares only for late answers.
pub(super) const SWEEP_INTERVAL: Duration = Duration::from_millis(250);
/// Pause after the first failed dial; it doubles with every further one.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Longest pause between dials: a network that is back must not be missed for long.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
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
    /// It was on a connection that ended under it.
    pub(crate) retried: bool,
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
            state: Mutex::default(),
            keeper: Notify::new(),
            queue_limit: around.limits.pool_queue,
            connection_limit: around.limits.max_connections.max(1),
        });
        let keeper = Keeper { shared: Arc::clone(&shared), connector, around: around.clone() };
        around.tasks.spawn_on(keeper.run(), &around.runtime);
        Self { shared, connector: std::marker::PhantomData }
    }
}

impl<C: Connector> Transport for Pool<C> {
    fn submit(&self, exchange: Exchange) {
        let Exchange { query, deadline, ticket } = exchange;
        let mut state = self.shared.lock();
        if let Some(error) = state.refusal(self.shared.queue_limit) {
            drop(state);
            return ticket.complete(Err(error));
        }
        state.queue.push_back(Job { query, deadline, ticket, retried: false });
        let nudge = state.nudge();
        drop(state);
        self.shared.act(nudge);
    }

    fn warm(&self) {
        let mut state = self.shared.lock();
        state.warm = state.connections.is_empty() && !state.dialling;
        drop(state);
        self.shared.keeper.notify_one();
    }

    fn drain(&self) {
        self.shared.drain();
    }

    fn connections(&self) -> usize {
        self.shared.lock().connections.len()
    }

    fn last_handshake(&self) -> Option<Handshake> {
        self.shared.lock().last_handshake.clone()
    }

    fn handshakes(&self) -> (u64, u64) {
        self.shared.lock().handshakes
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
        let mut state = self.shared.lock();
        let expired = state.hand_out(self.number, room, jobs, now);
        let (taken, nudge) = if jobs.len() > before {
            (Poll::Ready(Taken::Jobs), Nudge::Nobody)
        } else if state.is_over_for(self.number) {
            (Poll::Ready(Taken::Drain), Nudge::Nobody)
        } else {
            (Poll::Pending, state.park(self.number, room, cx.waker()))
        };
        drop(state);
        self.shared.act(nudge);
        complete_all(expired, &TransportError::Timeout);
        taken
    }

    /// The connection ended before this job was answered: once more on a fresh connection, or `Closed`.
    pub(crate) fn give_back(&self, mut job: Job) {
        let mut state = self.shared.lock();
        if let Some(connection) = state.connection(self.number) {
            connection.gave_back = true;
        }
        if job.retried || state.over {
            drop(state);
            return job.ticket.complete(Err(TransportError::Closed));
        }
        job.retried = true;
        let after = state.opened;
        state.again.push_back(Again { job, after });
        let nudge = state.nudge();
        drop(state);
        self.shared.act(nudge);
    }

    /// Call once, at the first answer: a connection that gives jobs back without one counts as a failed dial.
    pub(crate) fn answered(&self) {
        let mut state = self.shared.lock();
        state.failures = 0;
        if let Some(connection) = state.connection(self.number) {
            connection.answered = true;
        }
    }

    /// No further jobs here (GOAWAY, too many retired IDs, a mismatch): the pool may open another connection now.
    pub(crate) fn retire(&self) {
        let mut state = self.shared.lock();
        if let Some(connection) = state.connection(self.number) {
            connection.phase = Phase::Retired;
        }
        let nudge = state.nudge();
        drop(state);
        self.shared.act(nudge);
    }
}

impl Drop for Outlet {
    fn drop(&mut self) {
        let doomed = self.shared.lock().ended(self.number);
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
    state: Mutex<State>,
    /// Wakes the keeper.
    keeper: Notify,
    /// `limits.pool_queue`.
    queue_limit: usize,
    /// `limits.max_connections`.
    connection_limit: usize,
}

impl Shared {
    /// Locks the state. A poisoned lock is taken as it is: every change of the state is complete before anything can panic.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes whom a change of the state concerns; without the lock, because a waker may run anything.
    fn act(&self, nudge: Nudge) {
        match nudge {
            Nudge::Nobody => {}
            Nudge::Connection(waker) => waker.wake(),
            Nudge::Keeper => self.keeper.notify_one(),
        }
    }

    /// Takes no new job; tells every connection, so that idle ones close.
    fn drain(&self) {
        let mut state = self.lock();
        state.draining = true;
        let wakers: Vec<Waker> = state.connections.iter_mut().filter_map(Open::rouse).collect();
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
        self.keeper.notify_one();
    }

    /// Completes waiting jobs that are past their deadline.
    fn sweep(&self, now: Instant) {
        let expired = self.lock().expired(now);
        complete_all(expired, &TransportError::Timeout);
    }
}

/// Whom to wake.
#[derive(Debug)]
enum Nudge {
    /// Somebody who is awake already will see to it.
    Nobody,
    /// A connection with room.
    Connection(Waker),
    /// The keeper: no connection can take what waits.
    Keeper,
}

/// Everything that changes.
#[derive(Debug, Default)]
struct State {
    /// Jobs for any connection.
    queue: VecDeque<Job>,
    /// Jobs whose connection ended, for a fresh one; oldest first.
    again: VecDeque<Again>,
    /// Connections not yet over, oldest first.
    connections: Vec<Open>,
    /// Number of the latest connection.
    opened: u64,
    /// A dial is under way.
    dialling: bool,
    /// A connection is wanted though no job waits.
    warm: bool,
    /// The keeper has a timer running and needs no waking for jobs that wait.
    watching: bool,
    /// No new jobs.
    draining: bool,
    /// The keeper has ended: nothing can be dialled any more.
    over: bool,
    /// Dials that failed, and connections that ended without an answer, since the last answer.
    failures: u32,
    /// No dial before its end.
    pause: Option<Pause>,
    /// What the last good dial showed.
    last_handshake: Option<Handshake>,
    /// TLS handshakes: (full, resumed).
    handshakes: (u64, u64),
}

/// A job that needs a connection with a number above `after`.
#[derive(Debug)]
struct Again {
    /// The job.
    job: Job,
    /// The latest connection when the job came back.
    after: u64,
}

/// The time after a failure in which nothing is dialled.
#[derive(Debug)]
struct Pause {
    /// When it ends.
    until: Instant,
    /// What jobs are told meanwhile.
    error: TransportError,
}

/// A connection as the pool sees it.
#[derive(Debug)]
struct Open {
    /// Higher for later ones.
    number: u64,
    /// What it is doing.
    phase: Phase,
    /// It gave a job back.
    gave_back: bool,
    /// It answered a query.
    answered: bool,
}

/// What a connection is doing.
#[derive(Debug)]
enum Phase {
    /// Awake: it will ask for jobs before it sleeps again.
    Busy,
    /// Asleep, with room.
    Hungry(Waker),
    /// Asleep, without room; something else wakes it when it has room again. The waker is for draining.
    Full(Waker),
    /// Takes no more jobs.
    Retired,
}

impl Open {
    /// True when it will take, or can be woken to take, a further job.
    fn is_taking(&self) -> bool {
        matches!(self.phase, Phase::Busy | Phase::Hungry(_))
    }

    /// True unless it takes no more jobs.
    fn is_open(&self) -> bool {
        !matches!(self.phase, Phase::Retired)
    }

    /// Takes the waker of a sleeping connection, which counts as awake from then on.
    fn rouse(&mut self) -> Option<Waker> {
        match std::mem::replace(&mut self.phase, Phase::Busy) {
            Phase::Hungry(waker) | Phase::Full(waker) => Some(waker),
            Phase::Busy => None,
            Phase::Retired => {
                self.phase = Phase::Retired;
                None
            }
        }
    }
}

/// What the keeper does next.
#[derive(Debug)]
enum Step {
    /// Dial.
    Dial,
    /// Jobs wait: look again then.
    Look(Instant),
    /// Nothing to do until woken.
    Wait,
    /// Drained, and every connection is over.
    End,
}

impl State {
    /// Returns the connection with this number.
    fn connection(&mut self, number: u64) -> Option<&mut Open> {
        self.connections.iter_mut().find(|connection| connection.number == number)
    }

    /// Returns why a new job cannot be taken, if so.
    fn refusal(&self, queue_limit: usize) -> Option<TransportError> {
        if self.draining || self.over {
            return Some(TransportError::ShuttingDown);
        }
        if self.queue.len() >= queue_limit {
            return Some(TransportError::Overloaded);
        }
        let pause = self.pause.as_ref()?;
        let hopeless = !self.dialling && !self.connections.iter().any(Open::is_open);
        (hopeless && clock::now() < pause.until).then(|| pause.error.clone())
    }

    /// Picks whom to wake for what waits: the oldest connection with room, so that the younger ones may fall idle; the
    /// keeper when every connection is full.
    fn nudge(&mut self) -> Nudge {
        if !self.queue.is_empty() {
            if let Some(hungry) = self.connections.iter_mut().find(|c| matches!(c.phase, Phase::Hungry(_))) {
                return hungry.rouse().map_or(Nudge::Nobody, Nudge::Connection);
            }
        }
        if self.is_stuck() && !self.watching { Nudge::Keeper } else { Nudge::Nobody }
    }

    /// True when a job waits that no connection of now will take soon.
    fn is_stuck(&self) -> bool {
        let queue_stuck = !self.queue.is_empty() && !self.connections.iter().any(Open::is_taking);
        let again_stuck = self
            .again
            .back()
            .is_some_and(|again| !self.connections.iter().any(|c| c.is_taking() && c.number > again.after));
        queue_stuck || again_stuck
    }

    /// Moves up to `room` jobs to a connection; returns those found past their deadline.
    fn hand_out(&mut self, number: u64, room: usize, jobs: &mut Vec<Job>, now: Instant) -> Vec<Job> {
        let mut expired = Vec::new();
        let mut room = if self.connection(number).is_some_and(|c| c.is_open()) { room } else { 0 };
        while room > 0 {
            let fresh = self.again.front().is_some_and(|again| again.after < number);
            let next =
                if fresh { self.again.pop_front().map(|again| again.job) } else { self.queue.pop_front() };
            match next {
                Some(job) if job.deadline <= now => expired.push(job),
                Some(job) => {
                    jobs.push(job);
                    room -= 1;
                }
                None => break,
            }
        }
        expired
    }

    /// True when the connection need not ask again; it counts as retired from then on.
    fn is_over_for(&mut self, number: u64) -> bool {
        let drained = self.draining && self.queue.is_empty() && self.again.is_empty();
        let Some(connection) = self.connection(number) else { return true };
        if drained {
            connection.phase = Phase::Retired;
        }
        !connection.is_open()
    }

    /// Keeps the waker of a connection that goes to sleep; when it is full, somebody else must see to what waits.
    fn park(&mut self, number: u64, room: usize, waker: &Waker) -> Nudge {
        if let Some(connection) = self.connection(number) {
            let waker = waker.clone();
            connection.phase = if room == 0 { Phase::Full(waker) } else { Phase::Hungry(waker) };
        }
        if room == 0 { self.nudge() } else { Nudge::Nobody }
    }

    /// Decides what the keeper does, and takes note of it.
    fn next_step(&mut self, connection_limit: usize, now: Instant) -> Step {
        self.watching = false;
        let idle = self.queue.is_empty() && self.again.is_empty() && self.connections.is_empty();
        if self.draining && idle {
            return Step::End;
        }
        let stuck = self.is_stuck();
        let open = self.connections.iter().filter(|connection| connection.is_open()).count();
        // Connections that finish their own end by the deadlines of their queries; until then they count for half.
        let may_open = open < connection_limit && self.connections.len() < connection_limit * 2;
        let wanted = may_open && (stuck || (self.warm && open == 0));
        let paused_until = self.pause.as_ref().map(|pause| pause.until).filter(|until| *until > now);
        self.watching = stuck || wanted;
        match (wanted, paused_until) {
            (true, None) => {
                self.dialling = true;
                Step::Dial
            }
            (true, Some(until)) => Step::Look(until.min(now + SWEEP_INTERVAL)),
            (false, _) if stuck => Step::Look(now + SWEEP_INTERVAL),
            (false, _) => Step::Wait,
        }
    }

    /// Takes waiting jobs that are past their deadline.
    fn expired(&mut self, now: Instant) -> Vec<Job> {
        let mut expired = Vec::new();
        for _ in 0..self.queue.len() {
            match self.queue.pop_front() {
                Some(job) if job.deadline <= now => expired.push(job),
                Some(job) => self.queue.push_back(job),
                None => break,
            }
        }
        for _ in 0..self.again.len() {
            match self.again.pop_front() {
                Some(again) if again.job.deadline <= now => expired.push(again.job),
                Some(again) => self.again.push_back(again),
                None => break,
            }
        }
        expired
    }

    /// Enters a new connection and returns its number.
    fn connected(&mut self, handshake: Handshake) -> u64 {
        self.dialling = false;
        self.warm = false;
        self.pause = None;
        match (handshake.tls_version, handshake.resumed) {
            (None, _) => {}
            (Some(_), false) => self.handshakes.0 += 1,
            (Some(_), true) => self.handshakes.1 += 1,
        }
        self.last_handshake = Some(handshake);
        self.opened += 1;
        let number = self.opened;
        self.connections.push(Open { number, phase: Phase::Busy, gave_back: false, answered: false });
        number
    }

    /// Counts a failure and begins a pause; returns the jobs that cannot be served now.
    fn failed(&mut self, error: &TransportError, now: Instant) -> Vec<Job> {
        self.dialling = false;
        self.warm = false;
        self.failures = self.failures.saturating_add(1);
        let doublings = self.failures.saturating_sub(1).min(16);
        let pause = FIRST_PAUSE.saturating_mul(1 << doublings).min(LONGEST_PAUSE);
        let jittered = pause.mul_f64(0.75 + fastrand::f64() / 4.0);
        self.pause = Some(Pause { until: now + jittered, error: error.clone() });
        let mut doomed: Vec<Job> = self.again.drain(..).map(|again| again.job).collect();
        if !self.connections.iter().any(Open::is_open) {
            doomed.extend(self.queue.drain(..));
        }
        doomed
    }

    /// Forgets a connection that is over. One that gave its jobs back without a single answer counts as a failed dial, so
    /// that a server which accepts and closes at once is not dialled in a loop; the first time the jobs still get their retry.
    fn ended(&mut self, number: u64) -> Vec<Job> {
        let Some(index) = self.connections.iter().position(|c| c.number == number) else { return Vec::new() };
        let connection = self.connections.remove(index);
        if !connection.gave_back || connection.answered {
            return Vec::new();
        }
        if self.failures == 0 {
            self.failures = 1;
            return Vec::new();
        }
        let dialling = self.dialling;
        let doomed = self.failed(&TransportError::Closed, clock::now());
        self.dialling = dialling;
        doomed
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
        loop {
            let now = clock::now();
            self.shared.sweep(now);
            let step = self.shared.lock().next_step(self.shared.connection_limit, now);
            match step {
                Step::Dial => self.dial(now + self.around.connect_timeout).await,
                Step::Look(at) => self.rest(Some(at)).await,
                Step::Wait => self.rest(None).await,
                Step::End => return,
            }
            if self.around.cancel.is_cancelled() {
                return;
            }
        }
    }

    /// Waits for a wake-up, the time, or the end of the gateway.
    async fn rest(&self, until: Option<Instant>) {
        let timer = async {
            match until {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.shared.keeper.notified() => {}
            () = timer => {}
            () = self.around.cancel.cancelled() => {}
        }
    }

    /// Makes one dial. It goes on when the jobs that asked for it time out: the next ones will want it.
    async fn dial(&self, deadline: Instant) {
        let mut connect = pin!(self.connector.connect(deadline));
        let mut give_up = pin!(tokio::time::sleep_until((deadline + DIAL_SLACK).into()));
        loop {
            tokio::select! {
                outcome = &mut connect => return self.dialled(outcome),
                () = &mut give_up => return self.dialled(Err(TransportError::Timeout)),
                () = tokio::time::sleep(SWEEP_INTERVAL) => self.shared.sweep(clock::now()),
                () = self.around.cancel.cancelled() => return,
            }
        }
    }

    /// Starts the new connection's task, or tells the waiting jobs.
    fn dialled(&self, outcome: Result<(C::Connection, Handshake), TransportError>) {
        match outcome {
            Ok((connection, handshake)) => {
                let number = self.shared.lock().connected(handshake);
                let outlet = Outlet { shared: Arc::clone(&self.shared), number };
                let task = run_connection(connection, outlet, self.around.cancel.clone());
                self.around.tasks.spawn_on(task, &self.around.runtime);
            }
            Err(error) => {
                let doomed = self.shared.lock().failed(&error, clock::now());
                complete_all(doomed, &error);
            }
        }
    }
}

impl<C> Drop for Keeper<C> {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.over = true;
        let queue = std::mem::take(&mut state.queue);
        let again = std::mem::take(&mut state.again);
        drop(state);
        // Tickets that are dropped complete as `ShuttingDown`.
        drop((queue, again));
    }
}

/// Runs a connection to its end; when the gateway stops it may finish its own for a moment.
async fn run_connection<C: Connection>(connection: C, outlet: Outlet, cancel: CancellationToken) {
    let shared = Arc::clone(&outlet.shared);
    let mut run = pin!(connection.run(outlet));
    tokio::select! {
        () = &mut run => return,
        () = cancel.cancelled() => shared.drain(),
    }
    // Past the grace the connection is dropped as it is, and its jobs complete as `ShuttingDown`.
    let _ = tokio::time::timeout(STOP_GRACE, run).await;
}

#[cfg(test)]
mod tests {
    use super::super::plain::TcpConnector;
    use super::super::rehearsal::{Door, Log, Peer, PipeDial, answer_to, pipes, settle, surroundings};
    use super::*;
    use crate::config::settings::Limits;
    use tokio::io::DuplexStream;

    const PATIENCE: Duration = Duration::from_secs(4);

    /// A pool of plain stream connections over pipes.
    struct Stage {
        pool: Pool<TcpConnector<PipeDial>>,
        door: Door,
        log: Arc<Log>,
    }

    impl Stage {
        fn new(limits: Limits) -> Self {
            let around = surroundings(limits);
            let (dial, door) = pipes();
            let connector = TcpConnector { dial, streams: around.limits.dot_streams };
            Self { pool: Pool::new(connector, &around), door, log: Log::new() }
        }

        fn ask(&self, id: u64, patience: Duration) {
            self.log.ask(&self.pool, id, "a.example", patience);
        }

        async fn accept(&mut self) -> Peer<DuplexStream> {
            Peer::new(self.door.accept().await)
        }

        async fn error(&self, id: u64) -> TransportError {
            self.log.outcome(id).await.unwrap_err()
        }
    }

    /// Answers the next query.
    async fn serve(server: &mut Peer<DuplexStream>) {
        let query = server.read().await.unwrap();
        server.write(&[answer_to(&query)]).await;
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_dialled_before_the_first_query_and_first_users_share_the_dial() {
        let mut stage = Stage::new(Limits::default());
        settle().await;
        assert_eq!((stage.door.dials(), stage.pool.connections()), (0, 0));
        stage.ask(0, PATIENCE);
        settle().await;
        stage.ask(1, PATIENCE);
        let mut server = stage.accept().await;
        serve(&mut server).await;
        serve(&mut server).await;
        assert!(stage.log.outcome(0).await.is_ok() && stage.log.outcome(1).await.is_ok());
        assert_eq!((stage.door.dials(), stage.pool.connections()), (1, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn warming_dials_once() {
        let mut stage = Stage::new(Limits::default());
        stage.pool.warm();
        stage.pool.warm();
        let _server = stage.accept().await;
        settle().await;
        stage.pool.warm();
        settle().await;
        assert_eq!((stage.door.dials(), stage.pool.connections()), (1, 1));
        assert_eq!(stage.pool.last_handshake().unwrap().tls_version, None);
        assert_eq!(stage.pool.handshakes(), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_queue_turns_queries_away_at_once() {
        let limits = Limits { pool_queue: 3, dot_streams: 1, max_connections: 1, ..Limits::default() };
        let mut stage = Stage::new(limits);
        stage.ask(0, PATIENCE);
        let mut server = stage.accept().await;
        let first = server.read().await.unwrap();
        for id in 1..=4 {
            stage.ask(id, PATIENCE);
        }
        assert!(matches!(stage.error(4).await, TransportError::Overloaded));
        server.write(&[answer_to(&first)]).await;
        for _ in 1..=3 {
            serve(&mut server).await;
        }
        for id in 0..=3 {
            assert!(stage.log.outcome(id).await.is_ok());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_dial_fails_all_who_wait_and_then_pauses() {
        let mut stage = Stage::new(Limits::default());
        stage.door.refuse(true);
        for id in 0..3 {
            stage.ask(id, PATIENCE);
        }
        for id in 0..3 {
            assert!(matches!(stage.error(id).await, TransportError::Connect { .. }));
        }
        stage.ask(3, PATIENCE);
        assert!(stage.log.has(3), "a query during the pause fails at once");
        assert_eq!(stage.door.dials(), 1);

        tokio::time::advance(FIRST_PAUSE).await;
        stage.ask(4, PATIENCE);
        assert!(matches!(stage.error(4).await, TransportError::Connect { .. }));
        assert_eq!(stage.door.dials(), 2);
        tokio::time::advance(FIRST_PAUSE).await;
        stage.ask(5, PATIENCE);
        assert!(stage.log.has(5), "the pause has doubled");

        stage.door.refuse(false);
        tokio::time::advance(FIRST_PAUSE).await;
        stage.ask(6, PATIENCE);
        let mut server = stage.accept().await;
        serve(&mut server).await;
        assert!(stage.log.outcome(6).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_never_grow_beyond_two_seconds() {
        let stage = Stage::new(Limits::default());
        stage.door.refuse(true);
        for id in 0..20 {
            stage.ask(id, PATIENCE);
            stage.error(id).await;
            assert_eq!(stage.door.dials(), usize::try_from(id).unwrap() + 1);
            tokio::time::advance(LONGEST_PAUSE).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_query_times_out_in_the_queue_and_the_dial_goes_on() {
        // A dialler whose pipes are never taken fills up; here the dial itself is what hangs.
        #[derive(Debug)]
        struct Slow(TcpConnector<PipeDial>);
        impl Connector for Slow {
            type Connection = <TcpConnector<PipeDial> as Connector>::Connection;
            async fn connect(
                &self,
                deadline: Instant,
            ) -> Result<(Self::Connection, Handshake), TransportError> {
                tokio::time::sleep(Duration::from_secs(1)).await;
                self.0.connect(deadline).await
            }
        }
        let (dial, mut door) = pipes();
        let pool = Pool::new(Slow(TcpConnector { dial, streams: 8 }), &surroundings(Limits::default()));
        let log = Log::new();
        let started = clock::now();
        log.ask(&pool, 0, "a.example", Duration::from_millis(100));
        assert!(matches!(log.outcome(0).await, Err(TransportError::Timeout)));
        assert!(clock::now() - started <= Duration::from_millis(100) + SWEEP_INTERVAL);
        let _server = door.accept().await;
        settle().await;
        assert_eq!(pool.connections(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_dial_that_overruns_its_deadline_is_given_up() {
        #[derive(Debug)]
        struct Never;
        impl Connector for Never {
            type Connection = <TcpConnector<PipeDial> as Connector>::Connection;
            async fn connect(
                &self,
                _deadline: Instant,
            ) -> Result<(Self::Connection, Handshake), TransportError> {
                std::future::pending().await
            }
        }
        let pool = Pool::new(Never, &surroundings(Limits::default()));
        let log = Log::new();
        log.ask(&pool, 0, "a.example", PATIENCE);
        let started = clock::now();
        assert!(matches!(log.outcome(0).await, Err(TransportError::Timeout)));
        assert!(clock::now() - started < Duration::from_secs(3));
    }

    #[tokio::test(start_paused = true)]
    async fn a_query_given_back_goes_to_a_fresh_connection_not_to_another_old_one() {
        let limits = Limits { dot_streams: 1, ..Limits::default() };
        let mut stage = Stage::new(limits);
        stage.ask(0, PATIENCE);
        stage.ask(1, PATIENCE);
        let mut first = stage.accept().await;
        let mut second = stage.accept().await;
        serve(&mut first).await;
        serve(&mut second).await;
        assert!(stage.log.outcome(0).await.is_ok() && stage.log.outcome(1).await.is_ok());
        stage.ask(2, PATIENCE);
        first.read().await.unwrap();
        drop(first);
        let mut third = stage.accept().await;
        serve(&mut third).await;
        assert!(stage.log.outcome(2).await.is_ok());
        assert_eq!((stage.door.dials(), stage.pool.connections()), (3, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn with_one_connection_open_a_failed_dial_leaves_the_waiting_to_it() {
        let limits = Limits { dot_streams: 1, ..Limits::default() };
        let mut stage = Stage::new(limits);
        stage.ask(0, PATIENCE);
        let mut server = stage.accept().await;
        let first = server.read().await.unwrap();
        stage.door.refuse(true);
        stage.ask(1, PATIENCE);
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(stage.door.dials(), 2);
        server.write(&[answer_to(&first)]).await;
        serve(&mut server).await;
        assert!(stage.log.outcome(0).await.is_ok() && stage.log.outcome(1).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_dropped_pool_finishes_its_own_and_leaves_no_task() {
        let around = surroundings(Limits::default());
        let (dial, mut door) = pipes();
        let pool = Pool::new(TcpConnector { dial, streams: 8 }, &around);
        let log = Log::new();
        log.ask(&pool, 0, "a.example", PATIENCE);
        drop(pool);
        serve(&mut Peer::new(door.accept().await)).await;
        assert!(log.outcome(0).await.is_ok());
        around.tasks.close();
        around.tasks.wait().await;
    }
}
