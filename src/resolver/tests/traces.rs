//! What flights leave for their traces.

use super::*;
use crate::config::otel::TraceSettings;
use crate::telemetry::traces::Intake;
use crate::telemetry::traces::facts::{AttemptReason, AttemptResult, EndedFlight, Kept};

/// Switches traces on.
fn traced(rig: &Rig, keys: &str) -> Intake {
    let settings: TraceSettings = settings(&format!("[otel]\ntraces = true\n{keys}")).traces.unwrap();
    rig.resolver.telemetry.traces().open(&settings, 64)
}

/// Returns why each server was asked and what that brought.
fn attempts(flight: &EndedFlight) -> Vec<(&str, AttemptReason, Option<AttemptResult>)> {
    let attempts = flight.facts.attempts.iter();
    let told = attempts
        .map(|attempt| (attempt.server.name.as_str(), attempt.reason, attempt.end.map(|end| end.result)));
    told.collect()
}

#[test]
fn a_flight_leaves_each_attempt_and_each_reply_with_their_times() {
    let (silent, spare) = (fake::silent(), answering(60));
    let mut rig = Rig::new(&[("silent", &silent), ("spare", &spare)]);
    let mut intake = traced(&rig, "");
    let begun = rig.now;
    rig.ask("www.example");
    rig.pass(Duration::from_millis(400));
    rig.ask("www.example");
    assert!(intake.next_now().is_none(), "nothing is told before the end");
    rig.pass(Duration::from_secs(1));
    let flight = intake.next_now().unwrap();
    let ok = AttemptResult::Answered(Rcode::NOERROR);
    assert_eq!(
        attempts(&flight),
        [("silent", AttemptReason::First, None), ("spare", AttemptReason::Unanswered, Some(ok))]
    );
    assert_eq!(flight.started, begun);
    let asked_at = flight.facts.attempts[1].asked_at;
    assert!(begun + Duration::from_secs(1) <= asked_at && asked_at <= flight.ended);
    let queries = &flight.facts.queries;
    assert_eq!(
        queries.iter().map(|query| query.received).collect::<Vec<_>>(),
        [begun, begun + Duration::from_millis(400)]
    );
    assert!(queries.iter().all(|query| query.outcome.source == Source::Upstream));
    assert_eq!((flight.facts.kept, flight.is_refresh), (Kept::Answer, false));
    assert_eq!((flight.name, flight.record_type, flight.group.as_str()), (None, RecordType::A, "default"));
    rig.ask("www.example");
    assert!(intake.next_now().is_none(), "what memory answers leaves no trace");
}

#[test]
fn a_flight_whose_every_server_fails_leaves_the_reasons() {
    let lie = Fake::new(|query| {
        let mut message = fake::reply(query, 0, &[]).to_vec();
        message[13] ^= 0x01;
        Some(Ok(message.into()))
    });
    let (closing, refusing) = (fake::closing(), with_rcode(5));
    let mut rig = Rig::new(&[("closing", &closing), ("lie", &lie), ("refusing", &refusing)]);
    let mut intake = traced(&rig, "names = true");
    rig.ask("www.example");
    let flight = intake.next_now().unwrap();
    let results: Vec<_> = attempts(&flight).into_iter().map(|(_, _, result)| result.unwrap()).collect();
    assert_eq!(results[0], AttemptResult::Failed("closed"));
    assert!(matches!(results[1], AttemptResult::Invalid(_)), "{results:?}");
    assert_eq!(results[2], AttemptResult::Answered(Rcode::REFUSED));
    assert_eq!(flight.facts.kept, Kept::Failure);
    assert_eq!(flight.name.unwrap().to_string(), "www.example.");
}

#[test]
fn a_stale_reply_is_noted_when_it_is_given_and_the_flight_goes_on() {
    let server = answering(60);
    let mut rig = Rig::new(&[("a", &server)]);
    let mut intake = traced(&rig, "");
    rig.ask("www.example");
    assert!(intake.next_now().is_some());
    server.now_does(|_| None);
    rig.pass(Duration::from_secs(61));
    let begun = rig.now;
    rig.ask("www.example");
    rig.pass(Duration::from_secs(5));
    let flight = intake.next_now().unwrap();
    let query = flight.facts.queries[0];
    assert_eq!(query.outcome.source, Source::Stale);
    assert!(query.replied < flight.ended, "the reply came before the end");
    assert!(query.replied >= begun + Duration::from_millis(250));
    assert_eq!(flight.facts.queries.len(), 1);
}

#[test]
fn a_name_of_many_clients_leaves_a_few_of_them_and_their_number() {
    let server = fake::silent();
    let mut rig = Rig::new(&[("a", &server)]);
    let mut intake = traced(&rig, "");
    (0..40).for_each(|_| rig.ask("www.example"));
    rig.pass(Duration::from_secs(5));
    let facts = intake.next_now().unwrap().facts;
    assert_eq!((facts.queries.len(), facts.more_queries), (16, 24));
}

#[test]
fn a_full_queue_drops_traces_and_no_replies() {
    let server = answering(60);
    let mut rig = Rig::new(&[("a", &server)]);
    let mut intake = traced(&rig, "");
    (0..70).for_each(|number| rig.ask(&format!("n{number}.example")));
    assert_eq!(rig.heard().len(), 70);
    assert_eq!(rig.resolver.telemetry.tally().traces_dropped, 6);
    assert_eq!(std::iter::from_fn(|| intake.next_now()).count(), 64);
}

#[test]
fn a_share_of_the_flights_leaves_a_trace_and_none_when_switched_off() {
    let server = answering(60);
    let mut rig = Rig::new(&[("a", &server)]);
    let mut intake = traced(&rig, "sample = \"25%\"");
    let mut traces = 0;
    for number in 0..2000 {
        rig.ask(&format!("n{number}.example"));
        traces += usize::from(intake.next_now().is_some());
    }
    // Four standard deviations either side: less than one run in ten thousand fails.
    assert!((422..=578).contains(&traces), "{traces} of 2000");
    rig.resolver.telemetry.traces().close();
    rig.ask("last.example");
    assert!(intake.next_now().is_none());
}
