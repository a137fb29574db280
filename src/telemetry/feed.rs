//! The way from the threads that answer queries to a thread that writes down what happened: bounded, and never waited for.
//! What finds no room, or could not be written, is counted. What an entry is and where it goes is not its matter.

use arc_swap::ArcSwapOption;
use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, TryRecvError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;
use tokio_util::sync::{CancellationToken, DropGuard};

/// How long stopping waits for the last entries: who takes them may not be reading.
pub(super) const CLOSE_LIMIT: Duration = Duration::from_secs(3);

/// The sending side. There is a way while somebody writes.
#[derive(Debug)]
pub(super) struct Feed<T> {
    /// The way to the present writing thread.
    way: ArcSwapOption<Way<T>>,
    /// Hear when writing threads have ended: the present one, and earlier ones that still have entries to write.
    ended: Mutex<Vec<Receiver<()>>>,
    /// Entries that were not written.
    dropped: Arc<AtomicU64>,
}

impl<T> Default for Feed<T> {
    fn default() -> Self {
        Self { way: ArcSwapOption::empty(), ended: Mutex::default(), dropped: Arc::default() }
    }
}

/// One way. When its last user lets go of it the queue behind it is closed: the thread writes what it has and ends.
#[derive(Debug)]
struct Way<T> {
    /// Entries and what they count. No bound of its own is reached: each counts at least 1.
    sender: tokio::sync::mpsc::Sender<(usize, T)>,
    /// What the waiting entries count together.
    waiting: Arc<AtomicUsize>,
    /// How much that may be.
    bound: usize,
    /// Tells the thread, while it does not look into its queue.
    _closed: DropGuard,
}

impl<T: Send + 'static> Feed<T> {
    /// Hands an entry over that counts `size` (at least 1), or drops and counts it. It is made only when there is room.
    pub(super) fn send(&self, size: usize, entry: impl FnOnce() -> T) {
        let way = self.way.load();
        let Some(way) = way.as_deref() else { return };
        let size = size.max(1);
        let before = way.waiting.fetch_add(size, Ordering::Relaxed);
        if before.saturating_add(size) > way.bound || way.sender.try_send((size, entry())).is_err() {
            way.waiting.fetch_sub(size, Ordering::Relaxed);
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Returns the number of entries that were not written.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Starts a thread that writes, in place of the present one, which still writes what waits for it.
    ///
    /// # Errors
    /// No thread could be started; the present one then stays.
    pub(super) fn replace(
        &self,
        name: &str,
        bound: usize,
        write: impl FnOnce(Queue<T>) + Send + 'static,
    ) -> io::Result<()> {
        let bound = bound.clamp(1, tokio::sync::Semaphore::MAX_PERMITS);
        let (sender, receiver) = tokio::sync::mpsc::channel(bound);
        let (waiting, closed) = (Arc::default(), CancellationToken::new());
        let (end, ended) = mpsc::sync_channel::<()>(1);
        let queue = Queue {
            receiver,
            waiting: Arc::clone(&waiting),
            dropped: Arc::clone(&self.dropped),
            closed: closed.clone(),
        };
        thread::Builder::new().name(name.to_owned()).spawn(move || {
            write(queue);
            drop(end);
        })?;
        self.way.store(Some(Arc::new(Way { sender, waiting, bound, _closed: closed.drop_guard() })));
        let mut threads = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        threads.retain(|earlier| earlier.try_recv() == Err(TryRecvError::Empty));
        threads.push(ended);
        Ok(())
    }

    /// Ends the way; returns at once.
    pub(super) fn close(&self) {
        self.way.store(None);
    }

    /// Ends the way and waits until what waited is written; false when that took too long.
    pub(super) fn close_and_wait(&self) -> bool {
        self.close();
        let threads = std::mem::take(&mut *self.ended.lock().unwrap_or_else(PoisonError::into_inner));
        let deadline = crate::clock::now() + CLOSE_LIMIT;
        let mut in_time = true;
        for ended in threads {
            let left = deadline.saturating_duration_since(crate::clock::now());
            in_time &= ended.recv_timeout(left) != Err(RecvTimeoutError::Timeout);
        }
        in_time
    }
}

/// The writing thread's side. What is still in it when it goes was not written, and is counted.
#[derive(Debug)]
pub(super) struct Queue<T> {
    /// Entries and what they count.
    receiver: tokio::sync::mpsc::Receiver<(usize, T)>,
    /// What they count together.
    waiting: Arc<AtomicUsize>,
    /// Entries that were not written.
    dropped: Arc<AtomicU64>,
    /// Cancelled when nothing more is sent.
    closed: CancellationToken,
}

impl<T> Queue<T> {
    /// Waits for an entry; None when nothing more comes. Cancel safe.
    pub(super) async fn next(&mut self) -> Option<T> {
        let taken = self.receiver.recv().await;
        self.take(taken)
    }

    /// As `next`, on a thread that may block.
    pub(super) fn next_blocking(&mut self) -> Option<T> {
        let taken = self.receiver.blocking_recv();
        self.take(taken)
    }

    /// Returns an entry that is there already.
    pub(super) fn try_next(&mut self) -> Option<T> {
        let taken = self.receiver.try_recv().ok();
        self.take(taken)
    }

    /// Makes room for what was taken.
    fn take(&self, taken: Option<(usize, T)>) -> Option<T> {
        let (size, entry) = taken?;
        self.waiting.fetch_sub(size, Ordering::Relaxed);
        Some(entry)
    }

    /// Counts entries that were taken and could not be written.
    pub(super) fn lose(&self, entries: u64) {
        self.dropped.fetch_add(entries, Ordering::Relaxed);
    }

    /// Returns what is cancelled when nothing more is sent.
    pub(super) fn closed(&self) -> CancellationToken {
        self.closed.clone()
    }
}

impl<T> Drop for Queue<T> {
    fn drop(&mut self) {
        self.receiver.close();
        while self.try_next().is_some() {
            self.lose(1);
        }
    }
}

#[cfg(test)]
impl<T: Send + 'static> Feed<T> {
    /// Makes a feed and hands its queue out, in place of a thread.
    pub(super) fn with_queue(bound: usize) -> (Self, Queue<T>) {
        let feed = Self::default();
        let queue = feed.another_queue(bound);
        (feed, queue)
    }

    /// Hands out the queue of another thread that takes over.
    fn another_queue(&self, bound: usize) -> Queue<T> {
        let (give, given) = mpsc::sync_channel(1);
        self.replace("feed-test", bound, move |queue| drop(give.send(queue))).unwrap();
        given.recv().unwrap()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_finds_no_room_is_dropped_without_being_made_and_room_comes_back() {
        let (feed, mut queue) = Feed::with_queue(10);
        feed.send(6, || 1);
        feed.send(4, || 2);
        feed.send(1, || unreachable!("there is no room"));
        assert_eq!(feed.dropped(), 1);
        assert_eq!(queue.next_blocking(), Some(1));
        feed.send(6, || 3);
        assert_eq!((queue.try_next(), queue.try_next(), queue.try_next()), (Some(2), Some(3), None));
        assert_eq!(feed.dropped(), 1);
    }

    #[test]
    fn a_closed_feed_says_so_and_what_is_left_in_its_queue_is_counted() {
        let (feed, queue) = Feed::with_queue(10);
        (0..3).for_each(|entry| feed.send(1, || entry));
        let closed = queue.closed();
        assert!(!closed.is_cancelled());
        feed.close();
        assert!(closed.is_cancelled());
        feed.send(1, || unreachable!("nobody writes"));
        drop(queue);
        assert_eq!(feed.dropped(), 3);
    }

    #[test]
    fn entries_go_where_they_were_meant_to_go_when_another_takes_over() {
        let (feed, mut first) = Feed::with_queue(10);
        feed.send(1, || 1);
        let mut second = feed.another_queue(10);
        feed.send(1, || 2);
        assert_eq!((first.next_blocking(), first.next_blocking()), (Some(1), None));
        assert_eq!(second.next_blocking(), Some(2));
        assert!(feed.close_and_wait(), "both threads have ended");
    }
}
