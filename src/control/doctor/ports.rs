//! Are the ports to listen on free, and who has them? Binds them for a moment and lets go; does not listen.

use super::places::Places;
use super::report::{Finding, Intent, Status};
use crate::config::settings::{Listen, Settings};
use crate::listener::bind::{self, BindError, BindErrorKind};
use std::net::SocketAddr;

/// The check's name.
const CHECK: &str = "ports";

/// How the kernel names a process of this program.
const OURSELVES: &str = "veildns";

/// Says what is sent.
pub(super) fn intent(settings: &Settings, places: &Places) -> Intent {
    let addresses: Vec<String> = addresses(settings, places).map(|address| address.to_string()).collect();
    let sends = format!("nothing; binds {} for a moment", addresses.join(", "));
    Intent { check: CHECK, sends }
}

/// Looks at each address to listen on, and at the one where programs expect DNS.
pub(super) fn examine(settings: &Settings, places: &Places) -> Vec<Finding> {
    let listen = settings.listen.iter().map(configured);
    listen.chain(usual(settings, places).map(|address| elsewhere(address))).collect()
}

/// Returns every address that is tried.
fn addresses<'a>(settings: &'a Settings, places: &Places) -> impl Iterator<Item = SocketAddr> + use<'a> {
    settings.listen.iter().map(|listen| listen.address).chain(usual(settings, places))
}

/// Returns where programs expect DNS, when veildns is not to listen on that port.
fn usual(settings: &Settings, places: &Places) -> Option<SocketAddr> {
    let has_port = settings.listen.iter().any(|listen| listen.address.port() == places.usual.port());
    (!has_port).then_some(places.usual)
}

/// Looks at an address that veildns is to listen on.
fn configured(listen: &Listen) -> Finding {
    let address = listen.address;
    let Err(error) = bind::try_once(address) else {
        return Finding::fine(CHECK, format!("{address} is free; veildns does not listen on it now"));
    };
    match &error.kind {
        BindErrorKind::InUse { holder: Some(holder) } if holder.name == OURSELVES => {
            Finding::fine(CHECK, format!("{address} is held by {holder}"))
        }
        BindErrorKind::InUse { holder: None } => Finding::new(
            CHECK,
            Status::Warn,
            format!("{address} is taken; by whom, only root can see"),
            "run this as root, unless it is veildns itself",
        ),
        BindErrorKind::NotHere if !listen.written => Finding::fine(
            CHECK,
            format!("{address}: this host does not have the address, which is passed over"),
        ),
        BindErrorKind::InUse { holder: Some(_) }
        | BindErrorKind::Permission
        | BindErrorKind::NotHere
        | BindErrorKind::Other => refused(&error),
    }
}

/// Returns a finding in the words of the gateway's own start.
fn refused(error: &BindError) -> Finding {
    let text = error.to_string();
    match text.rsplit_once(": ") {
        Some((seen, advice))
            if error.kind != BindErrorKind::NotHere && error.kind != BindErrorKind::Other =>
        {
            Finding::new(CHECK, Status::Fail, seen, advice)
        }
        Some(_) | None => Finding::new(CHECK, Status::Fail, text, "correct `listen`"),
    }
}

/// Looks at the usual address, which veildns leaves to others: only good to know.
fn elsewhere(address: SocketAddr) -> Finding {
    let seen = match bind::try_once(address).map_err(|error| error.kind) {
        Ok(()) => format!("{address} is free, if veildns should answer there"),
        Err(BindErrorKind::InUse { holder: Some(holder) }) => format!("{address} is held by {holder}"),
        Err(BindErrorKind::InUse { holder: None }) => {
            format!("{address} is taken; by whom, only root can see")
        }
        Err(BindErrorKind::Permission) => format!("{address} needs a privilege; nothing to see without"),
        Err(BindErrorKind::NotHere | BindErrorKind::Other) => format!("{address} cannot be had"),
    };
    Finding::fine(CHECK, seen)
}
