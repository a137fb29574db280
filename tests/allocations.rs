//! A hit allocates nothing; a miss allocates a bounded number of times. Counted by a global allocator of its own, which is
//! why this test is alone in its file.

#[path = "../benches/inside/mod.rs"]
mod inside;

use inside::{Inside, REPLY, queries};

/// Allocations a miss may take from the query to the stored answer and the reply, those of the test's own
/// server among them. Raise it only with a reason.
const MISS_LIMIT: u64 = 12;

#[test]
fn a_hit_allocates_nothing() {
    let inside = Inside::new("64MiB");
    let asked = queries("hot", 1000);
    inside.fill(&asked);
    let mut out = [0; REPLY];
    let hits = || {
        let round = inside.round();
        for message in &asked {
            assert!(inside.take(&round, message, &mut out).is_some());
        }
    };
    let counted = allocation_counter::measure(hits);
    assert_eq!((counted.count_total, counted.bytes_total), (0, 0));
}

#[test]
fn a_miss_allocates_a_bounded_number_of_times() {
    let inside = Inside::new("64MiB");
    inside.fill(&queries("first", 1000));
    let asked = queries("then", 10_000);
    let counted = allocation_counter::measure(|| inside.fill(&asked));
    let a_miss = counted.count_total / 10_000;
    println!("{a_miss} allocations a miss, the test server's own among them");
    assert!(a_miss <= MISS_LIMIT, "{a_miss} allocations a miss");
}
