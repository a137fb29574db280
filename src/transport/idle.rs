//! How long a server keeps a connection that nobody uses, learnt from when it closed some, so that we close first: a query
//! that crosses the server's farewell would have to be sent twice. Pure. What is *not* here: closing (`dot`, `doh`) and
//! reopening (`queue`).

use std::time::Duration;

/// A connection closes itself after so long without a query. Long enough that the first query after a quiet minute finds it
/// open; many servers close earlier (public ones after 4 to 30 s), which is no failure.
pub(super) const IDLE: Duration = Duration::from_secs(120);

/// What ends sooner than this after a query has ended for another reason.
const LEAST: Duration = Duration::from_secs(1);

/// We close after this share of the server's time.
const SHARE: f64 = 0.8;

/// So many times we close first before we look again whether the server still has its habit.
const TRUSTED_FOR: u32 = 32;

/// Who ended a quiet connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Closer {
    /// The server.
    Server,
    /// We did, as the habit says.
    Us,
}

/// What is known of a server's habit.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Habit {
    /// The latest quiet times after which the server closed: one alone may be a restart of it.
    closed_after: [Option<Duration>; 2],
    /// How often we closed first since.
    spared: u32,
}

impl Habit {
    /// Learns from the end of a connection that was quiet for so long.
    pub(super) fn learn(&mut self, closer: Closer, quiet: Duration) {
        match closer {
            Closer::Server if quiet >= LEAST => {
                let [latest, _] = self.closed_after;
                self.closed_after = [Some(quiet), latest];
                self.spared = 0;
            }
            Closer::Server => {}
            Closer::Us => {
                self.spared += 1;
                if self.spared >= TRUSTED_FOR {
                    *self = Self::default();
                }
            }
        }
    }

    /// Tells whether the server closes earlier than we would.
    pub(super) fn is_known(&self) -> bool {
        self.limit() < IDLE
    }

    /// Returns how long a connection is kept without a query.
    pub(super) fn limit(&self) -> Duration {
        match self.closed_after {
            [Some(latest), Some(before)] => latest.max(before).mul_f64(SHARE).min(IDLE),
            [_, None] | [None, _] => IDLE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(secs: &[u64]) -> Habit {
        let mut habit = Habit::default();
        secs.iter().for_each(|secs| habit.learn(Closer::Server, Duration::from_secs(*secs)));
        habit
    }

    #[test]
    fn two_quiet_ends_make_a_habit() {
        for (seen, limit) in [
            (&[][..], 120),
            (&[10], 120),
            (&[10, 10], 8),
            (&[2, 10], 8),
            (&[10, 2], 8),
            (&[10, 5, 5], 4),
            (&[600, 600], 120),
        ] {
            assert_eq!(after(seen).limit(), Duration::from_secs(limit), "{seen:?}");
        }
    }

    #[test]
    fn an_end_right_after_a_query_is_no_habit() {
        assert!(!after(&[0, 0, 0]).is_known());
    }

    #[test]
    fn a_habit_is_looked_at_again_after_a_while() {
        let mut habit = after(&[10, 10]);
        for _ in 1..TRUSTED_FOR {
            habit.learn(Closer::Us, Duration::from_secs(8));
        }
        assert!(habit.is_known());
        habit.learn(Closer::Us, Duration::from_secs(8));
        assert!(!habit.is_known());
    }
}
