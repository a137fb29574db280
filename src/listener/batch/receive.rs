//! Many datagrams in by one `recvmmsg`, with who sent them.

use super::{ALONE, BatchSocket, CONTROL_OCTETS, FEW, Family, MOST, ReplySource, SLOT};
use crate::resolver::waiter::ClientToken;
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, MultiHeaders, RecvMsg, SockaddrIn, SockaddrIn6, SockaddrLike,
    SockaddrStorage, recvmmsg, recvmsg,
};
use std::io::{self, IoSliceMut};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd;

/// Datagrams just received. Buffers are reused.
pub(in crate::listener) struct Datagrams {
    /// For `recvmmsg` on IPv4 sockets.
    headers_v4: MultiHeaders<SockaddrIn>,
    /// For `recvmmsg` on IPv6 sockets.
    headers_v6: MultiHeaders<SockaddrIn6>,
    /// A slot for each datagram of a batch.
    octets: Box<[u8]>,
    /// Who sent each datagram and how long it is.
    received: Vec<(ClientToken, usize)>,
    /// How many are taken next: headers are made ready for each, which a query that comes alone would pay for.
    pub(super) window: usize,
}

/// Whether to wait for a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::listener) enum Patience {
    /// No.
    None,
    /// For the first, as long as the socket's time limit says; for no further one. Needs a blocking socket.
    First,
}

/// How many datagrams were received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::listener) enum Received {
    /// As many as there were, and so few that hardly another has come since.
    All,
    /// Less than a batch, but there may be more: as many as were asked for, or so many that others come meanwhile: to ask once
    /// more costs less than to wait for what is there already.
    Part,
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
    pub(in crate::listener) fn new(batch: usize) -> Self {
        let batch = batch.clamp(1, MOST);
        Self {
            headers_v4: MultiHeaders::preallocate(batch, None),
            headers_v6: MultiHeaders::preallocate(batch, None),
            octets: vec![0; batch * SLOT].into_boxed_slice(),
            received: Vec::with_capacity(batch),
            window: batch.min(ALONE),
        }
    }

    /// Takes what is queued, at most a batch. `WouldBlock` when there is nothing.
    pub(in crate::listener) fn receive(
        &mut self,
        from: &BatchSocket,
        patience: Patience,
    ) -> io::Result<Received> {
        self.received.clear();
        let batch = self.octets.len() / SLOT;
        let asked = match from.source {
            ReplySource::Bound => {
                let Self { headers_v4, headers_v6, octets, received, window } = self;
                let how = How { window: *window, flags: patience.for_many() };
                match from.family {
                    Family::V4 => receive_together(from, headers_v4, octets, how, received)?,
                    Family::V6 => receive_together(from, headers_v6, octets, how, received)?,
                }
                *window
            }
            ReplySource::AsAsked => {
                self.receive_each(&from.socket, patience)?;
                batch
            }
        };
        let received = self.received.len();
        let is_full = received >= asked;
        self.window = if is_full { asked * 4 } else { received * 2 }.clamp(ALONE.min(batch), batch);
        Ok(match is_full {
            true if asked == batch => Received::Batch,
            false if received * 2 <= FEW => Received::All,
            true | false => Received::Part,
        })
    }

    /// Returns how many were received.
    pub(in crate::listener) fn len(&self) -> usize {
        self.received.len()
    }

    /// Returns what was received, in order.
    pub(in crate::listener) fn iter(&self) -> impl Iterator<Item = (&ClientToken, &[u8])> {
        let slots = self.octets.chunks_exact(SLOT);
        self.received
            .iter()
            .zip(slots)
            .map(|((client, len), slot)| (client, slot.get(..*len).unwrap_or(slot)))
    }

    /// Receives by one `recvmsg` each, with the address that was asked.
    fn receive_each(&mut self, socket: &UdpSocket, patience: Patience) -> io::Result<()> {
        let Self { octets, received, .. } = self;
        let mut flags = patience.for_one();
        for slot in octets.chunks_exact_mut(SLOT) {
            let mut control = [0; CONTROL_OCTETS];
            let mut buffer = [IoSliceMut::new(slot)];
            match recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut buffer, Some(&mut control), flags) {
                Ok(message) => received.push((asked_at(&message), message.bytes)),
                Err(_) if !received.is_empty() => break,
                Err(error) => return Err(error.into()),
            }
            flags = Patience::None.for_one();
        }
        Ok(())
    }
}

impl Patience {
    /// Returns what `recvmmsg` takes.
    fn for_many(self) -> MsgFlags {
        match self {
            Self::None => MsgFlags::MSG_DONTWAIT,
            Self::First => MsgFlags::MSG_WAITFORONE,
        }
    }

    /// Returns what `recvmsg` takes.
    fn for_one(self) -> MsgFlags {
        match self {
            Self::None => MsgFlags::MSG_DONTWAIT,
            Self::First => MsgFlags::empty(),
        }
    }
}

/// An address of one family as system calls take it: a quarter of the octets of one that may be of any, or less.
trait FamilyAddress: SockaddrLike + Copy {
    /// Returns the address.
    fn plain(self) -> SocketAddr;
}

impl FamilyAddress for SockaddrIn {
    fn plain(self) -> SocketAddr {
        SocketAddrV4::new(self.ip(), self.port()).into()
    }
}

impl FamilyAddress for SockaddrIn6 {
    fn plain(self) -> SocketAddr {
        SocketAddr::V6(self.into())
    }
}

/// How `recvmmsg` is called.
#[derive(Clone, Copy)]
struct How {
    /// Datagrams that it may take.
    window: usize,
    /// Whether it waits.
    flags: MsgFlags,
}

/// Receives what fits into the window by one `recvmmsg`.
fn receive_together<S: FamilyAddress>(
    from: &BatchSocket,
    headers: &mut MultiHeaders<S>,
    octets: &mut [u8],
    how: How,
    received: &mut Vec<(ClientToken, usize)>,
) -> io::Result<()> {
    match how.window {
        ..=ALONE => receive_many::<ALONE, S>(from, headers, octets, how, received),
        _ if how.window <= FEW => receive_many::<FEW, S>(from, headers, octets, how, received),
        _ => receive_many::<MOST, S>(from, headers, octets, how, received),
    }
}

/// Receives by one `recvmmsg` what fits into the window, at most `N`. Not inline: what a query that comes alone runs through lies
/// together, without the long rows of steps for batches in between.
#[inline(never)]
fn receive_many<const N: usize, S: FamilyAddress>(
    from: &BatchSocket,
    headers: &mut MultiHeaders<S>,
    octets: &mut [u8],
    how: How,
    received: &mut Vec<(ClientToken, usize)>,
) -> io::Result<()> {
    let mut slots = octets.chunks_exact_mut(SLOT);
    let mut buffers: [[IoSliceMut<'_>; 1]; N] =
        std::array::from_fn(|_| [IoSliceMut::new(slots.next().unwrap_or_default())]);
    let How { window, flags } = how;
    let messages = recvmmsg(from.socket.as_raw_fd(), headers, buffers.iter_mut().take(window), flags, None)?;
    for message in messages {
        let peer = message.address.map_or(NOBODY, S::plain);
        received.push((ClientToken::new(peer), message.bytes));
    }
    Ok(())
}

/// Port 0, which nobody can be answered at, stands for an address that cannot be read.
const NOBODY: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0));

/// Reads who sent a datagram, and to which of our addresses if the socket reports it.
fn asked_at(message: &RecvMsg<'_, '_, SockaddrStorage>) -> ClientToken {
    let peer = message.address.as_ref().and_then(socket_address).unwrap_or(NOBODY);
    let mut client = ClientToken::new(peer);
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
    let v4 = address.as_sockaddr_in().map(|v4| v4.plain());
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| v6.plain()))
}
