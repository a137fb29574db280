//! The bound holds, and what is asked for again stays.

use super::*;

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

#[test]
fn keys_of_different_lanes_never_meet_at_a_lock_where_the_number_of_lanes_divides_that_of_the_parts() {
    let bench = Bench::new(&settings());
    for lanes in [1, 2, 4, 8, 16, 32] {
        let mut lane_of_shard = [None; SHARDS as usize];
        for serial in 0..1000 {
            let name = name(&format!("host-{serial}.example.com."));
            let hash = bench.cache.hash(&key(&name));
            let lane = Cache::lane_of(hash, lanes);
            assert!(lane < lanes);
            let shard = usize::try_from(hash >> 32).unwrap() % lane_of_shard.len();
            assert_eq!(*lane_of_shard[shard].get_or_insert(lane), lane);
        }
        assert!(lane_of_shard.iter().all(Option::is_some));
    }
}
