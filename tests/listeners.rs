//! What clients see of the listeners: sizes, truncation, pipelining, bad queries, access. Records are elsewhere.

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

use support::client::{Client, receive};
use support::gateway::{Gateway, setup};
use support::message::{Message, OPTION_KEEPALIVE, Query, query, rcode, rtype};
use support::netns::{is_inside, run_inside, system};
use support::script::{Gate, Reply, Script};
use support::server::{Protocol, Server};
use support::{PATIENCE, eventually, zone};

/// A gateway in front of one good server.
fn pair() -> (Server, Gateway) {
    let server = Server::start(Protocol::Dot, Script::good());
    let gateway = setup().server("lab", &server).start();
    (server, gateway)
}

/// The same, with a name that is answered once the gate is open.
fn with_a_slow_name() -> (Gate, Server, Gateway) {
    let gate = Gate::closed();
    let script = Script {
        names: [("host-slow.lab.example.".to_owned(), Reply::Gate(gate.clone()))].into(),
        ..Script::good()
    };
    let server = Server::start(Protocol::Dot, script);
    let gateway = setup().server("lab", &server).start();
    (gate, server, gateway)
}

#[test]
fn udp_and_tcp_share_a_port_and_give_the_same_answer() {
    let (_server, gateway) = pair();
    let client = gateway.client();
    let asked = query("www.lab.example", rtype::A);
    let (udp, tcp) = (client.udp(&asked), client.tcp(&asked));
    assert_eq!(udp.data(), tcp.data());
    assert_eq!(udp.flags & 0x8180, 0x8180, "QR, RD and RA");
}

#[test]
fn answers_that_just_fit_are_whole_and_one_octet_more_is_truncated() {
    let (_server, gateway) = pair();
    let client = gateway.client();
    for limit in [512u16, 600, 1232] {
        let fits = query(&format!("size-{limit}.lab.example"), rtype::TXT).payload(limit);
        for _ in 0..2 {
            let whole = client.udp(&fits);
            assert!(!whole.is_truncated(), "an answer of {limit} octets fits {limit}: {whole:?}");
            assert_eq!(whole.size, usize::from(limit));
            assert_eq!(whole.answers.len(), 1);
        }
        let exceeds = query(&format!("size-{}.lab.example", limit + 1), rtype::TXT).payload(limit);
        for _ in 0..2 {
            let cut = client.udp(&exceeds);
            assert!(cut.is_truncated(), "an answer of {} octets does not fit {limit}", limit + 1);
            assert!(cut.size <= usize::from(limit), "{} octets", cut.size);
            assert!(cut.answers.is_empty(), "RFC 2181 §9: no partial sets");
        }
        assert_eq!(client.tcp(&exceeds).size, usize::from(limit) + 1, "TCP has room");
    }
}

#[test]
fn without_edns_the_limit_is_512_octets() {
    let (_server, gateway) = pair();
    let client = gateway.client();
    // The zone counts an OPT of 11 octets that this client does not get.
    let whole = client.udp(&query("size-523.lab.example", rtype::TXT).without_edns());
    assert!(!whole.is_truncated());
    assert_eq!(whole.size, 512);
    let cut = client.udp(&query("size-524.lab.example", rtype::TXT).without_edns());
    assert!(cut.is_truncated());
    assert!(cut.size <= 512);
}

#[test]
fn a_payload_size_below_512_counts_as_512() {
    let (_server, gateway) = pair();
    let answer = gateway.client().udp(&query("size-512.lab.example", rtype::TXT).payload(100));
    assert!(!answer.is_truncated(), "RFC 6891 §6.2.3");
}

#[test]
fn no_datagram_exceeds_1232_octets_whatever_the_client_says() {
    let (_server, gateway) = pair();
    let answer = gateway.client().udp(&query("text3k.lab.example", rtype::TXT).payload(4096));
    assert!(answer.is_truncated());
    assert!(answer.size <= 1232);
}

#[test]
fn a_reply_that_its_way_cannot_carry_whole_is_not_sent_in_fragments() {
    run_inside("inside_a_network_of_small_packets");
}

/// Nothing longer than 1,000 octets passes here.
#[test]
#[ignore = "runs in the namespace that `a_reply_that_its_way_cannot_carry_whole_is_not_sent_in_fragments` makes"]
fn inside_a_network_of_small_packets() {
    if !is_inside() {
        return;
    }
    system("ip link set lo up mtu 1000");
    let (_server, gateway) = pair();
    let client = gateway.client();
    // IPv4 and UDP have headers of 28 octets.
    let fits = query("size-972.lab.example", rtype::TXT);
    let exceeds = query("size-973.lab.example", rtype::TXT);
    // From a server and from the cache.
    for _ in 0..2 {
        let whole = client.udp(&fits);
        assert!(!whole.is_truncated(), "{whole:?}");
        assert_eq!(whole.size, 972);
        let cut = client.udp(&exceeds);
        assert!(cut.is_truncated() && cut.answers.is_empty(), "{cut:?}");
        assert_eq!((cut.rcode(), cut.opt.is_some()), (rcode::NOERROR, true), "the OPT record stays");
        assert_eq!(client.tcp(&exceeds).size, 973, "TCP makes segments of it");
    }
}

#[test]
fn what_is_truncated_by_udp_is_whole_by_tcp_up_to_60_kilobytes() {
    let (_server, gateway) = pair();
    let client = gateway.client();
    for (name, at_least) in [("text3k", 3_000), ("text20k", 20_000), ("text60k", 59_000)] {
        let asked = query(&format!("{name}.lab.example"), rtype::TXT);
        assert!(client.udp(&asked).is_truncated(), "{name}");
        let whole = client.tcp(&asked);
        assert!(!whole.is_truncated(), "{name}");
        assert!(whole.size > at_least, "{name}: {} octets", whole.size);
    }
}

#[test]
fn a_slow_name_holds_nobody_up_on_a_tcp_connection() {
    let (gate, _server, gateway) = with_a_slow_name();
    let mut connection = gateway.client().connect();
    let slow = query("host-slow.lab.example", rtype::A);
    connection.send(&slow.octets());
    let quick: Vec<_> =
        (0..20).map(|number| query(&format!("host-{number}.lab.example"), rtype::A)).collect();
    for asked in &quick {
        connection.send(&asked.octets());
    }
    let mut ids: Vec<u16> = (0..20).map(|_| Message::read(&connection.receive().unwrap()).id).collect();
    ids.sort_unstable();
    let mut expected: Vec<u16> = quick.iter().map(|asked| asked.id).collect();
    expected.sort_unstable();
    assert_eq!(ids, expected, "the quick ones overtake (RFC 7766 §6.2.1.1)");
    gate.open();
    let last = Message::read(&connection.receive().unwrap());
    assert_eq!((last.id, last.rcode()), (slow.id, rcode::NOERROR));
}

/// A query that asks how long its connection may be idle (RFC 7828).
fn keepalive_query(name: &str) -> Query {
    query(name, rtype::A).option(OPTION_KEEPALIVE, &[])
}

#[test]
fn who_asks_over_tcp_is_told_how_long_the_connection_may_be_idle() {
    let server = Server::start(Protocol::Dot, Script::good());
    let gateway = setup().server("lab", &server).table("[limits]\ntcp_idle = \"20s\"").start();
    let client = gateway.client();
    for missed_then_hit in 0..2 {
        let told = client.tcp(&keepalive_query("host-kept.lab.example"));
        assert_eq!(
            told.option(OPTION_KEEPALIVE),
            Some(200_u16.to_be_bytes().as_slice()),
            "{missed_then_hit}"
        );
        assert_eq!(told.answers.len(), 1);
    }
    let not_told = [
        ("over UDP", client.udp(&keepalive_query("host-kept.lab.example"))),
        ("unasked", client.tcp(&query("host-kept.lab.example", rtype::A))),
        (
            "malformed",
            client.tcp(&query("host-kept.lab.example", rtype::A).option(OPTION_KEEPALIVE, &[0, 9])),
        ),
    ];
    for (how, reply) in not_told {
        assert_eq!((reply.rcode(), reply.option(OPTION_KEEPALIVE)), (rcode::NOERROR, None), "{how}");
    }
}

#[test]
fn who_asks_over_tcp_while_we_stop_is_asked_to_close() {
    let (gate, server, gateway) = with_a_slow_name();
    let mut connection = gateway.client().connect();
    connection.send(&keepalive_query("host-slow.lab.example").octets());
    eventually("the query waits", || server.log.asked_for("host-slow.lab.example.") == 1);
    gateway.gateway().stop_accepting();
    gate.open();
    let last = Message::read(&connection.receive().unwrap());
    assert_eq!((last.rcode(), last.option(OPTION_KEEPALIVE)), (rcode::NOERROR, Some([0, 0].as_slice())));
}

#[test]
fn a_frame_may_come_octet_by_octet() {
    use std::io::Write as _;
    let (_server, gateway) = pair();
    let mut connection = gateway.client().connect();
    let octets = query("www.lab.example", rtype::A).octets();
    let frame = [&u16::try_from(octets.len()).unwrap().to_be_bytes()[..], &octets].concat();
    for octet in frame {
        connection.stream.write_all(&[octet]).unwrap();
    }
    assert_eq!(Message::read(&connection.receive().unwrap()).answers.len(), 2);
}

/// Octets of a query with something wrong, and the rcode that it gets.
fn bad_queries() -> Vec<(&'static str, Vec<u8>, u16)> {
    let good = query("host-bad.lab.example", rtype::A).octets();
    let changed = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut octets = good.clone();
        change(&mut octets);
        octets
    };
    let mut version_1 = query("host-bad.lab.example", rtype::A);
    version_1.version = 1;
    vec![
        ("no question", changed(&|octets| octets[5] = 0), rcode::FORMERR),
        ("two questions", changed(&|octets| octets[5] = 2), rcode::FORMERR),
        ("a record too many claimed", changed(&|octets| octets[11] = 2), rcode::FORMERR),
        ("cut in the name", changed(&|octets| octets.truncate(20)), rcode::FORMERR),
        ("octets behind the end", changed(&|octets| octets.extend([0; 3])), rcode::FORMERR),
        (
            "a pointer to itself",
            changed(&|octets| octets[12..14].copy_from_slice(&[0xC0, 12])),
            rcode::FORMERR,
        ),
        ("opcode STATUS", changed(&|octets| octets[2] |= 0x10), rcode::NOTIMP),
        ("opcode UPDATE", changed(&|octets| octets[2] |= 0x28), rcode::NOTIMP),
        ("EDNS version 1", version_1.octets(), rcode::BADVERS),
    ]
}

#[test]
fn bad_queries_are_told_so_and_go_nowhere() {
    let (server, gateway) = pair();
    let client = gateway.client();
    let mut connection = client.connect();
    for (what, octets, expected) in bad_queries() {
        let answer = client.udp_octets(&octets).unwrap_or_else(|| panic!("{what}: no answer"));
        let answer = Message::read(&answer);
        assert_eq!(answer.rcode(), expected, "{what}: {answer:?}");
        assert_eq!(answer.id.to_be_bytes(), octets[..2], "{what}");
        connection.send(&octets);
        let answer = Message::read(&connection.receive().unwrap_or_else(|| panic!("{what}: TCP closed")));
        assert_eq!(answer.rcode(), expected, "{what} by TCP: {answer:?}");
    }
    assert_eq!(server.log.asked(), 0);
}

#[test]
fn responses_and_scraps_are_never_answered() {
    let (server, gateway) = pair();
    let client = gateway.client();
    let socket = client.udp_socket();
    let mut response = query("www.lab.example", rtype::A).octets();
    response[2] |= 0x80;
    for octets in [&response[..], &response[..11], &response[..2], &[]] {
        socket.send(octets).unwrap();
    }
    // What comes first is the answer to what was sent last.
    let asked = query("host-after.lab.example", rtype::A);
    socket.send(&asked.octets()).unwrap();
    let answer = Message::read(&receive(&socket, PATIENCE).unwrap());
    assert_eq!(answer.id, asked.id);
    assert_eq!(server.log.asked(), 1);
}

#[test]
fn strangers_are_refused_and_told_why() {
    let server = Server::start(Protocol::Dot, Script::good());
    let gateway = setup().server("lab", &server).table("[access]\nallow = [\"192.0.2.0/24\"]").start();
    let client = gateway.client();
    let asked = query("www.lab.example", rtype::A);
    for answer in [client.udp(&asked), client.tcp(&asked)] {
        assert_eq!(answer.rcode(), rcode::REFUSED);
        assert_eq!(answer.ede_code(), Some(18), "RFC 8914 §4.19: prohibited");
    }
    assert_eq!(server.log.asked(), 0);
}

#[test]
fn ipv6_works_where_there_is_any() {
    if std::net::UdpSocket::bind("[::1]:0").is_err() {
        eprintln!("skipped: this host has no ::1");
        return;
    }
    let server = Server::start(Protocol::Dot, Script::good());
    let gateway = setup().listen("[\"127.0.0.1:0\", \"[::1]:0\"]").server("lab", &server).start();
    let addresses = gateway.gateway().addresses().to_vec();
    assert_eq!(addresses.len(), 2);
    for address in addresses {
        let client = Client::new(address);
        let asked = query("www.lab.example", rtype::A);
        assert_eq!(client.udp(&asked).answers.len(), 2, "{address}");
        assert_eq!(client.tcp(&asked).answers.len(), 2, "{address}");
    }
}

#[test]
fn many_clients_at_once_all_get_their_own_answer() {
    let server = Server::start(Protocol::Doh, Script::good());
    let gateway = setup().top("workers", "2").server("lab", &server).start();
    let client = gateway.client();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            scope.spawn(move || {
                for number in 0..50 {
                    // The client holds ID and question together.
                    let answer = client.udp(&query(&format!("host-{thread}-{number}.lab.example"), rtype::A));
                    assert_eq!(answer.rcode(), rcode::NOERROR, "{answer:?}");
                }
            });
        }
    });
    assert_eq!(server.log.asked(), 400);
}

#[test]
fn the_sizes_of_the_zone_are_what_they_say() {
    for size in [512usize, 1232] {
        let asked = query(&format!("size-{size}.lab.example"), rtype::TXT);
        assert_eq!(zone::answer(&asked.octets()).len(), size);
    }
}
