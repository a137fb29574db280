//! One HTTP/2 connection to one server, as one task: it takes queries from the pool, sends all it took in one write,
//! completes them as answers come, and notices when it is over. One poll does all of that; there is no task, channel or
//! timer per query. What requests and responses say is not known here, nor is how the connection came about.
//!
//! ```text
//! Open ──GOAWAY, drain──▶ Finishing ──nothing in flight──▶ Closing ──GOAWAY, close_notify sent──▶ over
//!   └───────idle──────────────────────────────────────────────▲
//! any ──silent even to a PING──▶ doubted: its queries are asked on a fresh connection as well ──still silent──▶ over
//! any ──broken──▶ over
//! ```

use super::meter::{Meter, Metered};
use super::request::RequestTemplate;
use super::response::{InFlight, Outcome, Refusals};
use crate::clock::{self, far::Alarm};
use crate::seldom::Seldom;
use crate::transport::idle::Closer;
use crate::transport::pool::{self, Job, Outlet, Taken};
use crate::transport::vigil::{Suspicion, Vigil};
use crate::transport::{Received, TransportError};
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::stream::{FuturesUnordered, StreamExt};
use h2::client::{self, SendRequest};
use h2::{Ping, PingPong};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::mem;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite};

/// Streams we open on one connection at most, whatever the server allows.
const MAX_STREAMS: usize = 240;

/// How often deadlines are looked at while queries are in flight.
const SWEEP: Duration = Duration::from_millis(250);

/// How long GOAWAY and close_notify may take to be sent.
const CLOSING: Duration = Duration::from_secs(1);

/// Header fields of one response, decoded (RFC 9113 §6.5.2). Also bounds CONTINUATION frames.
const MAX_HEADER_LIST: u32 = 16 * 1024;

/// What the server may send on one stream before we have read it (RFC 9113 §6.9.2): all but one octet of the greatest
/// answer at once.
const STREAM_WINDOW: u32 = 65_535;

/// What the server may send on all streams together before we have read it.
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// Streams that we reset (their queries timed out) and whose late answers are still recognised and ignored: as many as
/// can time out at once. With fewer of them, late answers would look like a server's errors, which h2 counts.
const REMEMBERED_RESETS: usize = 256;

/// How long such a stream is remembered.
const REMEMBER_RESETS_FOR: Duration = Duration::from_secs(5);

/// An HTTP/2 connection that is ready for queries.
pub(crate) struct DohConnection<S> {
    /// Reads and writes frames.
    link: client::Connection<Metered<S>, Bytes>,
    /// Opens streams.
    requests: SendRequest<Bytes>,
    /// What requests have in common.
    template: Arc<RequestTemplate>,
    /// What the server has sent.
    meter: Arc<Meter>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> DohConnection<S> {
    /// Begins HTTP/2 over a stream whose TLS handshake is done. It does not wait for the server's SETTINGS, which would
    /// cost a round trip: until they come, at most 100 streams are opened.
    ///
    /// The limits that h2 has on its own against floods stay as they are (RUSTSEC-2023-0034, 2024-0003, 2024-0332).
    pub(super) async fn open(stream: S, template: Arc<RequestTemplate>) -> Result<Self, h2::Error> {
        let meter = Arc::new(Meter::default());
        let (requests, link) = client::Builder::new()
            .enable_push(false)
            .max_header_list_size(MAX_HEADER_LIST)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_concurrent_reset_streams(REMEMBERED_RESETS)
            .reset_stream_duration(REMEMBER_RESETS_FOR)
            .handshake(Metered::new(stream, Arc::clone(&meter)))
            .await?;
        Ok(Self { link, requests, template, meter })
    }
}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> pool::Connection for DohConnection<S> {
    async fn run(self, outlet: Outlet) {
        let abandoned = Seldom::new(outlet.abandoned());
        let mut driver = Driver::new(self, outlet);
        tokio::select! {
            biased;
            () = abandoned => driver.give_all_back(),
            () = poll_fn(|cx| driver.poll(cx)) => {}
        }
    }
}

/// A connection at work.
struct Driver<S> {
    /// Reads and writes frames.
    link: client::Connection<Metered<S>, Bytes>,
    /// Opens streams; dropped to say goodbye.
    requests: Option<SendRequest<Bytes>>,
    /// Asks whether the server is there.
    ping: Option<PingPong>,
    /// What requests have in common.
    template: Arc<RequestTemplate>,
    /// Where queries come from.
    outlet: Outlet,
    /// Space for what the outlet gives.
    taken: Vec<Job>,
    /// Taken, and to be sent when a stream is free.
    backlog: VecDeque<Waiting>,
    /// Sent.
    in_flight: FuturesUnordered<InFlight>,
    /// Whether queries are taken.
    stage: Stage,
    /// The pool was told last that there is no room.
    is_full: bool,
    /// Whether an answer has come.
    has_answered: bool,
    /// When a query was last sent or completed.
    last_used: Instant,
    /// How long it is kept without a query.
    idle: Duration,
    /// Whether the server is there.
    pulse: Pulse,
    /// Wakes the task for deadlines, silence, idleness.
    sweep: Alarm,
}

/// A query to be sent.
struct Waiting {
    /// The query.
    job: Job,
    /// How often it may be refused: once, because requests cross with the server's SETTINGS.
    refusals: Refusals,
}

/// Makes the failure of a query that the server does not take and no other connection can.
fn refused_stream() -> TransportError {
    TransportError::Http2 { reason: "the server refuses to take the query (REFUSED_STREAM)".to_owned() }
}

/// Where a connection is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Takes queries.
    Open,
    /// Takes none and finishes those in flight.
    Finishing,
    /// Has none and says goodbye.
    Closing,
}

/// Whether the server is there, by the octets that come from it.
struct Pulse {
    /// Counts them.
    meter: Arc<Meter>,
    /// The count when last looked at.
    seen: usize,
    /// Whether there are too few.
    vigil: Vigil,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Driver<S> {
    /// Starts work. Needs a runtime with timers.
    fn new(connection: DohConnection<S>, outlet: Outlet) -> Self {
        let DohConnection { mut link, requests, template, meter } = connection;
        let now = clock::now();
        let idle = outlet.idle_limit();
        let vigil = Vigil::new(outlet.pace());
        Self {
            idle,
            ping: link.ping_pong(),
            link,
            requests: Some(requests),
            template,
            outlet,
            taken: Vec::new(),
            backlog: VecDeque::new(),
            in_flight: FuturesUnordered::new(),
            stage: Stage::Open,
            is_full: false,
            has_answered: false,
            last_used: now,
            pulse: Pulse { seen: meter.total(), meter, vigil },
            sweep: Alarm::new(now + idle),
        }
    }

    /// Does all that can be done now; ready when the connection is over.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let now = clock::now();
            self.pulse.meter.start_turn();
            self.send_queries(cx, now);
            let is_over = self.link.poll_unpin(cx).is_ready();
            let mut is_changed = self.complete_answers(now, cx);
            self.listen(now);
            if is_over || self.is_given_up(cx, now, &mut is_changed) {
                self.retire();
                self.give_all_back();
                return Poll::Ready(());
            }
            // SETTINGS may have made room, and GOAWAY ended it for good: the pool must know before this task sleeps.
            let room = self.room(cx);
            is_changed |= self.is_full && room > 0;
            match self.stage {
                Stage::Finishing if self.in_flight.is_empty() => self.close(now),
                Stage::Open if is_changed => {}
                Stage::Finishing if is_changed => {}
                Stage::Open | Stage::Finishing | Stage::Closing => return Poll::Pending,
            }
        }
    }

    /// Takes as many queries as there is room for and hands them to HTTP/2, which writes them when polled.
    fn send_queries(&mut self, cx: &mut Context<'_>, now: Instant) {
        self.send_backlog(cx, now);
        while self.stage == Stage::Open && !self.pulse.vigil.is_doubted() {
            let room = self.room(cx);
            self.is_full = room == 0;
            match self.outlet.poll_take(cx, room, &mut self.taken, now) {
                Poll::Pending => return,
                Poll::Ready(Taken::Drain) => self.stage = Stage::Finishing,
                Poll::Ready(Taken::Jobs) => {
                    let taken = self.taken.drain(..).map(|job| Waiting { job, refusals: Refusals::One });
                    self.backlog.extend(taken);
                    self.send_backlog(cx, now);
                }
            }
        }
    }

    /// Returns how many queries may be taken now; none while a server that fell silent has not shown that it is there.
    fn room(&mut self, cx: &mut Context<'_>) -> usize {
        let free = self.free_streams(cx).saturating_sub(self.backlog.len());
        if self.pulse.vigil.is_suspect() { 0 } else { free }
    }

    /// Returns how many streams may be opened now: HTTP/2 would queue more without a bound. An error means never again:
    /// GOAWAY, or no stream ID is left.
    fn free_streams(&mut self, cx: &mut Context<'_>) -> usize {
        let Some(requests) = &mut self.requests else { return 0 };
        match requests.poll_ready(cx) {
            Poll::Ready(Ok(())) => {
                requests.current_max_send_streams().min(MAX_STREAMS).saturating_sub(self.in_flight.len())
            }
            Poll::Ready(Err(_)) => {
                self.retire();
                0
            }
            Poll::Pending => 0,
        }
    }

    /// Sends what was taken, in order.
    fn send_backlog(&mut self, cx: &mut Context<'_>, now: Instant) {
        while !self.backlog.is_empty() && self.free_streams(cx) > 0 {
            if let Some(waiting) = self.backlog.pop_front() {
                self.send(waiting, now);
            }
        }
        if self.stage != Stage::Open {
            self.give_backlog_back();
        }
    }

    /// Opens a stream for a query.
    fn send(&mut self, waiting: Waiting, now: Instant) {
        let Waiting { mut job, refusals } = waiting;
        job.sent_at = Some(now);
        let Some(requests) = &mut self.requests else { return self.outlet.give_back(job) };
        let (head, body) = match self.template.request(&job.query) {
            Ok(request) => request,
            Err(error) => return job.ticket.complete(Err(error)),
        };
        let sent = requests.send_request(head, body.is_none()).and_then(|(response, mut stream)| {
            body.map_or(Ok(()), |body| stream.send_data(body, true)).map(|()| response)
        });
        match sent {
            Ok(response) => self.in_flight.push(InFlight::new(job, response, refusals)),
            Err(_) => {
                self.outlet.give_back(job);
                self.retire();
            }
        }
        self.last_used = now;
        self.pulse.vigil.expect(now);
        self.wake_by(self.next_look(now));
    }

    /// Returns when deadlines and silence are to be looked at while queries are in flight.
    fn next_look(&self, now: Instant) -> Instant {
        let sweep = now + SWEEP;
        self.pulse.vigil.look_at().map_or(sweep, |at| at.min(sweep))
    }

    /// Takes note of what has come: any octet is a sign of life.
    fn listen(&mut self, now: Instant) {
        if !self.pulse.has_news() {
            return;
        }
        let was_doubted = self.pulse.vigil.heard(self.in_flight.len(), now);
        if was_doubted && self.stage == Stage::Open && !self.outlet.trust() {
            self.stage = Stage::Finishing;
        }
    }

    /// Makes sure that the task runs at `at`.
    fn wake_by(&mut self, at: Instant) {
        self.sweep.ring_by(at);
    }

    /// Completes what can be completed; true if there was something.
    fn complete_answers(&mut self, now: Instant, cx: &mut Context<'_>) -> bool {
        let mut is_changed = false;
        while let Poll::Ready(Some((job, outcome))) = self.in_flight.poll_next_unpin(cx) {
            is_changed = true;
            self.last_used = now;
            match outcome {
                Outcome::Answered(received) => {
                    self.pulse.vigil.answered(job.latency(now));
                    self.note_answer();
                    job.ticket.complete(Ok(Received { sent_at: job.sent_at, ..received }));
                }
                Outcome::Failed(error) => job.ticket.complete(Err(error)),
                Outcome::Refused => self.backlog.push_back(Waiting { job, refusals: Refusals::None }),
                Outcome::RefusedAgain => self.outlet.give_elsewhere(job, refused_stream),
                Outcome::Unprocessed => self.outlet.give_back(job),
            }
        }
        is_changed
    }

    /// Remembers that this connection is of use.
    fn note_answer(&mut self) {
        self.pulse.meter.answered();
        if !mem::replace(&mut self.has_answered, true) {
            self.outlet.answered();
        }
    }

    /// Looks after deadlines, silence and idleness when it is time; true if the connection is to be given up.
    fn is_given_up(&mut self, cx: &mut Context<'_>, now: Instant, is_changed: &mut bool) -> bool {
        while self.sweep.poll(cx).is_ready() {
            *is_changed = true;
            if self.stage == Stage::Closing {
                return true;
            }
            self.expire(now);
            match self.pulse.vigil.check(now) {
                Suspicion::Calm => {}
                Suspicion::Ask => self.send_ping(cx),
                Suspicion::Doubt => self.doubt(),
                Suspicion::Dead => return true,
            }
            self.plan_sweep(now);
        }
        false
    }

    /// Sets when the next look is due, and closes a connection that nobody uses.
    fn plan_sweep(&mut self, now: Instant) {
        let idle_at = self.last_used + self.idle;
        let is_used = !self.in_flight.is_empty() || !self.backlog.is_empty() || self.pulse.vigil.is_silent();
        if is_used {
            let at = self.next_look(now);
            self.sweep.reset(at);
        } else if now < idle_at {
            self.sweep.reset(idle_at);
        } else {
            if self.stage == Stage::Open {
                self.outlet.ended_quietly(Closer::Us, self.idle);
                self.stage = Stage::Finishing;
                self.outlet.retire();
            }
            self.close(now);
        }
    }

    /// Completes queries that are past their deadline. Their streams are reset; the connection goes on.
    fn expire(&mut self, now: Instant) {
        if self.in_flight.iter().any(|query| query.is_late(now)) {
            for query in mem::take(&mut self.in_flight) {
                match query.is_late(now) {
                    true => query.give_up(),
                    false => self.in_flight.push(query),
                }
            }
        }
        for waiting in mem::take(&mut self.backlog) {
            match waiting.job.deadline <= now {
                true => waiting.job.ticket.complete(Err(TransportError::Timeout)),
                false => self.backlog.push_back(waiting),
            }
        }
    }

    /// Asks the server for a sign of life. If an earlier PING is still without its PONG no other can be sent, and need
    /// not: any octet is a sign of life.
    fn send_ping(&mut self, cx: &mut Context<'_>) {
        let Some(ping) = &mut self.ping else { return };
        let _ = ping.poll_pong(cx);
        let _ = ping.send_ping(Ping::opaque());
    }

    /// Has the waiting queries asked again on a fresh connection, and waits for them here as well.
    fn doubt(&mut self) {
        self.give_backlog_back();
        let waiting = self.in_flight.iter_mut().filter_map(InFlight::job_mut);
        self.outlet.doubt(waiting, self.pulse.vigil.pace());
    }

    /// Takes no more queries; the pool may open another connection.
    fn retire(&mut self) {
        if self.stage == Stage::Open {
            self.outlet.learnt(self.pulse.vigil.pace());
            if self.in_flight.is_empty() && self.backlog.is_empty() && !self.pulse.vigil.is_silent() {
                let quiet = clock::now().saturating_duration_since(self.last_used);
                self.outlet.ended_quietly(Closer::Server, quiet);
            }
            self.stage = Stage::Finishing;
            self.outlet.retire();
        }
    }

    /// Says goodbye: HTTP/2 sends GOAWAY and closes the stream once nobody can send requests.
    fn close(&mut self, now: Instant) {
        self.retire();
        self.stage = Stage::Closing;
        self.requests = None;
        self.sweep.reset(now + CLOSING);
    }

    /// Returns what was not answered to the pool.
    fn give_all_back(&mut self) {
        for job in mem::take(&mut self.in_flight).into_iter().filter_map(InFlight::into_job) {
            self.outlet.give_back(job);
        }
        self.give_backlog_back();
    }

    /// Returns what was not sent to the pool.
    fn give_backlog_back(&mut self) {
        for waiting in self.backlog.drain(..) {
            self.outlet.give_back(waiting.job);
        }
    }
}

impl Pulse {
    /// Tells whether something came since the last look.
    fn has_news(&mut self) -> bool {
        let total = self.meter.total();
        mem::replace(&mut self.seen, total) != total
    }
}
