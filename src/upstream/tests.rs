//! What a server notes of its answers, and what is told of it.

use super::*;
use crate::transport::{CompletionSink, Received, Ticket};
use bytes::Bytes;

/// Takes completions and forgets them.
struct Void;
impl CompletionSink for Void {
    fn completed(&self, _id: u64, _outcome: Result<Received, TransportError>) {}
}
fn exchange(deadline: Instant) -> Exchange {
    let query = Bytes::from_static(&[0; 12]);
    Exchange { query, deadline, ticket: Ticket::new(Arc::new(Void), 0), lane: 0 }
}
fn answered(millis: u64) -> Sample {
    Sample::Answered { latency: Duration::from_millis(millis) }
}

/// Counts what is logged.
struct Count(Arc<AtomicU32>);
impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Count {
    fn on_event(&self, _: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_server_that_fails_by_turns_does_not_fill_the_log() {
    use tracing_subscriber::layer::SubscriberExt;
    let lines = Arc::new(AtomicU32::new(0));
    let log = tracing_subscriber::registry().with(Count(Arc::clone(&lines)));
    let (upstream, _fake) = fake::upstream("s", fake::silent());
    let start = crate::clock::now();
    let came_up = upstream.coming_up();
    tracing::subscriber::with_default(log, || {
        for turn in 0..1000 {
            let now = start + Duration::from_millis(50) * turn;
            upstream.observe(retry::after_transport(&TransportError::Pin).sample, now);
            assert!(!upstream.is_up());
            upstream.observe(answered(1), now);
            assert!(upstream.is_up() && came_up.has_changed().unwrap());
        }
    });
    assert_eq!(lines.load(Ordering::Relaxed), 10, "of 2000 changes of state within a minute");
}

#[test]
fn no_two_upstreams_share_an_id() {
    let ids: std::collections::HashSet<_> =
        (0..100).map(|_| fake::upstream("s", fake::silent()).0.id()).collect();
    assert_eq!(ids.len(), 100);
}

#[test]
fn what_was_submitted_is_in_flight_until_finished_and_never_below_zero() {
    let now = crate::clock::now();
    let (upstream, fake) = fake::upstream("s", fake::silent());
    upstream.submit(exchange(now), now);
    upstream.submit(exchange(now), now);
    assert_eq!((upstream.snapshot(now).in_flight, fake.queries().len()), (2, 2));
    upstream.finished();
    upstream.finished();
    upstream.finished();
    assert_eq!(upstream.snapshot(now).in_flight, 0);
    assert_eq!(upstream.last_used(), Some(now));
}

#[test]
fn a_server_that_starts_afresh_is_up_and_nothing_is_held_against_it() {
    let now = crate::clock::now();
    let (upstream, fake) = fake::upstream("s", fake::silent());
    upstream.observe(answered(100), now);
    upstream.observe(retry::after_transport(&TransportError::Pin).sample, now);
    assert!(!upstream.is_up() && upstream.candidate(now).latency > Duration::from_millis(500));
    upstream.start_afresh(now);
    assert!(upstream.is_up() && fake.resets() == 1);
    let status = upstream.snapshot(now);
    assert_eq!((status.state, status.latency), (State::Up, None));
    assert!(status.last_error.is_some());
    assert_eq!(upstream.candidate(now).latency, Duration::ZERO);
}

#[test]
fn an_attempt_waits_four_latencies_within_bounds() {
    let now = crate::clock::now();
    let cases = [(None, 1000), (Some(10), 250), (Some(100), 400), (Some(800), 2000)];
    for (latency, expected) in cases {
        let (upstream, _fake) = fake::upstream("s", fake::silent());
        if let Some(latency) = latency {
            upstream.observe(answered(latency), now);
        }
        assert_eq!(upstream.attempt_timeout(), Duration::from_millis(expected));
    }
}

#[test]
fn the_bounds_of_an_attempt_are_the_operators() {
    let now = crate::clock::now();
    let cases = [
        ((400, 600), None, 600),
        ((400, 600), Some(10), 400),
        ((400, 600), Some(800), 600),
        ((3000, 9000), None, 3000),
    ];
    for ((least, most), latency, expected) in cases {
        let (upstream, fake) = fake::upstream("s", fake::silent());
        let [least, most] = [least, most].map(Duration::from_millis);
        upstream.set_attempt_time(AttemptTime { least, most });
        if let Some(latency) = latency {
            upstream.observe(answered(latency), now);
        }
        assert_eq!(upstream.attempt_timeout(), Duration::from_millis(expected));
        upstream.observe(Sample::TimedOut, now);
        fake.has_connections(0);
        assert!((least..=most).contains(&upstream.attempt_timeout()), "{:?}", upstream.attempt_timeout());
        upstream.start_afresh(now);
        assert!((least..=most).contains(&upstream.attempt_timeout()), "kept on another network");
    }
}

#[test]
fn an_attempt_that_has_to_connect_first_waits_longer() {
    let now = crate::clock::now();
    let (upstream, fake) = fake::upstream("s", fake::silent());
    upstream.observe(answered(10), now);
    fake.has_connections(0);
    assert_eq!(upstream.attempt_timeout(), Duration::from_secs(1));
}

#[test]
fn a_hedge_waits_for_nearly_all_answers_and_longer_without_a_connection() {
    let now = crate::clock::now();
    let (upstream, fake) = fake::upstream("s", fake::silent());
    let hedge = |samples: &[u64]| {
        upstream.start_afresh(now);
        samples.iter().for_each(|millis| upstream.observe(answered(*millis), now));
        upstream.waits().hedge.map(|hedge| hedge.as_millis())
    };
    assert_eq!(hedge(&[10; 19]), None, "too few to tell");
    assert_eq!(hedge(&[1; 20]), Some(10), "the least");
    assert_eq!(hedge(&[20; 20]), Some(22));
    assert_eq!(hedge(&[600; 20]), Some(640));
    assert_eq!(hedge(&[[10; 20], [900; 20]].concat()), Some(960));
    fake.has_connections(0);
    assert_eq!(hedge(&[20; 20]), Some(88));
}

#[test]
fn a_busy_server_is_told_from_a_broken_one() {
    let now = crate::clock::now();
    let (upstream, _fake) = fake::upstream("s", fake::silent());
    upstream.observe(Sample::Busy { retry_after: Some(Duration::from_secs(9)) }, now);
    let status = upstream.snapshot(now);
    assert_eq!(status.state, State::Down { probe_at: now + Duration::from_secs(9) });
    assert_eq!(status.last_error.as_deref(), Some("the server is busy and asks to be left alone for 9s"));
}

#[test]
fn the_last_error_stays_readable_after_the_recovery() {
    let now = crate::clock::now();
    let (upstream, _fake) = fake::upstream("s", fake::silent());
    upstream.observe(retry::after_transport(&TransportError::Pin).sample, now);
    assert!(!upstream.is_up());
    upstream.observe(answered(10), now);
    assert!(upstream.is_up());
    let status = upstream.snapshot(now);
    assert_eq!(status.state, State::Up);
    assert_eq!(status.last_error.as_deref(), Some("no pin matches the server's key"));
    assert_eq!(status.latency, Some(Duration::from_millis(10)));
}

#[test]
fn answers_learnt_together_say_what_they_say_one_by_one() {
    let now = crate::clock::now();
    let times = [30, 10, 25, 90, 12].map(Duration::from_millis);
    let ((together, _), (singly, _)) =
        (fake::upstream("s", fake::silent()), fake::upstream("s", fake::silent()));
    for upstream in [&together, &singly] {
        (0..3).for_each(|_| upstream.observe(retry::after_transport(&TransportError::Closed).sample, now));
        assert!(!upstream.is_up());
    }
    let came_up = together.coming_up();
    together.answered(&times, now);
    times.iter().for_each(|latency| singly.observe(Sample::Answered { latency: *latency }, now));
    assert!(came_up.has_changed().unwrap());
    let seen = |upstream: &Upstream| {
        let status = upstream.snapshot(now);
        (status.latency, status.quantiles, status.cost, upstream.is_up(), upstream.waits())
    };
    assert_eq!(seen(&together), seen(&singly));
    assert!(together.has_answered_since(now - Duration::from_nanos(1)));
}

#[test]
fn who_chooses_sees_a_failure_at_once_and_a_cost_as_old_as_a_millisecond_at_most() {
    let now = crate::clock::now();
    let (upstream, _) = fake::upstream("s", fake::silent());
    upstream.observe(answered(20), now);
    let well = upstream.candidate(now);
    assert!(well.up && well.latency == Duration::from_millis(20), "{well:?}");
    upstream.observe(retry::after_transport(&TransportError::Closed).sample, now);
    let failed = upstream.candidate(now);
    assert!(failed.latency > Duration::from_millis(900), "{failed:?}");
    let later = now + Duration::from_secs(60);
    assert_eq!(upstream.candidate(later).latency, upstream.snapshot(later).cost);
    assert!(upstream.candidate(later).latency < failed.latency);
    upstream.observe(retry::after_transport(&TransportError::Pin).sample, later);
    assert!(!upstream.candidate(later).up);
    upstream.start_afresh(later);
    assert!(upstream.candidate(later).up);
}

#[test]
fn other_bounds_of_an_attempt_hold_at_once() {
    let now = crate::clock::now();
    let (upstream, _) = fake::upstream("s", fake::silent());
    upstream.observe(answered(20), now);
    let bounds = AttemptTime { least: Duration::from_millis(700), most: Duration::from_millis(900) };
    upstream.set_attempt_time(bounds);
    assert_eq!(upstream.waits().patience, bounds.least);
    upstream.observe(answered(20), now);
    assert_eq!(upstream.waits().patience, bounds.least);
}
