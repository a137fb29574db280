//! DNS over TLS ([RFC 7858](https://www.rfc-editor.org/rfc/rfc7858)), and the stream connection that DNS over TCP shares with it: framed messages, many in flight,
//! answers in any order (RFC 7766 §6.2.1.1). It knows neither which stream it runs on nor who asks.
//!
//! One task runs a connection. Each time it wakes it reads what has come and completes all of it, takes every waiting
//! query it has room for, and writes them as one buffer: one TLS record and one system call for a burst.
//!
//! ```text
//! taking jobs ── drained, idle, lost count, too many unanswered ──▶ finishing its own ──▶ close_notify
//!      │   ╲─ silent ─▶ asked for a sign of life ─ silent ─▶ doubted: its jobs are asked on a fresh connection as well ─ heard ─▶ taking or finishing
//!      └────────────────────── closed or broken by the peer, or silent for long ────────▶ jobs given back
//! ```

#[cfg(test)]
mod tests;

use super::dial::{Dial, TcpDial};
use super::idle::Closer;
use super::lanes;
use super::mux::{Arrival, Mux};
use super::pool::{Connection, Connector, Job, Outlet, Taken};
use super::queue::SWEEP_INTERVAL;
use super::tls::{TlsClient, TlsSetupError};
use super::vigil::{Suspicion, Vigil};
use super::{Handshake, Received, Surroundings, Transport, TransportError};
use crate::clock::{self, far::Alarm};
use crate::config::settings::{Host, ServerSpec};
use crate::seldom::Seldom;
use crate::wire::frame::{self, Deframer};
use crate::wire::header::set_id;
use crate::wire::query::UpstreamQuery;
use bytes::{Buf, Bytes, BytesMut};
use std::future::{Future, poll_fn};
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

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
            Ok((stream, handshake)) => {
                Ok((StreamConnection { stream, streams: self.streams, pads: true }, handshake))
            }
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
    /// Queries of its own are padded, as on every encrypted transport (RFC 8467).
    pub(super) pads: bool,
}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> Connection for StreamConnection<S> {
    async fn run(self, outlet: Outlet) {
        let abandoned = Seldom::new(outlet.abandoned());
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
    /// Whether queries of its own are padded.
    pads: bool,
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
    timer: Alarm,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Driver<S> {
    /// Starts on a fresh stream.
    fn new(connection: StreamConnection<S>, outlet: Outlet) -> Self {
        let now = clock::now();
        let idle = outlet.idle_limit();
        let vigil = Vigil::new(outlet.pace());
        Self {
            stream: connection.stream,
            outlet,
            idle,
            mux: Mux::new(connection.streams, fastrand::u16(..)),
            pads: connection.pads,
            deframer: Deframer::default(),
            out: BytesMut::new(),
            unflushed: false,
            jobs: Vec::new(),
            taking: true,
            answered: false,
            active_at: now,
            vigil,
            is_dead: false,
            timer: Alarm::new(now + idle),
        }
    }

    /// Does all that can be done now. Reading comes first because it makes room.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let now = clock::now();
        if self.poll_read(cx, now).is_ready() || self.poll_send(cx, now).is_ready() {
            return Poll::Ready(End::Broken);
        }
        // Queries that timed out make room, and the pool takes us for full until it is asked again; and there may be a question.
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
            Arrival::Late | Arrival::Own => {}
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
                self.vigil.expect(now);
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

    /// Sweeps the table, or ends a connection that has been idle; true if there is something to be sent or taken. Moves the timer only when
    /// it would be late: with traffic that is at most twice in a sweep's time.
    fn poll_timer(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let before = self.mux.pending();
        loop {
            let due = self.due(now);
            self.timer.ring_by(due);
            if self.timer.poll(cx).is_pending() {
                return self.mux.pending() < before || !self.out.is_empty();
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
            self.timer.reset(next);
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
            Suspicion::Ask => self.ask(),
            Suspicion::Doubt => self.doubt(),
            Suspicion::Dead => self.is_dead = true,
        }
    }

    /// Asks for a sign of life: names may be slow, or the path dead. Not while the last one is still awaited; then any octet is
    /// one.
    fn ask(&mut self) {
        if !self.taking && self.mux.pending() == 0 {
            return;
        }
        let query = UpstreamQuery::sign_of_life(self.pads).build();
        let start = self.out.len();
        if let Some(id) = self.mux.insert_own(&query)
            && frame::append(&mut self.out, &query)
        {
            set_id(self.out.get_mut(start + 2..).unwrap_or_default(), id);
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
