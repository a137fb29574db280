//! The plain record of one finished query, and the one place that counts and logs it. What the numbers add up to is not
//! its matter.

use super::counters::{Block, Telemetry};
use super::query_line::Entry;
use crate::wire::ede::EdeCode;
use crate::wire::header::Rcode;
use crate::wire::query::ClientTransport;
use crate::wire::question::QuestionRef;
use std::net::IpAddr;
use std::time::Duration;
use tracing::{debug, field};

/// Where a reply came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A fresh answer from the cache.
    Cache,
    /// An expired answer, for want of a better one.
    Stale,
    /// Made here: special-use names, ANY.
    Local,
    /// A server's answer.
    Upstream,
    /// A rule's word.
    Blocked,
    /// Not taken: malformed, not allowed.
    Refused,
    /// No answer could be got.
    Failed,
}

impl Source {
    /// All, in the order of their places.
    pub const ALL: [Self; 7] =
        [Self::Cache, Self::Stale, Self::Local, Self::Upstream, Self::Blocked, Self::Refused, Self::Failed];

    /// Returns the place in `ALL`.
    pub(super) fn place(self) -> usize {
        match self {
            Self::Cache => 0,
            Self::Stale => 1,
            Self::Local => 2,
            Self::Upstream => 3,
            Self::Blocked => 4,
            Self::Refused => 5,
            Self::Failed => 6,
        }
    }

    /// Returns the `source` label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Cache => "cache",
            Self::Stale => "stale",
            Self::Local => "local",
            Self::Upstream => "upstream",
            Self::Blocked => "blocked",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}

/// One finished query.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// Where the reply came from.
    pub source: Source,
    /// Its rcode.
    pub rcode: Rcode,
    /// The reason it gives.
    pub ede: Option<EdeCode>,
    /// How the client asked.
    pub transport: ClientTransport,
    /// From receipt to reply; None when it was answered at once.
    pub duration: Option<Duration>,
}

/// What the query log says besides.
#[derive(Clone, Copy, Debug)]
pub struct QueryDetail<'a> {
    /// Who asked.
    pub client: IpAddr,
    /// What; None when it could not be read.
    pub question: Option<QuestionRef<'a>>,
    /// Name of the server that answered.
    pub upstream: Option<&'a str>,
}

/// Counts `outcome` in `block` and, when the query log is on, writes a line. Allocation-free when it is off.
pub fn record(telemetry: &Telemetry, block: &Block, outcome: &Outcome, detail: &QueryDetail<'_>) {
    block.count(outcome);
    if outcome.duration.is_some() {
        trace(outcome, detail);
    }
    if telemetry.query_log().is_on() {
        telemetry.query_log().send(|| Entry::new(outcome, detail, crate::clock::wall()));
    }
}

/// Tells those who look closely about a query that memory could not answer. The client is left out: only the query log
/// names clients.
fn trace(outcome: &Outcome, detail: &QueryDetail<'_>) {
    debug!(
        name = detail.question.map(|question| field::display(question.name)),
        record_type = detail.question.map(|question| field::display(question.rtype)),
        rcode = %outcome.rcode,
        source = outcome.source.label(),
        upstream = detail.upstream,
        ede = outcome.ede.map(|code| code.0),
        duration_ms = outcome.duration.unwrap_or_default().as_secs_f64() * 1000.0,
        "query finished"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_stand_at_their_places() {
        assert!(Source::ALL.iter().enumerate().all(|(place, source)| source.place() == place));
    }
}
