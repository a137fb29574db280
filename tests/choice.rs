//! Which server is asked, who comes back how, and what a connection costs.

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

use support::eventually;
use support::gateway::{Gateway, setup};
use support::message::{query, rcode, rtype};
use support::script::{Reply, Script};
use support::server::{BOTH, Protocol, Server};

/// Asks so many new names.
fn ask(gateway: &Gateway, tag: &str, count: usize) {
    for number in 0..count {
        let answer = gateway.client().udp(&query(&format!("host-{tag}-{number}.lab.example"), rtype::A));
        assert_eq!(answer.rcode(), rcode::NOERROR, "{tag} {number}: {answer:?}");
    }
}

/// How many queries for hosts of this tag a server got: probes ask for other names.
fn asked(server: &Server, tag: &str) -> usize {
    let needle = format!("host-{tag}");
    server.log.queries().iter().filter(|octets| support::trap::contains(octets, needle.as_bytes())).count()
}

#[test]
fn failover_asks_the_first_and_the_second_only_when_it_is_down() {
    let (first, second) =
        (Server::start(Protocol::Dot, Script::good()), Server::start(Protocol::Doh, Script::good()));
    let gateway = setup().server("first", &first).server("second", &second).start();
    ask(&gateway, "up", 10);
    assert_eq!((asked(&first, "up"), asked(&second, "up")), (10, 0));
    first.down();
    ask(&gateway, "down", 10);
    assert_eq!((asked(&first, "down"), asked(&second, "down")), (0, 10));
}

#[test]
fn a_server_that_comes_back_is_found_by_probes_and_not_by_users() {
    let (first, second) =
        (Server::start(Protocol::Dot, Script::good()), Server::start(Protocol::Dot, Script::good()));
    let gateway = setup()
        .server("first", &first)
        .server("second", &second)
        .table("[timeouts]\nquery = \"4s\"\nconnect = \"500ms\"")
        .start();
    // Answers nothing: a query that is sent there would wait.
    first.set(Script::replying(Reply::Silence));
    ask(&gateway, "failing", 6);
    // A query that a silent connection holds up is asked once more on a fresh one: it is the names that count.
    let tried = (0..6).filter(|number| asked(&first, &format!("failing-{number}")) > 0).count();
    assert!((1..6).contains(&tried), "{tried} of 6 queries paid before it was down");
    ask(&gateway, "down", 20);
    assert_eq!(asked(&first, "down"), 0, "a server that is down gets no user's query");
    first.set(Script::good());
    let mut round = 0;
    eventually("the first is asked again", || {
        let tag = format!("back{round}");
        ask(&gateway, &tag, 1);
        round += 1;
        asked(&first, &tag) == 1
    });
}

#[test]
fn weights_are_kept_roughly() {
    let (heavy, light) =
        (Server::start(Protocol::Dot, Script::good()), Server::start(Protocol::Dot, Script::good()));
    let gateway = setup()
        .top("strategy", "\"weighted\"")
        .server_with("heavy", &heavy, "weight = 3")
        .server_with("light", &light, "weight = 1")
        .table("[limits]\nhedge_percent = 0")
        .start();
    ask(&gateway, "weighed", 400);
    let share = asked(&light, "weighed");
    // 100 are expected; seven standard deviations away is a bug.
    assert!((40..=160).contains(&share), "{share} of 400");
    // Where the machine is held up, a query may be asked of the other one as well.
    let both = asked(&heavy, "weighed") + share;
    assert!((400..=420).contains(&both), "{both}");
}

#[test]
fn round_robin_takes_turns() {
    let servers =
        [Protocol::Dot, Protocol::Doh, Protocol::Dot].map(|protocol| Server::start(protocol, Script::good()));
    let gateway = setup()
        .top("strategy", "\"round-robin\"")
        .server("a", &servers[0])
        .server("b", &servers[1])
        .server("c", &servers[2])
        .start();
    ask(&gateway, "turn", 30);
    let shares = servers.each_ref().map(|server| asked(server, "turn"));
    assert_eq!(shares, [10, 10, 10]);
}

#[test]
fn fastest_prefers_the_quick_server() {
    let quick = Server::start(Protocol::Dot, Script::good());
    let slow =
        Server::start(Protocol::Dot, Script::replying(Reply::Delay(std::time::Duration::from_millis(60))));
    let gateway =
        setup().top("strategy", "\"fastest\"").server("slow", &slow).server("quick", &quick).start();
    ask(&gateway, "race", 60);
    let (slow, quick) = (asked(&slow, "race"), asked(&quick, "race"));
    assert!(quick > 3 * slow, "quick {quick}, slow {slow}");
}

#[test]
fn one_connection_serves_many_queries_and_the_next_one_resumes_its_session() {
    for protocol in BOTH {
        let server = Server::start(protocol, Script::good());
        let gateway = setup().server("lab", &server).start();
        ask(&gateway, "first", 20);
        assert_eq!((server.log.handshakes(), server.log.resumed()), (1, 0), "{protocol:?}");
        server.cut();
        eventually("the cut is noticed", || server.log.open() == 0);
        ask(&gateway, "second", 20);
        assert!(server.log.handshakes() >= 2, "{protocol:?}");
        assert_eq!(
            server.log.resumed(),
            server.log.handshakes() - 1,
            "{protocol:?}: each further one is resumed"
        );
    }
}

#[test]
fn a_busy_server_of_https_is_left_alone_for_as_long_as_it_says() {
    let busy = Server::start(Protocol::Doh, Script::replying(Reply::Status(429, Some(3600))));
    let good = Server::start(Protocol::Dot, Script::good());
    let gateway = setup().server("busy", &busy).server("good", &good).start();
    ask(&gateway, "busy", 10);
    assert_eq!(asked(&busy, "busy"), 1, "RFC 9110 §10.2.3");
}

#[test]
fn every_query_of_a_burst_is_answered_over_few_connections() {
    for protocol in BOTH {
        let delay = Reply::Delay(std::time::Duration::from_millis(50));
        let server = Server::start(protocol, Script::replying(delay));
        let gateway = setup().server("lab", &server).start();
        std::thread::scope(|scope| {
            for thread in 0..40 {
                let gateway = &gateway;
                scope.spawn(move || ask(gateway, &format!("burst{thread}"), 5));
            }
        });
        assert!(server.log.max_in_flight() > 5, "{protocol:?}: queries share a connection");
        assert!(server.log.connections() <= 2, "{protocol:?}: {} connections", server.log.connections());
    }
}

#[test]
fn a_sudden_slowness_of_the_servers_costs_patience_and_no_query() {
    for count in [1, 2] {
        let servers: Vec<Server> = (0..count).map(|_| Server::start(Protocol::Dot, Script::good())).collect();
        let names = ["a", "b"];
        let setup =
            servers.iter().zip(names).fold(setup(), |setup, (server, name)| setup.server(name, server));
        let gateway = setup.start();
        ask(&gateway, "quick", 30);
        // Far beyond the time that these servers have needed so far, and within the time that a query has.
        for server in &servers {
            server.set(Script::replying(Reply::Delay(std::time::Duration::from_millis(1200))));
        }
        ask(&gateway, "slow", 3);
    }
}
