//! The UDP loop: waits for datagrams on its worker's thread and has its [`Desk`] answer them. While many come and memory
//! answers nearly all, an attendant waits in the socket instead.

use super::Answer;
use super::attendant::{Attendants, Attended, PATIENCE};
use super::bind::Origin;
use super::desk::{BATCHES_A_TURN, Desk, ERRORS_A_TURN, Turn, UdpSink};
use super::intake::Intake;
use crate::seldom::Seldom;
use crate::telemetry::throttle::Throttle;
use futures_util::{FutureExt, poll};
use std::future::poll_fn;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, UdpSocket};
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::{AsyncFd, AsyncFdReadyGuard};
use tokio_util::sync::CancellationToken;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// How long a loop pauses after that many errors in a row.
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

/// One socket of one worker.
pub(super) struct UdpLoop<A: Answer> {
    /// The socket as the worker's runtime watches it; None while it has an attendant, or when it cannot be watched.
    readable: Option<AsyncFd<Arc<UdpSink>>>,
    /// What answers.
    desk: Desk<A>,
    /// Who made the socket.
    origin: Origin,
    /// Only what was sent before the stop is still answered.
    is_ending: bool,
    /// Those who wait in sockets instead of their workers.
    attendants: Arc<Attendants>,
}

impl<A: Answer> UdpLoop<A> {
    /// Registers the socket with the current runtime.
    pub(super) fn new(
        socket: Arc<UdpSink>,
        intake: Intake<A>,
        origin: Origin,
        attendants: Arc<Attendants>,
    ) -> io::Result<Self> {
        Ok(Self {
            readable: Some(register(&socket)?),
            desk: Desk::new(socket, intake),
            origin,
            is_ending: false,
            attendants,
        })
    }

    /// Answers until `stop`, then what the kernel still has for this socket. `reading` is given back when nothing more is
    /// read.
    pub(super) async fn run(mut self, stop: CancellationToken, reading: TaskTrackerToken) {
        self.serve(Seldom::new(stop.cancelled())).await;
        self.is_ending = true;
        if self.origin == Origin::Bound {
            if let Err(error) = leave_group(self.desk.socket()) {
                tracing::debug!(%error, "datagrams may come until the socket is closed");
            }
            self.serve(tokio::time::sleep(LINGER)).await;
        }
        drop(reading);
    }

    /// Answers until `stop`. A panic is a bug that one datagram can find: it costs that batch, not the socket.
    async fn serve(&mut self, stop: impl Future<Output = ()>) {
        let mut stop = pin!(stop);
        let mut bugs = Throttle::default();
        while AssertUnwindSafe(self.answer(stop.as_mut())).catch_unwind().await.is_err() {
            self.desk.recover(&mut bugs);
            // Who asks for a bug again and again does so at the expense of this socket only.
            tokio::task::yield_now().await;
        }
    }

    /// Answers until `stop`; of a socket that we made, what the kernel had queued by then is still taken.
    async fn answer(&mut self, mut stop: Pin<&mut impl Future<Output = ()>>) {
        let mut errors = 0;
        loop {
            if self.readable.is_none() || self.desk.pace.is_brisk() {
                self.leave_to_an_attendant(stop.as_mut()).await;
            }
            // Nobody watches the socket: then it is time.
            let Some(readable) = &self.readable else { break };
            // `stop` is looked at before each wait, and after each turn that did not end with an empty queue.
            let Some(ready) = poll_fn(|cx| poll_readable(readable, stop.as_mut(), cx)).await else { break };
            let Ok(mut guard) = ready else { return };
            match self.desk.take_turn() {
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
        for _ in 0..last_turns(self.desk.batch()) {
            if matches!(self.desk.take_turn(), Turn::Emptied) {
                return;
            }
        }
    }

    /// Leaves the socket to an attendant until that gives it back, then watches it again unless `stop` has come. Not inline: it
    /// is seldom.
    #[inline(never)]
    async fn leave_to_an_attendant(&mut self, mut stop: Pin<&mut impl Future<Output = ()>>) {
        // Taken: another one is not asked for at once.
        if std::mem::take(&mut self.desk.pace).is_brisk() {
            match self.attend() {
                Ok(Some(attended)) => {
                    self.readable = None;
                    attended.until(stop.as_mut()).await;
                }
                Ok(None) => {}
                Err(error) => tracing::debug!(%error, "a socket gets no attendant"),
            }
        }
        while self.readable.is_none() && !poll!(stop.as_mut()).is_ready() {
            self.watch().await;
        }
    }

    /// Asks for an attendant; there may be enough. A socket of another process gets none, for it is not ours to make it a
    /// blocking one.
    fn attend(&self) -> io::Result<Option<Attended>> {
        if self.origin == Origin::Inherited || self.is_ending {
            return Ok(None);
        }
        // The loop itself never waits in the socket: it says so with each call.
        self.desk.socket().set_read_timeout(Some(PATIENCE))?;
        self.desk.socket().set_nonblocking(false)?;
        let desk = self.desk.another();
        self.attendants.attend(move |attendance| desk.attend(attendance))
    }

    /// Watches the socket. When the system has no room for that, it is read once and to be tried again.
    async fn watch(&mut self) {
        match register(&self.desk.socket) {
            Ok(readable) => self.readable = Some(readable),
            Err(error) => {
                tracing::debug!(%error, "a socket cannot be watched");
                self.desk.take_turn();
                tokio::time::sleep(ERROR_PAUSE).await;
            }
        }
    }
}

/// Registers a socket with the current runtime, for reading only: tokio's own `UdpSocket` registers for writing too, and then
/// epoll wakes the worker for every datagram that leaves the socket, even from another thread.
#[expect(
    deprecated,
    reason = "its successor is an unsafe fn; what it asks for holds: a sink never changes its socket"
)]
fn register(socket: &Arc<UdpSink>) -> io::Result<AsyncFd<Arc<UdpSink>>> {
    AsyncFd::with_interest(Arc::clone(socket), Interest::READABLE)
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
