//! One TCP client ([RFC 7766](https://www.rfc-editor.org/rfc/rfc7766)): queries are taken as they come, up to a
//! bound at once; replies leave in the order they are ready (§7). One task reads and writes; replies of flights come in through [`Outbox`].
//!
//! ```text
//! reading ──client shut its side, nonsense, stop──▶ finishing ──nothing owed, all written──▶ closed
//!    └──────── a deadline passed, evicted, the client does not read, error ────────────────────▲
//! ```

use super::connections::Membership;
use crate::clock;
use crate::listener::Answer;
use crate::listener::intake::{Intake, Round, Taken};
use crate::resolver::waiter::{ClientToken, ReplyBatch, ReplySink, Waiter};
use crate::wire::MAX_MESSAGE;
use crate::wire::frame::{self, Deframer};
use crate::wire::query::ClientTransport;
use bytes::BytesMut;
use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// With so much waiting to be written no more queries are taken: TCP pushes back.
const WRITE_HIGH_WATER: usize = 64 * 1024;

/// With so much waiting to be written the client is taken not to read, and is closed: replies of flights
/// are added without being asked for.
const WRITE_LIMIT: usize = 1024 * 1024;

/// How long an answer that is owed may take. Flights have a deadline of their own, well below: this one is
/// for a reply that got lost on the way.
const REPLY_WAIT: Duration = Duration::from_secs(60);

thread_local! {
    /// Where replies from memory are rendered before they are framed, one buffer a worker: most replies are
    /// short, but all of this must be offered.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; MAX_MESSAGE].into_boxed_slice());
}

/// Replies on their way to one client. The connection's task writes what is in it.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    /// See [`Contents`].
    contents: Mutex<Contents>,
    /// Told when something was added.
    added: Notify,
}

/// What the lock of an outbox guards.
#[derive(Debug, Default)]
struct Contents {
    /// Framed replies.
    octets: BytesMut,
    /// Replies that flights still owe.
    owed: usize,
    /// More came than the client may leave unread.
    overrun: bool,
}

impl Outbox {
    /// Locks the contents. A panic elsewhere cannot leave them half changed in a way that matters.
    fn lock(&self) -> MutexGuard<'_, Contents> {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ReplySink for Outbox {
    fn send(&self, batch: &ReplyBatch) {
        let mut contents = self.lock();
        for (_, reply) in batch.iter() {
            contents.owed = contents.owed.saturating_sub(1);
            if contents.octets.len().saturating_add(reply.len()) > WRITE_LIMIT {
                contents.overrun = true;
            } else {
                frame::append(&mut contents.octets, reply);
            }
        }
        drop(contents);
        self.added.notify_one();
    }
}

/// What of [`Contents`] decides how the connection goes on.
#[derive(Clone, Copy, Debug)]
struct Load {
    /// Replies that flights still owe.
    owed: usize,
    /// Octets not yet written.
    unwritten: usize,
    /// The client does not read.
    overrun: bool,
}

/// One client's connection.
#[derive(Debug)]
pub(super) struct Connection<A: Answer> {
    /// What happens to a query.
    intake: Arc<Intake<A>>,
    /// The client's address.
    peer: SocketAddr,
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
    /// False once no more queries are read.
    reading: bool,
    /// True while nothing is asked, owed or half read: the table of connections knows.
    idle: bool,
    /// Deadlines count from these.
    since: Since,
}

/// When what the connection waits for began.
#[derive(Clone, Copy, Debug)]
struct Since {
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
    /// Some octets went.
    Written,
    /// A flight added replies.
    Replies,
    /// The gateway stops: no more queries.
    Stop,
    /// The end, whatever is owed: a deadline, an eviction, a broken connection.
    Close,
}

impl<A: Answer> Connection<A> {
    /// Makes the connection of a client that was admitted.
    pub(super) fn new(intake: Arc<Intake<A>>, peer: SocketAddr, membership: Membership) -> Self {
        Self {
            intake,
            peer,
            membership,
            outbox: Arc::default(),
            deframer: Deframer::default(),
            writing: BytesMut::new(),
            misses: Vec::new(),
            reading: true,
            idle: false,
            since: Since { activity: clock::now(), message: None, write: None },
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
            if load.overrun || (!self.reading && load.owed == 0 && load.unwritten == 0) {
                break;
            }
            let may_read = self.reading && self.has_room(load);
            let deadline = self.deadline(load, may_read).into();
            if timer.deadline() != deadline {
                timer.as_mut().reset(deadline);
            }
            let event = tokio::select! {
                biased;
                event = write(&mut writer, &mut self.writing) => event,
                () = self.outbox.added.notified() => Event::Replies,
                event = read(&mut reader, &mut self.deframer), if may_read => event,
                () = &mut stopped, if self.reading => Event::Stop,
                () = &mut evicted => Event::Close,
                () = &mut timer => Event::Close,
            };
            match event {
                Event::Read(octets) => self.received(octets),
                Event::Written => self.since.activity = clock::now(),
                Event::Replies => {}
                Event::Stop => {
                    // The runtime looks for what the kernel has received before it comes back here.
                    tokio::task::yield_now().await;
                    self.take_the_last(&reader);
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
        let load = {
            let mut contents = self.outbox.lock();
            if self.writing.is_empty() && !contents.octets.is_empty() {
                std::mem::swap(&mut self.writing, &mut contents.octets);
                self.since.write = Some(clock::now());
            }
            self.load_of(&contents)
        };
        if self.writing.is_empty() {
            self.since.write = None;
        }
        let idle = load.owed == 0 && load.unwritten == 0 && !self.deframer.is_partial();
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
        let round = intake.round(ClientTransport::Tcp, now);
        let mut load = self.load();
        while self.has_room(load) {
            let Some(message) = self.deframer.next_message() else { break };
            self.since.message = self.deframer.is_partial().then_some(now);
            match SCRATCH.with_borrow_mut(|scratch| self.take(&round, &message, scratch)) {
                Taken::Reply(_) | Taken::Silence => {}
                Taken::Nonsense => {
                    // Who sends this speaks something else; its framing can no longer be trusted.
                    self.reading = false;
                    self.deframer = Deframer::default();
                }
                Taken::Miss(pending) => {
                    let waiter = self.waiter(&message, now);
                    self.misses.push((pending, waiter));
                    self.outbox.lock().owed += 1;
                }
            }
            load = self.load();
        }
        if !self.misses.is_empty() {
            intake.context.resolver.enqueue(&mut self.misses);
            self.misses.clear();
        }
    }

    /// Takes one message; a reply from memory goes to the outbox at once.
    fn take(&self, round: &Round<'_, A>, message: &[u8], scratch: &mut [u8]) -> Taken<A::Pending> {
        let taken = round.take(message, self.peer.ip(), scratch);
        if let Taken::Reply(octets) = taken {
            frame::append(&mut self.outbox.lock().octets, scratch.get(..octets).unwrap_or_default());
        }
        taken
    }

    /// Reads off how much is owed and unwritten.
    fn load(&self) -> Load {
        self.load_of(&self.outbox.lock())
    }

    /// As `load`, with the lock held.
    fn load_of(&self, contents: &Contents) -> Load {
        let unwritten = self.writing.len() + contents.octets.len();
        Load { owed: contents.owed, unwritten, overrun: contents.overrun }
    }

    /// Tells whether another query may be taken (RFC 7766 §6.2.1.1 leaves the bound to us).
    fn has_room(&self, load: Load) -> bool {
        load.owed < self.intake.context.limits.tcp_pipelined && load.unwritten < WRITE_HIGH_WATER
    }

    /// Makes the record by which a flight finds this client again.
    fn waiter(&self, query: &[u8], received: Instant) -> Waiter {
        let sink = Arc::clone(&self.outbox);
        Waiter {
            sink,
            client: ClientToken { peer: self.peer, local: None, interface: 0 },
            transport: ClientTransport::Tcp,
            query: query.into(),
            received,
        }
    }

    /// Notes that octets came, or that no more will come: a client that shuts its side still gets its answers.
    fn received(&mut self, octets: usize) {
        let now = clock::now();
        self.since.activity = now;
        self.since.message.get_or_insert(now);
        self.reading &= octets > 0;
    }

    /// Takes what the kernel has received by now, and nothing after it: what was accepted is answered.
    fn take_the_last(&mut self, reader: &ReadHalf<'_>) {
        while self.has_room(self.load()) {
            match reader.try_read_buf(self.deframer.buffer()) {
                Ok(1..) => self.take_messages(),
                Ok(0) | Err(_) => break,
            }
        }
        self.reading = false;
    }

    /// Returns when to give up.
    fn deadline(&mut self, load: Load, may_read: bool) -> Instant {
        let limits = &self.intake.context.limits;
        if !may_read {
            // Nothing is read by our own choice: the client cannot be late with the rest.
            self.since.message = None;
        } else if self.deframer.is_partial() {
            self.since.message.get_or_insert_with(clock::now);
        }
        // A client that takes nothing off for so long is as good as idle.
        let write = self.since.write.map(|since| since + limits.tcp_idle);
        let message = self.since.message.map(|since| since + limits.tcp_read);
        let quiet = self.since.activity + if load.owed > 0 { REPLY_WAIT } else { limits.tcp_idle };
        [write, message].into_iter().flatten().fold(quiet, Instant::min)
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
        Ok(1..) => Event::Written,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resolver::waiter::ReplyNote;
    use crate::telemetry::outcome::Source;

    /// A batch of `count` replies of `octets` each.
    fn batch(count: usize, octets: usize) -> ReplyBatch {
        let client = ClientToken { peer: SocketAddr::from(([127, 0, 0, 1], 5)), local: None, interface: 0 };
        let note = ReplyNote { source: Source::Cache, upstream: None };
        let mut batch = ReplyBatch::default();
        for _ in 0..count {
            batch.push(client, note, octets, |out| out.len());
        }
        batch
    }

    #[test]
    fn replies_are_framed_and_settle_what_is_owed() {
        let outbox = Outbox::default();
        outbox.lock().owed = 3;
        outbox.send(&batch(2, 5));
        let contents = outbox.lock();
        assert_eq!((contents.owed, contents.overrun), (1, false));
        assert_eq!(contents.octets[..], [0, 5, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn what_a_client_leaves_unread_is_bounded() {
        let outbox = Outbox::default();
        for _ in 0..100 {
            outbox.send(&batch(3, MAX_MESSAGE));
        }
        let contents = outbox.lock();
        assert!(contents.overrun);
        assert!(contents.octets.len() <= WRITE_LIMIT + 2, "{}", contents.octets.len());
    }
}
