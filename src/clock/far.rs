//! Deadlines that are far away, such as the end of an idle connection. A worker that waits for queries while one of its own
//! tasks has a timer waits with a time limit, and then the kernel starts and cancels a timer for each query that comes alone:
//! up to a tenth of what such a query costs. So the timers of far deadlines are another runtime's, where nobody waits for queries,
//! and a worker with nothing to do waits without a limit.

use std::cell::RefCell;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::time::Sleep;

/// A deadline this far away is far.
const FAR: Duration = Duration::from_secs(5);

thread_local! {
    /// Keeps the timers of far deadlines for tasks of this thread.
    static KEEPER: RefCell<Option<Handle>> = const { RefCell::new(None) };
}

/// Has the far deadlines of this thread's tasks kept by another runtime, which is driven as long as they run.
pub fn kept_by(keeper: Handle) {
    KEEPER.with_borrow_mut(|kept_by| *kept_by = Some(keeper));
}

/// Sleeps until `at`. Needs a runtime with timers; where no other one keeps far deadlines it is this one that does.
pub fn sleep_until(at: Instant) -> Sleep {
    sleep(at, is_far(at))
}

/// Sleeps until `at`, by the keeper's timer or by this runtime's.
fn sleep(at: Instant, is_far: bool) -> Sleep {
    let keeper = if is_far { KEEPER.with_borrow(Option::clone) } else { None };
    let _inside = keeper.as_ref().map(Handle::enter);
    tokio::time::sleep_until(at.into())
}

/// True for a deadline that another runtime keeps.
fn is_far(at: Instant) -> bool {
    at.saturating_duration_since(super::now()) >= FAR
}

/// The one timer of a task that has near deadlines and far ones in turn.
#[derive(Debug)]
pub struct Alarm {
    /// The timer.
    sleep: Pin<Box<Sleep>>,
    /// Another runtime's.
    is_far: bool,
}

impl Alarm {
    /// Makes one that rings at `at`.
    pub fn new(at: Instant) -> Self {
        let is_far = is_far(at);
        Self { sleep: Box::pin(sleep(at, is_far)), is_far }
    }

    /// Returns when it rings.
    pub fn deadline(&self) -> Instant {
        self.sleep.deadline().into_std()
    }

    /// Makes it ring at `at` instead.
    pub fn reset(&mut self, at: Instant) {
        let is_far = is_far(at);
        if is_far || self.is_far {
            // A timer stays where it was made.
            self.sleep.set(sleep(at, is_far));
            self.is_far = is_far;
        } else {
            self.sleep.as_mut().reset(at.into());
        }
    }

    /// Makes it ring at `at` or, if it would anyway, earlier. A near deadline is never left to the keeper, which may be busy: what
    /// it should have rung for is rung for at `at` instead.
    pub fn ring_by(&mut self, at: Instant) {
        if at < self.deadline() || self.is_far && !is_far(at) {
            self.reset(at);
        }
    }

    /// Ready when it has rung.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.sleep.as_mut().poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use tokio::runtime::{Builder, Runtime};

    /// A runtime with paused time, which passes as soon as nothing else is to be done.
    fn paused() -> Runtime {
        Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
    }

    #[test]
    fn it_rings_at_the_time_it_was_set_to_last() {
        paused().block_on(async {
            let begun = crate::clock::now();
            let at = |secs| begun + Duration::from_secs(secs);
            let mut alarm = Alarm::new(at(100));
            for secs in [90, 2, 1, 30, 3, 200] {
                alarm.reset(at(secs));
                assert_eq!(alarm.deadline(), at(secs));
            }
            for secs in [1, 60] {
                alarm.reset(at(secs));
                poll_fn(|cx| alarm.poll(cx)).await;
                assert_eq!(crate::clock::now(), at(secs));
            }
        });
    }

    #[test]
    fn a_near_deadline_needs_no_keeper_even_after_a_far_one_has_passed() {
        let keeper = paused();
        let handle = keeper.handle().clone();
        // Its time runs ahead, as if the worker had been busy for long; the keeper is never driven.
        let worker = std::thread::spawn(move || {
            kept_by(handle);
            paused().block_on(async {
                let begun = crate::clock::now();
                let mut alarm = Alarm::new(begun + FAR);
                tokio::time::sleep(FAR * 2).await;
                assert!(poll_fn(|cx| Poll::Ready(alarm.poll(cx).is_pending())).await);
                let near = begun + FAR * 2 + Duration::from_millis(250);
                alarm.ring_by(near);
                tokio::time::timeout(FAR, poll_fn(|cx| alarm.poll(cx))).await.unwrap();
                assert_eq!(crate::clock::now(), near);
                alarm.ring_by(near + FAR * 2);
                assert_eq!(alarm.deadline(), near, "it rings earlier anyway");
            });
        });
        worker.join().unwrap();
    }

    #[test]
    fn far_deadlines_ring_by_their_keeper_and_near_ones_without_it() {
        let keeper = paused();
        let handle = keeper.handle().clone();
        let (said, hears) = std::sync::mpsc::channel();
        let worker = std::thread::spawn(move || {
            kept_by(handle);
            Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
                let begun = crate::clock::now();
                let mut alarm = Alarm::new(begun + FAR * 2);
                alarm.reset(begun + Duration::from_millis(1));
                // Nobody drives the keeper yet.
                poll_fn(|cx| alarm.poll(cx)).await;
                alarm.reset(begun + FAR * 100);
                let is_pending = poll_fn(|cx| Poll::Ready(alarm.poll(cx).is_pending()));
                assert!(is_pending.await);
                said.send(()).unwrap();
                // Long before its time by this thread's clock, for the keeper's runs ahead.
                tokio::time::timeout(FAR * 10, poll_fn(|cx| alarm.poll(cx))).await.unwrap();
            });
        });
        hears.recv().unwrap();
        keeper.block_on(async { tokio::time::sleep(FAR * 200).await });
        worker.join().unwrap();
    }
}
