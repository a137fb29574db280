//! The one task that turns the flights: waits for work or for the next deadline, does everything that has come, and
//! waits again. The thin shell around `flights`; nothing is decided here.

use super::flights::Flights;
use super::inbox::{Inbox, Work};
use crate::seldom::Seldom;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Instant;
use tokio::time::Sleep;
use tokio_util::sync::CancellationToken;

/// Runs until `cancel`, then replies to all who still wait.
pub(super) async fn drive(mut flights: Flights, inbox: Arc<Inbox>, cancel: CancellationToken) {
    let mut work = Work::default();
    let mut cancelled = Seldom::new(cancel.cancelled());
    let mut alarm = Alarm::new();
    loop {
        let stop = poll_fn(|cx| {
            if Pin::new(&mut cancelled).poll(cx).is_ready() {
                return Poll::Ready(true);
            }
            let has_work = inbox.take(&mut work, cx.waker());
            if has_work || alarm.poll(cx).is_ready() { Poll::Ready(false) } else { Poll::Pending }
        })
        .await;
        let now = crate::clock::now();
        if stop {
            // What came since the last turn has clients too.
            inbox.take(&mut work, Waker::noop());
            flights.turn(&mut work, now);
            flights.end_all(now);
            flights.hand_over_traces(crate::clock::now);
            return;
        }
        flights.turn(&mut work, now);
        flights.hand_over_traces(crate::clock::now);
        alarm.set(flights.next_at());
    }
}

/// One timer for all deadlines. It is moved only when it rings or must ring earlier: a deadline that goes away lets it
/// ring once for nothing, which is cheaper than moving it for each flight.
struct Alarm {
    /// The timer.
    sleep: std::pin::Pin<Box<Sleep>>,
    /// When it rings; None while nothing is due.
    at: Option<Instant>,
}

impl Alarm {
    /// Makes a timer that does not ring.
    fn new() -> Self {
        Self { sleep: Box::pin(tokio::time::sleep_until(crate::clock::now().into())), at: None }
    }

    /// Makes it ring at `at` at the latest.
    fn set(&mut self, at: Option<Instant>) {
        let Some(at) = at else { return };
        if self.at.is_none_or(|current| at < current) {
            self.sleep.as_mut().reset(at.into());
            self.at = Some(at);
        }
    }

    /// Ready when it rings.
    fn poll(&mut self, cx: &mut std::task::Context<'_>) -> Poll<()> {
        if self.at.is_none() {
            return Poll::Pending;
        }
        let rung = self.sleep.as_mut().poll(cx);
        if rung.is_ready() {
            self.at = None;
        }
        rung
    }
}
