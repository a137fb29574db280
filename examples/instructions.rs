//! A fixed amount of work on one path, for counting instructions: `instructions WORK TIMES`. `bench/instructions` runs it
//! under callgrind with two counts and takes the difference, so that starting up does not count.

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

use inside::{Inside, REPLY, answer, queries, query};
use std::time::Duration;
use veildns::clock;
use veildns::config::settings::{DohMethod, Host};
use veildns::transport::bench::{IdTable, Requests};

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let (Some(work), Some(Ok(times))) = (arguments.next(), arguments.next().map(|times| times.parse()))
    else {
        panic!("usage: instructions hit|miss|miss-traced|mux|doh-request TIMES");
    };
    match work.as_str() {
        "hit" => hits(times),
        "miss" => misses(times),
        #[cfg(feature = "otel")]
        "miss-traced" => traced_misses(times),
        "mux" => id_table(times),
        "doh-request" => requests(times),
        _ => panic!("no such work: {work}"),
    }
}

/// Hits on 1,000 names, 20 together: so many come at once when a worker is busy.
fn hits(times: usize) {
    const TOGETHER: usize = 20;
    let inside = Inside::new("64MiB");
    let hot = queries("hot", 1000);
    inside.fill(&hot);
    let mut out = [0; REPLY];
    for messages in hot.chunks(TOGETHER).cycle().take(times.div_ceil(TOGETHER)) {
        let round = inside.round();
        for message in messages {
            inside.take(&round, message, &mut out).unwrap();
        }
    }
}

/// Misses in batches of 100, from the query to the reply: with the flight, the checks and the store, without a transport.
/// The names are made beforehand, as many for every count, so that making them does not count.
fn misses(times: usize) {
    let inside = Inside::new("64MiB");
    let new = queries("new", 20_000);
    inside.fill(&new[..times.min(new.len())]);
}

/// The same while each leaves a trace: what the driver does for it. Spans are made and sent by another thread.
#[cfg(feature = "otel")]
fn traced_misses(times: usize) {
    let inside = Inside::new("64MiB");
    let new = queries("new", 20_000);
    let _intake = inside.trace(new.len());
    inside.fill(&new[..times.min(new.len())]);
}

/// Queries through the table of IDs, 100 under way.
fn id_table(times: usize) {
    let octets = query("www-1234567");
    let asked = octets.clone().into();
    let mut message = answer(&octets).to_vec();
    let deadline = clock::now() + Duration::from_secs(4);
    let mut table = IdTable::new(512);
    for _ in 0..100 {
        table.enter(&asked, deadline).unwrap();
    }
    for _ in 0..times {
        let id = table.enter(&asked, deadline).unwrap();
        message[..2].copy_from_slice(&id.to_be_bytes());
        assert!(table.arrive(&message));
    }
}

/// Requests of DNS over HTTPS, by POST, for queries that are padded to one block.
fn requests(times: usize) {
    let asked = bytes::Bytes::from(vec![0; 128]);
    let host = Host::Name("dns.example".to_owned());
    let requests = Requests::new(&host, "/dns-query", DohMethod::Post).unwrap();
    for _ in 0..times {
        assert!(requests.build(&asked).is_some());
    }
}
