//! Does each configured server answer, over its own protocol, with its own certificate; and is the port of the other
//! encrypted protocol open, if this one is not? Asks as the gateway does; how fast a server is says `veildns upstreams`.

use super::LIMIT;
use super::places::Places;
use super::report::{Finding, Intent, Status};
use crate::config::endpoint;
use crate::config::settings::{Endpoint, Host, ServerSpec, Settings};
use crate::control::query::protocol;
use crate::transport::dial::nat64;
use crate::transport::{self, TransportError, dial};
use crate::upstream::{Failure, Upstream};
use crate::wire::header::Rcode;
use crate::wire::query::UpstreamQuery;
use crate::wire::response::ResponseRef;
use futures_util::future::join_all;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// The check's name.
const CHECK: &str = "server";

/// What came of it.
#[derive(Debug)]
pub(super) struct Outcome {
    /// One for each server.
    pub(super) findings: Vec<Finding>,
    /// Servers whose certificate is not valid by this machine's clock.
    pub(super) out_of_date: usize,
}

/// What was seen of a server.
struct Sighting<'a> {
    /// Its description.
    spec: &'a ServerSpec,
    /// The rcode of its answer.
    answer: Result<Rcode, TransportError>,
    /// The port of the other encrypted protocol, and whether it is open; None when it was not tried.
    other: Option<(u16, bool)>,
}

/// Says what is sent: also what it may take to find the way to a server.
pub(super) fn intent(settings: &Settings, places: &Places) -> Intent {
    let all: Vec<&ServerSpec> = settings.servers.iter().map(AsRef::as_ref).collect();
    let mut sends = format!(
        "a query for the root's NS, over its own protocol, to {}; an empty TCP connection to port {} or {}, whichever it is not asked at",
        names(&all),
        places.dot_port,
        places.https_port
    );
    let helpers = names(&helpers(settings));
    let unknown: Vec<&str> = all.iter().filter_map(|spec| nameless(spec)).collect();
    if !unknown.is_empty() {
        let whom = if helpers.is_empty() { "nobody" } else { &helpers };
        sends.push_str(&format!(
            "; before that, encrypted, the addresses of {} from {whom}",
            unknown.join(", ")
        ));
    }
    let has_ipv4 = |spec: &&ServerSpec| {
        !spec.endpoint.is_plaintext()
            && (nameless(spec).is_some() || addresses(spec).iter().any(IpAddr::is_ipv4))
    };
    let translated: Vec<&ServerSpec> = all.iter().copied().filter(has_ipv4).collect();
    if !translated.is_empty() {
        let asked = if helpers.is_empty() {
            String::new()
        } else {
            format!("the AAAA of {} from {helpers}, then ", nat64::NAME)
        };
        sends.push_str(&format!(
            "; where IPv4 leads nowhere: {asked}connections to {} through the network's NAT64",
            names(&translated)
        ));
    }
    Intent { check: CHECK, sends }
}

/// Returns the names of servers for people.
fn names(specs: &[&ServerSpec]) -> String {
    specs.iter().map(|spec| spec.name.as_str()).collect::<Vec<_>>().join(", ")
}

/// Returns the name of a server's host whose addresses are not written.
fn nameless(spec: &ServerSpec) -> Option<&str> {
    let host = endpoint::host(&spec.endpoint).filter(|_| spec.addresses.is_empty())?;
    match host {
        Host::Name(name) => Some(name),
        Host::Address(_) => None,
    }
}

/// Returns the servers that may be asked on behalf of others: encrypted ones, whose addresses are written, of the bootstrap
/// group and the default group.
fn helpers(settings: &Settings) -> Vec<&ServerSpec> {
    let groups = settings.bootstrap.into_iter().chain([0]).filter_map(|index| settings.groups.get(index));
    let mut helpers: Vec<&ServerSpec> = Vec::new();
    for spec in groups.flat_map(|group| &group.members).filter_map(|member| settings.servers.get(*member)) {
        let can_help = !spec.endpoint.is_plaintext() && nameless(spec).is_none();
        if can_help && !helpers.iter().any(|helper| helper.name == spec.name) {
            helpers.push(spec);
        }
    }
    helpers
}

/// Asks every server.
pub(super) async fn examine(upstreams: &[Arc<Upstream>], places: &Places) -> Outcome {
    let sightings = join_all(upstreams.iter().map(|upstream| look_at(upstream, places))).await;
    let any_good =
        sightings.iter().any(|sighting| sighting.answer.is_ok() && !sighting.spec.endpoint.is_plaintext());
    let out_of_date = sightings
        .iter()
        .filter(|seen| seen.answer.as_ref().is_err_and(TransportError::is_about_dates))
        .count();
    Outcome { findings: sightings.iter().map(|sighting| sighting.finding(any_good)).collect(), out_of_date }
}

/// Asks one server, and knocks at its other port meanwhile.
async fn look_at<'a>(upstream: &'a Upstream, places: &Places) -> Sighting<'a> {
    let (answer, other) = tokio::join!(ask(upstream), other_port(upstream.spec(), places));
    Sighting { spec: upstream.spec(), answer, other }
}

/// Asks for what every resolver has.
async fn ask(upstream: &Upstream) -> Result<Rcode, TransportError> {
    let query = UpstreamQuery::sign_of_life(true).build();
    let deadline = crate::clock::now() + LIMIT;
    let received = transport::exchange(upstream.transport(), query, deadline).await?;
    ResponseRef::parse(&received.message).map(|response| response.rcode()).map_err(TransportError::Mismatch)
}

/// Connects to the port of the protocol that the server is not asked by.
async fn other_port(spec: &ServerSpec, places: &Places) -> Option<(u16, bool)> {
    let port = match &spec.endpoint {
        Endpoint::Dot { .. } => places.https_port,
        Endpoint::Doh { .. } => places.dot_port,
        Endpoint::PlainUdp { .. } | Endpoint::PlainTcp { .. } => return None,
    };
    let address = addresses(spec).first().copied()?;
    let deadline = crate::clock::now() + LIMIT;
    Some((port, dial::open(SocketAddr::new(address, port), deadline).await.is_ok()))
}

/// Returns the written addresses of a server.
pub(super) fn addresses(spec: &ServerSpec) -> Vec<IpAddr> {
    match &spec.endpoint {
        Endpoint::Dot { host: Host::Address(address), .. }
        | Endpoint::Doh { host: Host::Address(address), .. }
            if spec.addresses.is_empty() =>
        {
            vec![*address]
        }
        Endpoint::Dot { .. } | Endpoint::Doh { .. } => spec.addresses.clone(),
        Endpoint::PlainUdp { address } | Endpoint::PlainTcp { address } => vec![address.ip()],
    }
}

impl Sighting<'_> {
    /// Says what it means. A server that is out of reach is bad only when no other is within.
    fn finding(&self, any_good: bool) -> Finding {
        let name = format!("{} ({})", self.spec.name, protocol(&self.spec.endpoint));
        let error = match &self.answer {
            Ok(Rcode::NOERROR) => {
                return Finding::fine(CHECK, format!("{name} answers{}", self.other_open()));
            }
            Ok(rcode) => {
                let seen = format!("{name} answers {rcode} when asked for the root");
                return Finding::new(CHECK, Status::Warn, seen, "ask its operator, or take another server");
            }
            Err(error) => error,
        };
        let impostor = matches!(error, TransportError::Certificate { .. } | TransportError::Pin);
        let status = if impostor || !any_good { Status::Fail } else { Status::Warn };
        Finding::new(CHECK, status, format!("{name}: {}", Failure::from(error)), self.advice(error))
    }

    /// Returns what is known of the other port.
    fn other_open(&self) -> String {
        match self.other {
            Some((port, true)) => format!("; port {port} is open too"),
            Some((port, false)) => format!("; port {port} is not"),
            None => String::new(),
        }
    }

    /// Says what to do about a failure.
    fn advice(&self, error: &TransportError) -> String {
        let text = match error {
            TransportError::Clock(_) => "set the clock: see clock below",
            TransportError::Certificate { .. } if error.is_about_dates() => {
                "is the clock right? See clock below. If it is, the server's operator has to renew its certificate"
            }
            TransportError::Certificate { .. } => {
                "TLS is intercepted (a proxy, a portal, a filter), or a server of your own needs `ca_file`. Nothing was told to it"
            }
            TransportError::Pin => {
                "TLS is intercepted, or the server has a new key: ask its operator before you change `pins`"
            }
            TransportError::Connect { .. } | TransportError::ConnectTimeout { .. } => {
                return self.way_around();
            }
            TransportError::NoAddress { .. } => {
                "give it `addresses`, so that nobody has to be asked where it is"
            }
            TransportError::Tls { .. } => {
                "somebody cuts TLS on the way, or this is no TLS port: try the other protocol"
            }
            TransportError::Closed | TransportError::Timeout => {
                "it is slow, or filtered: take another server as well"
            }
            TransportError::HttpStatus { .. }
            | TransportError::ContentType
            | TransportError::Http2 { .. } => {
                "is the path of its URL right? Else a proxy or portal answers in its place"
            }
            TransportError::BodyTooLarge | TransportError::Mismatch(_) => {
                "it sends no DNS: take another server"
            }
            TransportError::Exhausted { .. } => "raise the limit of open files (LimitNOFILE=, ulimit -n)",
            TransportError::Overloaded | TransportError::ShuttingDown => "try again",
        };
        text.to_owned()
    }

    /// Says how else the server can be reached.
    fn way_around(&self) -> String {
        match (self.other, &self.spec.endpoint) {
            (Some((port, true)), Endpoint::Dot { .. }) => {
                format!("this network blocks the port: ask it over DNS over HTTPS, port {port} is open")
            }
            (Some((port, true)), _) => {
                format!("this network blocks the port: ask it over DNS over TLS, port {port} is open")
            }
            (Some((_, false)) | None, _) => {
                "is there a network at all? If so it blocks this server: take another one".to_owned()
            }
        }
    }
}
