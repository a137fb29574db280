//! Addresses that come and go, and the end.

use super::*;
use crate::listener::bind::BindErrorKind;

/// An address of loopback that nothing listens on a moment ago.
fn free_address() -> SocketAddr {
    UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Waits until connections are refused: workers close their sockets when it is their turn to run.
fn assert_refused(address: SocketAddr) {
    let deadline = crate::clock::now() + PATIENCE;
    while TcpStream::connect(address).is_ok() {
        assert!(crate::clock::now() < deadline, "{address} is still listened on");
        std::thread::yield_now();
    }
}

/// Asks by UDP and TCP and expects answers.
fn assert_served(address: SocketAddr) {
    let client = udp_to(address);
    client.send(&query(1, "hit.example")).unwrap();
    assert_eq!(id(&receive(&client)), 1);
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write_message(&mut stream, &query(2, "hit.example"));
    assert_eq!(id(&read_message(&mut stream)), 2);
}

#[test]
fn equal_addresses_keep_their_sockets_while_others_come_and_go() {
    let server = Server::start(2, "127.0.0.1:0", Limits::default());
    let kept = written("127.0.0.1:0".parse().unwrap());
    let client = server.udp();
    client.send(&query(1, "held.example")).unwrap();
    server.fake.wait_for_held(1);

    let new = written("[::1]:0".parse().unwrap());
    let report = server.workers.listen(&[new, kept]).unwrap();
    assert_eq!((report.bound.len(), report.bound[1]), (2, server.address));
    assert!(report.skipped.is_empty());
    assert_served(report.bound[0]);
    assert_served(server.address);
    server.fake.release(1);
    assert_eq!(id(&receive(&client)), 1);

    let report = server.workers.listen(&[new]).unwrap();
    assert_served(report.bound[0]);
    // The address that is no longer wanted is closed.
    assert_refused(server.address);
    server.stop();
}

#[test]
fn nothing_changes_when_one_of_the_new_addresses_cannot_be_had() {
    let server = Server::usual();
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let _holder = UdpSocket::bind(taken).unwrap();
    let free = free_address();
    let error = server.workers.listen(&[written(free), written(taken)]).unwrap_err();
    assert_eq!(error.address, taken);
    assert!(matches!(error.kind, BindErrorKind::InUse { .. }));
    assert_served(server.address);
    assert!(TcpStream::connect(free).is_err());
    server.stop();
}

#[test]
fn built_in_address_that_the_host_lacks_is_skipped_but_a_written_one_is_an_error() {
    let server = Server::usual();
    let address: SocketAddr = "192.0.2.1:0".parse().unwrap();
    let kept = written("127.0.0.1:0".parse().unwrap());
    let report = server.workers.listen(&[kept, Listen { address, written: false }]).unwrap();
    assert_eq!((report.bound, report.skipped), (vec![server.address], vec![address]));
    let error = server.workers.listen(&[kept, written(address)]).unwrap_err();
    assert_eq!(error.kind, BindErrorKind::NotHere);
    assert_served(server.address);
    server.stop();
}

#[test]
fn a_wildcard_may_replace_an_address_on_the_same_port() {
    let server = Server::usual();
    let port = server.address.port();
    let report = server.workers.listen(&[written(SocketAddr::new([0, 0, 0, 0].into(), port))]).unwrap();
    assert_eq!(report.bound[0].port(), port);
    let asked = SocketAddr::new([127, 0, 0, 9].into(), port);
    let client = udp_to(asked);
    client.send(&query(1, "hit.example")).unwrap();
    assert_eq!(id(&receive(&client)), 1);
    server.stop();
}

#[test]
fn what_was_accepted_is_answered_after_the_stop_and_nothing_more() {
    let server = Server::start(2, "127.0.0.1:0", Limits::default());
    let (client, mut stream) = (server.udp(), server.tcp());
    client.send(&query(1, "held.example")).unwrap();
    server.fake.wait_for_held(1);
    write_message(&mut stream, &query(2, "held.example"));
    server.fake.wait_for_held(2);
    let mut idle = server.tcp();
    write_message(&mut idle, &query(3, "hit.example"));
    assert_eq!(id(&read_message(&mut idle)), 3);

    server.workers.stop_accepting();
    assert_closed(&mut idle);
    assert_refused(server.address);
    server.fake.release(1);
    server.fake.release(1);
    assert_eq!(id(&receive(&client)), 1);
    assert_eq!(id(&read_message(&mut stream)), 2);
    assert_closed(&mut stream);
    // What comes while the last is read is answered still: only then is it certain that nobody reads any more.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        tokio::time::timeout(PATIENCE, server.workers.finished_reading()).await.expect("the end of reading");
    });
    client.send(&query(4, "hit.example")).ok();
    server.stop();
    client.set_nonblocking(true).unwrap();
    assert!(client.recv(&mut [0; 512]).is_err(), "answered after the stop");
}

#[test]
fn the_deadline_ends_what_does_not_end_by_itself() {
    let server = Server::usual();
    let mut stream = server.tcp();
    write_message(&mut stream, &query(1, "held.example"));
    server.fake.wait_for_held(1);
    let Server { workers, fake, .. } = server;
    workers.join(crate::clock::now() + Duration::from_millis(50));
    assert_closed(&mut stream);
    // The answer that comes too late finds nobody and does no harm.
    fake.release(1);
}

#[test]
fn workers_that_are_dropped_end_their_threads_and_close_their_sockets() {
    let Server { workers, fake, address, .. } = Server::start(2, "127.0.0.1:0", Limits::default());
    assert_served(address);
    drop(workers);
    let deadline = crate::clock::now() + PATIENCE;
    // The threads hold the resolver for as long as they run.
    while Arc::strong_count(&fake) > 1 {
        assert!(crate::clock::now() < deadline, "a thread still runs");
        std::thread::yield_now();
    }
    UdpSocket::bind(address).unwrap();
}
