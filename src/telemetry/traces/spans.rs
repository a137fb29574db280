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

#[cfg(test)]
mod tests {
    use super::super::facts::FlightFacts;
    use super::*;
    use crate::config::settings::ServerSpec;
    use crate::telemetry::outcome::Outcome;
    use crate::wire::question::RecordType;
    use crate::wire::response::ResponseFault;
    use std::sync::Arc;
    use std::time::Duration;

    /// When the flights of these tests begin, in milliseconds since 1970.
    const BEGIN: u64 = 1_795_000_000_000;

    fn server(name: &str, endpoint: Endpoint) -> Arc<ServerSpec> {
        Arc::new(ServerSpec {
            name: name.to_owned(),
            endpoint,
            addresses: Vec::new(),
            ca_file: None,
            pins: Vec::new(),
            weight: 1,
            trust_ad: false,
        })
    }

    fn dot(name: &str) -> Arc<ServerSpec> {
        server(name, Endpoint::Dot { host: Host::Name(format!("{name}.example")), port: 853 })
    }

    fn doh(name: &str) -> Arc<ServerSpec> {
        let host = Host::Address("2001:db8::1".parse().unwrap());
        server(
            name,
            Endpoint::Doh {
                host,
                port: 443,
                path: "/q".to_owned(),
                method: crate::config::settings::DohMethod::Post,
            },
        )
    }

    fn outcome(source: Source, rcode: Rcode) -> Outcome {
        Outcome { source, rcode, ede: None, transport: ClientTransport::Udp, duration: None }
    }

    /// A flight that began `begin` after its query came, with the times of everything in milliseconds from the query.
    fn flight(begin: Instant, queries: &[(u64, u64, Outcome)], ended: u64) -> EndedFlight {
        let at = |millis| begin + Duration::from_millis(millis);
        let mut facts = Box::new(FlightFacts::new(TraceId::random()));
        for (received, replied, outcome) in queries {
            facts.replied(QueryFacts { received: at(*received), replied: at(*replied), outcome: *outcome });
        }
        EndedFlight {
            facts,
            group: "default".to_owned(),
            name: None,
            record_type: RecordType::AAAA,
            is_refresh: false,
            started: at(1),
            ended: at(ended),
            told: at(ended + 1),
        }
    }

    /// Makes spans; each with its begin and end in milliseconds.
    fn spans(flight: &EndedFlight, begin: Instant) -> Vec<(Span, u64, u64)> {
        let anchor = Anchor { now: begin, wall: UNIX_EPOCH + Duration::from_millis(BEGIN) };
        let mut spans = Vec::new();
        append(&mut spans, flight, anchor);
        let millis = |nanos: u64| nanos / 1_000_000 - BEGIN;
        let with_times = |span: Span| {
            let (start, end) = (millis(span.start_time_unix_nano), millis(span.end_time_unix_nano));
            (span, start, end)
        };
        spans.into_iter().map(with_times).collect()
    }

    /// The spans as a tree: each with its times, those within it further in.
    fn tree(spans: &[(Span, u64, u64)]) -> Vec<String> {
        fn below(spans: &[(Span, u64, u64)], parent: &[u8], depth: usize, out: &mut Vec<String>) {
            for (span, start, end) in spans.iter().filter(|(span, ..)| span.parent_span_id == parent) {
                out.push(format!("{}{} {start}-{end}", "  ".repeat(depth), span.name));
                below(spans, &span.span_id, depth + 1, out);
            }
        }
        let mut out = Vec::new();
        below(spans, &[], 0, &mut out);
        out
    }

    /// The value of an attribute as text; empty when there is none.
    fn value(span: &Span, key: &str) -> String {
        let found = span.attributes.iter().find(|attribute| attribute.key == key);
        match found.and_then(|attribute| attribute.value.clone()?.value) {
            Some(Value::StringValue(text)) => text,
            Some(Value::IntValue(number)) => number.to_string(),
            Some(Value::BoolValue(value)) => value.to_string(),
            _ => String::new(),
        }
    }

    fn named<'a>(spans: &'a [(Span, u64, u64)], name: &str) -> Vec<&'a Span> {
        spans.iter().map(|(span, ..)| span).filter(|span| span.name == name).collect()
    }

    fn ended(at: Instant, sent_at: Option<Instant>, result: AttemptResult) -> Option<AttemptEnd> {
        Some(AttemptEnd { at, sent_at, late: false, result })
    }

    #[test]
    fn a_hedged_query_shows_every_stage_in_its_place() {
        let begin = crate::clock::now();
        let at = |millis| begin + Duration::from_millis(millis);
        let mut flight = flight(begin, &[(0, 60, outcome(Source::Upstream, Rcode::NOERROR))], 60);
        flight.facts.asked(dot("slow"), AttemptReason::First, at(1));
        flight.facts.asked(doh("quick"), AttemptReason::Slow, at(30));
        let answer = AttemptResult::Answered(Rcode::NOERROR);
        flight.facts.attempts[1].end = ended(at(60), Some(at(45)), answer);
        flight.facts.kept = Kept::Answer;
        let spans = spans(&flight, begin);
        assert_eq!(
            tree(&spans),
            [
                "query 0-61",
                "  queue 0-1",
                "  flight 1-60",
                "    attempt 1-60",
                "    attempt 30-60",
                "      wait 30-45",
                "      exchange 45-60",
                "      validate 60-60",
                "  reply 60-61",
            ]
        );
        assert!(spans.iter().all(|(span, ..)| span.trace_id == spans[0].0.trace_id));
        let root = &spans[0].0;
        assert_eq!(root.kind, i32::from(SpanKind::Server));
        assert_eq!(value(root, "veildns.question.type"), "AAAA");
        assert_eq!(
            (value(root, "veildns.rcode"), value(root, "veildns.source")),
            ("NOERROR".to_owned(), "upstream".to_owned())
        );
        let one = named(&spans, "flight")[0];
        assert_eq!(
            (value(one, "veildns.attempts"), value(one, "veildns.hedged")),
            ("2".to_owned(), "true".to_owned())
        );
        assert_eq!(value(one, "veildns.cache.kept"), "answer");
        let [slow, quick] = named(&spans, "attempt")[..] else { panic!() };
        for (span, key, expected) in [
            (slow, "veildns.upstream", "slow"),
            (slow, "server.address", "slow.example"),
            (slow, "server.port", "853"),
            (slow, "network.protocol.name", "dns"),
            (slow, "veildns.outcome", "unfinished"),
            (slow, "veildns.hedge", "false"),
            (quick, "server.address", "2001:db8::1"),
            (quick, "network.protocol.name", "http"),
            (quick, "network.transport", "tcp"),
            (quick, "veildns.upstream.protocol", "doh"),
            (quick, "veildns.attempt", "2"),
            (quick, "veildns.attempt.reason", "slow"),
            (quick, "veildns.hedge", "true"),
            (quick, "veildns.outcome", "ok"),
            (quick, "veildns.rcode", "NOERROR"),
        ] {
            assert_eq!(value(span, key), expected, "{key}");
            assert_eq!(span.kind, i32::from(SpanKind::Client));
        }
        assert!(spans.iter().all(|(span, ..)| span.status.is_none()), "nothing failed");
    }

    #[test]
    fn failures_are_errors_with_their_reasons() {
        let begin = crate::clock::now();
        let at = |millis| begin + Duration::from_millis(millis);
        let mut flight = flight(begin, &[(0, 9, outcome(Source::Failed, Rcode::SERVFAIL))], 9);
        for (place, result) in [
            AttemptResult::Failed("closed"),
            AttemptResult::Invalid(ResponseFault::Unrelated),
            AttemptResult::Answered(Rcode::REFUSED),
        ]
        .into_iter()
        .enumerate()
        {
            flight.facts.asked(dot("a"), AttemptReason::Unanswered, at(1));
            flight.facts.attempts[place].end = ended(at(9), None, result);
        }
        let spans = spans(&flight, begin);
        let of = |name| {
            let errors = named(&spans, name).into_iter();
            errors.map(|span| (span.status.is_some(), value(span, "error.type"))).collect::<Vec<_>>()
        };
        let (failed, well) = (|reason: &str| (true, reason.to_owned()), (false, String::new()));
        assert_eq!(of("query"), [failed("SERVFAIL")]);
        assert_eq!(of("attempt"), [failed("closed"), failed("invalid"), well.clone()]);
        assert_eq!(of("validate"), [failed("unrelated"), well]);
        assert!(named(&spans, "wait").is_empty(), "when it was sent is not known");
    }

    #[test]
    fn each_further_client_has_a_trace_of_its_own_that_points_to_the_flight() {
        let begin = crate::clock::now();
        let good = outcome(Source::Upstream, Rcode::NOERROR);
        let stale = outcome(Source::Stale, Rcode::NOERROR);
        let mut flight = flight(begin, &[(0, 20, stale), (10, 40, good)], 40);
        flight.facts.more_queries = 7;
        let spans = spans(&flight, begin);
        assert_eq!(
            tree(&spans),
            ["query 0-20", "  queue 0-1", "  flight 1-40", "  reply 20-20", "query 10-41", "  reply 40-41",]
        );
        let [first, second] = named(&spans, "query")[..] else { panic!() };
        let one = named(&spans, "flight")[0];
        assert_ne!(first.trace_id, second.trace_id);
        assert_eq!((&second.links[0].trace_id, &second.links[0].span_id), (&one.trace_id, &one.span_id));
        assert_eq!(
            (value(first, "veildns.stale"), value(second, "veildns.shared")),
            ("true".to_owned(), "true".to_owned())
        );
        assert_eq!(value(one, "veildns.queries"), "9");
    }

    #[test]
    fn a_refresh_has_a_root_of_its_own() {
        let begin = crate::clock::now();
        let flight = EndedFlight { is_refresh: true, ..flight(begin, &[], 30) };
        assert_eq!(tree(&spans(&flight, begin)), ["refresh 1-30", "  flight 1-30"]);
    }

    #[test]
    fn a_name_is_in_a_trace_only_when_it_was_handed_over() {
        let begin = crate::clock::now();
        let query = (0, 9, outcome(Source::Upstream, Rcode::NXDOMAIN));
        let without = flight(begin, &[query], 9);
        assert_eq!(value(&spans(&without, begin)[0].0, "dns.question.name"), "");
        let with = EndedFlight { name: Some("www.example".parse().unwrap()), ..without };
        assert_eq!(value(&spans(&with, begin)[0].0, "dns.question.name"), "www.example.");
    }

    #[test]
    fn times_before_the_anchor_and_after_it_are_told() {
        let now = crate::clock::now() + Duration::from_secs(10);
        let anchor = Anchor { now, wall: UNIX_EPOCH + Duration::from_secs(100) };
        assert_eq!(anchor.nanos(now + Duration::from_nanos(5)), 100_000_000_005);
        assert_eq!(anchor.nanos(now - Duration::from_nanos(5)), 99_999_999_995);
    }
}
