//! Who may ask.

use super::*;

#[test]
fn client_outside_the_list_is_refused_with_the_reason_until_the_list_changes() {
    let server = Server::usual();
    server.access.store(Arc::new(AccessList::new(&["192.0.2.0/24".parse().unwrap()])));
    let client = server.udp();
    client.send(&query_edns(1, "hit.example")).unwrap();
    let reply = receive(&client);
    assert_eq!((id(&reply), rcode(&reply)), (1, 5));
    // OPTION-CODE 15 (EDE), INFO-CODE 18 (Prohibited), RFC 8914 §4.19.
    assert!(reply.windows(6).any(|octets| octets[..2] == [0, 15] && octets[4..] == [0, 18]), "{reply:?}");
    let mut stream = server.tcp();
    write_message(&mut stream, &query(2, "held.example"));
    assert_eq!(rcode(&read_message(&mut stream)), 5);
    assert_eq!(server.fake.held(), 0);

    server.access.store(Arc::new(AccessList::new(&["127.0.0.0/8".parse().unwrap()])));
    client.send(&query(3, "hit.example")).unwrap();
    assert_eq!(rcode(&receive(&client)), 0);
    write_message(&mut stream, &query(4, "hit.example"));
    assert_eq!(rcode(&read_message(&mut stream)), 0);
    server.stop();
}
