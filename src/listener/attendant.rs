//! Attendants: threads that wait in one UDP socket each, by the call that reads, while many queries come to it and memory
//! answers nearly all. A worker waits for its sockets, its connections and its deadlines at once, which costs a system call
//! more for each query that comes alone, and a wake-up by way of epoll. But a miss is begun on a worker's thread, so that an
//! attendant has to wake one for it: where misses are many the worker reads itself. `pace` tells which it is.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::Builder;
use std::time::Duration;
use tokio::sync::oneshot;

/// How long an attendant waits at most before it looks whether it is called back.
pub(super) const PATIENCE: Duration = Duration::from_millis(100);

/// There may be so many attendants for each worker, of all together: sockets beyond are read by their worker.
const FOR_EACH_WORKER: usize = 2;

/// The attendants of all workers.
#[derive(Debug)]
pub struct Attendants {
    /// How many there may be.
    most: usize,
    /// Those that there are.
    present: Mutex<Vec<Weak<Attendance>>>,
}

/// What an attendant and its worker tell each other.
#[derive(Debug)]
pub(super) struct Attendance {
    /// The worker wants the socket back.
    is_over: AtomicBool,
    /// The attendant has been at work since it was last asked.
    is_alive: AtomicBool,
}

impl Attendance {
    /// True when the attendant has to end. It says that it is alive by asking.
    pub(super) fn is_over(&self) -> bool {
        self.is_alive.store(true, Ordering::Relaxed);
        self.is_over.load(Ordering::Acquire)
    }
}

/// An attendant at work, as its worker has it. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Attended {
    /// Shared with it.
    attendance: Arc<Attendance>,
    /// Closed when it has ended, whatever ended it.
    end: oneshot::Receiver<()>,
}

impl Attended {
    /// Waits until the attendant has ended; calls it back when `stop` comes. Cancel safe: then it is called back, too.
    pub(super) async fn until(mut self, stop: impl Future<Output = ()>) {
        // It says nothing, it only drops its end.
        tokio::select! {
            biased;
            _ = &mut self.end => {}
            () = stop => {
                self.call_back();
                let _ = (&mut self.end).await;
            }
        }
    }

    /// Calls the attendant back.
    fn call_back(&self) {
        self.attendance.is_over.store(true, Ordering::Release);
    }
}

impl Drop for Attended {
    fn drop(&mut self) {
        self.call_back();
    }
}

impl Attendants {
    /// Makes room for those of so many workers.
    pub(super) fn new(workers: usize) -> Arc<Self> {
        Arc::new(Self { most: workers * FOR_EACH_WORKER, present: Mutex::default() })
    }

    /// Has a thread do `work`, which ends soon after its [`Attendance`] is over. None when there are enough.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(super) fn attend(
        &self,
        work: impl FnOnce(&Attendance) + Send + 'static,
    ) -> io::Result<Option<Attended>> {
        let mut present = self.present.lock().unwrap_or_else(PoisonError::into_inner);
        present.retain(|attendance| attendance.strong_count() > 0);
        if present.len() >= self.most {
            return Ok(None);
        }
        let attendance =
            Arc::new(Attendance { is_over: AtomicBool::new(false), is_alive: AtomicBool::new(true) });
        let (ending, end) = oneshot::channel::<()>();
        let shared = Arc::clone(&attendance);
        Builder::new().name("attendant".to_owned()).spawn(move || {
            work(&shared);
            // In this order: who hears of the end finds the place free.
            drop(shared);
            drop(ending);
        })?;
        present.push(Arc::downgrade(&attendance));
        Ok(Some(Attended { attendance, end }))
    }

    /// Returns how many there are.
    #[cfg(test)]
    pub(super) fn present(&self) -> usize {
        let present = self.present.lock().unwrap_or_else(PoisonError::into_inner);
        present.iter().filter(|attendance| attendance.strong_count() > 0).count()
    }

    /// Returns how many gave no sign of life since this was last asked. Each gives ten a second.
    pub fn silent(&self) -> usize {
        let present = self.present.lock().unwrap_or_else(PoisonError::into_inner);
        let present = present.iter().filter_map(Weak::upgrade);
        present.filter(|attendance| !attendance.is_alive.swap(false, Ordering::Relaxed)).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use tokio::time::timeout;

    /// What is waited for in a test comes much sooner.
    const SOON: Duration = Duration::from_secs(10);

    /// An attendant that does nothing until it is over.
    fn idle(attendants: &Attendants) -> Option<Attended> {
        attendants.attend(wait).unwrap()
    }

    /// Does nothing until it is over.
    fn wait(attendance: &Attendance) {
        while !attendance.is_over() {
            std::thread::yield_now();
        }
    }

    #[tokio::test]
    async fn there_are_two_for_a_worker_and_another_when_one_has_ended() {
        let attendants = Attendants::new(1);
        let first = idle(&attendants).unwrap();
        let second = idle(&attendants).unwrap();
        assert!(idle(&attendants).is_none());
        timeout(SOON, first.until(async {})).await.unwrap();
        let third = idle(&attendants).unwrap();
        drop((second, third));
    }

    #[tokio::test]
    async fn one_ends_when_it_is_dropped_and_its_end_is_seen_after_a_panic() {
        let attendants = Attendants::new(1);
        let (ends, end) = mpsc::channel();
        let work = move |attendance: &Attendance| {
            wait(attendance);
            ends.send(()).unwrap();
        };
        drop(attendants.attend(work).unwrap().unwrap());
        end.recv_timeout(SOON).unwrap();
        let broken = attendants.attend(|_| panic!("as a test wants it")).unwrap().unwrap();
        timeout(SOON, broken.until(std::future::pending())).await.unwrap();
    }

    #[test]
    fn one_that_is_stuck_is_told_from_one_that_works() {
        let attendants = Attendants::new(1);
        let (free, held) = mpsc::channel::<()>();
        let _stuck = attendants.attend(move |_| held.recv().unwrap_or_default()).unwrap().unwrap();
        let _working = idle(&attendants).unwrap();
        attendants.silent();
        let begun = crate::clock::now();
        while attendants.silent() != 1 {
            assert!(begun.elapsed() < SOON, "the one that works gives a sign, the other none");
            std::thread::yield_now();
        }
        drop(free);
    }
}
