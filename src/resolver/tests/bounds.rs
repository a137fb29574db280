//! What finds no place, and what is left when we stop.

use super::*;

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
