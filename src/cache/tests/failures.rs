//! Failures that are remembered, beside answers and without.

use super::*;

#[test]
fn a_failure_is_remembered_longer_while_it_goes_on() {
    let mut bench = Bench::new(&settings());
    let www = name("www.example.");
    for secs in [5, 10, 20, 40, 60, 60] {
        bench.fail(&www);
        assert_eq!(bench.look(&www), ("failure", 0));
        bench.advance(secs - 1);
        bench.fail(&www); // one that was under way already does not count
        assert_eq!(bench.word(&www), "failure");
        bench.advance(1);
        assert_eq!(bench.word(&www), "miss", "after {secs} s");
    }
    bench.store(&www, 300, 1);
    assert_eq!(bench.word(&www), "fresh");
    bench.advance(86_700);
    bench.fail(&www);
    bench.advance(5);
    assert_eq!(bench.word(&www), "miss", "a success ends the series");
}

#[test]
fn how_long_failures_are_remembered_is_the_operators_and_changes_at_once() {
    let times = |first, longest| CacheSettings {
        failure_ttl: Duration::from_secs(first),
        failure_max_ttl: Duration::from_secs(longest),
        ..settings()
    };
    let mut bench = Bench::new(&times(1, 3));
    let www = name("www.example.");
    for (secs, bounded) in [(1, false), (2, false), (3, true), (3, true)] {
        assert_eq!(bench.fail(&www), bounded, "{secs} s");
        assert!(!bench.fail(&www), "one failure is counted once");
        bench.advance(secs - 1);
        assert_eq!(bench.word(&www), "failure");
        bench.advance(1);
        assert_eq!(bench.word(&www), "miss", "after {secs} s");
    }
    bench.fail(&www);
    bench.advance(100);
    assert_eq!(bench.word(&www), "miss");
    bench.cache.reconfigure(&times(300, 300));
    assert_eq!(bench.word(&www), "failure");
    bench.advance(199);
    assert_eq!(bench.word(&www), "failure");
    bench.advance(1);
    assert_eq!(bench.word(&www), "miss");
}

#[test]
fn a_failure_marks_an_answer_of_use_and_replaces_a_dead_one() {
    let mut bench = Bench::new(&settings());
    let www = name("www.example.");
    bench.store(&www, 300, 1);
    bench.fail(&www);
    assert_eq!(bench.word(&www), "fresh");
    bench.advance(300);
    assert_eq!(bench.word(&www), "stale");
    bench.fail(&www);
    assert_eq!(bench.look(&www), ("stale, failing", 300));
    assert_eq!(bench.serial(&www), Some(1));
    bench.advance(5);
    assert_eq!(bench.word(&www), "stale");
    bench.advance(86_400);
    bench.fail(&www);
    assert_eq!(bench.look(&www), ("failure", 0));
}

#[test]
fn a_marked_answer_that_dies_is_neither_served_nor_taken_for_a_failure() {
    let mut bench = Bench::new(&CacheSettings { max_stale: Duration::from_secs(100), ..settings() });
    let www = name("www.example.");
    bench.store(&www, 300, 1);
    bench.advance(398);
    bench.fail(&www);
    assert_eq!(bench.word(&www), "stale, failing");
    bench.advance(2);
    assert_eq!(bench.word(&www), "miss");
    bench.fail(&www);
    assert_eq!(bench.look(&www), ("failure", 2));
    bench.advance(3);
    assert_eq!(bench.word(&www), "miss");
}

#[test]
fn no_refresh_is_due_while_one_just_failed() {
    let mut bench = Bench::new(&settings());
    let www = name("www.example.");
    bench.store(&www, 300, 1);
    assert_eq!([bench.word(&www), bench.word(&www)], ["fresh"; 2]);
    bench.advance(280);
    bench.cache.refresh_begins(&key(&www));
    bench.fail(&www);
    assert_eq!(bench.word(&www), "fresh");
    bench.advance(5);
    assert_eq!(bench.word(&www), "refresh");
}

#[test]
fn forgetting_failures_leaves_answers() {
    let mut bench = Bench::new(&settings());
    let [down, stale] = ["down.example.", "stale.example."].map(name);
    bench.store(&stale, 60, 1);
    bench.advance(60);
    bench.fail(&down);
    bench.fail(&stale);
    assert_eq!([bench.word(&down), bench.word(&stale)], ["failure", "stale, failing"]);
    bench.cache.forget_failures();
    assert_eq!([bench.word(&down), bench.word(&stale)], ["miss", "stale"]);
    assert_eq!(bench.cache.usage().0, 1);
}
