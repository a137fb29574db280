//! Waiting for what comes seldom beside what comes often: the end of a service beside its queries, say.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

/// A future that is polled only after it was woken. A token that is asked at each turn of a loop whether it is time takes its
/// lock each time, which costs a query that comes alone some 150 instructions; this takes a load.
#[derive(Debug)]
pub struct Seldom<F> {
    /// What is waited for.
    future: Pin<Box<F>>,
    /// What it wakes.
    bell: Arc<Bell>,
    /// The same, as a waker.
    waker: Waker,
    /// Whom the bell wakes.
    waits: Option<Waker>,
}

/// Rung when the future should be polled.
#[derive(Debug)]
struct Bell {
    /// It has rung since the future was last polled.
    has_rung: AtomicBool,
    /// Whom to wake. It stays when it was woken: who is woken for nothing waits on.
    waits: Mutex<Option<Waker>>,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // In this order: who waits is noted before it is looked whether the bell has rung.
        self.has_rung.store(true, Ordering::Release);
        let waits = self.waits.lock().unwrap_or_else(PoisonError::into_inner).clone();
        waits.inspect(Waker::wake_by_ref);
    }
}

impl<F: Future> Seldom<F> {
    /// Waits for `future`, which is polled once at the first poll of this, and then after each time that it was woken.
    pub fn new(future: F) -> Self {
        let bell = Arc::new(Bell { has_rung: AtomicBool::new(true), waits: Mutex::new(None) });
        Self { future: Box::pin(future), waker: Arc::clone(&bell).into(), bell, waits: None }
    }
}

impl<F: Future> Future for Seldom<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        if !self.waits.as_ref().is_some_and(|waits| waits.will_wake(cx.waker())) {
            *self.bell.waits.lock().unwrap_or_else(PoisonError::into_inner) = Some(cx.waker().clone());
            self.waits = Some(cx.waker().clone());
        }
        if !self.bell.has_rung.load(Ordering::Acquire) {
            return Poll::Pending;
        }
        // Before the future is polled, and in one step: what rings meanwhile rings again, and what rang is seen by the future.
        self.bell.has_rung.swap(false, Ordering::AcqRel);
        let Self { future, waker, bell, .. } = &mut *self;
        let polled = future.as_mut().poll(&mut Context::from_waker(waker));
        if polled.is_ready() {
            // Who asks once more gets the future's own word.
            bell.has_rung.store(true, Ordering::Release);
        }
        polled
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::future::poll_fn;
    use std::sync::atomic::AtomicUsize;
    use tokio::sync::oneshot;
    use tokio_util::sync::CancellationToken;

    /// Counts how often it is woken.
    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn counted() -> (Arc<Count>, Waker) {
        let count = Arc::new(Count::default());
        (Arc::clone(&count), count.into())
    }

    #[test]
    fn it_is_polled_when_it_was_woken_and_not_otherwise() {
        let polls = AtomicUsize::new(0);
        let mut inner = None;
        let mut seldom = Seldom::new(poll_fn(|cx| {
            inner = Some(cx.waker().clone());
            if polls.fetch_add(1, Ordering::SeqCst) < 3 { Poll::Pending } else { Poll::Ready(7) }
        }));
        let (count, waker) = counted();
        let mut poll = |waker: &Waker| Pin::new(&mut seldom).poll(&mut Context::from_waker(waker));
        for _ in 0..5 {
            assert!(poll(&waker).is_pending());
        }
        assert_eq!((polls.load(Ordering::SeqCst), count.0.load(Ordering::SeqCst)), (1, 0));
        let token = CancellationToken::new();
        let mut waits = Seldom::new(token.cancelled());
        assert!(Pin::new(&mut waits).poll(&mut Context::from_waker(&waker)).is_pending());
        token.cancel();
        assert_eq!(count.0.load(Ordering::SeqCst), 1);
        for _ in 0..2 {
            assert!(Pin::new(&mut waits).poll(&mut Context::from_waker(&waker)).is_ready());
        }
    }

    #[test]
    fn who_is_woken_for_nothing_and_who_waits_in_place_of_another_are_woken_still() {
        let rings = Arc::new(Mutex::new(None::<Waker>));
        let (seen, polls) = (Arc::clone(&rings), Arc::new(AtomicUsize::new(0)));
        let counted_polls = Arc::clone(&polls);
        let mut seldom = Seldom::new(poll_fn(move |cx| {
            *seen.lock().unwrap() = Some(cx.waker().clone());
            let polled = counted_polls.fetch_add(1, Ordering::SeqCst);
            if polled < 3 { Poll::Pending } else { Poll::Ready(()) }
        }));
        let ring = || rings.lock().unwrap().clone().unwrap().wake();
        let (first, one) = counted();
        let (second, other) = counted();
        assert!(Pin::new(&mut seldom).poll(&mut Context::from_waker(&one)).is_pending());
        for woken in 1..=2 {
            ring();
            assert_eq!(first.0.load(Ordering::SeqCst), woken);
            assert!(Pin::new(&mut seldom).poll(&mut Context::from_waker(&one)).is_pending());
        }
        assert!(Pin::new(&mut seldom).poll(&mut Context::from_waker(&other)).is_pending());
        assert_eq!(polls.load(Ordering::SeqCst), 3);
        ring();
        assert_eq!((first.0.load(Ordering::SeqCst), second.0.load(Ordering::SeqCst)), (2, 1));
        assert!(Pin::new(&mut seldom).poll(&mut Context::from_waker(&other)).is_ready());
    }

    #[test]
    fn no_ring_of_another_thread_is_missed() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        for _ in 0..500 {
            let (send, receive) = oneshot::channel();
            let sends = std::thread::spawn(move || send.send(1).unwrap());
            assert_eq!(runtime.block_on(Seldom::new(receive)), Ok(1));
            sends.join().unwrap();
        }
    }
}
