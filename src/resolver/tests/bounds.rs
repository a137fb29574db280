//! What finds no place, and what is left when we stop.

use super::*;
use crate::resolver::inbox::MAX_REFRESHES;
use crate::telemetry::bounds::Bound;
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
fn of_flights_that_have_ended_only_so_many_are_still_learnt_from() {
    const KEPT: u32 = 4096;
    let (silent, spare) = (fake::silent(), answering(60));
    let places = "[limits]\nmax_inflight = 10000\nmax_inflight_per_client = 10000\nretry_percent = 100";
    let mut rig = Rig::with(&[("silent", &silent), ("spare", &spare)], places);
    (0..KEPT + 4).for_each(|number| rig.ask(&format!("{number}.example")));
    assert_eq!(rig.server(0).snapshot(rig.now).in_flight, KEPT + 4);
    rig.pass(Duration::from_millis(1_100));
    let good = rig.heard().iter().filter(|heard| heard.rcode == Rcode::NOERROR).count();
    assert_eq!(good, silent.queries().len(), "all were answered by the other one");
    assert_eq!(rig.server(0).snapshot(rig.now).in_flight, KEPT, "the rest is not waited for");
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
    let asked = QueryRef::parse(&octets).unwrap();
    let (step, _) = rig.answer_now(&asked, &mut [0; 512]);
    let Step::Wait(pending) = step else { panic!("nothing is cached") };
    rig.resolver.enqueue(&mut vec![(pending, rig.waiter(&octets))]);
    let cancel = CancellationToken::new();
    cancel.cancel();
    Arc::clone(&rig.resolver).drive(0, cancel).await;
    assert_eq!(rig.heard(), [failed(EdeCode::NOT_READY)]);
    assert_eq!(rig.resolver.permits().in_use(), 0);
}

/// A gateway with room for one refresh, in which two popular names are due for theirs and the server has fallen silent.
fn with_two_refreshes_due(server: &Fake) -> Rig {
    let mut rig = Rig::with(&[("a", server)], "[limits]\nrefresh_inflight = 1");
    for name in ["one.example", "two.example"].repeat(3) {
        rig.ask(name);
    }
    server.now_does(|_| None);
    rig.pass(Duration::from_secs(95));
    rig
}

#[test]
fn refreshes_of_all_lanes_are_counted_together() {
    let server = answering(100);
    let mut rig = with_two_refreshes_due(&server);
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

#[test]
fn a_refresh_that_was_left_out_is_made_when_its_name_is_asked_for_again() {
    let server = answering(100);
    let mut rig = with_two_refreshes_due(&server);
    rig.heard();
    // Both are handed over before the driver looks: one of them finds the place taken there.
    for name in ["one.example", "two.example"] {
        let octets = query(name);
        let asked = QueryRef::parse(&octets).unwrap();
        rig.answer_now(&asked, &mut [0; 512]);
    }
    rig.settle();
    let left_out = |rig: &Rig| rig.resolver.telemetry.bounds().count(Bound::RefreshInflight);
    assert_eq!((server.queries().len(), left_out(&rig)), (3, 1));
    // The next ones find it taken before they are handed over; their clients have their answers all the same.
    rig.ask("two.example");
    rig.ask("two.example");
    assert_eq!((server.queries().len(), left_out(&rig)), (3, 3));
    assert_eq!(rig.heard(), [good(Source::Cache, 5), good(Source::Cache, 5)]);
    server.now_does(|query| Some(Ok(fake::reply(query, 0, &[address(100)]))));
    server.answer_kept(fake::reply(&server.queries()[2], 0, &[address(100)]));
    rig.settle();
    rig.ask("two.example");
    assert_eq!((server.queries().len(), left_out(&rig)), (4, 3), "there is a place again");
    rig.pass(Duration::from_secs(50));
    rig.heard();
    rig.ask("one.example");
    rig.ask("two.example");
    assert_eq!(rig.heard(), [good(Source::Cache, 50), good(Source::Cache, 50)], "both were refreshed");
}

#[test]
fn refreshes_that_the_driver_has_not_taken_yet_are_bounded() {
    let server = answering(100);
    let mut rig = Rig::with(&[("a", &server)], "[limits]\nrefresh_inflight = 1000");
    let names: Vec<String> = (0..=MAX_REFRESHES).map(|number| format!("{number}.example")).collect();
    for name in names.iter().cycle().take(3 * names.len()) {
        rig.ask(name);
    }
    rig.pass(Duration::from_secs(95));
    for name in &names {
        let octets = query(name);
        let asked = QueryRef::parse(&octets).unwrap();
        rig.answer_now(&asked, &mut [0; 512]);
    }
    rig.settle();
    assert_eq!(server.queries().len(), names.len() + MAX_REFRESHES);
    assert_eq!(rig.resolver.telemetry.bounds().count(Bound::RefreshInflight), 1);
    rig.ask(&names[MAX_REFRESHES]);
    assert_eq!(server.queries().len(), 2 * names.len(), "the one that was left out");
}
