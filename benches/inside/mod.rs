//! The gateway's inside for benches, tools and the test of allocations: resolver, cache and flights with one server that
//! answers at once, in this process. No socket and no TLS: what those cost is measured by `bench/run`.

#![allow(dead_code, unreachable_pub, reason = "each program uses its own part")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a broken assumption must end a measurement"
)]

use bytes::Bytes;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;
use tokio_util::sync::CancellationToken;
use veildns::cache::Cache;
use veildns::cache::key::Origin;
use veildns::clock;
use veildns::config::from_text;
use veildns::config::settings::Settings;
use veildns::config::settings::dnstap::MessageKind;
use veildns::resolver::snapshot::Snapshot;
use veildns::resolver::waiter::{ClientToken, ReplyBatch, ReplySink, Waiter};
use veildns::resolver::{Resolver, Round, Step};
use veildns::telemetry::counters::{Block, Telemetry};
use veildns::telemetry::dnstap::Occasion;
use veildns::telemetry::dnstap::event::{Parties, Protocol};
use veildns::telemetry::outcome::{QueryDetail, Source, record};
#[cfg(feature = "otel")]
use veildns::telemetry::traces::Intake;
use veildns::transport::{Exchange, Handshake, Received, Transport};
use veildns::upstream::Upstream;
use veildns::upstream::group::Group;
use veildns::wire::query::{ClientTransport, QueryRef};

/// Room for a reply.
pub const REPLY: usize = 1232;

/// A client: where it asks from does not matter, nothing is sent.
const CLIENT: SocketAddr = SocketAddr::V4(std::net::SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, 5353));

/// A resolver and what is around it.
pub struct Inside {
    /// The pipeline.
    pub resolver: Arc<Resolver>,
    /// Its answers.
    pub cache: Arc<Cache>,
    /// Its counters.
    telemetry: Arc<Telemetry>,
    /// The counters of the one worker there would be.
    block: Arc<Block>,
    /// Where replies to misses go.
    sink: Arc<Counting>,
    /// When everything happens: nothing expires during a measurement.
    now: Instant,
}

impl Inside {
    /// Makes one with the default configuration and this much cache.
    pub fn new(cache_size: &str) -> Self {
        let now = clock::now();
        let settings = settings(cache_size);
        let telemetry = Telemetry::new();
        let spec = Arc::clone(&settings.servers[0]);
        let counters = telemetry.upstream(&spec.name);
        let server = Arc::new(Upstream::new(spec, Origin::default(), Box::new(Prompt), counters));
        let group = Arc::new(Group::new(&settings.groups[0], vec![server], &settings.limits, Arc::default()));
        let cache = Arc::new(Cache::new(&settings.cache, now));
        let snapshot = Snapshot::new(&settings, vec![group]);
        let resolver = Resolver::new(snapshot, Arc::clone(&cache), Arc::clone(&telemetry));
        let block = telemetry.block();
        Self { resolver, cache, telemetry, block, sink: Arc::default(), now }
    }

    /// Makes every miss leave a trace, as long as what it returns is kept: a queue for so many that nobody empties.
    #[cfg(feature = "otel")]
    pub fn trace(&self, queue: usize) -> Intake {
        let settings = from_text("[otel]\ntraces = true", Path::new(".")).unwrap();
        self.telemetry.traces().open(&settings.traces.unwrap(), queue)
    }

    /// Begins on messages that came together.
    pub fn round(&self) -> Round {
        self.resolver.round(self.now)
    }

    /// Does with a message what the UDP loop does; returns the length of the reply, None for a miss.
    pub fn take(&self, round: &Round, message: &[u8], out: &mut [u8]) -> Option<usize> {
        let query = QueryRef::parse(message).unwrap();
        let limit = query.reply_limit(ClientTransport::Udp).min(out.len());
        self.tell(MessageKind::ClientQuery, message);
        let (step, outcome) =
            self.resolver.answer_now(round, &query, ClientTransport::Udp, &mut out[..limit]);
        let Step::Reply(octets) = step else { return None };
        assert_eq!(outcome.source, Source::Cache);
        let detail = QueryDetail { client: CLIENT.ip(), question: Some(query.question()), upstream: None };
        record(&self.telemetry, &self.block, &outcome, &detail);
        self.tell(MessageKind::ClientResponse, &out[..octets]);
        Some(octets)
    }

    /// Tells dnstap, which is off, of a message.
    fn tell(&self, kind: MessageKind, message: &[u8]) {
        self.telemetry.dnstap().tell(kind, message, || Occasion {
            protocol: Protocol::Udp,
            parties: Parties::Client { client: CLIENT, asked: Some(CLIENT) },
            asked_at: self.now,
        });
    }

    /// Hands misses over as one batch and waits until each has its reply. The driver must run on this runtime.
    pub async fn miss(&self, messages: &[Vec<u8>]) {
        let expected = self.sink.0.load(Ordering::Relaxed) + messages.len();
        let mut out = [0; REPLY];
        let mut misses = Vec::with_capacity(messages.len());
        let round = self.round();
        for message in messages {
            let query = QueryRef::parse(message).unwrap();
            let (step, _) = self.resolver.answer_now(&round, &query, ClientTransport::Udp, &mut out);
            let Step::Wait(pending) = step else { panic!("not a miss: {step:?}") };
            let sink: Arc<dyn ReplySink> = self.sink.clone();
            let client = ClientToken { peer: CLIENT, local: None, interface: 0 };
            let query = message.as_slice().into();
            let transport = ClientTransport::Udp;
            misses.push((pending, Waiter { sink, client, transport, query, received: self.now }));
        }
        self.resolver.enqueue(&mut misses);
        while self.sink.0.load(Ordering::Relaxed) < expected {
            tokio::task::yield_now().await;
        }
    }

    /// Runs `work` beside the driver, on this thread.
    pub fn drive<T>(&self, work: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let cancel = CancellationToken::new();
        runtime.block_on(async {
            let driver = Arc::clone(&self.resolver).drive(0, cancel.clone());
            let worked = async {
                let done = work.await;
                cancel.cancel();
                done
            };
            tokio::join!(driver, worked).1
        })
    }

    /// Puts the answers to these queries into the cache.
    pub fn fill(&self, messages: &[Vec<u8>]) {
        self.drive(async {
            for batch in messages.chunks(100) {
                self.miss(batch).await;
            }
        });
    }
}

/// The default settings with this much cache.
pub fn settings(cache_size: &str) -> Settings {
    let text = format!("upstreams = [\"tls://192.0.2.1\"]\n[cache]\nmax_size = \"{cache_size}\"\n");
    from_text(&text, Path::new(".")).unwrap_or_else(|errors| panic!("{errors:?}"))
}

/// A client's queries for so many different names, as programs send them: with EDNS.
pub fn queries(tag: &str, count: usize) -> Vec<Vec<u8>> {
    (0..count).map(|number| query(&format!("{tag}-{number}"))).collect()
}

/// A client's query for an address of `LABEL.perf.example.org`.
pub fn query(label: &str) -> Vec<u8> {
    let mut octets = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1];
    for label in [label, "perf", "example", "org"] {
        octets.push(u8::try_from(label.len()).unwrap());
        octets.extend_from_slice(label.as_bytes());
    }
    octets.extend_from_slice(&[0, 0, 1, 0, 1]);
    octets.extend_from_slice(&[0, 0, 41, 0x04, 0xd0, 0, 0, 0, 0, 0, 0]);
    octets
}

/// The answer to a query: one address for 300 seconds.
pub fn answer(query: &[u8]) -> Bytes {
    let mut end = 12;
    while query[end] != 0 {
        end += 1 + usize::from(query[end]);
    }
    let mut message = Vec::with_capacity(end + 32);
    message.extend_from_slice(&query[..2]);
    message.extend_from_slice(&[0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
    message.extend_from_slice(&query[12..end + 5]);
    message.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 1, 44, 0, 4, 192, 0, 2, 1]);
    message.into()
}

/// A server that answers at once.
#[derive(Debug)]
struct Prompt;

impl Transport for Prompt {
    fn submit(&self, exchange: Exchange) {
        let message = answer(&exchange.query);
        exchange.ticket.complete(Ok(Received { message, age_secs: 0, sent_at: None }));
    }

    fn warm(&self) {}

    fn reset(&self) {}

    fn drain(&self) {}

    fn connections(&self) -> usize {
        1
    }

    fn last_handshake(&self) -> Option<Handshake> {
        None
    }

    fn handshakes(&self) -> (u64, u64) {
        (1, 0)
    }
}

/// Counts replies.
#[derive(Debug, Default)]
struct Counting(AtomicUsize);

impl ReplySink for Counting {
    fn send(&self, batch: &ReplyBatch) {
        self.0.fetch_add(batch.len(), Ordering::Relaxed);
    }
}
