//! Records through the gateway: what the server said is what the client gets, octet for octet. Nothing about caching
//! or failures.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::excessive_nesting,
    clippy::missing_docs_in_private_items,
    reason = "a broken assumption must end a test, and its table is its documentation"
)]

mod support;

use support::gateway::{Gateway, setup};
use support::message::{Message, query, rcode, rtype};
use support::script::Script;
use support::server::{BOTH, Protocol, Server};
use support::zone::{self, Content};

/// A gateway in front of one good server.
fn pair(protocol: Protocol) -> (Server, Gateway) {
    let server = Server::start(protocol, Script::good());
    let gateway = setup().server("lab", &server).start();
    (server, gateway)
}

/// Type and RDATA that the zone has for a question.
fn expected(name: &str, rtype: u16, wants_dnssec: bool) -> Vec<(u16, Vec<u8>)> {
    match zone::lookup(&format!("{name}."), rtype, wants_dnssec) {
        Content::Records(records) => records.into_iter().map(|record| (record.rtype, record.rdata)).collect(),
        Content::NoData | Content::NoName => Vec::new(),
    }
}

#[test]
fn every_type_arrives_unchanged_and_in_order() {
    for protocol in BOTH {
        let (_server, gateway) = pair(protocol);
        let client = gateway.client();
        for (name, rtype) in zone::EXAMPLES {
            // Twice: from the server and from the cache.
            for time in ["first", "second"] {
                let answer = client.tcp(&query(name, *rtype));
                assert_eq!(
                    answer.rcode(),
                    rcode::NOERROR,
                    "{protocol:?} {name} {rtype}, {time} time: {answer:?}"
                );
                assert_eq!(
                    answer.data(),
                    expected(name, *rtype, false),
                    "{protocol:?} {name} {rtype}, {time} time"
                );
                assert!(!answer.is_truncated());
            }
        }
    }
}

#[test]
fn the_letter_case_of_each_question_comes_back() {
    let (server, gateway) = pair(Protocol::Dot);
    let client = gateway.client();
    for name in ["www.lab.example", "WWW.Lab.eXAMPLE", "wWw.LAB.example"] {
        // The client compares the question.
        let answer = client.udp(&query(name, rtype::A));
        assert_eq!(answer.question.as_ref().unwrap().name, format!("{name}."));
        assert_eq!(answer.answers[0].name, format!("{name}."), "the owner points at the question");
        assert_eq!(answer.data(), expected("www.lab.example", rtype::A, false));
    }
    assert_eq!(server.log.asked(), 1, "letter case makes no other name");
}

#[test]
fn an_alias_chain_keeps_its_owners() {
    let (_server, gateway) = pair(Protocol::Dot);
    let answer = gateway.client().udp(&query("chain.lab.example", rtype::A));
    let owners: Vec<&str> = answer.answers.iter().map(|record| record.name.as_str()).collect();
    assert_eq!(owners, ["chain.lab.example.", "one.lab.example.", "two.cdn.example.", "end.cdn.example."]);
}

#[test]
fn signatures_come_with_do_and_only_with_do() {
    for protocol in BOTH {
        let (_server, gateway) = pair(protocol);
        let client = gateway.client();
        let with = client.udp(&query("www.lab.example", rtype::A).dnssec());
        assert_eq!(with.data(), expected("www.lab.example", rtype::A, true));
        assert!(with.opt.as_ref().unwrap().dnssec_ok, "DO is copied (RFC 3225 §3)");
        let without = client.udp(&query("www.lab.example", rtype::A));
        assert_eq!(without.data(), expected("www.lab.example", rtype::A, false));
        assert!(!without.opt.as_ref().unwrap().dnssec_ok);
        let plain = client.udp(&query("www.lab.example", rtype::A).without_edns());
        assert_eq!(plain.data(), expected("www.lab.example", rtype::A, false));
        assert!(plain.opt.is_none(), "no OPT to a client that sent none (RFC 6891 §6.1.1)");
    }
}

#[test]
fn encrypted_client_hello_arrives_unchanged() {
    let (_server, gateway) = pair(Protocol::Doh);
    let answer = gateway.client().udp(&query("www.lab.example", rtype::HTTPS));
    let rdata = &answer.answers[0].rdata;
    assert!(rdata.windows(zone::ECH.len()).any(|window| window == zone::ECH), "{rdata:02x?}");
}

#[test]
fn negative_answers_have_their_soa() {
    for protocol in BOTH {
        let (_server, gateway) = pair(protocol);
        let client = gateway.client();
        for (name, rtype, code) in [
            ("missing.lab.example", rtype::A, rcode::NXDOMAIN),
            ("www.lab.example", rtype::MX, rcode::NOERROR),
        ] {
            for _ in 0..2 {
                let answer = client.udp(&query(name, rtype));
                assert_eq!(answer.rcode(), code, "{name}");
                assert!(answer.answers.is_empty());
                assert_eq!(answer.authority.len(), 1, "{answer:?}");
                assert_eq!(
                    (answer.authority[0].rtype, answer.authority[0].name.as_str()),
                    (rtype::SOA, zone::ORIGIN)
                );
            }
        }
    }
}

#[test]
fn a_query_for_every_type_gets_one_hinfo_and_goes_nowhere() {
    let (server, gateway) = pair(Protocol::Dot);
    let answer = gateway.client().udp(&query("www.lab.example", rtype::ANY));
    assert_eq!(answer.rcode(), rcode::NOERROR);
    assert_eq!(answer.answers.len(), 1, "{answer:?}");
    assert_eq!(answer.answers[0].rtype, rtype::HINFO, "RFC 8482 §4.2");
    assert!(answer.answers[0].rdata.starts_with(b"\x07RFC8482"), "{answer:?}");
    assert_eq!(server.log.asked(), 0);
}

#[test]
fn zone_transfers_are_refused_and_go_nowhere() {
    let (server, gateway) = pair(Protocol::Dot);
    let answer = gateway.client().tcp(&query("lab.example", rtype::AXFR));
    assert!([rcode::REFUSED, rcode::NOTIMP].contains(&answer.rcode()), "{answer:?}");
    assert_eq!(server.log.asked(), 0);
}

#[test]
fn an_rcode_of_the_server_is_passed_on() {
    for code in [1u8, 2, 4, 5] {
        let server = Server::start(Protocol::Dot, Script::replying(support::script::Reply::Rcode(code)));
        let gateway = setup().server("only", &server).start();
        let answer: Message = gateway.client().udp(&query("host-rcode.lab.example", rtype::A));
        assert_eq!(answer.rcode(), u16::from(code), "{answer:?}");
    }
}

#[test]
fn ad_reaches_clients_only_from_a_server_that_may_say_it() {
    let authentic = support::script::Reply::make(|octets| {
        let mut answer = zone::answer(octets);
        answer[3] |= 0x20;
        answer
    });
    let server = Server::start(Protocol::Dot, Script::replying(authentic));
    let untrusted = setup().server("lab", &server).start();
    let trusted = setup().server_with("lab", &server, "trust_ad = true").start();
    let asked = query("www.lab.example", rtype::A).dnssec();
    for _ in 0..2 {
        assert!(!untrusted.client().udp(&asked).is_authentic());
        assert!(trusted.client().udp(&asked).is_authentic());
    }
}
