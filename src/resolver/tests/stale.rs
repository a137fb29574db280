//! Answers past their time, and refreshes before that.

use super::*;

#[test]
fn a_stale_answer_comes_after_1800_ms_and_the_flight_goes_on() {
    let server = answering(60);
    let mut rig = Rig::new(&[("a", &server)]);
    rig.ask("www.example");
    rig.heard();
    server.now_does(|_| None);
    rig.pass(Duration::from_secs(61));
    rig.ask("www.example");
    rig.pass(Duration::from_millis(1_790));
    assert!(rig.heard().is_empty());
    rig.pass(Duration::from_millis(50));
    let stale = || Heard {
        source: Source::Stale,
        rcode: Rcode::NOERROR,
        ede: Some(EdeCode::STALE_ANSWER),
        ttls: vec![30],
    };
    assert_eq!(rig.heard(), [stale()]);
    // A client that comes while the flight goes on does not wait again.
    rig.ask("www.example");
    assert_eq!(rig.heard(), [stale()]);
    assert_eq!(server.queries().len(), 2);
}

#[test]
fn a_stale_answer_comes_at_once_when_every_server_fails() {
    let server = answering(60);
    let mut rig = Rig::new(&[("a", &server)]);
    rig.ask("www.example");
    rig.heard();
    server.now_does(|_| Some(Err(TransportError::Closed)));
    rig.pass(Duration::from_secs(61));
    rig.ask("www.example");
    let heard = rig.heard();
    assert_eq!((heard[0].source, heard[0].ede), (Source::Stale, Some(EdeCode::STALE_ANSWER)));
}

#[test]
fn a_popular_name_is_asked_for_again_before_it_expires() {
    let server = answering(100);
    let mut rig = Rig::new(&[("a", &server)]);
    for _ in 0..3 {
        rig.ask("www.example");
    }
    rig.pass(Duration::from_secs(95));
    rig.ask("www.example");
    rig.ask("www.example");
    assert_eq!(server.queries().len(), 2);
    rig.pass(Duration::from_secs(50));
    rig.heard();
    rig.ask("www.example");
    assert_eq!(rig.heard(), [good(Source::Cache, 50)]);
}

#[test]
fn a_name_whose_refresh_failed_is_not_asked_for_again_at_once() {
    // RFC 8767 §5: without a pause between attempts, each client would wait for the same failure.
    let server = answering(60);
    let mut rig = Rig::new(&[("a", &server)]);
    rig.ask("www.example");
    server.now_does(|_| Some(Err(TransportError::Closed)));
    rig.pass(Duration::from_secs(61));
    rig.ask("www.example");
    rig.heard();
    rig.ask("www.example");
    assert_eq!(rig.heard()[0].source, Source::Stale);
    assert_eq!(server.queries().len(), 2);
    rig.pass(Duration::from_secs(6));
    rig.ask("www.example");
    assert_eq!(server.queries().len(), 3);
}

#[test]
fn a_client_that_joins_a_refresh_still_gets_its_stale_answer() {
    let server = answering(100);
    let mut rig = Rig::new(&[("a", &server)]);
    for _ in 0..3 {
        rig.ask("www.example");
    }
    server.now_does(|_| None);
    rig.pass(Duration::from_millis(98_500));
    rig.ask("www.example");
    assert_eq!(server.queries().len(), 2, "the refresh is under way");
    rig.heard();
    // The entry ends while the refresh waits for a silent server.
    rig.pass(Duration::from_millis(1_600));
    rig.ask("www.example");
    rig.pass(Duration::from_millis(1_850));
    assert_eq!(rig.heard().first().map(|heard| heard.source), Some(Source::Stale));
    assert_eq!(server.queries().len(), 2);
}

#[test]
fn failures_are_forgotten_when_a_server_comes_back() {
    let server = fake::closing();
    let mut rig = Rig::new(&[("a", &server)]);
    for name in ["one.example", "two.example", "three.example", "four.example"] {
        rig.ask(name);
    }
    let upstream = Arc::clone(rig.resolver.snapshot().groups().next().unwrap().upstreams.first().unwrap());
    assert!(!upstream.is_up());
    rig.ask("one.example");
    assert_eq!(rig.heard().pop(), Some(failed(EdeCode::CACHED_ERROR)));
    server.now_does(|query| Some(Ok(fake::reply(query, 0, &[address(60)]))));
    upstream.probed(Sample::Answered { latency: Duration::from_millis(5) }, rig.now);
    assert!(upstream.is_up());
    rig.ask("one.example");
    rig.ask("four.example");
    assert_eq!(rig.heard(), [good(Source::Upstream, 60), good(Source::Upstream, 60)]);
}
