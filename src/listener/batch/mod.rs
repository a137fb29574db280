//! The system calls of UDP: many datagrams in by one `recvmmsg`, many replies out by one `sendmmsg`, and
//! the control messages that let a wildcard socket answer from the address it was asked at. The one place
//! that names `nix`; if measurements ask for more, the one file to replace. What is in a datagram is not
//! its matter.
//!
//! No reply is sent in fragments, which can be forged and get lost (RFC 9715 §3.1): a way that cannot carry it whole carries
//! what sends the client to TCP.
//!
//! nix's headers hold raw pointers, so they cannot move between threads: they live in thread-locals, which
//! also lets a reply leave from any thread. Receiving and sending never share headers: `sendmmsg` leaves
//! the caller's address pointers in them.

mod receive;
mod send;
#[cfg(test)]
mod tests;

pub(super) use self::receive::{Datagrams, Received};
pub(super) use self::send::{Replies, send};

use crate::config::settings::MAX_UDP_BATCH;
use crate::wire::MAX_UDP_REPLY;
use nix::sys::socket::sockopt::{Ipv4PacketInfo, Ipv6RecvPacketInfo, RcvBufForce};
use nix::sys::socket::{SockaddrIn, SockaddrIn6, SockaddrLike, setsockopt};
use rustix::net::sockopt::{
    Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery, set_ip_mtu_discover, set_ipv6_mtu_discover,
};
use std::io;
use std::net::{SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::AsFd;

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

/// An address of one family as system calls take it: an eighth of the octets of one that may be of any.
trait FamilyAddress: SockaddrLike + Copy {
    /// Takes an address; None for one of another family.
    fn new(address: SocketAddr) -> Option<Self>;

    /// Returns the address.
    fn plain(self) -> SocketAddr;
}

impl FamilyAddress for SockaddrIn {
    fn new(address: SocketAddr) -> Option<Self> {
        match address {
            SocketAddr::V4(v4) => Some(v4.into()),
            SocketAddr::V6(_) => None,
        }
    }

    fn plain(self) -> SocketAddr {
        SocketAddrV4::new(self.ip(), self.port()).into()
    }
}

impl FamilyAddress for SockaddrIn6 {
    fn new(address: SocketAddr) -> Option<Self> {
        match address {
            SocketAddr::V4(_) => None,
            SocketAddr::V6(v6) => Some(v6.into()),
        }
    }

    fn plain(self) -> SocketAddr {
        SocketAddr::V6(self.into())
    }
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
        forbid_fragments(&socket, family);
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

/// Has the kernel refuse what its way, as far as known, could only carry in fragments, and ask routers not to make any
/// (RFC 9715 §3.1). It also spares the kernel an identification for each reply.
fn forbid_fragments(socket: &UdpSocket, family: Family) {
    let set = match family {
        Family::V4 => set_ip_mtu_discover(socket, Ipv4PathMtuDiscovery::DO),
        Family::V6 => set_ipv6_mtu_discover(socket, Ipv6PathMtuDiscovery::DO),
    };
    if let Err(error) = set {
        tracing::debug!(%error, "replies may be sent in fragments");
    }
}

/// Raises the receive buffer beyond the system's limit, if this process may.
pub(super) fn force_receive_buffer(socket: &impl AsFd, octets: usize) -> io::Result<()> {
    Ok(setsockopt(socket, RcvBufForce, &octets)?)
}
