//! Every fuzz body over its seeds (`tests/fuzz/seeds/`), with the toolchain that everybody has: real messages of the
//! made-up zone, odd ones, and every input that once found a fault. And over each of them cut short or with one bit
//! wrong, which is where most faults of parsers show. It searches no further: `cargo fuzz` does.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a broken assumption must end a test"
)]

#[allow(unreachable_pub, reason = "the fuzz targets use it as a module of their own")]
#[path = "fuzz/bodies.rs"]
mod bodies;
mod support;

use bodies::BODIES;
use std::fs;
use std::path::PathBuf;
use support::message::{query, rtype};
use support::zone;

/// The folder with a target's seeds.
fn seeds(target: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/seeds").join(target)
}

/// Reads a target's seeds, by name. The shipped configurations are seeds where they are.
fn read_seeds(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let shipped = (target == "config").then(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("config"));
    let folders = std::iter::once(seeds(target)).chain(shipped);
    let entries = folders.flat_map(|folder| {
        fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
    });
    let mut seeds: Vec<_> =
        entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_file()).collect();
    seeds.sort();
    seeds.into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

/// Runs every body over its seeds, each changed by `change` into inputs of its own.
fn run_all(change: impl Fn(&[u8]) -> Vec<Vec<u8>>) {
    for (target, body) in BODIES {
        let seeds = read_seeds(target);
        assert!(seeds.len() >= 4, "{target} has {} seeds", seeds.len());
        for (path, seed) in seeds {
            for input in change(&seed) {
                let outcome = std::panic::catch_unwind(|| body(&input));
                assert!(outcome.is_ok(), "{target}: {}: {input:02x?}", path.display());
            }
        }
    }
}

#[test]
fn every_body_holds_over_its_seeds() {
    run_all(|seed| vec![seed.to_vec()]);
}

#[test]
fn every_body_holds_over_its_seeds_cut_short() {
    run_all(|seed| {
        let step = seed.len().div_ceil(128).max(1);
        (0..seed.len()).step_by(step).map(|end| seed[..end].to_vec()).collect()
    });
}

#[test]
fn every_body_holds_over_its_seeds_with_one_bit_wrong() {
    run_all(|seed| {
        let step = seed.len().div_ceil(128).max(1);
        let flipped = |at: usize| {
            let mut octets = seed.to_vec();
            octets[at] ^= 1 << (at % 8);
            octets
        };
        (0..seed.len()).step_by(step).map(flipped).collect()
    });
}

/// The zone's messages as seeds. They are written only when the environment asks for it.
#[test]
fn the_seeds_of_messages_are_those_of_the_zone() {
    let mut missing = Vec::new();
    for (target, name, octets) in generated() {
        let path = seeds(target).join(name);
        if std::env::var_os("VEILDNS_WRITE_SEEDS").is_some() {
            fs::create_dir_all(seeds(target)).unwrap();
            fs::write(&path, &octets).unwrap();
        }
        if fs::read(&path).ok().as_ref() != Some(&octets) {
            missing.push(path);
        }
    }
    assert!(missing.is_empty(), "VEILDNS_WRITE_SEEDS=1 cargo test --test fuzz_corpus writes {missing:?}");
}

/// Makes the seeds that come from the zone.
fn generated() -> Vec<(&'static str, String, Vec<u8>)> {
    let mut seeds = Vec::new();
    let mut stream = vec![7];
    for (name, rtype) in QUESTIONS {
        let mut asked = query(name, rtype).dnssec().option(8, &[0, 1, 24, 0, 192, 0, 2]).option(10, &[1; 8]);
        asked.id = 0x1234;
        let plain = asked.clone().without_edns().octets();
        let asked = asked.octets();
        let answer = zone::answer(&asked);
        let label = format!("{}-{rtype}", name.trim_end_matches('.'));
        stream.extend(framed(&asked));
        stream.extend(framed(&answer));
        seeds.push(("stored_answer", label.clone(), [framed(&asked), answer.clone()].concat()));
        seeds.push(("stored_answer", format!("{label}-plain"), [framed(&plain), answer.clone()].concat()));
        seeds.push(("query", label.clone(), asked));
        seeds.push(("query", format!("{label}-plain"), plain));
        seeds.push(("response", label, answer));
    }
    seeds.push(("frame", "zone".to_owned(), stream));
    seeds
}

/// What the zone is asked: each kind of answer.
const QUESTIONS: [(&str, u16); 8] = [
    ("lab.example.", rtype::A),
    ("www.lab.example.", rtype::A),
    ("lab.example.", rtype::MX),
    ("lab.example.", rtype::TXT),
    ("lab.example.", rtype::SOA),
    ("nothing.lab.example.", rtype::A),
    ("lab.example.", rtype::AAAA),
    ("lab.example.", rtype::HTTPS),
];

/// A message with its length before it.
fn framed(message: &[u8]) -> Vec<u8> {
    let length = u16::try_from(message.len()).unwrap();
    [&length.to_be_bytes()[..], message].concat()
}
