//! Tests of the whole cache: what is found when, what is told apart, that the bound holds and that eviction is good.

use super::key::{KeyRef, PartitionId, Variant};
use super::samples::{Message, address, key, name, serial, settings};
use super::*;
use crate::wire::header::Rcode;
use crate::wire::name::Name;
use crate::wire::question::{Class, QuestionRef, RecordType, Ttl};
use proptest::prelude::*;
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

/// A cache and a clock that the test moves.
struct Bench {
    cache: Cache,
    now: Instant,
}

impl Bench {
    fn new(settings: &CacheSettings) -> Self {
        let now = crate::clock::now();
        Self { cache: Cache::new(settings, now), now }
    }

    fn advance(&mut self, secs: u64) {
        self.now += Duration::from_secs(secs);
    }

    fn store(&self, name: &Name, ttl: u32, serial: u32) -> StoredAnswer {
        self.cache.store(&key(name), address(name, ttl, serial), Provenance::default(), self.now)
    }

    fn fail(&self, name: &Name) {
        let reply = StoredAnswer::failure(&key(name).question, Rcode::SERVFAIL, None);
        self.cache.store_failure(&key(name), reply, self.now);
    }

    /// A look-up in one word and, if something was found, its age.
    fn look(&self, name: &Name) -> (&'static str, u32) {
        match self.cache.lookup(&key(name), self.now) {
            Lookup::Fresh(found) if found.failure => {
                assert_eq!(found.answer.rcode(), Rcode::SERVFAIL);
                ("failure", found.age_secs)
            }
            Lookup::Fresh(found) => ("fresh", found.age_secs),
            Lookup::FreshRefreshDue(found) => ("refresh", found.age_secs),
            Lookup::Stale(found) if found.failure => ("stale, failing", found.age_secs),
            Lookup::Stale(found) => ("stale", found.age_secs),
            Lookup::Miss => ("miss", 0),
        }
    }

    fn word(&self, name: &Name) -> &'static str {
        self.look(name).0
    }

    fn serial(&self, name: &Name) -> Option<u32> {
        match self.cache.lookup(&key(name), self.now) {
            Lookup::Fresh(found) | Lookup::FreshRefreshDue(found) | Lookup::Stale(found) => {
                Some(serial(&found.answer))
            }
            Lookup::Miss => None,
        }
    }
}

#[test]
fn an_answer_is_fresh_then_stale_then_gone() {
    let mut bench = Bench::new(&settings());
    let www = name("www.example.");
    assert_eq!(bench.look(&www), ("miss", 0));
    bench.store(&www, 300, 1);
    assert_eq!(bench.look(&www), ("fresh", 0));
    bench.advance(299);
    assert_eq!(bench.look(&www), ("fresh", 299));
    bench.advance(1);
    assert_eq!(bench.look(&www), ("stale", 300));
    bench.advance(86_399);
    assert_eq!(bench.look(&www), ("stale", 86_699));
    bench.advance(1);
    assert_eq!(bench.look(&www), ("miss", 0));
}

#[test]
fn without_max_stale_nothing_stale_is_served() {
    let mut bench = Bench::new(&CacheSettings { max_stale: Duration::ZERO, ..settings() });
    let www = name("www.example.");
    bench.store(&www, 300, 1);
    bench.advance(300);
    assert_eq!(bench.word(&www), "miss");
}

#[test]
fn letter_case_does_not_tell_names_apart() {
    let bench = Bench::new(&settings());
    // Longer than a word of the hash, case at every place; `Name` is lower-cased, so the wire form is written here.
    let shouted = b"\x0bWWW-ABCXYZ1\x07ExamplE\x03OrG\x00";
    let question =
        QuestionRef { name: NameRef::parse(shouted).unwrap(), rtype: RecordType::A, class: Class::IN };
    let whispered = name("www-abcxyz1.example.org.");
    bench.store(&whispered, 300, 7);
    let found = bench.cache.lookup(&KeyRef { question, ..key(&whispered) }, bench.now);
    assert!(matches!(found, Lookup::Fresh(found) if serial(&found.answer) == 7));
}

#[test]
fn type_class_do_cd_and_partition_are_told_apart() {
    let bench = Bench::new(&settings());
    let www = name("www.example.");
    let base = key(&www);
    let variants = [
        Variant { dnssec_ok: true, ..base.variant },
        Variant { checking_disabled: true, ..base.variant },
        Variant { dnssec_ok: true, checking_disabled: true, ..base.variant },
        Variant { partition: PartitionId(1), ..base.variant },
        Variant { partition: PartitionId(u32::MAX), ..base.variant },
    ];
    let mut keys: Vec<KeyRef<'_>> = variants.map(|variant| KeyRef { variant, ..base }).to_vec();
    keys.push(KeyRef { question: QuestionRef { rtype: RecordType::AAAA, ..base.question }, ..base });
    keys.push(KeyRef { question: QuestionRef { class: Class::CH, ..base.question }, ..base });
    bench.store(&www, 300, 1);
    for key in &keys {
        assert!(matches!(bench.cache.lookup(key, bench.now), Lookup::Miss), "{key:?}");
    }
    for (key, serial) in keys.iter().take(variants.len()).zip(2..) {
        bench.cache.store(key, address(&www, 300, serial), Provenance::default(), bench.now);
    }
    for (key, expected) in keys.iter().take(variants.len()).zip(2..) {
        let found = bench.cache.lookup(key, bench.now);
        assert!(matches!(found, Lookup::Fresh(found) if serial(&found.answer) == expected), "{key:?}");
    }
    assert_eq!(bench.serial(&www), Some(1));
}

#[test]
fn what_is_returned_has_its_ttls_within_bounds() {
    let bench = Bench::new(&CacheSettings {
        min_ttl: Duration::from_secs(60),
        max_ttl: Duration::from_secs(600),
        ..settings()
    });
    let www = name("www.example.");
    for (ttl, expected) in [(5, 60), (300, 300), (7200, 600)] {
        assert_eq!(bench.store(&www, ttl, 1).min_ttl(), Some(Ttl(expected)));
        let Lookup::Fresh(found) = bench.cache.lookup(&key(&www), bench.now) else { panic!() };
        assert_eq!(found.answer.min_ttl(), Some(Ttl(expected)));
    }
}

#[test]
fn http_age_shortens_the_life_and_the_ttl() {
    let mut bench = Bench::new(&settings());
    let www = name("www.example.");
    let returned = bench.cache.store(
        &key(&www),
        address(&www, 300, 1),
        Provenance { age_secs: 200, ..Provenance::default() },
        bench.now,
    );
    assert_eq!(returned.min_ttl(), Some(Ttl(100)));
    bench.advance(99);
    assert_eq!(bench.word(&www), "fresh");
    bench.advance(1);
    assert_eq!(bench.word(&www), "stale");
}

#[test]
fn an_error_is_returned_but_neither_stored_nor_a_reason_to_forget() {
    let mut bench = Bench::new(&settings());
    let www = name("www.example.");
    let refused = || Message::ask("www.example.", RecordType::A).rcode(Rcode::REFUSED).a(300).stored();
    let returned = bench.cache.store(&key(&www), refused(), Provenance::default(), bench.now);
    assert_eq!(returned.rcode(), Rcode::REFUSED);
    assert_eq!(bench.word(&www), "miss");
    bench.store(&www, 300, 1);
    bench.advance(400);
    bench.cache.store(&key(&www), refused(), Provenance::default(), bench.now);
    assert_eq!(bench.look(&www), ("stale", 400));
}

#[test]
fn a_fresh_denial_ends_a_stale_answer_even_when_it_may_not_be_kept() {
    for minimum in [300, 0] {
        let mut bench = Bench::new(&settings());
        let ghost = name("ghost.example.");
        bench.store(&ghost, 300, 1);
        bench.advance(301);
        assert_eq!(bench.word(&ghost), "stale");
        let denial = Message::ask("ghost.example.", RecordType::A).rcode(Rcode::NXDOMAIN).soa(900, minimum);
        bench.cache.store(&key(&ghost), denial.stored(), Provenance::default(), bench.now);
        match bench.cache.lookup(&key(&ghost), bench.now) {
            Lookup::Fresh(found) => assert_eq!((found.answer.rcode(), minimum), (Rcode::NXDOMAIN, 300)),
            Lookup::Miss => assert_eq!(minimum, 0),
            Lookup::FreshRefreshDue(_) | Lookup::Stale(_) => panic!("{minimum}"),
        }
    }
}

#[test]
fn use_does_not_lengthen_a_life() {
    let mut bench = Bench::new(&settings());
    let www = name("www.example.");
    bench.store(&www, 60, 1);
    for _ in 0..60 {
        assert_ne!(bench.word(&www), "stale");
        bench.advance(1);
    }
    assert_eq!(bench.word(&www), "stale");
}

#[test]
fn a_refresh_is_due_once_a_life_for_what_was_asked_twice() {
    let mut bench = Bench::new(&settings());
    let [often, seldom] = ["often.example.", "seldom.example."].map(name);
    for life in 0..2 {
        bench.store(&often, 300, life);
        bench.store(&seldom, 300, life);
        assert_eq!([bench.word(&often), bench.word(&often), bench.word(&seldom)], ["fresh"; 3]);
        bench.advance(269);
        assert_eq!(bench.word(&often), "fresh", "not yet its last tenth");
        bench.advance(1);
        assert_eq!([bench.word(&often), bench.word(&often)], ["refresh", "fresh"]);
        assert_eq!(bench.word(&seldom), "fresh", "was asked for once only");
        bench.advance(10);
    }
}

#[test]
fn without_prefetch_no_refresh_is_due() {
    let mut bench = Bench::new(&CacheSettings { prefetch: false, ..settings() });
    let www = name("www.example.");
    bench.store(&www, 300, 1);
    assert_eq!([bench.word(&www), bench.word(&www)], ["fresh"; 2]);
    bench.advance(290);
    assert_eq!(bench.word(&www), "fresh");
}

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

#[test]
fn purge_takes_a_name_with_all_below_or_everything() {
    let bench = Bench::new(&settings());
    let names = ["example.", "www.example.", "a.b.example.", "badexample.", "other."].map(name);
    for name in &names {
        bench.store(name, 300, 1);
    }
    assert_eq!(bench.cache.purge(Some(name("EXAMPLE").view())), 3);
    assert_eq!(names.each_ref().map(|name| bench.word(name)), ["miss", "miss", "miss", "fresh", "fresh"]);
    assert_eq!(bench.cache.purge(None), 2);
    assert_eq!(bench.cache.usage(), Bench::new(&settings()).cache.usage());
}

#[test]
fn a_cache_of_size_zero_keeps_nothing_and_still_clamps() {
    let bench = Bench::new(&CacheSettings { max_size: 0, max_ttl: Duration::from_secs(60), ..settings() });
    let www = name("www.example.");
    assert_eq!(bench.store(&www, 300, 1).min_ttl(), Some(Ttl(60)));
    bench.fail(&www);
    assert_eq!(bench.word(&www), "miss");
}

#[test]
fn random_names_do_not_exceed_the_bound() {
    let max_size = 4 << 20;
    let bench = Bench::new(&CacheSettings { max_size, ..settings() });
    let mut random = fastrand::Rng::with_seed(1);
    for serial in 0..200_000 {
        let label: String = (0..random.usize(3..40)).map(|_| random.lowercase()).collect();
        bench.store(&name(&format!("{label}.example.")), 300, serial);
        if serial % 1000 == 0 {
            assert!(bench.cache.usage().1 <= max_size);
        }
    }
    let (entries, octets) = bench.cache.usage();
    assert!(octets <= max_size && octets > max_size * 9 / 10, "{octets}");
    assert!(entries > max_size / 220, "{entries}");
}

#[test]
fn a_name_with_an_address_takes_at_most_200_octets() {
    let bench = Bench::new(&settings());
    for serial in 0..100_000 {
        bench.store(&name(&format!("host-{serial:06}.example.com.")), 300, serial);
        let (entries, octets) = if serial % 5000 == 4999 { bench.cache.usage() } else { continue };
        let each = octets / entries;
        assert!(each <= 200, "{each} at {entries}");
    }
    assert_eq!(bench.cache.usage().0, 100_000);
}

#[test]
fn answers_larger_than_a_share_are_not_kept() {
    let bench = Bench::new(&CacheSettings { max_size: 1 << 20, ..settings() });
    let big = name("big.example.");
    bench.store(&big, 300, 1);
    let giant = (0..60).fold(Message::about(big.clone(), RecordType::A), |message, _| {
        message.record(RecordType::TXT, 300, &[1; 255])
    });
    let returned = bench.cache.store(&key(&big), giant.a(300).stored(), Provenance::default(), bench.now);
    assert!(returned.message().len() > 15_000);
    assert_eq!(bench.word(&big), "miss", "what it replaced is out of date");
}

#[test]
fn reconfigure_shrinks_at_once_and_keeps_what_is_in_use() {
    let mut bench = Bench::new(&settings());
    let names: Vec<Name> = (0..20_000).map(|i| name(&format!("{i}.example."))).collect();
    for (name, serial) in names.iter().zip(0..) {
        bench.store(name, 300, serial);
    }
    let used: Vec<&Name> = names.iter().step_by(50).collect();
    for _ in 0..3 {
        assert!(used.iter().all(|name| bench.word(name) == "fresh"));
    }
    let small = CacheSettings { max_size: 512 << 10, max_stale: Duration::ZERO, ..settings() };
    bench.cache.reconfigure(&small);
    let (entries, octets) = bench.cache.usage();
    assert!(octets <= small.max_size, "{octets}");
    assert!(entries > 2000, "{entries}");
    assert!(used.iter().all(|name| bench.word(name) == "fresh"), "what is in use stays");
    for (name, serial) in names.iter().zip(0..) {
        assert!(bench.serial(name).is_none_or(|found| found == serial));
        bench.store(name, 300, serial);
    }
    assert!(bench.cache.usage().1 <= small.max_size);
    bench.advance(300);
    assert_eq!(bench.word(used[0]), "miss", "max_stale is the new one");
    bench.cache.reconfigure(&CacheSettings { max_size: 0, ..settings() });
    assert_eq!(bench.cache.usage().0, 0);
}

/// Least recently used, by number of entries.
struct Lru {
    capacity: usize,
    clock: u64,
    times: HashMap<u32, u64>,
    order: BTreeMap<u64, u32>,
}

impl Lru {
    fn new(capacity: usize) -> Self {
        Self { capacity, clock: 0, times: HashMap::new(), order: BTreeMap::new() }
    }

    /// Asks for an item, stores it when missing, and says whether it was there.
    fn ask(&mut self, item: u32) -> bool {
        self.clock += 1;
        let before = self.times.insert(item, self.clock);
        if let Some(before) = before {
            self.order.remove(&before);
        }
        self.order.insert(self.clock, item);
        if self.times.len() > self.capacity {
            let (_, oldest) = self.order.pop_first().unwrap();
            self.times.remove(&oldest);
        }
        before.is_some()
    }
}

/// Makes `count` questions: names by Zipf's law, and among them `flood` of 10 for names never asked again.
fn zipf_questions(count: usize, names: u32, flood: u32) -> Vec<u32> {
    let mut sum = 0.0;
    let sums: Vec<f64> = (1..=names)
        .map(|rank| {
            sum += f64::from(rank).powf(-0.9);
            sum
        })
        .collect();
    let mut random = fastrand::Rng::with_seed(42);
    let mut unique = names;
    (0..count)
        .map(|_| {
            if random.u32(0..10) < flood {
                unique += 1;
                return unique;
            }
            let point = random.f64() * sum;
            u32::try_from(sums.partition_point(|sum| *sum < point)).unwrap()
        })
        .collect()
}

/// Replays questions and returns hits on names that are asked again: (ours, those of LRU with as many entries).
fn replay(questions: &[u32], names: u32) -> (usize, usize) {
    let bench = Bench::new(&CacheSettings { max_size: 400_000, ..settings() });
    let mut ours = 0;
    let mut most = 0;
    for item in questions {
        let name = name(&format!("{item:07}.example."));
        if bench.word(&name) != "miss" {
            ours += usize::from(*item < names);
        } else {
            bench.store(&name, 86_400, *item);
        }
        most = bench.cache.usage().0.max(most);
    }
    let mut lru = Lru::new(usize::try_from(most).unwrap());
    let theirs = questions.iter().filter(|item| lru.ask(**item) && **item < names).count();
    (ours, theirs)
}

#[test]
fn more_hits_than_lru_on_zipf_traffic() {
    let questions = zipf_questions(100_000, 20_000, 0);
    let (ours, lru) = replay(&questions, 20_000);
    assert!(ours * 100 > lru * 103, "{ours} against {lru} of {}", questions.len());
}

#[test]
fn more_hits_than_lru_in_a_flood_of_random_names() {
    let questions = zipf_questions(100_000, 20_000, 5);
    let (ours, lru) = replay(&questions, 20_000);
    assert!(ours * 100 > lru * 115, "{ours} against {lru} of {}", questions.len());
}

/// Asks for and stores names at random; returns how many were found.
fn hammer(bench: &Bench, seed: u64) -> usize {
    let mut random = fastrand::Rng::with_seed(seed);
    let hits = (0..5000).filter(|_| {
        let item = random.u32(0..3000);
        let name = name(&format!("{item}.example."));
        let found = bench.serial(&name);
        assert!(found.is_none_or(|found| found == item));
        if found.is_none() {
            bench.store(&name, 300, item);
        }
        found.is_some()
    });
    let hits = hits.count();
    bench.cache.purge(Some(name("7.example.").view()));
    hits
}

#[test]
fn threads_share_it() {
    let bench = Bench::new(&CacheSettings { max_size: 300_000, ..settings() });
    let hits: usize = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..4)
            .map(|seed| {
                scope.spawn({
                    let bench = &bench;
                    move || hammer(bench, seed)
                })
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).sum()
    });
    assert!(hits > 0);
    assert!(bench.cache.usage().1 <= 300_000);
}

/// Something done to a cache. Keys are numbers below 8: two names, DO, partition.
#[derive(Clone, Copy, Debug)]
enum Deed {
    Store { key: u8, ttl: u32, age: u32 },
    Deny { key: u8, minimum: u32 },
    Fail { key: u8 },
    Look { key: u8 },
    Purge { name: u8 },
    Wait { secs: u64 },
}

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let secs = prop_oneof![Just(0), 1..20u32, 250..400u32, Just(u32::MAX)];
    let one = prop_oneof![
        3 => (0..8u8, secs.clone(), prop_oneof![Just(0), 0..300u32])
            .prop_map(|(key, ttl, age)| Deed::Store { key, ttl, age }),
        1 => (0..8u8, secs).prop_map(|(key, minimum)| Deed::Deny { key, minimum }),
        1 => (0..8u8).prop_map(|key| Deed::Fail { key }),
        6 => (0..8u8).prop_map(|key| Deed::Look { key }),
        1 => (0..2u8).prop_map(|name| Deed::Purge { name }),
        3 => prop_oneof![1..10u64, 100..400u64, 490..500u64, Just(1000)].prop_map(|secs| Deed::Wait { secs }),
    ];
    proptest::collection::vec(one, 1..120)
}

/// What the model knows of a key: when it was stored, for how long, and as what.
#[derive(Clone, Copy, Debug)]
struct Known {
    at: u64,
    secs: u64,
    serial: u32,
}

proptest! {
    #[test]
    fn what_is_found_is_what_was_stored_and_never_too_old(deeds in deeds()) {
        let settings = CacheSettings {
            max_ttl: Duration::from_secs(350),
            negative_max_ttl: Duration::from_secs(260),
            max_stale: Duration::from_secs(500),
            ..settings()
        };
        let bench = Bench::new(&settings);
        let names = ["a.example.", "b.example."].map(name);
        let key_of = |number: u8| {
            let base = key(&names[usize::from(number & 1)]);
            let partition = PartitionId(u32::from(number >> 2));
            KeyRef { variant: Variant { dnssec_ok: number & 2 != 0, partition, ..base.variant }, ..base }
        };
        let mut model: HashMap<u8, Known> = HashMap::new();
        let mut clock = 0;
        for (deed, serial_now) in deeds.into_iter().zip(1..) {
            let now = bench.now + Duration::from_secs(clock);
            match deed {
                Deed::Wait { secs } => clock += secs,
                Deed::Store { key, ttl, age } => {
                    let answer = address(&names[usize::from(key & 1)], ttl, serial_now);
                    let returned = bench.cache.store(&key_of(key), answer, Provenance { age_secs: age, ..Provenance::default() }, now);
                    let ttl = if ttl > i32::MAX as u32 { 0 } else { ttl };
                    let secs = u64::from(ttl.saturating_sub(age).min(350));
                    prop_assert!(u64::from(returned.min_ttl().unwrap().0) == secs);
                    model.insert(key, Known { at: clock, secs, serial: serial_now });
                }
                Deed::Deny { key, minimum } => {
                    let name = names[usize::from(key & 1)].clone();
                    // The serial is the MINIMUM: the last four octets.
                    let denial = Message::about(name, RecordType::A).rcode(Rcode::NXDOMAIN).soa(300, minimum);
                    bench.cache.store(&key_of(key), denial.stored(), Provenance::default(), now);
                    let secs = if minimum > i32::MAX as u32 { 0 } else { u64::from(minimum.min(260)) };
                    model.insert(key, Known { at: clock, secs, serial: minimum });
                }
                Deed::Fail { key } => {
                    let reply = StoredAnswer::failure(&key_of(key).question, Rcode::SERVFAIL, None);
                    bench.cache.store_failure(&key_of(key), reply, now);
                }
                Deed::Purge { name } => {
                    bench.cache.purge(Some(names[usize::from(name)].view()));
                    model.retain(|key, _| key & 1 != name);
                }
                Deed::Look { key } => {
                    let known = model.get(&key).filter(|known| known.secs > 0);
                    let age = known.map_or(u64::MAX, |known| clock - known.at);
                    let (found, is_fresh) = match bench.cache.lookup(&key_of(key), now) {
                        Lookup::Fresh(found) | Lookup::FreshRefreshDue(found) => (found, true),
                        Lookup::Stale(found) => (found, false),
                        Lookup::Miss => {
                            prop_assert!(known.is_none_or(|known| age >= known.secs + 500));
                            continue;
                        }
                    };
                    if found.answer.rcode() == Rcode::SERVFAIL {
                        prop_assert!(found.failure && is_fresh && found.age_secs < 60);
                        prop_assert!(known.is_none_or(|known| age >= known.secs + 500));
                        continue;
                    }
                    let known = known.unwrap();
                    prop_assert!(!(is_fresh && found.failure), "a fresh answer is no failure");
                    prop_assert_eq!(serial(&found.answer), known.serial);
                    prop_assert_eq!(u64::from(found.age_secs), age);
                    prop_assert_eq!(is_fresh, age < known.secs);
                    prop_assert!(age < known.secs + 500);
                    let ttl = u64::from(found.answer.min_ttl().unwrap().0);
                    prop_assert!(ttl.saturating_sub(age) <= known.secs.saturating_sub(age), "TTL beyond its life");
                }
            }
        }
    }
}
