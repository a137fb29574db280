//! DNS over TLS (RFC 7858), and the stream connection that DNS over TCP shares with it: framed messages, many in flight,
//! answers in any order (RFC 7766 §6.2.1.1). It knows neither which stream it runs on nor who asks.
//!
//! One task runs a connection. Each time it wakes it reads what has come and completes all of it, takes every waiting
//! query it has room for, and writes them as one buffer: one TLS record and one system call for a burst.
//!
//! ```text
//! taking jobs ── drained, idle, lost count, too many unanswered, silent ──▶ finishing its own ──▶ close_notify
//!      └────────────────────────── closed or broken by the peer ──────────────────────▶ jobs given back
//! ```

use super::dial::{Dial, TcpDial};
use super::mux::{Arrival, Mux};
use super::pool::{Connection, Connector, Job, Outlet, Pool, SWEEP_INTERVAL, Taken};
use super::tls::{TlsClient, TlsSetupError};
use super::{Handshake, Received, Surroundings, Transport, TransportError};
use crate::clock;
use crate::config::settings::{Host, ServerSpec};
use crate::wire::frame::{self, Deframer};
use crate::wire::header::set_id;
use bytes::{Buf, BytesMut};
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::Sleep;

/// How long a connection without queries is kept (RFC 7766 §6.2.3 asks for "a few seconds").
const IDLE: Duration = Duration::from_secs(10);
/// How long a connection may be silent after a query before it is doubted: a peer behind a dead path often goes on
/// looking alive to TCP. New queries then get a fresh connection, while this one still waits for its own.
const SILENCE: Duration = Duration::from_secs(1);
/// How long the farewell may take.
const CLOSE: Duration = Duration::from_secs(1);
/// Room made for reading: a burst of answers, and the longest TLS record.
const READ_SIZE: usize = 16 * 1024;
/// Least room for a read: a padded answer (RFC 8467 §4.1) or two.
const LEAST_READ: usize = 1024;

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
    Ok(Box::new(Pool::new(DotConnector { dial, tls, streams: around.limits.dot_streams }, around)))
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
        let (stream, handshake) = self.tls.handshake(dialled, deadline).await?;
        Ok((StreamConnection { stream, streams: self.streams }, handshake))
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
        let mut driver = Driver::new(self, outlet);
        match poll_fn(|cx| driver.poll(cx)).await {
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
    /// When a query was last sent or an octet received.
    active_at: Instant,
    /// Since when a query has been out and nothing was heard.
    unheard_since: Option<Instant>,
    /// The one timer: sweeps while something is pending, else ends the idle connection. Re-armed lazily.
    timer: Pin<Box<Sleep>>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Driver<S> {
    /// Starts on a fresh stream.
    fn new(connection: StreamConnection<S>, outlet: Outlet) -> Self {
        let now = clock::now();
        Self {
            stream: connection.stream,
            outlet,
            mux: Mux::new(connection.streams, fastrand::u16(..)),
            deframer: Deframer::default(),
            out: BytesMut::new(),
            unflushed: false,
            jobs: Vec::new(),
            taking: true,
            answered: false,
            active_at: now,
            unheard_since: None,
            timer: Box::pin(tokio::time::sleep_until((now + IDLE).into())),
        }
    }

    /// Does all that can be done now. Reading comes first because it makes room.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let now = clock::now();
        if self.poll_read(cx, now).is_ready() || self.poll_send(cx, now).is_ready() {
            return Poll::Ready(End::Broken);
        }
        self.poll_timer(cx, now);
        let finished = !self.taking && self.mux.pending() == 0;
        if finished { Poll::Ready(End::Finished) } else { Poll::Pending }
    }

    /// Reads and completes until there is no more; ready when the stream has ended.
    fn poll_read(&mut self, cx: &mut Context<'_>, now: Instant) -> Poll<()> {
        loop {
            let buffer = self.deframer.buffer();
            // Answers that were handed up still share the allocation, so it is renewed only when it is nearly used up.
            if buffer.capacity() - buffer.len() < LEAST_READ {
                buffer.reserve(READ_SIZE);
            }
            let read = pin!(self.stream.read_buf(buffer));
            match ready!(read.poll(cx)) {
                Ok(0) | Err(_) => return Poll::Ready(()),
                Ok(_) => {}
            }
            self.active_at = now;
            self.unheard_since = None;
            while let Some(message) = self.deframer.next_message() {
                match self.mux.arrive(&message) {
                    Arrival::Answer(job) => self.answer(job, message),
                    Arrival::Mismatch(job, fault) => {
                        job.ticket.complete(Err(TransportError::Mismatch(fault)));
                        self.retire();
                    }
                    Arrival::Late => {}
                    // It must not fail the queries in flight, but a peer that has lost count gets no new ones.
                    Arrival::Stray => self.retire(),
                }
            }
        }
    }

    /// Completes a query.
    fn answer(&mut self, job: Job, message: bytes::Bytes) {
        if !self.answered {
            self.answered = true;
            self.outlet.answered();
        }
        job.ticket.complete(Ok(Received { message, age_secs: 0 }));
    }

    /// Takes waiting jobs and writes them until there are no more or the stream takes no more; ready when it is broken.
    fn poll_send(&mut self, cx: &mut Context<'_>, now: Instant) -> Poll<()> {
        loop {
            let written = self.poll_write(cx);
            if matches!(written, Poll::Ready(Err(_))) {
                return Poll::Ready(());
            }
            if !self.taking {
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
        self.unheard_since.get_or_insert(now);
        let mut jobs = std::mem::take(&mut self.jobs);
        for job in jobs.drain(..) {
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

    /// Sweeps the table, or ends a connection that has been idle. Moves the timer only when it would be late: with
    /// traffic that is at most twice in a sweep's time.
    fn poll_timer(&mut self, cx: &mut Context<'_>, now: Instant) {
        loop {
            let pending = self.mux.pending() > 0;
            let due = if pending { now + SWEEP_INTERVAL } else { self.active_at + IDLE };
            if due < self.timer.deadline().into_std() {
                self.timer.as_mut().reset(due.into());
            }
            if self.timer.as_mut().poll(cx).is_pending() {
                return;
            }
            if pending {
                self.sweep(now);
            } else if now >= due {
                return self.retire();
            }
            self.timer.as_mut().reset(due.into());
        }
    }

    /// Lets queries time out, and doubts a peer that leaves too many unanswered or has fallen silent.
    fn sweep(&mut self, now: Instant) {
        for job in self.mux.expire(now) {
            job.ticket.complete(Err(TransportError::Timeout));
        }
        let silent = self.unheard_since.is_some_and(|since| now.saturating_duration_since(since) >= SILENCE);
        if silent || self.mux.is_exhausted() {
            self.retire();
        }
    }

    /// Takes no more jobs; those in flight are waited for.
    fn retire(&mut self) {
        if self.taking {
            self.taking = false;
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
        for job in self.mux.into_pending() {
            self.outlet.give_back(job);
        }
    }
}
