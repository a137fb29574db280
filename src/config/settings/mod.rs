//! What the program runs on: every value parsed, defaulted, bounded and checked against the others. After a
//! `Settings` exists nothing validates again.

pub mod dnstap;
pub mod timeouts;

use self::dnstap::DnstapSettings;
use super::otel::TraceSettings;
use crate::wire::name::Name;
use crate::wire::question::RecordType;
use ipnet::IpNet;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Everything the gateway needs to know.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Where it came from, for the start-up line.
    pub origin: Origin,
    /// Every file that was read, in the order of their merging.
    pub files: Vec<PathBuf>,
    /// Addresses of the gateway itself.
    pub listen: Vec<Listen>,
    /// Worker threads; fixed at start.
    pub workers: usize,
    /// Every server that some group names; `GroupSpec::members` index it.
    pub servers: Vec<Arc<ServerSpec>>,
    /// Index 0 is the default group.
    pub groups: Vec<GroupSpec>,
    /// In the order of the file.
    pub routes: Vec<RouteSpec>,
    /// The group that is asked for the names of servers and for nothing else; `None`: every name is known, or the default
    /// group looks them up. No route names it.
    pub bootstrap: Option<usize>,
    /// How long answers are kept.
    pub cache: CacheSettings,
    /// What servers learn about clients.
    pub privacy: PrivacySettings,
    /// Answers that point public names inwards.
    pub rebinding: RebindingSettings,
    /// `[clock] time_servers`: names, and all below them, that are looked up even if certificates' dates do not fit the clock.
    pub time_servers: Vec<Name>,
    /// `[policy] any`: what a query for every type gets.
    pub any: AnyQueries,
    /// Whom we trust.
    pub tls: TlsSettings,
    /// How long things may take.
    pub timeouts: timeouts::Timeouts,
    /// `[network] watch`: start afresh when the network changes or the machine has slept; fixed at start.
    pub watch_network: bool,
    /// What is to outlive a restart is kept here; `None`: nothing is; fixed at start.
    pub state_dir: Option<PathBuf>,
    /// Clients that are answered.
    pub access: Vec<IpNet>,
    /// Every bound.
    pub limits: Limits,
    /// What is logged.
    pub log: LogSettings,
    /// Events for a collector of dnstap; `None`: none.
    pub dnstap: Option<DnstapSettings>,
    /// Where metrics and health are served; `None`: nowhere.
    pub metrics: Option<SocketAddr>,
    /// Traces of queries that missed; `None`: none.
    pub traces: Option<TraceSettings>,
    /// Where `veildns status` and its like reach the gateway; fixed at start.
    pub control: ControlSocket,
    /// What should be logged once at start or reload (a skipped built-in address is not among them: that shows at bind).
    pub notices: Vec<String>,
}

/// Where the settings came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// No file was found.
    BuiltIn,
    /// This file, and what is merged after it.
    File(PathBuf),
}

/// An address to listen on, UDP and TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Listen {
    /// Where.
    pub address: SocketAddr,
    /// A built-in one that the host lacks is skipped; a written one is an error.
    pub written: bool,
}

/// One server, equal to another exactly when connections to it may be kept over a reload.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServerSpec {
    /// As the operator calls it; also the label of metrics.
    pub name: String,
    /// Protocol and place.
    pub endpoint: Endpoint,
    /// Where to connect, in order; empty: look the host's name up through the other servers.
    pub addresses: Vec<IpAddr>,
    /// Only these roots are trusted, when set.
    pub ca_file: Option<PathBuf>,
    /// SHA-256 of acceptable SPKIs (RFC 7858 §4.2); empty: any.
    pub pins: Vec<[u8; 32]>,
    /// Share of queries under the weighted strategy, from 1.
    pub weight: u32,
    /// Its AD bit may reach clients.
    pub trust_ad: bool,
}

/// Protocol and place of a server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// DNS over TLS (RFC 7858).
    Dot {
        /// Whose certificate is expected.
        host: Host,
        /// Where it answers.
        port: u16,
    },
    /// DNS over HTTPS (RFC 8484).
    Doh {
        /// Whose certificate is expected, and the URL's authority.
        host: Host,
        /// Where it answers.
        port: u16,
        /// Begins with `/`; without the template's `{?dns}`.
        path: String,
        /// How a query is sent.
        method: DohMethod,
    },
    /// Plain DNS over UDP: only in a group that a route names.
    PlainUdp {
        /// Where it answers.
        address: SocketAddr,
    },
    /// Plain DNS over TCP: only in a group that a route names.
    PlainTcp {
        /// Where it answers.
        address: SocketAddr,
    },
}

impl Endpoint {
    /// True when queries leave unencrypted.
    pub fn is_plaintext(&self) -> bool {
        self.address().is_some()
    }

    /// Returns where a plain server is; encrypted ones have `ServerSpec::addresses`.
    pub fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::PlainUdp { address } | Self::PlainTcp { address } => Some(*address),
            Self::Dot { .. } | Self::Doh { .. } => None,
        }
    }
}

/// A server's name or its address as written in a URL.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    /// Verified as a DNS name; lower case, without the last dot.
    Name(String),
    /// Verified as an IP address.
    Address(IpAddr),
}
impl std::fmt::Display for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(IpAddr::V6(a)) => write!(f, "[{a}]"),
            Self::Address(a) => write!(f, "{a}"),
        }
    }
}

/// How a DNS over HTTPS query is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DohMethod {
    /// RFC 8484 §4.1: the query is the body.
    Post,
    /// RFC 8484 §4.1: the query is in the URL, where caches on the way can use it.
    Get,
}

/// Servers of one group at most: more make no query better, and this many can be put in order without an allocation.
pub const MAX_MEMBERS: usize = 16;

/// A group of servers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GroupSpec {
    /// `default` for the first.
    pub name: String,
    /// Indexes into `Settings::servers`, in the operator's order.
    pub members: Vec<usize>,
    /// How one of them is chosen.
    pub strategy: StrategyKind,
    /// The operator wrote the URL of every member, and a route names the group: its names may have private
    /// addresses. Never true of the default group, which answers the names of everybody.
    pub own: bool,
}

/// How a group chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StrategyKind {
    /// Two random ones, the better by latency and load.
    Fastest,
    /// The first that is well.
    Failover,
    /// Random, by weight.
    Weighted,
    /// Each in turn.
    RoundRobin,
}

/// Names and types that go to a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteSpec {
    /// Suffixes; the longest match of all routes wins.
    pub domains: Vec<Name>,
    /// Empty: every type.
    pub types: Vec<RecordType>,
    /// Index into `Settings::groups`.
    pub group: usize,
}

/// How long answers are kept, and how many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheSettings {
    /// Octets; 0 turns the cache off.
    pub max_size: u64,
    /// Floor under every TTL.
    pub min_ttl: Duration,
    /// Ceiling over every TTL.
    pub max_ttl: Duration,
    /// Ceiling for NXDOMAIN and NODATA (RFC 2308 §5).
    pub negative_max_ttl: Duration,
    /// 0 turns stale answers off.
    pub max_stale: Duration,
    /// How long a client waits before a stale answer (RFC 8767 §5).
    pub stale_after: Duration,
    /// Refresh popular entries ahead of their end.
    pub prefetch: bool,
    /// How long a first failure is remembered (RFC 9520 §3.2); doubled while it goes on.
    pub failure_ttl: Duration,
    /// Where doubling ends; at least `failure_ttl`.
    pub failure_max_ttl: Duration,
}

/// What servers learn about clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrivacySettings {
    /// What they learn of the network.
    pub client_subnet: ClientSubnet,
    /// Queries are padded (RFC 8467 §4.1).
    pub padding: bool,
}

/// What happens to the client's network (RFC 7871).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientSubnet {
    /// Removed.
    Strip,
    /// Removed, and servers are asked to add none (RFC 7871 §7.1.2).
    OptOut,
    /// Sent on as the client wrote it.
    Forward,
    /// This one instead, for every client.
    Fixed(IpNet),
}

/// Answers that point public names inwards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RebindingSettings {
    /// Such answers are dropped.
    pub protect: bool,
    /// Suffixes of names that may.
    pub allow: Vec<Name>,
}

/// What a query for type ANY gets (RFC 8482).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AnyQueries {
    /// One small record, made here (RFC 8482 §4.2). Key value: `minimal`.
    #[default]
    Minimal,
    /// What the upstream says. Key value: `forward`.
    Forward,
}

/// Whom we trust.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TlsSettings {
    /// Where roots come from.
    pub roots: Roots,
    /// Every *.pem in it is trusted besides; None when the directory is the default one and is not there.
    pub extra_ca_dir: Option<PathBuf>,
    /// Nothing older is spoken.
    pub min_version: TlsVersion,
}
/// Sources of roots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Roots {
    /// Mozilla's, built in.
    Webpki,
    /// The operating system's.
    System,
}
/// Versions of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TlsVersion {
    /// RFC 5246.
    Tls12,
    /// RFC 8446.
    Tls13,
}

/// Datagrams of clients in one system call at most: their buffers are on the stack.
pub const MAX_UDP_BATCH: usize = 32;

/// Every bound of the design, by name. Defaults in `Default`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Queries waiting on upstreams, all clients.
    pub max_inflight: usize,
    /// Share of one client prefix (/32, /56) of those.
    pub max_inflight_per_client: usize,
    /// Clients waiting for one answer.
    pub waiters_per_flight: usize,
    /// Datagrams of clients that one system call takes or sends; at most [`MAX_UDP_BATCH`].
    pub udp_batch: usize,
    /// Connections of clients.
    pub tcp_connections: usize,
    /// Share of one client prefix of those.
    pub tcp_connections_per_client: usize,
    /// Queries waiting on one client connection.
    pub tcp_pipelined: usize,
    /// Octets of replies that one client connection leaves unread.
    pub tcp_unread: usize,
    /// Of those, all client connections together.
    pub tcp_unread_total: usize,
    /// An idle client connection is closed after this.
    pub tcp_idle: Duration,
    /// Reading one whole message.
    pub tcp_read: Duration,
    /// Queries in flight on one DNS over TLS connection.
    pub dot_streams: usize,
    /// Connections to one server.
    pub max_connections: usize,
    /// Connections to one server that are being opened at once.
    pub dials: usize,
    /// Queries waiting for a connection of one server.
    pub pool_queue: usize,
    /// UDP sockets open at once to one plain server, each for one query.
    pub plain_sockets: usize,
    /// Servers tried for one query.
    pub attempts: usize,
    /// Retries as a share of queries over 10 s, percent.
    pub retry_percent: u32,
    /// Queries asked of a second server because the first is slower than usual, percent of all; 0: none.
    pub hedge_percent: u32,
    /// Background refreshes at once.
    pub refresh_inflight: usize,
    /// Lines waiting for the query log.
    pub query_log_queue: usize,
    /// Octets of events waiting for the collector of dnstap.
    pub dnstap_queue: usize,
    /// Traces waiting for the collector.
    pub trace_queue: usize,
    /// Stop: how long waiting queries may take to end.
    pub drain_timeout: Duration,
}
impl Default for Limits {
    fn default() -> Self {
        Self {
            max_inflight: 4096,
            max_inflight_per_client: 2048,
            waiters_per_flight: 512,
            udp_batch: MAX_UDP_BATCH,
            tcp_connections: 512,
            tcp_connections_per_client: 16,
            tcp_pipelined: 64,
            tcp_unread: 256 * 1024,
            tcp_unread_total: 16 * 1024 * 1024,
            tcp_idle: Duration::from_secs(10),
            tcp_read: Duration::from_secs(5),
            dot_streams: 512,
            max_connections: 2,
            dials: 1,
            pool_queue: 4096,
            plain_sockets: 256,
            attempts: 3,
            retry_percent: 20,
            hedge_percent: 5,
            refresh_inflight: 16,
            query_log_queue: 8192,
            dnstap_queue: 4 * 1024 * 1024,
            trace_queue: 2048,
            drain_timeout: Duration::from_secs(5),
        }
    }
}

/// What is logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// Least important that is written.
    pub level: LogLevel,
    /// How a line looks.
    pub format: LogFormat,
    /// Whether queries are logged, and where.
    pub queries: QueryLog,
    /// What is in a line of the query log.
    pub query_lines: QueryLines,
}
/// Importance of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Something does not work.
    Error,
    /// Something may soon not work.
    Warn,
    /// Changes of state.
    Info,
    /// What happens to single queries, without names.
    Debug,
    /// Everything.
    Trace,
}
/// Forms of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For programs: one JSON object a line.
    Json,
}
/// Where queries are logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QueryLog {
    /// Nowhere.
    Off,
    /// Standard output.
    Stdout,
    /// Appended to this file.
    File(PathBuf),
}
/// What is in a line of the query log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueryLines {
    /// How it looks.
    pub format: QueryFormat,
    /// What it says of who asked.
    pub clients: QueryClients,
    /// What it says of the name asked for.
    pub names: QueryNames,
}
/// Forms of a line of the query log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum QueryFormat {
    /// For people.
    Text,
    /// For programs: one JSON object a line.
    #[default]
    Json,
}
/// What the query log and dnstap say of the client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum QueryClients {
    /// Its address.
    #[default]
    Full,
    /// Its network: /24 of IPv4, /56 of IPv6.
    Masked,
    /// Nothing.
    Absent,
}
/// What a line of the query log says of the name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum QueryNames {
    /// The name.
    #[default]
    Full,
    /// A hash under a key of this process: equal names are seen to be equal, until it ends.
    Hashed,
}

/// Where the running gateway can be asked how it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ControlSocket {
    /// In the directory that systemd or the session gives us for such things; nowhere without one.
    #[default]
    Usual,
    /// Nowhere.
    Off,
    /// At this path.
    At(PathBuf),
}
