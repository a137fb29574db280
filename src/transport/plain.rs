//! Plain DNS, unencrypted: for servers of the operator's own network that a route names, never a fallback. Over UDP each
//! query has a socket, a port and an ID of its own (RFC 5452 §9.2); over TCP it is the stream connection of `dot`, without TLS.

use super::dial::{Dial, TcpDial};
use super::dot::StreamConnection;
use super::mux::mismatch;
use super::pool::{Connector, Pool};
use super::{Exchange, Handshake, Received, Surroundings, Ticket, Transport, TransportError};
use crate::config::settings::Host;
use crate::wire::header::{HeaderRef, set_id};
use bytes::{Bytes, BytesMut};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::net::UdpSocket;
use tokio::sync::Semaphore;

/// Sockets open at once to one server.
const MAX_SOCKETS: usize = 256;
/// Longest datagram read. We announce 1232 octets (RFC 9715 §3.2); a server that sends more than this fails validation.
const MAX_DATAGRAM: usize = 4096;

/// Makes the transport of a `udp://` server.
pub(super) fn udp(address: SocketAddr, around: &Surroundings) -> Box<dyn Transport> {
    Box::new(UdpTransport {
        address,
        around: around.clone(),
        sockets: Arc::new(Semaphore::new(MAX_SOCKETS)),
        draining: AtomicBool::new(false),
        tcp: Arc::new(Pool::new(TcpConnector::new(address, around), around)),
    })
}

/// Makes the transport of a `tcp://` server.
pub(super) fn tcp(address: SocketAddr, around: &Surroundings) -> Box<dyn Transport> {
    Box::new(Pool::new(TcpConnector::new(address, around), around))
}

/// Dials, and that is all.
#[derive(Debug)]
pub(super) struct TcpConnector<D> {
    /// Opens streams.
    pub(super) dial: D,
    /// Queries in flight on one connection.
    pub(super) streams: usize,
}

impl TcpConnector<TcpDial> {
    /// Connects to one address.
    fn new(address: SocketAddr, around: &Surroundings) -> Self {
        let dial = TcpDial::new(&Host::Address(address.ip()), address.port(), &[], around);
        Self { dial, streams: around.limits.dot_streams }
    }
}

impl<D: Dial> Connector for TcpConnector<D> {
    type Connection = StreamConnection<D::Stream>;

    async fn connect(&self, deadline: Instant) -> Result<(Self::Connection, Handshake), TransportError> {
        let dialled = self.dial.dial(deadline).await?;
        let facts = Handshake {
            address: dialled.address,
            tls_version: None,
            resumed: false,
            connect_time: dialled.connect_time,
            handshake_time: Duration::ZERO,
            certificate_not_after: None,
        };
        Ok((StreamConnection { stream: dialled.stream, streams: self.streams }, facts))
    }
}

/// A server over UDP, with TCP for what does not fit.
#[derive(Debug)]
struct UdpTransport {
    /// The server.
    address: SocketAddr,
    /// Where query tasks run.
    around: Surroundings,
    /// One permit a socket.
    sockets: Arc<Semaphore>,
    /// No new queries.
    draining: AtomicBool,
    /// Asked when an answer was truncated (RFC 7766 §5).
    tcp: Arc<Pool<TcpConnector<TcpDial>>>,
}

impl Transport for UdpTransport {
    fn submit(&self, exchange: Exchange) {
        if self.draining.load(Ordering::Relaxed) {
            return exchange.ticket.complete(Err(TransportError::ShuttingDown));
        }
        let Ok(permit) = Arc::clone(&self.sockets).try_acquire_owned() else {
            return exchange.ticket.complete(Err(TransportError::Overloaded));
        };
        let (address, tcp, cancel) = (self.address, Arc::clone(&self.tcp), self.around.cancel.clone());
        let task = async move {
            // A ticket that is dropped completes as `ShuttingDown`.
            let _ = cancel.run_until_cancelled(ask(address, exchange, tcp.as_ref())).await;
            drop(permit);
        };
        self.around.tasks.spawn_on(task, &self.around.runtime);
    }

    fn warm(&self) {}

    fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    fn connections(&self) -> usize {
        self.tcp.connections()
    }

    fn last_handshake(&self) -> Option<Handshake> {
        self.tcp.last_handshake()
    }

    fn handshakes(&self) -> (u64, u64) {
        self.tcp.handshakes()
    }
}

/// Asks over UDP, and over TCP when the answer did not fit.
async fn ask(address: SocketAddr, exchange: Exchange, tcp: &dyn Transport) {
    let Exchange { query, deadline, ticket } = exchange;
    let answer = tokio::time::timeout_at(deadline.into(), answer(address, &query)).await;
    match answer {
        Ok(Ok(message)) if HeaderRef::parse(&message).is_some_and(|header| header.is_truncated()) => {
            tcp.submit(Exchange { query, deadline, ticket });
        }
        Ok(Ok(message)) => ticket.complete(Ok(Received { message, age_secs: 0 })),
        Ok(Err(error)) => fail(ticket, address, error),
        Err(_elapsed) => ticket.complete(Err(TransportError::Timeout)),
    }
}

/// Completes with what the socket said: connected ones learn of a closed port at once.
fn fail(ticket: Ticket, address: SocketAddr, error: io::Error) {
    ticket.complete(Err(TransportError::Connect { address, error: Arc::new(error) }));
}

/// Sends the query from a port of its own and waits for its answer. A datagram that does not match is ignored: anybody
/// can send one, and giving up on it is what an attacker wants.
async fn answer(address: SocketAddr, query: &[u8]) -> io::Result<Bytes> {
    let any = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).await?;
    socket.connect(address).await?;
    let id = fastrand::u16(..);
    let mut sent = BytesMut::from(query);
    set_id(&mut sent, id);
    socket.send(&sent).await?;
    loop {
        let mut datagram = BytesMut::with_capacity(MAX_DATAGRAM);
        socket.recv_buf(&mut datagram).await?;
        let same_id = HeaderRef::parse(&datagram).is_some_and(|header| header.id() == id);
        if same_id && mismatch(query, &datagram).is_none() {
            return Ok(datagram.freeze());
        }
    }
}
