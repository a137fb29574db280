//! What the program runs on: every value parsed, defaulted, bounded and checked against the others. After a
//! `Settings` exists nothing validates again.

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
    pub listen: Vec<Listen>,
    /// Worker threads; fixed at start.
    pub workers: usize,
    /// Every server that some group names; `GroupSpec::members` index it.
    pub servers: Vec<Arc<ServerSpec>>,
    /// Index 0 is the default group.
    pub groups: Vec<GroupSpec>,
    pub routes: Vec<RouteSpec>,
    pub cache: CacheSettings,
    pub privacy: PrivacySettings,
    pub rebinding: RebindingSettings,
    /// `[policy] any`: what a query for every type gets.
    pub any: AnyQueries,
    pub tls: TlsSettings,
    pub timeouts: Timeouts,
    /// Clients that are answered.
    pub access: Vec<IpNet>,
    pub limits: Limits,
    pub log: LogSettings,
    pub metrics: Option<SocketAddr>,
    /// What should be logged once at start or reload (a skipped built-in address is not among them: that shows at bind).
    pub notices: Vec<String>,
}

/// Where the settings came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    BuiltIn,
    File(PathBuf),
}

/// An address to listen on, UDP and TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Listen {
    pub address: SocketAddr,
    /// A built-in one that the host lacks is skipped; a written one is an error.
    pub written: bool,
}

/// One server, equal to another exactly when connections to it may be kept over a reload.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServerSpec {
    pub name: String,
    pub endpoint: Endpoint,
    /// Where to connect, in order; empty: look the host's name up through the other servers.
    pub addresses: Vec<IpAddr>,
    /// Only these roots are trusted, when set.
    pub ca_file: Option<PathBuf>,
    /// SHA-256 of acceptable SPKIs (RFC 7858 §4.2); empty: any.
    pub pins: Vec<[u8; 32]>,
    pub weight: u32,
    pub trust_ad: bool,
}

/// Protocol and place of a server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// DNS over TLS (RFC 7858).
    Dot {
        host: Host,
        port: u16,
    },
    /// DNS over HTTPS (RFC 8484). `path` begins with `/`, without the template's `{?dns}`.
    Doh {
        host: Host,
        port: u16,
        path: String,
        method: DohMethod,
    },
    /// Plain DNS: only in a group that a route names.
    PlainUdp {
        address: SocketAddr,
    },
    PlainTcp {
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
    Name(String),
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
    Post,
    Get,
}

/// A group of servers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GroupSpec {
    /// `default` for the first.
    pub name: String,
    /// Indexes into `Settings::servers`, in the operator's order.
    pub members: Vec<usize>,
    pub strategy: StrategyKind,
    /// All members were written by the operator as [server.*] or URL and a route names the group: its names may have private addresses.
    pub own: bool,
}

/// How a group chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StrategyKind {
    Fastest,
    Failover,
    Weighted,
    RoundRobin,
}

/// Names and types that go to a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteSpec {
    pub domains: Vec<Name>,
    /// Empty: every type.
    pub types: Vec<RecordType>,
    /// Index into `Settings::groups`.
    pub group: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheSettings {
    /// Octets; 0 turns the cache off.
    pub max_size: u64,
    pub min_ttl: Duration,
    pub max_ttl: Duration,
    pub negative_max_ttl: Duration,
    /// 0 turns stale answers off.
    pub max_stale: Duration,
    pub stale_after: Duration,
    pub prefetch: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrivacySettings {
    pub client_subnet: ClientSubnet,
    pub padding: bool,
}

/// What happens to the client's network (RFC 7871).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientSubnet {
    Strip,
    OptOut,
    Forward,
    Fixed(IpNet),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RebindingSettings {
    pub protect: bool,
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

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TlsSettings {
    pub roots: Roots,
    /// Every *.pem in it is trusted besides; None when the directory is the default one and is not there.
    pub extra_ca_dir: Option<PathBuf>,
    pub min_version: TlsVersion,
}
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Roots {
    Webpki,
    System,
}
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TlsVersion {
    Tls12,
    Tls13,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// All attempts of a query together.
    pub query: Duration,
    /// TCP and TLS together, one dial.
    pub connect: Duration,
}

/// Every bound of the design, by name. Defaults in `Default`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Queries waiting on upstreams, all clients.
    pub max_inflight: usize,
    /// Share of one client prefix (/32, /56) of those.
    pub max_inflight_per_client: usize,
    pub waiters_per_flight: usize,
    pub tcp_connections: usize,
    pub tcp_connections_per_client: usize,
    pub tcp_pipelined: usize,
    pub tcp_idle: Duration,
    /// Reading one whole message.
    pub tcp_read: Duration,
    /// Queries in flight on one DNS over TLS connection.
    pub dot_streams: usize,
    /// Connections to one server.
    pub max_connections: usize,
    /// Queries waiting for a connection of one server.
    pub pool_queue: usize,
    pub attempts: usize,
    /// Retries as a share of queries over 10 s, percent.
    pub retry_percent: u32,
    pub refresh_inflight: usize,
    pub query_log_queue: usize,
    /// Stop: how long waiting queries may take to end.
    pub drain_timeout: Duration,
}
impl Default for Limits {
    fn default() -> Self {
        Self {
            max_inflight: 4096,
            max_inflight_per_client: 2048,
            waiters_per_flight: 512,
            tcp_connections: 512,
            tcp_connections_per_client: 16,
            tcp_pipelined: 64,
            tcp_idle: Duration::from_secs(10),
            tcp_read: Duration::from_secs(5),
            dot_streams: 512,
            max_connections: 2,
            pool_queue: 4096,
            attempts: 3,
            retry_percent: 20,
            refresh_inflight: 16,
            query_log_queue: 8192,
            drain_timeout: Duration::from_secs(5),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSettings {
    pub level: LogLevel,
    pub format: LogFormat,
    pub queries: QueryLog,
}
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QueryLog {
    Off,
    Stdout,
    File(PathBuf),
}
