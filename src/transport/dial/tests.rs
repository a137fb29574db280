//! Addresses, options of sockets, and what a dial that fails says.

use super::super::rehearsal::{Phonebook, surroundings};
use super::*;
use crate::config::settings::Limits;
use std::sync::atomic::Ordering;
use tokio::net::TcpListener;

#[test]
fn families_take_turns_and_the_operators_first_address_stays_first() {
    let cases =
        [("a b", "a b"), ("a b ::1 ::2 ::3", "a ::1 b ::2 ::3"), ("::1 ::2 a", "::1 a ::2"), ("", "")];
    let read = |text: &str| -> Vec<IpAddr> {
        let words =
            text.split_whitespace().map(|word| word.replace('a', "192.0.2.1").replace('b', "192.0.2.2"));
        words.map(|word| word.parse().unwrap()).collect()
    };
    for (written, expected) in cases {
        assert_eq!(in_turn(&read(written)), read(expected), "{written}");
    }
}

fn deadline() -> Instant {
    clock::now() + Duration::from_secs(5)
}

/// The kernel gives a dead path up too, whoever waits for it or not.
#[tokio::test]
async fn the_kernel_watches_over_each_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let stream = open(listener.local_addr().unwrap(), deadline()).await.unwrap();
    let socket = SockRef::from(&stream);
    assert!(socket.keepalive().unwrap() && stream.nodelay().unwrap());
    assert_eq!(socket.tcp_keepalive_time().unwrap(), KEEPALIVE);
    #[cfg(any(target_os = "linux", target_os = "android"))]
    assert_eq!(socket.tcp_user_timeout().unwrap(), Some(USER_TIMEOUT));
}

#[tokio::test]
async fn the_address_that_worked_is_tried_first_the_next_time() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (dial, addresses) = of_addresses(port, [9, 1]);
    let dialled = dial.dial(deadline()).await.unwrap();
    assert_eq!(dialled.address.ip(), addresses[1]);
    assert!(dialled.stream.nodelay().unwrap());
    assert_eq!(order(&dial), [addresses[1], addresses[0]]);
    // On another network the operator's order holds, and at home again what worked there.
    for (network, first) in [(7, 0), (0, 1)] {
        dial.network.is(NetworkId(network));
        dial.forget_network();
        assert_eq!(order(&dial)[0], addresses[first]);
    }
}

#[tokio::test]
async fn a_silent_address_is_tried_last_until_the_network_is_another_one() {
    let (dial, addresses) = of_addresses(853, [8, 9]);
    dial.known().worked.remember(NetworkId(0), addresses[0], clock::now());
    dial.silent(addresses[0]);
    assert_eq!(order(&dial), [addresses[1], addresses[0]]);
    dial.silent(addresses[1]);
    assert_eq!(order(&dial), addresses, "of two silent ones the one whose silence is older");
    dial.silent(addresses[0]);
    dial.forget_network();
    assert_eq!(order(&dial), addresses);
    (0..200).for_each(|n| dial.silent([10, 0, 0, n].into()));
    assert_eq!(dial.known().avoided.len(), MOST_AVOIDED);
}

#[test]
fn ipv4_is_translated_only_where_it_leads_nowhere_and_ipv6_does() {
    let read =
        |text: &str| -> Vec<IpAddr> { text.split_whitespace().map(|word| word.parse().unwrap()).collect() };
    let prefix = nat64::prefixes(&["2001:db8::c000:aa".parse().unwrap()]);
    let (both, v4_only, v6_only, none) = ((true, true), (true, false), (false, true), (false, false));
    let cases: [(_, Option<&[Prefix]>, _, _); 6] = [
        (both, None, "192.0.2.1 2001:db8:1::1", ""),
        (v4_only, None, "192.0.2.1 2001:db8:1::1", ""),
        (none, None, "192.0.2.1 2001:db8:1::1", ""),
        (v6_only, None, "2001:db8:1::1 64:ff9b::192.0.2.1", "192.0.2.1"),
        (v6_only, Some(&[]), "2001:db8:1::1 64:ff9b::192.0.2.1", ""),
        (v6_only, Some(&prefix), "2001:db8:1::1 2001:db8::192.0.2.1 64:ff9b::192.0.2.1", ""),
    ];
    for ((v4, v6), prefixes, expected, unlearnt) in cases {
        let has_route = |address: IpAddr| if address.is_ipv4() { v4 } else { v6 };
        let (targets, to_learn) = translate(&read("192.0.2.1 2001:db8:1::1"), prefixes, has_route);
        let to_learn: Vec<IpAddr> = to_learn.into_iter().map(IpAddr::from).collect();
        assert_eq!((targets, to_learn), (read(expected), read(unlearnt)), "{v4} {v6}");
    }
    // Of this machine and link: nothing to translate.
    assert_eq!(translate(&read("127.0.0.1"), None, |address| address.is_ipv6()).0, read("127.0.0.1"));
}

#[tokio::test]
async fn behind_the_well_known_prefix_somebody_else_answers_and_a_learnt_one_is_tried() {
    let around = surroundings(Limits::default());
    let dial = TcpDial::new(&Host::Address([192, 0, 2, 1].into()), 853, &[], &around);
    let somebody = Prefix::WELL_KNOWN.translate([192, 0, 2, 1].into()).unwrap();
    dial.refuted(somebody.into());
    assert!(dial.known().avoided.contains(&somebody.into()));
    let tried = [SocketAddr::new(somebody.into(), 853)];
    let unlearnt = || vec![[192, 0, 2, 1].into()];
    assert!(dial.learn(unlearnt(), &tried, deadline()).await.is_empty());
    assert_eq!(dial.learn(unlearnt(), &[], deadline()).await, tried);
    assert!(dial.learn(Vec::new(), &[], deadline()).await.is_empty());
}

#[test]
fn this_machine_reaches_itself() {
    assert!(has_route([127, 0, 0, 1].into()));
}

/// In which order the addresses are tried now.
fn order(dial: &TcpDial) -> Vec<IpAddr> {
    dial.plan(&dial.written, dial.network.id()).0
}

/// A dial with two written addresses of this machine, which end in these octets.
fn of_addresses(port: u16, last: [u8; 2]) -> (TcpDial, [IpAddr; 2]) {
    let addresses = last.map(|last| IpAddr::from([127, 0, 0, last]));
    let host = Host::Name("dns.example".to_owned());
    (TcpDial::new(&host, port, &addresses, &surroundings(Limits::default())), addresses)
}

/// A dial by name, and the phone book in which the name is loopback.
fn looked_up(port: u16) -> (TcpDial, Arc<Phonebook>) {
    let mut book = Phonebook::default();
    book.entries.insert("dns.example".to_owned(), vec![[127, 0, 0, 1].into()]);
    let book = Arc::new(book);
    let around = Surroundings { lookup: Arc::clone(&book) as _, ..surroundings(Limits::default()) };
    let dial = TcpDial::new(&Host::Name("dns.example".to_owned()), port, &[], &around);
    (dial, book)
}

#[tokio::test]
async fn a_name_is_looked_up_once_and_again_when_its_addresses_fail() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (dial, book) = looked_up(port);
    dial.dial(deadline()).await.unwrap();
    dial.dial(deadline()).await.unwrap();
    assert_eq!(book.asked.load(Ordering::Relaxed), 1);
    drop(listener);
    assert!(matches!(dial.dial(deadline()).await, Err(TransportError::Connect { .. })));
    assert!(dial.dial(deadline()).await.is_err());
    assert_eq!(book.asked.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn an_address_that_connects_but_is_not_the_server_gives_way_to_the_others() {
    let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (dial, addresses) = of_addresses(port, [8, 9]);
    for round in [0, 1, 0, 1] {
        let dialled = dial.dial(deadline()).await.unwrap();
        assert_eq!(dialled.address.ip(), addresses[round]);
        dial.refuted(dialled.address.ip());
    }
}

#[tokio::test]
async fn learnt_addresses_where_others_answer_are_looked_up_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (dial, book) = looked_up(port);
    let dialled = dial.dial(deadline()).await.unwrap();
    dial.refuted(dialled.address.ip());
    dial.dial(deadline()).await.unwrap();
    assert_eq!(book.asked.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn a_name_nobody_knows_is_no_address() {
    let around = surroundings(Limits::default());
    let dial = TcpDial::new(&Host::Name("gone.example".to_owned()), 853, &[], &around);
    assert!(
        matches!(dial.dial(deadline()).await, Err(TransportError::NoAddress { host }) if host == "gone.example")
    );
}
