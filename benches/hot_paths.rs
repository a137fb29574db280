//! What each step of the hot paths costs by itself. Where the time of a whole query goes with sockets and TLS is
//! `bench/run`'s matter; that nothing gets dearer unnoticed is `bench/instructions`'.

#![allow(
    missing_docs,
    clippy::missing_docs_in_private_items,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a broken assumption must end a bench"
)]

mod inside;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use inside::{Inside, REPLY, answer, queries, query};
use std::hint::black_box;
use std::time::Duration;
use veildns::cache::key::{KeyRef, PartitionId, Variant};
use veildns::cache::{Cache, Provenance};
use veildns::clock;
use veildns::config::settings::{DohMethod, Host};
use veildns::policy::name_set::NameMap;
use veildns::transport::bench::{IdTable, Requests};
use veildns::wire::edns::ReplyOptions;
use veildns::wire::name::Name;
use veildns::wire::query::{QueryRef, SubnetOption, UpstreamQuery};
use veildns::wire::response::ResponseRef;
use veildns::wire::stored::{Keep, StoredAnswer, TtlRule};

/// The variant of a plain query.
const VARIANT: Variant = Variant { dnssec_ok: false, checking_disabled: false, partition: PartitionId(0) };

/// What is kept of answers here.
const KEEP: Keep = Keep { authority: false, authentic_data: false };

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The answer to a query, at rest.
fn stored(query: &[u8]) -> StoredAnswer {
    StoredAnswer::from_response(&ResponseRef::parse(&answer(query)).unwrap(), KEEP)
}

fn wire(c: &mut Criterion) {
    let octets = query("www-1234567");
    let parsed = QueryRef::parse(&octets).unwrap();
    let response = answer(&octets);
    let stored = stored(&octets);
    let mut out = [0; REPLY];
    let mut group = c.benchmark_group("wire");
    group.bench_function("parse a query", |b| b.iter(|| QueryRef::parse(black_box(&octets)).is_ok()));
    group.bench_function("parse a response", |b| b.iter(|| ResponseRef::parse(black_box(&response)).is_ok()));
    group.bench_function("render an answer", |b| {
        b.iter(|| {
            stored.render(black_box(&parsed), TtlRule::Aged { secs: 17 }, &ReplyOptions::default(), &mut out)
        });
    });
    let upstream = UpstreamQuery {
        question: parsed.question(),
        dnssec_ok: false,
        checking_disabled: false,
        subnet: SubnetOption::OptOut,
        padding: true,
    };
    group.bench_function("build a padded query", |b| b.iter(|| black_box(&upstream).build()));
    group.finish();
}

fn cache(c: &mut Criterion) {
    let empty = Cache::new(&inside::settings("1MiB").cache, clock::now());
    let octets = query("www-1234567");
    let key = KeyRef { question: QueryRef::parse(&octets).unwrap().question(), variant: VARIANT };
    let mut group = c.benchmark_group("cache");
    group.bench_function("hash a key", |b| b.iter(|| empty.hash(black_box(&key))));
    for (count, label) in [(1_000, "look up, 1,000 names"), (1_000_000, "look up, 1,000,000 names")] {
        let now = clock::now();
        let cache = Cache::new(&inside::settings("1GiB").cache, now);
        let asked = queries("n", count);
        let parsed: Vec<_> = asked.iter().map(|octets| QueryRef::parse(octets).unwrap()).collect();
        for query in &parsed {
            let key = KeyRef { question: query.question(), variant: VARIANT };
            cache.store(&key, stored(query.bytes()), Provenance::default(), now);
        }
        let mut random = fastrand::Rng::with_seed(1);
        group.bench_function(label, |b| {
            b.iter(|| {
                let question = parsed[random.usize(..count)].question();
                cache.lookup(&KeyRef { question, variant: VARIANT }, cache.moment(now))
            });
        });
    }
    group.finish();
}

fn transport(c: &mut Criterion) {
    let octets = query("www-1234567");
    let asked = bytes::Bytes::from(octets.clone());
    let mut message = answer(&octets).to_vec();
    let deadline = clock::now() + Duration::from_secs(4);
    let mut table = IdTable::new(512);
    // Others are under way.
    for _ in 0..100 {
        table.enter(&asked, deadline);
    }
    let mut group = c.benchmark_group("transport");
    group.bench_function("ID table, there and back", |b| {
        b.iter(|| {
            let id = table.enter(&asked, deadline).unwrap();
            message[..2].copy_from_slice(&id.to_be_bytes());
            table.arrive(&message)
        });
    });
    let asked = bytes::Bytes::from(vec![0; 128]);
    let host = Host::Name("dns.example".to_owned());
    for (method, label) in [(DohMethod::Post, "DoH request, POST"), (DohMethod::Get, "DoH request, GET")] {
        let requests = Requests::new(&host, "/dns-query", method).unwrap();
        group.bench_function(label, |b| b.iter(|| requests.build(black_box(&asked))));
    }
    group.finish();
}

fn names(c: &mut Criterion) {
    let mut map = NameMap::new();
    for number in 0..100_000 {
        map.insert(format!("tracker-{number}.example.com.").parse::<Name>().unwrap(), ());
    }
    let inside: Name = "a.b.tracker-777.example.com.".parse().unwrap();
    let outside: Name = "www.some-shop.example.org.".parse().unwrap();
    let mut group = c.benchmark_group("name set of 100,000");
    group.bench_function("name within", |b| b.iter(|| map.matches(black_box(inside.view())).is_some()));
    group.bench_function("name outside", |b| b.iter(|| map.matches(black_box(outside.view())).is_some()));
    group.finish();
}

fn resolver(c: &mut Criterion) {
    let inside = Inside::new("1GiB");
    let hot = queries("hot", 1000);
    inside.fill(&hot);
    let mut out = [0; REPLY];
    let mut next = hot.iter().cycle();
    let mut group = c.benchmark_group("resolver");
    group.bench_function("hit: parse, rules, look-up, render, record", |b| {
        b.iter(|| inside.take(&inside.round(), next.next().unwrap(), &mut out).unwrap());
    });
    // Inside the driver's thread, so that what is measured is the work and not the hand-over.
    let mut round = 0;
    group.sample_size(20).throughput(Throughput::Elements(1000));
    group.bench_function("1,000 misses in tens of 100", |b| {
        b.iter_batched(
            || {
                round += 1;
                queries(&format!("new-{round}"), 1000)
            },
            |new| inside.fill(&new),
            BatchSize::LargeInput,
        );
    });
    group.finish();
}

criterion_group! {
    name = hot_paths;
    config = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    targets = wire, cache, transport, names, resolver
}
criterion_main!(hot_paths);
