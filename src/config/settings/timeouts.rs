//! How long things may take.

use std::time::Duration;

/// How long things may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// All attempts of a query together.
    pub query: Duration,
    /// TCP and TLS together, one dial.
    pub connect: Duration,
    /// One attempt of a query.
    pub attempt: AttemptTime,
}

/// Within what bounds one server is given time to answer before the next one is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttemptTime {
    /// However quick the server usually is: long enough for a resolver that has to ask around.
    pub least: Duration,
    /// However slow: short enough to try another. At least `least`.
    pub most: Duration,
}

impl Default for AttemptTime {
    fn default() -> Self {
        Self { least: Duration::from_millis(250), most: Duration::from_secs(2) }
    }
}
