//! A second way to a server, on which the dates of its certificate are overlooked: for the names of time servers alone, when the
//! clock does not let certificates be judged. Made when it is first needed, which on most machines is never, and kept apart:
//! its connections and TLS sessions are no other query's. Who may use it is decided in `resolver::attempts`.

use super::Upstream;
use crate::transport::{Exchange, Transport};
use std::fmt;
use std::sync::OnceLock;
use std::time::Instant;

/// Makes the way; None: it cannot be made.
pub type Make = Box<dyn Fn() -> Option<Box<dyn Transport>> + Send + Sync>;

/// The second way to a server, once it was needed.
pub(super) struct Overlooking {
    /// Makes it.
    make: Make,
    /// As made.
    made: OnceLock<Option<Box<dyn Transport>>>,
}

impl Overlooking {
    /// Makes none yet.
    pub(super) fn new(make: Make) -> Self {
        Self { make, made: OnceLock::new() }
    }

    /// Returns it; makes it the first time.
    fn transport(&self) -> Option<&dyn Transport> {
        self.made.get_or_init(|| (self.make)()).as_deref()
    }

    /// Returns it if it was needed before.
    pub(super) fn made(&self) -> Option<&dyn Transport> {
        self.made.get()?.as_deref()
    }
}

impl fmt::Debug for Overlooking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Overlooking").field(&self.made).finish()
    }
}

impl Upstream {
    /// As [`Self::submit`], for the name of a time server: the dates of the server's certificate are overlooked. What comes of
    /// it says nothing about the server, which is no better on the ordinary way. Without such a way the ticket is dropped.
    pub(crate) fn submit_overlooking_dates(&self, exchange: Exchange, now: Instant) {
        self.usage.begins();
        let Some(transport) = self.overlooking.as_ref().and_then(Overlooking::transport) else { return };
        self.counters.dates_overlooked();
        let unsaid = self.condition().throttle.pass(now);
        if let Some(unsaid) = unsaid {
            let (upstream, unsaid) = (self.name(), (unsaid > 0).then_some(unsaid));
            tracing::warn!(
                upstream,
                unsaid,
                "a time server is looked up, and the dates of the certificate are overlooked for it"
            );
        }
        transport.submit(exchange);
    }
}
