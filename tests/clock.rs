//! A clock that cannot be right: what clients are told, and that time servers are found all the same, so that it can be set.
//! The machine's own clock stays as it is: the state directory says that it once was 2080, and certificates begin in 2090.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::missing_docs_in_private_items,
    reason = "a broken assumption must end a test, and its table is its documentation"
)]

mod support;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use support::authority::Certificate;
use support::gateway::{Gateway, Setup, setup};
use support::message::{Message, query, rcode, rtype};
use support::script::{Reply, Script};
use support::server::{BOTH, Protocol, Server};

/// The name of a time server.
const TIME: &str = "host-0.time.lab.example";

/// A gateway whose clock was 2080 once, and its folder.
struct Stage {
    gateway: Gateway,
    _state: tempfile::TempDir,
}

impl Stage {
    fn start(setup: Setup) -> Self {
        let state = tempfile::tempdir().unwrap();
        std::fs::write(state.path().join("state.json"), "{\"addresses\": {}, \"good_time\": 3471292800}")
            .unwrap();
        let directory = format!("\"{}\"", state.path().display());
        let setup = setup.top("state_dir", &directory).table("[metrics]\nlisten = \"127.0.0.1:0\"");
        Self { gateway: setup.start(), _state: state }
    }

    fn ask(&self, name: &str) -> Message {
        self.gateway.client().udp(&query(name, rtype::A))
    }

    /// How many queries were asked with dates overlooked.
    fn overlooked(&self) -> u64 {
        let address = self.gateway.gateway().metrics_address().unwrap();
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: lab\r\nconnection: close\r\n\r\n").unwrap();
        let mut page = String::new();
        stream.read_to_string(&mut page).unwrap();
        let lines = page.lines().filter(|line| line.starts_with("veildns_dates_overlooked_total{"));
        lines.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
    }
}

/// With these names of time servers.
fn with_time_servers(setup: Setup, names: &str) -> Setup {
    setup.table(&format!("[clock]\ntime_servers = {names}"))
}

fn future(protocol: Protocol) -> Server {
    Server::with_certificate(protocol, Script::good(), Certificate::Future)
}

#[test]
fn a_time_server_is_found_and_every_other_name_is_told_that_the_clock_is_wrong() {
    for protocol in BOTH {
        let server = future(protocol);
        let stage = Stage::start(with_time_servers(setup().server("lab", &server), "[\"time.lab.example\"]"));
        for round in 1..=2u64 {
            let answer = stage.ask(TIME);
            assert_eq!(answer.rcode(), rcode::NOERROR, "{protocol:?}: {answer:?}");
            assert!(answer.ttl() <= 30, "{answer:?}");
            let (code, text) = answer.ede().unwrap();
            assert!(code == 0 && text.contains("dates were overlooked"), "{text}");
            // Nothing of it is kept, and each is counted.
            assert_eq!(server.log.asked_for(&format!("{TIME}.")), usize::try_from(round).unwrap());
            assert_eq!(stage.overlooked(), round, "{protocol:?}");
        }
        for other in ["host-1.lab.example", "host-1.nottime.lab.example"] {
            let answer = stage.ask(other);
            assert_eq!((answer.rcode(), answer.ede_code()), (rcode::SERVFAIL, Some(22)), "{answer:?}");
            let (_, text) = answer.ede().unwrap();
            assert!(text.contains("the clock is wrong: it says 20"), "{text}");
            assert!(text.contains("2080-01-01T00:00:00"), "{text}");
            assert_eq!(server.log.asked_for(&format!("{other}.")), 0, "{protocol:?}");
        }
        assert_eq!(stage.overlooked(), 2);
        let upstreams = stage.gateway.gateway().core().upstreams();
        assert!(!upstreams[0].is_up(), "an answer with dates overlooked makes no server well");
        assert!(stage.gateway.gateway().core().wrong_clock().is_some());
    }
}

#[test]
fn nothing_but_dates_is_overlooked() {
    let cases = [
        ("another name", Certificate::FutureWrongName, ""),
        ("an unknown authority", Certificate::UnknownAuthority, ""),
        ("certainly past", Certificate::Expired, ""),
        (
            "another pin",
            Certificate::Future,
            "pins = [\"sha256/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\"]",
        ),
    ];
    for (what, certificate, keys) in cases {
        let server = Server::with_certificate(Protocol::Dot, Script::good(), certificate);
        let lab = setup().server_with("lab", &server, keys);
        let stage = Stage::start(with_time_servers(lab, "[\"time.lab.example\"]"));
        let answer = stage.ask(TIME);
        assert_eq!((answer.rcode(), answer.ede_code()), (rcode::SERVFAIL, Some(22)), "{what}: {answer:?}");
        assert_eq!(server.log.asked_for(&format!("{TIME}.")), 0, "{what}");
    }
}

#[test]
fn a_server_that_says_nothing_does_not_keep_a_time_server_from_being_found() {
    let (young, silent) =
        (future(Protocol::Dot), Server::start(Protocol::Dot, Script::replying(Reply::Silence)));
    let both = setup().server("young", &young).server("silent", &silent);
    let stage = Stage::start(with_time_servers(both, "[\"time.lab.example\"]"));
    assert_eq!(stage.ask(TIME).rcode(), rcode::NOERROR);
    assert_eq!(stage.overlooked(), 1);
}

#[test]
fn without_time_servers_dates_are_never_overlooked() {
    let server = future(Protocol::Dot);
    let stage = Stage::start(with_time_servers(setup().server("lab", &server), "[]"));
    assert_eq!(stage.ask(TIME).rcode(), rcode::SERVFAIL);
    assert_eq!((stage.overlooked(), server.log.asked_for(&format!("{TIME}."))), (0, 0));
}

#[test]
fn a_server_that_is_well_is_asked_in_the_ordinary_way() {
    // One whose certificate holds in 2080 too.
    let (young, well) = (future(Protocol::Dot), Server::start(Protocol::Dot, Script::good()));
    let both = setup().server("young", &young).server("well", &well);
    let stage = Stage::start(with_time_servers(both, "[\"time.lab.example\"]"));
    let answer = stage.ask(TIME);
    assert_eq!((answer.rcode(), answer.ede_code()), (rcode::NOERROR, None), "{answer:?}");
    assert_eq!((stage.overlooked(), young.log.asked_for(&format!("{TIME}."))), (0, 0));
}
