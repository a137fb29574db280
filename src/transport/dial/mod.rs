//! Streams of octets to a server: TCP to its addresses, those first that worked on this network, raced (`race`). Where IPv4 leads
//! nowhere, IPv4 addresses are tried behind a NAT64 (`nat64`). Names without addresses are looked up through the other servers,
//! never through the system's resolver. What is *not* here: TLS, and when to dial.

#[cfg(test)]
mod tests;

pub mod nat64;
pub mod network;
mod race;

use super::{Blame, Lookup, Surroundings, TransportError};
use crate::clock;
use crate::config::settings::Host;
use nat64::Prefix;
use network::{CurrentNetwork, NetworkId, Worked};
use race::race;
use socket2::{SockRef, TcpKeepalive};
use std::collections::VecDeque;
use std::fmt::Debug;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// How long sent octets may go unacknowledged before the kernel gives the connection up (RFC 5482).
#[cfg(any(target_os = "linux", target_os = "android"))]
const USER_TIMEOUT: Duration = Duration::from_secs(5);
/// When the kernel begins to probe a connection that says nothing.
const KEEPALIVE: Duration = Duration::from_secs(15);
/// Addresses remembered that others answered at, or nobody: more than a server has.
const MOST_AVOIDED: usize = 32;

/// Opens a stream of octets to one server. Tests implement it with pipes.
pub(crate) trait Dial: Debug + Send + Sync + 'static {
    /// What a dial gives.
    type Stream: AsyncRead + AsyncWrite + Debug + Send + Unpin + 'static;
    /// Opens a stream, until `deadline` at the latest. Cancel safe.
    fn dial(
        &self,
        deadline: Instant,
    ) -> impl Future<Output = Result<Dialled<Self::Stream>, TransportError>> + Send;
    /// Hears that the network is another one.
    fn forget_network(&self);
    /// Hears that who answered at `address` was not the server, or did not finish the handshake: the next dial should
    /// begin elsewhere.
    fn refuted(&self, address: IpAddr) {
        let _ = address;
    }
    /// Hears that a connection to `address` has fallen silent: the next dial should begin elsewhere.
    fn silent(&self, address: IpAddr) {
        let _ = address;
    }
}

/// A fresh stream and what is known of it.
#[derive(Debug)]
pub(crate) struct Dialled<S> {
    /// The octets.
    pub(crate) stream: S,
    /// Where it goes.
    pub(crate) address: SocketAddr,
    /// How long connecting took, look-up included.
    pub(crate) connect_time: Duration,
}

/// Addresses of one server.
#[derive(Debug, Default)]
struct Known {
    /// In the operator's order, or that of the look-up.
    addresses: Vec<IpAddr>,
    /// Handshakes that failed since the addresses were learnt.
    refuted: usize,
    /// Where others answered, or nobody, the latest last: tried after all others.
    avoided: Vec<IpAddr>,
    /// What worked on which network: tried first.
    worked: Worked,
}

impl Known {
    /// Takes other addresses; nothing is held against them.
    fn learn(&mut self, addresses: Vec<IpAddr>) {
        self.addresses = addresses;
        self.refuted = 0;
        self.avoided.clear();
    }

    /// Tries an address last from now on.
    fn avoid(&mut self, address: IpAddr, network: NetworkId) {
        self.worked.forget(network, address);
        self.avoided.retain(|other| *other != address);
        if self.avoided.len() >= MOST_AVOIDED {
            self.avoided.remove(0);
        }
        self.avoided.push(address);
    }

    /// Puts the address that worked on this network first and those to avoid last.
    fn sort(&self, addresses: &mut [IpAddr], network: NetworkId, now: Instant) {
        let best = self.worked.on(network, now);
        addresses.sort_by_key(|address| {
            let avoided = self.avoided.iter().position(|other| other == address).map_or(0, |place| place + 1);
            (Some(*address) != best, avoided)
        });
    }
}

/// TCP to the server's addresses.
#[derive(Debug)]
pub(crate) struct TcpDial {
    /// As configured.
    host: Host,
    /// As configured.
    port: u16,
    /// Finds addresses when there are none, and prefixes of a NAT64.
    lookup: Arc<dyn Lookup>,
    /// Where we are.
    network: Arc<CurrentNetwork>,
    /// What is known of them.
    known: Mutex<Known>,
    /// As configured, in the operator's order; empty: they come from a look-up and are forgotten when all fail.
    written: Vec<IpAddr>,
    /// Whether whoever answers has to show that it is the server: then it does no harm to try where it may be.
    proof: Proof,
}

/// What shows that the server is the one that is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Proof {
    /// A certificate.
    Certificate,
    /// Nothing but its address.
    Address,
}

impl TcpDial {
    /// Dials a server that shows a certificate. `addresses` empty: those of `host`, looked up when first needed.
    pub(crate) fn new(host: &Host, port: u16, addresses: &[IpAddr], around: &Surroundings) -> Self {
        let addresses = match host {
            Host::Address(address) if addresses.is_empty() => vec![*address],
            Host::Address(_) | Host::Name(_) => in_turn(addresses),
        };
        Self {
            host: host.clone(),
            port,
            lookup: Arc::clone(&around.lookup),
            network: Arc::clone(&around.network),
            known: Mutex::new(Known { addresses: addresses.clone(), ..Known::default() }),
            written: addresses,
            proof: Proof::Certificate,
        }
    }

    /// Dials a server that shows nothing, at this one address.
    pub(crate) fn plain(address: SocketAddr, around: &Surroundings) -> Self {
        let dial = Self::new(&Host::Address(address.ip()), address.port(), &[], around);
        Self { proof: Proof::Address, ..dial }
    }

    /// Locks the addresses.
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the server's addresses; asks the other servers when none is known.
    async fn addresses(&self, deadline: Instant) -> Result<Vec<IpAddr>, TransportError> {
        let mut addresses = self.known().addresses.clone();
        if let (true, Host::Name(name)) = (addresses.is_empty(), &self.host) {
            addresses = self.lookup.addresses(name, deadline).await?;
            self.known().learn(addresses.clone());
        }
        if addresses.is_empty() {
            return Err(TransportError::NoAddress { host: self.host.to_string() });
        }
        Ok(addresses)
    }

    /// Returns where to connect on a network, best first, and which addresses can be tried elsewhere besides, once prefixes of a
    /// NAT64 are learnt.
    fn plan(&self, addresses: &[IpAddr], network: NetworkId) -> (Vec<IpAddr>, Vec<Ipv4Addr>) {
        let (mut targets, unlearnt) = match self.proof {
            Proof::Address => (addresses.to_vec(), Vec::new()),
            Proof::Certificate => translate(addresses, self.lookup.nat64().as_deref(), has_route),
        };
        let known = self.known();
        if !unlearnt.is_empty() {
            // Where others answered behind the well-known prefix, learnt ones come first.
            targets.retain(|target| addresses.contains(target) || !known.avoided.contains(target));
        }
        known.sort(&mut targets, network, clock::now());
        (targets, unlearnt)
    }

    /// Returns where a NAT64 has these addresses, once its prefixes are learnt; what was `tried` is left out.
    async fn learn(
        &self,
        unlearnt: Vec<Ipv4Addr>,
        tried: &[SocketAddr],
        deadline: Instant,
    ) -> Vec<SocketAddr> {
        if unlearnt.is_empty() {
            return Vec::new();
        }
        let prefixes = self.lookup.learn_nat64(deadline).await;
        let translated = unlearnt.iter().flat_map(|address| behind(*address, &prefixes));
        let targets = translated.map(|address| SocketAddr::new(address.into(), self.port));
        targets.filter(|target| !tried.contains(target)).collect()
    }

    /// Forgets what was looked up: the server may have moved.
    fn forget(&self) {
        if self.written.is_empty() {
            self.known().learn(Vec::new());
        }
    }
}

impl Dial for TcpDial {
    type Stream = TcpStream;

    async fn dial(&self, deadline: Instant) -> Result<Dialled<TcpStream>, TransportError> {
        let started = clock::now();
        let addresses = self.addresses(deadline).await?;
        let network = self.network.id();
        let (targets, unlearnt) = self.plan(&addresses, network);
        let targets: Vec<_> =
            targets.into_iter().map(|address| SocketAddr::new(address, self.port)).collect();
        let learning = self.learn(unlearnt, &targets, deadline);
        match race(&targets, learning, deadline, connect).await {
            Ok((stream, address)) => {
                let now = clock::now();
                self.known().worked.remember(network, address.ip(), now);
                Ok(Dialled { stream, address, connect_time: now.saturating_duration_since(started) })
            }
            Err(error) => {
                if error.blame() != Blame::Us {
                    self.forget();
                }
                Err(error)
            }
        }
    }

    fn forget_network(&self) {
        self.known().learn(self.written.clone());
    }

    /// Tries the address last. Learnt ones are forgotten once there were as many failures as addresses: a name that moved
    /// leaves addresses behind where somebody else may answer.
    fn refuted(&self, address: IpAddr) {
        let mut known = self.known();
        known.avoid(address, self.network.id());
        known.refuted = known.refuted.saturating_add(1);
        if self.written.is_empty() && known.refuted >= known.addresses.len() {
            known.learn(Vec::new());
        }
    }

    fn silent(&self, address: IpAddr) {
        self.known().avoid(address, self.network.id());
    }
}

/// Puts translated addresses in place of those of IPv4 that lead nowhere from here, if there is IPv6, after those that need no
/// translator. The second list has those for which prefixes are still to be learnt; meanwhile the well-known prefix is tried, for
/// where all servers have only IPv4 nobody could be asked.
fn translate(
    addresses: &[IpAddr],
    prefixes: Option<&[Prefix]>,
    has_route: impl Fn(IpAddr) -> bool,
) -> (Vec<IpAddr>, Vec<Ipv4Addr>) {
    let (mut targets, mut translated, mut unlearnt) = (Vec::new(), Vec::new(), Vec::new());
    for address in addresses {
        let before = translated.len();
        if let IpAddr::V4(v4) = address
            && !has_route(*address)
        {
            let places = behind(*v4, prefixes.unwrap_or_default()).map(IpAddr::from);
            translated.extend(places.filter(|place| has_route(*place)));
            unlearnt.extend(Some(*v4).filter(|_| translated.len() > before && prefixes.is_none()));
        }
        if translated.len() == before {
            targets.push(*address);
        }
    }
    targets.append(&mut translated);
    (targets, unlearnt)
}

/// Returns where an address is behind these prefixes, and behind the well-known one.
fn behind(address: Ipv4Addr, prefixes: &[Prefix]) -> impl Iterator<Item = Ipv6Addr> {
    let well_known = Some(Prefix::WELL_KNOWN).filter(|prefix| !prefixes.contains(prefix));
    prefixes.iter().copied().chain(well_known).filter_map(move |prefix| prefix.translate(address))
}

/// Tells whether this machine knows a way to an address: to connect a socket of datagrams asks the kernel, and sends nothing.
fn has_route(address: IpAddr) -> bool {
    let any: IpAddr =
        if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    UdpSocket::bind((any, 0)).and_then(|socket| socket.connect((address, 53))).is_ok()
}

/// Returns the addresses with the families in turn, the operator's first one first (RFC 8305 §4): when one family leads
/// nowhere, that costs one delay and not one for each of its addresses.
fn in_turn(addresses: &[IpAddr]) -> Vec<IpAddr> {
    let first = addresses.first().map(IpAddr::is_ipv4);
    let (mut ones, mut others): (VecDeque<IpAddr>, VecDeque<IpAddr>) =
        addresses.iter().copied().partition(|address| Some(address.is_ipv4()) == first);
    let mut turns = Vec::with_capacity(addresses.len());
    while !ones.is_empty() || !others.is_empty() {
        turns.extend(ones.pop_front());
        turns.extend(others.pop_front());
    }
    turns
}

/// Connects to one address, until `deadline` at the latest: for whoever looks at a network. Cancel safe.
///
/// # Errors
/// `Connect` and `ConnectTimeout`.
pub(crate) async fn open(address: SocketAddr, deadline: Instant) -> Result<TcpStream, TransportError> {
    race(&[address], std::future::ready(Vec::new()), deadline, connect).await.map(|(stream, _)| stream)
}

/// Connects to one address and sets the options of the socket.
async fn connect(address: SocketAddr) -> Result<TcpStream, (SocketAddr, io::Error)> {
    let stream = TcpStream::connect(address).await.map_err(|error| (address, error))?;
    tune(&stream).map_err(|error| (address, error))?;
    Ok(stream)
}

/// Sets the options of a connected socket: no waiting for more octets to send, and dead paths are found.
fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE))?;
    #[cfg(any(target_os = "linux", target_os = "android"))]
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    Ok(())
}
