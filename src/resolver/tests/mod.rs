//! The pipeline from `answer_now` to the reply, with scripted servers and time passed in: no socket, no task, no sleep.

mod answers;
mod bounds;
mod hedges;
mod silence;
mod stale;
#[cfg(feature = "otel")]
mod traces;

use super::flights::Flights;
use super::inbox::Work;
use super::snapshot::Snapshot;
use super::waiter::{ClientToken, ReplyBatch, ReplyNote, ReplySink, Waiter};
use super::{Resolver, Step};
use crate::cache::Cache;
use crate::config::from_text;
use crate::config::settings::{Settings, StrategyKind};
use crate::telemetry::counters::Telemetry;
use crate::telemetry::outcome::{Outcome, Source};
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

    /// Asks memory, as a listener does.
    fn answer_now(&self, query: &QueryRef<'_>, out: &mut [u8]) -> (Step, Outcome) {
        self.resolver.answer_now(&self.resolver.round(self.now), query, ClientTransport::Udp, out)
    }

    /// Asks as a client would; what memory answers is heard at once.
    fn ask(&mut self, name: &str) {
        let octets = query(name);
        let parsed = QueryRef::parse(&octets).unwrap();
        let mut out = vec![0; 1232];
        let (step, outcome) = self.answer_now(&parsed, &mut out);
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
