//! Reload and stop: what is kept, what changes, and that nobody who waits is forgotten. In this process where that
//! tells enough, with the built program where signals are the point.

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

use std::sync::Arc;
use std::time::Duration;
use support::binary::Running;
use support::client::{Client, receive};
use support::gateway::setup;
use support::message::{Message, query, rcode, rtype};
use support::script::{Door, Gate, Reply, Script};
use support::server::{BOTH, Protocol, Server};
use support::{PATIENCE, eventually};
use veildns::telemetry::bounds::Bound;

#[test]
fn connections_to_servers_that_did_not_change_are_kept() {
    for protocol in BOTH {
        let (kept, gone) = (Server::start(protocol, Script::good()), Server::start(protocol, Script::good()));
        let added = Server::start(protocol, Script::good());
        let first = setup().top("strategy", "\"round-robin\"").server("kept", &kept).server("gone", &gone);
        let mut gateway = first.start();
        let ask = |client: Client, tag: &str| {
            for number in 0..4 {
                let answer = client.udp(&query(&format!("host-{tag}-{number}.lab.example"), rtype::A));
                assert_eq!(answer.rcode(), rcode::NOERROR);
            }
        };
        ask(gateway.client(), "before");
        let second = setup().top("strategy", "\"round-robin\"").server("kept", &kept).server("added", &added);
        gateway.reload(&second);
        ask(gateway.client(), "after");
        assert_eq!(kept.log.handshakes(), 1, "{protocol:?}: the connection is carried over");
        assert_eq!(gone.log.asked(), 2, "{protocol:?}: a server that is gone is not asked");
        eventually("the connection of the server that is gone ends", || gone.log.open() == 0);
        assert!(added.log.asked() >= 2, "{protocol:?}");
    }
}

#[test]
fn answers_outlive_a_reload_but_those_of_a_server_that_is_gone() {
    let (kept, gone) =
        (Server::start(Protocol::Dot, Script::good()), Server::start(Protocol::Doh, Script::good()));
    let added = Server::start(Protocol::Dot, Script::good());
    let turns = || setup().top("strategy", "\"round-robin\"");
    let mut gateway = turns().server("kept", &kept).start();
    let client = gateway.client();
    let asked = || kept.log.asked() + gone.log.asked() + added.log.asked();
    let ask = |name: &str| {
        assert_eq!(client.udp(&query(name, rtype::A)).rcode(), rcode::NOERROR);
        asked()
    };
    assert_eq!(ask("host-first.lab.example"), 1);
    gateway.reload(&turns().server("gone", &gone).server("kept", &kept));
    assert_eq!(ask("host-first.lab.example"), 1, "a further server leaves what is known");
    ask("host-a.lab.example");
    ask("host-b.lab.example");
    assert_eq!((kept.log.asked(), gone.log.asked()), (2, 1), "one from each");
    gateway.reload(&turns().server("kept", &kept).server("added", &added));
    assert_eq!(gone.log.asked(), 1);
    let before = asked();
    ask("host-first.lab.example");
    ask("host-a.lab.example");
    assert_eq!(ask("host-b.lab.example"), before + 1, "what the server that is gone said is asked anew");
}

#[test]
fn a_failure_of_the_servers_before_a_reload_is_not_remembered_after_it() {
    let (bad, good) = (
        Server::start(Protocol::Dot, Script::replying(Reply::Rcode(2))),
        Server::start(Protocol::Dot, Script::good()),
    );
    let mut gateway = setup().server("bad", &bad).start();
    let client = gateway.client();
    let asked = query("host-fixed.lab.example", rtype::A);
    assert_eq!(client.udp(&asked).rcode(), rcode::SERVFAIL);
    gateway.reload(&setup().server("good", &good));
    assert_eq!(client.udp(&asked).rcode(), rcode::NOERROR);
}

#[test]
fn a_query_that_waits_during_a_reload_gets_its_answer() {
    let gate = Gate::closed();
    let (old, new) = (
        Server::start(Protocol::Dot, Script::replying(Reply::Gate(gate.clone()))),
        Server::start(Protocol::Dot, Script::good()),
    );
    let mut gateway = setup().server("old", &old).start();
    let socket = gateway.client().udp_socket();
    socket.send(&query("host-waiting.lab.example", rtype::A).octets()).unwrap();
    eventually("the old server is asked", || old.log.asked() == 1);
    gateway.reload(&setup().server("new", &new));
    gate.open();
    let answer = Message::read(&receive(&socket, PATIENCE).unwrap());
    assert_eq!(answer.rcode(), rcode::NOERROR, "{answer:?}");
}

#[test]
fn listeners_come_and_go_and_equal_ones_stay() {
    let server = Server::start(Protocol::Dot, Script::good());
    let port = free_port();
    let one = setup().listen(&format!("[\"127.0.0.1:{port}\"]")).server("lab", &server);
    let two = setup().listen(&format!("[\"127.0.0.1:{port}\", \"127.0.0.1:0\"]")).server("lab", &server);
    let mut gateway = one.start();
    let mut connection = gateway.client().connect();
    let mut ask = |name: &str| {
        connection.send(&query(name, rtype::A).octets());
        Message::read(&connection.receive().expect("the connection stays")).rcode()
    };
    assert_eq!(ask("host-one.lab.example"), rcode::NOERROR);
    gateway.reload(&two);
    let added = gateway.gateway().addresses().to_vec();
    assert_eq!(added.len(), 2, "{added:?}");
    for address in &added {
        assert_eq!(
            Client::new(*address).udp(&query("host-two.lab.example", rtype::A)).rcode(),
            rcode::NOERROR
        );
    }
    assert_eq!(ask("host-three.lab.example"), rcode::NOERROR);
    gateway.reload(&one);
    let gone = *added.iter().find(|address| address.port() != port).unwrap();
    eventually("the listener that is gone refuses", || std::net::TcpStream::connect(gone).is_err());
    assert_eq!(ask("host-four.lab.example"), rcode::NOERROR);
}

/// A port that was free a moment ago, for UDP and TCP.
fn free_port() -> u16 {
    support::trap::Trap::lay().address().port()
}

#[test]
fn a_reload_changes_who_may_ask() {
    let server = Server::start(Protocol::Dot, Script::good());
    let open = setup().server("lab", &server);
    let mut gateway = open.start();
    let asked = query("host-access.lab.example", rtype::A);
    assert_eq!(gateway.client().udp(&asked).rcode(), rcode::NOERROR);
    gateway.reload(&open.clone().table("[access]\nallow = [\"192.0.2.0/24\"]"));
    assert_eq!(gateway.client().udp(&asked).rcode(), rcode::REFUSED);
    gateway.reload(&open);
    assert_eq!(gateway.client().udp(&asked).rcode(), rcode::NOERROR);
}

#[test]
fn a_cached_answer_does_not_pass_a_rule_that_came_with_a_reload() {
    let server = Server::start(Protocol::Dot, Script::good());
    let trusting = setup().server("lab", &server).table("[rebinding]\nprotect = false");
    let mut gateway = trusting.start();
    let asked = query("rebind.lab.example", rtype::A);
    assert_eq!(gateway.client().udp(&asked).answers.len(), 1);
    gateway.reload(&setup().server("lab", &server));
    assert!(gateway.client().udp(&asked).answers.is_empty(), "faults.md: rules hold for cached answers too");
}

#[test]
fn sighup_reloads_and_a_bad_file_changes_nothing() {
    let server = Server::start(Protocol::Dot, Script::good());
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("veildns.toml");
    let good = setup().server("lab", &server);
    good.write(&file);
    let running = Running::start(&file);
    let client = running.client();
    let asked = query("host-signal.lab.example", rtype::A);
    assert_eq!(client.udp(&asked).rcode(), rcode::NOERROR);
    for bad in ["listen = [", "upstreams = []", "nonsense = 1", "listen = [\"192.0.2.1:53\"]"] {
        std::fs::write(&file, bad).unwrap();
        running.reload();
        assert_eq!(client.udp(&asked).rcode(), rcode::NOERROR, "after {bad}");
        let fresh = query(&format!("host-{}.lab.example", fastrand::u32(..)), rtype::A);
        assert_eq!(client.udp(&fresh).rcode(), rcode::NOERROR, "after {bad}");
    }
    good.clone().table("[access]\nallow = [\"192.0.2.0/24\"]").write(&file);
    running.reload();
    assert_eq!(client.udp(&asked).rcode(), rcode::REFUSED, "a good one does");
    good.write(&file);
    running.reload();
    assert_eq!(client.udp(&asked).rcode(), rcode::NOERROR);
    assert_eq!(server.log.handshakes(), 1, "through all of this the connection was kept");
}

/// The program with one query that waits for its server.
fn waiting() -> (Running, Server, Gate, std::net::UdpSocket, tempfile::TempDir) {
    let gate = Gate::closed();
    let server = Server::start(Protocol::Dot, Script::replying(Reply::Gate(gate.clone())));
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("veildns.toml");
    setup()
        .server("lab", &server)
        .table("[timeouts]\nquery = \"60s\"\n[limits]\ndrain_timeout = \"60s\"")
        .write(&file);
    let running = Running::start(&file);
    let socket = running.client().udp_socket();
    socket.send(&query("host-waiting.lab.example", rtype::A).octets()).unwrap();
    eventually("the server is asked", || server.log.asked() >= 1);
    (running, server, gate, socket, directory)
}

#[test]
fn sigterm_waits_for_those_who_wait() {
    let (mut running, _server, gate, socket, _directory) = waiting();
    running.process.signal("TERM");
    running.wait_for("STOPPING=1");
    assert!(running.process.ended().is_none(), "somebody waits");
    gate.open();
    let answer = Message::read(&receive(&socket, PATIENCE).expect("the answer comes before the end"));
    assert_eq!(answer.rcode(), rcode::NOERROR);
    assert!(running.process.wait().success());
}

#[test]
fn who_still_waits_when_the_time_to_drain_is_over_is_told_that_we_stop() {
    // A connection that never comes about: nothing ends the wait but the stop.
    let server = Server::start(Protocol::Dot, Script { door: Door::StallBeforeTls, ..Script::good() });
    let long = "[timeouts]\nquery = \"60s\"\nconnect = \"60s\"";
    let gateway = setup().server("lab", &server).table(long).start();
    let socket = gateway.client().udp_socket();
    socket.send(&query("host-waiting.lab.example", rtype::A).octets()).unwrap();
    let core = gateway.gateway().core();
    eventually("the query waits", || core.resolver().permits().in_use() == 1);
    let bounds = Arc::clone(core.telemetry().bounds());
    gateway.gateway().stop_accepting();
    let drained = support::runtime().block_on(gateway.gateway().drained(Duration::from_millis(200)));
    assert_eq!((drained, bounds.count(Bound::DrainTimeout)), (false, 1));
    drop(gateway);
    let answer = Message::read(&receive(&socket, PATIENCE).expect("nobody is left without a word"));
    assert_eq!((answer.rcode(), answer.ede_code()), (rcode::SERVFAIL, Some(14)));
}

#[test]
fn a_second_sigterm_ends_at_once() {
    let (mut running, _server, _gate, _socket, _directory) = waiting();
    running.process.signal("TERM");
    running.wait_for("STOPPING=1");
    running.process.signal("TERM");
    // Well before the minute that draining may take.
    assert!(running.process.wait().success());
}

#[test]
fn sigint_stops_an_idle_gateway() {
    let server = Server::start(Protocol::Doh, Script::good());
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("veildns.toml");
    setup().server("lab", &server).write(&file);
    let mut running = Running::start(&file);
    assert_eq!(running.client().udp(&query("host-idle.lab.example", rtype::A)).rcode(), rcode::NOERROR);
    running.process.signal("INT");
    assert!(running.process.wait().success());
}
