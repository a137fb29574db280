//! UDP sockets while an attendant waits in them.

use super::*;
use std::collections::BTreeSet;

/// Queries sent together. Fewer than any socket's buffer holds.
const TOGETHER: u16 = 32;

/// Sends queries for `name` together and takes their answers.
fn exchange(client: &UdpSocket, name: &str) {
    for number in 0..TOGETHER {
        client.send(&query(number, name)).unwrap();
    }
    let ids: BTreeSet<u16> = (0..TOGETHER).map(|_| id(&receive(client))).collect();
    assert_eq!(ids, (0..TOGETHER).collect());
}

/// Returns whether the attendant took the query that is sent now.
fn is_attended(server: &Server, client: &UdpSocket) -> bool {
    let before = server.fake.attended.load(Ordering::SeqCst);
    client.send(&query(1, "hit.example")).unwrap();
    assert_eq!(id(&receive(client)), 1);
    server.fake.attended.load(Ordering::SeqCst) > before
}

/// Asks until an attendant answers.
fn get_attended(server: &Server, client: &UdpSocket) {
    let begun = crate::clock::now();
    while !is_attended(server, client) {
        exchange(client, "hit.example");
        assert!(begun.elapsed() < PATIENCE, "no attendant came");
    }
}

/// Waits until the worker has the socket back.
fn wait_for_the_worker(server: &Server) {
    let begun = crate::clock::now();
    while server.workers.attendants().present() > 0 {
        assert!(begun.elapsed() < PATIENCE, "the attendant did not end");
        std::thread::yield_now();
    }
}

#[test]
fn a_brisk_socket_gets_an_attendant_and_a_quiet_one_goes_back_to_its_worker() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let server = Server::start(1, address, Limits::default());
        let client = server.udp();
        assert!(!is_attended(&server, &client));
        for _ in 0..2 {
            get_attended(&server, &client);
            wait_for_the_worker(&server);
            assert!(!is_attended(&server, &client));
        }
        server.stop();
    }
}

#[test]
fn where_many_queries_are_misses_the_worker_reads_itself() {
    let server = Server::usual();
    let client = server.udp();
    get_attended(&server, &client);
    exchange(&client, "late.example");
    wait_for_the_worker(&server);
    assert!(!is_attended(&server, &client));
    for _ in 0..100 {
        exchange(&client, "late.example");
        exchange(&client, "hit.example");
    }
    assert!(!is_attended(&server, &client));
    server.stop();
}

#[test]
fn some_misses_are_answered_beside_an_attendant() {
    let server = Server::usual();
    let client = server.udp();
    get_attended(&server, &client);
    for name in ["late.example", "held.example"] {
        client.send(&query(2, name)).unwrap();
    }
    server.fake.wait_for_held(1);
    server.fake.release(1);
    assert_eq!([id(&receive(&client)), id(&receive(&client))], [2, 2]);
    get_attended(&server, &client);
    server.stop();
}

#[test]
fn what_was_sent_before_the_stop_is_answered() {
    let server = Server::usual();
    let client = server.udp();
    get_attended(&server, &client);
    for number in 0..100 {
        client.send(&query(number, "hit.example")).unwrap();
    }
    server.stop();
    let ids: BTreeSet<u16> = (0..100).map(|_| id(&receive(&client))).collect();
    assert_eq!(ids, (0..100).collect());
}

#[test]
fn an_address_that_goes_takes_its_attendant_with_it() {
    let server = Server::usual();
    let client = server.udp();
    get_attended(&server, &client);
    let bound = server.workers.listen(&[written("127.0.0.2:0".parse().unwrap())]).unwrap().bound;
    wait_for_the_worker(&server);
    get_attended(&server, &udp_to(bound[0]));
    server.stop();
}

#[test]
fn a_bug_found_by_one_query_does_not_end_an_attendant() {
    let server = Server::usual();
    let client = server.udp();
    get_attended(&server, &client);
    let (taken, begun) = (server.fake.attended.load(Ordering::SeqCst), crate::clock::now());
    client.send(&query(3, "boom.example")).unwrap();
    // What comes together with a bad one shares its fate.
    while server.fake.attended.load(Ordering::SeqCst) == taken {
        assert!(begun.elapsed() < PATIENCE, "nobody took it");
        std::thread::yield_now();
    }
    assert!(is_attended(&server, &client));
    server.stop();
}

#[test]
fn wildcard_sockets_answer_from_the_address_that_was_asked() {
    let server = Server::start(1, "0.0.0.0:0", Limits::default());
    for asked in ["127.0.0.1", "127.0.0.2"] {
        let client = udp_to(SocketAddr::new(asked.parse().unwrap(), server.address.port()));
        get_attended(&server, &client);
    }
    server.stop();
}
