//! Time comes in from here: `now()` for all that is measured, `wall()` for what certificates and
//! logs need. Pure code never calls either; it is handed `now`.

use std::time::{Instant, SystemTime};

/// Returns the monotonic time. Inside a tokio runtime with paused time it is the paused one.
pub fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Returns the wall clock's time: for certificates and log lines, never for TTLs or time-outs.
#[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
pub fn wall() -> SystemTime {
    SystemTime::now()
}
