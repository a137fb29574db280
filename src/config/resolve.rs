//! From what the operator wrote to what the program runs on: each table of the file by its own function, defaults
//! filled in, and the checks between tables. What is *not* here: servers and groups (`servers`, `groups`), bounds and times (`limits`).

use super::document::{Node, Table, Text};
use super::error::{Fault, Faults};
use super::groups;
use super::limits;
use super::otel;
use super::section::Section;
use super::servers::Servers;
use super::settings::dnstap::{Collector, DnstapSettings, MessageKind, MessageKinds};
use super::settings::{
    AnyQueries, CacheSettings, ClientSubnet, ControlSocket, Listen, LogFormat, LogLevel, LogSettings, Origin,
    PrivacySettings, QueryClients, QueryFormat, QueryLines, QueryLog, QueryNames, RebindingSettings, Roots,
    Settings, TlsSettings, TlsVersion,
};
use super::values;
use crate::wire::name::Name;
use ipnet::IpNet;
use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::thread::available_parallelism;
use std::time::Duration;

/// The port of the built-in default: it needs no privilege, and guides for other programs use it too.
const DEFAULT_PORT: u16 = 5053;

/// What the key `tls.extra_ca_dir` is when it is not written.
const DEFAULT_CA_DIR: &str = "certs";

/// A day, the unit of the cache's bounds.
const DAY: Duration = Duration::from_secs(86_400);

/// Turns the tree into settings. Every fault is reported; with any, the settings are not to be used.
pub(crate) fn resolve(root: &Table, texts: &[Text], origin: Origin, faults: &mut Faults) -> Settings {
    let root = Section::root(root);
    let listen = read_listen(&root, faults);
    let mut servers = Servers::read(&root.child("server"), texts, faults);
    let routing = groups::read(&root, &mut servers, &listen, faults);
    let (servers, mut notices) = servers.finish();
    let access = read_access(&root.child("access"), &listen, faults, &mut notices);
    let privacy = read_privacy(&root.child("privacy"), faults, &mut notices);
    let dnstap = read_dnstap(&root.child("dnstap"), texts, faults, &mut notices);
    let traces = otel::read(&root.child("otel"), faults, &mut notices);
    Settings {
        workers: root
            .read("workers", faults, |node| values::count(node, 1..=1024))
            .unwrap_or_else(|| available_parallelism().map_or(1, usize::from)),
        servers,
        groups: routing.groups,
        routes: routing.routes,
        bootstrap: routing.bootstrap,
        cache: read_cache(&root.child("cache"), faults),
        privacy,
        rebinding: read_rebinding(&root.child("rebinding"), faults),
        time_servers: read_time_servers(&root.child("clock"), faults),
        any: read_any(&root.child("policy"), faults),
        tls: read_tls(&root.child("tls"), texts, &origin, faults),
        timeouts: limits::read_timeouts(&root.child("timeouts"), faults),
        watch_network: root.child("network").read("watch", faults, Node::boolean).unwrap_or(true),
        state_dir: root.read("state_dir", faults, |node| values::path(node, texts)),
        access,
        limits: limits::read_limits(&root.child("limits"), faults),
        log: read_log(&root.child("log"), texts, faults),
        dnstap,
        metrics: read_metrics(&root.child("metrics"), &listen, faults),
        traces,
        control: read_control(&root.child("control"), texts, faults),
        origin,
        files: Vec::new(),
        listen,
        notices,
    }
}

/// Reads `listen`. Written addresses have to work; the built-in ones may be missing on a host.
fn read_listen(root: &Section<'_>, faults: &mut Faults) -> Vec<Listen> {
    let Some(node) = root.node("listen") else {
        return [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)]
            .map(|ip| Listen { address: SocketAddr::new(ip, DEFAULT_PORT), written: false })
            .to_vec();
    };
    if node.list().is_ok_and(<[Node]>::is_empty) {
        faults.push(node.fault("listen is empty", "expected at least one address"));
    }
    let mut seen = HashSet::new();
    let mut unique = Vec::new();
    for (address, item) in root
        .read_list("listen", faults, |item| values::socket_address(item).map(|at| (at, item.clone())))
        .unwrap_or_default()
    {
        // Port 0 is any free port: two of them are two ports.
        if address.port() != 0 && !seen.insert(address) {
            faults.push(item.fault(format!("listen: {address} is listed twice"), "leave one out"));
            continue;
        }
        unique.push(Listen { address, written: true });
    }
    unique
}

/// Reads `[access]`. The default keeps strangers out: loopback, and private ranges only when others can reach us at all.
fn read_access(
    section: &Section<'_>,
    listen: &[Listen],
    faults: &mut Faults,
    notices: &mut Vec<String>,
) -> Vec<IpNet> {
    let reachable = listen.iter().any(|listen| !listen.address.ip().is_loopback());
    let allowed = section.read_list("allow", faults, values::prefix).unwrap_or_else(|| {
        let private: &[&str] = if reachable { &PRIVATE } else { &[] };
        LOOPBACK.iter().chain(private).filter_map(|text| values::parse_prefix(text)).collect()
    });
    let open_v4 = allowed.iter().any(|net| matches!(net, IpNet::V4(net) if net.prefix_len() == 0));
    let open_v6 = allowed.iter().any(|net| matches!(net, IpNet::V6(net) if net.prefix_len() == 0));
    for listen in listen {
        let open = if listen.address.is_ipv4() { open_v4 } else { open_v6 };
        if open && is_public(listen.address.ip()) {
            notices.push(format!(
                "open resolver: {} answers the whole Internet, which is used in attacks; narrow access.allow",
                listen.address
            ));
        }
    }
    allowed
}

/// Clients on this host.
const LOOPBACK: [&str; 2] = ["127.0.0.0/8", "::1/128"];

/// Clients of a home or office: RFC 1918, RFC 6598, RFC 3927, RFC 4193, RFC 4291.
const PRIVATE: [&str; 7] = [
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "100.64.0.0/10",
    "169.254.0.0/16",
    "fc00::/7",
    "fe80::/10",
];

/// Returns true for an address that may be reached from outside: also the unspecified one, which is every address.
fn is_public(address: IpAddr) -> bool {
    let inside = LOOPBACK
        .iter()
        .chain(&PRIVATE)
        .filter_map(|text| values::parse_prefix(text))
        .any(|net| net.contains(&address));
    !inside
}

/// Reads `[cache]`.
fn read_cache(section: &Section<'_>, faults: &mut Faults) -> CacheSettings {
    /// RFC 2181 §8: a TTL has 31 bits.
    const LONGEST: Duration = Duration::from_secs(0x7FFF_FFFF);
    let read = |key, faults: &mut Faults, usual| {
        section.read(key, faults, |node| values::duration(node, Duration::ZERO..=LONGEST)).unwrap_or(usual)
    };
    let min_ttl = read("min_ttl", faults, Duration::ZERO);
    let max_ttl = read("max_ttl", faults, DAY);
    if let Some(node) = section.node("min_ttl").or(section.node("max_ttl")).filter(|_| min_ttl > max_ttl) {
        faults.push(node.fault("cache.min_ttl is above cache.max_ttl", "nothing can be kept for both"));
    }
    // RFC 9520 §3.2: at least a second, and not longer than five minutes.
    let failure = |key, faults: &mut Faults, usual| {
        let bounds = Duration::from_secs(1)..=Duration::from_secs(300);
        let read = section.read(key, faults, |node| values::duration(node, bounds.clone()));
        read.unwrap_or(Duration::from_secs(usual))
    };
    let failure_ttl = failure("failure_ttl", faults, 5);
    let failure_max_ttl = failure("failure_max_ttl", faults, 60);
    let [first, longest] = ["failure_ttl", "failure_max_ttl"].map(|key| section.node(key));
    let times =
        [("cache.failure_ttl", first, failure_ttl), ("cache.failure_max_ttl", longest, failure_max_ttl)];
    limits::in_order(times, faults);
    CacheSettings {
        max_size: section
            .read("max_size", faults, |node| values::size(node, 0..=1 << 40))
            .unwrap_or(64 << 20),
        min_ttl,
        max_ttl,
        negative_max_ttl: read("negative_max_ttl", faults, Duration::from_secs(3600)),
        max_stale: read("max_stale", faults, DAY),
        stale_after: read("stale_after", faults, Duration::from_millis(1800)),
        prefetch: section.read("prefetch", faults, Node::boolean).unwrap_or(true),
        failure_ttl,
        failure_max_ttl,
    }
}

/// Reads `[privacy]`.
fn read_privacy(section: &Section<'_>, faults: &mut Faults, notices: &mut Vec<String>) -> PrivacySettings {
    let client_subnet = section.read("client_subnet", faults, client_subnet).unwrap_or(ClientSubnet::Strip);
    if let ClientSubnet::Fixed(net) = client_subnet {
        // RFC 7871 §11.1: the lengths that still hide one household.
        let longest = if net.addr().is_ipv4() { 24 } else { 56 };
        if net.prefix_len() > longest {
            notices.push(format!(
                "privacy.client_subnet {net} is so long that it may point at you: /{longest} is customary"
            ));
        }
    }
    let padding = section.read("padding", faults, Node::boolean).unwrap_or(true);
    PrivacySettings { client_subnet, padding }
}

/// Reads what happens to the client's network: one of the words, or a prefix.
fn client_subnet(node: &Node) -> Result<ClientSubnet, Fault> {
    let text = node.text()?;
    if let Some(net) = values::parse_prefix(text) {
        return Ok(ClientSubnet::Fixed(net));
    }
    let words = [
        ("strip", ClientSubnet::Strip),
        ("opt-out", ClientSubnet::OptOut),
        ("forward", ClientSubnet::Forward),
    ];
    values::choice(node, &words).map_err(|fault| {
        fault.with_label("expected strip | opt-out | forward | a prefix such as 192.0.2.0/24")
    })
}

/// Names of time servers that systems come with.
const TIME_SERVERS: [&str; 7] = [
    "pool.ntp.org",
    "ntp.ubuntu.com",
    "time.cloudflare.com",
    "time.google.com",
    "time.windows.com",
    "time.apple.com",
    "time.nist.gov",
];

/// Reads `[clock]`. The root is no time server: it would overlook every date.
fn read_time_servers(section: &Section<'_>, faults: &mut Faults) -> Vec<Name> {
    let name = |node: &Node| {
        let name = values::suffix(node)?;
        if name.view().is_root() {
            return Err(
                node.fault("clock.time_servers: the root is no time server", "expected the name of one")
            );
        }
        Ok(name)
    };
    section
        .read_list("time_servers", faults, name)
        .unwrap_or_else(|| TIME_SERVERS.iter().filter_map(|name| name.parse().ok()).collect())
}

/// Reads `[rebinding]`.
fn read_rebinding(section: &Section<'_>, faults: &mut Faults) -> RebindingSettings {
    RebindingSettings {
        protect: section.read("protect", faults, Node::boolean).unwrap_or(true),
        allow: section.read_list("allow", faults, values::suffix).unwrap_or_default(),
    }
}

/// Reads `[policy]`.
fn read_any(section: &Section<'_>, faults: &mut Faults) -> AnyQueries {
    let words = [("minimal", AnyQueries::Minimal), ("forward", AnyQueries::Forward)];
    section.read("any", faults, |node| values::choice(node, &words)).unwrap_or_default()
}

/// Reads `[tls]`.
fn read_tls(section: &Section<'_>, texts: &[Text], origin: &Origin, faults: &mut Faults) -> TlsSettings {
    let roots = [("webpki", Roots::Webpki), ("system", Roots::System)];
    let versions = [("1.2", TlsVersion::Tls12), ("1.3", TlsVersion::Tls13)];
    let extra_ca_dir = match section.node("extra_ca_dir") {
        Some(node) if node.text().is_ok_and(|text| text != DEFAULT_CA_DIR) => {
            section.read("extra_ca_dir", faults, |node| values::existing_path(node, texts))
        }
        Some(_) => section
            .read("extra_ca_dir", faults, |node| values::path(node, texts))
            .filter(|path| path.is_dir()),
        None => default_ca_dir(origin),
    };
    TlsSettings {
        roots: section.read("roots", faults, |node| values::choice(node, &roots)).unwrap_or(Roots::Webpki),
        extra_ca_dir,
        min_version: section
            .read("min_version", faults, |node| values::choice(node, &versions))
            .unwrap_or(TlsVersion::Tls12),
    }
}

/// Returns the directory of further roots beside the file, when there is a file and a directory.
fn default_ca_dir(origin: &Origin) -> Option<PathBuf> {
    match origin {
        Origin::File(file) => Some(super::folder_of(file).join(DEFAULT_CA_DIR)).filter(|path| path.is_dir()),
        Origin::BuiltIn => None,
    }
}

/// Reads `[log]`.
fn read_log(section: &Section<'_>, texts: &[Text], faults: &mut Faults) -> LogSettings {
    let levels = [
        ("error", LogLevel::Error),
        ("warn", LogLevel::Warn),
        ("info", LogLevel::Info),
        ("debug", LogLevel::Debug),
        ("trace", LogLevel::Trace),
    ];
    let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
    LogSettings {
        level: section.read("level", faults, |node| values::choice(node, &levels)).unwrap_or(LogLevel::Info),
        format: section
            .read("format", faults, |node| values::choice(node, &formats))
            .unwrap_or(LogFormat::Text),
        queries: section
            .read("queries", faults, |node| match node.text()? {
                "off" => Ok(QueryLog::Off),
                "stdout" => Ok(QueryLog::Stdout),
                _ => values::path(node, texts).map(QueryLog::File),
            })
            .unwrap_or(QueryLog::Off),
        query_lines: read_query_lines(section, faults),
    }
}

/// Words for what is said of clients.
const CLIENTS: [(&str, QueryClients); 3] =
    [("full", QueryClients::Full), ("masked", QueryClients::Masked), ("absent", QueryClients::Absent)];

/// Reads what is in a line of the query log.
fn read_query_lines(section: &Section<'_>, faults: &mut Faults) -> QueryLines {
    let formats = [("json", QueryFormat::Json), ("text", QueryFormat::Text)];
    let names = [("full", QueryNames::Full), ("hashed", QueryNames::Hashed)];
    QueryLines {
        format: section
            .read("query_format", faults, |node| values::choice(node, &formats))
            .unwrap_or_default(),
        clients: section
            .read("query_clients", faults, |node| values::choice(node, &CLIENTS))
            .unwrap_or_default(),
        names: section.read("query_names", faults, |node| values::choice(node, &names)).unwrap_or_default(),
    }
}

/// Reads `[dnstap]`.
fn read_dnstap(
    section: &Section<'_>,
    texts: &[Text],
    faults: &mut Faults,
    notices: &mut Vec<String>,
) -> Option<DnstapSettings> {
    let collector = section.read("output", faults, |node| collector(node, texts)).flatten();
    let messages = section.read_list("messages", faults, |node| values::choice(node, &MessageKind::WORDS));
    if let Some(node) = section.node("messages").filter(|node| node.list().is_ok_and(<[Node]>::is_empty)) {
        faults.push(node.fault("dnstap.messages is empty", "expected at least one kind"));
    }
    let clients = section.read("clients", faults, |node| values::choice(node, &CLIENTS));
    let identity = section.read("identity", faults, |node| node.text().map(str::to_owned));
    let collector = collector?;
    if matches!(&collector, Collector::Tcp(address) if !address.ip().is_loopback()) {
        notices.push(format!("dnstap: what clients ask leaves this machine unencrypted, for {collector}"));
    }
    Some(DnstapSettings {
        collector,
        messages: messages.map_or(MessageKinds::ALL, MessageKinds::from_iter),
        clients: clients.unwrap_or_default(),
        identity: identity.unwrap_or_default(),
    })
}

/// Reads where a collector listens; None when there is none.
fn collector(node: &Node, texts: &[Text]) -> Result<Option<Collector>, Fault> {
    const EXPECTED: &str = "expected off, unix:/path or tcp://address:port";
    let text = node.text()?;
    if text == "off" {
        return Ok(None);
    }
    if let Some(path) = text.strip_prefix("unix:") {
        return values::socket_path(node, path, texts).map(|path| Some(Collector::Unix(path)));
    }
    let address = text.strip_prefix("tcp://").and_then(|address| address.parse().ok());
    address
        .map(|address| Some(Collector::Tcp(address)))
        .ok_or_else(|| node.fault(format!("{text:?} is no place of a collector"), EXPECTED))
}

/// Reads `[control]`.
fn read_control(section: &Section<'_>, texts: &[Text], faults: &mut Faults) -> ControlSocket {
    section
        .read("socket", faults, |node| match node.text()? {
            "off" => Ok(ControlSocket::Off),
            path => values::socket_path(node, path, texts).map(ControlSocket::At),
        })
        .unwrap_or_default()
}

/// Reads `[metrics]`; its address cannot be one where DNS over TCP is answered.
fn read_metrics(section: &Section<'_>, listen: &[Listen], faults: &mut Faults) -> Option<SocketAddr> {
    section.read("listen", faults, |node| {
        let address = values::socket_address(node)?;
        if address.port() != 0 && listen.iter().any(|listen| listen.address == address) {
            return Err(node.fault(format!("{address} is taken"), "DNS is answered on this address"));
        }
        Ok(address)
    })
}
