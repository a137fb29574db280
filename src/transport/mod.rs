//! How one server is reached: a query goes in with a deadline and a ticket, and exactly one completion comes out. What is
//! *not* here: which server to ask, whether it is well, whether an answer is good.
//!
//! ```text
//! Transport ── Pool ─┬─ queue   what waits, who takes it, when to dial
//!                    ├─ vigil   which connection is too silent; twins: a query that was asked on two
//!                    ├─ dot     framed messages over TLS, by the ID table of mux; plain shares it over TCP
//!                    └─ doh     HTTP/2
//!                       dial ── tls   streams for both; verifier judges certificates, certificate_time knows the date
//!                        └─ race   the addresses of a server against each other; nat64, network: where they are from here
//! ```

#[doc(hidden)]
pub mod bench;
pub mod certificate_time;
pub mod dial;
pub mod doh;
pub mod dot;
mod idle;
mod lanes;
pub mod mux;
mod phase;
pub mod plain;
pub mod pool;
mod queue;
#[cfg(test)]
pub(crate) mod rehearsal;
#[cfg(test)]
mod tests;
pub mod tls;
mod twins;
mod verifier;
mod vigil;

use crate::config::settings::{Endpoint, Limits, ServerSpec};
use crate::config::units::show_measured;
use crate::telemetry::bounds::Bounds;
use crate::wire::response::ResponseFault;
use bytes::Bytes;
use certificate_time::WrongClock;
use dial::nat64::Prefix;
use dial::network::CurrentNetwork;
use rustls::CertificateError;
use std::fmt::{self, Debug};
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Our one alias for a boxed future.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// One query on its way to one server.
#[derive(Debug)]
pub struct Exchange {
    /// As `wire::query::UpstreamQuery::build` made it (ID 0).
    pub query: Bytes,
    /// After this the server's answer is of no use to anybody.
    pub deadline: Instant,
    /// Where the completion goes.
    pub ticket: Ticket,
    /// Which of the upstream side's runtimes asks: a connection that runs there is the best.
    pub lane: usize,
}

/// Where the completion goes. Not Clone: a ticket is used once, and one that is dropped unused completes with `TransportError::ShuttingDown`.
pub struct Ticket {
    /// None once it is used.
    sink: Option<Arc<dyn CompletionSink>>,
    /// What the sink knows the query by.
    id: u64,
}

impl Ticket {
    /// Makes the ticket that `sink` knows as `id`.
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
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ticket({})", self.id)
    }
}

/// Takes completions. Called from connection tasks, many in a row when a read brought many answers: it must be quick and
/// must not call back into the transport.
pub trait CompletionSink: Send + Sync {
    /// Takes the outcome of the query whose ticket was made with `id`.
    fn completed(&self, id: u64, outcome: Result<Received, TransportError>);

    /// Hears, before the outcome, that the connection the query is on has fallen silent and that it was asked again on a fresh
    /// one: who knows another server may ask that too. The connection is at fault, not yet the server.
    fn doubted(&self, _id: u64) {}
}

/// A server's message. Not validated beyond what was needed to match it to its query.
#[derive(Clone, Debug)]
pub struct Received {
    /// As it came: the ID may be anything, the question's letter case too.
    pub message: Bytes,
    /// HTTP `Age` (RFC 8484 §5.1), else 0.
    pub age_secs: u32,
    /// When its query was written to the connection that it came by; None where that is not known.
    pub sent_at: Option<Instant>,
}

/// One server over one protocol.
pub trait Transport: Debug + Send + Sync {
    /// Queues the exchange and returns at once; never blocks. The ticket completes exactly once, by `deadline` at the latest
    /// (coarsely: up to 250 ms later).
    fn submit(&self, exchange: Exchange);
    /// Opens a connection if there is none, so that the first query need not wait for it.
    fn warm(&self);
    /// Takes no new query, finishes its own, then closes (TLS close_notify / GOAWAY).
    fn drain(&self);
    /// Starts afresh, because the network is another one: connections are given up at once and what waited on them goes to
    /// new ones; TLS sessions, pauses between dials and what was learnt of addresses are forgotten.
    fn reset(&self);
    /// Returns how many connections are open, those that only finish their own included.
    fn connections(&self) -> usize;
    /// Returns how many queries wait for a connection: the most that any one queue holds.
    fn waiting(&self) -> usize {
        0
    }
    /// What the last successful handshake showed.
    fn last_handshake(&self) -> Option<Handshake>;
    /// Counters of handshakes since start: (full, resumed).
    fn handshakes(&self) -> (u64, u64);
}

/// Facts of a finished dial, for `query` and `upstreams`.
#[derive(Clone, Debug)]
pub struct Handshake {
    /// Which of the server's addresses.
    pub address: SocketAddr,
    /// As people write it: `1.3`. None without TLS.
    pub tls_version: Option<&'static str>,
    /// A session was resumed: no certificate was sent.
    pub resumed: bool,
    /// TCP, and looking the name up if that was needed.
    pub connect_time: Duration,
    /// TLS.
    pub handshake_time: Duration,
    /// End of validity of the leaf certificate, seconds since 1970.
    pub certificate_not_after: Option<i64>,
}

/// Finds where a server is, through other (encrypted) servers. Implemented by `upstream::bootstrap`.
pub trait Lookup: Debug + Send + Sync {
    /// Returns the addresses of `host`, best first.
    fn addresses<'a>(
        &'a self,
        host: &'a str,
        deadline: Instant,
    ) -> BoxFuture<'a, Result<Vec<IpAddr>, TransportError>>;

    /// Returns the prefixes of this network's NAT64, as far as they were learnt, best first. None: that was not tried yet.
    fn nat64(&self) -> Option<Vec<Prefix>> {
        Some(Vec::new())
    }

    /// Learns the prefixes of this network's NAT64 and returns them, best first. Cancel safe.
    fn learn_nat64(&self, deadline: Instant) -> BoxFuture<'_, Vec<Prefix>> {
        let _ = deadline;
        Box::pin(std::future::ready(Vec::new()))
    }
}

/// Why an exchange with one server did not give an answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TransportError {
    /// Refused, unreachable.
    #[error("cannot connect to {address}")]
    Connect {
        /// The last address tried.
        address: SocketAddr,
        /// What the system said.
        #[source]
        error: Arc<io::Error>,
    },
    /// This machine gave no socket, port or memory to ask with.
    #[error("this machine has no means left to open a connection")]
    Exhausted {
        /// What the system said.
        #[source]
        error: Arc<io::Error>,
    },
    /// TCP or TLS did not come about in time.
    #[error("no connection to {address} within {}", show_measured(*.waited))]
    ConnectTimeout {
        /// The last address tried.
        address: SocketAddr,
        /// How long.
        waited: Duration,
    },
    /// The server's name could not be looked up.
    #[error("no address for {host} could be learnt through the other servers")]
    NoAddress {
        /// The name.
        host: String,
    },
    /// Anything in the handshake but the certificate.
    #[error("TLS handshake failed")]
    Tls {
        /// What rustls or the stream said.
        #[source]
        error: Arc<io::Error>,
    },
    /// Chain, name, date: `rustls::Error::InvalidCertificate` and its kin.
    #[error("the certificate is not acceptable")]
    Certificate {
        /// Which rule.
        #[source]
        error: Arc<rustls::Error>,
    },
    /// The certificate's dates do not fit our clock, which cannot be right.
    #[error(transparent)]
    Clock(#[from] WrongClock),
    /// The chain is good, but none of the configured pins (RFC 7858 §4.2) is the server's.
    #[error("no pin matches the server's key")]
    Pin,
    /// The connection ended (also after one retry on a fresh one).
    #[error("the server closed the connection before it answered")]
    Closed,
    /// The deadline came first.
    #[error("no answer in time")]
    Timeout,
    /// Anything but 2xx.
    #[error("HTTP status {status}")]
    HttpStatus {
        /// The code.
        status: u16,
        /// `Retry-After`, in its form of seconds.
        retry_after: Option<Duration>,
    },
    /// A proxy's or a portal's page.
    #[error("content type is not application/dns-message")]
    ContentType,
    /// Longer than a DNS message can be.
    #[error("the body is longer than 65,535 octets")]
    BodyTooLarge,
    /// The stream was reset, or the framing broke.
    #[error("HTTP/2 stream or connection error: {reason}")]
    Http2 {
        /// In HTTP/2's words.
        reason: String,
    },
    /// The message cannot be the answer to the query.
    #[error("the answer does not match the query: {0}")]
    Mismatch(ResponseFault),
    /// Our own bound, `limits.pool_queue`.
    #[error("too many queries wait for this server")]
    Overloaded,
    /// A reload or a stop; also what a ticket says that was dropped.
    #[error("the server is being put away")]
    ShuttingDown,
}

/// Whose fault a failure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// It answered wrongly.
    Server,
    /// It, or the network before it, did not answer.
    Path,
    /// A bound of ours.
    Us,
    /// Nothing went wrong.
    Nobody,
}

impl TransportError {
    /// Explains why a socket to `address` could not be had or connected: the path's fault, or this machine's.
    fn connecting(address: SocketAddr, error: io::Error) -> Self {
        /// Linux: too many open files, of the system and of this process; no buffer space.
        const EXHAUSTED: [i32; 3] = [23, 24, 105];
        let is_ours = error.kind() == io::ErrorKind::OutOfMemory
            || error.raw_os_error().is_some_and(|code| EXHAUSTED.contains(&code));
        let error = Arc::new(error);
        if is_ours { Self::Exhausted { error } } else { Self::Connect { address, error } }
    }

    /// Says whose fault it is: health counts only the server's and the path's.
    pub fn blame(&self) -> Blame {
        match self {
            Self::Connect { .. } | Self::ConnectTimeout { .. } | Self::NoAddress { .. } | Self::Timeout => {
                Blame::Path
            }
            Self::Tls { .. }
            | Self::Certificate { .. }
            | Self::Clock(_)
            | Self::Pin
            | Self::Closed
            | Self::HttpStatus { .. }
            | Self::ContentType
            | Self::BodyTooLarge
            | Self::Http2 { .. }
            | Self::Mismatch(_) => Blame::Server,
            Self::Overloaded | Self::Exhausted { .. } => Blame::Us,
            Self::ShuttingDown => Blame::Nobody,
        }
    }

    /// True when a certificate is refused for its dates: then this machine's clock may be the one that is wrong.
    pub fn is_about_dates(&self) -> bool {
        let Self::Certificate { error } = self else { return matches!(self, Self::Clock(_)) };
        matches!(
            error.as_ref(),
            rustls::Error::InvalidCertificate(
                CertificateError::Expired
                    | CertificateError::ExpiredContext { .. }
                    | CertificateError::NotValidYet
                    | CertificateError::NotValidYetContext { .. }
            )
        )
    }

    /// Returns the label of `veildns_upstream_queries_total{outcome}`.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Connect { .. } | Self::ConnectTimeout { .. } => "connect",
            Self::NoAddress { .. } => "no_address",
            Self::Tls { .. } => "tls",
            Self::Certificate { .. } | Self::Clock(_) => "certificate",
            Self::Pin => "pin",
            Self::Closed => "closed",
            Self::Timeout => "timeout",
            Self::HttpStatus { .. } | Self::ContentType | Self::BodyTooLarge | Self::Http2 { .. } => "http",
            Self::Mismatch(_) => "mismatch",
            Self::Overloaded => "overloaded",
            Self::Exhausted { .. } => "exhausted",
            Self::ShuttingDown => "shutting_down",
        }
    }
}

/// What transports need from their surroundings.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// The upstream runtime; connection tasks are spawned on it.
    pub runtime: Handle,
    /// The upstream runtimes there are, by lane; `runtime` is one of them.
    pub lanes: Arc<[Handle]>,
    /// Counts them, so that stopping can wait.
    pub tasks: TaskTracker,
    /// Ends them: connections get a second to finish their own.
    pub cancel: CancellationToken,
    /// Roots and versions.
    pub tls: Arc<tls::TlsContext>,
    /// For servers without addresses that lead to them.
    pub lookup: Arc<dyn Lookup>,
    /// Where we are.
    pub network: Arc<CurrentNetwork>,
    /// TCP and TLS together, one dial.
    pub connect_timeout: Duration,
    /// The bounds of the design.
    pub limits: Arc<Limits>,
    /// Where it is counted that one of them was reached.
    pub bounds: Arc<Bounds>,
}

/// Makes the transport of a server: the one registry of protocols.
///
/// # Errors
/// A CA file that cannot be read, a host that is no server name.
pub fn build(spec: &ServerSpec, around: &Surroundings) -> Result<Box<dyn Transport>, tls::TlsSetupError> {
    match &spec.endpoint {
        Endpoint::Dot { host, port } => dot::build(spec, (host, *port), around),
        Endpoint::Doh { .. } => doh::build(spec, around),
        Endpoint::PlainUdp { address } => Ok(plain::udp(*address, around)),
        Endpoint::PlainTcp { address } => Ok(plain::tcp(*address, around)),
    }
}

/// Makes the transports of servers. Scenarios put servers that follow a script in the place of [`Protocols`].
pub trait Builder: Debug + Send + Sync {
    /// Makes the transport of a server.
    ///
    /// # Errors
    /// As for [`build`].
    fn build(
        &self,
        spec: &ServerSpec,
        around: &Surroundings,
    ) -> Result<Box<dyn Transport>, tls::TlsSetupError>;
}

/// The protocols that this program speaks.
#[derive(Clone, Copy, Debug)]
pub struct Protocols;

impl Builder for Protocols {
    fn build(
        &self,
        spec: &ServerSpec,
        around: &Surroundings,
    ) -> Result<Box<dyn Transport>, tls::TlsSetupError> {
        build(spec, around)
    }
}

/// How long past its deadline a transport may complete before `exchange` stops waiting: transports keep deadlines coarsely.
const LATENESS: Duration = Duration::from_millis(500);

/// One query, awaited: for probes, look-ups and the command line. Cancel safe: dropping it forgets the answer.
///
/// # Errors
/// What the transport completed with; `Timeout` when it did not complete in time.
pub async fn exchange(
    transport: &dyn Transport,
    query: Bytes,
    deadline: Instant,
) -> Result<Received, TransportError> {
    let (sender, receiver) = oneshot::channel();
    let sink = Arc::new(Once { sender: Mutex::new(Some(sender)) });
    transport.submit(Exchange { query, deadline, ticket: Ticket::new(sink, 0), lane: 0 });
    match tokio::time::timeout_at((deadline + LATENESS).into(), receiver).await {
        Ok(outcome) => outcome.unwrap_or(Err(TransportError::ShuttingDown)),
        Err(_elapsed) => Err(TransportError::Timeout),
    }
}

/// Takes the one completion of `exchange`.
struct Once {
    /// Taken when it is used.
    sender: Mutex<Option<oneshot::Sender<Result<Received, TransportError>>>>,
}

impl CompletionSink for Once {
    fn completed(&self, _id: u64, outcome: Result<Received, TransportError>) {
        let sender = self.sender.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(sender) = sender {
            // Nobody waits any more: the answer is forgotten, as promised.
            let _ = sender.send(outcome);
        }
    }
}
