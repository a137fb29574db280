//! From the facts of a flight to spans: the one place that knows how a trace looks. Names of attributes are those of
//! OpenTelemetry's semantic conventions where there is one, else they begin with `veildns.`. Pure.
//!
//! ```text
//! query                   from receipt to the reply     (refresh: when nobody waited)
//! ├─ queue                until the flight began
//! ├─ flight               all servers that are asked
//! │  ├─ attempt           one server; further ones beside it or after it
//! │  │  ├─ wait           until the query was written to a connection
//! │  │  ├─ exchange       until its answer came
//! │  │  └─ validate       the checks: work of microseconds within one turn of the driver, so without a length
//! │  └─ ...
//! └─ reply                store, render, send
//! ```
//!
//! Each further client that waited for the same answer has a trace of its own, `query` and `reply`, linked to the flight.

#[cfg(test)]
mod tests;

use super::facts::{
    AttemptEnd, AttemptFacts, AttemptReason, AttemptResult, EndedFlight, Kept, QueryFacts, TraceId,
};
use crate::config::settings::{Endpoint, Host};
use crate::telemetry::outcome::Source;
use crate::wire::header::Rcode;
use crate::wire::query::ClientTransport;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::span::{Link, SpanKind};
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{Span, Status};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// This trace was sampled (W3C Trace Context §3.2.2.4), and its parents are known to be of this process
/// (`SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK`).
const FLAGS: u32 = 0x101;

/// Joins the two clocks: the facts have monotonic times, spans have the wall clock's.
#[derive(Clone, Copy, Debug)]
pub(super) struct Anchor {
    /// A moment by the one.
    pub(super) now: Instant,
    /// The same by the other.
    pub(super) wall: SystemTime,
}

impl Anchor {
    /// Returns a time in nanoseconds since 1970.
    fn nanos(&self, at: Instant) -> u64 {
        let wall = match at.checked_duration_since(self.now) {
            Some(later) => self.wall.checked_add(later),
            None => self.wall.checked_sub(self.now.saturating_duration_since(at)),
        };
        let since = wall.unwrap_or(UNIX_EPOCH).duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }
}

/// Adds the spans of a flight to `spans`.
pub(super) fn append(spans: &mut Vec<Span>, flight: &EndedFlight, anchor: Anchor) {
    let mut forest = Forest { spans, anchor, trace: flight.facts.id };
    let (first, joined) = match flight.facts.queries.split_first() {
        Some((first, joined)) if !flight.is_refresh => (Some(first), joined),
        _ => (None, flight.facts.queries.as_slice()),
    };
    let root = match first {
        Some(query) => forest.query(flight, query),
        None => forest.refresh(flight),
    };
    if let Some(query) = first {
        forest.add("queue", Some(&root), (query.received, flight.started), Vec::new());
    }
    let link = forest.flight(flight, &root);
    if let Some(query) = first {
        forest.reply(flight, query, &root);
    }
    for query in joined {
        forest.trace = TraceId::random();
        let root = forest.query(flight, query);
        if let Some(span) = forest.spans.last_mut() {
            span.links.push(link.clone());
            span.attributes.push(flag("veildns.shared", true));
        }
        forest.reply(flight, query, &root);
    }
}

/// Spans in the making.
struct Forest<'a> {
    /// The spans.
    spans: &'a mut Vec<Span>,
    /// Joins the clocks.
    anchor: Anchor,
    /// The trace that is being made.
    trace: TraceId,
}

/// Names a span.
struct SpanId([u8; 8]);

impl Forest<'_> {
    /// Adds a span.
    fn add(
        &mut self,
        name: &str,
        parent: Option<&SpanId>,
        (start, end): (Instant, Instant),
        attributes: Vec<KeyValue>,
    ) -> SpanId {
        let id = SpanId(fastrand::u64(1..).to_be_bytes());
        self.spans.push(Span {
            trace_id: self.trace.octets().to_vec(),
            span_id: id.0.to_vec(),
            parent_span_id: parent.map_or_else(Vec::new, |parent| parent.0.to_vec()),
            flags: FLAGS,
            name: name.to_owned(),
            kind: SpanKind::Internal.into(),
            start_time_unix_nano: self.anchor.nanos(start),
            end_time_unix_nano: self.anchor.nanos(end.max(start)),
            attributes,
            ..Span::default()
        });
        id
    }

    /// Changes what kind of span the latest one is.
    fn set_kind(&mut self, kind: SpanKind) {
        if let Some(span) = self.spans.last_mut() {
            span.kind = kind.into();
        }
    }

    /// Marks the latest span as failed, with its reason.
    fn set_error(&mut self, reason: &str) {
        if let Some(span) = self.spans.last_mut() {
            span.status = Some(Status { message: String::new(), code: StatusCode::Error.into() });
            span.attributes.push(text("error.type", reason));
        }
    }

    /// Adds the root of a client's query.
    fn query(&mut self, flight: &EndedFlight, query: &QueryFacts) -> SpanId {
        let outcome = &query.outcome;
        let transport = match outcome.transport {
            ClientTransport::Udp => "udp",
            ClientTransport::Tcp => "tcp",
        };
        let mut attributes = question(flight);
        attributes.extend([
            text("network.protocol.name", "dns"),
            text("network.transport", transport),
            text("veildns.rcode", &outcome.rcode.to_string()),
            text("veildns.source", outcome.source.label()),
            flag("veildns.stale", outcome.source == Source::Stale),
        ]);
        attributes.extend(outcome.ede.map(|code| number("veildns.ede", code.0.into())));
        let id = self.add("query", None, (query.received, left_at(flight, query)), attributes);
        self.set_kind(SpanKind::Server);
        if outcome.source == Source::Failed {
            self.set_error(&outcome.rcode.to_string());
        }
        id
    }

    /// Adds the root of a flight that nobody waited for.
    fn refresh(&mut self, flight: &EndedFlight) -> SpanId {
        self.add("refresh", None, (flight.started, flight.ended), question(flight))
    }

    /// Adds the making and sending of a reply.
    fn reply(&mut self, flight: &EndedFlight, query: &QueryFacts, root: &SpanId) {
        self.add("reply", Some(root), (query.replied, left_at(flight, query)), Vec::new());
    }

    /// Adds the flight and its attempts. Returns how other traces refer to it.
    fn flight(&mut self, flight: &EndedFlight, root: &SpanId) -> Link {
        let facts = &flight.facts;
        let hedged = facts.attempts.iter().any(|attempt| attempt.reason == AttemptReason::Slow);
        let kept = match facts.kept {
            Kept::Nothing => "nothing",
            Kept::Answer => "answer",
            Kept::Failure => "failure",
        };
        let attributes = vec![
            text("veildns.group", &flight.group),
            number("veildns.attempts", count(facts.attempts.len())),
            number("veildns.queries", count(facts.queries.len() + facts.more_queries)),
            flag("veildns.hedged", hedged),
            flag("veildns.refresh", flight.is_refresh),
            text("veildns.cache.kept", kept),
        ];
        let id = self.add("flight", Some(root), (flight.started, flight.ended), attributes);
        for (place, attempt) in facts.attempts.iter().enumerate() {
            self.attempt(place, attempt, flight.ended, &id);
        }
        Link {
            trace_id: self.trace.octets().to_vec(),
            span_id: id.0.to_vec(),
            flags: FLAGS,
            ..Link::default()
        }
    }

    /// Adds an attempt and its stages.
    fn attempt(&mut self, place: usize, attempt: &AttemptFacts, flight_ended: Instant, parent: &SpanId) {
        let ended = attempt.end.map_or(flight_ended, |end| end.at);
        let mut attributes = server(attempt);
        attributes.extend([
            number("veildns.attempt", count(place + 1)),
            text("veildns.attempt.reason", reason_label(attempt.reason)),
            flag("veildns.hedge", attempt.reason == AttemptReason::Slow),
            flag("veildns.repeated", attempt.repeated),
            flag("veildns.late", attempt.end.is_some_and(|end| end.late)),
            text("veildns.outcome", outcome_label(attempt.end.map(|end| end.result))),
        ]);
        if let Some(AttemptEnd { result: AttemptResult::Answered(rcode), .. }) = attempt.end {
            attributes.push(text("veildns.rcode", &rcode.to_string()));
        }
        let id = self.add("attempt", Some(parent), (attempt.asked_at, ended), attributes);
        self.set_kind(SpanKind::Client);
        let Some(end) = attempt.end else { return };
        if let Some(reason) = error_label(end.result) {
            self.set_error(reason);
        }
        if let Some(sent_at) = end.sent_at {
            self.add("wait", Some(&id), (attempt.asked_at, sent_at), Vec::new());
            self.add("exchange", Some(&id), (sent_at, ended), Vec::new());
        }
        self.validation(end, &id);
    }

    /// Adds the checks of a message, if one came.
    fn validation(&mut self, end: AttemptEnd, parent: &SpanId) {
        match end.result {
            AttemptResult::Failed(_) => {}
            AttemptResult::Answered(_) => {
                self.add("validate", Some(parent), (end.at, end.at), Vec::new());
            }
            AttemptResult::Invalid(fault) => {
                self.add("validate", Some(parent), (end.at, end.at), Vec::new());
                self.set_error(fault.label());
            }
        }
    }
}

/// Returns when a reply had left. Those of the flight's last turn leave together at its end; earlier ones left at once.
fn left_at(flight: &EndedFlight, query: &QueryFacts) -> Instant {
    if query.replied == flight.ended { flight.told } else { query.replied }
}

/// Returns what was asked: the name only when the operator wants it.
fn question(flight: &EndedFlight) -> Vec<KeyValue> {
    let mut attributes = vec![text("veildns.question.type", &flight.record_type.to_string())];
    attributes.extend(flight.name.as_ref().map(|name| text("dns.question.name", &name.to_string())));
    attributes
}

/// Returns which server was asked, and how.
fn server(attempt: &AttemptFacts) -> Vec<KeyValue> {
    let endpoint = &attempt.server.endpoint;
    let (address, port) = match endpoint {
        Endpoint::Dot { host: Host::Name(name), port }
        | Endpoint::Doh { host: Host::Name(name), port, .. } => (name.clone(), *port),
        Endpoint::Dot { host: Host::Address(ip), port }
        | Endpoint::Doh { host: Host::Address(ip), port, .. } => (ip.to_string(), *port),
        Endpoint::PlainUdp { address } | Endpoint::PlainTcp { address } => {
            (address.ip().to_string(), address.port())
        }
    };
    let (way, protocol, transport) = match endpoint {
        Endpoint::Dot { .. } => ("dot", "dns", "tcp"),
        Endpoint::Doh { .. } => ("doh", "http", "tcp"),
        Endpoint::PlainUdp { .. } => ("udp", "dns", "udp"),
        Endpoint::PlainTcp { .. } => ("tcp", "dns", "tcp"),
    };
    let mut attributes = vec![
        text("veildns.upstream", &attempt.server.name),
        text("veildns.upstream.protocol", way),
        text("server.address", &address),
        number("server.port", port.into()),
        text("network.protocol.name", protocol),
        text("network.transport", transport),
    ];
    if matches!(endpoint, Endpoint::Doh { .. }) {
        attributes.push(text("network.protocol.version", "2"));
    }
    attributes
}

/// Says why a server was asked.
fn reason_label(reason: AttemptReason) -> &'static str {
    match reason {
        AttemptReason::First => "first",
        AttemptReason::Unanswered => "unanswered",
        AttemptReason::NoResult => "no_result",
        AttemptReason::Slow => "slow",
        AttemptReason::Again => "again",
    }
}

/// Says how an attempt ended, in the words of `veildns_upstream_queries_total`.
fn outcome_label(result: Option<AttemptResult>) -> &'static str {
    match result {
        Some(AttemptResult::Answered(rcode)) if is_usual(rcode) => "ok",
        Some(AttemptResult::Answered(_)) => "rcode",
        Some(AttemptResult::Invalid(_)) => "invalid",
        Some(AttemptResult::Failed(label)) => label,
        None => "unfinished",
    }
}

/// Says what went wrong; None when nothing did. An answer is none, whatever its rcode: the server is well.
fn error_label(result: AttemptResult) -> Option<&'static str> {
    match result {
        AttemptResult::Answered(_) => None,
        AttemptResult::Invalid(_) => Some("invalid"),
        AttemptResult::Failed(label) => Some(label),
    }
}

/// Returns true for the rcodes that are results.
fn is_usual(rcode: Rcode) -> bool {
    rcode == Rcode::NOERROR || rcode == Rcode::NXDOMAIN
}

/// Makes an attribute.
fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

/// Makes an attribute of text.
pub(super) fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, Value::StringValue(value.to_owned()))
}

/// Makes an attribute that is a number.
fn number(key: &str, value: i64) -> KeyValue {
    attribute(key, Value::IntValue(value))
}

/// Makes an attribute that is true or false.
fn flag(key: &str, value: bool) -> KeyValue {
    attribute(key, Value::BoolValue(value))
}

/// Returns a count as OTLP has numbers.
fn count(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
