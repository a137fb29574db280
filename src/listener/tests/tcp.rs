//! TCP: pipelining and order, half-closed clients, every bound at its edge, those who do not behave.

use super::*;
use crate::telemetry::bounds::Bound;
use std::net::Shutdown;

/// The usual limits, but for what `change` changes.
fn limits(change: impl FnOnce(&mut Limits)) -> Limits {
    let mut limits = Limits::default();
    change(&mut limits);
    limits
}

/// One worker with changed limits.
fn server(change: impl FnOnce(&mut Limits)) -> Server {
    Server::start(1, "127.0.0.1:0", limits(change))
}

/// Asks and expects an answer: the connection is alive.
fn assert_served(stream: &mut TcpStream) {
    write_message(stream, &query(77, "hit.example"));
    assert_eq!(id(&read_message(stream)), 77);
}

#[test]
fn answers_from_memory_come_back_in_order_however_the_octets_arrive() {
    let server = Server::usual();
    let mut client = server.tcp();
    let octets: Vec<u8> = (0..5).flat_map(|number| framed(&query(number, "hit.example"))).collect();
    client.write_all(&octets).unwrap();
    for octet in &octets {
        client.write_all(&[*octet]).unwrap();
    }
    let ids: Vec<u16> = (0..10).map(|_| id(&read_message(&mut client))).collect();
    assert_eq!(ids, [0, 1, 2, 3, 4, 0, 1, 2, 3, 4]);
    server.stop();
}

#[test]
fn an_answer_that_is_ready_overtakes_one_that_is_not() {
    let server = Server::usual();
    let mut client = server.tcp();
    write_message(&mut client, &query(1, "held.example"));
    write_message(&mut client, &query(2, "late.example"));
    write_message(&mut client, &query(3, "hit.example"));
    let mut ids = [id(&read_message(&mut client)), id(&read_message(&mut client))];
    ids.sort_unstable();
    assert_eq!(ids, [2, 3]);
    server.fake.release(1);
    assert_eq!(id(&read_message(&mut client)), 1);
    server.stop();
}

#[test]
fn answers_may_be_as_long_as_a_message_can_be() {
    let server = Server::usual();
    let mut client = server.tcp();
    for name in ["huge", "lateXhuge", "huge"] {
        write_message(&mut client, &query(1, name));
        assert_eq!(read_message(&mut client).len(), 65_535);
    }
    server.stop();
}

#[test]
fn half_closed_client_still_gets_its_answers() {
    let server = Server::usual();
    let mut client = server.tcp();
    for number in 1..=3 {
        write_message(&mut client, &query(number, "held.example"));
    }
    client.shutdown(Shutdown::Write).unwrap();
    server.fake.wait_for_held(3);
    server.fake.release(3);
    let ids: Vec<u16> = (0..3).map(|_| id(&read_message(&mut client))).collect();
    assert_eq!(ids, [1, 2, 3]);
    assert_closed(&mut client);
    server.stop();
}

#[test]
fn no_more_queries_are_taken_than_may_be_in_flight() {
    let server = server(|limits| limits.tcp_pipelined = 4);
    let mut client = server.tcp();
    for number in 0..10 {
        write_message(&mut client, &query(number, "held.example"));
    }
    for _ in 0..6 {
        server.fake.wait_for_held(4);
        assert_eq!(server.fake.held(), 4);
        server.fake.release(1);
    }
    server.fake.wait_for_held(4);
    server.fake.release(4);
    let ids: Vec<u16> = (0..10).map(|_| id(&read_message(&mut client))).collect();
    assert_eq!(ids, (0..10).collect::<Vec<_>>());
    assert!(server.telemetry.bounds().count(Bound::TcpPipelined) > 0);
    server.stop();
}

#[test]
fn client_gets_no_more_connections_than_its_share() {
    let server = server(|limits| limits.tcp_connections_per_client = 2);
    let mut first = server.tcp();
    let mut second = server.tcp();
    write_message(&mut first, &query(1, "held.example"));
    server.fake.wait_for_held(1);
    write_message(&mut second, &query(2, "held.example"));
    server.fake.wait_for_held(2);
    assert_closed(&mut server.tcp());
    for (client, number) in [(&mut first, 1), (&mut second, 2)] {
        server.fake.release(1);
        assert_eq!(id(&read_message(client)), number);
    }
    // Idle ones give way to the same client's next, as soon as the server has seen that they are idle.
    let again = (0..500).any(|_| {
        let mut stream = server.tcp();
        stream.write_all(&framed(&query(1, "hit.example"))).is_ok() && stream.read_exact(&mut [0; 2]).is_ok()
    });
    assert!(again);
    server.stop();
}

#[test]
fn oldest_idle_connection_gives_way_to_a_new_one() {
    let server = server(|limits| limits.tcp_connections = 2);
    let mut busy = server.tcp();
    write_message(&mut busy, &query(1, "held.example"));
    server.fake.wait_for_held(1);
    let mut idle = server.tcp();
    assert_served(&mut idle);
    let mut new = server.tcp();
    assert_served(&mut new);
    assert_closed(&mut idle);
    server.fake.release(1);
    assert_eq!(id(&read_message(&mut busy)), 1);
    server.stop();
}

#[test]
fn accepting_waits_while_all_connections_are_busy() {
    let server = server(|limits| limits.tcp_connections = 1);
    let mut busy = server.tcp();
    write_message(&mut busy, &query(1, "held.example"));
    server.fake.wait_for_held(1);
    let mut new = server.tcp();
    write_message(&mut new, &query(2, "hit.example"));
    new.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    assert!(new.read(&mut [0; 2]).is_err(), "served although there is no place");
    new.set_read_timeout(Some(PATIENCE)).unwrap();
    server.fake.release(1);
    assert_eq!(id(&read_message(&mut busy)), 1);
    assert_eq!(id(&read_message(&mut new)), 2);
    server.stop();
}

#[test]
fn idle_connection_is_closed() {
    let server = server(|limits| limits.tcp_idle = Duration::from_millis(100));
    let mut client = server.tcp();
    assert_served(&mut client);
    assert_closed(&mut client);
    assert_closed(&mut server.tcp());
    assert!(server.telemetry.bounds().count(Bound::TcpIdle) > 0);
    server.stop();
}

#[test]
fn waiting_for_an_answer_is_not_idling() {
    let server = server(|limits| limits.tcp_idle = Duration::from_millis(50));
    let mut client = server.tcp();
    write_message(&mut client, &query(1, "held.example"));
    server.fake.wait_for_held(1);
    client.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let error = client.read(&mut [0; 2]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
    server.fake.release(1);
    assert_eq!(id(&read_message(&mut client)), 1);
    server.stop();
}

#[test]
fn client_that_drips_is_closed_however_busily_it_drips() {
    let server = server(|limits| limits.tcp_read = Duration::from_millis(200));
    let mut client = server.tcp();
    assert_served(&mut client);
    client.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
    let drips = framed(&query(1, &["a"; 60].join("."))).into_iter().cycle().take(20_000);
    // A message that never ends: its length is far more than is sent.
    client.write_all(&[0xff, 0xff]).unwrap();
    let closed = drips.into_iter().any(|octet| {
        let written = client.write_all(&[octet]);
        written.is_err() || !matches!(client.read(&mut [0; 2]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
    });
    assert!(closed);
    server.stop();
}

#[test]
fn client_that_does_not_read_is_closed() {
    let server = server(|limits| limits.tcp_idle = Duration::from_millis(300));
    let mut client = server.tcp();
    // More than any socket buffers hold: 64 MB.
    let queries: Vec<u8> = (0..1000).flat_map(|number| framed(&query(number, "huge"))).collect();
    let pacing = Duration::from_millis(10);
    client.set_nonblocking(true).unwrap();
    let mut rest = &queries[..];
    let closed = (0..1000).any(|_| {
        match client.write(rest) {
            Ok(octets) => rest = &rest[octets..],
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => return true,
        }
        if rest.is_empty() {
            rest = &queries[..];
        }
        std::thread::sleep(pacing);
        false
    });
    assert!(closed);
    server.stop();
}

#[test]
fn responses_and_what_is_too_short_end_the_connection() {
    let mut response = query(1, "hit.example");
    response[2] |= 0x80;
    for nonsense in [&response[..], b"", b"short"] {
        let server = Server::usual();
        let mut client = server.tcp();
        write_message(&mut client, &query(5, "hit.example"));
        write_message(&mut client, nonsense);
        assert_eq!(id(&read_message(&mut client)), 5);
        assert_closed(&mut client);
        server.stop();
    }
}

#[test]
fn malformed_query_gets_formerr_and_the_next_one_its_answer() {
    let server = Server::usual();
    let mut client = server.tcp();
    write_message(&mut client, &query(4, "hit.example")[..20]);
    let reply = read_message(&mut client);
    assert_eq!((id(&reply), rcode(&reply)), (4, 1));
    assert_served(&mut client);
    server.stop();
}
