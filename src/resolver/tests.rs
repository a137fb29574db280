//! The pipeline from `answer_now` to the reply, with scripted servers and time passed in: no socket, no task, no sleep.

use super::flights::Flights;
use super::inbox::Work;
use super::snapshot::Snapshot;
use super::waiter::{ClientToken, ReplyBatch, ReplyNote, ReplySink, Waiter};
use super::{Resolver, Step};
use crate::cache::Cache;
use crate::config::from_text;
use crate::config::settings::{Settings, StrategyKind};
use crate::telemetry::counters::Telemetry;
use crate::telemetry::outcome::Source;
use crate::transport::TransportError;
use crate::upstream::fake::{self, Fake, Record};
use crate::upstream::group::Group;
use crate::upstream::{Sample, Upstream};
use crate::wire::ede::EdeCode;
use crate::wire::header::Rcode;
use crate::wire::name::Name;
use crate::wire::query::{ClientTransport, QueryRef, SubnetOption, UpstreamQuery};
use crate::wire::question::{Class, QuestionRef, RecordType};
use crate::wire::response::{ResponseRef, Section};
use bytes::Bytes;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::task::Waker;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// A sink that keeps what it is given.
#[derive(Debug, Default)]
struct Kept(Mutex<Vec<(ReplyNote, Vec<u8>)>>);

impl ReplySink for Kept {
    fn send(&self, batch: &ReplyBatch) {
        self.0.lock().unwrap().extend(batch.notes().map(|(note, message)| (note, message.to_vec())));
    }
}

/// What a test says of one reply.
#[derive(Debug, PartialEq, Eq)]
struct Heard {
    source: Source,
    rcode: Rcode,
    ede: Option<EdeCode>,
    ttls: Vec<u32>,
}

/// A resolver with scripted servers, and a clock that the test moves.
struct Rig {
    resolver: Arc<Resolver>,
    flights: Flights,
    sink: Arc<Kept>,
    now: Instant,
}

impl Rig {
    fn new(servers: &[(&str, &Fake)]) -> Self {
        Self::with(servers, "")
    }

    /// Makes a rig with more configuration.
    fn with(servers: &[(&str, &Fake)], config: &str) -> Self {
        let now = crate::clock::now();
        let settings = settings(config);
        let upstreams = servers.iter().map(|(name, fake)| fake::upstream(name, (*fake).clone()).0).collect();
        let group: Group = fake::group_within(upstreams, StrategyKind::Failover, &settings.limits);
        let snapshot = Snapshot::new(&settings, vec![Arc::new(group)]);
        let cache = Arc::new(Cache::new(&settings.cache, now));
        let resolver = Resolver::new(snapshot, cache, Telemetry::new());
        let flights = Flights::new(&resolver, 0, Arc::clone(&resolver.inboxes[0]), now);
        Self { resolver, flights, sink: Arc::default(), now }
    }

    /// Asks as a client would; what memory answers is heard at once.
    fn ask(&mut self, name: &str) {
        let octets = query(name);
        let parsed = QueryRef::parse(&octets).unwrap();
        let mut out = vec![0; 1232];
        let (step, outcome) = self.resolver.answer_now(&parsed, ClientTransport::Udp, self.now, &mut out);
        match step {
            Step::Reply(written) => {
                let note = ReplyNote { source: outcome.source, upstream: None };
                self.sink.0.lock().unwrap().push((note, out[..written].to_vec()));
            }
            Step::Drop => {}
            Step::Wait(pending) => self.resolver.enqueue(&mut vec![(pending, self.waiter(&octets))]),
        }
        self.settle();
    }

    /// Makes the record of a client that waits for the reply to this query.
    fn waiter(&self, query: &[u8]) -> Waiter {
        Waiter {
            sink: self.sink.clone(),
            client: ClientToken { peer: SocketAddr::from(([192, 0, 2, 1], 5353)), local: None, interface: 0 },
            transport: ClientTransport::Udp,
            query: query.into(),
            received: self.now,
        }
    }

    /// Lets the driver do all there is to do now.
    fn settle(&mut self) {
        let mut work = Work::default();
        loop {
            let more = self.resolver.inboxes[0].take(&mut work, Waker::noop());
            self.flights.turn(&mut work, self.now);
            self.flights.hand_over_traces(|| self.now);
            if !more {
                return;
            }
        }
    }

    /// Moves time on, in the driver's own steps.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now = self.flights.next_at().map_or(end, |at| at.max(self.now)).min(end);
            self.settle();
            if self.flights.next_at().is_some_and(|at| at <= self.now) {
                self.now += Duration::from_millis(1);
            }
        }
        self.now = end;
        self.settle();
    }

    /// Returns what was heard since the last call.
    fn heard(&self) -> Vec<Heard> {
        let replies = std::mem::take(&mut *self.sink.0.lock().unwrap());
        replies
            .iter()
            .map(|(note, message)| {
                let response = ResponseRef::parse(message).unwrap();
                Heard {
                    source: note.source,
                    rcode: response.rcode(),
                    ede: response.ede().map(|(code, _)| code),
                    ttls: response.records(Section::Answer).map(|record| record.ttl.0).collect(),
                }
            })
            .collect()
    }
}

fn settings(config: &str) -> Settings {
    let text = format!("upstreams = [\"tls://192.0.2.1\"]\n{config}");
    from_text(&text, Path::new(".")).unwrap()
}

fn query(name: &str) -> Bytes {
    let name: Name = name.parse().unwrap();
    let question = QuestionRef { name: name.view(), rtype: RecordType::A, class: Class::IN };
    let subnet = SubnetOption::Absent;
    UpstreamQuery { question, dnssec_ok: false, checking_disabled: false, subnet, padding: false }.build()
}

/// An address record.
fn address(ttl: u32) -> Record {
    (RecordType::A.0, ttl, vec![198, 51, 100, 7])
}

fn answering(ttl: u32) -> Fake {
    Fake::new(move |query| Some(Ok(fake::reply(query, 0, &[address(ttl)]))))
}

fn with_rcode(rcode: u8) -> Fake {
    Fake::new(move |query| Some(Ok(fake::reply(query, rcode, &[]))))
}

fn good(source: Source, ttl: u32) -> Heard {
    Heard { source, rcode: Rcode::NOERROR, ede: None, ttls: vec![ttl] }
}

fn failed(code: EdeCode) -> Heard {
    Heard { source: Source::Failed, rcode: Rcode::SERVFAIL, ede: Some(code), ttls: vec![] }
}

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
fn a_stale_answer_comes_after_1800_ms_and_the_flight_goes_on() {
    let server = answering(60);
    let mut rig = Rig::new(&[("a", &server)]);
    rig.ask("www.example");
    rig.heard();
    server.now_does(|_| None);
    rig.pass(Duration::from_secs(61));
    rig.ask("www.example");
    rig.pass(Duration::from_millis(1_790));
    assert!(rig.heard().is_empty());
    rig.pass(Duration::from_millis(50));
    let stale = || Heard {
        source: Source::Stale,
        rcode: Rcode::NOERROR,
        ede: Some(EdeCode::STALE_ANSWER),
        ttls: vec![30],
    };
    assert_eq!(rig.heard(), [stale()]);
    // A client that comes while the flight goes on does not wait again.
    rig.ask("www.example");
    assert_eq!(rig.heard(), [stale()]);
    assert_eq!(server.queries().len(), 2);
}

#[test]
fn a_stale_answer_comes_at_once_when_every_server_fails() {
    let server = answering(60);
    let mut rig = Rig::new(&[("a", &server)]);
    rig.ask("www.example");
    rig.heard();
    server.now_does(|_| Some(Err(TransportError::Closed)));
    rig.pass(Duration::from_secs(61));
    rig.ask("www.example");
    let heard = rig.heard();
    assert_eq!((heard[0].source, heard[0].ede), (Source::Stale, Some(EdeCode::STALE_ANSWER)));
}

#[test]
fn too_many_waiters_for_one_name_are_told_so() {
    let server = fake::silent();
    let mut rig = Rig::with(&[("a", &server)], "[limits]\nwaiters_per_flight = 2");
    for _ in 0..3 {
        rig.ask("www.example");
    }
    assert_eq!(rig.heard(), [failed(EdeCode::OTHER)]);
}

#[test]
fn queries_beyond_the_places_are_told_so_and_hits_go_on() {
    let server = answering(60);
    let mut rig = Rig::with(&[("a", &server)], "[limits]\nmax_inflight = 2\nmax_inflight_per_client = 2");
    rig.ask("warm.example");
    rig.heard();
    server.now_does(|_| None);
    for name in ["a.example", "b.example", "c.example", "warm.example"] {
        rig.ask(name);
    }
    assert_eq!(rig.heard(), [failed(EdeCode::OTHER), good(Source::Cache, 60)]);
}

#[test]
fn a_popular_name_is_asked_for_again_before_it_expires() {
    let server = answering(100);
    let mut rig = Rig::new(&[("a", &server)]);
    for _ in 0..3 {
        rig.ask("www.example");
    }
    rig.pass(Duration::from_secs(95));
    rig.ask("www.example");
    rig.ask("www.example");
    assert_eq!(server.queries().len(), 2);
    rig.pass(Duration::from_secs(50));
    rig.heard();
    rig.ask("www.example");
    assert_eq!(rig.heard(), [good(Source::Cache, 50)]);
}

#[test]
fn stopping_replies_to_all_who_wait() {
    let server = fake::silent();
    let mut rig = Rig::new(&[("a", &server)]);
    rig.ask("www.example");
    rig.flights.end_all(rig.now);
    assert_eq!(rig.heard(), [failed(EdeCode::NOT_READY)]);
    assert_eq!(rig.resolver.permits().in_use(), 0);
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
fn a_name_whose_refresh_failed_is_not_asked_for_again_at_once() {
    // RFC 8767 §5: without a pause between attempts, each client would wait for the same failure.
    let server = answering(60);
    let mut rig = Rig::new(&[("a", &server)]);
    rig.ask("www.example");
    server.now_does(|_| Some(Err(TransportError::Closed)));
    rig.pass(Duration::from_secs(61));
    rig.ask("www.example");
    rig.heard();
    rig.ask("www.example");
    assert_eq!(rig.heard()[0].source, Source::Stale);
    assert_eq!(server.queries().len(), 2);
    rig.pass(Duration::from_secs(6));
    rig.ask("www.example");
    assert_eq!(server.queries().len(), 3);
}

#[test]
fn a_client_that_joins_a_refresh_still_gets_its_stale_answer() {
    let server = answering(100);
    let mut rig = Rig::new(&[("a", &server)]);
    for _ in 0..3 {
        rig.ask("www.example");
    }
    server.now_does(|_| None);
    rig.pass(Duration::from_millis(98_500));
    rig.ask("www.example");
    assert_eq!(server.queries().len(), 2, "the refresh is under way");
    rig.heard();
    // The entry ends while the refresh waits for a silent server.
    rig.pass(Duration::from_millis(1_600));
    rig.ask("www.example");
    rig.pass(Duration::from_millis(1_850));
    assert_eq!(rig.heard().first().map(|heard| heard.source), Some(Source::Stale));
    assert_eq!(server.queries().len(), 2);
}

#[test]
fn failures_are_forgotten_when_a_server_comes_back() {
    let server = fake::closing();
    let mut rig = Rig::new(&[("a", &server)]);
    for name in ["one.example", "two.example", "three.example", "four.example"] {
        rig.ask(name);
    }
    let upstream = Arc::clone(rig.resolver.snapshot().groups().next().unwrap().upstreams.first().unwrap());
    assert!(!upstream.is_up());
    rig.ask("one.example");
    assert_eq!(rig.heard().pop(), Some(failed(EdeCode::CACHED_ERROR)));
    server.now_does(|query| Some(Ok(fake::reply(query, 0, &[address(60)]))));
    upstream.probed(Sample::Answered { latency: Duration::from_millis(5) }, rig.now);
    assert!(upstream.is_up());
    rig.ask("one.example");
    rig.ask("four.example");
    assert_eq!(rig.heard(), [good(Source::Upstream, 60), good(Source::Upstream, 60)]);
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

#[tokio::test]
async fn what_is_still_in_the_inbox_when_we_stop_gets_its_reply() {
    let server = fake::silent();
    let rig = Rig::new(&[("a", &server)]);
    let octets = query("www.example");
    let (step, _) = rig.resolver.answer_now(
        &QueryRef::parse(&octets).unwrap(),
        ClientTransport::Udp,
        rig.now,
        &mut [0; 512],
    );
    let Step::Wait(pending) = step else { panic!("nothing is cached") };
    rig.resolver.enqueue(&mut vec![(pending, rig.waiter(&octets))]);
    let cancel = CancellationToken::new();
    cancel.cancel();
    Arc::clone(&rig.resolver).drive(0, cancel).await;
    assert_eq!(rig.heard(), [failed(EdeCode::NOT_READY)]);
    assert_eq!(rig.resolver.permits().in_use(), 0);
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

impl Rig {
    /// Returns a server of the group.
    fn server(&self, place: usize) -> Arc<Upstream> {
        Arc::clone(&self.resolver.snapshot().groups().next().unwrap().upstreams[place])
    }

    /// Makes it known that this server takes so long for an answer, and saves up for hedges by asking a hundred names.
    fn warm(&mut self, place: usize, latency: Duration) {
        for number in 0..100 {
            self.ask(&format!("{number}.warm.example"));
        }
        assert!(self.heard().iter().all(|heard| heard.rcode == Rcode::NOERROR));
        self.server(place).start_afresh(self.now);
        for _ in 0..50 {
            self.server(place).observe(Sample::Answered { latency }, self.now);
        }
    }
}

#[test]
fn a_server_slower_than_its_own_habit_is_hedged_by_the_next_and_the_first_answer_wins_once() {
    let (slow, spare) = (answering(60), answering(50));
    let mut rig = Rig::new(&[("slow", &slow), ("spare", &spare)]);
    rig.warm(0, Duration::from_millis(40));
    slow.now_does(|_| None);
    rig.ask("www.example");
    rig.pass(Duration::from_millis(40));
    assert!(rig.heard().is_empty() && spare.queries().is_empty());
    rig.pass(Duration::from_millis(20));
    assert_eq!(rig.heard(), [good(Source::Upstream, 50)]);
    let counters = Arc::clone(rig.server(1).counters());
    assert_eq!((counters.hedges(), counters.hedges_won(), rig.server(0).counters().hedges()), (1, 1, 0));

    // The loser's answer is late, and no failure; it is not what is kept.
    rig.pass(Duration::from_millis(80));
    assert_eq!(rig.server(0).snapshot(rig.now).in_flight, 1);
    slow.answer_kept(fake::reply(&slow.queries()[100], 0, &[address(7)]));
    rig.settle();
    let status = rig.server(0).snapshot(rig.now);
    assert_eq!((status.in_flight, status.last_error), (0, None));
    assert!(status.latency > Some(Duration::from_millis(100)), "{:?}", status.latency);
    rig.pass(Duration::from_secs(5));
    rig.ask("www.example");
    assert_eq!(rig.heard(), [good(Source::Cache, 45)]);
    assert_eq!(rig.server(0).snapshot(rig.now).last_error, None);
}

#[test]
fn a_server_that_never_answers_is_blamed_though_hedges_won() {
    let (dead, spare) = (answering(60), answering(60));
    let mut rig = Rig::new(&[("dead", &dead), ("spare", &spare)]);
    rig.warm(0, Duration::from_millis(20));
    dead.now_does(|_| None);
    for number in 0..3 {
        rig.ask(&format!("{number}.example"));
        rig.pass(Duration::from_millis(1_500));
        assert_eq!(rig.heard(), [good(Source::Upstream, 60)]);
    }
    assert_eq!(rig.server(1).counters().hedges_won(), 3);
    assert!(!rig.server(0).is_up(), "three times in a row it was silent for all of its time");
    rig.pass(Duration::from_secs(10));
    assert!(rig.server(0).snapshot(rig.now).in_flight <= 3);
}

#[test]
fn the_answer_of_the_hedged_server_is_taken_when_it_comes_first() {
    let (slow, silent) = (answering(60), fake::silent());
    let mut rig = Rig::new(&[("slow", &slow), ("silent", &silent)]);
    rig.warm(0, Duration::from_millis(20));
    slow.now_does(|_| None);
    rig.ask("www.example");
    rig.pass(Duration::from_millis(60));
    assert_eq!(silent.queries().len(), 1);
    slow.answer_kept(fake::reply(&slow.queries()[100], 0, &[address(60)]));
    rig.settle();
    assert_eq!(rig.heard(), [good(Source::Upstream, 60)]);
    assert_eq!((rig.server(1).counters().hedges(), rig.server(1).counters().hedges_won()), (1, 0));
}

#[test]
fn a_hedge_that_fails_or_lies_leaves_the_first_server_its_time() {
    let lie: fn(&[u8]) -> Option<Result<Bytes, TransportError>> =
        |_| Some(Ok(fake::reply(&query("evil.example"), 0, &[address(60)])));
    for hedge in [lie, |_| Some(Err(TransportError::Closed)), |query| Some(Ok(fake::reply(query, 2, &[])))] {
        let (slow, bad) = (answering(60), Fake::new(hedge));
        let mut rig = Rig::new(&[("slow", &slow), ("bad", &bad)]);
        rig.warm(0, Duration::from_millis(20));
        slow.now_does(|_| None);
        rig.ask("www.example");
        rig.pass(Duration::from_millis(60));
        assert_eq!((bad.queries().len(), rig.heard().len()), (1, 0));
        slow.answer_kept(fake::reply(&slow.queries()[100], 0, &[address(60)]));
        rig.settle();
        assert_eq!(rig.heard(), [good(Source::Upstream, 60)]);
    }
}

/// Asks a thousand new names, 500 a second, of a server that never answers but stays in use. Returns the hedges and all that
/// the other one was asked.
fn a_thousand_stalled(retry_percent: u32) -> (u64, usize) {
    let (stalled, spare) = (answering(60), answering(60));
    let limits = format!("[limits]\nretry_percent = {retry_percent}");
    let mut rig = Rig::with(&[("stalled", &stalled), ("spare", &spare)], &limits);
    rig.warm(0, Duration::from_millis(20));
    stalled.now_does(|_| None);
    for number in 0..1_000 {
        rig.ask(&format!("{number}.example"));
        rig.pass(Duration::from_millis(2));
        rig.server(0).observe(Sample::Answered { latency: Duration::from_millis(20) }, rig.now);
    }
    rig.pass(Duration::from_secs(5));
    (rig.server(1).counters().hedges(), spare.queries().len())
}

#[test]
fn hedges_stay_within_their_share_of_queries_and_end_with_the_retries() {
    let (hedges, asked) = a_thousand_stalled(100);
    assert!((45..=55).contains(&hedges), "{hedges} of 1,000");
    assert_eq!(asked, 1_000, "the others change over when the server has had its time");
    // A hundred retries in ten seconds are always allowed, and hedges are among them.
    let (hedges, asked) = a_thousand_stalled(0);
    assert!((5..=25).contains(&hedges), "{hedges} of 1,000");
    assert_eq!(asked, 100);
}

#[test]
fn nobody_is_hedged_alone_in_the_background_or_when_it_is_switched_off() {
    let (slow, spare) = (answering(100), answering(60));
    let mut rig = Rig::with(&[("slow", &slow), ("spare", &spare)], "[limits]\nhedge_percent = 0");
    rig.warm(0, Duration::from_millis(20));
    slow.now_does(|_| None);
    rig.ask("www.example");
    rig.pass(Duration::from_millis(200));
    assert!(spare.queries().is_empty(), "switched off");

    let mut rig = Rig::new(&[("slow", &slow), ("spare", &spare)]);
    slow.now_does(|query| Some(Ok(fake::reply(query, 0, &[address(100)]))));
    rig.warm(0, Duration::from_millis(20));
    for _ in 0..3 {
        rig.ask("99.warm.example");
    }
    slow.now_does(|_| None);
    rig.pass(Duration::from_secs(95));
    rig.ask("99.warm.example");
    rig.pass(Duration::from_millis(200));
    assert!(spare.queries().is_empty(), "in the background");

    let mut rig = Rig::new(&[("slow", &slow), ("spare", &spare)]);
    slow.now_does(|query| Some(Ok(fake::reply(query, 0, &[address(100)]))));
    rig.warm(0, Duration::from_millis(20));
    slow.now_does(|_| None);
    rig.server(1).observe(Sample::Busy { retry_after: None }, rig.now);
    rig.ask("www.example");
    rig.pass(Duration::from_millis(200));
    assert!(spare.queries().is_empty(), "nobody else is up");
}

#[test]
fn a_stale_answer_comes_in_its_time_whoever_is_hedged() {
    let (slow, silent) = (answering(60), fake::silent());
    let mut rig = Rig::new(&[("slow", &slow), ("silent", &silent)]);
    rig.warm(0, Duration::from_millis(20));
    slow.now_does(|_| None);
    rig.pass(Duration::from_secs(61));
    rig.ask("5.warm.example");
    rig.pass(Duration::from_millis(1_790));
    assert!(rig.heard().is_empty());
    assert_eq!(silent.queries().len(), 1);
    rig.pass(Duration::from_millis(50));
    assert_eq!(rig.heard()[0].source, Source::Stale);
}

#[test]
fn queries_on_a_silent_connection_go_to_the_next_server_at_once_and_the_server_is_not_blamed() {
    let (stalled, spare) = (answering(60), answering(50));
    let mut rig = Rig::with(&[("stalled", &stalled), ("spare", &spare)], "[limits]\nhedge_percent = 0");
    rig.warm(0, Duration::from_millis(40));
    stalled.now_does(|_| None);
    for number in 0..20 {
        rig.ask(&format!("{number}.example"));
    }
    rig.pass(Duration::from_millis(225));
    assert!(rig.heard().is_empty());
    stalled.doubt_kept();
    rig.settle();
    assert_eq!(rig.heard().len(), 20);
    assert_eq!(spare.queries().len(), 20);
    assert_eq!(rig.server(0).counters().repetitions(), 20);
    rig.pass(Duration::from_millis(100));
    for query in stalled.queries().drain(100..) {
        stalled.answer_kept(fake::reply(&query, 0, &[address(60)]));
    }
    rig.pass(Duration::from_secs(3));
    let status = rig.server(0).snapshot(rig.now);
    assert_eq!((status.in_flight, status.last_error, rig.server(0).is_up()), (0, None, true));
}

#[test]
fn a_server_that_is_silent_on_a_fresh_connection_too_is_blamed_when_its_time_is_up_again() {
    let stalled = answering(60);
    let mut rig = Rig::new(&[("stalled", &stalled)]);
    rig.warm(0, Duration::from_millis(40));
    stalled.now_does(|_| None);
    rig.ask("www.example");
    rig.pass(Duration::from_millis(225));
    stalled.doubt_kept();
    rig.settle();
    rig.pass(Duration::from_millis(230));
    assert_eq!(rig.server(0).snapshot(rig.now).last_error, None);
    rig.pass(Duration::from_millis(40));
    assert!(rig.server(0).snapshot(rig.now).last_error.is_some());
    assert!(rig.heard().is_empty(), "it may still answer");
    stalled.answer_kept(fake::reply(&stalled.queries()[100], 0, &[address(60)]));
    rig.settle();
    assert_eq!(rig.heard(), [good(Source::Upstream, 60)]);
}

#[test]
fn an_answer_without_a_result_does_not_end_a_query_that_is_asked_again() {
    let (stalled, refusing) = (answering(60), with_rcode(5));
    let mut rig = Rig::with(&[("stalled", &stalled), ("refusing", &refusing)], "[limits]\nhedge_percent = 0");
    rig.warm(0, Duration::from_millis(40));
    stalled.now_does(|_| None);
    rig.ask("www.example");
    stalled.doubt_kept();
    rig.settle();
    assert!(rig.heard().is_empty());
    stalled.answer_kept(fake::reply(&stalled.queries()[100], 0, &[address(60)]));
    rig.settle();
    assert_eq!(rig.heard(), [good(Source::Upstream, 60)]);
}

#[test]
fn what_is_asked_again_counts_as_retries() {
    let (stalled, spare) = (answering(60), fake::silent());
    let mut rig = Rig::with(&[("stalled", &stalled), ("spare", &spare)], "[limits]\nhedge_percent = 0");
    rig.warm(0, Duration::from_millis(40));
    stalled.now_does(|_| None);
    for number in 0..200 {
        rig.ask(&format!("{number}.example"));
    }
    stalled.doubt_kept();
    rig.settle();
    // Each took one retry for the next server and one for the fresh connection.
    assert_eq!(spare.queries().len(), 50);
}

/// What flights leave for their traces.
#[cfg(feature = "otel")]
mod traces {
    use super::*;
    use crate::config::otel::TraceSettings;
    use crate::telemetry::traces::Intake;
    use crate::telemetry::traces::facts::{AttemptReason, AttemptResult, EndedFlight, Kept};

    /// Switches traces on.
    fn traced(rig: &Rig, keys: &str) -> Intake {
        let settings: TraceSettings = settings(&format!("[otel]\ntraces = true\n{keys}")).traces.unwrap();
        rig.resolver.telemetry.traces().open(&settings, 64)
    }

    /// Returns why each server was asked and what that brought.
    fn attempts(flight: &EndedFlight) -> Vec<(&str, AttemptReason, Option<AttemptResult>)> {
        let attempts = flight.facts.attempts.iter();
        let told = attempts
            .map(|attempt| (attempt.server.name.as_str(), attempt.reason, attempt.end.map(|end| end.result)));
        told.collect()
    }

    #[test]
    fn a_flight_leaves_each_attempt_and_each_reply_with_their_times() {
        let (silent, spare) = (fake::silent(), answering(60));
        let mut rig = Rig::new(&[("silent", &silent), ("spare", &spare)]);
        let mut intake = traced(&rig, "");
        let begun = rig.now;
        rig.ask("www.example");
        rig.pass(Duration::from_millis(400));
        rig.ask("www.example");
        assert!(intake.next_now().is_none(), "nothing is told before the end");
        rig.pass(Duration::from_secs(1));
        let flight = intake.next_now().unwrap();
        let ok = AttemptResult::Answered(Rcode::NOERROR);
        assert_eq!(
            attempts(&flight),
            [("silent", AttemptReason::First, None), ("spare", AttemptReason::Unanswered, Some(ok))]
        );
        assert_eq!(flight.started, begun);
        let asked_at = flight.facts.attempts[1].asked_at;
        assert!(begun + Duration::from_secs(1) <= asked_at && asked_at <= flight.ended);
        let queries = &flight.facts.queries;
        assert_eq!(
            queries.iter().map(|query| query.received).collect::<Vec<_>>(),
            [begun, begun + Duration::from_millis(400)]
        );
        assert!(queries.iter().all(|query| query.outcome.source == Source::Upstream));
        assert_eq!((flight.facts.kept, flight.is_refresh), (Kept::Answer, false));
        assert_eq!(
            (flight.name, flight.record_type, flight.group.as_str()),
            (None, RecordType::A, "default")
        );
        rig.ask("www.example");
        assert!(intake.next_now().is_none(), "what memory answers leaves no trace");
    }

    #[test]
    fn a_flight_whose_every_server_fails_leaves_the_reasons() {
        let lie = Fake::new(|query| {
            let mut message = fake::reply(query, 0, &[]).to_vec();
            message[13] ^= 0x01;
            Some(Ok(message.into()))
        });
        let (closing, refusing) = (fake::closing(), with_rcode(5));
        let mut rig = Rig::new(&[("closing", &closing), ("lie", &lie), ("refusing", &refusing)]);
        let mut intake = traced(&rig, "names = true");
        rig.ask("www.example");
        let flight = intake.next_now().unwrap();
        let results: Vec<_> = attempts(&flight).into_iter().map(|(_, _, result)| result.unwrap()).collect();
        assert_eq!(results[0], AttemptResult::Failed("closed"));
        assert!(matches!(results[1], AttemptResult::Invalid(_)), "{results:?}");
        assert_eq!(results[2], AttemptResult::Answered(Rcode::REFUSED));
        assert_eq!(flight.facts.kept, Kept::Failure);
        assert_eq!(flight.name.unwrap().to_string(), "www.example.");
    }

    #[test]
    fn a_stale_reply_is_noted_when_it_is_given_and_the_flight_goes_on() {
        let server = answering(60);
        let mut rig = Rig::new(&[("a", &server)]);
        let mut intake = traced(&rig, "");
        rig.ask("www.example");
        assert!(intake.next_now().is_some());
        server.now_does(|_| None);
        rig.pass(Duration::from_secs(61));
        let begun = rig.now;
        rig.ask("www.example");
        rig.pass(Duration::from_secs(5));
        let flight = intake.next_now().unwrap();
        let query = flight.facts.queries[0];
        assert_eq!(query.outcome.source, Source::Stale);
        assert!(query.replied < flight.ended, "the reply came before the end");
        assert!(query.replied >= begun + Duration::from_millis(250));
        assert_eq!(flight.facts.queries.len(), 1);
    }

    #[test]
    fn a_name_of_many_clients_leaves_a_few_of_them_and_their_number() {
        let server = fake::silent();
        let mut rig = Rig::new(&[("a", &server)]);
        let mut intake = traced(&rig, "");
        (0..40).for_each(|_| rig.ask("www.example"));
        rig.pass(Duration::from_secs(5));
        let facts = intake.next_now().unwrap().facts;
        assert_eq!((facts.queries.len(), facts.more_queries), (16, 24));
    }

    #[test]
    fn a_full_queue_drops_traces_and_no_replies() {
        let server = answering(60);
        let mut rig = Rig::new(&[("a", &server)]);
        let mut intake = traced(&rig, "");
        (0..70).for_each(|number| rig.ask(&format!("n{number}.example")));
        assert_eq!(rig.heard().len(), 70);
        assert_eq!(rig.resolver.telemetry.tally().traces_dropped, 6);
        assert_eq!(std::iter::from_fn(|| intake.next_now()).count(), 64);
    }

    #[test]
    fn a_share_of_the_flights_leaves_a_trace_and_none_when_switched_off() {
        let server = answering(60);
        let mut rig = Rig::new(&[("a", &server)]);
        let mut intake = traced(&rig, "sample = \"25%\"");
        let mut traces = 0;
        for number in 0..2000 {
            rig.ask(&format!("n{number}.example"));
            traces += usize::from(intake.next_now().is_some());
        }
        // Four standard deviations either side: less than one run in ten thousand fails.
        assert!((422..=578).contains(&traces), "{traces} of 2000");
        rig.resolver.telemetry.traces().close();
        rig.ask("last.example");
        assert!(intake.next_now().is_none());
    }
}
