//! Whether one server is well: a circuit breaker that turns samples into `Up` or `Down`. Pure: time and randomness are
//! handed in. It does not ask the server (`probe`) nor choose another (`strategy`).
//!
//! ```text
//!        3 failures in a row, or below half of >= 10 in 30 s,
//!        a wrong certificate, "busy"
//!   Up ───────────────────────────────────────────────────────▶ Down { probe_at }
//!    ▲                                                            │        ▲
//!    └──── an answer, to a probe or to a last-resort query ───────┘        │ the probe failed:
//!                                                                 └────────┘ twice the wait
//! ```
//!
//! Probes alone lengthen the wait, so a busy client cannot: users' queries that a downed server fails (it is asked when
//! all others are down too) change nothing.

use super::Sample;
use std::time::{Duration, Instant};

/// Failures in a row that mean down: one or two are lost packets.
const FAILURES_IN_A_ROW: u32 = 3;

/// Time-outs this close together count once in a row: a page asks for A, AAAA and HTTPS of one slow name at once, and that name
/// must not take the server down. Shorter than the shortest attempt, so attempts one after the other all count.
pub(super) const TOGETHER: Duration = Duration::from_millis(200);

/// The window needs this many samples before its share means anything.
const WINDOW_SAMPLES: u32 = 10;

/// Buckets of the window and the width of each: 30 s in all.
const BUCKETS: usize = 10;
/// See [`BUCKETS`].
const BUCKET_WIDTH: Duration = Duration::from_secs(3);

/// The wait before the first probe; it doubles with each that fails.
const FIRST_BACKOFF: Duration = Duration::from_secs(1);

/// The longest wait between probes, before jitter. A server that recovers is to be used again within 30 s: a probe that just
/// missed the recovery (4 s, `probe::PROBE_TIMEOUT`), this with its jitter (19.2 s) and the probe that succeeds (at most 4 s) are 27.2 s.
const LONGEST_BACKOFF: Duration = Duration::from_secs(16);

/// The longest wait between probes while no server of a group is up: then every second is an outage.
const LONGEST_BACKOFF_ALONE: Duration = Duration::from_secs(2);

/// Percent by which a wait is lengthened or shortened at random, so that many gateways do not return in step.
const JITTER_PERCENT: u64 = 20;

/// How long a busy server is left alone when it does not say, and at most.
const BUSY_DEFAULT: Duration = Duration::from_secs(5);
/// See [`BUSY_DEFAULT`].
const BUSY_MOST: Duration = Duration::from_secs(60);

/// Up or down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Asked in its turn.
    Up,
    /// Asked last.
    Down {
        /// When the prober looks again.
        probe_at: Instant,
    },
}

/// A change of state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transition {
    /// From up to down.
    WentDown,
    /// From down to up.
    CameUp {
        /// How long it was down.
        after: Duration,
    },
}

/// Whether the rest of a server's group can stand in for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Company {
    /// In each of its groups some server is up.
    SomeUp,
    /// A group of its has none left.
    NoneUp,
}

/// The breaker of one server.
#[derive(Debug)]
pub struct Health {
    /// None while up.
    outage: Option<Outage>,
    /// Failures since the last answer.
    in_a_row: u32,
    /// The latest time-out that counted in a row.
    timed_out_at: Option<Instant>,
    /// Answers and failures of the last 30 s.
    window: Window,
}

/// One time of being down.
#[derive(Clone, Copy, Debug)]
struct Outage {
    /// When it began.
    since: Instant,
    /// What it is about.
    cause: Cause,
    /// When the server was last found down: at the start, or by a probe.
    found_at: Instant,
    /// When to look again.
    probe_at: Instant,
    /// Failed probes.
    probes: u32,
}

/// Why a server is down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// It fails: any answer ends it.
    Failing,
    /// It asked for peace until `probe_at`: answers to queries that were under way do not end it, or it would be asked at once again.
    Busy,
}

impl Health {
    /// Makes that of a server nothing is known of: up.
    pub fn new(now: Instant) -> Self {
        Self { outage: None, in_a_row: 0, timed_out_at: None, window: Window::new(now) }
    }

    /// Returns true unless down.
    pub fn is_up(&self) -> bool {
        self.outage.is_none()
    }

    /// Returns the state.
    pub fn state(&self) -> State {
        match &self.outage {
            None => State::Up,
            Some(outage) => State::Down { probe_at: outage.probe_at },
        }
    }

    /// Returns when to probe if down: sooner than planned when nobody can stand in, except for a server that asked for peace.
    pub fn probe_due(&self, company: Company) -> Option<Instant> {
        let outage = self.outage.as_ref()?;
        Some(match (company, outage.cause) {
            (Company::NoneUp, Cause::Failing) => outage.probe_at.min(outage.found_at + LONGEST_BACKOFF_ALONE),
            (Company::SomeUp, Cause::Failing) | (_, Cause::Busy) => outage.probe_at,
        })
    }

    /// Enters what became of a user's query; `dice` is any random number.
    pub fn observe(&mut self, sample: &Sample, dice: u64, now: Instant) -> Option<Transition> {
        match (&self.outage, sample) {
            (_, Sample::Neutral) => None,
            (None, Sample::Answered { .. }) => {
                self.in_a_row = 0;
                self.window.count(Verdict::Success, now);
                None
            }
            (None, Sample::Failed { .. }) => {
                self.in_a_row = self.in_a_row.saturating_add(1);
                self.count_failure(dice, now)
            }
            (None, Sample::TimedOut) => {
                if self.timed_out_at.is_none_or(|at| now.saturating_duration_since(at) >= TOGETHER) {
                    self.timed_out_at = Some(now);
                    self.in_a_row = self.in_a_row.saturating_add(1);
                }
                self.count_failure(dice, now)
            }
            (None, Sample::Certificate { .. }) => {
                self.go_down(Cause::Failing, jittered(FIRST_BACKOFF, dice), now)
            }
            (None, Sample::Busy { retry_after }) => self.go_down(Cause::Busy, busy_time(*retry_after), now),
            (Some(outage), Sample::Answered { .. }) => match outage.cause {
                Cause::Failing => self.come_up(now),
                Cause::Busy => None,
            },
            (
                Some(_),
                Sample::Failed { .. } | Sample::TimedOut | Sample::Certificate { .. } | Sample::Busy { .. },
            ) => None,
        }
    }

    /// Enters what became of a probe. Of a server that is up it counts like a user's query.
    pub fn probed(&mut self, sample: &Sample, dice: u64, now: Instant) -> Option<Transition> {
        let Some(outage) = &mut self.outage else {
            return self.observe(sample, dice, now);
        };
        match sample {
            Sample::Answered { .. } => return self.come_up(now),
            Sample::Failed { .. } | Sample::TimedOut | Sample::Certificate { .. } => {
                outage.cause = Cause::Failing;
                outage.probes = outage.probes.saturating_add(1);
                outage.probe_at = now + jittered(backoff(outage.probes), dice);
            }
            Sample::Busy { retry_after } => {
                outage.cause = Cause::Busy;
                outage.probe_at = now + busy_time(*retry_after);
            }
            // Nothing was learnt: the wait begins anew, no longer than before.
            Sample::Neutral => outage.probe_at = now + jittered(backoff(outage.probes), dice),
        }
        outage.found_at = now;
        None
    }

    /// Counts a failure of a server that is up, and judges.
    fn count_failure(&mut self, dice: u64, now: Instant) -> Option<Transition> {
        self.window.count(Verdict::Failure, now);
        if self.in_a_row >= FAILURES_IN_A_ROW || self.window.is_bad(now) {
            return self.go_down(Cause::Failing, jittered(FIRST_BACKOFF, dice), now);
        }
        None
    }

    /// Begins an outage.
    fn go_down(&mut self, cause: Cause, wait: Duration, now: Instant) -> Option<Transition> {
        self.outage = Some(Outage { since: now, cause, found_at: now, probe_at: now + wait, probes: 0 });
        Some(Transition::WentDown)
    }

    /// Ends the outage. The window begins anew: what was before must not bring the server down at its next failure.
    fn come_up(&mut self, now: Instant) -> Option<Transition> {
        let outage = self.outage.take()?;
        self.in_a_row = 0;
        self.timed_out_at = None;
        self.window = Window::new(now);
        Some(Transition::CameUp { after: now.saturating_duration_since(outage.since) })
    }
}

/// Returns the wait after so many failed probes.
fn backoff(probes: u32) -> Duration {
    FIRST_BACKOFF.saturating_mul(2u32.saturating_pow(probes)).min(LONGEST_BACKOFF)
}

/// Returns `wait`, moved at random by up to [`JITTER_PERCENT`] either way.
fn jittered(wait: Duration, dice: u64) -> Duration {
    let permille = 1000 - JITTER_PERCENT * 10 + dice % (JITTER_PERCENT * 20 + 1);
    let millis = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).saturating_mul(permille) / 1000;
    Duration::from_millis(millis)
}

/// Returns how long a busy server is left alone.
fn busy_time(retry_after: Option<Duration>) -> Duration {
    retry_after.unwrap_or(BUSY_DEFAULT).min(BUSY_MOST)
}

/// One sample as the window sees it.
#[derive(Clone, Copy, Debug)]
enum Verdict {
    /// An answer.
    Success,
    /// No answer.
    Failure,
}

/// Exact counts of the last 30 s in ten buckets: a burst weighs the same as a trickle, which no moving average can say.
#[derive(Debug)]
struct Window {
    /// Buckets are numbered from here.
    start: Instant,
    /// A ring; each knows its number, so that old ones need no sweep.
    buckets: [Bucket; BUCKETS],
}

/// Counts of 3 s.
#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    /// Which 3 s since the window's start.
    number: u64,
    /// Answers.
    successes: u32,
    /// Failures.
    failures: u32,
}

impl Window {
    /// Makes an empty one.
    fn new(start: Instant) -> Self {
        Self { start, buckets: [Bucket::default(); BUCKETS] }
    }

    /// Returns the number of the bucket of `now`.
    fn number(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.start).as_secs() / BUCKET_WIDTH.as_secs()
    }

    /// Counts one sample.
    fn count(&mut self, verdict: Verdict, now: Instant) {
        let number = self.number(now);
        let slot = usize::try_from(number % BUCKETS as u64).unwrap_or(0);
        let Some(bucket) = self.buckets.get_mut(slot) else { return };
        if bucket.number != number {
            *bucket = Bucket { number, ..Bucket::default() };
        }
        match verdict {
            Verdict::Success => bucket.successes = bucket.successes.saturating_add(1),
            Verdict::Failure => bucket.failures = bucket.failures.saturating_add(1),
        }
    }

    /// Returns true when there is enough to judge by and less than half was answered.
    fn is_bad(&self, now: Instant) -> bool {
        let oldest = (self.number(now) + 1).saturating_sub(BUCKETS as u64);
        let recent = self.buckets.iter().filter(|bucket| bucket.number >= oldest);
        let (successes, failures) = recent.fold((0u32, 0u32), |(successes, failures), bucket| {
            (successes.saturating_add(bucket.successes), failures.saturating_add(bucket.failures))
        });
        successes.saturating_add(failures) >= WINDOW_SAMPLES && successes < failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::TransportError;
    use crate::upstream::Failure;

    /// Dice of no jitter: the middle of the range.
    const FAIR: u64 = JITTER_PERCENT * 10;

    fn answered() -> Sample {
        Sample::Answered { latency: Duration::from_millis(10) }
    }
    fn failed() -> Sample {
        Sample::Failed { error: Failure::from(&TransportError::Closed) }
    }
    fn untrusted() -> Sample {
        Sample::Certificate { error: Failure::from(&TransportError::Pin) }
    }
    fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }
    fn start() -> (Health, Instant) {
        let now = crate::clock::now();
        (Health::new(now), now)
    }
    fn downed() -> (Health, Instant) {
        let (mut health, now) = start();
        for _ in 0..3 {
            health.observe(&failed(), FAIR, now);
        }
        assert!(!health.is_up());
        (health, now)
    }

    #[test]
    fn third_failure_in_a_row_takes_a_server_down() {
        let (mut health, now) = start();
        assert_eq!(health.observe(&failed(), FAIR, now), None);
        assert_eq!(health.observe(&Sample::TimedOut, FAIR, now), None);
        assert_eq!(health.observe(&failed(), FAIR, now), Some(Transition::WentDown));
        assert_eq!(health.state(), State::Down { probe_at: now + secs(1) });
    }

    #[test]
    fn an_answer_in_between_starts_the_count_anew() {
        let (mut health, now) = start();
        for sample in [failed(), failed(), answered(), failed(), failed()] {
            assert_eq!(health.observe(&sample, FAIR, now), None);
        }
        assert!(health.is_up());
    }

    #[test]
    fn one_slow_name_asked_for_three_types_does_not_take_a_server_down() {
        let (mut health, now) = start();
        for millis in [0, 5, 9] {
            let at = now + Duration::from_millis(millis);
            assert_eq!(health.observe(&Sample::TimedOut, FAIR, at), None);
        }
        assert_eq!(health.observe(&Sample::TimedOut, FAIR, now + Duration::from_millis(250)), None);
        let third = health.observe(&Sample::TimedOut, FAIR, now + Duration::from_millis(500));
        assert_eq!(third, Some(Transition::WentDown));
    }

    #[test]
    fn neutral_samples_neither_count_nor_reset() {
        let (mut health, now) = start();
        for sample in [failed(), Sample::Neutral, failed(), Sample::Neutral] {
            assert_eq!(health.observe(&sample, FAIR, now), None);
        }
        assert_eq!(health.observe(&failed(), FAIR, now), Some(Transition::WentDown));
    }

    #[test]
    fn less_than_half_of_ten_answered_takes_a_server_down() {
        let (mut health, mut now) = start();
        let mut changes = Vec::new();
        for _ in 0..4 {
            for sample in [failed(), failed(), answered()] {
                now += Duration::from_millis(500);
                changes.extend(health.observe(&sample, FAIR, now));
            }
        }
        assert_eq!(changes.first(), Some(&Transition::WentDown));
    }

    #[test]
    fn failures_older_than_the_window_are_forgotten() {
        let (mut health, now) = start();
        for sample in [failed(), failed(), answered()].iter().cycle().take(9) {
            assert_eq!(health.observe(sample, FAIR, now), None);
        }
        assert_eq!(health.observe(&failed(), FAIR, now + secs(31)), None);
        assert!(health.is_up());
    }

    #[test]
    fn a_wrong_certificate_takes_a_server_down_at_once() {
        let (mut health, now) = start();
        assert_eq!(health.observe(&untrusted(), FAIR, now), Some(Transition::WentDown));
    }

    #[test]
    fn waits_between_probes_double_up_to_their_cap() {
        let (mut health, mut now) = downed();
        let mut waits = Vec::new();
        for _ in 0..7 {
            let State::Down { probe_at } = health.state() else { panic!("up") };
            waits.push((probe_at - now).as_secs());
            now = probe_at;
            assert_eq!(health.probed(&failed(), FAIR, now), None);
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 16, 16]);
    }

    #[test]
    fn jitter_stays_within_a_fifth_and_the_promise_of_30_seconds() {
        for dice in (0..10_000).chain([u64::MAX]) {
            let wait = jittered(LONGEST_BACKOFF, dice);
            assert!(
                wait >= Duration::from_millis(12_800) && wait <= Duration::from_millis(19_200),
                "{wait:?}"
            );
        }
    }

    #[test]
    fn without_company_probes_come_within_two_seconds() {
        let (mut health, now) = downed();
        for _ in 0..6 {
            health.probed(&failed(), FAIR, now);
        }
        assert_eq!(health.probe_due(Company::SomeUp), Some(now + secs(16)));
        assert_eq!(health.probe_due(Company::NoneUp), Some(now + secs(2)));
    }

    #[test]
    fn a_users_query_that_fails_again_does_not_put_the_probe_off() {
        let (mut health, now) = downed();
        let before = health.state();
        for sample in [failed(), Sample::TimedOut, untrusted(), Sample::Busy { retry_after: Some(secs(60)) }]
        {
            assert_eq!(health.observe(&sample, FAIR, now + secs(1)), None);
        }
        assert_eq!(health.state(), before);
    }

    #[test]
    fn probe_or_last_resort_answer_brings_a_server_up_with_a_clean_slate() {
        for by_probe in [true, false] {
            let (mut health, now) = downed();
            let later = now + secs(5);
            let change = if by_probe {
                health.probed(&answered(), FAIR, later)
            } else {
                health.observe(&answered(), FAIR, later)
            };
            assert_eq!(change, Some(Transition::CameUp { after: secs(5) }));
            assert_eq!(health.observe(&failed(), FAIR, later), None);
            assert_eq!(health.observe(&failed(), FAIR, later), None);
        }
    }

    #[test]
    fn a_busy_server_is_left_alone_as_long_as_it_asks_within_a_minute() {
        for (asked, granted) in [(None, 5), (Some(secs(7)), 7), (Some(secs(3600)), 60)] {
            let (mut health, now) = start();
            let change = health.observe(&Sample::Busy { retry_after: asked }, FAIR, now);
            assert_eq!(change, Some(Transition::WentDown));
            assert_eq!(health.state(), State::Down { probe_at: now + secs(granted) });
            assert_eq!(health.probe_due(Company::NoneUp), Some(now + secs(granted)));
        }
    }

    #[test]
    fn answers_under_way_do_not_end_the_peace_a_busy_server_asked_for() {
        let (mut health, now) = start();
        health.observe(&Sample::Busy { retry_after: Some(secs(7)) }, FAIR, now);
        assert_eq!(health.observe(&answered(), FAIR, now), None);
        assert!(!health.is_up());
        assert!(health.probed(&answered(), FAIR, now + secs(7)).is_some());
    }
}
