//! Connections that fall silent: their queries are asked again.

use super::*;

#[test]
fn queries_on_a_silent_connection_go_to_the_next_server_at_once_and_the_server_is_not_blamed() {
    let (stalled, spare) = (answering(60), answering(50));
    let mut rig = Rig::with(&[("stalled", &stalled), ("spare", &spare)], "[limits]\nhedge_percent = 0");
    rig.warm(0, Duration::from_millis(40));
    stalled.now_does(|_| None);
    for number in 0..20 {
        rig.ask(&format!("{number}.example"));
    }
    rig.pass(Duration::from_millis(225));
    assert!(rig.heard().is_empty());
    stalled.doubt_kept();
    rig.settle();
    assert_eq!(rig.heard().len(), 20);
    assert_eq!(spare.queries().len(), 20);
    assert_eq!(rig.server(0).counters().repetitions(), 20);
    rig.pass(Duration::from_millis(100));
    for query in stalled.queries().drain(100..) {
        stalled.answer_kept(fake::reply(&query, 0, &[address(60)]));
    }
    rig.pass(Duration::from_secs(3));
    let status = rig.server(0).snapshot(rig.now);
    assert_eq!((status.in_flight, status.last_error, rig.server(0).is_up()), (0, None, true));
}

#[test]
fn a_server_that_is_silent_on_a_fresh_connection_too_is_blamed_when_its_time_is_up_again() {
    let stalled = answering(60);
    let mut rig = Rig::new(&[("stalled", &stalled)]);
    rig.warm(0, Duration::from_millis(40));
    stalled.now_does(|_| None);
    rig.ask("www.example");
    rig.pass(Duration::from_millis(225));
    stalled.doubt_kept();
    rig.settle();
    rig.pass(Duration::from_millis(230));
    assert_eq!(rig.server(0).snapshot(rig.now).last_error, None);
    rig.pass(Duration::from_millis(40));
    assert!(rig.server(0).snapshot(rig.now).last_error.is_some());
    assert!(rig.heard().is_empty(), "it may still answer");
    stalled.answer_kept(fake::reply(&stalled.queries()[100], 0, &[address(60)]));
    rig.settle();
    assert_eq!(rig.heard(), [good(Source::Upstream, 60)]);
}

#[test]
fn an_answer_without_a_result_does_not_end_a_query_that_is_asked_again() {
    let (stalled, refusing) = (answering(60), with_rcode(5));
    let mut rig = Rig::with(&[("stalled", &stalled), ("refusing", &refusing)], "[limits]\nhedge_percent = 0");
    rig.warm(0, Duration::from_millis(40));
    stalled.now_does(|_| None);
    rig.ask("www.example");
    stalled.doubt_kept();
    rig.settle();
    assert!(rig.heard().is_empty());
    stalled.answer_kept(fake::reply(&stalled.queries()[100], 0, &[address(60)]));
    rig.settle();
    assert_eq!(rig.heard(), [good(Source::Upstream, 60)]);
}

#[test]
fn what_is_asked_again_counts_as_retries() {
    let (stalled, spare) = (answering(60), fake::silent());
    let mut rig = Rig::with(&[("stalled", &stalled), ("spare", &spare)], "[limits]\nhedge_percent = 0");
    rig.warm(0, Duration::from_millis(40));
    stalled.now_does(|_| None);
    for number in 0..200 {
        rig.ask(&format!("{number}.example"));
    }
    stalled.doubt_kept();
    rig.settle();
    // Each took one retry for the next server and one for the fresh connection.
    assert_eq!(spare.queries().len(), 50);
}
