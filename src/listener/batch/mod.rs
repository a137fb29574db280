//! The system calls of UDP: many datagrams in by one `recvmmsg`, many replies out by one `sendmmsg`, and
//! the control messages that let a wildcard socket answer from the address it was asked at. If measurements ask for more, the
//! one place to replace. What is in a datagram is not its matter.
//!
//! The kernel makes no fragments of a reply, which get lost and can be forged (RFC 9715): on a way that is known not to carry
//! it whole goes what sends the client to TCP.
//!
//! nix's headers hold raw pointers, so they cannot move between threads: they live in thread-locals, which
//! also lets a reply leave from any thread. Receiving and sending never share headers: `sendmmsg` leaves
//! the caller's address pointers in them.

mod receive;
mod send;
#[cfg(test)]
mod tests;

pub(super) use self::receive::{Datagrams, Patience, Received};
pub(super) use self::send::{Replies, send};

use crate::config::settings::MAX_UDP_BATCH;
use crate::wire::MAX_UDP_REPLY;
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::{Ipv4PacketInfo, Ipv6RecvPacketInfo, RcvBufForce};
use rustix::net::sockopt::{
    Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery, ip_mtu_discover, set_ip_mtu_discover, set_ipv6_mtu_discover,
};
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;

/// Datagrams taken or sent by one system call at most; the operator may say fewer (`limits.udp_batch`).
const MOST: usize = MAX_UDP_BATCH;

/// Datagrams taken at once while they come one by one: one more than there are, to see that the queue is empty.
const ALONE: usize = 2;

/// Datagrams taken at once while few come.
const FEW: usize = 8;

/// Room for one datagram, either way. A longer query is cut, and a cut query is malformed.
const SLOT: usize = MAX_UDP_REPLY;

/// Room for the control message of either family, and some.
const CONTROL_OCTETS: usize = 128;

/// A UDP socket and how it answers.
#[derive(Debug)]
pub(super) struct BatchSocket {
    /// Of one family (`IPV6_V6ONLY`). It may be a blocking one: each call says itself whether it waits.
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
    /// Takes a bound socket; one that is bound to every address is told to report which one
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

/// Has the kernel refuse what its way, as far as known, could only carry in fragments. Until then it asks routers for none and
/// makes them itself (`IP_PMTUDISC_WANT`). It also spares the kernel an identification for each reply over IPv4.
///
/// An operator who turned path MTU discovery off (`net.ipv4.ip_no_pmtu_disc`) keeps that: word of narrow ways is not heard
/// then, and what must not be made fragments of would be lost.
fn forbid_fragments(socket: &UdpSocket, family: Family) {
    // A socket of another process may be of both families.
    let v4 = match ip_mtu_discover(socket) {
        Ok(Ipv4PathMtuDiscovery::WANT) => set_ip_mtu_discover(socket, Ipv4PathMtuDiscovery::DO),
        Ok(_) => Ok(()),
        Err(error) => Err(error),
    };
    let v6 = match family {
        Family::V4 => Ok(()),
        Family::V6 => set_ipv6_mtu_discover(socket, Ipv6PathMtuDiscovery::DO),
    };
    if let Err(error) = v4.and(v6) {
        tracing::debug!(%error, "replies may be sent in fragments");
    }
}

/// Raises the receive buffer beyond the system's limit, if this process may.
pub(super) fn force_receive_buffer(socket: &impl AsFd, octets: usize) -> io::Result<()> {
    Ok(setsockopt(socket, RcvBufForce, &octets)?)
}
