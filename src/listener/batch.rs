//! The system calls of UDP: many datagrams in by one `recvmmsg`, many replies out by one `sendmmsg`, and
//! the control messages that let a wildcard socket answer from the address it was asked at. The one place
//! that names `nix`; if measurements ask for more, the one file to replace. What is in a datagram is not
//! its matter.
//!
//! nix's headers hold raw pointers, so they cannot move between threads: they live in thread-locals, which
//! also lets a reply leave from any thread. Receiving and sending never share headers: `sendmmsg` leaves
//! the caller's address pointers in them.

use crate::config::settings::MAX_UDP_BATCH;
use crate::resolver::waiter::ClientToken;
use crate::wire::MAX_UDP_REPLY;
use nix::errno::Errno;
use nix::libc::{in_addr, in_pktinfo, in6_addr, in6_pktinfo};
use nix::sys::socket::sockopt::{Ipv4PacketInfo, Ipv6RecvPacketInfo, RcvBufForce};
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, MultiHeaders, RecvMsg, SockaddrStorage, recvmmsg, recvmsg,
    sendmmsg, sendmsg, setsockopt,
};
use std::cell::RefCell;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};

/// Datagrams taken or sent by one system call at most; the operator may say fewer (`limits.udp_batch`).
const MOST: usize = MAX_UDP_BATCH;

/// Datagrams taken at once while few come.
const FEW: usize = 8;

/// Room for one datagram, either way. A longer query is cut, and a cut query is malformed.
const SLOT: usize = MAX_UDP_REPLY;

/// Room for the control message of either family, and some.
const CONTROL_OCTETS: usize = 128;

/// A UDP socket and how it answers.
#[derive(Debug)]
pub(super) struct BatchSocket {
    /// Non-blocking, of one family (`IPV6_V6ONLY`).
    pub(super) socket: UdpSocket,
    /// Which family.
    family: Family,
    /// Where replies leave from.
    source: ReplySource,
    /// The address it is bound to.
    pub(super) local: SocketAddr,
    /// Datagrams sent by one system call, at most `MOST`.
    batch: usize,
}

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    /// Addresses are `sockaddr_in`.
    V4,
    /// Addresses are `sockaddr_in6`.
    V6,
}

/// Where replies leave from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReplySource {
    /// The address that the socket is bound to.
    Bound,
    /// The address the query came to, told by control messages. nix shares control messages across a batch,
    /// so these go one at a time.
    AsAsked,
}

impl BatchSocket {
    /// Takes a bound, non-blocking socket; one that is bound to every address is told to report which one
    /// was asked.
    pub(super) fn new(socket: UdpSocket) -> io::Result<Self> {
        let local = socket.local_addr()?;
        let family = if local.is_ipv4() { Family::V4 } else { Family::V6 };
        if !local.ip().is_unspecified() {
            return Ok(Self { socket, family, source: ReplySource::Bound, local, batch: MOST });
        }
        match family {
            Family::V4 => setsockopt(&socket, Ipv4PacketInfo, &true)?,
            Family::V6 => setsockopt(&socket, Ipv6RecvPacketInfo, &true)?,
        }
        Ok(Self { socket, family, source: ReplySource::AsAsked, local, batch: MOST })
    }

    /// Bounds the datagrams that one system call sends.
    pub(super) fn with_batch(self, batch: usize) -> Self {
        Self { batch: batch.clamp(1, MOST), ..self }
    }
}

/// Raises the receive buffer beyond the system's limit, if this process may.
pub(super) fn force_receive_buffer(socket: &impl AsFd, octets: usize) -> io::Result<()> {
    Ok(setsockopt(socket, RcvBufForce, &octets)?)
}

/// Datagrams just received. Buffers are reused.
pub(super) struct Datagrams {
    /// For `recvmmsg` on IPv4 sockets only.
    headers_v4: MultiHeaders<SockaddrStorage>,
    /// For `recvmmsg` on IPv6 sockets only: the lengths of addresses are not reset between calls, so after one
    /// on IPv4 an IPv6 address would be cut.
    headers_v6: MultiHeaders<SockaddrStorage>,
    /// A slot for each datagram of a batch.
    octets: Box<[u8]>,
    /// Who sent each datagram and how long it is.
    received: Vec<(ClientToken, usize)>,
    /// How many are taken next: headers are made ready for each, which a query that comes alone would pay for.
    window: usize,
}

/// How many datagrams were received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Received {
    /// As many as there were.
    All,
    /// As many as were asked for, less than a batch: there may be more.
    Window,
    /// A whole batch: there may be more.
    Batch,
}

impl std::fmt::Debug for Datagrams {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Datagrams").field("received", &self.received).finish_non_exhaustive()
    }
}

impl Datagrams {
    /// Allocates the buffers of a batch, at most `MOST` datagrams.
    pub(super) fn new(batch: usize) -> Self {
        let batch = batch.clamp(1, MOST);
        Self {
            headers_v4: MultiHeaders::preallocate(batch, None),
            headers_v6: MultiHeaders::preallocate(batch, None),
            octets: vec![0; batch * SLOT].into_boxed_slice(),
            received: Vec::with_capacity(batch),
            window: batch.min(FEW),
        }
    }

    /// Takes what is queued, at most a batch. `WouldBlock` when there is nothing.
    pub(super) fn receive(&mut self, from: &BatchSocket) -> io::Result<Received> {
        self.received.clear();
        let batch = self.octets.len() / SLOT;
        let asked = match from.source {
            ReplySource::Bound if self.window <= FEW => {
                self.receive_many::<FEW>(from)?;
                self.window
            }
            ReplySource::Bound => {
                self.receive_many::<MOST>(from)?;
                self.window
            }
            ReplySource::AsAsked => {
                self.receive_each(&from.socket)?;
                batch
            }
        };
        let received = self.received.len();
        let is_full = received >= asked;
        self.window = if is_full { asked * 4 } else { received * 2 }.clamp(FEW.min(batch), batch);
        Ok(match is_full {
            false => Received::All,
            true if asked < batch => Received::Window,
            true => Received::Batch,
        })
    }

    /// Returns what was received, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&ClientToken, &[u8])> {
        let slots = self.octets.chunks_exact(SLOT);
        self.received
            .iter()
            .zip(slots)
            .map(|((client, len), slot)| (client, slot.get(..*len).unwrap_or(slot)))
    }

    /// Receives by one `recvmmsg` what fits into the window, at most `N`.
    fn receive_many<const N: usize>(&mut self, from: &BatchSocket) -> io::Result<()> {
        let Self { headers_v4, headers_v6, octets, received, window } = self;
        let headers = match from.family {
            Family::V4 => headers_v4,
            Family::V6 => headers_v6,
        };
        let mut slots = octets.chunks_exact_mut(SLOT);
        let mut buffers: [[IoSliceMut<'_>; 1]; N] =
            std::array::from_fn(|_| [IoSliceMut::new(slots.next().unwrap_or_default())]);
        let flags = MsgFlags::MSG_DONTWAIT;
        let messages =
            recvmmsg(from.socket.as_raw_fd(), headers, buffers.iter_mut().take(*window), flags, None)?;
        for message in messages {
            received.push((client_of(&message), message.bytes));
        }
        Ok(())
    }

    /// Receives by one `recvmsg` each, with the address that was asked.
    fn receive_each(&mut self, socket: &UdpSocket) -> io::Result<()> {
        let Self { octets, received, .. } = self;
        for slot in octets.chunks_exact_mut(SLOT) {
            let mut control = [0; CONTROL_OCTETS];
            let mut buffer = [IoSliceMut::new(slot)];
            let flags = MsgFlags::MSG_DONTWAIT;
            match recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut buffer, Some(&mut control), flags) {
                Ok(message) => received.push((client_of(&message), message.bytes)),
                Err(_) if !received.is_empty() => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

/// Reads who sent a datagram, and to which of our addresses if the socket reports it. Port 0, which nobody
/// can be answered at, stands for an address that cannot be read.
fn client_of(message: &RecvMsg<'_, '_, SockaddrStorage>) -> ClientToken {
    let nobody = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0));
    let peer = message.address.as_ref().and_then(socket_address).unwrap_or(nobody);
    let mut client = ClientToken { peer, local: None, interface: 0 };
    for control in message.cmsgs().into_iter().flatten() {
        #[expect(clippy::wildcard_enum_match_arm, reason = "other control messages are not asked for")]
        match control {
            ControlMessageOwned::Ipv4PacketInfo(info) => {
                // `ipi_spec_dst` is one of ours even if the query was broadcast.
                client.local = Some(Ipv4Addr::from_bits(u32::from_be(info.ipi_spec_dst.s_addr)).into());
            }
            ControlMessageOwned::Ipv6PacketInfo(info) => {
                let asked = Ipv6Addr::from(info.ipi6_addr.s6_addr);
                client.local = (!asked.is_multicast()).then_some(asked.into());
                client.interface = if asked.is_unicast_link_local() { info.ipi6_ifindex } else { 0 };
            }
            _ => {}
        }
    }
    client
}

/// Converts an address that the kernel wrote.
fn socket_address(address: &SockaddrStorage) -> Option<SocketAddr> {
    if let Some(v4) = address.as_sockaddr_in() {
        return Some(SocketAddrV4::new(v4.ip(), v4.port()).into());
    }
    address.as_sockaddr_in6().map(|v6| SocketAddr::V6((*v6).into()))
}

/// Replies being written, to be sent together. Buffers are reused.
#[derive(Debug)]
pub(super) struct Replies {
    /// A slot for each reply of a batch.
    octets: Box<[u8]>,
    /// For whom each reply is and how long it is.
    written: Vec<(ClientToken, usize)>,
}

impl Replies {
    /// Allocates the buffers of a batch, at most `MOST` replies.
    pub(super) fn new(batch: usize) -> Self {
        let batch = batch.clamp(1, MOST);
        Self { octets: vec![0; batch * SLOT].into_boxed_slice(), written: Vec::with_capacity(batch) }
    }

    /// Returns where the next reply may be written; empty when the batch is full.
    pub(super) fn slot(&mut self) -> &mut [u8] {
        self.octets.chunks_exact_mut(SLOT).nth(self.written.len()).unwrap_or_default()
    }

    /// Keeps the first `octets` of the slot as the reply to `client`.
    pub(super) fn commit(&mut self, client: ClientToken, octets: usize) {
        self.written.push((client, octets));
    }

    /// Sends all; returns how many could not be sent.
    pub(super) fn flush(&mut self, by: &BatchSocket) -> usize {
        let slots = self.octets.chunks_exact(SLOT);
        let replies = self.written.iter().zip(slots);
        let unsent =
            send(by, replies.map(|((client, len), slot)| (client, slot.get(..*len).unwrap_or(slot))));
        self.written.clear();
        unsent
    }
}

/// What `sendmmsg` needs, kept from call to call.
struct SendState {
    /// For `sendmmsg` only.
    headers: MultiHeaders<SockaddrStorage>,
    /// For whom each reply of the batch is.
    addresses: Vec<Option<SockaddrStorage>>,
}

thread_local! {
    /// One for each thread that sends: the workers, and the thread that runs flights.
    static SEND: RefCell<SendState> = RefCell::new(SendState {
        headers: MultiHeaders::preallocate(MOST, None),
        addresses: Vec::with_capacity(MOST),
    });
}

/// Sends replies without blocking; returns how many could not be sent. A client whose reply is lost asks again. A single
/// one, the usual case at moderate load, goes by the plain call, which has less to prepare.
pub(super) fn send<'a>(
    by: &BatchSocket,
    mut replies: impl Iterator<Item = (&'a ClientToken, &'a [u8])>,
) -> usize {
    match by.source {
        ReplySource::AsAsked => {
            replies.filter(|(client, reply)| !send_one(&by.socket, client, reply)).count()
        }
        ReplySource::Bound => match (replies.next(), replies.next()) {
            (None, _) => 0,
            (Some((client, reply)), None) => usize::from(by.socket.send_to(reply, client.peer).is_err()),
            (first, second) => send_batches(by, first.into_iter().chain(second).chain(replies)),
        },
    }
}

/// Sends replies by batches; returns how many could not be sent.
fn send_batches<'a>(
    by: &BatchSocket,
    mut replies: impl Iterator<Item = (&'a ClientToken, &'a [u8])>,
) -> usize {
    SEND.with_borrow_mut(|state| {
        let mut unsent = 0;
        loop {
            let mut buffers = [[IoSlice::new(&[])]; MOST];
            state.addresses.clear();
            for (buffer, (client, reply)) in buffers.iter_mut().take(by.batch).zip(replies.by_ref()) {
                *buffer = [IoSlice::new(reply)];
                state.addresses.push(Some(client.peer.into()));
            }
            unsent += send_many(&by.socket, state, &buffers);
            if state.addresses.len() < by.batch {
                return unsent;
            }
        }
    })
}

/// Sends one batch; returns how many of it could not be sent. `buffers` and `state.addresses` go together.
fn send_many(socket: &UdpSocket, state: &mut SendState, buffers: &[[IoSlice<'_>; 1]]) -> usize {
    let SendState { headers, addresses } = state;
    let mut unsent = 0;
    let mut done = 0;
    while let (Some(buffers), Some(addresses @ [_, ..])) = (buffers.get(done..), addresses.get(done..)) {
        match sendmmsg(socket.as_raw_fd(), headers, buffers, addresses, [], MsgFlags::MSG_DONTWAIT) {
            // The results cannot be asked for their number, only counted.
            Ok(sent) => done += sent.count().max(1),
            Err(Errno::EINTR) => {}
            // The socket's send buffer is full: so it will be for the rest.
            Err(Errno::EAGAIN | Errno::ENOBUFS) => return unsent + addresses.len(),
            // The error is of the first one only, and may even be an ICMP error about an earlier reply.
            Err(_) => {
                unsent += 1;
                done += 1;
            }
        }
    }
    unsent
}

/// Sends one reply from the address that was asked; false when it could not be sent.
fn send_one(socket: &UdpSocket, client: &ClientToken, reply: &[u8]) -> bool {
    let peer = SockaddrStorage::from(client.peer);
    let buffer = [IoSlice::new(reply)];
    let send = |control: &[ControlMessage<'_>]| {
        sendmsg(socket.as_raw_fd(), &buffer, control, MsgFlags::MSG_DONTWAIT, Some(&peer)).is_ok()
    };
    match client.local {
        None => send(&[]),
        Some(IpAddr::V4(local)) => {
            let source = in_addr { s_addr: local.to_bits().to_be() };
            let info = in_pktinfo { ipi_ifindex: 0, ipi_spec_dst: source, ipi_addr: in_addr { s_addr: 0 } };
            send(&[ControlMessage::Ipv4PacketInfo(&info)])
        }
        Some(IpAddr::V6(local)) => {
            let source = in6_addr { s6_addr: local.octets() };
            let info = in6_pktinfo { ipi6_addr: source, ipi6_ifindex: client.interface };
            send(&[ControlMessage::Ipv6PacketInfo(&info)])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const BATCH: usize = MOST;

    /// Makes a batch socket and a client socket beside it.
    fn pair(address: &str) -> (BatchSocket, UdpSocket) {
        let socket = UdpSocket::bind(address).unwrap();
        socket.set_nonblocking(true).unwrap();
        let client =
            UdpSocket::bind(if address.starts_with('[') { "[::1]:0" } else { "127.0.0.1:0" }).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        (BatchSocket::new(socket).unwrap(), client)
    }

    /// Sends `count` numbered datagrams, receives them by batches and sends each back.
    fn echo(address: &str, count: usize) {
        echo_by(BATCH, address, count);
    }

    /// Writes back what was received, which is the beginning of what was sent; returns the rest of that.
    fn give_back<'a>(
        datagrams: &Datagrams,
        replies: &mut Replies,
        client: SocketAddr,
        sent: &'a [Vec<u8>],
    ) -> &'a [Vec<u8>] {
        for ((from, octets), expected) in datagrams.iter().zip(sent) {
            assert_eq!((from.peer, octets), (client, &expected[..]));
            replies.slot()[..octets.len()].copy_from_slice(octets);
            replies.commit(*from, octets.len());
        }
        &sent[datagrams.iter().count()..]
    }

    /// The same by batches of another length.
    fn echo_by(batch: usize, address: &str, count: usize) {
        let (server, client) = pair(address);
        let mut to = server.socket.local_addr().unwrap();
        if to.ip().is_unspecified() {
            to.set_ip(client.local_addr().unwrap().ip());
        }
        let (mut datagrams, mut replies) = (Datagrams::new(batch), Replies::new(batch));
        let server = server.with_batch(batch);
        for first in (0..count).step_by(batch) {
            let sent: Vec<_> = (first..count.min(first + batch)).map(|n| vec![b'x'; 1 + n]).collect();
            for octets in &sent {
                client.send_to(octets, to).unwrap();
            }
            let client_at = client.local_addr().unwrap();
            let mut left = &sent[..];
            while !left.is_empty() {
                datagrams.receive(&server).unwrap();
                left = give_back(&datagrams, &mut replies, client_at, left);
                assert_eq!(replies.flush(&server), 0);
            }
            for expected in &sent {
                let mut buffer = [0; 2048];
                let (len, from) = client.recv_from(&mut buffer).unwrap();
                assert_eq!((&buffer[..len], from), (&expected[..], to));
            }
        }
        assert_eq!(datagrams.receive(&server).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn batches_go_there_and_back_on_a_bound_ipv4_socket() {
        echo("127.0.0.1:0", 3 * BATCH + 5);
    }

    #[test]
    fn batches_go_there_and_back_on_a_bound_ipv6_socket() {
        echo("[::1]:0", BATCH + 1);
    }

    #[test]
    fn batches_go_there_and_back_on_wildcard_sockets() {
        echo("0.0.0.0:0", BATCH + 1);
        echo("[::]:0", 3);
    }

    #[test]
    fn a_batch_is_as_long_as_the_operator_says_and_the_rest_is_taken_by_the_next() {
        for batch in [1, 3, BATCH] {
            echo_by(batch, "127.0.0.1:0", 2 * batch + 1);
            let (server, client) = pair("127.0.0.1:0");
            let server = server.with_batch(batch);
            let to = server.socket.local_addr().unwrap();
            (0..2 * batch + 1).for_each(|_| assert_eq!(client.send_to(b"x", to).unwrap(), 1));
            let mut datagrams = Datagrams::new(batch);
            let mut left = 2 * batch + 1;
            let mut full = false;
            while left > 0 {
                let received = datagrams.receive(&server).unwrap();
                let taken = datagrams.iter().count();
                assert!(taken <= batch && taken <= left);
                left -= taken;
                // Whoever sees less than there may be asks again; a whole batch is told from a window.
                assert!(received != Received::All || left == 0);
                assert_eq!(received == Received::Batch, taken == batch);
                full |= received == Received::Batch;
            }
            assert!(full, "{batch}");
            let token = ClientToken { peer: client.local_addr().unwrap(), local: None, interface: 0 };
            assert_eq!(send(&server, std::iter::repeat_n((&token, &b"x"[..]), 2 * batch + 1)), 0);
            (0..2 * batch + 1).for_each(|_| assert_eq!(client.recv(&mut [0; 8]).unwrap(), 1));
        }
    }

    #[test]
    fn few_headers_are_made_ready_while_few_come_and_a_batch_of_them_when_many_do() {
        let (server, client) = pair("127.0.0.1:0");
        let to = server.socket.local_addr().unwrap();
        let mut datagrams = Datagrams::new(BATCH);
        let mut take = |count: usize| {
            (0..count).for_each(|_| assert_eq!(client.send_to(b"x", to).unwrap(), 1));
            let received = datagrams.receive(&server).unwrap();
            (received, datagrams.iter().count(), datagrams.window)
        };
        assert_eq!(take(1), (Received::All, 1, FEW));
        assert_eq!(take(BATCH), (Received::Window, FEW, (4 * FEW).min(BATCH)));
        assert_eq!(take(BATCH), (Received::Batch, BATCH, BATCH));
        assert_eq!(take(0), (Received::All, BATCH - FEW, (2 * (BATCH - FEW)).min(BATCH)));
        assert_eq!(take(1), (Received::All, 1, FEW));
    }

    #[test]
    fn sockets_of_both_families_may_use_the_same_buffers_in_turn() {
        let mut datagrams = Datagrams::new(BATCH);
        for address in ["[::1]:0", "127.0.0.1:0", "[::1]:0", "[::]:0", "0.0.0.0:0", "[::1]:0"] {
            let (server, client) = pair(address);
            let mut to = server.socket.local_addr().unwrap();
            to.set_ip(client.local_addr().unwrap().ip());
            client.send_to(b"x", to).unwrap();
            assert_eq!(datagrams.receive(&server).unwrap(), Received::All);
            assert_eq!(datagrams.iter().next().unwrap().0.peer, client.local_addr().unwrap(), "{address}");
        }
    }

    #[test]
    fn one_reply_that_cannot_be_sent_does_not_stop_the_others() {
        let (server, client) = pair("127.0.0.1:0");
        let good = ClientToken { peer: client.local_addr().unwrap(), local: None, interface: 0 };
        let bad = ClientToken { peer: "[::1]:9".parse().unwrap(), ..good };
        let replies = [(&good, &b"a"[..]), (&bad, b"b"), (&bad, b"c"), (&good, b"d")];
        assert_eq!(send(&server, replies.into_iter()), 2);
        let mut buffer = [0; 8];
        for expected in [b"a", b"d"] {
            let len = client.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..len], expected);
        }
    }

    #[test]
    fn many_more_replies_than_a_batch_are_all_sent() {
        let (server, client) = pair("127.0.0.1:0");
        let token = ClientToken { peer: client.local_addr().unwrap(), local: None, interface: 0 };
        assert_eq!(send(&server, std::iter::repeat_n((&token, &b"x"[..]), 2 * BATCH)), 0);
        let mut buffer = [0; 8];
        for _ in 0..2 * BATCH {
            assert_eq!(client.recv(&mut buffer).unwrap(), 1);
        }
    }

    #[test]
    fn reply_to_a_vanished_client_does_not_disturb_the_next_receive() {
        let (server, client) = pair("127.0.0.1:0");
        let gone = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let token = ClientToken { peer: gone, local: None, interface: 0 };
        send(&server, std::iter::once((&token, &b"x"[..])));
        client.send_to(b"after", server.socket.local_addr().unwrap()).unwrap();
        let mut datagrams = Datagrams::new(BATCH);
        assert_eq!(datagrams.receive(&server).unwrap(), Received::All);
        assert_eq!(datagrams.iter().count(), 1);
        assert_eq!(datagrams.iter().next().unwrap().1, b"after");
    }
}
