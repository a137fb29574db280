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
    let of_clients =
        queries().into_iter().map(|(name, octets)| ("query", name, with(with(octets, 0, 0x12), 1, 0x34)));
    seeds.extend(of_clients);
    seeds
}

/// Makes what clients may ask besides: each opcode, many types and classes, each EDNS option that has a meaning, odd names.
fn queries() -> Vec<(String, Vec<u8>)> {
    let base = || query("www.lab.example.", rtype::A);
    let mut seeds = Vec::new();
    for opcode in 0..16 {
        seeds.push((format!("opcode-{opcode}"), with(base().octets(), 2, opcode << 3)));
    }
    for asked in TYPES {
        seeds.push((format!("type-{asked}"), query("lab.example.", asked).dnssec().octets()));
    }
    for (name, options) in OPTIONS {
        let built = options.iter().fold(base(), |built, (code, content)| built.option(*code, content));
        seeds.push((format!("option-{name}"), built.octets()));
    }
    for (name, asked) in [
        ("root", ".".to_owned()),
        ("arpa", "1.0.0.127.in-addr.arpa.".to_owned()),
        ("deep", format!("{}lab.example.", "a.".repeat(115))),
        ("wide", format!("{}lab.example.", format!("{}.", "x".repeat(63)).repeat(3))),
        ("case", "wWw.LaB.eXaMpLe.".to_owned()),
    ] {
        seeds.push((format!("name-{name}"), query(&asked, rtype::AAAA).octets()));
    }
    let plain = base().without_edns().octets();
    let end = plain.len();
    seeds.push(("response".to_owned(), with(plain.clone(), 2, 0x80)));
    seeds.push(("two-questions".to_owned(), [with(plain.clone(), 5, 2), plain[12..].to_vec()].concat()));
    seeds.push(("class-chaos".to_owned(), with(plain.clone(), end - 1, 3)));
    seeds.push(("class-any".to_owned(), with(plain.clone(), end - 1, 255)));
    let pointed = [&with(plain[..12].to_vec(), 5, 1)[..], &[0xc0, 12, 0, 1, 0, 1]].concat();
    seeds.push(("name-points-at-itself".to_owned(), pointed));
    let opt = &base().octets()[end..];
    seeds.push(("two-opts".to_owned(), [&with(plain.clone(), 11, 2)[..], opt, opt].concat()));
    seeds.push(("tail".to_owned(), [&plain[..], b"tail"].concat()));
    seeds
}

/// Types that are asked for, or that mean something of their own.
const TYPES: [u16; 20] = [
    rtype::NS,
    rtype::CNAME,
    rtype::PTR,
    rtype::HINFO,
    29,
    rtype::SRV,
    rtype::NAPTR,
    rtype::OPT,
    rtype::DS,
    rtype::RRSIG,
    rtype::DNSKEY,
    64,
    249,
    250,
    251,
    rtype::AXFR,
    rtype::ANY,
    rtype::CAA,
    0,
    rtype::UNKNOWN,
];

/// Codes and contents.
type Options = &'static [(u16, &'static [u8])];

/// EDNS options, each as it should be and as it should not.
const OPTIONS: [(&str, Options); 16] = [
    ("nsid", &[(3, &[])]),
    ("subnet-4", &[(8, &[0, 1, 24, 0, 192, 0, 2])]),
    ("subnet-6", &[(8, &[0, 2, 56, 0, 0x20, 1, 0x0d, 0xb8, 0, 0, 0])]),
    ("subnet-none", &[(8, &[0, 1, 0, 0])]),
    ("subnet-too-long", &[(8, &[0, 1, 33, 0, 192, 0, 2, 1, 0])]),
    ("subnet-bits-behind", &[(8, &[0, 1, 20, 0, 192, 0, 255])]),
    ("subnet-family", &[(8, &[0, 9, 8, 0, 1])]),
    ("expire", &[(9, &[])]),
    ("cookie", &[(10, &[1; 8])]),
    ("cookie-server", &[(10, &[2; 24])]),
    ("cookie-short", &[(10, &[3; 7])]),
    ("keepalive", &[(11, &[])]),
    ("padding", &[(12, &[0; 40])]),
    ("chain", &[(13, &[3, b'l', b'a', b'b', 0])]),
    ("error", &[(15, &[0, 22, b'n', b'o'])]),
    ("many", &[(3, &[]), (8, &[0, 1, 0, 0]), (10, &[1; 8]), (11, &[]), (12, &[0; 3]), (65001, &[9; 9])]),
];

/// A message with one octet replaced.
fn with(mut message: Vec<u8>, at: usize, octet: u8) -> Vec<u8> {
    message[at] = octet;
    message
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
