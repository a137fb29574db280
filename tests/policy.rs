//! Names that are answered here, answers that are not believed, and routes to other groups.

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
use support::message::{query, rcode, rtype};
use support::script::{Reply, Script};
use support::server::{Protocol, Server};
use support::zone;

#[test]
fn special_names_are_answered_here_and_never_leave() {
    let server = Server::start(Protocol::Dot, Script::good());
    let gateway = setup().server("lab", &server).start();
    let client = gateway.client();
    let table: [(&str, u16, u16, &[u8]); 12] = [
        ("localhost", rtype::A, rcode::NOERROR, &[127, 0, 0, 1]),
        ("deep.localhost", rtype::AAAA, rcode::NOERROR, &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
        ("printer.local", rtype::A, rcode::NXDOMAIN, &[]),
        ("hidden.onion", rtype::A, rcode::NXDOMAIN, &[]),
        ("x.invalid", rtype::A, rcode::NXDOMAIN, &[]),
        ("x.test", rtype::A, rcode::NXDOMAIN, &[]),
        ("nas.home.arpa", rtype::A, rcode::NXDOMAIN, &[]),
        ("x.internal", rtype::A, rcode::NXDOMAIN, &[]),
        ("x.alt", rtype::A, rcode::NXDOMAIN, &[]),
        ("1.1.168.192.in-addr.arpa", rtype::PTR, rcode::NXDOMAIN, &[]),
        ("1.0.0.127.in-addr.arpa", rtype::PTR, rcode::NOERROR, b"\x09localhost\0"),
        ("1.0.0.10.in-addr.arpa", rtype::PTR, rcode::NXDOMAIN, &[]),
    ];
    for (name, rtype, code, rdata) in table {
        let answer = client.udp(&query(name, rtype));
        assert_eq!(answer.rcode(), code, "{name}: {answer:?}");
        match answer.answers.as_slice() {
            [] => assert!(rdata.is_empty() && !answer.authority.is_empty(), "{name}: {answer:?}"),
            [record] => assert_eq!(record.rdata, rdata, "{name}"),
            more => panic!("{name}: {more:?}"),
        }
    }
    assert_eq!(server.log.asked(), 0);
}

#[test]
fn public_names_may_not_point_inside() {
    let server = Server::start(Protocol::Dot, Script::good());
    let gateway = setup().server("lab", &server).start();
    let client = gateway.client();
    for rtype in [rtype::A, rtype::AAAA] {
        for _ in 0..2 {
            let answer = client.udp(&query("rebind.lab.example", rtype));
            assert!(answer.answers.is_empty(), "{answer:?}");
            assert_eq!(answer.ede_code(), Some(15), "RFC 8914 §4.16: blocked, {answer:?}");
        }
    }
}

#[test]
fn names_on_the_list_may_point_inside() {
    let server = Server::start(Protocol::Dot, Script::good());
    for table in ["[rebinding]\nallow = [\"lab.example\"]", "[rebinding]\nprotect = false"] {
        let gateway = setup().server("lab", &server).table(table).start();
        let answer = gateway.client().udp(&query("rebind.lab.example", rtype::A));
        assert_eq!(answer.data(), [(rtype::A, vec![192, 168, 1, 1])], "{table}");
    }
}

/// A gateway with a default server and one for `corp.lab.example` and `10.in-addr.arpa`; the second answers everything
/// with 10.0.0.1.
fn routed(routes: &str) -> (Server, Server, Gateway) {
    let outside = Server::start(Protocol::Dot, Script::good());
    let inside = Reply::make(|octets| {
        let mut answer = zone::start(octets, 0);
        answer[7] = 1;
        answer.extend_from_slice(&[0xC0, 12, 0, 1, 0, 1, 0, 0, 1, 44, 0, 4, 10, 0, 0, 1]);
        answer
    });
    let inside = Server::start(Protocol::Doh, Script::replying(inside));
    let gateway = setup()
        .server("outside", &outside)
        .spare("inside", &inside, "")
        .table("[group.office]\nupstreams = [\"inside\"]")
        .table(routes)
        .start();
    (outside, inside, gateway)
}

#[test]
fn a_route_takes_a_domain_with_all_below_it_and_nothing_else() {
    let (outside, inside, gateway) =
        routed("[[route]]\ndomains = [\"host-corp.lab.example\", \"10.in-addr.arpa\"]\ngroup = \"office\"");
    let client = gateway.client();
    for name in ["host-corp.lab.example", "deep.below.HOST-corp.lab.example"] {
        let answer = client.udp(&query(name, rtype::A));
        assert_eq!(
            answer.data(),
            [(rtype::A, vec![10, 0, 0, 1])],
            "private addresses are the operator's own: {name}"
        );
    }
    client.udp(&query("1.0.0.10.in-addr.arpa", rtype::A));
    assert_eq!((inside.log.asked(), outside.log.asked()), (3, 0));
    for name in ["host-xhost-corp.lab.example", "host-other.lab.example"] {
        assert_eq!(
            client.udp(&query(name, rtype::A)).data(),
            [(rtype::A, vec![104, 51, 100, 200])],
            "{name}"
        );
    }
    assert_eq!((inside.log.asked(), outside.log.asked()), (3, 2));
}

#[test]
fn the_longest_suffix_wins() {
    let (outside, inside, gateway) = routed(
        "[[route]]\ndomains = [\"lab.example\"]\ngroup = \"office\"\n[[route]]\ndomains = [\"host-public.lab.example\"]\ngroup = \"default\"",
    );
    let client = gateway.client();
    client.udp(&query("host-private.lab.example", rtype::A));
    client.udp(&query("host-public.lab.example", rtype::A));
    assert_eq!((inside.log.asked(), outside.log.asked()), (1, 1));
}

#[test]
fn a_route_may_be_for_some_types_only() {
    let (outside, inside, gateway) =
        routed("[[route]]\ndomains = [\"lab.example\"]\ntypes = [\"A\"]\ngroup = \"office\"");
    let client = gateway.client();
    assert_eq!(client.udp(&query("host-typed.lab.example", rtype::A)).answers[0].rdata, [10, 0, 0, 1]);
    assert_eq!(client.udp(&query("host-typed.lab.example", rtype::AAAA)).answers[0].rtype, rtype::AAAA);
    assert_eq!((inside.log.asked(), outside.log.asked()), (1, 1));
}

#[test]
fn a_routed_special_name_goes_to_its_group() {
    let (outside, inside, gateway) = routed("[[route]]\ndomains = [\"home.arpa\"]\ngroup = \"office\"");
    let client = gateway.client();
    assert_eq!(client.udp(&query("nas.home.arpa", rtype::A)).answers[0].rdata, [10, 0, 0, 1]);
    assert_eq!((inside.log.asked(), outside.log.asked()), (1, 0));
}

#[test]
fn a_private_group_that_is_down_does_not_send_its_names_outside() {
    let (outside, inside, gateway) = routed(
        "[[route]]\ndomains = [\"host-corp.lab.example\"]\ngroup = \"office\"\n[timeouts]\nquery = \"1s\"\nconnect = \"500ms\"",
    );
    inside.down();
    let answer = gateway.client().udp(&query("a.host-corp.lab.example", rtype::A));
    assert_eq!(answer.rcode(), rcode::SERVFAIL);
    assert_eq!(outside.log.asked(), 0);
}
