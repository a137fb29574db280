//! Everything that can be wrong with a server, as a table: with a second server the client gets its answer, without
//! one it is told why, and a server that cannot prove who it is never sees a query.

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

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use support::authority::{Certificate, trusted};
use support::binary::Running;
use support::gateway::{Setup, setup};
use support::message::{query, rcode, rtype};
use support::script::{Door, Reply, Script};
use support::server::{BOTH, Protocol, Server};
use support::trap::{Trap, assert_udp_silent, contains};

/// RFC 8914 §4.23: no reachable authority.
const UNREACHABLE: u16 = 22;
/// RFC 8914 §4.24: network error.
const NETWORK: u16 = 23;

/// One way to be wrong.
struct Fault {
    name: &'static str,
    on: &'static [Protocol],
    certificate: Certificate,
    pin: Option<&'static str>,
    is_up: bool,
    script: Script,
    ede: u16,
}

/// A pin of no key.
const WRONG_PIN: &str = "pins = [\"sha256/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\"]";

/// A server whose replies are wrong.
fn replies(name: &'static str, on: &'static [Protocol], reply: Reply) -> Fault {
    let script = Script::replying(reply);
    Fault { name, on, certificate: Certificate::Good, pin: None, is_up: true, script, ede: NETWORK }
}

/// A server that cannot be talked to.
fn connections(name: &'static str, door: Door) -> Fault {
    let ede = if door == Door::StallAfterTls { NETWORK } else { UNREACHABLE };
    Fault { script: Script::with_door(door), ede, ..replies(name, &BOTH, Reply::Zone) }
}

/// A server that is not who it says.
fn impostor(name: &'static str, certificate: Certificate, pin: Option<&'static str>) -> Fault {
    Fault { certificate, pin, ede: UNREACHABLE, ..replies(name, &BOTH, Reply::Zone) }
}

/// The table.
fn faults() -> Vec<Fault> {
    const DOT: &[Protocol] = &[Protocol::Dot];
    const DOH: &[Protocol] = &[Protocol::Doh];
    vec![
        Fault { is_up: false, ede: UNREACHABLE, ..replies("connection refused", &BOTH, Reply::Zone) },
        connections("closes at once", Door::Slam),
        connections("TLS never begins", Door::StallBeforeTls),
        connections("stalls after TLS", Door::StallAfterTls),
        impostor("expired certificate", Certificate::Expired, None),
        impostor("certificate of another name", Certificate::WrongName, None),
        impostor("certificate of an unknown authority", Certificate::UnknownAuthority, None),
        impostor("wrong pin", Certificate::Good, Some(WRONG_PIN)),
        replies("never answers", &BOTH, Reply::Silence),
        replies("wrong ID", DOT, Reply::WrongId),
        replies("wrong question", &BOTH, Reply::WrongQuestion),
        replies("truncated on a stream", &BOTH, Reply::Truncated),
        replies("garbage", &BOTH, Reply::Garbage),
        replies("half an answer", &BOTH, Reply::HalfThenClose),
        replies("closes instead of answering", &BOTH, Reply::Close),
        replies("resets the stream", DOH, Reply::Reset),
        replies("404", DOH, Reply::Status(404, None)),
        replies("500", DOH, Reply::Status(500, None)),
        replies("503", DOH, Reply::Status(503, Some(5))),
        replies("429", DOH, Reply::Status(429, Some(5))),
        replies("wrong content type", DOH, Reply::ContentType("text/html")),
    ]
}

/// A row of the table, come to life.
struct Case {
    what: String,
    label: String,
    fault: Fault,
    server: Server,
}

/// Brings every row of the table to life, for each protocol that it is about.
fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for protocol in BOTH {
        for fault in faults().into_iter().filter(|fault| fault.on.contains(&protocol)) {
            let server = Server::refusing(protocol, fault.script.clone(), fault.certificate);
            if fault.is_up {
                server.up();
            }
            let what = format!("{protocol:?}: {}", fault.name);
            let label = format!("host-secret-{}", cases.len());
            cases.push(Case { what, label, fault, server });
        }
    }
    cases
}

impl Case {
    fn setup(&self, connect: &str) -> Setup {
        setup()
            .server_with("faulty", &self.server, self.fault.pin.unwrap_or_default())
            .table(&format!("[timeouts]\nquery = \"4s\"\nconnect = \"{connect}\""))
    }

    /// The name that is asked for: its first label occurs nowhere else.
    fn name(&self) -> String {
        format!("{}.lab.example", self.label)
    }

    /// Nothing of the name was there to read for who listens on the wire.
    fn assert_nothing_leaked(&self, other: Option<&Server>) {
        for server in std::iter::once(&self.server).chain(other) {
            assert!(
                !contains(&server.log.raw(), self.label.as_bytes()),
                "{}: the name left unencrypted",
                self.what
            );
            assert!(
                !contains(&server.log.raw(), b"\x03lab\x07example"),
                "{}: the name left unencrypted",
                self.what
            );
        }
        let is_impostor = self.fault.certificate != Certificate::Good || self.fault.pin.is_some();
        if is_impostor {
            assert_eq!(self.server.log.asked(), 0, "{}: an impostor was asked", self.what);
            assert!(self.server.log.connections() > 0, "{}: it was never tried", self.what);
        }
    }
}

/// Cases that run at the same time: most of them wait, but each handshake has to be in time on a busy machine too.
const AT_ONCE: usize = 5;

/// One test at a time, for the same reason.
static TURN: Mutex<()> = Mutex::new(());

/// Runs one check for every case and fails with all that went wrong.
fn in_parallel(check: impl Fn(&Case) + Sync) {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let cases = cases();
    let next = AtomicUsize::new(0);
    let failures = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| check(case))) {
                        let text = panic.downcast_ref::<String>().cloned().unwrap_or_default();
                        failures.lock().unwrap().push(format!("{}: {text}", case.what));
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{} of {} cases:\n{}", failures.len(), cases.len(), failures.join("\n"));
}

#[test]
fn a_second_server_answers_in_place_of_a_faulty_one() {
    in_parallel(|case| {
        let good = Server::start(Protocol::Dot, Script::good());
        let gateway = case.setup("1500ms").server("good", &good).start();
        let answer = gateway.client().udp(&query(&case.name(), rtype::A));
        assert_eq!(answer.rcode(), rcode::NOERROR, "{:?}", answer.ede());
        assert_eq!(answer.data(), [(rtype::A, vec![104, 51, 100, 200])]);
        case.assert_nothing_leaked(Some(&good));
    });
}

#[test]
fn a_faulty_server_alone_gives_servfail_and_says_why() {
    in_parallel(|case| {
        let beside = Trap::udp_beside(case.server.address);
        // A dial that comes to nothing has to end before the attempt does, to be told from a silent server.
        let connect = if case.fault.script.door == Door::Open { "1500ms" } else { "700ms" };
        let gateway = case.setup(connect).start();
        let answer = gateway.client().udp(&query(&case.name(), rtype::A));
        assert_eq!(answer.rcode(), rcode::SERVFAIL);
        assert_eq!(answer.ede_code(), Some(case.fault.ede), "{:?}", answer.ede());
        assert!(answer.answers.is_empty());
        case.assert_nothing_leaked(None);
        assert_udp_silent(&beside);
    });
}

#[test]
fn a_server_that_closes_after_every_answer_costs_no_query() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    for protocol in BOTH {
        let script = Script { close_after: Some(1), goaway_after: Some(1), ..Script::good() };
        let server = Server::start(protocol, script);
        let gateway = setup().server("closing", &server).start();
        let client = gateway.client();
        for number in 0..8 {
            let answer = client.udp(&query(&format!("host-{number}.lab.example"), rtype::A));
            assert_eq!(answer.rcode(), rcode::NOERROR, "{protocol:?} query {number}: {:?}", answer.ede());
        }
    }
}

#[test]
fn a_stray_answer_does_not_harm_the_query_that_waits() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let script = Script {
        names: [("host-stray.lab.example.".to_owned(), Reply::WrongId)].into(),
        ..Script::replying(Reply::Delay(std::time::Duration::from_millis(100)))
    };
    let server = Server::start(Protocol::Dot, script);
    let good = Server::start(Protocol::Dot, Script::good());
    let gateway = setup().server("straying", &server).server("good", &good).start();
    let answers = std::thread::scope(|scope| {
        let names = ["host-patient.lab.example", "host-stray.lab.example"];
        let asked = names.map(|name| scope.spawn(|| gateway.client().udp(&query(name, rtype::A))));
        asked.map(|asked| asked.join().unwrap())
    });
    for answer in answers {
        assert_eq!(answer.rcode(), rcode::NOERROR, "{answer:?}");
    }
}

#[test]
fn connections_cut_under_way_cost_no_query() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    for protocol in BOTH {
        let server = Server::start(protocol, Script::good());
        let gateway = setup().server("cut", &server).start();
        let client = gateway.client();
        for number in 0..5 {
            let answer = client.udp(&query(&format!("host-{number}.lab.example"), rtype::A));
            assert_eq!(answer.rcode(), rcode::NOERROR, "{protocol:?} query {number}: {:?}", answer.ede());
            server.cut();
        }
    }
}

#[test]
fn roots_of_the_system_count_where_the_operator_says_so_and_only_there() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("veildns.toml");
    let root = trusted().ca_file();
    // Where OpenSSL and what follows it look for the roots of the system.
    let variables = [("SSL_CERT_FILE", root.to_str().unwrap())];
    let asked = query("host-rooted.lab.example", rtype::A);
    for protocol in BOTH {
        let ask = |roots: &str| {
            let server = Server::start(protocol, Script::good());
            let table = format!(
                "[tls]\nroots = \"{roots}\"\n[server.lab]\nurl = \"{}\"\naddresses = [\"127.0.0.1\"]",
                server.url()
            );
            setup().top("upstreams", "[\"lab\"]").table(&table).write(&config);
            let running = Running::start_with(&config, &variables);
            (running.client().udp(&asked), server)
        };
        let (accepted, server) = ask("system");
        assert_eq!((accepted.rcode(), accepted.answers.len()), (rcode::NOERROR, 1), "{protocol:?}");
        assert_eq!(server.log.asked_for("host-rooted.lab.example."), 1, "{protocol:?}");
        let (refused, server) = ask("webpki");
        assert_eq!(
            (refused.rcode(), refused.ede_code()),
            (rcode::SERVFAIL, Some(UNREACHABLE)),
            "{protocol:?}"
        );
        assert!(server.log.queries().is_empty(), "{protocol:?}");
    }
}
