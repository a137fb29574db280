//! How one server is reached: a query goes in with a deadline and a ticket, and exactly one completion comes out. What is *not* here: which server
//! to ask, whether it is well, whether an answer is good.

pub mod dial;
pub mod doh;
pub mod dot;
pub mod mux;
pub mod plain;
pub mod pool;
pub mod tls;

use crate::wire::response::ResponseFault;
use bytes::Bytes;
use std::fmt::Debug;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Our one alias for a boxed future.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// One query on its way to one server.
#[derive(Debug)]
pub struct Exchange {
    /// As `wire::query::UpstreamQuery::build` made it (ID 0).
    pub query: Bytes,
    /// After this the server's answer is of no use to anybody.
    pub deadline: Instant,
    pub ticket: Ticket,
}

/// Where the completion goes. Not Clone: a ticket is used once, and one that is dropped unused completes with `TransportError::ShuttingDown`.
pub struct Ticket {
    sink: Option<Arc<dyn CompletionSink>>,
    id: u64,
}
impl Ticket {
    pub fn new(sink: Arc<dyn CompletionSink>, id: u64) -> Self {
        Self { sink: Some(sink), id }
    }
    /// Hands the outcome over.
    pub fn complete(mut self, outcome: Result<Received, TransportError>) {
        if let Some(sink) = self.sink.take() {
            sink.completed(self.id, outcome);
        }
    }
}
impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(sink) = self.sink.take() {
            sink.completed(self.id, Err(TransportError::ShuttingDown));
        }
    }
}
impl Debug for Ticket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Ticket({})", self.id)
    }
}

/// Takes completions. Called from connection tasks, many in a row when a read brought many answers: it must be quick and must not call back into the transport.
pub trait CompletionSink: Send + Sync {
    fn completed(&self, id: u64, outcome: Result<Received, TransportError>);
}

/// A server's message. Not validated beyond what was needed to match it to its query.
#[derive(Clone, Debug)]
pub struct Received {
    pub message: Bytes,
    /// HTTP `Age` (RFC 8484 §5.1), else 0.
    pub age_secs: u32,
}

/// One server over one protocol.
pub trait Transport: Debug + Send + Sync {
    /// Queues the exchange and returns at once; never blocks. The ticket completes exactly once, by `deadline` at the latest (coarsely: up to 250 ms later).
    fn submit(&self, exchange: Exchange);
    /// Opens a connection if there is none, so that the first query need not wait for it.
    fn warm(&self);
    /// Takes no new query, finishes its own, then closes (TLS close_notify / GOAWAY).
    fn drain(&self);
    fn connections(&self) -> usize;
    /// What the last successful handshake showed.
    fn last_handshake(&self) -> Option<Handshake>;
    /// Counters of handshakes since start: (full, resumed).
    fn handshakes(&self) -> (u64, u64);
}

/// Facts of a finished dial, for `query` and `upstreams`.
#[derive(Clone, Debug)]
pub struct Handshake {
    pub address: SocketAddr,
    pub tls_version: Option<&'static str>, // "1.3"
    pub resumed: bool,
    pub connect_time: Duration,
    pub handshake_time: Duration,
    /// End of validity of the leaf certificate, seconds since 1970.
    pub certificate_not_after: Option<i64>,
}

/// Looks a server's name up through other (encrypted) servers. Implemented by `upstream::bootstrap`.
pub trait Lookup: Debug + Send + Sync {
    fn addresses<'a>(
        &'a self,
        host: &'a str,
        deadline: Instant,
    ) -> BoxFuture<'a, Result<Vec<IpAddr>, TransportError>>;
}

/// Why an exchange with one server did not give an answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TransportError {
    #[error("cannot connect to {address}")]
    Connect {
        address: SocketAddr,
        #[source]
        error: Arc<io::Error>,
    },
    #[error("no connection to {address} within {waited:?}")]
    ConnectTimeout { address: SocketAddr, waited: Duration },
    #[error("no address for {host} could be learnt through the other servers")]
    NoAddress { host: String },
    #[error("TLS handshake failed")]
    Tls {
        #[source]
        error: Arc<io::Error>,
    },
    /// Chain, name, date: `rustls::Error::InvalidCertificate` and its kin.
    #[error("the certificate is not acceptable")]
    Certificate {
        #[source]
        error: Arc<rustls::Error>,
    },
    #[error("no pin matches the server's key")]
    Pin,
    /// The connection ended (also after one retry on a fresh one).
    #[error("the server closed the connection before it answered")]
    Closed,
    #[error("no answer in time")]
    Timeout,
    #[error("HTTP status {status}")]
    HttpStatus { status: u16, retry_after: Option<Duration> },
    #[error("content type is not application/dns-message")]
    ContentType,
    #[error("the body is longer than 65,535 octets")]
    BodyTooLarge,
    #[error("HTTP/2 stream or connection error: {reason}")]
    Http2 { reason: String },
    /// The message cannot be the answer to the query.
    #[error("the answer does not match the query: {0}")]
    Mismatch(ResponseFault),
    #[error("too many queries wait for this server")]
    Overloaded,
    #[error("the server is being put away")]
    ShuttingDown,
}
/// Whose fault a failure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    Server,
    Path,
    Us,
    Nobody,
}
impl TransportError {
    pub fn blame(&self) -> Blame {
        todo!()
    }
    /// Label of `veildns_upstream_queries_total{outcome}`: "timeout", "connect", "tls", "certificate", "closed", "http", "mismatch", "overloaded", ...
    pub fn label(&self) -> &'static str {
        todo!()
    }
}

/// What transports need from their surroundings.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// The upstream runtime; connection tasks are spawned on it.
    pub runtime: tokio::runtime::Handle,
    pub tasks: tokio_util::task::TaskTracker,
    pub cancel: tokio_util::sync::CancellationToken,
    pub tls: Arc<tls::TlsContext>,
    pub lookup: Arc<dyn Lookup>,
    pub connect_timeout: Duration,
    pub limits: Arc<crate::config::settings::Limits>,
}

/// Makes the transport of a server: the one registry of protocols.
///
/// # Errors
/// A CA file that cannot be read, a host that is no server name.
pub fn build(
    _spec: &crate::config::settings::ServerSpec,
    _around: &Surroundings,
) -> Result<Box<dyn Transport>, tls::TlsSetupError> {
    todo!()
}

/// One query, awaited: for probes, look-ups and the command line. Cancel safe: dropping it forgets the answer.
pub async fn exchange(
    _transport: &dyn Transport,
    _query: Bytes,
    _deadline: Instant,
) -> Result<Received, TransportError> {
    todo!()
}
