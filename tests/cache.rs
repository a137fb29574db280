//! What the cache does for clients and for servers, seen from outside.

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

use support::gateway::{Setup, setup};
use support::message::{Message, query, rcode, rtype};
use support::script::{Gate, Reply, Script};
use support::server::{BOTH, Protocol, Server};
use support::{eventually, zone};

/// Short times: these tests wait for them.
fn quick() -> Setup {
    setup().table("[timeouts]\nquery = \"1500ms\"\nconnect = \"700ms\"")
}

/// A server whose records live so many seconds.
fn living(ttl: u32) -> Script {
    Script::replying(Reply::make(move |octets| {
        let answer = zone::answer(octets);
        with_ttl(octets, answer, ttl)
    }))
}

/// Replaces the TTL of the first record.
fn with_ttl(query: &[u8], mut answer: Vec<u8>, ttl: u32) -> Vec<u8> {
    // A pointer as the owner's name, type, class.
    let at = zone::question_end(query) + 6;
    answer[at..at + 4].copy_from_slice(&ttl.to_be_bytes());
    answer
}

#[test]
fn a_hit_does_not_go_upstream() {
    for protocol in BOTH {
        let server = Server::start(protocol, Script::good());
        let gateway = setup().server("lab", &server).start();
        let client = gateway.client();
        let asked = query("host-hit.lab.example", rtype::A);
        let first = client.udp(&asked);
        for _ in 0..10 {
            assert_eq!(client.udp(&asked).data(), first.data());
            assert_eq!(client.tcp(&asked).data(), first.data());
        }
        assert_eq!(server.log.asked(), 1, "{protocol:?}");
    }
}

#[test]
fn an_empty_cache_keeps_nothing() {
    let server = Server::start(Protocol::Dot, Script::good());
    let gateway = setup().server("lab", &server).table("[cache]\nmax_size = 0").start();
    for _ in 0..3 {
        gateway.client().udp(&query("host-uncached.lab.example", rtype::A));
    }
    assert_eq!(server.log.asked(), 3);
}

#[test]
fn the_ttl_counts_down() {
    let server = Server::start(Protocol::Dot, Script::good());
    let gateway = setup().server("lab", &server).start();
    let client = gateway.client();
    let asked = query("host-ttl.lab.example", rtype::A);
    let first = client.udp(&asked).ttl();
    assert!((zone::TTL - 1..=zone::TTL).contains(&first), "{first}");
    let mut last = first;
    eventually("the TTL falls by two", || {
        let now = client.udp(&asked).ttl();
        assert!(now <= last, "{now} after {last}");
        last = now;
        now + 2 <= first
    });
    assert_eq!(server.log.asked(), 1);
}

#[test]
fn negative_answers_are_kept() {
    let server = Server::start(Protocol::Dot, Script::good());
    let gateway = setup().server("lab", &server).start();
    let client = gateway.client();
    for _ in 0..3 {
        assert_eq!(client.udp(&query("missing.lab.example", rtype::A)).rcode(), rcode::NXDOMAIN);
        let nodata = client.udp(&query("www.lab.example", rtype::MX));
        assert_eq!((nodata.rcode(), nodata.answers.len()), (rcode::NOERROR, 0));
        assert!(nodata.authority[0].ttl <= 120, "RFC 2308 §5: the SOA's minimum");
    }
    assert_eq!(server.log.asked(), 2);
}

#[test]
fn do_and_cd_are_kept_apart() {
    let server = Server::start(Protocol::Dot, Script::good());
    let gateway = setup().server("lab", &server).start();
    let client = gateway.client();
    let plain = query("www.lab.example", rtype::A);
    for _ in 0..2 {
        assert_eq!(client.udp(&plain).answers.len(), 2);
        assert_eq!(client.udp(&plain.clone().dnssec()).answers.len(), 3);
        assert_eq!(client.udp(&plain.clone().checking_disabled()).answers.len(), 2);
        assert_eq!(client.udp(&plain.clone().dnssec().checking_disabled()).answers.len(), 3);
    }
    let bits: Vec<(bool, bool)> = server
        .log
        .queries()
        .iter()
        .map(|octets| {
            let asked = Message::read(octets);
            (asked.opt.unwrap().dnssec_ok, asked.flags & 0x0010 != 0)
        })
        .collect();
    assert_eq!(bits, [(false, false), (true, false), (false, true), (true, true)]);
}

#[test]
fn fifty_equal_questions_at_once_are_one_for_the_server() {
    for protocol in BOTH {
        let gate = Gate::closed();
        let server = Server::start(protocol, Script::replying(Reply::Gate(gate.clone())));
        let gateway = setup().top("workers", "2").server("lab", &server).start();
        let sockets: Vec<_> = (0..50).map(|_| gateway.client().udp_socket()).collect();
        let asked: Vec<_> = sockets.iter().map(|_| query("host-same.lab.example", rtype::A)).collect();
        for (socket, asked) in sockets.iter().zip(&asked) {
            socket.send(&asked.octets()).unwrap();
        }
        eventually("all wait", || gateway.gateway().core().resolver().permits().in_use() == 50);
        // The handshake may take longer than that.
        eventually("the server is asked", || server.log.asked() > 0);
        gate.open();
        for (socket, asked) in sockets.iter().zip(&asked) {
            let answer = Message::read(&support::client::receive(socket, support::PATIENCE).unwrap());
            assert_eq!((answer.id, answer.rcode()), (asked.id, rcode::NOERROR));
        }
        assert_eq!(server.log.asked(), 1, "{protocol:?}");
    }
}

#[test]
fn a_dead_server_leaves_stale_answers() {
    let server = Server::start(Protocol::Dot, living(1));
    let gateway = quick().server("lab", &server).table("[cache]\nprefetch = false").start();
    let client = gateway.client();
    let asked = query("host-stale.lab.example", rtype::A);
    let fresh = client.udp(&asked);
    assert_eq!(fresh.ede_code(), None);
    server.down();
    let mut stale = fresh.clone();
    eventually("the answer ends and a stale one stands in", || {
        stale = client.udp(&asked);
        stale.ede_code().is_some()
    });
    assert_eq!(stale.rcode(), rcode::NOERROR);
    assert_eq!(stale.ede_code(), Some(3), "RFC 8914 §4.4: stale answer");
    assert_eq!(stale.data(), fresh.data());
    assert!(stale.ttl() <= 30, "RFC 8767 §4: {}", stale.ttl());
    server.up();
    eventually("the server is asked again and its answer is fresh", || {
        client.udp(&asked).ede_code().is_none()
    });
}

#[test]
fn a_slow_server_is_covered_by_a_stale_answer_and_refreshes_it() {
    let gate = Gate::closed();
    let server = Server::start(Protocol::Dot, living(1));
    let gateway =
        setup().server("lab", &server).table("[cache]\nprefetch = false\nstale_after = \"200ms\"").start();
    let client = gateway.client();
    let asked = query("host-slow-stale.lab.example", rtype::A);
    client.udp(&asked);
    server.set(Script::replying(Reply::Gate(gate.clone())));
    eventually("the stale answer stands in", || client.udp(&asked).ede_code() == Some(3));
    gate.open();
    eventually("the late answer refreshes the cache", || {
        let answer = client.udp(&asked);
        answer.ede_code().is_none() && answer.ttl() > 200
    });
}

#[test]
fn popular_answers_are_fetched_again_before_they_end() {
    let server = Server::start(Protocol::Dot, living(4));
    let gateway = setup().server("lab", &server).start();
    let client = gateway.client();
    let asked = query("host-popular.lab.example", rtype::A);
    let mut last = client.udp(&asked).ttl();
    eventually("it is fetched again", || {
        let ttl = client.udp(&asked).ttl();
        let is_renewed = ttl > last;
        last = ttl;
        is_renewed
    });
    assert!(server.log.asked() >= 2);
}

#[test]
fn failures_are_remembered_for_a_moment() {
    let server = Server::start(Protocol::Dot, Script::replying(Reply::Silence));
    let gateway = quick().server("lab", &server).start();
    let client = gateway.client();
    let asked = query("host-failing.lab.example", rtype::A);
    let first = client.udp(&asked);
    assert_eq!((first.rcode(), first.ede_code()), (rcode::SERVFAIL, Some(23)));
    let before = server.log.asked();
    let second = client.udp(&asked);
    assert_eq!((second.rcode(), second.ede_code()), (rcode::SERVFAIL, Some(13)), "RFC 8914 §4.14");
    assert_eq!(server.log.asked(), before, "RFC 9520: not asked again at once");
    server.set(Script::good());
    eventually("it is asked again later", || client.udp(&asked).rcode() == rcode::NOERROR);
}

#[test]
fn types_and_names_are_kept_apart() {
    let server = Server::start(Protocol::Dot, Script::good());
    let gateway = setup().server("lab", &server).start();
    let client = gateway.client();
    for _ in 0..2 {
        for name in ["host-a.lab.example", "host-b.lab.example"] {
            for rtype in [rtype::A, rtype::AAAA] {
                let answer = client.udp(&query(name, rtype));
                assert_eq!(answer.answers[0].rtype, rtype);
                assert_eq!(answer.answers[0].name, format!("{name}."));
            }
        }
    }
    assert_eq!(server.log.asked(), 4);
}

#[test]
fn the_cache_outlives_a_reload() {
    let server = Server::start(Protocol::Dot, Script::good());
    let before = setup().server("lab", &server);
    let mut gateway = before.start();
    let asked = query("host-kept.lab.example", rtype::A);
    gateway.client().udp(&asked);
    gateway.reload(&before.clone().table("[log]\nlevel = \"warn\""));
    gateway.client().udp(&asked);
    assert_eq!(server.log.asked(), 1);
}
