//! `veildns proxy-dns`: stands in for cloudflared's command of that name. Its flags and variables become keys of an ordinary
//! configuration; what they leave unsaid means what it meant there, unless a configuration file says otherwise. It runs
//! nothing itself (`run`).

use super::sources;
use crate::cli::migration::{Filled, ListenAddress, ProxyDnsArgs};
use crate::config::Source;
use crate::config::overrides::Assigned;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Where it listens unless told otherwise.
const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// See [`ADDRESS`].
const PORT: u16 = 53;

/// Whom it asks unless told otherwise.
const UPSTREAMS: [&str; 2] = ["https://1.1.1.1/dns-query", "https://1.0.0.1/dns-query"];

/// Who looks names of upstreams up unless told otherwise.
const BOOTSTRAP: [&str; 4] = [
    "https://162.159.36.1/dns-query",
    "https://162.159.46.1/dns-query",
    "https://[2606:4700:4700::1111]/dns-query",
    "https://[2606:4700:4700::1001]/dns-query",
];

/// The bound of `limits.max_connections`.
const MOST_CONNECTIONS: u32 = 64;

/// Returns the configuration that the flags and variables stand for.
pub(super) fn source(args: &ProxyDnsArgs) -> Source {
    let Source { path, overrides } = sources::source(&args.config);
    let mut overrides = overrides
        .with_default("listen", listen(ADDRESS, PORT))
        .with_default("upstreams", Assigned::List(UPSTREAMS.map(str::to_owned).to_vec()))
        .with_default("bootstrap", Assigned::List(BOOTSTRAP.map(str::to_owned).to_vec()))
        // In their order, the next only when the one before fails.
        .with_default("strategy", Assigned::Text("failover".to_owned()))
        .with_flag("--upstream", "upstreams", Assigned::List(filled(&args.upstream)))
        .with_flag("--bootstrap", "bootstrap", Assigned::List(filled(&args.bootstrap)));
    let address = said(args.address).map(|ListenAddress(address)| address);
    let port = said(args.port);
    if address.is_some() || port.is_some() {
        let listen = listen(address.unwrap_or(ADDRESS), port.unwrap_or(PORT));
        overrides = overrides.with_flag("--address and --port", "listen", listen);
    }
    if let Some(most) = said(args.max_upstream_conns) {
        let most = if most == 0 { MOST_CONNECTIONS } else { most.min(MOST_CONNECTIONS) };
        let most = Assigned::Integer(most.into());
        overrides = overrides.with_flag("--max-upstream-conns", "limits.max_connections", most);
    }
    if let Some(metrics) = said(args.metrics) {
        let metrics = Assigned::Text(metrics.0.to_string());
        overrides = overrides.with_flag("--metrics", "metrics.listen", metrics);
    }
    if let Some(level) = args.loglevel {
        overrides = overrides.with_flag("--loglevel", "log.level", sources::level(level));
    }
    Source { path, overrides }
}

/// Returns what a flag or variable says, if anything.
fn said<T>(value: Option<Filled<T>>) -> Option<T> {
    value.and_then(|Filled(value)| value)
}

/// Leaves out what says nothing, such as the one item of an empty variable.
fn filled(items: &[String]) -> Vec<String> {
    items.iter().map(|item| item.trim()).filter(|item| !item.is_empty()).map(str::to_owned).collect()
}

/// Returns the addresses to listen on: cloudflared's `::` was every address of both families.
fn listen(address: IpAddr, port: u16) -> Assigned {
    let every = [IpAddr::V6(Ipv6Addr::UNSPECIFIED), IpAddr::V4(Ipv4Addr::UNSPECIFIED)];
    let addresses = if address == every[0] { every.to_vec() } else { vec![address] };
    Assigned::List(addresses.into_iter().map(|address| SocketAddr::new(address, port).to_string()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use crate::config::settings::{Settings, StrategyKind};
    use std::io::Write as _;

    /// Loads what the flags stand for, over a file.
    fn settings(args: &ProxyDnsArgs, file: &str) -> Settings {
        let mut written = tempfile::NamedTempFile::new().unwrap();
        written.write_all(file.as_bytes()).unwrap();
        let mut source = source(args);
        source.path = Some(written.path().to_owned());
        // Whoever runs the tests may have variables for them.
        source.overrides = source.overrides.with_environment([]);
        config::load(&source).unwrap_or_else(|errors| panic!("{errors}"))
    }

    /// Where it listens.
    fn listening(settings: &Settings) -> Vec<String> {
        settings.listen.iter().map(|listen| listen.address.to_string()).collect()
    }

    /// The servers' names.
    fn servers(settings: &Settings) -> Vec<&str> {
        settings.servers.iter().map(|server| server.name.as_str()).collect()
    }

    #[test]
    fn without_flags_it_does_what_cloudflared_did() {
        let settings = settings(&ProxyDnsArgs::default(), "");
        assert_eq!(listening(&settings), ["127.0.0.1:53"]);
        // Both are addresses: nobody is needed to look them up.
        assert_eq!(servers(&settings), UPSTREAMS);
        assert_eq!(settings.groups[0].strategy, StrategyKind::Failover);
        assert_eq!((settings.bootstrap, settings.metrics), (None, None));
    }

    #[test]
    fn the_flags_of_the_usual_guide_mean_what_they_meant() {
        let args = ProxyDnsArgs {
            port: Some(Filled(Some(5053))),
            upstream: vec!["https://cloudflare-dns.com/dns-query".to_owned()],
            ..ProxyDnsArgs::default()
        };
        let settings = settings(&args, "");
        assert_eq!(listening(&settings), ["127.0.0.1:5053"]);
        assert_eq!(settings.groups[0].members, [0]);
        let bootstrap = &settings.groups[settings.bootstrap.unwrap()];
        assert_eq!(bootstrap.members.len(), BOOTSTRAP.len());
        assert!(servers(&settings)[1..].iter().eq(BOOTSTRAP.iter()));
    }

    #[test]
    fn flags_win_over_a_file_and_a_file_over_what_is_unsaid() {
        let file = "listen = [\"127.0.0.1:1053\"]\nstrategy = \"weighted\"\n[limits]\nmax_connections = 3";
        let quiet = settings(&ProxyDnsArgs::default(), file);
        assert_eq!(listening(&quiet), ["127.0.0.1:1053"]);
        assert_eq!((quiet.groups[0].strategy, quiet.limits.max_connections), (StrategyKind::Weighted, 3));
        let args = ProxyDnsArgs {
            address: Some(Filled("::".parse().ok())),
            metrics: Some(Filled("localhost:9153".parse().ok())),
            max_upstream_conns: Some(Filled(Some(0))),
            loglevel: Some(crate::cli::Level::Debug),
            upstream: vec![String::new()],
            ..ProxyDnsArgs::default()
        };
        let loud = settings(&args, file);
        assert_eq!(listening(&loud), ["[::]:53", "0.0.0.0:53"]);
        assert_eq!(loud.limits.max_connections, 64);
        assert_eq!(loud.metrics, Some("127.0.0.1:9153".parse().unwrap()));
        assert_eq!(loud.log.level, crate::config::settings::LogLevel::Debug);
        assert_eq!(servers(&loud), UPSTREAMS);
    }
}
