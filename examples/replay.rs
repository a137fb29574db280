//! Replays made-up query streams against the cache and says how it did: `cargo run --release --example replay [MiB]`.
//!
//! 1. A million names, stored and looked up: does the time stay the same, does the memory stay within the bound?
//! 2. 200,000 random names, as in an attack, beside 1,000 that are really asked for: do those stay?
//! 3. A Zipf stream: the hit ratio beside that of LRU and of the best possible (Belady) with as many entries.
//!
//! Everything is seeded; nothing expires, so that only eviction shows.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    clippy::missing_docs_in_private_items,
    reason = "a tool of the developers, which may end where it stands"
)]

#[path = "../benches/inside/mod.rs"]
mod inside;

use fastrand::Rng;
use inside::{answer, query, settings};
use std::collections::BinaryHeap;
use std::time::Instant;
use veildns::cache::key::{KeyRef, PartitionId, Variant};
use veildns::cache::{Cache, Lookup, Provenance};
use veildns::clock;
use veildns::wire::query::QueryRef;
use veildns::wire::response::ResponseRef;
use veildns::wire::stored::{Keep, StoredAnswer};

const VARIANT: Variant = Variant { dnssec_ok: false, checking_disabled: false, partition: PartitionId(0) };
const KEEP: Keep = Keep { authority: false, authentic_data: false };

fn main() {
    let mib: usize =
        std::env::args().nth(1).map_or(64, |text| text.parse().expect("a number of MiB is wanted"));
    million(mib);
    flood(mib);
    println!("\nZipf streams of 5,000,000 queries over 1,000,000 names:\n");
    println!("| exponent | cache | entries | veildns | LRU | best possible |\n|---|---|---:|---:|---:|---:|");
    for exponent in [0.8, 0.9, 1.0] {
        for kib in [1024, 4096, 16_384, 65_536] {
            zipf(exponent, kib);
        }
    }
}

/// A cache and the names that are asked of it, by number.
struct Replay {
    cache: Cache,
    now: Instant,
    max_octets: u64,
}

impl Replay {
    fn new(size: &str, max_octets: u64) -> Self {
        let now = clock::now();
        Self { cache: Cache::new(&settings(size).cache, now), now, max_octets }
    }

    fn of_mib(mib: usize) -> Self {
        Self::new(&format!("{mib}MiB"), mib as u64 * (1 << 20))
    }

    /// Asks for a name; what is not there is fetched and stored. True for a hit.
    fn ask(&self, message: &[u8]) -> bool {
        let parsed = QueryRef::parse(message).unwrap();
        let key = KeyRef { question: parsed.question(), variant: VARIANT };
        if !matches!(self.cache.lookup(&key, self.cache.moment(self.now)), Lookup::Miss) {
            return true;
        }
        let response = answer(message);
        let stored = StoredAnswer::from_response(&ResponseRef::parse(&response).unwrap(), KEEP);
        self.cache.store(&key, stored, Provenance::default(), self.now);
        false
    }

    fn assert_bounded(&self) {
        let (_, octets) = self.cache.usage();
        assert!(octets <= self.max_octets, "{octets} octets are held, {} are allowed", self.max_octets);
    }
}

/// A million names in ten parts.
fn million(mib: usize) {
    const PART: usize = 100_000;
    println!("1,000,000 names, cache of {mib} MiB:\n");
    println!("| names so far | ask and store, ns | look up again, ns | entries | MiB held | MiB resident |");
    println!("|---:|---:|---:|---:|---:|---:|");
    let replay = Replay::of_mib(mib);
    let before = resident();
    for part in 0..10 {
        let asked: Vec<_> = (0..PART).map(|n| query(&format!("name-{}", part * PART + n))).collect();
        let first = nanoseconds(&asked, |message| replay.ask(message));
        let again = nanoseconds(&asked, |message| replay.ask(message));
        replay.assert_bounded();
        let (entries, octets) = replay.cache.usage();
        println!(
            "| {} | {first} | {again} | {entries} | {:.1} | {:.1} |",
            (part + 1) * PART,
            octets as f64 / f64::from(1 << 20),
            resident() - before,
        );
    }
}

/// Names that nobody asks for twice, between the names that are asked for.
fn flood(mib: usize) {
    let replay = Replay::of_mib(mib.div_ceil(8));
    let hot: Vec<_> = (0..1000).map(|n| query(&format!("hot-{n}"))).collect();
    let mut random = Rng::with_seed(1);
    for message in hot.iter().chain(&hot) {
        replay.ask(message);
    }
    let (mut asked, mut hits) = (0, 0);
    for _ in 0..200_000 {
        replay.ask(&query(&format!("{:012x}", random.u64(..1 << 48))));
        if random.u8(..10) == 0 {
            asked += 1;
            hits += u32::from(replay.ask(&hot[random.usize(..hot.len())]));
        }
    }
    replay.assert_bounded();
    let (entries, octets) = replay.cache.usage();
    println!(
        "\n200,000 random names, cache of {} MiB: {:.1} % of the queries for 1,000 hot names were hits; {entries} entries, {:.1} MiB held",
        mib.div_ceil(8),
        100.0 * f64::from(hits) / f64::from(asked),
        octets as f64 / f64::from(1 << 20),
    );
}

/// One stream, three caches of the same number of entries.
fn zipf(exponent: f64, kib: usize) {
    const NAMES: usize = 1_000_000;
    const QUERIES: usize = 5_000_000;
    let stream = stream(exponent, NAMES, QUERIES);
    let replay = Replay::new(&format!("{kib}KiB"), kib as u64 * 1024);
    let hits = stream.iter().filter(|name| replay.ask(&query(&format!("z{name}")))).count();
    replay.assert_bounded();
    let entries = usize::try_from(replay.cache.usage().0).unwrap();
    let percent = |hits: usize| 100.0 * hits as f64 / QUERIES as f64;
    println!(
        "| {exponent} | {kib} KiB | {entries} | {:.2} % | {:.2} % | {:.2} % |",
        percent(hits),
        percent(lru(&stream, NAMES, entries)),
        percent(best_possible(&stream, NAMES, entries)),
    );
}

/// Names by popularity.
fn stream(exponent: f64, names: usize, queries: usize) -> Vec<u32> {
    let mut sum = 0.0;
    let cumulated: Vec<f64> = (1..=names)
        .map(|rank| {
            sum += (rank as f64).powf(-exponent);
            sum
        })
        .collect();
    let mut random = Rng::with_seed(7);
    (0..queries).map(|_| cumulated.partition_point(|&upto| upto < random.f64() * sum) as u32).collect()
}

/// Hits of a cache that throws out what was unused for longest.
fn lru(stream: &[u32], names: usize, entries: usize) -> usize {
    // A ring of names: `next` is the more recently used one; the last place is the ring's head.
    let head = names;
    let (mut next, mut previous) = (vec![usize::MAX; names + 1], vec![usize::MAX; names + 1]);
    (next[head], previous[head]) = (head, head);
    let (mut held, mut hits) = (0, 0);
    for &name in stream {
        let name = name as usize;
        if next[name] == usize::MAX {
            held += 1;
            if held > entries {
                let oldest = next[head];
                next[head] = next[oldest];
                previous[next[oldest]] = head;
                next[oldest] = usize::MAX;
                held -= 1;
            }
        } else {
            hits += 1;
            (next[previous[name]], previous[next[name]]) = (next[name], previous[name]);
        }
        let newest = previous[head];
        (next[newest], previous[name], next[name], previous[head]) = (name, newest, head, name);
    }
    hits
}

/// Hits of a cache that knows the future and throws out what is needed latest.
fn best_possible(stream: &[u32], names: usize, entries: usize) -> usize {
    let mut next_use = vec![u32::MAX; stream.len()];
    let mut seen = vec![u32::MAX; names];
    for (at, &name) in stream.iter().enumerate().rev() {
        next_use[at] = seen[name as usize];
        seen[name as usize] = at as u32;
    }
    // Per name when it is needed next if it is held, else 0; the heap has outdated pairs too.
    let mut held_until = vec![0; names];
    let mut latest = BinaryHeap::new();
    let (mut held, mut hits) = (0, 0);
    for (at, &name) in stream.iter().enumerate() {
        let until = next_use[at];
        if held_until[name as usize] == 0 {
            held += 1;
        } else {
            hits += 1;
        }
        held_until[name as usize] = until;
        latest.push((until, name));
        while held > entries {
            let (until, victim) = latest.pop().unwrap();
            if held_until[victim as usize] == until {
                held_until[victim as usize] = 0;
                held -= 1;
            }
        }
    }
    hits
}

/// Mean time of one step.
fn nanoseconds(asked: &[Vec<u8>], step: impl Fn(&[u8]) -> bool) -> u128 {
    let start = clock::now();
    for message in asked {
        step(message);
    }
    start.elapsed().as_nanos() / asked.len() as u128
}

/// Resident MiB of this process.
fn resident() -> f64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<f64>().unwrap() * 4096.0 / f64::from(1 << 20)
}
