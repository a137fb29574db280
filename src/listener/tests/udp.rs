//! UDP: batches, late replies, what is never answered, wildcard sockets.

use super::*;
use std::collections::BTreeSet;

#[test]
fn answers_from_memory_come_back_on_either_family() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let server = Server::start(1, address, Limits::default());
        let client = server.udp();
        client.send(&query(7, "hit.example")).unwrap();
        let reply = receive(&client);
        assert_eq!((id(&reply), rcode(&reply), reply[2] >> 7), (7, 0, 1));
        assert_eq!(reply[12..], query(7, "hit.example")[12..]);
        server.stop();
    }
}

#[test]
fn late_answers_come_from_another_thread() {
    let server = Server::usual();
    let client = server.udp();
    client.send(&query(8, "late.example")).unwrap();
    assert_eq!(id(&receive(&client)), 8);
    server.stop();
}

#[test]
fn every_query_of_a_burst_is_answered_once_and_misses_are_handed_over_together() {
    let server = Server::usual();
    let client = server.udp();
    for number in 0..150 {
        client.send(&query(number, if number % 3 == 0 { "held.example" } else { "hit.example" })).unwrap();
    }
    server.fake.wait_for_held(50);
    server.fake.release(50);
    let ids: BTreeSet<u16> = (0..150).map(|_| id(&receive(&client))).collect();
    assert_eq!(ids, (0..150).collect());
    let batches = server.fake.batches.lock().unwrap().clone();
    assert_eq!(batches.iter().sum::<usize>(), 50);
    assert!(batches.iter().all(|size| *size > 0));
    server.stop();
}

#[test]
fn several_workers_answer_on_one_port() {
    let server = Server::start(3, "127.0.0.1:0", Limits::default());
    for number in 0..50 {
        let client = server.udp();
        client.send(&query(number, "late.example")).unwrap();
        client.send(&query(number, "hit.example")).unwrap();
        assert_eq!([id(&receive(&client)), id(&receive(&client))], [number; 2]);
    }
    server.stop();
}

#[test]
fn responses_fragments_and_dropped_queries_are_not_answered() {
    let server = Server::usual();
    let client = server.udp();
    let mut response = query(1, "hit.example");
    response[2] |= 0x80;
    client.send(&response).unwrap();
    client.send(b"").unwrap();
    client.send(b"short").unwrap();
    client.send(&query(2, "drop.example")).unwrap();
    client.send(&query(3, "hit.example")).unwrap();
    assert_eq!(id(&receive(&client)), 3);
    server.stop();
}

#[test]
fn malformed_queries_get_formerr_and_other_opcodes_notimp() {
    let server = Server::usual();
    let client = server.udp();
    client.send(&query(4, "hit.example")[..20]).unwrap();
    let reply = receive(&client);
    assert_eq!((id(&reply), rcode(&reply)), (4, 1));
    let mut update = query(5, "hit.example");
    update[2] |= 5 << 3;
    client.send(&update).unwrap();
    let reply = receive(&client);
    assert_eq!((id(&reply), rcode(&reply)), (5, 4));
    server.stop();
}

#[test]
fn datagram_longer_than_a_slot_does_no_harm() {
    let server = Server::usual();
    let client = server.udp();
    let mut long = query(6, "hit.example");
    long.resize(9000, 0xff);
    client.send(&long).unwrap();
    client.send(&query(7, "hit.example")).unwrap();
    let mut reply = receive(&client);
    if id(&reply) == 6 {
        assert_eq!(rcode(&reply), 1);
        reply = receive(&client);
    }
    assert_eq!(id(&reply), 7);
    server.stop();
}

#[test]
fn replies_are_no_longer_than_the_client_said() {
    let server = Server::usual();
    let client = server.udp();
    client.send(&query(1, "huge")).unwrap();
    assert_eq!(receive(&client).len(), 512);
    client.send(&query_edns(2, "huge")).unwrap();
    assert_eq!(receive(&client).len(), 1232);
    server.stop();
}

#[test]
fn a_bug_found_by_one_query_does_not_end_the_socket() {
    let server = Server::usual();
    let client = server.udp();
    for number in 0..3 {
        client.send(&query(number, "boom.example")).unwrap();
    }
    // Queries that came together with a bad one share its fate: the client asks again.
    client.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let answered = (0..20).any(|_| {
        client.send(&query(9, "hit.example")).unwrap();
        client.recv(&mut [0; 512]).is_ok()
    });
    assert!(answered);
    server.stop();
}

#[test]
fn a_bug_found_by_the_last_query_does_not_undo_the_stop() {
    let server = Server::start(1, "127.0.0.1:0", Limits::default());
    let client = server.udp();
    let (open, gate) = std::sync::mpsc::channel();
    *server.fake.gate.lock().unwrap() = Some(gate);
    client.send(&query(1, "gate.example")).unwrap();
    let begun = crate::clock::now();
    while server.fake.gate.lock().unwrap().is_some() {
        assert!(begun.elapsed() < PATIENCE, "the worker got no query");
        std::thread::yield_now();
    }
    // While the worker is held up in its turn, the stop comes and then the query: only the last reading meets it.
    server.workers.stop_accepting();
    client.send(&query(2, "boom.example")).unwrap();
    open.send(()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        tokio::time::timeout(PATIENCE, server.workers.finished_reading()).await.expect("the end of reading");
    });
    server.stop();
}

#[test]
fn wildcard_sockets_answer_from_the_address_that_was_asked() {
    let server = Server::start(2, "0.0.0.0:0", Limits::default());
    for asked in ["127.0.0.1", "127.0.0.2", "127.1.2.3"] {
        // The client is connected: the kernel drops what comes from elsewhere.
        let client = udp_to(SocketAddr::new(asked.parse().unwrap(), server.address.port()));
        for name in ["hit.example", "late.example"] {
            client.send(&query(1, name)).unwrap();
            assert_eq!(id(&receive(&client)), 1);
        }
    }
    server.stop();
    let server = Server::start(1, "[::]:0", Limits::default());
    let client = udp_to(SocketAddr::new("::1".parse().unwrap(), server.address.port()));
    for name in ["hit.example", "late.example"] {
        client.send(&query(2, name)).unwrap();
        assert_eq!(id(&receive(&client)), 2);
    }
    server.stop();
}

#[test]
fn two_sockets_of_a_worker_are_polled_by_its_thread_and_others_are_tasks() {
    let server = Server::usual();
    let as_tasks = |hosts: &[u8]| {
        let wanted = hosts.iter().map(|host| written(SocketAddr::from(([127, 0, 0, *host], 0))));
        let bound = server.workers.listen(&wanted.collect::<Vec<_>>()).unwrap().bound;
        server.fake.tasks.lock().unwrap().clear();
        for (address, number) in bound.iter().zip(0..) {
            let client = udp_to(*address);
            client.send(&query(number, "hit.example")).unwrap();
            assert_eq!(id(&receive(&client)), number);
        }
        server.fake.tasks.lock().unwrap().clone()
    };
    assert_eq!(as_tasks(&[1, 2, 3]), [false, false, true]);
    // What begins takes the place of what ends.
    assert_eq!(as_tasks(&[1, 4, 3]), [false, false, true]);
    assert_eq!(as_tasks(&[5, 6, 7]), [false, false, true]);
    server.stop();
}
