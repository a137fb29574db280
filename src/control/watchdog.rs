//! The watchdog of systemd is fed only while every thread that serves clients or asks servers does its work: each is asked
//! for a sign of life, and one that gives none in time keeps the others' from being passed on.

use super::systemd;
use crate::listener::attendant::Attendants;
use futures_util::future::join_all;
use std::convert::Infallible;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::MissedTickBehavior;
use tokio_util::task::TaskTracker;
use tracing::error;

/// Feeds the watchdog, if there is one, while all `threads` and `attendants` are alive. Cancel safe.
pub(super) async fn feed(threads: Vec<Handle>, attendants: &Attendants) -> Infallible {
    let Some(interval) = systemd::watchdog_interval() else { return std::future::pending().await };
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let stuck = stuck(&threads, interval).await;
        let silent = attendants.silent();
        if stuck.is_empty() && silent == 0 {
            systemd::alive();
        } else {
            error!(workers = ?stuck, attendants = silent, "no sign of life; the watchdog is not fed");
        }
    }
}

/// Asks every thread for a sign of life; returns the places of those that gave none within `limit`.
async fn stuck(threads: &[Handle], limit: Duration) -> Vec<usize> {
    let signs = TaskTracker::new();
    let asked = threads.iter().map(|thread| {
        let (alive, sign) = oneshot::channel();
        // One that is stuck drops the task with its runtime: there is one a tick, and the watchdog ends that soon.
        signs.spawn_on(async move { alive.send(()) }, thread);
        tokio::time::timeout(limit, sign)
    });
    let heard = join_all(asked).await.into_iter().enumerate();
    heard.filter(|(_, sign)| !matches!(sign, Ok(Ok(())))).map(|(place, _)| place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    /// A thread with a runtime that ends with the test.
    fn thread() -> Handle {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let handle = runtime.handle().clone();
        std::thread::spawn(move || runtime.block_on(std::future::pending::<()>()));
        handle
    }

    #[tokio::test]
    async fn a_thread_that_is_stuck_is_told_from_those_that_work() {
        let threads = [thread(), thread(), thread()];
        let patience = Duration::from_secs(20);
        assert!(stuck(&threads, patience).await.is_empty());
        let (free, held) = mpsc::channel::<()>();
        let (begun, begins) = oneshot::channel();
        TaskTracker::new().spawn_on(
            async move {
                let _ = begun.send(());
                // Blocks the thread, as a bug would.
                let _ = held.recv();
            },
            &threads[1],
        );
        begins.await.unwrap();
        assert_eq!(stuck(&threads, Duration::from_secs(1)).await, [1]);
        drop(free);
        assert!(stuck(&threads, patience).await.is_empty());
    }
}
