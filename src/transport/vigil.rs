//! How long a connection may be silent while queries wait, learnt from how long its answers take, and what follows from a
//! longer silence. TCP alone would not tell for minutes: behind a dead path a middlebox may go on acknowledging. Pure: it is
//! told what was sent and heard, with `now`; asking and closing are the connection's (`dot`, `doh`): by what every living
//! peer answers at once, whatever names are slow. That is a PING of HTTP/2, or a query for the root's name servers.
//!
//! ```text
//! trusted ──silent──▶ asked ──silent──▶ doubted: waiting queries are asked again elsewhere ──still silent──▶ dead
//!    ▲                  │                  │
//!    └────────────── any octet ◀───────────┘
//! ```

use std::time::{Duration, Instant};

/// No silence is shorter. TCP repairs one lost packet within 200 ms and a round trip; and it is sooner than the least time that
/// a query waits before another server is asked and this one blamed (250 ms).
const LEAST: Duration = Duration::from_millis(225);

/// No silence is longer, and nothing is known yet: the least that a resolver needs for slow names often enough.
const MOST: Duration = Duration::from_secs(1);

/// How long the answer to the question may take at least and at most: it is a round trip, and no name has to be looked up for it.
/// A lost packet was repaired before it was asked ([`LEAST`]).
const PONG: (Duration, Duration) = (Duration::from_millis(60), Duration::from_millis(400));

/// From the end of patience to the end of the connection: with [`MOST`] less than 2 s in all.
const VERDICT: Duration = Duration::from_millis(800);

/// How long answers take on a connection: as TCP estimates its round trips (RFC 6298 §2), in microseconds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pace(Option<Measured>);

/// What answers showed.
#[derive(Clone, Copy, Debug)]
struct Measured {
    /// The moving average.
    smoothed: u32,
    /// How far answers are from it, on average.
    deviation: u32,
}

impl Pace {
    /// Enters an answer's time.
    fn enter(&mut self, latency: Duration) {
        let sample = u32::try_from(latency.as_micros()).unwrap_or(u32::MAX >> 4).min(u32::MAX >> 4);
        self.0 = Some(match self.0 {
            None => Measured { smoothed: sample, deviation: sample / 2 },
            Some(Measured { smoothed, deviation }) => Measured {
                deviation: (deviation * 3 + smoothed.abs_diff(sample)) / 4,
                smoothed: (smoothed * 7 + sample) / 8,
            },
        });
    }

    /// Returns within which time nearly all answers come; None before the first.
    fn usual(&self) -> Option<Duration> {
        let Measured { smoothed, deviation } = self.0?;
        Some(Duration::from_micros(u64::from(smoothed) + 4 * u64::from(deviation)))
    }

    /// Returns how long a silence is nothing unusual.
    fn patience(&self) -> Duration {
        self.usual().map_or(MOST, |usual| usual.clamp(LEAST, MOST))
    }
}

/// What to do about a silence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Suspicion {
    /// Nothing.
    Calm,
    /// Ask for a sign of life.
    Ask,
    /// Have the waiting queries asked again elsewhere, and take no more.
    Doubt,
    /// Give the connection up.
    Dead,
}

/// The watch over one connection.
#[derive(Debug)]
pub(super) struct Vigil {
    /// How long answers take.
    pace: Pace,
    /// Since when queries wait and nothing comes. It outlives queries that time out: they do not say who is at fault.
    silent_since: Option<Instant>,
    /// What was thought of it last.
    stage: Stage,
    /// It was asked and has answered, and no query since: only the names are slow, and it need not be asked so often.
    has_ponged: bool,
}

/// What is thought of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// It is well.
    Trusted,
    /// It was asked into the silence.
    Asked {
        /// When it is doubted.
        doubt_at: Instant,
        /// When it is given up.
        dead_at: Instant,
    },
    /// It is to show that it is there.
    Doubted {
        /// When it is given up.
        dead_at: Instant,
    },
}

impl Vigil {
    /// Starts with nobody expected to say anything.
    pub(super) fn new(pace: Pace) -> Self {
        Self { pace, silent_since: None, stage: Stage::Trusted, has_ponged: false }
    }

    /// Returns how long answers take, for the next connection.
    pub(super) fn pace(&self) -> Pace {
        self.pace
    }

    /// Notes that the peer has something to answer.
    pub(super) fn expect(&mut self, now: Instant) {
        self.silent_since.get_or_insert(now);
    }

    /// Notes that octets have come, and how many queries go on waiting. True when the connection was doubted.
    pub(super) fn heard(&mut self, waiting: usize, now: Instant) -> bool {
        self.silent_since = (waiting > 0).then_some(now);
        let was = std::mem::replace(&mut self.stage, Stage::Trusted);
        self.has_ponged |= matches!(was, Stage::Asked { .. });
        matches!(was, Stage::Doubted { .. })
    }

    /// Notes how long an answer took.
    pub(super) fn answered(&mut self, latency: Duration) {
        self.pace.enter(latency);
        self.has_ponged = false;
        if matches!(self.stage, Stage::Asked { .. }) {
            // What was waited for has come, and is not the answer to the question.
            self.stage = Stage::Trusted;
        }
    }

    /// Forgets the silence: it says nothing about the connection.
    pub(super) fn forgive(&mut self) {
        self.silent_since = None;
        self.stage = Stage::Trusted;
    }

    /// True while something is awaited and nothing comes.
    pub(super) fn is_silent(&self) -> bool {
        self.silent_since.is_some()
    }

    /// True while the connection is to show that it is there.
    pub(super) fn is_suspect(&self) -> bool {
        self.stage != Stage::Trusted
    }

    /// True from [`Suspicion::Doubt`] until something is heard.
    pub(super) fn is_doubted(&self) -> bool {
        matches!(self.stage, Stage::Doubted { .. })
    }

    /// Returns when `check` should be called if nothing comes.
    pub(super) fn look_at(&self) -> Option<Instant> {
        match self.stage {
            Stage::Trusted => self.patience_ends_at(),
            Stage::Asked { doubt_at, .. } => Some(doubt_at),
            Stage::Doubted { dead_at } => Some(dead_at),
        }
    }

    /// Judges the silence.
    pub(super) fn check(&mut self, now: Instant) -> Suspicion {
        if self.look_at().is_none_or(|at| now < at) {
            return Suspicion::Calm;
        }
        match self.stage {
            Stage::Trusted => {
                self.stage = Stage::Asked { doubt_at: now + self.pong(), dead_at: now + VERDICT };
                Suspicion::Ask
            }
            Stage::Asked { dead_at, .. } => {
                self.stage = Stage::Doubted { dead_at };
                Suspicion::Doubt
            }
            Stage::Doubted { .. } => Suspicion::Dead,
        }
    }

    /// Returns when the silence has lasted too long.
    fn patience_ends_at(&self) -> Option<Instant> {
        let patience = if self.has_ponged { MOST } else { self.pace.patience() };
        self.silent_since.map(|since| since + patience)
    }

    /// Returns how long the question may go without its answer.
    fn pong(&self) -> Duration {
        let (least, most) = PONG;
        self.pace.usual().map_or(most, |usual| usual.clamp(least, most))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paced(millis: &[u64]) -> (Vigil, impl Fn(u64) -> Instant) {
        let start = crate::clock::now();
        let mut vigil = Vigil::new(Pace::default());
        millis.iter().for_each(|millis| vigil.answered(Duration::from_millis(*millis)));
        (vigil, move |millis| start + Duration::from_millis(millis))
    }

    #[test]
    fn a_silent_connection_is_asked_then_doubted_and_then_dead_within_two_seconds() {
        for (seen, ask, doubt, dead) in
            [(&[][..], 1000, 1400, 1800), (&[20; 20], 225, 285, 1025), (&[300; 20], 303, 606, 1103)]
        {
            let (mut vigil, at) = paced(seen);
            vigil.expect(at(0));
            vigil.expect(at(10));
            for (when, what) in [(ask, Suspicion::Ask), (doubt, Suspicion::Doubt), (dead, Suspicion::Dead)] {
                assert_eq!(vigil.check(at(when - 8)), Suspicion::Calm, "{seen:?}");
                assert_eq!(vigil.check(at(when)), what, "{seen:?}");
            }
        }
    }

    #[test]
    fn silence_is_asked_into_and_then_taken_for_death_even_if_its_queries_have_timed_out() {
        let (mut vigil, at) = paced(&[]);
        assert_eq!(vigil.check(at(9000)), Suspicion::Calm);
        vigil.expect(at(10_000));
        assert_eq!(vigil.check(at(10_999)), Suspicion::Calm);
        assert_eq!(vigil.check(at(11_000)), Suspicion::Ask);
        assert_eq!(vigil.check(at(11_400)), Suspicion::Doubt);
        assert_eq!(vigil.check(at(11_800)), Suspicion::Dead);
    }

    #[test]
    fn a_sign_of_life_starts_anew_and_it_is_not_soon_asked_again() {
        let (mut vigil, at) = paced(&[20; 20]);
        vigil.expect(at(0));
        assert_eq!(vigil.check(at(225)), Suspicion::Ask);
        assert!(!vigil.heard(1, at(240)) && !vigil.is_suspect());
        assert_eq!(vigil.check(at(1239)), Suspicion::Calm);
        assert_eq!(vigil.check(at(1240)), Suspicion::Ask);
        assert_eq!(vigil.check(at(1300)), Suspicion::Doubt);
        assert!(vigil.heard(0, at(1500)), "it was doubted");
        assert!(!vigil.is_silent());
    }

    #[test]
    fn an_answer_is_no_answer_to_the_question_and_the_next_silence_is_asked_into_as_soon_as_ever() {
        let (mut vigil, at) = paced(&[20; 20]);
        vigil.expect(at(0));
        assert_eq!(vigil.check(at(225)), Suspicion::Ask);
        vigil.answered(Duration::from_millis(20));
        assert!(!vigil.heard(0, at(230)) && !vigil.is_suspect());
        vigil.expect(at(1000));
        assert_eq!(vigil.look_at(), Some(at(1225)));
    }

    #[test]
    fn a_slow_answer_makes_the_next_silence_longer() {
        let (mut vigil, at) = paced(&[20; 20]);
        vigil.answered(Duration::from_millis(600));
        vigil.expect(at(0));
        assert_eq!(vigil.check(at(600)), Suspicion::Calm);
        (0..20).for_each(|_| vigil.answered(Duration::from_millis(20)));
        assert_eq!(vigil.check(at(225)), Suspicion::Ask);
    }
}
