//! Another network: what the gateway does when the system tells of one, when there is none at first, and when servers
//! close connections.

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

use std::time::Duration;
use support::authority::{self, Certificate, NAME};
use support::binary::{Running, written};
use support::gateway::{Gateway, setup, start_text};
use support::message::{query, rcode, rtype};
use support::netns::{is_inside, run_inside, system};
use support::script::{Reply, Script};
use support::server::{BOTH, Protocol, Server};
use support::{eventually, runtime};
use tokio::sync::mpsc;
use veildns::clock;
use veildns::control::network::outlook::Outlook;
use veildns::control::network::{NetworkEvents, keep_fresh};

/// A network that changes when the test says so.
struct Scripted {
    changes: mpsc::Receiver<Outlook>,
    now: Outlook,
}

impl NetworkEvents for Scripted {
    async fn changed(&mut self) {
        match self.changes.recv().await {
            Some(outlook) => self.now = outlook,
            None => std::future::pending().await,
        }
    }

    fn outlook(&self) -> Outlook {
        self.now.clone()
    }
}

/// Watches a scripted network for the gateway.
fn watch(gateway: &Gateway) -> mpsc::Sender<Outlook> {
    let (sender, changes) = mpsc::channel(8);
    let core = std::sync::Arc::clone(gateway.gateway().core());
    runtime()
        .spawn(async move { match keep_fresh(&core, Scripted { changes, now: at("192.0.2.7") }).await {} });
    sender
}

/// A network in which we have this address.
fn at(address: &str) -> Outlook {
    let mut outlook = Outlook::default();
    outlook.add_address(address.parse().unwrap());
    outlook
}

/// Asks for a new name and wants its answer.
fn ask(gateway: &Gateway, host: &str) {
    let answer = gateway.client().udp(&query(&format!("host-{host}.lab.example"), rtype::A));
    assert_eq!(answer.rcode(), rcode::NOERROR, "{host}: {answer:?}");
}

#[test]
fn on_another_network_connections_and_sessions_are_new_and_no_query_is_lost() {
    for protocol in BOTH {
        let server = Server::start(protocol, Script::good());
        let gateway = setup().server("lab", &server).start();
        let network = watch(&gateway);
        ask(&gateway, "before");
        assert_eq!(server.log.connections(), 1);
        // The old path is dead, and TCP does not say so.
        server.set(Script::replying(Reply::Silence));
        let waiting = std::thread::scope(|scope| {
            let waiting = scope.spawn(|| gateway.client().udp(&query("host-waiting.lab.example", rtype::A)));
            eventually("the query is on the old connection", || {
                server.log.asked_for("host-waiting.lab.example.") == 1
            });
            server.set(Script::good());
            network.blocking_send(at("198.51.100.7")).unwrap();
            waiting.join().unwrap()
        });
        assert_eq!(waiting.rcode(), rcode::NOERROR, "{protocol:?}: {waiting:?}");
        eventually("the old connection is closed", || server.log.open() == 1);
        assert_eq!((server.log.connections(), server.log.resumed()), (2, 0), "{protocol:?}");
        ask(&gateway, "after");
        assert_eq!(server.log.connections(), 2, "{protocol:?}");
    }
}

#[test]
fn changes_that_do_not_matter_keep_every_connection() {
    let server = Server::start(Protocol::Dot, Script::good());
    let gateway = setup().server("lab", &server).start();
    let network = watch(&gateway);
    ask(&gateway, "before");
    for address in ["127.0.0.9", "fe80::7", "169.254.1.1"] {
        let mut same = at("192.0.2.7");
        same.add_address(address.parse().unwrap());
        network.blocking_send(same).unwrap();
    }
    network.blocking_send(at("198.51.100.7")).unwrap();
    eventually("the change that matters is acted on", || server.log.connections() == 2);
}

#[test]
fn a_server_held_for_down_is_asked_at_once_on_another_network() {
    let server = Server::refusing(Protocol::Dot, Script::good(), Certificate::Good);
    let gateway = setup().server("lab", &server).start();
    let network = watch(&gateway);
    for number in 0..4 {
        let begun = clock::now();
        let answer = gateway.client().udp(&query(&format!("host-{number}.lab.example"), rtype::A));
        assert_eq!((answer.rcode(), answer.ede_code()), (rcode::SERVFAIL, Some(22)), "{answer:?}");
        assert!(
            begun.elapsed() < Duration::from_secs(2),
            "without a network nobody waits for the query's whole time"
        );
    }
    server.up();
    network.blocking_send(at("198.51.100.7")).unwrap();
    eventually("a connection is open before anybody asks", || server.log.handshakes() > 0);
    // Also a name whose failure was remembered.
    ask(&gateway, "0");
}

#[test]
fn without_events_a_server_that_is_there_at_last_is_found_within_two_seconds_and_its_failures_are_forgotten()
{
    let server = Server::refusing(Protocol::Doh, Script::good(), Certificate::Good);
    let gateway = setup().server("lab", &server).start();
    // Enough for the server to be held for down, so that it is probed.
    for number in 0..4 {
        let answer = gateway.client().udp(&query(&format!("host-cold-{number}.lab.example"), rtype::A));
        assert_eq!((answer.rcode(), answer.ede_code().is_some()), (rcode::SERVFAIL, true), "{answer:?}");
    }
    server.up();
    let up_at = clock::now();
    eventually("the same name is answered", || {
        let answer = gateway.client().udp(&query("host-cold-3.lab.example", rtype::A));
        answer.rcode() == rcode::NOERROR
    });
    assert!(up_at.elapsed() < Duration::from_secs(4), "{:?}", up_at.elapsed());
}

#[test]
fn a_machine_without_a_network_is_answered_and_one_that_comes_up_is_used_within_a_second() {
    run_inside("inside_a_network_that_comes_up_late");
}

/// Nothing but loopback is there at first.
#[test]
#[ignore = "runs in the namespace that `a_machine_without_a_network_is_answered_and_one_that_comes_up_is_used_within_a_second` makes"]
fn inside_a_network_that_comes_up_late() {
    if !is_inside() {
        return;
    }
    system("ip link set lo up");
    let identity = Certificate::Good.identity();
    let server = Server::at("0.0.0.0:0".parse().unwrap(), Protocol::Dot, Script::good(), identity);
    let ca_file = authority::trusted().ca_file();
    let (_directory, file) = written(&format!(
        "listen = [\"127.0.0.1:0\"]\nupstreams = [\"far\"]\nworkers = 1\n\
         [server.far]\nurl = \"tls://{NAME}:{}\"\naddresses = [\"192.0.2.9\"]\nca_file = \"{}\"\n",
        server.address.port(),
        ca_file.display()
    ));
    let gateway = Running::start(&file);
    let ask = |host: &str| gateway.client().udp(&query(&format!("host-{host}.lab.example"), rtype::A));
    for host in ["a", "b", "c"] {
        let begun = clock::now();
        let reply = ask(host);
        assert_eq!((reply.rcode(), reply.ede_code().is_some()), (rcode::SERVFAIL, true), "{reply:?}");
        assert!(begun.elapsed() < Duration::from_secs(2), "said at once: {:?}", begun.elapsed());
    }
    // Long enough for probes to back off.
    std::thread::sleep(Duration::from_secs(8));
    system("ip link add wan0 type veth peer name wan1");
    system("ip link set wan1 up");
    system("ip address add 192.0.2.9/24 dev wan0");
    let up = clock::now();
    system("ip link set wan0 up");
    let mut asked = 0;
    while ask(&format!("late-{asked}")).rcode() != rcode::NOERROR {
        asked += 1;
        assert!(up.elapsed() < Duration::from_secs(5), "after {asked} queries");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(up.elapsed() <= Duration::from_secs(1), "{:?}, {asked} queries in vain", up.elapsed());
}

#[test]
fn addresses_of_servers_outlive_a_restart() {
    let state = tempfile::tempdir().unwrap();
    let named = Server::start(Protocol::Doh, Script::good());
    let phonebook = Server::start(Protocol::Dot, Script::phonebook());
    let ca_file = authority::trusted().ca_file();
    let (ca_file, directory) = (ca_file.display(), state.path().display());
    let text = format!(
        "listen = [\"127.0.0.1:0\"]\nupstreams = [\"named\", \"phonebook\"]\nstrategy = \"failover\"\nworkers = 1\n\
         state_dir = \"{directory}\"\n[timeouts]\nconnect = \"2s\"\n\
         [server.named]\nurl = \"{}\"\nca_file = \"{ca_file}\"\n\
         [server.phonebook]\nurl = \"tls://{}\"\nca_file = \"{ca_file}\"\n",
        named.url(),
        phonebook.address
    );
    let gateway = start_text(&text);
    ask(&gateway, "first");
    let file = state.path().join("state.json");
    eventually("it is kept", || std::fs::read_to_string(&file).is_ok_and(|text| text.contains("127.0.0.1")));
    let kept = std::fs::read_to_string(&file).unwrap();
    assert!(kept.contains(NAME) && !kept.contains("lab.example"), "{kept}");
    drop(gateway);
    phonebook.down();
    let gateway = start_text(&text);
    ask(&gateway, "second");
    assert_eq!(named.log.asked_for("host-second.lab.example."), 1);
}

#[test]
fn a_server_that_closes_every_quiet_connection_is_never_held_for_failing() {
    for protocol in BOTH {
        let server = Server::start(protocol, Script::good());
        let gateway = setup().server("lab", &server).start();
        for number in 0..6 {
            ask(&gateway, &format!("quiet-{number}"));
            server.cut();
        }
        let upstreams = gateway.gateway().core().upstreams();
        let status = upstreams[0].snapshot(clock::now());
        assert_eq!((upstreams[0].is_up(), status.last_error), (true, None), "{protocol:?}");
        assert!(server.log.connections() >= 6, "{protocol:?}");
    }
}
