//! Where the doctor looks and whom it asks besides the configured servers. Tests give it other places; there is no key
//! for any of them.

use crate::control::install::manifest::backup;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Files, addresses and times.
#[derive(Clone, Debug)]
pub(super) struct Places {
    /// Which nameservers programs ask.
    pub(super) resolv_conf: PathBuf,
    /// Which nameservers systemd-resolved asks, when it answers the programs.
    pub(super) resolved_conf: PathBuf,
    /// Files, and directories of files, in which a network's own resolvers stand, the surest first.
    pub(super) told_by_network: Vec<PathBuf>,
    /// IPv4 routes of this machine.
    pub(super) route: PathBuf,
    /// IPv6 addresses of this machine.
    pub(super) if_inet6: PathBuf,
    /// Where no DNS server is: addresses that are kept for documentation (RFC 5737, RFC 3849).
    pub(super) nobody: Vec<SocketAddr>,
    /// Where no web server is.
    pub(super) nobody_web: Vec<SocketAddr>,
    /// Where programs expect DNS.
    pub(super) usual: SocketAddr,
    /// DNS over TLS (RFC 7858 §3.1).
    pub(super) dot_port: u16,
    /// DNS over HTTPS.
    pub(super) https_port: u16,
    /// What finds captive portals.
    pub(super) portal: PortalProbe,
    /// When this program was built, as far as that is known.
    pub(super) built: Option<SystemTime>,
    /// What this machine's clock says.
    pub(super) wall: SystemTime,
}

/// A page whose answer is known: anything else comes from somebody on the way.
#[derive(Clone, Debug)]
pub(super) struct PortalProbe {
    /// Looked up through the system's nameservers, as a browser would.
    pub(super) host: &'static str,
    /// Plain HTTP.
    pub(super) port: u16,
    /// Answers 204 No Content.
    pub(super) path: &'static str,
}

impl Default for Places {
    fn default() -> Self {
        let nobody: [IpAddr; 2] =
            [Ipv4Addr::new(192, 0, 2, 1).into(), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into()];
        let resolv_conf = Path::new("/etc/resolv.conf");
        let resolved_conf = PathBuf::from("/run/systemd/resolve/resolv.conf");
        Self {
            told_by_network: told_by_network(resolv_conf, &resolved_conf),
            resolv_conf: resolv_conf.to_owned(),
            resolved_conf,
            route: "/proc/net/route".into(),
            if_inet6: "/proc/net/if_inet6".into(),
            nobody: nobody.map(|address| SocketAddr::new(address, 53)).to_vec(),
            nobody_web: nobody.map(|address| SocketAddr::new(address, 80)).to_vec(),
            usual: SocketAddr::from((Ipv4Addr::LOCALHOST, 53)),
            dot_port: 853,
            https_port: 443,
            // Cloudflare is asked by the built-in configuration anyway: nobody new learns of this machine.
            portal: PortalProbe { host: "cp.cloudflare.com", port: 80, path: "/generate_204" },
            built: crate::clock::built(),
            wall: crate::clock::wall(),
        }
    }
}

/// Returns where those who speak DHCP keep what they were told.
fn told_by_network(resolv_conf: &Path, resolved_conf: &Path) -> Vec<PathBuf> {
    let before_us = backup(resolv_conf);
    let others = [
        // systemd-networkd; NetworkManager, whatever it writes into /etc; resolvconf in its makes; OpenWrt; dhclient.
        "/run/systemd/netif/leases",
        "/run/NetworkManager/no-stub-resolv.conf",
        "/run/NetworkManager/resolv.conf",
        "/run/resolvconf/interface",
        "/run/resolvconf/interfaces",
        "/var/resolv.conf.d/resolv.conf.auto",
        "/var/lib/dhcp",
        "/var/lib/dhclient",
    ];
    let others = others.into_iter().map(PathBuf::from);
    std::iter::once(resolved_conf.to_owned()).chain(others).chain([before_us]).collect()
}

impl PortalProbe {
    /// Returns the URL.
    pub(super) fn url(&self) -> String {
        let port = if self.port == 80 { String::new() } else { format!(":{}", self.port) };
        format!("http://{}{port}{}", self.host, self.path)
    }
}
