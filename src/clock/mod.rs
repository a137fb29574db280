//! Time comes in from here: `now()` for all that is measured, `wall()` for what certificates and
//! logs need. Pure code never calls either; it is handed `now`.

pub mod far;

use std::time::{Duration, Instant, SystemTime};

/// Returns the monotonic time. Inside a tokio runtime with paused time it is the paused one.
pub fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Returns when this program was made, if its build knew: no right clock is before that.
pub fn built() -> Option<SystemTime> {
    let secs = option_env!("BUILD_TIME")?.parse().ok()?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(secs))
}

/// Returns the wall clock's time: for certificates and log lines, never for TTLs or time-outs.
#[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
pub fn wall() -> SystemTime {
    SystemTime::now()
}
