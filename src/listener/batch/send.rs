//! Many replies out by one `sendmmsg`, each whole or, where its way cannot carry it, cut.

use super::{BatchSocket, MOST, ReplySource, SLOT};
use crate::resolver::waiter::ClientToken;
use crate::wire::reply;
use nix::errno::Errno;
use nix::libc::{in_addr, in_pktinfo, in6_addr, in6_pktinfo};
use nix::sys::socket::{ControlMessage, MsgFlags, MultiHeaders, SockaddrStorage, sendmmsg, sendmsg};
use rustix::net::{SendFlags, sendto};
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
struct Outgoing {
    /// For `sendmmsg` only. Addresses of any family: nix reads what it never wrote when it counts what was sent, which only a
    /// union of octets may have done to it.
    headers: MultiHeaders<SockaddrStorage>,
    /// For whom each reply of the batch is.
    addresses: Vec<Option<SockaddrStorage>>,
}

thread_local! {
    /// One for each thread that sends: workers, attendants.
    static OUTGOING: RefCell<Outgoing> = RefCell::new(Outgoing {
        headers: MultiHeaders::preallocate(MOST, None),
        addresses: Vec::with_capacity(MOST),
    });
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

/// Sends replies by batches; returns how many could not be sent. Not inline, as `receive_many`.
#[inline(never)]
fn send_batches<'a>(
    by: &BatchSocket,
    mut replies: impl Iterator<Item = (&'a ClientToken, &'a [u8])>,
) -> usize {
    OUTGOING.with_borrow_mut(|outgoing| {
        let mut unsent = 0;
        loop {
            let mut buffers = [[IoSlice::new(&[])]; MOST];
            outgoing.addresses.clear();
            for (buffer, (client, reply)) in buffers.iter_mut().take(by.batch).zip(replies.by_ref()) {
                *buffer = [IoSlice::new(reply)];
                outgoing.addresses.push(Some(client.peer.into()));
            }
            unsent += outgoing.send(&by.socket, &buffers);
            if outgoing.addresses.len() < by.batch {
                return unsent;
            }
        }
    })
}

impl Outgoing {
    /// Sends one batch; returns how many of it could not be sent. `buffers` and the addresses go together.
    fn send(&mut self, socket: &UdpSocket, buffers: &[[IoSlice<'_>; 1]]) -> usize {
        let Self { headers, addresses } = self;
        let mut unsent = 0;
        let mut done = 0;
        while let (Some(buffers @ [[first], ..]), Some(addresses @ [address, ..])) =
            (buffers.get(done..), addresses.get(done..))
        {
            match sendmmsg(socket.as_raw_fd(), headers, buffers, addresses, [], MsgFlags::MSG_DONTWAIT) {
                // The results cannot be asked for their number, only counted.
                Ok(sent) => done += sent.count().max(1),
                Err(Errno::EINTR) => {}
                // The socket's send buffer is full: so it will be for the rest.
                Err(Errno::EAGAIN | Errno::ENOBUFS) => return unsent + addresses.len(),
                // The error is of the first one only, and may even be an ICMP error about an earlier reply.
                Err(error) => {
                    let is_sent = error == Errno::EMSGSIZE
                        && cut(first, |rest| send_from(socket, address.as_ref(), rest, &[]));
                    unsent += usize::from(!is_sent);
                    done += 1;
                }
            }
        }
        unsent
    }
}

/// Sends one reply from the address that the socket is bound to; false when it could not be sent. Not by the C library, whose
/// calls can be cancelled, for which it takes some steps before each and after it.
fn send_alone(socket: &UdpSocket, client: &ClientToken, reply: &[u8]) -> bool {
    match sendto(socket, reply, SendFlags::DONTWAIT, &client.peer) {
        Ok(_) => true,
        Err(rustix::io::Errno::MSGSIZE) => cut(reply, |rest| send_as_asked(socket, client, rest)),
        Err(_) => false,
    }
}

/// Sends one reply from the address that was asked; false when it could not be sent.
fn send_one(socket: &UdpSocket, client: &ClientToken, reply: &[u8]) -> bool {
    match send_as_asked(socket, client, reply) {
        Err(Errno::EMSGSIZE) => cut(reply, |rest| send_as_asked(socket, client, rest)),
        result => result.is_ok(),
    }
}

/// Sends what is left of a reply that its way cannot carry whole; false when that cannot be sent either.
fn cut(reply: &[u8], send: impl FnOnce(&[u8]) -> Result<(), Errno>) -> bool {
    let mut room = [0; SLOT];
    let rest = reply::cut(reply, &mut room).and_then(|octets| room.get(..octets));
    let is_sent = rest.is_some_and(|rest| send(rest).is_ok());
    if is_sent {
        tracing::debug!(octets = reply.len(), "a reply was cut: its way takes no datagram so long");
    }
    is_sent
}

/// Sends one datagram.
fn send_from(
    socket: &UdpSocket,
    peer: Option<&SockaddrStorage>,
    octets: &[u8],
    control: &[ControlMessage<'_>],
) -> Result<(), Errno> {
    let buffer = [IoSlice::new(octets)];
    sendmsg(socket.as_raw_fd(), &buffer, control, MsgFlags::MSG_DONTWAIT, peer).map(|_| ())
}

/// Sends one datagram from the address that was asked.
fn send_as_asked(socket: &UdpSocket, client: &ClientToken, reply: &[u8]) -> Result<(), Errno> {
    let peer = SockaddrStorage::from(client.peer);
    let send = |control: &[ControlMessage<'_>]| send_from(socket, Some(&peer), reply, control);
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
