//! DNS over TLS ([RFC 7858](https://www.rfc-editor.org/rfc/rfc7858)), and the stream connection that DNS over TCP shares with it: framed messages, many in flight,
//! answers in any order (RFC 7766 §6.2.1.1). It knows neither which stream it runs on nor who asks.
//!
//! One task runs a connection. Each time it wakes it reads what has come and completes all of it, takes every waiting
//! query it has room for, and writes them as one buffer: one TLS record and one system call for a burst.
//!
//! ```text
//! taking jobs ── drained, idle, lost count, too many unanswered ──▶ finishing its own ──▶ close_notify
//!      │   ╲─ silent ─▶ doubted: its jobs are asked on a fresh connection as well ─ heard ─▶ taking or finishing
//!      └────────────────────── closed or broken by the peer, or silent for long ────────▶ jobs given back
//! ```

use super::dial::{Dial, TcpDial};
use super::idle::Closer;
use super::lanes;
use super::mux::{Arrival, Mux};
use super::pool::{Connection, Connector, Job, Outlet, Taken};
use super::queue::SWEEP_INTERVAL;
use super::tls::{TlsClient, TlsSetupError};
use super::vigil::{Asks, Suspicion, Vigil};
use super::{Handshake, Received, Surroundings, Transport, TransportError};
use crate::clock;
use crate::config::settings::{Host, ServerSpec};
use crate::wire::frame::{self, Deframer};
use crate::wire::header::set_id;
use bytes::{Buf, Bytes, BytesMut};
use std::future::{Future, poll_fn};
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::Sleep;

/// How long the farewell may take.
const CLOSE: Duration = Duration::from_secs(1);

/// Makes the transport of a DNS over TLS server.
///
/// # Errors
/// A CA file that cannot be read, a host that is no server name.
pub(super) fn build(
    spec: &ServerSpec,
    (host, port): (&Host, u16),
    around: &Surroundings,
) -> Result<Box<dyn Transport>, TlsSetupError> {
    let dial = TcpDial::new(host, port, &spec.addresses, around);
    // No ALPN: RFC 7858 registers none, and some servers refuse what they do not know.
    let tls = TlsClient::new(&around.tls, spec, &[])?;
    Ok(lanes::build(DotConnector { dial, tls, streams: around.limits.dot_streams }, around))
}

/// Dials and shakes hands.
#[derive(Debug)]
pub(super) struct DotConnector<D> {
    /// Opens streams.
    pub(super) dial: D,
    /// Makes them private.
    pub(super) tls: TlsClient,
    /// Queries in flight on one connection.
    pub(super) streams: usize,
}

impl<D: Dial> Connector for DotConnector<D> {
    type Connection = StreamConnection<tokio_rustls::client::TlsStream<D::Stream>>;

    async fn connect(&self, deadline: Instant) -> Result<(Self::Connection, Handshake), TransportError> {
        let dialled = self.dial.dial(deadline).await?;
        let address = dialled.address.ip();
        match self.tls.handshake(dialled, deadline).await {
            Ok((stream, handshake)) => Ok((StreamConnection { stream, streams: self.streams }, handshake)),
            Err(error) => {
                self.dial.refuted(address);
                Err(error)
            }
        }
    }

    fn forget_network(&self) {
        self.dial.forget_network();
        self.tls.forget_sessions();
    }

    fn silent(&self, address: IpAddr) {
        self.dial.silent(address);
    }
}

/// A connection that carries framed messages.
#[derive(Debug)]
pub(super) struct StreamConnection<S> {
    /// The octets.
    pub(super) stream: S,
    /// Queries in flight at most.
    pub(super) streams: usize,
}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> Connection for StreamConnection<S> {
    async fn run(self, outlet: Outlet) {
        let abandoned = outlet.abandoned();
        let mut driver = Driver::new(self, outlet);
        let end = tokio::select! {
            biased;
            () = abandoned => End::Broken,
            end = poll_fn(|cx| driver.poll(cx)) => end,
        };
        match end {
            End::Finished => driver.farewell().await,
            End::Broken => driver.give_back(),
        }
    }
}

/// How a connection ends.
#[derive(Debug)]
enum End {
    /// By us, with nothing in flight.
    Finished,
    /// By the peer or the path. While idle that is no failure.
    Broken,
}

/// A running connection.
#[derive(Debug)]
struct Driver<S> {
    /// The octets.
    stream: S,
    /// Where jobs come from.
    outlet: Outlet,
    /// Which answer is whose.
    mux: Mux<Job>,
    /// What was read and is not yet a message.
    deframer: Deframer,
    /// What is still to be written.
    out: BytesMut,
    /// Something was written since the last flush.
    unflushed: bool,
    /// Emptied in every poll; kept for its allocation.
    jobs: Vec<Job>,
    /// False once it only finishes its own.
    taking: bool,
    /// An answer has come.
    answered: bool,
    /// When a query was last sent or a message received; octets that never become a message keep nothing open.
    active_at: Instant,
    /// How long it is kept without a query.
    idle: Duration,
    /// Whether it is too silent.
    vigil: Vigil,
    /// It was silent for so long that nothing is waited for any more.
    is_dead: bool,
    /// The one timer: sweeps while something is pending, else ends the idle connection. Re-armed lazily.
    timer: Pin<Box<Sleep>>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Driver<S> {
    /// Starts on a fresh stream.
    fn new(connection: StreamConnection<S>, outlet: Outlet) -> Self {
        let now = clock::now();
        let idle = outlet.idle_limit();
        let vigil = Vigil::new(outlet.pace(), Asks::Nothing);
        Self {
            stream: connection.stream,
            outlet,
            idle,
            mux: Mux::new(connection.streams, fastrand::u16(..)),
            deframer: Deframer::default(),
            out: BytesMut::new(),
            unflushed: false,
            jobs: Vec::new(),
            taking: true,
            answered: false,
            active_at: now,
            vigil,
            is_dead: false,
            timer: Box::pin(tokio::time::sleep_until((now + idle).into())),
        }
    }

    /// Does all that can be done now. Reading comes first because it makes room.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let now = clock::now();
        if self.poll_read(cx, now).is_ready() || self.poll_send(cx, now).is_ready() {
            return Poll::Ready(End::Broken);
        }
        // Queries that timed out make room, and the pool takes us for full until it is asked again.
        if self.poll_timer(cx, now) && self.poll_send(cx, now).is_ready() {
            return Poll::Ready(End::Broken);
        }
        if self.is_dead {
            return Poll::Ready(End::Broken);
        }
        let finished = !self.taking && self.mux.pending() == 0;
        if finished { Poll::Ready(End::Finished) } else { Poll::Pending }
    }

    /// Reads and completes until there is no more; ready when the stream has ended.
    fn poll_read(&mut self, cx: &mut Context<'_>, now: Instant) -> Poll<()> {
        loop {
            let read = pin!(self.stream.read_buf(self.deframer.buffer()));
            match ready!(read.poll(cx)) {
                Ok(0) | Err(_) => return Poll::Ready(()),
                Ok(_) => {}
            }
            while let Some(message) = self.deframer.next_message() {
                self.active_at = now;
                self.deliver(message, now);
            }
            if self.vigil.heard(self.mux.pending(), now) {
                self.taking &= self.outlet.trust();
            }
        }
    }

    /// Completes the query that a message belongs to. A message that belongs to none must not fail the queries in flight,
    /// but a peer that has lost count gets no new ones.
    fn deliver(&mut self, message: Bytes, now: Instant) {
        match self.mux.arrive(&message) {
            Arrival::Answer(job) => self.answer(job, message, now),
            Arrival::Mismatch(job, fault) => {
                job.ticket.complete(Err(TransportError::Mismatch(fault)));
                self.retire();
            }
            Arrival::Late => {}
            Arrival::Stray => self.retire(),
        }
    }

    /// Completes a query with its answer.
    fn answer(&mut self, job: Job, message: Bytes, now: Instant) {
        self.vigil.answered(job.latency(now));
        if !self.answered {
            self.answered = true;
            self.outlet.answered();
        }
        job.ticket.complete(Ok(Received { message, age_secs: 0, sent_at: job.sent_at }));
    }

    /// Takes waiting jobs and writes them until there are no more or the stream takes no more; ready when it is broken.
    fn poll_send(&mut self, cx: &mut Context<'_>, now: Instant) -> Poll<()> {
        loop {
            let written = self.poll_write(cx);
            if matches!(written, Poll::Ready(Err(_))) {
                return Poll::Ready(());
            }
            if !self.taking || self.vigil.is_doubted() {
                return Poll::Pending;
            }
            // A peer that does not read gets no more queries: they wait where another connection can take them.
            let room = if written.is_ready() { self.mux.room() } else { 0 };
            match ready!(self.outlet.poll_take(cx, room, &mut self.jobs, now)) {
                Taken::Jobs => self.frame_jobs(now),
                Taken::Drain => self.taking = false,
            }
        }
    }

    /// Appends every taken job to what is written next.
    fn frame_jobs(&mut self, now: Instant) {
        self.active_at = now;
        let mut jobs = std::mem::take(&mut self.jobs);
        for mut job in jobs.drain(..) {
            job.sent_at = Some(now);
            if !job.retried {
                // What was asked twice without an answer says more about its name than about the connection.
                self.vigil.expect(self.mux.pending() + 1, now);
            }
            let start = self.out.len();
            if !frame::append(&mut self.out, &job.query) {
                job.ticket.complete(Err(TransportError::BodyTooLarge));
                continue;
            }
            match self.mux.insert(job) {
                Ok(id) => set_id(self.out.get_mut(start + 2..).unwrap_or_default(), id),
                Err(job) => {
                    self.out.truncate(start);
                    self.outlet.give_back(job);
                }
            }
        }
        self.jobs = jobs;
    }

    /// Writes and flushes what is framed. The stream may take part of it.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        while !self.out.is_empty() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.out))?;
            if written == 0 {
                return Poll::Ready(Err(std::io::ErrorKind::WriteZero.into()));
            }
            self.out.advance(written);
            self.unflushed = true;
        }
        if self.unflushed {
            ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Sweeps the table, or ends a connection that has been idle; true if queries timed out. Moves the timer only when
    /// it would be late: with traffic that is at most twice in a sweep's time.
    fn poll_timer(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let before = self.mux.pending();
        loop {
            let due = self.due(now);
            if due < self.timer.deadline().into_std() {
                self.timer.as_mut().reset(due.into());
            }
            if self.timer.as_mut().poll(cx).is_pending() {
                return self.mux.pending() < before;
            }
            if self.is_awaiting() {
                self.sweep(now);
            } else if now >= due {
                self.retire();
                self.outlet.ended_quietly(Closer::Us, self.idle);
                return false;
            }
            if self.is_dead {
                return false;
            }
            let next = self.due(now);
            self.timer.as_mut().reset(next.into());
        }
    }

    /// Returns when the timer must ring.
    fn due(&self, now: Instant) -> Instant {
        if !self.is_awaiting() {
            return self.active_at + self.idle;
        }
        let sweep = now + SWEEP_INTERVAL;
        self.vigil.look_at().map_or(sweep, |at| at.min(sweep))
    }

    /// Tells whether the peer has something to say.
    fn is_awaiting(&self) -> bool {
        self.mux.pending() > 0 || self.vigil.is_silent()
    }

    /// Lets queries time out, and doubts a peer that leaves too many unanswered or has fallen silent.
    fn sweep(&mut self, now: Instant) {
        for job in self.mux.expire(now) {
            job.ticket.complete(Err(TransportError::Timeout));
        }
        if self.mux.is_exhausted() {
            self.retire();
        }
        match self.vigil.check(now) {
            Suspicion::Calm => {}
            Suspicion::Ask | Suspicion::Doubt => self.doubt(),
            Suspicion::Dead => self.is_dead = true,
        }
    }

    /// Has the waiting queries asked again on a fresh connection, and waits for them here as well. When all of them were asked
    /// again before, it is they that are slow; when all have timed out, the connection is not worth asking about.
    fn doubt(&mut self) {
        if self.mux.pending() == 0 {
            self.retire();
        } else if self.mux.pending_mut().any(|job| !job.retried) {
            self.outlet.doubt(self.mux.pending_mut(), self.vigil.pace());
            return;
        }
        self.vigil.forgive();
    }

    /// Takes no more jobs; those in flight are waited for.
    fn retire(&mut self) {
        if self.taking {
            self.taking = false;
            self.outlet.learnt(self.vigil.pace());
            self.outlet.retire();
        }
    }

    /// Closes in order: TLS close_notify (RFC 7858 §3.4), then FIN.
    async fn farewell(mut self) {
        // A peer that does not take it loses nothing.
        let _ = tokio::time::timeout(CLOSE, self.stream.shutdown()).await;
    }

    /// Hands the unanswered jobs back.
    fn give_back(self) {
        self.outlet.retire();
        self.outlet.learnt(self.vigil.pace());
        if self.taking && self.mux.pending() == 0 && !self.vigil.is_silent() {
            self.outlet.ended_quietly(Closer::Server, clock::now().saturating_duration_since(self.active_at));
        }
        for job in self.mux.into_pending() {
            self.outlet.give_back(job);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::TransportError;
    use super::super::idle::IDLE;
    use super::super::pool::Pool;
    use super::super::rehearsal::{
        Authority, Door, Identity, Log, NAME, Peer, PipeDial, answer_to, dot_endpoint, pipes, query, settle,
        surroundings, with_id,
    };
    use super::*;
    use crate::config::settings::Limits;
    use crate::telemetry::bounds::Bound;
    use crate::wire::response::ResponseFault;
    use std::sync::Arc;
    use tokio::io::DuplexStream;
    use tokio_rustls::TlsAcceptor;
    use tokio_rustls::server::TlsStream;

    const PATIENCE: Duration = Duration::from_secs(4);

    type ServerEnd = Peer<TlsStream<DuplexStream>>;

    /// A pool that dials pipes, and the server behind them.
    struct Stage {
        pool: Pool<DotConnector<PipeDial>>,
        door: Door,
        acceptor: TlsAcceptor,
        around: Surroundings,
        log: Arc<Log>,
    }

    impl Stage {
        fn new(limits: Limits) -> Self {
            let authority = Authority::new();
            let identity = authority.identity(NAME, 4000);
            Self::with(limits, &authority.spec(dot_endpoint()), &identity)
        }

        fn with(limits: Limits, spec: &ServerSpec, identity: &Identity) -> Self {
            let around = surroundings(limits);
            let (dial, door) = pipes();
            let tls = TlsClient::new(&around.tls, spec, &[]).unwrap();
            let pool = Pool::new(DotConnector { dial, tls, streams: around.limits.dot_streams }, &around);
            Self { pool, door, acceptor: identity.acceptor(&[]), around, log: Log::new() }
        }

        fn ask(&self, id: u64, name: &str) {
            self.log.ask(&self.pool, id, name, PATIENCE);
        }

        async fn accept(&mut self) -> ServerEnd {
            Peer::new(self.door.accept_tls(&self.acceptor).await.unwrap())
        }

        async fn error(&self, id: u64) -> TransportError {
            self.log.outcome(id).await.unwrap_err()
        }

        /// The answer of ticket `id`, without its ID.
        async fn answered(&self, id: u64) -> Bytes {
            with_id(&self.log.outcome(id).await.unwrap().message, 0)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_one_write_and_answers_may_come_in_any_order() {
        let mut stage = Stage::new(Limits::default());
        stage.pool.warm();
        let mut server = stage.accept().await;
        settle().await;
        let before = stage.door.writes();
        for id in 0..50 {
            stage.ask(id, &format!("n{id}.example"));
        }
        let queries = server.read_many(50).await;
        assert_eq!(stage.door.writes() - before, 1);
        let mut answers: Vec<_> = queries.iter().map(|query| answer_to(query)).collect();
        answers.reverse();
        server.write(&answers).await;
        for id in 0..50 {
            assert_eq!(stage.answered(id).await, answer_to(&query(&format!("n{id}.example"))));
        }
        assert_eq!((stage.pool.connections(), stage.door.dials()), (1, 1));
    }

    /// The message with its names in lower case.
    fn lowercase(message: &[u8]) -> Vec<u8> {
        let (header, rest) = message.split_at(12);
        [header, rest.to_ascii_lowercase().as_slice()].concat()
    }

    #[tokio::test(start_paused = true)]
    async fn ids_in_flight_are_distinct_and_letter_case_may_change() {
        let mut stage = Stage::new(Limits::default());
        stage.ask(0, "Case.Example");
        stage.ask(1, "Case.Example");
        let mut server = stage.accept().await;
        let queries = server.read_many(2).await;
        assert_ne!(queries[0][..2], queries[1][..2]);
        let lowered: Vec<_> = queries.iter().map(|query| answer_to(&lowercase(query))).collect();
        assert_ne!(answer_to(&queries[0]), lowered[0]);
        server.write(&lowered).await;
        assert!(stage.log.outcome(0).await.is_ok());
        assert!(stage.log.outcome(1).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_query_that_times_out_gives_its_place_to_the_next_one() {
        let mut stage = Stage::new(Limits { dot_streams: 1, max_connections: 1, ..Limits::default() });
        stage.log.ask(&stage.pool, 0, "slow.example", Duration::from_millis(300));
        let mut server = stage.accept().await;
        server.read().await.unwrap();
        stage.ask(1, "next.example");
        assert!(matches!(stage.error(0).await, TransportError::Timeout));
        let next = tokio::time::timeout(Duration::from_millis(500), server.read()).await.unwrap().unwrap();
        server.write(&[answer_to(&next)]).await;
        assert_eq!(stage.answered(1).await, answer_to(&query("next.example")));
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_query_times_out_alone_and_its_late_answer_hurts_nobody() {
        let mut stage = Stage::new(Limits::default());
        stage.log.ask(&stage.pool, 0, "slow.example", Duration::from_millis(900));
        let mut server = stage.accept().await;
        let slow = server.read().await.unwrap();
        for id in 1..=4 {
            tokio::time::advance(Duration::from_millis(300)).await;
            stage.ask(id, "prompt.example");
            let prompt = server.read().await.unwrap();
            assert_ne!(prompt[..2], slow[..2]);
            server.write(&[answer_to(&prompt)]).await;
            stage.answered(id).await;
        }
        assert!(matches!(stage.error(0).await, TransportError::Timeout));
        server.write(&[answer_to(&slow)]).await;
        stage.ask(9, "later.example");
        let later = server.read().await.unwrap();
        server.write(&[answer_to(&later)]).await;
        stage.answered(9).await;
        assert_eq!(stage.door.dials(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_ends_midway_gives_each_query_one_more_try() {
        let mut stage = Stage::new(Limits::default());
        for id in 0..3 {
            stage.ask(id, "a.example");
        }
        let mut first = stage.accept().await;
        let queries = first.read_many(3).await;
        first.write(&[answer_to(&queries[0])]).await;
        drop(first);
        let mut second = stage.accept().await;
        let again = second.read_many(2).await;
        second.write(&[answer_to(&again[0])]).await;
        drop(second);
        let outcomes = [stage.log.outcome(0).await, stage.log.outcome(1).await, stage.log.outcome(2).await];
        assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 2);
        assert!(outcomes.iter().any(|outcome| matches!(outcome, Err(TransportError::Closed))));
        assert_eq!(stage.door.dials(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_only_ever_hangs_up_is_not_dialled_in_a_loop() {
        let mut stage = Stage::new(Limits::default());
        stage.ask(0, "a.example");
        drop(stage.accept().await);
        drop(stage.accept().await);
        assert!(matches!(stage.error(0).await, TransportError::Closed));
        settle().await;
        stage.ask(1, "a.example");
        assert!(matches!(stage.error(1).await, TransportError::Closed));
        assert_eq!(stage.door.dials(), 2);
        tokio::time::advance(Duration::from_secs(3)).await;
        stage.ask(2, "a.example");
        let mut server = stage.accept().await;
        let query = server.read().await.unwrap();
        server.write(&[answer_to(&query)]).await;
        stage.answered(2).await;
    }

    #[tokio::test(start_paused = true)]
    async fn an_unknown_id_fails_nobody_but_ends_the_connection_after_its_own() {
        let mut stage = Stage::new(Limits::default());
        stage.ask(0, "a.example");
        let mut server = stage.accept().await;
        let query = server.read().await.unwrap();
        let id = u16::from_be_bytes([query[0], query[1]]);
        server.write(&[with_id(&answer_to(&query), id ^ 0x8000)]).await;
        settle().await;
        stage.ask(1, "b.example");
        let mut fresh = stage.accept().await;
        let other = fresh.read().await.unwrap();
        fresh.write(&[answer_to(&other)]).await;
        stage.answered(1).await;
        server.write(&[answer_to(&query)]).await;
        stage.answered(0).await;
        assert_eq!(server.read().await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn another_question_under_our_id_fails_that_query_only() {
        let mut stage = Stage::new(Limits::default());
        stage.ask(0, "a.example");
        stage.ask(1, "b.example");
        let mut server = stage.accept().await;
        let queries = server.read_many(2).await;
        let id = u16::from_be_bytes([queries[0][0], queries[0][1]]);
        server.write(&[with_id(&answer_to(&query("evil.example")), id)]).await;
        assert!(matches!(stage.error(0).await, TransportError::Mismatch(ResponseFault::QuestionMismatch)));
        assert!(!stage.log.has(1));
        server.write(&[answer_to(&queries[1])]).await;
        stage.answered(1).await;
        assert_eq!(server.read().await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn garbage_and_empty_frames_fail_nobody() {
        for garbage in [Bytes::new(), Bytes::from_static(b"\xff\xff\xff"), vec![0xff; 600].into()] {
            let mut stage = Stage::new(Limits::default());
            stage.ask(0, "a.example");
            let mut server = stage.accept().await;
            let query = server.read().await.unwrap();
            server.write(&[garbage, answer_to(&query)]).await;
            stage.answered(0).await;
            assert_eq!(server.read().await, None);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_frame_cut_short_by_the_end_counts_as_no_answer() {
        let mut stage = Stage::new(Limits::default());
        stage.ask(0, "a.example");
        let mut server = stage.accept().await;
        let query = server.read().await.unwrap();
        let mut framed = BytesMut::new();
        frame::append(&mut framed, &answer_to(&query));
        server.stream.write_all(&framed[..framed.len() - 1]).await.unwrap();
        server.stream.shutdown().await.unwrap();
        drop(server);
        let mut fresh = stage.accept().await;
        let again = fresh.read().await.unwrap();
        fresh.write(&[answer_to(&again)]).await;
        stage.answered(0).await;
    }

    #[tokio::test(start_paused = true)]
    async fn sixteen_unanswered_queries_retire_the_connection() {
        let mut stage = Stage::new(Limits::default());
        stage.ask(100, "first.example");
        let mut server = stage.accept().await;
        let first = server.read().await.unwrap();
        server.write(&[answer_to(&first)]).await;
        stage.answered(100).await;
        for id in 0..16 {
            stage.log.ask(&stage.pool, id, "dead.example", Duration::from_millis(100));
        }
        server.read_many(16).await;
        for id in 0..16 {
            assert!(matches!(stage.error(id).await, TransportError::Timeout));
        }
        assert_eq!(server.read().await, None);
        stage.ask(200, "next.example");
        stage.accept().await.read().await.unwrap();
    }

    /// A stage whose first connection has answered a few queries at once.
    async fn warmed(limits: Limits) -> (Stage, ServerEnd) {
        let mut stage = Stage::new(limits);
        stage.pool.warm();
        let mut server = stage.accept().await;
        for id in 100..105 {
            stage.ask(id, "warm.example");
            let query = server.read().await.unwrap();
            server.write(&[answer_to(&query)]).await;
            stage.answered(id).await;
        }
        (stage, server)
    }

    /// Has the first connection fall silent under twenty queries.
    async fn black_hole(limits: Limits) {
        let (mut stage, mut dead) = warmed(limits).await;
        let begun = clock::now();
        (0..20).for_each(|id| stage.ask(id, &format!("n{id}.example")));
        dead.read_many(20).await;
        let mut fresh = stage.accept().await;
        assert!(!stage.log.has(0));
        stage.ask(20, "later.example");
        let answers: Vec<_> = fresh.read_many(21).await.iter().map(|query| answer_to(query)).collect();
        fresh.write(&answers).await;
        for id in 0..=20 {
            stage.answered(id).await;
        }
        let waited = clock::now() - begun;
        assert!((225..500).contains(&waited.as_millis()), "{waited:?}");
        assert!((0..20).all(|id| stage.log.is_doubted(id)) && !stage.log.is_doubted(20));
        assert_eq!(dead.read().await, None);
        assert!(clock::now() - begun < Duration::from_secs(2));
        settle().await;
        assert_eq!((stage.pool.connections(), stage.door.dials()), (1, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn queries_on_a_black_holed_connection_are_answered_on_a_fresh_one_and_it_is_closed() {
        black_hole(Limits::default()).await;
        black_hole(Limits { max_connections: 1, ..Limits::default() }).await;
    }

    /// Asks for a slow name; returns both connections with the query that each has.
    async fn slow_name() -> (Stage, [(ServerEnd, Bytes); 2]) {
        let (mut stage, mut old) = warmed(Limits::default()).await;
        stage.ask(0, "slow.example");
        let query = old.read().await.unwrap();
        let mut fresh = stage.accept().await;
        let again = fresh.read().await.unwrap();
        assert!(!stage.log.has(0));
        (stage, [(old, query), (fresh, again)])
    }

    #[tokio::test(start_paused = true)]
    async fn one_slow_name_that_is_answered_leaves_its_connection_in_use() {
        let (stage, [(mut old, query), (mut fresh, again)]) = slow_name().await;
        old.write(&[answer_to(&query)]).await;
        stage.answered(0).await;
        fresh.write(&[answer_to(&again)]).await;
        settle().await;
        stage.ask(1, "next.example");
        old.read().await.unwrap();
        assert_eq!((stage.pool.connections(), stage.door.dials()), (2, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_fresh_connection_is_not_doubted_for_the_name_that_was_slow_on_the_old_one() {
        let (stage, [_old, (mut fresh, again)]) = slow_name().await;
        tokio::time::sleep(Duration::from_millis(2_500)).await;
        assert!(!stage.log.has(0));
        fresh.write(&[answer_to(&again)]).await;
        stage.answered(0).await;
        stage.ask(1, "next.example");
        fresh.read().await.unwrap();
        assert_eq!((stage.pool.connections(), stage.door.dials()), (1, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_name_among_prompt_ones_times_out_alone_and_no_connection_is_closed() {
        let (stage, mut server) = warmed(Limits::default()).await;
        stage.ask(0, "slow.example");
        server.read().await.unwrap();
        for id in 1..=40 {
            tokio::time::sleep(Duration::from_millis(105)).await;
            stage.ask(id, "prompt.example");
            let prompt = server.read().await.unwrap();
            server.write(&[answer_to(&prompt)]).await;
            stage.answered(id).await;
        }
        assert!(matches!(stage.error(0).await, TransportError::Timeout));
        assert_eq!((stage.pool.connections(), stage.door.dials()), (1, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn many_slow_names_on_a_connection_that_goes_on_answering_are_no_reason_for_doubt() {
        let (stage, mut server) = warmed(Limits::default()).await;
        for id in 0..30 {
            stage.ask(id, &format!("slow{id}.example"));
        }
        let queries = server.read_many(30).await;
        for (id, query) in (0..30).zip(&queries) {
            tokio::time::sleep(Duration::from_millis(100)).await;
            server.write(&[answer_to(query)]).await;
            stage.answered(id).await;
        }
        assert_eq!(stage.door.dials(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_connection_gets_no_new_queries_but_may_still_answer() {
        let mut stage = Stage::new(Limits::default());
        stage.ask(0, "a.example");
        let mut server = stage.accept().await;
        let query = server.read().await.unwrap();
        tokio::time::sleep(Duration::from_millis(1_100)).await;
        stage.ask(1, "b.example");
        let mut fresh = stage.accept().await;
        fresh.read_many(2).await;
        server.write(&[answer_to(&query)]).await;
        stage.answered(0).await;
        assert!(!stage.log.has(1));
    }

    #[tokio::test(start_paused = true)]
    async fn queries_wait_when_a_connection_is_full_and_a_second_one_is_opened() {
        let limits = Limits { dot_streams: 2, max_connections: 2, ..Limits::default() };
        let mut stage = Stage::new(limits);
        for id in 0..5 {
            stage.ask(id, &format!("n{id}.example"));
        }
        let mut first = stage.accept().await;
        let mut second = stage.accept().await;
        let one = first.read_many(2).await;
        let two = second.read_many(2).await;
        settle().await;
        assert_eq!((stage.door.dials(), stage.pool.connections()), (2, 2));
        let bounds = &stage.around.bounds;
        assert!(bounds.count(Bound::DotStreams) > 0 && bounds.count(Bound::MaxConnections) > 0);
        second.write(&[answer_to(&two[1])]).await;
        let last = second.read().await.unwrap();
        second.write(&[answer_to(&last), answer_to(&two[0])]).await;
        first.write(&[answer_to(&one[0]), answer_to(&one[1])]).await;
        for id in 0..5 {
            assert_eq!(stage.answered(id).await, answer_to(&query(&format!("n{id}.example"))));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_does_not_read_costs_nothing_but_its_own_queries() {
        let limits = Limits { dot_streams: 4096, ..Limits::default() };
        let mut stage = Stage::new(limits);
        stage.ask(0, "a.example");
        let deaf = stage.accept().await;
        let name = ["x"; 100].join(".");
        for ids in [1..1000, 1000..2000] {
            ids.for_each(|id| stage.ask(id, &name));
            settle().await;
        }
        // The deaf connection is doubted after a second; what it never took goes to a fresh one.
        let mut fresh = stage.accept().await;
        fresh.read().await.unwrap();
        drop(deaf);
        drop(fresh);
        stage.door.refuse(true);
        for id in 0..2000 {
            stage.error(id).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_says_goodbye_after_ten_seconds() {
        let mut stage = Stage::new(Limits::default());
        stage.pool.warm();
        let mut server = stage.accept().await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        stage.ask(0, "a.example");
        let query = server.read().await.unwrap();
        server.write(&[answer_to(&query)]).await;
        let answered = clock::now();
        assert_eq!(server.read().await, None);
        let idle = clock::now() - answered;
        assert!(idle >= IDLE && idle < IDLE + Duration::from_secs(1), "{idle:?}");
        settle().await;
        assert_eq!(stage.pool.connections(), 0);
        stage.ask(1, "a.example");
        stage.accept().await.read().await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_may_close_an_idle_connection() {
        let mut stage = Stage::new(Limits::default());
        for id in 0..4 {
            stage.ask(id, "a.example");
            let mut server = stage.accept().await;
            let query = server.read().await.unwrap();
            server.write(&[answer_to(&query)]).await;
            stage.answered(id).await;
            server.stream.shutdown().await.unwrap();
            drop(server);
            settle().await;
            assert_eq!(stage.pool.connections(), 0);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_closes_early_is_closed_first_and_a_busy_connection_is_replaced_once() {
        let mut stage = Stage::new(Limits::default());
        for round in 0..2 {
            stage.ask(round, "a.example");
            let mut server = stage.accept().await;
            let query = server.read().await.unwrap();
            server.write(&[answer_to(&query)]).await;
            stage.answered(round).await;
            tokio::time::sleep(Duration::from_secs(10)).await;
            server.stream.shutdown().await.unwrap();
            drop(server);
            settle().await;
            assert_eq!(stage.pool.connections(), 0, "a connection of little use is not replaced");
        }
        for id in 10..15 {
            stage.ask(id, "a.example");
        }
        let mut server = stage.accept().await;
        for query in server.read_many(5).await {
            server.write(&[answer_to(&query)]).await;
        }
        let quiet_since = clock::now();
        assert_eq!(server.read().await, None);
        let quiet = clock::now() - quiet_since;
        assert!((7900..8300).contains(&quiet.as_millis()), "{quiet:?}");
        let mut spare = stage.accept().await;
        assert_eq!(spare.read().await, None, "it is closed in its turn");
        settle().await;
        assert_eq!((stage.pool.connections(), stage.door.dials()), (0, 4));
        for id in 0..2 {
            assert!(stage.log.outcome(id).await.is_ok());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn draining_finishes_what_is_in_flight() {
        let mut stage = Stage::new(Limits::default());
        stage.ask(0, "a.example");
        let mut server = stage.accept().await;
        let query = server.read().await.unwrap();
        stage.pool.drain();
        stage.ask(1, "b.example");
        assert!(matches!(stage.error(1).await, TransportError::ShuttingDown));
        settle().await;
        assert!(!stage.log.has(0));
        server.write(&[answer_to(&query)]).await;
        stage.answered(0).await;
        assert_eq!(server.read().await, None);
        stage.around.tasks.close();
        stage.around.tasks.wait().await;
    }

    #[tokio::test(start_paused = true)]
    async fn stopping_ends_every_task_within_the_grace() {
        let mut stage = Stage::new(Limits::default());
        stage.ask(0, "a.example");
        let mut server = stage.accept().await;
        server.read().await.unwrap();
        stage.around.cancel.cancel();
        stage.around.tasks.close();
        stage.around.tasks.wait().await;
        assert!(matches!(stage.error(0).await, TransportError::ShuttingDown));
        stage.ask(1, "b.example");
        assert!(matches!(stage.error(1).await, TransportError::ShuttingDown));
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_connection_resumes_the_session() {
        let mut stage = Stage::new(Limits::default());
        for id in 0..2 {
            stage.ask(id, "a.example");
            let mut server = stage.accept().await;
            let query = server.read().await.unwrap();
            server.write(&[answer_to(&query)]).await;
            stage.answered(id).await;
            drop(server);
            settle().await;
        }
        assert_eq!(stage.pool.handshakes(), (1, 1));
        let handshake = stage.pool.last_handshake().unwrap();
        assert_eq!((handshake.tls_version, handshake.resumed), (Some("1.3"), true));
        let end_of_4000 = 64_092_124_800;
        assert!((handshake.certificate_not_after.unwrap() - end_of_4000).abs() < 400 * 86_400);
    }

    #[tokio::test(start_paused = true)]
    async fn on_another_network_the_waiting_go_to_a_new_connection_with_a_new_session() {
        let mut stage = Stage::new(Limits::default());
        stage.ask(0, "a.example");
        let mut old = stage.accept().await;
        let query = old.read().await.unwrap();
        old.write(&[answer_to(&query)]).await;
        stage.answered(0).await;
        stage.ask(1, "b.example");
        old.read().await.unwrap();
        let before = clock::now();
        stage.pool.reset();
        let mut new = stage.accept().await;
        let again = new.read().await.unwrap();
        assert_eq!(old.read().await, None);
        new.write(&[answer_to(&again)]).await;
        stage.answered(1).await;
        assert_eq!(clock::now(), before, "nothing was waited for");
        assert_eq!((stage.pool.handshakes(), stage.pool.connections()), ((2, 0), 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_dial_and_a_pause_of_before_end_with_the_network() {
        let mut stage = Stage::new(Limits::default());
        stage.ask(0, "a.example");
        let stalled = stage.door.accept().await;
        stage.pool.reset();
        let mut server = stage.accept().await;
        let query = server.read().await.unwrap();
        server.write(&[answer_to(&query)]).await;
        stage.answered(0).await;
        drop((stalled, server));
        settle().await;

        stage.door.refuse(true);
        stage.ask(1, "a.example");
        assert!(matches!(stage.error(1).await, TransportError::Connect { .. }));
        stage.door.refuse(false);
        stage.pool.reset();
        stage.pool.warm();
        let _server = stage.accept().await;
        settle().await;
        assert_eq!(stage.pool.connections(), 1);
    }

    /// What a pool says when its server shows `identity`.
    async fn refusal(spec: &ServerSpec, identity: &Identity) -> TransportError {
        let mut stage = Stage::with(Limits::default(), spec, identity);
        stage.ask(0, "a.example");
        let _ = stage.door.accept_tls(&stage.acceptor).await.map(drop);
        stage.error(0).await
    }

    #[tokio::test(start_paused = true)]
    async fn bad_certificates_are_told_apart_from_other_failures() {
        let authority = Authority::new();
        let spec = authority.spec(dot_endpoint());
        let wrong = [
            ("expired", authority.identity(NAME, 2001)),
            ("wrong name", authority.identity("other.example", 4000)),
            ("unknown authority", Authority::new().identity(NAME, 4000)),
        ];
        for (what, identity) in wrong {
            let error = refusal(&spec, &identity).await;
            assert!(matches!(error, TransportError::Certificate { .. }), "{what}: {error:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    #[expect(clippy::excessive_nesting, reason = "a table")]
    async fn a_clock_of_before_the_build_trusts_whom_the_build_would_and_is_named_when_it_cannot() {
        use super::super::certificate_time::CertificateClock;
        use super::super::tls::TlsContext;
        use crate::config::settings::{Roots, TlsSettings, TlsVersion};
        const IN_2026: u64 = 1_795_381_080;
        let settings =
            TlsSettings { roots: Roots::Webpki, extra_ca_dir: None, min_version: TlsVersion::Tls12 };
        let authority = Authority::new();
        let spec = authority.spec(dot_endpoint());
        let time = Arc::new(CertificateClock::new(|| std::time::UNIX_EPOCH, IN_2026));
        let context = TlsContext::load(&settings).unwrap().with_time(Arc::clone(&time));
        for (until, name, expected) in [
            (4000, NAME, None),
            (2001, NAME, Some("the clock is wrong: it says 1970-01-01T00:00:00.000Z, and it is 2026-")),
            (4000, "other.example", Some("the certificate is not acceptable")),
        ] {
            let mut stage = Stage::with(Limits::default(), &spec, &authority.identity(name, until));
            let (dial, door) = pipes();
            let tls = TlsClient::new(&context, &spec, &[]).unwrap();
            stage.pool = Pool::new(DotConnector { dial, tls, streams: 8 }, &stage.around);
            stage.door = door;
            stage.ask(0, "a.example");
            let accepted = stage.door.accept_tls(&stage.acceptor).await;
            let Some(text) = expected else {
                let mut server = Peer::new(accepted.unwrap());
                let query = server.read().await.unwrap();
                server.write(&[answer_to(&query)]).await;
                stage.answered(0).await;
                continue;
            };
            let error = stage.error(0).await.to_string();
            assert!(error.starts_with(text), "{error}");
        }
        assert_eq!(*time.good().borrow(), 0, "a wrong clock is not remembered as right");
    }

    #[tokio::test(start_paused = true)]
    async fn a_pin_must_match_besides_the_chain() {
        use sha2::{Digest, Sha256};
        let authority = Authority::new();
        let identity = authority.identity(NAME, 4000);
        let (_, parsed) = x509_parser::parse_x509_certificate(&identity.certificate).unwrap();
        let pin: [u8; 32] = Sha256::digest(parsed.public_key().raw).into();

        let wrong = ServerSpec { pins: vec![[7; 32]], ..authority.spec(dot_endpoint()) };
        assert!(matches!(refusal(&wrong, &identity).await, TransportError::Pin));

        let right = ServerSpec { pins: vec![[7; 32], pin], ..wrong };
        let mut stage = Stage::with(Limits::default(), &right, &identity);
        stage.ask(0, "a.example");
        let mut server = stage.accept().await;
        let query = server.read().await.unwrap();
        server.write(&[answer_to(&query)]).await;
        stage.answered(0).await;

        let stranger = Authority::new();
        let pinned = ServerSpec { ca_file: Some(stranger.directory().join("ca.pem")), ..right };
        assert!(matches!(refusal(&pinned, &identity).await, TransportError::Certificate { .. }));
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_speaks_no_tls_is_a_tls_failure() {
        let mut stage = Stage::new(Limits::default());
        stage.ask(0, "a.example");
        let mut pipe = stage.door.accept().await;
        pipe.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        assert!(matches!(stage.error(0).await, TransportError::Tls { .. }));
    }

    #[tokio::test(start_paused = true)]
    async fn a_handshake_has_a_deadline() {
        let mut stage = Stage::new(Limits::default());
        stage.ask(0, "a.example");
        let started = clock::now();
        let _silent = stage.door.accept().await;
        assert!(matches!(stage.error(0).await, TransportError::ConnectTimeout { .. }));
        assert!(clock::now() - started < Duration::from_secs(3));
    }
}
