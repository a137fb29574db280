//! A second server is asked because the first is slow.

use super::*;

#[test]
fn a_server_slower_than_its_own_habit_is_hedged_by_the_next_and_the_first_answer_wins_once() {
    let (slow, spare) = (answering(60), answering(50));
    let mut rig = Rig::new(&[("slow", &slow), ("spare", &spare)]);
    rig.warm(0, Duration::from_millis(40));
    slow.now_does(|_| None);
    rig.ask("www.example");
    rig.pass(Duration::from_millis(40));
    assert!(rig.heard().is_empty() && spare.queries().is_empty());
    rig.pass(Duration::from_millis(20));
    assert_eq!(rig.heard(), [good(Source::Upstream, 50)]);
    let counters = Arc::clone(rig.server(1).counters());
    assert_eq!((counters.hedges(), counters.hedges_won(), rig.server(0).counters().hedges()), (1, 1, 0));

    // The loser's answer is late, and no failure; it is not what is kept.
    rig.pass(Duration::from_millis(80));
    assert_eq!(rig.server(0).snapshot(rig.now).in_flight, 1);
    slow.answer_kept(fake::reply(&slow.queries()[100], 0, &[address(7)]));
    rig.settle();
    let status = rig.server(0).snapshot(rig.now);
    assert_eq!((status.in_flight, status.last_error), (0, None));
    assert!(status.latency > Some(Duration::from_millis(100)), "{:?}", status.latency);
    rig.pass(Duration::from_secs(5));
    rig.ask("www.example");
    assert_eq!(rig.heard(), [good(Source::Cache, 45)]);
    assert_eq!(rig.server(0).snapshot(rig.now).last_error, None);
}

#[test]
fn a_server_that_never_answers_is_blamed_though_hedges_won() {
    let (dead, spare) = (answering(60), answering(60));
    let mut rig = Rig::new(&[("dead", &dead), ("spare", &spare)]);
    rig.warm(0, Duration::from_millis(20));
    dead.now_does(|_| None);
    for number in 0..3 {
        rig.ask(&format!("{number}.example"));
        rig.pass(Duration::from_millis(1_500));
        assert_eq!(rig.heard(), [good(Source::Upstream, 60)]);
    }
    assert_eq!(rig.server(1).counters().hedges_won(), 3);
    assert!(!rig.server(0).is_up(), "three times in a row it was silent for all of its time");
    rig.pass(Duration::from_secs(10));
    assert!(rig.server(0).snapshot(rig.now).in_flight <= 3);
}

#[test]
fn the_answer_of_the_hedged_server_is_taken_when_it_comes_first() {
    let (slow, silent) = (answering(60), fake::silent());
    let mut rig = Rig::new(&[("slow", &slow), ("silent", &silent)]);
    rig.warm(0, Duration::from_millis(20));
    slow.now_does(|_| None);
    rig.ask("www.example");
    rig.pass(Duration::from_millis(60));
    assert_eq!(silent.queries().len(), 1);
    slow.answer_kept(fake::reply(&slow.queries()[100], 0, &[address(60)]));
    rig.settle();
    assert_eq!(rig.heard(), [good(Source::Upstream, 60)]);
    assert_eq!((rig.server(1).counters().hedges(), rig.server(1).counters().hedges_won()), (1, 0));
}

#[test]
fn a_hedge_that_fails_or_lies_leaves_the_first_server_its_time() {
    let lie: fn(&[u8]) -> Option<Result<Bytes, TransportError>> =
        |_| Some(Ok(fake::reply(&query("evil.example"), 0, &[address(60)])));
    for hedge in [lie, |_| Some(Err(TransportError::Closed)), |query| Some(Ok(fake::reply(query, 2, &[])))] {
        let (slow, bad) = (answering(60), Fake::new(hedge));
        let mut rig = Rig::new(&[("slow", &slow), ("bad", &bad)]);
        rig.warm(0, Duration::from_millis(20));
        slow.now_does(|_| None);
        rig.ask("www.example");
        rig.pass(Duration::from_millis(60));
        assert_eq!((bad.queries().len(), rig.heard().len()), (1, 0));
        slow.answer_kept(fake::reply(&slow.queries()[100], 0, &[address(60)]));
        rig.settle();
        assert_eq!(rig.heard(), [good(Source::Upstream, 60)]);
    }
}

/// Asks a thousand new names, 500 a second, of a server that never answers but stays in use. Returns the hedges and all that
/// the other one was asked.
fn a_thousand_stalled(retry_percent: u32) -> (u64, usize) {
    let (stalled, spare) = (answering(60), answering(60));
    let limits = format!("[limits]\nretry_percent = {retry_percent}");
    let mut rig = Rig::with(&[("stalled", &stalled), ("spare", &spare)], &limits);
    rig.warm(0, Duration::from_millis(20));
    stalled.now_does(|_| None);
    for number in 0..1_000 {
        rig.ask(&format!("{number}.example"));
        rig.pass(Duration::from_millis(2));
        rig.server(0).observe(Sample::Answered { latency: Duration::from_millis(20) }, rig.now);
    }
    rig.pass(Duration::from_secs(5));
    (rig.server(1).counters().hedges(), spare.queries().len())
}

#[test]
fn hedges_stay_within_their_share_of_queries_and_end_with_the_retries() {
    let (hedges, asked) = a_thousand_stalled(100);
    assert!((45..=55).contains(&hedges), "{hedges} of 1,000");
    assert_eq!(asked, 1_000, "the others change over when the server has had its time");
    // A hundred retries in ten seconds are always allowed, and hedges are among them.
    let (hedges, asked) = a_thousand_stalled(0);
    assert!((5..=25).contains(&hedges), "{hedges} of 1,000");
    assert_eq!(asked, 100);
}

#[test]
fn nobody_is_hedged_alone_in_the_background_or_when_it_is_switched_off() {
    let (slow, spare) = (answering(100), answering(60));
    let mut rig = Rig::with(&[("slow", &slow), ("spare", &spare)], "[limits]\nhedge_percent = 0");
    rig.warm(0, Duration::from_millis(20));
    slow.now_does(|_| None);
    rig.ask("www.example");
    rig.pass(Duration::from_millis(200));
    assert!(spare.queries().is_empty(), "switched off");

    let mut rig = Rig::new(&[("slow", &slow), ("spare", &spare)]);
    slow.now_does(|query| Some(Ok(fake::reply(query, 0, &[address(100)]))));
    rig.warm(0, Duration::from_millis(20));
    for _ in 0..3 {
        rig.ask("99.warm.example");
    }
    slow.now_does(|_| None);
    rig.pass(Duration::from_secs(95));
    rig.ask("99.warm.example");
    rig.pass(Duration::from_millis(200));
    assert!(spare.queries().is_empty(), "in the background");

    let mut rig = Rig::new(&[("slow", &slow), ("spare", &spare)]);
    slow.now_does(|query| Some(Ok(fake::reply(query, 0, &[address(100)]))));
    rig.warm(0, Duration::from_millis(20));
    slow.now_does(|_| None);
    rig.server(1).observe(Sample::Busy { retry_after: None }, rig.now);
    rig.ask("www.example");
    rig.pass(Duration::from_millis(200));
    assert!(spare.queries().is_empty(), "nobody else is up");
}

#[test]
fn a_stale_answer_comes_in_its_time_whoever_is_hedged() {
    let (slow, silent) = (answering(60), fake::silent());
    let mut rig = Rig::new(&[("slow", &slow), ("silent", &silent)]);
    rig.warm(0, Duration::from_millis(20));
    slow.now_does(|_| None);
    rig.pass(Duration::from_secs(61));
    rig.ask("5.warm.example");
    rig.pass(Duration::from_millis(1_790));
    assert!(rig.heard().is_empty());
    assert_eq!(silent.queries().len(), 1);
    rig.pass(Duration::from_millis(50));
    assert_eq!(rig.heard()[0].source, Source::Stale);
}
