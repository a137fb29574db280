//! What a worker's thread polls itself, beside the tasks of its runtime: the loops of its UDP sockets.
//!
//! A query that comes alone pays for its wake-up. As a task the loop that answers it would be put into a queue, taken out of
//! it and marked as idle, running and idle again, each by an atomic operation. What the thread polls itself is just polled.

use crate::seldom::Seldom;
use futures_util::FutureExt;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Futures that are polled here at most. All of them are, whichever was woken, so further ones are better tasks.
const MOST: usize = 2;

/// Something to run on a worker.
type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The wait for the next work, which gives the receiver back.
type Next = Pin<Box<dyn Future<Output = (Option<Work>, Receiver<Work>)> + Send>>;

/// How work comes to a worker; the worker ends when this is dropped.
#[derive(Debug)]
pub(super) struct Entrance {
    /// Has room for all that has a place.
    sender: Sender<Work>,
    /// Places that are free.
    places: Arc<Semaphore>,
}

/// A place among what a worker's thread polls itself.
#[derive(Debug)]
pub(super) struct Place<'a> {
    /// The way there.
    sender: &'a Sender<Work>,
    /// Gives the place back when the work has ended.
    permit: OwnedSemaphorePermit,
}

impl Entrance {
    /// Returns a place, if one is free.
    pub(super) fn place(&self) -> Option<Place<'_>> {
        let permit = Arc::clone(&self.places).try_acquire_owned().ok()?;
        Some(Place { sender: &self.sender, permit })
    }
}

impl Place<'_> {
    /// Runs `work`. A panic in it ends nothing else.
    pub(super) fn run(self, work: impl Future<Output = ()> + Send + 'static) {
        let Self { sender, permit } = self;
        let work = AssertUnwindSafe(work).catch_unwind().map(|outcome| {
            if outcome.is_err() {
                tracing::error!("a bug ended the service of a socket");
            }
            drop(permit);
        });
        // Never full: whoever is in it has a place. A worker that has ended drops it, as it drops tasks.
        let _ = sender.try_send(Box::pin(work));
    }
}

/// The work of a worker; ready when its [`Entrance`] is gone.
pub(super) struct Foreground {
    /// The next work.
    next: Seldom<Next>,
    /// What is polled here, at most `MOST`.
    works: Vec<Work>,
}

impl Foreground {
    /// Makes one that has no work yet.
    pub(super) fn new() -> (Entrance, Self) {
        let (sender, receiver) = channel(MOST);
        let entrance = Entrance { sender, places: Arc::new(Semaphore::new(MOST)) };
        (entrance, Self { next: next(receiver), works: Vec::with_capacity(MOST) })
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

    /// Runs work that says 0, then what it is told; the words end when it is gone.
    fn echo(entrance: &Entrance) -> (oneshot::Sender<u8>, mpsc::Receiver<u8>) {
        let (tell, told) = oneshot::channel();
        let (say, said) = mpsc::channel();
        entrance.place().unwrap().run(async move {
            assert_eq!(tokio::task::try_id(), None, "it is no task");
            say.send(0).unwrap();
            say.send(told.await.unwrap()).unwrap();
        });
        assert_eq!(said.recv_timeout(PATIENCE), Ok(0));
        (tell, said)
    }

    #[test]
    fn each_is_woken_by_itself_and_there_is_a_place_again_for_each_that_ended() {
        let (entrance, thread) = worker();
        let mut echoes: Vec<_> = (0..MOST).map(|_| echo(&entrance)).collect();
        assert!(entrance.place().is_none());
        for word in 1..=5 {
            // Not the one that waits longest.
            let (tell, said) = echoes.pop().unwrap();
            tell.send(word).unwrap();
            assert_eq!(said.recv_timeout(PATIENCE), Ok(word));
            assert_eq!(said.recv_timeout(PATIENCE), Err(mpsc::RecvTimeoutError::Disconnected));
            while entrance.place().is_none() {
                std::thread::yield_now();
            }
            echoes.push(echo(&entrance));
            assert!(entrance.place().is_none());
        }
        drop(entrance);
        thread.join().unwrap();
    }

    #[test]
    fn a_panic_ends_only_the_work_that_has_it() {
        let (entrance, thread) = worker();
        let (tell, said) = echo(&entrance);
        entrance.place().unwrap().run(async { panic!("as a test wants it") });
        while entrance.place().is_none() {
            std::thread::yield_now();
        }
        let (_other, others) = echo(&entrance);
        tell.send(1).unwrap();
        assert_eq!(said.recv_timeout(PATIENCE), Ok(1));
        drop(entrance);
        thread.join().unwrap();
        assert_eq!(others.try_recv(), Err(mpsc::TryRecvError::Disconnected));
    }

    #[test]
    fn the_worker_ends_with_its_entrance_and_drops_what_is_not_done() {
        let (entrance, thread) = worker();
        let echoes: Vec<_> = (0..MOST).map(|_| echo(&entrance)).collect();
        drop(entrance);
        thread.join().unwrap();
        for (tell, said) in echoes {
            assert_eq!(tell.send(1), Err(1));
            assert_eq!(said.try_recv(), Err(mpsc::TryRecvError::Disconnected));
        }
    }
}
