//! What finds no place, and what is left when we stop.

use super::*;
use std::sync::atomic::Ordering;

#[test]
fn too_many_waiters_for_one_name_are_told_so() {
    let server = fake::silent();
    let mut rig = Rig::with(&[("a", &server)], "[limits]\nwaiters_per_flight = 2");
    for _ in 0..3 {
        rig.ask("www.example");
    }
    assert_eq!(rig.heard(), [failed(EdeCode::OTHER)]);
}

#[test]
fn queries_beyond_the_places_are_told_so_and_hits_go_on() {
    let server = answering(60);
    let mut rig = Rig::with(&[("a", &server)], "[limits]\nmax_inflight = 2\nmax_inflight_per_client = 2");
    rig.ask("warm.example");
    rig.heard();
    server.now_does(|_| None);
    for name in ["a.example", "b.example", "c.example", "warm.example"] {
        rig.ask(name);
    }
    assert_eq!(rig.heard(), [failed(EdeCode::OTHER), good(Source::Cache, 60)]);
}

#[test]
fn stopping_replies_to_all_who_wait() {
    let server = fake::silent();
    let mut rig = Rig::new(&[("a", &server)]);
    rig.ask("www.example");
    rig.flights.end_all(rig.now);
    assert_eq!(rig.heard(), [failed(EdeCode::NOT_READY)]);
    assert_eq!(rig.resolver.permits().in_use(), 0);
}

#[tokio::test]
async fn what_is_still_in_the_inbox_when_we_stop_gets_its_reply() {
    let server = fake::silent();
    let rig = Rig::new(&[("a", &server)]);
    let octets = query("www.example");
    let (step, _) = rig.resolver.answer_now(
        &QueryRef::parse(&octets).unwrap(),
        ClientTransport::Udp,
        rig.now,
        &mut [0; 512],
    );
    let Step::Wait(pending) = step else { panic!("nothing is cached") };
    rig.resolver.enqueue(&mut vec![(pending, rig.waiter(&octets))]);
    let cancel = CancellationToken::new();
    cancel.cancel();
    Arc::clone(&rig.resolver).drive(0, cancel).await;
    assert_eq!(rig.heard(), [failed(EdeCode::NOT_READY)]);
    assert_eq!(rig.resolver.permits().in_use(), 0);
}

#[test]
fn refreshes_of_all_lanes_are_counted_together() {
    let server = answering(100);
    let mut rig = Rig::with(&[("a", &server)], "[limits]\nrefresh_inflight = 1");
    for name in ["one.example", "two.example"].repeat(3) {
        rig.ask(name);
    }
    server.now_does(|_| None);
    rig.pass(Duration::from_secs(95));
    let places = Arc::clone(&rig.resolver.refreshing);
    // Another lane's refresh has the one place.
    places.store(1, Ordering::Relaxed);
    rig.ask("one.example");
    assert_eq!(server.queries().len(), 2, "it is left out");
    places.store(0, Ordering::Relaxed);
    rig.ask("two.example");
    assert_eq!((server.queries().len(), places.load(Ordering::Relaxed)), (3, 1), "it flies");
    rig.pass(Duration::from_secs(10));
    assert_eq!(places.load(Ordering::Relaxed), 0, "its place is given back");
}
