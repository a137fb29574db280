//! One TCP client ([RFC 7766](https://www.rfc-editor.org/rfc/rfc7766)): queries are taken as they come, up to a
//! bound at once; replies leave in the order they are ready (§7). One task reads and writes; replies of flights come in through [`Outbox`].
//!
//! ```text
//! reading ──client shut its side, nonsense, stop──▶ finishing ──nothing owed, all written──▶ closed
//!    └──────── a deadline passed, evicted, the client does not read, error ────────────────────▲
//! ```

use super::connections::Membership;
use super::outbox::{Load, Outbox};
use crate::clock;
use crate::listener::Answer;
use crate::listener::intake::{Intake, Round, Taken};
use crate::resolver::waiter::{ClientToken, ReplySink, Waiter};
use crate::telemetry::bounds::Bound;
use crate::wire::MAX_MESSAGE;
use crate::wire::frame::Deframer;
use crate::wire::query::ClientTransport;
use bytes::BytesMut;
use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio_util::sync::CancellationToken;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// Of what a client may leave unread: with so much of it no more queries are taken, and TCP pushes back. The rest is for
/// replies of flights, which are added without being asked for.
const HIGH_WATER_SHARE: usize = 4;

/// How long a client that has just connected may take to ask before a stop ends its connection: it was accepted, and
/// so its first query is on its way.
const FRESH: Duration = Duration::from_millis(500);

/// How long an answer that is owed may take. Flights have a deadline of their own, well below: this one is
/// for a reply that got lost on the way.
const REPLY_WAIT: Duration = Duration::from_secs(60);

thread_local! {
    /// Where replies from memory are rendered before they are framed, one buffer a worker: most replies are
    /// short, but all of this must be offered.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; MAX_MESSAGE].into_boxed_slice());
}

/// One client's connection.
#[derive(Debug)]
pub(super) struct Connection<A: Answer> {
    /// What happens to a query.
    intake: Arc<Intake<A>>,
    /// The client.
    client: ClientToken,
    /// Its place among all connections.
    membership: Membership,
    /// Where flights put replies.
    outbox: Arc<Outbox>,
    /// What was read and not yet taken.
    deframer: Deframer,
    /// What is being written.
    writing: BytesMut,
    /// Misses of the current round; empty between two.
    misses: Vec<(A::Pending, Waiter)>,
    /// None once no more queries are read; stopping waits for that.
    reading: Option<TaskTrackerToken>,
    /// A query was taken.
    asked: bool,
    /// No more queries are taken until some are answered.
    full: bool,
    /// True while nothing is asked, owed or half read: the table of connections knows.
    idle: bool,
    /// Deadlines count from these.
    since: Since,
}

/// When what the connection waits for began.
#[derive(Clone, Copy, Debug)]
struct Since {
    /// The connection was admitted.
    admitted: Instant,
    /// The last time anything came or went.
    activity: Instant,
    /// The first octet of a message whose rest is awaited.
    message: Option<Instant>,
    /// The first try to write what is being written.
    write: Option<Instant>,
}

/// What a wait ended with.
#[derive(Debug)]
enum Event {
    /// So many octets came; 0: the client shut its side.
    Read(usize),
    /// So many octets went.
    Written(usize),
    /// A flight added replies.
    Replies,
    /// The gateway stops: no more queries.
    Stop,
    /// The time that was waited for has come.
    Due,
    /// The end, whatever is owed: an eviction, a broken connection.
    Close,
}

/// What a connection's timer rings for.
#[derive(Clone, Copy, Debug)]
enum Due {
    /// It is no longer fresh; nothing is to be done.
    Settled,
    /// It has been quiet for too long, or takes nothing off.
    Idle,
    /// The rest of a message did not come.
    Message,
    /// A reply did not come.
    Reply,
}

impl Due {
    /// Returns the bound that is reached then.
    fn bound(self) -> Option<Bound> {
        match self {
            Self::Idle => Some(Bound::TcpIdle),
            Self::Message => Some(Bound::TcpRead),
            Self::Settled | Self::Reply => None,
        }
    }
}

impl<A: Answer> Connection<A> {
    /// Makes the connection of a client that was admitted. `local` is our end of it; `reading` is given back when no more queries are read.
    pub(super) fn new(
        intake: Arc<Intake<A>>,
        client: ClientToken,
        local: Option<SocketAddr>,
        membership: Membership,
        reading: TaskTrackerToken,
    ) -> Self {
        let limit = intake.context.limits.tcp_unread;
        let outbox = Outbox::new(Arc::clone(&membership.connections), limit, local);
        let now = clock::now();
        Self {
            intake,
            client,
            membership,
            outbox,
            deframer: Deframer::default(),
            writing: BytesMut::new(),
            misses: Vec::new(),
            reading: Some(reading),
            asked: false,
            full: false,
            idle: false,
            since: Since { admitted: now, activity: now, message: None, write: None },
        }
    }

    /// Serves the client until it leaves, misbehaves, or has got everything after `stop`.
    pub(super) async fn run(mut self, mut stream: TcpStream, stop: CancellationToken) {
        // Replies are written whole: waiting for more would only delay them.
        let _ = stream.set_nodelay(true);
        let (mut reader, mut writer) = stream.split();
        let mut timer = pin!(tokio::time::sleep(Duration::ZERO));
        let evicted = self.membership.evicted.clone();
        let (mut evicted, mut stopped) = (pin!(evicted.cancelled()), pin!(stop.cancelled()));
        loop {
            let load = self.progress();
            if load.overrun || (self.reading.is_none() && load.owed == 0 && load.unread == 0) {
                break;
            }
            let may_read = self.reading.is_some() && self.has_room(load);
            let may_stop = may_read && !self.is_fresh();
            let (deadline, due) = self.deadline(load, may_read);
            if timer.deadline() != deadline.into() {
                timer.as_mut().reset(deadline.into());
            }
            let event = tokio::select! {
                biased;
                event = write(&mut writer, &mut self.writing) => event,
                () = self.outbox.added.notified() => Event::Replies,
                event = read(&mut reader, &mut self.deframer), if may_read => event,
                () = &mut stopped, if may_stop => Event::Stop,
                () = &mut evicted => Event::Close,
                () = &mut timer => Event::Due,
            };
            match event {
                Event::Read(octets) => self.received(octets),
                Event::Written(octets) => {
                    self.outbox.written(octets);
                    self.since.activity = clock::now();
                }
                Event::Replies => {}
                Event::Due if matches!(due, Due::Settled) => {}
                Event::Stop => {
                    // The runtime looks for what the kernel has received before it comes back here.
                    tokio::task::yield_now().await;
                    self.take_the_last(&reader);
                }
                Event::Due => {
                    due.bound().into_iter().for_each(|bound| self.membership.connections.reached(bound));
                    break;
                }
                Event::Close => break,
            }
        }
        // Replies that cannot be written any more are lost; the client asks again on another connection.
        let _ = writer.shutdown().await;
    }

    /// Takes whole messages while there is room, moves replies to what is being written, and notes whether the
    /// connection is idle.
    fn progress(&mut self) -> Load {
        self.take_messages();
        if self.writing.is_empty() && self.outbox.take(&mut self.writing) {
            self.since.write = Some(clock::now());
        }
        let load = self.outbox.load();
        if self.writing.is_empty() {
            self.since.write = None;
        }
        self.note_full(load);
        let idle = load.owed == 0 && load.unread == 0 && !self.deframer.is_partial();
        if self.idle != idle {
            self.idle = idle;
            self.membership.set_idle(idle.then_some(self.since.activity));
        }
        load
    }

    /// Answers what can be answered from memory and hands the rest over together.
    fn take_messages(&mut self) {
        let now = clock::now();
        let intake = Arc::clone(&self.intake);
        let round = intake.round(ClientTransport::Tcp, self.outbox.local(), now);
        while self.has_room(self.outbox.load()) {
            let Some(message) = self.deframer.next_message() else { break };
            self.asked = true;
            self.since.message = self.deframer.is_partial().then_some(now);
            match SCRATCH.with_borrow_mut(|scratch| self.take(&round, &message, scratch)) {
                Taken::Reply(_) | Taken::Silence => {}
                Taken::Nonsense => {
                    // Who sends this speaks something else; its framing can no longer be trusted.
                    self.reading = None;
                    self.deframer = Deframer::default();
                }
                Taken::Miss(pending) => {
                    let waiter = self.waiter(&message, now);
                    self.misses.push((pending, waiter));
                    self.outbox.owe();
                }
            }
        }
        if !self.misses.is_empty() {
            intake.context.resolver.enqueue(&mut self.misses);
            self.misses.clear();
        }
    }

    /// Takes one message; a reply from memory goes to the outbox at once.
    fn take(&self, round: &Round<'_, A>, message: &[u8], scratch: &mut [u8]) -> Taken<A::Pending> {
        let taken = round.take(message, &self.client, scratch);
        if let Taken::Reply(octets) = taken {
            self.outbox.push(scratch.get(..octets).unwrap_or_default());
        }
        taken
    }

    /// Tells whether another query may be taken (RFC 7766 §6.2.1.1 leaves the bound to us).
    fn has_room(&self, load: Load) -> bool {
        let limits = &self.intake.context.limits;
        load.owed < limits.tcp_pipelined && load.unread < limits.tcp_unread / HIGH_WATER_SHARE
    }

    /// Tells whether the client has just come and not asked yet.
    fn is_fresh(&self) -> bool {
        !self.asked && clock::now() < self.since.admitted + FRESH
    }

    /// Counts it when the client has as many queries under way as it may.
    fn note_full(&mut self, load: Load) {
        let full = load.owed >= self.intake.context.limits.tcp_pipelined;
        if full && !self.full {
            self.membership.connections.reached(Bound::TcpPipelined);
        }
        self.full = full;
    }

    /// Makes the record by which a flight finds this client again.
    fn waiter(&self, query: &[u8], received: Instant) -> Waiter {
        let sink = Arc::clone(&self.outbox);
        Waiter { sink, client: self.client, transport: ClientTransport::Tcp, query: query.into(), received }
    }

    /// Notes that octets came, or that no more will come: a client that shuts its side still gets its answers.
    fn received(&mut self, octets: usize) {
        let now = clock::now();
        self.since.activity = now;
        self.since.message.get_or_insert(now);
        if octets == 0 {
            self.reading = None;
        }
    }

    /// Takes what the kernel has received by now, and nothing after it: what was accepted is answered. When there is no
    /// room for all of it reading goes on, and this is done again.
    fn take_the_last(&mut self, reader: &ReadHalf<'_>) {
        while self.has_room(self.outbox.load()) {
            match reader.try_read_buf(self.deframer.buffer()) {
                Ok(1..) => self.take_messages(),
                Ok(0) | Err(_) => {
                    self.reading = None;
                    return;
                }
            }
        }
    }

    /// Returns when to look again, and what for.
    fn deadline(&mut self, load: Load, may_read: bool) -> (Instant, Due) {
        let limits = &self.intake.context.limits;
        if !may_read {
            // Nothing is read by our own choice: the client cannot be late with the rest.
            self.since.message = None;
        } else if self.deframer.is_partial() {
            self.since.message.get_or_insert_with(clock::now);
        }
        let quiet = if load.owed > 0 {
            (self.since.activity + REPLY_WAIT, Due::Reply)
        } else {
            (self.since.activity + limits.tcp_idle, Due::Idle)
        };
        // A client that takes nothing off for so long is as good as idle.
        let write = self.since.write.map(|since| (since + limits.tcp_idle, Due::Idle));
        let message = self.since.message.map(|since| (since + limits.tcp_read, Due::Message));
        let fresh = self.is_fresh().then(|| (self.since.admitted + FRESH, Due::Settled));
        let others = [write, message, fresh].into_iter().flatten();
        others.fold(quiet, |first, other| if other.0 < first.0 { other } else { first })
    }
}

impl<A: Answer> Drop for Connection<A> {
    fn drop(&mut self) {
        self.outbox.close();
    }
}

/// Writes what there is; waits for ever when there is nothing.
///
/// Cancel safe: what was written has been taken from `octets`.
async fn write(writer: &mut WriteHalf<'_>, octets: &mut BytesMut) -> Event {
    if octets.is_empty() {
        return std::future::pending().await;
    }
    match writer.write_buf(octets).await {
        Ok(octets @ 1..) => Event::Written(octets),
        Ok(0) | Err(_) => Event::Close,
    }
}

/// Reads some octets.
///
/// Cancel safe: what was read is in `deframer`.
async fn read(reader: &mut ReadHalf<'_>, deframer: &mut Deframer) -> Event {
    match reader.read_buf(deframer.buffer()).await {
        Ok(octets) => Event::Read(octets),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Event::Replies,
        Err(_) => Event::Close,
    }
}
