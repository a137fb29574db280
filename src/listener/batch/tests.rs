//! Batches there and back on sockets of this machine.

use super::*;
use crate::resolver::waiter::ClientToken;
use std::time::Duration;

const BATCH: usize = MOST;

/// Makes a batch socket and a client socket beside it.
fn pair(address: &str) -> (BatchSocket, UdpSocket) {
    let socket = UdpSocket::bind(address).unwrap();
    socket.set_nonblocking(true).unwrap();
    let client = UdpSocket::bind(if address.starts_with('[') { "[::1]:0" } else { "127.0.0.1:0" }).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    (BatchSocket::new(socket).unwrap(), client)
}

/// Sends `count` numbered datagrams, receives them by batches and sends each back.
fn echo(address: &str, count: usize) {
    echo_by(BATCH, address, count);
}

/// Writes back what was received, which is the beginning of what was sent; returns the rest of that.
fn give_back<'a>(
    datagrams: &Datagrams,
    replies: &mut Replies,
    client: SocketAddr,
    sent: &'a [Vec<u8>],
) -> &'a [Vec<u8>] {
    for ((from, octets), expected) in datagrams.iter().zip(sent) {
        assert_eq!((from.peer, octets), (client, &expected[..]));
        replies.slot()[..octets.len()].copy_from_slice(octets);
        replies.commit(*from, octets.len());
    }
    &sent[datagrams.iter().count()..]
}

/// The same by batches of another length.
fn echo_by(batch: usize, address: &str, count: usize) {
    let (server, client) = pair(address);
    let mut to = server.socket.local_addr().unwrap();
    if to.ip().is_unspecified() {
        to.set_ip(client.local_addr().unwrap().ip());
    }
    let (mut datagrams, mut replies) = (Datagrams::new(batch), Replies::new(batch));
    let server = server.with_batch(batch);
    for first in (0..count).step_by(batch) {
        let sent: Vec<_> = (first..count.min(first + batch)).map(|n| vec![b'x'; 1 + n]).collect();
        for octets in &sent {
            client.send_to(octets, to).unwrap();
        }
        let client_at = client.local_addr().unwrap();
        let mut left = &sent[..];
        while !left.is_empty() {
            datagrams.receive(&server, Patience::None).unwrap();
            left = give_back(&datagrams, &mut replies, client_at, left);
            assert_eq!(replies.flush(&server), 0);
        }
        for expected in &sent {
            let mut buffer = [0; 2048];
            let (len, from) = client.recv_from(&mut buffer).unwrap();
            assert_eq!((&buffer[..len], from), (&expected[..], to));
        }
    }
    assert_eq!(datagrams.receive(&server, Patience::None).unwrap_err().kind(), io::ErrorKind::WouldBlock);
}

#[test]
fn batches_go_there_and_back_on_a_bound_ipv4_socket() {
    echo("127.0.0.1:0", 3 * BATCH + 5);
}

#[test]
fn batches_go_there_and_back_on_a_bound_ipv6_socket() {
    echo("[::1]:0", BATCH + 1);
}

#[test]
fn batches_go_there_and_back_on_wildcard_sockets() {
    echo("0.0.0.0:0", BATCH + 1);
    echo("[::]:0", 3);
}

#[test]
fn a_batch_is_as_long_as_the_operator_says_and_the_rest_is_taken_by_the_next() {
    for batch in [1, 3, BATCH] {
        echo_by(batch, "127.0.0.1:0", 2 * batch + 1);
        let (server, client) = pair("127.0.0.1:0");
        let server = server.with_batch(batch);
        let to = server.socket.local_addr().unwrap();
        (0..2 * batch + 1).for_each(|_| assert_eq!(client.send_to(b"x", to).unwrap(), 1));
        let mut datagrams = Datagrams::new(batch);
        let mut left = 2 * batch + 1;
        let mut full = false;
        while left > 0 {
            let received = datagrams.receive(&server, Patience::None).unwrap();
            let taken = datagrams.iter().count();
            assert!(taken <= batch && taken <= left);
            left -= taken;
            // Whoever sees less than there may be asks again; a whole batch is told from a window.
            assert!(received != Received::All || left == 0);
            assert_eq!(received == Received::Batch, taken == batch);
            full |= received == Received::Batch;
        }
        assert!(full, "{batch}");
        let token = ClientToken::new(client.local_addr().unwrap());
        assert_eq!(send(&server, std::iter::repeat_n((&token, &b"x"[..]), 2 * batch + 1)), 0);
        (0..2 * batch + 1).for_each(|_| assert_eq!(client.recv(&mut [0; 8]).unwrap(), 1));
    }
}

#[test]
fn few_headers_are_made_ready_while_few_come_and_a_batch_of_them_when_many_do() {
    let (server, client) = pair("127.0.0.1:0");
    let to = server.socket.local_addr().unwrap();
    let mut datagrams = Datagrams::new(BATCH);
    let mut take = |count: usize| {
        (0..count).for_each(|_| assert_eq!(client.send_to(b"x", to).unwrap(), 1));
        let received = datagrams.receive(&server, Patience::None).unwrap();
        (received, datagrams.iter().count(), datagrams.window)
    };
    assert_eq!(take(1), (Received::All, 1, ALONE));
    assert_eq!(take(BATCH), (Received::Part, ALONE, FEW));
    assert_eq!(take(0), (Received::Part, FEW, (4 * FEW).min(BATCH)));
    assert_eq!(take(ALONE + FEW), (Received::Batch, BATCH, BATCH));
    assert_eq!(take(3), (Received::All, 3, 6));
    assert_eq!(take(1), (Received::All, 1, ALONE));
}

#[test]
fn after_a_few_datagrams_none_more_are_looked_for_and_after_many_they_are() {
    let (server, client) = pair("127.0.0.1:0");
    let to = server.socket.local_addr().unwrap();
    let mut datagrams = Datagrams::new(BATCH);
    for (count, window, expected) in
        [(1, ALONE, Received::All), (FEW / 2, FEW, Received::All), (FEW / 2 + 1, FEW, Received::Part)]
    {
        datagrams.window = window;
        (0..count).for_each(|_| assert_eq!(client.send_to(b"x", to).unwrap(), 1));
        assert_eq!(
            (datagrams.receive(&server, Patience::None).unwrap(), datagrams.iter().count()),
            (expected, count)
        );
    }
}

#[test]
fn sockets_of_both_families_may_use_the_same_buffers_in_turn() {
    let mut datagrams = Datagrams::new(BATCH);
    for address in ["[::1]:0", "127.0.0.1:0", "[::1]:0", "[::]:0", "0.0.0.0:0", "[::1]:0"] {
        let (server, client) = pair(address);
        let mut to = server.socket.local_addr().unwrap();
        to.set_ip(client.local_addr().unwrap().ip());
        client.send_to(b"x", to).unwrap();
        assert_eq!(datagrams.receive(&server, Patience::None).unwrap(), Received::All);
        assert_eq!(datagrams.iter().next().unwrap().0.peer, client.local_addr().unwrap(), "{address}");
    }
}

#[test]
fn one_reply_that_cannot_be_sent_does_not_stop_the_others() {
    let (server, client) = pair("127.0.0.1:0");
    let good = ClientToken::new(client.local_addr().unwrap());
    let bad = ClientToken { peer: "[::1]:9".parse().unwrap(), ..good };
    let replies = [(&good, &b"a"[..]), (&bad, b"b"), (&bad, b"c"), (&good, b"d")];
    assert_eq!(send(&server, replies.into_iter()), 2);
    let mut buffer = [0; 8];
    for expected in [b"a", b"d"] {
        let len = client.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..len], expected);
    }
}

/// A reply that no datagram can hold, and its beginning, which is a reply by itself.
fn too_long() -> (Vec<u8>, Vec<u8>) {
    let mut reply = b"\x12\x34\x81\x80\x00\x01\x00\x01\x00\x00\x00\x00\x01a\x00\x00\x10\x00\x01".to_vec();
    let mut cut = reply.clone();
    (cut[2], cut[7]) = (0x83, 0);
    reply.extend_from_slice(b"\xc0\x0c\x00\x10\x00\x01\x00\x00\x00\x05\xff\xe0");
    reply.resize(reply.len() + 0xffe0, 0);
    (reply, cut)
}

/// What the next datagrams hold.
fn heard(client: &UdpSocket, count: usize) -> Vec<Vec<u8>> {
    let next = || {
        let mut buffer = vec![0; 64];
        let len = client.recv(&mut buffer).unwrap();
        buffer.truncate(len);
        buffer
    };
    std::iter::repeat_with(next).take(count).collect()
}

#[test]
fn a_reply_that_its_way_cannot_carry_whole_is_cut_and_the_others_are_not() {
    let (long, cut) = too_long();
    for address in ["127.0.0.1:0", "[::1]:0", "0.0.0.0:0"] {
        let (server, client) = pair(address);
        let mut token = ClientToken::new(client.local_addr().unwrap());
        token.local = server.local.ip().is_unspecified().then_some(token.peer.ip());
        let unsent = |replies: &[&[u8]]| send(&server, replies.iter().map(|reply| (&token, *reply)));
        assert_eq!(unsent(&[&long]), 0, "{address}");
        assert_eq!(heard(&client, 1), [&cut[..]], "{address}");
        assert_eq!(unsent(&[b"x", &long, b"y", &long]), 0, "{address}");
        assert_eq!(heard(&client, 4), [&b"x"[..], &cut, b"y", &cut], "{address}");
        // What cannot be cut is lost.
        assert_eq!(unsent(&[&long[12..]]), 1, "{address}");
        assert_eq!(unsent(&[&long[12..], b"z"]), 1, "{address}");
        assert_eq!(heard(&client, 1), [b"z"], "{address}");
    }
}

#[test]
fn no_socket_sends_fragments() {
    use rustix::net::sockopt::{ip_mtu_discover, ipv6_mtu_discover};
    for address in ["127.0.0.1:0", "0.0.0.0:0", "[::1]:0"] {
        assert_eq!(ip_mtu_discover(&pair(address).0.socket), Ok(Ipv4PathMtuDiscovery::DO), "{address}");
    }
    for address in ["[::1]:0", "[::]:0"] {
        assert_eq!(ipv6_mtu_discover(&pair(address).0.socket), Ok(Ipv6PathMtuDiscovery::DO), "{address}");
    }
}

#[test]
fn who_turned_path_mtu_discovery_off_keeps_that() {
    use rustix::net::sockopt::ip_mtu_discover;
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    set_ip_mtu_discover(&socket, Ipv4PathMtuDiscovery::DONT).unwrap();
    let batch = BatchSocket::new(socket).unwrap();
    assert_eq!(ip_mtu_discover(&batch.socket), Ok(Ipv4PathMtuDiscovery::DONT));
}

#[test]
fn many_more_replies_than_a_batch_are_all_sent() {
    let (server, client) = pair("127.0.0.1:0");
    let token = ClientToken::new(client.local_addr().unwrap());
    assert_eq!(send(&server, std::iter::repeat_n((&token, &b"x"[..]), 2 * BATCH)), 0);
    let mut buffer = [0; 8];
    for _ in 0..2 * BATCH {
        assert_eq!(client.recv(&mut buffer).unwrap(), 1);
    }
}

#[test]
fn reply_to_a_vanished_client_does_not_disturb_the_next_receive() {
    let (server, client) = pair("127.0.0.1:0");
    let gone = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let token = ClientToken::new(gone);
    send(&server, std::iter::once((&token, &b"x"[..])));
    client.send_to(b"after", server.socket.local_addr().unwrap()).unwrap();
    let mut datagrams = Datagrams::new(BATCH);
    assert_eq!(datagrams.receive(&server, Patience::None).unwrap(), Received::All);
    assert_eq!(datagrams.iter().count(), 1);
    assert_eq!(datagrams.iter().next().unwrap().1, b"after");
}
