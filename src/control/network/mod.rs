//! Notices that the network is another one, or that the machine slept, and makes the servers' side start afresh: connections
//! of before are dead, though TCP may not tell for minutes. Deciding is pure; what the system tells comes through
//! [`NetworkEvents`]. What is *not* here: what starting afresh means (`app::core`, `transport`).
//!
//! ```text
//! netlink ──▶ Outlook ──differs──▶ Settling ──300 ms of quiet, 2 s since the last──▶ start afresh
//! clocks ───▶ Clocks ──wall clock ran ahead──────▲
//! ```

#[cfg(any(target_os = "linux", target_os = "android"))]
pub mod netlink;
pub mod outlook;

use crate::app::core::Core;
use crate::clock;
use crate::telemetry::throttle::Throttle;
use outlook::Outlook;
use std::convert::Infallible;
use std::future::Future;
use std::time::{Duration, Instant, SystemTime};
use tracing::info;

/// A change is acted on when nothing has changed for this long: an interface that comes up brings several events.
const QUIET: Duration = Duration::from_millis(300);
/// But no later than this: addresses may come and go without an end.
const LONGEST_WAIT: Duration = Duration::from_secs(1);
/// Time from one start to the next at least.
const APART: Duration = Duration::from_secs(2);
/// How often the clocks are compared.
const TICK: Duration = Duration::from_secs(1);
/// How far the wall clock must run ahead of the monotonic one, which stands still while the machine sleeps. A clock that is
/// set right by more than this looks the same and is as good a reason: certificates are judged anew.
const SLEPT: Duration = Duration::from_secs(5);

/// What the system tells of its network.
pub trait NetworkEvents: Send {
    /// Waits until addresses or routes may have changed. Cancel safe.
    fn changed(&mut self) -> impl Future<Output = ()> + Send;
    /// Returns what there is now.
    fn outlook(&self) -> Outlook;
}

/// No events: the clocks alone.
#[derive(Clone, Copy, Debug)]
pub struct NoEvents;

impl NetworkEvents for NoEvents {
    async fn changed(&mut self) {
        std::future::pending().await
    }

    fn outlook(&self) -> Outlook {
        Outlook::default()
    }
}

/// Makes `core` start afresh whenever the network has changed or the machine slept; for ever. Cancel safe.
pub async fn keep_fresh(core: &Core, events: impl NetworkEvents) -> Infallible {
    let mut watch = Watch::new(events);
    core.is_on(watch.settling.outlook.network());
    // Who is on the same link can announce prefixes for as long as he likes.
    let mut throttle = Throttle::default();
    loop {
        let news = watch.next().await;
        if let Some(unsaid) = throttle.pass(crate::clock::now()) {
            let unsaid = (unsaid > 0).then_some(unsaid);
            match news {
                News::Network => info!(unsaid, "the network changed; connections to servers start afresh"),
                News::Resumed => info!(unsaid, "the machine slept; connections to servers start afresh"),
            }
        }
        core.is_on(watch.settling.outlook.network());
        core.start_afresh();
    }
}

/// As `keep_fresh`, with what this system has to tell.
pub async fn keep_fresh_here(core: &Core) -> Infallible {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    match netlink::Netlink::open() {
        Ok(events) => return keep_fresh(core, events).await,
        Err(error) => {
            tracing::warn!(%error, "changes of the network cannot be watched (netlink); only a sleep of the machine is noticed");
        }
    }
    keep_fresh(core, NoEvents).await
}

/// Why to start afresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum News {
    /// Addresses or default routes are others.
    Network,
    /// The machine slept.
    Resumed,
}

/// Waits for news.
struct Watch<E> {
    /// What the system tells.
    events: E,
    /// What became of it.
    settling: Settling,
    /// Tells a sleep.
    clocks: Clocks,
}

impl<E: NetworkEvents> Watch<E> {
    /// Begins with the network as it is.
    fn new(events: E) -> Self {
        let settling = Settling::new(events.outlook());
        Self { events, settling, clocks: Clocks::new(clock::now(), clock::wall()) }
    }

    /// Waits for the next reason to start afresh. Cancel safe.
    async fn next(&mut self) -> News {
        loop {
            let now = clock::now();
            if let Some(news) = self.settling.take(now) {
                return news;
            }
            let tick = now + TICK;
            let wake = self.settling.due().map_or(tick, |due| due.min(tick));
            tokio::select! {
                () = self.events.changed() => self.settling.see(self.events.outlook(), clock::now()),
                () = tokio::time::sleep_until(wake.into()) => self.compare_clocks(),
            }
        }
    }

    /// Looks whether the machine slept.
    fn compare_clocks(&mut self) {
        let now = clock::now();
        if self.clocks.slept(now, clock::wall()).is_some() {
            self.settling.resume(now);
        }
    }
}

/// Changes on their way to become news. Pure.
#[derive(Debug)]
struct Settling {
    /// The network as last seen.
    outlook: Outlook,
    /// The first change that is not yet news, and the last.
    change: Option<(Instant, Instant)>,
    /// A resume that is not yet news.
    resumed: Option<Instant>,
    /// When the latest news was.
    told_at: Option<Instant>,
}

impl Settling {
    /// Begins with a network.
    fn new(outlook: Outlook) -> Self {
        Self { outlook, change: None, resumed: None, told_at: None }
    }

    /// Sees the network. A change that is taken back is one all the same: the connections may not have lived through it.
    fn see(&mut self, outlook: Outlook, now: Instant) {
        if outlook != self.outlook {
            self.outlook = outlook;
            let first = self.change.map_or(now, |(first, _)| first);
            self.change = Some((first, now));
        }
    }

    /// Notes that the machine slept.
    fn resume(&mut self, now: Instant) {
        self.resumed.get_or_insert(now);
    }

    /// Returns when there will be news, as things are.
    fn due(&self) -> Option<Instant> {
        let settled = self.change.map(|(first, last)| (last + QUIET).min(first + LONGEST_WAIT));
        let due = match (self.resumed, settled) {
            (Some(resumed), Some(settled)) => resumed.min(settled),
            (resumed, settled) => resumed.or(settled)?,
        };
        Some(self.told_at.map_or(due, |told| due.max(told + APART)))
    }

    /// Returns the news that are due, once.
    fn take(&mut self, now: Instant) -> Option<News> {
        self.due().filter(|due| *due <= now)?;
        self.told_at = Some(now);
        self.change = None;
        Some(if self.resumed.take().is_some() { News::Resumed } else { News::Network })
    }
}

/// Two clocks of which one stands still while the machine sleeps. Pure.
#[derive(Debug)]
struct Clocks {
    /// The one that stands still.
    monotonic: Instant,
    /// The one that does not.
    wall: SystemTime,
}

impl Clocks {
    /// Begins to compare.
    fn new(monotonic: Instant, wall: SystemTime) -> Self {
        Self { monotonic, wall }
    }

    /// Returns for how long the machine slept since the last look, if it did.
    fn slept(&mut self, monotonic: Instant, wall: SystemTime) -> Option<Duration> {
        let awake = monotonic.saturating_duration_since(self.monotonic);
        let passed = wall.duration_since(self.wall).unwrap_or_default();
        *self = Self::new(monotonic, wall);
        passed.checked_sub(awake).filter(|ahead| *ahead > SLEPT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outlook(gateway: &str) -> Outlook {
        let mut outlook = Outlook::default();
        outlook.add_address(gateway.parse().unwrap());
        outlook
    }

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_burst_of_changes_is_one_after_a_moment_of_quiet() {
        let start = clock::now();
        let mut settling = Settling::new(outlook("192.0.2.1"));
        for at in [0, 100, 200] {
            settling.see(outlook(&format!("192.0.2.{}", at / 10 + 2)), start + millis(at));
        }
        assert_eq!(settling.take(start + millis(499)), None);
        assert_eq!(settling.take(start + millis(500)), Some(News::Network));
        assert_eq!((settling.take(start + millis(5000)), settling.due()), (None, None));
    }

    #[test]
    fn endless_changes_are_told_after_a_second_and_then_every_two() {
        let start = clock::now();
        let mut settling = Settling::new(outlook("192.0.2.1"));
        let mut told = Vec::new();
        for step in 0..600 {
            let at = step * 10;
            settling.see(outlook(&format!("192.0.2.{}", step % 200)), start + millis(at));
            told.extend(settling.take(start + millis(at)).map(|_| at));
        }
        assert_eq!(told, [1000, 3000, 5000]);
    }

    #[test]
    fn events_that_change_nothing_that_matters_are_no_news() {
        let start = clock::now();
        let mut settling = Settling::new(outlook("192.0.2.1"));
        settling.see(outlook("192.0.2.1"), start);
        assert_eq!(settling.due(), None);
    }

    #[test]
    fn a_network_that_went_and_came_back_is_news() {
        let start = clock::now();
        let mut settling = Settling::new(outlook("192.0.2.1"));
        settling.see(Outlook::default(), start);
        settling.see(outlook("192.0.2.1"), start + millis(50));
        assert_eq!(settling.take(start + millis(350)), Some(News::Network));
    }

    #[test]
    fn a_resume_is_told_at_once() {
        let start = clock::now();
        let mut settling = Settling::new(outlook("192.0.2.1"));
        settling.resume(start);
        settling.see(outlook("192.0.2.2"), start);
        assert_eq!(settling.take(start), Some(News::Resumed));
        assert_eq!(settling.due(), None);
        settling.see(outlook("192.0.2.3"), start + millis(10));
        assert_eq!(settling.take(start + millis(1999)), None);
        assert_eq!(settling.take(start + millis(2000)), Some(News::Network));
    }

    #[test]
    fn a_sleep_shows_in_the_clocks_and_small_corrections_do_not() {
        let (mono, wall) = (clock::now(), clock::wall());
        let secs = Duration::from_secs;
        let cases = [
            ("a second awake", secs(1), wall + secs(1), None),
            ("a correction by NTP", secs(1), wall + secs(6), None),
            ("a sleep", secs(1), wall + secs(3601), Some(secs(3600))),
            ("a clock set back", secs(1), wall - secs(3600), None),
            ("a busy machine", secs(60), wall + secs(60), None),
        ];
        for (what, awake, later, expected) in cases {
            let mut clocks = Clocks::new(mono, wall);
            assert_eq!(clocks.slept(mono + awake, later), expected, "{what}");
            assert_eq!(clocks.slept(mono + awake + secs(1), later + secs(1)), None, "{what}, once");
        }
    }
}
