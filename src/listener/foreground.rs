//! What a worker's thread polls itself, beside the tasks of its runtime: the loops of its UDP sockets.
//!
//! A query that comes alone pays for its wake-up. As a task the loop that answers it would be put into a queue, taken out of
//! it and marked as idle, running and idle again, each by an atomic operation. What the thread polls itself is just polled.

use crate::seldom::Seldom;
use futures_util::FutureExt;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio_util::sync::CancellationToken;

/// Futures that are polled here at most, without those that are about to end. All of them are, whichever was woken, so further
/// ones are better tasks.
const MOST: usize = 2;

/// Room for work that its worker has not taken yet. Addresses that come and go faster than that get tasks.
const QUEUE: usize = 16;

/// Something to run on a worker.
type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The wait for the next work, which gives the receiver back.
type Next = Pin<Box<dyn Future<Output = (Option<Work>, Receiver<Work>)> + Send>>;

/// How work comes to a worker; the worker ends when this is dropped.
#[derive(Debug)]
pub(super) struct Entrance {
    /// The way there.
    sender: Sender<Work>,
    /// What ends the work that is there.
    stops: Mutex<Vec<CancellationToken>>,
}

impl Entrance {
    /// Runs `work`, which ends soon after `stop`, or gives it back when there are enough. A panic in it ends nothing else.
    pub(super) fn run(
        &self,
        stop: &CancellationToken,
        work: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), Work> {
        let mut stops = self.stops.lock().unwrap_or_else(PoisonError::into_inner);
        stops.retain(|stop| !stop.is_cancelled());
        if stops.len() >= MOST {
            return Err(Box::pin(work));
        }
        let work = AssertUnwindSafe(work).catch_unwind().map(|outcome| {
            if outcome.is_err() {
                tracing::error!("a bug ended the service of a socket");
            }
        });
        match self.sender.try_send(Box::pin(work)) {
            Ok(()) => stops.push(stop.clone()),
            Err(TrySendError::Full(work)) => return Err(work),
            // The worker has ended: it would have dropped tasks, too.
            Err(TrySendError::Closed(_)) => {}
        }
        Ok(())
    }
}

/// The work of a worker; ready when its [`Entrance`] is gone.
pub(super) struct Foreground {
    /// The next work.
    next: Seldom<Next>,
    /// What is polled here.
    works: Vec<Work>,
}

impl Foreground {
    /// Makes one that has no work yet.
    pub(super) fn new() -> (Entrance, Self) {
        let (sender, receiver) = channel(QUEUE);
        (
            Entrance { sender, stops: Mutex::default() },
            Self { next: next(receiver), works: Vec::with_capacity(MOST) },
        )
    }
}

/// Waits for the next work.
fn next(mut receiver: Receiver<Work>) -> Seldom<Next> {
    Seldom::new(Box::pin(async move { (receiver.recv().await, receiver) }))
}

impl fmt::Debug for Foreground {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Foreground").field("works", &self.works.len()).finish_non_exhaustive()
    }
}

impl Future for Foreground {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        while let Poll::Ready((work, receiver)) = Pin::new(&mut self.next).poll(cx) {
            let Some(work) = work else { return Poll::Ready(()) };
            self.next = next(receiver);
            self.works.push(work);
        }
        self.works.retain_mut(|work| work.as_mut().poll(cx).is_pending());
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::thread::JoinHandle;
    use std::time::Duration;
    use tokio::runtime::Builder;
    use tokio::sync::oneshot;

    /// What is waited for in a test comes much sooner.
    const PATIENCE: Duration = Duration::from_secs(10);

    /// A worker.
    fn worker() -> (Entrance, JoinHandle<()>) {
        let (entrance, foreground) = Foreground::new();
        let runtime = Builder::new_current_thread().build().unwrap();
        (entrance, std::thread::spawn(move || runtime.block_on(foreground)))
    }

    /// Work that says 0, then what it is told.
    struct Echo {
        tell: Option<oneshot::Sender<u8>>,
        said: mpsc::Receiver<u8>,
        stop: CancellationToken,
    }

    impl Echo {
        /// Runs one and hears that it began.
        fn run(entrance: &Entrance) -> Self {
            let echo = Self::try_run(entrance).unwrap();
            assert_eq!(echo.said.recv_timeout(PATIENCE), Ok(0));
            echo
        }

        /// Runs one; None when it was given back.
        fn try_run(entrance: &Entrance) -> Option<Self> {
            let (tell, told) = oneshot::channel();
            let (say, said) = mpsc::channel();
            let stop = CancellationToken::new();
            let work = async move {
                assert_eq!(tokio::task::try_id(), None, "it is no task");
                say.send(0).unwrap();
                say.send(told.await.unwrap()).unwrap();
            };
            entrance.run(&stop, work).is_ok().then_some(Self { tell: Some(tell), said, stop })
        }

        /// Tells it a word, hears it, and sees that it ends.
        fn end(&mut self, word: u8) {
            self.tell.take().unwrap().send(word).unwrap();
            assert_eq!(self.said.recv_timeout(PATIENCE), Ok(word));
            assert_eq!(self.said.recv_timeout(PATIENCE), Err(mpsc::RecvTimeoutError::Disconnected));
        }
    }

    #[test]
    fn each_is_woken_by_itself_in_any_order() {
        let (entrance, thread) = worker();
        for order in [[0, 1], [1, 0]] {
            let mut echoes = [Echo::run(&entrance), Echo::run(&entrance)];
            for at in order {
                echoes[at].end(7);
                echoes[at].stop.cancel();
            }
        }
        drop(entrance);
        thread.join().unwrap();
    }

    #[test]
    fn there_is_a_place_for_the_next_as_soon_as_one_has_to_end() {
        let (entrance, thread) = worker();
        let mut echoes: Vec<_> = (0..MOST).map(|_| Echo::run(&entrance)).collect();
        assert!(Echo::try_run(&entrance).is_none());
        for _ in 0..3 {
            // It still ends its work.
            echoes[0].stop.cancel();
            let next = Echo::run(&entrance);
            assert!(Echo::try_run(&entrance).is_none());
            echoes[0].end(3);
            echoes[0] = next;
        }
        drop(entrance);
        thread.join().unwrap();
    }

    #[test]
    fn what_a_busy_worker_has_no_room_for_comes_back() {
        // Nobody takes it.
        let (entrance, _foreground) = Foreground::new();
        for _ in 0..QUEUE {
            Echo::try_run(&entrance).unwrap().stop.cancel();
        }
        assert!(Echo::try_run(&entrance).is_none());
    }

    #[test]
    fn a_panic_ends_only_the_work_that_has_it() {
        let (entrance, thread) = worker();
        let mut before = Echo::run(&entrance);
        let stop = CancellationToken::new();
        assert!(entrance.run(&stop, async { panic!("as a test wants it") }).is_ok());
        stop.cancel();
        let mut after = Echo::run(&entrance);
        before.end(1);
        after.end(2);
        drop(entrance);
        thread.join().unwrap();
    }

    #[test]
    fn the_worker_ends_with_its_entrance_and_drops_what_is_not_done() {
        let (entrance, thread) = worker();
        let echoes: Vec<_> = (0..MOST).map(|_| Echo::run(&entrance)).collect();
        drop(entrance);
        thread.join().unwrap();
        for Echo { tell, said, .. } in echoes {
            assert_eq!(tell.unwrap().send(1), Err(1));
            assert_eq!(said.try_recv(), Err(mpsc::TryRecvError::Disconnected));
        }
    }
}
