//! What is put in place: the unit, the configuration, and the files that point a machine's programs at the gateway.

use std::fmt::Write as _;
use std::net::SocketAddr;

/// The unit of the service.
pub(super) const UNIT: &str = include_str!("../../../systemd/veildns.service");

/// The configuration of a machine that has none yet.
const LAPTOP: &str = include_str!("../../../config/laptop.toml");

/// The line of it that needs IPv6, and what is there without.
const BOTH: &str = r#"listen = ["127.0.0.1:53", "[::1]:53"]"#;
/// See [`BOTH`].
const IPV4: &str = r#"listen = ["127.0.0.1:53"]"#;

/// Said in each file that is not ours alone.
const SIGN: &str = "# Written by veildns install; veildns uninstall puts back what was here.";

/// dhclient sources this before it writes resolv.conf.
pub(super) const DHCLIENT_HOOK: &str = "# Written by veildns install: resolv.conf names veildns, and stays as it is.\nmake_resolv_conf() { :; }\n";

/// Returns the configuration of a new machine. An address that it lacks would be an error.
pub(super) fn configuration(has_ipv6: bool) -> String {
    if has_ipv6 { LAPTOP.to_owned() } else { LAPTOP.replace(BOTH, IPV4) }
}

/// Returns the address in `listen` that programs can be pointed at: port 53 of this machine; else the first of all.
pub(super) fn nameserver(listen: impl Iterator<Item = SocketAddr> + Clone) -> Option<SocketAddr> {
    let here = listen.map(|mut address| {
        if address.ip().is_unspecified() {
            let loopback: std::net::IpAddr = match address {
                SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
                SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
            };
            address.set_ip(loopback);
        }
        address
    });
    here.clone().find(|address| address.port() == 53).or_else(|| here.clone().next())
}

/// Returns resolv.conf with our address as its only nameserver; search lists and options are kept, but not the server's
/// own word that an answer is validated, which was meant for another server.
pub(super) fn resolv_conf(before: &str, nameserver: SocketAddr) -> String {
    let mut text = format!("{SIGN}\nnameserver {}\n", nameserver.ip());
    for line in before.lines() {
        let kept =
            matches!(line.split_whitespace().next(), Some("search" | "domain" | "options" | "sortlist"));
        if kept && !line.contains("trust-ad") {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

/// Returns the drop-in of systemd-resolved (resolved.conf(5)). `~.` sends all names there, whatever the links' own servers
/// are; it asks us without encryption on the same machine, and we have the cache.
pub(super) fn resolved(nameserver: SocketAddr) -> String {
    let mut text = format!("{SIGN}\n[Resolve]\nDNS=\nDNS=");
    let _ = match nameserver.port() {
        53 => write!(text, "{}", nameserver.ip()),
        _ => write!(text, "{nameserver}"),
    };
    text + "\nFallbackDNS=\nDomains=~.\nDNSOverTLS=no\nDNSSEC=no\nCache=no\n"
}

/// Returns the drop-in of NetworkManager (NetworkManager.conf(5)): servers of all names, in place of the connections' own.
pub(super) fn network_manager(nameserver: SocketAddr) -> String {
    format!("{SIGN}\n[global-dns-domain-*]\nservers={}\n", nameserver.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn programs_are_pointed_at_port_53_of_this_machine() {
        for (listen, expected) in [
            (&["127.0.0.1:53"][..], Some("127.0.0.1:53")),
            (&["127.0.0.1:5053", "0.0.0.0:53"], Some("127.0.0.1:53")),
            (&["[::]:53"], Some("[::1]:53")),
            (&["192.0.2.1:53"], Some("192.0.2.1:53")),
            (&["127.0.0.1:5053"], Some("127.0.0.1:5053")),
            (&[], None),
        ] {
            let listen = listen.iter().map(|text| address(text));
            assert_eq!(nameserver(listen), expected.map(address));
        }
    }

    #[test]
    fn resolv_conf_keeps_what_is_not_about_servers() {
        let before = "# by hand\nnameserver 192.0.2.1\nnameserver 192.0.2.2\nsearch corp.example lan\noptions timeout:2\noptions edns0 trust-ad\n";
        assert_eq!(
            resolv_conf(before, address("127.0.0.1:53")),
            format!("{SIGN}\nnameserver 127.0.0.1\nsearch corp.example lan\noptions timeout:2\n")
        );
    }

    #[test]
    fn resolved_takes_another_port_too() {
        assert!(resolved(address("127.0.0.1:53")).contains("\nDNS=127.0.0.1\n"));
        assert!(resolved(address("[::1]:5053")).contains("\nDNS=[::1]:5053\n"));
    }

    #[test]
    fn the_configuration_fits_machines_with_and_without_ipv6() {
        assert!(configuration(true).contains(BOTH));
        assert!(
            configuration(false).contains(IPV4)
                && !configuration(false).contains("\nlisten = [\"127.0.0.1:53\", ")
        );
    }
}
