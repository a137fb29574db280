//! Servers that do as they are told. They stand where the protocols stand: a query goes in, a message or a failure comes
//! out after its time. They are no model of connections.

use super::message::{Message, OPTION_ECS, OPTION_EDE, encode_name, rtype};
use super::script::{Answer, Does, Record, Rule, Way};
use bytes::Bytes;
use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, UNIX_EPOCH};
use tokio::sync::watch;
use veildns::clock;
use veildns::config::settings::ServerSpec;
use veildns::transport::certificate_time::WrongClock;
use veildns::transport::tls::TlsSetupError;
use veildns::transport::{
    Builder, Exchange, Handshake, Received, Surroundings, Ticket, Transport, TransportError,
};
use veildns::wire::response::ResponseFault;

/// How long after its deadline a query completes that nobody answered: transports keep deadlines coarsely.
const COARSENESS: Duration = Duration::from_millis(100);

/// All servers of a scenario, by name. What a server does outlives a reload that makes it anew.
#[derive(Clone, Debug, Default)]
pub struct Cast(Arc<Mutex<HashMap<String, Arc<Server>>>>);

impl Cast {
    /// The server of this name.
    pub fn server(&self, name: &str) -> Arc<Server> {
        let mut servers = self.0.lock().unwrap();
        Arc::clone(servers.entry(name.to_owned()).or_default())
    }
}

impl Builder for Cast {
    fn build(&self, spec: &ServerSpec, around: &Surroundings) -> Result<Box<dyn Transport>, TlsSetupError> {
        Ok(Box::new(Line { server: self.server(&spec.name), around: around.clone() }))
    }
}

/// One server.
#[derive(Default)]
pub struct Server {
    /// What it does; the first rule that fits holds.
    rules: Mutex<Vec<Rule>>,
    /// What it was asked.
    pub queries: Mutex<Vec<Query>>,
    /// How often it was to start afresh.
    pub resets: watch::Sender<u64>,
    /// How often the gateway let go of it.
    pub drains: Mutex<u64>,
}

/// A query that reached a server.
#[derive(Debug)]
pub struct Query {
    /// When.
    pub at: Instant,
    /// It asks for the root's name servers, as probes do.
    pub is_probe: bool,
    /// What.
    pub message: Message,
    /// Some rule said what to do with it.
    pub was_expected: bool,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Server")
    }
}

impl Server {
    /// Behaves so from now on: a rule for some names comes before what there is, one for all replaces it.
    pub fn behave(&self, rule: Rule) {
        let mut rules = self.rules.lock().unwrap();
        if rule.name.is_none() && rule.rtype.is_none() {
            rules.clear();
        }
        rules.insert(0, rule);
    }

    /// How many queries of users it got, or of probes.
    pub fn count(&self, probes: bool) -> u64 {
        self.queries.lock().unwrap().iter().filter(|query| query.is_probe == probes).count() as u64
    }

    /// What it does with a query.
    fn rule_for(&self, query: &Message) -> Option<Rule> {
        let question = query.question.as_ref()?;
        let name = question.name.to_lowercase();
        let fits = |rule: &&Rule| {
            let is_within =
                |suffix: &String| name.strip_suffix('.').unwrap().ends_with(&suffix.to_lowercase());
            rule.name.as_ref().is_none_or(is_within) && rule.rtype.is_none_or(|rtype| rtype == question.rtype)
        };
        self.rules.lock().unwrap().iter().find(fits).cloned()
    }

    /// Whether somebody who connects gets a connection.
    fn has_connection(&self) -> bool {
        let rules = self.rules.lock().unwrap();
        rules.last().is_none_or(|rule| match &rule.does {
            Does::Answer(_) | Does::Garbage | Does::Silent => true,
            Does::Unreachable => false,
            Does::Fail(way) => match way {
                Way::Refused | Way::ConnectTimeout | Way::NoAddress => false,
                Way::Tls | Way::Certificate | Way::Clock | Way::Pin => false,
                Way::Closed | Way::Http { .. } | Way::ContentType | Way::Mismatch | Way::Overloaded => true,
            },
        })
    }

    /// Takes a query down.
    fn note(&self, query: &Bytes) -> Message {
        let message = Message::read(query);
        let is_probe = message.question.as_ref().is_some_and(|q| q.name == "." && q.rtype == rtype::NS);
        let was_expected = self.rule_for(&message).is_some();
        let noted = Query { at: clock::now(), is_probe, message: message.clone(), was_expected };
        self.queries.lock().unwrap().push(noted);
        message
    }

    /// Does what there is to do with a query, and begins anew when the connections are given up meanwhile.
    async fn serve(self: Arc<Self>, query: Bytes, message: Message, deadline: Instant, ticket: Ticket) {
        let mut resets = self.resets.subscribe();
        let limit = deadline + COARSENESS;
        loop {
            let (at, outcome) = self.outcome(&query, &message, limit);
            tokio::select! {
                () = tokio::time::sleep_until(at.into()) => return ticket.complete(outcome),
                changed = resets.changed() => if changed.is_err() { return },
            }
        }
    }

    /// What becomes of a query, and when.
    fn outcome(
        &self,
        query: &Bytes,
        message: &Message,
        limit: Instant,
    ) -> (Instant, Result<Received, TransportError>) {
        let silence = (limit, Err(TransportError::Timeout));
        let Some(Rule { delay, does, .. }) = self.rule_for(message) else { return silence };
        let at = clock::now() + delay;
        if at >= limit {
            return silence;
        }
        match does {
            Does::Silent | Does::Unreachable => silence,
            Does::Garbage => {
                (at, Ok(Received { message: Bytes::from_static(&[0xFF; 40]), age_secs: 0, sent_at: None }))
            }
            Does::Fail(way) => (at, Err(failure(&way))),
            Does::Answer(answer) => {
                let age_secs = u32::try_from(answer.age.as_secs()).unwrap();
                (at, Ok(Received { message: write(&answer, query, message), age_secs, sent_at: None }))
            }
        }
    }
}

/// The way to a server.
#[derive(Debug)]
struct Line {
    server: Arc<Server>,
    around: Surroundings,
}

impl Transport for Line {
    fn submit(&self, exchange: Exchange) {
        let Exchange { query, deadline, ticket, .. } = exchange;
        let message = self.server.note(&query);
        let serving = Arc::clone(&self.server).serve(query, message, deadline, ticket);
        let serving = self.around.cancel.clone().run_until_cancelled_owned(serving);
        self.around.tasks.spawn_on(serving, &self.around.runtime);
    }
    fn warm(&self) {}
    fn drain(&self) {}
    fn reset(&self) {
        self.server.resets.send_modify(|resets| *resets += 1);
    }
    fn connections(&self) -> usize {
        usize::from(self.server.has_connection())
    }
    fn last_handshake(&self) -> Option<Handshake> {
        None
    }
    fn handshakes(&self) -> (u64, u64) {
        (0, 0)
    }
}

impl Drop for Line {
    /// A way to a server drains when it is dropped.
    fn drop(&mut self) {
        *self.server.drains.lock().unwrap() += 1;
    }
}

/// The error of a transport that fails so.
fn failure(way: &Way) -> TransportError {
    let address = SocketAddr::from(([192, 0, 2, 1], 853));
    let error = |kind: io::ErrorKind| Arc::new(io::Error::from(kind));
    match way {
        Way::Refused => TransportError::Connect { address, error: error(io::ErrorKind::ConnectionRefused) },
        Way::ConnectTimeout => TransportError::ConnectTimeout { address, waited: Duration::from_secs(2) },
        Way::NoAddress => TransportError::NoAddress { host: "dns.example".to_owned() },
        Way::Tls => TransportError::Tls { error: error(io::ErrorKind::InvalidData) },
        Way::Certificate => TransportError::Certificate {
            error: Arc::new(rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer)),
        },
        Way::Clock => {
            let known = UNIX_EPOCH + Duration::from_secs(1_780_000_000);
            TransportError::Clock(WrongClock::new(UNIX_EPOCH, known))
        }
        Way::Pin => TransportError::Pin,
        Way::Closed => TransportError::Closed,
        Way::Http { status, retry_after } => {
            TransportError::HttpStatus { status: *status, retry_after: *retry_after }
        }
        Way::ContentType => TransportError::ContentType,
        Way::Mismatch => TransportError::Mismatch(ResponseFault::QuestionMismatch),
        Way::Overloaded => TransportError::Overloaded,
    }
}

/// Writes a server's message. The ID is 0, as it comes out of a transport.
fn write(answer: &Answer, query: &[u8], asked: &Message) -> Bytes {
    let question = asked.question.as_ref().unwrap();
    let name = answer.question.as_ref().unwrap_or(&question.name);
    let (in_authority, in_answer): (Vec<_>, Vec<_>) =
        answer.records.iter().partition(|record| record.rtype == rtype::SOA && question.rtype != rtype::SOA);
    let flags = 0x8180
        | answer.rcode
        | if answer.truncated { 0x0200 } else { 0 }
        | if answer.authentic { 0x0020 } else { 0 };
    let counts = [in_answer.len(), in_authority.len(), usize::from(asked.opt.is_some())];
    let mut octets = vec![0, 0];
    octets.extend(flags.to_be_bytes());
    octets.extend([0, 1]);
    octets.extend(counts.iter().flat_map(|count| u16::try_from(*count).unwrap().to_be_bytes()));
    let first = octets.len();
    octets.extend(encode_name(name));
    octets.extend(question.rtype.to_be_bytes());
    octets.extend([0, 1]);
    // The letter case is the query's own, to the octet.
    if answer.question.is_none() {
        let end = octets.len();
        octets[first..end].copy_from_slice(&query[12..12 + end - first]);
    }
    for record in in_answer.into_iter().chain(in_authority) {
        write_record(&mut octets, record, name);
    }
    if asked.opt.is_some() {
        write_opt(&mut octets, answer, asked);
    }
    octets.into()
}

/// Writes one record.
fn write_record(octets: &mut Vec<u8>, record: &Record, name: &str) {
    octets.extend(encode_name(record.owner.as_deref().unwrap_or(name)));
    octets.extend(record.rtype.to_be_bytes());
    octets.extend([0, 1]);
    octets.extend(record.ttl.unwrap().to_be_bytes());
    octets.extend(u16::try_from(record.rdata.len()).unwrap().to_be_bytes());
    octets.extend(&record.rdata);
}

/// Writes an OPT record with what the answer has to say in it.
fn write_opt(octets: &mut Vec<u8>, answer: &Answer, asked: &Message) {
    let mut options = Vec::new();
    let mut option = |code: u16, data: &[u8]| {
        options.extend(code.to_be_bytes());
        options.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
        options.extend(data);
    };
    if let Some(code) = answer.ede {
        option(OPTION_EDE, &code.to_be_bytes());
    }
    if let Some(scope) = answer.scope {
        let mut data = asked.option(OPTION_ECS).unwrap_or(&[0, 1, 24, 0, 192, 0, 2]).to_vec();
        data[3] = scope;
        option(OPTION_ECS, &data);
    }
    octets.extend([0, 0, 41, 4, 208, 0, 0, 0, 0]);
    octets.extend(u16::try_from(options.len()).unwrap().to_be_bytes());
    octets.extend(options);
}
