//! Answers of servers and their failures, on their way to clients and into the cache.

use super::*;

#[test]
fn an_answer_is_kept_and_its_ttl_counts_down() {
    let server = answering(300);
    let mut rig = Rig::new(&[("a", &server)]);
    rig.ask("www.example");
    assert_eq!(rig.heard(), [good(Source::Upstream, 300)]);
    rig.pass(Duration::from_secs(100));
    rig.ask("WWW.example");
    assert_eq!(rig.heard(), [good(Source::Cache, 200)]);
    assert_eq!(server.queries().len(), 1);
}

#[test]
fn identical_questions_share_one_exchange() {
    let server = fake::silent();
    let mut rig = Rig::new(&[("a", &server)]);
    for _ in 0..50 {
        rig.ask("www.example");
    }
    assert_eq!(server.queries().len(), 1);
    rig.pass(Duration::from_secs(5));
    assert_eq!(rig.heard().len(), 50);
    assert_eq!(rig.resolver.permits().in_use(), 0);
}

#[test]
fn a_server_that_fails_is_followed_by_the_next_at_once() {
    let (bad, spare) = (fake::closing(), answering(60));
    let mut rig = Rig::new(&[("bad", &bad), ("spare", &spare)]);
    rig.ask("www.example");
    assert_eq!(rig.heard(), [good(Source::Upstream, 60)]);
}

#[test]
fn a_silent_server_is_followed_by_the_next_after_its_patience() {
    let (silent, spare) = (fake::silent(), answering(60));
    let mut rig = Rig::new(&[("silent", &silent), ("spare", &spare)]);
    rig.ask("www.example");
    rig.pass(Duration::from_millis(900));
    assert!(rig.heard().is_empty());
    rig.pass(Duration::from_millis(200));
    assert_eq!(rig.heard(), [good(Source::Upstream, 60)]);
}

#[test]
fn nobody_waits_longer_than_the_query_timeout() {
    let (one, two) = (fake::silent(), fake::silent());
    let mut rig = Rig::new(&[("one", &one), ("two", &two)]);
    rig.ask("www.example");
    rig.pass(Duration::from_millis(3_950));
    assert!(rig.heard().is_empty());
    rig.pass(Duration::from_millis(100));
    assert_eq!(rig.heard(), [failed(EdeCode::NETWORK_ERROR)]);
    assert_eq!((one.queries().len(), two.queries().len()), (1, 1));
}

#[test]
fn a_failure_is_remembered_for_a_while_and_says_so() {
    let server = fake::closing();
    let mut rig = Rig::new(&[("a", &server)]);
    rig.ask("www.example");
    assert_eq!(rig.heard(), [failed(EdeCode::NETWORK_ERROR)]);
    rig.ask("www.example");
    assert_eq!(rig.heard(), [failed(EdeCode::CACHED_ERROR)]);
    assert_eq!(server.queries().len(), 1);
    rig.pass(Duration::from_secs(6));
    rig.ask("www.example");
    assert_eq!(server.queries().len(), 2);
}

#[test]
fn an_answer_to_another_question_reaches_nobody() {
    let (liar, spare) =
        (Fake::new(|_| Some(Ok(fake::reply(&query("evil.example"), 0, &[address(60)])))), answering(60));
    let mut rig = Rig::new(&[("liar", &liar), ("spare", &spare)]);
    rig.ask("www.example");
    assert_eq!(rig.heard(), [good(Source::Upstream, 60)]);
    let mut alone = Rig::new(&[("liar", &liar)]);
    alone.ask("www.example");
    assert_eq!(alone.heard(), [failed(EdeCode::NETWORK_ERROR)]);
    alone.ask("evil.example");
    assert_eq!(alone.heard(), [good(Source::Upstream, 60)]);
}

#[test]
fn servfail_is_asked_elsewhere_once_and_then_passed_on() {
    let (first, second, third) = (with_rcode(2), with_rcode(5), answering(60));
    let mut rig = Rig::new(&[("first", &first), ("second", &second), ("third", &third)]);
    rig.ask("www.example");
    let heard = rig.heard();
    assert_eq!(heard[0].rcode, Rcode::SERVFAIL);
    assert_eq!((second.queries().len(), third.queries().len()), (1, 0));
    let mut better = Rig::new(&[("first", &with_rcode(2)), ("third", &answering(60))]);
    better.ask("www.example");
    assert_eq!(better.heard(), [good(Source::Upstream, 60)]);
}

#[test]
fn nobody_waits_for_a_late_server_when_there_is_an_answer_to_pass_on() {
    let (silent, failing) = (fake::silent(), with_rcode(2));
    let mut rig = Rig::new(&[("silent", &silent), ("failing", &failing)]);
    rig.ask("www.example");
    rig.pass(Duration::from_millis(1_100));
    let heard = rig.heard();
    assert_eq!((heard.len(), heard[0].source, heard[0].rcode), (1, Source::Upstream, Rcode::SERVFAIL));
}

#[test]
fn a_slow_name_does_not_take_a_server_down_that_answers_others() {
    let server = Fake::new(|query| {
        let slow = query.windows(4).any(|octets| octets == b"slow");
        (!slow).then(|| Ok(fake::reply(query, 0, &[address(0)])))
    });
    let mut rig = Rig::new(&[("a", &server)]);
    for round in 0..8 {
        rig.ask(&format!("{round}.slow.example"));
        rig.pass(Duration::from_millis(300));
        rig.ask("prompt.example");
        rig.pass(Duration::from_millis(1_500));
    }
    assert!(rig.resolver.snapshot().groups().all(|group| group.any_up()));
}

#[test]
fn a_verdict_of_dnssec_is_remembered_with_its_own_reason() {
    let bogus = Fake::new(|query| {
        let mut reply = fake::reply(query, 2, &[]).to_vec();
        // OPT with an EDE option: DNSSEC Bogus.
        reply.extend(b"\x00\x00\x29\x04\xd0\x00\x00\x00\x00\x00\x06\x00\x0f\x00\x02\x00\x06");
        reply[11] = 1;
        Some(Ok(reply.into()))
    });
    let mut rig = Rig::new(&[("a", &bogus)]);
    for _ in 0..2 {
        rig.ask("bogus.example");
        let heard = rig.heard();
        assert_eq!((heard[0].rcode, heard[0].ede), (Rcode::SERVFAIL, Some(EdeCode(6))));
    }
    assert_eq!(bogus.queries().len(), 1);
}

#[test]
fn a_server_that_is_never_connected_to_counts_as_unreachable() {
    let server = fake::silent();
    server.has_connections(0);
    let mut rig = Rig::new(&[("a", &server)]);
    rig.ask("www.example");
    rig.pass(Duration::from_secs(5));
    assert_eq!(rig.heard(), [failed(EdeCode::NO_REACHABLE_AUTHORITY)]);
}

#[test]
fn nxdomain_is_an_answer() {
    let (first, second) = (with_rcode(3), answering(60));
    let mut rig = Rig::new(&[("first", &first), ("second", &second)]);
    rig.ask("nx.example");
    assert_eq!(rig.heard()[0].rcode, Rcode::NXDOMAIN);
    assert!(second.queries().is_empty());
}

#[test]
fn a_late_answer_of_the_first_server_is_still_welcome() {
    let (slow, silent) = (fake::silent(), fake::silent());
    let mut rig = Rig::new(&[("slow", &slow), ("silent", &silent)]);
    rig.ask("www.example");
    rig.pass(Duration::from_millis(1_500));
    assert_eq!(silent.queries().len(), 1);
    let late = fake::reply(&slow.queries()[0], 0, &[address(60)]);
    slow.answer_kept(late);
    rig.settle();
    assert_eq!(rig.heard(), [good(Source::Upstream, 60)]);
}

#[test]
fn a_private_address_of_a_public_name_reaches_nobody() {
    let server = Fake::new(|query| Some(Ok(fake::reply(query, 0, &[(1, 60, vec![192, 168, 1, 1])]))));
    let mut rig = Rig::new(&[("a", &server)]);
    for _ in 0..2 {
        rig.ask("rebind.example");
        let heard = rig.heard();
        assert_eq!((heard[0].source, heard[0].rcode), (Source::Blocked, Rcode::REFUSED));
        assert_eq!(heard[0].ede, Some(EdeCode::BLOCKED));
    }
    assert_eq!(server.queries().len(), 1);
}

#[test]
fn a_query_time_shorter_than_an_attempt_s_still_says_who_was_silent() {
    let server = fake::silent();
    let mut rig = Rig::with(&[("a", &server)], "[timeouts]\nquery = \"500ms\"");
    rig.ask("www.example");
    rig.pass(Duration::from_millis(600));
    assert_eq!(rig.heard(), [failed(EdeCode::NETWORK_ERROR)]);
    rig.ask("www.example");
    assert_eq!(rig.heard(), [failed(EdeCode::CACHED_ERROR)]);
}

/// The reply to `query` with one address and an OPT record that names an ECS scope.
fn with_scope(query: &[u8], scope: u8) -> Bytes {
    let mut message = fake::reply(query, 0, &[address(60)]).to_vec();
    message[11] = 1;
    message.extend_from_slice(&[0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 11, 0, 8, 0, 7, 0, 1, 24, scope, 192, 0, 2]);
    message.into()
}

#[test]
fn answers_for_the_operator_s_own_network_are_kept() {
    let server = Fake::new(|query| Some(Ok(with_scope(query, 24))));
    let mut rig = Rig::with(&[("a", &server)], "[privacy]\nclient_subnet = \"192.0.2.0/24\"");
    rig.ask("www.example");
    rig.ask("www.example");
    assert_eq!(rig.heard(), [good(Source::Upstream, 60), good(Source::Cache, 60)]);
}

#[test]
fn an_answer_about_another_network_than_ours_reaches_nobody() {
    let (stray, spare) = (Fake::new(|query| Some(Ok(with_scope(query, 24)))), answering(50));
    let servers = [("stray", &stray), ("spare", &spare)];
    let mut rig = Rig::with(&servers, "[privacy]\nclient_subnet = \"198.51.100.0/24\"");
    rig.ask("www.example");
    assert_eq!(rig.heard(), [good(Source::Upstream, 50)]);
}

#[test]
fn an_answer_for_a_network_that_we_did_not_name_is_not_kept() {
    let server = Fake::new(|query| Some(Ok(with_scope(query, 24))));
    let mut rig = Rig::new(&[("a", &server)]);
    rig.ask("www.example");
    rig.ask("www.example");
    assert_eq!(rig.heard(), [good(Source::Upstream, 60), good(Source::Upstream, 60)]);
}

#[test]
fn another_network_of_the_operator_s_gets_other_answers() {
    let partition = |network: &str| {
        let settings = settings(&format!("[privacy]\nclient_subnet = \"{network}\""));
        let upstream = fake::upstream("a", fake::silent()).0;
        let group = Arc::new(fake::group(vec![upstream], StrategyKind::Failover));
        Snapshot::new(&settings, vec![group]).groups[0].partition
    };
    assert_eq!(partition("192.0.2.0/24"), partition("192.0.2.0/24"));
    assert_ne!(partition("192.0.2.0/24"), partition("198.51.100.0/24"));
    assert_ne!(partition("192.0.2.0/24"), partition("strip"));
}
