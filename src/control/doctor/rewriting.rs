//! Does the system's resolver answer at all, and does it invent addresses for names that do not exist? Asks the
//! nameservers of resolv.conf as a program would.

use super::LIMIT;
use super::interception::query;
use super::places::Places;
use super::report::{Finding, Intent, Status};
use crate::transport::plain;
use crate::wire::header::Rcode;
use crate::wire::question::RecordType;
use crate::wire::response::{ResponseRef, Section};
use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, StreamExt};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// The check's name.
const CHECK: &str = "rewriting";

/// Says what is sent.
pub(super) fn intent(places: &Places, nameservers: &[IpAddr]) -> Intent {
    let to = list(places, nameservers);
    Intent { check: CHECK, sends: format!("plain DNS for a random name below .com to {to}") }
}

/// Returns the nameservers for people.
pub(super) fn list(places: &Places, nameservers: &[IpAddr]) -> String {
    let places = nameservers.iter().map(|address| SocketAddr::new(*address, places.usual.port()).to_string());
    places.collect::<Vec<_>>().join(", ")
}

/// Asks for a name that does not exist. Not below `.invalid`, which those who lie may spare (RFC 6761 §6.4).
pub(super) async fn examine(places: &Places, nameservers: &[IpAddr], protected: bool) -> Finding {
    let name = format!("veildns-doctor-{:016x}.com", fastrand::u64(..));
    let Some((from, message)) = ask_any(places, nameservers, &name).await else {
        let seen =
            format!("no answer from {}: programs on this machine have no DNS", list(places, nameservers));
        let advice = if protected {
            "start veildns, or look into its log: see ports above"
        } else {
            "make programs ask veildns: see resolv.conf above"
        };
        return Finding::new(CHECK, Status::Fail, seen, advice);
    };
    let Ok(response) = ResponseRef::parse(&message) else {
        return Finding::new(
            CHECK,
            Status::Warn,
            format!("{from} sends what is no answer"),
            "ask another resolver",
        );
    };
    let mut addresses = response.records(Section::Answer).filter(|record| record.rtype == RecordType::A);
    if let Some(address) = addresses.find_map(|record| <[u8; 4]>::try_from(record.rdata).ok()) {
        let address = Ipv4Addr::from(address);
        let seen = format!("{from} says that {name} is at {address}; there is no such name");
        let advice = if protected {
            "a server of yours invents answers: find it by veildns query, and take another"
        } else {
            "make programs ask veildns, and type names with care until then: see resolv.conf above"
        };
        return Finding::new(CHECK, Status::Fail, seen, advice);
    }
    match response.rcode() {
        Rcode::NXDOMAIN | Rcode::NOERROR => Finding::fine(CHECK, format!("{from} invents no addresses")),
        rcode => {
            let seen = format!("{from} answers {rcode}");
            Finding::new(CHECK, Status::Warn, seen, "see what the servers below say")
        }
    }
}

/// Asks all nameservers and returns the first answer, with who gave it.
pub(super) async fn ask_any(
    places: &Places,
    nameservers: &[IpAddr],
    name: &str,
) -> Option<(SocketAddr, Bytes)> {
    let deadline = crate::clock::now() + LIMIT;
    let query = query(name, RecordType::A)?;
    let mut asked: FuturesUnordered<_> = nameservers
        .iter()
        .map(|address| SocketAddr::new(*address, places.usual.port()))
        .map(|address| {
            let query = &query;
            async move { plain::ask_once(address, query, deadline).await.map(|message| (address, message)) }
        })
        .collect();
    while let Some(outcome) = asked.next().await {
        if let Ok(answer) = outcome {
            return Some(answer);
        }
    }
    None
}
