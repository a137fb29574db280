//! Plain DNS, unencrypted: for servers of the operator's own network that a route names, never a fallback. Over UDP each
//! query has a socket, a port and an ID of its own (RFC 5452 §9.2); over TCP it is the stream connection of `dot`, without TLS.

use super::dial::{Dial, TcpDial};
use super::dot::StreamConnection;
use super::lanes;
use super::mux::mismatch;
use super::pool::{Connector, Pool};
use super::{Exchange, Handshake, Received, Surroundings, Transport, TransportError};
use crate::telemetry::bounds::{Bound, Bounds};
use crate::wire::header::{HeaderRef, set_id};
use bytes::{Bytes, BytesMut};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::net::UdpSocket;
use tokio::sync::Semaphore;

/// Longest datagram read. We announce 1232 octets; what is cut off here fails validation.
const MAX_DATAGRAM: usize = 4096;

/// Makes the transport of a `udp://` server.
pub(super) fn udp(address: SocketAddr, around: &Surroundings) -> Box<dyn Transport> {
    Box::new(UdpTransport {
        address,
        around: around.clone(),
        sockets: Arc::new(Semaphore::new(around.limits.plain_sockets)),
        draining: AtomicBool::new(false),
        tcp: Arc::new(Pool::new(TcpConnector::new(address, around), around)),
    })
}

/// Makes the transport of a `tcp://` server.
pub(super) fn tcp(address: SocketAddr, around: &Surroundings) -> Box<dyn Transport> {
    lanes::build(TcpConnector::new(address, around), around)
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
        let dial = TcpDial::plain(address, around);
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
        Ok((StreamConnection { stream: dialled.stream, streams: self.streams, pads: false }, facts))
    }

    fn forget_network(&self) {
        self.dial.forget_network();
    }

    fn silent(&self, address: IpAddr) {
        self.dial.silent(address);
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
            self.around.bounds.reached(Bound::PlainSockets);
            return exchange.ticket.complete(Err(TransportError::Overloaded));
        };
        let (address, tcp, cancel) = (self.address, Arc::clone(&self.tcp), self.around.cancel.clone());
        let bounds = Arc::clone(&self.around.bounds);
        let task = async move {
            // A ticket that is dropped completes as `ShuttingDown`.
            let _ = cancel.run_until_cancelled(ask(address, exchange, tcp.as_ref(), &bounds)).await;
            drop(permit);
        };
        self.around.tasks.spawn_on(task, &self.around.runtime);
    }

    fn warm(&self) {}

    fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    fn reset(&self) {
        self.tcp.reset();
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

/// Asks over UDP, and over TCP when the answer did not fit. Connected sockets learn of a closed port at once.
async fn ask(address: SocketAddr, exchange: Exchange, tcp: &dyn Transport, bounds: &Bounds) {
    let Exchange { query, deadline, ticket, lane } = exchange;
    let sent_at = crate::clock::now();
    let answer = tokio::time::timeout_at(deadline.into(), answer(address, &query)).await;
    match answer {
        Ok(Ok(message)) if HeaderRef::parse(&message).is_some_and(|header| header.is_truncated()) => {
            tcp.submit(Exchange { query, deadline, ticket, lane });
        }
        Ok(Ok(message)) => ticket.complete(Ok(Received { message, age_secs: 0, sent_at: Some(sent_at) })),
        Ok(Err(error)) => {
            let error = TransportError::connecting(address, error);
            if matches!(error, TransportError::Exhausted { .. }) {
                bounds.reached(Bound::OpenFiles);
            }
            ticket.complete(Err(error));
        }
        Err(_elapsed) => ticket.complete(Err(TransportError::Timeout)),
    }
}

/// Asks one server once over UDP, until `deadline` at the latest: for whoever looks at a network. Never for what clients
/// ask. A truncated answer is an answer.
///
/// # Errors
/// `Connect` when the address cannot be reached, `Timeout` when nothing comes.
pub(crate) async fn ask_once(
    address: SocketAddr,
    query: &[u8],
    deadline: Instant,
) -> Result<Bytes, TransportError> {
    match tokio::time::timeout_at(deadline.into(), answer(address, query)).await {
        Ok(Ok(message)) => Ok(message),
        Ok(Err(error)) => Err(TransportError::connecting(address, error)),
        Err(_elapsed) => Err(TransportError::Timeout),
    }
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

#[cfg(test)]
mod tests {
    use super::super::exchange;
    use super::super::rehearsal::{Log, Peer, answer_to, query, surroundings, with_id};
    use super::*;
    use crate::clock;
    use crate::config::settings::Limits;
    use crate::wire::header::HEADER_LEN;
    use tokio::net::TcpListener;

    const PATIENCE: Duration = Duration::from_secs(5);

    /// A UDP server and the transport to it.
    async fn stage() -> (UdpSocket, Box<dyn Transport>) {
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let transport = udp(server.local_addr().unwrap(), &surroundings(Limits::default()));
        (server, transport)
    }

    /// The next query and who sent it.
    async fn receive(server: &UdpSocket) -> (Bytes, SocketAddr) {
        let mut datagram = [0; 1500];
        let (len, from) = server.recv_from(&mut datagram).await.unwrap();
        (Bytes::copy_from_slice(&datagram[..len]), from)
    }

    #[tokio::test]
    async fn every_query_has_a_port_of_its_own() {
        let (server, transport) = stage().await;
        let log = Log::new();
        let mut ports = std::collections::HashSet::new();
        for id in 0..8 {
            log.ask(transport.as_ref(), id, "a.example", PATIENCE);
            let (query, from) = receive(&server).await;
            ports.insert(from.port());
            server.send_to(&answer_to(&query), from).await.unwrap();
        }
        for id in 0..8 {
            let message = log.outcome(id).await.unwrap().message;
            assert_eq!(message[2..], answer_to(&query("a.example"))[2..]);
        }
        // The kernel may choose a port twice, one after the other, but not always.
        assert!(ports.len() > 1);
    }

    #[tokio::test]
    async fn datagrams_that_do_not_match_are_ignored() {
        let (server, transport) = stage().await;
        let log = Log::new();
        log.ask(transport.as_ref(), 0, "a.example", PATIENCE);
        let (asked, from) = receive(&server).await;
        let id = u16::from_be_bytes([asked[0], asked[1]]);
        let forgeries = [
            with_id(&answer_to(&asked), id.wrapping_add(1)),
            with_id(&answer_to(&query("b.example")), id),
            asked.clone(),
            Bytes::from_static(b"x"),
            asked.slice(..HEADER_LEN),
        ];
        for forgery in forgeries {
            server.send_to(&forgery, from).await.unwrap();
        }
        server.send_to(&answer_to(&asked), from).await.unwrap();
        assert_eq!(log.outcome(0).await.unwrap().message, answer_to(&asked));
    }

    #[tokio::test]
    async fn a_truncated_answer_is_asked_for_again_over_tcp() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = UdpSocket::bind(address).await.unwrap();
        let transport = udp(address, &surroundings(Limits::default()));
        let log = Log::new();
        log.ask(transport.as_ref(), 0, "a.example", PATIENCE);
        let (asked, from) = receive(&server).await;
        let mut cut = answer_to(&asked).to_vec();
        cut[2] |= 0x02;
        server.send_to(&cut, from).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let mut peer = Peer::new(stream);
        let again = peer.read().await.unwrap();
        peer.write(&[answer_to(&again)]).await;
        assert_eq!(log.outcome(0).await.unwrap().message, answer_to(&again));
        assert_eq!(transport.connections(), 1);
    }

    #[tokio::test]
    async fn a_closed_port_is_told_at_once_and_silence_at_the_deadline() {
        let (server, transport) = stage().await;
        let soon = clock::now() + Duration::from_millis(20);
        let silence = exchange(transport.as_ref(), query("a.example"), soon).await;
        assert!(matches!(silence, Err(TransportError::Timeout)));
        drop(server);
        let deadline = clock::now() + PATIENCE;
        let closed = exchange(transport.as_ref(), query("a.example"), deadline).await;
        assert!(matches!(closed, Err(TransportError::Connect { .. })));
    }

    #[tokio::test]
    async fn sockets_are_bounded_and_a_drained_server_takes_no_more() {
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let around = surroundings(Limits { plain_sockets: 3, ..Limits::default() });
        let transport = udp(server.local_addr().unwrap(), &around);
        let log = Log::new();
        for id in 0..3 {
            log.ask(transport.as_ref(), id, "a.example", PATIENCE);
        }
        log.ask(transport.as_ref(), 3, "a.example", PATIENCE);
        assert!(matches!(log.outcome(3).await, Err(TransportError::Overloaded)));
        assert_eq!(around.bounds.count(Bound::PlainSockets), 1);
        let (asked, from) = receive(&server).await;
        server.send_to(&answer_to(&asked), from).await.unwrap();
        transport.drain();
        log.ask(transport.as_ref(), 4, "a.example", PATIENCE);
        assert!(matches!(log.outcome(4).await, Err(TransportError::ShuttingDown)));
    }

    #[tokio::test]
    async fn tcp_carries_many_queries_on_one_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let transport = tcp(listener.local_addr().unwrap(), &surroundings(Limits::default()));
        let log = Log::new();
        log.ask(transport.as_ref(), 0, "a.example", PATIENCE);
        log.ask(transport.as_ref(), 1, "b.example", PATIENCE);
        let (stream, _) = listener.accept().await.unwrap();
        let mut peer = Peer::new(stream);
        let queries = peer.read_many(2).await;
        peer.write(&[answer_to(&queries[1]), answer_to(&queries[0])]).await;
        assert_eq!(log.outcome(0).await.unwrap().message, answer_to(&queries[0]));
        assert_eq!(log.outcome(1).await.unwrap().message, answer_to(&queries[1]));
    }
}
