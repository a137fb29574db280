//! How long to wait for a server before another is asked in its place, or beside it. Pure: what was seen of the server comes
//! in, and the bounds that the operator sets.

use super::latency::Seen;
use crate::config::settings::timeouts::AttemptTime;
use std::time::Duration;

/// An attempt's time when nothing is known, and at least this when a connection has to be opened first; within the bounds.
const UNKNOWN: Duration = Duration::from_secs(1);

/// An attempt may take this many times the usual latency.
const LATENCIES: u32 = 4;

/// Nobody is hedged sooner: what is this fast cannot be made faster by asking twice.
const LEAST_HEDGE: Duration = Duration::from_millis(10);

/// A connection that has to be opened first takes the round trips of TCP and TLS besides, and then a hedge comes later.
const HEDGE_LATENCIES_UNCONNECTED: u32 = 4;

/// How long to wait for a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waits {
    /// Before another is asked in its place.
    pub patience: Duration,
    /// Before another is asked beside it: nearly all of its answers have come by then. None while that is unknown, or not
    /// sooner than `patience`.
    pub hedge: Option<Duration>,
}

impl Waits {
    /// For a server of which nothing was seen.
    pub(super) fn unknown(AttemptTime { least, most }: AttemptTime) -> Self {
        Self { patience: UNKNOWN.clamp(least, most), hedge: None }
    }

    /// For one to which a connection is open.
    pub(super) fn connected(seen: Seen, bounds: AttemptTime) -> Self {
        Self::of(seen, 1, bounds)
    }

    /// For one to which a connection has to be opened first.
    pub(super) fn unconnected(seen: Seen, AttemptTime { least, most }: AttemptTime) -> Self {
        let least = UNKNOWN.clamp(least, most);
        Self::of(seen, HEDGE_LATENCIES_UNCONNECTED, AttemptTime { least, most })
    }

    /// Puts both together; a hedge comes after so many times of nearly all answers.
    fn of(Seen { typical, nearly_all }: Seen, hedge_latencies: u32, bounds: AttemptTime) -> Self {
        let patience = typical.saturating_mul(LATENCIES).clamp(bounds.least, bounds.most);
        let hedge = nearly_all.map(|time| time.saturating_mul(hedge_latencies).max(LEAST_HEDGE));
        Self { patience, hedge: hedge.filter(|hedge| *hedge < patience) }
    }
}
