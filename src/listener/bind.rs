//! Sockets for a listen address: UDP and TCP, one of each a worker, on one port. And when that fails, an error
//! that says what to do. It does not know which addresses are wanted, nor who reads the sockets.

use super::batch::{BatchSocket, force_receive_buffer};
use super::handover::{Pair, Sharing};
use super::holder::{self, Holder};
use crate::wire::query::ClientTransport;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use thiserror::Error;

/// Room for a burst of queries while a worker is busy elsewhere. The kernel drops what does not fit.
const RECEIVE_BUFFER_OCTETS: usize = 4 * 1024 * 1024;

/// Connections that the kernel may hold until they are accepted; it caps this at `net.core.somaxconn`.
const BACKLOG: i32 = 1024;

/// Ports tried when the kernel chooses one for UDP that is taken for TCP.
const PORT_TRIES: usize = 16;

/// Why an address cannot be listened on.
#[derive(Debug, Error)]
pub struct BindError {
    /// The address as wanted.
    pub address: SocketAddr,
    /// Which of the two sockets failed.
    pub transport: ClientTransport,
    /// What that means.
    pub kind: BindErrorKind,
    /// What the system said.
    #[source]
    pub source: io::Error,
}

/// What a failure to bind means for the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BindErrorKind {
    /// Another program has the port.
    InUse {
        /// Which one, if the system lets us see it.
        holder: Option<Holder>,
    },
    /// Not allowed for this user.
    Permission,
    /// This host does not have the address.
    NotHere,
    /// Something else.
    Other,
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let transport = match self.transport {
            ClientTransport::Udp => "UDP",
            ClientTransport::Tcp => "TCP",
        };
        let port = self.address.port();
        write!(f, "cannot listen on {} ({transport}): ", self.address)?;
        match &self.kind {
            BindErrorKind::InUse { holder: Some(holder) } => {
                write!(f, "port {port} is taken by {holder}: ")?;
                if holder.name == "systemd-resolve" || holder.name == "systemd-resolved" {
                    f.write_str("turn its stub listener off (DNSStubListener=no in resolved.conf)")?;
                } else {
                    f.write_str("stop it")?;
                }
                f.write_str(", or listen on another address or port")
            }
            BindErrorKind::InUse { holder: None } => {
                write!(
                    f,
                    "port {port} is taken by another program: stop it, or listen on another address or port"
                )
            }
            BindErrorKind::Permission => write!(
                f,
                "port {port} needs root or the capability CAP_NET_BIND_SERVICE: start it with sudo, or `sudo setcap \
                 cap_net_bind_service=+ep` the program, or listen on a port above 1023"
            ),
            BindErrorKind::NotHere => f.write_str("this host does not have the address"),
            BindErrorKind::Other => f.write_str("the system refused"),
        }
    }
}

impl BindError {
    /// Explains a failure.
    pub(crate) fn new(address: SocketAddr, transport: ClientTransport, source: io::Error) -> Self {
        /// Linux: this kernel or container has no such address family.
        const EAFNOSUPPORT: i32 = 97;
        #[expect(clippy::wildcard_enum_match_arm, reason = "kinds of std are open-ended")]
        let kind = match source.kind() {
            io::ErrorKind::AddrInUse => BindErrorKind::InUse { holder: holder::find(address, transport) },
            io::ErrorKind::PermissionDenied => BindErrorKind::Permission,
            io::ErrorKind::AddrNotAvailable => BindErrorKind::NotHere,
            _ if source.raw_os_error() == Some(EAFNOSUPPORT) => BindErrorKind::NotHere,
            _ => BindErrorKind::Other,
        };
        Self { address, transport, kind, source }
    }
}

/// The sockets of one listen address.
#[derive(Debug)]
pub(super) struct Sockets {
    /// Where they really are: with the port that the kernel chose.
    pub(super) address: SocketAddr,
    /// One a worker.
    pub(super) udp: Vec<BatchSocket>,
    /// One a worker.
    pub(super) tcp: Vec<TcpListener>,
    /// Who made those for datagrams, and those for connections.
    pub(super) origins: (Origin, Origin),
}

/// Who made a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// We did: what comes after our end is for nobody, or for a successor on another socket.
    Bound,
    /// It was handed over: it outlives us, and what we leave in it is the next one's.
    Inherited,
}

/// Binds `count` sockets of each kind to `address`.
///
/// # Errors
/// When any of them cannot be had; then none is left open.
pub(super) fn bind(address: SocketAddr, count: usize, sharing: Sharing) -> Result<Sockets, BindError> {
    let mut tries = if address.port() == 0 { PORT_TRIES } else { 1 };
    loop {
        match bind_once(address, count, sharing) {
            Err(error) if error.source.kind() == io::ErrorKind::AddrInUse && tries > 1 => tries -= 1,
            outcome => return outcome,
        }
    }
}

/// Binds `address` for a moment, to see whether it can be had.
///
/// # Errors
/// Why it cannot.
pub(crate) fn try_once(address: SocketAddr) -> Result<(), BindError> {
    bind(address, 1, Sharing::Nobody).map(drop)
}

/// Shares out what was handed over for `address` to `count` workers, and binds the kind that was not, if `sharing` says
/// how. A socket that several workers read wakes all of them for each arrival. Further sockets on the port would not: but
/// what the kernel puts into those is lost with this process, and what it puts into the one handed over is not.
///
/// # Errors
/// When the part that was not handed over cannot be had.
pub(super) fn adopt(
    pair: Pair,
    address: SocketAddr,
    count: usize,
    sharing: Option<Sharing>,
) -> Result<Sockets, BindError> {
    let fail = |transport| move |error| BindError::new(address, transport, error);
    let bound = |transport| match sharing {
        Some(sharing) => bind_all(&mut address.clone(), count, sharing, transport),
        None => Ok(Vec::new()),
    };
    let origins = (origin(pair.udp.is_some()), origin(pair.tcp.is_some()));
    let udp = match pair.udp {
        Some(socket) => {
            grow_receive_buffer(&SockRef::from(&socket));
            shared_out(socket, count, UdpSocket::try_clone)
        }
        None => bound(ClientTransport::Udp).map(|sockets| sockets.into_iter().map(UdpSocket::from).collect()),
    };
    let udp = udp.and_then(|sockets| sockets.into_iter().map(BatchSocket::new).collect());
    let tcp = match pair.tcp {
        Some(listener) => shared_out(listener, count, TcpListener::try_clone),
        None => {
            bound(ClientTransport::Tcp).map(|sockets| sockets.into_iter().map(TcpListener::from).collect())
        }
    };
    let (udp, tcp) = (udp.map_err(fail(ClientTransport::Udp))?, tcp.map_err(fail(ClientTransport::Tcp))?);
    Ok(Sockets { address, udp, tcp, origins })
}

/// Returns who made a socket.
fn origin(inherited: bool) -> Origin {
    if inherited { Origin::Inherited } else { Origin::Bound }
}

/// Returns `count` handles of one socket.
fn shared_out<T>(socket: T, count: usize, clone: fn(&T) -> io::Result<T>) -> io::Result<Vec<T>> {
    let mut handles: Vec<T> = (1..count).map(|_| clone(&socket)).collect::<io::Result<_>>()?;
    handles.push(socket);
    Ok(handles)
}

/// Binds a listener for a page, by which nobody asks; a successor may share its port like those of clients.
///
/// # Errors
/// Why the address cannot be had.
pub(crate) fn page(address: SocketAddr, sharing: Sharing) -> Result<TcpListener, BindError> {
    page_socket(address, sharing).map_err(|error| BindError::new(address, ClientTransport::Tcp, error))
}

/// Makes the socket of a page.
fn page_socket(address: SocketAddr, sharing: Sharing) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(sharing == Sharing::Ours)?;
    socket.bind(&address.into())?;
    socket.set_reuse_port(true)?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Binds UDP first, then TCP to the port that UDP got.
fn bind_once(wanted: SocketAddr, count: usize, sharing: Sharing) -> Result<Sockets, BindError> {
    let mut address = wanted;
    let udp = bind_all(&mut address, count, sharing, ClientTransport::Udp)
        .and_then(|sockets| sockets.into_iter().map(|socket| BatchSocket::new(socket.into())).collect())
        .map_err(|error| BindError::new(wanted, ClientTransport::Udp, error))?;
    let tcp = bind_all(&mut address, count, sharing, ClientTransport::Tcp)
        .map_err(|error| BindError::new(wanted, ClientTransport::Tcp, error))?;
    let tcp = tcp.into_iter().map(TcpListener::from).collect();
    Ok(Sockets { address, udp, tcp, origins: (Origin::Bound, Origin::Bound) })
}

/// Binds the sockets of one kind; a port of 0 becomes the one that the kernel chose.
fn bind_all(
    address: &mut SocketAddr,
    count: usize,
    sharing: Sharing,
    transport: ClientTransport,
) -> io::Result<Vec<Socket>> {
    let mut sockets = Vec::with_capacity(count);
    for _ in 0..count {
        // The first one is bound alone, so that a second instance of this program is told that the port is
        // taken; then it is opened for the others.
        let alone = sockets.is_empty() && sharing == Sharing::Nobody;
        let socket = open(*address, transport)?;
        if !alone {
            socket.set_reuse_port(true)?;
        }
        socket.bind(&(*address).into())?;
        if alone {
            socket.set_reuse_port(true)?;
        }
        if transport == ClientTransport::Tcp {
            socket.listen(BACKLOG)?;
        }
        if let Some(local) = socket.local_addr()?.as_socket() {
            address.set_port(local.port());
        }
        sockets.push(socket);
    }
    Ok(sockets)
}

/// Makes a socket with its options set, not yet bound. One family each, so that `[::]` and `0.0.0.0` can
/// stand side by side and addresses are never IPv4-mapped.
fn open(address: SocketAddr, transport: ClientTransport) -> io::Result<Socket> {
    let domain = Domain::for_address(address);
    let socket = match transport {
        ClientTransport::Udp => Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?,
        ClientTransport::Tcp => Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?,
    };
    socket.set_nonblocking(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    match transport {
        ClientTransport::Udp => grow_receive_buffer(&socket),
        // Or a restart would have to wait for old connections to time out.
        ClientTransport::Tcp => socket.set_reuse_address(true)?,
    }
    Ok(socket)
}

/// Makes room for bursts, as much as the system gives.
fn grow_receive_buffer(socket: &Socket) {
    if force_receive_buffer(socket, RECEIVE_BUFFER_OCTETS).is_err() {
        // Without privileges the kernel gives as much as `net.core.rmem_max` allows.
        let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER_OCTETS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Binds on any port of loopback.
    fn any(count: usize) -> Sockets {
        bind("127.0.0.1:0".parse().unwrap(), count, Sharing::Nobody).unwrap()
    }

    #[test]
    fn all_sockets_of_an_address_are_on_one_port() {
        let sockets = any(3);
        assert_ne!(sockets.address.port(), 0);
        for socket in &sockets.udp {
            assert_eq!(socket.socket.local_addr().unwrap(), sockets.address);
        }
        for listener in &sockets.tcp {
            assert_eq!(listener.local_addr().unwrap(), sockets.address);
        }
        assert_eq!((sockets.udp.len(), sockets.tcp.len()), (3, 3));
    }

    #[test]
    fn second_instance_is_told_that_the_port_is_taken_and_by_whom() {
        let first = any(2);
        let error = bind(first.address, 2, Sharing::Nobody).unwrap_err();
        let BindErrorKind::InUse { holder: Some(holder) } = &error.kind else { panic!("{error:?}") };
        assert_eq!(holder.pid, std::process::id());
        let port = first.address.port();
        let expected =
            format!("cannot listen on 127.0.0.1:{port} (UDP): port {port} is taken by {holder}: stop it");
        assert!(error.to_string().starts_with(&expected), "{error}");
    }

    #[test]
    fn port_taken_for_tcp_alone_is_reported_as_such() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let error = bind(listener.local_addr().unwrap(), 1, Sharing::Nobody).unwrap_err();
        assert_eq!(error.transport, ClientTransport::Tcp);
        assert!(matches!(error.kind, BindErrorKind::InUse { holder: Some(_) }), "{error:?}");
    }

    #[test]
    fn our_own_wildcard_may_share_the_port() {
        let first = any(1);
        let wildcard = SocketAddr::new([0, 0, 0, 0].into(), first.address.port());
        assert!(bind(wildcard, 1, Sharing::Nobody).is_err());
        assert!(bind(wildcard, 1, Sharing::Ours).is_ok());
    }

    #[test]
    fn address_that_the_host_lacks_is_told_apart() {
        let error = bind("192.0.2.1:0".parse().unwrap(), 1, Sharing::Nobody).unwrap_err();
        assert_eq!(error.kind, BindErrorKind::NotHere);
    }

    #[test]
    fn errors_say_what_to_do() {
        let error = |kind, port| {
            let address = SocketAddr::from(([127, 0, 0, 1], port));
            BindError { address, transport: ClientTransport::Udp, kind, source: io::Error::other("x") }
                .to_string()
        };
        let resolved = Holder { name: "systemd-resolve".into(), pid: 412 };
        assert_eq!(
            error(BindErrorKind::InUse { holder: Some(resolved) }, 53),
            "cannot listen on 127.0.0.1:53 (UDP): port 53 is taken by systemd-resolve (pid 412): turn its stub \
             listener off (DNSStubListener=no in resolved.conf), or listen on another address or port"
        );
        assert!(error(BindErrorKind::Permission, 53).contains("CAP_NET_BIND_SERVICE"));
        assert!(error(BindErrorKind::InUse { holder: None }, 53).contains("another program"));
    }
}
