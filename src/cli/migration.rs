//! The command lines of those who come from another program: `proxy-dns` takes the flags and variables that cloudflared's
//! command of that name took, `import` reads the configurations of others. What all of it means here is said elsewhere
//! (`control::proxy_dns`, `control::import`).

use super::{ConfigArgs, Level};
use clap::Args;
#[cfg(feature = "tools")]
use clap::ValueEnum;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
#[cfg(feature = "tools")]
use std::path::PathBuf;
use std::str::FromStr;

/// Options of `proxy-dns`.
#[derive(Debug, Clone, Default, Args)]
pub struct ProxyDnsArgs {
    /// Listen on this address: an IP address, or `localhost` for 127.0.0.1 [default: localhost].
    #[arg(long, env = "TUNNEL_DNS_ADDRESS", hide_env_values = true)]
    pub address: Option<Filled<ListenAddress>>,
    /// Listen on this port, UDP and TCP [default: 53].
    #[arg(long, env = "TUNNEL_DNS_PORT", hide_env_values = true)]
    pub port: Option<Filled<u16>>,
    /// Ask this server; may be repeated, and the first that is well is asked [default: https://1.1.1.1/dns-query
    /// https://1.0.0.1/dns-query].
    #[arg(
        long,
        value_name = "URL",
        env = "TUNNEL_DNS_UPSTREAM",
        hide_env_values = true,
        value_delimiter = ','
    )]
    pub upstream: Vec<String>,
    /// Look the names of upstreams up here, encrypted, and nothing else: an https:// URL with an IP address; may be
    /// repeated [default: four addresses of Cloudflare].
    #[arg(
        long,
        value_name = "URL",
        env = "TUNNEL_DNS_BOOTSTRAP",
        hide_env_values = true,
        value_delimiter = ','
    )]
    pub bootstrap: Vec<String>,
    /// Connections to one server at most, from 1 to 64; 0 and more than 64 are 64 [default: 2].
    #[arg(long, value_name = "NUMBER", env = "TUNNEL_DNS_MAX_UPSTREAM_CONNS", hide_env_values = true)]
    pub max_upstream_conns: Option<Filled<u32>>,
    /// Serve metrics on this address [default: nowhere].
    #[arg(long, value_name = "ADDRESS:PORT", env = "TUNNEL_METRICS", hide_env_values = true)]
    pub metrics: Option<Filled<MetricsAddress>>,
    /// How much is logged.
    #[arg(long, alias = "log-level", value_name = "LEVEL", env = "TUNNEL_LOGLEVEL", hide_env_values = true)]
    pub loglevel: Option<Level>,
    /// Where the configuration is: flags and variables win over its keys.
    #[command(flatten)]
    pub config: ConfigArgs,
}

/// Options of `import`.
#[cfg(feature = "tools")]
#[derive(Debug, Clone, Args)]
pub struct ImportArgs {
    /// The other program's configuration file; `-` is standard input.
    #[arg(required_unless_present = "command")]
    pub file: Option<PathBuf>,
    /// Whose configuration it is [default: whose it looks like].
    #[arg(long, value_name = "PROGRAM")]
    pub from: Option<ImportFormat>,
    /// Write here, where no file is yet [default: standard output].
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// In place of a file, behind `--`: a command line of https_dns_proxy.
    #[arg(last = true, value_name = "COMMAND LINE", conflicts_with = "file")]
    pub command: Vec<String>,
}

/// Programs whose configuration is read.
#[cfg(feature = "tools")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ImportFormat {
    /// Stubby's stubby.yml.
    Stubby,
    /// OpenWrt's /etc/config/https-dns-proxy.
    HttpsDnsProxy,
}

/// What a flag or variable says; nothing when it is empty, as variables of containers often are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filled<T>(pub Option<T>);

impl<T: FromStr> FromStr for Filled<T> {
    type Err = T::Err;

    fn from_str(text: &str) -> Result<Self, T::Err> {
        if text.is_empty() { Ok(Self(None)) } else { text.parse().map(|value| Self(Some(value))) }
    }
}

/// An address to listen on without its port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenAddress(pub IpAddr);

impl FromStr for ListenAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.eq_ignore_ascii_case("localhost") {
            return Ok(Self(Ipv4Addr::LOCALHOST.into()));
        }
        let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
        bare.parse()
            .map(Self)
            .map_err(|_| "expected an IP address such as 127.0.0.1 or ::1, or localhost".to_owned())
    }
}

/// An address of the metrics page, in the forms that cloudflared took: `localhost:9153`, `:9153` for every address,
/// `localhost:` for any port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MetricsAddress(pub SocketAddr);

impl FromStr for MetricsAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "expected an address and a port such as 127.0.0.1:9153".to_owned();
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let address = match host {
            "" => Ipv4Addr::UNSPECIFIED.into(),
            host => host.parse::<ListenAddress>().map_err(|_| wrong())?.0,
        };
        let port = if port.is_empty() { 0 } else { port.parse().map_err(|_| wrong())? };
        Ok(Self(SocketAddr::new(address, port)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_in_every_form_that_cloudflared_took() {
        for (text, address) in
            [("localhost", "127.0.0.1"), ("0.0.0.0", "0.0.0.0"), ("::1", "::1"), ("[::]", "::")]
        {
            assert_eq!(text.parse(), Ok(ListenAddress(address.parse().unwrap())), "{text}");
        }
        for (text, address) in [
            ("localhost:", "127.0.0.1:0"),
            ("localhost:9153", "127.0.0.1:9153"),
            (":9153", "0.0.0.0:9153"),
            ("192.0.2.1:1", "192.0.2.1:1"),
            ("[::1]:9153", "[::1]:9153"),
        ] {
            assert_eq!(text.parse(), Ok(MetricsAddress(address.parse().unwrap())), "{text}");
        }
        for wrong in ["router.lan", "127.0.0.1:53", "", "1.2.3"] {
            assert!(wrong.parse::<ListenAddress>().is_err(), "{wrong}");
        }
        for wrong in ["9153", "host:1", "127.0.0.1:http", "[::1:9153"] {
            assert!(wrong.parse::<MetricsAddress>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_empty_is_not_said() {
        assert_eq!("".parse(), Ok(Filled::<u16>(None)));
        assert_eq!("53".parse(), Ok(Filled(Some(53_u16))));
        assert!("x".parse::<Filled<u16>>().is_err());
    }
}
