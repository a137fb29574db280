//! Many replies out by one `sendmmsg`, each whole or, where its way cannot carry it, cut.

use super::{BatchSocket, Family, FamilyAddress, MOST, ReplySource, SLOT};
use crate::resolver::waiter::ClientToken;
use crate::wire::reply;
use nix::errno::Errno;
use nix::libc::{self, in_addr, in_pktinfo, in6_addr, in6_pktinfo};
use nix::sys::socket::{
    ControlMessage, MsgFlags, MultiHeaders, SockaddrIn, SockaddrIn6, SockaddrStorage, sendmmsg, sendmsg,
};
use std::cell::RefCell;
use std::io::IoSlice;
use std::net::{IpAddr, UdpSocket};
use std::os::fd::AsRawFd;

/// Replies being written, to be sent together. Buffers are reused.
#[derive(Debug)]
pub(in crate::listener) struct Replies {
    /// A slot for each reply of a batch.
    octets: Box<[u8]>,
    /// For whom each reply is and how long it is.
    written: Vec<(ClientToken, usize)>,
}

impl Replies {
    /// Allocates the buffers of a batch, at most `MOST` replies.
    pub(in crate::listener) fn new(batch: usize) -> Self {
        let batch = batch.clamp(1, MOST);
        Self { octets: vec![0; batch * SLOT].into_boxed_slice(), written: Vec::with_capacity(batch) }
    }

    /// Returns where the next reply may be written; empty when the batch is full.
    pub(in crate::listener) fn slot(&mut self) -> &mut [u8] {
        self.octets.chunks_exact_mut(SLOT).nth(self.written.len()).unwrap_or_default()
    }

    /// Keeps the first `octets` of the slot as the reply to `client`.
    pub(in crate::listener) fn commit(&mut self, client: ClientToken, octets: usize) {
        self.written.push((client, octets));
    }

    /// Sends all; returns how many could not be sent.
    pub(in crate::listener) fn flush(&mut self, by: &BatchSocket) -> usize {
        let slots = self.octets.chunks_exact(SLOT);
        let replies = self.written.iter().zip(slots);
        let unsent =
            send(by, replies.map(|((client, len), slot)| (client, slot.get(..*len).unwrap_or(slot))));
        self.written.clear();
        unsent
    }
}

/// What `sendmmsg` needs, kept from call to call.
struct Outgoing<S> {
    /// For `sendmmsg` only.
    headers: MultiHeaders<S>,
    /// For whom each reply of the batch is.
    addresses: Vec<Option<S>>,
}

impl<S: FamilyAddress> Outgoing<S> {
    /// Allocates for batches of any length.
    fn new() -> Self {
        Self { headers: MultiHeaders::preallocate(MOST, None), addresses: Vec::with_capacity(MOST) }
    }
}

thread_local! {
    /// One for each thread that sends on IPv4 sockets: the workers.
    static SEND_V4: RefCell<Outgoing<SockaddrIn>> = RefCell::new(Outgoing::new());
    /// One for each thread that sends on IPv6 sockets.
    static SEND_V6: RefCell<Outgoing<SockaddrIn6>> = RefCell::new(Outgoing::new());
}

/// Sends replies without blocking; returns how many could not be sent. A client whose reply is lost asks again. A single
/// one, the usual case at moderate load, goes by the plain call, which has less to prepare.
pub(in crate::listener) fn send<'a>(
    by: &BatchSocket,
    mut replies: impl Iterator<Item = (&'a ClientToken, &'a [u8])>,
) -> usize {
    match by.source {
        ReplySource::AsAsked => {
            replies.filter(|(client, reply)| !send_one(&by.socket, client, reply)).count()
        }
        ReplySource::Bound => match (replies.next(), replies.next()) {
            (None, _) => 0,
            (Some((client, reply)), None) => usize::from(!send_alone(&by.socket, client, reply)),
            (first, second) => send_batches(by, first.into_iter().chain(second).chain(replies)),
        },
    }
}

/// Sends replies by batches; returns how many could not be sent.
fn send_batches<'a>(by: &BatchSocket, replies: impl Iterator<Item = (&'a ClientToken, &'a [u8])>) -> usize {
    match by.family {
        Family::V4 => SEND_V4.with_borrow_mut(|outgoing| outgoing.send(by, replies)),
        Family::V6 => SEND_V6.with_borrow_mut(|outgoing| outgoing.send(by, replies)),
    }
}

impl<S: FamilyAddress> Outgoing<S> {
    /// Sends replies by batches; returns how many could not be sent.
    fn send<'a>(
        &mut self,
        by: &BatchSocket,
        mut replies: impl Iterator<Item = (&'a ClientToken, &'a [u8])>,
    ) -> usize {
        let mut unsent = 0;
        loop {
            let mut buffers = [[IoSlice::new(&[])]; MOST];
            self.addresses.clear();
            // Those of another family have no place: from a connected socket the kernel would send them to its peer.
            let mut sendable = replies.by_ref().filter_map(|(client, reply)| {
                let address = S::new(client.peer);
                unsent += usize::from(address.is_none());
                Some((address?, reply))
            });
            for (buffer, (address, reply)) in buffers.iter_mut().take(by.batch).zip(&mut sendable) {
                *buffer = [IoSlice::new(reply)];
                self.addresses.push(Some(address));
            }
            unsent += self.send_many(&by.socket, &buffers);
            if self.addresses.len() < by.batch {
                return unsent;
            }
        }
    }

    /// Sends one batch; returns how many of it could not be sent. `buffers` and `self.addresses` go together.
    fn send_many(&mut self, socket: &UdpSocket, buffers: &[[IoSlice<'_>; 1]]) -> usize {
        let Self { headers, addresses } = self;
        let mut unsent = 0;
        let mut done = 0;
        while let (Some(buffers), Some(addresses @ [_, ..])) = (buffers.get(done..), addresses.get(done..)) {
            match sendmmsg(socket.as_raw_fd(), headers, buffers, addresses, [], MsgFlags::MSG_DONTWAIT) {
                // The results cannot be asked for their number, only counted.
                Ok(sent) => done += sent.count().max(1),
                Err(Errno::EINTR) => {}
                // The socket's send buffer is full: so it will be for the rest.
                Err(Errno::EAGAIN | Errno::ENOBUFS) => return unsent + addresses.len(),
                Err(Errno::EMSGSIZE) => {
                    unsent += usize::from(!send_first_cut(socket, buffers, addresses));
                    done += 1;
                }
                // The error is of the first one only, and may even be an ICMP error about an earlier reply.
                Err(_) => {
                    unsent += 1;
                    done += 1;
                }
            }
        }
        unsent
    }
}

/// Sends the first of a batch, which is too long for its way; false when it could not be sent.
fn send_first_cut<S: FamilyAddress>(
    socket: &UdpSocket,
    buffers: &[[IoSlice<'_>; 1]],
    addresses: &[Option<S>],
) -> bool {
    let ([[reply], ..], [Some(address), ..]) = (buffers, addresses) else { return false };
    send_one(socket, &ClientToken::new(address.plain()), reply)
}

/// Sends one reply from the address that the socket is bound to; false when it could not be sent.
fn send_alone(socket: &UdpSocket, client: &ClientToken, reply: &[u8]) -> bool {
    match socket.send_to(reply, client.peer) {
        Ok(_) => true,
        Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) => send_one(socket, client, reply),
        Err(_) => false,
    }
}

/// Sends one reply from the address that was asked, or cut when its way is known to be too narrow for the whole; false when it
/// could not be sent.
fn send_one(socket: &UdpSocket, client: &ClientToken, reply: &[u8]) -> bool {
    match send_as_asked(socket, client, reply) {
        Err(Errno::EMSGSIZE) => {
            let mut room = [0; SLOT];
            let cut = reply::cut(reply, &mut room).and_then(|octets| room.get(..octets));
            tracing::debug!(octets = reply.len(), "a reply was cut: its way takes no datagram so long");
            cut.is_some_and(|cut| send_as_asked(socket, client, cut).is_ok())
        }
        result => result.is_ok(),
    }
}

/// Sends one datagram from the address that was asked.
fn send_as_asked(socket: &UdpSocket, client: &ClientToken, reply: &[u8]) -> Result<(), Errno> {
    let peer = SockaddrStorage::from(client.peer);
    let buffer = [IoSlice::new(reply)];
    let send = |control: &[ControlMessage<'_>]| {
        sendmsg(socket.as_raw_fd(), &buffer, control, MsgFlags::MSG_DONTWAIT, Some(&peer)).map(|_| ())
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
