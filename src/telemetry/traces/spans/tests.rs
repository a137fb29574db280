//! Flights as a collector sees them.

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
