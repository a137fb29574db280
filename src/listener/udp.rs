//! The UDP loop: datagrams in by batches, answers from memory straight into the reply slots and out by one
//! call; the misses of a batch go to the resolver together. It allocates only for misses, and it does not
//! wait for them: their replies leave through [`UdpSink`] from wherever the flight ends.

use super::Answer;
use super::batch::{BatchSocket, Datagrams, Received, Replies, send};
use super::bind::Origin;
use super::intake::{Intake, Taken};
use crate::clock;
use crate::resolver::waiter::{ClientToken, ReplyBatch, ReplySink, Waiter};
use crate::seldom::Seldom;
use crate::telemetry::bounds::Bound;
use crate::telemetry::throttle::Throttle;
use crate::wire::query::ClientTransport;
use futures_util::{FutureExt, poll};
use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, RawFd};
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::{Duration, Instant};
use tokio::io::Interest;
use tokio::io::unix::{AsyncFd, AsyncFdReadyGuard};
use tokio_util::sync::CancellationToken;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// Batches that a loop takes before others of this worker have their turn.
const BATCHES_A_TURN: usize = 8;

/// Receive errors in a row after which the loop pauses instead of spinning.
const ERRORS_A_TURN: usize = 16;

/// How long it then pauses.
const ERROR_PAUSE: Duration = Duration::from_millis(100);

/// How long a socket is still read after it left its group: for datagrams that another processor was just delivering.
const LINGER: Duration = Duration::from_millis(50);

/// Datagrams that the last reading may take at least: more than any receive buffer holds.
const LAST_DATAGRAMS: usize = 65_536;

/// Returns the turns that the last reading may take, by batches of this length.
const fn last_turns(batch: usize) -> usize {
    // One more, for the first may take less than a batch.
    LAST_DATAGRAMS.div_ceil(batch * BATCHES_A_TURN) + 1
}

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

/// Buffers of one worker, shared by its sockets: nothing stays in them between two turns of a loop.
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

/// One socket of one worker.
#[derive(Debug)]
pub(super) struct UdpLoop<A: Answer> {
    /// Registered for reading only. tokio's own `UdpSocket` registers for writing too, and then epoll wakes
    /// the worker for every datagram that leaves the socket, even from another thread.
    readable: AsyncFd<Arc<UdpSink>>,
    /// For the waiters of this socket.
    sink: Arc<dyn ReplySink>,
    /// What happens to a query.
    intake: Intake<A>,
    /// Misses of the current batch; empty between two.
    misses: Vec<(A::Pending, Waiter)>,
    /// Who made the socket.
    origin: Origin,
}

impl<A: Answer> UdpLoop<A> {
    /// Registers the socket with the current runtime.
    #[expect(
        deprecated,
        reason = "its successor is an unsafe fn; what it asks for holds: a sink never changes its socket"
    )]
    pub(super) fn new(sink: Arc<UdpSink>, intake: Intake<A>, origin: Origin) -> io::Result<Self> {
        let readable = AsyncFd::with_interest(Arc::clone(&sink), Interest::READABLE)?;
        let misses = Vec::with_capacity(intake.context.limits.udp_batch);
        Ok(Self { readable, sink, intake, misses, origin })
    }

    /// Answers until `stop`, then what the kernel still has for this socket. `reading` is given back when nothing more is
    /// read.
    pub(super) async fn run(mut self, stop: CancellationToken, reading: TaskTrackerToken) {
        self.serve(Seldom::new(stop.cancelled())).await;
        if self.origin == Origin::Bound {
            if let Err(error) = leave_group(&self.readable.get_ref().socket.socket) {
                tracing::debug!(%error, "datagrams may come until the socket is closed");
            }
            self.serve(tokio::time::sleep(LINGER)).await;
        }
        drop(reading);
    }

    /// Answers until `stop`. A panic is a bug that one datagram can find: it costs that batch, not the socket.
    async fn serve(&mut self, stop: impl Future<Output = ()>) {
        let mut stop = pin!(stop);
        let mut throttle = Throttle::default();
        while AssertUnwindSafe(self.answer(stop.as_mut())).catch_unwind().await.is_err() {
            self.misses.clear();
            if let Some(unsaid) = throttle.pass(crate::clock::now()) {
                let unsaid = (unsaid > 0).then_some(unsaid);
                tracing::error!(
                    unsaid,
                    "a bug ended the handling of a batch of queries; going on with the next"
                );
            }
            // Who asks for a bug again and again does so at the expense of this socket only.
            tokio::task::yield_now().await;
        }
    }

    /// Answers until `stop`; of a socket that we made, what the kernel had queued by then is still taken.
    async fn answer(&mut self, mut stop: Pin<&mut impl Future<Output = ()>>) {
        let mut errors = 0;
        // `stop` is looked at before each wait, and after each turn that did not end with an empty queue.
        while let Some(ready) = poll_fn(|cx| poll_readable(&self.readable, stop.as_mut(), cx)).await {
            let Ok(mut guard) = ready else { return };
            let turn = take_turn(&self.intake, &self.sink, guard.get_inner(), &mut self.misses);
            match turn {
                Turn::Emptied => {
                    guard.clear_ready();
                    errors = 0;
                    continue;
                }
                Turn::MoreQueued => {
                    errors = 0;
                    tokio::task::yield_now().await;
                }
                Turn::Failed if errors < ERRORS_A_TURN => errors += 1,
                Turn::Failed => {
                    errors = 0;
                    tokio::time::sleep(ERROR_PAUSE).await;
                }
            }
            if poll!(stop.as_mut()).is_ready() {
                break;
            }
        }
        if self.origin == Origin::Inherited {
            return;
        }
        for _ in 0..last_turns(self.intake.context.limits.udp_batch) {
            let turn = take_turn(&self.intake, &self.sink, self.readable.get_ref(), &mut self.misses);
            if matches!(turn, Turn::Emptied) {
                return;
            }
        }
    }
}

/// Ready when there may be something to read; None when there is not and `stop` has come.
fn poll_readable<'a>(
    socket: &'a AsyncFd<Arc<UdpSink>>,
    stop: Pin<&mut impl Future<Output = ()>>,
    cx: &mut TaskContext<'_>,
) -> Poll<Option<io::Result<AsyncFdReadyGuard<'a, Arc<UdpSink>>>>> {
    // Not `readable()`, which makes a new entry in a list of waiters each time: only one loop waits.
    match socket.poll_read_ready(cx) {
        Poll::Ready(ready) => Poll::Ready(Some(ready)),
        Poll::Pending => stop.poll(cx).map(|()| None),
    }
}

/// Takes the socket out of those among which the kernel shares out what comes to the port: it gets nothing new, keeps what
/// it has, and can still send. The way is to connect it to its own address, from which nobody can send: a connected socket
/// hears only its peer. Linux passes over connected sockets of a `SO_REUSEPORT` group since 5.4.
///
/// Otherwise what comes between the last read and the close would be lost, although a successor listens on the same port.
fn leave_group(socket: &UdpSocket) -> io::Result<()> {
    let mut own = socket.local_addr()?;
    if own.ip().is_unspecified() {
        own.set_ip(if own.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() });
    }
    socket.connect(own)
}

/// How a turn ended.
#[derive(Clone, Copy, Debug)]
enum Turn {
    /// The queue is empty: wait for the kernel to say otherwise. A batch of few is taken as a sign
    /// of that, which saves the call that would only return EAGAIN. It is safe: epoll is edge-triggered and
    /// reports every arrival after the batch was taken, whatever we remember of readiness.
    Emptied,
    /// Others should run before the next turn.
    MoreQueued,
    /// The kernel reported an error, such as an ICMP message about an earlier reply; reading it clears it.
    Failed,
}

/// Takes batches until the queue is empty or it is the turn of others.
fn take_turn<A: Answer>(
    intake: &Intake<A>,
    sink: &Arc<dyn ReplySink>,
    socket: &UdpSink,
    misses: &mut Vec<(A::Pending, Waiter)>,
) -> Turn {
    for _ in 0..BATCHES_A_TURN {
        let received = SCRATCH.with_borrow_mut(|scratch| {
            let scratch = scratch.get_or_insert_with(|| Scratch::new(intake.context.limits.udp_batch));
            let received = scratch.datagrams.receive(&socket.socket)?;
            answer_batch(intake, sink, socket.socket.local, scratch, misses);
            report(scratch.replies.flush(&socket.socket));
            Ok::<_, io::Error>(received)
        });
        // Outside the borrow: the resolver may reply at once, on this thread.
        if !misses.is_empty() {
            intake.context.resolver.enqueue(misses);
            misses.clear();
        }
        match received {
            Ok(Received::All) => return Turn::Emptied,
            Ok(Received::Part) => {}
            Ok(Received::Batch) => intake.context.telemetry.bounds().reached(Bound::UdpBatch),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Turn::Emptied,
            Err(error) => {
                tracing::debug!(%error, "cannot receive");
                return Turn::Failed;
            }
        }
    }
    Turn::MoreQueued
}

/// Answers what can be answered from memory and collects the rest.
fn answer_batch<A: Answer>(
    intake: &Intake<A>,
    sink: &Arc<dyn ReplySink>,
    local: SocketAddr,
    scratch: &mut Scratch,
    misses: &mut Vec<(A::Pending, Waiter)>,
) {
    let round = intake.round(ClientTransport::Udp, Some(local), clock::now());
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_reading_takes_as_many_datagrams_however_short_a_batch_is() {
        assert_eq!([32, 16, 1].map(last_turns), [257, 513, 8193]);
        for batch in 1..=32 {
            let least = (last_turns(batch) * BATCHES_A_TURN - 1) * batch;
            assert!(least >= LAST_DATAGRAMS, "{batch}");
        }
    }
}
