//! The desk of a UDP socket: datagrams in by batches, answers from memory straight into the reply slots and out by one
//! call; the misses of a batch go to the resolver together. It allocates only for misses, and it does not
//! wait for them: their replies leave through [`UdpSink`] from wherever the flight ends.

use super::Answer;
use super::attendant::Attendance;
use super::batch::{BatchSocket, Datagrams, Patience, Received, Replies, send};
use super::intake::{Intake, Taken};
use super::pace::Pace;
use crate::clock;
use crate::resolver::waiter::{ClientToken, ReplyBatch, ReplySink, Waiter};
use crate::telemetry::bounds::Bound;
use crate::telemetry::throttle::Throttle;
use crate::wire::query::ClientTransport;
use std::cell::RefCell;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

/// Batches that a loop takes before others of this worker have their turn.
pub(super) const BATCHES_A_TURN: usize = 8;

/// Receive errors in a row after which the loop pauses instead of spinning.
pub(super) const ERRORS_A_TURN: usize = 16;

/// A UDP socket as the place where replies go.
#[derive(Debug)]
pub(super) struct UdpSink {
    /// Shared by the loop that reads and the flights that reply; closed when the last of them is gone.
    socket: BatchSocket,
}

impl UdpSink {
    /// Makes a sink of a bound socket, which sends so many replies by one system call.
    pub(super) fn new(socket: BatchSocket, batch: usize) -> Self {
        Self { socket: socket.with_batch(batch) }
    }
}

impl AsRawFd for UdpSink {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.socket.as_raw_fd()
    }
}

impl ReplySink for UdpSink {
    fn send(&self, batch: &ReplyBatch) {
        report(send(&self.socket, batch.iter()));
    }

    fn local(&self) -> Option<SocketAddr> {
        Some(self.socket.local)
    }
}

/// Says that replies were lost; the clients ask again.
fn report(unsent: usize) {
    if unsent > 0 {
        tracing::debug!(unsent, "replies could not be sent");
    }
}

/// Buffers of one thread, shared by its sockets: nothing stays in them between two turns of a loop.
struct Scratch {
    /// What was just received.
    datagrams: Datagrams,
    /// What is about to be sent.
    replies: Replies,
}

thread_local! {
    /// See [`Scratch`]; a thread-local because nix's headers cannot move between threads. Made for the first batch: how long
    /// batches are does not change while the thread lives.
    static SCRATCH: RefCell<Option<Scratch>> = const { RefCell::new(None) };
}

impl Scratch {
    /// Allocates the buffers of a batch.
    fn new(batch: usize) -> Self {
        Self { datagrams: Datagrams::new(batch), replies: Replies::new(batch) }
    }
}

/// What answers the queries of one socket, on whatever thread has it.
pub(super) struct Desk<A: Answer> {
    /// Where queries come from.
    pub(super) socket: Arc<UdpSink>,
    /// The same, for waiters.
    sink: Arc<dyn ReplySink>,
    /// What happens to a query.
    intake: Intake<A>,
    /// Misses of the current batch; empty between two.
    misses: Vec<(A::Pending, Waiter)>,
    /// How queries come.
    pub(super) pace: Pace,
}

/// How a turn ended.
#[derive(Clone, Copy, Debug)]
pub(super) enum Turn {
    /// The queue is empty: wait for the kernel to say otherwise. A batch of few is taken as a sign
    /// of that, which saves the call that would only return EAGAIN. It is safe: epoll is edge-triggered and
    /// reports every arrival after the batch was taken, whatever we remember of readiness.
    Emptied,
    /// Others should run before the next turn.
    MoreQueued,
    /// The kernel reported an error, such as an ICMP message about an earlier reply; reading it clears it.
    Failed,
}

impl<A: Answer> Desk<A> {
    /// Makes one.
    pub(super) fn new(socket: Arc<UdpSink>, intake: Intake<A>) -> Self {
        let sink = Arc::clone(&socket) as Arc<dyn ReplySink>;
        let misses = Vec::with_capacity(intake.context.limits.udp_batch);
        Self { socket, sink, intake, misses, pace: Pace::default() }
    }

    /// Makes another one for the same socket.
    pub(super) fn another(&self) -> Self {
        Self::new(Arc::clone(&self.socket), self.intake.clone())
    }

    /// Returns the socket itself.
    pub(super) fn socket(&self) -> &UdpSocket {
        &self.socket.socket.socket
    }

    /// Returns how many datagrams it takes at once at most.
    pub(super) fn batch(&self) -> usize {
        self.intake.context.limits.udp_batch
    }

    /// Answers, by waiting in the socket itself, until it is over or no longer worth it. The socket is a blocking one, with a time
    /// limit.
    pub(super) fn attend(mut self, attendance: &Attendance) {
        let mut bugs = Throttle::default();
        let mut errors = 0;
        while !attendance.is_over() && !self.pace.is_slack() {
            match catch_unwind(AssertUnwindSafe(|| self.take_batch(Patience::First))) {
                Ok(Ok(_)) => errors = 0,
                Ok(Err(error)) if has_nothing(&error) => self.pace.nothing_came(clock::now()),
                Ok(Err(_)) if errors < ERRORS_A_TURN => errors += 1,
                // The worker knows how to go on.
                Ok(Err(_)) => return,
                Err(_bug) => self.recover(&mut bugs),
            }
        }
    }

    /// Takes batches until the queue is empty or it is the turn of others.
    pub(super) fn take_turn(&mut self) -> Turn {
        for _ in 0..BATCHES_A_TURN {
            match self.take_batch(Patience::None) {
                Ok(Received::All) => return Turn::Emptied,
                Ok(Received::Part | Received::Batch) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Turn::Emptied,
                Err(_) => return Turn::Failed,
            }
        }
        Turn::MoreQueued
    }

    /// Takes a batch, answers it, and hands its misses over.
    fn take_batch(&mut self, patience: Patience) -> io::Result<Received> {
        let received = SCRATCH.with_borrow_mut(|scratch| {
            let scratch = scratch.get_or_insert_with(|| Scratch::new(self.batch()));
            let received = scratch.datagrams.receive(&self.socket.socket, patience)?;
            self.answer_batch(scratch);
            report(scratch.replies.flush(&self.socket.socket));
            Ok(received)
        });
        // Outside the borrow: the resolver may reply at once, on this thread.
        if !self.misses.is_empty() {
            self.intake.context.resolver.enqueue(&mut self.misses);
            self.misses.clear();
        }
        match &received {
            Ok(Received::All | Received::Part) => {}
            Ok(Received::Batch) => self.intake.context.telemetry.bounds().reached(Bound::UdpBatch),
            Err(error) if has_nothing(error) => {}
            Err(error) => tracing::debug!(%error, "cannot receive"),
        }
        received
    }

    /// Answers what can be answered from memory and collects the rest.
    fn answer_batch(&mut self, scratch: &mut Scratch) {
        let Self { socket, sink, intake, misses, pace } = self;
        let round = intake.round(ClientTransport::Udp, Some(socket.socket.local), clock::now());
        for (client, message) in scratch.datagrams.iter() {
            // Nobody can be answered at port 0 (RFC 768: "if not used, a value of zero").
            if client.peer.port() == 0 {
                continue;
            }
            match round.take(message, client, scratch.replies.slot()) {
                Taken::Reply(octets) => scratch.replies.commit(*client, octets),
                Taken::Silence | Taken::Nonsense => {}
                Taken::Miss(pending) => misses.push((pending, waiter(sink, client, message, round.now))),
            }
        }
        pace.count(scratch.datagrams.len(), misses.len(), round.now);
    }

    /// Is ready again after a bug ended the handling of a batch.
    pub(super) fn recover(&mut self, bugs: &mut Throttle) {
        self.misses.clear();
        // With what was written of the replies: another socket of this thread would send them.
        SCRATCH.take();
        if let Some(unsaid) = bugs.pass(clock::now()) {
            let unsaid = (unsaid > 0).then_some(unsaid);
            tracing::error!(unsaid, "a bug ended the handling of a batch of queries; going on with the next");
        }
    }
}

/// True when there was nothing to read, or a signal came first.
fn has_nothing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// Makes the record by which a flight finds its client again.
fn waiter(sink: &Arc<dyn ReplySink>, client: &ClientToken, query: &[u8], received: Instant) -> Waiter {
    Waiter {
        sink: Arc::clone(sink),
        client: *client,
        transport: ClientTransport::Udp,
        query: query.into(),
        received,
    }
}
