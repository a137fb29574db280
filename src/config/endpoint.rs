//! Where a server is, read from its URL: `tls://host[:853]`, `https://host[:443]/path[{?dns}]`, `udp://ip[:53]`,
//! `tcp://ip[:53]`. What is *not* here: names of presets and of `[server.*]` (`servers`).

use super::settings::{DohMethod, Endpoint, Host};
use crate::wire::name::{Name, NameError};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// RFC 7858 §3.1: the port of DNS over TLS.
pub(crate) const DOT_PORT: u16 = 853;
/// The port of HTTPS.
pub(crate) const HTTPS_PORT: u16 = 443;
/// The port of plain DNS.
const DNS_PORT: u16 = 53;

/// Why a text is no URL of a server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UrlError {
    /// Nothing that looks like a URL.
    #[error("not a URL of a server")]
    NoScheme,
    /// A protocol that we know and do not speak.
    #[error("{0}:// is not supported yet")]
    NotYet(&'static str),
    /// HTTP without TLS.
    #[error("http:// would send queries unencrypted")]
    Http,
    /// A protocol that we do not know.
    #[error("unknown scheme {0}://")]
    UnknownScheme(String),
    /// Nothing behind `://`.
    #[error("the host is missing")]
    NoHost,
    /// No domain name.
    #[error("the host {host:?} is not a name")]
    BadHost {
        /// As written.
        host: String,
        /// What is wrong with it.
        #[source]
        error: NameError,
    },
    /// A domain name, but not of a host.
    #[error("the host {0:?} is not a host name")]
    NotHostName(String),
    /// As written.
    #[error("{0:?} is not a port from 1 to 65535")]
    BadPort(String),
    /// As written.
    #[error("{0:?} is not an IPv6 address in brackets")]
    BadBracket(String),
    /// Something before an `@`.
    #[error("a user name in a URL is not supported")]
    UserInfo,
    /// A name where an address has to be.
    #[error("plain servers are given by address, not by name")]
    PlainName,
    /// A path where none belongs.
    #[error("{0}:// has no path")]
    UnexpectedPath(&'static str),
    /// No path where one belongs.
    #[error("the path is missing")]
    NoPath,
    /// Characters that need escaping, a query or a fragment.
    #[error("the path has characters that do not belong there")]
    BadPath,
    /// A template other than `{?dns}` at the end.
    #[error("only the template {{?dns}} may follow the path")]
    BadTemplate,
}

impl UrlError {
    /// Says what to write instead.
    pub(crate) fn help(&self) -> &'static str {
        match self {
            Self::NoScheme | Self::UnknownScheme(_) => {
                "write tls://host or https://host/path, or a name that `veildns upstreams --all` lists"
            }
            Self::NotYet(_) => "use the server's tls:// or https:// form",
            Self::Http => "write https://",
            Self::NoHost | Self::NotHostName(_) => "write a host name or an address behind ://",
            Self::BadHost { .. } => "names outside ASCII are written in their xn-- form",
            Self::BadPort(_) => "leave the port out for the usual one",
            Self::BadBracket(_) => "an IPv6 address is written as in tls://[2001:db8::1]",
            Self::UserInfo => "leave out what stands before the @",
            Self::PlainName => "write udp:// and the IP address",
            Self::UnexpectedPath(_) => "end the URL behind the host and port",
            Self::NoPath => "most servers use /dns-query",
            Self::BadPath => "a path has no blanks, no ? and no #",
            Self::BadTemplate => "end in {?dns} for GET requests, or without it for POST",
        }
    }
}

/// Reads a URL.
pub(crate) fn parse(url: &str) -> Result<Endpoint, UrlError> {
    let (scheme, rest) = url.split_once("://").ok_or_else(|| match url.split_once(':') {
        Some(("sdns", _)) => UrlError::NotYet("sdns"),
        Some(_) | None => UrlError::NoScheme,
    })?;
    let (authority, path) = match rest.find(['/', '{', '?', '#']) {
        Some(at) => rest.split_at(at),
        None => (rest, ""),
    };
    match scheme.to_ascii_lowercase().as_str() {
        "tls" => {
            let (host, port) = without_path("tls", path).and_then(|()| parse_authority(authority))?;
            Ok(Endpoint::Dot { host, port: port.unwrap_or(DOT_PORT) })
        }
        "https" => {
            let (host, port) = parse_authority(authority)?;
            let (path, method) = parse_path(path)?;
            Ok(Endpoint::Doh { host, port: port.unwrap_or(HTTPS_PORT), path, method })
        }
        "udp" => without_path("udp", path)
            .and_then(|()| plain_address(authority))
            .map(|address| Endpoint::PlainUdp { address }),
        "tcp" => without_path("tcp", path)
            .and_then(|()| plain_address(authority))
            .map(|address| Endpoint::PlainTcp { address }),
        "quic" => Err(UrlError::NotYet("quic")),
        "h3" => Err(UrlError::NotYet("h3")),
        "sdns" => Err(UrlError::NotYet("sdns")),
        "http" => Err(UrlError::Http),
        other => Err(UrlError::UnknownScheme(other.to_owned())),
    }
}

/// Writes an endpoint as the URL that gives it.
pub(crate) fn show(endpoint: &Endpoint) -> String {
    let with_port = |host: &Host, port: u16, usual: u16| {
        if port == usual { host.to_string() } else { format!("{host}:{port}") }
    };
    match endpoint {
        Endpoint::Dot { host, port } => format!("tls://{}", with_port(host, *port, DOT_PORT)),
        Endpoint::Doh { host, port, path, method } => {
            let template = match method {
                DohMethod::Get => "{?dns}",
                DohMethod::Post => "",
            };
            format!("https://{}{path}{template}", with_port(host, *port, HTTPS_PORT))
        }
        Endpoint::PlainUdp { address } => {
            format!("udp://{}", with_port(&Host::Address(address.ip()), address.port(), DNS_PORT))
        }
        Endpoint::PlainTcp { address } => {
            format!("tcp://{}", with_port(&Host::Address(address.ip()), address.port(), DNS_PORT))
        }
    }
}

/// Returns the host of an encrypted endpoint.
pub(crate) fn host(endpoint: &Endpoint) -> Option<&Host> {
    match endpoint {
        Endpoint::Dot { host, .. } | Endpoint::Doh { host, .. } => Some(host),
        Endpoint::PlainUdp { .. } | Endpoint::PlainTcp { .. } => None,
    }
}

/// Reads a host name or address, as a URL or an upstream has it.
pub(crate) fn parse_host(text: &str) -> Result<Host, UrlError> {
    if text.is_empty() {
        return Err(UrlError::NoHost);
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(Host::Address(address));
    }
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    name.parse::<Name>().map_err(|error| UrlError::BadHost { host: text.to_owned(), error })?;
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    // RFC 1123 §2.1: letters, digits, hyphens. A last label of digits is a mistyped address.
    let last = name.rsplit('.').next().unwrap_or_default();
    if name.is_empty() || !name.chars().all(good) || last.chars().all(|c| c.is_ascii_digit()) {
        return Err(UrlError::NotHostName(text.to_owned()));
    }
    Ok(Host::Name(name))
}

/// Refuses a path where none belongs; a lone `/` is let pass.
fn without_path(scheme: &'static str, path: &str) -> Result<(), UrlError> {
    if matches!(path, "" | "/") { Ok(()) } else { Err(UrlError::UnexpectedPath(scheme)) }
}

/// Reads host and port.
pub(crate) fn parse_authority(authority: &str) -> Result<(Host, Option<u16>), UrlError> {
    if authority.contains('@') {
        return Err(UrlError::UserInfo);
    }
    if let Some(rest) = authority.strip_prefix('[') {
        let bad = || UrlError::BadBracket(authority.to_owned());
        let (address, port) = rest.split_once(']').ok_or_else(bad)?;
        let address: Ipv6Addr = address.parse().map_err(|_| bad())?;
        let port = match port.strip_prefix(':') {
            Some(port) => Some(parse_port(port)?),
            None if port.is_empty() => None,
            None => return Err(bad()),
        };
        return Ok((Host::Address(address.into()), port));
    }
    if authority.parse::<Ipv6Addr>().is_ok() {
        return Err(UrlError::BadBracket(authority.to_owned()));
    }
    match authority.split_once(':') {
        Some((host, port)) => Ok((parse_host(host)?, Some(parse_port(port)?))),
        None => Ok((parse_host(authority)?, None)),
    }
}

/// Reads a port; 0 is none.
fn parse_port(text: &str) -> Result<u16, UrlError> {
    match text.parse() {
        Ok(port) if port != 0 => Ok(port),
        Ok(_) | Err(_) => Err(UrlError::BadPort(text.to_owned())),
    }
}

/// Reads the address of a plain server: a name would have to be looked up with nobody to ask.
fn plain_address(authority: &str) -> Result<SocketAddr, UrlError> {
    match parse_authority(authority)? {
        (Host::Address(address), port) => Ok(SocketAddr::new(address, port.unwrap_or(DNS_PORT))),
        (Host::Name(_), _) => Err(UrlError::PlainName),
    }
}

/// Reads path and template. RFC 8484 §4.1 gives a URI template; `dns` is its only variable, so `{?dns}` at the end is the only form.
fn parse_path(text: &str) -> Result<(String, DohMethod), UrlError> {
    let (path, method) = match text.find('{') {
        Some(at) => match text.split_at(at) {
            (path, "{?dns}") => (path, DohMethod::Get),
            _ => return Err(UrlError::BadTemplate),
        },
        None => (text, DohMethod::Post),
    };
    if path.is_empty() {
        return Err(UrlError::NoPath);
    }
    let good = |c: char| c.is_ascii_graphic() && !matches!(c, '?' | '#' | '"' | '<' | '>' | '\\' | '`' | '}');
    if !path.starts_with('/') || !path.chars().all(good) {
        return Err(UrlError::BadPath);
    }
    Ok((path.to_owned(), method))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn name(text: &str) -> Host {
        Host::Name(text.to_owned())
    }

    #[test]
    fn an_https_url_gives_host_port_path_and_method() {
        assert_eq!(
            parse("https://DNS.example./dns-query"),
            Ok(Endpoint::Doh {
                host: name("dns.example"),
                port: 443,
                path: "/dns-query".to_owned(),
                method: DohMethod::Post
            })
        );
        assert_eq!(
            parse("https://[2001:db8::1]:8443/q{?dns}"),
            Ok(Endpoint::Doh {
                host: Host::Address("2001:db8::1".parse().unwrap()),
                port: 8443,
                path: "/q".to_owned(),
                method: DohMethod::Get
            })
        );
    }

    #[test]
    fn a_tls_url_has_port_853_unless_written() {
        assert_eq!(parse("tls://dot.example"), Ok(Endpoint::Dot { host: name("dot.example"), port: 853 }));
        assert_eq!(
            parse("tls://192.0.2.1:8853"),
            Ok(Endpoint::Dot { host: Host::Address("192.0.2.1".parse().unwrap()), port: 8853 })
        );
    }

    #[test]
    fn plain_servers_are_addresses() {
        assert_eq!(
            parse("udp://192.0.2.1"),
            Ok(Endpoint::PlainUdp { address: "192.0.2.1:53".parse().unwrap() })
        );
        assert_eq!(
            parse("tcp://[2001:db8::1]:5353"),
            Ok(Endpoint::PlainTcp { address: "[2001:db8::1]:5353".parse().unwrap() })
        );
        assert_eq!(parse("udp://dns.example"), Err(UrlError::PlainName));
    }

    #[test]
    fn each_mistake_has_its_own_error() {
        for (url, error) in [
            ("9.9.9.9", UrlError::NoScheme),
            ("quic://dns.example", UrlError::NotYet("quic")),
            ("h3://dns.example/q", UrlError::NotYet("h3")),
            ("sdns://AgcAAAA", UrlError::NotYet("sdns")),
            ("sdns:AgcAAAA", UrlError::NotYet("sdns")),
            ("http://dns.example/q", UrlError::Http),
            ("ftp://dns.example", UrlError::UnknownScheme("ftp".to_owned())),
            ("tls://", UrlError::NoHost),
            ("tls://:853", UrlError::NoHost),
            ("tls://dns.example/q", UrlError::UnexpectedPath("tls")),
            ("tls://dns.example:0", UrlError::BadPort("0".to_owned())),
            ("tls://dns.example:x", UrlError::BadPort("x".to_owned())),
            ("tls://2001:db8::1", UrlError::BadBracket("2001:db8::1".to_owned())),
            ("tls://[2001:db8::1", UrlError::BadBracket("[2001:db8::1".to_owned())),
            ("tls://[x]", UrlError::BadBracket("[x]".to_owned())),
            ("tls://1.2.3.256", UrlError::NotHostName("1.2.3.256".to_owned())),
            ("tls://a b.example", UrlError::NotHostName("a b.example".to_owned())),
            ("https://me@dns.example/q", UrlError::UserInfo),
            ("https://dns.example", UrlError::NoPath),
            ("https://dns.example/q?x=1", UrlError::BadPath),
            ("https://dns.example/q{?name}", UrlError::BadTemplate),
            ("https://dns.example/q{?dns}/x", UrlError::BadTemplate),
        ] {
            assert_eq!(parse(url), Err(error), "{url}");
        }
        assert!(matches!(parse("tls://dns..example"), Err(UrlError::BadHost { .. })));
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "\\PC*") {
            let _ = parse(&text);
            let _ = parse(&format!("https://{text}"));
        }

        #[test]
        fn a_shown_endpoint_reads_back(host in "[a-z]{1,10}(\\.[a-z]{1,10}){0,3}", port in 1u16.., get: bool) {
            let method = if get { DohMethod::Get } else { DohMethod::Post };
            let doh = Endpoint::Doh { host: Host::Name(host.clone()), port, path: "/q".to_owned(), method };
            prop_assert_eq!(parse(&show(&doh)), Ok(doh));
            let dot = Endpoint::Dot { host: Host::Name(host), port };
            prop_assert_eq!(parse(&show(&dot)), Ok(dot));
        }
    }
}
