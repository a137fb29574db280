//! Whom do this machine's programs ask, and who decides that? Reads files; sends nothing.

use super::places::Places;
use super::report::{Finding, Intent, Status};
use crate::config::settings::Settings;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

/// The check's name.
const CHECK: &str = "resolv.conf";

/// Nameservers that the C library uses (resolv.conf(5), MAXNS).
pub const MOST_NAMESERVERS: usize = 3;

/// Where systemd-resolved answers programs.
const STUBS: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(127, 0, 0, 53)), IpAddr::V4(Ipv4Addr::new(127, 0, 0, 54))];

/// Who writes the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// systemd-resolved, by a symbolic link into its directory.
    Resolved,
    /// NetworkManager.
    NetworkManager,
    /// resolvconf, in one of its makes.
    Resolvconf,
    /// A DHCP client.
    Dhcp,
    /// A container's engine or a virtual machine's host.
    Host,
    /// Nobody that we know of.
    Hand,
}

/// What the file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ResolvConf {
    /// Who writes it.
    pub(super) owner: Owner,
    /// In order.
    pub(super) nameservers: Vec<IpAddr>,
}

/// What that means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Assessment {
    /// For the report.
    pub(super) finding: Finding,
    /// Programs ask veildns, and nobody else.
    pub(super) protected: bool,
}

/// Says what is sent.
pub(super) fn intent(places: &Places) -> Intent {
    Intent { check: CHECK, sends: format!("nothing; reads {}", places.resolv_conf.display()) }
}

/// Reads the file. One that is not there counts as empty, and then this machine is asked (resolv.conf(5)).
pub(super) fn read(places: &Places) -> ResolvConf {
    let text = fs::read_to_string(&places.resolv_conf).unwrap_or_default();
    let target = fs::read_link(&places.resolv_conf).ok();
    let mut nameservers = nameservers(&text);
    if nameservers.is_empty() {
        nameservers.push(Ipv4Addr::LOCALHOST.into());
    }
    ResolvConf { owner: owner(target.as_deref(), &text), nameservers }
}

/// Returns the nameservers of a text, as many as the C library uses.
pub fn nameservers(text: &str) -> Vec<IpAddr> {
    let value = |line: &str| -> Option<IpAddr> {
        let mut words = line.split_whitespace();
        let address = words.next().filter(|word| *word == "nameserver").and_then(|_| words.next())?;
        // A link-local address may have its interface behind a percent sign.
        address.split('%').next()?.parse().ok()
    };
    text.lines().filter_map(value).take(MOST_NAMESERVERS).collect()
}

/// Guesses who writes the file: from where it leads, else from the comment that most leave in it.
fn owner(target: Option<&Path>, text: &str) -> Owner {
    let target = target.map(|target| target.to_string_lossy().into_owned()).unwrap_or_default();
    let comments: String = text.lines().filter(|line| line.starts_with(['#', ';'])).collect();
    let comments = comments.to_ascii_lowercase();
    let says = |word: &str| target.to_ascii_lowercase().contains(word) || comments.contains(word);
    if says("systemd/resolve") || says("systemd-resolved") {
        Owner::Resolved
    } else if says("networkmanager") {
        Owner::NetworkManager
    } else if says("resolvconf") {
        Owner::Resolvconf
    } else if says("dhc") {
        Owner::Dhcp
    } else if says("docker") || says("podman") || says("wsl") {
        Owner::Host
    } else {
        Owner::Hand
    }
}

/// Says whether programs ask veildns, and how to make them.
pub(super) fn assess(conf: &ResolvConf, settings: &Settings, places: &Places) -> Assessment {
    let stub =
        conf.owner == Owner::Resolved && conf.nameservers.iter().all(|address| STUBS.contains(address));
    let behind = if stub {
        nameservers(&fs::read_to_string(&places.resolved_conf).unwrap_or_default())
    } else {
        conf.nameservers.clone()
    };
    let ours = behind.iter().filter(|address| is_ours(**address, settings, places)).count();
    let protected = ours > 0 && ours == behind.len();
    let names: Vec<String> = behind.iter().map(ToString::to_string).collect();
    let by = conf.owner.name();
    let seen = match (protected, stub) {
        (true, false) => format!("written by {by}; programs ask veildns at {}", names.join(", ")),
        (true, true) => format!("programs ask {by}, which asks veildns at {}", names.join(", ")),
        (false, true) if names.is_empty() => format!("programs ask {by}, whose servers cannot be seen"),
        (false, true) => format!("programs ask {by}, which asks {}", names.join(", ")),
        (false, false) if ours == 0 => {
            format!("written by {by}; programs ask {}, not veildns", names.join(", "))
        }
        (false, false) => format!("written by {by}; programs ask {}, not only veildns", names.join(", ")),
    };
    let finding = if protected {
        Finding::fine(CHECK, seen)
    } else {
        Finding::new(CHECK, Status::Warn, seen, advice(conf.owner, settings, places))
    };
    Assessment { finding, protected }
}

/// Returns true for an address on which veildns is to answer programs.
fn is_ours(nameserver: IpAddr, settings: &Settings, places: &Places) -> bool {
    settings.listen.iter().map(|listen| listen.address).any(|listen| {
        let same = listen.ip() == nameserver || (listen.ip().is_unspecified() && nameserver.is_loopback());
        same && listen.port() == places.usual.port()
    })
}

/// Says how programs can be made to ask veildns.
fn advice(owner: Owner, settings: &Settings, places: &Places) -> String {
    let usual = settings.listen.iter().find(|listen| listen.address.port() == places.usual.port());
    let first = settings.listen.first();
    if let (Owner::Resolved, Some(listen)) = (owner, usual.or(first)) {
        let address = reachable(listen.address.ip());
        let port = listen.address.port();
        let place = if port == 53 { address.to_string() } else { format!("{address}:{port}") };
        return format!(
            "put DNS={place} and Domains=~. into /etc/systemd/resolved.conf, then systemctl restart systemd-resolved"
        );
    }
    let Some(listen) = usual else {
        return format!("programs ask port 53 only: listen on {} as well, then come back", places.usual);
    };
    let address = reachable(listen.address.ip());
    match owner {
        Owner::NetworkManager => format!(
            "nmcli connection modify NAME ipv4.dns {address} ipv4.ignore-auto-dns yes ipv6.ignore-auto-dns yes"
        ),
        Owner::Resolvconf => {
            format!("put name_servers={address} into /etc/resolvconf.conf, then resolvconf -u")
        }
        Owner::Dhcp => format!("tell the DHCP client: supersede domain-name-servers {address}"),
        Owner::Host => format!("tell the host or engine to use {address}: it writes the file anew"),
        Owner::Resolved | Owner::Hand => format!("make `nameserver {address}` its only nameserver line"),
    }
}

/// Returns the address at which programs of this machine reach a listener.
fn reachable(listen: IpAddr) -> IpAddr {
    match listen {
        IpAddr::V4(address) if address.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(address) if address.is_unspecified() => std::net::Ipv6Addr::LOCALHOST.into(),
        IpAddr::V4(_) | IpAddr::V6(_) => listen,
    }
}

impl Owner {
    /// Returns what people call it.
    fn name(self) -> &'static str {
        match self {
            Self::Resolved => "systemd-resolved",
            Self::NetworkManager => "NetworkManager",
            Self::Resolvconf => "resolvconf",
            Self::Dhcp => "a DHCP client",
            Self::Host => "the host of this container or machine",
            Self::Hand => "hand",
        }
    }
}
