//! What servers and the network learn: the question, encrypted and padded, and nothing about who asks.

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

use support::authority::{self, NAME};
use support::gateway::{Setup, setup, start_text};
use support::message::{Message, OPTION_COOKIE, OPTION_ECS, OPTION_PADDING, Query, query, rcode, rtype};
use support::script::{Reply, Script};
use support::server::{BOTH, Protocol, Server};
use support::trap::{Trap, contains};
use support::zone;

/// A client subnet option of 198.18.7.0/24.
const CLIENT_NETWORK: &[u8] = &[0, 1, 24, 0, 198, 18, 7];

/// A query with everything in it that could tell clients apart.
fn talkative(name: &str) -> Query {
    query(name, rtype::A)
        .payload(4000)
        .option(OPTION_ECS, CLIENT_NETWORK)
        .option(OPTION_COOKIE, &[1, 2, 3, 4, 5, 6, 7, 8])
        .option(65_001, b"a mac address")
        .option(3, b"")
}

/// Asks `asked` through a gateway of this setup and returns what the server saw.
fn seen(protocol: Protocol, asked: &Query, change: impl Fn(Setup) -> Setup) -> Message {
    let server = Server::start(protocol, Script::good());
    let gateway = change(setup().server("lab", &server)).start();
    let answer = gateway.client().udp(asked);
    assert_eq!(answer.rcode(), rcode::NOERROR, "{answer:?}");
    let queries = server.log.queries();
    assert_eq!(queries.len(), 1);
    Message::read(&queries[0])
}

#[test]
fn no_option_of_the_client_leaves_and_queries_are_padded() {
    for protocol in BOTH {
        let query = seen(protocol, &talkative("host-talkative.lab.example"), |setup| setup);
        let opt = query.opt.as_ref().unwrap();
        let codes: Vec<u16> = opt.options.iter().map(|(code, _)| *code).collect();
        assert_eq!(codes, [OPTION_PADDING], "{protocol:?}");
        assert_eq!(query.size % 128, 0, "RFC 8467 §4.1: {} octets", query.size);
        assert!(query.option(OPTION_PADDING).unwrap().iter().all(|octet| *octet == 0), "RFC 7830 §3");
        assert_ne!(opt.payload, 4000, "the client's payload size is its own");
        assert!(!opt.dnssec_ok);
    }
}

#[test]
fn every_length_of_name_pads_to_the_same_few_sizes() {
    for protocol in BOTH {
        let server = Server::start(protocol, Script::good());
        let gateway = setup().server("lab", &server).start();
        for length in [1, 20, 40, 56] {
            let name = format!("host-{}.lab.example", "x".repeat(length));
            gateway.client().udp(&query(&name, rtype::A));
            // Clients without EDNS are padded for too.
            gateway.client().udp(&query(&name, rtype::AAAA).without_edns());
        }
        let sizes: Vec<usize> = server.log.queries().iter().map(Vec::len).collect();
        assert_eq!(sizes.len(), 8);
        assert!(sizes.iter().all(|size| *size == 128), "{protocol:?}: {sizes:?}");
    }
}

#[test]
fn padding_can_be_turned_off() {
    let query = seen(Protocol::Dot, &query("host-bare.lab.example", rtype::A), |setup| {
        setup.table("[privacy]\npadding = false")
    });
    assert!(query.option(OPTION_PADDING).is_none());
}

#[test]
fn https_queries_have_id_zero_and_headers_that_tell_nothing() {
    for url in ["", "{?dns}"] {
        let server = Server::start(Protocol::Doh, Script::good());
        let folder = authority::trusted().ca_file();
        let table = format!(
            "[server.lab]\nurl = \"{}{url}\"\naddresses = [\"127.0.0.1\"]\nca_file = \"{}\"",
            server.url(),
            folder.display()
        );
        let text = format!("listen = [\"127.0.0.1:0\"]\nupstreams = [\"lab\"]\nworkers = 1\n{table}\n");
        let gateway = start_text(&text);
        let asked = talkative("host-https.lab.example");
        assert_eq!(gateway.client().udp(&asked).rcode(), rcode::NOERROR);
        let query = Message::read(&server.log.queries()[0]);
        assert_eq!(query.id, 0, "RFC 8484 §4.1");
        let (method, headers) = server.log.requests()[0].clone();
        assert_eq!(method, if url.is_empty() { "POST" } else { "GET" });
        let allowed = ["accept", "content-type", "content-length"];
        for (name, value) in &headers {
            assert!(allowed.contains(&name.as_str()), "header {name}: {value}");
        }
        assert!(
            headers.contains(&("accept".to_owned(), "application/dns-message".to_owned())),
            "{headers:?}"
        );
    }
}

#[test]
fn ids_towards_servers_are_not_the_clients() {
    let server = Server::start(Protocol::Dot, Script::good());
    let gateway = setup().server("lab", &server).start();
    let mut same = 0;
    for number in 0..20 {
        let asked = query(&format!("host-{number}.lab.example"), rtype::A);
        gateway.client().udp(&asked);
        let sent = Message::read(server.log.queries().last().unwrap());
        same += usize::from(sent.id == asked.id);
    }
    assert!(same < 3, "{same} of 20 IDs are the clients'");
}

#[test]
fn the_client_network_is_stripped_opted_out_fixed_or_forwarded_as_configured() {
    let table: [(&str, Option<Vec<u8>>); 4] = [
        ("strip", None),
        ("opt-out", Some(vec![0, 1, 0, 0])),
        ("203.0.112.0/20", Some(vec![0, 1, 20, 0, 203, 0, 112])),
        ("forward", Some(CLIENT_NETWORK.to_vec())),
    ];
    for protocol in BOTH {
        for (value, expected) in &table {
            let query = seen(protocol, &talkative("host-network.lab.example"), |setup| {
                setup.table(&format!("[privacy]\nclient_subnet = \"{value}\""))
            });
            assert_eq!(query.option(OPTION_ECS), expected.as_deref(), "{protocol:?} {value}");
            assert!(query.option(OPTION_COOKIE).is_none());
            assert_eq!(query.size % 128, 0, "{protocol:?} {value}");
        }
    }
}

#[test]
fn answers_for_one_network_are_not_given_to_another() {
    // Answers with the network's last octet, and a scope: the answer is for this network only.
    let by_network = Reply::make(|octets| {
        let asked = Message::read(octets);
        let network = asked.option(OPTION_ECS).map(<[u8]>::to_vec).unwrap_or_default();
        let mut answer = zone::start(octets, 0);
        answer[7] = 1;
        answer[11] = 1;
        answer.extend_from_slice(&[0xC0, 12, 0, 1, 0, 1, 0, 0, 1, 44, 0, 4, 104, 51, 100]);
        answer.push(network.last().copied().unwrap_or(0));
        let mut option = network;
        if option.len() > 3 {
            option[3] = 24;
        }
        let length = u16::try_from(option.len()).unwrap();
        answer.extend_from_slice(&[0, 0, 41, 4, 208, 0, 0, 0, 0]);
        answer.extend_from_slice(&(length + 4).to_be_bytes());
        answer.extend_from_slice(&[0, 8]);
        answer.extend_from_slice(&length.to_be_bytes());
        answer.extend(option);
        answer
    });
    let server = Server::start(Protocol::Dot, Script::replying(by_network));
    let gateway = setup().server("lab", &server).table("[privacy]\nclient_subnet = \"forward\"").start();
    for last in [7u8, 8, 7, 9] {
        let asked =
            query("host-by-network.lab.example", rtype::A).option(OPTION_ECS, &[0, 1, 24, 0, 198, 18, last]);
        let answer = gateway.client().udp(&asked);
        assert_eq!(answer.answers[0].rdata, [104, 51, 100, last]);
    }
}

#[test]
fn a_name_is_never_readable_on_the_wire() {
    for protocol in BOTH {
        let server = Server::start(protocol, Script::good());
        let gateway = setup().server("lab", &server).start();
        gateway.client().udp(&query("host-unreadable.lab.example", rtype::A));
        let raw = server.log.raw();
        assert!(raw.len() > 200, "the tee works");
        assert!(!contains(&raw, b"host-unreadable"), "{protocol:?}");
        assert_eq!(server.log.asked(), 1);
    }
}

/// A server that knows where `NAME` is: on loopback.
fn phonebook() -> Server {
    let reply = Reply::make(|octets| {
        let asked = Message::read(octets).question.unwrap();
        let is_v4 = asked.rtype == rtype::A;
        let mut answer = zone::start(octets, 0);
        if is_v4 {
            answer[7] = 1;
            answer.extend_from_slice(&[0xC0, 12, 0, 1, 0, 1, 0, 0, 1, 44, 0, 4, 127, 0, 0, 1]);
        }
        answer
    });
    let names = [(format!("{NAME}."), reply)].into();
    Server::start(Protocol::Dot, Script { names, ..Script::good() })
}

/// A configuration with a server known by its name alone, and one with an address that can look the name up.
fn bootstrapping(named: &Server, phonebook: &Server) -> String {
    let ca_file = authority::trusted().ca_file();
    let ca_file = ca_file.display();
    format!(
        "listen = [\"127.0.0.1:0\"]\nupstreams = [\"named\", \"phonebook\"]\nstrategy = \"failover\"\nworkers = 1\n\
         [server.named]\nurl = \"{}\"\nca_file = \"{ca_file}\"\n\
         [server.phonebook]\nurl = \"tls://{}\"\nca_file = \"{ca_file}\"\n",
        named.url(),
        phonebook.address
    )
}

#[test]
fn a_server_name_is_looked_up_through_the_other_servers_and_encrypted() {
    for protocol in BOTH {
        let (named, phonebook) = (Server::start(protocol, Script::good()), phonebook());
        let gateway = start_text(&bootstrapping(&named, &phonebook));
        let answer = gateway.client().udp(&query("host-boot.lab.example", rtype::A));
        assert_eq!(answer.rcode(), rcode::NOERROR, "{answer:?}");
        assert_eq!(named.log.asked_for("host-boot.lab.example."), 1, "{protocol:?}");
        assert_eq!(phonebook.log.asked_for(&format!("{NAME}.")), 2, "one for each address family");
        assert!(!contains(&phonebook.log.raw(), b"\x08test-lab"), "the look-up is encrypted");
    }
}

#[test]
fn a_server_kept_over_a_reload_is_looked_up_through_the_new_others() {
    let (named, first, second) = (Server::start(Protocol::Dot, Script::good()), phonebook(), phonebook());
    first.down();
    named.down();
    let mut gateway = start_text(&bootstrapping(&named, &first));
    named.up();
    gateway.reload_text(&bootstrapping(&named, &second));
    support::eventually("it is found through the new phone book", || {
        let name = format!("host-kept-{}.lab.example", second.log.asked());
        gateway.client().udp(&query(&name, rtype::A));
        named.log.asked_for(&format!("{name}.")) == 1
    });
}

#[test]
fn a_plain_server_of_another_group_gets_nothing_of_the_default_group() {
    let trap = Trap::lay();
    let server = Server::start(Protocol::Dot, Script::good());
    let gateway = setup()
        .server("lab", &server)
        .table(&format!(
            "[group.office]\nupstreams = [\"udp://{}\"]\n[[route]]\ndomains = [\"corp.example\"]\ngroup = \"office\"",
            trap.address()
        ))
        .table("[timeouts]\nquery = \"1s\"\nconnect = \"500ms\"")
        .start();
    let client = gateway.client();
    assert_eq!(client.udp(&query("host-x.lab.example", rtype::A)).rcode(), rcode::NOERROR);
    server.down();
    assert_eq!(client.udp(&query("host-y.lab.example", rtype::A)).rcode(), rcode::SERVFAIL);
    trap.assert_silent();
}
