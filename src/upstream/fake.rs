//! Servers that follow a script, for the tests of this layer: no socket, no thread. Not a model of any protocol.

use super::Upstream;
use super::group::Group;
use crate::cache::key::Origin;
use crate::config::settings::{Endpoint, GroupSpec, Host, Limits, ServerSpec, StrategyKind};
use crate::telemetry::counters::UpstreamCounters;
use crate::transport::{Exchange, Handshake, Received, Ticket, Transport, TransportError};
use bytes::Bytes;
use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// What a fake server does with a query: an outcome, or nothing for ever.
type Script = Box<dyn FnMut(&[u8]) -> Option<Result<Bytes, TransportError>> + Send>;

/// What a fake server saw.
#[derive(Default)]
struct Seen {
    /// When each query came.
    times: Vec<Instant>,
    /// Each query.
    queries: Vec<Bytes>,
    /// Tickets of queries that are never answered.
    kept: Vec<Ticket>,
}

/// The transport of a fake server.
#[derive(Clone)]
pub(crate) struct Fake {
    script: Arc<Mutex<Script>>,
    seen: Arc<Mutex<Seen>>,
    connections: Arc<AtomicUsize>,
    resets: Arc<AtomicUsize>,
}

impl Fake {
    /// Makes one that does what `script` says.
    pub(crate) fn new(
        script: impl FnMut(&[u8]) -> Option<Result<Bytes, TransportError>> + Send + 'static,
    ) -> Self {
        Self {
            script: Arc::new(Mutex::new(Box::new(script))),
            seen: Arc::default(),
            connections: Arc::new(AtomicUsize::new(1)),
            resets: Arc::default(),
        }
    }

    /// Replaces the script.
    pub(crate) fn now_does(
        &self,
        script: impl FnMut(&[u8]) -> Option<Result<Bytes, TransportError>> + Send + 'static,
    ) {
        *self.script.lock().unwrap() = Box::new(script);
    }

    /// Sets how many connections it claims to have.
    pub(crate) fn has_connections(&self, connections: usize) {
        self.connections.store(connections, Ordering::Relaxed);
    }

    /// Returns how often it was told to start afresh.
    pub(crate) fn resets(&self) -> usize {
        self.resets.load(Ordering::Relaxed)
    }

    /// Returns when each query came.
    pub(crate) fn times(&self) -> Vec<Instant> {
        self.seen.lock().unwrap().times.clone()
    }

    /// Answers the oldest query that was left without an answer.
    pub(crate) fn answer_kept(&self, message: Bytes) {
        let ticket = self.seen.lock().unwrap().kept.remove(0);
        ticket.complete(Ok(Received { message, age_secs: 0, sent_at: None }));
    }

    /// Says that the connection of every query without an answer has fallen silent.
    pub(crate) fn doubt_kept(&self) {
        self.seen.lock().unwrap().kept.iter().for_each(Ticket::doubt);
    }

    /// Returns the queries.
    pub(crate) fn queries(&self) -> Vec<Bytes> {
        self.seen.lock().unwrap().queries.clone()
    }
}

impl fmt::Debug for Fake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fake")
    }
}

impl Transport for Fake {
    fn submit(&self, exchange: Exchange) {
        let outcome = (self.script.lock().unwrap())(&exchange.query);
        {
            let mut seen = self.seen.lock().unwrap();
            seen.times.push(crate::clock::now());
            seen.queries.push(exchange.query);
            if outcome.is_none() {
                seen.kept.push(exchange.ticket);
                return;
            }
        }
        exchange.ticket.complete(outcome.unwrap().map(|message| Received {
            message,
            age_secs: 0,
            sent_at: None,
        }));
    }
    fn warm(&self) {}
    fn drain(&self) {}
    fn reset(&self) {
        self.resets.fetch_add(1, Ordering::Relaxed);
    }
    fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
    fn last_handshake(&self) -> Option<Handshake> {
        None
    }
    fn handshakes(&self) -> (u64, u64) {
        (0, 0)
    }
}

/// A server that never answers.
pub(crate) fn silent() -> Fake {
    Fake::new(|_| None)
}

/// A server that closes on each query.
pub(crate) fn closing() -> Fake {
    Fake::new(|_| Some(Err(TransportError::Closed)))
}

/// A server that answers each query with NOERROR and no records.
pub(crate) fn answering() -> Fake {
    Fake::new(|query| Some(Ok(reply(query, 0, &[]))))
}

/// A DNS over TLS server at an address, with its transport for the test to look at.
pub(crate) fn upstream(name: &str, fake: Fake) -> (Arc<Upstream>, Fake) {
    let endpoint = Endpoint::Dot { host: Host::Name(format!("{name}.example")), port: 853 };
    upstream_at(name, endpoint, vec!["192.0.2.1".parse().unwrap()], fake)
}

/// A server of any kind.
pub(crate) fn upstream_at(
    name: &str,
    endpoint: Endpoint,
    addresses: Vec<IpAddr>,
    fake: Fake,
) -> (Arc<Upstream>, Fake) {
    let spec = ServerSpec {
        name: name.to_owned(),
        endpoint,
        addresses,
        ca_file: None,
        pins: Vec::new(),
        weight: 1,
        trust_ad: false,
    };
    let counters = Arc::new(UpstreamCounters::default());
    (Arc::new(Upstream::new(Arc::new(spec), Origin::default(), Box::new(fake.clone()), counters)), fake)
}

/// A group of such servers.
pub(crate) fn group(upstreams: Vec<Arc<Upstream>>, strategy: StrategyKind) -> Group {
    group_within(upstreams, strategy, &Limits::default())
}

/// A group of such servers, with other bounds.
pub(crate) fn group_within(upstreams: Vec<Arc<Upstream>>, strategy: StrategyKind, limits: &Limits) -> Group {
    let spec = GroupSpec {
        name: "default".to_owned(),
        members: (0..upstreams.len()).collect(),
        strategy,
        own: false,
    };
    Group::new(&spec, upstreams, limits, Arc::default())
}

/// A record whose owner is the question's name: type, TTL, RDATA.
pub(crate) type Record = (u16, u32, Vec<u8>);

/// The response to `query` with these answer records, each as `(owner, record)`; an empty owner is a pointer to the question.
pub(crate) fn reply_with(query: &[u8], rcode: u8, records: &[(&[u8], Record)]) -> Bytes {
    let mut end = 12;
    while query[end] != 0 {
        end += 1 + usize::from(query[end]);
    }
    let mut message = query[..end + 5].to_vec();
    message[2] |= 0x80;
    message[3] = 0x80 | rcode;
    message[6..12].fill(0);
    message[7] = u8::try_from(records.len()).unwrap();
    for (owner, (rtype, ttl, rdata)) in records {
        message.extend(if owner.is_empty() { &[0xc0, 12][..] } else { owner });
        message.extend(rtype.to_be_bytes());
        message.extend([0, 1]);
        message.extend(ttl.to_be_bytes());
        message.extend(u16::try_from(rdata.len()).unwrap().to_be_bytes());
        message.extend(rdata);
    }
    message.into()
}

/// The response to `query` with these records of the question's name.
pub(crate) fn reply(query: &[u8], rcode: u8, records: &[Record]) -> Bytes {
    let records: Vec<_> = records.iter().map(|record| (&[][..], record.clone())).collect();
    reply_with(query, rcode, &records)
}

/// The type that `query` asks for.
pub(crate) fn rtype_of(query: &[u8]) -> u16 {
    let mut end = 12;
    while query[end] != 0 {
        end += 1 + usize::from(query[end]);
    }
    u16::from_be_bytes([query[end + 1], query[end + 2]])
}
