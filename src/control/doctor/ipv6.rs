//! Does IPv6 work, if this machine has it? An address that leads nowhere costs time on each new connection. A machine
//! without IPv6 is well.

use super::LIMIT;
use super::places::Places;
use super::report::{Finding, Intent, Status};
use super::servers::addresses;
use crate::config::settings::{Endpoint, Settings};
use crate::transport::dial;
use futures_util::future::join_all;
use std::fs;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// The check's name.
const CHECK: &str = "ipv6";

/// Servers that are tried: one may be down.
const MOST_SERVERS: usize = 2;

/// Says what is sent.
pub(super) fn intent(settings: &Settings, places: &Places) -> Intent {
    let targets: Vec<String> = targets(settings).iter().map(ToString::to_string).collect();
    let sends = if global(places).is_none() {
        format!("nothing: {} has no global address", places.if_inet6.display())
    } else if targets.is_empty() {
        "nothing: no server has a written IPv6 address".to_owned()
    } else {
        format!("an empty TCP connection to {}", targets.join(" and "))
    };
    Intent { check: CHECK, sends }
}

/// Connects to servers over IPv6.
pub(super) async fn examine(settings: &Settings, places: &Places) -> Finding {
    let Some(own) = global(places) else {
        return Finding::fine(CHECK, "this machine has no global IPv6 address, and needs none");
    };
    let targets = targets(settings);
    if targets.is_empty() {
        return Finding::fine(CHECK, format!("{own}; no server has a written IPv6 address to try"));
    }
    let deadline = crate::clock::now() + LIMIT;
    let tried = join_all(targets.iter().map(|target| dial::open(*target, deadline))).await;
    match tried.into_iter().zip(&targets).find(|(outcome, _)| outcome.is_ok()) {
        Some((_, target)) => Finding::fine(CHECK, format!("works: connected to {target}")),
        None => {
            let list: Vec<String> = targets.iter().map(ToString::to_string).collect();
            let seen = format!("this machine has {own}, but cannot reach {}", list.join(" or "));
            Finding::new(
                CHECK,
                Status::Warn,
                seen,
                "mend the router's IPv6 or turn it off: other programs wait for it",
            )
        }
    }
}

/// Returns one written IPv6 address of each of the first servers that have one.
fn targets(settings: &Settings) -> Vec<SocketAddr> {
    let target = |spec: &crate::config::settings::ServerSpec| {
        let port = match &spec.endpoint {
            Endpoint::Dot { port, .. } | Endpoint::Doh { port, .. } => *port,
            // Plain servers are of the operator's own network: they say nothing about the world.
            Endpoint::PlainUdp { .. } | Endpoint::PlainTcp { .. } => return None,
        };
        let address = addresses(spec).into_iter().find(IpAddr::is_ipv6)?;
        Some(SocketAddr::new(address, port))
    };
    settings.servers.iter().filter_map(|spec| target(spec)).take(MOST_SERVERS).collect()
}

/// Returns a global unicast address of this machine: one of 2000::/3 (RFC 4291 §2.4), private ones lead nowhere.
fn global(places: &Places) -> Option<Ipv6Addr> {
    let table = fs::read_to_string(&places.if_inet6).unwrap_or_default();
    let address = |line: &str| {
        let digits = line.split_whitespace().next()?;
        u128::from_str_radix(digits, 16).ok().map(Ipv6Addr::from_bits)
    };
    table
        .lines()
        .filter_map(address)
        .find(|address| address.segments().first().is_some_and(|top| top >> 13 == 1))
}
